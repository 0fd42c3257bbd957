"""Run a ceremony: make roots, sign CAs, links and root CRLs, destroy keys, and write down every step so that anyone can check it offline.

The order is the design. First every act is drafted and linted with throw-away keys, before any key is made. Then, act by act: key, draft,
lint, show, confirm, write down what will be signed, sign, re-read, write. Time and serial numbers are drawn once and stand in the first
line of the transcript, so a run that was stopped drafts the same octets again: no act ever gets two different ones signed. Where the sheet
names people, each confirms with a signature by their own key: the sheet before anything, each act, and the whole at the end.

Knows rules and ports; no files, no terminal, no settings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ca.ceremony_lines import Lines
from ca.ceremony_people import People, named, no_role_key
from ca.ceremony_statements import Statements
from ca.ceremony_steps import (
    INPUT,
    SHEET_FILE,
    Made,
    MadeKeys,
    Outcome,
    Performed,
    Progress,
    Proof,
    Room,
    Step,
    draft_act,
    files_of,
    no_custody,
    no_destroyer,
    trial,
)
from ca.der import pem
from ca.der.certificate import assemble
from ca.errors import Broken, Conflict, Denied, KeyUnavailable, Unacceptable
from ca.model import Digest, IssuerId, KeyName, Profile, ProfileName, UnixTime
from ca.ports import Archive, Chance, Clock, Failpoint, SigningKey
from ca.rules import ceremony_roles as roles
from ca.rules import transcript
from ca.rules.ceremony import (
    REHEARSAL,
    Act,
    CustodyAct,
    DestroyAct,
    Participant,
    RootAct,
    Sheet,
    StatementAct,
    kind_of,
    makes_key,
    signer_of,
)
from ca.rules.ceremony_dates import accept, check_clock
from ca.rules.ceremony_drafts import SEED_OCTETS, Drafted, known_issuer, reread, root_issuer
from ca.rules.transcript import Transcript


def nothing_at(name: str) -> None:
    """The failpoint of production."""


class Ceremony:
    """The verb; one object runs once.

    Args:
        archive: the output folder; its transcript says what was done already.
        keys: where the keys that this ceremony makes will rest (P3: opened here and nowhere else).
        known_key: opens the key of a CA from an earlier ceremony.
        trial_keys: makes a key store that forgets.
        profiles: the CA profiles.
        confirm: shows a step, to one person where the sheet names people, and returns what was decided.
        room: machine, network and software.
        role_key: opens the key of somebody whom the sheet names.
        destroy: destroys a key of an earlier ceremony and returns the store's word that it is gone; when it is gone already, too.
        custody: makes shares, backups and drills; called again after a crash, it goes on.
        moved: why a run that was begun on another machine goes on here.
    """

    def __init__(
        self,
        *,
        archive: Archive,
        keys: MadeKeys,
        known_key: Callable[[KeyName], SigningKey],
        trial_keys: Callable[[], MadeKeys],
        profiles: Mapping[ProfileName, Profile],
        confirm: Callable[[Step], bool],
        clock: Clock,
        chance: Chance,
        room: Room,
        role_key: Callable[[Participant], SigningKey] = no_role_key,
        destroy: Callable[[KeyName], Proof] = no_destroyer,
        custody: Callable[[CustodyAct], Performed] = no_custody,
        moved: str = "",
        failpoint: Failpoint = nothing_at,
    ) -> None:
        self._archive = archive
        self._keys = keys
        self._known_key = known_key
        self._trial_keys = trial_keys
        self._profiles = profiles
        self._clock = clock
        self._chance = chance
        self._room = room
        self._moved = moved
        self._failpoint = failpoint
        self._lines = Lines(archive, clock)
        self._people = People(self._lines, confirm=confirm, role_key=role_key, failpoint=failpoint)
        self._statements = Statements(self._lines, archive=archive, clock=clock, destroy=destroy, custody=custody, failpoint=failpoint)
        self._opened: dict[IssuerId, SigningKey] = {}

    def run(self, sheet: Sheet) -> Outcome:
        """Begin a ceremony, or go on with one that was stopped.

        Raises:
            Misconfigured: the sheet is wrong; nothing was written.
            Broken: a draft fails the lint; no key was made.
            Conflict: an output exists (`output-exists`), the folder holds another or a finished ceremony (`another-ceremony`,
                `ceremony-finished`), it began elsewhere (`another-machine`), or other octets would be signed than the ones that were shown
                (`another-draft`).
            Denied: somebody said no (`not-confirmed`), or a network is up (`network-up`); running again goes on from there.
            KeyUnavailable: a key cannot be made or unlocked, or is not the one that the sheet names (`wrong-role-key`).
            ClockUntrusted: the clock does not fit the sheet (`clock-wrong`), or went back.
        """
        before = self._lines.begin(transcript_file(sheet))
        run = self._begin(sheet) if before is None else self._resume(sheet, before)
        self._people.open(run.sheet)
        outputs = tuple(self._act(run, number, act) for number, act in enumerate(sheet.acts, start=1))
        self._people.close(run.sheet)
        self._seal(run)
        return Outcome(sheet.name, outputs, self._lines.done[-1].digest, before is not None)

    def trial(self, sheet: Sheet, *, now: UnixTime, seeds: Mapping[str, str]) -> tuple[Drafted, ...]:
        """Draft and lint every act with throw-away keys. What this refuses never gets as far as a key.

        Raises:
            Broken, Misconfigured, Unacceptable, Malformed: a draft cannot be made, or fails the lint.
        """
        run = self._planned(sheet, now=now, seeds=seeds)
        return trial(run.sheet, run.periods, seeds=seeds, profiles=self._profiles, keys=self._trial_keys())

    # ---- Beginning ------------------------------------------------------------------------------------------------------

    def _planned(self, sheet: Sheet, *, now: UnixTime, seeds: Mapping[str, str]) -> Progress:
        periods = accept(sheet, profiles=self._profiles, now=now)
        roles.check_people(sheet)
        return Progress(sheet, periods, seeds, {known.id: known_issuer(known) for known in sheet.issuers})

    def _check_room(self, sheet: Sheet) -> None:
        if self._room.interfaces and not sheet.network:
            raise Denied(
                "network-up",
                f"The network interface {self._room.interfaces[0]} is up; a ceremony runs on a machine without a network.",
                fix="Take the cable out and switch radios off (ip link set NAME down), or give a reason in the sheet: allow_network under "
                "[ceremony]; it lands in the transcript.",
            )

    def _begin(self, sheet: Sheet) -> Progress:
        now = self._clock.now()
        seeds = {str(act.id): self._chance.octets(SEED_OCTETS + 32).hex() for act in sheet.acts}
        check_clock(sheet, now=now)
        self.trial(sheet, now=now, seeds=seeds)
        roles.check_keys_known(sheet)
        self._check_room(sheet)
        inputs = sheet.inputs or {}
        present = set(self._archive.names()) & files_of(sheet)
        if present:
            raise Conflict(
                "output-exists",
                f"The output folder holds {min(present)} already.",
                why="A ceremony never replaces a file.",
                fix="Give another, empty folder with --out.",
            )
        # A token, too, is this ceremony's from here on: a key that was there before is nobody's mistake later.
        there = {act.id for act in sheet.acts if makes_key(act)} & {IssuerId(name) for name in self._keys.names()}
        if there:
            raise Conflict(
                "key-exists",
                f"Where the key of {min(there)} would be made, there is one already.",
                why="A ceremony makes its keys anew, and never replaces one.",
                fix="Name another place in the credentials file.",
            )
        people = [
            {"role": each.role, "person": each.person, "spki": transcript.text_of(self._people.key_of(each).spki)}
            for each in sheet.participants
        ]
        # From here on the folder is this ceremony's: a key found in it later was made by it. A torn first line is written over.
        self._lines.write(
            "begin",
            now,
            ceremony=sheet.name,
            about=sheet.about,
            place=sheet.place,
            sheet_sha256=sheet.digest.hex(),
            software=self._room.software,
            software_sha256=self._room.software_sha256,
            machine=self._room.machine,
            interfaces=list(self._room.interfaces),
            network=sheet.network,
            rehearsal=sheet.rehearsal,
            issuers={known.id: hashlib.sha256(known.certificate).hexdigest() for known in sheet.issuers},
            inputs={name: hashlib.sha256(octets).hexdigest() for name, octets in inputs.items()},
            people=people,
            acts=[act.id for act in sheet.acts],
            kinds={str(act.id): kind_of(act) for act in sheet.acts},
            confirm={str(act.id): [[each.role, each.person] for each in sheet.confirmed_by(act)] for act in sheet.acts},
            seeds=seeds,
        )
        self._failpoint("ceremony.after-begin")
        self._put_inputs(sheet)
        return self._planned(sheet, now=now, seeds=seeds)

    def _put_inputs(self, sheet: Sheet) -> None:
        for name, octets in {
            SHEET_FILE: sheet.octets,
            **{f"{INPUT}{name}": octets for name, octets in (sheet.inputs or {}).items()},
        }.items():
            if self._archive.read(name) is None:
                self._archive.put_new(name, octets)

    def _resume(self, sheet: Sheet, before: Transcript) -> Progress:
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
        elsewhere = begin.fields["machine"] != self._room.machine
        if elsewhere and not self._moved:
            raise Conflict(
                "another-machine",
                "This ceremony began on another machine.",
                why="Two machines could go on with copies of one folder and sign twice.",
                fix="Go on where it began. If that machine is lost, give --moved REASON; it lands in the transcript.",
            )
        roles.check_confirmed(sheet, before)
        self._lines.go_on(before)
        seeds: Mapping[str, str] = begin.fields["seeds"]
        self.trial(sheet, now=begin.at, seeds=seeds)
        self._check_room(sheet)
        room = self._room
        self._lines.write(
            "resumed",
            self._clock.now(),
            software=room.software,
            software_sha256=room.software_sha256,
            machine=room.machine,
            interfaces=list(room.interfaces),
            moved=self._moved if elsewhere else "",
        )
        self._put_inputs(sheet)
        return self._planned(sheet, now=begin.at, seeds=seeds)

    # ---- One act --------------------------------------------------------------------------------------------------------

    def _draft(self, run: Progress, act: Act) -> Drafted:
        return draft_act(run, act, self._profiles, self._make_key)

    def _act(self, run: Progress, number: int, act: Act) -> Made:
        drafted = self._draft(run, act)
        self._same_draft(drafted)
        said = self._lines.find("output", act.id)
        octets = self._archive.read(drafted.file)
        if said is None:
            octets = self._finished(run, act, drafted, octets, number)
            self._failpoint("ceremony.after-output")
            said = self._lines.write("output", act=act.id, file=drafted.file, sha256=hashlib.sha256(octets).hexdigest())
        if octets is None or hashlib.sha256(octets).hexdigest() != said.fields["sha256"]:
            raise Conflict(
                "output-changed",
                f"{drafted.file} is not what this ceremony wrote.",
                fix="Put back the file whose SHA-256 the transcript names, or begin again in an empty folder.",
            )
        der = octets if drafted.certificate is None else pem.der_of(octets, pem.CERTIFICATE)
        if not drafted.is_statement:
            self._reread(drafted, der, drafted.spki if isinstance(act, RootAct) else run.issuers[drafted.signer].spki)
        if isinstance(act, RootAct):
            run.issuers[act.id] = root_issuer(act, der)
        sha256, fingerprint = (Digest(hashlib.sha256(each).digest()) for each in (octets, der))
        return Made(act.id, drafted.file, sha256, fingerprint, drafted.not_after)

    def _reread(self, drafted: Drafted, der: bytes, spki: bytes) -> None:
        """Also what an earlier run wrote: a line and a file may both be somebody else's."""
        try:
            reread(drafted, der, spki)
        except Broken as error:
            raise Conflict(
                "output-changed",
                f"{drafted.file} is not what this ceremony signed.",
                why=error.why or error.what,
                fix="Put back the folder as the ceremony left it, or begin again in an empty folder.",
            ) from None

    def _same_draft(self, drafted: Drafted) -> None:
        earlier = self._lines.find("drafted", drafted.act)
        if earlier is not None and earlier.fields["tbs_sha256"] != hashlib.sha256(drafted.tbs).hexdigest():
            raise Conflict(
                "another-draft",
                f"Act {drafted.act} would now have other octets than those that were shown and written down.",
                why="The run that began used another version of the program, or another CSR.",
                fix="Finish with the version and files that began it, or begin again in an empty folder.",
            )

    def _finished(self, run: Progress, act: Act, drafted: Drafted, found: bytes | None, number: int) -> bytes:
        """The output's octets: shown, confirmed, signed, re-read, written."""
        digest = Digest(hashlib.sha256(drafted.tbs).digest())
        if self._lines.find("drafted", act.id) is None:
            self._lines.write(
                "drafted", act=act.id, tbs=transcript.text_of(drafted.tbs), tbs_sha256=digest.hex(), facts=dict(drafted.lines)
            )
            self._failpoint("ceremony.after-drafted")
        asked: Sequence[Participant | None] = run.sheet.confirmed_by(act) or (None,)
        for at, who in enumerate(asked):
            self._people.ask(Step(act.id, drafted.title, drafted.lines, digest, roles.ACT, who, at > 0, number, len(run.sheet.acts)))
        if isinstance(act, DestroyAct):
            known = next(known for known in run.sheet.issuers if known.id == act.issuer)
            octets = self._statements.destroyed(act, known.key, drafted, found, belongs=lambda: self._key(run, act.issuer))
            self._opened.pop(act.issuer, None)
            return octets
        if isinstance(act, CustodyAct):
            return self._statements.performed(act, drafted, found)
        key = self._key(run, drafted.signer)
        if found is not None:
            # Written by a run that ended before it could say so.
            der = found if drafted.certificate is None else pem.der_of(found, pem.CERTIFICATE)
            reread(drafted, der, key.spki)
            return found
        # A crash after this line may leave a signature that nobody saw: then the same octets are signed again, and the line says so.
        self._lines.write("signing", act=act.id, tbs_sha256=digest.hex(), again=self._lines.find("signing", act.id) is not None)
        self._failpoint("ceremony.before-sign")
        der = assemble(drafted.tbs, drafted.algorithm, key.sign(drafted.tbs))
        self._failpoint("ceremony.after-sign")
        reread(drafted, der, key.spki)
        octets = der if drafted.certificate is None else pem.pem(pem.CERTIFICATE, der).encode()
        self._archive.put_new(drafted.file, octets)
        return octets

    def _seal(self, run: Progress) -> None:
        """The last line, signed by the first CA key that was used and still is; where there is none, by the first person."""
        destroyed = {act.issuer for act in run.sheet.acts if isinstance(act, DestroyAct)}
        signing = [act for act in run.sheet.acts if not isinstance(act, StatementAct)]
        signers = [signer for act in signing if (signer := signer_of(act)) not in destroyed]
        now = self._clock.now()
        if signers:
            key = self._key(run, signers[0])
            facts: dict[str, Any] = {"signer": signers[0], "spki_sha256": hashlib.sha256(key.spki).hexdigest()}
        else:
            first = run.sheet.participants[0]
            key = self._people.key_of(first)
            facts = {"signer": None, **named(first), "spki_sha256": hashlib.sha256(key.spki).hexdigest()}
        signature = key.sign(transcript.sealed_octets(self._lines.done, at=now, **facts))
        self._lines.write("seal", now, **facts, signature=transcript.text_of(signature))

    # ---- Keys -----------------------------------------------------------------------------------------------------------

    def _make_key(self, name: KeyName, algorithm: Any) -> SigningKey:
        """The key of an act: made now, or by the run that was stopped."""
        act = IssuerId(name)
        said = self._lines.find("key", act)
        # A key without a line was made just before a crash; nothing was signed with it, and the folder was empty when we began.
        key = self._keys.open(name) if said is not None or name in self._keys.names() else self._keys.generate(name, algorithm)
        self._failpoint("ceremony.after-key")
        spki_sha256 = hashlib.sha256(key.spki).hexdigest()
        if said is None:
            self._lines.write("key", act=act, algorithm=key.algorithm, spki_sha256=spki_sha256)
        elif said.fields["spki_sha256"] != spki_sha256:
            raise KeyUnavailable(
                "wrong-key", f"The key {name} is not the one that this ceremony made.", fix="Put back the key file that it wrote."
            )
        if any(other.spki == key.spki for name, other in self._opened.items() if name != act):
            raise Unacceptable(
                "key-used",
                f"The key of {act} is one that this ceremony uses for something else.",
                why="Two names in the credentials file lead to one key.",
                fix="Give each key a place of its own.",
            )
        self._opened[act] = key
        return key

    def _key(self, run: Progress, signer: IssuerId) -> SigningKey:
        key = self._opened.get(signer)
        if key is None:
            known = next(known for known in run.sheet.issuers if known.id == signer)
            key = self._known_key(known.key)
            if key.spki != run.issuers[signer].spki:
                raise KeyUnavailable(
                    "wrong-key",
                    f"The key given for {signer} does not belong to its certificate.",
                    fix="Correct where it rests, in the credentials file.",
                )
            self._opened[signer] = key
        return key


def transcript_file(sheet: Sheet) -> str:
    """Where the transcript of a sheet is written: a rehearsal's is marked."""
    return f"{REHEARSAL}-{transcript.FILE}" if sheet.rehearsal else transcript.FILE
