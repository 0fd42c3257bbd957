"""What every shipped profile gives, judged by pkilint; and the findings above INFO that stay, each with its reason."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import warnings
from pathlib import Path

import pytest

from ca.der.certificate import assemble
from ca.der.crl import tbs_crl
from ca.model import CrlEntry, Reason
from tests.fakes.certificates import DAY, NOW, drafted, issuing, key, root, serial, signed

STAYS = {
    # RFC 5280 4.2.1.6 asks for an absolute URI; a URN (RFC 8141) is one. pkilint asks a validator of locators that knows nine
    # schemes (http, ftp, ssh ...) and so refuses every URN and SPIFFE id.
    ("pkix.invalid_uri_syntax", 'Invalid URI syntax: "urn:fleetca:'),
    # RFC 5280 4.2.1.1 lets a self-signed certificate leave the AKI out; pkilint cannot see that an ML-DSA root signed itself.
    ("pkix.aki_absent_self_issued_and_unsupported_algorithm", "Self-issued CA certificate uses unsupported public key algorithm"),
}


def findings(kind: str, octets: bytes, folder: Path, *options: str) -> list[str]:
    file = folder / "document.der"
    file.write_bytes(octets)
    out = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(out):
        warnings.simplefilter("ignore")
        importlib.import_module(f"pkilint.bin.lint_{kind}").main(["lint", *options, "-s", "NOTICE", "-f", "JSON", str(file)])
    return [
        f"{one['severity']} {one['code']}: {one['message']}"
        for result in json.loads(out.getvalue())["results"]
        for one in result["finding_descriptions"]
        if not any(one["code"] == code and one["message"].startswith(text) for code, text in STAYS)
    ]


@pytest.mark.parametrize("kind", ["p256", "rsa-3072", "ed25519", "ml-dsa-65"])
def test_no_profile_gives_a_finding_above_info(kind: str, tmp_path: Path) -> None:
    made = [root(kind).certificate, issuing(kind).certificate]
    names = ("device", "device-short", "service", "operator", "ocsp-responder")
    made.extend(signed(drafted(name, issuer=issuing(kind), kind=kind), key(kind, "issuing")) for name in names)
    assert [findings("pkix_cert", octets, tmp_path) for octets in made] == [[]] * len(made)


def test_no_crl_gives_a_finding_above_info(tmp_path: Path) -> None:
    issuer = issuing()
    entries = [CrlEntry(serial(4), NOW - 4, Reason.keyCompromise), CrlEntry(serial(5), NOW - 4, Reason.unspecified)]
    for listed in ([], entries):
        made = tbs_crl(issuer, number=3, this_update=NOW, next_update=NOW + DAY - 1, entries=listed)
        octets = assemble(made, issuer.algorithm, key("p256", "issuing").sign(made))
        assert findings("crl", octets, tmp_path, "-t", "CRL", "-p", "PKIX") == []
