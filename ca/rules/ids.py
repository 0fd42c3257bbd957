"""What ids and names look like, in one place. Ring 1: pure.

Owns the patterns of device, profile, issuer and operator ids, the hex form of serial numbers and the text forms of subject alternative
names. Knows nothing of who may have them. Ids never become paths, yet the patterns hold no slash and no leading dot (incident R30).
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable
from typing import Final

from ca.errors import Malformed
from ca.model import DeviceId, Digest, GraveAct, IssuerId, Name, NameKind, OperatorName, ProfileName, Reason, Serial

_DEVICE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_SHORT: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_SERIAL: Final = re.compile(r"[0-9a-f]{1,40}")
_HASH: Final = re.compile(r"[0-9a-f]{0,64}")
_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_URI: Final = re.compile(r"[a-z][a-z0-9+.-]*:[\x21-\x7e]+")
_MAILBOX: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[a-z0-9.-]{1,190}")

LONGEST_NAME: Final = 255
MOST_NAMES: Final = 32


def _matched(pattern: re.Pattern[str], text: str, what: str) -> str:
    if not pattern.fullmatch(text):
        raise Malformed(
            f"bad-{what}-id",
            f"This is no {what} id.",
            why=f"It must match {pattern.pattern}.",
        )
    return text


def device_id(text: str) -> DeviceId:
    """A device's id, or `Malformed`."""
    return DeviceId(_matched(_DEVICE, text, "device"))


def profile_name(text: str) -> ProfileName:
    """A profile's name, or `Malformed`."""
    return ProfileName(_matched(_SHORT, text, "profile"))


def issuer_id(text: str) -> IssuerId:
    """An issuer's id, or `Malformed`."""
    return IssuerId(_matched(_SHORT, text, "issuer"))


def operator_name(text: str) -> OperatorName:
    """An operator's name, or `Malformed`. Shorter than a device id, since its certificates stand under one."""
    if len(text) > 40:
        raise Malformed("bad-operator-id", "This is no operator id.", why="It is longer than 40 characters.")
    return OperatorName(_matched(_SHORT, text, "operator"))


def serial_from_hex(text: str) -> Serial:
    """A serial number from lower- or upper-case hex, with or without leading zeros."""
    lower = text.lower()
    if not _SERIAL.fullmatch(lower) or int(lower, 16) == 0:
        raise Malformed("bad-serial", "This is not a serial number.", why="It must be 1 to 40 hexadecimal digits and not zero.")
    return Serial(int(lower, 16))


def hash_beginning(text: str, *, whole: bool = False) -> str:
    """A SHA-256 in hex, or the beginning of one, in lower case; nothing is the beginning of all."""
    lower = text.lower()
    if not _HASH.fullmatch(lower) or (whole and len(lower) != 64):
        raise Malformed("bad-hash", "This is no SHA-256, nor the beginning of one.", why="It must be hexadecimal digits, at most 64.")
    return lower


def subject_digest(act: GraveAct, text: str) -> Digest:
    """What a grave act finds its approval by: of the act and its exact request, as canonical JSON."""
    return Digest(hashlib.sha256(f"{act.value}\0{text}".encode()).digest())


def reason_named(word: str) -> Reason:
    """A CRLReason by its RFC 5280 5.3.1 word."""
    try:
        return Reason[word]
    except KeyError:
        words = ", ".join(reason.name for reason in Reason)
        raise Malformed("unknown-reason", "This is not a revocation reason.", why=f"RFC 5280 5.3.1 knows {words}.") from None


def _dns(value: str) -> bool:
    host = value.removeprefix("*.")
    labels = host.split(".")
    return len(host) <= 253 and all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit()


def _ip(value: str) -> bool:
    try:
        # A zone (fe80::1%eth0) means something on one host only, and could hold any text.
        return "%" not in value and str(ipaddress.ip_address(value)) == value
    except ValueError:
        return False


_FORMS: Final[dict[NameKind, Callable[[str], bool]]] = {
    NameKind.dns: _dns,
    NameKind.ip: _ip,
    NameKind.uri: lambda value: _URI.fullmatch(value) is not None,
    NameKind.email: lambda value: _MAILBOX.fullmatch(value) is not None,
    # Readable, so that the refusal can say that no profile allows asking for one.
    NameKind.permanent_identifier: lambda value: value.isascii() and value.isprintable() and value != "",
}


def name(kind: str, value: str) -> Name:
    """A subject alternative name in its one text form: lower-case A-labels, canonical IP literals, ASCII URIs and mailboxes."""
    try:
        known = NameKind(kind)
    except ValueError:
        raise Malformed("bad-name", "This kind of name is not known.", why=f"Known are {', '.join(NameKind)}.") from None
    if len(value) > LONGEST_NAME or not _FORMS[known](value):
        raise Malformed("bad-name", f"This is not a {known} name.", why="Names are ASCII, lower-case and in their canonical form.")
    return Name(known, value)
