"""pkilint's opinion of what we sign; and the findings above INFO that stay, each with its reason."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple


class Stays(NamedTuple):
    """A finding that is not mended."""

    code: str
    message: str
    """How it begins."""
    reason: str


STAYS = (
    Stays(
        "pkix.aki_absent_self_issued_and_unsupported_algorithm",
        "Self-issued CA certificate uses unsupported public key algorithm: 2.16.840.1.101.3.4.3.",
        "RFC 5280 4.2.1.1 lets a self-signed certificate leave the AKI out; pkilint cannot verify ML-DSA, so it cannot see that the root "
        "signed itself.",
    ),
    Stays(
        "pkix.invalid_domain_name_syntax",
        'Invalid domain name syntax: "localhost"',
        "RFC 1034 3.5, which RFC 5280 4.2.1.6 asks for, has names of one label; pkilint wants a registered domain. Only a deployment that "
        "serves on loopback, as the demo does, has this name.",
    ),
)


class Finding(NamedTuple):
    severity: str
    code: str
    message: str
    where: str

    @property
    def stays(self) -> Stays | None:
        """The row that accepts it."""
        return next((row for row in STAYS if row.code == self.code and self.message.startswith(row.message)), None)


def findings(kind: str, document: bytes | Path, *options: str) -> list[Finding]:
    """Everything above INFO on a DER document or a file; `kind` is pkix_cert, crl or ocsp_response."""
    if isinstance(document, bytes):
        with tempfile.NamedTemporaryFile(suffix=".der") as file:
            file.write(document)
            file.flush()
            return findings(kind, Path(file.name), *options)
    said = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        warnings.simplefilter("ignore")
        importlib.import_module(f"pkilint.bin.lint_{kind}").main(["lint", *options, "-s", "NOTICE", "-f", "JSON", str(document)])
    try:
        results = json.loads(said.getvalue())["results"]
    except (ValueError, KeyError):
        raise AssertionError(f"pkilint could not read {document}: {said.getvalue()}") from None
    return [
        Finding(one["severity"], one["code"], one.get("message") or "", result.get("node_path", ""))
        for result in results
        for one in result["finding_descriptions"]
    ]


def objections(kind: str, document: bytes | Path, *options: str) -> list[Finding]:
    """As `findings`, without those that stay."""
    return [one for one in findings(kind, document, *options) if one.stays is None]
