"""`fleetca revoke --query`: many certificates at once, planned first, in waves, and taken up again where it stopped.

What was revoked is found revoked the next time, so a run that was cut off is simply begun again: nothing is kept beside the record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING, Any, Final

import click

from fleetca.cli import output, reach
from fleetca.cli.certificates import _wanted

if TYPE_CHECKING:
    from ca.model import Certificate, CertificateQuery, Reason, UnixTime
    from ca.signer.client import SignerClient

_AT_ONCE: Final = 32
"""Requests that wait together share the signer's commits."""
_PAGE: Final = 200
_CACHED: Final = 30
_A_SECOND: Final = 400
"""Revocations a second, carefully."""
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
        found = list(_found(signer, asked, profile, now))
        document = _planned(found, wave=wave, pause=pause, nudge=deployment.crl.nudge)
        if plan:
            output.result(document, reach.facts(_shown(document)), as_json=as_json)
            output.note(f"Nothing was revoked. To go on: the same without --plan, with --confirm {len(found)}.")
            return 0
        if confirm != len(found):
            raise Unacceptable(
                "another-count",
                f"{len(found)} certificates match.",
                why=f"--confirm says {confirm}.",
                fix=f"Look at --plan, then give --confirm {len(found)}.",
            )
        done, failed = _waves(signer, found, Reason[reason], wave=wave, pause=pause, since=since)
    output.result({**document, "revoked": done, "failed": failed}, f"{done} revoked, {len(failed)} failed.", as_json=as_json)
    for ref, why in failed[:20]:
        output.note(f"{ref}: {why}")
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


def _found(signer: SignerClient, asked: CertificateQuery, profile: str | None, now: UnixTime) -> Iterator[Certificate]:
    """What is issued, holds, and matches."""
    cursor: str | None = None
    while True:
        rows, cursor = signer.certificates(replace(asked, after=cursor, limit=_PAGE))
        yield from (row for row in rows if row.not_after >= now and (profile is None or row.profile == profile))
        if cursor is None:
            return


def _planned(found: Sequence[Certificate], *, wave: int, pause: float, nudge: int) -> dict[str, Any]:
    listed = [one for one in found if one.revocable]
    waves = -(-len(found) // wave) if found else 0
    seconds = len(found) / _A_SECOND + max(0, waves - 1) * pause
    return {
        "certificates": len(found),
        "devices": len({one.device for one in found}),
        "by_profile": dict(Counter(str(one.profile) for one in found)),
        "by_issuer": dict(Counter(str(one.ref.issuer) for one in found)),
        # A reason and a date in each; the shard of each grows by its part of it.
        "crl_growth_octets": sum(_length(one) for one in listed),
        "without_crl": len(found) - len(listed),
        "waves": waves,
        "seconds": round(seconds),
        "visible_in_seconds": round(seconds + nudge + _CACHED),
        "go_dark": sorted({str(one.device) for one in found})[:20],
    }


def _length(one: Certificate) -> int:
    return 2 + 2 + one.ref.serial.bit_length() // 8 + 1 + 15 + 14


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


def _waves(
    signer: SignerClient, found: Sequence[Certificate], reason: Reason, *, wave: int, pause: float, since: UnixTime | None
) -> tuple[int, list[tuple[str, str]]]:
    from ca.errors import FleetcaError, Unavailable
    from ca.model import RevokeRequest

    def one(record: Certificate) -> tuple[str, str] | None:
        for attempt in range(5):
            try:
                signer.revoke(RevokeRequest(signer.local, reason, target=record.ref, invalid_from=since))
            except Unavailable as error:
                if attempt == 4:
                    return str(record.ref), error.code
                Event().wait(1 << attempt)
            except FleetcaError as error:
                return str(record.ref), error.code
            else:
                return None
        return None

    done, failed = 0, []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for start in range(0, len(found), wave):
            if start and pause:
                Event().wait(pause)
            part = found[start : start + wave]
            wrong = [told for told in pool.map(one, part) if told is not None]
            failed += wrong
            done += len(part) - len(wrong)
            output.note(f"{done} of {len(found)} revoked.")
    return done, failed
