"""Python environments with another build of an engine, made when they are needed and kept in the user's cache."""
