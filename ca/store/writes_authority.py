"""What setting up writes: issuers, operators, messages that act once. Statements only."""

from __future__ import annotations

import json
from dataclasses import replace

import sqlalchemy as sa

from ca.errors import Conflict, NotFound
from ca.model import Digest, Issuer, IssuerId, Operator, OperatorName, UnixTime
from ca.store import tables as t
from ca.store.reads import insert, param, values_of
from ca.store.writes import Writes

_o = t.operators.c

_new_issuer = insert(t.issuers).values(values_of(t.issuers))
_CHANGES = ("key", "may_issue", "may_sign_crl", "crl_url", "ocsp_url", "issuer_url", "parent", "successor", "issues_until")
# The same certificate again may bring other addresses, another name of its key or a successor; another certificate is another issuer.
ADD_ISSUER = _new_issuer.on_conflict_do_update(
    index_elements=["id"],
    set_={name: _new_issuer.excluded[name] for name in _CHANGES},
    where=sa.and_(t.issuers.c.certificate == _new_issuer.excluded.certificate, t.issuers.c.tenant == _new_issuer.excluded.tenant),
).returning(t.issuers.c.id)
_c = t.certificates.c
# At the moment of a roll-over those that end last are the newest: the index on expiry finds the first one almost at once.
LAST_END = (
    sa.select(_c.not_after).where(_c.issuer == param("the_issuer"), _c.revocable).order_by(_c.not_after.desc(), _c.id.desc()).limit(1)
)
AGE_ISSUER = sa.update(t.issuers).where(t.issuers.c.id == param("the_issuer")).values(last_ends=param("ends"), retired_at=param("retired"))
ADD_OPERATOR = insert(t.operators).values(values_of(t.operators)).on_conflict_do_nothing()
DISABLE_OPERATOR = (
    sa.update(t.operators).where(_o.name == param("the_name")).values(disabled_at=sa.func.coalesce(_o.disabled_at, param("now")))
)
REVOKE_TOKEN = (
    sa.update(t.tokens)
    .where(t.tokens.c.hash == param("the_hash"), t.tokens.c.used_at.is_(None), t.tokens.c.revoked_at.is_(None))
    .values(revoked_at=param("now"))
)
CONSUME_MESSAGE = insert(t.messages).values(values_of(t.messages)).on_conflict_do_nothing()


class AuthorityWrites(Writes):
    def add_issuer(self, issuer: Issuer) -> None:
        """The same certificate again updates its addresses, its key's name and its successor; what it has become of age stays.

        Raises:
            Conflict: the id belongs to another certificate (`issuer-exists`).
        """
        added = self._all(
            ADD_ISSUER,
            {
                "id": issuer.id,
                "tenant": issuer.tenant,
                "certificate": issuer.certificate,
                "subject": issuer.subject,
                "spki": issuer.spki,
                "key_identifier": issuer.key_identifier,
                "algorithm": issuer.algorithm,
                "not_before": issuer.not_before,
                "not_after": issuer.not_after,
                "key": issuer.key,
                "may_issue": issuer.may_issue,
                "may_sign_crl": issuer.may_sign_crl,
                "crl_url": issuer.crl_url,
                "ocsp_url": issuer.ocsp_url,
                "issuer_url": issuer.issuer_url,
                "parent": issuer.parent,
                "successor": issuer.successor,
                "issues_until": issuer.issues_until,
                "last_ends": issuer.last_ends,
                "retired_at": issuer.retired_at,
            },
        )
        if not added:
            raise Conflict(
                "issuer-exists", f"The issuer id {issuer.id} belongs to another certificate.", fix="Give the new issuer an id of its own."
            )

    def last_end(self, issuer: IssuerId) -> UnixTime | None:
        """When the last revocable certificate of an issuer ends, intents and void ones counted; None where there is none."""
        row = self._first(LAST_END, {"the_issuer": issuer})
        return None if row is None else int(row[0])

    def age_issuer(self, issuer: IssuerId, *, last_ends: UnixTime, retired_at: UnixTime | None) -> None:
        """Write down when the last certificate of an issuer ends, and since when it is retired."""
        self._change(AGE_ISSUER, {"the_issuer": issuer, "ends": last_ends, "retired": retired_at})

    def add_operator(self, operator: Operator) -> None:
        """The same again is harmless.

        Raises:
            Conflict: there is another operator of that name (`operator-exists`).
        """
        added = self._change(
            ADD_OPERATOR,
            {
                "name": operator.name,
                "tenant": operator.tenant,
                "roles": json.dumps(list(operator.roles)),
                "created": operator.created,
                "disabled_at": operator.disabled_at,
                "person": operator.person,
            },
        )
        if not added:
            there = self.find_operator(operator.name)
            if there is None or replace(there, created=0) != replace(operator, created=0):
                raise Conflict("operator-exists", f"There is another operator named {operator.name}.", fix="Choose another name.")

    def disable_operator(self, name: OperatorName, *, now: UnixTime) -> None:
        """The first time stays.

        Raises:
            NotFound: there is no such operator (`operator-unknown`).
        """
        if not self._change(DISABLE_OPERATOR, {"the_name": name, "now": now}):
            raise NotFound("operator-unknown", f"There is no operator named {name}.")

    def revoke_token(self, token: Digest, *, now: UnixTime) -> bool:
        """Withdraw a token; False when it was used or withdrawn before, or does not exist."""
        return bool(self._change(REVOKE_TOKEN, {"the_hash": token, "now": now}))

    def consume_message(self, digest: Digest, *, now: UnixTime) -> None:
        """Remember a signed message that must act once only.

        Raises:
            Conflict: it was used before (`message-replayed`).
        """
        if not self._change(CONSUME_MESSAGE, {"digest": digest, "used_at": now}):
            raise Conflict("message-replayed", "The signed message was used before.", fix="Sign a new message.")
