"""Operators whose keys rest on tokens: what they sign counts as any other, and the key never leaves the token (REQ-KEY-067)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from ca.der import pem
from ca.errors import FleetcaError
from ca.model import (
    ApprovalDecision,
    DeviceId,
    GraveAct,
    IssueRequest,
    OperatorName,
    Proposal,
    ProposalRequest,
    ProposalState,
    Role,
)
from ca.rules import two_persons as rule
from ca.rules.grant import OPERATOR, OPERATOR_DEVICE
from ca.rules.message import Act
from fleetca.cli.hand import Hand
from fleetca.cli.main import fleetca
from tests.databases import sqlite_url
from tests.fakes.signer_world import DEPLOYMENT, World, der_of
from tests.softhsm import PIN, softhsm


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, sqlite_url(tmp_path))
    yield made
    made.close()


def address(label: str, key: str) -> str:
    return f"pkcs11:token={label};object={key}?module-path={softhsm().module}"


def tool(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(fleetca, list(words))
    if isinstance(done.exception, FleetcaError):
        return 1, done.exception.code
    return done.exit_code, done.output


def on_token(world: World, folder: Path, name: str, role: str) -> Hand:
    """An operator whose key is made on the token of the tests."""
    where = address("people", name)
    code, said = tool(
        "operators", "csr", "--key", where, "--make", "p256", "--passphrase-file", str(folder / "pin"), "--out", str(folder / f"{name}.csr")
    )
    assert code == 0, said
    world.operators.add(OperatorName(name), (role,), world.peer(Role.operator))
    (csr,) = pem.ders_of((folder / f"{name}.csr").read_bytes(), pem.REQUEST)
    asked = IssueRequest(csr, world.local(Role.operator), DeviceId(OPERATOR_DEVICE + name), OPERATOR)
    certificate = folder / f"{name}.pem"
    certificate.write_text(pem.pem(pem.CERTIFICATE, der_of(world.issue(asked, Role.operator))))
    return Hand(str(certificate), where, str(folder / "pin"))


@pytest.mark.req("REQ-KEY-067")
def test_two_persons_with_tokens_revive_a_device(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = softhsm()
    token.add("people")
    (tmp_path / "pin").write_text(PIN)
    monkeypatch.setattr("fleetca.cli.reach.now", lambda: world.clock.at)
    ada, sam = on_token(world, tmp_path, "ada", "admin"), on_token(world, tmp_path, "sam", "security-officer")
    world.enrol("pump-1")
    world.revoke_device("pump-1")

    said = (GraveAct.revive.value, rule.subject(GraveAct.revive, device="pump-1"), 3600, "Repaired.")
    asked = world.two_persons.propose(
        ProposalRequest(ada.message(Act.propose, deployment=DEPLOYMENT, proposal=said)), world.peer(Role.operator)
    )
    digits = asked.request.hex()
    given = sam.message(Act.approve, deployment=DEPLOYMENT, decision=(digits, True, ""))
    done = world.approving.decide(ApprovalDecision(given, digits, True), world.peer(Role.enroll))
    assert isinstance(done, Proposal)
    assert done.state is ProposalState.approved
    world.reviving.revive(DeviceId("pump-1"), world.peer(Role.operator))

    held = token.inspect("people", "--list-objects", "--type", "privkey")
    assert held.count("sensitive, always sensitive, never extractable") >= 2, held
    with pytest.raises(FleetcaError) as caught:
        Hand(ada.certificate, sam.key, sam.passphrase_file).message(Act.propose, deployment=DEPLOYMENT, proposal=said)
    assert caught.value.code == "key-of-another"


@pytest.mark.parametrize(
    ("key", "more", "code"),
    [
        pytest.param("sam.key", (), "bad-key-address", id="a file"),
        pytest.param("pkcs11:object=sam?module-path=/x.so", (), "bad-key-address", id="no token is named"),
        pytest.param("pkcs11:token=a;object=sam?module-path=/x.so&pin-value=1", (), "bad-key-address", id="a PIN stands in it"),
        pytest.param("pkcs11:token=a;object=sam?module-path=/x.so", ("--make", "rot13"), "unknown-algorithm", id="no such kind of key"),
    ],
)
def test_what_is_no_address_of_a_key_is_refused(tmp_path: Path, key: str, more: tuple[str, ...], code: str) -> None:
    (tmp_path / "pin").write_text(PIN)
    words = (
        "operators",
        "csr",
        "--key",
        key,
        "--passphrase-file",
        str(tmp_path / "pin"),
        "--out",
        str(tmp_path / "a.csr"),
        "--json",
        *more,
    )
    assert tool(*words) == (1, code)
    assert json.dumps(sorted(one.name for one in tmp_path.iterdir())) == '["pin"]'
