"""ACME's ways that should work, over a real signer and database: RFC 8555, 8738, 9773."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ca.errors import Conflict, StoreUnavailable, Unauthenticated, Unavailable
from ca.keys.memory import make_private_key
from ca.model import AlgorithmName, IssueRequest, Name, NameKind, TokenEvidence, ValidatedNames
from ca.system import SystemChance
from enroll.acme.model import ChallengeKind, Limits, Problem
from enroll.acme.nonces import LIFETIME, PERIOD, Nonces
from enroll.acme.renewal_info import write_id
from enroll.gate import Gate
from enroll.store.secrets import LIVE
from enroll.store.transactions import Transactions
from tests.fakes.acme import BASE, AccountKey, AcmeWorld, Client, b64, csr_for, jws
from tests.fakes.signer_world import Keypair


@pytest.fixture
def acme(tmp_path: Path) -> Iterator[AcmeWorld]:
    made = AcmeWorld(tmp_path)
    yield made
    made.close()


@pytest.fixture
def client(acme: AcmeWorld) -> Client:
    made = Client(acme)
    made.register()
    return made


@pytest.mark.parametrize("kind", ["ES256", "ES384", "ES512", "EdDSA", "RS256"])
def test_an_account_of_each_algorithm_gets_a_certificate(acme: AcmeWorld, kind: str) -> None:
    client = Client(acme, key=AccountKey(kind))
    found = client.certificate(client.obtain("gw-1.device.test", "gw-2.device.test"))
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert sorted(names.get_values_for_type(x509.DNSName)) == ["gw-1.device.test", "gw-2.device.test"]
    assert found.subject.rfc4514_string() == "CN=gw-1.device.test", "what clients read of it they may ask for again"


def test_an_account_is_its_identity_and_a_key_serves_one_P9(acme: AcmeWorld) -> None:
    private = make_private_key(AlgorithmName("p256"))
    first, second = Client(acme), Client(acme)
    first.obtain("gw-1.device.test", private=private)
    second.register()
    order = second.order("gw-1.device.test")
    second.prove(order)
    refused = second.finalize(order, csr_for("gw-1.device.test", private=private))
    assert refused.status_code == 400 and refused.json["type"].endswith(":badCSR")
    assert second.post(order.headers["Location"]).json["status"] == "ready", "another CSR may still finalize it"
    assert second.finalize(order, csr_for("gw-1.device.test")).json["status"] == "valid"


def test_R02_finalizing_again_gives_the_same_certificate(acme: AcmeWorld, client: Client) -> None:
    order = client.order("gw-1.device.test")
    client.prove(order)
    csr = csr_for("gw-1.device.test")
    found = {client.finalize(order, csr).json["certificate"] for _ in range(3)}
    assert len(found) == 1 and len(acme.world.rows()) == 1


def test_R02_an_order_that_a_crash_left_is_taken_up_by_whoever_looks(acme: AcmeWorld, client: Client) -> None:
    order = client.order("gw-1.device.test")
    client.prove(order)
    acme.signer.trouble = Unavailable("signer-down", "The signer does not answer.", retry_after=3)
    waits = client.finalize(order, csr_for("gw-1.device.test"))
    assert (waits.status_code, waits.json["status"]) == (200, "processing") and int(waits.headers["Retry-After"]) > 0
    acme.signer.trouble = None
    assert client.post(order.headers["Location"]).json["status"] == "valid"


def test_addresses_are_identifiers_RFC_8738(acme: AcmeWorld, client: Client) -> None:
    order = client.order("127.0.0.1", "::1")
    client.prove(order, ChallengeKind.tls_alpn_01)
    found = client.certificate(client.finalize(order, csr_for("127.0.0.1", "::1")))
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.IPAddress)
    assert set(names) == {ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")}


def test_what_was_shown_need_not_be_shown_again(acme: AcmeWorld, client: Client) -> None:
    client.obtain("gw-1.device.test")
    asked = len(acme.prober.asked)
    assert client.order("gw-1.device.test").json["status"] == "ready"
    assert len(acme.prober.asked) == asked
    acme.world.clock.at += 24 * 3600
    assert client.order("gw-1.device.test").json["status"] == "pending"


def test_a_bound_account_stands_for_the_device_of_its_token(acme: AcmeWorld) -> None:
    client = Client(acme, "gateway")
    text = acme.token("gw-7")
    client.register(token=text)
    found = client.certificate(client.obtain("gw-7.device.test"))
    with pytest.raises(Conflict):
        acme.world.issue(IssueRequest(csr_for("gw-7.device.test"), TokenEvidence(text)))
    assert acme.world.rows()[0].device == "gw-7" and found.subject.rfc4514_string() == "CN=gw-7.device.test"
    acme.world.clock.at += 86400 * 20  # the token is long over: it belongs to this account for good
    client.obtain("gw-7.device.test")
    assert {row.device for row in acme.world.rows()} == {"gw-7"}


def test_R02_a_token_whose_account_was_lost_on_the_way_binds_the_same_account_again(
    acme: AcmeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, text = Client(acme, "gateway"), acme.token("gw-7")
    with monkeypatch.context() as broken:
        broken.setattr(acme.store, "add_account", _lost)
        answer = client.post(client.url("new-account"), {"externalAccountBinding": client.binding(text)}, by_key=True)
        assert answer.status_code == 503
    client.register(token=text)
    client.obtain("gw-7.device.test")
    other = Client(acme, "gateway")
    refused = other.post(other.url("new-account"), {"externalAccountBinding": other.binding(text)}, by_key=True)
    assert (refused.status_code, refused.json["type"].rpartition(":")[2]) == (403, "unauthorized")


def _lost(*_: object, **__: object) -> None:
    raise StoreUnavailable("store-down", "It is gone.")


def test_P2_naming_a_token_is_not_having_it(acme: AcmeWorld) -> None:
    token = acme.world.token("gw-7", "service", names=(Name(NameKind.dns, "gw-7.device.test"),)).token
    said = ValidatedNames("a" * 32, "b" * 32, token.profile, token.names, token.hash)
    with pytest.raises(Unauthenticated) as caught:
        acme.world.issue(IssueRequest(csr_for("gw-7.device.test"), said))
    assert caught.value.code == "token-not-bound"


def test_a_device_needs_no_name_but_its_own(acme: AcmeWorld) -> None:
    client = Client(acme, "device")
    client.register(token=acme.token("pump-9", "device"))
    order = client.post(client.url("new-order"), {"identifiers": [{"type": "permanent-identifier", "value": "pump-9"}]})
    assert order.json["status"] == "ready", order.text
    done = client.finalize(order, csr_for(common_name="pump-9"))
    assert client.certificate(done).subject.rfc4514_string() == "CN=pump-9"


def test_a_revoked_device_gets_nothing_more_by_its_account(acme: AcmeWorld) -> None:
    client = Client(acme, "gateway")
    client.register(token=acme.token("gw-7"))
    client.obtain("gw-7.device.test")
    acme.world.revoke_device("gw-7")
    order = client.order("gw-7.device.test")
    ended = client.finalize(order, csr_for("gw-7.device.test"))
    assert ended.json["status"] == "invalid" and ended.json["error"]["type"].endswith(":unauthorized")


def test_the_chain_comes_with_and_without_its_root_RFC_8555_7_4_2(client: Client) -> None:
    done = client.obtain("gw-1.device.test")
    usual = client.post(done.json["certificate"])
    assert usual.mimetype == "application/pem-certificate-chain"
    links = usual.headers.getlist("Link")
    alternate = next(link.split(">")[0][1:] for link in links if 'rel="alternate"' in link)
    chains = [x509.load_pem_x509_certificates(client.post(url).data) for url in (done.json["certificate"], alternate)]
    assert [len(chain) for chain in chains] == [2, 3]
    for chain in chains:
        for lower, upper in itertools.pairwise(chain):
            lower.verify_directly_issued_by(upper)


def test_keys_are_changed_and_accounts_end(acme: AcmeWorld, client: Client) -> None:
    new = AccountKey("EdDSA")
    url = client.url("key-change")
    said = json.dumps({"account": client.kid, "oldKey": client.key.jwk}).encode()
    inner = jws(new, {"alg": "EdDSA", "jwk": new.jwk, "url": url}, said)
    assert client.post(url, inner).status_code == 200
    old, client.key = client.key, new
    assert client.obtain("gw-1.device.test").json["status"] == "valid"
    stale = Client(acme, key=old)
    stale.kid = client.kid
    assert stale.order("gw-1.device.test").status_code == 400, "the old key is nobody's"
    assert client.kid is not None
    assert client.post(client.kid, {"status": "deactivated"}).json["status"] == "deactivated"
    assert client.order("gw-1.device.test").status_code == 401
    again = client.post(client.url("new-account"), {}, by_key=True)
    assert again.status_code == 401


def test_accounts_are_found_again_and_list_their_orders(client: Client) -> None:
    first = client.obtain("gw-1.device.test")
    found = client.post(client.url("new-account"), {"onlyReturnExisting": True}, by_key=True)
    assert (found.status_code, found.headers["Location"]) == (200, client.kid)
    orders = client.post(found.json["orders"])
    assert orders.json["orders"] == [first.headers["Location"]]
    # 7.3.2: "The server MUST ignore any updates to" what it does not let clients change; some send the whole account back.
    whole = {**found.json, "contact": ["mailto:ops@fleet.test"], "orders": "ignored", "termsOfServiceAgreed": False, "other": [7]}
    for status in ("valid", "revoked", "invalid", 7, None):
        changed = client.post(str(client.kid), {**whole, "status": status})
        assert (changed.status_code, changed.json["contact"], changed.json["status"]) == (200, ["mailto:ops@fleet.test"], "valid")


def test_what_is_pending_says_when_to_look_again_even_to_who_counts_from_an_old_date(client: Client) -> None:
    """acme4j adds it to Date, whole seconds of a header that is up to a second old, and fails where that is over."""
    order = client.order("gw-1.device.test")
    pending = client.post(order.json["authorizations"][0])
    assert (pending.json["status"], pending.headers["Retry-After"]) == ("pending", "3")


# ---- Revocation (RFC 8555 7.6) --------------------------------------------------------------------------------------


def test_the_account_that_got_it_revokes_it(acme: AcmeWorld, client: Client) -> None:
    der = client.certificate(client.obtain("gw-1.device.test")).public_bytes(Encoding.DER)
    body = {"certificate": b64(der), "reason": 4}
    assert client.post(client.url("revoke-cert"), body).status_code == 200
    again = client.post(client.url("revoke-cert"), body)
    assert again.status_code == 400 and again.json["type"].endswith(":alreadyRevoked")


def test_an_account_that_holds_all_its_names_revokes_it(acme: AcmeWorld, client: Client) -> None:
    der = client.certificate(client.obtain("gw-1.device.test", "gw-2.device.test")).public_bytes(Encoding.DER)
    other = Client(acme)
    other.register()
    body = {"certificate": b64(der)}
    other.prove(other.order("gw-1.device.test"))
    half = other.post(other.url("revoke-cert"), body)
    assert half.status_code == 403 and half.json["type"].endswith(":unauthorized")
    other.prove(other.order("gw-2.device.test"))
    assert other.post(other.url("revoke-cert"), body).status_code == 200


def test_the_key_of_the_certificate_revokes_it(acme: AcmeWorld, client: Client) -> None:
    holder = AccountKey()
    der = client.certificate(client.obtain("gw-1.device.test", private=holder.private)).public_bytes(Encoding.DER)
    stranger, owner = Client(acme), Client(acme, key=holder)
    body = {"certificate": b64(der), "reason": 1}
    assert stranger.post(stranger.url("revoke-cert"), body, by_key=True).status_code == 403
    assert owner.post(owner.url("revoke-cert"), body, by_key=True).status_code == 200


def test_a_bound_account_revokes_what_its_device_got(acme: AcmeWorld) -> None:
    client = Client(acme, "gateway")
    client.register(token=acme.token("gw-7"))
    der = client.certificate(client.obtain("gw-7.device.test")).public_bytes(Encoding.DER)
    acme.world.clock.at += 2 * 86400  # its authorizations are over; the identity is what counts
    assert client.post(client.url("revoke-cert"), {"certificate": b64(der)}).status_code == 200


# ---- Renewal information (RFC 9773) ---------------------------------------------------------------------------------


def _id(acme: AcmeWorld, found: x509.Certificate) -> str:
    return write_id(acme.world.issuer.key_identifier, found.serial_number)


def test_renewal_information_is_told_and_followed(acme: AcmeWorld, client: Client) -> None:
    found = client.certificate(client.obtain("gw-1.device.test"))
    url = client.url("renewal-info", _id(acme, found))
    told = acme.http.get(url.removeprefix(BASE), base_url=BASE)
    window = told.json["suggestedWindow"]
    assert told.status_code == 200 and window["start"] < window["end"] and int(told.headers["Retry-After"]) >= 60
    replacing = client.order("gw-1.device.test", replaces=_id(acme, found))
    assert replacing.status_code == 201 and replacing.json["replaces"] == _id(acme, found)
    again = client.order("gw-1.device.test", replaces=_id(acme, found))
    assert again.status_code == 409 and again.json["type"].endswith(":alreadyReplaced")
    client.post(client.url("revoke-cert"), {"certificate": b64(found.public_bytes(Encoding.DER))})
    now = acme.http.get(url.removeprefix(BASE), base_url=BASE).json["suggestedWindow"]
    from datetime import UTC, datetime

    moment = datetime.fromtimestamp(acme.world.clock.at, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert now["start"] < now["end"] < moment, "a revoked certificate's window lies in the past"


def _serials(acme: AcmeWorld) -> list[tuple[int, int | None]]:
    rows = sorted(acme.world.rows(), key=lambda row: row.intended_at)
    return [(row.ref.serial, None if row.parent is None else row.parent.serial) for row in rows]


def test_P9_a_renewal_follows_the_last_of_the_same_identity_and_another_name_begins_a_line(acme: AcmeWorld, client: Client) -> None:
    for names in (("gw-1.device.test",), ("gw-2.device.test",), ("gw-1.device.test",), ("gw-1.device.test",)):
        client.obtain(*names)
        acme.world.clock.at += 1
    (first, none), (_, other), (second, before), (_, last) = _serials(acme)
    assert (none, other, before, last) == (None, None, first, second)
    assert not any(row.superseded_at for row in acme.world.rows()), "nobody saw the newer one at work"


def test_P9_replaces_names_the_one_before_RFC_9773_5(acme: AcmeWorld, client: Client) -> None:
    first = client.certificate(client.obtain("gw-1.device.test"))
    acme.world.clock.at += 1
    second = client.certificate(client.obtain("gw-1.device.test"))
    acme.world.clock.at += 1
    order = client.order("gw-1.device.test", replaces=_id(acme, first))
    third = client.certificate(client.finalize(order, csr_for("gw-1.device.test")))
    assert _serials(acme)[2] == (third.serial_number, first.serial_number)
    # The newer line is the one that was asked for last.
    acme.world.clock.at += 1
    client.obtain("gw-1.device.test")
    assert _serials(acme)[3][1] == third.serial_number != second.serial_number


def test_P9_what_a_newer_one_superseded_is_replaced_by_nobody_more(acme: AcmeWorld) -> None:
    client = Client(acme, "gateway")
    client.register(token=acme.token("gw-7"))
    first = client.certificate(client.obtain("gw-7.device.test"))
    acme.world.clock.at += 1
    waiting = client.order("gw-7.device.test", replaces=_id(acme, first))
    # Its holder renews by another way meanwhile, and uses what it got: that is when its predecessor is superseded.
    holder = Keypair()
    holder.certificate = first.public_bytes(Encoding.DER)
    newer = acme.world.renew(holder)
    acme.world.confirm(newer)
    again = client.order("gw-7.device.test", replaces=_id(acme, first))
    assert (again.status_code, again.json["type"].rpartition(":")[2]) == (409, "alreadyReplaced")
    late = client.finalize(waiting, csr_for("gw-7.device.test"))
    assert (late.json["status"], late.json["error"]["type"].rpartition(":")[2]) == ("invalid", "unauthorized")


class _Still:
    def monotonic(self) -> float:
        return 0.0


def test_R25_an_order_that_must_wait_stays_in_processing_and_the_nearest_expiry_comes_first(acme: AcmeWorld, client: Client) -> None:
    found = client.certificate(client.obtain("gw-1.device.test"))
    end = int(found.not_valid_after_utc.timestamp())
    gate = acme.orders._gate = Gate(0.001, clock=_Still())
    for _ in range(8):
        gate.enter(found.public_bytes(Encoding.DER), now=end - 60)
    order = client.order("gw-1.device.test")
    waits = client.finalize(order, csr_for("gw-1.device.test"))
    assert (waits.json["status"], int(waits.headers["Retry-After"]) >= 5) == ("processing", True)
    new = client.order("gw-2.device.test")
    client.prove(new)
    assert client.finalize(new, csr_for("gw-2.device.test")).json["status"] == "processing"
    acme.world.clock.at = end - 60
    assert client.post(order.headers["Location"]).json["status"] == "valid"


# ---- Limits and nonces ----------------------------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-064")
def test_limits_say_when_to_come_again(tmp_path: Path) -> None:
    acme = AcmeWorld(tmp_path, limits=Limits(accounts_per_hour=2, orders_per_hour=2, failures_per_hour=1))
    client = Client(acme)
    client.register()
    Client(acme).register()
    third = Client(acme)
    refused = third.post(third.url("new-account"), {}, by_key=True)
    assert refused.status_code == 429 and refused.json["type"].endswith(":rateLimited")
    assert 0 < int(refused.headers["Retry-After"]) <= 3600
    acme.prober.problem = Problem("connection", "Nobody is there.")
    order = client.order("gw-1.device.test")
    client.prove(order)
    assert client.post(order.headers["Location"]).json["status"] == "invalid"
    second = client.order("gw-2.device.test")
    authorization = client.post(second.json["authorizations"][0]).json
    assert client.post(authorization["challenges"][0]["url"], {}).status_code == 429
    assert client.order("gw-3.device.test").status_code == 429
    acme.world.clock.at += 3600
    assert client.order("gw-3.device.test").status_code == 201
    acme.close()


def test_nonces_are_used_once_by_whichever_worker(tmp_path: Path) -> None:
    acme = AcmeWorld(tmp_path)
    client = Client(acme)
    client.register()
    nonce = Nonces(store=acme.store, clock=acme.world.clock, chance=SystemChance()).make()  # as another worker made it
    answers = [client.post(str(client.kid), header=lambda h: h | {"nonce": nonce}) for _ in range(2)]
    assert [one.status_code for one in answers] == [200, 400]
    assert answers[1].json["type"].endswith(":badNonce") and answers[1].headers["Replay-Nonce"] != nonce
    acme.close()


@pytest.mark.req("REQ-KEY-097")
def test_another_key_makes_nonces_each_year_and_none_is_made_for_a_year_that_somebody_thinks_of(tmp_path: Path) -> None:
    acme = AcmeWorld(tmp_path)
    acme.world.clock.at = (acme.world.clock.at // PERIOD + 1) * PERIOD - 1

    def names() -> list[str]:
        with contextlib.closing(Transactions(f"sqlite:///{tmp_path / 'fleetca.db'}")) as rows:
            return sorted(name for name, *_ in rows.read(LIVE, {"now": 0}))

    year = acme.world.clock.at // PERIOD
    one, other = (Nonces(store=acme.store, clock=acme.world.clock, chance=SystemChance()) for _ in range(2))
    late = one.make()
    assert names() == [f"acme-nonces-{year}"]
    acme.world.clock.at += 10
    assert one.make() != late
    assert names() == [f"acme-nonces-{year}", f"acme-nonces-{year + 1}"]
    other.use(late)  # made by the key of its own year
    far = base64.urlsafe_b64encode(bytes(17) + (50 * PERIOD).to_bytes(6, "big") + bytes(16)).rstrip(b"=").decode()
    with pytest.raises(Problem):
        other.use(far)
    assert len(names()) == 2
    acme.world.clock.at += LIFETIME + 60
    acme.store.forget(now=acme.world.clock.at)
    assert names() == [f"acme-nonces-{year + 1}"]
    acme.close()


def test_a_share_of_good_nonces_is_refused_where_that_is_tried(tmp_path: Path) -> None:
    acme = AcmeWorld(tmp_path, refuse=0.5)
    client = Client(acme)
    codes = [client.post(client.url("new-account"), {}, by_key=True).status_code for _ in range(60)]
    assert 5 < codes.count(400) < 55 and {200, 400} <= set(codes)
    acme.close()
