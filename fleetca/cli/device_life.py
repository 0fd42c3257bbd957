"""`fleetca devices describe`, `quarantine`, `release`, `retire` and `timeline`: a device's life, and what happened in it.

Each is one request through the signer's door (P2), and safe to repeat. The moves are those of `ca.rules.device_life`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fleetca.cli import output, reach

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ca.model import DeviceEvent, DeviceFacts, DeviceId, Reason, Revocation, Verdict
    from ca.signer.client import SignerClient

ENDS = ("cessationOfOperation", "keyCompromise", "privilegeWithdrawn", "affiliationChanged", "unspecified")


@click.command(
    help="Say what the device ID is: where it keeps its keys, its safety class, batch and owner. A device that is not on record comes onto it,"
    " blank. A device without a root of trust needs a justification that expires."
)
@click.argument("id_", metavar="ID")
@output.settings_option
@click.option(
    "--root-of-trust", type=click.Choice(["se", "tpm", "tee", "puf", "none"]), help="Secure element, TPM, trusted execution, PUF, or none."
)
@click.option("--justification", metavar="WORDS", help="With none: why.")
@click.option("--exception-until", metavar="TIME", help="With none: until when that counts, 2027-06-30T00:00:00Z.")
@click.option("--safety-class", type=click.Choice(["A", "B", "C"]), help="IEC 62304.")
@click.option("--batch", help="The lot it was made in.")
@click.option("--owner", help="Who answers for it.")
@click.option("--provisioned", is_flag=True, help="Its line has given it what it needs to enrol.")
@output.json_option
def describe(
    id_: str,
    settings: str,
    root_of_trust: str | None,
    justification: str | None,
    exception_until: str | None,
    safety_class: str | None,
    batch: str | None,
    owner: str | None,
    provisioned: bool,
    as_json: bool,
) -> None:
    from ca.model import DeviceDescription, RootOfTrust, SafetyClass
    from ca.rules import ids

    said = DeviceDescription(
        ids.device_id(id_),
        root_of_trust=None if root_of_trust is None else RootOfTrust(root_of_trust),
        justification=justification,
        exception_ends=None if exception_until is None else reach.moment(exception_until, reach.now()),
        safety_class=None if safety_class is None else SafetyClass(safety_class),
        batch=batch,
        owner=owner,
        provisioned=provisioned,
    )
    with reach.signer(settings) as (_, signer):
        device, facts = signer.describe_device(said)
    text = reach.facts((("device", device.id), ("state", device.state.value), *facts_of(facts)))
    output.result({"device": device.id, "state": device.state.value, **document_of(facts)}, text, as_json=as_json)


@click.command(
    help="Put the device ID in quarantine: its certificates are put on hold, its unused tokens are withdrawn. Relying parties turn it away, and it"
    " neither renews nor enrols. `fleetca devices release` takes that back."
)
@click.argument("id_", metavar="ID")
@output.settings_option
@output.json_option
def quarantine(id_: str, settings: str, as_json: bool) -> None:
    from ca.model import Reason
    from ca.rules import ids

    device = ids.device_id(id_)
    with reach.signer(settings) as (_, signer):
        withdrawn = len(signer.tokens(device=device)[0])
        held = _asked(signer, device, Reason.certificateHold)
    _show(device, "held", held, as_json=as_json, withdrawn=withdrawn)
    output.note(f"{device} is in quarantine: it neither renews nor enrols. Back: fleetca devices release {device}")
    output.note(f"For good: fleetca devices retire {device} --reason keyCompromise --confirm {device}")


@click.command(help="Release the device ID from quarantine, and every certificate of it that is on hold.")
@click.argument("id_", metavar="ID")
@output.settings_option
@output.json_option
def release(id_: str, settings: str, as_json: bool) -> None:
    from ca.model import Reason
    from ca.rules import ids

    device = ids.device_id(id_)
    with reach.signer(settings) as (_, signer):
        released = _asked(signer, device, Reason.removeFromCRL)
    _show(device, "released", released, as_json=as_json)


@click.command(
    help="Retire the device ID for good: every certificate of it is revoked, its tokens are withdrawn, and its id stays as a tombstone that never"
    " enrols again. Its name must be typed, or given with --confirm."
)
@click.argument("id_", metavar="ID")
@output.settings_option
@click.option("--reason", type=click.Choice(ENDS), default=ENDS[0], show_default=True, help="Why (RFC 5280, section 5.3.1).")
@click.option("--confirm", metavar="NAME", help="The device's name once more, in place of the question.")
@output.json_option
def retire(id_: str, settings: str, reason: str, confirm: str | None, as_json: bool) -> None:
    from ca.model import Reason
    from ca.rules import ids
    from fleetca.cli import revoke

    device = ids.device_id(id_)
    with reach.signer(settings) as (_, signer):
        revoke.confirmed(device, confirm)
        ended = _asked(signer, device, Reason[reason])
    _show(device, "revoked", ended, as_json=as_json)
    output.note(f"{device} is retired: its id enrols and renews no more.")
    output.note(f"Let it wipe its keys, and send the receipt: fleetca devices wipe-order {device} --out FILE")
    unlisted = sum(not one.listed for one in ended)
    if unlisted:
        output.note(f"{unlisted} of its certificates carry no revocation information (short-lived): they hold until they expire.")


@click.command(
    help="Let the id of the retired device ID come back: blank, to enrol anew with a new token. Two persons have approved it before: fleetca approvals"
    " request revive --device ID."
)
@click.argument("id_", metavar="ID")
@output.settings_option
@output.json_option
def revive(id_: str, settings: str, as_json: bool) -> None:
    from ca.rules import ids

    with reach.signer(settings) as (_, signer):
        device = signer.revive_device(ids.device_id(id_))
    output.result({"device": device.id, "state": device.state.value}, f"{device.id} is {device.state.value}.", as_json=as_json)
    output.note(f"It enrols with a new token: fleetca token create {device.id}")


@click.command(
    help="What happened to the device ID, oldest first: when, what, by whom, by which way (role/evidence), and the digest that names the request."
)
@click.argument("id_", metavar="ID")
@output.settings_option
@output.json_option
def timeline(id_: str, settings: str, as_json: bool) -> None:
    from ca.rules import device_life, ids

    device = ids.device_id(id_)
    found: list[DeviceEvent] = []
    before: int | None = None
    with reach.signer(settings) as (_, signer):
        while True:
            page, before = signer.device_events(device, before=before)
            found += page
            if before is None:
                break
    events = device_life.in_order(found)
    rows = [(output.iso(one.at), one.what, one.about, one.actor, one.channel, one.request[:16]) for one in events]
    document = {
        "device": device,
        "events": [
            {
                "at": output.iso(one.at),
                "what": one.what,
                "about": one.about,
                "actor": one.actor or None,
                "channel": one.channel or None,
                "request": one.request or None,
            }
            for one in events
        ],
    }
    output.result(document, reach.table(("TIME", "WHAT", "ABOUT", "BY", "CHANNEL", "REQUEST"), rows) if rows else "", as_json=as_json)
    if not rows:
        output.note("Nothing is on record but that it exists.")


def facts_of(facts: DeviceFacts | None) -> Sequence[tuple[str, str]]:
    """What was said of a device, for people."""
    if facts is None:
        return ()
    ends = facts.exception_ends
    pairs = (
        ("root of trust", None if facts.root_of_trust is None else facts.root_of_trust.value),
        ("justification", facts.justification),
        ("exception until", None if ends is None else output.iso(ends)),
        ("safety class", None if facts.safety_class is None else facts.safety_class.value),
        ("batch", facts.batch),
        ("owner", facts.owner),
        *((f"{one.kind.value} key", f"sha256:{one.spki_sha256.hex()} ({one.source})") for one in facts.anchors),
    )
    return [(name, value) for name, value in pairs if value]


def document_of(facts: DeviceFacts | None) -> dict[str, str | None]:
    """What was said of a device, for programs; `null` where nothing was."""
    said = {name.replace(" ", "_"): value for name, value in facts_of(facts)}
    names = ("root_of_trust", "justification", "exception_until", "safety_class", "batch", "owner")
    return {name: said.get(name) for name in names}


def anchors_of(facts: DeviceFacts | None) -> list[dict[str, str]]:
    """The keys of a device's hardware, for programs."""
    return [
        {"kind": one.kind.value, "spki_sha256": one.spki_sha256.hex(), "source": one.source, "since": output.iso(one.at)}
        for one in (() if facts is None else facts.anchors)
    ]


@click.command(
    help="Why the keys of the device ID counted as attested: the keys of its hardware that are on record, and for each of its newest certificates the"
    " rule that held, and the facts."
)
@click.argument("id_", metavar="ID")
@output.settings_option
@output.json_option
def explain(id_: str, settings: str, as_json: bool) -> None:
    from ca.rules import ids

    device = ids.device_id(id_)
    with reach.signer(settings) as (_, signer):
        facts, judged = signer.device_facts(device), signer.judged_keys(device)
    document = {
        "device": device,
        "anchors": anchors_of(facts),
        "certificates": [
            {"certificate": str(one.ref), "profile": one.profile, "at": output.iso(one.at), "attestation": verdict_document(one.verdict)}
            for one in judged
        ],
    }
    lines = [f"{one['kind']} key sha256:{one['spki_sha256']}, by {one['source']}, since {one['since']}" for one in anchors_of(facts)]
    for one in judged:
        said = "Nothing was asked, and nothing shown." if one.verdict is None else f"{one.verdict.rule}: {one.verdict.words}"
        lines += ["", f"{one.ref}, profile {one.profile}, {output.iso(one.at)}", f"  {said}"]
    output.result(document, "\n".join(lines), as_json=as_json)
    if not lines:
        output.note(f"{device} has no certificate, and no key of its hardware is known.")


def verdict_document(verdict: Verdict | None) -> dict[str, str] | None:
    """A verdict, for programs."""
    if verdict is None:
        return None
    return {"kind": verdict.kind.value, "rule": verdict.rule, "words": verdict.words, "anchor": verdict.anchor.hex()}


def _asked(signer: SignerClient, device: DeviceId, reason: Reason) -> Sequence[Revocation]:
    from ca.model import RevokeRequest

    return signer.revoke(RevokeRequest(signer.local, reason, device=device))


def _show(device: DeviceId, what: str, changes: Sequence[Revocation], *, as_json: bool, **more: int) -> None:
    rows = [(str(one.ref), one.reason.name, output.iso(one.revoked_at)) for one in changes]
    document = {"device": device, what: [str(one.ref) for one in changes], **more}
    output.result(document, reach.table(("CERTIFICATE", "REASON", "SINCE"), rows) if rows else "", as_json=as_json)
