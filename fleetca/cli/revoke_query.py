"""`fleetca revoke --query`: many certificates at once, planned first, in waves, and taken up again where it stopped.

What was revoked is found revoked the next time, so a run that was cut off is simply begun again: nothing is kept beside the record. Certificates
come in pages and go in requests of some hundred, so a million of them need neither memory nor a million round trips, and what others ask of the
signer meanwhile waits for one such request at most.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from threading import Event
from typing import TYPE_CHECKING, Any, Final

import click

from fleetca.cli import output, reach
from fleetca.cli.certificates import _wanted

if TYPE_CHECKING:
    from ca.model import CertificateQuery, CertificateRef, Outline, Reason, UnixTime
    from ca.signer.client import SignerClient

_AT_ONCE: Final = 2
"""Requests under way: while the signer decides one, it reads the next."""
_PAGE: Final = 1000
_CACHED: Final = 30
_A_SECOND: Final = 500
"""Revocations a second, carefully: the least that was measured, on two cores that had much else to do."""
_TRIES: Final = 5
WORDS: Final = ("device", "subject", "san", "serial", "key", "expires-after", "expires-before", "profile")


def run(
    settings: str,
    query: Sequence[str],
    *,
    reason: str,
    plan: bool,
    wave: int,
    pause: float,
    confirm: int | None,
    since: UnixTime | None,
    as_json: bool,
) -> int:
    """Plan, and revoke where that was confirmed."""
    from ca.errors import Unacceptable
    from ca.model import Reason

    now = reach.now()
    asked, profile = _asked(query, now)
    with reach.signer(settings) as (deployment, signer):
        document = _planned(_found(signer, asked, profile, now), wave=wave, pause=pause, nudge=deployment.crl.nudge)
        count: int = document["certificates"]
        if plan:
            output.result(document, reach.facts(_shown(document)), as_json=as_json)
            output.note(f"Nothing was revoked. To go on: the same without --plan, with --confirm {count}.")
            return 0
        if confirm != count:
            raise Unacceptable(
                "another-count",
                f"{count} certificates match.",
                why=f"--confirm says {confirm}.",
                fix=f"Look at --plan, then give --confirm {count}.",
            )
        # Read once more instead of kept: what came since is left for another run, so that as many go as were confirmed.
        refs = (one.ref for one in islice(_found(signer, asked, profile, now), count))
        done, failed = _Revoking(signer, Reason[reason], since).waves(refs, of=count, wave=wave, pause=pause)
    output.result({**document, "revoked": done, "failed": failed}, f"{done} revoked, {len(failed)} failed.", as_json=as_json)
    for ref, why in failed[:20]:
        output.note(f"{ref}: {why}")
    return output.FINDINGS if failed else 0


def matching(signer: SignerClient, query: Sequence[str]) -> list[CertificateRef]:
    """What a query means now.

    Raises:
        NotFound: nothing (`nothing-matches`).
    """
    from ca.errors import NotFound

    now = reach.now()
    asked, profile = _asked(query, now)
    found = [one.ref for one in _found(signer, asked, profile, now)]
    if not found:
        raise NotFound("nothing-matches", "No issued certificate matches.")
    return found


def run_list(settings: str, file: str, *, reason: str, since: UnixTime | None, as_json: bool) -> int:
    """Revoke what a list names that two persons approved. What is revoked already is left so: a run that was cut off is begun again."""
    from ca.errors import FleetcaError
    from ca.model import Reason, RevokeRequest
    from ca.rules import mass_revocation

    lines = reach.read(file, most=256 << 20).decode("ascii", "replace").split()
    planned = mass_revocation.Planned([reach.reference(line, issuer="") for line in lines])
    done = 0
    failed: list[tuple[int, str]] = []
    with reach.signer(settings) as (_, signer):
        for index, refs in enumerate(planned.requests):
            asked = RevokeRequest(
                signer.local, Reason[reason], target=refs[0], invalid_from=since, others=refs[1:], part=planned.part(index)
            )
            try:
                signer.revoke(asked)
            except FleetcaError as error:
                if not done and not failed:
                    raise
                failed.append((index, error.code))
            else:
                done += len(refs)
                output.note(f"{done} of {planned.certificates} revoked.")
    output.result({"certificates": planned.certificates, "revoked": done, "failed": failed}, f"{done} revoked.", as_json=as_json)
    for index, code in failed:
        output.note(f"Request {index + 1} of {len(planned.requests)}: {code}")
    return output.FINDINGS if failed else 0


def _asked(query: Sequence[str], now: UnixTime) -> tuple[CertificateQuery, str | None]:
    words: dict[str, str | None] = {"state": "issued"}
    for one in query:
        key, equals, value = one.partition("=")
        if not equals or key not in WORDS:
            raise click.UsageError(f"{one!r} is no condition. Write KEY=VALUE with a key of {', '.join(WORDS)}.")
        words[key.replace("-", "_")] = value
    profile = words.pop("profile", None)
    if len(words) == 1 and profile is None:
        raise click.UsageError("A query that everything matches is not one.")
    return _wanted(words, now), profile


def _found(signer: SignerClient, asked: CertificateQuery, profile: str | None, now: UnixTime) -> Iterator[Outline]:
    """What is issued, holds, and matches. The next page is fetched while this one is used."""
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(signer.outlines, replace(asked, limit=_PAGE))
        while True:
            rows, cursor = coming.result()
            if cursor is not None:
                coming = ahead.submit(signer.outlines, replace(asked, after=cursor, limit=_PAGE))
            yield from (row for row in rows if row.not_after >= now and (profile is None or row.profile == profile))
            if cursor is None:
                return


def _planned(found: Iterable[Outline], *, wave: int, pause: float, nudge: int) -> dict[str, Any]:
    by_profile: Counter[str] = Counter()
    by_issuer: Counter[str] = Counter()
    devices: set[str] = set()
    growth = unlisted = 0
    for one in found:
        by_profile[str(one.profile)] += 1
        by_issuer[str(one.ref.issuer)] += 1
        devices.add(str(one.device))
        # A reason and a date in each; the shard of each grows by its part of it.
        growth += _length(one.ref) if one.revocable else 0
        unlisted += not one.revocable
    count = by_issuer.total()
    waves = -(-count // wave)
    seconds = count / _A_SECOND + max(0, waves - 1) * pause
    return {
        "certificates": count,
        "devices": len(devices),
        "by_profile": dict(by_profile),
        "by_issuer": dict(by_issuer),
        "crl_growth_octets": growth,
        "without_crl": unlisted,
        "waves": waves,
        "seconds": round(seconds),
        "visible_in_seconds": round(seconds + nudge + _CACHED),
        "go_dark": heapq.nsmallest(20, devices),
    }


def _length(ref: CertificateRef) -> int:
    return 2 + 2 + ref.serial.bit_length() // 8 + 1 + 15 + 14


def _shown(document: dict[str, Any]) -> list[tuple[str, str]]:
    dark = document["go_dark"]
    more = document["devices"] - len(dark)
    return [
        ("certificates", str(document["certificates"])),
        ("devices that go dark", f"{document['devices']}: {', '.join(dark)}{f' and {more} more' if more > 0 else ''}"),
        ("by profile", ", ".join(f"{name} {count}" for name, count in document["by_profile"].items())),
        ("by issuer", ", ".join(f"{name} {count}" for name, count in document["by_issuer"].items())),
        ("CRLs grow by", f"{document['crl_growth_octets']} octets"),
        ("never in a CRL", str(document["without_crl"])),
        ("waves", f"{document['waves']}, about {document['seconds']} s"),
        ("all visible", f"after about {document['visible_in_seconds']} s, caches included"),
    ]


@dataclass(frozen=True, slots=True)
class _Revoking:
    signer: SignerClient
    reason: Reason
    since: UnixTime | None

    def waves(self, refs: Iterator[CertificateRef], *, of: int, wave: int, pause: float) -> tuple[int, list[tuple[str, str]]]:
        """How many were revoked, and which were not and why."""
        from ca.rules.grant import MOST_AT_ONCE

        done, failed = 0, []
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while part := list(islice(refs, wave)):
                if done and pause:
                    Event().wait(pause)
                requests = [part[start : start + MOST_AT_ONCE] for start in range(0, len(part), MOST_AT_ONCE)]
                wrong = [one for told in pool.map(self._several, requests) for one in told]
                failed += wrong
                done += len(part) - len(wrong)
                output.note(f"{done} of {of} revoked.")
        return done, failed

    def _several(self, refs: Sequence[CertificateRef]) -> list[tuple[str, str]]:
        """All at once; where one of them cannot be, each by itself. Those that were not, and why."""
        if self._asked(refs) is None:
            return []
        told = ((ref, self._asked([ref])) for ref in refs)
        return [(str(ref), code) for ref, code in told if code is not None]

    def _asked(self, refs: Sequence[CertificateRef]) -> str | None:
        """The code of what went wrong."""
        from ca.errors import FleetcaError, Unavailable
        from ca.model import RevokeRequest

        asked = RevokeRequest(self.signer.local, self.reason, target=refs[0], invalid_from=self.since, others=tuple(refs[1:]))
        for attempt in range(_TRIES):
            try:
                self.signer.revoke(asked)
            except Unavailable as error:
                if attempt == _TRIES - 1:
                    return error.code
                Event().wait(1 << attempt)
            except FleetcaError as error:
                return error.code
            else:
                return None
        return None
