"""A set of shares that several custodians keep, as everybody may know it: who, how many, and how to tell the right key. Ring 1: pure.

Owns the form of `quorum.json` and what makes a set lawful. Knows no share and no key: those are `ca.keys.shares`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from ca.errors import Malformed, Misconfigured
from ca.model import Quorum
from ca.rules.leaf import canonical

FEWEST: Final = 2
"""A threshold of one would be a copy of the key for each custodian."""
MOST: Final = 16
"""SLIP-39: shares are numbered with four bits."""
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_VERSION: Final = 1


def judge(name: str, custodians: Sequence[str], threshold: int) -> None:
    """Whether a set may be made so.

    Raises:
        Misconfigured: it may not (`bad-quorum`).
    """
    if not _NAME.fullmatch(name):
        raise _bad(f"{name!r} cannot name a set of shares.", "Use lower-case letters, digits and hyphens.")
    if not FEWEST <= threshold <= len(custodians) <= MOST:
        raise _bad(
            f"{threshold} of {len(custodians)} is no quorum.",
            f"At least {FEWEST} custodians have to come, and at most {MOST} have a share.",
        )
    for custodian in custodians:
        if not custodian.strip() or len(custodian) > 64 or not custodian.isprintable():
            raise _bad("A custodian has no usable name.", "Write the name of a person, at most 64 characters.")
    if len({custodian.casefold() for custodian in custodians}) != len(custodians):
        raise _bad("One custodian would have two shares.", "Every share is another person's: two of one person are one secret.")


def _bad(why: str, fix: str) -> Misconfigured:
    return Misconfigured("bad-quorum", "These custodians and this threshold make no set of shares.", why=why, fix=fix)


def write(quorum: Quorum) -> bytes:
    """The octets of `quorum.json`. It holds no secret."""
    return canonical(
        {
            "version": _VERSION,
            "kind": "quorum",
            "name": quorum.name,
            "identifier": quorum.identifier,
            "threshold": quorum.threshold,
            "custodians": list(quorum.custodians),
            "check": quorum.check.hex(),
            "recipient": quorum.recipient.hex(),
            "made_at": quorum.made_at,
        }
    ) + b"\n"  # fmt: skip


def read(octets: bytes) -> Quorum:
    """The set that a `quorum.json` describes.

    Raises:
        Malformed: it is none, or no lawful one (`bad-quorum-file`).
    """
    try:
        document: dict[str, Any] = json.loads(octets)
        made = Quorum(
            name=_of(str, document["name"]),
            identifier=_of(int, document["identifier"]),
            threshold=_of(int, document["threshold"]),
            custodians=tuple(_of(str, each) for each in document["custodians"]),
            check=bytes.fromhex(document["check"]),
            recipient=bytes.fromhex(document["recipient"]),
            made_at=_of(int, document["made_at"]),
        )
        judge(made.name, made.custodians, made.threshold)
        if write(made) != octets or len(made.check) != 32 or len(made.recipient) != 32 or not 0 <= made.identifier < 1 << 15:
            raise ValueError("It is not in the form that was written.")
    except (ValueError, KeyError, TypeError, RecursionError, Misconfigured) as error:
        raise Malformed("bad-quorum-file", "This file does not describe a set of shares.", why=str(error)) from None
    return made


def _of(kind: type[Any], value: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{kind.__name__} belongs where {type(value).__name__} stands.")
    return value
