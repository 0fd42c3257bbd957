"""Which leaves a pack holds, and that what proves them leads to the signed root; what a tally counts. No deployment."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest

from ca.errors import Broken
from ca.model import Checkpoint, Digest
from ca.rules import leaf, merkle, tiles
from fleetca.evidence import pack, segment
from fleetca.evidence.verify import Tally, Tree, consistent

DAY = 86400


class Files:
    """A log in memory."""

    def __init__(self, bodies: list[bytes]) -> None:
        edge, done = tiles.grow(tiles.Edge(), bodies)
        self.files = {tile.path: octets for tile, octets in [*done, *tiles.partials(edge)]}
        self.checkpoint = Checkpoint("demo", len(bodies), edge.root(), b"")

    def read(self, path: str) -> bytes | None:
        return self.files.get(path)

    def write(self, files: Any) -> None:
        raise AssertionError

    def remove_partials(self, path: str) -> None:
        raise AssertionError

    def names(self) -> Any:
        return iter(self.files)


@cache
def log(count: int) -> Files:
    """A leaf a minute."""
    return Files([leaf.canonical({"kind": "event", "at": 60 * number, "name": f"n{number}"}) for number in range(count)])


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 600, 1024, 1500])
@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 1), (1, 2), (10, 300), (700, 900), (1400, 1500), (0, 1500), (900, 900)])
def test_the_leaves_of_a_period_and_what_is_around_them_lead_to_the_root(size: int, first: int, last: int) -> None:
    files = log(size)
    found = segment.find(files, files.checkpoint, Tally(60 * first, 60 * last))
    before, after = segment.proof(files, found)
    tree = Tree()
    for level, digest in before:
        tree.add(level, digest)
    assert tree.size == found.start
    held = list(segment.bodies(files, found, files.checkpoint))
    for body in held:
        tree.add(0, merkle.leaf_hash(body))
    assert tree.size == found.end
    for level, digest in after:
        tree.add(level, digest)
    assert (tree.size, tree.root()) == (size, files.checkpoint.root)
    wanted = {number for number in range(size) if first <= number < last}
    assert wanted <= set(range(found.start, found.end))
    if wanted:  # and a bundle of others on either side, where there is one
        assert found.start == 0 or min(wanted) - found.start >= tiles.WIDTH
        assert found.end == size or found.end - 1 - max(wanted) >= tiles.WIDTH


def test_a_leaf_that_is_not_that_of_the_tree_stops_it() -> None:
    files = copy.deepcopy(log(300))
    path = next(path for path in files.files if path.startswith("tile/entries/") and ".p/" in path)
    files.files[path] = files.files[path].replace(b"n299", b"n298")
    found = segment.find(files, files.checkpoint, Tally(0, DAY))
    with pytest.raises(Broken) as told:
        list(segment.bodies(files, found, files.checkpoint))
    assert told.value.code == "evidence-log"
    del files.files[path]
    with pytest.raises(Broken):
        segment.find(files, files.checkpoint, Tally(0, DAY))


@pytest.mark.parametrize("second", [1, 2, 3, 7, 8, 255, 256, 300])
def test_the_verifier_and_the_record_agree_on_consistency(second: int) -> None:
    files = log(second)
    node = tiles.node_reader(files.read, second)
    for first in range(1, second + 1, max(1, second // 16)):
        old = merkle.tree_root(first, node)
        proof = merkle.consistency_proof(first, second, node)
        assert consistent(first, second, old, files.checkpoint.root, proof)
        assert not consistent(first, second, Digest(bytes(32)), files.checkpoint.root, proof)
        assert not consistent(first, second, old, Digest(bytes(32)), proof)
        if proof:
            assert not consistent(first, second, old, files.checkpoint.root, proof[:-1])
            assert not consistent(first, second, old, files.checkpoint.root, [*proof, bytes(32)])


def test_a_tally_counts_what_happened_in_the_period_and_how_long_a_revocation_waited() -> None:
    tally = Tally(1000, 2000)

    def revoked(change: int, at: int) -> dict[str, Any]:
        return {
            "kind": "revocation",
            "at": at,
            "issuer": "issuing",
            "serial": f"{change:040x}",
            "reason": "keyCompromise",
            "change": change,
        }

    def crl(as_of: int, at: int, **more: int) -> dict[str, Any]:
        return {
            "kind": "crl",
            "at": at,
            "issuer": "issuing",
            "shard": 0,
            "as_of": as_of,
            "this_update": at,
            "next_update": at + 100,
            **more,
        }

    for each in (revoked(1, 999), revoked(2, 1000), revoked(3, 1010), crl(2, 1030), crl(3, 1040, base=1), crl(3, 1100), crl(3, 1300)):
        tally.take(each)
    tally.take(revoked(4, 1999))
    tally.take(revoked(5, 2000))
    told = tally.status()
    assert told["revocation_to_crl_seconds"] == {"count": 2, "waiting": 1, "p50": 30, "p95": 30, "p99": 30, "p100": 30}
    assert told["crls"] == {"issuing": {"count": 3, "longest_interval_seconds": 200, "lapses": 1, "last_next_update": 1400}}
    assert tally.statistics()["revoked"] == {"keyCompromise": 3}


def test_both_days_of_a_period_are_in_it() -> None:
    assert pack.period("1970-01-02..1970-01-02") == (DAY, 2 * DAY)
    assert pack.period("1970-01-01..1970-12-31") == (0, 365 * DAY)
