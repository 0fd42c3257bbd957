"""What the agent asks of the service beside certificates: when to renew, and to hear how it went. Edge: network only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509

from ca.der.certificate import CertificateFacts
from ca.errors import Broken
from ca.model import UnixTime
from ca.rules.message import Act
from fleetca.agent.pairs import Place, read_pair
from fleetca.agent.renewing import By, Hand, Service, message_body, open_client, speaking


@dataclass(frozen=True, slots=True)
class Told:
    """A suggested window."""

    start: UnixTime
    end: UnixTime
    ask_after: int
    reason: str


def window(service: Service, facts: CertificateFacts) -> Told:
    """When to renew a certificate. Nobody need prove anything to ask.

    Raises:
        Broken: the answer makes no sense (`wrong-answer`).
    """
    extension = x509.load_der_x509_certificate(facts.der).extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    client = open_client(service)
    try:
        authority = (extension.key_identifier or b"").hex()
        answer = json.loads(client.get(f"/v1/renewal/{authority}/{facts.serial:040x}"))
        return Told(_seconds(answer["start"]), _seconds(answer["end"]), int(answer["ask_after"]), str(answer["reason"] or ""))
    except (ValueError, KeyError, TypeError) as error:
        raise Broken("wrong-answer", "The service's answer is not what was asked for.", why=f"{error}.") from None
    finally:
        client.close()


def report(service: Service, pair: Place, said: Mapping[str, Any], *, by: By, hand: Hand) -> None:
    """Say how it went, as the holder of the pair in place."""
    facts, key = read_pair(pair)
    by = speaking(by, facts, key, hand.clock.now())
    client = open_client(service, None if by is By.message else pair)
    try:
        if by is By.message:
            client.post("/v1/report", {"message": message_body(client, facts, key, Act.report, hand=hand, report=said)})
        else:
            client.post("/v1/report", {**said, "due": _text(said["due"])} if "due" in said else said)
    finally:
        client.close()


def _text(when: UnixTime) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(text: str) -> UnixTime:
    return int(datetime.fromisoformat(text).timestamp())
