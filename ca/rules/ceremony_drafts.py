"""The octets of each act of a ceremony, linted, and the words in which people see them. Ring 1: pure.

The same functions serve the trial with throw-away keys and the real run: the only difference is the public key that goes in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from cryptography import x509

from ca.der.algorithms import algorithm_of, load_public_key, verify
from ca.der.crl import tbs_crl
from ca.errors import Broken, FleetcaError
from ca.model import AlgorithmName, CrlNumber, Draft, Issuer, IssuerId, KeyName, Profile, ProfileName, Serial, UnixTime
from ca.rules.ceremony import Act, IntermediateAct, KnownIssuer, Period, RootAct, RootCrlAct, crl_content
from ca.rules.certificate import draft_ca, issuer_from_certificate
from ca.rules.lint.certificate import lint
from ca.rules.lint.crl import lint_crl
from ca.rules.reread import verify_signed
from ca.rules.window import date

Lines: TypeAlias = tuple[tuple[str, str], ...]

SEED_OCTETS: Final = 17
"""Random octets of one serial number."""


@dataclass(frozen=True, slots=True)
class Drafted:
    """What one act would sign."""

    act: IssuerId
    signer: IssuerId
    """The root that signs; the act itself for a root."""
    file: str
    tbs: bytes
    algorithm: AlgorithmName
    not_after: UnixTime
    title: str
    lines: Lines
    certificate: Draft | None
    """None for a CRL."""
    number: CrlNumber | None
    """Of a CRL."""


def output_file(act: Act) -> str:
    """The name of what an act writes."""
    return f"{act.id}.crl" if isinstance(act, RootCrlAct) else f"{act.id}.pem"


def known_issuer(known: KnownIssuer) -> Issuer:
    """A root made by an earlier ceremony."""
    return issuer_from_certificate(known.certificate, id=known.id, key=known.key)


def root_issuer(act: RootAct, der: bytes) -> Issuer:
    """The root that this ceremony made."""
    return issuer_from_certificate(der, id=act.id, key=KeyName(act.id))


def draft_certificate(
    act: RootAct | IntermediateAct,
    period: Period,
    *,
    serial: Serial,
    spki: bytes,
    issuers: Mapping[IssuerId, Issuer],
    profiles: Mapping[ProfileName, Profile],
) -> Drafted:
    """A CA certificate, drafted and linted.

    Raises:
        Broken: the lint found something (`lint`).
        Unacceptable, Misconfigured, Malformed: it cannot be drafted.
    """
    profile = profiles[act.profile]
    issuer = None if isinstance(act, RootAct) else issuers[act.issuer]
    draft = draft_ca(
        profile=profile,
        issuer=issuer,
        subject=act.subject,
        spki=spki,
        serial=serial,
        not_before=period.start,
        not_after=period.end,
        crl_url=None if isinstance(act, RootAct) else act.crl_url,
        issuer_url=None if isinstance(act, RootAct) else act.issuer_url,
    )
    lint(draft, profile, issuer)
    key = algorithm_of(load_public_key(spki)).name
    lines = [
        ("subject", draft.subject),
        ("issuer", "itself" if issuer is None else issuer.id),
        ("profile", profile.name),
        ("key", f"{key}, SHA-256 of its SubjectPublicKeyInfo {hashlib.sha256(spki).hexdigest()}"),
        ("serial number", f"{serial:040x}"),
        ("from", date(draft.not_before)),
        ("until", date(draft.not_after)),
    ]
    if isinstance(act, IntermediateAct):
        lines += [("CRL at", act.crl_url), ("issuer at", act.issuer_url)]
    title = f"{'Root' if issuer is None else 'Issuing CA'} certificate {act.id}"
    signer = act.id if isinstance(act, RootAct) else act.issuer
    return Drafted(act.id, signer, output_file(act), draft.tbs, draft.algorithm, draft.not_after, title, tuple(lines), draft, None)


def draft_crl(act: RootCrlAct, period: Period, issuer: Issuer, *, above: CrlNumber) -> Drafted:
    """A root's CRL, drafted and linted.

    Raises:
        Broken: the lint found something (`lint`).
        Unacceptable: the CRL before is not this root's (`previous-crl`).
    """
    content = crl_content(act, issuer, above=above)
    tbs = tbs_crl(issuer, number=content.number, this_update=period.start, next_update=period.end, entries=content.entries)
    lint_crl(tbs, issuer, number=content.number, this_update=period.start, next_update=period.end, count=len(content.entries))
    lines = (
        ("issuer", issuer.id),
        ("number", str(content.number)),
        ("revoked certificates", str(len(content.entries))),
        ("thisUpdate", date(period.start)),
        ("nextUpdate", date(period.end)),
    )
    return Drafted(
        act.id, act.issuer, output_file(act), tbs, issuer.algorithm, period.end, f"CRL of {issuer.id}", lines, None, content.number
    )


def reread(drafted: Drafted, der: bytes, spki: bytes) -> None:
    """Read a signed output with the second parser and check that it is the draft, signed by this key (P11).

    Raises:
        Broken: it is not (`reread`).
    """
    if drafted.certificate is not None:
        verify_signed(drafted.certificate, der, spki)
        return
    try:
        loaded = x509.load_der_x509_crl(der)
        if loaded.tbs_certlist_bytes != drafted.tbs:
            raise Broken("reread", f"{drafted.file} is not what was drafted.")
        verify(load_public_key(spki), loaded.signature, drafted.tbs)
    except Broken:
        raise
    except (ValueError, FleetcaError) as error:
        raise Broken("reread", f"{drafted.file} does not hold what was drafted.", why=str(error)) from None
