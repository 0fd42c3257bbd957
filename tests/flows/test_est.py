"""EST's bodies and choices, without a network: RFC 7030, 8951, 9908. What curl sees stands in tests/interop/test_est.py."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from flask import Flask
from werkzeug.test import TestResponse

from ca.der.bundle import certs_only
from ca.der.certificate import read_certificate
from ca.errors import Denied, FleetcaError, Malformed, Unauthenticated, Unavailable
from ca.keys.memory import make_private_key
from ca.model import AlgorithmName, ProfileName, Role
from ca.rules import manufacturer
from ca.rules.caps import Caps, Manufacturer
from ca.system import SystemChance
from enroll.est import messages
from enroll.est.flow import Est, read_basic
from enroll.est.prompt import Prompt
from enroll.est.routes import TLS_UNIQUE, blueprint
from enroll.gate import Gate
from enroll.rest.flow import Enrolment
from enroll.rest.routes import PEER_CERTIFICATE, create_app
from fleetca.forms import shipped_profiles
from tests.databases import sqlite_url
from tests.fakes.acme import DirectSigner
from tests.fakes.certificates import NOW, root
from tests.fakes.factory import factory, factory_device
from tests.fakes.rest import AtOnce, InFront
from tests.fakes.signer_world import DEPLOYMENT, ISSUING, Keypair, World

MAKER, MAKER_CERTIFICATE = factory("Pump Works IDevID CA")
WORKS = Manufacturer("works", MAKER_CERTIFICATE, "works:", (ProfileName("device"), ProfileName("device-short")))


DAYS = 5 * 86400
"""After which a certificate of seven days may be renewed."""


class Ticking:
    """A clock that never goes back."""

    def monotonic(self) -> float:
        return 0.0


class Service:
    def __init__(self, folder: Path, *, profiles: dict[str, dict[str, Any]] | None = None) -> None:
        folder.mkdir(exist_ok=True)
        shipped = shipped_profiles()
        changed = {ProfileName(name): replace(shipped[ProfileName(name)], **fields) for name, fields in (profiles or {}).items()}
        self.world = World(folder, sqlite_url(folder), caps={Role.enroll: Caps(manufacturers=(WORKS,))}, profiles=changed)
        self.signer = DirectSigner(self.world)
        issuers, known = (root(), self.world.issuer), self.world.profiles
        labels: dict[str | None, ProfileName] = {None: ProfileName("device"), "device-short": ProfileName("device-short")}
        self.app: Flask = create_app(
            Enrolment(
                signer=self.signer,
                reader=self.world.store.reading,
                receipts=lambda _: {},
                clock=self.world.clock,
                deployment=DEPLOYMENT,
                issuers=issuers,
                profiles=known,
                default_issuer=ISSUING,
            ),
            chance=SystemChance(),
            version="0",
            url="https://enroll.test",
        )
        est = self.est = Est(
            signer=self.signer,
            issuers=issuers,
            profiles=known,
            labels=labels,
            factories=True,
            make_key=make_private_key,
            clock=self.world.clock,
        )
        self.app.register_blueprint(blueprint(est))
        # As our server has it: the lane without a thread first.
        self.lane = InFront(self.app.wsgi_app, Prompt(est, signer=AtOnce(self.signer), chance=SystemChance()))
        self.app.wsgi_app = self.lane  # type: ignore[method-assign]

    def post(self, operation: str, csr: bytes, *, user: str = "", token: str = "", **environ: Any) -> TestResponse:
        headers = {"Authorization": "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode()} if token else {}
        return self.app.test_client().post(
            f"/.well-known/est/{operation}",
            data=base64.encodebytes(csr),
            content_type="application/pkcs10",
            headers=headers,
            environ_overrides={name: value for name, value in environ.items() if value is not None},
        )


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path)
    yield made
    made.world.close()


def csr(
    *,
    subject: x509.Name | None = None,
    challenge: bytes | None = None,
    change_name: bool = False,
    attribute: tuple[str, bytes] | None = None,
) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject or x509.Name([]))
    if challenge is not None:
        builder = builder.add_attribute(x509.oid.AttributeOID.CHALLENGE_PASSWORD, challenge)
    if attribute is not None:
        builder = builder.add_attribute(x509.ObjectIdentifier(attribute[0]), attribute[1])
    if change_name:
        builder = builder.add_attribute(x509.ObjectIdentifier("1.3.6.1.5.5.7.7.36"), b"x")
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.DER)


def test_what_needs_approval_is_202_until_it_has_it_and_then_the_same_certificate(service: Service) -> None:
    text, asked = service.world.token("pump-1").text, csr()
    service.signer.trouble = Unavailable("approval-pending", "Somebody has to approve it.", retry_after=30)
    waits = service.post("simpleenroll", asked, token=text)
    assert (waits.status_code, waits.headers["Retry-After"]) == (202, "30")
    service.signer.trouble = None
    first, again = (service.post("simpleenroll", asked, token=text) for _ in range(2))
    assert first.status_code == again.status_code == 200 and first.data == again.data


def test_both_lanes_send_the_same_octets_and_the_lane_leaves_what_is_odd_to_the_application(tmp_path: Path) -> None:
    service = Service(tmp_path)
    text, asked = service.world.token("pump-1").text, csr()
    quick = service.post("simpleenroll", asked, token=text)
    assert service.lane.taken == 1
    with_parameter = service.app.test_client().post(
        "/.well-known/est/simpleenroll",
        data=base64.encodebytes(asked),
        content_type="application/pkcs10; smime-type=x",
        headers={"Authorization": "Basic " + base64.b64encode(f":{text}".encode()).decode()},
    )
    assert service.lane.taken == 1
    assert (quick.status_code, quick.data, quick.content_type) == (200, with_parameter.data, with_parameter.content_type)
    assert {name.lower() for name, _ in quick.headers} == {name.lower() for name, _ in with_parameter.headers} - {"content-length"}
    shown = {PEER_CERTIFICATE: service.world.enrol("pump-2").certificate}
    service.world.clock.at += DAYS
    assert service.post("device/simplereenroll", csr(), **shown).status_code == 404, "no such label here"
    assert service.post("simplereenroll", csr(), **shown).status_code == 200
    assert service.lane.taken == 2
    assert service.post("simplereenroll", b"no csr", **shown).status_code == 400
    assert service.post("simpleenroll", csr()).status_code == 401
    assert service.lane.taken == 2
    service.world.close()


def test_R25_the_nearest_expiry_comes_first_and_before_all_who_have_no_certificate(service: Service) -> None:
    ticking = Ticking()
    holder = service.world.enrol("pump-1")
    shown, last = {PEER_CERTIFICATE: holder.certificate}, read_certificate(holder.certificate).not_after - 60
    service.est._gate = gate = Gate(0.001, clock=ticking)
    for _ in range(8):
        gate.enter(holder.certificate, now=last)
    new = service.post("simpleenroll", csr(), token=service.world.token("pump-2").text)
    early = service.post("simplereenroll", csr(), **shown)
    assert new.status_code == early.status_code == 429
    assert int(new.headers["Retry-After"]) >= 5
    assert int(early.headers["Retry-After"]) >= 5
    service.world.clock.at = last
    assert service.post("simplereenroll", csr(), **shown).status_code == 200


def test_the_signer_being_down_is_503(service: Service) -> None:
    service.signer.trouble = Unavailable("signer-down", "It is down.", retry_after=5)
    answer = service.post("simpleenroll", csr(), token=service.world.token("pump-1").text)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")


def test_the_user_name_is_the_device_or_nothing(service: Service) -> None:
    text = service.world.token("pump-1").text
    assert service.post("simpleenroll", csr(), user="pump-2", token=text).status_code == 403
    assert service.post("simpleenroll", csr(), user="../x", token=text).status_code == 400
    assert service.post("simpleenroll", csr(), user="pump-1", token=text).status_code == 200


def test_a_factory_device_gets_what_its_manufacturer_may_have(service: Service) -> None:
    shown = {PEER_CERTIFICATE: factory_device(MAKER, "SN-1")}
    assert service.post("device-short/simpleenroll", csr(), **shown).status_code == 200
    assert {row.device for row in service.world.rows()} == {"works:SN-1"}
    service.world.caps[Role.enroll] = Caps(manufacturers=(replace(WORKS, profiles=(ProfileName("device"),)),))
    assert service.post("device-short/simpleenroll", csr(), **shown).status_code == 403
    service.world.caps[Role.enroll] = Caps()
    assert service.post("simpleenroll", csr(), **shown).status_code == 401


def test_RFC_7030_3_5_a_binding_is_checked_or_refused(service: Service) -> None:
    unique = b"\x01" * 12
    text = service.world.token("pump-1").text
    bound = csr(challenge=base64.b64encode(unique))
    assert service.post("simpleenroll", bound, token=text).status_code == 403, "TLS 1.3"
    assert service.post("simpleenroll", bound, token=text, **{TLS_UNIQUE: b"\x02" * 12}).status_code == 403
    assert service.post("simpleenroll", csr(challenge=b""), token=text, **{TLS_UNIQUE: unique}).status_code == 403
    assert service.post("simpleenroll", bound, token=text, **{TLS_UNIQUE: unique}).status_code == 200


def test_RFC_7030_4_2_2_a_renewal_changes_no_name(service: Service) -> None:
    pair: Keypair = service.world.enrol("pump-1")
    shown = {PEER_CERTIFICATE: pair.certificate}
    same = x509.load_der_x509_certificate(pair.certificate).subject
    assert service.post("simplereenroll", csr(change_name=True), **shown).status_code == 403
    assert (
        service.post(
            "simplereenroll", csr(subject=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pump-2")])), **shown
        ).status_code
        == 403
    )
    assert service.post("device-short/simplereenroll", csr(), **shown).status_code == 403
    assert service.post("simplereenroll", csr(subject=same), **shown).status_code == 200


@pytest.mark.parametrize("subject", [None, x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pump-1")])], ids=["without", "with"])
@pytest.mark.parametrize("shown", [b"\x30\x00", b"no certificate", b""], ids=["an empty sequence", "text", "nothing"])
def test_R20_a_proxy_that_hands_on_what_is_no_certificate_renews_nothing(service: Service, shown: bytes, subject: x509.Name | None) -> None:
    refused = service.post("simplereenroll", csr(subject=subject), **{PEER_CERTIFICATE: shown})
    assert refused.status_code in {400, 401}, refused.text
    assert not service.world.rows()


def test_RFC_7030_4_4_the_server_makes_a_key_where_the_profile_says_so_and_keeps_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import email

    from cryptography.hazmat.primitives.serialization import PublicFormat, load_der_private_key, pkcs7

    plain = Service(tmp_path / "plain")
    assert plain.post("serverkeygen", csr(), token=plain.world.token("pump-1").text).status_code == 403
    plain.world.close()
    service = Service(tmp_path / "made", profiles={"device": {"server_keygen": True}})
    text = service.world.token("pump-1").text
    assert service.post("serverkeygen", csr()).status_code == 401
    wants_more = csr(attribute=("1.2.840.113549.1.9.16.2.37", b"id"))
    assert service.post("serverkeygen", wants_more, token=text).status_code == 403, "4.4.1: never less than what was asked"
    answer = service.post("serverkeygen", csr(), token=text)
    assert answer.status_code == 200 and answer.mimetype == "multipart/mixed" and answer.headers["Cache-Control"] == "no-store"
    document = email.message_from_bytes(f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode() + answer.data)
    first, second = document.get_payload()
    assert [part.get_content_type() for part in (first, second)] == ["application/pkcs8", "application/pkcs7-mime"]
    key = load_der_private_key(first.get_payload(decode=True), None)
    [found] = pkcs7.load_der_pkcs7_certificates(second.get_payload(decode=True))
    assert key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == found.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    assert service.post("serverkeygen", csr(), token=text).status_code == 409, "the key went with the answer"
    secret = first.get_payload(decode=True)
    kept = b"".join(path.read_bytes() for path in (tmp_path / "made").rglob("*") if path.is_file())
    assert secret not in kept and base64.b64encode(secret) not in kept and base64.b64encode(secret).decode() not in capsys.readouterr().out
    service.world.close()


def test_tokens_reach_no_log(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    text = service.world.token("pump-1").text
    service.post("simpleenroll", csr(challenge=text.encode()), user="pump-1", token=text)
    assert text not in capsys.readouterr().out


# ---- Messages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["p256", "p384", "rsa-3072", "rsa-4096", "ed25519", "ml-dsa-65"])
@pytest.mark.parametrize("profile", ["device", "service"])
def test_RFC_9908_attributes_are_whole_DER_and_ask_for_what_the_profile_wants(algorithm: str, profile: str) -> None:
    made = replace(shipped_profiles()[ProfileName(profile)], key_algorithms=(AlgorithmName(algorithm),))
    items = core.SequenceOf.load(messages.csrattrs(made), spec=core.Any, strict=True)
    parsed = [item.parse() for item in items]
    kinds = [
        one.native if isinstance(one, core.ObjectIdentifier) else one[0].parse().native if isinstance(one[0], core.Any) else one[0].native
        for one in parsed
    ]
    assert kinds.count("1.2.840.113549.1.9.16.2.61") == 1
    assert "1.2.840.113549.1.9.14" not in kinds, "one way to ask for extensions, not two"
    text = messages.csrattrs(made)
    assert (bytes.fromhex("0603551d11") in text) is made.required_names


def test_a_certs_only_message_is_in_DER_order() -> None:
    first, second = (factory_device(MAKER, name) for name in ("a", "b"))
    assert certs_only([first, second]) == certs_only([second, first])


@pytest.mark.parametrize(
    "body", [b"", b"  \r\n", b"AA=A", b"A", b"\x30\x80\xff", b"-----BEGIN CERTIFICATE REQUEST-----", b"AA\0AA", b"A" * 70000], ids=repr
)
def test_RFC_8951_3_what_is_no_base64_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        messages.decode(body)


def test_RFC_8951_3_white_space_is_passed_over() -> None:
    assert messages.decode(b" AAEC\r\n\tAw==\n") == b"\0\1\2\3"


@pytest.mark.parametrize(
    "header",
    [
        "Bearer x",
        "Basic",
        "Basic !!",
        "Basic " + base64.b64encode(b"nocolon").decode(),
        "Basic " + base64.b64encode(b"\xff:x").decode(),
        "Digest a=b",
    ],
)
def test_RFC_7617_other_headers_are_refused(header: str) -> None:
    with pytest.raises(Malformed):
        read_basic(header)


def test_RFC_7617_a_password_may_hold_a_colon() -> None:
    assert read_basic("basic " + base64.b64encode(b"a:b:c").decode()) == ("a", "b:c")
    assert read_basic("") is None


# ---- Factory certificates (IEEE 802.1AR) ----------------------------------------------------------------------------

STRANGER, _ = factory("Pump Works IDevID CA")
GENUINE = factory_device(MAKER, "SN-1")
FOREIGN: list[Any] = [
    pytest.param(b"", Unauthenticated, id="nothing"),
    pytest.param(b"\x30\x00", Unauthenticated, id="no certificate"),
    pytest.param(factory_device(STRANGER, "SN-1"), Unauthenticated, id="a look-alike's device"),
    pytest.param(GENUINE[:-1] + bytes([GENUINE[-1] ^ 1]), Unauthenticated, id="a signature that fails"),
    pytest.param(MAKER_CERTIFICATE, Denied, id="the manufacturer's CA itself"),
    pytest.param(factory_device(MAKER, "a/b"), Malformed, id="a serial number that is no id"),
    pytest.param(factory_device(MAKER, "x" * 64), Malformed, id="a serial number too long"),
]


@pytest.mark.parametrize(("der", "error"), FOREIGN)
def test_R20_factory_certificates_that_prove_nothing(der: bytes, error: type[FleetcaError]) -> None:
    with pytest.raises(error):
        manufacturer.identity(der, [WORKS], now=NOW)


def test_a_factory_certificate_before_its_time_is_refused() -> None:
    with pytest.raises(Denied):
        manufacturer.identity(factory_device(MAKER, "SN-1"), [WORKS], now=NOW - 10 * 86400)
    assert manufacturer.identity(factory_device(MAKER, "SN-1"), [WORKS], now=NOW)[1] == "works:SN-1"
