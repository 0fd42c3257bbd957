"""`fleetca ocsp`: sign answers ahead, and sweep those that have ended."""

from __future__ import annotations

from pathlib import Path

import click

from fleetca.cli import output


@click.group()
def ocsp() -> None:
    """Sign OCSP answers ahead, and sweep those that have ended."""


@ocsp.command(
    help="Sign an answer for every certificate whose answer is due, into the spool and, with --files, as files under the paths of GET requests."
    " A publisher does this by itself (setting ocsp.presign); this is for one that does not, for another spool, or for the first million. It may"
    " be interrupted and called again: only what is due is signed. Exits with 8 when some answers could not be made."
)
@output.settings_option
@click.option("--spool", type=click.Path(path_type=Path), help="Another spool than the settings name; one process writes a spool.")
@click.option("--files", type=click.Path(path_type=Path), help="A folder for answers as files, beside the spool.")
@click.option("--watch", is_flag=True, help="Go on: follow revocations within two seconds, sign what becomes due, sweep what has ended.")
@output.json_option
def presign(settings: str, spool: Path | None, files: Path | None, watch: bool, as_json: bool) -> int:
    from ca.model import Role
    from ca.signer.client import SignerClient
    from ca.store.engine import open_store
    from ca.system import SystemClock
    from fleetca import forms
    from fleetca.presigning import Presigner
    from fleetca.process import Process
    from ocsp.presign import Progress

    read = forms.read_settings(Path(settings))
    store = open_store(forms.store_url(read), readonly=True)
    presigner = Presigner(read, store, SignerClient(read.signer.socket, Role.publisher), spool=spool, files=files)
    if watch:
        process = Process()
        process.begin()
        presigner.run(process.stopping)
        store.close()
        return 0
    clock = SystemClock()
    began = told = clock.monotonic()

    def tell(progress: Progress) -> None:
        nonlocal told
        if clock.monotonic() - told >= 1:
            told = clock.monotonic()
            output.note(f"{progress.seen} certificates, {progress.signed} answers signed, {progress.signed / (told - began):.0f} a second")

    done = presigner.once(tell)
    seconds = clock.monotonic() - began
    document = {"certificates": done.seen, "signed": done.signed, "failed": done.failed, "seconds": round(seconds, 3)}
    output.result(document, f"{done.signed} answers signed for {done.seen} certificates in {seconds:.1f} s.", as_json=as_json)
    if done.failed:
        output.note(f"{done.failed} answers could not be made: the signer gave no responder certificate, or it ends at once.")
    store.close()
    return output.FINDINGS if done.failed else 0


@ocsp.command(
    help="Remove answers whose nextUpdate has come from a folder that `fleetca ocsp presign --files` fills, or from a bucket (s3://BUCKET/PREFIX). It"
    " needs nothing but the place: neither settings nor database. With --every it goes on until it is told to stop."
)
@click.argument("folder")
@click.option("--endpoint", help="Of S3-compatible storage that is not AWS.")
@click.option("--region", help="Of the bucket.")
@click.option("--every", type=click.FloatRange(min=0.1), help="Seconds between two rounds.")
@click.option("--ahead", type=click.IntRange(min=0), default=0, help="Seconds before nextUpdate: as long as caches may keep an answer.")
@click.option(
    "--young",
    type=click.IntRange(min=0),
    default=0,
    help="Seconds: objects that were put into a bucket since then are not asked when they end. At most the lifetime of answers, less --ahead, "
    "backdating and what clocks may differ.",
)
@output.json_option
def sweep(folder: str, endpoint: str | None, region: str | None, every: float | None, ahead: int, young: int, as_json: bool) -> None:
    from ca.system import SystemClock
    from fleetca.process import Process

    clock = SystemClock()

    def once() -> int:
        if folder.startswith("s3://"):
            from fleetca.presigning import bucket_of
            from ocsp.spool import bucket

            place = bucket_of(folder, endpoint=endpoint, region=region)
            return bucket.sweep(place.client, place.name, prefix=place.prefix, now=clock.now(), ahead=ahead, young=young)
        from ocsp.spool import folder as files

        if not Path(folder).is_dir():
            raise click.BadParameter(f"There is no folder {folder}.", param_hint="FOLDER")
        return files.sweep(Path(folder), now=clock.now(), ahead=ahead)

    if every is None:
        gone = once()
        output.result({"removed": gone}, f"{gone} answers removed.", as_json=as_json)
        return
    process = Process()
    process.begin()
    while True:
        once()
        if process.stopping.wait(every):
            return
