"""`fleetca token`: one-time enrolment tokens."""

from __future__ import annotations

import click

from fleetca.cli import output, reach


@click.group(help="Create one-time enrolment tokens.")
def token() -> None:
    pass


@token.command(help="Create a token that enrols DEVICE once. It is printed this once; only its hash is kept.")
@click.argument("device")
@output.settings_option
@click.option("--profile", default="device", show_default=True, help="The profile of the certificate it gets.")
@reach.name_options
@click.option("--lifetime", default="1h", show_default=True, help="How long the token may be used, e.g. 15m, 1h, 7d.")
@output.json_option
def create(device: str, settings: str, profile: str, dns: tuple[str, ...], ip: tuple[str, ...], lifetime: str, as_json: bool) -> None:
    from ca.model import TokenRequest
    from ca.rules import ids
    from ca.rules.message import names_to

    with reach.signer(settings) as (deployment, signer):
        made = signer.create_token(
            TokenRequest(
                evidence=signer.local,
                device=ids.device_id(device),
                profile=ids.profile_name(profile),
                names=reach.names(dns, ip),
                lifetime=reach.seconds(lifetime),
            )
        )
    url = deployment.enroll.url
    document = {
        "token": made.text,
        "device": made.token.device,
        "profile": made.token.profile,
        "names": names_to(made.token.names),
        "expires": output.iso(made.token.expires),
        "enroll_url": url,
    }
    output.result(document, made.text, as_json=as_json)
    output.note(
        f"A token for {made.token.device} (profile {made.token.profile}), valid until {output.iso(made.token.expires)}"
        f" ({output.distance(made.token.expires, reach.now())}). It works once.\n"
        f"Next, on the device: send it with a certificate request to {url}/v1/enroll"
    )
