"""Operators who answer for a CRL that the gate refused: what they sign, and whether it counts. Ring 1: pure.

A statement is about one CRL, by the digest of its signed octets, and for nothing else: the refused file is shown to two people, and what they saw is what
becomes visible. Publisher and signer both judge it here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from ca.der.algorithms import cached_public_key, verify
from ca.der.certificate import read_certificate
from ca.errors import Denied, FleetcaError, Malformed
from ca.model import Certificate, Digest, MessageEvidence, Operator, OperatorName, UnixTime
from ca.rules import renewal
from ca.rules.caps import Power, powers_of
from ca.rules.grant import OPERATOR, operator_of

CONTEXT: Final = b"fleetca crl override v1\0"
NEEDED: Final = 2
WINDOW: Final = 86400


@dataclass(frozen=True, slots=True)
class Answering:
    """Who answers, and the key that signed (SubjectPublicKeyInfo)."""

    name: OperatorName
    person: str
    key: bytes


def payload(*, deployment: str, crl: str, tbs_sha256: Digest, at: UnixTime) -> bytes:
    """What an operator signs, behind `CONTEXT`."""
    document = {"deployment": deployment, "crl": crl, "tbs_sha256": tbs_sha256.hex(), "at": at}
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def answers(
    statement: MessageEvidence,
    *,
    deployment: str,
    crl: str,
    tbs_sha256: Digest,
    record: Certificate | None,
    operator: Operator | None,
    now: UnixTime,
) -> Answering:
    """Whose statement this is.

    Raises:
        Denied: it does not count (`override-refused`), and why.
    """
    try:
        said = json.loads(statement.payload)
        at = said["at"]
        if type(at) is not int or statement.payload != payload(deployment=deployment, crl=crl, tbs_sha256=tbs_sha256, at=at):
            raise _refused("It is about another CRL.")
        if abs(now - at) > WINDOW:
            raise _refused("It is older than a day, or from the future.")
        if record is None or record.der != statement.certificate:
            raise _refused("Its certificate is not on record.")
        if not renewal.live(record, now=now):
            raise _refused("Its certificate holds no longer.")
        name = operator_of(record.device)
        if name is None or record.profile != OPERATOR or operator is None or operator.name != name:
            raise _refused("Its key is not an operator's.")
        if not powers_of(operator) & {Power.revoke, Power.authorize}:
            raise _refused("The operator has neither the power to revoke nor that to approve.")
        key = read_certificate(statement.certificate).spki
        verify(cached_public_key(key), statement.signature, CONTEXT + statement.payload)
    except (ValueError, KeyError, TypeError):
        raise _refused("It cannot be read.") from None
    except Denied:
        raise
    except (FleetcaError, Malformed) as error:
        raise _refused(error.what) from None
    return Answering(name, operator.who, key)


def enough(answering: Sequence[Answering]) -> bool:
    """Whether different people with different keys answer for it."""
    return any(one.person.casefold() != other.person.casefold() and one.key != other.key for one, other in combinations(answering, 2))


def _refused(why: str) -> Denied:
    return Denied("override-refused", "A statement about a refused CRL does not count.", why=why)
