"""A responder key that rests on a PKCS#11 token: one process signs ahead with it, and those that answer hold no key at all (P3, P5, P7)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp

from tests import softhsm
from tests.running import Apart, Device, apart, ask, eventually, make_deployment, ocsp_status, ocsp_word
from tests.softhsm import PIN, SoftHsm

LABEL = "status"


@pytest.fixture(scope="module")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftHsm]:
    made = softhsm.make(tmp_path_factory.mktemp("softhsm"))
    made.add(LABEL)
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(made.configuration)
    yield made
    if before is None:
        del os.environ["SOFTHSM2_CONF"]
    else:
        os.environ["SOFTHSM2_CONF"] = before


@pytest.fixture(scope="module")
def fleet(hsm: SoftHsm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    folder = tmp_path_factory.mktemp("status-token")
    file = make_deployment(folder / "here")
    pin = file.parent / "secrets/token.pin"
    pin.write_text(PIN)
    pin.chmod(0o600)
    key = f"pkcs11:token={LABEL};object=responder?module-path={hsm.module}"
    content = file.read_text()
    assert "[ocsp]\n" in content
    file.write_text(content.replace("[ocsp]\n", f'[ocsp]\nresponder_key = "{key}"\nresponder_passphrase = "file:secrets/token.pin"\n'))
    with apart(file, logs=folder / "logs", roles=("signer", "enroll", "presigner", "status")) as running:
        yield running
        assert running.kill("presigner", 15) == 0


def request(fleet: Apart, serial: int, hash_: hashes.HashAlgorithm, *, nonce: bytes = b"") -> bytes:
    issuer = x509.load_pem_x509_certificate(fleet.issuing.read_bytes())
    point = issuer.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def digest(octets: bytes) -> bytes:
        hashed = hashes.Hash(hash_)
        hashed.update(octets)
        return hashed.finalize()

    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(digest(issuer.subject.public_bytes()), digest(point), serial, hash_)
    if nonce:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(Encoding.DER)


def told(fleet: Apart, octets: bytes) -> ocsp.OCSPResponse:
    reply = ask(fleet.ocsp_url, body=octets, kind="application/ocsp-request")
    assert reply.status == 200
    return ocsp.load_der_ocsp_response(reply.body)


@pytest.mark.req("REQ-KEY-010")
def test_status_is_signed_by_the_key_on_the_token_and_by_no_other(fleet: Apart, hsm: SoftHsm) -> None:
    certificate = fleet.enrol(fleet.token("token-1"), Device()).certificate
    # Delivered, and never unknown: until it is signed ahead it is "later".
    assert ocsp_status(fleet.ocsp_url, certificate, fleet.issuing) in {"try_later", "good"}
    eventually(lambda: ocsp_status(fleet.ocsp_url, certificate, fleet.issuing) == "good")
    issuer = x509.load_pem_x509_certificate(fleet.issuing.read_bytes())
    delegates = set()
    for hash_ in (hashes.SHA1(), hashes.SHA256()):
        answer = told(fleet, request(fleet, certificate.serial_number, hash_, nonce=b"n" * 32))
        assert answer.certificate_status is ocsp.OCSPCertStatus.GOOD
        assert not [one for one in answer.extensions if isinstance(one.value, x509.OCSPNonce)], "RFC 9654 2.1: left out"
        (delegate,) = answer.certificates
        delegate.verify_directly_issued_by(issuer)
        key = delegate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert answer.signature_hash_algorithm is not None
        key.verify(answer.signature, answer.tbs_response_bytes, ec.ECDSA(answer.signature_hash_algorithm))
        delegates.add(key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint).hex())
    (point,) = delegates
    assert point in hsm.inspect(LABEL, "--list-objects", "--type", "pubkey").replace(" ", "")
    assert "never extractable" in hsm.inspect(LABEL, "--list-objects", "--type", "privkey")
    health = ask(f"{fleet.settings.status.url}/healthz").json
    assert (health["status"], health["responders"], health["missing"]) == ("ok", [], []), "no key in the status process"


@pytest.mark.req("REQ-KEY-097")
def test_the_inventory_knows_the_key_on_the_token_and_finds_one_beside_it(fleet: Apart, hsm: SoftHsm) -> None:
    def checked() -> list[dict[str, str]]:
        said = json.loads(fleet.cli("keys", "check").stdout)
        assert said["not_asked"] == []
        assert any("SoftHSM" in each for each in said["stores"])
        found: list[dict[str, str]] = said["findings"]
        return found

    eventually(lambda: not checked())  # until it is certified
    listed = {each["purpose"]: each for each in json.loads(fleet.cli("keys", "list").stdout)["keys"]}
    assert (listed["responder"]["name"], listed["responder"]["store"], listed["responder"]["protection"]) == (
        "responder",
        "pkcs11",
        "module",
    )
    hsm.inspect(LABEL, "--keypairgen", "--key-type", "EC:prime256v1", "--label", "stray", "--id", "77")
    try:
        assert [each["key"] for each in checked()] == ["stray"]
    finally:
        for kind in ("privkey", "pubkey"):
            hsm.inspect(LABEL, "--delete-object", "--type", kind, "--label", "stray")


def test_P5_what_was_never_issued_is_unauthorized_and_a_revocation_shows(fleet: Apart, tmp_path: Path) -> None:
    assert told(fleet, request(fleet, 77, hashes.SHA256())).response_status is ocsp.OCSPResponseStatus.UNAUTHORIZED, "RFC 9919 3.2.3"
    certificate = fleet.enrol(fleet.token("token-2"), Device()).certificate
    eventually(lambda: ocsp_status(fleet.ocsp_url, certificate, fleet.issuing) == "good")
    (tmp_path / "one.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    assert fleet.cli("revoke", "--certificate", tmp_path / "one.pem", "--reason", "keyCompromise").returncode == 0
    eventually(lambda: ocsp_status(fleet.ocsp_url, certificate, fleet.issuing) == "revoked")


def test_P7_with_the_token_out_and_the_presigner_gone_what_was_signed_goes_on_over_a_restart(fleet: Apart, hsm: SoftHsm) -> None:
    certificate = fleet.enrol(fleet.token("token-3"), Device()).certificate
    eventually(lambda: ocsp_status(fleet.ocsp_url, certificate, fleet.issuing) == "good")
    hsm.pull_out()
    try:
        fleet.kill("presigner")
        fleet.kill("status")
        fleet.start("status")
        assert ocsp_status(fleet.ocsp_url, certificate, fleet.issuing) == "good"
    finally:
        hsm.put_back()
    fleet.start("presigner")
    later = fleet.enrol(fleet.token("token-4"), Device()).certificate
    eventually(lambda: ocsp_word(told_octets(fleet, later)) == "good")
    keys = hsm.inspect(LABEL, "--list-objects", "--type", "privkey")
    assert keys.count("Private Key Object") == 1, "the same key goes on"


def told_octets(fleet: Apart, certificate: x509.Certificate) -> bytes:
    return ask(fleet.ocsp_url, body=request(fleet, certificate.serial_number, hashes.SHA256()), kind="application/ocsp-request").body
