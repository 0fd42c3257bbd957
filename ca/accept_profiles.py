"""Which version of each profile is in force: where the settings want two persons for that, a changed one only once it was approved. Asked by the
signer when it starts, before anyone else can ask for anything. Knows rules and ports only.

What is in force stands in the database as it was read, so that the version before goes on where a new one waits. A profile that was taken out of the
settings is gone at once: that only narrows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ca.errors import Denied, Unavailable
from ca.model import DEFAULT_TENANT, GraveAct, Profile, ProfileName
from ca.ports import Clock, Ledger, Writing
from ca.rules import leaf, testimony
from ca.rules import two_persons as rule
from ca.rules.clock import trusted
from ca.two_persons import TwoPersons
from ca.witness import Witness


@dataclass(frozen=True, slots=True)
class Accepted:
    """What is in force."""

    profiles: Mapping[ProfileName, Profile]
    waiting: Sequence[ProfileName]
    """Those of the settings that are not: an earlier version is, or none."""


class AcceptingProfiles:
    def __init__(self, *, ledger: Ledger, witness: Witness, two_persons: TwoPersons, clock: Clock) -> None:
        self._ledger, self._witness, self._two_persons, self._clock = ledger, witness, two_persons, clock

    def settle(self, wanted: Mapping[ProfileName, Profile]) -> Accepted:
        """What is in force of what the settings want. The first time, all of it is."""
        if not self._two_persons.demanded(GraveAct.profile):
            return Accepted(wanted, ())
        said: list[testimony.Record] = []
        profiles: dict[ProfileName, Profile] = {}
        waiting: list[ProfileName] = []
        with self._ledger.writing() as tx:
            before = tx.accepted_profiles()
            for name, profile in wanted.items():
                known = before.get(name)
                if known is not None and known.digest == profile.digest:
                    profiles[name] = profile
                elif not before:
                    profiles[name] = self._accept(tx, profile, said, request="")
                else:
                    try:
                        profiles[name] = self._approved(tx, profile, said)
                    except Denied:
                        waiting.append(name)
                        if known is not None:
                            profiles[name] = known
        self._witness.later(said)
        with suppress(Unavailable):
            # Committed and in force already.
            self._witness.settle()
        return Accepted(profiles, tuple(waiting))

    def _approved(self, tx: Writing, profile: Profile, said: list[testimony.Record]) -> Profile:
        now = trusted(self._clock.now(), high_time=tx.high_time())
        done, told = self._two_persons.take(
            tx, GraveAct.profile, subject_of(profile), tenant=DEFAULT_TENANT, actor="signer:settings", channel="operator/local", now=now
        )
        said += told
        return self._accept(tx, profile, said, request=done.request.hex())

    def _accept(self, tx: Writing, profile: Profile, said: list[testimony.Record], *, request: str) -> Profile:
        record = testimony.ProfileAccepted(profile, request, max(self._clock.now(), tx.high_time()))
        put(tx, record)
        said.append(record)
        return profile


def subject_of(profile: Profile) -> str:
    """What is approved: this very text of the profile."""
    return rule.subject(GraveAct.profile, profile=profile.name, digest=profile.digest.hex())


def put(tx: Writing, record: testimony.ProfileAccepted) -> None:
    """The version in force, and its leaf."""
    tx.accept_profile(record.profile)
    tx.append_leaf(leaf.profile(record.profile, request=record.request, at=record.at))
