"""The tables of the protocols, as SQLAlchemy Core describes them. It knows SQL types and nothing of rules, verbs or time.

They hold what a client and we have agreed on so far; what the authority decided stands in its own tables. Losing these costs clients a new
account, nobody a certificate. Their history is their own (`migrations/`, version table `enroll_version`), so that either side changes alone.
Lists and challenges are JSON: they are read and written with their row. Times are seconds since 1970 (UTC).
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
OCTETS = sa.LargeBinary()
NUMBER = sa.BigInteger()

secrets = sa.Table(
    "enroll_secrets",
    metadata,
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("value", OCTETS, nullable=False),
    sa.Column("created", NUMBER, nullable=False),
    sa.Column("ends", NUMBER, nullable=False),
)

nonces = sa.Table(
    "acme_nonces",
    metadata,
    sa.Column("value", OCTETS, primary_key=True),
    sa.Column("expires", NUMBER, nullable=False),
    sa.Index("acme_nonces_by_expiry", "expires"),
)

accounts = sa.Table(
    "acme_accounts",
    metadata,
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
    sa.Index("acme_accounts_by_address", "address", "created"),
)

orders = sa.Table(
    "acme_orders",
    metadata,
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
    sa.Index("acme_orders_by_account", "account", "created"),
    sa.Index("acme_orders_by_replaced", "replaces"),
    sa.Index("acme_orders_by_expiry", "expires"),
)

authorizations = sa.Table(
    "acme_authorizations",
    metadata,
    sa.Column("id", TEXT, primary_key=True),
    sa.Column("account", TEXT, nullable=False),
    sa.Column("kind", TEXT, nullable=False),
    sa.Column("value", TEXT, nullable=False),
    sa.Column("status", TEXT, nullable=False),
    sa.Column("expires", NUMBER, nullable=False),
    sa.Column("challenges", TEXT, nullable=False),
    sa.Column("version", NUMBER, nullable=False),
    sa.Index("acme_authorizations_by_identifier", "account", "kind", "value"),
    sa.Index("acme_authorizations_by_expiry", "expires"),
)

reports = sa.Table(
    "agent_reports",
    metadata,
    sa.Column("device", TEXT, primary_key=True),
    sa.Column("tenant", TEXT, nullable=False),
    sa.Column("outcome", TEXT, nullable=False),
    sa.Column("code", TEXT, nullable=False),
    sa.Column("due", NUMBER, nullable=False),
    sa.Column("agent", TEXT, nullable=False),
    sa.Column("heard_at", NUMBER, nullable=False),
    sa.Column("not_before", NUMBER, nullable=False),
    sa.Column("not_after", NUMBER, nullable=False),
    # A page of late devices is a page by device id: what has ended and what is due are few of many, and these find them.
    sa.Index("agent_reports_by_due", "due"),
    sa.Index("agent_reports_by_end", "not_after"),
)

failures = sa.Table(
    "acme_failures",
    metadata,
    sa.Column("account", TEXT, nullable=False),
    sa.Column("at", NUMBER, nullable=False),
    sa.Index("acme_failures_by_account", "account", "at"),
)
