"""A whole PKI on loopback in one go: ceremony, deployment, processes, two devices, one of them revoked, everything checked.

It takes the roads that everybody takes: a real ceremony of the shipped demo sheet, the import, the signer's socket for tokens and the
revocation, HTTPS for enrolment. A run that was stopped half-way is made anew; a finished demo is served again.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from ca.der import pem
from ca.errors import Broken, Conflict, Misconfigured, NotFound
from ca.keys.memory import make_private_key
from ca.model import AlgorithmName, DeviceId, ProfileName, Reason, RevokeRequest, Role, TokenRequest
from ca.ports import Clock
from ca.signer.client import SignerClient
from ca.system import SystemChance, SystemClock
from config.settings import Settings
from fleetca import ceremonies, checks, deployment, forms
from fleetca.checks import Check, Subject
from fleetca.client import Client
from fleetca.importing import import_ceremony
from fleetca.serve import Supervisor

MARK: Final = "demo.json"
"""Lies in a demo's folder from the first moment on; holds what `--json` prints once the demo is complete."""
GOOD: Final = DeviceId("demo-good")
REVOKED: Final = DeviceId("demo-revoked")
PATIENCE: Final = 20.0
"""Seconds in which a revocation must show everywhere."""

ACME: Final = """
[acme]                                    # this machine only: names of its own, on ports that need no root
networks = ["127.0.0.0/8"]
hosts = { "*.device.test" = "127.0.0.1" }
http_port = 5002
tls_port = 5001

[[acme.directories]]                      # services: whoever holds the names
name = "service"
profile = "service"
accounts = "open"
names = ["*.device.test"]

[[acme.directories]]                      # services that are devices of the fleet: a one-time token binds the account
name = "gateway"
profile = "service"
names = ["*.device.test"]

[[acme.directories]]                      # devices: a one-time token binds the account, and is the proof
name = "device"
profile = "device"
"""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Demo:
    """A demo that runs."""

    document: Mapping[str, Any]
    checks: tuple[Check, ...]

    @property
    def held(self) -> bool:
        return all(check.held for check in self.checks)


def run(directory: Path, *, port_base: int, once: bool, ready: Callable[[Demo], None], say: Say) -> bool:
    """Make (or take up) the demo, serve, check, tell; then serve on until SIGTERM unless `once`. True when every check held.

    Args:
        directory: where everything goes.
        port_base: enrolment listens on it + 443, status on it + 80.
        ready: gets the demo when it serves and was checked.
        say: gets progress, a line at a time.

    Raises:
        Conflict: the folder holds something that is no demo.
        Misconfigured: a port is taken.
    """
    clock = SystemClock()
    settings_file = _make(directory, port_base=port_base, clock=clock, say=say)
    # Ready to be stopped from the first process on: a signal while they start must not leave them behind.
    supervisor = Supervisor(settings_file, log_directory=directory / "logs")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stopping.set())
    signal.signal(signal.SIGHUP, lambda *_: supervisor.reload_wanted.set())
    say("Starting signer, enrolment, status and publisher ...")
    supervisor.start()
    try:
        if supervisor.stopping.is_set():
            return False
        (directory / "run/demo.pid").write_text(f"{os.getpid()}\n")
        document = _populate(directory, supervisor.settings, say=say)
        done = tuple(_check(document, supervisor.settings, clock=clock, say=say))
        demo = Demo({**document, "checks": [{"what": check.what, "held": check.held} for check in done]}, done)
        ready(demo)
        if not once:
            supervisor.watch()
        return demo.held
    finally:
        supervisor.stop()
        (directory / "run/demo.pid").unlink(missing_ok=True)


def down(directory: Path) -> bool:
    """Stop a demo that runs there and remove its folder. False when there is none.

    Raises:
        Conflict: the folder holds something else.
    """
    if not directory.exists():
        return False
    if not (directory / MARK).exists():
        raise Conflict("not-a-demo", f"{directory} is no demo.", why=f"It has no {MARK}.", fix="Remove it yourself if you mean it.")
    pid_file = directory / "run/demo.pid"
    if pid_file.exists():
        pid = int(pid_file.read_text())
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
        else:
            pause = threading.Event()
            for _ in range(200):
                if not pid_file.exists() or not Path(f"/proc/{pid}").exists():
                    break
                pause.wait(0.1)
    shutil.rmtree(directory)
    return True


# ---- Making ---------------------------------------------------------------------------------------------------------


def _make(directory: Path, *, port_base: int, clock: Clock, say: Say) -> Path:
    settings_file = directory / deployment.SETTINGS_FILE
    mark = directory / MARK
    if directory.exists() and any(directory.iterdir()):
        if not mark.exists():
            raise Conflict("not-a-demo", f"{directory} holds something that is no demo.", fix="Give another folder: --dir DIR")
        if json.loads(mark.read_text() or "{}"):
            say(f"Taking up the demo in {directory}.")
            return settings_file
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True, mode=0o755)
    mark.write_text("{}")
    enroll_port, status_port = port_base + 443, port_base + 80
    if not 0 < status_port < enroll_port < 65536:
        raise Misconfigured("bad-port", f"{port_base} is no port base.", fix="Choose one between 0 and 65092.")
    say(f"Making a deployment in {directory} ...")
    created = deployment.create(
        directory,
        deployment.Wanted(
            name="demo", enroll_port=enroll_port, status_port=status_port, host="127.0.0.1", sheet="demo", operator="admin", more=ACME
        ),
        chance=SystemChance(),
    )
    say("Holding the ceremony of the demo sheet: root, issuing CA, the root's CRL (NOT FOR PRODUCTION) ...")
    passphrase = SystemChance().octets(24).hex().encode()  # nobody needs the demo's root again
    ceremonies.run(
        created.sheet,
        out=created.outputs,
        passphrase=lambda: passphrase,
        confirm=lambda _: True,
        clock=clock,
        chance=SystemChance(),
    )
    say("Importing its outputs ...")
    import_ceremony(forms.read_settings(settings_file), created.outputs, clock=clock, chance=SystemChance())
    return settings_file


def _populate(directory: Path, settings: Settings, *, say: Say) -> dict[str, Any]:
    mark = directory / MARK
    known = json.loads(mark.read_text())
    if known:
        return dict(known)
    operator = SignerClient(settings.signer.socket, Role.operator)
    root = settings.issuer("root").certificate
    issuing = settings.issuer(settings.profiles.default_issuer).certificate
    chain = directory / "ca/chain.pem"
    chain.write_text(issuing.read_text() + root.read_text())
    devices = directory / "devices"
    devices.mkdir(exist_ok=True)
    client = Client(settings.enroll.url, trusted=root)
    made = {}
    for device in (GOOD, REVOKED):
        say(f"Enrolling {device} over {settings.enroll.url} ...")
        made[device] = _enroll(device, devices, operator=operator, client=client)
    client.close()
    say(f"Revoking {REVOKED} ...")
    operator.revoke(RevokeRequest(operator.local, Reason.keyCompromise, device=REVOKED))
    operator.close()
    document = {
        "root": str(root.resolve()),
        "issuing": str(issuing.resolve()),
        "chain": str(chain.resolve()),
        "good": made[GOOD],
        "revoked": made[REVOKED],
        "enroll_url": settings.enroll.url,
        "acme_directory": f"{settings.enroll.url}/acme/service/directory",
        "ocsp_url": f"{settings.status.url}/ocsp",
        "crl_url": f"{settings.status.url}/crl/{settings.profiles.default_issuer}.crl",
        "settings": str(settings.file.resolve()),
    }
    mark.write_text(json.dumps(document, indent=2) + "\n")
    return document


def _enroll(device: DeviceId, folder: Path, *, operator: SignerClient, client: Client) -> dict[str, str]:
    """As a device does it: its own key, a one-time token, one request."""
    created = operator.create_token(TokenRequest(operator.local, device, ProfileName("device"), (), 600))
    key = make_private_key(AlgorithmName("p256"))
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    answer = client.post(
        "/v1/enroll",
        {"token": created.text, "csr": pem.pem(pem.REQUEST, request.public_bytes(serialization.Encoding.DER))},
    )
    key_path, certificate_path = folder / f"{device}.key", folder / f"{device}.pem"
    # The profile lets devices keep their key in a 0600 file (P10); the demo's must, for others to try them.
    key_pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for path, content in ((key_path, key_pem), (certificate_path, answer["certificate"].encode())):
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
    return {"certificate": str(certificate_path.resolve()), "key": str(key_path.resolve())}


# ---- Checking -------------------------------------------------------------------------------------------------------


def _check(document: Mapping[str, Any], settings: Settings, *, clock: SystemClock, say: Say) -> list[Check]:
    """Wait until the revocation shows, then let openssl judge, where there is one."""
    crl_urls = [str(document["crl_url"]), f"{settings.status.url}/crl/root.crl"]
    serial = x509.load_pem_x509_certificate(Path(document["revoked"]["certificate"]).read_bytes()).serial_number
    done = [_crl_lists(crl_urls[0], serial, clock=clock)]
    root_crl = _crl_there(crl_urls[1], clock=clock)
    if not root_crl.held:
        return [*done, root_crl]
    if not checks.available():
        say("There is no openssl here: its checks are left out.")
        return done
    subject = Subject(
        root=Path(document["root"]),
        issuing=Path(document["issuing"]),
        chain=Path(document["chain"]),
        good=Path(document["good"]["certificate"]),
        revoked=Path(document["revoked"]["certificate"]),
        ocsp_url=str(document["ocsp_url"]),
        crl_urls=crl_urls,
    )
    done += checks.check(subject)
    for check in done:
        say(f"  {'ok  ' if check.held else 'FAIL'} {check.what}")
        if not check.held:
            say(check.said)
    return done


def _crl_lists(url: str, serial: int, *, clock: SystemClock) -> Check:
    return _looked_at(
        url,
        "the CRL lists the revoked certificate",
        lambda crl: crl.get_revoked_certificate_by_serial_number(serial) is not None,
        clock=clock,
    )


def _crl_there(url: str, *, clock: SystemClock) -> Check:
    return _looked_at(url, "the root's CRL is published", lambda _: True, clock=clock)


def _looked_at(url: str, what: str, holds: Callable[[x509.CertificateRevocationList], bool], *, clock: SystemClock) -> Check:
    """Until it holds of the CRL there: the publisher comes by in its own time."""
    deadline = clock.monotonic() + PATIENCE
    pause = threading.Event()
    said = ""
    while clock.monotonic() < deadline:
        try:
            crl = x509.load_der_x509_crl(checks.fetch(url))
        except (OSError, ValueError) as error:
            said = str(error)
        else:
            if holds(crl):
                return Check(what, held=True, said="")
            said = "It does not."
        pause.wait(0.1)
    return Check(what, held=False, said=said)


def missing(directory: Path) -> NotFound:
    """There is no demo there."""
    return NotFound("no-demo", f"There is no demo in {directory}.", fix="Make one: fleetca demo")


def failed(demo: Demo) -> Broken:
    """Some check did not hold."""
    wrong = next(check for check in demo.checks if not check.held)
    return Broken("demo-check-failed", f"A check failed: {wrong.what}.", why=wrong.said)
