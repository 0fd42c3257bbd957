"""The answer to a question: one pure function of the question, a snapshot and now. Ring 4: rules only, nothing is fetched here.

    answer(question, snapshot, now=, found=) -> Answer      it can leave
                                             -> Miss        ask the database, call again
                                             -> Sign        have it signed, `conclude`, call again

The order of decisions:
1. What cannot be read is malformedRequest; an issuer that is not ours, or that nobody here may speak for, is unauthorized.
2. A question for one certificate without a nonce takes the finished answer, if it is fresh.
3. A serial that arithmetic proves never issued needs no database. The others are asked for, once.
4. With the database or the key gone, what is finished goes on to its nextUpdate, and the rest is tryLater (P5, P7).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from ca.errors import Malformed
from ca.model import CertificateRef, IssuerId, Serial, UnixTime
from ocsp.model import (
    NEVER_ISSUED,
    UNKNOWN,
    Answer,
    CertificateId,
    Finished,
    Found,
    Miss,
    Question,
    Request,
    ResponseStatus,
    Sign,
    Snapshot,
    Status,
    Unissued,
    Verdict,
)
from ocsp.rules import freshness, http, response
from ocsp.rules.issuers import possible
from ocsp.rules.request import read_request

NOTHING = Found()


def answer(question: Question, snapshot: Snapshot, *, now: UnixTime, found: Found = NOTHING) -> Answer | Miss | Sign:
    """What to send back, or what must be fetched first.

    Args:
        found: what was fetched since the first call with this question.
    """
    decided = _decide(question, snapshot, now=now, found=found)
    if question.method == "HEAD" and isinstance(decided, Answer):
        # The headers are those of a GET, Content-Length too (RFC 9110 9.3.2).
        return replace(decided, body=b"")
    return decided


def _decide(question: Question, snapshot: Snapshot, *, now: UnixTime, found: Found) -> Answer | Miss | Sign:
    policy = snapshot.policy
    try:
        octets = http.request_octets(question, policy)
        if isinstance(octets, Answer):
            return octets
        request = read_request(octets, max_certificates=policy.max_certificates)
    except Malformed:
        return http.error(ResponseStatus.malformedRequest)
    issuer = _issuer(request, snapshot)
    if issuer is None:
        return http.error(ResponseStatus.unauthorized)
    digest = hashlib.sha256(request.certificates[0].octets).digest()

    if found.finished is not None:
        return http.reply(question, found.finished, policy, now=now, digest=digest)
    known = _known(request, snapshot, now)
    if known is not None and request.nonce is None and freshness.is_fresh(known, now):
        return http.reply(question, known, policy, now=now, digest=digest)
    if found.unavailable:
        return _fallback(question, snapshot, known, now=now, digest=digest)

    statuses = _statuses(request, issuer, snapshot, known=known, found=found, now=now)
    if isinstance(statuses, Miss):
        return statuses
    if policy.unissued is Unissued.unauthorized and any(one.verdict is Verdict.unknown for one in statuses):
        return http.error(ResponseStatus.unauthorized)
    draft = _draft(request, issuer, snapshot, statuses, now=now, digest=digest)
    return draft if draft is not None else _fallback(question, snapshot, known, now=now, digest=digest)


def conclude(sign: Sign, signature: bytes) -> Finished:
    """The finished answer from signed ResponseData."""
    body = response.response(sign.responder, sign.tbs, signature)
    single = sign.statuses[0] if len(sign.statuses) == 1 else None
    negative = any(_is_negative(one) for one in sign.statuses)
    return Finished(
        body=body,
        etag=response.etag(body),
        produced_at=sign.produced_at,
        window=sign.window,
        status=single,
        cacheable=not negative and sign.nonce is None,
        outcome="several" if single is None else single.verdict.value,
    )


def _is_negative(status: Status) -> bool:
    return status.verdict is Verdict.unknown or status == NEVER_ISSUED


def _issuer(request: Request, snapshot: Snapshot) -> IssuerId | None:
    """The one issuer that we answer for in this request, or None: unauthorized.

    A delegate speaks for the CA that signed it and no other (RFC 6960 4.2.2.2, R16). Certificates of issuers that are not ours are
    answered `unknown` beside ours; those of another issuer of this deployment never are (P5), so such a mixture is refused.
    """
    named = {snapshot.issuers.get(one.prefix) for one in request.certificates} - {None}
    if len(named) != 1:
        return None
    issuer = named.pop()
    return issuer if issuer in snapshot.answered else None


def _known(request: Request, snapshot: Snapshot, now: UnixTime) -> Finished | None:
    """The finished answer about the only certificate of a request, if it still holds."""
    if len(request.certificates) != 1:
        return None
    finished = snapshot.finished.get(request.certificates[0].octets)
    return finished if finished is not None and freshness.holds(finished, now) else None


def _fallback(question: Question, snapshot: Snapshot, known: Finished | None, *, now: UnixTime, digest: bytes) -> Answer:
    """What was signed before goes on, also for a request with a nonce, which an answer may leave out (RFC 9654 2.1); otherwise tryLater."""
    if known is None:
        return http.error(ResponseStatus.tryLater)
    return http.reply(question, known, snapshot.policy, now=now, digest=digest)


def _statuses(
    request: Request, issuer: IssuerId, snapshot: Snapshot, *, known: Finished | None, found: Found, now: UnixTime
) -> tuple[Status, ...] | Miss:
    statuses: list[Status] = []
    missing: list[CertificateRef] = []
    for one in request.certificates:
        if _never_issued(one, snapshot):
            statuses.append(UNKNOWN)
            continue
        ref = CertificateRef(issuer, Serial(one.serial))
        status = found.statuses.get(ref)
        if status is None and known is not None and _may_repeat(known, snapshot, now):
            status = known.status
        if status is None:
            missing.append(ref)
        else:
            statuses.append(status)
    return Miss(tuple(dict.fromkeys(missing))) if missing else tuple(statuses)


def _may_repeat(known: Finished, snapshot: Snapshot, now: UnixTime) -> bool:
    """Whether a nonce may be answered with the status of the finished answer: no change since, heard just now, not due for a fresh look."""
    return freshness.is_fresh(known, now) and freshness.heard(snapshot.heard_at, now)


def _never_issued(certificate: CertificateId, snapshot: Snapshot) -> bool:
    """Proved by arithmetic: another issuer's, not a serial at all, or its check value is not ours."""
    if certificate.prefix not in snapshot.issuers or not possible(certificate.serial):
        return True
    return snapshot.is_ours is not None and not snapshot.is_ours(Serial(certificate.serial))


def _draft(
    request: Request, issuer: IssuerId, snapshot: Snapshot, statuses: tuple[Status, ...], *, now: UnixTime, digest: bytes
) -> Sign | None:
    """What is to be signed; None where nobody can sign for that issuer now, or no time is left to say anything about."""
    responder = snapshot.responders.get(issuer)
    if responder is None:
        return None
    policy = snapshot.policy
    if policy.unissued is Unissued.revoked:
        # Of our issuers only: what other CAs issued stays unknown to us.
        statuses = tuple(
            NEVER_ISSUED if status == UNKNOWN and certificate.prefix in snapshot.issuers else status
            for certificate, status in zip(request.certificates, statuses, strict=True)
        )
    window = freshness.window(policy, responder, now=now, since=max(one.since for one in statuses), digest=digest)
    if window is None:
        return None
    tbs = response.tbs_response(
        responder,
        tuple(zip(request.certificates, statuses, strict=True)),
        produced_at=now,
        window=window,
        nonce=request.nonce,
        extended_revoke=NEVER_ISSUED in statuses,
    )
    single = len(request.certificates) == 1
    return Sign(
        responder=responder,
        tbs=tbs,
        template=_template(request, issuer, responder.key_hash, statuses),
        certificates=request.certificates,
        statuses=statuses,
        nonce=request.nonce,
        produced_at=now,
        window=window,
        keep=single and request.nonce is None and not any(_is_negative(one) for one in statuses),
    )


def _template(request: Request, issuer: IssuerId, key_hash: bytes, statuses: tuple[Status, ...]) -> tuple[str, ...]:
    """The shape of an answer (P11): issuer, responder key, hash, form of status. Few for any one key, whatever clients ask."""
    nonce = "nonce" if request.nonce is not None else ""
    status, *others = statuses
    if others:
        return (issuer, key_hash.hex(), "several", nonce)
    # The prefix begins with the hash's AlgorithmIdentifier: one of the eight forms in which our issuers are named.
    prefix = request.certificates[0].prefix
    shape = status.verdict.value + ("+reason" if status.reason else "")
    return (issuer, key_hash.hex(), prefix[: 2 + prefix[1]].hex(), shape, nonce)
