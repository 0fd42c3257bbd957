"""The working set: finished answers in memory, bounded, never older than the changes we have heard of. Ring 4.

An answer enters only with the change number that was current when its status was asked for, and only while that number still is; a
heard change takes its certificate's answers out in the same step in which the number moves on. So no answer in here is older than `change`.
Only answers about certificates that are on record enter (`Sign.keep`): asking for what does not exist costs no memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from threading import Lock
from types import MappingProxyType

from ca.model import ChangeNumber, UnixTime
from ocsp.model import Finished

# What an entry takes beside its octets: key, two objects, table slots. Measured generously.
_OVERHEAD = 1400


class WorkingSet:
    """Safe for several threads; reading takes no lock.

    Args:
        octets: about how much memory it may take.
    """

    def __init__(self, octets: int) -> None:
        self._limit = octets
        self._lock = Lock()
        self._finished: dict[bytes, Finished] = {}
        self._octets = 0
        self._change: ChangeNumber | None = None
        self._heard_at: UnixTime | None = None

    @property
    def finished(self) -> Mapping[bytes, Finished]:
        """CertID octets -> answer; a view that cannot be written."""
        return MappingProxyType(self._finished)

    @property
    def octets(self) -> int:
        """About what it takes now."""
        return self._octets

    @property
    def heard_at(self) -> UnixTime | None:
        """When the change number was last confirmed; without waiting for anybody."""
        return self._heard_at

    def heard(self) -> tuple[ChangeNumber | None, UnixTime | None]:
        """The latest change number we know, and when that was confirmed; None before the first time."""
        with self._lock:
            return self._change, self._heard_at

    def keep(self, certificate_id: bytes, finished: Finished, *, as_of: ChangeNumber | None) -> None:
        """Keep an answer whose status was read when `as_of` was current; forgotten at once if it no longer is.

        Before the first change number is heard (None), what is kept is all forgotten when that comes.
        """
        size = _size(certificate_id, finished)
        if size > self._limit:
            return
        with self._lock:
            if as_of != self._change:
                return
            self._drop(certificate_id)
            self._finished[certificate_id] = finished
            self._octets += size
            while self._octets > self._limit:
                # The one that was made longest ago: what is asked for often is made anew at half its life and so stays near the end.
                self._drop(next(iter(self._finished)))

    def advance(self, change: ChangeNumber, changed: Iterable[bytes], *, now: UnixTime) -> None:
        """Take in that `change` is the latest number and that the answers for these CertIDs no longer hold."""
        with self._lock:
            for certificate_id in changed:
                self._drop(certificate_id)
            self._change = change
            self._heard_at = now

    def start_over(self, change: ChangeNumber, *, now: UnixTime) -> None:
        """Forget every answer: the change number went back, or too much changed to follow one by one."""
        with self._lock:
            self._finished.clear()
            self._octets = 0
            self._change = change
            self._heard_at = now

    def _drop(self, certificate_id: bytes) -> None:
        finished = self._finished.pop(certificate_id, None)
        if finished is not None:
            self._octets -= _size(certificate_id, finished)


def _size(certificate_id: bytes, finished: Finished) -> int:
    return len(certificate_id) + len(finished.body) + len(finished.head) + _OVERHEAD
