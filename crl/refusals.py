"""CRLs that the gate refused, kept for people to look at. Ring 3.

The first one refused over a published CRL stays until another CRL is published, so that two people look at the same one: `NAME.refused` and `NAME.json`.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ca.errors import Broken
from ca.model import CrlIntent, Digest
from ca.ports import Readable
from ca.rules import forms

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Refused:
    """One that was refused."""

    path: Path
    """Its octets."""
    intent: CrlIntent
    code: str
    what: str
    over: str | None
    """The version of the CRL that readers kept."""

    @property
    def tbs_sha256(self) -> Digest:
        return self.intent.tbs_sha256


class RefusedFolder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, name: str, stage: Readable, intent: CrlIntent, error: Broken, *, over: str | None) -> None:
        """Keep the first that was refused over this published CRL. A disk that does not take it costs only that."""
        held = self.held(name)
        if held is not None and held.over == over:
            return
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.forget(name)
            with (self._folder / f"{name}.refused").open("wb") as file:
                file.writelines(stage.read(start, _PIECE) for start in range(0, stage.size, _PIECE))
            said = {"intent": forms.write(intent), "code": error.code, "what": str(error), "over": over}
            (self._folder / f"{name}.json").write_text(json.dumps(said))

    def held(self, name: str) -> Refused | None:
        try:
            said = json.loads((self._folder / f"{name}.json").read_text())
        except (OSError, ValueError):
            return None
        path = self._folder / f"{name}.refused"
        if not path.is_file():
            return None
        return Refused(path, forms.read(CrlIntent, said["intent"]), said["code"], said["what"], said["over"])

    def forget(self, name: str) -> None:
        for path in (self._folder / f"{name}.json", self._folder / f"{name}.refused"):
            with suppress(OSError):
                path.unlink(missing_ok=True)
