"""Custodians at a ceremony: shares are shown and read back, a quorum unlocks, keys are backed up to it and a backup is tried. Edge: effects only.

    make       shown one by one; `ID.quorum.json` is written when every share was read back; a crash before leaves papers that open nothing
    reissue    as make, after a quorum of the old set came; keys are sealed anew into the output folder, the old files stay
    backup     the sealed key file, encrypted to the quorum's public key
    drill      opened in memory; the key signs, the certificate's key verifies; nothing is written

Each goes on where a crash left it: what was written is opened with shares again, not made again.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from ca.ceremony_steps import Performed, Proof
from ca.custody import Custody, Gathering, Given, ShareSheet
from ca.der.algorithms import load_public_key, verify
from ca.der.certificate import read_certificate
from ca.errors import FleetcaError, KeyUnavailable, Misconfigured, Unacceptable
from ca.keys.memory import MemoryKey
from ca.keys.sealed_file import SealedFileKeyStore, unseal
from ca.model import IssuerId, KeyName, Quorum
from ca.ports import Archive, Clock, SharedKey, SigningKey
from ca.rules import quorum as rule
from ca.rules.ceremony import REHEARSAL, BackupAct, CustodyAct, DrillAct, KnownIssuer, SharesAct, Sheet

QUORUM: Final = "quorum.json"


class Custodians(Protocol):
    """The people with the shares, at the terminal."""

    def show(self, sheet: ShareSheet) -> None:
        """Show a share to its custodian alone, and take it from the screen."""
        ...

    def reenter(self, custodian: str, attempt: int) -> str:
        """The custodian reads it back from the paper."""
        ...

    def ask(self, gathering: Gathering) -> str:
        """One custodian gives a share."""
        ...

    def told(self, outcome: Given | FleetcaError) -> None:
        """What became of it."""
        ...


class CeremonyCustody:
    """Custody in one ceremony: each set is unlocked once.

    Args:
        archive: the output folder.
        folder: where it is: sealed keys are written there.
        sheet: the ceremony's.
        custodians: the people; None where nobody is at a terminal.
        clock: for the records.
        key_files: the sealed key of an issuer.
    """

    def __init__(
        self,
        *,
        archive: Archive,
        folder: Path,
        sheet: Sheet,
        custodians: Custodians | None,
        clock: Clock,
        key_files: Callable[[IssuerId], tuple[SealedFileKeyStore, KeyName]],
    ) -> None:
        self._archive = archive
        self._folder = folder
        self._sheet = sheet
        self._custodians = custodians
        self._clock = clock
        self._key_files = key_files
        self._keys: dict[bytes, SharedKey] = {}
        self._came: dict[bytes, tuple[str, ...]] = {}

    # ---- Unlocking ------------------------------------------------------------------------------------------------------

    def passphrase(self, act: IssuerId) -> bytes:
        """What seals keys under the shares that an act of this ceremony made.

        Raises:
            KeyUnavailable: they are not made yet, or nobody is here to give shares (`no-custody`).
        """
        octets = self._archive.read(self._file(act))
        if octets is None:
            raise KeyUnavailable("no-custody", f"The shares {act} are not made yet.", fix="Put the act that makes them first.")
        return self.of_file(octets)

    def of_file(self, octets: bytes) -> bytes:
        """What seals keys under the set that a `quorum.json` describes: custodians are asked for their shares once."""
        return self._unlocked(rule.read(octets)).passphrase()

    def _unlocked(self, quorum: Quorum) -> SharedKey:
        if quorum.check not in self._keys:
            people = self._people()
            self._keys[quorum.check], self._came[quorum.check] = self._verb().unlock(quorum, ask=people.ask, told=people.told)
        return self._keys[quorum.check]

    def _verb(self) -> Custody:
        with _extra():
            from ca.keys.shares import Slip39  # noqa: PLC0415 - its library comes with an extra

        return Custody(sharing=Slip39(), clock=self._clock)

    def _people(self) -> Custodians:
        if self._custodians is None:
            raise KeyUnavailable(
                "no-custody",
                "Custodians must give shares, and nobody is at a terminal.",
                why="Shares are read from paper by people; no file holds one.",
                fix="Run it at a terminal, without --yes.",
            )
        return self._custodians

    def _file(self, act: IssuerId) -> str:
        return f"{REHEARSAL}-{act}.{QUORUM}" if self._sheet.rehearsal else f"{act}.{QUORUM}"

    # ---- Acts -----------------------------------------------------------------------------------------------------------

    def perform(self, act: CustodyAct) -> Performed:
        """Do what an act says, or go on with it."""
        match act:
            case SharesAct():
                return self._shares(act)
            case BackupAct():
                return self._backup(act)
            case DrillAct():
                return self._drill(act)

    def _shares(self, act: SharesAct) -> Performed:
        name = self._file(act.id)
        octets = self._archive.read(name)
        proof: list[tuple[str, str]] = []
        if octets is None:
            octets = rule.write(self._made(act, proof))
            self._archive.put_new(name, octets)
        quorum = rule.read(octets)
        proof += [
            ("set", f"{quorum.shape} of {quorum.name}, identifier {quorum.identifier}"),
            ("read back by", ", ".join(quorum.custodians)),
        ]
        for issuer in act.keys:
            proof.append(self._sealed_anew(issuer, octets))
        return Performed(tuple(proof), {name: hashlib.sha256(octets).hexdigest()})

    def _made(self, act: SharesAct, proof: list[tuple[str, str]]) -> Quorum:
        people, verb = self._people(), self._verb()
        unlike = None
        if act.replaces is not None:
            before = rule.read(act.replaces)
            self._unlocked(before)
            proof.append(("shares of the old set given by", ", ".join(self._came.get(before.check, ()))))
            unlike = before.identifier
        made, key = verb.make(act.id, act.custodians, act.threshold, show=people.show, reenter=people.reenter, unlike=unlike)
        self._keys[made.check], self._came[made.check] = key, made.custodians
        return made

    def _sealed_anew(self, issuer: IssuerId, quorum: bytes) -> tuple[str, str]:
        store, name = self._key_files(issuer)
        into = SealedFileKeyStore(self._folder, lambda: self.of_file(quorum), quorum=True)
        target = KeyName(str(issuer))
        if target not in into.names():
            key = store.open(name)
            _check_key(key, self._known(issuer))
            if name != target:
                raise Misconfigured(
                    "bad-key-name",
                    f"The key of {issuer} rests under another name, {name}.",
                    why="It is sealed anew under the name of its issuer.",
                    fix=f"Rename its file to {issuer}.key.",
                )
            store.reseal(name, into)
        _check_key(into.open(target), self._known(issuer))
        return (f"key of {issuer}", f"sealed anew in {target}.key; the old file stays until it is destroyed")

    def _backup(self, act: BackupAct) -> Performed:
        name = f"{act.id}.backup"
        octets = self._archive.read(self._file(act.quorum)) if isinstance(act.quorum, str) else act.quorum
        if octets is None:
            raise KeyUnavailable("no-custody", f"The shares {act.quorum!r} are not made yet.", fix="Put the act that makes them first.")
        quorum = rule.read(octets)
        written = self._archive.read(name)
        if written is None:
            store, key = self._key_files(act.issuer)
            sealed = store.path(key).read_bytes()
            out = io.BytesIO()
            with _extra():
                from ca.keys.quorum_backup import Sealing  # noqa: PLC0415

            stream = Sealing(out, quorum, of=f"key of {act.issuer}", now=self._clock.now())
            stream.write(sealed)
            stream.close()
            written = out.getvalue()
            self._archive.put_new(name, written)
        proof = (("opened by", f"{quorum.shape} of {quorum.name}"), ("octets", str(len(written))))
        return Performed(proof, {name: hashlib.sha256(written).hexdigest()})

    def _drill(self, act: DrillAct) -> Performed:
        quorum = rule.read(act.quorum)
        key = self._unlocked(quorum)
        from ca.keys.quorum_backup import opened  # noqa: PLC0415 - as above
        from ca.keys.shares import SharedKey as Slip39Key  # noqa: PLC0415

        assert isinstance(key, Slip39Key), "the only kind of shares that there is"
        sealed = b"".join(opened(io.BytesIO(act.backup), key))
        restored = MemoryKey(KeyName(act.issuer), unseal(sealed, key.passphrase(), what="The key in the backup"))
        known = self._known(act.issuer)
        _check_key(restored, known)
        message = b"fleetca restore drill v1\0" + hashlib.sha256(act.backup).digest()
        verify(load_public_key(read_certificate(known.certificate).spki), restored.sign(message), message)
        proof: Proof = (
            ("shares given by", ", ".join(self._came[quorum.check])),
            ("restored", f"{restored.algorithm}, SHA-256 of its SubjectPublicKeyInfo {hashlib.sha256(restored.spki).hexdigest()}"),
            ("signed and verified", hashlib.sha256(message).hexdigest()),
            ("kept", "nothing"),
        )
        return Performed(proof, {})

    def _known(self, issuer: IssuerId) -> KnownIssuer:
        found = next((known for known in self._sheet.issuers if known.id == issuer), None)
        if found is None:
            raise Misconfigured(
                "unknown-issuer", f"{issuer} is no issuer of an earlier ceremony.", fix="Name its certificate under [[issuers]]."
            )
        return found


def _check_key(key: SigningKey, known: KnownIssuer) -> None:
    if key.spki != read_certificate(known.certificate).spki:
        raise Unacceptable(
            "wrong-key",
            f"This is not the key in the certificate of {known.id}.",
            why="The SHA-256 of its public half is another.",
            fix="Bring the file or backup of the right key.",
        )


@contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise Misconfigured(
            "extra-missing",
            "Shares need the library shamir-mnemonic.",
            why=f"It comes with the extra ceremony, which is not installed: {error}.",
            fix='pip install "fleetca[ceremony]"',
        ) from None


class Rehearsing:
    """Custodians of a rehearsal that nobody attends: they copy what they see, and read it back."""

    def __init__(self) -> None:
        self._papers: dict[tuple[str, str], str] = {}

    def show(self, sheet: ShareSheet) -> None:
        """Copy it."""
        self._papers[sheet.quorum, sheet.custodian] = sheet.words

    def reenter(self, custodian: str, attempt: int) -> str:
        """Read it back."""
        return next(words for (_, name), words in reversed(self._papers.items()) if name == custodian)

    def ask(self, gathering: Gathering) -> str:
        """Give the next share of the set."""
        waiting = [name for name in gathering.quorum.custodians if name not in gathering.custodians]
        return self._papers[gathering.quorum.name, waiting[0]]

    def told(self, outcome: Given | FleetcaError) -> None:
        """Nothing to do."""


def rehearsed(act: CustodyAct, custody: CeremonyCustody) -> Performed:
    """In a rehearsal shares are made for real, with people or without; there is no key that could be backed up or restored."""
    if isinstance(act, SharesAct):
        plain = SharesAct(act.id, act.custodians, act.threshold, None, (), act.confirm)
        return custody.perform(plain)
    files: Mapping[str, str] = {}
    return Performed((("rehearsed", "with a throw-away key there is nothing to keep"),), files)
