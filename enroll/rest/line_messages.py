"""What a station of a factory line sends over the REST API, and what it is answered: bytes to model and back. Ring 1: pure.

A station sends what stands in its file, octet by octet, since what is signed is the octets: lines are text here, and the certificate requests in them are
the signer's to read.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ca.der.pem import CERTIFICATE, pem
from ca.errors import FleetcaError
from ca.model import Digest, Issuer, RecordSeal, Shift, ShiftRequest, UnitPart
from ca.rules.message import Message
from enroll.model import StationAnswer
from enroll.rest import fields
from enroll.rest.fields import Body, Field

MOST_AT_ONCE: Final = 256
"""Units or records of one request; before that, the body is full."""
_STATION: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


def _texts(name: str, *, about: str) -> Field:
    def read(value: object, where: str) -> tuple[str, ...]:
        if not isinstance(value, list) or not 0 < len(value) <= MOST_AT_ONCE or not all(isinstance(one, str) for one in value):
            raise fields.wrong(where, f"a list of 1 to {MOST_AT_ONCE} strings")
        return tuple(value)

    schema = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MOST_AT_ONCE, "description": about}
    return Field(name, read, schema)


def _line(name: str, *, about: str) -> Field:
    return fields.text(name, pattern=r"\{[\x20-\x7e]{1,16000}\}", should="a line of the station's file", about=about)


UNITS: Final = Body(
    "UnitPart",
    "Units of a shift as they stand in its station's file, and the station's seal over all up to the last of them.",
    (
        _line("header", about="The first line of the file: the quota."),
        Field(
            "first",
            fields.count("first", least=1, most=999_999_999, about="The number of the first unit.").read,
            {"type": "integer", "minimum": 1},
        ),
        _texts("lines", about="The units' lines, in their order."),
        _line("seal", about="The seal: count, running hash, the station's signature."),
    ),
)
RECORDS: Final = Body(
    "RecordsRequest",
    "Provisioning records of a station, which follow what was countersigned, or overlap with its end.",
    (
        fields.text("station", pattern=_STATION, should="a station's name", about="The station."),
        _texts("records", about="YAML documents, in their order."),
    ),
)


def part_of(members: Mapping[str, Any]) -> UnitPart:
    """The units that a body brings."""
    return UnitPart(members["header"], members["first"], members["lines"], members["seal"])


def shift_request(evidence: Any, message: Message) -> ShiftRequest:
    """What a signed message asks for."""
    assert message.station is not None, "read_message requires it of this act"
    assert message.profile is not None, "read_message requires it of this act"
    assert message.lifetime is not None, "read_message requires it of this act"
    station, key, count = message.station
    return ShiftRequest(evidence, station, Digest(bytes.fromhex(key)), message.profile, count, message.lifetime)


# ---- Answers --------------------------------------------------------------------------------------------------------


def render_shift(shift: Shift, header: bytes, issuers: Sequence[Issuer]) -> dict[str, Any]:
    """A shift that was opened."""
    return {
        "shift": shift.number,
        "station": shift.station,
        "operator": shift.operator,
        "profile": shift.profile,
        "issuer": shift.issuer,
        "count": shift.count,
        "not_after": fields.timestamp(shift.not_after),
        "accept_until": fields.timestamp(shift.accept_until),
        "header": header.decode(),
        "issuers": _issuers(issuers),
    }


def render_units(answer: StationAnswer) -> dict[str, Any]:
    """What came of a part's units, in their order."""
    units = [_unit(one) for one in answer.outcomes]
    return {"shift": answer.shift.number, "taken": answer.shift.taken, "units": units, "issuers": _issuers(answer.issuers)}


def _unit(outcome: bytes | FleetcaError) -> dict[str, Any]:
    if isinstance(outcome, FleetcaError):
        return {"refused": outcome.code, "what": str(outcome)}
    return {"certificate": base64.b64encode(outcome).decode()}


def render_seal(seal: RecordSeal) -> dict[str, Any]:
    """A countersignature."""
    return {
        "station": seal.station,
        "count": seal.count,
        "last": seal.last,
        "issuer": seal.issuer,
        "at": fields.timestamp(seal.at),
        "signature": base64.b64encode(seal.signature).decode(),
    }


def _issuers(issuers: Sequence[Issuer]) -> list[dict[str, Any]]:
    """CA certificates by the names that records call them."""
    return [{"id": one.id, "parent": one.parent, "certificate": pem(CERTIFICATE, one.certificate)} for one in issuers]
