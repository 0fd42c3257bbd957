"""Finished answers in few octets: what cannot be worked out again, the signature above all. Ring 1: pure.

The body of an answer is a function of these fields, the CertID's form and the responder's certificate, so 160 octets stand for 700. A record ends
in a check sum: one that was half written when somebody read it is no record.
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
from typing import Final, Protocol, overload

from ca.der import writer
from ca.model import Reason, Serial
from ocsp.model import CertificateId, Finished, Packed, Policy, Responder, Status, Verdict, Window
from ocsp.rules import http, response

_FIELDS: Final = struct.Struct(">BBBB20sIIIIIIQ20sH")
_CHECK: Final = struct.Struct(">I")
_VERDICTS: Final = (Verdict.good, Verdict.revoked)
_NO_ARCHIVE: Final = 0


class Table(Protocol):
    """Octets that are read in place: a mapped file."""

    @overload
    def __getitem__(self, at: int, /) -> int: ...
    @overload
    def __getitem__(self, at: slice, /) -> bytes: ...


def record_octets(signature_octets: int) -> int:
    """Octets of a record that holds signatures up to that length."""
    return (_CHECK.size + _FIELDS.size + signature_octets + 7) // 8 * 8


def signature_octets(size: int) -> int:
    """The longest signature that a record of `size` octets holds."""
    return size - _CHECK.size - _FIELDS.size


def pack(one: Packed, size: int) -> bytes:
    """A record of `size` octets."""
    serial, form, status, produced_at, window, archive, as_of, key_hash, signature = one
    content = _fields(size).pack(
        form + 1, _VERDICTS.index(status.verdict), status.reason, 0, serial.to_bytes(20, "big"), status.since, produced_at, window.this_update,
        window.next_update, window.refresh_at, _NO_ARCHIVE if archive is None else archive + 1, as_of, key_hash, len(signature), signature,
    )  # fmt: skip
    return content + zlib.crc32(content).to_bytes(4, "big")


@lru_cache(maxsize=64)
def _fields(size: int) -> struct.Struct:
    """Those of a record of `size` octets, with the room for its signature."""
    return struct.Struct(f"{_FIELDS.format}{signature_octets(size)}s")


def place_of(octets: bytes, slots: int) -> int:
    """The slot at which the search for a record begins."""
    return zlib.crc32(octets[4:24], octets[0] - 1) * slots >> 32


def is_whole(octets: bytes) -> bool:
    """Whether a slot's sum is right."""
    return octets[0] != 0 and octets[-4:] == zlib.crc32(octets[:-4]).to_bytes(4, "big")


def find(table: Table, start: int, size: int, slots: int, serial: Serial, form: int) -> int:  # noqa: PLR0917  names cost too, a million times
    """Where in a table of records the one of a certificate in a form of CertID stands, or the empty slot where it belongs.

    Args:
        start: where the first slot is; slots have `size` octets each, and one of them at least is empty.
    """
    octets, first = serial.to_bytes(20, "big"), form + 1
    at = start + (zlib.crc32(octets, form) * slots >> 32) * size
    end = start + slots * size
    while (found := table[at]) and not (found == first and table[at + 4 : at + 24] == octets):
        at = at + size if at + size < end else start
    return at


def unpack(octets: bytes) -> Packed | None:
    """What a slot says; None where it says nothing that can be believed."""
    if not is_whole(octets):
        return None
    content = octets[: -_CHECK.size]
    form, verdict, reason, _, serial, since, produced_at, this_update, next_update, refresh_at, archive, as_of, key_hash, size = (
        _FIELDS.unpack_from(content)
    )
    return Packed(
        serial=Serial(int.from_bytes(serial, "big")),
        form=form - 1,
        status=Status(_VERDICTS[verdict], since, Reason(reason)),
        produced_at=produced_at,
        window=Window(this_update, next_update, refresh_at),
        archive=None if archive == _NO_ARCHIVE else archive - 1,
        as_of=as_of,
        key_hash=key_hash,
        signature=content[_FIELDS.size : _FIELDS.size + size],
    )


def certificate_id(prefix: bytes, serial: Serial) -> CertificateId:
    """The CertID of a form of an issuer and a serial."""
    return CertificateId(writer.tlv(writer.SEQUENCE, prefix + writer.integer(serial)), prefix, serial)


def body(one: Packed, responder: Responder, asked: CertificateId) -> bytes:
    """The DER OCSPResponse that was signed."""
    tbs = response.tbs_response(
        responder,
        [(asked, one.status)],
        produced_at=one.produced_at,
        window=one.window,
        nonce=None,
        extended_revoke=False,
        archive=one.archive,
    )
    return response.response(responder, tbs, one.signature)


def finish(one: Packed, responder: Responder, asked: CertificateId, policy: Policy) -> Finished:
    """The answer, ready to be served again."""
    octets = body(one, responder, asked)
    finished = Finished(
        body=octets,
        etag=response.etag(octets),
        produced_at=one.produced_at,
        window=one.window,
        status=one.status,
        cacheable=True,
        outcome=one.status.verdict.value,
        issuer=responder.issuer,
    )
    return http.ready(finished, policy, digest=http.digest_of(asked.octets))
