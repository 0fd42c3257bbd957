"""What an outsider would check of a running deployment, with openssl: chain, CRLs and OCSP of a good and of a revoked certificate.

Every check is a sentence and whether it held. It believes nothing of ours: it reads files and URLs like anybody else.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from ca.der import pem


@dataclass(frozen=True, slots=True)
class Check:
    """One sentence, whether it held, and what the judge said."""

    what: str
    held: bool
    said: str


@dataclass(frozen=True, slots=True)
class Subject:
    """What is checked."""

    root: Path
    issuing: Path
    chain: Path
    good: Path
    revoked: Path
    ocsp_url: str
    crl_urls: Sequence[str]


def available() -> bool:
    """Whether openssl is there."""
    return shutil.which("openssl") is not None


def fetch(url: str) -> bytes:
    """A GET that no proxy of the environment sees."""
    with build_opener(ProxyHandler({})).open(url, timeout=10) as response:
        body = response.read()
    assert isinstance(body, bytes)
    return body


def check(subject: Subject) -> Iterator[Check]:
    """Run the checks, each as it is asked for."""
    with tempfile.TemporaryDirectory() as folder:
        crls: list[str] = []
        for number, url in enumerate(subject.crl_urls):
            path = Path(folder) / f"{number}.crl"
            path.write_text(pem.pem(pem.CRL, fetch(url)))
            crls += ["-CRLfile", str(path)]
        verify = ("verify", "-x509_strict", "-CAfile", str(subject.root), "-untrusted", str(subject.issuing), "-crl_check_all", *crls)
        yield _openssl("openssl verifies the good certificate, with CRLs for the whole chain", *verify, str(subject.good))
        yield _openssl("openssl refuses the revoked certificate by its CRL", *verify, str(subject.revoked), refused="certificate revoked")
        for digest in ("sha1", "sha256"):
            for certificate, answer in ((subject.good, "good"), (subject.revoked, "revoked")):
                yield _openssl(
                    f"openssl hears by OCSP ({digest}) that it is {answer}",
                    "ocsp", f"-{digest}", "-issuer", str(subject.issuing), "-cert", str(certificate), "-url", subject.ocsp_url,
                    "-CAfile", str(subject.root), "-verify_other", str(subject.issuing), "-no_nonce" if digest == "sha1" else "-nonce",
                    needed=("Response verify OK", f"{certificate}: {answer}"),
                )  # fmt: skip


def _openssl(what: str, *arguments: str, refused: str | None = None, needed: Sequence[str] = ()) -> Check:
    done = subprocess.run(("openssl", *arguments), capture_output=True, text=True, check=False, timeout=30)
    said = (done.stdout + done.stderr).strip()
    if refused is not None:
        held = done.returncode != 0 and refused in said
    else:
        held = done.returncode == 0 and all(words in said for words in needed)
    return Check(what, held, said)
