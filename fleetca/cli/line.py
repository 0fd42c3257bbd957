"""`fleetca line`: provisioning records of a factory line: made, and checked. Edge: files; the rules are `ca.rules.provisioning`."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleetca.cli import line_bring, line_inject, line_station, output, reach

if TYPE_CHECKING:
    from ca.rules.provisioning import Record

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group(help="A factory line: stations, shifts, units, and provisioning records that are chained and signed.")
def line() -> None:
    pass


for command in (
    line_station.setup, line_station.station, line_station.login, line_station.logout, line_station.unit, line_inject.inject,
    line_station.collect,
    line_bring.reconcile, line_bring.batch, line_bring.shifts, line_bring.verify,
):  # fmt: skip
    line.add_command(command)


@line.command(
    help="Add the record of a unit to the station's CHAIN, signed with the station's key. A chain that does not hold is not gone on with."
)
@click.argument("chain", type=_FILE)
@click.option("--station", required=True, help="The station's name.")
@click.option("--key", required=True, type=_FILE, help="The station's private key, PKCS#8 under a passphrase (PEM).")
@click.option("--key-passphrase-file", required=True, type=_FILE, help="What unlocks it (mode 0600).")
@click.option("--device", required=True, help="The unit.")
@click.option("--certificate", required=True, type=_FILE, help="Its identity certificate (PEM or DER).")
@click.option("--ca", required=True, type=_FILE, help="The CA certificate that was put into it (PEM or DER).")
@click.option("--operator", required=True, help="Who did it.")
@click.option(
    "--origin", type=click.Choice(["on-device", "injected"]), default="on-device", show_default=True, help="Where its key was made."
)
@click.option("--issuer", default="issuing", show_default=True, help="Which issuer certified it.")
@click.option("--batch", default="", help="The lot it belongs to.")
@output.json_option
def record(
    chain: Path,
    station: str,
    key: Path,
    key_passphrase_file: Path,
    device: str,
    certificate: Path,
    ca: Path,
    operator: str,
    origin: str,
    issuer: str,
    batch: str,
    as_json: bool,
) -> None:
    from ca.der.certificate import read_certificate
    from ca.keys.memory import MemoryKey
    from ca.keys.sealed_file import unseal
    from ca.model import DeviceId, KeyName
    from ca.rules import provisioning as rule
    from ca.rules.window import date
    from config.secrets import Secret
    from fleetca.forms import our_errors

    with our_errors():
        passphrase = Secret.parse(f"file:{key_passphrase_file.name}", base=key_passphrase_file.parent).read()
    signer = MemoryKey(KeyName("station"), unseal(reach.read(str(key)), passphrase, what=str(key)))
    der = der_of(certificate)
    facts = read_certificate(der)
    # One station writes a chain; two runs of it take turns.
    with chain.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        before = file.read()
        records = [rule.read(each) for each in rule.split(before)]
        rule.check(records, station_spki=signer.spki)
        number, previous = rule.next_of(records[-1] if records else None)
        made = rule.sign(
            rule.Record(
                DeviceId(device),
                rule.digest_of(der),
                rule.digest_of(der_of(ca)),
                date(reach.now())[:10],
                operator,
                rule.Ours(
                    station, number, previous, rule.Origin(origin), issuer, f"{facts.serial:040x}", rule.digest_of(facts.spki), batch=batch
                ),
            ),
            signer.sign,
        )
        rule.check([*records, made], station_spki=signer.spki)
        # Cut short by a crash, the last document is no record, and the next run says so.
        file.write(rule.join([made]))
        file.flush()
        os.fsync(file.fileno())
    output.result({"number": number, "device": device, "digest": made.digest}, f"{number}  {device}  {made.digest}", as_json=as_json)


def der_of(file: Path) -> bytes:
    from ca.der import pem
    from ca.errors import Malformed

    octets = reach.read(str(file))
    found = [octets] if octets.startswith(b"\x30") else pem.ders_of(octets, pem.CERTIFICATE)
    if not found:
        raise Malformed("bad-certificate", f"{file} holds no certificate.", fix="Give a PEM or DER file.")
    return found[0]


@line.command(
    help="Check the records in CHAIN: each one, their order, and the station's signatures. Works anywhere, with this file and a public key."
)
@click.argument("chain", type=_FILE)
@click.option("--key", required=True, type=_FILE, help="The station's public key (PEM, SubjectPublicKeyInfo).")
@output.json_option
def check(chain: Path, key: Path, as_json: bool) -> None:
    from ca.der import pem
    from ca.errors import Malformed
    from ca.rules import provisioning as rule

    spkis = pem.ders_of(reach.read(str(key)), "PUBLIC KEY")
    if not spkis:
        raise Malformed("bad-public-key", f"{key} holds no public key.", fix="Make it with: openssl pkey -in KEY -pubout")
    try:
        octets = chain.read_bytes()
    except OSError as error:
        raise Malformed("unreadable-file", f"{chain} cannot be read.", why=f"{error.strerror}.") from None
    records = [rule.read(each) for each in rule.split(octets)]
    rule.check(records, station_spki=spkis[0])
    rows = [_row(each) for each in records]
    output.result(
        {"records": [dict(zip(_COLUMNS, row, strict=True)) for row in rows]},
        reach.table([c.upper() for c in _COLUMNS], rows),
        as_json=as_json,
    )


_COLUMNS = ("number", "device", "date", "operator", "origin", "serial")


def _row(each: Record) -> tuple[str, ...]:
    ours = each.ours
    assert ours is not None, "the chain was judged"
    return str(ours.number), each.device, each.date, each.operator, ours.origin.value, ours.serial
