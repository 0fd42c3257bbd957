"""The bodies and answers of the REST API: bytes to model and back. Ring 1: pure.

Owns: which members a request has, and how a certificate, an issuance and a page look as JSON. Must not know: routes, policy, the clock.
Certificates travel as PEM text in JSON and as DER under `application/pkix-cert`; requests as PEM text or base64 of DER (PKCS#10).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from ca.der.csr import check_shape
from ca.der.pem import CERTIFICATE, REQUEST, der_of, pem
from ca.errors import Malformed, NotFound
from ca.model import (
    Approval,
    Certificate,
    CertificateQuery,
    CertificateRef,
    CertificateState,
    Challenge,
    ChallengeRequest,
    Digest,
    MessageEvidence,
    Proposal,
    Reason,
    Revocation,
    Standing,
    TpmAttestation,
    UnixTime,
)
from ca.rules import ids, renewal
from ca.rules.attestation.endorsement import LONGEST_CHAIN
from ca.rules.message import names_to
from ca.rules.renewal_health import Health, health
from enroll.model import Issuance, Report
from enroll.rest import fields
from enroll.rest.fields import Body, Field, timestamp

TOKEN: Final = r"enr_[0-9A-Za-z]{16,96}"
DEVICE: Final = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}"
SERIAL: Final = r"[0-9A-Fa-f]{1,40}"
REASONS: Final = tuple(reason.name for reason in Reason)
STATES: Final = tuple(state.value for state in Standing)
PAGE_LIMIT: Final = 500


# ---- Requests -------------------------------------------------------------------------------------------------------


def _read_csr(value: object, where: str) -> bytes:
    if not isinstance(value, str):
        raise fields.wrong(where, "a certificate request as PEM text, or base64 of its DER")
    if value.lstrip().startswith("-----BEGIN"):
        return csr_octets(der_of(value.encode("utf-8"), REQUEST))
    return csr_octets(fields.read_base64(value, where))


def csr_octets(der: bytes) -> bytes:
    """The octets themselves, if they have the outline of a request. Key and proof of possession are the signer's to judge: it trusts nobody's
    word for them, and twice would cost twice.

    Raises:
        Malformed: see `ca.der.csr.check_shape`.
    """
    check_shape(der)
    return der


_CSR: Final = Field(
    "csr",
    _read_csr,
    {
        "type": "string",
        "description": "PKCS#10 certificate request: PEM text, or base64 of its DER. It gives the key; the profile the rest.",
    },
)

_MESSAGE: Final = Body(
    "Message",
    "A message signed with the key of a current certificate, over `fleetca message v1`, a zero octet and the payload.",
    (
        fields.octets("payload", about="The JSON object that says what is asked, as base64."),
        fields.octets("certificate", about="The signer's certificate, DER as base64."),
        fields.octets("signature", about="The signature, as base64."),
    ),
)


def _optional(one: Field) -> Field:
    return Field(one.name, one.read, one.schema, required=False)


_OPTIONAL_MESSAGE: Final = fields.member("message", _MESSAGE, required=False)

_ENDORSEMENT: Final = fields.several_octets(
    "endorsement", most=LONGEST_CHAIN, about="Certificates, DER: the endorsement key's own, then those between it and the TPM's maker."
)
_ATTESTATION_KEY: Final = fields.octets("attestation_key", about="TPMT_PUBLIC of a restricted signing key of that TPM.")
CHALLENGE: Final = Body("ChallengeRequest", "A TPM, and the key of it that will attest another.", (_ENDORSEMENT, _ATTESTATION_KEY))
ATTESTATION: Final = Body(
    "Attestation",
    "What a TPM says of the key in the certificate request. Structures are those of the TPM, octet by octet.",
    (
        _ENDORSEMENT,
        _ATTESTATION_KEY,
        fields.octets("ticket", about="Of the challenge."),
        fields.octets("secret", about="What TPM2_ActivateCredential gave out of it."),
        fields.octets("key", about="TPMT_PUBLIC of the key in the certificate request."),
        fields.octets("attest", about="TPMS_ATTEST of TPM2_Certify over that key, with the challenge's nonce as qualifyingData."),
        fields.octets("signature", about="TPMT_SIGNATURE over it."),
    ),
)
_OPTIONAL_ATTESTATION: Final = fields.member("attestation", ATTESTATION, required=False)

ENROLL: Final = Body(
    "EnrollRequest",
    "A certificate request, and a one-time token; or the word that the device is known by its hardware. An attestation where the profile asks for one.",
    (
        fields.text(
            "token",
            pattern=r"[\x21-\x7e]{1,200}",
            should="a token as `fleetca token create` prints it: enr_...",
            about="The one-time enrolment token.",
            required=False,
        ),
        fields.choice(
            "known_by",
            ("hardware",),
            about="No token: the key of the request, or the TPM that attests it, is on the device's record.",
            required=False,
        ),
        _CSR,
        _OPTIONAL_ATTESTATION,
    ),
    one_of=("token", "known_by"),
)
RENEW: Final = Body(
    "RenewRequest",
    "A certificate request for a new key, with the current certificate presented in TLS; or a signed message that carries one.",
    (_optional(_CSR), _OPTIONAL_MESSAGE, _OPTIONAL_ATTESTATION),
    one_of=("csr", "message"),
)
_SUCCESSOR: Final = Body(
    "Successor",
    "The certificate that renewed the one presented in TLS. A message names it in its payload.",
    (
        fields.text("issuer", pattern=r"[a-z0-9][a-z0-9-]{0,62}", should="an issuer's id", about="Its issuer's id."),
        fields.text("serial", pattern=SERIAL, should="1 to 40 hexadecimal digits", about="Its serial number."),
    ),
)
CONFIRM: Final = Body(
    "ConfirmRequest",
    "Nothing, with the new certificate presented in TLS, or a message signed with its key: it works. With the old one, and the successor named:"
    " it has arrived.",
    (fields.member("successor", _SUCCESSOR, required=False), _OPTIONAL_MESSAGE),
)
REVOKE: Final = Body(
    "RevokeRequest",
    "A reason, to revoke the certificate presented in TLS; or a signed message, of an operator for any certificate or device.",
    (
        fields.choice("reason", REASONS, about="CRLReason (RFC 5280, section 5.3.1).", required=False),
        _OPTIONAL_MESSAGE,
    ),
    one_of=("reason", "message"),
)
OUTCOMES: Final = ("enrolled", "renewed", "failed", "rehearsed")
REPORT: Final = Body(
    "Report",
    "How the renewal of the certificate presented in TLS went; or a signed message that says the same.",
    (
        fields.choice("outcome", OUTCOMES, about="What was done last.", required=False),
        fields.text("code", pattern=r"[a-z0-9-]{1,64}", should="a code", about="Of what failed.", required=False),
        fields.moment("due", about="When it will renew next."),
        fields.text("agent", pattern=r"[\x20-\x7e]{1,64}", should="a program's name", about="Which program says so.", required=False),
        _OPTIONAL_MESSAGE,
    ),
    one_of=("outcome", "message"),
)
MESSAGE_ONLY: Final = Body("MessageRequest", "A message signed with an operator's key.", (fields.member("message", _MESSAGE),))

BODIES: Final = (ENROLL, CHALLENGE, RENEW, CONFIRM, REVOKE, REPORT, MESSAGE_ONLY)


def read_body(raw: bytes, body: Body) -> Mapping[str, Any]:
    """The members of a request body. See `fields.read_json` and `fields.read_object` for what is refused."""
    return fields.read_object(fields.read_json(raw), body)


def message_of(members: Mapping[str, Any]) -> MessageEvidence:
    """The member `message` as evidence."""
    message = members["message"]
    return MessageEvidence(payload=message["payload"], certificate=message["certificate"], signature=message["signature"])


def attestation_of(members: Mapping[str, Any]) -> TpmAttestation | None:
    """The member `attestation`, where there is one."""
    given = members.get("attestation")
    return None if given is None else TpmAttestation(**given)


def challenge_of(members: Mapping[str, Any]) -> ChallengeRequest:
    """What a challenge is asked for."""
    return ChallengeRequest(members["endorsement"], members["attestation_key"])


def render_challenge(made: Challenge) -> dict[str, Any]:
    """A challenge as it travels."""
    parts = {"ticket": made.ticket, "nonce": made.nonce, "credential": made.credential, "seed": made.seed}
    return {**{name: base64.b64encode(octets).decode() for name, octets in parts.items()}, "expires": timestamp(made.expires)}


def read_ref(issuer: str, serial: str) -> CertificateRef:
    """The certificate a path names.

    Raises:
        NotFound: no certificate can have that name.
    """
    try:
        return CertificateRef(ids.issuer_id(issuer), ids.serial_from_hex(serial))
    except Malformed as error:
        raise NotFound("no-such-certificate", "There is no such certificate.", why=error.why) from None


# ---- Search ---------------------------------------------------------------------------------------------------------

_TEXT = r"[^\x00-\x1f\x7f]{1,255}"

SEARCH: Final = Body(
    "Search",
    "",
    (
        fields.text("device", pattern=DEVICE, should="a device id", about="Certificates of this device.", required=False),
        fields.text(
            "subject", pattern=_TEXT, should="a subject as RFC 4514 text, e.g. CN=pump-17", about="With this subject.", required=False
        ),
        fields.text("san", pattern=_TEXT, should="a subject alternative name", about="With this subject alternative name.", required=False),
        fields.text("serial", pattern=SERIAL, should="1 to 40 hexadecimal digits", about="With this serial number.", required=False),
        fields.text(
            "key", pattern=r"[0-9A-Fa-f]{64}", should="64 hexadecimal digits", about="SHA-256 of the SubjectPublicKeyInfo.", required=False
        ),
        fields.choice("state", STATES, about="What is on record of it; expiry is asked by date.", required=False),
        fields.moment("expires_after", about="notAfter is later than this."),
        fields.moment("expires_before", about="notAfter is earlier than this."),
        fields.count("limit", least=1, most=PAGE_LIMIT, about="Certificates on one page (50 when absent)."),
        fields.text(
            "cursor", pattern=r"[A-Za-z0-9_.:=/+-]{1,512}", should="the `next` of the page before", about="Where to go on.", required=False
        ),
    ),
)


FLEET: Final = Body(
    "Fleet",
    "",
    (
        fields.choice("health", [one.value for one in Health if one is not Health.fine], about="Only these.", required=False),
        fields.count("limit", least=1, most=PAGE_LIMIT, about="Devices on one page (50 when absent)."),
        fields.text("cursor", pattern=DEVICE, should="the `next` of the page before", about="Where to go on.", required=False),
    ),
)


def read_fleet(pairs: Sequence[tuple[str, str]]) -> Mapping[str, Any]:
    """The query parameters of a look at the fleet.

    Raises:
        Malformed: one is unknown, stands twice or cannot be read.
    """
    return fields.read_object(_once(pairs), FLEET)


APPROVALS: Final = Body(
    "Approvals",
    "",
    (
        fields.count("limit", least=1, most=PAGE_LIMIT, about="Requests on one page (50 when absent)."),
        fields.text(
            "cursor", pattern=r"[0-9]{1,12}-[0-9a-f]{64}", should="the `next` of the page before", about="Where to go on.", required=False
        ),
    ),
)


def read_approvals(pairs: Sequence[tuple[str, str]]) -> Mapping[str, Any]:
    """The query parameters of a look at the requests that wait.

    Raises:
        Malformed: one is unknown, stands twice or cannot be read.
    """
    return fields.read_object(_once(pairs), APPROVALS)


LOG: Final = Body(
    "Log",
    "",
    (
        fields.count("limit", least=1, most=PAGE_LIMIT, about="Leaves on one page (50 when absent)."),
        fields.count("start", least=0, most=2**53 - 1, about="The index from which on to look: the `next` of the page before."),
    ),
)


def read_log(pairs: Sequence[tuple[str, str]]) -> Mapping[str, Any]:
    """The query parameters of a look at the log.

    Raises:
        Malformed: one is unknown, stands twice or cannot be read.
    """
    return fields.read_object(_once(pairs), LOG)


def read_approval_place(cursor: str) -> tuple[UnixTime, Digest]:
    """Behind which request a page begins."""
    expires, _, request = cursor.partition("-")
    return int(expires), Digest(bytes.fromhex(request))


def render_approval(approval: Approval) -> dict[str, Any]:
    """A request that waits, or what was decided."""
    return {
        "request": approval.request.hex(),
        "device": approval.device,
        "profile": approval.profile,
        "names": names_to(approval.names),
        "evidence": approval.evidence.value,
        "actor": approval.actor,
        "spki_sha256": approval.spki_sha256.hex(),
        "asked_at": timestamp(approval.asked_at),
        "expires": timestamp(approval.expires),
        "state": approval.state.value,
        "decided_by": approval.decided_by,
        "reason": approval.reason,
    }


def render_proposal(proposal: Proposal) -> dict[str, Any]:
    """A grave act that was asked for, and what became of it."""
    return {
        "request": proposal.request.hex(),
        "act": proposal.act.value,
        "subject": json.loads(proposal.subject),
        "reason": proposal.reason,
        "asked_by": proposal.asked.operator,
        "person": proposal.asked.person,
        "asked_at": timestamp(proposal.asked.at),
        "expires": timestamp(proposal.expires),
        "state": proposal.state.value,
        "answers": [
            {"operator": one.operator, "person": one.person, "approve": one.approve, "at": timestamp(one.at)} for one in proposal.answers
        ],
        "words": proposal.words,
        "payload": base64.b64encode(proposal.asked.message.payload).decode(),
    }


def read_search(pairs: Sequence[tuple[str, str]]) -> CertificateQuery:
    """The query parameters of a search.

    Raises:
        Malformed: one is unknown, stands twice or cannot be read; the text names it.
    """
    found = fields.read_object(_once(pairs), SEARCH)
    return CertificateQuery(
        device=found.get("device"),
        subject=found.get("subject"),
        san=found.get("san"),
        serial=ids.serial_from_hex(found["serial"]) if "serial" in found else None,
        spki_sha256=Digest(bytes.fromhex(found["key"])) if "key" in found else None,
        state=Standing(found["state"]) if "state" in found else None,
        expires_after=found.get("expires_after"),
        expires_before=found.get("expires_before"),
        after=found.get("cursor"),
        limit=found.get("limit", 50),
    )


def _once(pairs: Sequence[tuple[str, str]]) -> dict[str, object]:
    given: dict[str, object] = {}
    for name, value in pairs:
        if name in given:
            raise Malformed("duplicate-field", f"The parameter {fields.shown(name)} stands twice.", fix="Send it once.")
        given[name] = value
    return given


# ---- Answers --------------------------------------------------------------------------------------------------------


def pem_chain(certificates: Sequence[bytes]) -> str:
    """One PEM text of several certificates, in order."""
    return "".join(pem(CERTIFICATE, der) for der in certificates)


_encode: Final = json.JSONEncoder(ensure_ascii=False).encode


def json_octets(document: object) -> bytes:
    """JSON as it travels."""
    return _encode(document).encode()


@lru_cache(maxsize=64)
def _finished_chain(certificates: tuple[bytes, ...]) -> bytes:
    """As JSON text: every answer of an issuer carries the same one."""
    return json_octets(pem_chain(certificates))


def standing(certificate: Certificate, *, now: UnixTime) -> Standing:
    """What a search for it by state would have to say."""
    if renewal.revoked(certificate):
        return Standing.revoked
    if certificate.state is CertificateState.issued and renewal.superseded(certificate, now=now):
        return Standing.superseded
    return Standing(certificate.state.value)


def render_issuance(issued: Issuance) -> dict[str, Any]:
    """The answer to an enrolment or a renewal."""
    return {**_without_chain(issued), "chain": pem_chain(issued.chain)}


def issuance_octets(issued: Issuance) -> bytes:
    """The same as it travels."""
    return b'%s, "chain": %s}' % (json_octets(_without_chain(issued))[:-1], _finished_chain(issued.chain))


def _without_chain(issued: Issuance) -> dict[str, Any]:
    certificate = issued.certificate
    assert certificate.der is not None, "the signer returns issued certificates only"
    return {
        "certificate": pem(CERTIFICATE, certificate.der),
        "issuer": certificate.ref.issuer,
        "serial": f"{certificate.ref.serial:040x}",
        "device": certificate.device,
        "profile": certificate.profile,
        "not_before": timestamp(certificate.not_before),
        "not_after": timestamp(certificate.not_after),
        "renew_at": _when(issued.renew_at),
        "plain_key_file": issued.plain_key_file,
        "leaf": issued.leaf.hex(),
        "repeated": issued.repeated,
    }


def render_certificate(certificate: Certificate, *, now: UnixTime, with_octets: bool) -> dict[str, Any]:
    """A certificate on record; `with_octets` adds its PEM."""
    revocation = certificate.revocation
    made: dict[str, Any] = {
        "issuer": certificate.ref.issuer,
        "serial": f"{certificate.ref.serial:040x}",
        "state": standing(certificate, now=now).value,
        "expired": now > certificate.not_after,  # notAfter is inclusive (RFC 5280, section 4.1.2.5)
        "device": certificate.device,
        "profile": certificate.profile,
        "subject": certificate.subject,
        "names": [{"kind": name.kind.value, "value": name.value} for name in certificate.names],
        "key_sha256": certificate.spki_sha256.hex(),
        "not_before": timestamp(certificate.not_before),
        "not_after": timestamp(certificate.not_after),
        "issued_at": _when(certificate.issued_at),
        "delivered_at": _when(certificate.delivered_at),
        "first_used_at": _when(certificate.first_used_at),
        "grace_ends_at": _when(certificate.grace_ends_at),
        "superseded_at": _when(certificate.superseded_at),
        "clone_seen_at": _when(certificate.clone_seen_at),
        "renews": None if certificate.parent is None else str(certificate.parent),
        "revocation": None if revocation is None else render_revocation(revocation.reason, revocation.revoked_at),
    }
    if with_octets:
        made["certificate"] = None if certificate.der is None else pem(CERTIFICATE, certificate.der)
    return made


def render_revoked(revocation: Revocation) -> dict[str, Any]:
    """One certificate that is revoked now."""
    return {**render_ref(revocation.ref), **render_revocation(revocation.reason, revocation.revoked_at)}


def render_ref(ref: CertificateRef) -> dict[str, str]:
    return {"issuer": ref.issuer, "serial": f"{ref.serial:040x}"}


def render_revocation(reason: Reason, when: UnixTime) -> dict[str, Any]:
    return {"reason": reason.name, "revoked_at": timestamp(when)}


def render_report(report: Report, *, now: UnixTime) -> dict[str, Any]:
    """One device's last word."""
    return {
        "device": report.device,
        "health": health_of(report, now=now).value,
        "outcome": report.outcome,
        "code": report.code,
        "due": timestamp(report.due),
        "not_after": timestamp(report.not_after),
        "heard_at": timestamp(report.heard_at),
        "agent": report.agent,
    }


def health_of(report: Report, *, now: UnixTime) -> Health:
    """What a device's last word means now."""
    return health(failed=report.outcome == "failed", due=report.due, not_before=report.not_before, not_after=report.not_after, now=now)


def _when(moment: UnixTime | None) -> str | None:
    return None if moment is None else timestamp(moment)
