"""Part 08 of an evidence pack: who may do what, who asked for grave acts and who approved them. Edge: reads only."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from ca.model import Digest, MessageEvidence
from ca.rules import caps
from ca.rules.leaf import canonical
from ca.rules.message import digest_of
from fleetca.evidence import redaction
from fleetca.evidence.source import File, Source, document


def access(source: Source) -> Iterator[File]:
    """Operators and roles as they are, what happened to them, and the messages that were signed for grave acts."""
    shown = source.redaction.shown
    yield source.events("08-access/events.jsonl")
    if source.redaction.classes:
        source.absent.append("signed messages of proposals: withheld, they hold names; the record holds the hash of each")
    else:
        yield "08-access/messages.jsonl", _messages(source)
    operators = [
        {
            "name": shown(one.name, redaction.OPERATORS),
            "person": shown(one.who, redaction.OPERATORS),
            "tenant": shown(one.tenant, redaction.TENANTS),
            "roles": list(one.roles),
            "excluding_roles": caps.conflict(one.roles),
            "created": one.created,
            "disabled_at": one.disabled_at,
        }
        for one in sorted(source.reading.operators(), key=lambda one: one.name)
    ]
    yield "08-access/operators.json", document(operators)
    yield "08-access/roles.json", document(_roles(source))


def _roles(source: Source) -> dict[str, Any]:
    signer = source.settings.signer
    given = {role: cap.model_dump(mode="json") for role, cap in signer.caps.items()}
    return {
        "powers": {role: sorted(power.value for power in powers) for role, powers in caps.OPERATOR_POWERS.items()},
        "excluding": sorted(sorted(pair) for pair in caps.EXCLUSIVE),
        "two_persons": source.settings.approvals.model_dump(mode="json"),
        "users": None if signer.users is None else {str(uid): list(roles) for uid, roles in signer.users.items()},
        "caps": json.loads(json.dumps(given)),
    }


def _messages(source: Source) -> Iterator[bytes]:
    """What each proposal's leaf has the hash of, in the record's order."""
    for _, leaf in source.leaves():
        if leaf["kind"] == "proposal" and leaf["message_sha256"]:
            made = _message(source, leaf["request"], leaf["message_sha256"])
            told = {} if made is None else {"certificate": made.certificate, "payload": made.payload, "signature": made.signature}
            yield canonical({name: base64.b64encode(octets).decode() for name, octets in told.items()}) + b"\n"


def _message(source: Source, request: str, digest: str) -> MessageEvidence | None:
    known = source.reading.find_proposal(Digest(bytes.fromhex(request)))
    said = () if known is None else (known.asked, *known.answers)
    return next((one.message for one in said if digest_of(one.message.payload).hex() == digest), None)
