"""`fleetca keys` on a running deployment: inventory, reality, bill of materials, destruction before witnesses (REQ-KEY-069, -083, -097)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ca.model import MessageEvidence
from ca.rules import destruction
from ca.rules.message import signed_octets
from ca.system import SystemClock
from enroll.store.acme import AcmeStore
from enroll.store.transactions import Transactions
from fleetca import forms
from fleetca.cli.output import iso
from tests.interop import judges
from tests.running import Apart, apart, command, here, make_deployment


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_deployment(tmp_path_factory.mktemp("keys") / "here")


@pytest.fixture
def signer(deployment: Path, tmp_path: Path) -> Iterator[Apart]:
    with apart(deployment, logs=tmp_path / "logs", roles=("signer",)) as running:
        yield running


def said(file: Path, *arguments: str | Path, code: int = 0) -> dict[str, object]:
    done = here("keys", *arguments, "--settings", file, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    document: dict[str, object] = json.loads(done.stdout)
    return document


@pytest.mark.req("REQ-KEY-097", "REQ-KEY-002")
def test_every_key_of_the_settings_is_in_the_inventory(deployment: Path, signer: Apart) -> None:
    found = {str(each["purpose"]): each for each in said(deployment, "list")["keys"]}
    assert set(found) == {"root-ca", "issuing-ca", "log", "operator", "serial-check"}
    assert (found["root-ca"]["store"], found["root-ca"]["protection"]) == ("offline", "unknown")
    assert (found["issuing-ca"]["store"], found["issuing-ca"]["protection"]) == ("sealed", "file")
    assert (found["operator"]["name"], found["operator"]["store"], found["operator"]["origin"]) == (
        "fleetca:operator:admin",
        "holder",
        "elsewhere",
    )
    assert (found["serial-check"]["algorithm"], found["serial-check"]["place"]) == ("hmac-sha256", "file:secrets/serial-check.key")
    assert {each["state"] for each in found.values()} == {"active"}
    shown = said(deployment, "show", "issuing")
    assert [change["after"] for change in shown["changes"]] == ["pre-activation", "active"]
    text = here("keys", "list", "--settings", deployment).stdout
    assert text.splitlines()[0].split()[:3] == ["KEY", "PURPOSE", "STATE"]


@pytest.mark.req("REQ-KEY-097")
def test_the_stores_hold_what_the_inventory_says_and_a_stray_key_is_found(deployment: Path, signer: Apart) -> None:
    checked = said(deployment, "check")
    assert (checked["findings"], checked["not_asked"], len(checked["stores"])) == ([], [], 1)
    stray = deployment.parent / "keys/stray.key"
    stray.write_bytes((deployment.parent / "keys/log.key").read_bytes())
    try:
        (finding,) = said(deployment, "check", code=8)["findings"]
        assert finding["key"] == "stray"
    finally:
        stray.unlink()


@pytest.mark.req("REQ-KEY-097")
def test_what_the_workers_of_the_protocols_share_is_a_key_like_others(deployment: Path, signer: Apart, tmp_path: Path) -> None:
    now = SystemClock().now()
    transactions = Transactions(forms.store_url(forms.read_settings(deployment)))
    AcmeStore(transactions).secret("acme-nonces-57", b"s" * 32, now=now - 5, ends=now + 3600)
    try:
        (found,) = (each for each in said(deployment, "list")["keys"] if each["purpose"] == "nonces")
        assert (found["name"], found["algorithm"], found["state"], found["store"]) == (
            "acme-nonces-57",
            "hmac-sha256",
            "active",
            "database",
        )
        assert found["owner"].startswith("deployment ")
        assert found["period_ends"] == iso(now + 3600)
        assert [change["after"] for change in said(deployment, "show", "acme-nonces-57")["changes"]] == ["active"]
        assert said(deployment, "check")["findings"] == []
        bill = here("keys", "export", "--settings", deployment).stdout
        assert judges.cyclonedx(bill) == ""
        (key,) = (each for each in json.loads(bill)["components"] if each["name"] == "acme-nonces-57")
        assert key["cryptoProperties"]["relatedCryptoMaterialProperties"]["type"] == "secret-key"
        assert "ssssssss" not in bill
        assert (b"s" * 32).hex() not in bill
    finally:
        AcmeStore(transactions).forget(now=now + 3601)
        transactions.close()


@pytest.mark.req("REQ-KEY-097")
def test_the_inventory_is_exported_as_a_bill_of_materials(deployment: Path, signer: Apart, tmp_path: Path) -> None:
    out = tmp_path / "cbom.json"
    assert here("keys", "export", "--out", out, "--settings", deployment).returncode == 0
    assert judges.cyclonedx(out.read_text()) == ""
    bill = json.loads(out.read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    kinds = [each["cryptoProperties"]["assetType"] for each in bill["components"]]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"algorithm": 3, "certificate": 2, "related-crypto-material": 5}
    references = {each["bom-ref"] for each in bill["components"]}
    assert {each for one in bill["dependencies"] for each in one["dependsOn"]} <= references


def test_a_key_that_is_suspended_keeps_the_signer_from_starting(deployment: Path, tmp_path: Path) -> None:
    busy = _changed(deployment, "suspended")
    assert busy["state"] == "suspended"
    try:
        started = command("process", "signer", "--settings", deployment)
        assert started.returncode == 5, started.stderr
        assert "key-not-active" in started.stderr
    finally:
        _changed(deployment, "active")
    with apart(deployment, logs=tmp_path / "logs", roles=("signer",)):
        shown = said(deployment, "show", "issuing")
    assert [change["reason"] for change in shown["changes"]][-2:] == ["a test: suspended", "a test: active"]


def _changed(deployment: Path, state: str) -> dict[str, object]:
    return said(deployment, "change", "issuing", state, "--reason", f"a test: {state}")


def test_a_key_is_not_changed_under_a_running_signer(deployment: Path, signer: Apart) -> None:
    done = here("keys", "change", "issuing", "suspended", "--reason", "x", "--settings", deployment)
    assert done.returncode == 4
    assert "signer-running" in done.stderr


# ---- Destruction --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def doomed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A deployment with three operators, and a request to destroy its issuing key."""
    folder = tmp_path_factory.mktemp("doomed")
    file = make_deployment(folder / "here")
    base = file.parent
    with apart(file, logs=folder / "logs", roles=("signer",)):
        for name in ("ben", "cyd"):
            made = here("init", "--dir", folder / name, "--operator", name, "--yes")  # only for its operator's key and CSR
            assert made.returncode == 0, made.stderr
            csr = folder / name / f"operators/{name}.csr"
            added = here("operators", "add", name, "--role", "auditor", "--csr", csr, "--settings", file)
            assert added.returncode == 0, added.stderr
        request = folder / "request.json"
        said(file, "destroy-request", "issuing", "--reason", "end of its period", "--out", request)
        said(file, "destroy-request", "log", "--reason", "a test of a crash", "--out", folder / "log-request.json")
        assert here("operators", "disable", "cyd", "--confirm", "cyd", "--settings", file).returncode == 0
    files = {"settings": file, "request": request, "folder": folder}
    for name, home in (("admin", base), ("ben", folder / "ben"), ("cyd", folder / "cyd")):
        files[name] = folder / f"{name}.witness"
        done = here(
            "keys", "witness", request, "--key", home / f"operators/{name}.key", "--certificate", home / f"operators/{name}.pem",
            "--passphrase-file", home / f"secrets/{name}.passphrase", "--out", files[name], "--yes",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "is to be destroyed: end of its period" in done.stderr
    return files


@pytest.mark.req("REQ-KEY-069")
def test_a_run_that_died_after_the_store_destroyed_is_finished_by_the_next(doomed: dict[str, Path]) -> None:
    from ca.errors import StoreUnavailable
    from ca.keys.sealed_file import SealedFileKeyStore
    from ca.model import KeyName
    from fleetca import key_files, key_wiring

    settings, folder = forms.read_settings(doomed["settings"]), doomed["folder"]
    payload = (folder / "log-request.json").read_bytes()
    homes = {"admin": settings.base, "ben": folder / "ben"}
    witnesses = []
    for name, home in homes.items():
        key = SealedFileKeyStore(
            home / "operators", lambda home=home, name=name: (home / f"secrets/{name}.passphrase").read_bytes().strip()
        )
        signer = key.open(KeyName(name))
        der = key_files.certificate(home / f"operators/{name}.pem", signer)
        witnesses.append(MessageEvidence(payload, der, signer.sign(signed_octets(payload))))
    store, log = key_wiring.store_of(settings, "log")
    kept: list[bytes] = []

    def full(_: bytes) -> None:
        raise StoreUnavailable("disk-full", "The disk is full.")

    with key_wiring.alone(settings) as (_, life):
        with pytest.raises(StoreUnavailable):
            life.destroy(log, store, payload=payload, witnesses=witnesses, actor="test", keep=full)
        assert not (settings.base / "keys/log.key").exists()
        life.destroy(log, store, payload=payload, witnesses=witnesses, actor="test", keep=kept.append)
    assert json.loads(kept[0])["proof"] == [{"what": "asked", "said": "the store has no such key: an earlier run destroyed it"}]
    assert destruction.verify_certificate(kept[0])[1] == ("admin", "ben")


def destroy(doomed: dict[str, Path], *witnesses: Path, out: str = "certificate.json", code: int = 0) -> dict[str, object]:
    given = [each for path in witnesses for each in ("--witness", path)]
    return said(
        doomed["settings"], "destroy", "issuing", "--request", doomed["request"], *given, "--issuer", "issuing",
        "--out", doomed["folder"] / out, "--confirm", "issuing", code=code,
    )  # fmt: skip


def _tampered(doomed: dict[str, Path]) -> tuple[Path, ...]:
    path = doomed["folder"] / "tampered.witness"
    document = json.loads(doomed["ben"].read_text())
    document["signature"] = json.loads(doomed["admin"].read_text())["signature"]
    path.write_text(json.dumps(document))
    return doomed["admin"], path


REFUSED = [
    pytest.param(lambda doomed: (doomed["admin"],), "witnesses-missing", id="one witness"),
    pytest.param(lambda doomed: (doomed["admin"], doomed["admin"]), "witnesses-missing", id="one witness twice"),
    pytest.param(lambda doomed: (doomed["admin"], doomed["cyd"]), "witness-unknown", id="an operator who was disabled"),
    pytest.param(_tampered, "bad-signature", id="a signature of somebody else"),
]


@pytest.mark.req("REQ-KEY-067", "REQ-KEY-069")
@pytest.mark.parametrize(("witnesses", "code"), REFUSED)
def test_a_key_is_not_destroyed_before(
    doomed: dict[str, Path], witnesses: Callable[[dict[str, Path]], tuple[Path, ...]], code: str
) -> None:
    refused = destroy(doomed, *witnesses(doomed), code=5)
    assert refused["error"]["code"] == code
    assert (doomed["settings"].parent / "keys/issuing.key").exists()
    assert not (doomed["folder"] / "certificate.json").exists()


@pytest.mark.req("REQ-KEY-069")
def test_a_key_is_destroyed_before_two_witnesses_and_signs_no_more(doomed: dict[str, Path]) -> None:
    file = doomed["settings"]
    done = destroy(doomed, doomed["admin"], doomed["ben"])
    assert not (file.parent / "keys/issuing.key").exists()
    octets = (doomed["folder"] / "certificate.json").read_bytes()
    assert done["sha256"] == hashlib.sha256(octets).hexdigest()
    request, who = destruction.verify_certificate(octets)
    assert (request.key, who) == ("issuing", ("admin", "ben"))
    proof = {each["what"]: each["said"] for each in json.loads(octets)["proof"]}
    assert proof["asked again"] == "there is no such file"
    started = command("process", "signer", "--settings", file)
    assert started.returncode == 6
    assert "no-such-key" in started.stderr
    again = destroy(doomed, doomed["admin"], doomed["ben"], out="again.json", code=4)
    assert again["error"]["code"] == "key-move-illegal"
    from ca.model import KeyState
    from ca.store.engine import open_store

    store = open_store(forms.store_url(forms.read_settings(file)), readonly=True)
    (record,) = [each for each in store.reading.key_records() if each.name == "issuing"]
    changes = store.reading.key_changes(record.spki_sha256)
    leaves = [json.loads(leaf.body) for leaf in store.reading.pending_leaves(10_000)]
    store.close()
    assert record.state is KeyState.destroyed
    assert changes[-1].evidence == done["sha256"]
    kept = [leaf for leaf in leaves if leaf["kind"] == "key-state" and leaf["spki_sha256"] == record.spki_sha256.hex()]
    assert [leaf["state"] for leaf in kept] == ["pre-activation", "active", "active", "destroyed"]
    assert kept[-1]["evidence_sha256"] == done["sha256"]
