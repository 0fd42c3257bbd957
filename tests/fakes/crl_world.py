"""A small world for the publisher: an issuer, a record in one SQLite file that several processes can share, and a signer.

The CRLs are made by cryptography's builder, so nothing here shares code with `ca.rules.crl`, `ca.der.crl` or the gate.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.x509.oid import NameOID

from ca.errors import Conflict, NotFound
from ca.model import (
    AlgorithmName,
    CertificateRef,
    CertificateState,
    CrlEntry,
    CrlIntent,
    Digest,
    Issuer,
    IssuerId,
    KeyName,
    Lease,
    ListedChange,
    Reason,
    Revocation,
    Serial,
    TenantId,
)

LIFETIME = 86400
MAKERS: dict[str, Callable[[], Any]] = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa-3072": lambda: rsa.generate_private_key(65537, 3072),
    "rsa-4096": lambda: rsa.generate_private_key(65537, 4096),
    "ml-dsa-44": mldsa.MLDSA44PrivateKey.generate,
    "ml-dsa-65": mldsa.MLDSA65PrivateKey.generate,
    "ml-dsa-87": mldsa.MLDSA87PrivateKey.generate,
}
HASHES: dict[str, Any] = {"p384": hashes.SHA384(), "p256": hashes.SHA256(), "rsa-3072": hashes.SHA256(), "rsa-4096": hashes.SHA256()}


def at(when: int) -> datetime:
    return datetime.fromtimestamp(when, UTC)


@dataclass
class Clock:
    time: int

    def now(self) -> int:
        return self.time


@dataclass(frozen=True)
class Authority:
    """An issuer with its private key in hand."""

    issuer: Issuer
    key: Any
    name: x509.Name

    def crl(self, *, number: int, this_update: int, next_update: int, entries: Sequence[CrlEntry] = ()) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(at(this_update))
            .next_update(at(next_update))
            .add_extension(x509.AuthorityKeyIdentifier(self.issuer.key_identifier, None, None), critical=False)
            .add_extension(x509.CRLNumber(number), critical=False)
        )
        for entry in entries:
            one = x509.RevokedCertificateBuilder().serial_number(entry.serial).revocation_date(at(entry.revoked_at))
            if entry.reason is not Reason.unspecified:
                one = one.add_extension(x509.CRLReason(x509.ReasonFlags(entry.reason.name)), critical=False)
            builder = builder.add_revoked_certificate(one.build())
        made = builder.sign(self.key, HASHES.get(self.issuer.algorithm))
        return made.public_bytes(serialization.Encoding.DER)


def authority(
    *, algorithm: str = "p256", called: str = "issuing", not_before: int, not_after: int, key: Any = None, ours: bool = True
) -> Authority:
    key = key or MAKERS[algorithm]()
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test Fleet"), x509.NameAttribute(NameOID.COMMON_NAME, called)])
    public = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(77)
        .not_valid_before(at(not_before))
        .not_valid_after(at(not_after))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .sign(key, HASHES.get(algorithm))
    )
    issuer = Issuer(
        id=IssuerId(called),
        tenant=TenantId("default"),
        certificate=certificate.public_bytes(serialization.Encoding.DER),
        subject=name.public_bytes(),
        spki=public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
        key_identifier=identifier.digest,
        algorithm=AlgorithmName(algorithm),
        not_before=not_before,
        not_after=not_after,
        key=KeyName(called) if ours else None,
        may_issue=True,
        may_sign_crl=True,
        crl_url=None,
        ocsp_url=None,
        issuer_url=None,
        parent=None,
    )
    return Authority(issuer, key, name)


_TABLES = """
CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT OR IGNORE INTO counter VALUES ('change', 0), ('crl', 0);
CREATE TABLE IF NOT EXISTS lease (name TEXT PRIMARY KEY, holder TEXT, expires INTEGER, fence INTEGER);
CREATE TABLE IF NOT EXISTS revocation (change INTEGER PRIMARY KEY, serial TEXT, reason INTEGER, at INTEGER, not_after INTEGER, listed INTEGER, issuer TEXT);
CREATE TABLE IF NOT EXISTS crl (number INTEGER PRIMARY KEY, as_of INTEGER, count INTEGER, this_update INTEGER, next_update INTEGER,
  tbs_sha256 BLOB, fence INTEGER, published INTEGER NOT NULL DEFAULT 0);
"""


@dataclass
class World:
    """Record, leases and signer in one. Every call is a transaction of its own, in any thread or process.

    `tamper` changes the octets on their way out of the signer: a fault that the gate must see.
    """

    path: Path
    authority: Authority
    clock: Any
    lifetime: int = LIFETIME
    tamper: Callable[[bytes], bytes] | None = None
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.path.exists():
            return
        connection = sqlite3.connect(self.path)
        connection.executescript(_TABLES)
        connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=30)
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        finally:
            connection.close()

    # ---- what happens in the world

    def revoke(
        self,
        serial: int,
        *,
        reason: Reason = Reason.keyCompromise,
        not_after: int | None = None,
        listed: bool = True,
        issuer: str = "issuing",
    ) -> int:
        now = self.clock.now()
        with self.transaction() as db:
            (change,) = db.execute("UPDATE counter SET value = value + 1 WHERE name = 'change' RETURNING value").fetchone()
            row = (change, f"{serial:040x}", reason.value, now, not_after or now + 10 * LIFETIME, listed, issuer)
            db.execute("INSERT INTO revocation VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            return int(change)

    def forget(self, serial: int) -> None:
        with self.transaction() as db:
            db.execute("DELETE FROM revocation WHERE serial = ?", (f"{serial:040x}",))

    # ---- crl.ports.Reading

    def changes_since(self, change: int, limit: int) -> Sequence[Revocation]:
        with self.transaction() as db:
            rows = db.execute("SELECT * FROM revocation WHERE change > ? ORDER BY change LIMIT ?", (change, limit)).fetchall()
        return [_revocation(row) for row in rows]

    def crl_entries(self, issuer: IssuerId, shard: int, *, as_of: int, expired_before: int) -> Iterator[CrlEntry]:
        with self.transaction() as db:
            entries = list(_entries(db, issuer, as_of, expired_before))
        yield from entries

    def listed_changes(self, issuer: IssuerId, shard: int, *, after: int, as_of: int, limit: int) -> Sequence[ListedChange]:
        with self.transaction() as db:
            rows = db.execute(
                "SELECT r.*, (SELECT max(change) FROM revocation WHERE serial = r.serial AND issuer = r.issuer AND change < r.change)"
                " FROM revocation r WHERE issuer = ? AND listed AND change > ? AND change <= ? ORDER BY change LIMIT ?",
                (issuer, after, as_of, limit),
            ).fetchall()
        return [(row[0], 0, bytes.fromhex(row[1]), row[2], row[3], row[4], None, row[7]) for row in rows]

    def listed_entries(
        self, issuer: IssuerId, shard: int, *, after: int, as_of: int, expired_before: int, limit: int
    ) -> tuple[int, bytes, Sequence[str]] | None:
        with self.transaction() as db:
            rows = db.execute(
                "SELECT * FROM revocation WHERE issuer = ? AND listed AND change > ? AND change <= ?"
                " AND reason <> 8 AND not_after >= ? ORDER BY change LIMIT ?",
                (issuer, after, as_of, expired_before, limit),
            ).fetchall()
        if not rows:
            return None
        return rows[-1][0], b"".join(bytes.fromhex(row[1]) for row in rows), [f"{row[3]}:{row[2]}:" for row in rows]

    def replaced(self, first: int, last: int, *, as_of: int) -> frozenset[int]:
        with self.transaction() as db:
            rows = db.execute(
                "SELECT change FROM revocation r WHERE change BETWEEN ? AND ? AND EXISTS (SELECT 1 FROM revocation WHERE serial = r.serial"
                " AND issuer = r.issuer AND change > r.change AND change <= ?)",
                (first, last, as_of),
            ).fetchall()
        return frozenset(row[0] for row in rows)

    def find_certificate(self, ref: CertificateRef) -> None:
        return None

    def last_delta(self, issuer: IssuerId, shard: int) -> None:
        return None

    def find_crl(self, issuer: IssuerId, shard: int, number: int) -> None:
        return None

    def shard_counts(self, issuer: IssuerId) -> Sequence[int]:
        return []

    def status_of(self, issuer: IssuerId, serial: Serial) -> tuple[CertificateState, Revocation | None] | None:
        with self.transaction() as db:
            row = db.execute(
                "SELECT * FROM revocation WHERE serial = ? AND issuer = ? ORDER BY change DESC LIMIT 1", (f"{serial:040x}", issuer)
            ).fetchone()
        return (CertificateState.issued, _revocation(row)) if row else None

    def last_crl(self, issuer: IssuerId, shard: int) -> CrlIntent | None:
        with self.transaction() as db:
            return _last(db, issuer)

    # ---- crl.ports.Leases

    @contextmanager
    def writing(self) -> Iterator[_Book]:
        with self.transaction() as db:
            yield _Book(db)

    # ---- crl.ports.CrlSigner

    def sign_crl(
        self,
        issuer: IssuerId,
        *,
        shard: int,
        above: int,
        fence: int,
        sink_fd: int,
        base: int | None = None,
        afresh: bool = False,
    ) -> CrlIntent:
        self.calls.append("sign")
        now = self.clock.now()
        with self.transaction() as db:
            _check_fence(db, issuer, fence)
            (number,) = db.execute("UPDATE counter SET value = max(value, ?) + 1 WHERE name = 'crl' RETURNING value", (above,)).fetchone()
            (as_of,) = db.execute("SELECT value FROM counter WHERE name = 'change'").fetchone()
            last = _last(db, issuer)
            ends = min(now + self.lifetime - 1, self.authority.issuer.not_after)
            entries = list(_entries(db, issuer, as_of, min(last.this_update, now - (ends - now) // 3) if last else 0))
            der = self.authority.crl(number=number, this_update=now, next_update=ends, entries=entries)
            tbs = x509.load_der_x509_crl(der).tbs_certlist_bytes
            intent = CrlIntent(issuer, shard, number, as_of, len(entries), now, ends, Digest(sha256(tbs).digest()), fence)
            db.execute(
                "INSERT INTO crl VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
                (number, as_of, intent.count, now, ends, intent.tbs_sha256, fence),
            )
        if self.tamper is not None:
            der = self.tamper(der)
        os.write(sink_fd, der)
        return intent

    def crl_published(self, issuer: IssuerId, shard: int, number: int, fence: int) -> None:
        self.calls.append("published")
        with self.transaction() as db:
            _check_fence(db, issuer, fence)
            if not db.execute("UPDATE crl SET published = 1 WHERE number = ?", (number,)).rowcount:
                raise NotFound("crl-unknown", f"No CRL {number} was signed.")


class _Book:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def lease(self, name: str, *, holder: str, now: int, seconds: int) -> Lease | None:
        row = self._db.execute("SELECT holder, expires, fence FROM lease WHERE name = ?", (name,)).fetchone()
        if row is not None and row[0] != holder and row[1] > now:
            return None
        fence = 1 if row is None else row[2] + (row[0] != holder)
        self._db.execute("INSERT OR REPLACE INTO lease VALUES (?, ?, ?, ?)", (name, holder, now + seconds, fence))
        return Lease(name, holder, now + seconds, fence)


def _check_fence(db: sqlite3.Connection, issuer: IssuerId, fence: int) -> None:
    (newest,) = db.execute("SELECT fence FROM lease WHERE name = ?", (f"crl:{issuer}",)).fetchone()
    if newest != fence:
        raise Conflict("lease-lost", "A newer holder exists.")


def _last(db: sqlite3.Connection, issuer: IssuerId) -> CrlIntent | None:
    row = db.execute("SELECT * FROM crl WHERE published = 1 ORDER BY number DESC LIMIT 1").fetchone()
    if row is None:
        return None
    number, as_of, count, this_update, next_update, digest, fence, _ = row
    return CrlIntent(issuer, 0, number, as_of, count, this_update, next_update, Digest(digest), fence)


def _entries(db: sqlite3.Connection, issuer: str, as_of: int, expired_before: int) -> Iterator[CrlEntry]:
    rows = db.execute(
        "SELECT * FROM revocation r WHERE issuer = ? AND listed AND not_after >= ? AND change = "
        "(SELECT max(change) FROM revocation WHERE serial = r.serial AND issuer = r.issuer AND change <= ?) AND reason != 8 ORDER BY change",
        (issuer, expired_before, as_of),
    ).fetchall()
    for row in rows:
        yield CrlEntry(Serial(int(row[1], 16)), row[3], Reason(row[2]))


def _revocation(row: tuple[Any, ...]) -> Revocation:
    change, serial, reason, when, not_after, listed, issuer = row
    return Revocation(change, CertificateRef(IssuerId(issuer), Serial(int(serial, 16))), Reason(reason), when, not_after, bool(listed))
