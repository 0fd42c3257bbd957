"""`fleetca approvals request`: grave acts, asked for by an operator's signature; and how they are shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from fleetca.cli import hand, output, reach

if TYPE_CHECKING:
    from collections.abc import Callable

    from ca.model import GraveAct, Proposal


@click.group(
    help="Ask for an act that one person alone does not do. It is signed with your operator's key, and another person with another key approves"
    " it: fleetca approvals approve. Then the act is done by its own command."
)
def request() -> None:
    pass


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every request has."""
    for option in (
        output.json_option,
        output.settings_option,
        hand.options(required=True),
        click.option("--within", metavar="TIME", default="7d", show_default=True, help="How long it holds; at most 30d."),
        click.option("--reason", required=True, help="Why; the other person reads it, and it goes on record."),
    ):
        command = option(command)
    return command


@request.command(help="That the id of the retired device ID may enrol again. Done by: fleetca devices revive ID")
@click.option("--device", required=True, metavar="ID", help="The device.")
@_options
def revive(device: str, **common: Any) -> None:
    from ca.model import GraveAct
    from ca.rules import ids

    _ask(GraveAct.revive, {"device": ids.device_id(device)}, **common)


@request.command(
    "waive-wipe",
    help="That the record of the retired device ID is closed without its wipe receipt; --reason says why. Done by: fleetca devices waive-wipe ID",
)
@click.option("--device", required=True, metavar="ID", help="The device.")
@_options
def waive_wipe(device: str, **common: Any) -> None:
    from ca.model import GraveAct
    from ca.rules import ids

    _ask(GraveAct.waive_wipe, {"device": ids.device_id(device)}, **common)


@request.command(
    "ca-certificate",
    help="That the outputs of a ceremony in FOLDER, which make a new CA, may be imported. Done by: fleetca import FOLDER",
)
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@_options
def ca_certificate(folder: str, **common: Any) -> None:
    from ca.model import GraveAct

    _ask(GraveAct.ca_certificate, {"transcript_sha256": ceremony_digest(folder)}, **common)


def ceremony_digest(folder: str) -> str:
    """The digest of a ceremony's last line, and so of its whole transcript and every output.

    Raises:
        Unacceptable: the transcript does not hold.
    """
    from pathlib import Path

    from ca.rules import transcript

    return transcript.read(Path(folder, transcript.FILE).read_bytes()).digest.hex()


@request.command(
    help="That the profile NAME may take effect as the settings have it now. Done by: the signer, when it reads its settings again."
)
@click.argument("name")
@_options
def profile(name: str, **common: Any) -> None:
    from ca.model import GraveAct, ProfileName
    from fleetca import forms

    found = forms.profiles(forms.read_settings(common["settings"])).get(ProfileName(name))
    if found is None:
        from ca.errors import NotFound

        raise NotFound("profile-unknown", f"The settings have no profile {name!r}.", fix="List them: fleetca profiles list")
    _ask(GraveAct.profile, {"profile": found.name, "digest": found.digest.hex()}, **common)


@request.command(
    "crl-override",
    help="That the CRL NAME, which the gate refused, may be published all the same. Look at it first: fleetca crl refused. Done by: the publisher, at its"
    " next try.",
)
@click.argument("name")
@click.option("--digest", required=True, help="Its digest, as `fleetca crl refused` shows it: what you looked at.")
@_options
def crl_override(name: str, digest: str, **common: Any) -> None:
    from ca.errors import NotFound, Unacceptable
    from ca.model import GraveAct
    from ca.rules.override import subject_of
    from crl.refusals import RefusedFolder
    from fleetca import forms

    held = RefusedFolder(forms.read_settings(common["settings"]).crl.tally / "refused").held(name)
    if held is None:
        raise NotFound("nothing-refused", f"No CRL {name} was refused.", fix="See: fleetca crl refused")
    if held.tbs_sha256.hex() != digest.lower():
        raise Unacceptable("another-digest", f"The refused CRL {name} has another digest.", why=f"It is {held.tbs_sha256.hex()}.")
    _ask(GraveAct.crl_override, json.loads(subject_of(held.intent)), **common)


@request.command(
    help="That what needs two persons may be less from now on: as the settings have it now. Done by: the signer, when it reads its settings again."
)
@_options
def demand(**common: Any) -> None:
    from ca.model import GraveAct
    from ca.rules.demand import subject_of
    from fleetca import forms

    _ask(GraveAct.demand, json.loads(subject_of(forms.demand(forms.read_settings(common["settings"])))), **common)


@request.command(
    help="That the operator NAME, who is on record and may approve, gets a certificate for the key of a CSR. Done by: fleetca operators add NAME --csr FILE"
)
@click.argument("name")
@click.option("--csr", required=True, type=click.Path(exists=True, dir_okay=False), help="Its CSR (PEM or DER).")
@_options
def operator(name: str, csr: str, **common: Any) -> None:
    from pathlib import Path

    from ca.der.csr import read_csr
    from ca.errors import NotFound
    from ca.model import GraveAct
    from ca.rules.two_persons import certifying
    from fleetca import ceremonies

    key = read_csr(ceremonies.request_file(Path(csr))).spki_sha256
    with reach.signer(common["settings"]) as (_, signer):
        found = next((one for one in signer.operators() if one.name == name), None)
    if found is None:
        raise NotFound("no-such-operator", f"There is no operator {name!r}.", fix=f"fleetca operators add {name} --role security-officer")
    _ask(GraveAct.operator, json.loads(certifying(found, key)), **common)


@request.command(
    help="That the days of --period count as reviewed: --evidence is what was looked through, a pack of `fleetca evidence`. With the other person's approval it"
    " is done; `fleetca doctor` tells when the next one is due."
)
@click.option("--period", required=True, metavar="FROM..TO", help="Days, both within, UTC: 2026-01-01..2026-03-31.")
@click.option("--evidence", required=True, type=click.Path(exists=True, dir_okay=False), help="The pack; its SHA-256 is signed.")
@_options
def review(period: str, evidence: str, **common: Any) -> None:
    from datetime import UTC, datetime, timedelta
    from hashlib import file_digest
    from pathlib import Path

    from ca.model import Digest, GraveAct
    from ca.rules.review import subject_of
    from fleetca.evidence import pack

    begin, behind = (datetime.fromtimestamp(each, UTC) for each in pack.period(period))
    with Path(evidence).open("rb") as stream:
        digest = Digest(file_digest(stream, "sha256").digest())
    _ask(GraveAct.review, json.loads(subject_of(begin.date(), (behind - timedelta(days=1)).date(), digest)), **common)


@request.command(
    "mass-revocation",
    help="That every issued certificate for which all conditions hold now may be revoked. They are written to a new file, LIST, which the other person"
    " reads; done by: fleetca revoke --list LIST",
)
@click.option("--query", multiple=True, required=True, metavar="KEY=VALUE", help="As for fleetca revoke; may be repeated.")
@click.option("--list", "file", required=True, metavar="LIST", help="Where the certificates are written, ISSUER/SERIAL in each line.")
@click.option(
    "--why", "code", required=True, metavar="REASON", help="The reason in the CRL (RFC 5280, section 5.3.1), such as keyCompromise."
)
@_options
def mass_revocation(query: tuple[str, ...], file: str, code: str, **common: Any) -> None:
    from ca.model import GraveAct
    from ca.rules import ids, mass_revocation
    from fleetca.cli import revoke_query

    reason = ids.reason_named(code)
    with reach.signer(common["settings"]) as (_, signer):
        refs = revoke_query.matching(signer, query)
    planned = mass_revocation.Planned(refs)
    reach.write_new(file, "".join(f"{ref}\n" for ref in refs).encode())
    exact = json.loads(mass_revocation.subject_of(planned.part(0), reason, None))
    _ask(GraveAct.mass_revocation, exact, **common)
    output.note(f"{len(refs)} certificates are in {file}. Give it to the other person; then: fleetca revoke --list {file} --reason {code}")


def _ask(
    act: GraveAct,
    exact: dict[str, object],
    *,
    reason: str,
    within: str,
    certificate: str,
    key: str,
    passphrase_file: str | None,
    settings: str,
    as_json: bool,
) -> None:
    from ca.model import ProposalRequest
    from ca.rules import two_persons
    from ca.rules.message import Act

    said = (act.value, two_persons.subject(act, **exact), reach.seconds(within), reason)
    with reach.signer(settings) as (read, signer):
        message = hand.Hand(certificate, key, passphrase_file).message(Act.propose, deployment=read.deployment.name, proposal=said)
        made = signer.propose(ProposalRequest(message))
    show(made, as_json=as_json)
    output.note(f"Another person looks at it and approves: fleetca approvals approve {made.request.hex()[:16]}")


def show(one: Proposal, *, as_json: bool) -> None:
    """One proposal, whole."""
    answers = "; ".join(
        f"{said.operator} ({said.person}) {'approved' if said.approve else 'refused'} it at {output.iso(said.at)}" for said in one.answers
    )
    text = reach.facts(
        (
            ("request", one.request.hex()),
            ("act", one.act.value),
            *((f"  {name.replace('_', ' ')}", str(value)) for name, value in sorted(json.loads(one.subject).items())),
            ("reason", one.reason),
            ("asked by", f"{one.asked.operator} ({one.asked.person}) at {output.iso(one.asked.at)}"),
            ("state", one.state.value),
            ("answers", answers or "-"),
            ("ends", f"{output.iso(one.expires)} ({output.distance(one.expires, reach.now())})"),
        )
    )
    output.result(document(one), text, as_json=as_json)


def document(one: Proposal) -> dict[str, Any]:
    """One proposal for programs, as REST shows it."""
    from enroll.rest.messages import render_proposal

    return render_proposal(one)
