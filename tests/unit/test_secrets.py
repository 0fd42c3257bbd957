"""Secrets are named, never written into settings; what others can read is not used; values never show."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest

from ca.errors import KeyUnavailable
from config.secrets import Secret
from fleetca import forms

VALUE = b"correct horse battery staple"


def reference(text: str, base: Path) -> Secret:
    return Secret.parse(text, base=base)


def test_a_file_is_read_without_its_line_end(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(VALUE + b"\n")
    path.chmod(0o600)
    assert forms.secret(reference("file:secret", tmp_path))() == VALUE
    path.write_bytes(VALUE + b"\r\n")
    assert forms.secret(reference(f"file:{path}", Path("/")))() == VALUE


def test_environment_credential_and_descriptor_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", VALUE.decode())
    assert forms.secret(reference("env:A_SECRET", tmp_path))() == VALUE
    (tmp_path / "issuing").write_bytes(VALUE)
    (tmp_path / "issuing").chmod(0o440)  # as systemd's access control list shows itself
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert forms.secret(reference("credential:issuing", Path("/")))() == VALUE
    ours, theirs = os.pipe()
    os.write(theirs, VALUE)
    os.close(theirs)
    assert forms.secret(reference(f"fd:{ours}", tmp_path))() == VALUE
    os.close(ours)


@pytest.mark.req("REQ-KEY-005")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o610])
def test_a_file_that_others_can_reach_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    path.write_bytes(VALUE)
    path.chmod(mode)
    with pytest.raises(KeyUnavailable) as caught:
        forms.secret(reference("file:secret", tmp_path))()
    assert caught.value.code == "secret-exposed"
    assert caught.value.fix == f"chmod 600 {path}"


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    path.write_bytes(VALUE)
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    else:
        somebody_else = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: somebody_else)
    with pytest.raises(KeyUnavailable) as caught:
        forms.secret(reference("file:secret", tmp_path))()
    assert caught.value.code == "secret-exposed"


@pytest.mark.parametrize(
    ("text", "code", "fix"),
    [
        pytest.param("file:nowhere", "secret-missing", "0600", id="a file that is not there"),
        pytest.param("file:empty", "secret-empty", "0600", id="an empty file"),
        pytest.param("file:folder", "secret-missing", "", id="a folder"),
        pytest.param("env:NO_SUCH_SECRET", "secret-missing", "NO_SUCH_SECRET", id="a variable that is not set"),
        pytest.param("credential:issuing", "secret-missing", "LoadCredential", id="a credential outside of systemd"),
        pytest.param("fd:999", "secret-missing", "999", id="a descriptor that is not open"),
    ],
)
def test_a_missing_secret_says_what_mends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, code: str, fix: str) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    (tmp_path / "empty").write_bytes(b"\n")
    (tmp_path / "empty").chmod(0o600)
    (tmp_path / "folder").mkdir()
    with pytest.raises(KeyUnavailable) as caught:
        forms.secret(reference(text, tmp_path))()
    assert caught.value.code == code
    assert fix in caught.value.fix
    assert text in caught.value.what


def test_a_secret_of_a_megabyte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"x" * (1 << 20))
    path.chmod(0o600)
    with pytest.raises(KeyUnavailable, match="longer"):
        forms.secret(reference("file:secret", tmp_path))()


def test_P10_the_value_shows_in_no_repr_and_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(VALUE)
    path.chmod(0o600)
    read = forms.secret(reference("file:secret", tmp_path))
    assert VALUE.decode() not in repr(read)
    assert VALUE.decode() not in repr(reference("file:secret", tmp_path))
    path.chmod(0o644)
    try:
        read()
    except KeyUnavailable:
        assert VALUE.decode() not in traceback.format_exc()


@pytest.mark.parametrize("text", ["hunter2", "", "file:", "env:A-B", "fd:-1", "vault:x", "credential:../x", "env:"])
def test_what_is_no_reference_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match="reference") as caught:
        Secret.parse(text, base=Path("/"))
    assert "hunter2" not in str(caught.value)
