"""How serial numbers are made. Ring 1: pure; random octets and the check key come from outside (P12).

20 octets, always positive (RFC 5280 4.1.2.2):

    0x40 | 6 random bits    16 random octets    the first 3 octets of HMAC-SHA256(check key, the 17 octets before)

So 134 bits are random, the length never varies, and whoever holds the check key can tell, without a database, that a number was never
issued by us: one in 16 million made-up numbers passes. The check value is no secret and no signature.
"""

from __future__ import annotations

import hmac
from typing import Final

from ca.errors import Broken
from ca.model import Serial

RANDOM_OCTETS: Final = 17
CHECK_OCTETS: Final = 3
SMALLEST_KEY: Final = 32


def make_serial(random: bytes, check_key: bytes) -> Serial:
    """The serial number of 17 fresh random octets.

    Raises:
        Broken: not 17 octets, or a check key under 32 octets (`serial`).
    """
    if len(random) != RANDOM_OCTETS or len(check_key) < SMALLEST_KEY:
        raise Broken("serial", f"A serial number is made of {RANDOM_OCTETS} random octets and a check key of at least {SMALLEST_KEY}.")
    head = bytes((0x40 | random[0] & 0x3F,)) + random[1:]
    return Serial(int.from_bytes(head + _check(head, check_key), "big"))


def is_ours(serial: int, check_key: bytes) -> bool:
    """Whether a serial number can have been made with this check key. False is certain; True is likely."""
    if serial >> 158 != 1:
        return False
    octets = serial.to_bytes(RANDOM_OCTETS + CHECK_OCTETS, "big")
    return octets[RANDOM_OCTETS:] == _check(octets[:RANDOM_OCTETS], check_key)


def mark(check_key: bytes) -> str:
    """What names a check key without telling it: 32 hexadecimal digits."""
    return hmac.digest(check_key, b"the check key of serial numbers", "sha256")[:16].hex()


def _check(head: bytes, check_key: bytes) -> bytes:
    return hmac.digest(check_key, head, "sha256")[:CHECK_OCTETS]
