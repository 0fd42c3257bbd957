"""A room for ceremonies: an archive in memory that can fail at each effect, keys that remember what they signed, a clock one sets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from ca.ceremony import Ceremony
from ca.ceremony_steps import Outcome, Step
from ca.ceremony_steps import Room as Place
from ca.errors import Conflict, KeyUnavailable
from ca.keys.memory import MemoryKey, MemoryKeyStore
from ca.model import AlgorithmName, Digest, IssuerId, KeyName, ProfileName
from ca.ports import SigningKey
from ca.rules.ceremony import (
    Act,
    CrossAct,
    DestroyAct,
    IntermediateAct,
    KnownIssuer,
    LinkAct,
    Participant,
    RekeyAct,
    ResponderAct,
    RootAct,
    RootCrlAct,
    Sheet,
)
from fleetca.forms import shipped_profiles

NOW = 1_795_305_600
YEAR = 365 * 86400


def apart() -> Place:
    """A machine without a network."""
    return Place("machine", (), "test 1", "00" * 32)


class Stopped(BaseException):
    """A kill -9 at an effect."""


@dataclass
class Room:
    """Everything a ceremony leaves behind when its process dies: files and keys."""

    files: dict[str, bytes] = field(default_factory=dict)
    keys: dict[KeyName, MemoryKey] = field(default_factory=dict)
    signed: list[tuple[str, bytes]] = field(default_factory=list)
    """(key, octets), in order: what left a key, whatever was written about it."""
    effects: int = 0
    stop_at: int | None = None
    stop_after: bool = False
    """Die after the effect instead of before it."""
    now: int = NOW
    shown: list[Step] = field(default_factory=list)
    answer: Callable[[Step], bool] = lambda step: True
    place: Place = field(default_factory=apart)
    people: dict[str, MemoryKey] = field(default_factory=dict)
    moved: str = ""

    def effect(self, act: Callable[[], None]) -> None:
        self.effects += 1
        if self.effects == self.stop_at and not self.stop_after:
            raise Stopped
        act()
        if self.effects == self.stop_at:
            raise Stopped

    # ---- Archive ----

    def names(self) -> Sequence[str]:
        return sorted([*self.files, *(f"{name}.key" for name in self.keys)])

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def put_new(self, name: str, octets: bytes) -> None:
        if name in self.files:
            raise Conflict("output-exists", f"{name} exists.")
        self.effect(lambda: self.files.__setitem__(name, octets))

    def append(self, name: str, octets: bytes, *, at: int) -> None:
        before = self.files.get(name, b"")[:at]
        assert len(before) == at
        try:
            self.effect(lambda: self.files.__setitem__(name, before + octets))
        except Stopped:
            if not self.stop_after:
                self.files[name] = before + octets[: len(octets) // 2]  # torn
            raise

    # ---- A run ----

    def ceremony(self) -> Ceremony:
        return Ceremony(
            archive=self,
            keys=_Keys(self),
            known_key=lambda name: _Key(self, self.keys[name]),
            trial_keys=MemoryKeyStore,
            profiles=profiles(),
            confirm=self._confirm,
            clock=_Clock(self),
            chance=_Chance(),
            role_key=lambda who: _Key(self, self.people[who.person]),
            destroy=self._destroy,
            moved=self.moved,
            room=self.place,
        )

    def run(self, made: Sheet) -> Outcome:
        return self.ceremony().run(made)

    def _destroy(self, name: KeyName) -> tuple[tuple[str, str], ...]:
        self.effect(lambda: self.keys.pop(name, None))
        return (("asked again", "there is no such key"),)

    def _confirm(self, step: Step) -> bool:
        self.shown.append(step)
        return self.answer(step)


@lru_cache
def profiles() -> dict[ProfileName, object]:
    return dict(shipped_profiles())


@dataclass
class _Clock:
    room: Room

    def now(self) -> int:
        return self.room.now

    def monotonic(self) -> float:
        return float(self.room.now)


class _Chance:
    drawn = 0

    def octets(self, count: int) -> bytes:
        _Chance.drawn += 1
        return hashlib.shake_128(_Chance.drawn.to_bytes(4, "big")).digest(count)


@dataclass
class _Key:
    room: Room
    inner: MemoryKey

    @property
    def name(self) -> KeyName:
        return self.inner.name

    @property
    def algorithm(self) -> AlgorithmName:
        return self.inner.algorithm

    @property
    def spki(self) -> bytes:
        return self.inner.spki

    def sign(self, message: bytes) -> bytes:
        self.room.effect(lambda: self.room.signed.append((self.name, message)))
        return self.inner.sign(message)


@dataclass
class _Keys:
    room: Room

    def open(self, name: KeyName) -> SigningKey:
        if name not in self.room.keys:
            raise KeyUnavailable("no-such-key", f"No key {name}.")
        return _Key(self.room, self.room.keys[name])

    def generate(self, name: KeyName, algorithm: AlgorithmName) -> SigningKey:
        if name in self.room.keys:
            raise Conflict("key-exists", f"Key {name} exists.")
        made = MemoryKey.generate(name, algorithm)
        self.room.effect(lambda: self.room.keys.__setitem__(name, made))
        return _Key(self.room, made)

    def names(self) -> Sequence[KeyName]:
        return sorted(self.room.keys)


# ---- Sheets -------------------------------------------------------------------------------------------------------------


def root(**changes: object) -> RootAct:
    usual: dict[str, object] = {
        "id": "root", "profile": "root", "algorithm": "p256", "subject": {"common_name": "Root"}, "not_before": "now", "not_after": "20y",
    }  # fmt: skip
    return RootAct(**(usual | changes))  # type: ignore[arg-type]


def intermediate(**changes: object) -> IntermediateAct:
    usual: dict[str, object] = {
        "id": "issuing", "issuer": "root", "profile": "issuing-ca", "csr": None, "algorithm": "p256", "subject": {"common_name": "Issuing"},
        "not_before": "now", "not_after": "5y", "crl_url": "http://pki.example/crl/root.crl", "issuer_url": "http://pki.example/ca/root.cer",
    }  # fmt: skip
    return IntermediateAct(**(usual | changes))  # type: ignore[arg-type]


def root_crl(**changes: object) -> RootCrlAct:
    usual: dict[str, object] = {
        "id": "root-crl", "issuer": "root", "previous": None, "first": False, "this_update": "now", "next_update": "1y", "revoked": (),
    }  # fmt: skip
    return RootCrlAct(**(usual | changes))  # type: ignore[arg-type]


def csr(kind: str = "p256", name: str = "issuing") -> bytes:
    """A CSR of a key that lasts as long as the tests do."""
    from ca.der.certificate import assemble
    from ca.der.request import request_info
    from tests.fakes.certificates import key

    signer = key(kind, name)
    info = request_info({"common_name": "whatever"}, signer.spki)
    return assemble(info, signer.algorithm, signer.sign(info))


URLS = ("http://pki.example/crl/root.crl", "http://pki.example/ca/root.cer")


def rekey(predecessor: bytes, **changes: object) -> RekeyAct:
    usual: dict[str, object] = {
        "id": "issuing-2", "issuer": "root", "profile": "issuing-ca", "predecessor": predecessor, "csr": csr(), "subject": None,
        "not_before": "now", "not_after": "5y", "crl_url": URLS[0], "issuer_url": URLS[1],
    }  # fmt: skip
    return RekeyAct(**(usual | changes))  # type: ignore[arg-type]


def cross(certificate: bytes, **changes: object) -> CrossAct:
    usual: dict[str, object] = {
        "id": "partner", "issuer": "root", "profile": "cross-certificate", "certificate": certificate, "subject": None, "not_before": "now",
        "not_after": "1y", "crl_url": URLS[0], "issuer_url": URLS[1],
    }  # fmt: skip
    return CrossAct(**(usual | changes))  # type: ignore[arg-type]


def link(signer: str, subject: str, **changes: object) -> LinkAct:
    usual: dict[str, object] = {
        "id": f"{subject}-with-{signer}", "signer": signer, "subject": subject, "profile": "link", "crl_url": URLS[0], "issuer_url": URLS[1],
    }  # fmt: skip
    return LinkAct(**(usual | changes))  # type: ignore[arg-type]


def responder(**changes: object) -> ResponderAct:
    usual: dict[str, object] = {
        "id": "responder", "issuer": "root", "profile": "root-responder", "csr": csr(name="device"), "subject": {"common_name": "Responder"},
        "not_before": "now",
    }  # fmt: skip
    return ResponderAct(**(usual | changes))  # type: ignore[arg-type]


def destroy(**changes: object) -> DestroyAct:
    usual: dict[str, object] = {"id": "root-key", "issuer": "root", "reason": "Its time is over."}
    return DestroyAct(**(usual | changes))  # type: ignore[arg-type]


PEOPLE = (("administrator", "Alex"), ("auditor", "Aron"), ("witness", "Wanda"))


def with_people(
    made: Sheet, room: Room, *, people: tuple[tuple[str, str], ...] = PEOPLE, confirm: tuple[str, ...] = ("administrator", "witness")
) -> Sheet:
    """The sheet with people in it; their keys are in the room."""
    for _, person in people:
        room.people.setdefault(person, MemoryKey.generate(KeyName(person.lower()), AlgorithmName("p256")))
    participants = tuple(Participant(role, person, Digest(hashlib.sha256(room.people[person].spki).digest())) for role, person in people)
    return replace(made, participants=participants, confirm=confirm)


def sheet(*acts: Act, issuers: tuple[KnownIssuer, ...] = (), text: bytes = b"a sheet") -> Sheet:
    chosen = acts or (root(), intermediate(), root_crl())
    return Sheet("first", "the first one", Digest(hashlib.sha256(text).digest()), text, issuers, chosen)


def known_root(room: Room) -> KnownIssuer:
    """The root that a finished room made, for the next ceremony's sheet."""
    from ca.der import pem

    return KnownIssuer(IssuerId("root"), pem.der_of(room.files["root.pem"], pem.CERTIFICATE), KeyName("root"))


# ---- Sheets of a root that custodians share ---------------------------------------------------------------------------

SHARES = """
[[acts]]
act = "shares"
id = "quorum"
custodians = ["Carol", "Cyrus", "Chloe"]
threshold = 2
"""
"""Custodians share a key."""
ROOT = """
[[acts]]
act = "root"
id = "root"
algorithm = "p256"
subject = { common_name = "Root" }
not_after = "20y"
quorum = "quorum"
[[acts]]
act = "root-crl"
id = "root-crl"
issuer = "root"
next_update = "90d"
[[acts]]
act = "backup"
id = "root-backup"
issuer = "root"
quorum = "quorum"
"""
"""Under it a root, its first CRL and its backup."""
KNOWN = '[[issuers]]\nid = "root"\ncertificate = "first/root.pem"\n'
"""What a later ceremony knows of it."""
OPENED = '[issuers.root]\nkey = "sealed:first/root.key"\nquorum = "first/quorum.quorum.json"\n'
"""Where its key lies then."""
