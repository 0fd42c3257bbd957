"""Certificate profiles as a person writes them: one TOML file a profile, named after it.

Owns names, types and defaults of the keys. Whether the combination is lawful is for `ca.rules.profile`. The shipped profiles lie in the
folder `profiles` beside this module; a deployment's own folders may add to them and never replace one silently.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import PrivateAttr

from config.errors import ConfigurationError
from config.settings import ShortName
from config.strict import Duration, Form, Several, parse, read_octets


class ProfileForm(Form):
    """What certificates of one kind look like and who may have them."""

    # Absent keys stay absent: `ca.rules.profile.accept` has the defaults.
    name: ShortName
    lifetime: Duration
    status: Literal["revocable", "no-rev-avail", "nocheck", "anchor"]
    key_usage: Several[str]
    common_name: str
    max_lifetime: Duration | None = None
    is_ca: bool | None = None
    path_length: int | None = None
    backdate: Duration | None = None
    crl_url: bool | None = None
    ocsp_url: bool | None = None
    key_algorithms: Several[str] | None = None
    extended_key_usage: Several[str] | None = None
    organization: str | None = None
    permanent_identifier: str | None = None
    uris: Several[str] | None = None
    allowed_names: Several[Literal["dns", "ip", "uri", "email"]] | None = None
    required_names: bool | None = None
    key_reuse: bool | None = None
    renewable: bool | None = None
    renew_from: float | None = None
    renew_after_expiry: Duration | None = None
    grace: Duration | None = None
    on_superseded: Literal["keep", "revoke"] | None = None
    plain_key_file: bool | None = None
    renewed_by: Literal["protocol", "service", "ceremony"] | None = None
    anchors_by: Several[Literal["pins", "est", "update", "ceremony", "settings"]] | None = None
    roots_of_trust: Several[Literal["se", "tpm", "tee", "puf"]] | None = None
    attestation: Several[Literal["tpm", "se", "idevid"]] | None = None
    safety_class: Literal["A", "B", "C"] | None = None
    minimum_protection: Literal["memory", "file", "quorum", "module", "hardware"] | None = None
    server_keygen: bool | None = None
    approval_within: Duration | None = None
    offline: Duration | None = None

    _file: Path = PrivateAttr(default=Path())
    _digest: bytes = PrivateAttr(default=b"")

    @property
    def file(self) -> Path:
        """Where it was read from."""
        return self._file

    @property
    def digest(self) -> bytes:
        """SHA-256 of the file."""
        return self._digest


def read_profile(file: Path) -> ProfileForm:
    """Read one profile.

    Raises:
        ConfigurationError: it is absent or wrong, or its name is not the file's.
    """
    octets = read_octets(file, kind="profile")
    profile = parse(ProfileForm, octets, file=file)
    if profile.name != file.stem:
        raise ConfigurationError(
            "profile-name",
            f"{file}: name is {profile.name}.",
            why="A profile is called what its file is called.",
            fix=f'Write name = "{file.stem}", or rename the file.',
        )
    # Private attributes of our own, set once before anyone sees the object.
    profile._file = file  # noqa: SLF001
    profile._digest = hashlib.sha256(octets).digest()  # noqa: SLF001
    return profile


def shipped_profiles() -> Path:
    """The folder of the profiles that come with fleetca."""
    return Path(str(files("config"))) / "profiles"


def read_profiles(directories: Sequence[Path]) -> tuple[ProfileForm, ...]:
    """The shipped profiles and those of more folders, by name.

    Raises:
        ConfigurationError: a folder is absent, a profile is wrong, or two have the same name.
    """
    found: dict[str, ProfileForm] = {}
    for directory in (shipped_profiles(), *directories):
        if not directory.is_dir():
            raise ConfigurationError(
                "no-such-folder",
                f"There is no folder of profiles {directory}.",
                fix=f"Make it, or take it out of profiles.directories: mkdir {directory}",
            )
        for file in sorted(directory.glob("*.toml")):
            profile = read_profile(file)
            if profile.name in found:
                raise ConfigurationError(
                    "profile-twice",
                    f"{file}: there is a profile {profile.name} already.",
                    why=f"It is {found[profile.name].file}.",
                    fix="Give one of them another name.",
                )
            found[profile.name] = profile
    return tuple(found[name] for name in sorted(found))
