"""Every row of RFC 6960, RFC 9654 and RFC 9919 that concerns a responder, on the wire, against every server arrangement that we ship."""

from __future__ import annotations

import base64
import hashlib
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as library
from cryptography.x509.oid import ExtendedKeyUsageOID

from ca.der import reader, writer
from ca.model import Reason
from ca.rules.serial import make_serial
from ocsp.model import MAX_OCTETS, Policy, Unissued
from tests.fakes import ocsp as fakes
from tests.fakes.ocsp import DAY, HOUR, NOW, World
from tests.fakes.ocsp_fleet import CHECK_KEY, FOREIGN, GOOD, HELD, REVOKED, ROLLED, ROOT, SECOND, UNISSUED, new_world
from tests.fakes.ocsp_wire import ARRANGEMENTS, Client, Reply, raw

HASHES = ["sha1", "sha256", "sha384", "sha512"]


class Served:
    """A world and a client of it."""

    def __init__(self, world: World, client: Client) -> None:
        self.world, self.client = world, client

    def about(self, *serials: int, extensions: tuple[bytes, ...] = (), **form: object) -> bytes:
        ids = [fakes.certificate_id(self.world.ca.issuer, serial, **form) for serial in serials]  # type: ignore[arg-type]
        return fakes.request(*ids, extensions=extensions)

    def post(self, *serials: int, extensions: tuple[bytes, ...] = (), **form: object) -> Reply:
        return self.client.post(self.about(*serials, extensions=extensions, **form))

    def get(self, request: bytes, **headers: str) -> Reply:
        return self.client.ask("GET", target(request), headers=headers)


def target(request: bytes) -> str:
    return "/ocsp/" + quote(base64.b64encode(request).decode(), safe="")


@pytest.fixture(params=list(ARRANGEMENTS))
def arrangement(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def served(arrangement: str) -> Iterator[Served]:
    yield from serving(arrangement, new_world())


def serving(arrangement: str, world: World) -> Iterator[Served]:
    with ARRANGEMENTS[arrangement](world) as port:
        client = Client(port)
        yield Served(world, client)
        client.close()


def one(reply: Reply) -> library.OCSPSingleResponse:
    (found,) = reply.told.responses
    return found


# ---- 1 CertID -----------------------------------------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-010")
@pytest.mark.parametrize("hash_name", HASHES)
@pytest.mark.parametrize("parameters", [b"", writer.NULL], ids=["absent", "NULL"])
def test_RFC6960_4_1_1_every_hash_is_answered_with_the_CertID_of_the_request(served: Served, hash_name: str, parameters: bytes) -> None:
    for _ in range(2):  # the second time it is finished
        for serial, said in ((GOOD, "GOOD"), (REVOKED, "REVOKED"), (UNISSUED, "UNKNOWN")):
            asked = fakes.certificate_id(served.world.ca.issuer, serial, hash_name=hash_name, parameters=parameters)
            for reply in (served.client.post(fakes.request(asked)), served.get(fakes.request(asked))):
                assert reply.said == said
                assert asked in reply.body
                assert one(reply).serial_number == serial


def test_RFC6960_4_1_1_serials_are_compared_as_integers_and_never_issued_forms_are_never_good(served: Served) -> None:
    padded = fakes.certificate_id(served.world.ca.issuer, GOOD).replace(b"\x02\x14", b"\x02\x15\x00")
    padded = bytes([padded[0], padded[1] + 1]) + padded[2:]
    assert served.client.post(fakes.request(padded)).said == "MALFORMED_REQUEST", "an INTEGER that is not DER"
    for serial in (0, -1, 1, 1 << 159, 1 << 2000):
        assert served.post(serial).said == "UNKNOWN"


def test_RFC6960_4_1_1_name_and_key_of_the_issuer_are_both_compared(served: Served) -> None:
    asked = fakes.certificate_id(served.world.ca.issuer, GOOD)
    for at in (25, 60):
        changed = bytearray(asked)
        changed[at] ^= 1
        assert served.client.post(fakes.request(bytes(changed))).said == "UNAUTHORIZED"


def test_RFC6960_2_7_old_and_new_generations_of_an_issuer_answer_each_with_its_own_delegate(served: Served) -> None:
    for ca in (served.world.ca, ROLLED):
        for hash_name in HASHES:
            told = served.client.post(fakes.request(fakes.certificate_id(ca.issuer, GOOD, hash_name=hash_name))).told
            assert told.certificate_status is library.OCSPCertStatus.GOOD
            told.certificates[0].verify_directly_issued_by(ca.certificate)
    assert served.client.post(fakes.request(fakes.certificate_id(ROLLED.issuer, REVOKED))).said == "UNKNOWN"


# ---- 2 ResponderID, 3 delegates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("hash_name", HASHES)
def test_RFC9654_A1_the_responder_is_named_by_SHA1_of_its_key_whatever_the_request_hashes_with(served: Served, hash_name: str) -> None:
    told = served.post(GOOD, hash_name=hash_name).told
    assert told.responder_name is None
    assert told.responder_key_hash == x509.SubjectKeyIdentifier.from_public_key(told.certificates[0].public_key()).digest


def test_RFC6960_4_2_2_2_the_delegate_is_signed_by_the_CA_of_the_request_and_is_for_OCSP_alone(served: Served) -> None:
    for ca in (served.world.ca, SECOND, ROLLED):
        told = served.client.post(fakes.request(fakes.certificate_id(ca.issuer, GOOD))).told
        (delegate,) = told.certificates
        delegate.verify_directly_issued_by(ca.certificate)
        assert list(delegate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.OCSP_SIGNING]
        assert not delegate.extensions.get_extension_for_class(x509.OCSPNoCheck).critical
        delegate.public_key().verify(told.signature, told.tbs_response_bytes, fakes.es256())  # type: ignore[union-attr,call-arg,arg-type]


# ---- 4 Several certificates ---------------------------------------------------------------------------------------------


def test_RFC6960_4_2_2_3_every_certificate_of_a_request_is_answered_in_its_order(served: Served) -> None:
    reply = served.post(REVOKED, GOOD, UNISSUED, GOOD)
    assert reply.said == "REVOKED GOOD UNKNOWN GOOD"
    assert [single.serial_number for single in reply.told.responses] == [REVOKED, GOOD, UNISSUED, GOOD]
    assert "cache-control" in reply.headers


def test_RFC6960_4_2_2_2_certificates_of_several_issuers_are_answered_by_one_key_that_each_of_them_certified(served: Served) -> None:
    ids = [
        fakes.certificate_id(ca.issuer, GOOD, hash_name=name)
        for ca, name in ((SECOND, "sha1"), (served.world.ca, "sha256"), (ROLLED, "sha1"))
    ]
    reply = served.client.post(fakes.request(*ids, extensions=[fakes.nonce_extension(b"n" * 32)]))
    assert reply.said == "GOOD GOOD GOOD"
    for delegate, ca in zip(reply.told.certificates, (SECOND, served.world.ca, ROLLED), strict=True):
        delegate.verify_directly_issued_by(ca.certificate)
        delegate.public_key().verify(reply.told.signature, reply.told.tbs_response_bytes, fakes.es256())  # type: ignore[union-attr,call-arg,arg-type]


def test_RFC6960_4_2_2_3_foreign_issuers_are_unknown_beside_ours_and_unauthorized_alone(served: Served) -> None:
    foreign, mine = (fakes.certificate_id(ca.issuer, GOOD) for ca in (FOREIGN, served.world.ca))
    assert served.client.post(fakes.request(foreign, mine)).said == "UNKNOWN GOOD"
    assert served.client.post(fakes.request(foreign)).said == "UNAUTHORIZED"
    for ids in ([fakes.certificate_id(ROOT.issuer, GOOD)], [mine, fakes.certificate_id(ROOT.issuer, GOOD)]):
        assert served.client.post(fakes.request(*ids)).said == "UNAUTHORIZED", "nobody here speaks for the offline root (P4)"


def test_R22_more_certificates_than_the_policy_allows_are_malformedRequest(served: Served) -> None:
    assert served.post(*[GOOD] * 32).said == " ".join(["GOOD"] * 32)
    assert served.post(*[GOOD] * 33).said == "MALFORMED_REQUEST"


# ---- 5 Never issued -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unissued", "said"),
    [
        pytest.param(Unissued.unknown, "UNKNOWN", id="RFC 6960 2.2: unknown"),
        pytest.param(Unissued.unauthorized, "UNAUTHORIZED", id="RFC 9919 3.2.3: unauthorized"),
        pytest.param(Unissued.revoked, "REVOKED", id="RFC 6960 2.2: revoked"),
    ],
)
@pytest.mark.parametrize("own", [False, True], ids=["of the deployment", "of the issuer alone"])
def test_RFC6960_2_2_never_issued_serials_by_policy(arrangement: str, unissued: Unissued, said: str, own: bool) -> None:
    policy = Policy(unissued_of={"issuing": unissued}) if own else Policy(unissued=unissued)  # type: ignore[dict-item]
    for served in serving(arrangement, new_world(policy)):
        for serial in (UNISSUED, 77):  # on record it is not; and arithmetic says no
            reply = served.post(serial)
            assert reply.said == said
            assert reply.headers["cache-control"] == "no-store", "negative answers are not kept (P5)"
            if said == "REVOKED":
                single = one(reply)
                assert single.revocation_reason is x509.ReasonFlags.certificate_hold
                assert single.revocation_time_utc == datetime(1970, 1, 1, tzinfo=UTC)
                (extended,) = reply.told.extensions
                assert (extended.oid.dotted_string, extended.critical) == ("1.3.6.1.5.5.7.48.1.9", False), "RFC 6960 4.4.8"
                assert not list(reply.told.single_extensions)
        other = served.client.post(fakes.request(fakes.certificate_id(SECOND.issuer, UNISSUED)))
        assert other.said == ("UNKNOWN" if own else said)


@pytest.mark.parametrize("unissued", list(Unissued), ids=lambda one: one.value)
def test_RFC6960_2_7_after_a_compromise_of_the_CA_all_that_bears_its_name_is_revoked(arrangement: str, unissued: Unissued) -> None:
    policy = Policy(unissued=unissued, compromised={"issuing": NOW - 500})  # type: ignore[dict-item]
    for served in serving(arrangement, new_world(policy)):
        for hash_name in HASHES:
            for _ in range(2):  # also when it is finished
                single = one(served.post(GOOD, hash_name=hash_name))
                assert single.certificate_status is library.OCSPCertStatus.REVOKED
                assert single.revocation_reason is x509.ReasonFlags.ca_compromise
                assert single.revocation_time_utc == fakes.moment(NOW - 500)
        before = one(served.post(REVOKED))
        assert before.revocation_reason is x509.ReasonFlags.key_compromise, "what was revoked before keeps its time and reason"
        assert before.revocation_time_utc == fakes.moment(NOW - 1000)
        kept = len(served.world.service.snapshot().finished)
        for serial in (UNISSUED, 77):
            reply = served.post(serial)
            assert reply.said == "REVOKED", "whoever has the key may have signed it"
            assert reply.headers["cache-control"] == "no-store"
        assert len(served.world.service.snapshot().finished) == kept, "made-up serials take no memory"
        nonce = one(served.post(GOOD, extensions=(fakes.nonce_extension(b"n" * 32),)))
        assert nonce.certificate_status is library.OCSPCertStatus.REVOKED
        assert served.client.post(fakes.request(fakes.certificate_id(SECOND.issuer, GOOD))).said == "GOOD", "another CA is another matter"


def test_no_request_writes_and_made_up_serials_cost_no_query_and_no_memory(served: Served) -> None:
    before = len(served.world.record.asked)
    for number in range(100):
        assert served.post((1 << 158) + number).said == "UNKNOWN"
    assert len(served.world.record.asked) == before
    assert not any(finished.status is None for finished in served.world.service.snapshot().finished.values())
    assert len(served.world.service.snapshot().finished) == 0


# ---- 6 Times ------------------------------------------------------------------------------------------------------------


def test_RFC6960_2_4_thisUpdate_is_when_the_status_was_known_and_producedAt_when_it_was_signed(served: Served) -> None:
    told = served.post(GOOD).told
    assert told.produced_at_utc == fakes.moment(NOW)
    assert told.this_update_utc == fakes.moment(NOW - 60), "back-dated for slow clocks"
    ref = next(ref for ref in served.world.record.states if ref.serial == HELD)
    served.world.record.change(ref, Reason.keyCompromise, NOW - 7)
    served.world.service.listen()
    told = served.post(HELD).told
    assert told.this_update_utc == fakes.moment(NOW - 7), "never before the last change of the status"
    for reply in (served.post(GOOD), served.post(GOOD, UNISSUED)):
        assert raw_times(reply.body), "GeneralizedTime with seconds and Z"


def raw_times(body: bytes) -> bool:
    times = [body[at + 2 : at + 17] for at in range(len(body)) if body[at : at + 2] == b"\x18\x0f"]
    return len(times) >= 3 and all(time[:-1].isdigit() and time.endswith(b"Z") for time in times)


@pytest.mark.parametrize("life", [2 * HOUR, 600], ids=["the policy's lifetime ends first", "the responder's certificate ends first"])
def test_R05_nextUpdate_is_never_past_the_policy_nor_the_responder(arrangement: str, life: int) -> None:
    for served in serving(arrangement, new_world(life=life)):
        for reply in (served.post(GOOD), served.post(GOOD, extensions=(fakes.nonce_extension(b"n" * 16),)), served.post(UNISSUED)):
            told = reply.told
            assert told.next_update_utc is not None
            assert told.next_update_utc == fakes.moment(min(NOW - 60 + HOUR - 1, NOW + life - 1))
            assert told.next_update_utc <= told.certificates[0].not_valid_after_utc


def test_P5_no_answer_leaves_with_nextUpdate_in_the_past(served: Served) -> None:
    assert served.post(GOOD).said == "GOOD"
    served.world.record.gone = True
    for key in served.world.keys:
        key.gone = True
    served.world.clock.time = NOW + HOUR - 62
    reply = served.post(GOOD)
    assert reply.said == "GOOD"
    assert reply.told.next_update_utc == fakes.moment(NOW + HOUR - 61)
    assert int(reply.headers["cache-control"].split(",")[0].removeprefix("max-age=")) == 0
    served.world.clock.time = NOW + HOUR - 61
    assert served.post(GOOD).said == "TRY_LATER"


# ---- 7 Errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x30", id="one octet"),
        pytest.param(b"\x30\x80\x00\x00", id="BER"),
        pytest.param(b"{}", id="JSON"),
        pytest.param(b"\xff" * 1000, id="noise"),
        pytest.param(b"\x30\x84\xff\xff\xff\xff", id="a length of 4 GiB"),
    ],
)
def test_RFC6960_4_2_1_garbage_is_malformedRequest_unsigned_with_http_200(served: Served, body: bytes) -> None:
    for reply in (served.client.post(body), *([served.get(body)] if body else [])):
        assert reply.said == "MALFORMED_REQUEST"
        assert reply.body == bytes.fromhex("30030a0101")


def test_RFC6960_2_3_tryLater_where_nobody_can_sign_or_the_database_is_gone(served: Served) -> None:
    served.world.record.gone = True
    assert served.post(GOOD).said == "TRY_LATER"
    served.world.record.gone = False
    served.world.keys[-1].gone = True
    assert served.post(GOOD).said == "TRY_LATER"


def test_RFC6960_4_1_1_a_signed_request_is_answered_and_another_version_is_not(served: Served) -> None:
    asked = fakes.certificate_id(served.world.ca.issuer, GOOD)
    signature = writer.explicit(0, writer.sequence(writer.sequence(writer.oid("1.2.840.10045.4.3.2")), writer.bit_string(b"s")))
    requestor = writer.explicit(1, writer.explicit(4, writer.sequence()))
    assert served.client.post(fakes.request(asked, requestor=requestor, signature=signature)).said == "GOOD"
    assert served.client.post(fakes.request(asked, version=writer.explicit(0, writer.integer(1)))).said == "MALFORMED_REQUEST"


# ---- 8 Nonces -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        pytest.param(0, "MALFORMED_REQUEST", id="RFC 9654 2.1: 0 octets"),
        pytest.param(1, "GOOD", id="1 octet"),
        pytest.param(15, "GOOD", id="15 octets"),
        pytest.param(16, "GOOD", id="16 octets"),
        pytest.param(32, "GOOD", id="32 octets"),
        pytest.param(128, "GOOD", id="128 octets"),
        pytest.param(129, "MALFORMED_REQUEST", id="RFC 9654 2.1: 129 octets"),
    ],
)
@pytest.mark.parametrize("critical", [False, True], ids=["not critical", "critical"])
@pytest.mark.parametrize("finished", [False, True], ids=["first", "beside a finished answer"])
def test_RFC9654_2_1_nonces(served: Served, octets: int, said: str, critical: bool, finished: bool) -> None:
    if finished:
        served.post(GOOD)
    nonce = bytes(range(1, octets + 1))
    body = served.about(GOOD, extensions=(fakes.nonce_extension(nonce, critical=critical),))
    for reply in (served.client.post(body), served.get(body)):
        assert reply.said == said
        assert reply.headers["cache-control"] == "no-store"
        if said == "GOOD":
            (echoed,) = reply.told.extensions
            assert isinstance(echoed.value, x509.OCSPNonce)
            assert echoed.value.nonce == nonce
            assert "etag" not in reply.headers


def test_R21_a_nonce_of_64_KiB_is_refused_unread(served: Served) -> None:
    assert served.post(GOOD, extensions=(fakes.nonce_extension(b"n" * MAX_OCTETS),)).status == 413
    assert served.post(GOOD, extensions=(fakes.nonce_extension(b"n" * 60000),)).said == "MALFORMED_REQUEST"
    assert served.post(GOOD).said == "GOOD"


def test_RFC9654_2_1_a_nonce_that_is_no_OCTET_STRING_or_stands_twice_is_malformedRequest(served: Served) -> None:
    bare = writer.extension("1.3.6.1.5.5.7.48.1.2", b"\x01\x02\x03", critical=False)
    twice = fakes.nonce_extension(b"n" * 16)
    assert served.post(GOOD, extensions=(bare,)).said == "MALFORMED_REQUEST"
    assert served.post(GOOD, extensions=(twice, twice)).said == "MALFORMED_REQUEST"


def test_P7_without_database_a_nonce_is_left_out_and_the_finished_answer_goes_on(served: Served) -> None:
    first = served.post(GOOD)
    served.world.record.gone = True
    served.world.clock.time += 5
    reply = served.post(GOOD, extensions=(fakes.nonce_extension(b"n" * 32),))
    assert reply.body == first.body


@pytest.mark.parametrize(
    ("critical", "said"),
    [pytest.param(True, "MALFORMED_REQUEST", id="critical: rejected"), pytest.param(False, "GOOD", id="not critical: ignored")],
)
@pytest.mark.parametrize("single", [False, True], ids=["of the request", "of one certificate"])
def test_RFC6960_4_4_unknown_extensions(served: Served, critical: bool, said: str, single: bool) -> None:
    unknown = writer.extension("1.3.6.1.4.1.99999.7", writer.NULL, critical=critical)
    asked = fakes.certificate_id(served.world.ca.issuer, GOOD)
    body = (
        fakes.request(asked, single_extensions=writer.explicit(0, writer.sequence(unknown)))
        if single
        else fakes.request(asked, extensions=[unknown])
    )
    assert served.client.post(body).said == said


# ---- 9 GET and POST -----------------------------------------------------------------------------------------------------


def tricky(world: World) -> tuple[int, bytes]:
    """A certificate whose request has `/`, `//`, `+` and padding in its base64."""
    for number in range(100_000):
        serial = make_serial(number.to_bytes(17, "little"), CHECK_KEY)
        body = fakes.request(fakes.certificate_id(world.ca.issuer, serial))
        text = base64.b64encode(body).decode()
        if "//" in text and "+" in text and text.endswith("="):
            world.record.issue("issuing", serial)
            return serial, body
    pytest.fail("no such serial")


def test_RFC6960_A1_GET_targets_however_clients_and_proxies_write_them(served: Served) -> None:
    _, body = tricky(served.world)
    text = base64.b64encode(body).decode()
    expected = served.client.post(body).body
    for path in (
        quote(text, safe=""), text, text.replace("/", "%2F"), text.replace("/", "%2f").replace("+", "%2b"), quote(text, safe="/"),
        text.rstrip("="), "/" + text, text.replace("+", "%20"), text + "?q=1",
    ):  # fmt: skip
        reply = served.client.ask("GET", "/ocsp/" + path)
        assert reply.said == "GOOD", path
        assert reply.body == expected
    absolute = served.client.ask("GET", f"http://127.0.0.1:{served.client.port}/ocsp/{quote(text, safe='')}")
    assert absolute.body == expected, "absolute form, as proxies send it (RFC 9112 3.2.2)"
    for path in (text.replace("+", "-"), text[:-3] + "%00", "%%%"):
        assert served.client.ask("GET", "/ocsp/" + path).said == "MALFORMED_REQUEST"


def test_RFC9110_9_3_2_HEAD_has_the_headers_of_GET(served: Served) -> None:
    where = target(served.about(GOOD))
    got, head = served.client.ask("GET", where), served.client.ask("HEAD", where)
    assert head.body == b""
    assert head.status == 200
    for name in ("content-type", "content-length", "etag", "last-modified", "expires", "cache-control"):
        assert head.headers[name] == got.headers[name], name


def test_RFC6960_A1_POST_takes_its_type_or_none_and_nothing_else(served: Served) -> None:
    body = served.about(GOOD)
    for kind in (None, "application/ocsp-request", "Application/OCSP-Request; x=y"):
        assert served.client.post(body, kind=kind).said == "GOOD"
    refused = served.client.post(body, kind="application/json")
    assert (refused.status, refused.headers["accept-post"]) == (415, "application/ocsp-request")
    assert served.client.ask("PUT", "/ocsp", body, {"Content-Type": "application/ocsp-request"}).status == 405
    assert served.client.ask("GET", "/nothing").status == 404
    assert served.client.post(bytes(MAX_OCTETS + 1)).status == 413
    assert served.client.post(bytes(MAX_OCTETS)).said == "MALFORMED_REQUEST"


# ---- 10 Caching ---------------------------------------------------------------------------------------------------------


def test_RFC9919_6_headers_of_answers_that_may_be_kept(served: Served) -> None:
    for reply in (served.post(GOOD), served.get(served.about(GOOD)), served.post(REVOKED)):
        told = reply.told
        assert told.next_update_utc is not None
        assert reply.headers["content-length"] == str(len(reply.body))
        assert reply.headers["etag"] == f'"{hashlib.sha256(reply.body).hexdigest()}"'
        assert parsedate_to_datetime(reply.headers["last-modified"]) == told.this_update_utc
        assert parsedate_to_datetime(reply.headers["expires"]) == told.next_update_utc
        age, *rest = reply.headers["cache-control"].split(", ")
        assert rest == ["public", "no-transform", "must-revalidate"]
        seconds = int(age.removeprefix("max-age="))
        assert 270 <= seconds <= 300
        assert fakes.moment(NOW + seconds) < told.next_update_utc
        assert "pragma" not in reply.headers


def test_RFC9110_13_1_2_an_entity_tag_that_still_holds_is_304(served: Served) -> None:
    where = served.about(GOOD)
    tag = served.get(where).headers["etag"]
    for value in (tag, f'"x", W/{tag}', "*"):
        reply = served.get(where, **{"If-None-Match": value})
        assert (reply.status, reply.body) == (304, b"")
        assert reply.headers["etag"] == tag
    assert served.get(where, **{"If-None-Match": '"other"'}).said == "GOOD"
    served.world.record.change(next(ref for ref in served.world.record.states if ref.serial == GOOD), Reason.keyCompromise, NOW)
    served.world.service.listen()
    assert served.get(where, **{"If-None-Match": tag}).said == "REVOKED"


# ---- 11 Archive cutoff, preferred algorithms, acceptable responses --------------------------------------------------------


def test_RFC6960_4_4_4_archive_cutoff_where_status_is_kept_after_expiry(arrangement: str) -> None:
    for served in serving(arrangement, new_world(Policy(archive=10 * 365 * DAY, unissued=Unissued.revoked))):
        for serial in (GOOD, REVOKED):
            for extensions in ((), (fakes.nonce_extension(b"n" * 32),)):
                (cutoff,) = served.post(serial, extensions=extensions).told.single_extensions
                assert (cutoff.oid.dotted_string, cutoff.critical) == ("1.3.6.1.5.5.7.48.1.6", False)
                value = cutoff.value.value  # type: ignore[attr-defined]
                assert reader.time(value, reader.only(value, 0x18)) == NOW - 10 * 365 * DAY
        assert not list(served.post(UNISSUED).told.single_extensions), "RFC 6960 4.4.8"


def test_RFC6960_4_4_7_preferred_algorithms_never_downgrade_and_4_4_3_basic_is_what_there_is(served: Served) -> None:
    weak = writer.sequence(writer.sequence(writer.sequence(writer.oid("1.2.840.113549.1.1.5"), writer.NULL)))
    preferred = writer.extension("1.3.6.1.5.5.7.48.1.8", weak, critical=False)
    told = served.post(GOOD, extensions=(preferred,)).told
    assert told.signature_algorithm_oid.dotted_string == "1.2.840.10045.4.3.2"
    basic, other = (writer.sequence(writer.oid(oid)) for oid in ("1.3.6.1.5.5.7.48.1.1", "1.2.3.4"))
    for accepted, critical, said in ((basic, True, "GOOD"), (other, False, "GOOD"), (other, True, "MALFORMED_REQUEST")):
        listed = writer.extension("1.3.6.1.5.5.7.48.1.4", accepted, critical=critical)
        assert served.post(GOOD, extensions=(listed,)).said == said


# ---- 12 Hold ------------------------------------------------------------------------------------------------------------


def test_RFC5280_5_3_1_hold_is_revoked_with_its_reason_and_release_is_good_again(served: Served) -> None:
    ref = next(ref for ref in served.world.record.states if ref.serial == HELD)
    assert served.post(HELD).said == "GOOD"
    served.world.record.change(ref, Reason.certificateHold, NOW - 30)
    served.world.service.listen()
    reply = served.post(HELD)
    assert reply.said == "REVOKED"
    assert one(reply).revocation_reason is x509.ReasonFlags.certificate_hold
    assert one(reply).revocation_time_utc == fakes.moment(NOW - 30)
    served.world.record.change(ref, Reason.removeFromCRL, NOW - 5)
    served.world.service.listen()
    reply = served.post(HELD)
    assert reply.said == "GOOD"
    assert reply.told.this_update_utc == fakes.moment(NOW - 5)


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.removeFromCRL], ids=lambda reason: reason.name)
def test_RFC6960_4_2_1_every_reason_is_told_but_unspecified_which_is_left_out(served: Served, reason: Reason) -> None:
    ref = next(ref for ref in served.world.record.states if ref.serial == HELD)
    served.world.record.change(ref, reason, NOW - 30)
    served.world.service.listen()
    told = one(served.post(HELD)).revocation_reason
    assert (None if told is None else told.name) == {"unspecified": None}.get(reason.name, snake(reason.name))


def snake(word: str) -> str:
    return {"cACompromise": "ca_compromise", "aACompromise": "aa_compromise"}.get(
        word, "".join(f"_{c.lower()}" if c.isupper() else c for c in word)
    )


def test_the_delegate_stands_whole_in_every_answer(served: Served) -> None:
    (delegate,) = served.post(GOOD).told.certificates
    assert delegate.public_bytes(Encoding.DER) == served.world.service.snapshot().responders[served.world.ca.issuer.id].certificate


def test_half_a_request_holds_nobody_up(served: Served, arrangement: str) -> None:
    if arrangement == "plain WSGI server":
        return  # a thread a connection: it is there to compare answers with
    lines = [socket.create_connection(("127.0.0.1", served.client.port)) for _ in range(50)]
    for line in lines:
        line.sendall(b"POST /ocsp HTTP/1.1\r\nHost: a\r\nContent-Length: 80\r\n\r\n\x30")
    assert served.post(GOOD).said == "GOOD"
    for line in lines:
        line.close()
    assert raw(served.client.port, b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")
