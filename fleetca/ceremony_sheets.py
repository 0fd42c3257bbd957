"""From a sheet as a person wrote it to the sheet that `ca.rules.ceremony` judges, with the files it names read. Edge: no rule of its own."""

from __future__ import annotations

import calendar
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ca.der import pem
from ca.der.certificate import read_certificate
from ca.errors import Malformed, Misconfigured
from ca.model import AlgorithmName, CrlEntry, Digest, IssuerId, KeyName, ProfileName
from ca.rules import ids
from ca.rules.ceremony import (
    Act,
    BackupAct,
    CrossAct,
    DestroyAct,
    DrillAct,
    IntermediateAct,
    KnownIssuer,
    LinkAct,
    Participant,
    RekeyAct,
    ResponderAct,
    RootAct,
    RootCrlAct,
    SharesAct,
    Sheet,
)
from ca.rules.ceremony_check import SheetFacts
from ca.rules.ceremony_dates import chain, responder_chain
from config import sheet as written
from config.strict import read_octets
from fleetca import forms


@dataclass(slots=True)
class Inputs:
    """The files that a sheet names, as they are read. `stand_in` makes the DER of a CSR that is not there yet: for plans."""

    file: Path
    stand_in: Callable[[AlgorithmName], bytes] | None = None
    octets: dict[str, bytes] = field(default_factory=dict)
    """By file name."""
    absent: dict[str, str] = field(default_factory=dict)
    """Act -> the CSR that is not there yet."""

    def der(self, path: Path, label: str, *, what: str, sha256: str | None = None) -> bytes:
        """The DER in a file.

        Raises:
            Misconfigured: it is absent, holds something else (`bad-file`), or is not the one that was reviewed (`input-differs`).
        """
        what = f"{self.file}: {what}"
        with forms.our_errors():
            octets = read_octets(path, kind=label.lower())
        try:
            der = pem.der_of(octets, label)
        except Malformed as error:
            raise Misconfigured("bad-file", f"{what}, {path}, cannot be used.", why=error.what, fix="Bring the right file.") from None
        digest = hashlib.sha256(der).hexdigest()
        if sha256 is not None and digest != sha256:
            raise Misconfigured(
                "input-differs",
                f"{what}, {path}, is not the one that the sheet names.",
                why=f"The SHA-256 of its DER is {digest}; the sheet says {sha256}.",
                fix="Bring the file that was reviewed, or have the sheet reviewed again.",
            )
        self._kept(path, octets)
        return der

    def raw(self, path: Path, *, what: str) -> bytes:
        """A file as it is.

        Raises:
            Misconfigured: it is absent or too large.
        """
        with forms.our_errors():
            octets = read_octets(path, kind=what)
        return self._kept(path, octets)

    def _kept(self, path: Path, octets: bytes) -> bytes:
        if self.octets.setdefault(path.name, octets) != octets:
            raise Misconfigured(
                "input-twice", f"{self.file} names two different files called {path.name}.", fix="Give them different names."
            )
        return octets

    def csr(self, path: Path, act: str, *, sha256: str | None, algorithm: AlgorithmName) -> bytes:
        """The DER of a CSR, or of its stand-in."""
        if self.stand_in is not None and not path.exists():
            self.absent[act] = path.name
            return self.stand_in(algorithm)
        return self.der(path, pem.REQUEST, what=f"the CSR of act {act}", sha256=sha256)


def convert(form: written.Sheet, inputs: Inputs) -> Sheet:
    """The model's sheet.

    Raises:
        Misconfigured: a file it names is absent or wrong, or a value is none.
    """
    issuers = tuple(_issuer(known, inputs) for known in form.issuers)
    about = form.ceremony
    acts = tuple(each for act in form.acts for each in _acts(form, act, inputs))
    return Sheet(
        name=about.name,
        about=about.about,
        digest=Digest(form.digest),
        octets=form.octets,
        issuers=issuers,
        acts=acts,
        participants=tuple(Participant(each.role, each.person, Digest(bytes.fromhex(each.key_sha256))) for each in form.roles),
        confirm=about.confirm,
        place=about.place,
        day=None if about.day is None else calendar.timegm(about.day.timetuple()),
        network=about.allow_network or "",
        inputs=dict(inputs.octets),
    )


def _issuer(known: written.KnownIssuer, inputs: Inputs) -> KnownIssuer:
    der = inputs.der(known.certificate, pem.CERTIFICATE, what=f"the certificate of issuer {known.id}")
    try:
        certificate = read_certificate(der)
    except Malformed as error:
        raise Misconfigured(
            "bad-file", f"The certificate of issuer {known.id}, {known.certificate}, cannot be used.", why=error.why or error.what,
            fix="Bring the right file.",
        ) from None  # fmt: skip
    usual = "root" if certificate.issuer == certificate.subject else "issuing-ca"
    return KnownIssuer(IssuerId(known.id), der, KeyName(known.id), ProfileName(known.profile or usual))


def facts(form: written.Sheet) -> SheetFacts:
    """What a transcript must follow; needs none of the files that the sheet names."""
    acts: list[str] = []
    kinds: dict[str, str] = {}
    confirm: dict[str, tuple[tuple[str, str], ...]] = {}
    for act in form.acts:
        count = act.count if isinstance(act, written.RootCrlsAct | written.ResponderAct) else None
        names = [act.id] if count is None else [f"{act.id}-{number:02d}" for number in range(1, count + 1)]
        roles = form.ceremony.confirm if act.confirm is None else act.confirm
        for name in names:
            acts.append(name)
            kinds[name] = "root-crl" if isinstance(act, written.RootCrlsAct) else act.act
            confirm[name] = tuple((each.role, each.person) for each in form.roles if each.role in roles)
    people = tuple((each.role, each.person, each.key_sha256) for each in form.roles)
    return SheetFacts(form.ceremony.name, tuple(acts), kinds, people, confirm, form.ceremony.allow_network or "")


def _acts(form: written.Sheet, act: written.Act, inputs: Inputs) -> tuple[Act, ...]:
    id_ = IssuerId(act.id)
    match act:
        case written.RootAct():
            return (_root(act),)
        case written.IntermediateAct():
            return (_intermediate(act, inputs),)
        case written.RekeyAct():
            return (_rekey(act, inputs),)
        case written.CrossAct():
            return (_cross(act, inputs),)
        case written.LinkAct():
            signer, subject = IssuerId(act.signer), IssuerId(act.subject)
            return (LinkAct(id_, signer, subject, ProfileName(act.profile), act.crl_url, act.issuer_url, act.confirm),)
        case written.ResponderAct():
            return _responder(act, inputs)
        case written.RootCrlAct():
            return (_crl(form, act, inputs),)
        case written.RootCrlsAct():
            first = RootCrlAct(
                id=id_,
                issuer=IssuerId(act.issuer),
                previous=_previous(act, inputs),
                first=act.first,
                this_update=act.this_update,
                next_update=act.each,
                revoked=tuple(_revoked(form, act.id, entry) for entry in act.revoked),
                replaces_pre_dated=act.replaces_pre_dated,
                confirm=act.confirm,
            )
            return chain(first, count=act.count, overlap=act.overlap)
        case written.DestroyAct():
            return (DestroyAct(id_, IssuerId(act.issuer), act.reason, act.confirm),)
        case written.SharesAct():
            return (SharesAct(id_, act.custodians, act.threshold, None, (), act.confirm),)
        case written.ShareReissueAct():
            replaces = inputs.raw(act.replaces, what=f"the set that act {act.id} replaces")
            return (SharesAct(id_, act.custodians, act.threshold, replaces, tuple(map(IssuerId, act.keys)), act.confirm),)
        case written.BackupAct():
            if act.quorum_file is None:
                return (BackupAct(id_, IssuerId(act.issuer), IssuerId(act.quorum or ""), act.confirm),)
            return (BackupAct(id_, IssuerId(act.issuer), inputs.raw(act.quorum_file, what=f"the set of act {act.id}"), act.confirm),)
        case written.DrillAct():
            quorum_file = inputs.raw(act.quorum_file, what=f"the set of act {act.id}")
            backup = inputs.raw(act.backup, what=f"the backup of act {act.id}")
            return (DrillAct(id_, IssuerId(act.issuer), quorum_file, backup, act.confirm),)


def _root(act: written.RootAct) -> RootAct:
    return RootAct(
        id=IssuerId(act.id),
        profile=ProfileName(act.profile),
        algorithm=AlgorithmName(act.algorithm),
        subject=_subject(act.subject),
        not_before=act.not_before,
        not_after=act.not_after,
        quorum=_quorum(act),
        confirm=act.confirm,
    )


def _intermediate(act: written.IntermediateAct, inputs: Inputs) -> IntermediateAct:
    algorithm = None if act.algorithm is None else AlgorithmName(act.algorithm)
    csr = None
    if act.csr is not None:
        csr = inputs.csr(act.csr, act.id, sha256=act.csr_sha256, algorithm=algorithm or AlgorithmName("p256"))
    return IntermediateAct(
        id=IssuerId(act.id),
        issuer=IssuerId(act.issuer),
        profile=ProfileName(act.profile),
        csr=csr,
        algorithm=algorithm,
        subject=_subject(act.subject),
        not_before=act.not_before,
        not_after=act.not_after,
        crl_url=act.crl_url,
        issuer_url=act.issuer_url,
        quorum=_quorum(act),
        confirm=act.confirm,
    )


def _quorum(act: written.RootAct | written.IntermediateAct) -> IssuerId | None:
    return None if act.quorum is None else IssuerId(act.quorum)


def _rekey(act: written.RekeyAct, inputs: Inputs) -> RekeyAct:
    return RekeyAct(
        id=IssuerId(act.id),
        issuer=IssuerId(act.issuer),
        profile=ProfileName(act.profile),
        predecessor=inputs.der(act.predecessor, pem.CERTIFICATE, what=f"the certificate of the old key of act {act.id}"),
        csr=inputs.csr(act.csr, act.id, sha256=act.csr_sha256, algorithm=AlgorithmName("p256")),
        subject=None if act.subject is None else _subject(act.subject),
        not_before=act.not_before,
        not_after=act.not_after,
        crl_url=act.crl_url,
        issuer_url=act.issuer_url,
        confirm=act.confirm,
    )


def _cross(act: written.CrossAct, inputs: Inputs) -> CrossAct:
    what = f"the other CA's certificate of act {act.id}"
    return CrossAct(
        id=IssuerId(act.id),
        issuer=IssuerId(act.issuer),
        profile=ProfileName(act.profile),
        certificate=inputs.der(act.certificate, pem.CERTIFICATE, what=what, sha256=act.certificate_sha256),
        subject=None if act.subject is None else _subject(act.subject),
        not_before=act.not_before,
        not_after=act.not_after,
        crl_url=act.crl_url,
        issuer_url=act.issuer_url,
        confirm=act.confirm,
    )


def _responder(act: written.ResponderAct, inputs: Inputs) -> tuple[ResponderAct, ...]:
    one = ResponderAct(
        id=IssuerId(act.id),
        issuer=IssuerId(act.issuer),
        profile=ProfileName(act.profile),
        csr=inputs.csr(act.csr, act.id, sha256=act.csr_sha256, algorithm=AlgorithmName("p256")),
        subject=_subject(act.subject),
        not_before=act.not_before,
        confirm=act.confirm,
    )
    if act.count is None or act.overlap is None:
        return (one,)
    return responder_chain(one, count=act.count, overlap=act.overlap)


def _crl(form: written.Sheet, act: written.RootCrlAct, inputs: Inputs) -> RootCrlAct:
    return RootCrlAct(
        id=IssuerId(act.id),
        issuer=IssuerId(act.issuer),
        previous=_previous(act, inputs),
        first=act.first,
        this_update="now" if act.this_update is None else act.this_update,
        next_update=act.next_update,
        revoked=tuple(_revoked(form, act.id, entry) for entry in act.revoked),
        overlap=act.overlap,
        replaces_pre_dated=act.replaces_pre_dated,
        confirm=act.confirm,
    )


def _previous(act: written.RootCrlAct | written.RootCrlsAct, inputs: Inputs) -> bytes | None:
    return None if act.previous is None else inputs.der(act.previous, pem.CRL, what=f"the previous CRL of act {act.id}")


def _subject(subject: written.Subject) -> Mapping[str, str]:
    return {word: text for word, text in subject.model_dump().items() if text is not None}


def _revoked(form: written.Sheet, act: str, entry: written.Revoked) -> CrlEntry:
    with _naming(form.file, f"act {act}, revoked"):
        reason = ids.reason_named(entry.reason)
        serial = ids.serial_from_hex(entry.serial)
    return CrlEntry(serial, calendar.timegm(entry.revoked_at.utctimetuple()), reason)


@contextmanager
def _naming(file: Path, place: str) -> Iterator[None]:
    try:
        yield
    except Malformed as error:
        raise Misconfigured(error.code, f"{file}: {place}: {error.what}", why=error.why) from None
