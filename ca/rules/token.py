"""One-time enrolment tokens. Ring 1: pure; the random octets come from outside.

`enr_`, 43 base62 digits of 32 random octets, and 6 base62 digits of their CRC-32: scanners for leaked secrets can match it, and a typing error
is told apart from a token that does not exist. Only the SHA-256 of the whole text is ever kept.
"""

from __future__ import annotations

import hashlib
import hmac
import string
import zlib
from typing import Final

from ca.errors import Broken, Conflict, Denied, Malformed, Unacceptable, Unauthenticated
from ca.model import AccountBinding, Digest, Token, UnixTime

PREFIX: Final = "enr_"
RANDOM_OCTETS: Final = 32
LONGEST_LIFETIME: Final = 90 * 86400
_DIGITS: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_BODY: Final = 43
_CHECK: Final = 6
BINDING_ID_OCTETS: Final = 8
_DIGESTS: Final = {"sha256": hashlib.sha256, "sha384": hashlib.sha384, "sha512": hashlib.sha512}


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))


def _check(body: str) -> str:
    return _base62(zlib.crc32(body.encode("ascii")), _CHECK)


def token_text(random: bytes) -> str:
    """The text of a new token."""
    if len(random) != RANDOM_OCTETS:
        raise Broken("token", f"A token is made of {RANDOM_OCTETS} random octets.")
    body = _base62(int.from_bytes(random, "big"), _BODY)
    return PREFIX + body + _check(body)


def token_hash(text: str) -> Digest:
    """What we keep of a token, and what its evidence is known by.

    Raises:
        Unauthenticated: `token-malformed`: it cannot be one of ours; most often it was cut or mistyped.
    """
    body, check = text[len(PREFIX) : -_CHECK], text[-_CHECK:]
    shaped = text.startswith(PREFIX) and len(text) == len(PREFIX) + _BODY + _CHECK and text.isascii() and text[len(PREFIX) :].isalnum()
    if not shaped or _check(body) != check:
        raise Unauthenticated(
            "token-malformed",
            "This is not an enrolment token.",
            why="Its form or its check digits are wrong: most often it was cut or mistyped.",
            fix="Copy the whole token, from enr_ to its last character.",
        )
    return Digest(hashlib.sha256(text.encode("ascii")).digest())


def usable(token: Token | None, *, request_key: bytes, now: UnixTime) -> Token:
    """The token, if this request may use it.

    A request whose certificate was given up after a crash comes again with the same request key: it may.

    Raises:
        Unauthenticated: `token-unknown`, `token-revoked`, `token-expired`.
        Conflict: `token-used`.
    """
    if token is None:
        raise Unauthenticated("token-unknown", "This enrolment token does not exist.", fix="Make one: fleetca token create DEVICE")
    if token.used_at is not None and token.used_by != request_key:
        raise Conflict(
            "token-used", "This enrolment token was used.", why="A token enrols once.", fix="Make a new one: fleetca token create DEVICE"
        )
    if token.revoked_at is not None:
        raise Unauthenticated(
            "token-revoked",
            "This enrolment token was withdrawn.",
            why="An operator did so, or took its device out of service.",
            fix="Make a new one: fleetca token create DEVICE",
        )
    if now >= token.expires:
        raise Unauthenticated("token-expired", "This enrolment token has expired.", fix="Make a new one: fleetca token create DEVICE")
    return token


def account_key(account: str) -> Digest:
    """What stands as the user of a token that belongs to an account (RFC 8555 7.3.4)."""
    return Digest(hashlib.sha256(b"fleetca account\0" + account.encode("ascii")).digest())


def binding_id(hash_: Digest) -> str:
    """The key identifier under which a token binds an account; its first octets find the token."""
    return hash_[:BINDING_ID_OCTETS].hex()


def binding_key(hash_: Digest, secret: bytes) -> bytes:
    """The MAC key with which its holder binds an account (RFC 8555 7.3.4).

    It is kept nowhere: it follows from the token's hash and a secret that the database does not hold, so whoever reads the table of tokens
    can bind no account.

    Args:
        secret: of the signer's.
    """
    own = hmac.new(secret, b"fleetca external account binding", hashlib.sha256).digest()
    return hmac.new(own, hash_, hashlib.sha256).digest()


def binding(token: Token | None, said: AccountBinding, *, secret: bytes, now: UnixTime) -> Token:
    """The token, if this account may have it: made with its key, and usable now or bound to it before.

    Raises:
        Unauthenticated: `binding-invalid`: also where there is no such token; `token-expired`, `token-revoked`.
        Denied: `evidence-for-another-profile`.
        Conflict: `token-used`.
    """
    kind = _DIGESTS.get(said.digest)
    # An unknown key id is computed like a known one, so that the time taken does not tell them apart.
    key = binding_key(token.hash if token is not None else account_key(said.account), secret)
    holds = kind is not None and hmac.compare_digest(hmac.new(key, said.octets, kind).digest(), said.mac)
    if not holds or token is None:
        raise Unauthenticated("binding-invalid", "The external account binding does not verify (RFC 8555 7.3.4).")
    if token.profile != said.profile:
        raise Denied("evidence-for-another-profile", f"The token is for profile {token.profile}, not for {said.profile}.")
    if token.used_at is not None and token.used_by == account_key(said.account):
        return token
    return usable(token, request_key=account_key(said.account), now=now)


def bound(token: Token | None, account: str) -> Token:
    """The token of an account, for whose device it stands.

    Raises:
        Unauthenticated: `token-not-bound`: it is another's, or nobody's.
    """
    if token is None or token.used_at is None or token.used_by != account_key(account):
        raise Unauthenticated("token-not-bound", "The token was not bound to this account (RFC 8555 7.3.4).")
    return token


def accepted_lifetime(seconds: int) -> int:
    """A token's lifetime in seconds.

    Raises:
        Malformed: not above zero.
        Unacceptable: `token-lifetime`.
    """
    if seconds <= 0:
        raise Malformed("token-lifetime", "A token's lifetime must be above zero.")
    if seconds > LONGEST_LIFETIME:
        raise Unacceptable("token-lifetime", "A token may live at most 90 days.", why=f"{seconds} seconds were asked for.")
    return seconds
