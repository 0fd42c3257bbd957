"""Rules about the extensions that change with every certificate: subjectKeyIdentifier and subjectAltName (RFC 5280 4.2.1.2, 4.2.1.6)."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final

from ca.der import reader
from ca.model import Name, NameKind, Profile
from ca.rules.lint.facts import Case, Facts

_KINDS: Final = {0x81: NameKind.email, 0x82: NameKind.dns, 0x86: NameKind.uri, 0x87: NameKind.ip, 0xA0: NameKind.permanent_identifier}
# id-on-permanentIdentifier, 1.3.6.1.5.5.7.8.3.
_PERMANENT_IDENTIFIER: Final = bytes.fromhex("06082b06010505070803")
# A non-critical subjectKeyIdentifier of 20 octets, up to those octets.
_KEY_IDENTIFIER: Final = bytes.fromhex("301d0603551d0e04160414")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s]+")
_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def key_identifier(facts: Facts, _case: Case) -> str | None:
    """RFC 5280 4.2.1.2 with RFC 7093 2 (1): non-critical, the leftmost 160 bits of SHA-256 of the key's octets, exactly once."""
    if not facts.key_identifier or facts.repeated:
        return "subjectKeyIdentifier is missing, or an extension stands twice"
    if facts.key_identifier != _KEY_IDENTIFIER + facts.key_sha256[:20]:
        return "subjectKeyIdentifier is critical, or not made from this key"
    return None


def alternative_names(facts: Facts, case: Case) -> str | None:
    """RFC 5280 4.2.1.6: never empty, well-formed, not critical beside a subject, of kinds the profile allows, and exactly the draft's."""
    found, draft, profile = facts.alternative_names, case.draft, case.profile
    if found is None:
        if profile.required_names or _given(profile) or draft.names:
            return "names are missing"
        return None
    if found.critical:
        return "subjectAltName is critical although there is a subject"
    octets = found.value
    names = reader.elements(octets, reader.only(octets, 0x30).content, len(octets))
    if not names:
        return "subjectAltName is empty"
    given, same = _given(profile), len(names) == len(draft.names)
    for place, one in enumerate(names):
        kind = _KINDS.get(one.tag)
        if kind is None:
            return "a name is of a kind that no profile gives"
        if kind not in given and kind not in profile.allowed_names:
            return f"the profile allows no {kind.value} names"
        text = _text(kind, octets[one.content : one.end])
        if text is None:
            return f"a {kind.value} name is not well-formed"
        same = same and _same(kind, text, draft.names[place])
    return None if same else "the names are not the draft's"


def _given(profile: Profile) -> tuple[NameKind, ...]:
    """The kinds of names that a profile gives unasked."""
    uris = (NameKind.uri,) if profile.uris else ()
    return uris if profile.permanent_identifier is None else (NameKind.permanent_identifier, *uris)


def _text(kind: NameKind, octets: bytes) -> str | None:
    if kind is NameKind.permanent_identifier:
        return _identifier_value(octets)
    if kind is NameKind.ip:
        return str(ip_address(octets)) if len(octets) in (4, 16) else None
    if not octets.isascii():
        return None
    text = octets.decode("ascii")
    if kind is NameKind.uri:
        return text if _SCHEME.fullmatch(text) else None
    host = text.rpartition("@")[2]
    if (kind is NameKind.email) is not ("@" in text) or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        return None
    return text


def _identifier_value(octets: bytes) -> str | None:
    """RFC 4043 2: of an AnotherName, id-on-permanentIdentifier and a SEQUENCE of one UTF8String: the assigner is the issuer."""
    if not octets.startswith(_PERMANENT_IDENTIFIER):
        return None
    inner = octets[len(_PERMANENT_IDENTIFIER) :]
    value = reader.innermost(inner, 0xA0, 0x30, 0x0C)
    try:
        text = inner[value.content : value.end].decode()
    except UnicodeDecodeError:
        return None
    return text if text and text.isprintable() else None


def _same(kind: NameKind, text: str, meant: Name) -> bool:
    if kind is not meant.kind:
        return False
    # An address has several spellings and one encoding.
    return text == meant.value or (kind is NameKind.ip and ip_address(text) == ip_address(meant.value))


RULES: Final = (
    ("key-identifier", "RFC 5280 4.2.1.2", key_identifier),
    ("alternative-names", "RFC 5280 4.2.1.6", alternative_names),
)
