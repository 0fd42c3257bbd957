"""What an operator may ask the signer's socket: rows of the database as they are. Edge: contains no rule.

The command line acts through the socket and not through the database, so that one user id, the signer's, suffices for its file.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol, TypeVar

from ca.errors import NotFound
from ca.model import (
    DEFAULT_TENANT,
    Approval,
    Certificate,
    CertificateQuery,
    CertificateRef,
    Device,
    DeviceEvent,
    DeviceFacts,
    DeviceId,
    DeviceState,
    Digest,
    Issuer,
    IssuerId,
    JudgedKey,
    KeyChange,
    KeyPlace,
    KeyRecord,
    Operator,
    Outline,
    Proposal,
    RenewalOrder,
    Shift,
    ShiftCount,
    Station,
    StoreHeld,
    TenantId,
    Token,
    UnixTime,
)
from ca.ports import Clock
from ca.rules import certified_keys, forms, grant, ids, key_life
from ca.rules.two_persons import not_found
from ca.signer import messages
from ca.witness import Witness

LARGEST_PAGE: Final = 200
LARGEST_OUTLINE: Final = 1000
MOST_COUNTED: Final = 1_000_000


_Owned = TypeVar("_Owned", Issuer, Operator, RenewalOrder)


class Reading(Protocol):
    """The database, for those who only look."""

    def find_certificate(self, ref: CertificateRef) -> Certificate | None: ...

    def search_certificates(
        self, query: CertificateQuery, *, tenant: TenantId | None = None, now: UnixTime = 0
    ) -> tuple[Sequence[Certificate], str | None]: ...

    def search_outlines(
        self, query: CertificateQuery, *, tenant: TenantId | None = None, now: UnixTime = 0
    ) -> tuple[Sequence[Outline], str | None]: ...

    def search_devices(
        self,
        *,
        tenant: TenantId | None = None,
        device: str | None = None,
        state: DeviceState | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> tuple[Sequence[Device], str | None]: ...

    def find_device(self, device: DeviceId) -> Device | None: ...

    def count_devices(self, tenant: TenantId, *, most: int) -> int: ...

    def device_facts(self, device: DeviceId) -> DeviceFacts | None: ...

    def judged_keys(self, device: DeviceId, *, limit: int) -> Sequence[JudgedKey]: ...

    def device_events(
        self, device: DeviceId, *, before: int | None = None, limit: int = 100
    ) -> tuple[Sequence[DeviceEvent], int | None]: ...

    def outstanding_tokens(self, device: DeviceId, *, now: UnixTime) -> Sequence[Token]: ...

    def waiting_tokens(self, *, now: UnixTime, after: tuple[DeviceId, Digest] | None, limit: int) -> Sequence[Token]: ...

    def waiting_approvals(
        self, *, tenant: TenantId, now: UnixTime, after: tuple[UnixTime, Digest] | None, limit: int
    ) -> Sequence[Approval]: ...

    def proposals(self, *, tenant: TenantId, after: tuple[UnixTime, Digest] | None = None, limit: int = 100) -> Sequence[Proposal]: ...

    def find_proposal_by_beginning(self, beginning: str) -> Proposal | None: ...

    def issuers(self) -> Sequence[Issuer]: ...

    def operators(self) -> Sequence[Operator]: ...

    def renewal_orders(self) -> Sequence[RenewalOrder]: ...

    def stations(self) -> Sequence[Station]: ...

    def unwiped(self, *, after: str, limit: int) -> Sequence[DeviceId]: ...

    def shifts(self, *, before: int, limit: int) -> Sequence[Shift]: ...

    def count_shift(self, shift: Shift) -> ShiftCount: ...

    def key_records(self) -> Sequence[KeyRecord]: ...

    def key_changes(self, spki_sha256: Digest) -> Sequence[KeyChange]: ...


class Questions:
    NAMES: Final = frozenset(
        {
            "certificates",
            "certificate",
            "outlines",
            "devices",
            "device-count",
            "device-facts",
            "judged-keys",
            "device-events",
            "tokens",
            "approvals",
            "proposals",
            "proposal",
            "issuers",
            "profiles",
            "operators",
            "keys",
            "key",
            "keys-held",
            "renewal-orders",
            "stations",
            "shifts",
            "unwiped",
        }
    )

    def __init__(
        self,
        *,
        reading: Reading,
        policy: grant.Policy,
        witness: Witness,
        keys: frozenset[IssuerId],
        roots: frozenset[IssuerId],
        clock: Clock,
        held: Callable[[], Sequence[StoreHeld]] = tuple,
        secrets: Callable[[UnixTime], Sequence[KeyRecord]] = lambda _: (),
        responder: KeyPlace | None = None,
    ) -> None:
        self._reading, self._policy, self._witness, self._keys, self._clock, self._held = reading, policy, witness, keys, clock, held
        self._secrets, self._responder = secrets, responder
        self._roots = roots
        self._tenant: TenantId | None = None
        self._answers = self._table()

    def _table(self) -> Mapping[str, Callable[[Mapping[str, Any]], Any]]:
        return {
            "certificates": self._certificates,
            "certificate": self._certificate,
            "outlines": self._outlines,
            "devices": self._devices,
            "device-count": lambda _: self._reading.count_devices(self._policy.tenant, most=MOST_COUNTED),
            "device-facts": lambda body: self._reading.device_facts(self._device(body).id),
            "judged-keys": lambda body: tuple(self._reading.judged_keys(self._device(body).id, limit=LARGEST_PAGE)),
            "device-events": self._events,
            "tokens": self._tokens,
            "approvals": self._approvals,
            "proposals": self._proposals,
            "proposal": self._proposal,
            "issuers": lambda _: self._own(self._reading.issuers()),
            "profiles": lambda _: tuple(self._policy.profiles[name] for name in sorted(self._policy.profiles)),
            "operators": lambda _: self._own(self._reading.operators()),
            "renewal-orders": lambda _: self._own(self._reading.renewal_orders()),
            "stations": lambda _: [one for one in self._reading.stations() if one.tenant == self._policy.tenant],
            "shifts": self._shifts,
            "unwiped": self._unwiped,
            "keys": lambda _: self._key_records(),
            "key": lambda body: self._key_changes(Digest(forms.read(bytes, body.get("spki_sha256")))),
            "keys-held": lambda _: [_held(each) for each in self._held()],
        }

    def ask(self, name: str, body: Mapping[str, Any]) -> Any:
        """The answer to a question of `NAMES`, about the tenant that `tenant` names, or else the house.

        Raises:
            NotFound: there is no such tenant (`no-such-tenant`).
        """
        asked = dict(body)
        tenant = asked.pop("tenant", None)
        seen = self if tenant is None else self._seen_by(TenantId(forms.read(str, tenant)))
        return forms.write(seen._answers[name](asked))  # noqa: SLF001 - the same class

    def _seen_by(self, tenant: TenantId) -> Questions:
        """The same, for another tenant: the one place where this is chosen."""
        other = copy.copy(self)
        other._policy = self._policy.seen_by(tenant)  # noqa: SLF001
        other._tenant = tenant  # noqa: SLF001
        other._answers = other._table()  # noqa: SLF001
        return other

    def _own(self, rows: Iterable[_Owned]) -> tuple[_Owned, ...]:
        """Those of the tenant that was named; all where none was."""
        return tuple(row for row in rows if self._tenant is None or row.tenant == self._tenant)

    def health(self) -> dict[str, Any]:
        """What the signer says of itself, without asking the database."""
        return {
            "deployment": self._policy.deployment,
            "keys": sorted(self._keys),
            # Told from what is open, not from what the settings want: P4 is shown, not claimed.
            "root_present": not self._keys.isdisjoint(self._roots),
            "journal_waiting": self._witness.waiting,
        }

    def _key_records(self) -> Sequence[KeyRecord]:
        """The records that are kept, and what certificates say of keys that have none."""
        now, kept = self._clock.now(), self._reading.key_records()
        known = {record.spki_sha256 for record in kept}
        devices = [grant.ENROLL_DEVICE, grant.RESPONDER_DEVICE]
        devices += [DeviceId(f"{grant.OPERATOR_DEVICE}{operator.name}") for operator in self._reading.operators()]
        live = [one for device in devices for one in self._all_of(CertificateQuery(device=device, expires_after=now, limit=100))]
        certified = certified_keys.records(live, now=now, responder=self._responder)
        return [*kept, *(record for record in certified if record.spki_sha256 not in known), *self._secrets(now)]

    def _key_changes(self, key: Digest) -> Sequence[KeyChange]:
        found = self._reading.key_changes(key) or certified_keys.changes(self._all_of(CertificateQuery(spki_sha256=key, limit=100)))
        secret = next((record for record in self._secrets(self._clock.now()) if record.spki_sha256 == key), None)
        return found if secret is None else [key_life.begin(secret, reason="made by the first who needed it", actor=secret.owner)]

    def _all_of(self, query: CertificateQuery) -> list[Certificate]:
        found: list[Certificate] = []
        while True:
            rows, cursor = self._reading.search_certificates(query, tenant=self._policy.tenant, now=self._clock.now())
            found += rows
            if cursor is None:
                return found
            query = replace(query, after=cursor)

    def _certificates(self, body: Mapping[str, Any]) -> Any:
        query = forms.read(CertificateQuery, dict(body))
        _page(query.limit)
        if query.device is not None:
            ids.device_id(query.device)
        rows, cursor = self._reading.search_certificates(query, tenant=self._policy.tenant, now=self._clock.now())
        return {"rows": forms.write(rows), "next": cursor}

    def _outlines(self, body: Mapping[str, Any]) -> Any:
        query = forms.read(CertificateQuery, dict(body))
        _page(query.limit, most=LARGEST_OUTLINE)
        rows, cursor = self._reading.search_outlines(query, tenant=self._policy.tenant, now=self._clock.now())
        return {"rows": [messages.write_outline(row) for row in rows], "next": cursor}

    def _certificate(self, body: Mapping[str, Any]) -> Any:
        ref = messages.read_ref(dict(body))
        found = self._reading.find_certificate(ref)
        if found is None or found.tenant != self._policy.tenant:
            raise NotFound("no-such-certificate", "There is no such certificate.", why=f"{ref} is not on record.")
        return found

    def _devices(self, body: Mapping[str, Any]) -> Any:
        known: Mapping[str, type[Any]] = {"device": str, "state": DeviceState, "after": str}
        asked: dict[str, Any] = {"limit": _limit(body)}
        for key, value in body.items():
            if key in known:
                asked[key] = forms.read(known[key], value)
            elif key != "limit":
                raise forms.bad(f"A search knows no {key[:80]!r}.")
        rows, cursor = self._reading.search_devices(tenant=self._policy.tenant, **asked)
        return {"rows": forms.write(rows), "next": cursor}

    def _device(self, body: Mapping[str, Any]) -> Device:
        name = ids.device_id(forms.read(str, body.get("device")))
        found = self._reading.find_device(name)
        if found is None or found.tenant != self._policy.tenant:
            raise NotFound("no-such-device", "There is no such device.", why=f"{name} is not on record.")
        return found

    def _events(self, body: Mapping[str, Any]) -> Any:
        before = forms.read(int, body["before"]) if "before" in body else None
        events, mark = self._reading.device_events(self._device(body).id, before=before, limit=LARGEST_PAGE)
        return {"rows": forms.write(tuple(events)), "next": mark}

    def _tokens(self, body: Mapping[str, Any]) -> Any:
        if not body.keys() <= {"device", "after", "limit"}:
            raise forms.bad("It takes device, after and limit.")
        limit, now = _limit(body), self._clock.now()
        if "device" in body:
            found = [
                one
                for one in self._reading.outstanding_tokens(ids.device_id(forms.read(str, body["device"])), now=now)
                if one.tenant == self._policy.tenant
            ]
            return {"rows": forms.write(found), "next": None}
        after = _token_place(forms.read(str, body["after"])) if "after" in body else None
        waiting = self._reading.waiting_tokens(now=now, after=after, limit=limit + 1)
        page = waiting[:limit]
        more = f"{page[-1].device}/{page[-1].hash.hex()}" if len(waiting) > limit else None
        return {"rows": forms.write([one for one in page if one.tenant == self._policy.tenant]), "next": more}

    def _unwiped(self, body: Mapping[str, Any]) -> Any:
        after, limit = forms.read(str, body.get("after")), _limit(body)
        found: list[DeviceId] = []
        while len(found) < limit and (page := self._reading.unwiped(after=after, limit=limit)):
            found += [one for one in page if self._tenant is None or self._owner(one) == self._tenant]
            after = page[-1]
        return found[:limit]

    def _owner(self, device: DeviceId) -> TenantId:
        tenant = self._policy.tenant_of(device)
        return DEFAULT_TENANT if tenant is None else tenant.id

    def _shifts(self, body: Mapping[str, Any]) -> Any:
        if not body.keys() <= {"before", "limit"}:
            raise forms.bad("It takes before and limit.")
        before = forms.read(int, body["before"]) if "before" in body else 1 << 53
        found = self._reading.shifts(before=before, limit=_limit(body))
        rows = [self._reading.count_shift(shift) for shift in found if shift.tenant == self._policy.tenant]
        return {"rows": forms.write(rows), "next": found[-1].number if len(found) == _limit(body) else None}

    def _approvals(self, body: Mapping[str, Any]) -> Any:
        if not body.keys() <= {"after", "limit"}:
            raise forms.bad("It takes after and limit.")
        limit = _limit(body)
        after = _approval_place(forms.read(str, body["after"])) if "after" in body else None
        found = self._reading.waiting_approvals(tenant=self._policy.tenant, now=self._clock.now(), after=after, limit=limit + 1)
        page = found[:limit]
        return {"rows": forms.write(page), "next": f"{page[-1].expires}/{page[-1].request.hex()}" if len(found) > limit else None}

    def _proposals(self, body: Mapping[str, Any]) -> Any:
        if not body.keys() <= {"after", "limit"}:
            raise forms.bad("It takes after and limit.")
        limit = _limit(body)
        after = _approval_place(forms.read(str, body["after"])) if "after" in body else (self._clock.now(), Digest(b"\xff" * 32))
        found = self._reading.proposals(tenant=self._policy.tenant, after=after, limit=limit + 1)
        page = found[:limit]
        return {"rows": forms.write(tuple(page)), "next": f"{page[-1].expires}/{page[-1].request.hex()}" if len(found) > limit else None}

    def _proposal(self, body: Mapping[str, Any]) -> Proposal:
        found = self._reading.find_proposal_by_beginning(ids.hash_beginning(forms.read(str, body.get("request"))))
        if found is None or found.tenant != self._policy.tenant:
            raise not_found()
        return found


def _approval_place(cursor: str) -> tuple[UnixTime, Digest]:
    expires, _, digest = cursor.partition("/")
    if not expires.isdecimal() or len(expires) > 12:
        raise forms.bad("This is no cursor of ours.")
    return int(expires), Digest(bytes.fromhex(ids.hash_beginning(digest, whole=True)))


def _token_place(cursor: str) -> tuple[DeviceId, Digest]:
    device, _, digest = cursor.rpartition("/")
    return ids.device_id(device), Digest(bytes.fromhex(ids.hash_beginning(digest, whole=True)))


def _held(found: StoreHeld) -> dict[str, Any]:
    return {
        "kind": found.store.kind,
        "about": found.store.about,
        "protection": found.store.protection.name,
        "algorithms": sorted(found.store.algorithms),
        "places": list(found.places),
        "trouble": found.trouble,
        "keys": [{"name": key.name, "algorithm": key.algorithm, "spki": key.spki, "facts": dict(key.facts)} for key in found.keys],
    }


def _limit(body: Mapping[str, Any]) -> int:
    return _page(forms.read(int, body.get("limit", 50)))


def _page(limit: int, *, most: int = LARGEST_PAGE) -> int:
    if not 1 <= limit <= most:
        raise forms.bad(f"A page has 1 to {most} rows.")
    return limit
