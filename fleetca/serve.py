"""Starts and watches the processes of a deployment from one settings file.

It holds no key and opens no database: it binds the sockets, so that a restarted process finds its callers waiting and a taken port is
known before anything starts; it starts the processes, starts them again when they die, and drains them on SIGTERM. SIGHUP reads the
settings again and lets each process try them before any is touched: good ones are rolled out process by process, bad ones are refused and
the old stay in force (R36). What has to be alone is loaded beside the one before it and begins when that has ended. Every process gets the
very octets that were accepted, so a file that is being edited cannot half-apply.
When an import brings the certificate of an issuer that the settings await, the processes are started anew in the same way.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from ca.errors import FleetcaError, KeyUnavailable, Misconfigured, StoreUnavailable, Unavailable
from ca.ports import Clock
from ca.system import SystemClock
from config.settings import Settings
from fleetca.crew import Crew, Running
from fleetca.forms import read_settings
from fleetca.launching import Launcher
from fleetca.listening import listening_socket, local_socket
from fleetca.process import READY, WAITING, close_memory

log = structlog.get_logger()

READY_SECONDS = 30.0
DRAIN_SECONDS = 15.0
BACKOFF_SECONDS = 10.0
SETTLE_SECONDS = 0.5
PROXY_SOCKET: Final = "enroll.proxy_socket"

Sockets = Mapping[str, tuple[str, socket.socket]]
"""Setting -> the address it names, and what listens there."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One process: its name, what it runs, and the listening sockets it inherits."""

    name: str
    role: str
    listen: Sequence[str]
    alone: bool
    """True where two of them may not work at once: the new one begins when the old one has ended."""


def plans(settings: Settings) -> list[Plan]:
    """The processes of a deployment, in the order in which they start."""
    proxied = () if settings.enroll.proxy_socket is None else (PROXY_SOCKET,)
    return [
        Plan("signer", "signer", (), alone=True),
        *_workers("enroll", settings.enroll.workers, ("enroll.listen", *proxied)),
        *_workers("status", settings.status.workers, ("status.listen",)),
        Plan("publisher", "publisher", (), alone=True),
        *([] if settings.ocsp.responder_key is None else [Plan("presigner", "presigner", (), alone=True)]),
    ]


def _workers(role: str, count: int, listen: Sequence[str]) -> list[Plan]:
    """Processes that do the same behind the same sockets."""
    return [Plan(f"{role}-{number}" if count > 1 else role, role, listen, alone=False) for number in range(1, count + 1)]


@dataclass(slots=True)
class Child:
    plan: Plan
    process: Running
    settings: Settings
    started: float
    failures: int = 0


class Supervisor:
    """The processes of one deployment.

    Args:
        file: the settings file.
        log_directory: where each process's stderr goes; None keeps it on ours.
        crew: see `Launcher`.
    """

    def __init__(self, file: Path, *, log_directory: Path | None = None, crew: Crew | None = None) -> None:
        self.file = file
        self.clock: Clock = SystemClock()
        self.monotonic: Callable[[], float] = SystemClock().monotonic
        self.log_directory = log_directory
        self.settings = read_settings(file)
        self.launcher = Launcher(file, self.settings, crew=crew)
        self.sockets: Sockets = {}
        self.children: dict[str, Child] = {}
        self.stopping = threading.Event()
        self.reload_wanted = threading.Event()
        self.anew_wanted = threading.Event()
        self._here = _come(self.settings)
        self._came_at: float | None = None

    # ---- starting ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Bind, then start every process and wait until each says it is ready.

        Raises:
            Misconfigured: a port is taken, or a process refused to start (it said why on its stderr).
            KeyUnavailable, StoreUnavailable: it refused for want of a key or of storage.
        """
        self.sockets = self._bound(self.settings)
        signer, *others = plans(self.settings)
        # The others get as far as they can without the signer, and hear by the end of this pipe that it answers.
        after, come = os.pipe()
        waiting: list[tuple[Child, int]] = []
        try:
            self.launcher.prepare(self.settings)
            first = self._spawn(signer)
            waiting = [self._spawn(plan, after=after) for plan in others]
            self._await_ready([first])
            os.close(come)
            come = -1
            started, waiting = waiting, []
            self._await_ready(started)
        except BaseException:
            self.stop()
            raise
        finally:
            for descriptor in (after, come, *(ready for _, ready in waiting)):
                if descriptor >= 0:
                    os.close(descriptor)

    def _bound(self, settings: Settings) -> Sockets:
        """A listening socket for each address; those that we listen on already are taken over. Closes none of ours."""
        wanted = {"enroll.listen": str(settings.enroll.listen), "status.listen": str(settings.status.listen)}
        if settings.enroll.proxy_socket is not None:
            wanted[PROXY_SOCKET] = str(settings.enroll.proxy_socket)
        found: dict[str, tuple[str, socket.socket]] = {}
        try:
            for name, address in wanted.items():
                known = self.sockets.get(name)
                if known and known[0] == address:
                    found[name] = known
                elif name == PROXY_SOCKET:
                    found[name] = address, local_socket(Path(address), setting=name)
                else:
                    found[name] = address, listening_socket(address, setting=name)
        except FleetcaError:
            _close(found, but=self.sockets)
            raise
        return found

    def _spawn(self, plan: Plan, *, after: int | None = None) -> tuple[Child, int]:
        """Start a process; returns it and the descriptor on which it will say that it is ready.

        Args:
            after: ends when it may go on; absent where it may at once.
        """
        ready, ready_write = os.pipe()
        more, passed = ["--ready-fd", str(ready_write)], [ready_write]
        for name in plan.listen:
            passed.append(self.sockets[name][1].fileno())
            more += ["--socket-fd", str(passed[-1])]
        if after is not None:
            passed.append(after)
            more += ["--after-fd", str(after)]
        stderr = None
        if self.log_directory is not None:
            self.log_directory.mkdir(parents=True, exist_ok=True)
            stderr = os.open(self.log_directory / f"{plan.name}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            process = self.launcher.launch(plan.role, self.settings, *more, passed=passed, stderr=stderr)
        finally:
            os.close(ready_write)
            if stderr is not None:
                os.close(stderr)
        child = Child(plan, process, self.settings, self.monotonic())
        previous = self.children.get(plan.name)
        if previous is not None:
            child.failures = previous.failures
        self.children[plan.name] = child
        return child, ready

    def _await_ready(self, started: Sequence[tuple[Child, int]]) -> None:
        """Wait until each answers; closes what they say it on."""
        try:
            self._await(started, READY)
        finally:
            for _, ready in started:
                os.close(ready)

    def _await(self, started: Sequence[tuple[Child, int]], wanted: bytes) -> None:
        """Wait until each has said what is wanted.

        Raises:
            Misconfigured, KeyUnavailable, StoreUnavailable: one ended.
            Unavailable: one takes too long.
        """
        waiting = {ready: child for child, ready in started}
        deadline = self.monotonic() + READY_SECONDS
        while waiting and not self.stopping.is_set():
            readable, _, _ = select.select(list(waiting), [], [], 0.2)
            for ready in readable:
                said = os.read(ready, 1)
                if not said:
                    raise self._not_started(waiting[ready])
                if said in (wanted, READY):
                    del waiting[ready]
            if self.monotonic() > deadline:
                slow = ", ".join(child.plan.name for child in waiting.values())
                raise Unavailable("process-slow", f"Not ready after {READY_SECONDS:.0f} s: {slow}.", fix="fleetca doctor")

    def _relieve(self, old: Child) -> None:
        """Replace a process that has to be alone. The new one gets as far as it can beside it, so that callers wait for the rest of its start only.

        Raises:
            FleetcaError: as `_await`; the old one works on if the new one did not get that far.
        """
        after, gone = os.pipe()
        try:
            child, ready = self._spawn(old.plan, after=after)
            try:
                self._await([(child, ready)], WAITING)
                self._drain([old])
                os.close(gone)
                gone = -1
                self._await([(child, ready)], READY)
            finally:
                os.close(ready)
        finally:
            os.close(after)
            if gone >= 0:
                os.close(gone)

    def _not_started(self, child: Child) -> FleetcaError:
        try:
            status = child.process.wait(DRAIN_SECONDS)
        except subprocess.TimeoutExpired:
            status = -1
        what, why = f"The {child.plan.name} process did not start.", f"Its reason stands {self._where(child)}."
        fix = f"fleetca doctor --settings {self.file}"
        # Its exit code is what the command line makes of these classes: ours ends with the same one.
        if status == 6:
            return KeyUnavailable("process-failed", what, why=why, fix=fix)
        if status == 7:
            return StoreUnavailable("process-failed", what, why=why, fix=fix)
        return Misconfigured("process-failed", what, why=why, fix=fix)

    def _where(self, child: Child) -> str:
        if self.log_directory is None:
            return "above"
        lines = (self.log_directory / f"{child.plan.name}.log").read_text(errors="replace").strip().splitlines()
        return f"in {self.log_directory / child.plan.name}.log: {' '.join(lines[-3:])}"

    # ---- watching ----------------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Restart what dies, reload on demand, until `stopping` is set; then drain."""
        try:
            while not self.stopping.wait(0.2):
                if self.reload_wanted.is_set():
                    self.reload_wanted.clear()
                    self.reload()
                if self._something_came() or self.anew_wanted.is_set():
                    self.anew_wanted.clear()
                    self._anew()
                self._revive()
        finally:
            self.stop()

    def _revive(self) -> None:
        for child in list(self.children.values()):
            status = child.process.poll()
            if status is None:
                if child.failures and self.monotonic() - child.started > 60:
                    child.failures = 0
                continue
            pause = min(BACKOFF_SECONDS, 0.2 * 2**child.failures) if child.failures else 0.0
            if self.monotonic() - child.started < pause:
                continue
            child.failures += 1
            log.warning("process-died", name=child.plan.name, status=status, restart=child.failures)
            _, ready = self._spawn(child.plan)
            os.close(ready)

    def reload(self) -> None:
        """Read the settings again; roll them out, or refuse them and change nothing (R36).

        What can be known beforehand is found out before anything is touched. What only shows later (a database that lets nobody in) brings the
        old settings back.
        """
        try:
            settings = read_settings(self.file)
            self.launcher.renew(self.settings, settings)
            self._try(settings)
            sockets = self._bound(settings)
        except FleetcaError as error:
            log.error("settings-refused", code=error.code, reason=str(error), fix=error.fix)
            return
        before, before_sockets = self.settings, self.sockets
        self.settings, self.sockets = settings, sockets
        if self._roll_out():
            # Only now: a socket that somebody still has open cannot be bound again.
            _close(before_sockets, but=sockets)
            self._here = _come(settings)
            log.info("settings-reloaded", file=str(self.file))
        elif not self.stopping.is_set():
            self.settings, self.sockets = before, before_sockets
            self._roll_out(unless=before)
            _close(sockets, but=before_sockets)
            log.error("settings-taken-back", file=str(self.file))

    def _something_came(self) -> bool:
        """Whether a certificate that was awaited is in its place, and no other came since the look before: an import brings several."""
        here = _come(self.settings)
        if here != self._here:
            self._here, self._came_at = here, self.monotonic()
        if self._came_at is None or self.monotonic() - self._came_at < SETTLE_SECONDS:
            return False
        self._came_at = None
        return True

    def _anew(self) -> None:
        """Start every process anew with the settings in force: an issuer came, or one retired. The settings file is not read."""
        try:
            self._try(self.settings)
        except FleetcaError as error:
            log.error("not-started-anew", code=error.code, reason=str(error), fix=error.fix)
            return
        if self._roll_out():
            log.info("started-anew", issuers=sorted(issuer.id for issuer in self.settings.issuers if not issuer.to_come))

    def _try(self, settings: Settings) -> None:
        """Let each process read all that it would read, and stop there.

        Raises:
            Misconfigured: one of them would not start; says why in its words.
        """
        trials: list[tuple[str, Running, int]] = []
        for role in dict.fromkeys(plan.role for plan in plans(settings)):
            said, says = os.pipe()
            try:
                trials.append((role, self.launcher.launch(role, settings, "--trial", stderr=says), said))
            finally:
                os.close(says)
        reasons = []
        for role, trial, said in trials:
            words = self._heard(trial, said)
            if trial.wait() != 0:
                reasons.append(f"{role}: {' '.join(words.decode(errors='replace').split())}")
        if reasons:
            raise Misconfigured(
                "settings-refused",
                "The new settings cannot be used.",
                why=" ".join(reasons),
                fix="Mend what it names and send SIGHUP again; until then the old settings stay in force.",
            )

    def _heard(self, process: Running, said: int) -> bytes:
        """All that a process writes until it ends; it is ended when that takes too long."""
        words, deadline = b"", self.monotonic() + READY_SECONDS
        with open(said, "rb", buffering=0) as stream:
            while True:
                if not select.select([stream], [], [], max(0.0, deadline - self.monotonic()))[0]:
                    process.kill()
                    return words
                part = stream.read(65536)
                if not part:
                    return words
                words += part

    def _roll_out(self, *, unless: Settings | None = None) -> bool:
        """Replace each process by one with the settings of now; False, with the rest as it was, when one does not start.

        Args:
            unless: processes that run with these stay.
        """
        wanted = plans(self.settings)
        for plan in wanted:
            old = self.children.get(plan.name)
            if old is not None and old.settings is unless and old.process.poll() is None:
                continue
            try:
                if plan.alone and old is not None:
                    self._relieve(old)
                else:
                    self._await_ready([self._spawn(plan)])
            except FleetcaError as error:
                log.error("process-failed", name=plan.name, reason=str(error))
                self._drain([self.children[plan.name]])
                if old is not None and old.process.poll() is None:
                    self.children[plan.name] = old
                return False
            if old is not None and not plan.alone:
                self._drain([old])
        for name in set(self.children) - {plan.name for plan in wanted}:
            self._drain([self.children.pop(name)])
        return True

    # ---- stopping ----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Drain all processes: what faces callers first, the signer last."""
        self.stopping.set()
        children = list(self.children.values())
        self._drain([child for child in children if child.plan.role != "signer"])
        self._drain([child for child in children if child.plan.role == "signer"])
        self.children.clear()
        self.launcher.close()
        _close(self.sockets, but={})
        self.sockets = {}

    def _drain(self, children: Sequence[Child]) -> None:
        for child in children:
            if child.process.poll() is None:
                child.process.send_signal(signal.SIGTERM)
        deadline = self.monotonic() + DRAIN_SECONDS
        for child in children:
            try:
                child.process.wait(max(0.1, deadline - self.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("process-killed", name=child.plan.name, after=DRAIN_SECONDS)
                child.process.kill()
                child.process.wait()


def _come(settings: Settings) -> frozenset[str]:
    """The successors whose certificates are in place."""
    return frozenset(issuer.id for issuer in settings.issuers if issuer.succeeds is not None and not issuer.to_come)


def _close(sockets: Sockets, *, but: Sockets) -> None:
    kept = {listener for _, listener in but.values()}
    for _, listener in sockets.values():
        if listener not in kept:
            listener.close()


def serve(file: Path, *, ready: Callable[[Supervisor], None], log_directory: Path | None = None, crew: Crew | None = None) -> None:
    """Run a deployment until SIGTERM or SIGINT. `ready` is called once when everything answers. For `crew` see `Launcher`."""
    close_memory()  # it holds no key, but its environment may hold what unlocks one
    supervisor = Supervisor(file, log_directory=log_directory, crew=crew)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stopping.set())
    signal.signal(signal.SIGHUP, lambda *_: supervisor.reload_wanted.set())
    signal.signal(signal.SIGUSR1, lambda *_: supervisor.anew_wanted.set())
    supervisor.start()
    if not supervisor.stopping.is_set():
        ready(supervisor)
    supervisor.watch()
