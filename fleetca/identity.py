"""The TLS identity of a web process of ours: a key made in memory, certified by the signer, renewed by itself (P10).

A crash leaves a certificate whose key is gone; it is short-lived and stands in the record like every other.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from ca.der import pem
from ca.errors import FleetcaError
from ca.keys.memory import make_private_key
from ca.model import AlgorithmName, DeviceId, IssueRequest, Name, ProfileName, UnixTime
from ca.ports import Clock
from ca.rules.chains import Chains
from ca.signer.client import SignerClient
from fleetca.server import load_certificate

log = structlog.get_logger()

P256 = AlgorithmName("p256")
_RETRY_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 60.0


@dataclass(slots=True)
class ServiceIdentity:
    """Keeps a TLS context's certificate alive.

    Args:
        context: gets every new certificate; connections made from then on use it.
        device: the id of this service, `fleetca:...`.
        names: what stands in its subjectAltName.
        chains: what goes with a certificate.
    """

    context: ssl.SSLContext
    signer: SignerClient
    device: DeviceId
    profile: ProfileName
    names: Sequence[Name]
    chains: Chains
    clock: Clock
    algorithm: AlgorithmName = P256
    not_after: UnixTime = 0
    renew_at: UnixTime = 0

    def obtain(self) -> None:
        """A new key, a new certificate, into the context.

        Raises:
            FleetcaError: what the signer said; the context keeps what it has.
        """
        key = make_private_key(self.algorithm)
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        issued = self.signer.issue(
            IssueRequest(
                csr=request.public_bytes(serialization.Encoding.DER),
                evidence=self.signer.local,
                device=self.device,
                profile=self.profile,
                names=tuple(self.names),
            )
        )
        certificate = issued.certificate
        assert certificate.der is not None, "an issued certificate has its octets"
        # The root is what clients hold already.
        chain = [certificate.der, *self.chains.above(certificate.ref.issuer, now=self.clock.now())[:-1]]
        load_certificate(
            self.context,
            chain="".join(pem.pem(pem.CERTIFICATE, der) for der in chain).encode(),
            key=key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        )
        self.not_after = certificate.not_after
        self.renew_at = certificate.not_before + (certificate.not_after - certificate.not_before) * 2 // 3
        log.info("identity-obtained", serial=f"{certificate.ref.serial:040x}", not_after=self.not_after)

    def obtain_patiently(self, stopping: threading.Event) -> bool:
        """Ask until the signer gives one; False when told to stop before."""
        pause = _RETRY_SECONDS
        while not stopping.is_set():
            try:
                self.obtain()
            except FleetcaError as error:
                log.warning("identity-refused", code=error.code, reason=str(error), fix=error.fix, retry_in=pause)
                stopping.wait(pause)
                pause = min(_LONGEST_RETRY_SECONDS, pause * 2)
            else:
                return True
        return False

    def keep(self, stopping: threading.Event, *, told: Callable[[str], None] = lambda _: None) -> None:
        """Renew when two thirds of the lifetime are over, until told to stop. Runs in a thread of its own."""
        while not stopping.wait(5.0):
            if self.clock.now() >= self.renew_at and self.obtain_patiently(stopping):
                told("renewed")
