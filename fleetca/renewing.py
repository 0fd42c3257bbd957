"""Renewing a certificate that lies in files: a new key, a request, the answer checked, the pair replaced. Edge: files and network, no rule of its own.

Beside CERTIFICATE and KEY it keeps, while a renewal is under way:

    KEY.next            the new key, as sealed or plain as KEY is
    CERTIFICATE.request the very body that is sent: after a cut connection or a crash the same one goes out again, and gets the same certificate
    CERTIFICATE.next    the new certificate, checked; from here on only renames are missing
    KEY.old, CERTIFICATE.old   the old pair, until the service has seen the new one work

A crash at any point leaves the old pair or the new one usable; the next run goes on where it stopped.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from ca.der import pem
from ca.der.algorithms import load_public_key, verify
from ca.der.certificate import CertificateFacts, assemble, read_certificate
from ca.der.request import request_info
from ca.errors import Broken, Conflict, Denied, FleetcaError, KeyUnavailable, Malformed, Refused, StoreUnavailable
from ca.keys.memory import MemoryKey, PrivateKey, make_private_key
from ca.keys.sealed_file import seal
from ca.model import KeyName, UnixTime
from ca.ports import Chance, Clock
from ca.rules.message import Act, Message, signed_octets, write_message
from fleetca.client import Client
from fleetca.folder import put_new, sync_folder

NO_TLS: Final = "ml-dsa"
"""Algorithms whose names begin so cannot speak in TLS here (OpenSSL 3.0); their keys sign messages."""
_SPENT: Final = frozenset({"key-used-before", "request-differs", "request-spent", "message-out-of-time", "message-replayed"})
"""What the service says to a kept request that can have no answer any more."""


class By(Enum):
    """How the current key speaks."""

    auto = "auto"
    tls = "tls"
    message = "message"


@dataclass(frozen=True, slots=True)
class Service:
    """Whom to ask, and what to believe."""

    url: str
    root: Path
    """PEM file with the root certificate that is trusted."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, in files."""

    certificate: Path
    key: Path
    password: Callable[[], bytes] | None = None
    _unsealed: dict[bytes, PrivateKey] = field(default_factory=dict, repr=False, compare=False)
    """Keys by the octets of their files: unsealing is slow on purpose, and once is enough."""

    def beside(self, file: Path, suffix: str) -> Path:
        return file.with_name(file.name + suffix)

    def private_key(self, file: Path) -> PrivateKey:
        """The private key in a file of this pair.

        Raises:
            Malformed, KeyUnavailable: it cannot be read, or not be unlocked.
        """
        octets = _read(file)
        if octets not in self._unsealed:
            self._unsealed[octets] = _load(octets, self.password, file=file)
        return self._unsealed[octets]

    @property
    def next_key(self) -> Path:
        return self.beside(self.key, ".next")

    @property
    def next_certificate(self) -> Path:
        return self.beside(self.certificate, ".next")

    @property
    def request(self) -> Path:
        return self.beside(self.certificate, ".request")

    @property
    def old(self) -> tuple[tuple[Path, Path], ...]:
        return tuple((file, self.beside(file, ".old")) for file in (self.certificate, self.key))


@dataclass(frozen=True, slots=True)
class Renewed:
    """What came of it."""

    answer: Mapping[str, Any]
    """The service's answer; empty when an earlier run had it already."""
    certificate: CertificateFacts
    by: By


def read_pair(pair: Pair) -> tuple[CertificateFacts, PrivateKey]:
    """The certificate and its key.

    Raises:
        Malformed: a file cannot be read, or they do not belong together (`pair-mismatch`).
        KeyUnavailable: the key is sealed and the passphrase is not its own.
    """
    facts = read_certificate(_first_certificate(pair.certificate))
    key = pair.private_key(pair.key)
    if MemoryKey(KeyName("current"), key).spki != facts.spki:
        raise Malformed(
            "pair-mismatch", f"{pair.key} is not the key of {pair.certificate}.", fix="Name the two files that belong together."
        )
    return facts, key


def due_from(facts: CertificateFacts) -> UnixTime:
    """When a certificate should be renewed, when nobody said so: after two thirds of its lifetime."""
    return facts.not_before + (facts.not_after + 1 - facts.not_before) * 2 // 3


def renew(pair: Pair, service: Service, *, by: By, clock: Clock, chance: Chance) -> Renewed:
    """Replace a pair by its successor, and let the service see that it works.

    Raises:
        Refused: the service does not renew it; the pair is as it was.
        Unavailable: ask again later; the same request goes out again.
        Broken: the answer is not what was asked for (`wrong-answer`); the pair is as it was.
        Denied, Unavailable from the last step, with the new pair in place: it was not seen to work; the old one lies beside it.
    """
    answer: Mapping[str, Any] = {}
    if not _finish_install(pair):
        old, key = read_pair(pair)
        by = _by(by, old, key, clock.now())
        try:
            answer = _ask(pair, service, old, key, by=by, clock=clock, chance=chance)
        except Denied as error:
            if error.code != "not-by-presenting" or by is By.message:
                raise
            by = By.message  # an operator's certificate: its key must sign what it asks
            _forget(pair)
            answer = _ask(pair, service, old, key, by=by, clock=clock, chance=chance)
        _store(pair, service, old, answer, now=clock.now())
        _finish_install(pair)
    facts, key = read_pair(pair)
    by = _by(by, facts, key, clock.now())
    _confirm(pair, service, facts, key, by=by, clock=clock, chance=chance)
    for _, old_file in pair.old:
        old_file.unlink(missing_ok=True)
    return Renewed(answer, facts, by)


# ---- Asking ---------------------------------------------------------------------------------------------------------


def _by(by: By, facts: CertificateFacts, key: PrivateKey, now: UnixTime) -> By:
    if by is not By.auto:
        return by
    algorithm = MemoryKey(KeyName("current"), key).algorithm
    return By.message if algorithm.startswith(NO_TLS) or now > facts.not_after else By.tls


def _ask(
    pair: Pair, service: Service, old: CertificateFacts, key: PrivateKey, *, by: By, clock: Clock, chance: Chance
) -> Mapping[str, Any]:
    client = _client(pair, service, by)
    try:
        kept = _kept_request(pair, by)
        if kept is not None:
            try:
                return client.post("/v1/renew", kept)
            except Refused as error:
                if error.code not in _SPENT:
                    raise
        _forget(pair)
        try:
            return client.post("/v1/renew", _new_request(pair, client, old, key, by=by, clock=clock, chance=chance))
        except Refused:
            _forget(pair)  # it would be refused again
            raise
    finally:
        client.close()


def _client(pair: Pair, service: Service, by: By) -> Client:
    if by is By.message:
        return Client(service.url, trusted=service.root)
    return Client(service.url, trusted=service.root, certificate=pair.certificate, key=pair.key, password=pair.password or bytes)


def _new_request(
    pair: Pair, client: Client, old: CertificateFacts, key: PrivateKey, *, by: By, clock: Clock, chance: Chance
) -> Mapping[str, Any]:
    """A new key and the request for it, both on disk before anything is sent."""
    current = MemoryKey(KeyName("current"), key)
    made = make_private_key(current.algorithm)
    _write_key(pair, made)
    new = MemoryKey(KeyName("next"), made)
    asked = request_info({"common_name": "renewal"}, new.spki)
    csr = assemble(asked, new.algorithm, new.sign(asked))
    if by is By.message:
        body: dict[str, Any] = {"message": _message(client, old, current, Act.renew, csr=csr, clock=clock, chance=chance)}
    else:
        body = {"csr": base64.b64encode(csr).decode()}
    put_new(pair.request, json.dumps(body).encode(), mode=0o600)
    return body


def _kept_request(pair: Pair, by: By) -> Mapping[str, Any] | None:
    if not (pair.request.exists() and pair.next_key.exists()):
        return None
    try:
        body = json.loads(pair.request.read_bytes())
    except ValueError:
        return None
    return body if isinstance(body, dict) and ("message" in body) == (by is By.message) else None


def _message(
    client: Client, own: CertificateFacts, key: MemoryKey, act: Act, *, csr: bytes | None = None, clock: Clock, chance: Chance
) -> dict[str, str]:
    """The JSON form of a message to this deployment, signed with the key of `own`."""
    audience = str(json.loads(client.get("/v1/about"))["deployment"])
    payload = write_message(Message(act, audience, clock.now(), chance.octets(16).hex(), csr=csr))
    parts = {"payload": payload, "certificate": own.der, "signature": key.sign(signed_octets(payload))}
    return {name: base64.b64encode(octets).decode() for name, octets in parts.items()}


def _confirm(pair: Pair, service: Service, own: CertificateFacts, key: PrivateKey, *, by: By, clock: Clock, chance: Chance) -> None:
    client = _client(pair, service, by)
    try:
        body: dict[str, Any] = {}
        if by is By.message:
            body = {"message": _message(client, own, MemoryKey(KeyName("current"), key), Act.confirm, clock=clock, chance=chance)}
        client.post("/v1/confirm", body)
    except FleetcaError as error:
        error.fix = f"The new pair is in place and the old one beside it (.old). {error.fix or 'Run the same command again later.'}"
        raise
    finally:
        client.close()


# ---- Checking and installing ----------------------------------------------------------------------------------------


def _store(pair: Pair, service: Service, old: CertificateFacts, answer: Mapping[str, Any], *, now: UnixTime) -> None:
    """Check the answer, then write it beside the old certificate. The service may be wrong; our files may not."""
    try:
        leaf = pem.der_of(str(answer["certificate"]).encode(), pem.CERTIFICATE)
        chain = pem.ders_of(str(answer["chain"]).encode(), pem.CERTIFICATE)
        roots = pem.ders_of(service.root.read_bytes(), pem.CERTIFICATE)
        new = read_certificate(leaf)
        _verify_chain([leaf, *chain], roots)
    except (KeyError, OSError, FleetcaError) as error:
        raise _wrong(f"It cannot be verified: {error}.") from None
    expected = MemoryKey(KeyName("next"), pair.private_key(pair.next_key)).spki
    if new.spki != expected:
        raise _wrong("It certifies another key.")
    if new.subject != old.subject:
        raise _wrong("It is for another subject.")
    if not new.not_before <= now <= new.not_after:
        raise _wrong("It is not valid now; check this device's clock.")
    above = [der for der in chain if der not in roots]
    text = "".join(pem.pem(pem.CERTIFICATE, der) for der in (leaf, *above))
    pair.next_certificate.unlink(missing_ok=True)
    put_new(pair.next_certificate, text.encode(), mode=pair.certificate.stat().st_mode & 0o777)


def _verify_chain(chain: list[bytes], roots: list[bytes]) -> None:
    """Each is signed by the next, and the last is a trusted root or signed by one."""
    loaded = [x509.load_der_x509_certificate(der) for der in chain]
    if chain[-1] not in roots:
        last = loaded[-1].issuer
        loaded += [root for root in map(x509.load_der_x509_certificate, roots) if root.subject == last][:1]
        if len(loaded) == len(chain):
            raise Malformed("unknown-root", "It does not lead to the trusted root.")
    for one, above in pairwise(loaded):
        spki = above.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        verify(load_public_key(spki), one.signature, one.tbs_certificate_bytes)


def _wrong(why: str) -> Broken:
    return Broken("wrong-answer", "The service's answer is not what was asked for; nothing was changed.", why=why)


def _finish_install(pair: Pair) -> bool:
    """Rename the checked pair into place; True when there was one. Whatever a crash left half-done is done now."""
    if not pair.next_certificate.exists():
        return False
    try:
        spki = read_certificate(_first_certificate(pair.next_certificate)).spki
        if pair.next_key.exists() and MemoryKey(KeyName("next"), pair.private_key(pair.next_key)).spki == spki:
            for file, old in pair.old:
                old.unlink(missing_ok=True)
                os.link(file, old)
            sync_folder(pair.key.parent)
            # Between these two renames the pair does not fit; a run after a crash there finds KEY in place and does the second.
            pair.next_key.replace(pair.key)
            sync_folder(pair.key.parent)
        elif MemoryKey(KeyName("current"), pair.private_key(pair.key)).spki != spki:
            pair.next_certificate.unlink()  # of a renewal that was given up
            return False
        pair.next_certificate.replace(pair.certificate)
        pair.request.unlink(missing_ok=True)
        sync_folder(pair.certificate.parent)
    except OSError as error:
        raise StoreUnavailable(
            "disk", f"{pair.certificate} and {pair.key} cannot be replaced.", why=f"{error.strerror}.", fix="Run the same command again."
        ) from None
    return True


def _forget(pair: Pair) -> None:
    pair.request.unlink(missing_ok=True)
    pair.next_key.unlink(missing_ok=True)


# ---- Files ----------------------------------------------------------------------------------------------------------


def _first_certificate(file: Path) -> bytes:
    octets = _read(file)
    found = [octets] if octets.startswith(b"\x30") else pem.ders_of(octets, pem.CERTIFICATE)
    if not found:
        raise Malformed("bad-certificate", f"{file} holds no certificate.", fix="Give a PEM or DER file.")
    return found[0]


def _load(octets: bytes, password: Callable[[], bytes] | None, *, file: Path) -> PrivateKey:
    sealed = b"ENCRYPTED" in octets
    if sealed and password is None:
        raise KeyUnavailable("passphrase-required", f"{file} is sealed.", fix="Give --passphrase-file FILE.")
    try:
        return serialization.load_pem_private_key(octets, password() if sealed and password else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if sealed:
            raise KeyUnavailable(
                "wrong-passphrase", f"{file} cannot be unlocked.", why="The passphrase is another, or it is damaged."
            ) from None
        raise Malformed("bad-key-file", f"{file} holds no private key.", fix="Give a PEM file.") from None


def _write_key(pair: Pair, key: PrivateKey) -> None:
    """The new key is sealed where the old one is (P10); plain, for its owner only, where the device keeps it plain."""
    if b"ENCRYPTED" in _read(pair.key) and pair.password is not None:
        octets = seal(key, pair.password()).encode()
    else:
        octets = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pair.next_key.unlink(missing_ok=True)  # of a run that stopped before it asked
    put_new(pair.next_key, octets, mode=0o600)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Conflict("unreadable-file", f"{file} cannot be read.", why=f"{error.strerror}.") from None
