"""An operator's own key at the command line: the options that name it, and what it signs. The key is opened here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleetca.cli import reach

if TYPE_CHECKING:
    from ca.model import MessageEvidence
    from ca.rules.message import Act

_FILE = click.Path(exists=True, dir_okay=False)


@dataclass(frozen=True, slots=True)
class Hand:
    """Where an operator's certificate and key are."""

    certificate: str
    key: str
    passphrase_file: str | None

    def message(self, act: Act, *, deployment: str, **said: Any) -> MessageEvidence:
        """A message about one act, signed.

        Raises:
            KeyUnavailable: the key cannot be unlocked.
            Malformed: a file cannot be read.
        """
        from ca.der import pem
        from ca.keys.memory import MemoryKey
        from ca.keys.sealed_file import unseal
        from ca.model import KeyName, MessageEvidence
        from ca.rules.message import Message, signed_octets, write_message
        from ca.system import SystemChance

        secret = (
            Path(self.passphrase_file).read_bytes().rstrip(b"\n")
            if self.passphrase_file
            else click.prompt("Passphrase", hide_input=True, err=True).encode()
        )
        signer = MemoryKey(KeyName("operator"), unseal(Path(self.key).read_bytes(), secret, what=self.key))
        octets = reach.read(self.certificate)
        certificate = octets if octets.startswith(b"\x30") else pem.ders_of(octets, pem.CERTIFICATE)[0]
        payload = write_message(Message(act, deployment, reach.now(), SystemChance().octets(16).hex(), **said))
        return MessageEvidence(payload, certificate, signer.sign(signed_octets(payload)))


def options(*, required: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--certificate`, `--key`, `--passphrase-file`."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in (
            click.option("--passphrase-file", type=_FILE, help="What unlocks it; asked for when absent."),
            click.option("--key", required=required, type=_FILE, help="Your key (PEM, sealed)."),
            click.option("--certificate", required=required, type=_FILE, help="Your operator certificate (PEM)."),
        ):
            command = option(command)
        return command

    return add


def given(certificate: str | None, key: str | None, passphrase_file: str | None) -> Hand | None:
    """The hand that was named; None where none was.

    Raises:
        UsageError: half of it was named.
    """
    if (certificate is None) != (key is None):
        raise click.UsageError("--certificate and --key belong together.")
    return None if certificate is None or key is None else Hand(certificate, key, passphrase_file)
