"""Who gets to see a secret that lies in the environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from config.secrets import Secret
from config.settings import Settings, read_settings
from fleetca.environment import descriptors_of, environment_of, hold_descriptors
from fleetca.serve import plans

ROLES = ("signer", "enroll", "status", "publisher", "presigner")
TEXT = b"""
[deployment]
name = "demo"
[store]
url = "postgresql+psycopg://fleetca@localhost/fleetca"
password = "env:DATABASE"
[signer]
serial_check = "env:SERIALS"
[[issuers]]
id = "root"
certificate = "ca/root.pem"
[[issuers]]
id = "issuing"
certificate = "ca/issuing.pem"
key = "sealed:keys/issuing.key"
passphrase = "env:ISSUING"
[ocsp]
responder_key = "sealed:keys/responder.key"
responder_passphrase = "env:RESPONDER"
[log]
key = "sealed:keys/log.key"
passphrase = "env:LOG"
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return read_settings(tmp_path / "fleetca.toml", accepted=TEXT)


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        pytest.param("ISSUING", {"signer"}, id="the issuing key's passphrase: the signer alone"),
        pytest.param("LOG", {"publisher"}, id="the log key's passphrase: the publisher alone"),
        pytest.param(
            "SERIALS", {"signer", "status", "publisher", "presigner"}, id="the serial check key: who makes serials and who checks them"
        ),
        pytest.param("RESPONDER", {"presigner"}, id="the passphrase of the one responder key: the presigner alone"),
        pytest.param("DATABASE", set(ROLES), id="the database's password: all"),
        pytest.param("PATH", set(ROLES), id="what is no secret: all"),
    ],
)
def test_P3_a_secret_of_the_environment_reaches_only_the_processes_that_use_it(settings: Settings, name: str, roles: set[str]) -> None:
    ours = {"ISSUING": "a", "LOG": "b", "SERIALS": "c", "DATABASE": "d", "PATH": "e", "RESPONDER": "f"}
    assert {role for role in ROLES if name in environment_of(role, settings, ours)} == roles


def test_P3_a_secret_that_comes_over_a_pipe_is_held_for_every_start_of_the_processes_that_use_it(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"correct horse battery staple\n")
    os.close(writing)
    try:
        text = TEXT.replace(b"env:ISSUING", b"fd:%d" % reading).replace(b"env:LOG", b"fd:9999")
        settings = read_settings(tmp_path / "fleetca.toml", accepted=text)
        assert hold_descriptors(settings) == {reading}
        assert {role: descriptors_of(role, settings) for role in ROLES} == {
            "signer": (reading,), "enroll": (), "status": (), "publisher": (9999,), "presigner": (),
        }  # fmt: skip
        for _ in range(2):  # a trial reads it, then the process, then the process that replaces it
            read = "import sys\nfrom pathlib import Path\nfrom config.secrets import Secret\n"
            read += "print(Secret.parse(sys.argv[1], base=Path()).read().decode())"
            done = subprocess.run(
                [sys.executable, "-c", read, f"fd:{reading}"], pass_fds=[reading], capture_output=True, text=True, check=True
            )
            assert done.stdout == "correct horse battery staple\n"
    finally:
        os.close(reading)


def test_P3_one_variable_for_two_secrets_reaches_both_and_nobody_else(tmp_path: Path) -> None:
    settings = read_settings(tmp_path / "fleetca.toml", accepted=TEXT.replace(b"env:LOG", b"env:ISSUING"))
    assert {role for role in ROLES if environment_of(role, settings, {"ISSUING": "a"})} == {"signer", "publisher"}


def test_P3_every_secret_of_the_settings_has_its_readers(settings: Settings) -> None:
    """A new secret in the settings needs its line in `fleetca.environment`, or every process would get it."""
    assert _references(settings) == {"ISSUING", "LOG", "SERIALS", "DATABASE", "RESPONDER"}
    assert environment_of("nobody", settings, dict.fromkeys(_references(settings), "")) == {}


def _references(value: object) -> set[str]:
    if isinstance(value, Secret):
        return {value.rest}
    if isinstance(value, tuple):
        return {name for item in value for name in _references(item)}
    fields = type(value).model_fields if isinstance(value, BaseModel) else {}
    return {name for field in fields for name in _references(getattr(value, field))}


def test_the_presigner_is_a_process_only_where_a_responder_key_is_kept(settings: Settings, tmp_path: Path) -> None:
    assert [plan.name for plan in plans(settings)] == ["signer", "enroll", "status", "publisher", "presigner"]
    without = TEXT.replace(b'responder_key = "sealed:keys/responder.key"\nresponder_passphrase = "env:RESPONDER"\n', b"")
    assert [plan.name for plan in plans(read_settings(tmp_path / "fleetca.toml", accepted=without))] == [
        "signer",
        "enroll",
        "status",
        "publisher",
    ]
