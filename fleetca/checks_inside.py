"""The doctor's checks of what lies on this machine: who may do what, secrets, keys, chain, database, disks, clock. Opens no key (P3)."""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from cryptography import x509

from ca.model import Issuer, Role
from ca.store.engine import Store, open_store, revision
from config.secrets import Secret
from config.settings import Settings
from fleetca import forms
from fleetca.cli.output import iso
from fleetca.verdict import Patient, Verdict, bad, note, ok

CLOCK_TOLERANCE: Final = 2
SOON: Final = 0.1
"""The share of a CA certificate's or root CRL's lifetime in which its successor should exist."""
_TIME_ERROR: Final = 5
"""What adjtimex returns for a clock that nothing keeps right."""
_STALE_LEAF: Final = 120


# ---- Who may do what ----------------------------------------------------------------------------------------------------


def separation(patient: Patient) -> Iterator[Verdict]:
    settings = patient.settings
    signer, network = _signer_uid(settings), _network_uids(settings)
    users = forms.roles_by_uid(settings, signer)
    if signer in network:
        yield note(
            "P3 holds by code path: web processes and signer run as the same user.",
            "A web process that is taken over could read the signer's files; memory is closed to it (PR_SET_DUMPABLE=0).",
            "Run the web processes as users of their own and name them in [signer.users]; that needs PostgreSQL.",
        )
    elif settings.store.url.startswith("sqlite:"):
        yield bad(
            "Separate users cannot share an SQLite database.",
            "Who may read its file must be able to write it.",
            "Use PostgreSQL with one role per process (config/deployments/postgresql-roles.sql).",
        )
    else:
        others = ", ".join(_user(uid) for uid in sorted(network)) or "nobody yet"
        yield ok(
            f"P3 is enforced by the system: separate users are in force. The signer runs as {_user(signer)}, web processes as {others}."
        )
    if signer != 0 and 0 in network:
        yield bad("A web process runs as root.", "Whoever takes it over has everything.", "Run it as a user of its own.")
    for uid in sorted(network - {signer}):
        more = sorted(role.value for role in users.get(uid, ()) if role in {Role.publisher, Role.operator})
        if more:
            yield bad(
                f"{_user(uid)} faces a network and has role {' and '.join(more)} at the signer.",
                "Who takes over the web process can do what that role may do.",
                "Give that role to another user in [signer.users].",
            )
    socket = patient.settings.signer.socket
    if socket.exists():
        mode = stat.S_IMODE(socket.stat().st_mode)
        wanted = int(patient.settings.signer.socket_mode, 8)
        if mode & ~wanted:
            yield bad(
                f"The signer's socket has mode {mode:04o}, wider than {wanted:04o}.",
                fix=f"chmod {patient.settings.signer.socket_mode} {socket}",
            )


def _signer_uid(settings: Settings) -> int:
    """Whose the signer's socket is; while it does not run, whose journal it is."""
    for path in (settings.signer.socket, settings.signer.journal):
        if path.exists():
            return path.stat().st_uid
    return settings.file.stat().st_uid


def _network_uids(settings: Settings) -> set[int]:
    """The users of web processes: those that have their roles, and those that do listen."""
    users = forms.roles_by_uid(settings, _signer_uid(settings))
    ports = {settings.enroll.listen.port, settings.status.listen.port}
    return {uid for uid, roles in users.items() if Role.enroll in roles or Role.status in roles} | set(_listeners(ports))


def _listeners(ports: set[int]) -> Iterator[int]:
    """Who listens on these ports of this machine, as the kernel says (proc_net_tcp): a uid each."""
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            _, local, _, state, *rest = line.split()
            if state == "0A" and int(local.rpartition(":")[2], 16) in ports:
                yield int(rest[3])


def _user(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:
        return f"user id {uid}"


def _closed(path: Path) -> bool:
    """Whether it lies in a room of another user, whose business it then is."""
    try:
        return path.stat().st_uid != os.geteuid() and not os.access(path, os.R_OK)
    except PermissionError:
        return True
    except FileNotFoundError:
        return False


_PROTECTS: Final = {
    "file": "in a 0600 file: protects a copied key file, not a copied disk",
    "env": "in the environment: what starts us has it too, and crash reports may show it",
    "credential": "a systemd credential: protects a copied disk if it is encrypted to this machine",
    "fd": "on a file descriptor: as safe as whoever hands it over",
}


def secrets(patient: Patient) -> Iterator[Verdict]:
    settings = patient.settings
    named: list[tuple[str, Secret]] = [("signer.serial_check", settings.signer.serial_check)]
    if settings.log.passphrase is not None:
        named.append(("log.passphrase", settings.log.passphrase))
    named += [(f"issuers.{each.id}.passphrase", each.passphrase) for each in settings.issuers if each.passphrase is not None]
    if settings.store.password is not None:
        named.append(("store.password", settings.store.password))
    for setting, reference in named:
        if reference.scheme in {"fd", "credential"} and reference.path is None:
            yield note(f"{setting} ({reference.reference}) is given to the process only that needs it; it cannot be checked from here.")
            continue
        if setting == "log.passphrase" and settings.log.key.path is not None and _closed(settings.log.key.path):
            yield ok("log.passphrase is the publisher's, which runs as another user: closed to this one.")
            continue
        forms.secret(reference)()
        how = _PROTECTS[reference.scheme]
        if reference.scheme == "env":
            yield bad(f"{setting} lies {how}.", fix="Use file:PATH or credential:NAME.")
        else:
            yield ok(f"{setting} lies {how}.")


# ---- Keys and chain -----------------------------------------------------------------------------------------------------


def keys(patient: Patient) -> Iterator[Verdict]:
    settings = patient.settings
    references = [(each.id, each.key) for each in settings.issuers if each.key is not None and not each.to_come]
    for name, reference in [*references, ("log", settings.log.key)]:
        path = reference.path
        if path is None:
            yield ok(f"The key of {name} rests in a store of its own: {reference.text}")
            continue
        if _closed(path):
            yield ok(f"The key of {name} belongs to another user: closed to this one.")
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            yield bad(f"The key of {name} is open to others (mode {mode:04o}).", fix=f"chmod 600 {path}")
        if not path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----"):
            yield bad(f"The key of {name}, {path}, is not sealed.", fix=f"openssl pkcs8 -topk8 -scrypt -in {path} -out SEALED")
    if patient.signer is None:
        yield patient.missing("The signer does not answer.", f"Nobody listens on {settings.signer.socket}.")
    else:
        opened = set(patient.signer.get("keys", ()))
        closed = sorted({name for name, _ in references} - opened)
        if closed:
            yield bad(f"The signer does not hold the key of {', '.join(closed)}.", fix="Restart it, and look at what it says.")
        else:
            yield ok(f"The signer holds the keys of {', '.join(sorted(opened))}.")
        waiting = int(patient.signer.get("journal_waiting", 0))
        if waiting > 1000:
            yield bad(f"{waiting} records wait to be written to the journal.", fix=f"Check the disk of {settings.signer.journal}.")
    to_come = [each.key for each in settings.issuers if each.key is not None and each.to_come]
    files = {reference.path for reference in (settings.log.key, *(key for _, key in references), *to_come) if reference.path is not None}
    yield from _stray_keys(patient, files)


def _stray_keys(patient: Patient, known: set[Path]) -> Iterator[Verdict]:
    base = patient.settings.base
    roots = [each.id for each in patient.settings.issuers if each.key is None]
    trial = any("NOT FOR PRODUCTION" in _subject(issuer) for issuer in patient.issuers if issuer.parent is None)
    for path in sorted(base.rglob("*.key")):
        if path in known or "secrets" in path.relative_to(base).parts[:1] or not path.is_file():
            continue
        if path.stem in roots:
            say = note if trial else bad
            yield say(f"The root's key lies on this machine: {path}.", "A root is offline (P4).", "Move it to the offline machine.")
        elif path.with_suffix(".pem").exists() and path.parent.name == "operators":
            yield note(
                f"The key of operator {path.stem} and its passphrase lie on this machine.",
                "Whoever acts as the operator should hold them.",
                f"Move {path} and secrets/{path.stem}.passphrase to the operator's machine.",
            )


def _subject(issuer: Issuer) -> str:
    return x509.load_der_x509_certificate(issuer.certificate).subject.rfc4514_string()


def chain(patient: Patient) -> Iterator[Verdict]:
    now = patient.clock.now()
    longest = max((profile.lifetime for profile in forms.profiles(patient.settings).values() if not profile.is_ca), default=0)
    awaited = {each.succeeds: each.id for each in patient.settings.issuers if each.to_come}
    for issuer in patient.issuers:
        left, lead = issuer.not_after - now, (issuer.not_after - issuer.not_before) * SOON
        if issuer.retired_at is not None:
            what = f"{issuer.id} is retired since {iso(issuer.retired_at)}."
            if patient.settings.issuer(issuer.id).key is None:
                yield ok(what)
            else:
                yield note(what, "Its key signs nothing any more, and can be lost.", "Destroy it: fleetca keys destroy-request")
        elif now < issuer.not_before:
            yield bad(f"The certificate of {issuer.id} holds only from {iso(issuer.not_before)} on.", fix="Check this machine's clock.")
        elif issuer.issues_until is not None and now >= issuer.issues_until:
            yield ok(f"{issuer.id} holds until {iso(issuer.not_after)}; {issuer.successor} has taken its place.")
        elif left < 0:
            yield bad(f"The certificate of {issuer.id} ended at {iso(issuer.not_after)}.", fix="Make its successor in a ceremony.")
        elif issuer.issues_until is not None and issuer.issues_until < issuer.not_after - longest:
            yield ok(f"{issuer.id} issues until {iso(issuer.issues_until)}, when {issuer.successor} takes its place.")
        elif left < lead + (longest if issuer.key is not None else 0):
            yield bad(
                f"The certificate of {issuer.id} ends at {iso(issuer.not_after)}.",
                "What it signs cannot outlive it.",
                _next(issuer, awaited),
            )
        else:
            yield ok(f"{issuer.id} holds until {iso(issuer.not_after)}.")


def _next(issuer: Issuer, awaited: Mapping[str | None, str]) -> str:
    """What brings the successor of an issuer that is about to be too short."""
    if issuer.id in awaited:
        return f"{awaited[issuer.id]} is awaited in its place: hold its ceremony and import it."
    if issuer.issues_until is not None:
        return f"Let {issuer.successor} take its place earlier: issues_from."
    if issuer.parent is None:
        return "Make the next root in a ceremony: root-change.toml."
    return "Prepare its successor: fleetca issuers prepare"


# ---- Storage ------------------------------------------------------------------------------------------------------------


def database(patient: Patient) -> Iterator[Verdict]:
    url = forms.store_url(patient.settings)
    has, needs = revision(url)
    fix = f"fleetca migrate --settings {patient.settings.file}"
    if has is None:
        yield bad("The database has no tables.", "No ceremony was imported yet.", "fleetca import FOLDER")
        return
    if has != needs:
        yield bad(f"The database is at revision {has}, this program needs {needs}.", fix=fix)
        return
    store = open_store(url, readonly=True)
    try:
        yield from _store(patient, store)
        yield from _writers(patient, store)
    finally:
        store.close()


def _writers(patient: Patient, store: Store) -> Iterator[Verdict]:
    """With separate users, the database holds the wall too (P2): whom it lets write certificates."""
    if store.backend == "sqlite":
        return  # its file's mode decides
    found = store.writers()
    separate = _signer_uid(patient.settings) not in _network_uids(patient.settings)
    if len(found) == 1:
        yield ok(f"Only the database role {found[0]} may write certificates.")
    elif separate:
        yield bad(
            f"The database lets {', '.join(found) or 'superusers only'} write certificates.",
            "Only the signer should come with such a role, and no process as a superuser.",
            "Give each process a role of its own: config/deployments/postgresql-roles.sql",
        )


def _store(patient: Patient, store: Store) -> Iterator[Verdict]:
    store.reading.ping()
    if store.journal_mode == "wal":
        yield ok("SQLite runs in WAL mode; this version of it is safe there.")
    elif store.journal_mode is not None:
        yield ok("SQLite runs with a rollback journal: this version has the WAL-reset bug, so WAL is not used.")
    else:
        yield ok("PostgreSQL answers.")
    recorded = {issuer.id: issuer.certificate for issuer in store.reading.issuers()}
    for issuer in patient.issuers:
        if recorded.get(issuer.id) != issuer.certificate:
            yield bad(
                f"The database does not know the certificate of {issuer.id}.",
                "It was never imported, or another one is on record.",
                "fleetca import FOLDER",
            )
    now, high = patient.clock.now(), store.reading.high_time()
    if now < high - CLOCK_TOLERANCE:
        yield bad(
            f"The clock is behind what is on record by {high - now} s.", "Nothing is signed until it is right.", "Set the clock (UTC)."
        )
    else:
        yield ok("The clock is not behind what is on record.")
    waiting = store.reading.pending_leaves(1000)
    oldest = min((int(json.loads(queued.body)["at"]) for queued in waiting), default=now)
    if patient.runs and now - oldest > _STALE_LEAF:
        yield bad(
            f"Entries wait for the record since {iso(oldest)}.", "The publisher runs the sequencer.", "Look at what the publisher says."
        )


def disks(patient: Patient) -> Iterator[Verdict]:
    journal = patient.settings.signer.journal.parent
    url = patient.settings.store.url
    places = {journal, patient.settings.crl.directory, patient.settings.log.directory, patient.settings.base}
    for place in sorted(places):
        there = place if place.exists() else patient.settings.base
        usage = shutil.disk_usage(there)
        if usage.free < max(usage.total // 50, 64 << 20):
            yield bad(f"The disk of {there} is nearly full: {usage.free >> 20} MiB are free.", fix="Free some space.")
    if url.startswith("sqlite:///"):
        database = Path(url.removeprefix("sqlite:///"))
        if database.exists() and stat.S_IMODE(database.stat().st_mode) & 0o077:
            yield bad(f"The database {database} is open to others.", fix=f"chmod 600 {database}")
        if database.exists() and journal.exists() and database.stat().st_dev == journal.stat().st_dev:
            yield note(
                "Database and journal lie on the same disk.",
                "The journal is the second witness after a lost database; one disk loses both.",
                "Put signer.journal on another disk.",
            )


def clock(patient: Patient) -> Iterator[Verdict]:
    try:
        # Asks only: modes=0 changes nothing. The structure is larger than the kernel's.
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        state = -1
    if state == _TIME_ERROR:
        yield note("Nothing says that it keeps this machine's clock right.", fix="Run chrony or systemd-timesyncd, here or on its host.")
    elif state >= 0:
        yield ok("The system says that its clock is kept right.")
    else:
        yield note("The system does not say whether its clock is kept right.")
    written = max((path.stat().st_mtime for path in [patient.settings.file, patient.settings.signer.journal] if path.exists()), default=0)
    if patient.clock.now() < int(written) - CLOCK_TOLERANCE:
        yield bad("The clock lies before files of this deployment were written.", fix="Set the clock (UTC).")
