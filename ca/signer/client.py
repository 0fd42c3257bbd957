"""The signer as other processes see it: its verbs as methods over a Unix socket. Ring 3.

Owns connections: each request has one to itself, idle ones are kept for the next thread. A request whose kept connection turns out to be
dead is sent again once on a new one: every verb is safe to repeat. Decides nothing; whatever the signer refuses arrives as the
same error, and a signer that does not answer is `Unavailable("signer-down")`.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ca.errors import Broken, FleetcaError, Unavailable
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
    CrlIntent,
    CrlNumber,
    Device,
    DeviceDescription,
    DeviceEvent,
    DeviceFacts,
    DeviceId,
    DeviceState,
    Digest,
    Issued,
    Issuer,
    IssueRequest,
    IssuerId,
    JudgedKey,
    KeyChange,
    KeyRecord,
    LocalEvidence,
    ManifestImport,
    ManifestOutcome,
    Operator,
    OperatorName,
    Outline,
    Profile,
    Proposal,
    ProposalRequest,
    RecordSeal,
    RenewalOrder,
    RenewalOrderRequest,
    RenewalOrderWithdrawal,
    Revocation,
    RevokeRequest,
    Role,
    Shift,
    ShiftCount,
    ShiftRequest,
    Station,
    Token,
    TokenRequest,
    TokenWithdrawal,
    UnitPart,
    WipeReceipt,
)
from ca.rules import forms
from ca.signer import messages
from ca.signer.address import address

KEPT: Final = 64
"""Idle connections to keep."""


class SignerClient:
    """Safe to use from many threads. Opens no connection before the first request.

    Args:
        socket_path: where the signer listens.
        role: the role to speak in; the signer checks it against this process's user id.
        timeout: seconds to wait for an answer.
        tenant: whose things questions are about; None: the house's.
    """

    def __init__(self, socket_path: str | Path, role: Role, *, timeout: float = 30.0, tenant: str | None = None) -> None:
        self._path = Path(socket_path)
        self._role = role
        self._timeout = timeout
        self._tenant = tenant
        self._idle: list[socket.socket] = []
        self._lock = threading.Lock()

    @property
    def local(self) -> LocalEvidence:
        """Evidence that we are who the socket says we are. What it holds does not travel: the signer asks the kernel."""
        return LocalEvidence(self._role, os.getuid())

    # ---- Verbs ------------------------------------------------------------------------------------------------------

    def issue(self, asked: IssueRequest) -> Issued:
        """A certificate for a CSR. The same request again gets the same certificate."""
        return forms.read(Issued, self._ask("issue", messages.write_issue(asked)))

    def revoke(self, asked: RevokeRequest) -> tuple[Revocation, ...]:
        """The status changes made; of a repeated request, those on record."""
        return forms.read(tuple[Revocation, ...], self._ask("revoke", messages.write_revoke(asked)))

    def create_token(self, asked: TokenRequest) -> CreatedToken:
        """A one-time enrolment token; its text is seen only here."""
        return forms.read(CreatedToken, self._ask("create-token", messages.write_token(asked)))

    def revoke_tokens(self, asked: TokenWithdrawal) -> tuple[Token, ...]:
        """Withdraw outstanding tokens of a device; those that were."""
        return forms.read(tuple[Token, ...], self._ask("revoke-token", messages.write_withdrawal(asked)))

    def order_renewals(self, asked: RenewalOrderRequest) -> RenewalOrder:
        """Have certificates replaced before their time."""
        return forms.read(RenewalOrder, self._ask("order-renewals", messages.write_order(asked)))

    def withdraw_renewal_order(self, asked: RenewalOrderWithdrawal) -> RenewalOrder:
        """End an order; it as it is then."""
        return forms.read(RenewalOrder, self._ask("withdraw-renewal-order", messages.write_order_withdrawal(asked)))

    def renewal_orders(self) -> tuple[RenewalOrder, ...]:
        """The newest first."""
        return forms.read(tuple[RenewalOrder, ...], self._ask("renewal-orders", {}))

    def bind_account(self, asked: AccountBinding) -> Token:
        """An account has a token from now on; the token."""
        return forms.read(Token, self._ask("bind-account", messages.write_binding(asked)))

    def decide_approval(self, asked: ApprovalDecision) -> Approval | Proposal:
        """Approve or refuse a request that waits, for a certificate or for a grave act."""
        told = self._ask("decide-approval", messages.write_decision(asked))
        return forms.read(Proposal, told["proposal"]) if "proposal" in told else forms.read(Approval, told["approval"])

    def propose(self, asked: ProposalRequest) -> Proposal:
        """Ask for a grave act; what became of it where it was asked for before."""
        return forms.read(Proposal, self._ask("propose", messages.write_proposal(asked)))

    def challenge_tpm(self, asked: ChallengeRequest) -> Challenge:
        """What a TPM must answer before a key of it counts as attested."""
        return forms.read(Challenge, self._ask("challenge-tpm", forms.write(asked)))

    def confirm(self, asked: ConfirmRequest) -> Certificate:
        """A certificate was used, or its successor delivered. Returns the certificate that spoke."""
        return forms.read(Certificate, self._ask("confirm", messages.write_confirm(asked)))

    def sign_crl(
        self,
        issuer: IssuerId,
        *,
        above: CrlNumber,
        fence: int,
        sink_fd: int,
        shard: int = 0,
        base: CrlNumber | None = None,
        afresh: bool = False,
    ) -> CrlIntent:
        """Sign a CRL numbered above `above`; its DER is written to the open file `sink_fd`, from its present offset on.

        With `base`, a delta to that published CRL. With `afresh`, nothing that was encoded earlier is used.

        Raises:
            Conflict: `lease-lost`: the fence is not that of the newest holder of the lease `crl:<issuer>`.
        """
        body = messages.write_crl(issuer, shard=shard, above=above, fence=fence, base=base, afresh=afresh)
        return forms.read(CrlIntent, self._ask("sign-crl", body, fd=sink_fd, timeout=600.0))

    def crl_published(self, issuer: IssuerId, shard: int, number: CrlNumber, fence: int) -> None:
        """Record that relying parties can see this CRL now. Safe to repeat."""
        self._ask("crl-published", messages.write_crl(issuer, shard=shard, above=number, fence=fence))

    def crl_overridden(self, issuer: IssuerId, shard: int, number: CrlNumber, fence: int) -> None:
        """Put on record that a CRL which the gate refused goes out by the word of two persons."""
        self._ask("crl-overridden", messages.write_crl(issuer, shard=shard, above=number, fence=fence))

    # ---- Operators (role operator) ----------------------------------------------------------------------------------

    def add_operator(self, name: OperatorName, roles: Sequence[str], *, person: str = "") -> Operator:
        return forms.read(
            Operator, self._ask("add-operator", {"name": name, "roles": list(roles), "person": person, "tenant": self._tenant})
        )

    def revive_device(self, device: DeviceId) -> Device:
        """Let the id of a retired device come back, blank, as two persons approved."""
        return forms.read(Device, self._ask("revive-device", {"device": device}))

    def disable_operator(self, name: OperatorName) -> Operator:
        return forms.read(Operator, self._ask("disable-operator", {"name": name}))

    def describe_device(self, said: DeviceDescription) -> tuple[Device, DeviceFacts]:
        """Say what a device is; the device, and all that is said of it now."""
        told = self._ask("describe-device", forms.write(said))
        return forms.read(Device, told["device"]), forms.read(DeviceFacts, told["facts"])

    def record_ceremony(self, files: Mapping[str, bytes]) -> str:
        """Have a ceremony verified and recorded, whose transcript, sheet and outputs these are; its name."""
        return forms.read(str, self._ask("record-ceremony", messages.write_files(files)))

    # ---- The factory line (role operator) ---------------------------------------------------------------------------

    def add_station(self, name: str, spki: bytes) -> Station:
        """A station and its key; the same again is harmless."""
        body = {"name": name, "spki": forms.write(spki)}
        return forms.read(Station, self._ask("add-station", body if self._tenant is None else {**body, "tenant": self._tenant}))

    def open_shift(self, asked: ShiftRequest) -> tuple[Shift, bytes]:
        """An operator logs in at a station: the shift, and the first line of its file."""
        told = self._ask("open-shift", forms.write(asked))
        return forms.read(Shift, told["shift"]), forms.read(bytes, told["header"])

    def take_units(self, file_fd: int) -> Shift:
        """Have a station's file taken, which is read from the open file `file_fd`, from its present offset on."""
        return forms.read(Shift, self._ask("take-units", {}, fd=file_fd, timeout=600.0))

    def take_part(self, part: UnitPart) -> Shift:
        """Have some units of a shift taken, under a seal of their own."""
        return forms.read(Shift, self._ask("take-part", forms.write(part), timeout=120.0))

    def issue_units(self, shift: int, lines: Sequence[bytes]) -> Sequence[bytes | FleetcaError]:
        """The certificates (DER) of units that were taken, by their lines, or what each was refused with."""
        told = self._ask("issue-units", {"shift": shift, "lines": [each.decode() for each in lines]}, timeout=120.0)
        return [messages.read_outcome(one) for one in told]

    def seal_records(self, station: str, documents: Sequence[bytes]) -> RecordSeal:
        """Have provisioning records of a station countersigned that follow, or overlap with, those that were."""
        return forms.read(RecordSeal, self._ask("seal-records", {"station": station, "records": [each.decode() for each in documents]}))

    def order_wipe(self, device: DeviceId) -> bytes:
        """The signed order that a retired device wipes its keys by."""
        return forms.read(bytes, self._ask("order-wipe", {"device": device}))

    def waive_wipe(self, device: DeviceId, justification: str) -> WipeReceipt:
        """Close a retired device's record: no receipt will come."""
        return forms.read(WipeReceipt, self._ask("waive-wipe", {"device": device, "justification": justification}))

    def take_wipe(self, receipt: bytes) -> WipeReceipt:
        """Put a device's wipe receipt on record."""
        return forms.read(WipeReceipt, self._ask("take-wipe", {"receipt": forms.write(receipt)}))

    def unwiped(self, *, after: str = "", limit: int = 200) -> tuple[DeviceId, ...]:
        """A page of the retired devices that had a certificate and sent no wipe receipt, by id."""
        return forms.read(tuple[DeviceId, ...], self._question("unwiped", {"after": after, "limit": limit}))

    def stations(self) -> tuple[Station, ...]:
        return forms.read(tuple[Station, ...], self._ask("stations", {}))

    def shifts(self, *, before: int | None = None, limit: int = 50) -> tuple[tuple[ShiftCount, ...], int | None]:
        """A page of shifts, the newest first, and the mark of the next one."""
        page = self._ask("shifts", {"limit": limit} if before is None else {"limit": limit, "before": before})
        return forms.read(tuple[ShiftCount, ...], page["rows"]), page["next"]

    # ---- Questions (role operator) ----------------------------------------------------------------------------------

    def certificates(self, query: CertificateQuery) -> tuple[tuple[Certificate, ...], str | None]:
        """A page of certificates, and the cursor of the next one."""
        page = self._question("certificates", forms.write(query))
        return forms.read(tuple[Certificate, ...], page["rows"]), page["next"]

    def outlines(self, query: CertificateQuery) -> tuple[tuple[Outline, ...], str | None]:
        """As `certificates`, in up to 1000 short rows a page."""
        page = self._question("outlines", forms.write(query))
        return tuple(map(messages.read_outline, page["rows"])), page["next"]

    def certificate(self, ref: CertificateRef) -> Certificate:
        return forms.read(Certificate, self._question("certificate", messages.write_ref(ref)))

    def devices(
        self, *, device: str | None = None, state: DeviceState | None = None, after: str | None = None, limit: int = 50
    ) -> tuple[tuple[Device, ...], str | None]:
        """A page of devices, and the cursor of the next one. `device`: an id, or its beginning followed by `*`."""
        asked = {"device": device, "state": forms.write(state), "after": after, "limit": limit}
        page = self._question("devices", {key: value for key, value in asked.items() if value is not None})
        return forms.read(tuple[Device, ...], page["rows"]), page["next"]

    def tokens(self, *, device: DeviceId | None = None, after: str | None = None, limit: int = 50) -> tuple[tuple[Token, ...], str | None]:
        """A page of the tokens that could be used now, and the cursor of the next one; of one device, all of them."""
        asked = {"device": device, "after": after, "limit": limit}
        page = self._question("tokens", {key: value for key, value in asked.items() if value is not None})
        return forms.read(tuple[Token, ...], page["rows"]), page["next"]

    def approvals(self, *, after: str | None = None, limit: int = 50) -> tuple[tuple[Approval, ...], str | None]:
        """A page of the requests that wait for an operator, and the cursor of the next one."""
        page = self._question("approvals", {"limit": limit} if after is None else {"limit": limit, "after": after})
        return forms.read(tuple[Approval, ...], page["rows"]), page["next"]

    def proposals(self, *, after: str | None = None, limit: int = 50) -> tuple[tuple[Proposal, ...], str | None]:
        """A page of grave acts that were asked for and are not over, and the cursor of the next one."""
        page = self._question("proposals", {"limit": limit} if after is None else {"limit": limit, "after": after})
        return forms.read(tuple[Proposal, ...], page["rows"]), page["next"]

    def proposal(self, request: str) -> Proposal:
        """The one whose hash begins with these digits, whatever became of it."""
        return forms.read(Proposal, self._question("proposal", {"request": request}))

    def device_facts(self, device: DeviceId) -> DeviceFacts | None:
        """What was said of a device; None where nothing was."""
        told = self._question("device-facts", {"device": device})
        return None if told is None else forms.read(DeviceFacts, told)

    def import_manifest(self, asked: ManifestImport) -> tuple[ManifestOutcome, ...]:
        """Take entries of a maker's manifest of secure elements onto the record; what became of each."""
        return forms.read(tuple[ManifestOutcome, ...], self._question("import-manifest", forms.write(asked)))

    def judged_keys(self, device: DeviceId) -> tuple[JudgedKey, ...]:
        """Why the keys of a device's newest certificates counted as attested, newest first."""
        return forms.read(tuple[JudgedKey, ...], self._question("judged-keys", {"device": device}))

    def device_events(self, device: DeviceId, *, before: int | None = None) -> tuple[tuple[DeviceEvent, ...], int | None]:
        """What happened to a device, unsorted: a page, and the mark of the next one."""
        page = self._question("device-events", {"device": device} if before is None else {"device": device, "before": before})
        return forms.read(tuple[DeviceEvent, ...], page["rows"]), page["next"]

    def issuers(self) -> tuple[Issuer, ...]:
        return forms.read(tuple[Issuer, ...], self._question("issuers", {}))

    def profiles(self) -> tuple[Profile, ...]:
        return forms.read(tuple[Profile, ...], self._question("profiles", {}))

    def operators(self) -> tuple[Operator, ...]:
        return forms.read(tuple[Operator, ...], self._question("operators", {}))

    def key_records(self) -> tuple[KeyRecord, ...]:
        """The inventory of keys."""
        return forms.read(tuple[KeyRecord, ...], self._question("keys", {}))

    def key_changes(self, spki_sha256: Digest) -> tuple[KeyChange, ...]:
        """What happened to a key, oldest first."""
        return forms.read(tuple[KeyChange, ...], self._question("key", {"spki_sha256": forms.write(spki_sha256)}))

    def count_devices(self) -> int:
        """How many devices of the tenant are on record; no more are counted than a million."""
        return forms.read(int, self._question("device-count", {}))

    def keys_held(self) -> Sequence[Mapping[str, Any]]:
        """The stores that the signer has open, and what they say they hold; `spki` in base64."""
        found: Sequence[Mapping[str, Any]] = self._question("keys-held", {})
        return found

    def health(self) -> Mapping[str, Any]:
        """What the signer says of itself: `deployment`, `issuers` with the state of their keys, `queue`. For every role."""
        found = self._ask("health", {})
        return found if isinstance(found, dict) else {}

    def ping(self) -> bool:
        """Return when the signer answers: whether the key of a root is among those it has open, which must never be (P4).

        Raises:
            Unavailable: `signer-down`.
        """
        return bool(self._ask("health", {})["root_present"])

    def close(self) -> None:
        """Close idle connections; the client stays usable."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _question(self, verb: str, body: Mapping[str, Any]) -> Any:
        return self._ask(verb, body if self._tenant is None else {**body, "tenant": self._tenant})

    # ---- Connections ------------------------------------------------------------------------------------------------

    def _ask(self, verb: str, body: Mapping[str, Any], *, fd: int | None = None, timeout: float | None = None) -> Any:
        octets = messages.frame(messages.request(verb, body))
        if len(octets) > messages.LONGEST_REQUEST:
            raise forms.bad("It is longer than the signer reads.")
        wait = self._timeout if timeout is None else timeout
        while True:
            connection, fresh = self._take()
            try:
                connection.settimeout(wait)
                answer = _exchange(connection, octets, fd)
            except (OSError, EOFError) as error:
                connection.close()
                # A kept connection may have died with an earlier signer; a new one that fails is news.
                if fresh or isinstance(error, TimeoutError):
                    raise self._down(error) from None
                self.close()
                continue
            except BaseException:
                connection.close()
                raise
            self._give(connection)
            return messages.read_answer(answer)

    def _take(self) -> tuple[socket.socket, bool]:
        with self._lock:
            if self._idle:
                return self._idle.pop(), False
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self._timeout)
            with address(self._path) as place:
                connection.connect(place)
            welcome = _exchange(connection, messages.frame(messages.hello(self._role)), None)
            messages.read_answer(welcome)
        except (OSError, EOFError) as error:
            connection.close()
            raise self._down(error) from None
        except FleetcaError:
            connection.close()
            raise
        return connection, True

    def _give(self, connection: socket.socket) -> None:
        with self._lock:
            if len(self._idle) < KEPT:
                self._idle.append(connection)
                return
        connection.close()

    def _down(self, error: BaseException) -> Unavailable:
        cause = error.strerror if isinstance(error, OSError) else None
        return Unavailable(
            "signer-down",
            "The signer does not answer.",
            why=f"{self._path}: {cause or str(error) or 'it hung up'}",
            fix="Start it with `fleetca serve`, or look into its log.",
        )


def _exchange(connection: socket.socket, octets: bytes, fd: int | None) -> dict[str, Any]:
    if fd is None:
        connection.sendall(octets)
    else:
        # The descriptor travels with the first octet; the rest follows plainly.
        socket.send_fds(connection, [octets[:1]], [fd])
        connection.sendall(octets[1:])
    count = int.from_bytes(_exactly(connection, messages.LENGTH), "big")
    if count > messages.LONGEST_ANSWER:
        raise Broken("bad-answer", "The signer's answer is too long.")
    return messages.unframe(_exactly(connection, count))


def _exactly(connection: socket.socket, count: int) -> bytes:
    octets = connection.recv(count)
    if len(octets) == count:
        return octets
    parts = [octets]
    missing = count - len(octets)
    while missing:
        if not parts[-1]:
            raise EOFError("it hung up")
        parts.append(connection.recv(min(missing, 1 << 20)))
        missing -= len(parts[-1])
    return b"".join(parts)
