"""A new CA needs two people where the settings say so, whether the signer runs or not; and the first one does not (REQ-KEY-067)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ca.errors import Denied
from ca.model import (
    ApprovalDecision,
    DeviceId,
    GraveAct,
    Issued,
    IssueRequest,
    LocalEvidence,
    MessageEvidence,
    OperatorName,
    ProposalRequest,
    ProposalState,
    Role,
)
from ca.rules import two_persons as rule
from ca.rules.grant import OPERATOR, OPERATOR_DEVICE
from ca.rules.message import Act, Message, write_message
from ca.system import SystemChance, SystemClock
from fleetca import signing
from fleetca.cli.proposals import ceremony_digest
from tests.fakes.signer_world import Keypair
from tests.flows.test_rollover import OPERATOR as PEER
from tests.flows.test_rollover import bring, certify, fleet, prepare, settings_of, template  # noqa: F401 - fixtures


def message(fleet: Path, pair: Keypair, act: Act, **said: object) -> MessageEvidence:  # noqa: F811
    name = settings_of(fleet).deployment.name
    payload = write_message(Message(act, name, SystemClock().now(), SystemChance().octets(16).hex(), **said))  # type: ignore[arg-type]
    return MessageEvidence(payload, pair.certificate, pair.sign(payload))


def operator(parts: signing.SignerParts, name: str, role: str) -> Keypair:
    parts.verbs.operators.add(OperatorName(name), (role,), PEER)
    pair = Keypair()
    asked = IssueRequest(pair.csr(), LocalEvidence(Role.operator, PEER.uid), DeviceId(OPERATOR_DEVICE + name), OPERATOR)
    (made,) = parts.verbs.issuing.issue([(asked, PEER)])
    assert isinstance(made, Issued)
    assert made.certificate.der is not None
    pair.certificate = made.certificate.der
    return pair


def refused(act: Callable[[], object]) -> Denied:
    with pytest.raises(Denied) as caught:
        act()
    return caught.value


@pytest.mark.req("REQ-KEY-067")
def test_a_new_CA_is_imported_only_when_another_person_approved_its_ceremony(fleet: Path) -> None:  # noqa: F811
    file = fleet / "fleetca.toml"
    file.write_text(re.sub(r"(?m)^two_persons = .*$", 'two_persons = ["ca-certificate"]', file.read_text()))
    outputs = certify(fleet, prepare(fleet))
    said = refused(lambda: bring(fleet, outputs))
    assert said.code == "two-persons-needed"
    assert "--role security-officer" in said.fix, "there is no second person yet"
    assert not (fleet / "ca/issuing-2.pem").exists(), "nothing was placed"
    files = {path.name: path.read_bytes() for path in outputs.iterdir() if path.suffix != ".key"}
    with signing.signer_parts(settings_of(fleet)) as parts:
        ada, sam = operator(parts, "ada", "admin"), operator(parts, "sam", "security-officer")
        assert refused(lambda: parts.verbs.ceremonies.record(files, PEER)).code == "two-persons-needed"
        digest = rule.subject(GraveAct.ca_certificate, transcript_sha256=ceremony_digest(str(outputs)))
        asked = message(fleet, ada, Act.propose, proposal=("ca-certificate", digest, 3600, "The next five years."))
        proposal = parts.verbs.two_persons.propose(ProposalRequest(asked), PEER)
        given = message(fleet, sam, Act.approve, decision=(proposal.request.hex(), True, ""))
        parts.verbs.approving.decide(ApprovalDecision(given, proposal.request.hex(), True), PEER)
    assert bring(fleet, outputs).issuers[-1].id == "issuing-2"
    with signing.signer_parts(settings_of(fleet)) as parts:
        found = parts.verbs.questions._reading.find_proposal_by_beginning(proposal.request.hex())
    assert found is not None
    assert found.state is ProposalState.used
