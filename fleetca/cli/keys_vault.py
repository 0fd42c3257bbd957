"""`fleetca keys vault`: texts that can be forgotten: sealed under keys of their devices, and those keys shredded. Edge: files; see `ca.rules.shredding`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleetca.cli import output, reach
from fleetca.cli.keys_symmetric import secret_key

if TYPE_CHECKING:
    from ca.rules.shredding import Vault

_FILE = click.Path(dir_okay=False, path_type=Path)
_VAULT = click.argument("file", metavar="VAULT", type=_FILE)
_MASTER = click.option("--master", required=True, type=_FILE, help="The key that wraps the tenants' keys.")
_TENANT = click.option("--tenant", default="default", show_default=True, help="Whose device it is.")


@click.group(help="Texts that can be forgotten: sealed under keys of their devices, unreadable for ever once the key is shredded.")
def vault() -> None:
    pass


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Those who change a vault take turns: the file itself is replaced, so another one is locked."""
    import fcntl

    with file.with_name(f"{file.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(file: Path) -> Vault:
    from ca.errors import Malformed
    from ca.rules import shredding as rule

    try:
        return rule.parse(file.read_bytes())
    except FileNotFoundError:
        return rule.EMPTY
    except OSError as error:
        raise Malformed("unreadable-file", f"{file} cannot be read.", why=f"{error.strerror}.") from None


def _write(file: Path, made: Vault) -> None:
    """Durable, and whole or not at all: a crash leaves the old vault or the new one."""
    from ca.errors import StoreUnavailable
    from ca.rules import shredding as rule

    fresh = file.with_name(f"{file.name}.new")
    try:
        fresh.touch(mode=0o600)
        with fresh.open("wb") as out:
            out.write(rule.write(made))
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(file)
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StoreUnavailable("unwritable-file", f"{file} cannot be written.", why=f"{error.strerror}.") from None


@vault.command(help="Seal the text on stdin for the device DEVICE; prints what may be kept anywhere.")
@_VAULT
@click.argument("device")
@_TENANT
@_MASTER
def seal(file: Path, device: str, tenant: str, master: Path) -> None:
    from ca.rules import shredding as rule
    from ca.system import SystemChance

    chance, above, text = SystemChance(), secret_key(master), reach.read("-")
    with _locked(file):
        before = _read(file)
        made, key = rule.with_key(before, above, tenant, device, drawn=chance.octets(2 * rule.KEY))
        if made != before:
            # Before anyone has what only this key opens.
            _write(file, made)
    click.echo(rule.seal(text, key, tenant=tenant, device=device, nonce=chance.octets(rule.NONCE)))


@vault.command("open", help="Open the sealed text on stdin, of the device DEVICE.")
@_VAULT
@click.argument("device")
@_TENANT
@_MASTER
def open_(file: Path, device: str, tenant: str, master: Path) -> None:
    from ca.rules import shredding as rule

    key = rule.key_of(_read(file), secret_key(master), tenant, device)
    click.echo(rule.unseal(reach.read("-").decode(errors="replace").strip(), key, tenant=tenant, device=device), nl=False)


@vault.command(help="Forget all that was sealed for a device, or for a tenant with all its devices. Nothing brings it back.")
@_VAULT
@_TENANT
@click.option("--device", help="Only this device of the tenant.")
@click.option("--confirm", metavar="NAME", required=True, help="The device's name once more; or the tenant's, where no device is given.")
def shred(file: Path, tenant: str, device: str | None, confirm: str) -> None:
    from ca.errors import Unacceptable
    from ca.rules import shredding as rule

    if confirm != (device or tenant):
        raise Unacceptable("not-confirmed", "The name was not repeated.", why=f"{confirm!r} is not {device or tenant!r}.")
    with _locked(file):
        _write(file, rule.shred(_read(file), tenant, device))
    output.note(
        "Copies of the vault under the same master key could still be read: fleetca keys vault rekey, and destroy the old master key."
    )


@vault.command(help="Wrap what is left under another master key, so that old copies of the vault die with the old one.")
@_VAULT
@_MASTER
@click.option("--after", required=True, type=_FILE, help="The new master key.")
def rekey(file: Path, master: Path, after: Path) -> None:
    from ca.rules import shredding as rule

    old, new = secret_key(master), secret_key(after)
    with _locked(file):
        _write(file, rule.rekey(_read(file), old, new))
