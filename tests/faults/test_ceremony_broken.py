"""Ceremonies that are broken from outside: killed with 9 at each step, on a disk that is really full, gone on with on another machine."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ca.der import pem
from ca.rules import transcript
from fleetca import ceremonies
from tests import softhsm
from tests.fakes.ceremony import csr
from tests.parts import need, refuse

PASSPHRASE = "correct horse battery staple"
PEOPLE = (("administrator", "Alex"), ("witness", "Wanda"))
# scrypt is dear on purpose, and its price is not what is tried here.
COMMAND = (sys.executable, "-c", "import ca.keys.sealed_file as s; s._N = 256; from fleetca.cli.main import main; main()", "ceremony")
CONFLICT = 4
_NO_MOUNT = 99
_NEEDED = ("ld.so.cache", "ld.so.conf", "passwd", "group", "nsswitch.conf", "localtime")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A sheet with two people, a root, an issuing CA and a CRL."""
    folder = tmp_path_factory.mktemp("broken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ca.keys.sealed_file._N", 1 << 8)
        roles, places = "", ""
        for role, person in PEOPLE:
            name = person.lower()
            digest = ceremonies.make_role_key(name, folder, PASSPHRASE.encode).hex()
            roles += f'[[roles]]\nrole = "{role}"\nperson = "{person}"\nkey_sha256 = "{digest}"\n'
            places += f'[people.{person}]\nkey = "sealed:{name}.key"\npassphrase = "file:pass"\n'
        (folder / "pass").write_text(PASSPHRASE)
        (folder / "pass").chmod(0o600)
        (folder / "issuing.csr").write_text(pem.pem(pem.REQUEST, csr()))
        (folder / "credentials").write_text(places)
        (folder / "sheet.toml").write_text(f"""
[ceremony]
name = "sheet"
allow_network = "a trial"
confirm = ["witness"]
{roles}
[[acts]]
act = "root"
id = "root"
algorithm = "p256"
subject = {{ common_name = "Root" }}
not_after = "20y"
[[acts]]
act = "intermediate"
id = "issuing"
issuer = "root"
csr = "issuing.csr"
subject = {{ common_name = "Issuing" }}
not_after = "5y"
crl_url = "http://pki.example/crl/root.crl"
issuer_url = "http://pki.example/ca/root.cer"
[[acts]]
act = "root-crl"
id = "root-crl"
issuer = "root"
next_update = "90d"
""")
        yield folder


def command(desk: Path, out: Path, credentials: str = "credentials") -> list[str]:
    options = ("--out", out, "--credentials", desk / credentials, "--passphrase-file", desk / "pass", "--yes", "--json")
    return [str(each) for each in (*COMMAND, "run", desk / "sheet.toml", *options)]


def run(
    desk: Path, out: Path, *, env: Mapping[str, str] | None = None, credentials: str = "credentials"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(desk, out, credentials), env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False)


def lines(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / transcript.FILE).read_bytes().splitlines()]


def one_for_each_act(out: Path) -> None:
    """What matters after any breakage: three acts, three octet strings, one key, and everything verifies."""
    said = lines(out)
    asked = {(line["act"], line["tbs_sha256"]) for line in said if line["kind"] in {"drafted", "signing"}}
    assert sorted(str(act) for act, _ in asked) == ["issuing", "root", "root-crl"]
    assert len([line for line in said if line["kind"] == "key"]) == 1
    assert ceremonies.verify(out).name == "sheet"


def killed_at(desk: Path, out: Path, step: int, *, credentials: str = "credentials", env: Mapping[str, str] | None = None) -> bool:
    """Whether there was such a step: killed there, and gone on with to the end."""
    done = run(desk, out, env={**(env or {}), "FLEETCA_FAILPOINT": f"{step}=kill"}, credentials=credentials)
    if done.returncode == 0:
        return False
    assert done.returncode == -signal.SIGKILL, done.stderr
    before = (out / transcript.FILE).read_bytes()
    again = run(desk, out, env=env, credentials=credentials)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["resumed"] is True
    assert (out / transcript.FILE).read_bytes().startswith(before[: before.rindex(b"\n") + 1])
    one_for_each_act(out)
    return True


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_R32_killed_with_9_at_every_step_there_is(desk: Path, tmp_path: Path) -> None:
    steps = 0
    while killed_at(desk, tmp_path / str(steps + 1), steps + 1):
        steps += 1
    assert steps >= 20


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_R32_killed_with_9_at_every_step_with_the_root_on_a_token(desk: Path, tmp_path: Path) -> None:
    """The token outlives every kill: whatever step it was, there is one key in the end, and it is the certificate's."""
    need("pkcs11-tool")
    hsm = softhsm.make(tmp_path / "hsm")
    (desk / "pin").write_text(softhsm.PIN)
    (desk / "pin").chmod(0o600)
    steps, gone_on = 0, True
    while gone_on:
        steps += 1
        label, out = f"step {steps}", tmp_path / str(steps)
        hsm.add(label)
        place = f'[made.root]\nkey = "pkcs11:token=step%20{steps};object=root?module-path={hsm.module}"\npassphrase = "file:pin"\n'
        (desk / "on-token").write_text((desk / "credentials").read_text() + place)
        gone_on = killed_at(desk, out, steps, credentials="on-token", env={"SOFTHSM2_CONF": str(hsm.configuration)})
        assert hsm.inspect(label, "--list-objects", "--type", "privkey").count("Private Key Object") == 1
        hsm.inspect(label, "--read-object", "--type", "pubkey", "--label", "root", "--output-file", str(out / "public.der"))
        certificate = x509.load_pem_x509_certificate((out / "root.pem").read_bytes())
        spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert (out / "public.der").read_bytes() == spki
        assert not (out / "root.key").exists()
    assert steps >= 20


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_R32_killed_with_9_again_and_again_on_the_way(desk: Path, tmp_path: Path) -> None:
    """One ceremony that dies at its fifth step, each time it is taken up, until it is finished."""
    died = 0
    while (done := run(desk, tmp_path / "out", env={"FLEETCA_FAILPOINT": "5=kill"})).returncode != 0:
        assert done.returncode == -signal.SIGKILL, done.stderr
        died += 1
    assert died >= 2
    one_for_each_act(tmp_path / "out")
    assert sum(line["kind"] == "resumed" for line in lines(tmp_path / "out")) >= 2


# ---- A disk that is full ------------------------------------------------------------------------------------------------


def in_namespace(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    need("unshare")
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "--net", "sh", "-uc", script], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode == _NO_MOUNT:
        refuse(f"nothing can be mounted here, not even in a namespace of our own: {done.stderr}")
    return done


def on_a_disk_of(desk: Path, folder: Path, pages: int) -> bool:
    """Whether it was too small: then it was said, nothing was lost, and with room the same command goes on."""
    (folder / "disk").mkdir(parents=True)
    line = shlex.join(command(desk, folder / "disk/out"))
    script = f"""
        mount -t tmpfs -o size={pages * 4}k tmpfs disk || exit {_NO_MOUNT}
        {line} > first.out 2> first.err; echo $? > first.code
        cp -r disk/out stopped
        mount -o remount,size=4m disk || exit {_NO_MOUNT}
        {line} > again.out 2> again.err; echo $? > again.code
        cp -r disk/out out
    """
    done = in_namespace(script, folder)
    assert done.returncode == 0, done.stderr
    first, again = (int((folder / f"{each}.code").read_text()) for each in ("first", "again"))
    if first == 0:
        return False
    said = (folder / "first.err").read_text()
    assert "[disk-full]" in said or "[key-not-written]" in said, said
    assert "Free some space" in said
    assert "Traceback" not in said
    assert again == 0, (folder / "again.err").read_text()
    before = folder / "stopped" / transcript.FILE
    if before.exists() and b"\n" in before.read_bytes():
        whole = before.read_bytes()[: before.read_bytes().rindex(b"\n") + 1]
        assert (folder / "out" / transcript.FILE).read_bytes().startswith(whole)
    one_for_each_act(folder / "out")
    return True


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_R32_a_disk_of_every_size_that_is_too_small(desk: Path, tmp_path: Path) -> None:
    pages = 1
    while on_a_disk_of(desk, tmp_path / str(pages), pages):
        pages += 1
    assert pages > 8


@pytest.mark.parametrize("pages", [7])
def test_R32_a_disk_that_fills_up_on_the_way_stops_it_and_with_room_it_goes_on(desk: Path, tmp_path: Path, pages: int) -> None:
    assert on_a_disk_of(desk, tmp_path / "room", pages)
    assert 0 < len([line for line in lines(tmp_path / "room/out") if line["kind"] == "resumed"]) <= 1


# ---- Another machine ----------------------------------------------------------------------------------------------------


def test_R32_a_ceremony_goes_on_on_another_machine_only_with_a_reason(desk: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = shlex.join(command(desk, out))

    def on(machine: str, line: str) -> subprocess.CompletedProcess[str]:
        # Not every machine has a /etc/machine-id that could be mounted over: an /etc with what a program needs at its start.
        there = f"mkdir {machine}; cp -r {' '.join(f'/etc/{name}' for name in _NEEDED)} {machine} 2>/dev/null; echo {machine} > {machine}/machine-id"
        return in_namespace(f"{there}; mount --bind {machine} /etc || exit {_NO_MOUNT}\n{line}", tmp_path)

    killed = on("here", f"FLEETCA_FAILPOINT=ceremony.after-sign=kill {line}")
    assert killed.returncode == 128 + signal.SIGKILL, killed.stderr
    before = (out / transcript.FILE).read_bytes()
    refused = on("there", line)
    assert refused.returncode == CONFLICT, refused.stderr
    assert "[another-machine]" in refused.stderr
    assert "--moved" in refused.stderr
    assert (out / transcript.FILE).read_bytes() == before
    moved = on("elsewhere", f"{line} --moved 'its mainboard died, said Wanda'")
    assert moved.returncode == 0, moved.stderr
    one_for_each_act(out)
    assert any("its mainboard died, said Wanda" in remark for remark in ceremonies.verify(out).remarks)
