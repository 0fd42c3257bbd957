"""Certificates in a standard wrapping: a SignedData without a signer (RFC 5652 5.1), as EST and caIssuers deliver them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ca.der import writer

_SIGNED_DATA: Final = writer.oid("1.2.840.113549.1.7.2")
_EMPTY: Final = writer.tlv(writer.SET, b"")
_BEFORE: Final = writer.integer(1) + _EMPTY + writer.sequence(writer.oid("1.2.840.113549.1.7.1"))
"""Version, no digest algorithms, and content of type id-data that is not there."""
_CONTEXT_0: Final = 0xA0


def certs_only(certificates: Sequence[bytes]) -> bytes:
    """The certs-only message (RFC 8551 3.6) of certificates in DER, in any order: it is a set."""
    together = writer.tlv(_CONTEXT_0, b"".join(sorted(set(certificates))))
    return writer.sequence(_SIGNED_DATA, writer.explicit(0, writer.sequence(_BEFORE, together, _EMPTY)))
