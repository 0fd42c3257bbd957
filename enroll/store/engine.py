"""Brings a database to this version's protocol tables. They lie beside the authority's, in a history of their own."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import exc

from ca.store.database import create_file, migrating_engine, parsed
from ca.store.failures import named


def migrate(url: str) -> str:
    """Bring the protocol tables to this version. Returns the revision they now have. Safe to repeat, and for two processes at once.

    Raises:
        StoreUnavailable: the database cannot be reached or written.
        Misconfigured: its tables are newer than this program (`store-newer`).
    """
    from ca.store.migrating import History, upgrade  # noqa: PLC0415 - Alembic, which a service that only opens the store must not wait for

    parts = parsed(url)
    if parts.drivername == "sqlite":
        create_file(Path(parts.database or ""))
    engine = migrating_engine(parts)
    try:
        return upgrade(engine, History(Path(__file__).parent / "migrations", "enroll_version"))
    except exc.DBAPIError as error:
        raise named(error.orig or error) from error
    finally:
        engine.dispose()
