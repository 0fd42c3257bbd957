"""`fleetca issue`: a certificate for a CSR, by an operator at the machine."""

from __future__ import annotations

import click

from fleetca.cli import output, reach


@click.command(
    help="Issue a certificate for CSR, a file with a PKCS#10 request (PEM or DER; - is stdin). The profile says what stands in it."
)
@click.argument("csr", metavar="CSR")
@output.settings_option
@click.option("--device", required=True, help="The device it is for.")
@click.option("--profile", default="device", show_default=True, help="The profile of the certificate.")
@reach.name_options
@click.option(
    "--out",
    type=click.Path(dir_okay=False),
    help="Write certificate and issuing CA (PEM) here instead of stdout; refuses an existing file.",
)
@output.json_option
def issue(
    csr: str, settings: str, device: str, profile: str, dns: tuple[str, ...], ip: tuple[str, ...], out: str | None, as_json: bool
) -> None:
    from pathlib import Path

    from ca.der.csr import read_csr_any
    from ca.errors import Conflict
    from ca.model import IssueRequest
    from ca.rules import ids
    from ca.rules.chains import Chains
    from enroll.model import Issuance
    from enroll.rest.messages import pem_chain, render_issuance
    from fleetca import forms

    if out is not None and Path(out).exists():  # before anything is issued
        raise Conflict("file-exists", f"{out} exists already.", fix="Name another file, or move this one away.")
    der, _ = read_csr_any(reach.read(csr))
    with reach.signer(settings) as (deployment, signer):
        # Both before: nothing may fail once it is issued.
        chains = Chains(signer.issuers(), forms.links(deployment).values())
        plain = {one.name for one in signer.profiles() if one.plain_key_file}
        issued = signer.issue(
            IssueRequest(
                csr=der,
                evidence=signer.local,
                device=ids.device_id(device),
                profile=ids.profile_name(profile),
                names=reach.names(dns, ip),
            )
        )
        chain = chains.above(issued.certificate.ref.issuer, now=reach.now())
    certificate = issued.certificate
    assert certificate.der is not None, "the signer returns issued certificates only"
    text = pem_chain((certificate.der, *chain[:-1]))
    if out is not None:
        reach.write_new(out, text.encode())
    given = Issuance(certificate, chain, None, plain_key_file=certificate.profile in plain, leaf=issued.leaf, repeated=issued.repeated)
    document = render_issuance(given)
    del document["renew_at"]  # the device learns it when it enrols; here nobody waits for it
    output.result({**document, "file": out}, "" if out else text.rstrip(), as_json=as_json)
    output.note(
        reach.facts(
            (
                ("certificate", str(certificate.ref) + (" (issued before for the same request)" if issued.repeated else "")),
                ("for", f"{certificate.device} (profile {certificate.profile})"),
                ("valid until", f"{output.iso(certificate.not_after)} ({output.distance(certificate.not_after, reach.now())})"),
                ("SHA-256", reach.fingerprint(certificate.der)),
                ("written to", out or "stdout"),
                ("next", f"fleetca certificates show {certificate.ref}"),
            )
        )
    )
