"""What a worker tells Prometheus, in its text format (version 0.0.4). Ring 4: no library, since a dozen lines need none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from ocsp.serve import Health

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_FAMILIES: Final = {
    "answers_total": ("counter", "Answers given, by what they said: a status, an OCSP error, or an HTTP error."),
    "heard": ("gauge", "1 while the change number was confirmed within the last two seconds."),
    "heard_at_seconds": ("gauge", "When it was last confirmed."),
    "change_number": ("gauge", "The last change of status that this worker knows."),
    "responder_not_after_seconds": ("gauge", "When the responder certificate of an issuer ends."),
    "responder_renew_at_seconds": ("gauge", "When the next one is due."),
    "responder_missing": ("gauge", "1 for each issuer without a responder certificate that holds."),
    "finished_answers": ("gauge", "Finished answers in memory."),
    "finished_octets": ("gauge", "About what they take."),
    "finished_until_seconds": ("gauge", "The latest nextUpdate among them."),
    "spool_answers": ("gauge", "Finished answers in the spool."),
    "spool_walked_at_seconds": ("gauge", "When all certificates were last gone through to sign ahead what was due."),
}


def text(health: Health, counted: Mapping[str, int]) -> str:
    """The exposition of one worker."""
    lines: list[str] = []
    last = ""
    for name, labels, value in _samples(health, counted):
        full = f"fleetca_ocsp_{name}"
        if name != last:
            kind, about = _FAMILIES[name]
            lines += [f"# HELP {full} {about}", f"# TYPE {full} {kind}"]
            last = name
        lines.append(f"{full}{labels} {value}")
    return "\n".join(lines) + "\n"


def _samples(health: Health, counted: Mapping[str, int]) -> Iterator[tuple[str, str, int]]:
    for outcome, count in sorted(counted.items()):
        yield "answers_total", f'{{outcome="{outcome}"}}', count
    yield "heard", "", int(health.heard)
    if health.heard_at is not None:
        yield "heard_at_seconds", "", health.heard_at
    if health.change is not None:
        yield "change_number", "", health.change
    # Ids are letters, digits and hyphens: nothing to escape.
    for issuer, not_after, _ in health.responders:
        yield "responder_not_after_seconds", f'{{issuer="{issuer}"}}', not_after
    for issuer, _, renew_at in health.responders:
        yield "responder_renew_at_seconds", f'{{issuer="{issuer}"}}', renew_at
    for issuer in health.missing:
        yield "responder_missing", f'{{issuer="{issuer}"}}', 1
    yield "finished_answers", "", health.finished
    yield "finished_octets", "", health.octets
    if health.finished_until is not None:
        yield "finished_until_seconds", "", health.finished_until
    yield "spool_answers", "", health.spooled
    if health.spooled_at is not None:
        yield "spool_walked_at_seconds", "", health.spooled_at
