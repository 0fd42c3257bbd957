"""What a sheet would do, before anything is made: every step in plain words, the lint's verdict, the octets with what is not known yet marked.

Nothing is guessed: each act is drafted with throw-away keys by the very functions that the run uses, so every length is final. Octets that
come from such a key, from a serial number that will be drawn, or from the day of the ceremony, are marked; all others are what will be
signed. Ring 4: knows rules and ports; no files, no terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ca.ceremony_steps import MadeKeys, trial
from ca.der import extensions, writer
from ca.der.algorithms import kind_of, load_public_key
from ca.errors import FleetcaError
from ca.model import IssuerId, Profile, ProfileName, UnixTime
from ca.ports import Chance
from ca.rules import ceremony_roles as roles
from ca.rules.algorithm_dates import WHY, Outlook, outlook
from ca.rules.ceremony import (
    Act,
    BackupAct,
    CrossAct,
    CustodyAct,
    DestroyAct,
    DrillAct,
    IntermediateAct,
    LinkAct,
    Participant,
    Period,
    RekeyAct,
    ResponderAct,
    RootAct,
    RootCrlAct,
    SharesAct,
    Sheet,
)
from ca.rules.ceremony_dates import accept
from ca.rules.ceremony_drafts import SEED_OCTETS, Drafted, Lines
from ca.rules.window import date

_A_DAY: Final = 86400
_CONFIRM: Final = "Confirm"


@dataclass(frozen=True, slots=True, order=True)
class Placeholder:
    """Octets of a draft that are not known before the ceremony."""

    at: int
    length: int
    what: str


@dataclass(frozen=True, slots=True)
class PlannedAct:
    """One act, as it will be done."""

    act: IssuerId
    title: str
    steps: tuple[str, ...]
    """In plain words, in order."""
    confirm_step: int
    """The one of `steps` where people compare what they see."""
    lines: Lines
    file: str
    confirm: tuple[Participant, ...]
    tbs: bytes
    placeholders: tuple[Placeholder, ...]
    """In order; they do not overlap."""

    def marked(self) -> str:
        """The octets in hex, what is not known yet as `<what: N octets>`."""
        text, at = "", 0
        for each in self.placeholders:
            text += self.tbs[at : each.at].hex() + f"<{each.what}: {each.length} octets>"
            at = each.at + each.length
        return text + self.tbs[at:].hex()


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole ceremony, before it is held."""

    sheet: Sheet
    at: UnixTime
    acts: tuple[PlannedAct, ...]
    missing: tuple[str, ...]
    """What must be there on the day and is not yet."""
    warnings: tuple[str, ...]
    """What is allowed, and should have been meant."""
    lint: str


def plan(
    sheet: Sheet,
    *,
    now: UnixTime,
    profiles: Mapping[ProfileName, Profile],
    keys: MadeKeys,
    chance: Chance,
    absent: Mapping[str, str],
) -> Plan:
    """Say what a sheet would do.

    Args:
        sheet: the sheet; CSRs that are not there yet have stand-ins in it.
        now: the day for which it is planned.
        profiles: the CA and responder profiles.
        keys: forget what they make.
        chance: for serial numbers that are thrown away.
        absent: act -> the CSR that is not there yet.

    Raises:
        Misconfigured, Unacceptable, Malformed, Broken: the sheet is wrong, or a draft fails the lint.
    """
    periods = accept(sheet, profiles=profiles, now=now)
    roles.check_people(sheet)
    seeds = {str(act.id): chance.octets(SEED_OCTETS + 32).hex() for act in sheet.acts}
    drafts = trial(sheet, periods, seeds=seeds, profiles=profiles, keys=keys)
    later = _periods_on_another_day(sheet, profiles, now)
    unknown = _unknown_keys(sheet, drafts, absent)
    acts = tuple(
        PlannedAct(
            act.id,
            drafted.title,
            (steps := tuple(_steps(act, drafted, sheet, absent))),
            next(at for at, step in enumerate(steps) if step.startswith(_CONFIRM)),
            _lines(drafted, unknown),
            drafted.file,
            sheet.confirmed_by(act),
            drafted.tbs,
            _placeholders(act, drafted, periods[act.id], later.get(act.id), unknown),
        )
        for act, drafted in zip(sheet.acts, drafts, strict=True)
    )
    missing = [f"{file}, the CSR of act {act}" for act, file in absent.items()]
    missing += [f"the key of {each.person} ({each.role})" for each in sheet.participants if each.key_sha256 == roles.UNKNOWN_KEY]
    count = sum(1 for drafted in drafts if not drafted.is_statement)
    warnings = tuple(_too_long(sheet, drafts, absent))
    return Plan(sheet, now, acts, tuple(missing), warnings, f"All {count} drafts pass every rule.")


def _too_long(sheet: Sheet, drafts: tuple[Drafted, ...], absent: Mapping[str, str]) -> Iterator[str]:
    """CA certificates that are to be believed for longer than their keys count (REQ-KEY-060). Of what kind a key is that is not there yet, nobody knows."""
    for act, drafted in zip(sheet.acts, drafts, strict=True):
        if drafted.certificate is None or isinstance(act, ResponderAct) or str(act.id) in absent:
            continue
        kind = kind_of(load_public_key(drafted.spki))
        seen = outlook(kind, drafted.not_after)
        if seen is not Outlook.holds:
            yield f"The certificate of act {act.id} is for a key of kind {kind}, and is believed until {date(drafted.not_after)}. {WHY[seen]}"


def _periods_on_another_day(sheet: Sheet, profiles: Mapping[ProfileName, Profile], now: UnixTime) -> Mapping[IssuerId, Period]:
    """The dates if it were held a day later: those that differ follow from the day."""
    try:
        return accept(sheet, profiles=profiles, now=now + _A_DAY)
    except FleetcaError:
        return {}


def _unknown_keys(sheet: Sheet, drafts: tuple[Drafted, ...], absent: Mapping[str, str]) -> Mapping[bytes, str]:
    """SubjectPublicKeyInfo -> whose it will be, for keys that are stand-ins."""
    unknown: dict[bytes, str] = {}
    for act, drafted in zip(sheet.acts, drafts, strict=True):
        made = isinstance(act, RootAct) or (isinstance(act, IntermediateAct) and act.csr is None)
        source = str(act.id).rpartition("-")[0] if isinstance(act, ResponderAct) and str(act.id) not in absent else str(act.id)
        if made or str(act.id) in absent or source in absent:
            unknown.setdefault(drafted.spki, str(act.id))
    return unknown


def _placeholders(
    act: Act, drafted: Drafted, period: Period, later: Period | None, unknown: Mapping[bytes, str]
) -> tuple[Placeholder, ...]:
    wanted: list[tuple[bytes, str]] = []
    if drafted.certificate is not None:
        wanted.append((drafted.certificate.serial.to_bytes(20, "big"), "serial number"))
    for spki, whose in unknown.items():
        wanted += [(spki, f"public key of {whose}"), (extensions.key_identifier(spki), f"key identifier of {whose}")]
    found = [place for octets, what in wanted for place in _places(drafted.tbs, octets, what)]
    if drafted.is_statement:
        return tuple(sorted(found))
    start, end = writer.time(period.start), writer.time(period.end)
    at = drafted.tbs.find(start + end)
    names = ("thisUpdate", "nextUpdate") if isinstance(act, RootCrlAct) else ("notBefore", "notAfter")
    # Two octets of tag and length stay as they are.
    if later is None or later.start != period.start:
        found.append(Placeholder(at + 2, len(start) - 2, names[0]))
    if later is None or later.end != period.end:
        found.append(Placeholder(at + len(start) + 2, len(end) - 2, names[1]))
    return tuple(sorted(found))


def _lines(drafted: Drafted, unknown: Mapping[bytes, str]) -> Lines:
    """What people see, without the values that are thrown away."""
    lines = []
    for name, value in drafted.lines:
        if name == "serial number":
            lines.append((name, "20 octets, drawn at the ceremony"))
        elif name == "key" and drafted.spki in unknown:
            lines.append((name, f"{value.partition(',')[0]}, not there yet; its SHA-256 is noted at the ceremony"))
        else:
            lines.append((name, value))
    return tuple(lines)


def _places(tbs: bytes, octets: bytes, what: str) -> list[Placeholder]:
    found: list[Placeholder] = []
    at = tbs.find(octets)
    while at >= 0:
        found.append(Placeholder(at, len(octets), what))
        at = tbs.find(octets, at + len(octets))
    return found


def _steps(act: Act, drafted: Drafted, sheet: Sheet, absent: Mapping[str, str]) -> list[str]:
    steps = [_told(act)]
    if str(act.id) in absent:
        steps.append(f"Its CSR, {absent[str(act.id)]}, must be brought; a stand-in key has been drafted here.")
    if drafted.is_statement:
        what = "the statement of what will be done"
    else:
        what = "the octets to be signed"
        steps.append(f"The draft is checked against every rule, then {what} are shown with their SHA-256 and its words.")
    people = sheet.confirmed_by(act)
    if people:
        names = ", ".join(f"{each.person} ({each.role})" for each in people)
        steps.append(f"{_CONFIRM} {what}, each with their own key: {names}.")
    else:
        steps.append(f"{_CONFIRM} {what}: somebody at the terminal.")
    if isinstance(act, CustodyAct):
        steps.append(_HOW[type(act)])
    elif isinstance(act, DestroyAct):
        steps.append("The key is destroyed in its store, the store is asked for it again, and its answer is written down.")
    else:
        steps.append(f"The key of {drafted.signer} signs, and what it signed is read back by a second parser.")
    steps.append(f"{drafted.file} is written; its SHA-256 is noted.")
    return steps


def _told(act: Act) -> str:
    """What an act does, in one sentence."""
    match act:
        case RootAct():
            where = "where the credentials file says" if act.quorum is None else f"and sealed under the shares {act.quorum}"
            told = f"A new key of kind {act.algorithm} is made {where}, by the name {act.id}; it certifies itself."
        case IntermediateAct():
            key = f"a new key of kind {act.algorithm} made here" if act.csr is None else "the key of its CSR"
            told = f"{act.issuer} certifies {key} as an issuing CA."
        case RekeyAct():
            told = f"{act.issuer} certifies the new key of a CA that keeps its name, octet by octet."
        case CrossAct():
            told = f"{act.issuer} certifies the name and key of somebody else's CA, as its own certificate says them."
        case LinkAct():
            told = f"{act.signer} certifies the name and key of {act.subject}; it holds as long as both of them do."
        case ResponderAct():
            told = f"{act.issuer} lets the key of the CSR sign OCSP answers for what it issued."
        case RootCrlAct():
            before = f"the one of act {act.follows}" if act.follows else "the previous one" if act.previous else "none"
            told = f"{act.issuer} signs a CRL; the one before it: {before}. Number and entries follow from that."
        case DestroyAct():
            told = f"The private key of {act.issuer} is destroyed for good: {act.reason}"
        case SharesAct():
            again = "" if act.replaces is None else " Before that, a quorum of the set that it replaces gives its shares."
            told = f"A key is made that any {act.threshold} of {', '.join(act.custodians)} have together, and nobody alone.{again}"
        case BackupAct():
            told = f"The sealed key of {act.issuer} is encrypted to a quorum."
        case DrillAct():
            told = f"A quorum opens a backup, and the key in it is shown to be the one of {act.issuer}."
    return told


_HOW: Final[Mapping[type, str]] = {
    SharesAct: "Cameras are covered. Each custodian alone looks at the screen, copies their share to paper, and reads it back from the paper before the "
    "next one is shown.",
    BackupAct: "The backup is written; nobody needs to open it.",
    DrillAct: "Custodians give their shares; the key signs a test text, the certificate's key verifies it, and nothing of the key is written.",
}
