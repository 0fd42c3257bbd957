"""Signed messages as files, carried by people where no signer runs: what `fleetca recover --ask` and `fleetca approvals sign` write and read."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from fleetca.cli import output, reach

if TYPE_CHECKING:
    from ca.model import MessageEvidence

_PARTS = ("payload", "certificate", "signature")
_LARGEST = 1 << 20


def write(file: str, message: MessageEvidence) -> None:
    """To a new file; the form is that of a body of the REST API."""
    parts = {name: base64.b64encode(getattr(message, name)).decode() for name in _PARTS}
    reach.write_new(file, (json.dumps({"message": parts}, indent=1) + "\n").encode())


def read(file: str) -> MessageEvidence:
    """One of them. What it says is believed by nobody here.

    Raises:
        Malformed: it is none (`bad-approval-file`).
    """
    from ca.errors import Malformed
    from ca.model import MessageEvidence

    octets = reach.read(file)
    try:
        document = json.loads(octets) if len(octets) <= _LARGEST else None
        parts = document["message"] if isinstance(document, dict) and document.keys() == {"message"} else None
        if isinstance(parts, dict) and parts.keys() == set(_PARTS):
            return MessageEvidence(**{name: base64.b64decode(parts[name], validate=True) for name in _PARTS})
    except (ValueError, TypeError, RecursionError):
        pass
    raise Malformed(
        "bad-approval-file", f"{file} holds no signed message.", fix="Make it with fleetca recover --ask, or fleetca approvals sign."
    )


def digest(message: MessageEvidence) -> str:
    """What an approval names: the SHA-256 of a request, in hex."""
    from ca.rules.message import digest_of

    return digest_of(message.payload).hex()


def shown(message: MessageEvidence) -> str:
    """What a request asks for, for whoever is to sign it.

    Raises:
        Malformed: it asks for nothing of the kind (`bad-message`, `proposal-subject`).
    """
    from ca.rules.message import read_message
    from ca.rules.two_persons import act_of, read_subject

    said = read_message(message.payload)
    act = act_of(said)
    assert said.proposal is not None, "act_of sees to it"
    _, subject, lifetime, words = said.proposal
    exact = sorted(read_subject(act, subject).items())
    return reach.facts(
        (
            ("request", digest(message)),
            ("deployment", said.audience),
            ("act", act.value),
            *((f"  {name.replace('_', ' ')}", str(value)) for name, value in exact),
            ("reason", words),
            ("asked at", output.iso(said.issued_at)),
            ("ends", output.iso(said.issued_at + lifetime)),
        )
    )
