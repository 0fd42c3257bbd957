"""Questions about the life of devices, for readers and writers alike. Statements and rows to words, nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from ca.model import (
    Anchor,
    AttestationKind,
    DeviceChange,
    DeviceEvent,
    DeviceFacts,
    DeviceId,
    DeviceState,
    Digest,
    JudgedKey,
    ProfileName,
    Reason,
    RootOfTrust,
    SafetyClass,
    TenantId,
    UnixTime,
    Verdict,
)
from ca.rules import leaf
from ca.store import rows
from ca.store import tables as t
from ca.store.reads import PAGE, Reads, paged, param
from ca.store.rows import Row

_c, _f, _h, _k, _r = t.certificates.c, t.device_facts.c, t.device_changes.c, t.tokens.c, t.revocations.c

FIND_FACTS = sa.select(t.device_facts).where(_f.device == param("device"))
EXCEPTIONS_ENDED = (
    sa.select(t.device_facts)
    .where(sa.text("exception_ends IS NOT NULL"), _f.exception_ends <= param("now"))
    .order_by(_f.exception_ends)
    .limit(param("limit"))
)
EVERY_FACTS = (
    sa.select(t.device_facts).where(_f.device > param("device")).order_by(_f.device).limit(sa.literal_column(str(PAGE)))
)  # fmt: skip
CHANGES_OF_DEVICE = (
    sa.select(_h.device, _h.before, _h.after, _h.at, _h.reason, _h.actor, _h.channel, _h.request)
    .where(_h.device == param("device"))
    .order_by(_h.id)
)
HISTORY_OF_CERTIFICATES = (
    sa.select(
        _c.id, _c.issuer, _c.serial, _c.profile, _c.actor, _c.grant, _c.request_key, _c.intended_at, _c.issued_at, _c.voided_at,
        _c.delivered_at, _c.first_used_at, _c.superseded_at, _c.clone_seen_at, _c.revocation,
    )
    .where(_c.device == param("device"), _c.id < param("before"))
    .order_by(_c.id.desc())
    .limit(param("limit"))
)  # fmt: skip
HISTORY_OF_REVOCATION = sa.select(
    _r.change, _r.reason, _r.revoked_at, _r.actor, _r.channel, _r.request, _r.replaces
).where(_r.change == param("change"))  # fmt: skip
# Two questions, each along a partial index; used tokens stand in the grants of what they were used for.
_TOKEN = (_k.hash, _k.profile, _k.created, _k.expires, _k.created_by, _k.revoked_at)
TOKENS_UNUSED = sa.select(*_TOKEN).where(sa.text("used_at IS NULL AND revoked_at IS NULL"), _k.device == param("device")).order_by(_k.hash)
TOKENS_WITHDRAWN = (
    sa.select(*_TOKEN).where(sa.text("used_at IS NULL AND revoked_at IS NOT NULL"), _k.device == param("device")).order_by(_k.hash)
)
_d = t.devices.c
# Along the index of the tenant alone, and no further than the quota.
COUNTED = sa.select(sa.func.count()).select_from(
    sa.select(_d.id).where(_d.tenant == param("tenant")).order_by(_d.tenant, _d.id).limit(param("most")).subquery()
)
FIRST = 1 << 62


def facts_of(row: Row) -> DeviceFacts:
    _, root, justification, ends, safety_class, batch, owner, anchors = row
    return DeviceFacts(
        root_of_trust=None if root is None else RootOfTrust(root),
        justification=justification,
        exception_ends=ends,
        safety_class=None if safety_class is None else SafetyClass(safety_class),
        batch=batch,
        owner=owner,
        anchors=anchors_of(anchors),
    )


def anchors_of(text: str) -> tuple[Anchor, ...]:
    if text == "[]":
        return ()
    found = [
        (AttestationKind(one["kind"]), Digest(bytes.fromhex(one["spki_sha256"])), one["source"], one["at"]) for one in json.loads(text)
    ]
    return tuple(Anchor(*one) for one in found)


def row_of_facts(device: DeviceId, facts: DeviceFacts) -> dict[str, Any]:
    return {
        "device": device,
        "root_of_trust": None if facts.root_of_trust is None else facts.root_of_trust.value,
        "justification": facts.justification,
        "exception_ends": facts.exception_ends,
        "safety_class": None if facts.safety_class is None else facts.safety_class.value,
        "batch": facts.batch,
        "owner": facts.owner,
        "anchors": json.dumps(leaf.anchors_of(facts.anchors)),
    }


class DeviceReads(Reads):
    def count_devices(self, tenant: TenantId, *, most: int) -> int:
        """How many devices of a tenant are on record; no more are counted than `most`."""
        ((count,),) = self._all(COUNTED, {"tenant": tenant, "most": most})
        return int(count)

    def device_facts(self, device: DeviceId) -> DeviceFacts | None:
        """What was said of a device; None where nothing was."""
        row = self._first(FIND_FACTS, {"device": device})
        return None if row is None else facts_of(row)

    def device_changes(self, device: DeviceId) -> Sequence[DeviceChange]:
        """What happened to a device as a whole, oldest first. A device that came with its first certificate may have none."""
        return [
            DeviceChange(name, None if before is None else DeviceState(before), DeviceState(after), at, reason, actor, channel, request)
            for name, before, after, at, reason, actor, channel, request in self._all(CHANGES_OF_DEVICE, {"device": device})
        ]

    def exceptions_ended(self, *, now: UnixTime, limit: int) -> Sequence[tuple[DeviceId, DeviceFacts]]:
        """Devices whose exception from having a root of trust is over, earliest end first."""
        return [(DeviceId(row[0]), facts_of(row)) for row in self._all(EXCEPTIONS_ENDED, {"now": now, "limit": limit})]

    def every_device_facts(self) -> Iterator[tuple[DeviceId, DeviceFacts]]:
        for row in paged(lambda last: self._all(EVERY_FACTS, {"device": "" if last is None else last[0]})):
            yield DeviceId(row[0]), facts_of(row)

    def judged_keys(self, device: DeviceId, *, limit: int) -> Sequence[JudgedKey]:
        """Why the keys of a device's newest certificates counted as attested, newest first."""
        found = self._all(HISTORY_OF_CERTIFICATES, {"device": device, "before": FIRST, "limit": limit})
        return [JudgedKey(rows.ref_of(row[1], row[2]), ProfileName(row[3]), row[7], verdict_of(row[5])) for row in found]

    def device_events(self, device: DeviceId, *, before: int | None = None, limit: int = 100) -> tuple[Sequence[DeviceEvent], int | None]:
        """What happened to a device's newest certificates and, on the first page, to the device and to tokens nobody used; unsorted.

        Args:
            before: the mark of the page before.
            limit: certificates of one page.

        Returns:
            The events, and the mark of the next page.
        """
        events: list[DeviceEvent] = []
        if before is None:
            events += [_of_change(change) for change in self.device_changes(device)]
            for row in (*self._all(TOKENS_UNUSED, {"device": device}), *self._all(TOKENS_WITHDRAWN, {"device": device})):
                events += _of_token(row)
        found = self._all(HISTORY_OF_CERTIFICATES, {"device": device, "before": FIRST if before is None else before, "limit": limit})
        for row in found:
            events += _of_certificate(row)
            change = row[-1]
            while change is not None:
                (told,) = self._all(HISTORY_OF_REVOCATION, {"change": change})
                events.append(_of_revocation(row, told))
                change = told[-1]
        return events, found[-1][0] if len(found) == limit else None


def verdict_of(grant: str) -> Verdict | None:
    found = json.loads(grant).get("verdict")
    if found is None:
        return None
    return Verdict(AttestationKind(found["kind"]), found["rule"], found["words"], Digest(bytes.fromhex(found["anchor"])))


def _of_change(change: DeviceChange) -> DeviceEvent:
    what = change.after.value if change.before is not change.after else "described"
    before = change.before
    about = change.reason if before is None or before is change.after else f"was {before.value}: {change.reason}"
    return DeviceEvent(change.at, what, about, change.actor, change.channel, change.request)


def _of_token(row: Row) -> Iterator[DeviceEvent]:
    digest, profile, created, expires, actor, revoked_at = row
    about = f"{bytes(digest).hex()[:16]}, profile {profile}"
    yield DeviceEvent(created, "token made", f"{about}, until {expires}", actor, "", "")
    if revoked_at is not None:
        yield DeviceEvent(revoked_at, "token withdrawn", about, "", "", "")


def _name(row: Row) -> str:
    return f"{row[1]}/{rows.serial_of(row[2]):040x}"


def _of_certificate(row: Row) -> Iterator[DeviceEvent]:
    _, _, _, profile, actor, grant, request, intended, issued, voided, delivered, used, superseded, clone, _ = row
    given = json.loads(grant)
    channel, key, name = f"{given.get('role', '')}/{given.get('evidence', '')}", bytes(request).hex(), _name(row)
    what = "renewed" if given.get("parent") else "certified"
    verdict = given.get("verdict")
    vouched = f"; {verdict['rule']}: {verdict['words']}" if verdict else ""
    yield DeviceEvent(intended if issued is None else issued, what if issued is not None else "certificate begun",
                      f"{name}, profile {profile}{vouched}", actor, channel, key)  # fmt: skip
    for at, word in ((voided, "certificate given up"), (delivered, "delivered"), (used, "first used"), (superseded, "superseded"),
                     (clone, "spoke though its place was taken")):  # fmt: skip
        if at is not None:
            yield DeviceEvent(at, word, name, "", "", "")


def _of_revocation(row: Row, told: Row) -> DeviceEvent:
    _, reason, at, actor, channel, request, _ = told
    word = {Reason.certificateHold: "put on hold", Reason.removeFromCRL: "hold released"}.get(Reason(reason), "certificate revoked")
    return DeviceEvent(at, word, f"{_name(row)}: {Reason(reason).name}", actor, channel or "", request or "")
