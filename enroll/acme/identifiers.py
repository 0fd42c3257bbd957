"""Which identifiers may be asked for, and what a CSR must say of them. Ring 1: pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from ca.errors import FleetcaError, Malformed
from ca.model import DeviceId
from ca.rules import ids
from ca.rules.caps import Validated
from enroll.acme.model import Directory, Identifier, IdentifierKind, Problem, name_of

MOST: Final = 32
"""Identifiers of one order."""


def read(document: Any) -> tuple[Identifier, ...]:
    """The identifiers of a new order, each once.

    Raises:
        Problem: `malformed`, `unsupportedIdentifier`.
    """
    if not isinstance(document, list) or not document:
        raise Problem("malformed", "identifiers must be a list that is not empty (RFC 8555 7.4).")
    if len(document) > MOST:
        raise Problem("malformed", f"An order has at most {MOST} identifiers.")
    found: list[Identifier] = []
    for one in document:
        identifier = read_one(one)
        if identifier in found:
            raise Problem("malformed", f"The identifier {identifier.value!r} stands in the order twice.")
        found.append(identifier)
    return tuple(found)


def read_one(document: Any) -> Identifier:
    """One identifier."""
    if not isinstance(document, dict) or not isinstance(document.get("type"), str) or not isinstance(document.get("value"), str):
        raise Problem("malformed", "An identifier holds type and value, both text (RFC 8555 7.4).")
    try:
        kind = IdentifierKind(document["type"])
    except ValueError:
        raise Problem("unsupportedIdentifier", "Identifiers of this type are not taken here (RFC 8555 6.7).") from None
    value = document["value"]
    if kind is IdentifierKind.permanent_identifier:
        try:
            return Identifier(kind, ids.device_id(value))
        except Malformed:
            raise Problem("malformed", "This is no device's id.") from None
    value = value.lower()
    try:
        ids.name(kind.value, value)
    except FleetcaError:
        what = "an address in its canonical form (RFC 8738 3)" if kind is IdentifierKind.ip else "a host name in A-labels (RFC 8555 7.1.4)"
        raise Problem("malformed", f"{document['value'][:80]!r} is not {what}.") from None
    if kind is IdentifierKind.dns and _looks_like_an_address(value):
        raise Problem("malformed", f"{value!r} is an address: its type is ip (RFC 8738 3).")
    return Identifier(kind, value)


def _looks_like_an_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def judge(directory: Directory, identifiers: Sequence[Identifier], *, device: DeviceId, bound_names: frozenset[str] | None) -> None:
    """May an account of this directory try to show that it holds these?

    Args:
        device: the account's identity.
        bound_names: the only names that the account's token lets it have; None where it does not say.

    Raises:
        Problem: `rejectedIdentifier`, with one subproblem for each that is at fault where there are several (RFC 8555 6.7.1).
    """
    reach = Validated(dns=directory.dns, networks=directory.networks)
    faults = [
        Problem("rejectedIdentifier", why, identifier=identifier)
        for identifier in identifiers
        if (why := _why_not(directory, reach, identifier, device=device, bound_names=bound_names))
    ]
    if len(identifiers) == 1 and faults:
        raise Problem("rejectedIdentifier", faults[0].detail)
    if faults:
        raise Problem("rejectedIdentifier", "Some identifiers are not to be had here.", subproblems=tuple(faults))


def _why_not(
    directory: Directory, reach: Validated, identifier: Identifier, *, device: DeviceId, bound_names: frozenset[str] | None
) -> str | None:
    name = name_of(identifier)
    if name is None:
        own = directory.bound and identifier.value == device
        return None if own else "An account has no other device's identity."
    if not reach.covers(name):
        return f"{identifier.value} is not among the names of this directory."
    if bound_names is not None and identifier.value not in bound_names:
        return f"{identifier.value} is not among the names of this account's token."
    if identifier.value.startswith("*."):
        return "Certificates here carry no wildcards: each is one holder's."
    return None


def check_csr(der: bytes, identifiers: Sequence[Identifier]) -> None:
    """The CSR asks for exactly the order's identifiers (RFC 8555 7.4).

    Nothing of the CSR but its key goes any further: the signer takes names from the evidence (P2). The device's own identity may be left out.

    Raises:
        Problem: `badCSR`.
    """
    try:
        csr = x509.load_der_x509_csr(der)
        names = _asked_names(csr)
        common = [str(one.value) for one in csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except Problem:
        raise
    except Exception:  # noqa: BLE001 - whatever a library says about foreign octets, they are no CSR (R20)
        raise Problem("badCSR", "This is not a certificate signing request (PKCS#10) in DER.") from None
    wanted = {identifier for identifier in identifiers if identifier.kind is not IdentifierKind.permanent_identifier}
    texts = {identifier.value: identifier for identifier in identifiers}
    for text in common:
        # The common name may repeat one; without alternative names it is the only one that stands anywhere.
        found = texts.get(text.lower()) or texts.get(text)
        if found is None:
            raise Problem("badCSR", "The common name is not one of the order's identifiers (RFC 8555 7.4).")
        if found.kind is not IdentifierKind.permanent_identifier:
            names.add(found)
    if names != wanted:
        raise Problem("badCSR", "The CSR does not ask for exactly the identifiers of the order (RFC 8555 7.4).")


def _asked_names(csr: x509.CertificateSigningRequest) -> set[Identifier]:
    try:
        extension = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return set()
    names = set()
    for name in extension.value:
        if isinstance(name, x509.DNSName):
            names.add(Identifier(IdentifierKind.dns, name.value.lower()))
        elif isinstance(name, x509.IPAddress):
            names.add(Identifier(IdentifierKind.ip, str(name.value)))
        else:
            raise Problem("badCSR", "The CSR asks for a kind of name that no order holds (RFC 8555 7.4).")
    return names
