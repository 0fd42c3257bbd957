"""Every `sh` block of README.md and docs/ works as it stands: each page's blocks run in their order, in one shell, in a fresh folder.

The folder looks like the checkout, with nothing copied: what a page makes goes beside links to what it needs. Exempt are `scripts/test` itself (it runs
us) and blocks below a comment `<!-- not run: REASON -->`. A page that listens on ports has a range of its own, so that pages and tests
in parallel do not meet.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import CHALLENGED
from tests.databases import Cluster
from tests.parts import need
from tests.running import BASES, alone_with, eventually

ROOT = Path(__file__).parents[2]
NEEDED = ("scripts", "config", "docs", "pyproject.toml", "requirements.lock", "requirements-dev.lock", "README.md")
SECONDS = 480
"""For the slowest page on a busy machine; on an idle one all of them take less than half of it."""
LONG = frozenset({"docs/how-to/attestation.md"})
"""Pages whose steps stand in quicker tests as well (tests/interop/test_tpm_attestation.py, tests/flows/test_manifests.py)."""
BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^>]+) -->\s*)?^```(?P<kind>\S*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
KINDS = {"sh", "text", "toml"}


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[str]:
    """The blocks of a page that run."""
    found = BLOCK.finditer(page.read_text())
    return [one["text"] for one in found if one["kind"] == "sh" and not one["reason"] and one["text"].strip() != "scripts/test"]


@pytest.fixture
def checkout() -> Iterator[Path]:
    """A folder in which everything a page names is where a checkout has it. Its path is short: sockets lie in it, also of programs not ours."""
    with tempfile.TemporaryDirectory(prefix="page-", ignore_cleanup_errors=True) as name:
        yield _laid_out(Path(name) / "fleetca")


def _laid_out(folder: Path) -> Path:
    folder.mkdir()
    for name in NEEDED:
        (folder / name).symlink_to(ROOT / name)
    # An environment that counts as installed, so that scripts/environment installs nothing from here.
    (folder / ".venv").mkdir()
    (folder / ".venv/bin").symlink_to(ROOT / ".venv/bin")
    for stamp in (".installed-run", ".installed-dev"):
        (folder / ".venv" / stamp).touch()
    return folder


def _alive(folder: Path, group: int) -> bool:
    try:
        state, _, pgrp, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return int(pgrp) == group and state != "Z"


def _over(group: int) -> bool:
    """Does every process of the group end by itself, soon after the page?"""
    try:
        eventually(lambda: not any(_alive(folder, group) for folder in Path("/proc").glob("[0-9]*")))
    except AssertionError:
        return False
    return True


@pytest.fixture
def database() -> Iterator[Callable[[], dict[str, str]]]:
    """Starts a PostgreSQL for a page that wants one; gives the environment in which its tools find it."""
    with contextlib.ExitStack() as stack:

        def start() -> dict[str, str]:
            binaries = need("postgres")
            cluster = Cluster(Path(binaries))
            stack.callback(cluster.remove)
            cluster.start()
            return {"PGHOST": str(cluster.folder), "PGUSER": "postgres", "PATH": binaries}

        yield start


def follow(script: Path, folder: Path, more: dict[str, str]) -> tuple[int, str]:
    """Run a page's script; its exit code and all it said. Nothing that it started outlives it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLEETCA_")}
    path = f"{folder / '.venv/bin'}:{environment['PATH']}:{more.get('PATH', '')}"
    environment |= {**more, "PATH": path.rstrip(":")}
    with script.with_suffix(".log").open("w+") as log:
        process = subprocess.Popen(
            ["sh", "-eu", script], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            code = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            code = -1
            log.write(f"\nstill running after {SECONDS} s\n")
        left = code == 0 and not _over(process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)
        log.seek(0)
        said = log.read()
    assert not left, f"the page leaves processes behind:\n{said[-4000:]}"
    return code, said


@pytest.mark.timeout(2 * SECONDS + 60)
@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=pytest.mark.full) if name_of(page) in LONG else page for page in pages() if blocks(page)], ids=name_of
)
def test_the_page_can_be_followed(page: Path, checkout: Path, tmp_path: Path, database: Callable[[], dict[str, str]]) -> None:
    need("openssl")
    for tool in ("nginx", "mosquitto", "haproxy"):
        if any(block.startswith(f"{tool} ") or f"\n{tool} " in block for block in blocks(page)):
            need(tool)
    for tool in ("curl", "lego", "dehydrated", "softhsm2-util", "pkcs11-tool", "swtpm", "swtpm_setup"):
        if any(re.search(rf"^{tool} ", block, re.MULTILINE) for block in blocks(page)):
            need(tool)
    if any("tpm2_" in block for block in blocks(page)):
        need("tpm2_readpublic")
    more = database() if any("createdb" in block for block in blocks(page)) else {}
    script = tmp_path / "page.sh"
    script.write_text("\n".join(f"echo '@@ block {number}' >&2\n{block}" for number, block in enumerate(blocks(page), 1)))
    with alone_with(*(f"port {number}" for number in sorted(ports(page))), within=SECONDS):
        code, said = follow(script, checkout, more)
    assert code == 0, said[-4000:]
    assert "Traceback" not in said, said


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_block_says_what_it_is(page: Path) -> None:
    assert {one["kind"] for one in BLOCK.finditer(page.read_text())} <= KINDS


def ports(page: Path) -> set[int]:
    """Numbers on a page that can only be ports, and what follows from a base."""
    text = "\n".join(blocks(page))
    named = {int(one) for one in re.findall(r"\b(500[0-9]|[12][0-9]{4}|3[0-2][0-9]{3})\b", text)}
    bases = {int(base) for base in re.findall(r"--port-base (\d+)", text)}
    return named - bases | {base + more for base in bases for more in (0, 1, 2, 80, 443)}


def test_no_two_pages_listen_on_the_same_ports_unless_they_wait_for_each_other() -> None:
    taken: dict[int, str] = {}
    for page in pages():
        for port in ports(page):
            first = taken.setdefault(port, page.stem)
            assert first == page.stem or {first, page.stem} <= set(CHALLENGED), f"{name_of(page)} and {first} use {port}"
            assert port not in range(BASES.start, BASES.stop), f"{name_of(page)} uses {port}, where other tests listen"
    assert {5001, 5002} <= taken.keys()
