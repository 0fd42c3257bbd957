"""The gate before issuing, of one process, for every protocol.

What the service takes is said by `ca.rules.renewal_admission`. Verb ring: knows rules and ports only. A repeated request passes it again: what it gets costs less than telling it apart would.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from ca.der.certificate import read_certificate
from ca.errors import Busy, Malformed
from ca.model import UnixTime
from ca.rules import renewal_admission as admission


class Monotonic(Protocol):
    """A clock that never goes back."""

    def monotonic(self) -> float: ...


class Gate:
    """Safe to call from several threads."""

    def __init__(self, per_second: float, *, clock: Monotonic) -> None:
        self._per_second, self._clock = per_second, clock
        self._allowance = admission.full(per_second, at=clock.monotonic())
        self._lock = threading.Lock()

    def enter(self, certificate: bytes, *, now: UnixTime) -> None:
        """Let the holder of a certificate renew.

        Nothing of the certificate is believed: who lies about how little is left wins a place and loses the renewal.

        Raises:
            Busy: not now (`renewals-busy`).
        """
        self._enter(lambda allowance: self._wait(allowance, certificate, now=now))

    def enter_new(self) -> None:
        """Let somebody enrol who has no certificate: like a renewal that could wait longest, for nothing of theirs ends.

        Raises:
            Busy: as above.
        """
        self._enter(lambda allowance: admission.wait_new(allowance, self._per_second))

    def _enter(self, wait: Callable[[admission.Allowance], int | None]) -> None:
        with self._lock:
            allowance = admission.filled(self._allowance, self._per_second, at=self._clock.monotonic())
            after = None if admission.easy(allowance, self._per_second) else wait(allowance)
            self._allowance = admission.taken(allowance) if after is None else allowance
        if after is not None:
            raise Busy(
                "renewals-busy",
                "More ask for certificates than the service takes now.",
                why="Those whose certificates end sooner come first.",
                fix="Come again after the seconds of Retry-After.",
                retry_after=after,
            )

    def _wait(self, allowance: admission.Allowance, certificate: bytes, *, now: UnixTime) -> int | None:
        try:
            facts = read_certificate(certificate)
        except Malformed:
            return None  # who reads it next refuses it
        return admission.wait(allowance, self._per_second, not_before=facts.not_before, not_after=facts.not_after, now=now)
