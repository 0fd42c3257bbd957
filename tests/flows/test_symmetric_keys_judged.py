"""`fleetca keys derive`, `group`, `vault` and `hierarchy` as an outsider tries them: against openssl, with wrong master keys, misspelt names and odd words."""

from __future__ import annotations

import json
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fleetca.cli.main import fleetca
from tests.parts import need

SALT = "00112233445566778899aabbccddeeff"


def keys(*arguments: str | Path, text: str = "") -> Any:
    return CliRunner().invoke(fleetca, ["keys", *map(str, arguments)], input=text)


def code(done: Any) -> str | None:
    found: str | None = getattr(done.exception, "code", None)
    return found


def secret(path: Path, octet: int) -> Path:
    path.write_text(bytes(octet + number for number in range(32)).hex())
    path.chmod(0o600)
    return path


@pytest.mark.req("REQ-KEY-022")
@pytest.mark.parametrize("length", [16, 32, 33, 64, 255 * 32])
def test_openssl_derives_the_same_key_from_the_info_that_is_told(length: int, tmp_path: Path) -> None:
    master = secret(tmp_path / "master", 1)
    made = keys("derive", master, "--salt", SALT, "--label", "telemetry", "--device", "pump-7", "--role", "up", "--epoch", "3", "--length", str(length),
                "--out", tmp_path / "key", "--json")  # fmt: skip
    info = bytes.fromhex(json.loads(made.stdout)["info"])
    fields = b"\0\x09telemetry" + b"\0\x06pump-7" + b"\0\x02up"
    assert info == b"fleetca derive v1\0" + fields + (3).to_bytes(8) + length.to_bytes(2), "as docs/how-to/keys.md says"
    theirs = subprocess.run(
        [need("openssl"), "kdf", "-keylen", str(length), "-kdfopt", "digest:SHA256", "-kdfopt", f"hexkey:{master.read_text()}", "-kdfopt",
         f"hexsalt:{SALT}", "-kdfopt", f"hexinfo:{info.hex()}", "-binary", "HKDF"], capture_output=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    assert (tmp_path / "key").read_text().strip() == theirs.hex()


@pytest.mark.req("REQ-KEY-105")
def test_the_next_epoch_of_a_group_is_not_made_under_another_master_key(tmp_path: Path) -> None:
    """Its members could not read it, and the one before would be over."""
    ours, other = secret(tmp_path / "ours", 1), secret(tmp_path / "other", 2)
    assert keys("group", "begin", "ward", "--master", ours, "--member", "a", "--member", "b", "--out", tmp_path / "1").exit_code == 0
    assert code(keys("group", "change", tmp_path / "1", "--master", other, "--leave", "a", "--out", tmp_path / "2")) == "unwrap-failed"
    assert not (tmp_path / "2").exists()
    assert keys("group", "change", tmp_path / "1", "--master", ours, "--leave", "a", "--out", tmp_path / "2").exit_code == 0


@pytest.mark.req("REQ-KEY-070")
@pytest.mark.parametrize(
    ("sentence", "options", "expected"),
    [
        ("a device is forgotten", ["--device", "pump-7", "--confirm", "pump-7"], None),
        ("a device for which nothing was sealed is not said to be forgotten", ["--device", "pump7", "--confirm", "pump7"], "no-data-key"),
        ("nor one of another tenant", ["--tenant", "other", "--device", "pump-7", "--confirm", "pump-7"], "no-data-key"),
        ("nor a tenant that has none", ["--tenant", "other", "--confirm", "other"], "no-data-key"),
    ],
)
def test_only_what_was_sealed_is_shredded(sentence: str, options: list[str], expected: str | None, tmp_path: Path) -> None:
    master, vault = secret(tmp_path / "master", 1), tmp_path / "vault.json"
    note = keys("vault", "seal", vault, "pump-7", "--master", master, text="bed 7").stdout
    assert code(keys("vault", "shred", vault, *options)) == expected, sentence
    assert code(keys("vault", "open", vault, "pump-7", "--master", master, text=note)) == (None if expected else "shredded"), sentence
    if expected is None:
        assert keys("vault", "shred", vault, *options).exit_code == 0, "once more is harmless"
        assert keys("vault", "shred", vault, "--tenant", "default", "--confirm", "default").exit_code == 0
        assert keys("vault", "shred", vault, *options).exit_code == 0, "it is forgotten with its tenant too"


LONG = "the-issuing-ca-of-the-second-plant-with-a-name-of-sixty-letters"
ODD = 'a|b<c>{d} "e" & \\\\f'


def hierarchy(folder: Path) -> Path:
    file = folder / "keys.toml"
    file.write_text(
        f'[keys.root]\npurposes = ["root"]\nalgorithm = "p384"\n[keys.{LONG}]\npurposes = ["certificate-signing"]\nalgorithm = "p256"\nparent = "root"\n'
        f'[keys.\'{ODD}\']\npurposes = ["authentication"]\nalgorithm = "p256"\nparent = "{LONG}"\n'
    )
    return file


@pytest.mark.req("REQ-KEY-052")
def test_in_a_drawn_hierarchy_every_word_is_inside_its_box_and_every_box_in_the_picture(tmp_path: Path) -> None:
    picture = ET.fromstring(keys("hierarchy", hierarchy(tmp_path), "--draw", "svg").output)
    boxes = [
        {name: float(value) for name, value in one.attrib.items() if name in {"x", "y", "width", "height"}}
        for one in picture.iter()
        if one.tag.endswith("rect")
    ]
    words = [(float(one.attrib["x"]), float(one.attrib["y"]), one.text or "") for one in picture.iter() if one.tag.endswith("text")]
    assert ODD in [text for _, _, text in words]
    assert len(boxes) * 2 == len(words) == 6
    for x, y, text in words:
        # Sans-serif letters of 11 px, in bold, are 6.2 px wide on average.
        assert any(
            box["x"] < x and x + len(text) * 6.2 < box["x"] + box["width"] and box["y"] < y < box["y"] + box["height"] for box in boxes
        ), text
    assert all(box["x"] + box["width"] < float(picture.attrib["width"]) for box in boxes)


@pytest.mark.req("REQ-KEY-052")
def test_in_a_graph_for_graphviz_odd_names_stay_names(tmp_path: Path) -> None:
    """A box has no fields: in a record, |, <, > and braces would be structure."""
    drawn = keys("hierarchy", hierarchy(tmp_path), "--draw", "dot").output
    name = '"' + ODD.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert "node [shape=box];" in drawn
    assert f'  {name} [label={name[:-1]}\\nauthentication, p256"];' in drawn
    assert f'  "{LONG}" -> {name};' in drawn


@pytest.mark.req("REQ-KEY-052")
def test_purposes_that_are_a_word_and_no_list_are_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text('[keys.root]\npurposes = "root"\nalgorithm = "p384"\n')
    done = keys("hierarchy", file)
    assert code(done) == "no-hierarchy"
    assert "root: purposes is a list" in str(getattr(done.exception, "why", ""))
