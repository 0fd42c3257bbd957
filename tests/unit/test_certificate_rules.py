"""What a certificate may say and until when, and what is refused with the date that works (R04, R23; P2, P4)."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from ca.der import writer as W
from ca.der.certificate import read_certificate
from ca.errors import FleetcaError, Malformed, Misconfigured, Unacceptable
from ca.model import IssuerId, KeyName, Name, NameKind
from ca.rules.certificate import check_key_algorithm, draft_ca, issuer_from_certificate
from ca.rules.lint.certificate import lint
from ca.rules.window import last_second, lifetime_of
from tests.fakes.certificates import DAY, NOW, SERVICE_NAMES, drafted, issuing, key, profile, root, serial, signed

PROFILES = ("device", "device-short", "service", "operator", "ocsp-responder")
FAR = 253_402_300_799


@given(st.sampled_from(PROFILES), st.integers(min_value=0, max_value=FAR - 100 * DAY))
@settings(max_examples=200)
def test_R04_both_ends_count_at_every_date_and_a_second_parser_agrees(name: str, now: int) -> None:
    wanted = profile(name)
    made = drafted(name, issuer=replace(issuing(), not_after=FAR), now=now + wanted.backdate)
    loaded = x509.load_der_x509_certificate(signed(made, key("p256", "issuing")))
    seconds = (loaded.not_valid_after_utc - loaded.not_valid_before_utc).total_seconds() + 1
    assert seconds == wanted.lifetime == lifetime_of(made.not_before, made.not_after)
    assert (made.not_before, made.not_after) == (now, last_second(now, wanted.lifetime))
    lint(made, wanted, replace(issuing(), not_after=FAR))


def test_not_before_is_dated_back_by_the_profile() -> None:
    assert drafted("device").not_before == NOW - profile("device").backdate


def test_R23_the_last_moment_works_and_a_second_later_is_refused_with_the_date_that_works() -> None:
    wanted = profile("device")
    last_start = issuing().not_after - wanted.lifetime + 1
    assert drafted(now=last_start + wanted.backdate).not_after == issuing().not_after
    with pytest.raises(Unacceptable) as error:
        drafted(now=last_start + wanted.backdate + 1)
    assert error.value.code == "outlives-issuer"
    assert "2031-11-19 23:59:59Z" in error.value.why
    assert "2031-11-19 23:59:59Z" in error.value.fix
    assert f"{wanted.lifetime - 1} seconds" in error.value.fix


REFUSED: list[Any] = [
    pytest.param("device", (Name(NameKind.dns, "evil.example"),), "name-not-allowed", id="a DNS name on a device"),
    pytest.param("service", (Name(NameKind.uri, "urn:a:b"),), "name-not-allowed", id="a URI on a service"),
    pytest.param("service", (), "names-required", id="a service without a name"),
    pytest.param("ocsp-responder", (Name(NameKind.dns, "a.example"),), "name-not-allowed", id="a name on a responder"),
    *[
        pytest.param("service", (Name(NameKind.dns, text),), "bad-name", id=f"the DNS name {text[:20]!r}")
        for text in (
            "",
            ".",
            "a..b",
            "-a.example",
            "a-.example",
            "*.example",
            "a b.example",
            "ü.example",
            "192.0.2.1",
            "x" * 64,
            "a." * 127 + "a",
            "a_b.example",
            "a\0.example",
            "a.example\n",
        )
    ],
    *[
        pytest.param("service", (Name(NameKind.ip, text),), "bad-name", id=f"the address {text!r}")
        for text in ("", "1.2.3", "192.0.2.0/24", "::g", "fe80::1%eth0", "01.2.3.4", "1.2.3.4 ")
    ],
]


@pytest.mark.parametrize(("name", "names", "code"), REFUSED)
def test_names_are_refused(name: str, names: tuple[Name, ...], code: str) -> None:
    with pytest.raises(Unacceptable) as error:
        drafted(name, names=names)
    assert error.value.code == code


def test_names_stand_once_in_the_order_in_which_they_were_granted() -> None:
    dns, ip = Name(NameKind.dns, "b.example"), Name(NameKind.ip, "192.0.2.1")
    assert drafted("service", names=(ip, dns, ip)).names == (ip, dns)


@pytest.mark.parametrize("device", ["pump-17", "A" * 64, "a.b_c:d-e", "fleetca:ocsp:issuing"])
def test_every_device_id_fits(device: str) -> None:
    for name in PROFILES:
        made = drafted(name, device=device)
        lint(made, profile(name), issuing())
        # A service goes by its first name, which is one of those that it may ask for again.
        assert made.subject == (f"CN={SERVICE_NAMES[0].value}" if name == "service" else f"CN={device}")


def test_a_name_that_grows_too_long_is_refused_not_cut() -> None:
    with pytest.raises(Unacceptable, match="1 to 64"):
        drafted(replace(profile("device"), common_name="device {device}"), device="A" * 64)


def test_a_key_of_another_kind_than_the_profiles_is_refused() -> None:
    only = replace(profile("device"), key_algorithms=("p384",))
    with pytest.raises(Unacceptable) as error:
        drafted(only)
    assert error.value.code == "key-type"
    with pytest.raises(Unacceptable):
        check_key_algorithm(only, "rsa-3072")
    check_key_algorithm(only, "p384")


def test_P4_an_online_draft_is_never_a_ca_certificate() -> None:
    with pytest.raises(Misconfigured) as error:
        drafted("issuing-ca")
    assert error.value.code == "ca-profile"


@pytest.mark.parametrize("missing", ["crl_url", "ocsp_url"])
def test_an_issuer_without_the_url_that_a_profile_needs_is_named(missing: str) -> None:
    with pytest.raises(Misconfigured) as error:
        drafted("device", issuer=replace(issuing(), **{missing: None}))
    assert error.value.code == "issuer-url"
    assert missing in error.value.what


def test_a_changed_issuer_or_profile_takes_effect_at_once() -> None:
    drafted("device")
    moved = replace(issuing(), crl_url="http://elsewhere.example/x.crl")
    assert b"http://elsewhere.example/x.crl" in drafted("device", issuer=moved).tbs
    assert b"http://elsewhere.example/x.crl" not in drafted("device").tbs
    assert b"Example Inc" in drafted(replace(profile("device"), organization="Example Inc")).tbs


# ---- CA certificates ------------------------------------------------------------------------------------------------


def ca(**changes: Any) -> Any:
    values: dict[str, Any] = {
        "profile": profile("issuing-ca"),
        "issuer": root(),
        "subject": {"common_name": "Issuing CA"},
        "spki": key("p256", "issuing").spki,
        "serial": serial(2),
        "not_before": NOW,
        "not_after": NOW + 365 * DAY - 1,
    }
    return draft_ca(**(values | changes))


def test_an_issuing_certificate_is_made_below_the_root() -> None:
    made = ca()
    lint(made, profile("issuing-ca"), root())
    found = issuer_from_certificate(signed(made, key("p256", "root")), id="x", key=KeyName("x"), parent=IssuerId("root"))
    assert (found.may_issue, found.may_sign_crl, found.algorithm, found.not_after) == (True, True, "p256", made.not_after)
    assert found.subject in made.tbs
    assert read_certificate(found.certificate).issuer == root().subject


CA_REFUSED: list[Any] = [
    pytest.param({"profile": profile("device")}, "ca-profile", id="a device profile"),
    pytest.param({"profile": profile("root")}, "ca-profile", id="a root below another"),
    pytest.param({"issuer": None}, "ca-profile", id="an issuing CA that signs itself"),
    pytest.param({"subject": {}}, "bad-subject", id="no subject"),
    pytest.param({"subject": {"common_name": "x" * 65}}, "bad-subject", id="a common name of 65 characters"),
    pytest.param({"subject": {"country": "Germany"}}, "bad-subject", id="a country of 7 letters"),
    pytest.param({"subject": {"colour": "red"}}, "bad-subject", id="an unknown attribute"),
    pytest.param({"not_after": NOW + 20 * 365 * DAY}, "lifetime", id="R32: longer than the profile"),
    pytest.param({"not_after": NOW - 1}, "lifetime", id="R32: no second long"),
    pytest.param({"not_after": NOW - DAY}, "lifetime", id="R32: dates in the wrong order"),
    pytest.param({"issuer": replace(root(), not_after=NOW + DAY)}, "outlives-issuer", id="R23: longer than the root"),
    pytest.param({"issuer": replace(root(), crl_url=None)}, "issuer-url", id="no place for the root's CRL"),
    pytest.param({"issuer": issuing()}, "path-length", id="RFC 5280 4.2.1.9: a CA below a CA of path length 0"),
    pytest.param({"spki": b"\x30\x00"}, "bad-public-key", id="no key"),
    pytest.param({"profile": replace(profile("issuing-ca"), key_algorithms=("p384",))}, "key-type", id="a key of another kind"),
]


@pytest.mark.parametrize(("change", "code"), CA_REFUSED)
def test_a_ca_certificate_is_refused(change: dict[str, Any], code: str) -> None:
    with pytest.raises(FleetcaError) as error:
        ca(**change)
    assert error.value.code == code


def test_given_urls_take_the_place_of_the_issuers() -> None:
    made = ca(crl_url="http://a.example/r.crl", issuer_url="http://a.example/r.cer")
    assert b"http://a.example/r.crl" in made.tbs
    assert b"http://a.example/r.cer" in made.tbs


def test_a_leaf_is_no_issuer() -> None:
    leaf = signed(drafted(), key("p256", "issuing"))
    with pytest.raises(Misconfigured) as error:
        issuer_from_certificate(leaf, id="x", key=None)
    assert error.value.code == "not-a-ca"


@pytest.mark.parametrize("octets", [b"", b"\x30\x00", b"text", W.sequence(W.sequence(), W.sequence(), W.bit_string(b""))])
def test_octets_that_are_no_certificate_are_refused(octets: bytes) -> None:
    with pytest.raises(Malformed):
        read_certificate(octets)
    with pytest.raises(Malformed):
        read_certificate(signed(drafted(), key("p256", "issuing")) + octets + b"\0")


def test_a_damaged_certificate_is_read_or_refused_and_nothing_else() -> None:
    good = signed(drafted("service"), key("p256", "issuing"))
    for at in range(len(good)):
        for change in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            octets = bytearray(good)
            octets[at] ^= change
            with contextlib.suppress(Malformed):
                read_certificate(bytes(octets))
