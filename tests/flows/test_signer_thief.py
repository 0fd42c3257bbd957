"""The thief: someone holds the enroll process, its user and its socket, and asks the signer for everything.

The signer trusts nobody (DESIGN 3): a stolen web process gets what its role may ask for, visibly, and nothing beyond the caps of the weaker
evidence. The thief knows every public thing there is: all certificates, all ids, all names of verbs. It runs in a child process, under another
user id where we are root, speaks raw frames where our client is too polite, and reports each request. What was granted must be on record;
what was granted beyond the table of this file fails the test.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ca.model import (
    CertificateRef,
    DeviceId,
    Digest,
    Evidence,
    IssueRequest,
    IssuerId,
    LocalEvidence,
    ManufacturerCertificate,
    MessageEvidence,
    Name,
    NameKind,
    Peer,
    PresentedCertificate,
    ProfileName,
    Reason,
    RevokeRequest,
    Role,
    ShiftRequest,
    TokenEvidence,
    TokenRequest,
    UnitPart,
    ValidatedNames,
)
from ca.rules import forms, line
from ca.rules.caps import Caps, Manufacturer, Validated
from ca.rules.line import Unit
from ca.rules.message import Act
from ca.rules.token import token_hash
from ca.signer import messages
from tests.databases import sqlite_url
from tests.fakes.factory import factory, factory_device
from tests.fakes.signer_world import UID, Keypair, World
from tests.parts import need

THIEF = 1001 if os.geteuid() == 0 else os.geteuid()
OWN = Name(NameKind.dns, "enroll.example")
MAKER, MAKER_CERTIFICATE = factory("Pump Works IDevID CA")
CAPS = Caps(
    profiles=frozenset({ProfileName("device"), ProfileName("service")}),
    devices=("pump-*", "fleetca:enroll", "account:*"),
    per_minute=60,
    own_names=frozenset({OWN}),
    validated={ProfileName("service"): Validated(open=True, dns=("*.fleet.test",), networks=("192.0.2.0/24",))},
    manufacturers=(Manufacturer("works", MAKER_CERTIFICATE, "pump-works:", (ProfileName("device"),)),),
)
ACCOUNT, ORDER = "a" * 32, "0" * 32

PROFILES = ("root", "issuing-ca", "ocsp-responder", "device", "device-short", "service", "operator", "nonsense")
DEVICES = ("pump-1", "pump-99", "valve-1", "fleetca:enroll", "fleetca:ocsp", "fleetca:operator:ada", "fleetca:operator:new")


@dataclass(frozen=True)
class Attempt:
    """One request of the thief, and whether the caps of its evidence allow it."""

    words: str
    verb: str
    body: dict[str, Any]
    within: bool
    role: str = "enroll"


class Loot:
    """What the thief can know and hold: everything public, and one device's key it may have got elsewhere."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pump = world.enrol("pump-1")
        self.second = world.enrol("pump-2")
        self.valve = world.enrol("valve-1")
        self.short = world.enrol("pump-3", "device-short")
        self.service = world.enrol("pump-4", "service", names=(Name(NameKind.dns, "broker.example"),))
        self.operator = world.operator("ada")
        self.old = world.enrol("pump-5")
        world.confirm(world.renew(self.old))
        self.revoked = world.enrol("pump-6")
        world.revoke_certificate(self.revoked)
        self.held_token = world.token("pump-7").text
        self.used_token = world.token("pump-8").text
        world.issue(IssueRequest(Keypair().csr(), TokenEvidence(self.used_token)))
        self.station = Keypair()
        world.provisioning.add_station("line-1", self.station.spki, world.peer(Role.operator))
        digest = Digest(hashlib.sha256(self.station.spki).digest())
        said = world.message(self.operator, Act.shift, station=("line-1", digest.hex(), 5), profile=ProfileName("device"), lifetime=3600)
        asked = ShiftRequest(said, "line-1", digest, ProfileName("device"), 5, 3600)
        _, self.header = world.provisioning.open_shift(asked, world.peer(Role.operator))

    @property
    def everybody(self) -> dict[str, Keypair]:
        names = ("pump", "second", "valve", "short", "service", "operator", "old", "revoked")
        return {name: getattr(self, name) for name in names}


def csr() -> bytes:
    return Keypair().csr()


def issue(words: str, evidence: Evidence, *, within: bool, role: str = "enroll", **wishes: Any) -> Attempt:
    asked = IssueRequest(wishes.pop("csr", None) or csr(), evidence, **wishes)
    return Attempt(words, "issue", messages.write_issue(asked), within, role)


def revoke(words: str, evidence: Evidence, reason: Reason, *, within: bool, role: str = "enroll", **wishes: Any) -> Attempt:
    return Attempt(words, "revoke", messages.write_revoke(RevokeRequest(evidence, reason, **wishes)), within, role)


def plans(loot: Loot) -> Iterator[Attempt]:
    """Everything that is tried. `within` is written by hand from the caps above, not computed by the rule under test."""
    world = loot.world
    local = LocalEvidence(Role.enroll, THIEF)
    # 1. By itself: every profile for every device, other names, another issuer.
    for profile in PROFILES:
        for device in DEVICES:
            yield issue(
                f"by itself: {profile} for {device}",
                local,
                within=(profile, device) == ("service", "fleetca:enroll"),
                device=DeviceId(device),
                profile=ProfileName(profile),
            )
    yield issue("by itself: its own certificate", local, within=True)
    yield issue("by itself: its own name", local, within=True, names=(OWN,))
    yield issue("by itself: a bank's name", local, within=False, names=(Name(NameKind.dns, "bank.example"),))
    yield issue("by itself: its own name and a bank's", local, within=False, names=(OWN, Name(NameKind.dns, "bank.example")))
    yield issue("by itself: from the root", local, within=False, issuer=IssuerId("root"))
    # 2. Presenting certificates it saw: renewals of capped devices and profiles are what its role may ask for.
    renewable = {"pump", "second", "service"}
    for name, pair in loot.everybody.items():
        shown = PresentedCertificate(pair.certificate)
        yield issue(f"presenting {name}: a renewal", shown, within=name in renewable)
        for profile in PROFILES:
            if profile != world.row(pair).profile:
                yield issue(f"presenting {name}: as {profile}", shown, within=False, profile=ProfileName(profile))
        yield issue(f"presenting {name}: for another device", shown, within=False, device=DeviceId("pump-99"))
        yield issue(f"presenting {name}: with a bank's name", shown, within=False, names=(Name(NameKind.dns, "bank.example"),))
    bent = loot.pump.certificate[:-1] + bytes([loot.pump.certificate[-1] ^ 1])
    yield issue("presenting a certificate with one bit turned", PresentedCertificate(bent), within=False)
    yield issue("presenting the CA's certificate", PresentedCertificate(world.issuer.certificate), within=False)
    # 3. Tokens: one that passed by holds for what it was made for, once; others do not.
    for device in DEVICES:
        yield issue(f"a stolen token: for {device}", TokenEvidence(loot.held_token), within=False, device=DeviceId(device))
    yield issue("a stolen token: for an operator", TokenEvidence(loot.held_token), within=False, profile=ProfileName("operator"))
    yield issue("a stolen token: for its device", TokenEvidence(loot.held_token), within=True)
    yield issue("a stolen token: once more", TokenEvidence(loot.held_token), within=False)
    yield issue("a used token", TokenEvidence(loot.used_token), within=False)
    yield issue("a guessed token", TokenEvidence("enr_" + "0" * 49), within=False)
    # 4. Messages: it has no key, so it replays, bends and signs with keys of its own.
    own, asked = Keypair(), csr()
    seen = world.message(loot.second, Act.renew, csr=asked)
    yield issue("a message that passed by, with its own CSR", seen, within=False)
    for act, fields in (
        (Act.renew, {"csr": asked}),
        (Act.issue, {"csr": asked, "device": DeviceId("pump-99"), "profile": ProfileName("device")}),
    ):
        for name, pair in loot.everybody.items():
            forged = world.message(own, act, **fields)
            yield issue(
                f"a forged {act.value} of {name}",
                MessageEvidence(forged.payload, pair.certificate, forged.signature),
                within=False,
                csr=asked,
            )
    # 5. What only the web process saw: names it says it validated, certificates it says a factory gave.
    yield from _validated(loot)
    stranger, _ = factory("Pump Works IDevID CA")
    for words, by, serial, profile, within in (
        ("a device of the works", MAKER, "SN1", None, True),
        ("a device of the works, as a service", MAKER, "SN2", "service", False),
        ("a device of the works, as an operator", MAKER, "SN3", "operator", False),
        ("a device of a look-alike of the works", stranger, "SN4", None, False),
        ("a device of the works with a path for a serial number", MAKER, "../SN5", None, False),
    ):
        shown_by_factory = ManufacturerCertificate(factory_device(by, serial))
        wishes = {} if profile is None else {"profile": ProfileName(profile)}
        yield issue(f"a factory certificate: {words}", shown_by_factory, within=within, **wishes)
        yield issue(f"a factory certificate: {words}, for another device", shown_by_factory, within=False, device=DeviceId("pump-99"))
    for name, pair in loot.everybody.items():
        yield issue(f"a factory certificate: that of {name}", ManufacturerCertificate(pair.certificate), within=False)
    yield revoke("a factory certificate revokes", ManufacturerCertificate(factory_device(MAKER, "SN1")), Reason.keyCompromise, within=False)
    # 6. Revoking: what it presents, and nothing else.
    row = world.row(loot.second)
    for reason in Reason:
        yield revoke(f"by itself: revoke for {reason.name}", local, reason, within=False, target=row.ref)
        yield revoke(
            f"presenting valve: revoke another for {reason.name}",
            PresentedCertificate(loot.valve.certificate),
            reason,
            within=False,
            target=row.ref,
        )
    yield revoke(
        "presenting valve: revoke a device",
        PresentedCertificate(loot.valve.certificate),
        Reason.keyCompromise,
        within=False,
        device=DeviceId("pump-2"),
    )
    yield revoke(
        "presenting valve: revoke its own device",
        PresentedCertificate(loot.valve.certificate),
        Reason.keyCompromise,
        within=False,
        device=DeviceId("valve-1"),
    )
    yield revoke(
        "presenting the operator: revoke a device",
        PresentedCertificate(loot.operator.certificate),
        Reason.keyCompromise,
        within=False,
        device=DeviceId("pump-2"),
    )
    yield revoke("presenting valve: put itself on hold", PresentedCertificate(loot.valve.certificate), Reason.certificateHold, within=False)
    yield revoke("presenting valve: revoke itself", PresentedCertificate(loot.valve.certificate), Reason.keyCompromise, within=False)
    yield revoke("presenting second: revoke itself", PresentedCertificate(loot.second.certificate), Reason.keyCompromise, within=True)
    operator = PresentedCertificate(loot.operator.certificate)
    yield revoke("presenting the operator: revoke it", operator, Reason.keyCompromise, within=False)
    # 7. Tokens for others.
    for name, evidence in (("by itself", local), ("presenting the operator", PresentedCertificate(loot.operator.certificate))):
        body = messages.write_token(TokenRequest(evidence, DeviceId("pump-99"), ProfileName("device"), (), 3600))
        yield Attempt(f"{name}: a token", "create-token", body, within=False)
    # 8. What belongs to other roles.
    ref = messages.write_ref(CertificateRef(row.ref.issuer, row.ref.serial))
    crl = messages.write_crl(IssuerId("issuing"), shard=0, above=0, fence=1)
    for verb, body in (
        ("sign-crl", crl),
        ("crl-published", crl),
        ("add-operator", {"name": "eve", "roles": ["admin"]}),
        ("disable-operator", {"name": "ada"}),
        ("certificates", {}),
        ("certificate", ref),
        ("devices", {}),
        ("operators", {}),
        ("profiles", {}),
        ("issuers", {}),
    ):
        yield Attempt(f"verb {verb}", verb, body, within=False)
    # 9. Saying that it is somebody else.
    for role in ("status", "publisher", "operator"):
        yield issue(f"as {role}", LocalEvidence(Role(role), 0), within=False, role=role)
    claims = [
        {"kind": "local", "role": "operator", "uid": 0},
        {"kind": "local", "uid": 0},
        {"kind": "grant", "profile": "operator"},
        {"kind": "handshake"},
    ]
    for claim in claims:
        yield Attempt(f"evidence {json.dumps(claim)}", "issue", {"csr": forms.write(csr()), "evidence": claim}, within=False)
    for field, value in (("tbs", "MAA="), ("grant", {"profile": "operator"}), ("serial", "01"), ("role", "operator"), ("not_after", 1)):
        body = {**messages.write_issue(IssueRequest(csr(), local)), field: value}
        yield Attempt(f"a request with `{field}`", "issue", body, within=False)
    yield from _line(loot)


def _line(loot: Loot) -> Iterator[Attempt]:
    """A factory line, whose station and shift are real: it carries what these signed, and can sign nothing in their place."""
    header, key = loot.header.decode(), Keypair()
    digest = Digest(hashlib.sha256(loot.station.spki).digest())
    fields: dict[str, Any] = {"station": ("line-1", digest.hex(), 5), "profile": ProfileName("device"), "lifetime": 3600}
    forged = loot.world.message(key, Act.shift, **fields)
    for name, pair in loot.everybody.items():
        said = MessageEvidence(forged.payload, pair.certificate, forged.signature)
        asked = ShiftRequest(said, "line-1", digest, ProfileName("device"), 5, 3600)
        yield Attempt(f"a forged log-in of {name}", "open-shift", forms.write(asked), within=False)
    text = line.write_unit(Unit(1, DeviceId("pump-99"), csr(), loot.world.clock.at))
    head = line.chained(line.read_header(loot.header).head, text)
    quota = line.read_header(loot.header).quota
    seal = line.seal(quota, 1, head, key.sign).decode()
    for words, part in (
        ("a unit under a seal of its own", UnitPart(header, 1, (text.decode(),), seal)),
        ("a unit without a seal", UnitPart(header, 1, (text.decode(),), text.decode())),
        ("a unit in a quota that it enlarged", UnitPart(header.replace('"count":5', '"count":500'), 1, (text.decode(),), seal)),
    ):
        yield Attempt(words, "take-part", forms.write(part), within=False)
    yield Attempt("a station of its own", "add-station", {"name": "line-7", "spki": forms.write(key.spki)}, within=False)
    yield Attempt("a whole file of units", "take-units", {}, within=False)
    yield Attempt("records that no station signed", "seal-records", {"station": "line-1", "records": ["device_id: x"]}, within=False)


def _validated(loot: Loot) -> Iterator[Attempt]:
    def says(
        *names: Name, account: str = ACCOUNT, profile: str = "service", purpose: str = ORDER, token: bytes | None = None
    ) -> ValidatedNames:
        return ValidatedNames(account, purpose, ProfileName(profile), names, None if token is None else Digest(token))

    inside, address = Name(NameKind.dns, "gw.fleet.test"), Name(NameKind.ip, "192.0.2.9")
    bank = Name(NameKind.dns, "bank.example")
    yield issue("validated: a name of the settings", says(inside), within=True)
    yield issue("validated: an address of the settings", says(address, purpose="1" * 32), within=True)
    for words, evidence in (
        ("a bank's name", says(bank)),
        ("a name of the settings and a bank's", says(inside, bank)),
        ("the name above those of the settings", says(Name(NameKind.dns, "fleet.test"))),
        ("a name that ends alike", says(Name(NameKind.dns, "evilfleet.test"))),
        ("an address outside", says(Name(NameKind.ip, "192.0.3.1"))),
        ("a URI", says(Name(NameKind.uri, "urn:x"))),
        ("no name", says()),
        *[(f"profile {profile}", says(inside, profile=profile)) for profile in PROFILES if profile != "service"],
        ("an account that is a path", says(inside, account="../" + "a" * 29)),
        ("an order that is none", says(inside, purpose="x")),
        ("a token nobody made", says(inside, token=bytes(32))),
        ("a token that passed by", says(inside, token=token_hash(loot.held_token))),
        ("a used token", says(inside, token=token_hash(loot.used_token))),
    ):
        yield issue(f"validated: {words}", evidence, within=False)
    for device in DEVICES:
        yield issue(f"validated: for {device}", says(inside), within=False, device=DeviceId(device))
    yield issue("validated: from the root", says(inside), within=False, issuer=IssuerId("root"))
    for name, pair in loot.everybody.items():
        target = loot.world.row(pair).ref
        for words, evidence in (("nothing", says()), ("a name", says(inside)), ("its names", says(*loot.world.row(pair).names[:32]))):
            yield revoke(f"validated {words}: revoke {name}", evidence, Reason.keyCompromise, within=False, target=target)
    yield revoke("validated: revoke a device", says(inside), Reason.keyCompromise, within=False, device=DeviceId("pump-1"))


# ---- The child ------------------------------------------------------------------------------------------------------


def _exchange(connection: socket.socket, document: dict[str, Any]) -> dict[str, Any]:
    connection.sendall(messages.frame(document))
    head = connection.recv(4, socket.MSG_WAITALL)
    if not head:
        return {"error": {"code": "hung-up"}}
    return messages.unframe(connection.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL))


def rob(path: Path, attempts: list[Attempt]) -> list[str]:
    """Ask for everything; `granted`, or the code of the refusal."""
    outcomes = []
    for attempt in attempts:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(str(path))
            answer = _exchange(connection, {"hello": messages.VERSION, "role": attempt.role})
            if "ok" in answer:
                answer = _exchange(connection, messages.request(attempt.verb, attempt.body))
            outcomes.append("granted" if "ok" in answer else str(answer["error"]["code"]))
    return outcomes


def as_another_user(uid: int, work: Callable[[], list[str]]) -> list[str]:
    """Run in a child process under that user id; what it returns."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reader)
            if os.geteuid() == 0 and uid != 0:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            assert os.getuid() == uid
            with os.fdopen(writer, "w") as out:
                json.dump(work(), out)
            code = 0
        except BaseException as error:
            sys.stderr.write(f"the thief stumbled: {error!r}\n")
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as back:
        said = back.read()
    _, status = os.waitpid(child, 0)
    assert status == 0
    found: list[str] = json.loads(said)
    return found


class Told:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = error = info


def _everybody_may_enter(path: Path) -> None:
    for folder in (path, *path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.req("REQ-KEY-006", "REQ-KEY-053")
def test_P2_P3_a_stolen_web_process_gets_what_its_role_may_ask_for_and_all_of_it_is_on_record(tmp_path: Path) -> None:
    world = World(tmp_path, sqlite_url(tmp_path), caps={Role.enroll: CAPS})
    # What the world sets up with the same role must not be counted against the thief.
    world.caps.clear()
    world.restart()
    loot = Loot(world)
    world.caps[Role.enroll] = CAPS
    world.restart()
    attempts = list(plans(loot))
    before_rows, before_leaves = {row.ref for row in world.rows()}, len(world.leaves())
    log = Told()
    folder = tmp_path / "run"
    server = world.server(folder / "s", users={THIEF: frozenset({Role.enroll})}, mode=0o660, log=log)
    server.start()
    if os.geteuid() == 0:
        os.chown(folder / "s", 0, THIEF)
        _everybody_may_enter(folder)
    try:
        outcomes = as_another_user(THIEF, lambda: rob(folder / "s", attempts))
    finally:
        server.stop()
    wrong = []
    for attempt, outcome in zip(attempts, outcomes, strict=True):
        granted = outcome == "granted"
        print(f"{'GRANTED and logged' if granted else f'refused ({outcome})':45} {attempt.words}")
        if granted != attempt.within:
            wrong.append(f"{attempt.words}: {outcome}")
    assert wrong == []
    granted = [attempt for attempt, outcome in zip(attempts, outcomes, strict=True) if outcome == "granted"]
    refused = len(attempts) - len(granted)
    assert refused > 100
    # Each grant is a row, a leaf of the record with the thief's role, and a line in the signer's log.
    new = [row for row in world.rows() if row.ref not in before_rows]
    assert len(new) == sum(attempt.verb == "issue" for attempt in granted)
    leaves = world.leaves()[before_leaves:]
    issuances = [leaf for leaf in leaves if leaf["kind"] == "issuance"]
    assert {leaf["serial"] for leaf in issuances} == {f"{row.ref.serial:040x}" for row in new}
    assert {leaf["role"] for leaf in issuances} == {"enroll"}
    assert sum(leaf["kind"] == "revocation" for leaf in leaves) == 1
    # Nothing it got reaches further than the caps.
    for row in new:
        assert row.profile in {"device", "service"}
        assert row.device.startswith("pump-") or row.device in {"fleetca:enroll", f"account:{ACCOUNT}"}
        assert row.device != "fleetca:enroll" or row.names == (OWN,)
    assert not [leaf for leaf in leaves if leaf["kind"] in {"operator", "token", "crl"}]
    events = [event for event, _ in log.lines]
    assert events.count("issued") == len(new)
    assert events.count("refused") == refused
    assert sum(octets.startswith(b"\x30") for octets in world.key.signed) == len(world.rows())
    assert world.peer(Role.enroll) == Peer(Role.enroll, UID)
    world.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_the_thief_goes_no_faster_than_its_rate(tmp_path: Path) -> None:
    world = World(tmp_path, sqlite_url(tmp_path), caps={Role.enroll: Caps(per_minute=5, own_names=frozenset({OWN}))})
    server = world.server(tmp_path / "s", users={THIEF: frozenset({Role.enroll})}, mode=0o660)
    server.start()
    if os.geteuid() == 0:
        os.chown(tmp_path / "s", 0, THIEF)
        _everybody_may_enter(tmp_path)
    local = LocalEvidence(Role.enroll, THIEF)
    attempts = [issue("its own certificate", local, within=True) for _ in range(20)]
    try:
        outcomes = as_another_user(THIEF, lambda: rob(tmp_path / "s", attempts))
    finally:
        server.stop()
    assert outcomes == ["granted"] * 5 + ["over-rate"] * 15
    world.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_P3_a_user_without_a_role_is_not_heard_even_where_the_socket_lets_it_connect(tmp_path: Path) -> None:
    need("root")  # only root can become somebody else
    world = World(tmp_path, sqlite_url(tmp_path))
    server = world.server(tmp_path / "s", users={0: frozenset(Role)}, mode=0o660)
    server.start()
    os.chown(tmp_path / "s", 0, THIEF)
    _everybody_may_enter(tmp_path)
    attempts = [issue(f"as {role.value}", LocalEvidence(role, 0), within=False, role=role.value) for role in Role]
    try:
        outcomes = as_another_user(THIEF, lambda: rob(tmp_path / "s", attempts))
    finally:
        server.stop()
    assert outcomes == ["role-not-yours"] * len(Role)
    world.close()
