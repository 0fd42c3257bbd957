"""The lint finds whatever is wrong in a draft, by name of the rule, and knows nothing of who wrote it (P2, P11)."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

import ca.rules.lint
from ca.der import writer
from ca.errors import Broken
from ca.model import Digest, Draft, Issuer, Name, NameKind, OnSuperseded, Profile, Serial, StatusKind
from ca.rules.lint import certificate as lints
from ca.rules.lint.certificate import lint
from tests.fakes.certificates import DAY, KINDS, NOW, drafted, issuing, key, profile, root, serial

W = writer


def test_every_shipped_profile_passes_under_every_kind_of_issuer() -> None:
    for kind in KINDS:
        for name in ("device", "device-short", "service", "operator", "ocsp-responder"):
            lint(drafted(name, issuer=issuing(kind), kind=kind), profile(name), issuing(kind))


@pytest.mark.parametrize("name", ["device", "device-short", "service", "ocsp-responder", "operator"])
def test_P11_every_flipped_bit_of_a_certificate_is_found_before_it_is_signed(name: str) -> None:
    issuer, wanted = issuing(), profile(name)
    made = drafted(name)
    lint(made, wanted, issuer)
    for at in range(len(made.tbs)):
        for bit in range(8):
            octets = bytearray(made.tbs)
            octets[at] ^= 1 << bit
            with pytest.raises(Broken) as error:
                lint(replace(made, tbs=bytes(octets)), wanted, issuer)
            assert error.value.code == "lint"


def test_every_shortened_certificate_is_found() -> None:
    made = drafted("service")
    for count in range(len(made.tbs)):
        with pytest.raises(Broken):
            lint(replace(made, tbs=made.tbs[:count]), profile("service"), issuing())
    with pytest.raises(Broken):
        lint(replace(made, tbs=made.tbs + b"\0"), profile("service"), issuing())


# ---- A builder that will write anything -----------------------------------------------------------------------------


def _extensions(draft: Draft) -> list[bytes]:
    from ca.der.reader import elements

    octets = draft.tbs
    fields = elements(octets, elements(octets, 0, len(octets))[0].content, len(octets))
    inside = elements(octets, fields[-1].content, fields[-1].end)[0]
    return [octets[one.start : one.end] for one in elements(octets, inside.content, inside.end)]


def _fields(draft: Draft) -> list[bytes]:
    from ca.der.reader import elements

    octets = draft.tbs
    return [octets[one.start : one.end] for one in elements(octets, elements(octets, 0, len(octets))[0].content, len(octets))]


def _with_extensions(draft: Draft, extensions: Iterable[bytes]) -> Draft:
    return replace(draft, tbs=W.sequence(*_fields(draft)[:-1], W.explicit(3, W.sequence(*extensions))))


def _with_field(draft: Draft, number: int, octets: bytes) -> Draft:
    fields = _fields(draft)
    fields[number] = octets
    return replace(draft, tbs=W.sequence(*fields))


def _replacing(oid: str, new: bytes | None) -> Callable[[Draft], Draft]:
    def change(draft: Draft) -> Draft:
        kept = [one for one in _extensions(draft) if W.oid(oid) not in one[:14]]
        assert len(kept) == len(_extensions(draft)) - 1
        return _with_extensions(draft, kept if new is None else [*kept, new])

    return change


def _adding(*new: bytes) -> Callable[[Draft], Draft]:
    return lambda draft: _with_extensions(draft, [*_extensions(draft), *new])


def _field(number: int, octets: bytes) -> Callable[[Draft], Draft]:
    return lambda draft: _with_field(draft, number, octets)


def _renamed(rdns: bytes) -> Callable[[Draft], Draft]:
    return _field(5, rdns)


def _cn(text: bytes, tag: int = 0x0C) -> bytes:
    return W.tlv(0x31, W.sequence(W.oid("2.5.4.3"), W.tlv(tag, text)))


def _later(seconds: int) -> Callable[[Draft], Draft]:
    def change(draft: Draft) -> Draft:
        end = draft.not_after + seconds
        return replace(_with_field(draft, 4, W.sequence(W.time(draft.not_before), W.time(end))), not_after=end)

    return change


def _serialled(octets: bytes) -> Callable[[Draft], Draft]:
    return lambda draft: replace(_with_field(draft, 1, W.tlv(2, octets)), serial=Serial(int.from_bytes(octets, "big", signed=True)))


def _keyed(kind: str) -> Callable[[Draft], Draft]:
    spki = key(kind, "device").spki
    return lambda draft: replace(_with_field(draft, 6, spki), spki_sha256=Digest(sha256(spki).digest()))


def _san(*names: bytes, critical: bool = False) -> Callable[[Draft], Draft]:
    return _replacing("2.5.29.17", W.extension("2.5.29.17", W.sequence(*names), critical=critical))


ext = W.extension
NULL = W.NULL


def _other(*value: bytes, oid: str = "1.3.6.1.5.5.7.8.3") -> bytes:
    return W.explicit(0, W.oid(oid) + W.explicit(0, W.sequence(*value)))


UTF8 = W.tlv(0x0C, b"pump-17")
PUMP = _other(UTF8)
URI = W.implicit(6, b"urn:fleetca:default:device:pump-17")
HTTP = W.implicit(6, b"http://status.example/crl/issuing.crl")


def _cdp(*names: bytes) -> bytes:
    return W.sequence(W.sequence(W.explicit(0, W.explicit(0, b"".join(names)))))


WRONG: list[Any] = [
    pytest.param("version", _field(0, W.explicit(0, W.integer(1))), id="a v2 certificate with extensions"),
    pytest.param("der", lambda d: replace(d, tbs=W.sequence(*_fields(d)[1:])), id="no version"),
    pytest.param(
        "der", lambda d: replace(d, tbs=W.sequence(*_fields(d)[:7], b"\x81\x02\x00\xff", _fields(d)[7])), id="a unique identifier"
    ),
    pytest.param("serial", _serialled(b"\x81" + bytes(19)), id="a negative serial number"),
    pytest.param("serial", _serialled(b"\x00" + b"\x11" * 19), id="a padded serial number"),
    pytest.param("serial", _serialled(b"\x11" * 21), id="R03: a serial number of 21 octets"),
    pytest.param("serial", _serialled(b"\x11" * 8), id="R03: a serial number of 8 octets"),
    pytest.param("serial", _field(1, W.integer(serial(9))), id="another serial number than was reserved"),
    pytest.param("algorithm", _field(2, W.sequence(W.oid("1.2.840.10045.4.3.2"), NULL)), id="ECDSA with NULL parameters"),
    pytest.param("algorithm", _field(2, W.sequence(W.oid("1.2.840.10045.4.1"))), id="SHA-1"),
    pytest.param("issuer", _field(3, b"\x30\x00"), id="an empty issuer"),
    pytest.param("issuer", _field(3, W.sequence(_cn(b"Issuing CA p256", 0x13))), id="an issuer that was encoded again"),
    pytest.param("validity", _later(1), id="R04: a second too long"),
    pytest.param("validity", _later(-1), id="R04: a second too short"),
    pytest.param("validity", _later(-8 * DAY), id="notAfter before notBefore"),
    pytest.param("validity", _field(4, W.sequence(W.time(NOW), W.time(NOW + 7 * DAY))), id="other dates than the draft's"),
    pytest.param(
        "validity",
        lambda d: _with_field(d, 4, W.sequence(W.generalized_time(d.not_before), W.time(d.not_after))),
        id="GeneralizedTime before 2050",
    ),
    pytest.param("version", _field(4, W.sequence(W.tlv(0x17, b"2611220000Z"), W.time(NOW))), id="a UTCTime without seconds"),
    pytest.param("subject", _renamed(b"\x30\x00"), id="an empty subject"),
    pytest.param("subject", _renamed(W.sequence(_cn(b"pump-18"))), id="another device's name"),
    pytest.param("subject", _renamed(W.sequence(_cn(b"pump-17", 0x14))), id="a TeletexString"),
    pytest.param("subject", _renamed(W.sequence(_cn(b"p" * 65))), id="a common name of 65 characters"),
    pytest.param("subject", _renamed(W.sequence(_cn(b"\xff"))), id="a name that is not UTF-8"),
    pytest.param("subject", _renamed(W.sequence(_cn(b"pump_17", 0x13))), id="an underscore in a PrintableString"),
    pytest.param(
        "subject",
        _renamed(W.sequence(W.tlv(0x31, _cn(b"pump-17")[2:] + _cn(b"x")[2:]))),
        id="two attributes in one set",
    ),
    pytest.param("subject", _renamed(W.sequence(_cn(b"x"), _cn(b"pump-17"))), id="a second common name"),
    pytest.param(
        "subject",
        _renamed(W.sequence(W.tlv(0x31, W.sequence(W.oid("1.2.840.113549.1.9.1"), W.tlv(0x16, b"a@b"))))),
        id="an e-mail address in the subject",
    ),
    pytest.param("key", _field(6, key("p256", "other").spki), id="another key than was asked for"),
    pytest.param("key-identifier", _keyed("p384"), id="a key identifier of another key"),
    pytest.param("key-identifier", _replacing("2.5.29.14", None), id="no key identifier"),
    pytest.param("key-identifier", lambda d: _adding(_extensions(d)[-2])(d), id="two key identifiers"),
    pytest.param("alternative-names", _san(PUMP, critical=True), id="a critical subjectAltName beside a subject"),
    pytest.param("alternative-names", _san(), id="an empty subjectAltName"),
    pytest.param("alternative-names", _replacing("2.5.29.17", None), id="no subjectAltName"),
    pytest.param("alternative-names", _san(PUMP, W.implicit(2, b"evil.example")), id="a DNS name that the profile does not allow"),
    pytest.param("alternative-names", _san(PUMP, URI), id="a URI that the profile does not give"),
    pytest.param("alternative-names", _san(PUMP, PUMP), id="the permanent identifier twice"),
    pytest.param("alternative-names", _san(_other(W.tlv(0x0C, b"pump-18"))), id="another device's permanent identifier"),
    pytest.param("alternative-names", _san(_other(W.tlv(0x13, b"pump-17"))), id="RFC 4043: a PrintableString"),
    pytest.param("alternative-names", _san(_other(UTF8, W.oid("1.2.3"))), id="RFC 4043: an assigner nobody gave"),
    pytest.param("alternative-names", _san(_other(W.oid("1.2.3"))), id="RFC 4043: an assigner without a value"),
    pytest.param("alternative-names", _san(_other()), id="RFC 4043: neither value nor assigner"),
    pytest.param("alternative-names", _san(_other(W.tlv(0x0C, b""))), id="RFC 4043: an empty value"),
    pytest.param("alternative-names", _san(_other(W.tlv(0x0C, b"\xff"))), id="RFC 4043: a value that is not UTF-8"),
    pytest.param("alternative-names", _san(_other(UTF8, oid="1.3.6.1.5.5.7.8.4")), id="RFC 4108: a hardwareModuleName nobody gave"),
    pytest.param("alternative-names", _san(W.explicit(0, W.oid("1.3.6.1.5.5.7.8.3"))), id="an otherName without a value"),
    pytest.param("alternative-names", _san(W.tlv(0xA0, W.oid("1.2.3"))), id="an otherName nobody gives"),
    pytest.param("basic-constraints", _replacing("2.5.29.19", ext("2.5.29.19", W.sequence(W.TRUE), critical=True)), id="CA:TRUE"),
    pytest.param("basic-constraints", _replacing("2.5.29.19", ext("2.5.29.19", W.sequence(), critical=False)), id="not critical"),
    pytest.param(
        "basic-constraints",
        _replacing("2.5.29.19", ext("2.5.29.19", W.sequence(b"\x01\x01\x00"), critical=True)),
        id="an explicit cA FALSE, which DER leaves out",
    ),
    pytest.param("basic-constraints", _replacing("2.5.29.19", None), id="no basicConstraints"),
    pytest.param(
        "basic-constraints",
        _replacing("2.5.29.19", ext("2.5.29.19", W.sequence(W.integer(0)), critical=True)),
        id="a path length without cA",
    ),
    pytest.param("key-usage", _replacing("2.5.29.15", ext("2.5.29.15", b"\x03\x02\x02\x84", critical=True)), id="keyCertSign on a device"),
    pytest.param("key-usage", _replacing("2.5.29.15", ext("2.5.29.15", b"\x03\x02\x00\x80", critical=True)), id="unused bits not counted"),
    pytest.param("key-usage", _replacing("2.5.29.15", ext("2.5.29.15", b"\x03\x01\x00", critical=True)), id="no key usage bit at all"),
    pytest.param("key-usage", _replacing("2.5.29.15", ext("2.5.29.15", b"\x03\x02\x07\x80", critical=False)), id="keyUsage not critical"),
    pytest.param(
        "extended-key-usage",
        _replacing("2.5.29.37", ext("2.5.29.37", W.sequence(W.oid("1.3.6.1.5.5.7.3.9")), critical=False)),
        id="R16: OCSPSigning on a device",
    ),
    pytest.param(
        "extended-key-usage",
        _replacing("2.5.29.37", ext("2.5.29.37", W.sequence(W.oid("2.5.29.37.0")), critical=False)),
        id="anyExtendedKeyUsage",
    ),
    pytest.param("extended-key-usage", _replacing("2.5.29.37", ext("2.5.29.37", W.sequence(), critical=False)), id="R20: an empty EKU"),
    pytest.param("extended-key-usage", _replacing("2.5.29.37", None), id="no EKU where the profile has one"),
    pytest.param("authority-key-identifier", _replacing("2.5.29.35", None), id="no AKI"),
    pytest.param(
        "authority-key-identifier",
        _replacing("2.5.29.35", ext("2.5.29.35", W.sequence(W.implicit(0, bytes(20))), critical=False)),
        id="an AKI that is not the issuer's SKI",
    ),
    pytest.param("crl-distribution-points", _replacing("2.5.29.31", None), id="no CDP"),
    pytest.param(
        "crl-distribution-points",
        _replacing("2.5.29.31", ext("2.5.29.31", _cdp(HTTP.replace(b"http://", b"ldap://")), critical=False)),
        id="a CDP over LDAP",
    ),
    pytest.param(
        "crl-distribution-points",
        _replacing("2.5.29.31", ext("2.5.29.31", _cdp(HTTP.replace(b"issuing", b"isswing")), critical=False)),
        id="R09: another issuer's CDP",
    ),
    pytest.param(
        "crl-distribution-points", _replacing("2.5.29.31", ext("2.5.29.31", _cdp(HTTP, HTTP), critical=False)), id="two CDP names"
    ),
    pytest.param("crl-distribution-points", _replacing("2.5.29.31", ext("2.5.29.31", _cdp(HTTP), critical=True)), id="a critical CDP"),
    pytest.param("authority-information-access", _replacing("1.3.6.1.5.5.7.1.1", None), id="no responder where the profile has one"),
    pytest.param("no-rev-avail", _adding(ext("2.5.29.56", NULL, critical=False)), id="RFC 9608: noRevAvail beside a CDP"),
    pytest.param("ocsp-nocheck", _adding(ext("1.3.6.1.5.5.7.48.1.5", NULL, critical=False)), id="nocheck on a device"),
    pytest.param(
        "extensions", _adding(ext("2.5.29.32", W.sequence(W.sequence(W.oid("1.2.3"))), critical=False)), id="a policy nobody gave"
    ),
    pytest.param("extensions", lambda d: _adding(_extensions(d)[0])(d), id="an extension twice"),
    pytest.param("extensions", _adding(ext("1.2.3.4", NULL, critical=True)), id="an unknown critical extension"),
]


@pytest.mark.parametrize(("rule", "change"), WRONG)
def test_a_device_certificate_is_refused_for(rule: str, change: Callable[[Draft], Draft]) -> None:
    if rule == "version":
        # Octets that cannot be read at all are refused before the first rule.
        rule = "version|der"
    with pytest.raises(Broken, match=f"breaks the rule ({rule}) "):
        lint(change(drafted()), profile("device"), issuing())


def _changed(name: str, **values: Any) -> Profile:
    return replace(profile(name), **values)


URIS = _changed("device", permanent_identifier=None, uris=("urn:fleetca:{tenant}:device:{device}",))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_san(W.implicit(6, b"urn:fleetca:default:device:pump-18")), id="another device's URI"),
        pytest.param(_san(W.implicit(6, b"relative/path")), id="a relative URI"),
        pytest.param(_san(PUMP), id="a permanent identifier that the profile does not give"),
        pytest.param(_san(URI, PUMP), id="a permanent identifier beside"),
    ],
)
def test_a_certificate_of_a_profile_with_uris_is_refused_for(change: Callable[[Draft], Draft]) -> None:
    made = drafted(URIS)
    lint(made, URIS, issuing())
    assert _san(URI)(made).tbs == made.tbs
    with pytest.raises(Broken, match="breaks the rule alternative-names "):
        lint(change(made), URIS, issuing())


PROFILES: list[Any] = [
    pytest.param("validity", profile("device"), _changed("device", lifetime=DAY, max_lifetime=DAY), id="longer than the profile allows"),
    pytest.param("key", profile("device"), _changed("device", key_algorithms=("p384",)), id="a kind of key the profile does not accept"),
    pytest.param("key-usage", _changed("device", key_usage=("digitalSignature", "keyEncipherment")), None, id="keyEncipherment with EC"),
    pytest.param("key-usage", _changed("device", key_usage=("keyAgreement",)), None, id="RFC 9881: keyAgreement with ML-DSA"),
    pytest.param("key-usage", _changed("device", key_usage=("keyCertSign",)), None, id="keyCertSign without CA"),
    pytest.param("extended-key-usage", _changed("device", extended_key_usage=("OCSPSigning",)), None, id="R16: a device as responder"),
    pytest.param("extended-key-usage", _changed("device", key_usage=("nonRepudiation",)), None, id="an EKU against keyUsage"),
    pytest.param("no-rev-avail", _changed("device-short", ocsp_url=True), None, id="RFC 9608: noRevAvail beside OCSP"),
    pytest.param("no-rev-avail", _changed("device-short", crl_url=True), None, id="RFC 9608: noRevAvail beside a CDP"),
    pytest.param("no-rev-avail", profile("device-short"), _changed("device-short", status=StatusKind.revocable), id="noRevAvail unasked"),
    pytest.param("ocsp-nocheck", _changed("ocsp-responder", crl_url=True), None, id="a responder with a CDP"),
    pytest.param("ocsp-nocheck", _changed("device-short", status=StatusKind.nocheck), None, id="nocheck without OCSPSigning"),
]


@pytest.mark.parametrize(("rule", "made_by", "held_against"), PROFILES)
def test_a_profile_that_slipped_through_is_caught_by_the_lint(rule: str, made_by: Profile, held_against: Profile | None) -> None:
    with pytest.raises(Broken, match=f"breaks the rule {rule} "):
        lint(drafted(made_by), held_against or made_by, issuing())


def test_R23_a_certificate_that_outlives_its_issuer_is_refused() -> None:
    made = drafted()
    with pytest.raises(Broken, match="validity"):
        lint(made, profile("device"), replace(issuing(), not_after=made.not_after - 1))


def test_R34_an_issuer_of_the_same_name_and_another_key_identifier_is_refused() -> None:
    with pytest.raises(Broken, match="authority-key-identifier"):
        lint(drafted(), profile("device"), replace(issuing(), key_identifier=bytes(20)))


def test_an_address_may_be_spelled_in_another_way() -> None:
    names = (Name(NameKind.ip, "2001:0db8:0:0::7"),)
    lint(drafted("service", names=names), profile("service"), issuing())


def test_verdicts_do_not_outlive_the_issuer_or_profile_they_were_made_for() -> None:
    made = drafted()
    lint(made, profile("device"), issuing())
    for other in (replace(issuing(), crl_url="http://status.example/other.crl"), replace(issuing(), ocsp_url="http://other.example/")):
        with pytest.raises(Broken):
            lint(made, profile("device"), other)
    with pytest.raises(Broken):
        lint(made, replace(profile("device"), key_usage=("nonRepudiation",)), issuing())
    # Nothing about status or lifetime changes what is in these octets.
    lint(made, replace(profile("device"), on_superseded=OnSuperseded.revoke), issuing())


def test_a_self_signed_certificate_is_judged_without_an_issuer() -> None:
    from ca.rules.certificate import draft_ca

    signer = key("p256", "root")
    made = draft_ca(
        profile=profile("root"),
        issuer=None,
        subject={"common_name": "Root"},
        spki=signer.spki,
        serial=serial(1),
        not_before=NOW,
        not_after=NOW + DAY,
    )
    lint(made, profile("root"), None)
    with pytest.raises(Broken, match=r"authority-key-identifier|issuer"):
        lint(drafted(), profile("device"), None)


def test_the_lint_shares_no_code_with_the_writer() -> None:
    allowed = {"ca.der", "ca.errors", "ca.model", "ca.der.reader"}
    folder = Path(ca.rules.lint.__file__ or "").parent
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ca"):
                assert node.module in allowed or node.module.startswith("ca.rules.lint"), f"{file.name}: {node.module}"
                if node.module == "ca.der":
                    assert {name.name for name in node.names} == {"reader"}


def test_rule_names_are_unique_and_cite_their_source() -> None:
    rules = [*lints.EACH, *lints.CONSTANT]
    assert len({name for name, _, _ in rules}) == len(rules)
    assert all(section.startswith("RFC ") and rule.__doc__ for _, section, rule in rules)


def test_no_draft_ever_leads_to_another_error_than_broken() -> None:
    issuer: Issuer = root()
    for octets in (b"", b"\x30", b"\x30\x80\x00\x00", b"\x30\x03\x02\x01", b"\xff" * 40, b"\x30\x84\xff\xff\xff\xff"):
        with pytest.raises(Broken):
            lint(replace(drafted(), tbs=octets), profile("device"), issuer)
