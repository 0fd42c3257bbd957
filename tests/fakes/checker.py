"""What the signer's checker does, done at once in the thread that asks."""

from __future__ import annotations

from collections.abc import Sequence

from ca.der.csr import read_csr
from ca.errors import FleetcaError
from ca.model import Draft
from ca.rules.reread import verify_signed
from ca.signer.checker import Outcome, Told


class InPlace:
    def start(self) -> None:
        pass

    def close(self) -> None:
        pass

    def read(self, csrs: Sequence[bytes], told: Told) -> None:
        found: list[Outcome] = []
        for der in csrs:
            try:
                found.append(read_csr(der))
            except FleetcaError as error:
                found.append(error)
        told(found)

    def reread(self, finished: Sequence[tuple[Draft, bytes, bytes]], told: Told) -> None:
        found: list[Outcome] = []
        for draft, der, spki in finished:
            try:
                found.append(verify_signed(draft, der, spki))
            except FleetcaError as error:
                found.append(error)
        told(found)
