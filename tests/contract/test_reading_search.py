"""Searching: every combination of what may be asked, page by page, against a model of thirty lines, on both databases."""

from __future__ import annotations

import base64
import itertools
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from ca.errors import Malformed
from ca.model import (
    DEFAULT_TENANT,
    Certificate,
    CertificateQuery,
    CertificateRef,
    Device,
    DeviceId,
    DeviceState,
    IssuerId,
    Name,
    NameKind,
    Outline,
    Reason,
    Standing,
    TenantId,
)
from ca.store.engine import Store, open_store
from tests.databases import Cluster, sqlite_url
from tests.fakes.devices import moved
from tests.fakes.intents import NOW, digest, intent, ref_of

KEYS = [digest() for _ in range(12)]
SERIALS = [intent().draft.serial for _ in range(6)]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, list[Certificate]]]:
    """150 certificates of every standing; some share serial numbers, keys, names and dates. Read only: one database for all tests here."""
    cluster: Cluster | None = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    url = cluster.database() if cluster else sqlite_url(tmp_path_factory.mktemp("search"))
    store = open_store(url)
    fill(store)
    yield store, list(store.reading.every_certificate())
    store.close()
    if cluster:
        cluster.take_back(url)


def fill(store: Store) -> None:
    chance = random.Random(4)
    with store.ledger.writing() as writing:
        for number, key in enumerate(KEYS):
            writing.claim_key(key, DeviceId(f"pump-{number % 4}"), now=NOW)
        for number in range(150):
            key = chance.randrange(12)
            device = f"pump-{key % 4}"
            names = [
                Name(NameKind.dns, f"{device}.example"),
                Name(NameKind.uri, f"urn:{chance.randrange(3)}"),
                Name(NameKind.dns, "ä.example"),
            ]
            one = intent(
                device,
                names=tuple(chance.sample(names, chance.randrange(4))),
                spki_sha256=KEYS[key],
                not_after=NOW + chance.randrange(10) * 100,
                subject=f"CN={device},O={chance.choice(['Ärmel', 'Acme', 'acme'])}",
                **({"serial": SERIALS[number % 6], "issuer": IssuerId(f"i{number // 6}")} if number < 18 else {}),
            )
            tenant = chance.choice(["default", "acme"])
            writing.reserve(one, tenant=tenant, revocable=True, leaf=digest())
            fate = chance.randrange(6)
            if fate == 1:
                writing.record_void(ref_of(one), now=NOW)
            elif fate:
                writing.record_issued([(ref_of(one), one.draft.tbs)], now=NOW)
            if fate in {3, 4} and chance.random() < 0.7:
                writing.mark_superseded(ref_of(one), now=NOW)
            if fate in {2, 4} and chance.random() < 0.7:
                writing.begin_grace(ref_of(one), ends_at=NOW + chance.choice([0, 200]))
            for reason in ((), (Reason.keyCompromise,), (Reason.certificateHold, Reason.removeFromCRL))[chance.randrange(3)]:
                writing.add_revocation(ref_of(one), reason=reason, now=NOW, not_after=one.draft.not_after, listed=True)


def standing(one: Certificate, now: int = 0) -> Standing:
    if one.revocation is not None and one.revocation.reason is not Reason.removeFromCRL:
        return Standing.revoked
    if one.superseded_at is not None or (one.grace_ends_at is not None and one.grace_ends_at <= now):
        return Standing.superseded
    return Standing(one.state.value)


def fits(one: Certificate, asked: dict[str, Any]) -> bool:
    """What a search means, said once more."""
    subject = asked.get("subject", "*")
    return (
        asked.get("tenant", one.tenant) == one.tenant
        and asked.get("device", one.device) == one.device
        and (one.subject.startswith(subject[:-1]) if subject.endswith("*") else one.subject == subject)
        and ("san" not in asked or asked["san"] in {name.value for name in one.names})
        and asked.get("serial", one.ref.serial) == one.ref.serial
        and asked.get("spki_sha256", one.spki_sha256) == one.spki_sha256
        and asked.get("state", standing(one, asked.get("now", 0))) is standing(one, asked.get("now", 0))
        and asked.get("expires_after", 0) <= one.not_after < asked.get("expires_before", 1 << 62)
    )


def pages(store: Store, asked: dict[str, Any], limit: int) -> list[Certificate]:
    found: list[Certificate] = []
    cursor: str | None = None
    while True:
        query = CertificateQuery(
            **{name: value for name, value in asked.items() if name not in {"tenant", "now"}}, after=cursor, limit=limit
        )
        page, cursor = store.reading.search_certificates(query, tenant=asked.get("tenant"), now=asked.get("now", 0))
        outlines, same = store.reading.search_outlines(query, tenant=asked.get("tenant"), now=asked.get("now", 0))
        assert same == cursor
        assert outlines == [Outline(row.ref, row.device, row.profile, row.not_after, row.revocable) for row in page]
        assert len(page) <= limit
        found.extend(page)
        if cursor is None:
            return found
        assert len(page) == limit


CHOICES: dict[str, list[Any]] = {
    "tenant": ["acme", "nobody"],
    "device": ["pump-1", "pump-9"],
    "subject": ["CN=pump-1,O=Ärmel", "CN=pump-1*", "CN=*", "*", "CN=pump-2,O=a*", "x"],
    "san": ["pump-1.example", "urn:0", "ä.example", "none"],
    "serial": [SERIALS[0], 1],
    "spki_sha256": [KEYS[1], KEYS[3], b"\0" * 32],
    "state": list(Standing),
    "expires_after": [NOW + 300],
    "expires_before": [NOW + 700],
}
ONES_AND_PAIRS = [
    dict(zip(names, values, strict=True))
    for names in [(), *((name,) for name in CHOICES), *itertools.combinations(CHOICES, 2)]
    for values in itertools.product(*(CHOICES[name] for name in names))
]


def test_every_question_and_every_pair_of_questions_is_answered_rightly(fleet: tuple[Store, list[Certificate]]) -> None:
    store, everything = fleet
    assert len({standing(one) for one in everything}) == len(Standing)
    for number, asked in enumerate(ONES_AND_PAIRS):
        expected = [one.ref for one in everything if fits(one, asked)]
        found = [one.ref for one in pages(store, asked, (7, 1000)[number % 2])]
        assert sorted(found) == sorted(expected), asked


@pytest.mark.parametrize("now", [0, NOW - 1, NOW, NOW + 199, NOW + 200])
def test_P9_a_grace_that_is_over_counts_before_it_is_written_down(fleet: tuple[Store, list[Certificate]], now: int) -> None:
    store, everything = fleet
    for state in Standing:
        for also in ({}, {"device": "pump-1"}, {"tenant": "acme"}, {"subject": "CN=pump-1*"}, {"expires_after": NOW + 300}):
            asked = {"state": state, "now": now, **also}
            assert sorted(one.ref for one in pages(store, asked, 7)) == sorted(one.ref for one in everything if fits(one, asked)), asked
    ended = {sum(standing(one, at) is Standing.superseded for one in everything) for at in (NOW - 1, NOW, NOW + 200)}
    assert len(ended) == 3


def test_what_is_found_is_the_whole_certificate(fleet: tuple[Store, list[Certificate]]) -> None:
    store, everything = fleet
    assert {one.ref: one for one in pages(store, {}, 40)} == {one.ref: one for one in everything}


@pytest.mark.parametrize("limit", [7, 49, 50, 150, 1000])
def test_pages_of_any_size_hold_each_row_once_in_one_order(fleet: tuple[Store, list[Certificate]], limit: int) -> None:
    store, everything = fleet
    assert pages(store, {}, limit) == everything[::-1]
    for asked in ({"expires_after": 0}, {"subject": "CN=*"}, {"state": Standing.revoked}, {"san": "urn:1"}):
        assert pages(store, asked, limit) == pages(store, asked, 1000), asked
    by_date = pages(store, {"expires_after": 0}, limit)
    assert [one.not_after for one in by_date] == sorted(one.not_after for one in everything)
    by_subject = pages(store, {"subject": "CN=*"}, limit)
    assert [one.subject for one in by_subject] == sorted(one.subject for one in everything)


@pytest.mark.parametrize("limit", [0, -5, 10**9])
def test_a_senseless_page_size_is_brought_into_bounds(fleet: tuple[Store, list[Certificate]], limit: int) -> None:
    found, _ = fleet[0].reading.search_certificates(CertificateQuery(limit=limit))
    assert 1 <= len(found) <= 1000


def encoded(*values: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        pytest.param("", id="nothing"),
        pytest.param("%%%", id="not base64"),
        pytest.param("ä", id="not ASCII"),
        pytest.param("AAAA", id="not JSON"),
        pytest.param(base64.urlsafe_b64encode(b"5").decode(), id="no list"),
        pytest.param(base64.urlsafe_b64encode(b"[" * 100_000).decode(), id="a list without end"),
        pytest.param(encoded(), id="an empty list"),
        pytest.param(encoded("all"), id="no value"),
        pytest.param(encoded("all", 1, 2), id="too many values"),
        pytest.param(encoded("all", "1"), id="text for a number"),
        pytest.param(encoded("all", True), id="truth for a number"),
        pytest.param(encoded("all", [1]), id="a list for a number"),
        pytest.param(encoded("all", 1 << 70), id="more than 64 bits"),
        pytest.param(encoded("device", 5), id="of another search"),
        pytest.param(encoded(["all"], 5), id="a list for a name"),
    ],
)
def test_a_cursor_that_is_none_of_ours_is_refused(fleet: tuple[Store, list[Certificate]], cursor: str) -> None:
    with pytest.raises(Malformed) as refused:
        fleet[0].reading.search_certificates(CertificateQuery(after=cursor))
    assert refused.value.code == "cursor-unreadable"


@pytest.mark.parametrize("text", ["a\0b", "\ud800"], ids=["NUL", "half a surrogate pair"])
def test_text_that_no_database_takes_is_refused(fleet: tuple[Store, list[Certificate]], text: str) -> None:
    reading = fleet[0].reading
    for name in ("device", "subject", "san"):
        with pytest.raises(Malformed):
            reading.search_certificates(CertificateQuery(**{name: text}))  # type: ignore[arg-type]
    with pytest.raises(Malformed):
        reading.search_certificates(CertificateQuery(), tenant=TenantId(text))
    with pytest.raises(Malformed):
        reading.search_certificates(CertificateQuery(subject="x*", after=encoded("subjects", text, 1)))
    with pytest.raises(Malformed):
        reading.search_devices(device=text)
    with pytest.raises(Malformed):
        reading.search_certificates(CertificateQuery(expires_before=1 << 64))


def test_a_walk_does_not_repeat_or_hide_rows_when_others_come(store: Store) -> None:
    def add(count: int) -> list[CertificateRef]:
        intents = [intent() for _ in range(count)]
        with store.ledger.writing() as writing:
            for one in intents:
                writing.reserve(one, tenant="default", revocable=True, leaf=digest())
        return [ref_of(one) for one in intents]

    there = add(10)
    page, cursor = store.reading.search_certificates(CertificateQuery(limit=4))
    found = [one.ref for one in page]
    while cursor is not None:
        add(3)
        page, cursor = store.reading.search_certificates(CertificateQuery(limit=4, after=cursor))
        found += [one.ref for one in page]
    assert found == there[::-1]


def test_devices_are_searched_by_id_beginning_tenant_and_state(store: Store) -> None:
    acme = TenantId("acme")
    with store.ledger.writing() as writing:
        for name, tenant in [("a-1", DEFAULT_TENANT), ("a-2", acme), ("a-3", acme), ("b-1", acme), ("B-1", acme)]:
            writing.add_device(Device(DeviceId(name), tenant, DeviceState.active, NOW))
        writing.change_device(moved(Device(DeviceId("a-3"), acme, DeviceState.active, NOW), DeviceState.retired))

    def found(**asked: Any) -> list[str]:
        names: list[str] = []
        cursor: str | None = None
        while True:
            page, cursor = store.reading.search_devices(**asked, after=cursor, limit=2)
            names += [device.id for device in page]
            if cursor is None:
                return names

    assert found() == ["B-1", "a-1", "a-2", "a-3", "b-1"]
    assert found(device="a-2") == ["a-2"]
    assert found(device="a*") == ["a-1", "a-2", "a-3"]
    assert found(tenant=acme) == ["B-1", "a-2", "a-3", "b-1"]
    assert found(device="a*", tenant=acme, state=DeviceState.active) == ["a-2"]
    assert found(state=DeviceState.retired) == ["a-3"]
