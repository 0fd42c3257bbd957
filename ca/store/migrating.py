"""Brings a database to this version's tables, by Alembic. Owns the locks of a migration; the tables' history stands in `migrations/`.

Every migration runs inside one transaction, also on SQLite: a crash leaves the tables as they were.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError

from ca.errors import Misconfigured

_LOCK = 0x666C656574_6361
"""The advisory lock under which one process at a time changes the tables of a PostgreSQL database."""


@dataclass(frozen=True, slots=True)
class History:
    """The migrations of one set of tables.

    Args:
        folder: its `env.py` and versions.
        version_table: where a database notes how far it is.
    """

    folder: Path
    version_table: str


OURS = History(Path(__file__).parent / "migrations", "alembic_version")


def _config(history: History, connection: sa.Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(history.folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    if connection is not None:
        config.attributes["connection"] = connection
    return config


def head(history: History = OURS) -> str:
    """The revision that this program needs."""
    found = ScriptDirectory.from_config(_config(history)).get_current_head()
    if found is None:
        raise Misconfigured("store-revisions", "This installation holds no migrations.", fix="Install fleetca anew.")
    return found


def upgrade(engine: sa.Engine, history: History = OURS) -> str:
    """Run what is missing, under a lock. Returns the revision the database now has."""
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        try:
            command.upgrade(_config(history, connection), "head")
        except CommandError as error:
            raise Misconfigured(
                "store-newer",
                "The tables of the database are of another version of fleetca.",
                why=str(error),
                fix="Run the version of fleetca that migrated it, or a newer one.",
            ) from error
        return _current(connection, history) or head(history)


def current(engine: sa.Engine, history: History = OURS) -> str | None:
    """The revision that the database has; None where it has no tables of ours."""
    with engine.connect() as connection:
        return _current(connection, history)


def _current(connection: sa.Connection, history: History) -> str | None:
    found: Any = MigrationContext.configure(connection, opts={"version_table": history.version_table}).get_current_revision()
    return None if found is None else str(found)
