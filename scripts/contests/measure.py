"""What every contest needs: interleaved rounds, a row from them, the machine, and the page."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
JUDGES = ROOT / ".judges"


def row(*, contest: str, rival: str, ours: list[float], theirs: list[float], target: float, better: str, unit: str) -> dict[str, Any]:
    """One row from the figures of interleaved rounds: round n of ours ran beside round n of theirs."""
    ratios = [mine / their for mine, their in zip(ours, theirs, strict=True)]
    return {
        "contest": contest,
        "rival": rival,
        "ratio": statistics.median(ours) / statistics.median(theirs),
        "target": target,
        "better": better,
        "rounds": len(ours),
        "spread": [min(ratios), max(ratios)],
        "ours": statistics.median(ours),
        "theirs": statistics.median(theirs),
        "unit": unit,
    }


def interleave(rounds: int, *runners: Callable[[], float]) -> list[list[float]]:
    """Run each in turn, `rounds` times; the figures of each."""
    figures: list[list[float]] = [[] for _ in runners]
    for _ in range(rounds):
        for at, runner in enumerate(runners):
            figures[at].append(runner())
    return figures


def machine() -> Mapping[str, Any]:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    return {
        "cpu": model.group(1) if model else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory.group(1)) / 2**20) if memory else None,
        "system": platform.platform(),
    }


def versions() -> Mapping[str, str]:
    found = {name: version(name) for name in ("fleetca", "cryptography", "sqlalchemy", "flask", "uvicorn", "uvloop", "httptools")}
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {"python": platform.python_version(), "commit": commit.stdout.strip(), **found}


def rival_python(name: str) -> Path | None:
    """The Python of a rival's own environment, installed from its lock when it can be; None when not."""
    lock = ROOT / "scripts" / "contests" / f"{name}.lock"
    home = JUDGES / name
    python = home / "bin" / "python"
    stamp = home / ".installed"
    if stamp.exists() and stamp.stat().st_mtime > lock.stat().st_mtime:
        return python
    sys.stderr.write(f"  installing {name} ...\n")
    try:
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, capture_output=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--require-hashes", "-r", lock], check=True, capture_output=True)
    except (subprocess.CalledProcessError, OSError):
        return None
    stamp.touch()
    return python


_RUNNER = """
import json, os, subprocess, sys, time
with open(sys.argv[1], "wb") as sink:
    began = time.perf_counter()
    process = subprocess.Popen(sys.argv[2:], stdout=sink, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
print(json.dumps([os.waitstatus_to_exitcode(status), seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""
"""A process inherits the high-water mark of whoever started it, so that has to be a small one."""


class Run(NamedTuple):
    """One run of a program that ended well."""

    seconds: float
    processor: float
    """Seconds of processor time, of itself and of those it waited for."""
    memory: float
    """MiB at its largest."""


def alone(*command: str | Path, stdout: Path = Path(os.devnull)) -> Run:
    """Run a program to its end."""
    runner = [sys.executable, "-I", "-S", "-c", _RUNNER, str(stdout), *map(str, command)]
    code, *spent = json.loads(subprocess.run(runner, capture_output=True, text=True, check=True).stdout)
    if code != 0:
        raise RuntimeError(f"{command[0]} ended with {code}")
    return Run(*spent)


class Worker:
    """A rival in a process of its own that answers one JSON line with another."""

    def __init__(self, *command: str | Path) -> None:
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "BENCH_DIRECTORY": str(JUDGES)},
        )
        self.said = self.read()
        assert self.said.get("ready")

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args!r} ended")
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return self.read()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


def document(page: Path, name: str, result: Mapping[str, Any]) -> None:
    """Write the section of one contest into docs/benchmarks.md, leaving the others."""
    begin, end = f"<!-- contest {name} -->", f"<!-- end of {name} -->"
    lines = [begin, f"## {name}", ""]
    about = result["machine"]
    lines.append(
        f"{about['cores']} x {about['cpu']}, {about['memory_gib']} GiB; commit {result['versions']['commit']}, "
        f"Python {result['versions']['python']}, cryptography {result['versions']['cryptography']}."
    )
    lines += ["", "| contest | rival | ratio | target | spread | ours | theirs | unit |", "|---|---|---|---|---|---|---|---|"]
    for found in result["rows"]:
        sign = ">=" if found["better"] == "higher" else "<="
        low, high = found["spread"]
        lines.append(
            f"| {found['contest']} | {found['rival']} | **{found['ratio']:.2f}** | {sign} {found['target']} | {low:.2f} to {high:.2f} "
            f"in {found['rounds']} rounds | {found['ours']:.4g} | {found['theirs']:.4g} | {found['unit']} |"
        )
    lines += [f"\nLeft out: {missing}." for missing in result["missing"]]
    lines.append(end)
    text = page.read_text()
    section = "\n".join(lines)
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    page.write_text(pattern.sub(lambda _: section, text) if pattern.search(text) else text.rstrip() + "\n\n" + section + "\n")
