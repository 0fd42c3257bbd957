"""The file beside a sheet that says where keys rest: stores, slots, module paths and where their passphrases and PINs are.

The sheet, which is reviewed and read aloud, says what is made; this file says with which hardware of this machine. No secret stands in it,
only where one is: a reference, or `ask` for a question at the terminal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationInfo

from config.key_uris import KeyUri
from config.secrets import Secret
from config.settings import ShortName
from config.strict import Form, Location, base_of, parse, read_octets

ASK = "ask"


def _answer(value: object, info: ValidationInfo) -> Secret | None:
    if value is None or value == ASK:
        return None
    return Secret.parse(value if isinstance(value, str) else "", base=base_of(info))


Answer = Annotated[Secret | None, BeforeValidator(_answer)]
"""A reference to a secret; None: ask at the terminal."""


class KeyPlace(Form):
    """Where one key rests, or will."""

    key: KeyUri
    passphrase: Answer = None
    quorum: Location | None = None
    """The `quorum.json` of the custodians who share what seals it, in place of a passphrase."""


class Credentials(Form):
    """One credentials file."""

    made: dict[ShortName, KeyPlace] = Field(default_factory=dict)
    """Act -> where the key that it makes will rest; absent: a sealed file in the output folder."""
    issuers: dict[ShortName, KeyPlace] = Field(default_factory=dict)
    """Issuer of the sheet -> where its key rests."""
    people: dict[str, KeyPlace] = Field(default_factory=dict)
    """Person of the sheet -> where the key that signs for them rests."""


def read_credentials(file: Path) -> Credentials:
    """Read a credentials file.

    Raises:
        ConfigurationError: it is absent or wrong; names the file and the key.
    """
    return parse(Credentials, read_octets(file, kind="credentials file"), file=file)
