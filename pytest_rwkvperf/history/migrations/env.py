"""What Alembic runs to bring a database up to date, over the connection that `history/database.py` gives it."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
