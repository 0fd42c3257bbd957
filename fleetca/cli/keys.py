"""`fleetca keys`: what keys there are, where, in which state; their destruction before witnesses; shares and backups (in files beside this one)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleetca.cli import output, prompts, reach

if TYPE_CHECKING:
    from ca.model import KeyChange, KeyRecord, UnixTime

STATES = ("active", "suspended", "compromised")


@click.group(help="The keys of a deployment: inventory, life, shares, backups.")
def keys() -> None:
    pass


@keys.command("list", help="Every key of this deployment and its state (SP 800-57).")
@output.settings_option
@output.json_option
def list_(settings: str, as_json: bool) -> None:
    with reach.signer(settings) as (_, signer):
        found = signer.key_records()
    now = reach.now()
    rows = [
        (each.name, each.purpose.value, each.state.value, each.algorithm, each.store, _protection(each), _ends(each, now), _short(each))
        for each in found
    ]
    heads = ("KEY", "PURPOSE", "STATE", "ALGORITHM", "STORE", "PROTECTION", "PERIOD ENDS", "PUBLIC KEY SHA-256")
    output.result({"keys": [_document(each, now) for each in found]}, reach.table(heads, rows), as_json=as_json)


@keys.command(help="One key, by name or by the SHA-256 of its public half, with all that happened to it.")
@click.argument("name")
@output.settings_option
@output.json_option
def show(name: str, settings: str, as_json: bool) -> None:
    from ca.key_life import find_record

    with reach.signer(settings) as (_, signer):
        record = find_record(signer.key_records(), name)
        changes = signer.key_changes(record.spki_sha256)
    now = reach.now()
    document = {**_document(record, now), "changes": [_change(each) for each in changes]}
    facts = [(name.replace("_", " "), "-" if value is None else str(value)) for name, value in _document(record, now).items()]
    lines = [
        f"  {output.iso(each.at)}  {each.before.value if each.before else 'unknown'} -> {each.after.value}  by {each.actor}: {each.reason}"
        for each in changes
    ]
    output.result(document, "\n".join([reach.facts(facts), "what happened", *lines]), as_json=as_json)


@keys.command(help="Compare the inventory with what the stores say they hold. Exits with 8 when they differ.")
@output.settings_option
@output.json_option
def check(settings: str, as_json: bool) -> int:
    from fleetca.key_reality import compare

    with reach.signer(settings) as (_, signer):
        records, stores = signer.key_records(), signer.keys_held()
    findings = compare(records, stores, now=reach.now())
    held = sum(len(each["keys"]) for each in stores)
    not_asked = [{"store": each["about"], "why": each["trouble"]} for each in stores if each["trouble"]]
    document = {
        "records": len(records),
        "held": held,
        "stores": [each["about"] for each in stores if not each["trouble"]],
        "not_asked": not_asked,
        "findings": [{"key": each.key, "what": each.what, "fix": each.fix} for each in findings],
    }
    lines = [f"{len(records)} keys in the inventory, {held} in {len(stores) - len(not_asked)} stores; {len(findings)} findings."]
    lines += [f"  {each['store']} could not be asked: {each['why']}" for each in not_asked]
    lines += [f"  {each.key}: {each.what}\n    fix: {each.fix}" for each in findings]
    output.result(document, "\n".join(lines), as_json=as_json)
    return output.FINDINGS if findings else 0


@keys.command(help="The inventory as a CycloneDX 1.6 bill of materials (CBOM).")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Output file [default: stdout].")
@output.settings_option
def export(out: Path | None, settings: str) -> None:
    import json
    from importlib.metadata import version

    from ca.rules import cbom
    from ca.system import SystemChance
    from fleetca.folder import put_new

    with reach.signer(settings) as (read, signer):
        records, issuers = signer.key_records(), signer.issuers()
    drawn = bytearray(SystemChance().octets(16))
    drawn[6], drawn[8] = drawn[6] & 0x0F | 0x40, drawn[8] & 0x3F | 0x80  # RFC 9562 5.4
    text = drawn.hex()
    serial = "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
    bill = cbom.document(
        records, issuers, deployment=read.deployment.name, version=version("fleetca"), serial=serial, now=reach.now()
    )  # fmt: skip
    if out is None:
        output.result(dict(bill), "", as_json=True)
    else:
        put_new(out, (json.dumps(bill, indent=2, ensure_ascii=False) + "\n").encode())
        output.note(f"{out}: {len(records)} keys, {len(issuers)} CA certificates.")


@keys.command(
    help="Suspend a key, put it back into service, or call it compromised. Runs as the signer's user while the signer is stopped."
)
@click.argument("name")
@click.argument("state", type=click.Choice(STATES))
@click.option("--reason", required=True, help="Why; it stands in the record.")
@output.settings_option
@output.json_option
def change(name: str, state: str, reason: str, settings: str, as_json: bool) -> None:
    from ca.model import KeyName, KeyState
    from fleetca import key_wiring
    from fleetca.forms import read_settings

    with key_wiring.alone(read_settings(Path(settings))) as (_, life):
        record = life.change(KeyName(name), KeyState(state), reason=reason, actor=f"uid:{os.getuid()}")
    text = f"The key {record.name} is {record.state.value}."
    if record.state is not KeyState.active:
        text += " The signer does not start with it."
    output.result(_document(record, reach.now()), text, as_json=as_json)


# ---- Destruction --------------------------------------------------------------------------------------------------------


@keys.command("destroy-request", help="Write the request that witnesses sign so that the key NAME may be destroyed.")
@click.argument("name")
@click.option("--reason", required=True, help="Why; it stands on the certificate of destruction.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The request's file.")
@output.settings_option
@output.json_option
def destroy_request(name: str, reason: str, out: Path, settings: str, as_json: bool) -> None:
    from ca.key_life import find_record
    from ca.rules.destruction import Request
    from ca.system import SystemChance
    from fleetca.folder import put_new

    with reach.signer(settings) as (read, signer):
        record = find_record(signer.key_records(), name)
    request = Request(read.deployment.name, reach.now(), SystemChance().octets(16).hex(), record.name, record.spki_sha256, reason)
    put_new(out, request.write())
    text = [
        f"{out} asks to destroy the key {record.name}, whose public half has SHA-256",
        f"  {record.spki_sha256.hex()}",
        f"Two operators sign it, each alone: fleetca keys witness {out} --key KEY --certificate CERTIFICATE --out FILE",
    ]
    output.result({"request": str(out), "key": record.name, "spki_sha256": record.spki_sha256.hex()}, "\n".join(text), as_json=as_json)


@keys.command(help="Sign a request to destroy a key, as one of its witnesses, with an operator's own key. Needs no deployment.")
@click.argument("request", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--key", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The operator's sealed key (NAME.key).")
@click.option("--certificate", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The operator's certificate (PEM).")
@click.option("--passphrase-file", type=click.Path(dir_okay=False), help="File with the key's passphrase (mode 0600).")
@click.option("--passphrase-fd", type=int, help="File descriptor to read the passphrase from.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Where the signature goes.")
@click.option("--yes", is_flag=True, help="Sign without asking.")
@output.json_option
def witness(
    request: Path,
    key: Path,
    certificate: Path,
    passphrase_file: str | None,
    passphrase_fd: int | None,
    out: Path,
    yes: bool,
    as_json: bool,
) -> None:
    import json

    from ca.errors import Denied
    from ca.keys.sealed_file import SealedFileKeyStore
    from ca.model import KeyName
    from ca.rules import destruction
    from ca.rules.message import signed_octets
    from fleetca import key_files
    from fleetca.folder import put_new

    payload = key_files.octets(request, "request")
    asked = destruction.read(payload)
    prompts.say(
        f"The key {asked.key} of {asked.audience} is to be destroyed: {asked.reason}\n  SHA-256 of its public half: {asked.spki_sha256.hex()}"
    )
    if not (yes or prompts.confirmed("Sign this as a witness?", flag="--yes")):
        raise Denied("not-confirmed", "Nothing was signed.", fix="Run it again to sign.")
    secret = prompts.passphrase(f"the key {key}", file=passphrase_file, descriptor=passphrase_fd, twice=False)
    signer = SealedFileKeyStore(key.parent, secret).open(KeyName(key.stem))
    der = key_files.certificate(certificate, signer)
    document = key_files.witness_document(payload, der, signer.sign(signed_octets(payload)))
    put_new(out, (json.dumps(document, indent=2) + "\n").encode())
    output.result({"witness": str(out), "key": asked.key}, f"Signed: {out}", as_json=as_json)


@keys.command(help="Destroy the key NAME before two witnesses; cannot be undone. Runs as the signer's user while the signer is stopped.")
@click.argument("name")
@click.option("--request", type=click.Path(dir_okay=False, path_type=Path), required=True, help="What the witnesses signed.")
@click.option(
    "--witness", "witnesses", type=click.Path(dir_okay=False, path_type=Path), multiple=True, required=True, help="A signature; twice."
)
@click.option("--issuer", "issuer", required=True, help="The issuer whose key it is (its id in the settings), or log.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Where the certificate of destruction goes.")
@click.option("--confirm", required=True, help="The name once more.")
@output.settings_option
@output.json_option
def destroy(
    name: str, request: Path, witnesses: tuple[Path, ...], issuer: str, out: Path, confirm: str, settings: str, as_json: bool
) -> None:  # fmt: skip
    from ca.errors import Misconfigured
    from ca.model import KeyName
    from fleetca import key_files, key_wiring
    from fleetca.folder import put_new
    from fleetca.forms import read_settings

    if confirm != name:
        raise click.UsageError(f"--confirm must say {name}.")
    read = read_settings(Path(settings))
    payload = key_files.octets(request, "request")
    given = [key_files.witness(path, payload) for path in witnesses]
    store, key = key_wiring.store_of(read, issuer)
    if key != name:
        raise Misconfigured("wrong-key", f"The key of {issuer} is called {key}, not {name}.", fix="Name the issuer whose key it is.")
    with key_wiring.alone(read) as (_, life):
        document = life.destroy(
            KeyName(name), store, payload=payload, witnesses=given, actor=f"uid:{os.getuid()}", keep=lambda octets: put_new(out, octets)
        )
    import hashlib

    digest = hashlib.sha256(document).hexdigest()
    text = [
        f"The key {name} is destroyed; {out} certifies it (SHA-256 {digest}).",
        f"Next: take key and passphrase of {issuer} out of the settings; destroy every backup and paper of this key.",
    ]
    output.result({"key": name, "certificate": str(out), "sha256": digest}, "\n".join(text), as_json=as_json)


# ---- Words --------------------------------------------------------------------------------------------------------------


def _document(record: KeyRecord, now: UnixTime) -> dict[str, Any]:
    from ca.rules import key_life

    return {
        "name": record.name,
        "purpose": record.purpose.value,
        "state": record.state.value,
        "public_state": key_life.public_state(record, now=now).value,
        "algorithm": record.algorithm,
        "origin": record.origin.value,
        "store": record.store,
        "place": record.place,
        "protection": _protection(record),
        "owner": record.owner,
        "created": output.iso(record.created),
        "period_ends": None if record.period_ends is None else output.iso(record.period_ends),
        "overdue": key_life.overdue(record, now=now),
        "spki_sha256": record.spki_sha256.hex(),
    }


def _change(change: KeyChange) -> dict[str, Any]:
    return {
        "at": output.iso(change.at),
        "before": None if change.before is None else change.before.value,
        "after": change.after.value,
        "reason": change.reason,
        "actor": change.actor,
        "evidence_sha256": change.evidence or None,
    }


def _protection(record: KeyRecord) -> str:
    return "unknown" if record.protection is None else record.protection.name


def _ends(record: KeyRecord, now: UnixTime) -> str:
    return "-" if record.period_ends is None else output.distance(record.period_ends, now)


def _short(record: KeyRecord) -> str:
    return record.spki_sha256.hex()[:16]


# The rest of the group lies in files of its own.
from fleetca.cli import keys_quorum, keys_symmetric, keys_vault  # noqa: E402

keys.add_command(keys_quorum.quorum)
keys.add_command(keys_quorum.backup)
keys.add_command(keys_quorum.restore)
keys.add_command(keys_quorum.drill)
for command in (
    keys_symmetric.derive,
    keys_symmetric.wrap,
    keys_symmetric.unwrap,
    keys_symmetric.hierarchy,
    keys_symmetric.group,
    keys_symmetric.pkcs12,
    keys_vault.vault,
):
    keys.add_command(command)
