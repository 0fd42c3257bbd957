"""What two persons are demanded for, as it is compared and remembered. Ring 1: pure.

The settings may demand more at any time. What they demand less than is on record takes effect only when two persons approved exactly that.
"""

from __future__ import annotations

from ca.model import Demand, GraveAct
from ca.rules.two_persons import read_subject, subject


def stricter(one: Demand, other: Demand) -> Demand:
    """What neither of them is stricter than."""
    return Demand(one.acts | other.acts, max(one.approvers, other.approvers), min(one.mass_revocation, other.mass_revocation))


def loosens(wanted: Demand, known: Demand | None) -> bool:
    """Is anything of it less than what is on record?"""
    return known is not None and stricter(known, wanted) != wanted


def subject_of(demand: Demand) -> str:
    """What is approved: this very demand, whole."""
    acts = sorted(act.value for act in demand.acts)
    return subject(GraveAct.demand, acts=acts, approvers=demand.approvers, mass_revocation=demand.mass_revocation)


def read_demand(text: str) -> Demand:
    """The demand of such a text, which was made by `subject_of`."""
    said = read_subject(GraveAct.demand, text)
    return Demand(frozenset(map(GraveAct, said["acts"])), said["approvers"], said["mass_revocation"])


def in_words(demand: Demand) -> str:
    """For people."""
    acts = ", ".join(sorted(act.value for act in demand.acts)) or "no act"
    return f"{acts}; {demand.approvers} beside who asks; more than {demand.mass_revocation} revocations an hour are many"
