"""The life of a device: its states, the lawful moves between them, and what may be said of it. Ring 1: pure.

    blank --------> provisioned --------> active <------> quarantined
      |  a first certificate: active         |                 |
      +--------------------+-----------------+-----------------+--> retired

A retired device stays as a tombstone: its id enrols again only once two persons had it revived, and is blank then. Who may ask for a move is for `ca.rules.grant`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from ca.errors import Conflict, Denied, Malformed, Unacceptable
from ca.model import (
    Anchor,
    AttestationKind,
    Device,
    DeviceChange,
    DeviceDescription,
    DeviceEvent,
    DeviceFacts,
    DeviceState,
    EvidenceKind,
    Profile,
    Reason,
    Role,
    RootOfTrust,
    SafetyClass,
    UnixTime,
    Verdict,
)
from ca.rules.window import date

_B, _P, _A, _Q, _R = (
    DeviceState.blank, DeviceState.provisioned, DeviceState.active, DeviceState.quarantined, DeviceState.retired,
)  # fmt: skip

MOVES: Final[Mapping[DeviceState, frozenset[DeviceState]]] = {
    _B: frozenset({_P, _A, _R}),
    _P: frozenset({_A, _Q, _R}),
    _A: frozenset({_Q, _R}),
    # Released, it is what it was: active with a certificate, else provisioned.
    _Q: frozenset({_A, _P, _R}),
    # By two persons only: `ca.revive`.
    _R: frozenset({_B}),
}
"""Every lawful move."""

LONGEST_WORDS: Final = 200
"""Characters of a justification, a batch, an owner."""
LONGEST_EXCEPTION: Final = 2 * 366 * 86400
"""An exception that outlives two reviews is no exception."""
_WEIGHT: Final[Mapping[SafetyClass, int]] = {SafetyClass.A: 1, SafetyClass.B: 2, SafetyClass.C: 3}


def channel(role: Role, evidence: EvidenceKind) -> str:
    """The way by which something was asked for."""
    return f"{role.value}/{evidence.value}"


def wanted(device: Device, reason: Reason, *, certified: bool) -> DeviceState:
    """The state that a change for this reason asks for; the device's own where it is there already.

    Args:
        certified: the device ever got a certificate.

    Raises:
        Conflict: a release of what is not in quarantine (`device-not-quarantined`), or any change of what was retired (`device-retired`)
            but its retiring again.
    """
    if reason is Reason.certificateHold:
        after = _Q
    elif reason is Reason.removeFromCRL:
        after = _A if certified else _P
        if device.state not in {_Q, _R}:
            raise Conflict(
                "device-not-quarantined",
                f"The device {device.id} is {device.state.value}.",
                why="Only a device in quarantine is released.",
            )
    else:
        after = _R
    if device.state is _R and after is not _R:
        raise Conflict(
            "device-retired",
            f"The device {device.id} is retired.",
            why="That is for good; its id stays as a tombstone.",
            fix="Enrol the hardware under a new device id; or have two persons revive this one: fleetca approvals request revive --device ID",
        )
    return after


def move(
    device: Device, after: DeviceState, *, reason: str, actor: str, channel: str, request: str, at: UnixTime
) -> tuple[Device, DeviceChange]:
    """One step, with its time, reason and author.

    Raises:
        Conflict: there is no such step (`device-move-illegal`).
    """
    if after not in MOVES[device.state]:
        lawful = ", ".join(sorted(each.value for each in MOVES[device.state])) or "nothing more"
        raise Conflict(
            "device-move-illegal",
            f"A device that is {device.state.value} cannot become {after.value}.",
            why=f"It may become {lawful}.",
            fix=f"Look at it: fleetca devices timeline {device.id}",
        )
    return replace(device, state=after), DeviceChange(device.id, device.state, after, at, reason, actor, channel, request)


def described(facts: DeviceFacts, said: DeviceDescription, *, now: UnixTime) -> DeviceFacts:
    """The facts once this was said.

    Raises:
        Malformed: words that are too long or no plain text (`device-words`).
        Unacceptable: no root of trust, and no justification that expires (`no-root-of-trust`).
    """
    for field in ("justification", "batch", "owner"):
        words = getattr(said, field)
        if words is not None and (len(words) > LONGEST_WORDS or not words.isprintable()):
            raise Malformed("device-words", f"The {field} cannot be kept.", why=f"It is plain text of {LONGEST_WORDS} characters at most.")
    given = {
        name: value
        for name in ("root_of_trust", "justification", "exception_ends", "safety_class", "batch", "owner")
        if (value := getattr(said, name)) is not None
    }
    if said.root_of_trust not in {None, RootOfTrust.none}:
        # A root of trust needs no excuse; an old one must not come back to life when it is said to be gone again.
        if said.justification or said.exception_ends is not None:
            raise Unacceptable("no-root-of-trust", "A justification is for devices without a root of trust.")
        given |= {"justification": "", "exception_ends": None}
    after = replace(facts, **given)
    if after.root_of_trust is not RootOfTrust.none:
        if said.justification or said.exception_ends is not None:
            raise Unacceptable(
                "no-root-of-trust", "A justification is for devices without a root of trust.", fix="Say: --root-of-trust none"
            )
        return after
    if not after.justification.strip() or after.exception_ends is None:
        raise Unacceptable(
            "no-root-of-trust",
            "A device without a root of trust needs a justification, and an end to it.",
            fix="Say why and until when: --justification WORDS --exception-until DATE",
        )
    if said.exception_ends is not None and not now < said.exception_ends <= now + LONGEST_EXCEPTION:
        raise Unacceptable(
            "no-root-of-trust",
            "The exception must end, in two years at the latest.",
            why=f"{date(said.exception_ends)} is not within them.",
        )
    return after


_ROOTS: Final[Mapping[AttestationKind, RootOfTrust]] = {AttestationKind.tpm: RootOfTrust.tpm, AttestationKind.se: RootOfTrust.se}


def anchored(facts: DeviceFacts, anchor: Anchor) -> DeviceFacts:
    """The facts once a key of the hardware is known: what was shown outweighs that nothing, or that no root of trust, was said."""
    root = _ROOTS.get(anchor.kind)
    after = replace(facts, anchors=(*facts.anchors, anchor))
    if root is None or facts.root_of_trust not in {None, RootOfTrust.none}:
        return after
    return replace(after, root_of_trust=root, justification="", exception_ends=None)


def as_shown(facts: DeviceFacts | None, verdict: Verdict | None) -> DeviceFacts | None:
    """What counts as said while a request is judged: a root of trust that vouches for its key need not be said as well."""
    root = None if verdict is None else _ROOTS.get(verdict.kind)
    known = facts or DeviceFacts()
    return facts if root is None or known.root_of_trust not in {None, RootOfTrust.none} else replace(known, root_of_trust=root)


def excused(facts: DeviceFacts, *, now: UnixTime) -> bool:
    """Whether a device may go without a root of trust for now."""
    return facts.root_of_trust is RootOfTrust.none and facts.exception_ends is not None and now < facts.exception_ends


def fits(facts: DeviceFacts | None, profile: Profile, *, now: UnixTime) -> None:
    """Whether a device is what a profile asks of its devices.

    Raises:
        Denied: `root-of-trust-needed`, `safety-class-differs`.
    """
    facts = facts or DeviceFacts()
    if profile.roots_of_trust and facts.root_of_trust not in profile.roots_of_trust and not excused(facts, now=now):
        said = "nothing is said of this one's"
        if facts.root_of_trust is not None:
            said = f"this one's is {facts.root_of_trust.value}"
            if facts.exception_ends is not None:
                said += f", and its exception ended on {date(facts.exception_ends)}"
        words = ", ".join(root.value for root in profile.roots_of_trust)
        raise Denied(
            "root-of-trust-needed",
            f"Profile {profile.name!r} is for devices with a root of trust: {words}.",
            why=f"Of its devices' roots of trust, {said}.",
            fix="Say what it has: fleetca devices describe ID --root-of-trust ...",
        )
    if profile.safety_class is not None and (facts.safety_class is None or _WEIGHT[facts.safety_class] > _WEIGHT[profile.safety_class]):
        said = "of no known class" if facts.safety_class is None else f"of class {facts.safety_class.value}"
        raise Denied(
            "safety-class-differs",
            f"Profile {profile.name!r} is for devices up to safety class {profile.safety_class.value}.",
            why=f"This one is {said}.",
            fix="Choose a profile for its class, or say its class: fleetca devices describe ID --safety-class ...",
        )


def describable(device: Device) -> None:
    """Whether something may still be said of it.

    Raises:
        Conflict: it is retired (`device-retired`).
    """
    if device.state is _R:
        raise Conflict("device-retired", f"The device {device.id} is retired.", why="Its record is closed.")


def revivable(device: Device) -> None:
    """Whether there is something to revive.

    Raises:
        Conflict: it is not retired (`device-not-retired`).
    """
    if device.state is not _R:
        raise Conflict("device-not-retired", f"The device {device.id} is {device.state.value}.", why="Only a retired device is revived.")


def difference(before: DeviceFacts, after: DeviceFacts) -> str:
    """What is said now and was not before, in one line."""
    said = []
    for name in ("root_of_trust", "justification", "exception_ends", "safety_class", "batch", "owner"):
        value = getattr(after, name)
        if value != getattr(before, name):
            text = date(value) if isinstance(value, int) else getattr(value, "value", value)
            said.append(f"{name.replace('_', ' ')}: {text or 'nothing'}")
    said += [
        f"known by {one.kind.value} key sha256:{one.spki_sha256.hex()} ({one.source})" for one in after.anchors if one not in before.anchors
    ]
    return "; ".join(said)


OF_THE_DEVICE: Final = frozenset({"blank", "described", "provisioned", "active", "quarantined", "retired"})
"""Events of the device as a whole; they come in the order in which they happened."""


def in_order(events: Iterable[DeviceEvent]) -> list[DeviceEvent]:
    """A timeline: oldest first; of one second, what happened to the device before what that did to its certificates and tokens."""
    return sorted(events, key=lambda one: (one.at, one.what not in OF_THE_DEVICE))
