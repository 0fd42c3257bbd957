"""A key that a group shares, in epochs: who leaves cannot read the next one, who joins cannot read the last. Ring 1: pure.

Every change of the group draws a new key (nothing is derived from the old one) and wraps it under the key of each member that stays or comes
(AES-KWP). So an epoch is one document that anybody may carry; only the members of that epoch open it, each with its own key. A member's entry is
bound to group, epoch and member: its wrapping key is derived for exactly them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ca.errors import Conflict, Denied, Malformed
from ca.model import DeviceId
from ca.rules import derive, ids, wrap

KEY: Final = 32
MOST: Final = 5000
"""Members of a group: an epoch costs some 120 octets for each."""
_KEYS: Final = {"group", "epoch", "check", "members"}


@dataclass(frozen=True, slots=True)
class Epoch:
    """A group's key at one time, as it may lie anywhere."""

    group: str
    number: int
    check: str
    """Check value of the key."""
    members: Mapping[DeviceId, bytes]
    """The key, wrapped for each."""


def begin(group: str, members: Iterable[DeviceId], *, key: bytes, of: Callable[[DeviceId], bytes]) -> Epoch:
    """The first epoch of a group.

    Args:
        key: 32 octets, drawn now.
        of: the key that a member shares with us.
    """
    ids.device_id(group)
    return _epoch(group, 1, set(members), key, of)


def change(
    before: Epoch, *, join: Iterable[DeviceId] = (), leave: Iterable[DeviceId] = (), key: bytes, of: Callable[[DeviceId], bytes]
) -> Epoch:
    """The next epoch. Without joins and leaves, a mere change of keys.

    Raises:
        Conflict: who joins is in it, or who leaves is not (`group-member`); or the key is the old one (`group-key-again`).
        Unauthenticated: the members' keys are not those of the epoch before (`unwrap-failed`): nobody could read the next one.
    """
    known = min(before.members)
    read(before, known, of(known))
    joining, leaving, members = set(join), set(leave), set(before.members)
    if (joining & members) or (leaving - members) or (joining & leaving):
        wrong = sorted((joining & members) | (leaving - members) | (joining & leaving))
        raise Conflict(
            "group-member",
            f"{wrong[0]} cannot join or leave.",
            why="Who joins is not in the group yet, and who leaves is.",
            fix="Look at the epoch.",
        )
    if wrap.check_value(key) == before.check:
        raise Conflict("group-key-again", "The next epoch needs a new key.", why="It is the key of the last one.")
    return _epoch(before.group, before.number + 1, (members | joining) - leaving, key, of)


def _epoch(group: str, number: int, members: set[DeviceId], key: bytes, of: Callable[[DeviceId], bytes]) -> Epoch:
    if len(key) != KEY:
        raise Malformed("no-aes-key", f"A group's key has {KEY} octets.")
    if not members or len(members) > MOST:
        raise Malformed("group-size", f"A group has 1 to {MOST} members.")
    wrapped = {name: wrap.wrap(key, _slot(of(ids.device_id(name)), group, number, name)) for name in sorted(members)}
    return Epoch(group, number, wrap.check_value(key), wrapped)


def read(epoch: Epoch, member: DeviceId, key: bytes) -> bytes:
    """The group's key, for a member with the key that it shares with us.

    Raises:
        Denied: it is no member of this epoch (`not-in-group`).
        Unauthenticated: `unwrap-failed`, `wrong-key`.
    """
    mine = epoch.members.get(member)
    if mine is None:
        raise Denied("not-in-group", f"{member} is not in epoch {epoch.number} of {epoch.group}.")
    return wrap.unwrap(mine, _slot(key, epoch.group, epoch.number, member), check=epoch.check)


def member_key(master: bytes, group: str, member: DeviceId) -> bytes:
    """The key that a device shares with us for a group, from our master key: nothing needs to be stored for a member."""
    return derive.derive(master, salt=_SALT, purpose=derive.Purpose("group member", member, group))


_SALT: Final = bytes.fromhex("f4a0f8b3b2f1d1f07a4c6f1a6d9e0c55")
"""Fixed and public, for what has no session of its own (RFC 5869 3.1)."""


def _slot(key: bytes, group: str, number: int, member: str) -> bytes:
    return derive.derive(key, salt=_SALT, purpose=derive.Purpose("group epoch", member, group, number))


# ---- Octets ---------------------------------------------------------------------------------------------------------


def write(epoch: Epoch) -> bytes:
    """The document: JSON, keys sorted."""
    document = {
        "group": epoch.group,
        "epoch": epoch.number,
        "check": epoch.check,
        "members": {name: octets.hex() for name, octets in epoch.members.items()},
    }
    return json.dumps(document, sort_keys=True, indent=1).encode() + b"\n"


def parse(octets: bytes) -> Epoch:
    """
    Raises:
        Malformed: it is none of ours (`group-document`).
    """
    try:
        document: Any = json.loads(octets)
        if not isinstance(document, dict) or set(document) != _KEYS or type(document["epoch"]) is not int or document["epoch"] < 1:
            raise ValueError("its fields are not those of an epoch")
        if not 0 < len(document["members"]) <= MOST or not isinstance(document["check"], str):
            raise ValueError("its members or its check value are not those of an epoch")
        members = {ids.device_id(name): bytes.fromhex(text) for name, text in document["members"].items()}
        return Epoch(ids.device_id(document["group"]), document["epoch"], document["check"], members)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Malformed("group-document", "It is no epoch of a group.", why=str(error)[:200]) from None
