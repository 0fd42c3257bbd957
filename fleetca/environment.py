"""What each process may see of the environment we were started in. Knows where secrets are named, and reads none.

A secret that the settings take from the environment (`env:NAME`) goes to the processes that use it and to no other: a web process that is
taken over must not find the passphrase of the issuing key among its own variables (P3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from config.secrets import Secret
from config.settings import Settings


def environment_of(role: str, settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables for a process of that role: all but the secrets of others."""
    named: dict[str, set[str]] = {}
    for secret, roles in _secrets(settings):
        if secret.scheme == "env":
            named.setdefault(secret.rest, set()).update(roles)
    return {name: value for name, value in environment.items() if name not in named or role in named[name]}


def _secrets(settings: Settings) -> Iterator[tuple[Secret, tuple[str, ...]]]:
    """Every secret of a deployment, and the processes that read it."""
    for issuer in settings.issuers:
        if issuer.passphrase is not None:
            yield issuer.passphrase, ("signer",)
    yield settings.signer.serial_check, ("signer", "status")
    yield settings.log.passphrase, ("publisher",)
    if settings.store.password is not None:
        yield settings.store.password, ("signer", "enroll", "status", "publisher")
