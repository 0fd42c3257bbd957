"""Orders and authorizations (RFC 8555 7.4, 7.5): asked for, fulfilled, finalized through the signer's one door. Verb ring. Holds no state.

An order that is being finalized is stored as `processing` with its CSR before the signer is asked. A crash leaves it so; whoever reads it next
asks the signer again, and the same order and CSR get the same certificate (R02).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import structlog

from ca.der.csr import read_csr
from ca.errors import Conflict, Denied, FleetcaError, Refused, Unacceptable, Unauthenticated, Unavailable
from ca.model import Certificate, CertificateRef, IssueRequest, IssuerId, Name, Profile, ProfileName, Token, UnixTime, ValidatedNames
from ca.ports import Chance, Clock
from ca.rules import renewal
from enroll.acme import identifiers as rules
from enroll.acme import jws, renewal_info
from enroll.acme.keys import spki_of
from enroll.acme.limits import hour_before, within
from enroll.acme.messages import render_problem
from enroll.acme.model import (
    Account,
    Authorization,
    AuthorizationStatus,
    Challenge,
    Directory,
    Identifier,
    IdentifierKind,
    Limits,
    Order,
    OrderStatus,
    Problem,
    name_of,
)
from enroll.acme.ports import Protocols
from enroll.acme.requests import Asker
from enroll.gate import Gate
from enroll.ports import Reader, Signer

ORDER_LIFETIME: Final = 24 * 3600
AUTHORIZATION_LIFETIME: Final = 24 * 3600
"""Of one that waits, and of one that holds: within it, an account need not show again what it showed."""
SAME_IDENTITY: Final = 64
"""Certificates of an account that are looked through for the last one of the same identity."""

_log = structlog.stdlib.get_logger("fleetca.acme")
_OF_THE_KEY: Final = frozenset({"key-used-before", "key-of-another-device", "bad-signature", "csr-algorithm"})
"""What another CSR would mend: the order waits for it."""


class Orders:
    def __init__(
        self,
        *,
        store: Protocols,
        signer: Signer,
        reader: Reader,
        issuers: Mapping[bytes, IssuerId],
        clock: Clock,
        chance: Chance,
        limits: Limits,
        token: Callable[[Account], Token | None],
        profiles: Mapping[ProfileName, Profile],
        gate: Gate | None = None,
    ) -> None:
        self._profiles, self._gate = profiles, gate
        self._store, self._signer, self._reader, self._issuers = store, signer, reader, issuers
        self._clock, self._chance, self._limits, self._token = clock, chance, limits, token

    # ---- New orders -------------------------------------------------------------------------------------------------

    def new(self, asker: Asker) -> Order:
        """RFC 8555 7.4; `replaces` as in RFC 9773 5, `profile` as in draft-ietf-acme-profiles.

        Raises:
            Problem: `malformed`, `unsupportedIdentifier`, `rejectedIdentifier`, `invalidProfile`, `alreadyReplaced`, `rateLimited`.
        """
        account, directory, payload = asker.known, asker.directory, asker.payload()
        for bound in ("notBefore", "notAfter"):
            if bound in payload:
                raise Problem("malformed", f"{bound} is not taken: the profile decides how long a certificate holds (RFC 8555 7.4).")
        if payload.get("profile", directory.profile) != directory.profile:
            raise Problem("invalidProfile", f"This directory gives certificates of profile {directory.profile} only.")
        wanted = rules.read(payload.get("identifiers"))
        rules.judge(directory, wanted, device=account.device, bound_names=self._bound_names(account))
        now = self._clock.now()
        replaces = self._replaced(account, directory, wanted, payload["replaces"], now=now) if "replaces" in payload else None
        within(
            self._store.orders_since(account.id, hour_before(now)), self._limits.orders_per_hour, now=now, what="new orders of this account"
        )
        held = self._store.valid_authorizations(account.id, wanted, now=now + 60)
        authorizations, new = [], []
        for identifier in wanted:
            found = next((one for one in held if one.identifier == identifier), None)
            if found is None:
                found = self._authorization(account, directory, identifier, now=now)
                new.append(found)
            authorizations.append(found)
        order = Order(
            id=self._chance.octets(16).hex(),
            account=account.id,
            directory=directory.name,
            status=OrderStatus.pending,
            identifiers=wanted,
            authorizations=tuple(one.id for one in authorizations),
            created=now,
            expires=now + ORDER_LIFETIME,
            replaces=replaces,
        )
        try:
            self._store.add_order(order, new)
        except Conflict as error:
            raise Problem("alreadyReplaced", str(error)) from None
        return self._seen(order, authorizations)

    def _bound_names(self, account: Account) -> frozenset[str] | None:
        token = self._token(account)
        return frozenset(name.value for name in token.names) if token is not None and token.names else None

    def _authorization(self, account: Account, directory: Directory, identifier: Identifier, *, now: UnixTime) -> Authorization:
        own = identifier.kind is IdentifierKind.permanent_identifier
        kinds = [] if own else [kind for kind in directory.challenges if _fits(kind.value, identifier)]
        return Authorization(
            id=self._chance.octets(16).hex(),
            account=account.id,
            identifier=identifier,
            # The token of the account said who the device is; there is nobody else to ask.
            status=AuthorizationStatus.valid if own else AuthorizationStatus.pending,
            expires=now + AUTHORIZATION_LIFETIME,
            challenges=tuple(Challenge(kind, jws.encode(self._chance.octets(32))) for kind in kinds),
        )

    def _replaced(
        self, account: Account, directory: Directory, wanted: Sequence[Identifier], text: object, *, now: UnixTime
    ) -> CertificateRef:
        """RFC 9773 5: of the same account, with an identifier in common, replaced by nobody yet."""
        ref = renewal_info.read_id(text, self._issuers)
        found = self._reader.find_certificate(ref)
        if found is None or found.device != account.device or found.profile != directory.profile:
            raise Problem("malformed", "The certificate to replace is not this account's (RFC 9773 5).", status=403)
        names = {(name.kind.value, name.value) for name in found.names}
        own = any(one.kind is IdentifierKind.permanent_identifier for one in wanted)
        if not own and not any((one.kind.value, one.value) in names for one in wanted):
            raise Problem("malformed", "The certificate to replace has no identifier in common with the order (RFC 9773 5).")
        if renewal.superseded(found, now=now) or self._store.replaced(ref):
            raise Problem("alreadyReplaced", "Another order replaces that certificate (RFC 9773 5).")
        return ref

    # ---- Looking ----------------------------------------------------------------------------------------------------

    def show(self, asker: Asker, id_: str) -> Order:
        """RFC 8555 7.4. An order that is processing asks the signer again: a crash may have left it so."""
        asker.only_reading()
        order = self._own(asker, id_)
        return self._issued(asker, order) if order.status is OrderStatus.processing else order

    def _own(self, asker: Asker, id_: str) -> Order:
        found = self._store.find_order(id_)
        if found is None or found.account != asker.known.id:
            raise Problem("malformed", "There is no such order of this account.", status=404)
        return self._seen(found)

    def _seen(self, order: Order, authorizations: Sequence[Authorization] | None = None) -> Order:
        """Its status as its authorizations and the time make it (RFC 8555 7.1.6)."""
        if order.status is not OrderStatus.pending:
            return order
        now = self._clock.now()
        if authorizations is None:
            authorizations = [one for id_ in order.authorizations if (one := self._store.find_authorization(id_)) is not None]
        states = {self.state(one) for one in authorizations}
        if now >= order.expires or not states <= {AuthorizationStatus.pending, AuthorizationStatus.valid}:
            why = next((one.error for two in authorizations for one in two.challenges if one.error is not None), None)
            return replace(order, status=OrderStatus.invalid, error=order.error or why)
        if states == {AuthorizationStatus.valid} and len(authorizations) == len(order.authorizations):
            return replace(order, status=OrderStatus.ready)
        return order

    def state(self, authorization: Authorization) -> AuthorizationStatus:
        """Its status now: what has expired says so (RFC 8555 7.1.6)."""
        over = self._clock.now() >= authorization.expires
        if over and authorization.status is AuthorizationStatus.valid:
            return AuthorizationStatus.expired
        return AuthorizationStatus.invalid if over and authorization.status is AuthorizationStatus.pending else authorization.status

    def authorization(self, asker: Asker, id_: str) -> Authorization:
        """Show or deactivate one (RFC 8555 7.5, 7.5.2)."""
        found = self.own_authorization(asker, id_)
        if asker.reads_only:
            return found
        if asker.payload().get("status") != AuthorizationStatus.deactivated.value:
            raise Problem("malformed", "An authorization's status can be set to deactivated only (RFC 8555 7.5.2).")
        if found.status not in {AuthorizationStatus.pending, AuthorizationStatus.valid}:
            return found
        ended = replace(found, status=AuthorizationStatus.deactivated)
        if not self._store.change_authorization(ended):
            raise Problem("malformed", "The authorization was changed at the same time.", status=409)
        return ended

    def own_authorization(self, asker: Asker, id_: str) -> Authorization:
        found = self._store.find_authorization(id_)
        if found is None or found.account != asker.known.id:
            raise Problem("malformed", "There is no such authorization of this account.", status=404)
        return replace(found, status=self.state(found))

    # ---- Finalizing -------------------------------------------------------------------------------------------------

    def finalize(self, asker: Asker, id_: str) -> Order:
        """RFC 8555 7.4. Asked again with the same CSR, it tells what came of it.

        Raises:
            Problem: `orderNotReady`, `badCSR`, `malformed`.
        """
        order = self._own(asker, id_)
        csr = jws.decode(asker.payload().get("csr"), "csr")
        if order.csr is not None and order.csr == csr and order.status in {OrderStatus.processing, OrderStatus.valid}:
            return self._issued(asker, order) if order.status is OrderStatus.processing else order
        if order.status is not OrderStatus.ready:
            raise Problem("orderNotReady", f"The order is {order.status.value} (RFC 8555 7.4).")
        self._check(asker, order, csr)
        began = replace(order, status=OrderStatus.processing, csr=csr, error=None)
        if not self._store.change_order(began):
            raise Problem("orderNotReady", "The order is being finalized already (RFC 8555 7.4).")
        return self._issued(asker, replace(began, version=began.version + 1))

    def _check(self, asker: Asker, order: Order, der: bytes) -> None:
        try:
            csr = read_csr(der)
        except Refused as error:
            raise Problem("badCSR", str(error)) from None
        if csr.spki == spki_of(asker.jwk):
            raise Problem("badCSR", "The account's key must not be that of a certificate (RFC 8555 11.1).")
        rules.check_csr(der, order.identifiers)

    def _issued(self, asker: Asker, order: Order) -> Order:
        """Ask the signer, and write down what it says."""
        assert order.csr is not None, "an order that is processing has its CSR"
        account, directory = asker.known, asker.directory
        names = tuple(name for one in order.identifiers if (name := name_of(one)) is not None)
        evidence = ValidatedNames(account.id, order.id, directory.profile, names, account.token, order.replaces)
        try:
            self._enter(account, order, directory, names)
            issued = self._signer.issue(IssueRequest(csr=order.csr, evidence=evidence))
        except Unavailable as error:
            _log.warning("finalize-waits", order=order.id, code=error.code)
            return replace(order, look_again=error.retry_after)
        except Refused as error:
            return self._refused(order, error)
        done = replace(order, status=OrderStatus.valid, certificate=issued.certificate.ref)
        # Somebody else wrote the same: it is the same certificate.
        self._store.change_order(done)
        _log.info(
            "finalized", order=order.id, account=account.id, device=issued.certificate.device, certificate=str(issued.certificate.ref)
        )
        return done

    def _enter(self, account: Account, order: Order, directory: Directory, names: Sequence[Name]) -> None:
        """As in the other protocols, who has least time left comes first; an order that must wait stays in processing.

        Raises:
            Busy: not now.
        """
        if self._gate is None:
            return
        now = self._clock.now()
        if order.replaces is not None:
            last = self._reader.find_certificate(order.replaces)
        else:
            latest = self._reader.latest_of(account.device, limit=SAME_IDENTITY)
            last = renewal.predecessor(latest, self._profiles[directory.profile], names, now=now)
        if last is None or last.der is None:
            self._gate.enter_new()
        else:
            self._gate.enter(last.der, now=now)

    def _refused(self, order: Order, error: Refused) -> Order:
        problem = of_refusal(error)
        if problem.kind == "badCSR":
            self._store.change_order(replace(order, status=OrderStatus.pending, csr=None))
            raise problem
        ended = replace(order, status=OrderStatus.invalid, error=render_problem(problem))
        self._store.change_order(ended)
        return ended

    # ---- Certificates -----------------------------------------------------------------------------------------------

    def certificate(self, asker: Asker, ref: CertificateRef) -> Certificate:
        """RFC 8555 7.4.2: an account reads what was issued to its identity."""
        asker.only_reading()
        found = self._reader.find_certificate(ref)
        if found is None or found.der is None or found.device != asker.known.device or found.profile != asker.directory.profile:
            raise Problem("malformed", "There is no such certificate of this account.", status=404)
        return found

    def held(self, account: Account, names: Sequence[Name]) -> tuple[Name, ...]:
        """Those of these names that an account may speak for now."""
        wanted = [Identifier(IdentifierKind(name.kind.value), name.value) for name in names if name.kind.value in {"dns", "ip"}]
        held = {one.identifier for one in self._store.valid_authorizations(account.id, wanted, now=self._clock.now())}
        return tuple(name for one in wanted if one in held and (name := name_of(one)) is not None)


def of_refusal(error: FleetcaError) -> Problem:
    """What the signer refused, in ACME's words."""
    if isinstance(error, Unacceptable) or error.code in _OF_THE_KEY:
        return Problem("badCSR", str(error))
    if isinstance(error, Denied | Unauthenticated | Conflict):
        return Problem("unauthorized", str(error))
    return Problem("malformed", str(error))


def _fits(challenge: str, identifier: Identifier) -> bool:
    """Addresses are never shown by dns-01 (RFC 8738 7)."""
    return identifier.kind is not IdentifierKind.ip or challenge != "dns-01"
