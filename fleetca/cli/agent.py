"""`fleetca agent`: keeps a device's identity. Starts quickly and stays small: it knows no deployment, only a folder and a service."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleetca.cli import output

if TYPE_CHECKING:
    from fleetca.agent.identity import Identity
    from fleetca.agent.renewing import Hand
    from fleetca.agent.work import Agent, Outcome

FOLDER = "/var/lib/fleetca-agent"
_LONGEST_TOKEN = 4096
_LONGEST_NAP = 600


@click.group(help="Keep a device's certificate: enrol once, renew for ever.")
def agent() -> None:
    pass


def _folder(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--dir",
        "folder",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="FLEETCA_AGENT_DIR",
        default=FOLDER,
        show_default=True,
        help="The identity's folder (or FLEETCA_AGENT_DIR).",
    )(command)


@agent.command(
    help="Get a first certificate for a one-time token: make a key, ask, check the answer, put both in place, tell the services. Safe to repeat: what was"
    " stopped goes on, with the same key and without a second token."
)
@_folder
@click.option("--url", envvar="FLEETCA_URL", help="The enrolment service, https://HOST:PORT.")
@click.option(
    "--root", type=click.Path(dir_okay=False, path_type=Path), help="The trusted root certificate (PEM), brought with the device."
)
@click.option(
    "--token-file", type=click.Path(dir_okay=False, path_type=Path, allow_dash=True), help="Holds the token; - is stdin (or FLEETCA_TOKEN)."
)
@click.option("--algorithm", default="p256", show_default=True, help="The kind of key.")
@click.option(
    "--key",
    type=click.Choice(["sealed", "plain", "pkcs11", "tpm"]),
    default="sealed",
    show_default=True,
    help="Where it rests. Plain where the profile allows it; in a token or TPM it is made there and never leaves.",
)
@click.option(
    "--key-name", default="", help="In a token: the beginning of its labels. In a TPM: the first of five handles, like 0x81020000."
)
@click.option(
    "--key-there",
    is_flag=True,
    help="The key called --key-name is there already, as in a secure element: it is used at every renewal, for which its profile needs key_reuse, and removed"
    " by an order to wipe alone.",
)
@click.option("--module", default="", help="The token's PKCS#11 library.")
@click.option("--token", default="", help="The token's label.")
@click.option("--device", default="", help="The TPM; absent: /dev/tpmrm0.")
@click.option(
    "--passphrase-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="What seals the key; absent: one that is made in the folder. A token's PIN.",
)
@click.option("--attest", is_flag=True, help="Have the TPM vouch for this key and every later one; for profiles that ask for it.")
@click.option(
    "--endorsement",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The TPM's endorsement certificate and those above it (PEM), where the TPM itself has none.",
)
@click.option("--known", is_flag=True, help="No token: the TPM, or the key of the secure element, is on the device's record.")
@click.option("--owner", default="", help="The user whom key and certificate shall belong to.")
@click.option("--proxy", default="", help="http://HOST:PORT, or none; absent: HTTPS_PROXY and NO_PROXY.")
@click.option("--by", type=click.Choice(["auto", "tls", "message"]), default="auto", show_default=True, help="How the key speaks.")
@click.option("--reload", multiple=True, help="Whom to tell of a new pair: nginx[:FILE], mosquitto:PIDFILE, systemd:UNIT, run:PROGRAM.")
@output.json_option
def enrol(
    folder: Path,
    url: str | None,
    root: Path | None,
    token_file: Path | None,
    algorithm: str,
    key: str,
    key_name: str,
    key_there: bool,
    module: str,
    token: str,
    device: str,
    passphrase_file: Path | None,
    attest: bool,
    endorsement: Path | None,
    known: bool,
    owner: str,
    proxy: str,
    by: str,
    reload: tuple[str, ...],
    as_json: bool,
) -> None:
    from ca.errors import Denied
    from fleetca.agent import hooks
    from fleetca.agent.identity import Setup, read_trust

    identity = _identity(folder)
    hooks.check(reload)
    if not identity.exists and (url is None or root is None):
        raise click.UsageError("A new identity needs --url and --root.")
    if url is not None and root is not None and not identity.enrolled:
        setup = Setup(
            url=url,
            algorithm=algorithm,
            plain=key == "plain",
            key_store=key if key in {"pkcs11", "tpm"} else "",
            key_name=key_name,
            key_there=key_there,
            module=module,
            token=token,
            device=device,
            passphrase_file=str(passphrase_file.absolute()) if passphrase_file else "",
            attest=attest,
            endorsement=str(endorsement.absolute()) if endorsement else "",
            proxy=proxy,
            owner=owner,
            by=by,
            reload=reload,
        )
        trust = read_trust(root)
        identity.set_up(setup, trust=trust)
    with identity.locked():
        worker = _agent(identity)
        done = worker.enrol(_token(token_file), known=known)
        if done.answer and identity.setup.plain and not done.answer.get("plain_key_file", False):
            identity.forget()
            raise Denied(
                "plain-key-refused",
                "The profile does not allow a plain key file; the key was removed.",
                why=f"Profile {done.answer.get('profile')} wants its key sealed (P10).",
                fix="Enrol again with a new token and --key sealed, or with a token for a profile that allows it.",
            )
    _show(identity, worker, done, as_json=as_json)


@agent.command(help="Keep the identity: renew in its window, again and again. With --once, do what there is to do now, for timers.")
@_folder
@click.option("--once", is_flag=True, help="One pass; 0 also when nothing is due.")
@output.json_option
def run(folder: Path, once: bool, as_json: bool) -> None:
    import signal
    import threading

    from ca.system import SystemClock

    clock = SystemClock()
    if once:
        from fleetca.agent.glance import nothing_due

        later = nothing_due(folder, now=clock.now())
        if later is not None:
            output.result({"did": "nothing", "next": output.iso(later)}, "", as_json=as_json)
            output.note(f"nothing; next at {output.iso(later)}")
            return
    identity = _identity(folder)
    if once:
        with identity.locked():
            worker = _agent(identity)
            done = worker.wake()
        _show(identity, worker, done, as_json=as_json)
        return
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    signal.signal(signal.SIGHUP, lambda *_: None)
    said = ""
    while not stopping.is_set():
        with identity.locked():
            worker = _agent(identity)
            done = worker.wake()
        line = done.did if done.error is None else f"failed: {done.error} [{done.error.code}]"
        if line not in {said, "nothing"}:
            output.note(f"{output.iso(clock.now())} {line}; next {output.iso(max(done.next_at, clock.now()))}")
        said = line
        # A clock that is set while we sleep, and a machine that was suspended, are noticed within ten minutes.
        stopping.wait(min(_LONGEST_NAP, max(1, done.next_at - clock.now())))


@agent.command(
    help="Renew now, whenever it would be due. With --dry-run, do everything but that: reach the service, make a key, run the hooks."
)
@_folder
@click.option("--dry-run", is_flag=True, help="Change nothing; the hooks run too.")
@output.json_option
def renew(folder: Path, dry_run: bool, as_json: bool) -> None:
    identity = _identity(folder)
    with identity.locked():
        worker = _agent(identity)
        done = worker.rehearse() if dry_run else worker.wake(force=True)
    _show(identity, worker, done, as_json=as_json)


@agent.command(help="How the identity stands. Ends with 8 when something is wrong: late, failing, or over.")
@_folder
@output.json_option
def status(folder: Path, as_json: bool) -> None:
    from ca.system import SystemClock
    from fleetca.agent.pairs import read_pair

    identity = _identity(folder)
    setup, slots, memory = identity.setup, identity.slots, identity.recall()
    now = SystemClock().now()
    if not slots.number:
        document: dict[str, Any] = {"state": "not-enrolled", "url": setup.url, "next": None}
        output.result(document, "not enrolled", as_json=as_json)
        sys.exit(output.FINDINGS)
    facts = read_pair(slots)[0]
    worker = _agent(identity)
    due = worker.next_at()
    findings = []
    if now > facts.not_after:
        findings.append("expired")
    elif memory.start is not None and memory.serial == f"{facts.serial:040x}" and now > (memory.end or 0):
        findings.append("late")
    if memory.outcome == "failed":
        findings.append("failing")
    if not slots.reloaded:
        findings.append("services-not-told")
    document = {
        "state": findings[0] if findings else "fine",
        "findings": findings,
        "device": memory.device or None,
        "profile": memory.profile or None,
        "serial": f"{facts.serial:040x}",
        "not_after": output.iso(facts.not_after),
        "window": None if memory.start is None else {"start": output.iso(memory.start), "end": output.iso(memory.end or memory.start)},
        "reason": memory.reason or None,
        "next": output.iso(due),
        "last": {"outcome": memory.outcome, "code": memory.code, "why": memory.why, "at": output.iso(memory.at), "told": memory.told},
        "failures": memory.failures,
        "url": setup.url,
        "certificate": str(slots.link / "certificate.pem"),
        "key": slots.key_for_services,
    }
    lines = [
        ("state", document["state"]),
        ("device", memory.device),
        ("valid until", f"{output.iso(facts.not_after)} ({output.distance(facts.not_after, now)})"),
        ("next", f"{output.iso(due)} ({output.distance(due, now)})"),
        ("last", f"{memory.outcome} {output.iso(memory.at)} {memory.code}".strip()),
        ("why", memory.why),
        ("certificate", document["certificate"]),
        ("key", document["key"]),
    ]
    output.result(document, "\n".join(f"{name:<12} {value}" for name, value in lines if value), as_json=as_json)
    if findings:
        sys.exit(output.FINDINGS)


@agent.command(
    help="Remove the identity: its keys, certificates and settings. With --revoke, the service hears of it first. With --order, on the CA's order: the receipt,"
    " signed by the key before it went, goes to --receipt; cut off, the same command goes on."
)
@_folder
@click.option(
    "--order", type=click.Path(dir_okay=False, path_type=Path), help="The order to wipe: fleetca devices wipe-order. Asks nothing."
)
@click.option(
    "--receipt", type=click.Path(dir_okay=False, path_type=Path), help="With --order: where the receipt goes, outside of the folder."
)
@click.option("--confirm", metavar="NAME", help="The name of the folder, for those who are not asked.")
@click.option("--revoke", is_flag=True, help="Revoke the certificate first (cessationOfOperation).")
@output.json_option
def wipe(folder: Path, order: Path | None, receipt: Path | None, confirm: str | None, revoke: bool, as_json: bool) -> None:
    import shutil

    from fleetca.agent import work
    from fleetca.agent.renewing import Service

    if (order is None) != (receipt is None) or (order is not None and (revoke or confirm is not None)):
        raise click.UsageError("--order and --receipt go together, and without --revoke and --confirm.")
    if order is not None and receipt is not None:
        _wipe_on_order(folder, order, receipt, as_json=as_json)
        return
    identity = _identity(folder)
    setup = identity.setup
    name = folder.absolute().name
    if confirm is None and sys.stdin.isatty():
        confirm = click.prompt(f"Type {name} to remove {folder} and its keys", err=True)
    if confirm != name:
        raise click.UsageError(f"Nothing was removed. Say what shall go: --confirm {name}")
    with identity.locked():
        if revoke and identity.slots.number:
            work.revoke_self(identity, Service(setup.url, identity.trust, proxy=work.proxy_for(setup)), _hand())
        identity.forget()
        shutil.rmtree(folder)
    output.result({"removed": str(folder)}, "", as_json=as_json)
    output.note(f"{folder} was removed.")


def _wipe_on_order(folder: Path, order: Path, receipt: Path, *, as_json: bool) -> None:
    from importlib.metadata import version

    from ca.errors import Malformed
    from ca.system import SystemClock
    from fleetca.agent import wiping

    try:
        octets = order.read_bytes()
    except OSError as error:
        raise Malformed("unreadable-file", f"{order} cannot be read.", why=f"{error.strerror}.") from None
    identity = _identity(folder)
    with identity.locked():
        done = wiping.run(identity, octets, receipt, now=SystemClock().now(), agent=f"fleetca-agent/{version('fleetca')}")
    output.result({"device": done.device, "keys": list(done.keys), "receipt": str(receipt)}, str(receipt), as_json=as_json)
    output.note(f"{done.device} has no key any more. Bring the receipt back: fleetca devices wiped {receipt.name}")


# ---- What the commands share ----------------------------------------------------------------------------------------


def _identity(folder: Path) -> Identity:
    from ca.system import SystemChance
    from fleetca.agent.identity import Identity

    return Identity(folder.absolute(), SystemChance())


def _agent(identity: Identity) -> Agent:
    from importlib.metadata import version

    from fleetca.agent.work import Agent

    return Agent(identity, _hand(), version=f"fleetca-agent/{version('fleetca')}")


def _hand() -> Hand:
    from ca.system import SystemChance, SystemClock
    from fleetca.agent.renewing import Hand
    from fleetca.failpoints import failpoint

    return Hand(SystemClock(), SystemChance(), failpoint())


def _token(file: Path | None) -> str | None:
    import os

    from ca.errors import Malformed

    if file is None:
        return os.environ.get("FLEETCA_TOKEN") or None
    try:
        text = sys.stdin.read(_LONGEST_TOKEN) if str(file) == "-" else file.read_text()[:_LONGEST_TOKEN]
    except (OSError, UnicodeDecodeError) as error:
        raise Malformed("unreadable-file", f"{file} cannot be read.", why=f"{error}.") from None
    return text.strip() or None


def _show(identity: Identity, worker: Agent, done: Outcome, *, as_json: bool) -> None:
    if done.error is not None:
        raise done.error
    facts = done.certificate
    assert facts is not None, "only a failure has none"
    slots, memory = identity.slots, worker.memory
    document = {
        "did": done.did,
        "device": memory.device or None,
        "serial": f"{facts.serial:040x}",
        "not_before": output.iso(facts.not_before),
        "not_after": output.iso(facts.not_after),
        "next": output.iso(done.next_at),
        "reason": memory.reason or None,
        "certificate": str(slots.link / "certificate.pem"),
        "key": slots.key_for_services,
    }
    output.result(document, document["certificate"] or "", as_json=as_json)
    output.note(f"{done.did}; valid until {output.iso(facts.not_after)}, next at {output.iso(done.next_at)}")
