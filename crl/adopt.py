"""Publishing a CRL that a ceremony made: the root's (P4). Ring 4: rules and ports only."""

from __future__ import annotations

from ca.errors import Broken, Conflict, Unacceptable
from ca.model import Issuer
from ca.ports import Clock, Outlet
from crl.model import Head, file_name
from crl.rules import gate
from crl.shelf import Shelf


def adopt(octets: bytes, issuer: Issuer, *, outlet: Outlet, clock: Clock) -> Head:
    """Check a finished CRL and make it visible. The same one again is harmless.

    Raises:
        Unacceptable: it does not pass the gate; the text says what is wrong.
        Conflict: what is published is as new or newer (`crl-not-newer`), or another writer was faster.
        StoreUnavailable: the outlet cannot be written.
    """
    now = clock.now()
    name = file_name(issuer.id)
    head = _judged(octets, issuer, now=now)
    visible = Shelf(outlet, keep=True).look(issuer)
    if visible.copy is not None and visible.copy.octets == octets:
        return head
    # The high-water file's very number may come: a crash between raising it and the put leaves that.
    published = visible.head.number if visible.head else 0
    highest = max(outlet.high_water(name), published)
    if head.number < highest or head.number == published:
        raise Conflict(
            "crl-not-newer",
            f"The CRL of {issuer.id} has number {head.number}, and {highest} was published before.",
            fix="Make a CRL with a higher number in the next ceremony.",
        )
    with outlet.stage(name) as stage:
        with open(stage.fileno(), "wb", closefd=False) as file:
            file.write(octets)
        stage.sync()
        if _judged(stage.octets(), issuer, now=now) != head:
            raise Broken("crl-not-put", f"The CRL of {issuer.id} changed on its way to the disk.")
        outlet.raise_high_water(name, head.number)
        outlet.put_if_unchanged(name, stage, seen=visible.version)
    return head


def _judged(octets: bytes, issuer: Issuer, *, now: int) -> Head:
    try:
        return gate.inspect(octets, issuer, now=now)
    except Broken as error:
        # Nothing of ours failed: what was handed in is not right.
        raise Unacceptable(error.code, error.what, why=error.why, fix=error.fix) from None
