"""What the REST API does with a request that was read: collect the evidence, ask the signer, tell what came of it. Verb ring.

Knows ports and rules, no Flask and no adapter. Holds no state. Decides nothing about issuing and revoking (P2); every call may be
repeated as it is, since the signer's answers may.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ca.errors import FleetcaError, NotFound
from ca.model import (
    Approval,
    ApprovalDecision,
    Certificate,
    CertificateQuery,
    CertificateRef,
    Challenge,
    ConfirmRequest,
    CreatedToken,
    Digest,
    Issuer,
    IssueRequest,
    IssuerId,
    KnownHardware,
    MessageEvidence,
    Profile,
    ProfileName,
    Proposal,
    ProposalRequest,
    Revocation,
    RevokeRequest,
    TenantId,
    TokenEvidence,
    TokenRequest,
)
from ca.ports import Clock
from ca.rules import ids, renewal, renewal_window
from ca.rules.chains import Chains
from ca.rules.issuers import newest
from ca.rules.message import Act, Message, check_message, read_message
from ca.rules.renewal_health import Health
from ca.rules.renewal_window import Plan, Suggestion
from ca.rules.tenancy import Tenant
from ca.rules.token import token_hash
from ca.rules.two_persons import not_found
from enroll import evidence
from enroll.gate import Gate
from enroll.model import Delivered, Granted, Issuance, Report
from enroll.model import Health as Answering
from enroll.ports import Reader, Receipts, Reports, Signer
from enroll.rest import fields, messages
from enroll.rest.line_flow import StationDoor
from enroll.rest.own_part import OwnPart


class Enrolment:
    """The verbs of the API.

    Args:
        deployment: the audience of signed messages.
        issuers: the deployment's CA certificates; every chain is made of these.
        profiles: by name; says who renews, and when.
        default_issuer: whose chain is served as the chain, or that of the one that took its place.
        links: certificates that roots gave each other.
        plan: what is known of the fleet, for windows of renewal.
        pins: the signed sets of trust anchors, as they were published.
        gate: who may enrol or renew now, where that is limited.
        reports: where it is kept what devices say of their renewals; None: nowhere.
        tenants: whose part of the deployment their operators may look at.
        owners: whose an issuer is that is not the house's.
    """

    def __init__(
        self,
        *,
        signer: Signer,
        reader: Reader,
        receipts: Receipts,
        clock: Clock,
        deployment: str,
        issuers: Sequence[Issuer],
        profiles: Mapping[ProfileName, Profile],
        default_issuer: IssuerId,
        plan: Callable[[], Plan] = Plan,
        reports: Reports | None = None,
        gate: Gate | None = None,
        pins: Callable[[], bytes | None] = lambda: None,
        links: Iterable[bytes] = (),
        tenants: Sequence[Tenant] = (),
        owners: Mapping[IssuerId, TenantId] | None = None,
    ) -> None:
        self._signer = signer
        self._reader = reader
        self._receipts = receipts
        self._clock = clock
        self._deployment = deployment
        self._profiles = profiles
        self._default_issuer = default_issuer
        self._plan, self._reports, self._gate, self._pins = plan, reports, gate, pins
        self._authorities = {issuer.key_identifier.hex(): issuer.id for issuer in issuers}
        self._roots = tuple(issuer for issuer in issuers if issuer.parent is None)
        self._issuers = {issuer.id: issuer for issuer in issuers}
        self._chains = Chains(issuers, links)
        self.own = OwnPart(
            reader=reader, clock=clock, tenants=tenants, owners=owners or {}, profiles=profiles, default_issuer=default_issuer
        )
        self.stations = StationDoor(signer, self._issuers, self._message)

    # ---- Issuing ----------------------------------------------------------------------------------------------------

    def enroll(self, members: Mapping[str, Any]) -> Issuance:
        """A first certificate for a one-time token, or for a device that is known by its hardware."""
        return self.issuance(self._signer.issue(self.enrolling(members)))

    def challenge(self, members: Mapping[str, Any]) -> Challenge:
        """What a TPM must answer before a key of it counts as attested."""
        return self._signer.challenge_tpm(messages.challenge_of(members))

    def renew(self, *, certificate: bytes | None, members: Mapping[str, Any]) -> Issuance:
        """A successor for a current certificate: presented in TLS, or by a message that its key signed."""
        return self.issuance(self._signer.issue(self.renewing(certificate=certificate, members=members)))

    def enrolling(self, members: Mapping[str, Any]) -> IssueRequest:
        """What `enroll` asks the signer."""
        token = members.get("token")
        if token is not None:
            token_hash(token)  # a mistyped token is told apart here, before anything is asked
        if self._gate is not None:
            self._gate.enter_new()
        shown = KnownHardware() if token is None else TokenEvidence(token)
        return IssueRequest(csr=members["csr"], evidence=shown, attestation=messages.attestation_of(members))

    def renewing(self, *, certificate: bytes | None, members: Mapping[str, Any]) -> IssueRequest:
        """What `renew` asks the signer."""
        if "message" not in members:
            shown = evidence.presented(certificate)
            if self._gate is not None:
                self._gate.enter(shown.certificate, now=self._clock.now())
            return IssueRequest(csr=members["csr"], evidence=shown, attestation=messages.attestation_of(members))
        given, message = self._message(members, Act.renew)
        if self._gate is not None:
            self._gate.enter(given.certificate, now=self._clock.now())
        assert message.csr is not None, "read_message requires it of this act"
        return IssueRequest(csr=messages.csr_octets(message.csr), evidence=given, attestation=messages.attestation_of(members))

    def issue(self, members: Mapping[str, Any]) -> Issuance:
        """A certificate that an operator asks for by a signed message."""
        given, message = self._message(members, Act.issue)
        assert message.csr is not None, "read_message requires it of this act"
        request = IssueRequest(
            csr=messages.csr_octets(message.csr), evidence=given, device=message.device, profile=message.profile, names=message.names
        )
        return self.issuance(self._signer.issue(request))

    def confirm(self, *, certificate: bytes | None, members: Mapping[str, Any]) -> Certificate:
        """The successor's key has been used, or its predecessor's holder has it: see `ca.confirm` (P9)."""
        named = members.get("successor")
        successor = None if named is None else CertificateRef(ids.issuer_id(named["issuer"]), ids.serial_from_hex(named["serial"]))
        if "message" not in members:
            return self._signer.confirm(ConfirmRequest(evidence.presented(certificate), successor))
        given, message = self._message(members, Act.confirm)
        return self._signer.confirm(ConfirmRequest(given, message.target if successor is None else successor))

    # ---- Revoking and tokens ----------------------------------------------------------------------------------------

    def revoke(self, *, certificate: bytes | None, members: Mapping[str, Any]) -> Sequence[Revocation]:
        """The presented certificate itself; or, by an operator's message, any certificate or device."""
        if "message" not in members:
            request = RevokeRequest(evidence.presented(certificate), ids.reason_named(members["reason"]))
        else:
            given, message = self._message(members, Act.revoke)
            assert message.reason is not None, "read_message requires it of this act"
            request = RevokeRequest(given, message.reason, target=message.target, device=message.device)
        return self._signer.revoke(request)

    def create_token(self, members: Mapping[str, Any]) -> CreatedToken:
        """A one-time token that an operator asks for by a signed message."""
        given, message = self._message(members, Act.create_token)
        assert message.device is not None, "read_message requires it of this act"
        assert message.profile is not None, "read_message requires it of this act"
        assert message.lifetime is not None, "read_message requires it of this act"
        return self._signer.create_token(
            TokenRequest(given, device=message.device, profile=message.profile, names=message.names, lifetime=message.lifetime)
        )

    def propose(self, members: Mapping[str, Any]) -> Proposal:
        """A grave act that an operator asks for by a signed message."""
        given, _ = self._message(members, Act.propose)
        return self._signer.propose(ProposalRequest(given))

    def decide(self, members: Mapping[str, Any]) -> Approval | Proposal:
        """What an operator says, by a signed message, to a request that waits."""
        given, message = self._message(members, Act.approve)
        assert message.decision is not None, "read_message requires it of this act"
        request, approve, words = message.decision
        return self._signer.decide_approval(ApprovalDecision(given, request, approve, words))

    def _message(self, members: Mapping[str, Any], act: Act) -> tuple[MessageEvidence, Message]:
        # The signer reads and checks all of this again; here it keeps what cannot succeed away from it.
        given = messages.message_of(members)
        message = read_message(given.payload)
        check_message(message, acts=frozenset({act}), deployment=self._deployment, now=self._clock.now())
        return given, message

    # ---- Looking ----------------------------------------------------------------------------------------------------

    def search(self, query: CertificateQuery, *, certificate: bytes | None) -> tuple[Sequence[Certificate], str | None]:
        """One page of what is on record, for an operator of that tenant."""
        now = self._clock.now()
        operator = evidence.require_search(certificate, reader=self._reader, now=now)
        return self._reader.search_certificates(query, tenant=operator.tenant, now=now)

    def certificate(self, ref: CertificateRef, *, certificate: bytes | None) -> Certificate:
        """One certificate, for an operator of its tenant, and for the device it belongs to.

        Raises:
            NotFound: there is none, or the asker may not see it: both look the same.
        """
        asker = evidence.live_holder(certificate, reader=self._reader, now=self._clock.now())
        found = self._reader.find_certificate(ref)
        if (
            found is not None
            and found.tenant == asker.tenant
            and (found.device == asker.device or evidence.may_search(asker, reader=self._reader))
        ):
            return found
        raise NotFound("no-such-certificate", "There is no such certificate.", why="Or it is not for this client certificate to see.")

    def receipt(self, ref: CertificateRef, *, certificate: bytes | None) -> Mapping[str, Any]:
        """The proof that a certificate's leaf stands in the log."""
        return self._receipts(self.certificate(ref, certificate=certificate).leaf)

    def window(self, authority: str, serial: str) -> Suggestion:
        """When to renew a certificate. Asked by anybody, as with ACME (RFC 9773 4.1).

        Raises:
            NotFound: there is none, or its profile does not renew.
        """
        issuer = self._authorities.get(authority.lower())
        row = None if issuer is None else self._reader.find_certificate(messages.read_ref(issuer, serial))
        profile = None if row is None else self._profiles.get(row.profile)
        if row is None or row.der is None or profile is None or not profile.renewable:
            raise NotFound("no-such-certificate", "There is no such certificate.", why="Or its profile does not renew.")
        return renewal_window.suggested(row, profile, now=self._clock.now(), plan=self._plan(), revoked=renewal.revoked(row))

    # ---- How renewals stand -----------------------------------------------------------------------------------------

    def report(self, *, certificate: bytes | None, members: Mapping[str, Any]) -> Report:
        """What a device says of its renewals."""
        now = self._clock.now()
        said = members
        if "message" in members:
            given, message = self._message(members, Act.report)
            assert message.report is not None, "read_message requires it of this act"
            # Nothing is granted by it, so the signature is checked here and not by the signer.
            own = evidence.live_holder(given.certificate, reader=self._reader, now=now)
            evidence.check_signature(given)
            due = message.report.get("due")
            read = {**message.report} if due is None else {**message.report, "due": fields.timestamp(int(due))}
            said = fields.read_object(read, messages.REPORT)
        else:
            own = evidence.live_holder(certificate, reader=self._reader, now=now)
        report = Report(
            device=own.device,
            tenant=own.tenant,
            outcome=said["outcome"],
            code=said.get("code", ""),
            due=said.get("due", own.not_after),
            agent=said.get("agent", ""),
            heard_at=now,
            not_before=own.not_before,
            not_after=own.not_after,
        )
        if self._reports is not None:
            self._reports.keep(report)
        return report

    def fleet(self, health: Health | None, *, certificate: bytes | None, after: str, limit: int) -> tuple[Sequence[Report], str | None]:
        """One page of what devices said last, for an operator of their tenant."""
        now = self._clock.now()
        operator = evidence.require_search(certificate, reader=self._reader, now=now)
        if self._reports is None:
            return (), None
        rows = self._reports.page(
            tenant=operator.tenant,
            dark_before=now if health is Health.dark else None,
            late_before=now if health is Health.late else None,
            failed=health is Health.failing,
            after=after,
            limit=limit,
        )
        found = [row for row in rows if health is None or messages.health_of(row, now=now) is health]
        return found, rows[-1].device if len(rows) == limit else None

    def approvals(self, *, certificate: bytes | None, after: str | None, limit: int) -> tuple[Sequence[Approval], str | None]:
        """One page of the requests that wait for an operator, for an operator."""
        now = self._clock.now()
        operator = evidence.require_search(certificate, reader=self._reader, now=now)
        place = None if after is None else messages.read_approval_place(after)
        found = self._reader.waiting_approvals(tenant=operator.tenant, now=now, after=place, limit=limit + 1)
        return found[:limit], f"{found[limit - 1].expires}-{found[limit - 1].request.hex()}" if len(found) > limit else None

    def proposals(self, *, certificate: bytes | None, after: str | None, limit: int) -> tuple[Sequence[Proposal], str | None]:
        """One page of the grave acts that were asked for and are not over, for an operator of their tenant."""
        now = self._clock.now()
        operator = evidence.require_search(certificate, reader=self._reader, now=now)
        place = (now, Digest(b"\xff" * 32)) if after is None else messages.read_approval_place(after)
        found = self._reader.proposals(tenant=operator.tenant, after=place, limit=limit + 1)
        return found[:limit], f"{found[limit - 1].expires}-{found[limit - 1].request.hex()}" if len(found) > limit else None

    def proposal(self, request: str, *, certificate: bytes | None) -> Proposal:
        """One of them, whatever became of it.

        Raises:
            NotFound: there is none, or it is another tenant's: both look the same.
        """
        operator = evidence.require_search(certificate, reader=self._reader, now=self._clock.now())
        found = self._reader.find_proposal(Digest(bytes.fromhex(ids.hash_beginning(request, whole=True))))
        if found is None or found.tenant != operator.tenant:
            raise not_found()
        return found

    def chain(self, issuer: IssuerId | None = None) -> tuple[bytes, ...]:
        """CA certificates from the issuer (absent: the one that issues now) to a root.

        Raises:
            NotFound: no such issuer.
        """
        now = self._clock.now()
        return self._chains.above(newest(self._issuers, self._default_issuer, now=now) if issuer is None else issuer, now=now)

    def bundle(self) -> tuple[bytes, ...]:
        """The roots that devices and services should trust."""
        now = self._clock.now()
        return tuple(root.certificate for root in self._roots if now <= root.not_after)

    def links(self) -> tuple[bytes, ...]:
        """What our roots gave each other and holds now."""
        now = self._clock.now()
        return tuple(link.der for link in self._chains.links if link.not_before <= now <= link.not_after)

    def pins(self) -> bytes:
        """The signed sets of trust anchors.

        Raises:
            NotFound: there are none.
        """
        found = self._pins()
        if found is None:
            raise NotFound("no-pins", "This deployment has published no pin sets.")
        return found

    @property
    def deployment(self) -> str:
        """The audience of signed messages."""
        return self._deployment

    def health(self) -> Answering:
        """Whether both parts that enrolment needs answer now."""
        signer, present = True, False
        try:
            present = self._signer.ping()
        except FleetcaError:
            signer = False
        return Answering(signer=signer, store=_answers(self._reader.ping), root_present=present)

    def now(self) -> int:
        return self._clock.now()

    def issuance(self, issued: Granted) -> Issuance:
        """What the device gets of what the signer answered."""
        return Issuance(
            certificate=issued.certificate,
            chain=self.chain(issued.certificate.ref.issuer),
            renew_at=self._renew_at(issued.certificate),
            plain_key_file=self._plain(issued.certificate.profile),
            leaf=issued.leaf,
            repeated=issued.repeated,
        )

    def _renew_at(self, certificate: Delivered) -> int | None:
        profile = self._profiles.get(certificate.profile)
        if profile is None or not profile.renewable:
            return None
        return renewal_window.suggested(certificate, profile, now=self._clock.now(), plan=self._plan()).start

    def _plain(self, name: ProfileName) -> bool:
        profile = self._profiles.get(name)
        return profile is not None and profile.plain_key_file


def _answers(call: Callable[[], object]) -> bool:
    try:
        call()
    except FleetcaError:
        return False
    return True
