"""The signer over its socket: who gets in, what travels, many at once, and what happens when something breaks."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pytest

from ca.errors import Conflict, Denied, FleetcaError, KeyUnavailable, Malformed, Misconfigured, NotFound, StoreUnavailable, Unavailable
from ca.model import (
    CertificateQuery,
    ConfirmRequest,
    DeviceId,
    IssueRequest,
    IssuerId,
    Name,
    NameKind,
    OperatorName,
    PresentedCertificate,
    ProfileName,
    Reason,
    RevokeRequest,
    Role,
    Standing,
    TokenEvidence,
    TokenRequest,
)
from ca.rules.caps import Caps
from ca.signer import lines, messages
from ca.signer.alone import SignerLock
from ca.signer.client import SignerClient
from ca.signer.questions import Questions
from ca.signer.server import SignerServer
from tests.databases import sqlite_url
from tests.fakes.certificates import root
from tests.fakes.signer_world import DAY, ISSUING, NOW, Keypair, World, der_of
from tests.running import eventually

DEVICE = ProfileName("device")
ALL = {os.getuid(): frozenset(Role)}


class Told:
    """A log that remembers."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = error = info


class Running:
    def __init__(self, world: World, path: Path, **options: Any) -> None:
        self.world, self.path, self.log = world, path, Told()
        self.server: SignerServer = world.server(path, log=self.log, **{"users": ALL, **options})
        self.server.start()
        self._clients: dict[Role, SignerClient] = {}

    def client(self, role: Role) -> SignerClient:
        return self._clients.setdefault(role, SignerClient(self.path, role))

    def end(self) -> None:
        for client in self._clients.values():
            client.close()
        self.server.stop()
        self.world.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    own = {Role.enroll: Caps(own_names=frozenset({Name(NameKind.dns, "enroll.example")}))}
    world = World(tmp_path, sqlite_url(tmp_path), caps=own)
    made = Running(world, tmp_path / "run" / "signer.sock")
    yield made
    made.end()


@pytest.fixture
def both(tmp_path: Path, database_url: str) -> Iterator[Running]:
    world = World(tmp_path, database_url)
    made = Running(world, tmp_path / "run" / "signer.sock")
    yield made
    made.end()


def new_token(client: SignerClient, device: str, profile: str = "device") -> str:
    return client.create_token(TokenRequest(client.local, DeviceId(device), ProfileName(profile), (), 3600)).text


def enrol(running: Running, device: str) -> Keypair:
    pair = Keypair()
    text = new_token(running.client(Role.operator), device)
    pair.certificate = der_of(running.client(Role.enroll).issue(IssueRequest(pair.csr(), TokenEvidence(text))))
    return pair


def lease(world: World) -> int:
    with world.store.ledger.writing() as tx:
        held = tx.lease("crl:issuing", holder="test", now=world.clock.at, seconds=60)
    assert held is not None
    return held.fence


# ---- Verbs over the socket ------------------------------------------------------------------------------------------


def test_every_verb_travels(running: Running) -> None:
    operator, enroll, status = (running.client(role) for role in (Role.operator, Role.enroll, Role.status))
    pair = Keypair()
    text = new_token(operator, "pump-17")
    request = IssueRequest(pair.csr(), TokenEvidence(text))
    issued = enroll.issue(request)
    pair.certificate = der_of(issued)
    assert issued.certificate == running.world.row(pair)
    assert enroll.issue(request).repeated
    new = Keypair()
    new.certificate = der_of(enroll.issue(IssueRequest(new.csr(), PresentedCertificate(pair.certificate))))
    confirmed = enroll.confirm(ConfirmRequest(PresentedCertificate(new.certificate)))
    assert confirmed.ref == running.world.row(new).ref
    assert running.world.row(pair).superseded_at == NOW
    responder = status.issue(IssueRequest(Keypair().csr(), status.local))
    assert responder.certificate.profile == "ocsp-responder"
    own = enroll.issue(IssueRequest(Keypair().csr(), enroll.local))
    assert own.certificate.names == (Name(NameKind.dns, "enroll.example"),)
    (change,) = enroll.revoke(RevokeRequest(PresentedCertificate(new.certificate), Reason.keyCompromise))
    assert change == running.world.row(new).revocation
    assert operator.revoke(RevokeRequest(operator.local, Reason.cessationOfOperation, device=DeviceId("pump-17")))
    events = [event for event, _ in running.log.lines]
    assert events.count("issued") == 4
    assert events.count("revoked") == 2


def test_an_operator_searches_over_the_socket_and_others_do_not(running: Running) -> None:
    pairs = [enrol(running, f"pump-{n}") for n in range(5)]
    operator = running.client(Role.operator)
    rows, cursor = operator.certificates(CertificateQuery(limit=3))
    more, end = operator.certificates(CertificateQuery(limit=3, after=cursor))
    assert {row.der for row in rows + more} == {pair.certificate for pair in pairs}
    assert end is None
    assert [row.device for row in operator.certificates(CertificateQuery(device=DeviceId("pump-3")))[0]] == ["pump-3"]
    assert len(operator.certificates(CertificateQuery(state=Standing.issued))[0]) == 5
    ref = running.world.row(pairs[0]).ref
    assert operator.certificate(ref).der == pairs[0].certificate
    assert [row.ref for row in operator.certificates(CertificateQuery(serial=ref.serial))[0]] == [ref]
    assert [device.id for device in operator.devices(device="pump-*")[0]] == [f"pump-{n}" for n in range(5)]
    assert {profile.name for profile in operator.profiles()} == set(running.world.profiles)
    operator.add_operator(OperatorName("ada"), ["admin"])
    assert [one.name for one in operator.operators()] == ["ada"]
    assert operator.disable_operator(OperatorName("ada")).disabled_at == NOW
    assert operator.health()["deployment"] == "test"
    assert operator.ping() is False
    with pytest.raises(Malformed):
        operator.certificates(CertificateQuery(limit=100_000))
    for role in (Role.enroll, Role.status, Role.publisher):
        for question in (lambda c: c.certificates(CertificateQuery()), lambda c: c.operators(), lambda c: c.certificate(ref)):
            with pytest.raises(Denied):
                question(running.client(role))
        with pytest.raises(Denied):
            running.client(role).add_operator(OperatorName("eve"), ["admin"])


def test_P6_a_crl_is_numbered_intended_and_written_to_the_open_file_that_came_with_the_request(both: Running, tmp_path: Path) -> None:
    from cryptography import x509

    pair = enrol(both, "pump-1")
    enrol(both, "pump-2")
    both.world.revoke_certificate(pair)
    publisher = both.client(Role.publisher)
    fence = lease(both.world)
    numbers = []
    for round_ in range(2):
        file = tmp_path / f"{round_}.crl"
        with file.open("wb") as sink:
            intent = publisher.sign_crl(ISSUING, above=41, fence=fence, sink_fd=sink.fileno())
        crl = x509.load_der_x509_crl(file.read_bytes())
        assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == intent.number
        assert [entry.serial_number for entry in crl] == [both.world.row(pair).ref.serial]
        assert intent.count == 1
        publisher.crl_published(ISSUING, 0, intent.number, fence)
        publisher.crl_published(ISSUING, 0, intent.number, fence)
        numbers.append(intent.number)
    assert 41 < numbers[0] < numbers[1]
    last = both.world.store.reading.last_crl(ISSUING, 0)
    assert last is not None
    assert last.number == numbers[1]
    assert [leaf["number"] for leaf in both.world.leaves("crl")] == numbers
    with pytest.raises(NotFound):
        publisher.crl_published(ISSUING, 0, 999, fence)


def test_RFC5280_3_3_P6_entries_stay_for_a_third_of_a_window_after_the_certificates_end(running: Running, tmp_path: Path) -> None:
    pair = enrol(running, "pump-1")
    running.world.revoke_certificate(pair)
    end = running.world.row(pair).not_after
    publisher, fence = running.client(Role.publisher), lease(running.world)

    def count(at: int) -> int:
        running.world.clock.at = at
        with (tmp_path / "crl").open("wb") as sink:
            intent = publisher.sign_crl(ISSUING, above=0, fence=fence, sink_fd=sink.fileno())
        publisher.crl_published(ISSUING, 0, intent.number, fence)
        return intent.count

    third = (DAY - 1) // 3
    assert [count(at) for at in (NOW + 1, end, end + 60, end + 120, end + third, end + third + 1)] == [1, 1, 1, 1, 1, 0]


def test_who_may_not_sign_crls_gets_none(running: Running, tmp_path: Path) -> None:
    fence = lease(running.world)
    with (tmp_path / "crl").open("wb") as sink:
        for role in (Role.enroll, Role.status, Role.operator):
            with pytest.raises(Denied):
                running.client(role).sign_crl(ISSUING, above=0, fence=fence, sink_fd=sink.fileno())
            with pytest.raises(Denied):
                running.client(role).crl_published(ISSUING, 0, 1, fence)
        publisher = running.client(Role.publisher)
        with pytest.raises(Conflict) as lost:
            publisher.sign_crl(ISSUING, above=0, fence=fence + 1, sink_fd=sink.fileno())
        assert lost.value.code == "lease-lost"
        with pytest.raises(KeyUnavailable):
            publisher.sign_crl(IssuerId("root"), above=0, fence=fence, sink_fd=sink.fileno())
        with pytest.raises(NotFound):
            publisher.sign_crl(IssuerId("nobody"), above=0, fence=fence, sink_fd=sink.fileno())
    assert running.world.key.signed == []
    readonly = os.open(tmp_path / "crl", os.O_RDONLY)
    with pytest.raises(StoreUnavailable):
        publisher.sign_crl(ISSUING, above=0, fence=fence, sink_fd=readonly)
    os.close(readonly)
    with (tmp_path / "crl").open("wb") as sink:
        assert publisher.sign_crl(ISSUING, above=0, fence=fence, sink_fd=sink.fileno()).count == 0


# ---- Many at once ---------------------------------------------------------------------------------------------------


def test_R02_the_same_request_a_hundred_times_at_once_gets_one_serial(both: Running) -> None:
    pair = Keypair()
    request = IssueRequest(pair.csr(), TokenEvidence(new_token(both.client(Role.operator), "pump-1")))
    client = both.client(Role.enroll)
    with ThreadPoolExecutor(20) as pool:
        issued = list(pool.map(lambda _: client.issue(request), range(100)))
    assert len({one.certificate.der for one in issued}) == 1
    assert sum(not one.repeated for one in issued) == 1
    assert len(both.world.key.signed) == 1
    assert len(both.world.rows()) == 1


def test_R35_one_token_used_by_two_hundred_requests_at_once_enrols_one(both: Running) -> None:
    text = new_token(both.client(Role.operator), "pump-1")
    requests = [IssueRequest(Keypair().csr(), TokenEvidence(text)) for _ in range(200)]
    client = both.client(Role.enroll)

    def ask(request: IssueRequest) -> str:
        try:
            return str(client.issue(request).certificate.ref)
        except FleetcaError as error:
            return error.code

    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(ask, requests))
    assert outcomes.count("token-used") == 199
    assert len(both.world.key.signed) == 1


def test_a_renewal_and_the_revocation_of_its_device_do_not_pass_each_other(both: Running) -> None:
    pairs = [enrol(both, f"pump-{n}") for n in range(10)]
    enroll, operator = both.client(Role.enroll), both.client(Role.operator)

    def renew(pair: Keypair) -> None:
        with contextlib.suppress(FleetcaError):
            enroll.issue(IssueRequest(Keypair().csr(), PresentedCertificate(pair.certificate)))

    def revoke(number: int) -> None:
        operator.revoke(RevokeRequest(operator.local, Reason.keyCompromise, device=DeviceId(f"pump-{number}")))

    with ThreadPoolExecutor(20) as pool:
        for number, pair in enumerate(pairs):
            pool.submit(renew, pair)
            pool.submit(revoke, number)
    # However they met, nothing of a revoked device is left unrevoked.
    assert all(row.revocation is not None for row in both.world.rows())


def test_requests_share_commits_under_load_and_wait_for_nobody_alone(running: Running) -> None:
    client = running.client(Role.enroll)
    requests = [IssueRequest(Keypair().csr(), TokenEvidence(new_token(running.client(Role.operator), f"pump-{n}"))) for n in range(60)]
    batches: list[int] = []
    real = running.world.issuing.commit

    def counted(batch: Any, signed: Any = None) -> Any:
        if batch:
            batches.append(len(batch))
        return real(batch, signed)

    running.world.issuing.commit = counted  # type: ignore[method-assign]
    client.issue(requests[0])
    assert batches == [1]
    with ThreadPoolExecutor(30) as pool:
        list(pool.map(client.issue, requests[1:]))
    assert sum(batches) == 60
    assert len(batches) < 60
    assert max(batches) <= 64


# ---- Who gets in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("octets", [107, 108, 250], ids=lambda octets: f"a path of {octets} octets")
def test_the_socket_may_lie_as_deep_as_the_deployment(tmp_path: Path, octets: int) -> None:
    missing = octets - len(os.fsencode(tmp_path)) - len("//s")
    assert missing > 0
    world = World(tmp_path, sqlite_url(tmp_path))
    running = Running(world, tmp_path / ("d" * missing) / "s")
    assert len(os.fsencode(running.path)) == octets
    running.client(Role.status).ping()
    running.end()


def test_a_user_without_a_role_gets_no_further_than_the_greeting(tmp_path: Path) -> None:
    world = World(tmp_path, sqlite_url(tmp_path))
    running = Running(world, tmp_path / "s", users={os.getuid(): frozenset({Role.status}), 1: frozenset(Role)})
    with pytest.raises(Denied) as caught:
        running.client(Role.enroll).ping()
    assert caught.value.code == "role-not-yours"
    running.client(Role.status).ping()
    assert ("refused", "role-not-yours") in [(event, fields.get("code")) for event, fields in running.log.lines]
    running.end()


def test_P3_R22_who_connects_and_says_nothing_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "PATIENCE", 1.5)
    running = Running(World(tmp_path, sqlite_url(tmp_path)), tmp_path / "s")
    with raw(running.path) as silent, raw(running.path) as greeted:
        greeted.sendall(messages.frame(messages.hello(Role.enroll)))
        assert "ok" in answer(greeted)
        assert silent.recv(1) == b""
        # Between requests a peer may be silent for as long as it likes.
        greeted.sendall(messages.frame({"verb": "health", "body": {}}))
        assert "ok" in answer(greeted)
    running.end()


@pytest.mark.parametrize(
    ("roles", "theirs"),
    [pytest.param(frozenset({Role.status}), 3, id="a web process"), pytest.param(frozenset[Role](), 1, id="a user without a role")],
)
def test_P3_R22_one_user_never_gets_every_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, roles: frozenset[Role], theirs: int
) -> None:
    monkeypatch.setattr(lines, "MOST_CONNECTIONS", 4)
    monkeypatch.setattr(lines, "KEPT_FOR_OTHERS", 1)
    monkeypatch.setattr(lines, "STRANGERS", 1)
    thief, operator = 1001, 0
    arriving = iter([thief] * 6 + [operator])
    told: WeakKeyDictionary[socket.socket, int] = WeakKeyDictionary()

    def uid(connection: socket.socket) -> int:
        if connection not in told:
            told[connection] = next(arriving, operator)
        return told[connection]

    monkeypatch.setattr(lines, "_peer_uid", uid)
    running = Running(World(tmp_path, sqlite_url(tmp_path)), tmp_path / "s", users={thief: roles, operator: frozenset(Role)})
    with contextlib.ExitStack() as open_ones:
        taken = [open_ones.enter_context(raw(running.path)) for _ in range(6)]
        for connection in taken:
            connection.settimeout(0.05)
        eventually(lambda: sum(_is_open(connection) for connection in taken) == theirs)
        running.client(Role.operator).ping()
    running.end()


def _is_open(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) != b""
    except TimeoutError:
        return True


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_the_socket_has_its_mode_from_the_first_moment(tmp_path: Path, mode: int) -> None:
    world = World(tmp_path, sqlite_url(tmp_path))
    running = Running(world, tmp_path / "s", mode=mode)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == mode
    running.end()
    assert not (tmp_path / "s").exists()


def raw(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(60)
    connection.connect(str(path))
    return connection


def answer(connection: socket.socket) -> Any:
    head = connection.recv(4)
    if not head:
        return None
    count = int.from_bytes(head, "big")
    body = b""
    while len(body) < count:
        body += connection.recv(count - len(body))
    return messages.unframe(body)


GREETINGS = [
    pytest.param(messages.frame({"hello": 2, "role": "enroll"}), "bad-hello", id="another version"),
    pytest.param(messages.frame({"hello": 1}), "bad-hello", id="no role"),
    pytest.param(messages.frame({"hello": 1, "role": "emperor"}), "bad-request", id="no such role"),
    pytest.param(messages.frame({"verb": "issue", "body": {}}), "bad-hello", id="a request before the greeting"),
    pytest.param(b"\0\0\0\x02[]", "bad-request", id="a list in place of an object"),
    pytest.param(b"\0\0\0\x02{]", "bad-request", id="not JSON"),
    pytest.param(b"\xff\xff\xff\xff", "frame-too-long", id="four gigabytes"),
    pytest.param(b"\0\0\0\0", "frame-too-long", id="nothing"),
    pytest.param(b"GET / HTTP/1.1\r\n\r\n", "frame-too-long", id="HTTP"),
]


@pytest.mark.parametrize(("octets", "code"), GREETINGS)
def test_what_is_no_greeting_is_refused_and_the_signer_lives(running: Running, octets: bytes, code: str) -> None:
    with raw(running.path) as connection:
        connection.sendall(octets)
        assert answer(connection)["error"]["code"] == code
        with contextlib.suppress(ConnectionResetError):  # it had more to say than anyone read
            assert connection.recv(1) == b""
    running.client(Role.enroll).ping()


@pytest.mark.req("REQ-KEY-028")
@pytest.mark.parametrize(
    ("opened", "present"), [((ISSUING,), False), ((ISSUING, root().id), True)], ids=["as ever", "a root's key is open"]
)
def test_P4_health_tells_of_roots_from_the_keys_that_are_open(running: Running, opened: tuple[IssuerId, ...], present: bool) -> None:
    world = running.world
    questions = Questions(
        reading=world.store.reading,
        policy=world.policy,
        witness=world.witness,
        keys=frozenset(opened),
        roots=frozenset({root().id}),
        clock=world.clock,
    )
    assert questions.health()["root_present"] is present


REQUESTS = [
    pytest.param({"verb": "obey", "body": {}}, "verb-unknown", id="a verb that does not exist"),
    pytest.param({"verb": "_issue", "body": {}}, "verb-unknown", id="the name of a method"),
    pytest.param({"verb": "issue"}, "bad-request", id="no body"),
    pytest.param({"verb": "issue", "body": []}, "bad-request", id="a list in place of a body"),
    pytest.param({"verb": ["issue"], "body": {}}, "bad-request", id="a list in place of a verb"),
    pytest.param({"verb": "issue", "body": {}}, "bad-request", id="no fields"),
    pytest.param({"verb": "issue", "body": {"csr": "MAA=", "evidence": {}}}, "bad-request", id="evidence of no kind"),
    pytest.param(
        {"verb": "issue", "body": {"csr": "MAA=", "evidence": {"kind": "prayer"}}}, "bad-request", id="evidence of an unknown kind (R17)"
    ),
    pytest.param(
        {"verb": "issue", "body": {"csr": "MAA=", "evidence": {"kind": ["token"]}}}, "bad-request", id="evidence of a list of kinds"
    ),
    pytest.param({"verb": "issue", "body": {"csr": "MAA=", "evidence": []}}, "bad-request", id="evidence that is a list"),
    pytest.param(
        {"verb": "issue", "body": {"csr": "MAA=", "evidence": {"kind": "local", "role": "operator", "uid": 0}}},
        "bad-request",
        id="local evidence that says who it is",
    ),
    pytest.param({"verb": "issue", "body": {"csr": 7, "evidence": {"kind": "local"}}}, "bad-request", id="a CSR that is a number"),
    pytest.param({"verb": "issue", "body": {"csr": "!", "evidence": {"kind": "local"}}}, "bad-request", id="a CSR that is not base64"),
    pytest.param({"verb": "issue", "body": {"csr": "MAA=", "evidence": {"kind": "local"}}}, "bad-csr", id="a CSR that is none"),
    pytest.param(
        {"verb": "issue", "body": {"csr": "MAA=", "evidence": {"kind": "local"}, "device": "../x"}},
        "bad-device-id",
        id="a path for a device (R30)",
    ),
    pytest.param(
        {"verb": "issue", "body": {"csr": "MAA=", "evidence": {"kind": "local"}, "ca": True}}, "bad-request", id="an unknown field"
    ),
    pytest.param(
        {"verb": "revoke", "body": {"evidence": {"kind": "local"}, "reason": "boredom"}}, "unknown-reason", id="an unknown reason"
    ),
    pytest.param({"verb": "create-token", "body": {"evidence": {"kind": "local"}}}, "bad-request", id="a token for nobody"),
    pytest.param(
        {"verb": "sign-crl", "body": {"issuer": "issuing", "shard": 0, "above": -1, "fence": 0}}, "bad-request", id="a negative number"
    ),
    pytest.param(
        {"verb": "sign-crl", "body": {"issuer": "issuing", "shard": 0, "above": 0, "fence": 0}}, "bad-request", id="a CRL into nowhere"
    ),
    pytest.param(
        {"verb": "sign-crl", "body": {"issuer": "issuing", "shard": 0, "above": 2**63 - 2, "fence": 0}},
        "bad-request",
        id="a number that leaves none for later CRLs (R11)",
    ),
    pytest.param({"verb": "\ud800", "body": {}}, "bad-request", id="half a surrogate pair for a verb"),
    pytest.param({"verb": "issue", "body": {"\ud800": 1}}, "bad-request", id="half a surrogate pair for a field"),
    pytest.param({"verb": "certificates", "body": {"colour": "red"}}, "not-allowed", id="a search by enroll"),
]


@pytest.mark.parametrize(("request_", "code"), REQUESTS)
def test_a_bad_request_is_a_clear_error_on_a_connection_that_goes_on(running: Running, request_: dict[str, Any], code: str) -> None:
    with raw(running.path) as connection:
        connection.sendall(messages.frame(messages.hello(Role.enroll)))
        assert "ok" in answer(connection)
        connection.sendall(messages.frame(request_))
        found = answer(connection)["error"]
        assert found["code"] == code
        assert found["class"] != "Broken"
        assert "Traceback" not in str(found)
        connection.sendall(messages.frame({"verb": "health", "body": {}}))
        assert "ok" in answer(connection)


def test_half_a_frame_and_a_cut_connection_harm_nobody(running: Running) -> None:
    text = new_token(running.client(Role.operator), "pump-1")
    pair = Keypair()
    request = IssueRequest(pair.csr(), TokenEvidence(text))
    half = [raw(running.path) for _ in range(5)]
    for connection in half:
        connection.sendall(messages.frame(messages.hello(Role.enroll)))
        answer(connection)
        connection.sendall(b"\0\0\x10\0half")
    with raw(running.path) as connection:
        connection.sendall(messages.frame(messages.hello(Role.enroll)))
        answer(connection)
        connection.sendall(messages.frame(messages.request("issue", messages.write_issue(request))))
    # It hung up before the answer; asked again it gets the same certificate.
    issued = running.client(Role.enroll).issue(request)
    assert len(running.world.key.signed) == 1
    assert issued.certificate.device == "pump-1"
    for connection in half:
        connection.close()


# ---- When parts fail, and at the end --------------------------------------------------------------------------------


def test_a_dead_signer_is_unavailable_and_a_new_one_is_found_without_restart(running: Running, tmp_path: Path) -> None:
    client = running.client(Role.enroll)
    client.ping()
    running.server.stop()
    with pytest.raises(Unavailable) as caught:
        client.ping()
    client.close()
    assert caught.value.code == "signer-down"
    assert caught.value.retry_after > 0
    running.server = running.world.server(running.path, users=ALL)
    running.server.start()
    client.ping()


def test_a_failing_database_answers_and_recovers_without_restart(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = type(running.world.store.ledger)
    text = new_token(running.client(Role.operator), "pump-1")
    client, pair = running.client(Role.enroll), Keypair()
    request = IssueRequest(pair.csr(), TokenEvidence(text))

    def down(self: object) -> Any:
        raise StoreUnavailable("database-down", "The database does not answer.", fix="Start it.", retry_after=7)

    monkeypatch.setattr(ledger, "writing", down)
    for call in (lambda: client.issue(request), lambda: new_token(running.client(Role.operator), "pump-2")):
        with pytest.raises(StoreUnavailable) as caught:
            call()
        assert (caught.value.code, caught.value.retry_after) == ("database-down", 7)
    monkeypatch.undo()
    assert client.issue(request)


def test_what_nobody_foresaw_answers_internal_and_spares_the_others(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    import ca.issue as verb

    real = verb.draft

    def explosive(**arguments: Any) -> Any:
        if arguments["grant"].device == "pump-13":
            raise ZeroDivisionError("secret detail")
        return real(**arguments)

    monkeypatch.setattr(verb, "draft", explosive)
    operator, client = running.client(Role.operator), running.client(Role.enroll)
    requests = [IssueRequest(Keypair().csr(), TokenEvidence(new_token(operator, f"pump-{n}"))) for n in range(10, 18)]

    def ask(request: IssueRequest) -> str:
        try:
            return client.issue(request).certificate.device
        except FleetcaError as error:
            return f"{error.code}: {error}{error.fix}" if "secret" in f"{error}{error.fix}" else error.code

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(ask, requests))
    assert sorted(outcomes) == sorted(["internal", *(f"pump-{n}" for n in range(10, 18) if n != 13)])
    assert any(event == "internal" and fields["kind"] == "ZeroDivisionError" for event, fields in running.log.lines)


def test_stopping_answers_what_was_asked_and_takes_nothing_new(running: Running) -> None:
    operator = running.client(Role.operator)
    requests = [IssueRequest(Keypair().csr(), TokenEvidence(new_token(operator, f"pump-{n}"))) for n in range(20)]
    client = running.client(Role.enroll)
    outcomes: list[str] = []

    def ask(request: IssueRequest) -> None:
        try:
            outcomes.append(client.issue(request).certificate.device)
        except Unavailable as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=ask, args=(request,)) for request in requests]
    for thread in threads:
        thread.start()
    running.server.stop()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 20
    done = [one for one in outcomes if one.startswith("pump-")]
    assert set(outcomes) <= {*done, "signer-down", "signer-stopping"}
    # Nobody got a certificate without a record, and nobody was recorded without an answer.
    issued = {row.device for row in running.world.rows()}
    assert set(done) <= issued


def test_only_one_signer_at_a_time(tmp_path: Path) -> None:
    with SignerLock(tmp_path / "journal"):
        with pytest.raises(Conflict) as caught, SignerLock(tmp_path / "journal"):
            pass
        assert caught.value.code == "signer-running"
        assert str(os.getpid()) in caught.value.why
    with SignerLock(tmp_path / "journal"):
        pass


def test_a_stale_socket_is_taken_over_and_a_file_is_not(tmp_path: Path) -> None:
    world = World(tmp_path, sqlite_url(tmp_path))
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "s"))
    stale.close()
    running = Running(world, tmp_path / "s")
    running.client(Role.enroll).ping()
    running.end()
    (tmp_path / "s").write_text("precious")
    with pytest.raises(Misconfigured):
        Running(world, tmp_path / "s")
    assert (tmp_path / "s").read_text() == "precious"
    with pytest.raises(Misconfigured):
        Running(world, tmp_path / ("x" * 120))
