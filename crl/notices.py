"""Telling others of every change of status as it happens: a signed webhook, in order, until it is taken (REQ-KEY-068). Ring 4: rules and ports only.

What arrives says which certificate, what happened and when; `webhook-id` is the same each time a change is told, so that who hears it twice knows. The place up
to which was told rises only when the other side has answered: at least once, never a gap. One publisher of a deployment tells, by a lease.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from ca.errors import StoreUnavailable
from ca.model import ChangeNumber, Reason, Revocation
from ca.ports import Clock
from crl.ports import Leases, Reading

_PAGE: Final = 100
_LEASE: Final = 60


class Post(Protocol):
    def __call__(self, body: bytes, headers: Mapping[str, str]) -> int:
        """Send it; the status that comes back.

        Raises:
            OSError: nobody answers.
        """
        ...


class Place:
    """A number in a file: up to which change was told."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> ChangeNumber | None:
        """
        Raises:
            StoreUnavailable: it is there and cannot be understood (`webhook-place`).
        """
        try:
            return int(self._path.read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            # Beginning anew would leave out whatever was not told yet, and nobody would hear of it.
            raise StoreUnavailable(
                "webhook-place",
                f"{self._path} does not hold a number.",
                why="It is written whole or not at all, so something else changed it.",
                fix="Write the last change that the other side has heard of into it, or take it away: then what is past is not told.",
            ) from None

    def write(self, change: ChangeNumber) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._path.with_name(self._path.name + ".new")
        with fresh.open("w") as file:
            file.write(str(change))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)


class Notices:
    """One webhook.

    Args:
        secret: asked for each time; both sides know it.
        start: the last change that need not be told, where none was told yet.
    """

    def __init__(
        self,
        name: str,
        *,
        reading: Reading,
        leases: Leases,
        post: Post,
        place: Place,
        secret: Callable[[], bytes],
        clock: Clock,
        deployment: str,
        holder: str,
        start: Callable[[], ChangeNumber],
    ) -> None:
        self._name, self._reading, self._leases, self._post, self._place = name, reading, leases, post, place
        self._secret, self._clock, self._deployment, self._holder, self._start = secret, clock, deployment, holder, start

    def follow(self) -> int:
        """Tell what is new, in order. Returns how many changes were taken.

        Raises:
            StoreUnavailable: the other side does not take it now (`webhook-failed`); repeating is safe.
        """
        with self._leases.writing() as book:
            ours = book.lease(f"webhook:{self._name}", holder=self._holder, now=self._clock.now(), seconds=_LEASE) is not None
        at, latest = self._place.read(), self._start()
        if at is None or (ours and at > latest):
            # The first time, or a database that was set back: what is past is past. A publisher on a second host, which only waits, marks its place too:
            # when the first one dies, what that one had not told yet comes after it.
            self._place.write(latest)
            return 0
        if not ours:
            return 0
        told = 0
        for change in self._reading.changes_since(at, _PAGE):
            self._tell(change)
            self._place.write(change.change)
            told += 1
        return told

    def _tell(self, change: Revocation) -> None:
        body = json.dumps(_notice(change, self._deployment), sort_keys=True, separators=(",", ":")).encode()
        identifier, at = f"{self._deployment}-{change.change}", str(self._clock.now())
        try:
            status = self._post(body, signed(body, identifier=identifier, at=at, secret=self._secret()))
        except OSError as error:
            raise StoreUnavailable("webhook-failed", f"The webhook {self._name} does not answer.", why=str(error), retry_after=5) from None
        if not 200 <= status < 300:
            raise StoreUnavailable("webhook-failed", f"The webhook {self._name} answers {status}.", retry_after=5)


def signed(body: bytes, *, identifier: str, at: str, secret: bytes) -> dict[str, str]:
    """The headers of a notice: HMAC-SHA256 over id, time and body, so that none can be made, changed or played again later."""
    mac = hmac.new(secret, f"{identifier}.{at}.".encode() + body, hashlib.sha256).digest()
    return {
        "Content-Type": "application/json",
        "webhook-id": identifier,
        "webhook-timestamp": at,
        "webhook-signature": "v1," + base64.b64encode(mac).decode("ascii"),
    }


def _notice(change: Revocation, deployment: str) -> dict[str, object]:
    released = change.reason is Reason.removeFromCRL
    return {
        "type": "certificate.released"
        if released
        else "certificate.held"
        if change.reason is Reason.certificateHold
        else "certificate.revoked",
        "deployment": deployment,
        "change": change.change,
        "issuer": change.ref.issuer,
        "serial": f"{change.ref.serial:040x}",
        "reason": change.reason.name,
        "revoked_at": change.revoked_at,
        "invalid_from": change.invalid_from,
        "not_after": change.not_after,
    }
