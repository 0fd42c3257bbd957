"""Accounts (RFC 8555 7.3): made, found, changed, given another key, ended. Verb ring: knows rules and ports only. Holds no state."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ca.errors import Conflict, Refused
from ca.model import AccountBinding, Token
from ca.ports import Chance, Clock
from ca.rules import token as token_rule
from ca.rules.grant import account_device
from enroll.acme import jws, messages
from enroll.acme.limits import hour_before, within
from enroll.acme.messages import Addresses
from enroll.acme.model import Account, AccountStatus, Directory, Limits, Problem
from enroll.acme.ports import Protocols
from enroll.acme.requests import Asker
from enroll.ports import Signer

PAGE = 50


class Accounts:
    def __init__(self, *, store: Protocols, signer: Signer, clock: Clock, chance: Chance, limits: Limits) -> None:
        self._store, self._signer, self._clock, self._chance, self._limits = store, signer, clock, chance, limits

    def new(self, asker: Asker, *, at: Addresses) -> tuple[Account, bool]:
        """The account of this key, and whether it is new (RFC 8555 7.3, 7.3.1).

        Raises:
            Problem: `accountDoesNotExist`, `externalAccountRequired`, `unauthorized`, `rateLimited` and what is wrong with the contact.
        """
        payload = asker.payload()
        thumbprint = jws.thumbprint(asker.jwk)
        found = self._store.find_account_by_key(asker.directory.name, thumbprint)
        if found is not None:
            if found.status is not AccountStatus.valid:
                raise Problem("unauthorized", f"The account of this key is {found.status.value} (RFC 8555 7.3.6).", status=401)
            return found, False
        if messages.flag(payload, "onlyReturnExisting"):
            raise Problem("accountDoesNotExist", "This key has no account here (RFC 8555 7.3.1).")
        messages.flag(payload, "termsOfServiceAgreed")
        contact = messages.read_contact(payload.get("contact", []))
        now = self._clock.now()
        since = hour_before(now)
        within(
            self._store.accounts_since(asker.address, since), self._limits.accounts_per_hour, now=now, what="new accounts from this address"
        )
        # A token is bound before its account is written: asked for again, it has to be the same one.
        token = self._bound(asker, payload, url=at.of("new-account"), thumbprint=thumbprint) if asker.directory.bound else None
        id_ = self._chance.octets(16).hex() if token is None else _bound_id(asker.directory, thumbprint, token_rule.binding_id(token.hash))
        account = Account(
            id=id_,
            directory=asker.directory.name,
            thumbprint=thumbprint,
            jwk=asker.jwk,
            status=AccountStatus.valid,
            contact=contact,
            device=account_device(id_) if token is None else token.device,
            token=None if token is None else token.hash,
            created=now,
        )
        try:
            made = self._store.add_account(account, address=asker.address)
        except Conflict as error:
            raise Problem("unauthorized", str(error)) from None
        return made, made.id == id_

    def _bound(self, asker: Asker, payload: Mapping[str, Any], *, url: str, thumbprint: str) -> Token:
        """The token that an external account binding was made with (RFC 8555 7.3.4)."""
        if "externalAccountBinding" not in payload:
            raise Problem(
                "externalAccountRequired",
                "Accounts of this directory are bound to a device by a one-time token: an operator makes one (RFC 8555 7.3.4).",
            )
        inner = jws.read_inner(payload["externalAccountBinding"], algorithms=jws.BINDING_ALGORITHMS)
        if inner.kid is None:
            raise Problem("malformed", "The external account binding must name its key by kid (RFC 8555 7.3.4).")
        if inner.url != url:
            raise Problem("malformed", "The external account binding has another url than the request (RFC 8555 7.3.4).")
        if jws.canonical(jws.read_json(inner.payload, "The external account binding's payload")) != asker.jwk:
            raise Problem("malformed", "The external account binding holds another key than the request's (RFC 8555 7.3.4).")
        binding = AccountBinding(
            account=_bound_id(asker.directory, thumbprint, inner.kid),
            profile=asker.directory.profile,
            key_id=inner.kid,
            octets=inner.signing_input,
            mac=inner.signature,
            digest=jws.MAC_DIGESTS[inner.algorithm],
        )
        try:
            return self._signer.bind_account(binding)
        except Refused as error:
            raise Problem("unauthorized", str(error)) from None

    def change(self, asker: Asker) -> Account:
        """Show, change contacts, or deactivate (RFC 8555 7.3.2, 7.3.6). What a client may not change is passed over (7.3.2)."""
        account = asker.known
        if asker.reads_only:
            return account
        payload = asker.payload()
        changed = account
        if "contact" in payload:
            changed = replace(changed, contact=messages.read_contact(payload["contact"]))
        if payload.get("status") == AccountStatus.deactivated.value:
            # Any other status is passed over as well: clients send the whole account back.
            changed = replace(changed, status=AccountStatus.deactivated)
        if changed != account and not self._store.change_account(changed, was=account):
            raise Problem("unauthorized", "The account was changed at the same time.", status=409)
        return changed

    def change_key(self, asker: Asker, *, at: Addresses) -> Account:
        """RFC 8555 7.3.5: the new key signs an order to take the old one's place, which the old one signs.

        Raises:
            Problem: `malformed`, `unauthorized`, `conflict` with the address of the account that has the key.
        """
        account = asker.known
        inner = jws.read_inner(dict(asker.payload()), algorithms=jws.ALGORITHMS)
        if inner.jwk is None:
            raise Problem("malformed", "The inner JWS must hold the new key as jwk (RFC 8555 7.3.5).")
        jws.verify(inner, inner.jwk)
        if inner.url != asker.signed.url:
            raise Problem("malformed", "Inner and outer JWS have different urls (RFC 8555 7.3.5).")
        payload = jws.read_json(inner.payload, "The inner payload")
        if payload.get("account") != at.account(account):
            raise Problem("malformed", "The inner payload names another account (RFC 8555 7.3.5).")
        old = payload.get("oldKey")
        if not isinstance(old, dict) or not hmac.compare_digest(jws.thumbprint(jws.canonical(old)), account.thumbprint):
            raise Problem("malformed", "oldKey is not the account's key (RFC 8555 7.3.5).")
        thumbprint = jws.thumbprint(inner.jwk)
        changed = replace(account, jwk=inner.jwk, thumbprint=thumbprint)
        if thumbprint == account.thumbprint or not self._store.change_account(changed, was=account):
            other = self._store.find_account_by_key(account.directory, thumbprint)
            raise Problem(
                "conflict",
                "The new key has an account already (RFC 8555 7.3.5).",
                location=None if other is None else at.account(other),
            )
        return changed

    def orders(self, asker: Asker, *, after: str | None) -> tuple[Sequence[str], str | None]:
        """A page of the account's orders (RFC 8555 7.1.2.1), and where the next begins."""
        asker.only_reading()
        found = self._store.orders_of(asker.known.id, after=after, limit=PAGE + 1)
        return found[:PAGE], found[PAGE - 1] if len(found) > PAGE else None


def _bound_id(directory: Directory, thumbprint: str, key_id: str) -> str:
    """The id of the account of a key and a token."""
    return hashlib.sha256(f"fleetca account\0{directory.name}\0{thumbprint}\0{key_id}".encode()).hexdigest()[:32]
