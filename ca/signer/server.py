"""The signer's verbs behind its socket: what a request asks, who answers it, what the log says of it. Edge: contains no rule.

Evidence is read in the thread that serves the connections, and issuing waits at the desk without a thread. Every other verb is rare and has a
thread while it runs; what decides does so at the desk all the same. CRLs are signed beside the desk, one at a time, and written to the
descriptor that came with the request.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ca.approvals import Approving
from ca.confirm import Confirming
from ca.describe import Describing
from ca.errors import Broken, Contested, Denied, FleetcaError, NotFound, Unavailable
from ca.hardware import Challenging
from ca.import_manifest import REFUSED, ImportingManifests
from ca.issue import Issuing, Prepared
from ca.model import (
    ChallengeRequest,
    DeviceDescription,
    Issued,
    ManifestImport,
    OperatorName,
    Peer,
    Proposal,
    ProposalRequest,
    Role,
    TenantId,
)
from ca.operators import Operators
from ca.order_renewals import Ordering
from ca.provision import Provisioning
from ca.record_ceremony import RecordingCeremonies
from ca.revive import Reviving
from ca.revoke import Revoking
from ca.rules import forms, ids
from ca.sign_crl import CrlSigning
from ca.signer import line_desk, messages
from ca.signer.desk import Desk, Log, Silence
from ca.signer.line_desk import LineDesk
from ca.signer.lines import Lines, Request
from ca.signer.questions import Questions
from ca.supersede import Superseding
from ca.tokens import Tokens
from ca.two_persons import TwoPersons
from ca.wipe import Wiping

HOUSEKEEPING: Final = 60.0
"""Seconds between two looks for what became due without anybody asking."""


@dataclass(frozen=True, slots=True)
class Verbs:
    """What the signer can do, put together by wiring."""

    issuing: Issuing
    revoking: Revoking
    tokens: Tokens
    ordering: Ordering
    approving: Approving
    two_persons: TwoPersons
    reviving: Reviving
    confirming: Confirming
    superseding: Superseding
    crls: CrlSigning
    operators: Operators
    describing: Describing
    provisioning: Provisioning
    wiping: Wiping
    challenging: Challenging
    manifests: ImportingManifests
    ceremonies: RecordingCeremonies
    questions: Questions


Handler = Callable[[dict[str, Any], Peer, "int | None"], Any]


class SignerServer:
    """Listens from `start` to `stop`.

    Args:
        users: the roles of each user id; nobody else gets past the greeting.
        mode: of the socket: 0o600, or 0o660 where other users share its group.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        verbs: Verbs,
        desk: Desk,
        users: Mapping[int, frozenset[Role]],
        monotonic: Callable[[], float],
        mode: int = 0o600,
        log: Log | None = None,
    ) -> None:
        self._path, self._verbs, self._desk = Path(path), verbs, desk
        self._log: Log = log or Silence()
        self._lines = Lines(self._path, users=users, mode=mode, monotonic=monotonic, log=self._log, asked=self._asked)
        self._crl_lock = threading.Lock()
        self._challenge_lock = threading.Lock()
        self._stopping = threading.Event()
        self._handlers: Mapping[str, Handler] = {
            "revoke": self._revoke,
            "create-token": self._create_token,
            "revoke-token": self._revoke_token,
            "bind-account": self._bind_account,
            "order-renewals": self._order_renewals,
            "withdraw-renewal-order": self._withdraw_renewal_order,
            "decide-approval": self._decide_approval,
            "propose": self._propose,
            "revive-device": self._revive_device,
            "confirm": self._confirm,
            "sign-crl": self._sign_crl,
            "crl-published": self._crl_published,
            "crl-overridden": self._crl_overridden,
            "add-operator": self._add_operator,
            "disable-operator": self._disable_operator,
            "describe-device": self._describe_device,
            "order-wipe": self._order_wipe,
            "take-wipe": self._take_wipe,
            "waive-wipe": self._waive_wipe,
            "challenge-tpm": self._challenge_tpm,
            "import-manifest": self._import_manifest,
            "record-ceremony": self._record_ceremony,
            **LineDesk(verbs.provisioning, desk, self._log).handlers,
            "health": self._health,
            **dict.fromkeys(verbs.questions.NAMES, self._question),
        }

    # ---- Life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen. A socket left by a dead signer is taken over: the caller holds the signer's lock.

        Raises:
            Misconfigured: the path cannot be a socket.
        """
        self._lines.start()
        self._desk.start()
        threading.Thread(target=self._keep_house, name="signer-housekeeping", daemon=True).start()
        self._log.info("listening", socket=str(self._path))

    def stop(self) -> None:
        """Drain: take no new connection or request, answer what was asked, then close."""
        self._stopping.set()
        self._lines.refuse_new()
        self._desk.stop()
        self._lines.stop()
        self._log.info("stopped")

    def _keep_house(self) -> None:
        """At the desk, like everything that decides."""
        while not self._stopping.wait(HOUSEKEEPING):
            try:
                for ref in self._desk.do(self._verbs.superseding.end_graces):
                    self._log.info("superseded", certificate=str(ref))
            except FleetcaError as error:
                self._log.warning("housekeeping-waits", code=error.code, what=error.what, why=error.why)

    # ---- One request ------------------------------------------------------------------------------------------------

    def _asked(self, request: Request) -> None:
        verb = "?"
        try:
            if self._stopping.is_set():
                raise Unavailable("signer-stopping", "The signer is stopping.", retry_after=2)
            verb, asked = messages.read_request(messages.unframe(request.body))
            if verb == "issue":
                self._issue(asked, request)
                return
            if verb == "issue-units":
                self._issue_units(asked, request)
                return
            handler = self._handlers.get(verb)
            if handler is None:
                raise NotFound("verb-unknown", "The signer does not know this verb.", fix="Run client and signer of the same release.")
        except Exception as error:  # noqa: BLE001 - one request must not take the others or the signer with it
            _close(request.descriptor)
            request.answer(self._failed(error, verb, request.peer))
            return
        threading.Thread(target=self._handle, args=(handler, verb, asked, request), name=f"signer-{verb}", daemon=True).start()

    def _handle(self, handler: Handler, verb: str, asked: dict[str, Any], request: Request) -> None:
        try:
            answer = messages.frame({"ok": forms.write(handler({**asked, _VERB: verb}, request.peer, request.descriptor))})
        except Exception as error:  # noqa: BLE001 - as above
            answer = self._failed(error, verb, request.peer)
        finally:
            _close(request.descriptor)
        request.answer(answer)

    def _unforeseen(self, error: Exception) -> FleetcaError:
        self._log.error("internal", verb="issue-units", kind=type(error).__name__, why=str(error))
        return Broken("internal", "Something failed inside the signer; nothing was released.")

    def _failed(self, error: Exception, verb: str, peer: Peer) -> bytes:
        if isinstance(error, FleetcaError):
            self._log.warning("refused", role=peer.role.value, uid=peer.uid, verb=verb, code=error.code, what=error.what, why=error.why)
            if isinstance(error, Contested):
                self._log.warning("clone-suspected", role=peer.role.value, uid=peer.uid, verb=verb, why=error.why, fix=error.fix)
            return messages.frame(messages.write_error(error))
        self._log.error("internal", verb=verb, kind=type(error).__name__, why=str(error))
        return messages.frame(messages.write_error(Broken("internal", "Something failed inside the signer; nothing was released.")))

    # ---- Verbs ------------------------------------------------------------------------------------------------------

    def _issue(self, body: dict[str, Any], request: Request) -> None:
        prepared = self._verbs.issuing.prepare(messages.read_issue(body, request.peer), request.peer)
        self._desk.submit(prepared, lambda outcome: request.soon(lambda: self._issued(request, prepared, outcome)))
        # Only now: who fails before answers for it.
        _close(request.descriptor)

    def _issued(self, request: Request, prepared: Prepared, outcome: Issued | FleetcaError) -> None:
        peer = request.peer
        try:
            if isinstance(outcome, FleetcaError):
                raise outcome
            found = outcome.certificate
            self._log.info(
                "repeated" if outcome.repeated else "issued",
                role=peer.role.value,
                uid=peer.uid,
                evidence=prepared.claim.kind.value,
                certificate=str(found.ref),
                device=found.device,
                profile=found.profile,
            )
            answer = messages.frame({"ok": forms.write(outcome)})
        except Exception as error:  # noqa: BLE001 - as above
            answer = self._failed(error, "issue", peer)
        request.answer(answer)

    def _issue_units(self, body: dict[str, Any], request: Request) -> None:
        """Many at once, at the desk like all others; answered when the last of them is decided."""
        asked = line_desk.read_units(body)
        gathered = line_desk.Gathered(len(asked), lambda all_: request.soon(lambda: self._units_issued(request, all_)))
        for place, one in enumerate(asked):
            try:
                self._desk.submit(self._verbs.issuing.prepare(one, request.peer), gathered.at(place))
            except Exception as error:  # noqa: BLE001 - one of many; it is answered with the others
                gathered.at(place)(error if isinstance(error, FleetcaError) else self._unforeseen(error))
        _close(request.descriptor)

    def _units_issued(self, request: Request, outcomes: Sequence[Issued | FleetcaError]) -> None:
        fresh = sum(not isinstance(one, FleetcaError) and not one.repeated for one in outcomes)
        codes = sorted({one.code for one in outcomes if isinstance(one, FleetcaError)})
        self._log.info("units-issued", role=request.peer.role.value, uid=request.peer.uid, fresh=fresh, asked=len(outcomes), refused=codes)
        request.answer(messages.frame({"ok": line_desk.write_outcomes(outcomes)}))

    def _revoke(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        prepared = self._verbs.revoking.prepare(messages.read_revoke(_plain(body), peer), peer)
        made = self._desk.do(prepared)
        self._log.info(
            "revoked",
            role=peer.role.value,
            uid=peer.uid,
            evidence=prepared.claim.kind.value,
            certificates=[str(change.ref) for change in made],
            reason=prepared.request.reason.name,
        )
        return made

    def _create_token(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        asked = messages.read_token(_plain(body), peer)
        made = self._desk.do(lambda: self._verbs.tokens.create(asked, peer))
        self._log.info("token-created", role=peer.role.value, uid=peer.uid, device=asked.device, hash=made.token.hash.hex()[:16])
        return made

    def _revoke_token(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        asked = messages.read_withdrawal(_plain(body), peer)
        gone = self._desk.do(lambda: self._verbs.tokens.revoke(asked, peer))
        hashes = [token.hash.hex()[:16] for token in gone]
        self._log.info("token-revoked", role=peer.role.value, uid=peer.uid, device=asked.device, hashes=hashes)
        return gone

    def _order_renewals(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        asked = messages.read_order(_plain(body), peer)
        made = self._desk.do(lambda: self._verbs.ordering.order(asked, peer))
        self._log.info("renewals-ordered", uid=peer.uid, number=made.number, within=made.within, issuer=made.issuer, profile=made.profile)
        return made

    def _withdraw_renewal_order(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        asked = messages.read_order_withdrawal(_plain(body), peer)
        made = self._desk.do(lambda: self._verbs.ordering.withdraw(asked, peer))
        self._log.info("renewals-withdrawn", uid=peer.uid, number=made.number)
        return made

    def _bind_account(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        asked = messages.read_binding(_plain(body), peer)
        token = self._desk.do(lambda: self._verbs.tokens.bind(asked, peer))
        self._log.info("account-bound", role=peer.role.value, uid=peer.uid, device=token.device, hash=token.hash.hex()[:16])
        return token

    def _decide_approval(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        asked = messages.read_decision(_plain(body), peer)
        made = self._desk.do(lambda: self._verbs.approving.decide(asked, peer))
        if isinstance(made, Proposal):
            by = made.answers[-1].operator
            self._log.warning("proposal-decided", operator=by, act=made.act.value, state=made.state.value, request=made.request.hex()[:16])
            return {"proposal": forms.write(made)}
        self._log.info(
            "approval-decided", actor=made.decided_by, device=made.device, state=made.state.value, request=made.request.hex()[:16]
        )
        return {"approval": forms.write(made)}

    def _propose(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        asked = ProposalRequest(messages.read_only_evidence(_plain(body), peer))
        made = self._desk.do(lambda: self._verbs.two_persons.propose(asked, peer))
        self._log.warning("proposed", operator=made.asked.operator, act=made.act.value, request=made.request.hex()[:16])
        return made

    def _revive_device(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        body = _plain(body)
        if set(body) != {"device"}:
            raise forms.bad("It takes device.")
        name = ids.device_id(forms.read(str, body["device"]))
        device = self._desk.do(lambda: self._verbs.reviving.revive(name, peer))
        self._log.warning("device-revived", role=peer.role.value, uid=peer.uid, device=device.id)
        return device

    def _confirm(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        asked = messages.read_confirm(_plain(body), peer)
        spoke = self._desk.do(lambda: self._verbs.confirming.confirm(asked, peer))
        if asked.successor is not None:
            self._log.info("delivered", role=peer.role.value, uid=peer.uid, certificate=str(asked.successor), device=spoke.device)
        return spoke

    def _sign_crl(self, body: dict[str, Any], peer: Peer, descriptor: int | None) -> Any:
        plain, base, afresh = messages.read_crl_form(_plain(body))
        issuer, shard, above, fence = messages.read_crl(plain)
        if descriptor is None:
            raise forms.bad("A CRL needs an open file that comes with the request.")
        # Not at the desk: a long list must not hold up issuing.
        with self._crl_lock, open(descriptor, "wb", buffering=0, closefd=False) as sink:
            intent = self._verbs.crls.sign(issuer, shard=shard, above=above, fence=fence, sink=sink, peer=peer, base=base, afresh=afresh)
        self._log.info("crl-signed", issuer=issuer, shard=shard, number=intent.number, base=base, count=intent.count)
        return intent

    def _crl_published(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        issuer, shard, number, fence = messages.read_crl(_plain(body))
        self._desk.do(lambda: self._verbs.crls.published(issuer, shard=shard, number=number, fence=fence, peer=peer))
        return {}

    def _crl_overridden(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        issuer, shard, number, fence = messages.read_crl(_plain(body))
        self._desk.do(lambda: self._verbs.crls.overridden(issuer, shard=shard, number=number, fence=fence, peer=peer))
        self._log.warning("crl-overridden", issuer=issuer, shard=shard, number=number)
        return {}

    def _add_operator(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        body = _plain(body)
        if set(body) != {"name", "roles", "person", "tenant"}:
            raise forms.bad("It takes name, roles, person and tenant.")
        name = ids.operator_name(forms.read(str, body["name"]))
        roles = forms.read(tuple[str, ...], body["roles"])
        person = forms.read(str, body["person"])
        tenant = None if body["tenant"] is None else self._verbs.issuing.policy.seen_by(TenantId(forms.read(str, body["tenant"]))).tenant
        return self._desk.do(lambda: self._verbs.operators.add(name, roles, peer, person=person, tenant=tenant))

    def _disable_operator(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        body = _plain(body)
        if set(body) != {"name"}:
            raise forms.bad("It takes name.")
        name: OperatorName = ids.operator_name(forms.read(str, body["name"]))
        return self._desk.do(lambda: self._verbs.operators.disable(name, peer))

    def _describe_device(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        said = forms.read(DeviceDescription, _plain(body))
        device, facts = self._desk.do(lambda: self._verbs.describing.describe(said, peer))
        self._log.info("device-described", role=peer.role.value, uid=peer.uid, device=device.id, state=device.state.value)
        return {"device": forms.write(device), "facts": forms.write(facts)}

    def _import_manifest(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        asked = forms.read(ManifestImport, _plain(body))
        told = self._desk.do(lambda: self._verbs.manifests.take(asked, peer))
        refused = [one.number for one in told if one.state == REFUSED]
        self._log.info(
            "manifest-entries", uid=peer.uid, manifest=asked.manifest.hex()[:16], first=asked.first, taken=len(told) - len(refused)
        )
        if refused:
            self._log.warning("manifest-entries-refused", uid=peer.uid, manifest=asked.manifest.hex()[:16], numbers=refused)
        return told

    def _challenge_tpm(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        # Not at the desk: it asks the database nothing, and nothing is kept of it.
        with self._challenge_lock:
            return self._verbs.challenging.challenge(forms.read(ChallengeRequest, _plain(body)), peer)

    def _order_wipe(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        name = ids.device_id(forms.read(str, body.get("device")))
        made = self._desk.do(lambda: self._verbs.wiping.order(name, peer))
        self._log.info("wipe-ordered", uid=peer.uid, device=name)
        return made

    def _take_wipe(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        octets = forms.read(bytes, body.get("receipt"))
        made = self._desk.do(lambda: self._verbs.wiping.take(octets, peer))
        self._log.info("wiped", uid=peer.uid, device=made.device)
        return made

    def _waive_wipe(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        name, why = ids.device_id(forms.read(str, body.get("device"))), forms.read(str, body.get("justification"))
        made = self._desk.do(lambda: self._verbs.wiping.waive(name, why, peer))
        self._log.info("wipe-waived", uid=peer.uid, device=made.device)
        return made

    def _record_ceremony(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        files = messages.read_files(_plain(body))
        name = self._desk.do(lambda: self._verbs.ceremonies.record(files, peer))
        self._log.info("ceremony-recorded", role=peer.role.value, uid=peer.uid, ceremony=name)
        return name

    def _health(self, _body: dict[str, Any], _peer: Peer, _: int | None) -> Any:
        return {**self._verbs.questions.health(), "queued": self._desk.queued}

    def _question(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        if peer.role is not Role.operator:
            raise Denied("not-allowed", f"Role {peer.role.value} may not search here.")
        return self._verbs.questions.ask(body[_VERB], _plain(body))


_VERB: Final = "\0verb"


def _plain(body: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != _VERB}


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)
