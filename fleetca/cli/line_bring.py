"""`fleetca line reconcile`, `batch`, `shifts` and `verify`: units come to the CA, and what they left is checked. Edge: files and the signer's socket."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleetca.cli import output, reach
from fleetca.cli.line_station import DIR, FILE, distance_options, distant, passphrase, passphrase_option

if TYPE_CHECKING:
    from ca.keys.memory import MemoryKey
    from fleetca.line.bringing import Authority, Brought
    from fleetca.line.station import ShiftFile, Station

    Progress = Callable[[int], None]


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """Progress on a terminal; nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    with Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("units", total=total)
        yield lambda count: bar.update(task, completed=count)


@click.command(
    help="Bring what the station in DIR made to the CA: each unit gets its certificate, its provisioning record is written and countersigned, and the"
    " counts are compared. Safe to repeat, and to go on with after a crash. Exit code 8: a unit was refused."
)
@click.argument("folder", metavar="DIR", type=DIR)
@passphrase_option
@distance_options
@output.settings_option
@output.json_option
def reconcile(folder: Path, key_passphrase_file: Path, url: str | None, root: Path | None, settings: str, as_json: bool) -> int:
    from fleetca.line import bringing
    from fleetca.line.station import Station, read_shift

    at = Station(folder)
    key = at.open_key(passphrase(key_passphrase_file))
    rows, shown = [], []
    with _ca(url, root, settings, key) as (bring, issuers, seal):
        for path in at.files():
            with at.alone():
                found = read_shift(path)
                if found.size != path.stat().st_size:
                    found.cut()
            if not found.count:
                continue
            with _bar(found.count) as progress:
                done = bring(found, progress)
            recorded = bringing.write_records(at, path, key, issuers=issuers())
            rows.append(_row(done, recorded))
            shown.append(_document(done) | {"recorded": recorded})
        sealed = seal(at)
    wrong = any(one["refused"] for one in shown)
    output.result(
        {"shifts": shown, "sealed": sealed},
        reach.table(("SHIFT", "QUOTA", "UNITS", "CERTIFIED", "REFUSED", "RECORDED NOW"), rows) + f"\n{sealed} records are countersigned.",
        as_json=as_json,
    )
    return output.FINDINGS if wrong else 0


@contextmanager
def _ca(
    url: str | None, root: Path | None, settings: str, key: MemoryKey
) -> Iterator[tuple[Callable[[ShiftFile, Progress], Brought], Callable[[], Sequence[Authority]], Callable[[Station], int]]]:
    """How a shift's units are brought, who signed their certificates, and how records are countersigned: over the network, or by the signer's socket."""
    from fleetca import forms
    from fleetca.line import bringing

    with distant(url, root) as service:
        if service is not None:
            yield (
                lambda file, progress: bringing.bring_parts(service, file.path, key, answers=file.answers, progress=progress),
                lambda: tuple(service.issuers.values()),
                lambda at: bringing.have_sealed(service, at, largest=bringing.LARGEST_PART),
            )
            return
        with reach.signer(settings) as (read, signer):
            issuers = tuple(forms.issuers(read))
            yield (
                lambda file, progress: bringing.bring(signer, file.path, answers=file.answers, progress=progress),
                lambda: issuers,
                lambda at: bringing.have_sealed(signer, at),
            )


def _row(done: Brought, recorded: int) -> tuple[str, ...]:
    numbers = done.shift.number, done.shift.count, done.shift.taken, done.certified, done.refused, recorded
    return tuple(map(str, numbers))


def _document(done: Brought) -> dict[str, object]:
    return {
        "shift": done.shift.number,
        "station": done.shift.station,
        "quota": done.shift.count,
        "units": done.shift.taken,
        "certified": done.certified,
        "refused": done.refused,
        "agrees": done.agrees,
    }


@click.command(
    help="Certify all units of the signed file MANIFEST, a station's. It is judged to its end before anything is issued. What each unit got goes to"
    " --out, one line each; the same command goes on where it was cut off. Exit code 8: a unit was refused."
)
@click.argument("manifest", type=FILE)
@click.option("--out", required=True, type=FILE, help="Certificates and refusals (JSON lines).")
@output.settings_option
@output.json_option
def batch(manifest: Path, out: Path, settings: str, as_json: bool) -> int:
    from ca.errors import Malformed
    from fleetca.line import bringing

    if not manifest.is_file():
        raise Malformed("unreadable-file", f"{manifest} cannot be read.")
    with reach.signer(settings) as (_, signer), _bar(bringing.count_units(manifest)) as progress:
        done = bringing.bring(signer, manifest, answers=out, progress=progress)
    output.result(
        _document(done) | {"out": str(out)},
        f"Shift {done.shift.number}: {done.certified} of {done.shift.taken} units are certified, {done.refused} were refused.",
        as_json=as_json,
    )
    return output.FINDINGS if done.refused else 0


@click.command(help="Shifts, the newest first: what was granted, how many units were brought, and how many certificates they have.")
@output.settings_option
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True, help="Rows.")
@output.json_option
def shifts(settings: str, limit: int, as_json: bool) -> None:
    with reach.signer(settings) as (_, signer):
        found, _ = signer.shifts(limit=limit)
    columns = ("shift", "station", "operator", "profile", "quota", "units", "certified", "until")
    rows = [
        (
            str(one.shift.number), one.shift.station, one.shift.operator, one.shift.profile, str(one.shift.count), str(one.shift.taken),
            str(one.issued), output.iso(one.shift.not_after),
        )
        for one in found
    ]  # fmt: skip
    document = [
        dict(zip(columns, row, strict=True)) | {"quota": one.shift.count, "units": one.shift.taken, "certified": one.issued}
        for row, one in zip(rows, found, strict=True)
    ]
    output.result({"shifts": document}, reach.table([each.upper() for each in columns], rows) if rows else "", as_json=as_json)


@click.command(
    help="Check all that the station in DIR keeps, with no network: quotas, units, certificates, provisioning records and countersignatures. Exit code 8:"
    " something is missing or wrong."
)
@click.argument("folder", metavar="DIR", type=DIR)
@click.option(
    "--ca", "authorities", required=True, multiple=True, type=FILE, help="The issuing CA's certificate (PEM or DER); may be repeated."
)
@output.json_option
def verify(folder: Path, authorities: tuple[Path, ...], as_json: bool) -> int:
    from fleetca.cli.line import der_of
    from fleetca.line import verifying
    from fleetca.line.station import Station

    told = verifying.verify(Station(folder), [der_of(each) for each in authorities])
    document = {
        "shifts": told.shifts,
        "units": told.units,
        "certificates": told.certificates,
        "records": told.records,
        "sealed": told.sealed,
    }
    text = "\n".join([*told.findings, reach.facts([(name, str(value)) for name, value in document.items()])])
    output.result(document | {"findings": list(told.findings)}, text, as_json=as_json)
    return output.FINDINGS if told.findings else 0
