"""Baselines on disk: schema, reading, merging, atomic writing."""
