"""Whether a peer's certificate still holds: OCSP first, CRL second, then what is remembered (REQ-KEY-024). What services and `fleetca status` call.

    client = StatusClient(roots=[root_der], clock=SystemClock(), chance=SystemChance())
    standing = client.check(peer_certificate_der, chain=[issuing_der])
    if not standing.accepted: ...

Every certificate of the chain is looked at, the root aside. What the policy makes of the answers:

    a source says     good -> accepted    revoked, unknown -> refused in either mode
    the dates say     expired -> refused in either mode
    nobody answers    and good was the last word, not yet past its nextUpdate     -> good
                      past it by at most the offline budget                       -> stale, accepted
                      longer ago                                                  -> stale, refused in hard mode; in soft mode accepted, and logged
                      nothing is remembered                                       -> unknown, refused in hard mode; in soft mode accepted, and logged
                      and revoked was the last word                               -> revoked
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final, Protocol

from ca.der.certificate import read_certificate
from ca.errors import Broken, FleetcaError, Refused, Unavailable
from ca.model import KeyName, Reason, UnixTime
from ca.rules.certificate import issuer_from_certificate
from crl.rules import anatomy
from fleetca.relying_party import answers, judging
from fleetca.relying_party.chain import Pointers, chain, outside_its_dates, pointers
from fleetca.relying_party.memory import Memory, Remembered
from fleetca.relying_party.transport import Asked, fetch
from fleetca.relying_party.words import Fail, Policy, Source, Standing, Verdict, Word
from ocsp.rules.http import REQUEST_TYPE

_log = logging.getLogger("fleetca.relying_party")

LONGEST_CRL: Final = 64 * 1024 * 1024
LONGEST_CERTIFICATE: Final = 64 * 1024
_WORST: Final = (Verdict.revoked, Verdict.expired, Verdict.unknown, Verdict.stale, Verdict.good)
_NONCE_OCTETS: Final = 32
"""RFC 9654 2.1."""


class Clock(Protocol):
    """The wall clock."""

    def now(self) -> UnixTime: ...


class Chance(Protocol):
    """Where nonces come from."""

    def octets(self, count: int) -> bytes: ...


class StatusClient:
    """Checks certificates. Safe for several threads, as far as its memory is.

    Args:
        roots: DER certificates that are trusted.
        memory: what is remembered between checks; None: in this object only.
        get: how to fetch; another one in tests.
    """

    def __init__(
        self,
        *,
        roots: Sequence[bytes],
        clock: Clock,
        chance: Chance,
        policy: Policy = Policy(),  # noqa: B008  frozen
        memory: Memory | None = None,
        get: Callable[..., bytes] = fetch,
    ) -> None:
        self._roots, self._clock, self._chance, self._policy = tuple(roots), clock, chance, policy
        self._memory = memory or Memory(None)
        self._get = get

    def check(self, certificate: bytes, *, chain: Sequence[bytes] = ()) -> Standing:
        """What is known of a certificate, and whether the policy accepts it.

        Args:
            certificate: DER.
            chain: CA certificates (DER) between it and a root, in any order; what is missing is fetched from where certificates say.

        Raises:
            Denied: it leads to no trusted root (`not-trusted`): refused, whatever the policy.
            Malformed: it cannot be read.
        """
        path = self._path(certificate, chain)
        now = self._clock.now()
        if outside_its_dates(path, now=now, skew=self._policy.skew):
            return Standing(Verdict.expired, Source.dates, accepted=False)
        found = [self._one(below, above, now) for below, above in pairwise(path)]
        if not found:
            return Standing(Verdict.good, Source.dates, accepted=True)  # a trusted root itself
        worst = min(found, key=lambda one: _WORST.index(one.verdict))
        result = replace(
            worst, accepted=all(one.accepted for one in found), tried=tuple(dict.fromkeys(text for one in found for text in one.tried))
        )
        if result.accepted and result.verdict is not Verdict.good:
            _log.warning("a certificate is accepted though its status is %s: %s", result.verdict.value, "; ".join(result.tried))
        return result

    def _path(self, certificate: bytes, others: Sequence[bytes]) -> tuple[bytes, ...]:
        known = list(others)
        last, tried = certificate, 0
        while True:
            try:
                return chain(certificate, known, self._roots)
            except Refused:
                found = self._issuer_of(last) if tried < 4 else None
                if found is None or found in known:
                    raise
                known.append(found)
                last, tried = found, tried + 1

    def _issuer_of(self, certificate: bytes) -> bytes | None:
        for url in pointers(certificate).issuers:
            try:
                return self._get(Asked(url), timeout=self._policy.timeout, longest=LONGEST_CERTIFICATE)
            except Unavailable:
                continue
        return None

    # ---- One certificate --------------------------------------------------------------------------------------------

    def _one(self, certificate: bytes, issuer: bytes, now: UnixTime) -> Standing:
        places = pointers(certificate)
        if places.no_rev_avail:
            return Standing(Verdict.good, Source.short_lived, accepted=True)
        before = self._remembered(certificate, issuer, places)
        if (
            before is not None
            and not self._policy.nonce
            and before[1].at <= now < min(before[0].next_update, before[1].at + self._policy.max_age)
        ):
            return _standing(before[0], remembered=True)
        tried: list[str] = []
        unknown: Word | None = None
        for word in self._words(certificate, issuer, places, now, tried):
            if word.verdict is Verdict.unknown:
                unknown = word
            elif word.verdict is Verdict.good and unknown is not None:
                # A CRL lists who is revoked; whom nobody knows it cannot list.
                break
            elif before is not None and word.source is before[0].source and word.this_update < before[0].this_update:
                tried.append(f"{word.source.value}: older than what was seen before: it may be a replay")
            else:
                return _standing(word, tried=tried)
        if unknown is not None:
            return _standing(unknown, tried=tried)
        return self._offline(before, now, tried)

    def _offline(self, before: tuple[Word, Remembered] | None, now: UnixTime, tried: Sequence[str]) -> Standing:
        soft = self._policy.fail is Fail.soft
        if before is None:
            return Standing(Verdict.unknown, Source.nobody, accepted=soft, tried=tuple(tried))
        word = before[0]
        if word.verdict is not Verdict.good or now < word.next_update:
            return _standing(word, remembered=True, tried=tried)
        within = now - word.next_update <= self._policy.offline_budget
        stale = _standing(word, remembered=True, tried=tried)
        return replace(stale, verdict=Verdict.stale, accepted=within or soft)

    def _words(self, certificate: bytes, issuer: bytes, places: Pointers, now: UnixTime, tried: list[str]) -> Iterator[Word]:
        for kind, urls, ask in (("ocsp", places.ocsp, self._ask_ocsp), ("crl", places.crls, self._ask_crl)):
            for url in urls:
                try:
                    yield ask(url, certificate, issuer, now)
                except (Unavailable, Broken, Refused) as error:
                    tried.append(f"{kind}: {error.what}" + (f" {error.why}" if error.why else ""))
        if not places.ocsp and not places.crls:
            tried.append("the certificate names nobody to ask")

    # ---- Sources ----------------------------------------------------------------------------------------------------

    def _ask_ocsp(self, url: str, certificate: bytes, issuer: bytes, now: UnixTime) -> Word:
        nonce = self._chance.octets(_NONCE_OCTETS) if self._policy.nonce else None
        body = answers.request(certificate, issuer, nonce=nonce)
        get = None if nonce is not None else answers.target(url, body)
        octets = self._get(
            Asked(url, body, REQUEST_TYPE) if get is None else Asked(get), timeout=self._policy.timeout, longest=answers.LONGEST
        )
        word = answers.judge(octets, certificate=certificate, issuer=issuer, nonce=nonce, now=now, policy=self._policy)
        last = self._memory.get(_ocsp_name(certificate))
        if last is None or self._thisupdate(last, certificate, issuer) <= word.this_update:
            self._memory.keep(_ocsp_name(certificate), Remembered("ocsp", octets, now))
        return word

    def _thisupdate(self, last: Remembered, certificate: bytes, issuer: bytes) -> UnixTime:
        word = self._believed(last, certificate, issuer)
        return 0 if word is None else word.this_update

    def _ask_crl(self, url: str, certificate: bytes, issuer: bytes, now: UnixTime) -> Word:
        octets = self._get(Asked(url), timeout=self._policy.timeout, longest=LONGEST_CRL)
        word = _in_crl(octets, url, certificate, issuer, now)
        last = self._memory.get(_crl_name(url))
        if last is not None:
            try:
                if anatomy.read(anatomy.InMemory(octets)).number() < anatomy.read(anatomy.InMemory(last.octets)).number():
                    raise Broken("crl-number", "The CRL is older than one that was seen before.")
            except Refused:
                pass  # what is remembered is damaged
        self._memory.keep(_crl_name(url), Remembered("crl", octets, now))
        return word

    # ---- Memory -----------------------------------------------------------------------------------------------------

    def _remembered(self, certificate: bytes, issuer: bytes, places: Pointers) -> tuple[Word, Remembered] | None:
        """The last words that were believed: revoked counts before unknown, and that before good, which a CRL says of whom nobody knows."""
        found: list[tuple[Word, Remembered]] = []
        for one, url in (
            (self._memory.get(_ocsp_name(certificate)), ""),
            *((self._memory.get(_crl_name(url)), url) for url in places.crls),
        ):
            word = None if one is None else self._believed(one, certificate, issuer, url=url)
            if word is not None and one is not None:
                found.append((word, one))
        return max(found, key=lambda pair: (-_WORST.index(pair[0].verdict), pair[0].next_update, pair[1].at), default=None)

    def _believed(self, one: Remembered, certificate: bytes, issuer: bytes, *, url: str = "") -> Word | None:
        """Octets from a folder are believed only if they could have been believed when they came."""
        try:
            if one.kind == "crl":
                return _in_crl(one.octets, url, certificate, issuer, one.at)
            return answers.judge(one.octets, certificate=certificate, issuer=issuer, nonce=None, now=one.at, policy=self._policy)
        except FleetcaError:
            return None


def _in_crl(octets: bytes, url: str, certificate: bytes, issuer: bytes, now: UnixTime) -> Word:
    ca = issuer_from_certificate(issuer, id="theirs", key=KeyName("theirs"))
    read, _ = judging.judge(octets, [ca], point=url, now=now)
    if read.base() is not None:
        raise Broken("crl-delta", "A delta stands where a complete CRL belongs.")
    serial = read_certificate(certificate).serial
    for listed, when, reason, _ in anatomy.entries(read):
        if listed == serial:
            return Word(Verdict.revoked, Source.crl, read.this_update, read.next_update, Reason(reason), when)
    return Word(Verdict.good, Source.crl, read.this_update, read.next_update)


def _standing(word: Word, *, remembered: bool = False, tried: Sequence[str] = ()) -> Standing:
    return Standing(
        verdict=word.verdict,
        source=word.source,
        accepted=word.verdict is Verdict.good,
        reason=word.reason,
        revoked_at=word.revoked_at,
        this_update=word.this_update,
        next_update=word.next_update,
        remembered=remembered,
        tried=tuple(tried),
    )


def _ocsp_name(certificate: bytes) -> str:
    return f"ocsp:{hashlib.sha256(certificate).hexdigest()}"


def _crl_name(url: str) -> str:
    return f"crl:{url}"
