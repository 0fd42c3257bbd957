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

from pydantic import Field, PrivateAttr

from config.errors import ConfigurationError
from config.settings import ShortName
from config.strict import Duration, Form, Several, parse, read_octets


class ProfileForm(Form):
    """What certificates of one kind look like and who may have them."""

    name: ShortName
    is_ca: bool = False
    path_length: int | None = Field(None, ge=0, le=8)
    lifetime: Duration
    max_lifetime: Duration
    backdate: Duration = 0
    status: Literal["revocable", "no-rev-avail", "nocheck", "anchor"]
    crl_url: bool = False
    ocsp_url: bool = False
    key_algorithms: Several[str] = Field(min_length=1)
    key_usage: Several[str] = Field(min_length=1)
    extended_key_usage: Several[str] = ()
    common_name: str
    organization: str | None = None
    uris: Several[str] = ()
    allowed_names: Several[Literal["dns", "ip", "uri", "email"]] = ()
    required_names: bool = False
    key_reuse: bool = False
    renewable: bool = False
    renew_from: float = Field(0.0, ge=0, le=1)
    grace: Duration = 0
    on_superseded: Literal["keep", "revoke"] = "keep"
    plain_key_file: bool = False

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
