"""`fleetca renew` against a real TLS server: both ways the current key may speak, and a stop at every effect on disk."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ca.der import pem
from ca.errors import Broken, Conflict, Denied, KeyUnavailable, Malformed, Unavailable
from ca.keys.memory import make_private_key
from ca.keys.sealed_file import seal
from ca.model import AlgorithmName, DeviceId, IssueRequest, Name, NameKind, ProfileName, Reason, RevokeRequest
from ca.system import SystemChance, SystemClock
from fleetca import renewing
from fleetca.renewing import By, Pair, Service
from fleetca.server import load_certificate, make_server, tls_context
from tests.fakes.door import Authority, FixedClock
from tests.fakes.rest import Rest

CLOCK = SystemClock()
CHANCE = SystemChance()


class Site:
    """The REST API behind our own server, and a folder of a device."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rest = Rest(authority=Authority(now=CLOCK.now()))
        self.rest.clock.at = CLOCK.now()
        authority = self.rest.door.authority
        context = tls_context(trusted=[pem.pem(pem.CERTIFICATE, one.certificate).encode() for one in (authority.root, authority.issuing)])
        key, csr = _key_and_csr("p256")
        request = IssueRequest(
            csr,
            self.rest.door.local(),
            DeviceId("gateway"),
            ProfileName("service"),
            (Name(NameKind.dns, "localhost"), Name(NameKind.ip, "127.0.0.1")),
        )
        certificate = self.rest.door.issue(request).certificate.der
        assert certificate is not None
        chain = pem.pem(pem.CERTIFICATE, certificate) + pem.pem(pem.CERTIFICATE, authority.issuing.certificate)
        load_certificate(context, chain=chain.encode(), key=_plain(key))
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        ready = threading.Event()
        self.server = make_server(self.rest.app, threads=2, ready=ready.set, context=context)
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]})
        self._thread.start()
        assert ready.wait(10)
        root = folder / "root.pem"
        root.write_text(pem.pem(pem.CERTIFICATE, authority.root.certificate))
        self.service = Service(f"https://localhost:{listener.getsockname()[1]}", root)

    def close(self) -> None:
        self.server.stop()
        self._thread.join(20)

    def device(self, name: str = "pump-17", algorithm: str = "p256", *, passphrase: bytes | None = None, operator: bool = False) -> Pair:
        """A device with its pair on disk."""
        key, csr = _key_and_csr(algorithm)
        if operator:
            certificate = self.rest.door.add_operator(name, csr)
        else:
            issued = self.rest.door.issue(IssueRequest(csr, self.rest.door.local(), DeviceId(name), ProfileName("device")))
            assert issued.certificate.der is not None
            certificate = issued.certificate.der
        pair = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key", None if passphrase is None else lambda: passphrase)
        pair.certificate.write_text(pem.pem(pem.CERTIFICATE, certificate))
        pair.key.write_bytes(_plain(key) if passphrase is None else seal(key, passphrase).encode())
        pair.key.chmod(0o600)
        return pair

    def renew(self, pair: Pair, by: By = By.auto) -> renewing.Renewed:
        return renewing.renew(pair, self.service, by=by, clock=CLOCK, chance=CHANCE)

    def issued(self, device: str = "pump-17") -> list[Any]:
        return [row for row in self.rest.door.rows.values() if row.device == device]


def _key_and_csr(algorithm: str) -> tuple[Any, bytes]:
    from ca.der.certificate import assemble
    from ca.der.request import request_info
    from ca.keys.memory import MemoryKey
    from ca.model import KeyName

    private = make_private_key(AlgorithmName(algorithm))
    key = MemoryKey(KeyName("device"), private)
    asked = request_info({"common_name": "x"}, key.spki)
    return private, assemble(asked, key.algorithm, key.sign(asked))


def _plain(key: Any) -> bytes:
    octets: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return octets


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
    before = renewing.read_pair(pair)[0]
    done = site.renew(pair, by)
    after = renewing.read_pair(pair)[0]
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
    renewing.read_pair(pair)


def test_P10_a_sealed_key_is_succeeded_by_a_sealed_key(site: Site) -> None:
    pair = site.device("sealed", passphrase=b"correct horse")
    site.renew(pair)
    assert b"ENCRYPTED" in pair.key.read_bytes()
    renewing.read_pair(pair)
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
    renewing.read_pair(pair)


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
            old = renewing.read_certificate(renewing._first_certificate(other.certificate))
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
        for owner, name in ((renewing, "put_new"), (renewing, "_confirm"), (os, "link"), (Path, "replace")):
            patched.setattr(owner, name, stopping(getattr(owner, name)))
        try:
            site.renew(pair)
            stopped = False
        except Stop:
            stopped = True
    assert stopped, "fewer effects than this test believes"
    done = site.renew(pair)
    facts, _ = renewing.read_pair(pair)
    assert facts.serial == done.certificate.serial
    assert leftovers(pair) == []
    rows = site.issued(f"stopped-{step}")
    assert [row.ref.serial for row in rows][-1] == facts.serial
    assert len(rows) <= 3


def test_files_that_are_not_there_are_named(site: Site, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match=r"nothing\.pem"):
        site.renew(Pair(tmp_path / "nothing.pem", tmp_path / "nothing.key"))
