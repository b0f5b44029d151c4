"""Many machines: join the records of their runs, or measure them all through a Ray cluster."""
