"""The error tree of fleetca. Ring 0: standard library only.

    FleetcaError              has a code, what failed, why, and what mends it
    |-- Refused               the asker is at fault; asking the same again fails again
    |   |-- Malformed         the bytes or fields cannot be read
    |   |-- Unauthenticated   no evidence, or evidence that does not hold
    |   |-- Denied            known, and not allowed
    |   |   `-- Contested     and two may hold what is one device's
    |   |-- NotFound          no such thing (or none that the asker may see)
    |   |-- Conflict          it clashes with what is already on record
    |   `-- Unacceptable      well-formed, allowed to ask, against a rule (weak key, outlives its issuer)
    |-- Unavailable           nothing is wrong with the request; it may be repeated as it is
    |   |-- Busy              over a rate or a queue's length
    |   |-- KeyUnavailable    a key, token or passphrase is not to be had
    |   |-- StoreUnavailable  database, disk or log cannot be read or written
    |   `-- ClockUntrusted    the clock went backwards; nothing new is signed until it is right
    |-- Misconfigured         a setting, sheet or profile is wrong; names the file and the key
    `-- Broken                one of our own invariants failed; nothing was released

Codes are stable, lower-case words joined by hyphens; docs/reference/errors.md explains each. HTTP and OCSP statuses and
exit codes are made from the classes at the edge, never here. An error never logs, exits or retries.
"""

from __future__ import annotations


class FleetcaError(Exception):
    """Something failed that we have words for.

    Args:
        code: stable identifier, e.g. ``"token-used"``.
        what: one sentence, what failed.
        why: one sentence, the cause. May be empty.
        fix: the command or setting that mends it. May be empty. Never holds a secret, like the others.
    """

    def __init__(self, code: str, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        return " ".join(part for part in (self.what, self.why) if part)


class Refused(FleetcaError):
    """The asker is at fault; asking the same again fails again."""


class Malformed(Refused):
    """The bytes or fields cannot be read."""


class Unauthenticated(Refused):
    """No evidence, or evidence that does not hold."""


class Denied(Refused):
    """Known, and not allowed."""


class Contested(Denied):
    """It speaks for a certificate in whose place another was used: two may hold what is one device's (P9)."""


class NotFound(Refused):
    """No such thing, or none that the asker may see."""


class Conflict(Refused):
    """It clashes with what is already on record."""


class Unacceptable(Refused):
    """Well-formed and allowed to ask, but against a rule."""


class Unavailable(FleetcaError):
    """Nothing is wrong with the request; it may be repeated as it is.

    Args:
        retry_after: seconds after which repeating makes sense.
    """

    def __init__(self, code: str, what: str, *, why: str = "", fix: str = "", retry_after: int = 5) -> None:
        super().__init__(code, what, why=why, fix=fix)
        self.retry_after = retry_after


class Busy(Unavailable):
    """Over a rate or a queue's length."""


class KeyUnavailable(Unavailable):
    """A key, token or passphrase is not to be had."""


class StoreUnavailable(Unavailable):
    """Database, disk or log cannot be read or written."""


class ClockUntrusted(Unavailable):
    """The clock went backwards; nothing new is signed until it is right."""


class Misconfigured(FleetcaError):
    """A setting, sheet or profile is wrong; the text names the file and the key."""


class Broken(FleetcaError):
    """One of our own invariants failed; nothing was released."""
