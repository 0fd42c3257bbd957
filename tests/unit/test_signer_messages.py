"""What travels on the signer's socket and lies in its journal reads back as what was written, and nothing else reads at all."""

from __future__ import annotations

import contextlib
import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ca import errors
from ca.errors import Broken, FleetcaError, Malformed
from ca.model import (
    DEFAULT_TENANT,
    Certificate,
    CertificateRef,
    CertificateState,
    ConfirmRequest,
    CrlIntent,
    Device,
    DeviceChange,
    DeviceFacts,
    DeviceId,
    DeviceState,
    Digest,
    Draft,
    EvidenceKind,
    Grant,
    Intent,
    Issued,
    IssueRequest,
    IssuerId,
    LocalEvidence,
    MessageEvidence,
    Name,
    NameKind,
    Operator,
    OperatorName,
    Outline,
    Peer,
    PresentedCertificate,
    Profile,
    ProfileName,
    Reason,
    Revocation,
    RevocationGrant,
    RevokeRequest,
    Role,
    RootOfTrust,
    Serial,
    Token,
    TokenEvidence,
    TokenRequest,
)
from ca.rules import forms, testimony
from ca.signer import messages

SHORT = st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True)
OCTETS = st.binary(max_size=40)
DIGEST = st.binary(min_size=32, max_size=32).map(Digest)
TIME = st.integers(0, 2**40)
SERIAL = st.integers(1, 2**159).map(Serial)
REF = st.builds(CertificateRef, SHORT.map(IssuerId), SERIAL)
NAMES = st.lists(st.builds(Name, st.just(NameKind.dns), st.from_regex(r"[a-z]{1,9}", fullmatch=True)), max_size=3, unique=True).map(tuple)
DEVICE, PROFILE = SHORT.map(DeviceId), SHORT.map(ProfileName)
REVOCATION = st.builds(Revocation, TIME, REF, st.sampled_from(Reason), TIME, TIME, listed=st.booleans())
TENANT = st.just(DEFAULT_TENANT)
CERTIFICATE = st.builds(
    Certificate,
    ref=REF,
    state=st.sampled_from(CertificateState),
    tenant=TENANT,
    device=DEVICE,
    profile=PROFILE,
    subject=st.text(max_size=20),
    names=NAMES,
    spki_sha256=DIGEST,
    not_before=TIME,
    not_after=TIME,
    tbs=OCTETS,
    der=st.none() | OCTETS,
    parent=st.none() | REF,
    request_key=DIGEST,
    intended_at=TIME,
    issued_at=st.none() | TIME,
    superseded_at=st.none() | TIME,
    first_used_at=st.none() | TIME,
    delivered_at=st.none() | TIME,
    grace_ends_at=st.none() | TIME,
    revocable=st.booleans(),
    revocation=st.none() | REVOCATION,
    leaf=DIGEST,
    clone_seen_at=st.none() | TIME,
)
GRANT = st.builds(
    Grant,
    tenant=TENANT,
    device=DEVICE,
    profile=PROFILE,
    profile_digest=DIGEST,
    issuer=SHORT.map(IssuerId),
    names=NAMES,
    actor=st.text(max_size=20),
    role=st.sampled_from(Role),
    evidence=st.sampled_from(EvidenceKind),
    evidence_digest=DIGEST,
    parent=st.none() | REF,
    token=st.none() | DIGEST,
    granted_at=TIME,
)
DRAFT = st.builds(
    Draft,
    tbs=OCTETS,
    issuer=SHORT.map(IssuerId),
    serial=SERIAL,
    algorithm=st.just("p256"),
    not_before=TIME,
    not_after=TIME,
    subject=st.text(max_size=20),
    names=NAMES,
    spki_sha256=DIGEST,
)
TOKEN = st.builds(Token, DIGEST, TENANT, DEVICE, PROFILE, NAMES, TIME, TIME, SHORT, st.none() | TIME, st.none() | OCTETS)
OPERATOR = st.builds(Operator, SHORT.map(OperatorName), TENANT, st.lists(SHORT, max_size=2).map(tuple), TIME, st.none() | TIME)
BY = st.builds(
    RevocationGrant,
    TENANT,
    st.text(max_size=20),
    st.sampled_from(Role),
    st.sampled_from(EvidenceKind),
    DIGEST,
    st.lists(REF, max_size=2).map(tuple),
    st.none() | DEVICE,
    st.sampled_from(Reason),
    TIME,
)
CRL = st.builds(CrlIntent, SHORT.map(IssuerId), st.just(0), TIME, TIME, TIME, TIME, TIME, DIGEST, TIME)
RECORDS = st.one_of(
    st.builds(testimony.Intended, st.builds(Intent, DRAFT, GRANT, DIGEST, TIME), st.booleans(), DIGEST),
    st.builds(testimony.Signed, REF, OCTETS, TIME),
    st.builds(testimony.GivenUp, REF, TIME),
    st.builds(testimony.Changed, REVOCATION, BY, TIME),
    st.builds(testimony.FirstUsed, REF, TIME),
    st.builds(testimony.CloneSeen, REF, REF, DEVICE, st.sampled_from(Role), st.sampled_from(EvidenceKind), DIGEST, TIME),
    st.builds(testimony.TokenRevoked, DIGEST, st.text(max_size=20), TIME),
    st.builds(testimony.MessageUsed, DIGEST, TIME),
    st.builds(testimony.Delivered, REF, REF, TIME, TIME),
    st.builds(testimony.Superseded, REF, REF, TIME),
    st.builds(
        testimony.DeviceMoved,
        st.builds(Device, DEVICE, TENANT, st.sampled_from(DeviceState), TIME),
        st.builds(
            DeviceChange, DEVICE, st.none() | st.sampled_from(DeviceState), st.sampled_from(DeviceState), TIME, SHORT, SHORT, SHORT, SHORT
        ),
        st.none() | st.builds(DeviceFacts, st.none() | st.sampled_from(RootOfTrust), SHORT, st.none() | TIME),
    ),
    st.builds(testimony.TokenMade, TOKEN),
    st.builds(testimony.OperatorChanged, OPERATOR, SHORT, TIME),
    st.builds(testimony.CrlIntended, CRL),
)


def travelled(document: Any) -> Any:
    """Through a frame and back."""
    octets = messages.frame({"it": document})
    assert messages.frame_length(octets[:4], longest=messages.LONGEST_ANSWER) == len(octets) - 4
    return messages.unframe(octets[4:])["it"]


@settings(max_examples=60, deadline=None)
@given(st.builds(Issued, CERTIFICATE, DIGEST, repeated=st.booleans()))
def test_answers_read_back(answer: Issued) -> None:
    assert forms.read(Issued, travelled(forms.write(answer))) == answer


@settings(max_examples=100, deadline=None)
@given(RECORDS)
def test_journal_records_read_back(record: testimony.Record) -> None:
    assert testimony.read(testimony.write(record)) == record


EVIDENCE = st.one_of(
    st.builds(TokenEvidence, st.text(max_size=60)),
    st.builds(MessageEvidence, OCTETS, OCTETS, OCTETS),
    st.builds(PresentedCertificate, OCTETS),
    st.just(LocalEvidence(Role.enroll, 7)),
)
PEER = Peer(Role.enroll, 7)


@settings(max_examples=60, deadline=None)
@given(
    st.builds(IssueRequest, OCTETS, EVIDENCE, st.none() | DEVICE, st.none() | PROFILE, NAMES, st.none() | SHORT.map(IssuerId)),
    st.builds(
        RevokeRequest,
        EVIDENCE,
        st.sampled_from(Reason),
        st.none() | REF,
        st.none() | DEVICE,
        others=st.lists(REF, max_size=3).map(tuple),
    ),
    st.builds(TokenRequest, EVIDENCE, DEVICE, PROFILE, NAMES, TIME),
    st.builds(ConfirmRequest, EVIDENCE, st.none() | REF),
)
def test_requests_read_back(issue: IssueRequest, revoke: RevokeRequest, token: TokenRequest, confirm: ConfirmRequest) -> None:
    assert messages.read_issue(travelled(messages.write_issue(issue)), PEER) == issue
    assert messages.read_revoke(travelled(messages.write_revoke(revoke)), PEER) == revoke
    assert messages.read_token(travelled(messages.write_token(token)), PEER) == token
    assert messages.read_confirm(travelled(messages.write_confirm(confirm)), PEER) == confirm


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["csr", "evidence", "kind", "token", "reason", "target", "issuer", "serial", "names", "value", "x"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_whatever_arrives_is_read_or_malformed(document: Any) -> None:
    body = document if isinstance(document, dict) else {"evidence": document, "csr": document, "reason": document}
    for reader in (messages.read_issue, messages.read_revoke, messages.read_token, messages.read_confirm):
        try:
            reader(body, PEER)
        except Malformed:
            continue
    for kind in (Certificate, Profile, Issued):
        with pytest.raises(Malformed):
            forms.read(kind, document)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_octets_that_are_no_record_are_damage_and_nothing_else(octets: bytes) -> None:
    with contextlib.suppress(Broken):
        assert testimony.read(octets) is None


def _every_error() -> list[type[FleetcaError]]:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FleetcaError)]
    return [kind for kind in kinds if kind not in {FleetcaError, errors.Refused}]


@pytest.mark.parametrize("kind", _every_error(), ids=lambda kind: kind.__name__)
def test_every_error_arrives_as_itself(kind: type[FleetcaError]) -> None:
    sent = kind("some-code", "What.", why="Why.", fix="Fix.")
    if isinstance(sent, errors.Unavailable):
        sent.retry_after = 77
    with pytest.raises(FleetcaError) as caught:
        messages.read_answer(travelled(messages.write_error(sent)))
    got = caught.value
    assert type(got) is kind
    assert (got.code, got.what, got.why, got.fix) == ("some-code", "What.", "Why.", "Fix.")
    assert getattr(got, "retry_after", 77) == 77


def test_an_error_of_a_later_release_is_broken_and_not_a_crash() -> None:
    with pytest.raises(Broken):
        messages.read_answer({"error": {"class": "Astonished", "code": "x", "what": "y"}})
    with pytest.raises(Broken):
        messages.read_answer({"error": []})


def test_local_evidence_travels_empty_and_the_signer_fills_it_in() -> None:
    sent = messages.write_evidence(LocalEvidence(Role.operator, 0))
    assert sent == {"kind": "local"}
    assert messages.read_evidence(sent, Peer(Role.status, 1001)) == LocalEvidence(Role.status, 1001)


def test_every_word_that_travels_names_all_its_fields() -> None:
    document = forms.write(Name(NameKind.dns, "a"))
    assert set(document) == {field.name for field in fields(Name)}
    for changed in ({**document, "extra": 1}, {"kind": "dns"}, {"kind": 1, "value": "a"}, [], None):
        with pytest.raises(Malformed):
            forms.read(Name, json.loads(json.dumps(changed)))


@given(
    st.builds(
        Outline, REF, DEVICE, st.sampled_from([ProfileName("device"), ProfileName("service")]), st.integers(0, 1 << 40), st.booleans()
    )
)
def test_rows_of_long_lists_read_back(row: Outline) -> None:
    assert messages.read_outline(travelled(messages.write_outline(row))) == row


@pytest.mark.parametrize("row", [[], "abc", None, 7, ["issuing", "not hex", "d", "device", 1, True]])
def test_a_row_that_is_none_is_refused(row: Any) -> None:
    with pytest.raises(Malformed):
        messages.read_outline(row)
