"""QR codes of `fleetca ceremony show`, read by a reader that is not ours: from the printed page, from the page in a browser, and from the screen."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from ca.der import pem
from fleetca.cli.main import fleetca
from tests.fakes.ceremony import csr
from tests.parts import need

_PIXELS = 4
"""A module, in the pictures that we make."""


def read(picture: Path) -> list[str]:
    """What zbar sees."""
    done = subprocess.run(
        [need("zbarimg"), "--quiet", "--raw", "-Sdisable", "-Sqrcode.enable", picture], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def picture(rows: Sequence[Sequence[bool]], file: Path) -> Path:
    """Dark and light modules as a picture (PGM)."""
    wide = [bytes(0 if dark else 255 for dark in row for _ in range(_PIXELS)) for row in rows for _ in range(_PIXELS)]
    file.write_bytes(f"P5 {len(wide[0])} {len(wide)} 255\n".encode() + b"".join(wide))
    return file


def from_screen(lines: Sequence[str]) -> list[list[bool]]:
    """Block characters on a dark terminal: what is drawn is light."""
    halves = {" ": (True, True), "▀": (False, True), "▄": (True, False), "█": (False, False)}
    inverse = any("\x1b[7m" in line for line in lines)
    rows: list[list[bool]] = []
    for line in lines:
        text = re.sub(r"\x1b\[[0-9;]*m", "", line)
        upper, lower = zip(*(halves[letter] for letter in text), strict=True)
        rows += [[each is not inverse for each in half] for half in (upper, lower)]
    return rows


def from_svg(drawn: str) -> list[list[bool]]:
    """The dark runs of a path."""
    size = int(re.search(r'viewBox="0 0 (\d+) ', drawn)[1])  # type: ignore[index]
    rows = [[False] * size for _ in range(size)]
    for left, top, width in re.findall(r"M(\d+) (\d+)h(\d+)v1", drawn):
        for at in range(int(left), int(left) + int(width)):
            rows[int(top)][at] = True
    return rows


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("codes")
    (folder / "issuing.csr").write_text(pem.pem(pem.REQUEST, csr("rsa-3072")))
    return folder


def show(shown: Path, *options: str) -> str:
    done = CliRunner().invoke(fleetca, ["ceremony", "show", str(shown / "issuing.csr"), *options])
    assert done.exit_code == 0, done.output
    return done.stdout


def collected(shown: Path, texts: Sequence[str], name: str) -> None:
    """Back to the very file."""
    (shown / f"{name}.parts").write_text("\n".join(reversed(texts)))
    done = CliRunner().invoke(fleetca, ["ceremony", "collect", str(shown / f"{name}.parts"), "--out", str(shown / name)])
    assert done.exit_code == 0, done.output
    assert (shown / name).read_bytes() == pem.der_of((shown / "issuing.csr").read_bytes(), pem.REQUEST)


def test_the_printed_codes_are_read_back_to_the_very_file(shown: Path) -> None:
    said = json.loads(show(shown, "--page", str(shown / "page.pdf"), "--json"))
    assert len(said["parts"]) > 1
    subprocess.run([need("pdftoppm"), "-r", "110", "-gray", "page.pdf", "page"], cwd=shown, check=True)
    found = [text for picture in sorted(shown.glob("page-*.pgm")) for text in read(picture)]
    assert sorted(found) == sorted(said["parts"])
    collected(shown, found, "printed")


def test_the_codes_of_the_page_in_a_browser_are_read_back(shown: Path) -> None:
    show(shown, "--page", str(shown / "page.html"))
    drawn = re.findall(r"<svg.*?</svg>", (shown / "page.html").read_text())
    found = [text for at, svg in enumerate(drawn) for text in read(picture(from_svg(svg), shown / f"svg-{at}.pgm"))]
    collected(shown, found, "browser")


def test_the_codes_on_the_screen_are_read_back(shown: Path) -> None:
    parts = re.split(r"^\d+ of \d+$", show(shown), flags=re.MULTILINE)[1:]
    codes = [[line for line in part.split("\n") if re.search(r"[▀▄█]", line)] for part in parts]
    found = [text for at, lines in enumerate(codes) for text in read(picture(from_screen(lines), shown / f"screen-{at}.pgm"))]
    collected(shown, found, "screen")
