"""ACME's accounts, orders and authorizations in the database: `enroll.acme.ports.Protocols`. Knows tables and the model, no rule of ACME."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa

from ca.errors import Broken, Conflict
from ca.model import CertificateRef, DeviceId, Digest, IssuerId, Serial, UnixTime
from enroll.acme.model import (
    Account,
    AccountStatus,
    Authorization,
    AuthorizationStatus,
    Challenge,
    ChallengeKind,
    ChallengeStatus,
    Identifier,
    IdentifierKind,
    Order,
    OrderStatus,
)
from enroll.store import tables as t
from enroll.store.transactions import Cursor, Transactions

Row = Sequence[Any]
param = sa.bindparam

KEPT: Final = 30 * 86400
"""How long what is over stays to be looked at."""


_a, _o, _z = t.accounts.c, t.orders.c, t.authorizations.c
ADD_SECRET = sa.insert(t.secrets)
FIND_SECRET = sa.select(t.secrets.c.value).where(t.secrets.c.name == param("name"))
ADD_NONCE = sa.insert(t.nonces)
FIND_NONCE = sa.select(t.nonces.c.expires).where(t.nonces.c.value == param("value"))
ADD_ACCOUNT = sa.insert(t.accounts)
ACCOUNT_COLUMNS = (_a.id, _a.directory, _a.thumbprint, _a.jwk, _a.status, _a.contact, _a.device, _a.token, _a.created)
FIND_ACCOUNT = sa.select(*ACCOUNT_COLUMNS).where(_a.id == param("id"))
ACCOUNT_BY_KEY = sa.select(*ACCOUNT_COLUMNS).where(_a.directory == param("directory"), _a.thumbprint == param("thumbprint"))
ACCOUNT_BY_TOKEN = sa.select(*ACCOUNT_COLUMNS).where(_a.token == param("token"))
CHANGE_ACCOUNT = (
    sa.update(t.accounts)
    .where(
        _a.id == param("the_id"),
        _a.thumbprint == param("was_thumbprint"),
        _a.status == param("was_status"),
    )
    .values(thumbprint=param("new_thumbprint"), jwk=param("new_jwk"), status=param("new_status"), contact=param("new_contact"))
)
ACCOUNTS_SINCE = sa.select(_a.created).where(_a.address == param("address"), _a.created >= param("since")).order_by(_a.created)
ADD_ORDER = sa.insert(t.orders)
FIND_ORDER = sa.select(*t.orders.columns).where(_o.id == param("id"))
CHANGE_ORDER = (
    sa.update(t.orders)
    .where(_o.id == param("the_id"), _o.version == param("was"))
    .values(
        status=param("new_status"),
        csr=param("new_csr"),
        certificate=param("new_certificate"),
        error=param("new_error"),
        version=param("new_version"),
    )
)
ORDERS_OF = (
    sa.select(_o.id)
    .where(_o.account == param("account"), _o.id > param("after"), _o.status != "invalid")
    .order_by(_o.id)
    .limit(param("limit"))
)
ORDERS_SINCE = sa.select(_o.created).where(_o.account == param("account"), _o.created >= param("since")).order_by(_o.created)
REPLACED = sa.select(_o.id).where(_o.replaces == param("replaces"), _o.status != "invalid").limit(1)
ADD_AUTHORIZATION = sa.insert(t.authorizations)
FIND_AUTHORIZATION = sa.select(*t.authorizations.columns).where(_z.id == param("id"))
CHANGE_AUTHORIZATION = (
    sa.update(t.authorizations)
    .where(_z.id == param("the_id"), _z.version == param("was"))
    .values(status=param("new_status"), expires=param("new_expires"), challenges=param("new_challenges"), version=param("new_version"))
)
VALID_AUTHORIZATIONS = (
    sa.select(*t.authorizations.columns)
    .where(
        _z.account == param("account"),
        _z.kind == param("kind"),
        _z.value == param("value"),
        _z.status == "valid",
        _z.expires > param("now"),
    )
    .order_by(_z.expires.desc())
    .limit(4)
)
ADD_FAILURE = sa.insert(t.failures)
FAILURES_SINCE = (
    sa.select(t.failures.c.at).where(t.failures.c.account == param("account"), t.failures.c.at >= param("since")).order_by(t.failures.c.at)
)
FORGET = (
    (sa.delete(t.secrets).where(t.secrets.c.ends < param("now")), 0),
    (sa.delete(t.nonces).where(t.nonces.c.expires < param("now")), 0),
    (sa.delete(t.failures).where(t.failures.c.at < param("now")), KEPT),
    (sa.delete(t.orders).where(_o.expires < param("now"), _o.certificate.is_(None)), KEPT),
    (sa.delete(t.authorizations).where(_z.expires < param("now")), KEPT),
)


class AcmeStore:
    """Rows of ACME. Safe to call from several threads."""

    def __init__(self, transactions: Transactions) -> None:
        self._do = transactions

    # ---- Secrets and nonces -----------------------------------------------------------------------------------------

    def secret(self, name: str, made: bytes, /, *, now: UnixTime, ends: UnixTime) -> bytes:
        def work(cursor: Cursor) -> bytes:
            found = cursor.first(FIND_SECRET, {"name": name})
            if found is None:
                cursor.change(ADD_SECRET, {"name": name, "value": made, "created": now, "ends": ends})
            return made if found is None else bytes(found[0])

        found = self._first(FIND_SECRET, {"name": name})
        return bytes(found[0]) if found is not None else self._do.write(work)

    def use_nonce(self, value: bytes, *, expires: UnixTime, now: UnixTime) -> bool:
        def work(cursor: Cursor) -> bool:
            if cursor.first(FIND_NONCE, {"value": value}) is not None:
                return False
            cursor.change(ADD_NONCE, {"value": value, "expires": expires})
            return True

        return self._unless_taken(work)

    # ---- Accounts ---------------------------------------------------------------------------------------------------

    def find_account(self, id: str, /) -> Account | None:  # noqa: A002 - the port's name
        return _account(self._first(FIND_ACCOUNT, {"id": id}))

    def find_account_by_key(self, directory: str, thumbprint: str, /) -> Account | None:
        return _account(self._first(ACCOUNT_BY_KEY, {"directory": directory, "thumbprint": thumbprint}))

    def add_account(self, account: Account, *, address: str) -> Account:
        def work(cursor: Cursor) -> Account:
            key = {"directory": account.directory, "thumbprint": account.thumbprint}
            found = _account(cursor.first(ACCOUNT_BY_KEY, key))
            if found is not None:
                return found
            if account.token is not None and cursor.first(ACCOUNT_BY_TOKEN, {"token": account.token}) is not None:
                raise Conflict("token-used", "This enrolment token binds another account.", why="A token enrols once.")
            cursor.change(
                ADD_ACCOUNT,
                {
                    "id": account.id,
                    **key,
                    "jwk": _json(dict(account.jwk)),
                    "status": account.status.value,
                    "contact": _json(list(account.contact)),
                    "device": account.device,
                    "token": account.token,
                    "created": account.created,
                    "address": address,
                },
            )
            return account

        return self._do.write(work)

    def change_account(self, account: Account, *, was: Account) -> bool:
        def work(cursor: Cursor) -> bool:
            if account.thumbprint != was.thumbprint and cursor.first(
                ACCOUNT_BY_KEY, {"directory": account.directory, "thumbprint": account.thumbprint}
            ):
                return False
            return bool(
                cursor.change(
                    CHANGE_ACCOUNT,
                    {
                        "the_id": account.id,
                        "was_thumbprint": was.thumbprint,
                        "was_status": was.status.value,
                        "new_thumbprint": account.thumbprint,
                        "new_jwk": _json(dict(account.jwk)),
                        "new_status": account.status.value,
                        "new_contact": _json(list(account.contact)),
                    },
                )
            )

        return self._unless_taken(work)

    def accounts_since(self, address: str, since: UnixTime) -> Sequence[UnixTime]:
        return [int(row[0]) for row in self._do.read(ACCOUNTS_SINCE, {"address": address, "since": since})]

    # ---- Orders -----------------------------------------------------------------------------------------------------

    def add_order(self, order: Order, authorizations: Sequence[Authorization]) -> None:
        def work(cursor: Cursor) -> None:
            if order.replaces is not None and cursor.first(REPLACED, {"replaces": str(order.replaces)}) is not None:
                raise Conflict("already-replaced", "Another order replaces that certificate.")
            for authorization in authorizations:
                cursor.change(ADD_AUTHORIZATION, _authorization_row(authorization))
            cursor.change(ADD_ORDER, _order_row(order))

        self._do.write(work)

    def find_order(self, id: str, /) -> Order | None:  # noqa: A002
        return _order(self._first(FIND_ORDER, {"id": id}))

    def change_order(self, order: Order) -> bool:
        row = _order_row(replace(order, version=order.version + 1))
        changed = {f"new_{name}": row[name] for name in ("status", "csr", "certificate", "error", "version")}
        return self._change(CHANGE_ORDER, {**changed, "the_id": order.id, "was": order.version})

    def orders_of(self, account: str, *, after: str | None, limit: int) -> Sequence[str]:
        return [str(row[0]) for row in self._do.read(ORDERS_OF, {"account": account, "after": after or "", "limit": limit})]

    def orders_since(self, account: str, since: UnixTime) -> Sequence[UnixTime]:
        return [int(row[0]) for row in self._do.read(ORDERS_SINCE, {"account": account, "since": since})]

    def replaced(self, ref: CertificateRef, /) -> bool:
        return self._first(REPLACED, {"replaces": str(ref)}) is not None

    # ---- Authorizations ---------------------------------------------------------------------------------------------

    def find_authorization(self, id: str, /) -> Authorization | None:  # noqa: A002
        return _authorization(self._first(FIND_AUTHORIZATION, {"id": id}))

    def change_authorization(self, authorization: Authorization) -> bool:
        row = _authorization_row(replace(authorization, version=authorization.version + 1))
        changed = {f"new_{name}": row[name] for name in ("status", "expires", "challenges", "version")}
        return self._change(CHANGE_AUTHORIZATION, {**changed, "the_id": authorization.id, "was": authorization.version})

    def valid_authorizations(self, account: str, identifiers: Sequence[Identifier], *, now: UnixTime) -> Sequence[Authorization]:
        found = []
        for identifier in identifiers:
            asked = {"account": account, "kind": identifier.kind.value, "value": identifier.value, "now": now}
            found += [one for row in self._do.read(VALID_AUTHORIZATIONS, asked) if (one := _authorization(row)) is not None]
        return found

    def add_failure(self, account: str, *, now: UnixTime) -> None:
        self._change(ADD_FAILURE, {"account": account, "at": now})

    def failures_since(self, account: str, since: UnixTime) -> Sequence[UnixTime]:
        return [int(row[0]) for row in self._do.read(FAILURES_SINCE, {"account": account, "since": since})]

    def forget(self, *, now: UnixTime) -> None:
        def work(cursor: Cursor) -> None:
            for statement, kept in FORGET:
                cursor.change(statement, {"now": now - kept})

        self._do.write(work)

    # ---- All of them ------------------------------------------------------------------------------------------------

    def _first(self, statement: sa.Executable, parameters: Mapping[str, Any]) -> Row | None:
        return next(iter(self._do.read(statement, parameters)), None)

    def _change(self, statement: sa.Executable, parameters: Mapping[str, Any]) -> bool:
        return self._do.write(lambda cursor: bool(cursor.change(statement, parameters)))

    def _unless_taken(self, work: Callable[[Cursor], bool]) -> bool:
        """PostgreSQL's readers do not wait for each other: of two that found nothing, the constraint lets one go on."""
        try:
            return self._do.write(work)
        except Broken as error:
            if error.code != "store-constraint":
                raise
            return False


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _ref(text: str | None) -> CertificateRef | None:
    if text is None:
        return None
    issuer, _, serial = text.partition("/")
    return CertificateRef(IssuerId(issuer), Serial(int(serial, 16)))


def _account(row: Row | None) -> Account | None:
    if row is None:
        return None
    id_, directory, thumbprint, jwk, status, contact, device, token, created = row
    return Account(
        id=id_,
        directory=directory,
        thumbprint=thumbprint,
        jwk=json.loads(jwk),
        status=AccountStatus(status),
        contact=tuple(json.loads(contact)),
        device=DeviceId(device),
        token=None if token is None else Digest(bytes(token)),
        created=created,
    )


def _order_row(order: Order) -> dict[str, Any]:
    return {
        "id": order.id,
        "account": order.account,
        "directory": order.directory,
        "status": order.status.value,
        "identifiers": _json([[one.kind.value, one.value] for one in order.identifiers]),
        "authorizations": _json(list(order.authorizations)),
        "created": order.created,
        "expires": order.expires,
        "replaces": None if order.replaces is None else str(order.replaces),
        "csr": order.csr,
        "certificate": None if order.certificate is None else str(order.certificate),
        "error": None if order.error is None else _json(dict(order.error)),
        "version": order.version,
    }


def _order(row: Row | None) -> Order | None:
    if row is None:
        return None
    id_, account, directory, status, identifiers, authorizations, created, expires, replaces, csr, certificate, error, version = row
    return Order(
        id=id_,
        account=account,
        directory=directory,
        status=OrderStatus(status),
        identifiers=tuple(Identifier(IdentifierKind(kind), value) for kind, value in json.loads(identifiers)),
        authorizations=tuple(json.loads(authorizations)),
        created=created,
        expires=expires,
        replaces=_ref(replaces),
        csr=None if csr is None else bytes(csr),
        certificate=_ref(certificate),
        error=None if error is None else json.loads(error),
        version=version,
    )


def _authorization_row(one: Authorization) -> dict[str, Any]:
    challenges = [
        {
            "kind": challenge.kind.value,
            "token": challenge.token,
            "status": challenge.status.value,
            "started": challenge.started,
            "validated": challenge.validated,
            "error": None if challenge.error is None else dict(challenge.error),
        }
        for challenge in one.challenges
    ]
    return {
        "id": one.id,
        "account": one.account,
        "kind": one.identifier.kind.value,
        "value": one.identifier.value,
        "status": one.status.value,
        "expires": one.expires,
        "challenges": _json(challenges),
        "version": one.version,
    }


def _authorization(row: Row | None) -> Authorization | None:
    if row is None:
        return None
    id_, account, kind, value, status, expires, challenges, version = row
    return Authorization(
        id=id_,
        account=account,
        identifier=Identifier(IdentifierKind(kind), value),
        status=AuthorizationStatus(status),
        expires=expires,
        challenges=tuple(
            Challenge(
                kind=ChallengeKind(one["kind"]),
                token=one["token"],
                status=ChallengeStatus(one["status"]),
                started=one["started"],
                validated=one["validated"],
                error=one["error"],
            )
            for one in json.loads(challenges)
        ),
        version=version,
    )
