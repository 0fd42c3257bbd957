"""ACME's resources as JSON (RFC 8555 7.1) and the addresses they stand at. Ring 1: pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from ca.der import pem
from ca.model import CertificateRef, UnixTime
from enroll.acme.model import Account, Authorization, AuthorizationStatus, Challenge, ChallengeStatus, Directory, Identifier, Order, Problem

ERROR: Final = "urn:ietf:params:acme:error:"
PREFIX: Final = "/acme"
_ID: Final = re.compile(r"[0-9a-f]{32}")
MOST_CONTACTS: Final = 8

STATUSES: Final[Mapping[str, int]] = {
    "accountDoesNotExist": 400,
    "alreadyReplaced": 409,
    "alreadyRevoked": 400,
    "badCSR": 400,
    "badNonce": 400,
    "badPublicKey": 400,
    "badRevocationReason": 400,
    "badSignatureAlgorithm": 400,
    "caa": 403,
    "conflict": 409,
    "connection": 400,
    "dns": 400,
    "externalAccountRequired": 403,
    "incorrectResponse": 403,
    "invalidContact": 400,
    "invalidProfile": 400,
    "malformed": 400,
    "orderNotReady": 403,
    "rateLimited": 429,
    "rejectedIdentifier": 400,
    "serverInternal": 500,
    "tls": 400,
    "unauthorized": 403,
    "unsupportedContact": 400,
    "unsupportedIdentifier": 400,
    "userActionRequired": 403,
}


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the resources of one directory stand.

    Args:
        base: how clients reach us, `https://HOST[:PORT]`.
    """

    base: str
    directory: str

    def of(self, *parts: str) -> str:
        return "/".join((self.base + PREFIX, self.directory, *parts))

    def id_in(self, url: str, resource: str) -> str | None:
        """The id in the address of a resource of ours; None for any other address, to the last octet."""
        head = self.of(resource) + "/"
        id_ = url[len(head) :] if url.startswith(head) else ""
        return id_ if _ID.fullmatch(id_) else None

    def account(self, account: Account) -> str:
        return self.of("account", account.id)

    def order(self, order: Order) -> str:
        return self.of("order", order.id)

    def authorization(self, id_: str) -> str:
        return self.of("authorization", id_)

    def challenge(self, authorization: Authorization, challenge: Challenge) -> str:
        return self.of("challenge", authorization.id, challenge.kind.value)

    def certificate(self, ref: CertificateRef) -> str:
        return self.of("certificate", ref.issuer, f"{ref.serial:040x}")


def timestamp(when: UnixTime) -> str:
    """RFC 3339 (RFC 8555 1.1 of what it cites: UTC, seconds)."""
    return datetime.fromtimestamp(when, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def render_directory(at: Addresses, directory: Directory, *, website: str | None = None) -> dict[str, Any]:
    """RFC 8555 7.1.1; `profiles` as in draft-ietf-acme-profiles."""
    meta: dict[str, Any] = {
        "externalAccountRequired": directory.bound,
        "profiles": {directory.profile: f"Certificates of profile {directory.profile}."},
    }
    if website is not None:
        meta["website"] = website
    return {
        "newNonce": at.of("new-nonce"),
        "newAccount": at.of("new-account"),
        "newOrder": at.of("new-order"),
        "revokeCert": at.of("revoke-cert"),
        "keyChange": at.of("key-change"),
        "renewalInfo": at.of("renewal-info"),
        "meta": meta,
    }


def render_account(at: Addresses, account: Account) -> dict[str, Any]:
    return {
        "status": account.status.value,
        "contact": list(account.contact),
        "orders": at.of("account", account.id, "orders"),
        "key": dict(account.jwk),
    }


def render_identifier(identifier: Identifier) -> dict[str, str]:
    return {"type": identifier.kind.value, "value": identifier.value}


def render_order(at: Addresses, order: Order, directory: Directory, *, replaces: str | None = None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "status": order.status.value,
        "expires": timestamp(order.expires),
        "identifiers": [render_identifier(one) for one in order.identifiers],
        "authorizations": [at.authorization(id_) for id_ in order.authorizations],
        "finalize": at.of("order", order.id, "finalize"),
        "profile": directory.profile,
    }
    if order.certificate is not None:
        document["certificate"] = at.certificate(order.certificate)
    if order.error is not None:
        document["error"] = dict(order.error)
    if replaces is not None:
        document["replaces"] = replaces
    return document


def render_challenge(at: Addresses, authorization: Authorization, challenge: Challenge) -> dict[str, Any]:
    document: dict[str, Any] = {
        "type": challenge.kind.value,
        "url": at.challenge(authorization, challenge),
        "status": challenge.status.value,
        "token": challenge.token,
    }
    if challenge.validated is not None:
        document["validated"] = timestamp(challenge.validated)
    if challenge.error is not None:
        document["error"] = dict(challenge.error)
    return document


def render_authorization(at: Addresses, authorization: Authorization) -> dict[str, Any]:
    """RFC 8555 7.1.4: once it is decided, only the challenge that decided it is shown."""
    decided = {AuthorizationStatus.valid: ChallengeStatus.valid, AuthorizationStatus.invalid: ChallengeStatus.invalid}
    wanted = decided.get(authorization.status)
    shown = [one for one in authorization.challenges if wanted is None or one.status is wanted]
    return {
        "identifier": render_identifier(authorization.identifier),
        "status": authorization.status.value,
        "expires": timestamp(authorization.expires),
        "challenges": [render_challenge(at, authorization, one) for one in shown],
    }


def render_problem(problem: Problem) -> dict[str, Any]:
    """RFC 8555 6.7, RFC 9457."""
    document: dict[str, Any] = {"type": ERROR + problem.kind, "detail": problem.detail, "status": status_of(problem)}
    if problem.algorithms:
        document["algorithms"] = list(problem.algorithms)
    if problem.identifier is not None:
        document["identifier"] = render_identifier(problem.identifier)
    if problem.subproblems:
        document["subproblems"] = [render_problem(one) for one in problem.subproblems]
    return document


def status_of(problem: Problem) -> int:
    return problem.status or STATUSES.get(problem.kind, 400)


# ---- What clients send ----------------------------------------------------------------------------------------------


def flag(payload: Mapping[str, Any], name: str) -> bool:
    value = payload.get(name, False)
    if not isinstance(value, bool):
        raise Problem("malformed", f"{name} is true or false.")
    return value


def read_contact(document: Any) -> tuple[str, ...]:
    """Contacts (RFC 8555 7.3): mailto, one mailbox, no header fields.

    Raises:
        Problem: `malformed`, `unsupportedContact`, `invalidContact`.
    """
    if not isinstance(document, list) or not all(isinstance(one, str) for one in document):
        raise Problem("malformed", "contact is a list of addresses (RFC 8555 7.3).")
    if len(document) > MOST_CONTACTS:
        raise Problem("malformed", f"An account has at most {MOST_CONTACTS} contacts.")
    for one in document:
        scheme, _, rest = one.partition(":")
        if scheme.lower() != "mailto":
            raise Problem("unsupportedContact", "Of contact addresses, mailto is taken (RFC 8555 7.3).")
        if "?" in rest or "," in rest:
            raise Problem("invalidContact", "A contact is one mailbox without header fields (RFC 8555 7.3).")
        if not re.fullmatch(r"[^@\s<>]{1,64}@[A-Za-z0-9.-]{1,190}", rest):
            raise Problem("invalidContact", "A contact is not a mailbox (RFC 8555 7.3).")
    return tuple(document)


def read_text(payload: Mapping[str, Any], name: str) -> str:
    value = payload.get(name)
    if not isinstance(value, str):
        raise Problem("malformed", f"{name} is missing or not text.")
    return value


def chain(certificates: Sequence[bytes]) -> str:
    """RFC 8555 9.1: strict PEM, the end-entity certificate first, each certified by the next."""
    return "".join(pem.pem(pem.CERTIFICATE, der) for der in certificates)
