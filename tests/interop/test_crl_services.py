"""Real services check devices by CRLs that `fleetca crl fetch` brings: a good device in, a revoked one out, and no restart."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from ca.der import pem
from ca.model import DeviceId, IssueRequest, Name, NameKind, ProfileName, Role
from ca.signer.client import SignerClient
from fleetca import forms
from tests import running as running_
from tests.interop.conftest import Demo
from tests.parts import find, need
from tests.running import free_ports

ROOT = Path(__file__).parents[2]


class Site:
    """A service's folder, with its certificate, the CAs it trusts, two devices, and the CRLs of both CAs."""

    def __init__(self, folder: Path, demo: Demo) -> None:
        self.folder, self.demo = folder, demo
        folder.chmod(0o755)
        self.port = free_ports()
        self.server = self.make("server", profile="service", names=(Name(NameKind.dns, "localhost"),))
        self.good, self.bad = self.make("good"), self.make("bad")
        self.cas = folder / "cas.pem"
        self.cas.write_text(demo.issuing.read_text() + demo.root.read_text())
        self.crls = folder / "crls.pem"

    def make(self, name: str, *, profile: str = "device", names: tuple[Name, ...] = ()) -> tuple[Path, Path]:
        key, csr, certificate = (self.folder / f"{name}.{end}" for end in ("key", "csr", "pem"))
        subject = ["-subj", "/CN=x"]
        curve = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        command = ["openssl", "req", "-new", "-newkey", *curve, "-nodes", "-keyout", str(key), "-out", str(csr), *subject]
        subprocess.run(command, check=True, capture_output=True)
        device = f"{name}-{self.folder.name}"
        settings = forms.read_settings(self.demo.settings)
        signer = SignerClient(settings.signer.socket, Role.operator)
        asked = IssueRequest(
            csr=pem.der_of(csr.read_bytes(), pem.REQUEST),
            evidence=signer.local,
            device=DeviceId(device),
            profile=ProfileName(profile),
            names=names,
        )
        der = signer.issue(asked).certificate.der
        signer.close()
        assert der is not None
        certificate.write_text(pem.pem(pem.CERTIFICATE, der) + self.demo.issuing.read_text())
        return certificate, key

    def revoke_bad(self) -> None:
        self.demo.cli("revoke", "--certificate", self.bad[0], "--reason", "keyCompromise")

    def fetch(self, hook: str) -> dict[str, Any]:
        """As the systemd timer runs it."""
        command = [sys.executable, "-m", "fleetca.cli.main", "crl", "fetch", "--ca", str(self.cas), "--of", str(self.good[0])]
        command += [self.demo.crl_url.replace("issuing.crl", "root.crl"), "--out", str(self.crls), "--hook", hook, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        import json

        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def fetch_until_revoked(self, hook: str) -> None:
        serial = x509.load_pem_x509_certificate(self.bad[0].read_bytes()).serial_number

        def listed() -> bool:
            self.fetch(hook)
            ders = pem.ders_of(self.crls.read_bytes(), pem.CRL)
            return serial in [one.serial_number for der in ders for one in x509.load_der_x509_crl(der)]

        running_.eventually(listed, every=0.5)


@pytest.fixture
def site(tmp_path: Path, demo: Demo) -> Site:
    return Site(tmp_path, demo)


def handshake(site: Site, pair: tuple[Path, Path], *, say: bytes = b"GET / HTTP/1.0\r\n\r\n") -> bool:
    """Whether the service lets this device in: it answers something."""
    import socket

    context = ssl.create_default_context(cafile=str(site.cas))
    context.load_cert_chain(*map(str, pair))
    try:
        with (
            socket.create_connection(("127.0.0.1", site.port), timeout=60) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            tls.sendall(say)
            answer = tls.recv(4096)
            return bool(answer) and b"400" not in answer.split(b"\r\n")[0]
    except (OSError, ssl.SSLError):
        return False


@contextmanager
def running(command: list[str], site: Site, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    with (site.folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=site.folder, **more)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def eventually(what: Callable[[], bool], site: Site) -> None:
    try:
        running_.eventually(what)
    except AssertionError:
        pytest.fail((site.folder / "log").read_text(errors="replace")[-2000:])


def shown(site: Site, process: subprocess.Popen[bytes], hook: str, say: bytes = b"GET / HTTP/1.0\r\n\r\n") -> None:
    """The story that is the same for each service."""
    eventually(lambda: handshake(site, site.good, say=say), site)
    assert handshake(site, site.bad, say=say)
    before = process.pid
    site.revoke_bad()
    site.fetch_until_revoked(hook)
    eventually(lambda: not handshake(site, site.bad, say=say), site)
    eventually(lambda: handshake(site, site.good, say=say), site)
    assert process.poll() is None
    assert process.pid == before, "no restart"
    eventually(lambda: site.fetch(hook)["written"] is False, site)  # nothing to do until there is another CRL


@pytest.mark.req("REQ-KEY-010")
def test_nginx_lets_a_good_device_in_and_a_revoked_one_out_after_a_reload(site: Site) -> None:
    nginx = need("nginx")
    (site.folder / "nginx.conf").write_text(
        f"""
pid {site.folder}/nginx.pid; error_log {site.folder}/error.log; daemon off; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off;
  server {{
    listen 127.0.0.1:{site.port} ssl;
    ssl_certificate {site.server[0]}; ssl_certificate_key {site.server[1]};
    ssl_client_certificate {site.cas}; ssl_verify_client on; ssl_verify_depth 2;
    ssl_crl {site.crls};
    location / {{ return 200 "in\\n"; }}
  }}
}}
"""
    )
    command = [nginx, "-c", str(site.folder / "nginx.conf"), "-p", str(site.folder)]
    hook = f"test ! -e {site.folder}/nginx.pid || {' '.join(command)} -s reload"
    site.fetch(hook)
    with running(command, site) as process:
        shown(site, process, hook)


@pytest.mark.req("REQ-KEY-010")
def test_haproxy_takes_a_new_crl_by_its_runtime_socket(site: Site) -> None:
    haproxy = need("haproxy")
    (site.folder / "server-all.pem").write_text(site.server[0].read_text() + site.server[1].read_text())
    (site.folder / "haproxy.cfg").write_text(
        f"""
global
  stats socket {site.folder}/admin.sock mode 600 level admin
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 60s
frontend devices
  bind 127.0.0.1:{site.port} ssl crt {site.folder}/server-all.pem ca-file {site.cas} crl-file {site.crls} verify required
  http-request return status 200 content-type text/plain string in
"""
    )
    tell = site.folder / "tell.py"
    tell.write_text(
        f"""
import socket
for said in ("set ssl crl-file {site.crls} <<\\n" + open("{site.crls}").read().strip() + "\\n\\n", "commit ssl crl-file {site.crls}\\n"):
    s = socket.socket(socket.AF_UNIX); s.connect("{site.folder}/admin.sock"); s.sendall(said.encode()); s.shutdown(socket.SHUT_WR)
    while s.recv(4096): pass
"""
    )
    hook = f"test ! -S {site.folder}/admin.sock || {sys.executable} {tell}"
    site.fetch(hook)
    with running([haproxy, "-db", "-f", str(site.folder / "haproxy.cfg")], site) as process:
        shown(site, process, hook)


@pytest.mark.req("REQ-KEY-010")
def test_mosquitto_takes_a_new_crl_on_sighup(site: Site) -> None:
    mosquitto = find("mosquitto") or shutil.which("mosquitto", path="/usr/sbin") or need("mosquitto")
    (site.folder / "mosquitto.conf").write_text(
        f"""
user root
pid_file {site.folder}/mosquitto.pid
allow_anonymous true
listener {site.port} 127.0.0.1
cafile {site.cas}
certfile {site.server[0]}
keyfile {site.server[1]}
require_certificate true
crlfile {site.crls}
"""
    )
    hook = f"test ! -e {site.folder}/mosquitto.pid || kill -HUP $(cat {site.folder}/mosquitto.pid)"
    site.fetch(hook)
    connect = bytes.fromhex("100d00044d5154540402003c0001") + b"x"
    with running([mosquitto, "-c", str(site.folder / "mosquitto.conf")], site) as process:
        (site.folder / "mosquitto.pid").write_text(str(process.pid))
        shown(site, process, hook, say=connect)


@pytest.mark.req("REQ-KEY-010")
def test_apache_takes_a_new_crl_by_a_graceful_restart(site: Site) -> None:
    apache, pid = need("apache2"), site.folder / "apache.pid"
    modules = next(folder for folder in (Path("/usr/lib/apache2/modules"), Path("/usr/lib64/httpd/modules")) if folder.exists())
    loaded = [f"LoadModule {name}_module {modules}/mod_{name}.so" for name in ("mpm_event", "authz_core", "socache_shmcb", "ssl")]
    lines = [
        *loaded, f"ServerRoot {site.folder}", f"PidFile {pid}", f"ErrorLog {site.folder}/error.log", "ServerName localhost",
        f"DefaultRuntimeDir {site.folder}", f"DocumentRoot {site.folder}", f"Listen 127.0.0.1:{site.port}", "SSLEngine on", "User nobody", "Group nogroup",
        f"SSLCertificateFile {site.server[0]}", f"SSLCertificateKeyFile {site.server[1]}",
        f"SSLCACertificateFile {site.cas}", "SSLVerifyClient require", "SSLVerifyDepth 2",
        f"SSLCARevocationFile {site.crls}", "SSLCARevocationCheck chain",
    ]  # fmt: skip
    (site.folder / "apache.conf").write_text("\n".join(lines) + "\n")
    # What `apachectl graceful` does; connections that are open go on.
    hook = f"test ! -e {pid} || kill -USR1 $(cat {pid})"
    site.fetch(hook)
    asked = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with running([apache, "-f", str(site.folder / "apache.conf"), "-D", "FOREGROUND"], site) as process:
        shown(site, process, hook, say=asked)


@pytest.mark.req("REQ-KEY-010")
def test_stunnel_takes_a_new_crl_on_sighup(site: Site) -> None:
    stunnel, pid = need("stunnel"), site.folder / "stunnel.pid"
    behind = site.demo.crl_url.split("/")[2]
    lines = [
        "foreground = yes", f"pid = {pid}", "[devices]", f"accept = 127.0.0.1:{site.port}", f"connect = {behind}",
        f"cert = {site.server[0]}", f"key = {site.server[1]}", f"CAfile = {site.cas}", "verifyChain = yes", f"CRLfile = {site.crls}",
    ]  # fmt: skip
    (site.folder / "stunnel.conf").write_text("\n".join(lines) + "\n")
    hook = f"test ! -e {pid} || kill -HUP $(cat {pid})"
    site.fetch(hook)
    with running([stunnel, str(site.folder / "stunnel.conf")], site) as process:
        shown(site, process, hook)


@pytest.fixture
def open_site(demo: Demo) -> Iterator[Site]:
    """In a folder that another user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="fleetca-postgres-", dir="/tmp"))
    yield Site(folder, demo)
    shutil.rmtree(folder)


@pytest.mark.req("REQ-KEY-010")
def test_postgresql_takes_a_new_crl_on_reload(open_site: Site) -> None:
    site = open_site
    binaries = Path(need("postgres"))
    need("root")
    data = site.folder / "data"
    data.mkdir()
    for path in (site.folder, *site.folder.iterdir()):
        shutil.chown(path, "postgres")
    site.server[1].chmod(0o600)

    def as_postgres(*command: str | Path) -> list[str]:
        return ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups", *map(str, command)]

    subprocess.run(as_postgres(binaries / "initdb", "-D", data, "-A", "trust", "-U", "postgres"), check=True, capture_output=True)
    (data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 trust clientcert=verify-ca\n")
    settings = [
        "listen_addresses = '127.0.0.1'", f"port = {site.port}", f"unix_socket_directories = '{site.folder}'", "ssl = on",
        f"ssl_cert_file = '{site.server[0]}'", f"ssl_key_file = '{site.server[1]}'", f"ssl_ca_file = '{site.cas}'", f"ssl_crl_file = '{site.crls}'",
    ]  # fmt: skip
    with (data / "postgresql.conf").open("a") as file:
        file.write("\n".join(settings) + "\n")
    hook = f"test ! -e {data}/postmaster.pid || kill -HUP $(head -1 {data}/postmaster.pid)"
    site.fetch(hook)

    def lets_in(pair: tuple[Path, Path]) -> bool:
        pair[1].chmod(0o600)
        place = f"host=127.0.0.1 port={site.port} user=postgres dbname=postgres sslmode=verify-ca sslrootcert={site.cas}"
        place += f" sslcert={pair[0]} sslkey={pair[1]} connect_timeout=60"
        environment = {**os.environ, "PGSSLCERTMODE": "require"}
        done = subprocess.run(
            as_postgres(binaries / "psql", place, "-Atc", "select 1"), capture_output=True, text=True, check=False, env=environment
        )
        return done.stdout.strip() == "1"

    with running(as_postgres(binaries / "postgres", "-D", data), site) as process:
        eventually(lambda: lets_in(site.good), site)
        assert lets_in(site.bad)
        site.revoke_bad()
        site.fetch_until_revoked(hook)
        eventually(lambda: not lets_in(site.bad), site)
        assert lets_in(site.good)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)


def test_nginx_serves_the_folder_as_the_status_service_does(tmp_path: Path, demo: Demo) -> None:
    nginx, curl = need("nginx"), need("curl")
    port, shipped = free_ports(), (ROOT / "config" / "deployments" / "nginx-crl.conf").read_text()
    folder = demo.settings.parent / "public" / "crl"
    for parent in (folder, *folder.parents):
        if parent != Path("/tmp") and parent.is_relative_to("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o055)
    (tmp_path / "crl.conf").write_text(shipped.replace("/var/lib/fleetca/public/crl", str(folder)))
    (tmp_path / "nginx.conf").write_text(
        f"user root; pid {tmp_path}/nginx.pid; error_log {tmp_path}/log; daemon off; events {{ worker_connections 64; }}\n"
        f"http {{ access_log off; gzip on; gzip_types application/pkix-crl; server {{ listen 127.0.0.1:{port}; include {tmp_path}/crl.conf; }} }}\n"
    )
    process = subprocess.Popen([nginx, "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)])

    def ask(name: str, *more: str) -> tuple[int, dict[str, str], bytes]:
        command = [curl, "-s", "-i", "--raw", "-H", "Accept-Encoding: gzip", *more, f"http://127.0.0.1:{port}/crl/{name}"]
        head, _, body = subprocess.run(command, capture_output=True, check=False).stdout.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines[1:])}
        return int(lines[0].split()[1]) if lines[0] else 0, headers, body

    try:
        eventually_ = running_.eventually
        eventually_(lambda: ask("issuing.crl")[0] == 200)

        def meanwhile_the_same() -> bool:
            """Whether no newer CRL came while this was looked at."""
            octets = (folder / "issuing.crl").read_bytes()
            status, headers, body = ask("issuing.crl")
            again = ask("issuing.crl", "-H", f"If-None-Match: {headers['etag']}")
            part = ask("issuing.crl", "-r", "0-9")
            if (folder / "issuing.crl").read_bytes() != octets:
                return False
            assert (status, body) == (200, octets)
            assert headers["content-type"] == "application/pkix-crl"
            assert "content-encoding" not in headers
            assert "max-age=30" in headers["cache-control"]
            assert again[0] == 304
            assert part[::2] == (206, octets[:10])
            return True

        eventually_(meanwhile_the_same)
        assert ask("issuing.crl", "-I")[0] == 200
        assert ask("issuing.crl", "-X", "PUT", "-d", "x")[0] in {403, 405}
        for hidden in ("issuing.crl.number", "issuing.crl.previous", ".lock", "", "../log/checkpoint", "root.1.next.crl"):
            assert ask(hidden, "--path-as-is")[0] in {404, 400, 403}, hidden
    finally:
        process.terminate()
        process.wait(60)


def test_the_command_line_shows_verifies_compares_and_asks(demo: Demo, tmp_path: Path) -> None:
    def cli(*arguments: str | Path, code: int = 0) -> Any:
        import json

        command = [sys.executable, "-m", "fleetca.cli.main", "crl", *map(str, arguments), "--json"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "FLEETCA_SETTINGS": str(demo.settings)}
        )
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)

    listed = {one["crl"]: one for one in cli("list")["crls"]}
    assert {"root.crl", "issuing.crl"} <= set(listed)
    old = tmp_path / "old.crl"
    shutil.copy(demo.settings.parent / "public" / "crl" / "issuing.crl", old)
    shown_ = cli("show", demo.crl_url, "--entries")
    assert shown_["entries"] == len(shown_["revoked"]) >= 1
    assert cli("verify", demo.crl_url)["good"]
    assert cli("verify", old, "--ca", demo.issuing)["good"]
    assert not cli("verify", old, "--ca", demo.root, code=8)["good"]
    broken = bytearray(old.read_bytes())
    broken[-4] ^= 1
    (tmp_path / "broken.crl").write_bytes(bytes(broken))
    assert "crl-signature" in cli("verify", tmp_path / "broken.crl", code=8)["findings"][0]
    number = shown_["number"]
    assert cli("publish", "issuing.crl")["published"]["issuing.crl"] > number
    new = demo.settings.parent / "public" / "crl" / "issuing.crl"
    assert cli("verify", new, "--after", old)["good"]
    assert not cli("verify", old, "--after", new, code=8)["good"]
    assert cli("diff", old, new)["removed"] == []
    events = cli("calendar")["events"]
    assert any(one["crl"] == "root.crl" and "ceremony" in one["what"] for one in events)
    assert cli("prune")["would_remove"] == [], "nothing that is still needed"
