"""`fleetca tenants`: who shares the deployment, what each may have, and what it has."""

from __future__ import annotations

from pathlib import Path

import click

from fleetca.cli import output, reach


@click.group(help="Show the tenants: what each may have, and what it has. Talks to the running signer.")
def tenants() -> None:
    pass


@tenants.command(
    "list",
    help="All tenants of the settings; with `fleetca --tenant NAME tenants list`, that one. Over REST an operator sees its own: GET /v1/tenant.",
)
@output.settings_option
@output.json_option
def list_(settings: str, as_json: bool) -> None:
    from ca.model import Role
    from ca.rules.tenancy import unknown
    from ca.signer.client import SignerClient
    from fleetca import forms

    read, named = forms.read_settings(Path(settings)), reach.tenant()
    found = [one for one in forms.tenants(read).values() if named in {None, one.id}]
    if named is not None and not found:
        raise unknown(named)
    document = []
    for one in found:
        client = SignerClient(read.signer.socket, Role.operator, tenant=one.id)
        try:
            count = client.count_devices()
        finally:
            client.close()
        document.append(
            {
                "tenant": one.id,
                "prefix": one.prefix,
                "issuer": one.issuer,
                "devices": count,
                "most_devices": one.most_devices,
                "per_minute": one.per_minute,
                "profiles": [
                    {
                        "name": each.name,
                        "lifetime": each.lifetime,
                        "algorithms": list(each.key_algorithms),
                        "approval_within": each.approval_within,
                    }
                    for each in one.profiles.values()
                ],
            }
        )
    rows = [
        (
            one.id, one.prefix, one.issuer, str(said["devices"]), _limit(one.most_devices), _limit(one.per_minute), ", ".join(sorted(one.profiles)),
        )
        for one, said in zip(found, document, strict=True)
    ]  # fmt: skip
    text = reach.table(("TENANT", "PREFIX", "ISSUER", "DEVICES", "AT MOST", "A MINUTE", "PROFILES"), rows) if rows else ""
    output.result({"tenants": document}, text, as_json=as_json)
    if not rows:
        output.note("There are no tenants; they stand in the settings, under [[tenants]].")


def _limit(value: int | None) -> str:
    return "-" if value is None else str(value)
