"""What each process may see of what we were started with: variables and open descriptors. Knows where secrets are named.

A secret that the settings take from the environment (`env:NAME`) or from a descriptor (`fd:N`) goes to the processes that use it and to no
other: a web process that is taken over must not find the passphrase of the issuing key among what is its own (P3).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress

from config.secrets import MAX_SECRET, Secret
from config.settings import Settings


def environment_of(role: str, settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables for a process of that role: all but the secrets of others."""
    named: dict[str, set[str]] = {}
    for secret, roles in _secrets(settings):
        if secret.scheme == "env":
            named.setdefault(secret.rest, set()).update(roles)
    return {name: value for name, value in environment.items() if name not in named or role in named[name]}


def descriptors_of(role: str, settings: Settings) -> tuple[int, ...]:
    """The descriptors (`fd:N`) whose secrets a process of that role reads."""
    return tuple(sorted({int(secret.rest) for secret, roles in _secrets(settings) if secret.scheme == "fd" and role in roles}))


def hold_descriptors(settings: Settings) -> frozenset[int]:
    """Take what comes over pipes into memory, under the same numbers: a process that is started again reads its secret again.

    Returns the numbers that are held. One that is absent is left out, and the process that needs it says so.
    """
    found = set()
    for number in {int(secret.rest) for secret, _ in _secrets(settings) if secret.scheme == "fd"}:
        with suppress(OSError):
            if not stat.S_ISREG(os.fstat(number).st_mode):
                held = os.memfd_create("secret", os.MFD_CLOEXEC)
                while part := os.read(number, MAX_SECRET):
                    os.write(held, part)
                os.dup2(held, number, inheritable=False)
                os.close(held)
            found.add(number)
    return frozenset(found)


def _secrets(settings: Settings) -> Iterator[tuple[Secret, tuple[str, ...]]]:
    """Every secret of a deployment, and the processes that read it."""
    for issuer in settings.issuers:
        if issuer.passphrase is not None:
            yield issuer.passphrase, ("signer",)
    yield settings.signer.serial_check, ("signer", "status", "publisher", "presigner")
    if settings.ocsp.responder_passphrase is not None:
        yield settings.ocsp.responder_passphrase, ("presigner",)
    if settings.log.passphrase is not None:
        yield settings.log.passphrase, ("publisher",)
    if settings.store.password is not None:
        yield settings.store.password, ("signer", "enroll", "status", "publisher", "presigner")
