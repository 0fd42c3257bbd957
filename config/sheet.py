"""Ceremony sheets as a person writes and reviews them: what will be made, in which order, until when.

Owns names and types of the keys, and the placeholders `{value}` that come from the sheet's own table `[values]`. No secret stands in a
sheet. Whether the acts make sense together is for `ca.rules.ceremony`.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from datetime import UTC, date, datetime
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, Strict, model_validator

from config.errors import ConfigurationError
from config.settings import ShortName
from config.strict import Form, Location, Several, parse_document, read_octets, toml_document


def _moment(value: object) -> int | str:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("has no time zone; write it in UTC, like 2027-01-01T00:00:00Z")
        return int(value.astimezone(UTC).timestamp())
    if isinstance(value, str) and (value == "now" or re.fullmatch(r"\d{1,6}[smhdwy]", value)):
        return value
    raise ValueError('is not a date; write "now", a time span like "10y" or "90d", or a date in UTC like 2027-01-01T00:00:00Z')


Moment = Annotated[int | str, BeforeValidator(_moment)]
"""`now`, a span (`10y`), or seconds since 1970 (written as a TOML date-time)."""


Span = Annotated[str, Field(pattern=r"^\d{1,6}[smhdwy]$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""64 lower-case hexadecimal digits."""


class Subject(Form):
    """A distinguished name."""

    common_name: str = Field(min_length=1, max_length=64)
    organization: str | None = Field(None, min_length=1, max_length=64)
    organizational_unit: str | None = Field(None, min_length=1, max_length=64)
    country: str | None = Field(None, pattern=r"^[A-Z]{2}$")


Confirm = Annotated[tuple[ShortName, ...] | None, Strict(False)]
"""The roles that must confirm an act; absent: those of `[ceremony]`."""


class RootAct(Form):
    """Make a root key and its self-signed certificate."""

    act: Literal["root"]
    id: ShortName
    profile: ShortName = "root"
    algorithm: str
    subject: Subject
    not_before: Moment = "now"
    not_after: Moment
    quorum: ShortName | None = None
    confirm: Confirm = None


class IntermediateAct(Form):
    """Sign an issuing CA's certificate, for the key of a CSR (or, for trials, for a key made on the spot)."""

    act: Literal["intermediate"]
    id: ShortName
    issuer: ShortName
    profile: ShortName = "issuing-ca"
    csr: Location | None = None
    csr_sha256: Sha256 | None = None
    algorithm: str | None = None
    subject: Subject
    not_before: Moment = "now"
    not_after: Moment
    crl_url: str
    issuer_url: str
    quorum: ShortName | None = None
    confirm: Confirm = None

    @model_validator(mode="after")
    def _one_key(self) -> IntermediateAct:
        if self.csr is None and self.algorithm is None:
            raise ValueError("needs csr (the request of the issuing CA) or algorithm (to make a key here)")
        if self.csr is None and self.csr_sha256 is not None:
            raise ValueError("names the SHA-256 of a CSR and no CSR")
        return self


class RekeyAct(Form):
    """Sign a certificate for the new key of a CA that keeps its name."""

    act: Literal["rekey"]
    id: ShortName
    issuer: ShortName
    profile: ShortName = "issuing-ca"
    predecessor: Location
    csr: Location
    csr_sha256: Sha256 | None = None
    subject: Subject | None = None
    not_before: Moment = "now"
    not_after: Moment
    crl_url: str
    issuer_url: str
    confirm: Confirm = None


class CrossAct(Form):
    """Certify somebody else's CA."""

    act: Literal["cross-certificate"]
    id: ShortName
    issuer: ShortName
    profile: ShortName = "cross-certificate"
    certificate: Location
    certificate_sha256: Sha256 | None = None
    subject: Subject | None = None
    not_before: Moment = "now"
    not_after: Moment
    crl_url: str
    issuer_url: str
    confirm: Confirm = None


class LinkAct(Form):
    """Sign one root's name and key with the other root's key, so that chains hold across a root change. Dates follow from both roots."""

    act: Literal["link"]
    id: ShortName
    signer: ShortName
    subject: ShortName
    profile: ShortName = "link"
    crl_url: str
    issuer_url: str
    confirm: Confirm = None


class ResponderAct(Form):
    """Certify an OCSP responder for what the root signed; with `count`, one certificate after the other for the same key."""

    act: Literal["responder"]
    id: ShortName
    issuer: ShortName
    profile: ShortName = "root-responder"
    csr: Location
    csr_sha256: Sha256 | None = None
    subject: Subject
    not_before: Moment = "now"
    count: int | None = None
    overlap: Span | None = None
    confirm: Confirm = None

    @model_validator(mode="after")
    def _whole_chain(self) -> ResponderAct:
        if (self.count is None) is not (self.overlap is None):
            raise ValueError("needs count and overlap together")
        return self


class Revoked(Form):
    """One entry of a root CRL."""

    serial: str = Field(pattern=r"^[0-9a-f]{1,40}$")
    revoked_at: datetime
    reason: str = "unspecified"


class RootCrlAct(Form):
    """Sign a CRL of the root. With `overlap`, it begins that long before the previous one ends."""

    act: Literal["root-crl"]
    id: ShortName
    issuer: ShortName
    previous: Location | None = None
    first: bool = False
    this_update: Moment | None = None
    overlap: Span | None = None
    next_update: Moment
    replaces_pre_dated: bool = False
    revoked: Several[Revoked] = ()
    confirm: Confirm = None

    @model_validator(mode="after")
    def _one_start(self) -> RootCrlAct:
        if self.this_update is not None and self.overlap is not None:
            raise ValueError("has this_update and overlap; one of them follows from the other")
        if self.overlap is not None and self.previous is None:
            raise ValueError("has overlap and no previous CRL that it could count from")
        return self


class RootCrlsAct(Form):
    """Sign a chain of pre-dated root CRLs, each beginning `overlap` before the one before it ends."""

    act: Literal["root-crls"]
    id: ShortName
    issuer: ShortName
    previous: Location | None = None
    first: bool = False
    this_update: Moment = "now"
    count: int
    each: Span
    overlap: Span
    replaces_pre_dated: bool = False
    revoked: Several[Revoked] = ()
    confirm: Confirm = None


class DestroyAct(Form):
    """Destroy the private key of a CA that [[issuers]] names."""

    act: Literal["destroy-key"]
    id: ShortName
    issuer: ShortName
    reason: str = Field(min_length=1, max_length=500)
    confirm: Confirm = None


class SharesAct(Form):
    """Make a key that custodians share: what `quorum` of other acts names."""

    act: Literal["shares"]
    id: ShortName
    custodians: Several[str] = Field(min_length=2)
    threshold: int
    confirm: Confirm = None


class ShareReissueAct(Form):
    """Make shares in the place of others, and seal keys anew under them."""

    act: Literal["share-reissue"]
    id: ShortName
    replaces: Location
    custodians: Several[str] = Field(min_length=2)
    threshold: int
    keys: Several[ShortName] = ()
    confirm: Confirm = None


class BackupAct(Form):
    """Encrypt the sealed key of an issuer to a quorum."""

    act: Literal["backup"]
    id: ShortName
    issuer: ShortName
    quorum: ShortName | None = None
    quorum_file: Location | None = None
    confirm: Confirm = None

    @model_validator(mode="after")
    def _one_quorum(self) -> BackupAct:
        if (self.quorum is None) is (self.quorum_file is None):
            raise ValueError("needs either quorum (an act of this sheet) or quorum_file")
        return self


class DrillAct(Form):
    """Show that a backup gives a key back."""

    act: Literal["restore-drill"]
    id: ShortName
    issuer: ShortName
    quorum_file: Location
    backup: Location
    confirm: Confirm = None


Act = Annotated[
    RootAct
    | IntermediateAct
    | RekeyAct
    | CrossAct
    | LinkAct
    | ResponderAct
    | RootCrlAct
    | RootCrlsAct
    | DestroyAct
    | SharesAct
    | ShareReissueAct
    | BackupAct
    | DrillAct,
    Field(discriminator="act"),
]
ACTS = (
    "root",
    "intermediate",
    "rekey",
    "cross-certificate",
    "link",
    "responder",
    "root-crl",
    "root-crls",
    "destroy-key",
    "shares",
    "share-reissue",
    "backup",
    "restore-drill",
)


class KnownIssuer(Form):
    """A CA made by an earlier ceremony, whose key this one uses. Where the key rests stands in the credentials file."""

    id: ShortName
    certificate: Location
    profile: ShortName | None = None


class Person(Form):
    """Somebody in the room, and the digest of the key that signs for them."""

    role: ShortName
    person: str = Field(min_length=1, max_length=100)
    key_sha256: Sha256


class Equipment(Form):
    """A machine, token or medium, for the script."""

    what: str = Field(min_length=1, max_length=100)
    serial: str = Field("", max_length=100)
    bag: str = Field("", max_length=100)


class About(Form):
    """What this ceremony is."""

    name: ShortName
    about: str = ""
    place: str = Field("", max_length=200)
    day: date | None = None
    allow_network: str | None = Field(None, min_length=3, max_length=500)
    confirm: Several[ShortName] = ()


class Sheet(Form):
    """One ceremony."""

    ceremony: About
    values: dict[str, str] = Field(default_factory=dict)
    roles: Several[Person] = ()
    equipment: Several[Equipment] = ()
    issuers: Several[KnownIssuer] = ()
    acts: Several[Act] = Field(min_length=1)

    _file: Path = PrivateAttr(default=Path())
    _octets: bytes = PrivateAttr(default=b"")

    @property
    def file(self) -> Path:
        """Where it was read from."""
        return self._file

    @property
    def digest(self) -> bytes:
        """SHA-256 of the file: what was reviewed is what runs."""
        return hashlib.sha256(self._octets).digest()

    @property
    def octets(self) -> bytes:
        """The file."""
        return self._octets


_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def read_sheet(file: Path) -> Sheet:
    """Read a sheet.

    Raises:
        ConfigurationError: it is absent or wrong, an act is not known, a value is used and not given or given and not used.
    """
    octets = read_octets(file, kind="ceremony sheet")
    document = toml_document(octets, file=file)
    _check_acts(document, file)
    sheet = parse_document(Sheet, _filled(document, file), file=file)
    # Private attributes of our own, set once before anyone sees the object.
    sheet._file = file.absolute()  # noqa: SLF001
    sheet._octets = octets  # noqa: SLF001
    return sheet


def locations(sheet: Sheet) -> tuple[Path, ...]:
    """Every file that a sheet names."""
    named = [known.certificate for known in sheet.issuers]
    for act in sheet.acts:
        named += [value for name in type(act).model_fields if isinstance(value := getattr(act, name), Path)]
    return tuple(dict.fromkeys(named))


def _check_acts(document: Mapping[str, Any], file: Path) -> None:
    acts = document.get("acts")
    for number, act in enumerate(acts if isinstance(acts, list) else (), start=1):
        if isinstance(act, dict) and "act" in act and act["act"] not in ACTS:
            raise ConfigurationError(
                "unknown-act", f"{file}: acts[{number}].act is {act['act']!r}, which is no act.", fix=f"Known acts: {', '.join(ACTS)}."
            )


def _filled(document: dict[str, Any], file: Path) -> dict[str, Any]:
    values = document.get("values", {})
    if not isinstance(values, dict):
        return document
    used: set[str] = set()

    def fill(value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return {name: fill(inner, f"{key}.{name}" if key else name) for name, inner in value.items()}
        if isinstance(value, list):
            return [fill(inner, f"{key}[{number}]") for number, inner in enumerate(value, start=1)]
        if not isinstance(value, str):
            return value

        def replace(found: re.Match[str]) -> str:
            name = found[1]
            if not isinstance(values.get(name), str):
                raise ConfigurationError(
                    "missing-value",
                    f"{file}: {key} uses {{{name}}}, and [values] does not say what that is.",
                    fix=f'Add {name} = "..." to [values].',
                )
            used.add(name)
            return str(values[name])

        return _PLACEHOLDER.sub(replace, value)

    filled = {name: part if name == "values" else fill(part, name) for name, part in document.items()}
    unused = sorted(set(values) - used)
    if unused:
        raise ConfigurationError(
            "unused-value",
            f"{file}: values.{unused[0]} is used nowhere.",
            why="A sheet says nothing that has no effect: who reviewed it would be misled.",
            fix=f"Take values.{unused[0]} out.",
        )
    return filled


def shipped_sheet(name: str) -> Path:
    """A sheet that comes with fleetca: `demo`, `root-and-issuing`.

    Raises:
        ConfigurationError: there is none of that name.
    """
    folder = Path(str(files("config"))) / "ceremonies"
    file = folder / f"{name}.toml"
    if not file.is_file():
        known = ", ".join(sorted(each.stem for each in folder.glob("*.toml")))
        raise ConfigurationError("no-such-file", f"No ceremony sheet called {name} comes with fleetca.", fix=f"There are: {known}.")
    return file


def with_values(octets: bytes, values: Mapping[str, str], *, name: str) -> str:
    """A sheet's text with another ceremony name and other values, everything else (comments too) as it was.

    Raises:
        ConfigurationError: it has no such value.
    """
    text = octets.decode()
    known = tomllib.loads(text).get("values", {})
    for key, value in {**values, "name": name}.items():
        if key != "name" and key not in known:
            raise ConfigurationError("missing-value", f"The sheet has no value {key}.", fix=f"It has: {', '.join(sorted(known))}.")
        table = "ceremony" if key == "name" else "values"
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        place = re.compile(rf"(?ms)^\[{table}\]$(?:(?!^\[).)*?^{re.escape(key)} *= *\"([^\"\n]*)\"")
        found = place.search(text)
        if found is None:
            raise ConfigurationError("missing-value", f"The sheet does not hold {table}.{key} as one line of text.")
        text = text[: found.start(1)] + quoted + text[found.end(1) :]
    return text
