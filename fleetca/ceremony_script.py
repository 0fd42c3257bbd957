"""The printable script of a ceremony: what each person does, with room for what they write by hand. Edge: text only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

from ca.ceremony_plan import Plan, PlannedAct
from ca.rules.ceremony_roles import ROLES, UNKNOWN_KEY
from ca.rules.ceremony_words import words
from ca.rules.window import date
from config.sheet import IntermediateAct, RootAct, ShareReissueAct, SharesAct, Sheet
from fleetca.paper import Block, Column, Heading, Lines, Octets, Paper, Table, Text

_FACTS: Final = (Column("", 18), Column("", 82))
_STEPS: Final = (
    Column("", 8),
    Column("Activity", 32),
    Column("Expected hash", 21, code=True),
    Column("Real hash", 21, code=True),
    Column("Initials", 9),
    Column("Time", 9),
)


def script(plan: Plan, form: Sheet) -> Paper:
    """The whole script."""
    sheet = plan.sheet
    digest = sheet.digest
    facts = [
        ("Sheet", f"{form.file.name}, SHA-256 {digest.hex()}"),
        ("Sheet in words", words(digest)),
        ("Planned for", date(plan.at)),
        ("Place", sheet.place or "_" * 30),
        ("Lint", plan.lint),
    ]
    people = [
        (f"{each.role}: {ROLES[each.role]}", each.person, "" if each.key_sha256 == UNKNOWN_KEY else each.key_sha256.hex(), "", "")
        for each in sheet.participants
    ]
    opening = [
        "The administrator reads the SHA-256 of this sheet aloud from the screen; everybody compares it with this page.",
        *(f"{each.person} ({each.role}) confirms the sheet with their own key." for each in sheet.participants),
    ]
    signing = [f"{each.person} ({each.role}) signs the transcript with their own key." for each in sheet.participants]
    blocks: list[Block] = [
        Heading(f"Ceremony script: {sheet.name}", 1),
        *([Text(sheet.about)] if sheet.about else []),
        Table(_FACTS, facts),
        *([Text(f"Still missing: {'; '.join(plan.missing)}.", strong=True)] if plan.missing else []),
        *(Text(each, strong=True) for each in plan.warnings),
        Heading("1. People"),
        Table(
            (
                Column("Role", 30),
                Column("Person", 16),
                Column("Key (SHA-256)", 22, code=True),
                Column("Identity checked, by", 16),
                Column("Signature", 16),
            ),
            people or [("",) * 5] * 3,
        ),
        Heading("2. Equipment"),
        _table(
            ("What", "Serial number", "Tamper-evident bag, before", "Seal intact", "Bag, after"),
            [(each.what, each.serial, each.bag, "", "") for each in form.equipment] or [("",) * 5] * 4,
        ),
        Heading("3. Before the first command"),
        _steps(_PREPARATION, expected={4: digest.hex()}),
        Heading("4. Opening"),
        _steps(opening, expected={0: digest.hex()}),
        Heading("5. Acts", new_page=True),
        *(block for number, act in enumerate(plan.acts, start=1) for block in _act(number, act)),
        Heading("6. Closing", new_page=True),
        _steps([*signing, *_CLOSING]),
        Heading("7. Keys and shares"),
        _table(
            ("Key or share", "Module, its FIPS 140-3 certificate", "SHA-256 of the public key", "Kept by", "Bag, signature"),
            [(what, "", "", who, "") for what, who in _kept(form)] or [("",) * 5] * 2,
        ),
        Heading("8. Deviations from this script"),
        _table(("Time", "Step", "What happened, why, and who decided"), [("",) * 3] * 6, shares=(12, 12, 76)),
        Heading("9. Copies"),
        _table(("Copy", "On which medium", "Given to, date", "Signature"), [("",) * 4] * 4),
        Heading("10. Sign-off"),
        _table(
            ("Role", "Name", "Date and time (UTC)", "Signature"),
            [(each.role, each.person, "", "") for each in sheet.participants] or [("",) * 4] * 4,
        ),
        Heading("Annex: the octets to be signed", new_page=True),
        Text(
            "Drafted with throw-away keys. Marked is what does not exist before the ceremony, in its final length; everything else is signed "
            "as it stands here."
        ),
        *(block for act in plan.acts for block in (Heading(act.title, 3), _octets(act))),
        Heading("Annex: the sheet"),
        Lines(sheet.octets.decode()),
    ]
    return Paper(f"Ceremony script {sheet.name}", f"{sheet.name}: sheet SHA-256 {digest.hex()}", blocks)


_PREPARATION: Final = (
    "The machine has no network: cables out, radios off. It was started from the medium of the kit.",
    "Its clock was set to UTC from: ____________________ ; deviation: ________ s.",
    "Two people read the digest of the kit aloud and compare it with the paper (sha256sum SHA256SUMS).",
    "Every file of the kit is checked (sha256sum --check SHA256SUMS), before anything of it runs.",
    "Two people compare the SHA-256 of the sheet.",
    "The random generator is noted: the kernel (uname -r) and its source of entropy, and the self-test of each module that makes a key.",
    "Recording is on; the camera sees the screen, the table and the hands.",
)
_CLOSING: Final = (
    "The transcript is sealed; the SHA-256 of its last line is noted here.",
    "fleetca ceremony verify agrees on a second machine.",
    "The SHA-256 fingerprint of each root is noted here and signed by everybody.",
    "Keys and shares go into bags; their numbers stand under 7. Machine and media go back into theirs; the numbers stand under 2.",
    "Temporary media are destroyed; who saw it signs here.",
    "The recording's SHA-256 is noted here.",
)


def _kept(form: Sheet) -> Iterable[tuple[str, str]]:
    """Every key that the ceremony makes, and every share with its custodian; never what is in them."""
    for act in form.acts:
        match act:
            case RootAct() | IntermediateAct(csr=None):
                yield f"key of {act.id}, {act.algorithm}", ""
            case SharesAct() | ShareReissueAct():
                for number, custodian in enumerate(act.custodians, start=1):
                    yield f"share {number} of {len(act.custodians)}, {act.id}", custodian
            case _:
                pass


def _act(number: int, act: PlannedAct) -> Iterable[Block]:
    # What is known to the last octet has a digest that people can compare.
    known = {} if act.placeholders else {act.confirm_step: hashlib.sha256(act.tbs).hexdigest()}
    yield Heading(f"5.{number} {act.title}", 3, new_page=number > 1)
    yield Table(_FACTS, [*act.lines, ("writes", act.file)])
    yield _steps(act.steps, expected=known, prefix=f"5.{number}.")


def _octets(act: PlannedAct) -> Octets:
    runs: list[tuple[str, bool]] = []
    at = 0
    for each in act.placeholders:
        runs += [(act.tbs[at : each.at].hex(), False), (f"{each.what}: {each.length} octets", True)]
        at = each.at + each.length
    return Octets([*runs, (act.tbs[at:].hex(), False)])


def _steps(activities: Iterable[str], *, expected: Mapping[int, str] | None = None, prefix: str = "") -> Table:
    known = expected or {}
    return Table(_STEPS, [(f"{prefix}{at + 1}", activity, known.get(at, ""), "", "", "") for at, activity in enumerate(activities)])


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]], *, shares: tuple[int, ...] | None = None) -> Table:
    return Table([Column(name, share) for name, share in zip(head, shares or (1,) * len(head), strict=True)], rows)
