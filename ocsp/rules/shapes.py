"""The few forms in which almost all requests come, recognised by slices. Ring 1: pure.

One certificate, and nothing else or a nonce that is not critical. What is recognised is exactly what `request.read_request` reads in it, provided
that the CertID is one that somebody read before; whatever is not recognised is read there. Lengths are those of DER, so a header of few octets
says where everything lies.
"""

from __future__ import annotations

import binascii
from typing import Final

from ca.der import writer
from ocsp.rules.request import NONCE

SHORTEST: Final = 60
LONGEST: Final = 119
"""Octets of a CertID whose request has no length of several octets: SHA-1 and SHA-256, every serial."""
LONGEST_NONCE: Final = 64

_BARE: Final = {
    size + 8: bytes((0x30, size + 6, 0x30, size + 4, 0x30, size + 2, 0x30, size)) for size in range(SHORTEST, LONGEST + 1)
}  # fmt: skip
"""Length of a request -> what stands before its CertID."""


def _with_nonce() -> dict[bytes, tuple[int, int, bytes]]:
    shapes: dict[bytes, tuple[int, int, bytes]] = {}
    for octets in range(1, LONGEST_NONCE + 1):
        extension = writer.extension(NONCE, writer.octet_string(bytes(octets)), critical=False)
        after = writer.explicit(2, writer.sequence(extension))
        middle = after[:-octets]
        for size in range(SHORTEST, LONGEST + 1):
            whole = writer.sequence(writer.sequence(writer.sequence(writer.sequence(bytes(size))), after))
            begin = len(whole) - len(after) - size
            shapes[whole[:begin]] = (begin + size, len(whole) - octets, middle)
    return shapes


_NONCE: Final = _with_nonce()
"""What stands before the CertID -> where that ends, where the nonce begins, and what stands between."""


def certificate_id(body: bytes) -> bytes | None:
    """The CertID of a request that holds nothing else."""
    head = _BARE.get(len(body))
    return body[8:] if head is not None and body.startswith(head) else None


def bare(certificate_id: bytes) -> bytes:
    """The request for one certificate and nothing else."""
    head = _BARE.get(len(certificate_id) + 8)
    if head is not None:
        return head + certificate_id
    return writer.sequence(writer.sequence(writer.sequence(writer.sequence(certificate_id))))


def with_nonce(body: bytes) -> tuple[bytes, bytes] | None:
    """CertID and nonce of a request that holds nothing else."""
    size = len(body)
    # Two, one or none of the two outer lengths take a second octet.
    begin = 10 if size >= 134 else 8 if size < 130 else 9
    shape = _NONCE.get(body[:begin])
    if shape is None:
        return None
    end, nonce, middle = shape
    if body[end:nonce] != middle or size <= nonce or size - nonce != middle[-1]:
        return None
    return body[begin:end], body[nonce:]


def octets_of(rest: bytes) -> bytes | None:
    """The octets of a GET path below the responder's, as almost everybody writes it; None: decode it with more patience."""
    if not rest.startswith(b"M"):
        return None  # a request is a SEQUENCE; slashes that do not belong to it may stand before it
    if b"%" in rest:
        rest = (
            rest.replace(b"%2F", b"/")
            .replace(b"%2B", b"+")
            .replace(b"%3D", b"=")
            .replace(b"%2f", b"/")
            .replace(b"%2b", b"+")
            .replace(b"%3d", b"=")
        )
    try:
        return binascii.a2b_base64(rest, strict_mode=True)
    except binascii.Error:
        return None
