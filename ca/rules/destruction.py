"""The destruction of a key: what witnesses sign, and the certificate that remains. Ring 1: pure.

A request names one key by its public half and is signed by at least two operators, each with a key of their own, over the same octets. The
signatures, the store's proof and the log's leaf together say who had which key destroyed, why, and what the store answered.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ca.der.algorithms import verify
from ca.errors import FleetcaError, Malformed, Unauthenticated
from ca.model import Destruction, Digest, KeyRecord, MessageEvidence, OperatorName, UnixTime
from ca.rules.leaf import canonical
from ca.rules.message import digest_of, signed_octets

ACT: Final = "destroy-key"
WITNESSES: Final = 2
WINDOW: Final = 24 * 3600
"""Seconds from the request to its execution: witnesses may sit in different places."""
_FIELDS: Final = {"act", "audience", "issued_at", "id", "key", "spki_sha256", "reason"}


@dataclass(frozen=True, slots=True)
class Request:
    """What the witnesses agree to."""

    audience: str
    issued_at: UnixTime
    id: str
    key: str
    spki_sha256: Digest
    reason: str

    def write(self) -> bytes:
        """The octets to sign."""
        return canonical(
            {
                "act": ACT,
                "audience": self.audience,
                "issued_at": self.issued_at,
                "id": self.id,
                "key": self.key,
                "spki_sha256": self.spki_sha256.hex(),
                "reason": self.reason,
            }
        )


def read(payload: bytes) -> Request:
    """A request from its octets.

    Raises:
        Malformed: it is none (`bad-destruction-request`).
    """
    try:
        document = json.loads(payload)
        if not isinstance(document, dict) or set(document) != _FIELDS or document["act"] != ACT or canonical(document) != payload:
            raise ValueError("It has other fields, or is not in canonical form.")
        if type(document["issued_at"]) is not int or not all(isinstance(document[name], str) for name in _FIELDS - {"issued_at"}):
            raise ValueError("A field has another type.")
        spki = bytes.fromhex(document["spki_sha256"])
        if len(spki) != 32 or not document["reason"].strip() or not 16 <= len(document["id"]) <= 128:
            raise ValueError("A field has no usable value.")
    except (ValueError, RecursionError) as error:
        raise Malformed("bad-destruction-request", "This is no request to destroy a key.", why=str(error)) from None
    return Request(document["audience"], document["issued_at"], document["id"], document["key"], Digest(spki), document["reason"])


def check(request: Request, record: KeyRecord, *, deployment: str, now: UnixTime) -> None:
    """Whether a request is for this key, here and now.

    Raises:
        Unauthenticated: `request-for-another-key`, `message-for-another-deployment`, `message-out-of-time`.
    """
    if request.spki_sha256 != record.spki_sha256 or request.key != record.name:
        raise Unauthenticated(
            "request-for-another-key", "The witnesses agreed to destroy another key.", fix="Make a new request for this one."
        )
    if request.audience != deployment:
        raise Unauthenticated(
            "message-for-another-deployment", "The request is meant for another deployment.", fix="Make a new request here."
        )
    if not -300 <= now - request.issued_at <= WINDOW:
        raise Unauthenticated(
            "message-out-of-time", "The request is too old, or from the future.", fix="Make a new request; witnesses sign within a day."
        )


def check_signature(witness: MessageEvidence) -> bytes:
    """Whether a witness's key made the signature; the SubjectPublicKeyInfo's digest, to tell keys apart.

    Raises:
        Unauthenticated: it did not (`bad-signature`).
    """
    try:
        key = x509.load_der_x509_certificate(witness.certificate).public_key()
        verify(key, witness.signature, signed_octets(witness.payload))
    except (ValueError, FleetcaError):
        raise Unauthenticated(
            "bad-signature", "A witness's signature does not hold.", fix="Let the witness sign the request again."
        ) from None
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


@dataclass(frozen=True, slots=True)
class Witnessed:
    """A witness whose signature holds."""

    operator: OperatorName
    evidence: MessageEvidence


def certificate(
    record: KeyRecord, request: bytes, witnesses: Sequence[Witnessed], done: Destruction | None, *, deployment: str, at: UnixTime
) -> bytes:
    """The certificate of destruction, as canonical JSON.

    Args:
        record: the key as it was.
        request: what the witnesses signed.
        witnesses: who they are, with their signatures.
        done: the store's account; None where a run before destroyed the key and died.
        deployment: its name.
        at: when.
    """
    proof: Sequence[tuple[str, str]] = (
        done.proof if done is not None else (("asked", "the store has no such key: an earlier run destroyed it"),)
    )
    document: Mapping[str, Any] = {
        "kind": "certificate-of-destruction",
        "version": 1,
        "deployment": deployment,
        "destroyed_at": at,
        "key": {
            "name": record.name,
            "spki_sha256": record.spki_sha256.hex(),
            "algorithm": record.algorithm,
            "purpose": record.purpose.value,
            "created": record.created,
            "store": record.store,
            "place": record.place,
            "protection": None if record.protection is None else record.protection.name,
        },
        "store": None if done is None else {"kind": done.store.kind, "about": done.store.about},
        "proof": [{"what": what, "said": said} for what, said in proof],
        "request": _text(request),
        "request_sha256": digest_of(request).hex(),
        "witnesses": [
            {"operator": each.operator, "certificate": _text(each.evidence.certificate), "signature": _text(each.evidence.signature)}
            for each in witnesses
        ],
    }
    return canonical(document) + b"\n"


def verify_certificate(octets: bytes) -> tuple[Request, tuple[str, ...]]:
    """Check a certificate of destruction by itself: what was agreed to, and by whom. Whose certificates those are is for a chain check.

    Raises:
        Malformed: it is none (`bad-destruction-certificate`).
        Unauthenticated: a signature does not hold (`bad-signature`), or there are too few witnesses (`witnesses-missing`).
    """
    try:
        document = json.loads(octets)
        if canonical(document) + b"\n" != octets or document["kind"] != "certificate-of-destruction":
            raise ValueError
        payload = base64.b64decode(document["request"], validate=True)
        given = [
            (str(each["operator"]), MessageEvidence(payload, *(base64.b64decode(each[part], validate=True) for part in ("certificate", "signature"))))
            for each in document["witnesses"]
        ]  # fmt: skip
        named = document["key"]["spki_sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Malformed("bad-destruction-certificate", "This is no certificate of destruction.") from None
    request = read(payload)
    keys = {check_signature(evidence) for _, evidence in given}
    check_count([name for name, _ in given], keys)
    if named != request.spki_sha256.hex():
        raise Unauthenticated(
            "request-for-another-key", "The witnesses agreed to destroy another key.", fix="Do not believe this certificate."
        )
    return request, tuple(name for name, _ in given)


def check_count(names: Sequence[str], keys: set[bytes]) -> None:
    """Two people, two keys.

    Raises:
        Unauthenticated: fewer (`witnesses-missing`).
    """
    if len(set(names)) < WITNESSES or len(keys) < WITNESSES or len(set(names)) != len(names):
        raise Unauthenticated(
            "witnesses-missing",
            f"A key is destroyed before {WITNESSES} witnesses.",
            why="Each is another operator, who signs the request with a key of their own.",
            fix="Let another operator sign: fleetca keys witness",
        )


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")
