"""Run a ceremony: make a root, sign issuing CAs and root CRLs, and write down every step so that anyone can check it offline.

The order is the design. First every act is drafted and linted with throw-away keys, before any key is made. Then, act by act: key, draft,
lint, show, confirm, write down what will be signed, sign, re-read, write. Time and serial numbers are drawn once and stand in the first
line of the transcript, so a run that was stopped drafts the same octets again: no act ever gets two different ones signed.

Knows rules and ports; no files, no terminal, no settings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ca.der import pem
from ca.der.certificate import assemble
from ca.der.csr import read_csr
from ca.errors import Conflict, Denied, KeyUnavailable
from ca.model import CrlNumber, Digest, Issuer, IssuerId, KeyName, Profile, ProfileName, Serial, UnixTime
from ca.ports import Archive, Chance, Clock, KeyStore, SigningKey
from ca.rules import transcript
from ca.rules.ceremony import Act, IntermediateAct, Period, RootAct, RootCrlAct, Sheet, accept
from ca.rules.ceremony_drafts import (
    SEED_OCTETS,
    Drafted,
    Lines,
    draft_certificate,
    draft_crl,
    known_issuer,
    output_file,
    reread,
    root_issuer,
)
from ca.rules.serial import make_serial
from ca.rules.transcript import Record, Transcript

SHEET_FILE: Final = "sheet.toml"


@dataclass(frozen=True, slots=True)
class Step:
    """What the people in the room see before they say yes."""

    act: IssuerId
    title: str
    lines: Lines
    tbs_sha256: Digest


@dataclass(frozen=True, slots=True)
class Made:
    """One output."""

    act: IssuerId
    file: str
    sha256: Digest
    """Of the file."""
    fingerprint: Digest
    """SHA-256 of the DER: what other tools show, and what is noted on paper."""
    not_after: UnixTime


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished ceremony leaves."""

    name: str
    outputs: tuple[Made, ...]
    transcript_sha256: Digest
    resumed: bool


@dataclass(slots=True)
class _Run:
    """One run of one sheet: what is known so far, in the order of the acts."""

    sheet: Sheet
    periods: Mapping[IssuerId, Period]
    seeds: Mapping[str, str]
    issuers: dict[IssuerId, Issuer]
    numbers: dict[IssuerId, CrlNumber] = field(default_factory=dict)


class Ceremony:
    """The verb; one object runs once.

    Args:
        archive: the output folder; its transcript says what was done already.
        keys: where the keys that this ceremony makes will rest (P3: opened here and nowhere else).
        known_key: opens the key of a root from an earlier ceremony.
        trial_keys: makes a key store that forgets.
        profiles: the CA profiles.
        confirm: shows a step and returns what was decided.
        software: name and version, for the transcript.
    """

    def __init__(
        self,
        *,
        archive: Archive,
        keys: KeyStore,
        known_key: Callable[[KeyName], SigningKey],
        trial_keys: Callable[[], KeyStore],
        profiles: Mapping[ProfileName, Profile],
        confirm: Callable[[Step], bool],
        clock: Clock,
        chance: Chance,
        software: str,
    ) -> None:
        self._archive = archive
        self._keys = keys
        self._known_key = known_key
        self._trial_keys = trial_keys
        self._profiles = profiles
        self._confirm = confirm
        self._clock = clock
        self._chance = chance
        self._software = software
        self._done: list[Record] = []
        self._size = 0
        self._opened: dict[IssuerId, SigningKey] = {}

    def run(self, sheet: Sheet) -> Outcome:
        """Begin a ceremony, or go on with one that was stopped.

        Raises:
            Misconfigured: the sheet is wrong; nothing was written.
            Broken: a draft fails the lint; no key was made.
            Conflict: an output exists (`output-exists`), the folder holds another or a finished ceremony (`another-ceremony`,
                `ceremony-finished`), or other octets would be signed than the ones that were shown (`another-draft`).
            Denied: somebody said no (`not-confirmed`); running again goes on from there.
            KeyUnavailable: a key cannot be made or unlocked.
        """
        written = self._archive.read(transcript.FILE)
        # A transcript without one whole line is what a crash left of the first: nothing was made yet.
        before = transcript.read(written) if written is not None and b"\n" in written else None
        run = self._begin(sheet) if before is None else self._resume(sheet, before)
        outputs = tuple(self._act(run, act) for act in sheet.acts)
        self._seal(run)
        return Outcome(sheet.name, outputs, self._done[-1].digest, before is not None)

    def trial(self, sheet: Sheet, *, now: UnixTime, seeds: Mapping[str, str]) -> tuple[Drafted, ...]:
        """Draft and lint every act with throw-away keys. What this refuses never gets as far as a key.

        Raises:
            Broken, Misconfigured, Unacceptable, Malformed: a draft cannot be made, or fails the lint.
        """
        run = self._planned(sheet, now=now, seeds=seeds)
        keys = self._trial_keys()
        drafts: list[Drafted] = []
        for act in sheet.acts:
            drafted = self._draft(run, act, keys.generate)
            drafts.append(drafted)
            if isinstance(act, RootAct):
                signature = keys.open(KeyName(act.id)).sign(drafted.tbs)
                run.issuers[act.id] = root_issuer(act, assemble(drafted.tbs, drafted.algorithm, signature))
        return tuple(drafts)

    # ---- Beginning ------------------------------------------------------------------------------------------------------

    def _planned(self, sheet: Sheet, *, now: UnixTime, seeds: Mapping[str, str]) -> _Run:
        periods = accept(sheet, profiles=self._profiles, now=now)
        return _Run(sheet, periods, seeds, {known.id: known_issuer(known) for known in sheet.issuers})

    def _begin(self, sheet: Sheet) -> _Run:
        now = self._clock.now()
        seeds = {str(act.id): self._chance.octets(SEED_OCTETS + 32).hex() for act in sheet.acts}
        self.trial(sheet, now=now, seeds=seeds)
        present = set(self._archive.names()) & {SHEET_FILE, *(name for act in sheet.acts for name in (output_file(act), f"{act.id}.key"))}
        if present:
            raise Conflict(
                "output-exists",
                f"The output folder holds {min(present)} already.",
                why="A ceremony never replaces a file.",
                fix="Give another, empty folder with --out.",
            )
        # From here on the folder is this ceremony's: a key found in it later was made by it. A torn first line is written over.
        self._write(
            "begin",
            now,
            ceremony=sheet.name,
            about=sheet.about,
            sheet_sha256=sheet.digest.hex(),
            software=self._software,
            issuers={known.id: hashlib.sha256(known.certificate).hexdigest() for known in sheet.issuers},
            acts=[act.id for act in sheet.acts],
            seeds=seeds,
        )
        self._archive.put_new(SHEET_FILE, sheet.octets)
        return self._planned(sheet, now=now, seeds=seeds)

    def _resume(self, sheet: Sheet, before: Transcript) -> _Run:
        begin = before.records[0]
        if begin.kind != "begin" or begin.fields["sheet_sha256"] != sheet.digest.hex():
            raise Conflict(
                "another-ceremony",
                "The output folder holds another ceremony, or the sheet was changed since this one began.",
                why=f"It began with a sheet whose SHA-256 is {begin.fields.get('sheet_sha256')}.",
                fix="Give the same sheet, or another, empty folder.",
            )
        if before.sealed:
            raise Conflict(
                "ceremony-finished",
                f"The ceremony {sheet.name} in this folder is finished.",
                why="Running it again would sign a second time.",
                fix="Use its outputs, or give another folder.",
            )
        self._done = list(before.records)
        self._size = sum(len(record.line) + 1 for record in before.records)
        seeds: Mapping[str, str] = begin.fields["seeds"]
        self.trial(sheet, now=begin.at, seeds=seeds)
        self._write("resumed", self._clock.now(), software=self._software)
        if self._archive.read(SHEET_FILE) is None:
            self._archive.put_new(SHEET_FILE, sheet.octets)
        return self._planned(sheet, now=begin.at, seeds=seeds)

    # ---- One act --------------------------------------------------------------------------------------------------------

    def _draft(self, run: _Run, act: Act, make: Callable[[KeyName, Any], SigningKey]) -> Drafted:
        period = run.periods[act.id]
        if isinstance(act, RootCrlAct):
            drafted = draft_crl(act, period, run.issuers[act.issuer], above=run.numbers.get(act.issuer, 0))
            run.numbers[act.issuer] = drafted.number or 0
            return drafted
        if isinstance(act, IntermediateAct) and act.csr is not None:
            spki = read_csr(act.csr).spki
        else:
            spki = make(KeyName(act.id), act.algorithm).spki
        seed = bytes.fromhex(run.seeds[act.id])
        serial = Serial(make_serial(seed[:SEED_OCTETS], seed[SEED_OCTETS:]))
        return draft_certificate(act, period, serial=serial, spki=spki, issuers=run.issuers, profiles=self._profiles)

    def _act(self, run: _Run, act: Act) -> Made:
        drafted = self._draft(run, act, self._make_key)
        self._same_draft(drafted)
        said = self._find("output", act.id)
        octets = self._archive.read(drafted.file)
        if said is None:
            octets = self._signed(run, act, drafted, octets)
            said = self._write("output", act=act.id, file=drafted.file, sha256=hashlib.sha256(octets).hexdigest())
        if octets is None or hashlib.sha256(octets).hexdigest() != said.fields["sha256"]:
            raise Conflict(
                "output-changed",
                f"{drafted.file} is not what this ceremony wrote.",
                fix="Put back the file whose SHA-256 the transcript names, or begin again in an empty folder.",
            )
        der = octets if drafted.certificate is None else pem.der_of(octets, pem.CERTIFICATE)
        if isinstance(act, RootAct):
            run.issuers[act.id] = root_issuer(act, der)
        sha256, fingerprint = (Digest(hashlib.sha256(each).digest()) for each in (octets, der))
        return Made(act.id, drafted.file, sha256, fingerprint, drafted.not_after)

    def _same_draft(self, drafted: Drafted) -> None:
        earlier = self._find("drafted", drafted.act)
        if earlier is not None and earlier.fields["tbs_sha256"] != hashlib.sha256(drafted.tbs).hexdigest():
            raise Conflict(
                "another-draft",
                f"Act {drafted.act} would now have other octets than those that were shown and written down.",
                why="The run that began used another version of the program, or another CSR.",
                fix="Finish with the version and files that began it, or begin again in an empty folder.",
            )

    def _signed(self, run: _Run, act: Act, drafted: Drafted, found: bytes | None) -> bytes:
        """The output's octets: shown, confirmed, signed, re-read, written."""
        digest = Digest(hashlib.sha256(drafted.tbs).digest())
        if self._find("drafted", act.id) is None:
            self._write("drafted", act=act.id, tbs=transcript.text_of(drafted.tbs), tbs_sha256=digest.hex(), facts=dict(drafted.lines))
        if self._find("confirmed", act.id) is None:
            if not self._confirm(Step(act.id, drafted.title, drafted.lines, digest)):
                self._write("refused", act=act.id, tbs_sha256=digest.hex())
                raise Denied(
                    "not-confirmed",
                    f"Act {act.id} was not confirmed; nothing was signed for it.",
                    fix="Run the same command to go on from here, or begin again in an empty folder.",
                )
            self._write("confirmed", act=act.id, tbs_sha256=digest.hex())
        key = self._key(run, drafted.signer)
        if found is not None:
            # Written by a run that ended before it could say so.
            der = found if drafted.certificate is None else pem.der_of(found, pem.CERTIFICATE)
            reread(drafted, der, key.spki)
            return found
        # A crash after this line may leave a signature that nobody saw: then the same octets are signed again, and the line says so.
        self._write("signing", act=act.id, tbs_sha256=digest.hex(), again=self._find("signing", act.id) is not None)
        der = assemble(drafted.tbs, drafted.algorithm, key.sign(drafted.tbs))
        reread(drafted, der, key.spki)
        octets = der if drafted.certificate is None else pem.pem(pem.CERTIFICATE, der).encode()
        self._archive.put_new(drafted.file, octets)
        return octets

    def _seal(self, run: _Run) -> None:
        first = run.sheet.acts[0]
        signer = first.id if isinstance(first, RootAct) else first.issuer
        key = self._key(run, signer)
        now = self._clock.now()
        facts = {"signer": signer, "spki_sha256": hashlib.sha256(key.spki).hexdigest()}
        signature = key.sign(transcript.sealed_octets(self._done, at=now, **facts))
        self._write("seal", now, **facts, signature=transcript.text_of(signature))

    # ---- Keys -----------------------------------------------------------------------------------------------------------

    def _make_key(self, name: KeyName, algorithm: Any) -> SigningKey:
        """The key of an act: made now, or by the run that was stopped."""
        act = IssuerId(name)
        said = self._find("key", act)
        # A key without a line was made just before a crash; nothing was signed with it, and the folder was empty when we began.
        key = self._keys.open(name) if said is not None or name in self._keys.names() else self._keys.generate(name, algorithm)
        spki_sha256 = hashlib.sha256(key.spki).hexdigest()
        if said is None:
            self._write("key", act=act, algorithm=key.algorithm, spki_sha256=spki_sha256)
        elif said.fields["spki_sha256"] != spki_sha256:
            raise KeyUnavailable(
                "wrong-key", f"The key {name} is not the one that this ceremony made.", fix="Put back the key file that it wrote."
            )
        self._opened[act] = key
        return key

    def _key(self, run: _Run, signer: IssuerId) -> SigningKey:
        key = self._opened.get(signer)
        if key is None:
            known = next(known for known in run.sheet.issuers if known.id == signer)
            key = self._opened[signer] = self._known_key(known.key)
            if key.spki != run.issuers[signer].spki:
                raise KeyUnavailable(
                    "wrong-key", f"The key given for {signer} does not belong to its certificate.", fix="Correct it under [[issuers]]."
                )
        return key

    # ---- Transcript -----------------------------------------------------------------------------------------------------

    def _find(self, kind: str, act: IssuerId) -> Record | None:
        return next((record for record in self._done if record.kind == kind and record.fields.get("act") == act), None)

    def _write(self, kind: str, at: UnixTime | None = None, **fields: Any) -> Record:
        made = transcript.record(self._done, kind, at=self._clock.now() if at is None else at, **fields)
        line = made.line + b"\n"
        self._archive.append(transcript.FILE, line, at=self._size)
        self._size += len(line)
        self._done.append(made)
        return made
