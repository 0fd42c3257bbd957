"""The signer's socket: who is there, in which role, and what they ask. Edge: contains no rule.

A Unix socket; the kernel says the peer's user id (SO_PEERCRED), the settings say its roles, the peer names one of them in its first frame and
keeps it. One thread reads each connection; evidence and CSR are read there, everything that decides waits at the desk.
CRLs are signed beside the desk, one at a time, and written to the descriptor that came with the request.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ca.confirm import Confirming
from ca.errors import Broken, Contested, Denied, FleetcaError, Misconfigured, NotFound, Unavailable
from ca.issue import Issuing
from ca.model import OperatorName, Peer, Role
from ca.operators import Operators
from ca.revoke import Revoking
from ca.rules import forms, ids
from ca.sign_crl import CrlSigning
from ca.signer import messages
from ca.signer.address import address
from ca.signer.desk import Desk, Log, Silence
from ca.signer.questions import Questions
from ca.supersede import Superseding
from ca.tokens import Tokens

MOST_CONNECTIONS: Final = 512
KEPT_FOR_OTHERS: Final = 64
"""Connections that one user never gets: a stolen web process must not keep operators and publisher out."""
STRANGERS: Final = 8
"""Connections of a user who has no role."""
PATIENCE: Final = 10.0
"""Seconds for the rest of a frame that has begun. Between frames a peer may be silent for ever."""
HOUSEKEEPING: Final = 60.0
"""Seconds between two looks for what became due without anybody asking."""


@dataclass(frozen=True, slots=True)
class Verbs:
    """What the signer can do, put together by wiring."""

    issuing: Issuing
    revoking: Revoking
    tokens: Tokens
    confirming: Confirming
    superseding: Superseding
    crls: CrlSigning
    operators: Operators
    questions: Questions


Handler = Callable[[dict[str, Any], Peer, "int | None"], Any]


class SignerServer:
    """Listens from `start` to `stop`.

    Args:
        users: the roles of each user id; nobody else gets past the greeting.
        mode: of the socket: 0o600, or 0o660 where other users share its group.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        verbs: Verbs,
        desk: Desk,
        users: Mapping[int, frozenset[Role]],
        mode: int = 0o600,
        log: Log | None = None,
    ) -> None:
        self._path, self._verbs, self._desk, self._users, self._mode = Path(path), verbs, desk, users, mode
        self._log: Log = log or Silence()
        self._listener: socket.socket | None = None
        self._connections: dict[socket.socket, int] = {}
        """And the user id at the other end."""
        self._busy: set[socket.socket] = set()
        self._lock = threading.Condition()
        self._crl_lock = threading.Lock()
        self._stopping = threading.Event()
        self._handlers: Mapping[str, Handler] = {
            "issue": self._issue,
            "revoke": self._revoke,
            "create-token": self._create_token,
            "revoke-token": self._revoke_token,
            "confirm": self._confirm,
            "sign-crl": self._sign_crl,
            "crl-published": self._crl_published,
            "add-operator": self._add_operator,
            "disable-operator": self._disable_operator,
            "health": self._health,
            **dict.fromkeys(verbs.questions.NAMES, self._question),
        }

    # ---- Life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen. A socket left by a dead signer is taken over: the caller holds the signer's lock.

        Raises:
            Misconfigured: the path cannot be a socket.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISSOCK(self._path.lstat().st_mode):
                    raise Misconfigured(
                        "socket-taken", f"{self._path} is there and is no socket.", fix="Change [signer] socket, or move the file away."
                    )
                self._path.unlink()
            # Bound under a mask of its own, so that there is no moment at which others may connect.
            before = os.umask(0o177)
            try:
                with address(self._path) as place:
                    listener.bind(place)
            finally:
                os.umask(before)
            self._path.chmod(self._mode)
            listener.listen(128)
        except OSError as error:
            listener.close()
            raise Misconfigured(
                "socket-unusable",
                f"The signer cannot listen on {self._path}.",
                why=error.strerror or str(error),
                fix="Mend the folder, or choose another path in [signer] socket.",
            ) from None
        except FleetcaError:
            listener.close()
            raise
        self._listener = listener
        self._desk.start()
        threading.Thread(target=self._accept, name="signer-accept", daemon=True).start()
        threading.Thread(target=self._keep_house, name="signer-housekeeping", daemon=True).start()
        self._log.info("listening", socket=str(self._path))

    def stop(self) -> None:
        """Drain: take no new connection or request, answer what was asked, then close."""
        self._stopping.set()
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._path.unlink(missing_ok=True)
        self._desk.stop()
        with self._lock:
            self._lock.wait_for(lambda: not self._busy, timeout=30)
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._log.info("stopped")

    def _keep_house(self) -> None:
        """At the desk, like everything that decides."""
        while not self._stopping.wait(HOUSEKEEPING):
            try:
                for ref in self._desk.do(self._verbs.superseding.end_graces):
                    self._log.info("superseded", certificate=str(ref))
            except FleetcaError as error:
                self._log.warning("housekeeping-waits", code=error.code, what=error.what, why=error.why)

    def _accept(self) -> None:
        listener = self._listener
        while listener is not None and not self._stopping.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                if self._stopping.is_set():
                    return
                # Out of descriptors, most likely: the connections we have will give some back.
                threading.Event().wait(0.1)
                continue
            uid = _peer_uid(connection)
            with self._lock:
                if not self._room_for(uid):
                    connection.close()
                    continue
                self._connections[connection] = uid
            threading.Thread(target=self._serve, args=(connection,), name="signer-connection", daemon=True).start()

    def _room_for(self, uid: int) -> bool:
        theirs = sum(1 for other in self._connections.values() if other == uid)
        most = MOST_CONNECTIONS - KEPT_FOR_OTHERS if self._users.get(uid) else STRANGERS
        return theirs < most and len(self._connections) < MOST_CONNECTIONS

    # ---- One connection ---------------------------------------------------------------------------------------------

    def _serve(self, connection: socket.socket) -> None:
        try:
            peer = self._greet(connection)
            while peer is not None and not self._stopping.is_set() and self._exchange(connection, peer):
                pass
        except (OSError, EOFError):
            pass  # The peer went away; what it asked for is decided and can be asked for again.
        finally:
            with self._lock:
                self._connections.pop(connection, None)
                self._busy.discard(connection)
                self._lock.notify_all()
            connection.close()

    def _greet(self, connection: socket.socket) -> Peer | None:
        uid = _peer_uid(connection)
        try:
            # Who connects and says nothing holds a thread and a place that others need.
            body, descriptor = _read(connection, silence=PATIENCE)
            _close(descriptor)
            role = messages.read_hello(messages.unframe(body))
            if role not in self._users.get(uid, frozenset()):
                raise Denied(
                    "role-not-yours",
                    f"User id {uid} does not have role {role.value} here.",
                    fix="Give it the role under [signer.users], if that is meant.",
                )
        except FleetcaError as error:
            self._log.warning("refused", uid=uid, verb="hello", code=error.code, what=error.what)
            connection.sendall(messages.frame(messages.write_error(error)))
            return None
        connection.sendall(messages.frame({"ok": {"role": role.value}}))
        return Peer(role, uid)

    def _exchange(self, connection: socket.socket, peer: Peer) -> bool:
        descriptor: int | None = None
        verb = "?"
        keep = True
        try:
            try:
                body, descriptor = _read(connection)
            except FleetcaError:
                keep = False  # Where the next frame begins is not known any more.
                raise
            with self._lock:
                self._busy.add(connection)
            if self._stopping.is_set():
                raise Unavailable("signer-stopping", "The signer is stopping.", retry_after=2)
            verb, asked = messages.read_request(messages.unframe(body))
            handler = self._handlers.get(verb)
            if handler is None:
                raise NotFound("verb-unknown", "The signer does not know this verb.", fix="Run client and signer of the same release.")
            answer = messages.frame({"ok": forms.write(handler({**asked, _VERB: verb}, peer, descriptor))})
        except FleetcaError as error:
            self._log.warning("refused", role=peer.role.value, uid=peer.uid, verb=verb, code=error.code, what=error.what, why=error.why)
            if isinstance(error, Contested):
                self._log.warning("clone-suspected", role=peer.role.value, uid=peer.uid, verb=verb, why=error.why, fix=error.fix)
            answer = messages.frame(messages.write_error(error))
        except Exception as error:
            if isinstance(error, (OSError, EOFError)) and verb == "?":
                raise
            self._log.error("internal", verb=verb, kind=type(error).__name__, why=str(error))
            answer = messages.frame(messages.write_error(Broken("internal", "Something failed inside the signer; nothing was released.")))
        finally:
            _close(descriptor)
        connection.sendall(answer)
        with self._lock:
            self._busy.discard(connection)
            if self._stopping.is_set():
                self._lock.notify_all()
        return keep

    # ---- Verbs ------------------------------------------------------------------------------------------------------

    def _issue(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        prepared = self._verbs.issuing.prepare(messages.read_issue(_plain(body), peer), peer)
        issued = self._desk.do(prepared)
        found = issued.certificate
        self._log.info(
            "repeated" if issued.repeated else "issued",
            role=peer.role.value,
            uid=peer.uid,
            evidence=prepared.claim.kind.value,
            certificate=str(found.ref),
            device=found.device,
            profile=found.profile,
        )
        return issued

    def _revoke(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        prepared = self._verbs.revoking.prepare(messages.read_revoke(_plain(body), peer), peer)
        made = self._desk.do(prepared)
        self._log.info(
            "revoked",
            role=peer.role.value,
            uid=peer.uid,
            evidence=prepared.claim.kind.value,
            certificates=[str(change.ref) for change in made],
            reason=prepared.request.reason.name,
        )
        return made

    def _create_token(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        asked = messages.read_token(_plain(body), peer)
        made = self._desk.do(lambda: self._verbs.tokens.create(asked, peer))
        self._log.info("token-created", role=peer.role.value, uid=peer.uid, device=asked.device, hash=made.token.hash.hex()[:16])
        return made

    def _revoke_token(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        asked = messages.read_withdrawal(_plain(body), peer)
        gone = self._desk.do(lambda: self._verbs.tokens.revoke(asked, peer))
        hashes = [token.hash.hex()[:16] for token in gone]
        self._log.info("token-revoked", role=peer.role.value, uid=peer.uid, device=asked.device, hashes=hashes)
        return gone

    def _confirm(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        asked = messages.read_confirm(_plain(body), peer)
        spoke = self._desk.do(lambda: self._verbs.confirming.confirm(asked, peer))
        if asked.successor is not None:
            self._log.info("delivered", role=peer.role.value, uid=peer.uid, certificate=str(asked.successor), device=spoke.device)
        return spoke

    def _sign_crl(self, body: dict[str, Any], peer: Peer, descriptor: int | None) -> Any:
        issuer, shard, above, fence = messages.read_crl(_plain(body))
        if descriptor is None:
            raise forms.bad("A CRL needs an open file that comes with the request.")
        # Not at the desk: a long list must not hold up issuing.
        with self._crl_lock, open(descriptor, "wb", buffering=0, closefd=False) as sink:
            intent = self._verbs.crls.sign(issuer, shard=shard, above=above, fence=fence, sink=sink, peer=peer)
        self._log.info("crl-signed", issuer=issuer, number=intent.number, count=intent.count)
        return intent

    def _crl_published(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        issuer, shard, number, fence = messages.read_crl(_plain(body))
        self._desk.do(lambda: self._verbs.crls.published(issuer, shard=shard, number=number, fence=fence, peer=peer))
        return {}

    def _add_operator(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        body = _plain(body)
        if set(body) != {"name", "roles"}:
            raise forms.bad("It takes name and roles.")
        name = ids.operator_name(forms.read(str, body["name"]))
        roles = forms.read(tuple[str, ...], body["roles"])
        return self._desk.do(lambda: self._verbs.operators.add(name, roles, peer))

    def _disable_operator(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        body = _plain(body)
        if set(body) != {"name"}:
            raise forms.bad("It takes name.")
        name: OperatorName = ids.operator_name(forms.read(str, body["name"]))
        return self._desk.do(lambda: self._verbs.operators.disable(name, peer))

    def _health(self, _body: dict[str, Any], _peer: Peer, _: int | None) -> Any:
        return {**self._verbs.questions.health(), "queued": self._desk.queued}

    def _question(self, body: dict[str, Any], peer: Peer, _: int | None) -> Any:
        if peer.role is not Role.operator:
            raise Denied("not-allowed", f"Role {peer.role.value} may not search here.")
        return self._verbs.questions.ask(body[_VERB], _plain(body))


_VERB: Final = "\0verb"


def _plain(body: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != _VERB}


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def _peer_uid(connection: socket.socket) -> int:
    """As the kernel says it."""
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


def _read(connection: socket.socket, *, silence: float | None = None) -> tuple[bytes, int | None]:
    """The body of the next frame, and the descriptor that came with its first octet.

    Args:
        silence: seconds until that octet; None waits for ever.
    """
    connection.settimeout(silence)
    octets, descriptors, _, _ = socket.recv_fds(connection, messages.LENGTH, 1, socket.MSG_CMSG_CLOEXEC)
    for extra in descriptors[1:]:
        os.close(extra)
    descriptor = descriptors[0] if descriptors else None
    try:
        connection.settimeout(PATIENCE)
        head = octets + _exactly(connection, messages.LENGTH - len(octets)) if octets else _gone()
        return _exactly(connection, messages.frame_length(head, longest=messages.LONGEST_REQUEST)), descriptor
    except BaseException:
        _close(descriptor)
        raise


def _gone() -> bytes:
    raise EOFError("it hung up")


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        part = connection.recv(count) or _gone()
        parts.append(part)
        count -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
