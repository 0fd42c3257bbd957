"""The one policy over what is shown of a device's key: by a TPM, a secure element's maker, or a factory certificate. Ring 1: pure.

It takes facts that others proved and gives a verdict in words: which rule, which facts. The verdict is part of the grant, so it stands with the
certificate in the database, the log and the journal for ever. One table, in the order of strength; the first rule that holds decides:

    tpm-certified     a TPM of a trusted maker says now that the CSR's key was made in it and stays there
    se-listed         the CSR's key is one that the maker of the secure element listed for this device, in a manifest we verified
    idevid-shown      the device shows its factory certificate; says who it is, and nothing of where the CSR's key lies
    idevid-renewal    a renewal, by its current key, of a device whose factory certificate is on record

What contradicts the record is refused whatever the profile asks: another TPM, another factory key, another CSR key than the one attested.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ca.errors import Denied
from ca.model import Anchor, AttestationKind, DeviceFacts, DeviceId, Digest, EvidenceKind, Profile, UnixTime, Verdict
from ca.rules.attestation.tpm import Proof


@dataclass(frozen=True, slots=True)
class Shown:
    """The facts of one request, all of them proven before."""

    device: DeviceId
    key: Digest
    """Of the CSR."""
    evidence: EvidenceKind
    renewal: bool
    proof: Proof | None = None
    factory: tuple[str, Digest] | None = None
    """The manufacturer whose certificate was shown, and the key in it."""


def judge(shown: Shown, anchors: Sequence[Anchor], profile: Profile) -> Verdict | None:
    """The verdict on a request; None where nothing is asked and nothing shown.

    Args:
        anchors: the keys of the device's hardware that are on record.

    Raises:
        Denied: what is shown contradicts itself or the record (`attested-key-differs`, `tpm-of-another-device`, `factory-key-differs`), or the
            profile asks for more (`attestation-needed`).
    """
    consistent(shown, anchors)
    asked = profile.attestation
    found = [verdict for verdict in _found(shown, anchors) if not asked or verdict.kind in asked]
    if found:
        return found[0]
    if asked:
        raise Denied(
            "attestation-needed",
            f"Profile {profile.name!r} is for keys that are attested: {', '.join(kind.value for kind in asked)}.",
            why=" ".join(_missing(kind, shown, anchors) for kind in asked),
            fix="Enrol with attestation: fleetca agent enrol --attest, or docs/how-to/attestation.md.",
        )
    return None


def consistent(shown: Shown, anchors: Sequence[Anchor]) -> None:
    """Device, attested key and CSR are of one; each one that was swapped is refused by name."""
    proof = shown.proof
    if proof is not None:
        if proof.key != shown.key:
            raise Denied(
                "attested-key-differs",
                "The key in the CSR is not the one that the TPM attested.",
                why=f"Attested is {_short(proof.key)}, asked for {_short(shown.key)}.",
            )
        known = [anchor for anchor in anchors if anchor.kind is AttestationKind.tpm]
        if known and all(anchor.spki_sha256 != proof.endorsement.spki_sha256 for anchor in known):
            raise Denied(
                "tpm-of-another-device",
                f"This is not the TPM of {shown.device}.",
                why=f"On record is endorsement key {_short(known[0].spki_sha256)}, shown was {_short(proof.endorsement.spki_sha256)}.",
                fix="A device with a new mainboard is a new device: give it a new id.",
            )
    if shown.factory is not None:
        known = [anchor for anchor in anchors if anchor.kind is AttestationKind.idevid]
        if known and all(anchor.spki_sha256 != shown.factory[1] for anchor in known):
            raise Denied(
                "factory-key-differs",
                f"This is not the factory certificate of {shown.device}.",
                why=f"On record is one with the key {_short(known[0].spki_sha256)}, shown was {_short(shown.factory[1])}.",
            )


def _found(shown: Shown, anchors: Sequence[Anchor]) -> list[Verdict]:
    """Every rule that holds, the strongest first."""
    found = []
    proof = shown.proof
    if proof is not None:
        tpm = proof.endorsement
        words = (
            f"A TPM of maker {tpm.maker} ({tpm.manufacturer}, model {tpm.model}, version {tpm.version}, firmware {proof.firmware:016x}) certified"
            f" key {_short(shown.key)} as fixedTPM and fixedParent, with an attestation key that it activated beside endorsement key"
            f" {_short(tpm.spki_sha256)}."
        )
        found.append(Verdict(AttestationKind.tpm, "tpm-certified", words, tpm.spki_sha256))
    listed = next((anchor for anchor in anchors if anchor.kind is AttestationKind.se and anchor.spki_sha256 == shown.key), None)
    if listed is not None:
        words = f"Key {_short(shown.key)} signed the request, and is one that {listed.source} listed for the secure element of this device."
        found.append(Verdict(AttestationKind.se, "se-listed", words, listed.spki_sha256))
    if shown.factory is not None:
        name, key = shown.factory
        words = f"The device showed the factory certificate that manufacturer {name} gave it, with key {_short(key)}. Where the new key lies it does not say."
        found.append(Verdict(AttestationKind.idevid, "idevid-shown", words, key))
    factory = next((anchor for anchor in anchors if anchor.kind is AttestationKind.idevid), None)
    if shown.renewal and factory is not None and shown.factory is None:
        words = f"The current key of the device asked, and its factory certificate by {factory.source} is on record."
        found.append(Verdict(AttestationKind.idevid, "idevid-renewal", words, factory.spki_sha256))
    return found


def _missing(kind: AttestationKind, shown: Shown, anchors: Sequence[Anchor]) -> str:
    if kind is AttestationKind.tpm:
        return "No TPM attested the key."
    if kind is AttestationKind.se:
        if any(anchor.kind is AttestationKind.se for anchor in anchors):
            return f"Key {_short(shown.key)} is none of those that the secure element's maker listed for this device."
        return "No manifest of a secure element's maker lists this device."
    return "No factory certificate was shown, and none is on record."


def to_keep(verdict: Verdict, shown: Shown, anchors: Sequence[Anchor], *, now: UnixTime) -> Anchor | None:
    """What the device's record learns from a first verdict: its TPM, or its factory key. From then on no other is taken for it."""
    if any(anchor.kind is verdict.kind and anchor.spki_sha256 == verdict.anchor for anchor in anchors):
        return None
    source = ""
    if verdict.kind is AttestationKind.tpm and shown.proof is not None:
        source = shown.proof.endorsement.maker
    elif verdict.kind is AttestationKind.idevid and shown.factory is not None:
        source = shown.factory[0]
    return Anchor(verdict.kind, verdict.anchor, source, now)


def with_anchors(facts: DeviceFacts | None) -> tuple[Anchor, ...]:
    """The anchors of a device of which nothing may have been said."""
    return () if facts is None else facts.anchors


def _short(digest: bytes) -> str:
    return f"sha256:{digest.hex()[:16]}"
