"""Revoking more at once than one person may: what a list is, and whether a request is a part of the one that was approved. Ring 1: pure.

A list is cut into requests of up to `MOST_AT_ONCE` certificates, in order. Their hashes are the leaves of a tree (RFC 9162 2.1.1) whose root is
approved, so that each request proves for itself that it belongs to the list, and a run that was cut off goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from ca.errors import Denied
from ca.model import CertificateRef, Digest, GraveAct, MassPart, Reason, RevokeRequest, UnixTime
from ca.rules import merkle
from ca.rules.grant import MOST_AT_ONCE
from ca.rules.two_persons import subject

HOUR: Final = 3600


def counter(tenant: str) -> str:
    """The counter of what a tenant's operators changed in this hour."""
    return f"operator-revocations:{tenant}"


def leaf_of(refs: Sequence[CertificateRef]) -> Digest:
    """The hash of one request's certificates."""
    return merkle.leaf_hash("\n".join(f"{ref.issuer}/{ref.serial:040x}" for ref in refs).encode())


class Planned:
    """A list, cut and hashed. It holds at least one certificate."""

    def __init__(self, refs: Sequence[CertificateRef]) -> None:
        self.requests = [tuple(refs[start : start + MOST_AT_ONCE]) for start in range(0, len(refs), MOST_AT_ONCE)]
        self.certificates = len(refs)
        self._levels = [[leaf_of(each) for each in self.requests]]
        while len(below := self._levels[-1]) > 1:
            self._levels.append([merkle.node_hash(below[at], below[at + 1]) for at in range(0, len(below) - 1, 2)])

    def _node(self, level: int, index: int) -> Digest:
        return self._levels[level][index]

    @property
    def root(self) -> Digest:
        return merkle.tree_root(len(self.requests), self._node)

    def part(self, index: int) -> MassPart:
        """One request's place."""
        proof = merkle.inclusion_proof(index, len(self.requests), self._node)
        return MassPart(self.root, len(self.requests), self.certificates, index, proof)


def subject_of(part: MassPart, reason: Reason, invalid_from: UnixTime | None) -> str:
    """The exact request that was approved."""
    return subject(
        GraveAct.mass_revocation,
        root=part.root.hex(),
        requests=part.requests,
        certificates=part.certificates,
        reason=reason.name,
        invalid_from=invalid_from,
    )


def belongs(request: RevokeRequest) -> MassPart | None:
    """The place of a request in its list, once that is proved; None where it names none.

    Raises:
        Denied: it is not there (`not-on-the-list`).
    """
    part = request.part
    if part is None:
        return None
    refs = () if request.target is None else (request.target, *request.others)
    shape = 0 <= part.index < part.requests < 1 << 32 and len(part.proof) <= 64
    if not refs or not shape or not merkle.proves_inclusion(part.index, part.requests, leaf_of(refs), root=part.root, proof=part.proof):
        raise Denied("not-on-the-list", "These certificates are not that part of the list.", why="Their place in it is not proved.")
    return part


def once(request: Digest, part: MassPart) -> Digest:
    """What makes a part of an approved list act once only."""
    return Digest(hashlib.sha256(b"fleetca mass revocation\0" + request + part.index.to_bytes(8, "big")).digest())
