"""The answer to a question: one pure function of the question, a snapshot and now. Ring 4: rules only, nothing is fetched here.

    answer(question, snapshot, now=, found=) -> Answer      it can leave
                                             -> Miss        ask the database, call again
                                             -> Sign        have it signed, `conclude`, call again

The order of decisions:
1. What cannot be read is malformedRequest; an issuer that is not ours, or that nobody here may speak for, is unauthorized. So is, where all answers
   are signed ahead, what no answer is signed for.
2. A question for one certificate without a nonce takes the finished answer, if it is fresh.
3. A serial that arithmetic proves never issued needs no database. The others are asked for, once.
4. With the database or the key gone, what is finished goes on to its nextUpdate, and the rest is tryLater (P5, P7).
"""

from __future__ import annotations

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
    Responder,
    ResponseStatus,
    Sign,
    Snapshot,
    Status,
    Unissued,
    Verdict,
)
from ocsp.rules import freshness, http, response
from ocsp.rules import responder as delegates
from ocsp.rules.issuers import possible, under
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
    speakers = _speakers(request, snapshot)
    if not speakers:
        return http.error(ResponseStatus.unauthorized)
    first, *others = request.certificates
    if snapshot.ahead is not None and (others or first.prefix not in snapshot.ahead):
        # Nobody will ever sign this: who were told to come back would come back for ever (RFC 9919 3.2.3).
        return http.error(ResponseStatus.unauthorized)
    digest = http.digest_of(first.octets)

    if found.finished is not None:
        return http.reply(question, found.finished, policy, now=now, digest=digest)
    known = _known(request, snapshot, now)
    if known is not None and request.nonce is None and freshness.is_fresh(known, now):
        return http.reply(question, known, policy, now=now, digest=digest)
    if found.unavailable:
        return _fallback(question, snapshot, known, now=now, digest=digest)

    statuses = _statuses(request, snapshot, known=known, found=found, now=now)
    if isinstance(statuses, Miss):
        return statuses
    said = [_as_policy(one, status, snapshot) for one, status in zip(request.certificates, statuses, strict=True)]
    if None in said:
        return http.error(ResponseStatus.unauthorized)
    draft = _draft(request, speakers, snapshot, tuple(one for one in said if one is not None), now=now, digest=digest)
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
        issuer=sign.responder.issuer,
    )


def _is_negative(status: Status) -> bool:
    return status.verdict is Verdict.unknown or status == NEVER_ISSUED


def _speakers(request: Request, snapshot: Snapshot) -> tuple[IssuerId, ...]:
    """The issuers that an answer speaks for, one for each name and key in the request, in its order; none: unauthorized.

    Certificates of issuers that are not ours are answered `unknown` beside ours; those of an issuer of this deployment that nobody here may
    speak for (an offline root) never are (P5), so a request with one of them is refused, as is one without any of ours.
    """
    named = {one.prefix: snapshot.issuers[one.prefix] for one in request.certificates if one.prefix in snapshot.issuers}
    speakers = [next((issuer for issuer in issuers if issuer in snapshot.answered), None) for issuers in named.values()]
    return () if None in speakers else tuple(dict.fromkeys(one for one in speakers if one is not None))


def _as_policy(certificate: CertificateId, status: Status, snapshot: Snapshot) -> Status | None:
    """How a status is said by the policy of its issuer; None where the whole request is unauthorized for it."""
    issuers = snapshot.issuers.get(certificate.prefix)
    compromised = next((one for one in issuers or () if one in snapshot.policy.compromised), None)
    if compromised is not None:
        # What is not on record may have been signed all the same, by whoever has the key.
        return NEVER_ISSUED if status == UNKNOWN else under(snapshot.policy, compromised, status)
    if status != UNKNOWN:
        return status
    policy = snapshot.policy.unissued if issuers is None else snapshot.policy.unissued_of.get(issuers[0], snapshot.policy.unissued)
    if policy is Unissued.unauthorized:
        return None
    # `revoked` of our issuers only: what other CAs issued stays unknown to us.
    return NEVER_ISSUED if policy is Unissued.revoked and issuers is not None else UNKNOWN


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


def _statuses(request: Request, snapshot: Snapshot, *, known: Finished | None, found: Found, now: UnixTime) -> tuple[Status, ...] | Miss:
    statuses: list[Status] = []
    missing: list[CertificateRef] = []
    for one in request.certificates:
        if _never_issued(one, snapshot):
            statuses.append(UNKNOWN)
            continue
        if known is not None and known.status is not None and _may_repeat(known, snapshot, now):
            statuses.append(known.status)
            continue
        refs = [CertificateRef(issuer, Serial(one.serial)) for issuer in snapshot.issuers[one.prefix]]
        asked = [found.statuses[ref] for ref in refs if ref in found.statuses]
        if len(asked) < len(refs):
            missing.extend(ref for ref in refs if ref not in found.statuses)
        else:
            # On record under one of them, or under none.
            statuses.append(next((status for status in asked if status != UNKNOWN), UNKNOWN))
    if missing:
        return Miss(tuple(dict.fromkeys(missing)), request.certificates[0].octets if len(request.certificates) == 1 else None)
    return tuple(statuses)


def _may_repeat(known: Finished, snapshot: Snapshot, now: UnixTime) -> bool:
    """Whether a nonce may be answered with the status of the finished answer: no change since, heard just now, not due for a fresh look."""
    return freshness.is_fresh(known, now) and freshness.heard(snapshot.heard_at, now)


def _never_issued(certificate: CertificateId, snapshot: Snapshot) -> bool:
    """Proved by arithmetic: another issuer's, not a serial at all, or its check value is not ours."""
    if certificate.prefix not in snapshot.issuers or not possible(certificate.serial):
        return True
    return snapshot.is_ours is not None and not snapshot.is_ours(Serial(certificate.serial))


def _draft(
    request: Request, speakers: tuple[IssuerId, ...], snapshot: Snapshot, statuses: tuple[Status, ...], *, now: UnixTime, digest: bytes
) -> Sign | None:
    """What is to be signed; None where nobody can sign for those issuers now, or no time is left to say anything about."""
    found = [snapshot.responders[issuer] for issuer in speakers if issuer in snapshot.responders]
    responder = delegates.together(found) if len(found) == len(speakers) else None
    if responder is None:
        return None
    policy = snapshot.policy
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
        archive=policy.archive,
    )
    single = len(request.certificates) == 1
    return Sign(
        responder=responder,
        tbs=tbs,
        template=_template(request, responder, statuses),
        certificates=request.certificates,
        statuses=statuses,
        nonce=request.nonce,
        produced_at=now,
        window=window,
        keep=single and request.nonce is None and not any(_is_negative(one) for one in statuses),
    )


def _template(request: Request, responder: Responder, statuses: tuple[Status, ...]) -> tuple[str, ...]:
    """The shape of an answer (P11): issuer, responder key, hash, form of status. Few for any one key, whatever clients ask."""
    shape = (responder.issuer, responder.key_hash.hex())
    nonce = "nonce" if request.nonce is not None else ""
    status, *others = statuses
    if others:
        return (*shape, "several issuers" if responder.others else "several", nonce)
    # The prefix begins with the hash's AlgorithmIdentifier: one of the eight forms in which our issuers are named.
    prefix = request.certificates[0].prefix
    return (*shape, prefix[: 2 + prefix[1]].hex(), status.verdict.value + ("+reason" if status.reason else ""), nonce)
