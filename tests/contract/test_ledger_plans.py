"""At a million rows no question that is asked in daily work scans a table or sorts: each plan is read, on both databases.

Every method of `Reading` and of a write transaction is called once with a recording cursor, so that a new question cannot be forgotten;
then each recorded statement is explained.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pysqlite3 import dbapi2 as sqlite3

from ca.errors import FleetcaError
from ca.model import (
    DEFAULT_TENANT,
    Approval,
    ApprovalState,
    CertificateQuery,
    CertificateRef,
    Checkpoint,
    CrlIntent,
    Demand,
    Device,
    DeviceFacts,
    DeviceId,
    DeviceState,
    Digest,
    GraveAct,
    IssuerId,
    LogLeaf,
    MessageEvidence,
    OperatorName,
    ProfileName,
    Proposal,
    Reason,
    RecordSeal,
    RenewalOrder,
    Serial,
    Shift,
    Standing,
    Statement,
    Station,
    StatusChange,
    TenantId,
    WipeReceipt,
)
from ca.store.database import Database
from ca.store.engine import Store, open_store
from ca.store.ledger import SqlWriting
from ca.store.reading import Reading
from fleetca.forms import shipped_profiles
from tests.databases import Cluster, sqlite_url
from tests.fakes.devices import moved
from tests.fakes.intents import ISSUER, NOW, digest, intent, token

MILLION = 1_000_000
SOME = 100_000

LARGE = {"certificates", "certificate_names", "revocations", "keys", "tokens", "devices", "leaves", "crls", "checkpoints"}

# Certificates by the million; of the other tables enough that no planner prefers to scan them.
FILLING = """
INSERT INTO certificates (id, issuer, serial, shard, state, tenant, device, profile, actor, subject, names, spki_sha256, not_before,
  not_after, revocable, revoked, request_key, leaf, intended_at, issued_at, superseded_at, revocation, "grant", tbs, der, der_sha256)
SELECT n, 'issuing', {serial}, 0, 'issued', 'default', 'pump-' || n % 300000, 'device', 'a', 'CN=pump-' || n % 300000, '[]', {none}, n,
  n, {true}, n <= {some}, {hash}, {none}, n, n, CASE WHEN n % 50 = 0 THEN n END, CASE WHEN n <= {some} THEN n END, '{{}}', {none},
  {none}, {hash} FROM numbers WHERE n <= {million};
INSERT INTO revocations (change, issuer, shard, serial, reason, revoked_at, not_after, listed, tenant, actor)
SELECT n, 'issuing', 0, {hash}, 1, n, n, {true}, 'default', 'a' FROM numbers WHERE n <= {some};
INSERT INTO certificate_names (value, certificate) SELECT 'pump-' || n % 30000 || '.example', n FROM numbers WHERE n <= {some};
INSERT INTO keys (spki_sha256, device, claimed_at) SELECT {hash}, 'pump-' || n, n FROM numbers WHERE n <= {some};
INSERT INTO tokens (hash, tenant, device, profile, names, created, expires, created_by)
SELECT {hash}, 'default', 'pump-' || n, 'device', '[]', n, n, 'a' FROM numbers WHERE n <= {some};
INSERT INTO devices (id, tenant, state, created) SELECT 'pump-' || n, 'default', 'active', n FROM numbers WHERE n <= {some};
INSERT INTO leaves (id, hash, body, position)
SELECT n, {hash}, {none}, CASE WHEN n <= {some} - 500 THEN n - 1 END FROM numbers WHERE n <= {some};
INSERT INTO crls (issuer, shard, number, as_of, count, this_update, next_update, tbs_sha256, fence, published_at)
SELECT 'issuing', 0, n, n, n, n, n, {none}, 1, n FROM numbers WHERE n <= {some} / 4;
INSERT INTO checkpoints (size, origin, root, note, recorded_at) SELECT n, 'a', {none}, {none}, n FROM numbers WHERE n <= {some} / 4
"""


def filling(**words: str) -> list[str]:
    return FILLING.format(million=MILLION, some=SOME, **words).split(";")


def fill_sqlite(file: Path) -> None:
    """Rows first, indexes after: a tenth of the time."""
    connection = sqlite3.connect(file, isolation_level=None)
    for setting in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-300000", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {setting}").fetchall()
    connection.execute("BEGIN")
    indexes = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL").fetchall()
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")
    numbers = f"WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {MILLION}) "
    for text in filling(serial="CAST(printf('%020d', n) AS BLOB)", hash="CAST(printf('%032d', n) AS BLOB)", true="1", none="x''"):
        head, tail = re.split(r"(?=SELECT)", text, maxsplit=1)
        connection.execute(head + numbers + tail)
    for _, create in indexes:
        connection.execute(create)
    connection.execute(f"UPDATE counters SET value = {SOME} WHERE name = 'change'")
    connection.execute("COMMIT")
    connection.close()


def fill_postgresql(cluster: Cluster, url: str) -> None:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("SET maintenance_work_mem = '256MB'")
        connection.execute("SET synchronous_commit = off")
        connection.execute(b"CREATE TEMPORARY VIEW numbers AS SELECT generate_series(1::bigint, 1000000) AS n")
        indexes = connection.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND NOT EXISTS"
            " (SELECT FROM pg_constraint WHERE conname = indexname)"
        ).fetchall()
        octets = "decode(repeat('00', {}), 'hex') || int8send(n)"
        with connection.transaction():
            # Emptied in the same transaction: rows and indexes then need no write-ahead log (wal_level = minimal).
            connection.execute(f"TRUNCATE {', '.join(LARGE)}".encode())
            for name, _ in indexes:
                connection.execute(f"DROP INDEX {name}".encode())
            for text in filling(serial=octets.format(12), hash=octets.format(24), true="true", none="''::bytea"):
                connection.execute(text.encode())
            for _, create in indexes:
                connection.execute(create.encode())
            connection.execute(f"UPDATE counters SET value = {SOME} WHERE name = 'change'".encode())
            for table, last in (("certificates", MILLION), ("leaves", SOME)):
                connection.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {last})".encode())
        connection.execute("ANALYZE")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def million(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    if request.param == "sqlite":
        folder = tmp_path_factory.mktemp("million")
        url = sqlite_url(folder)
        fill_sqlite(folder / "fleetca.db")
        store = open_store(url)
        yield store
        store.close()
        (folder / "fleetca.db").unlink()
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    url = cluster.database()
    fill_postgresql(cluster, url)
    store = open_store(url)
    yield store
    store.close()
    cluster.drop(url)


class Recorder:
    """Wraps a driver's cursor and keeps every statement with its parameters."""

    def __init__(self, cursor: Any, seen: dict[str, Any]) -> None:
        self._cursor, self._seen = cursor, seen

    def execute(self, text: str, parameters: Any = ()) -> Any:
        self._seen[text] = parameters
        return self._cursor.execute(text, parameters)

    def executemany(self, text: str, many: Any) -> Any:
        self._seen[text] = many[0]
        return self._cursor.executemany(text, many)

    @property
    def rowcount(self) -> int:
        return int(self._cursor.rowcount)

    def close(self) -> None:
        self._cursor.close()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    recorded: dict[str, Any] = {}
    original = Database.cursor
    monkeypatch.setattr(Database, "cursor", lambda self, connection: Recorder(original(self, connection), recorded))
    return recorded


def a_ref(store: Store) -> tuple[CertificateRef, Digest]:
    (page, _) = store.reading.search_certificates(CertificateQuery(limit=1))
    return page[0].ref, page[0].request_key


def a_shift() -> Shift:
    return Shift(1, DEFAULT_TENANT, "line-3", digest(), OperatorName("ada"), ProfileName("device"), ISSUER, 9, NOW, NOW, NOW, digest())


def ask_everything(store: Store) -> set[str]:
    """Call every question a reader has; their names."""
    reading = store.reading
    ref, _ = a_ref(store)
    calls: dict[str, tuple[Any, ...]] = {
        "ping": (),
        "status_of": (ref.issuer, ref.serial),
        "changes_since": (SOME - 5, 100),
        "statuses_after": (SOME - 5, 100),
        "last_row": (),
        "change_number": (),
        "high_time": (),
        "last_crl": (ISSUER, 0),
        "last_delta": (ISSUER, 0),
        "find_crl": (ISSUER, 0, 5),
        "find_crl_intent": (ISSUER, 0, 5),
        "shard_counts": (ISSUER,),
        "find_certificate": (ref,),
        "certificates_of": (DeviceId("pump-5"),),
        "renewals_of": (ref, DeviceId("pump-5")),
        "find_token": (digest(),),
        "find_approval": (digest(),),
        "find_approval_by_beginning": ("00ff",),
        "find_proposal": (digest(),),
        "find_proposal_by_beginning": ("00ff",),
        "proposals_of": (GraveAct.revive, "{}"),
        "accepted_profiles": (),
        "accepted_demand": (),
        "find_token_by_beginning": (digest()[:16],),
        "find_by_der_digest": (digest(),),
        "find_device": (DeviceId("pump-5"),),
        "issuers": (),
        "operators": (),
        "renewal_orders": (),
        "find_renewal_order": (1,),
        "last_renewal_order": (),
        "find_key": (Digest(bytes(32)),),
        "key_records": (),
        "key_changes": (Digest(bytes(32)),),
        "device_facts": (DeviceId("pump-5"),),
        "device_changes": (DeviceId("pump-5"),),
        "operator": (OperatorName("ada"),),
        "find_operator": (OperatorName("ada"),),
        "leaf_of": (ref,),
        "find_leaf": (digest(),),
        "pending_leaves": (100,),
        "leaves": (50_000, 256),
        "leaf_count": (),
        "last_checkpoint": (),
        "find_station": ("line-3",),
        "stations": (),
        "find_shift": (1,),
        "find_shift_of": (digest(),),
        "last_shift": (),
        "find_wipe": (DeviceId("pump-5"), NOW),
    }
    for name, arguments in calls.items():
        getattr(reading, name)(*arguments)
    reading.waiting_approvals(tenant=DEFAULT_TENANT, now=NOW, limit=20)
    reading.count_devices(DEFAULT_TENANT, most=20)
    reading.proposals(tenant=DEFAULT_TENANT, after=(NOW, digest()), limit=20)
    reading.waiting_approvals_of(DeviceId("pump-5"), now=NOW, limit=20)
    reading.latest_of(DeviceId("pump-5"), limit=20)
    reading.find_unit(1, 1)
    reading.shifts(before=99, limit=20)
    reading.count_shift(a_shift())
    reading.record_seals("line-3", above=0, limit=20)
    reading.unwiped(after="", limit=20)
    reading.clones(since=0, limit=20)
    reading.exceptions_ended(now=NOW, limit=20)
    reading.device_events(DeviceId("pump-5"), limit=20)
    reading.judged_keys(DeviceId("pump-5"), limit=20)
    reading.outstanding_tokens(DeviceId("pump-5"), now=NOW)
    # One page: the last one of a walk would be a handful, which a planner may sort.
    reading.waiting_tokens(now=0, after=(DeviceId("pump-5"), digest()), limit=20)
    next(reading.crl_entries(ISSUER, 0, expired_before=0))
    for shard in (0, 3):
        reading.listed_changes(ISSUER, shard, after=SOME - 5, as_of=SOME, limit=100)
        reading.listed_entries(ISSUER, shard, after=SOME - 5, as_of=SOME, expired_before=NOW, limit=100)
    reading.replaced(1, SOME, as_of=SOME)
    walks = {name for name in dir(Reading) if name.startswith("every_")}
    for name in walks:
        next(getattr(reading, name)(), None)
    key = Digest(bytes.fromhex("00" * 32))
    choices: dict[str, list[Any]] = {
        "tenant": [TenantId("default")],
        "device": [DeviceId("pump-5")],
        "subject": ["CN=pump-5", "CN=pump-5*"],
        "san": ["pump-5.example"],
        "serial": [ref.serial],
        "state": list(Standing),
        "expires_after": [400_000],
        "expires_before": [500_000],
    }
    questions: list[dict[str, Any]] = [
        dict(zip(names, values, strict=True))
        for names in itertools.chain.from_iterable(itertools.combinations(choices, count) for count in (0, 1, 2))
        for values in itertools.product(*(choices[name] for name in names))
    ]
    for asked in questions:
        tenant = asked.pop("tenant", None)
        query = CertificateQuery(**asked, limit=20)
        _, cursor = reading.search_certificates(query, tenant=tenant, now=NOW)
        reading.search_outlines(query, tenant=tenant, now=NOW)
        if cursor is not None:
            reading.search_certificates(replace(query, after=cursor), tenant=tenant, now=NOW)
    reading.search_certificates(CertificateQuery(spki_sha256=key))
    for devices in ({}, {"device": "pump-5"}, {"device": "pump-5*"}, {"tenant": TenantId("default")}):
        _, cursor = reading.search_devices(**devices, limit=20)  # type: ignore[arg-type]
        if cursor is not None:
            reading.search_devices(**devices, limit=20, after=cursor)  # type: ignore[arg-type]
    return {
        *calls,
        *walks,
        "find_unit",
        "shifts",
        "count_shift",
        "record_seals",
        "unwiped",
        "clones",
        "latest_of",
        "waiting_approvals",
        "proposals",
        "count_devices",
        "waiting_approvals_of",
        "exceptions_ended",
        "device_events",
        "judged_keys",
        "outstanding_tokens",
        "waiting_tokens",
        "crl_entries",
        "listed_changes",
        "listed_entries",
        "replaced",
        "search_certificates",
        "search_outlines",
        "search_devices",
    }


def write_everything(store: Store) -> set[str]:
    """Call everything that a transaction can do; their names. Nothing is kept."""
    one, ref = intent(), a_ref(store)[0]
    crl = CrlIntent(ISSUER, 0, 5, as_of=3, count=2, this_update=NOW, next_update=NOW + 9, tbs_sha256=digest(), fence=1)
    fresh = token()
    waits = Approval(
        request=one.request_key, tenant=DEFAULT_TENANT, device=DeviceId("pump-5"), profile=one.grant.profile, names=(),
        evidence=one.grant.evidence, actor="device:pump-5", spki_sha256=one.draft.spki_sha256, asked_at=NOW, expires=NOW + 9,
    )  # fmt: skip
    message = MessageEvidence(b"", b"", b"")
    said = Statement(message, OperatorName("ada"), "ada", approve=True, at=NOW, channel="operator/message")
    grave = Proposal(digest(), DEFAULT_TENANT, GraveAct.revive, "{}", "", said, NOW + 9)
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("raise_high_time", (NOW,), {}),
        ("set_high_time", (NOW,), {}),
        ("find_by_request", (digest(),), {}),
        ("unfinished", (), {}),
        ("add_token", (fresh,), {}),
        ("use_token", (fresh.hash,), {"request_key": one.request_key, "now": NOW}),
        ("use_token", (digest(),), {"request_key": one.request_key, "now": NOW}),
        ("revoke_token", (fresh.hash,), {"now": NOW}),
        ("add_renewal_order", (RenewalOrder(1, DEFAULT_TENANT, NOW, 0, None, None, "", "ada"),), {}),
        ("withdraw_renewal_order", (1,), {"actor": "ada", "now": NOW}),
        ("last_end", (ISSUER,), {}),
        ("age_issuer", (ISSUER,), {"last_ends": NOW, "retired_at": None}),
        ("add_approval", (waits,), {}),
        ("add_approval", (waits,), {}),
        ("accept_profile", (shipped_profiles()[one.grant.profile],), {}),
        ("accept_demand", (Demand(frozenset({GraveAct.profile})),), {}),
        ("count_in_period", ("operator-revocations:default",), {"period": 5, "amount": 3}),
        ("put_proposal", (grave,), {}),
        ("put_proposal", (grave,), {}),
        ("decide_approval", (replace(waits, state=ApprovalState.approved, decided_at=NOW, decided_by="ada"),), {}),
        ("lock_device", (DeviceId("pump-5"),), {}),
        ("add_device", (Device(one.grant.device, DEFAULT_TENANT, DeviceState.active, NOW),), {}),
        ("change_device", (moved(Device(one.grant.device, DEFAULT_TENANT, DeviceState.active, NOW), DeviceState.quarantined),), {}),
        ("set_device_facts", (one.grant.device, DeviceFacts(owner="ward 3")), {}),
        ("claim_key", (one.draft.spki_sha256, one.grant.device), {"now": NOW}),
        ("claim_key", (one.draft.spki_sha256, one.grant.device), {"now": NOW}),
        ("owner_of_key", (one.draft.spki_sha256,), {}),
        ("reserve", (one,), {"tenant": "default", "revocable": True, "leaf": digest()}),
        ("reserve", (one,), {"tenant": "default", "revocable": True, "leaf": digest()}),
        ("record_void", (CertificateRef(ISSUER, Serial(1)),), {"now": NOW}),
        ("record_issued", ([(CertificateRef(one.draft.issuer, one.draft.serial), b"der")],), {"now": NOW}),
        ("mark_first_used", (ref,), {"now": NOW}),
        ("mark_delivered", (ref,), {"now": NOW}),
        ("begin_grace", (ref,), {"ends_at": NOW}),
        ("graces_ended", (NOW,), {"limit": 9}),
        ("mark_superseded", (ref,), {"now": NOW}),
        ("mark_clone_seen", (ref,), {"now": NOW}),
        ("add_revocation", (ref,), {"reason": Reason.superseded, "now": NOW, "not_after": NOW, "listed": True}),
        ("add_revocations", ([StatusChange(ref, Reason.superseded, NOW, NOW, listed=True)],), {}),
        ("add_shard_count", (ISSUER, 4), {"now": NOW}),
        ("next_crl_number", (ISSUER, 0), {"above": 0}),
        ("reserve_crl", (crl,), {}),
        ("record_crl_published", (ISSUER, 0, 5), {"now": NOW}),
        ("lease", ("job",), {"holder": "a", "now": NOW, "seconds": 9}),
        ("check_fence", ("job", 1), {}),
        ("disable_operator", (OperatorName("nobody"),), {"now": NOW}),
        ("consume_message", (digest(),), {"now": NOW}),
        ("append_leaf", (LogLeaf(b"{}"),), {}),
        ("write_leaves", (), {}),
        ("set_station", (Station("line-3", DEFAULT_TENANT, b"", NOW),), {}),
        ("set_shift", (a_shift(),), {}),
        ("set_units", (1, {1: digest()}), {}),
        ("set_record_seal", (RecordSeal("line-3", 1, "", ISSUER, NOW),), {}),
        ("add_wipe", (WipeReceipt(DeviceId("pump-5"), DEFAULT_TENANT, b"", NOW, "ada"), DEFAULT_TENANT), {}),
        ("assign_indexes", ([SOME],), {"start": SOME - 500}),
        ("record_checkpoint", (Checkpoint("demo", 5, digest(), b"note"),), {"now": NOW}),
    ]
    with contextlib.suppress(KeyboardInterrupt), store.ledger.writing() as writing:
        for name, arguments, named in calls:
            with contextlib.suppress(FleetcaError), writing.savepoint():
                getattr(writing, name)(*arguments, **named)
        units = [(1, 1, DeviceId("pump-5"))]
        with writing.foreseeing(requests=[digest()], certificates=[ref], tokens=[fresh.hash], keys=[digest()], units=units):
            pass
        raise KeyboardInterrupt
    return {name for name, _, _ in calls} | {"foreseeing"}


def plan(store: Store, text: str, parameters: Any) -> Iterator[str]:
    """What is wrong with a statement's plan, in words."""
    database = store.databases[1]
    connection = database.connect()
    try:
        cursor = database.cursor(connection)
        if database.is_sqlite:
            for *_, step in cursor.execute(f"EXPLAIN QUERY PLAN {text}", parameters).fetchall():
                scanned = re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?", step)
                # What SQLite calls a scan is none when it walks in order and stops after a page, or along an index of few rows.
                walk = scanned and "LIMIT" in text and (scanned[2] or re.search(r"ORDER BY \w+\.id( DESC)?\s+LIMIT", text))
                few = scanned and scanned[2] in {"certificates_intended", "certificates_void"}
                if "TEMP B-TREE" in step or (scanned and scanned[1] in LARGE and not walk and not few):
                    yield step
        else:
            found = cursor.execute(f"EXPLAIN (FORMAT JSON) {text}", parameters).fetchone()[0]
            yield from nodes((found if isinstance(found, list) else json.loads(found))[0]["Plan"])
    finally:
        connection.close()


def nodes(node: dict[str, Any]) -> Iterator[str]:
    """Scans and sorts of a PostgreSQL plan that are not over a handful of rows."""
    if node["Node Type"] == "Seq Scan" and node["Relation Name"] in LARGE:
        yield f"Seq Scan {node['Relation Name']} {node.get('Filter', '')}"
    if "Sort" in node["Node Type"] and node["Plan Rows"] > 100:
        yield f"Sort of {node['Plan Rows']} rows"
    for child in node.get("Plans", ()):
        yield from nodes(child)


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))}


# What these do is explained under another name, or they ask nothing.
ELSEWHERE = {"savepoint", "command", "flush", "write_queued", "add_issuer", "add_operator", "add_key", "change_key"}


def test_no_question_scans_or_sorts_at_a_million_rows(million: Store, seen: dict[str, Any]) -> None:
    asked = ask_everything(million)
    assert asked == public(Reading)
    written = write_everything(million)
    assert written == public(SqlWriting) - asked - ELSEWHERE
    faults = {
        text: found
        for text, parameters in list(seen.items())
        if text.startswith(("SELECT", "INSERT", "UPDATE", "DELETE")) and (found := list(plan(million, text, parameters)))
    }
    assert faults == {}
    assert len(seen) > 60


def test_a_page_of_a_large_crl_comes_from_one_index_alone(million: Store) -> None:
    """A CRL of 200 000 entries: all of them, rising."""
    entries = [entry.serial for entry in million.reading.crl_entries(ISSUER, 0, expired_before=0)]
    assert len(entries) == SOME
    assert entries == sorted(entries)
    assert million.reading.last_crl(IssuerId("nobody"), 0) is None
