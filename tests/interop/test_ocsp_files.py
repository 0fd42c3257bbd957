"""Answers as files behind nginx, by the very configuration that we ship: the same octets, and what is no file falls through (P5, P7)."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from ocsp.spool.folder import NEW
from tests.fakes.ocsp_wire import Client
from tests.interop.conftest import Demo
from tests.parts import need
from tests.running import ROOT, eventually, free_ports

SHIPPED = ROOT / "config/deployments/nginx-status.conf"


@dataclass
class Site:
    demo: Demo
    client: Client
    responder: Client
    files: Path

    def request(self, certificate: Path, hash_: hashes.HashAlgorithm, *, nonce: bytes = b"") -> bytes:
        leaf, issuer = (x509.load_pem_x509_certificate(path.read_bytes()) for path in (certificate, self.demo.issuing))
        builder = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, hash_)
        if nonce:
            builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
        return builder.build().public_bytes(Encoding.DER)


@pytest.fixture(scope="module")
def site(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    need("nginx")
    folder = tmp_path_factory.mktemp("nginx")
    folder.chmod(0o755)
    files, port = folder / "answers", free_ports()
    upstream = urlsplit(demo.ocsp_url).netloc
    command = [
        sys.executable,
        "-m",
        "fleetca.cli.main",
        "ocsp",
        "presign",
        "--watch",
        "--spool",
        str(folder / "spool"),
        "--files",
        str(files),
    ]
    presigner = subprocess.Popen([*command, "--settings", str(demo.settings)])
    shipped = SHIPPED.read_text()
    changed = shipped.replace("server 127.0.0.1:8080", f"server {upstream}").replace("listen 80;", f"listen 127.0.0.1:{port};")
    changed = changed.replace("/var/lib/fleetca/public/answers", str(files))
    assert changed.count(str(port)) == 1
    assert changed.count(str(files)) == 1
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"daemon off; {user} pid {folder}/pid; error_log {folder}/error.log; events {{ }} http {{ access_log off; client_body_temp_path {folder}/body;"
        f" proxy_temp_path {folder}/proxy; {changed} }}"
    )
    server = subprocess.Popen(["nginx", "-p", folder, "-c", folder / "nginx.conf"], stderr=subprocess.DEVNULL)
    client, responder = Client(port), Client(int(upstream.rpartition(":")[2]))
    try:
        eventually(lambda: any(files.rglob("M*")))
        yield Site(demo, client, responder, files)
    finally:
        client.close()
        responder.close()
        for process in (server, presigner):
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def may_be_a_file(text: str) -> bool:
    """About one path in thirty is none; a `Path` made of it would hide that."""
    return "//" not in text and not text.endswith("/")


def path(body: bytes) -> str:
    return "/ocsp/" + quote(base64.b64encode(body).decode(), safe="")


@pytest.mark.parametrize("hash_", [hashes.SHA1(), hashes.SHA256()], ids=lambda one: one.name)
def test_GET_is_answered_from_its_file_octet_by_octet(site: Site, hash_: hashes.HashAlgorithm) -> None:
    for certificate, said in ((site.demo.good, "GOOD"), (site.demo.revoked, "REVOKED")):
        body = site.request(certificate, hash_)
        text = base64.b64encode(body).decode()
        if not may_be_a_file(text):
            continue  # the next test's
        file = site.files / text
        eventually(file.is_file)  # until the first walk has come by, the responder answers
        for target in (path(body), "/ocsp/" + text):
            while True:  # a walk may put a newer answer there between the two readings
                before = file.read_bytes()
                reply = site.client.ask("GET", target)
                if before == file.read_bytes():
                    break
            assert reply.said == said
            assert reply.body == before
            assert "etag" in reply.headers
            assert reply.headers["cache-control"] == "max-age=270, public, no-transform, must-revalidate"
        tag = reply.headers["etag"]
        assert site.client.ask("GET", path(body), headers={"If-None-Match": tag}).status == 304
        reply.told.certificates[0].verify_directly_issued_by(x509.load_pem_x509_certificate(site.demo.issuing.read_bytes()))


def test_what_is_no_file_falls_through_to_the_responder(site: Site) -> None:
    good, issuer = (x509.load_pem_x509_certificate(one.read_bytes()) for one in (site.demo.good, site.demo.issuing))
    body = site.request(site.demo.good, hashes.SHA256())
    assert site.client.post(body).said == "GOOD"
    assert site.client.ask("POST", "/ocsp/", body, {"Content-Type": "application/ocsp-request"}).said == "GOOD"
    nonce = site.client.ask("GET", path(site.request(site.demo.good, hashes.SHA1(), nonce=b"n" * 32)))
    assert [one.value.nonce for one in nonce.told.extensions if isinstance(one.value, x509.OCSPNonce)] == [b"n" * 32]
    assert site.client.ask("GET", path(site.request(site.demo.good, hashes.SHA512()))).said == "GOOD"
    for number in range(300):  # never issued, some of them with `//`, or `/` at the end
        unknown = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
            x509.SubjectKeyIdentifier.from_public_key(issuer.public_key()).digest, b"k" * 20, good.serial_number + number, hashes.SHA1()
        )
        octets = unknown.build().public_bytes(Encoding.DER)
        text = base64.b64encode(octets).decode()
        if not may_be_a_file(text) or number < 3:
            for target in (path(octets), "/ocsp/" + text):
                assert site.client.ask("GET", target).said == site.responder.ask("GET", target).said == "UNAUTHORIZED"
    assert site.client.ask("GET", "/ocsp/nothing").said == "MALFORMED_REQUEST"
    assert site.client.ask("GET", "/crl/issuing.crl").status == 200
    assert site.client.ask("GET", "/metrics").status == 200


def test_P5_a_revocation_replaces_its_files_before_they_end(site: Site, tmp_path: Path) -> None:
    openssl = need("openssl")
    csr = tmp_path / "new.csr"
    subprocess.run(
        [openssl, "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", tmp_path / "key", "-subj", "/", "-out", csr],
        check=True, capture_output=True,
    )  # fmt: skip
    made = site.demo.cli("issue", csr, "--device", "behind-nginx", "--profile", "device")
    certificate = tmp_path / "new.pem"
    certificate.write_text(made["certificate"])
    body = site.request(certificate, hashes.SHA256())
    assert site.client.ask("GET", path(body)).said == "GOOD", "by the responder: the walk has not come by"
    site.demo.cli("revoke", "--certificate", certificate, "--reason", "keyCompromise")
    eventually(lambda: site.client.ask("GET", path(body)).said == "REVOKED")


def test_the_sweeper_needs_nothing_but_the_folder(site: Site, tmp_path: Path) -> None:
    copy = tmp_path / "answers"
    for file in site.files.rglob("*"):
        if file.is_file() and not file.name.startswith(NEW):  # what is being written meanwhile
            (copy / file.relative_to(site.files)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, copy / file.relative_to(site.files))
    command = [sys.executable, "-m", "fleetca.cli.main", "ocsp", "sweep", str(copy), "--json"]
    swept = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(swept.stdout) == {"removed": 0}
    swept = subprocess.run([*command, "--ahead", "3600"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(swept.stdout)["removed"] >= 4
    assert [one for one in copy.rglob("*") if one.is_file()] == []


def test_one_process_writes_a_spool(site: Site) -> None:
    refused = site.demo.cli("ocsp", "presign", ok=False)
    assert refused["error"]["code"] == "spool-in-use", "the demo's publisher signs ahead"
