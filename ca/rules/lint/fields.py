"""Rules about the fields before the extensions (RFC 5280 4.1). Each returns what is wrong, or None."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

from ca.der import reader
from ca.rules.lint.facts import Case, Facts

# The signature AlgorithmIdentifiers, written down a second time so that a slip in the writer's table is seen (RFC 5758, 8410, 9881, 4055).
SIGNATURES: Final = {
    "p256": bytes.fromhex("300a06082a8648ce3d040302"),
    "p384": bytes.fromhex("300a06082a8648ce3d040303"),
    "ed25519": bytes.fromhex("300506032b6570"),
    "rsa-3072": bytes.fromhex("300d06092a864886f70d01010b0500"),
    "rsa-4096": bytes.fromhex("300d06092a864886f70d01010b0500"),
    "ml-dsa-44": bytes.fromhex("300b0609608648016503040311"),
    "ml-dsa-65": bytes.fromhex("300b0609608648016503040312"),
    "ml-dsa-87": bytes.fromhex("300b0609608648016503040313"),
}
# The beginning of each SubjectPublicKeyInfo up to the key's own octets, and how many octets the whole has. RSA with the exponent 65537
# or others of the same length; longer exponents make it longer, so only the least is given.
_KEYS: Final = {
    "p256": (bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"), 91),
    "p384": (bytes.fromhex("3076301006072a8648ce3d020106052b8104002203620004"), 120),
    "ed25519": (bytes.fromhex("302a300506032b6570032100"), 44),
    "ml-dsa-44": (bytes.fromhex("30820532300b06096086480165030403110382052100"), 1334),
    "ml-dsa-65": (bytes.fromhex("308207b2300b0609608648016503040312038207a100"), 1974),
    "ml-dsa-87": (bytes.fromhex("30820a32300b060960864801650304031303820a2100"), 2614),
}
_RSA: Final = bytes.fromhex("300d06092a864886f70d0101010500")

_FIRST_GENERALIZED: Final = 2524608000
_PRINTABLE: Final = re.compile(r"[A-Za-z0-9 '()+,./:=?-]+")  # X.680 41.4
_STRINGS: Final = frozenset((0x0C, 0x13))
_COUNTRY: Final = bytes.fromhex("0603550406")
_SERIAL_NUMBER: Final = bytes.fromhex("0603550405")
# The attributes a subject may have: how RFC 4514 calls them, and their upper bound in characters (RFC 5280 A.1).
_ATTRIBUTES: Final = {
    bytes.fromhex("0603550403"): ("CN", 64),
    bytes.fromhex("060355040a"): ("O", 64),
    bytes.fromhex("060355040b"): ("OU", 64),
    bytes.fromhex("0603550407"): ("L", 128),
    bytes.fromhex("0603550408"): ("ST", 128),
    _SERIAL_NUMBER: ("2.5.4.5", 64),
    _COUNTRY: ("C", 2),
}
_QUOTED: Final = frozenset('"+,;<>\\')


def version(facts: Facts, _case: Case) -> str | None:
    """RFC 5280 4.1.2.1: v3, because there are extensions."""
    return None if facts.version == b"\x02\x01\x02" else "the version is not v3"


def serial(facts: Facts, case: Case) -> str | None:
    """RFC 5280 4.1.2.2: positive, 20 octets at most; ours hold at least 128 random bits (R03)."""
    octets = facts.serial
    if not 17 <= len(octets) <= 20:
        return f"the serial number has {len(octets)} octets, not 17 to 20"
    if octets[0] & 0x80 or (octets[0] == 0 and octets[1] < 0x80):
        return "the serial number is negative or padded"
    if int.from_bytes(octets, "big") != case.draft.serial:
        return "the serial number is not the one that was reserved"
    return None


def algorithm(facts: Facts, case: Case) -> str | None:
    """RFC 5280 4.1.1.2, 4.1.2.3: the inner AlgorithmIdentifier is the signer's, with exactly its parameters."""
    if case.issuer is not None and case.issuer.algorithm != case.draft.algorithm:
        return f"the draft is for {case.draft.algorithm}, the issuer signs with {case.issuer.algorithm}"
    if facts.algorithm != SIGNATURES.get(case.draft.algorithm):
        return f"the signature algorithm is not that of {case.draft.algorithm}"
    return None


def issuer(facts: Facts, case: Case) -> str | None:
    """RFC 5280 4.1.2.4, 4.1.2.6: not empty, and the very octets of the issuer's subject."""
    if facts.issuer == b"\x30\x00":
        return "the issuer is empty"
    if facts.issuer != (facts.subject if case.issuer is None else case.issuer.subject):
        return "the issuer is not encoded as its own subject is"
    return None


def validity(facts: Facts, case: Case) -> str | None:
    """RFC 5280 4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050; the dates of the draft; never past the issuer (R23)."""
    first, last = facts.not_before, facts.not_after
    for time in (first, last):
        if time.tag != (0x18 if time.when >= _FIRST_GENERALIZED else 0x17):
            return "a date is UTCTime from 2050 on, or GeneralizedTime before"
    draft, profile = case.draft, case.profile
    if (first.when, last.when) != (draft.not_before, draft.not_after):
        return "the dates are not the draft's"
    seconds = last.when - first.when + 1
    if not 0 < seconds <= profile.max_lifetime or (not profile.is_ca and seconds != profile.lifetime):
        return f"it holds for {seconds} seconds, its profile says {profile.lifetime} (R04: both ends count)"
    if case.issuer is not None and last.when > case.issuer.not_after:
        return "it outlives its issuer"
    return None


def subject(facts: Facts, case: Case) -> str | None:
    """RFC 5280 4.1.2.6, A.1: not empty; one attribute in each set; UTF8String or PrintableString within their bounds; the draft's."""
    said: list[str] = []
    octets = facts.subject
    names = reader.elements(octets, reader.only(octets, 0x30).content, len(octets))
    if not names:
        return "the subject is empty"
    for name in names:
        pairs = reader.elements(octets, name.content, name.end)
        if name.tag != 0x31 or len(pairs) != 1 or pairs[0].tag != 0x30:
            return "a relative distinguished name is not a SET of one attribute"
        fields = reader.elements(octets, pairs[0].content, pairs[0].end)
        if len(fields) != 2:
            return "an attribute is not a type and a value"
        kind, value = fields
        oid = octets[kind.start : kind.end]
        if oid not in _ATTRIBUTES:
            return "the subject has an attribute that no profile gives"
        word, longest = _ATTRIBUTES[oid]
        if value.tag not in _STRINGS or (value.tag != 0x13 and oid in (_COUNTRY, _SERIAL_NUMBER)):
            return "an attribute is not a UTF8String or PrintableString as its definition wants"
        try:
            text = octets[value.content : value.end].decode()
        except UnicodeDecodeError:
            return "an attribute is not UTF-8"
        if not 0 < len(text) <= longest:
            return "an attribute is empty or longer than RFC 5280 A.1 allows"
        if value.tag == 0x13 and not _PRINTABLE.fullmatch(text):
            return "a PrintableString holds a character that it may not"
        said.append(f"{word}={_quoted(text)}")
    if ",".join(reversed(said)) != case.draft.subject:
        return "the subject is not the draft's"
    return None


def _quoted(text: str) -> str:
    """RFC 4514 2.4, written a second time."""
    if not _QUOTED.isdisjoint(text):
        text = "".join("\\" + character if character in _QUOTED else character for character in text)
    if text[0] in "# ":
        text = "\\" + text
    return text[:-1] + "\\ " if text[-1] == " " else text


def key(facts: Facts, case: Case) -> str | None:
    """RFC 3279, 5480, 8410, 9881: a key of a kind and size that the profile accepts, in its one encoding; the draft's key."""
    if sha256(facts.spki).digest() != case.draft.spki_sha256:
        return "the public key is not the one that was asked for"
    if _kind(facts.spki, facts.key) not in case.profile.key_algorithms:
        return "the public key is not of a kind that the profile accepts"
    return None


def _kind(spki: bytes, key_octets: bytes) -> str | None:
    for name, (head, count) in _KEYS.items():
        if len(spki) == count and spki.startswith(head):
            return name
    if spki[4 : 4 + len(_RSA)] == _RSA:
        pair = reader.only(key_octets, 0x30)
        modulus = reader.expect(key_octets, pair.content, pair.end, 0x02)
        bits = reader.integer(key_octets, modulus).bit_length()
        return f"rsa-{bits}"
    return None


RULES: Final = (
    ("version", "RFC 5280 4.1.2.1", version),
    ("serial", "RFC 5280 4.1.2.2", serial),
    ("algorithm", "RFC 5280 4.1.2.3", algorithm),
    ("issuer", "RFC 5280 4.1.2.4", issuer),
    ("validity", "RFC 5280 4.1.2.5", validity),
    ("subject", "RFC 5280 4.1.2.6", subject),
    ("key", "RFC 5280 4.1.2.7", key),
)
