"""Taking the makers' manifests of secure elements onto the record: each good entry is a device that is known by its keys, each bad one is refused by
name and put on record as that. Asked for by role operator on the signer's socket only. Knows rules and ports.

Every entry is judged here, by its own signature, and alone. What was taken before is found as it is: a run that was stopped is run again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress

from ca import lineage
from ca.errors import Busy, Conflict, Denied, FleetcaError, KeyUnavailable, Malformed, Unavailable
from ca.model import (
    OWN_SERVICES,
    Anchor,
    AttestationKind,
    Device,
    DeviceChange,
    DeviceFacts,
    DeviceId,
    DeviceState,
    Digest,
    EvidenceKind,
    ManifestImport,
    ManifestOutcome,
    Peer,
    Role,
    TenantId,
    UnixTime,
)
from ca.ports import Clock, Ledger, Writing
from ca.rules import device_life, grant, ids, leaf, testimony
from ca.rules.attestation.manifest import Element, ManifestSigner, claimed_id, read_entry, read_signer
from ca.rules.clock import trusted
from ca.witness import Witness

RECORDED, KNOWN, REFUSED = "recorded", "known", "refused"


class ImportingManifests:
    def __init__(self, *, ledger: Ledger, witness: Witness, tenant: TenantId, clock: Clock) -> None:
        self._ledger, self._witness, self._tenant, self._clock = ledger, witness, tenant, clock

    def take(self, asked: ManifestImport, peer: Peer) -> tuple[ManifestOutcome, ...]:
        """What became of each entry, in their order. Repeating is harmless.

        Raises:
            Denied: who asks is no operator of this machine.
            Malformed: the signer's certificate is none (`manifest-signer`), or the beginning of ids makes none (`bad-device-id`).
        """
        if peer.role is not Role.operator:
            raise Denied("not-allowed", f"Role {peer.role.value} brings no manifests.")
        signer = read_signer(asked.signer)
        ids.device_id(asked.prefix + "0" * 8)
        if asked.prefix.startswith((OWN_SERVICES, grant.ACCOUNT_DEVICE)):
            raise Malformed("bad-device-id", "Ids that begin so are not those of devices.", fix="Choose another --prefix.")
        actor = f"role:{peer.role.value}@{peer.uid}"
        told: list[ManifestOutcome] = []
        heard: list[testimony.Record] = []
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            for number, text in enumerate(asked.entries, asked.first):
                own: list[testimony.Record] = []
                try:
                    with tx.savepoint():
                        outcome = self._one(tx, asked, signer, (number, text), own, actor=actor, now=now)
                except FleetcaError as error:
                    if isinstance(error, Unavailable) and not isinstance(error, (Busy, KeyUnavailable)):
                        raise
                    told.append(ManifestOutcome(number, REFUSED, claimed_id(text), error.code, str(error)))
                    heard += _refused(tx, asked, number, text, error, actor=actor, now=now)
                    continue
                told.append(outcome)
                heard += own
            if heard:
                tx.raise_high_time(now)
        self._witness.later(heard)
        with suppress(Unavailable):
            # Committed and in force already.
            self._witness.settle()
        return tuple(told)

    def _one(
        self,
        tx: Writing,
        asked: ManifestImport,
        signer: ManifestSigner,
        entry: tuple[int, str],
        said: list[testimony.Record],
        *,
        actor: str,
        now: UnixTime,
    ) -> ManifestOutcome:
        number, text = entry
        element = read_entry(text, signer)
        name = ids.device_id(asked.prefix + element.unique_id)
        source = f"manifest {asked.manifest.hex()[:32]} entry {number}"
        device, facts = tx.lock_device(name), tx.device_facts(name) or DeviceFacts()
        if _taken_before(name, device, facts, element, source, tenant=self._tenant):
            return ManifestOutcome(number, KNOWN, element.unique_id, "", name)
        request = hashlib.sha256(text.encode()).hexdigest()
        way = device_life.channel(Role.operator, EvidenceKind.local)

        def step(before: DeviceState | None, after: Device, reason: str, facts: DeviceFacts | None = None) -> None:
            change = DeviceChange(after.id, before, after.state, now, reason, actor, way, request)
            tx.change_device(change)
            tx.append_leaf(leaf.device_change(after, change))
            said.append(testimony.DeviceMoved(after, change, facts))

        if device is None:
            device = Device(name, self._tenant, DeviceState.blank, now)
            tx.add_device(device)
            step(None, device, "registered")
        after = facts
        for key in element.keys:
            anchor = Anchor(AttestationKind.se, key, source, now)
            lineage.claim_anchor(tx, anchor, device)
            after = device_life.anchored(after, anchor)
        tx.set_device_facts(name, after)
        tx.append_leaf(leaf.device_facts(name, after, at=now))
        step(device.state, device, device_life.difference(facts, after), after)
        if device.state is DeviceState.blank:
            provisioned, change = device_life.move(
                device, DeviceState.provisioned, reason="listed by its maker", actor=actor, channel=way, request=request, at=now
            )
            tx.change_device(change)
            tx.append_leaf(leaf.device_change(provisioned, change))
            said.append(testimony.DeviceMoved(provisioned, change))
        return ManifestOutcome(number, RECORDED, element.unique_id, "", name)


def _taken_before(name: DeviceId, device: Device | None, facts: DeviceFacts, element: Element, source: str, *, tenant: TenantId) -> bool:
    """Is this very element on record?

    Raises:
        Conflict: the serial number stands twice in the manifest (`manifest-serial-twice`), or is that of a device with other keys or a life
            of its own (`serial-on-record`).
    """
    if device is None:
        return False
    anchors = [one for one in facts.anchors if one.kind is AttestationKind.se]
    head = source.rpartition(" entry ")[0]
    if any(one.source.startswith(f"{head} entry ") and one.source != source for one in anchors):
        raise Conflict("manifest-serial-twice", "The serial number stands twice in the manifest.", why=f"Also in {anchors[0].source}.")
    if device.tenant == tenant and anchors and {one.spki_sha256 for one in anchors} == set(element.keys):
        return True
    if anchors or device.tenant != tenant or device.state not in {DeviceState.blank, DeviceState.provisioned}:
        raise Conflict(
            "serial-on-record",
            f"There is a device {name} already, with other keys or a life of its own.",
            fix="Look at it: fleetca devices show ID",
        )
    return False


def _refused(
    tx: Writing, asked: ManifestImport, number: int, text: str, error: FleetcaError, *, actor: str, now: UnixTime
) -> Sequence[testimony.Record]:
    """A bad entry stands on record, once: as the digest of what it was, and why."""
    entry = hashlib.sha256(text.encode(errors="surrogatepass")).digest()
    mark = Digest(
        hashlib.sha256(b"fleetca manifest entry\0" + asked.manifest + number.to_bytes(8, "big") + entry + error.code.encode()).digest()
    )
    try:
        tx.consume_message(mark, now=now)
    except Conflict:
        return ()
    tx.append_leaf(leaf.manifest_refused(manifest=asked.manifest, number=number, entry=Digest(entry), code=error.code, actor=actor, at=now))
    return (testimony.MessageUsed(mark, now),)
