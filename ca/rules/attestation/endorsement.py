"""Whether an endorsement key is that of a TPM whose maker the settings trust. Ring 1: pure.

An endorsement key certificate says: this key is inside a TPM that we made. It is believed where signatures lead from it to a certificate of the
settings (never by name alone, R34), and where it is what the TCG EK Credential Profile (2.6, 3) asks for. A maker's revocation lists are not
asked: this runs where there is no network; docs/how-to/attestation.md says what to do about a maker that revoked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtensionOID

from ca.errors import Denied, FleetcaError, Malformed, Unauthenticated
from ca.model import Digest, UnixTime
from ca.rules.attestation.credential import fits
from ca.rules.caps import TpmMaker

LONGEST_CHAIN: Final = 5
"""Certificates that a device may send: its own, and those between it and its maker's."""
LARGEST: Final = 4096
"""Octets of one of them."""
EK_CERTIFICATE: Final = "2.23.133.8.1"
"""tcg-kp-EKCertificate."""
_TPM: Final = {"2.23.133.2.1": "manufacturer", "2.23.133.2.2": "model", "2.23.133.2.3": "version"}
_ID: Final = re.compile(r"id:[0-9A-Fa-f]{8}")


@dataclass(frozen=True, slots=True)
class Endorsement:
    """An endorsement key that is believed, and what its maker says of the TPM."""

    maker: str
    key: Any
    spki_sha256: Digest
    manufacturer: str
    """`id:` and four octets in hexadecimal, as the TCG registers vendors."""
    model: str
    version: str


def read_endorsement(chain: Sequence[bytes], makers: Sequence[TpmMaker], *, now: UnixTime) -> Endorsement:
    """The endorsement key of a certificate chain, its own certificate first.

    Raises:
        Malformed: there is no chain, it is too long, or a certificate cannot be read (`endorsement-unreadable`).
        Unauthenticated: it leads to none of the trusted makers (`tpm-maker-unknown`).
        Denied: it is no endorsement key's (`endorsement-profile`), or does not hold now (`endorsement-out-of-time`).
    """
    if not 0 < len(chain) <= LONGEST_CHAIN:
        raise _unreadable(f"A chain has 1 to {LONGEST_CHAIN} certificates.")
    if any(len(der) > LARGEST for der in chain):
        raise _unreadable(f"One has more than {LARGEST} octets.")
    try:
        loaded = [x509.load_der_x509_certificate(_unpadded(der)) for der in chain]
        maker = _maker(loaded, makers, now=now)
        return _judged(loaded[0], maker)
    except FleetcaError:
        raise
    except Exception:  # noqa: BLE001 - whatever a library says about foreign octets (R20)
        raise _unreadable("It is no certificate, or one with damaged extensions.") from None


def _unreadable(why: str) -> Malformed:
    return Malformed(
        "endorsement-unreadable", "The endorsement certificate cannot be read.", why=why, fix="Send the chain as DER, its own first."
    )


def _unpadded(der: bytes) -> bytes:
    """A TPM's NV index may be longer than the certificate in it; what follows is zeros or ones, and nothing else."""
    if len(der) > 4 and der[0] == 0x30 and der[1] == 0x82:
        end = 4 + int.from_bytes(der[2:4], "big")
        if set(der[end:]) in ({0x00}, {0xFF}):
            return der[:end]
    return der


def _maker(chain: list[x509.Certificate], makers: Sequence[TpmMaker], *, now: UnixTime) -> TpmMaker:
    """Walk up, one signature after the other, until a certificate of the settings signed."""
    moment = datetime.fromtimestamp(now, tz=UTC)
    trusted = [(maker, x509.load_der_x509_certificate(der)) for maker in makers for der in maker.roots]
    for place, one in enumerate(chain):
        if not one.not_valid_before_utc <= moment <= one.not_valid_after_utc:
            raise Denied(
                "endorsement-out-of-time", "A certificate of the endorsement chain does not hold now.", why=f"It is number {place + 1}."
            )
        for maker, root in trusted:
            if _issued(one, root, below=place):
                if not root.not_valid_before_utc <= moment <= root.not_valid_after_utc:
                    raise Denied("endorsement-out-of-time", f"The CA certificate of maker {maker.name!r} does not hold now.")
                return maker
        if place + 1 == len(chain) or not _issued(one, chain[place + 1], below=place):
            break
    raise Unauthenticated(
        "tpm-maker-unknown",
        "The TPM is not from a maker that is trusted here.",
        why="No path of signatures leads from its endorsement certificate to a CA of the settings.",
        fix="Send the certificates between, or add the maker under [[attestation.tpm_makers]].",
    )


def _issued(one: x509.Certificate, above: x509.Certificate, *, below: int) -> bool:
    """Did that CA sign, and may it? `below`: how many CA certificates stand between it and the device's."""
    try:
        constraints = above.extensions.get_extension_for_class(x509.BasicConstraints).value
        if not constraints.ca or (constraints.path_length is not None and constraints.path_length < below):
            return False
        try:
            if not above.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign:
                return False
        except x509.ExtensionNotFound:
            pass  # RFC 5280 4.2.1.3: then nothing is forbidden; some makers' roots are older than that rule
        one.verify_directly_issued_by(above)
    except Exception:  # noqa: BLE001 - another name, another key, no CA: not this one's
        return False
    return True


def _judged(one: x509.Certificate, maker: TpmMaker) -> Endorsement:
    """3.2 of the profile: what must and what must not be in it."""
    key = one.public_key()
    if not fits(key):
        raise _profile("Its key is of a kind that endorsement keys do not have.")
    extensions = one.extensions
    if _of(extensions, x509.BasicConstraints) is not None and extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
        raise _profile("It is a CA's.")
    usage = _of(extensions, x509.KeyUsage)
    wanted = "keyEncipherment" if isinstance(key, rsa.RSAPublicKey) else "keyAgreement"
    if usage is None or not (usage.key_encipherment if wanted == "keyEncipherment" else usage.key_agreement):
        raise _profile(f"Its key usage lacks {wanted}.")
    if usage.key_cert_sign or usage.crl_sign or usage.digital_signature:
        raise _profile("Its key usage lets it sign; an endorsement key decrypts and does nothing else.")
    extended = _of(extensions, x509.ExtendedKeyUsage)
    if extended is None or EK_CERTIFICATE not in {purpose.dotted_string for purpose in extended}:
        raise _profile(f"Its extended key usage lacks tcg-kp-EKCertificate ({EK_CERTIFICATE}).")
    known = {ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE, ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.SUBJECT_ALTERNATIVE_NAME}
    strange = [extension.oid.dotted_string for extension in extensions if extension.critical and extension.oid not in known]
    if strange:
        raise _profile(f"It has a critical extension that is not known here: {strange[0]}.")
    said = _tpm(extensions)
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Endorsement(maker.name, key, Digest(hashlib.sha256(spki).digest()), **said)


def _tpm(extensions: x509.Extensions) -> dict[str, str]:
    """Manufacturer, model and version of the TPM, each once, in a directory name of the subject alternative name (3.2.9)."""
    found: dict[str, str] = {}
    names = _of(extensions, x509.SubjectAlternativeName)
    for name in () if names is None else names.get_values_for_type(x509.DirectoryName):
        for attribute in name:
            word = _TPM.get(attribute.oid.dotted_string)
            if word is None:
                continue
            if word in found:
                raise _profile(f"Its subject alternative name says the {word} of the TPM twice.")
            found[word] = str(attribute.value)
    missing = [word for word in _TPM.values() if not found.get(word)]
    if missing:
        raise _profile(f"Its subject alternative name does not say the TPM's {', '.join(missing)}.")
    if not _ID.fullmatch(found["manufacturer"]):
        raise _profile("The TPM's manufacturer is not written as id: and eight hexadecimal digits.")
    if any(len(text) > 64 or not text.isprintable() for text in found.values()):
        raise _profile("What it says of the TPM is no plain text.")
    return found


def _of(extensions: x509.Extensions, kind: Any) -> Any:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _profile(why: str) -> Denied:
    return Denied(
        "endorsement-profile", "The certificate is not that of an endorsement key.", why=why, fix="See the TCG EK Credential Profile, 3.2."
    )
