"""TLS servers staple what our responder says (RFC 6066 8), and Java believes it by GET, by POST and with a nonce."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interop import judges
from tests.interop.conftest import Demo
from tests.parts import need
from tests.running import eventually, free_ports

pytestmark = pytest.mark.full


class Site:
    """A TLS server with a certificate of the demo."""

    def __init__(self, folder: Path, demo: Demo) -> None:
        self.folder, self.demo, self.port = folder, demo, free_ports()
        self.openssl = need("openssl")
        self.key, self.certificate, self.chain = folder / "server.key", folder / "server.pem", folder / "chain.pem"
        csr = folder / "server.csr"
        subprocess.run(
            [self.openssl, "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", self.key, "-subj", "/", "-out", csr],
            check=True, capture_output=True,
        )  # fmt: skip
        made = demo.cli("issue", csr, "--device", f"stapler-{self.port}", "--profile", "device")
        self.certificate.write_text(made["certificate"])
        self.chain.write_text(made["certificate"] + demo.issuing.read_text())
        self.trusted = folder / "trusted.pem"
        self.trusted.write_text(demo.issuing.read_text() + demo.root.read_text())

    def stapled(self) -> str:
        """What a client is told beside the handshake."""
        command = [self.openssl, "s_client", "-connect", f"127.0.0.1:{self.port}", "-status", "-CAfile", str(self.demo.root), "-no_ign_eof"]
        done = subprocess.run(command, input=b"", capture_output=True, check=False, timeout=120)
        return done.stdout.decode(errors="replace")

    def is_stapled(self, status: str) -> bool:
        said = self.stapled()
        return "OCSP Response Status: successful" in said and f"Cert Status: {status}" in said


@pytest.fixture
def site(demo: Demo) -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="fleetca-staple-", dir="/tmp"))
    folder.chmod(0o755)
    yield Site(folder, demo)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def test_RFC6066_8_nginx_staples_our_answer(site: Site) -> None:
    nginx = need("nginx")
    (site.folder / "nginx.conf").write_text(
        f"""daemon off; user root; pid {site.folder}/pid; error_log {site.folder}/error.log; events {{ }}
        http {{ access_log off; client_body_temp_path {site.folder}/body; proxy_temp_path {site.folder}/proxy;
          server {{ listen 127.0.0.1:{site.port} ssl; ssl_certificate {site.chain}; ssl_certificate_key {site.key};
            ssl_stapling on; ssl_stapling_verify on; ssl_trusted_certificate {site.trusted}; }} }}"""
    )
    with running([nginx, "-p", str(site.folder), "-c", str(site.folder / "nginx.conf")]):
        # The first handshake makes it ask; a later one has the answer.
        eventually(lambda: site.is_stapled("good"))
    assert "OCSP_basic_verify" not in (site.folder / "error.log").read_text()


def test_RFC6066_8_apache_staples_our_answer_and_a_revocation(site: Site) -> None:
    apache = need("apache2")
    modules = next(folder for folder in (Path("/usr/lib/apache2/modules"), Path("/usr/lib64/httpd/modules")) if folder.exists())
    loaded = [f"LoadModule {name}_module {modules}/mod_{name}.so" for name in ("mpm_event", "authz_core", "socache_shmcb", "ssl")]
    lines = [
        *loaded, f"ServerRoot {site.folder}", f"PidFile {site.folder}/apache.pid", f"ErrorLog {site.folder}/error.log", "ServerName localhost",
        f"DefaultRuntimeDir {site.folder}", f"DocumentRoot {site.folder}", f"Listen 127.0.0.1:{site.port}", "SSLEngine on", "User nobody",
        "Group nogroup", f"SSLCertificateFile {site.chain}", f"SSLCertificateKeyFile {site.key}", "SSLUseStapling on",
        f"SSLStaplingCache shmcb:{site.folder}/staple(65536)", "SSLStaplingStandardCacheTimeout 1",
    ]  # fmt: skip
    (site.folder / "apache.conf").write_text("\n".join(lines) + "\n")
    with running([apache, "-f", str(site.folder / "apache.conf"), "-D", "FOREGROUND"]):
        eventually(lambda: site.is_stapled("good"))
        site.demo.cli("revoke", "--certificate", site.certificate, "--reason", "keyCompromise")
        eventually(lambda: site.is_stapled("revoked"))


@pytest.mark.parametrize("way", ["ocsp-get", "ocsp-post", "ocsp-nonce"])
def test_java_believes_it_by_GET_by_POST_and_with_a_nonce(demo: Demo, way: str) -> None:
    assert judges.java(way, demo.good, root=demo.root, issuing=demo.issuing) == "valid"
    assert judges.java(way, demo.revoked, root=demo.root, issuing=demo.issuing).startswith("revoked")
