"""EST with curl and openssl, as devices do it (RFC 7030, 8951, 9908): every operation, on TLS 1.3 and 1.2, and those that must not get in.

The server is a whole deployment that trusts one manufacturer; nothing here knows our code but for starting it.
"""

from __future__ import annotations

import base64
import datetime as dt
import email
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from asn1crypto import cms
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key, pkcs7
from cryptography.x509.oid import NameOID

from config.profiles import shipped_profiles
from tests.parts import need
from tests.running import Apart, apart, make_deployment

EC = ec.EllipticCurvePrivateKey
LONG = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
"""The end of a certificate that has none (IEEE 802.1AR 8.7)."""


def key_pem(key: EC) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def certificate(
    subject: x509.Name, key: EC, *, issuer: x509.Certificate | None = None, by: EC, authority: bool = False, days: int | None = None
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=2))
        .not_valid_after(LONG if days is None else now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    )
    if authority:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    return builder.sign(by, hashes.SHA256())


def name(**parts: str) -> x509.Name:
    kinds = {"common": NameOID.COMMON_NAME, "serial": NameOID.SERIAL_NUMBER, "organization": NameOID.ORGANIZATION_NAME}
    return x509.Name([x509.NameAttribute(kinds[kind], text) for kind, text in parts.items()])


@dataclass
class Answer:
    status: int
    type: str
    body: bytes
    headers: str

    @property
    def der(self) -> bytes:
        return base64.b64decode(self.body)


class Est:
    """A deployment, a manufacturer, and curl."""

    def __init__(self, running: Apart, folder: Path) -> None:
        self.running, self.folder = running, folder
        self.maker_key = ec.generate_private_key(ec.SECP256R1())
        self.count = 0

    @property
    def url(self) -> str:
        return f"{self.running.settings.enroll.url}/.well-known/est"

    def curl(self, path: str, *words: str | Path, fails: bool = False) -> Answer:
        self.count += 1
        head, body = self.folder / f"{self.count}.head", self.folder / f"{self.count}.body"
        done = subprocess.run(
            [need("curl"), "-sS", "--cacert", self.running.root, "-D", head, "-o", body, *map(str, words), f"{self.url}/{path}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert (done.returncode != 0) is fails, done.stderr
        if fails:
            return Answer(0, "", b"", done.stderr)
        headers = head.read_text()
        kind = next((line.split(":", 1)[1].strip() for line in headers.splitlines() if line.lower().startswith("content-type:")), "")
        return Answer(int(headers.split()[1]), kind, body.read_bytes() if body.exists() else b"", headers)

    def key(self) -> Path:
        self.count += 1
        path = self.folder / f"{self.count}.key"
        subprocess.run(
            [need("openssl"), "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path],
            check=True,
            capture_output=True,
        )
        return path

    def csr(self, key: Path, subject: str = "/", *more: str) -> Path:
        """In base64, as openssl and base64 make it."""
        der = subprocess.run(
            [need("openssl"), "req", "-new", "-key", key, "-subj", subject, "-outform", "DER", *more], check=True, capture_output=True
        ).stdout
        path = key.with_suffix(".b64")
        path.write_bytes(base64.encodebytes(der))
        return path

    def post(self, operation: str, csr: Path, *words: str | Path, fails: bool = False) -> Answer:
        return self.curl(operation, "-H", "Content-Type: application/pkcs10", "--data-binary", f"@{csr}", *words, fails=fails)

    def certificates(self, answer: Answer) -> list[x509.Certificate]:
        """What openssl reads in a certs-only message; asn1crypto reads the same."""
        assert answer.status == 200, (answer.status, answer.body)
        assert answer.type.replace(" ", "") == "application/pkcs7-mime;smime-type=certs-only"
        self.count += 1
        path = self.folder / f"{self.count}.p7"
        path.write_bytes(answer.der)
        said = subprocess.run(
            [need("openssl"), "pkcs7", "-inform", "DER", "-in", path, "-print_certs"], check=True, capture_output=True
        ).stdout
        found = x509.load_pem_x509_certificates(said)
        signed = cms.ContentInfo.load(answer.der)["content"]
        assert signed["version"].native == "v1" and not signed["signer_infos"].native and not signed["digest_algorithms"].native
        assert {one.chosen.dump() for one in signed["certificates"]} == {one.public_bytes(Encoding.DER) for one in found}
        return found

    def enrol(self, device: str) -> tuple[Path, Path]:
        """Key and certificate, by a one-time token."""
        key = self.key()
        answer = self.post("simpleenroll", self.csr(key), "--user", f"{device}:{self.running.token(device)}")
        return key, self.keep(key, self.certificates(answer)[0])

    def revoke(self, *what: str | Path) -> None:
        done = self.running.cli("revoke", *what, "--reason", "keyCompromise")
        assert done.returncode == 0, done.stderr

    @staticmethod
    def keep(key: Path, found: x509.Certificate) -> Path:
        path = key.with_suffix(".pem")
        path.write_bytes(found.public_bytes(Encoding.PEM))
        return path

    def device(
        self, serial: str, *, by: EC | None = None, maker: x509.Certificate | None = None, days: int | None = None
    ) -> list[str | Path]:
        """curl's words for a factory certificate."""
        self.count += 1
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = maker or x509.load_pem_x509_certificate((self.folder / "maker.pem").read_bytes())
        made = certificate(name(serial=serial), key, issuer=issuer, by=by or self.maker_key, days=days)
        paths = self.folder / f"{self.count}.idevid.key", self.folder / f"{self.count}.idevid.pem"
        paths[0].write_bytes(key_pem(key))
        paths[1].write_bytes(made.public_bytes(Encoding.PEM))
        return ["--key", paths[0], "--cert", paths[1]]


def add_profile(settings: Path, name: str, line: str) -> None:
    """The profile of devices with one line more, under another name."""
    shipped = (shipped_profiles() / "device.toml").read_text()
    (settings.parent / "profiles" / f"{name}.toml").write_text(shipped.replace('name = "device"', f'name = "{name}"') + line + "\n")
    known = '"device-short", "service"]'
    assert known in settings.read_text()
    settings.write_text(settings.read_text().replace(known, f'"{name}", {known}'))


@pytest.fixture(scope="module")
def est(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Est]:
    folder = tmp_path_factory.mktemp("est")
    file = make_deployment(folder / "here")
    maker_key = ec.generate_private_key(ec.SECP256R1())
    maker = certificate(name(common="Pump Works IDevID CA"), maker_key, by=maker_key, authority=True)
    (folder / "maker.pem").write_bytes(maker.public_bytes(Encoding.PEM))
    add_profile(file, "careful", 'approval_within = "1h"')
    add_profile(file, "made-here", "server_keygen = true")
    text = f'\n[est]\nlabels = ["device", "device-short", "service", "careful", "made-here"]\n[[est.manufacturers]]\nname = "pump-works"\ncertificate = "{folder}/maker.pem"\nprefix = "pump-works:"\n'
    file.write_text(file.read_text() + text)
    with apart(file, logs=folder / "logs", roles=("signer", "enroll")) as running:
        made = Est(running, folder)
        made.maker_key = maker_key
        yield made


TLS = [pytest.param("1.3", id="TLS 1.3"), pytest.param("1.2", id="TLS 1.2")]


def only(version: str) -> list[str]:
    return [f"--tlsv{version}", "--tls-max", version]


@pytest.mark.req("REQ-KEY-007")
@pytest.mark.parametrize("version", TLS)
def test_the_ca_certificates_are_there_for_everybody(est: Est, version: str) -> None:
    found = est.certificates(est.curl("cacerts", *only(version)))
    roots = [one for one in found if one.subject == one.issuer]
    assert len(found) == 2 and len(roots) == 1
    assert roots[0] == x509.load_pem_x509_certificate(est.running.root.read_bytes())


@pytest.mark.req("REQ-KEY-078")
def test_over_TLS_1_2_management_is_refused_where_EST_is_not(est: Est) -> None:
    """curl itself takes the dots out of the address."""
    assert est.curl("cacerts", *only("1.2")).status == 200
    refused = est.curl("../../v1/certificates", *only("1.2"))
    assert (refused.status, refused.type) == (403, "application/problem+json")
    assert json.loads(refused.body)["code"] == "tls13-required"
    assert json.loads(est.curl("../../v1/certificates", *only("1.3")).body)["code"] == "certificate-required"


@pytest.mark.parametrize("label", ["", "device/", "service/"])
def test_csr_attributes_are_readable(est: Est, label: str) -> None:
    answer = est.curl(f"{label}csrattrs")
    assert (answer.status, answer.type) == (200, "application/csrattrs")
    path = est.folder / "csrattrs.der"
    path.write_bytes(answer.der)
    said = subprocess.run([need("openssl"), "asn1parse", "-inform", "DER", "-in", path], check=True, capture_output=True, text=True).stdout
    assert "id-ecPublicKey" in said and "prime256v1" in said and "1.2.840.113549.1.9.16.2.61" in said
    assert ("X509v3 Subject Alternative Name" in said) is (label == "service/")


@pytest.mark.parametrize("version", TLS)
def test_a_token_enrols_and_the_certificate_renews(est: Est, version: str) -> None:
    device = f"pump-{version}"
    key, text = est.key(), est.running.token(device)
    csr = est.csr(key)
    answer = est.post("simpleenroll", csr, "--user", f"{device}:{text}", *only(version))
    [found] = est.certificates(answer)
    assert found.subject.rfc4514_string() == f"CN={device}"
    [same] = est.certificates(est.post("simpleenroll", csr, "--user", f":{text}", *only(version)))
    assert same == found, "the same request again gets the same certificate"
    kept, new = est.keep(key, found), est.key()
    own = ["--cert", kept, "--key", key, *only(version)]
    renewal = est.csr(new, f"/CN={device}")
    [renewed] = est.certificates(est.post("simplereenroll", renewal, *own))
    assert renewed.subject == found.subject and renewed.serial_number != found.serial_number
    assert est.certificates(est.post("device/simplereenroll", renewal, *own)) == [renewed]


def test_a_label_is_a_profile(est: Est) -> None:
    text = est.running.token("pump-short", profile="device-short")
    csr = est.csr(est.key())
    refused = est.post("simpleenroll", csr, "--user", f"pump-short:{text}")
    assert refused.status == 403 and b"another profile" in refused.body
    [found] = est.certificates(est.post("device-short/simpleenroll", csr, "--user", f"pump-short:{text}"))
    assert found.not_valid_after_utc - found.not_valid_before_utc < dt.timedelta(days=1)
    assert est.curl("nonsense/cacerts").status == 404


def test_RFC_7030_4_2_3_what_needs_approval_is_202_until_an_operator_decides(est: Est) -> None:
    text, csr = est.running.token("pump-careful", profile="careful"), est.csr(est.key())
    user = ["--user", f"pump-careful:{text}"]
    for _ in range(2):
        waits = est.post("careful/simpleenroll", csr, *user)
        assert waits.status == 202
        assert "retry-after: 60" in waits.headers.lower()
    (one,) = json.loads(est.running.cli("approvals", "list", "--json").stdout)["approvals"]
    assert (one["device"], one["profile"], one["evidence"]) == ("pump-careful", "careful", "token")
    assert est.running.cli("approvals", "approve", one["request"][:16]).returncode == 0
    [found] = est.certificates(est.post("careful/simpleenroll", csr, *user))
    assert found.subject.rfc4514_string() == "CN=pump-careful"
    unasked = est.running.cli("approvals", "refuse", one["request"], "--reason", "Too late.")
    assert unasked.returncode == 4


def test_RFC_7030_4_4_a_key_that_the_server_makes_comes_with_its_certificate_and_stays_nowhere(est: Est) -> None:
    text = est.running.token("pump-made", profile="made-here")
    csr = est.csr(est.key())
    assert est.post("serverkeygen", csr, "--user", f":{est.running.token('pump-own')}").status == 403
    answer = est.post("made-here/serverkeygen", csr, "--user", f":{text}")
    assert (answer.status, answer.type.partition(";")[0]) == (200, "multipart/mixed")
    whole = email.message_from_bytes(b"Content-Type: " + answer.type.encode() + b"\r\n\r\n" + answer.body)
    (key, made) = whole.get_payload()
    assert (key.get_content_type(), made.get_content_type()) == ("application/pkcs8", "application/pkcs7-mime")
    private = load_der_private_key(base64.b64decode(key.get_payload()), None)
    (found,) = pkcs7.load_der_pkcs7_certificates(base64.b64decode(made.get_payload()))
    assert found.public_key() == private.public_key()
    octets = private.private_numbers().private_value.to_bytes(32, "big")
    kept = [path for path in est.running.settings.file.parent.rglob("*") if path.is_file() and octets in path.read_bytes()]
    assert not kept
    again = est.post("made-here/serverkeygen", csr, "--user", f":{text}")
    assert again.status == 409, "a token that was used is used: there is no second key for it"


@pytest.mark.parametrize("width", [4, 64, 76, 100_000])
def test_RFC_8951_3_lines_of_any_length_are_read_whatever_ends_them(est: Est, width: int) -> None:
    text, path = est.running.token("pump-lines"), est.csr(est.key())
    packed = base64.b64encode(base64.b64decode(path.read_bytes()))
    path.write_bytes(b"\r\n".join(packed[at : at + width] for at in range(0, len(packed), width)) + b"\r\n")
    wide = ["-H", "Content-Type: application/pkcs10; charset=us-ascii", "-H", "Content-Transfer-Encoding: BASE64"]
    answer = est.curl("simpleenroll", "--data-binary", f"@{path}", "--user", f":{text}", *wide)
    assert len(est.certificates(answer)) == 1


@pytest.mark.parametrize("operation", ["fullcmc", "device/fullcmc", "simpleenroll/", "SIMPLEENROLL"])
def test_what_there_is_not_is_not_there(est: Est, operation: str) -> None:
    assert est.post(operation, est.csr(est.key())).status == 404


def test_a_factory_certificate_enrols_and_never_renews(est: Est) -> None:
    factory = est.device("SN-0001")
    csr = est.csr(est.key())
    [found] = est.certificates(est.post("simpleenroll", csr, *factory))
    assert found.subject.rfc4514_string() == "CN=pump-works:SN-0001"
    assert est.post("simplereenroll", est.csr(est.key()), *factory).status == 401
    again = est.certificates(est.post("simpleenroll", est.csr(est.key()), *factory))[0]
    assert again.subject == found.subject, "a device that was reset enrols again"
    est.revoke("--device", "pump-works:SN-0001", "--confirm", "pump-works:SN-0001")
    assert est.post("simpleenroll", est.csr(est.key()), *factory).status == 403


def test_strangers_and_look_alikes_of_a_manufacturer_do_not_get_in(est: Est) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    twin = certificate(name(common="Pump Works IDevID CA"), other, by=other, authority=True)
    csr = est.csr(est.key())
    est.post("simpleenroll", csr, *est.device("SN-0002", by=other, maker=twin), fails=True)
    est.post("simpleenroll", csr, *est.device("SN-0002", days=-1), fails=True)
    bad = est.post("simpleenroll", csr, *est.device("../SN 2"))
    assert bad.status == 400


@pytest.mark.req("REQ-KEY-009")
def test_the_revoked_the_foreign_and_the_look_alike_do_not_renew(est: Est) -> None:
    key, kept = est.enrol("pump-gone")
    csr = est.csr(est.key())
    est.revoke("--certificate", kept)
    assert est.post("simplereenroll", csr, "--cert", kept, "--key", key).status == 403
    foreign_key = ec.generate_private_key(ec.SECP256R1())
    issuing = x509.load_pem_x509_certificate(est.running.issuing.read_bytes())
    alike = certificate(issuing.subject, foreign_key, by=foreign_key, authority=True)
    mine = ec.generate_private_key(ec.SECP256R1())
    forged = certificate(name(common="pump-gone"), mine, issuer=alike, by=foreign_key, days=5)
    paths = est.folder / "forged.key", est.folder / "forged.pem"
    paths[0].write_bytes(key_pem(mine))
    paths[1].write_bytes(forged.public_bytes(Encoding.PEM))
    est.post("simplereenroll", csr, "--cert", paths[1], "--key", paths[0], fails=True)


def test_a_renewal_is_for_the_same_identity_RFC_7030_4_2_2(est: Est) -> None:
    key, kept = est.enrol("pump-same")
    own = ["--cert", kept, "--key", key]
    refused = est.post("simplereenroll", est.csr(est.key(), "/CN=pump-other"), *own)
    assert refused.status == 403 and b"another subject" in refused.body
    refused = est.post("simplereenroll", est.csr(est.key(), "/", "-addext", "subjectAltName=DNS:evil.example"), *own)
    assert refused.status == 403 and b"other alternative names" in refused.body
    assert est.post("simpleenroll", est.csr(est.key()), *own).status == 403, "a device that has a certificate renews it"


REFUSED = [
    pytest.param([], "", 401, id="nobody"),
    pytest.param(["--user", "pump-x:enr_nonsense"], "", 401, id="a token that is none"),
    pytest.param(["-H", "Authorization: Bearer enr_x"], "", 400, id="another scheme"),
    pytest.param(["-H", "Authorization: Basic !!"], "", 400, id="Basic that is none"),
]


@pytest.mark.parametrize("operation", ["simpleenroll", "simplereenroll"])
@pytest.mark.parametrize(("words", "_", "status"), REFUSED)
def test_nobody_gets_in_without_evidence(est: Est, operation: str, words: list[str], _: str, status: int) -> None:
    answer = est.post(operation, est.csr(est.key()), *words)
    assert answer.status == (401 if operation == "simplereenroll" and status == 401 else status)
    assert answer.type.startswith("text/plain")
    assert (answer.status == 401) is ("www-authenticate: basic" in answer.headers.lower())
    # Who has shown nothing is asked and not told: Bouncy Castle's client takes a body there for a stream that broke off.
    assert bool(answer.body) is not (operation == "simpleenroll" and not words)


@pytest.mark.parametrize(
    ("make", "status"),
    [
        pytest.param(lambda der: der, 400, id="bare DER"),
        pytest.param(lambda der: b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(der), 400, id="PEM"),
        pytest.param(lambda der: base64.urlsafe_b64encode(der + b"\xff\xfe"), 400, id="the other base64, and octets behind"),
        pytest.param(lambda der: b"", 400, id="nothing"),
        pytest.param(lambda der: base64.b64encode(der[:-1]), 400, id="a CSR cut short"),
        pytest.param(lambda der: base64.b64encode(der[:-4] + bytes(4)), 422, id="a CSR whose proof fails"),
        pytest.param(lambda der: b"A" * 70_000, 400, id="too much"),
    ],
)
def test_RFC_8951_3_a_body_is_base64_of_DER(est: Est, make: object, status: int) -> None:
    der = base64.b64decode(est.csr(est.key()).read_bytes())
    path = est.folder / "bad.b64"
    path.write_bytes(make(der))  # type: ignore[operator]
    answer = est.post("simpleenroll", path, "--user", f"pump-b:{est.running.token('pump-b')}", "-H", "Content-Transfer-Encoding: binary")
    assert answer.status in {status, 413}, answer.body
    assert est.post("simpleenroll", path, "-H", "Content-Type: text/plain").status in {400, 415}


def test_RFC_9110_6_6_1_every_answer_is_dated_and_its_fields_are_spelled_as_clients_in_devices_look_for_them(est: Est) -> None:
    """libest compares names with their case, and finds no content type in an answer that writes it small."""
    path = est.csr(est.key())
    with_token = ("--user", f"pump-case:{est.running.token('pump-case')}")
    answers = [
        est.post("simpleenroll", path, *with_token),
        est.post("simpleenroll", path),
        est.post("simpleenroll", path, *with_token, "-H", "Expect: 100-continue"),
        est.curl("cacerts"),
        est.curl("nothing-here"),
    ]
    heads = [answer.headers.strip().split("\n\n")[-1].splitlines() for answer in answers]  # behind that of 100 Continue
    assert [int(first.split()[1]) for first, *_ in heads] == [200, 401, 200, 200, 404]
    for status, *fields in heads:
        names = [field.partition(":")[0] for field in fields]
        assert {"Date", "Content-Type", "Content-Length"} <= set(names), fields
        assert [name for name in names if name[0].islower()] == [], fields
        assert " 401 " not in status or "WWW-Authenticate" in names


def test_a_challenge_password_binds_to_the_connection_or_is_refused(est: Est) -> None:
    """RFC 7030 3.5: openssl s_client could not tell curl's tls-unique, so this connection is our own."""
    import http.client
    import ssl

    device = "pump-bound"
    text = est.running.token(device)
    host, port = est.running.settings.enroll.url.removeprefix("https://").rsplit(":", 1)

    def ask(version: ssl.TLSVersion, *, right: bool) -> tuple[int, bytes]:
        context = ssl.create_default_context(cafile=str(est.running.root))
        context.minimum_version = context.maximum_version = version
        connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=60)
        connection.connect()
        assert isinstance(connection.sock, ssl.SSLSocket)
        unique = connection.sock.get_channel_binding("tls-unique") or b""
        value = base64.b64encode(unique if right else b"\0" * len(unique))
        builder = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([]))
            .add_attribute(x509.oid.AttributeOID.CHALLENGE_PASSWORD, value)
        )
        der = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.DER)
        basic = base64.b64encode(f"{device}:{text}".encode()).decode()
        headers = {"Content-Type": "application/pkcs10", "Authorization": f"Basic {basic}"}
        connection.request("POST", "/.well-known/est/simpleenroll", base64.b64encode(der), headers)
        answer = connection.getresponse()
        said = answer.status, answer.read()
        connection.close()
        return said

    assert ask(ssl.TLSVersion.TLSv1_3, right=True)[0] == 403
    assert ask(ssl.TLSVersion.TLSv1_2, right=False)[0] == 403
    assert ask(ssl.TLSVersion.TLSv1_2, right=True)[0] == 200
    logs = (est.running.logs / "enroll.log").read_text()
    assert text not in logs


def test_a_signer_that_is_down_is_waited_for(est: Est) -> None:
    text = est.running.token("pump-waits")
    csr = est.csr(est.key())
    est.running.kill("signer")
    answer = est.post("simpleenroll", csr, "--user", f"pump-waits:{text}")
    assert answer.status == 503 and "retry-after:" in answer.headers.lower()
    est.running.start("signer")
    assert len(est.certificates(est.post("simpleenroll", csr, "--user", f"pump-waits:{text}"))) == 1
