"""What issuing writes: tokens, devices, keys, intents and their results. Statements only; who may do what was decided before."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import sqlalchemy as sa

from ca.errors import Busy, Conflict, NotFound
from ca.model import Certificate, CertificateRef, Device, DeviceId, Digest, Intent, Token, UnixTime
from ca.store import rows
from ca.store import tables as t
from ca.store.reads import FIND_CERTIFICATE, FIND_TOKEN, Parameters, insert, param, values_of
from ca.store.writes import Writes

_c = t.certificates.c

FIND_BY_REQUEST = (
    sa.select(*rows.CERTIFICATE_COLUMNS)
    .select_from(rows.CERTIFICATES)
    .where(_c.request_key == param("request_key"), sa.text("certificates.state <> 'void'"))
)
UNFINISHED = (
    sa.select(*rows.CERTIFICATE_COLUMNS).select_from(rows.CERTIFICATES).where(sa.text("certificates.state = 'intended'")).order_by(_c.id)
)
ADD_TOKEN = insert(t.tokens).values(values_of(t.tokens)).on_conflict_do_nothing()
USE_TOKEN = (
    sa.update(t.tokens)
    .where(t.tokens.c.hash == param("the_hash"), t.tokens.c.used_at.is_(None), t.tokens.c.revoked_at.is_(None))
    .values(used_at=param("now"), used_by=param("request_key"))
)
LOCK_DEVICE = sa.select(*rows.DEVICE_COLUMNS).where(t.devices.c.id == param("id")).with_for_update()
ADD_DEVICE = insert(t.devices).values(values_of(t.devices)).on_conflict_do_nothing()
CLAIM_KEY = insert(t.keys).values(values_of(t.keys)).on_conflict_do_nothing()
OWNER_OF_KEY = sa.select(t.keys.c.device).where(t.keys.c.spki_sha256 == param("spki_sha256"))
RESERVE = (
    insert(t.certificates)
    .values(
        values_of(
            t.certificates,
            "issuer",
            "serial",
            "state",
            "tenant",
            "device",
            "profile",
            "actor",
            "subject",
            "names",
            "spki_sha256",
            "not_before",
            "not_after",
            "revocable",
            "parent_issuer",
            "parent_serial",
            "request_key",
            "leaf",
            "intended_at",
            "grant",
            "tbs",
        )
        | {"shard": param("shard"), "revoked": sa.false()}
    )
    .on_conflict_do_nothing()
)
# The row's number is looked up here, where a certificate has names: RETURNING would cost every certificate more than this.
ADD_NAME = insert(t.certificate_names).from_select(
    ["value", "certificate"],
    sa.select(sa.cast(param("value"), t.TEXT), _c.id).where(_c.serial == param("serial"), _c.issuer == param("issuer")),
)

_THIS = (_c.serial == param("the_serial"), _c.issuer == param("the_issuer"))
_INTENDED = sa.text("state = 'intended'")
RECORD_ISSUED = (
    sa.update(t.certificates)
    .where(*_THIS, _INTENDED)
    .values(state=sa.literal_column("'issued'"), der=param("der"), der_sha256=param("der_sha256"), issued_at=param("now"))
)
RECORD_VOID = sa.update(t.certificates).where(*_THIS, _INTENDED).values(state=sa.literal_column("'void'"), voided_at=param("now"))
MARK_FIRST_USED = sa.update(t.certificates).where(*_THIS, _c.first_used_at.is_(None)).values(first_used_at=param("now"))
MARK_DELIVERED = sa.update(t.certificates).where(*_THIS, _c.delivered_at.is_(None)).values(delivered_at=param("now"))
BEGIN_GRACE = sa.update(t.certificates).where(*_THIS, _c.grace_ends_at.is_(None)).values(grace_ends_at=param("ends_at"))
GRACES_ENDED = (
    sa.select(*rows.CERTIFICATE_COLUMNS)
    .select_from(rows.CERTIFICATES)
    .where(sa.text("certificates.grace_ends_at IS NOT NULL AND certificates.superseded_at IS NULL"), _c.grace_ends_at <= param("now"))
    .order_by(_c.grace_ends_at)
    .limit(param("limit"))
)
MARK_SUPERSEDED = sa.update(t.certificates).where(*_THIS, _c.superseded_at.is_(None)).values(superseded_at=param("now"))
MARK_CLONE_SEEN = sa.update(t.certificates).where(*_THIS, _c.clone_seen_at.is_(None)).values(clone_seen_at=param("now"))


def device_row(device: Device) -> Parameters:
    return {"id": device.id, "tenant": device.tenant, "state": device.state.value, "created": device.created}


def reservation_row(intent: Intent, *, tenant: str, revocable: bool, leaf: Digest) -> Parameters:
    draft, grant, parent = intent.draft, intent.grant, intent.grant.parent
    return {
        "issuer": draft.issuer,
        "serial": rows.octets_of(draft.serial),
        "shard": draft.shard,
        "state": "intended",
        "tenant": tenant,
        "device": grant.device,
        "profile": grant.profile,
        "actor": grant.actor,
        "subject": draft.subject,
        "names": rows.text_of_names(draft.names),
        "spki_sha256": draft.spki_sha256,
        "not_before": draft.not_before,
        "not_after": draft.not_after,
        "revocable": revocable,
        "parent_issuer": None if parent is None else parent.issuer,
        "parent_serial": None if parent is None else rows.octets_of(parent.serial),
        "request_key": intent.request_key,
        "leaf": leaf,
        "intended_at": intent.intended_at,
        "grant": rows.text_of_grant(grant),
        "tbs": draft.tbs,
    }


def names_rows(intent: Intent) -> Sequence[Parameters]:
    """How a certificate is found by its names, each once."""
    draft = intent.draft
    serial = rows.octets_of(draft.serial)
    return [{"value": value, "serial": serial, "issuer": draft.issuer} for value in dict.fromkeys([name.value for name in draft.names])]


def key_of_another() -> Conflict:
    return Conflict(
        "key-of-another-device",
        "The key belongs to another device.",
        why="A key serves one device, ever.",
        fix="Make a new key on this device and repeat the request with it.",
    )


class IssuanceWrites(Writes):
    def find_by_request(self, request_key: Digest) -> Certificate | None:
        """The certificate that this request got, intended or issued; void ones do not count."""
        row = self._first(FIND_BY_REQUEST, {"request_key": request_key})
        return None if row is None else rows.certificate_of(row)

    def unfinished(self) -> Sequence[Certificate]:
        """All intents whose result is not on record, oldest first."""
        return [rows.certificate_of(row) for row in self._all(UNFINISHED, {})]

    # ---- tokens

    def add_token(self, token: Token) -> None:
        """
        Raises:
            Conflict: there is a token with this hash (`token-exists`).
        """
        added = self._change(
            ADD_TOKEN,
            {
                "hash": token.hash,
                "tenant": token.tenant,
                "device": token.device,
                "profile": token.profile,
                "names": rows.text_of_names(token.names),
                "created": token.created,
                "expires": token.expires,
                "created_by": token.created_by,
                "used_at": token.used_at,
                "used_by": token.used_by,
                "revoked_at": token.revoked_at,
            },
        )
        if not added:
            raise Conflict("token-exists", "There is a token with this hash already.")

    def use_token(self, token: Digest, *, request_key: Digest, now: UnixTime) -> None:
        """Consume it, atomically. By the same request again: harmless.

        Raises:
            Conflict: another request used it (`token-used`).
            NotFound: there is no such token (`token-unknown`).
        """
        if self._change(USE_TOKEN, {"the_hash": token, "request_key": request_key, "now": now}):
            return
        row = self._first(FIND_TOKEN, {"hash": token})
        if row is None:
            raise NotFound("token-unknown", "There is no such enrolment token.")
        if rows.token_of(row).used_by != request_key:
            raise Conflict(
                "token-used",
                "The enrolment token was used before.",
                why="A token enrols one key, once.",
                fix="fleetca token create DEVICE",
            )

    # ---- devices and keys

    def lock_device(self, device: DeviceId) -> Device | None:
        """Read the row and keep others from changing it until this transaction ends."""
        row = self._first(LOCK_DEVICE, {"id": device})
        return None if row is None else rows.device_of(row)

    def add_device(self, device: Device) -> None:
        """Harmless when another transaction has just added the same.

        Raises:
            Conflict: there is such a device, of another tenant or in another state (`device-exists`).
        """
        added = self._change(ADD_DEVICE, device_row(device))
        if not added:
            there = self.lock_device(device.id)
            if there is None or (there.tenant, there.state) != (device.tenant, device.state):
                raise Conflict("device-exists", f"There is a device {device.id} already, of another tenant or in another state.")

    def claim_key(self, spki_sha256: Digest, device: DeviceId, *, now: UnixTime) -> bool:
        """Bind a public key to a device, for ever (P9). True when it was new.

        Raises:
            Conflict: it belongs to another device (`key-of-another-device`).
        """
        if self._change(CLAIM_KEY, {"spki_sha256": spki_sha256, "device": device, "claimed_at": now}):
            return True
        (owner,) = rows.only(self._all(OWNER_OF_KEY, {"spki_sha256": spki_sha256}))
        if owner != device:
            raise key_of_another()
        return False

    def owner_of_key(self, spki_sha256: Digest) -> DeviceId | None:
        """The device that a public key is bound to."""
        row = self._first(OWNER_OF_KEY, {"spki_sha256": spki_sha256})
        return None if row is None else DeviceId(row[0])

    # ---- intents and results

    def reserve(self, intent: Intent, *, tenant: str, revocable: bool, leaf: Digest) -> None:
        """Record serial, TBS, device and grant before anything is signed (P1). `leaf` is the hash of its `issuance` leaf.

        Raises:
            Conflict: the serial exists (`serial-taken`): draw another one.
            Busy: another transaction has just recorded an intent for the same request (`request-taken`): repeat it and find that one.
        """
        draft = intent.draft
        added = self._change(RESERVE, reservation_row(intent, tenant=tenant, revocable=revocable, leaf=leaf))
        if not added:
            if self._first(FIND_BY_REQUEST, {"request_key": intent.request_key}) is not None:
                raise Busy(
                    "request-taken", "The same request is being worked on.", fix="Repeat the request: it gets that result.", retry_after=1
                )
            raise Conflict("serial-taken", f"The serial number {draft.serial:040x} of {draft.issuer} is on record already.")
        for row in names_rows(intent):
            self._change(ADD_NAME, row)

    def record_issued(self, results: Sequence[tuple[CertificateRef, bytes]], *, now: UnixTime) -> Sequence[CertificateRef]:
        """The results (DER) of intents. The same again is harmless. Returns those that have another result already, which stays.

        Raises:
            NotFound: there is no such intent (`certificate-unknown`).
        """
        changed = self._change_each(
            RECORD_ISSUED,
            [
                {
                    "the_serial": rows.octets_of(ref.serial),
                    "the_issuer": ref.issuer,
                    "der": der,
                    "der_sha256": sha256(der).digest(),
                    "now": now,
                }
                for ref, der in results
            ],
        )
        return [] if changed == len(results) else [ref for ref, der in results if self._on_record(ref).der != der]

    def record_void(self, ref: CertificateRef, *, now: UnixTime) -> None:
        """Give an intent up; its request may then be made anew. The same again is harmless.

        Raises:
            Conflict: it was issued (`already-finished`).
            NotFound: there is no such intent (`certificate-unknown`).
        """
        changed = self._change(RECORD_VOID, {"the_serial": rows.octets_of(ref.serial), "the_issuer": ref.issuer, "now": now})
        if not changed and self._on_record(ref).der is not None:
            raise Conflict("already-finished", f"The intent {ref} has a certificate already.")

    def mark_first_used(self, ref: CertificateRef, *, now: UnixTime) -> None:
        """Its key has authenticated to us. The first time stays."""
        self._change(MARK_FIRST_USED, {"the_serial": rows.octets_of(ref.serial), "the_issuer": ref.issuer, "now": now})

    def mark_delivered(self, ref: CertificateRef, *, now: UnixTime) -> None:
        """The holder of its parent's key has it. The first time stays."""
        self._change(MARK_DELIVERED, {"the_serial": rows.octets_of(ref.serial), "the_issuer": ref.issuer, "now": now})

    def begin_grace(self, ref: CertificateRef, *, ends_at: UnixTime) -> None:
        """From `ends_at` on it is superseded (P9). The first end stays."""
        self._change(BEGIN_GRACE, {"the_serial": rows.octets_of(ref.serial), "the_issuer": ref.issuer, "ends_at": ends_at})

    def graces_ended(self, now: UnixTime, *, limit: int) -> Sequence[Certificate]:
        """Those whose grace is over and that are not marked as superseded, earliest end first."""
        return [rows.certificate_of(row) for row in self._all(GRACES_ENDED, {"now": now, "limit": limit})]

    def mark_superseded(self, ref: CertificateRef, *, now: UnixTime) -> None:
        """Its successor took over (P9). The first time stays."""
        self._change(MARK_SUPERSEDED, {"the_serial": rows.octets_of(ref.serial), "the_issuer": ref.issuer, "now": now})

    def mark_clone_seen(self, ref: CertificateRef, *, now: UnixTime) -> None:
        """Its key spoke after another certificate had taken its place (P9). The first time stays."""
        self._change(MARK_CLONE_SEEN, {"the_serial": rows.octets_of(ref.serial), "the_issuer": ref.issuer, "now": now})

    def _on_record(self, ref: CertificateRef) -> Certificate:
        row = self._first(FIND_CERTIFICATE, {"serial": rows.octets_of(ref.serial), "issuer": ref.issuer})
        if row is None:
            raise NotFound("certificate-unknown", f"There is no certificate {ref} on record.")
        return rows.certificate_of(row)
