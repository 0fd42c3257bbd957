"""What the REST API does with a request that was read: collect the evidence, ask the signer, tell what came of it. Verb ring.

Knows ports and rules, no Flask and no adapter. Holds no state. Decides nothing about issuing and revoking (P2); every call may be
repeated as it is, since the signer's answers may.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ca.errors import FleetcaError, NotFound
from ca.model import (
    Certificate,
    CertificateQuery,
    CertificateRef,
    ConfirmRequest,
    CreatedToken,
    Issuer,
    IssueRequest,
    IssuerId,
    MessageEvidence,
    Profile,
    ProfileName,
    Revocation,
    RevokeRequest,
    TokenEvidence,
    TokenRequest,
)
from ca.ports import Clock
from ca.rules import ids
from ca.rules.message import Act, Message, check_message, read_message
from ca.rules.token import token_hash
from enroll import evidence
from enroll.model import Delivered, Granted, Health, Issuance
from enroll.ports import Reader, Receipts, Signer
from enroll.rest import messages


class Enrolment:
    """The verbs of the API.

    Args:
        deployment: the audience of signed messages.
        issuers: the deployment's CA certificates; every chain is made of these.
        profiles: by name; says who renews, and when.
        default_issuer: whose chain is served as the chain.
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
    ) -> None:
        self._signer = signer
        self._reader = reader
        self._receipts = receipts
        self._clock = clock
        self._deployment = deployment
        self._profiles = profiles
        self._default_issuer = default_issuer
        self._roots = tuple(issuer.certificate for issuer in issuers if issuer.parent is None)
        self._chains = {issuer.id: climb(issuers, issuer.id) for issuer in issuers}

    # ---- Issuing ----------------------------------------------------------------------------------------------------

    def enroll(self, *, token: str, csr: bytes) -> Issuance:
        """A first certificate for a one-time token."""
        return self.issuance(self._signer.issue(self.enrolling(token=token, csr=csr)))

    def renew(self, *, certificate: bytes | None, members: Mapping[str, Any]) -> Issuance:
        """A successor for a current certificate: presented in TLS, or by a message that its key signed."""
        return self.issuance(self._signer.issue(self.renewing(certificate=certificate, members=members)))

    def enrolling(self, *, token: str, csr: bytes) -> IssueRequest:
        """What `enroll` asks the signer."""
        token_hash(token)  # a mistyped token is told apart here, before anything is asked
        return IssueRequest(csr=csr, evidence=TokenEvidence(token))

    def renewing(self, *, certificate: bytes | None, members: Mapping[str, Any]) -> IssueRequest:
        """What `renew` asks the signer."""
        if "message" not in members:
            return IssueRequest(csr=members["csr"], evidence=evidence.presented(certificate))
        given, message = self._message(members, Act.renew)
        assert message.csr is not None, "read_message requires it of this act"
        return IssueRequest(csr=messages.csr_octets(message.csr), evidence=given)

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

    def chain(self, issuer: IssuerId | None = None) -> tuple[bytes, ...]:
        """CA certificates from the issuer to its root.

        Raises:
            NotFound: no such issuer.
        """
        found = self._chains.get(self._default_issuer if issuer is None else issuer)
        if found is None:
            raise NotFound("no-such-issuer", "There is no such issuer.")
        return found

    def bundle(self) -> tuple[bytes, ...]:
        """The roots that devices and services should trust."""
        return self._roots

    @property
    def deployment(self) -> str:
        """The audience of signed messages."""
        return self._deployment

    def health(self) -> Health:
        """Whether both parts that enrolment needs answer now."""
        return Health(signer=_answers(self._signer.ping), store=_answers(self._reader.ping))

    def now(self) -> int:
        return self._clock.now()

    def issuance(self, issued: Granted) -> Issuance:
        """What the device gets of what the signer answered."""
        return Issuance(
            certificate=issued.certificate,
            chain=self.chain(issued.certificate.ref.issuer),
            renew_at=self._renew_at(issued.certificate),
            leaf=issued.leaf,
            repeated=issued.repeated,
        )

    def _renew_at(self, certificate: Delivered) -> int | None:
        profile = self._profiles.get(certificate.profile)
        if profile is None or not profile.renewable:
            return None
        return renew_at(certificate, profile)


def renew_at(certificate: Delivered, profile: Profile) -> int:
    """When to renew: after two thirds of the lifetime, spread over the next sixth by the serial number, so that a fleet that enrolled in one hour
    does not come back in one minute (incident R25); never before the profile takes renewals."""
    lifetime = certificate.not_after + 1 - certificate.not_before
    share = max(2 / 3, profile.renew_from)
    spread = (1 - share) / 2 * ((certificate.ref.serial >> 32) % 1024) / 1024
    return certificate.not_before + int(lifetime * (share + spread))


def climb(issuers: Sequence[Issuer], start: IssuerId) -> tuple[bytes, ...]:
    """CA certificates (DER) from `start` to its root.

    Raises:
        NotFound: one is missing (`no-such-issuer`).
    """
    by_id = {issuer.id: issuer for issuer in issuers}
    climbed: list[bytes] = []
    at: IssuerId | None = start
    while at is not None and len(climbed) < len(by_id) + 1:
        if at not in by_id:
            raise NotFound("no-such-issuer", "There is no such issuer.")
        climbed.append(by_id[at].certificate)
        at = by_id[at].parent
    return tuple(climbed)


def _answers(call: Callable[[], object]) -> bool:
    try:
        call()
    except FleetcaError:
        return False
    return True
