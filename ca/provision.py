"""The factory line as the signer sees it: stations, the shifts that operators open at them, the units that they bring, and the records that the CA
countersigns. Knows rules and ports only.

    open_shift   an operator's own signature in, a signed quota out: what a station may do while nobody reaches us
    take         a station's whole file, judged to its last line before any of it counts; then each unit's request key stands on record
    take_part    the units that follow those that were taken, under a seal of their own: the same from far away, some at a time
    (issue)      `ca.issue`, by evidence of kind `unit`: the same door, the same batches, the same checks as for everybody
    seal         provisioning records whose certificates are on record, countersigned

Quotas and countersignatures are signed by the issuing key, over contexts that no certificate, CRL or message begins with. Their intents are committed, in
the log and in the journal before the key is asked (P1, P8). A crash in between leaves an intent without a signature; asking again signs the same octets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Final

from ca import line_rows, lineage
from ca.errors import Conflict, Denied, FleetcaError, KeyUnavailable, Malformed, NotFound, Unacceptable, Unavailable
from ca.issue import no_failpoint
from ca.lineage import Issuers
from ca.model import (
    CertificateRef,
    Digest,
    IssuerId,
    Peer,
    RecordSeal,
    Role,
    Serial,
    Shift,
    ShiftRequest,
    Station,
    TenantId,
    UnitPart,
    UnixTime,
)
from ca.ports import Clock, Failpoint, Ledger, SigningKey, Writing
from ca.rules import evidence, grant, line, permission, provisioning, testimony
from ca.rules.clock import trusted
from ca.rules.issuers import newest
from ca.rules.key_quality import accepted_key
from ca.rules.window import last_second
from ca.witness import Witness

SHORTEST: Final = 60
"""Seconds of a shift."""
AT_ONCE: Final = 2000
"""Units that one transaction writes: issuing waits some milliseconds for it."""
MOST_LINES: Final = 512
"""Units of a part."""
MOST_RECORDS: Final = 1000
"""In one request to countersign."""


class Provisioning:
    """The verb. `take` belongs to one thread at a time.

    Args:
        keys: the opened issuing keys.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        witness: Witness,
        keys: Mapping[IssuerId, SigningKey],
        issuers: Issuers,
        policy: grant.Policy,
        clock: Clock,
        failpoint: Failpoint = no_failpoint,
    ) -> None:
        self._failpoint = failpoint
        self._ledger, self._witness, self._keys, self._issuers, self._policy, self._clock = ledger, witness, keys, issuers, policy, clock

    # ---- Stations and shifts ----------------------------------------------------------------------------------------

    def add_station(self, name: str, spki: bytes, peer: Peer, *, tenant: TenantId | None = None) -> Station:
        """A new station and its key; the same one again is harmless.

        Args:
            tenant: whose it is; None: the house's.

        Raises:
            Denied: who asks is no operator of this machine.
            NotFound: there is no such tenant.
            Conflict: there is one of that name with another key (`station-exists`), or the key is in use (`key-of-another-device`).
            Malformed, Unacceptable: the name or the key is none that can be taken.
        """
        actor, owner = _actor(peer), self._policy.seen_by(self._policy.tenant if tenant is None else tenant).tenant
        key = accepted_key(spki)
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            found = tx.find_station(line.station_name(name))
            if found is not None:
                if found.spki != key.spki or found.tenant != owner:
                    raise Conflict("station-exists", f"There is a station {name} already, with another key.", fix="Choose another name.")
                return found
            station = Station(name, owner, key.spki, now)
            said = testimony.StationKnown(station, actor)
            line_rows.add_station(tx, said)
        self._tell(said)
        return station

    def open_shift(self, request: ShiftRequest, peer: Peer) -> tuple[Shift, bytes]:
        """An operator logs in: the shift, and the first line of its station's file. The same message again opens the same shift.

        Raises:
            Denied, Unauthenticated: who asks may not, or the station has another key (`station-key-differs`).
            NotFound: there is no such station (`no-such-station`).
            Malformed: no such count or lifetime (`bad-shift`).
        """
        claim = evidence.claim(evidence.Verb.open_shift, request.evidence, peer, deployment=self._policy.deployment, now=self._clock.now())
        if not 1 <= request.count <= line.MOST_UNITS or not SHORTEST <= request.lifetime <= line.LONGEST_SHIFT:
            raise Malformed(
                "bad-shift", f"A shift has 1 to {line.MOST_UNITS} units, and lasts {SHORTEST} s to {line.LONGEST_SHIFT // 86400} days."
            )
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            record = self._issuers.record_of(claim, tx)
            asker = lineage.operator_of(record, tx)
            operator, tenant = permission.open_shift(claim, request, self._policy, record=record, operator=asker, now=now)
            station = self._station(tx, request.station, tenant)
            if hashlib.sha256(station.spki).digest() != request.station_key:
                raise Denied("station-key-differs", f"The station {station.name} is known by another key.")
            shift = tx.find_shift_of(claim.digest)
            if shift is None:
                issuer = self._signing(tenant, now)
                ends = last_second(now, request.lifetime)
                shift = Shift(
                    number=tx.last_shift() + 1,
                    tenant=tenant,
                    station=station.name,
                    station_key=request.station_key,
                    operator=operator,
                    profile=request.profile,
                    issuer=issuer,
                    count=request.count,
                    not_before=now,
                    not_after=ends,
                    accept_until=ends + line.GRACE,
                    request=claim.digest,
                )
                said = testimony.ShiftOpened(shift, self._quota(shift), f"operator:{operator}")
                line_rows.add_shift(tx, said)
                tx.raise_high_time(now)
                self._witness.later([said])
        quota = self._quota(shift)
        if not shift.signature:
            shift = replace(shift, signature=self._signed(shift.issuer, line.quota_octets(quota)))
            with self._ledger.writing() as tx:
                tx.set_shift(replace(tx.find_shift(shift.number) or shift, signature=shift.signature))
        return shift, line.header(quota, shift.signature)

    def _quota(self, shift: Shift) -> bytes:
        return line.quota_of(shift, deployment=self._policy.deployment)

    def _station(self, tx: Writing, name: str, tenant: TenantId | None = None) -> Station:
        """Of this tenant; None: of any."""
        found = tx.find_station(name)
        if found is None or tenant not in {None, found.tenant}:
            raise NotFound("no-such-station", f"There is no station {name!r}.", fix="Add it: fleetca line station NAME --key FILE")
        return found

    # ---- Units ------------------------------------------------------------------------------------------------------

    def take(self, pieces: Iterable[bytes], peer: Peer) -> Shift:
        """A station's file, whole, in pieces of any size: the shift as it is then. Nothing of a file counts that does not hold to its end.

        Asked again with the same file, or with what it grew to, it goes on; so after a crash.

        Raises:
            Malformed, Unauthenticated: it is not as its station made it (`ca.rules.line`).
            Denied: it is of no shift of ours (`shift-unknown`), or its operator was disabled (`operator-unknown`).
            Unacceptable: over the quota (`quota-exceeded`), made after the shift's end (`shift-over`), or brought too late (`shift-closed`).
            Conflict: what it says of units that were taken is not what stands on record (`line-forked`), or it is an older copy (`line-replayed`).
        """
        actor = _actor(peer)
        text = line.lines(pieces)
        reader = line.Reader(next(text, b""))
        shift, station, begin = self._known(reader.header)
        keys: dict[int, Digest] = {}
        if shift.taken == 0:
            shift = replace(shift, head=reader.head)
        for unit, each in reader.walk(text, shift):
            if unit.number > begin:
                keys[unit.number] = evidence.unit_key(shift.number, each, unit.csr)
            if unit.number == shift.taken and reader.head != shift.head:
                raise _forked(shift)
        line.check_seal(reader.header.quota, reader.finish(), station.spki)
        if reader.count < shift.taken:
            raise Conflict(
                "line-replayed",
                f"The file has {reader.count} units of shift {shift.number}, and {shift.taken} were taken already.",
                why="It is an older copy.",
                fix="Bring the file as the station has it now.",
            )
        return self._take(shift, reader, keys, actor=actor)

    def take_part(self, part: UnitPart, peer: Peer) -> Shift:
        """Some units of a shift, in their order, under a seal over all up to the last of them: the shift as it is then.

        What it begins with may have been taken before and is then compared with what stands on record; so the same part again is harmless, and one
        that goes further goes on.

        Raises:
            Malformed, Unauthenticated, Denied, Unacceptable: as `take`; or it is empty or too long (`bad-request`).
            Conflict: as `take`; or units are missing between those that were taken and its first (`line-gap`), or were taken and are no longer
                known one by one (`line-forgotten`).
        """
        actor = _actor(peer, Role.enroll)
        if not 1 <= len(part.lines) <= MOST_LINES or part.first < 1:
            raise Malformed("bad-request", f"A part has 1 to {MOST_LINES} units.")
        header = line.read_header(part.header.encode())
        shift, station, begin = self._known(header)
        lines = [each.encode() for each in part.lines]
        old = shift.taken + 1 - part.first
        if old < 0:
            raise Conflict(
                "line-gap", f"The part begins with unit {part.first} of shift {shift.number}, and {shift.taken} were taken.",
                fix="Bring the units between them first: fleetca line reconcile",
            )  # fmt: skip
        if old > 0:
            if not begin:
                raise Conflict(
                    "line-forgotten", f"The units of shift {shift.number} that were taken are known by their number only.",
                    why="The database was lost, and is as the journal tells.",
                    fix="Bring the station's whole file at the machine of the CA: fleetca line reconcile",
                )  # fmt: skip
            self._compare(shift, part.first, lines[:old])
        new = lines[old:]
        if not new:
            return shift
        reader = line.Reader(part.header.encode(), count=shift.taken, head=shift.head if shift.taken else None)
        keys = {unit.number: evidence.unit_key(shift.number, each, unit.csr) for unit, each in reader.walk(new, shift)}
        reader.feed(part.seal.encode())
        line.check_seal(header.quota, reader.finish(), station.spki)
        return self._take(shift, reader, keys, actor=actor)

    def _compare(self, shift: Shift, first: int, lines: Sequence[bytes]) -> None:
        with self._ledger.writing() as tx:
            for number, each in enumerate(lines, first):
                unit = line.read_unit(each)
                if unit.number != number or tx.find_unit(shift.number, number) != evidence.unit_key(shift.number, each, unit.csr):
                    raise _forked(shift)

    def _known(self, header: line.Header) -> tuple[Shift, Station, int]:
        """The shift and the station of a file, and how many of its units need not be written."""
        with self._ledger.writing() as tx:
            shift = tx.find_shift(int(header.words["shift"]))
            if shift is None or self._quota(shift) != header.quota:
                raise Denied("shift-unknown", "The file is of no shift that was opened here.", fix="See: fleetca line shifts")
            station = self._station(tx, shift.station)
            operator = tx.find_operator(shift.operator)
            if operator is None or operator.disabled_at is not None:
                raise Denied("operator-unknown", "There is no such operator, or it is disabled.", why=f"The shift is of {shift.operator}.")
            # A database that was set back knows from the journal how far a shift had come, and not the units.
            begin = shift.taken if shift.taken and tx.find_unit(shift.number, shift.taken) is not None else 0
        return shift, station, begin

    def _take(self, shift: Shift, reader: line.Reader, keys: Mapping[int, Digest], *, actor: str) -> Shift:
        after = replace(shift, taken=reader.count, head=reader.head)
        rows = iter(keys.items())
        while chunk := dict(islice(rows, AT_ONCE)):
            # They count once the shift says so.
            with self._ledger.writing() as tx:
                tx.set_units(shift.number, chunk)
            self._failpoint("line.after-units")
        if reader.count == shift.taken:
            return after
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            if now > shift.accept_until:
                raise Unacceptable(
                    "shift-closed",
                    f"Shift {shift.number} of station {shift.station} takes no more units.",
                    why="It ended too long ago.",
                    fix="Provision the units again in another shift.",
                )
            found = tx.find_shift(shift.number)
            if found is None or found.taken != shift.taken:
                raise Conflict("shift-changed", "Somebody else brought units of the same shift meanwhile.", fix="Run the command again.")
            after = replace(found, taken=reader.count, head=reader.head)
            said = testimony.UnitsTaken(shift.number, after.taken, after.head, now, actor)
            line_rows.take(tx, after, said, first=shift.taken + 1)
            tx.raise_high_time(now)
        self._failpoint("line.after-take")
        self._tell(said)
        return after

    # ---- Records ----------------------------------------------------------------------------------------------------

    def seal(self, name: str, documents: Sequence[bytes], peer: Peer) -> RecordSeal:
        """Countersign the provisioning records of a station, which follow what was countersigned before or overlap with its end.

        Where all of them were countersigned, the countersignature over as many; who cannot show the last of these learns nothing by it.

        Raises:
            Denied: who asks may not.
            NotFound: no such station (`no-such-station`).
            Unacceptable: they do not follow, or do not hold (`record-chain`), or one tells of a certificate that is not on record (`record-certificate`).
        """
        actor = _actor(peer, Role.enroll)
        if not 1 <= len(documents) <= MOST_RECORDS:
            raise Malformed("bad-request", f"1 to {MOST_RECORDS} records are countersigned at once.")
        records = [provisioning.read(each) for each in documents]
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            station = self._station(tx, name)
            found = _sealed_before(tx, station, records)
            seal = found if found is not None else self._seal(tx, station, _fresh(station, records), actor=actor, now=now)
        if not seal.signature:
            octets = provisioning.seal_octets(seal.station, seal.count, seal.last)
            seal = replace(seal, signature=self._signed(seal.issuer, octets))
            with self._ledger.writing() as tx:
                tx.set_record_seal(seal)
        return seal

    def _seal(self, tx: Writing, station: Station, records: Sequence[provisioning.Record], *, actor: str, now: UnixTime) -> RecordSeal:
        wrong = provisioning.judge(records, station_spki=station.spki, after=(station.sealed, station.last or provisioning.FIRST))
        wrong += [
            f"Record {at} is not of station {station.name}."
            for at, one in enumerate(records, 1)
            if one.ours and one.ours.station != station.name
        ]
        if wrong:
            raise Unacceptable("record-chain", f"The provisioning records do not hold: {len(wrong)} findings.", why=" ".join(wrong[:20]))
        for record in records:
            _on_record(tx, record, station.tenant)
        seal = RecordSeal(station.name, station.sealed + len(records), records[-1].digest, self._signing(station.tenant, now), now)
        said = testimony.RecordsSealed(seal, actor)
        line_rows.seal(tx, station, said)
        tx.raise_high_time(now)
        self._witness.later([said])
        return seal

    # ---- Signing ----------------------------------------------------------------------------------------------------

    def _signing(self, tenant: TenantId, now: UnixTime) -> IssuerId:
        """The issuer of a tenant that signs now; its key is here."""
        name = newest(self._issuers.by_id, self._policy.seen_by(tenant).default_issuer, now=now)
        self._key(name)
        return name

    def _key(self, name: IssuerId) -> SigningKey:
        if name not in self._keys:
            raise KeyUnavailable("no-issuing-key", f"The key of issuer {name!r} is not here.", fix="See: fleetca doctor")
        return self._keys[name]

    def _signed(self, issuer: IssuerId, octets: bytes) -> bytes:
        """The intent is committed; it comes to the journal before the key is asked."""
        from ca.der.algorithms import load_public_key, verify  # noqa: PLC0415

        key = self._key(issuer)
        self._failpoint("line.after-intent")
        self._witness.settle()
        signature = key.sign(octets)
        self._failpoint("line.after-sign")
        verify(load_public_key(key.spki), signature, octets)
        return signature

    def _tell(self, said: testimony.Record) -> None:
        self._witness.later([said])
        with suppress(Unavailable):
            # Committed and in force already.
            self._witness.settle()


def _actor(peer: Peer, *also: Role) -> str:
    """Who brings it. What carries a station's own signature may come through the web process (`also`): it can neither make nor change it."""
    if peer.role not in {Role.operator, *also}:
        raise Denied("not-allowed", f"Role {peer.role.value} brings nothing from a factory line.")
    return f"role:{peer.role.value}@{peer.uid}"


def _forked(shift: Shift) -> FleetcaError:
    return Conflict(
        "line-forked",
        f"The file tells another story of shift {shift.number} than the one that was taken.",
        why=f"Its first {shift.taken} units are not those on record: the station's file was made anew, or is of a copied station.",
        fix="Find out which units are real; the file that was taken is the one that counts.",
    )


def _number(record: provisioning.Record) -> int:
    return 0 if record.ours is None else record.ours.number


def _sealed_before(tx: Writing, station: Station, records: Sequence[provisioning.Record]) -> RecordSeal | None:
    """The countersignature that covers these records, where there is one: their station signed them, so it may know how many there are."""
    first, last = records[0], records[-1]
    if first.ours is None or not 1 <= _number(first) <= _number(last) <= station.sealed:
        return None
    if provisioning.judge(records, station_spki=station.spki, after=(_number(first) - 1, first.ours.previous)):
        return None
    found = next(iter(tx.record_seals(station.name, above=_number(last) - 1, limit=1)), None)
    return None if found is None or (found.count == _number(last) and found.last != last.digest) else found


def _fresh(station: Station, records: Sequence[provisioning.Record]) -> Sequence[provisioning.Record]:
    """Those that follow what was countersigned. What overlaps is cut off where it ends with the very record that was the last."""
    over = station.sealed + 1 - _number(records[0])
    return records[over:] if 0 < over < len(records) and records[over - 1].digest == station.last else records


def _on_record(tx: Writing, record: provisioning.Record, tenant: TenantId) -> None:
    ours = record.ours
    assert ours is not None, "the chain was judged"
    found = tx.find_certificate(CertificateRef(IssuerId(ours.issuer), Serial(int(ours.serial, 16))))
    if (
        found is None
        or found.der is None
        or found.tenant != tenant
        or found.device != record.device
        or provisioning.digest_of(found.der) != record.identity_certificate
        or f"sha256:{found.spki_sha256.hex()}" != ours.spki
    ):
        raise Unacceptable(
            "record-certificate",
            f"Record {ours.number} tells of a certificate that {record.device} does not have.",
            why="Issuer, serial number, digest, key and unit must be those on record.",
        )
