"""Hardware that vouches for keys: challenges for TPMs, and what a request that shows an attestation comes to. Knows rules and ports.

A challenge is made without the database (`ca.rules.attestation.challenge`). What an answer proves is found out before the transaction; in it, here,
the one policy gives its verdict by what is on record of the device, and the challenge is used up.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from ca.allowances import Allowances
from ca.der.csr import Csr
from ca.errors import Conflict, Denied
from ca.model import (
    Anchor,
    Challenge,
    ChallengeRequest,
    DeviceFacts,
    DeviceId,
    Digest,
    EvidenceKind,
    Grant,
    Peer,
    Profile,
    Role,
    UnixTime,
    Verdict,
)
from ca.ports import Chance, Clock, Writing
from ca.rules import grant, testimony
from ca.rules.attestation import challenge, credential, policy
from ca.rules.attestation.endorsement import read_endorsement
from ca.rules.attestation.tpm import Proof, read_attestation_key
from ca.rules.evidence import Claim


class Challenging:
    """Args:
    secret: the signer's, that challenges follow from; 32 octets.
    """

    def __init__(self, *, policy: grant.Policy, clock: Clock, chance: Chance, secret: bytes) -> None:
        self._policy, self._clock, self._chance, self._secret = policy, clock, chance, secret
        self._allowances = Allowances(policy.caps_of, "challenges")

    def challenge(self, asked: ChallengeRequest, peer: Peer) -> Challenge:
        """A credential that only the TPM with that endorsement key opens, and only beside that attestation key. Nothing is kept of it.

        Raises:
            Denied, Malformed, Unauthenticated: see `read_endorsement` and `read_attestation_key`; or who asks serves no devices (`not-allowed`).
            Busy: the role asks for too many (`over-rate`).
        """
        if peer.role is not Role.enroll:
            raise Denied("not-allowed", f"Role {peer.role.value} has no TPMs to challenge.")
        now = self._clock.now()
        self._allowances.spend(peer.role, now=now)
        endorsement = read_endorsement(asked.endorsement, self._policy.attesting.makers, now=now)
        attester = read_attestation_key(asked.attestation_key)
        expires = now + challenge.LIFETIME
        ticket = challenge.make_ticket(
            self._secret,
            endorsement=endorsement.spki_sha256,
            attestation=challenge.name_digest(attester.name),
            expires=expires,
            chance=self._chance.octets(challenge.CHANCE),
        )
        sealed = credential.make_credential(
            endorsement.key, attester.name, challenge.secret_of(self._secret, ticket), chance=self._chance.octets(credential.CHANCE)
        )
        return Challenge(ticket, challenge.nonce_of(ticket), sealed.blob, sealed.seed, expires)


@dataclass(frozen=True, slots=True)
class Judged:
    """What the policy made of a request."""

    verdict: Verdict | None = None
    facts: DeviceFacts | None = None
    """Of the device, where `looked`."""
    keep: Anchor | None = None
    """What its record learns."""
    looked: bool = False


_NOTHING: Final = Judged()


def judged(
    tx: Writing,
    given: Grant,
    profile: Profile,
    *,
    asked: grant.Asked,
    found: Claim,
    proof: Proof | None,
    csr: Csr,
    now: UnixTime,
) -> Judged:
    """The verdict on who vouches for the key of a request, by the record of its device, whose row is locked.

    Raises:
        Denied: see `ca.rules.attestation.policy.judge`.
    """
    factory = None
    if asked.factory and found.certificate is not None:
        factory = asked.factory, Digest(hashlib.sha256(found.certificate.spki).digest())
    if not profile.attestation and proof is None and factory is None and found.kind is not EvidenceKind.hardware:
        return _NOTHING  # nothing is asked and nothing is shown: most requests
    renewing = asked.parent is not None and found.kind in {EvidenceKind.presented, EvidenceKind.message}
    shown = policy.Shown(given.device, csr.spki_sha256, found.kind, renewing, proof, factory)
    facts = tx.device_facts(given.device)
    anchors = policy.with_anchors(facts)
    verdict = policy.judge(shown, anchors, profile)
    keep = None if verdict is None else policy.to_keep(verdict, shown, anchors, now=now)
    return Judged(verdict, facts, keep, looked=True)


def owner(tx: Writing, proof: Proof | None, csr: Csr) -> DeviceId | None:
    """The device that is known by the TPM that was shown; without one, by the very key of the CSR. None where there is none."""
    key = csr.spki_sha256 if proof is None else proof.endorsement.spki_sha256
    device = tx.owner_of_key(key)
    if device is None:
        return None
    known = policy.with_anchors(tx.device_facts(device))
    return device if any(anchor.spki_sha256 == key for anchor in known) else None


def use_challenge(tx: Writing, ticket: challenge.Ticket, request: Digest, *, then: UnixTime, now: UnixTime) -> tuple[testimony.Record, ...]:
    """A challenge is good for one request: the same one again, after a crash of ours, finds it used by itself.

    Args:
        request: the request key.
        then: when the evidence was brought.

    Raises:
        Denied: it holds no more (`challenge-expired`).
        Conflict: another request used it (`challenge-used`).
    """
    challenge.in_time(ticket, now=then)
    by = Digest(hashlib.sha256(b"fleetca challenge\0" + ticket.digest + request).digest())
    try:
        tx.consume_message(ticket.digest, now=now)
    except Conflict:
        try:
            tx.consume_message(by, now=now)
        except Conflict:
            return ()
        raise Conflict(
            "challenge-used", "The challenge was answered before.", why="One is good for one key.", fix="Ask for another one."
        ) from None
    tx.consume_message(by, now=now)
    return testimony.MessageUsed(ticket.digest, now), testimony.MessageUsed(by, now)
