"""Many certificates revoked at once, while others are issued and asked about."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from cryptography import x509

from ca.keys.memory import make_private_key
from ca.model import AlgorithmName, DeviceId, IssueRequest, ProfileName, Role
from ca.signer.client import SignerClient
from fleetca import forms
from fleetca.relying_party import reading
from tests.fakes.certificates import HASHES
from tests.interop.conftest import Demo
from tests.running import eventually


def csr() -> bytes:
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "x")])
    built = x509.CertificateSigningRequestBuilder().subject_name(name).sign(make_private_key(AlgorithmName("p256")), HASHES["p256"])
    from cryptography.hazmat.primitives.serialization import Encoding

    return built.public_bytes(Encoding.DER)


def issue(signer: SignerClient, device: str) -> bytes:
    asked = IssueRequest(csr=csr(), evidence=signer.local, device=DeviceId(device), profile=ProfileName("device"))
    der = signer.issue(asked).certificate.der
    assert der is not None
    return der


def test_a_batch_is_planned_revoked_in_waves_and_taken_up_again(demo: Demo, tmp_path: Path) -> None:
    signer = SignerClient(forms.read_settings(demo.settings).signer.socket, Role.operator)
    subject = "batch"
    made = [x509.load_der_x509_certificate(issue(signer, f"{subject}-{n}")).serial_number for n in range(40)]
    planned = demo.cli("revoke", "--query", f"subject=CN={subject}-*", "--reason", "cessationOfOperation", "--plan")
    assert (planned["certificates"], planned["devices"]) == (40, 40)
    assert planned["by_profile"] == {"device": 40}
    assert 40 * 45 < planned["crl_growth_octets"] < 40 * 60
    assert (
        demo.cli("revoke", "--query", f"subject=CN={subject}-*", "--reason", "cessationOfOperation", "--confirm", "39", ok=False)["error"][
            "code"
        ]
        == "another-count"
    )

    issued: list[Any] = []
    stop = threading.Event()

    def go_on() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            issued.append(issue(signer, f"other-{number}"))

    beside = threading.Thread(target=go_on)
    beside.start()
    # One revoked before, as if a run had been cut off.
    demo.cli("revoke", f"{made[0]:040x}", "--reason", "cessationOfOperation")
    done = demo.cli("revoke", "--query", f"subject=CN={subject}-*", "--reason", "cessationOfOperation", "--wave", "10", "--confirm", "39")
    stop.set()
    beside.join()
    assert (done["revoked"], done["failed"], done["waves"]) == (39, [], 4)
    assert issued, "issuing went on"
    assert demo.cli("revoke", "--query", f"subject=CN={subject}-*", "--reason", "cessationOfOperation", "--plan")["certificates"] == 0
    eventually(lambda: set(made) <= {one[0] for one in reading.entries(reading.read(reading.octets_of(demo.crl_url)))}, every=0.5)
    signer.close()


def test_a_query_that_everything_matches_is_refused(demo: Demo) -> None:
    command = [sys.executable, "-m", "fleetca.cli.main", "revoke", "--reason", "superseded", "--plan", "--settings", str(demo.settings)]
    for query in (["--query", "colour=red"], ["--query", "device"]):
        done = subprocess.run([*command, *query], capture_output=True, text=True, check=False)
        assert done.returncode == 2
