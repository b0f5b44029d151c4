"""The search for the release of a package that made a workload slower."""
