"""The TPM's side of an attestation: its endorsement certificate, its attestation key, and what both say. Ring 3.

Nothing is kept in the TPM for it: endorsement and attestation key are primary keys, made again from the TPM's own seed each time they are needed,
always the same. The attestation key is one of our own template under the endorsement hierarchy; clearing the owner does not change it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ca.errors import KeyUnavailable
from ca.keys import tpm_commands as tpm
from ca.keys.tpm import TpmKey

_RSA, _ECC, _NULL, _ECDSA, _AES, _CFB = 0x0001, 0x0023, 0x0010, 0x0018, 0x0006, 0x0043
_SHA256, _SHA384 = 0x000B, 0x000C
_POLICY_A: Final = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
_POLICY_B_LOW: Final = bytes.fromhex("ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0")
_POLICY_B: Final = bytes.fromhex("b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12")
"""Who may use an endorsement key of the low range, and of the high one by SHA-256 and SHA-384: whoever may use the endorsement hierarchy (TCG EK Credential Profile, B.6)."""
_LOW: Final = 0x000300B2
_HIGH: Final = 0x000300F2
"""Their attributes; those of the high range may also be used without a policy."""


@dataclass(frozen=True, slots=True)
class _Template:
    """An endorsement key as the profile has it made (B.3, B.4), and where its certificate lies (2.2.1.4)."""

    index: int
    public: bytes
    policy: bool


def _ek(kind: int, digest: int, attributes: int, *, policy: bytes, aes: int, rest: bytes) -> bytes:
    return struct.pack(">HHI", kind, digest, attributes) + tpm.sized(policy) + struct.pack(">HHHH", _AES, aes, _CFB, _NULL) + rest


_TEMPLATES: Final = (
    _Template(
        0x01C0000A,
        _ek(_ECC, _SHA256, _LOW, policy=_POLICY_A, aes=128, rest=struct.pack(">HH", 3, _NULL) + tpm.sized(bytes(32)) * 2),
        policy=True,
    ),
    _Template(
        0x01C00016,
        _ek(_ECC, _SHA384, _HIGH, policy=_POLICY_B, aes=256, rest=struct.pack(">HH", 4, _NULL) + tpm.sized(b"") * 2),
        policy=False,
    ),
    _Template(
        0x01C00014,
        _ek(_ECC, _SHA256, _HIGH, policy=_POLICY_B_LOW, aes=128, rest=struct.pack(">HH", 3, _NULL) + tpm.sized(b"") * 2),
        policy=False,
    ),
    _Template(
        0x01C00002,
        _ek(_RSA, _SHA256, _LOW, policy=_POLICY_A, aes=128, rest=struct.pack(">HI", 2048, 0) + tpm.sized(bytes(256))),
        policy=True,
    ),
    _Template(
        0x01C00012,
        _ek(_RSA, _SHA256, _HIGH, policy=_POLICY_B_LOW, aes=128, rest=struct.pack(">HI", 2048, 0) + tpm.sized(b"")),
        policy=False,
    ),
    _Template(
        0x01C0001C,
        _ek(_RSA, _SHA384, _HIGH, policy=_POLICY_B, aes=256, rest=struct.pack(">HI", 3072, 0) + tpm.sized(b"")),
        policy=False,
    ),
)
"""Elliptic curves first: a TPM makes those at once."""
_CHAIN: Final = range(0x01C00100, 0x01C00105)
"""Where a TPM may have the certificates between its own and its maker's (2.2.1.5.2)."""

_ATTESTER: Final = (
    # fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, sign
    struct.pack(">HHI", _ECC, _SHA256, 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 10 | 1 << 16 | 1 << 18)
    + tpm.sized(b"")
    + struct.pack(">HHHHH", _NULL, _ECDSA, _SHA256, 3, _NULL)
    + tpm.sized(hashlib.sha256(b"fleetca attestation key v1").digest())
    + tpm.sized(b"")
)


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a TPM shows before it is challenged."""

    endorsement: tuple[bytes, ...]
    """Certificates, DER: its endorsement key's, then those above it that the TPM has."""
    attestation_key: bytes
    """TPMT_PUBLIC."""


class TpmAttester:
    """Args:
    device: as of `ca.keys.tpm.TpmKeyStore`.
    chain: the endorsement certificates, DER, where the TPM itself has none.
    """

    def __init__(self, device: str, chain: tuple[bytes, ...] = ()) -> None:
        self._device, self._given = device, chain

    def introduce(self) -> Introduction:
        """Who the TPM is.

        Raises:
            KeyUnavailable: it has no endorsement certificate (`no-endorsement`), is not there (`tpm-absent`), or refuses (`tpm-refused`).
        """
        with self._talking() as channel:
            chain, _ = self._endorsement(channel)
            with _primary(channel, _ATTESTER) as attester:
                return Introduction(chain, tpm.read_public(channel, attester))

    def activate(self, credential: bytes, seed: bytes) -> bytes:
        """The secret in a credential that was made for this TPM and its attestation key.

        Raises:
            KeyUnavailable: it was made for others (`credential-for-another-tpm`), or as `introduce`.
        """
        with self._talking() as channel:
            _, template = self._endorsement(channel)
            with _primary(channel, template.public) as endorsement, _primary(channel, _ATTESTER) as attester:
                session = tpm.endorsement_session(channel) if template.policy else None
                try:
                    return tpm.activate_credential(channel, attester, endorsement, session=session, blob=credential, seed=seed)
                except tpm.TpmError as error:
                    raise KeyUnavailable(
                        "credential-for-another-tpm",
                        "The TPM does not open the credential.",
                        why=f"It says {error}: it was made for another TPM or another key, or changed on the way.",
                        fix="Try again; where it stays so, the service answers for another device.",
                    ) from None
                finally:
                    if session is not None:
                        tpm.flush_context(channel, session)

    @staticmethod
    def certify(key: TpmKey, nonce: bytes) -> tuple[bytes, bytes, bytes]:
        """What the TPM says of a key of its own: its TPMT_PUBLIC, a TPMS_ATTEST with the nonce, and the TPMT_SIGNATURE over that.

        Raises:
            KeyUnavailable: as `TpmKey.sign`.
        """

        def certified(channel: tpm.Channel, handle: int, auth: bytes) -> tuple[bytes, bytes, bytes]:
            with _primary(channel, _ATTESTER) as attester:
                attest, signature = tpm.certify(channel, handle, auth, attester, nonce)
            return tpm.read_public(channel, handle), attest, signature

        return key.certified(certified)

    def _endorsement(self, channel: tpm.Channel) -> tuple[tuple[bytes, ...], _Template]:
        """The certificate of an endorsement key that the TPM makes again, and how it is made."""
        if self._given:
            found = [template for template in _TEMPLATES if _fits(template, self._given[0])]
            for template in found:
                with _primary(channel, template.public) as handle:
                    if _is_of(self._given[0], tpm.read_public(channel, handle)):
                        return self._given, template
            raise _none("The certificate that was given is of another TPM's endorsement key.")
        for template in _TEMPLATES:
            der = tpm.nv_read(channel, template.index)
            if der is None or not tpm.can_make(channel, int.from_bytes(template.public[:2], "big"), _parameters(template.public)):
                continue
            chain = (_whole(der), *(_whole(above) for index in _CHAIN if (above := tpm.nv_read(channel, index))))
            with _primary(channel, template.public) as handle:
                if _is_of(chain[0], tpm.read_public(channel, handle)):
                    return chain, template
        raise _none("It holds none for an endorsement key of the profile's templates.")

    @contextmanager
    def _talking(self) -> Iterator[tpm.Channel]:
        with tpm.conversation(self._device) as channel:
            try:
                yield channel
            except tpm.TpmError as error:
                if error.code in tpm.RC_AUTH_FAIL:
                    raise KeyUnavailable(
                        "tpm-endorsement", "The TPM's endorsement hierarchy has a password.", fix="tpm2_changeauth -c endorsement"
                    ) from None
                raise


@contextmanager
def _primary(channel: tpm.Channel, public: bytes) -> Iterator[int]:
    """A primary key of the endorsement hierarchy, for as long as the block lasts."""
    handle = tpm.create_primary(channel, public, hierarchy=tpm.ENDORSEMENT)
    try:
        yield handle
    finally:
        with suppress(tpm.TpmError):
            tpm.flush_context(channel, handle)


def _parameters(public: bytes) -> bytes:
    """TPMU_PUBLIC_PARMS of a template: what stands between policy and unique part."""
    said = tpm.Reader(public, 8)
    said.sized()
    begins = said.at
    said.take(12 if public[:2] == b"\0\x23" else 14)
    return public[begins : said.at]


def _fits(template: _Template, der: bytes) -> bool:
    key = x509.load_der_x509_certificate(der).public_key()
    kind, parameters = int.from_bytes(template.public[:2], "big"), _parameters(template.public)
    if isinstance(key, rsa.RSAPublicKey):
        return kind == _RSA and int.from_bytes(parameters[8:10], "big") == key.key_size
    curve = {"secp256r1": 3, "secp384r1": 4}.get(getattr(getattr(key, "curve", None), "name", ""))
    return kind == _ECC and int.from_bytes(parameters[8:10], "big") == curve


def _is_of(der: bytes, area: bytes) -> bool:
    """Whether a certificate is of the key with this TPMT_PUBLIC."""
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except ValueError:
        return False
    if isinstance(key, rsa.RSAPublicKey):
        return area.endswith(tpm.sized(key.public_numbers().n.to_bytes(key.key_size // 8, "big")))
    if isinstance(key, ec.EllipticCurvePublicKey):
        point, size = key.public_numbers(), key.curve.key_size // 8
        return area.endswith(b"".join(tpm.sized(number.to_bytes(size, "big")) for number in (point.x, point.y)))
    return False


def _whole(octets: bytes) -> bytes:
    """A certificate without what pads its NV index."""
    if octets[:2] != b"\x30\x82":
        return octets
    return octets[: 4 + int.from_bytes(octets[2:4], "big")]


def _none(why: str) -> KeyUnavailable:
    return KeyUnavailable(
        "no-endorsement",
        "The TPM shows no endorsement certificate.",
        why=why,
        fix="Get it from the TPM's maker, and give it as PEM: --endorsement FILE",
    )
