"""Where private keys rest, as a person writes it: `sealed:`, `pkcs11:` (RFC 7512), `tpm:` and `awskms:`. Parsed strictly, knows no PKI.

A reference names a store and a key in it and holds no secret: the passphrase or PIN is named by a setting of its own.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import unquote_to_bytes

from pydantic import BeforeValidator, ValidationInfo

from config.strict import base_of


@dataclass(frozen=True, slots=True)
class KeyReference(ABC):
    """Where one private key rests."""

    scheme: ClassVar[str]
    secret: ClassVar[str]
    """What its passphrase is to the store: `needed`, `possible` or `none`."""

    text: str
    """As it was written."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The key's name in its store."""

    @property
    def path(self) -> Path | None:
        """The file that holds the key, where a file does."""
        return None


@dataclass(frozen=True, slots=True)
class SealedKey(KeyReference):
    """`sealed:PATH`: an encrypted PKCS#8 file."""

    scheme = "sealed"
    secret = "needed"
    file: Path

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.file.stem

    @property
    def path(self) -> Path | None:
        return self.file


@dataclass(frozen=True, slots=True)
class TokenKey(KeyReference):
    """`pkcs11:token=...;object=...?module-path=...`: a key on a PKCS#11 token."""

    scheme = "pkcs11"
    secret = "needed"
    module: Path
    object: str
    id: bytes | None
    token: str | None
    serial: str | None
    manufacturer: str | None
    model: str | None
    slot: int | None

    @property
    def name(self) -> str:
        """The object's label."""
        return self.object


@dataclass(frozen=True, slots=True)
class TpmKey(KeyReference):
    """`tpm:HANDLE`: a persistent object of a TPM 2.0."""

    scheme = "tpm"
    secret = "possible"
    handle: int
    device: str
    """A device file, or `HOST:PORT` of a simulator."""

    @property
    def name(self) -> str:
        """The handle, as tpm2-tools write it."""
        return f"0x{self.handle:08x}"


@dataclass(frozen=True, slots=True)
class KmsKey(KeyReference):
    """`awskms:alias/NAME?region=...`: a key of AWS KMS."""

    scheme = "awskms"
    secret = "none"
    key: str
    region: str
    endpoint: str | None

    @property
    def name(self) -> str:
        """The alias without `alias/`, or the key's id."""
        return self.key.removeprefix("alias/")


# ---- Reading ------------------------------------------------------------------------------------------------------------

# RFC 7512 2.3: pk11-pchar and pk11-qchar; everything else is percent-encoded.
_PATH_VALUE = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=&]|%[0-9A-Fa-f]{2})*")
_QUERY_VALUE = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=/?|]|%[0-9A-Fa-f]{2})*")
_USED = ("token", "serial", "manufacturer", "model", "object", "id", "type", "slot-id")
_UNUSED = {
    "library-manufacturer", "library-version", "library-description", "slot-description", "slot-manufacturer",
}  # fmt: skip
_PERSISTENT = range(0x81000000, 0x81800000)
"""The owner's half of the persistent handles (TCG PC Client Platform TPM Profile 7.5, Registry of Reserved TPM 2.0 Handles)."""
_EXAMPLE = (
    'write sealed:PATH.key, "pkcs11:token=NAME;object=NAME?module-path=/PATH.so", tpm:0x81020001 or "awskms:alias/NAME?region=REGION"'
)


def read_key_uri(text: str, *, base: Path) -> KeyReference:
    """Read a reference to a key.

    Raises:
        ValueError: it is none; says what is wrong. A PIN in it is not repeated.
    """
    scheme, colon, rest = text.partition(":")
    match scheme if colon else "":
        case "sealed":
            return _sealed(text, rest, base)
        case "pkcs11":
            return _pkcs11(text, rest)
        case "tpm":
            return _tpm(text, rest)
        case "awskms":
            return _kms(text, rest)
        case _:
            raise ValueError(f"is not a key we can use; {_EXAMPLE}")


def _sealed(text: str, rest: str, base: Path) -> SealedKey:
    if not re.fullmatch(r"[^\0]+\.key", rest):
        raise ValueError('is not a key we can use; write sealed:PATH with a path that ends in .key, like "sealed:keys/issuing.key"')
    return SealedKey(text, base / rest)


def _pkcs11(text: str, rest: str) -> TokenKey:
    path, mark, query = rest.partition("?")
    asked = _attributes(query, "&", _QUERY_VALUE) if mark else {}
    if {"pin-value", "pin-source"} & asked.keys():
        raise ValueError("says where the PIN is; take that out and say it with passphrase, like file:secrets/token.pin")
    if "module-name" in asked:
        raise ValueError("names a module by module-name; write module-path with its absolute path")
    strange = sorted(asked.keys() - {"module-path"})
    if strange:
        raise ValueError(f"has {strange[0]}, which RFC 7512 does not know after the question mark; known is module-path")
    given = _attributes(path, ";", _PATH_VALUE)
    for name in given:
        if name not in _USED:
            known = "fleetca does not choose by" if name in _UNUSED else "RFC 7512 does not know"
            raise ValueError(f"has {name}, which {known}; known are {', '.join(_USED)}")
    words = {name: _utf8(name, value) for name, value in given.items() if name != "id"}
    if words.pop("type", "private") != "private":
        raise ValueError("is not of type=private; only a private key signs")
    slot = words.pop("slot-id", None)
    if slot is not None and not re.fullmatch(r"[0-9]{1,10}", slot):
        raise ValueError("has a slot-id that is no number")
    module = _utf8("module-path", asked.get("module-path", b""))
    if not module.startswith("/"):
        raise ValueError("needs ?module-path= with the absolute path of the token's library")
    if "object" not in words:
        raise ValueError("needs object=, the key's label")
    if slot is None and not words.keys() & {"token", "serial"}:
        raise ValueError("needs token= or serial=, so that no other token is ever given the PIN")
    return TokenKey(
        text=text,
        module=Path(module),
        object=words["object"],
        id=given.get("id"),
        token=words.get("token"),
        serial=words.get("serial"),
        manufacturer=words.get("manufacturer"),
        model=words.get("model"),
        slot=None if slot is None else int(slot),
    )


def _attributes(text: str, separator: str, value_form: re.Pattern[str]) -> Mapping[str, bytes]:
    found: dict[str, bytes] = {}
    for part in text.split(separator) if text else ():
        name, equals, value = part.partition("=")
        if not equals or not re.fullmatch(r"[a-z0-9\-_]+", name):
            raise ValueError(f"is not a URI as RFC 7512 has them: each part between {separator!r} is NAME=VALUE")
        if not value_form.fullmatch(value):
            raise ValueError(f"has a character in {name} that RFC 7512 wants percent-encoded, like %20 for a space")
        if name in found:
            raise ValueError(f"has {name} twice")
        if not value:
            raise ValueError(f"has an empty {name}")
        found[name] = unquote_to_bytes(value)
    return found


def _utf8(name: str, value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise ValueError(f"has a {name} that is not UTF-8") from None
    if "\0" in text:
        raise ValueError(f"has a zero octet in {name}")
    return text


def _tpm(text: str, rest: str) -> TpmKey:
    handle, mark, query = rest.partition("?")
    if not re.fullmatch(r"0x81[0-9a-f]{6}", handle) or int(handle, 16) not in _PERSISTENT:
        raise ValueError("is not a persistent handle of the owner: write tpm:0x81000000 to tpm:0x817fffff, in lower case")
    asked = _options(query, {"device", "simulator"}) if mark else {}
    if len(asked) > 1:
        raise ValueError("has both device and simulator")
    device = asked.get("device", "/dev/tpmrm0")
    if not re.fullmatch(r"/dev/[a-z0-9/]+", device):
        raise ValueError("has a device that does not lie in /dev")
    simulator = asked.get("simulator")
    if simulator is not None and not re.fullmatch(r"[A-Za-z0-9.-]+:[0-9]{1,5}", simulator):
        raise ValueError("has a simulator that is no HOST:PORT")
    return TpmKey(text, int(handle, 16), simulator or device)


def _kms(text: str, rest: str) -> KmsKey:
    key, mark, query = rest.partition("?")
    arn = re.fullmatch(r"arn:aws[a-z-]*:kms:([a-z0-9-]+):[0-9]{12}:(?:key/[A-Za-z0-9-]+|alias/[A-Za-z0-9/_-]+)", key)
    if not arn and not re.fullmatch(r"alias/[A-Za-z0-9/_-]{1,250}|[0-9a-f-]{36}|mrk-[0-9a-f]{32}", key):
        raise ValueError("is not a key of AWS KMS; write awskms:alias/NAME, awskms:KEY-ID or awskms:arn:...")
    asked = _options(query, {"region", "endpoint"}) if mark else {}
    region = asked.get("region") or (arn[1] if arn else None)
    if region is None or not re.fullmatch(r"[a-z0-9-]{1,40}", region):
        raise ValueError("needs ?region=, like eu-central-1")
    if arn and arn[1] != region:
        raise ValueError(f"has region={region}, and its ARN says {arn[1]}")
    endpoint = asked.get("endpoint")
    if endpoint is not None and not re.fullmatch(r"https?://[A-Za-z0-9.\[\]:-]+", endpoint):
        raise ValueError("has an endpoint that is no address")
    return KmsKey(text, key, region, endpoint)


def _options(text: str, known: set[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for part in text.split("&"):
        name, equals, value = part.partition("=")
        if name not in known or not equals or not value:
            raise ValueError(f"has {name or 'nothing'} after the question mark; known are {', '.join(sorted(known))}")
        if name in found:
            raise ValueError(f"has {name} twice")
        found[name] = value
    return found


def _key(value: object, info: ValidationInfo) -> KeyReference:
    return read_key_uri(value if isinstance(value, str) else "", base=base_of(info))


KeyUri = Annotated[KeyReference, BeforeValidator(_key)]


def check_secret(key: KeyReference | None, *, given: bool) -> None:
    """Whether a passphrase belongs to that key.

    Raises:
        ValueError: it is missing, or the store has no use for one.
    """
    if key is None:
        if given:
            raise ValueError("needs key and passphrase together, or neither (an offline root has no key here)")
    elif key.secret == "needed" and not given:
        raise ValueError(
            "needs key and passphrase together, or neither (an offline root has no key here)"
            if key.scheme == "sealed"
            else f"needs a passphrase: where the PIN of {key.text.partition('?')[0]} is"
        )
    elif key.secret == "none" and given:
        raise ValueError(f"has a passphrase, and {key.scheme} knows none: who may sign is said by the credentials of this process")
