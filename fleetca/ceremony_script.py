"""The printable script of a ceremony: one HTML file that needs nothing else, with room for what people write by hand. Edge: text only."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

from ca.ceremony_plan import Plan, PlannedAct
from ca.rules.ceremony_roles import ROLES, UNKNOWN_KEY
from ca.rules.ceremony_words import words
from ca.rules.window import date
from config.sheet import Sheet

_STYLE: Final = """
@page { size: A4; margin: 16mm 14mm; }
body { font: 10.5pt/1.4 serif; color: #000; background: #fff; max-width: 182mm; margin: 0 auto; }
h1 { font-size: 17pt; } h2 { font-size: 13pt; margin-top: 1.6em; break-after: avoid; } h3 { font-size: 11pt; break-after: avoid; }
table { border-collapse: collapse; width: 100%; margin: .5em 0 1em; } tr { break-inside: avoid; }
th, td { border: .6pt solid #000; padding: 3pt 5pt; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
th { background: #eee; } td.write { min-width: 14mm; } code { font: 8.5pt/1.35 monospace; overflow-wrap: anywhere; }
mark { background: #ddd; font: 8.5pt monospace; } .facts td:first-child { width: 34mm; } .act { break-before: page; }
.line { border-bottom: .6pt solid #000; height: 9mm; }
"""


def script(plan: Plan, form: Sheet) -> str:
    """The whole script."""
    sheet = plan.sheet
    digest = sheet.digest
    parts = [
        f"<h1>Ceremony script: {escape(sheet.name)}</h1><p>{escape(sheet.about)}</p>",
        _facts(
            [
                ("Sheet", f"{form.file.name}, SHA-256 {digest.hex()}"),
                ("Sheet in words", words(digest)),
                ("Planned for", date(plan.at)),
                ("Place", sheet.place or "_" * 30),
                ("Lint", plan.lint),
            ]
        ),
        _missing(plan),
        "<h2>1. People</h2>",
        _table(
            ["Role", "Person", "Key (SHA-256)", "Identity checked, by", "Signature"],
            [
                [f"{each.role}: {ROLES[each.role]}", each.person, "" if each.key_sha256 == UNKNOWN_KEY else each.key_sha256.hex(), "", ""]
                for each in sheet.participants
            ]
            or [[""] * 5] * 3,
        ),
        "<h2>2. Equipment</h2>",
        _table(
            ["What", "Serial number", "Tamper-evident bag, before", "Seal intact", "Bag, after"],
            [[each.what, each.serial, each.bag, "", ""] for each in form.equipment] or [[""] * 5] * 4,
        ),
        "<h2>3. Before the first command</h2>",
        _steps(_PREPARATION, expected={3: digest.hex()}),
        "<h2>4. Opening</h2>",
        _steps(
            [
                "The administrator reads the SHA-256 of this sheet aloud from the screen; everybody compares it with this page.",
                *(f"{each.person} ({each.role}) confirms the sheet with their own key." for each in sheet.participants),
            ],
            expected={1: digest.hex()},
        ),
        "<h2>5. Acts</h2>",
        *(_act(number, act) for number, act in enumerate(plan.acts, start=1)),
        '<h2 class="act">6. Closing</h2>',
        _steps([*(f"{each.person} ({each.role}) signs the transcript with their own key." for each in sheet.participants), *_CLOSING]),
        "<h2>7. Deviations from this script</h2>",
        _table(["Time", "Step", "What happened, why, and who decided"], [[""] * 3] * 6),
        "<h2>8. Copies</h2>",
        _table(["Copy", "On which medium", "Given to, date", "Signature"], [[""] * 4] * 4),
        "<h2>9. Sign-off</h2>",
        _table(
            ["Role", "Name", "Date and time (UTC)", "Signature"],
            [[each.role, each.person, "", ""] for each in sheet.participants] or [[""] * 4] * 4,
        ),
        (
            '<h2 class="act">Annex: the octets to be signed</h2>'
            "<p>Drafted with throw-away keys. Marked is what does not exist before the ceremony, in its final length; everything else is signed "
            "as it stands here.</p>"
        ),
        *(f"<h3>{escape(act.title)}</h3><p><code>{_octets(act)}</code></p>" for act in plan.acts),
        f"<h2>Annex: the sheet</h2><pre><code>{escape(sheet.octets.decode())}</code></pre>",
    ]
    title = escape(f"Ceremony script {sheet.name}")
    return f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style></head>\n<body>\n{"".join(parts)}\n</body></html>\n'


_PREPARATION: Final = (
    "The machine has no network: cables out, radios off. It was started from the medium of the kit.",
    "Its clock was set to UTC from: ____________________ ; deviation: ________ s.",
    "Two people read the digest of the kit aloud and compare it with the paper (sha256sum SHA256SUMS).",
    "Two people compare the SHA-256 of the sheet.",
    "Recording is on; the camera sees the screen, the table and the hands.",
)
_CLOSING: Final = (
    "The transcript is sealed; the SHA-256 of its last line is noted here.",
    "fleetca ceremony verify agrees on a second machine.",
    "The SHA-256 fingerprint of each root is noted here and signed by everybody.",
    "Keys, shares and tokens go back into bags; their numbers stand under 2.",
    "Temporary media are destroyed; who saw it signs here.",
    "The recording's SHA-256 is noted here.",
)


def _missing(plan: Plan) -> str:
    if not plan.missing:
        return ""
    return f"<p><b>Still missing:</b> {escape('; '.join(plan.missing))}.</p>"


def _act(number: int, act: PlannedAct) -> str:
    return (
        f'<h3 class="act">5.{number} {escape(act.title)}</h3>'
        + _facts([*act.lines, ("writes", act.file)])
        + _steps(act.steps, start=1, prefix=f"5.{number}.")
    )


def _octets(act: PlannedAct) -> str:
    text, at = "", 0
    for each in act.placeholders:
        text += act.tbs[at : each.at].hex() + f"<mark>{escape(each.what)}: {each.length} octets</mark>"
        at = each.at + each.length
    return text + act.tbs[at:].hex()


def _facts(rows: Iterable[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows)
    return f'<table class="facts">{cells}</table>'


def _steps(activities: Iterable[str], *, expected: dict[int, str] | None = None, start: int = 1, prefix: str = "") -> str:
    known = expected or {}
    rows = "".join(
        f"<tr><td>{prefix}{number}</td><td>{escape(activity)}</td><td><code>{known.get(at, '')}</code></td>"
        '<td class="write"></td><td class="write"></td><td class="write"></td></tr>'
        for at, (number, activity) in enumerate(enumerate(activities, start=start))
    )
    head = "".join(f"<th>{name}</th>" for name in ("", "Activity", "Expected hash", "Real hash", "Initials", "Time"))
    return f"<table><tr>{head}</tr>{rows}</table>"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    first = "".join(f"<th>{escape(each)}</th>" for each in head)
    cells = "".join("<tr>" + "".join(f"<td>{escape(cell)}&nbsp;</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{first}</tr>{cells}</table>"
