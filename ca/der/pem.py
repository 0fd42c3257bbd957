"""PEM in and out (RFC 7468). Ring 1: pure text work; knows nothing of what the DER inside means."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from ca.errors import Malformed

CERTIFICATE: Final = "CERTIFICATE"
REQUEST: Final = "CERTIFICATE REQUEST"
CRL: Final = "X509 CRL"
ENCRYPTED_KEY: Final = "ENCRYPTED PRIVATE KEY"

# Old names that tools still write (RFC 7468 7, appendix A).
_ALIASES: Final = {
    REQUEST: (REQUEST, "NEW CERTIFICATE REQUEST"),
    CERTIFICATE: (CERTIFICATE, "X509 CERTIFICATE"),
    CRL: (CRL, "CRL"),
}
_BEGIN: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,64})-----[ \t]*\r?\n")
_END: Final = re.compile(rb"-----END ([A-Z0-9 ]{1,64})-----")


def pem(label: str, der: bytes) -> str:
    """One PEM block with lines of 64 characters, ending in a newline."""
    text = base64.b64encode(der).decode()
    lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n"


def ders_of(data: bytes, label: str) -> list[bytes]:
    """All blocks of one kind, in order; text around them and blocks of other kinds are passed over (RFC 7468 2).

    Raises:
        Malformed: a block of this kind is not base64 or does not end as it began (`bad-pem`).
    """
    wanted = {name.encode() for name in _ALIASES.get(label, (label,))}
    found: list[bytes] = []
    at = 0
    # Each octet is looked at once, also where a thousand blocks begin and none ends.
    while (begins := _BEGIN.search(data, at)) and (ends := _END.search(data, begins.end())):
        begin, body, end = begins[1], data[begins.end() : ends.start()], ends[1]
        at = ends.end()
        if begin not in wanted:
            continue
        if end != begin:
            raise Malformed("bad-pem", f"The PEM block begins as {begin.decode()} and ends as {end.decode()}.")
        try:
            found.append(base64.b64decode(b"".join(body.split()), validate=True))
        except (binascii.Error, ValueError):
            raise Malformed("bad-pem", f"The PEM block {label} is not base64.") from None
    return found


def der_of(data: bytes, label: str) -> bytes:
    """The DER octets of a file that holds either DER or exactly one PEM block of that label.

    Raises:
        Malformed: neither (`bad-pem`). Octets that begin like DER are handed on unread.
    """
    if data[:1] == b"\x30":
        return data
    found = ders_of(data, label)
    if len(found) != 1:
        raise Malformed(
            "bad-pem",
            f"There is no {label} here." if not found else f"There are {len(found)} blocks of {label} where one belongs.",
            why="It is neither DER nor PEM with that label." if not found else "",
        )
    return found[0]
