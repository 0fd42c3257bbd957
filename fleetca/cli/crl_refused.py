"""`fleetca crl refused`: CRLs that the gate refused, for two persons to look at."""

from __future__ import annotations

import click

from fleetca.cli import output, reach


@click.command(
    help="The CRLs that the gate refused and readers did not get, with why. Two persons may have one published all the same: fleetca approvals request"
    " crl-override NAME"
)
@output.settings_option
@output.json_option
def refused(settings: str, as_json: bool) -> int:
    from crl.publish import scopes
    from crl.refusals import RefusedFolder
    from fleetca import forms

    read = forms.read_settings(settings)
    folder = RefusedFolder(read.crl.tally / "refused")
    found = []
    for issuer in forms.issuers(read):
        for scope in scopes(issuer):
            held = folder.held(scope.name)
            if held is not None:
                found.append((scope.name, held))
    document = [
        {
            "crl": name,
            "number": held.intent.number,
            "digest": held.tbs_sha256.hex(),
            "code": held.code,
            "why": held.what,
            "file": str(held.path),
        }
        for name, held in found
    ]
    rows = [(name, str(held.intent.number), held.what, held.tbs_sha256.hex(), str(held.path)) for name, held in found]
    output.result({"refused": document}, reach.table(("CRL", "NUMBER", "WHY", "DIGEST", "FILE"), rows) if rows else "", as_json=as_json)
    return output.FINDINGS if found else 0
