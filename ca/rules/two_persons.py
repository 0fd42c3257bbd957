"""Grave acts, and the two persons that they need: who may ask, who may answer, and whether what was signed counts. Ring 1: pure.

    proposal = a message that one operator signs: the act, the exact request as canonical JSON, how long it holds
    approval = a message that another person signs with another key: the SHA-256 of the proposal's message

What the database says of either is never enough: `counted` finds all of it out again from the signed octets, when the act is done, by the process
that does it. What an exact request holds stands in `SUBJECTS`. Knows no database, no clock and no socket.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Final

from ca.der.algorithms import cached_public_key, verify
from ca.der.certificate import read_certificate
from ca.errors import Conflict, Denied, FleetcaError, Malformed, Misconfigured, NotFound, Unacceptable
from ca.model import (
    Certificate,
    Digest,
    GraveAct,
    Operator,
    OperatorName,
    Proposal,
    ProposalState,
    Reason,
    Statement,
    UnixTime,
)
from ca.rules import renewal
from ca.rules.caps import Power, conflict, powers_of
from ca.rules.grant import OPERATOR, operator_of
from ca.rules.leaf import canonical
from ca.rules.message import WINDOW, Act, Message, digest_of, read_message, signed_octets
from ca.rules.window import date

ALWAYS: Final = frozenset({GraveAct.revive, GraveAct.crl_override, GraveAct.demand})
"""What needs two persons whatever the settings say."""
IN_PARTS: Final = frozenset({GraveAct.mass_revocation, GraveAct.crl_override})
"""What is done by many requests, each of which counts once, or by one that changes nothing when it comes again."""
SHORTEST: Final = 60
LONGEST: Final = 30 * 86400
"""Seconds from a proposal's signing to its end."""
LONGEST_SUBJECT: Final = 4096
LONGEST_WORDS: Final = 200

SUBJECTS: Final[Mapping[GraveAct, frozenset[str]]] = {
    GraveAct.ca_certificate: frozenset({"transcript_sha256"}),
    GraveAct.profile: frozenset({"profile", "digest"}),
    GraveAct.mass_revocation: frozenset({"root", "requests", "certificates", "reason", "invalid_from"}),
    GraveAct.revive: frozenset({"device"}),
    GraveAct.waive_wipe: frozenset({"device"}),
    GraveAct.operator: frozenset({"operator", "person", "roles", "spki_sha256"}),
    GraveAct.crl_override: frozenset({"issuer", "shard", "number", "tbs_sha256"}),
    GraveAct.demand: frozenset({"acts", "approvers", "mass_revocation"}),
    GraveAct.review: frozenset({"first_day", "last_day", "evidence_sha256"}),
    GraveAct.restore: frozenset(
        {"journal_records", "journal_sha256", "database_leaves", "database_root", "database_change", "published_sha256", "accept_clock"}
    ),
}
"""The fields of each act's exact request."""

_OPEN: Final = frozenset({ProposalState.open, ProposalState.approved})


@dataclass(frozen=True, slots=True)
class Shown:
    """An operator's certificate, as the record knows it now."""

    der: bytes
    operator: OperatorName
    revoked: bool
    """For another reason than that another one has taken its place."""


@dataclass(frozen=True, slots=True)
class Hand:
    """Who signed, as the record knows them now."""

    shown: Shown | None
    operator: Operator | None


def shown(record: Certificate | None) -> Shown | None:
    """A certificate on record as what an operator showed; None where it is nobody's of them."""
    name = None if record is None else operator_of(record.device)
    if record is None or record.der is None or name is None or record.profile != OPERATOR:
        return None
    superseded = record.revocation is not None and record.revocation.reason is Reason.superseded
    return Shown(record.der, name, renewal.revoked(record) and not superseded)


# ---- What is asked --------------------------------------------------------------------------------------------------


def subject(act: GraveAct, **fields: object) -> str:
    """The one text of an exact request."""
    assert fields.keys() == SUBJECTS[act], "a request has its act's fields"
    return canonical(fields).decode()


def read_subject(act: GraveAct, text: str) -> dict[str, Any]:
    """The fields of an exact request.

    Raises:
        Malformed: it is not in its one form, or has other fields than its act (`proposal-subject`).
    """
    try:
        document = json.loads(text) if len(text) <= LONGEST_SUBJECT else None
        if isinstance(document, dict) and document.keys() == SUBJECTS[act] and canonical(document).decode() == text:
            return document
    except (ValueError, TypeError, RecursionError):
        pass
    raise Malformed(
        "proposal-subject",
        f"This is not the exact request of the act {act.value}.",
        why=f"It is canonical JSON with {', '.join(sorted(SUBJECTS[act]))}, at most {LONGEST_SUBJECT} octets.",
    )


def act_of(message: Message) -> GraveAct:
    """The act that a message proposes.

    Raises:
        Malformed: there is none of that name (`bad-message`).
    """
    word = "" if message.proposal is None else message.proposal[0]
    try:
        return GraveAct(word)
    except ValueError:
        raise Malformed(
            "bad-message", "The signed message cannot be read.", why=f"`grave` is one of {', '.join(each.value for each in GraveAct)}."
        ) from None


def proposed(message: Message, asked: Statement, operator: Operator) -> Proposal:
    """The proposal that a message makes.

    Raises:
        Malformed: see `act_of` and `read_subject`; or its lifetime or words are beyond the limits (`proposal-limits`).
    """
    act = act_of(message)
    assert message.proposal is not None, "act_of sees to it"
    _, text, lifetime, words = message.proposal
    read_subject(act, text)
    if not SHORTEST <= lifetime <= LONGEST or not _fit(words) or not words.strip():
        raise Malformed(
            "proposal-limits",
            "A proposal has a reason and an end.",
            why=f"The reason has at most {LONGEST_WORDS} characters, the lifetime {SHORTEST} to {LONGEST} seconds.",
        )
    return Proposal(
        request=digest_of(asked.message.payload),
        tenant=operator.tenant,
        act=act,
        subject=text,
        reason=words,
        asked=asked,
        expires=message.issued_at + lifetime,
    )


def _fit(words: str) -> bool:
    return len(words) <= LONGEST_WORDS and words.isprintable()


def certifying(operator: Operator, spki_sha256: Digest) -> str:
    """The exact request that an operator gets a certificate for this key."""
    return subject(
        GraveAct.operator, operator=operator.name, person=operator.who, roles=sorted(operator.roles), spki_sha256=spki_sha256.hex()
    )


# ---- What is answered -----------------------------------------------------------------------------------------------


def answered(found: Proposal, said: Statement, words: str, *, approvers: int, now: UnixTime) -> Proposal:
    """The proposal with one more statement. Who asked may take it back by refusing it. The same again changes nothing.

    Raises:
        Conflict: it is over (`approval-expired`, `approval-used`), or decided (`approval-decided`).
        Denied: who asked approves (`approval-self`), the same person under another name (`approval-same-person`).
        Malformed: a refusal without a reason, or one that is too long (`approval-reason`).
    """
    if not _fit(words) or (not said.approve and not words.strip()):
        raise Malformed("approval-reason", f"A refusal has a reason, and no reason is longer than {LONGEST_WORDS} characters.")
    if any(one.operator == said.operator and one.approve is said.approve for one in found.answers):
        return found
    if found.state is ProposalState.used:
        raise Conflict("approval-used", "The request was approved and done already.", fix="To do it again, ask for it again.")
    if found.state not in _OPEN:
        raise Conflict("approval-decided", f"The request is {found.state.value} already.", why=found.words)
    if now >= found.expires:
        raise Conflict("approval-expired", "The request is over.", why=f"It waited until {date(found.expires)}.")
    own = said.operator == found.asked.operator
    if not said.approve:
        state = ProposalState.withdrawn if own else ProposalState.refused
        return replace(found, state=state, answers=(*found.answers, said), words=words, ended_at=now)
    if own:
        raise Denied("approval-self", "Nobody approves what they ask for.", fix="Another person approves it.")
    if same_person(said.person, found.asked.person):
        raise _same_person(found.asked, said)
    answers = (*found.answers, said)
    approved = {person_of(one.person) for one in answers if one.approve}
    return replace(found, answers=answers, state=ProposalState.approved if len(approved) >= approvers else ProposalState.open)


def _same_person(one: Statement, other: Statement) -> Denied:
    return Denied(
        "approval-same-person",
        "Two persons are needed, and this is one.",
        why=f"{one.operator} and {other.operator} are both {other.person}.",
        fix="Another person approves it.",
    )


# ---- What counts ----------------------------------------------------------------------------------------------------


def counted(found: Proposal, hand: Callable[[Statement], Hand], *, deployment: str, approvers: int, now: UnixTime) -> None:
    """Whether so many other persons approved exactly this, by keys of their own that are still theirs. Everything is found out anew.

    Raises:
        Denied: `approval-damaged`: a signature, a name or a time does not hold; `approval-of-another`: it names another request;
            `approval-hand-gone`: who signed was disabled or revoked, or lost the role; `approval-same-person`, `approval-same-key`,
            `approval-self`; `approvals-too-few`; `approval-expired`.
    """
    if now >= found.expires:
        raise Denied("approval-expired", "The approval is over.", why=f"It held until {date(found.expires)}.")
    approvals = [one for one in found.answers if one.approve]
    keys = [_vouched(one, hand(one), power=Power.authorize, deployment=deployment, tenant=found.tenant) for one in approvals]
    asking = _vouched(found.asked, hand(found.asked), power=Power.propose, deployment=deployment, tenant=found.tenant)
    message = read_message(found.asked.message.payload)
    if (
        digest_of(found.asked.message.payload) != found.request
        or message.act is not Act.propose
        or message.proposal is None
        or message.proposal[:2] != (found.act.value, found.subject)
        or message.issued_at + message.proposal[2] != found.expires
    ):
        raise _damaged("The proposal says something else than was signed.")
    for one in approvals:
        given = read_message(one.message.payload)
        if given.act is not Act.approve or given.decision is None or not given.decision[1]:
            raise _damaged("What was signed is no approval.")
        if given.decision[0] != found.request.hex():
            raise Denied("approval-of-another", "An approval is of another request.", why=f"It names {given.decision[0][:16]}.")
    distinct([(found.asked, asking), *zip(approvals, keys, strict=True)])
    if len(approvals) < approvers:
        raise Denied(
            "approvals-too-few",
            f"{approvers} other persons must approve it.",
            why=f"{len(approvals)} did.",
            fix="Have another one approve it.",
        )


def distinct(signed: Sequence[tuple[Statement, bytes]]) -> None:
    """Whether all of them are other persons with other keys (SubjectPublicKeyInfo).

    Raises:
        Denied: `approval-self`, `approval-same-person`, `approval-same-key`.
    """
    for (one, key), (other, other_key) in combinations(signed, 2):
        if one.operator == other.operator:
            raise Denied("approval-self", "Nobody approves what they ask for.", why=f"{one.operator} signed twice.")
        if same_person(one.person, other.person):
            raise _same_person(one, other)
        if key == other_key:
            raise Denied(
                "approval-same-key",
                "Two persons are needed, and this is one key.",
                why=f"{one.operator} and {other.operator} signed with the same key.",
                fix="Each operator makes a key of their own.",
            )


def _vouched(said: Statement, hand: Hand, *, power: Power, deployment: str, tenant: str) -> bytes:
    """The key that signed a statement, once that was verified and its holder is still who may."""
    try:
        signing = read_certificate(said.message.certificate)
        verify(cached_public_key(signing.spki), said.message.signature, signed_octets(said.message.payload))
        message = read_message(said.message.payload)
    except FleetcaError as error:
        raise _damaged(f"What {said.operator} signed does not hold. {error.what}") from None
    known, operator = hand.shown, hand.operator
    if message.audience != deployment or abs(message.issued_at - said.at) > WINDOW[message.act]:
        raise _damaged(f"What {said.operator} signed is of another deployment or time.")
    if known is None or known.der != signing.der or known.operator != said.operator:
        raise _damaged(f"The certificate is not one of the operator {said.operator}.")
    if operator is None or operator.name != said.operator or operator.who != said.person or operator.tenant != tenant:
        raise _damaged(f"The operator {said.operator} is not who it was.")
    if known.revoked or operator.disabled_at is not None or power not in powers_of(operator):
        raise Denied(
            "approval-hand-gone",
            f"What the operator {said.operator} signed counts no more.",
            why="The operator was disabled, the certificate revoked, or the role does not allow it.",
            fix="Ask for it again, and have somebody else sign.",
        )
    return signing.spki


def _damaged(why: str) -> Denied:
    return Denied("approval-damaged", "An approval does not hold.", why=why, fix="Ask for it again; and find out who changed the record.")


def used(found: Proposal, *, now: UnixTime) -> Proposal:
    """Once it is done, it is done."""
    return replace(found, state=ProposalState.used, ended_at=now)


# ---- What is told ---------------------------------------------------------------------------------------------------


def missing(act: GraveAct, found: Sequence[Proposal], operators: Iterable[Operator], *, now: UnixTime) -> FleetcaError:
    """Why an act is not done, and how to go on.

    Args:
        found: all proposals for exactly this.
    """
    last = max(found, key=lambda one: one.asked.at, default=None)
    name = "" if last is None else last.request.hex()[:16]
    if last is not None and last.state in _OPEN and now < last.expires:
        return Denied(
            "two-persons-needed",
            f"The act {act.value} waits for another person's approval.",
            why=f"{last.asked.operator} asked for it; request {name}.",
            fix=_add(operators)
            or f"A security officer looks at it and approves: fleetca approvals show {name}; fleetca approvals approve {name}",
        )
    why = "Nobody asked for exactly this."
    if last is not None and last.state is ProposalState.used:
        return Denied(
            "approval-used", "What was approved was done already.", why=f"Request {name}.", fix="To do it again, ask for it again."
        )
    if last is not None and last.state in _OPEN:
        return Denied("approval-expired", "The approval is over.", why=f"Request {name} held until {date(last.expires)}.", fix="Ask again.")
    if last is not None:
        why = f"Request {name} was {last.state.value}: {last.words}"
    return Denied(
        "two-persons-needed",
        f"The act {act.value} needs two persons.",
        why=why,
        fix=_add(operators) or f"Ask for it by an operator's key: fleetca approvals request {act.value} --help",
    )


def _add(operators: Iterable[Operator]) -> str:
    if any(Power.authorize in powers_of(one) for one in operators):
        return ""
    return "There is no second person yet. Add one: fleetca operators add NAME --role security-officer --csr FILE"


def not_found() -> NotFound:
    return NotFound("no-such-approval", "There is no such request.", why="Or several begin so.", fix="List them: fleetca approvals list")


# ---- Persons ----------------------------------------------------------------------------------------------------------


def person_of(name: str) -> str:
    """A person's name as it is compared: however it is written, in capitals, with other spaces, in another form of the same letters (UAX #15, NFKC)."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def same_person(one: str, other: str) -> bool:
    return person_of(one) == person_of(other)


# ---- Roles ----------------------------------------------------------------------------------------------------------


def admitted(new: Operator, others: Iterable[Operator]) -> None:
    """Whether an operator may have its roles, beside those that the same person has under other names.

    Raises:
        Unacceptable: two of them exclude each other (`exclusive-roles`).
    """
    same = [one for one in others if one.name != new.name and one.disabled_at is None and same_person(one.who, new.who)]
    pair = conflict([*new.roles, *(role for one in same for role in one.roles)])
    if pair is not None:
        names = ", ".join(sorted({new.name, *(one.name for one in same)}))
        raise Unacceptable(
            "exclusive-roles",
            f"{new.who} cannot be {pair[0]} and {pair[1]} at once.",
            why=f"Who does something does not also approve or audit it; the names are {names}.",
            fix="Give one of the roles to another person.",
        )


def at_load(operators: Sequence[Operator]) -> tuple[Misconfigured, ...]:
    """What is wrong with the operators on record: each that holds roles which exclude each other, by name."""
    wrong = []
    for one in operators:
        if one.disabled_at is None:
            try:
                admitted(one, operators)
            except Unacceptable as error:
                wrong.append(Misconfigured(error.code, f"The operator {one.name} is refused: {error.what}", why=error.why, fix=error.fix))
    return tuple(wrong)
