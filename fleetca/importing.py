"""Bring the outputs of a ceremony into a deployment: verify, place, record, and give the first operator a certificate. Edge: effects only.

    verify      transcript, seal, every output; what is there already must be the same; the issuing key must be the certificate's
    place       certificates where the settings say, never over another one; root CRLs through the outlet, never over a newer one
    record      database brought to this version, issuers and the ceremony's leaf in one transaction
    operator    added, and certified through the one door (P2)

Every step is safe to repeat, so after a crash the same command goes on; what is there whole already is refused as a repetition. It opens the issuing key and the database as the signer does, under
the signer's lock (DESIGN 3), and never a root key (P4). What succeeds something that is at work, the next issuing CA or a root's next CRL, is
imported while the signer runs: then the signer verifies and records the ceremony, and only the files are placed here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from ca.accept_demand import in_force
from ca.der import pem
from ca.der.certificate import read_certificate
from ca.errors import Conflict, Misconfigured, Unacceptable
from ca.issue import Issuing
from ca.lineage import Issuers
from ca.model import (
    DEFAULT_TENANT,
    DeviceId,
    Digest,
    GraveAct,
    Issued,
    Issuer,
    IssueRequest,
    IssuerId,
    LocalEvidence,
    OperatorName,
    Peer,
    Role,
    UnixTime,
)
from ca.operators import Operators
from ca.ports import Chance, Clock, SigningKey
from ca.record_ceremony import ISSUERS, approved, new_issuers, refuse_rehearsal, remember, subject_of
from ca.rules import grant, leaf, transcript
from ca.rules.ceremony_check import Verified
from ca.signer.alone import SignerLock
from ca.signer.client import SignerClient
from ca.store.engine import Store, migrate, open_store
from ca.store.file_journal import FileJournal
from ca.two_persons import TwoPersons
from ca.witness import Witness
from config.settings import IssuerSetting, Settings
from enroll.store.engine import migrate as migrate_protocols
from fleetca import ceremonies, forms
from fleetca.folder import Folder, put_new
from fleetca.placing import BESIDE, Placed, place_beside, place_certificate, place_crl

OPERATORS: Final = "operators"


@dataclass(frozen=True, slots=True)
class Imported:
    """What a deployment has after an import."""

    ceremony: str
    root_sha256: Digest
    placed: tuple[Placed, ...]
    issuers: tuple[Issuer, ...]
    operators: tuple[Path, ...]
    """Certificates of operators that were issued now."""
    to_come: tuple[IssuerId, ...] = ()
    """New issuers that a running signer takes up when it is started anew."""


def import_ceremony(settings: Settings, folder: Path, *, clock: Clock, chance: Chance, root_sha256: str | None = None) -> Imported:
    """Import the outputs in a ceremony's folder.

    Args:
        settings: the deployment's.
        folder: what `fleetca ceremony run --out` wrote.
        clock: the wall clock.
        chance: the random generator.
        root_sha256: the root certificate's SHA-256 as it was noted at the ceremony (hex, colons allowed); refused if it is another.

    Raises:
        Unacceptable: transcript or outputs do not hold, it is a rehearsal (`rehearsal`), or the root is another one (`another-root`).
        Conflict: it was imported already (`ceremony-imported`), another certificate is in place (`issuer-changed`), a newer CRL is
            (`crl-number-back`), another one that waits has its number (`crl-number-waits`), or the signer runs and there is a new issuer (`signer-running`).
        Misconfigured: settings and outputs do not fit together.
        KeyUnavailable, StoreUnavailable: repeat when it is mended; nothing is half done.
    """
    in_place = _roots_in_place(settings)
    verified = ceremonies.verify(folder, roots=in_place)
    refuse_rehearsal(verified)
    root = read_certificate(verified.root_certificate or _root_of(verified, in_place))
    fingerprint = Digest(sha256(root.der).digest())
    if root_sha256 is not None and root_sha256.replace(":", "").lower() != fingerprint.hex():
        raise Unacceptable(
            "another-root",
            "The root in this folder is not the one whose SHA-256 was given.",
            why=f"Its SHA-256 is {fingerprint.hex()}.",
            fix="Compare with the paper from the ceremony; use its outputs only.",
        )
    certificates = _certificates(settings, verified)
    # Judged as they will be, before a key is opened or a file is placed: a root's key would be refused here (P4).
    issuers = forms.issuers(settings, certificates)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(SignerLock(settings.signer.journal))
        except Conflict as running:
            return _beside(settings, folder, verified, issuers, fingerprint, clock=clock, running=running)
        return _import(settings, verified, issuers, fingerprint, clock=clock, chance=chance)


def _beside(
    settings: Settings,
    folder: Path,
    verified: Verified,
    issuers: Sequence[Issuer],
    fingerprint: Digest,
    *,
    clock: Clock,
    running: Conflict,
) -> Imported:
    """While the signer runs. It verifies the ceremony itself before anything is placed, and writes its leaf.

    What the settings await is then at work as soon as the processes are started anew, which `fleetca serve` does by itself.
    """
    new = [issuer for issuer in issuers if not settings.issuer(issuer.id).certificate.exists()]
    hasty = [issuer.id for issuer in new if settings.issuer(issuer.id).succeeds is None]
    if hasty:
        running.why = f"{running.why} This ceremony brings the new issuer {hasty[0]}, which succeeds none that is at work."
        running.fix = f"{running.fix} Or say whose place it takes: succeeds = ... in the settings."
        raise running
    _matching_keys(settings, new)  # before anything is placed: the signer would not start with it
    archive = Folder(folder)
    wanted = [transcript.FILE, "sheet.toml", *(output.file for output in verified.outputs)]
    signer = SignerClient(settings.signer.socket, Role.operator)
    try:
        signer.record_ceremony({name: archive.read(name) or b"" for name in wanted})
    finally:
        signer.close()
    placed = [place_certificate(settings.issuer(issuer.id).certificate, issuer) for issuer in issuers]
    placed += [place_crl(settings, output, issuers, now=clock.now()) for output in verified.outputs if output.is_crl]
    placed += [place_beside(settings, output) for output in verified.outputs if output.kind in BESIDE]
    if not any(each.new for each in placed):
        raise _repeated(verified)
    return Imported(verified.name, fingerprint, tuple(placed), tuple(issuers), (), tuple(issuer.id for issuer in new))


def _import(
    settings: Settings, verified: Verified, issuers: Sequence[Issuer], fingerprint: Digest, *, clock: Clock, chance: Chance
) -> Imported:
    now = clock.now()
    keys = _matching_keys(settings, issuers)
    _check_approved(settings, verified, issuers, clock=clock)
    placed = [place_certificate(settings.issuer(issuer.id).certificate, issuer) for issuer in issuers]
    placed += [place_crl(settings, output, issuers, now=now) for output in verified.outputs if output.is_crl]
    placed += [place_beside(settings, output) for output in verified.outputs if output.kind in BESIDE]
    url = forms.store_url(settings)
    migrate(url)
    migrate_protocols(url)
    store = open_store(url)
    try:
        known = _record(store, settings, issuers, verified, clock=clock, now=now)
        written = _certify_operators(settings, store, issuers, keys, clock=clock, chance=chance)
    finally:
        store.close()
    if known and not written and not any(each.new for each in placed):
        raise _repeated(verified)
    return Imported(verified.name, fingerprint, tuple(placed), tuple(issuers), tuple(written))


def _repeated(verified: Verified) -> Conflict:
    return Conflict(
        "ceremony-imported",
        f"The ceremony {verified.name} was imported already; everything of it is in place.",
        why="The transcript is on record.",
        fix="Nothing needs to be done. To bring something newer, import the folder of a later ceremony.",
    )


# ---- Verify -------------------------------------------------------------------------------------------------------------


def _roots_in_place(settings: Settings) -> Mapping[str, bytes]:
    return {
        setting.id: forms.certificate_file(setting.certificate, key=f"issuers.{setting.id}.certificate")
        for setting in settings.issuers
        if setting.key is None and setting.certificate.exists()
    }


def _root_of(verified: Verified, in_place: Mapping[str, bytes]) -> bytes:
    """The root of a ceremony that people sealed, because its key was destroyed in it."""
    for id_, digest in verified.issuers.items():
        der = in_place.get(id_)
        if der is not None and sha256(der).digest() == digest:
            return der
    raise Misconfigured(
        "no-certificate",
        "No root of this ceremony is in place here.",
        why="It only destroyed the key of a root that this deployment does not have.",
        fix="Keep its folder in the archive; there is nothing to import.",
    )


def _certificates(settings: Settings, verified: Verified) -> Mapping[str, bytes]:
    """Issuer id -> DER, for every issuer of the settings: from the ceremony, or in place already.

    The sheet's ids are the settings' ids.
    """
    made = {output.act: output.der for output in verified.outputs if output.kind in ISSUERS}
    strange = sorted(set(made) - {setting.id for setting in settings.issuers})
    if strange:
        raise Misconfigured(
            "unknown-issuer",
            f"{settings.file} has no issuer {strange[0]}, which this ceremony made.",
            fix=f'Add it: [[issuers]] id = "{strange[0]}" with certificate, and key and passphrase if it signs here.',
        )
    found: dict[str, bytes] = {}
    for setting in settings.issuers:
        here = _in_place(setting)
        there = made.get(setting.id)
        if here is not None and there is not None and here != there:
            raise Conflict(
                "issuer-changed",
                f"{setting.certificate} is another certificate than this ceremony's {setting.id}.",
                why="An issuer keeps its certificate for life: what it signed is looked up by it.",
                fix="Give the new issuer another id in the sheet and in the settings.",
            )
        der = there or here
        if der is None and setting.to_come:
            continue
        if der is None:
            raise Misconfigured(
                "no-certificate",
                f"Neither this ceremony nor {setting.certificate} has a certificate for the issuer {setting.id}.",
                fix="Import the ceremony that made it first.",
            )
        found[setting.id] = der
    return found


def _in_place(setting: IssuerSetting) -> bytes | None:
    if not setting.certificate.exists():
        return None
    return forms.certificate_file(setting.certificate, key=f"issuers.{setting.id}.certificate")


def _matching_keys(settings: Settings, issuers: Sequence[Issuer]) -> Mapping[IssuerId, SigningKey]:
    keys: dict[IssuerId, SigningKey] = {}
    for issuer in issuers:
        setting = settings.issuer(issuer.id)
        if setting.key is None:
            continue
        store, name = forms.key_store(setting.key, setting.passphrase)
        key = store.open(name)
        if key.spki != issuer.spki:
            raise Misconfigured(
                "key-of-another-issuer",
                f"The key {setting.key.text} is not the one in the certificate of {issuer.id}.",
                why="The ceremony signed the CSR of another key.",
                fix="Run a ceremony with the CSR that fleetca init made for this deployment.",
            )
        keys[issuer.id] = key
    return keys


# ---- Record -------------------------------------------------------------------------------------------------------------


def _record(store: Store, settings: Settings, issuers: Sequence[Issuer], verified: Verified, *, clock: Clock, now: UnixTime) -> bool:
    """Write it down; True where this very transcript is on record."""
    known = {issuer.id for issuer in store.reading.issuers()}
    witness = Witness(FileJournal(settings.signer.journal))
    with store.ledger.writing() as tx:
        for issuer in issuers:
            tx.add_issuer(issuer)
            if issuer.id not in known:
                tx.append_leaf(leaf.issuer(issuer, at=now))
        before = remember(tx, verified, now=now)
        if known and not before and new_issuers(verified, known):
            two_persons = _two_persons(settings, store, issuers, clock)
            two_persons.demand = in_force(tx, two_persons.demand)
            witness.later(approved(tx, two_persons, verified, actor=f"uid:{os.getuid()}", now=now))
    witness.settle()
    return before


def _check_approved(settings: Settings, verified: Verified, issuers: Sequence[Issuer], *, clock: Clock) -> None:
    """Before anything is placed: a CA that joins others here has the approval of two persons, where that is demanded.

    The first import has no operators yet; its ceremony had its witnesses.
    """
    url = forms.store_url(settings)
    migrate(url)
    store = open_store(url)
    try:
        known = {issuer.id for issuer in store.reading.issuers()}
        if not known or not new_issuers(verified, known):
            return
        two_persons = _two_persons(settings, store, issuers, clock)
        with store.ledger.writing() as tx:
            two_persons.demand = in_force(tx, two_persons.demand)
            if two_persons.demanded(GraveAct.ca_certificate):
                two_persons.find(tx, GraveAct.ca_certificate, subject_of(verified), tenant=DEFAULT_TENANT, now=clock.now())
    finally:
        store.close()


def _two_persons(settings: Settings, store: Store, issuers: Sequence[Issuer], clock: Clock) -> TwoPersons:
    return TwoPersons(
        ledger=store.ledger,
        witness=Witness(FileJournal(settings.signer.journal)),
        issuers=Issuers(issuers),
        policy=_policy(settings),
        clock=clock,
        demand=forms.demand(settings),
    )


def _policy(settings: Settings) -> grant.Policy:
    return grant.Policy(
        deployment=settings.deployment.name,
        tenant=DEFAULT_TENANT,
        default_issuer=IssuerId(settings.profiles.default_issuer),
        profiles=forms.profiles(settings),
        caps={},
    )


# ---- Operators ----------------------------------------------------------------------------------------------------------


def _certify_operators(
    settings: Settings,
    store: Store,
    issuers: Sequence[Issuer],
    keys: Mapping[IssuerId, SigningKey],
    *,
    clock: Clock,
    chance: Chance,
) -> list[Path]:
    """Certify every CSR in `operators/` that has no certificate yet: those `fleetca init` made."""
    folder = settings.base / OPERATORS
    waiting = [csr for csr in sorted(folder.glob("*.csr")) if not csr.with_suffix(".pem").exists()] if folder.is_dir() else []
    if not waiting:
        return []
    peer = Peer(Role.operator, os.getuid())
    witness = Witness(FileJournal(settings.signer.journal))
    verb = Issuing(
        ledger=store.ledger,
        witness=witness,
        keys=keys,
        issuers=Issuers(issuers),
        policy=_policy(settings),
        clock=clock,
        chance=chance,
        serial_check=forms.serial_check_key(settings),
    )
    operators = Operators(ledger=store.ledger, witness=witness, tenant=DEFAULT_TENANT, clock=clock)
    written: list[Path] = []
    for csr in waiting:
        name = OperatorName(csr.stem)
        operators.add(name, ("admin",), peer)
        request = IssueRequest(
            csr=pem.der_of(csr.read_bytes(), pem.REQUEST),
            evidence=LocalEvidence(Role.operator, peer.uid),
            device=DeviceId(f"{grant.OPERATOR_DEVICE}{name}"),
            profile=grant.OPERATOR,
        )
        outcome = verb.issue([(request, peer)])[0]
        if not isinstance(outcome, Issued):
            raise outcome
        put_new(csr.with_suffix(".pem"), chain(outcome, issuers))
        written.append(csr.with_suffix(".pem"))
    witness.settle()
    return written


def chain(issued: Issued, issuers: Sequence[Issuer]) -> bytes:
    """The certificate and those above it, the root left out."""
    by_id = {issuer.id: issuer for issuer in issuers}
    der = issued.certificate.der
    assert der is not None, "an issued certificate has its octets"
    text = forms.pem_of(der)
    issuer = by_id[issued.certificate.ref.issuer]
    while issuer.parent is not None:
        text += forms.pem_of(issuer.certificate)
        issuer = by_id[issuer.parent]
    return text.encode()
