"""The REST API from outside: what devices, operators and strangers get. Every answer is also held against the OpenAPI document (tests/fakes/rest.py)."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from openapi_spec_validator import OpenAPIV31SpecValidator
from structlog.testing import capture_logs

from ca.errors import Broken, Busy, ClockUntrusted, KeyUnavailable, StoreUnavailable, Unavailable
from ca.model import CertificateRef, IssuerId, ProfileName, Reason, Serial
from ca.rules.message import Act
from enroll.rest.fields import timestamp
from enroll.rest.openapi import OPERATIONS, PREFIX
from tests.fakes.door import NOW, Authority
from tests.fakes.rest import DOCUMENT, Holder, InFront, Rest

DAY = 86400
AUTHORITY = Authority()


@pytest.fixture(params=[False, True], ids=["the application alone", "the lane without a thread in front"])
def rest(request: pytest.FixtureRequest) -> Rest:
    return Rest(authority=AUTHORITY, prompt=request.param)


def ref(certificate: bytes | None) -> CertificateRef:
    assert certificate is not None
    return CertificateRef(IssuerId("issuing"), Serial(x509.load_der_x509_certificate(certificate).serial_number))


# ---- The description ------------------------------------------------------------------------------------------------


def test_the_description_is_valid_openapi_31(rest: Rest) -> None:
    served = rest.get("/openapi.json").json
    assert served == DOCUMENT
    assert served["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(served).validate()


def test_description_and_routes_are_the_same(rest: Rest) -> None:
    routes = {
        (method, rule.rule.replace("<", "{").replace(">", "}"))
        for rule in rest.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
    }
    assert routes == {(operation.method, PREFIX + operation.path) for operation in OPERATIONS}
    described = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert described == routes


# ---- Enrol ----------------------------------------------------------------------------------------------------------


def test_a_token_gets_a_certificate_and_all_its_holder_needs(rest: Rest) -> None:
    holder = Holder()
    answer = rest.post("/enroll", {"token": rest.door.token("pump-17"), "csr": holder.csr_text()})
    assert answer.status_code == 201
    made = answer.json
    certificate = x509.load_pem_x509_certificate(made["certificate"].encode())
    assert certificate.serial_number == int(made["serial"], 16)
    assert (made["device"], made["profile"], made["issuer"], made["repeated"]) == ("pump-17", "device", "issuing", False)
    issuing, root = x509.load_pem_x509_certificates(made["chain"].encode())
    certificate.verify_directly_issued_by(issuing)
    issuing.verify_directly_issued_by(root)
    assert answer.headers["Location"] == f"/v1/certificates/issuing/{made['serial']}"
    assert certificate.not_valid_before_utc.strftime("%Y-%m-%dT%H:%M:%SZ") == made["not_before"]
    assert made["not_before"] < made["renew_at"] < made["not_after"]


def test_a_pem_request_is_taken_too(rest: Rest) -> None:
    holder = Holder()
    pem = f"-----BEGIN CERTIFICATE REQUEST-----\n{holder.csr_text()}\n-----END CERTIFICATE REQUEST-----\n"
    assert rest.post("/enroll", {"token": rest.door.token(), "csr": pem}).status_code == 201


def test_octets_in_octets_out(rest: Rest) -> None:
    holder = Holder()
    headers = {"Authorization": f"Bearer {rest.door.token()}", "Accept": "application/pkix-cert"}
    answer = rest.post("/enroll", data=holder.csr(), content_type="application/pkcs10", headers=headers)
    assert answer.status_code == 201
    assert x509.load_der_x509_certificate(answer.data).subject.rfc4514_string() == "CN=pump-17"
    headers["Accept"] = "application/pem-certificate-chain"
    again = rest.post("/enroll", data=holder.csr(), content_type="application/pkcs10", headers=headers)
    assert again.status_code in (200, 409)


def test_both_lanes_answer_with_the_same_octets() -> None:
    rest = Rest(authority=AUTHORITY, prompt=True)
    lane = rest.app.wsgi_app
    assert isinstance(lane, InFront)
    holder, other = rest.enrolled("pump-1"), Holder()
    used = {"token": rest.door.token("pump-2"), "csr": holder.csr_text()}
    enrolled, renewed = {"token": rest.door.token("pump-3"), "csr": other.csr_text()}, {"csr": Holder().csr_text()}
    expired = {**enrolled, "token": rest.door.token(lifetime=60)}
    rest.post("/enroll", enrolled)
    rest.post("/renew", renewed, certificate=holder.certificate)
    rest.clock.at += 60
    asked: list[tuple[str, dict[str, Any], bytes | None]] = [
        ("/enroll", enrolled, None),
        ("/renew", renewed, holder.certificate),
        ("/renew", {"csr": other.csr_text()}, holder.certificate),
        ("/enroll", used, None),
        ("/enroll", {**enrolled, "token": "enr_unknown"}, None),
        ("/enroll", expired, None),
    ]

    def told() -> list[tuple[int, dict[str, str], bytes]]:
        found = []
        for path, body, certificate in asked:
            answer = rest.post(path, body, certificate=certificate)
            headers = {name.lower(): value for name, value in answer.headers}
            request_id, _ = headers.pop("x-request-id"), headers.pop("content-length", "")
            found.append((answer.status_code, headers, answer.data.replace(request_id.encode(), b"(id)")))
        return found

    before = lane.taken
    in_front = told()
    assert lane.taken == before + len(asked) - 1, "all but the token that cannot be one"
    rest.app.wsgi_app = lane.application  # type: ignore[method-assign]
    assert in_front == told()
    assert [status for status, _, _ in in_front] == [200, 200, 409, 409, 401, 401]


def test_the_same_request_again_gets_the_same_certificate(rest: Rest) -> None:
    holder = Holder()
    body = {"token": rest.door.token(), "csr": holder.csr_text()}
    first, again = rest.post("/enroll", body), rest.post("/enroll", body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json["repeated"] is True
    assert {**again.json, "repeated": False} == first.json
    assert len(rest.door.rows) == 1


def test_renewals_of_a_fleet_are_spread(rest: Rest) -> None:
    moments = {rest.post("/enroll", {"token": rest.door.token(f"d-{n}"), "csr": Holder().csr_text()}).json["renew_at"] for n in range(20)}
    assert len(moments) > 10


ENROL_REFUSED: list[Any] = [
    pytest.param({"token": "enr_short"}, 401, "token-malformed", id="a token that was cut"),
    pytest.param({"csr": base64.b64encode(b"\x30\x00").decode()}, 400, "bad-csr", id="octets that are no request"),
    pytest.param({"csr": "!"}, 400, "bad-field", id="a request that is no base64"),
    pytest.param({"names": ["example.org"]}, 400, "unknown-field", id="a wish for names"),
]


@pytest.mark.parametrize("change, status, code", ENROL_REFUSED)
def test_enrolment_is_refused(rest: Rest, change: dict[str, object], status: int, code: str) -> None:
    body = {"token": rest.door.token(), "csr": Holder().csr_text(), **change}
    answer = rest.post("/enroll", body)
    assert (answer.status_code, answer.json["code"]) == (status, code)
    assert not rest.door.rows
    assert ("issue", "token") not in rest.door.asked


def test_a_used_token_does_not_enrol_another_key(rest: Rest) -> None:
    token = rest.door.token()
    assert rest.post("/enroll", {"token": token, "csr": Holder().csr_text()}).status_code == 201
    answer = rest.post("/enroll", {"token": token, "csr": Holder().csr_text()})
    assert (answer.status_code, answer.json["code"]) == (409, "token-used")


def test_an_expired_token_asks_for_a_new_one(rest: Rest) -> None:
    token = rest.door.token(lifetime=60)
    rest.clock.at += 60
    answer = rest.post("/enroll", {"token": token, "csr": Holder().csr_text()})
    assert (answer.status_code, answer.json["code"]) == (401, "token-expired")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="fleetca"'
    assert "fleetca token create" in answer.json["fix"]


def test_a_request_without_a_token_is_challenged(rest: Rest) -> None:
    answer = rest.post("/enroll", data=Holder().csr(), content_type="application/pkcs10")
    assert (answer.status_code, answer.json["code"]) == (401, "token-required")
    answer = rest.post("/enroll", data=Holder().csr(), content_type="application/pkcs10", headers={"Authorization": "Basic eDp5"})
    assert answer.status_code == 401


def test_P9_a_key_of_another_device_is_refused(rest: Rest) -> None:
    holder = rest.enrolled("pump-17")
    answer = rest.post("/enroll", {"token": rest.door.token("pump-18"), "csr": holder.csr_text()})
    assert (answer.status_code, answer.json["code"]) == (409, "key-of-another-device")


def test_a_weak_key_is_refused_by_the_signer(rest: Rest) -> None:
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(rsa.generate_private_key(65537, 1024), hashes.SHA256())
    text = csr.public_bytes(serialization.Encoding.PEM).decode()
    answer = rest.post("/enroll", {"token": rest.door.token(), "csr": text})
    assert (answer.status_code, answer.json["code"]) == (422, "weak-key")
    assert not rest.door.rows


def test_a_request_with_a_bad_signature_is_refused(rest: Rest) -> None:
    csr = bytearray(Holder().csr())
    csr[-1] ^= 1
    answer = rest.post("/enroll", {"token": rest.door.token(), "csr": base64.b64encode(csr).decode()})
    assert (answer.status_code, answer.json["code"]) == (422, "bad-signature")


# ---- Renew and confirm ----------------------------------------------------------------------------------------------


def test_a_presented_certificate_renews_itself(rest: Rest) -> None:
    old = rest.enrolled()
    answer = rest.post("/renew", {"csr": Holder().csr_text()}, certificate=old.certificate)
    assert answer.status_code == 201
    assert answer.json["device"] == "pump-17"
    assert rest.door.rows[ref(old.certificate)].superseded_at is None


def test_P9_the_predecessor_is_superseded_by_the_first_use_of_its_successor(rest: Rest) -> None:
    old = rest.enrolled()
    new = Holder()
    headers = {"Accept": "application/pkix-cert"}
    new.certificate = rest.post("/renew", {"csr": new.csr_text()}, certificate=old.certificate, headers=headers).data
    confirmed = rest.post("/confirm", certificate=new.certificate).json
    assert (confirmed["renews"], confirmed["first_used_at"] is None) == (str(ref(old.certificate)), False)
    assert rest.door.rows[ref(old.certificate)].superseded_at == NOW
    assert rest.post("/confirm", certificate=new.certificate).status_code == 200
    answer = rest.post("/renew", {"csr": Holder().csr_text()}, certificate=old.certificate)
    assert (answer.status_code, answer.json["code"]) == (403, "superseded")


def _renewed(rest: Rest, old: Holder) -> Holder:
    new = Holder()
    headers = {"Accept": "application/pkix-cert"}
    new.certificate = rest.post("/renew", {"csr": new.csr_text()}, certificate=old.certificate, headers=headers).data
    return new


def _named(holder: Holder) -> dict[str, str]:
    assert holder.certificate is not None
    found = ref(holder.certificate)
    return {"issuer": found.issuer, "serial": f"{found.serial:x}"}


@pytest.mark.parametrize("by", ["presented", "message"])
def test_P9_a_confirmed_delivery_begins_the_grace_of_the_predecessor(rest: Rest, by: str) -> None:
    old = rest.enrolled()
    new = _renewed(rest, old)
    for _ in range(2):
        rest.clock.at += 60
        if by == "presented":
            spoke = rest.post("/confirm", {"successor": _named(new)}, certificate=old.certificate).json
        else:
            message = old.message(Act.confirm, target=ref(new.certificate), at=rest.clock.at)
            spoke = rest.post("/confirm", {"message": message}).json
        assert (spoke["state"], spoke["grace_ends_at"]) == ("issued", timestamp(NOW + 60 + DAY))
    shown = rest.get(f"/certificates/{ref(new.certificate)}", certificate=new.certificate).json
    assert shown["delivered_at"] == timestamp(NOW + 60)
    rest.clock.at = NOW + 60 + DAY
    answer = rest.post("/renew", {"csr": Holder().csr_text()}, certificate=old.certificate)
    assert (answer.status_code, answer.json["code"]) == (403, "superseded")
    assert rest.get(f"/certificates/{ref(old.certificate)}", certificate=new.certificate).json["state"] == "superseded"


def test_P9_a_delivery_that_is_not_ones_own_is_refused(rest: Rest) -> None:
    old, other = rest.enrolled(), rest.enrolled("pump-18")
    new = _renewed(rest, old)
    message = old.message(Act.confirm, target=ref(new.certificate))
    unknown = {"issuer": "issuing", "serial": "1234"}
    refusals: list[tuple[dict[str, Any], bytes | None, str]] = [
        ({"successor": _named(new)}, other.certificate, "not-your-successor"),
        ({"successor": _named(new)}, new.certificate, "not-your-successor"),
        ({"successor": unknown}, old.certificate, "not-your-successor"),
        ({"successor": _named(new)}, None, "certificate-required"),
        ({"successor": unknown, "message": message}, None, "message-for-another-act"),
    ]
    for body, certificate, code in refusals:
        answer = rest.post("/confirm", body, certificate=certificate)
        assert (answer.status_code, answer.json["code"]) == (403, code)
    for successor in ({"issuer": "issuing"}, {"issuer": "../x", "serial": "1"}, {"issuer": "issuing", "serial": "0"}, "issuing/1", None):
        assert rest.post("/confirm", {"successor": successor}, certificate=old.certificate).status_code == 400
    assert rest.door.rows[ref(old.certificate)].grace_ends_at is None


def test_a_signed_message_renews_where_tls_cannot(rest: Rest) -> None:
    old = rest.enrolled(algorithm="ml-dsa-44")
    new = Holder("ml-dsa-44")
    answer = rest.post("/renew", {"message": old.message(Act.renew, csr=new.csr())})
    assert answer.status_code == 201
    new.certificate = x509.load_pem_x509_certificate(answer.json["certificate"].encode()).public_bytes(Encoding.DER)
    assert rest.post("/confirm", {"message": new.message(Act.confirm)}).json["renews"] == str(ref(old.certificate))


def _revoked(rest: Rest, holder: Holder) -> bytes | None:
    assert rest.post("/revoke", {"reason": "keyCompromise"}, certificate=holder.certificate).status_code == 200
    return holder.certificate


def _expired(rest: Rest, holder: Holder) -> bytes | None:
    rest.clock.at += 8 * DAY
    return holder.certificate


def _look_alike(rest: Rest, holder: Holder) -> bytes | None:
    other = Rest()  # another CA of the same names
    return other.enrolled().certificate


def _bent(rest: Rest, holder: Holder) -> bytes | None:
    assert holder.certificate is not None
    return holder.certificate[:-1] + bytes([holder.certificate[-1] ^ 1])


NOT_RENEWED: list[Any] = [
    pytest.param(lambda rest, holder: None, "certificate-required", id="no certificate was presented"),
    pytest.param(_revoked, "certificate-revoked", id="it is revoked"),
    pytest.param(_expired, "certificate-expired", id="it has expired"),
    pytest.param(_look_alike, "certificate-unknown", id="it is of another CA of the same names"),
    pytest.param(_bent, "certificate-unknown", id="one bit of it differs"),
]


@pytest.mark.parametrize("make, code", NOT_RENEWED)
def test_R34_a_renewal_is_refused(rest: Rest, make: Callable[[Rest, Holder], bytes | None], code: str) -> None:
    presented = make(rest, rest.enrolled())
    with capture_logs() as log:
        answer = rest.post("/renew", {"csr": Holder().csr_text()}, certificate=presented)
    assert (answer.status_code, answer.json["code"]) == (403, code)
    assert [line["code"] for line in log] == [code]


def test_garbage_as_a_certificate_is_the_clients_fault(rest: Rest) -> None:
    for octets in (b"\x00", b"\x30\x82\xff\xff", b"x" * 5000):
        assert rest.post("/renew", {"csr": Holder().csr_text()}, certificate=octets).status_code in (400, 403)


@pytest.mark.parametrize(
    "name", ["X-Client-Cert", "X-SSL-Client-Cert", "X-Forwarded-Client-Cert", "X-Client_Cert", "Fleetca.peer_certificate"]
)
def test_R18_no_header_stands_for_a_certificate(rest: Rest, name: str) -> None:
    certificate = base64.b64encode(rest.operator().certificate or b"").decode()
    answer = rest.get("/certificates", headers={name: certificate})
    assert (answer.status_code, answer.json["code"]) == (403, "certificate-required")


MESSAGES_REFUSED: list[Any] = [
    pytest.param({"audience": "other"}, "message-for-another-deployment", id="it is for another deployment"),
    pytest.param({"at": NOW - 3601}, "message-out-of-time", id="it is too old"),
    pytest.param({"at": NOW + 3601}, "message-out-of-time", id="it comes from the future"),
]


@pytest.mark.parametrize("change, code", MESSAGES_REFUSED)
def test_a_signed_renewal_is_refused(rest: Rest, change: dict[str, Any], code: str) -> None:
    old = rest.enrolled()
    answer = rest.post("/renew", {"message": old.message(Act.renew, csr=Holder().csr(), **change)})
    assert (answer.status_code, answer.json["code"]) == (403, code)


def test_a_message_for_one_act_serves_no_other(rest: Rest) -> None:
    old = rest.enrolled()
    answer = rest.post("/renew", {"message": old.message(Act.confirm)})
    assert (answer.status_code, answer.json["code"]) == (403, "message-for-another-act")


def test_a_message_with_a_wrong_signature_is_refused(rest: Rest) -> None:
    old, other = rest.enrolled("a"), rest.enrolled("b")
    message = old.message(Act.renew, csr=Holder().csr())
    message["signature"] = other.message(Act.renew, csr=Holder().csr())["signature"]
    answer = rest.post("/renew", {"message": message})
    assert (answer.status_code, answer.json["code"]) == (403, "bad-signature")


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b"\xff", b'{"act":"renew"}', b"[" * 9000, b'{"act":' * 5000])
def test_a_payload_that_cannot_be_read_is_the_clients_fault(rest: Rest, payload: bytes) -> None:
    old = rest.enrolled()
    for path in ("/renew", "/confirm", "/revoke", "/tokens", "/certificates"):
        answer = rest.post(path, {"message": old.sign(payload)})
        assert (answer.status_code, answer.json["code"]) == (400, "bad-message")


# ---- Revoke ---------------------------------------------------------------------------------------------------------


def test_a_device_gives_up_its_own_certificate(rest: Rest) -> None:
    holder = rest.enrolled()
    answer = rest.post("/revoke", {"reason": "cessationOfOperation"}, certificate=holder.certificate)
    assert [one["reason"] for one in answer.json["revoked"]] == ["cessationOfOperation"]
    assert rest.door.rows[ref(holder.certificate)].revocation is not None


def test_a_device_may_not_say_what_is_for_operators(rest: Rest) -> None:
    answer = rest.post("/revoke", {"reason": "privilegeWithdrawn"}, certificate=rest.enrolled().certificate)
    assert answer.status_code == 403


def test_an_operator_revokes_a_certificate_and_a_device(rest: Rest) -> None:
    operator, one, two = rest.operator(), rest.enrolled("pump-1"), rest.enrolled("pump-2")
    message = operator.message(Act.revoke, reason=Reason.keyCompromise, target=ref(one.certificate))
    assert len(rest.post("/revoke", {"message": message}).json["revoked"]) == 1
    message = operator.message(Act.revoke, reason=Reason.privilegeWithdrawn, device="pump-2")
    assert len(rest.post("/revoke", {"message": message}).json["revoked"]) == 1
    answer = rest.post("/renew", {"csr": Holder().csr_text()}, certificate=two.certificate)
    assert answer.status_code == 403


def test_what_does_not_exist_cannot_be_revoked(rest: Rest) -> None:
    message = rest.operator().message(Act.revoke, reason=Reason.keyCompromise, target=CertificateRef(IssuerId("issuing"), Serial(7)))
    assert rest.post("/revoke", {"message": message}).status_code == 404


# ---- What operators ask for -----------------------------------------------------------------------------------------


def test_an_operators_message_makes_a_token_that_enrols(rest: Rest) -> None:
    message = rest.operator().message(Act.create_token, device="pump-9", profile=ProfileName("device"), lifetime=600)
    answer = rest.post("/tokens", {"message": message})
    assert answer.status_code == 201
    assert rest.post("/enroll", {"token": answer.json["token"], "csr": Holder().csr_text()}).json["device"] == "pump-9"


def test_a_device_makes_no_tokens(rest: Rest) -> None:
    message = rest.enrolled().message(Act.create_token, device="pump-9", profile=ProfileName("device"), lifetime=600)
    assert rest.post("/tokens", {"message": message}).status_code == 403


def test_an_unknown_profile_is_said_to_be_unknown(rest: Rest) -> None:
    message = rest.operator().message(Act.create_token, device="pump-9", profile=ProfileName("gadget"), lifetime=600)
    answer = rest.post("/tokens", {"message": message})
    assert (answer.status_code, answer.json["code"]) == (404, "profile-unknown")


def test_an_operators_message_issues(rest: Rest) -> None:
    message = rest.operator().message(Act.issue, device="pump-9", profile=ProfileName("device"), csr=Holder().csr())
    assert rest.post("/certificates", {"message": message}).status_code == 201


# ---- Look -----------------------------------------------------------------------------------------------------------


def test_operators_search_page_by_page(rest: Rest) -> None:
    operator = rest.operator()
    for number in range(5):
        rest.enrolled(f"pump-{number}")
    seen: list[str] = []
    cursor = ""
    while True:
        page = rest.get(f"/certificates?limit=2{cursor}", certificate=operator.certificate).json
        seen += [row["device"] for row in page["certificates"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert sorted(seen) == ["fleetca:operator:alice", *(f"pump-{number}" for number in range(5))]


def test_a_search_finds_by_each_of_its_parameters(rest: Rest) -> None:
    operator, holder = rest.operator(), rest.enrolled("pump-3")
    rest.enrolled("pump-4")
    row = rest.door.rows[ref(holder.certificate)]
    asked = {
        "device": "pump-3",
        "subject": "CN=pump-3",
        "san": "pump-3",
        "serial": f"{row.ref.serial:x}",
        "key": row.spki_sha256.hex(),
        "expires_before": "2027-01-23T00:00:00Z",
    }
    for name, value in asked.items():
        found = rest.get(f"/certificates?{name}={value}", certificate=operator.certificate).json["certificates"]
        assert "pump-3" in {one["device"] for one in found}, name
        assert len(found) == (2 if name == "expires_before" else 1), name
    rest.post("/revoke", {"reason": "superseded"}, certificate=holder.certificate)
    found = rest.get("/certificates?state=revoked", certificate=operator.certificate).json["certificates"]
    assert [one["device"] for one in found] == ["pump-3"]


@pytest.mark.parametrize(
    "roles, disabled, status",
    [
        pytest.param(("auditor",), False, 200, id="an auditor may look"),
        pytest.param(("janitor",), False, 403, id="a role that gives nothing"),
        pytest.param(("admin",), True, 403, id="an operator who was disabled"),
    ],
)
def test_who_may_search(rest: Rest, roles: tuple[str, ...], disabled: bool, status: int) -> None:
    operator = rest.operator("bob", *roles)
    if disabled:
        name, row = next(iter(rest.door.operators_.items()))
        rest.door.operators_[name] = dataclasses.replace(row, disabled_at=NOW)
    assert rest.get("/certificates", certificate=operator.certificate).status_code == status


def test_devices_and_strangers_may_not_search(rest: Rest) -> None:
    assert rest.get("/certificates").status_code == 403
    assert rest.get("/certificates", certificate=rest.enrolled().certificate).status_code == 403
    gone = rest.operator()
    target = ref(gone.certificate)
    asked = {"message": gone.message(Act.revoke, reason=Reason.keyCompromise, target=target)}
    assert rest.post("/revoke", {"reason": "keyCompromise"}, certificate=gone.certificate).json["code"] == "not-by-presenting"
    assert rest.post("/revoke", asked).status_code == 200
    assert rest.get("/certificates", certificate=gone.certificate).status_code == 403


def test_a_device_sees_its_own_certificate_and_no_other(rest: Rest) -> None:
    one, two = rest.enrolled("pump-1"), rest.enrolled("pump-2")
    shown = rest.get(f"/certificates/{ref(one.certificate)}", certificate=one.certificate)
    assert shown.json["device"] == "pump-1"
    octets = rest.get(f"/certificates/{ref(one.certificate)}", certificate=one.certificate, headers={"Accept": "application/pkix-cert"})
    assert octets.data == one.certificate
    hidden = rest.get(f"/certificates/{ref(one.certificate)}", certificate=two.certificate)
    absent = rest.get("/certificates/issuing/01", certificate=two.certificate)
    assert (hidden.status_code, hidden.json["detail"]) == (absent.status_code, absent.json["detail"]) == (404, absent.json["detail"])


def test_a_receipt_waits_for_the_record(rest: Rest) -> None:
    holder = rest.enrolled()
    path = f"/certificates/{ref(holder.certificate)}/receipt"
    leaf = rest.door.rows[ref(holder.certificate)].leaf
    rest.pending.add(leaf)
    answer = rest.get(path, certificate=holder.certificate)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    rest.pending.clear()
    assert rest.get(path, certificate=holder.certificate).json == {"leaf": leaf.hex()}
    assert rest.get(path).status_code == 403


def test_chain_and_bundle_are_for_everybody(rest: Rest) -> None:
    issuing, root = x509.load_pem_x509_certificates(rest.get("/ca/chain").data)
    issuing.verify_directly_issued_by(root)
    assert x509.load_pem_x509_certificates(rest.get("/ca/bundle").data) == [root]
    assert rest.get("/ca/bundle").headers["Cache-Control"] == "max-age=300"


# ---- Strangers ------------------------------------------------------------------------------------------------------

POSTS = tuple(operation.path for operation in OPERATIONS if operation.method == "POST")
HOSTILE: list[Any] = [
    pytest.param(b"[]", "application/json", 400, id="a list in place of an object"),
    pytest.param(b"{", "application/json", 400, id="half an object"),
    pytest.param(b"", "application/json", 400, id="nothing"),
    pytest.param(b"\xff\xff", "application/json", 400, id="octets that are not UTF-8"),
    pytest.param(b"[" * 60_000, "application/json", 400, id="sixty thousand brackets"),
    pytest.param(b'{"a":1}', "application/json", 400, id="an unknown field"),
    pytest.param(b'{"token":1,"csr":2,"message":3,"reason":4}', "application/json", 400, id="every field of the wrong type"),
    pytest.param(b"{}", "text/plain", 415, id="text"),
    pytest.param(b"a=b", "application/x-www-form-urlencoded", 415, id="a form"),
    pytest.param(b"--x\r\n\r\n--x--", "multipart/form-data; boundary=x", 415, id="a form in parts"),
    pytest.param(b"{}", "", 415, id="no type at all"),
    pytest.param(b" " * 65_537, "application/json", 413, id="one octet too many"),
    pytest.param(b"x" * (10 << 20), "application/json", 413, id="ten megabytes"),
]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("body, media, status", HOSTILE)
def test_hostile_bodies_are_refused_without_harm(rest: Rest, path: str, body: bytes, media: str, status: int) -> None:
    answer = rest.post(path, data=body, content_type=media)
    if path == "/confirm" and not body:
        status = 403  # an empty body is lawful there; the certificate is missing
    assert answer.status_code == status
    assert answer.json["fix"] or answer.json["detail"]
    assert not rest.door.asked


def test_a_body_without_a_stated_length_is_bounded_and_never_cut(rest: Rest) -> None:
    padded = b'{"token": "enr_x", "csr": "x"}' + b" " * 70_000  # its beginning alone would be lawful
    chunked = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True, "CONTENT_LENGTH": ""}
    answer = rest.client.post("/v1/enroll", data=padded, content_type="application/json", environ_overrides=chunked)
    assert (answer.status_code, answer.json["code"] if answer.json else None) == (413, "body-too-large")


def test_a_coded_body_is_not_unpacked(rest: Rest) -> None:
    answer = rest.post("/enroll", {}, headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json["code"]) == (415, "unsupported-media-type")


ODD: list[Any] = [
    pytest.param("GET", "/", 404, id="the root"),
    pytest.param("GET", "/v1", 404, id="the prefix alone"),
    pytest.param("GET", "//v1//ca/chain", 404, id="doubled slashes"),
    pytest.param("GET", "/v1/ca/chain/", 404, id="a slash at the end"),
    pytest.param("GET", "/v1/enroll", 405, id="a GET where a POST belongs"),
    pytest.param("DELETE", "/v1/certificates", 405, id="a DELETE"),
    pytest.param("OPTIONS", "/v1/enroll", 405, id="OPTIONS"),
    pytest.param("TRACE", "/v1/enroll", 405, id="TRACE"),
    pytest.param("PROPFIND", "/v1/ca/chain", 405, id="a method of another protocol"),
    pytest.param("GET", "/v1/../../etc/passwd", 404, id="a path upwards"),
    pytest.param("GET", "/v1/%00", 404, id="a zero octet"),
    pytest.param("GET", "/v1/\ud7ff", 404, id="a strange character"),
]


@pytest.mark.parametrize("method, path, status", ODD)
def test_what_is_no_operation_is_a_problem_too(rest: Rest, method: str, path: str, status: int) -> None:
    answer = rest.call(method, path)
    assert answer.status_code == status
    if status == 405:
        assert answer.headers["Allow"]


@pytest.mark.parametrize(
    "path",
    [
        "issuing/xyz",
        "issuing/%00",
        "..%2f..%2fetc/passwd",
        "ISSUING/01",
        "issuing/" + "f" * 41,
        "issuing/0",
        "%ff/%fe",
        "issuing/1' OR 1=1",
        "a" * 5000 + "/01",
    ],
)
def test_R30_an_impossible_name_is_not_found(rest: Rest, path: str) -> None:
    assert rest.get(f"/certificates/{path}", certificate=rest.operator().certificate).status_code == 404


@pytest.mark.parametrize(
    "query", ["device=%00", "device=%ff", "limit=99999999999999999999", "a=b", "cursor=%27", "serial=-1", "state=", "=", "%"]
)
def test_a_hostile_query_is_a_problem(rest: Rest, query: str) -> None:
    assert rest.get(f"/certificates?{query}", certificate=rest.operator().certificate).status_code == 400


def test_hostile_headers_do_no_harm(rest: Rest) -> None:
    for name, value in (
        ("Authorization", "Bearer \xff"),
        ("Authorization", "Bearer " + "x" * 9000),
        ("Accept", ";;;q=x,,"),
        ("Content-Length", "-5"),
    ):
        answer = rest.post("/enroll", data=Holder().csr(), content_type="application/pkcs10", headers={name: value})
        assert answer.status_code in (400, 401, 413)


# ---- Our own troubles -----------------------------------------------------------------------------------------------

TROUBLES: list[Any] = [
    pytest.param(
        Unavailable("signer-down", "The signer does not answer.", why="/srv/run/signer.sock", retry_after=7),
        503,
        "signer-down",
        "7",
        id="signer down",
    ),
    pytest.param(StoreUnavailable("disk-full", "The disk is full.", why="/srv/state"), 503, "disk-full", "5", id="disk full"),
    pytest.param(
        KeyUnavailable("wrong-passphrase", "No.", why="/srv/keys"), 503, "wrong-passphrase", "5", id="a key that cannot be opened"
    ),
    pytest.param(ClockUntrusted("clock-backwards", "No.", why="/srv"), 503, "clock-backwards", "5", id="the clock went backwards"),
    pytest.param(Busy("rate", "No.", why="/srv", retry_after=3), 429, "rate", "3", id="over the rate"),
    pytest.param(Broken("lint", "A certificate failed its lint.", why="/srv"), 500, "internal", None, id="a fault of ours"),
]


@pytest.mark.parametrize("trouble, status, code, retry_after", TROUBLES)
def test_our_troubles_are_told_without_our_secrets(rest: Rest, trouble: Any, status: int, code: str, retry_after: str | None) -> None:
    token, csr = rest.door.token(), Holder().csr_text()
    rest.door.troubles["signer"] = trouble
    with capture_logs() as log:
        answer = rest.client.post("/v1/enroll", json={"token": token, "csr": csr})
    assert (answer.status_code, answer.json["code"] if answer.json else None) == (status, code)
    assert answer.headers.get("Retry-After") == retry_after
    assert "/srv" not in answer.text
    assert any("/srv" in str(line.get("why")) for line in log)
    rest.door.troubles.clear()
    assert rest.post("/enroll", {"token": token, "csr": csr}).status_code == 201


def test_health_says_which_part_is_down(rest: Rest) -> None:
    assert rest.get("/health").json == {"status": "ready", "signer": True, "store": True, "root_present": False}
    rest.door.troubles["signer"] = Unavailable("signer-down", "The signer does not answer.")
    answer = rest.get("/health")
    assert (answer.status_code, answer.json) == (503, {"status": "degraded", "signer": False, "store": True, "root_present": False})


@pytest.mark.req("REQ-KEY-028")
def test_P4_health_says_that_a_root_s_key_is_open_where_one_is(rest: Rest) -> None:
    rest.door.root_present = True
    assert rest.get("/health").json["root_present"] is True


def test_a_mistake_of_ours_shows_no_traceback(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_request: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(rest.door, "issue", broken)
    with capture_logs() as log:
        answer = rest.client.post("/v1/enroll", json={"token": rest.door.token(), "csr": Holder().csr_text()})
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert answer.mimetype == "application/problem+json"
    assert {line["request_id"] for line in log} == {answer.headers["X-Request-Id"]}


# ---- The log --------------------------------------------------------------------------------------------------------


def test_R29_the_log_holds_no_secret_and_always_the_request_id(rest: Rest) -> None:
    tokens = [rest.door.token(f"pump-{n}") for n in range(4)]
    with capture_logs() as log:
        answers = [
            rest.post("/enroll", {"token": tokens[0], "csr": Holder().csr_text()}),
            rest.post("/enroll", {"token": tokens[1], "csr": "!"}),
            rest.post("/enroll", {"token": tokens[2] + "x", "csr": Holder().csr_text()}),
            rest.post("/enroll", {tokens[3]: 1}),
            rest.get(f"/enroll/{tokens[3]}"),
            rest.get(f"/ca/chain?token={tokens[3]}"),
            rest.post("/enroll", data=b"x", content_type="application/pkcs10", headers={"Authorization": f"Bearer {tokens[3]}"}),
        ]
    text = json.dumps(log)
    for token in tokens:
        assert token not in text
        assert token[4:20] not in text
    assert [line["request_id"] for line in log] == [answer.headers["X-Request-Id"] for answer in answers]
