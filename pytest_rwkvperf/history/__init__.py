"""The history: every run's record in a database, and how a workload's speed changed over the runs.

SQLAlchemy, Alembic and ruptures come with the extra `history`; they are imported only when a history is used.
"""
