"""The tree of the record against the RFC's definitions, written down naively here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ca.model import Digest
from ca.rules import merkle
from ca.rules.merkle import Frontier, Span

LEAVES = [merkle.leaf_hash(b"%d" % index) for index in range(700)]


# The definitions of RFC 9162 2.1.1, 2.1.3.1 and 2.1.4.1, word for word and slow: over lists, by recursion, no subtree remembered.


def mth(leaves: Sequence[bytes]) -> bytes:
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = split(len(leaves))
    return sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def split(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    return [*path(m, leaves[:k]), mth(leaves[k:])] if m < k else [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: Sequence[bytes], whole: bool) -> list[bytes]:
    n = len(leaves)
    if m == n:
        return [] if whole else [mth(leaves)]
    k = split(n)
    return [*subproof(m, leaves[:k], whole), mth(leaves[k:])] if m <= k else [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


BODIES = [b"%d" % index for index in range(700)]


def node(height: int, index: int) -> Digest:
    return merkle.perfect_root(LEAVES[index << height : (index + 1) << height])


def test_every_root_up_to_hundreds_is_the_one_of_the_definition() -> None:
    frontier = Frontier()
    for size in range(300):
        root = mth(BODIES[:size])
        assert frontier.root() == root
        assert merkle.root_of(LEAVES[:size]) == root
        assert merkle.tree_root(size, node) == root
        frontier = merkle.extend(frontier, [LEAVES[size]])


def test_the_empty_tree_has_the_root_of_the_rfc() -> None:
    assert merkle.EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_every_inclusion_proof_up_to_70_leaves_is_the_one_of_the_definition_and_verifies_for_its_place_alone() -> None:
    for size in range(1, 70):
        root = merkle.root_of(LEAVES[:size])
        for index in range(size):
            proof = merkle.inclusion_proof(index, size, node)
            assert list(proof) == path(index, BODIES[:size])
            assert merkle.proves_inclusion(index, size, LEAVES[index], root=root, proof=proof)
            assert not merkle.proves_inclusion(index, size, LEAVES[index + 1], root=root, proof=proof)
            assert not merkle.proves_inclusion(index ^ 1, size, LEAVES[index], root=root, proof=proof)
            assert not merkle.proves_inclusion(index, size, LEAVES[index], root=root, proof=(*proof, root))
            assert not proof or not merkle.proves_inclusion(index, size, LEAVES[index], root=root, proof=proof[:-1])


def test_every_consistency_proof_up_to_70_leaves_is_the_one_of_the_definition_and_verifies() -> None:
    roots = [merkle.root_of(LEAVES[:size]) for size in range(70)]
    for second in range(1, 70):
        for first in range(1, second + 1):
            proof = merkle.consistency_proof(first, second, node)
            assert list(proof) == subproof(first, BODIES[:second], True)
            assert merkle.proves_consistency(first, second, first_root=roots[first], second_root=roots[second], proof=proof)
            assert not merkle.proves_consistency(first, second, first_root=roots[first - 1], second_root=roots[second], proof=proof)
            assert not merkle.proves_consistency(first, second, first_root=roots[first], second_root=roots[first - 1], proof=proof)
            if first < second:
                assert not merkle.proves_consistency(
                    first, second, first_root=roots[first], second_root=roots[second], proof=(*proof, roots[first])
                )
                assert not merkle.proves_consistency(first, second, first_root=roots[first], second_root=roots[second], proof=proof[:-1])


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 700), st.data())
def test_proofs_of_any_size_equal_the_definition(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    first = data.draw(st.integers(1, size))
    root = merkle.root_of(LEAVES[:size])
    proof = merkle.inclusion_proof(index, size, node)
    assert list(proof) == path(index, BODIES[:size])
    assert merkle.proves_inclusion(index, size, LEAVES[index], root=root, proof=proof)
    consistency = merkle.consistency_proof(first, size, node)
    assert list(consistency) == subproof(first, BODIES[:size], True)
    assert merkle.proves_consistency(first, size, first_root=merkle.root_of(LEAVES[:first]), second_root=root, proof=consistency)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 400), st.data())
def test_a_proof_with_one_octet_changed_proves_nothing(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    root = merkle.root_of(LEAVES[:size])
    proof = list(merkle.inclusion_proof(index, size, node))
    if proof:
        which, octet = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 31))
        proof[which] = Digest(proof[which][:octet] + bytes([proof[which][octet] ^ 1]) + proof[which][octet + 1 :])
        assert not merkle.proves_inclusion(index, size, LEAVES[index], root=root, proof=proof)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_no_proof_of_consistency_verifies_for_a_rewritten_past(first: int, more: int, data: st.DataObject) -> None:
    second = first + more
    edited = data.draw(st.integers(0, first - 1))
    rewritten = [*LEAVES[:edited], merkle.leaf_hash(b"forged"), *LEAVES[edited + 1 : second]]

    def forged(height: int, index: int) -> Digest:
        return merkle.perfect_root(rewritten[index << height : (index + 1) << height])

    proof = merkle.consistency_proof(first, second, forged)
    assert not merkle.proves_consistency(
        first, second, first_root=merkle.root_of(LEAVES[:first]), second_root=merkle.root_of(rewritten), proof=proof
    )


@given(st.integers(1, 5000), st.data())
def test_the_spans_of_an_inclusion_proof_and_the_leaf_cover_the_tree_once(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    spans = sorted([Span(index, index + 1), *merkle.inclusion_spans(index, size)], key=lambda span: span.start)
    assert [span.end for span in spans[:-1]] == [span.start for span in spans[1:]]
    assert (spans[0].start, spans[-1].end) == (0, size)


@pytest.mark.parametrize(
    ("first", "second", "first_root", "second_root", "holds"),
    [
        pytest.param(0, 0, merkle.EMPTY_ROOT, merkle.EMPTY_ROOT, True, id="two empty trees are the same"),
        pytest.param(0, 3, merkle.EMPTY_ROOT, merkle.root_of(LEAVES[:3]), True, id="the empty tree begins every tree"),
        pytest.param(0, 3, LEAVES[0], merkle.root_of(LEAVES[:3]), False, id="an empty tree has one root only"),
        pytest.param(3, 3, merkle.root_of(LEAVES[:3]), merkle.root_of(LEAVES[:3]), True, id="a tree begins itself"),
        pytest.param(3, 3, merkle.root_of(LEAVES[:3]), merkle.root_of(LEAVES[1:4]), False, id="two roots of one size are a fork"),
        pytest.param(4, 3, merkle.root_of(LEAVES[:4]), merkle.root_of(LEAVES[:3]), False, id="a log never shrinks"),
    ],
)
def test_consistency_without_a_proof(first: int, second: int, first_root: Digest, second_root: Digest, holds: bool) -> None:
    assert merkle.proves_consistency(first, second, first_root=first_root, second_root=second_root, proof=()) is holds


def test_numbers_without_a_meaning_prove_nothing() -> None:
    assert merkle.root_from_inclusion(3, 3, LEAVES[0], ()) is None
    assert merkle.root_from_inclusion(-1, 3, LEAVES[0], ()) is None
    with pytest.raises(ValueError, match="no leaf"):
        merkle.inclusion_spans(5, 5)
    with pytest.raises(ValueError, match="no beginning"):
        merkle.consistency_spans(6, 5)


def test_the_proofs_of_certificate_transparency_are_ours() -> None:
    """The tree of eight leaves that RFC 6962 implementations share as their vector (leaf inputs and roots)."""
    inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    leaves = [merkle.leaf_hash(bytes.fromhex(each)) for each in inputs]
    assert merkle.root_of(leaves[:1]).hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert merkle.root_of(leaves).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
