"""`fleetca operators`: who may act on the deployment over the network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleetca.cli import output, reach

if TYPE_CHECKING:
    from ca.model import Operator

ROLES = ("admin", "registrar", "revoker", "security-officer", "auditor", "line")


@click.group(help="Add, list and disable operators. Talks to the running signer.")
def operators() -> None:
    pass


def _document(operator: Operator) -> dict[str, object]:
    return {
        "name": operator.name,
        "roles": list(operator.roles),
        "person": operator.who,
        "created": output.iso(operator.created),
        "disabled_at": None if operator.disabled_at is None else output.iso(operator.disabled_at),
    }


def _line(operator: Operator) -> str:
    state = "" if operator.disabled_at is None else f"  disabled {output.iso(operator.disabled_at)}"
    person = "" if operator.who == operator.name else f"  ({operator.who})"
    return f"{operator.name:<24} {', '.join(operator.roles)}{person}{state}"


@operators.command("list", help="List all operators.")
@output.settings_option
@output.json_option
def list_(settings: str, as_json: bool) -> None:
    with reach.signer(settings) as (_, client):
        found = client.operators()
    output.result([_document(operator) for operator in found], "\n".join(map(_line, found)), as_json=as_json)


@operators.command(help="Add the operator NAME and, with --csr, issue the certificate that proves it.")
@click.argument("name")
@click.option("--role", "roles", multiple=True, type=click.Choice(ROLES), required=True, help="What it may do; may be given several times.")
@click.option("--person", default="", help="Who acts under this name, where it does not say: two names of one person count as one.")
@click.option("--csr", type=click.Path(dir_okay=False, path_type=Path), help="Its CSR (PEM or DER).")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Where the certificate goes [default: beside the CSR, .pem].")
@output.settings_option
@output.json_option
def add(name: str, roles: tuple[str, ...], person: str, csr: Path | None, out: Path | None, settings: str, as_json: bool) -> None:
    from ca.model import DeviceId, IssueRequest
    from ca.rules import grant, ids
    from fleetca import ceremonies, forms, importing
    from fleetca.folder import put_new

    der = None if csr is None else ceremonies.request_file(csr)
    with reach.signer(settings) as (read, client):
        operator = client.add_operator(ids.operator_name(name), roles, person=person)
        document = _document(operator)
        lines = [f"The operator {name} may act as {', '.join(operator.roles)}."]
        if csr is not None and der is not None:
            device = DeviceId(f"{grant.OPERATOR_DEVICE}{name}")
            issued = client.issue(IssueRequest(csr=der, evidence=client.local, device=device, profile=grant.OPERATOR))
            path = out or csr.with_suffix(".pem")
            put_new(path, importing.chain(issued, forms.issuers(read)))
            until = output.iso(issued.certificate.not_after)
            document |= {"certificate": str(path), "not_after": until}
            lines.append(f"  certificate  {path}, until {until}")
        else:
            lines.append(f"Next: fleetca operators add {name} --role {operator.roles[0]} --csr FILE")
    output.result(document, "\n".join(lines), as_json=as_json)


@operators.command(
    help="Make the CSR of an operator whose key rests on a token, in a TPM or a KMS: what fleetca operators add takes. The key never leaves what holds it."
    " Needs no deployment."
)
@click.option(
    "--key",
    required=True,
    metavar="KEY",
    help="Where it rests: pkcs11:token=...;object=...?module-path=... (RFC 7512), tpm:... or awskms:...",
)
@click.option("--make", metavar="ALGORITHM", help="Make it there first, of this kind, such as p256.")
@click.option("--passphrase-file", type=click.Path(exists=True, dir_okay=False), help="Its PIN; asked for when absent.")
@click.option("--out", required=True, help="Where the CSR is written (PEM).")
@output.json_option
def csr(key: str, make: str | None, passphrase_file: str | None, out: str, as_json: bool) -> None:
    from ca.der.algorithms import ALGORITHMS
    from ca.errors import Misconfigured
    from fleetca.cli import hand
    from fleetca.deployment import csr_of

    if not key.startswith(hand.ADDRESSES):
        raise Misconfigured(
            "bad-key-address", f"{key} is no address of a key.", fix="For a key in a file: openssl req -new -key FILE -subj / -out CSR"
        )
    if make is not None and make not in ALGORITHMS:
        raise Misconfigured("unknown-algorithm", f"There is no kind of key {make}.", fix=f"Known are {', '.join(ALGORITHMS)}.")
    found = hand.addressed(key, hand.secret(passphrase_file, "PIN"), make=make)
    reach.write_new(out, csr_of(found, "operator"))
    output.result({"csr": out, "algorithm": found.algorithm}, f"The CSR is in {out}.", as_json=as_json)
    output.note(f"Next, where the signer runs: fleetca operators add NAME --role ROLE --csr {out}")


@operators.command(help="Take all powers from the operator NAME, for good.")
@click.argument("name")
@click.option("--confirm", required=True, help="The name once more.")
@output.settings_option
@output.json_option
def disable(name: str, confirm: str, settings: str, as_json: bool) -> None:
    from ca.rules import ids

    if confirm != name:
        raise click.UsageError(f"--confirm must say {name}.")
    with reach.signer(settings) as (_, client):
        operator = client.disable_operator(ids.operator_name(name))
    output.result(_document(operator), f"The operator {name} is disabled.", as_json=as_json)
