"""Files that witnesses and custodians carry: requests, signatures, certificates. Edge: reads and writes forms, judges nothing."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ca.errors import Malformed, Misconfigured
from ca.model import MessageEvidence
from ca.ports import SigningKey
from config.strict import read_octets
from fleetca import forms


def octets(path: Path, kind: str) -> bytes:
    """A file's octets.

    Raises:
        Misconfigured: it is absent.
    """
    with forms.our_errors():
        return read_octets(path, kind=kind)


def certificate(path: Path, key: SigningKey) -> bytes:
    """The DER of the first certificate of a file, which must be the key's.

    Raises:
        Misconfigured: it is none, or of another key (`key-of-another-certificate`).
    """
    try:
        found = x509.load_pem_x509_certificates(octets(path, "certificate"))[0]
    except (ValueError, IndexError):
        raise Misconfigured("bad-certificate", f"{path} is not a certificate.", fix="Give a PEM file.") from None
    if found.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != key.spki:
        raise Misconfigured(
            "key-of-another-certificate", f"{path} is not the certificate of that key.", fix="Give the pair of one operator."
        )
    return found.public_bytes(Encoding.DER)


def witness_document(payload: bytes, der: bytes, signature: bytes) -> dict[str, Any]:
    """A witness's signature as JSON."""
    return {"kind": "witness", "payload": _text(payload), "certificate": _text(der), "signature": _text(signature)}


def witness(path: Path, payload: bytes) -> MessageEvidence:
    """A witness's signature from its file.

    Raises:
        Malformed: it is none, or over another request (`bad-witness`).
    """
    try:
        document = json.loads(octets(path, "witness's signature"))
        if set(document) != {"kind", "payload", "certificate", "signature"} or document["kind"] != "witness":
            raise ValueError
        signed, der, signature = (base64.b64decode(document[name], validate=True) for name in ("payload", "certificate", "signature"))
    except (ValueError, TypeError, RecursionError):
        raise Malformed("bad-witness", f"{path} is not a witness's signature.", fix="Make it with: fleetca keys witness") from None
    if signed != payload:
        raise Malformed("bad-witness", f"{path} signs another request.", fix="Let the witness sign this one.")
    return MessageEvidence(signed, der, signature)


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")
