"""What the lint reads in a to-be-signed certificate, with `ca.der.reader` alone. Ring 1: pure.

Nothing here comes from the writer: neither its constants nor its tables. What is strange but readable becomes a fact for the rules to
judge; only octets that are no TBSCertificate at all raise.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import Final, NamedTuple

from ca.der import reader
from ca.errors import Malformed
from ca.model import Draft, Issuer, Profile, UnixTime

# version, serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo, extensions
_FIELDS: Final = (0xA0, 0x02, 0x30, 0x30, 0x30, 0x30, 0x30, 0xA3)


class Extension(NamedTuple):
    """One extension as it stands."""

    oid: str
    critical: bool
    value: bytes
    """What is inside the extnValue OCTET STRING."""


class Time(NamedTuple):
    """A time with the form it was written in."""

    tag: int
    when: UnixTime


class Facts(NamedTuple):
    """A TBSCertificate in pieces; names, algorithm and key are whole elements."""

    version: bytes
    serial: bytes
    algorithm: bytes
    issuer: bytes
    not_before: Time
    not_after: Time
    subject: bytes
    spki: bytes
    key: bytes
    """The octets of the subjectPublicKey BIT STRING."""
    key_sha256: bytes
    constant: tuple[bytes, ...]
    """The extensions that are the same on every certificate of a profile under an issuer, whole, in order."""
    key_identifier: bytes
    """The whole subjectKeyIdentifier extension; empty where there is none."""
    alternative_names: Extension | None
    repeated: bool
    """subjectKeyIdentifier or subjectAltName stand in it twice."""


class Case(NamedTuple):
    """What a certificate is held against. `issuer` is None for a self-signed one."""

    draft: Draft
    profile: Profile
    issuer: Issuer | None


class Shape(NamedTuple):
    """The constant extensions of a profile under an issuer, and what they are held against."""

    extensions: tuple[Extension, ...]
    profile: Profile
    issuer: Issuer | None

    def find(self, oid: str) -> Extension | None:
        """The extension of that kind."""
        for extension in self.extensions:
            if extension.oid == oid:
                return extension
        return None


@lru_cache(maxsize=64)
def _time(octets: bytes) -> Time:
    found = reader.element(octets, 0, len(octets))
    return Time(found.tag, reader.time(octets, found))


def extension_of(octets: bytes) -> Extension:
    """Read one Extension (RFC 5280 4.1).

    Raises:
        Malformed: it is not one; an explicit FALSE is not DER (X.690 11.5).
    """
    whole = reader.only(octets, 0x30)
    oid = reader.expect(octets, whole.content, whole.end, 0x06)
    following = reader.element(octets, oid.end, whole.end)
    critical = following.tag == 0x01
    if critical:
        if not reader.boolean(octets, following):
            raise Malformed("not-der", "An extension says that it is not critical, which DER leaves out.")
        following = reader.element(octets, following.end, whole.end)
    if following.tag != 0x04 or following.end != whole.end:
        raise Malformed("not-der", "An extension's value is not one OCTET STRING.")
    return Extension(reader.oid(octets, oid), critical, octets[following.content : following.end])


_SKI: Final = bytes.fromhex("0603551d0e")
_SAN: Final = bytes.fromhex("0603551d11")
_CHANGING: Final = (_SKI, _SAN)


class _Layout(NamedTuple):
    """Where everything stands in a TBSCertificate that was taken apart, for those that differ from it in no header and no constant octet."""

    fixed: tuple[slice, ...]
    """All octets but those of the fields below."""
    octets: bytes
    """What stands there."""
    facts: Facts
    serial: slice
    not_before: slice
    not_after: slice
    subject: slice
    spki: slice
    key: slice
    key_identifier: slice
    alternative_names: slice | None


_layouts: dict[int, list[_Layout]] = {}
"""By the length of the whole."""
_LAYOUTS_KEPT: Final = 64
_LENGTHS_KEPT: Final = 256


def read(tbs: bytes) -> Facts:
    """Take a TBSCertificate apart. One that is built like another before it is not taken apart again: every octet is held against the other's,
    but for serial number, dates, subject, key bits and the two extensions that change, which are read here or by their rules.

    Raises:
        Malformed: it is not one, or not DER, or holds fields that RFC 5280 4.1 does not want (unique identifiers).
    """
    alike = _layouts.get(len(tbs), ())
    for layout in alike:
        if b"".join([tbs[part] for part in layout.fixed]) == layout.octets:
            return _as_laid_out(tbs, layout)
    found, made = _taken_apart(tbs)
    if made is not None:
        if len(_layouts) >= _LENGTHS_KEPT or len(alike) >= _LAYOUTS_KEPT:
            _layouts.clear()
        _layouts.setdefault(len(tbs), []).append(made)
    return found


def _as_laid_out(tbs: bytes, layout: _Layout) -> Facts:
    content, alike = tbs[layout.key], layout.facts
    # Not `_replace`: with so many fields it costs as much as all that is read here.
    return Facts(
        version=alike.version,
        serial=tbs[layout.serial],
        algorithm=alike.algorithm,
        issuer=alike.issuer,
        not_before=_time(tbs[layout.not_before]),
        not_after=_time(tbs[layout.not_after]),
        subject=tbs[layout.subject],
        spki=tbs[layout.spki],
        key=content,
        key_sha256=sha256(content).digest(),
        constant=alike.constant,
        key_identifier=tbs[layout.key_identifier],
        alternative_names=None if layout.alternative_names is None else extension_of(tbs[layout.alternative_names]),
        repeated=alike.repeated,
    )


def _taken_apart(tbs: bytes) -> tuple[Facts, _Layout | None]:
    whole = reader.only(tbs, 0x30)
    fields = reader.elements(tbs, whole.content, whole.end)
    if tuple([field.tag for field in fields]) != _FIELDS:
        raise Malformed("not-der", "The fields are not version, serial number, signature, issuer, validity, subject, key and extensions.")
    version, serial, algorithm, issuer, validity, subject, spki, wrapper = fields
    dates = reader.elements(tbs, validity.content, validity.end)
    parts = reader.elements(tbs, spki.content, spki.end)
    wrapped = reader.elements(tbs, wrapper.content, wrapper.end)
    if len(dates) != 2 or [part.tag for part in parts] != [0x30, 0x03] or [part.tag for part in wrapped] != [0x30]:
        raise Malformed("not-der", "Validity, key or extensions are not built as RFC 5280 4.1 says.")
    not_before, not_after = dates
    key = parts[1]
    constant: list[bytes] = []
    changing: dict[bytes, slice] = {}
    moving = [(serial.content, serial.end), (subject.start, subject.end), (key.content + 1, key.end)]
    moving += [(date.content, date.end) for date in dates]
    repeated = False
    for _, start, inside, end in reader.elements(tbs, wrapped[0].content, wrapped[0].end):
        head = tbs[inside : inside + 5]
        if head in _CHANGING:
            repeated = repeated or head in changing
            changing[head] = slice(start, end)
            moving.append((inside + len(head), end))
        else:
            constant.append(tbs[start:end])
    if tbs[key.content : key.content + 1] != b"\x00":
        raise Malformed("not-der", "The key's BIT STRING has unused bits.")
    content = tbs[key.content + 1 : key.end]
    found = Facts(
        version=tbs[version.content : version.end],
        serial=tbs[serial.content : serial.end],
        algorithm=tbs[algorithm.start : algorithm.end],
        issuer=tbs[issuer.start : issuer.end],
        not_before=_time(tbs[not_before.start : not_before.end]),
        not_after=_time(tbs[not_after.start : not_after.end]),
        subject=tbs[subject.start : subject.end],
        spki=tbs[spki.start : spki.end],
        key=content,
        key_sha256=sha256(content).digest(),
        constant=tuple(constant),
        key_identifier=tbs[changing[_SKI]] if _SKI in changing else b"",
        alternative_names=extension_of(tbs[changing[_SAN]]) if _SAN in changing else None,
        repeated=repeated,
    )
    if repeated or _SKI not in changing:
        return found, None
    moving.sort()
    starts, ends = (0, *(end for _, end in moving)), (*(start for start, _ in moving), len(tbs))
    fixed = tuple(slice(start, end) for start, end in zip(starts, ends, strict=True))
    layout = _Layout(
        fixed=fixed,
        octets=b"".join([tbs[part] for part in fixed]),
        facts=found,
        serial=slice(serial.content, serial.end),
        not_before=slice(not_before.start, not_before.end),
        not_after=slice(not_after.start, not_after.end),
        subject=slice(subject.start, subject.end),
        spki=slice(spki.start, spki.end),
        key=slice(key.content + 1, key.end),
        key_identifier=changing[_SKI],
        alternative_names=changing.get(_SAN),
    )
    return found, layout
