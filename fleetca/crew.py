"""Starts processes that have their imports behind them: one process loads what all of them share, and each begins as a copy of it.

Two sides in one file. `Crew` belongs to the supervisor; `main` is the process that is copied, the mould. The mould imports and waits: it reads no
settings, holds no secret, no key, no connection, and has one thread. Its environment is given to it without the secrets that the settings name;
variables and descriptors of a process come with the order for it, and its copy alone keeps them (P3). The signer is no copy: what holds keys
shares no layout of memory with what faces a network.

A copy becomes the supervisor's own child, so that nothing depends on the mould when it runs: if that dies, the next process starts the long way.
It imports nothing but the standard library until it is a mould.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_CHILD_SUBREAPER: Final = 36
_MOST_DESCRIPTORS: Final = 64
_ROOM: Final = 1024
"""Octets kept free in the mould's command line for that of a copy: so `ps` shows which is which."""
_PATIENCE: Final = 30.0


class Running(Protocol):
    """A process of ours, as far as a supervisor is concerned with it; `subprocess.Popen` is one."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def kill(self) -> None: ...


class Copy:
    """A child of ours that another process made."""

    def __init__(self, pid: int, command: Sequence[str]) -> None:
        self.pid, self._command = pid, list(command)
        self.returncode: int | None = None
        self._watched = os.pidfd_open(pid)

    def poll(self) -> int | None:
        if self.returncode is None:
            try:
                found, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # somebody waited for every child of this process
                found, status = self.pid, 0
            if found:
                self.returncode = os.waitstatus_to_exitcode(status)
                os.close(self._watched)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises:
        subprocess.TimeoutExpired: it still runs.
        """
        if self.poll() is None:
            select.select([self._watched], [], [], timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(self._command, timeout or 0)
        return status

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._watched, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


PLAIN: Final = frozenset(
    ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "OPENSSL_CONF", "PATH", "PYTHONHOME", "PYTHONPATH", "TMPDIR", "TZ", "VIRTUAL_ENV")
)
"""Variables that code needs to be loaded, for a mould that starts before anyone knows which ones the settings name as secrets."""


class Crew:
    """The supervisor's end of a mould. The mould gets ready while the caller goes on; the first order waits for it.

    Args:
        environment: the variables of the mould; no secret may be among them.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(_PATIENCE)
        with theirs:
            self._mould = subprocess.Popen(
                [sys.executable, "-m", "fleetca.crew", str(theirs.fileno()), str(os.getpid()), " " * _ROOM],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=self.environment,
            )

    def start(
        self, arguments: Sequence[str], *, environment: Mapping[str, str], descriptors: Sequence[int], stderr: int | None = None
    ) -> Running:
        """Start `fleetca ARGUMENTS...` in a session of its own.

        Args:
            environment: its variables, all of them.
            descriptors: what it gets of our open descriptors, under the same numbers.
            stderr: our descriptor that becomes its stderr; the mould's when absent.

        Raises:
            OSError: the mould cannot do it; nothing was started.
        """
        given = [*descriptors, *([] if stderr is None else [stderr])]
        targets = [*descriptors, *([] if stderr is None else [2])]
        if len(given) >= _MOST_DESCRIPTORS:
            raise OSError("too much for an order")
        # The mould hands it on unread: what it had read would be in the memory of every later copy.
        order = os.memfd_create("order")
        # Only while the copy is made: a stray grandchild of anything else is none of ours.
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        try:
            with open(order, "wb", closefd=False) as stream:
                stream.write(json.dumps({"arguments": list(arguments), "environment": dict(environment), "targets": targets}).encode())
            socket.send_fds(self._socket, [b"1"], [order, *given])
            answer = self._socket.recv(64)
        finally:
            _prctl(_PR_SET_CHILD_SUBREAPER, 0)
            os.close(order)
        if not answer:
            raise OSError("the mould is gone")
        return Copy(int(answer), arguments)

    def close(self) -> None:
        """End the mould; its copies run on."""
        self._socket.close()
        self._mould.kill()  # it has nothing to lose
        self._mould.wait()


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


# ---- The mould ------------------------------------------------------------------------------------------------------


def main() -> None:
    orders = socket.socket(fileno=int(sys.argv[1]))
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[2]):
        return
    from fleetca.cli.main import main as run  # noqa: PLC0415 - the supervisor's side loads nothing

    _load()
    gc.collect()
    gc.freeze()  # what is shared stays shared: the collector of a copy writes nothing there
    while (arguments := _next(orders)) is not None:
        run(arguments)  # in a copy: never returns


def _load() -> None:
    """Everything that processes import, also late; nothing that opens keys of a CA, nothing that starts a thread."""
    import fleetca.trials  # noqa: PLC0415 - as above
    import fleetca.wiring  # noqa: F401, PLC0415


def _next(orders: socket.socket) -> list[str] | None:
    """Make copies as ordered. Returns in each copy what it is to run; in the mould, None when there is an end to it."""
    while True:
        _, received, _, _ = socket.recv_fds(orders, 1, _MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
        if not received:
            return None
        assert threading.active_count() == 1, "a copy has one thread, and locks of others would stay locked in it"
        go, held = os.pipe()
        told, telling = os.pipe()
        middle = os.fork()
        if middle == 0:
            pid = os.fork()
            if pid == 0:
                orders.close()
                for descriptor in (held, told, telling):
                    os.close(descriptor)
                return _become(*received, go=go)
            os.write(telling, str(pid).encode())
            os._exit(0)
        for descriptor in (*received, go, telling):
            os.close(descriptor)
        os.waitpid(middle, 0)  # from here on the copy is the supervisor's
        answer = os.read(told, 32)
        os.close(told)
        os.close(held)
        with suppress(OSError):  # nobody waits any more, and the next order never comes
            orders.send(answer)


def _become(given: int, *received: int, go: int) -> list[str]:
    """In a copy: get variables, descriptors and name; wait until the supervisor is our parent."""
    os.read(go, 1)  # its other end closes then
    os.setsid()
    with open(given, "rb") as stream:
        stream.seek(0)
        order: dict[str, Any] = json.load(stream)
    os.environ.clear()
    os.environ.update(order["environment"])
    # Above all that is wanted first: a number may be taken by another one's descriptor.
    targets: list[int] = order["targets"]
    above = max([go, 2, *received, *targets]) + 1
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, above) for descriptor in received]
    for descriptor, target in zip(moved, targets, strict=True):
        os.dup2(descriptor, target, inheritable=False)
    kept = sorted({0, 1, 2, *targets})
    for before, after in zip(kept, [*kept[1:], _highest() + 1], strict=True):
        os.closerange(before + 1, after)
    arguments: list[str] = order["arguments"]
    _be_called([sys.executable, "-m", "fleetca.cli.main", *arguments])
    return arguments


def _highest() -> int:
    return max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())


def _be_called(words: Sequence[str]) -> None:
    """Write the command line over that of the mould, where the kernel looks for it (proc(5): arg_start, arg_end)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = int(fields[45]), int(fields[46])
    line = b"\0".join(os.fsencode(word) for word in words)[: end - begin - 1]
    if begin:
        ctypes.memmove(begin, line.ljust(end - begin, b"\0"), end - begin)


if __name__ == "__main__":
    main()
