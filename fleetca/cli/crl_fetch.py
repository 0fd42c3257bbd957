"""`fleetca crl fetch`: keeps the CRL file of a service fresh. Needs nothing of a deployment but its CA certificates."""

from __future__ import annotations

from pathlib import Path

import click

from fleetca.cli import output, reach


@click.command(
    help="Fetch CRLs, verify them, write them for a service and run its reload hook. Run it by a timer. A CRL that is wrong, older or over leaves the"
    " file as it is. Exit code 8: something needs a look, such as a CRL that is about to end."
)
@click.argument("urls", nargs=-1, metavar="[URL]...")
@click.option("--ca", required=True, type=click.Path(exists=True, dir_okay=False), help="CA certificates that CRLs must be of (PEM).")
@click.option(
    "--of",
    "certificates",
    multiple=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="The distribution points of this certificate.",
)
@click.option(
    "--out", required=True, metavar="PATH", type=click.Path(), help="The file that the service reads; a folder for --form hashed."
)
@click.option(
    "--form",
    type=click.Choice(("pem", "der", "hashed")),
    default="pem",
    show_default=True,
    help="One PEM file, one DER CRL, or a folder by issuer hash.",
)
@click.option("--state", metavar="DIR", type=click.Path(file_okay=False), help="Where fetched CRLs are kept; beside the file when absent.")
@click.option("--deltas", is_flag=True, help="Deltas too, for services that know them.")
@click.option("--hook", default="", metavar="COMMAND", help="Run when the file changed, such as `nginx -s reload`.")
@click.option(
    "--warn", type=click.FloatRange(0, 1), default=0.25, show_default=True, help="Complain when this share of a CRL's time is left."
)
@click.option("--mode", default="0644", show_default=True, help="Of the file.")
@output.json_option
def fetch(
    urls: tuple[str, ...],
    ca: str,
    certificates: tuple[str, ...],
    out: str,
    form: str,
    state: str | None,
    deltas: bool,
    hook: str,
    warn: float,
    mode: str,
    as_json: bool,
) -> int:
    from ca.der import pem
    from ca.errors import Malformed
    from crl.rules import gate
    from fleetca.relying_party import crls, judging

    wanted = list(urls)
    for file in certificates:
        octets = reach.read(file)
        der = octets if octets.startswith(b"\x30") else pem.ders_of(octets, pem.CERTIFICATE)[0]
        wanted += gate.certificate_points(der)
    if not wanted:
        raise Malformed("no-crl-url", "There is nothing to fetch.", fix="Give addresses, or --of CERTIFICATE that carries some.")
    place = Path(out)
    report = crls.run(
        crls.Wanted(
            urls=tuple(dict.fromkeys(wanted)),
            out=place,
            state=Path(state) if state else place.parent / f".{place.name}.fetched",
            issuers=judging.issuers_in(ca),
            form=form,
            deltas=deltas,
            hook=hook,
            warn=warn,
            mode=int(mode, 8),
        ),
        now=reach.now(),
    )
    document = {"fetched": report.kept, "written": report.changed, "hook": report.hook, "findings": report.findings}
    output.result(document, f"{out} {'written' if report.changed else 'is up to date'}.", as_json=as_json)
    for finding in report.findings:
        output.note(finding)
    return output.FINDINGS if report.findings else 0
