"""Renewal information (RFC 9773): which certificate is meant, and what is said of it. Ring 1: pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ca.model import CertificateRef, IssuerId, Serial
from ca.rules.renewal_window import Window
from enroll.acme import jws
from enroll.acme.messages import timestamp
from enroll.acme.model import Problem

RETRY_AFTER: Final = 6 * 3600
"""Seconds after which to ask again (RFC 9773 4.3.2: a default of six hours)."""


def read_id(text: object, issuers: Mapping[bytes, IssuerId]) -> CertificateRef:
    """The certificate of a certID (RFC 9773 4.1): key identifier and serial number, as they stand in its DER.

    Args:
        issuers: by key identifier.

    Raises:
        Problem: `malformed`; 404 where the issuer is not ours.
    """
    if not isinstance(text, str) or text.count(".") != 1:
        raise Problem("malformed", "A certificate is named by key identifier and serial number (RFC 9773 4.1).")
    key, _, number = text.partition(".")
    identifier, serial = jws.decode(key, "The key identifier"), jws.decode(number, "The serial number")
    # DER's own rules for INTEGER: positive, and no octet more than needed.
    if not serial or serial[0] & 0x80 or (len(serial) > 1 and serial[0] == 0 and not serial[1] & 0x80) or not any(serial):
        raise Problem("malformed", "The serial number is not that of a certificate (RFC 9773 4.1).")
    issuer = issuers.get(identifier)
    if issuer is None:
        raise Problem("malformed", "There is no such certificate.", status=404)
    return CertificateRef(issuer, Serial(int.from_bytes(serial, "big")))


def write_id(identifier: bytes, serial: Serial) -> str:
    """The certID of a certificate."""
    return f"{jws.encode(identifier)}.{jws.encode(serial.to_bytes(serial.bit_length() // 8 + 1, 'big'))}"


def render(window: Window, *, explanation: str | None = None) -> dict[str, Any]:
    """RFC 9773 4.2."""
    document: dict[str, Any] = {"suggestedWindow": {"start": timestamp(window.start), "end": timestamp(window.end)}}
    if explanation is not None:
        document["explanationURL"] = explanation
    return document
