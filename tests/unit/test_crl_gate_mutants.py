"""Every check of the gate is needed: with any one of them taken out, a planted fault goes through (P6).

The gate's own source is read, each `raise` in turn becomes a `pass`, and the mutant judges the faults below. A check that no fault needs is either
missing its fault here, or is not needed; both are mistakes.
"""

from __future__ import annotations

import ast
import inspect
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from ca.der import writer
from ca.errors import Broken, FleetcaError
from ca.model import CrlContents, CrlEntry, CrlIntent, CrlPlan, Digest, IssuerId, Reason, Serial
from crl.model import Scope
from crl.rules import anatomy, elements, gate
from crl.rules.anatomy import InMemory
from crl.rules.elements import Recorded
from tests.fakes.certificates import DAY
from tests.unit.test_crl_gate import (
    AKI,
    ENTRIES,
    EXPIRED,
    GONE,
    ISSUER,
    LIFETIME,
    NOW,
    OLD,
    OTHER,
    PLAIN,
    SAME_NAME,
    WORLD,
    change,
    entry,
    extended,
    forge,
    intent_of,
    number_extension,
    old_crl,
    serial,
)

URL = "http://status.example/crl/issuing.crl"
SHARDED = replace(ISSUER, crl_url=URL, crls=CrlPlan(shards=4, deltas=True))
DELTA = writer.extension("2.5.29.27", writer.integer(3), critical=True)
BASE = CrlIntent(ISSUER.id, 0, 3, 10, 0, NOW - DAY, NOW + 9, Digest(bytes(32)), 1)


def name_of(url: str) -> bytes:
    return writer.explicit(0, writer.explicit(0, writer.implicit(6, url.encode())))


def point(url: str | None, *, only: bytes = b"", critical: bool = True) -> bytes:
    value = writer.sequence((name_of(url) if url else b"") + only)
    return writer.extension("2.5.29.28", value, critical=critical)


def shard_url(number: int) -> str:
    return URL.removesuffix(".crl") + f".{number}.crl"


FRESHEST = writer.extension("2.5.29.46", writer.sequence(writer.sequence(name_of(URL.removesuffix(".crl") + ".delta.crl"))), critical=False)


def with_extensions(*extensions: bytes, number: bytes | None = None, **parts: Any) -> bytes:
    return forge(extensions=writer.explicit(0, writer.sequence(AKI, number or number_extension(), *extensions)), **parts)


def certificate(url: str) -> bytes:
    """As much of a certificate as the gate looks at."""
    points = writer.extension("2.5.29.31", writer.sequence(writer.sequence(name_of(url))), critical=False)
    return writer.sequence(writer.sequence(writer.integer(1), writer.explicit(3, writer.sequence(points))))


class Case:
    """A CRL that is not right, and the world that it is not right in."""

    def __init__(
        self,
        octets: Callable[[], bytes],
        *,
        scope: Scope | None = None,
        entries: Sequence[CrlEntry] = ENTRIES,
        before: Callable[[Any], Any] | None = None,
        fits: Callable[[int], bool] = lambda _: True,
        certificates: Sequence[bytes] = (),
        bases: Callable[[int], CrlIntent | None] = lambda _: None,
        above: int = 6,
        now: int = NOW + 1,
        lifetime: int = LIFETIME,
        **intent: Any,
    ) -> None:
        self.octets, self.scope, self.entries, self.before, self.fits = octets, scope or Scope(ISSUER), entries, before, fits
        self.certificates, self.bases, self.above, self.now, self.lifetime, self.intent = certificates, bases, above, now, lifetime, intent

    def judged(self, by: Any) -> str:
        """The code it is refused with; empty where it is let through."""
        octets = self.octets()
        known = {"issuer": self.scope.issuer.id, "shard": self.scope.shard}
        try:
            read = anatomy.read(InMemory(octets))
            said = {"number": read.number(), "this_update": read.this_update, "next_update": read.next_update, "base": read.base()}
            count = sum(1 for _ in anatomy.entries(read))
        except FleetcaError:
            said, count = {}, 0
        intent = intent_of(octets, **{**known, **said, "count": count, **self.intent})
        expected = by.Expected(
            intent=intent,
            above=self.above,
            now=self.now,
            lifetime=self.lifetime,
            wanted=Recorded(lambda: self.entries, fits=self.fits),
            certificates=self.certificates,
            bases=self.bases,
        )
        try:
            by.check(InMemory(octets), self.scope, expected=expected, before=self.before(by) if self.before else None)
        except Broken as refused:
            return refused.code
        return ""


def before(octets: bytes, record: dict[Any, Any] | None = None, until: int = NOW - 3600) -> Callable[[Any], Any]:
    return lambda by: by.Before(InMemory(octets), until, (record or {}).get)


DATED = CrlEntry(serial(1), NOW - 500, Reason.keyCompromise, NOW - 9000)
INVALID = writer.extension("2.5.29.24", writer.generalized_time(NOW - 9000), critical=False)
REASON = writer.extension("2.5.29.21", writer.enumerated(1), critical=False)
COMPLETE = Scope(SHARDED)
SECOND = Scope(SHARDED, 2)
CHANGES = Scope(SHARDED, delta=True)
RELEASED = change(serial(4), reason=Reason.removeFromCRL)

CASES = {
    "an entry behind the last one, which nobody counted": Case(
        lambda: WORLD.crl(
            number=7,
            this_update=NOW,
            next_update=NOW + LIFETIME - 1,
            entries=[*ENTRIES, CrlEntry(Serial(1 << 100), NOW - 9, Reason.superseded)],
        ),
        count=len(ENTRIES),
    ),
    "a look-alike CA of the same name signed it": Case(lambda: forge(key=SAME_NAME.key)),
    "another name": Case(lambda: forge(issuer=OTHER.issuer.subject)),
    "an issuer without cRLSign": Case(forge, scope=Scope(replace(ISSUER, may_sign_crl=False))),
    "another key identifier": Case(forge, scope=Scope(replace(ISSUER, key_identifier=b"x" * 20))),
    "not DER at the end": Case(lambda: forge() + b"\0"),
    "an unknown extension": Case(lambda: extended(writer.extension("1.2.3.4", writer.NULL, critical=False))),
    "a critical CRL number": Case(lambda: with_extensions(number=number_extension(critical=True))),
    "a delta where a complete one belongs": Case(lambda: with_extensions(DELTA)),
    "another shard's point": Case(lambda: with_extensions(point(shard_url(3))), scope=SECOND),
    "a shard without a point": Case(forge, scope=SECOND),
    "a complete CRL with a point": Case(lambda: with_extensions(point(shard_url(2)), FRESHEST), scope=COMPLETE),
    "only end entities, unasked": Case(lambda: with_extensions(point(None, only=b"\x81\x01\xff"))),
    "everything where end entities were asked for": Case(
        forge, scope=Scope(replace(ISSUER, crls=CrlPlan(contents=CrlContents.end_entities)))
    ),
    "no place of deltas": Case(forge, scope=COMPLETE),
    "a place of deltas, unasked": Case(lambda: with_extensions(FRESHEST)),
    "nextUpdate at thisUpdate": Case(lambda: forge(next_update=writer.time(NOW)), now=NOW - 1),
    "from the future": Case(lambda: forge(this_update=writer.time(NOW + 302), next_update=writer.time(NOW + 400))),
    "over already": Case(lambda: forge(this_update=writer.time(NOW - 500), next_update=writer.time(NOW - 1))),
    "longer than its issuer": Case(lambda: forge(next_update=writer.time(ISSUER.not_after + 1)), lifetime=ISSUER.not_after + 10 - NOW),
    "signed long ago": Case(
        lambda: forge(this_update=writer.time(NOW - 1000), next_update=writer.time(NOW + 5000), revoked=b""), entries=[]
    ),
    "R04: a second too long": Case(lambda: forge(next_update=writer.time(NOW + LIFETIME))),
    "R11: a number that was used": Case(forge, above=7),
    "another number than recorded": Case(forge, number=8),
    "other octets than recorded": Case(forge, tbs_sha256=Digest(bytes(32))),
    "a delta to nothing": Case(lambda: with_extensions(DELTA), scope=CHANGES),
    "a certificate of another shard": Case(
        lambda: with_extensions(point(shard_url(2))), scope=SECOND, certificates=[certificate(shard_url(3))]
    ),
    "a certificate that cannot be read": Case(
        lambda: with_extensions(point(shard_url(2))),
        scope=SECOND,
        certificates=[certificate(shard_url(2)), writer.sequence(writer.sequence(writer.explicit(3, b"\x30\x05")))],
    ),
    "an entry is missing": Case(lambda: forge(revoked=writer.sequence(*PLAIN[:-1]))),
    "an entry that is not on record": Case(
        lambda: forge(revoked=writer.sequence(*PLAIN, entry(CrlEntry(serial(99), NOW, Reason.unspecified))))
    ),
    "another reason than recorded": Case(
        lambda: forge(revoked=writer.sequence(entry(replace(ENTRIES[0], reason=Reason.superseded)), *PLAIN[1:]))
    ),
    "R08: a serial twice": Case(lambda: forge(revoked=writer.sequence(PLAIN[0], *PLAIN))),
    "out of order": Case(lambda: forge(revoked=writer.sequence(PLAIN[1], PLAIN[0], *PLAIN[2:]))),
    "the same in another form": Case(
        lambda: forge(revoked=writer.sequence(entry(DATED, extensions=writer.sequence(INVALID, REASON)))), entries=[DATED]
    ),
    "something that is no entry": Case(lambda: forge(revoked=writer.sequence(*PLAIN, writer.NULL))),
    "a count that was not recorded": Case(forge, count=3),
    "revoked after thisUpdate, on record too": Case(
        lambda: forge(revoked=writer.sequence(entry(replace(ENTRIES[0], revoked_at=NOW + 1000)))),
        entries=[replace(ENTRIES[0], revoked_at=NOW + 1000)],
    ),
    "R08: of no shard of ours, on record too": Case(
        lambda: with_extensions(point(shard_url(2))), scope=SECOND, fits=elements.fitting(2, ())
    ),
    "the published CRL is younger": Case(forge, before=before(old_crl(ENTRIES, this_update=NOW + 5), until=0)),
    "the published CRL has that number": Case(forge, before=before(old_crl(ENTRIES, number=7))),
    "the published CRL is no CRL": Case(forge, before=before(b"\x30\x00")),
    "R12: gone, and the record knows nothing of it": Case(forge, before=before(OLD, {serial(200): EXPIRED})),
    "R07: gone, revoked and unexpired": Case(forge, before=before(OLD, {serial(4): change(serial(4)), serial(200): EXPIRED})),
    "R07: the last of the old list": Case(forge, before=before(OLD, {serial(4): RELEASED})),
}

RIGHT = {
    "an entry with its date": Case(
        lambda: forge(revoked=writer.sequence(entry(DATED, extensions=writer.sequence(REASON, INVALID)))), entries=[DATED]
    ),
    "a complete CRL": Case(forge),
    "after one that it continues": Case(forge, before=before(old_crl(ENTRIES[:2]))),
    "after one that listed a released and an expired one": Case(forge, before=before(OLD, {GONE.serial: RELEASED, serial(200): EXPIRED})),
    "a complete CRL with deltas": Case(lambda: with_extensions(FRESHEST), scope=COMPLETE),
    "a shard": Case(lambda: with_extensions(point(shard_url(2))), scope=SECOND, certificates=[certificate(shard_url(2))]),
    "a delta": Case(lambda: with_extensions(DELTA), scope=CHANGES, bases=lambda _: BASE),
}


@pytest.mark.parametrize("case", RIGHT.values(), ids=RIGHT.keys())
def test_what_is_right_goes_through(case: Case) -> None:
    assert case.judged(gate) == ""


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_P6_what_is_wrong_does_not(case: Case) -> None:
    assert case.judged(gate) != ""


class _Without(ast.NodeTransformer):
    """Takes the n-th check out."""

    def __init__(self, number: int) -> None:
        self.left = number

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        self.left -= 1
        return ast.copy_location(ast.Pass(), node) if self.left == -1 else node


NAMING = {"_name_fault", "_name_among", "_missing", "_twice", "inspect", "_readable"}
TRANSLATING = {"_believed", "_succeeded"}
"""They give what the reader refused a name of the gate's."""
"""They find words for what `_check_entries` has found wrong, or judge what comes from a ceremony (tested elsewhere)."""


def checks() -> Iterator[tuple[int, str]]:
    """Every `raise` of the gate that decides something, by its place."""
    tree = ast.parse(inspect.getsource(gate))
    owners = {}
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Raise):
                    owners[node] = function.name
    for number, node in enumerate(_in_order(tree)):
        text = ast.unparse(node)
        if owners[node] not in NAMING and not (owners[node] in TRANSLATING and "error.what" in text):
            yield number, f"{owners[node]}:{text[:90]}"


def _in_order(tree: ast.AST) -> Iterator[ast.Raise]:
    class Walk(ast.NodeVisitor):
        def __init__(self) -> None:
            self.found: list[ast.Raise] = []

        def visit_Raise(self, node: ast.Raise) -> None:
            self.found.append(node)

    walk = Walk()
    walk.visit(tree)
    yield from walk.found


def mutant(number: int) -> Any:
    return made_of(_Without(number).visit(ast.parse(inspect.getsource(gate))))


def made_of(tree: ast.AST) -> Any:
    module = types.ModuleType("crl.rules.gate_mutant")
    import sys

    sys.modules[module.__name__] = module
    exec(compile(ast.fix_missing_locations(cast("ast.Module", tree)), "gate_mutant.py", "exec"), module.__dict__)
    return module


@pytest.mark.parametrize(("number", "what"), [pytest.param(number, what, id=what) for number, what in checks()])
def test_P6_every_check_is_needed(number: int, what: str) -> None:
    without = mutant(number)
    assert all(case.judged(without) == "" for case in RIGHT.values()), what
    let_through = []
    for name, case in CASES.items():
        try:
            if case.judged(without) == "":
                let_through.append(name)
        except (UnboundLocalError, AttributeError, TypeError):
            # A mutant that falls over its own wound has let nothing through.
            continue
    assert let_through, f"no planted fault needs this check: {what}"


@pytest.mark.parametrize("comparison", ["found != piece", "self.same = at == end"])
def test_P6_entries_are_compared_to_their_last_octet(comparison: str) -> None:
    """What is no `raise` and decides all the same: pieces that differ, and what stands behind the last of them."""
    source = inspect.getsource(gate)
    assert source.count(comparison) == 1
    without = made_of(ast.parse(source.replace(comparison, {"found != piece": "False"}.get(comparison, "self.same = True"))))
    assert any(case.judged(without) == "" for case in CASES.values())


def test_there_are_as_many_checks_as_one_can_count() -> None:
    assert len(list(checks())) >= 25


def test_a_serial_of_any_legal_length_is_compared() -> None:
    """Imported data has serial numbers of 1 to 20 octets."""
    lengths = [Serial(1), Serial(0x7F), Serial(0x80), Serial(0xFFFF), Serial((1 << 63) + 1), Serial((1 << 159) - 1)]
    entries = [CrlEntry(one, NOW - 9, Reason.superseded) for one in lengths]
    octets = WORLD.crl(number=7, this_update=NOW, next_update=NOW + LIFETIME - 1, entries=entries)
    assert Case(lambda: octets, entries=entries).judged(gate) == ""
    assert Case(lambda: octets, entries=entries[:-1]).judged(gate) == "crl-unexpected"
    assert Case(lambda: octets, entries=entries, issuer=IssuerId("other")).judged(gate) == "crl-not-intended"
