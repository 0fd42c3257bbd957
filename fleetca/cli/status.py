"""`fleetca status`: whether a certificate, or a peer's, still holds, as a relying party sees it."""

from __future__ import annotations

import logging
import socket
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleetca.cli import output

if TYPE_CHECKING:
    from fleetca.relying_party.words import Standing


def _duration(_: click.Context, __: click.Parameter, value: str) -> int:
    from config.strict import duration

    try:
        return duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(
    help="Say whether a certificate still holds: OCSP first, then its CRL, then what is remembered. It needs neither settings nor a deployment, only"
    " the root. Exits with 0 where the policy accepts the certificate, with 8 where it refuses."
)
@click.argument("certificate", metavar="[CERT]", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--peer", metavar="HOST:PORT", help="Check the certificate that this TLS server shows, in place of a file.")
@click.option(
    "--root",
    "roots",
    multiple=True,
    required=True,
    envvar="FLEETCA_ROOT",
    type=click.Path(exists=True, path_type=Path),
    help="A trusted root (PEM or DER).",
)
@click.option(
    "--chain",
    "chains",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="CA certificates in between (PEM); what is missing is fetched.",
)
@click.option(
    "--fail",
    type=click.Choice(["hard", "soft"]),
    default="hard",
    show_default=True,
    help="When nobody can be asked: refuse, or go on and say so.",
)
@click.option(
    "--offline-budget", default="0s", show_default=True, callback=_duration, help="How long past its end the last good word still counts."
)
@click.option("--memory", type=click.Path(path_type=Path), help="A folder to remember answers in.")
@click.option("--nonce", is_flag=True, help="Ask OCSP with a nonce, and take no answer without it.")
@click.option("--timeout", default=5.0, show_default=True, type=click.FloatRange(0.1, 600), help="Seconds for each source.")
@output.json_option
def status(
    certificate: Path | None,
    peer: str | None,
    roots: tuple[Path, ...],
    chains: tuple[Path, ...],
    fail: str,
    offline_budget: int,
    memory: Path | None,
    nonce: bool,
    timeout: float,
    as_json: bool,
) -> int:
    from ca.system import SystemChance, SystemClock
    from fleetca.relying_party.memory import Memory
    from fleetca.relying_party.status import StatusClient
    from fleetca.relying_party.words import Fail, Policy

    if (certificate is None) == (peer is None):
        raise click.UsageError("give a certificate file, or --peer")
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    policy = Policy(fail=Fail(fail), offline_budget=offline_budget, nonce=nonce, timeout=timeout)
    shown = _ders(certificate) if certificate is not None else [_of_peer(str(peer), timeout)]
    client = StatusClient(
        roots=[der for file in roots for der in _ders(file)],
        clock=SystemClock(),
        chance=SystemChance(),
        policy=policy,
        memory=Memory(memory),
    )
    standing = client.check(shown[0], chain=[*shown[1:], *(der for file in chains for der in _ders(file))])
    output.result(_document(standing), _words(standing), as_json=as_json)
    for one in standing.tried:
        output.note(f"Asked in vain: {one}")
    return 0 if standing.accepted else output.FINDINGS


def _ders(file: Path) -> list[bytes]:
    from ca.der import pem

    octets = file.read_bytes()
    return [octets] if octets.startswith(b"\x30") else pem.ders_of(octets, pem.CERTIFICATE)


def _of_peer(address: str, timeout: float) -> bytes:
    """The certificate that a TLS server shows; it is checked here, so the handshake need not."""
    from ca.errors import Unavailable

    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise click.BadParameter("write it as HOST:PORT", param_hint="--peer")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), timeout=timeout) as line,
            context.wrap_socket(line, server_hostname=host) as tls,
        ):
            der = tls.getpeercert(binary_form=True)
    except OSError as error:
        raise Unavailable(
            "no-peer", f"{address} shows no certificate.", why=str(error), fix="Check the address: it must speak TLS."
        ) from None
    assert der is not None, "a TLS server has one"
    return der


def _document(standing: Standing) -> dict[str, object]:
    return {
        "verdict": standing.verdict.value,
        "accepted": standing.accepted,
        "source": standing.source.value,
        "remembered": standing.remembered,
        "reason": None if standing.reason is None else standing.reason.name,
        "revoked_at": standing.revoked_at,
        "this_update": standing.this_update,
        "next_update": standing.next_update,
        "tried": list(standing.tried),
    }


def _words(standing: Standing) -> str:
    said = standing.verdict.value
    if standing.revoked_at is not None and standing.reason is not None:
        said += f" since {output.iso(standing.revoked_at)} ({standing.reason.name})"
    by = f", by {standing.source.value}" + (" as remembered" if standing.remembered else "")
    until = f", until {output.iso(standing.next_update)}" if standing.next_update is not None else ""
    return f"{said}{by}{until}: {'accepted' if standing.accepted else 'refused'}"
