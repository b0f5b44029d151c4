"""Many machines: joining the records of their runs, and measuring them through a Ray cluster."""
