"""Ceremonies with PKCS#11 tokens: the root is made on one, a witness confirms with another, and at the end the root's key is destroyed there."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from cryptography.x509.oid import NameOID

from ca.der import pem
from ca.errors import FleetcaError, Unacceptable
from ca.keys.pkcs11 import Pkcs11KeyStore
from ca.keys.pkcs11_token import TokenAddress
from ca.model import AlgorithmName, KeyName
from ca.rules import transcript
from ca.system import SystemChance, SystemClock
from fleetca import ceremonies
from fleetca.cli.main import fleetca
from tests import softhsm
from tests.fakes.ceremony import apart

PASSPHRASE = b"correct horse battery staple"
PEOPLE = (("administrator", "Alex"), ("auditor", "Aron"), ("witness", "Wanda"))


@pytest.fixture(scope="module")
def hsm() -> softhsm.SoftHsm:
    return softhsm.softhsm()


@pytest.fixture(scope="module")
def folder(hsm: softhsm.SoftHsm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("tokens") / "room"
    here.mkdir()
    hsm.add("ceremony root")
    hsm.add("ceremony wanda")
    (here / "pin").write_text(softhsm.PIN)
    (here / "pin").chmod(0o600)
    return here


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


# ---- Cards that people have already -------------------------------------------------------------------------------------


def piv(hsm: softhsm.SoftHsm, label: str, person: str) -> str:
    """A token that looks like a PIV card: 9a with its public half under another label, 9c with its certificate only and the PIN at each use."""
    hsm.add(label)
    curve = ("--keypairgen", "--key-type", "EC:prime256v1", "--usage-sign")
    hsm.inspect(label, *curve, "--label", "PIV AUTH key", "--id", "01")
    hsm.inspect(label, *curve, "--label", "SIGN key", "--id", "02", "--always-auth")
    for name, number, slot in (("PIV AUTH key", "01", "PIV Authentication"), ("SIGN key", "02", "Digital Signature")):
        file = hsm.folder / f"{number}.der"
        hsm.inspect(label, "--read-object", "--type", "pubkey", "--id", number, "--output-file", str(file))
        file.with_suffix(".cer").write_bytes(certified(file.read_bytes(), person))
        certificate = (
            "--write-object",
            str(file.with_suffix(".cer")),
            "--type",
            "cert",
            "--id",
            number,
            "--label",
            f"Certificate for {slot}",
        )
        hsm.inspect(label, *certificate)
        hsm.inspect(label, "--delete-object", "--type", "pubkey", "--label", name)
        if number == "01":
            hsm.inspect(label, "--write-object", str(file), "--type", "pubkey", "--id", number, "--label", "PIV AUTH pubkey")
    return label


def certified(spki: bytes, person: str) -> bytes:
    """A certificate as the people who gave the card out made one."""
    now, name = datetime.now(UTC), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, person)])
    key = load_der_public_key(spki)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key).serial_number(7)
    made = builder.not_valid_before(now).not_valid_after(now + timedelta(days=30)).sign(ec.generate_private_key(ec.SECP256R1()), SHA256())
    return made.public_bytes(Encoding.DER)


def card_uri(hsm: softhsm.SoftHsm, label: str, name: str, number: str) -> str:
    return f"pkcs11:token={label};id=%{number};object={name.replace(' ', '%20')};type=private?module-path={hsm.module}"


@pytest.fixture
def cards(folder: Path, hsm: softhsm.SoftHsm, tmp_path: Path) -> Path:
    """A sheet that two people confirm with the keys of a card each has: one from slot 9a, one from 9c."""
    stem = hashlib.sha256(str(tmp_path).encode()).hexdigest()[:8]
    uris = {
        "Wanda": card_uri(hsm, piv(hsm, f"wanda-{stem}", "Wanda"), "SIGN key", "02"),
        "Aron": card_uri(hsm, piv(hsm, f"aron-{stem}", "Aron"), "PIV AUTH key", "01"),
    }
    places, roles = "", ""
    (tmp_path / "pin").write_text(f"{softhsm.PIN}\n")
    (tmp_path / "pin").chmod(0o600)
    for role, person in (("witness", "Wanda"), ("auditor", "Aron")):
        done = CliRunner().invoke(
            fleetca, ["ceremony", "role-key", person, "--key", uris[person], "--passphrase-file", str(tmp_path / "pin"), "--json"]
        )
        assert done.exit_code == 0, done.output
        said = json.loads(done.stdout)
        assert softhsm.PIN not in done.output
        roles += f'[[roles]]\nrole = "{role}"\nperson = "{person}"\nkey_sha256 = "{said["key_sha256"]}"\n'
        places += f'[people.{person}]\nkey = "{uris[person]}"\npassphrase = "file:pin"\n'
    head = '[ceremony]\nname = "cards"\nconfirm = ["auditor", "witness"]\n'
    (tmp_path / "cards.toml").write_text(head + roles + ROOT.format(algorithm="p256"))
    (tmp_path / "cards.credentials").write_text(places)
    return tmp_path


def wanda_signs(cards: Path) -> int:
    said = (cards / "cards" / transcript.FILE).read_bytes().splitlines()
    return sum(json.loads(line)["kind"] == "confirmed" and json.loads(line)["person"] == "Wanda" for line in said)


@pytest.mark.req("REQ-KEY-002")
def test_people_confirm_with_the_keys_of_their_piv_cards(cards: Path) -> None:
    hold(cards, "cards")
    assert wanda_signs(cards) == 4  # the sheet, root and CRL, the whole
    assert ceremonies.verify(cards / "cards").people == (("witness", "Wanda"), ("auditor", "Aron"))
    # What an auditor believes is the signature, and it is of the key in the card's certificate.
    begin = json.loads((cards / "cards" / transcript.FILE).read_bytes().splitlines()[0])
    spki = {each["person"]: transcript.octets_of(each["spki"]) for each in begin["people"]}
    sheet = (cards / "cards.toml").read_text()
    assert all(hashlib.sha256(each).hexdigest() in sheet for each in spki.values())
    # The PIN is in nothing that is kept or reviewed.
    kept = [*(cards / "cards").iterdir(), cards / "cards.toml", cards / "cards.credentials"]
    assert not any(softhsm.PIN.encode() in path.read_bytes() for path in kept)


def test_a_wrong_pin_is_tried_once_and_not_again_by_the_next_run(cards: Path, hsm: softhsm.SoftHsm) -> None:
    label = (cards / "cards.credentials").read_text().split("token=")[1].split(";")[0]
    right = (cards / "pin").read_text()
    (cards / "pin").write_text("not the pin of the tests")
    from ca.keys.pkcs11_token import _module

    for code in ("wrong-pin", "pin-not-tried"):
        _module(str(hsm.module)).restart()  # a login belongs to the whole process, and this one is to be another
        with pytest.raises(FleetcaError) as caught:
            hold(cards, "cards")
        assert caught.value.code == code
        assert "not the pin" not in f"{caught.value} {caught.value.fix}"
        assert not (cards / "cards" / transcript.FILE).exists()
    (cards / "pin").write_text(right)
    # Also the right one waits until somebody has logged in by hand: who is to know that it is right?
    with pytest.raises(FleetcaError) as again:
        hold(cards, "cards")
    assert again.value.code == "pin-not-tried"
    assert "pkcs11-tool" in again.value.fix
    hsm.inspect(label, "--list-objects")
    hold(cards, "cards")


@pytest.mark.parametrize("where", ["sheet", "credentials"])
def test_a_pin_in_a_file_that_is_reviewed_is_refused_and_not_repeated(cards: Path, where: str) -> None:
    credentials, sheet = cards / "cards.credentials", cards / "cards.toml"
    if where == "sheet":
        sheet.write_text(sheet.read_text().replace('person = "Wanda"\n', f'person = "Wanda"\npin = "{softhsm.PIN}"\n'))
    else:
        credentials.write_text(
            credentials.read_text().replace("?module-path=", f"?pin-value={softhsm.PIN.replace(' ', '%20')}&module-path=", 1)
        )
    with pytest.raises(FleetcaError) as caught:
        hold(cards, "cards")
    assert softhsm.PIN not in f"{caught.value} {caught.value.why} {caught.value.fix}"
    assert softhsm.PIN.replace(" ", "%20") not in f"{caught.value} {caught.value.why} {caught.value.fix}"
    assert not (cards / "cards").exists()


def test_somebody_elses_card_is_noticed_before_anything_is_made(cards: Path) -> None:
    credentials = cards / "cards.credentials"
    text = credentials.read_text()
    wanda, aron = (text.split(f"[people.{each}]\n")[1].split("\n")[0] for each in ("Wanda", "Aron"))
    credentials.write_text(text.replace(wanda, "HERS").replace(aron, wanda).replace("HERS", aron))
    with pytest.raises(FleetcaError) as caught:
        hold(cards, "cards")
    assert caught.value.code == "wrong-role-key"
    assert not (cards / "cards" / transcript.FILE).exists()


def test_a_card_that_is_not_in_its_reader_is_said(cards: Path, hsm: softhsm.SoftHsm) -> None:
    hsm.pull_out()
    try:
        with pytest.raises(FleetcaError) as caught:
            hold(cards, "cards")
        assert caught.value.code == "token-absent"
        assert "Put it in" in caught.value.fix
    finally:
        hsm.put_back()
    hold(cards, "cards")


def test_a_token_is_never_given_the_passphrase_of_the_ceremony_for_its_pin(cards: Path, hsm: softhsm.SoftHsm) -> None:
    from ca.keys.pkcs11_token import _module

    credentials = cards / "cards.credentials"
    credentials.write_text(credentials.read_text().replace('"file:pin"', '"ask"', 1))
    _module(str(hsm.module)).restart()
    with pytest.raises(FleetcaError) as caught:
        hold(cards, "cards")
    assert caught.value.code == "no-answer"
    assert "PIN of token wanda" in caught.value.what
    asked: list[str] = []

    def answer(what: str) -> bytes:
        asked.append(what)
        return softhsm.PIN.encode()

    hold(cards, "cards", ask=answer)
    # Once, and for the token that has no other source; the other one's PIN has a file.
    assert [each.partition(",")[0] for each in asked] == ["Wanda (witness)"]
