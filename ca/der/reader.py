"""Reading DER strictly and with bounds (X.690). Ring 1: pure.

The second pair of eyes beside cryptography: lint, the CRL gate and the OCSP request reader use it. It knows nothing of the
writer. Every function raises `Malformed` on octets that are not DER; nothing else escapes, whatever the input.
"""

from __future__ import annotations

from calendar import timegm
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Final, NamedTuple

from ca.errors import Malformed
from ca.model import UnixTime


class Element(NamedTuple):
    """One element: `data[start:end]` is all of it, `data[content:end]` its content octets."""

    tag: int
    start: int
    content: int
    end: int


# A NamedTuple's own constructor is a Python function: a third of what reading an element would cost.
_element: Final[Callable[[tuple[int, int, int, int]], Element]] = partial(tuple.__new__, Element)


def _bad(what: str, where: int) -> Malformed:
    return Malformed("not-der", f"The octets are not DER: {what} at offset {where}.")


def element(data: bytes, start: int, limit: int) -> Element:
    """The element that begins at `start` and must end at or before `limit`."""
    if start + 2 > limit:
        raise _bad("it ends inside a header", start)
    tag = data[start]
    if tag & 0x1F == 0x1F:
        raise _bad("a tag of several octets", start)
    size = data[start + 1]
    content = start + 2
    if size >= 0x80:
        count = size & 0x7F
        if count == 0:
            raise _bad("an indefinite length", start)
        if count > 4 or content + count > limit:
            raise _bad("a length that does not fit", start)
        size = int.from_bytes(data[content : content + count], "big")
        content += count
        if size < 0x80 or size >> (8 * (count - 1)) == 0:
            raise _bad("a length that is not in its shortest form", start)
    end = content + size
    if end > limit:
        raise _bad("an element longer than what holds it", start)
    return _element((tag, start, content, end))


def only(data: bytes, tag: int) -> Element:
    """The one element that `data` is, with that tag and nothing after it."""
    found = element(data, 0, len(data))
    if found.tag != tag:
        raise _bad(f"tag {found.tag:#04x} where {tag:#04x} belongs", 0)
    if found.end != len(data):
        raise _bad("octets after the end", found.end)
    return found


def children(data: bytes, parent: Element) -> Iterator[Element]:
    """The elements inside a constructed one, in order."""
    at = parent.content
    while at < parent.end:
        child = element(data, at, parent.end)
        yield child
        at = child.end


def elements(data: bytes, start: int, end: int) -> list[Element]:
    """The elements from `start` to `end`, which they fill exactly. As `children`, all at once and in one loop."""
    found: list[Element] = []
    while start < end:
        content = start + 2
        if content > end or data[start + 1] >= 0x80 or data[start] & 0x1F == 0x1F:
            one = element(data, start, end)
        else:
            one = _element((data[start], start, content, content + data[start + 1]))
            if one.end > end:
                raise _bad("an element longer than what holds it", start)
        found.append(one)
        start = one.end
    return found


def row(data: bytes, start: int, limit: int, *tags: int) -> list[Element]:
    """The elements of just these tags, one after the other from `start`; what follows them, up to `limit`, is the caller's to judge."""
    found: list[Element] = []
    for tag in tags:
        content = start + 2
        if content <= limit and data[start] == tag and data[start + 1] < 0x80 and content + data[start + 1] <= limit:
            one = _element((tag, start, content, content + data[start + 1]))
        else:
            one = expect(data, start, limit, tag)
        found.append(one)
        start = one.end
    return found


def innermost(data: bytes, *tags: int) -> Element:
    """Of elements of these tags, each all that is in the one before and the first all of `data`, the last."""
    at = only(data, tags[0])
    for tag in tags[1:]:
        inner = expect(data, at.content, at.end, tag)
        if inner.end != at.end:
            raise _bad("octets after the end", inner.end)
        at = inner
    return at


def expect(data: bytes, start: int, limit: int, tag: int) -> Element:
    """The element at `start`, which must have that tag."""
    found = element(data, start, limit)
    if found.tag != tag:
        raise _bad(f"tag {found.tag:#04x} where {tag:#04x} belongs", start)
    return found


def integer(data: bytes, found: Element) -> int:
    """The value of an INTEGER (or ENUMERATED) in its shortest form (X.690 8.3.2)."""
    content = data[found.content : found.end]
    if not content:
        raise _bad("an empty INTEGER", found.start)
    if len(content) > 1 and ((content[0] == 0 and content[1] < 0x80) or (content[0] == 0xFF and content[1] >= 0x80)):
        raise _bad("an INTEGER that is not in its shortest form", found.start)
    return int.from_bytes(content, "big", signed=True)


def oid(data: bytes, found: Element) -> str:
    """The dotted text of an OBJECT IDENTIFIER."""
    try:
        return _dotted(data[found.content : found.end])
    except ValueError as error:
        raise _bad(str(error), found.start) from None


# Few are ever read, and those again and again.
@lru_cache(maxsize=256)
def _dotted(content: bytes) -> str:
    if not content or content[-1] & 0x80 or len(content) > 64:
        raise ValueError("an OBJECT IDENTIFIER that does not end")
    arcs: list[int] = []
    value = 0
    fresh = True
    for octet in content:
        if fresh and octet == 0x80:
            raise ValueError("an OBJECT IDENTIFIER with padding")
        value = value << 7 | octet & 0x7F
        fresh = not octet & 0x80
        if fresh:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(str(arc) for arc in (first, arcs[0] - 40 * first, *arcs[1:]))


def boolean(data: bytes, found: Element) -> bool:
    """The value of a BOOLEAN: DER knows only 00 and FF (X.690 11.1)."""
    content = data[found.content : found.end]
    if content == b"\xff":
        return True
    if content == b"\x00":
        return False
    raise _bad("a BOOLEAN that is neither 00 nor FF", found.start)


def bit_string(data: bytes, found: Element) -> bytes:
    """The octets of a BIT STRING that has no unused bits."""
    if found.end == found.content or data[found.content] != 0:
        raise _bad("a BIT STRING with unused bits where none belong", found.start)
    return data[found.content + 1 : found.end]


def time(data: bytes, found: Element) -> UnixTime:
    """UTCTime or GeneralizedTime with Z and seconds, no fraction (RFC 5280 4.1.2.5)."""
    text = data[found.content : found.end]
    if found.tag == 0x17 and len(text) == 13 and text.endswith(b"Z") and text[:-1].isdigit():
        year = int(text[:2])
        digits = (b"19" if year >= 50 else b"20") + text[:-1]
    elif found.tag == 0x18 and len(text) == 15 and text.endswith(b"Z") and text[:-1].isdigit():
        digits = text[:-1]
    else:
        raise _bad("a time that RFC 5280 does not allow", found.start)
    try:
        moment = datetime(
            int(digits[:4]),
            int(digits[4:6]),
            int(digits[6:8]),
            int(digits[8:10]),
            int(digits[10:12]),
            int(digits[12:14]),
            tzinfo=UTC,
        )
    except ValueError:
        raise _bad("a time that no calendar has", found.start) from None
    return timegm(moment.timetuple())
