"""The twin of a ceremony for its rehearsal: the same acts, with stand-ins for every CA and person, marked so that nobody takes it for real.

The run that follows is `ca.ceremony.Ceremony` itself. A stand-in of a known CA has its name (with the mark), its dates and its kind of key,
and what it signed before (CRLs, the certificate of a CA that is re-keyed) is signed anew by the stand-in. Every key forgets itself with the
process. Ring 4: knows rules and ports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from ca.ceremony_steps import MadeKeys
from ca.der.certificate import assemble, read_certificate
from ca.der.crl import tbs_crl
from ca.model import AlgorithmName, Digest, Issuer, IssuerId, KeyName, Profile, ProfileName, Serial
from ca.ports import Chance, SigningKey
from ca.rules.ceremony import Act, KnownIssuer, Participant, RekeyAct, RootCrlAct, Sheet
from ca.rules.ceremony_crls import read_previous
from ca.rules.ceremony_dates import crl_period
from ca.rules.ceremony_drafts import known_issuer, marked
from ca.rules.certificate import draft_ca
from ca.rules.serial import make_serial

_ROOT: Final = ProfileName("root")
_PERSON: Final = AlgorithmName("p256")
_UNBOUNDED: Final = 200 * 366 * 86400


@dataclass(frozen=True, slots=True)
class Twin:
    """A rehearsal: what runs, and the keys of its stand-ins."""

    sheet: Sheet
    issuers: Mapping[KeyName, SigningKey]
    people: Mapping[Participant, SigningKey]


def twin_of(sheet: Sheet, *, profiles: Mapping[ProfileName, Profile], keys: MadeKeys, chance: Chance) -> Twin:
    """Put stand-ins in the places of everything that is real.

    Raises:
        Unacceptable: a CRL that the sheet names as previous is not its root's (`previous-crl`).
        Malformed: a certificate it names cannot be read.
    """
    made: dict[KeyName, SigningKey] = {}
    known: list[KnownIssuer] = []
    real: dict[IssuerId, Issuer] = {}
    stand_ins: dict[IssuerId, Issuer] = {}
    for each in sheet.issuers:
        real[each.id] = known_issuer(each)
        key = made[each.key] = keys.generate(KeyName(f"issuer-{each.id}"), real[each.id].algorithm)
        known.append(replace(each, certificate=_certificate(real[each.id].subject, real[each.id], key, profiles, chance)))
        stand_ins[each.id] = known_issuer(known[-1])
    people = _people(sheet, keys)
    acts = tuple(_act(act, real, stand_ins, keys=made, profiles=profiles, chance=chance) for act in sheet.acts)
    return Twin(replace(sheet, issuers=tuple(known), acts=acts, participants=tuple(people), rehearsal=True), made, people)


def _people(sheet: Sheet, keys: MadeKeys) -> dict[Participant, SigningKey]:
    """Who has two roles has one key, here too."""
    by_person: dict[str, SigningKey] = {}
    for number, each in enumerate(sheet.participants):
        if each.person not in by_person:
            by_person[each.person] = keys.generate(KeyName(f"person-{number}"), _PERSON)
    return {
        replace(each, key_sha256=Digest(sha256(by_person[each.person].spki).digest())): by_person[each.person]
        for each in sheet.participants
    }


def _certificate(subject: bytes, dates: Issuer, key: SigningKey, profiles: Mapping[ProfileName, Profile], chance: Chance) -> bytes:
    seed = chance.octets(17 + 32)
    draft = draft_ca(
        profile=replace(profiles[_ROOT], max_lifetime=_UNBOUNDED),
        issuer=None,
        subject=marked(subject),
        spki=key.spki,
        serial=Serial(make_serial(seed[:17], seed[17:])),
        not_before=dates.not_before,
        not_after=dates.not_after,
    )
    return assemble(draft.tbs, draft.algorithm, key.sign(draft.tbs))


def _act(
    act: Act,
    real: Mapping[IssuerId, Issuer],
    stand_ins: Mapping[IssuerId, Issuer],
    *,
    keys: Mapping[KeyName, SigningKey],
    profiles: Mapping[ProfileName, Profile],
    chance: Chance,
) -> Act:
    if isinstance(act, RootCrlAct) and act.previous is not None and act.issuer in stand_ins:
        issuer, before, when = stand_ins[act.issuer], read_previous(act, real[act.issuer]), crl_period(act)
        entries = [before.entries[serial] for serial in sorted(before.entries)]
        tbs = tbs_crl(issuer, number=before.number, this_update=when.start, next_update=when.end, entries=entries)
        return replace(act, previous=assemble(tbs, issuer.algorithm, _key(issuer, keys).sign(tbs)))
    if isinstance(act, RekeyAct) and act.issuer in stand_ins:
        issuer, facts = stand_ins[act.issuer], read_certificate(act.predecessor)
        seed = chance.octets(17 + 32)
        draft = draft_ca(
            profile=replace(profiles[act.profile], max_lifetime=_UNBOUNDED),
            issuer=issuer,
            subject=facts.subject,
            spki=facts.spki,
            serial=Serial(make_serial(seed[:17], seed[17:])),
            not_before=facts.not_before,
            not_after=min(facts.not_after, issuer.not_after),
            crl_url=act.crl_url,
            issuer_url=act.issuer_url,
        )
        return replace(act, predecessor=assemble(draft.tbs, draft.algorithm, _key(issuer, keys).sign(draft.tbs)))
    return act


def _key(issuer: Issuer, keys: Mapping[KeyName, SigningKey]) -> SigningKey:
    assert issuer.key is not None, "stand-ins have keys"
    return keys[issuer.key]
