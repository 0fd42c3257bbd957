"""What a certificate of a profile says: the one place where its to-be-signed octets are made. Ring 1: pure.

What is the same for all certificates of a profile under an issuer is encoded once; each certificate then costs its serial number,
dates, name, key and alternative names. Nothing of a CSR but its key comes in (P2). Knows nothing of databases, grants' making, or keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Final

from cryptography import x509

from ca.der import extensions, names, writer
from ca.der.algorithms import ALGORITHMS, algorithm_of, load_public_key
from ca.der.certificate import UNREADABLE, read_certificate
from ca.errors import Malformed, Misconfigured, Unacceptable
from ca.model import (
    DEFAULT_TENANT,
    CrlPlan,
    Digest,
    Draft,
    Grant,
    Issuer,
    IssuerId,
    KeyName,
    Name,
    NameKind,
    Profile,
    Serial,
    StatusKind,
    TenantId,
    UnixTime,
)
from ca.rules.crl import WHOLE, shard_of, shard_url
from ca.rules.window import date, last_second, lifetime_of

_V3: Final = writer.explicit(0, writer.integer(2))
_TEMPLATES_KEPT: Final = 256


@dataclass(frozen=True, slots=True)
class _Template:
    """The constant octets of one profile under one issuer."""

    profile: Profile
    issuer: Issuer
    algorithm_and_issuer: bytes
    organization: bytes
    organization_text: str
    extensions: bytes
    sharded: bool
    """The distribution point depends on the serial number, so it is not among `extensions`."""


_templates: dict[tuple[str, str], _Template] = {}


def _template(profile: Profile, issuer: Issuer) -> _Template:
    kept = _templates.get((profile.name, issuer.id))
    # Identity first: comparing two dozen fields costs more than the whole draft. A changed profile or issuer is another object.
    if kept is not None and (kept.profile is profile or kept.profile == profile) and (kept.issuer is issuer or kept.issuer == issuer):
        return kept
    if len(_templates) >= _TEMPLATES_KEPT:
        _templates.clear()
    made = _made(profile, issuer)
    _templates[profile.name, issuer.id] = made
    return made


def _made(profile: Profile, issuer: Issuer) -> _Template:
    organization = names.subject_name({"organization": profile.organization}) if profile.organization else b""
    return _Template(
        profile=profile,
        issuer=issuer,
        algorithm_and_issuer=ALGORITHMS[issuer.algorithm].identifier + issuer.subject,
        # The Name of one attribute without its own header is that attribute's RelativeDistinguishedName.
        organization=organization[2:] if organization else b"",
        organization_text=f",O={names.escaped(profile.organization)}" if profile.organization else "",
        sharded=profile.crl_url and issuer.crls.shards > 0,
        extensions=_constant_extensions(
            profile,
            authority=issuer.key_identifier,
            crl_url=issuer.crl_url,
            sharded=issuer.crls.shards > 0,
            ocsp_url=issuer.ocsp_url,
            issuer_url=issuer.issuer_url,
            issuer_id=issuer.id,
        ),
    )


def _constant_extensions(
    profile: Profile,
    *,
    authority: bytes | None,
    crl_url: str | None,
    ocsp_url: str | None,
    issuer_url: str | None,
    issuer_id: str,
    sharded: bool = False,
) -> bytes:
    """All but subjectKeyIdentifier and subjectAltName, in the order in which they stand in the certificate."""
    parts = [
        extensions.basic_constraints(is_ca=profile.is_ca, path_length=profile.path_length),
        extensions.key_usage(profile.key_usage),
    ]
    if profile.extended_key_usage:
        parts.append(extensions.extended_key_usage(profile.extended_key_usage))
    if authority is not None:
        parts.append(extensions.authority_key_identifier(authority))
    for wanted, url, field in ((profile.crl_url, crl_url, "crl_url"), (profile.ocsp_url, ocsp_url, "ocsp_url")):
        if wanted and url is None:
            raise Misconfigured(
                "issuer-url",
                f"Profile {profile.name!r} wants {field}, but issuer {issuer_id!r} has none.",
                fix="Give the status service's url in the settings, or set the profile's field to false.",
            )
    if profile.crl_url and crl_url is not None and not sharded:
        parts.append(extensions.crl_distribution_points(crl_url))
    responder = ocsp_url if profile.ocsp_url else None
    # A self-signed certificate has no issuer to point at (RFC 5280 4.2.2.1).
    above = None if authority is None else issuer_url
    if responder or above:
        parts.append(extensions.authority_information_access(ocsp_url=responder, issuer_url=above))
    if profile.status is StatusKind.no_rev_avail:
        parts.append(extensions.NO_REV_AVAIL)
    if profile.status is StatusKind.nocheck:
        parts.append(extensions.OCSP_NOCHECK)
    return b"".join(parts)


def draft(
    *,
    grant: Grant,
    profile: Profile,
    issuer: Issuer,
    spki: bytes,
    spki_sha256: Digest,
    serial: Serial,
    now: UnixTime,
) -> Draft:
    """The end-entity certificate that a grant allows, ready to be linted and signed.

    `spki` is canonical and was judged by `ca.rules.key_quality`, as `ca.der.csr.read_csr` gives it.

    Raises:
        Unacceptable: it would outlive its issuer (`outlives-issuer`, with the date that works), its key is not of the profile's kinds
            (`key-type`), or a name does not fit (`bad-name`, `name-not-allowed`, `names-required`).
        Misconfigured: the issuer lacks what the profile needs (`issuer-url`), or the profile is not for this (`ca-profile`).
    """
    if profile.is_ca:
        raise Misconfigured("ca-profile", f"Profile {profile.name!r} makes CA certificates; those come from a ceremony only (P4).")
    check_key_algorithm(profile, _algorithm_of(spki))
    template = _template(profile, issuer)
    not_before = now - profile.backdate
    not_after = last_second(not_before, profile.lifetime)
    if not_after > issuer.not_after:
        raise _outlives(issuer, not_before, not_after)
    common, own = _filled(profile, grant)
    alternative = _alternative_names(profile, grant, own)
    last = extensions.subject_key_identifier(extensions.key_identifier(spki))
    shard = shard_of(serial, issuer.crls.shards) if template.sharded else WHOLE
    if shard != WHOLE:
        last = _distribution_point(shard_url(issuer.crl_url or "", shard)) + last
    if alternative:
        last += extensions.subject_alternative_name([names.general_name(name) for name in alternative], critical=False)
    tbs = _tbs(
        template.algorithm_and_issuer,
        serial=serial,
        not_before=not_before,
        not_after=not_after,
        subject=writer.tlv(writer.SEQUENCE, template.organization + names.common_name(common)),
        spki=spki,
        all_extensions=template.extensions + last,
    )
    return Draft(
        tbs=tbs,
        issuer=issuer.id,
        serial=serial,
        algorithm=issuer.algorithm,
        not_before=not_before,
        not_after=not_after,
        subject=f"CN={names.escaped(common)}{template.organization_text}",
        names=alternative,
        spki_sha256=spki_sha256,
        shard=shard,
    )


def _filled(profile: Profile, grant: Grant) -> tuple[str, tuple[Name, ...]]:
    """The common name, and the names that the profile itself gives."""
    words: dict[str, str] = {"device": grant.device, "tenant": grant.tenant}
    own = tuple([Name(NameKind.uri, uri.format_map(words)) for uri in profile.uris])
    if profile.permanent_identifier is not None:
        own = (Name(NameKind.permanent_identifier, profile.permanent_identifier.format_map(words)), *own)
    words["name"] = _first_name(grant) if grant.names else grant.device
    return profile.common_name.format_map(words), own


def _first_name(grant: Grant) -> str:
    """What `{name}` stands for where there are names: the first name that fits a common name, DNS names before addresses; the device where none does."""
    fitting = [name for name in grant.names if name.kind in {NameKind.dns, NameKind.ip} and len(name.value) <= names.LONGEST_NAME]
    return next((name.value for name in fitting if name.kind is NameKind.dns), fitting[0].value if fitting else grant.device)


def _alternative_names(profile: Profile, grant: Grant, own: tuple[Name, ...]) -> tuple[Name, ...]:
    for name in grant.names:
        if name.kind not in profile.allowed_names:
            raise Unacceptable(
                "name-not-allowed",
                f"Profile {profile.name!r} allows no {name.kind.value} names.",
                why=f"{name.value[:80]!r} was asked for.",
                fix="Use another profile, or allow the kind in its allowed_names.",
            )
    if profile.required_names and not grant.names:
        kinds = ", ".join(profile.allowed_names)
        raise Unacceptable(
            "names-required",
            f"Certificates of profile {profile.name!r} need at least one name.",
            why=f"It may be of the kinds {kinds}.",
            fix="Give the names with the token or the request.",
        )
    return tuple(dict.fromkeys(own + grant.names)) if grant.names else own


_kinds: dict[tuple[bytes, int], str] = {}


def _algorithm_of(spki: bytes) -> str:
    # Head and length tell the kinds of judged keys apart; loading each key again would cost half a draft.
    head = spki[:24], len(spki)
    kind = _kinds.get(head)
    if kind is None:
        if len(_kinds) >= _TEMPLATES_KEPT:
            _kinds.clear()
        kind = _kinds[head] = algorithm_of(load_public_key(spki)).name
    return kind


def check_key_algorithm(profile: Profile, algorithm: str) -> None:
    """Whether keys of this kind may have certificates of this profile.

    Raises:
        Unacceptable: they may not (`key-type`).
    """
    if algorithm not in profile.key_algorithms:
        raise Unacceptable(
            "key-type",
            f"Profile {profile.name!r} does not accept keys of kind {algorithm}.",
            why=f"Accepted are {', '.join(profile.key_algorithms)}.",
            fix="Make a key of an accepted kind, or use another profile.",
        )


def _outlives(issuer: Issuer, not_before: UnixTime, not_after: UnixTime) -> Unacceptable:
    longest = max(lifetime_of(not_before, issuer.not_after), 0)
    return Unacceptable(
        "outlives-issuer",
        f"The certificate would outlive its issuer {issuer.id!r}.",
        why=f"It would hold until {date(not_after)}, the issuer only until {date(issuer.not_after)}.",
        fix=f"The last date that works is {date(issuer.not_after)} (a lifetime of {longest} seconds): use a shorter profile, or a newer issuer.",
    )


def _tbs(
    algorithm_and_issuer: bytes,
    *,
    serial: Serial,
    not_before: UnixTime,
    not_after: UnixTime,
    subject: bytes,
    spki: bytes,
    all_extensions: bytes,
) -> bytes:
    validity = writer.tlv(writer.SEQUENCE, _time(not_before) + _time(not_after))
    tail = writer.tlv(0xA3, writer.tlv(writer.SEQUENCE, all_extensions))
    return writer.tlv(
        writer.SEQUENCE,
        b"".join((_V3, writer.integer(serial), algorithm_and_issuer, validity, subject, spki, tail)),
    )


_distribution_point = lru_cache(maxsize=4096)(extensions.crl_distribution_points)

# Many certificates are made in the same second.
_time = lru_cache(maxsize=64)(writer.time)


def draft_ca(
    *,
    profile: Profile,
    issuer: Issuer | None,
    subject: Mapping[str, str] | bytes,
    spki: bytes,
    serial: Serial,
    not_before: UnixTime,
    not_after: UnixTime,
    crl_url: str | None = None,
    ocsp_url: str | None = None,
    issuer_url: str | None = None,
) -> Draft:
    """A certificate of a ceremony: a CA's, self-signed where `issuer` is None, otherwise below `issuer`; or a delegated responder's.

    `subject` is given by the words of `ca.der.names.ATTRIBUTES`, or as the DER Name to copy. The urls, where given, take the place of the
    issuer's own.

    Raises:
        Unacceptable: it would outlive its issuer (`outlives-issuer`), live longer than its profile allows (`lifetime`), or exceed its
            issuer's path length (`path-length`).
        Misconfigured: the profile makes no CA certificates (`ca-profile`), or wants urls that are not there (`issuer-url`).
        Malformed: subject or key cannot be encoded.
    """
    delegate = profile.status is StatusKind.nocheck and issuer is not None
    if not delegate and (not profile.is_ca or (profile.status is StatusKind.anchor) is not (issuer is None)):
        raise Misconfigured("ca-profile", f"Profile {profile.name!r} does not make this kind of CA certificate.")
    lifetime = lifetime_of(not_before, not_after)
    if not 0 < lifetime <= profile.max_lifetime:
        raise Unacceptable(
            "lifetime",
            f"A certificate of profile {profile.name!r} lives {profile.max_lifetime} seconds at most.",
            why=f"From {date(not_before)} to {date(not_after)} are {lifetime} seconds.",
            fix=f"The last date that works is {date(last_second(not_before, profile.max_lifetime))}.",
        )
    if issuer is not None and not_after > issuer.not_after:
        raise _outlives(issuer, not_before, not_after)
    if issuer is not None and profile.is_ca:
        _check_path_length(profile, issuer)
    own = algorithm_of(load_public_key(spki)).name
    check_key_algorithm(profile, own)
    identifier = extensions.key_identifier(spki)
    encoded = subject if isinstance(subject, bytes) else names.subject_name(subject)
    if encoded == b"\x30\x00":
        raise Malformed("bad-subject", "A CA needs a subject (RFC 5280 4.1.2.6).", fix="Give at least common_name.")
    above = issuer
    constant = _constant_extensions(
        profile,
        authority=above.key_identifier if above else None,
        crl_url=crl_url or (above.crl_url if above else None),
        ocsp_url=ocsp_url or (above.ocsp_url if above else None),
        issuer_url=issuer_url or (above.issuer_url if above else None),
        issuer_id=above.id if above else "self",
    )
    algorithm = above.algorithm if above else own
    tbs = _tbs(
        ALGORITHMS[algorithm].identifier + (above.subject if above else encoded),
        serial=serial,
        not_before=not_before,
        not_after=not_after,
        subject=encoded,
        spki=spki,
        all_extensions=constant + extensions.subject_key_identifier(identifier),
    )
    return Draft(
        tbs=tbs,
        issuer=above.id if above else IssuerId("self"),
        serial=serial,
        algorithm=algorithm,
        not_before=not_before,
        not_after=not_after,
        subject=names.rfc4514(encoded),
        names=(),
        spki_sha256=Digest(sha256(spki).digest()),
    )


def _check_path_length(profile: Profile, issuer: Issuer) -> None:
    """RFC 5280 4.2.1.9: below a CA of path length n stand CAs of at most n - 1; nobody would believe others."""
    constraints = x509.load_der_x509_certificate(issuer.certificate).extensions.get_extension_for_class(x509.BasicConstraints).value
    above = constraints.path_length
    if above is not None and (profile.path_length is None or profile.path_length >= above):
        raise Unacceptable(
            "path-length",
            f"Issuer {issuer.id!r} cannot have a CA of profile {profile.name!r} below it.",
            why=f"Its path length is {above}.",
            fix="Sign it with the root, or use a profile with a smaller path_length.",
        )


def issuer_from_certificate(
    der: bytes,
    *,
    id: str,  # noqa: A002 - the model's word
    key: KeyName | None,
    tenant: TenantId = DEFAULT_TENANT,
    crl_url: str | None = None,
    ocsp_url: str | None = None,
    issuer_url: str | None = None,
    parent: IssuerId | None = None,
    crls: CrlPlan | None = None,
) -> Issuer:
    """An `Issuer` as its certificate describes it. The urls are what its leaves will carry.

    Raises:
        Malformed: the certificate cannot be read (`bad-certificate`).
        Misconfigured: it is not a CA certificate with a key identifier (`not-a-ca`).
    """
    facts = read_certificate(der)
    try:
        found = x509.load_der_x509_certificate(der).extensions
        constraints = found.get_extension_for_class(x509.BasicConstraints).value
        usage = found.get_extension_for_class(x509.KeyUsage).value
        identifier = found.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except (*UNREADABLE, x509.ExtensionNotFound) as error:
        raise Misconfigured("not-a-ca", f"The certificate of issuer {id!r} is not a CA certificate.", why=str(error)) from None
    if not constraints.ca:
        raise Misconfigured("not-a-ca", f"The certificate of issuer {id!r} is not a CA certificate.", why="basicConstraints says so.")
    return Issuer(
        id=IssuerId(id),
        tenant=tenant,
        certificate=der,
        subject=facts.subject,
        spki=facts.spki,
        key_identifier=identifier,
        algorithm=algorithm_of(load_public_key(facts.spki)).name,
        not_before=facts.not_before,
        not_after=facts.not_after,
        key=key,
        may_issue=usage.key_cert_sign,
        may_sign_crl=usage.crl_sign,
        crl_url=crl_url,
        ocsp_url=ocsp_url,
        issuer_url=issuer_url,
        parent=parent,
        crls=crls or CrlPlan(),
    )
