"""Trust anchors by way of an update system: signed, numbered, with a backup and an end, verified on the device with no network (REQ-KEY-044)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from ca.der import pem
from ca.errors import FleetcaError, Malformed, Unacceptable
from ca.keys.memory import MemoryKey
from ca.model import AlgorithmName, Digest, KeyName
from ca.rules import anchor_bundle, pins
from ca.rules.anchor_bundle import Bundle, judge
from ca.rules.pins import PinSet, Signed
from ca.system import SystemChance, SystemClock
from fleetca.agent import trust
from fleetca.agent.identity import Identity, Setup
from tests.fakes.door import Authority
from tests.fakes.evidence import PASSPHRASE, Office
from tests.running import exit_code as run

pytestmark = pytest.mark.req("REQ-KEY-044")
NOW = SystemClock().now()
DAY = 86400
OLD, NEW, OTHER = (Authority(now=NOW) for _ in range(3))
BACKUP = Digest(MemoryKey.generate(KeyName("backup"), AlgorithmName("p256")).spki[-32:])
ROOTS = (OLD.root.certificate,)


def pin(authority: Authority) -> Digest:
    return pins.pin_of(authority.root.certificate)


def first(**changed: Any) -> PinSet:
    made = PinSet(
        "test", 1, (pin(OLD),), (pin(NEW),), NOW - 60, NOW + 3600, (OLD.root.certificate, NEW.root.certificate), expires=NOW + DAY
    )  # fmt: skip
    return replace(made, **changed)


def second(**changed: Any) -> PinSet:
    return replace(PinSet("test", 2, (pin(NEW),), (BACKUP,), NOW - 60, NOW + 3600, (NEW.root.certificate,), expires=NOW + DAY), **changed)


def signed(found: PinSet, by: Authority) -> Signed:
    payload = pins.write_set(found)
    return Signed(payload, by.root_key.spki, by.root_key.sign(pins.signed_octets(payload)))


def unsigned(found: PinSet) -> Signed:
    """With the signature of another set: what a carrier can add."""
    return replace(signed(first(), OLD), payload=pins.write_set(found))


def crl(by: Authority, *, number: int = 7, ends: int = NOW + DAY) -> bytes:
    builder = x509.CertificateRevocationListBuilder().issuer_name(x509.load_der_x509_certificate(by.issuing.certificate).subject)
    builder = builder.last_update(datetime.fromtimestamp(ends - 2 * DAY, UTC)).next_update(datetime.fromtimestamp(ends, UTC))
    made = builder.add_extension(x509.CRLNumber(number), critical=False).sign(by.key._sign.__self__, hashes.SHA256())
    return made.public_bytes(Encoding.DER)


def whole(**changed: Any) -> Bundle:
    return replace(Bundle((signed(first(), OLD), signed(second(), NEW)), (NEW.issuing.certificate,), (crl(NEW),)), **changed)


def known(found: PinSet, by: Authority) -> tuple[Signed, PinSet]:
    return signed(found, by), found


# ---- The rule -------------------------------------------------------------------------------------------------------------


def test_a_device_that_trusts_the_old_root_goes_through_all_sets_and_gets_the_crls() -> None:
    told = judge(anchor_bundle.read(anchor_bundle.write(whole())), anchors=ROOTS, known=None, numbers={}, now=NOW)
    assert [found.seq for _, found in told.steps] == [1, 2]
    assert set(told.anchors) == {OLD.root.certificate, NEW.root.certificate}
    assert {number for number, _ in told.crls.values()} == {7}


def test_the_same_set_twice_is_one() -> None:
    told = judge(whole(sets=(*whole().sets, *whole().sets)), anchors=ROOTS, known=None, numbers={}, now=NOW)
    assert [found.seq for _, found in told.steps] == [1, 2]
    assert told.last == second()


def test_the_same_bundle_again_says_nothing_new() -> None:
    last = whole().sets[1]
    told = judge(whole(), anchors=(NEW.root.certificate,), known=(last, second()), numbers={}, now=NOW)
    assert told.steps == ()


@pytest.mark.parametrize(
    ("what", "bundle", "last", "numbers", "code"),
    [
        ("signed by a stranger", whole(sets=(signed(first(), OTHER),)), None, {}, "pins-not-signed"),
        ("the second set alone", whole(sets=(signed(second(), NEW),)), None, {}, "pins-not-signed"),
        ("an older one than is known", whole(), known(second(seq=3), NEW), {}, "pins-rolled-back"),
        ("another one of the same number", whole(), known(second(retire_after=NOW), NEW), {}, "pins-forked"),
        ("newer ones, and another one of the number that is known", whole(), known(first(retire_after=NOW), OLD), {}, "pins-forked"),
        (
            "two of one number, the second with a later end",
            whole(sets=(*whole().sets, unsigned(second(expires=None)))),
            None,
            {},
            "pins-forked",
        ),
        (
            "one that is over, beside one of its number that nobody signed",
            whole(sets=(signed(first(expires=NOW), OLD), unsigned(first(expires=NOW + DAY)))),
            None,
            {},
            "pins-forked",
        ),
        ("one that is over", whole(sets=(signed(first(expires=NOW), OLD),)), None, {}, "pins-expired"),
        ("one that does not count yet", whole(sets=(signed(first(not_before=NOW + 9), OLD),)), None, {}, "pins-too-early"),
        (
            "another deployment's",
            whole(sets=(signed(second(deployment="x"), NEW),)),
            known(first(), OLD),
            {},
            "pins-for-another-deployment",
        ),
        ("no set in it", whole(sets=()), None, {}, "bad-bundle"),
        ("a CA of nobody", whole(certificates=(OTHER.issuing.certificate,)), None, {}, "bundle-stranger"),
        ("a certificate that is none", whole(certificates=(b"x",)), None, {}, "bad-bundle"),
        ("a CRL of nobody", whole(crls=(crl(OTHER),)), None, {}, "bundle-stranger"),
        ("a CRL without its CA", whole(certificates=()), None, {}, "bundle-stranger"),
        ("a CRL that is over", whole(crls=(crl(NEW, ends=NOW),)), None, {}, "crl-expired"),
        ("a CRL that is none", whole(crls=(b"x",)), None, {}, "bad-bundle"),
        ("an older CRL", whole(), None, {NEW.issuing.key_identifier: 8}, "crl-rolled-back"),
    ],
)
def test_a_bundle_does_not_count(what: str, bundle: Bundle, last: Any, numbers: dict[bytes, int], code: str) -> None:
    with pytest.raises(FleetcaError) as told:
        judge(bundle, anchors=ROOTS, known=last, numbers=numbers, now=NOW)
    assert told.value.code == code, what


@pytest.mark.parametrize("changed", [{"next": (pin(OLD),)}, {"next": ()}])
def test_no_set_without_a_backup_is_written(changed: dict[str, Any]) -> None:
    with pytest.raises(Malformed) as told:
        signed(first(**changed), OLD)
    assert told.value.code == "pins-without-backup"


@pytest.mark.parametrize(
    ("expires", "code"), [(None, "pins-endless"), (NOW - 60, "bad-pins")], ids=["no end", "an end before its beginning"]
)
def test_what_has_no_end_or_ends_before_it_begins_is_not_exported(expires: int | None, code: str) -> None:
    with pytest.raises((Unacceptable, Malformed)) as told:
        anchor_bundle.to_export((signed(first(expires=expires), OLD),), certificates=(), crls=(), now=NOW)
    assert told.value.code == code


def test_what_stands_below_no_root_of_the_last_set_is_left_out() -> None:
    made, last = anchor_bundle.to_export(
        whole().sets, certificates=(OLD.issuing.certificate, NEW.issuing.certificate), crls=(crl(OLD), crl(NEW)), now=NOW
    )
    assert (last.seq, made.certificates, len(made.crls)) == (2, (NEW.issuing.certificate,), 1)


def _edited(change: Callable[[dict[str, Any]], None]) -> bytes:
    document = json.loads(anchor_bundle.write(whole()))
    change(document)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 5000,
        _edited(lambda document: document.update(format="something")),
        _edited(lambda document: document.update(more=1)),
        _edited(lambda document: document.pop("crls")),
        _edited(lambda document: document.update(crls="x")),
        _edited(lambda document: document.update(crls=["!"])),
        _edited(lambda document: document.update(sets={})),
        _edited(lambda document: document["sets"][0].pop("spki")),
        _edited(lambda document: document.update(sets=document["sets"] * 40)),
    ],
)
def test_what_is_no_bundle_is_said_to_be_none(octets: bytes) -> None:
    with pytest.raises(Malformed) as told:
        anchor_bundle.read(octets)
    assert told.value.code in {"bad-bundle", "bad-pins"}


# ---- The agent, and the commands ---------------------------------------------------------------------------------------------


def device(folder: Path) -> Identity:
    identity = Identity(folder, SystemChance())
    identity.set_up(Setup("https://nowhere.invalid", plain=True), trust=pem.pem(pem.CERTIFICATE, OLD.root.certificate).encode())
    return identity


def test_an_agent_takes_it_over_once_and_never_goes_back(tmp_path: Path) -> None:
    identity = device(tmp_path / "device")
    assert len(trust.take(identity, whole(), numbers={}, now=NOW).steps) == 2
    after = identity.trust.read_bytes()
    assert NEW.root.certificate in pem.ders_of(after, pem.CERTIFICATE)
    assert trust.take(identity, whole(), numbers={}, now=NOW).steps == ()
    for bad in (whole(sets=(signed(first(), OLD),)), whole(crls=(crl(OTHER),)), whole(sets=(*whole().sets, signed(second(seq=3), OTHER)))):
        with pytest.raises(FleetcaError):
            trust.take(identity, bad, numbers={}, now=NOW)
        assert identity.trust.read_bytes() == after


def test_one_bad_set_in_a_bundle_leaves_a_device_as_it_was(tmp_path: Path) -> None:
    identity = device(tmp_path / "device")
    before = identity.trust.read_bytes()
    with pytest.raises(FleetcaError):
        trust.take(identity, whole(sets=(signed(first(), OLD), signed(second(), OTHER))), numbers={}, now=NOW)
    assert identity.trust.read_bytes() == before
    assert trust.known(identity) is None


def test_from_a_deployment_to_a_device_with_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    office = Office(tmp_path / "fleet", devices=0)
    root = office.settings.issuer("root").certificate
    (tmp_path / "passphrase").write_bytes(PASSPHRASE)
    (tmp_path / "passphrase").chmod(0o600)
    (key,) = office.made.outputs.glob("root.key")
    assert run("pins", "export", "--out", tmp_path / "none.json", "--settings", office.made.settings) == 3
    sign = ["ceremony", "pins", "--deployment", "fleet", "--key", key, "--passphrase-file", tmp_path / "passphrase", "--current", root]
    assert run(*sign, "--next", BACKUP.hex(), "--out", office.settings.enroll.pins) == 0
    bundle = tmp_path / "bundle.json"
    assert run("pins", "export", "--out", bundle, "--settings", office.made.settings) == 0
    assert run("pins", "export", "--out", bundle, "--settings", office.made.settings) == 4
    identity = Identity(tmp_path / "device", SystemChance())
    identity.set_up(Setup("https://nowhere.invalid", plain=True), trust=root.read_bytes())
    assert run("pins", "verify", bundle, "--trust", root) == 0
    capsys.readouterr()
    assert run("pins", "apply", bundle, "--dir", tmp_path / "device", "--crls", tmp_path / "crls", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["seq"], told["new"], len(told["crls"])) == (1, [1], 2)
    assert len(list((tmp_path / "crls").glob("*.crl"))) == 2
    assert run("pins", "apply", bundle, "--dir", tmp_path / "device", "--crls", tmp_path / "crls") == 0
    damaged = json.loads(bundle.read_text())
    payload = base64.b64decode(damaged["sets"][0]["payload"]).replace(b'"seq":1', b'"seq":2')
    damaged["sets"][0]["payload"] = base64.b64encode(payload).decode()
    (tmp_path / "damaged.json").write_text(json.dumps(damaged))
    assert run("pins", "apply", tmp_path / "damaged.json", "--dir", tmp_path / "device") == 5
    assert run("pins", "apply", bundle, "--dir", tmp_path) == 3
