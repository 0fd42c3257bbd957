"""Certificates in a standard wrapping: a SignedData without a signer (RFC 5652 5.1), as EST and caIssuers deliver them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ca.der import writer

_SIGNED_DATA: Final = "1.2.840.113549.1.7.2"
_DATA: Final = "1.2.840.113549.1.7.1"
_CONTEXT_0: Final = 0xA0


def certs_only(certificates: Sequence[bytes]) -> bytes:
    """The certs-only message (RFC 8551 3.6) of certificates in DER, in any order: it is a set."""
    signed = writer.sequence(
        writer.integer(1),
        writer.tlv(writer.SET, b""),
        writer.sequence(writer.oid(_DATA)),
        writer.tlv(_CONTEXT_0, b"".join(sorted(set(certificates)))),
        writer.tlv(writer.SET, b""),
    )
    return writer.sequence(writer.oid(_SIGNED_DATA), writer.explicit(0, signed))
