"""Grave acts that wait for a second person, and profiles and demands as two approved them, as they stand in the database. Statements only; what they mean is for `ca.rules.two_persons`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
import sqlalchemy as sa

from ca.model import Demand, Digest, GraveAct, Profile, ProfileName, Proposal, TenantId, UnixTime
from ca.rules import forms
from ca.rules.demand import read_demand, subject_of
from ca.rules.ids import subject_digest
from ca.store import tables as t
from ca.store.reads import Reads, insert, param, values_of
from ca.store.rows import Row
from ca.store.writes import Writes

_p = t.proposals.c
_PAGE = 500

FIND = sa.select(_p.body).where(_p.request == param("request"))
BETWEEN = sa.select(_p.body).where(_p.request >= param("low"), _p.request <= param("high")).order_by(_p.request).limit(2)
OF_SUBJECT = sa.select(_p.body).where(_p.subject_sha256 == param("subject")).order_by(_p.expires, _p.request)
LISTED = (
    sa.select(_p.body)
    .where(_p.tenant == param("tenant"), sa.tuple_(_p.expires, _p.request) > sa.tuple_(param("expires"), param("request")))
    .order_by(_p.tenant, _p.expires, _p.request)
    .limit(param("limit"))
)
EVERY = sa.select(_p.body).where(_p.request > param("request")).order_by(_p.request).limit(param("limit"))
_new = insert(t.proposals).values(values_of(t.proposals))
PUT = _new.on_conflict_do_update(index_elements=["request"], set_={"state": _new.excluded.state, "body": _new.excluded.body})

_w = t.profiles.c
ACCEPTED = sa.select(_w.body).order_by(_w.name)
_accepted = insert(t.profiles).values(values_of(t.profiles))
ACCEPT = _accepted.on_conflict_do_update(index_elements=["name"], set_={"body": _accepted.excluded.body})

_TWO_PERSONS = "two-persons"
DEMAND = sa.select(t.demands.c.body).where(t.demands.c.name == _TWO_PERSONS)
_demanded = insert(t.demands).values(values_of(t.demands))
DEMANDED = _demanded.on_conflict_do_update(index_elements=["name"], set_={"body": _demanded.excluded.body})


def proposal_of(row: Row) -> Proposal:
    return forms.read(Proposal, orjson.loads(row[0]))


class ProposalReads(Reads):
    def find_proposal(self, request: Digest) -> Proposal | None:
        row = self._first(FIND, {"request": request})
        return None if row is None else proposal_of(row)

    def find_proposal_by_beginning(self, beginning: str) -> Proposal | None:
        """The one whose hash begins with these hexadecimal digits; None also where there are several."""
        low, high = (bytes.fromhex(beginning.ljust(64, digit)) for digit in "0f")
        found = self._all(BETWEEN, {"low": low, "high": high})
        return proposal_of(found[0]) if len(found) == 1 else None

    def proposals_of(self, act: GraveAct, subject: str) -> Sequence[Proposal]:
        """All that were ever made for exactly this, what ends first first."""
        return [proposal_of(row) for row in self._all(OF_SUBJECT, {"subject": subject_digest(act, subject)})]

    def proposals(self, *, tenant: TenantId, after: tuple[UnixTime, Digest] | None = None, limit: int = 100) -> Sequence[Proposal]:
        """A tenant's, what ends first first, from behind `after`; those that are over too."""
        expires, request = after or (0, Digest(b""))
        values = {"tenant": tenant, "expires": expires, "request": request, "limit": limit}
        return [proposal_of(row) for row in self._all(LISTED, values)]

    def accepted_profiles(self) -> Mapping[ProfileName, Profile]:
        """The version of each profile that is in force, where two persons approve them."""
        found = (forms.read(Profile, orjson.loads(row[0])) for row in self._all(ACCEPTED, {}))
        return {profile.name: profile for profile in found}

    def accepted_demand(self) -> Demand | None:
        """What two persons are demanded for; None before the signer first started."""
        row = self._first(DEMAND, {})
        return None if row is None else read_demand(row[0])

    def every_proposal(self) -> Iterator[Proposal]:
        after = b""
        while page := [proposal_of(row) for row in self._all(EVERY, {"request": after, "limit": _PAGE})]:
            yield from page
            after = page[-1].request


class ProposalWrites(Writes, ProposalReads):
    def put_proposal(self, proposal: Proposal) -> None:
        """The proposal as it is from now on."""
        self._change(PUT, _parameters(proposal))

    def accept_profile(self, profile: Profile) -> None:
        """This version is in force from now on."""
        self._change(ACCEPT, {"name": profile.name, "body": orjson.dumps(forms.write(profile), option=orjson.OPT_SORT_KEYS).decode()})

    def accept_demand(self, demand: Demand) -> None:
        """This is demanded from now on."""
        self._change(DEMANDED, {"name": _TWO_PERSONS, "body": subject_of(demand)})


def _parameters(proposal: Proposal) -> dict[str, Any]:
    return {
        "request": proposal.request,
        "tenant": proposal.tenant,
        "act": proposal.act.value,
        "subject_sha256": subject_digest(proposal.act, proposal.subject),
        "expires": proposal.expires,
        "state": proposal.state.value,
        "body": orjson.dumps(forms.write(proposal), option=orjson.OPT_SORT_KEYS).decode(),
    }
