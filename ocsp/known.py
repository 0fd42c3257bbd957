"""All finished answers that a worker can give: its working set, and behind it the spool. Ring 4.

What the spool holds is believed as far as its change number goes (P5):
- a certificate that changed after the answer's status was read: there is no such answer;
- nothing changed since: as good as our own;
- nobody knows (the database was never heard, or the answer is older than the changes that we know): it is not fresh. The database is asked, and
  only where that is gone the answer goes on (P7).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ca.der import reader
from ca.der.algorithms import algorithm_of, load_public_key
from ca.der.certificate import read_certificate
from ca.errors import FleetcaError
from ca.model import CertificateRef, ChangeNumber, Issuer, IssuerId, Revocation, Serial, UnixTime
from ocsp.model import CertificateId, Finished, Packed, Policy, Responder
from ocsp.ports import Clock, Spool
from ocsp.rules import packed
from ocsp.rules import responder as delegates
from ocsp.rules.issuers import possible, prefixes, under
from ocsp.working import WorkingSet


class Known(Mapping[bytes, Finished]):
    """CertID octets -> answer. Looking one up in the spool brings it into the working set.

    Args:
        spool: None where there is none.
        by_prefix: CertID prefix -> issuers.
    """

    def __init__(
        self,
        working: WorkingSet,
        spool: Spool | None,
        *,
        issuers: Iterable[Issuer],
        by_prefix: Mapping[bytes, tuple[IssuerId, ...]],
        policy: Policy,
        clock: Clock,
    ) -> None:
        self._working, self._spool, self._policy, self._clock = working, spool, policy, clock
        self._issuers = {issuer.id: issuer for issuer in issuers}
        self._by_prefix = by_prefix
        self._forms = {
            (issuer.id, prefix): form
            for issuer in self._issuers.values()
            for form, (_, prefix) in enumerate(prefixes(issuer.subject, issuer.spki))
        }
        self._lengths = sorted({len(prefix) for prefix in by_prefix})
        self._responders: dict[tuple[IssuerId, bytes], Responder] = {}
        self._floor: ChangeNumber | None = None
        self._changed: dict[CertificateRef, ChangeNumber] = {}

    # ---- What changed -----------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Take in a spool that was replaced."""
        if self._spool is not None:
            self._spool.look()

    def judge_from(self, latest: ChangeNumber, changes: Iterable[Revocation]) -> None:
        """Begin to judge the spool: these are the last changes, without a gap up to `latest`; of earlier ones nothing is known."""
        changed = {change.ref: change.change for change in changes}
        self._floor, self._changed = min(changed.values(), default=latest + 1) - 1, changed

    def changed(self, changes: Iterable[Revocation]) -> None:
        """Go on to judge it: these came next."""
        self._changed |= {change.ref: change.change for change in changes}

    def spooled(self) -> tuple[int, UnixTime | None]:
        """How many answers the spool holds, and when it was last gone through."""
        return (0, None) if self._spool is None else (self._spool.filled(), self._spool.walked())

    # ---- Looking up -------------------------------------------------------------------------------------------------

    def get(self, key: bytes, default: Any = None) -> Any:
        """The answer for a CertID, or the default."""
        finished = self._working.finished.get(key)
        if finished is not None or self._spool is None:
            return default if finished is None else finished
        return self._from_spool(key, self._spool) or default

    def __getitem__(self, key: bytes) -> Finished:
        found: Finished | None = self.get(key)
        if found is None:
            raise KeyError(key)
        return found

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._working.finished)

    def __len__(self) -> int:
        return len(self._working.finished)

    def _from_spool(self, octets: bytes, spool: Spool) -> Finished | None:
        asked = self._read(octets)
        if asked is None or not possible(asked.serial):
            return None
        change, _ = self._working.heard()
        now = self._clock.now()
        for issuer in self._by_prefix[asked.prefix]:
            one = spool.get(issuer, Serial(asked.serial), self._forms[issuer, asked.prefix])
            if one is None or now >= one.window.next_update:
                continue
            if under(self._policy, issuer, one.status) != one.status:
                continue  # signed before its issuer was known to be compromised
            changed_at = self._changed.get(CertificateRef(issuer, one.serial), 0)
            responder = self._responder(issuer, one, spool, now)
            if responder is None or changed_at > one.as_of:
                continue
            finished = packed.finish(one, responder, asked, self._policy)
            if self._floor is None or one.as_of < self._floor:
                finished = replace(finished, window=finished.window._replace(refresh_at=finished.produced_at))
            self._working.keep(octets, finished, as_of=change)
            return finished
        return None

    def _read(self, octets: bytes) -> CertificateId | None:
        for length in self._lengths:
            prefix = octets[2 : 2 + length] if octets[1] < 0x80 else octets[3 : 3 + length]
            if prefix in self._by_prefix:
                try:
                    serial = reader.integer(octets, reader.expect(octets, len(prefix) + (2 if octets[1] < 0x80 else 3), len(octets), 0x02))
                except FleetcaError:
                    return None
                return CertificateId(octets, prefix, serial)
        return None

    def _responder(self, issuer: IssuerId, one: Packed, spool: Spool, now: UnixTime) -> Responder | None:
        key = (issuer, one.key_hash)
        held = self._responders.get(key)
        if held is None or held.not_after < one.window.next_update:  # a key that is kept may have got another certificate meanwhile
            certificate = spool.certificate(issuer, one.key_hash)
            if certificate is None:
                return None
            try:
                spki = read_certificate(certificate).spki
                self._responders[key] = delegates.responder(
                    self._issuers[issuer], certificate, spki=spki, algorithm=algorithm_of(load_public_key(spki)).name, now=now
                )
            except FleetcaError:
                return None
        found = self._responders[key]
        return found if found.key_hash == one.key_hash else None
