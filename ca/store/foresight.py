"""A batch of issuances in few statements: what it will ask is read ahead, what it writes is kept until it must be there.

Owns when statements run; not what they say (`IssuanceWrites`) nor who may do what. A transaction without foresight runs each at once.

Nothing read ahead is believed for longer than it holds. Writers of one database queue (SQLite), or the row is locked or guarded by a constraint
(PostgreSQL); what this transaction writes itself ends the foresight of that thing, and of everything where it is no part of the batch. What was
kept is written, with one statement of each kind for all, before anything else is asked or written, and when the block ends; if a row of it was
not as foreseen, `Overtaken` undoes the block, and its caller goes one by one.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import sqlalchemy as sa

from ca.model import Certificate, CertificateRef, Device, DeviceId, Digest, Intent, Shift, Token, UnixTime
from ca.ports import Overtaken
from ca.store import rows
from ca.store import tables as t
from ca.store.line_rows import LineReads
from ca.store.reads import Parameters, Statement, param
from ca.store.rows import Row
from ca.store.writes_issuance import (
    ADD_DEVICE,
    ADD_NAME,
    CLAIM_KEY,
    RESERVE,
    USE_TOKEN,
    IssuanceWrites,
    device_row,
    key_of_another,
    names_rows,
    reservation_row,
)

T = TypeVar("T")

AT_ONCE = 16
"""Things that one question asks for; fewer are filled up with the last."""

_ASKED = tuple(f"asked_{number}" for number in range(AT_ONCE))


def _among(column: sa.ColumnElement[T]) -> sa.ColumnElement[bool]:
    return column.in_([param(name) for name in _ASKED])


_c = t.certificates.c
REQUESTS_AHEAD = (
    sa.select(*rows.CERTIFICATE_COLUMNS)
    .select_from(rows.CERTIFICATES)
    .where(_among(_c.request_key), sa.text("certificates.state <> 'void'"))
)
CERTIFICATES_AHEAD = sa.select(*rows.CERTIFICATE_COLUMNS).select_from(rows.CERTIFICATES).where(_among(_c.serial))
TOKENS_AHEAD = sa.select(*rows.TOKEN_COLUMNS).where(_among(t.tokens.c.hash))
DEVICES_AHEAD = sa.select(*rows.DEVICE_COLUMNS).where(_among(t.devices.c.id)).with_for_update()
UNITS_AHEAD = sa.select(t.line_units.c.number, t.line_units.c.request_key).where(
    t.line_units.c.shift == param("shift"), _among(t.line_units.c.number)
)
KEYS_AHEAD = sa.select(t.keys.c.spki_sha256, t.keys.c.device).where(_among(t.keys.c.spki_sha256))


@dataclass(slots=True)
class _Seen:
    """What is on record of the things that were named; None where nothing is."""

    requests: dict[Digest, Certificate | None] = field(default_factory=dict)
    certificates: dict[CertificateRef, Certificate | None] = field(default_factory=dict)
    tokens: dict[Digest, Token | None] = field(default_factory=dict)
    devices: dict[DeviceId, Device | None] = field(default_factory=dict)
    keys: dict[Digest, DeviceId | None] = field(default_factory=dict)
    shifts: dict[int, Shift | None] = field(default_factory=dict)
    units: dict[tuple[int, int], Digest | None] = field(default_factory=dict)


class ForeseenWrites(IssuanceWrites, LineReads):
    seen: _Seen | None = None
    queued: list[tuple[Statement, Parameters]]
    """What was told and is not written: the statement and its parameters, each of which changes exactly one row."""

    @contextlib.contextmanager
    def foreseeing(
        self,
        *,
        requests: Sequence[Digest],
        certificates: Sequence[CertificateRef],
        tokens: Sequence[Digest],
        keys: Sequence[Digest],
        units: Sequence[tuple[int, int, DeviceId]] = (),
    ) -> Iterator[None]:
        """See `ca.ports.Writing.foreseeing`. The devices of the tokens and certificates, and the certificates' parents, come with them.

        Raises:
            Overtaken: undo the block to a savepoint around it.
        """
        self.seen = self._look(requests, certificates, tokens, keys, units)
        try:
            yield
            self.flush()
        finally:
            self.seen = None

    @abstractmethod
    def flush(self) -> None:
        """Write what is queued."""

    @abstractmethod
    def _write_each(self, statement: Statement, parameters: Sequence[Parameters]) -> int:
        """As `_change_each`, whatever is queued."""

    def write_queued(self, queued: Sequence[tuple[Statement, Parameters]]) -> None:
        kinds: dict[Statement, list[Parameters]] = {}
        for statement, parameters in queued:
            kinds.setdefault(statement, []).append(parameters)
        for statement, each in kinds.items():
            if self._write_each(statement, each) != len(each):
                raise Overtaken

    def _look(
        self,
        requests: Sequence[Digest],
        certificates: Sequence[CertificateRef],
        tokens: Sequence[Digest],
        keys: Sequence[Digest],
        units: Sequence[tuple[int, int, DeviceId]],
    ) -> _Seen:
        seen = _Seen(requests=dict.fromkeys(requests), tokens=dict.fromkeys(tokens), keys=dict.fromkeys(keys))
        for row in self._ask_ahead(REQUESTS_AHEAD, requests):
            request = rows.certificate_of(row)
            seen.requests[request.request_key] = request
        for row in self._ask_ahead(TOKENS_AHEAD, tokens):
            token = rows.token_of(row)
            seen.tokens[token.hash] = token
        for row in self._ask_ahead(KEYS_AHEAD, keys):
            seen.keys[row[0]] = row[1]
        self._look_at_certificates(seen, certificates)
        parents = [one.parent for one in seen.certificates.values() if one is not None and one.parent is not None]
        self._look_at_certificates(seen, parents)
        shown = [one.device for one in seen.certificates.values() if one is not None]
        made = [device for _, _, device in units]
        devices = sorted({*shown, *made, *(token.device for token in seen.tokens.values() if token is not None)})
        seen.devices = dict.fromkeys(devices)
        for row in self._ask_ahead(DEVICES_AHEAD, devices):
            device = rows.device_of(row)
            seen.devices[device.id] = device
        self._look_at_units(seen, units)
        return seen

    def _look_at_units(self, seen: _Seen, units: Sequence[tuple[int, int, DeviceId]]) -> None:
        seen.units = dict.fromkeys((shift, number) for shift, number, _ in units)
        for shift in {shift for shift, _, _ in units}:
            seen.shifts[shift] = super().find_shift(shift)
            numbers = [number for of, number, _ in units if of == shift]
            for number, key in self._ask_ahead(UNITS_AHEAD, numbers, shift=shift):
                seen.units[shift, number] = Digest(bytes(key))

    def _look_at_certificates(self, seen: _Seen, refs: Sequence[CertificateRef]) -> None:
        seen.certificates |= dict.fromkeys(refs)
        for row in self._ask_ahead(CERTIFICATES_AHEAD, [rows.octets_of(ref.serial) for ref in refs]):
            found = rows.certificate_of(row)
            if found.ref in seen.certificates:
                seen.certificates[found.ref] = found

    def _ask_ahead(self, statement: Statement, things: Sequence[bytes | str | int], **more: int) -> Iterator[Row]:
        for start in range(0, len(things), AT_ONCE):
            some = list(things[start : start + AT_ONCE])
            some += some[-1:] * (AT_ONCE - len(some))
            yield from self._all(statement, dict(zip(_ASKED, some, strict=True)) | more)

    # ---- Asked inside the block

    def find_by_request(self, request_key: Digest) -> Certificate | None:
        seen = self.seen
        if seen is None or request_key not in seen.requests:
            return super().find_by_request(request_key)
        return seen.requests.pop(request_key)

    def find_certificate(self, ref: CertificateRef) -> Certificate | None:
        seen = self.seen
        return super().find_certificate(ref) if seen is None or ref not in seen.certificates else seen.certificates[ref]

    def find_token(self, token: Digest) -> Token | None:
        seen = self.seen
        return super().find_token(token) if seen is None or token not in seen.tokens else seen.tokens[token]

    def find_shift(self, number: int) -> Shift | None:
        seen = self.seen
        return super().find_shift(number) if seen is None or number not in seen.shifts else seen.shifts[number]

    def find_unit(self, shift: int, number: int) -> Digest | None:
        seen = self.seen
        return super().find_unit(shift, number) if seen is None or (shift, number) not in seen.units else seen.units[shift, number]

    def lock_device(self, device: DeviceId) -> Device | None:
        seen = self.seen
        return super().lock_device(device) if seen is None or device not in seen.devices else seen.devices[device]

    # ---- Told inside the block

    def use_token(self, token: Digest, *, request_key: Digest, now: UnixTime) -> None:
        known = None if self.seen is None else self.seen.tokens.pop(token, None)
        if known is None or known.used_at is not None or known.revoked_at is not None:
            super().use_token(token, request_key=request_key, now=now)
        else:
            self.queued.append((USE_TOKEN, {"the_hash": token, "request_key": request_key, "now": now}))

    def add_device(self, device: Device) -> None:
        if self.seen is None or self.seen.devices.pop(device.id, device) is not None:
            super().add_device(device)
        else:
            self.queued.append((ADD_DEVICE, device_row(device)))

    def claim_key(self, spki_sha256: Digest, device: DeviceId, *, now: UnixTime) -> bool:
        seen = self.seen
        if seen is None or spki_sha256 not in seen.keys:
            return super().claim_key(spki_sha256, device, now=now)
        owner = seen.keys[spki_sha256]
        if owner is None:
            del seen.keys[spki_sha256]
            self.queued.append((CLAIM_KEY, {"spki_sha256": spki_sha256, "device": device, "claimed_at": now}))
        elif owner != device:
            raise key_of_another()
        return owner is None

    def reserve(self, intent: Intent, *, tenant: str, revocable: bool, leaf: Digest) -> None:
        if self.seen is None:
            super().reserve(intent, tenant=tenant, revocable=revocable, leaf=leaf)
            return
        self.queued.append((RESERVE, reservation_row(intent, tenant=tenant, revocable=revocable, leaf=leaf)))
        self.queued += [(ADD_NAME, row) for row in names_rows(intent)]
