"""`fleetca agent` against a real TLS server: the whole life of an identity, and everything that may come between."""

from __future__ import annotations

import base64
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ca.errors import Broken, Conflict, Denied, FleetcaError, NotFound, StoreUnavailable, Unavailable
from ca.model import ProfileName, Reason, RevokeRequest, UnixTime
from ca.rules.renewal_window import Plan, Replacement
from ca.system import SystemChance, SystemClock
from fleetca.agent import asking, hooks, work
from fleetca.agent.glance import nothing_due
from fleetca.agent.identity import Identity, Setup
from fleetca.agent.pairs import read_pair
from fleetca.agent.renewing import Hand
from fleetca.agent.work import Agent
from tests.fakes.site import Site
from tests.parts import refuse

NAMES = iter(f"dev-{number}" for number in range(10_000))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _as_it_was(site: Site) -> Iterator[None]:
    profiles: Any = site.rest.door.policy.profiles
    kept = dict(profiles)
    yield
    profiles.clear()
    profiles.update(kept)
    site.rest.plan = Plan()
    site.rest.door.troubles.clear()
    site.rest.clock.at = SystemClock().now()


class Later:
    """A clock that a test sets. TLS goes by the kernel's, so whose certificates are of another time speaks by messages."""

    def __init__(self, by: int = 0) -> None:
        self.by = by

    def now(self) -> UnixTime:
        return SystemClock().now() + self.by


class Device:
    """An identity folder and its agent, in this process or as a command."""

    def __init__(self, site: Site, folder: Path, *, profile: str = "device", **setup: Any) -> None:
        self.site, self.name, self.profile = site, next(NAMES), profile
        self.identity = Identity(folder / self.name, SystemChance())
        self.clock = Later()
        self.setup = Setup(**{"url": site.service.url, "plain": True, **setup})
        self.token = folder / f"{self.name}.token"
        self.token.write_text(site.rest.door.token(self.name, profile))

    def set_up(self) -> None:
        self.identity.set_up(self.setup, trust=self.site.service.root.read_bytes())

    def agent(self) -> Agent:
        return Agent(Identity(self.identity.folder, SystemChance()), Hand(self.clock, SystemChance()), version="test/1")

    def enrolled(self) -> Device:
        self.set_up()
        assert self.agent().enrol(self.token.read_text()).did == "enrolled"
        return self

    @property
    def serial(self) -> int:
        return read_pair(self.identity.slots)[0].serial

    def rows(self) -> list[Any]:
        return self.site.issued(self.name)

    def command(self, *arguments: str | Path, ok: int = 0, **environment: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "fleetca.cli.main", "agent", *map(str, arguments), "--dir", str(self.identity.folder), "--json"],
            capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **environment},
        )  # fmt: skip
        assert done.returncode == ok, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout) if done.stdout else None

    def enrol_command(self, *more: str | Path, ok: int = 0, **environment: str) -> Any:
        given = ("--url", self.site.service.url, "--root", self.site.service.root, "--token-file", self.token, *more)
        return self.command("enrol", *given, ok=ok, **environment)


# ---- The whole life -------------------------------------------------------------------------------------------------


def test_an_identity_is_made_kept_and_removed_by_commands(site: Site, tmp_path: Path) -> None:
    device = Device(site, tmp_path)
    told = tmp_path / "told"
    program = tmp_path / "hook"
    program.write_text(f'#!/bin/sh\necho "${{FLEETCA_DRY_RUN:-real}} $FLEETCA_CERTIFICATE" >> {told}\n')
    program.chmod(0o755)
    made = device.enrol_command("--reload", f"run:{program}")
    assert made["device"] == device.name
    assert Path(made["key"]).stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED" in Path(made["key"]).read_bytes(), "sealed unless the profile allows otherwise (P10)"
    assert device.command("status")["state"] == "fine"
    assert device.command("run", "--once")["did"] == "nothing"
    assert device.command("renew", "--dry-run")["serial"] == made["serial"]
    renewed = device.command("renew")
    assert renewed["serial"] != made["serial"]
    shown = device.command("status")
    assert (shown["serial"], shown["last"]["outcome"], shown["last"]["told"]) == (renewed["serial"], "renewed", True)
    said = told.read_text().split()
    assert said[::2] == ["real", "1", "real"], "a dry run runs the hooks too, and says so"
    device.command("wipe", ok=2)
    device.command("wipe", "--revoke", "--confirm", device.name)
    assert not device.identity.folder.exists()
    assert device.rows()[-1].revocation is not None
    device.command("status", ok=3)


def test_P10_a_plain_key_is_refused_where_its_profile_does_not_allow_it(site: Site, tmp_path: Path) -> None:
    device = Device(site, tmp_path)
    refused = device.enrol_command("--key", "plain", ok=5)
    assert refused["error"]["code"] == "plain-key-refused"
    assert not list(device.identity.folder.rglob("key.pem"))


def test_a_second_enrolment_needs_no_token_and_changes_nothing(site: Site, tmp_path: Path) -> None:
    device = Device(site, tmp_path).enrolled()
    serial = device.serial
    assert device.agent().enrol(None).did == "nothing"
    assert device.serial == serial


def test_an_identity_is_not_set_up_twice_in_different_ways(site: Site, tmp_path: Path) -> None:
    device = Device(site, tmp_path).enrolled()
    device.setup = replace(device.setup, algorithm="ed25519")
    with pytest.raises(Conflict) as caught:
        Identity(device.identity.folder, SystemChance()).set_up(device.setup, trust=b"")
    assert caught.value.code == "identity-differs"


def test_wrong_words_are_corrected_by_saying_them_right_until_the_identity_has_enrolled(site: Site, tmp_path: Path) -> None:
    device = Device(site, tmp_path)
    port = site.service.url.rpartition(":")[2]
    token = ("--token-file", device.token)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        wrong = f"https://localhost:{nobody.getsockname()[1]}"
        device.command("enrol", "--url", wrong, "--root", site.service.root, *token, ok=1)
        key = (device.identity.folder / "pairs/1/key.pem").read_bytes()
        assert device.command("run", "--once", ok=3)["error"]["code"] == "not-enrolled"
        assert device.command("renew", "--dry-run", ok=3)["error"]["code"] == "not-enrolled"
    device.enrol_command()
    assert port in (device.identity.folder / "agent.toml").read_text()
    assert (device.identity.folder / "current/key.pem").read_bytes() == key, "what was under way goes on"
    other = Device(site, tmp_path)
    device.command("enrol", "--url", wrong, "--root", site.service.root, "--token-file", other.token)
    assert port in (device.identity.folder / "agent.toml").read_text(), "one that has enrolled is as it was set up"


def test_another_kind_of_key_is_another_key_and_an_unknown_one_is_said_to_be(site: Site, tmp_path: Path) -> None:
    device = Device(site, tmp_path)
    refused = device.enrol_command("--algorithm", "rsa-1024", ok=2)
    assert refused["error"]["code"] == "unknown-algorithm"
    assert not device.identity.folder.exists()
    device.enrol_command("--algorithm", "p384", ok=-9, FLEETCA_FAILPOINT="agent.after-request=kill")
    device.enrol_command("--algorithm", "p256")
    assert read_pair(device.identity.slots)[1].algorithm == "p256"


@pytest.mark.parametrize("algorithm", ["p256", "ed25519", "ml-dsa-44"])
def test_every_kind_of_key_is_kept_and_reports(site: Site, tmp_path: Path, algorithm: str) -> None:
    device = Device(site, tmp_path, algorithm=algorithm).enrolled()
    assert device.agent().wake(force=True).did == "renewed"
    heard = site.rest.heard[device.name]
    assert (heard.outcome, heard.agent) == ("renewed", "test/1")
    assert device.identity.recall().told


# ---- When -----------------------------------------------------------------------------------------------------------


def test_nothing_is_done_before_its_window_and_the_renewal_within_it(site: Site, tmp_path: Path) -> None:
    device = Device(site, tmp_path, by="message").enrolled()
    memory = device.identity.recall()
    assert memory.start is not None
    day = 86400
    assert 4.6 * day < memory.start - SystemClock().now() < 6 * day
    assert device.agent().wake().did == "nothing"
    device.clock.by = memory.start - SystemClock().now() + 1
    site.rest.clock.at = device.clock.now()
    # The server's own certificate has not ended yet; its TLS runs by the real clock.
    assert device.agent().wake().did == "renewed"


def test_an_emergency_is_heard_of_when_the_window_is_asked_for_again(site: Site, tmp_path: Path) -> None:
    device = Device(site, tmp_path, by="message").enrolled()
    site.rest.plan = Plan(replacements=(Replacement(since=SystemClock().now() + 10, within=0, reason="a key was lost"),))
    assert device.agent().wake().did == "nothing", "it has asked already"
    device.clock.by = 6 * 3600
    site.rest.clock.at = device.clock.now()
    assert device.agent().wake().did == "renewed"


def test_a_revoked_certificate_is_told_to_and_refused_with_the_code_shown_to_operators(site: Site, tmp_path: Path) -> None:
    device = Device(site, tmp_path).enrolled()
    site.rest.door.revoke(RevokeRequest(site.rest.door.local(), Reason.keyCompromise, target=device.rows()[0].ref))
    device.clock.by = 6 * 3600
    site.rest.clock.at = device.clock.now()
    done = device.agent().wake()
    assert isinstance(done.error, Denied)
    assert device.identity.recall().code == "certificate-revoked"


def test_a_device_in_quarantine_does_not_renew_and_does_again_when_it_is_released(site: Site, tmp_path: Path) -> None:
    device = Device(site, tmp_path).enrolled()
    door = site.rest.door
    door.revoke(RevokeRequest(door.local(), Reason.certificateHold, target=device.rows()[0].ref))
    assert isinstance(device.agent().wake(force=True).error, Denied)
    door.revoke(RevokeRequest(door.local(), Reason.removeFromCRL, target=device.rows()[0].ref))
    assert device.agent().wake(force=True).did == "renewed"
    assert len(device.rows()) == 2


def test_a_device_that_slept_renews_after_its_end_where_the_profile_allows_and_only_so_long(site: Site, tmp_path: Path) -> None:
    device = Device(site, tmp_path, by="message").enrolled()
    profiles: Any = site.rest.door.policy.profiles
    week = 7 * 86400
    device.clock.by = week + 3600
    site.rest.clock.at = device.clock.now()
    assert device.agent().wake().error is not None
    name = ProfileName("device")
    profiles[name] = replace(profiles[name], renew_after_expiry=86400)
    device.clock.by = week + 90_000
    site.rest.clock.at = device.clock.now()
    assert isinstance(device.agent().wake(force=True).error, Denied), "the grace is over"
    device.clock.by = week + 80_000
    site.rest.clock.at = device.clock.now()
    assert device.agent().wake(force=True).did == "renewed"
    assert len(device.rows()) == 2


# ---- What comes between ---------------------------------------------------------------------------------------------

STEPS = (
    "agent.after-key",
    "agent.after-request",
    "agent.after-answer",
    "agent.before-swap",
    "agent.after-swap",
    "agent.after-hook",
    "agent.after-confirm",
    "agent.after-settle",
    "agent.after-state",
)
AGAIN = {"agent.after-key": ("renew",)}
"""Where nothing had been asked yet, nothing is under way: it is not due, and was wanted by hand."""


@pytest.mark.parametrize("step", [step for step in STEPS if step not in {"agent.after-hook", "agent.after-confirm", "agent.after-settle"}])
def test_a_kill_while_enrolling_costs_neither_token_nor_certificate(site: Site, tmp_path: Path, step: str) -> None:
    device = Device(site, tmp_path)
    device.enrol_command(ok=-9, FLEETCA_FAILPOINT=f"{step}=kill")
    done = device.command("enrol", *([] if step != "agent.after-key" else ["--token-file", device.token]))
    assert int(done["serial"], 16) == device.serial
    assert len(device.rows()) == 1
    assert sorted(path.name for path in device.identity.folder.iterdir() if path.name.startswith(".")) in ([".reserve"], [])


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_while_renewing_leaves_a_pair_that_works_and_the_next_run_goes_on(site: Site, tmp_path: Path, step: str) -> None:
    device = Device(site, tmp_path).enrolled()
    before = device.serial
    device.command("renew", ok=-9, FLEETCA_FAILPOINT=f"{step}=kill")
    facts, _ = read_pair(device.identity.slots)  # whatever happened, what services read is a pair
    assert facts.serial in {row.ref.serial for row in device.rows()}
    device.command(*AGAIN.get(step, ("run", "--once")))
    assert device.serial != before
    assert len(device.rows()) == 2, "no second certificate for one renewal" if step != "agent.after-key" else "the key was not asked for"
    assert [slot.name for slot in device.identity.slots.pairs.iterdir()] == ["2"], "the old pair went when the new one had worked"
    assert device.rows()[-1].first_used_at is not None
    assert device.identity.slots.reloaded


@pytest.mark.parametrize("step", ["agent.after-key", "agent.after-answer", "agent.before-swap"])
def test_a_disk_that_is_full_leaves_the_old_pair_and_the_next_run_renews(site: Site, tmp_path: Path, step: str) -> None:
    device = Device(site, tmp_path).enrolled()
    before = device.serial
    device.command("renew", ok=1, FLEETCA_FAILPOINT=f"{step}=enospc")
    assert device.serial == before
    device.command(*AGAIN.get(step, ("run", "--once")))
    assert device.serial != before


def test_a_disk_that_somebody_else_filled_gives_up_what_was_kept_for_this(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(site, tmp_path).enrolled()
    from fleetca.agent import pairs

    real, reserve = pairs.put_new, device.identity.folder / work.RESERVE

    def full(path: Path, octets: bytes, **more: Any) -> None:
        if reserve.exists():
            raise StoreUnavailable("disk-full", f"{path} cannot be written.")
        real(path, octets, **more)

    monkeypatch.setattr(pairs, "put_new", full)
    assert device.agent().wake(force=True).did == "renewed"


def test_a_service_that_is_away_for_days_finds_the_device_waiting_and_never_hears_it_hammer(site: Site, tmp_path: Path) -> None:
    device = Device(site, tmp_path, by="message").enrolled()
    start = device.identity.recall().start
    assert start is not None
    url = device.setup.url
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        settings = device.identity.folder / "agent.toml"
        settings.write_text(settings.read_text().replace(url, f"https://127.0.0.1:{nobody.getsockname()[1]}"))
        tries, end = 0, read_pair(device.identity.slots)[0].not_after
        device.clock.by = start - SystemClock().now() + 1
        while device.clock.now() < end - 3600:
            done = device.agent().wake()
            assert isinstance(done.error, Unavailable)
            assert done.next_at > device.clock.now()
            device.clock.by += done.next_at - device.clock.now()
            tries += 1
    assert 10 < tries < 200
    assert device.identity.recall().failures == tries
    settings.write_text(settings.read_text().replace(settings.read_text().split('"')[1], url))
    site.rest.clock.at = device.clock.now()
    assert device.agent().wake().did == "renewed"
    assert device.identity.recall().failures == 0


@pytest.mark.parametrize("by", [pytest.param(-20 * 365 * 86400, id="it says 2006"), pytest.param(5 * 365 * 86400, id="it says 2031")])
def test_a_wrong_clock_is_told_the_time_by_the_service(site: Site, tmp_path: Path, by: int, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(site, tmp_path).enrolled()
    device.clock.by = by
    # OpenSSL asks the kernel's clock, which no test can set: what it would say is said here.
    from fleetca import client

    real = client.Client._exchange

    def exchange(self: Any, *arguments: Any) -> bytes:
        if not self._connection._context.verify_flags & 0x200000:
            raise Denied("service-out-of-time", "By this host's clock the certificate does not hold.")
        return real(self, *arguments)

    monkeypatch.setattr(client.Client, "_exchange", exchange)
    before = device.serial
    done = device.agent().wake(force=True)
    assert done.did == "renewed", done.error
    assert device.serial != before


def test_a_time_before_our_own_certificate_began_is_not_believed(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fleetca import client
    from fleetca.agent.time import service_time

    monkeypatch.setattr(client, "_date", lambda _: 1_000_000_000)
    with pytest.raises(Denied) as caught:
        service_time(site.service, floor=SystemClock().now())
    assert caught.value.code == "clock-unknown"


def test_one_process_at_a_time_works_on_an_identity(site: Site, tmp_path: Path) -> None:
    device = Device(site, tmp_path).enrolled()
    with device.identity.locked():
        assert device.command("renew", ok=4)["error"]["code"] == "identity-busy"


def test_state_that_cannot_be_read_costs_a_question_and_no_certificate(site: Site, tmp_path: Path) -> None:
    device = Device(site, tmp_path).enrolled()
    for broken in (b"", b"\xff", b"[]", b'{"start": "soon", "failures": true, "more": 1}'):
        (device.identity.folder / "state.json").write_bytes(broken)
        assert device.agent().wake().did == "nothing"
    assert len(device.rows()) == 1


def test_a_timer_learns_at_a_glance_that_nothing_is_due_and_looks_closer_when_in_doubt(site: Site, tmp_path: Path) -> None:
    device = Device(site, tmp_path).enrolled()
    folder, now = device.identity.folder, SystemClock().now()
    later = nothing_due(folder, now=now)
    assert later == device.agent().next_at()
    assert nothing_due(folder, now=later) is None
    assert nothing_due(folder, now=now - 3600) is None, "a clock that went back is looked into"
    (folder / "pairs/2").mkdir()
    assert nothing_due(folder, now=now) is None, "something is under way"
    (folder / "pairs/2").rmdir()
    (folder / "pairs/1/reloaded").unlink()
    assert nothing_due(folder, now=now) is None, "somebody was not told"
    (folder / "pairs/1/reloaded").touch()
    assert nothing_due(folder, now=now) == later
    for broken in (b"", b"[]", b"{}", b'{"slot": "1", "saved_at": true, "next_at": 9e99}'):
        (folder / "state.json").write_bytes(broken)
        assert nothing_due(folder, now=now) is None


# ---- Hooks ----------------------------------------------------------------------------------------------------------


def test_a_hook_that_fails_is_tried_again_and_the_old_pair_stays_until_it_succeeds(site: Site, tmp_path: Path) -> None:
    program = tmp_path / "hook"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    device = Device(site, tmp_path, reload=(f"run:{program}",)).enrolled()
    program.write_text("#!/bin/sh\necho no such service >&2\nexit 3\n")
    done = device.agent().wake(force=True)
    assert done.error is not None
    assert done.error.code == "hook-failed"
    assert "no such service" in done.error.why
    assert len(device.identity.slots.others()) == 1
    assert device.rows()[-1].first_used_at is not None, "the service has seen the new pair work all the same"
    assert site.rest.heard[device.name].code == "hook-failed"
    program.write_text("#!/bin/sh\n")
    device.clock.by = device.identity.recall().try_at - SystemClock().now() + 1
    assert device.agent().wake().did == "finished"
    assert device.identity.slots.settled
    assert len(device.rows()) == 2


def test_mosquitto_is_told_by_its_process_id(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "import signal, sys; signal.signal(1, lambda *_: sys.exit(7)); print(flush=True); signal.pause()"],
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.readline()
    (tmp_path / "pid").write_text(f"{child.pid}\n")
    hooks.run_all([f"mosquitto:{tmp_path / 'pid'}"], certificate=tmp_path, key=tmp_path)
    assert child.wait(60) == 7
    child.stdout.close()
    with pytest.raises(Unavailable):
        hooks.run_all([f"mosquitto:{tmp_path / 'none'}"], certificate=tmp_path, key=tmp_path)


@pytest.mark.parametrize("hook", ["", "nginxx", "mosquitto", "systemd:", "run:", "rm -rf /"])
def test_what_is_no_hook_is_said_to_be_none(hook: str) -> None:
    with pytest.raises(FleetcaError) as caught:
        hooks.check([hook])
    assert caught.value.code == "bad-hook"


# ---- Ways to the service --------------------------------------------------------------------------------------------


def pump(near: socket.socket, far: socket.socket) -> None:
    """Carry octets both ways until either side ends."""
    with near, far:
        while True:
            for one in select.select([near, far], [], [], 30)[0]:
                octets = one.recv(65536)
                if not octets:
                    return
                (far if one is near else near).sendall(octets)


class Tunnel:
    """A proxy that tunnels (CONNECT) to wherever it is told, for those who know its password."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://fleet:pass%20word@127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._tunnel, args=(near,), daemon=True).start()

    def _tunnel(self, near: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += near.recv(4096)
        lines = head.decode().split("\r\n")
        self.asked.append(lines[0])
        if f"Proxy-Authorization: Basic {base64.b64encode(b'fleet:pass word').decode()}" not in lines:
            near.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            near.close()
            return
        host, _, port = lines[0].split()[1].rpartition(":")
        far = socket.create_connection((host.strip("[]"), int(port)))
        near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        pump(near, far)

    def close(self) -> None:
        self._listener.close()


def test_the_service_is_reached_through_a_proxy_and_TLS_is_spoken_with_the_service_itself(site: Site, tmp_path: Path) -> None:
    tunnel = Tunnel()
    device = Device(site, tmp_path, proxy=tunnel.url).enrolled()
    assert device.agent().wake(force=True).did == "renewed"
    assert len(tunnel.asked) >= 3
    tunnel.close()


def test_the_service_is_reached_over_IPv6(site: Site, tmp_path: Path) -> None:
    port = site.service.url.rpartition(":")[2]
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        refuse("this machine has no IPv6")
    far = ("127.0.0.1", int(port))

    def serve() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=pump, args=(near, socket.create_connection(far)), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    device = Device(site, tmp_path, url=f"https://[::1]:{listener.getsockname()[1]}").enrolled()
    assert device.agent().wake(force=True).did == "renewed"
    listener.close()


def test_nobody_who_is_not_an_operator_sees_the_fleet(site: Site, tmp_path: Path) -> None:
    device = Device(site, tmp_path).enrolled()
    own = read_pair(device.identity.slots)[0].der
    assert site.rest.get("/fleet", certificate=own).status_code == 403
    assert site.rest.get("/fleet").status_code == 403


def test_operators_see_who_is_late_who_fails_and_who_is_dark(site: Site, tmp_path: Path) -> None:
    operator = site.rest.operator("olga")
    device = Device(site, tmp_path).enrolled()
    site.rest.door.troubles["signer"] = Unavailable("signer-down", "The signer does not answer.", retry_after=30)
    assert device.agent().wake(force=True).error is not None
    site.rest.door.troubles.clear()

    def seen(health: str | None = None) -> dict[str, Any]:
        answer = site.rest.get("/fleet?limit=500" + (f"&health={health}" if health else ""), certificate=operator.certificate)
        assert answer.status_code == 200, answer.text
        return {one["device"]: one for one in answer.json["devices"]}

    assert seen()[device.name]["health"] == "failing"
    assert seen("failing")[device.name]["code"] == "signer-down"
    site.rest.clock.at += 6 * 86400 + 72_000
    assert seen("late")[device.name]["health"] == "late"
    site.rest.clock.at += 86400
    assert seen("dark")[device.name]["health"] == "dark"
    assert device.name not in seen("late")


def test_a_message_of_another_key_reports_nothing(site: Site, tmp_path: Path) -> None:
    from ca.rules.message import Act
    from tests.fakes.rest import Holder

    device = Device(site, tmp_path).enrolled()
    forger = Holder()
    forger.certificate = read_pair(device.identity.slots)[0].der
    body = {"message": forger.message(Act.report, at=site.rest.clock.now(), report={"outcome": "renewed"})}
    assert site.rest.post("/report", body).status_code == 403


def test_an_answer_that_makes_no_sense_is_told_apart(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(site, tmp_path).enrolled()
    from fleetca import client

    monkeypatch.setattr(client.Client, "get", lambda *_, **__: b'{"start": 1}')
    with pytest.raises(Broken):
        asking.window(site.service, read_pair(device.identity.slots)[0])


def test_a_folder_without_an_identity_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="holds no identity"):
        _ = Identity(tmp_path, SystemChance()).setup


def test_the_agent_brings_nothing_heavy_with_it() -> None:
    code = (
        "import sys, fleetca.cli.agent, fleetca.agent.work\n"
        "heavy = {'flask', 'sqlalchemy', 'numpy', 'apscheduler', 'uvicorn', 'pydantic', 'structlog', 'ca.store', 'ca.signer', 'config'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_command_for_operators_names_who_fails_and_ends_with_8(site: Site, tmp_path: Path) -> None:
    device = Device(site, tmp_path).enrolled()
    operator = site.device("oscar", operator=True)
    site.rest.door.troubles["signer"] = Unavailable("signer-down", "The signer does not answer.")
    assert device.agent().wake(force=True).error is not None
    site.rest.door.troubles.clear()
    command = ["devices", "health", "--certificate", operator.certificate, "--key", operator.key, "--url", site.service.url]

    def asked(*more: str) -> tuple[int, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "fleetca.cli.main", *map(str, command), "--root", str(site.service.root), "--json", *more],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout)["devices"]

    code, found = asked()
    assert code == 8
    assert {one["device"]: one["code"] for one in found}[device.name] == "signer-down"
    assert device.name not in {one["device"] for one in asked("--health", "dark")[1]}
