"""Writers that run as processes of their own, several at once, for the contract tests. Orders and results are
lines of JSON: `[url, act, arguments...]` is answered by `"ready"` once the store is open, `"go"` by what the act did.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ca.errors import Busy, Conflict, FleetcaError
from ca.model import CertificateRef, DeviceId, Digest, LogLeaf, Reason, Serial
from ca.store.engine import Store, open_store
from tests.fakes.intents import ISSUER, NOW, intent


def revoke(store: Store, *serials: str) -> Any:
    """Revoke each; every third attempt is undone first, by a savepoint or with its transaction, and made again."""
    given = []
    for number, serial in enumerate(serials):
        ref = CertificateRef(ISSUER, Serial(int(serial, 16)))

        def add(writing: Any, ref: CertificateRef = ref) -> int:
            return int(writing.add_revocation(ref, reason=Reason.keyCompromise, now=NOW, not_after=NOW, listed=True).change)

        if number % 3 == 1:
            with contextlib.suppress(RuntimeError), store.ledger.writing() as writing:
                add(writing)
                raise RuntimeError
        with store.ledger.writing() as writing:
            if number % 3 == 2:
                with contextlib.suppress(RuntimeError), writing.savepoint():
                    add(writing)
                    raise RuntimeError
            given.append(add(writing))
    return given


def number_crls(store: Store, count: str) -> Any:
    given = []
    for _ in range(int(count)):
        with store.ledger.writing() as writing:
            given.append(writing.next_crl_number(ISSUER, 0, above=0))
    return given


def use_token(store: Store, token: str, *request_keys: str) -> Any:
    """The request keys whose use went through."""
    through = []
    for key in request_keys:
        with contextlib.suppress(Conflict), store.ledger.writing() as writing:
            writing.use_token(Digest(bytes.fromhex(token)), request_key=Digest(bytes.fromhex(key)), now=NOW)
            through.append(key)
    return through


def reserve(store: Store, count: str, request_prefix: str, serial_start: str) -> Any:
    """Reserve the same requests as others with our own serials, then the same serials as others with our own requests."""
    outcomes: list[str] = []
    for number in range(int(count)):
        shared_key = Digest(bytes.fromhex(request_prefix) + number.to_bytes(4, "big"))
        for one in (intent(request_key=shared_key), intent(serial=Serial(int(serial_start, 16) + number))):
            try:
                with store.ledger.writing() as writing:
                    writing.reserve(one, tenant="default", revocable=True, leaf=shared_key)
            except (Busy, Conflict) as refused:
                outcomes.append(refused.code)
            else:
                outcomes.append("reserved")
    return outcomes


def claim(store: Store, device: str, *keys: str) -> Any:
    ours = []
    for key in keys:
        with contextlib.suppress(Conflict), store.ledger.writing() as writing:
            if writing.claim_key(Digest(bytes.fromhex(key)), DeviceId(device), now=NOW):
                ours.append(key)
    return ours


def lease(store: Store, holder: str, skew: str, count: str) -> Any:
    """Take the lease again and again by a clock of our own; a period's work is one CRL number, under the fence."""
    did = []
    for period in range(int(count)):
        with store.ledger.writing() as writing:
            found = writing.lease("job", holder=f"{holder}-{period}", now=NOW + period * 10 + int(skew), seconds=5)
        if found is None:
            continue
        try:
            with store.ledger.writing() as writing:
                number = writing.next_crl_number(ISSUER, 9, above=0)
                writing.check_fence("job", found.fence)
        except Conflict:
            continue
        did.append([found.fence, number])
    return did


def append(store: Store, name: str, count: str) -> Any:
    for number in range(int(count)):
        with store.ledger.writing() as writing:
            writing.append_leaf(LogLeaf(f"{name} {number}".encode()))
    return int(count)


def sequence(store: Store, name: str, count: str) -> Any:
    """Give places to pending leaves, in competition, until that many have one."""
    done = 0
    while store.reading.leaf_count() < int(count):
        with contextlib.suppress(FleetcaError), store.ledger.writing() as writing:
            pending = writing.pending_leaves(7)
            writing.assign_indexes([leaf.id for leaf in pending], start=writing.leaf_count())
            done += len(pending)
    return done


ACTS: dict[str, Callable[..., Any]] = {
    act.__name__: act for act in (revoke, number_crls, use_token, reserve, claim, lease, append, sequence)
}


class Writers:
    """Processes that wait for acts. One set serves a whole test session: a new interpreter for every act would cost seconds."""

    def __init__(self, count: int) -> None:
        command = [sys.executable, "-W", "error", "-m", "tests.fakes.writers"]
        self._started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)]

    def together(self, url: str, *commands: Sequence[str]) -> list[Any]:
        """Run each command (an act and its arguments) in a process of its own, all at once; their results in the same order."""
        chosen = self._started[: len(commands)]
        assert len(chosen) == len(commands)
        for process, command in zip(chosen, commands, strict=True):
            self._say(process, [url, *command])
        assert [self._hear(process) for process in chosen] == ["ready"] * len(chosen)
        for process in chosen:
            self._say(process, "go")
        return [self._hear(process) for process in chosen]

    def stop(self) -> None:
        for process in self._started:
            process.communicate()

    @staticmethod
    def _say(process: subprocess.Popen[str], what: Any) -> None:
        assert process.stdin is not None
        process.stdin.write(json.dumps(what) + "\n")
        process.stdin.flush()

    @staticmethod
    def _hear(process: subprocess.Popen[str]) -> Any:
        assert process.stdout is not None
        return json.loads(process.stdout.readline())


def main() -> None:
    for line in sys.stdin:
        url, act, *arguments = json.loads(line)
        store = open_store(url)
        store.reading.ping()
        print(json.dumps("ready"), flush=True)
        sys.stdin.readline()
        print(json.dumps(ACTS[act](store, *arguments)), flush=True)
        store.close()


if __name__ == "__main__":
    main()
