"""The challenge that a TPM's owner must answer before its keys are believed. Ring 1: pure.

A challenge is kept by nobody: its ticket says whom it was made for and until when, under a MAC of the signer's, and the secret in the credential
follows from the ticket by the same key. So it costs no row before it is answered, a restart forgets none, and a web process that was stolen
cannot make one up. What it was used for is on record; a second use is refused there.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import Final

from ca.errors import Denied, Unauthenticated
from ca.model import Digest, UnixTime

LIFETIME: Final = 600
"""Seconds for the answer: some TPMs take half a minute for a key, and devices lose their connection."""
CHANCE: Final = 16
_VERSION: Final = 1
_BODY: Final = struct.Struct(">BQ16s32s32s")
LENGTH: Final = _BODY.size + 32


@dataclass(frozen=True, slots=True)
class Ticket:
    """A challenge of ours."""

    expires: UnixTime
    """The first second at which it holds no more."""
    endorsement: Digest
    """SHA-256 of the SubjectPublicKeyInfo of the endorsement key that it was made for."""
    attestation: Digest
    """SHA-256 of the name of the attestation key that it was made for."""
    digest: Digest
    """SHA-256 of the whole ticket: what the attestation must hold as its nonce, and what is used once."""


def name_digest(name: bytes) -> Digest:
    """How a ticket names an attestation key."""
    return Digest(hashlib.sha256(name).digest())


def make_ticket(key: bytes, *, endorsement: Digest, attestation: Digest, expires: UnixTime, chance: bytes) -> bytes:
    """A fresh ticket.

    Args:
        key: the signer's, for nothing but check values.
        chance: `CHANCE` octets from the random generator.
    """
    body = _BODY.pack(_VERSION, expires, chance, endorsement, attestation)
    return body + _mac(key, b"ticket", body)


def read_ticket(key: bytes, ticket: bytes) -> Ticket:
    """A ticket of ours, as it was made.

    Raises:
        Unauthenticated: we did not make it (`challenge-unknown`).
    """
    body, mac = ticket[: _BODY.size], ticket[_BODY.size :]
    if len(ticket) != LENGTH or not hmac.compare_digest(mac, _mac(key, b"ticket", body)):
        raise Unauthenticated("challenge-unknown", "The challenge is none of this deployment's.", fix="Ask for one: POST /v1/attestation")
    _, expires, _, endorsement, attestation = _BODY.unpack(body)
    return Ticket(expires, Digest(endorsement), Digest(attestation), nonce_of(ticket))


def nonce_of(ticket: bytes) -> Digest:
    """What TPM2_Certify gets as qualifyingData."""
    return Digest(hashlib.sha256(ticket).digest())


def secret_of(key: bytes, ticket: bytes) -> bytes:
    """What the credential of a ticket holds: only who activates it learns it."""
    return _mac(key, b"secret", ticket)


def _mac(key: bytes, what: bytes, octets: bytes) -> bytes:
    return hmac.new(key, b"fleetca attestation v1\0" + what + b"\0" + octets, hashlib.sha256).digest()


def check_ticket(ticket: Ticket, *, endorsement: Digest, attestation: Digest) -> None:
    """Was it made for these two keys?

    Raises:
        Denied: for another TPM (`challenge-for-another-tpm`), or another attestation key (`challenge-for-another-key`).
    """
    if not hmac.compare_digest(ticket.endorsement, endorsement):
        raise Denied("challenge-for-another-tpm", "The challenge was made for another TPM.", why="Its endorsement key is another one.")
    if not hmac.compare_digest(ticket.attestation, attestation):
        raise Denied("challenge-for-another-key", "The challenge was made for another attestation key.", why="Its name is another one.")


def in_time(ticket: Ticket, *, now: UnixTime) -> None:
    """Does it still hold?

    Raises:
        Denied: `challenge-expired`.
    """
    if not now < ticket.expires:
        raise Denied(
            "challenge-expired", "The challenge holds no more.", why=f"It is good for {LIFETIME // 60} minutes.", fix="Ask for another one."
        )
