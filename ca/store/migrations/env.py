"""Alembic's entry: runs migrations on the connection that `ca.store.migrating` hands over, inside its transaction."""

from __future__ import annotations

from alembic import context

from ca.store.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection, target_metadata=metadata, transactional_ddl=True, render_as_batch=connection.dialect.name == "sqlite"
)
context.run_migrations()
