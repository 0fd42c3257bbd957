"""What every shipped profile gives for every algorithm, judged by pkilint: nothing above INFO but what stays, with its reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ca.der.certificate import assemble
from ca.der.crl import tbs_crl
from ca.model import CrlEntry, Name, NameKind, Reason
from ca.rules.certificate import draft_ca
from ca.rules.lint.certificate import lint
from fleetca.forms import shipped_profiles
from tests.fakes.certificates import DAY, KINDS, NOW, drafted, issuing, key, root, serial, signed
from tests.fakes.certificates import profile as shipped_profile
from tests.second_lint import STAYS, findings, objections

END_ENTITIES = ("device", "device-short", "service", "operator", "ocsp-responder")
CEREMONY = ("link", "cross-certificate", "root-responder")
MADE = {"root", "issuing-ca", *CEREMONY, *END_ENTITIES}


def made(profile: str, kind: str) -> bytes:
    """A certificate of that profile; its key and its issuer's are of that kind."""
    if profile == "root":
        return root(kind).certificate
    if profile == "issuing-ca":
        return issuing(kind).certificate
    if profile in CEREMONY:
        return ceremonial(profile, kind)
    return signed(drafted(profile, issuer=issuing(kind), kind=kind), key(kind, "issuing"))


def ceremonial(profile: str, kind: str) -> bytes:
    """What only a ceremony makes: by a root of that kind, for a key of that kind."""
    above, wanted = root(kind), shipped_profile(profile)
    made = draft_ca(
        profile=wanted,
        issuer=above,
        subject={"organization": "Example", "common_name": profile},
        spki=key(kind, "issuing").spki,
        serial=serial(9),
        not_before=NOW,
        not_after=NOW + wanted.lifetime - 1,
        crl_url=above.crl_url if wanted.crl_url else None,
        issuer_url=above.issuer_url,
    )
    lint(made, wanted, above)
    return signed(made, key(kind, "root"))


def test_every_shipped_profile_is_judged() -> None:
    assert set(shipped_profiles()) == MADE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("profile", sorted(MADE))
def test_no_certificate_gives_a_finding_above_info(profile: str, kind: str) -> None:
    assert objections("pkix_cert", made(profile, kind)) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([], id="nobody revoked"),
        pytest.param(
            [CrlEntry(serial(4), NOW - 4, Reason.keyCompromise), CrlEntry(serial(5), NOW - 4, Reason.unspecified)], id="two revoked"
        ),
    ],
)
def test_no_crl_gives_a_finding_above_info(entries: list[CrlEntry], kind: str) -> None:
    issuer = issuing(kind)
    tbs = tbs_crl(issuer, number=3, this_update=NOW, next_update=NOW + DAY - 1, entries=entries)
    assert objections("crl", assemble(tbs, issuer.algorithm, key(kind, "issuing").sign(tbs)), "-t", "CRL", "-p", "PKIX") == []


def test_what_stays_is_still_found_and_has_a_reason() -> None:
    loopback = signed(drafted("service", names=(Name(NameKind.dns, "localhost"),)), key("p256", "issuing"))
    found = [one.stays for kind in ("ml-dsa-44", "ml-dsa-65", "ml-dsa-87") for one in findings("pkix_cert", root(kind).certificate)]
    found += [one.stays for one in findings("pkix_cert", loopback)]
    assert found == [STAYS[0]] * 3 + [STAYS[1]]
    assert all(row.reason.startswith("RFC ") for row in STAYS)


def test_the_judge_sees_what_a_urn_would_be() -> None:
    # Why devices are named by permanentIdentifier (RFC 4043): pkilint takes no URI that is not a locator it knows.
    urn = replace(shipped_profile("device"), permanent_identifier=None, uris=("urn:fleetca:{tenant}:device:{device}",))
    assert [one.code for one in objections("pkix_cert", signed(drafted(urn), key("p256", "issuing")))] == ["pkix.invalid_uri_syntax"]
