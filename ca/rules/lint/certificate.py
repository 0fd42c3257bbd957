"""Every rule, on the final to-be-signed octets of each certificate, before a key sees them (P2, P11). Ring 1: pure.

Shares no code with the writer: a second reader takes the octets apart, and the rules' own tables say what belongs there. The rules about
extensions that are the same on every certificate of a profile under an issuer run once for the same octets, and their verdict is kept;
all others run each time. A rule is a function that returns what is wrong; adding one is adding it to the table of its file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ca.errors import Broken, Malformed
from ca.model import Draft, Issuer, Profile
from ca.rules.lint import facts, fields, identity, status, usages

EACH: Final = (*fields.RULES, *identity.RULES, *status.EACH)
CONSTANT: Final = (*usages.RULES, *status.RULES)

_KEPT: Final = 4096
"""Shards of CRLs make as many distribution points."""


@dataclass(frozen=True, slots=True)
class _Verdicts:
    """Extension octets that passed every constant rule for this very profile and issuer."""

    profile: Profile
    issuer: Issuer | None
    passed: set[tuple[bytes, ...]] = field(default_factory=set)


_verdicts: dict[tuple[str, str], _Verdicts] = {}


def lint(draft: Draft, profile: Profile, issuer: Issuer | None) -> None:
    """Judge the octets that are about to be signed. `issuer` is None for a self-signed certificate.

    Raises:
        Broken: a rule does not hold (`lint`); the text names the rule and the section it comes from. Nothing may be signed.
    """
    case = facts.Case(draft, profile, issuer)
    name, section = "der", "RFC 5280 4.1"
    try:
        found = facts.read(draft.tbs)
        for name, section, rule in EACH:
            wrong = rule(found, case)
            if wrong is not None:
                raise _broken(name, section, wrong)
        verdicts = _verdicts_for(profile, issuer)
        if found.constant in verdicts.passed:
            return
        name, section = "der", "RFC 5280 4.2"
        shape = facts.Shape(tuple(facts.extension_of(octets) for octets in found.constant), profile, issuer)
        for name, section, constant_rule in CONSTANT:
            wrong = constant_rule(shape)
            if wrong is not None:
                raise _broken(name, section, wrong)
    except Malformed as error:
        raise _broken(name, section, error.what) from None
    if len(verdicts.passed) >= _KEPT:
        verdicts.passed.clear()
    verdicts.passed.add(found.constant)


def _broken(name: str, section: str, wrong: str) -> Broken:
    return Broken(
        "lint",
        f"The draft of a certificate breaks the rule {name} ({section}): {wrong}.",
        why="Nothing was signed.",
        fix="Report this: a profile that was accepted should never lead here.",
    )


def _verdicts_for(profile: Profile, issuer: Issuer | None) -> _Verdicts:
    place = profile.name, "" if issuer is None else issuer.id
    kept = _verdicts.get(place)
    if kept is not None and (kept.profile is profile or kept.profile == profile) and (kept.issuer is issuer or kept.issuer == issuer):
        return kept
    if len(_verdicts) >= _KEPT:
        _verdicts.clear()
    made = _verdicts[place] = _Verdicts(profile, issuer)
    return made
