"""Everything that ceremonies make, for roots of every kind, judged by others: openssl -x509_strict, pkilint, Java, and OpenSSL 3.5 for ML-DSA.

Two ceremonies a kind: the first makes a root with all that stands below it, the second uses that root for a re-key, a cross-certificate, the links
of a root change in both directions, and its next CRLs.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
from cryptography import x509

from ca.der import pem
from ca.der.algorithms import ALGORITHMS
from ca.model import CrlEntry, Reason, Serial
from ca.rules.ceremony_dates import chain, responder_chain
from tests.fakes.ceremony import Room, cross, csr, intermediate, known_root, link, rekey, responder, root_crl, sheet
from tests.fakes.ceremony import root as root_act
from tests.fakes.certificates import root
from tests.interop import judges
from tests.interop.test_algorithm_matrix import DIGESTS
from tests.parts import need

KINDS = tuple(ALGORITHMS)
BEFORE_ML_DSA = tuple(kind for kind in KINDS if not kind.startswith("ml-dsa-"))
DAY = 86400
CHAINS: Mapping[str, Sequence[str]] = {
    "issuing": ("root",),
    "responder-01": ("root",),
    "responder-02": ("root",),
    "issuing-2": ("root",),
    "partner": ("root",),
    "root-2-with-root": ("root",),
    "root-with-root-2": ("root-2",),
    "issuing-3": ("root-2",),
}
"""Certificate -> what stands above it, the root first."""
ACROSS = (("root", "root-2-with-root", "issuing-3"), ("root-2", "root-with-root-2", "issuing"))
"""A root change: who knows one root only believes what stands below the other."""
CRLS = ("root-crl-01", "root-crl-02", "root-crl-03", "root-crl-next", "root-2-crl")


@dataclass
class Held:
    """What two ceremonies left, in a folder."""

    kind: str
    folder: Path
    now: int
    certificates: dict[str, bytes]
    crls: dict[str, bytes]

    def path(self, name: str) -> Path:
        return self.folder / (f"{name}.crl" if name in self.crls else f"{name}.pem")

    def begun(self, name: str) -> int:
        """A time at which a certificate is valid: some are dated ahead."""
        return max(self.now, int(x509.load_der_x509_certificate(self.certificates[name]).not_valid_before_utc.timestamp())) + 120

    @cached_property
    def node(self) -> Mapping[str, str]:
        digest = DIGESTS.get(self.kind)
        signatures = {}
        for name, der in self.crls.items():
            loaded = x509.load_der_x509_crl(der)
            above = x509.load_der_x509_certificate(self.certificates["root-2" if name == "root-2-crl" else "root"])
            spki = _spki(above)
            signatures[name] = judges.Signed(spki, loaded.tbs_certlist_bytes, loaded.signature, digest)
        chains = {name: (self.certificates[name], *(self.certificates[each] for each in reversed(above))) for name, above in CHAINS.items()}
        for path in ACROSS:
            chains[" to ".join(path)] = tuple(self.certificates[each] for each in reversed(path))
        return judges.node(signatures=signatures, chains=chains)


def _spki(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture(scope="module")
def held(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Held:
    kind = request.param
    folder = tmp_path_factory.mktemp(f"ceremony-{kind}")
    # Java and openssl judge by the clock.
    now = int(time.time()) - 600
    first = Room(now=now)
    crls = chain(root_crl(next_update="45d"), count=3, overlap="15d")
    responders = responder_chain(responder(csr=csr(kind, "device")), count=2, overlap="3d")
    first.run(sheet(root_act(algorithm=kind), intermediate(csr=csr(kind), algorithm=kind), *crls, *responders))
    second = Room(keys=dict(first.keys), now=now + 60)
    issuing = pem.der_of(first.files["issuing.pem"], pem.CERTIFICATE)
    revoked = CrlEntry(Serial(x509.load_der_x509_certificate(issuing).serial_number), now + 30, Reason.superseded)
    urls = {"crl_url": "http://pki.example/crl/root-2.crl", "issuer_url": "http://pki.example/ca/root-2.cer"}
    second.run(
        sheet(
            rekey(issuing, csr=csr(kind, "operator")),
            cross(root(kind).certificate),
            root_act(id="root-2", algorithm=kind, subject={"common_name": "Root 2"}),
            link("root", "root-2"),
            link("root-2", "root", **urls),
            intermediate(
                id="issuing-3", issuer="root-2", csr=csr(kind, "third"), algorithm=kind, subject={"common_name": "Issuing 3"}, **urls
            ),
            # After the chain: numbers go on where it ended.
            root_crl(id="root-crl-next", previous=first.files["root-crl-03.crl"], this_update=now + 80 * DAY, revoked=(revoked,)),
            root_crl(id="root-2-crl", issuer="root-2"),
            issuers=(known_root(first),),
            text=b"the second sheet",
        )
    )
    files = {**first.files, **second.files}
    certificates, listed = {}, {}
    for name, octets in files.items():
        stem, _, ending = name.rpartition(".")
        if ending in {"pem", "crl"}:
            (folder / name).write_text(octets.decode() if ending == "pem" else pem.pem(pem.CRL, octets))
            (certificates if ending == "pem" else listed)[stem] = pem.der_of(octets, pem.CERTIFICATE) if ending == "pem" else octets
    assert set(certificates) == {*CHAINS, "root", "root-2"}
    assert set(listed) == set(CRLS)
    return Held(kind, folder, now, certificates, listed)


every = pytest.mark.parametrize("held", KINDS, indirect=True, scope="module")
classical = pytest.mark.parametrize("held", BEFORE_ML_DSA, indirect=True, scope="module")
"""For judges that know no ML-DSA; OpenSSL 3.5 judges those."""


@pytest.mark.req("REQ-KEY-008")
@every
def test_openssl_3_5_agrees_with_every_signature_and_chain(held: Held) -> None:
    assert held.node == dict.fromkeys(held.node, "")
    assert len(held.node) == len(CHAINS) + len(ACROSS) + len(CRLS)


@every
def test_pkilint_finds_nothing(held: Held) -> None:
    for name in held.certificates:
        judges.pkilint("pkix_cert", held.path(name))
    for name in held.crls:
        judges.pkilint("crl", held.path(name), "-t", "CRL", "-p", "PKIX")


@classical
def test_openssl_verifies_every_certificate_strictly(held: Held) -> None:
    for name, above in CHAINS.items():
        untrusted = held.folder / "none.pem"
        untrusted.write_text("".join(held.path(each).read_text() for each in above[1:]) or held.path("root").read_text())
        judges.openssl_verify(held.path(name), root=held.path(above[0]), untrusted=untrusted, at=held.begun(name))


@pytest.mark.req("REQ-KEY-008")
@classical
def test_openssl_crosses_a_root_change_in_both_directions(held: Held) -> None:
    for anchor, between, name in ACROSS:
        judges.openssl_verify(held.path(name), root=held.path(anchor), untrusted=held.path(between))


@classical
def test_openssl_refuses_without_the_link(held: Held) -> None:
    judges.openssl_verify(held.path("issuing-3"), root=held.path("root"), untrusted=held.path("issuing"), ok=False)


@classical
def test_openssl_checks_the_pre_dated_crls_one_after_the_other(held: Held) -> None:
    need("openssl")
    for name, day, revoked in (
        ("root-crl-01", 1, False),
        ("root-crl-02", 40, False),
        ("root-crl-03", 70, False),
        ("root-crl-next", 100, True),
    ):
        for path in (held.path("root"), held.path("issuing")):
            said = judges.run(
                "openssl", "verify", "-x509_strict", "-attime", str(held.now + day * DAY), "-CAfile", held.path("root"), "-crl_check", "-CRLfile",
                held.path(name), path, ok=not (revoked and path == held.path("issuing")),
            )  # fmt: skip
            assert ("revoked" in said) is (revoked and path == held.path("issuing"))


@every
def test_the_chain_has_no_gap_and_rising_numbers(held: Held) -> None:
    loaded = [x509.load_der_x509_crl(held.crls[f"root-crl-0{number}"]) for number in (1, 2, 3)]
    numbers = [each.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for each in loaded]
    assert numbers == [1, 2, 3]
    for one, other in itertools.pairwise(loaded):
        assert (one.next_update_utc - other.last_update_utc).total_seconds() == 15 * DAY - 1  # inclusive: the last second counts
    following = x509.load_der_x509_crl(held.crls["root-crl-next"])
    assert following.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 4


@classical
def test_java_validates_every_chain(held: Held) -> None:
    paths = [*((*above, name) for name, above in CHAINS.items()), *ACROSS]
    said = judges.java_chains(*((held.begun(path[-1]), [held.path(name) for name in path]) for path in paths))
    assert dict(zip(paths, said, strict=True)) == dict.fromkeys(paths, "valid")
    (refused,) = judges.java_chains((held.begun("issuing-3"), [held.path("root"), held.path("issuing"), held.path("issuing-3")]))
    assert refused.startswith("invalid")


@classical
def test_java_asks_every_crl_on_a_day_of_its_own(held: Held) -> None:
    asked = (
        ("root-crl-01", 1, ("root", "issuing"), "valid"),
        ("root-crl-02", 40, ("root", "issuing"), "valid"),
        ("root-crl-03", 70, ("root", "issuing"), "valid"),
        ("root-crl-next", 100, ("root", "issuing"), "revoked"),
        ("root-crl-next", 100, ("root", "issuing-2"), "valid"),
        ("root-2-crl", 1, ("root-2", "issuing-3"), "valid"),
        ("root-crl-01", 70, ("root", "issuing"), "invalid"),  # it has ended
        ("root-2-crl", 1, ("root", "issuing"), "invalid"),  # of another root
    )
    said = judges.java_crls(*((held.now + day * DAY, held.path(crl), [held.path(each) for each in path]) for crl, day, path, _ in asked))
    assert [each.partition(":")[0] for each in said] == [wanted for *_, wanted in asked], said
    assert {crl for crl, *_ in asked} == set(CRLS)


@every
def test_a_rekeyed_ca_keeps_its_name_octet_by_octet_and_a_link_copies_name_and_key(held: Held) -> None:
    def loaded(name: str) -> x509.Certificate:
        return x509.load_der_x509_certificate(held.certificates[name])

    assert loaded("issuing-2").subject.public_bytes() == loaded("issuing").subject.public_bytes()
    assert _spki(loaded("issuing-2")) != _spki(loaded("issuing"))
    for name, of, by in (("root-2-with-root", "root-2", "root"), ("root-with-root-2", "root", "root-2")):
        assert loaded(name).subject.public_bytes() == loaded(of).subject.public_bytes()
        assert _spki(loaded(name)) == _spki(loaded(of))
        assert loaded(name).issuer.public_bytes() == loaded(by).subject.public_bytes()
        assert loaded(name).not_valid_before_utc == max(loaded(each).not_valid_before_utc for each in (of, by))
        assert loaded(name).not_valid_after_utc == min(loaded(each).not_valid_after_utc for each in (of, by))
    assert _spki(loaded("partner")) == root(held.kind).spki
    assert _spki(loaded("responder-01")) == _spki(loaded("responder-02"))
