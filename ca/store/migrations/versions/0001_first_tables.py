"""The first tables: tenants and operators, issuers, devices and their keys, tokens, certificates, revocations, CRLs, leases, the log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from ca.errors import Misconfigured

revision = "0001"
down_revision = None
branch_labels = ("ca",)
depends_on = None

# The types as they were when this was written: later changes of ca.store.tables do not change what this migration made.
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
OCTETS = sa.LargeBinary()
NUMBER = sa.BigInteger()
ROW = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TRUTH = sa.Boolean()


def upgrade() -> None:
    op.create_table(
        "tenants",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("created", NUMBER, nullable=False),
    )
    op.create_table(
        "operators",
        sa.Column("name", TEXT, primary_key=True),
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("roles", TEXT, nullable=False),  # JSON list
        sa.Column("created", NUMBER, nullable=False),
        sa.Column("disabled_at", NUMBER),
        sa.Column("person", TEXT, nullable=False),
    )
    op.create_table(
        "issuers",
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
    op.create_table(
        "devices",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("created", NUMBER, nullable=False),
        sa.CheckConstraint("state IN ('blank', 'provisioned', 'active', 'quarantined', 'retired')", name="devices_state"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "device_facts",
        sa.Column("device", TEXT, primary_key=True),
        sa.Column("root_of_trust", TEXT),
        sa.Column("justification", TEXT, nullable=False),
        sa.Column("exception_ends", NUMBER),
        sa.Column("safety_class", TEXT),
        sa.Column("batch", TEXT, nullable=False),
        sa.Column("owner", TEXT, nullable=False),
        sa.Column("anchors", TEXT, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "device_changes",
        sa.Column("id", ROW, primary_key=True),
        sa.Column("device", TEXT, nullable=False),
        sa.Column("before", TEXT),
        sa.Column("after", TEXT, nullable=False),
        sa.Column("at", NUMBER, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("channel", TEXT, nullable=False),
        sa.Column("request", TEXT, nullable=False),
    )
    op.create_table(
        "keys",
        sa.Column("spki_sha256", OCTETS, primary_key=True),
        sa.Column("device", TEXT, nullable=False),
        sa.Column("claimed_at", NUMBER, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "renewal_orders",
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
    op.create_table(
        "tokens",
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
        sqlite_with_rowid=False,
    )
    op.create_table(
        "line_stations",
        sa.Column("name", TEXT, primary_key=True),
        sa.Column("body", TEXT, nullable=False),  # JSON
        sqlite_with_rowid=False,
    )
    op.create_table(
        "line_shifts",
        sa.Column("number", ROW, primary_key=True, autoincrement=False),
        sa.Column("request", OCTETS, nullable=False),
        sa.Column("body", TEXT, nullable=False),  # JSON
    )
    op.create_table(
        "line_units",
        sa.Column("shift", NUMBER, primary_key=True, autoincrement=False),
        sa.Column("number", NUMBER, primary_key=True, autoincrement=False),
        sa.Column("request_key", OCTETS, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "line_seals",
        sa.Column("station", TEXT, primary_key=True),
        sa.Column("count", NUMBER, primary_key=True, autoincrement=False),
        sa.Column("body", TEXT, nullable=False),  # JSON
        sqlite_with_rowid=False,
    )
    op.create_table(
        "wipe_receipts",
        sa.Column("device", TEXT, primary_key=True),
        sa.Column("retired_at", NUMBER, primary_key=True, autoincrement=False),
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("body", TEXT, nullable=False),  # JSON
        sqlite_with_rowid=False,
    )
    op.create_table(
        "messages",
        sa.Column("digest", OCTETS, primary_key=True),
        sa.Column("used_at", NUMBER, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "approvals",
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
        sqlite_with_rowid=False,
    )
    op.create_table(
        "proposals",
        sa.Column("request", OCTETS, primary_key=True),
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("act", TEXT, nullable=False),
        sa.Column("subject_sha256", OCTETS, nullable=False),
        sa.Column("expires", NUMBER, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("body", TEXT, nullable=False),  # the whole of it as JSON, with what was signed
        sa.CheckConstraint("state IN ('open', 'approved', 'refused', 'withdrawn', 'used')", name="proposals_state"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "profiles",
        sa.Column("name", TEXT, primary_key=True),
        sa.Column("body", TEXT, nullable=False),  # as JSON
        sqlite_with_rowid=False,
    )
    op.create_table(
        "demands",
        sa.Column("name", TEXT, primary_key=True),
        sa.Column("body", TEXT, nullable=False),  # canonical JSON
        sqlite_with_rowid=False,
    )
    op.create_table(
        "certificates",
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
    )
    op.create_table(
        "certificate_names",
        sa.Column("value", TEXT, primary_key=True),
        sa.Column("certificate", NUMBER, primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "revocations",
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
    )
    op.create_table(
        "crls",
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
        sqlite_with_rowid=False,
    )
    op.create_table(
        "crl_shards",
        sa.Column("issuer", TEXT, primary_key=True),
        sa.Column("count", NUMBER, primary_key=True, autoincrement=False),
        sa.Column("since", NUMBER, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "counters",
        sa.Column("name", TEXT, primary_key=True),
        sa.Column("value", NUMBER, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "leases",
        sa.Column("name", TEXT, primary_key=True),
        sa.Column("holder", TEXT, nullable=False),
        sa.Column("expires", NUMBER, nullable=False),
        sa.Column("fence", NUMBER, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "leaves",
        sa.Column("id", ROW, primary_key=True),
        sa.Column("hash", OCTETS, nullable=False),  # RFC 9162 2.1.1
        sa.Column("body", OCTETS, nullable=False),
        sa.Column("position", NUMBER),
    )
    op.create_table(
        "checkpoints",
        sa.Column("size", NUMBER, primary_key=True, autoincrement=False),
        sa.Column("origin", TEXT, nullable=False),
        sa.Column("root", OCTETS, nullable=False),
        sa.Column("note", OCTETS, nullable=False),
        sa.Column("recorded_at", NUMBER, nullable=False),
    )
    op.create_table(
        "key_records",
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
    op.create_table(
        "key_changes",
        sa.Column("id", ROW, primary_key=True),
        sa.Column("spki_sha256", OCTETS, nullable=False),
        sa.Column("before", TEXT),
        sa.Column("after", TEXT, nullable=False),
        sa.Column("at", NUMBER, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("evidence", TEXT, nullable=False),
    )
    op.create_index("key_changes_by_key", "key_changes", ["spki_sha256", "id"])
    for name, columns in (("approvals_waiting", ["tenant", "expires", "request"]), ("approvals_waiting_of", ["device", "expires"])):
        pending = sa.text("state = 'pending'")
        op.create_index(name, "approvals", columns, sqlite_where=pending, postgresql_where=pending)

    op.create_index("proposals_by_subject", "proposals", ["subject_sha256", "expires", "request"])
    op.create_index("proposals_by_end", "proposals", ["tenant", "expires", "request"])
    op.create_index("devices_by_tenant", "devices", ["tenant", "id"])
    retired = sa.text("state = 'retired'")
    op.create_index("devices_retired", "devices", ["id"], sqlite_where=retired, postgresql_where=retired)
    op.create_index("line_shifts_by_request", "line_shifts", ["request"], unique=True)
    op.create_index("device_changes_by_device", "device_changes", ["device", "id"])
    op.create_index(
        "device_facts_exceptions",
        "device_facts",
        ["exception_ends"],
        sqlite_where=sa.text("exception_ends IS NOT NULL"),
        postgresql_where=sa.text("exception_ends IS NOT NULL"),
    )
    op.create_index(
        "tokens_withdrawn",
        "tokens",
        ["device", "hash"],
        sqlite_where=sa.text("used_at IS NULL AND revoked_at IS NOT NULL"),
        postgresql_where=sa.text("used_at IS NULL AND revoked_at IS NOT NULL"),
    )
    op.create_index("certificates_by_serial", "certificates", ["serial", "issuer"], unique=True)
    op.create_index(
        "certificates_by_request",
        "certificates",
        ["request_key"],
        unique=True,
        sqlite_where=sa.text("state <> 'void'"),
        postgresql_where=sa.text("state <> 'void'"),
    )
    op.create_index(
        "certificates_by_der",
        "certificates",
        ["der_sha256"],
        unique=True,
        sqlite_where=sa.text("der_sha256 IS NOT NULL"),
        postgresql_where=sa.text("der_sha256 IS NOT NULL"),
    )
    op.create_index("certificates_by_device", "certificates", ["device", "id"])
    op.create_index("certificates_by_subject", "certificates", ["subject", "id"])
    op.create_index("certificates_by_expiry", "certificates", ["not_after", "id"])
    op.create_index("certificates_by_tenant", "certificates", ["tenant", "id"])
    op.create_index(
        "certificates_intended",
        "certificates",
        ["id"],
        sqlite_where=sa.text("state = 'intended'"),
        postgresql_where=sa.text("state = 'intended'"),
    )
    op.create_index(
        "certificates_void", "certificates", ["id"], sqlite_where=sa.text("state = 'void'"), postgresql_where=sa.text("state = 'void'")
    )
    op.create_index("certificates_revoked", "certificates", ["id"], sqlite_where=sa.text("revoked"), postgresql_where=sa.text("revoked"))
    op.create_index(
        "certificates_superseded",
        "certificates",
        ["id"],
        sqlite_where=sa.text("superseded_at IS NOT NULL OR grace_ends_at IS NOT NULL"),
        postgresql_where=sa.text("superseded_at IS NOT NULL OR grace_ends_at IS NOT NULL"),
    )
    op.create_index(
        "tokens_outstanding",
        "tokens",
        ["device", "hash"],
        sqlite_where=sa.text("used_at IS NULL AND revoked_at IS NULL"),
        postgresql_where=sa.text("used_at IS NULL AND revoked_at IS NULL"),
    )
    op.create_index(
        "certificates_clones",
        "certificates",
        ["clone_seen_at"],
        sqlite_where=sa.text("clone_seen_at IS NOT NULL"),
        postgresql_where=sa.text("clone_seen_at IS NOT NULL"),
    )
    op.create_index(
        "certificates_in_grace",
        "certificates",
        ["grace_ends_at"],
        sqlite_where=sa.text("grace_ends_at IS NOT NULL AND superseded_at IS NULL"),
        postgresql_where=sa.text("grace_ends_at IS NOT NULL AND superseded_at IS NULL"),
    )
    op.create_index("revocations_by_shard", "revocations", ["issuer", "shard", "change"])
    op.create_index(
        "revocations_first",
        "revocations",
        ["serial", "issuer"],
        unique=True,
        sqlite_where=sa.text("replaces IS NULL"),
        postgresql_where=sa.text("replaces IS NULL"),
    )
    op.create_index(
        "revocations_replacing",
        "revocations",
        ["replaces"],
        unique=True,
        sqlite_where=sa.text("replaces IS NOT NULL"),
        postgresql_where=sa.text("replaces IS NOT NULL"),
    )
    op.create_index(
        "crls_published",
        "crls",
        ["issuer", "shard", "number"],
        sqlite_where=sa.text("published_at IS NOT NULL AND base IS NULL"),
        postgresql_where=sa.text("published_at IS NOT NULL AND base IS NULL"),
    )
    op.create_index(
        "crls_deltas_published",
        "crls",
        ["issuer", "shard", "number"],
        sqlite_where=sa.text("published_at IS NOT NULL AND base IS NOT NULL"),
        postgresql_where=sa.text("published_at IS NOT NULL AND base IS NOT NULL"),
    )
    op.create_index(
        "leaves_by_position",
        "leaves",
        ["position"],
        unique=True,
        sqlite_where=sa.text("position IS NOT NULL"),
        postgresql_where=sa.text("position IS NOT NULL"),
    )
    op.create_index(
        "leaves_pending", "leaves", ["id"], sqlite_where=sa.text("position IS NULL"), postgresql_where=sa.text("position IS NULL")
    )
    op.create_index(
        "leaves_by_hash", "leaves", ["hash"], sqlite_where=sa.text("position IS NOT NULL"), postgresql_where=sa.text("position IS NOT NULL")
    )
    op.create_index(
        "leaves_pending_by_hash", "leaves", ["hash"], sqlite_where=sa.text("position IS NULL"), postgresql_where=sa.text("position IS NULL")
    )

    # Counters that must be there before the first transaction locks them.
    op.execute("INSERT INTO counters (name, value) VALUES ('change', 0), ('high-time', 0)")
    op.execute("INSERT INTO tenants (id, created) VALUES ('default', 0)")


def downgrade() -> None:
    """Alembic asks for it; nothing of ours does."""
    raise Misconfigured("store-revisions", "There is nothing before the first tables.", fix="To take a store away, take its database away.")
