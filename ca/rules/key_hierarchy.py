"""Which key protects which: a declared hierarchy, whether it is lawful, and its picture. Ring 1: pure.

A key protects another when it wraps it, derives it, or vouches for it by a signature. Each key has one purpose, a parent whose purpose is to do
that, and a parent that is as strong as itself.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from ca.errors import Malformed, Unacceptable

DEEPEST: Final = 6
"""Each step is one more key to lose."""
MOST: Final = 1000


class Purpose(Enum):
    root = "root"
    """Trusted by itself: nothing is above it."""
    certificate_signing = "certificate-signing"
    key_wrapping = "key-wrapping"
    derivation = "derivation"
    signature = "signature"
    authentication = "authentication"
    encryption = "encryption"
    session = "session"


PARENTS: Final[Mapping[Purpose, frozenset[Purpose]]] = MappingProxyType({
    Purpose.root: frozenset(),
    Purpose.certificate_signing: frozenset({Purpose.root, Purpose.certificate_signing}),
    Purpose.signature: frozenset({Purpose.root, Purpose.certificate_signing, Purpose.key_wrapping}),
    Purpose.authentication: frozenset({Purpose.certificate_signing, Purpose.key_wrapping}),
    Purpose.key_wrapping: frozenset({Purpose.root, Purpose.key_wrapping}),
    Purpose.derivation: frozenset({Purpose.root, Purpose.key_wrapping}),
    Purpose.encryption: frozenset({Purpose.key_wrapping, Purpose.derivation}),
    Purpose.session: frozenset({Purpose.derivation}),
})  # fmt: skip
"""Who may stand above a key of each purpose."""

STRENGTH: Final[Mapping[str, int]] = MappingProxyType({
    "p256": 128, "p384": 192, "ed25519": 128, "x25519": 128, "rsa-3072": 128, "rsa-4096": 152, "ml-dsa-44": 128, "ml-dsa-65": 192,
    "ml-dsa-87": 256, "aes-128": 128, "aes-192": 192, "aes-256": 256, "hmac-sha256": 256, "hkdf-sha256": 256,
})  # fmt: skip
"""Bits of security (SP 800-57 part 1, 5.6.1.1; FIPS 204 4)."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is declared."""

    name: str
    purposes: tuple[str, ...]
    algorithm: str
    parent: str | None = None
    note: str = ""


def judge(keys: Sequence[Key]) -> list[str]:
    """Everything that is wrong with a hierarchy, in words; nothing when it is lawful."""
    if len(keys) > MOST:
        return [f"It has more than {MOST} keys."]
    names = [key.name for key in keys]
    wrong = [f"{name} stands in it twice." for name in sorted({name for name in names if names.count(name) > 1})]
    known = {key.name: key for key in keys}
    for key in keys:
        wrong += [f"{key.name}: {what}" for what in _wrong(key, known)]
    return wrong


def _wrong(key: Key, known: Mapping[str, Key]) -> Iterator[str]:
    if key.algorithm not in STRENGTH:
        yield f"the algorithm {key.algorithm!r} is unknown; known are {', '.join(STRENGTH)}."
    if len(key.purposes) != 1:
        yield f"it has {len(key.purposes)} purposes; a key has one (SP 800-57 part 1, 5.2)."
        return
    if key.purposes[0] not in {purpose.value for purpose in Purpose}:
        yield f"the purpose {key.purposes[0]!r} is unknown; known are {', '.join(purpose.value for purpose in Purpose)}."
        return
    purpose = Purpose(key.purposes[0])
    if key.parent is None:
        if purpose is not Purpose.root:
            yield "it has no parent; only a root has none."
        return
    parent = known.get(key.parent)
    if parent is None:
        yield f"its parent {key.parent!r} is not declared."
        return
    way = list(_up(key, known))
    if way[-1] == key.name:
        yield f"it stands below itself: {' < '.join([key.name, *way])}."
        return
    if len(way) > DEEPEST:
        yield f"it lies {len(way)} steps deep; {DEEPEST} are enough."
    if len(parent.purposes) == 1 and parent.purposes[0] not in {lawful.value for lawful in PARENTS[purpose]}:
        lawful = ", ".join(sorted(each.value for each in PARENTS[purpose])) or "nothing"
        yield f"a key for {purpose.value} stands below {parent.purposes[0]} key {parent.name!r}; lawful is {lawful}."
    if STRENGTH.get(parent.algorithm, 0) < STRENGTH.get(key.algorithm, 0):
        yield f"its parent {parent.name!r} is weaker ({STRENGTH.get(parent.algorithm, 0)} bits) than it is itself ({STRENGTH[key.algorithm]})."


def _up(key: Key, known: Mapping[str, Key]) -> Iterator[str]:
    """The names above a key; ends with one that came before, where it goes in a circle."""
    seen = {key.name}
    at: Key | None = key
    while at is not None and at.parent is not None and at.parent in known:
        yield at.parent
        if at.parent in seen:
            return
        seen.add(at.parent)
        at = known[at.parent]


def check(keys: Sequence[Key]) -> None:
    """
    Raises:
        Malformed: there is none (`no-hierarchy`).
        Unacceptable: it is not lawful (`key-hierarchy`); the text names each key.
    """
    if not keys:
        raise Malformed("no-hierarchy", "No key is declared.")
    wrong = judge(keys)
    if wrong:
        raise Unacceptable(
            "key-hierarchy",
            f"The hierarchy of keys is not lawful: {len(wrong)} {'finding' if len(wrong) == 1 else 'findings'}.",
            why=" ".join(wrong),
        )


# ---- Pictures -------------------------------------------------------------------------------------------------------


def _rows(keys: Sequence[Key]) -> list[tuple[int, Key]]:
    """Depth first, each below its parent."""
    below: dict[str | None, list[Key]] = {}
    for key in keys:
        below.setdefault(key.parent, []).append(key)

    def walk(parent: str | None, depth: int) -> Iterator[tuple[int, Key]]:
        for key in sorted(below.get(parent, ()), key=lambda one: one.name):
            yield depth, key
            yield from walk(key.name, depth + 1)

    return list(walk(None, 0))


def _said(key: Key) -> str:
    return f"{key.purposes[0]}, {key.algorithm}"


def text(keys: Sequence[Key]) -> str:
    """An indented list."""
    return "\n".join(f"{'  ' * depth}{key.name} ({_said(key)})" for depth, key in _rows(keys))


def dot(keys: Sequence[Key]) -> str:
    """For Graphviz."""

    def quoted(words: str) -> str:
        return '"' + words.replace("\\", "\\\\").replace('"', '\\"') + '"'

    lines = [f"  {quoted(key.name)} [label={quoted(key.name)[:-1]}\\n{quoted(_said(key))[1:]}];" for _, key in _rows(keys)]
    lines += [f"  {quoted(key.parent)} -> {quoted(key.name)};" for _, key in _rows(keys) if key.parent is not None]
    return "digraph keys {\n  node [shape=box];\n" + "\n".join(lines) + "\n}\n"


_HEIGHT, _STEP, _INDENT, _LETTER = 34, 46, 40, 7.2
"""In pixels; a letter of that size is at most so wide, in bold."""


def svg(keys: Sequence[Key]) -> str:
    """A picture that needs no tool: a box a key, its parent to the left above it."""
    rows = _rows(keys)
    wide = 16 + max((round(len(line) * _LETTER) for _, key in rows for line in (key.name, _said(key))), default=0)
    place = {key.name: (depth * _INDENT + 8, number * _STEP + 8) for number, (depth, key) in enumerate(rows)}
    parts = []
    for _, key in rows:
        x, y = place[key.name]
        if key.parent is not None:
            left, above = place[key.parent]
            parts.append(f'<path d="M{left + 16} {above + _HEIGHT}V{y + _HEIGHT // 2}H{x}" fill="none" stroke="#555"/>')
        parts.append(f'<rect x="{x}" y="{y}" width="{wide}" height="{_HEIGHT}" fill="#fff" stroke="#222"/>')
        parts.append(f'<text x="{x + 8}" y="{y + 14}" font-weight="bold">{html.escape(key.name)}</text>')
        parts.append(f'<text x="{x + 8}" y="{y + 28}">{html.escape(_said(key))}</text>')
    right = max((x for x, _ in place.values()), default=0) + wide + 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{right}" height="{len(rows) * _STEP + 8}" font-family="sans-serif" font-size="11">\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )
