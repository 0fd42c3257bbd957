"""A running deployment, judged by openssl, GnuTLS, Java and pkilint. Each test is one sentence that a relying party would say."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from ca.der import pem
from fleetca.checks import fetch
from tests.interop import judges
from tests.interop.conftest import Demo
from tests.parts import need


def post_ocsp(demo: Demo, certificate: Path) -> bytes:
    from urllib.request import ProxyHandler, Request, build_opener

    leaf = x509.load_pem_x509_certificate(certificate.read_bytes())
    issuer = x509.load_pem_x509_certificate(demo.issuing.read_bytes())
    asked = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, hashes.SHA256()).build().public_bytes(Encoding.DER)
    request = Request(demo.ocsp_url, asked, {"Content-Type": "application/ocsp-request"})
    with build_opener(ProxyHandler({})).open(request, timeout=60) as response:
        return bytes(response.read())


class TestOpenssl:
    def test_the_good_certificate_verifies_strictly(self, demo: Demo) -> None:
        judges.openssl_verify(demo.good, root=demo.root, untrusted=demo.issuing)

    def test_it_verifies_with_a_crl_for_every_link(self, demo: Demo, crls: tuple[Path, Path]) -> None:
        judges.openssl_verify(demo.good, root=demo.root, untrusted=demo.issuing, crls=crls)

    def test_the_revoked_one_is_refused_by_its_crl(self, demo: Demo, crls: tuple[Path, Path]) -> None:
        assert "certificate revoked" in judges.openssl_verify(demo.revoked, root=demo.root, untrusted=demo.issuing, crls=crls, ok=False)

    @pytest.mark.parametrize("digest", ["sha1", "sha256", "sha384", "sha512"])
    @pytest.mark.parametrize("nonce", ["-nonce", "-no_nonce"])
    def test_ocsp_answers_in_the_hash_that_was_asked(self, demo: Demo, digest: str, nonce: str) -> None:
        for certificate, status in ((demo.good, "good"), (demo.revoked, "revoked")):
            said = judges.openssl_ocsp(
                demo.ocsp_url, certificate, issuer=demo.issuing, root=demo.root, chain=demo.issuing, options=(f"-{digest}", nonce)
            )
            assert f"{certificate}: {status}" in said
            if nonce == "-nonce":
                assert "no nonce in response" not in said

    def test_the_crl_is_signed_by_the_issuing_ca(self, demo: Demo, crls: tuple[Path, Path]) -> None:
        need("openssl")
        for crl, issuer in zip(crls, (demo.issuing, demo.root), strict=True):
            assert "verify OK" in judges.run("openssl", "crl", "-in", crl, "-CAfile", issuer, "-noout", "-verify")

    def test_the_issuer_certificate_is_served_as_der_where_the_leaf_says(self, demo: Demo) -> None:
        leaf = x509.load_pem_x509_certificate(demo.good.read_bytes())
        access = leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
        (url,) = [a.access_location.value for a in access if a.access_method == x509.AuthorityInformationAccessOID.CA_ISSUERS]
        served = x509.load_der_x509_certificate(fetch(url))
        assert served == x509.load_pem_x509_certificate(demo.issuing.read_bytes())
        leaf.verify_directly_issued_by(served)


class TestGnuTls:
    def test_certtool_verifies_the_chain(self, demo: Demo) -> None:
        need("certtool")
        bundle = demo.good.read_text() + demo.issuing.read_text()
        said = judges.run("certtool", "--verify", "--load-ca-certificate", demo.root, text=bundle)
        assert "Chain verification output: Verified" in said

    def test_certtool_refuses_the_revoked_one_with_the_crl(self, demo: Demo, crls: tuple[Path, Path], tmp_path: Path) -> None:
        need("certtool")
        both = tmp_path / "both.crl"
        both.write_text(crls[0].read_text() + crls[1].read_text())
        bundle = demo.revoked.read_text() + demo.issuing.read_text()
        command = ("certtool", "--verify", "--load-ca-certificate", demo.root, "--load-crl", both)
        said = judges.run(*command, text=bundle, ok=False)
        assert "revoked" in said.lower()

    def test_ocsptool_hears_good_and_revoked(self, demo: Demo) -> None:
        need("ocsptool")
        for certificate, status in ((demo.good, "good"), (demo.revoked, "revoked")):
            said = judges.run(
                "ocsptool", f"--ask={demo.ocsp_url}", "--load-issuer", demo.issuing, "--load-cert", certificate, "--load-trust", demo.issuing,
                "--nonce",
            )  # fmt: skip
            assert f"Certificate Status: {status}" in said


class TestJava:
    @pytest.mark.parametrize("mode", ["none", "crl", "ocsp"])
    def test_pkix_accepts_the_good_certificate(self, demo: Demo, mode: str) -> None:
        assert judges.java(mode, demo.good, root=demo.root, issuing=demo.issuing) == "valid"

    @pytest.mark.parametrize("mode", ["crl", "ocsp"])
    def test_pkix_finds_the_other_revoked(self, demo: Demo, mode: str) -> None:
        assert judges.java(mode, demo.revoked, root=demo.root, issuing=demo.issuing).startswith("revoked")


class TestPkilint:
    def test_every_certificate_of_the_demo(self, demo: Demo) -> None:
        for path in (demo.root, demo.issuing, demo.good, demo.revoked):
            judges.pkilint("pkix_cert", path)

    def test_both_crls(self, demo: Demo, tmp_path: Path, crls: tuple[Path, Path]) -> None:
        for crl, kind in zip(crls, ("CRL", "ARL"), strict=True):
            judges.pkilint("crl", crl, "-t", kind, "-p", "PKIX")

    def test_ocsp_answers_and_the_responder_certificate_inside(self, demo: Demo, tmp_path: Path) -> None:
        for certificate in (demo.good, demo.revoked):
            answer = tmp_path / "answer.der"
            answer.write_bytes(post_ocsp(demo, certificate))
            judges.pkilint("ocsp_response", answer)
            (responder,) = ocsp.load_der_ocsp_response(answer.read_bytes()).certificates
            delegate = tmp_path / "responder.pem"
            delegate.write_text(pem.pem(pem.CERTIFICATE, responder.public_bytes(Encoding.DER)))
            judges.pkilint("pkix_cert", delegate)

    def test_everything_else_that_was_issued(self, demo: Demo, tmp_path: Path) -> None:
        listed = demo.cli("certificates", "list")
        assert len(listed["certificates"]) >= 4
        for number, found in enumerate(listed["certificates"]):
            shown = demo.cli("certificates", "show", f"{found['issuer']}/{found['serial']}")
            path = tmp_path / f"{number}.pem"
            path.write_text(shown["pem"] if "pem" in shown else shown["certificate"])
            judges.pkilint("pkix_cert", path)
