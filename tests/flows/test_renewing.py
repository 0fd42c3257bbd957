"""`fleetca renew` against a real TLS server: both ways the current key may speak, and a stop at every effect on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from ca.der import pem
from ca.errors import Broken, Conflict, Denied, KeyUnavailable, Malformed, Unavailable
from ca.model import ProfileName, Reason, RevokeRequest
from fleetca.agent import pairs, renewing, stores
from fleetca.agent.pairs import Pair, read_pair
from fleetca.agent.renewing import By, Service
from tests.fakes.door import Authority, FixedClock
from tests.fakes.site import CHANCE, CLOCK, Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"))
    yield made
    made.close()


def leftovers(pair: Pair) -> list[str]:
    return sorted(path.name for path in pair.key.parent.glob(f"{pair.key.stem}.*") if path not in (pair.key, pair.certificate))


@pytest.mark.parametrize("by", [By.auto, By.tls, By.message])
def test_a_pair_is_replaced_by_its_successor(site: Site, by: By) -> None:
    name = f"device-{by.value}"
    pair = site.device(name)
    before = read_pair(pair)[0]
    done = site.renew(pair, by)
    after = read_pair(pair)[0]
    assert (after.subject, after.serial) == (before.subject, done.certificate.serial)
    assert after.serial != before.serial
    assert done.by is (By.tls if by is By.auto else by)
    assert leftovers(pair) == []
    assert pair.key.stat().st_mode & 0o777 == 0o600
    old, new = site.issued(name)
    assert old.superseded_at is not None
    assert new.first_used_at is not None
    assert len(x509.load_pem_x509_certificates(pair.certificate.read_bytes())) == 2, "the chain travels with it, without the root"


@pytest.mark.parametrize("algorithm", ["ed25519", "p384", "ml-dsa-44"])
def test_every_kind_of_key_renews(site: Site, algorithm: str) -> None:
    pair = site.device(f"kind-{algorithm}", algorithm)
    assert site.renew(pair).by is (By.message if algorithm == "ml-dsa-44" else By.tls)
    read_pair(pair)


def test_P10_a_sealed_key_is_succeeded_by_a_sealed_key(site: Site) -> None:
    pair = site.device("sealed", passphrase=b"correct horse")
    site.renew(pair)
    assert b"ENCRYPTED" in pair.key.read_bytes()
    read_pair(pair)
    with pytest.raises(KeyUnavailable, match="sealed"):
        site.renew(Pair(pair.certificate, pair.key))
    with pytest.raises(KeyUnavailable) as caught:
        site.renew(Pair(pair.certificate, pair.key, lambda: b"wrong"))
    assert caught.value.code == "wrong-passphrase"


def test_an_operator_renews_by_a_message_of_its_own_accord(site: Site) -> None:
    pair = site.device("carol", operator=True)
    later = FixedClock(CLOCK.now() + 50 * 86400)
    site.rest.clock.at = later.at
    try:
        assert renewing.renew(pair, site.service, by=By.auto, clock=later, chance=CHANCE).by is By.message
    finally:
        site.rest.clock.at = CLOCK.now()
    read_pair(pair)


def test_a_pair_that_has_expired_renews_by_a_message_of_its_own_accord_where_the_profile_allows(site: Site) -> None:
    pair = site.device("slept")
    later = FixedClock(CLOCK.now() + 10 * 86400)
    site.rest.clock.at = later.at
    profiles: Any = site.rest.door.policy.profiles
    device = profiles[ProfileName("device")]
    try:
        with pytest.raises(Denied, match="has expired"):
            renewing.renew(pair, site.service, by=By.auto, clock=later, chance=CHANCE)
        profiles[device.name] = replace(device, renew_after_expiry=30 * 86400)
        assert renewing.renew(pair, site.service, by=By.auto, clock=later, chance=CHANCE).answer["device"] == "slept"
    finally:
        profiles[device.name] = device
        site.rest.clock.at = CLOCK.now()
    assert leftovers(pair) == []


def test_a_revoked_certificate_is_not_renewed_and_nothing_is_left_behind(site: Site) -> None:
    pair = site.device("revoked")
    site.rest.door.revoke(RevokeRequest(site.rest.door.local(), Reason.keyCompromise, target=site.issued("revoked")[0].ref))
    before = pair.certificate.read_bytes(), pair.key.read_bytes()
    with pytest.raises(Denied) as caught:
        site.renew(pair)
    assert caught.value.code == "certificate-revoked"
    assert (pair.certificate.read_bytes(), pair.key.read_bytes()) == before
    assert leftovers(pair) == []


def test_a_service_of_another_root_is_not_believed(site: Site, tmp_path: Path) -> None:
    pair = site.device("elsewhere")
    other = tmp_path / "other.pem"
    other.write_text(pem.pem(pem.CERTIFICATE, Authority(now=CLOCK.now()).root.certificate))
    with pytest.raises(Denied) as caught:
        renewing.renew(pair, Service(site.service.url, other), by=By.auto, clock=CLOCK, chance=CHANCE)
    assert caught.value.code == "handshake-refused"
    assert not site.issued("elsewhere")[1:]


def test_a_pair_that_does_not_belong_together_is_said_to(site: Site) -> None:
    one, two = site.device("one"), site.device("two")
    with pytest.raises(Malformed) as caught:
        site.renew(Pair(one.certificate, two.key))
    assert caught.value.code == "pair-mismatch"


def test_a_signer_that_is_down_gets_the_same_request_later(site: Site) -> None:
    pair = site.device("patient")
    site.rest.door.troubles["signer"] = Unavailable("signer-down", "The signer does not answer.")
    try:
        with pytest.raises(Unavailable):
            site.renew(pair)
    finally:
        site.rest.door.troubles.clear()
    kept = pair.request.read_bytes()
    assert pair.next_key.stat().st_mode & 0o777 == 0o600
    site.renew(pair)
    assert b"csr" in kept
    assert len(site.issued("patient")) == 2
    assert leftovers(pair) == []


def test_a_lost_answer_is_asked_for_again_and_costs_no_second_certificate(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = site.device("lost")
    with monkeypatch.context() as patched, pytest.raises(Broken):
        patched.setattr(renewing, "_store", _lost)
        site.renew(pair)
    assert len(site.issued("lost")) == 2
    site.renew(pair)
    assert len(site.issued("lost")) == 2


def _lost(*_: object, **__: object) -> None:
    raise Broken("lost", "The answer was lost on its way.")


WRONG: list[Any] = [
    pytest.param("key", "another key", id="a certificate for another key"),
    pytest.param("subject", "another subject", id="a certificate of another device"),
    pytest.param("chain", "cannot be verified", id="a chain of another CA"),
    pytest.param("nothing", "cannot be verified", id="no certificate at all"),
]


@pytest.mark.parametrize("lie, why", WRONG)
def test_a_wrong_answer_changes_nothing(site: Site, monkeypatch: pytest.MonkeyPatch, lie: str, why: str) -> None:
    pair = site.device(f"lied-{lie}")
    other = site.device(f"other-{lie}")
    store = renewing._store

    def lied(pair: Pair, service: Service, old: Any, answer: Any, *, now: int) -> None:
        changed = dict(answer)
        if lie == "key":
            changed["certificate"] = pair.certificate.read_text()
        elif lie == "subject":
            # The service certifies the right key for the wrong device: only the subject tells.
            old = renewing.read_certificate(pairs.first_certificate(other.certificate))
        elif lie == "chain":
            changed["chain"] = pem.pem(pem.CERTIFICATE, Authority(now=now).issuing.certificate)
        else:
            changed["certificate"] = ""
        store(pair, service, old, changed, now=now)

    monkeypatch.setattr(renewing, "_store", lied)
    before = pair.certificate.read_bytes(), pair.key.read_bytes()
    with pytest.raises(Broken, match="not what was asked for") as caught:
        site.renew(pair)
    assert why in caught.value.why
    assert (pair.certificate.read_bytes(), pair.key.read_bytes()) == before


class Stop(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("step", range(11))
def test_a_stop_at_any_effect_leaves_a_pair_that_works(site: Site, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    pair = site.device(f"stopped-{step}")
    effects = {"count": 0}

    def stopping(effect: Any) -> Any:
        def wrapped(*arguments: Any, **more: Any) -> Any:
            if effects["count"] == step:
                raise Stop
            effects["count"] += 1
            return effect(*arguments, **more)

        return wrapped

    with monkeypatch.context() as patched:
        for owner, name in (
            (renewing, "put_new"),
            (pairs, "put_new"),
            (stores, "put_new"),
            (renewing, "_confirm"),
            (os, "link"),
            (Path, "replace"),
        ):
            patched.setattr(owner, name, stopping(getattr(owner, name)))
        try:
            site.renew(pair)
            stopped = False
        except Stop:
            stopped = True
    assert stopped, "fewer effects than this test believes"
    done = site.renew(pair)
    facts, _ = read_pair(pair)
    assert facts.serial == done.certificate.serial
    assert leftovers(pair) == []
    rows = site.issued(f"stopped-{step}")
    assert [row.ref.serial for row in rows][-1] == facts.serial
    assert len(rows) <= 3


def test_files_that_are_not_there_are_named(site: Site, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match=r"nothing\.pem"):
        site.renew(Pair(tmp_path / "nothing.pem", tmp_path / "nothing.key"))
