"""A signer and a publisher with many revocations on record, in one process that answers one JSON line with another.

Started by the contest `crl`; what it says of its memory is the peak of this process, which is both.
"""

# ruff: noqa: E402 - imports stand below the mending of the path
from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from cryptography import x509
from world_revoked import YEAR, rows

# The contest of this folder is called as a package of ours is.
sys.path = [place for place in sys.path if Path(place or ".").resolve() != Path(__file__).resolve().parent]

from ca.issue import no_failpoint
from ca.keys.memory import MemoryKey
from ca.lineage import Issuers
from ca.model import CrlPlan, KeyName, Peer, Role
from ca.outlets.directory import DirectoryOutlet
from ca.rules.certificate import issuer_from_certificate
from ca.sign_crl import CrlSigning
from ca.store import tables
from ca.store.database import SQLITE
from ca.store.engine import migrate, open_store
from ca.store.entries import EntryFiles
from ca.store.file_journal import FileJournal
from ca.system import SystemClock
from ca.witness import Witness
from crl.model import Policy, Scope
from crl.publish import Publisher, scopes
from crl.rules import anatomy
from crl.tally import TallyFolder

PEER = Peer(Role.publisher, 0)


def fill(url: str, count: int, now: int, *, first: int = 1, shards: int = 0) -> None:
    """Put revocations on record past every rule: their certificates are not there. Many at once go in without indexes and get them afterwards."""
    connection = SQLITE.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    many = count > 100_000
    if many:
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-200000"):
            connection.execute(f"PRAGMA {pragma}")
    connection.execute("BEGIN EXCLUSIVE")
    indexes = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type='index' AND tbl_name='revocations' AND sql IS NOT NULL"
    ).fetchall()
    for name, _ in indexes if many else ():
        connection.execute(f"DROP INDEX {name}")
    connection.executemany(
        "INSERT INTO revocations (change, shard, serial, reason, revoked_at, issuer, not_after, listed, tenant, actor)"
        f" VALUES (?, ?, ?, ?, ?, 'issuing', {now + YEAR}, 1, 'default', 'bench')",
        rows(count, now, first=first, shards=shards),
    )
    for _, made in indexes if many else ():
        connection.execute(made)
    connection.execute("UPDATE counters SET value = ? WHERE name = ?", (first + count - 1, tables.CHANGE))
    connection.execute("COMMIT")
    connection.close()


class LocalSigner:
    """The signer's verb in this process: the same octets through the same descriptor."""

    def __init__(self, crls: CrlSigning) -> None:
        self.crls = crls
        self.seconds = 0.0

    def sign_crl(self, issuer: Any, *, sink_fd: int, **asked: Any) -> Any:
        began = time.perf_counter()
        with open(sink_fd, "wb", buffering=0, closefd=False) as sink:
            made = self.crls.sign(issuer, sink=sink, peer=PEER, **asked)
        self.seconds = time.perf_counter() - began
        return made

    def crl_published(self, issuer: Any, shard: int, number: int, fence: int) -> None:
        self.crls.published(issuer, shard=shard, number=number, fence=fence, peer=PEER)


class World:
    def __init__(self, folder: Path, count: int, *, algorithm: str, shards: int, now: int) -> None:
        self.folder, self.count, self.now = folder, count, now
        self.url = f"sqlite:///{folder / 'crl.db'}"
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "crl.db").exists():
            migrate(self.url)
            fill(self.url, count, now, shards=shards)
        self.store = open_store(self.url)
        key, certificate = authority(algorithm)
        issuer = issuer_from_certificate(
            certificate, id="issuing", key=KeyName("issuing"), crl_url="http://status.example/crl/issuing.crl", crls=CrlPlan(shards=shards)
        )
        self.issuer, clock = issuer, SystemClock()
        crls = CrlSigning(
            ledger=self.store.ledger, reading=self.store.reading, bodies=EntryFiles(folder / "entries", self.store.reading),
            witness=Witness(FileJournal(folder / "journal")), keys={issuer.id: key}, issuers=Issuers([issuer]), clock=clock, lifetime=86400,
        )  # fmt: skip
        crls.settle_shards()
        self.signer = LocalSigner(crls)
        shared: dict[str, Any] = {
            "reading": self.store.reading, "leases": self.store.ledger, "signer": self.signer, "clock": clock,
            "failpoint": no_failpoint, "policy": Policy(interval=3600, nudge=0, lifetime=86400), "holder": "bench",
        }  # fmt: skip
        # Each goes on from its own last CRL, as a publisher does that runs.
        self.by_record = Publisher(**shared, outlet=DirectoryOutlet(folder / "record"))
        self.by_tally = Publisher(
            **shared, outlet=DirectoryOutlet(folder / "public"), tallies=TallyFolder(folder / "tally", self.store.reading)
        )

    def publish(self, how: str, shard: int | None = 0) -> dict[str, Any]:
        publisher = self.by_tally if how == "tally" else self.by_record
        wanted = [Scope(self.issuer, shard)] if shard is not None else list(scopes(self.issuer))
        began = time.perf_counter()
        for scope in wanted:
            publisher.publish(scope, asked=True)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "signing": self.signer.seconds, "rest": seconds - self.signer.seconds}

    def revoke_more(self, count: int) -> dict[str, Any]:
        fill(self.url, count, self.now, first=self.count + 1)
        self.count += count
        return {}


def authority(algorithm: str) -> tuple[MemoryKey, bytes]:
    """A key and its certificate, the same for the same folder of certificates in every process of a contest."""
    from cryptography.hazmat.primitives import serialization

    place = Path(os.environ["BENCH_DIRECTORY"]) / f"crl-{algorithm}"
    private = serialization.load_pem_private_key(place.with_suffix(".key").read_bytes(), None)
    certificate = x509.load_pem_x509_certificate(place.with_suffix(".pem").read_bytes())
    return MemoryKey(KeyName("issuing"), private), certificate.public_bytes(serialization.Encoding.DER)


def peak() -> float:
    """MiB of this program at its largest. Not what getrusage says: that begins with the size of whoever started us."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def main() -> None:
    folder, count, algorithm, shards, now = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
    world = World(folder, count, algorithm=algorithm, shards=shards, now=now)
    assert anatomy.CHUNK
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        match asked["do"]:
            case "publish":
                answer = world.publish(asked["how"], asked.get("shard", 0))
            case "revoke":
                answer = world.revoke_more(asked["count"])
            case _:
                answer = {"rss": peak()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
