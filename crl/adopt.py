"""Publishing CRLs that a ceremony made: the root's (P4). Ring 4: rules and ports only.

A ceremony may make several at once, dated one after the other, so that nobody has to open the root for the next one. Those whose time has not come
wait beside the published one (`root.1.next.crl`, `root.2.next.crl` ...), checked when they come and again when they are put in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from ca.errors import Broken, Conflict, Unacceptable
from ca.model import Issuer, UnixTime
from ca.ports import Clock, Outlet
from crl.model import Head, Scope
from crl.rules import gate
from crl.rules.anatomy import InMemory, version_of
from crl.shelf import Shelf

PLACES: Final = 64
"""How many may wait."""
AHEAD: Final = 20 * 366 * 86400


@dataclass(frozen=True, slots=True)
class Waiting:
    """A CRL whose time has not come."""

    head: Head
    name: str
    octets: bytes


def adopt(octets: bytes, issuer: Issuer, *, outlet: Outlet, clock: Clock) -> Head:
    """Check a finished CRL and make it visible, or keep it until its thisUpdate. The same one again is harmless.

    Raises:
        Unacceptable: it does not pass the gate; the text says what is wrong.
        Conflict: what is published is as new or newer (`crl-not-newer`), another one that waits has its number (`crl-number-waits`), no place to wait is free (`crl-queue-full`), or another writer was
            faster.
        StoreUnavailable: the outlet cannot be written.
    """
    scope, now = Scope(issuer), clock.now()
    head = _judged(octets, scope, now=now)
    visible = Shelf(outlet).look(scope)
    if visible.head is not None and visible.version == version_of(InMemory(octets)):
        return head
    published = visible.head.number if visible.head else 0
    check_number_free(head, octets, issuer, outlet=outlet, published=published)
    if head.this_update > now + gate.SKEW:
        if head.number > published and not any(one.octets == octets for one in waiting(issuer, outlet=outlet)):
            _put(octets, scope, _free(issuer, outlet, above=published), head, outlet=outlet, now=now)
        return head
    # The high-water file's very number may come: a crash between raising it and the put leaves that.
    highest = max(outlet.high_water(scope.name), published)
    if head.number < highest or head.number == published:
        raise Conflict(
            "crl-not-newer",
            f"The CRL of {issuer.id} has number {head.number}, and {highest} was published before.",
            fix="Make a CRL with a higher number in the next ceremony.",
        )
    _put(octets, scope, scope.name, head, outlet=outlet, now=now, seen=visible.version)
    return head


def check_number_free(head: Head, octets: bytes, issuer: Issuer, *, outlet: Outlet, published: int) -> None:
    """One number is one CRL. Whose number another one has that waits was made after the wrong one: it should have followed the last that waits. Those
    that wait would take its place when their time comes, and forget what it revoked (P6).

    Raises:
        Conflict: the number is taken (`crl-number-waits`).
    """
    ahead = [one for one in waiting(issuer, outlet=outlet) if one.head.number > published]
    if any(one.head.number == head.number and one.octets != octets for one in ahead):
        last = max(ahead, key=lambda one: one.head.number)
        raise Conflict(
            "crl-number-waits",
            f"The CRL of {issuer.id} has number {head.number}, which another one has that waits for its time.",
            why="When their time comes, those that wait would take its place, and know nothing of what it revokes.",
            fix=f"Name the last of them, {last.name} beside the published one, as previous in the sheet, with replaces_pre_dated = true.",
        )


def take_over(issuer: Issuer, *, outlet: Outlet, clock: Clock) -> Head | None:
    """Put the latest CRL whose time has come into the place of the published one; None where none is due.

    Raises:
        Conflict: another publisher was faster.
        StoreUnavailable: the outlet cannot be read or written.
    """
    scope, now = Scope(issuer), clock.now()
    ripe = [one for one in waiting(issuer, outlet=outlet) if one.head.this_update <= now < one.head.next_update]
    best = max(ripe, key=lambda one: one.head.number, default=None)
    if best is None:
        return None
    visible = Shelf(outlet).look(scope)
    if visible.head is not None and best.head.number <= visible.head.number:
        return None
    _put(best.octets, scope, scope.name, best.head, outlet=outlet, now=now, seen=visible.version)
    return best.head


def waiting(issuer: Issuer, *, outlet: Outlet) -> Iterator[Waiting]:
    """The CRLs that wait or have waited; what cannot be believed does not count."""
    for name in _names(issuer):
        copy = outlet.current(name) if outlet.mark(name) is not None else None
        if copy is not None:
            with suppress(Broken):
                yield Waiting(gate.believe(InMemory(copy.octets), Scope(issuer)).head, name, copy.octets)


def _names(issuer: Issuer) -> Iterator[str]:
    return (f"{issuer.id}.{place}.next.crl" for place in range(1, PLACES + 1))


def _free(issuer: Issuer, outlet: Outlet, *, above: int) -> str:
    taken = {one.name: one.head.number for one in waiting(issuer, outlet=outlet)}
    for name in _names(issuer):
        if taken.get(name, 0) <= above:
            return name
    raise Conflict("crl-queue-full", f"{PLACES} CRLs of {issuer.id} wait already.", why="Each of them is to be published before this one.")


def _put(octets: bytes, scope: Scope, name: str, head: Head, *, outlet: Outlet, now: UnixTime, seen: str | None = None) -> None:
    with outlet.stage(name) as stage:
        with open(stage.fileno(), "wb", closefd=False) as file:
            file.write(octets)
        stage.sync()
        if _judged(stage.read(0, stage.size), scope, now=now) != head:
            raise Broken("crl-not-put", f"The CRL of {scope.issuer.id} changed on its way to the disk.")
        if name == scope.name:
            outlet.raise_high_water(name, head.number)
        else:
            before = outlet.current(name)
            seen = before.version if before else None
        outlet.put_if_unchanged(name, stage, seen=seen)


def _judged(octets: bytes, scope: Scope, *, now: int) -> Head:
    try:
        return gate.inspect(InMemory(octets), scope, now=now, ahead=AHEAD).head
    except Broken as error:
        # Nothing of ours failed: what was handed in is not right.
        raise Unacceptable(error.code, error.what, why=error.why, fix=error.fix) from None
