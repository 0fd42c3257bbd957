"""A CRL that the gate refused, and two persons who want it out all the same: what exactly they approve. Ring 1: pure.

It is one CRL, by the digest of its signed octets: the refused file is shown to two people, and what they saw is what becomes visible.
"""

from __future__ import annotations

from ca.model import CrlIntent, GraveAct
from ca.rules.two_persons import subject


def subject_of(intent: CrlIntent) -> str:
    """What is approved: this CRL and no other."""
    return subject(
        GraveAct.crl_override, issuer=intent.issuer, shard=intent.shard, number=intent.number, tbs_sha256=intent.tbs_sha256.hex()
    )
