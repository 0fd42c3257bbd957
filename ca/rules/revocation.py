"""Which changes of a certificate's status are legal (RFC 5280 5.3.1). Ring 1: pure.

Who may ask for them is for `ca.rules.grant`. A change is a row that is never altered; a repeated request finds the row it made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ca.errors import Conflict, Unacceptable
from ca.model import Certificate, CertificateState, Reason, Revocation, UnixTime
from ca.rules.renewal import revoked

FOR_LEAVES: Final = frozenset(Reason) - {Reason.cACompromise, Reason.aACompromise}
"""cACompromise and aACompromise speak of authorities; what this signer revokes are certificates of devices and services."""

FOR_ONESELF: Final = frozenset(
    {Reason.unspecified, Reason.keyCompromise, Reason.affiliationChanged, Reason.superseded, Reason.cessationOfOperation}
)
"""What a device may say of its own certificate. Holds, releases and withdrawn privileges are an operator's."""


PASSING: Final = frozenset({Reason.certificateHold, Reason.removeFromCRL})
"""What a later change may take back."""


@dataclass(frozen=True, slots=True)
class Change:
    """A row to append."""

    reason: Reason
    revoked_at: UnixTime


def change(record: Certificate, reason: Reason, *, now: UnixTime) -> Change | None:
    """The row that this reason makes of the certificate's present state; None when it is on record already.

    | now       | asked for                       | becomes                                        |
    |-----------|---------------------------------|------------------------------------------------|
    | good      | any but removeFromCRL           | revoked, or on hold                            |
    | on hold   | removeFromCRL                   | good                                           |
    | on hold   | any other reason                | revoked, as of now                             |
    | revoked   | the same reason                 | nothing                                        |
    | revoked   | keyCompromise                   | revoked for keyCompromise, as of the old time  |
    | revoked   | any other                       | refused                                        |

    Raises:
        Unacceptable: `reason-not-for-leaves`, `not-on-hold`, `certificate-expired`.
        Conflict: `already-revoked`.
    """
    if reason not in FOR_LEAVES:
        raise Unacceptable(
            "reason-not-for-leaves", f"{reason.name} is not for this certificate.", why="It speaks of a certificate authority."
        )
    before = record.revocation
    if before is not None and before.reason is reason and (revoked(record) or reason is Reason.removeFromCRL):
        return None
    if reason is Reason.removeFromCRL:
        if before is None or before.reason is not Reason.certificateHold:
            raise Unacceptable("not-on-hold", "Only a certificate on hold can be released.", why="This one is not on hold.")
        return Change(reason, now)
    if record.state is CertificateState.issued and now > record.not_after:
        raise Unacceptable("certificate-expired", "The certificate has expired: there is nothing to revoke.")
    if before is None or not revoked(record) or before.reason is Reason.certificateHold:
        return Change(reason, now)
    if reason is Reason.keyCompromise:
        # The graver reason must reach relying parties; the date stays, for signatures made since then were doubtful already.
        return Change(reason, before.revoked_at)
    raise Conflict(
        "already-revoked",
        f"The certificate is revoked for {before.reason.name}.",
        why="A revocation is final; only keyCompromise may still be said of it.",
    )


def overtaken(have: Revocation | None, told: Revocation, *, at: UnixTime) -> bool:
    """Whether a change that a journal tells of says nothing that the record does not know (incident R12).

    A restored database counts its changes anew, so their numbers do not say which of the two came later. What is final stays, whichever was
    first; of holds and releases the later one counts.

    Args:
        have: the latest change on record.
        told: the one that is told of.
        at: when it was made.
    """
    if have is None:
        return False
    if (have.reason, have.revoked_at) == (told.reason, told.revoked_at):
        return True
    if have.reason not in PASSING:
        return told.reason is not Reason.keyCompromise or have.reason is Reason.keyCompromise
    return told.reason in PASSING and (at, told.change) <= (have.revoked_at, have.change)
