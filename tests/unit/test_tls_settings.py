"""Which handshakes our TLS takes: a list of what a judge of TLS servers tries, over pipes in memory (REQ-KEY-078)."""

from __future__ import annotations

import datetime as dt
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fleetca.server import tls_context

V = ssl.TLSVersion
pytestmark = pytest.mark.req("REQ-KEY-078")


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server's key and certificate in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([]), dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + made.public_bytes(Encoding.PEM))
    return path


def handshake(identity: Path, version: ssl.TLSVersion, *, tls12: bool, ciphers: str = "ALL:@SECLEVEL=0") -> str:
    """The version that both agree on; what the server or the client says against it otherwise."""
    server = tls_context(trusted=(), tls12=tls12)
    server.load_cert_chain(identity)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.set_ciphers(ciphers)
    client.minimum_version = client.maximum_version = version
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                return str(error.reason)
    return ends[1].version() or ""


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(
    ("what", "version", "tls12", "ciphers", "agreed"),
    [
        ("TLS 1.3", V.TLSv1_3, False, "ALL", True),
        ("TLS 1.2 where it is not wanted", V.TLSv1_2, False, "ALL", False),
        ("TLS 1.2 where EST clients need it", V.TLSv1_2, True, "ALL", True),
        ("TLS 1.1", V.TLSv1_1, True, "ALL:@SECLEVEL=0", False),
        ("TLS 1.0", V.TLSv1, True, "ALL:@SECLEVEL=0", False),
        ("TLS 1.2 without forward secrecy", V.TLSv1_2, True, "kRSA", False),
        ("TLS 1.2 with CBC", V.TLSv1_2, True, "ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA", False),
        ("TLS 1.2 with no encryption", V.TLSv1_2, True, "eNULL:@SECLEVEL=0", False),
        ("TLS 1.2 with nobody's certificate", V.TLSv1_2, True, "aNULL:@SECLEVEL=0", False),
    ],
)
def test_only_what_is_safe_is_agreed_on(
    identity: Path, what: str, version: ssl.TLSVersion, *, tls12: bool, ciphers: str, agreed: bool
) -> None:
    said = handshake(identity, version, tls12=tls12, ciphers=ciphers)
    assert said.startswith("TLSv1.") is agreed, (what, said)
