"""What all processes of a deployment share: hardening, log lines, readiness, and an orderly end. It knows no PKI."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import json
import logging
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import orjson
import structlog

from ca.system import SystemClock

READY: Final = b"1"
WAITING: Final = b"0"
"""What a process says to who started it: that it answers, and before that, where it has to wait for others, that it has come that far."""
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
# Field names whose values never reach a log line, wherever they come from (P10).
_SECRET: Final = frozenset({"token", "passphrase", "password", "secret", "authorization", "private_key", "payload"})


GARBAGE: Final = 20_000
"""Objects made and not freed by count after which the collector looks for circles; neither a request nor an answer signed ahead leaves any."""


def settle() -> None:
    """What is loaded by now stays: the collector need not look through it again for every few hundred objects. Called when the work begins."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE)


def close_memory() -> None:
    """P3: no core file, and neither /proc/PID/mem nor /proc/PID/environ for others of the same user."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


@dataclass(slots=True)
class Process:
    """One process between its start and its end.

    Args:
        ready_fd: where to say that it is ready, if somebody waits for it.
        socket_fds: the listening sockets it inherits, if it listens.
        supervisor: the process that started it; it does not outlive that.
        after_fd: ends when what it needs of others is there, or when who did its work before has ended.
    """

    ready_fd: int | None = None
    socket_fds: Sequence[int] = ()
    supervisor: int | None = None
    after_fd: int | None = None
    stopping: threading.Event = field(default_factory=threading.Event)
    _at_stop: list[Callable[[], None]] = field(default_factory=list)

    def begin(self) -> None:
        """Harden, and end on SIGTERM and SIGINT. Call it before any secret is read."""
        close_memory()
        if self.supervisor is not None:
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != self.supervisor:
                sys.exit(0)  # it died before we asked to be told
        os.umask(0o077)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def on_stop(self, action: Callable[[], None]) -> None:
        """Call `action` when the process is told to stop; it must not block."""
        self._at_stop.append(action)

    def stop(self) -> None:
        self.stopping.set()
        for action in self._at_stop:
            action()

    def ready(self) -> None:
        """Say that it answers."""
        if self.ready_fd is not None:
            with suppress(OSError):  # who waited has gone
                os.write(self.ready_fd, READY)
                os.close(self.ready_fd)
            self.ready_fd = None
        address = os.environ.get("NOTIFY_SOCKET", "")  # systemd's, for units of Type=notify (sd_notify(3))
        if address:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, suppress(OSError):
                notify.connect(f"\0{address[1:]}" if address.startswith("@") else address)
                notify.send(b"READY=1")

    def ask_for_others_anew(self) -> None:
        """Have the supervisor start all processes anew with the settings that they have: what they read at their start has changed."""
        if self.supervisor is not None:
            with suppress(ProcessLookupError):
                os.kill(self.supervisor, signal.SIGUSR1)

    def wait_for_others(self) -> None:
        """Return when they are there, or when told to stop; at once where nobody said that they are on their way."""
        if self.after_fd is None:
            return
        if self.ready_fd is not None:
            with suppress(OSError):
                os.write(self.ready_fd, WAITING)
        while not self.stopping.is_set() and not select.select([self.after_fd], [], [], 0.1)[0]:
            pass
        os.close(self.after_fd)
        self.after_fd = None

    def inherited(self, *, local: bool = False) -> socket.socket | None:
        """The inherited listening socket; `local`: the one of Unix."""
        for descriptor in self.socket_fds:
            found = socket.socket(fileno=descriptor)
            if (found.family == socket.AF_UNIX) is local:
                return found
            found.detach()
        return None


class _Lines(io.TextIOBase):
    """stderr, for log lines. One that cannot be written (its disk is full, its reader has gone) is lost; the work that it tells of goes on."""

    def write(self, text: str, /) -> int:
        try:
            return sys.stderr.write(text)  # which keeps nothing back after the end of a line
        except OSError:
            return len(text)

    def line(self, text: str) -> None:
        self.write(text + "\n")

    info = warning = error = critical = line
    """structlog names the level."""


_AS_TEXT: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_escaping: Final = json.JSONEncoder(separators=(",", ":"), default=str)


def _json(event: Mapping[str, Any]) -> str:
    """ASCII alone: what a stranger called a thing must not command the terminal that shows it, nor end the line there."""
    with contextlib.suppress(TypeError):  # a number beyond 64 bits, half a surrogate pair
        octets = orjson.dumps(event, default=str, option=_AS_TEXT)
        if octets.isascii():
            return octets.decode()
    return _escaping.encode(event)


def write_log_lines(process: str) -> None:
    """Send log events to stderr, one JSON object a line: `at`, `level`, `process`, `event` and what belongs to it.

    Fields that hold secrets are not shown, whoever logs them. Logging never fails.
    """
    from fleetca.cli.output import iso  # noqa: PLC0415 - only processes write log lines; the command line starts without structlog

    said = lru_cache(maxsize=1)(iso)  # many lines, one second
    clock = SystemClock()

    def line(_: Any, level: str, event: Mapping[str, Any]) -> str:
        # One step and not a chain of them: one line is written for each request.
        whole = {"at": said(clock.now()), "level": level, "process": process, **event}
        for name in _SECRET & whole.keys():
            whole[name] = "(not shown)"
        return _json(whole)

    lines = _Lines()
    structlog.configure(
        processors=[line],
        wrapper_class=structlog.make_filtering_bound_logger(20),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )
    # What libraries and modules say through the standard library's logging becomes the same lines.
    handler = logging.StreamHandler(lines)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.format_exc_info, line]
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
