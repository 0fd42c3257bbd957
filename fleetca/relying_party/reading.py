"""Any CRL, from a file or an address, as facts. Knows no deployment: what is read here may come from anywhere and is believed by nobody yet."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from ca.der import pem
from ca.errors import Malformed, NotFound, StoreUnavailable
from ca.model import Reason, UnixTime
from crl.rules import anatomy
from crl.rules.anatomy import Anatomy, InMemory

LONGEST: Final = 1 << 30
"""Octets of a CRL, at most."""
TIMEOUT: Final = 30.0


@dataclass(frozen=True, slots=True)
class Fetched:
    """What an address gave."""

    octets: bytes
    tag: str | None
    """Its ETag."""


def octets_of(place: str, *, timeout: float = TIMEOUT) -> bytes:
    """The DER of a CRL in a file (DER or PEM) or at an http address.

    Raises:
        Malformed: it is none.
        NotFound: there is nothing there.
        StoreUnavailable: the address does not answer.
    """
    if urllib.parse.urlsplit(place).scheme in {"http", "https"}:
        found = fetch(place, timeout=timeout)
        assert found is not None, "without a tag there is always an answer"
        octets = found.octets
    else:
        try:
            octets = Path(place).read_bytes()
        except FileNotFoundError:
            raise NotFound("no-such-file", f"There is no file {place}.") from None
        except OSError as error:
            raise Malformed("unreadable-file", f"{place} cannot be read.", why=f"{error.strerror}.") from None
    return der_of(octets)


def der_of(octets: bytes) -> bytes:
    """A CRL in PEM or DER as DER."""
    return octets if octets.startswith(b"\x30") else pem.der_of(octets, "X509 CRL")


def fetch(url: str, *, tag: str | None = None, timeout: float = TIMEOUT) -> Fetched | None:
    """What an http address gives; None where it is still what `tag` names.

    Raises:
        NotFound: there is nothing there.
        StoreUnavailable: it does not answer, or with an error.
        Malformed: it is longer than any CRL, or the address is none.
    """
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        raise Malformed("bad-url", f"{url!r} is not an http address.")
    request = urllib.request.Request(url, headers={"If-None-Match": tag} if tag else {})  # noqa: S310 - http alone, see above
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
            octets = answer.read(LONGEST + 1)
            length = answer.headers.get("Content-Length")
            if len(octets) > LONGEST or (length is not None and int(length) != len(octets)):
                raise StoreUnavailable("fetch-cut", f"{url} gave another length than it said.")
            return Fetched(octets, answer.headers.get("ETag"))
    except urllib.error.HTTPError as error:
        if error.code == http.client.NOT_MODIFIED:
            return None
        if error.code == http.client.NOT_FOUND:
            raise NotFound("no-crl-there", f"There is no CRL at {url}.") from None
        raise StoreUnavailable("fetch-failed", f"{url} answers {error.code}.", why=str(error.reason)) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise StoreUnavailable("fetch-failed", f"{url} does not answer.", why=str(error) or type(error).__name__) from None


def read(octets: bytes) -> Anatomy:
    """Take a CRL apart.

    Raises:
        Malformed: it is no v2 CRL with nextUpdate.
    """
    return anatomy.read(InMemory(octets))


def entries(read_: Anatomy) -> Iterator[tuple[int, UnixTime, Reason, UnixTime | None]]:
    """Serial, date, reason and invalidityDate of each entry."""
    yield from anatomy.entries(read_)


def facts(octets: bytes) -> dict[str, Any]:
    """What a CRL says of itself, for people and for JSON."""
    found = read(octets)
    loaded = x509.load_der_x509_crl(octets)
    point = found.point()
    return {
        "issuer": loaded.issuer.rfc4514_string(),
        "number": found.number() if anatomy.CRL_NUMBER in found.extensions else None,
        "base": found.base(),
        "this_update": found.this_update,
        "next_update": found.next_update,
        "entries": len(loaded),
        "octets": len(octets),
        "distribution_point": point.url if point else None,
        "contents": point.contents.value if point else "everything",
        "deltas_at": list(found.freshest()),
        "authority_key_identifier": found.authority_key_identifier().hex()
        if anatomy.AUTHORITY_KEY_IDENTIFIER in found.extensions
        else None,
        "signature_algorithm": loaded.signature_algorithm_oid.dotted_string,
        "sha256": sha256(octets).hexdigest(),
    }
