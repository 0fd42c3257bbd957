"""Preparing the issuer that will take another one's place: its key, its CSR, the sheet of its ceremony, its entry in the settings. Effects only.

Nothing changes for anybody until its certificate is imported: until then the settings merely await it. The entry is written last; a run that was
stopped before goes on with the key and the files that it finds. A root's key is never made here (P4).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ca.der import names
from ca.errors import Conflict, Misconfigured, NotFound
from ca.model import AlgorithmName, Issuer, IssuerId, ProfileName
from ca.outlets.directory import DirectoryOutlet
from ca.ports import Chance
from ca.rules import ids
from ca.rules.key_policy import check_protection
from config.key_uris import SealedKey, read_key_uri
from config.secrets import Secret
from config.settings import Settings
from config.sheet import shipped_sheet, with_values
from crl.adopt import waiting
from crl.model import Scope
from fleetca import forms
from fleetca.deployment import csr_of, ensure, found_or_made, secret_file
from fleetca.folder import make_folder, replace_file

SHEET: Final = "next-issuing"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The next issuer.

    Args:
        id: its id; None: the predecessor's with the next number.
        succeeds: whose place it takes; None: that of the last of the line that issues.
        key: where its key rests; None: sealed beside the predecessor's. One that is there is used.
        passphrase: where the signer finds what unlocks it; None: a file of its own for a sealed key, nothing for others.
        algorithm: None: the predecessor's.
        common_name: None: the predecessor's with the next number.
    """

    id: str | None = None
    succeeds: str | None = None
    key: str | None = None
    passphrase: str | None = None
    algorithm: str | None = None
    common_name: str | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was made, all of it in one folder that is carried to the ceremony, the key aside."""

    id: IssuerId
    succeeds: IssuerId
    folder: Path
    sheet: Path
    csr: Path
    outputs: Path
    entry: str
    """What was added to the settings."""


def prepare(settings: Settings, wanted: Wanted, *, chance: Chance) -> Prepared:
    """Prepare the next issuer.

    Raises:
        Conflict: the settings have it already (`issuer-exists`), or another one that succeeds the same (`successor-exists`).
        NotFound: there is no issuer to succeed (`no-such-issuer`), or its root has published no CRL yet (`crl-missing`).
        Misconfigured: it would succeed a root (`root-in-ceremony`), its store keeps keys less well than the profile demands, or the settings
            cannot be extended (`settings-not-extended`).
        KeyUnavailable, StoreUnavailable: running again goes on.
    """
    issuers = {issuer.id: issuer for issuer in forms.issuers(settings)}
    old = _predecessor(settings, issuers, wanted.succeeds)
    new = ids.issuer_id(wanted.id or _next_number(old.id))
    if any(setting.id == new for setting in settings.issuers):
        raise Conflict("issuer-exists", f"{settings.file} has an issuer {new} already.", fix="Give the next one an id of its own.")
    uri, secret = _key(settings, old.id, new, wanted)
    entry = _entry(settings, new, old.id, uri, secret)
    extended = _extended(settings, entry)
    accepted = forms.read_settings(settings.file, accepted=extended)
    setting = accepted.issuer(new)
    assert setting.key is not None, "the entry names one"
    folder = settings.base / "ceremony" / new
    make_folder(folder)
    if setting.passphrase is not None and setting.passphrase.scheme == "file" and setting.passphrase.path is not None:
        secret_file(setting.passphrase.path, lambda: chance.octets(32).hex().encode() + b"\n")
    store, name = forms.key_store(setting.key, setting.passphrase)
    profile = forms.profiles(settings).get(ProfileName(setting.profile))
    if profile is not None:
        check_protection(store.ability(), profile)
    key = found_or_made(store, name, AlgorithmName(wanted.algorithm or old.algorithm))
    common_name = wanted.common_name or _next_number(_common_name(old), " ")
    ensure(folder / f"{new}.csr", lambda: csr_of(key, common_name))
    sheet = _sheet(settings, folder, new, root=issuers[_root_of(issuers, old)], old=old, common_name=common_name)
    replace_file(settings.file, extended)
    return Prepared(new, old.id, folder, sheet, folder / f"{new}.csr", folder / "outputs", entry)


def _predecessor(settings: Settings, issuers: dict[IssuerId, Issuer], given: str | None) -> Issuer:
    successors = {setting.succeeds: setting.id for setting in settings.issuers if setting.succeeds is not None}
    at = given or settings.profiles.default_issuer
    while given is None and at in successors:
        at = successors[at]
    if at in successors:
        raise Conflict("successor-exists", f"{successors[at]} succeeds {at} already.", fix=f"Let the next one succeed {successors[at]}.")
    if IssuerId(at) not in issuers:
        raise NotFound(
            "no-such-issuer",
            f"No issuer {at} is at work.",
            why="Its certificate has not been imported.",
            fix="Import it first, then go on.",
        )
    found = issuers[IssuerId(at)]
    if found.parent is None:
        raise Misconfigured(
            "root-in-ceremony",
            f"{at} is a root; the key of the next one is made in a ceremony.",
            why="No key of a root is ever online (P4).",
            fix="Hold the ceremony of config/ceremonies/root-change.toml.",
        )
    return found


def _root_of(issuers: dict[IssuerId, Issuer], issuer: Issuer) -> IssuerId:
    """The newest root of its line: that one signs what comes."""
    at = issuer
    while at.parent is not None:
        at = issuers[at.parent]
    while at.successor is not None and at.successor in issuers:
        at = issuers[at.successor]
    return at.id


def _next_number(text: str, joint: str = "-") -> str:
    head, found, number = text.rpartition(joint)
    return f"{head}{joint}{int(number) + 1}" if found and number.isdigit() else f"{text}{joint}2"


def _common_name(issuer: Issuer) -> str:
    return names.attribute(issuer.subject, "common_name") or issuer.id


def _key(settings: Settings, old: IssuerId, new: IssuerId, wanted: Wanted) -> tuple[str, str | None]:
    """Key and passphrase as the settings will name them."""
    if wanted.key is not None:
        parsed = read_key_uri(wanted.key, base=settings.base)
        usual = f"file:secrets/{new}.passphrase" if isinstance(parsed, SealedKey) else None
        return wanted.key, wanted.passphrase or usual
    before = settings.issuer(old).key
    if not isinstance(before, SealedKey):
        raise Misconfigured(
            "key-not-named",
            f"Say where the key of {new} rests.",
            why=f"That of {old} is no sealed file.",
            fix="Give --key, and --passphrase.",
        )
    return f"sealed:keys/{new}.key", wanted.passphrase or f"file:secrets/{new}.passphrase"


def _entry(settings: Settings, new: IssuerId, old: IssuerId, key: str, passphrase: str | None) -> str:
    before = settings.issuer(old)
    lines = [
        "[[issuers]]",
        f'id = "{new}"',
        f'succeeds = "{old}"                      # awaited until its certificate is imported',
        f"certificate = {json.dumps(os.path.relpath(before.certificate.with_name(f'{new}.pem'), settings.base))}",
        f"key = {json.dumps(key)}",
    ]
    if passphrase is not None:
        lines.append(f"passphrase = {json.dumps(Secret.parse(passphrase, base=settings.base).reference)}")
    if before.profile != "issuing-ca":
        lines.append(f'profile = "{before.profile}"')
    # What its CRLs look like stays: clients are set up for it.
    if before.crl_shards:
        lines.append(f"crl_shards = {before.crl_shards}")
    if before.crl_contents != "everything":
        lines.append(f'crl_contents = "{before.crl_contents}"')
    if before.crl_deltas:
        lines.append("crl_deltas = true")
    if before.unknown is not None:
        lines.append(f'unknown = "{before.unknown}"')
    return "\n".join(lines) + "\n"


def _extended(settings: Settings, entry: str) -> bytes:
    """The settings file with the entry; whoever reads it next finds it well.

    Raises:
        Conflict: the file changed while we worked (`settings-changed`).
        Misconfigured: it cannot simply be added (`settings-not-extended`).
    """
    octets = settings.file.read_bytes()
    if octets != settings.octets:
        raise Conflict("settings-changed", f"{settings.file} was changed just now.", fix="Run it again.")
    extended = octets.rstrip(b"\n") + b"\n\n" + entry.encode()
    try:
        forms.read_settings(settings.file, accepted=extended)
    except Misconfigured as error:
        raise Misconfigured(
            "settings-not-extended",
            f"The entry cannot be added to {settings.file}.",
            why=error.what,
            fix=f"Write it there yourself:\n{entry}",
        ) from None
    return extended


def _sheet(settings: Settings, folder: Path, new: IssuerId, *, root: Issuer, old: Issuer, common_name: str) -> Path:
    outlet = DirectoryOutlet(settings.crl.directory)
    published = outlet.current(Scope(root).name)
    if published is None:
        raise NotFound(
            "crl-missing", f"{root.id} has published no CRL.", why="The next one is numbered after it.", fix="Import its first ceremony."
        )
    ahead = sorted(waiting(root, outlet=outlet), key=lambda one: one.head.number)
    last = ahead[-1].octets if ahead else published.octets
    ensure(folder / f"{root.id}.pem", lambda: forms.pem_of(root.certificate).encode())
    ensure(folder / f"{root.id}.crl", lambda: last)
    values = {
        "organization": names.attribute(old.subject, "organization") or common_name,
        "common_name": common_name,
        "issuer": new,
        "csr": f"{new}.csr",
        "root": root.id,
        "root_certificate": f"{root.id}.pem",
        "previous_crl": f"{root.id}.crl",
        "status_url": settings.status.url,
    }
    with forms.our_errors():
        text = with_values(shipped_sheet(SHEET).read_bytes(), values, name=f"{new}")
    ensure(folder / f"{new}.toml", text.encode)
    return folder / f"{new}.toml"
