"""Opens a store: the one place where the parts of `ca/store` are put together. Also brings a database to this version's tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import exc

from ca.store.database import SQLITE, Database, create_file, journal_mode_of, migrating_engine, parsed
from ca.store.failures import named
from ca.store.ledger import SqlLedger
from ca.store.reading import Reading

_WRITERS = sa.text(
    "SELECT rolname FROM pg_roles WHERE rolcanlogin AND NOT rolsuper AND has_table_privilege(oid, 'certificates', 'INSERT') ORDER BY rolname"
)


@dataclass(frozen=True, slots=True)
class Store:
    """An open database. `ledger` writes (`ca.ports.Ledger`, `ca.ports.SequencingLedger`), `reading` reads; both are thread-safe."""

    ledger: SqlLedger
    reading: Reading
    databases: tuple[Database, ...]
    backend: str
    """`sqlite` or `postgresql`."""
    journal_mode: str | None
    """SQLite's, as chosen for the version of the library in use; None for PostgreSQL."""

    def writers(self) -> Sequence[str]:
        """The database roles that may log in and write certificates, superusers aside. PostgreSQL only: SQLite knows no roles.

        Raises:
            StoreUnavailable: it cannot be asked now.
        """
        return [str(name) for (name,) in self.databases[0].query_once(_WRITERS, {})]

    def close(self) -> None:
        """Give back every connection. What is in use elsewhere breaks."""
        for database in self.databases:
            database.dispose()


def open_store(url: str, *, readonly: bool = False) -> Store:
    """Open a database that `migrate` has made. Nothing is connected before the first question.

    Args:
        url: `sqlite:///PATH` or `postgresql+psycopg://...`; a relative path counts from the working directory.
        readonly: the ledger's transactions fail too (`store-readonly`): the database itself refuses to write.

    Raises:
        Misconfigured: the url names no database that we speak.
    """
    reads = Database(url, writes=False)
    writes = reads if readonly else Database(url, writes=True)
    return Store(
        ledger=SqlLedger(writes),
        reading=Reading(reads),
        databases=(reads,) if readonly else (reads, writes),
        backend="sqlite" if reads.is_sqlite else "postgresql",
        journal_mode=journal_mode_of(SQLITE.sqlite_version_info) if reads.is_sqlite else None,
    )


def migrate(url: str) -> str:
    """Bring the database to this version's tables; makes the SQLite file (0600) when there is none. Returns the revision it now has.

    Safe to repeat, and for two processes at once: the second waits. A crash leaves the tables as they were before.

    Raises:
        StoreUnavailable: it cannot be reached or written.
        Misconfigured: its tables are newer than this program (`store-newer`).
    """
    from ca.store import migrating  # noqa: PLC0415 - Alembic, which a service that only opens the store must not wait for

    parts = parsed(url)
    if parts.drivername == "sqlite":
        create_file(Path(parts.database or ""))
    engine = migrating_engine(parts)
    try:
        return migrating.upgrade(engine)
    except exc.DBAPIError as error:
        raise named(error.orig or error) from error
    finally:
        engine.dispose()


def revision(url: str) -> tuple[str | None, str]:
    """The revision that the database has (None: no tables) and the one that this program needs.

    Raises:
        StoreUnavailable: it cannot be reached.
    """
    from ca.store import migrating  # noqa: PLC0415 - as above

    engine = migrating_engine(parsed(url))
    try:
        return migrating.current(engine), migrating.head()
    except exc.DBAPIError as error:
        raise named(error.orig or error) from error
    finally:
        engine.dispose()
