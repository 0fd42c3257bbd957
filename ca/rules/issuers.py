"""How the issuers of a deployment belong together. Ring 1: pure.

Who signed whom is decided by keys, never by names alone (incident R34). A root is offline: no deployment has its key (P4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum

from cryptography import x509

from ca.der.algorithms import load_public_key, verify
from ca.der.certificate import read_certificate
from ca.errors import Denied, Misconfigured, Refused
from ca.model import Issuer, IssuerId, UnixTime


class Ability(Enum):
    """What an issuer may do at a moment."""

    issue = "issue"
    sign_crl = "sign-crl"
    sign_status = "sign-status"
    """Certify OCSP responders."""


def arranged(issuers: Sequence[Issuer]) -> tuple[Issuer, ...]:
    """The issuers with their parents, which stand before them.

    Raises:
        Misconfigured: one is signed by nobody before it (`unknown-parent`), or a root has a key here (`root-key-online`).
    """
    found: list[Issuer] = []
    for issuer in issuers:
        facts = read_certificate(issuer.certificate)
        if facts.issuer == facts.subject:
            if issuer.key is not None:
                raise Misconfigured(
                    "root-key-online",
                    f"The settings name a key for {issuer.id}, which is a root.",
                    why="A root is offline: no process of a deployment opens its key (P4).",
                    fix=f"Take key and passphrase out of the issuer {issuer.id}, and let an issuing CA sign.",
                )
            found.append(issuer)
            continue
        parent = next((each for each in found if each.subject == facts.issuer and signed_by(issuer.certificate, each)), None)
        if parent is None:
            raise Misconfigured(
                "unknown-parent",
                f"The certificate of {issuer.id} was signed by none of the issuers before it.",
                fix="List the root first, and check that the certificates belong together.",
            )
        found.append(replace(issuer, parent=parent.id))
    return tuple(found)


def with_successors(
    issuers: Sequence[Issuer], successors: Mapping[IssuerId, tuple[IssuerId, UnixTime]]
) -> tuple[Issuer, ...]:  # fmt: skip
    """The issuers, each knowing who takes its place and from when on.

    Args:
        successors: issuer -> its successor, and when that is meant to begin; it begins no earlier than its certificate.

    Raises:
        Misconfigured: issuers would succeed each other in a circle (`successors-in-a-circle`).
    """
    by_id = {issuer.id: issuer for issuer in issuers}
    for start in by_id:
        seen, at = {start}, start
        while at in successors:
            at = successors[at][0]
            if at in seen:
                raise Misconfigured("successors-in-a-circle", f"The issuers {', '.join(sorted(seen))} succeed each other in a circle.")
            seen.add(at)
    found = []
    for issuer in issuers:
        if issuer.id in successors:
            successor, begins = successors[issuer.id]
            issuer = replace(issuer, successor=successor, issues_until=max(begins, by_id[successor].not_before))  # noqa: PLW2901
        found.append(issuer)
    return tuple(found)


def newest(by_id: Mapping[IssuerId, Issuer], start: IssuerId, *, now: UnixTime) -> IssuerId:
    """The generation that issues now in the line that begins with `start`."""
    at = start
    while at in by_id:
        issuer = by_id[at]
        if issuer.successor is None or issuer.issues_until is None or now < issuer.issues_until:
            break
        at = issuer.successor
    return at


def ended(issuer: Issuer, *, now: UnixTime) -> bool:
    """Whether it signs nothing any more: it was retired, or its own certificate has ended."""
    return issuer.retired_at is not None or now > issuer.not_after


def abilities(issuer: Issuer, *, now: UnixTime) -> frozenset[Ability]:
    """What an issuer may do: what its certificate allows, less what its successor does in its place, and nothing after its end.

    Whether its key is here is another question: a root signs in ceremonies only (P4).
    """
    if ended(issuer, now=now):
        return frozenset()
    found = {Ability.sign_crl} if issuer.may_sign_crl else set()
    if issuer.may_issue:
        found.add(Ability.sign_status)
        if issuer.issues_until is None or now < issuer.issues_until:
            found.add(Ability.issue)
    return frozenset(found)


def check_ability(issuer: Issuer, wanted: Ability, *, now: UnixTime) -> None:
    """Whether an issuer may do something now.

    Raises:
        Denied: it was retired or has ended (`issuer-ended`), or its successor issues in its place (`issuer-succeeded`).
        Misconfigured: its certificate does not allow it (`issuer-may-not-issue`).
    """
    if wanted in abilities(issuer, now=now):
        return
    if ended(issuer, now=now):
        raise Denied(
            "issuer-ended",
            f"Issuer {issuer.id!r} signs nothing any more.",
            why="It is retired: all that it signed has ended." if issuer.retired_at is not None else "Its own certificate has ended.",
            fix="See what issues now: fleetca issuers list",
        )
    if wanted is Ability.issue and issuer.may_issue:
        raise Denied(
            "issuer-succeeded",
            f"Issuer {issuer.id!r} issues no more.",
            why=f"{issuer.successor} took its place; it only signs status until all that it issued has ended.",
            fix=f"Name no issuer, or {issuer.successor}.",
        )
    raise Misconfigured("issuer-may-not-issue", f"Issuer {issuer.id!r} may not do this.", why="The key usage of its certificate lacks it.")


def signed_by(der: bytes, issuer: Issuer) -> bool:
    """Whether a certificate's signature is this issuer's."""
    loaded = x509.load_der_x509_certificate(der)
    try:
        verify(load_public_key(issuer.spki), loaded.signature, loaded.tbs_certificate_bytes)
    except Refused:
        return False
    return True
