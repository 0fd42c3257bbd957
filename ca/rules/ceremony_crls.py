"""What follows for a root's CRL from the ones before it: its number and its entries (P6). Ring 1: pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography import x509

from ca.der.algorithms import load_public_key, verify
from ca.der.certificate import UNREADABLE, time_of
from ca.errors import FleetcaError, Unacceptable
from ca.model import CrlEntry, CrlNumber, Issuer, Reason, Serial, UnixTime
from ca.rules.ceremony import Period, RootCrlAct


@dataclass(frozen=True, slots=True)
class Before:
    """What this ceremony has signed already for an issuer."""

    number: CrlNumber = 0
    entries: Mapping[Serial, CrlEntry] = field(default_factory=dict)
    this_update: UnixTime = 0


@dataclass(frozen=True, slots=True)
class CrlContent:
    """Number and entries of a root CRL."""

    number: CrlNumber
    entries: tuple[CrlEntry, ...]


def crl_content(act: RootCrlAct, when: Period, issuer: Issuer, *, before: Before) -> CrlContent:
    """Nothing that was revoked is forgotten, and the number rises: above the CRL named as previous, and above those of this ceremony.

    Raises:
        Unacceptable: the CRL before is not one, or not of this root (`previous-crl`), or this one would begin before it (`crl-out-of-order`).
    """
    entries = dict(before.entries)
    above, latest = before.number, before.this_update
    if act.previous is not None:
        found = read_previous(act, issuer)
        above, latest = max(above, found.number), max(latest, found.this_update)
        entries |= found.entries
    if when.start < latest and not act.replaces_pre_dated:
        raise Unacceptable(
            "crl-out-of-order",
            f"Act {act.id}: its thisUpdate lies before that of the CRL before it.",
            why="A later number with an earlier date would be taken for the older CRL.",
            fix="Correct this_update in the sheet. If this CRL takes the place of pre-dated ones, write replaces_pre_dated = true.",
        )
    for added in act.revoked:
        if added.revoked_at > when.start:
            raise Unacceptable(
                "revoked-later",
                f"Act {act.id}: the certificate {added.serial:x} is revoked after the CRL's thisUpdate.",
                why="A CRL tells what happened before it was made (RFC 5280 5.1.2.4, 5.1.2.6).",
                fix="Correct revoked_at in the sheet.",
            )
        # The first revocation stays: its date is what relying parties have seen.
        entries.setdefault(added.serial, added)
    return CrlContent(above + 1, tuple(entries[serial] for serial in sorted(entries)))


def after_it(content: CrlContent, when: Period) -> Before:
    """What the next CRL of the same issuer must follow."""
    return Before(content.number, {entry.serial: entry for entry in content.entries}, when.start)


def read_previous(act: RootCrlAct, issuer: Issuer | None) -> Before:
    """The CRL before an act; believed when it is the issuer's (None: not asked).

    Raises:
        Unacceptable: it is no CRL, or not of this root (`previous-crl`).
    """
    try:
        crl = x509.load_der_x509_crl(act.previous or b"")
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        entries = {}
        for entry in crl:
            serial = Serial(entry.serial_number)
            entries[serial] = CrlEntry(serial, time_of(entry.revocation_date_utc), _reason_of(entry))
        found = Before(number, entries, time_of(crl.last_update_utc))
    except (*UNREADABLE, x509.ExtensionNotFound) as error:
        raise Unacceptable(
            "previous-crl",
            f"Act {act.id}: the previous CRL cannot be read.",
            why=str(error),
            fix="Name the last CRL of this root.",
        ) from None
    if issuer is not None:
        _check_origin(act, crl, issuer)
    return found


def _check_origin(act: RootCrlAct, crl: x509.CertificateRevocationList, issuer: Issuer) -> None:
    try:
        if crl.issuer.public_bytes() != issuer.subject:
            raise ValueError("It names another issuer.")
        verify(load_public_key(issuer.spki), crl.signature, crl.tbs_certlist_bytes)
    except (ValueError, FleetcaError) as error:
        raise Unacceptable(
            "previous-crl",
            f"Act {act.id}: the previous CRL is not one of {issuer.id}.",
            why=str(error),
            fix="Name the last CRL of this root.",
        ) from None


def _reason_of(entry: x509.RevokedCertificate) -> Reason:
    try:
        flag = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except x509.ExtensionNotFound:
        return Reason.unspecified
    return Reason[flag.value]
