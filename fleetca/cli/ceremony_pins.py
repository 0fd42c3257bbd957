"""`fleetca ceremony pins`: tell devices of new trust anchors, with the key that they trust now. Offline, like all that opens a root key (P4)."""

from __future__ import annotations

from pathlib import Path

import click

from fleetca.cli import output, prompts


@click.command(
    help="Sign a set of trust anchors with the key of a root that devices trust already, and write it, after the sets before it, to a new file. It is"
    " published as it is, at `enroll.pins`; agents fetch it, and believe it by the signature alone."
)
@click.option("--deployment", required=True, help="The deployment's name.")
@click.option("--key", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The sealed key of a trusted root.")
@click.option("--passphrase-file", type=click.Path(dir_okay=False), help="File with its passphrase (mode 0600).")
@click.option("--passphrase-fd", type=int, help="File descriptor to read it from.")
@click.option("--current", required=True, multiple=True, type=click.Path(dir_okay=False, path_type=Path), help="A root in use (PEM).")
@click.option(
    "--next", "following", required=True, multiple=True, help="A root to come (PEM file), or a backup key's SHA-256 in hexadecimal."
)
@click.option("--retire-after", default="90d", show_default=True, help="In how much time roots that are not named are trusted no more.")
@click.option(
    "--expires", default="730d", show_default=True, help="In how much time update systems may no longer hand it out as the newest."
)
@click.option("--before", type=click.Path(dir_okay=False, path_type=Path), help="The file of the sets so far.")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The new file.")
@output.json_option
def pins(
    deployment: str,
    key: Path,
    passphrase_file: str | None,
    passphrase_fd: int | None,
    current: tuple[Path, ...],
    following: tuple[str, ...],
    retire_after: str,
    expires: str,
    before: Path | None,
    out: Path,
    as_json: bool,
) -> None:
    from ca.keys.memory import MemoryKey
    from ca.keys.sealed_file import unseal
    from ca.model import Digest, KeyName
    from ca.rules import pins as rule
    from ca.system import SystemClock
    from fleetca.agent.pairs import first_certificate, read_octets
    from fleetca.folder import put_new

    now = SystemClock().now()
    sets = () if before is None else rule.read_sets(read_octets(before))
    last = rule.read_set(sets[-1].payload) if sets else None
    roots = [first_certificate(file) for file in current]
    coming: list[Digest] = []
    for one in following:
        if Path(one).exists():
            roots.append(first_certificate(Path(one)))
            coming.append(rule.pin_of(roots[-1]))
        else:
            coming.append(Digest(_digest(one)))
    seconds, ends = _seconds(retire_after, "--retire-after"), _seconds(expires, "--expires")
    found = rule.PinSet(
        deployment=deployment,
        seq=1 if last is None else last.seq + 1,
        current=tuple(rule.pin_of(first_certificate(file)) for file in current),
        next=tuple(coming),
        not_before=now,
        retire_after=now + seconds,
        anchors=tuple(roots),
        expires=now + ends,
    )
    payload = rule.write_set(found)
    secret = prompts.passphrase(f"the key {key}", file=passphrase_file, descriptor=passphrase_fd, twice=False)
    signing = MemoryKey(KeyName("root"), unseal(read_octets(key), secret(), what=str(key)))
    signed = rule.Signed(payload, signing.spki, signing.sign(rule.signed_octets(payload)))
    # Devices that know only the sets so far must believe it: judged here as they will, before anybody sees it.
    trusted = frozenset(found.current) if last is None else last.pins
    rule.accept(signed, trusted=trusted, last=last, now=now)
    put_new(out, rule.write_sets((*sets, signed)))
    document = {
        "out": str(out),
        "seq": found.seq,
        "current": [pin.hex() for pin in found.current],
        "next": [pin.hex() for pin in found.next],
        "retire_after": output.iso(found.retire_after),
        "expires": output.iso(now + ends),
    }
    output.result(document, str(out), as_json=as_json)
    output.note(f"Set {found.seq}, signed. Publish it: copy {out} to the place that enroll.pins names.")


def _seconds(text: str, option: str) -> int:
    from config.strict import duration

    try:
        return duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


def _digest(text: str) -> bytes:
    try:
        octets = bytes.fromhex(text.replace(":", ""))
    except ValueError:
        octets = b""
    if len(octets) != 32:
        raise click.BadParameter(f"{text} is neither a file nor a SHA-256 in hexadecimal.", param_hint="--next")
    return octets
