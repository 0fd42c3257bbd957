"""Keeps the CRL files of a service fresh: fetches, believes nothing unverified, writes whole files, and says in time when a CRL is about to end.

What a crash leaves: the old file or the new one. A CRL that is not better than the one at hand (another issuer's, another shard's, an older number, cut,
over) leaves the old one where it is: a service with a CRL that holds for another hour is better off than one with none.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from ca.der import pem
from ca.errors import Broken, FleetcaError, StoreUnavailable
from ca.model import Issuer, UnixTime
from crl.rules import anatomy
from fleetca.relying_party import judging, reading

WARN: Final = 0.25


@dataclass
class Report:
    """What one run did."""

    kept: list[str] = field(default_factory=list)
    """Addresses whose CRL was fetched anew."""
    findings: list[str] = field(default_factory=list)
    changed: bool = False
    hook: int | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a service needs."""

    urls: Sequence[str]
    out: Path
    state: Path
    issuers: Sequence[Issuer]
    form: str = "pem"
    """`pem`: one file with all; `der`: one CRL; `hashed`: a folder by issuer hash, as OpenSSL's CApath wants it."""
    deltas: bool = False
    hook: str = ""
    warn: float = WARN
    mode: int = 0o644


def run(wanted: Wanted, *, now: UnixTime, get: Callable[..., reading.Fetched | None] = reading.fetch) -> Report:
    """Fetch what is newer, write what changed, run the hook."""
    report = Report()
    wanted.state.mkdir(parents=True, exist_ok=True)
    held: list[bytes] = []
    for url in wanted.urls:
        octets = _bring(url, wanted, report, now=now, get=get)
        if octets is None:
            report.findings.append(f"There is no CRL of {url} here at all.")
            continue
        held.append(octets)
        read = reading.read(octets)
        left = (read.next_update - now) / max(1, read.next_update - read.this_update)
        if left <= 0:
            report.findings.append(f"The CRL of {url} has ended: who checks it refuses everybody.")
        elif left <= wanted.warn:
            report.findings.append(f"The CRL of {url} ends in {read.next_update - now} s and no newer one could be had.")
        if wanted.deltas:
            held += _deltas(read, wanted, report, now=now, get=get)
    if len(held) >= len(wanted.urls):
        _write_all(wanted, held, report)
    if report.changed and wanted.hook:
        report.hook = subprocess.run(["/bin/sh", "-c", wanted.hook], check=False).returncode
        if report.hook:
            report.findings.append(f"The hook ended with {report.hook}.")
            # The service may still have the old one: the next run tries again.
            (wanted.state / "told").unlink(missing_ok=True)
    if report.changed and not report.hook:
        (wanted.state / "told").write_text(_digest(held))
    return report


def _bring(url: str, wanted: Wanted, report: Report, *, now: UnixTime, get: Callable[..., Any], base: int | None = None) -> bytes | None:
    """The best CRL of an address: what it gives now, or what it gave before."""
    place = wanted.state / sha256(url.encode()).hexdigest()[:24]
    kept = _kept(place.with_suffix(".der"))
    tag = None
    with suppress(OSError, ValueError, KeyError):
        tag = json.loads(place.with_suffix(".json").read_text())["tag"] if kept else None
    try:
        found = get(url, tag=tag)
        if found is None:
            return kept
        octets = reading.der_of(found.octets)
        read, _ = judging.judge(octets, list(wanted.issuers), point=url, now=now)
        if (read.base() is not None) is not (base is not None):
            raise Broken("crl-kind", f"{url} gave a delta where a complete CRL belongs, or the other way round.")
        if base is not None and (read.base() or 0) > base:
            raise Broken("crl-base", f"The delta at {url} adds to CRL {read.base()}, and the one here is {base}.")
        if kept is not None and octets != kept and read.number() <= reading.read(kept).number():
            raise Broken("crl-number", f"{url} gave number {read.number()}, and {reading.read(kept).number()} was here already.")
    except FleetcaError as error:
        report.findings.append(f"{url}: {error.what}{' ' + error.why if error.why else ''} [{error.code}]")
        return kept
    if octets != kept:
        report.kept.append(url)
        _put(place.with_suffix(".der"), octets, 0o644)
    _put(place.with_suffix(".json"), json.dumps({"url": url, "tag": found.tag}).encode(), 0o644)
    return octets


def _kept(path: Path) -> bytes | None:
    """What was fetched before; None where it is not what was written."""
    try:
        octets = path.read_bytes()
        reading.read(octets)
    except (OSError, FleetcaError):
        return None
    return octets


def _deltas(read: anatomy.Anatomy, wanted: Wanted, report: Report, *, now: UnixTime, get: Callable[..., Any]) -> list[bytes]:
    found = []
    for url in read.freshest():
        octets = _bring(url, wanted, report, now=now, get=get, base=read.number())
        if octets is not None and reading.read(octets).number() > read.number():
            found.append(octets)
    return found


def _digest(held: Sequence[bytes]) -> str:
    return sha256(b"".join(sha256(octets).digest() for octets in held)).hexdigest()


def _write_all(wanted: Wanted, held: Sequence[bytes], report: Report) -> None:
    told = wanted.state / "told"
    same = told.exists() and told.read_text() == _digest(held)
    if wanted.form == "hashed":
        files = _hashed(held)
        report.changed = not same or any(not (wanted.out / name).exists() for name in files)
        if report.changed:
            wanted.out.mkdir(parents=True, exist_ok=True)
            for name, octets in files.items():
                _put(wanted.out / name, octets, wanted.mode)
        return
    if wanted.form == "der" and len(held) != 1:
        raise Broken("one-crl-only", "DER files hold one CRL each.", fix="Use --form pem, or one run for each.")
    octets = held[0] if wanted.form == "der" else b"".join(pem.pem("X509 CRL", one).encode() for one in held)
    report.changed = not same or not wanted.out.exists() or wanted.out.read_bytes() != octets
    if report.changed:
        _put(wanted.out, octets, wanted.mode)


def _hashed(held: Sequence[bytes]) -> dict[str, bytes]:
    """`HASH.rN`, as `openssl rehash` names CRLs."""
    files: dict[str, bytes] = {}
    for octets in held:
        text = pem.pem("X509 CRL", octets).encode()
        said = subprocess.run(["openssl", "crl", "-hash", "-noout"], input=text, capture_output=True, check=True).stdout.decode().strip()
        number = next(n for n in range(len(held)) if f"{said}.r{n}" not in files)
        files[f"{said}.r{number}"] = text
    return files


def _put(path: Path, octets: bytes, mode: int) -> None:
    """Whole and durable, or not at all."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(octets)
            file.flush()
            os.fsync(descriptor)
        fresh.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise StoreUnavailable("unwritable-file", f"{path} cannot be written.", why=error.strerror or str(error)) from None
