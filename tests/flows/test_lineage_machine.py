"""Devices, their lineages and their signer, driven at random beside a small model of P1, P5 and P9 that was written without looking at the rules.

Devices enrol, renew, confirm, say that a successor arrived, lose their keys and are revoked; the signer crashes at every place it has a name for
and recovers; time passes, and now and then goes back. What each request answers is compared with the model at once, and everything on record
after every step. One kind of device keeps its superseded certificates, the other has them revoked.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from ca.errors import FleetcaError
from ca.model import (
    Certificate,
    CertificateState,
    ConfirmRequest,
    IssueRequest,
    OnSuperseded,
    PresentedCertificate,
    ProfileName,
    Reason,
    Role,
    TokenEvidence,
)
from ca.rules import renewal, rows
from ca.rules.message import Act
from tests.databases import Cluster, postgres, sqlite_url  # noqa: F401
from tests.fakes.signer_world import DAY, NOW, Keypair, World, changed, der_of

HOUR = 3600
GRACE, LATE, TOKEN, MESSAGE = 2 * HOUR, 2 * DAY, 5 * DAY, HOUR
"""How long a grace, an expired certificate's key, a token and a signed renewal count."""
KEEP, STRICT = ProfileName("device"), ProfileName("strict")
DEVICES = {"pump-1": KEEP, "pump-2": KEEP, "valve-1": STRICT}

WHICH = st.integers(0, 50)
KEY = st.sampled_from([None] * 9 + [0, 1, 5])
"""A new key, mostly; sometimes that of a certificate there is."""
HOW = st.sampled_from(["presented", "message"])
CRASHES = [
    "issue.before-intent",
    "issue.after-intent-commit",
    "issue.after-journal",
    "issue.after-sign",
    "issue.after-reread",
    "issue.before-result-commit",
    "issue.after-result-commit",
]
NOTHING_YET, DONE = {"issue.before-intent"}, {"issue.after-result-commit"}


class Crash(BaseException):
    """The process ends here: nothing of ours catches it."""


# ---- The model ------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Held:
    """A certificate that was issued."""

    pair: Keypair
    device: str
    ends: int
    parent: Held | None
    status: Reason | None = None
    """Its latest change."""
    used: int | None = None
    arrived: int | None = None
    grace_ends: int | None = None
    marked: int | None = None
    """Since when it is superseded, once that was written down."""
    doubted: int | None = None
    """When its key spoke first after another had its place."""

    @property
    def revoked(self) -> bool:
        return self.status not in {None, Reason.removeFromCRL}

    def live(self, now: int) -> bool:
        return not self.revoked and now <= self.ends

    def superseded(self, now: int) -> bool:
        return self.marked is not None or (self.grace_ends is not None and self.grace_ends <= now)


@dataclass(eq=False)
class Asked:
    """A request for a certificate as it was sent, to be sent again."""

    request: IssueRequest
    pair: Keypair
    device: str
    at: int
    parent: Held | None
    how: str
    got: Held | None = None
    decided: bool = False
    """An intent for it was committed, and its token used."""
    withdrawn: bool = False
    """Its token, when its device was revoked."""


class Fleet:
    """What must be true, without a database, a signature or a transaction."""

    def __init__(self) -> None:
        self.now = NOW
        self.held: list[Held] = []
        self.gone: set[str] = set()
        """Devices that were revoked."""
        self.keys: dict[Any, str] = {}
        """Whose each private key is, since an intent for it was committed."""

    def speaks(self, one: Held, *, late: int = 0) -> str | None:
        if one.revoked:
            return "certificate-revoked"
        return "certificate-expired" if self.now > one.ends + late else None

    def siblings(self, one: Held) -> list[Held]:
        return [] if one.parent is None else [other for other in self.held if other.parent is one.parent and other is not one]

    def replaced(self, one: Held | None, refusal: str | None) -> bool:
        """Is it refused because another was used in its place: of the same parent, or its own renewal?"""
        if one is None or refusal not in {"superseded", "certificate-revoked"} or not one.superseded(self.now):
            return False
        return any(other.used for other in self.siblings(one)) or any(other.parent is one and other.used for other in self.held)

    def told(self, one: Held | None, refusal: str | None) -> str | None:
        """What is said to who comes second."""
        if one is None or not self.replaced(one, refusal) or not any(other.used for other in self.siblings(one)):
            return refusal
        return "sibling-used" if one.status in {None, Reason.superseded, Reason.removeFromCRL} else refusal

    def doubt(self, one: Held | None, refusal: str | None) -> None:
        if one is not None and self.replaced(one, refusal):
            one.doubted = one.doubted or self.now

    def may_get(self, asked: Asked) -> str | None:
        """Why a request that was not granted before is refused."""
        if asked.how == "message" and self.now - asked.at > MESSAGE:
            return "message-out-of-time"
        if asked.withdrawn:
            return "token-revoked"
        if asked.parent is None:
            refusal = "token-expired" if self.now >= asked.at + TOKEN else None
        else:
            refusal = self.speaks(asked.parent, late=LATE if asked.how == "message" else 0)
            refusal = refusal or ("superseded" if asked.parent.superseded(self.now) else None)
        refusal = refusal or ("device-retired" if asked.device in self.gone else None)
        if refusal is None and self.keys.get(asked.pair.private, asked.device) != asked.device:
            return "key-of-another-device"
        if refusal is None and any(one.pair.private is asked.pair.private for one in self.held):
            return "key-used-before"
        return refusal

    def may_confirm(self, one: Held, successor: Held | None) -> str | None:
        refusal = self.speaks(one)
        if refusal is None and successor is not None and successor.parent is not one:
            refusal = "not-your-successor"
        if refusal is None and (successor is None or successor.arrived is None):
            refusal = "superseded" if one.superseded(self.now) else None
            if refusal is None and successor is not None and not successor.live(self.now):
                refusal = "successor-ended"
        return refusal or ("device-retired" if one.device in self.gone else None)

    def may_change(self, one: Held, reason: Reason) -> str | None:
        if one.status is reason:
            return None
        if reason is Reason.removeFromCRL:
            return None if one.status is Reason.certificateHold else "not-on-hold"
        if self.now > one.ends:
            return "certificate-expired"
        final = one.revoked and one.status is not Reason.certificateHold
        return "already-revoked" if final and reason is not Reason.keyCompromise else None

    def use(self, one: Held) -> None:
        if one.used is None:
            for other in self.siblings(one):
                if other.marked is None:
                    self.mark(other)
        one.used = one.used or self.now
        above = one.parent
        while above is not None and above.marked is None:
            self.mark(above)
            above = above.parent

    def mark(self, one: Held) -> None:
        live = one.live(self.now)
        one.marked = min(self.now, one.grace_ends or self.now)
        if live and DEVICES[one.device] is STRICT:
            one.status = Reason.superseded

    def arrive(self, one: Held, successor: Held) -> None:
        self.use(one)
        if successor.arrived is None:
            successor.arrived = self.now
            one.grace_ends = one.grace_ends or self.now + GRACE

    def due(self) -> list[Held]:
        return [one for one in self.held if one.marked is None and one.superseded(self.now)]

    def revoke_device(self, device: str) -> None:
        self.gone.add(device)
        for one in self.held:
            if one.device == device and self.now <= one.ends and one.status in {None, Reason.certificateHold, Reason.removeFromCRL}:
                one.status = Reason.cessationOfOperation


# ---- The machine ----------------------------------------------------------------------------------------------------


class Lineages(RuleBasedStateMachine):
    fresh: ClassVar[Callable[[Path], tuple[str, Callable[[], None]]]]
    """The url of an empty database in a folder, and what gives it back."""

    @initialize()
    def start(self) -> None:
        # What a power cut leaves is not asked here, and a disk that must sync makes this ten times slower.
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix="fleetca-machine-", dir=memory if memory.is_dir() else None))
        url, self.give_back = type(self).fresh(self.folder)
        self.crash_at: str | None = None
        self.world = World(self.folder, url, failpoint=self._pass)
        profile = replace(self.world.profiles[KEEP], grace=GRACE, renew_after_expiry=LATE)
        self.world.profiles[KEEP] = profile
        self.world.profiles[STRICT] = changed(profile, name=STRICT, on_superseded=OnSuperseded.revoke)
        self.fleet = Fleet()
        self.asked: list[Asked] = []
        self.seen: list[Certificate] = []
        """What was on record after the step before."""
        for device in DEVICES:
            self._ask(self._enrolment(device))

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            report = self.world.recovery.recover()
            assert (report.intents, report.forgotten, report.revocations, report.devices, report.unreadable) == ((), 0, 0, 0, ())
            self.every_row_has_its_leaf()
        finally:
            self.world.close()
            self.give_back()
            shutil.rmtree(self.folder)

    def _pass(self, place: str) -> None:
        if place == self.crash_at:
            raise Crash

    def _said(self, call: Callable[[], Any]) -> Any:
        """What a verb answers: its value, or the code of its refusal."""
        try:
            return call()
        except FleetcaError as error:
            return error.code

    def _one(self, which: int) -> Held:
        # Counted from the newest: a small number is an interesting one.
        return self.fleet.held[-1 - which % len(self.fleet.held)]

    def _pair(self, key_of: int | None) -> Keypair:
        pair = Keypair()
        if key_of is not None and self.fleet.held:
            pair.private = self._one(key_of).pair.private
        return pair

    # ---- Certificates for devices

    @rule(device=st.sampled_from(sorted(DEVICES)), key_of=KEY)
    def enrol(self, device: str, key_of: int | None) -> None:
        self._ask(self._enrolment(device, key_of))

    @rule(device=st.sampled_from(sorted(DEVICES)))
    def get_a_token_for_later(self, device: str) -> None:
        asked = self._enrolment(device)
        if asked is not None:
            self.asked.append(asked)

    def _enrolment(self, device: str, key_of: int | None = None) -> Asked | None:
        made = self._said(lambda: self.world.token(device, DEVICES[device], lifetime=TOKEN))
        if device in self.fleet.gone:
            assert made == "device-retired"
            return None
        pair = self._pair(key_of)
        return Asked(IssueRequest(pair.csr(), TokenEvidence(made.text)), pair, device, self.fleet.now, None, "token")

    @precondition(lambda self: self.fleet.held)
    @rule(which=WHICH, key_of=KEY, how=HOW)
    def renew(self, which: int, key_of: int | None, how: str) -> None:
        self._ask(self._renewal(self._one(which), how, key_of))

    @precondition(lambda self: self._current())
    @rule(which=WHICH, how=HOW)
    def renew_what_is_current(self, which: int, how: str) -> None:
        """What devices do all day; chance alone would seldom get so far."""
        current = self._current()
        self._ask(self._renewal(current[which % len(current)], how))

    @precondition(lambda self: self._parents())
    @rule(which=WHICH, how=HOW)
    def renew_again_from_the_same(self, which: int, how: str) -> None:
        """A device that lost an answer, or a thief who copied its key."""
        parents = self._parents()
        self._ask(self._renewal(parents[which % len(parents)], how))

    def _parents(self) -> list[Held]:
        """Those that were renewed, and may be again."""
        return [one for one in self._current() if any(other.parent is one for other in self.fleet.held)]

    @precondition(lambda self: self._in_doubt())
    @rule(which=WHICH, how=HOW, renewing=st.booleans())
    def speak_again(self, which: int, how: str, renewing: bool) -> None:
        """Whose successor or sibling was used, or soon may be."""
        found = self._in_doubt()
        one = found[which % len(found)]
        if renewing:
            self._ask(self._renewal(one, how))
        else:
            self._confirm(one, None, how)

    def _in_doubt(self) -> list[Held]:
        return [one for one in reversed(self.fleet.held) if self.fleet.now <= one.ends and self.fleet.siblings(one)]

    def _current(self) -> list[Held]:
        now = self.fleet.now
        return [one for one in reversed(self.fleet.held) if one.live(now) and not one.superseded(now)]

    def _renewal(self, parent: Held, how: str, key_of: int | None = None) -> Asked:
        pair = self._pair(key_of)
        csr = pair.csr()
        evidence: Any = PresentedCertificate(parent.pair.certificate)
        if how == "message":
            evidence = self.world.message(parent.pair, Act.renew, csr=csr)
        return Asked(IssueRequest(csr, evidence), pair, parent.device, self.fleet.now, parent, how)

    @precondition(lambda self: self.asked)
    @rule(which=WHICH)
    def ask_again(self, which: int) -> None:
        asked = self.asked[-1 - which % len(self.asked)]
        if asked.got is None:
            self._ask(asked)
            return
        said = self._said(lambda: self.world.issue(asked.request))
        if asked.how == "message" and self.fleet.now - asked.at > MESSAGE:
            assert said == "message-out-of-time"
        elif asked.got.live(self.fleet.now):
            assert said.repeated
            assert der_of(said) == asked.got.pair.certificate
        else:
            assert said == "request-spent"

    def _ask(self, asked: Asked | None) -> None:
        if asked is None:
            return
        expected = self.fleet.may_get(asked)
        said = self._said(lambda: self.world.issue(asked.request))
        if expected is not None:
            assert said == self.fleet.told(asked.parent, expected)
            self.fleet.doubt(asked.parent, expected)
            return
        assert not isinstance(said, str), said
        assert not said.repeated
        self._granted(asked, said.certificate)

    def _decided(self, asked: Asked) -> None:
        """Its intent was committed: what that did stays done, whatever becomes of the certificate."""
        self.fleet.keys[asked.pair.private] = asked.device
        asked.decided = True
        if asked.parent is not None:
            self.fleet.use(asked.parent)
        if asked not in self.asked:
            self.asked.append(asked)

    def _granted(self, asked: Asked, row: Certificate) -> None:
        self._decided(asked)
        assert row.der is not None
        asked.pair.certificate = row.der
        asked.got = Held(asked.pair, asked.device, row.not_after, asked.parent)
        self.fleet.held.append(asked.got)

    # ---- What devices say

    @precondition(lambda self: self.fleet.held)
    @rule(which=WHICH, how=HOW)
    def confirm(self, which: int, how: str) -> None:
        self._confirm(self._one(which), None, how)

    @precondition(lambda self: self._children())
    @rule(which=WHICH, how=HOW)
    def confirm_delivery(self, which: int, how: str) -> None:
        children = self._children()
        successor = children[which % len(children)]
        assert successor.parent is not None
        self._confirm(successor.parent, successor, how)

    def _children(self) -> list[Held]:
        """Those first of which it can be said."""
        found = [one for one in reversed(self.fleet.held) if one.parent is not None]
        return sorted(found, key=lambda one: one.parent is None or self.fleet.may_confirm(one.parent, one) is not None)

    @precondition(lambda self: self.fleet.held)
    @rule(which=WHICH, other=WHICH, how=HOW)
    def confirm_delivery_of_anything(self, which: int, other: int, how: str) -> None:
        self._confirm(self._one(other), self._one(which), how)

    def _confirm(self, one: Held, successor: Held | None, how: str) -> None:
        target = None if successor is None else self.world.row(successor.pair).ref
        evidence: Any = PresentedCertificate(one.pair.certificate)
        if how == "message":
            evidence = self.world.message(one.pair, Act.confirm, target=target)
        expected = self.fleet.may_confirm(one, successor)
        said = self._said(lambda: self.world.confirming.confirm(ConfirmRequest(evidence, target), self.world.peer(Role.enroll)))
        if expected is not None:
            assert said == self.fleet.told(one, expected)
            self.fleet.doubt(one, expected)
            return
        assert said == self.world.row(one.pair)
        if successor is None:
            self.fleet.use(one)
        else:
            self.fleet.arrive(one, successor)

    # ---- What operators do

    @precondition(lambda self: self.fleet.held)
    @rule(which=WHICH, reason=st.sampled_from([Reason.keyCompromise, Reason.superseded, Reason.certificateHold, Reason.removeFromCRL]))
    def change_status(self, which: int, reason: Reason) -> None:
        one = self._one(which)
        expected = self.fleet.may_change(one, reason)
        said = self._said(lambda: self.world.revoke_certificate(one.pair, reason))
        if expected is not None:
            assert said == expected
            return
        assert [change.reason for change in said] == [reason]
        one.status = reason

    @precondition(lambda self: len(self.fleet.held) > 8)
    @rule(which=WHICH)
    def revoke_device(self, which: int) -> None:
        device = self._one(which).device
        assert not isinstance(self._said(lambda: self.world.revoke_device(device)), str)
        self.fleet.revoke_device(device)
        for asked in self.asked:
            outstanding = asked.how == "token" and not asked.decided and self.fleet.now < asked.at + TOKEN
            asked.withdrawn = asked.withdrawn or (outstanding and asked.device == device)

    # ---- What happens to the signer

    @rule(seconds=st.sampled_from([1, 60, HOUR, GRACE, DAY, 7 * DAY]))
    def time_passes(self, seconds: int) -> None:
        self._wait(seconds)

    def _wait(self, seconds: int) -> None:
        self.fleet.now += seconds
        self.world.clock.at = self.fleet.now

    @precondition(lambda self: self._graces())
    @rule(which=WHICH, offset=st.sampled_from([0, 1, -1]))
    def a_grace_ends(self, which: int, offset: int) -> None:
        self._come_to(self._graces(), which, offset)

    @precondition(lambda self: len(self.fleet.held) > 6)
    @rule(which=WHICH, offset=st.sampled_from([0, 1, -1]))
    def a_certificate_ends(self, which: int, offset: int) -> None:
        """Or the days after that in which its key may still ask for a renewal."""
        self._come_to(sorted({end for one in self.fleet.held for end in (one.ends, one.ends + LATE)}), which, offset)

    def _graces(self) -> list[int]:
        return sorted({one.grace_ends for one in self.fleet.held if one.grace_ends is not None and one.grace_ends > self.fleet.now})

    def _come_to(self, moments: list[int], which: int, offset: int) -> None:
        coming = [moment + offset for moment in moments if moment + offset > self.fleet.now]
        if coming:
            self._wait(coming[which % len(coming)] - self.fleet.now)

    @rule()
    def keep_house(self) -> None:
        due = self.fleet.due()
        ended = self.world.superseding.end_graces()
        assert set(ended) == {self.world.row(one.pair).ref for one in due}
        for one in due:
            self.fleet.mark(one)

    @precondition(lambda self: len(self.fleet.held) > 4)
    @rule(which=WHICH)
    def the_clock_is_set_back(self, which: int) -> None:
        one = self._one(which)
        with self.world.store.ledger.writing() as tx:
            high = tx.high_time()
        self.world.clock.at = high - 3
        assert self._said(lambda: self.world.revoke_certificate(one.pair)) == "clock-set-back"
        assert self._said(self.world.superseding.end_graces) == "clock-set-back"
        self.world.clock.at = self.fleet.now

    @rule(place=st.sampled_from(CRASHES), which=WHICH, renewing=st.booleans(), how=HOW, whole=st.booleans())
    def crash_while_issuing(self, place: str, which: int, renewing: bool, how: str, whole: bool) -> None:
        asked = (
            self._renewal(self._one(which), how) if renewing and self.fleet.held else self._enrolment(sorted(DEVICES)[which % len(DEVICES)])
        )
        if asked is None:
            return
        before = {row.ref for row in self.world.rows()}
        expected = self.fleet.may_get(asked)
        self.crash_at = place
        try:
            said = self._said(lambda: self.world.issue(asked.request))
        except Crash:
            said = None
        self.crash_at = None
        self._recover(whole=whole)
        new = [row for row in self.world.rows() if row.ref not in before]
        if expected is not None or place in NOTHING_YET:
            assert said in {self.fleet.told(asked.parent, expected), None}
            assert new == []
            if said is not None:
                self.fleet.doubt(asked.parent, expected)
            if expected is None:
                self.asked.append(asked)  # nobody answered: it will be sent again
            return
        (row,) = new
        if place in DONE:
            assert row.state is CertificateState.issued
            self._granted(asked, row)
        else:
            assert (row.state, row.device) == (CertificateState.void, asked.device)
            self._decided(asked)

    @precondition(lambda self: self.fleet.held)
    @rule(place=st.sampled_from(["revoke.before-commit", "revoke.after-commit", "revoke.after-journal"]), which=WHICH, whole=st.booleans())
    def crash_while_revoking(self, place: str, which: int, whole: bool) -> None:
        one = self._one(which)
        refused = self.fleet.may_change(one, Reason.keyCompromise)
        self.crash_at = place
        try:
            said = self._said(lambda: self.world.revoke_certificate(one.pair))
            assert said == refused or refused is None
        except Crash:
            if refused is None and place != "revoke.before-commit":
                one.status = Reason.keyCompromise
        else:
            if refused is None:
                one.status = Reason.keyCompromise
        self.crash_at = None
        self._recover(whole=whole)

    @rule(whole=st.booleans())
    def restart(self, whole: bool) -> None:
        self._recover(whole=whole)

    def _recover(self, *, whole: bool) -> None:
        """A new process: what waited for the journal in the old one's memory is gone."""
        self.world.restart()
        if whole:
            self.world.recovery.recover()
        else:
            self.world.recovery.finish()

    # ---- What must always hold

    @invariant()
    def everything_on_record_is_as_it_must_be(self) -> None:
        if not hasattr(self, "world"):
            return
        found = self.world.rows()
        self.P9_every_certificate_stands_as_the_model_says({row.der: row for row in found if row.der is not None})
        self.P1_every_signature_has_its_intent_and_every_request_one_live_serial(found)
        self.P5_no_delivered_certificate_is_unknown_and_no_void_one_good(found)
        self.P9_a_key_is_of_one_device_and_a_revoked_device_has_nothing_that_holds(found)
        self.seen = found

    def P9_every_certificate_stands_as_the_model_says(self, by_der: dict[bytes, Certificate]) -> None:
        now = self.fleet.now
        assert len(by_der) == len(self.fleet.held)
        for one in self.fleet.held:
            row = by_der[one.pair.certificate]
            status = None if row.revocation is None else row.revocation.reason
            assert (row.device, row.state, status) == (one.device, CertificateState.issued, one.status)
            assert (row.first_used_at, row.delivered_at, row.grace_ends_at) == (one.used, one.arrived, one.grace_ends)
            assert row.superseded_at == one.marked
            assert row.clone_seen_at == one.doubted
            # Nobody is stranded: who is displaced unused and in no grace has a sibling or a renewal that was used.
            if one.marked is not None and one.used is None and one.grace_ends is None:
                assert any(other.used for other in self.fleet.siblings(one))
            assert renewal.superseded(row, now=now) == one.superseded(now)
            assert row.parent == (None if one.parent is None else by_der[one.parent.pair.certificate].ref)

    def P1_every_signature_has_its_intent_and_every_request_one_live_serial(self, found: list[Certificate]) -> None:
        signed = self.world.key.signed
        assert len(set(signed)) == len(signed)
        assert set(signed) <= {row.tbs for row in found}
        live = [row.request_key for row in found if row.state is not CertificateState.void]
        assert len(set(live)) == len(live)

    def P5_no_delivered_certificate_is_unknown_and_no_void_one_good(self, found: list[Certificate]) -> None:
        for row in found:
            if row not in self.seen:
                assert self.world.store.reading.status_of(row.ref.issuer, row.ref.serial) == (row.state, row.revocation)
            assert row.state is CertificateState.issued or (row.state is CertificateState.void and renewal.revoked(row))

    def P9_a_key_is_of_one_device_and_a_revoked_device_has_nothing_that_holds(self, found: list[Certificate]) -> None:
        owners: dict[bytes, str] = {}
        for row in found:
            assert owners.setdefault(row.spki_sha256, row.device) == row.device
            assert row.device not in self.fleet.gone or not renewal.live(row, now=self.fleet.now)

    def every_row_has_its_leaf(self) -> None:
        """P8, once at the end: what the rows say, leaves said, and nothing else."""
        of_kinds = {"issuance", "void", "delivery", "supersede", "clone"}
        told = {(fact.kind, fact.key, fact.digest) for fact in self._leaves() if fact.kind in of_kinds}
        stand = {(fact.kind, fact.key, fact.digest) for row in self.world.rows() for fact in rows.of_certificate(row)}
        assert told == stand

    def _leaves(self) -> Iterator[rows.Fact]:
        for leaf in self.world.store.reading.pending_leaves(100_000):
            fact, _ = rows.of_leaf(leaf.body)
            if fact is not None:
                yield fact


QUICK = settings(
    max_examples=20,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)
LONG = settings(QUICK, stateful_step_count=60, derandomize=False, print_blob=True)


def on(fresh: Callable[[Path], tuple[str, Callable[[], None]]]) -> type[Lineages]:
    return type("Lineages", (Lineages,), {"fresh": staticmethod(fresh)})


@pytest.fixture
def sqlite(tmp_path: Path) -> type[Lineages]:
    """Each run on a copy of one empty file: migrating takes longer than a run."""
    sqlite_url(tmp_path)

    def fresh(folder: Path) -> tuple[str, Callable[[], None]]:
        shutil.copy(tmp_path / "fleetca.db", folder / "fleetca.db")
        return f"sqlite:///{folder / 'fleetca.db'}", lambda: None

    return on(fresh)


@pytest.fixture
def postgresql(postgres: Cluster) -> type[Lineages]:  # noqa: F811
    def fresh(_: Path) -> tuple[str, Callable[[], None]]:
        url = postgres.database()
        return url, lambda: postgres.take_back(url)

    return on(fresh)


def test_P1_P5_P9_lineages_do_what_the_model_does(sqlite: type[Lineages]) -> None:
    run_state_machine_as_test(sqlite, settings=QUICK)  # type: ignore[no-untyped-call]


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("database", "examples"), [("sqlite", 400), ("postgresql", 120)])
def test_P1_P5_P9_lineages_do_what_the_model_does_for_long(request: pytest.FixtureRequest, database: str, examples: int) -> None:
    run_state_machine_as_test(request.getfixturevalue(database), settings=settings(LONG, max_examples=examples))  # type: ignore[no-untyped-call]
