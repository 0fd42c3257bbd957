"""The few commands of a TPM 2.0 that a signing key and its attestation need, as octets, and the ways to a TPM. Ring 3. Knows no key store.

Structures and numbers are those of the TPM 2.0 Library, parts 2 and 3 (1.59); each function names its command. Sessions are passwords: on
this path, from this process through the kernel to the chip of the same machine, whoever could listen could also ask. Why these few hundred
lines stand in place of a library: docs/adr/0011-key-stores.md.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, Protocol

from ca.errors import KeyUnavailable

OWNER: Final = 0x40000001
ENDORSEMENT: Final = 0x4000000B
NULL_HIERARCHY: Final = 0x40000007
PASSWORD: Final = 0x40000009
_NO_SESSIONS: Final = 0x8001
_SESSIONS: Final = 0x8002
_HASHCHECK: Final = 0x8024

EVICT_CONTROL: Final = 0x120
ACTIVATE_CREDENTIAL: Final = 0x147
CERTIFY: Final = 0x148
NV_READ: Final = 0x14E
POLICY_SECRET: Final = 0x151
NV_READ_PUBLIC: Final = 0x169
START_AUTH_SESSION: Final = 0x176
CREATE_PRIMARY: Final = 0x131
CREATE: Final = 0x153
LOAD: Final = 0x157
SIGN: Final = 0x15D
FLUSH_CONTEXT: Final = 0x165
READ_PUBLIC: Final = 0x173
GET_CAPABILITY: Final = 0x17A
TEST_PARMS: Final = 0x18A

CAP_HANDLES: Final = 1
CAP_PROPERTIES: Final = 6
PT_VENDOR: Final = 0x106
"""TPM_PT_VENDOR_STRING_1."""
PT_MANUFACTURER: Final = 0x105

RC_HANDLE: Final = 0x08B
RC_NV_DEFINED: Final = 0x14C
RC_AUTH_FAIL: Final = frozenset({0x08E, 0x0A2})
RC_LOCKOUT: Final = 0x921
_BUSY: Final = frozenset({0x922, 0x908, 0x90A, 0x920, 0x923})
"""RETRY, YIELDED, TESTING, NV_RATE, NV_UNAVAILABLE: the same command may succeed a moment later."""
_TRIES: Final = 5
_LARGEST: Final = 4096
_AUTHREAD: Final = 1 << 18
"""TPMA_NV, part 2, 13.4."""
_NV_PIECE: Final = 512
"""Octets that every TPM gives at once (TPM_PT_NV_BUFFER_MAX is at least that)."""


class TpmError(Exception):
    """A TPM answered with an error. `code` has no parameter or session number in it."""

    def __init__(self, code: int) -> None:
        super().__init__(f"TPM_RC 0x{code:03x}")
        # Format one (bit 7): the upper nibble and bit 6 say which parameter, handle or session it is about.
        self.code = code & 0xBF if code & 0x80 else code


class Channel(Protocol):
    """One conversation with a TPM."""

    def exchange(self, command: bytes) -> bytes: ...


class _Device:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def exchange(self, command: bytes) -> bytes:
        os.write(self._descriptor, command)
        return os.read(self._descriptor, _LARGEST)


class _Simulator:
    """swtpm with `--server type=tcp,port=...,disconnect`: a connection for each command."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)

    def exchange(self, command: bytes) -> bytes:
        with socket.create_connection(self._address, timeout=30) as line:
            line.sendall(command)
            answer = b""
            while len(answer) < 6 or len(answer) < struct.unpack(">I", answer[2:6])[0]:
                part = line.recv(_LARGEST)
                if not part:
                    raise OSError("the simulator closed the connection")
                answer += part
            return answer


@contextmanager
def conversation(device: str) -> Iterator[Channel]:
    """Talk to a TPM: `/dev/tpmrm0`, whose resource manager forgets what was loaded when the file is closed, or `HOST:PORT` of a simulator.

    Raises:
        KeyUnavailable: it is not there, or ends in the middle (`tpm-absent`), or it is broken (`tpm-refused`).
    """
    descriptor = None
    try:
        if device.startswith("/"):
            descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            yield _Device(descriptor)
        else:
            host, _, port = device.rpartition(":")
            yield _Simulator(host, int(port))
    except OSError as error:
        raise KeyUnavailable(
            "tpm-absent",
            f"The TPM {device} cannot be used.",
            why=f"{error.strerror or error}.",
            fix="Check that the device is there and open to this user (group tss), or that the simulator runs.",
        ) from None
    except TpmError as error:  # of a question that nobody expects to be refused
        raise KeyUnavailable(
            "tpm-refused",
            f"The TPM {device} does not answer as it must.",
            why=f"It says {error}.",
            fix="tpm2_rc_decode says what that means.",
        ) from None
    finally:
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)


# ---- Octets -------------------------------------------------------------------------------------------------------------


def sized(octets: bytes) -> bytes:
    """TPM2B: a size of 16 bits and the octets."""
    return struct.pack(">H", len(octets)) + octets


@dataclass(slots=True)
class Reader:
    """Reads an answer, never beyond its end."""

    octets: bytes
    at: int = 0

    def take(self, count: int) -> bytes:
        found = self.octets[self.at : self.at + count]
        if len(found) != count:
            raise KeyUnavailable(
                "tpm-garbled", "The TPM's answer is too short.", fix="Restart the machine; replace the TPM if it stays so."
            )
        self.at += count
        return found

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def sized(self) -> bytes:
        return self.take(self.number(2))


def run(
    channel: Channel,
    code: int,
    handles: tuple[int, ...],
    parameters: bytes = b"",
    *,
    auth: bytes | None = None,
    more: tuple[tuple[int, bytes], ...] = (),
    returns_handle: bool = False,
) -> tuple[int, Reader]:
    """One command; the handle that it returned (0 for none), and its parameters.

    Args:
        channel: the conversation.
        code: TPM_CC.
        handles: of the objects it is about.
        parameters: as octets.
        auth: the password of the first handle; None where the command has no session.
        more: of each handle after it that wants one, a session and its password: `PASSWORD`, or a policy session and nothing.
        returns_handle: whether its answer begins with one.

    Raises:
        TpmError: the TPM refused.
        KeyUnavailable: the answer cannot be read (`tpm-garbled`).
    """
    body = b"".join(struct.pack(">I", handle) for handle in handles)
    if auth is not None:
        sessions = b"".join(struct.pack(">I", each) + sized(b"") + b"\x01" + sized(secret) for each, secret in ((PASSWORD, auth), *more))
        body += struct.pack(">I", len(sessions)) + sessions
    body += parameters
    command = struct.pack(">HII", _NO_SESSIONS if auth is None else _SESSIONS, 10 + len(body), code) + body
    outcome = 0
    for attempt in range(_TRIES):
        answer = Reader(channel.exchange(command))
        tag, size, outcome = answer.number(2), answer.number(4), answer.number(4)
        if size != len(answer.octets):
            raise KeyUnavailable("tpm-garbled", "The TPM's answer has another length than it says.", fix="Restart the machine.")
        if outcome == 0:
            handle = answer.number(4) if returns_handle else 0
            if tag == _SESSIONS:
                answer = Reader(answer.take(answer.number(4)))
            return handle, answer
        if outcome not in _BUSY or attempt + 1 == _TRIES:
            break
    raise TpmError(outcome)


# ---- Commands -----------------------------------------------------------------------------------------------------------


def create_primary(channel: Channel, public: bytes, *, hierarchy: int = OWNER) -> int:
    """TPM2_CreatePrimary in a hierarchy whose password is empty; the object's handle."""
    parameters = _sensitive(b"") + sized(public) + sized(b"") + struct.pack(">I", 0)
    handle, _ = run(channel, CREATE_PRIMARY, (hierarchy,), parameters, auth=b"", returns_handle=True)
    return handle


def create(channel: Channel, parent: int, public: bytes, auth: bytes) -> tuple[bytes, bytes]:
    """TPM2_Create; the private half, wrapped by its parent, and the public one."""
    parameters = _sensitive(auth) + sized(public) + sized(b"") + struct.pack(">I", 0)
    _, answer = run(channel, CREATE, (parent,), parameters, auth=b"")
    return answer.sized(), answer.sized()


def load(channel: Channel, parent: int, private: bytes, public: bytes) -> int:
    """TPM2_Load; the object's handle."""
    handle, _ = run(channel, LOAD, (parent,), sized(private) + sized(public), auth=b"", returns_handle=True)
    return handle


def evict_control(channel: Channel, handle: int, persistent: int) -> None:
    """TPM2_EvictControl: makes a loaded object persistent, or (where both are the same) removes a persistent one."""
    run(channel, EVICT_CONTROL, (OWNER, handle), struct.pack(">I", persistent), auth=b"")


def flush_context(channel: Channel, handle: int) -> None:
    """TPM2_FlushContext."""
    run(channel, FLUSH_CONTEXT, (), struct.pack(">I", handle))


def read_public(channel: Channel, handle: int) -> bytes:
    """TPM2_ReadPublic: the TPMT_PUBLIC of an object."""
    _, answer = run(channel, READ_PUBLIC, (handle,))
    return answer.sized()


def sign(channel: Channel, handle: int, digest: bytes, auth: bytes) -> Reader:
    """TPM2_Sign with the scheme of the key; the TPMT_SIGNATURE."""
    ticket = struct.pack(">HI", _HASHCHECK, NULL_HIERARCHY) + sized(b"")
    _, answer = run(channel, SIGN, (handle,), sized(digest) + struct.pack(">H", 0x0010) + ticket, auth=auth)
    return answer


def certify(channel: Channel, handle: int, auth: bytes, signer: int, qualifying: bytes) -> tuple[bytes, bytes]:
    """TPM2_Certify with a signer without password; the TPMS_ATTEST, and the TPMT_SIGNATURE over it."""
    parameters = sized(qualifying) + struct.pack(">H", 0x0010)
    _, answer = run(channel, CERTIFY, (handle, signer), parameters, auth=auth, more=((PASSWORD, b""),))
    attest = answer.sized()
    begins = answer.at
    scheme, _ = answer.number(2), answer.number(2)
    for _ in range(2 if scheme == 0x0018 else 1):
        answer.sized()
    return attest, answer.octets[begins : answer.at]


def activate_credential(channel: Channel, attester: int, endorsement: int, *, session: int | None, blob: bytes, seed: bytes) -> bytes:
    """TPM2_ActivateCredential: what was in the credential. `session`: a policy session that lets us use the endorsement key; None: no password does."""
    with_key = (PASSWORD, b"") if session is None else (session, b"")
    _, answer = run(channel, ACTIVATE_CREDENTIAL, (attester, endorsement), sized(blob) + sized(seed), auth=b"", more=(with_key,))
    return answer.sized()


def endorsement_session(channel: Channel) -> int:
    """TPM2_StartAuthSession and TPM2_PolicySecret: what an endorsement key's policy asks for (TCG EK Credential Profile, B.3); to be flushed."""
    # A policy session without HMAC: its nonces protect nothing, and the caller's is any of the least length.
    parameters = sized(bytes(16)) + sized(b"") + struct.pack(">BHH", 1, 0x0010, 0x000B)
    session, _ = run(channel, START_AUTH_SESSION, (NULL_HIERARCHY, NULL_HIERARCHY), parameters, returns_handle=True)
    run(channel, POLICY_SECRET, (ENDORSEMENT, session), sized(b"") * 3 + struct.pack(">I", 0), auth=b"")
    return session


def nv_read(channel: Channel, index: int) -> bytes | None:
    """TPM2_NV_ReadPublic and TPM2_NV_Read: what lies under an NV index, as its owner or anybody; None where there is nothing."""
    try:
        _, answer = run(channel, NV_READ_PUBLIC, (index,))
    except TpmError as error:
        if error.code == RC_HANDLE:
            return None
        raise
    area = Reader(answer.sized())
    area.take(6)
    attributes = area.number(4)
    area.sized()
    size = area.number(2)
    by = index if attributes & _AUTHREAD else OWNER
    octets = b""
    while len(octets) < size:
        step = min(_NV_PIECE, size - len(octets))
        _, answer = run(channel, NV_READ, (by, index), struct.pack(">HH", step, len(octets)), auth=b"")
        octets += answer.sized()
    return octets


def handles(channel: Channel, first: int, count: int) -> list[int]:
    """TPM2_GetCapability: the handles in use from `first` on."""
    _, answer = run(channel, GET_CAPABILITY, (), struct.pack(">III", CAP_HANDLES, first, count))
    answer.take(5)
    return [answer.number(4) for _ in range(answer.number(4))]


def property_of(channel: Channel, number: int) -> int:
    """TPM2_GetCapability: one property; 0 where the TPM does not have it."""
    _, answer = run(channel, GET_CAPABILITY, (), struct.pack(">III", CAP_PROPERTIES, number, 1))
    answer.take(5)
    if not answer.number(4):
        return 0
    found, value = answer.number(4), answer.number(4)
    return value if found == number else 0


def can_make(channel: Channel, kind: int, parameters: bytes) -> bool:
    """TPM2_TestParms: whether it could make such a key."""
    try:
        run(channel, TEST_PARMS, (), struct.pack(">H", kind) + parameters)
    except TpmError:
        return False
    return True


def _sensitive(auth: bytes) -> bytes:
    return sized(sized(auth) + sized(b""))
