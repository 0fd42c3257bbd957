"""Renewing a certificate that lies in files: a new key, a request, the answer checked, the pair replaced. Edge: files and network, no rule of its own.

Where the pair and its successor lie is for `pairs`. While a renewal is under way there are, in this order and each durable before the next step:
the new key; the very body that is sent, so that after a cut connection or a crash the same one goes out again and gets the same certificate; the new
certificate, checked, from when on only installing it is missing; and then the old pair, until the service has seen the new one work.

A crash at any point leaves the old pair or the new one usable; the next run goes on where it stopped.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from ca.der import pem
from ca.der.algorithms import load_public_key, verify
from ca.der.certificate import CertificateFacts, assemble, read_certificate
from ca.der.request import request_info
from ca.errors import Broken, Denied, FleetcaError, Malformed, Refused
from ca.keys.memory import MemoryKey
from ca.model import AlgorithmName, UnixTime
from ca.ports import Chance, Clock, Failpoint, SigningKey
from ca.rules.message import Act, Message, signed_octets, write_message
from fleetca.agent.pairs import Place, kept_request, read_pair
from fleetca.client import Client
from fleetca.folder import put_new

NO_TLS: Final = "ml-dsa"
"""Algorithms whose names begin so cannot speak in TLS here (OpenSSL 3.0); their keys sign messages."""
_SPENT: Final = frozenset(
    {"key-used-before", "request-differs", "request-spent", "message-out-of-time", "message-replayed", "challenge-expired"}
)
"""What the service says to a kept request that can have no answer any more."""


def _nothing(name: str) -> None:
    """What stands at every failpoint in production."""


class By(Enum):
    """How the current key speaks."""

    auto = "auto"
    tls = "tls"
    message = "message"


@dataclass(frozen=True, slots=True)
class Service:
    """Whom to ask, and what to believe."""

    url: str
    root: Path
    """PEM file with the root certificates that are trusted."""
    proxy: str | None = None
    """`http://[USER:PASSWORD@]HOST:PORT` of a proxy that tunnels (CONNECT), or None."""
    unchecked_time: bool = False
    """Whether this device's clock is known to be wrong, so that TLS must not judge certificates by it; see `fleetca.agent.time`."""


@dataclass(frozen=True, slots=True)
class Hand:
    """Who does it: clock and chance of this device, and where a test may stop it."""

    clock: Clock
    chance: Chance
    failpoint: Failpoint = field(default=_nothing)
    attest: Callable[[Client, SigningKey], Mapping[str, Any]] | None = None
    """Has the device's TPM vouch for a new key (`fleetca.agent.attesting`); None: nobody does."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """What came of it."""

    answer: Mapping[str, Any]
    """The service's answer; empty when an earlier run had it already."""
    certificate: CertificateFacts
    by: By


def due_from(facts: CertificateFacts) -> UnixTime:
    """When a certificate should be renewed, when nobody said so: after two thirds of its lifetime."""
    return facts.not_before + (facts.not_after + 1 - facts.not_before) * 2 // 3


def renew(pair: Place, service: Service, *, by: By, clock: Clock, chance: Chance) -> Renewed:
    """Replace a pair by its successor, and let the service see that it works.

    Raises:
        Refused: the service does not renew it; the pair is as it was.
        Unavailable: ask again later; the same request goes out again.
        Broken: the answer is not what was asked for (`wrong-answer`); the pair is as it was.
        Denied, Unavailable from the last step, with the new pair in place: it was not seen to work; the old one lies beside it.
    """
    hand = Hand(clock, chance)
    answer, by = replace(pair, service, by=by, hand=hand)
    spoke = confirm(pair, service, by=by, hand=hand)
    pair.settle()
    return Renewed(answer, read_pair(pair)[0], spoke)


def replace(pair: Place, service: Service, *, by: By, hand: Hand) -> tuple[Mapping[str, Any], By]:
    """Put a pair's successor in place; the service's answer, empty when an earlier run had it already, and how the old key spoke."""
    answer: Mapping[str, Any] = {}
    if not pair.install():
        old, key = read_pair(pair)
        by = speaking(by, old, key, hand.clock.now())
        try:
            answer = _ask(pair, service, old, key, by=by, hand=hand)
        except Denied as error:
            if error.code != "not-by-presenting" or by is By.message:
                raise
            by = By.message  # an operator's certificate: its key must sign what it asks
            pair.forget()
            answer = _ask(pair, service, old, key, by=by, hand=hand)
        hand.failpoint("agent.after-answer")
        _store(pair, service, old, answer, now=hand.clock.now())
        hand.failpoint("agent.before-swap")
        pair.install()
    hand.failpoint("agent.after-swap")
    return answer, by


def confirm(pair: Place, service: Service, *, by: By, hand: Hand) -> By:
    """Let the service see that the pair in place works; how its key spoke."""
    facts, key = read_pair(pair)
    by = speaking(by, facts, key, hand.clock.now())
    _confirm(pair, service, facts, key, by=by, hand=hand)
    return by


def enrol(
    pair: Place, service: Service, *, token: str | None, algorithm: AlgorithmName, hand: Hand, known: bool = False
) -> Mapping[str, Any]:
    """Put a first pair in place for a one-time token, or as a device that is known by its hardware; an earlier run that was stopped goes on with its own key and needs none.

    Raises:
        Refused: the service does not enrol it; nothing is left behind.
        Unavailable: ask again later; the same request goes out again.
        Malformed: there is neither a token nor a request under way (`token-required`).
    """
    if pair.install():
        return {}
    body = kept_request(pair)
    if body is None or (token is not None and body.get("token") != token):
        if token is None and not known:
            raise Malformed("token-required", "A one-time enrolment token is required.", fix="Give --token-file FILE.")
        pair.forget()
        new = pair.make_next_key(algorithm)
        hand.failpoint("agent.after-key")
        who = {"token": token} if token is not None else {"known_by": "hardware"}
        vouched = {} if hand.attest is None else {"attestation": _attested(service, new, hand=hand)}
        body = {**who, "csr": base64.b64encode(_csr(new)).decode(), **vouched}
        put_new(pair.request, json.dumps(body).encode(), mode=0o600)
    hand.failpoint("agent.after-request")
    client = open_client(service)
    try:
        answer = client.post("/v1/enroll", body)
    except Refused:
        pair.forget()
        raise
    finally:
        client.close()
    hand.failpoint("agent.after-answer")
    _store(pair, service, None, answer, now=hand.clock.now())
    hand.failpoint("agent.before-swap")
    pair.install()
    hand.failpoint("agent.after-swap")
    return answer


# ---- Asking ---------------------------------------------------------------------------------------------------------


def speaking(by: By, facts: CertificateFacts, key: SigningKey, now: UnixTime) -> By:
    """How the key of a certificate speaks: in TLS, where that can carry it. Python's TLS takes keys from files only: one in a token signs messages."""
    if by is not By.auto:
        return by
    return By.tls if isinstance(key, MemoryKey) and not key.algorithm.startswith(NO_TLS) and now <= facts.not_after else By.message


def open_client(service: Service, pair: Place | None = None) -> Client:
    """A connection to the service: as the holder of a pair, or as nobody."""
    if pair is None:
        return Client(service.url, trusted=service.root, proxy=service.proxy, check_time=not service.unchecked_time)
    return Client(
        service.url,
        trusted=service.root,
        certificate=pair.certificate,
        key=pair.key,
        password=pair.password or bytes,
        proxy=service.proxy,
        check_time=not service.unchecked_time,
    )


def _ask(pair: Place, service: Service, old: CertificateFacts, key: SigningKey, *, by: By, hand: Hand) -> Mapping[str, Any]:
    client = open_client(service, None if by is By.message else pair)
    try:
        kept = kept_request(pair)
        if kept is not None and ("message" in kept) == (by is By.message) and not kept.keys() & {"token", "known_by"}:
            try:
                return client.post("/v1/renew", kept)
            except Refused as error:
                if error.code not in _SPENT:
                    raise
        pair.forget()
        try:
            return client.post("/v1/renew", _new_request(pair, service, client, old, key, by=by, hand=hand))
        except Refused:
            pair.forget()  # it would be refused again
            raise
    finally:
        client.close()


def _attested(service: Service, new: SigningKey, *, hand: Hand) -> Mapping[str, Any]:
    """On a connection of its own, as nobody: a challenge is anybody's to ask for."""
    assert hand.attest is not None, "asked for where it is"
    client = open_client(service)
    try:
        return hand.attest(client, new)
    finally:
        client.close()


def _csr(key: SigningKey) -> bytes:
    asked = request_info({"common_name": "device"}, key.spki)
    return assemble(asked, key.algorithm, key.sign(asked))


def _new_request(
    pair: Place, service: Service, client: Client, old: CertificateFacts, key: SigningKey, *, by: By, hand: Hand
) -> Mapping[str, Any]:
    """A new key and the request for it, both on disk before anything is sent."""
    new = pair.make_next_key(key.algorithm)
    hand.failpoint("agent.after-key")
    csr = _csr(new)
    if by is By.message:
        body: dict[str, Any] = {"message": message_body(client, old, key, Act.renew, hand=hand, csr=csr)}
    else:
        body = {"csr": base64.b64encode(csr).decode()}
    if hand.attest is not None:
        body["attestation"] = _attested(service, new, hand=hand)
    put_new(pair.request, json.dumps(body).encode(), mode=0o600)
    hand.failpoint("agent.after-request")
    return body


def message_body(client: Client, own: CertificateFacts, key: SigningKey, act: Act, *, hand: Hand, **said: Any) -> dict[str, str]:
    """The JSON form of a message to this deployment, signed with the key of `own`."""
    audience = str(json.loads(client.get("/v1/about"))["deployment"])
    payload = write_message(Message(act, audience, hand.clock.now(), hand.chance.octets(16).hex(), **said))
    parts = {"payload": payload, "certificate": own.der, "signature": key.sign(signed_octets(payload))}
    return {name: base64.b64encode(octets).decode() for name, octets in parts.items()}


def _confirm(pair: Place, service: Service, own: CertificateFacts, key: SigningKey, *, by: By, hand: Hand) -> None:
    client = open_client(service, None if by is By.message else pair)
    try:
        body: dict[str, Any] = {}
        if by is By.message:
            body = {"message": message_body(client, own, key, Act.confirm, hand=hand)}
        client.post("/v1/confirm", body)
    except FleetcaError as error:
        error.fix = f"The new pair is in place and the old one beside it. {error.fix or 'Run the same command again later.'}"
        raise
    finally:
        client.close()


# ---- Checking -------------------------------------------------------------------------------------------------------


def _store(pair: Place, service: Service, old: CertificateFacts | None, answer: Mapping[str, Any], *, now: UnixTime) -> None:
    """Check the answer, then write it beside the old certificate. The service may be wrong; our files may not."""
    try:
        leaf = pem.der_of(str(answer["certificate"]).encode(), pem.CERTIFICATE)
        chain = pem.ders_of(str(answer["chain"]).encode(), pem.CERTIFICATE)
        roots = pem.ders_of(service.root.read_bytes(), pem.CERTIFICATE)
        new = read_certificate(leaf)
        above = _path([leaf, *chain], roots, now=now)
    except (KeyError, OSError, FleetcaError) as error:
        raise _wrong(f"It cannot be verified: {error}.") from None
    if new.spki != pair.signing_key(pair.next_key).spki:
        raise _wrong("It certifies another key.")
    if old is not None and new.subject != old.subject:
        raise _wrong("It is for another subject.")
    if not new.not_before <= now <= new.not_after:
        raise _wrong("It is not valid now; check this device's clock.")
    pair.put_certificate("".join(pem.pem(pem.CERTIFICATE, der) for der in (leaf, *above)))


def _path(chain: list[bytes], roots: list[bytes], *, now: UnixTime) -> list[bytes]:
    """The whole chain without its roots, if it leads to one that is trusted: each signed by the next, up to one that such a root signed.

    What comes after that one leads to another root, for peers who have not heard of ours: it stays.

    Raises:
        Malformed: it does not (`unknown-root`).
    """
    anchors = [(root.subject, root.spki) for root in map(read_certificate, roots) if root.not_before <= now <= root.not_after]
    loaded = [read_certificate(der) for der in chain]
    for place, one in enumerate(loaded):
        if (one.subject, one.spki) in anchors or any(subject == one.issuer and _signed(one, spki) for subject, spki in anchors):
            # A root is of no use to a peer: it has it, or does not believe it.
            return [above.der for above in loaded[1:] if above.issuer != above.subject or not _signed(above, above.spki)]
        above = loaded[place + 1] if place + 1 < len(loaded) else None
        if above is None or above.subject != one.issuer or not _signed(one, above.spki):
            break
    raise Malformed("unknown-root", "It does not lead to the trusted root.")


def _signed(one: CertificateFacts, spki: bytes) -> bool:
    loaded = x509.load_der_x509_certificate(one.der)
    try:
        verify(load_public_key(spki), loaded.signature, loaded.tbs_certificate_bytes)
    except FleetcaError:
        return False
    return True


def _wrong(why: str) -> Broken:
    return Broken("wrong-answer", "The service's answer is not what was asked for; nothing was changed.", why=why)
