"""What a relying party remembers: the very octets that it once believed, so that they can be believed again, and nothing else can.

In a folder, or in memory only. A file that is damaged or forged is no memory: its signature is checked each time.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ca.model import UnixTime


@dataclass(frozen=True, slots=True)
class Remembered:
    """What was believed, and when."""

    kind: str
    """`ocsp` or `crl`."""
    octets: bytes
    at: UnixTime


class Memory:
    """Safe to share between processes: files are written whole.

    Args:
        folder: None: this process's memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._here: dict[str, Remembered] = {}

    def get(self, name: str) -> Remembered | None:
        """What was kept under a name."""
        if self._folder is None:
            return self._here.get(name)
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(self._file(name).read_bytes())
            return Remembered(str(found["kind"]), b64decode(found["octets"], validate=True), int(found["at"]))
        return None

    def keep(self, name: str, one: Remembered) -> None:
        """Remember it in place of what was there; a folder that cannot be written is no reason to fail."""
        if self._folder is None:
            self._here[name] = one
            return
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            file = self._file(name)
            new = file.with_suffix(".new")
            new.write_text(json.dumps({"kind": one.kind, "octets": b64encode(one.octets).decode(), "at": one.at}))
            new.replace(file)

    def _file(self, name: str) -> Path:
        assert self._folder is not None, "asked where there is one"
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()}.json"
