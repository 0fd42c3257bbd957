"""The life of a private key: SP 800-57 part 1 rev. 5, section 7, as a table. Ring 1: pure.

A private signature key goes from active to destroyed, never to deactivated: only its public half stays in use, for what was signed before.
Keys that unwrap go through deactivated, because what was wrapped must still be read. Both halves of a pair are suspended together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from ca.errors import Conflict, Denied, Malformed
from ca.model import KeyChange, KeyPurpose, KeyRecord, KeyState, UnixTime

_P, _A, _S, _DE, _C, _D = (
    KeyState.pre_activation, KeyState.active, KeyState.suspended, KeyState.deactivated, KeyState.compromised, KeyState.destroyed,
)  # fmt: skip

MOVES: Final[Mapping[KeyState, frozenset[KeyState]]] = {
    _P: frozenset({_A, _C, _D}),
    _A: frozenset({_S, _DE, _C, _D}),
    _S: frozenset({_A, _DE, _C, _D}),
    _DE: frozenset({_C, _D}),
    _C: frozenset({_D}),
    _D: frozenset(),
}
"""Every move that the standard knows."""

SIGNING: Final = frozenset(KeyPurpose) - {KeyPurpose.key_wrapping}
"""Purposes of private signature and authentication keys."""
_BACKED_UP: Final = frozenset({KeyPurpose.root_ca, KeyPurpose.issuing_ca})
LONGEST_REASON: Final = 500


def moves(purpose: KeyPurpose, state: KeyState) -> frozenset[KeyState]:
    """Where a key of that purpose may go from there."""
    return MOVES[state] - {_DE} if purpose in SIGNING else MOVES[state]


def move(
    record: KeyRecord, after: KeyState, *, reason: str, actor: str, evidence: str = "", at: UnixTime
) -> tuple[KeyRecord, KeyChange]:  # fmt: skip
    """One step, with its date, time and reason.

    Raises:
        Conflict: the standard knows no such step for such a key (`key-move-illegal`).
        Malformed: no reason was given, or a very long one (`no-reason`).
    """
    lawful = moves(record.purpose, record.state)
    if after not in lawful:
        signature = " A private signature key is destroyed instead." if after is _DE and record.purpose in SIGNING else ""
        raise Conflict(
            "key-move-illegal",
            f"A key that is {record.state.value} cannot become {after.value}.",
            why=f"SP 800-57 part 1, 7 allows {', '.join(sorted(each.value for each in lawful)) or 'nothing more'}.{signature}",
            fix="Look at the key: fleetca keys show",
        )
    if not 0 < len(reason.strip()) <= LONGEST_REASON:
        raise Malformed("no-reason", "A key changes its state for a reason.", fix=f"Say it in at most {LONGEST_REASON} characters.")
    change = KeyChange(record.spki_sha256, record.state, after, at, reason.strip(), actor, evidence)
    return replace(record, state=after, changed=at), change


def begin(record: KeyRecord, *, reason: str, actor: str, evidence: str = "") -> KeyChange:
    """How a key comes into the inventory."""
    return KeyChange(record.spki_sha256, None, record.state, record.created, reason, actor, evidence)


def check_signing(record: KeyRecord) -> None:
    """Whether a key may sign for its purpose.

    Raises:
        Denied: it is not active (`key-not-active`).
    """
    if record.state is not KeyState.active:
        raise Denied(
            "key-not-active",
            f"The key {record.name} is {record.state.value}; it signs nothing.",
            why="Only an active key signs (SP 800-57 part 1, 7).",
            fix="Look at why: fleetca keys show, or take it out of the settings.",
        )


def public_state(record: KeyRecord, *, now: UnixTime) -> KeyState:
    """The state of the public half: it verifies what was signed before, so it is deactivated where the private one is destroyed."""
    ended = record.period_ends is not None and now > record.period_ends
    return KeyState.deactivated if record.state is _D or (record.state is _A and ended) else record.state


def overdue(record: KeyRecord, *, now: UnixTime) -> bool:
    """Whether its originator usage period is over and it exists all the same."""
    return record.state is not _D and record.period_ends is not None and now > record.period_ends


def check_escrow(purpose: KeyPurpose | None, *, name: str) -> None:
    """Whether a copy of a private key may be kept for recovery. Only a CA key's, in the backup of its ceremony.

    Raises:
        Denied: it may not (`escrow-refused`).
    """
    if purpose not in _BACKED_UP:
        raise Denied(
            "escrow-refused",
            f"The key {name} is not backed up.",
            why="Who has a copy of a signing key can sign in its holder's name; a lost one is replaced by a new one, not recovered.",
            fix="Leave it out. Devices and operators enrol anew; the log gets a new key.",
        )
