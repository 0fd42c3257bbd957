"""Who may do what issues and revokes nothing: make tokens, log in at stations, ask for grave acts and answer them, decide, confirm (P2).
Ring 1: pure. As in `ca.rules.grant`, a kind of evidence without a branch is denied."""

from __future__ import annotations

from ca.errors import Denied, Unacceptable, Unauthenticated
from ca.model import (
    ApprovalDecision,
    Certificate,
    ConfirmRequest,
    DeviceId,
    EvidenceKind,
    Name,
    Operator,
    OperatorName,
    Profile,
    Role,
    ShiftRequest,
    TenantId,
    TokenRequest,
    UnixTime,
)
from ca.rules import renewal
from ca.rules.caps import Power, powers_of
from ca.rules.evidence import Claim
from ca.rules.grant import Policy, by_presenting, check_owner, for_devices, role_actor, shown, speaking_operator


def token(
    found: Claim, request: TokenRequest, policy: Policy, *, record: Certificate | None, operator: Operator | None, now: UnixTime
) -> str:
    """May this evidence make a token for that device? Returns the actor for the record."""
    match found.kind:
        case EvidenceKind.local if found.peer.role is Role.operator:
            actor = role_actor(found)
        case EvidenceKind.message:
            own = shown(found, record, now=now)
            renewal.newest(own, now=now)
            actor = f"operator:{speaking_operator(own, operator, power=Power.create_token)}"
            message = found.message
            said = None if message is None else (message.device, message.profile, message.names, message.lifetime)
            if said != (request.device, request.profile, request.names, request.lifetime):
                raise Unauthenticated("message-for-another-act", "The signed message asks for another token.")
            check_owner(operator, policy, request.device)
        case _:
            raise Denied("evidence-unknown", "This kind of evidence makes no tokens.")
    for_devices(policy, request.device, request.profile)
    return actor


def open_shift(
    found: Claim, request: ShiftRequest, policy: Policy, *, record: Certificate | None, operator: Operator | None, now: UnixTime
) -> tuple[OperatorName, TenantId]:
    """May this evidence log in at that station? Returns who does, and whose units they make: those of the operator's own tenant."""
    own = shown(found, record, now=now)
    renewal.newest(own, now=now)
    name = speaking_operator(own, operator, power=Power.provision)
    message = found.message
    asked = (request.station, request.station_key.hex(), request.count), request.profile, request.lifetime
    if message is None or (message.station, message.profile, message.lifetime) != asked:
        raise Unauthenticated("message-for-another-act", "The signed message asks for another shift.")
    assert operator is not None, "one of that name was found"
    own_policy = policy.seen_by(operator.tenant)
    for_devices(own_policy, DeviceId("unit"), request.profile)
    judge_names(own_policy.profile(request.profile), ())
    return name, operator.tenant


def proposal(found: Claim, *, record: Certificate | None, operator: Operator | None, now: UnixTime) -> Operator:
    """May this evidence ask for a grave act? Returns who asks."""
    return _signing(found, record, operator, power=Power.propose, now=now)


def authorization(
    found: Claim, request: ApprovalDecision, *, record: Certificate | None, operator: Operator | None, asked_by: OperatorName, now: UnixTime
) -> Operator:
    """May this evidence answer a grave act? Returns who answers. Who asked may: to take it back.

    Raises:
        Denied: it is not signed by an operator (`approval-unsigned`), or the roles do not allow it.
    """
    if found.kind is not EvidenceKind.message:
        raise Denied(
            "approval-unsigned",
            "A grave act is approved by a signature.",
            why="Whoever may use this machine is not thereby another person.",
            fix="Sign with an operator's key: fleetca approvals approve REQUEST --certificate FILE --key FILE",
        )
    own = operator is not None and operator.name == asked_by
    by = _signing(found, record, operator, power=Power.propose if own else Power.authorize, now=now)
    if found.message is None or found.message.decision != (request.request, request.approve, request.reason):
        raise Unauthenticated("message-for-another-act", "The signed message decides something else.")
    return by


def _signing(found: Claim, record: Certificate | None, operator: Operator | None, *, power: Power, now: UnixTime) -> Operator:
    if found.kind is not EvidenceKind.message:
        raise Denied("evidence-unknown", "This kind of evidence asks for no grave act.")
    own = shown(found, record, now=now)
    renewal.newest(own, now=now)
    speaking_operator(own, operator, power=power)
    assert operator is not None, "speaking_operator sees to it"
    return operator


def approval(
    found: Claim,
    request: ApprovalDecision,
    *,
    record: Certificate | None,
    operator: Operator | None,
    powers: frozenset[Power],
    now: UnixTime,
) -> str:
    """May this evidence decide on a request that waits? Returns the actor for the record.

    Args:
        powers: any of them suffices.
    """
    match found.kind:
        case EvidenceKind.local if found.peer.role is Role.operator:
            return role_actor(found)
        case EvidenceKind.message:
            own = shown(found, record, now=now)
            renewal.newest(own, now=now)
            held = frozenset() if operator is None else powers_of(operator)
            actor = f"operator:{speaking_operator(own, operator, power=next(iter(powers & held), Power.approve))}"
            if found.message is None or found.message.decision != (request.request, request.approve, request.reason):
                raise Unauthenticated("message-for-another-act", "The signed message decides something else.")
            return actor
        case _:
            raise Denied("evidence-unknown", "This kind of evidence decides nothing.")


def local_actor(found: Claim) -> str:
    """Who withdraws a token: `ca.rules.evidence` lets nobody but an operator of this machine get so far."""
    return role_actor(found)


def confirmation(
    found: Claim, request: ConfirmRequest, policy: Policy, *, record: Certificate | None, successor: Certificate | None, now: UnixTime
) -> Certificate:
    """The certificate whose key authenticated to us, and may say what the request says.

    Args:
        successor: the row of `request.successor`, where one is named.
    """
    if found.kind not in {EvidenceKind.presented, EvidenceKind.message}:
        raise Denied("evidence-unknown", "This kind of evidence confirms nothing.")
    own = shown(found, record, now=now)
    if found.message is not None and found.message.target != request.successor:
        raise Unauthenticated("message-for-another-act", "The signed message confirms something else.")
    if found.kind is EvidenceKind.presented:
        by_presenting(found, own, policy)
    if request.successor is None:
        renewal.newest(own, now=now)
    else:
        renewal.delivery(own, successor, now=now)
    return own


def judge_names(profile: Profile, names: tuple[Name, ...]) -> None:
    """Could a certificate of this profile carry these names? Asked when a token is made, so that a device does not find out years later.

    Raises:
        Unacceptable: `name-not-allowed`, `names-required`.
    """
    for name in names:
        if name.kind not in profile.allowed_names:
            raise Unacceptable(
                "name-not-allowed", f"Profile {profile.name!r} allows no {name.kind} names.", why=f"{name.value!r} was asked for."
            )
    if profile.required_names and not names:
        kinds = ", ".join(profile.allowed_names)
        raise Unacceptable(
            "names-required", f"Certificates of profile {profile.name!r} need at least one name.", why=f"Allowed are {kinds}."
        )
