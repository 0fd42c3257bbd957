"""Recording a ceremony whose outputs came into a deployment that is running. Asked for by role operator on the signer's socket only.

Believes nobody: transcript, seal and every output are verified here again, from their octets, with the certificates that this deployment knows.
Opens no key and needs none (P4); a new issuer's is opened when the signer starts with its certificate in place. Knows rules and ports.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from contextlib import suppress
from typing import Final

from ca.der.certificate import read_certificate
from ca.errors import Conflict, Denied, Unacceptable, Unavailable
from ca.lineage import Issuers
from ca.model import DEFAULT_TENANT, GraveAct, Issuer, Peer, Role
from ca.ports import Clock, Ledger, Writing
from ca.rules import leaf, testimony, transcript
from ca.rules import two_persons as rule
from ca.rules.ceremony import REHEARSAL_UNIT
from ca.rules.ceremony_check import Verified, check
from ca.rules.certificate import issuer_from_certificate
from ca.rules.clock import trusted
from ca.rules.issuers import signed_by
from ca.two_persons import TwoPersons
from ca.witness import Witness

ISSUERS: Final = frozenset(("root", "intermediate", "rekey"))
"""Kinds of outputs that are issuers of a deployment."""


class RecordingCeremonies:
    def __init__(self, *, ledger: Ledger, issuers: Issuers, clock: Clock, two_persons: TwoPersons, witness: Witness) -> None:
        self._ledger, self._issuers, self._clock = ledger, issuers, clock
        self._two_persons, self._witness = two_persons, witness

    def record(self, files: Mapping[str, bytes], peer: Peer) -> str:
        """Write down that the outputs of a ceremony are here; its name. The same one again is harmless.

        Args:
            files: the transcript, the sheet and every output, by name.

        Raises:
            Denied: who asks is no operator of this machine, or two persons must approve a new CA (`two-persons-needed`).
            Unacceptable: it does not hold (see `ca.rules.ceremony_check`), or was a rehearsal.
            Conflict: it made another certificate for an issuer that is at work here (`issuer-changed`), or an issuer that nothing connects
                with those (`issuer-not-here`).
        """
        if peer.role is not Role.operator:
            raise Denied("not-allowed", f"Role {peer.role.value} brings no ceremony.")
        known: dict[str, bytes] = {name: issuer.certificate for name, issuer in self._issuers.by_id.items()}
        verified = check(files.get(transcript.FILE, b""), files, roots=known)
        refuse_rehearsal(verified)
        for output in verified.outputs:
            if output.kind in ISSUERS and known.get(output.act, output.der) != output.der:
                raise Conflict(
                    "issuer-changed",
                    f"The ceremony made another certificate of {output.act} than the one at work here.",
                    why="An issuer keeps its certificate for life: what it signed is looked up by it.",
                    fix="Give the new issuer another id in the sheet and in the settings.",
                )
        _check_connected(verified, list(self._issuers.by_id.values()))
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            said: tuple[testimony.Record, ...] = ()
            if not remember(tx, verified, now=now) and new_issuers(verified, known):
                said = approved(tx, self._two_persons, verified, actor=f"role:{peer.role.value}@{peer.uid}", now=now)
        self._witness.later(said)
        with suppress(Unavailable):
            # Committed already.
            self._witness.settle()
        return verified.name


def new_issuers(verified: Verified, known: Container[str]) -> bool:
    """Did the ceremony make a CA certificate that is new here?"""
    return any(output.kind in ISSUERS and output.act not in known for output in verified.outputs)


def approved(tx: Writing, two_persons: TwoPersons, verified: Verified, *, actor: str, now: int) -> tuple[testimony.Record, ...]:
    """Use up the approval of a ceremony that brings a new CA, where the settings want one.

    Raises:
        Denied: there is none.
    """
    if not two_persons.demanded(GraveAct.ca_certificate):
        return ()
    return two_persons.take(
        tx, GraveAct.ca_certificate, subject_of(verified), tenant=DEFAULT_TENANT, actor=actor, channel="operator/local", now=now
    )[1]


def subject_of(verified: Verified) -> str:
    """What is approved: the ceremony, whose transcript names every output by its hash."""
    return rule.subject(GraveAct.ca_certificate, transcript_sha256=verified.transcript_sha256.hex())


def _check_connected(verified: Verified, connected: list[Issuer]) -> None:
    """New issuers are signed by those that are known; a new root is linked by one (RFC 9810 4.4). Another deployment's are nobody's.

    Raises:
        Conflict: `issuer-not-here`.
    """
    known = {issuer.id for issuer in connected}
    links = [read_certificate(output.der) for output in verified.outputs if output.kind == "link"]
    for output in verified.outputs:
        if output.kind not in ISSUERS or output.act in known:
            continue
        made = issuer_from_certificate(output.der, id=output.act, key=None)
        ways = [output.der, *(link.der for link in links if link.subject == made.subject and link.spki == made.spki)]
        if not any(signed_by(way, issuer) for way in ways for issuer in connected):
            raise Conflict(
                "issuer-not-here",
                f"The ceremony made the certificate of {output.act}, and nothing at work here signed or linked it.",
                why="Who trusts what is at work here would not believe it.",
                fix="If it is meant to be here, stop fleetca serve, import it again, and start.",
            )
        connected.append(made)


def refuse_rehearsal(verified: Verified) -> None:
    """By the transcript, and by the mark in every subject: each alone is enough.

    Raises:
        Unacceptable: `rehearsal`.
    """
    marked = REHEARSAL_UNIT.encode()
    if verified.rehearsal or any(marked in output.der for output in verified.outputs):
        raise Unacceptable(
            "rehearsal",
            f"This is a rehearsal of the ceremony {verified.name}.",
            why="Its keys were thrown away, and everything of it is marked.",
            fix="Hold the ceremony: fleetca ceremony run",
        )


def remember(tx: Writing, verified: Verified, *, now: int) -> bool:
    """The ceremony's leaf, once for each transcript; True where it is on record already."""
    try:
        with tx.savepoint():
            tx.consume_message(verified.transcript_sha256, now=now)
    except Conflict:
        return True
    tx.append_leaf(
        leaf.ceremony(
            verified.name,
            transcript_sha256=verified.transcript_sha256,
            outputs={output.file: output.sha256.hex() for output in verified.outputs},
            at=now,
        )
    )
    return False
