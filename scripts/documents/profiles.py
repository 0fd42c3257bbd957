"""docs/reference/profiles.md: what the certificates of each shipped profile look like, from config/profiles/*.toml."""

from __future__ import annotations

from collections.abc import Iterator

from ca.model import AnchorsBy, OnSuperseded, Profile, StatusKind
from config.profiles import shipped_profiles
from config.strict import duration_text
from documents import markdown
from fleetca import forms

_ABOUT = """
A certificate is made from its profile and from nothing else: a CSR gives the key and proves that its holder has the private half. What a CSR asks for
(names, usages, extensions, CA:TRUE) is not looked at. A deployment may bring profiles of its own as files of the same form in a folder of
`[profiles] directories`; one that breaks a rule is refused when the signer starts, with the field and the rule. `fleetca profiles list` shows what
the running signer has.

All certificates are X.509 v3 with a serial number of 20 octets, a subject that is not empty, subjectKeyIdentifier and authorityKeyIdentifier, and
key usage (critical). `notAfter` is the last second in which they hold. `{device}` and `{tenant}` stand for the device's id and its tenant.
"""

_STATUS = {
    StatusKind.anchor: "none: a root is trusted or it is not",
    StatusKind.revocable: "revocable",
    StatusKind.no_rev_avail: "noRevAvail (RFC 9608): too short-lived to be revoked; revoking the device stops its renewals",
    StatusKind.nocheck: "id-pkix-ocsp-nocheck (RFC 6960, 4.2.2.2.1): short-lived, and not looked up",
}


_ANCHORS = {
    AnchorsBy.pins: "signed pin sets (the agent)",
    AnchorsBy.est: "/cacerts (EST)",
    AnchorsBy.update: "the maker's update system",
    AnchorsBy.ceremony: "the ceremony that makes it",
    AnchorsBy.settings: "the settings",
}


def page() -> str:
    """The page."""
    profiles = sorted(forms.shipped_profiles().values(), key=lambda one: one.name)
    parts = [markdown.head("Profiles", "`config/profiles/*.toml`", _ABOUT)]
    parts.append(markdown.table(("profile", "lives", "status", "for"), [_line(one) for one in profiles]))
    for one in profiles:
        parts += [f"\n## {one.name}\n", _comment(one), "", markdown.table(("field", "what it is"), list(_rows(one)))]
    return "\n".join([*parts, ""])


def _line(one: Profile) -> tuple[str, ...]:
    return f"[`{one.name}`](#{one.name})", duration_text(one.lifetime), one.status.value, ", ".join(one.extended_key_usage) or "-"


def _comment(one: Profile) -> str:
    """What the file itself says at its top."""
    lines = (shipped_profiles() / f"{one.name}.toml").read_text().splitlines()
    return " ".join(line.removeprefix("# ") for line in lines if line.startswith("#"))


def _rows(one: Profile) -> Iterator[tuple[str, str]]:
    yield "validity", _validity(one)
    yield "subject", _subject(one)
    yield "subjectAltName", _names(one)
    if one.is_ca:
        length = "no path length" if one.path_length is None else f"path length {one.path_length}"
        yield "basicConstraints", f"critical, CA, {length}"
    else:
        yield "basicConstraints", "critical, no CA"
    yield "keyUsage", f"critical: {', '.join(one.key_usage)}"
    yield "extendedKeyUsage", ", ".join(one.extended_key_usage) or "none"
    yield "status", _STATUS[one.status]
    yield (
        "cRLDistributionPoints",
        "`[status] url`/crl/ISSUER.crl" if one.crl_url and not one.is_ca else "as the sheet says" if one.crl_url else "none",
    )
    yield "OCSP address", "`[status] url`/ocsp" if one.ocsp_url else "none"
    yield "keys", ", ".join(one.key_algorithms) + ("; a key may be certified again" if one.key_reuse else "; a key is certified once")
    yield "renewal", _renewal(one)
    yield "other trust anchors", "learned by " + ", ".join(_ANCHORS[way] for way in one.anchors_by)
    if one.is_ca:
        yield "key rests", f"at least in: {one.minimum_protection.name}"
    if one.attestation:
        yield "attestation", f"the key is vouched for by {' or '.join(kind.value for kind in one.attestation)}"
    if one.approval_within:
        yield "approval", f"an operator approves each first certificate, within {duration_text(one.approval_within)}"
    if one.offline:
        yield "out of reach", f"its devices may be for {duration_text(one.offline)}"
    if one.server_keygen:
        yield "key made by", "the server, where the device asks for it (RFC 7030 4.4)"
    yield "key on the device", "a plain file (0600) is allowed" if one.plain_key_file else "as safe as the device can"


def _validity(one: Profile) -> str:
    if one.is_ca:
        return f"as the ceremony's sheet says, at most {duration_text(one.max_lifetime)}"
    back = f", from {duration_text(one.backdate)} before it is issued" if one.backdate else ""
    most = f", at most {duration_text(one.max_lifetime)}" if one.max_lifetime != one.lifetime else ""
    return f"{duration_text(one.lifetime)}{back}{most}; never beyond the issuer's end"


def _subject(one: Profile) -> str:
    if one.is_ca:
        return "as the ceremony's sheet says"
    parts = [f"CN={one.common_name}"] if one.common_name else []
    parts += [f"O={one.organization}"] if one.organization else []
    return f"`{', '.join(parts)}`"


def _names(one: Profile) -> str:
    asked = [f"{kind.value} names as the token or operator says" for kind in one.allowed_names]
    asked[-1:] = [f"{asked[-1]} (at least one)"] if one.required_names else asked[-1:]
    own = [f"permanentIdentifier `{one.permanent_identifier}` (RFC 4043)"] if one.permanent_identifier else []
    return "; ".join([*own, *(f"`{uri}`" for uri in one.uris), *asked]) or "none"


def _renewal(one: Profile) -> str:
    if not one.renewable:
        return "no; a new one is made" if not one.is_ca else "no: in a ceremony"
    late = f"; by a signed message up to {duration_text(one.renew_after_expiry)} after its end" if one.renew_after_expiry else ""
    grace = f", or {duration_text(one.grace)} after its holder said that it arrived" if one.grace else ""
    earliest = "at any time" if not one.renew_from else f"after {one.renew_from:.0%} of its life"
    then = "it is revoked" if one.on_superseded is OnSuperseded.revoke else "it holds until it ends and renews no more"
    return f"{earliest}, with a new key{late}; once its successor is used{grace}, {then}"
