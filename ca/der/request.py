"""Our own certificate signing requests (RFC 2986): for the keys of issuing CAs and operators, which only sign. Ring 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ca.der import writer
from ca.der.names import subject_name

_NO_ATTRIBUTES: Final = writer.explicit(0, b"")


def request_info(subject: Mapping[str, str], spki: bytes) -> bytes:
    """CertificationRequestInfo, to be signed with the key it names and put in `ca.der.certificate.assemble`'s envelope."""
    return writer.sequence(writer.integer(0), subject_name(subject), spki, _NO_ATTRIBUTES)
