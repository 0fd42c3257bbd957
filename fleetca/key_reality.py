"""Does the inventory say what the stores hold? Compares what the stores of the settings enumerate with the records. Pure."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ca.model import KeyRecord, KeyState, UnixTime
from ca.rules import key_life

_MUST = {
    "sensitive": "True", "extractable": "False", "never_extractable": "True", "fixedtpm": "True", "fixedparent": "True", "origin": "AWS_KMS",
}  # fmt: skip
"""What a store must say of a key that it keeps closed, where it says anything of the kind."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference."""

    key: str
    what: str
    fix: str


def compare(records: Sequence[KeyRecord], stores: Sequence[Mapping[str, Any]], *, now: UnixTime) -> list[Finding]:
    """What differs, in words.

    Args:
        records: the inventory.
        stores: as the signer answers `keys-held`.
        now: for periods that are over.
    """
    findings: list[Finding] = []
    by_spki = {record.spki_sha256: record for record in records}
    seen: set[bytes] = set()
    for store in stores:
        # A sealed file says nothing of its key: its name, in the place that the inventory has, is all there is to go by.
        by_name = {str(record.name): record for record in records if record.store == store["kind"] and record.spki_sha256 not in seen}
        by_name |= {str(record.name): record for record in records if record.place in store["places"]}
        for key in store["keys"]:
            digest = hashlib.sha256(base64.b64decode(key["spki"])).digest() if key["spki"] else None
            record = by_spki.get(digest) if digest else by_name.get(key["name"])  # type: ignore[call-overload]
            findings += _judge(store, key, record)
            if record is not None:
                seen.add(record.spki_sha256)
    unasked = {store["kind"] for store in stores if store["trouble"]}
    kinds = {store["kind"] for store in stores} - unasked
    asked = {place for store in stores if not store["trouble"] for place in store["places"]}
    for record in records:
        ours = record.store in kinds or (record.store in unasked and record.place in asked)
        if ours and record.spki_sha256 not in seen and record.state is not KeyState.destroyed:
            findings.append(
                Finding(
                    record.name,
                    f"It is {record.state.value} in the inventory, and no store that the settings name holds it.",
                    "Find out where it went; a key that is lost is compromised: fleetca keys change NAME compromised",
                )
            )
        if key_life.overdue(record, now=now):
            findings.append(
                Finding(record.name, "Its period is over and it exists all the same.", "Destroy it: fleetca keys destroy-request NAME")
            )
    return findings


def _judge(store: Mapping[str, Any], key: Mapping[str, Any], record: KeyRecord | None) -> list[Finding]:
    name = key["name"] or "(no name)"
    if record is None:
        return [
            Finding(
                name, f"{store['about']} holds it, and the inventory does not know it.", "Find out whose it is; destroy what nobody needs."
            )
        ]
    found = []
    if record.state is KeyState.destroyed:
        found.append(
            Finding(name, f"It was destroyed, and {store['about']} holds it.", "Destroy it again, and find out where it came from.")
        )
    wrong = [f"{fact} is {said}" for fact, said in key["facts"].items() if _MUST.get(fact.lower(), said) != said]
    if wrong:
        found.append(Finding(name, f"Its store does not keep it closed: {', '.join(wrong)}.", "Replace it by a key that was made inside."))
    if record.algorithm != key["algorithm"] and key["algorithm"] is not None:
        found.append(Finding(name, f"It is {key['algorithm']}, and the inventory says {record.algorithm}.", "Find out which is true."))
    return found
