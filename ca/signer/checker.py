"""A child process without keys that reads what strangers sent and what keys made: CSRs on their way in, certificates on their way out. Edge.

Two thirds of the arithmetic of an issuance is verifying: the proof of possession of each CSR (P2), and each finished signature, read back by
the second parser (P11). The rules that do it are pure; here they run beside the thread that decides instead of in it, and hostile octets
meet the parsers in a process that holds no key and no database.

Frames as on the signer's socket, one JSON object each: `{"csrs": [...]}` or `{"finished": [...]}`, octets in base64, answered in order by a list
of outcomes. Knows no verb and no rule of its own. When the child dies, what it had in hand ends with `checker-died`, and a new one starts.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import IO, Any, Final, TypeAlias

from ca.der.csr import Csr, read_csr
from ca.errors import FleetcaError, KeyUnavailable
from ca.model import AlgorithmName, Digest, Draft, Serial
from ca.rules.reread import Meant, verify_signed
from ca.signer import messages

_PIPE: Final = 1 << 20
"""Octets that a pipe holds, where the system allows it: whoever writes a batch need not wait for its reader."""

Outcome: TypeAlias = Csr | FleetcaError | None
Told: TypeAlias = Callable[[Sequence[Outcome]], None]


def _octets(text: str) -> bytes:
    return base64.b64decode(text)


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")


# ---- In the child ---------------------------------------------------------------------------------------------------


def _outcome(check: Callable[[Any], Any], item: Any) -> Any:
    try:
        return check(item)
    except FleetcaError as error:
        return messages.write_error(error)


def _read(der: str) -> list[str]:
    csr = read_csr(_octets(der))
    return [_text(csr.spki), csr.spki_sha256.hex(), csr.algorithm]


def _reread(item: list[Any]) -> None:
    der, tbs, algorithm, serial, not_after, spki = item
    verify_signed(Meant(_octets(tbs), AlgorithmName(algorithm), Serial(int(serial, 16)), not_after), _octets(der), _octets(spki))


def _answer(work: dict[str, Any]) -> list[Any]:
    if "csrs" in work:
        return [_outcome(_read, der) for der in work["csrs"]]
    return [_outcome(_reread, item) for item in work["finished"]]


def main() -> None:
    """Serve until there is nobody to ask: the signer's end closes this one."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # Sent to the whole group when somebody stops the signer, which still finishes what it has in hand.
        signal.signal(number, signal.SIG_IGN)
    asked, told = sys.stdin.buffer, sys.stdout.buffer
    while (work := _take(asked)) is not None:
        told.write(_frame(_answer(work)))
        told.flush()


def _frame(document: Any) -> bytes:
    body = json.dumps(document, separators=(",", ":")).encode()
    return len(body).to_bytes(4, "big") + body


def _take(source: IO[bytes]) -> Any:
    head = source.read(4)
    body = source.read(int.from_bytes(head, "big")) if len(head) == 4 else b""
    return json.loads(body) if body else None


# ---- In the signer --------------------------------------------------------------------------------------------------


class Checker:
    """Start it, ask from one thread; answers come from a thread of its own, in order. Closing it gives up what is under way."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._waiting: deque[tuple[bool, int, Told]] = deque()
        """Of each piece of work under way: whether it is CSRs, how many, and who is told."""
        self._lock = threading.Lock()
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
        self._ask({"csrs": [_text(der) for der in csrs]}, csrs=True, count=len(csrs), told=told)

    def reread(self, finished: Sequence[tuple[Draft, bytes, bytes]], told: Told) -> None:
        """Read back each certificate, given with its draft and its issuer's key: None, or what is wrong with it."""
        work = [
            (_text(der), _text(draft.tbs), draft.algorithm, f"{draft.serial:x}", draft.not_after, _text(spki))
            for draft, der, spki in finished
        ]
        self._ask({"finished": work}, csrs=False, count=len(work), told=told)

    def _ask(self, work: dict[str, Any], *, csrs: bool, count: int, told: Told) -> None:
        frame = _frame(work)
        with self._lock:
            if self._child is None and not self._closed:
                self._child = self._spawned()
            child = self._child
            if child is not None:
                self._waiting.append((csrs, count, told))
        if child is None:
            told([_died()] * count)
            return
        # Outside of the lock, for its reader must get on. A child that is gone is found by its reader.
        assert child.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            child.stdin.write(frame)
            child.stdin.flush()

    def _spawned(self) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-I", "-m", "ca.signer.checker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}, cwd="/"
        )
        for pipe in (child.stdin, child.stdout):
            with contextlib.suppress(OSError):
                fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE)  # type: ignore[union-attr]
        threading.Thread(target=self._listen, args=(child,), name="signer-checker", daemon=True).start()
        return child

    def _listen(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            while (answer := _take(child.stdout)) is not None:
                with self._lock:
                    csrs, count, told = self._waiting[0]
                    if len(answer) != count:
                        break
                    self._waiting.popleft()
                told([_outcome_of(item, csrs=csrs) for item in answer])
        with self._lock:
            if self._child is child:
                self._child = None
            lost, self._waiting = self._waiting, deque()
        _close(child)
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
        return None
    spki, digest, algorithm = item
    return Csr(_octets(spki), Digest(bytes.fromhex(digest)), AlgorithmName(algorithm))


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
