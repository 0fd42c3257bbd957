"""The protocols' tables: made by migrations alone, equal to what the code believes, and as their port promises, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from ca.errors import Conflict
from ca.model import CertificateRef, DeviceId, Digest, IssuerId, Serial
from ca.store.database import Database, migrating_engine, parsed
from ca.store.engine import migrate as migrate_authority
from ca.store.engine import revision
from enroll.acme.model import (
    Account,
    AccountStatus,
    Authorization,
    AuthorizationStatus,
    Challenge,
    ChallengeKind,
    ChallengeStatus,
    Identifier,
    IdentifierKind,
    Order,
    OrderStatus,
)
from enroll.store.acme import KEPT, AcmeStore
from enroll.store.engine import migrate
from enroll.store.secrets import secrets
from enroll.store.tables import metadata
from enroll.store.transactions import Transactions

NOW = 1_800_000_000
NAME = Identifier(IdentifierKind.dns, "gw-1.device.test")


@pytest.fixture
def url(database_url: str) -> Iterator[str]:
    """A database with the protocols' tables, which nobody finds there afterwards: tests share one."""
    migrate(database_url)
    yield database_url
    engine = migrating_engine(parsed(database_url))
    with engine.begin() as connection:
        metadata.drop_all(connection)
        connection.execute(sa.text("DROP TABLE enroll_version"))
    engine.dispose()


@pytest.fixture
def store(url: str) -> Iterator[AcmeStore]:
    transactions = Transactions(url)
    yield AcmeStore(transactions)
    transactions.close()


def account(number: int = 1, **changes: object) -> Account:
    made = Account(
        id=f"{number:032x}",
        directory="service",
        thumbprint=f"print-{number}",
        jwk={"kty": "EC", "crv": "P-256", "x": "x", "y": f"{number}"},
        status=AccountStatus.valid,
        contact=("mailto:ops@fleet.test",),
        device=DeviceId(f"account:{number:032x}"),
        token=None,
        created=NOW,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def authorization(number: int = 1, **changes: object) -> Authorization:
    challenges = (
        Challenge(ChallengeKind.http_01, "token", ChallengeStatus.invalid, 1, None, {"type": "x"}),
        Challenge(ChallengeKind.dns_01, "t"),
    )
    made = Authorization(f"{number:032x}", account().id, NAME, status=AuthorizationStatus.pending, expires=NOW + 60, challenges=challenges)
    return replace(made, **changes)  # type: ignore[arg-type]


def order(number: int = 1, **changes: object) -> Order:
    made = Order(f"{number:032x}", account().id, "service", OrderStatus.pending, (NAME,), (authorization().id,), NOW, NOW + 60)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_the_migrated_tables_are_those_the_code_describes(url: str) -> None:
    migrate(url)
    engine = migrating_engine(parsed(url))
    ours = set(metadata.tables)

    def mine(_: object, name: str | None, kind: str, __: bool, ___: object) -> bool:
        return kind != "table" or name in ours

    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "include_object": mine, "version_table": "enroll_version"}
        )
        assert compare_metadata(context, metadata) == []
        assert MigrationContext.configure(connection, opts={"version_table": "enroll_version"}).get_current_revision() == "0001"
    engine.dispose()


def test_the_two_histories_do_not_meet(url: str) -> None:
    before = revision(url)
    migrate(url)
    assert revision(url) == before
    assert migrate_authority(url) == before[0]


def test_everything_comes_back_as_it_went_in(store: AcmeStore) -> None:
    bound = account(2, token=Digest(bytes(range(32))), device=DeviceId("gw-7"), contact=())
    for one in (account(), bound):
        assert store.add_account(one, address="192.0.2.1") == one
        assert store.find_account(one.id) == one
        assert store.find_account_by_key(one.directory, one.thumbprint) == one
    whole = order(
        replaces=CertificateRef(IssuerId("issuing"), Serial(7)),
        csr=b"\0\xff",
        certificate=CertificateRef(IssuerId("issuing"), Serial(1 << 158)),
        error={"type": "x", "detail": "ü"},
    )
    store.add_order(whole, [authorization()])
    assert store.find_order(whole.id) == whole
    assert store.find_authorization(authorization().id) == authorization()
    for find in (store.find_account, store.find_order, store.find_authorization):
        assert find("f" * 32) is None


def test_one_key_has_one_account_and_one_token_binds_one(store: AcmeStore) -> None:
    first = store.add_account(account(), address="a")
    assert store.add_account(account(2, thumbprint=first.thumbprint), address="a") == first
    store.add_account(account(3, token=Digest(bytes(32))), address="a")
    with pytest.raises(Conflict):
        store.add_account(account(4, token=Digest(bytes(32))), address="a")
    assert not store.change_account(replace(first, thumbprint="print-3"), was=first), "another account has that key"
    assert store.change_account(replace(first, thumbprint="print-9"), was=first)
    assert not store.change_account(replace(first, thumbprint="print-8"), was=first), "it was changed meanwhile"


def test_a_change_is_made_to_what_was_read_or_not_at_all(store: AcmeStore) -> None:
    store.add_order(order(), [authorization()])
    assert store.change_order(replace(order(), status=OrderStatus.processing))
    assert not store.change_order(replace(order(), status=OrderStatus.valid))
    assert store.find_order(order().id) == replace(order(), status=OrderStatus.processing, version=1)
    assert store.change_authorization(replace(authorization(), status=AuthorizationStatus.valid))
    assert not store.change_authorization(replace(authorization(), status=AuthorizationStatus.deactivated))
    [held] = store.valid_authorizations(account().id, [NAME], now=NOW)
    assert held.status is AuthorizationStatus.valid
    assert not store.valid_authorizations(account().id, [NAME], now=NOW + 60)
    assert not store.valid_authorizations(account(2).id, [NAME], now=NOW)


def test_a_certificate_is_replaced_once_unless_that_failed_RFC_9773_5(store: AcmeStore) -> None:
    ref = CertificateRef(IssuerId("issuing"), Serial(7))
    store.add_order(order(replaces=ref), [])
    assert store.replaced(ref)
    with pytest.raises(Conflict):
        store.add_order(order(2, replaces=ref), [])
    store.change_order(order(replaces=ref, status=OrderStatus.invalid))
    assert not store.replaced(ref)
    store.add_order(order(2, replaces=ref), [])


def test_what_is_counted_is_counted_by_the_hour(store: AcmeStore) -> None:
    for number in range(3):
        store.add_account(account(number, created=NOW + number), address="192.0.2.1")
        store.add_order(order(number, created=NOW + number), [])
        store.add_failure(account().id, now=NOW + number)
    assert list(store.accounts_since("192.0.2.1", NOW + 1)) == [NOW + 1, NOW + 2]
    assert list(store.accounts_since("192.0.2.2", NOW)) == []
    assert list(store.orders_since(account().id, NOW + 1)) == [NOW + 1, NOW + 2]
    assert list(store.failures_since(account().id, NOW + 2)) == [NOW + 2]
    assert list(store.orders_of(account().id, after=None, limit=2)) == [order(0).id, order(1).id]
    assert list(store.orders_of(account().id, after=order(1).id, limit=2)) == [order(2).id]


def test_a_nonce_is_used_once_by_two_workers_at_once(store: AcmeStore, url: str) -> None:
    other = Transactions(url)
    workers = [store, AcmeStore(other)]
    for number in range(10):
        ready = threading.Barrier(8)

        def use(worker: int, value: bytes = bytes([number]) * 16, ready: threading.Barrier = ready) -> bool:
            ready.wait(60)
            return workers[worker % 2].use_nonce(value, expires=NOW + 60, now=NOW)

        with ThreadPoolExecutor(8) as pool:
            assert sorted(pool.map(use, range(8))) == [False] * 7 + [True]
    made = [worker.secret("x", octets, now=NOW, ends=NOW + 1) for worker, octets in zip(workers, (b"1" * 32, b"2" * 32), strict=True)]
    assert made == [b"1" * 32] * 2
    other.close()


def test_what_is_over_for_long_is_forgotten_and_certificates_are_not(store: AcmeStore) -> None:
    store.add_order(order(1), [authorization(1)])
    store.add_order(order(2, certificate=CertificateRef(IssuerId("issuing"), Serial(7)), status=OrderStatus.valid), [])
    store.add_failure(account().id, now=NOW)
    store.use_nonce(bytes(16), expires=NOW, now=NOW)
    store.forget(now=NOW + 60 + KEPT)
    assert store.find_order(order(1).id) is not None
    store.forget(now=NOW + 61 + KEPT)
    assert store.find_order(order(1).id) is None and store.find_order(order(2).id) is not None
    assert store.find_authorization(authorization(1).id) is None and not store.failures_since(account().id, 0)
    assert store.use_nonce(bytes(16), expires=NOW, now=NOW)


@pytest.mark.req("REQ-KEY-097")
def test_a_secret_ends_on_its_day(store: AcmeStore, url: str) -> None:
    store.secret("x", b"1" * 32, now=NOW, ends=NOW + 60)
    database = Database(url, writes=False)
    for now, left in ((NOW, 1), (NOW + 60, 1), (NOW + 61, 0)):
        assert [(one.name, one.created, one.ends) for one in secrets(database, now=now)] == [("x", NOW, NOW + 60)] * left
    database.dispose()
    store.forget(now=NOW + 60)
    assert store.secret("x", b"2" * 32, now=NOW + 60, ends=NOW + 120) == b"1" * 32
    store.forget(now=NOW + 61)
    assert store.secret("x", b"2" * 32, now=NOW + 61, ends=NOW + 120) == b"2" * 32


def test_a_failure_inside_leaves_nothing(store: AcmeStore) -> None:
    with pytest.raises(Exception, match="constraint"):
        store.add_order(order(), [authorization(), authorization()])
    assert store.find_order(order().id) is None and store.find_authorization(authorization().id) is None
