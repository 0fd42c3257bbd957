"""What two persons are demanded for: as much as is on record, until two persons approved less. Asked by the signer when it starts, and by whoever works
in its place. Knows rules and ports only.

The settings file alone cannot take the second person away: the strictest demand that was ever in force stands in the database, in the journal and in the
log, and goes on until exactly what the settings say now was approved. More takes effect at once.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from ca.errors import Denied, Unavailable
from ca.model import DEFAULT_TENANT, Demand, GraveAct
from ca.ports import Clock, Ledger, Writing
from ca.rules import leaf, testimony
from ca.rules.clock import trusted
from ca.rules.demand import loosens, read_demand, stricter, subject_of
from ca.two_persons import TwoPersons
from ca.witness import Witness


class AcceptingDemand:
    def __init__(self, *, ledger: Ledger, witness: Witness, two_persons: TwoPersons, clock: Clock) -> None:
        self._ledger, self._witness, self._two_persons, self._clock = ledger, witness, two_persons, clock

    def settle(self, wanted: Demand) -> bool:
        """Put in force what the settings want, or what is on record where that is stricter. Whether all that they want is in force."""
        said: list[testimony.Record] = []
        with self._ledger.writing() as tx:
            known = tx.accepted_demand()
            # What is on record counts also for its own loosening.
            self._two_persons.demand = made = in_force(tx, wanted)
            if loosens(wanted, known):
                now = trusted(self._clock.now(), high_time=tx.high_time())
                with suppress(Denied):
                    done, told = self._two_persons.take(
                        tx,
                        GraveAct.demand,
                        subject_of(wanted),
                        tenant=DEFAULT_TENANT,
                        actor="signer:settings",
                        channel="operator/local",
                        now=now,
                    )
                    self._two_persons.demand = wanted
                    said += [*told, self._accept(tx, wanted, request=done.request.hex())]
            if not said and made != (known or Demand()):
                said.append(self._accept(tx, made, request=""))
        self._witness.later(said)
        with suppress(Unavailable):
            # Committed and in force already.
            self._witness.settle()
        return self._two_persons.demand == wanted

    def _accept(self, tx: Writing, demand: Demand, *, request: str) -> testimony.DemandAccepted:
        record = testimony.DemandAccepted(subject_of(demand), request, max(self._clock.now(), tx.high_time()))
        _put(tx, record)
        return record


def in_force(tx: Writing, wanted: Demand) -> Demand:
    """What counts before two persons approved less."""
    known = tx.accepted_demand()
    return wanted if known is None else stricter(known, wanted)


def recall(tx: Writing, last: testimony.DemandAccepted) -> None:
    """What the journal says last, in a database that forgot it. One that knows a stricter demand keeps it: which came first is not known."""
    told = in_force(tx, read_demand(last.demand))
    if told != tx.accepted_demand():
        _put(tx, replace(last, demand=subject_of(told)))


def _put(tx: Writing, record: testimony.DemandAccepted) -> None:
    tx.accept_demand(read_demand(record.demand))
    tx.append_leaf(leaf.demand(record.demand, request=record.request, at=record.at))
