"""A deployment that lives for years on a clock that tests set: its ceremonies, its signer, its publisher, its responder, and what each hands out.

The verbs are the product's; only keys (in memory), archive (a dictionary), outlet (memory) and the sockets between processes are left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from ca.der import pem
from ca.der.certificate import assemble
from ca.der.request import request_info
from ca.errors import FleetcaError
from ca.issue import Issuing
from ca.keys.memory import MemoryKey
from ca.lineage import Issuers
from ca.model import (
    DEFAULT_TENANT,
    AlgorithmName,
    Certificate,
    CertificateRef,
    CrlIntent,
    CrlNumber,
    DeviceId,
    Issued,
    Issuer,
    IssueRequest,
    IssuerId,
    KeyName,
    LocalEvidence,
    OperatorName,
    Peer,
    ProfileName,
    Reason,
    RevokeRequest,
    Role,
)
from ca.operators import Operators
from ca.outlets.memory import MemoryOutlet
from ca.retire import Retiring
from ca.revoke import Revoking
from ca.rules.ceremony import Act, IntermediateAct, KnownIssuer, LinkAct, RootCrlAct
from ca.rules.ceremony_check import check
from ca.rules.ceremony_dates import chain
from ca.rules.certificate import issuer_from_certificate
from ca.rules.chains import Chains
from ca.rules.grant import OPERATOR, OPERATOR_DEVICE, Policy
from ca.rules.issuers import arranged, with_successors
from ca.sign_crl import CrlSigning
from ca.store.engine import open_store
from ca.store.entries import EntryFiles
from ca.store.file_journal import FileJournal
from ca.system import SystemChance
from ca.two_persons import TwoPersons
from ca.witness import Witness
from crl import model as crl_model
from crl.adopt import adopt, take_over, waiting
from crl.model import Scope
from crl.publish import Publisher
from ocsp import model as ocsp_model
from ocsp.serve import ResponderService
from tests.fakes import ocsp as wire
from tests.fakes.ceremony import Room, intermediate, link, profiles, root, sheet
from tests.fakes.certificates import CHECK_KEY
from tests.fakes.signer_world import Keypair, SetClock

P256 = AlgorithmName("p256")
DAY = 86400
YEAR = 365 * DAY
URL = "http://pki.example"


@dataclass(frozen=True)
class Leaf:
    """A certificate with what its holder got with it."""

    record: Certificate
    chain: tuple[bytes, ...]

    @property
    def der(self) -> bytes:
        assert self.record.der is not None
        return self.record.der


class Decade:
    """The deployment.

    Args:
        url: its database.
        crl_lifetime: of the CRLs of its issuing CAs; they are published as often as somebody looks.
    """

    def __init__(self, folder: Path, url: str, *, at: int, crl_lifetime: int) -> None:
        self.folder, self.clock, self.crl_lifetime = folder, SetClock(at), crl_lifetime
        self.root_keys: dict[KeyName, MemoryKey] = {}
        self.keys: dict[IssuerId, MemoryKey] = {}
        self.known: dict[str, bytes] = {}
        """CA certificates in place, in the order in which they came."""
        self.succeeds: dict[IssuerId, IssuerId] = {}
        self.links: dict[str, bytes] = {}
        self.leaves: list[Leaf] = []
        self.responders: ResponderService | None = None
        self.ceremonies = 0
        self.retired: set[IssuerId] = set()
        self.store = open_store(url)
        self.outlet = MemoryOutlet(self.clock.now)
        self.witness = Witness(FileJournal(folder / "journal"))
        self.operators = Operators(ledger=self.store.ledger, witness=self.witness, tenant=DEFAULT_TENANT, clock=self.clock)

    def close(self) -> None:
        self.store.close()

    # ---- Ceremonies -------------------------------------------------------------------------------------------------

    def hold(self, *acts: Act) -> None:
        """A ceremony at this moment; its transcript is checked, and its outputs are imported."""
        self.ceremonies += 1
        room = Room(keys=self.root_keys, now=self.clock.at)
        used = {act.issuer for act in acts if isinstance(act, RootCrlAct | IntermediateAct)}
        used |= {id_ for act in acts if isinstance(act, LinkAct) for id_ in (act.signer, act.subject)}
        known = tuple(KnownIssuer(IssuerId(id_), der, KeyName(id_)) for id_, der in self.known.items() if id_ in used)
        made = replace(sheet(*acts, issuers=known, text=b"ceremony %d" % self.ceremonies), name=f"ceremony-{self.ceremonies}")
        room.run(made)
        verified = check(room.files["transcript.jsonl"], {"sheet.toml": made.octets, **room.files}, roots=self.known)
        for output in verified.outputs:
            if output.kind in {"root", "intermediate"}:
                self.known[IssuerId(output.act)] = output.der
            elif output.kind == "link":
                self.links[output.act] = output.der
        self.restart()
        for output in verified.outputs:
            if output.is_crl:
                owner = next(act.issuer for act in acts if act.id == output.act and isinstance(act, RootCrlAct))
                adopt(output.der, self.issuers.by_id[owner], outlet=self.outlet, clock=self.clock)

    def new_root(self, id_: str, *, name: str, years: int) -> Act:
        return root(id=IssuerId(id_), subject={"common_name": name}, not_after=f"{years}y")

    def new_issuing(self, id_: str, *, below: str, years: int, succeeds: str | None = None) -> Act:
        key = MemoryKey.generate(KeyName(id_), P256)
        self.keys[IssuerId(id_)] = key
        if succeeds is not None:
            self.succeeds[IssuerId(succeeds)] = IssuerId(id_)
        info = request_info({"common_name": id_}, key.spki)
        return intermediate(
            id=IssuerId(id_), issuer=IssuerId(below), csr=assemble(info, key.algorithm, key.sign(info)), algorithm=P256,
            subject={"common_name": f"Issuing CA {id_}"}, not_after=f"{years}y", crl_url=f"{URL}/crl/{below}.crl",
            issuer_url=f"{URL}/ca/{below}.p7c",
        )  # fmt: skip

    def linked(self, signer: str, subject: str) -> Act:
        return link(signer, subject, crl_url=f"{URL}/crl/{signer}.crl", issuer_url=f"{URL}/ca/{signer}.p7c")

    def crls(self, owner: str) -> Sequence[Act]:
        """More than a year of a root's CRLs: the first ones, or those that follow the last one that waits."""
        published = self.outlet.current(f"{owner}.crl")
        previous, start = None, "now"
        if published is not None:
            ahead = sorted(waiting(self.issuers.by_id[IssuerId(owner)], outlet=self.outlet), key=lambda one: one.head.number)
            previous = ahead[-1].octets if ahead else published.octets
        first = RootCrlAct(
            id=IssuerId(f"{owner}-crl"), issuer=IssuerId(owner), previous=previous, first=published is None, this_update=start,
            next_update="45d", revoked=(), overlap="15d" if previous is not None else None,
        )  # fmt: skip
        return chain(first, count=14, overlap="15d")

    # ---- The signer -------------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Start all processes anew over the same record, as after an import."""
        found = [
            issuer_from_certificate(
                der, id=id_, key=KeyName(id_) if id_ in self.keys else None, crl_url=f"{URL}/crl/{id_}.crl", ocsp_url=f"{URL}/ocsp",
                issuer_url=f"{URL}/ca/{id_}.p7c",
            )
            for id_, der in self.known.items()
        ]  # fmt: skip
        begun = {old: (new, 0) for old, new in self.succeeds.items() if new in self.known}
        self.issuers = Issuers(with_successors(arranged(found), begun))
        self.all = tuple(self.issuers.by_id.values())
        self.chains = Chains(self.all, self.links.values())
        keys = {id_: key for id_, key in self.keys.items() if id_ in self.known and id_ not in self.retired}
        shared: dict[str, Any] = {"ledger": self.store.ledger, "issuers": self.issuers, "clock": self.clock, "witness": self.witness}
        policy = Policy("decade", DEFAULT_TENANT, IssuerId("issuing-1"), cast("Any", profiles()), {})
        self.issuing = Issuing(**shared, keys=keys, policy=policy, chance=SystemChance(), serial_check=CHECK_KEY)
        self.revoking = Revoking(**shared, policy=policy, two_persons=TwoPersons(**shared, policy=policy))
        self.crl_signing = CrlSigning(
            **shared,
            keys=keys,
            reading=self.store.reading,
            bodies=EntryFiles(self.folder / "entries", self.store.reading),
            lifetime=self.crl_lifetime,
        )
        self.retiring = Retiring(ledger=self.store.ledger, issuers=self.all, clock=self.clock, crl_lifetime=self.crl_lifetime)
        self.retiring.enter()
        self.publisher = Publisher(
            reading=self.store.reading,
            leases=self.store.ledger,
            signer=cast("Any", self),
            outlet=self.outlet,
            clock=self.clock,
            failpoint=lambda name: None,
            policy=crl_model.Policy(interval=self.crl_lifetime // 4, nudge=5, lifetime=self.crl_lifetime, lease=60),
            holder="decade",
        )
        self.responders = None

    def issue(self, device: str, profile: str) -> Leaf:
        """A certificate that an operator of this machine asks for, with the chain that goes with it."""
        id_ = DeviceId(device)
        if profile == OPERATOR:
            self.operators.add(OperatorName(device), ("admin",), Peer(Role.operator, 0))
            id_ = DeviceId(f"{OPERATOR_DEVICE}{device}")
        request = IssueRequest(Keypair().csr(), LocalEvidence(Role.operator, 0), device=id_, profile=ProfileName(profile))
        issued = self.issuing.issue([(request, Peer(Role.operator, 0))])[0]
        assert isinstance(issued, Issued), issued
        certificate = issued.certificate
        assert isinstance(certificate, Certificate)
        made = Leaf(certificate, self.chains.above(certificate.ref.issuer, now=self.clock.at))
        self.leaves.append(made)
        return made

    def revoke(self, leaf: Leaf) -> None:
        request = RevokeRequest(LocalEvidence(Role.operator, 0), Reason.cessationOfOperation, target=leaf.record.ref)
        outcome = self.revoking.revoke([(request, Peer(Role.operator, 0))])[0]
        assert not isinstance(outcome, FleetcaError), outcome

    def live(self) -> list[Leaf]:
        """The leaves that hold now."""
        self.leaves = [leaf for leaf in self.leaves if leaf.record.not_after >= self.clock.at]
        return self.leaves

    # ---- Status -----------------------------------------------------------------------------------------------------

    def publish(self) -> None:
        """One look of the publisher at everything, and of the signer at whose time is over."""
        gone = self.retiring.retire()
        if gone:
            self.retired.update(gone)
            self.restart()
        for issuer in self.all:
            if issuer.key is None:
                take_over(issuer, outlet=self.outlet, clock=self.clock)
            elif issuer.id not in self.retired:
                self.publisher.publish(Scope(issuer))

    def published(self) -> Mapping[IssuerId, bytes]:
        found = {issuer.id: self.outlet.current(f"{issuer.id}.crl") for issuer in self.all if issuer.id not in self.retired}
        return {id_: copy.octets for id_, copy in found.items() if copy is not None}

    def sign_crl(
        self,
        issuer: IssuerId,
        *,
        shard: int,
        above: CrlNumber,
        fence: int,
        sink_fd: int,
        base: CrlNumber | None = None,
        afresh: bool = False,
    ) -> CrlIntent:
        """The signer as the publisher sees it."""
        with os.fdopen(os.dup(sink_fd), "wb") as sink:
            return self.crl_signing.sign(
                issuer,
                shard=shard,
                above=above,
                fence=fence,
                sink=cast("BinaryIO", sink),
                peer=Peer(Role.publisher, 0),
                base=base,
                afresh=afresh,
            )

    def crl_published(self, issuer: IssuerId, shard: int, number: CrlNumber, fence: int) -> None:
        self.crl_signing.published(issuer, shard=shard, number=number, fence=fence, peer=Peer(Role.publisher, 0))

    def certify(self, issuer: IssuerId, csr: bytes) -> bytes:
        """The signer as the responder sees it."""
        request = IssueRequest(csr, LocalEvidence(Role.status, 0), issuer=issuer)
        issued = self.issuing.issue([(request, Peer(Role.status, 0))])[0]
        assert isinstance(issued, Issued), issued
        assert issued.certificate.der is not None
        return issued.certificate.der

    def answer(self, ref: CertificateRef) -> bytes:
        """What OCSP says of a certificate (DER)."""
        if self.responders is None:
            self.responders = ResponderService(
                reading=self.store.reading,
                certifier=self,
                make_key=lambda: MemoryKey.generate(KeyName("responder"), P256),
                issuers=[replace(issuer, key=None) if issuer.id in self.retired else issuer for issuer in self.all],
                policy=ocsp_model.Policy(),
                clock=self.clock,
            )
        self.responders.listen()
        self.responders.renew()
        octets = wire.certificate_id(self.issuers.by_id[ref.issuer], ref.serial, hash_name="sha1")
        answer = self.responders.reply(wire.post(wire.request(octets)))
        assert answer.status == 200
        return answer.body

    # ---- What others hold ---------------------------------------------------------------------------------------------

    def roots(self) -> list[Issuer]:
        """The roots that hold now, the oldest first."""
        return [issuer for issuer in self.all if issuer.parent is None and issuer.not_after >= self.clock.at]

    def served_links(self) -> Iterator[bytes]:
        return (one.der for one in self.chains.links if one.not_before <= self.clock.at <= one.not_after)


def pems(label: str, *certificates: bytes) -> str:
    return "".join(pem.pem(label, der) for der in dict.fromkeys(certificates))
