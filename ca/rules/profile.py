"""From the plain values of a profile file to a `Profile`, refusing what no certificate may be. Ring 1: pure.

A profile that passes here can only give certificates that RFC 5280 and its updates allow; the lint judges each certificate again. Knows
nothing of files and their syntax: `config` reads those, wiring hands the values over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import Enum
from string import Formatter
from types import MappingProxyType
from typing import Final, TypeVar

from ca.der.algorithms import ALGORITHMS
from ca.der.extensions import EXTENDED_KEY_USAGES, KEY_USAGES
from ca.der.names import LONGEST_NAME
from ca.errors import Misconfigured
from ca.model import (
    AlgorithmName,
    AnchorsBy,
    AttestationKind,
    Digest,
    NameKind,
    OnSuperseded,
    Profile,
    ProfileName,
    Protection,
    RenewedBy,
    RootOfTrust,
    SafetyClass,
    StatusKind,
)
from ca.rules.renewal_window import overlap

DAY: Final = 86400
LONGEST_NO_REV_AVAIL: Final = DAY
"""Our own limit for certificates that nothing can revoke (RFC 9608 leaves "short-lived" open)."""
LONGEST_RESPONDER: Final = 30 * DAY
LONGEST_BACKDATE: Final = DAY
LONGEST_RENEW_AFTER_EXPIRY: Final = 90 * DAY
"""Nobody can revoke an expired certificate, only its device: who may come back so late should be few, and known."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_CA_USAGES: Final = frozenset(("keyCertSign", "cRLSign"))
# RFC 5280 4.2.1.12: each extended key usage with the key usages of which one at least must be there.
_CONSISTENT: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "serverAuth": frozenset(("digitalSignature", "keyEncipherment", "keyAgreement")),
        "clientAuth": frozenset(("digitalSignature", "keyAgreement")),
        "codeSigning": frozenset(("digitalSignature",)),
        "emailProtection": frozenset(("digitalSignature", "nonRepudiation", "keyEncipherment", "keyAgreement")),
        "timeStamping": frozenset(("digitalSignature", "nonRepudiation")),
        "OCSPSigning": frozenset(("digitalSignature", "nonRepudiation")),
    }
)
_Choice = TypeVar("_Choice", bound=Enum)


def _wrong(profile: str, field: str, what: str, *, fix: str = "") -> Misconfigured:
    return Misconfigured("bad-profile", f"Profile {profile!r}, {field}: {what}", fix=fix)


def accept(
    *,
    name: str,
    lifetime: int,
    status: str,
    key_usage: Sequence[str],
    common_name: str,
    digest: bytes,
    max_lifetime: int | None = None,
    is_ca: bool = False,
    path_length: int | None = None,
    backdate: int = 300,
    crl_url: bool = False,
    ocsp_url: bool = False,
    key_algorithms: Sequence[str] = tuple(ALGORITHMS),
    extended_key_usage: Sequence[str] = (),
    organization: str | None = None,
    permanent_identifier: str | None = None,
    uris: Sequence[str] = (),
    allowed_names: Sequence[str] = (),
    required_names: bool = False,
    key_reuse: bool = False,
    renewable: bool = True,
    renew_from: float = 0.0,
    renew_after_expiry: int = 0,
    grace: int = 0,
    on_superseded: str = "keep",
    plain_key_file: bool = False,
    renewed_by: str | None = None,
    anchors_by: Sequence[str] | None = None,
    roots_of_trust: Sequence[str] = (),
    attestation: Sequence[str] = (),
    safety_class: str | None = None,
    minimum_protection: str = "memory",
    server_keygen: bool = False,
    approval_within: int = 0,
    offline: int = 0,
) -> Profile:
    """Build a profile from plain values (see `ca.model.Profile` for what they mean; times are seconds).

    Raises:
        Misconfigured: a value is unknown, or the values together are against a rule (`bad-profile`); the text names profile and field.
    """
    if renewed_by is None and not is_ca and not renewable:
        raise _wrong(
            name, "renewed_by", "its certificates are not renewed by their holders, and nothing says who does (REQ-KEY-027).",
            fix='Set renewable = true, or renewed_by = "service" or "ceremony".',
        )  # fmt: skip
    way = renewed_by or (RenewedBy.ceremony if is_ca else RenewedBy.protocol).value
    # What renews over the network fetches pin sets and /cacerts the same way; what a ceremony makes is replaced where the anchors are.
    usual: Mapping[str, Sequence[str]] = {"protocol": ("pins", "est"), "service": ("settings",), "ceremony": ("ceremony",)}
    anchors = usual.get(way, ()) if anchors_by is None else anchors_by
    profile = Profile(
        name=ProfileName(name),
        is_ca=is_ca,
        path_length=path_length,
        lifetime=lifetime,
        max_lifetime=lifetime if max_lifetime is None else max_lifetime,
        backdate=backdate,
        status=_choice(name, "status", StatusKind, status),
        crl_url=crl_url,
        ocsp_url=ocsp_url,
        key_algorithms=tuple(AlgorithmName(_known(name, "key_algorithms", ALGORITHMS, word)) for word in key_algorithms),
        key_usage=tuple(_known(name, "key_usage", KEY_USAGES, word) for word in key_usage),
        extended_key_usage=tuple(_known(name, "extended_key_usage", EXTENDED_KEY_USAGES, word) for word in extended_key_usage),
        common_name=common_name,
        organization=organization,
        permanent_identifier=permanent_identifier,
        uris=tuple(uris),
        allowed_names=tuple(_choice(name, "allowed_names", NameKind, word) for word in allowed_names),
        required_names=required_names,
        key_reuse=key_reuse,
        renewable=renewable,
        renew_from=renew_from,
        renew_after_expiry=renew_after_expiry,
        grace=grace,
        on_superseded=_choice(name, "on_superseded", OnSuperseded, on_superseded),
        plain_key_file=plain_key_file,
        digest=Digest(digest),
        renewed_by=_choice(name, "renewed_by", RenewedBy, way),
        anchors_by=tuple(_choice(name, "anchors_by", AnchorsBy, word) for word in anchors),
        roots_of_trust=tuple(_choice(name, "roots_of_trust", RootOfTrust, word) for word in roots_of_trust),
        attestation=tuple(_choice(name, "attestation", AttestationKind, word) for word in attestation),
        safety_class=None if safety_class is None else _choice(name, "safety_class", SafetyClass, safety_class),
        minimum_protection=_protection(name, minimum_protection),
        server_keygen=server_keygen,
        approval_within=approval_within,
        offline=offline,
    )
    judge(profile)
    return profile


def _choice(profile: str, field: str, kind: type[_Choice], word: str) -> _Choice:
    for member in kind:
        if member.value == word:
            return member
    raise _wrong(profile, field, f"{word!r} is unknown.", fix=f"Use one of: {', '.join(str(member.value) for member in kind)}.")


def _protection(profile: str, word: str) -> Protection:
    if word not in Protection.__members__:
        raise _wrong(profile, "minimum_protection", f"{word!r} is unknown.", fix=f"Use one of: {', '.join(Protection.__members__)}.")
    return Protection[word]


def _known(profile: str, field: str, words: Mapping[AlgorithmName, object] | Mapping[str, object], word: str) -> str:
    if word not in words:
        raise _wrong(profile, field, f"{word!r} is unknown.", fix=f"Use one of: {', '.join(words)}.")
    return word


def judge(profile: Profile) -> None:
    """Every rule about profiles.

    Raises:
        Misconfigured: the first rule that does not hold (`bad-profile`).
    """
    _judge_shape(profile)
    _judge_usages(profile)
    if profile.is_ca:
        _judge_ca(profile)
    elif profile.path_length is not None:
        raise _wrong(profile.name, "path_length", "only CA certificates have one (RFC 5280 4.2.1.9).")
    _judge_status(profile)
    _judge_life(profile)


def _judge_life(profile: Profile) -> None:
    """No certificate without a way to its successor and a way to other anchors, and floors for what people's lives hang on (REQ-KEY-027, REQ-KEY-032)."""
    name = profile.name
    if not profile.is_ca and (profile.renewed_by is RenewedBy.protocol) != profile.renewable:
        raise _wrong(name, "renewed_by", "renewable says whether its holders renew it over the network, and says otherwise.")
    if not profile.anchors_by:
        raise _wrong(
            name, "anchors_by", "its holders would never learn of another trust anchor.",
            fix=f"Name a way: {', '.join(way.value for way in AnchorsBy)}.",
        )  # fmt: skip
    if profile.safety_class is SafetyClass.C and not (profile.status is StatusKind.revocable and profile.crl_url and profile.ocsp_url):
        raise _wrong(
            name, "safety_class", "class C needs certificates whose status can always be asked for, so that what cannot be asked is turned away.",
            fix='Set status = "revocable", crl_url = true and ocsp_url = true.',
        )  # fmt: skip


def _judge_shape(profile: Profile) -> None:
    name = profile.name
    if not _NAME.fullmatch(name):
        raise _wrong(name, "name", "it is lower-case letters, digits and hyphens, 63 at most.")
    if not 0 < profile.lifetime <= profile.max_lifetime:
        raise _wrong(name, "lifetime", "it must be positive and at most max_lifetime.")
    if not 0 <= profile.backdate <= LONGEST_BACKDATE or profile.backdate >= profile.lifetime:
        raise _wrong(name, "backdate", "it must be shorter than the lifetime and a day at most.")
    if not 0.0 <= profile.renew_from < 1.0:
        raise _wrong(name, "renew_from", "it is a share of the lifetime: from 0 up to, not including, 1.")
    if not 0 <= profile.renew_after_expiry <= LONGEST_RENEW_AFTER_EXPIRY:
        raise _wrong(name, "renew_after_expiry", f"it is at most {LONGEST_RENEW_AFTER_EXPIRY // DAY} days.")
    if profile.renew_after_expiry and not profile.renewable:
        raise _wrong(name, "renew_after_expiry", "its certificates are not renewed at all.")
    if profile.grace < 0:
        raise _wrong(name, "grace", "it cannot be negative.")
    if profile.offline and not (profile.renewable and profile.offline <= overlap(profile)):
        raise _wrong(
            name, "offline", f"its devices may be out of reach for {profile.offline} s, and renewal leaves them {overlap(profile)} s (REQ-KEY-009).",
            fix="Let certificates live longer, open renewal earlier (renew_from), or allow it after their end (renew_after_expiry).",
        )  # fmt: skip
    for field, values in (
        ("key_algorithms", profile.key_algorithms),
        ("key_usage", profile.key_usage),
        ("extended_key_usage", profile.extended_key_usage),
        ("allowed_names", profile.allowed_names),
        ("uris", profile.uris),
    ):
        if len(set(values)) != len(values):
            raise _wrong(name, field, "something stands in it twice.")
    if not profile.key_algorithms:
        raise _wrong(name, "key_algorithms", "at least one is needed.")
    if profile.required_names and not profile.allowed_names:
        raise _wrong(name, "required_names", "names are required, but allowed_names allows none.")
    if profile.organization is not None and not 0 < len(profile.organization) <= LONGEST_NAME:
        raise _wrong(name, "organization", f"it has 1 to {LONGEST_NAME} characters (RFC 5280 A.1).")
    if not profile.common_name and not profile.is_ca:
        # RFC 5280 would allow an empty subject with a critical SAN; too many verifiers do not, and responders must have one.
        raise _wrong(name, "common_name", "it must not be empty.")
    if NameKind.permanent_identifier in profile.allowed_names:
        raise _wrong(
            name,
            "allowed_names",
            "a permanent identifier says who the device is; nobody asks for one.",
            fix='Give the profile permanent_identifier = "{device}".',
        )
    if profile.permanent_identifier == "":
        raise _wrong(name, "permanent_identifier", "it must not be empty.", fix="Leave it out, or give a template.")
    own = () if profile.permanent_identifier is None else (profile.permanent_identifier,)
    for field, templates in (("common_name", (profile.common_name,)), ("permanent_identifier", own), ("uris", profile.uris)):
        for template in templates:
            _judge_template(name, field, template, also=("name",) if field == "common_name" and profile.required_names else ())


def _judge_template(profile: str, field: str, template: str, *, also: tuple[str, ...]) -> None:
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise _wrong(profile, field, f"{template!r} is no template: {error}.") from None
    for _, placeholder, layout, conversion in parts:
        if placeholder is not None and (placeholder not in ("device", "tenant", *also) or layout or conversion):
            raise _wrong(
                profile,
                field,
                f"{template!r} has a placeholder other than {{device}} and {{tenant}}.",
                fix="A common name may have {name} too, the first of the names, where required_names says that there is one.",
            )


def _judge_usages(profile: Profile) -> None:
    name, usages, extended = profile.name, frozenset(profile.key_usage), frozenset(profile.extended_key_usage)
    if not usages:
        raise _wrong(name, "key_usage", "at least one is needed (RFC 5280 4.2.1.3).")
    algorithms = profile.key_algorithms
    if usages & {"keyEncipherment", "dataEncipherment"} and not all(word.startswith("rsa-") for word in algorithms):
        raise _wrong(
            name,
            "key_usage",
            "keyEncipherment and dataEncipherment are for RSA keys only (RFC 5480 3, RFC 8410 5, RFC 9881 3).",
            fix="Leave it out, or let key_algorithms name RSA only.",
        )
    if usages & {"keyAgreement", "encipherOnly", "decipherOnly"} and not all(word in ("p256", "p384") for word in algorithms):
        raise _wrong(name, "key_usage", "keyAgreement is for EC keys only (RFC 3279 2.3.1, RFC 8410 5, RFC 9881 3).")
    if usages & {"encipherOnly", "decipherOnly"} and "keyAgreement" not in usages:
        raise _wrong(name, "key_usage", "encipherOnly and decipherOnly mean nothing without keyAgreement (RFC 5280 4.2.1.3).")
    for word in profile.extended_key_usage:
        if not usages & _CONSISTENT[word]:
            raise _wrong(name, "extended_key_usage", f"{word} does not agree with key_usage (RFC 5280 4.2.1.12).")
    if "timeStamping" in extended and extended != {"timeStamping"}:
        raise _wrong(name, "extended_key_usage", "timeStamping stands alone (RFC 3161 2.3).")
    if "OCSPSigning" in extended and (extended != {"OCSPSigning"} or profile.status is not StatusKind.nocheck or profile.is_ca):
        # R16: a CA or device certificate with this usage could answer for its siblings.
        raise _wrong(
            name,
            "extended_key_usage",
            "OCSPSigning belongs into a responder profile only: no CA, no other usage, status nocheck (RFC 6960 4.2.2.2).",
        )


def _judge_ca(profile: Profile) -> None:
    name = profile.name
    if "keyCertSign" not in profile.key_usage or "cRLSign" not in profile.key_usage:
        raise _wrong(name, "key_usage", "a CA certificate needs keyCertSign and cRLSign (RFC 5280 4.2.1.3).")
    if profile.path_length is not None and profile.path_length < 0:
        raise _wrong(name, "path_length", "it cannot be negative.")
    if profile.extended_key_usage:
        raise _wrong(name, "extended_key_usage", "CA certificates have none: it would constrain everything below.")
    if profile.uris or profile.allowed_names or profile.permanent_identifier is not None:
        raise _wrong(name, "uris", "CA certificates carry no alternative names.")


def _judge_status(profile: Profile) -> None:
    name, status = profile.name, profile.status
    if not profile.is_ca and set(profile.key_usage) & _CA_USAGES:
        raise _wrong(name, "key_usage", "keyCertSign and cRLSign are for CA certificates (RFC 5280 4.2.1.9).")
    if (status is StatusKind.anchor) > profile.is_ca:
        raise _wrong(name, "status", "only a self-signed CA is an anchor.")
    if status is not StatusKind.revocable and (profile.crl_url or profile.ocsp_url):
        rule = {
            StatusKind.no_rev_avail: "noRevAvail allows neither CDP nor OCSP (RFC 9608 4)",
            StatusKind.nocheck: "a responder's certificate with nocheck has neither CDP nor OCSP (RFC 9919 3.2)",
            StatusKind.anchor: "a root says nothing about its own revocation",
        }[status]
        raise _wrong(name, "crl_url" if profile.crl_url else "ocsp_url", f"{rule}.", fix="Set crl_url and ocsp_url to false.")
    if status is StatusKind.revocable and not (profile.crl_url or profile.ocsp_url):
        raise _wrong(name, "status", "revocable certificates must say where: set crl_url, ocsp_url or both.")
    if status is StatusKind.no_rev_avail:
        if profile.is_ca:
            raise _wrong(name, "status", "a CA certificate cannot carry noRevAvail (RFC 9608 3).")
        if profile.max_lifetime > LONGEST_NO_REV_AVAIL:
            raise _wrong(name, "max_lifetime", "certificates that nothing can revoke live 24 h at most.")
    if status is StatusKind.nocheck:
        if profile.is_ca or profile.extended_key_usage != ("OCSPSigning",):
            raise _wrong(name, "status", "nocheck is for OCSP responders: extended_key_usage must be OCSPSigning alone.")
        if profile.max_lifetime > LONGEST_RESPONDER:
            raise _wrong(name, "max_lifetime", "a responder that nobody can revoke lives 30 days at most (RFC 6960 4.2.2.2.1).")
        if profile.allowed_names:
            raise _wrong(name, "allowed_names", "a responder's certificate carries no asked-for names.")
