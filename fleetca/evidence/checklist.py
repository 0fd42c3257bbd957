"""The boxes of the sources' checklists, each answered from a deployment as it is now (REQ-KEY-029). Edge: looks, changes nothing.

A box is a function of the facts; nobody ticks one. What cannot be told from here is `open`, with the reason, and counts like a no.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ca.audit import Files
from ca.audit import verify as judge_record
from ca.log.tiles import TileDirectory
from ca.model import OWN_SERVICES, DeviceState, KeyPurpose, KeyRecord, Protection, RenewedBy, UnixTime
from ca.rules import caps, grant, key_life, note, pins
from ca.store.reading import Reading
from config.settings import Settings
from fleetca import forms
from fleetca.doctor import Finding
from fleetca.verdict import Level

_OURS: Final = (OWN_SERVICES, grant.ACCOUNT_DEVICE)
"""What begins so is a service, an operator or an account, no device."""
YES: Final = "yes"
NO: Final = "no"
OPEN: Final = "open"


@dataclass(frozen=True, slots=True)
class Answer:
    answer: str
    why: str
    link: str
    """The command or page that shows it."""


@dataclass(frozen=True, slots=True)
class Box:
    id: str
    asks: str
    requirement: str
    answer: Callable[[Facts], Answer]


@dataclass(frozen=True, slots=True)
class Facts:
    """All that boxes look at."""

    settings: Settings
    reading: Reading
    doctor: Sequence[Finding]
    root_present: bool | None
    """Whether the signer says that a root's key is open; None where it does not answer."""
    now: UnixTime

    def checks(self, *names: str) -> Answer | None:
        """What the doctor says under these names: a no, an open, or nothing to object."""
        found = [one.verdict for one in self.doctor if one.check in names]
        link = "fleetca doctor"
        wrong = [one.what for one in found if one.level is Level.finding]
        if wrong:
            return Answer(NO, " ".join(wrong), link)
        if not {one.check for one in self.doctor if one.verdict.level is Level.ok} >= set(names):
            said = " ".join(one.what for one in found if one.level is Level.note)
            return Answer(OPEN, said or "Nothing of it runs here that could be asked.", link)
        return None


def _generation(facts: Facts) -> Answer:
    wrong = facts.checks("clones")
    if wrong is not None:
        return wrong
    profiles = forms.profiles(facts.settings)
    made = sorted(name for name, profile in profiles.items() if profile.server_keygen)
    if made:
        return Answer(NO, f"Keys may be made away from the device by the profiles {', '.join(made)}.", "fleetca profiles list")
    return Answer(
        YES, "Devices make their keys; each key belongs to one device for ever; no copy was seen.", "docs/explanation/onboarding.md"
    )


def _storage(facts: Facts) -> Answer:
    wrong = facts.checks("secrets", "keys")
    if wrong is not None:
        return wrong
    weak = [one.name for one in _in_service(facts) if one.protection is not None and one.protection <= Protection.memory]
    if weak:
        return Answer(NO, f"Not kept in anything: {', '.join(sorted(weak))}.", "fleetca keys list")
    return Answer(YES, f"{len(_in_service(facts))} keys, each sealed, in a module or offline.", "fleetca keys list")


def _in_service(facts: Facts) -> Sequence[KeyRecord]:
    return [one for one in facts.reading.key_records() if one.state.value in {"active", "suspended"}]


def _offline(facts: Facts) -> Answer:
    roots = [one for one in facts.reading.issuers() if one.parent is None]
    if not roots:
        return Answer(OPEN, "No root is on record: no ceremony was imported.", "fleetca issuers list")
    keys = [one.id for one in facts.settings.issuers if one.key is not None and one.id in {root.id for root in roots}]
    if keys or facts.root_present:
        return Answer(
            NO, f"A root's key is within reach of online processes: {', '.join(keys) or 'the signer holds it'}.", "fleetca status"
        )
    if facts.root_present is None:
        return Answer(OPEN, "The settings name no root's key; the signer, which knows what is open, does not answer.", "fleetca status")
    return Answer(YES, "The settings name no root's key, and the signer holds none.", "fleetca status")


def _rotation(facts: Facts) -> Answer:
    overdue = [one.name for one in facts.reading.key_records() if key_life.overdue(one, now=facts.now)]
    if overdue:
        return Answer(NO, f"Used past their period: {', '.join(sorted(overdue))}.", "fleetca keys list")
    wrong = facts.checks("chain")
    if wrong is not None:
        return wrong
    stuck = sorted(
        name
        for name, one in forms.profiles(facts.settings).items()
        if not one.is_ca and not one.renewable and one.renewed_by is RenewedBy.protocol
    )
    if stuck:
        return Answer(NO, f"Nobody can renew what these profiles give: {', '.join(stuck)}.", "fleetca profiles list")
    return Answer(
        YES,
        "Every profile has its way of renewal, every issuer outlives what it issues, no key is past its period.",
        "docs/how-to/rollover.md",
    )


def _revocation(facts: Facts) -> Answer:
    wrong = facts.checks("crl", "status", "ocsp", "served")
    return wrong or Answer(YES, "CRLs are fresh, OCSP answers, and both say the same as the database.", "fleetca doctor")


def _pins(facts: Facts) -> Answer:
    if not facts.settings.enroll.pins.is_file():
        return Answer(NO, "No pin set is published: devices could not be told of another root.", "docs/how-to/pins.md")
    last = pins.read_set(pins.read_sets(facts.settings.enroll.pins.read_bytes())[-1].payload)
    if last.expires is not None and facts.now >= last.expires:
        return Answer(NO, f"Pin set {last.seq} is over.", "docs/how-to/pins.md")
    return Answer(YES, f"Pin set {last.seq} is published, with a backup.", "fleetca pins export")


def _audit(facts: Facts) -> Answer:
    wrong = facts.checks("record")
    if wrong is not None:
        return wrong
    log = facts.settings.log
    key = note.read_note_key(log.verifier.read_text())
    found = judge_record(Files(str(log.directory), TileDirectory(log.directory)), keys=[key]).findings
    if found:
        return Answer(NO, found[0].what, "fleetca audit verify")
    return Answer(YES, "The record holds: every leaf leads to its signed root.", "fleetca audit verify")


def _duties(facts: Facts) -> Answer:
    operators = [one for one in facts.reading.operators() if one.disabled_at is None]
    clashing = sorted(one.name for one in operators if caps.conflict(one.roles) is not None)
    if clashing:
        return Answer(NO, f"Roles that exclude each other meet in {', '.join(clashing)}.", "fleetca operators list")
    if len(operators) < 2:
        return Answer(NO, f"{len(operators)} operator is at work: nobody could approve what another one asks.", "fleetca operators list")
    return facts.checks("separation") or Answer(
        YES, f"{len(operators)} operators, no roles that exclude each other; web and signer are apart.", "fleetca doctor"
    )


def _reviews(facts: Facts) -> Answer:
    return facts.checks("reviews") or Answer(
        YES, "Reviews are on record, each signed by two persons, and none is overdue.", "docs/how-to/two-people.md"
    )


def _backup(facts: Facts) -> Answer:
    escrowed = [
        one.name
        for one in facts.reading.key_records()
        if one.store == "quorum" and one.purpose not in {KeyPurpose.root_ca, KeyPurpose.issuing_ca}
    ]
    if escrowed:
        return Answer(NO, f"Copies are kept of {', '.join(sorted(escrowed))}.", "fleetca keys list")
    return facts.checks("drills") or Answer(
        YES, "No key but a CA's has a backup, and restoring one was practised in time.", "docs/how-to/custody.md"
    )


def _wiping(facts: Facts) -> Answer:
    retired = sum(1 for one in facts.reading.every_device() if one.state is DeviceState.retired)
    if not retired:
        return Answer(OPEN, "No device was retired yet.", "fleetca devices list --state retired")
    return facts.checks("wipes") or Answer(
        YES, f"Each of the {retired} retired devices that had a certificate sent the receipt of its wipe.", "fleetca devices unwiped"
    )


def _root_of_trust(facts: Facts) -> Answer:
    wrong = facts.checks("exceptions")
    if wrong is not None:
        return wrong
    described = {device: one for device, one in facts.reading.every_device_facts() if one.root_of_trust is not None}
    devices = [one.id for one in facts.reading.every_device() if one.state is not DeviceState.retired and not one.id.startswith(_OURS)]
    silent = [one for one in devices if one not in described]
    if not devices:
        return Answer(OPEN, "There is no device at work.", "fleetca devices list")
    if silent:
        return Answer(
            NO, f"Of {len(silent)} devices nobody said where their keys live, {silent[0]} among them.", "fleetca devices describe"
        )
    return Answer(YES, f"All {len(devices)} devices say where their keys live; no exception is over.", "fleetca devices show")


BOXES: Final = (
    Box("generation", "Keys come from a sound generator, on the device, and no two devices share one.", "REQ-KEY-001", _generation),
    Box("storage", "Private keys are kept in protected storage, never in plain text.", "REQ-KEY-005", _storage),
    Box("offline-root", "Roots are offline; intermediate CAs sign production.", "REQ-KEY-002", _offline),
    Box("rotation", "Keys and certificates are rotated, with grace periods that are written down.", "REQ-KEY-009", _rotation),
    Box("revocation", "Revocation works by CRL and OCSP.", "REQ-KEY-010", _revocation),
    Box("pins", "Trust anchors are pinned, with a backup and a way to change them.", "REQ-KEY-019", _pins),
    Box("audit", "Provisioning, rotation and revocation are recorded so that a change would be seen.", "REQ-KEY-092", _audit),
    Box("duties", "Duties are separated, and rights are the least that are needed.", "REQ-KEY-016", _duties),
    Box("reviews", "What was done is reviewed regularly, and somebody signs for it.", "REQ-KEY-093", _reviews),
    Box("backup", "Signing keys are not escrowed; what is backed up is restored in drills.", "REQ-KEY-015", _backup),
    Box("wiping", "Keys are wiped when a device is retired.", "REQ-KEY-020", _wiping),
    Box("root-of-trust", "Each device has a root of trust that was chosen, or an exception that ends.", "REQ-KEY-049", _root_of_trust),
)


def answers(facts: Facts) -> Sequence[tuple[Box, Answer]]:
    """Every box with its answer."""
    return [(box, box.answer(facts)) for box in BOXES]
