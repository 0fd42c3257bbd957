"""A manufacturer: a CA that gives devices their factory certificates (IDevID, IEEE 802.1AR)."""

from __future__ import annotations

import datetime as dt

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.fakes.certificates import NOW

END = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
"""Of a certificate without a defined end (RFC 5280 4.1.2.5)."""


class Factory:
    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _certificate(maker: Factory, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> bytes:
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(maker.name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime.fromtimestamp(NOW - 86400, tz=dt.UTC))
        .not_valid_after(END)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .sign(maker.key, hashes.SHA256())
    )
    return made.public_bytes(Encoding.DER)


def factory(name: str) -> tuple[Factory, bytes]:
    """A manufacturer and its CA certificate."""
    maker = Factory(name)
    return maker, _certificate(maker, maker.name, maker.key, authority=True)


def factory_device(maker: Factory, serial: str) -> bytes:
    """A device's factory certificate."""
    subject = x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, serial)])
    return _certificate(maker, subject, ec.generate_private_key(ec.SECP256R1()), authority=False)
