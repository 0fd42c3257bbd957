"""Alembic's entry for the protocols' tables: runs migrations on the connection that was handed over, inside its transaction."""

from __future__ import annotations

from alembic import context

from enroll.store.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table="enroll_version",
    transactional_ddl=True,
    render_as_batch=connection.dialect.name == "sqlite",
)
context.run_migrations()
