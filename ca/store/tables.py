"""The tables of the authority, as SQLAlchemy Core describes them. It knows SQL types and nothing of rules, verbs or time.

Who changes a table writes a migration in `ca/store/migrations/versions`; a contract test compares the migrated schema with this file on
both databases. Every index here exists for a question asked in `reads.py`, `reading.py` or `ledger.py`; the plan test shows which.

Why it looks as it does:
- Times are seconds since 1970 (UTC), serial numbers 20 octets big-endian, digests 32 octets: equal on both databases and sortable.
- Text is compared by octets (PostgreSQL: collation "C"), so pages continue at the same row on both.
- Keys that are random octets stand in as few indexes as possible: each costs a random page in every commit.
- No foreign keys: nothing is ever deleted here, and each costs a lookup per insert. The audit compares rows with leaves instead (P8).
- `WITHOUT ROWID` where the key is all that rows are found by: one tree instead of two.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
OCTETS = sa.LargeBinary()
NUMBER = sa.BigInteger()
ROW = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""A row number given by the database."""
TRUTH = sa.Boolean()

tenants = sa.Table(
    "tenants",
    metadata,
    sa.Column("id", TEXT, primary_key=True),
    sa.Column("created", NUMBER, nullable=False),
)

operators = sa.Table(
    "operators",
    metadata,
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("tenant", TEXT, nullable=False),
    sa.Column("roles", TEXT, nullable=False),  # JSON list
    sa.Column("created", NUMBER, nullable=False),
    sa.Column("disabled_at", NUMBER),
    sa.Column("person", TEXT, nullable=False),
)

issuers = sa.Table(
    "issuers",
    metadata,
    sa.Column("id", TEXT, primary_key=True),
    sa.Column("tenant", TEXT, nullable=False),
    sa.Column("certificate", OCTETS, nullable=False),
    sa.Column("subject", OCTETS, nullable=False),
    sa.Column("spki", OCTETS, nullable=False),
    sa.Column("key_identifier", OCTETS, nullable=False),
    sa.Column("algorithm", TEXT, nullable=False),
    sa.Column("not_before", NUMBER, nullable=False),
    sa.Column("not_after", NUMBER, nullable=False),
    sa.Column("key", TEXT),
    sa.Column("may_issue", TRUTH, nullable=False),
    sa.Column("may_sign_crl", TRUTH, nullable=False),
    sa.Column("crl_url", TEXT),
    sa.Column("ocsp_url", TEXT),
    sa.Column("issuer_url", TEXT),
    sa.Column("parent", TEXT),
    sa.Column("successor", TEXT),
    sa.Column("issues_until", NUMBER),
    sa.Column("last_ends", NUMBER),
    sa.Column("retired_at", NUMBER),
)

devices = sa.Table(
    "devices",
    metadata,
    sa.Column("id", TEXT, primary_key=True),
    sa.Column("tenant", TEXT, nullable=False),
    sa.Column("state", TEXT, nullable=False),
    sa.Column("created", NUMBER, nullable=False),
    sa.CheckConstraint("state IN ('blank', 'provisioned', 'active', 'quarantined', 'retired')", name="devices_state"),
    sa.Index("devices_by_tenant", "tenant", "id"),
    sa.Index("devices_retired", "id", sqlite_where=sa.text("state = 'retired'"), postgresql_where=sa.text("state = 'retired'")),
    sqlite_with_rowid=False,
)

# Beside the devices, not in them: issuing writes a device's row and nothing of this.
device_facts = sa.Table(
    "device_facts",
    metadata,
    sa.Column("device", TEXT, primary_key=True),
    sa.Column("root_of_trust", TEXT),
    sa.Column("justification", TEXT, nullable=False),
    sa.Column("exception_ends", NUMBER),
    sa.Column("safety_class", TEXT),
    sa.Column("batch", TEXT, nullable=False),
    sa.Column("owner", TEXT, nullable=False),
    sa.Column("anchors", TEXT, nullable=False),  # JSON list
    # Few have an exception: the doctor asks for those that ended.
    sa.Index(
        "device_facts_exceptions",
        "exception_ends",
        sqlite_where=sa.text("exception_ends IS NOT NULL"),
        postgresql_where=sa.text("exception_ends IS NOT NULL"),
    ),
    sqlite_with_rowid=False,
)

device_changes = sa.Table(
    "device_changes",
    metadata,
    sa.Column("id", ROW, primary_key=True),
    sa.Column("device", TEXT, nullable=False),
    sa.Column("before", TEXT),
    sa.Column("after", TEXT, nullable=False),
    sa.Column("at", NUMBER, nullable=False),
    sa.Column("reason", TEXT, nullable=False),
    sa.Column("actor", TEXT, nullable=False),
    sa.Column("channel", TEXT, nullable=False),
    sa.Column("request", TEXT, nullable=False),
    sa.Index("device_changes_by_device", "device", "id"),
)

keys = sa.Table(
    "keys",
    metadata,
    sa.Column("spki_sha256", OCTETS, primary_key=True),
    sa.Column("device", TEXT, nullable=False),
    sa.Column("claimed_at", NUMBER, nullable=False),
    sqlite_with_rowid=False,
)

key_records = sa.Table(
    "key_records",
    metadata,
    sa.Column("spki_sha256", OCTETS, primary_key=True),
    sa.Column("tenant", TEXT, nullable=False),
    sa.Column("name", TEXT, nullable=False),
    sa.Column("purpose", TEXT, nullable=False),
    sa.Column("origin", TEXT, nullable=False),
    sa.Column("algorithm", TEXT, nullable=False),
    sa.Column("spki", OCTETS, nullable=False),
    sa.Column("store", TEXT, nullable=False),
    sa.Column("place", TEXT, nullable=False),
    sa.Column("protection", TEXT),
    sa.Column("owner", TEXT, nullable=False),
    sa.Column("state", TEXT, nullable=False),
    sa.Column("created", NUMBER, nullable=False),
    sa.Column("period_ends", NUMBER),
    sa.Column("changed", NUMBER, nullable=False),
    sqlite_with_rowid=False,
)

key_changes = sa.Table(
    "key_changes",
    metadata,
    sa.Column("id", ROW, primary_key=True),
    sa.Column("spki_sha256", OCTETS, nullable=False),
    sa.Column("before", TEXT),
    sa.Column("after", TEXT, nullable=False),
    sa.Column("at", NUMBER, nullable=False),
    sa.Column("reason", TEXT, nullable=False),
    sa.Column("actor", TEXT, nullable=False),
    sa.Column("evidence", TEXT, nullable=False),
    sa.Index("key_changes_by_key", "spki_sha256", "id"),
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("hash", OCTETS, primary_key=True),
    sa.Column("tenant", TEXT, nullable=False),
    sa.Column("device", TEXT, nullable=False),
    sa.Column("profile", TEXT, nullable=False),
    sa.Column("names", TEXT, nullable=False),  # JSON list of [kind, value]
    sa.Column("created", NUMBER, nullable=False),
    sa.Column("expires", NUMBER, nullable=False),
    sa.Column("created_by", TEXT, nullable=False),
    sa.Column("used_at", NUMBER),
    sa.Column("used_by", OCTETS),
    sa.Column("revoked_at", NUMBER),
    sa.Index(
        "tokens_outstanding",
        "device",
        "hash",
        sqlite_where=sa.text("used_at IS NULL AND revoked_at IS NULL"),
        postgresql_where=sa.text("used_at IS NULL AND revoked_at IS NULL"),
    ),
    sa.Index(
        "tokens_withdrawn",
        "device",
        "hash",
        sqlite_where=sa.text("used_at IS NULL AND revoked_at IS NOT NULL"),
        postgresql_where=sa.text("used_at IS NULL AND revoked_at IS NOT NULL"),
    ),
    sqlite_with_rowid=False,
)

renewal_orders = sa.Table(
    "renewal_orders",
    metadata,
    sa.Column("number", ROW, primary_key=True, autoincrement=False),
    sa.Column("tenant", TEXT, nullable=False),
    sa.Column("since", NUMBER, nullable=False),
    sa.Column("within", NUMBER, nullable=False),
    sa.Column("issuer", TEXT),
    sa.Column("profile", TEXT),
    sa.Column("reason", TEXT, nullable=False),
    sa.Column("actor", TEXT, nullable=False),
    sa.Column("withdrawn_at", NUMBER),
    sa.Column("withdrawn_by", TEXT, nullable=False),
)

approvals = sa.Table(
    "approvals",
    metadata,
    sa.Column("request", OCTETS, primary_key=True),
    sa.Column("tenant", TEXT, nullable=False),
    sa.Column("device", TEXT, nullable=False),
    sa.Column("profile", TEXT, nullable=False),
    sa.Column("names", TEXT, nullable=False),  # JSON list of [kind, value]
    sa.Column("evidence", TEXT, nullable=False),
    sa.Column("actor", TEXT, nullable=False),
    sa.Column("spki_sha256", OCTETS, nullable=False),
    sa.Column("asked_at", NUMBER, nullable=False),
    sa.Column("expires", NUMBER, nullable=False),
    sa.Column("state", TEXT, nullable=False),
    sa.Column("decided_at", NUMBER),
    sa.Column("decided_by", TEXT, nullable=False),
    sa.Column("reason", TEXT, nullable=False),
    sa.CheckConstraint("state IN ('pending', 'approved', 'refused')", name="approvals_state"),
    sa.Index(
        "approvals_waiting",
        "tenant",
        "expires",
        "request",
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    ),
    sa.Index(
        "approvals_waiting_of",
        "device",
        "expires",
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    ),
    sqlite_with_rowid=False,
)

proposals = sa.Table(
    "proposals",
    metadata,
    sa.Column("request", OCTETS, primary_key=True),
    sa.Column("tenant", TEXT, nullable=False),
    sa.Column("act", TEXT, nullable=False),
    sa.Column("subject_sha256", OCTETS, nullable=False),
    sa.Column("expires", NUMBER, nullable=False),
    sa.Column("state", TEXT, nullable=False),
    sa.Column("body", TEXT, nullable=False),  # the whole of it as JSON, with what was signed
    sa.CheckConstraint("state IN ('open', 'approved', 'refused', 'withdrawn', 'used')", name="proposals_state"),
    sa.Index("proposals_by_subject", "subject_sha256", "expires", "request"),
    sa.Index("proposals_by_end", "tenant", "expires", "request"),
    sqlite_with_rowid=False,
)

line_stations = sa.Table(
    "line_stations",
    metadata,
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("body", TEXT, nullable=False),  # JSON
    sqlite_with_rowid=False,
)

line_shifts = sa.Table(
    "line_shifts",
    metadata,
    sa.Column("number", ROW, primary_key=True, autoincrement=False),
    sa.Column("request", OCTETS, nullable=False),
    sa.Column("body", TEXT, nullable=False),  # JSON
    sa.Index("line_shifts_by_request", "request", unique=True),
)

line_units = sa.Table(
    "line_units",
    metadata,
    sa.Column("shift", NUMBER, primary_key=True, autoincrement=False),
    sa.Column("number", NUMBER, primary_key=True, autoincrement=False),
    sa.Column("request_key", OCTETS, nullable=False),
    sqlite_with_rowid=False,
)

line_seals = sa.Table(
    "line_seals",
    metadata,
    sa.Column("station", TEXT, primary_key=True),
    sa.Column("count", NUMBER, primary_key=True, autoincrement=False),
    sa.Column("body", TEXT, nullable=False),  # JSON
    sqlite_with_rowid=False,
)

wipe_receipts = sa.Table(
    "wipe_receipts",
    metadata,
    sa.Column("device", TEXT, primary_key=True),
    sa.Column("retired_at", NUMBER, primary_key=True, autoincrement=False),
    sa.Column("tenant", TEXT, nullable=False),
    sa.Column("body", TEXT, nullable=False),  # JSON
    sqlite_with_rowid=False,
)

profiles = sa.Table(
    "profiles",
    metadata,
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("body", TEXT, nullable=False),  # as JSON
    sqlite_with_rowid=False,
)

demands = sa.Table(
    "demands",
    metadata,
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("body", TEXT, nullable=False),  # canonical JSON
    sqlite_with_rowid=False,
)

messages = sa.Table(
    "messages",
    metadata,
    sa.Column("digest", OCTETS, primary_key=True),
    sa.Column("used_at", NUMBER, nullable=False),
    sqlite_with_rowid=False,
)

certificates = sa.Table(
    "certificates",
    metadata,
    sa.Column("id", ROW, primary_key=True),
    sa.Column("issuer", TEXT, nullable=False),
    sa.Column("serial", OCTETS, nullable=False),
    sa.Column("shard", NUMBER, nullable=False),
    sa.Column("state", TEXT, nullable=False),
    sa.Column("tenant", TEXT, nullable=False),
    sa.Column("device", TEXT, nullable=False),
    sa.Column("profile", TEXT, nullable=False),
    sa.Column("actor", TEXT, nullable=False),
    sa.Column("subject", TEXT, nullable=False),
    sa.Column("names", TEXT, nullable=False),  # JSON list of [kind, value]
    sa.Column("spki_sha256", OCTETS, nullable=False),
    sa.Column("not_before", NUMBER, nullable=False),
    sa.Column("not_after", NUMBER, nullable=False),
    sa.Column("revocable", TRUTH, nullable=False),
    sa.Column("parent_issuer", TEXT),
    sa.Column("parent_serial", OCTETS),
    sa.Column("request_key", OCTETS, nullable=False),
    sa.Column("leaf", OCTETS, nullable=False),
    sa.Column("intended_at", NUMBER, nullable=False),
    sa.Column("issued_at", NUMBER),
    sa.Column("voided_at", NUMBER),
    sa.Column("first_used_at", NUMBER),
    sa.Column("superseded_at", NUMBER),
    sa.Column("delivered_at", NUMBER),
    sa.Column("grace_ends_at", NUMBER),
    sa.Column("clone_seen_at", NUMBER),
    sa.Column("revocation", NUMBER),  # change number of its latest row in revocations
    sa.Column("revoked", TRUTH, nullable=False),  # and that row is no release
    sa.Column("grant", TEXT, nullable=False),  # canonical JSON
    sa.Column("tbs", OCTETS, nullable=False),
    sa.Column("der", OCTETS),
    sa.Column("der_sha256", OCTETS),
    sa.CheckConstraint("state IN ('intended', 'issued', 'void')", name="certificates_state"),
    sa.CheckConstraint("(state = 'issued') = (der IS NOT NULL)", name="certificates_der"),
    # The serial first: it is random, so it alone finds the row, also where the issuer is not known. Unique per issuer by this index.
    sa.Index("certificates_by_serial", "serial", "issuer", unique=True),
    sa.Index(
        "certificates_by_request",
        "request_key",
        unique=True,
        sqlite_where=sa.text("state <> 'void'"),
        postgresql_where=sa.text("state <> 'void'"),
    ),
    sa.Index(
        "certificates_by_der",
        "der_sha256",
        unique=True,
        sqlite_where=sa.text("der_sha256 IS NOT NULL"),
        postgresql_where=sa.text("der_sha256 IS NOT NULL"),
    ),
    sa.Index("certificates_by_device", "device", "id"),
    sa.Index("certificates_by_subject", "subject", "id"),
    sa.Index("certificates_by_expiry", "not_after", "id"),
    sa.Index("certificates_by_tenant", "tenant", "id"),
    # These hold few rows each and cost nothing while a certificate lives its ordinary life.
    sa.Index("certificates_intended", "id", sqlite_where=sa.text("state = 'intended'"), postgresql_where=sa.text("state = 'intended'")),
    sa.Index("certificates_void", "id", sqlite_where=sa.text("state = 'void'"), postgresql_where=sa.text("state = 'void'")),
    sa.Index("certificates_revoked", "id", sqlite_where=sa.text("revoked"), postgresql_where=sa.text("revoked")),
    sa.Index(
        "certificates_superseded",
        "id",
        sqlite_where=sa.text("superseded_at IS NOT NULL OR grace_ends_at IS NOT NULL"),
        postgresql_where=sa.text("superseded_at IS NOT NULL OR grace_ends_at IS NOT NULL"),
    ),
    sa.Index(
        "certificates_clones",
        "clone_seen_at",
        sqlite_where=sa.text("clone_seen_at IS NOT NULL"),
        postgresql_where=sa.text("clone_seen_at IS NOT NULL"),
    ),
    sa.Index(
        "certificates_in_grace",
        "grace_ends_at",
        sqlite_where=sa.text("grace_ends_at IS NOT NULL AND superseded_at IS NULL"),
        postgresql_where=sa.text("grace_ends_at IS NOT NULL AND superseded_at IS NULL"),
    ),
)

certificate_names = sa.Table(
    "certificate_names",
    metadata,
    sa.Column("value", TEXT, primary_key=True),
    sa.Column("certificate", NUMBER, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

revocations = sa.Table(
    "revocations",
    metadata,
    sa.Column("change", ROW, primary_key=True, autoincrement=False),
    sa.Column("issuer", TEXT, nullable=False),
    sa.Column("shard", NUMBER, nullable=False),
    sa.Column("serial", OCTETS, nullable=False),
    sa.Column("reason", NUMBER, nullable=False),
    sa.Column("revoked_at", NUMBER, nullable=False),
    sa.Column("not_after", NUMBER, nullable=False),
    sa.Column("listed", TRUTH, nullable=False),
    sa.Column("tenant", TEXT, nullable=False),
    sa.Column("actor", TEXT, nullable=False),
    sa.Column("invalid_from", NUMBER),
    sa.Column("channel", TEXT),
    sa.Column("request", TEXT),
    sa.Column("replaces", NUMBER),  # the change of the same certificate before this one
    # CRLs stand in the order of changes, so building one walks the table as it grew. One shard's rows by this:
    sa.Index("revocations_by_shard", "issuer", "shard", "change"),
    # A certificate's changes are one chain, so that the last of them is known without comparing rows (R08): one first change, one next.
    sa.Index(
        "revocations_first",
        "serial",
        "issuer",
        unique=True,
        sqlite_where=sa.text("replaces IS NULL"),
        postgresql_where=sa.text("replaces IS NULL"),
    ),
    sa.Index(
        "revocations_replacing",
        "replaces",
        unique=True,
        sqlite_where=sa.text("replaces IS NOT NULL"),
        postgresql_where=sa.text("replaces IS NOT NULL"),
    ),
)

crls = sa.Table(
    "crls",
    metadata,
    sa.Column("issuer", TEXT, primary_key=True),
    sa.Column("shard", NUMBER, primary_key=True, autoincrement=False),
    sa.Column("number", NUMBER, primary_key=True, autoincrement=False),
    sa.Column("as_of", NUMBER, nullable=False),
    sa.Column("count", NUMBER, nullable=False),
    sa.Column("this_update", NUMBER, nullable=False),
    sa.Column("next_update", NUMBER, nullable=False),
    sa.Column("tbs_sha256", OCTETS, nullable=False),
    sa.Column("fence", NUMBER, nullable=False),
    sa.Column("base", NUMBER),  # of a delta: the number of its base
    sa.Column("published_at", NUMBER),
    sa.Index(
        "crls_published",
        "issuer",
        "shard",
        "number",
        sqlite_where=sa.text("published_at IS NOT NULL AND base IS NULL"),
        postgresql_where=sa.text("published_at IS NOT NULL AND base IS NULL"),
    ),
    sa.Index(
        "crls_deltas_published",
        "issuer",
        "shard",
        "number",
        sqlite_where=sa.text("published_at IS NOT NULL AND base IS NOT NULL"),
        postgresql_where=sa.text("published_at IS NOT NULL AND base IS NOT NULL"),
    ),
    sqlite_with_rowid=False,
)

crl_shards = sa.Table(
    "crl_shards",
    metadata,
    sa.Column("issuer", TEXT, primary_key=True),
    sa.Column("count", NUMBER, primary_key=True, autoincrement=False),
    sa.Column("since", NUMBER, nullable=False),
    sqlite_with_rowid=False,
)

counters = sa.Table(
    "counters",
    metadata,
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("value", NUMBER, nullable=False),
    sqlite_with_rowid=False,
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("holder", TEXT, nullable=False),
    sa.Column("expires", NUMBER, nullable=False),
    sa.Column("fence", NUMBER, nullable=False),
    sqlite_with_rowid=False,
)

leaves = sa.Table(
    "leaves",
    metadata,
    sa.Column("id", ROW, primary_key=True),
    sa.Column("hash", OCTETS, nullable=False),  # RFC 9162 2.1.1
    sa.Column("body", OCTETS, nullable=False),
    sa.Column("position", NUMBER),
    sa.Index(
        "leaves_by_position",
        "position",
        unique=True,
        sqlite_where=sa.text("position IS NOT NULL"),
        postgresql_where=sa.text("position IS NOT NULL"),
    ),
    sa.Index("leaves_pending", "id", sqlite_where=sa.text("position IS NULL"), postgresql_where=sa.text("position IS NULL")),
    # Two halves of one index: a fresh leaf goes into the small one, and the sequencer moves many at once into the large one.
    sa.Index("leaves_by_hash", "hash", sqlite_where=sa.text("position IS NOT NULL"), postgresql_where=sa.text("position IS NOT NULL")),
    sa.Index("leaves_pending_by_hash", "hash", sqlite_where=sa.text("position IS NULL"), postgresql_where=sa.text("position IS NULL")),
)

checkpoints = sa.Table(
    "checkpoints",
    metadata,
    sa.Column("size", NUMBER, primary_key=True, autoincrement=False),
    sa.Column("origin", TEXT, nullable=False),
    sa.Column("root", OCTETS, nullable=False),
    sa.Column("note", OCTETS, nullable=False),
    sa.Column("recorded_at", NUMBER, nullable=False),
)

CHANGE = "change"
"""The counter of change numbers; its row exists from the first migration on."""
HIGH_TIME = "high-time"
"""The row of `counters` that holds the latest time any transaction recorded."""


def crl_counter(issuer: str, shard: int) -> str:
    """The counter of CRL numbers of one scope; its row comes with the first CRL."""
    return f"crl:{issuer}:{shard}"
