"""`fleetca line setup`, `station`, `login`, `logout`, `unit` and `collect`: what is done at a station. Edge: files; the rules are `ca.rules.line`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleetca.cli import output, reach

if TYPE_CHECKING:
    from ca.keys.memory import MemoryKey
    from ca.model import IssuerId, MessageEvidence
    from ca.rules.line import Unit
    from fleetca.line.distant import Distant

FILE = click.Path(dir_okay=False, path_type=Path)
DIR = click.Path(file_okay=False, path_type=Path)


def passphrase_option(command: click.decorators.FC) -> click.decorators.FC:
    """`--key-passphrase-file` of the station's key."""
    return click.option("--key-passphrase-file", required=True, type=FILE, help="What unlocks the station's key (mode 0600).")(command)


def distance_options(command: click.decorators.FC) -> click.decorators.FC:
    """`--url` and `--root`: for a station that is not the machine of the CA."""
    root = click.option("--root", type=FILE, help="With --url: the deployment's root certificate (PEM), as the station was given it.")
    url = click.option(
        "--url", help="The enrolment service, https://HOST:PORT. Absent: the signer of the settings, at the machine of the CA."
    )
    return url(root(command))


@contextmanager
def distant(url: str | None, root: Path | None) -> Iterator[Distant | None]:
    """The CA by its service; None: it is on this machine."""
    from ca.der import pem
    from fleetca.client import Client
    from fleetca.line.distant import Distant

    if (url is None) != (root is None):
        raise click.UsageError("--url and --root go together.")
    if url is None or root is None:
        yield None
        return
    roots = pem.ders_of(reach.read(str(root)), pem.CERTIFICATE)
    client = Client(url, trusted=root, timeout=120)
    try:
        yield Distant(client, roots)
    finally:
        client.close()


def passphrase(file: Path) -> bytes:
    """The passphrase in a file that only its owner reads."""
    from config.secrets import Secret
    from fleetca.forms import our_errors

    with our_errors():
        return Secret.parse(f"file:{file.name}", base=file.parent).read()


@click.command(help="Make the folder DIR of a new station, with a key of its own.")
@click.argument("folder", metavar="DIR", type=DIR)
@click.option("--station", "name", required=True, help="The station's name.")
@passphrase_option
@output.json_option
def setup(folder: Path, name: str, key_passphrase_file: Path, as_json: bool) -> None:
    from fleetca.line.station import Station

    made = Station.create(folder, name, passphrase(key_passphrase_file))
    public = made.path / "station.pub"
    output.result({"station": name, "public_key": str(public)}, str(public), as_json=as_json)
    output.note(f"Make it known where the CA runs: fleetca line station {name} --key {public}")


@click.command(help="Make the station NAME known to the CA, by its public key. At the machine of the CA; safe to repeat.")
@click.argument("name")
@click.option("--key", required=True, type=FILE, help="The station's public key (PEM).")
@output.settings_option
@output.json_option
def station(name: str, key: Path, settings: str, as_json: bool) -> None:
    spki = public_key(key)
    with reach.signer(settings) as (_, signer):
        made = signer.add_station(name, spki)
    document = {"station": made.name, "since": output.iso(made.since), "sealed": made.sealed}
    output.result(document, f"The station {made.name} is known since {output.iso(made.since)}.", as_json=as_json)


def public_key(file: Path) -> bytes:
    """The SubjectPublicKeyInfo in a PEM file."""
    from ca.der import pem
    from ca.errors import Malformed

    found = pem.ders_of(reach.read(str(file)), "PUBLIC KEY")
    if not found:
        raise Malformed("bad-public-key", f"{file} holds no public key.", fix="Make it with: openssl pkey -in KEY -pubout")
    return found[0]


@click.command(
    help="Log in at the station in DIR with your own key: opens a shift, for so many units and so long, which goes on without a network. The operator"
    " needs the role `line`."
)
@click.argument("folder", metavar="DIR", type=DIR)
@click.option("--certificate", required=True, type=FILE, help="Your operator certificate (PEM).")
@click.option("--key", required=True, type=FILE, help="Your key (PEM, sealed).")
@click.option("--passphrase-file", required=True, type=FILE, help="What unlocks it (mode 0600).")
@click.option("--profile", default="device", show_default=True, help="What the units' certificates are.")
@click.option("--count", required=True, type=click.IntRange(1), help="Units at most.")
@click.option("--lifetime", "lasts", default="12h", show_default=True, metavar="TIME", help="How long units may be made.")
@distance_options
@output.settings_option
@output.json_option
def login(
    folder: Path,
    certificate: Path,
    key: Path,
    passphrase_file: Path,
    profile: str,
    count: int,
    lasts: str,
    url: str | None,
    root: Path | None,
    settings: str,
    as_json: bool,
) -> None:
    from hashlib import sha256

    from ca.errors import NotFound
    from ca.model import Digest, ShiftRequest
    from ca.rules import ids
    from ca.rules.message import Act
    from fleetca.line.station import Station

    at = Station(folder)
    digest, named, seconds = Digest(sha256(at.spki).digest()), ids.profile_name(profile), reach.seconds(lasts)

    def say(deployment: str) -> MessageEvidence:
        fields = {"station": (at.name, digest.hex(), count), "profile": named, "lifetime": seconds}
        return _signed(Act.shift, deployment, certificate, key, passphrase_file, **fields)

    spkis: dict[IssuerId, bytes]
    with distant(url, root) as service:
        if service is not None:
            shift, header = service.open_shift(say(service.deployment()))
            spkis = {name: one.spki for name, one in service.issuers.items()}
        else:
            with reach.signer(settings) as (read, signer):
                shift, header = signer.open_shift(ShiftRequest(say(read.deployment.name), at.name, digest, named, count, seconds))
                spkis = {one.id: one.spki for one in signer.issuers()}
    if shift.issuer not in spkis:
        raise NotFound("issuer-unknown", f"There is no issuer {shift.issuer}.")
    at.begin(shift, header, spkis[shift.issuer])
    document = {
        "shift": shift.number,
        "station": shift.station,
        "operator": shift.operator,
        "profile": shift.profile,
        "count": shift.count,
        "not_after": output.iso(shift.not_after),
        "accept_until": output.iso(shift.accept_until),
    }
    output.result(
        document,
        f"Shift {shift.number}: {shift.operator} at {shift.station}, {shift.count} units until {output.iso(shift.not_after)}.",
        as_json=as_json,
    )


def _signed(act: object, deployment: str, certificate: Path, key: Path, passphrase_file: Path, **fields: object) -> MessageEvidence:
    from typing import Any, cast

    from ca.keys.memory import MemoryKey
    from ca.keys.sealed_file import unseal
    from ca.model import KeyName, MessageEvidence
    from ca.rules.message import Act, Message, signed_octets, write_message
    from ca.system import SystemChance
    from fleetca import key_files

    signer = MemoryKey(KeyName("operator"), unseal(reach.read(str(key)), passphrase(passphrase_file), what=str(key)))
    asked = Message(cast("Act", act), deployment, reach.now(), SystemChance().octets(16).hex(), **cast("dict[str, Any]", fields))
    payload = write_message(asked)
    return MessageEvidence(payload, key_files.certificate(certificate, signer), signer.sign(signed_octets(payload)))


@click.command(help="Log out at the station in DIR. Its units stay on record; bring them with `fleetca line reconcile`.")
@click.argument("folder", metavar="DIR", type=DIR)
@output.json_option
def logout(folder: Path, as_json: bool) -> None:
    from fleetca.line.station import Station

    number = Station(folder).end()
    output.result({"shift": number}, f"Shift {number} is over.", as_json=as_json)


@click.command(help="Put a unit on record at the station in DIR, with the CSR that it made itself. Needs no network.")
@click.argument("folder", metavar="DIR", type=DIR)
@passphrase_option
@click.option("--device", required=True, help="The unit.")
@click.option("--csr", required=True, type=FILE, help="Its CSR (PEM or DER).")
@click.option("--batch", default="", help="The lot it belongs to.")
@click.option("--root-of-trust", type=click.Choice(["se", "tpm", "tee", "puf", "none"]), help="Where it keeps its key.")
@click.option("--attestation", type=FILE, help="Evidence about its key, of which the SHA-256 is kept.")
@output.json_option
def unit(
    folder: Path,
    key_passphrase_file: Path,
    device: str,
    csr: Path,
    batch: str,
    root_of_trust: str | None,
    attestation: Path | None,
    as_json: bool,
) -> None:
    from hashlib import sha256

    from ca.der.csr import read_csr_any
    from ca.rules import ids
    from ca.rules.line import Unit
    from fleetca.line.station import Station

    at = Station(folder)
    der, _ = read_csr_any(reach.read(str(csr)))
    evidence = "" if attestation is None else sha256(reach.read(str(attestation))).hexdigest()
    one = Unit(0, ids.device_id(device), der, 0, batch=batch, root_of_trust=root_of_trust or "", attestation=evidence)
    show(at.add([one], at.open_key(passphrase(key_passphrase_file)), now=reach.now()), as_json=as_json)


def show(made: object, *, as_json: bool) -> None:
    """Units that were put on record."""
    from collections.abc import Sequence
    from typing import cast

    units = cast("Sequence[Unit]", made)
    rows = [(str(one.number), one.device, one.origin.value, output.iso(one.date)) for one in units]
    document = [{"unit": one.number, "device": one.device, "origin": one.origin.value, "date": output.iso(one.date)} for one in units]
    output.result({"units": document}, reach.table(("UNIT", "DEVICE", "ORIGIN", "DATE"), rows), as_json=as_json)


@click.command(
    help="Put many units on record at the station in DIR, under one signature: a CSR for each in the folder CSRS, named DEVICE.csr (PEM or DER)."
)
@click.argument("folder", metavar="DIR", type=DIR)
@click.argument("csrs", metavar="CSRS", type=click.Path(exists=True, file_okay=False, path_type=Path))
@passphrase_option
@click.option("--batch", default="", help="The lot they belong to.")
@output.json_option
def collect(folder: Path, csrs: Path, key_passphrase_file: Path, batch: str, as_json: bool) -> None:
    from ca.der.csr import read_csr_any
    from ca.errors import Malformed
    from ca.rules import ids
    from ca.rules.line import Unit
    from fleetca.line.station import Station

    at = Station(folder)
    key: MemoryKey = at.open_key(passphrase(key_passphrase_file))
    files = sorted(csrs.glob("*.csr"))
    if not files:
        raise Malformed("no-csrs", f"{csrs} holds no CSRs.", fix="Name them DEVICE.csr.")
    units = [Unit(0, ids.device_id(file.stem), read_csr_any(reach.read(str(file)))[0], 0, batch=batch) for file in files]
    made = at.add(units, key, now=reach.now())
    output.result({"units": len(made), "last": made[-1].number}, f"{len(made)} units are on record.", as_json=as_json)
