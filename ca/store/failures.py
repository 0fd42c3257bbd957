"""What a driver's exception means, in our words. Knows the drivers' codes; opens nothing.

Whatever a database or disk may do to us becomes `StoreUnavailable`: the request was fine and may be repeated. A constraint that our own
code should have kept becomes `Broken`.
"""

from __future__ import annotations

from ca.errors import Broken, FleetcaError, StoreUnavailable

_MIGRATE = "fleetca migrate"

_BUSY = ("store-busy", "The database is busy.", "Repeat the request; if it persists, look for a process that holds a transaction open.")
_FULL = ("disk-full", "The disk of the database is full.", "Free space on the disk that holds the database.")
_DISK = ("disk-failed", "The disk of the database cannot be read or written.", "Look into the system's log for errors of the disk.")
_DOWN = ("database-down", "The database does not answer.", "Start the database, or mend [store] url in the settings.")
_REFUSED = ("database-refused", "The database refuses us.", "Mend user, password or database name in [store] url of the settings.")
_FORBIDDEN = (
    "database-forbids",
    "The database does not let this process do that.",
    "With one database role per process, run config/deployments/postgresql-roles.sql again; it may be repeated.",
)
_MISSING = ("store-missing", "The database file cannot be opened.", _MIGRATE)
_READONLY = ("store-readonly", "The database cannot be written.", "Mend the file's owner and mode, or connect to the primary.")
_DAMAGED = ("store-damaged", "The database is damaged.", "Restore the latest backup, then run: fleetca recover")
_SCHEMA = ("store-schema", "The tables of the database are not those of this version.", _MIGRATE)
_FAILED = ("store-failed", "The database failed.", "")

_SQLITE = (
    ("SQLITE_BUSY", _BUSY),
    ("SQLITE_LOCKED", _BUSY),
    ("SQLITE_FULL", _FULL),
    ("SQLITE_IOERR", _DISK),
    ("SQLITE_CANTOPEN", _MISSING),
    ("SQLITE_READONLY", _READONLY),
    ("SQLITE_PERM", _READONLY),
    ("SQLITE_CORRUPT", _DAMAGED),
    ("SQLITE_NOTADB", _DAMAGED),
)

# PostgreSQL's SQLSTATE, appendix A of its manual; the longest prefix that fits counts.
_POSTGRESQL = {
    "08": _DOWN,
    "25006": _READONLY,  # a standby
    "28": _REFUSED,
    "3D": _REFUSED,
    "40": _BUSY,  # serialization, deadlock
    "42501": _FORBIDDEN,  # a privilege of the role
    "42703": _SCHEMA,
    "42P01": _SCHEMA,
    "53": _BUSY,  # too many connections, out of memory
    "53100": _FULL,
    "55P03": _BUSY,
    "57": _DOWN,  # shutting down, starting up
    "57014": _BUSY,  # statement timeout
    "58": _DISK,
    "25P03": _BUSY,  # we were idle in a transaction for too long
    "XX001": _DAMAGED,
    "XX002": _DAMAGED,
}


def named(error: BaseException) -> FleetcaError:
    """The error to raise `from` this one of a driver."""
    text = str(error).strip().split("\n", 1)[0]
    integrity = type(error).__name__ == "IntegrityError"
    sqlite = getattr(error, "sqlite_errorname", None)
    sqlstate = getattr(error, "sqlstate", None)
    if integrity or (isinstance(sqlstate, str) and sqlstate.startswith("23")):
        return Broken("store-constraint", "A row would break a constraint of the database.", why=text)
    found = _FAILED
    if isinstance(sqlite, str):
        found = next((meaning for prefix, meaning in _SQLITE if sqlite.startswith(prefix)), _FAILED)
        if found is _FAILED and text.startswith(("no such table", "no such column")):
            found = _SCHEMA
    elif isinstance(sqlstate, str):
        found = next((_POSTGRESQL[sqlstate[:length]] for length in (5, 2) if sqlstate[:length] in _POSTGRESQL), _FAILED)
    elif type(error).__name__ in {"OperationalError", "ConnectionTimeout", "InterfaceError"}:
        found = _DOWN  # no code: the connection itself
    code, what, fix = found
    return StoreUnavailable(code, what, why=text, fix=fix)
