"""The kit for the air-gapped machine: one folder with hashed wheels, the sheet and what it names, that installs itself without a network.

    SHA256SUMS          every other file with its SHA-256; the SHA-256 of this file is the digest of the kit, noted on paper
    install             checks SHA256SUMS with the system's own sha256sum, refuses what it does not name, and makes env/ from wheels/
                        (pip --no-index --require-hashes)
    requirements.txt    every wheel, by hash
    sheet/              the sheet and the files that it names
    kit.json            what it is, for programs

Edge: effects only, no rule.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ca.errors import Conflict, Misconfigured, Unacceptable
from ca.model import Digest
from fleetca.ceremony_host import PACKAGES, software_sha256
from fleetca.ceremony_wheels import wheels
from fleetca.folder import Folder, put_new

SUMS: Final = "SHA256SUMS"
_MADE_HERE: Final = "env"

_INSTALL: Final = """\
#!/bin/sh
# Checks this kit and installs it into env/ beside this file. Needs python3 with its venv module; no network.
set -eu
cd "$(dirname "$0")"
echo "SHA-256 of the kit (compare it with the paper):"
sha256sum SHA256SUMS
sha256sum --quiet --check SHA256SUMS
# What the list does not name was put here later: a module that Python would take for its own, or an env/ with somebody else's libraries.
if [ "$(find . -mindepth 1 ! -type d | wc -l)" -ne "$(($(wc -l < SHA256SUMS) + 1))" ] || [ -e env ]; then
    echo "FAILED: there is something here that SHA256SUMS does not name:"
    find . -mindepth 1 ! -type d | cut -c 3- | while read -r name; do
        [ "$name" = SHA256SUMS ] || cut -c 67- SHA256SUMS | grep -qxF -- "$name" || echo "$name"
    done
    exit 1
fi
"${PYTHON:-python3}" -I -m venv env
env/bin/pip install --quiet --disable-pip-version-check --no-cache-dir --no-index --find-links wheels --require-hashes -r requirements.txt
env/bin/fleetca ceremony check-kit .
"""

_README: Final = """\
A ceremony kit of {software}.

1. Compare: sha256sum SHA256SUMS    must print the digest on the paper: {hint}
            sha256sum --quiet --check SHA256SUMS     must print nothing; before that, run nothing of this folder
2. Install: ./install               needs python3 {python} with venv on {platform}; no network
3. Plan:    env/bin/fleetca ceremony plan sheet/{sheet}
4. Hold:    env/bin/fleetca ceremony run sheet/{sheet} --out outputs --credentials FILE
5. Verify:  fleetca ceremony verify outputs             on another machine, with the digests on the paper
"""


@dataclass(frozen=True, slots=True)
class Kit:
    """A kit on disk."""

    folder: Path
    digest: Digest
    software_sha256: str
    sheet_sha256: str
    files: int


def make(sheet: Path, names: Mapping[str, bytes], folder: Path) -> Kit:
    """Write a kit.

    Args:
        sheet: the sheet's file.
        names: path -> octets of what the sheet names, relative to the sheet.
        folder: new or empty.

    Raises:
        Conflict: the folder holds something (`output-exists`).
        Misconfigured: the sheet names a file outside of its folder (`kit-outside`), or a library is missing.
        Unacceptable: an installed file was changed (`wheel-changed`).
    """
    if Folder(folder).names():
        raise Conflict("output-exists", f"{folder} holds something already.", fix="Give a new folder with --out.")
    carried: dict[str, bytes] = {f"sheet/{sheet.name}": sheet.read_bytes()}
    for name, octets in names.items():
        if name.startswith(("/", "../")) or "/../" in name:
            raise Misconfigured(
                "kit-outside",
                f"The sheet names {name}, which does not lie in its folder.",
                why="On the other machine it would not be where the sheet says.",
                fix="Put the file beside the sheet.",
            )
        carried[f"sheet/{name}"] = octets
    packed = wheels()
    carried |= {f"wheels/{each.file}": each.octets for each in packed}
    carried["requirements.txt"] = "".join(f"{each.name}=={each.version} --hash=sha256:{each.sha256}\n" for each in packed).encode()
    carried["install"] = _INSTALL.encode()
    ours = next(each for each in packed if each.name == "fleetca")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    about = {
        "fleetca": ours.version,
        "software_sha256": software_sha256(_program(ours.octets)),
        "sheet": sheet.name,
        "sheet_sha256": hashlib.sha256(carried[f"sheet/{sheet.name}"]).hexdigest(),
        "python": python,
        "platform": platform.machine(),
    }
    carried["kit.json"] = (json.dumps(about, indent=2, sort_keys=True) + "\n").encode()
    carried["README.txt"] = _README.format(
        software=f"fleetca {ours.version}", hint="_" * 20, python=python, platform=platform.machine(), sheet=sheet.name
    ).encode()
    for name, octets in carried.items():
        put_new(folder / name, octets, mode=0o755 if name == "install" else 0o644)
    sums = "".join(f"{hashlib.sha256(octets).hexdigest()}  {name}\n" for name, octets in sorted(carried.items()))
    put_new(folder / SUMS, sums.encode())
    return check(folder)


def _program(wheel: bytes) -> Iterator[tuple[str, bytes]]:
    """What the wheel will install: of that the digest is, whatever happens to the files here meanwhile."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        for name in archive.namelist():
            if name.split("/")[0] in PACKAGES:
                yield name, archive.read(name)


def check(folder: Path) -> Kit:
    """A kit whose every file is what its list says, nothing more and nothing less (`env/` aside).

    Raises:
        Misconfigured: it is no kit (`no-kit`).
        Unacceptable: a file is missing, was changed or was added (`kit-changed`).
    """
    archive = Folder(folder)
    sums, about = archive.read(SUMS), archive.read("kit.json")
    if sums is None or about is None:
        raise Misconfigured("no-kit", f"{folder} is no ceremony kit.", fix="Give the folder that fleetca ceremony kit --out wrote.")
    wanted = {name: digest for digest, _, name in (line.partition("  ") for line in sums.decode().splitlines())}
    for name in sorted({*wanted, *_present(folder)}):
        octets = archive.read(name)
        if name not in wanted:
            raise _changed(name, "It was added.")
        if octets is None:
            raise _changed(name, "It is missing.")
        if hashlib.sha256(octets).hexdigest() != wanted[name]:
            raise _changed(name, "It was changed.")
    said = json.loads(about)
    digest = Digest(hashlib.sha256(sums).digest())
    return Kit(folder, digest, str(said["software_sha256"]), str(said["sheet_sha256"]), len(wanted))


def _changed(name: str, why: str) -> Unacceptable:
    return Unacceptable("kit-changed", f"{name} of the kit is not what was packed.", why=why, fix="Take the kit from another copy.")


def _present(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_file() and name.parts[0] != _MADE_HERE and name.as_posix() != SUMS:
            yield name.as_posix()
