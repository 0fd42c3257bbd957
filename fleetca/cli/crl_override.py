"""`fleetca crl refused` and `fleetca crl override`: a CRL that the gate refused, and operators who answer for it all the same."""

from __future__ import annotations

import click

from fleetca.cli import hand, output, reach


@click.command(help="The CRLs that the gate refused and readers did not get, with why, and who answers for them.")
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
                found.append((scope.name, held, len(folder.statements(scope.name))))
    document = [
        {
            "crl": name,
            "number": held.intent.number,
            "digest": held.tbs_sha256.hex(),
            "code": held.code,
            "why": held.what,
            "statements": count,
        }
        for name, held, count in found
    ]
    rows = [(name, str(held.intent.number), held.what, held.tbs_sha256.hex(), f"{count} of 2") for name, held, count in found]
    output.result({"refused": document}, reach.table(("CRL", "NUMBER", "WHY", "DIGEST", "ANSWERED"), rows) if rows else "", as_json=as_json)
    return output.FINDINGS if found else 0


@click.command(
    help="Answer, as an operator, for a CRL that the gate refused: sign its digest. When two different operators have, the publisher puts it out."
    " Look at it first: fleetca crl refused; fleetca crl diff."
)
@click.argument("name")
@output.settings_option
@click.option("--digest", required=True, help="Its digest, as `fleetca crl refused` shows it: what you looked at.")
@hand.options(required=True)
@output.json_option
def override(name: str, settings: str, digest: str, certificate: str, key: str, passphrase_file: str | None, as_json: bool) -> None:
    from ca.errors import NotFound, StoreUnavailable, Unacceptable
    from ca.rules import override as rule
    from crl.refusals import RefusedFolder
    from fleetca import forms

    read = forms.read_settings(settings)
    folder = RefusedFolder(read.crl.tally / "refused")
    held = folder.held(name)
    if held is None:
        raise NotFound("nothing-refused", f"No CRL {name} was refused.", fix="See: fleetca crl refused")
    if held.tbs_sha256.hex() != digest.lower():
        raise Unacceptable("another-digest", f"The refused CRL {name} has another digest.", why=f"It is {held.tbs_sha256.hex()}.")
    said = rule.payload(deployment=read.deployment.name, crl=name, tbs_sha256=held.tbs_sha256, at=reach.now())
    try:
        folder.state(name, hand.Hand(certificate, key, passphrase_file).evidence(said, rule.CONTEXT + said))
    except OSError as error:
        raise StoreUnavailable("publisher-folder", f"{read.crl.tally} cannot be written.", why=f"{error.strerror}.") from None
    count = len(folder.statements(name))
    output.result(
        {"crl": name, "digest": digest.lower(), "statements": count}, f"{count} of {rule.NEEDED} answer for {name}.", as_json=as_json
    )
