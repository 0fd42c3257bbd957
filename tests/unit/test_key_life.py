"""The life of a private key as SP 800-57 part 1, 7 has it, and what is asked of two witnesses before it ends (REQ-KEY-014, -069, -083)."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.errors import Conflict, Denied, FleetcaError, Malformed, Unauthenticated
from ca.key_life import find_record
from ca.model import (
    DEFAULT_TENANT,
    AlgorithmName,
    Destruction,
    Digest,
    KeyName,
    KeyOrigin,
    KeyPurpose,
    KeyRecord,
    KeyState,
    MessageEvidence,
    OperatorName,
    Protection,
    StoreAbility,
)
from ca.rules import destruction, key_life
from ca.rules.message import signed_octets
from fleetca.key_reality import compare
from tests.fakes.certificates import key

S, NOW = KeyState, 1_800_000_000
RECORD = KeyRecord(
    spki_sha256=Digest(b"\1" * 32),
    tenant=DEFAULT_TENANT,
    name=KeyName("issuing"),
    purpose=KeyPurpose.issuing_ca,
    origin=KeyOrigin.store,
    algorithm=AlgorithmName("p256"),
    spki=b"spki",
    store="pkcs11",
    place="pkcs11:token=a",
    protection=Protection.module,
    owner="deployment test",
    state=S.active,
    created=NOW - 100,
    period_ends=NOW + 100,
    changed=NOW - 100,
)

# compliance.md 3.4: P->A,C,D; A->S,De,C,D; S->A,De,C,D; De->C,D; C->D.
STANDARD = {
    S.pre_activation: {S.active, S.compromised, S.destroyed},
    S.active: {S.suspended, S.deactivated, S.compromised, S.destroyed},
    S.suspended: {S.active, S.deactivated, S.compromised, S.destroyed},
    S.deactivated: {S.compromised, S.destroyed},
    S.compromised: {S.destroyed},
    S.destroyed: set(),
}


@pytest.mark.req("REQ-KEY-083")
@pytest.mark.parametrize("purpose", KeyPurpose)
@pytest.mark.parametrize("before", S)
@pytest.mark.parametrize("after", S)
def test_a_move_is_lawful_exactly_where_the_standard_says_so(purpose: KeyPurpose, before: KeyState, after: KeyState) -> None:
    lawful = after in STANDARD[before] and not (purpose is not KeyPurpose.key_wrapping and after is S.deactivated)
    record = replace(RECORD, purpose=purpose, state=before)
    if lawful:
        moved, change = key_life.move(record, after, reason="because", actor="us", at=NOW)
        assert (moved.state, moved.changed) == (after, NOW)
        assert (change.before, change.after, change.reason, change.actor, change.at) == (before, after, "because", "us", NOW)
    else:
        with pytest.raises(Conflict) as refused:
            key_life.move(record, after, reason="because", actor="us", at=NOW)
        assert refused.value.code == "key-move-illegal"


@pytest.mark.req("REQ-KEY-083")
@given(steps=st.lists(st.sampled_from(S), max_size=12), purpose=st.sampled_from(KeyPurpose))
def test_however_a_key_is_pushed_it_stays_on_lawful_ways_and_never_comes_back(steps: list[KeyState], purpose: KeyPurpose) -> None:
    record, seen = replace(RECORD, purpose=purpose, state=S.pre_activation), [S.pre_activation]
    for step in steps:
        try:
            record, _ = key_life.move(record, step, reason="r", actor="a", at=NOW)
        except Conflict:
            continue
        assert step in STANDARD[seen[-1]]
        seen.append(step)
    assert S.active not in seen[seen.index(S.compromised) :] if S.compromised in seen else True
    assert seen[seen.index(S.destroyed) :] == [S.destroyed] if S.destroyed in seen else True


@pytest.mark.req("REQ-KEY-083")
@pytest.mark.parametrize("state", S)
def test_only_an_active_key_signs(state: KeyState) -> None:
    record = replace(RECORD, state=state)
    if state is S.active:
        key_life.check_signing(record)
        return
    with pytest.raises(Denied) as refused:
        key_life.check_signing(record)
    assert refused.value.code == "key-not-active"


def test_the_public_half_is_deactivated_where_the_private_one_is_destroyed_or_its_period_is_over() -> None:
    assert key_life.public_state(RECORD, now=NOW) is S.active
    assert key_life.public_state(RECORD, now=NOW + 101) is S.deactivated
    assert key_life.public_state(replace(RECORD, state=S.destroyed), now=NOW) is S.deactivated
    assert key_life.public_state(replace(RECORD, state=S.compromised), now=NOW) is S.compromised
    assert (key_life.overdue(RECORD, now=NOW + 101), key_life.overdue(RECORD, now=NOW)) == (True, False)


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501])
def test_a_move_needs_a_reason(reason: str) -> None:
    with pytest.raises(Malformed):
        key_life.move(RECORD, S.suspended, reason=reason, actor="us", at=NOW)


@pytest.mark.req("REQ-KEY-014")
@pytest.mark.parametrize("purpose", [*KeyPurpose, None])
def test_no_key_is_escrowed_but_a_cas(purpose: KeyPurpose | None) -> None:
    if purpose in {KeyPurpose.root_ca, KeyPurpose.issuing_ca}:
        key_life.check_escrow(purpose, name="k")
        return
    with pytest.raises(Denied) as refused:
        key_life.check_escrow(purpose, name="k")
    assert refused.value.code == "escrow-refused"


def test_a_key_is_found_by_name_or_digest_and_never_guessed() -> None:
    other = replace(RECORD, spki_sha256=Digest(b"\2" * 32), name=KeyName("log"))
    old = replace(RECORD, spki_sha256=Digest(b"\3" * 32), state=S.destroyed)
    assert find_record([RECORD, other, old], "issuing") is RECORD
    assert find_record([RECORD, other, old], "0303030303") is old
    for records, name, code in (
        ([RECORD], "x", "no-such-key-record"),
        ([RECORD, replace(other, name=RECORD.name)], "issuing", "key-name-ambiguous"),
        ([RECORD], "0101", "no-such-key-record"),
    ):
        with pytest.raises(FleetcaError) as refused:
            find_record(records, name)
        assert refused.value.code == code


# ---- Destruction --------------------------------------------------------------------------------------------------------

REQUEST = destruction.Request("test", NOW, "0123456789abcdef", "issuing", RECORD.spki_sha256, "end of its period")


def witness(name: str, payload: bytes) -> MessageEvidence:
    import datetime as dt

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    from tests.fakes.certificates import private_key

    private = private_key("p256", name)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(private.public_key()).serial_number(1)
        .not_valid_before(start).not_valid_after(start + dt.timedelta(days=1)).sign(private, hashes.SHA256())
    )  # fmt: skip
    return MessageEvidence(payload, certificate.public_bytes(Encoding.DER), key("p256", name).sign(signed_octets(payload)))


def certified(*names: str, payload: bytes | None = None) -> bytes:
    octets = REQUEST.write() if payload is None else payload
    witnesses = [destruction.Witnessed(OperatorName(name), witness(name, octets)) for name in names]
    done = Destruction(RECORD.name, StoreAbility("pkcs11", frozenset(), Protection.module, "a token"), (("asked again", "gone"),))
    return destruction.certificate(RECORD, octets, witnesses, done, deployment="test", at=NOW)


def test_a_request_survives_writing_and_reading() -> None:
    assert destruction.read(REQUEST.write()) == REQUEST
    destruction.check(REQUEST, RECORD, deployment="test", now=NOW + 3600)


BAD_REQUESTS = [
    pytest.param(b"", id="empty"),
    pytest.param(b"[]", id="a list"),
    pytest.param(b"[" * 100_000, id="deep"),
    pytest.param(REQUEST.write().replace(b"destroy-key", b"revoke"), id="another act"),
    pytest.param(REQUEST.write() + b" ", id="not canonical"),
    pytest.param(REQUEST.write().replace(b'"reason":"end of its period"', b'"reason":""'), id="no reason"),
    pytest.param(REQUEST.write().replace(b'"audience"', b'"audence"'), id="a misspelt field"),
    pytest.param(REQUEST.write().replace(str(NOW).encode(), b"true"), id="a time that is none"),
]


@pytest.mark.parametrize("payload", BAD_REQUESTS)
def test_what_is_no_request_is_refused(payload: bytes) -> None:
    with pytest.raises(Malformed) as refused:
        destruction.read(payload)
    assert refused.value.code == "bad-destruction-request"


ELSEWHERE = [
    pytest.param(replace(REQUEST, key="log"), NOW, "request-for-another-key", id="another name"),
    pytest.param(replace(REQUEST, spki_sha256=Digest(bytes(32))), NOW, "request-for-another-key", id="another key of that name"),
    pytest.param(replace(REQUEST, audience="prod"), NOW, "message-for-another-deployment", id="another deployment"),
    pytest.param(REQUEST, NOW + 86401, "message-out-of-time", id="a day old"),
    pytest.param(REQUEST, NOW - 301, "message-out-of-time", id="from the future"),
]


@pytest.mark.parametrize(("request_", "now", "code"), ELSEWHERE)
def test_a_request_is_for_one_key_here_and_now(request_: destruction.Request, now: int, code: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        destruction.check(request_, RECORD, deployment="test", now=now)
    assert refused.value.code == code


@pytest.mark.req("REQ-KEY-069")
def test_a_certificate_of_destruction_is_checked_by_itself() -> None:
    octets = certified("ada", "ben")
    request, who = destruction.verify_certificate(octets)
    assert (request, who) == (REQUEST, ("ada", "ben"))
    document = json.loads(octets)
    assert document["proof"] == [{"what": "asked again", "said": "gone"}]


@pytest.mark.req("REQ-KEY-069", "REQ-KEY-067")
@pytest.mark.parametrize("names", [(), ("ada",), ("ada", "ada")])
def test_fewer_than_two_witnesses_are_none(names: tuple[str, ...]) -> None:
    with pytest.raises(Unauthenticated) as refused:
        destruction.verify_certificate(certified(*names))
    assert refused.value.code == "witnesses-missing"


def test_two_names_with_one_key_are_one_witness() -> None:
    with pytest.raises(Unauthenticated):
        destruction.check_count(["ada", "ben"], {b"the same"})


def test_a_certificate_of_destruction_that_was_touched_is_refused() -> None:
    document = json.loads(certified("ada", "ben"))
    from ca.rules.leaf import canonical

    for change in (
        {"key": {**document["key"], "spki_sha256": "00" * 32}},
        {"request": document["witnesses"][0]["signature"]},
        {"witnesses": [{**document["witnesses"][0], "signature": document["witnesses"][1]["signature"]}, document["witnesses"][1]]},
    ):
        with pytest.raises((Malformed, Unauthenticated)):
            destruction.verify_certificate(canonical({**document, **change}) + b"\n")
    with pytest.raises(Malformed):
        destruction.verify_certificate(b"{}")


# ---- Inventory and reality ----------------------------------------------------------------------------------------------


def held(**change: object) -> dict[str, object]:
    import base64

    return {
        "name": "issuing",
        "algorithm": "p256",
        "spki": base64.b64encode(b"spki").decode(),
        "facts": {"sensitive": "True", "extractable": "False"},
        **change,
    }


def store(*keys: dict[str, object], **change: object) -> list[dict[str, object]]:
    usual = {"kind": "pkcs11", "about": "a token", "protection": "module", "algorithms": ["p256"], "places": [RECORD.place], "trouble": ""}
    return [{**usual, "keys": list(keys), **change}]


KNOWN = replace(RECORD, spki_sha256=Digest(__import__("hashlib").sha256(b"spki").digest()))
SEALED = replace(RECORD, store="sealed", place="sealed:a/issuing.key")


def sealed(folder: str, key: dict[str, object]) -> list[dict[str, object]]:
    return store(key, kind="sealed", about=folder, places=[f"sealed:{folder}/issuing.key"])


REALITY = [
    pytest.param([KNOWN], store(held()), [], id="all is as it says"),
    pytest.param([KNOWN], store(), ["no store that the settings name holds it"], id="a key is gone"),
    pytest.param(
        [KNOWN], store(places=["pkcs11:token=b"]), ["no store that the settings name holds it"], id="a key is gone, and so is its setting"
    ),
    pytest.param(
        [replace(KNOWN, purpose=KeyPurpose.log)], store(), ["no store that the settings name holds it"], id="the log's key is gone"
    ),
    pytest.param(
        [replace(KNOWN, purpose=KeyPurpose.responder)],
        store(),
        ["no store that the settings name holds it"],
        id="the responder's key is gone",
    ),
    pytest.param([KNOWN], store(trouble="The PIN is wrong."), [], id="a store that could not be asked says nothing"),
    pytest.param([SEALED], sealed("a", held(spki=None)), [], id="a sealed key is known by place and name"),
    pytest.param(
        [SEALED],
        [*sealed("a", held(spki=None)), *sealed("b", held(spki=None))],
        ["does not know it"],
        id="its name in another folder is another key",
    ),
    pytest.param([], store(held()), ["does not know it"], id="a key is nobody's"),
    pytest.param([replace(KNOWN, state=S.destroyed)], store(held()), ["was destroyed"], id="a destroyed key is there"),
    pytest.param([KNOWN], store(held(facts={"extractable": "True"})), ["does not keep it closed"], id="a key can be taken out"),
    pytest.param([KNOWN], store(held(algorithm="p384")), ["p384"], id="a key is of another kind"),
    pytest.param([replace(KNOWN, period_ends=NOW - 1)], store(held()), ["period is over"], id="a key lives too long"),
    pytest.param([replace(KNOWN, store="offline")], store(), [], id="an offline key cannot be looked for"),
]


@pytest.mark.req("REQ-KEY-097")
@pytest.mark.parametrize(("records", "stores", "words"), REALITY)
def test_the_inventory_is_compared_with_reality(records: list[KeyRecord], stores: list[dict[str, object]], words: list[str]) -> None:
    found = compare(records, stores, now=NOW)
    assert [word for word, each in zip(words, found, strict=True) if word not in each.what] == []
    assert all(each.fix for each in found)
