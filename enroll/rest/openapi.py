"""The API in OpenAPI 3.1: one table of operations, from which both the routes and the served document are made. Pure.

Bodies and query parameters come from the tables that read them (`messages`), so that the document cannot promise what the reader refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ca.model import GraveAct, NameKind, ProposalState
from ca.rules.renewal_health import Health
from enroll.rest import line_messages, messages, problems
from enroll.rest.fields import Body

PREFIX: Final = "/v1"
JSON: Final = "application/json"
PKCS10: Final = "application/pkcs10"
"""RFC 5967: a certificate request as DER."""
PKIX_CERT: Final = "application/pkix-cert"
"""RFC 2585: one certificate as DER."""
PEM_CHAIN: Final = "application/pem-certificate-chain"
"""RFC 8555, section 9.1: certificates as PEM, each signed by the next."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method at one address. `path` is written as OpenAPI writes it; `answers` maps a status to media types and their schemas.

    Args:
        tls12: whether it is answered over TLS 1.2 too, where the settings let that in: what a device needs for its own certificate, and what
            everybody may know. What operators and stations do needs TLS 1.3.
    """

    method: str
    path: str
    id: str
    summary: str
    about: str
    answers: Mapping[int, Mapping[str, str]]
    refusals: tuple[int, ...]
    body: Body | None = None
    body_required: bool = True
    pkcs10: bool = False
    query: Body | None = None
    security: tuple[str, ...] = ()
    tls12: bool = False


_ISSUED: Final = {JSON: "Issuance", PKIX_CERT: "Der", PEM_CHAIN: "Pem"}
_POST: Final = (400, 403, 409, 413, 415, 422, 429, 503)

OPERATIONS: Final = (
    Operation(
        "POST",
        "/enroll",
        "enroll",
        "Get a first certificate.",
        "For a one-time token, or for a device that is known by its hardware. The same token with the same certificate request gets the same certificate again (200). As `application/pkcs10` the token goes into"
        " `Authorization: Bearer`.",
        {201: _ISSUED, 200: _ISSUED},
        (202, *_POST, 401),
        body=messages.ENROLL,
        pkcs10=True,
        security=("token",),
        tls12=True,
    ),
    Operation(
        "POST",
        "/attestation",
        "challengeTpm",
        "Get a challenge for a TPM.",
        "The TPM opens the credential with TPM2_ActivateCredential, which shows that endorsement and attestation key are in it, and certifies the new key"
        " with the nonce; ticket, secret and what it certified go with the request for a certificate. A challenge is good for one key and ten minutes.",
        {200: {JSON: "Challenge"}},
        _POST,
        body=messages.CHALLENGE,
        tls12=True,
    ),
    Operation(
        "POST",
        "/renew",
        "renew",
        "Get the successor of a current certificate.",
        "The current certificate is presented in TLS, or has signed the message. The predecessor is superseded when the successor is first used,"
        " or when its profile's grace after a confirmed delivery ends.",
        {201: _ISSUED, 200: _ISSUED},
        _POST,
        body=messages.RENEW,
        pkcs10=True,
        security=("certificate", ""),
        tls12=True,
    ),
    Operation(
        "POST",
        "/confirm",
        "confirm",
        "Say that a new certificate works, or that it has arrived.",
        "By the new certificate, presented in TLS or by a message of its key: it works, and what it renewed is superseded. By the old one, naming"
        " the new one as `successor`: it has arrived, and the old one is superseded when its profile's grace ends. The answer is the certificate"
        " that spoke.",
        {200: {JSON: "Certificate"}},
        _POST,
        body=messages.CONFIRM,
        body_required=False,
        security=("certificate", ""),
        tls12=True,
    ),
    Operation(
        "GET",
        "/renewal/{authority}/{serial}",
        "renewalWindow",
        "When shall a certificate be renewed?",
        "The window of RFC 9773, section 4.2; the certificate is named by its issuer's key identifier and its serial number, both hexadecimal."
        " Ask again after `ask_after` seconds: it may have moved.",
        {200: {JSON: "Window"}},
        (404, 503),
        tls12=True,
    ),
    Operation(
        "POST",
        "/report",
        "report",
        "Say how a renewal went.",
        "By the certificate presented in TLS, or by a message of its key. Operators see who is late; nothing else follows.",
        {200: {JSON: "Heard"}},
        _POST,
        body=messages.REPORT,
        security=("certificate", ""),
        tls12=True,
    ),
    Operation(
        "GET",
        "/fleet",
        "fleet",
        "How do the devices' renewals stand?",
        "For operators: the last word of each device that reports. `late`: its time has passed; `dark`: its certificate has ended.",
        {200: {JSON: "Fleet"}},
        (400, 403, 503),
        query=messages.FLEET,
        security=("certificate",),
    ),
    Operation(
        "POST",
        "/revoke",
        "revoke",
        "Revoke the certificate presented in TLS, or what an operator's message names.",
        "A message is taken over TLS 1.3 only. A certificate that is revoked already stays as it is; the answer is the same.",
        {200: {JSON: "Revocations"}},
        (*_POST, 404),
        body=messages.REVOKE,
        security=("certificate", ""),
        tls12=True,
    ),
    Operation(
        "POST",
        "/tokens",
        "createToken",
        "Create a one-time enrolment token.",
        "By a message signed with an operator's key. The token is shown this once; only its hash is kept.",
        {201: {JSON: "Token"}},
        (*_POST, 404),
        body=messages.MESSAGE_ONLY,
    ),
    Operation(
        "GET",
        "/approvals",
        "approvals",
        "What waits for an operator?",
        "For operators: first certificates of profiles that want an approval, what ends next first.",
        {200: {JSON: "Approvals"}},
        (400, 403, 503),
        query=messages.APPROVALS,
        security=("certificate",),
    ),
    Operation(
        "POST",
        "/approvals",
        "decideApproval",
        "Approve or refuse a request that waits.",
        "By a message signed with an operator's key, which names the whole hash of the request: the approval is of that request and of no other.",
        {200: {JSON: "Decided"}},
        (*_POST, 404),
        body=messages.MESSAGE_ONLY,
    ),
    Operation(
        "POST",
        "/proposals",
        "propose",
        "Ask for a grave act.",
        "By a message signed with an operator's key; it names the act and the exact request. Another person approves it with `POST /v1/approvals`.",
        {200: {JSON: "Proposal"}},
        (*_POST, 404),
        body=messages.MESSAGE_ONLY,
    ),
    Operation(
        "GET",
        "/proposals",
        "proposals",
        "Which grave acts were asked for?",
        "For operators: those that are not over, what ends next first.",
        {200: {JSON: "Proposals"}},
        (400, 403, 503),
        query=messages.APPROVALS,
        security=("certificate",),
    ),
    Operation(
        "GET",
        "/proposals/{request}",
        "showProposal",
        "Show what was asked for, and what became of it.",
        "For operators. `payload` is the message as it was signed: its SHA-256 is what an approval names.",
        {200: {JSON: "Proposal"}},
        (403, 404, 503),
        security=("certificate",),
    ),
    Operation(
        "GET",
        "/tenant",
        "tenant",
        "What may my tenant have, and what has it?",
        "For operators: its profiles as it has them, its quota, and how many devices it has on record. `default` is the house.",
        {200: {JSON: "Tenant"}},
        (403, 503),
        security=("certificate",),
    ),
    Operation(
        "GET",
        "/log",
        "log",
        "What does the log say of my tenant?",
        "For operators: leaves that speak of their tenant, in the order of the log; of the house, all. A page may be shorter than was asked for, and go on.",
        {200: {JSON: "LogPage"}},
        (400, 403, 503),
        query=messages.LOG,
        security=("certificate",),
    ),
    Operation(
        "POST",
        "/certificates",
        "issue",
        "Issue a certificate that an operator asks for.",
        "By a message signed with an operator's key; it names device, profile and names, and carries the certificate request.",
        {201: _ISSUED, 200: _ISSUED},
        (*_POST, 404),
        body=messages.MESSAGE_ONLY,
    ),
    Operation(
        "GET",
        "/certificates",
        "searchCertificates",
        "Search certificates.",
        "For operators. All parameters must match; pages go on at `next`.",
        {200: {JSON: "Page"}},
        (400, 403, 503),
        query=messages.SEARCH,
        security=("certificate",),
    ),
    Operation(
        "GET",
        "/certificates/{issuer}/{serial}",
        "showCertificate",
        "Show one certificate.",
        "For operators, and for the device it belongs to.",
        {200: {JSON: "Certificate", PKIX_CERT: "Der"}},
        (403, 404, 503),
        security=("certificate",),
    ),
    Operation(
        "GET",
        "/certificates/{issuer}/{serial}/receipt",
        "showReceipt",
        "Prove that a certificate stands in the record.",
        "The document verifies offline: fleetca audit verify --receipt FILE. 503 until the record's next checkpoint.",
        {200: {JSON: "Receipt"}},
        (403, 404, 503),
        security=("certificate",),
    ),
    Operation(
        "POST",
        "/line/shifts",
        "openShift",
        "Log in at a station of a factory line.",
        "By a message signed with the operator's key; it names station, station key, profile, count and seconds. The answer holds the quota, signed by the CA:"
        " the first line of the shift's file.",
        {200: {JSON: "Shift"}},
        (*_POST, 404),
        body=messages.MESSAGE_ONLY,
    ),
    Operation(
        "POST",
        "/line/units",
        "bringUnits",
        "Bring units of a shift, and get their certificates.",
        "Who brings them is told by the station's seal. What was brought before is answered again; nothing is issued twice. 503: all of it may be sent again.",
        {200: {JSON: "Units"}},
        (*_POST, 404),
        body=line_messages.UNITS,
    ),
    Operation(
        "POST",
        "/line/records",
        "sealRecords",
        "Have provisioning records countersigned.",
        "Who brings them is told by the station's signature in each. Where all of them were countersigned before, the answer is what was said then.",
        {200: {JSON: "RecordSeal"}},
        (*_POST, 404),
        body=line_messages.RECORDS,
    ),
    Operation(
        "GET",
        "/ca/chain",
        "chain",
        "The issuing CA's chain.",
        "Of the one that issues now: issuing CA first, root last.",
        {200: {PEM_CHAIN: "Pem"}},
        (404, 503),
        tls12=True,
    ),
    Operation(
        "GET",
        "/ca/bundle",
        "bundle",
        "The roots to trust.",
        "PEM, in no order that matters.",
        {200: {PEM_CHAIN: "Pem"}},
        (503,),
        tls12=True,
    ),
    Operation(
        "GET",
        "/ca/links",
        "links",
        "What roots gave each other.",
        "PEM: while two roots are at work, new with old and old with new (RFC 9810 4.4). Who trusts one of them gets to what the other signed through "
        "these; they are no anchors. Empty: there are none.",
        {200: {PEM_CHAIN: "Pem"}},
        (503,),
        tls12=True,
    ),
    Operation(
        "GET",
        "/ca/pins",
        "pins",
        "The signed sets of trust anchors.",
        "Each set is signed by a key that the one before it pins; whoever trusts one can go through all that follow. 404: there is none.",
        {200: {JSON: "Pins"}},
        (404,),
        tls12=True,
    ),
    Operation(
        "GET",
        "/about",
        "about",
        "Which deployment is this?",
        "Its name is the audience of signed messages.",
        {200: {JSON: "About"}},
        (),
        tls12=True,
    ),
    Operation(
        "GET",
        "/health",
        "health",
        "Is enrolment ready?",
        "503 while the signer or the database does not answer.",
        {200: {JSON: "Health"}, 503: {JSON: "Health"}},
        (),
        tls12=True,
    ),
    Operation("GET", "/openapi.json", "openapi", "This document.", "", {200: {JSON: "OpenApi"}}, (), tls12=True),
)

# ---- Schemas --------------------------------------------------------------------------------------------------------


def _object(about: str, properties: Mapping[str, Any], *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "type": "object",
        "description": about,
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _text(about: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": about, **more}


def _or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {**schema, "type": [schema["type"], "null"]}


_TIME: Final = {"type": "string", "format": "date-time", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"}
_SERIAL: Final = _text("40 hexadecimal digits.", pattern="^[0-9a-f]{40}$")
_SHA256: Final = _text("SHA-256, hexadecimal.", pattern="^[0-9a-f]{64}$")
_NAMES: Final = {
    "type": "array",
    "items": _object(
        "A subject alternative name.", {"kind": {"type": "string", "enum": [kind.value for kind in NameKind]}, "value": {"type": "string"}}
    ),
}
_APPROVAL: Final = _object(
    "A request for a first certificate that an operator must approve.",
    {
        "request": _text("The hash of evidence and certificate request, in hexadecimal.", pattern="^[0-9a-f]{64}$"),
        "device": {"type": "string"},
        "profile": {"type": "string"},
        "names": _NAMES,
        "evidence": _text("What was brought: token, manufacturer, hardware or validated."),
        "actor": _text("Who asked."),
        "spki_sha256": _text("Of the key in the certificate request."),
        "asked_at": _TIME,
        "expires": {**_TIME, "description": "Approved and fetched before this, or not at all."},
        "state": {"type": "string", "enum": ["pending", "approved", "refused"]},
        "decided_by": {"type": "string"},
        "reason": {"type": "string"},
    },
)
_PROPOSAL: Final = _object(
    "A grave act that one operator asks for and another person approves.",
    {
        "request": _text("The SHA-256 of `payload`, in hexadecimal: what an approval names.", pattern="^[0-9a-f]{64}$"),
        "act": {"type": "string", "enum": [act.value for act in GraveAct]},
        "subject": {"type": "object", "description": "The exact request."},
        "reason": {"type": "string"},
        "asked_by": _text("The operator who asks."),
        "person": _text("Who that is."),
        "asked_at": _TIME,
        "expires": {**_TIME, "description": "Approved and done before this, or not at all."},
        "state": {"type": "string", "enum": [state.value for state in ProposalState]},
        "answers": {
            "type": "array",
            "items": _object(
                "What another operator signed.",
                {"operator": {"type": "string"}, "person": {"type": "string"}, "approve": {"type": "boolean"}, "at": _TIME},
            ),
        },
        "words": _text("Of who refused or withdrew it."),
        "payload": _text("The message as it was signed, base64."),
    },
)
_PEM_TEXT: Final = _text("PEM.", pattern="^-----BEGIN CERTIFICATE-----\n")
_ISSUERS: Final = {
    "type": "array",
    "items": _object(
        "A CA certificate that signs for this shift, or stands above one.",
        {"id": {"type": "string"}, "parent": _or_null(_text("Who signed it, where that is on record.")), "certificate": _PEM_TEXT},
    ),
}
_REVOCATION: Final = _object("Why and since when.", {"reason": {"type": "string", "enum": list(messages.REASONS)}, "revoked_at": _TIME})

_ROW: Final = {
    "issuer": _text("The issuer's id."),
    "serial": _SERIAL,
    "state": {"type": "string", "enum": list(messages.STATES)},
    "expired": {"type": "boolean"},
    "device": {"type": "string"},
    "profile": {"type": "string"},
    "subject": _text("RFC 4514 text."),
    "names": _NAMES,
    "key_sha256": _SHA256,
    "not_before": _TIME,
    "not_after": {**_TIME, "description": "Inclusive: the last second at which it holds."},
    "issued_at": _or_null(_TIME),
    "delivered_at": {**_or_null(_TIME), "description": "When the holder of what it renews said that it has arrived."},
    "first_used_at": _or_null(_TIME),
    "grace_ends_at": {**_or_null(_TIME), "description": "The first second at which it is superseded because its successor has arrived."},
    "superseded_at": _or_null(_TIME),
    "clone_seen_at": {
        **_or_null(_TIME),
        "description": "When its key spoke first after another certificate had taken its place by being used.",
    },
    "renews": _or_null(_text("ISSUER/SERIAL of the certificate it renewed.")),
    "revocation": {"anyOf": [_REVOCATION, {"type": "null"}]},
}

_SCHEMAS: Final[Mapping[str, Mapping[str, Any]]] = {
    "Issuance": _object(
        "A certificate, and what its holder needs to know.",
        {
            "certificate": _PEM_TEXT,
            "chain": {**_PEM_TEXT, "description": "PEM: the issuing CA first, the root last."},
            "issuer": _text("The issuer's id."),
            "serial": _SERIAL,
            "device": {"type": "string"},
            "profile": {"type": "string"},
            "not_before": _TIME,
            "not_after": {**_TIME, "description": "Inclusive: the last second at which it holds."},
            "renew_at": {**_or_null(_TIME), "description": "When to renew; null where the profile does not renew."},
            "plain_key_file": {"type": "boolean", "description": "Whether the profile lets its key lie in a plain file of its owner's."},
            "leaf": {**_SHA256, "description": "The leaf hash in the record; ask for a receipt with it."},
            "repeated": {"type": "boolean", "description": "True: an equal request was granted before, and this is its result."},
        },
    ),
    "Shift": _object(
        "So many units of one profile, by one operator at one station, until then.",
        {
            "shift": {"type": "integer"},
            "station": {"type": "string"},
            "operator": {"type": "string"},
            "profile": {"type": "string"},
            "issuer": _text("Who signed the quota."),
            "count": {"type": "integer"},
            "not_after": {**_TIME, "description": "Inclusive: the last second at which a unit may be made."},
            "accept_until": {**_TIME, "description": "Inclusive: the last second at which units are taken."},
            "header": _text("The first line of the shift's file, without its newline."),
            "issuers": _ISSUERS,
        },
    ),
    "Units": _object(
        "What came of each unit, in their order.",
        {
            "shift": {"type": "integer"},
            "taken": _text("How many units of the shift are on record.", type="integer"),
            "units": {
                "type": "array",
                "items": {
                    "oneOf": [
                        _object("Certified.", {"certificate": _text("DER, base64.")}),
                        _object("Refused.", {"refused": _text("The code."), "what": _text("In words.")}),
                    ]
                },
            },
            "issuers": _ISSUERS,
        },
    ),
    "RecordSeal": _object(
        "The CA's word for the first `count` records of a station.",
        {
            "station": {"type": "string"},
            "count": {"type": "integer"},
            "last": _text("`sha256:` of the last of them."),
            "issuer": _text("Who signed."),
            "at": _TIME,
            "signature": _text("base64."),
        },
    ),
    "Challenge": _object(
        "What a TPM must answer. All but `expires` is base64.",
        {
            "ticket": _text("Goes back with the answer, as it is."),
            "nonce": _text("qualifyingData of TPM2_Certify."),
            "credential": _text("Contents of the TPM2B_ID_OBJECT of TPM2_ActivateCredential."),
            "seed": _text("Contents of its TPM2B_ENCRYPTED_SECRET."),
            "expires": _TIME,
        },
    ),
    "Window": _object(
        "A suggested window.",
        {
            "start": _TIME,
            "end": _TIME,
            "reason": _or_null(_text("Why it is not the ordinary one.")),
            "ask_after": {"type": "integer", "description": "Seconds."},
        },
    ),
    "Heard": _object("It was heard.", {"device": {"type": "string"}}),
    "Fleet": _object(
        "One page of the fleet.",
        {
            "devices": {
                "type": "array",
                "items": _object(
                    "A device's last word.",
                    {
                        "device": {"type": "string"},
                        "health": {"type": "string", "enum": [one.value for one in Health]},
                        "outcome": {"type": "string", "enum": list(messages.OUTCOMES)},
                        "code": _text("Of what failed; empty."),
                        "due": {**_TIME, "description": "When it will renew next."},
                        "not_after": {**_TIME, "description": "Of the certificate that it spoke with."},
                        "heard_at": _TIME,
                        "agent": {"type": "string"},
                    },
                ),
            },
            "next": _or_null(_text("The `cursor` of the next page; null: this was the last.")),
        },
    ),
    "Certificate": _object("A certificate on record.", {**_ROW, "certificate": _or_null(_PEM_TEXT)}),
    "Page": _object(
        "One page of a search.",
        {
            "certificates": {"type": "array", "items": _object("A certificate on record.", _ROW)},
            "next": _or_null(_text("The `cursor` of the next page; null: this was the last.")),
        },
    ),
    "Revocations": _object(
        "What is revoked now.",
        {
            "revoked": {
                "type": "array",
                "items": _object("One certificate.", {"issuer": {"type": "string"}, "serial": _SERIAL, **_REVOCATION["properties"]}),
            }
        },
    ),
    "Token": _object(
        "A one-time enrolment token.",
        {
            "token": _text("Secret; shown this once.", pattern=f"^{messages.TOKEN}$"),
            "device": {"type": "string"},
            "profile": {"type": "string"},
            "names": _NAMES,
            "expires": _TIME,
        },
    ),
    "Approval": _APPROVAL,
    "Proposal": _PROPOSAL,
    "Decided": {"description": "What was decided on.", "anyOf": [_APPROVAL, _PROPOSAL]},
    "Proposals": _object(
        "One page of grave acts that were asked for.",
        {
            "proposals": {"type": "array", "items": _PROPOSAL},
            "next": _or_null(_text("The `cursor` of the next page; null: this was the last.")),
        },
    ),
    "Approvals": _object(
        "One page of what waits.",
        {
            "approvals": {"type": "array", "items": _APPROVAL},
            "next": _or_null(_text("The `cursor` of the next page; null: this was the last.")),
        },
    ),
    "Tenant": _object(
        "A tenant, as the settings have it.",
        {
            "tenant": _text("Its name; `default` is the house."),
            "prefix": _or_null(_text("What the ids of its devices begin with; null: whatever is no tenant's.")),
            "issuer": _text("Who signs for it."),
            "devices": {"type": "integer", "description": "How many it has on record."},
            "most_devices": _or_null({"type": "integer", "description": "How many it may have; null: no limit."}),
            "per_minute": _or_null({"type": "integer", "description": "Certificates in a minute; null: no limit."}),
            "profiles": {
                "type": "array",
                "items": _object(
                    "A profile as the tenant has it.",
                    {
                        "name": {"type": "string"},
                        "lifetime": {"type": "integer", "description": "Seconds."},
                        "algorithms": {"type": "array", "items": {"type": "string"}},
                        "approval_within": {
                            "type": "integer",
                            "description": "Seconds that a first certificate waits for an operator; 0: none is asked.",
                        },
                    },
                ),
            },
        },
    ),
    "LogPage": _object(
        "Leaves of the log.",
        {
            "leaves": {
                "type": "array",
                "items": _object(
                    "One leaf.",
                    {"index": {"type": "integer"}, "leaf": {"type": "object", "description": "What happened; `kind` says which fields."}},
                ),
            },
            "next": _or_null({"type": "integer", "description": "The `start` of the next page; null: the log ends here."}),
        },
    ),
    "Receipt": {"type": "object", "description": "A proof of inclusion that verifies offline against the record's key."},
    "Pins": {"type": "object", "description": "Signed pin sets, oldest first."},
    "About": _object("Who answers.", {"deployment": _text("The audience of signed messages."), "version": {"type": "string"}}),
    "Health": _object(
        "What answers.",
        {
            "status": {"type": "string", "enum": ["ready", "degraded"]},
            "signer": {"type": "boolean"},
            "store": {"type": "boolean"},
            "root_present": {"type": "boolean", "description": "Whether the signer has the key of a root open, which must never be."},
        },
    ),
    "Problem": _object(
        "Why not (RFC 9457). `code` is stable.",
        {
            "type": _text("A URI made of the code.", pattern="^urn:fleetca:error:[a-z0-9-]+$"),
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "instance": _text("A URI made of the request id."),
            "code": _text("Stable identifier.", pattern="^[a-z0-9-]+$"),
            "fix": _text("What mends it; may be empty."),
            "request_id": {"type": "string"},
        },
    ),
    "Pem": _text("PEM certificates."),
    "Der": {"type": "string", "description": "DER."},
    "OpenApi": {"type": "object"},
}

_REFUSALS: Final[Mapping[int, str]] = {
    400: "The request cannot be read.",
    202: "An operator has to approve it; send the same request again. See Retry-After.",
    401: "The token does not hold.",
    403: "The evidence does not hold, or does not allow it.",
    404: "There is no such thing, or none that the asker may see.",
    409: "It clashes with what is on record, for example a token that was used.",
    413: "The body is too large.",
    415: "The body has a type that is not taken here.",
    422: "A rule is against it, for example a weak key.",
    429: "Too many requests; see Retry-After.",
    503: "Not now; the same request may be repeated. See Retry-After.",
}

_SECURITY: Final = {
    "token": {"type": "http", "scheme": "bearer", "description": "A one-time enrolment token, when the body is application/pkcs10."},
    "certificate": {"type": "mutualTLS", "description": "A live certificate of this deployment."},
}

_REQUEST_ID: Final = {"X-Request-Id": {"description": "Names this request in our log.", "required": True, "schema": {"type": "string"}}}
_RETRY_AFTER: Final = {"Retry-After": {"description": "Seconds.", "required": True, "schema": {"type": "integer"}}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _answers(operation: Operation) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for status, types in operation.answers.items():
        made[str(status)] = {
            "description": {201: "Made.", 503: "Not ready."}.get(status, "Done." if operation.method == "POST" else "Found."),
            "headers": _REQUEST_ID,
            "content": {media: {"schema": _ref(name)} for media, name in types.items()},
        }
    for status in operation.refusals:
        retry = _RETRY_AFTER if status in (202, 429, 503) else {}
        made[str(status)] = {
            "description": _REFUSALS[status],
            "headers": {**_REQUEST_ID, **retry},
            "content": {problems.MEDIA_TYPE: {"schema": _ref("Problem")}},
        }
    made["default"] = {"description": "A problem.", "headers": _REQUEST_ID, "content": {problems.MEDIA_TYPE: {"schema": _ref("Problem")}}}
    return made


def _request(operation: Operation) -> dict[str, Any]:
    if operation.body is None:
        return {}
    content: dict[str, Any] = {JSON: {"schema": _ref(operation.body.name)}}
    if operation.pkcs10:
        content[PKCS10] = {"schema": {"type": "string", "description": "PKCS#10 certificate request, DER."}}
    return {"requestBody": {"required": operation.body_required, "content": content}}


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "description": about, "schema": {"type": "string"}}
        for name, about in (
            ("issuer", "The issuer's id."),
            ("authority", "The issuer's key identifier in hexadecimal."),
            ("serial", "The serial number in hexadecimal."),
            ("request", "The hash of the request, 64 hexadecimal digits."),
        )
        if f"{{{name}}}" in operation.path
    ]
    for one in operation.query.fields if operation.query else ():
        schema = dict(one.schema)
        made.append({"name": one.name, "in": "query", "required": False, "description": schema.pop("description", ""), "schema": schema})
    return made


def document(*, version: str, url: str) -> dict[str, Any]:
    """The OpenAPI 3.1 description.

    Args:
        version: of this program.
        url: where devices reach the API, without the prefix.
    """
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        made: dict[str, Any] = {
            "operationId": operation.id,
            "summary": operation.summary,
            "description": operation.about if operation.tls12 else f"{operation.about} Over TLS 1.3 only.".strip(),
            "parameters": _parameters(operation),
            "security": [{name: []} if name else {} for name in operation.security],
            "responses": _answers(operation),
            **_request(operation),
        }
        if operation.id == "enroll":
            made["security"].append({})  # the token stands in the JSON body
        paths.setdefault(PREFIX + operation.path, {})[operation.method.lower()] = made
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fleetca enrolment",
            "version": version,
            "summary": "Certificates for devices: enrol, renew, confirm, revoke, and look them up.",
            "description": "Every request may be repeated as it is. Errors are RFC 9457 problems whose `code` is stable.",
        },
        "servers": [{"url": url}],
        "paths": paths,
        "components": {
            "schemas": {
                **_SCHEMAS,
                **{body.name: body.schema() for body in (*messages.BODIES, line_messages.UNITS, line_messages.RECORDS)},
            },
            "securitySchemes": _SECURITY,
        },
    }
