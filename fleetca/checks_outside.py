"""The doctor's checks of what the world sees: CRLs, the status service, the record."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from ca.errors import FleetcaError
from ca.model import Role
from ca.outlets.directory import DirectoryOutlet
from ca.rules import note as notes
from ca.signer.client import SignerClient
from ca.store.engine import open_store
from config.settings import Settings
from config.strict import Address
from crl.adopt import waiting
from crl.model import Head, Scope, file_name
from crl.rules import gate
from crl.rules.anatomy import InMemory
from fleetca import forms
from fleetca.checks_inside import SOON
from fleetca.cli.output import iso
from fleetca.verdict import Patient, Verdict, bad, note, ok

MONTH: Final = 30 * 86400


# ---- What the world sees ------------------------------------------------------------------------------------------------


def crls(patient: Patient) -> Iterator[Verdict]:
    outlet = DirectoryOutlet(patient.settings.crl.directory)
    now = patient.clock.now()
    for issuer in patient.issuers:
        if not issuer.may_sign_crl:
            continue
        name = file_name(issuer.id)
        copy = outlet.current(name)
        fix = "Make one in a ceremony and import it." if issuer.key is None else "Look at what the publisher says."
        if copy is None:
            if issuer.key is None:
                yield bad(f"There is no CRL of {issuer.id}.", fix=fix)
            else:
                yield patient.missing(f"There is no CRL of {issuer.id} yet.", "The publisher makes it.")
            continue
        head = gate.believe(InMemory(copy.octets), Scope(issuer)).head
        left = head.next_update - now
        # Those that were made ahead take its place one after the other, without a gap: what counts is when the last of them ends.
        last = max((one.head for one in waiting(issuer, outlet=outlet)), key=lambda one: one.number, default=head)
        last = last if last.number > head.number else head
        if left < 0:
            say = bad if issuer.key is None or patient.runs else note
            yield say(f"The CRL of {issuer.id} ended at {iso(head.next_update)}.", "Nobody believes it any more.", fix)
        elif issuer.key is None and last.next_update - now < _lead(last):
            yield bad(f"The CRL of {issuer.id} ends at {iso(last.next_update)}.", "No later one waits.", fix)
        elif last.number > head.number:
            yield ok(f"The CRL of {issuer.id} has number {head.number}; those that wait go to {last.number} and {iso(last.next_update)}.")
        else:
            yield ok(f"The CRL of {issuer.id} has number {head.number} and holds until {iso(head.next_update)}.")
        if outlet.high_water(name) > head.number:
            yield bad(
                f"The CRL of {issuer.id} has number {head.number}; {outlet.high_water(name)} was published before.",
                "An older file was put back.",
                fix,
            )


def _lead(last: Head) -> float:
    """How long before its end the next one should be there: people have to meet for it."""
    lifetime = last.next_update - last.this_update
    return max(lifetime * SOON, min(MONTH, lifetime / 3))


def status(patient: Patient) -> Iterator[Verdict]:
    settings = patient.settings
    health = patient.status
    if health is None:
        yield patient.missing("The status service does not answer.", f"Nobody answers on {settings.status.listen}.")
        return
    if not health.get("heard", True):
        yield bad("The status service has not heard of changes for two seconds.", "It cannot read the database.", "Check the database.")
    missing = health.get("missing") or []
    if missing:
        yield bad(f"The status service has no responder certificate for {', '.join(map(str, missing))}.", fix="Check the signer.")
    if health.get("heard", True) and not missing:
        for alarm in health.get("alarms") or []:
            yield bad(f"The status service: {alarm}.", fix="Look at what the publisher and the signer say.")
        yield ok("The status service is up to date.")


def record(patient: Patient) -> Iterator[Verdict]:
    settings = patient.settings
    key = notes.read_note_key(settings.log.verifier.read_text())
    if key.name != forms.log_origin(settings):
        yield bad(
            f"The log's key {settings.log.verifier} is named {key.name}, the deployment {forms.log_origin(settings)}.",
            "The deployment's name was changed.",
            "Change deployment.name back: signatures depend on it.",
        )
    checkpoint = settings.log.directory / "checkpoint"
    if checkpoint.exists():
        said = notes.read_checkpoint(checkpoint.read_bytes(), [key])
        yield ok(f"The record has {said.size} entries and a checkpoint of its key.")
        yield from _set_back(settings, said.size)
    else:
        yield patient.missing("The record has no checkpoint yet.", "The publisher makes it.")


def _set_back(settings: Settings, published: int) -> Iterator[Verdict]:
    """A checkpoint is recorded before anyone sees it: a database that has not recorded it is an older one."""
    store = open_store(forms.store_url(settings), readonly=True)
    try:
        recorded = store.reading.last_checkpoint()
    finally:
        store.close()
    if recorded is None or recorded.size < published:
        yield bad(
            f"The record has {published} entries, and the database knows of {recorded.size if recorded else 0}: it was set back.",
            "It does not know what was issued and revoked since, so certificates that were revoked may count as good.",
            f"Stop everything, then: fleetca recover --settings {settings.file}",
        )


def signer_health(settings: Settings) -> dict[str, Any] | None:
    client = SignerClient(settings.signer.socket, Role.operator, timeout=3.0)
    try:
        return dict(client.health())
    except FleetcaError:
        return None
    finally:
        client.close()


def status_health(settings: Settings) -> dict[str, Any] | None:
    reply = fetch(settings.status.listen, "/healthz")
    try:
        found = json.loads(b"" if reply is None else reply.body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


@dataclass(frozen=True, slots=True)
class Reply:
    """What the status service answers."""

    status: int
    kind: str
    """Its content type."""
    body: bytes


def fetch(listen: Address, path: str, *, body: bytes | None = None) -> Reply | None:
    """Ask the status service where it listens; with a body, by POST of an OCSP request. None when nobody answers."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)  # noqa: S104 - where it listens, seen from here
    connection = http.client.HTTPConnection(host, listen.port, timeout=3.0)
    try:
        if body is None:
            connection.request("GET", path)
        else:
            connection.request("POST", path, body, {"Content-Type": "application/ocsp-request"})
        answer = connection.getresponse()
        return Reply(answer.status, answer.getheader("Content-Type", ""), answer.read())
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
