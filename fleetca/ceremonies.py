"""Ceremonies as people start them: a sheet's file becomes the model's sheet, a folder becomes the archive. Edge: no rule of its own.

The only module that opens root keys (P3, P4): nothing that serves imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Final

from ca.ceremony import Ceremony, nothing_at
from ca.ceremony_plan import Plan
from ca.ceremony_plan import plan as planned
from ca.ceremony_rehearsal import twin_of
from ca.ceremony_steps import Outcome, Room, Step
from ca.der import pem
from ca.der.algorithms import load_public_key
from ca.der.algorithms import verify as verify_signature
from ca.der.certificate import assemble
from ca.der.request import request_info
from ca.errors import Conflict, KeyUnavailable, Malformed, Misconfigured
from ca.keys.memory import MemoryKeyStore
from ca.keys.sealed_file import SealedFileKeyStore
from ca.model import AlgorithmName, Digest, IssuerId, KeyName, UnixTime
from ca.ports import Chance, Clock, Failpoint
from ca.rules import transcript
from ca.rules.ceremony import REHEARSAL, Sheet
from ca.rules.ceremony_check import Verified, check
from ca.rules.ceremony_roles import check_people
from config import sheet as written
from config.key_uris import read_key_uri
from config.strict import read_octets
from fleetca import ceremony_host, ceremony_kit, ceremony_sheets, forms
from fleetca.ceremony_custody import CeremonyCustody, Custodians, Rehearsing, rehearsed
from fleetca.ceremony_keys import Answers, Asked, Keyring, long_enough, read_credentials
from fleetca.ceremony_kit import Kit
from fleetca.ceremony_lock import FolderLock
from fleetca.folder import Folder

_STAND_IN: Final = "-stand-in.pem"
"""Ends the name of the certificate of a stand-in, in a rehearsal."""


def run(
    sheet: Path,
    *,
    out: Path,
    passphrase: Callable[[], bytes],
    confirm: Callable[[Step], bool],
    clock: Clock,
    chance: Chance,
    credentials: Path | None = None,
    ask: Callable[[str], bytes] | None = None,
    custodians: Custodians | None = None,
    moved: str = "",
    room: Callable[[], Room] = ceremony_host.room,
    failpoint: Failpoint = nothing_at,
) -> Outcome:
    """Run a sheet's acts, or go on with a run that was stopped.

    Args:
        sheet: the sheet's file.
        out: the output folder; keys that are made lie there too, sealed, unless the credentials say otherwise.
        passphrase: seals the keys that are made.
        confirm: shows each step and returns what was decided.
        clock: the wall clock.
        chance: the random generator.
        credentials: where keys rest.
        ask: asks for a passphrase or PIN at the terminal, where the credentials say `ask`.
        custodians: shows shares and asks for them.
        moved: why it goes on on another machine than it began on.
        room: the machine.
        failpoint: where a test may break it.

    Raises:
        Misconfigured: sheet or credentials are wrong.
        KeyUnavailable: the passphrase is too short (`short-passphrase`) or wrong, or a key cannot be had.
        Conflict, Denied, Broken: as `ca.ceremony.Ceremony.run` says; `ceremony-runs` where another process holds the folder.
    """
    _, accepted = read(sheet)
    check_people(accepted)
    archive, profiles = Folder(out), forms.shipped_profiles()
    keyring = Keyring(
        out, read_credentials(credentials), accepted, answers=Answers(long_enough(passphrase), ask), clock=clock, custodians=custodians
    )
    keyring.check(profiles)
    with FolderLock(out):
        verb = Ceremony(
            archive=archive,
            keys=keyring,
            known_key=keyring.known_key,
            trial_keys=MemoryKeyStore,
            profiles=profiles,
            confirm=confirm,
            clock=clock,
            chance=chance,
            room=room(),
            role_key=keyring.role_key,
            destroy=keyring.destroy,
            custody=keyring.custody.perform,
            moved=moved,
            failpoint=failpoint,
        )
        return verb.run(accepted)


def _no_key_file(issuer: IssuerId) -> tuple[SealedFileKeyStore, KeyName]:
    raise KeyUnavailable("no-issuer-key", f"A rehearsal has no key of {issuer}.", fix="Hold the ceremony: fleetca ceremony run")


def rehearse(
    sheet: Path,
    *,
    out: Path,
    confirm: Callable[[Step], bool],
    clock: Clock,
    chance: Chance,
    custodians: Custodians | None = None,
    room: Callable[[], Room] = ceremony_host.room,
) -> Outcome:
    """Run the same steps on throw-away keys: everything is marked, nothing can be imported, and every key is forgotten at the end.

    A CSR that is not there yet has a stand-in. The network may be up, and the day may be another.

    Raises:
        As `run`; `output-exists` where the folder is not empty: a rehearsal begins anew each time.
    """
    _, accepted, _ = _read_early(sheet)
    archive = Folder(out)
    if archive.names():
        raise Conflict(
            "output-exists",
            f"{out} holds something already.",
            why="A rehearsal's keys end with it, so it cannot go on where another one stopped.",
            fix="Give an empty folder with --out.",
        )
    profiles = forms.shipped_profiles()
    # The real sheet is judged first, so that a rehearsal finds what the run would.
    now = clock.now()
    plan(sheet, at=now, chance=chance)
    twin = twin_of(accepted, profiles=profiles, keys=(stand_ins := MemoryKeyStore()), chance=chance)
    here = room()
    people = custodians or Rehearsing()
    custody = CeremonyCustody(archive=archive, folder=out, sheet=twin.sheet, custodians=people, clock=clock, key_files=_no_key_file)
    verb = Ceremony(
        archive=archive,
        keys=MemoryKeyStore(),
        known_key=twin.issuers.__getitem__,
        trial_keys=MemoryKeyStore,
        profiles=profiles,
        confirm=confirm,
        clock=clock,
        chance=chance,
        room=replace(here, interfaces=()),
        role_key=twin.people.__getitem__,
        destroy=lambda name: stand_ins.destroy(KeyName(f"issuer-{name}")).proof,
        custody=lambda act: rehearsed(act, custody),
    )
    with FolderLock(out):
        for known in twin.sheet.issuers:
            archive.put_new(f"{REHEARSAL}-{known.id}{_STAND_IN}", forms.pem_of(known.certificate).encode())
        return verb.run(replace(twin.sheet, day=None))


def plan(sheet: Path, *, at: UnixTime, chance: Chance) -> Plan:
    """Say what a sheet would do, before anything is made.

    Raises:
        Misconfigured, Unacceptable, Malformed, Broken: the sheet is wrong, or a draft fails the lint.
    """
    _, accepted, absent = _read_early(sheet)
    return planned(accepted, now=at, profiles=forms.shipped_profiles(), keys=MemoryKeyStore(), chance=chance, absent=absent)


def planned_day(sheet: Path) -> tuple[written.Sheet, UnixTime | None]:
    """The sheet as written, and the day that it names.

    Raises:
        Misconfigured: it is absent or wrong.
    """
    form, accepted, _ = _read_early(sheet)
    return form, accepted.day


def make_role_key(name: str, folder: Path, passphrase: Callable[[], bytes]) -> Digest:
    """Make the key of somebody who will confirm; the SHA-256 of its SubjectPublicKeyInfo.

    Raises:
        Conflict: it exists (`key-exists`).
        KeyUnavailable: the passphrase is too short (`short-passphrase`), or the file cannot be written.
    """
    key = SealedFileKeyStore(folder, long_enough(passphrase)).generate(KeyName(name), AlgorithmName("p256"))
    return Digest(sha256(key.spki).digest())


def find_role_key(uri: str, secret: Callable[[], bytes]) -> Digest:
    """The key that somebody has already, on a card or elsewhere; the SHA-256 of its SubjectPublicKeyInfo. It signs once, so that PIN and key
    are known to work before the day.

    Raises:
        Misconfigured: `uri` is none (`bad-key-uri`), or the store's library is not installed.
        KeyUnavailable: it is not there, or refuses its PIN, which is tried once.
        Broken: it signs what does not verify (`bad-own-signature`).
    """
    try:
        place = read_key_uri(uri, base=Path.cwd())
    except ValueError as error:
        raise Misconfigured("bad-key-uri", f"The key {error}.") from None
    store, inner = forms.key_store(place, None if place.secret == "none" else Asked.by(secret))
    key = store.open(inner)
    message = b"fleetca role key v1\0" + key.spki
    verify_signature(load_public_key(key.spki), key.sign(message), message)
    return Digest(sha256(key.spki).digest())


# ---- Reading ------------------------------------------------------------------------------------------------------------


def read(file: Path) -> tuple[written.Sheet, Sheet]:
    """A sheet as written, and as `ca.rules.ceremony` judges it, with the files it names read.

    Raises:
        Misconfigured: it, or a file it names, is absent or wrong.
    """
    with forms.our_errors():
        form = written.read_sheet(file)
    return form, ceremony_sheets.convert(form, ceremony_sheets.Inputs(form.file))


def _read_early(file: Path) -> tuple[written.Sheet, Sheet, Mapping[str, str]]:
    """As `read`, with a stand-in for each CSR that is not there yet; and which those are."""
    with forms.our_errors():
        form = written.read_sheet(file)
    keys = MemoryKeyStore()

    def stand_in(algorithm: AlgorithmName) -> bytes:
        key = keys.generate(KeyName(f"stand-in-{len(keys.names())}"), algorithm)
        info = request_info({"common_name": "not there yet"}, key.spki)
        return assemble(info, key.algorithm, key.sign(info))

    inputs = ceremony_sheets.Inputs(form.file, stand_in)
    return form, ceremony_sheets.convert(form, inputs), inputs.absent


def request_file(path: Path) -> bytes:
    """The DER of a CSR file.

    Raises:
        Misconfigured: it is absent or no CSR.
    """
    with forms.our_errors():
        octets = read_octets(path, kind="certificate request")
    try:
        return pem.der_of(octets, pem.REQUEST)
    except Malformed as error:
        raise Misconfigured("bad-file", f"The CSR, {path}, cannot be used.", why=error.what) from None


def make_kit(sheet: Path, out: Path) -> tuple[Kit, tuple[str, ...]]:
    """Pack a sheet for the air-gapped machine; the kit, and which CSRs must still be brought.

    Raises:
        As `ceremony_kit.make`; Misconfigured where the sheet is wrong.
    """
    form, _, absent = _read_early(sheet)
    base = form.file.parent
    names = {(str(path.relative_to(base)) if path.is_relative_to(base) else str(path)): path for path in written.locations(form)}
    carried = {name: path.read_bytes() for name, path in names.items() if path.exists()}
    missing = tuple(f"{file}, the CSR of act {act}" for act, file in absent.items())
    return ceremony_kit.make(form.file, carried, out), missing


def transferable(file: Path) -> tuple[str, bytes]:
    """A file for an air gap: what it is, and its octets; PEM goes over as DER, which is shorter.

    Raises:
        Misconfigured: it is absent or too large.
    """
    with forms.our_errors():
        octets = read_octets(file, kind="file")
    for kind, label in (("csr", pem.REQUEST), ("certificate", pem.CERTIFICATE), ("crl", pem.CRL)):
        if f"-----BEGIN {label}-----".encode() in octets and octets.count(b"-----BEGIN ") == 1:
            return kind, pem.der_of(octets, label)
    if file.suffix == ".crl":
        return "crl", octets
    return ("transcript" if file.suffix == ".jsonl" else "digest" if file.suffix == ".sha256" else "file"), octets


# ---- Checking -----------------------------------------------------------------------------------------------------------


def verify(place: Path, *, roots: Mapping[str, bytes] | None = None) -> Verified:
    """Check a finished ceremony: files only, no settings, no keys.

    Args:
        place: its transcript, or the folder it lies in.
        roots: DER certificates of CAs made by earlier ceremonies, by id.

    Raises:
        Unacceptable: the first thing that does not hold.
        Misconfigured: there is no transcript.
    """
    folder, name = (place, None) if place.is_dir() or not place.exists() else (place.parent, place.name)
    archive = Folder(folder)
    known = [name] if name else [transcript.FILE, f"{REHEARSAL}-{transcript.FILE}"]
    said = next((octets for each in known if (octets := archive.read(each)) is not None), None)
    if said is None:
        raise Misconfigured(
            "no-transcript",
            f"There is no {transcript.FILE} in {folder}.",
            fix="Give the folder that fleetca ceremony run --out wrote.",
        )
    files = {name: archive.read(name) or b"" for name in archive.names() if not name.endswith(".key")}
    # The stand-ins of a rehearsal lie beside it: they are believed by nobody, so nobody needs to bring them.
    beside = {
        name.removeprefix(f"{REHEARSAL}-").removesuffix(_STAND_IN): pem.der_of(octets, pem.CERTIFICATE)
        for name, octets in files.items()
        if name.startswith(REHEARSAL) and name.endswith(_STAND_IN)
    }
    sheet = None
    if "sheet.toml" in files:
        with forms.our_errors():
            sheet = ceremony_sheets.facts(written.read_sheet(folder / "sheet.toml"))
    return check(said, files, roots={**beside, **(roots or {})}, sheet=sheet)
