"""The history: every run's record in a database, and what a workload's speed did over the runs.

SQLAlchemy, Alembic and ruptures come with the extra `history` and are imported by the modules of this room alone, which
nothing imports until `--rwkv-history` or `rwkvperf history` asks for them.
"""
