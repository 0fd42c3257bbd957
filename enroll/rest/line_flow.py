"""What stations of a factory line ask over the REST API: a shift, certificates for units, countersignatures. Verb ring: knows ports and rules only.

What a station brings carries its own signature, and the signer judges it: here nothing of it is believed, kept or changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ca.errors import Unavailable
from ca.model import Issuer, IssuerId, MessageEvidence, RecordSeal, Shift
from ca.rules.message import Act, Message
from enroll.model import StationAnswer
from enroll.ports import Signer
from enroll.rest import line_messages

ReadMessage = Callable[[Mapping[str, Any], Act], tuple[MessageEvidence, Message]]


class StationDoor:
    """The verbs.

    Args:
        issuers: the deployment's CA certificates.
        read_message: reads the signed message of a body.
    """

    def __init__(self, signer: Signer, issuers: Mapping[IssuerId, Issuer], read_message: ReadMessage) -> None:
        self._signer, self._issuers, self._read_message = signer, issuers, read_message

    def open_shift(self, members: Mapping[str, Any]) -> tuple[Shift, bytes, Sequence[Issuer]]:
        """An operator logs in at a station; the shift, the first line of its file, and who signed that, with whoever stands above."""
        given, message = self._read_message(members, Act.shift)
        shift, header = self._signer.open_shift(line_messages.shift_request(given, message))
        return shift, header, self._issuers_of(shift)

    def bring_units(self, members: Mapping[str, Any]) -> StationAnswer:
        """Units come onto the record and get their certificates. Asked again, the same part is answered with the same certificates.

        Raises:
            Unavailable: some of them cannot be decided now; all of it may be asked again.
        """
        part = line_messages.part_of(members)
        shift = self._signer.take_part(part)
        outcomes = self._signer.issue_units(shift.number, [each.encode() for each in part.lines])
        for one in outcomes:
            if isinstance(one, Unavailable):
                raise one
        return StationAnswer(shift, outcomes, self._issuers_of(shift))

    def seal_records(self, members: Mapping[str, Any]) -> RecordSeal:
        """The CA's countersignature over a station's provisioning records."""
        return self._signer.seal_records(members["station"], [each.encode() for each in members["records"]])

    def _issuers_of(self, shift: Shift) -> Sequence[Issuer]:
        """Whoever signed the quota, those that took its place since, and all above them; nobody else's."""
        found: dict[IssuerId, Issuer] = {}
        waiting: list[IssuerId | None] = [shift.issuer]
        while waiting:
            one = self._issuers.get(name) if (name := waiting.pop()) is not None else None
            if one is not None and one.id not in found:
                found[one.id] = one
                waiting += [one.parent, one.successor]
        return tuple(found.values())
