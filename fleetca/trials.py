"""What a process would trip over before it serves: everything that it reads is read and everything it unlocks is unlocked, and that is all.

Nothing is bound, locked, signed or written, and no database is asked: a trial runs beside the process that does the work. Each opens only
the keys that its process opens (P3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from config.settings import Settings
from fleetca import forms, signing
from ocsp.rules import freshness


def signer(settings: Settings) -> None:
    """Policy, issuers, issuing keys, check key, users.

    Raises (like the others):
        Misconfigured: settings, profiles and certificates do not fit together; the text names the file and the key.
        KeyUnavailable: a key or secret is not to be had.
    """
    forms.issuers(settings)
    signing.policy(settings)
    forms.roles_by_uid(settings, 0)
    forms.serial_check_key(settings)
    forms.store_url(settings)
    signing.open_keys(settings)


def enroll(settings: Settings) -> None:
    """Issuers, profiles, its own names."""
    forms.issuers(settings)
    forms.profiles(settings)
    forms.names(settings.enroll.names)
    forms.store_url(settings)


def status(settings: Settings) -> None:
    """Issuers, how answers are made, check key."""
    from fleetca import presigning  # noqa: PLC0415 - the signer's trial loads as little as the signer

    forms.issuers(settings)
    freshness.judge(presigning.policy(settings))
    forms.serial_check_key(settings)
    forms.store_url(settings)


def publisher(settings: Settings) -> None:
    """Issuers, the log's key."""
    from fleetca import wiring  # noqa: PLC0415 - as above

    forms.issuers(settings)
    forms.store_url(settings)
    wiring.open_log_key(settings)


def presigner(settings: Settings) -> None:
    """Issuers, how answers are made, the responder key."""
    from fleetca import presigning  # noqa: PLC0415 - as above

    forms.issuers(settings)
    freshness.judge(presigning.policy(settings))
    forms.store_url(settings)
    presigning.responder_keys(settings)


TRIALS: Final[Mapping[str, Callable[[Settings], None]]] = {
    "signer": signer,
    "enroll": enroll,
    "status": status,
    "publisher": publisher,
    "presigner": presigner,
}
