"""The ceremony's commands as people call them: every shipped sheet, a machine without a network, and a kill -9 at every step."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ca.der import pem
from ca.errors import Conflict, Denied, FleetcaError, Unacceptable
from ca.rules import transcript
from fleetca.cli.main import fleetca
from tests.fakes.ceremony import csr
from tests.parts import need

SHEETS = Path(__file__).parents[2] / "config/ceremonies"
NAMES = sorted(path.stem for path in SHEETS.glob("*.toml"))
COMMAND = (sys.executable, "-m", "fleetca.cli.main")
PASSPHRASE = "correct horse battery staple"


def run(*arguments: str | Path) -> Any:
    done = CliRunner().invoke(fleetca, [str(each) for each in arguments], catch_exceptions=True)
    if done.exception is not None and not isinstance(done.exception, SystemExit | FleetcaError):
        raise done.exception
    return done


def document(*arguments: str | Path) -> Any:
    done = run(*arguments, "--json")
    if isinstance(done.exception, FleetcaError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def secret(path: Path, text: str = PASSPHRASE) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


PEOPLE = (("administrator", "Alex"), ("witness", "Wanda"))

SHEET = """
[ceremony]
name = "small"
about = "a root and its CRL"
place = "a test"
confirm = ["witness"]
{network}
{roles}
[[acts]]
act = "root"
id = "root"
algorithm = "p256"
subject = {{ common_name = "Small Root" }}
not_after = "10y"
[[acts]]
act = "root-crl"
id = "root-crl"
issuer = "root"
next_update = "90d"
"""


def small(folder: Path, *, network: bool = True) -> tuple[Path, Path]:
    """A sheet with two people whose keys are there, and its credentials."""
    roles, places = "", ""
    for role, person in PEOPLE:
        name = person.lower()
        made = document(
            "ceremony", "role-key", name, "--out", folder, "--passphrase-file", secret(folder / f"{name}.pass", f"the words of {name}")
        )
        roles += f'[[roles]]\nrole = "{role}"\nperson = "{person}"\nkey_sha256 = "{made["key_sha256"]}"\n'
        places += f'[people.{person}]\nkey = "sealed:{name}.key"\npassphrase = "file:{name}.pass"\n'
    (folder / "small.toml").write_text(SHEET.format(network='allow_network = "a test"' if network else "", roles=roles))
    (folder / "credentials.toml").write_text(places)
    secret(folder / "root.pass")
    return folder / "small.toml", folder / "credentials.toml"


def hold(sheet: Path, credentials: Path, out: Path) -> tuple[str | Path, ...]:
    return (
        "ceremony", "run", sheet, "--out", out, "--credentials", credentials, "--passphrase-file", sheet.parent / "root.pass", "--yes",
    )  # fmt: skip


# ---- The shipped sheets -------------------------------------------------------------------------------------------------


def test_at_least_four_example_sheets_are_shipped() -> None:
    assert len(NAMES) >= 6


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_sheet_plans_as_it_stands(name: str) -> None:
    plan = document("ceremony", "plan", SHEETS / f"{name}.toml")
    assert "pass every rule" in plan["lint"]
    assert plan["sheet_sha256"] == hashlib.sha256((SHEETS / f"{name}.toml").read_bytes()).hexdigest()
    assert all(act["steps"] for act in plan["acts"])


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_sheet_rehearses_and_its_rehearsal_verifies(name: str, tmp_path: Path) -> None:
    done = document("ceremony", "rehearse", SHEETS / f"{name}.toml", "--out", tmp_path / "out", "--yes")
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert [file for file in files if not file.startswith(("REHEARSAL-", "input-"))] == ["sheet.toml"]
    assert not [file for file in files if file.endswith(".key")]
    verified = document("ceremony", "verify", tmp_path / "out")
    assert verified["rehearsal"] is True
    assert len(verified["outputs"]) == len(done["outputs"])
    for made in done["outputs"]:
        if made["file"].endswith(".pem"):
            text = subprocess.run(
                ["openssl", "x509", "-noout", "-subject", "-in", made["file"]], capture_output=True, text=True, check=True
            ).stdout
            assert "REHEARSAL - NOT FOR PRODUCTION" in text or "OU = REHEARSAL" in text, text


def test_a_rehearsal_is_not_imported(tmp_path: Path) -> None:
    from ca.system import SystemChance
    from fleetca import deployment

    made = deployment.create(tmp_path / "fleet", deployment.Wanted(host="pki.example"), chance=SystemChance())
    document("ceremony", "rehearse", made.sheet, "--out", tmp_path / "out", "--yes")
    with pytest.raises(Unacceptable) as caught:
        document("ceremony", "import", tmp_path / "out", "--settings", made.settings)
    assert caught.value.code == "rehearsal"
    assert not list((made.settings.parent / "ca").iterdir())


def test_a_rehearsal_whose_marks_were_taken_off_is_not_imported_either(tmp_path: Path) -> None:
    from ca.system import SystemChance
    from fleetca import deployment

    made = deployment.create(tmp_path / "fleet", deployment.Wanted(host="pki.example"), chance=SystemChance())
    out = tmp_path / "out"
    document("ceremony", "rehearse", made.sheet, "--out", out, "--yes")
    for path in list(out.iterdir()):
        path.rename(out / path.name.removeprefix("REHEARSAL-"))
    with pytest.raises(FleetcaError):
        document("ceremony", "import", out, "--settings", made.settings)
    said = (out / transcript.FILE).read_bytes()
    (out / transcript.FILE).write_bytes(said.replace(b'"rehearsal":true', b'"rehearsal":false'))
    with pytest.raises(FleetcaError):
        document("ceremony", "import", out, "--settings", made.settings)


# ---- The plan -----------------------------------------------------------------------------------------------------------


def test_the_plans_octets_are_those_that_are_signed_but_for_the_marked_ones(tmp_path: Path) -> None:
    from ca.system import SystemChance, SystemClock
    from fleetca import ceremonies
    from tests.fakes.ceremony import apart

    sheet = tmp_path / "root-and-issuing.toml"
    shutil.copy(SHEETS / "root-and-issuing.toml", sheet)
    (tmp_path / "issuing.csr").write_text(pem.pem(pem.REQUEST, csr()))
    plan = document("ceremony", "plan", sheet)
    ceremonies.run(
        sheet, out=tmp_path / "out", passphrase=PASSPHRASE.encode, confirm=lambda step: True, clock=SystemClock(), chance=SystemChance(),
        room=apart,
    )  # fmt: skip
    said = transcript.read((tmp_path / "out" / transcript.FILE).read_bytes())
    marks: list[str] = []
    for act in plan["acts"]:
        (drafted,) = said.of("drafted", act["act"])
        tbs = transcript.octets_of(drafted.fields["tbs"])
        assert len(tbs) == act["tbs_octets"]
        at = 0
        for piece in re.findall(r"<[^>]+>|[0-9a-f]+", act["tbs"]):
            if piece.startswith("<"):
                length = int(re.search(r"(\d+) octets>", piece)[1])  # type: ignore[index]
                marks.append(piece.partition(":")[0][1:])
            else:
                length = len(piece) // 2
                assert tbs[at : at + length].hex() == piece, act["act"]
            at += length
        assert at == len(tbs)
    assert {"serial number", "notBefore", "notAfter", "public key of root", "key identifier of root", "thisUpdate", "nextUpdate"} <= set(
        marks
    )
    # The CSR is there, so its key is not marked.
    assert "public key of issuing" not in marks


def test_what_is_missing_on_the_day_stands_in_the_plan() -> None:
    plan = document("ceremony", "plan", SHEETS / "witnessed-root.toml")
    assert any("issuing.csr" in each for each in plan["missing"])
    assert any("Wanda Witness" in each for each in plan["missing"])
    tbs = next(act for act in plan["acts"] if act["act"] == "issuing")["tbs"]
    assert "<public key of issuing: 91 octets>" in tbs


@pytest.mark.req("REQ-KEY-060")
@pytest.mark.parametrize(
    ("algorithm", "not_after", "warned"),
    [
        pytest.param("p384", '"20y"', ["root"], id="a curve for twenty years"),
        pytest.param("rsa-4096", "2036-01-01T00:00:00Z", ["root"], id="RSA into 2036"),
        pytest.param("p384", "2035-12-31T23:59:59Z", [], id="a curve until the end of 2035"),
        pytest.param("ml-dsa-65", '"20y"', [], id="ML-DSA for twenty years"),
    ],
)
def test_the_plan_warns_of_a_CA_certificate_that_outlives_its_algorithm(
    algorithm: str, not_after: str, warned: list[str], tmp_path: Path
) -> None:
    text = (SHEETS / "root-and-issuing.toml").read_text().replace('algorithm = "p384"', f'algorithm = "{algorithm}"')
    sheet = tmp_path / "sheet.toml"
    sheet.write_text(text.replace('not_after = "20y"', f"not_after = {not_after}"))
    plan = document("ceremony", "plan", sheet, "--on", "2026-12-01")
    assert [act["act"] for act in plan["acts"] if any(f" {act['act']} " in each for each in plan["warnings"])] == warned
    assert all(algorithm in each and "after 2035" in each for each in plan["warnings"])


def test_numbers_and_dates_follow_and_are_shown() -> None:
    plan = document("ceremony", "plan", SHEETS / "root-year.toml", "--on", "2026-12-01")
    crls = [act["facts"] for act in plan["acts"] if act["act"].startswith("root-crl")]
    assert [each["number"].split()[0] for each in crls] == [str(number) for number in range(2, 16)]
    assert crls[0]["thisUpdate"] == "2026-12-01 00:00:00Z"
    assert crls[1]["thisUpdate"] == "2026-12-31 00:00:00Z"  # 45 days less 15
    assert crls[-1]["nextUpdate"] > "2028-01-01"
    assert all(each["issuer until"] == "2046-01-15 08:59:59Z" for each in crls)


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.heads: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_data(self, data: str) -> None:
        if self.lasttag == "th":
            self.heads.append(data)
        self.text += data


def test_the_script_has_what_people_fill_in_and_needs_nothing_else(tmp_path: Path) -> None:
    document("ceremony", "plan", SHEETS / "witnessed-root.toml", "--script", tmp_path / "script.html")
    page = Page()
    page.feed((tmp_path / "script.html").read_text())
    assert {"Activity", "Expected hash", "Real hash", "Initials", "Time"} <= set(page.heads)
    assert page.links == []
    assert "script" not in page.tags
    assert hashlib.sha256((SHEETS / "witnessed-root.toml").read_bytes()).hexdigest() in page.text
    assert page.text.count("Wanda Witness") > 3
    with pytest.raises(Conflict):
        document("ceremony", "plan", SHEETS / "witnessed-root.toml", "--script", tmp_path / "script.html")


def test_the_script_is_a_pdf_where_its_name_says_so(tmp_path: Path) -> None:
    document("ceremony", "plan", SHEETS / "retire-root.toml", "--script", tmp_path / "script.pdf")
    assert (tmp_path / "script.pdf").read_bytes().startswith(b"%PDF-1.4")
    with pytest.raises(FleetcaError) as caught:
        document("ceremony", "plan", SHEETS / "retire-root.toml", "--script", tmp_path / "script.doc")
    assert caught.value.code == "no-such-paper"
    assert not (tmp_path / "script.doc").exists()


# ---- A machine without a network ----------------------------------------------------------------------------------------


ADD = " || ".join(f"ip link add name up0 type {kind} 2>&1" for kind in ("dummy", "veth", "bridge"))
"""Whichever the kernel has."""


def in_namespace(command: str, *, cwd: Path) -> subprocess.CompletedProcess[str]:
    need("unshare")
    return subprocess.run(
        ["unshare", "--map-root-user", "--net", "sh", "-euc", command], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.mark.req("REQ-KEY-002")
def test_a_ceremony_runs_inside_a_network_namespace_without_interfaces(tmp_path: Path) -> None:
    sheet, credentials = small(tmp_path, network=False)
    line = " ".join(map(str, (*COMMAND, *hold(sheet, credentials, tmp_path / "out"))))
    done = in_namespace(line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    verified = document("ceremony", "verify", tmp_path / "out" / transcript.FILE)
    assert [each["person"] for each in verified["people"]] == ["Alex", "Wanda"]
    assert verified["remarks"] == []
    assert verified["software_is_this"] is True


@pytest.mark.req("REQ-KEY-002")
def test_with_an_interface_up_it_refuses_and_with_loopback_alone_it_does_not(tmp_path: Path) -> None:
    need("ip")
    sheet, credentials = small(tmp_path, network=False)
    line = " ".join(map(str, (*COMMAND, *hold(sheet, credentials, tmp_path / "out"))))
    done = in_namespace(f"{ADD}; ip link set up0 up; {line}", cwd=tmp_path)
    assert done.returncode == 5, done.stderr
    assert "up0 is up" in done.stderr
    assert not list((tmp_path / "out").glob("*"))
    done = in_namespace(f"ip link set lo up; {line}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


# ---- kill -9 ------------------------------------------------------------------------------------------------------------

FAILPOINTS = (
    "ceremony.after-begin",
    "ceremony.after-confirmed",
    "ceremony.after-key",
    "ceremony.after-drafted",
    "ceremony.before-sign",
    "ceremony.after-sign",
    "ceremony.after-output",
)


@pytest.mark.parametrize("place", FAILPOINTS)
def test_R32_a_command_killed_with_9_goes_on_and_signs_no_two_things_for_one_act(tmp_path: Path, place: str) -> None:
    sheet, credentials = small(tmp_path)
    command = [*COMMAND, *map(str, hold(sheet, credentials, tmp_path / "out"))]
    killed = subprocess.run(command, env={**os.environ, "FLEETCA_FAILPOINT": f"{place}=kill"}, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    before = (tmp_path / "out" / transcript.FILE).read_bytes()
    again = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(again.stdout)["resumed"] is True
    said = (tmp_path / "out" / transcript.FILE).read_bytes()
    assert said.startswith(before[: before.rindex(b"\n") + 1])
    drafted = [(line["act"], line["tbs_sha256"]) for line in map(json.loads, said.splitlines()) if line["kind"] in {"drafted", "signing"}]
    assert len(set(drafted)) == 2
    verified = document("ceremony", "verify", tmp_path / "out")
    assert any("stopped" in each for each in verified["remarks"])


def test_two_processes_do_not_work_in_one_folder(tmp_path: Path) -> None:
    from fleetca.ceremony_lock import FolderLock

    sheet, credentials = small(tmp_path)
    with FolderLock(tmp_path / "out"), pytest.raises(Conflict) as caught:
        document(*hold(sheet, credentials, tmp_path / "out"))
    assert caught.value.code == "ceremony-runs"
    document(*hold(sheet, credentials, tmp_path / "out"))


# ---- Against the paper --------------------------------------------------------------------------------------------------


def test_verify_holds_a_ceremony_against_what_was_noted_on_paper(tmp_path: Path) -> None:
    sheet, credentials = small(tmp_path)
    document(*hold(sheet, credentials, tmp_path / "out"))
    found = document("ceremony", "verify", tmp_path / "out")
    for option, right, code in (
        ("--root-sha256", found["root_sha256"], "another-root"),
        ("--sheet-sha256", found["sheet_sha256"], "another-sheet"),
        ("--software-sha256", found["software_sha256"][0], "another-software"),
    ):
        document("ceremony", "verify", tmp_path / "out", option, ":".join(right[at : at + 2].upper() for at in range(0, 64, 2)))
        with pytest.raises(Unacceptable) as caught:
            document("ceremony", "verify", tmp_path / "out", option, "00" * 32)
        assert caught.value.code == code


def test_a_sheet_that_was_exchanged_in_the_folder_is_noticed(tmp_path: Path) -> None:
    sheet, credentials = small(tmp_path)
    document(*hold(sheet, credentials, tmp_path / "out"))
    kept = tmp_path / "out/sheet.toml"
    kept.write_text(kept.read_text().replace("10y", "11y"))
    with pytest.raises(Unacceptable) as caught:
        document("ceremony", "verify", tmp_path / "out")
    assert caught.value.code == "sheet-changed"


def test_somebody_who_is_not_there_stops_it_before_anything_is_made(tmp_path: Path) -> None:
    sheet, credentials = small(tmp_path)
    (tmp_path / "wanda.key").unlink()
    with pytest.raises(FleetcaError) as caught:
        document(*hold(sheet, credentials, tmp_path / "out"))
    assert caught.value.code == "no-such-key"
    assert not list((tmp_path / "out").iterdir())


def test_the_network_of_this_machine_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sheet, credentials = small(tmp_path, network=False)
    monkeypatch.setattr("fleetca.ceremony_host.interfaces", lambda: ("eth7",))
    with pytest.raises(Denied) as caught:
        document(*hold(sheet, credentials, tmp_path / "out"))
    assert caught.value.code == "network-up"


def test_what_people_remark_stands_in_the_transcript_until_it_is_sealed(tmp_path: Path) -> None:
    sheet, credentials = small(tmp_path)
    out = tmp_path / "out"
    with pytest.raises(FleetcaError) as caught:
        document("ceremony", "note", out, "The camera stopped")
    assert caught.value.code == "no-transcript"
    command = [*COMMAND, *map(str, hold(sheet, credentials, out))]
    subprocess.run(command, env={**os.environ, "FLEETCA_FAILPOINT": "ceremony.after-key=kill"}, capture_output=True, check=False)
    document("ceremony", "note", out, "The camera stopped at 10:14 and was started again")
    with pytest.raises(FleetcaError) as caught:
        document("ceremony", "note", out, "two\nlines")
    assert caught.value.code == "bad-note"
    document(*hold(sheet, credentials, out))
    assert "noted: The camera stopped at 10:14 and was started again" in document("ceremony", "verify", out)["remarks"]
    with pytest.raises(Conflict) as finished:
        document("ceremony", "note", out, "too late")
    assert finished.value.code == "ceremony-finished"
