"""Cryptographic shredding (REQ-KEY-070): what was sealed for a device or a tenant is gone with its key, and the log that holds it still verifies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ca.rules import merkle, shredding
from fleetca.cli.main import fleetca
from tests.refusals import code_of

MASTER, AFTER = bytes(range(32)), bytes(range(32, 64))
UNITS = [("acme", "pump-1"), ("acme", "pump-2"), ("beta", "pump-1")]


def filled() -> tuple[shredding.Vault, dict[tuple[str, str], str]]:
    """A vault with keys for three devices of two tenants, and a text of each."""
    vault, texts = shredding.EMPTY, {}
    for number, (tenant, device) in enumerate(UNITS):
        vault, key = shredding.with_key(vault, MASTER, tenant, device, drawn=bytes(range(number, number + 64)))
        texts[tenant, device] = shredding.seal(f"note {number}".encode(), key, tenant=tenant, device=device, nonce=bytes([number] * 12))
    return vault, texts


def opened(vault: shredding.Vault, texts: dict[tuple[str, str], str], tenant: str, device: str, *, master: bytes = MASTER) -> bytes:
    key = shredding.key_of(vault, master, tenant, device)
    return shredding.unseal(texts[tenant, device], key, tenant=tenant, device=device)


@pytest.mark.req("REQ-KEY-070")
@pytest.mark.parametrize(("tenant", "device", "gone"), [("acme", "pump-1", {0}), ("acme", None, {0, 1}), ("beta", None, {2})])
def test_what_was_shredded_is_gone_and_the_log_of_it_still_verifies(tenant: str, device: str | None, gone: set[int]) -> None:
    vault, texts = filled()
    leaves = [merkle.leaf_hash(text.encode()) for text in texts.values()]
    root = merkle.root_of(leaves)
    assert [opened(vault, texts, *unit) for unit in UNITS] == [b"note 0", b"note 1", b"note 2"]
    after = shredding.parse(shredding.write(shredding.shred(vault, tenant, device)))
    found = [code_of(lambda u=unit: opened(after, texts, *u)) for unit in UNITS]  # type: ignore[misc]
    assert found == ["shredded" if number in gone else "" for number in range(3)]
    assert merkle.root_of([merkle.leaf_hash(text.encode()) for text in texts.values()]) == root
    assert shredding.shred(after, tenant, device) == after, "repeating is harmless"
    for number in gone:
        octets = shredding.write(after)
        assert vault.devices["/".join(UNITS[number])].hex().encode() not in octets
        assert code_of(lambda n=number: shredding.with_key(after, MASTER, *UNITS[n], drawn=bytes(64))) == "shredded"  # type: ignore[misc]


def test_an_old_copy_dies_with_the_old_master_key() -> None:
    vault, texts = filled()
    after = shredding.rekey(shredding.shred(vault, "acme", "pump-1"), MASTER, AFTER)
    assert opened(after, texts, "acme", "pump-2", master=AFTER) == b"note 1"
    assert code_of(lambda: opened(after, texts, "acme", "pump-2")) == "unwrap-failed"
    assert code_of(lambda: opened(vault, texts, "acme", "pump-1", master=AFTER)) == "unwrap-failed"


@pytest.mark.req("REQ-KEY-070")
def test_a_text_opens_for_its_own_device_and_unchanged_only() -> None:
    vault, texts = filled()
    swapped = {("acme", "pump-1"): texts["acme", "pump-2"]}
    assert code_of(lambda: opened(vault, swapped, "acme", "pump-1")) == "sealed-wrong"
    text = texts["acme", "pump-1"]
    for bad, code in (
        (text[:-4] + ("AAAA" if text[-4:] != "AAAA" else "BBBB"), "sealed-wrong"),
        (text[8:], "sealed-text"),
        ("sealed1:", "sealed-text"),
        ("sealed1:????", "sealed-text"),
        ("", "sealed-text"),
    ):
        assert code_of(lambda b=bad: opened(vault, {("acme", "pump-1"): b}, "acme", "pump-1")) == code, bad  # type: ignore[misc]
    assert code_of(lambda: opened(vault, texts | {("acme", "x"): text}, "acme", "x")) == "no-data-key"


@pytest.mark.parametrize(
    "octets", [b"", b"[]", b"{}", b"[" * 9999, b'{"tenants":{},"devices":{}}', b'{"tenants":[],"devices":{},"shredded":[]}',
               b'{"tenants":{"a":"x"},"devices":{},"shredded":[]}', b'{"tenants":{},"devices":{},"shredded":[1]}'],
)  # fmt: skip
def test_what_is_no_vault_is_refused(octets: bytes) -> None:
    assert code_of(lambda: shredding.parse(octets)) == "vault-document"


@pytest.mark.req("REQ-KEY-070")
def test_the_commands_seal_open_and_shred(tmp_path: Path) -> None:
    for name, key in (("master", MASTER), ("after", AFTER)):
        (tmp_path / name).write_text(key.hex() + "\n")
        (tmp_path / name).chmod(0o600)
    file = tmp_path / "vault.json"

    def vault(verb: str, *arguments: str | Path, given: str = "") -> Any:
        return CliRunner().invoke(fleetca, ["keys", "vault", verb, str(file), *map(str, arguments)], input=given)

    master = ("--master", tmp_path / "master")
    sealed = vault("seal", "pump-1", *master, given="ward 3").output
    assert "ward" not in sealed
    assert file.stat().st_mode & 0o777 == 0o600
    other = vault("seal", "pump-2", *master, given="ward 4").output
    assert vault("open", "pump-1", *master, given=sealed).output == "ward 3"
    assert getattr(vault("shred", "--device", "pump-1", "--confirm", "pump-2").exception, "code", "") == "not-confirmed"
    assert vault("shred", "--device", "pump-1", "--confirm", "pump-1").exit_code == 0
    assert getattr(vault("open", "pump-1", *master, given=sealed).exception, "code", "") == "shredded"
    assert vault("rekey", *master, "--after", tmp_path / "after").exit_code == 0
    assert getattr(vault("open", "pump-2", *master, given=other).exception, "code", "") == "unwrap-failed"
    assert vault("open", "pump-2", "--master", tmp_path / "after", given=other).output == "ward 4"
    assert [path.name for path in tmp_path.glob("*.new")] == []
