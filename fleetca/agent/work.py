"""What the agent does when it wakes: one pass over an identity. Edge: effects in their order; when is for `schedule`, how for `renewing`.

A pass first finishes what an earlier one left: a pair that is ready and not in place, services that were not told, a service that has not seen the
new pair work. Then it asks for the window, renews when it is time, and reports. Whatever fails is remembered with its code, and tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ca.der.certificate import CertificateFacts
from ca.errors import Denied, FleetcaError, Malformed, NotFound, StoreUnavailable, Unavailable
from ca.model import AlgorithmName, CertificateRef, IssuerId, Reason, UnixTime
from ca.ports import Clock
from ca.rules.message import Act
from fleetca.agent import asking, hooks, renewing, schedule, trust
from fleetca.agent.identity import Identity, Memory, Setup
from fleetca.agent.pairs import Slots, kept_request, read_pair
from fleetca.agent.renewing import By, Hand, Service
from fleetca.agent.stores import REHEARSAL
from fleetca.agent.time import Shifted, is_behind, service_time
from fleetca.folder import put_new

CLOCK_CODES: Final = frozenset({"service-out-of-time", "message-out-of-time"})
"""What stands behind these may be this device's own clock."""
RESERVE: Final = ".reserve"
RESERVED: Final = 64 * 1024
"""Octets kept for a renewal on a disk that somebody else has filled."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a pass came to."""

    did: str
    """`enrolled`, `renewed`, `finished`, `nothing`, `failed`."""
    certificate: CertificateFacts | None
    next_at: UnixTime
    error: FleetcaError | None = None
    answer: Mapping[str, Any] | None = None


class Agent:
    """Works on one identity, under its lock."""

    def __init__(self, identity: Identity, hand: Hand, *, version: str) -> None:
        self._identity, self._hand, self._version = identity, replace(hand, attest=identity.attest()), version
        setup = identity.setup
        self._by = By(setup.by)
        self._slots = identity.slots
        self._memory = identity.recall()
        self._service = Service(setup.url, identity.trust, proxy=proxy_for(setup))

    @property
    def memory(self) -> Memory:
        return self._memory

    # ---- Enrolling --------------------------------------------------------------------------------------------------

    def enrol(self, token: str | None, *, known: bool = False) -> Outcome:
        """Get a first certificate; or go on where an earlier run stopped. `known`: without a token, by the hardware that is on record."""
        setup, slots = self._identity.setup, self._slots
        if slots.number:
            return Outcome("nothing", read_pair(slots)[0], self.next_at())
        self._keep_reserve()
        answer = self._in_time(
            lambda: renewing.enrol(
                slots, self._service, token=token, algorithm=AlgorithmName(setup.algorithm), hand=self._hand, known=known
            )
        )
        self._memory = Memory(device=str(answer.get("device", "")), profile=str(answer.get("profile", "")))
        facts = read_pair(slots)[0]
        with suppress(FleetcaError):
            self._tell_services()
        self._remember("enrolled")
        with suppress(FleetcaError):
            self._ask(facts)
        self._report(facts)
        self._save()
        return Outcome("enrolled", facts, self.next_at(), answer=answer)

    # ---- One pass ---------------------------------------------------------------------------------------------------

    def wake(self, *, force: bool = False) -> Outcome:
        """Do what there is to do now. An error is in the outcome, after it was remembered and reported."""
        facts: CertificateFacts | None = None
        try:
            return self._wake(force=force)
        except FleetcaError as error:
            with suppress(FleetcaError):
                facts = read_pair(self._slots)[0]
            self._failed(facts, error)
            return Outcome("failed", facts, self.next_at(), error)

    def _wake(self, *, force: bool) -> Outcome:
        slots, now = self._slots, self._hand.clock.now
        began = slots.number
        slots.install()
        self._check_enrolled()
        facts = read_pair(slots)[0]
        if is_behind(facts, now()):
            self._learn_time(facts)
        finished = self._finish() or slots.number != began
        if finished:
            facts = read_pair(slots)[0]
            self._remember("renewed" if slots.number > 1 else "enrolled")
        known = self._known(facts)
        if not force and known.try_at > now():
            return Outcome("nothing", facts, self.next_at())
        if now() >= known.ask_at:
            self._in_time(lambda: self._ask(facts))
            self._keep_trust()
            known = self._known(facts)
        answer = None
        did = "finished" if finished else "nothing"
        if force or kept_request(slots) is not None or now() >= schedule.renew_from(_life(facts), known):
            answer = self._in_time(self._renew)
            facts = read_pair(slots)[0]
            self._finish()
            self._remember("renewed")
            did = "renewed"
            with suppress(FleetcaError):
                self._ask(facts)
        if not self._memory.told:
            self._report(facts)
        self._memory.failures, self._memory.try_at = 0, 0
        self._save()
        return Outcome(did, facts, self.next_at(), answer=answer)

    def _check_enrolled(self) -> None:
        if not self._slots.number:
            folder = self._identity.folder
            fix = f"fleetca agent enrol --dir {folder}, with --token-file where it has not asked yet."
            raise NotFound("not-enrolled", f"The identity in {folder} has no certificate yet.", fix=fix)

    def _renew(self) -> Mapping[str, Any]:
        try:
            return renewing.replace(self._slots, self._service, by=self._by, hand=self._hand)[0]
        except StoreUnavailable as error:
            # The disk is full: what was kept for this is given up, and it is tried once more.
            reserve = self._identity.folder / RESERVE
            if error.code != "disk-full" or not reserve.exists():
                raise
            reserve.unlink()
            return renewing.replace(self._slots, self._service, by=self._by, hand=self._hand)[0]

    def _finish(self) -> bool:
        """Tell those who use the pair, and let the service see that it works; whether there was anything to do. The pair has its place."""
        slots, trouble = self._slots, None
        if slots.reloaded and slots.settled:
            return False
        if not slots.reloaded:
            try:
                self._tell_services()
            except Unavailable as error:
                trouble = error  # whether the service hears of the new pair does not depend on it
        self._hand.failpoint("agent.after-hook")
        if not slots.settled:
            self._in_time(lambda: renewing.confirm(slots, self._service, by=self._by, hand=self._hand))
            self._hand.failpoint("agent.after-confirm")
        if trouble is not None:
            raise trouble
        slots.settle()
        self._keep_reserve()
        self._hand.failpoint("agent.after-settle")
        return True

    def _tell_services(self) -> None:
        slots = self._slots
        link = slots.link
        hooks.run_all(self._identity.setup.reload, certificate=link / "certificate.pem", key=slots.key_for_services)
        slots.mark_reloaded()

    def rehearse(self) -> Outcome:
        """Do all that a renewal does but for the renewal: reach the service as who we are, make a key, write it, run the hooks."""
        slots = self._slots
        self._check_enrolled()
        facts, key = read_pair(slots)
        trial = Slots(self._identity.folder / REHEARSAL, slots.keys, slots.owner)
        try:
            trial.make_next_key(key.algorithm)
        finally:
            trial.forget()
            with suppress(OSError):
                trial.pairs.rmdir()
                trial.folder.rmdir()
        self._in_time(lambda: self._ask(facts))
        asking.report(self._service, slots, {"outcome": "rehearsed"}, by=self._by, hand=self._hand)
        hooks.run_all(self._identity.setup.reload, certificate=slots.link / "certificate.pem", key=slots.key_for_services, dry=True)
        self._save()
        return Outcome("rehearsed", facts, self.next_at())

    # ---- When -------------------------------------------------------------------------------------------------------

    def next_at(self) -> UnixTime:
        """When there is something to do next."""
        try:
            facts = read_pair(self._slots)[0]
        except FleetcaError:
            return self._memory.try_at
        if not (self._slots.reloaded and self._slots.settled):
            return self._memory.try_at
        return schedule.next_at(_life(facts), self._known(facts))

    def _known(self, facts: CertificateFacts) -> schedule.Known:
        memory = self._memory
        own = memory.serial == f"{facts.serial:040x}"
        return schedule.Known(memory.start if own else None, memory.ask_at if own else 0, memory.try_at, memory.failures)

    def _ask(self, facts: CertificateFacts) -> None:
        window = asking.window(self._service, facts)
        memory, now = self._memory, self._hand.clock.now()
        memory.start, memory.end, memory.reason, memory.serial = window.start, window.end, window.reason, f"{facts.serial:040x}"
        memory.ask_at = now + schedule.ask_after(_life(facts), told=window.ask_after, chance=self._chance())

    def _keep_trust(self) -> None:
        """Hear of new trust anchors. A set that does not count is remembered for operators; the renewal does not wait for it."""
        now = self._hand.clock.now()
        try:
            trust.refresh(self._identity, self._service, now=now)
            trust.retire(self._identity, now=now)
        except (Denied, Malformed) as error:
            self._remember("failed", error)

    def _chance(self) -> float:
        return int.from_bytes(self._hand.chance.octets(4), "big") / 2**32

    # ---- What came of it --------------------------------------------------------------------------------------------

    def _remember(self, outcome: str, error: FleetcaError | None = None) -> None:
        memory = self._memory
        memory.outcome, memory.at, memory.told = outcome, self._hand.clock.now(), False
        memory.code, memory.why = ("", "") if error is None else (error.code, str(error))

    def _failed(self, facts: CertificateFacts | None, error: FleetcaError) -> None:
        memory, now = self._memory, self._hand.clock.now()
        self._remember("failed", error)
        if facts is None:
            memory.try_at = now + schedule.SLOWEST // 6
        else:
            told = error.retry_after if isinstance(error, Unavailable) and error.retry_after > 5 else None
            memory.try_at = now + schedule.pause(_life(facts), self._known(facts), now=now, told=told, chance=self._chance())
        memory.failures += 1
        if facts is not None and error.code != "service-unreachable":
            self._report(facts)
        self._save()

    def _report(self, facts: CertificateFacts) -> None:
        """Tell the service, if it wants to hear; nothing depends on it."""
        memory = self._memory
        due = schedule.renew_from(_life(facts), self._known(facts))
        said: dict[str, Any] = {"outcome": memory.outcome, "due": due, "agent": self._version}
        if memory.code:
            said["code"] = memory.code
        with suppress(FleetcaError):
            asking.report(self._service, self._slots, said, by=self._by, hand=self._hand)
            memory.told = True

    def _save(self) -> None:
        memory = self._memory
        memory.slot, memory.saved_at, memory.next_at = str(self._slots.number), self._hand.clock.now(), self.next_at()
        self._identity.remember(self._memory)
        self._hand.failpoint("agent.after-state")

    # ---- Clock and disk ---------------------------------------------------------------------------------------------

    def _in_time(self, work: Callable[[], Any]) -> Any:
        """Do it; and once more by the service's clock, where ours turns out to be wrong."""
        try:
            return work()
        except FleetcaError as error:
            if error.code == "handshake-refused" and self._new_trust():
                return work()
            if error.code not in CLOCK_CODES or self._service.unchecked_time:
                raise
            facts = None
            with suppress(FleetcaError):
                facts = read_pair(self._slots)[0]
            self._learn_time(facts)
            return work()

    def _new_trust(self) -> bool:
        """The service may have moved to a root that we have not heard of: whether a set that our own root signed says so."""
        try:
            return trust.refresh(self._identity, self._service, now=self._hand.clock.now(), believed=False)
        except FleetcaError:
            return False

    def _learn_time(self, facts: CertificateFacts | None) -> None:
        then = service_time(self._service, floor=0 if facts is None else facts.not_before)
        base: Clock = self._hand.clock
        self._hand = replace(self._hand, clock=Shifted(base, then - base.now()))
        self._service = Service(self._service.url, self._service.root, self._service.proxy, unchecked_time=True)

    def _keep_reserve(self) -> None:
        file = self._identity.folder / RESERVE
        if not file.exists():
            with suppress(FleetcaError):
                put_new(file, b"\xa5" * RESERVED, mode=0o600)


def proxy_for(setup: Setup) -> str | None:
    """The proxy that leads to the service, if there is one."""
    if setup.proxy:
        return None if setup.proxy == "none" else setup.proxy
    host = urlsplit(setup.url).hostname or ""
    if proxy_bypass(host) or host in {"localhost", "127.0.0.1", "::1"}:
        return None
    return getproxies().get("https")


def _life(facts: CertificateFacts) -> schedule.Life:
    return schedule.Life(facts.not_before, facts.not_after)


def revoke_self(identity: Identity, service: Service, hand: Hand) -> None:
    """Say that the certificate in use is needed no more. One that does not hold any more is as good."""
    facts, key = read_pair(identity.slots)
    by = renewing.speaking(By(identity.setup.by), facts, key, hand.clock.now())
    client = renewing.open_client(service, None if by is By.message else identity.slots)
    try:
        body: dict[str, Any] = {"reason": "cessationOfOperation"}
        if by is By.message:
            known = client.post("/v1/confirm", {"message": renewing.message_body(client, facts, key, Act.confirm, hand=hand)})
            own = CertificateRef(IssuerId(str(known["issuer"])), facts.serial)
            said = {"reason": Reason.cessationOfOperation, "target": own}
            body = {"message": renewing.message_body(client, facts, key, Act.revoke, hand=hand, **said)}
        client.post("/v1/revoke", body)
    except Denied as error:
        if error.code not in {"certificate-revoked", "certificate-expired"}:
            raise
    finally:
        client.close()
