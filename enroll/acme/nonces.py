"""Nonces that several workers share (RFC 8555 6.5). Making one writes nothing; using one writes one row, which whoever comes second finds.

The key of the MAC is a secret of the workers, another one every year, made when the first nonce needs it and dropped when the last that it made is over.
A nonce is 16 random octets, one that says whether a trial may refuse it, the second it was made in, and a MAC over all: so nobody fills a table by asking for nonces, and one that was
never handed out costs no question to the database.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from ca.model import UnixTime
from ca.ports import Chance, Clock
from enroll.acme import jws
from enroll.acme.model import Problem
from enroll.acme.ports import Protocols

LIFETIME: Final = 3600
SECRET: Final = "acme-nonces"
PERIOD: Final = 365 * 86400
"""How long one key makes nonces: SP 800-57 part 1, 5.3.6 has at most two years for a key that authenticates."""
_RANDOM: Final = 16
_TIME: Final = 6
_TRIED: Final = b"\x01"
_MAC: Final = 16


class Nonces:
    """Makes and checks nonces.

    Args:
        refuse: the share of good nonces that are refused all the same, for those who try clients.
    """

    def __init__(self, *, store: Protocols, clock: Clock, chance: Chance, refuse: float = 0.0) -> None:
        self._store, self._clock, self._chance, self._refuse = store, clock, chance, refuse
        self._keys: dict[int, bytes] = {}

    def _mac(self, body: bytes) -> bytes:
        """By the key of the year that the nonce was made in, so that all workers change it at once."""
        year = int.from_bytes(body[_RANDOM + 1 :], "big") // PERIOD
        if year not in self._keys:
            ends = (year + 1) * PERIOD + LIFETIME + 60
            self._keys[year] = self._store.secret(f"{SECRET}-{year}", self._chance.octets(32), now=self._clock.now(), ends=ends)
        return hmac.new(self._keys[year], body, hashlib.sha256).digest()[:_MAC]

    def make(self, *, tried: bool = False) -> str:
        """A fresh nonce.

        Args:
            tried: it may go to a client whose nonce was just refused; no trial refuses it again, for some clients repeat once only.
        """
        body = self._chance.octets(_RANDOM) + (_TRIED if tried else b"\0") + self._clock.now().to_bytes(_TIME, "big")
        return jws.encode(body + self._mac(body))

    def use(self, text: str | None) -> None:
        """Use it, once.

        Raises:
            Problem: `badNonce`.
        """
        octets = jws.decode(text, "nonce")
        body, mac = octets[: _RANDOM + 1 + _TIME], octets[_RANDOM + 1 + _TIME :]
        made, now = int.from_bytes(body[_RANDOM + 1 :], "big"), self._clock.now()
        # Its time first: nobody has keys made for years that they think of.
        if not made - 60 <= now < made + LIFETIME or not hmac.compare_digest(mac, self._mac(body)):
            raise _bad("It is not one of ours, or too old.")
        if (
            self._refuse
            and body[_RANDOM : _RANDOM + 1] != _TRIED
            and int.from_bytes(self._chance.octets(4), "big") < self._refuse * (1 << 32)
        ):
            raise _bad("It is refused for a trial; use the one in this answer.")
        if not self._store.use_nonce(body[:_RANDOM], expires=_expiry(made), now=now):
            raise _bad("It was used before.")


def _expiry(made: UnixTime) -> UnixTime:
    return made + LIFETIME + 60


def _bad(why: str) -> Problem:
    return Problem("badNonce", f"The nonce cannot be used (RFC 8555 6.5). {why}")
