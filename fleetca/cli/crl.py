"""`fleetca crl`: how the CRLs stand, any CRL taken apart, two compared, a new one asked for, what is no longer needed swept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleetca.cli import output, reach
from fleetca.cli.crl_fetch import fetch
from fleetca.cli.crl_refused import refused

if TYPE_CHECKING:
    from ca.model import Issuer, UnixTime

_PATIENCE = 60


@click.group(help="Show, compare, verify, ask for and fetch CRLs.")
def crl() -> None:
    pass


crl.add_command(fetch)
crl.add_command(refused)


@crl.command("list", help="The published CRLs of this deployment, from what readers get.")
@output.settings_option
@output.json_option
def list_(settings: str, as_json: bool) -> int:
    from ca.outlets.directory import DirectoryOutlet
    from crl.health import health
    from crl.shelf import Shelf
    from fleetca import forms

    read, now = forms.read_settings(settings), reach.now()
    outlet = DirectoryOutlet(read.crl.directory)
    found = health(Shelf(outlet), forms.issuers(read), now=now)
    document = [
        {
            "crl": one.name,
            "issuer": one.issuer,
            "state": one.freshness.value,
            "number": one.head.number if one.head else None,
            "base": one.head.base if one.head else None,
            "this_update": one.head.this_update if one.head else None,
            "next_update": one.head.next_update if one.head else None,
            "advice": one.advice,
        }
        for one in found
    ]
    rows = [
        (
            one.name,
            str(one.head.number) if one.head else "-",
            output.iso(one.head.this_update) if one.head else "-",
            output.distance(one.head.next_update, now) if one.head else "-",
            one.freshness.value,
        )
        for one in found
    ]
    output.result({"crls": document}, reach.table(("CRL", "NUMBER", "MADE", "ENDS", "STATE"), rows), as_json=as_json)
    for one in found:
        if one.advice:
            output.note(f"{one.name}: {one.advice}")
    return output.FINDINGS if any(one.freshness.value in {"urgent", "expired", "missing"} for one in found) else 0


@crl.command(help="A CRL taken apart: a FILE (PEM or DER) or an http address, anybody's.")
@click.argument("place", metavar="FILE|URL")
@click.option("--entries", is_flag=True, help="Its entries too.")
@output.json_option
def show(place: str, entries: bool, as_json: bool) -> None:
    from fleetca.relying_party import reading

    octets = reading.octets_of(place)
    document = reading.facts(octets)
    listed = list(reading.entries(reading.read(octets))) if entries else []
    if entries:
        document["revoked"] = [_entry(one) for one in listed]
    now = reach.now()
    shown = [
        ("issuer", document["issuer"]),
        ("number", str(document["number"]) + ("" if document["base"] is None else f" (delta to {document['base']})")),
        ("this update", output.iso(document["this_update"])),
        ("next update", f"{output.iso(document['next_update'])} ({output.distance(document['next_update'], now)})"),
        (
            "speaks of",
            f"{document['contents']}{' that points to ' + document['distribution_point'] if document['distribution_point'] else ''}",
        ),
        ("deltas at", ", ".join(document["deltas_at"]) or "-"),
        ("entries", str(document["entries"])),
        ("octets", str(document["octets"])),
        ("SHA-256", document["sha256"]),
    ]
    text = reach.facts(shown)
    if entries:
        rows = [(f"{serial:x}", output.iso(at), reason.name, output.iso(since) if since else "-") for serial, at, reason, since in listed]
        text += "\n\n" + reach.table(("SERIAL", "REVOKED", "REASON", "INVALID SINCE"), rows)
    output.result(document, text, as_json=as_json)


def _entry(one: Any) -> dict[str, Any]:
    return {"serial": f"{one[0]:x}", "revoked_at": one[1], "reason": one[2].name, "invalid_from": one[3]}


@crl.command(help="Whether a CRL is its issuer's, whole, of now, and for what it is used for. Exit code 8: it is not.")
@click.argument("place", metavar="FILE|URL")
@output.settings_option
@click.option(
    "--ca", metavar="FILE", type=click.Path(exists=True, dir_okay=False), help="The certificate of the issuer; the settings' when absent."
)
@click.option("--point", metavar="URL", help="The distribution point of the certificates it is used for.")
@click.option(
    "--after", metavar="FILE|URL", help="An earlier CRL of the same issuer: the number must not have gone back, and nobody forgotten."
)
@output.json_option
def verify(place: str, settings: str, ca: str | None, point: str | None, after: str | None, as_json: bool) -> int:
    from ca.errors import FleetcaError
    from fleetca.relying_party import judging, reading

    octets, now = reading.octets_of(place), reach.now()
    if point is None and place.startswith("http"):
        point = place
    findings: list[str] = []
    facts = reading.facts(octets)
    # A file says nothing of the certificates that it is used for.
    unasked = point is None and facts["distribution_point"]
    try:
        issuers = judging.issuers_in(ca) if ca else _of_settings(settings)
        judging.judge(octets, issuers, point=facts["distribution_point"] if unasked else point, now=now)
        if after is not None:
            findings = judging.gone_back(octets, reading.octets_of(after))
    except FleetcaError as error:
        findings.append(f"{error.what} [{error.code}]")
    document = {"crl": place, "good": not findings, "findings": findings, **facts}
    output.result(
        document, "\n".join(findings) or f"{place} is good: number {document['number']}, {document['entries']} entries.", as_json=as_json
    )
    if unasked:
        output.note(f"It speaks of certificates that point to {facts['distribution_point']}, and of no others.")
    return output.FINDINGS if findings else 0


def _of_settings(settings: str) -> list[Issuer]:
    from fleetca import forms

    return list(forms.issuers(forms.read_settings(settings)))


@crl.command(help="What changed between two CRLs of one issuer: who came, who left, and why as far as it can be told.")
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@output.settings_option
@click.option("--why", is_flag=True, help="Ask this deployment's record why each one left.")
@output.json_option
def diff(old: str, new: str, settings: str, why: bool, as_json: bool) -> None:
    from fleetca.relying_party import reading

    before, after = (reading.octets_of(place) for place in (old, new))
    was = {one[0]: one for one in reading.entries(reading.read(before))}
    now_ = {one[0]: one for one in reading.entries(reading.read(after))}
    added = [now_[serial] for serial in now_ if serial not in was]
    removed = [was[serial] for serial in was if serial not in now_]
    changed = [(was[serial], now_[serial]) for serial in now_ if serial in was and was[serial] != now_[serial]]
    reasons = _reasons([one[0] for one in removed], settings, reading.read(after).this_update) if why else {}
    document = {
        "added": [_entry(one) for one in added],
        "removed": [{**_entry(one), "why": reasons.get(one[0], "")} for one in removed],
        "changed": [{"from": _entry(one), "to": _entry(other)} for one, other in changed],
    }
    rows = [("+", f"{one[0]:x}", one[2].name, output.iso(one[1])) for one in added]
    rows += [("-", f"{one[0]:x}", one[2].name, reasons.get(one[0], "")) for one in removed]
    rows += [("~", f"{one[0]:x}", f"{one[2].name} -> {other[2].name}", output.iso(other[1])) for one, other in changed]
    output.result(document, reach.table(("", "SERIAL", "REASON", "SINCE / WHY"), rows) if rows else "", as_json=as_json)
    output.note(f"{len(added)} came, {len(removed)} left, {len(changed)} changed.")


def _reasons(serials: list[int], settings: str, this_update: UnixTime) -> dict[int, str]:
    from ca.errors import NotFound
    from ca.model import Reason

    found: dict[int, str] = {}
    with reach.signer(settings) as (deployment, signer):
        for serial in serials:
            try:
                ref = reach.found_reference(f"{serial:x}", signer, issuer=None, usual=deployment.profiles.default_issuer)
                record = signer.certificate(ref)
            except NotFound:
                found[serial] = "not on record"
                continue
            if record.revocation is not None and record.revocation.reason is Reason.removeFromCRL:
                found[serial] = f"released {output.iso(record.revocation.revoked_at)}"
            elif record.not_after < this_update:
                found[serial] = f"expired {output.iso(record.not_after)}"
            else:
                found[serial] = "forgotten: it is revoked and holds"
    return found


@crl.command(help="Ask the running publisher for CRLs now, and wait until readers get them.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@output.settings_option
@output.json_option
def publish(names: tuple[str, ...], settings: str, as_json: bool) -> None:
    from threading import Event

    from ca.errors import NotFound, StoreUnavailable
    from ca.outlets.directory import DirectoryOutlet
    from ca.system import SystemClock
    from crl.asking import Asking
    from crl.publish import scopes
    from crl.shelf import Shelf
    from fleetca import forms

    read = forms.read_settings(settings)
    known = {one.name: one for issuer in forms.issuers(read) if issuer.key and issuer.may_sign_crl for one in scopes(issuer)}
    for name in names:
        if name not in known:
            raise NotFound("no-such-crl", f"This deployment makes no CRL {name}.", fix=f"It makes {', '.join(known)}.")
    wanted = [known[name] for name in names or known]
    shelf, asking = Shelf(DirectoryOutlet(read.crl.directory)), Asking(read.crl.tally)
    heads = {one.name: shelf.look(one).head for one in wanted}
    before = {name: head.number if head else 0 for name, head in heads.items()}
    try:
        for one in wanted:
            asking.ask(one.name)
    except OSError as error:
        raise StoreUnavailable("publisher-folder", f"{read.crl.tally} cannot be written.", why=f"{error.strerror}.") from None
    clock = SystemClock()
    left, patience = list(wanted), clock.monotonic() + _PATIENCE
    done: dict[str, int] = {}
    while left and clock.monotonic() < patience:
        Event().wait(0.2)
        for one in list(left):
            head = shelf.look(one).head
            if head is not None and head.number > before[one.name]:
                done[one.name] = head.number
                left.remove(one)
    output.result(
        {"published": done}, reach.table(("CRL", "NUMBER"), [(name, str(number)) for name, number in done.items()]), as_json=as_json
    )
    if left:
        raise StoreUnavailable(
            "not-published",
            f"{', '.join(one.name for one in left)} did not come.",
            why="No publisher answered.",
            fix="Is fleetca serve running?",
        )


@crl.command(help="When which CRL is next made, needed and over: those of ceremonies too, and those that wait for their time.")
@output.settings_option
@output.json_option
def calendar(settings: str, as_json: bool) -> None:
    from ca.outlets.directory import DirectoryOutlet
    from crl.adopt import waiting
    from crl.publish import scopes
    from crl.rules.schedule import next_regular
    from crl.shelf import Shelf
    from fleetca import forms
    from fleetca.wiring_crl import crl_policy

    read, now = forms.read_settings(settings), reach.now()
    outlet = DirectoryOutlet(read.crl.directory)
    shelf = Shelf(outlet)
    events: list[tuple[UnixTime, str, str]] = []
    for issuer in forms.issuers(read):
        if not issuer.may_sign_crl:
            continue
        queued = [one.head for one in waiting(issuer, outlet=outlet)] if issuer.key is None else []
        for scope in scopes(issuer):
            head = shelf.look(scope).head
            if head is None:
                events.append((now, scope.name, "missing: make one now"))
                continue
            later = [one for one in queued if one.number > head.number]
            if issuer.key is not None:
                events.append((next_regular(head, crl_policy(read), scope=scope), scope.name, "the publisher makes the next one"))
            events += [(one.this_update, scope.name, f"number {one.number} takes over by itself") for one in later]
            last = max([head, *later], key=lambda one: one.next_update)
            if issuer.key is None:
                window = last.next_update - last.this_update
                events.append((last.next_update - window // 3, scope.name, "hold the ceremony for the next one"))
            after = "and nothing follows" if issuer.key is None else "unless the publisher has made another one"
            events.append((last.next_update, scope.name, f"number {last.number} ends, {after}"))
    events.sort()
    output.result(
        {"events": [{"at": at, "crl": name, "what": what} for at, name, what in events]},
        reach.table(("WHEN", "", "CRL", "WHAT"), [(output.iso(at), output.distance(at, now), name, what) for at, name, what in events]),
        as_json=as_json,
    )


@crl.command(help="Sweep files of CRLs that nobody needs: previous ones that have ended, and waiting ones whose time is over.")
@output.settings_option
@click.option("--yes", is_flag=True, help="Remove them; without it they are only shown.")
@output.json_option
def prune(settings: str, yes: bool, as_json: bool) -> None:
    from fleetca import forms
    from fleetca.wiring_crl import prunable

    read = forms.read_settings(settings)
    found = prunable(Path(read.crl.directory), forms.issuers(read), now=reach.now())
    if yes:
        for path, _ in found:
            path.unlink(missing_ok=True)
    output.result(
        {"removed" if yes else "would_remove": [{"file": str(path), "why": why} for path, why in found]},
        reach.table(("FILE", "WHY"), [(path.name, why) for path, why in found]) if found else "",
        as_json=as_json,
    )
    output.note(
        f"{len(found)} file{'' if len(found) == 1 else 's'} {'removed' if yes else 'could go: give --yes'}."
        if found
        else "Nothing to sweep."
    )
