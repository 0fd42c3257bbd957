"""Custody by several people: shares are made and checked, a quorum unlocks, shares are made anew. Verb: knows rules and ports only.

Each share is shown once, to its custodian, who reads it back before the next one is made: what was copied wrongly is found while the key is
still here. A set of which one share was not read back is given up whole; nothing is sealed under it. A crash in between leaves papers that
open nothing.

    made = custody.make("root-2026", ["Ada", "Ben", "Cyd"], 2, show=..., reenter=...)   -> quorum, key
    gathering = custody.gather(quorum); gathering.give(words) ...; key = gathering.key()   -> key
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from ca.errors import Broken, Conflict, Denied, FleetcaError, KeyUnavailable, Unacceptable
from ca.model import Quorum, Share
from ca.ports import Clock, SharedKey, Sharing
from ca.rules import quorum as rule

TRIES: Final = 3
"""How often a custodian may read a share back, without seeing it again."""


@dataclass(frozen=True, slots=True)
class ShareSheet:
    """What one custodian sees, once."""

    quorum: str
    identifier: int
    custodian: str
    number: int
    """From 1, as people count."""
    threshold: int
    count: int
    words: str

    def __repr__(self) -> str:
        return f"ShareSheet({self.quorum!r}, {self.custodian!r})"


@dataclass(frozen=True, slots=True)
class Given:
    """A share that was taken, and how many are still needed."""

    custodian: str
    left: int


class Gathering:
    """The shares that custodians have given so far."""

    def __init__(self, quorum: Quorum, sharing: Sharing) -> None:
        self.quorum = quorum
        self._sharing = sharing
        self._words: dict[int, str] = {}

    def __repr__(self) -> str:
        return f"Gathering({self.quorum.name!r}, {sorted(self._words)})"

    @property
    def custodians(self) -> tuple[str, ...]:
        """Whose shares were given, by their place."""
        return tuple(self.quorum.custodians[index] for index in sorted(self._words))

    @property
    def left(self) -> int:
        """How many are still needed."""
        return max(0, self.quorum.threshold - len(self._words))

    def give(self, words: str) -> Given:
        """Take one share.

        Raises:
            Malformed: a damaged one (`bad-share`); nothing was taken.
            Unacceptable: one of another set (`share-of-another-set`).
            Conflict: one that was given already (`share-given`).
        """
        share, full = self._sharing.read(words)
        check_share(self.quorum, share)
        if share.index in self._words:
            raise Conflict(
                "share-given",
                f"The share of {self.quorum.custodians[share.index]} was given already.",
                fix="Let another custodian give theirs.",
            )
        self._words[share.index] = full
        return Given(self.quorum.custodians[share.index], self.left)

    def key(self) -> SharedKey:
        """The key.

        Raises:
            Denied: too few shares were given (`quorum-incomplete`).
            KeyUnavailable: they give another key than the one of this set (`shares-do-not-fit`).
        """
        if self.left:
            raise Denied(
                "quorum-incomplete",
                f"{self.left} more of {self.quorum.shape} custodians have to give their share.",
                why="Fewer say nothing about the key.",
            )
        key = self._sharing.combine(list(islice(self._words.values(), self.quorum.threshold)))
        if not hmac.compare_digest(key.check, self.quorum.check):
            raise KeyUnavailable(
                "shares-do-not-fit",
                f"These shares do not give the key of {self.quorum.name}.",
                why="They come from a set that happens to have the same identifier.",
                fix="Compare the name of the set written beside the words.",
            )
        return key


def check_share(quorum: Quorum, share: Share) -> None:
    """Whether a share is one of a set.

    Raises:
        Unacceptable: it is not (`share-of-another-set`).
    """
    fits = share.identifier == quorum.identifier and share.threshold == quorum.threshold and share.index < len(quorum.custodians)
    if not fits:
        raise Unacceptable(
            "share-of-another-set",
            f"This share is not one of {quorum.name}.",
            why=f"It is of set {share.identifier}, and {quorum.name} is set {quorum.identifier}.",
            fix="Take the paper with the name of this set; shares of sets that were replaced are destroyed.",
        )


class Custody:
    """The verb.

    Args:
        sharing: makes and joins shares.
        clock: for the record of when a set was made.
    """

    def __init__(self, *, sharing: Sharing, clock: Clock) -> None:
        self._sharing = sharing
        self._clock = clock

    def make(
        self,
        name: str,
        custodians: Sequence[str],
        threshold: int,
        *,
        show: Callable[[ShareSheet], None],
        reenter: Callable[[str, int], str],
        unlike: int | None = None,
    ) -> tuple[Quorum, SharedKey]:
        """Make a key and a share of it for each custodian.

        Args:
            name: of the set; stands on every paper.
            custodians: one share for each, in this order.
            threshold: how many have to come.
            show: shows a share to its custodian, who alone looks; and takes it from the screen before it returns.
            reenter: asks the custodian (name, number of the try) to read it back.
            unlike: an identifier that the set must not have: of the one that it replaces.

        Raises:
            Misconfigured: the set is not lawful (`bad-quorum`).
            Denied: a share was not read back as it was shown (`share-not-verified`); the set is given up.
        """
        rule.judge(name, custodians, threshold)
        words, key = self._sharing.split(threshold=threshold, count=len(custodians))
        identifier = self._sharing.read(words[0])[0].identifier
        if identifier == unlike:
            # One in 32768: people tell sets by it.
            return self.make(name, custodians, threshold, show=show, reenter=reenter, unlike=unlike)
        made = Quorum(name, identifier, threshold, tuple(custodians), key.check, key.recipient, self._clock.now())
        self._prove(made, words)
        for number, (custodian, share) in enumerate(zip(custodians, words, strict=True), start=1):
            show(ShareSheet(name, identifier, custodian, number, threshold, len(custodians), share))
            self._read_back(custodian, share, reenter)
        return made, key

    def gather(self, quorum: Quorum) -> Gathering:
        """Begin to collect shares of a set."""
        return Gathering(quorum, self._sharing)

    def unlock(
        self, quorum: Quorum, *, ask: Callable[[Gathering], str], told: Callable[[Given | FleetcaError], None]
    ) -> tuple[SharedKey, tuple[str, ...]]:
        """Collect shares until they suffice; the key, and who came.

        Args:
            quorum: the set.
            ask: asks for the next share.
            told: hears what became of each: a refused one is asked for again.

        Raises:
            KeyUnavailable: what was given does not give the key.
        """
        gathering = self.gather(quorum)
        while gathering.left:
            try:
                told(gathering.give(ask(gathering)))
            except (Unacceptable, Conflict) as error:
                told(error)
            except FleetcaError as error:
                if error.code != "bad-share":
                    raise
                told(error)
        return gathering.key(), gathering.custodians

    def verify_share(self, quorum: Quorum, words: str) -> Given:
        """Whether a paper is still readable and of this set: for the yearly check. Says whose it is.

        Raises:
            Malformed, Unacceptable: it is damaged, or of another set.
        """
        return self.gather(quorum).give(words)

    def _read_back(self, custodian: str, share: str, reenter: Callable[[str, int], str]) -> None:
        for attempt in range(1, TRIES + 1):
            try:
                _, read = self._sharing.read(reenter(custodian, attempt))
            except FleetcaError as error:
                if error.code != "bad-share":
                    raise
                continue
            if hmac.compare_digest(read.encode(), share.encode()):
                return
        raise Denied(
            "share-not-verified",
            f"{custodian} did not read back the share that was shown; this set of shares is given up.",
            why="A share that was copied wrongly would be found on the day it is needed.",
            fix="Destroy every paper of this set, and make a new one.",
        )

    def _prove(self, made: Quorum, words: Sequence[str]) -> None:
        """Before anyone sees a share: every one of them takes part in giving the key back."""
        for first in range(len(words)):
            chosen = [words[(first + place) % len(words)] for place in range(made.threshold)]
            if self._sharing.combine(chosen).check != made.check:
                raise Broken("shares-do-not-fit", "The shares that were made do not give the key back; nobody has seen them.")
