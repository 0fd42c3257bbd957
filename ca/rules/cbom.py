"""The inventory of keys as a cryptographic bill of materials: CycloneDX 1.6 (ECMA-424), JSON. Ring 1: pure.

One component for each algorithm, CA certificate and key; keys refer to their algorithm, certificates to their key. States are SP 800-57's,
which CycloneDX has by the same names. No private or secret key is in it, and none could be: the inventory has public halves, and of a secret key a digest that tells nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from ca.der import names
from ca.model import AlgorithmName, Issuer, KeyRecord, KeyState, Protection, UnixTime

SPEC: Final = "1.6"
# name -> (primitive parameters, OID of the signature algorithm, classical strength, NIST quantum category, size of the public key)
_ALGORITHMS: Final[Mapping[str, tuple[str, Mapping[str, str], str, int, int, int]]] = {
    "p256": ("ECDSA", {"parameterSetIdentifier": "256", "curve": "nist/P-256"}, "1.2.840.10045.4.3.2", 128, 0, 256),
    "p384": ("ECDSA", {"parameterSetIdentifier": "384", "curve": "nist/P-384"}, "1.2.840.10045.4.3.3", 192, 0, 384),
    "ed25519": ("Ed25519", {"parameterSetIdentifier": "255", "curve": "other/Ed25519"}, "1.3.101.112", 128, 0, 256),
    "rsa-3072": ("RSA-PKCS1-v1_5", {"parameterSetIdentifier": "3072"}, "1.2.840.113549.1.1.11", 128, 0, 3072),
    "rsa-4096": ("RSA-PKCS1-v1_5", {"parameterSetIdentifier": "4096"}, "1.2.840.113549.1.1.11", 140, 0, 4096),
    "hmac-sha256": ("HMAC-SHA-256", {"parameterSetIdentifier": "256"}, "1.2.840.113549.2.9", 256, 1, 256),
    "ml-dsa-44": ("ML-DSA", {"parameterSetIdentifier": "44"}, "2.16.840.1.101.3.4.3.17", 128, 2, 10496),
    "ml-dsa-65": ("ML-DSA", {"parameterSetIdentifier": "65"}, "2.16.840.1.101.3.4.3.18", 192, 3, 15616),
    "ml-dsa-87": ("ML-DSA", {"parameterSetIdentifier": "87"}, "2.16.840.1.101.3.4.3.19", 256, 5, 20736),
}
_SYMMETRIC: Final = frozenset({"hmac-sha256"})
_ENVIRONMENT: Final = {
    None: "unknown",
    Protection.memory: "software-plain-ram",
    Protection.file: "software-encrypted-ram",
    Protection.quorum: "software-encrypted-ram",
    Protection.module: "hardware",
    Protection.hardware: "hardware",
}
_MECHANISM: Final = {
    None: "None",
    Protection.memory: "None",
    Protection.file: "Software",
    Protection.quorum: "Software",
    Protection.module: "HSM",
    Protection.hardware: "HSM",
}


def document(
    records: Sequence[KeyRecord], issuers: Sequence[Issuer], *, deployment: str, version: str, serial: str, now: UnixTime
) -> Mapping[str, Any]:  # fmt: skip
    """The bill.

    Args:
        records: the inventory.
        issuers: the CA certificates that the keys belong to.
        deployment: whose it is.
        version: of this software.
        serial: a UUID for this very document.
        now: when.
    """
    used = sorted({record.algorithm for record in records} | {issuer.algorithm for issuer in issuers})
    components = [*map(_algorithm, used), *(_certificate(issuer, issuers) for issuer in issuers), *map(_key, records)]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": _time(now),
            "tools": {"components": [{"type": "application", "name": "fleetca", "version": version}]},
            "component": {"type": "application", "bom-ref": f"deployment:{deployment}", "name": deployment},
        },
        "components": components,
        "dependencies": _dependencies(records, issuers),
    }


def _algorithm(name: AlgorithmName) -> Mapping[str, Any]:
    title, parameters, oid, classical, quantum, _ = _ALGORITHMS[name]
    return {
        "type": "cryptographic-asset",
        "bom-ref": f"algorithm:{name}",
        "name": title,
        "cryptoProperties": {
            "assetType": "algorithm",
            "algorithmProperties": {
                "primitive": "mac" if name in _SYMMETRIC else "signature",
                **parameters,
                "cryptoFunctions": ["keygen", "tag", "verify"] if name in _SYMMETRIC else ["keygen", "sign", "verify"],
                "classicalSecurityLevel": classical,
                "nistQuantumSecurityLevel": quantum,
            },
            "oid": oid,
        },
    }


def _certificate(issuer: Issuer, issuers: Iterable[Issuer]) -> Mapping[str, Any]:
    parent = next((other for other in issuers if other.id == issuer.parent), issuer)
    return {
        "type": "cryptographic-asset",
        "bom-ref": f"certificate:{issuer.id}",
        "name": issuer.id,
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(issuer.certificate).hexdigest()}],
        "cryptoProperties": {
            "assetType": "certificate",
            "certificateProperties": {
                "subjectName": names.rfc4514(issuer.subject),
                "issuerName": names.rfc4514(parent.subject),
                "notValidBefore": _time(issuer.not_before),
                "notValidAfter": _time(issuer.not_after),
                "signatureAlgorithmRef": f"algorithm:{parent.algorithm}",
                "subjectPublicKeyRef": _reference(hashlib.sha256(issuer.spki).digest()),
                "certificateFormat": "X.509",
                "certificateExtension": "cer",
            },
        },
    }


def _key(record: KeyRecord) -> Mapping[str, Any]:
    held = {"activationDate": _time(record.created)} if record.state is not KeyState.pre_activation else {}
    ends = {} if record.period_ends is None else {"expirationDate": _time(record.period_ends)}
    return {
        "type": "cryptographic-asset",
        "bom-ref": _reference(record.spki_sha256),
        "name": record.name,
        "properties": [
            {"name": "fleetca:purpose", "value": record.purpose.value},
            {"name": "fleetca:origin", "value": record.origin.value},
            {"name": "fleetca:owner", "value": record.owner},
            {"name": "fleetca:store", "value": record.store},
            {"name": "fleetca:place", "value": record.place},
            {"name": "fleetca:protection", "value": "unknown" if record.protection is None else record.protection.name},
            {"name": "fleetca:execution-environment", "value": _ENVIRONMENT[record.protection]},
        ],
        "cryptoProperties": {
            "assetType": "related-crypto-material",
            "relatedCryptoMaterialProperties": {
                "type": "secret-key" if record.algorithm in _SYMMETRIC else "private-key",
                "id": record.spki_sha256.hex(),
                "state": record.state.value,
                "algorithmRef": f"algorithm:{record.algorithm}",
                "creationDate": _time(record.created),
                **held,
                "updateDate": _time(record.changed),
                **ends,
                "size": _ALGORITHMS[record.algorithm][5],
                "format": "PKCS#8" if record.store in {"sealed", "quorum"} else "not exported",
                "securedBy": {"mechanism": _MECHANISM[record.protection]},
            },
        },
    }


def _dependencies(records: Sequence[KeyRecord], issuers: Sequence[Issuer]) -> list[Mapping[str, Any]]:
    known = {record.spki_sha256 for record in records}
    found: list[Mapping[str, Any]] = [
        {"ref": _reference(record.spki_sha256), "dependsOn": [f"algorithm:{record.algorithm}"]} for record in records
    ]
    for issuer in issuers:
        spki = hashlib.sha256(issuer.spki).digest()
        above = [f"certificate:{issuer.parent}"] if issuer.parent is not None else []
        found.append({"ref": f"certificate:{issuer.id}", "dependsOn": [*above, *([_reference(spki)] if spki in known else [])]})
    return found


def _reference(spki_sha256: bytes) -> str:
    return f"key:{spki_sha256.hex()}"


def _time(when: UnixTime) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
