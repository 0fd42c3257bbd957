"""Who asks: from a request's octets to an account that may be believed (RFC 8555 6.2 to 6.5). Verb ring: knows rules and ports only.

Every POST passes here, in one order: shape, algorithm, key, address, signature, nonce, account. A nonce is used up only by a request whose
signature holds, so that nobody else can spend it. What is not asked for by name is refused: a route says which of jwk and kid it takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from enroll.acme import jws
from enroll.acme.messages import Addresses
from enroll.acme.model import Account, AccountStatus, Directory, Problem
from enroll.acme.nonces import Nonces
from enroll.acme.ports import Protocols


class By(Enum):
    """How a route lets itself be asked (RFC 8555 6.2)."""

    key = "jwk"
    account = "kid"
    either = "jwk or kid"


@dataclass(frozen=True, slots=True)
class Asker:
    """A request that was signed by the key it names, once, for this address."""

    directory: Directory
    signed: jws.Signed
    jwk: jws.Jwk
    account: Account | None
    address: str
    """Where it came from, for limits."""

    @property
    def reads_only(self) -> bool:
        """POST-as-GET: the payload is the empty string (RFC 8555 6.3)."""
        return self.signed.payload == b""

    @property
    def known(self) -> Account:
        assert self.account is not None, "`authenticate` lets nobody else to the addresses that are asked with one"
        return self.account

    def payload(self) -> Mapping[str, Any]:
        """The payload, a JSON object."""
        return jws.read_json(self.signed.payload, "The payload")

    def only_reading(self) -> None:
        """Refuse a payload where there is nothing to say."""
        if not self.reads_only:
            raise Problem("malformed", "This address is only read: the payload is the empty string (RFC 8555 6.3).")


class Requests:
    """Reads requests of one directory."""

    def __init__(self, *, store: Protocols, nonces: Nonces) -> None:
        self._store, self._nonces = store, nonces

    def authenticate(self, body: bytes, *, directory: Directory, addresses: Addresses, url: str, by: By, address: str) -> Asker:
        """Who asks.

        Args:
            url: of this request, as the client must have signed it.

        Raises:
            Problem: `malformed`, `badSignatureAlgorithm`, `badPublicKey`, `unauthorized`, `badNonce`, `accountDoesNotExist`.
        """
        signed = jws.read(body)
        if (by is By.key and signed.jwk is None) or (by is By.account and signed.kid is None):
            raise Problem("malformed", f"This address takes {by.value} (RFC 8555 6.2).")
        account = None if signed.kid is None else self._account(signed.kid, directory, addresses)
        jwk = account.jwk if account is not None else signed.jwk
        assert jwk is not None, "one of jwk and kid is there"
        if signed.url != url:
            raise Problem("unauthorized", "The url that was signed is not the one that is asked (RFC 8555 6.4).", status=403)
        jws.verify(signed, jwk)
        self._nonces.use(signed.nonce)
        if account is not None and account.status is not AccountStatus.valid:
            raise Problem("unauthorized", f"The account is {account.status.value} (RFC 8555 7.3.6).", status=401)
        return Asker(directory, signed, jwk, account, address)

    def _account(self, kid: str, directory: Directory, addresses: Addresses) -> Account:
        id_ = addresses.id_in(kid, "account")
        found = self._store.find_account(id_) if id_ is not None else None
        if found is None or found.directory != directory.name:
            raise Problem("accountDoesNotExist", "There is no such account in this directory (RFC 8555 6.2).")
        return found
