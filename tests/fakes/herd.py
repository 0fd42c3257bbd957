"""A fleet on a virtual clock: the shipped window, crowd, admission and agent's schedule, and nothing else between them but events in their order."""

from __future__ import annotations

import heapq
import random
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from ca.model import CertificateRef, DeviceId, IssuerId, ProfileName, Serial, UnixTime
from ca.rules import renewal_admission as admission
from ca.rules.renewal_crowd import crowd
from ca.rules.renewal_window import Crowd, Plan, Replacement, Window, suggested
from fleetca.agent import schedule
from fleetca.agent.schedule import Known, Life
from fleetca.forms import shipped_profiles

HOUR, DAY = 3600, 86400
BACKDATE = 300
REF = CertificateRef(IssuerId("issuing"), Serial(1))


class Held(NamedTuple):
    """A certificate, as far as windows ask."""

    ref: CertificateRef
    device: DeviceId
    profile: ProfileName
    not_before: UnixTime
    not_after: UnixTime

    @property
    def intended_at(self) -> UnixTime:
        return self.not_before + BACKDATE


@dataclass
class Herd:
    """`count` devices in their ordinary life at time 0, and what becomes of them."""

    count: int
    outage: tuple[int, int] = (0, 0)
    per_second: float | None = None
    """What admission lets in; None: everybody."""
    replacements: tuple[Replacement, ...] = ()
    maintenance: tuple[Window, ...] = ()
    seed: int = 7
    profile: str = "device"
    renewals: array[int] = field(default_factory=lambda: array("q"))
    """When, in order."""
    left: array[int] = field(default_factory=lambda: array("q"))
    """Of each renewal: the seconds that were left to the old certificate."""
    requests: array[int] = field(default_factory=lambda: array("q"))
    """When the service was asked for anything, in order; while it was away, when it would have been."""
    refused: int = 0
    expired: int = 0

    def run(self, until: int) -> Herd:
        chance = random.Random(self.seed)
        profile = shipped_profiles()[ProfileName(self.profile)]
        lifetime = profile.lifetime
        held: list[Held] = []
        known: list[Known] = []
        plan: Plan = Plan(self.maintenance, self.replacements)
        heap: list[tuple[int, int]] = []
        for number in range(self.count):
            device = DeviceId(f"device-{number}")
            own = Held(REF, device, profile.name, 0, lifetime - 1)
            start = suggested(own, profile, now=0).start
            # Somewhere between its last renewal and its next one.
            born = -int(chance.random() * start)
            held.append(own._replace(not_before=born - BACKDATE, not_after=born - BACKDATE + lifetime - 1))
            known.append(Known(start + born, int(chance.random() * schedule.ASK_EVERY)))
            heap.append((schedule.next_at(self._life(held[-1]), known[-1]), number))
        heapq.heapify(heap)
        allowance = None if self.per_second is None else admission.full(self.per_second, at=0)
        rate = self.count / (lifetime * 0.75)
        gathered: Crowd | None = None
        looked = -HOUR
        while heap and heap[0][0] <= until:
            now, number = heapq.heappop(heap)
            own, mind = held[number], known[number]
            life = self._life(own)
            if now > own.not_after:
                self.expired += 1
                continue
            self.requests.append(now)
            if self.outage[0] <= now < self.outage[1]:
                known[number] = self._failed(life, mind, now, None, chance)
            else:
                if now - looked >= HOUR and self.outage[1] <= now:
                    looked = now
                    waiting = sum(1 for one, what in zip(held, known, strict=True) if schedule.renew_from(self._life(one), what) < now)
                    gathered = crowd(gathered, overdue=waiting, rate=rate, now=now)
                    plan = Plan(self.maintenance, self.replacements, gathered)
                if now >= mind.ask_at:
                    mind = self._asked(own, profile, plan, now, chance)
                if now >= schedule.renew_from(life, mind):
                    told = None
                    if allowance is not None and self.per_second is not None:
                        allowance = admission.filled(allowance, self.per_second, at=now)
                        told = admission.wait(allowance, self.per_second, not_before=own.not_before, not_after=own.not_after, now=now)
                        if told is None:
                            allowance = admission.taken(allowance)
                    if told is not None:
                        self.refused += 1
                        mind = self._failed(life, mind, now, told, chance)
                    else:
                        self.renewals.append(now)
                        self.left.append(own.not_after - now)
                        own = held[number] = own._replace(not_before=now - BACKDATE, not_after=now - BACKDATE + lifetime - 1)
                        life = self._life(own)
                        mind = self._asked(own, profile, plan, now, chance)
                else:
                    mind = Known(mind.start, mind.ask_at)
                known[number] = mind
            heapq.heappush(heap, (max(now + 1, schedule.next_at(life, known[number])), number))
        self.expired += sum(1 for one in held if one.not_after < until)
        return self

    @staticmethod
    def _life(one: Held) -> Life:
        return Life(one.not_before, one.not_after)

    def _asked(self, own: Held, profile: object, plan: Plan, now: int, chance: random.Random) -> Known:
        window = suggested(own, profile, now=now, plan=plan)  # type: ignore[arg-type]
        return Known(window.start, now + schedule.ask_after(self._life(own), told=6 * HOUR, chance=chance.random()))

    @staticmethod
    def _failed(life: Life, mind: Known, now: int, told: int | None, chance: random.Random) -> Known:
        pause = schedule.pause(life, mind, now=now, told=told, chance=chance.random())
        return Known(mind.start, mind.ask_at, now + pause, mind.failures + 1)


def buckets(times: array[int], *, width: int, start: int, end: int) -> list[int]:
    """How many in each stretch of `width` seconds."""
    counts = [0] * ((end - start) // width)
    for when in times:
        at = (when - start) // width
        if 0 <= at < len(counts):
            counts[at] += 1
    return counts


def peak_to_mean(counts: list[int]) -> float:
    return max(counts) / (sum(counts) / len(counts))


Run = Callable[[], Herd]
