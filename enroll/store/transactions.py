"""Short transactions on the protocols' tables. Owns begin, commit and what a failure leaves; knows no table.

A transaction is one function that is run on a cursor: it may be run once more when the database was busy, so it changes nothing but rows.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from ca.errors import StoreUnavailable
from ca.store.database import BUSY_SECONDS, Database
from ca.store.failures import named

Result = TypeVar("Result")


class Cursor:
    """The statements of one transaction."""

    def __init__(self, database: Database, cursor: Any) -> None:
        self._database, self._cursor = database, cursor

    def all(self, statement: sa.Executable, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        return self._run(statement, parameters).fetchall()  # type: ignore[no-any-return]

    def first(self, statement: sa.Executable, parameters: Mapping[str, Any]) -> Sequence[Any] | None:
        return self._run(statement, parameters).fetchone()  # type: ignore[no-any-return]

    def change(self, statement: sa.Executable, parameters: Mapping[str, Any]) -> int:
        """How many rows it changed."""
        return int(self._run(statement, parameters).rowcount)

    def _run(self, statement: sa.Executable, parameters: Mapping[str, Any]) -> Any:
        text = self._database.texts[statement]
        return self._cursor.execute(text.sql, text.given(parameters))


class Transactions:
    """The way to write. Safe to call from several threads."""

    def __init__(self, url: str) -> None:
        self._database = Database(url, writes=True)
        # SQLite's own waiting polls: the threads of this process queue here before they queue on the file.
        self._turn = threading.Lock() if self._database.is_sqlite else None

    def write(self, work: Callable[[Cursor], Result]) -> Result:
        """Run `work` in one transaction; durable when this returns.

        Raises:
            StoreUnavailable: nothing is kept, unless the code is `commit-unknown`; then it may be.
        """
        if self._turn is not None and not self._turn.acquire(timeout=BUSY_SECONDS):
            raise StoreUnavailable("store-busy", "Another transaction of this process does not end.", fix="Repeat the request.")
        try:
            return self._write(work)
        finally:
            if self._turn is not None:
                self._turn.release()

    def _write(self, work: Callable[[Cursor], Result]) -> Result:
        database = self._database
        connection = database.connect()
        try:
            cursor = database.cursor(connection)
            try:
                # Our role may read only by default (PostgreSQL): here, and nowhere else, it writes.
                cursor.execute("BEGIN IMMEDIATE" if database.is_sqlite else "BEGIN READ WRITE")
                found = work(Cursor(database, cursor))
            except BaseException as error:
                with contextlib.suppress(database.driver_error):
                    cursor.execute("ROLLBACK")
                if isinstance(error, database.driver_error):
                    database.discard(connection)
                    raise named(error) from error
                raise
            try:
                cursor.execute("COMMIT")
            except database.driver_error as error:
                database.discard(connection)
                raise StoreUnavailable(
                    "commit-unknown", "The database did not confirm a commit; it may or may not be kept.", why=named(error).why
                ) from error
            return found
        finally:
            connection.close()

    def read(self, statement: sa.Executable, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """All rows of one statement, on its own."""
        return self._database.query(statement, parameters)

    def close(self) -> None:
        self._database.dispose()
