"""Making one-time enrolment tokens. The text leaves once, with the answer; the record holds its SHA-256. Knows rules and ports only."""

from __future__ import annotations

from contextlib import suppress

from ca import lineage
from ca.allowances import Allowances
from ca.errors import Denied, NotFound, Unavailable
from ca.lineage import Issuers
from ca.model import CreatedToken, Evidence, Peer, Token, TokenRequest, TokenWithdrawal
from ca.ports import Chance, Clock, Ledger, Writing
from ca.rules import evidence, grant, leaf, permission, renewal, testimony
from ca.rules import token as rule
from ca.rules.clock import trusted
from ca.witness import Witness


class Tokens:
    """Args:
    secret: that binding keys follow from; 32 octets.
    """

    def __init__(
        self, *, ledger: Ledger, witness: Witness, issuers: Issuers, policy: grant.Policy, clock: Clock, chance: Chance, secret: bytes
    ) -> None:
        self._ledger, self._witness, self._issuers = ledger, witness, issuers
        self._policy, self._clock, self._chance, self._secret = policy, clock, chance, secret
        self._allowances = Allowances(policy.caps_of, "tokens")

    def create(self, request: TokenRequest, peer: Peer) -> CreatedToken:
        """A token that enrols one device once.

        Raises:
            Denied: who asks may make none, or the device was revoked.
            Conflict: the signed message that asked made its token already (`message-replayed`).
        """
        claim = evidence.claim(
            evidence.Verb.create_token, request.evidence, peer, deployment=self._policy.deployment, now=self._clock.now()
        )
        lifetime = rule.accepted_lifetime(request.lifetime)
        permission.judge_names(self._policy.of(request.device).profile(request.profile), request.names)
        text = rule.token_text(self._chance.octets(rule.RANDOM_OCTETS))
        try:
            token = self._make(claim, request, text, lifetime)
        except Denied as error:
            raise lineage.refusal(self._ledger, self._witness, error, claim, self._issuers, now=self._clock.now()) from None
        if claim.message is not None:
            # Before the token: whatever a restored database is told again, the message makes no second one.
            self._witness.later([testimony.MessageUsed(claim.digest, token.created)])
        self._witness.later([testimony.TokenMade(token)])
        if claim.message is not None:
            with suppress(Unavailable):
                self._witness.settle()
        return CreatedToken(text, token, rule.binding_key(token.hash, self._secret))

    def bind(self, asked: Evidence, peer: Peer) -> Token:
        """Let an account have a token, for good. The same again is granted again.

        Nothing else is recorded of it: the first certificate that the account gets names the token (P8). A database that is set back to before
        it has neither the account.

        Raises:
            Unauthenticated, Denied, Conflict: see `ca.rules.token.binding`.
        """
        claim = evidence.claim(evidence.Verb.bind_account, asked, peer, deployment=self._policy.deployment, now=self._clock.now())
        said = claim.binding
        assert said is not None, "a claim of this kind holds a binding"
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            token = rule.binding(_named(tx, said.key_id), said, secret=self._secret, now=now)
            tx.use_token(token.hash, request_key=rule.account_key(said.account), now=now)
            tx.raise_high_time(now)
        return token

    def revoke(self, request: TokenWithdrawal, peer: Peer) -> tuple[Token, ...]:
        """Withdraw the outstanding tokens of a device, or one of them. What was used already is not undone by this.

        Raises:
            Denied: who asks is no operator of this machine.
            NotFound: there is no such outstanding token (`no-such-token`).
        """
        claim = evidence.claim(
            evidence.Verb.revoke_token, request.evidence, peer, deployment=self._policy.deployment, now=self._clock.now()
        )
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            tx.lock_device(request.device)
            found = [one for one in tx.outstanding_tokens(request.device, now=now) if one.hash.hex().startswith(request.hash)]
            if not found:
                raise NotFound(
                    "no-such-token",
                    f"{request.device} has no such token that could still be used.",
                    why="It was used or withdrawn, has expired, or never was.",
                    fix=f"List those there are: fleetca token list {request.device}",
                )
            actor = permission.local_actor(claim)
            gone, said = lineage.withdraw(tx, found, actor=actor, now=now)
            tx.raise_high_time(now)
        self._witness.later(said)
        with suppress(Unavailable):
            # Committed and in force already.
            self._witness.settle()
        return gone

    def _make(self, claim: evidence.Claim, request: TokenRequest, text: str, lifetime: int) -> Token:
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            record = self._issuers.record_of(claim, tx)
            actor = permission.token(claim, request, self._policy, record=record, operator=lineage.operator_of(record, tx), now=now)
            self._allowances.spend(claim.peer.role, now=now)
            if claim.message is not None:
                tx.consume_message(claim.digest, now=now)
            device = tx.lock_device(request.device)
            tenant = self._policy.owner(request.device)
            if device is not None and renewal.enrolling(device).tenant != tenant:
                raise Denied("device-of-another-tenant", "There is no such device.")
            token = Token(
                hash=rule.token_hash(text),
                tenant=tenant,
                device=request.device,
                profile=request.profile,
                names=request.names,
                created=now,
                expires=now + lifetime,
                created_by=actor,
                used_at=None,
                used_by=None,
            )
            tx.add_token(token)
            tx.append_leaf(leaf.token(token))
            tx.raise_high_time(now)
        return token


def _named(tx: Writing, key_id: str) -> Token | None:
    try:
        beginning = bytes.fromhex(key_id) if key_id == key_id.lower() else b""
    except ValueError:
        return None
    return tx.find_token_by_beginning(beginning) if len(beginning) == rule.BINDING_ID_OCTETS else None
