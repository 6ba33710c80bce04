"""Alembic's entry: `tillgate.store.schema` gives it an open connection."""

from __future__ import annotations

from alembic import context

from tillgate.store.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=True,  # SQLite changes a column by copying its table
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
