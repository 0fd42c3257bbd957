"""The evidence pack: made of a real deployment, verified by what it ships with, on a machine that knows nothing; and every way to tamper with it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ca.keys.memory import MemoryKey, make_private_key
from ca.model import AlgorithmName, KeyName
from fleetca.evidence import container, verify
from tests.fakes.evidence import Office, period
from tests.parts import need
from tests.running import exit_code as run

pytestmark = pytest.mark.req("REQ-KEY-054")


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Office:
    need("openssl")
    return Office(tmp_path_factory.mktemp("evidence") / "fleet")


def make(office: Office, out: Path, *more: object, ceremony: bool = True) -> int:
    folder = office.made.settings.parent
    given = ["--ceremony", office.made.outputs] if ceremony else []
    return run(
        "evidence", "--period", period(), "--out", out, "--key", office.made.operator_key, "--passphrase-file",
        folder / "secrets/admin.passphrase", "--settings", office.made.settings, *given, *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pack(office: Office, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pack") / "pack.zip"
    assert make(office, out) == 0
    return out


def signer_of(path: Path) -> str:
    with path.open("rb") as file:
        envelope = json.loads(verify.Pack(file).read("signature.json"))
    return str(envelope["signatures"][0]["keyid"])


def check(path: Path, *more: object, signer: str | None = None) -> tuple[int, list[tuple[str, str, str]]]:
    """What the verifier says: its exit code and (level, check, what)."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = verify.main([str(path), "--signer", signer or signer_of(path), "--json", *map(str, more)])
    return code, [(one["level"], one["check"], one["what"]) for one in json.loads(said.getvalue())["told"]]


def refusal(path: Path, *more: object, signer: str | None = None) -> str:
    """The one word by which it is refused."""
    code, told = check(path, *more, signer=signer)
    refused = [what for level, _, what in told if level == "REFUSED"]
    assert code == 8 and refused, told
    return refused[0].partition(":")[0]


# ---- What it holds --------------------------------------------------------------------------------------------------------


def test_a_pack_holds_and_says_what_it_proved(office: Office, pack: Path) -> None:
    code, told = check(pack)
    assert code == 0, told
    proved = {check for level, check, _ in told if level == "ok"}
    assert proved == {"manifest", "signature", "files", "log", "events", "statistics", "certificates", "authorities", "crls", "ceremonies"}
    text = "\n".join(what for _, _, what in told)
    assert "4 in the list, 4 leaves of issuance" in text
    assert "1 entries, is that of its leaf" in text


def test_every_part_is_there_or_named_as_absent(pack: Path) -> None:
    with pack.open("rb") as file:
        manifest = json.loads(verify.Pack(file).read("manifest.json"))
    assert [part["id"][:2] for part in manifest["parts"]] == [f"{number:02}" for number in range(1, 14)]
    assert all(part["files"] or part["absent"] for part in manifest["parts"])


def test_any_zip_reader_opens_it(pack: Path, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(pack) as opened:
        assert opened.testzip() is None
        names = opened.namelist()
        octets = opened.read("09-log/leaves.jsonl")
    with pack.open("rb") as file:
        ours = verify.Pack(file)
        assert (names, octets) == (list(ours.entries), ours.read("09-log/leaves.jsonl"))


def test_it_is_the_same_octets_but_for_the_signature(office: Office, pack: Path, tmp_path: Path) -> None:
    assert make(office, tmp_path / "again.zip") == 0
    found = []
    for path in (pack, tmp_path / "again.zip"):
        with path.open("rb") as file:
            opened = verify.Pack(file)
            found.append({name: opened.read(name) for name in opened.entries if name != "signature.json"})
    assert found[0] == found[1]


@pytest.mark.req("REQ-KEY-054")
def test_it_verifies_in_an_empty_root_with_python_and_openssl_alone(office: Office, pack: Path, tmp_path: Path) -> None:
    """No network, no packages, none of our files: a root with a Python, openssl and what they link to."""
    need("unshare")
    need("root")
    place = tmp_path / "root"
    python = Path(sys.executable).resolve()
    prefix = Path(sys.base_prefix)
    libraries = prefix / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    openssl = Path(need("openssl")).resolve()
    _bring([python, openssl, *libraries.glob("lib-dynload/*.so")], place)
    for path in [*libraries.glob("*.py"), *(path for name in PACKAGES for path in (libraries / name).rglob("*.py"))]:
        _copy(path, place)
    (place / "tmp").mkdir()
    shutil.copy(pack, place / "pack.zip")
    with pack.open("rb") as file:
        (place / "verify.py").write_bytes(verify.Pack(file).read("verify.py"))
    (place / "usr/bin").mkdir(parents=True, exist_ok=True)
    if not (place / "usr/bin/openssl").exists():
        shutil.copy(openssl, place / "usr/bin/openssl")
    done = subprocess.run(
        ["unshare", "--net", f"--root={place}", str(python), "-I", "-S", "/verify.py", "/pack.zip", "--signer", signer_of(pack)],
        env={"PATH": "/usr/bin"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The pack holds." in done.stdout


PACKAGES = ("encodings", "collections", "json", "re", "importlib", "pathlib", "urllib")
"""Of the standard library, beside its single modules: what the verifier leads to."""


def _bring(programs: list[Path], place: Path) -> None:
    """Programs and the libraries that they link to."""
    said = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    for path in [*programs, *(Path(word) for word in said.split() if word.startswith("/") and not word.endswith(":"))]:
        _copy(path, place)


def _copy(path: Path, place: Path) -> None:
    target = place / str(path).lstrip("/")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


# ---- Pinned to what was kept elsewhere -------------------------------------------------------------------------------------


def test_it_is_held_against_what_the_auditor_kept(office: Office, pack: Path, tmp_path: Path) -> None:
    kept = tmp_path / "checkpoint"
    kept.write_bytes(office.checkpoint)
    root = hashlib.sha256(verify.ders(office.settings.issuer("root").certificate.read_text())[0]).hexdigest()
    code, told = check(pack, "--since", kept, "--log-key", office.settings.log.verifier, "--root", root, "--period", period())
    assert code == 0, told
    assert not [what for level, check, what in told if level == "note" and check in {"log", "authorities"} and "kept elsewhere" in what]


def test_what_it_is_pinned_to_must_be_what_it_is(office: Office, pack: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.verifier"
    line = office.settings.log.verifier.read_text()
    name, key_id, _ = line.strip().split("+", 2)  # base64 has its own
    other.write_text(f"{name}+{key_id}+{base64.b64encode(b'x' * 33).decode()}\n")
    assert refusal(pack, signer="00" * 32) == "another-signer"
    assert refusal(pack, "--log-key", other) == "another-log"
    assert refusal(pack, "--root", "00" * 32) == "another-root"
    assert refusal(pack, "--period", "2001-01-01..2001-12-31") == "another-period"
    assert refusal(pack, "--not-before", 1 << 40) == "older"


def test_an_older_pack_is_not_taken_for_a_newer_one(tmp_path: Path) -> None:
    office = Office(tmp_path / "fleet", devices=0)
    assert make(office, tmp_path / "old.zip") == 0
    (tmp_path / "first").write_bytes(office.checkpoint)
    with_more = office.settings
    from ca.model import DeviceDescription, DeviceId, Peer, Role, RootOfTrust
    from fleetca import signing

    with signing.signer_parts(with_more) as parts:
        said = DeviceDescription(DeviceId("pump-9"), RootOfTrust.tpm)
        parts.verbs.describing.describe(said, Peer(Role.operator, 1))
    office.sequence()
    (tmp_path / "second").write_bytes(office.checkpoint)
    assert refusal(tmp_path / "old.zip", "--since", tmp_path / "second") == "older"
    assert make(office, tmp_path / "new.zip", "--since", tmp_path / "first") == 0
    assert check(tmp_path / "new.zip", "--since", tmp_path / "first", "--since", tmp_path / "second")[0] == 0


# ---- Tampering ---------------------------------------------------------------------------------------------------------------

Files = list[tuple[str, bytes]]


def files_of(path: Path) -> Files:
    with path.open("rb") as file:
        opened = verify.Pack(file)
        return [(name, opened.read(name)) for name in opened.entries]


def packed(files: Files, out: Path) -> Path:
    """A container of the lawful form around whatever files."""
    with out.open("w+b") as file:
        writer = container.Writer(file)
        entries = []
        for name, octets in files:
            offset = file.tell()
            stream = container.Stream(file)
            file.write(container.local_header(name, verify.zlib.crc32(octets), len(octets)))
            stream.write(octets)
            entries.append(container.Entry(name, len(octets), stream.sha256, stream.crc, offset))
        writer.entries = entries
        writer.close()
    return out


def forged(files: Files, key: MemoryKey) -> Files:
    """With a manifest and a signature that fit, as somebody would make them who has a key, but not ours."""
    from fleetca.evidence import pack as making

    kept = [(name, octets) for name, octets in files if name not in {"manifest.json", "signature.json"}]
    manifest = json.loads(dict(files)["manifest.json"])
    manifest["files"] = [{"name": name, "size": len(octets), "sha256": hashlib.sha256(octets).hexdigest()} for name, octets in kept]
    octets = verify.canonical(manifest)
    return [*kept, ("manifest.json", octets), ("signature.json", verify.canonical(making._signed(octets, key, 1_800_000_000)))]


@pytest.fixture(scope="module")
def evil() -> MemoryKey:
    return MemoryKey(KeyName("evil"), make_private_key(AlgorithmName("p256")))


def test_each_file_that_is_changed_is_refused(pack: Path, tmp_path: Path) -> None:
    files = files_of(pack)
    signer = signer_of(pack)
    args = verify._arguments([str(tmp_path / "changed.zip"), "--signer", signer])
    for number, (name, octets) in enumerate(files):
        if not octets:
            continue
        middle = len(octets) // 2
        changed = octets[:middle] + bytes((octets[middle] ^ 1,)) + octets[middle + 1 :]
        packed([*files[:number], (name, changed), *files[number + 1 :]], tmp_path / "changed.zip")
        with (tmp_path / "changed.zip").open("rb") as file:
            verification = verify.Verification(verify.Pack(file), args)
            assert not verification.run(), f"{name} was changed, and nobody noticed"


def test_no_octet_of_the_container_is_left_to_chance(pack: Path, tmp_path: Path) -> None:
    """Whatever is not content is decided by the contents: a flip there is refused before anything is read."""
    octets = pack.read_bytes()
    inside = bytearray(len(octets))
    with pack.open("rb") as file:
        for entry in verify.Pack(file).entries.values():
            inside[entry.data : entry.data + entry.size] = b"\1" * entry.size
    outside = [index for index, within in enumerate(inside) if not within]
    assert len(outside) > 1000
    for index in outside[:: max(1, len(outside) // 200)]:
        changed = bytearray(octets)
        changed[index] ^= 1
        (tmp_path / "flipped.zip").write_bytes(changed)
        with (tmp_path / "flipped.zip").open("rb") as file, pytest.raises(verify.RefusedError):
            opened = verify.Pack(file)
            for name in opened.entries:
                opened.read(name)


def _without(name: str) -> Callable[[Files], Files]:
    return lambda files: [one for one in files if one[0] != name]


def _with(name: str, octets: bytes = b"x") -> Callable[[Files], Files]:
    return lambda files: [*sorted([*files[:-2], (name, octets)]), *files[-2:]]


def _swapped(files: Files) -> Files:
    return [files[1], files[0], *files[2:]]


@pytest.mark.parametrize(
    ("what", "change", "word"),
    [
        ("a file is taken out", _without("13-findings/findings.json"), "missing"),
        ("a file is put in", _with("13-findings/more.json"), "added"),
        ("two files change places", _swapped, "reordered"),
        ("a file stands there twice", lambda files: [files[0], files[0], *files[1:]], "twice"),
        ("a name leads out of the folder", _with("../../etc/passwd"), "bad-name"),
        ("a name is absolute", _with("/etc/passwd"), "bad-name"),
        ("a name has a drive", _with("C:\\evil"), "bad-name"),
        ("the signature is missing", _without("signature.json"), "reordered"),
        ("the manifest is missing", _without("manifest.json"), "missing"),
        ("nothing is in it", lambda _: [], "missing"),
    ],
)
def test_a_pack_that_was_rearranged_is_refused(pack: Path, tmp_path: Path, what: str, change: Callable[[Files], Files], word: str) -> None:
    packed(change(files_of(pack)), tmp_path / "changed.zip")
    assert refusal(tmp_path / "changed.zip", signer=signer_of(pack)) == word, what


@pytest.mark.parametrize(
    ("what", "change", "word"),
    [
        ("its end is cut off", lambda octets: octets[:-1], "no-pack"),
        ("something is behind it", lambda octets: octets + b"x", "no-pack"),
        ("something is before it", lambda octets: b"x" + octets, "no-pack"),
        ("it is empty", lambda _: b"", "no-pack"),
        ("it is something else", lambda _: b"PK" * 500, "no-pack"),
    ],
)
def test_a_container_that_was_changed_is_refused(
    pack: Path, tmp_path: Path, what: str, change: Callable[[bytes], bytes], word: str
) -> None:
    (tmp_path / "changed.zip").write_bytes(change(pack.read_bytes()))
    assert refusal(tmp_path / "changed.zip", signer=signer_of(pack)) == word, what


def test_a_zip_that_others_made_of_it_and_a_bomb_are_refused(pack: Path, tmp_path: Path) -> None:
    import zipfile

    for name, method in (("stored.zip", zipfile.ZIP_STORED), ("deflated.zip", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(tmp_path / name, "w", method) as made:
            for file, octets in files_of(pack):
                made.writestr(file, octets)
            made.writestr("bomb", bytes(1 << 22))
        assert refusal(tmp_path / name, signer=signer_of(pack)) == "no-pack"


def test_a_size_that_lies_is_refused_before_it_is_read(pack: Path, tmp_path: Path) -> None:
    octets = pack.read_bytes()
    with pack.open("rb") as file:
        entries = list(verify.Pack(file).entries.values())
    start = octets.index(entries[0].record)
    longer = verify.Entry(entries[0].name, entries[0].crc, 1 << 50, 0)
    changed = longer.header + octets[len(longer.header) : start] + longer.record + octets[start + len(longer.record) :]
    (tmp_path / "long.zip").write_bytes(changed)
    assert refusal(tmp_path / "long.zip", signer=signer_of(pack)) == "oversize"
    deflated = bytearray(octets)
    deflated[start + 10] = 8
    (tmp_path / "long.zip").write_bytes(deflated)
    assert refusal(tmp_path / "long.zip", signer=signer_of(pack)) == "compressed"


# ---- Lies of somebody who can sign ----------------------------------------------------------------------------------------------


def _edit(name: str, change: Callable[[bytes], bytes]) -> Callable[[Files], Files]:
    return lambda files: [(one, change(octets) if one == name else octets) for one, octets in files]


def _drop_line(number: int) -> Callable[[bytes], bytes]:
    return lambda octets: b"".join(line for at, line in enumerate(octets.splitlines(keepends=True)) if at != number)


def _swap_lines(octets: bytes) -> bytes:
    first, second, *rest = octets.splitlines(keepends=True)
    return b"".join([second, first, *rest])


def _rows(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[bytes], bytes]:
    return lambda octets: b"".join(verify.canonical(change(json.loads(line))) + b"\n" for line in octets.splitlines())


LEAVES, CERTIFICATES, CRL = "09-log/leaves.jsonl", "05-issuance/certificates.jsonl", "03-authorities/crls/issuing.crl"


@pytest.mark.parametrize(
    ("what", "change", "word"),
    [
        ("a leaf is edited", _edit(LEAVES, lambda octets: octets.replace(b"pump-0", b"pump-7")), "log-proof"),
        ("a leaf is dropped", _edit(LEAVES, _drop_line(3)), "log-proof"),
        ("leaves change places", _edit(LEAVES, _swap_lines), "log-proof"),
        ("a leaf is added", _edit(LEAVES, lambda octets: octets + octets.splitlines(keepends=True)[0]), "log-proof"),
        ("a leaf is no leaf", _edit(LEAVES, lambda octets: b"{}\n" + octets), "unreadable"),
        ("the checkpoint says another size", _edit("09-log/checkpoint", lambda octets: octets.replace(b"\n", b"\n1", 1)), "signature"),
        ("a certificate is not in the list", _edit(CERTIFICATES, _drop_line(1)), "coverage"),
        ("a certificate stands twice in the list", _edit(CERTIFICATES, lambda octets: octets + octets.splitlines(keepends=True)[0]), "coverage"),
        ("the list tells of another certificate", _edit(CERTIFICATES, _rows(lambda row: {**row, "serial": "00" * 20})), "coverage"),
        ("the sample is another", lambda files: [one for one in files if "/sample/" not in one[0]], "sample"),
        ("the statistics are better", _edit("05-issuance/statistics.json", lambda octets: octets.replace(b'"void":0', b'"void":1')), "miscounted"),
        ("the CRL is edited", _edit(CRL, lambda octets: octets[:-1] + bytes((octets[-1] ^ 1,))), "crl"),
        ("the transcript lost a line", _edit("02-ceremonies/{}/transcript.jsonl", _drop_line(2)), "transcript"),
        ("the sheet is another", _edit("02-ceremonies/{}/sheet.toml", lambda octets: octets + b"#"), "transcript"),
        ("an authority is missing", _without("03-authorities/issuers/issuing.pem"), "chain"),
        ("an authority cannot be read", _edit("03-authorities/issuers/issuing.pem", lambda octets: octets.replace(b"MII", b"MIJ", 1)), "unreadable"),
    ],
)  # fmt: skip
def test_a_lie_under_a_valid_signature_is_refused(
    office: Office, pack: Path, tmp_path: Path, evil: MemoryKey, what: str, change: Callable[[Files], Files], word: str
) -> None:
    files = [(name.replace(f"02-ceremonies/{office.made.outputs.name}", "02-ceremonies/{}"), octets) for name, octets in files_of(pack)]
    changed = [(name.replace("{}", office.made.outputs.name), octets) for name, octets in change(files)]
    manifest = json.loads(dict(files)["manifest.json"])
    for part in manifest["parts"]:
        part["files"] = [name for name in part["files"] if name in dict(changed)]
    changed = [(name, verify.canonical(manifest) if name == "manifest.json" else octets) for name, octets in changed]
    packed(forged(changed, evil), tmp_path / "lie.zip")
    signer = hashlib.sha256(evil.spki).hexdigest()
    code, told = check(tmp_path / "lie.zip", signer=signer)
    words = {text.partition(":")[0] for level, _, text in told if level == "REFUSED"}
    assert code == 8 and word in words, (what, told)


def test_what_nobody_signed_is_not_taken_for_signed(pack: Path, tmp_path: Path) -> None:
    files = files_of(pack)
    envelope = json.loads(dict(files)["signature.json"])
    for change in (
        {**envelope, "more": 1},
        {**envelope, "signatures": [{**envelope["signatures"][0], "note": "approved"}]},
        {**envelope, "payloadType": "text/plain"},
        {**envelope, "signatures": []},
    ):
        packed([*files[:-1], ("signature.json", verify.canonical(change))], tmp_path / "changed.zip")
        code, _ = check(tmp_path / "changed.zip", signer=signer_of(pack))
        assert code == 8


# ---- Withholding -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def redaction_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("redaction") / "redaction.key"
    path.write_text("5a" * 32)
    path.chmod(0o600)
    return path


def test_names_can_be_withheld_and_every_proof_still_holds(office: Office, tmp_path: Path, redaction_key: Path) -> None:
    out = tmp_path / "redacted.zip"
    assert make(office, out, "--redact", "devices", "--redact", "operators", "--redaction-key", redaction_key) == 0
    code, told = check(out)
    assert code == 0, told
    held = b"\n".join(octets for name, octets in files_of(out) if name != "verify.py")
    for name in (b"pump-", b"beatrice", b"operator:admin", b"Ward 7", b"made before we had any"):
        assert name not in held, name
    assert b"-----BEGIN CERTIFICATE" not in b"".join(octets for name, octets in files_of(out) if name.startswith("05-"))
    assert any("are withheld, each proved by its hash" in what for _, _, what in told)
    rows = [json.loads(line) for line in dict(files_of(out))["07-devices/devices.jsonl"].splitlines()]
    leaves = [json.loads(line) for line in dict(files_of(out))[LEAVES].splitlines()]
    named = {leaf["view"]["device"]["salted"] for leaf in leaves if "view" in leaf and leaf["view"]["kind"] == "issuance"}
    assert named <= {row["id"]["salted"] for row in rows}, "the same device is the same digest throughout"


def test_a_withheld_leaf_can_be_shown_later_and_another_cannot_pass_for_it(office: Office, tmp_path: Path, redaction_key: Path) -> None:
    out = tmp_path / "redacted.zip"
    assert make(office, out, "--redact", "devices", "--redaction-key", redaction_key) == 0
    lines = dict(files_of(out))[LEAVES].splitlines()
    index = next(at for at, line in enumerate(lines) if b'"kind":"token"' in line)
    shown = tmp_path / "shown.json"
    assert run("evidence", "disclose", index, "--redaction-key", redaction_key, "--out", shown, "--settings", office.made.settings) == 0
    code, told = check(out, "--disclosed", shown)
    assert code == 0, told
    assert any("pump-0" in what for _, check, what in told if check == "disclosed")
    document = json.loads(shown.read_text())
    for change in (
        {"leaf": document["leaf"].replace("pump-0", "pump-1")},
        {"index": index + 1},
        {"salts": dict.fromkeys(document["salts"], "00" * 16)},
    ):
        (tmp_path / "wrong.json").write_text(json.dumps({**document, **change}))
        assert refusal(out, "--disclosed", tmp_path / "wrong.json") == "disclosed"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("--redact", "devices"), 2),
        (("--redact", "everything", "--redaction-key", "KEY"), 2),
        (("--redact", "operators", "--redaction-key", "MISSING"), 6),
    ],
)
def test_what_cannot_be_withheld_so_is_said(office: Office, tmp_path: Path, redaction_key: Path, more: tuple[str, ...], code: int) -> None:
    arguments = [{"KEY": redaction_key, "MISSING": tmp_path / "none"}.get(one, one) for one in more]
    assert make(office, tmp_path / "out.zip", *arguments) == code
    assert not (tmp_path / "out.zip").exists()


# ---- Refusing to make one ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["2026", "2026-01-01..", "2026-02-30..2026-03-01", "2026-03-01..2026-02-01", "2026-1-1..2026-2-1"])
def test_what_is_no_period_is_refused(office: Office, tmp_path: Path, text: str) -> None:
    assert (
        run("evidence", "--period", text, "--out", tmp_path / "x", "--key", office.made.operator_key, "--settings", office.made.settings)
        == 2
    )


def test_no_pack_is_made_of_a_record_that_does_not_hold_or_over_another_file(tmp_path: Path) -> None:
    office = Office(tmp_path / "fleet", devices=0)
    out = tmp_path / "pack.zip"
    out.write_bytes(b"mine")
    assert make(office, out) == 4
    assert out.read_bytes() == b"mine"
    (bundle,) = office.settings.log.directory.glob("tile/entries/*.p/*")
    bundle.write_bytes(bundle.read_bytes().replace(b"beatrice", b"beatrine"))
    assert make(office, tmp_path / "other.zip") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fleet", "pack.zip"]
