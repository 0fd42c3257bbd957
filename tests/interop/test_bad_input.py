"""Everything the world may send to a running deployment, and everything an operator may mistype: each gets a clear error with its fix, nothing
is lost, nothing falls over, and no wish of a CSR is ever honoured."""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from math import prod
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ca.der import writer as W
from ca.keys.memory import make_private_key
from ca.keys.sealed_file import SealedFileKeyStore
from ca.model import AlgorithmName, CertificateQuery, KeyName
from config.settings import Settings
from fleetca import forms
from fleetca.bridge import BODY_LIMIT
from tests.interop.conftest import Demo
from tests.running import (
    Device,
    Reply,
    ask,
    assert_no_traceback,
    base64_of,
    command,
    connection,
    eventually,
    free_ports,
    log_lines,
    move,
    ocsp_request,
    ocsp_status,
    ocsp_word,
    problem,
    text,
    tls,
    token,
)

SHA256 = hashes.SHA256()
P256 = AlgorithmName("p256")


@pytest.fixture(scope="module")
def settings(demo: Demo) -> Settings:
    return forms.read_settings(demo.settings)


@pytest.fixture(scope="module")
def context(demo: Demo) -> ssl.SSLContext:
    return tls(demo.root)


@pytest.fixture(scope="module", autouse=True)
def _nothing_fell_over(demo: Demo) -> Iterator[None]:
    yield
    assert_no_traceback(demo.settings.parent / "logs")
    assert demo.process.poll() is None


def post(demo: Demo, document: Any, *, path: str = "/v1/enroll", context: ssl.SSLContext | None = None, **named: Any) -> Reply:
    return ask(f"{demo.enroll_url}{path}", body=document, context=context or tls(demo.root), **named)


def enrol(demo: Demo, text_of_token: str, csr: bytes, **named: Any) -> Reply:
    return post(demo, {"token": text_of_token, "csr": text(csr)}, **named)


def issued_to(settings: Settings, device: str) -> list[Any]:
    """What is on record of a device."""
    from ca.store.engine import open_store

    store = open_store(forms.store_url(settings), readonly=True)
    rows, _ = store.reading.search_certificates(CertificateQuery(device=device, limit=100))  # type: ignore[arg-type]
    store.close()
    return list(rows)


# ---- CSRs ---------------------------------------------------------------------------------------------------------------


def information(spki: bytes) -> bytes:
    return W.sequence(W.integer(0), W.sequence(), spki, W.tlv(0xA0, b""))


def csr_of(spki: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    asked = information(spki)
    algorithm = W.sequence(W.oid("1.2.840.113549.1.1.11"), W.NULL)
    return W.sequence(asked, algorithm, W.bit_string(sign(asked)))


def rsa_spki(modulus: int, exponent: int) -> bytes:
    algorithm = W.sequence(W.oid("1.2.840.113549.1.1.1"), W.NULL)
    return W.sequence(algorithm, W.bit_string(W.sequence(W.integer(modulus), W.integer(exponent))))


def padded(asked: bytes, octets: int) -> bytes:
    """EMSA-PKCS1-v1_5 (RFC 8017 9.2)."""
    from hashlib import sha256

    algorithm = W.sequence(W.oid("2.16.840.1.101.3.4.2.1"), W.NULL)
    ended = W.sequence(algorithm, W.tlv(0x04, sha256(asked).digest()))
    return b"\0\1" + b"\xff" * (octets - 3 - len(ended)) + b"\0" + ended


def bad_signature() -> bytes:
    csr = Device().csr()
    return csr[:-1] + bytes([csr[-1] ^ 1])


def weak_rsa_1024() -> bytes:
    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([])
    octets: bytes = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, SHA256).public_bytes(Encoding.DER)
    return octets


def exponent_one() -> bytes:
    """With e = 1 the padded digest is its own signature: everybody can make it."""
    modulus = rsa.generate_private_key(65537, 3072).public_key().public_numbers().n
    return csr_of(rsa_spki(modulus, 1), lambda asked: padded(asked, 384))


def roca() -> bytes:
    """Primes as the faulty library made them (CVE-2017-15361), and a signature that holds."""
    small = prod(n for n in range(2, 168) if all(n % d for d in range(2, n)))
    start = (3 << 1534) // small
    p, q = ((start + k) * small + pow(65537, a, small) for a, k in ((783235913, 15060376), (462504318, 5477644)))
    n, d = p * q, pow(65537, -1, (p - 1) * (q - 1))
    return csr_of(rsa_spki(n, 65537), lambda asked: pow(int.from_bytes(padded(asked, 384), "big"), d, n).to_bytes(384, "big"))


def p192() -> bytes:
    """Made by openssl; its signature holds."""
    from base64 import b64decode

    return b64decode(
        "MIGZMFICAQAwADBJMBMGByqGSM49AgEGCCqGSM49AwEBAzIABETadgJ6XJcmB7kJ1w8FgpbryHwIjf4HZ7IGSiSv0XusUhgnOow7IvMYrZl3cPwiqqAAMAoG"
        "CCqGSM49BAMCAzcAMDQCGDiOEl/sF3y7kgQGkl5i3dUHWu6BmgSvNgIYR9XoM8Bn2ZkWb14aWaGKSxaraaeR0vOL"
    )


BAD_CSRS: list[Any] = [
    pytest.param(bad_signature, 422, "bad-signature", id="its signature does not hold"),
    pytest.param(weak_rsa_1024, 422, "weak-key", id="RSA-1024"),
    pytest.param(exponent_one, 422, "weak-key", id="RSA with e = 1"),
    pytest.param(roca, 422, "weak-key", id="RSA of the faulty library (ROCA)"),
    pytest.param(p192, 422, "weak-key", id="P-192"),
    pytest.param(lambda: b"\x30\x03\x02\x01\x00", 400, "bad-csr", id="no CSR at all"),
    pytest.param(lambda: Device().csr() + b"\0", 400, "bad-csr", id="an octet after its end"),
]


@pytest.mark.parametrize(("make", "status", "code"), BAD_CSRS)
def test_R22_a_bad_csr_is_refused_with_the_reason_and_costs_no_token(
    demo: Demo, settings: Settings, make: Callable[[], bytes], status: int, code: str
) -> None:
    given = token(settings, f"csr-{code}")
    csr = make()
    said = problem(enrol(demo, given, csr), status, code)
    assert said["fix"]
    as_der = ask(
        f"{demo.enroll_url}/v1/enroll", body=csr, kind="application/pkcs10", context=tls(demo.root),
        headers={"Authorization": f"Bearer {given}"},
    )  # fmt: skip
    problem(as_der, status, code)
    assert enrol(demo, given, Device().csr()).status == 201


def test_a_csr_gives_its_key_and_nothing_else_is_honoured(demo: Demo, settings: Settings) -> None:
    device = Device()
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "demo Issuing CA"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Root")])
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(True, True, True, True, True, True, True, False, False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.OCSP_SIGNING, ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]
            ),
            critical=False,
        )
        .add_extension(x509.OCSPNoCheck(), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("*.example"), x509.DNSName("localhost")]), critical=False)
        .add_attribute(x509.ObjectIdentifier("1.2.840.113549.1.9.7"), b"hunter2")
        .sign(device.private, SHA256)
        .public_bytes(Encoding.DER)
    )
    plain = enrol(demo, token(settings, "modest"), Device().csr()).certificate
    made = enrol(demo, token(settings, "greedy"), greedy).certificate
    assert made.public_key() == device.private.public_key()
    assert [(one.oid, one.value) for one in made.subject] == [(NameOID.COMMON_NAME, "greedy")]

    def extensions(certificate: x509.Certificate) -> dict[Any, bytes]:
        own = {x509.SubjectKeyIdentifier.oid, x509.SubjectAlternativeName.oid}
        return {one.oid: one.value.public_bytes() for one in certificate.extensions if one.oid not in own}

    assert extensions(made) == extensions(plain)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert not names.get_values_for_type(x509.DNSName)
    constraints = made.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert not constraints.ca
    usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert made.not_valid_after_utc - made.not_valid_before_utc <= timedelta(days=7)


# ---- Bodies -------------------------------------------------------------------------------------------------------------

BODIES: list[Any] = [
    pytest.param(b"[]", 400, "not-an-object", id="a list in place of an object"),
    pytest.param(b'[{"token": "enr_x", "csr": ""}]', 400, "not-an-object", id="an object inside a list"),
    pytest.param(b'"token"', 400, "not-an-object", id="a string"),
    pytest.param(b"null", 400, "not-an-object", id="null"),
    pytest.param(b"", 400, "bad-json", id="nothing"),
    pytest.param(b"{", 400, "bad-json", id="half an object"),
    pytest.param(b"\xff\xfe{}", 400, "bad-encoding", id="another encoding"),
    pytest.param(b"[" * 50000, 400, "bad-json", id="fifty thousand levels"),
    pytest.param(b'{"token": ' + b"9" * 20000 + b"}", 400, None, id="a number of twenty thousand digits"),
    pytest.param(b'{"token": ["enr_x"], "csr": {}}', 400, "bad-field", id="fields of other types"),
    pytest.param(b'{"token": "enr_x", "token": "enr_y", "csr": ""}', 400, "duplicate-field", id="a field twice"),
    pytest.param(b'{"token": "enr_x", "csr": "", "profile": "issuing-ca"}', 400, "unknown-field", id="a field that chooses the profile"),
    pytest.param(b" " * (10 << 20), 413, "body-too-large", id="10 MiB"),
    pytest.param(b"{" + b" " * BODY_LIMIT, 413, "body-too-large", id="an octet over the limit"),
]


@pytest.mark.parametrize(("body", "status", "code"), BODIES)
def test_a_body_that_is_not_the_object_wanted_is_refused(demo: Demo, body: bytes, status: int, code: str | None) -> None:
    reply = post(demo, body)
    problem(reply, status, code or reply.json["code"])


@pytest.mark.parametrize("path", ["/v1/enroll", "/v1/renew", "/v1/confirm", "/v1/revoke", "/v1/tokens", "/v1/certificates"])
def test_a_json_list_in_place_of_an_object_is_refused_everywhere(demo: Demo, path: str) -> None:
    said = problem(post(demo, b"[]", path=path), 400, "not-an-object")
    assert said["fix"]


@pytest.mark.parametrize("kind", ["application/pkcs10", "application/json"])
def test_ten_mebibytes_are_refused_and_the_sender_lives_to_read_it(demo: Demo, kind: str, context: ssl.SSLContext) -> None:
    headers = {"Authorization": "Bearer enr_" + "0" * 49}
    problem(ask(f"{demo.enroll_url}/v1/enroll", body=b"0" * (10 << 20), kind=kind, context=context, headers=headers), 413, "body-too-large")


# ---- Tokens and keys ----------------------------------------------------------------------------------------------------


def at_once(count: int, call: Callable[[int], Reply]) -> list[Reply]:
    """So many calls that begin together."""
    gate = threading.Barrier(count)

    def one(number: int) -> Reply:
        gate.wait(60)
        return call(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_R35_a_token_used_by_two_hundred_at_once_enrols_exactly_one(demo: Demo, settings: Settings) -> None:
    given = token(settings, "contested")
    requests = [Device().csr() for _ in range(200)]
    replies = at_once(200, lambda number: enrol(demo, given, requests[number]))
    won = [reply for reply in replies if reply.status == 201]
    assert len(won) == 1
    for reply in replies:
        if reply.status != 201:
            problem(reply, 409, "token-used")
    (row,) = issued_to(settings, "contested")
    assert row.ref.serial == won[0].certificate.serial_number


def test_R02_the_same_request_a_hundred_times_at_once_gets_one_serial(demo: Demo, settings: Settings) -> None:
    given, csr = token(settings, "repeated"), Device().csr()
    replies = at_once(100, lambda _: enrol(demo, given, csr))
    assert {reply.status for reply in replies} == {200, 201}
    assert sum(reply.status == 201 for reply in replies) == 1
    assert len({reply.certificate.fingerprint(SHA256) for reply in replies}) == 1
    assert len(issued_to(settings, "repeated")) == 1


@pytest.mark.parametrize("delay", [0.0, 0.002, 0.01, 0.03, 0.1])
def test_R02_a_connection_cut_in_mid_answer_loses_no_certificate(
    demo: Demo, settings: Settings, context: ssl.SSLContext, delay: float
) -> None:
    name = f"cut-{int(delay * 1000)}"
    given, csr = token(settings, name), Device().csr()
    document = {"token": given, "csr": text(csr)}
    for _ in range(4):
        line = connection(demo.enroll_url, context)
        line.request("POST", "/v1/enroll", json.dumps(document), {"Content-Type": "application/json"})
        threading.Event().wait(delay)
        assert line.sock is not None
        line.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, as a lost network makes it
        line.close()
    reply = post(demo, document)
    assert reply.status in {200, 201}
    (row,) = eventually(lambda: issued_to(settings, name))
    assert row.ref.serial == reply.certificate.serial_number


def test_R35_an_expired_token_enrols_nobody(demo: Demo, settings: Settings) -> None:
    given, fresh = token(settings, "late", lifetime=1), token(settings, "late")
    threading.Event().wait(2.1)
    said = problem(enrol(demo, given, Device().csr()), 401, "token-expired")
    assert "fleetca token create" in said["fix"]
    assert enrol(demo, fresh, Device().csr()).status == 201


def test_R35_a_token_enrols_the_device_it_was_made_for_whoever_sends_it(demo: Demo, settings: Settings) -> None:
    """The token says who; a request has no place to say it."""
    given = token(settings, "owner")
    problem(post(demo, {"token": given, "csr": text(Device().csr()), "device": "thief"}), 400, "unknown-field")
    named = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "thief")]))
    made = enrol(demo, given, named.sign(Device().private, SHA256).public_bytes(Encoding.DER)).certificate
    assert [one.value for one in made.subject] == ["owner"]
    assert not issued_to(settings, "thief")


@pytest.mark.parametrize(
    ("given", "code"),
    [
        pytest.param("enr_" + "0" * 49, "token-malformed", id="a token nobody made"),
        pytest.param("hunter2", "token-malformed", id="no token"),
        pytest.param("enr_" + "\u0661" * 49, None, id="digits of another script"),
    ],
)
def test_what_is_no_token_enrols_nobody(demo: Demo, given: str, code: str | None) -> None:
    reply = enrol(demo, given, Device().csr())
    problem(reply, 401 if code else 400, code or "bad-field")


def test_P9_a_key_of_another_device_is_refused_and_the_token_is_kept(demo: Demo, settings: Settings) -> None:
    first = Device()
    assert enrol(demo, token(settings, "twin-1"), first.csr()).status == 201
    given = token(settings, "twin-2")
    said = problem(enrol(demo, given, first.csr()), 409, "key-of-another-device")
    assert "twin-1" not in said["detail"]  # whose key it is, is nobody's business
    assert said["fix"]
    assert enrol(demo, given, Device().csr()).status == 201


# ---- Client certificates on renewal -------------------------------------------------------------------------------------


def signed(
    subject: x509.Name, public: Any, *, issuer: x509.Name, by: Any, serial: int, days: tuple[int, int] = (-1, 6), ca: bool = False,
    ski: bytes | None = None, aki: bytes | None = None,
) -> x509.Certificate:  # fmt: skip
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(issuer).public_key(public).serial_number(serial)
        .not_valid_before(now + timedelta(days=days[0])).not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(ski or x509.SubjectKeyIdentifier.from_public_key(public).digest), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(aki or x509.SubjectKeyIdentifier.from_public_key(by.public_key()).digest, None, None), critical=False)
        .add_extension(x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False), critical=True)
        .sign(by, SHA256)
    )  # fmt: skip


def name(text_of_it: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text_of_it)])


def loaded(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def ski_of(certificate: x509.Certificate) -> bytes:
    return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def foreign(demo: Demo) -> tuple[Device, list[x509.Certificate]]:
    """A chain of somebody else's."""
    authority, device = make_private_key(P256), Device()
    root = signed(name("Other Root"), authority.public_key(), issuer=name("Other Root"), by=authority, serial=1, ca=True)
    return device, [signed(name("demo-good"), device.private.public_key(), issuer=name("Other Root"), by=authority, serial=2), root]


def look_alike(demo: Demo) -> tuple[Device, list[x509.Certificate]]:
    """An issuing CA with our issuing CA's name and key identifier, a leaf with the good one's name, serial number and key identifier (R34)."""
    ours, good = loaded(demo.issuing), loaded(demo.good)
    authority, device = make_private_key(P256), Device()
    root = loaded(demo.root)
    fake = signed(
        ours.subject,
        authority.public_key(),
        issuer=root.subject,
        by=authority,
        serial=ours.serial_number,
        ca=True,
        ski=ski_of(ours),
        aki=ski_of(root),
    )
    leaf = signed(
        good.subject,
        device.private.public_key(),
        issuer=ours.subject,
        by=authority,
        serial=good.serial_number,
        ski=ski_of(good),
        aki=ski_of(ours),
    )
    return device, [leaf, fake]


def look_alike_alone(demo: Demo) -> tuple[Device, list[x509.Certificate]]:
    """The leaf alone, so that the server must think of its own issuing CA."""
    device, chain = look_alike(demo)
    return device, chain[:1]


def expired(demo: Demo) -> tuple[Device, list[x509.Certificate]]:
    """Signed by our own issuing key, as an old certificate is."""
    folder = demo.settings.parent
    keys = SealedFileKeyStore(folder / "keys", (folder / "secrets/issuing.passphrase").read_bytes().strip().__bytes__)
    key = keys.open(KeyName("issuing"))
    ours, device = loaded(demo.issuing), Device()
    made = signed(
        name("demo-good"),
        device.private.public_key(),
        issuer=ours.subject,
        by=make_private_key(P256),
        serial=3,
        days=(-9, -2),
        aki=ski_of(ours),
    )
    tbs = made.tbs_certificate_bytes
    return device, [x509.load_der_x509_certificate(W.sequence(tbs, W.sequence(W.oid("1.2.840.10045.4.3.2")), W.bit_string(key.sign(tbs))))]


ALERTS: list[Any] = [
    pytest.param(expired, "expired", id="expired"),
    pytest.param(foreign, "self-signed certificate in certificate chain|unable to get|unknown ca", id="foreign"),
    pytest.param(look_alike, "signature failure|unable to get|mismatch", id="a look-alike with its CA"),
    pytest.param(look_alike_alone, "signature failure|unable to get|mismatch", id="a look-alike alone"),
]


@pytest.mark.parametrize(("make", "reason"), ALERTS)
def test_R34_a_client_certificate_that_is_not_ours_or_has_ended_ends_the_handshake_and_the_log_says_why(
    demo: Demo, tmp_path: Path, make: Callable[[Demo], tuple[Device, list[x509.Certificate]]], reason: str
) -> None:
    log = demo.settings.parent / "logs/enroll.log"
    before = len(log.read_bytes())
    device, chain = make(demo)
    certificate, key = device.files(tmp_path, *chain)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        post(demo, {"csr": text(Device().csr())}, path="/v1/renew", context=tls(demo.root, certificate=certificate, key=key))
    # The client hears of it before the server has written its line.
    fresh = eventually(
        lambda: (said := log.read_bytes()[before:].decode()) and '"event":"handshake-refused"' in said and said[-1] == "\n" and said
    )
    assert re.search(reason, fresh), fresh


def test_R34_the_clients_error_says_what_to_check(demo: Demo, tmp_path: Path) -> None:
    device, chain = expired(demo)
    certificate, key = device.files(tmp_path, *chain)
    done = command(
        "renew", "--certificate", certificate, "--key", key, "--url", demo.enroll_url, "--root", demo.root, "--by", "tls",
        "--settings", demo.settings,
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert "fix: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_revoked_client_certificate_renews_nothing_and_the_log_says_why(demo: Demo) -> None:
    key = demo.revoked.with_suffix(".key")
    reply = post(demo, {"csr": text(Device().csr())}, path="/v1/renew", context=tls(demo.root, certificate=demo.revoked, key=key))
    said = problem(reply, 403, "certificate-revoked")
    log = demo.settings.parent / "logs/enroll.log"
    line = eventually(lambda: next((line for line in log_lines(log) if line.get("request_id") == said["request_id"]), None))
    assert line["code"] == "certificate-revoked"
    assert line["path"] == "/v1/renew"


def test_a_certificate_of_our_root_is_no_devices_certificate(demo: Demo) -> None:
    """No client certificate at all, and one that a header claims."""
    header = {
        "X-Client-Cert": demo.good.read_text().replace("\n", "%0A"),
        "fleetca.peer_certificate": base64_of(loaded(demo.good).public_bytes(Encoding.DER)),
    }
    for headers in ({}, header):
        problem(post(demo, {"csr": text(Device().csr())}, path="/v1/renew", headers=headers), 403, "certificate-required")


# ---- OCSP ---------------------------------------------------------------------------------------------------------------

GARBAGE: list[Any] = [
    pytest.param(b"", id="nothing"),
    pytest.param(bytes(100), id="zeros"),
    pytest.param(b"hello", id="text"),
    pytest.param(b"{}", id="JSON"),
    pytest.param(b"\x30\x80\x30\x80\x30\x80\x00\x00\x00\x00\x00\x00", id="BER of indefinite length"),
    pytest.param(b"\x30\x84\xff\xff\xff\xff\x00", id="a length of four gigabytes"),
    pytest.param(b"\x30" * 65536, id="64 KiB of tags"),
    pytest.param(b"-----BEGIN CERTIFICATE-----\n", id="PEM"),
    pytest.param(b"\x30\x03\x0a\x01\x00", id="a response in place of a request"),
]


@pytest.mark.parametrize("body", GARBAGE)
def test_RFC6960_ocsp_garbage_is_malformedRequest_with_http_200(demo: Demo, body: bytes) -> None:
    reply = ask(demo.ocsp_url, body=body, kind="application/ocsp-request")
    assert reply.status == 200
    assert reply.body == b"\x30\x03\x0a\x01\x01"
    assert reply.headers["content-type"] == "application/ocsp-response"
    assert reply.headers["cache-control"] == "no-store"


def ber(request: bytes) -> bytes:
    """The same request with the outermost length in a longer form than needed: BER, not DER."""
    assert request[1] < 0x80
    return b"\x30\x81" + request[1:]


@pytest.mark.parametrize(
    "change", [ber, lambda request: request + b"\0", lambda request: request[:-1]], ids=["BER", "one more", "one less"]
)
def test_a_request_that_is_almost_der_is_malformed(demo: Demo, change: Callable[[bytes], bytes]) -> None:
    request = ocsp_request(loaded(demo.good), demo.issuing)
    for path, body in ((demo.ocsp_url, change(request)), (f"{demo.ocsp_url}/{base64_of(change(request)).replace('/', '%2F')}", None)):
        assert ocsp_word(ask(path, body=body, kind="application/ocsp-request").body) == "malformed_request"
    assert ocsp_status(demo.ocsp_url, loaded(demo.good), demo.issuing) == "good"


@pytest.mark.parametrize("size", [65537, 10 << 20])
@pytest.mark.parametrize("chunked", [False, True], ids=["its length said", "chunked"])
def test_an_ocsp_body_over_64_KiB_is_413(demo: Demo, size: int, chunked: bool) -> None:
    line = connection(demo.ocsp_url)
    body: Any = (bytes(65536) for _ in range(-(-size // 65536) + 1)) if chunked else bytes(size)
    line.request("POST", "/ocsp", body, {"Content-Type": "application/ocsp-request"}, encode_chunked=chunked)
    answer = line.getresponse()
    assert answer.status == 413
    answer.read()
    line.close()


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), id="TLS on the plain port"),
        pytest.param(b"GET /" + b"A" * 70000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", id="an address of 70 KB"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 100000 + b"\r\n\r\n", id="a header of 100 KB"),
        pytest.param(b"POST /ocsp HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", id="a negative length"),
        pytest.param(
            b"POST /ocsp HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="two lengths"
        ),
        pytest.param(b"POST /ocsp HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", id="a chunk of no length"),
        pytest.param(b"\r\n\r\n\0\0\0", id="no HTTP"),
    ],
)
def test_what_is_not_http_is_no_answer_of_500(demo: Demo, octets: bytes) -> None:
    host, port = demo.ocsp_url.removeprefix("http://").removesuffix("/ocsp").split(":")
    said = b""
    with socket.create_connection((host, int(port)), 60) as line:
        with suppress(OSError):  # it has heard enough, and hung up
            line.sendall(octets)
            line.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while part := line.recv(65536):
                said += part
    assert not said or said.startswith((b"HTTP/1.1 4", b"HTTP/1.1 200")), said[:200]
    assert ocsp_status(demo.ocsp_url, loaded(demo.good), demo.issuing) == "good"


# ---- Slow ones ----------------------------------------------------------------------------------------------------------


def test_half_sent_requests_and_half_open_handshakes_hold_up_nobody(demo: Demo, settings: Settings, context: ssl.SSLContext) -> None:
    host = "127.0.0.1"
    ports = {kind: int(url.rsplit(":", 1)[1].split("/")[0]) for kind, url in (("enroll", demo.enroll_url), ("status", demo.ocsp_url))}
    with ExitStack() as lines:
        for number in range(200):  # half-open TLS: nothing, or the beginning of a ClientHello
            line = lines.enter_context(socket.create_connection((host, ports["enroll"]), 60))
            line.sendall(b"" if number % 2 else b"\x16\x03\x01\x02\x00\x01")
        for _ in range(50):  # half a request over TLS
            plain = lines.enter_context(socket.create_connection((host, ports["enroll"]), 60))
            secure = lines.enter_context(context.wrap_socket(plain, server_hostname=host))
            secure.sendall(b"POST /v1/enroll HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{")
        for _ in range(100):  # half a request in the clear
            line = lines.enter_context(socket.create_connection((host, ports["status"]), 60))
            line.sendall(b"POST /ocsp HTTP/1.1\r\nHost: a\r\nContent-Length: 80\r\n\r\n\x30")
        good = loaded(demo.good)
        for number in range(5):
            assert enrol(demo, token(settings, f"patient-{number}"), Device().csr(), timeout=15).status == 201
            assert ocsp_status(demo.ocsp_url, good, demo.issuing) == "good"


@pytest.mark.full
def test_a_request_that_does_not_end_is_closed_after_a_while(demo: Demo, context: ssl.SSLContext) -> None:
    from fleetca.protocol import REQUEST_SECONDS

    port = int(demo.enroll_url.rsplit(":", 1)[1])
    with (
        socket.create_connection(("127.0.0.1", port), REQUEST_SECONDS + 10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as line,
    ):
        for octet in b"POST /v1/enroll HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n":
            line.sendall(bytes([octet]))
        with pytest.raises(OSError):
            while True:  # an octet a second is no progress
                line.sendall(b" ")
                threading.Event().wait(1)


# ---- The command line ---------------------------------------------------------------------------------------------------


def test_an_unknown_profile_is_named_with_those_there_are(demo: Demo) -> None:
    done = command("token", "create", "pump", "--profile", "emperor", "--settings", demo.settings)
    assert done.returncode == 3, done.stderr
    assert "emperor" in done.stderr
    assert "fix: " in done.stderr
    assert not done.stdout


def test_an_unknown_reason_is_named_with_those_there_are(demo: Demo) -> None:
    done = command("revoke", "--device", "demo-good", "--confirm", "demo-good", "--reason", "boredom", "--settings", demo.settings)
    assert done.returncode == 2, done.stderr
    assert "boredom" in done.stderr
    assert "keyCompromise" in done.stderr


@pytest.fixture
def broken(demo: Demo, tmp_path: Path) -> Path:
    """A copy of the deployment's settings, keys and secrets, to break."""
    folder = tmp_path / "copy"
    ignored = shutil.ignore_patterns("run", "logs", "state", "devices", "ceremony", "public", "journal")
    shutil.copytree(demo.settings.parent, folder, ignore=ignored)
    return folder / demo.settings.name


def changed(old: str, new: str) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        content = file.read_text()
        assert old in content
        file.write_text(content.replace(old, new, 1))

    return change


def removed(name_of_it: str) -> Callable[[Path], None]:
    return lambda file: (file.parent / name_of_it).unlink()


def written(name_of_it: str, content: str) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        (file.parent / name_of_it).write_text(content)

    return write


MISTAKES: list[Any] = [
    pytest.param(changed("[ocsp]", '[ocsp]\ncolour = "red"'), 2, "colour", id="an unknown setting"),
    pytest.param(changed("[ocsp]", "[oscp]"), 2, "oscp", id="an unknown section"),
    pytest.param(changed("workers = 1", 'workers = "many"'), 2, "workers", id="a setting of the wrong type"),
    pytest.param(changed('lifetime = "24h"', "lifetime = 24"), 2, "crl.lifetime", id="a duration without its unit"),
    pytest.param(changed("[ocsp]", "[ocsp"), 2, "fleetca.toml", id="a file that is no TOML"),
    pytest.param(changed('default_issuer = "issuing"', 'default_issuer = "emperor"'), 2, "emperor", id="an unknown issuer"),
    pytest.param(removed("secrets/issuing.passphrase"), 6, "issuing.passphrase", id="a missing secret"),
    pytest.param(written("secrets/issuing.passphrase", "a wrong guess at it\n"), 6, "wrong-passphrase", id="a wrong passphrase"),
    pytest.param(removed("keys/issuing.key"), 6, "issuing", id="a missing key"),
    pytest.param(removed("ca/issuing.pem"), 2, "issuing.pem", id="a missing certificate"),
    pytest.param(removed("secrets/serial-check.key"), 6, "serial-check.key", id="a missing serial-check key"),
]


@pytest.mark.parametrize(("mistake", "code", "named"), MISTAKES)
def test_a_mistake_in_a_deployment_ends_its_start_with_words_and_a_number(
    broken: Path, mistake: Callable[[Path], None], code: int, named: str
) -> None:
    mistake(broken)
    move(broken, free_ports())
    done = command("serve", "--settings", broken)
    assert done.returncode == code, done.stderr
    assert named in done.stderr
    assert "fix: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "a wrong guess" not in done.stderr
    assert not (broken.parent / "run/signer.sock").exists()
