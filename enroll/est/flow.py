"""What EST does with a request that was read: choose the evidence, bind it to its connection, ask the signer. Verb ring. Holds no state.

One kind of evidence for each way in, and none falls through to another: a one-time token by HTTP Basic, a factory certificate (IDevID) for a first
enrolment, the current certificate for a renewal. Which of these hold is the signer's to say (P2).
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ca.der.bundle import certs_only
from ca.der.certificate import read_certificate
from ca.der.csr import read_csr
from ca.errors import Denied, Malformed, NotFound, Unauthenticated
from ca.model import (
    AlgorithmName,
    Certificate,
    DeviceId,
    Evidence,
    Issuer,
    IssueRequest,
    ManufacturerCertificate,
    PresentedCertificate,
    Profile,
    ProfileName,
    TokenEvidence,
)
from ca.ports import Clock
from ca.rules import ids
from ca.rules.token import token_hash
from enroll.est import messages
from enroll.gate import Gate
from enroll.ports import Signer

PREFIX: Final = "/.well-known/est"


@dataclass(frozen=True, slots=True)
class Connection:
    """What the connection of a request proves.

    Args:
        certificate: that the client presented, DER.
        tls_unique: of TLS 1.2; None where there is none that can be relied on.
        basic: user name and password of HTTP Basic.
    """

    certificate: bytes | None = None
    tls_unique: bytes | None = None
    basic: tuple[str, str] | None = None


class Est:
    """The operations.

    Args:
        labels: the profile of each label; None is the address without one.
        factories: whether any manufacturer is trusted.
        make_key: a new private key of a kind, for profiles whose devices may let the server make theirs.
        gate: who may enrol or renew now, where that is limited.
        links: certificates that roots gave each other: old with new, new with old (RFC 7030 4.1.3).
    """

    def __init__(
        self,
        *,
        signer: Signer,
        issuers: Sequence[Issuer],
        profiles: Mapping[ProfileName, Profile],
        labels: Mapping[str | None, ProfileName],
        factories: bool,
        make_key: Callable[[AlgorithmName], CertificateIssuerPrivateKeyTypes],
        clock: Clock,
        gate: Gate | None = None,
        links: Iterable[bytes] = (),
    ) -> None:
        self._make_key, self._clock, self._gate = make_key, clock, gate
        self._signer, self._profiles, self._labels, self._factories = signer, profiles, labels, factories
        self._ours = frozenset(issuer.subject for issuer in issuers)
        self._cacerts = certs_only([*(issuer.certificate for issuer in issuers), *links])

    def profile(self, label: str | None) -> Profile:
        """The profile of a label.

        Raises:
            NotFound: `no-such-label`.
        """
        name = self._labels.get(label)
        if name is None:
            raise NotFound("no-such-label", "There is no such label (RFC 7030 3.2.2).", why="Labels are the profiles that [est] lists.")
        return self._profiles[name]

    def cacerts(self, label: str | None) -> bytes:
        """RFC 7030 4.1: the CA certificates: roots, all below them, and what roots gave each other."""
        self.profile(label)
        return self._cacerts

    def csrattrs(self, label: str | None) -> bytes:
        """RFC 7030 4.5."""
        return messages.csrattrs(self.profile(label))

    @property
    def labels(self) -> Collection[str | None]:
        """All labels; None is the address without one."""
        return self._labels.keys()

    def enroll(self, label: str | None, body: bytes, connection: Connection) -> Certificate:
        """RFC 7030 4.2.1: a first certificate."""
        return self._issued(self.enrolling(label, body, connection))

    def enrolling(self, label: str | None, body: bytes, connection: Connection) -> IssueRequest:
        """What `enroll` asks the signer, which reads the CSR and its proof."""
        profile = self.profile(label)
        evidence, device = self._first(connection)
        csr, _ = self._csr(body, connection)
        if self._gate is not None:
            self._gate.enter_new()
        return IssueRequest(csr, evidence, device=device, profile=profile.name)

    def generate(self, label: str | None, body: bytes, connection: Connection) -> tuple[bytes, Certificate]:
        """RFC 7030 4.4: a key made here, PKCS#8, and its certificate. The key is in no file and no record; it goes with this answer.

        So the request cannot be repeated: a token that was used is used.

        Raises:
            Denied: `no-server-keygen`: the profile does not allow it; `key-encryption`: the client wants more than TLS around the key.
        """
        profile = self.profile(label)
        if not profile.server_keygen:
            raise Denied("no-server-keygen", f"Devices of profile {profile.name!r} make their keys themselves (RFC 7030 4.4).")
        evidence, device = self._first(connection)
        csr, asked = self._csr(body, connection)
        read_csr(csr)  # it goes no further, so nobody else looks at its proof
        if asked.encrypted_key:
            raise Denied("key-encryption", "A key is delivered over TLS, and not encrypted once more (RFC 7030 4.4.1).")
        if self._gate is not None:
            self._gate.enter_new()
        algorithm = profile.key_algorithms[0]
        key = self._make_key(algorithm)
        digest = hashes.SHA256() if algorithm.startswith(("p", "rsa")) else None
        made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, digest)
        issued = self._issued(IssueRequest(made.public_bytes(Encoding.DER), evidence, device=device, profile=profile.name))
        return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), issued

    def reenroll(self, label: str | None, body: bytes, connection: Connection) -> Certificate:
        """RFC 7030 4.2.2: a successor for the certificate that was presented, and for the same identity."""
        return self._issued(self.renewing(label, body, connection))

    def renewing(self, label: str | None, body: bytes, connection: Connection) -> IssueRequest:
        """What `reenroll` asks the signer."""
        profile = self.profile(label)
        if connection.certificate is None:
            raise Unauthenticated(
                "certificate-required",
                "A renewal is asked for with the certificate that it renews (RFC 7030 4.2.2).",
                why="None was presented in the TLS handshake.",
            )
        csr, asked = self._csr(body, connection)
        messages.same_identity(asked, connection.certificate)
        if self._gate is not None:
            self._gate.enter(connection.certificate, now=self._clock.now())
        # Without a label the certificate says what it is; with one, both must agree.
        wanted = None if label is None else profile.name
        return IssueRequest(csr, PresentedCertificate(connection.certificate), profile=wanted)

    def _issued(self, request: IssueRequest) -> Certificate:
        return self._signer.issue(request).certificate

    def _first(self, connection: Connection) -> tuple[Evidence, DeviceId | None]:
        if connection.basic is not None:
            user, password = connection.basic
            token_hash(password)  # a mistyped token is told apart here, before anything is asked
            return TokenEvidence(password), ids.device_id(user) if user else None
        if connection.certificate is None:
            raise Unauthenticated("token-required", "A one-time token or a factory certificate is required (RFC 7030 3.2.3, 3.3.2).")
        if read_certificate(connection.certificate).issuer in self._ours:
            raise Denied(
                "enrolled-already",
                "The device has a certificate: it renews by simplereenroll (RFC 7030 4.2.2).",
                fix="POST to simplereenroll.",
            )
        if not self._factories:
            raise Unauthenticated("manufacturer-unknown", "No manufacturer is trusted here.", fix="Enrol with a token.")
        return ManufacturerCertificate(connection.certificate), None

    @staticmethod
    def _csr(body: bytes, connection: Connection) -> tuple[bytes, messages.Asked]:
        """The CSR, bound to the connection where it says so (RFC 7030 3.5), and what it asks for.

        Raises:
            Malformed: it cannot be read.
            Denied: `channel-binding`: it is bound to another connection, or to one that we cannot check.
        """
        der = messages.decode(body)
        asked = messages.read_asked(der)
        challenge = asked.challenge
        if challenge is None:
            return der, asked
        if connection.tls_unique is None:
            raise Denied(
                "channel-binding",
                "The CSR holds a challengePassword, and this connection has no tls-unique to check it by (RFC 7030 3.5).",
                why="TLS 1.3 has none (RFC 8446 C.5).",
                fix="Leave challengePassword out, or connect with TLS 1.2.",
            )
        if not hmac.compare_digest(challenge.strip(), base64.b64encode(connection.tls_unique)):
            raise Denied("channel-binding", "The CSR's challengePassword is not the tls-unique of this connection (RFC 7030 3.5).")
        return der, asked


def read_basic(header: str) -> tuple[str, str] | None:
    """User name and password of an Authorization header (RFC 7617); None without one.

    Raises:
        Malformed: `bad-authorization`: it is there and cannot be read, or is of another scheme.
    """
    if not header:
        return None
    found = re.fullmatch(r"basic +([A-Za-z0-9+/]+={0,2}) *", header, re.IGNORECASE | re.ASCII)
    try:
        text = base64.b64decode(found.group(1), validate=True).decode("ascii") if found is not None else ""
    except ValueError:
        text = ""
    user, colon, password = text.partition(":")
    if not colon:
        raise Malformed("bad-authorization", "The Authorization header is not HTTP Basic (RFC 7617).", fix="curl --user DEVICE:TOKEN")
    return user, password
