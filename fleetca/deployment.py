"""Making a deployment on disk: settings, keys, secrets, CSRs and the sheet of its first ceremony. Edge: effects only, no rule.

The settings file is written last. A run that was stopped before leaves files that the next run uses as they are; a folder with settings in
it is never touched. No key is ever written in the clear (P10), and none of a root is made here (P4).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ca.der import pem
from ca.der.certificate import assemble
from ca.der.request import request_info
from ca.errors import Conflict, Misconfigured
from ca.keys.sealed_file import SealedFileKeyStore
from ca.model import AlgorithmName, KeyName
from ca.ports import Chance, KeyStore, SigningKey
from ca.rules import ids, note
from config.key_uris import read_key_uri
from config.secrets import Secret
from config.sheet import shipped_sheet, with_values
from fleetca import forms
from fleetca.folder import make_folder, put_new

SETTINGS_FILE: Final = "fleetca.toml"
ISSUING: Final = "issuing"
_FOLDERS: Final = ("state", "journal", "keys", "secrets", "ca", "public", "run", "ceremony", "profiles")
_MAY_BE_THERE: Final = {*_FOLDERS, SETTINGS_FILE, "operators", "lost+found"}
SEALED_BY_FILE: Final = "file:secrets/issuing.passphrase"


_GRAVE: Final = ("ca-certificate", "profile", "mass-revocation", "restore", "operator", "waive-wipe")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a new deployment should be.

    Args:
        name: its name; stands in signed messages and the log's checkpoints.
        host: the name or address under which devices and relying parties reach it; stands in every certificate.
        listen: the address to listen on; loopback for a loopback host, all addresses otherwise, when absent.
        key: where the issuing key rests. One that is there is used, so that a ceremony's or another tool's can be.
        passphrase: where the signer finds what unlocks the issuing key; None where its store knows no passphrase. For a sealed key, a `file:`
            that does not exist is made; a PIN must be there.
        sheet: the shipped ceremony sheet to derive the deployment's own from.
        operator: the first operator; None for none.
        two_persons: whether grave acts need a second person from the beginning.
        more: further sections of the settings file, as they should stand in it.
    """

    name: str = "fleet"
    host: str = "localhost"
    listen: str | None = None
    enroll_port: int = 8443
    status_port: int = 8080
    key: str = f"sealed:keys/{ISSUING}.key"
    passphrase: str | None = SEALED_BY_FILE
    sheet: str = "root-and-issuing"
    label: str | None = None
    organization: str | None = None
    operator: str | None = "admin"
    algorithm: AlgorithmName = field(default=AlgorithmName("p256"))
    two_persons: bool = False
    more: str = ""


@dataclass(frozen=True, slots=True)
class Created:
    """What a new deployment consists of."""

    settings: Path
    sheet: Path
    csr: Path
    outputs: Path
    """Where the ceremony's outputs are expected, if it runs on this machine."""
    operator_key: Path | None


def create(directory: Path, wanted: Wanted, *, chance: Chance) -> Created:
    """Make a deployment.

    Raises:
        Conflict: there is one already (`deployment-exists`).
        Misconfigured: a name, host or port cannot be used.
        KeyUnavailable: the passphrase is to come from somewhere where it is not.
        StoreUnavailable: the folder cannot be written; running again goes on.
    """
    settings = directory / SETTINGS_FILE
    if settings.exists():
        raise Conflict(
            "deployment-exists",
            f"{directory} holds a deployment already.",
            why=f"There is {settings}.",
            fix="Give another folder with --dir, or look at the one there: fleetca doctor",
        )
    text = _settings_text(wanted)
    _check(directory, wanted)
    for folder in _FOLDERS:
        make_folder(directory / folder, mode=0o755 if folder in {"ca", "public"} else 0o700)

    def fresh() -> bytes:
        return chance.octets(32).hex().encode() + b"\n"

    secret_file(directory / "secrets/serial-check.key", fresh)
    place = read_key_uri(wanted.key, base=directory.absolute())
    reference = None if wanted.passphrase is None else Secret.parse(wanted.passphrase, base=directory.absolute())
    if place.scheme == "sealed" and reference is not None and reference.scheme == "file" and reference.path is not None:
        secret_file(reference.path, fresh)
    issuing = found_or_made(*forms.key_store(place, reference), wanted.algorithm)
    log = _key(directory / "keys", "log", AlgorithmName("ed25519"), _passphrase(directory, "log", fresh))
    ensure(directory / "public/log.verifier", f"{note.note_key(wanted.name, log.spki)}\n".encode)
    csr = directory / "ceremony" / f"{ISSUING}.csr"
    ensure(csr, lambda: csr_of(issuing, f"{wanted.label or wanted.name} Issuing CA"))
    sheet = directory / "ceremony" / f"{wanted.sheet}.toml"
    ensure(sheet, lambda: _sheet_text(wanted).encode())
    operator_key = None
    if wanted.operator is not None:
        key = _key(directory / "operators", wanted.operator, AlgorithmName("p256"), _passphrase(directory, wanted.operator, fresh))
        ensure(directory / "operators" / f"{wanted.operator}.csr", lambda: csr_of(key, wanted.operator or ""))
        operator_key = directory / "operators" / f"{wanted.operator}.key"
    # Last: from here on this is a deployment, and nothing above is made again.
    put_new(settings, text.encode())
    return Created(settings, sheet, csr, directory / "ceremony" / wanted.sheet, operator_key)


def refuse_foreign(directory: Path) -> None:
    """A deployment has its folder to itself: not the source tree, not a home.

    Raises:
        Conflict: the folder holds what no deployment does (`folder-in-use`).
    """
    foreign = sorted({path.name for path in directory.iterdir()} - _MAY_BE_THERE) if directory.is_dir() else []
    strange = [name for name in foreign if not name.startswith(".")]
    if strange:
        raise Conflict(
            "folder-in-use",
            f"{directory} holds something that is no deployment.",
            why=f"There is {directory / strange[0]}.",
            fix="Give an empty folder, or one that does not exist yet: --dir FOLDER",
        )


def _check(directory: Path, wanted: Wanted) -> None:
    """Everything that can be known before the first file: the settings as they will be read, and the sheet."""
    with forms.our_errors():
        forms.read_settings(directory / SETTINGS_FILE, accepted=_settings_text(wanted).encode())
        _sheet_text(wanted)
        if wanted.operator is not None:
            ids.operator_name(wanted.operator)
        if wanted.operator in {"log", ISSUING}:
            raise Misconfigured("bad-operator-id", f"An operator cannot be called {wanted.operator} here.", fix="Choose another name.")


def ensure(path: Path, content: Callable[[], bytes], *, mode: int = 0o644) -> None:
    """Write a file unless it is there."""
    if not path.exists():
        put_new(path, content(), mode=mode)


def secret_file(path: Path, content: Callable[[], bytes]) -> None:
    """Write a secret unless it is there."""
    make_folder(path.parent)
    ensure(path, content, mode=0o600)


def _passphrase(directory: Path, name: str, fresh: Callable[[], bytes]) -> Callable[[], bytes]:
    path = directory / "secrets" / f"{name}.passphrase"
    secret_file(path, fresh)
    return forms.secret(Secret("file", str(path.absolute()), path.parent))


def _key(folder: Path, name: str, algorithm: AlgorithmName, passphrase: Callable[[], bytes]) -> SigningKey:
    return found_or_made(SealedFileKeyStore(folder, passphrase), KeyName(name), algorithm)


def found_or_made(store: KeyStore, name: KeyName, algorithm: AlgorithmName) -> SigningKey:
    """The key of that name, made where there is none."""
    return store.open(name) if name in store.names() else store.generate(name, algorithm)


def csr_of(key: SigningKey, common_name: str) -> bytes:
    """A CSR of a key that only signs, PEM."""
    info = request_info({"common_name": common_name[:64]}, key.spki)
    return pem.pem(pem.REQUEST, assemble(info, key.algorithm, key.sign(info))).encode()


def _sheet_text(wanted: Wanted) -> str:
    source = shipped_sheet(wanted.sheet).read_bytes()
    values = {
        "status_url": _status_url(wanted),
        "label": wanted.label or wanted.name,
        "organization": wanted.organization or wanted.label or wanted.name,
    }
    known = {name: value for name, value in values.items() if f"{{{name}}}" in source.decode()}
    return with_values(source, known, name=wanted.sheet)


def _status_url(wanted: Wanted) -> str:
    host = f"[{wanted.host}]" if ":" in wanted.host else wanted.host
    return f"http://{host}" if wanted.status_port == 80 else f"http://{host}:{wanted.status_port}"


def _settings_text(wanted: Wanted) -> str:
    host = f"[{wanted.host}]" if ":" in wanted.host else wanted.host
    loopback = wanted.host in {"localhost", "127.0.0.1", "::1"}
    listen = wanted.listen or ("127.0.0.1" if loopback else "0.0.0.0")  # noqa: S104 - a public host is meant to be reached
    names = list(dict.fromkeys([wanted.host, *(["localhost", "127.0.0.1"] if loopback else [])]))
    https = f"https://{host}" if wanted.enroll_port == 443 else f"https://{host}:{wanted.enroll_port}"
    quoted = json.dumps  # a JSON string is a TOML basic string
    return f"""\
# A fleetca deployment. Every setting is explained in docs/reference/settings.md; check changes with: fleetca doctor
# Paths are relative to this file.

[deployment]
name = {quoted(wanted.name)}

[store]
url = "sqlite:///state/fleetca.db"        # or postgresql+psycopg://USER@HOST/NAME

[signer]
socket = "run/signer.sock"
journal = "journal/issuance.journal"      # best on another disk than the database
serial_check = "file:secrets/serial-check.key"

[signer.caps.enroll]                      # what the web process may get by evidence that only it saw
profiles = ["device", "device-short", "service"]
per_minute = 60000

[[issuers]]
id = "root"
certificate = "ca/root.pem"               # offline: no key here

[[issuers]]
id = "{ISSUING}"
certificate = "ca/{ISSUING}.pem"
key = {quoted(wanted.key)}
{"" if wanted.passphrase is None else f"passphrase = {quoted(wanted.passphrase)}"}

[profiles]
directories = ["profiles"]                # beside the shipped ones
default_issuer = "{ISSUING}"

[enroll]
listen = {quoted(f"{_bracketed(listen)}:{wanted.enroll_port}")}
url = {quoted(https)}
names = {quoted(names)}
workers = 1

[status]
listen = {quoted(f"{_bracketed(listen)}:{wanted.status_port}")}
url = {quoted(_status_url(wanted))}      # stands in every certificate
workers = 1

[ocsp]
lifetime = "1h"
max_age = "5m"
unknown = "unknown"

[crl]
directory = "public/crl"
lifetime = "24h"
interval = "1h"
nudge = "5s"

[log]
directory = "public/log"
key = "sealed:keys/log.key"
passphrase = "file:secrets/log.passphrase"
verifier = "public/log.verifier"

[approvals]                               # what one person asks for and another approves: docs/how-to/two-people.md
two_persons = {quoted(list(_GRAVE) if wanted.two_persons else [])}
{wanted.more}"""


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
