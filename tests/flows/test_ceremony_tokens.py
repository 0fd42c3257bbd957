"""Ceremonies with PKCS#11 tokens: the root is made on one, a witness confirms with another, and at the end the root's key is destroyed there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ca.der import pem
from ca.errors import FleetcaError, Unacceptable
from ca.keys.pkcs11 import Pkcs11KeyStore
from ca.keys.pkcs11_token import TokenAddress
from ca.model import AlgorithmName, KeyName
from ca.system import SystemChance, SystemClock
from fleetca import ceremonies
from tests import softhsm
from tests.fakes.ceremony import apart

PASSPHRASE = b"correct horse battery staple"
PEOPLE = (("administrator", "Alex"), ("auditor", "Aron"), ("witness", "Wanda"))


@pytest.fixture(scope="module")
def hsm() -> softhsm.SoftHsm:
    return softhsm.softhsm()


@pytest.fixture(scope="module")
def folder(hsm: softhsm.SoftHsm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ca.keys.sealed_file._N", 1 << 8)
        here = tmp_path_factory.mktemp("tokens") / "room"
        here.mkdir()
        hsm.add("ceremony root")
        hsm.add("ceremony wanda")
        (here / "pin").write_text(softhsm.PIN)
        (here / "pin").chmod(0o600)
        yield here


def uri(hsm: softhsm.SoftHsm, token: str, name: str) -> str:
    return f"pkcs11:token={token.replace(' ', '%20')};object={name}?module-path={hsm.module}"


def write(folder: Path, hsm: softhsm.SoftHsm, name: str, acts: str, places: str) -> None:
    roles = ""
    for role, person in PEOPLE:
        if person == "Wanda":
            store = Pkcs11KeyStore(TokenAddress(hsm.module, label="ceremony wanda"), softhsm.PIN.encode)
            known = KeyName("wanda") in store.names()
            from hashlib import sha256

            key = store.open(KeyName("wanda")) if known else store.generate(KeyName("wanda"), AlgorithmName("p256"))
            digest = sha256(key.spki).hexdigest()
            places += f'[people.Wanda]\nkey = "{uri(hsm, "ceremony wanda", "wanda")}"\npassphrase = "file:pin"\n'
        else:
            file = folder / f"{person}.sha256"
            if not file.exists():
                file.write_text(ceremonies.make_role_key(person.lower(), folder, lambda: PASSPHRASE).hex())
            digest = file.read_text()
            places += f'[people.{person}]\nkey = "sealed:{person.lower()}.key"\n'
        roles += f'[[roles]]\nrole = "{role}"\nperson = "{person}"\nkey_sha256 = "{digest}"\n'
    head = f'[ceremony]\nname = "{name}"\nconfirm = ["administrator", "auditor", "witness"]\n'
    (folder / f"{name}.toml").write_text(head + roles + acts)
    (folder / f"{name}.credentials").write_text(places)


def hold(folder: Path, name: str, **changes: Any) -> None:
    ceremonies.run(
        folder / f"{name}.toml", out=folder / name, passphrase=lambda: PASSPHRASE, confirm=lambda step: True, clock=SystemClock(),
        chance=SystemChance(), credentials=folder / f"{name}.credentials", room=apart, **changes,
    )  # fmt: skip


ROOT = """
[[acts]]
act = "root"
id = "root"
algorithm = "{algorithm}"
subject = {{ common_name = "Root on a token" }}
not_after = "20y"
[[acts]]
act = "root-crl"
id = "root-crl"
issuer = "root"
next_update = "90d"
"""


def test_a_kind_of_key_that_the_token_lacks_is_refused_before_anything_is_made(folder: Path, hsm: softhsm.SoftHsm) -> None:
    made = f'[made.root]\nkey = "{uri(hsm, "ceremony root", "other")}"\npassphrase = "file:pin"\n'
    write(folder, hsm, "lacking", ROOT.format(algorithm="ml-dsa-87"), made)
    with pytest.raises(Unacceptable) as caught:
        hold(folder, "lacking")
    assert caught.value.code == "store-lacks-algorithm"
    assert caught.value.fix
    assert not (folder / "lacking/transcript.jsonl").exists()


@pytest.mark.req("REQ-KEY-004", "REQ-KEY-067", "REQ-KEY-069")
def test_the_root_on_a_token_from_its_making_to_its_end(folder: Path, hsm: softhsm.SoftHsm) -> None:
    made = f'[made.root]\nkey = "{uri(hsm, "ceremony root", "root")}"\npassphrase = "file:pin"\n'
    write(folder, hsm, "first", ROOT.format(algorithm="p256"), made)
    hold(folder, "first")
    assert not list((folder / "first").glob("*.key"))
    said = hsm.inspect("ceremony root", "--list-objects", "--type", "privkey")
    assert "root" in said
    assert "never extractable" in said
    assert ceremonies.verify(folder / "first").people[-1] == ("witness", "Wanda")

    root = pem.der_of((folder / "first/root.pem").read_bytes(), pem.CERTIFICATE)
    known = '[[issuers]]\nid = "root"\ncertificate = "first/root.pem"\n'
    end = f'{known}[[acts]]\nact = "destroy-key"\nid = "end"\nissuer = "root"\nreason = "Its time is over."\n'
    opened = f'[issuers.root]\nkey = "{uri(hsm, "ceremony root", "root")}"\npassphrase = "file:pin"\n'
    write(folder, hsm, "end", end, opened)
    hold(folder, "end")
    assert "root" not in hsm.inspect("ceremony root", "--list-objects", "--type", "privkey").replace("ceremony root", "")
    record = json.loads((folder / "end/end.json").read_bytes())
    assert record["proof"]
    assert ceremonies.verify(folder / "end", roots={"root": root}).outputs[0].is_statement

    crl = f'{known}[[acts]]\nact = "root-crl"\nid = "late"\nissuer = "root"\nprevious = "first/root-crl.crl"\nnext_update = "90d"\n'
    write(folder, hsm, "late", crl, opened)
    with pytest.raises(FleetcaError) as caught:
        hold(folder, "late")
    assert caught.value.code == "no-such-key"


def test_a_token_gives_no_key_out_for_a_backup(folder: Path, hsm: softhsm.SoftHsm) -> None:
    from ca.custody import Custody
    from ca.keys.shares import Slip39
    from ca.rules import quorum as rule

    seen: dict[str, str] = {}

    def show(sheet: Any) -> None:
        seen[sheet.custodian] = sheet.words

    quorum, _ = Custody(sharing=Slip39(), clock=SystemClock()).make(
        "some", ["A", "B"], 2, show=show, reenter=lambda custodian, _attempt: seen[custodian]
    )
    (folder / "quorum.json").write_bytes(rule.write(quorum))
    made = f'[made.root]\nkey = "{uri(hsm, "ceremony root", "third")}"\npassphrase = "file:pin"\n'
    acts = ROOT.format(algorithm="p256") + '[[acts]]\nact = "backup"\nid = "copy"\nissuer = "root"\nquorum_file = "quorum.json"\n'
    write(folder, hsm, "backup", acts, made)
    with pytest.raises(FleetcaError) as caught:
        hold(folder, "backup")
    assert caught.value.code == "key-not-extractable"
