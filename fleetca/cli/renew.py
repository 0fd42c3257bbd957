"""`fleetca renew`: replace a certificate and its key over the network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleetca.cli import output, reach

if TYPE_CHECKING:
    from config.settings import Settings


@click.command(
    help="Renew the certificate in a file: make a new key, ask the enrolment service with the current pair (mTLS, or a message signed with the key"
    " where TLS cannot carry it), check the answer, replace both files, and confirm that the new pair works. Safe to repeat."
)
@output.settings_option
@click.option("--certificate", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The certificate (PEM); is replaced.")
@click.option("--key", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Its key (PEM); is replaced.")
@click.option("--url", envvar="FLEETCA_URL", help="The enrolment service, https://HOST:PORT; from the settings when absent.")
@click.option(
    "--root", type=click.Path(dir_okay=False, path_type=Path), help="The trusted root certificate (PEM); from the settings when absent."
)
@click.option(
    "--passphrase-file", type=click.Path(dir_okay=False, path_type=Path), help="What unlocks a sealed key; seals the new one too."
)
@click.option("--by", type=click.Choice(["auto", "tls", "message"]), default="auto", show_default=True, help="How the current key speaks.")
@click.option("--if-due", is_flag=True, help="Do nothing before two thirds of the lifetime have passed; for timers.")
@output.json_option
def renew(
    settings: str,
    certificate: Path,
    key: Path,
    url: str | None,
    root: Path | None,
    passphrase_file: Path | None,
    by: str,
    if_due: bool,
    as_json: bool,
) -> None:
    from ca.system import SystemChance, SystemClock
    from fleetca.agent import pairs, renewing

    clock = SystemClock()
    if url is None or root is None:
        from fleetca.forms import read_settings

        read = read_settings(settings)
        url, root = url or read.enroll.url, root or root_of(read)
    pair = pairs.Pair(certificate, key, None if passphrase_file is None else (lambda: _passphrase(passphrase_file)))
    if if_due and not pair.request.exists() and not pair.next_certificate.exists():
        due = renewing.due_from(pairs.read_pair(pair)[0])
        if clock.now() < due:
            output.result({"renewed": False, "due": output.iso(due)}, "", as_json=as_json)
            output.note(f"Not due before {output.iso(due)} ({output.distance(due, clock.now())}).")
            return
    done = renewing.renew(pair, renewing.Service(url, root), by=renewing.By(by), clock=clock, chance=SystemChance())
    facts = done.certificate
    renew_at = done.answer.get("renew_at")
    document = {
        "renewed": True,
        "serial": f"{facts.serial:040x}",
        "not_before": output.iso(facts.not_before),
        "not_after": output.iso(facts.not_after),
        "renew_at": renew_at,
        "by": done.by.value,
        "certificate": str(certificate),
        "key": str(key),
        "sha256": reach.fingerprint(facts.der),
        "leaf": done.answer.get("leaf"),
    }
    output.result(document, str(certificate), as_json=as_json)
    output.note(
        reach.facts(
            (
                ("serial", f"{facts.serial:040x}"),
                ("valid until", f"{output.iso(facts.not_after)} ({output.distance(facts.not_after, clock.now())})"),
                ("SHA-256", reach.fingerprint(facts.der)),
                ("key", str(key)),
                ("next", f"run it again at {renew_at or output.iso(renewing.due_from(facts))}, or from a timer with --if-due"),
            )
        )
    )


def root_of(settings: Settings) -> Path:
    """The root above the deployment's own issuer."""
    roots = [issuer.certificate for issuer in settings.issuers if issuer.key is None]
    return roots[0] if roots else settings.issuers[0].certificate


def _passphrase(file: Path) -> bytes:
    return reach.read(str(file)).removesuffix(b"\n")
