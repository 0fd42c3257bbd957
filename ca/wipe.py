"""The last word of a retired device: the CA orders it to wipe its keys, and takes its receipt onto the record. Knows rules and ports only.

The order is signed by the issuing key over a context of its own. Its leaf and a line of the journal stand before the key is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from ca.der.algorithms import load_public_key, verify
from ca.der.certificate import read_certificate
from ca.errors import Conflict, Denied, KeyUnavailable, Malformed, NotFound, Unavailable
from ca.lineage import Issuers
from ca.model import (
    CertificateRef,
    Device,
    DeviceChange,
    DeviceId,
    DeviceState,
    GraveAct,
    IssuerId,
    Peer,
    Reason,
    Role,
    UnixTime,
    WipeReceipt,
)
from ca.ports import Clock, Ledger, SigningKey, Writing
from ca.rules import grant, ids, leaf, testimony, two_persons, wipe
from ca.rules.clock import trusted
from ca.rules.device_life import LONGEST_WORDS
from ca.rules.issuers import newest
from ca.rules.window import date
from ca.two_persons import TwoPersons
from ca.witness import Witness


class Wiping:
    """The verb.

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
        two_persons: TwoPersons,
    ) -> None:
        self._two_persons = two_persons
        self._ledger, self._witness, self._keys, self._issuers, self._policy, self._clock = ledger, witness, keys, issuers, policy, clock

    def order(self, name: DeviceId, peer: Peer) -> bytes:
        """The signed order for a retired device; the same one again, with another signature.

        Raises:
            Denied: who asks is no operator of this machine.
            NotFound: there is no such device (`no-such-device`).
            Conflict: it is not retired (`device-not-retired`).
        """
        actor = _actor(peer)
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            order = self._order(tx, self._retired(tx, name))
            issuer = newest(self._issuers.by_id, self._policy.of(name).default_issuer, now=now)
            if issuer not in self._keys:
                raise KeyUnavailable("no-issuing-key", f"The key of issuer {issuer!r} is not here.", fix="See: fleetca doctor")
            tx.append_leaf(leaf.wipe_order(name, order_sha256=order.digest, issuer=issuer, actor=actor, at=now))
            tx.raise_high_time(now)
            self._witness.later([testimony.WipeOrdered(name, order.digest, now, actor)])
        key, octets = self._keys[issuer], wipe.ORDER + order.octets
        self._witness.settle()
        signature = key.sign(octets)
        verify(load_public_key(key.spki), signature, octets)
        return wipe.write_order(order, self._issuers.by_id[issuer].certificate, signature)

    def take(self, octets: bytes, peer: Peer) -> WipeReceipt:
        """Put a receipt on record. The same again is harmless.

        Raises:
            Denied: who brings it is no operator of this machine; or the key that signed was lost (`wipe-unproven`).
            Malformed, Unauthenticated: it is no receipt, or does not hold (`wipe-form`, `wipe-signature`), or is for another order (`wipe-other-order`).
            NotFound: no such device, or its certificate is not on record (`certificate-unknown`).
            Conflict: the device is not retired, or there is another receipt of it (`wipe-known`).
        """
        actor = _actor(peer)
        found = wipe.read_receipt(octets)
        facts = read_certificate(found.certificate)
        wipe.check_receipt(found, facts.spki)
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            device = self._retired(tx, found.device)
            order = self._order(tx, device)
            if found.order != order.digest:
                raise Conflict("wipe-other-order", f"The receipt is for another order than that of {device.id}.")
            since = self._blank_since(tx, device)
            rows = [tx.find_certificate(CertificateRef(name, facts.serial)) for name in self._issuers.by_id]
            record = next((row for row in rows if row is not None and row.der == found.certificate and row.device == device.id), None)
            if record is None or record.intended_at < since:
                raise NotFound("certificate-unknown", f"The certificate in the receipt is none of {device.id}.")
            if record.revocation is not None and record.revocation.reason is Reason.keyCompromise:
                raise Denied(
                    "wipe-unproven", "The key that signed the receipt was lost: others have it too.", why="Its certificate was revoked so."
                )
            known = tx.find_wipe(device.id, order.retired_at)
            if known is not None:
                if known.octets != octets:
                    raise _closed(known)
                return known
            receipt = WipeReceipt(device.id, device.tenant, octets, now, actor, retired_at=order.retired_at)
            digest = wipe.digest_of(octets).hex()
            change = DeviceChange(device.id, device.state, device.state, now, "wiped", actor, "operator/local", digest)
            tx.add_wipe(receipt, device.tenant)
            tx.append_leaf(leaf.wipe(receipt))
            tx.change_device(change)
            tx.append_leaf(leaf.device_change(device, change))
            tx.raise_high_time(now)
        self._witness.later([testimony.Wiped(receipt), testimony.DeviceMoved(device, change)])
        with suppress(Unavailable):
            # Committed and in force already.
            self._witness.settle()
        return receipt

    def waive(self, name: DeviceId, justification: str, peer: Peer) -> WipeReceipt:
        """Close the record of a retired device of which no receipt will come: it was destroyed, stolen, or never had its keys. The same again is harmless.

        Where the settings want two persons for it, what they signed says why.

        Args:
            justification: why; one line of text, or empty where two persons said it.

        Raises:
            Denied: who asks is no operator of this machine, or no two persons approved it (`two-persons-needed`).
            Malformed: nothing is said, or no line of text (`device-words`).
            NotFound: no such device.
            Conflict: the device is not retired, or its record is closed already (`wipe-known`).
        """
        actor = _actor(peer)
        demanded = self._two_persons.demanded(GraveAct.waive_wipe)
        if not demanded and (not justification.strip() or len(justification) > LONGEST_WORDS or not justification.isprintable()):
            raise Malformed(
                "device-words", "It is not said why no receipt will come.", why=f"It is plain text of {LONGEST_WORDS} characters at most."
            )
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            device = self._retired(tx, name)
            retired_at = self._order(tx, device).retired_at
            known = tx.find_wipe(device.id, retired_at)
            if known is not None:
                if known.octets or (justification and known.justification != justification):
                    raise _closed(known)
                return known
            request, said = "", list[testimony.Record]()
            if demanded:
                subject = two_persons.subject(GraveAct.waive_wipe, device=device.id)
                done, heard = self._two_persons.take(
                    tx, GraveAct.waive_wipe, subject, tenant=device.tenant, actor=actor, channel="operator/local", now=now
                )
                justification, request, said = done.reason, done.request.hex(), [*heard]
            waived = WipeReceipt(device.id, device.tenant, b"", now, actor, justification, retired_at)
            why = f"no wipe receipt will come: {justification}"
            change = DeviceChange(device.id, device.state, device.state, now, why, actor, "operator/local", request)
            tx.add_wipe(waived, device.tenant)
            tx.append_leaf(leaf.wipe_waived(waived))
            tx.change_device(change)
            tx.append_leaf(leaf.device_change(device, change))
            tx.raise_high_time(now)
        self._witness.later([*said, testimony.Wiped(waived), testimony.DeviceMoved(device, change)])
        with suppress(Unavailable):
            # Committed and in force already.
            self._witness.settle()
        return waived

    def _retired(self, tx: Writing, name: DeviceId) -> Device:
        found = tx.lock_device(ids.device_id(name))
        if found is None:
            raise NotFound("no-such-device", "There is no such device.", why=f"{name} is not on record.")
        if found.state is not DeviceState.retired:
            raise Conflict(
                "device-not-retired",
                f"The device {name} is {found.state.value}.",
                why="Only a retired device wipes its keys.",
                fix=f"fleetca devices retire {name}",
            )
        return found

    def _blank_since(self, tx: Writing, device: Device) -> UnixTime:
        """When its id came back last: keys from before are another life's, of which there was a receipt to be had then."""
        return max((one.at for one in tx.device_changes(device.id) if one.before is DeviceState.retired is not one.after), default=0)

    def _order(self, tx: Writing, device: Device) -> wipe.Order:
        ended = [
            one.at for one in tx.device_changes(device.id) if one.after is DeviceState.retired and one.before is not DeviceState.retired
        ]
        return wipe.Order(self._policy.deployment, device.tenant, device.id, ended[-1] if ended else device.created)


def _closed(known: WipeReceipt) -> Conflict:
    said = "There is another receipt of it" if known.octets else f"It was closed without a receipt: {known.justification}"
    return Conflict("wipe-known", f"The record of {known.device} is closed already.", why=f"{said}, by {known.actor} on {date(known.at)}.")


def _actor(peer: Peer) -> str:
    if peer.role is not Role.operator:
        raise Denied("not-allowed", f"Role {peer.role.value} neither orders a wipe nor brings a receipt.")
    return f"role:{peer.role.value}@{peer.uid}"
