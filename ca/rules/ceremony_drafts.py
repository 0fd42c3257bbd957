"""The octets of each act of a ceremony, linted, and the words in which people see them. Ring 1: pure.

The same functions serve the plan, the trial with throw-away keys, the rehearsal and the real run: the only difference is the public key
that goes in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from cryptography import x509

from ca.der import names, reader, writer
from ca.der.algorithms import algorithm_of, load_public_key, verify
from ca.der.certificate import CertificateFacts, read_certificate
from ca.der.crl import tbs_crl
from ca.der.csr import Csr, read_csr
from ca.errors import Broken, FleetcaError, Misconfigured, Unacceptable
from ca.model import AlgorithmName, CrlNumber, Draft, Issuer, IssuerId, KeyName, Profile, ProfileName, Serial, UnixTime
from ca.rules.ceremony import (
    REHEARSAL_UNIT,
    Act,
    BackupAct,
    CertificateAct,
    CrossAct,
    DestroyAct,
    DrillAct,
    IntermediateAct,
    KnownIssuer,
    LinkAct,
    Period,
    RekeyAct,
    ResponderAct,
    RootAct,
    RootCrlAct,
    SharesAct,
    StatementAct,
    kind_of,
    output_file,
    signer_of,
)
from ca.rules.ceremony_crls import Before, after_it, crl_content
from ca.rules.certificate import draft_ca, issuer_from_certificate
from ca.rules.leaf import canonical
from ca.rules.lint.certificate import lint
from ca.rules.lint.crl import lint_crl
from ca.rules.quorum import read as read_quorum
from ca.rules.reread import verify_signed
from ca.rules.window import date

Lines: TypeAlias = tuple[tuple[str, str], ...]

SEED_OCTETS: Final = 17
"""Random octets of one serial number."""


@dataclass(frozen=True, slots=True)
class Drafted:
    """What one act would sign, or, for a destruction, what people confirm."""

    act: IssuerId
    signer: IssuerId
    """The CA that signs; the act itself for a root."""
    file: str
    tbs: bytes
    algorithm: AlgorithmName
    not_after: UnixTime
    title: str
    lines: Lines
    certificate: Draft | None
    """None for a CRL and a destruction."""
    number: CrlNumber | None = None
    """Of a CRL."""
    after: Before | None = None
    """What the next CRL of the same issuer must follow."""
    spki: bytes = b""
    """Whose key it certifies."""

    @property
    def is_crl(self) -> bool:
        """Whether it is a CRL."""
        return self.number is not None

    @property
    def is_statement(self) -> bool:
        """Whether nothing is signed with a CA key."""
        return self.certificate is None and self.number is None


def known_issuer(known: KnownIssuer) -> Issuer:
    """A CA made by an earlier ceremony."""
    return issuer_from_certificate(known.certificate, id=known.id, key=known.key)


def root_issuer(act: RootAct, der: bytes) -> Issuer:
    """The root that this ceremony made."""
    return issuer_from_certificate(der, id=act.id, key=KeyName(act.id))


def requested(act: Act) -> Csr | None:
    """The key that an act's CSR asks for; None where it has none.

    Raises:
        Malformed, Unacceptable: it is no CSR, or its key is not accepted.
        Misconfigured: its key is not of the kind that the sheet says (`csr-key-type`).
    """
    if not isinstance(act, IntermediateAct | RekeyAct | ResponderAct) or act.csr is None:
        return None
    csr = read_csr(act.csr)
    wanted = act.algorithm if isinstance(act, IntermediateAct) else None
    if wanted is not None and csr.algorithm != wanted:
        raise Misconfigured(
            "csr-key-type",
            f"Act {act.id}: the CSR has a key of kind {csr.algorithm}, the sheet says {wanted}.",
            why="It may be the CSR of something else.",
            fix="Bring the right CSR, or correct the sheet.",
        )
    return csr


def given_key(act: Act, issuers: Mapping[IssuerId, Issuer]) -> bytes | None:
    """The SubjectPublicKeyInfo that an act certifies; None where its key is made here."""
    if isinstance(act, CrossAct):
        return read_certificate(act.certificate).spki
    if isinstance(act, LinkAct):
        return issuers[act.subject].spki
    csr = requested(act)
    return None if csr is None else csr.spki


def draft_certificate(
    act: CertificateAct,
    period: Period,
    *,
    serial: Serial,
    spki: bytes,
    issuers: Mapping[IssuerId, Issuer],
    profiles: Mapping[ProfileName, Profile],
    rehearsal: bool = False,
) -> Drafted:
    """A certificate, drafted and linted.

    Raises:
        Broken: the lint found something (`lint`).
        Unacceptable, Misconfigured, Malformed: it cannot be drafted.
    """
    profile = profiles[act.profile]
    issuer = None if isinstance(act, RootAct) else issuers[act.issuer]
    urls = () if isinstance(act, RootAct | ResponderAct) else (act.crl_url, act.issuer_url)
    draft = draft_ca(
        profile=profile,
        issuer=issuer,
        subject=_subject(act, issuers, issuer, rehearsal=rehearsal),
        spki=spki,
        serial=serial,
        not_before=period.start,
        not_after=period.end,
        crl_url=urls[0] if urls else None,
        issuer_url=urls[1] if urls else None,
    )
    lint(draft, profile, issuer)
    key = algorithm_of(load_public_key(spki)).name
    lines = [
        ("subject", draft.subject),
        ("issuer", "itself" if issuer is None else f"{issuer.id} ({names.rfc4514(issuer.subject)})"),
        ("profile", profile.name),
        ("key", f"{key}, SHA-256 of its SubjectPublicKeyInfo {hashlib.sha256(spki).hexdigest()}"),
        ("serial number", f"{serial:040x}"),
        ("from", date(draft.not_before)),
        ("until", date(draft.not_after)),
        *([] if issuer is None else [("issuer until", date(issuer.not_after))]),
        *([("CRL at", urls[0]), ("issuer at", urls[1])] if urls else []),
    ]
    return Drafted(
        act.id,
        signer_of(act),
        output_file(act, rehearsal=rehearsal),
        draft.tbs,
        draft.algorithm,
        draft.not_after,
        title_of(act),
        tuple(lines),
        draft,
        spki=spki,
    )


def title_of(act: Act) -> str:
    """What an act is, in a few words."""
    match act:
        case RootAct():
            return f"Root certificate {act.id}"
        case IntermediateAct():
            return f"Issuing CA certificate {act.id}"
        case RekeyAct():
            return f"Certificate {act.id} for the new key of a CA that keeps its name"
        case CrossAct():
            return f"Cross-certificate {act.id}"
        case LinkAct():
            return f"Link certificate {act.id}: the name and key of {act.subject}, signed by {act.signer}"
        case ResponderAct():
            return f"OCSP responder certificate {act.id}"
        case RootCrlAct():
            return f"CRL {act.id} of {act.issuer}"
        case DestroyAct():
            return f"Destruction of the private key of {act.issuer}"
        case SharesAct():
            return f"Shares {act.id}" if act.replaces is None else f"Shares {act.id} in the place of others"
        case BackupAct():
            return f"Backup {act.id} of the private key of {act.issuer}"
        case DrillAct():
            return f"Restore drill {act.id} with the private key of {act.issuer}"


def _subject(
    act: CertificateAct, issuers: Mapping[IssuerId, Issuer], issuer: Issuer | None, *, rehearsal: bool
) -> Mapping[str, str] | bytes:
    if isinstance(act, LinkAct):
        return issuers[act.subject].subject
    if isinstance(act, CrossAct | RekeyAct):
        facts = read_certificate(act.certificate if isinstance(act, CrossAct) else act.predecessor)
        _check_original(act, facts, issuer)
        return marked(facts.subject) if rehearsal else facts.subject
    return {**act.subject, "organizational_unit": REHEARSAL_UNIT} if rehearsal else act.subject


def _check_original(act: CrossAct | RekeyAct, facts: CertificateFacts, issuer: Issuer | None) -> None:
    """Name and key of the certificate that an act continues, octet by octet."""
    if act.subject is not None and names.subject_name(act.subject) != facts.subject:
        raise Misconfigured(
            "name-differs",
            f"Act {act.id}: the subject in the sheet is not, octet by octet, the one in the certificate.",
            why=f"The certificate has {names.rfc4514(facts.subject)}. Chains are built by comparing names octet by octet (RFC 5280 6.1.3).",
            fix="Correct the subject, leave it out, or bring the right certificate.",
        )
    if isinstance(act, RekeyAct) and issuer is not None:
        if facts.issuer != issuer.subject:
            raise Misconfigured(
                "name-differs",
                f"Act {act.id}: the certificate of the old key was not issued by {issuer.id}.",
                why=f"Its issuer is {names.rfc4514(facts.issuer)}.",
                fix="Name the certificate that this root issued, or the root that issued it.",
            )
        csr = requested(act)
        if csr is not None and csr.spki == facts.spki:
            raise Unacceptable(
                "key-used",
                f"Act {act.id}: the CSR has the key that the CA has already.",
                why="A re-key needs a new key.",
                fix="Make a new key and bring its CSR.",
            )
    if isinstance(act, CrossAct) and issuer is not None and facts.spki == issuer.spki:
        raise Unacceptable(
            "key-used", f"Act {act.id}: this is the key of {issuer.id} itself.", fix="Bring the other CA's certificate, or use a link act."
        )


def marked(name: bytes) -> bytes:
    """A DER Name with the mark of a rehearsal at its end."""
    mark = names.subject_name({"organizational_unit": REHEARSAL_UNIT})
    return writer.tlv(writer.SEQUENCE, b"".join(octets[reader.only(octets, 0x30).content :] for octets in (name, mark)))


def draft_crl(act: RootCrlAct, period: Period, issuer: Issuer, *, before: Before, rehearsal: bool = False) -> Drafted:
    """A root's CRL, drafted and linted.

    Raises:
        Broken: the lint found something (`lint`).
        Unacceptable: the CRL before is not this root's (`previous-crl`).
    """
    content = crl_content(act, period, issuer, before=before)
    tbs = tbs_crl(issuer, number=content.number, this_update=period.start, next_update=period.end, entries=content.entries)
    lint_crl(tbs, issuer, number=content.number, this_update=period.start, next_update=period.end, count=len(content.entries))
    lines = (
        ("issuer", f"{issuer.id} ({names.rfc4514(issuer.subject)})"),
        ("number", f"{content.number} (follows from the CRL before)" if content.number > 1 else "1 (the first)"),
        ("revoked certificates", str(len(content.entries))),
        *((f"  {entry.serial:040x}", f"{entry.reason.name}, {date(entry.revoked_at)}") for entry in content.entries),
        ("thisUpdate", date(period.start)),
        ("nextUpdate", date(period.end)),
        ("issuer until", date(issuer.not_after)),
    )
    return Drafted(
        act.id,
        act.issuer,
        output_file(act, rehearsal=rehearsal),
        tbs,
        issuer.algorithm,
        period.end,
        title_of(act),
        lines,
        None,
        content.number,
        after_it(content, period),
    )


def draft_statement(act: StatementAct, period: Period, issuers: Mapping[IssuerId, Issuer], *, rehearsal: bool = False) -> Drafted:
    """What people confirm where no CA key signs: a destruction, shares, a backup, a drill.

    Raises:
        Malformed: the set of shares that it names is none (`bad-quorum-file`).
    """
    issuer = None if isinstance(act, SharesAct) else issuers[act.issuer]
    facts: dict[str, Any] = {"act": kind_of(act), "id": act.id, "at": period.start}
    lines: list[tuple[str, str]] = []
    if issuer is not None:
        spki_sha256 = hashlib.sha256(issuer.spki).hexdigest()
        facts |= {"issuer": issuer.id, "certificate_sha256": hashlib.sha256(issuer.certificate).hexdigest()}
        facts |= {"spki_sha256": spki_sha256, "algorithm": issuer.algorithm}
        lines.append(("issuer", f"{issuer.id} ({names.rfc4514(issuer.subject)})"))
        lines.append(("key", f"{issuer.algorithm}, SHA-256 of its SubjectPublicKeyInfo {spki_sha256}"))
    match act:
        case DestroyAct():
            facts["reason"] = act.reason
            lines += [("reason", act.reason), ("afterwards", "nobody can sign with this key again")]
        case SharesAct():
            facts |= {"custodians": list(act.custodians), "threshold": act.threshold, "keys": list(act.keys)}
            lines += [("set", act.id), ("custodians", ", ".join(act.custodians)), ("needed", f"{act.threshold} of {len(act.custodians)}")]
            if act.replaces is not None:
                facts["replaces"] = hashlib.sha256(act.replaces).hexdigest()
                lines += [("replaces", _set(act.replaces)), ("sealed anew", ", ".join(act.keys) or "nothing")]
        case BackupAct():
            facts["quorum"] = act.quorum if isinstance(act.quorum, str) else hashlib.sha256(act.quorum).hexdigest()
            lines.append(("opened by", act.quorum if isinstance(act.quorum, str) else _set(act.quorum)))
        case DrillAct():
            facts |= {"quorum": hashlib.sha256(act.quorum).hexdigest(), "backup_sha256": hashlib.sha256(act.backup).hexdigest()}
            lines += [
                ("opened by", _set(act.quorum)),
                ("backup", f"SHA-256 {facts['backup_sha256']}"),
                ("afterwards", "nothing of the key is kept"),
            ]
    algorithm, not_after = (issuer.algorithm, issuer.not_after) if issuer else (AlgorithmName(""), period.end)
    file = output_file(act, rehearsal=rehearsal)
    return Drafted(act.id, signer_of(act), file, canonical(facts), algorithm, not_after, title_of(act), tuple(lines), None)


def _set(octets: bytes) -> str:
    quorum = read_quorum(octets)
    return f"{quorum.shape} of {quorum.name} (set {quorum.identifier}): {', '.join(quorum.custodians)}"


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


def check_keys_used_once(acts: tuple[Act, ...], issuers: tuple[KnownIssuer, ...]) -> None:
    """No two acts certify the key of one CSR, and no CSR has the key of a CA that is known here (P9).

    Raises:
        Unacceptable: a key would serve twice (`key-used`).
    """
    seen = {read_certificate(known.certificate).spki: f"the issuer {known.id}" for known in issuers}
    for act in acts:
        csr = requested(act)
        if csr is None or (isinstance(act, ResponderAct) and act.follows is not None):
            continue
        if csr.spki in seen:
            raise Unacceptable(
                "key-used",
                f"Act {act.id}: the key in its CSR is also that of {seen[csr.spki]}.",
                why="A key serves one purpose, ever.",
                fix="Bring the CSR of a key of its own.",
            )
        seen[csr.spki] = f"act {act.id}"
