"""A child process without keys that reads what strangers sent and what keys made: CSRs on their way in, certificates on their way out. Edge.

Two thirds of the arithmetic of an issuance is verifying: the proof of possession of each CSR (P2), and each finished signature, read back by
the second parser (P11). The rules that do it are pure; here they run beside the thread that decides instead of in it, and hostile octets
meet the parsers in a process that holds no key and no database.

A frame is four octets of length and so many of content. What is asked comes in Python's own form (`marshal`), for the child believes the signer;
what is answered is JSON, for the signer reads it as it would a stranger's: the child has met hostile octets. Answers come in order, each a list of
outcomes. Knows no verb and no rule of its own. When the child dies, what it had in hand ends with `checker-died`, and a new one starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import marshal
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import IO, Any, Final, TypeAlias

import orjson

from ca.der.csr import Csr, read_csr
from ca.errors import FleetcaError, KeyUnavailable
from ca.model import AlgorithmName, Digest, Draft, Serial
from ca.rules.reread import Meant, verify_signed
from ca.signer import messages

_PIPE: Final = 1 << 20
"""Octets that a pipe holds, where the system allows it: whoever writes a batch need not wait for its reader."""

Outcome: TypeAlias = Csr | FleetcaError | None
Told: TypeAlias = Callable[[Sequence[Outcome]], None]


# ---- In the child ---------------------------------------------------------------------------------------------------


def _outcome(check: Callable[[Any], Any], item: Any) -> Any:
    try:
        return check(item)
    except FleetcaError as error:
        return messages.write_error(error)


def _read(der: bytes) -> list[str]:
    csr = read_csr(der)
    return [csr.spki.hex(), csr.spki_sha256.hex(), csr.algorithm]


def _reread(item: tuple[bytes, bytes, str, int, int, bytes]) -> None:
    der, tbs, algorithm, serial, not_after, spki = item
    verify_signed(Meant(tbs, AlgorithmName(algorithm), Serial(serial), not_after), der, spki)


def main() -> None:
    """Serve until there is nobody to ask: the signer's end closes this one."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # Sent to the whole group when somebody stops the signer, which still finishes what it has in hand.
        signal.signal(number, signal.SIG_IGN)
    asked, told = sys.stdin.buffer, sys.stdout.buffer
    while body := _body(asked):
        csrs, work = marshal.loads(body)  # noqa: S302 - from the signer, whose child this is
        check = _read if csrs else _reread
        told.write(_frame(orjson.dumps([_outcome(check, item) for item in work])))
        told.flush()


def _frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def _body(source: IO[bytes]) -> bytes:
    """Of the next frame; nothing when there is an end to them."""
    head = source.read(4)
    return source.read(int.from_bytes(head, "big")) if len(head) == 4 else b""


# ---- In the signer --------------------------------------------------------------------------------------------------


class Checker:
    """Start it, ask from any thread; answers come from a thread of its own, in order. Closing it gives up what is under way."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._waiting: deque[tuple[bool, int, Told]] = deque()
        """Of each piece of work under way: whether it is CSRs, how many, and who is told."""
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        """Held from taking a place among those who wait to the end of asking: answers come in the order in which the pipe was written."""
        self._closed = False

    def start(self) -> None:
        """Start the child; it loads its parsers while the caller goes on. Does nothing where it runs."""
        with self._lock:
            if self._child is None and not self._closed:
                self._child = self._spawned()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            child, self._child = self._child, None
        if child is not None:
            _close(child)
            child.wait()

    def read(self, csrs: Sequence[bytes], told: Told) -> None:
        """Read each CSR: a `Csr`, or what is wrong with it."""
        self._ask(list(csrs), csrs=True, told=told)

    def reread(self, finished: Sequence[tuple[Draft, bytes, bytes]], told: Told) -> None:
        """Read back each certificate, given with its draft and its issuer's key: None, or what is wrong with it."""
        work = [(der, draft.tbs, draft.algorithm, draft.serial, draft.not_after, spki) for draft, der, spki in finished]
        self._ask(work, csrs=False, told=told)

    def _ask(self, work: list[Any], *, csrs: bool, told: Told) -> None:
        frame, count = _frame(marshal.dumps((csrs, work))), len(work)
        with self._asking:
            with self._lock:
                if self._child is None and not self._closed:
                    self._child = self._spawned()
                child = self._child
                if child is not None:
                    self._waiting.append((csrs, count, told))
            if child is not None:
                # Outside of the lock, for its reader must get on. A child that is gone is found by its reader.
                assert child.stdin is not None
                with contextlib.suppress(OSError, ValueError):
                    child.stdin.write(frame)
                    child.stdin.flush()
                return
        told([_died()] * count)

    def _spawned(self) -> subprocess.Popen[bytes]:
        # Nothing of our environment but where our own code lies: a unit file may have put secrets there.
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "ca.signer.checker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
            cwd="/",
        )
        for pipe in (child.stdin, child.stdout):
            with contextlib.suppress(OSError):
                fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE)  # type: ignore[union-attr]
        threading.Thread(target=self._listen, args=(child,), name="signer-checker", daemon=True).start()
        return child

    def _listen(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        # Whatever it says that is no answer ends it like a death: it has read what strangers sent.
        with contextlib.suppress(Exception):
            while body := _body(child.stdout):
                with self._lock:
                    csrs, count, told = self._waiting[0]
                outcomes = [_outcome_of(item, csrs=csrs) for item in orjson.loads(body)]
                if len(outcomes) != count:
                    break
                with self._lock:
                    self._waiting.popleft()
                told(outcomes)
        with self._lock:
            if self._child is child:
                self._child = None
            lost, self._waiting = self._waiting, deque()
        _close(child)
        child.kill()
        child.wait()
        for _, count, told in lost:
            told([_died()] * count)


def _outcome_of(item: Any, *, csrs: bool) -> Outcome:
    if isinstance(item, dict):
        try:
            messages.read_answer(item)
        except FleetcaError as error:
            return error
    if not csrs:
        if item is not None:
            raise ValueError(item)
        return None
    spki, digest, algorithm = item
    return Csr(bytes.fromhex(spki), Digest(bytes.fromhex(digest)), AlgorithmName(algorithm))


def _close(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        with contextlib.suppress(OSError):
            pipe.close()  # type: ignore[union-attr]


def _died() -> FleetcaError:
    return KeyUnavailable(
        "checker-died", "The signer's checking process ended; nothing was released.", fix="Repeat the request.", retry_after=1
    )


if __name__ == "__main__":
    main()
