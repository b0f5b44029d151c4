"""The search for the release of a package, or the commit of an engine, that made a workload slower."""
