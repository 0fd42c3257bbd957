"""Which device a factory certificate (IDevID, IEEE 802.1AR) is. Ring 1: pure.

Trusted is who issued it, by signature under a CA of the settings, never by name (R34). It identifies and enrols; it never renews, and what it
says beyond the serial number of its subject counts for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.x509.oid import NameOID

from ca.errors import Denied, Malformed, Unauthenticated
from ca.model import DeviceId, UnixTime
from ca.rules import ids
from ca.rules.caps import Manufacturer


def identity(der: bytes, manufacturers: Sequence[Manufacturer], *, now: UnixTime) -> tuple[Manufacturer, DeviceId]:
    """The manufacturer that issued a certificate, and the id of the device that it was issued to.

    Raises:
        Unauthenticated: none of the trusted manufacturers issued it (`manufacturer-unknown`).
        Denied: it does not hold now, or is a CA's (`factory-certificate`).
        Malformed: it does not name a device (`bad-device-id`).
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        maker = next((one for one in manufacturers if _issued(certificate, one)), None)
        if maker is None:
            raise Unauthenticated(
                "manufacturer-unknown",
                "The certificate is not from a manufacturer that is trusted here.",
                why="None of the CAs of the settings signed it.",
                fix="Enrol with a token, or add the manufacturer under [[est.manufacturers]].",
            )
        first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        serials = [str(one.value) for one in certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)]
        authority = _is_ca(certificate)
    except (Unauthenticated, Denied):
        raise
    except Exception:  # noqa: BLE001 - whatever a library says about foreign octets (R20)
        raise Unauthenticated("manufacturer-unknown", "The certificate cannot be read.") from None
    if authority or not first <= datetime.fromtimestamp(now, tz=UTC) <= last:
        raise Denied("factory-certificate", "The factory certificate does not hold now, or is that of a CA.")
    if len(serials) != 1:
        raise Malformed(
            "bad-device-id",
            "The factory certificate names no device.",
            why="IEEE 802.1AR wants one serialNumber in its subject.",
        )
    return maker, ids.device_id(maker.prefix + serials[0])


def _issued(certificate: x509.Certificate, maker: Manufacturer) -> bool:
    try:
        certificate.verify_directly_issued_by(x509.load_der_x509_certificate(maker.certificate))
    except Exception:  # noqa: BLE001 - another name, another algorithm, another key: not this one's
        return False
    return True


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def may_sign(der: bytes) -> bool:
    """Whether a certificate is one that may issue others."""
    try:
        return _is_ca(x509.load_der_x509_certificate(der))
    except ValueError:
        return False
