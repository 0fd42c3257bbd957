"""Who would get which certificate: each kind of evidence, judged by what is on record (P2). Ring 1: pure. `ca.rules.grant` makes the grant of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from ca.errors import Denied, Malformed, Unauthenticated
from ca.model import (
    OWN_SERVICES,
    Certificate,
    CertificateState,
    Device,
    DeviceId,
    Digest,
    EvidenceKind,
    IssueRequest,
    Name,
    Operator,
    ProfileName,
    RenewalOrder,
    Role,
    Shift,
    StatusKind,
    Token,
    UnixTime,
    ValidatedNames,
)
from ca.rules import manufacturer, renewal
from ca.rules import token as token_rule
from ca.rules.caps import Power, within
from ca.rules.evidence import Claim
from ca.rules.grant import (
    ENROLL_DEVICE,
    OPERATOR,
    OPERATOR_DEVICE,
    RESPONDER,
    RESPONDER_DEVICE,
    SERVICE,
    Asked,
    Policy,
    account_device,
    actor_of,
    by_presenting,
    check_owner,
    for_devices,
    not_yours,
    reach_of,
    role_actor,
    shown,
    speaking_operator,
)
from ca.rules.message import Act

Orders: TypeAlias = Callable[[], Sequence[RenewalOrder]]


def asked_for(
    found: Claim,
    request: IssueRequest,
    policy: Policy,
    *,
    key: Digest,
    token: Token | None,
    record: Certificate | None,
    operator: Operator | None,
    now: UnixTime,
    orders: Orders = tuple,
    hardware: DeviceId | None = None,
    shift: Shift | None = None,
    listed: Digest | None = None,
) -> Asked:
    """Who would get what by this evidence.

    Args:
        key: the request key.
        token: the row of the claim's token.
        record: the row of the claim's certificate, found by issuer and serial; it is compared octet by octet here.
        operator: the row of the operator that the record is of.
        orders: to renew before the time; asked for where it would be too early.
        hardware: the device on whose record the key stands by which this one says it is known.
        shift: the row of the claim's shift.
        listed: the request key that is on record for the claim's unit.
    """
    match found.kind:
        case EvidenceKind.token:
            asked = _by_token(request, policy, token_rule.usable(token, request_key=key, now=now))
        case EvidenceKind.presented:
            asked = _by_presented(found, request, policy, record, now=now, orders=orders)
        case EvidenceKind.message:
            asked = _by_message(found, request, policy, record, operator=operator, now=now, orders=orders)
        case EvidenceKind.local:
            asked = _by_role(found, request, policy, operator=operator)
        case EvidenceKind.validated:
            asked = _by_validated(found, request, policy, token)
        case EvidenceKind.manufacturer:
            asked = _by_manufacturer(found, request, policy, now=now)
        case EvidenceKind.unit:
            asked = _by_unit(found, request, policy, shift, listed=listed, key=key)
        case EvidenceKind.hardware:
            asked = _by_hardware(request, policy, hardware)
        case _:
            raise Denied("evidence-unknown", "This kind of evidence is not known.")
    return asked


def _agree(request: IssueRequest, *, device: DeviceId, profile: ProfileName, names: tuple[Name, ...]) -> None:
    """Wishes must equal what the evidence gives, or be absent."""
    if request.device not in {None, device}:
        raise Denied("evidence-for-another-device", "The evidence is for another device.", why=f"{request.device!r} was asked for.")
    if request.profile not in {None, profile}:
        raise Denied("evidence-for-another-profile", "The evidence is for another profile.", why=f"{request.profile!r} was asked for.")
    if request.names and set(request.names) != set(names):
        raise Denied("evidence-for-other-names", "The evidence is for other names.")
    if request.issuer is not None:
        raise Denied("issuer-not-yours", "This evidence does not choose an issuer.")


def _by_token(request: IssueRequest, policy: Policy, token: Token) -> Asked:
    _agree(request, device=token.device, profile=token.profile, names=token.names)
    for_devices(policy, token.device, token.profile)
    return Asked(
        device=token.device,
        profile=token.profile,
        names=token.names,
        issuer=None,
        actor=f"device:{token.device}",
        token=token.hash,
    )


def _by_presented(
    found: Claim, request: IssueRequest, policy: Policy, record: Certificate | None, *, now: UnixTime, orders: Orders
) -> Asked:
    own = shown(found, record, now=now)
    by_presenting(found, own, policy)
    return _renewal(request, policy, own, renew_from=policy.caps_of(found.peer.role).renew_from, now=now, orders=orders)


def _by_message(
    found: Claim,
    request: IssueRequest,
    policy: Policy,
    record: Certificate | None,
    *,
    operator: Operator | None,
    now: UnixTime,
    orders: Orders,
) -> Asked:
    message = found.message
    if message is None or message.csr != request.csr:
        raise Unauthenticated("message-for-another-csr", "The signed message holds another CSR.")
    own = shown(found, record, now=now, late=_late(record, policy) if message.act is Act.renew else 0)
    if message.act is Act.renew:
        if own.device.startswith(OWN_SERVICES):
            speaking_operator(own, operator)
        return _renewal(request, policy, own, renew_from=0.0, now=now, orders=orders)
    renewal.newest(own, now=now)
    name = speaking_operator(own, operator, power=Power.issue)
    if message.device is None or message.profile is None:
        raise Malformed("bad-message", "The signed message must name device and profile.")
    _agree(request, device=message.device, profile=message.profile, names=message.names)
    check_owner(operator, policy, message.device)
    for_devices(policy, message.device, message.profile)
    return Asked(
        device=message.device,
        profile=message.profile,
        names=message.names,
        issuer=None,
        actor=f"operator:{name}",
    )


def _by_validated(found: Claim, request: IssueRequest, policy: Policy, token: Token | None) -> Asked:
    """The web process says that an account has these names: what that reaches stands in its caps, and in the token where one is named."""
    said, caps = found.validated, policy.caps_of(found.peer.role)
    assert said is not None, "a claim of this kind holds what was validated"
    reach = reach_of(said, caps)
    device, key = account_device(said.account), None
    if said.token is not None:
        held = token_rule.bound(token, said.account)
        if held.profile != said.profile:
            raise Denied("evidence-for-another-profile", "The token of this account is for another profile.")
        if held.names and not set(held.names).issuperset(said.names):
            raise Denied("evidence-for-other-names", "The token of this account is for other names.")
        device, key = held.device, token_rule.account_key(said.account)
    for name in said.names:
        if not reach.covers(name):
            raise Denied("over-the-cap", "This name is not to be had by validation.", why=f"The settings do not list {name.value!r}.")
    _agree(request, device=device, profile=said.profile, names=said.names)
    for_devices(policy, device, said.profile)
    within(caps, device=device, profile=said.profile)
    return Asked(
        device=device,
        profile=said.profile,
        names=said.names,
        issuer=None,
        actor=f"account:{said.account}",
        token=said.token,
        token_for=key,
    )


def following(asked: Asked, said: ValidatedNames, predecessor: Certificate | None, *, now: UnixTime) -> Asked:
    """An account's certificate follows the one that it replaces (RFC 9773 5), or else the newest of the same identity: one lineage (P9).

    Args:
        predecessor: the row of `said.replaces`; without that, `renewal.predecessor`.
    """
    if said.replaces is not None:
        if predecessor is None or predecessor.state is not CertificateState.issued or predecessor.device != asked.device:
            raise Denied("not-your-certificate", "The certificate to replace is not this account's.")
        if predecessor.profile != asked.profile:
            raise Denied("evidence-for-another-profile", "The certificate to replace is of another profile.")
        renewal.newest(predecessor, now=now)
    return asked if predecessor is None else replace(asked, parent=predecessor.ref)


def _by_manufacturer(found: Claim, request: IssueRequest, policy: Policy, *, now: UnixTime) -> Asked:
    caps = policy.caps_of(found.peer.role)
    assert found.certificate is not None, "a claim of this kind holds a certificate"
    maker, device = manufacturer.identity(found.certificate.der, caps.manufacturers, now=now)
    profile = request.profile or maker.profiles[0]
    if profile not in maker.profiles:
        raise Denied("over-the-cap", "Devices of this manufacturer do not get that profile.", why=f"Its settings do not list {profile!r}.")
    _agree(request, device=device, profile=profile, names=())
    for_devices(policy, device, profile)
    within(caps, device=device, profile=profile)
    return Asked(device=device, profile=profile, names=(), issuer=None, actor=f"manufacturer:{maker.name}", factory=maker.name)


def _by_hardware(request: IssueRequest, policy: Policy, device: DeviceId | None) -> Asked:
    """A device whose key is on record needs nobody's word: the key itself signed the CSR, or its TPM attested it."""
    if device is None or not policy.attesting.profiles:
        raise Unauthenticated(
            "hardware-unknown",
            "No device is known by this key.",
            why="No manifest lists it, no TPM with it enrolled before, or the settings give such devices no profile.",
            fix="Enrol with a token, or import the maker's manifest: fleetca devices import-manifest FILE --signer CERTIFICATE",
        )
    profile = request.profile or policy.attesting.profiles[0]
    if profile not in policy.attesting.profiles:
        raise Denied(
            "over-the-cap", "Devices known by their hardware do not get that profile.", why=f"The settings do not list {profile!r}."
        )
    _agree(request, device=device, profile=profile, names=())
    for_devices(policy, device, profile)
    return Asked(device=device, profile=profile, names=(), issuer=None, actor=f"device:{device}")


def _by_unit(found: Claim, request: IssueRequest, policy: Policy, shift: Shift | None, *, listed: Digest | None, key: Digest) -> Asked:
    """What a station sealed and the signer took: the line is believed because its hash stands on record, with the CSR in it."""
    unit = found.unit
    assert unit is not None, "a claim of this kind holds a unit"
    if shift is None or unit.number > min(shift.taken, shift.count) or listed != key or unit.csr != request.csr:
        raise Denied(
            "unit-unknown",
            f"Unit {unit.number} of shift {found.shift} is not on record.",
            why="Its station's file was not taken so far, or says something else.",
            fix="Bring the station's whole file: fleetca line reconcile",
        )
    if policy.owner(unit.device) != shift.tenant:
        raise not_yours()
    _agree(request, device=unit.device, profile=shift.profile, names=())
    for_devices(policy, unit.device, shift.profile)
    actor = f"line:{shift.station}/{shift.operator}"
    return Asked(device=unit.device, profile=shift.profile, names=(), issuer=None, actor=actor)


def unlocked(device: Device, latest: Sequence[Certificate]) -> None:
    """Whether a unit may still be provisioned.

    Args:
        latest: the newest of its certificates.

    Raises:
        Denied: it has been (`unit-locked`).
    """
    if latest:
        raise Denied(
            "unit-locked",
            f"The unit {device.id} was provisioned already.",
            why=f"It has the certificate {latest[0].ref}.",
            fix="A unit is provisioned once. Let it renew, or retire it and give the hardware another id.",
        )


def _late(record: Certificate | None, policy: Policy) -> int:
    """How long after its end a certificate's key may still ask for its renewal: as today's profile says."""
    profile = policy.profiles.get(record.profile) if record is not None else None
    return profile.renew_after_expiry if profile is not None else 0


def _renewal(request: IssueRequest, policy: Policy, own: Certificate, *, renew_from: float, now: UnixTime, orders: Orders) -> Asked:
    profile = policy.profile(own.profile)
    if profile.is_ca or profile.status is StatusKind.nocheck:
        raise Denied("not-renewable", "Certificates of this profile are not renewed.")
    renewal.renewable(own, profile, renew_from=renew_from, now=now, orders=orders)
    # The profile's own names stand in the record's too; they come anew from the profile.
    names = tuple(name for name in own.names if name.kind in profile.allowed_names)
    _agree(request, device=own.device, profile=own.profile, names=names)
    return Asked(
        device=own.device,
        profile=own.profile,
        names=names,
        issuer=None,
        actor=actor_of(own),
        parent=own.ref,
    )


def _by_role(found: Claim, request: IssueRequest, policy: Policy, *, operator: Operator | None) -> Asked:
    match found.peer.role:
        case Role.enroll:
            asked = _own_service(found, request, policy)
        case Role.status | Role.publisher:  # the publisher signs answers ahead
            asked = _own_responder(found, request, policy)
        case Role.operator:
            asked = _by_local_operator(found, request, policy, operator)
        case _:
            raise Denied("not-allowed", "This role gets no certificate by itself.")
    within(policy.caps_of(found.peer.role), device=asked.device, profile=asked.profile)
    return asked


def _own_service(found: Claim, request: IssueRequest, policy: Policy) -> Asked:
    own_names = policy.caps_of(found.peer.role).own_names
    names = request.names or tuple(sorted(own_names))
    if not names or not own_names.issuperset(names):
        raise Denied(
            "names-not-own",
            "The enrolment service may have a certificate for its own names only.",
            why="A name was asked for that its settings do not list.",
            fix="List it under [enroll] names.",
        )
    _agree(_without_names(request), device=ENROLL_DEVICE, profile=SERVICE, names=names)
    return Asked(device=ENROLL_DEVICE, profile=SERVICE, names=names, issuer=None, actor=role_actor(found))


def _own_responder(found: Claim, request: IssueRequest, policy: Policy) -> Asked:
    if request.names:
        raise Denied("names-not-own", "A responder's certificate carries no asked-for names.")
    issuer = request.issuer or policy.default_issuer
    # One identity for all issuers: one key of it answers for several of them in one response, certified by each (RFC 6960 4.2.2.2).
    if request.device not in {None, RESPONDER_DEVICE} or request.profile not in {None, RESPONDER}:
        raise Denied("not-allowed", "Role status gets a responder's certificate and nothing else.", why=f"That is {RESPONDER_DEVICE!r}.")
    profile = policy.profile(RESPONDER)
    if profile.is_ca or profile.status is not StatusKind.nocheck or profile.extended_key_usage != ("OCSPSigning",):
        raise Denied("not-allowed", "The responder profile is not one for responders.")
    return Asked(device=RESPONDER_DEVICE, profile=RESPONDER, names=(), issuer=issuer, actor=role_actor(found))


def _by_local_operator(found: Claim, request: IssueRequest, policy: Policy, operator: Operator | None) -> Asked:
    if request.device is None or request.profile is None:
        raise Malformed("bad-request", "An operator names device and profile.")
    if request.device.startswith(OPERATOR_DEVICE):
        if request.profile != OPERATOR:
            raise Denied("not-allowed", "Operators get certificates of profile `operator`.")
        if operator is None or operator.disabled_at is not None:
            raise Denied("operator-unknown", "There is no such operator, or it is disabled.", fix="Add it: fleetca operators add NAME")
    else:
        for_devices(policy, request.device, request.profile)
    return Asked(
        device=request.device,
        profile=request.profile,
        names=request.names,
        issuer=request.issuer,
        actor=role_actor(found),
    )


def _without_names(request: IssueRequest) -> IssueRequest:
    return IssueRequest(request.csr, request.evidence, request.device, request.profile, (), request.issuer)
