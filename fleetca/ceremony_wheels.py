"""Installed distributions packed into wheels again: what was tested here is what is carried. Edge: effects only, no rule.

Every file is held against the hash that its installer wrote down (RECORD) before it is packed; a wheel of the same files is the same octets
wherever it is packed. Needs no network and no index.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from ca.errors import Misconfigured, Unacceptable
from fleetca.ceremony_host import software_files

OURS: Final = "fleetca"
EXTRAS: Final = ("ceremony", "hsm")
"""Carried where they are installed."""

_NOT_CARRIED: Final = frozenset(("INSTALLER", "REQUESTED", "direct_url.json", "RECORD", "RECORD.jws", "uv_cache.json"))
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel."""

    name: str
    version: str
    file: str
    octets: bytes

    @property
    def sha256(self) -> str:
        """For pip's --require-hashes."""
        return hashlib.sha256(self.octets).hexdigest()


def wheels() -> tuple[Wheel, ...]:
    """The program and everything it needs, by name.

    Raises:
        Unacceptable: an installed file is not what its installer wrote (`wheel-changed`).
        Misconfigured: something it needs is not installed (`wheel-missing`).
    """
    return tuple(_packed(each) for _, each in sorted(_needed().items()))


def _needed() -> Mapping[str, Distribution]:
    found: dict[str, Distribution] = {}
    waiting: list[tuple[str, tuple[str, ...]]] = [(OURS, EXTRAS)]
    while waiting:
        name, extras = waiting.pop()
        key = _normal(name)
        if key in found and not extras:
            continue
        found[key] = known = distribution(name)
        for text in known.requires or ():
            needed, marker = _requirement(text)
            if "extra" in marker and not any(re.search(rf"extra\s*==\s*['\"]{extra}['\"]", marker) for extra in extras):
                continue
            try:
                distribution(needed)
            except PackageNotFoundError:
                if marker:
                    continue  # for another platform, another Python, or an extra that is not here
                raise Misconfigured(
                    "wheel-missing", f"{name} needs {needed}, which is not installed.", fix="Install fleetca anew from its lock."
                ) from None
            if _normal(needed) not in found:
                waiting.append((needed, ()))
    return found


def _requirement(text: str) -> tuple[str, str]:
    match = _NAME.match(text)
    assert match is not None, "metadata names what it requires"
    return match[0], text.partition(";")[2].strip()


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _packed(known: Distribution) -> Wheel:
    name, version = known.metadata["Name"], known.version
    stem = f"{re.sub(r'[-_.]+', '_', name)}-{version}"
    ours = _normal(name) == OURS
    members = dict(_own_members(known, stem) if ours else _members(known))
    tags = ("py3-none-any",) if ours else _tags(known)
    return Wheel(name, version, f"{stem}-{_compressed(tags)}.whl", _zipped(members, f"{stem}.dist-info" if ours else _info(members)))


def _own_members(known: Distribution, stem: str) -> Iterator[tuple[str, bytes]]:
    """Of the program itself the very files that run, also where it is installed from a checkout."""
    yield from software_files()
    for name in ("METADATA", "entry_points.txt"):
        yield f"{stem}.dist-info/{name}", (known.read_text(name) or "").encode()
    yield f"{stem}.dist-info/WHEEL", b"Wheel-Version: 1.0\nGenerator: fleetca ceremony kit\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def _members(known: Distribution) -> Iterator[tuple[str, bytes]]:
    for file in known.files or ():
        path = file.as_posix()
        if path.startswith("../") or "__pycache__" in file.parts or (file.name in _NOT_CARRIED and file.parts[0].endswith(".dist-info")):
            continue
        octets = Path(str(file.locate())).read_bytes()
        if file.hash is None or file.hash.mode != "sha256" or file.hash.value != _record_hash(octets):
            raise Unacceptable(
                "wheel-changed",
                f"{path} of {known.metadata['Name']} is not what was installed.",
                why="Its hash is not the one in RECORD.",
                fix="Install fleetca anew from its lock, then make the kit again.",
            )
        yield path, octets


def _record_hash(octets: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(octets).digest()).decode().rstrip("=")


def _tags(known: Distribution) -> tuple[str, ...]:
    text = known.read_text("WHEEL") or ""
    return tuple(line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("Tag:"))


def _compressed(tags: Sequence[str]) -> str:
    """`cp39-abi3-a` and `cp39-abi3-b` are `cp39-abi3-a.b` in a file name (PEP 425)."""
    columns = zip(*(tag.split("-") for tag in tags), strict=True)
    return "-".join(".".join(dict.fromkeys(column)) for column in columns)


def _info(members: Mapping[str, bytes]) -> str:
    return next(path.partition("/")[0] for path in members if path.partition("/")[0].endswith(".dist-info"))


def _zipped(members: Mapping[str, bytes], info: str) -> bytes:
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    for path, octets in sorted(members.items()):
        rows.writerow((path, f"sha256={_record_hash(octets)}", len(octets)))
    rows.writerow((f"{info}/RECORD", "", ""))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path, octets in [*sorted(members.items()), (f"{info}/RECORD", record.getvalue().encode())]:
            entry = zipfile.ZipInfo(path, _EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, octets)
    return out.getvalue()
