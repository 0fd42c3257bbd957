"""One database, for one purpose (reading or writing): its connections, its dialect and its settings. Knows no table and no question.

Two databases are spoken: SQLite (one user, one host; by pysqlite3, the standard driver with a SQLite of its own) and PostgreSQL by psycopg 3. Statements are SQLAlchemy Core, compiled once per
dialect and then run on the driver's own cursor: SQLAlchemy's execution costs more than SQLite's work.

What is set, and why:
- SQLite: writers begin with BEGIN IMMEDIATE and queue on the file lock; the journal mode depends on the version (see `journal_mode_of`);
  a commit has reached the disk when it returns (`synchronous`). Readers open read-write with `query_only`: after a crash the first to
  come must roll the hot journal back, which a read-only handle cannot. Never open the file with another SQLite in the same process (the
  `sqlite3` of Python): closing a descriptor there drops the locks that are held here.
- PostgreSQL: READ COMMITTED, our own row locks; `synchronous_commit` is raised to `on` where a server turned it off; who stalls inside a
  transaction is thrown out after a minute, so that a stopped process does not hold the counters for ever.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pysqlite3.dbapi2
import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import NullPool, PoolProxiedConnection, QueuePool

from ca.errors import Misconfigured, StoreUnavailable
from ca.store.failures import named

SQLITE: Any = pysqlite3.dbapi2
"""It ships no types; it is the standard `sqlite3` but for the library in it."""

BUSY_SECONDS = 10
"""How long a statement waits for another's lock before it gives up."""

WAL_SAFE = ((3, 44, 6), (3, 50, 7), (3, 51, 3))
"""The first versions of their lines without the WAL-reset bug: below them, a checkpoint racing with a writer can lose committed rows."""


def journal_mode_of(version: tuple[int, ...]) -> str:
    """`wal` where this version of SQLite keeps its promises in it, else `delete`.

    Fixed in 3.51.3, and in the lines 3.44 and 3.50 from 3.44.6 and 3.50.7 on.
    """
    fixed = version >= WAL_SAFE[-1] or any(line <= version < (line[0], line[1] + 1) for line in WAL_SAFE)
    return "wal" if fixed else "delete"


def parsed(url: str) -> sa.URL:
    """A database url, or Misconfigured when it is none that we speak."""
    try:
        parts = sa.make_url(url)
    except exc.ArgumentError as error:
        raise Misconfigured("store-url", "[store] url cannot be read.", why=str(error)) from error
    if parts.drivername not in {"sqlite", "postgresql+psycopg"}:
        raise Misconfigured(
            "store-url",
            f"[store] url names a database that we do not speak: {parts.drivername}.",
            fix="Use sqlite:///PATH or postgresql+psycopg://USER@HOST/NAME.",
        )
    if parts.drivername == "sqlite" and (not parts.database or parts.database == ":memory:"):
        raise Misconfigured("store-url", "[store] url names no file.", fix="Use sqlite:///PATH.")
    return parts


def create_file(path: Path) -> None:
    """Make an empty database file that only we may read; SQLite gives its journals the same mode. Harmless when it is there."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
    except OSError as error:
        raise StoreUnavailable(
            "store-missing",
            f"The database file {path} cannot be made.",
            why=error.strerror or str(error),
            fix="Mend owner and mode of its folder.",
        ) from error


def _sqlite_engine(path: Path, *, writes: bool) -> sa.Engine:
    mode = journal_mode_of(SQLITE.sqlite_version_info)

    def connect() -> Any:
        # mode=rw: never make a file here, so that a wrong path is an error and not an empty database.
        connection = SQLITE.connect(
            f"file:{quote(str(path))}?mode=rw",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,  # we say BEGIN ourselves
            check_same_thread=False,  # the pool hands a connection to one thread at a time
            cached_statements=256,
        )
        try:
            # In rollback mode the deletion of the journal is the commit: EXTRA also brings that deletion to the disk, without which a
            # committed intent could be rolled back after a power loss, its signature already given away (P1).
            connection.execute(f"PRAGMA synchronous={'FULL' if mode == 'wal' else 'EXTRA'}")
            connection.execute(f"PRAGMA cache_size=-{65536 if writes else 16384}")
            connection.execute("PRAGMA temp_store=MEMORY")
            # Pages: 32 MiB of WAL. A batch of issuances writes some 250, most of them again in the next one: copied home once, not every fourth commit.
            connection.execute("PRAGMA wal_autocheckpoint=8192")
            if writes:
                (found,) = connection.execute(f"PRAGMA journal_mode={mode}").fetchone()
                if found != mode:
                    raise StoreUnavailable(
                        "store-busy", f"The journal mode of {path} cannot be set to {mode}.", why=f"It stays {found}: others have it open."
                    )
            else:
                connection.execute("PRAGMA query_only=ON")
        except BaseException:
            connection.close()
            raise
        return connection

    return sa.create_engine(
        "sqlite://",
        module=SQLITE,
        creator=connect,
        poolclass=QueuePool,
        pool_size=8,
        max_overflow=56,
        pool_timeout=BUSY_SECONDS,
        pool_reset_on_return=None,
    )


def _postgresql_engine(url: sa.URL, *, writes: bool) -> sa.Engine:
    settings = [
        f"SET lock_timeout = '{BUSY_SECONDS}s'",
        "SET idle_in_transaction_session_timeout = '60s'",
        "SET statement_timeout = '120s'",
        "SET client_encoding = 'UTF8'",
        # Never below what P1 needs; a server that waits for its standbys (remote_apply) stays as it is.
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')",
    ]
    if not writes:
        settings.append("SET default_transaction_read_only = on")
    engine = sa.create_engine(
        url,
        pool_size=8,
        max_overflow=24,
        pool_timeout=BUSY_SECONDS,
        pool_pre_ping=True,
        pool_reset_on_return=None,
        connect_args={"autocommit": True, "connect_timeout": 5, "application_name": "fleetca"},
    )

    @event.listens_for(engine, "connect")
    def _settle(connection: DBAPIConnection, _record: object) -> None:
        cursor = connection.cursor()
        for setting in settings:
            cursor.execute(setting)
        cursor.close()

    return engine


def _begin_immediately(engine: sa.Engine) -> None:
    """Make SQLAlchemy's transactions on SQLite real ones, and writers from the start: the driver's own begin comes too late for DDL."""

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def migrating_engine(url: sa.URL) -> sa.Engine:
    """An engine for the tables themselves, used by one connection for a short time."""
    if url.drivername == "sqlite":
        engine = _sqlite_engine(Path(url.database or ""), writes=True)
        _begin_immediately(engine)
        return engine
    # No time-outs here: a migration may take as long as it takes, and waits for another one.
    return sa.create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 5, "application_name": "fleetca-migrate"})


class Text(NamedTuple):
    """A statement in one dialect, with what turns its parameters by name into what the driver's cursor takes."""

    sql: str
    constants: Mapping[str, Any]
    """What stands in the statement itself as a parameter."""
    order: Callable[[Mapping[str, Any]], Any]

    def given(self, parameters: Mapping[str, Any]) -> Any:
        return self.order({**self.constants, **parameters} if self.constants else parameters)


def _as_they_are(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    return parameters


def _in_order(names: Sequence[str]) -> Callable[[Mapping[str, Any]], Any]:
    """SQLite's driver looks every name up, for every execution; a tuple it takes as it is."""
    if len(names) == 1:
        (name,) = names
        return lambda parameters: (parameters[name],)
    return itemgetter(*names) if names else lambda _: ()


class Texts(dict[sa.Executable, Text]):
    """Each statement's text in one dialect; compiled at its first use."""

    def __init__(self, dialect: Dialect) -> None:
        super().__init__()
        self._dialect = dialect

    def compile(self, statement: sa.Executable) -> Text:
        compiled = statement.compile(dialect=self._dialect)  # type: ignore[attr-defined]  # Executable is typed without it
        constants = {name: value for name, value in compiled.params.items() if value is not None}
        names = compiled.positiontup
        return Text(str(compiled), constants, _as_they_are if names is None else _in_order(names))

    def __missing__(self, statement: sa.Executable) -> Text:
        text = self[statement] = self.compile(statement)
        return text


class Database:
    """Connections to one database, for reading (`query`) or writing (`connect`). Safe to share between threads, not across a fork."""

    def __init__(self, url: str, *, writes: bool) -> None:
        parts = parsed(url)
        self.is_sqlite = parts.drivername == "sqlite"
        self.writes = writes
        if self.is_sqlite:
            self._engine = _sqlite_engine(Path(parts.database or ""), writes=writes)
            dialect: Dialect = sqlite.dialect(paramstyle="qmark")
        else:
            try:
                self._engine = _postgresql_engine(parts, writes=writes)
            except ImportError as error:
                raise Misconfigured(
                    "store-driver", "The driver for PostgreSQL is not installed.", why=str(error), fix="pip install 'fleetca[postgres]'"
                ) from error
            dialect = self._engine.dialect
        self.texts = Texts(dialect)
        self.driver_error: type[Exception] = self._engine.dialect.loaded_dbapi.Error

    def connect(self) -> PoolProxiedConnection:
        """A connection of the pool; closing gives it back."""
        try:
            return self._engine.raw_connection()
        except self.driver_error as error:
            raise named(error) from error
        except exc.DBAPIError as error:
            raise named(error.orig or error) from error
        except exc.TimeoutError as error:
            raise StoreUnavailable("store-busy", "All connections to the database are in use.", why=str(error)) from error

    def query(self, statement: sa.Executable, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """All rows of one statement, on its own."""
        text = self.texts[statement]
        return self._run(text.sql, text.given(parameters))

    def query_once(self, statement: sa.Executable, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """As `query`, for a statement made on the spot: its text is not kept."""
        text = self.texts.compile(statement)
        return self._run(text.sql, text.given(parameters))

    def _run(self, text: str, parameters: Any) -> Sequence[Sequence[Any]]:
        connection = self.connect()
        try:
            cursor = self.cursor(connection)
            try:
                return cursor.execute(text, parameters).fetchall()  # type: ignore[no-any-return]
            finally:
                cursor.close()
        except self.driver_error as error:
            self.discard(connection)
            raise named(error) from error
        finally:
            connection.close()

    def cursor(self, connection: PoolProxiedConnection) -> Any:
        """The driver's own cursor; its `execute` returns itself (both drivers)."""
        driver: Any = connection.driver_connection
        return driver.cursor() if self.is_sqlite else driver.cursor(binary=True)

    def discard(self, connection: PoolProxiedConnection) -> None:
        """Close it for good instead of giving it back."""
        with contextlib.suppress(self.driver_error, exc.SQLAlchemyError):
            connection.invalidate()

    def dispose(self) -> None:
        self._engine.dispose()
