"""Whom a proxy in front of us has before it: the `Client-Cert` header of RFC 9440, from those who may say so. Pure; knows no socket and no PKI.

The proxy has ended TLS, so its word stands for the handshake: that the client holds the certificate's key. What the certificate is worth is decided
where it is decided for all (P2). There is one way of writing the header, and nothing else is taken for it: a proxy that lets a client's own header
through beside its own, or a client that got one past the proxy, is told 400 in place of somebody's identity (R18).
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import Final

CERTIFICATE: Final = b"client-cert"
CHAIN: Final = b"client-cert-chain"
HEADERS: Final = frozenset({CERTIFICATE, CHAIN})
"""Names in lower case. From anybody else they are never seen, by nobody."""
LONGEST: Final = 16 * 1024
"""Octets of a certificate; one of ML-DSA-87 with its key and signature takes half of it."""


def client_certificate(told: Sequence[tuple[bytes, bytes]], connection: Sequence[bytes]) -> bytes | None:
    """The certificate (DER) that a proxy says its client has shown; None where it showed none.

    Args:
        told: the headers of those names, as they came.
        connection: the values of the Connection headers. One that names ours would have it taken away between two of several proxies (RFC 9110 7.6.1).

    Raises:
        ValueError: it is not said as RFC 9440 wants it; says why.
    """
    for value in connection:
        if any(name.strip().lower() in HEADERS for name in value.split(b",")):
            raise ValueError("Connection names Client-Cert")
    given = [value for name, value in told if name == CERTIFICATE]
    if not given:
        if told:
            raise ValueError("Client-Cert-Chain without Client-Cert")  # RFC 9440 2.3
        return None
    if len(given) != 1:
        raise ValueError("more than one Client-Cert")
    return _byte_sequence(given[0])


def _byte_sequence(value: bytes) -> bytes:
    """RFC 8941 3.3.5, in its one canonical form (4.1.8): no parameters, padded, and no bits left over."""
    inner = value[1:-1]
    if len(value) < 2 or value[:1] != b":" or value[-1:] != b":" or len(inner) > LONGEST * 4 // 3 + 4:
        raise ValueError("Client-Cert is no byte sequence")
    try:
        der = binascii.a2b_base64(inner, strict_mode=True)
    except binascii.Error:
        raise ValueError("Client-Cert is not base64") from None
    if binascii.b2a_base64(der, newline=False) != inner:
        raise ValueError("Client-Cert is not canonical base64")
    if not _one_der_sequence(der):
        raise ValueError("Client-Cert is not one DER value")
    return der


def _one_der_sequence(der: bytes) -> bool:
    """Whether these octets are one SEQUENCE and nothing else."""
    if len(der) < 4 or der[0] != 0x30 or not 0x80 < der[1] <= 0x83:
        return False
    octets = der[1] & 0x7F
    length = int.from_bytes(der[2 : 2 + octets], "big")
    return len(der) == 2 + octets + length and length >= 128 and der[2] != 0
