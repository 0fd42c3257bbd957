"""Account keys beside certificates' keys. Ring 1: pure."""

from __future__ import annotations

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from enroll.acme import jws


def spki_of(jwk: jws.Jwk) -> bytes:
    """The SubjectPublicKeyInfo of an account's key, as certificates hold it."""
    return jws.public_key(jwk).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
