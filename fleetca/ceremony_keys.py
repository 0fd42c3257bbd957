"""The keys of one ceremony: where its credentials say they rest, under a passphrase, on a token or shared by custodians. Edge: no rule.

With `fleetca.ceremonies` the only module that opens root keys (P3, P4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ca.ceremony_steps import Proof
from ca.der.algorithms import ALGORITHMS
from ca.errors import KeyUnavailable, Misconfigured
from ca.keys.sealed_file import SealedFileKeyStore
from ca.model import AlgorithmName, IssuerId, KeyName, Profile, ProfileName
from ca.ports import Clock, KeyStore, SigningKey
from ca.rules.ceremony import IntermediateAct, Participant, RootAct, Sheet
from ca.rules.key_policy import check_store
from config import credentials as places
from config.key_uris import SealedKey
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
class _Asked(Secret):
    """A secret that a person gives when it is needed."""

    answer: Callable[[], bytes] = field(default=bytes, repr=False)

    def read(self) -> bytes:
        return self.answer()


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
        self._quorums = {
            KeyName(act.id): act.quorum for act in sheet.acts if isinstance(act, RootAct | IntermediateAct) and act.quorum is not None
        }
        self.custody = CeremonyCustody(
            archive=Folder(out), folder=out, sheet=sheet, custodians=custodians, clock=clock, key_files=self._sealed_file
        )
        _check_names(credentials, sheet)

    def check(self, profiles: Mapping[ProfileName, Profile]) -> None:
        """Whether each store can make, and may keep, the key that an act makes there.

        Raises:
            Unacceptable: it cannot (`store-lacks-algorithm`).
            Misconfigured: it is weaker than the profile demands (`store-too-weak`).
        """
        for act in self._sheet.acts:
            if not isinstance(act, RootAct | IntermediateAct) or (isinstance(act, IntermediateAct) and act.csr is not None):
                continue
            algorithm, profile = act.algorithm, profiles.get(act.profile)
            if algorithm is None or profile is None or algorithm not in ALGORITHMS:
                continue  # what is wrong with these themselves is said with the sheet
            check_store(self._store(KeyName(act.id))[0].ability(), algorithm, profile)

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
        secret = place.passphrase
        if place.quorum is not None and isinstance(place.key, SealedKey):
            with forms.our_errors():
                octets = read_octets(place.quorum, kind="set of shares")
            return SealedFileKeyStore(place.key.file.parent, lambda: self.custody.of_file(octets), quorum=True), KeyName(place.key.name)
        if secret is None and place.key.secret == "needed":
            ask = self._answers.ask
            answer = self._answers.passphrase if ask is None else lambda: ask(what)
            secret = _Asked("fd", "0", Path(), answer)
        return forms.key_store(place.key, secret)


def _check_names(credentials: places.Credentials, sheet: Sheet) -> None:
    wanted = (
        ("made", set(credentials.made), {act.id for act in sheet.acts}),
        ("issuers", set(credentials.issuers), {known.id for known in sheet.issuers}),
        ("people", set(credentials.people), {each.person for each in sheet.participants}),
    )
    for table, given, known in wanted:
        strange = sorted(given - {str(each) for each in known})
        if strange:
            raise Misconfigured(
                "unused-credentials",
                f"The credentials file has {table}.{strange[0]}, which the sheet does not know.",
                fix=f"Take it out, or correct it: {', '.join(sorted(map(str, known))) or 'the sheet has none'}.",
            )
