"""Our certificates and CRLs, octet for octet those of cryptography's builders, for every algorithm of issuer and subject."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

import pytest
from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from ca.der.certificate import assemble
from ca.der.crl import entry, tbs_crl
from ca.der.extensions import KEY_USAGES
from ca.errors import Broken
from ca.model import CrlEntry, Issuer, Name, NameKind, Reason, Serial
from ca.rules.certificate import draft_ca
from ca.rules.lint.certificate import lint
from ca.rules.reread import reread, verify_signed
from tests.fakes.certificates import (
    DAY,
    HASHES,
    KINDS,
    NOW,
    at,
    drafted,
    issuing,
    key,
    name_of,
    private_key,
    profile,
    root,
    serial,
    signed,
)


def permanent_identifier(value: str) -> x509.OtherName:
    """RFC 4043 2, written by another encoder."""
    octets = core.UTF8String(value).dump()
    return x509.OtherName(ObjectIdentifier("1.3.6.1.5.5.7.8.3"), core.Sequence(contents=octets).dump())


pairs = pytest.mark.parametrize(("ours", "theirs"), [pytest.param(a, b, id=f"{a} signs a key of {b}") for a in KINDS for b in KINDS])


def _constant(builder: x509.CertificateBuilder, name: str, issuer: Issuer | None) -> x509.CertificateBuilder:
    """The extensions in our order, as a person would write them with the library."""
    wanted = profile(name)
    add = builder.add_extension
    builder = add(x509.BasicConstraints(ca=wanted.is_ca, path_length=wanted.path_length), critical=True)
    bits = {theirs: word in wanted.key_usage for word, theirs in KEY_USAGES.items()}
    builder = builder.add_extension(x509.KeyUsage(**bits), critical=True)
    purposes = {"clientAuth": ExtendedKeyUsageOID.CLIENT_AUTH, "serverAuth": ExtendedKeyUsageOID.SERVER_AUTH}
    purposes["OCSPSigning"] = ExtendedKeyUsageOID.OCSP_SIGNING
    if wanted.extended_key_usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purposes[word] for word in wanted.extended_key_usage]), critical=False)
    if issuer is None:
        return builder
    builder = builder.add_extension(x509.AuthorityKeyIdentifier(issuer.key_identifier, None, None), critical=False)
    uri = x509.UniformResourceIdentifier
    if wanted.crl_url:
        assert issuer.crl_url
        point = x509.DistributionPoint([uri(issuer.crl_url)], None, None, None)
        builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
    assert issuer.issuer_url
    access = [x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, uri(issuer.issuer_url))]
    if wanted.ocsp_url:
        assert issuer.ocsp_url
        access.insert(0, x509.AccessDescription(AuthorityInformationAccessOID.OCSP, uri(issuer.ocsp_url)))
    builder = builder.add_extension(x509.AuthorityInformationAccess(access), critical=False)
    if wanted.status.value == "no-rev-avail":
        builder = builder.add_extension(x509.UnrecognizedExtension(ObjectIdentifier("2.5.29.56"), b"\x05\x00"), critical=False)
    if wanted.status.value == "nocheck":
        builder = builder.add_extension(x509.OCSPNoCheck(), critical=False)
    return builder


def _theirs(name: str, issuer_kind: str, kind: str, *, names: list[x509.GeneralName]) -> bytes:
    issuer = issuing(issuer_kind)
    wanted = profile(name)
    public = private_key(kind, "device").public_key()
    start = NOW - wanted.backdate
    builder = (
        x509.CertificateBuilder()
        .serial_number(serial(3))
        .issuer_name(name_of(issuer.certificate))
        .not_valid_before(at(start))
        .not_valid_after(at(start + wanted.lifetime - 1))
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker.example" if name == "service" else "pump-17")]))
        .public_key(public)
    )
    builder = _constant(builder, name, issuer)
    # RFC 7093 method 1: nothing the library makes by itself.
    from ca.der.extensions import key_identifier

    builder = builder.add_extension(x509.SubjectKeyIdentifier(key_identifier(key(kind, "device").spki)), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(private_key(issuer_kind, "issuing"), HASHES.get(issuer_kind)).tbs_certificate_bytes


@pairs
def test_a_device_certificate_is_what_the_library_builds_for_the_same_fields(ours: str, theirs: str) -> None:
    made = drafted("device", issuer=issuing(ours), kind=theirs)
    assert made.tbs == _theirs("device", ours, theirs, names=[permanent_identifier("pump-17")])
    reread(made, signed(made, key(ours, "issuing")), issuing(ours))


@pytest.mark.parametrize(
    ("name", "names"),
    [
        pytest.param("device-short", [permanent_identifier("pump-17")], id="short-lived device"),
        pytest.param("operator", [permanent_identifier("pump-17")], id="operator"),
        pytest.param("ocsp-responder", [], id="responder"),
        pytest.param(
            "service",
            [
                x509.DNSName("broker.example"),
                x509.IPAddress(ipaddress.ip_address("192.0.2.7")),
                x509.IPAddress(ipaddress.ip_address("2001:db8::7")),
            ],
            id="service",
        ),
    ],
)
def test_each_shipped_profile_gives_what_the_library_builds(name: str, names: list[x509.GeneralName]) -> None:
    assert drafted(name).tbs == _theirs(name, "p256", "p256", names=names)


@pytest.mark.parametrize(
    ("template", "device", "value"),
    [
        pytest.param("{device}", "A" * 64, "A" * 64, id="the longest device id"),
        pytest.param("{tenant}/{device}", "pump-17", "default/pump-17", id="with the tenant"),
        pytest.param("x" * 64 + "{device}", "A" * 64, "x" * 64 + "A" * 64, id="128 characters, whose length takes two octets"),
    ],
)
def test_a_permanent_identifier_stands_before_uris_as_the_library_encodes_both(template: str, device: str, value: str) -> None:
    wanted = replace(profile("device"), permanent_identifier=template, uris=("urn:example:{device}",))
    made = drafted(wanted, device=device)
    lint(made, wanted, issuing())
    loaded = x509.load_der_x509_certificate(signed(made, key("p256", "issuing")))
    found = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(found) == [permanent_identifier(value), x509.UniformResourceIdentifier(f"urn:example:{device}")]
    assert found.public_bytes() in made.tbs
    assert made.names == (Name(NameKind.permanent_identifier, value), Name(NameKind.uri, f"urn:example:{device}"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_root_is_what_the_library_builds_and_verifies_with_its_own_key(kind: str) -> None:
    signer = key(kind, "root")
    subject = {"common_name": "Root", "country": "DE", "organization": "Example", "serial_number": "7"}
    made = draft_ca(
        profile=profile("root"),
        issuer=None,
        subject=subject,
        spki=signer.spki,
        serial=serial(1),
        not_before=NOW,
        not_after=2_540_000_000,  # after 2050: GeneralizedTime
    )
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, "7"),
            x509.NameAttribute(NameOID.COMMON_NAME, "Root"),
        ]
    )
    from ca.der.extensions import key_identifier

    builder = (
        x509.CertificateBuilder()
        .serial_number(serial(1))
        .issuer_name(name)
        .subject_name(name)
        .not_valid_before(at(NOW))
        .not_valid_after(at(2_540_000_000))
        .public_key(private_key(kind, "root").public_key())
    )
    builder = _constant(builder, "root", None)
    builder = builder.add_extension(x509.SubjectKeyIdentifier(key_identifier(signer.spki)), critical=False)
    assert made.tbs == builder.sign(private_key(kind, "root"), HASHES.get(kind)).tbs_certificate_bytes
    assert made.subject == name.rfc4514_string()
    verify_signed(made, signed(made, signer), signer.spki)


def test_the_text_of_a_subject_is_the_librarys_rfc4514_text() -> None:
    odd = replace(profile("device"), organization=' Ex, "ample" + <Co>; #1\\ ', common_name="#{device}")
    made = drafted(odd)
    loaded = x509.load_der_x509_certificate(signed(made, key("p256", "issuing")))
    assert made.subject == loaded.subject.rfc4514_string()


def _library_crl(issuer: Issuer, kind: str, entries: list[CrlEntry], number: int) -> bytes:
    revoked = []
    flags = {theirs.name: theirs for theirs in x509.ReasonFlags}
    for one in entries:
        single = x509.RevokedCertificateBuilder().serial_number(one.serial).revocation_date(at(one.revoked_at))
        if one.reason is not Reason.unspecified:
            words = {"keyCompromise": "key_compromise", "certificateHold": "certificate_hold", "privilegeWithdrawn": "privilege_withdrawn"}
            single = single.add_extension(x509.CRLReason(flags[words[one.reason.name]]), critical=False)
        revoked.append(single.build())
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name_of(issuer.certificate))
        .last_update(at(NOW))
        .next_update(at(NOW + DAY - 1))
        .add_extension(x509.AuthorityKeyIdentifier(issuer.key_identifier, None, None), critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for listed in revoked:
        builder = builder.add_revoked_certificate(listed)
    return builder.sign(private_key(kind, "issuing"), HASHES.get(kind)).tbs_certlist_bytes


ENTRIES = [
    CrlEntry(serial(3), NOW - 5, Reason.unspecified),
    CrlEntry(serial(4), NOW - 4, Reason.keyCompromise),
    CrlEntry(serial(5), NOW - 4, Reason.keyCompromise),
    CrlEntry(Serial(1), NOW - 3, Reason.certificateHold),
    CrlEntry(Serial(0x80), NOW - 2, Reason.privilegeWithdrawn),
    CrlEntry(Serial((1 << 152) - 1), NOW - 2, Reason.unspecified),
    CrlEntry(Serial((1 << 151) - 1), NOW - 2, Reason.unspecified),
    CrlEntry(Serial((1 << 159) - 1), NOW - 2, Reason.unspecified),
]


@pytest.mark.parametrize("entries", [pytest.param([], id="empty"), pytest.param(ENTRIES, id="with entries")])
@pytest.mark.parametrize("kind", KINDS)
def test_a_crl_is_what_the_library_builds_for_the_same_fields(kind: str, entries: list[CrlEntry]) -> None:
    issuer = issuing(kind)
    made = tbs_crl(issuer, number=128, this_update=NOW, next_update=NOW + DAY - 1, entries=iter(entries))
    assert made == _library_crl(issuer, kind, entries, 128)
    whole = assemble(made, issuer.algorithm, key(kind, "issuing").sign(made))
    loaded = x509.load_der_x509_crl(whole)
    assert loaded.is_signature_valid(private_key(kind, "issuing").public_key())
    assert [one.serial_number for one in loaded] == [one.serial for one in entries]


def test_one_entry_alone_is_the_same_octets_as_among_many() -> None:
    made = tbs_crl(issuing(), number=1, this_update=NOW, next_update=NOW + 1, entries=ENTRIES)
    assert b"".join(entry(one.serial, one.revoked_at, one.reason) for one in ENTRIES) in made


def test_remove_from_crl_never_stands_in_a_complete_crl() -> None:
    with pytest.raises(Broken):
        entry(serial(3), NOW, Reason.removeFromCRL)


def test_crl_dates_from_2050_on_are_generalized_time() -> None:
    issuer: Any = root()
    made = tbs_crl(issuer, number=1, this_update=2_524_607_999, next_update=2_524_608_000, entries=())
    assert b"\x17\x0d491231235959Z\x18\x0f20500101000000Z" in made


def test_serialization_of_the_spki_is_copied_not_re_encoded() -> None:
    made = drafted(kind="rsa-3072")
    loaded = x509.load_der_x509_certificate(signed(made, key("p256", "issuing")))
    spki = loaded.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert spki == key("rsa-3072", "device").spki
