"""certbot, lego and dehydrated run whole flows against the demo, which refuses a tenth of their nonces: each retries, and gets what it asks for.

The demo listens on ports of its own here, its validation too, so that nothing else on this machine meets it.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.interop.conftest import Demo
from tests.parts import need
from tests.running import ROOT, eventually, free_ports, ocsp_status

HTTP, TLS = 2, 1
"""Ports of validation, above the base."""


class Shop:
    """A demo with other ports and refused nonces, and how clients are run against it."""

    def __init__(self, demo: Demo, base: int, folder: Path) -> None:
        self.demo, self.base, self.folder = demo, base, folder
        self.directory = str(demo.document["acme_directory"])

    @property
    def http(self) -> int:
        return self.base + HTTP

    @property
    def tls(self) -> int:
        return self.base + TLS

    def at(self, directory: str) -> str:
        return self.directory.replace("/service/", f"/{directory}/")

    def run(self, *words: str | Path, ok: bool = True, env: dict[str, str] | None = None) -> str:
        trust = {name: str(self.demo.root) for name in ("REQUESTS_CA_BUNDLE", "LEGO_CA_CERTIFICATES", "CURL_CA_BUNDLE")}
        done = subprocess.run(
            [str(word) for word in words],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=self.folder,
            env={**os.environ, **trust, "PYTHONWARNINGS": "", **(env or {})},
        )
        said = done.stdout + done.stderr
        assert (done.returncode == 0) is ok, said
        return said

    def certbot(self, *words: str | Path, ok: bool = True) -> str:
        folders = [f"--{name}-dir={self.folder / 'certbot' / name}" for name in ("config", "work", "logs")]
        return self.run(Path(sys.executable).parent / "certbot", *words, *folders, "--non-interactive", ok=ok)

    def lego(self, *words: str, path: str = "lego", directory: str | None = None, ok: bool = True) -> str:
        given = ["--server", directory or self.directory, "--accept-tos", "--email", "ops@fleet.test", "--path", path]
        return self.run(need("lego"), *given, *words, ok=ok)

    def log(self) -> str:
        return (self.demo.settings.parent / "logs/enroll.log").read_text()


def start(folder: Path, base: int, *, once: bool) -> subprocess.Popen[str]:
    words = ["demo", "--json", "--dir", str(folder), "--port-base", str(base), *(["--once"] if once else [])]
    return subprocess.Popen([sys.executable, "-m", "fleetca.cli.main", *words], stdout=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder, base = tmp_path_factory.mktemp("acme") / "here", free_ports()
    made = start(folder, base, once=True)
    said, _ = made.communicate(timeout=120)
    assert made.returncode == 0, said
    settings = folder / "fleetca.toml"
    text = (
        settings.read_text()
        .replace("http_port = 5002", f"http_port = {base + HTTP}")
        .replace("tls_port = 5001", f"tls_port = {base + TLS}")
    )
    settings.write_text(text.replace("[acme] ", "[acme]\nrefuse_nonces = 0.1 "))
    process = start(folder, base, once=False)
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line.rstrip() == "}":
            break
    else:
        pytest.fail(f"the demo ended with {process.wait()}: {text}")
    yield Shop(Demo(json.loads(text), process), base, tmp_path_factory.mktemp("clients"))
    process.terminate()
    assert process.wait(60) == 0
    process.stdout.close()


def names_in(path: Path) -> list[str]:
    found = x509.load_pem_x509_certificates(path.read_bytes())[0]
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return sorted([*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))])


def serial(path: Path) -> int:
    return x509.load_pem_x509_certificates(path.read_bytes())[0].serial_number


def spki(path: Path) -> bytes:
    key = x509.load_pem_x509_certificates(path.read_bytes())[0].public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def status(shop: Shop, path: Path) -> str:
    return ocsp_status(shop.demo.ocsp_url, x509.load_pem_x509_certificates(path.read_bytes())[0], shop.demo.issuing)


def verified(shop: Shop, chain: Path) -> None:
    """openssl finds the way from the chain that the client kept to the root."""
    shop.run(need("openssl"), "verify", "-CAfile", shop.demo.root, "-untrusted", chain, chain)


def test_certbot_obtains_renews_and_revokes(shop: Shop) -> None:
    given = ["--server", shop.directory, "--standalone", "--http-01-port", str(shop.http), "--http-01-address", "127.0.0.1"]
    account = ["--agree-tos", "--register-unsafely-without-email"]
    shop.certbot("certonly", *given, *account, "-d", "cb-1.device.test", "-d", "cb-2.device.test")
    chain = shop.folder / "certbot/config/live/cb-1.device.test/fullchain.pem"
    assert names_in(chain) == ["cb-1.device.test", "cb-2.device.test"]
    verified(shop, chain)
    first = serial(chain)
    shop.certbot("renew", "--force-renewal", "--no-random-sleep-on-renew")
    assert serial(chain) != first
    # With the key that it has, as acme.sh and Traefik do unasked: the same holder's, so P9 is kept.
    shop.certbot("renew", "--force-renewal", "--no-random-sleep-on-renew", "--reuse-key")
    second, key = serial(chain), spki(chain)
    shop.certbot("renew", "--force-renewal", "--no-random-sleep-on-renew", "--reuse-key")
    assert serial(chain) != second
    assert spki(chain) == key
    shop.certbot("update_account", "--server", shop.directory, "--email", "ops@fleet.test")
    shop.certbot("revoke", "--server", shop.directory, "--cert-path", chain, "--reason", "superseded", "--no-delete-after-revoke")
    assert eventually(lambda: status(shop, chain) == "revoked"), "it shows within seconds (P5)"
    shop.certbot("unregister", "--server", shop.directory)


def test_certbot_shows_it_by_the_certificates_own_key_too(shop: Shop) -> None:
    given = ["--server", shop.directory, "--standalone", "--http-01-port", str(shop.http), "--http-01-address", "127.0.0.1"]
    shop.certbot("certonly", *given, "--agree-tos", "--register-unsafely-without-email", "-d", "cb-3.device.test")
    live = shop.folder / "certbot/config/live/cb-3.device.test"
    chain = live / "fullchain.pem"
    by_key = ["--cert-path", chain, "--key-path", live / "privkey.pem", "--no-delete-after-revoke"]
    shop.certbot("revoke", "--server", shop.directory, *by_key, "--reason", "keycompromise")
    assert eventually(lambda: status(shop, chain) == "revoked"), "it shows within seconds (P5)"


@pytest.mark.parametrize("challenge", ["http", "tls"])
def test_lego_obtains_renews_and_revokes(shop: Shop, challenge: str) -> None:
    name = f"lego-{challenge}.device.test"
    port = shop.http if challenge == "http" else shop.tls
    how = [f"--{challenge}", f"--{challenge}.port", f"127.0.0.1:{port}", "--domains", name]
    shop.lego(*how, "run", path=challenge)
    chain = shop.folder / challenge / "certificates" / f"{name}.crt"
    assert names_in(chain) == [name]
    verified(shop, chain)
    first = serial(chain)
    shop.lego(*how, "renew", "--days", "90", "--no-random-sleep", path=challenge)
    assert serial(chain) != first
    shop.lego(*how, "revoke", "--keep", path=challenge)
    kept = next((shop.folder / challenge).rglob(f"{name}.crt"))
    assert eventually(lambda: status(shop, kept) == "revoked"), "it shows within seconds (P5)"


def test_certbots_library_obtains_for_an_address_RFC_8738(shop: Shop) -> None:
    """certbot itself asks for addresses only where it knows the CA, and Debian's lego takes them for names; certbot's library does it right."""
    script = f"""
import ipaddress, threading, josepy
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from acme import challenges, client, crypto_util, messages, standalone

def key():
    return ec.generate_private_key(ec.SECP256R1())

account = josepy.JWKEC(key=key())
net = client.ClientNetwork(account, alg=josepy.ES256, verify_ssl={str(shop.demo.root)!r})
acme = client.ClientV2(client.ClientV2.get_directory({shop.directory!r}, net), net=net)
acme.new_account(messages.NewRegistration.from_data(terms_of_service_agreed=True))
pem = key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
order = acme.new_order(crypto_util.make_csr(pem, ipaddrs=[ipaddress.ip_address("127.0.0.1")]))
[challenge] = [one for one in order.authorizations[0].body.challenges if isinstance(one.chall, challenges.HTTP01)]
response, validation = challenge.response_and_validation(account)
resource = standalone.HTTP01RequestHandler.HTTP01Resource(chall=challenge.chall, response=response, validation=validation)
server = standalone.HTTP01Server(("127.0.0.1", {shop.http}), {{resource}})
threading.Thread(target=server.serve_forever, daemon=True).start()
acme.answer_challenge(challenge, response)
print(acme.poll_and_finalize(order).fullchain_pem)
"""
    (shop.folder / "address.pem").write_text(shop.run(sys.executable, "-c", script))
    assert names_in(shop.folder / "address.pem") == ["127.0.0.1"]


def test_lego_binds_its_account_to_a_device(shop: Shop) -> None:
    made = shop.demo.cli("token", "create", "gw-77", "--profile", "service", "--dns", "gw-77.device.test", "--eab")
    how = ["--http", "--http.port", f"127.0.0.1:{shop.http}", "--domains", "gw-77.device.test"]
    there = shop.at("gateway")
    assert "External Account Binding" in shop.lego(*how, "run", path="bound", directory=there, ok=False)
    shop.lego("--eab", "--kid", made["eab_kid"], "--hmac", made["eab_hmac_key"], *how, "run", path="bound", directory=there)
    found = serial(shop.folder / "bound/certificates/gw-77.device.test.crt")
    known = shop.demo.cli("certificates", "search", "--device", "gw-77")["certificates"]
    assert [one["serial"] for one in known] == [f"{found:040x}"]


def test_a_name_outside_of_the_settings_is_refused(shop: Shop) -> None:
    said = shop.lego("--http", "--http.port", f"127.0.0.1:{shop.http}", "--domains", "www.example.org", "run", path="no", ok=False)
    assert "rejectedIdentifier" in said


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_dehydrated_obtains_and_revokes(shop: Shop) -> None:
    tool, folder = need("dehydrated"), shop.folder / "dehydrated"
    need("curl")
    (folder / "www/.well-known/acme-challenge").mkdir(parents=True)
    config = folder / "config"
    config.write_text(
        f'CA="{shop.directory}"\nBASEDIR="{folder}"\nWELLKNOWN="{folder}/www/.well-known/acme-challenge"\n'
        f'CURL_OPTS="--cacert {shop.demo.root}"\nCONTACT_EMAIL="ops@fleet.test"\n'
    )
    server = subprocess.Popen(
        [sys.executable, "-m", "http.server", str(shop.http), "--bind", "127.0.0.1", "--directory", folder / "www"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def dehydrated(*words: str | Path) -> None:
        """It does not repeat a request whose nonce was refused: whoever runs it, most often cron, runs it again."""
        for tries_left in range(9, -1, -1):
            try:
                shop.run(tool, "--config", config, *words)
            except AssertionError as error:
                if not tries_left or "badNonce" not in str(error):
                    raise
            else:
                return

    try:
        eventually(lambda: listens(shop.http))
        dehydrated("--register", "--accept-terms")
        dehydrated("--cron", "--domain", "dh-1.device.test")
        chain = folder / "certs/dh-1.device.test/fullchain.pem"
        assert names_in(chain) == ["dh-1.device.test"]
        verified(shop, chain)
        dehydrated("--cron", "--force", "--domain", "dh-1.device.test")
        dehydrated("--revoke", folder / "certs/dh-1.device.test/cert.pem")
    finally:
        server.terminate()
        server.wait()


def test_a_tenth_of_the_nonces_was_refused_and_nobody_was_stopped_by_it(shop: Shop) -> None:
    said = shop.log()
    assert re.search('"code":"acme-bad-nonce"', said)
    assert '"event":"crashed"' not in said and "Traceback" not in said
