"""The factory line's verbs behind the signer's socket. Edge: contains no rule.

A station's file comes as an open descriptor and is read beside the desk, one at a time: judging a hundred thousand units must not hold up issuing.
Certificates of units are asked for many at once, and each passes the desk like any other.
"""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from ca.errors import FleetcaError, StoreUnavailable
from ca.model import Issued, IssueRequest, Peer, ShiftRequest, TenantId, UnitEvidence, UnitPart
from ca.provision import Provisioning
from ca.rules import forms, line
from ca.signer import messages
from ca.signer.desk import Desk, Log

PIECE: Final = 1 << 18
MOST_AT_ONCE: Final = 512
"""Units in one request: their answer is some hundred kilobytes long."""


class LineDesk:
    """The handlers."""

    def __init__(self, provisioning: Provisioning, desk: Desk, log: Log) -> None:
        self._provisioning, self._desk, self._log = provisioning, desk, log
        self._reading = threading.Lock()
        self.handlers: Mapping[str, Callable[[dict[str, Any], Peer, int | None], Any]] = {
            "add-station": self._add_station,
            "open-shift": self._open_shift,
            "take-units": self._take,
            "take-part": self._take_part,
            "seal-records": self._seal,
        }

    def _add_station(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        name, spki = forms.read(str, body.get("name")), forms.read(bytes, body.get("spki"))
        tenant = None if body.get("tenant") is None else TenantId(forms.read(str, body["tenant"]))
        made = self._desk.do(lambda: self._provisioning.add_station(name, spki, peer, tenant=tenant))
        self._log.info("station-added", uid=peer.uid, station=made.name)
        return made

    def _open_shift(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        asked = forms.read(ShiftRequest, _plain(body))
        shift, header = self._desk.do(lambda: self._provisioning.open_shift(asked, peer))
        self._log.info(
            "shift-opened",
            uid=peer.uid,
            shift=shift.number,
            station=shift.station,
            operator=shift.operator,
            profile=shift.profile,
            count=shift.count,
        )
        return {"shift": forms.write(shift), "header": forms.write(header)}

    def _take(self, _: dict[str, Any], peer: Peer, descriptor: int | None) -> Any:
        if descriptor is None:
            raise forms.bad("A station's file comes as an open file with the request.")
        with self._reading:
            made = self._provisioning.take(_pieces(descriptor), peer)
        self._log.info("units-taken", uid=peer.uid, shift=made.number, station=made.station, taken=made.taken)
        return made

    def _take_part(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        part = forms.read(UnitPart, _plain(body))
        with self._reading:
            made = self._provisioning.take_part(part, peer)
        self._log.info("units-taken", uid=peer.uid, shift=made.number, station=made.station, taken=made.taken)
        return made

    def _seal(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        name, records = forms.read(str, body.get("station")), forms.read(tuple[str, ...], body.get("records"))
        with self._reading:
            made = self._provisioning.seal(name, [each.encode() for each in records], peer)
        self._log.info("records-sealed", uid=peer.uid, station=made.station, count=made.count)
        return made


def _plain(body: Mapping[str, Any]) -> dict[str, Any]:
    """Without what the signer put beside it."""
    return {name: value for name, value in body.items() if not name.startswith("\0")}


def _pieces(descriptor: int) -> Iterator[bytes]:
    """What an open file holds, and no more of it than a shift can have."""
    left = line.MOST_UNITS * 4096
    while left > 0:
        try:
            piece = os.read(descriptor, PIECE)
        except OSError as error:
            raise StoreUnavailable("unreadable-file", "The station's file cannot be read.", why=f"{error.strerror}.") from None
        if not piece:
            return
        left -= len(piece)
        yield piece
    raise line.bad("line-form", "It is longer than the file of any shift.")


def read_units(body: Mapping[str, Any]) -> list[IssueRequest]:
    """The requests for certificates that lines of a station's file are."""
    if body.keys() != {"shift", "lines"}:
        raise forms.bad("It takes shift and lines.")
    shift, texts = forms.read(int, body["shift"]), forms.read(tuple[str, ...], body["lines"])
    if not 1 <= len(texts) <= MOST_AT_ONCE:
        raise forms.bad(f"1 to {MOST_AT_ONCE} units are asked for at once.")
    return [request_for(shift, text.encode()) for text in texts]


def request_for(shift: int, text: bytes) -> IssueRequest:
    """What a unit's line asks for."""
    return IssueRequest(line.read_unit(text).csr, UnitEvidence(shift, text))


def write_outcomes(outcomes: Sequence[Issued | FleetcaError]) -> list[Any]:
    """As they travel: a certificate as base64 of its DER, a refusal as an error."""
    return [
        messages.write_error(one) if isinstance(one, FleetcaError) else base64.b64encode(one.certificate.der or b"").decode()
        for one in outcomes
    ]


class Gathered:
    """Outcomes that come one by one, from any thread, and are told together."""

    def __init__(self, count: int, told: Callable[[Sequence[Any]], None]) -> None:
        self._outcomes: list[Any] = [None] * count
        self._missing = count
        self._told = told
        self._lock = threading.Lock()

    def at(self, place: int) -> Callable[[Any], None]:
        """Where the outcome of one goes."""

        def answer(outcome: Any) -> None:
            with self._lock:
                self._outcomes[place] = outcome
                self._missing -= 1
                last = self._missing == 0
            if last:
                self._told(self._outcomes)

        return answer
