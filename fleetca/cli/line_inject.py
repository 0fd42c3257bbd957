"""`fleetca line inject`: a key that the station's store makes for a unit, and that leaves it wrapped only. Edge: files; the key never is one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleetca.cli import line_station, output, reach
from fleetca.cli.line_station import DIR, FILE

if TYPE_CHECKING:
    from ca.keys.injection import Injected, SharedTransport
    from ca.model import AlgorithmName


@click.command(
    help="Make a key for a unit that cannot make one, wrap it to the unit's transport key, and put the unit on record with its origin. The key itself is"
    " shown to nobody. Needs no network."
)
@click.argument("folder", metavar="DIR", type=DIR)
@line_station.passphrase_option
@click.option("--device", required=True, help="The unit.")
@click.option(
    "--transport-key-file", type=FILE, help="An AES-256 key that the unit has (hexadecimal, mode 0600): AES-KWP over the PKCS#8 form."
)
@click.option("--transport-certificate", type=FILE, help="A certificate whose key is in the unit (RSA or EC): CMS AuthEnvelopedData.")
@click.option("--algorithm", default="p256", show_default=True, help="Of the key.")
@click.option(
    "--module", type=click.Path(path_type=Path), help="A PKCS#11 library: the key is made on its token and never leaves it plain."
)
@click.option("--token", "label", help="With --module: the token's label.")
@click.option("--pin-file", type=FILE, help="With --module: the PIN (mode 0600).")
@click.option("--batch", default="", help="The lot it belongs to.")
@click.option("--out", required=True, type=FILE, help="The wrapped key, for the unit; must not exist.")
@output.json_option
def inject(
    folder: Path,
    key_passphrase_file: Path,
    device: str,
    transport_key_file: Path | None,
    transport_certificate: Path | None,
    algorithm: str,
    module: Path | None,
    label: str | None,
    pin_file: Path | None,
    batch: str,
    out: Path,
    as_json: bool,
) -> None:
    from ca.errors import Malformed
    from ca.keys import injection
    from ca.keys.memory import ALL_KINDS
    from ca.model import AlgorithmName
    from ca.rules import ids
    from ca.rules.line import Unit
    from ca.rules.provisioning import Origin
    from fleetca.cli.keys_symmetric import secret_key
    from fleetca.cli.line import der_of
    from fleetca.line.station import Station

    if (transport_key_file is None) == (transport_certificate is None):
        raise click.UsageError("Give --transport-key-file or --transport-certificate.")
    kind, name = AlgorithmName(algorithm), ids.device_id(device)
    if kind not in ALL_KINDS:
        raise Malformed("bad-algorithm", f"{algorithm} is no kind of key.", why=f"Known: {', '.join(sorted(ALL_KINDS))}.")
    at = Station(folder)
    key = at.open_key(line_station.passphrase(key_passphrase_file))
    # Before a key is made: nobody is logged in, or the unit is locked.
    at.check([name], now=reach.now())
    if transport_key_file is not None:
        shared = injection.SharedTransport(secret_key(transport_key_file))
        made = injection.make(kind, shared) if module is None else _on_token(module, label, pin_file, kind, shared)
    else:
        assert transport_certificate is not None, "one of them was given"
        if module is not None:
            raise click.UsageError("A token wraps under --transport-key-file only.")
        made = injection.make(kind, injection.CertifiedTransport(der_of(transport_certificate)))
    # Durable before the unit is on record: what a crash leaves then is a wrapped key that nobody uses.
    reach.write_new(str(out), made.wrapped)
    unit = Unit(0, name, made.csr, 0, Origin.injected, batch=batch, transport=f"{made.form}:{made.transport}")
    line_station.show(at.add([unit], key, now=reach.now()), as_json=as_json)


def _on_token(module: Path, label: str | None, pin_file: Path | None, kind: AlgorithmName, shared: SharedTransport) -> Injected:
    from ca.errors import Misconfigured

    if label is None or pin_file is None or not module.is_absolute():
        raise click.UsageError("With --module (an absolute path) come --token and --pin-file.")
    try:
        from ca.keys import pkcs11_injection
        from ca.keys.pkcs11_token import TokenAddress
    except ImportError as error:
        raise Misconfigured(
            "extra-missing", "What speaks to pkcs11 is missing.", why=f"{error}.", fix="pip install 'fleetca[hsm]'"
        ) from None
    return pkcs11_injection.make(TokenAddress(module, label=label), lambda: line_station.passphrase(pin_file), kind, shared)
