"""The database for those who write: `ca.ports.Ledger`. Owns the transaction: its begin, its savepoints, its end, and what a failure leaves.

What a crash leaves: before the commit, nothing; after it, all. When the commit itself fails, it may be either, and the error says so.
After a driver's error the transaction is dead: each further statement raises the same error, so that a caller who goes on to the next
request of a batch can neither write outside of the transaction (SQLite rolls back by itself when the disk is full) nor commit half.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NoReturn

import sqlalchemy as sa

from ca.errors import FleetcaError, StoreUnavailable
from ca.model import QueuedLeaf
from ca.store.approval_rows import ApprovalWrites
from ca.store.database import BUSY_SECONDS, Database
from ca.store.failures import named
from ca.store.foresight import ForeseenWrites
from ca.store.line_rows import LineWrites
from ca.store.proposal_rows import ProposalWrites
from ca.store.renewal_rows import RenewalOrderWrites
from ca.store.rows import Row
from ca.store.writes_authority import AuthorityWrites
from ca.store.writes_devices import DeviceWrites
from ca.store.writes_keys import KeyWrites
from ca.store.writes_record import RecordWrites
from ca.store.writes_status import StatusWrites


class _Savepoint:
    """A class and not a generator: one is made for every request of a batch. The database hears of it when something is written inside."""

    __slots__ = ("_leaves", "_name", "_writing", "opened", "rows")

    def __init__(self, writing: SqlWriting) -> None:
        self._writing = writing
        self._name = ""
        self.opened = False

    def __enter__(self) -> None:
        writing = self._writing
        writing.savepoints.append(self)
        self._name = f"s{len(writing.savepoints)}"
        self._leaves = len(writing.unwritten)
        self.rows = len(writing.queued)

    def open(self) -> None:
        self._writing.command(f"SAVEPOINT {self._name}")
        self.opened = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        writing = self._writing
        writing.savepoints.pop()
        if kind is None:
            if self.opened:
                writing.command(f"RELEASE SAVEPOINT {self._name}")
            return
        del writing.unwritten[self._leaves :]
        del writing.queued[self.rows :]
        if self.opened and writing.failure is None:
            # A dead transaction has nothing left to undo.
            writing.command(f"ROLLBACK TO SAVEPOINT {self._name}")
            writing.command(f"RELEASE SAVEPOINT {self._name}")


class SqlWriting(
    ForeseenWrites,
    StatusWrites,
    RecordWrites,
    AuthorityWrites,
    KeyWrites,
    DeviceWrites,
    ApprovalWrites,
    ProposalWrites,
    RenewalOrderWrites,
    LineWrites,
):
    """One write transaction: `ca.ports.Writing` and `ca.ports.Sequencing`. Belongs to the thread that opened it."""

    def __init__(self, database: Database, cursor: Any) -> None:
        self._texts = database.texts
        self._driver_error = database.driver_error
        self._cursor = cursor
        self._execute = cursor.execute
        self.savepoints: list[_Savepoint] = []
        self.queued = []
        self.unwritten: list[tuple[bytes, bytes]] = []
        self.failure: FleetcaError | None = None

    def savepoint(self) -> _Savepoint:
        return _Savepoint(self)

    def flush(self) -> None:
        """Write what is queued, each row inside of the savepoint it was told in."""
        queued, start = self.queued, 0
        for savepoint in self.savepoints:
            if not savepoint.opened:
                self.write_queued(queued[start : savepoint.rows])
                savepoint.open()
                start = savepoint.rows
        self.write_queued(queued[start:])
        queued.clear()
        for savepoint in self.savepoints:
            savepoint.rows = 0

    def pending_leaves(self, limit: int) -> Sequence[QueuedLeaf]:
        """Also those of this transaction. Not inside a savepoint: undoing it would take leaves along that were queued before."""
        assert not self.savepoints
        self.write_leaves()
        return super().pending_leaves(limit)

    def command(self, text: str) -> None:
        try:
            self._execute(text)
        except self._driver_error as error:
            self._die(error)

    def _all(self, statement: sa.Executable, parameters: Mapping[str, Any]) -> Sequence[Row]:
        # Also before a question: some change a row and return it.
        if self.savepoints or self.queued:
            self.flush()
        text = self._texts[statement]
        try:
            return self._execute(text.sql, text.given(parameters)).fetchall()  # type: ignore[no-any-return]
        except self._driver_error as error:
            self._die(error)

    def _change(self, statement: sa.Executable, parameters: Mapping[str, Any]) -> int:
        self.seen = None
        if self.savepoints or self.queued:
            self.flush()
        text = self._texts[statement]
        try:
            return self._execute(text.sql, text.given(parameters)).rowcount  # type: ignore[no-any-return]
        except self._driver_error as error:
            self._die(error)

    def _change_each(self, statement: sa.Executable, parameters: Sequence[Mapping[str, Any]]) -> int:
        self.seen = None
        if self.savepoints or self.queued:
            self.flush()
        return self._write_each(statement, parameters)

    def _write_each(self, statement: sa.Executable, parameters: Sequence[Mapping[str, Any]]) -> int:
        if self.failure is not None:
            raise self.failure
        text = self._texts[statement]
        try:
            self._cursor.executemany(text.sql, [text.given(each) for each in parameters])
            return self._cursor.rowcount  # type: ignore[no-any-return]
        except self._driver_error as error:
            self._die(error)

    def _die(self, error: Exception) -> NoReturn:
        self.failure = failure = named(error)

        def dead(*_: object) -> NoReturn:
            raise failure

        self._execute = dead
        raise failure from error


class SqlLedger:
    """The way to write. Safe to call from several threads; a transaction belongs to one.

    On SQLite the writers of this process queue here, in order, before they queue on the file with others: SQLite's own waiting polls.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = threading.Lock() if database.is_sqlite else None

    @contextlib.contextmanager
    def writing(self) -> Iterator[SqlWriting]:
        """One write transaction; durable when the block ends without an error. An exception inside undoes all of it and propagates.

        Raises:
            StoreUnavailable: nothing of the transaction is kept, unless the code is `commit-unknown`; then it may be.
        """
        turn = self._turn
        if turn is not None and not turn.acquire(timeout=BUSY_SECONDS):
            raise StoreUnavailable("store-busy", "Another transaction of this process does not end.", fix="Repeat the request.")
        try:
            with self._transaction() as writing:
                yield writing
        finally:
            if turn is not None:
                turn.release()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[SqlWriting]:
        database = self._database
        connection = database.connect()
        try:
            cursor = database.cursor(connection)
            writing = SqlWriting(database, cursor)
            # PostgreSQL's write locks are taken row by row; SQLite's must be taken now: a reader that turns writer can meet another one
            # and then only fail.
            writing.command("BEGIN IMMEDIATE" if database.is_sqlite else "BEGIN")
            try:
                yield writing
                writing.write_leaves()
                if writing.failure is not None:
                    raise writing.failure
            except BaseException:
                try:
                    if not database.is_sqlite or connection.dbapi_connection.in_transaction:  # type: ignore[union-attr]
                        cursor.execute("ROLLBACK")
                except database.driver_error:
                    database.discard(connection)
                raise
            try:
                cursor.execute("COMMIT")
            except database.driver_error as error:
                # A locked or full SQLite says so before it commits; a lost connection or a failing disk leaves it open.
                failure = named(error)
                with contextlib.suppress(database.driver_error):
                    cursor.execute("ROLLBACK")
                database.discard(connection)
                if database.is_sqlite and failure.code in {"store-busy", "disk-full"}:
                    raise failure from error
                raise StoreUnavailable(
                    "commit-unknown", "The database did not confirm a commit; it may or may not be kept.", why=failure.why, fix=failure.fix
                ) from error
        finally:
            connection.close()
