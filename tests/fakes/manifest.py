"""A maker of secure elements: signs manifests as Microchip's Trust Platform does, or not quite."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.fakes.certificates import NOW

YEAR = 365 * 86400


def b64(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def jwk_of(key: Any, **more: Any) -> dict[str, Any]:
    numbers, size = key.public_numbers(), key.curve.key_size // 8
    curve = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}[key.curve.name]
    size = (key.curve.key_size + 7) // 8
    return {
        "kid": "0",
        "kty": "EC",
        "crv": curve,
        "x": b64(numbers.x.to_bytes(size, "big")),
        "y": b64(numbers.y.to_bytes(size, "big")),
        **more,
    }


class ElementMaker:
    """Has a key that signs manifests, and its certificate."""

    def __init__(self, *, curve: Any = None, now: int = NOW) -> None:
        self.key = ec.generate_private_key(curve or ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "manifest signer")])
        self.identifier = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(dt.datetime.fromtimestamp(now - YEAR, tz=dt.UTC))
            .not_valid_after(dt.datetime.fromtimestamp(now + YEAR, tz=dt.UTC))
            .add_extension(self.identifier, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        self.certificate = made.public_bytes(Encoding.DER)

    def entry(self, unique_id: str, *keys: Any, **changes: Any) -> dict[str, Any]:
        """One signed secure element. `changes`: `header`, `protected`, `payload` (members to add or, with None, to leave out), `signer`, `outside`."""
        payload: dict[str, Any] = {
            "version": 1,
            "model": "ATECC608B",
            "partNumber": "ATECC608B-TNGTLSU",
            "manufacturer": {"organizationName": "Element Works"},
            "provisioningTimestamp": "2026-11-20T10:11:12.000Z",
            "uniqueId": unique_id,
            "publicKeySet": {"keys": [jwk_of(key, kid=str(number)) for number, key in enumerate(keys)]},
            "encryptedSecrets": {"keys": []},
        }
        protected: dict[str, Any] = {
            "typ": "JWT",
            "alg": "ES256",
            "kid": b64(self.identifier.digest),
            "x5t#S256": b64(hashlib.sha256(self.certificate).digest()),
        }
        for document, more in ((payload, changes.get("payload", {})), (protected, changes.get("protected", {}))):
            document.update(more)
            for name in [name for name, value in document.items() if value is None]:
                del document[name]
        signed = f"{b64(json.dumps(protected).encode())}.{b64(json.dumps(payload).encode())}"
        r, s = utils.decode_dss_signature(changes.get("signer", self.key).sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        head, body = signed.split(".")
        signature = b64(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
        return {"payload": body, "protected": head, "header": {"uniqueId": changes.get("outside", unique_id)}, "signature": signature}
