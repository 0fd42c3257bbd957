"""The keys of one ceremony: where its credentials say they rest, under a passphrase, on a token or shared by custodians. Edge: no rule.

With `fleetca.ceremonies` the only module that opens root keys (P3, P4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from ca.ceremony_steps import Proof
from ca.der.algorithms import ALGORITHMS
from ca.errors import KeyUnavailable, Misconfigured
from ca.keys.sealed_file import SealedFileKeyStore
from ca.model import AlgorithmName, IssuerId, KeyName, Profile, ProfileName
from ca.ports import Clock, KeyStore, SigningKey
from ca.rules.ceremony import (
    Act,
    BackupAct,
    IntermediateAct,
    Participant,
    RootAct,
    SharesAct,
    Sheet,
    StatementAct,
    makes_key,
    signer_of,
)
from ca.rules.key_policy import check_protection, check_store
from config import credentials as places
from config.key_uris import KeyReference, SealedKey, TokenKey
from config.secrets import Secret
from config.strict import read_octets
from fleetca import forms
from fleetca.ceremony_custody import CeremonyCustody, Custodians
from fleetca.folder import Folder

SHORTEST_PASSPHRASE: Final = 12
"""Octets; scrypt makes each guess dear, the passphrase makes the guesses many."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Where passphrases come from that no file names."""

    passphrase: Callable[[], bytes]
    """Seals the keys that are made here, and unlocks those of the sheet's issuers."""
    ask: Callable[[str], bytes] | None = None
    """Asks somebody at the terminal for the passphrase or PIN of what it is told."""


def long_enough(passphrase: Callable[[], bytes]) -> Callable[[], bytes]:
    """The passphrase, asked for once, when the first key needs it."""
    known: list[bytes] = []

    def read_once() -> bytes:
        if not known:
            value = passphrase()
            if len(value) < SHORTEST_PASSPHRASE:
                raise KeyUnavailable(
                    "short-passphrase",
                    f"A ceremony's passphrase has at least {SHORTEST_PASSPHRASE} characters.",
                    fix="Use several random words.",
                )
            known.append(value)
        return known[0]

    return read_once


@dataclass(frozen=True, slots=True)
class Asked(Secret):
    """A secret that a person gives when it is needed, once."""

    answer: Callable[[], bytes] = field(default=bytes, repr=False)
    known: list[bytes] = field(default_factory=list, repr=False, compare=False)

    @classmethod
    def by(cls, answer: Callable[[], bytes]) -> Asked:
        """One that `answer` asks for."""
        return cls("fd", "0", Path(), answer)

    def read(self) -> bytes:
        if not self.known:
            self.known.append(self.answer())
        return self.known[0]


def read_credentials(file: Path | None) -> places.Credentials:
    if file is None:
        return places.Credentials()
    with forms.our_errors():
        return places.read_credentials(file)


class Keyring:
    """The keys of one ceremony, where its credentials say they rest; those it makes otherwise in the output folder, sealed."""

    def __init__(
        self,
        out: Path,
        credentials: places.Credentials,
        sheet: Sheet,
        *,
        answers: Answers,
        clock: Clock,
        custodians: Custodians | None,
    ) -> None:
        self._out = out
        self._sealed = SealedFileKeyStore(out, answers.passphrase)
        self._credentials = credentials
        self._answers = answers
        self._sheet = sheet
        self._opened: dict[int, tuple[KeyStore, KeyName]] = {}
        self._quorums = {
            KeyName(act.id): act.quorum for act in sheet.acts if isinstance(act, RootAct | IntermediateAct) and act.quorum is not None
        }
        self.custody = CeremonyCustody(
            archive=Folder(out), folder=out, sheet=sheet, custodians=custodians, clock=clock, key_files=self._sealed_file
        )
        _check_places(credentials, sheet)

    def check(self, profiles: Mapping[ProfileName, Profile]) -> None:
        """Whether each store can do what the acts want of it, asked before anything is made. PINs are tried here, once.

        Raises:
            Unacceptable: it cannot make such a key (`store-lacks-algorithm`).
            Misconfigured: it is weaker than the profile of what is made there, or of the issuer whose key is there, demands (`store-too-weak`).
            KeyUnavailable: it is not there, refuses its PIN, or gives no key out where an act wants that (`key-not-extractable`).
        """
        for act in self._sheet.acts:
            if makes_key(act):
                algorithm, profile = act.algorithm, profiles.get(act.profile)
                # What is wrong with these themselves is said with the sheet.
                if algorithm is not None and profile is not None and algorithm in ALGORITHMS:
                    check_store(self._store(KeyName(act.id))[0].ability(), algorithm, profile)
            for issuer in _carried(act):
                self._sealed_file(issuer)
        for known in self._sheet.issuers:
            profile = profiles.get(known.profile)
            if profile is not None and known.id in _used(self._sheet):
                check_protection(self._issuer(known.key)[0].ability(), profile)

    def _sealed_file(self, issuer: IssuerId) -> tuple[SealedFileKeyStore, KeyName]:
        """The sealed key of an issuer, of this ceremony or an earlier one.

        Raises:
            KeyUnavailable: it is on a token, which gives none out (`key-not-extractable`).
        """
        name = KeyName(issuer)
        earlier = any(known.id == issuer for known in self._sheet.issuers)
        store, inner = self._issuer(name) if earlier else self._store(name)
        if not isinstance(store, SealedFileKeyStore):
            raise KeyUnavailable(
                "key-not-extractable",
                f"The key of {issuer} rests in {store.ability().about}, which gives no key out.",
                why="Only a sealed file can be sealed anew or backed up.",
                fix="Use what the maker of the token has for backups.",
            )
        return store, inner

    def open(self, name: KeyName) -> SigningKey:
        """A key that this ceremony made."""
        store, inner = self._store(name)
        return store.open(inner)

    def generate(self, name: KeyName, algorithm: AlgorithmName) -> SigningKey:
        """Make a key where the credentials say."""
        store, inner = self._store(name)
        return store.generate(inner, algorithm)

    def names(self) -> Sequence[KeyName]:
        """The keys that are there of those that may be made here."""
        placed = [KeyName(name) for name in self._credentials.made]
        here = [name for name in placed if (found := self._store(name))[1] in found[0].names()]
        return sorted({*here, *(name for name in self._sealed.names() if name not in placed)})

    def known_key(self, name: KeyName) -> SigningKey:
        """The key of an issuer of the sheet."""
        store, inner = self._issuer(name)
        return store.open(inner)

    def role_key(self, who: Participant) -> SigningKey:
        """The key of somebody in the room."""
        place = self._credentials.people.get(who.person)
        if place is None:
            raise KeyUnavailable(
                "no-role-key",
                f"There is no key for {who.person} ({who.role}), who must confirm.",
                why="Without their signature nothing goes on.",
                fix=f'Say in the credentials file where it rests: [people."{who.person}"] with key.',
            )
        store, inner = self._placed(place, f"{who.person} ({who.role})")
        return store.open(inner)

    def destroy(self, name: KeyName) -> Proof:
        """Destroy the key of an issuer of the sheet; the store's word that it is gone, also where it is gone already."""
        store, inner = self._issuer(name)
        if inner not in store.names():
            return (("asked again", f"{store.ability().about} holds no key {inner}"),)
        done = store.destroy(inner)
        return (("store", done.store.about), *done.proof)

    def _store(self, name: KeyName) -> tuple[KeyStore, KeyName]:
        place = self._credentials.made.get(name)
        if place is not None:
            return self._placed(place, f"the key of {name}")
        quorum = self._quorums.get(name)
        if quorum is not None:
            return SealedFileKeyStore(self._out, lambda: self.custody.passphrase(quorum), quorum=True), name
        return self._sealed, name

    def _issuer(self, name: KeyName) -> tuple[KeyStore, KeyName]:
        place = self._credentials.issuers.get(name)
        if place is None:
            raise KeyUnavailable(
                "no-issuer-key",
                f"Nothing says where the key of the issuer {name} rests.",
                fix=f"Say it in the credentials file, --credentials FILE: [issuers.{name}] with key.",
            )
        return self._placed(place, f"the key of {name}")

    def _placed(self, place: places.KeyPlace, what: str) -> tuple[KeyStore, KeyName]:
        # One store for each place: whoever is asked for a PIN is asked once, and a token is given a wrong one once.
        if id(place) not in self._opened:
            self._opened[id(place)] = self._store_of(place, what)
        return self._opened[id(place)]

    def _store_of(self, place: places.KeyPlace, what: str) -> tuple[KeyStore, KeyName]:
        secret = place.passphrase
        if place.quorum is not None and isinstance(place.key, SealedKey):
            with forms.our_errors():
                octets = read_octets(place.quorum, kind="set of shares")
            return SealedFileKeyStore(place.key.file.parent, lambda: self.custody.of_file(octets), quorum=True), KeyName(place.key.name)
        if secret is None and place.key.secret == "needed":
            secret = Asked.by(self._answer(place.key, what))
        return forms.key_store(place.key, secret)

    def _answer(self, key: KeyReference, what: str) -> Callable[[], bytes]:
        ask = self._answers.ask
        if isinstance(key, TokenKey):
            pin = f"{what}, the PIN of token {key.token or key.serial or key.slot}"
            # Never the passphrase of the ceremony: a token counts what it is given.
            return (lambda: _nobody(pin)) if ask is None else lambda: ask(pin)
        return self._answers.passphrase if ask is None else lambda: ask(what)


def _nobody(what: str) -> bytes:
    raise KeyUnavailable(
        "no-answer",
        f"Nobody is at the terminal to say the passphrase of {what}.",
        why="The credentials file does not say where it is.",
        fix="Run it at a terminal, or say passphrase in the credentials file.",
    )


def _carried(act: Act) -> tuple[IssuerId, ...]:
    """The issuers whose sealed keys an act takes out of where they rest."""
    match act:
        case BackupAct():
            return (act.issuer,)
        case SharesAct():
            return act.keys
        case _:
            return ()


def _used(sheet: Sheet) -> set[IssuerId]:
    """Whose keys sign, or are sealed anew or backed up. One that is only destroyed may rest anywhere, and a drill leaves it where it is."""
    signing = {signer_of(act) for act in sheet.acts if not isinstance(act, StatementAct)}
    return signing.union(*(_carried(act) for act in sheet.acts))


def _check_places(credentials: places.Credentials, sheet: Sheet) -> None:
    making = {str(act.id): act for act in sheet.acts if makes_key(act)}
    wanted = (
        ("made", set(credentials.made), set(making), "for which the sheet makes no key"),
        ("issuers", set(credentials.issuers), {str(known.id) for known in sheet.issuers}, "which the sheet does not know"),
        ("people", set(credentials.people), {each.person for each in sheet.participants}, "whom the sheet does not know"),
    )
    for table, given, known, why in wanted:
        strange = sorted(given - known)
        if strange:
            raise Misconfigured(
                "unused-credentials",
                f"The credentials file has {table}.{strange[0]}, {why}.",
                fix=f"Take it out, or correct it: {', '.join(sorted(known)) or 'the sheet has none'}.",
            )
    for act, made in making.items():
        if made.quorum is not None and act in credentials.made:
            raise Misconfigured(
                "two-places",
                f"The sheet puts the key of {act} under the shares {made.quorum}, and the credentials file puts it somewhere else.",
                why="What was reviewed is what runs.",
                fix=f"Take made.{act} out of the credentials file, or quorum out of the act.",
            )
    taken: dict[object, str] = {}
    for table, entries in (("made", credentials.made), ("issuers", credentials.issuers), ("people", credentials.people)):
        for name, place in entries.items():
            where = replace(place.key, text="")
            if where in taken and "made." in (taken[where] + f"{table}."):
                raise Misconfigured(
                    "two-places",
                    f"The credentials file has {taken[where]} and {table}.{name} in one place, {place.key.text}.",
                    why="A key serves one purpose, and one that is made replaces none.",
                    fix="Give each key a name of its own.",
                )
            taken.setdefault(where, f"{table}.{name}")
