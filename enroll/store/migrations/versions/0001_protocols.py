"""The first tables of the protocols: secrets shared by the workers; ACME's nonces, accounts, orders, authorizations and failed
validations; what devices say of their renewals."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from ca.errors import Misconfigured

revision = "0001"
down_revision = None
branch_labels = ("enroll",)
depends_on = None

# The types as they were when this was written: later changes of enroll.store.tables do not change what this migration made.
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
OCTETS = sa.LargeBinary()
NUMBER = sa.BigInteger()


def upgrade() -> None:
    op.create_table(
        "enroll_secrets",
        sa.Column("name", TEXT, primary_key=True),
        sa.Column("value", OCTETS, nullable=False),
        sa.Column("created", NUMBER, nullable=False),
        sa.Column("ends", NUMBER, nullable=False),
    )
    op.create_table(
        "acme_nonces",
        sa.Column("value", OCTETS, primary_key=True),
        sa.Column("expires", NUMBER, nullable=False),
    )
    op.create_table(
        "acme_accounts",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("directory", TEXT, nullable=False),
        sa.Column("thumbprint", TEXT, nullable=False),
        sa.Column("jwk", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("contact", TEXT, nullable=False),
        sa.Column("device", TEXT, nullable=False),
        sa.Column("token", OCTETS),
        sa.Column("created", NUMBER, nullable=False),
        sa.Column("address", TEXT, nullable=False),
        sa.UniqueConstraint("directory", "thumbprint", name="acme_accounts_by_key"),
        sa.UniqueConstraint("token", name="acme_accounts_by_token"),
    )
    op.create_table(
        "acme_orders",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("account", TEXT, nullable=False),
        sa.Column("directory", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("identifiers", TEXT, nullable=False),
        sa.Column("authorizations", TEXT, nullable=False),
        sa.Column("created", NUMBER, nullable=False),
        sa.Column("expires", NUMBER, nullable=False),
        sa.Column("replaces", TEXT),
        sa.Column("csr", OCTETS),
        sa.Column("certificate", TEXT),
        sa.Column("error", TEXT),
        sa.Column("version", NUMBER, nullable=False),
    )
    op.create_table(
        "acme_authorizations",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("account", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("value", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("expires", NUMBER, nullable=False),
        sa.Column("challenges", TEXT, nullable=False),
        sa.Column("version", NUMBER, nullable=False),
    )
    op.create_table(
        "acme_failures",
        sa.Column("account", TEXT, nullable=False),
        sa.Column("at", NUMBER, nullable=False),
    )
    op.create_table(
        "agent_reports",
        sa.Column("device", TEXT, primary_key=True),
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("outcome", TEXT, nullable=False),
        sa.Column("code", TEXT, nullable=False),
        sa.Column("due", NUMBER, nullable=False),
        sa.Column("agent", TEXT, nullable=False),
        sa.Column("heard_at", NUMBER, nullable=False),
        sa.Column("not_before", NUMBER, nullable=False),
        sa.Column("not_after", NUMBER, nullable=False),
    )
    op.create_index("agent_reports_by_due", "agent_reports", ["due"])
    op.create_index("agent_reports_by_end", "agent_reports", ["not_after"])
    op.create_index("acme_nonces_by_expiry", "acme_nonces", ["expires"])
    op.create_index("acme_accounts_by_address", "acme_accounts", ["address", "created"])
    op.create_index("acme_orders_by_account", "acme_orders", ["account", "created"])
    op.create_index("acme_orders_by_replaced", "acme_orders", ["replaces"])
    op.create_index("acme_orders_by_expiry", "acme_orders", ["expires"])
    op.create_index("acme_authorizations_by_identifier", "acme_authorizations", ["account", "kind", "value"])
    op.create_index("acme_authorizations_by_expiry", "acme_authorizations", ["expires"])
    op.create_index("acme_failures_by_account", "acme_failures", ["account", "at"])


def downgrade() -> None:
    """Alembic asks for it; nothing of ours does."""
    raise Misconfigured("store-revisions", "There is nothing before the first tables.", fix="To take a store away, take its database away.")
