"""`fleetca init`: set up a deployment."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import click

from fleetca.cli import output, prompts


@click.command(
    help="Set up a deployment: settings, sealed keys, secrets, the sheet of its first ceremony and a first operator. Asks at most four "
    "questions; each has an option, and --yes asks none."
)
@click.option("--dir", "directory", type=click.Path(file_okay=False, path_type=Path), help="Folder of the deployment. [asked: pki]")
@click.option("--name", help="Short name; stands in signed messages and the log's checkpoints. [asked: fleet]")
@click.option("--host", help="Name or address under which devices reach it; stands in every certificate. [asked: localhost]")
@click.option(
    "--key",
    help="Where the issuing key rests: sealed:PATH, pkcs11:..., tpm:HANDLE or awskms:... It is made there, or used if it is there. "
    "[default: sealed:keys/issuing.key]",
)
@click.option("--algorithm", default="p256", show_default=True, help="Kind of the issuing key.")
@click.option(
    "--passphrase",
    help="Where the signer finds the issuing key's passphrase or PIN at start: file:PATH (a passphrase is made if absent), credential:NAME, "
    "env:NAME or fd:N. "
    "[asked: file:secrets/issuing.passphrase]",
)
@click.option("--label", help="What stands before 'Root CA' and 'Issuing CA' in their names. [default: the name]")
@click.option("--organization", help="Organization in the CA names. [default: the label]")
@click.option("--operator", default="admin", show_default=True, help="The first operator.")
@click.option("--enroll-port", default=8443, show_default=True, type=click.IntRange(1, 65535), help="Port of the enrolment service (TLS).")
@click.option("--status-port", default=8080, show_default=True, type=click.IntRange(1, 65535), help="Port of OCSP and CRLs (plain HTTP).")
@click.option(
    "--one-person",
    is_flag=True,
    help="One person alone brings new CAs, changes profiles and revokes many certificates. [default: two persons]",
)
@click.option("--yes", is_flag=True, help="Take the defaults for what is not given; ask nothing.")
@output.json_option
def init(
    directory: Path | None,
    name: str | None,
    host: str | None,
    key: str | None,
    algorithm: str,
    passphrase: str | None,
    label: str | None,
    organization: str | None,
    operator: str,
    enroll_port: int,
    status_port: int,
    one_person: bool,
    yes: bool,
    as_json: bool,
) -> None:
    from ca.der.algorithms import ALGORITHMS
    from ca.errors import Misconfigured
    from ca.model import AlgorithmName
    from ca.system import SystemChance
    from fleetca import deployment

    def answer(given: str | None, question: str, default: str, flag: str) -> str:
        if given is not None:
            return given
        return default if yes else prompts.asked(question, default, flag=f"{flag}, or --yes for {default}")

    if algorithm not in ALGORITHMS:
        raise Misconfigured("unknown-algorithm", f"There is no kind of key {algorithm}.", fix=f"Known are {', '.join(ALGORITHMS)}.")
    usual = deployment.Wanted()
    folder = Path(answer(str(directory) if directory else None, "Folder of the deployment", "pki", "--dir"))
    deployment.refuse_foreign(folder)
    wanted = deployment.Wanted(
        name=answer(name, "Its short name", usual.name, "--name"),
        host=answer(host, "Name or address under which devices reach it", usual.host, "--host"),
        key=key or usual.key,
        passphrase=_passphrase(
            passphrase, key, lambda usual: answer(None, "Where the signer finds its passphrase at start", usual, "--passphrase")
        ),
        algorithm=AlgorithmName(algorithm),
        label=label,
        organization=organization,
        operator=operator,
        enroll_port=enroll_port,
        status_port=status_port,
        two_persons=not one_person,
    )
    created = deployment.create(folder, wanted, chance=SystemChance())
    steps = [
        f"fleetca ceremony run {shlex.quote(str(created.sheet))} --out {shlex.quote(str(created.outputs))}",
        f"fleetca import {shlex.quote(str(created.outputs))} --settings {shlex.quote(str(created.settings))}",
        f"fleetca serve --settings {shlex.quote(str(created.settings))}",
    ]
    document = {
        "settings": str(created.settings),
        "sheet": str(created.sheet),
        "csr": str(created.csr),
        "outputs": str(created.outputs),
        "operator_key": str(created.operator_key) if created.operator_key else None,
        "next": steps,
    }
    text = [
        f"The deployment {wanted.name} is set up in {folder}.",
        prompts.fact("settings", created.settings),
        prompts.fact("sheet", f"{created.sheet}  (read it, and correct names and dates: what stands there is what is made)"),
        prompts.fact("CSR", created.csr),
        prompts.fact("operator", f"{created.operator_key}  (sealed; its certificate comes with the import)"),
        "Next: carry sheet and CSR to the offline machine, then",
        f"  {steps[0]}",
        "and with the outputs back here, without any *.key file,",
        f"  {steps[1]}",
        f"  {steps[2]}",
    ]
    output.result(document, "\n".join(text), as_json=as_json)


def _passphrase(given: str | None, key: str | None, ask: Callable[[str], str]) -> str | None:
    """A PIN or a TPM's passphrase is never guessed where to be: it is given, or there is none."""
    from fleetca import deployment

    return given if given is not None or (key is not None and not key.startswith("sealed:")) else ask(deployment.SEALED_BY_FILE)
