"""Rules about how a certificate's status is learned and its issuer found: AKI, CDP, AIA, noRevAvail, nocheck."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import Final

from ca.der import reader
from ca.model import StatusKind
from ca.rules.lint.facts import Case, Facts, Shape

AUTHORITY_KEY_IDENTIFIER: Final = "2.5.29.35"
CRL_DISTRIBUTION_POINTS: Final = "2.5.29.31"
FRESHEST_CRL: Final = "2.5.29.46"
AUTHORITY_INFORMATION_ACCESS: Final = "1.3.6.1.5.5.7.1.1"
NO_REV_AVAIL: Final = "2.5.29.56"
OCSP_NOCHECK: Final = "1.3.6.1.5.5.7.48.1.5"
_OCSP: Final = "1.3.6.1.5.5.7.48.1"
_CA_ISSUERS: Final = "1.3.6.1.5.5.7.48.2"
_NULL: Final = b"\x05\x00"


def authority_key_identifier(shape: Shape) -> str | None:
    """RFC 5280 4.2.1.1: non-critical, keyIdentifier alone, the very octets of the issuer's SKI; left out in self-signed ones only."""
    found = shape.find(AUTHORITY_KEY_IDENTIFIER)
    if shape.issuer is None:
        return None if found is None else "a self-signed certificate carries authorityKeyIdentifier"
    if found is None or found.critical:
        return "authorityKeyIdentifier is missing or critical"
    octets = found.value
    fields = list(reader.children(octets, reader.only(octets, 0x30)))
    if [field.tag for field in fields] != [0x80]:
        return "authorityKeyIdentifier holds more than keyIdentifier"
    if octets[fields[0].content : fields[0].end] != shape.issuer.key_identifier:
        return "authorityKeyIdentifier is not the issuer's subjectKeyIdentifier"
    return None


def _is_http(url: str) -> bool:
    # RFC 5280 4.2.1.13, 4.2.2.1: plain HTTP, because fetching status over TLS needs status.
    return url.startswith("http://") and len(url) > len("http://") and not any(character <= " " for character in url)


def crl_distribution_points(shape: Shape) -> str | None:
    """RFC 5280 4.2.1.13: non-critical; one point with one full name, an HTTP URI, the issuer's; where the profile says so and only there."""
    found = shape.find(CRL_DISTRIBUTION_POINTS)
    if (found is not None) is not shape.profile.crl_url:
        return "cRLDistributionPoints stands where the profile does not say so, or lacks where it does"
    if found is None:
        return None
    if found.critical:
        return "cRLDistributionPoints is critical"
    octets = found.value
    at = reader.only(octets, 0x30)
    for tag in (0x30, 0xA0, 0xA0, 0x86):
        inner = reader.expect(octets, at.content, at.end, tag)
        if inner.end != at.end:
            return "cRLDistributionPoints holds more than one name"
        at = inner
    url = octets[at.content : at.end].decode("ascii", "replace")
    if not _is_http(url):
        return "the distribution point is not an HTTP URI"
    if shape.issuer is not None and shape.issuer.crl_url is not None and url not in _points(shape.issuer.crl_url, shape.issuer.crls.shards):
        return "the distribution point is not the issuer's"
    return None


@lru_cache(maxsize=16)
def _points(url: str, shards: int) -> frozenset[str]:
    """Where CRLs of an issuer are. Which of them a certificate must point to is for `shard`."""
    if not shards:
        return frozenset({url})
    return frozenset(f"{url.removesuffix('.crl')}.{number}.crl" for number in range(1, shards + 1))


def shard(facts: Facts, case: Case) -> str | None:
    """R08: where the CRLs of an issuer are sharded, the distribution point is that of the serial number's shard."""
    issuer = case.issuer
    if issuer is None or issuer.crl_url is None or not issuer.crls.shards or not case.profile.crl_url:
        return "the draft is of a shard that its issuer does not have" if case.draft.shard else None
    number = int.from_bytes(sha256(case.draft.serial.to_bytes(20, "big")).digest()[:8], "big") % issuer.crls.shards + 1
    point = f"{issuer.crl_url.removesuffix('.crl')}.{number}.crl".encode()
    if case.draft.shard != number or not any(octets.endswith(point) for octets in facts.constant):
        return f"the distribution point is not that of shard {number}"
    return None


EACH: Final = (("crl-shard", "RFC 5280 4.2.1.13", shard),)


def authority_information_access(shape: Shape) -> str | None:
    """RFC 5280 4.2.2.1: non-critical; HTTP URIs; the responder exactly where the profile says so; never in a root."""
    found = shape.find(AUTHORITY_INFORMATION_ACCESS)
    seen: dict[str, str] = {}
    if found is not None:
        if found.critical or shape.issuer is None:
            return "authorityInfoAccess is critical, or stands in a root"
        octets = found.value
        for one in reader.children(octets, reader.only(octets, 0x30)):
            method = reader.expect(octets, one.content, one.end, 0x06)
            place = reader.expect(octets, method.end, one.end, 0x86)
            oid = reader.oid(octets, method)
            if one.tag != 0x30 or oid in seen or oid not in (_OCSP, _CA_ISSUERS) or place.end != one.end:
                return "authorityInfoAccess names something twice, or something unknown"
            seen[oid] = octets[place.content : place.end].decode("ascii", "replace")
        if not seen:
            return "authorityInfoAccess is empty"
    if not all(_is_http(url) for url in seen.values()):
        return "authorityInfoAccess holds something other than HTTP URIs"
    if (_OCSP in seen) is not shape.profile.ocsp_url:
        return "the responder stands where the profile does not say so, or lacks where it does"
    if shape.issuer is not None:
        for oid, url in ((_OCSP, shape.issuer.ocsp_url), (_CA_ISSUERS, shape.issuer.issuer_url)):
            if url is not None and seen.get(oid, url) != url:
                return "authorityInfoAccess points elsewhere than the issuer says"
    return None


def no_rev_avail(shape: Shape) -> str | None:
    """RFC 9608 2-4: exactly in profiles that say so; NULL, non-critical; in no CA; beside neither CDP nor OCSP."""
    found = shape.find(NO_REV_AVAIL)
    if (found is not None) is not (shape.profile.status is StatusKind.no_rev_avail):
        return "noRevAvail stands where the profile does not say so, or lacks where it does"
    if found is None:
        return None
    if found.critical or found.value != _NULL:
        return "noRevAvail is critical or not NULL"
    if shape.profile.is_ca or shape.find(CRL_DISTRIBUTION_POINTS) or shape.find(FRESHEST_CRL) or shape.profile.ocsp_url:
        return "noRevAvail stands in a CA certificate, or beside a place that says otherwise"
    return None


def ocsp_nocheck(shape: Shape) -> str | None:
    """RFC 6960 4.2.2.2.1, RFC 9919: exactly in responder profiles; NULL, non-critical; beside neither CDP nor OCSP."""
    found = shape.find(OCSP_NOCHECK)
    if (found is not None) is not (shape.profile.status is StatusKind.nocheck):
        return "ocsp-nocheck stands where the profile does not say so, or lacks where it does"
    if found is None:
        return None
    if found.critical or found.value != _NULL:
        return "ocsp-nocheck is critical or not NULL"
    if shape.find(CRL_DISTRIBUTION_POINTS) or shape.profile.ocsp_url or shape.profile.extended_key_usage != ("OCSPSigning",):
        return "ocsp-nocheck stands in something else than a responder's certificate"
    return None


RULES: Final = (
    ("authority-key-identifier", "RFC 5280 4.2.1.1", authority_key_identifier),
    ("crl-distribution-points", "RFC 5280 4.2.1.13", crl_distribution_points),
    ("authority-information-access", "RFC 5280 4.2.2.1", authority_information_access),
    ("no-rev-avail", "RFC 9608 4", no_rev_avail),
    ("ocsp-nocheck", "RFC 6960 4.2.2.2.1", ocsp_nocheck),
)
