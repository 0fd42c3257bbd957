"""What travels on the signer's socket: bytes <-> words. Ring 1: pure.

A frame is four octets of length, most significant first, and that many octets of JSON. A connection opens with `hello`, naming one role;
then each request `{"verb", "body"}` gets one answer, `{"ok": ...}` or `{"error": {...}}`, in order. Evidence travels tagged by its
kind; local evidence carries nothing: the signer fills in what the kernel says of the peer. Knows neither sockets nor what a verb does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import orjson

from ca import errors
from ca.model import (
    AccountBinding,
    ApprovalDecision,
    CertificateRef,
    ConfirmRequest,
    DeviceId,
    Evidence,
    EvidenceKind,
    IssueRequest,
    IssuerId,
    KnownHardware,
    LocalEvidence,
    ManufacturerCertificate,
    MassPart,
    MessageEvidence,
    Name,
    Outline,
    Peer,
    PresentedCertificate,
    ProfileName,
    ProposalRequest,
    Reason,
    RenewalOrderRequest,
    RenewalOrderWithdrawal,
    RevokeRequest,
    Role,
    Serial,
    TokenEvidence,
    TokenRequest,
    TokenWithdrawal,
    TpmAttestation,
    ValidatedNames,
)
from ca.rules import forms, ids
from ca.rules.message import names_from, names_to

VERSION: Final = 1
LONGEST_REQUEST: Final = 1 << 20
LONGEST_ANSWER: Final = 16 << 20
LENGTH: Final = 4
LARGEST_NUMBER: Final = 1 << 53
"""Of CRLs, shards and fences; what every JSON reader holds exactly (RFC 8259 6)."""

_TAGS: Final[Mapping[str, tuple[type, tuple[str, ...]]]] = {
    EvidenceKind.token.value: (TokenEvidence, ("token",)),
    EvidenceKind.message.value: (MessageEvidence, ("payload", "certificate", "signature")),
    EvidenceKind.presented.value: (PresentedCertificate, ("certificate",)),
    EvidenceKind.local.value: (LocalEvidence, ()),
    EvidenceKind.manufacturer.value: (ManufacturerCertificate, ("certificate",)),
    EvidenceKind.validated.value: (ValidatedNames, ("account", "purpose", "profile", "names", "token", "replaces")),
    EvidenceKind.hardware.value: (KnownHardware, ()),
    EvidenceKind.binding.value: (AccountBinding, ("account", "profile", "key_id", "octets", "mac", "digest")),
}


# ---- Frames ---------------------------------------------------------------------------------------------------------


def frame(document: Mapping[str, Any]) -> bytes:
    """One frame. Half a surrogate pair, which JSON may escape and UTF-8 cannot hold, leaves as the escape it came as."""
    try:
        body = orjson.dumps(document)
    except TypeError:
        body = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(errors="backslashreplace")
    return len(body).to_bytes(LENGTH, "big") + body


def frame_length(head: bytes, *, longest: int) -> int:
    """How many octets follow these four.

    Raises:
        Malformed: `frame-too-long`.
    """
    count = int.from_bytes(head, "big")
    if not 0 < count <= longest:
        raise errors.Malformed(
            "frame-too-long", "The frame is empty or too long.", why=f"It claims {count} octets; at most {longest} may come."
        )
    return count


def unframe(body: bytes) -> dict[str, Any]:
    """The JSON object in a frame."""
    try:
        document = orjson.loads(body)
    except ValueError:
        raise forms.bad("It is not JSON.") from None
    if not isinstance(document, dict):
        raise forms.bad("It must be a JSON object.")
    return document


def hello(role: Role) -> dict[str, Any]:
    return {"hello": VERSION, "role": role.value}


def read_hello(document: Mapping[str, Any]) -> Role:
    """The role a peer names; whether it has it is the server's question."""
    if set(document) != {"hello", "role"} or document["hello"] != VERSION:
        raise errors.Malformed(
            "bad-hello",
            "This is not the greeting of our client.",
            why=f"The first frame must be hello, version {VERSION}, with one role.",
            fix="Run client and signer of the same release.",
        )
    return forms.read(Role, document["role"])


def request(verb: str, body: Mapping[str, Any]) -> dict[str, Any]:
    return {"verb": verb, "body": body}


def read_request(document: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Verb and body of a request."""
    if set(document) != {"verb", "body"} or not isinstance(document["verb"], str) or not isinstance(document["body"], dict):
        raise forms.bad("It must hold `verb`, a string, and `body`, an object.")
    return document["verb"], document["body"]


# ---- Errors ---------------------------------------------------------------------------------------------------------

_LATER: Final = {
    kind.__name__: kind for kind in (errors.Busy, errors.KeyUnavailable, errors.StoreUnavailable, errors.ClockUntrusted, errors.Unavailable)
}
_FINAL: Final[Mapping[str, type[errors.FleetcaError]]] = {
    kind.__name__: kind
    for kind in (
        errors.Malformed,
        errors.Unauthenticated,
        errors.Denied,
        errors.Contested,
        errors.NotFound,
        errors.Conflict,
        errors.Unacceptable,
        errors.Misconfigured,
    )
}


def write_error(error: errors.FleetcaError) -> dict[str, Any]:
    """An error as it travels: class, code and words; never a traceback."""
    document: dict[str, Any] = {
        "class": type(error).__name__,
        "code": error.code,
        "what": error.what,
        "why": error.why,
        "fix": error.fix,
    }
    if isinstance(error, errors.Unavailable):
        document["retry_after"] = error.retry_after
    return {"error": document}


def read_answer(document: Mapping[str, Any]) -> Any:
    """What an answer holds under `ok`; raises the error it holds instead."""
    if "ok" in document:
        return document["ok"]
    given = document.get("error")
    if not isinstance(given, dict):
        raise errors.Broken("bad-answer", "The signer's answer cannot be read.")
    kind, code, what, why, fix = (str(given.get(part, "")) for part in ("class", "code", "what", "why", "fix"))
    if kind in _LATER:
        after = given.get("retry_after")
        raise _LATER[kind](code, what, why=why, fix=fix, retry_after=after if isinstance(after, int) else 5)
    raise _FINAL.get(kind, errors.Broken)(code, what, why=why, fix=fix)


def read_outcome(document: Any) -> bytes | errors.FleetcaError:
    """One of many that were asked for together: what it got, or what it was refused with."""
    if isinstance(document, str):
        return forms.read(bytes, document)
    try:
        read_answer(document if isinstance(document, dict) else {})
    except errors.FleetcaError as error:
        return error
    raise errors.Broken("bad-answer", "The signer's answer cannot be read.")


# ---- Requests -------------------------------------------------------------------------------------------------------


def write_evidence(evidence: Evidence) -> dict[str, Any]:
    for tag, (kind, parts) in _TAGS.items():
        if type(evidence) is kind:
            return {"kind": tag, **{part: forms.write(getattr(evidence, part)) for part in parts}}
    raise forms.bad("This kind of evidence is not known.")


def read_evidence(document: Any, peer: Peer) -> Evidence:
    """Evidence as the peer sent it. What it says of itself as local evidence is never read: the kernel's word stands there."""
    if not isinstance(document, dict):
        raise forms.bad("Evidence must be an object.")
    tag = document.get("kind")
    known = _TAGS.get(tag) if isinstance(tag, str) else None
    if known is None:
        raise forms.bad("This kind of evidence is not known.")
    kind, parts = known
    if set(document) != {"kind", *parts}:
        raise forms.bad(f"Evidence of kind {tag} holds {', '.join(parts) or 'nothing else'}.")
    if kind is LocalEvidence:
        return LocalEvidence(peer.role, peer.uid)
    found: Evidence = forms.read(kind, {part: document[part] for part in parts})
    return found


def write_ref(ref: CertificateRef) -> dict[str, str]:
    return {"issuer": ref.issuer, "serial": f"{ref.serial:040x}"}


def read_ref(document: Any) -> CertificateRef:
    if not isinstance(document, dict) or set(document) != {"issuer", "serial"}:
        raise forms.bad("A certificate is named by `issuer` and `serial`.")
    return CertificateRef(ids.issuer_id(forms.read(str, document["issuer"])), ids.serial_from_hex(forms.read(str, document["serial"])))


def write_outline(row: Outline) -> list[Any]:
    """A row of a long list: no names beside its values, and nothing looked up to write it."""
    return [row.ref.issuer, f"{row.ref.serial:x}", row.device, row.profile, row.not_after, row.revocable]


def read_outline(row: Any) -> Outline:
    try:
        issuer, serial, device, profile, not_after, revocable = row
        return Outline(CertificateRef(issuer, Serial(int(serial, 16))), device, profile, not_after, revocable)
    except (TypeError, ValueError):
        raise forms.bad("A row has six values.") from None


def _only(body: Mapping[str, Any], *, required: frozenset[str], optional: frozenset[str] = frozenset()) -> None:
    if not required <= body.keys() or not body.keys() <= required | optional:
        raise forms.bad(f"It takes {', '.join(sorted(required))}; optional: {', '.join(sorted(optional)) or 'nothing'}.")


def _device(body: Mapping[str, Any]) -> DeviceId | None:
    return ids.device_id(forms.read(str, body["device"])) if "device" in body else None


def _profile(body: Mapping[str, Any]) -> ProfileName | None:
    return ids.profile_name(forms.read(str, body["profile"])) if "profile" in body else None


def _names(body: Mapping[str, Any]) -> tuple[Name, ...]:
    return names_from(body["names"]) if "names" in body else ()


def write_issue(asked: IssueRequest) -> dict[str, Any]:
    body: dict[str, Any] = {"csr": forms.write(asked.csr), "evidence": write_evidence(asked.evidence)}
    if asked.device is not None:
        body["device"] = asked.device
    if asked.profile is not None:
        body["profile"] = asked.profile
    if asked.names:
        body["names"] = names_to(asked.names)
    if asked.issuer is not None:
        body["issuer"] = asked.issuer
    if asked.attestation is not None:
        body["attestation"] = forms.write(asked.attestation)
    return body


def read_issue(body: Mapping[str, Any], peer: Peer) -> IssueRequest:
    _only(body, required=frozenset({"csr", "evidence"}), optional=frozenset({"device", "profile", "names", "issuer", "attestation"}))
    return IssueRequest(
        csr=forms.read(bytes, body["csr"]),
        evidence=read_evidence(body["evidence"], peer),
        device=_device(body),
        profile=_profile(body),
        names=_names(body),
        issuer=ids.issuer_id(forms.read(str, body["issuer"])) if "issuer" in body else None,
        attestation=forms.read(TpmAttestation, body["attestation"]) if "attestation" in body else None,
    )


def write_revoke(asked: RevokeRequest) -> dict[str, Any]:
    body: dict[str, Any] = {"evidence": write_evidence(asked.evidence), "reason": asked.reason.name}
    if asked.target is not None:
        body["target"] = write_ref(asked.target)
    if asked.device is not None:
        body["device"] = asked.device
    if asked.invalid_from is not None:
        body["invalid_from"] = asked.invalid_from
    if asked.others:
        body["others"] = [write_ref(ref) for ref in asked.others]
    if asked.part is not None:
        body["part"] = forms.write(asked.part)
    return body


def read_revoke(body: Mapping[str, Any], peer: Peer) -> RevokeRequest:
    _only(body, required=frozenset({"evidence", "reason"}), optional=frozenset({"target", "device", "invalid_from", "others", "part"}))
    reason: Reason = ids.reason_named(forms.read(str, body["reason"]))
    return RevokeRequest(
        evidence=read_evidence(body["evidence"], peer),
        reason=reason,
        target=read_ref(body["target"]) if "target" in body else None,
        device=_device(body),
        invalid_from=forms.read(int, body["invalid_from"]) if "invalid_from" in body else None,
        others=_others(body),
        part=forms.read(MassPart, body["part"]) if "part" in body else None,
    )


def _others(body: Mapping[str, Any]) -> tuple[CertificateRef, ...]:
    found = body.get("others", [])
    if not isinstance(found, list):
        raise forms.bad("`others` is a list.")
    return tuple(map(read_ref, found))


def write_token(asked: TokenRequest) -> dict[str, Any]:
    return {
        "evidence": write_evidence(asked.evidence),
        "device": asked.device,
        "profile": asked.profile,
        "names": names_to(asked.names),
        "lifetime": asked.lifetime,
    }


def read_token(body: Mapping[str, Any], peer: Peer) -> TokenRequest:
    _only(body, required=frozenset({"evidence", "device", "profile", "lifetime"}), optional=frozenset({"names"}))
    return TokenRequest(
        evidence=read_evidence(body["evidence"], peer),
        device=ids.device_id(forms.read(str, body["device"])),
        profile=ids.profile_name(forms.read(str, body["profile"])),
        names=_names(body),
        lifetime=forms.read(int, body["lifetime"]),
    )


def write_withdrawal(asked: TokenWithdrawal) -> dict[str, Any]:
    return {"evidence": write_evidence(asked.evidence), "device": asked.device, "hash": asked.hash}


def read_withdrawal(body: Mapping[str, Any], peer: Peer) -> TokenWithdrawal:
    _only(body, required=frozenset({"evidence", "device", "hash"}))
    return TokenWithdrawal(
        evidence=read_evidence(body["evidence"], peer),
        device=ids.device_id(forms.read(str, body["device"])),
        hash=ids.hash_beginning(forms.read(str, body["hash"])),
    )


def write_order(asked: RenewalOrderRequest) -> dict[str, Any]:
    return {
        "evidence": write_evidence(asked.evidence),
        "within": asked.within,
        "issuer": asked.issuer,
        "profile": asked.profile,
        "reason": asked.reason,
    }


def read_order(body: Mapping[str, Any], peer: Peer) -> RenewalOrderRequest:
    _only(body, required=frozenset({"evidence", "within", "issuer", "profile", "reason"}))
    return RenewalOrderRequest(
        evidence=read_evidence(body["evidence"], peer),
        within=forms.read(int, body["within"]),
        issuer=None if body["issuer"] is None else ids.issuer_id(forms.read(str, body["issuer"])),
        profile=None if body["profile"] is None else ids.profile_name(forms.read(str, body["profile"])),
        reason=forms.read(str, body["reason"]),
    )


def write_order_withdrawal(asked: RenewalOrderWithdrawal) -> dict[str, Any]:
    return {"evidence": write_evidence(asked.evidence), "number": asked.number}


def read_order_withdrawal(body: Mapping[str, Any], peer: Peer) -> RenewalOrderWithdrawal:
    _only(body, required=frozenset({"evidence", "number"}))
    return RenewalOrderWithdrawal(read_evidence(body["evidence"], peer), forms.read(int, body["number"]))


def write_binding(asked: AccountBinding) -> dict[str, Any]:
    return {"evidence": write_evidence(asked)}


def read_binding(body: Mapping[str, Any], peer: Peer) -> Evidence:
    return read_only_evidence(body, peer)


def write_proposal(asked: ProposalRequest) -> dict[str, Any]:
    return {"evidence": write_evidence(asked.evidence)}


def read_only_evidence(body: Mapping[str, Any], peer: Peer) -> Evidence:
    _only(body, required=frozenset({"evidence"}))
    return read_evidence(body["evidence"], peer)


def write_decision(asked: ApprovalDecision) -> dict[str, Any]:
    return {"evidence": write_evidence(asked.evidence), "request": asked.request, "approve": asked.approve, "reason": asked.reason}


def read_decision(body: Mapping[str, Any], peer: Peer) -> ApprovalDecision:
    _only(body, required=frozenset({"evidence", "request", "approve", "reason"}))
    return ApprovalDecision(
        evidence=read_evidence(body["evidence"], peer),
        request=ids.hash_beginning(forms.read(str, body["request"])),
        approve=forms.read(bool, body["approve"]),
        reason=forms.read(str, body["reason"]),
    )


def write_confirm(asked: ConfirmRequest) -> dict[str, Any]:
    body: dict[str, Any] = {"evidence": write_evidence(asked.evidence)}
    if asked.successor is not None:
        body["successor"] = write_ref(asked.successor)
    return body


def read_confirm(body: Mapping[str, Any], peer: Peer) -> ConfirmRequest:
    _only(body, required=frozenset({"evidence"}), optional=frozenset({"successor"}))
    return ConfirmRequest(read_evidence(body["evidence"], peer), read_ref(body["successor"]) if "successor" in body else None)


def write_files(files: Mapping[str, bytes]) -> dict[str, Any]:
    return {"files": {name: forms.write(octets) for name, octets in files.items()}}


def read_files(body: Mapping[str, Any]) -> dict[str, bytes]:
    _only(body, required=frozenset({"files"}))
    files = body["files"]
    if not isinstance(files, dict) or not files:
        raise forms.bad("It takes files by name.")
    return {name: forms.read(bytes, octets) for name, octets in files.items()}


def write_crl(issuer: IssuerId, *, shard: int, above: int, fence: int, base: int | None = None, afresh: bool = False) -> dict[str, Any]:
    body: dict[str, Any] = {"issuer": issuer, "shard": shard, "above": above, "fence": fence}
    if base is not None:
        body["base"] = base
    if afresh:
        body["afresh"] = True
    return body


def read_crl_form(body: Mapping[str, Any]) -> tuple[dict[str, Any], int | None, bool]:
    """What `read_crl` reads, and how the CRL is wanted: above which base it is a delta, and whether its entries are to be encoded anew."""
    base = forms.read(int, body["base"]) if "base" in body else None
    afresh = forms.read(bool, body["afresh"]) if "afresh" in body else False
    if base is not None and not 0 < base < LARGEST_NUMBER:
        raise forms.bad(f"Numbers are positive and below {LARGEST_NUMBER}.")
    return {key: value for key, value in body.items() if key not in {"base", "afresh"}}, base, afresh


def read_crl(body: Mapping[str, Any]) -> tuple[IssuerId, int, int, int]:
    """Issuer, shard, the number to stay above (or, once published, the number), and the fence."""
    _only(body, required=frozenset({"issuer", "shard", "above", "fence"}))
    numbers = [forms.read(int, body[key]) for key in ("shard", "above", "fence")]
    if min(numbers) < 0 or max(numbers) >= LARGEST_NUMBER:
        # One above 64 bits would be the last of its issuer: no later CRL could be numbered above it.
        raise forms.bad(f"Numbers are not negative and below {LARGEST_NUMBER}.")
    return ids.issuer_id(forms.read(str, body["issuer"])), numbers[0], numbers[1], numbers[2]
