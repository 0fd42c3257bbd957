"""What an update system carries to devices (REQ-KEY-044): pin sets, the certificates between, CRLs. Ring 1: pure.

Its number and its end are those of its last pin set, which a pinned root key signed; whoever carries it can leave it out and nothing else. The file:

    {"format": "fleetca anchor bundle v1", "sets": [signed pin sets], "certificates": [DER, base64], "crls": [DER, base64]}
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes

from ca.errors import Denied, Malformed, Unacceptable
from ca.model import UnixTime
from ca.rules import pins
from ca.rules.pins import PinSet, Signed

FORMAT: Final = "fleetca anchor bundle v1"
LONGEST: Final = 64 * 1024 * 1024
_FIELDS: Final = {"format", "sets", "certificates", "crls"}


@dataclass(frozen=True, slots=True)
class Bundle:
    """As it travels; nothing in it is believed yet."""

    sets: tuple[Signed, ...]
    certificates: tuple[bytes, ...] = ()
    crls: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """What a bundle says, believed."""

    steps: tuple[tuple[Signed, PinSet], ...]
    """The sets that are newer than what was known, oldest first; empty where it says nothing new."""
    last: PinSet
    anchors: tuple[bytes, ...]
    """Root certificates to trust from now on."""
    crls: Mapping[bytes, tuple[int, bytes]]
    """Key identifier of the issuer -> number and DER."""


def write(bundle: Bundle) -> bytes:
    sets = json.loads(pins.write_sets(bundle.sets))["sets"]
    more = {name: [base64.b64encode(der).decode() for der in getattr(bundle, name)] for name in ("certificates", "crls")}
    return json.dumps({"format": FORMAT, "sets": sets, **more}, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def read(octets: bytes) -> Bundle:
    """Read the file.

    Raises:
        Malformed: it is none (`bad-bundle`), or its sets cannot be read (`bad-pins`).
    """
    try:
        if len(octets) > LONGEST:
            raise ValueError("it is too long")
        found = json.loads(octets)
        if not isinstance(found, dict) or set(found) != _FIELDS or found["format"] != FORMAT:
            raise ValueError(f"it is not {FORMAT}")
        ders = [tuple(base64.b64decode(one, validate=True) for one in found[name]) for name in ("certificates", "crls")]
        sets = json.dumps({"sets": found["sets"]}).encode()
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise Malformed("bad-bundle", "The bundle of trust anchors cannot be read.", why=str(error)) from None
    return Bundle(pins.read_sets(sets), *ders)


def judge(
    bundle: Bundle, *, anchors: Sequence[bytes], known: tuple[Signed, PinSet] | None, numbers: Mapping[bytes, int], now: UnixTime
) -> Told:
    """What of a bundle counts for somebody who trusts `anchors`.

    Args:
        anchors: root certificates that are trusted (DER).
        known: the set that was accepted last.
        numbers: of the CRLs that are known, by the key identifier of their issuer.

    Raises:
        Denied: what `ca.rules.pins.accept` says, for any of its sets; it is older than what is known (`pins-rolled-back`), or another of the same
            number, or holds two of one number (`pins-forked`); its last set is over (`pins-expired`); a CRL is older than one that is known (`crl-rolled-back`).
        Malformed: it holds no set (`bad-bundle`).
        Unacceptable: a certificate or CRL in it is nobody's that is trusted (`bundle-stranger`), or a CRL is over (`crl-expired`).
    """
    read_sets = sorted(((signed, pins.read_set(signed.payload)) for signed in bundle.sets), key=lambda one: one[1].seq)
    if not read_sets:
        raise Malformed("bad-bundle", "The bundle of trust anchors cannot be read.", why="It holds no pin set.")
    newest = read_sets[-1]
    if known is not None and newest[1].seq < known[1].seq:
        raise Denied(
            "pins-rolled-back",
            "The pin set is older than the one that is known.",
            why=f"Its number is {newest[1].seq}, known is {known[1].seq}.",
        )
    every = read_sets if known is None else sorted([*read_sets, known], key=lambda one: one[1].seq)
    for one, other in pairwise(every):
        # Which of two is the signed one is told by order alone, so neither may speak for the bundle: not even for its end.
        if one[1].seq == other[1].seq and one[0].payload != other[0].payload:
            raise Denied(
                "pins-forked",
                "There are two pin sets of one number.",
                why=f"Its number is {one[1].seq}.",
                fix="Find out who signed two of them.",
            )
    steps = []
    last, trusted = known, tuple(anchors)
    for signed, found in read_sets:
        if last is not None and found.seq <= last[1].seq:
            continue
        pinned = frozenset(map(pins.pin_of, trusted)) if last is None else last[1].pins
        accepted = pins.accept(signed, trusted=pinned, last=None if last is None else last[1], now=now)
        trusted = pins.trusted_anchors(accepted, trusted, now=now)
        last = (signed, accepted)
        steps.append(last)
    assert last is not None, "the first set was accepted, or one is known"
    if last[1].expires is not None and now >= last[1].expires:
        raise Denied(
            "pins-expired", "The pin set is over.", why="Somebody may keep a newer one away.", fix="Fetch the newest: fleetca pins export"
        )
    return Told(tuple(steps), last[1], trusted, _crls(bundle, trusted, numbers, now))


def _crls(bundle: Bundle, anchors: Sequence[bytes], numbers: Mapping[bytes, int], now: UnixTime) -> Mapping[bytes, tuple[int, bytes]]:
    try:
        issuers, strangers = _below(anchors, bundle.certificates)
        crls = [(der, x509.load_der_x509_crl(der)) for der in bundle.crls]
    except ValueError as error:
        raise Malformed("bad-bundle", "The bundle of trust anchors cannot be read.", why=str(error)) from None
    if strangers:
        raise _stranger(f"No trusted root stands above {strangers[0].subject.rfc4514_string()}.")
    told: dict[bytes, tuple[int, bytes]] = {}
    for der, crl in crls:
        issuer = _signer(crl, issuers)
        if issuer is None:
            raise _stranger(f"Nobody here signed the CRL of {crl.issuer.rfc4514_string()}.")
        ends = crl.next_update_utc
        if ends is None or now >= ends.timestamp():
            raise Unacceptable(
                "crl-expired", f"The CRL of {crl.issuer.rfc4514_string()} is over.", fix="Export a fresh bundle: fleetca pins export"
            )
        identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        if number < numbers.get(identifier, 0):
            raise Denied(
                "crl-rolled-back",
                "The CRL is older than the one that is known.",
                why=f"Its number is {number}, known is {numbers[identifier]}.",
            )
        told[identifier] = (number, der)
    return told


def _below(anchors: Sequence[bytes], certificates: Sequence[bytes]) -> tuple[Sequence[x509.Certificate], Sequence[x509.Certificate]]:
    """Roots and the CAs below them, and the certificates that are below none."""
    issuers = [x509.load_der_x509_certificate(der) for der in anchors]
    waiting = [x509.load_der_x509_certificate(der) for der in certificates]
    while found := [one for one in waiting if any(_issued(one, by) for by in issuers)]:
        issuers += found
        waiting = [one for one in waiting if one not in found]
    return issuers, waiting


def _signer(crl: x509.CertificateRevocationList, issuers: Sequence[x509.Certificate]) -> x509.Certificate | None:
    for one in issuers:
        # CAs have keys of our table only, and all of them verify.
        if one.subject == crl.issuer and crl.is_signature_valid(one.public_key()):  # type: ignore[arg-type]
            return one
    return None


def _issued(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
        return bool(by.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False


def _stranger(why: str) -> Unacceptable:
    return Unacceptable("bundle-stranger", "Something in the bundle is nobody's that is trusted.", why=why)


def to_export(sets: Sequence[Signed], *, certificates: Sequence[bytes], crls: Sequence[bytes], now: UnixTime) -> tuple[Bundle, PinSet]:
    """The bundle for an update system, judged as a device will that knows the first set's roots; and its last set.

    Args:
        certificates: CAs; those that stand below no root of the last set are left out, and with them their CRLs.

    Raises:
        Denied, Malformed, Unacceptable: what `judge` would say there; the last set has no end (`pins-endless`).
    """
    anchors = pins.read_set(sets[0].payload).anchors if sets else ()
    told = judge(Bundle(tuple(sets)), anchors=anchors, known=None, numbers={}, now=now)
    if told.last.expires is None:
        raise Unacceptable(
            "pins-endless", "The pin set has no end.", why="Whoever keeps newer ones away could show it for ever.",
            fix="Sign the next one with an end: fleetca ceremony pins --expires 730d",
        )  # fmt: skip
    issuers, strangers = _below(told.last.anchors, certificates)
    left = {one.fingerprint(hashes.SHA256()) for one in strangers}
    kept = tuple(der for der in certificates if hashlib.sha256(der).digest() not in left)
    held = tuple(der for der in crls if _signer(x509.load_der_x509_crl(der), issuers) is not None)
    bundle = Bundle(tuple(sets), kept, held)
    judge(bundle, anchors=anchors, known=None, numbers={}, now=now)
    return bundle, told.last
