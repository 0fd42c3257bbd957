"""A maker's manifest of secure elements: good entries become devices that enrol by their key, bad ones are put aside by name, and neither stops the other."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ca.der import pem
from ca.errors import Conflict, Denied, FleetcaError, Malformed
from ca.model import (
    AttestationKind,
    DeviceId,
    DeviceState,
    Digest,
    IssueRequest,
    KnownHardware,
    ManifestImport,
    ManifestOutcome,
    ProfileName,
    Role,
    RootOfTrust,
    TokenEvidence,
)
from ca.rules.attestation.manifest import LARGEST_ENTRY, entries, read_entry, read_signer
from ca.rules.caps import Attesting
from ca.system import SystemClock
from fleetca.forms import shipped_profiles
from tests.databases import sqlite_url
from tests.fakes.certificates import root
from tests.fakes.manifest import ElementMaker, b64, jwk_of
from tests.fakes.signer_world import Keypair, SetClock, World, changed
from tests.flows.test_commands import SETTINGS, Run, run

__all__ = ["run"]  # a fixture

LISTED = ProfileName("listed")
MAKER = ElementMaker()
OTHER = ElementMaker()
SIGNER = read_signer(MAKER.certificate)
KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
SECOND = ec.generate_private_key(ec.SECP256R1()).public_key()
SERIAL = "0123f1822c38dd7a01"


@pytest.fixture
def made_with() -> dict[str, Any]:
    plain = shipped_profiles()[ProfileName("device")]
    profiles = {LISTED: changed(plain, name=LISTED, attestation=(AttestationKind.se,), roots_of_trust=(RootOfTrust.se,))}
    return {"profiles": profiles, "attesting": Attesting(profiles=(LISTED,))}


def take(world: World, *found: dict[str, Any] | str, manifest: bytes = b"\1" * 32, first: int = 1) -> list[ManifestOutcome]:
    texts = tuple(one if isinstance(one, str) else json.dumps(one) for one in found)
    asked = ManifestImport(Digest(manifest), MAKER.certificate, "se:", first, texts)
    return list(world.manifests.take(asked, world.peer(Role.operator)))


def states(told: list[ManifestOutcome]) -> list[tuple[str, str]]:
    return [(one.state, one.code) for one in told]


# ---- One entry ----------------------------------------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-045")
def test_a_good_entry_is_read_and_another_reader_of_JWS_agrees() -> None:
    from josepy import jwk, jws

    entry = MAKER.entry(SERIAL, KEY, SECOND)
    element = read_entry(json.dumps(entry), SIGNER)
    assert (element.unique_id, element.model, len(element.keys)) == (SERIAL, "ATECC608B", 2)
    compact = ".".join((entry["protected"], entry["payload"], entry["signature"])).encode()
    assert jws.JWS.from_compact(compact).verify(jwk.JWKEC(key=MAKER.key.public_key()))


def _short_key() -> ec.EllipticCurvePublicKey:
    """One whose x begins with a zero octet: every 256th."""
    return next(
        key
        for key in (ec.derive_private_key(1000 + at, ec.SECP256R1()).public_key() for at in range(10_000))
        if not key.public_numbers().x >> 248
    )


def _digest(key: Any) -> bytes:
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


@pytest.mark.req("REQ-KEY-045")
def test_a_key_is_the_same_however_its_maker_spells_it() -> None:
    """The maker's design tool drops leading zeros and writes certificates in base64url without padding."""
    key = _short_key()
    x = key.public_numbers().x
    url = b64(MAKER.certificate)
    standard = base64.b64encode(MAKER.certificate).decode()
    own = MAKER.key.public_key()
    for jwks, keys in (
        ([jwk_of(key), jwk_of(own, x5c=[standard])], [key, own]),
        ([{**jwk_of(key), "x": b64(x.to_bytes(31, "big"))}, jwk_of(own, x5c=[url])], [key, own]),
    ):
        element = read_entry(json.dumps(MAKER.entry(SERIAL, **_keys(*jwks))), SIGNER)
        assert element.keys == tuple(map(_digest, keys))


@pytest.mark.req("REQ-KEY-045")
def test_an_element_may_have_keys_of_every_kind_that_devices_may_have() -> None:
    edwards, large = ed25519.Ed25519PrivateKey.generate().public_key(), rsa.generate_private_key(65537, 3072).public_key()
    numbers = large.public_numbers()
    entry = MAKER.entry(
        SERIAL,
        **_keys(
            {"kid": "0", "kty": "OKP", "crv": "Ed25519", "x": b64(edwards.public_bytes(Encoding.Raw, PublicFormat.Raw))},
            {"kid": "1", "kty": "RSA", "e": b64(numbers.e.to_bytes(3, "big")), "n": b64(numbers.n.to_bytes(384, "big"))},
            jwk_of(ec.derive_private_key(77, ec.SECP384R1()).public_key()),
        ),
    )
    assert read_entry(json.dumps(entry), SIGNER).keys[:2] == (_digest(edwards), _digest(large))


def test_of_a_lite_manifest_it_is_said_what_it_lacks() -> None:
    with pytest.raises(FleetcaError) as caught:
        read_entry(with_(payload={"version": 2, "publicKeySet": None})(), SIGNER)
    assert "lite" in caught.value.why


def _certificate_of_another() -> str:
    return base64.b64encode(OTHER.certificate).decode()


def _weak_point() -> dict[str, Any]:
    jwk = jwk_of(KEY)
    return {**jwk, "y": jwk["x"]}


def _key_one() -> Any:
    return ec.derive_private_key(1, ec.SECP256R1()).public_key()


def _keys(*jwks: Any) -> dict[str, Any]:
    return {"payload": {"publicKeySet": {"keys": list(jwks)}}}


def with_(**changes: Any) -> Callable[[], str]:
    return lambda: json.dumps(MAKER.entry(SERIAL, KEY, **changes))


def broken(**members: Any) -> Callable[[], str]:
    def made() -> str:
        entry = {**MAKER.entry(SERIAL, KEY), **members}
        return json.dumps({name: value for name, value in entry.items() if value is not None})

    return made


def flipped(part: str) -> Callable[[], str]:
    def made() -> str:
        entry = MAKER.entry(SERIAL, KEY)
        text = entry[part]
        return json.dumps({**entry, part: ("B" if text[0] == "A" else "A") + text[1:]})

    return made


BAD: list[Any] = [
    pytest.param(lambda: "7", "manifest-entry", id="a number"),
    pytest.param(lambda: "{", "manifest-entry", id="half an object"),
    pytest.param(lambda: "[" * 100000, "manifest-entry-too-large", id="brackets without end"),
    pytest.param(lambda: "[" * 5000, "manifest-entry", id="brackets in brackets"),
    pytest.param(lambda: json.dumps(MAKER.entry(SERIAL, KEY))[:-1] + ', "payload": "AA"}', "manifest-entry", id="a member twice"),
    pytest.param(broken(signature=None), "manifest-entry", id="no signature"),
    pytest.param(broken(signature=5), "manifest-entry", id="a number in place of the signature"),
    pytest.param(broken(more="x"), "manifest-entry", id="a member that nobody knows"),
    pytest.param(broken(payload="AA=="), "manifest-entry", id="padded base64"),
    pytest.param(broken(payload="A+A/"), "manifest-entry", id="another alphabet of base64"),
    pytest.param(broken(protected=b64(b"\xff")), "manifest-entry", id="a header that is no text"),
    pytest.param(broken(signature=b64(bytes(64))), "manifest-signature", id="a signature of zeros"),
    pytest.param(broken(signature=b64(b"\x30\x06\x02\x01\x01\x02\x01\x01")), "manifest-signature", id="a signature in DER"),
    pytest.param(lambda: json.dumps(MAKER.entry(SERIAL, KEY, signer=OTHER.key)), "manifest-signature", id="another key's signature"),
    pytest.param(
        lambda: json.dumps({**MAKER.entry(SERIAL, KEY), "payload": MAKER.entry(SERIAL, SECOND)["payload"]}),
        "manifest-signature", id="the payload of another entry",
    ),
    pytest.param(with_(protected={"alg": "none"}), "manifest-algorithm", id="no algorithm"),
    pytest.param(with_(protected={"alg": "HS256"}), "manifest-algorithm", id="a MAC under the public key"),
    pytest.param(with_(protected={"alg": None}), "manifest-algorithm", id="no word of the algorithm"),
    pytest.param(with_(protected={"crit": ["exp"]}), "manifest-algorithm", id="a critical header"),
    pytest.param(with_(protected={"b64": False}), "manifest-algorithm", id="a payload that is not encoded"),
    pytest.param(lambda: json.dumps(OTHER.entry(SERIAL, KEY)), "manifest-other-signer", id="another maker's entry"),
    pytest.param(with_(protected={"x5t#S256": b64(bytes(32))}), "manifest-other-signer", id="another certificate named"),
    pytest.param(with_(outside="ffffffffffffffff01"), "manifest-unique-id", id="another serial number outside of the signature"),
    pytest.param(with_(payload={"uniqueId": "pump-17"}, outside="pump-17"), "manifest-unique-id", id="a serial number that is a word"),
    pytest.param(with_(payload={"uniqueId": None}), "manifest-unique-id", id="no serial number"),
    pytest.param(with_(payload={"provisioningTimestamp": "2020-01-01T00:00:00Z"}), "manifest-out-of-time", id="made before its signer was"),
    pytest.param(with_(payload={"provisioningTimestamp": "soon"}), "manifest-entry", id="a time that is none"),
    pytest.param(with_(**_keys()), "manifest-key", id="no key"),
    pytest.param(with_(payload={"publicKeySet": None}), "manifest-key", id="no set of keys"),
    pytest.param(with_(**_keys(*[jwk_of(KEY)] * 17)), "manifest-key", id="more keys than there are slots"),
    pytest.param(with_(**_keys("key")), "manifest-key", id="a word in place of a key"),
    pytest.param(with_(**_keys(jwk_of(KEY, kty="RSA"))), "key-type", id="an RSA key on a curve"),
    pytest.param(with_(**_keys({"kty": "RSA"})), "manifest-entry", id="an RSA key without numbers"),
    pytest.param(with_(**_keys({"kty": "RSA", "e": "AQAB", "n": b64(bytes(600))})), "manifest-key", id="an RSA key of 4800 bits"),
    pytest.param(with_(**_keys({"kty": "RSA", "e": "AQAB", "n": b64(b"\xc1" * 128)})), "weak-key", id="an RSA key of 1024 bits"),
    pytest.param(with_(**_keys({"kty": "RSA", "e": "AA", "n": b64(b"\xc1" * 384)})), "weak-key", id="an RSA key with no exponent"),
    pytest.param(with_(**_keys({"kty": "OKP", "crv": "X25519", "x": b64(bytes(32))})), "key-type", id="a key that signs nothing"),
    pytest.param(with_(**_keys({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"})), "weak-key", id="half an Ed25519 key"),
    pytest.param(with_(**_keys(jwk_of(KEY, d="AAAA"))), "manifest-key", id="a private key"),
    pytest.param(with_(**_keys({**jwk_of(KEY), "x": "AAAA"})), "weak-key", id="half a coordinate"),
    pytest.param(with_(**_keys({**jwk_of(KEY), "x": b64(bytes(33))})), "manifest-key", id="a coordinate that is too long"),
    pytest.param(with_(**_keys(jwk_of(KEY, x5c=["AAAA"]))), "manifest-key", id="a certificate that is none"),
    pytest.param(with_(**_keys(jwk_of(KEY, x5c=[_certificate_of_another()]))), "manifest-key", id="another key's certificate"),
    pytest.param(with_(**_keys(_weak_point())), "weak-key", id="a point that is on no curve"),
    pytest.param(with_(**_keys(jwk_of(ec.generate_private_key(ec.SECP521R1()).public_key()))), "key-type", id="a curve that is not accepted"),
    pytest.param(with_(**_keys(jwk_of(_key_one()))), "known-key", id="a key that everybody has"),
    pytest.param(with_(**_keys(jwk_of(KEY), jwk_of(KEY, kid="1"))), "manifest-key-twice", id="a key twice"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "code"), BAD)
@pytest.mark.req("REQ-KEY-045")
def test_a_bad_entry_is_refused_by_name(text: Callable[[], str], code: str) -> None:
    with pytest.raises(FleetcaError) as caught:
        read_entry(text(), SIGNER)
    assert caught.value.code == code


@pytest.mark.parametrize("part", ["protected", "payload", "signature"])
def test_whatever_octet_of_an_entry_was_changed_it_is_refused(part: str) -> None:
    with pytest.raises(FleetcaError):
        read_entry(flipped(part)(), SIGNER)


NO_MANIFESTS: list[Any] = [
    pytest.param("", id="nothing"),
    pytest.param("{}", id="an object"),
    pytest.param("[", id="an array that does not end"),
    pytest.param("[{}", id="an array that ends after an entry"),
    pytest.param("[{},", id="an array that ends after a comma"),
    pytest.param("[{}] x", id="more behind the array"),
    pytest.param("[{} {}]", id="no comma"),
    pytest.param("[{},]", id="a comma too many"),
    pytest.param('[{"a": nil}]', id="no JSON inside"),
]


@pytest.mark.parametrize("text", NO_MANIFESTS)
def test_of_a_file_that_is_no_manifest_nothing_is_taken(text: str) -> None:
    with pytest.raises(Malformed) as caught:
        list(entries(text))
    assert caught.value.code == "manifest-unreadable"


def test_entries_are_taken_apart_as_they_stand() -> None:
    assert list(entries(' [ {"a": [1, "]"]} ,\n 7 , "x" ] \n')) == ['{"a": [1, "]"]}', "7", '"x"']
    assert list(entries("[]")) == []


NO_SIGNERS: list[Any] = [
    pytest.param(lambda: b"", id="nothing"),
    pytest.param(lambda: ElementMaker(curve=ec.SECP384R1()).certificate, id="a key that ES256 does not take"),
    pytest.param(lambda: root().certificate[:-1], id="half a certificate"),
]


@pytest.mark.parametrize("der", NO_SIGNERS)
def test_a_certificate_that_signs_no_manifests_is_refused(der: Callable[[], bytes]) -> None:
    with pytest.raises(Malformed) as caught:
        read_signer(der())
    assert caught.value.code == "manifest-signer"


# ---- On the record ------------------------------------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-045", "REQ-KEY-056")
def test_a_listed_element_enrols_by_its_key_and_by_no_other(world: World) -> None:
    pair, spare = Keypair(), Keypair()
    told = take(world, MAKER.entry(SERIAL, pair.private.public_key(), spare.private.public_key()))
    assert [(one.state, one.words) for one in told] == [("recorded", f"se:{SERIAL}")]
    name = DeviceId(f"se:{SERIAL}")
    device, facts = world.store.reading.find_device(name), world.store.reading.device_facts(name)
    assert device is not None
    assert facts is not None
    assert (device.state, facts.root_of_trust, len(facts.anchors)) == (DeviceState.provisioned, RootOfTrust.se, 2)
    made = world.issue(IssueRequest(pair.csr(), KnownHardware()))
    assert (made.certificate.device, made.certificate.profile) == (name, LISTED)
    (judged,) = world.store.reading.judged_keys(name, limit=5)
    assert judged.verdict is not None
    assert judged.verdict.rule == "se-listed"
    assert "is one that manifest 01010101" in judged.verdict.words
    with pytest.raises(FleetcaError) as caught:
        world.issue(IssueRequest(Keypair().csr(), KnownHardware()))
    assert caught.value.code == "hardware-unknown"
    with pytest.raises(Denied) as denied:
        world.issue(IssueRequest(Keypair().csr(), TokenEvidence(world.token(name, "listed").text)))
    assert denied.value.code == "attestation-needed"
    assert "is none of those that the secure element's maker listed" in denied.value.why


@pytest.mark.req("REQ-KEY-045")
def test_P9_a_serial_and_a_key_are_of_one_device(world: World) -> None:
    taken = Keypair()
    world.enrol("pump-1", pair=taken)
    world.enrol("se:" + "ab" * 9)
    first, again = MAKER.entry(SERIAL, KEY), MAKER.entry(SERIAL, SECOND)
    told = take(
        world,
        first,
        again,
        MAKER.entry("11" * 9, KEY),
        MAKER.entry("22" * 9, taken.private.public_key()),
        MAKER.entry("ab" * 9, SECOND),
        first,
        MAKER.entry("33" * 9, SECOND),
    )
    assert states(told) == [
        ("recorded", ""),
        ("refused", "manifest-serial-twice"),
        ("refused", "hardware-of-another-device"),
        ("refused", "hardware-of-another-device"),
        ("refused", "serial-on-record"),
        ("refused", "manifest-serial-twice"),
        ("recorded", ""),
    ]
    assert world.store.reading.find_device(DeviceId("se:" + "11" * 9)) is None, "what was refused leaves nothing"
    assert states(take(world, again, manifest=b"\2" * 32)) == [("refused", "serial-on-record")]
    assert states(take(world, first, manifest=b"\2" * 32)) == [("known", "")], "a manifest that was issued anew"


def test_a_run_that_is_repeated_changes_nothing_and_notes_nothing_twice(world: World) -> None:
    found: list[dict[str, Any] | str] = [MAKER.entry(SERIAL, KEY), "7", MAKER.entry("11" * 9, SECOND)]
    first = take(world, *found)
    leaves = len(world.leaves())
    assert states(take(world, *found)) == [("known", ""), ("refused", "manifest-entry"), ("known", "")]
    assert len(world.leaves()) == leaves
    refused = world.leaves("manifest-refused")
    assert [(one["number"], one["code"]) for one in refused] == [(2, "manifest-entry")]
    assert states(first) == [("recorded", ""), ("refused", "manifest-entry"), ("recorded", "")]


def test_what_was_taken_is_found_again_after_the_database_was_lost(world: World, tmp_path: Path) -> None:
    pair = Keypair()
    take(world, MAKER.entry(SERIAL, pair.private.public_key()))
    world.store.close()
    for file in tmp_path.glob("*.db*"):
        file.unlink()
    sqlite_url(tmp_path)
    world.restart()
    world.recovery.recover()
    assert world.issue(IssueRequest(pair.csr(), KnownHardware())).certificate.device == f"se:{SERIAL}"
    world.clock.at += 1
    with pytest.raises(Conflict):
        world.enrol("thief", pair=pair)


def test_only_an_operator_at_the_machine_brings_manifests(world: World) -> None:
    asked = ManifestImport(Digest(bytes(32)), MAKER.certificate, "se:", 1, ())
    for role in set(Role) - {Role.operator}:
        with pytest.raises(Denied):
            world.manifests.take(asked, world.peer(role))
    with pytest.raises(Malformed):
        world.manifests.take(ManifestImport(Digest(bytes(32)), MAKER.certificate, "fleetca:", 1, ()), world.peer(Role.operator))


# ---- The command --------------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path, made_with: dict[str, Any]) -> Iterator[World]:
    (tmp_path / "fleetca.toml").write_text(SETTINGS)
    made = World(tmp_path, sqlite_url(tmp_path), **made_with, clock=SetClock(SystemClock().now()))
    server = made.server(tmp_path / "signer.sock", users={os.getuid(): frozenset(Role)})
    server.start()
    yield made
    server.stop()
    made.close()


@pytest.mark.req("REQ-KEY-045")
def test_the_command_takes_what_is_good_and_puts_aside_what_is_not(desk: World, run: Run, tmp_path: Path) -> None:
    pairs = [Keypair() for _ in range(3)]
    good = [MAKER.entry(f"{number:018x}", pair.private.public_key()) for number, pair in enumerate(pairs, 1)]
    forged = MAKER.entry("ff" * 9, KEY, signer=OTHER.key)
    long = json.dumps({"header": {"uniqueId": "ee" * 9}, "payload": "A" * LARGEST_ENTRY})
    text = "[" + ",\n".join([*map(json.dumps, good), json.dumps(forged), long]) + "]"
    (tmp_path / "manifest.json").write_text(text)
    (tmp_path / "signer.pem").write_text(pem.pem(pem.CERTIFICATE, MAKER.certificate))
    command = ("devices", "import-manifest", "manifest.json", "--signer", "signer.pem", "--json")
    ran = run(*command)
    assert (ran.code, ran.json["entries"], ran.json["recorded"], ran.json["known"], ran.json["quarantined"]) == (8, 5, 3, 0, 2), ran.err
    assert [(one["number"], one["code"]) for one in ran.json["refused"]] == [(4, "manifest-signature"), (5, "manifest-entry-too-large")]
    aside = json.loads((tmp_path / "manifest.json.quarantine.json").read_text())
    assert [(one["number"], one["unique_id"], one["entry"]) for one in aside] == [(4, "ff" * 9, json.dumps(forged)), (5, "", long)]
    again = run(*command)
    assert (again.code, again.json["recorded"], again.json["known"]) == (8, 0, 3)
    shown = run("devices", "show", f"se:{1:018x}", "--json").json
    assert (shown["state"], shown["root_of_trust"], shown["anchors"][0]["kind"]) == ("provisioned", "se", "se")
    desk.issue(IssueRequest(pairs[0].csr(), KnownHardware()))
    told = run("devices", "explain", f"se:{1:018x}")
    assert "se-listed: Key sha256:" in told.out
    assert run("devices", "explain", f"se:{1:018x}", "--json").json["certificates"][0]["attestation"]["rule"] == "se-listed"
    assert "se-listed" in run("devices", "show", f"se:{1:018x}").out
    (tmp_path / "manifest.json").write_text(text[:-1])
    cut = run(*command)
    assert (cut.code, cut.json["error"]["code"]) == (2, "manifest-unreadable")
    (tmp_path / "all-good.json").write_text(json.dumps(good))
    assert run("devices", "import-manifest", "all-good.json", "--signer", "signer.pem").code == 0


def test_a_long_manifest_goes_in_parts_and_its_entries_keep_their_numbers(desk: World, run: Run, tmp_path: Path) -> None:
    keys = [ec.generate_private_key(ec.SECP256R1()).public_key() for _ in range(130)]
    found: list[Any] = [MAKER.entry(f"{number:018x}", key) for number, key in enumerate(keys, 1)]
    found[119] = 7
    (tmp_path / "manifest.json").write_text(json.dumps(found))
    (tmp_path / "signer.der").write_bytes(MAKER.certificate)
    ran = run("devices", "import-manifest", "manifest.json", "--signer", "signer.der", "--quarantine", "aside.json", "--json")
    assert (ran.json["recorded"], [one["number"] for one in ran.json["refused"]], ran.json["quarantine"]) == (129, [120], "aside.json")
