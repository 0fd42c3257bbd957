"""Has the device's TPM vouch for a key: asks the service for a challenge, lets the TPM answer it. Edge: adapts `ca.keys`; holds no rule."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ca.der import pem
from ca.errors import Broken, FleetcaError, Malformed, Misconfigured
from ca.keys.tpm import TpmKey
from ca.keys.tpm_attest import TpmAttester
from ca.ports import SigningKey
from fleetca.client import Client


@dataclass(frozen=True, slots=True)
class Attesting:
    """Answers the challenges of one TPM."""

    attester: TpmAttester

    @classmethod
    def of(cls, device: str, endorsement: str) -> Attesting:
        """Of a TPM, with a PEM file of its endorsement certificates where it has none itself.

        Raises:
            Malformed: the file cannot be read (`bad-certificate`).
        """
        chain: tuple[bytes, ...] = ()
        if endorsement:
            try:
                chain = tuple(pem.ders_of(Path(endorsement).read_bytes(), pem.CERTIFICATE))
            except (OSError, FleetcaError) as error:
                raise Malformed("bad-certificate", f"{endorsement} cannot be read.", why=f"{error}.") from None
            if not chain:
                raise Malformed("bad-certificate", f"{endorsement} holds no certificate.", fix="Give the endorsement certificate as PEM.")
        return cls(TpmAttester(device or "/dev/tpmrm0", chain))

    def __call__(self, client: Client, key: SigningKey) -> Mapping[str, Any]:
        """The member `attestation` of a request for a certificate of this key.

        Raises:
            Misconfigured: the key is in no TPM (`key-not-in-tpm`).
            KeyUnavailable: see `ca.keys.tpm_attest`.
            FleetcaError: what the service refuses the challenge with.
        """
        if not isinstance(key, TpmKey):
            raise Misconfigured("key-not-in-tpm", "Only a key in a TPM is attested by it.", fix="Enrol with --key tpm.")
        shown = self.attester.introduce()
        who = {"endorsement": [_text(der) for der in shown.endorsement], "attestation_key": _text(shown.attestation_key)}
        challenge = client.post("/v1/attestation", who)
        ticket, nonce, credential, seed = (_octets(challenge, name) for name in ("ticket", "nonce", "credential", "seed"))
        secret = self.attester.activate(credential, seed)
        public, attest, signature = self.attester.certify(key, nonce)
        parts = {"ticket": ticket, "secret": secret, "key": public, "attest": attest, "signature": signature}
        return {**who, **{name: _text(octets) for name, octets in parts.items()}}


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def _octets(document: Mapping[str, Any], name: str) -> bytes:
    try:
        return base64.b64decode(str(document[name]), validate=True)
    except (KeyError, binascii.Error, ValueError):
        raise Broken("wrong-answer", "The service's challenge cannot be read.", why=f"Its {name} is missing or no base64.") from None
