"""The people of a ceremony: who may be what, and what their signatures are over (REQ-KEY-016, REQ-KEY-067). Ring 1: pure.

    signature = by the person's own key, over CONTEXT || canonical JSON of the fields of `statement`

The statement names the ceremony by the hash of its first line (which holds fresh random octets), the stage, the act and the digest of what
will be signed, so that a confirmation counts once, for these octets, in this ceremony.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from itertools import combinations
from typing import Any, Final

from ca.der.algorithms import load_public_key, verify
from ca.errors import FleetcaError, Misconfigured, Unacceptable
from ca.model import Digest
from ca.rules import transcript
from ca.rules.ceremony import DestroyAct, Participant, SharesAct, Sheet, StatementAct
from ca.rules.leaf import canonical
from ca.rules.quorum import judge
from ca.rules.transcript import Transcript

CONTEXT: Final = b"fleetca ceremony confirmation v1\0"

ROLES: Final[Mapping[str, str]] = {
    "administrator": "leads the ceremony and reads the script",
    "operator": "types the commands",
    "custodian": "keeps a share, a token or a passphrase",
    "auditor": "checks for the organization that the script is followed",
    "witness": "checks for others that the script is followed",
}

EXCLUSIVE: Final = frozenset(
    frozenset(pair)
    for pair in (
        ("administrator", "custodian"),
        ("administrator", "auditor"),
        ("administrator", "witness"),
        ("operator", "auditor"),
        ("operator", "witness"),
        ("custodian", "auditor"),
        ("custodian", "witness"),
    )
)
"""Who does something does not also watch it, and who leads holds no share."""

UNKNOWN_KEY: Final = Digest(bytes(32))
"""In an example sheet, where people will write the digest of their keys."""

OPENING: Final = "opening"
ACT: Final = "act"
CLOSING: Final = "closing"


def check_people(sheet: Sheet) -> None:
    """Whether these people may hold this ceremony.

    Raises:
        Misconfigured: a role is not known (`unknown-role`), one person has two roles that exclude each other (`exclusive-roles`), one key
            is two people's or one person has two keys (`role-key-shared`), a role that must confirm is nobody's (`missing-role`), or a
            destruction has fewer than two witnesses (`too-few-witnesses`).
    """
    for each in sheet.participants:
        _known(each.role)
    for one, other in combinations(sheet.participants, 2):
        _check_pair(one, other)
    present = {each.role for each in sheet.participants}
    for act in sheet.acts:
        wanted = sheet.confirm if act.confirm is None else act.confirm
        for role in wanted:
            _known(role)
            if role not in present:
                raise Misconfigured(
                    "missing-role",
                    f"Act {act.id} must be confirmed by a {role}, and the sheet names none.",
                    fix=f'Add [[roles]] with role = "{role}", the person and the digest of their key.',
                )
        if isinstance(act, SharesAct):
            _check_custodians(act, sheet)
        if isinstance(act, DestroyAct):
            watching = {_plain(each.person) for each in sheet.confirmed_by(act) if each.role in {"witness", "auditor"}}
            if len(watching) < 2:
                raise Misconfigured(
                    "too-few-witnesses",
                    f"Act {act.id} destroys a key before {len(watching)} witnesses; at least two must confirm it.",
                    why="Nobody can look again afterwards.",
                    fix="Name two persons with the roles witness or auditor, and let both roles confirm the act.",
                )

    if not sheet.participants and all(isinstance(act, StatementAct) for act in sheet.acts):
        raise Misconfigured(
            "missing-role",
            "No CA key is used in this ceremony, and no person is named: nobody could sign its transcript.",
            fix="Name the people under [[roles]].",
        )


def _check_custodians(act: SharesAct, sheet: Sheet) -> None:
    present = {each.person for each in sheet.participants if each.role == "custodian"}
    for name in act.custodians:
        if name not in present:
            raise Misconfigured(
                "missing-role",
                f"Act {act.id} makes a share for {name}, who is no custodian of this ceremony.",
                why="A share is shown to its custodian and nobody else.",
                fix=f'Add [[roles]] with role = "custodian" and person = "{name}".',
            )
    judge(act.id, act.custodians, act.threshold)


def _known(role: str) -> None:
    if role not in ROLES:
        raise Misconfigured("unknown-role", f"There is no role {role!r} in a ceremony.", fix=f"Roles: {', '.join(ROLES)}.")


def _plain(person: str) -> str:
    return " ".join(person.casefold().split())


def _check_pair(one: Participant, other: Participant) -> None:
    same_person = _plain(one.person) == _plain(other.person)
    same_key = one.key_sha256 == other.key_sha256 and one.key_sha256 != UNKNOWN_KEY
    if same_person and frozenset((one.role, other.role)) in EXCLUSIVE:
        raise Misconfigured(
            "exclusive-roles",
            f"{one.person} cannot be {one.role} and {other.role} in one ceremony.",
            why="Who does something does not also watch it, and who leads holds no share.",
            fix="Give one of the two roles to somebody else.",
        )
    if same_person and one.role == other.role:
        raise Misconfigured("exclusive-roles", f"{one.person} stands twice as {one.role}.", fix="Take one of the two out.")
    if same_key is not same_person and UNKNOWN_KEY not in (one.key_sha256, other.key_sha256):
        raise Misconfigured(
            "role-key-shared",
            f"{one.person} has two keys." if same_person else f"{one.person} and {other.person} have the same key.",
            why="A confirmation must be one person's, by one key.",
            fix="Write the digest of each person's own key: fleetca ceremony role-key",
        )


def check_keys_known(sheet: Sheet) -> None:
    """Before a real run, every person's key is written down.

    Raises:
        Misconfigured: one is not (`role-key-missing`).
    """
    for each in sheet.participants:
        if each.key_sha256 == UNKNOWN_KEY:
            raise Misconfigured(
                "role-key-missing",
                f"The sheet does not say which key is that of {each.person} ({each.role}).",
                fix="Make one with fleetca ceremony role-key, and write its SHA-256 into the sheet.",
            )


def statement(*, ceremony: str, stage: str, act: str | None, role: str, person: str, tbs_sha256: str) -> bytes:
    """What a person's key signs. `ceremony` is the hash of the transcript's first line; in the closing, `tbs_sha256` is that of its last."""
    fields: dict[str, Any] = {"ceremony": ceremony, "stage": stage, "act": act, "role": role, "person": person, "tbs_sha256": tbs_sha256}
    return CONTEXT + canonical(fields)


def check_signature(message: bytes, signature: bytes, spki: bytes, *, who: str) -> None:
    """Whether a confirmation is that person's.

    Raises:
        Unacceptable: it is not (`confirmation-forged`).
    """
    try:
        verify(load_public_key(spki), signature, message)
    except FleetcaError as error:
        raise Unacceptable(
            "confirmation-forged",
            f"A confirmation of {who} does not hold.",
            why=error.what,
            fix="Take the transcript from another copy; if no copy holds, the outputs must not be used.",
        ) from None


def check_confirmed(sheet: Sheet, before: Transcript) -> None:
    """Whether what counts as somebody's yes in a transcript is signed by the key that the sheet names.

    A transcript that is not sealed yet is only a chain of hashes: whoever had the folder during a stop could have added lines.

    Raises:
        Unacceptable: it is not (`confirmation-forged`), or its people are others than the sheet's (`transcript-broken`).
    """
    begin = before.records[0]
    wanted = {(each.role, each.person): each.key_sha256 for each in sheet.participants}
    keys = {(each["role"], each["person"]): transcript.octets_of(each["spki"]) for each in begin.fields["people"]}
    if {who: sha256(spki).digest() for who, spki in keys.items()} != wanted:
        raise _not_ours("Its people, or their keys, are not those of the sheet.")
    for record in before.of("confirmed"):
        fields = record.fields
        if not wanted and "role" not in fields:
            continue
        who = fields.get("role"), fields.get("person")
        if who not in keys:
            raise _not_ours(f"Line {record.seq + 1} is a confirmation of nobody in the sheet.")
        message = statement(
            ceremony=begin.digest.hex(),
            stage=fields["stage"],
            act=fields["act"],
            role=fields["role"],
            person=fields["person"],
            tbs_sha256=fields["tbs_sha256"],
        )
        check_signature(message, transcript.octets_of(fields["signature"]), keys[who], who=f"{who[1]} ({who[0]})")


def _not_ours(why: str) -> Unacceptable:
    return Unacceptable(
        "transcript-broken",
        "The transcript in this folder is not one that this ceremony wrote.",
        why=why,
        fix="Take the folder from another copy, or begin again in an empty one.",
    )
