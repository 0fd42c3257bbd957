"""Holds a copy of the record against what others kept: checkpoints, receipts, another copy. Pure.

This is what finds a rewritten log also when the attacker had the log's key and every file of a copy agrees with every other one: what
was once signed and carried elsewhere cannot be unsigned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ca.model import Checkpoint, Digest
from ca.rules import merkle
from ca.rules.history import differences
from ca.rules.receipt import Receipt
from ca.rules.record import Copy, Finding, Kind, describe, label, leaves


@dataclass(frozen=True, slots=True)
class Kept:
    """A checkpoint whose signature holds, and where it was kept."""

    where: str
    checkpoint: Checkpoint


def roots_at(hashes: Sequence[Digest], sizes: Sequence[int]) -> dict[int, Digest]:
    """The roots that a history had at some sizes, in one walk."""
    roots: dict[int, Digest] = {}
    frontier = merkle.Frontier()
    for size in sorted({size for size in sizes if size <= len(hashes)}):
        frontier = merkle.extend(frontier, hashes[frontier.size : size])
        roots[size] = frontier.root()
    return roots


def against_checkpoints(copy: Copy, kept: Sequence[Kept]) -> list[Finding]:
    """A log must begin with every log that it once was."""
    findings: list[Finding] = []
    mine = []
    for each in kept:
        if copy.checkpoint and each.checkpoint.origin != copy.checkpoint.origin:
            what = f"{each.where} is a checkpoint of {each.checkpoint.origin}, {copy.name} a log of {copy.checkpoint.origin}"
            findings.append(Finding(Kind.other_log, what))
        else:
            mine.append(each)
    size = len(copy.hashes)
    roots = roots_at(copy.hashes, [each.checkpoint.size for each in mine])
    agreed = max((each.checkpoint.size for each in mine if roots.get(each.checkpoint.size) == each.checkpoint.root), default=0)
    longest = max(mine, key=lambda each: each.checkpoint.size, default=None)
    if longest and longest.checkpoint.size > size:
        last = longest.checkpoint.size - 1
        what = f"{leaves(size, last)} dropped: {longest.where} is signed for {last + 1} leaves, {copy.name} ends at {size}"
        findings.append(Finding(Kind.dropped, what, size, last))
    for each in sorted(mine, key=lambda each: each.checkpoint.size):
        until = each.checkpoint.size
        if until > size or roots[until] == each.checkpoint.root:
            continue
        first = agreed if agreed < until else 0
        what = (
            f"{copy.name} does not begin with the {until} leaves that {each.where} is signed for: "
            f"at least one of {leaves(first, until - 1)} was edited, dropped, inserted or reordered"
        )
        findings.append(Finding(Kind.forked, what, first, until - 1))
        break  # a longer checkpoint says no more than the shortest that fails
    return findings


def against_receipt(copy: Copy, where: str, receipt: Receipt, checkpoint: Checkpoint) -> list[Finding]:
    """The receipt holds; does the log still hold what it promised? Its checkpoint counts as a kept one beside this."""
    if copy.checkpoint and checkpoint.origin != copy.checkpoint.origin:
        return []  # said once, with the checkpoint
    index, size = receipt.index, len(copy.hashes)
    promised = label(receipt.body)
    if index >= size:
        return [Finding(Kind.dropped, f"leaf {index} dropped: {where} is a receipt for {promised}", index, index)]
    findings: list[Finding] = []
    if copy.hashes[index] != receipt.leaf_hash:
        try:
            now = copy.hashes.index(receipt.leaf_hash)
        except ValueError:
            what = f"leaf {index} edited: {where} is a receipt for {promised}; is {label(copy.body(index))}"
            findings.append(Finding(Kind.edited, what, index, index))
        else:
            findings.append(Finding(Kind.reordered, f"leaf {index} reordered: stands at {now} now ({promised}; {where})", index, index))
    # Each hash of its proof stands for a run of leaves: those that differ narrow down what else was touched.
    for span, digest in zip(merkle.inclusion_spans(index, checkpoint.size), receipt.proof, strict=True):
        if span.end <= size and merkle.root_of(copy.hashes[span.start : span.end]) != digest:
            what = f"at least one of {span} of {copy.name} is not what it was when {where} was made"
            findings.append(Finding(Kind.forked, what, span.start, span.end - 1))
    return findings


def against_copy(copy: Copy, other: Copy) -> list[Finding]:
    """Leaf by leaf: `other` was kept elsewhere, `copy` may have more leaves and nothing else."""
    changes = differences(other.hashes, copy.hashes)
    if not changes:
        return []
    findings = describe(changes, was=other.body, now=copy.body, by=f"{other.name} has it as it was")
    mine, kept = copy.checkpoint, other.checkpoint
    common = min(len(copy.hashes), len(other.hashes))
    if mine and kept and mine.origin == kept.origin and copy.hashes[:common] != other.hashes[:common]:
        apart = next(index for index in range(common) if copy.hashes[index] != other.hashes[index])
        what = f"The key of {mine.origin} signed two histories that part at leaf {apart}: {copy.name} and {other.name}"
        findings.append(Finding(Kind.forked, what, apart, common - 1))
    return findings
