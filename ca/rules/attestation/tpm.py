"""What a TPM proves of a key: that it was made in it and stays in it. Ring 1: pure.

Three keys, and a link between each two that nobody but the TPM can make:

    endorsement key   its maker certified it (`endorsement`)
        |             TPM2_ActivateCredential: both are inside one TPM (`challenge`, `credential`)
    attestation key   restricted: it signs nothing but what the TPM itself says
        |             TPM2_Certify over our nonce: the TPM says what the key is (`structures`)
    the CSR's key     fixedTPM and fixedParent: it leaves this TPM under no circumstances
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ca.errors import Denied, Unauthenticated
from ca.model import Digest, TpmAttestation, UnixTime
from ca.rules.attestation import challenge
from ca.rules.attestation.endorsement import Endorsement, read_endorsement
from ca.rules.attestation.structures import Public, check_signature, read_certified, read_public
from ca.rules.caps import TpmMaker

_STAYS: Final = ("fixedTPM", "fixedParent")


@dataclass(frozen=True, slots=True)
class Proof:
    """What was proven, all of it by the TPM itself or its maker."""

    endorsement: Endorsement
    key: Digest
    """SHA-256 of the SubjectPublicKeyInfo of the key that stays in the TPM."""
    attestation_key: Digest
    ticket: challenge.Ticket
    firmware: int


def read_attestation_key(area: bytes) -> Public:
    """The public area of a key that signs only what its TPM says.

    Raises:
        Malformed: see `structures.read_public`.
        Denied: it could sign anything, or leave the TPM (`attestation-key-unfit`).
    """
    public = read_public(area, "attestation key")
    wanted = {"fixedTPM", "fixedParent", "sensitiveDataOrigin", "restricted", "sign"}
    wrong = sorted(wanted - public.attributes) + [
        f"not {word}" for word in ("decrypt", "encryptedDuplication") if word in public.attributes
    ]
    if wrong:
        raise Denied(
            "attestation-key-unfit",
            "This key cannot attest others.",
            why=f"It should be {', '.join(wrong)}.",
            fix="Make a restricted signing key: tpm2_createak, or let fleetca agent make it.",
        )
    return public


def prove(given: TpmAttestation, makers: Sequence[TpmMaker], *, key: bytes, now: UnixTime) -> Proof:
    """Check every link. Whether the challenge still holds and was not used is for whoever has the record.

    Args:
        key: the signer's, of `challenge`.

    Raises:
        Malformed, Unauthenticated, Denied: each link has its own codes; see the modules beside this one. Of this one: the credential was not
            activated (`not-activated`), the attestation is for another challenge (`attest-nonce`) or key (`attest-name`), the key can leave
            (`key-not-fixed`) or was not made there (`key-not-made-inside`), or is none that signs freely (`key-unfit`).
    """
    ticket = challenge.read_ticket(key, given.ticket)
    endorsement = read_endorsement(given.endorsement, makers, now=now)
    attester = read_attestation_key(given.attestation_key)
    challenge.check_ticket(ticket, endorsement=endorsement.spki_sha256, attestation=challenge.name_digest(attester.name))
    if not hmac.compare_digest(given.secret, challenge.secret_of(key, given.ticket)):
        raise Unauthenticated(
            "not-activated",
            "The credential was not activated.",
            why="The secret is not the one that was in it: endorsement and attestation key are not shown to be in one TPM.",
        )
    certified = read_certified(given.attest)
    check_signature(attester, given.signature, given.attest)
    if not hmac.compare_digest(certified.nonce, ticket.digest):
        raise Unauthenticated("attest-nonce", "The attestation is not the answer to this challenge.", why="It holds another nonce.")
    public = read_public(given.key, "key")
    if certified.name != public.name:
        raise Denied("attest-name", "The attestation is of another key.", why="The name in it is not that of the public area beside it.")
    _stays(public)
    return Proof(endorsement, public.spki_sha256, challenge.name_digest(attester.name), ticket, certified.firmware)


def _stays(public: Public) -> None:
    missing = [word for word in _STAYS if word not in public.attributes]
    if missing:
        raise Denied(
            "key-not-fixed",
            "The key can leave its TPM.",
            why=f"It is not {', not '.join(missing)}.",
            fix="Make it with fixedtpm|fixedparent.",
        )
    if "sensitiveDataOrigin" not in public.attributes:
        raise Denied(
            "key-not-made-inside",
            "The key was not made in the TPM.",
            why="It is not sensitiveDataOrigin: its private half came from outside.",
        )
    wrong = [word for word in ("restricted", "decrypt", "encryptedDuplication") if word in public.attributes]
    if wrong or "sign" not in public.attributes:
        raise Denied("key-unfit", "The key is none that signs freely.", why=f"It is {', '.join(wrong) or 'not for signing'}.")
