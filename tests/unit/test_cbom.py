"""The bill of materials says of each key what CycloneDX 1.6 has a field for, in its words, and nothing else (REQ-KEY-097)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ca.der.algorithms import ALGORITHMS
from ca.model import Digest, KeyState, Protection
from ca.rules import cbom
from tests.interop import judges
from tests.unit.test_key_life import NOW, RECORD

SERIAL = "3e671687-395b-41f5-a30f-a58921a69b79"
# The fields and words of the format that we use, by asset type.
FIELDS = {
    "algorithm": {"primitive", "parameterSetIdentifier", "curve", "cryptoFunctions", "classicalSecurityLevel", "nistQuantumSecurityLevel"},
    "related-crypto-material": {
        "type", "id", "state", "algorithmRef", "creationDate", "activationDate", "updateDate", "expirationDate", "size", "format", "securedBy",
    },
}  # fmt: skip
PROPERTIES = {"algorithm": "algorithmProperties", "related-crypto-material": "relatedCryptoMaterialProperties"}
STATES = {"pre-activation", "active", "suspended", "deactivated", "compromised", "destroyed"}


def bill() -> dict[str, Any]:
    records = [
        replace(
            RECORD, spki_sha256=Digest(bytes((kind, place)) * 16), algorithm=algorithm, state=state, protection=list(Protection)[place % 5]
        )
        for kind, algorithm in enumerate(ALGORITHMS)
        for place, state in enumerate(KeyState)
    ]
    document = cbom.document(records, [], deployment="test", version="1", serial=SERIAL, now=NOW)
    found: dict[str, Any] = json.loads(json.dumps(document))
    return found


@pytest.mark.req("REQ-KEY-097")
def test_every_kind_of_key_in_every_state_stands_in_it() -> None:
    document = bill()
    assert (document["bomFormat"], document["specVersion"], document["serialNumber"]) == ("CycloneDX", "1.6", f"urn:uuid:{SERIAL}")
    assert len(document["components"]) == len(ALGORITHMS) * (1 + len(KeyState))
    references = [each["bom-ref"] for each in document["components"]]
    assert len(references) == len(set(references))
    for component in document["components"]:
        assert component["type"] == "cryptographic-asset"
        properties = component["cryptoProperties"]
        kind = properties["assetType"]
        assert set(properties) <= {"assetType", PROPERTIES[kind], "oid"}
        said = properties[PROPERTIES[kind]]
        assert set(said) <= FIELDS[kind]
        if kind == "related-crypto-material":
            assert said["state"] in STATES
            assert said["algorithmRef"] in references
            assert ("activationDate" in said) == (said["state"] != "pre-activation")


def test_what_quantum_computers_break_has_category_zero() -> None:
    levels = {
        each["bom-ref"]: each["cryptoProperties"]["algorithmProperties"]["nistQuantumSecurityLevel"]
        for each in bill()["components"]
        if each["cryptoProperties"]["assetType"] == "algorithm"
    }
    assert {name.removeprefix("algorithm:"): level for name, level in levels.items() if level} == {
        "ml-dsa-44": 2,
        "ml-dsa-65": 3,
        "ml-dsa-87": 5,
    }


@pytest.mark.req("REQ-KEY-097")
def test_the_schema_of_its_makers_agrees() -> None:
    assert judges.cyclonedx(json.dumps(bill())) == ""


def _key(document: dict[str, Any]) -> dict[str, Any]:
    return next(
        each["cryptoProperties"]["relatedCryptoMaterialProperties"]
        for each in document["components"]
        if each["cryptoProperties"]["assetType"] == "related-crypto-material"
    )


OBJECTED: list[object] = [
    pytest.param(lambda document: _key(document).update(state="retired"), id="a state that the standard does not know"),
    pytest.param(lambda document: _key(document).update(secret="00"), id="a field that the format does not have"),
    pytest.param(lambda document: document.update(serialNumber="urn:uuid:1"), id="a serial number that is no UUID"),
    pytest.param(lambda document: document["components"].append(document["components"][0]), id="a component that stands in it twice"),
]


@pytest.mark.parametrize("spoil", OBJECTED)
def test_the_schema_objects_to(spoil: Callable[[dict[str, Any]], None]) -> None:
    document = bill()
    spoil(document)
    assert judges.cyclonedx(json.dumps(document))
