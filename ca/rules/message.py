"""Signed messages: what a key holder asks for where TLS does not speak for it (DESIGN 5). Ring 1: pure.

Owns the payload's form, the octets that are signed and the window in which a message counts. Does not know who may ask for what: that
is `ca.rules.grant`. A message says which act it is for and for which deployment, so that a signature given for one purpose
serves no other; its `id` makes two otherwise equal messages differ.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from ca.errors import Malformed, Unauthenticated
from ca.model import CertificateRef, DeviceId, Digest, Name, ProfileName, Reason, UnixTime
from ca.rules import ids

MESSAGE_CONTEXT: Final = b"fleetca message v1\0"
LONGEST_PAYLOAD: Final = 96 * 1024


class Act(Enum):
    """What a message asks for."""

    renew = "renew"
    confirm = "confirm"
    revoke = "revoke"
    create_token = "create-token"
    issue = "issue"
    report = "report"
    approve = "approve"
    propose = "propose"
    shift = "shift"


WINDOW: Final = {
    Act.renew: 3600,
    Act.confirm: 300,
    Act.revoke: 300,
    Act.create_token: 300,
    Act.issue: 300,
    Act.report: 300,
    Act.approve: 300,
    Act.propose: 300,
    Act.shift: 300,
}
"""Seconds around `issued_at` in which a message counts. A renewal may be retried for an hour with the same octets, and gets one certificate."""

_COMMON: Final = frozenset({"act", "audience", "issued_at", "id"})
FIELDS: Final = {
    Act.renew: (frozenset({"csr"}), frozenset[str]()),
    Act.confirm: (frozenset[str](), frozenset({"issuer", "serial"})),
    Act.revoke: (frozenset({"reason"}), frozenset({"issuer", "serial", "device"})),
    Act.create_token: (frozenset({"device", "profile", "lifetime"}), frozenset({"names"})),
    Act.issue: (frozenset({"device", "profile", "csr"}), frozenset({"names"})),
    Act.report: (frozenset({"outcome"}), frozenset({"code", "due", "agent"})),
    Act.approve: (frozenset({"request", "decision"}), frozenset({"words"})),
    Act.propose: (frozenset({"grave", "subject", "lifetime", "words"}), frozenset[str]()),
    Act.shift: (frozenset({"station", "station_key", "profile", "count", "lifetime"}), frozenset[str]()),
}
"""Required and optional fields of each act, beside the common ones."""
_DECISIONS: Final = {"approve": True, "refuse": False}


@dataclass(frozen=True, slots=True)
class Message:
    """A payload that was read; nothing in it is believed before the signature and the window are checked."""

    act: Act
    audience: str
    issued_at: UnixTime
    id: str
    csr: bytes | None = None
    reason: Reason | None = None
    target: CertificateRef | None = None
    device: DeviceId | None = None
    profile: ProfileName | None = None
    names: tuple[Name, ...] = ()
    lifetime: int | None = None
    report: Mapping[str, str | int] | None = None
    """What a device says of its renewals: `outcome`, `code`, `due`, `agent`. Enrolment reads it; the signer never does."""
    decision: tuple[str, bool, str] | None = None
    """The whole hash of a request in hex, whether it is approved, and words about it."""
    proposal: tuple[str, str, int, str] | None = None
    """A grave act, the exact request as canonical JSON, the seconds that it holds, and words about it."""
    station: tuple[str, str, int] | None = None
    """Of a shift: the station's name, the SHA-256 of its key in hex, and units at most."""


def signed_octets(payload: bytes) -> bytes:
    """What the key signs: a context no other protocol uses, then the payload as it travels."""
    return MESSAGE_CONTEXT + payload


def digest_of(payload: bytes) -> Digest:
    """What makes a repeated message the same message. Not the signature: ECDSA gives another one each time."""
    return Digest(hashlib.sha256(payload).digest())


def _bad(why: str) -> Malformed:
    return Malformed("bad-message", "The signed message cannot be read.", why=why)


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document[key]
    if not isinstance(value, str) or len(value) > LONGEST_PAYLOAD:
        raise _bad(f"`{key}` must be a string.")
    return value


def _number(document: Mapping[str, Any], key: str) -> int:
    value = document[key]
    if type(value) is not int or not 0 <= value < 2**53:
        raise _bad(f"`{key}` must be a whole number that is not negative.")
    return value


def _octets(document: Mapping[str, Any], key: str) -> bytes:
    try:
        return base64.b64decode(_text(document, key), validate=True)
    except (binascii.Error, ValueError):
        raise _bad(f"`{key}` must be base64.") from None


def names_from(value: object) -> tuple[Name, ...]:
    """Names from their JSON form, a list of `{"kind", "value"}`."""
    if not isinstance(value, list) or len(value) > ids.MOST_NAMES:
        raise Malformed("bad-name", "Names must be a list.", why=f"At most {ids.MOST_NAMES} objects with `kind` and `value`.")
    found = []
    for item in value:
        if not isinstance(item, dict) or set(item) != {"kind", "value"} or not all(isinstance(part, str) for part in item.values()):
            raise Malformed("bad-name", "A name must be an object.", why="It holds `kind` and `value`, both strings.")
        found.append(ids.name(item["kind"], item["value"]))
    return tuple(found)


def names_to(names: Sequence[Name]) -> list[dict[str, str]]:
    """The JSON form of names."""
    return [{"kind": str(name.kind), "value": name.value} for name in names]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two readers that differ on which of two equal keys counts would read two messages under one signature.
    document = dict(pairs)
    if len(document) != len(pairs):
        raise _bad("A key stands in it twice.")
    return document


def _object(payload: bytes) -> dict[str, Any]:
    if len(payload) > LONGEST_PAYLOAD:
        raise _bad(f"It is longer than {LONGEST_PAYLOAD} octets.")
    try:
        document = json.loads(payload.decode("utf-8"), object_pairs_hook=_unique)
    except (UnicodeDecodeError, ValueError, RecursionError):
        raise _bad("It is not JSON in UTF-8.") from None
    if not isinstance(document, dict):
        raise _bad("It must be a JSON object.")
    return document


def read_message(payload: bytes) -> Message:
    """Read a payload strictly: an unknown act or field, a missing or doubled one, is `Malformed`."""
    document = _object(payload)
    if not set(document) >= _COMMON:
        raise _bad(f"It must hold {', '.join(sorted(_COMMON))}.")
    word = _text(document, "act")
    try:
        act = Act(word)
    except ValueError:
        raise _bad(f"`act` must be one of {', '.join(act.value for act in Act)}.") from None
    required, optional = FIELDS[act]
    fields = set(document) - _COMMON
    if not required <= fields or not fields <= required | optional:
        raise _bad(f"`{act.value}` takes {', '.join(sorted(required)) or 'nothing'}; optional: {', '.join(sorted(optional)) or 'nothing'}.")
    identifier = _text(document, "id")
    if not 16 <= len(identifier) <= 128:
        raise _bad("`id` must be 16 to 128 characters.")
    has_target = bool(fields & {"issuer", "serial"})
    if act is Act.revoke and has_target == ("device" in document):
        raise _bad("`revoke` names either `issuer` and `serial`, or `device`.")
    if has_target and not {"issuer", "serial"} <= fields:
        raise _bad("`issuer` and `serial` belong together.")
    return Message(
        act=act,
        audience=_text(document, "audience"),
        issued_at=_number(document, "issued_at"),
        id=identifier,
        csr=_octets(document, "csr") if "csr" in document else None,
        reason=ids.reason_named(_text(document, "reason")) if "reason" in document else None,
        target=(
            CertificateRef(ids.issuer_id(_text(document, "issuer")), ids.serial_from_hex(_text(document, "serial"))) if has_target else None
        ),
        device=ids.device_id(_text(document, "device")) if "device" in document else None,
        profile=ids.profile_name(_text(document, "profile")) if "profile" in document else None,
        names=names_from(document["names"]) if "names" in document else (),
        lifetime=_number(document, "lifetime") if "lifetime" in document and act is not Act.propose else None,
        report={key: _number(document, key) if key == "due" else _text(document, key) for key in fields} if act is Act.report else None,
        decision=_decision(document) if act is Act.approve else None,
        proposal=_proposal(document) if act is Act.propose else None,
        station=_station(document) if act is Act.shift else None,
    )


def _decision(document: Mapping[str, Any]) -> tuple[str, bool, str]:
    word = _text(document, "decision")
    if word not in _DECISIONS:
        raise _bad(f"`decision` must be one of {', '.join(_DECISIONS)}.")
    return (
        ids.hash_beginning(_text(document, "request"), whole=True),
        _DECISIONS[word],
        _text(document, "words") if "words" in document else "",
    )


def _station(document: Mapping[str, Any]) -> tuple[str, str, int]:
    return _text(document, "station"), ids.hash_beginning(_text(document, "station_key"), whole=True), _number(document, "count")


def _proposal(document: Mapping[str, Any]) -> tuple[str, str, int, str]:
    return _text(document, "grave"), _text(document, "subject"), _number(document, "lifetime"), _text(document, "words")


def write_message(message: Message) -> bytes:
    """The payload to sign, as canonical JSON."""
    document: dict[str, Any] = {
        "act": message.act.value,
        "audience": message.audience,
        "issued_at": message.issued_at,
        "id": message.id,
    }
    if message.csr is not None:
        document["csr"] = base64.b64encode(message.csr).decode("ascii")
    if message.reason is not None:
        document["reason"] = message.reason.name
    if message.target is not None:
        document["issuer"] = message.target.issuer
        document["serial"] = f"{message.target.serial:040x}"
    if message.device is not None:
        document["device"] = message.device
    if message.profile is not None:
        document["profile"] = message.profile
    if message.names:
        document["names"] = names_to(message.names)
    if message.lifetime is not None:
        document["lifetime"] = message.lifetime
    document |= message.report or {}
    if message.decision is not None:
        request, approve, words = message.decision
        document |= {"request": request, "decision": "approve" if approve else "refuse"} | ({"words": words} if words else {})
    if message.proposal is not None:
        document |= dict(zip(("grave", "subject", "lifetime", "words"), message.proposal, strict=True))
    if message.station is not None:
        document |= dict(zip(("station", "station_key", "count"), message.station, strict=True))
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def check_message(message: Message, *, acts: frozenset[Act], deployment: str, now: UnixTime) -> None:
    """Is this message for this act, for us, and of now?

    Raises:
        Unauthenticated: `message-for-another-act`, `message-for-another-deployment`, `message-out-of-time`.
    """
    if message.act not in acts:
        raise Unauthenticated(
            "message-for-another-act",
            "The signed message asks for something else.",
            why=f"It says `{message.act.value}`; here count {', '.join(sorted(act.value for act in acts))}.",
        )
    if message.audience != deployment:
        raise Unauthenticated(
            "message-for-another-deployment",
            "The signed message is meant for another deployment.",
            why="Its `audience` is not this deployment's name.",
            fix=f"Sign a message whose audience is {deployment!r}.",
        )
    window = WINDOW[message.act]
    if abs(now - message.issued_at) > window:
        raise Unauthenticated(
            "message-out-of-time",
            "The signed message is too old, or from the future.",
            why=f"It was signed at {message.issued_at}, here it is {now}; at most {window} seconds may lie between.",
            fix="Set the clock of the device right and sign a new message.",
        )
