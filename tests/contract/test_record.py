"""P8 on real databases: every row has its leaf and every leaf its row, and whoever edits the database with SQL is named."""

from __future__ import annotations

import dataclasses
from hashlib import sha256
from pathlib import Path

import pytest
import sqlalchemy as sa

from ca.audit import Files, Report, verify
from ca.errors import Broken
from ca.log.tiles import TileDirectory
from ca.model import (
    DEFAULT_TENANT,
    AlgorithmName,
    CertificateRef,
    CrlIntent,
    Device,
    DeviceFacts,
    DeviceId,
    DeviceState,
    Digest,
    Draft,
    EvidenceKind,
    Grant,
    Intent,
    Issuer,
    IssuerId,
    KeyName,
    Name,
    NameKind,
    Operator,
    OperatorName,
    ProfileName,
    Reason,
    RevocationGrant,
    Role,
    SafetyClass,
    Serial,
    Token,
)
from ca.ports import Writing
from ca.receipts import Receipts
from ca.rules import leaf, receipt
from ca.sequence import Sequencer
from ca.store.engine import Store
from tests.fakes.devices import moved
from tests.fakes.record import FixedClock, LogKey, no_failpoint

NOW = 1_800_000_000
ISSUER = IssuerId("issuing")
PUMPS = [Serial((0x40 << 152) + number) for number in range(1, 7)]


def digest(word: str) -> Digest:
    return Digest(sha256(word.encode()).digest())


def intent(number: int, *, parent: CertificateRef | None = None) -> Intent:
    device = DeviceId(f"pump-{number}")
    names = (Name(NameKind.uri, f"urn:pump:{number}"), Name(NameKind.dns, f"pump-{number}.example"))
    draft = Draft(
        tbs=b"tbs %d" % number,
        issuer=ISSUER,
        serial=PUMPS[number - 1],
        algorithm=AlgorithmName("p256"),
        not_before=NOW,
        not_after=NOW + 604_800,
        subject=f"CN={device}",
        names=names,
        spki_sha256=digest(f"key {number}"),
    )
    grant = Grant(
        tenant=DEFAULT_TENANT,
        device=device,
        profile=ProfileName("device"),
        profile_digest=digest("profile"),
        issuer=ISSUER,
        names=names,
        actor=f"device:{device}",
        role=Role.enroll,
        evidence=EvidenceKind.token,
        evidence_digest=digest(f"token {number}"),
        parent=parent,
        token=digest(f"token {number}"),
        granted_at=NOW,
    )
    return Intent(draft, grant, digest(f"request {number}"), NOW)


def issue(tx: Writing, number: int, *, parent: CertificateRef | None = None, finish: bool = True) -> CertificateRef:
    made = intent(number, parent=parent)
    ref = CertificateRef(ISSUER, made.draft.serial)
    if tx.lock_device(made.grant.device) is None:
        tx.add_device(Device(made.grant.device, DEFAULT_TENANT, DeviceState.active, NOW))
    tx.reserve(made, tenant="default", revocable=True, leaf=tx.append_leaf(leaf.issuance(made)))
    if finish:
        tx.record_issued([(ref, b"DER of " + made.draft.tbs)], now=NOW)
    return ref


def revoke(tx: Writing, ref: CertificateRef, reason: Reason) -> None:
    made = tx.add_revocation(ref, reason=reason, now=NOW, not_after=NOW + 604_800, listed=True)
    by = RevocationGrant(DEFAULT_TENANT, "operator:ann", Role.operator, EvidenceKind.message, digest("message"), (ref,), None, reason, NOW)
    tx.append_leaf(leaf.revocation(made, by, at=NOW))


def history(store: Store) -> None:
    """A little of everything that has rows."""
    issuer = Issuer(
        id=ISSUER,
        tenant=DEFAULT_TENANT,
        certificate=b"certificate of the issuer",
        subject=b"subject",
        spki=b"spki",
        key_identifier=b"id",
        algorithm=AlgorithmName("p256"),
        not_before=NOW,
        not_after=NOW + 10**8,
        key=KeyName("issuing"),
        may_issue=True,
        may_sign_crl=True,
        crl_url=None,
        ocsp_url=None,
        issuer_url=None,
        parent=None,
    )
    token = Token(
        digest("token 1"), DEFAULT_TENANT, DeviceId("pump-1"), ProfileName("device"), (), NOW, NOW + 3600, "operator:ann", None, None
    )
    operator = Operator(OperatorName("ann"), DEFAULT_TENANT, ("operator",), NOW, None)
    crl = CrlIntent(ISSUER, 0, 1, 2, 2, NOW, NOW + 3600, digest("crl"), 1)
    with store.ledger.writing() as tx:
        tx.add_issuer(issuer)
        tx.append_leaf(leaf.issuer(issuer, at=NOW))
        tx.add_operator(operator)
        tx.append_leaf(leaf.operator(operator, actor="role:operator@0", at=NOW))
        tx.add_token(token)
        tx.append_leaf(leaf.token(token))
    with store.ledger.writing() as tx:
        first = issue(tx, 1)
        held = issue(tx, 2)
        given_up = issue(tx, 3, finish=False)
        issue(tx, 4, finish=False)
    with store.ledger.writing() as tx:
        renewed = issue(tx, 5, parent=first)
        tx.mark_delivered(renewed, now=NOW)
        tx.begin_grace(first, ends_at=NOW + 60)
        tx.append_leaf(leaf.delivery(first, successor=renewed, grace_ends_at=NOW + 60, at=NOW))
        tx.mark_superseded(first, now=NOW)
        tx.append_leaf(leaf.supersede(first, by=renewed, at=NOW))
        revoke(tx, held, Reason.keyCompromise)
        tx.record_void(given_up, now=NOW)
        tx.append_leaf(leaf.void(given_up, at=NOW))
        revoke(tx, given_up, Reason.unspecified)
        lost = issue(tx, 6)
        gone = Device(DeviceId("pump-6"), DEFAULT_TENANT, DeviceState.retired, NOW)
        change = moved(dataclasses.replace(gone, state=DeviceState.active), gone.state)
        tx.change_device(change)
        tx.append_leaf(leaf.device_change(gone, change))
        facts = DeviceFacts(safety_class=SafetyClass.B, owner="ward 3")
        tx.set_device_facts(DeviceId("pump-5"), facts)
        tx.append_leaf(leaf.device_facts(DeviceId("pump-5"), facts, at=NOW))
        revoke(tx, lost, Reason.keyCompromise)
        tx.next_crl_number(ISSUER, 0, above=0)
        tx.reserve_crl(crl)
        tx.append_leaf(leaf.crl(crl, at=NOW))


def sequencer(store: Store, folder: Path) -> Sequencer:
    return Sequencer(
        ledger=store.ledger,
        files=TileDirectory(folder),
        key=LogKey(),
        origin="demo",
        holder="a",
        clock=FixedClock(),
        failpoint=no_failpoint,
    )


@pytest.fixture
def log(store: Store, tmp_path: Path) -> Path:
    history(store)
    sequencer(store, tmp_path / "log").run()
    return tmp_path / "log"


def judge(store: Store, log: Path) -> Report:
    key = sequencer(store, log).note_key
    return verify(Files("LOG", TileDirectory(log)), keys=[key], database=store.reading)


def tamper(url: str, *statements: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            assert connection.execute(sa.text(statement)).rowcount, statement
    engine.dispose()


def test_an_honest_database_has_no_findings(store: Store, log: Path) -> None:
    report = judge(store, log)
    assert report.findings == ()
    assert report.notes == ()
    assert report.size == 18


def test_rows_whose_leaves_wait_for_the_sequencer_are_no_findings(store: Store, log: Path) -> None:
    with store.ledger.writing() as tx:
        ref = CertificateRef(ISSUER, PUMPS[1])
        revoke(tx, ref, Reason.removeFromCRL)
    report = judge(store, log)
    assert report.findings == ()
    assert report.notes == ("waiting for the sequencer: 1 leaves",)


@pytest.mark.req("REQ-KEY-092")
@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        pytest.param(["UPDATE certificates SET tbs = 'other' WHERE device = 'pump-4'"], {"row-differs"}, id="edits a TBS"),
        pytest.param(
            ["UPDATE certificates SET device = 'pump-9' WHERE device = 'pump-1'"],
            {"row-differs"},
            id="gives a certificate to another device",
        ),
        pytest.param(
            ["UPDATE certificates SET der = 'forged' WHERE device = 'pump-1'"], {"row-differs"}, id="swaps the signed certificate"
        ),
        pytest.param(["UPDATE certificates SET names = '[]' WHERE device = 'pump-1'"], {"row-differs"}, id="edits names"),
        pytest.param(["UPDATE certificates SET leaf = 'x' WHERE device = 'pump-1'"], {"row-differs"}, id="points to another leaf"),
        pytest.param(
            ["UPDATE certificates SET revocation = NULL WHERE device = 'pump-2'"],
            {"row-differs"},
            id="hides a revocation from the certificate",
        ),
        pytest.param(["DELETE FROM revocations WHERE change = 1"], {"leaf-without-row", "row-differs"}, id="deletes a revocation"),
        pytest.param(["UPDATE revocations SET reason = 5 WHERE change = 1"], {"row-differs"}, id="softens a reason"),
        pytest.param(
            ["DELETE FROM certificates WHERE device = 'pump-1'"],
            {"leaf-without-row"},
            id="deletes a certificate: both its leaves are named",
        ),
        pytest.param(
            ["UPDATE certificates SET state = 'intended' WHERE device = 'pump-3'"], {"leaf-without-row"}, id="revives a void certificate"
        ),
        pytest.param(
            ["UPDATE certificates SET superseded_at = NULL WHERE device = 'pump-1'"],
            {"leaf-without-row"},
            id="revives a superseded certificate",
        ),
        pytest.param(
            ["UPDATE certificates SET superseded_at = 1 WHERE device = 'pump-2'"], {"row-without-leaf"}, id="supersedes without a trace"
        ),
        pytest.param(
            ["UPDATE certificates SET grace_ends_at = 9999999999 WHERE device = 'pump-1' AND grace_ends_at IS NOT NULL"],
            {"row-differs"},
            id="prolongs a grace",
        ),
        pytest.param(
            ["UPDATE certificates SET grace_ends_at = 1 WHERE device = 'pump-2'"], {"row-without-leaf"}, id="ends a grace that never began"
        ),
        pytest.param(
            ["UPDATE certificates SET grace_ends_at = NULL WHERE device = 'pump-1' AND grace_ends_at IS NOT NULL"],
            {"leaf-without-row"},
            id="forgets a delivery",
        ),
        pytest.param(["UPDATE devices SET state = 'active' WHERE id = 'pump-6'"], {"row-differs"}, id="revives a retired device"),
        pytest.param(
            ["UPDATE devices SET state = 'retired' WHERE id = 'pump-1'"], {"row-without-leaf"}, id="retires a device without a trace"
        ),
        pytest.param(
            ["UPDATE device_facts SET safety_class = 'A' WHERE device = 'pump-5'"], {"row-differs"}, id="lightens a device's safety class"
        ),
        pytest.param(["UPDATE crls SET count = 1"], {"row-differs"}, id="edits a CRL's count"),
        pytest.param(["DELETE FROM crls"], {"leaf-without-row"}, id="deletes a CRL"),
        pytest.param(["UPDATE tokens SET device = 'pump-9'"], {"row-differs"}, id="turns a token over to another device"),
        pytest.param(["UPDATE operators SET roles = '[\"admin\"]'"], {"row-differs"}, id="gives an operator roles"),
        pytest.param(["UPDATE issuers SET certificate = 'other'"], {"row-differs"}, id="swaps an issuer's certificate"),
        pytest.param(
            ["INSERT INTO operators SELECT 'eve', tenant, roles, created, disabled_at, person FROM operators"],
            {"row-without-leaf"},
            id="adds an operator",
        ),
        pytest.param(
            ["INSERT INTO devices SELECT 'ghost', tenant, state, created FROM devices WHERE id = 'pump-1'"],
            {"row-without-leaf"},
            id="adds a device",
        ),
        pytest.param(["UPDATE leaves SET body = 'other' WHERE position = 5"], {"edited"}, id="edits a leaf"),
        pytest.param(["DELETE FROM leaves WHERE position = 5"], {"leaf-without-row"}, id="deletes a leaf"),
        pytest.param(["DELETE FROM leaves WHERE position >= 12"], {"leaf-without-row"}, id="deletes the last leaves"),
        pytest.param(["UPDATE checkpoints SET note = 'nothing'"], {"signature"}, id="edits the checkpoint on record"),
    ],
)
def test_P8_the_audit_names_whoever(store: Store, database_url: str, log: Path, statements: list[str], expected: set[str]) -> None:
    tamper(database_url, *statements)
    report = judge(store, log)
    assert {finding.kind.value for finding in report.findings} == expected
    assert all(finding.what for finding in report.findings)


def test_a_certificate_slipped_into_the_database_is_named_by_issuer_and_serial(store: Store, database_url: str, log: Path) -> None:
    columns = "issuer, shard, state, tenant, device, profile, actor, subject, names, spki_sha256, not_before, not_after, revocable, revoked, leaf, intended_at"
    octets = f"X'{'61' * 20}'" if store.backend == "sqlite" else "'aaaaaaaaaaaaaaaaaaaa'"
    tamper(
        database_url,
        f"""INSERT INTO certificates (serial, request_key, "grant", tbs, {columns})
        SELECT {octets}, 'other', "grant", tbs, {columns} FROM certificates WHERE device = 'pump-4'""",
    )
    findings = judge(store, log).findings
    assert [finding.what for finding in findings if finding.kind.value == "row-without-leaf"] == [
        f"row without its leaf: certificate issuing/{'61' * 20}"
    ]


def test_what_differs_is_told(store: Store, database_url: str, log: Path) -> None:
    tamper(database_url, "UPDATE revocations SET reason = 5 WHERE change = 1")
    (finding,) = judge(store, log).findings
    assert finding.first is not None
    assert "reason is 'cessationOfOperation', the record says 'keyCompromise'" in finding.what


def test_a_second_leaf_for_the_same_certificate_is_named(store: Store, log: Path) -> None:
    with store.ledger.writing() as tx:
        made = intent(1)
        tx.append_leaf(leaf.issuance(dataclasses.replace(made, intended_at=NOW + 5)))
    sequencer(store, log).run()
    findings = judge(store, log).findings
    assert [finding.kind.value for finding in findings] == ["inserted"]
    assert "leaf 18 tells again" in findings[0].what


def test_the_sequencer_goes_on_where_it_was_and_refuses_a_database_set_back(store: Store, database_url: str, log: Path) -> None:
    with store.ledger.writing() as tx:
        revoke(tx, CertificateRef(ISSUER, PUMPS[0]), Reason.superseded)
    done = sequencer(store, log).run()
    assert done is not None
    assert (done.assigned, done.checkpoint.size) == (1, 19)
    tamper(database_url, "DELETE FROM leaves WHERE position >= 18", "DELETE FROM checkpoints WHERE size = 19")
    with pytest.raises(Broken) as refused:
        sequencer(store, log).run()
    assert refused.value.code == "record-ahead"


def test_a_lease_given_back_is_free_at_once_and_one_of_another_holder_stays(store: Store, log: Path) -> None:
    standby = Sequencer(
        ledger=store.ledger,
        files=TileDirectory(log),
        key=LogKey(),
        origin="demo",
        holder="b",
        clock=FixedClock(),
        failpoint=no_failpoint,
    )
    with store.ledger.writing() as tx:
        revoke(tx, CertificateRef(ISSUER, PUMPS[0]), Reason.superseded)
    standby.release()
    assert standby.run() is None
    sequencer(store, log).release()
    assert standby.run() is not None
    assert judge(store, log).findings == ()


def test_receipts_for_certificates_on_record(store: Store, log: Path) -> None:
    key = sequencer(store, log).note_key
    receipts = Receipts(files=TileDirectory(log), leaves=store.reading, keys=[key])
    leaf_hash = store.reading.leaf_of(CertificateRef(ISSUER, PUMPS[4]))
    assert leaf_hash is not None
    made = receipts.of(leaf_hash)
    assert receipt.verify(made, [key]).size == 18
    assert receipt.is_for(made, b"tbs 5")
    assert not receipt.is_for(made, b"tbs 1")
