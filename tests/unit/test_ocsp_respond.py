"""The pure answer: for every question and state of the world, what leaves, or what must be fetched first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cryptography.x509 import ocsp as library
from hypothesis import given, settings
from hypothesis import strategies as st

from ca.der import writer
from ca.model import CertificateRef, CertificateState, IssuerId, Reason, Revocation, Serial
from ca.rules.serial import is_ours, make_serial
from ocsp import respond
from ocsp.model import (
    GOOD,
    NEVER_ISSUED,
    UNKNOWN,
    Answer,
    Finished,
    Found,
    Miss,
    Policy,
    Question,
    Sign,
    Snapshot,
    Status,
    Unissued,
    Verdict,
)
from ocsp.rules.issuers import by_prefix, certificate_ids, status
from tests.fakes import ocsp as fakes
from tests.fakes.ocsp import HOUR, NOW

CHECK_KEY = b"k" * 32
SERIAL = make_serial(b"\x01" * 17, CHECK_KEY)
OTHER_SERIAL = make_serial(b"\x02" * 17, CHECK_KEY)
CA = fakes.authority()
ROOT = fakes.authority("root", key_here=False)
SECOND = fakes.authority("second")
FOREIGN = fakes.authority("foreign")
KEY = fakes.one_key("p256", "responder")
RESPONDER = fakes.seated(CA, KEY)
REF = CertificateRef(CA.issuer.id, SERIAL)
ID = fakes.certificate_id(CA.issuer, SERIAL)
ONE = fakes.request(ID)
WITH_NONCE = fakes.request(ID, extensions=[fakes.nonce_extension(b"n" * 32)])
REVOKED = Status(Verdict.revoked, NOW - 1000, Reason.keyCompromise)


def snapshot(**changes: Any) -> Snapshot:
    base = Snapshot(
        policy=Policy(),
        issuers=by_prefix([CA.issuer, ROOT.issuer, SECOND.issuer]),
        answered=frozenset({CA.issuer.id, SECOND.issuer.id}),
        responders={CA.issuer.id: RESPONDER},
        finished={},
        change=3,
        heard_at=NOW,
        is_ours=lambda serial: is_ours(serial, CHECK_KEY),
    )
    return replace(base, **changes)


def known(**statuses: Status) -> Found:
    return Found(statuses={REF: statuses.get("one", GOOD), CertificateRef(CA.issuer.id, OTHER_SERIAL): statuses.get("other", GOOD)})


def ask(question: Question, shot: Snapshot | None = None, *, now: int = NOW, found: Found = respond.NOTHING) -> Answer | Miss | Sign:
    return respond.answer(question, shot or snapshot(), now=now, found=found)


def signed(question: Question, shot: Snapshot | None = None, *, now: int = NOW, found: Found | None = None) -> Finished:
    draft = ask(question, shot, now=now, found=found or known())
    assert isinstance(draft, Sign), draft
    return respond.conclude(draft, KEY.sign(draft.tbs))


def error_of(answer: Answer | Miss | Sign) -> str:
    assert isinstance(answer, Answer), answer
    assert answer.status == 200
    return library.load_der_ocsp_response(answer.body).response_status.name


def entry(finished: Finished) -> library.OCSPResponse:
    return library.load_der_ocsp_response(finished.body)


def test_a_question_goes_through_Miss_and_Sign_to_an_answer() -> None:
    question = fakes.post(ONE)
    assert ask(question) == Miss((REF,))
    found = Found(statuses={REF: GOOD})
    draft = ask(question, found=found)
    assert isinstance(draft, Sign)
    assert draft.keep
    finished = respond.conclude(draft, KEY.sign(draft.tbs))
    answer = ask(question, found=replace(found, finished=finished))
    assert isinstance(answer, Answer)
    assert answer.body == finished.body
    assert answer.outcome == "good"
    # And the next one is answered from the working set: the same octets, by GET as by POST.
    shot = snapshot(finished={ID: finished})
    for later in (fakes.post(ONE), fakes.get(ONE)):
        again = ask(later, shot, now=NOW + 60)
        assert isinstance(again, Answer)
        assert again.body == finished.body


def test_P12_the_same_question_snapshot_and_time_give_the_same_octets_to_sign() -> None:
    drafts = [ask(fakes.post(WITH_NONCE), found=known()) for _ in range(3)]
    assert isinstance(drafts[0], Sign)
    assert drafts[0] == drafts[1] == drafts[2]


@pytest.mark.parametrize("hash_name", ["sha1", "sha256", "sha384", "sha512"])
@pytest.mark.parametrize("parameters", [b"", writer.NULL], ids=["absent", "NULL"])
def test_RFC6960_4_1_1_each_hash_is_answered_with_the_request_s_own_CertID(hash_name: str, parameters: bytes) -> None:
    octets = fakes.certificate_id(CA.issuer, SERIAL, hash_name=hash_name, parameters=parameters)
    finished = signed(fakes.post(fakes.request(octets)))
    assert octets in finished.body
    assert entry(finished).serial_number == SERIAL
    # Every one of them is forgotten when the certificate's status changes.
    assert octets in certificate_ids(CA.issuer, SERIAL)


def spoiled(place: int) -> bytes:
    """The CertID with one octet of a hash changed; places count from the end of the serial."""
    octets = bytearray(ID)
    octets[len(ID) - 22 - place] ^= 1
    return bytes(octets)


@pytest.mark.parametrize(
    ("octets", "error"),
    [
        pytest.param(fakes.certificate_id(FOREIGN.issuer, SERIAL), "UNAUTHORIZED", id="RFC 9919 3.2.3: an issuer that is not ours"),
        pytest.param(fakes.certificate_id(ROOT.issuer, SERIAL), "UNAUTHORIZED", id="P4: the offline root, for whom nobody here may speak"),
        pytest.param(spoiled(1), "UNAUTHORIZED", id="R16: the name is ours, the key hash is not"),
        pytest.param(spoiled(40), "UNAUTHORIZED", id="R16: the key is ours, the name hash is not"),
        pytest.param(
            writer.sequence(
                writer.sequence(writer.oid("1.2.840.113549.2.5"), writer.NULL),
                b"\x04\x10" + b"n" * 16,
                b"\x04\x10" + b"k" * 16,
                b"\x02\x01\x01",
            ),
            "UNAUTHORIZED",
            id="MD5",
        ),
    ],
)
def test_other_issuers_are_unauthorized(octets: bytes, error: str) -> None:
    assert error_of(ask(fakes.post(fakes.request(octets)), found=known())) == error


BOTH = fakes.request(ID, fakes.certificate_id(SECOND.issuer, OTHER_SERIAL, hash_name="sha1"))
OF_BOTH = Found(statuses={REF: GOOD, CertificateRef(SECOND.issuer.id, OTHER_SERIAL): REVOKED})


def test_R16_the_responder_of_one_issuer_never_answers_for_another() -> None:
    of_second = fakes.certificate_id(SECOND.issuer, SERIAL)
    # Ours, but without a responder now: later, and not by the other's.
    alone = ask(fakes.post(fakes.request(of_second)), found=Found(statuses={CertificateRef(SECOND.issuer.id, SERIAL): GOOD}))
    assert error_of(alone) == "TRY_LATER"
    assert error_of(ask(fakes.post(BOTH), found=OF_BOTH)) == "TRY_LATER"
    other_key = fakes.seated(SECOND, fakes.one_key("p256", "another"))
    shot = snapshot(responders={CA.issuer.id: RESPONDER, SECOND.issuer.id: other_key})
    assert error_of(ask(fakes.post(BOTH), shot, found=OF_BOTH)) == "TRY_LATER"
    assert error_of(ask(fakes.post(fakes.request(ID, fakes.certificate_id(ROOT.issuer, SERIAL))), found=known())) == "UNAUTHORIZED"


def test_RFC6960_4_2_2_2_certificates_of_several_issuers_are_answered_by_one_key_that_each_of_them_certified() -> None:
    shot = snapshot(responders={CA.issuer.id: RESPONDER, SECOND.issuer.id: fakes.seated(SECOND, KEY, life=HOUR // 2)})
    assert ask(fakes.post(BOTH), shot) == Miss((REF, CertificateRef(SECOND.issuer.id, OTHER_SERIAL)))
    finished = signed(fakes.post(BOTH), shot, found=OF_BOTH)
    found = entry(finished)
    assert [one.certificate_status.name for one in found.responses] == ["GOOD", "REVOKED"]
    for delegate, ca in zip(found.certificates, (CA, SECOND), strict=True):
        delegate.verify_directly_issued_by(ca.certificate)
        assert delegate.public_key() == KEY.private.public_key()
    assert finished.window.next_update == NOW + HOUR // 2 - 1, "it ends with the first of the delegates"


def test_P5_a_CA_certificate_renewed_for_the_same_name_and_key_is_asked_about_under_both() -> None:
    twin = replace(CA.issuer, id=IssuerId("twin"))
    shot = snapshot(issuers=by_prefix([CA.issuer, twin]), answered=frozenset({CA.issuer.id, twin.id}))
    assert set(shot.issuers.values()) == {(CA.issuer.id, twin.id)}
    under_twin = CertificateRef(twin.id, SERIAL)
    assert ask(fakes.post(ONE), shot) == Miss((REF, under_twin))
    for statuses, said in (
        ({REF: UNKNOWN, under_twin: GOOD}, GOOD),
        ({REF: REVOKED, under_twin: UNKNOWN}, REVOKED),
        ({REF: UNKNOWN, under_twin: UNKNOWN}, UNKNOWN),
    ):
        draft = ask(fakes.post(ONE), shot, found=Found(statuses=statuses))
        assert isinstance(draft, Sign)
        assert draft.statuses == (said,)


def test_an_issuer_may_have_a_policy_of_its_own_for_what_was_never_issued() -> None:
    policy = Policy(unissued_of={CA.issuer.id: Unissued.revoked})
    shot = snapshot(policy=policy, responders={CA.issuer.id: RESPONDER, SECOND.issuer.id: fakes.seated(SECOND, KEY)})
    draft = ask(fakes.post(BOTH), shot, found=Found(statuses=dict.fromkeys(OF_BOTH.statuses, UNKNOWN)))
    assert isinstance(draft, Sign)
    assert draft.statuses == (NEVER_ISSUED, UNKNOWN)


def test_RFC6960_4_2_2_3_certificates_of_foreign_issuers_are_unknown_beside_ours() -> None:
    foreign = fakes.certificate_id(FOREIGN.issuer, SERIAL)
    draft = ask(fakes.post(fakes.request(foreign, ID)), found=known())
    assert isinstance(draft, Sign)
    assert draft.statuses == (UNKNOWN, GOOD)
    assert not draft.keep
    # Also where the policy says revoked of what we never issued: that is not ours to say.
    draft = ask(fakes.post(fakes.request(foreign, ID)), snapshot(policy=Policy(unissued=Unissued.revoked)), found=known())
    assert isinstance(draft, Sign)
    assert draft.statuses == (UNKNOWN, GOOD)


def test_RFC6960_4_2_2_3_every_certificate_of_a_request_is_answered() -> None:
    other = fakes.certificate_id(CA.issuer, OTHER_SERIAL, hash_name="sha1")
    question = fakes.post(fakes.request(ID, other, ID))
    assert ask(question) == Miss((REF, CertificateRef(CA.issuer.id, OTHER_SERIAL)))
    finished = signed(question, found=known(other=REVOKED))
    singles = list(entry(finished).responses)
    assert [one.serial_number for one in singles] == [SERIAL, OTHER_SERIAL, SERIAL]
    assert [one.certificate_status.name for one in singles] == ["GOOD", "REVOKED", "GOOD"]
    assert finished.outcome == "several"
    assert finished.status is None


FORGED = Serial(SERIAL ^ 1)


@pytest.mark.parametrize(
    "serial",
    [
        pytest.param(FORGED, id="a serial whose check value is not ours"),
        pytest.param(0, id="zero"),
        pytest.param(-1, id="a negative serial"),
        pytest.param(1 << 160, id="a serial of 21 octets"),
        pytest.param(1 << 40000, id="a serial of 5000 octets"),
    ],
)
@pytest.mark.parametrize(
    ("unissued", "verdict"),
    [(Unissued.unknown, "UNKNOWN"), (Unissued.unauthorized, None), (Unissued.revoked, "REVOKED")],
    ids=["unknown", "unauthorized", "revoked"],
)
def test_P5_what_arithmetic_proves_never_issued_is_never_good_and_needs_no_database(
    serial: int, unissued: Unissued, verdict: str | None
) -> None:
    question = fakes.post(fakes.request(fakes.certificate_id(CA.issuer, serial)))
    shot = snapshot(policy=Policy(unissued=unissued))
    first = ask(question, shot)
    if verdict is None:
        assert error_of(first) == "UNAUTHORIZED"
        return
    assert isinstance(first, Sign)
    assert not first.keep
    finished = respond.conclude(first, KEY.sign(first.tbs))
    assert not finished.cacheable
    assert entry(finished).certificate_status.name == verdict
    reply = ask(question, shot, found=Found(finished=finished))
    assert isinstance(reply, Answer)
    assert ("Cache-Control", "no-store") in reply.headers
    assert "ETag" not in dict(reply.headers)


def test_without_a_check_key_every_possible_serial_is_asked_of_the_database() -> None:
    question = fakes.post(fakes.request(fakes.certificate_id(CA.issuer, FORGED)))
    assert ask(question, snapshot(is_ours=None)) == Miss((CertificateRef(CA.issuer.id, FORGED),))


CHANGE = Revocation(4, REF, Reason.keyCompromise, NOW - 9, NOW + HOUR, listed=True)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        pytest.param(None, UNKNOWN, id="not on record: unknown"),
        pytest.param((CertificateState.issued, None), GOOD, id="issued: good"),
        pytest.param((CertificateState.intended, None), UNKNOWN, id="P5: intended, not yet delivered: unknown"),
        pytest.param((CertificateState.void, None), UNKNOWN, id="void and not revoked: unknown"),
        pytest.param(
            (CertificateState.void, CHANGE), Status(Verdict.revoked, NOW - 9, Reason.keyCompromise), id="void and revoked: revoked"
        ),
        pytest.param(
            (CertificateState.intended, CHANGE), Status(Verdict.revoked, NOW - 9, Reason.keyCompromise), id="intended and revoked: revoked"
        ),
        pytest.param((CertificateState.issued, CHANGE), Status(Verdict.revoked, NOW - 9, Reason.keyCompromise), id="revoked"),
        pytest.param(
            (CertificateState.issued, replace(CHANGE, reason=Reason.certificateHold)),
            Status(Verdict.revoked, NOW - 9, Reason.certificateHold),
            id="RFC 6960 2.2: on hold is revoked",
        ),
        pytest.param(
            (CertificateState.issued, replace(CHANGE, reason=Reason.removeFromCRL)),
            Status(Verdict.good, NOW - 9),
            id="released: good again",
        ),
        pytest.param((CertificateState.void, replace(CHANGE, reason=Reason.removeFromCRL)), UNKNOWN, id="void and released: unknown"),
    ],
)
def test_P5_what_the_record_means(record: tuple[CertificateState, Revocation | None] | None, expected: Status) -> None:
    assert status(record) == expected


def test_thisUpdate_never_claims_a_status_before_it_was_true() -> None:
    late = Status(Verdict.revoked, NOW - 3, Reason.superseded)
    assert entry(signed(fakes.post(ONE), found=known(one=late))).this_update_utc == fakes.moment(NOW - 3)
    released = Status(Verdict.good, NOW - 2)
    assert entry(signed(fakes.post(ONE), found=known(one=released))).this_update_utc == fakes.moment(NOW - 2)
    assert entry(signed(fakes.post(ONE))).this_update_utc == fakes.moment(NOW - 60)


def test_RFC9654_2_1_the_nonce_is_echoed_and_the_answer_is_nobody_s_to_keep() -> None:
    draft = ask(fakes.post(WITH_NONCE), found=known())
    assert isinstance(draft, Sign)
    assert not draft.keep
    finished = respond.conclude(draft, KEY.sign(draft.tbs))
    (extension,) = entry(finished).extensions
    assert extension.value.nonce == b"n" * 32
    reply = ask(fakes.post(WITH_NONCE), found=Found(finished=finished))
    assert isinstance(reply, Answer)
    assert ("Cache-Control", "no-store") in reply.headers


def test_a_nonce_takes_the_status_of_a_fresh_finished_answer_and_asks_again_otherwise() -> None:
    shot = snapshot(finished={ID: signed(fakes.post(ONE))})
    assert isinstance(ask(fakes.post(WITH_NONCE), shot, now=NOW + 1), Sign)
    assert isinstance(ask(fakes.post(WITH_NONCE), shot, now=NOW + 3), Miss), "not heard for three seconds"
    assert isinstance(ask(fakes.post(WITH_NONCE), replace(shot, heard_at=NOW + 2000), now=NOW + 2000), Miss), "due for a fresh look"


# ---- P5 and P7: what goes on when the database, the signer or the key is gone ---------------------------------------

GONE = Found(unavailable=True)


@pytest.mark.parametrize(
    ("after", "question", "expected"),
    [
        pytest.param(60, fakes.post(ONE), "finished", id="fresh: the finished answer"),
        pytest.param(2000, fakes.post(ONE), "finished", id="P7: due for refresh, and still within nextUpdate: the finished answer"),
        pytest.param(2000, fakes.post(WITH_NONCE), "finished", id="P7, RFC 9654 2.1: with a nonce, the finished answer without one"),
        pytest.param(HOUR - 61, fakes.post(ONE), "TRY_LATER", id="P5: nextUpdate reached: tryLater"),
        pytest.param(
            60, fakes.post(fakes.request(fakes.certificate_id(CA.issuer, OTHER_SERIAL))), "TRY_LATER", id="P5: a miss is tryLater"
        ),
        pytest.param(60, fakes.post(fakes.request(ID, ID)), "TRY_LATER", id="P5: several are a miss: tryLater"),
    ],
)
def test_P7_with_the_database_gone(after: int, question: Question, expected: str) -> None:
    finished = signed(fakes.post(ONE))
    shot = snapshot(finished={ID: finished})
    answer = ask(question, shot, now=NOW + after, found=GONE)
    assert isinstance(answer, Answer)
    if expected == "finished":
        assert answer.body == finished.body
    else:
        assert error_of(answer) == expected
        assert ("Cache-Control", "no-store") in answer.headers


def test_P5_a_stale_answer_is_looked_at_again_while_the_database_is_there() -> None:
    shot = snapshot(finished={ID: signed(fakes.post(ONE))})
    assert ask(fakes.post(ONE), shot, now=NOW + 1799) == Miss((REF,))


def test_P7_without_a_responder_what_is_finished_goes_on_and_the_rest_is_later() -> None:
    finished = signed(fakes.post(ONE))
    nobody = snapshot(responders={}, finished={ID: finished})
    stale = ask(fakes.post(ONE), nobody, now=NOW + 1799, found=known())
    assert isinstance(stale, Answer)
    assert stale.body == finished.body
    assert error_of(ask(fakes.post(ONE), replace(nobody, finished={}), found=known())) == "TRY_LATER"
    ended = replace(RESPONDER, not_after=NOW - 1)
    assert error_of(ask(fakes.post(ONE), snapshot(responders={CA.issuer.id: ended}), found=known())) == "TRY_LATER"


def test_RFC6960_4_1_1_more_certificates_than_allowed_are_malformed() -> None:
    assert error_of(ask(fakes.post(fakes.request(*[ID] * 33)))) == "MALFORMED_REQUEST"
    assert isinstance(ask(fakes.post(fakes.request(*[ID] * 32))), Miss)


def test_HEAD_has_the_headers_of_GET_and_no_body() -> None:
    shot = snapshot(finished={ID: signed(fakes.post(ONE))})
    get = ask(fakes.get(ONE), shot)
    head = ask(replace(fakes.get(ONE), method="HEAD"), shot)
    assert isinstance(get, Answer)
    assert isinstance(head, Answer)
    assert head.headers == get.headers
    assert head.body == b""
    assert get.body


def test_P11_there_are_few_templates_whatever_clients_ask() -> None:
    found = set()
    for number in range(60):
        foreign = writer.sequence(
            writer.sequence(writer.oid(f"1.2.3.{number}")), writer.octet_string(b""), writer.octet_string(b""), writer.integer(number)
        )
        draft = ask(fakes.post(fakes.request(foreign, ID)), found=known())
        assert isinstance(draft, Sign)
        found.add(draft.template)
    assert len(found) == 1


@given(st.binary(max_size=300), st.sampled_from(["GET", "POST", "HEAD", "PUT"]), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_question_gives_an_answer_with_a_lawful_status(body: bytes, method: str, encoded: bool) -> None:
    question = replace(fakes.get(body) if encoded else fakes.post(body), method=method)
    found = ask(question, found=GONE)
    assert isinstance(found, Answer)
    assert found.status in (200, 404, 405)
