"""A station that reaches the CA over the network only: the REST API in place of the signer's socket. Edge: HTTP; the rules are `ca.rules.line`.

The service is believed as far as TLS and the root that the station was given reach: an issuer counts if its certificate leads to that root. What goes there
is signed by operator or station, so the service can hold it back and can change nothing of it.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from ca.der import pem
from ca.der.certificate import read_certificate
from ca.errors import Broken, FleetcaError, Malformed, Refused, Unauthenticated, Unavailable
from ca.model import IssuerId, MessageEvidence, RecordSeal, Shift, UnitPart
from ca.rules import line
from fleetca.line import station as folder

TRIES: Final = 6
LONGEST_WAIT: Final = 30
"""Seconds between two tries: reconciling may be run again at any time, so nobody has to sit through more."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA certificate of the deployment, by its name there."""

    id: IssuerId
    parent: IssuerId | None
    certificate: bytes
    subject: bytes
    spki: bytes


class Asking(Protocol):
    """What of `fleetca.client` this needs."""

    def get(self, path: str) -> bytes: ...

    def post(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]: ...


class Distant:
    """The CA of a deployment, as its stations see it.

    Args:
        client: of the enrolment service.
        roots: certificates (DER) that the station was given.
    """

    def __init__(self, client: Asking, roots: Sequence[bytes]) -> None:
        self._client, self._roots = client, roots
        self.issuers: dict[IssuerId, Authority] = {}
        """Who signs for the shifts that were spoken of: all of them lead to the root."""

    def deployment(self) -> str:
        """Its name: the audience of signed messages."""
        return str(_json(self._client.get("/v1/about"))["deployment"])

    def open_shift(self, said: MessageEvidence) -> tuple[Shift, bytes]:
        """An operator logs in: the shift, and the first line of its file."""
        parts = {name: base64.b64encode(getattr(said, name)).decode() for name in ("payload", "certificate", "signature")}
        answer = self._ask("/v1/line/shifts", {"message": parts})
        self._learn(answer)
        header = str(answer["header"]).encode()
        return folder.shift_of(line.read_header(header)), header

    def bring(self, part: UnitPart) -> Sequence[bytes | FleetcaError]:
        """Certificates of a part's units, or what each was refused with."""
        body = {"header": part.header, "first": part.first, "lines": list(part.lines), "seal": part.seal}
        answer = self._ask("/v1/line/units", body)
        self._learn(answer)
        units = answer["units"]
        if not isinstance(units, list) or len(units) != len(part.lines):
            raise Broken("service-answer", "The service answered for other units than it was asked for.")
        return [_outcome(one) for one in units]

    def seal_records(self, station: str, documents: Sequence[bytes]) -> RecordSeal:
        """The CA's countersignature over provisioning records."""
        said = self._ask("/v1/line/records", {"station": station, "records": [each.decode() for each in documents]})
        at = int(datetime.fromisoformat(said["at"]).timestamp())
        return RecordSeal(said["station"], said["count"], said["last"], IssuerId(said["issuer"]), at, base64.b64decode(said["signature"]))

    def _learn(self, answer: Mapping[str, Any]) -> None:
        """Issuers that an answer names.

        Raises:
            Unauthenticated: one does not lead to the station's root (`issuer-unproven`).
        """
        found = {one.id: one for one in map(_authority, answer["issuers"])}
        for one in found.values():
            if self.issuers.get(one.id) != one:
                self._prove(one, found)
                self.issuers[one.id] = one

    def _prove(self, one: Authority, known: Mapping[IssuerId, Authority]) -> None:
        seen: set[IssuerId] = set()
        while one.certificate not in self._roots:
            above = None if one.parent is None else known.get(one.parent)
            if above is None or one.id in seen or not _signed_by(one.certificate, above.certificate):
                raise Unauthenticated(
                    "issuer-unproven", f"The certificate of issuer {one.id} does not lead to the root that this station has.",
                    fix="Give the deployment's root: --root FILE",
                )  # fmt: skip
            seen.add(one.id)
            one = above

    def _ask(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """What the service cannot do now is asked again; all of these may be."""
        for _ in range(TRIES - 1):
            try:
                return self._client.post(path, document)
            except Unavailable as error:
                threading.Event().wait(min(error.retry_after, LONGEST_WAIT))
        return self._client.post(path, document)


def _json(octets: bytes) -> dict[str, Any]:
    found = json.loads(octets)
    assert isinstance(found, dict)
    return found


def _authority(said: Mapping[str, Any]) -> Authority:
    der = pem.der_of(str(said["certificate"]).encode(), pem.CERTIFICATE)
    facts = read_certificate(der)
    parent = None if said["parent"] is None else IssuerId(said["parent"])
    return Authority(IssuerId(said["id"]), parent, der, facts.subject, facts.spki)


def _signed_by(der: bytes, above: bytes) -> bool:
    try:
        x509.load_der_x509_certificate(der).verify_directly_issued_by(x509.load_der_x509_certificate(above))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _outcome(said: Mapping[str, Any]) -> bytes | FleetcaError:
    if "refused" in said:
        kind: type[FleetcaError] = Refused  # whatever it was of: the code says what happened, and it is the CA's
        return kind(str(said["refused"]), str(said["what"]))
    try:
        return base64.b64decode(said["certificate"], validate=True)
    except ValueError:
        raise Malformed("service-answer", "The service sent a certificate that is none.") from None
