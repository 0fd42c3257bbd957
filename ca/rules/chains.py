"""What stands above a certificate in the chain that goes with it. Ring 1: pure.

While two roots are at work, each certifies the other (RFC 9810 4.4). A chain then goes through the link to the other root: who trusts the certificate's
own root finds it on the way, by the issuing CA's signature, and who trusts only the other one gets there. So a device or service that has not heard of
the change yet goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ca.der.certificate import read_certificate
from ca.errors import NotFound
from ca.model import Issuer, IssuerId, UnixTime
from ca.rules.issuers import signed_by


@dataclass(frozen=True, slots=True)
class Link:
    """A certificate that one root of ours gave another."""

    der: bytes
    subject: IssuerId
    signer: IssuerId
    not_before: UnixTime
    not_after: UnixTime


class Chains:
    """The chains of a deployment.

    Args:
        issuers: its CA certificates.
        others: further certificates (DER). Those that are no links between its roots are no part of any chain.
    """

    def __init__(self, issuers: Sequence[Issuer], others: Iterable[bytes] = ()) -> None:
        self._by_id = {issuer.id: issuer for issuer in issuers}
        self._paths = {issuer.id: climb(issuers, issuer.id) for issuer in issuers}
        roots = [issuer for issuer in issuers if issuer.parent is None]
        found = [link for der in others if (link := _link(der, roots)) is not None]
        # The one that holds longest serves best.
        self.links = tuple(sorted(found, key=lambda link: -link.not_after))

    def above(self, issuer: IssuerId, *, now: UnixTime) -> tuple[bytes, ...]:
        """CA certificates (DER) from an issuer to a root, which comes last.

        Raises:
            NotFound: there is no such issuer (`no-such-issuer`), or one above it is missing.
        """
        path = self._paths.get(issuer)
        if path is None:
            raise NotFound("no-such-issuer", "There is no such issuer.")
        for link in self.links:
            if link.not_before <= now <= link.not_after and self._by_id[link.subject].certificate == path[-1]:
                return (*path[:-1], link.der, self._by_id[link.signer].certificate)
        return path


def climb(issuers: Sequence[Issuer], start: IssuerId) -> tuple[bytes, ...]:
    """CA certificates (DER) from `start` to its own root.

    Raises:
        NotFound: one is missing (`no-such-issuer`).
    """
    by_id = {issuer.id: issuer for issuer in issuers}
    climbed: list[bytes] = []
    at: IssuerId | None = start
    while at is not None and len(climbed) < len(by_id) + 1:
        if at not in by_id:
            raise NotFound("no-such-issuer", "There is no such issuer.")
        climbed.append(by_id[at].certificate)
        at = by_id[at].parent
    return tuple(climbed)


def _link(der: bytes, roots: Sequence[Issuer]) -> Link | None:
    facts = read_certificate(der)
    for subject in roots:
        if (facts.subject, facts.spki) != (subject.subject, subject.spki):
            continue
        for signer in roots:
            if signer.spki != subject.spki and facts.issuer == signer.subject and signed_by(der, signer):
                return Link(der, subject.id, signer.id, facts.not_before, facts.not_after)
    return None
