"""The doctor at a running deployment: it asks the status service what anybody may ask, and finds the answers good."""

from __future__ import annotations

import re

from tests.interop.conftest import Demo


def test_the_doctor_asks_ocsp_and_fetches_the_crls_of_a_running_deployment(demo: Demo) -> None:
    document = demo.cli("doctor", ok=False)
    said = {(one["check"], one["level"]): one["what"] for one in document["checks"]}
    assert re.match("OCSP says (good|revoked) of a certificate of issuing, signed by a responder of issuing, until", said["ocsp", "ok"]), (
        document
    )
    assert "serves 2 published CRLs, none over its nextUpdate" in said["served", "ok"]
    # The revoked device of the demo will never say that it wiped its keys.
    assert {one["check"] for one in document["checks"] if one["level"] == "finding"} == {"wipes"}, document
