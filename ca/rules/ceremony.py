"""What a ceremony may do: its acts and its people, as reviewed. Ring 1: pure.

Owns the words of a sheet, and the judgement of a whole sheet before anything is made: ids, issuers, profiles, people. Dates are judged by
`ceremony_dates`, people by `ceremony_roles`, octets by `ceremony_drafts`. Makes no draft and touches no key; `ca.ceremony` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeGuard

from ca.der.algorithms import ALGORITHMS
from ca.errors import Misconfigured
from ca.model import AlgorithmName, CrlEntry, Digest, IssuerId, KeyName, Profile, ProfileName, StatusKind, UnixTime

Moment: TypeAlias = int | str
"""`now`, a span such as `10y` or `90d`, or Unix seconds."""

ROOT_PROFILE: Final = ProfileName("root")
REHEARSAL: Final = "REHEARSAL"
"""Begins the name of every file of a rehearsal."""
REHEARSAL_UNIT: Final = "REHEARSAL - NOT FOR PRODUCTION"
"""The organizationalUnit in every subject of a rehearsal."""


@dataclass(frozen=True, slots=True)
class RootAct:
    """Make a root key and its self-signed certificate."""

    id: IssuerId
    profile: ProfileName
    algorithm: AlgorithmName
    subject: Mapping[str, str]
    not_before: Moment
    not_after: Moment
    quorum: IssuerId | None = None
    """The act that made the shares under which its key is sealed."""
    confirm: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class IntermediateAct:
    """Sign an issuing CA's certificate: for the key of `csr` (DER), or, without one, for a key made here of kind `algorithm`.

    With both, the CSR's key must be of that kind.
    """

    id: IssuerId
    issuer: IssuerId
    profile: ProfileName
    csr: bytes | None
    algorithm: AlgorithmName | None
    subject: Mapping[str, str]
    not_before: Moment
    not_after: Moment
    crl_url: str
    issuer_url: str
    quorum: IssuerId | None = None
    confirm: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class RekeyAct:
    """A new key for a CA that goes on under its name. The subject is the very octets of the `predecessor`'s (DER certificate)."""

    id: IssuerId
    issuer: IssuerId
    profile: ProfileName
    predecessor: bytes
    csr: bytes
    subject: Mapping[str, str] | None
    """What the sheet says it is; must encode to the same octets."""
    not_before: Moment
    not_after: Moment
    crl_url: str
    issuer_url: str
    confirm: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class CrossAct:
    """Certify the key and name of somebody else's CA, as its own `certificate` (DER) says them."""

    id: IssuerId
    issuer: IssuerId
    profile: ProfileName
    certificate: bytes
    subject: Mapping[str, str] | None
    not_before: Moment
    not_after: Moment
    crl_url: str
    issuer_url: str
    confirm: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class LinkAct:
    """A link certificate for a root change (RFC 9810 4.4): name and key of one root, signed by the other. Its dates follow from theirs."""

    id: IssuerId
    signer: IssuerId
    subject: IssuerId
    profile: ProfileName
    crl_url: str
    issuer_url: str
    confirm: tuple[str, ...] | None = None

    @property
    def issuer(self) -> IssuerId:
        """The root that signs."""
        return self.signer


@dataclass(frozen=True, slots=True)
class ResponderAct:
    """Certify a delegated OCSP responder. It lives as long as its profile says; `follows` is the one of the same key before it."""

    id: IssuerId
    issuer: IssuerId
    profile: ProfileName
    csr: bytes
    subject: Mapping[str, str]
    not_before: Moment
    follows: IssuerId | None = None
    overlap: str | None = None
    confirm: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class RootCrlAct:
    """Sign a root's CRL. `previous` is the CRL before it (DER): its entries stay and its number rises. `first` says that there was none.

    With `overlap`, thisUpdate follows from the CRL before it: that of the act `follows`, or `previous`. With `replaces_pre_dated` it takes the
    place of pre-dated CRLs that were not published yet: its number is above theirs, its date may be before.
    """

    id: IssuerId
    issuer: IssuerId
    previous: bytes | None
    first: bool
    this_update: Moment
    next_update: Moment
    revoked: tuple[CrlEntry, ...]
    follows: IssuerId | None = None
    overlap: str | None = None
    replaces_pre_dated: bool = False
    confirm: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class DestroyAct:
    """Destroy the private key of a known issuer, before at least two witnesses."""

    id: IssuerId
    issuer: IssuerId
    reason: str
    confirm: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class SharesAct:
    """Make a key that custodians share, and show each their share. With `replaces` (a `quorum.json`) it takes the place of another set:
    before a quorum of that one, the keys of `keys` are sealed anew under this one."""

    id: IssuerId
    custodians: tuple[str, ...]
    threshold: int
    replaces: bytes | None
    keys: tuple[IssuerId, ...]
    confirm: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class BackupAct:
    """Encrypt the sealed key of an issuer to a quorum: the act of this sheet that made it, or its `quorum.json`."""

    id: IssuerId
    issuer: IssuerId
    quorum: IssuerId | bytes
    confirm: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class DrillAct:
    """Show that a backup gives the key of an issuer back, and write the key nowhere."""

    id: IssuerId
    issuer: IssuerId
    quorum: bytes
    backup: bytes
    confirm: tuple[str, ...] | None = None


CustodyAct: TypeAlias = SharesAct | BackupAct | DrillAct
StatementAct: TypeAlias = DestroyAct | CustodyAct
"""Nothing is signed with a CA key: what is confirmed is a statement, and what came of it is written down."""
CertificateAct: TypeAlias = RootAct | IntermediateAct | RekeyAct | CrossAct | LinkAct | ResponderAct
Act: TypeAlias = CertificateAct | RootCrlAct | StatementAct


@dataclass(frozen=True, slots=True)
class KnownIssuer:
    """A CA made by an earlier ceremony, whose key this one uses (or destroys)."""

    id: IssuerId
    certificate: bytes
    key: KeyName
    profile: ProfileName = ROOT_PROFILE
    """Says how well the store of its key must keep it."""


@dataclass(frozen=True, slots=True)
class Participant:
    """Somebody in the room, and the key that signs for them."""

    role: str
    person: str
    key_sha256: Digest
    """SHA-256 of the SubjectPublicKeyInfo."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """One ceremony, as reviewed."""

    name: str
    about: str
    digest: Digest
    octets: bytes
    issuers: tuple[KnownIssuer, ...]
    acts: tuple[Act, ...]
    participants: tuple[Participant, ...] = ()
    confirm: tuple[str, ...] = ()
    """The roles that confirm every act that does not name its own."""
    place: str = ""
    day: UnixTime | None = None
    """Midnight (UTC) of the day on which it is held."""
    network: str = ""
    """Why a network may be up; empty: none may."""
    rehearsal: bool = False
    inputs: Mapping[str, bytes] | None = None
    """What the sheet names beside itself, by file name: written down by its hash."""

    def confirmed_by(self, act: Act) -> tuple[Participant, ...]:
        """Who must confirm an act."""
        roles = self.confirm if act.confirm is None else act.confirm
        return tuple(each for each in self.participants if each.role in roles)


@dataclass(frozen=True, slots=True)
class Period:
    """Inclusive."""

    start: UnixTime
    end: UnixTime


def makes_key(act: Act) -> TypeGuard[RootAct | IntermediateAct]:
    """Whether a key is made for it in the ceremony."""
    return isinstance(act, RootAct) or (isinstance(act, IntermediateAct) and act.csr is None)


def output_file(act: Act, *, rehearsal: bool = False) -> str:
    """The name of what an act writes."""
    ending = "crl" if isinstance(act, RootCrlAct) else "json" if isinstance(act, StatementAct) else "pem"
    return f"{REHEARSAL}-{act.id}.{ending}" if rehearsal else f"{act.id}.{ending}"


def kind_of(act: Act) -> str:
    """What an act makes, in the words of the sheet."""
    kinds: Mapping[type, str] = {
        RootAct: "root",
        IntermediateAct: "intermediate",
        RekeyAct: "rekey",
        CrossAct: "cross-certificate",
        LinkAct: "link",
        ResponderAct: "responder",
        RootCrlAct: "root-crl",
        DestroyAct: "destroy-key",
        SharesAct: "shares",
        BackupAct: "backup",
        DrillAct: "restore-drill",
    }
    return "share-reissue" if isinstance(act, SharesAct) and act.replaces is not None else kinds[type(act)]


def signer_of(act: Act) -> IssuerId:
    """Whose key an act uses; the act itself for a root, and for shares, which use none."""
    return act.id if isinstance(act, RootAct | SharesAct) else act.issuer


def _issuers_of(act: Act) -> set[IssuerId]:
    match act:
        case RootAct():
            return set()
        case LinkAct():
            return {act.signer, act.subject}
        case SharesAct():
            return set(act.keys)
        case _:
            return {act.issuer}


def check_structure(sheet: Sheet, profiles: Mapping[ProfileName, Profile]) -> None:
    """Ids, issuers and profiles of a sheet.

    Raises:
        Misconfigured: an id stands twice, an act has no issuer before it, an issuer is not used, a key is used after its destruction, a
            profile or algorithm is not known or does not fit.
    """
    ids = [each.id for each in (*sheet.issuers, *sheet.acts)]
    twice = sorted({each for each in ids if ids.count(each) > 1})
    if twice:
        raise Misconfigured("id-twice", f"The sheet uses the id {twice[0]} twice.", fix="Give each act and each issuer its own id.")
    issuers = {known.id for known in sheet.issuers}
    for known in sheet.issuers:
        _check_ca_profile(f"Issuer {known.id}", known.profile, profiles)
    used: set[IssuerId] = set()
    destroyed: set[IssuerId] = set()
    quorums: set[IssuerId] = set()
    for act in sheet.acts:
        wanted = _issuers_of(act)
        _check_issuers(act, wanted, issuers, destroyed)
        _check_quorum(act, quorums)
        used |= wanted
        if isinstance(act, RootAct):
            issuers.add(act.id)
        if isinstance(act, SharesAct):
            quorums.add(act.id)
        elif isinstance(act, DestroyAct):
            destroyed.add(act.issuer)
        elif not isinstance(act, RootCrlAct | StatementAct):
            _check_profile(act, profiles)
    idle = [known.id for known in sheet.issuers if known.id not in used]
    if idle:
        raise Misconfigured(
            "unused-issuer",
            f"No act uses the issuer {idle[0]}.",
            why="Its key would be unlocked for nothing.",
            fix=f"Take {idle[0]} out of [[issuers]].",
        )


def _check_issuers(act: Act, wanted: set[IssuerId], issuers: set[IssuerId], destroyed: set[IssuerId]) -> None:
    for missing in sorted(wanted - issuers):
        raise Misconfigured(
            "unknown-issuer",
            f"Act {act.id}: there is no root {missing} before it.",
            fix=f"Put the act that makes {missing} before it, or add it to [[issuers]].",
        )
    if isinstance(act, LinkAct) and act.signer == act.subject:
        raise Misconfigured("link-to-itself", f"Act {act.id} links {act.signer} with itself.", fix="Name the old root and the new one.")
    for gone in sorted(wanted & destroyed):
        raise Misconfigured(
            "key-destroyed",
            f"Act {act.id} needs the key of {gone}, which an act before it destroys.",
            fix="Put the destruction last.",
        )


def _check_quorum(act: Act, quorums: set[IssuerId]) -> None:
    wanted = act.quorum if isinstance(act, RootAct | IntermediateAct | BackupAct) else None
    if isinstance(wanted, str) and wanted not in quorums:
        raise Misconfigured(
            "unknown-quorum",
            f"Act {act.id}: there is no act before it that makes the shares {wanted}.",
            fix='Put an act = "shares" with that id before it.',
        )


def _check_ca_profile(what: str, name: ProfileName, profiles: Mapping[ProfileName, Profile], *, responder: bool = False) -> Profile:
    fitting = {
        each: profile for each, profile in profiles.items() if (profile.status is StatusKind.nocheck if responder else profile.is_ca)
    }
    if name not in fitting:
        kind = "responder" if responder else "CA"
        raise Misconfigured(
            "unknown-profile",
            f"{what}: there is no {kind} profile {name}.",
            why="A ceremony certifies CAs and OCSP responders, nothing else.",
            fix=f"{kind} profiles: {', '.join(sorted(fitting))}.",
        )
    return fitting[name]


def _check_profile(act: CertificateAct, profiles: Mapping[ProfileName, Profile]) -> None:
    profile = _check_ca_profile(f"Act {act.id}", act.profile, profiles, responder=isinstance(act, ResponderAct))
    algorithm = act.algorithm if isinstance(act, RootAct | IntermediateAct) else None
    if algorithm is not None and (algorithm not in ALGORITHMS or algorithm not in profile.key_algorithms):
        raise Misconfigured(
            "unknown-algorithm",
            f"Act {act.id}: profile {act.profile} has no key algorithm {algorithm}.",
            fix=f"It has: {', '.join(profile.key_algorithms)}.",
        )
