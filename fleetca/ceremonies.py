"""Ceremonies as people start them: a sheet's file becomes the model's sheet, a folder becomes the archive. Edge: no rule of its own.

The only module that opens root keys (P3, P4): nothing that serves imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

from ca.ceremony import Ceremony, Proof, nothing_at
from ca.ceremony_plan import Plan
from ca.ceremony_plan import plan as planned
from ca.ceremony_rehearsal import twin_of
from ca.ceremony_steps import Outcome, Room, Step
from ca.der import pem
from ca.der.certificate import assemble
from ca.der.request import request_info
from ca.errors import Conflict, KeyUnavailable, Malformed, Misconfigured
from ca.keys.memory import MemoryKeyStore
from ca.keys.sealed_file import SealedFileKeyStore
from ca.model import AlgorithmName, Digest, KeyName, UnixTime
from ca.ports import Chance, Clock, Failpoint, KeyStore, SigningKey
from ca.rules import transcript
from ca.rules.ceremony import REHEARSAL, Participant, Sheet
from ca.rules.ceremony_check import Verified, check
from ca.rules.ceremony_roles import check_people
from config import credentials as places
from config import sheet as written
from config.secrets import Secret
from config.strict import read_octets
from fleetca import ceremony_host, ceremony_kit, ceremony_sheets, forms
from fleetca.ceremony_kit import Kit
from fleetca.ceremony_lock import FolderLock
from fleetca.folder import Folder

SHORTEST_PASSPHRASE: Final = 12
"""Octets; scrypt makes each guess dear, the passphrase makes the guesses many."""

_STAND_IN: Final = "-stand-in.pem"
"""Ends the name of the certificate of a stand-in, in a rehearsal."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Where passphrases come from that no file names."""

    passphrase: Callable[[], bytes]
    """Seals the keys that are made here, and unlocks those of the sheet's issuers."""
    ask: Callable[[str], bytes] | None = None
    """Asks somebody at the terminal for the passphrase or PIN of what it is told."""


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
    keyring = _Keyring(out, _read_credentials(credentials), accepted, Answers(_long_enough(passphrase), ask))
    with FolderLock(out):
        verb = Ceremony(
            archive=Folder(out),
            keys=keyring,
            known_key=keyring.known_key,
            trial_keys=MemoryKeyStore,
            profiles=forms.shipped_profiles(),
            confirm=confirm,
            clock=clock,
            chance=chance,
            room=room(),
            role_key=keyring.role_key,
            destroy=keyring.destroy,
            moved=moved,
            failpoint=failpoint,
        )
        return verb.run(accepted)


def _long_enough(passphrase: Callable[[], bytes]) -> Callable[[], bytes]:
    """The passphrase, asked for once, when the first key needs it."""
    known: list[bytes] = []

    def read_once() -> bytes:
        if not known:
            value = passphrase()
            if len(value) < SHORTEST_PASSPHRASE:
                raise KeyUnavailable(
                    "short-passphrase",
                    f"A ceremony's passphrase has at least {SHORTEST_PASSPHRASE} characters.",
                    fix="Use several random words.",
                )
            known.append(value)
        return known[0]

    return read_once


def rehearse(
    sheet: Path, *, out: Path, confirm: Callable[[Step], bool], clock: Clock, chance: Chance, room: Callable[[], Room] = ceremony_host.room
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


# ---- Keys ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Asked(Secret):
    """A secret that a person gives when it is needed."""

    answer: Callable[[], bytes] = field(default=bytes, repr=False)

    def read(self) -> bytes:
        return self.answer()


def _read_credentials(file: Path | None) -> places.Credentials:
    if file is None:
        return places.Credentials()
    with forms.our_errors():
        return places.read_credentials(file)


class _Keyring:
    """The keys of one ceremony, where its credentials say they rest; those it makes otherwise in the output folder, sealed."""

    def __init__(self, out: Path, credentials: places.Credentials, sheet: Sheet, answers: Answers) -> None:
        self._sealed = SealedFileKeyStore(out, answers.passphrase)
        self._credentials = credentials
        self._answers = answers
        _check_names(credentials, sheet)

    def open(self, name: KeyName) -> SigningKey:
        """A key that this ceremony made."""
        store, inner = self._store(name)
        return store.open(inner)

    def generate(self, name: KeyName, algorithm: AlgorithmName) -> SigningKey:
        """Make a key where the credentials say."""
        store, inner = self._store(name)
        return store.generate(inner, algorithm)

    def names(self) -> Sequence[KeyName]:
        """The keys that are there of those that may be made here."""
        placed = [KeyName(name) for name in self._credentials.made]
        here = [name for name in placed if (found := self._store(name))[1] in found[0].names()]
        return sorted({*here, *(name for name in self._sealed.names() if name not in placed)})

    def known_key(self, name: KeyName) -> SigningKey:
        """The key of an issuer of the sheet."""
        store, inner = self._issuer(name)
        return store.open(inner)

    def role_key(self, who: Participant) -> SigningKey:
        """The key of somebody in the room."""
        place = self._credentials.people.get(who.person)
        if place is None:
            raise KeyUnavailable(
                "no-role-key",
                f"There is no key for {who.person} ({who.role}), who must confirm.",
                why="Without their signature nothing goes on.",
                fix=f'Say in the credentials file where it rests: [people."{who.person}"] with key.',
            )
        store, inner = self._placed(place, f"{who.person} ({who.role})")
        return store.open(inner)

    def destroy(self, name: KeyName) -> Proof:
        """Destroy the key of an issuer of the sheet; the store's word that it is gone, also where it is gone already."""
        store, inner = self._issuer(name)
        if inner not in store.names():
            return (("asked again", f"{store.ability().about} holds no key {inner}"),)
        done = store.destroy(inner)
        return (("store", done.store.about), *done.proof)

    def _store(self, name: KeyName) -> tuple[KeyStore, KeyName]:
        place = self._credentials.made.get(name)
        return (self._sealed, name) if place is None else self._placed(place, f"the key of {name}")

    def _issuer(self, name: KeyName) -> tuple[KeyStore, KeyName]:
        place = self._credentials.issuers.get(name)
        if place is None:
            raise KeyUnavailable(
                "no-issuer-key",
                f"Nothing says where the key of the issuer {name} rests.",
                fix=f"Say it in the credentials file, --credentials FILE: [issuers.{name}] with key.",
            )
        return self._placed(place, f"the key of {name}")

    def _placed(self, place: places.KeyPlace, what: str) -> tuple[KeyStore, KeyName]:
        secret = place.passphrase
        if secret is None and place.key.secret == "needed":
            ask = self._answers.ask
            answer = self._answers.passphrase if ask is None else lambda: ask(what)
            secret = _Asked("fd", "0", Path(), answer)
        return forms.key_store(place.key, secret)


def _check_names(credentials: places.Credentials, sheet: Sheet) -> None:
    wanted = (
        ("made", set(credentials.made), {act.id for act in sheet.acts}),
        ("issuers", set(credentials.issuers), {known.id for known in sheet.issuers}),
        ("people", set(credentials.people), {each.person for each in sheet.participants}),
    )
    for table, given, known in wanted:
        strange = sorted(given - {str(each) for each in known})
        if strange:
            raise Misconfigured(
                "unused-credentials",
                f"The credentials file has {table}.{strange[0]}, which the sheet does not know.",
                fix=f"Take it out, or correct it: {', '.join(sorted(map(str, known))) or 'the sheet has none'}.",
            )


def make_role_key(name: str, folder: Path, passphrase: Callable[[], bytes]) -> Digest:
    """Make the key of somebody who will confirm; the SHA-256 of its SubjectPublicKeyInfo.

    Raises:
        Conflict: it exists (`key-exists`).
        KeyUnavailable: the passphrase is too short (`short-passphrase`), or the file cannot be written.
    """
    key = SealedFileKeyStore(folder, _long_enough(passphrase)).generate(KeyName(name), AlgorithmName("p256"))
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
