"""The software bill of materials: this package and all that it was installed with, as CycloneDX 1.6 (ECMA-424), JSON. Edge: reads what pip wrote.

Names what is installed here, not what a lock allows: that is what runs. A dependency that an extra wants and that is not installed is not in it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from ca.model import UnixTime

OURS: Final = ("ca", "config", "crl", "enroll", "fleetca", "ocsp")
_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^\]]*)\])?")
_EXTRA: Final = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")


def document(name: str, *, serial: str, now: UnixTime) -> Mapping[str, Any]:
    """The bill.

    Args:
        name: the package that it is about.
        serial: a UUID for this very document.
        now: when.
    """
    found = _closure(name)
    own, _ = found[_normal(name)]
    components = [_component(one) for key, (one, _) in sorted(found.items()) if key != _normal(name)]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {**_component(own), "type": "application", "hashes": [{"alg": "SHA-256", "content": sources_sha256()}]},
        },
        "components": components,
        "dependencies": [
            {"ref": _purl(one), "dependsOn": sorted(_purl(found[other][0]) for other in wanted & found.keys())}
            for _, (one, wanted) in sorted(found.items())
        ],
    }


def sources_sha256() -> str:
    """Over name and SHA-256 of each file of our packages: two machines with the same software have the same."""
    lines = []
    for package in OURS:
        spec = find_spec(package)
        assert spec is not None and spec.submodule_search_locations is not None, "our packages are installed together"
        root = Path(spec.submodule_search_locations[0])
        files = [path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        lines += [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {package}/{path.relative_to(root).as_posix()}\n" for path in files]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _closure(name: str) -> dict[str, tuple[Distribution, set[str]]]:
    """Each package with what it wants: with all our extras, and of others those that are asked for."""
    own = distribution(name)
    extras: dict[str, set[str]] = {_normal(name): set(own.metadata.get_all("Provides-Extra") or ())}
    found: dict[str, tuple[Distribution, set[str]]] = {}
    waiting = [_normal(name)]
    while waiting:
        one = waiting.pop()
        try:
            known = distribution(one)
        except PackageNotFoundError:
            continue
        wanted = dict(_wanted(known, extras.get(one, set())))
        found[one] = (known, set(wanted))
        for other, more in wanted.items():
            if other not in found or more - extras.get(other, set()):
                extras[other] = extras.get(other, set()) | more
                waiting.append(other)
    return found


def _wanted(one: Distribution, extras: set[str]) -> Iterator[tuple[str, set[str]]]:
    """(package, extras of it) for each requirement that counts with these extras (PEP 508)."""
    for line in one.requires or ():
        match = _REQUIREMENT.match(line)
        asked = set(_EXTRA.findall(line))
        if match is not None and (not asked or asked & extras):
            yield _normal(match[1]), {extra.strip() for extra in (match[2] or "").split(",") if extra.strip()}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _purl(one: Distribution) -> str:
    return f"pkg:pypi/{_normal(one.metadata['Name'])}@{one.version}"


def _component(one: Distribution) -> dict[str, Any]:
    said = next((one.metadata[name] for name in ("License-Expression", "License") if name in one.metadata), "")
    # Some put a whole licence there: its first line names it.
    licence = said.strip().split("\n")[0][:100]
    return {
        "type": "library",
        "bom-ref": _purl(one),
        "name": one.metadata["Name"],
        "version": one.version,
        "purl": _purl(one),
        **({"licenses": [{"license": {"name": licence}}]} if licence else {}),
    }
