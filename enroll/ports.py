"""What enrolment needs from the world, as promises. Ring 2.

The signer decides, records and signs; the reader only looks. Enrolment holds no key and writes no row of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ca.errors import FleetcaError
from ca.model import (
    AccountBinding,
    Approval,
    ApprovalDecision,
    Certificate,
    CertificateQuery,
    CertificateRef,
    Challenge,
    ChallengeRequest,
    ConfirmRequest,
    CreatedToken,
    DeviceId,
    Digest,
    Issued,
    IssueRequest,
    Operator,
    OperatorName,
    Proposal,
    ProposalRequest,
    QueuedLeaf,
    RecordSeal,
    Revocation,
    RevokeRequest,
    Shift,
    ShiftRequest,
    TenantId,
    Token,
    TokenRequest,
    UnitPart,
    UnixTime,
)
from enroll.model import Granted, Report


class Signer(Protocol):
    """The door (P2). It trusts nothing of what we say but the evidence itself.

    Every call is safe to repeat as it is: the same evidence and CSR get the same certificate, a revocation stands once. Answers are durable.

    Raises:
        Refused: asking the same again fails again.
        Unavailable: the signer is down or cannot decide now (`signer-down`); nothing may have happened, or all of it.
    """

    def issue(self, request: IssueRequest, /) -> Issued: ...

    def revoke(self, request: RevokeRequest, /) -> Sequence[Revocation]: ...

    def confirm(self, request: ConfirmRequest, /) -> Certificate:
        """The certificate that spoke; its ancestors are superseded. With `successor`, that has arrived and its grace begins."""
        ...

    def create_token(self, request: TokenRequest, /) -> CreatedToken: ...

    def bind_account(self, asked: AccountBinding, /) -> Token:
        """Let an account have a one-time token, for good; the token."""
        ...

    def decide_approval(self, asked: ApprovalDecision, /) -> Approval | Proposal:
        """Approve or refuse a request that waits, for a certificate or for a grave act."""
        ...

    def propose(self, asked: ProposalRequest, /) -> Proposal:
        """Ask for a grave act."""
        ...

    def challenge_tpm(self, asked: ChallengeRequest, /) -> Challenge:
        """What a TPM must answer before a key of it counts as attested. Nothing is kept of it."""
        ...

    def open_shift(self, asked: ShiftRequest, /) -> tuple[Shift, bytes]:
        """An operator logs in at a station: the shift, and the first line of its file."""
        ...

    def take_part(self, part: UnitPart, /) -> Shift:
        """Have units of a shift taken onto the record, under their station's seal."""
        ...

    def issue_units(self, shift: int, lines: Sequence[bytes], /) -> Sequence[bytes | FleetcaError]:
        """Certificates (DER) of units that were taken, by their lines, or what each was refused with."""
        ...

    def seal_records(self, station: str, documents: Sequence[bytes], /) -> RecordSeal:
        """Countersign a station's provisioning records."""
        ...

    def ping(self) -> bool:
        """Return when the signer answers: whether it has the key of a root open."""
        ...


class PromptSigner(Protocol):
    """The door for those who cannot wait."""

    def issue_soon(self, request: IssueRequest, told: Callable[[Granted | FleetcaError], None], /) -> None:
        """As `Signer.issue`, called in an event loop. Returns at once; `told` is called once, in that loop, later, with what the other one would
        return or raise."""
        ...


class Reader(Protocol):
    """The database, for those who only look. Rows are as of the latest commit.

    Raises:
        StoreUnavailable: it cannot be read now.
    """

    def ping(self) -> None:
        """Return when the database answers."""
        ...

    def find_certificate(self, ref: CertificateRef, /) -> Certificate | None: ...

    def find_by_der_digest(self, digest: Digest, /) -> Certificate | None:
        """The certificate whose DER has this SHA-256: byte-equal or absent."""
        ...

    def latest_of(self, device: DeviceId, /, *, limit: int) -> Sequence[Certificate]:
        """The newest certificates of a device that are issued or under way, newest first."""
        ...

    def search_certificates(
        self, query: CertificateQuery, *, tenant: TenantId | None, now: UnixTime
    ) -> tuple[Sequence[Certificate], str | None]:
        """One page and the cursor of the next one (None: this was the last); `state` is judged at `now`.

        Raises:
            Malformed: `after` is no cursor of ours.
        """
        ...

    def waiting_approvals(
        self, *, tenant: TenantId, now: UnixTime, after: tuple[UnixTime, Digest] | None = None, limit: int
    ) -> Sequence[Approval]:
        """Requests of a tenant that nobody has decided, what ends next first, from behind `after`."""
        ...

    def proposals(self, *, tenant: TenantId, after: tuple[UnixTime, Digest] | None = None, limit: int) -> Sequence[Proposal]:
        """Grave acts that were asked for, what ends first first, from behind `after`."""
        ...

    def find_proposal(self, request: Digest, /) -> Proposal | None: ...

    def find_operator(self, name: OperatorName, /) -> Operator | None: ...

    def count_devices(self, tenant: TenantId, *, most: int) -> int:
        """How many devices of a tenant are on record; no more are counted than `most`."""
        ...

    def leaves(self, start: int, count: int) -> Sequence[QueuedLeaf]:
        """Leaves of the log from that index on, at most `count`."""
        ...


class Reports(Protocol):
    """What devices said of their renewals: the last word of each."""

    def keep(self, report: Report, /) -> None:
        """Remember it; durable some seconds later. What a crash loses, the device's next word brings."""
        ...

    def page(
        self, *, tenant: TenantId, dark_before: UnixTime | None, late_before: UnixTime | None, failed: bool, after: str, limit: int
    ) -> Sequence[Report]:
        """Rows by device id, after `after`.

        Args:
            dark_before: only those whose certificate ended before this.
            late_before: only those who would have renewed before this.
            failed: only those who said that they failed.
        """
        ...


class Receipts(Protocol):
    """Proofs that a leaf stands in the published log: a JSON document that verifies offline against the log's key.

    Raises:
        NotFound: no such leaf.
        Unavailable: it is recorded and not yet under a checkpoint; ask again in some seconds.
    """

    def __call__(self, leaf: Digest, /) -> Mapping[str, Any]: ...
