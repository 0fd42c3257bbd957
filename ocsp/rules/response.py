"""Writing OCSP responses (RFC 6960 4.2). Ring 1: pure.

The small pieces are put together here; nothing is decided. Times are GeneralizedTime with seconds, no fraction (4.2.2.1);
what is signed is the DER of ResponseData.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from ca.der import writer
from ca.model import Reason, UnixTime
from ocsp.model import NEVER_ISSUED, CertificateId, Responder, ResponseStatus, Status, Verdict, Window
from ocsp.rules.request import BASIC_RESPONSE, NONCE

EXTENDED_REVOKE: Final = "1.3.6.1.5.5.7.48.1.9"
ARCHIVE_CUTOFF: Final = "1.3.6.1.5.5.7.48.1.6"

_GOOD = writer.implicit(0, b"")
_UNKNOWN = writer.implicit(2, b"")
_BASIC = writer.oid(BASIC_RESPONSE)
_SUCCESSFUL = writer.enumerated(ResponseStatus.successful)


def error(status: ResponseStatus) -> bytes:
    """An OCSPResponse that says why there is no answer: unsigned, without responseBytes (RFC 6960 2.3, 4.2.1)."""
    return _ERRORS[status]


_ERRORS: Final[Mapping[ResponseStatus, bytes]] = {
    status: writer.sequence(writer.enumerated(status)) for status in ResponseStatus if status is not ResponseStatus.successful
}


def tbs_response(
    responder: Responder,
    entries: Sequence[tuple[CertificateId, Status]],
    *,
    produced_at: UnixTime,
    window: Window,
    nonce: bytes | None,
    extended_revoke: bool,
    archive: int | None = None,
) -> bytes:
    """DER ResponseData: what is signed.

    Args:
        entries: every certificate of the request, in its order (RFC 6960 4.2.2.3), each with the CertID as it was asked.
        nonce: of the request, echoed as it is (RFC 9654 2.1).
        extended_revoke: True where an entry is a never issued serial answered as revoked (RFC 6960 4.4.8).
        archive: how many seconds back from producedAt the archive cutoff of what is on record lies (RFC 6960 4.4.4); None says none.
    """
    singles = b"".join(
        writer.tlv(writer.SEQUENCE, certificate.octets + said(status, window, produced_at=produced_at, archive=archive))
        for certificate, status in entries
    )
    extensions = b""
    if nonce is not None:
        extensions += writer.extension(NONCE, writer.octet_string(nonce), critical=False)
    if extended_revoke:
        extensions += writer.extension(EXTENDED_REVOKE, writer.NULL, critical=False)
    return writer.sequence(
        responder.responder_id,
        writer.generalized_time(produced_at),
        writer.tlv(writer.SEQUENCE, singles),
        writer.explicit(1, writer.tlv(writer.SEQUENCE, extensions)) if extensions else b"",
    )


def said(status: Status, window: Window, *, produced_at: UnixTime, archive: int | None) -> bytes:
    """What follows the CertID in a SingleResponse."""
    times = writer.generalized_time(window.this_update) + writer.explicit(0, writer.generalized_time(window.next_update))
    kept = b"" if archive is None or not _on_record(status) else _cutoff(produced_at - archive)
    return _certificate_status(status) + times + kept


def _on_record(status: Status) -> bool:
    # RFC 6960 4.4.8: a never issued one that is answered as revoked has no extensions of its own.
    return status.verdict is not Verdict.unknown and status != NEVER_ISSUED


def _cutoff(when: UnixTime) -> bytes:
    """SingleExtensions with the archive cutoff: status is kept for certificates that ended after it."""
    value = writer.extension(ARCHIVE_CUTOFF, writer.generalized_time(max(when, 0)), critical=False)
    return writer.explicit(1, writer.tlv(writer.SEQUENCE, value))


def _certificate_status(status: Status) -> bytes:
    if status.verdict is Verdict.good:
        return _GOOD
    if status.verdict is Verdict.unknown:
        return _UNKNOWN
    # As in CRLs (RFC 5280 5.3.1), the reason `unspecified` is said by leaving it out.
    reason = b"" if status.reason is Reason.unspecified else writer.explicit(0, writer.enumerated(status.reason))
    return writer.tlv(0xA1, writer.generalized_time(status.since) + reason)


def response(responder: Responder, tbs: bytes, signature: bytes) -> bytes:
    """DER OCSPResponse around signed ResponseData, with the delegate's certificate in it (RFC 6960 4.2.2.2)."""
    basic = writer.sequence(tbs, responder.signature_algorithm, writer.bit_string(signature), responder.certificates)
    return writer.sequence(_SUCCESSFUL, writer.explicit(0, writer.sequence(_BASIC, writer.octet_string(basic))))


def etag(body: bytes) -> str:
    """A strong entity tag: the SHA-256 of the response in hex (RFC 9919 6)."""
    return f'"{hashlib.sha256(body).hexdigest()}"'
