"""An operator's own key at the command line: the options that name it, and what it signs. The key is opened here and nowhere else.

It rests in a sealed file or, by an address, on a PKCS#11 token, in a TPM or a KMS; there it never leaves what the person holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from fleetca.cli import reach

if TYPE_CHECKING:
    from ca.model import MessageEvidence
    from ca.ports import SigningKey
    from ca.rules.message import Act

_FILE = click.Path(exists=True, dir_okay=False)
ADDRESSES: Final = ("pkcs11:", "tpm:", "awskms:")


@dataclass(frozen=True, slots=True)
class Hand:
    """Where an operator's certificate and key are.

    Args:
        key: a sealed file, or an address (`pkcs11:...` of RFC 7512, `tpm:...`, `awskms:...`).
    """

    certificate: str
    key: str
    passphrase_file: str | None

    def message(self, act: Act, *, deployment: str, **said: Any) -> MessageEvidence:
        """A message about one act, signed.

        Raises:
            KeyUnavailable: the key cannot be unlocked.
            Malformed: a file cannot be read.
            Unacceptable: the certificate is of another key (`key-of-another`).
        """
        from ca.rules.message import Message, signed_octets, write_message
        from ca.system import SystemChance

        payload = write_message(Message(act, deployment, reach.now(), SystemChance().octets(16).hex(), **said))
        return self.evidence(payload, signed_octets(payload))

    def evidence(self, payload: bytes, octets: bytes) -> MessageEvidence:
        """A payload, with the signature over the octets that stand for it.

        Raises:
            As `message`.
        """
        from ca.der import pem
        from ca.der.certificate import read_certificate
        from ca.errors import Unacceptable
        from ca.model import MessageEvidence

        signer = self._open()
        given = reach.read(self.certificate)
        certificate = given if given.startswith(b"\x30") else pem.ders_of(given, pem.CERTIFICATE)[0]
        if read_certificate(certificate).spki != signer.spki:
            raise Unacceptable(
                "key-of-another",
                "Certificate and key do not belong together.",
                why=f"{self.certificate} is of another key than {self.key}.",
            )
        return MessageEvidence(payload, certificate, signer.sign(octets))

    def _open(self) -> SigningKey:
        if self.key.startswith(ADDRESSES):
            return addressed(self.key, self._secret("PIN"))
        from ca.errors import KeyUnavailable
        from ca.keys.memory import MemoryKey
        from ca.keys.sealed_file import unseal
        from ca.model import KeyName

        try:
            sealed = Path(self.key).read_bytes()
        except OSError as error:
            raise KeyUnavailable("bad-key-file", f"{self.key} is not a file.", why=f"{error.strerror}.") from None
        return MemoryKey(KeyName("operator"), unseal(sealed, self._secret("Passphrase"), what=self.key))

    def _secret(self, what: str) -> bytes:
        return secret(self.passphrase_file, what)


def secret(file: str | None, what: str) -> bytes:
    """What unlocks a key: out of a file, or asked for."""
    if file:
        return Path(file).read_bytes().rstrip(b"\n")
    asked: str = click.prompt(what, hide_input=True, err=True)
    return asked.encode()


def addressed(address: str, pin: bytes, *, make: str | None = None) -> SigningKey:
    """The key at an address.

    Args:
        make: the kind of key to make there, where there is none of that name.

    Raises:
        Misconfigured: this is no address (`bad-key-address`).
        KeyUnavailable: the key is not there, or the PIN is wrong.
        Conflict: there is one, and one was to be made.
    """
    from ca.errors import Misconfigured
    from ca.model import AlgorithmName
    from config.key_uris import read_key_uri
    from fleetca import forms
    from fleetca.ceremony_keys import Asked

    try:
        reference = read_key_uri(address, base=Path())
    except ValueError as error:
        raise Misconfigured("bad-key-address", f"{address.partition(':')[0]}: this address of a key {error}.") from None
    store, name = forms.key_store(reference, Asked.by(lambda: pin))
    return store.open(name) if make is None else store.generate(name, AlgorithmName(make))


def options(*, required: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--certificate`, `--key`, `--passphrase-file`."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in (
            click.option("--passphrase-file", type=_FILE, help="What unlocks it, passphrase or PIN; asked for when absent."),
            click.option(
                "--key",
                required=required,
                metavar="KEY",
                help="Your key: a sealed file (PEM), or on a token pkcs11:token=...;object=...?module-path=... (RFC 7512).",
            ),
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
