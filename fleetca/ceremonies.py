"""Ceremonies as people start them: a sheet's file becomes the model's sheet, a folder becomes the archive. Edge: no rule of its own.

The only module that opens root keys (P3, P4): nothing that serves imports it.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final

from ca.ceremony import Ceremony, Outcome, Step
from ca.der import pem
from ca.errors import KeyUnavailable, Malformed, Misconfigured
from ca.keys.memory import MemoryKeyStore
from ca.keys.sealed_file import SealedFileKeyStore
from ca.model import AlgorithmName, CrlEntry, Digest, IssuerId, KeyName, ProfileName
from ca.ports import Chance, Clock, SigningKey
from ca.rules import ids, transcript
from ca.rules.ceremony import Act, IntermediateAct, KnownIssuer, RootAct, RootCrlAct, Sheet
from ca.rules.ceremony_check import Verified, check
from config import sheet as written
from config.strict import read_octets
from fleetca import forms
from fleetca.folder import Folder

SHORTEST_PASSPHRASE: Final = 12
"""Octets; scrypt makes each guess dear, the passphrase makes the guesses many."""


def run(
    sheet: Path,
    *,
    out: Path,
    passphrase: Callable[[], bytes],
    confirm: Callable[[Step], bool],
    clock: Clock,
    chance: Chance,
) -> Outcome:
    """Run a sheet's acts, or go on with a run that was stopped.

    Args:
        sheet: the sheet's file.
        out: the output folder; keys that are made lie there too, sealed.
        passphrase: seals the keys that are made, and unlocks the roots that the sheet names.
        confirm: shows each step and returns what was decided.
        clock: the wall clock.
        chance: the random generator.

    Raises:
        Misconfigured: the sheet is wrong.
        KeyUnavailable: the passphrase is too short (`short-passphrase`) or wrong, or a key cannot be had.
        Conflict, Denied, Broken: as `ca.ceremony.Ceremony.run` says.
    """
    form, accepted = read(sheet)
    secret = _long_enough(passphrase)
    paths = {KeyName(known.key.stem): known.key for known in form.issuers}

    def known_key(name: KeyName) -> SigningKey:
        return SealedFileKeyStore(paths[name].parent, secret).open(name)

    verb = Ceremony(
        archive=Folder(out),
        keys=SealedFileKeyStore(out, secret),
        known_key=known_key,
        trial_keys=MemoryKeyStore,
        profiles=forms.shipped_profiles(),
        confirm=confirm,
        clock=clock,
        chance=chance,
        software=f"fleetca {version('fleetca')}",
    )
    return verb.run(accepted)


def _long_enough(passphrase: Callable[[], bytes]) -> Callable[[], bytes]:
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


def read(file: Path) -> tuple[written.Sheet, Sheet]:
    """A sheet as written, and as `ca.rules.ceremony` judges it, with the files it names read.

    Raises:
        Misconfigured: it, or a file it names, is absent or wrong.
    """
    with forms.our_errors():
        form = written.read_sheet(file)
        issuers = tuple(
            KnownIssuer(
                IssuerId(known.id),
                forms.certificate_file(known.certificate, key=f"issuers.{known.id}.certificate"),
                KeyName(known.key.stem),
            )
            for known in form.issuers
        )
        acts = tuple(_act(form, act) for act in form.acts)
    return form, Sheet(form.ceremony.name, form.ceremony.about, Digest(form.digest), form.octets, issuers, acts)


def _act(form: written.Sheet, act: written.RootAct | written.IntermediateAct | written.RootCrlAct) -> Act:
    if isinstance(act, written.RootAct):
        return RootAct(
            IssuerId(act.id), ProfileName(act.profile), AlgorithmName(act.algorithm), _subject(act.subject), act.not_before, act.not_after
        )
    if isinstance(act, written.IntermediateAct):
        return IntermediateAct(
            id=IssuerId(act.id),
            issuer=IssuerId(act.issuer),
            profile=ProfileName(act.profile),
            csr=None if act.csr is None else _der(act.csr, pem.REQUEST, f"{form.file}: the CSR of act {act.id}"),
            algorithm=None if act.algorithm is None else AlgorithmName(act.algorithm),
            subject=_subject(act.subject),
            not_before=act.not_before,
            not_after=act.not_after,
            crl_url=act.crl_url,
            issuer_url=act.issuer_url,
        )
    return RootCrlAct(
        id=IssuerId(act.id),
        issuer=IssuerId(act.issuer),
        previous=None if act.previous is None else _der(act.previous, pem.CRL, f"{form.file}: the previous CRL of act {act.id}"),
        first=act.first,
        this_update=act.this_update,
        next_update=act.next_update,
        revoked=tuple(_revoked(form, act, entry) for entry in act.revoked),
    )


def _subject(subject: written.Subject) -> Mapping[str, str]:
    return {word: text for word, text in subject.model_dump().items() if text is not None}


def _revoked(form: written.Sheet, act: written.RootCrlAct, entry: written.Revoked) -> CrlEntry:
    try:
        reason = ids.reason_named(entry.reason)
        serial = ids.serial_from_hex(entry.serial)
    except Malformed as error:
        raise Misconfigured(error.code, f"{form.file}: act {act.id}, revoked: {error.what}", why=error.why) from None
    return CrlEntry(serial, calendar.timegm(entry.revoked_at.utctimetuple()), reason)


def request_file(path: Path) -> bytes:
    """The DER of a CSR file.

    Raises:
        Misconfigured: it is absent or no CSR.
    """
    return _der(path, pem.REQUEST, "The CSR")


def _der(path: Path, label: str, what: str) -> bytes:
    with forms.our_errors():
        octets = read_octets(path, kind=label.lower())
    try:
        return pem.der_of(octets, label)
    except Malformed as error:
        raise Misconfigured("bad-file", f"{what}, {path}, cannot be used.", why=error.what) from None


# ---- Checking -----------------------------------------------------------------------------------------------------------


def verify(folder: Path, *, roots: Mapping[str, bytes] | None = None) -> Verified:
    """Check a finished ceremony's folder: files only, no settings, no keys.

    Raises:
        Unacceptable: the first thing that does not hold.
        Misconfigured: there is no transcript.
    """
    archive = Folder(folder)
    said = archive.read(transcript.FILE)
    if said is None:
        raise Misconfigured(
            "no-transcript",
            f"There is no {transcript.FILE} in {folder}.",
            fix="Give the folder that fleetca ceremony run --out wrote.",
        )
    files = {name: archive.read(name) or b"" for name in archive.names() if not name.endswith(".key")}
    return check(said, files, roots=roots)
