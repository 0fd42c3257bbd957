"""The steps of a ceremony as verbs speak of them, and the drafting of one act: the same for plan, trial, rehearsal and run. Ring 4.

Knows rules and ports; no files, no terminal, no settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from ca.der.certificate import assemble
from ca.errors import KeyUnavailable, Unacceptable
from ca.model import AlgorithmName, Digest, Issuer, IssuerId, KeyName, Profile, ProfileName, Serial, UnixTime
from ca.ports import SigningKey
from ca.rules import ceremony_roles as roles
from ca.rules.ceremony import (
    Act,
    CustodyAct,
    IntermediateAct,
    Participant,
    Period,
    RootAct,
    RootCrlAct,
    SharesAct,
    Sheet,
    StatementAct,
    output_file,
)
from ca.rules.ceremony_crls import Before
from ca.rules.ceremony_drafts import (
    SEED_OCTETS,
    Drafted,
    Lines,
    check_keys_used_once,
    draft_certificate,
    draft_crl,
    draft_statement,
    given_key,
    known_issuer,
    root_issuer,
)
from ca.rules.ceremony_words import words
from ca.rules.serial import make_serial

SHEET_FILE: Final = "sheet.toml"
INPUT: Final = "input-"
"""Begins the names of the copies of what a sheet names beside itself."""


@dataclass(frozen=True, slots=True)
class Step:
    """What the people in the room see before they say yes."""

    act: IssuerId | None
    """None for the opening and the closing."""
    title: str
    lines: Lines
    tbs_sha256: Digest
    stage: str = roles.ACT
    participant: Participant | None = None
    """Who is asked now; None where the sheet names nobody."""
    again: bool = False
    """Somebody was shown this very step before."""
    number: int = 0
    count: int = 0

    @property
    def words(self) -> str:
        """The digest, to be read aloud."""
        return words(self.tbs_sha256)


Proof: TypeAlias = tuple[tuple[str, str], ...]
"""What was done and what was answered, word by word: a store's of a key that is gone, custodians' of a drill."""


@dataclass(frozen=True, slots=True)
class Performed:
    """What an act of custodians left."""

    proof: Proof
    files: Mapping[str, str]
    """Files that it wrote beside the record: name -> SHA-256 (hex)."""


class MadeKeys(Protocol):
    """Where the keys that a ceremony makes rest: of a `KeyStore` what it needs, for keys that may rest in several."""

    def open(self, name: KeyName) -> SigningKey: ...

    def generate(self, name: KeyName, algorithm: AlgorithmName) -> SigningKey: ...

    def names(self) -> Sequence[KeyName]: ...


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


@dataclass(frozen=True, slots=True)
class Room:
    """Where it is held, as the host says it."""

    machine: str = ""
    """A digest that names the machine; empty where it has no name."""
    interfaces: tuple[str, ...] = ()
    """The network interfaces that are up, loopback left out."""
    software: str = ""
    software_sha256: str = ""
    """Of every file of the program that runs."""


@dataclass(slots=True)
class Progress:
    """One run of one sheet: what is known so far, in the order of the acts."""

    sheet: Sheet
    periods: Mapping[IssuerId, Period]
    seeds: Mapping[str, str]
    issuers: dict[IssuerId, Issuer]
    crls: dict[IssuerId, Before] = field(default_factory=dict)


def no_destroyer(name: KeyName) -> Proof:
    """Where no key can be destroyed."""
    raise KeyUnavailable("cannot-destroy", f"The key {name} cannot be destroyed from here.", fix="Name its store in the credentials file.")


def no_custody(act: CustodyAct) -> Performed:
    """Where nobody is there to share a key."""
    raise KeyUnavailable("no-custody", f"Act {act.id} needs custodians at a terminal.", fix="Run it where they are.")


def files_of(sheet: Sheet) -> set[str]:
    """Every file that a run of it may write, its transcript aside: none of them may be there before."""
    wanted = {output_file(act, rehearsal=sheet.rehearsal) for act in sheet.acts}
    wanted |= {SHEET_FILE, *(f"{INPUT}{name}" for name in sheet.inputs or {}), *(f"{act.id}.key" for act in sheet.acts)}
    # What custodians' acts write beside their records: found there later, it counts as theirs.
    wanted |= {f"{act.id}.{ending}" for act in sheet.acts if isinstance(act, CustodyAct) for ending in ("quorum.json", "backup")}
    return wanted | {f"{issuer}.key" for act in sheet.acts if isinstance(act, SharesAct) for issuer in act.keys}


def draft_act(run: Progress, act: Act, profiles: Mapping[ProfileName, Profile], make: Callable[[KeyName, Any], SigningKey]) -> Drafted:
    """One act's octets; what later acts need of it is kept in the run."""
    period, rehearsal = run.periods[act.id], run.sheet.rehearsal
    if isinstance(act, StatementAct):
        return draft_statement(act, period, run.issuers, rehearsal=rehearsal)
    if isinstance(act, RootCrlAct):
        before = run.crls.get(act.issuer, Before())
        drafted = draft_crl(act, period, run.issuers[act.issuer], before=before, rehearsal=rehearsal)
        assert drafted.after is not None, "a CRL says what must follow it"
        run.crls[act.issuer] = drafted.after
        return drafted
    spki = given_key(act, run.issuers)
    if spki is None:
        assert isinstance(act, RootAct | IntermediateAct), "all others certify a key that is there"
        spki = make(KeyName(act.id), act.algorithm).spki
    seed = bytes.fromhex(run.seeds[act.id])
    serial = Serial(make_serial(seed[:SEED_OCTETS], seed[SEED_OCTETS:]))
    return draft_certificate(act, period, serial=serial, spki=spki, issuers=run.issuers, profiles=profiles, rehearsal=rehearsal)


def trial(
    sheet: Sheet, periods: Mapping[IssuerId, Period], *, seeds: Mapping[str, str], profiles: Mapping[ProfileName, Profile], keys: MadeKeys
) -> tuple[Drafted, ...]:
    """Draft and lint every act with throw-away keys.

    Raises:
        Broken, Misconfigured, Unacceptable, Malformed: a draft cannot be made, or fails the lint.
    """
    check_keys_used_once(sheet.acts, sheet.issuers)
    run = Progress(sheet, periods, seeds, {known.id: known_issuer(known) for known in sheet.issuers})
    drafts: list[Drafted] = []
    for act in sheet.acts:
        try:
            drafted = draft_act(run, act, profiles, keys.generate)
        except Unacceptable as error:
            if f"Act {act.id}" in error.what:
                raise
            raise Unacceptable(error.code, f"Act {act.id}: {error.what}", why=error.why, fix=error.fix) from None
        drafts.append(drafted)
        if isinstance(act, RootAct):
            signature = keys.open(KeyName(act.id)).sign(drafted.tbs)
            run.issuers[act.id] = root_issuer(act, assemble(drafted.tbs, drafted.algorithm, signature))
    return tuple(drafts)
