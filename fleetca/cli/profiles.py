"""`fleetca profiles`: list, show. As the running signer has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fleetca.cli import output, reach

if TYPE_CHECKING:
    from ca.model import Profile


@click.group(help="List and show certificate profiles.")
def profiles() -> None:
    pass


@profiles.command("list", help="The profiles certificates are made from.")
@output.settings_option
@output.json_option
def list_(settings: str, as_json: bool) -> None:
    found = _profiles(settings)
    rows = [(one.name, _days(one.lifetime), one.status.value, ", ".join(one.extended_key_usage) or "-", _names(one)) for one in found]
    output.result(
        {"profiles": [_document(one) for one in found]},
        reach.table(("PROFILE", "LIFETIME", "STATUS", "FOR", "NAMES"), rows),
        as_json=as_json,
    )


@profiles.command(help="One profile.")
@click.argument("name")
@output.settings_option
@output.json_option
def show(name: str, settings: str, as_json: bool) -> None:
    from ca.errors import NotFound

    found = _profiles(settings)
    for one in found:
        if one.name == name:
            document = _document(one)
            pairs = [(key.replace("_", " "), _shown(value)) for key, value in document.items()]
            output.result(document, reach.facts(pairs), as_json=as_json)
            return
    raise NotFound("profile-unknown", f"There is no profile {name}.", fix=f"Known are: {', '.join(one.name for one in found)}.")


def _profiles(settings: str) -> list[Profile]:
    from ca.errors import Unavailable

    with reach.signer(settings) as (deployment, signer):
        try:
            found = list(signer.profiles())
        except Unavailable as error:
            if error.code != "signer-down":
                raise
            from fleetca import forms

            output.note("The signer does not answer; these are the profiles it would start with.")
            found = list(forms.profiles(deployment).values())
    return sorted(found, key=lambda one: one.name)


def _names(one: Profile) -> str:
    return ", ".join(one.allowed_names) + (" (required)" if one.required_names else "") if one.allowed_names else "-"


def _days(seconds: int) -> str:
    from config.strict import duration_text

    return duration_text(seconds)


def _document(one: Profile) -> dict[str, Any]:
    return {
        "name": one.name,
        "is_ca": one.is_ca,
        "path_length": one.path_length,
        "lifetime": _days(one.lifetime),
        "max_lifetime": _days(one.max_lifetime),
        "backdate": _days(one.backdate),
        "status": one.status.value,
        "crl_url": one.crl_url,
        "ocsp_url": one.ocsp_url,
        "key_algorithms": list(one.key_algorithms),
        "key_usage": list(one.key_usage),
        "extended_key_usage": list(one.extended_key_usage),
        "common_name": one.common_name,
        "organization": one.organization,
        "permanent_identifier": one.permanent_identifier,
        "uris": list(one.uris),
        "allowed_names": [kind.value for kind in one.allowed_names],
        "required_names": one.required_names,
        "key_reuse": one.key_reuse,
        "renewable": one.renewable,
        "renew_from": one.renew_from,
        "renew_after_expiry": _days(one.renew_after_expiry),
        "grace": _days(one.grace),
        "on_superseded": one.on_superseded.value,
        "plain_key_file": one.plain_key_file,
        "minimum_protection": one.minimum_protection.name,
        "sha256": one.digest.hex(),
    }


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
