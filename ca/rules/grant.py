"""Who, by which evidence, may get what: the second half of the one door (P2), and the only maker of grants. Ring 1: pure.

Everything that is issued, revoked, handed out as a token or confirmed passes here, whatever protocol or command it came by. `ca.rules.evidence`
says what the evidence proves by itself; here one function for each verb judges that claim by what is on record, in the same transaction
that acts on it. Each decides by the kind of the evidence, and a kind without a branch is denied.

Weaker evidence (a presented certificate that only a web process saw; a role speaking for itself) is bound by the role's caps, never acts for
another device, makes no tokens and revokes nobody else. A signed message is bound by the role's rate only: its key was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, TypeAlias

from ca.errors import Denied, Malformed, NotFound, Unacceptable, Unauthenticated
from ca.model import (
    DEFAULT_TENANT,
    OWN_SERVICES,
    ApprovalDecision,
    Certificate,
    CertificateRef,
    CertificateState,
    ConfirmRequest,
    Device,
    DeviceId,
    Digest,
    EvidenceKind,
    Grant,
    IssueRequest,
    IssuerId,
    Name,
    Operator,
    OperatorName,
    Profile,
    ProfileName,
    RenewalOrder,
    RevocationGrant,
    RevokeRequest,
    Role,
    Shift,
    ShiftRequest,
    StatusKind,
    TenantId,
    Token,
    TokenRequest,
    UnixTime,
    ValidatedNames,
)
from ca.rules import manufacturer, renewal
from ca.rules import token as token_rule
from ca.rules.caps import NO_CAPS, NO_HARDWARE, Attesting, Caps, Power, Validated, conflict, powers_of, within
from ca.rules.evidence import Claim, Verb
from ca.rules.message import Act
from ca.rules.revocation import FOR_ONESELF
from ca.rules.tenancy import Tenant, prefix_of, unknown

SERVICE: Final = ProfileName("service")
RESPONDER: Final = ProfileName("ocsp-responder")
OPERATOR: Final = ProfileName("operator")
ENROLL_DEVICE: Final = DeviceId(OWN_SERVICES + "enroll")
RESPONDER_DEVICE: Final = DeviceId(OWN_SERVICES + "ocsp")
OPERATOR_DEVICE: Final = OWN_SERVICES + "operator:"
ACCOUNT_DEVICE: Final = "account:"
MOST_AT_ONCE: Final = 128
"""Certificates in one request to revoke: what waits for its end waits some tens of milliseconds."""


_POWERS: Final[Mapping[Verb, Power]] = {
    Verb.issue: Power.issue,
    Verb.revoke: Power.revoke,
    Verb.create_token: Power.create_token,
}


@dataclass(frozen=True, slots=True)
class Policy:
    """What wiring laid down: the deployment's name, its profiles, the caps of its roles."""

    deployment: str
    tenant: TenantId
    default_issuer: IssuerId
    profiles: Mapping[ProfileName, Profile]
    caps: Mapping[Role, Caps]
    attesting: Attesting = NO_HARDWARE
    tenants: Mapping[str, Tenant] = field(default_factory=lambda: MappingProxyType({}))
    """By prefix of their device ids."""
    owners: Mapping[IssuerId, TenantId] = field(default_factory=lambda: MappingProxyType({}))
    """Whose an issuer is, where it is not the house's."""

    def tenant_of(self, device: DeviceId) -> Tenant | None:
        """The tenant that owns a device id; None: the house."""
        return self.tenants.get(prefix_of(device)) if self.tenants else None

    def owner(self, device: DeviceId) -> TenantId:
        """Whose a device id is, on record or not."""
        found = self.tenant_of(device)
        return self.tenant if found is None else found.id

    def of(self, device: DeviceId) -> Policy:
        """The policy as it is for this device: that of its tenant."""
        found = self.tenant_of(device)
        return self if found is None else self.seen_by(found.id)

    def seen_by(self, tenant: TenantId) -> Policy:
        """The policy of a tenant.

        Raises:
            NotFound: there is no such tenant (`no-such-tenant`).
        """
        if tenant == self.tenant:
            return self
        for one in self.tenants.values():
            if one.id == tenant:
                return replace(self, tenant=one.id, default_issuer=one.issuer, profiles=one.profiles)
        raise unknown(tenant)

    def caps_of(self, role: Role) -> Caps:
        return self.caps.get(role, NO_CAPS)

    def profile(self, name: ProfileName) -> Profile:
        """The profile of that name.

        Raises:
            NotFound: `profile-unknown`.
        """
        found = self.profiles.get(name)
        if found is None:
            raise NotFound(
                "profile-unknown",
                f"There is no profile {name!r}.",
                why=f"Known are {', '.join(sorted(self.profiles))}.",
                fix="List them: fleetca profiles list",
            )
        return found


Orders: TypeAlias = Callable[[], Sequence[RenewalOrder]]


@dataclass(frozen=True, slots=True)
class Asked:
    """Who gets what, as far as the evidence goes; the device and the profile are judged next."""

    device: DeviceId
    profile: ProfileName
    names: tuple[Name, ...]
    issuer: IssuerId | None
    """None: who signs for the device's tenant."""
    actor: str
    parent: CertificateRef | None = None
    token: Digest | None = None
    token_for: Digest | None = None
    """Who the token belongs to from now on, where that is more than this request: an account's key."""
    factory: str = ""
    """The manufacturer whose certificate was shown."""


# ---- Issuing --------------------------------------------------------------------------------------------------------


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
    _for_devices(policy, token.device, token.profile)
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
    own = _shown(found, record, now=now)
    _by_presenting(found, own, policy)
    return _renewal(request, policy, own, renew_from=policy.caps_of(found.peer.role).renew_from, now=now, orders=orders)


def _by_presenting(found: Claim, own: Certificate, policy: Policy) -> None:
    """May this role speak for that certificate, whose key it only says it saw at work?"""
    if own.device.startswith(OWN_SERVICES):
        raise Denied("not-by-presenting", "Our own services and operators sign what they ask for; presenting a certificate is not enough.")
    within(policy.caps_of(found.peer.role), device=own.device, profile=own.profile)


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
    own = _shown(found, record, now=now, late=_late(record, policy) if message.act is Act.renew else 0)
    if message.act is Act.renew:
        if own.device.startswith(OWN_SERVICES):
            _operator(own, operator)
        return _renewal(request, policy, own, renew_from=0.0, now=now, orders=orders)
    renewal.newest(own, now=now)
    name = _operator(own, operator, power=Power.issue)
    if message.device is None or message.profile is None:
        raise Malformed("bad-message", "The signed message must name device and profile.")
    _agree(request, device=message.device, profile=message.profile, names=message.names)
    _owns(operator, policy, message.device)
    _for_devices(policy, message.device, message.profile)
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
    reach = _reach(said, caps)
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
    _for_devices(policy, device, said.profile)
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
    _for_devices(policy, device, profile)
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
    _for_devices(policy, device, profile)
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
        raise _not_yours()
    _agree(request, device=unit.device, profile=shift.profile, names=())
    _for_devices(policy, unit.device, shift.profile)
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


def open_shift(
    found: Claim, request: ShiftRequest, policy: Policy, *, record: Certificate | None, operator: Operator | None, now: UnixTime
) -> tuple[OperatorName, TenantId]:
    """May this evidence log in at that station? Returns who does, and whose units they make: those of the operator's own tenant."""
    own = _shown(found, record, now=now)
    renewal.newest(own, now=now)
    name = _operator(own, operator, power=Power.provision)
    message = found.message
    asked = (request.station, request.station_key.hex(), request.count), request.profile, request.lifetime
    if message is None or (message.station, message.profile, message.lifetime) != asked:
        raise Unauthenticated("message-for-another-act", "The signed message asks for another shift.")
    assert operator is not None, "one of that name was found"
    own_policy = policy.seen_by(operator.tenant)
    _for_devices(own_policy, DeviceId("unit"), request.profile)
    judge_names(own_policy.profile(request.profile), ())
    return name, operator.tenant


def _reach(said: ValidatedNames, caps: Caps) -> Validated:
    reach = caps.validated.get(said.profile)
    if reach is None or not (reach.open if said.token is None else reach.bound):
        raise Denied(
            "over-the-cap",
            "Accounts do not get certificates of that profile this way.",
            why=f"No ACME directory of the settings gives {said.profile!r} to such an account.",
        )
    return reach


def account_device(account: str) -> DeviceId:
    """The identity of an account that stands for itself."""
    return DeviceId(ACCOUNT_DEVICE + account)


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
        actor=_actor(own),
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
    return Asked(device=ENROLL_DEVICE, profile=SERVICE, names=names, issuer=None, actor=_role_actor(found))


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
    return Asked(device=RESPONDER_DEVICE, profile=RESPONDER, names=(), issuer=issuer, actor=_role_actor(found))


def _by_local_operator(found: Claim, request: IssueRequest, policy: Policy, operator: Operator | None) -> Asked:
    if request.device is None or request.profile is None:
        raise Malformed("bad-request", "An operator names device and profile.")
    if request.device.startswith(OPERATOR_DEVICE):
        if request.profile != OPERATOR:
            raise Denied("not-allowed", "Operators get certificates of profile `operator`.")
        if operator is None or operator.disabled_at is not None:
            raise Denied("operator-unknown", "There is no such operator, or it is disabled.", fix="Add it: fleetca operators add NAME")
    else:
        _for_devices(policy, request.device, request.profile)
    return Asked(
        device=request.device,
        profile=request.profile,
        names=request.names,
        issuer=request.issuer,
        actor=_role_actor(found),
    )


def _without_names(request: IssueRequest) -> IssueRequest:
    return IssueRequest(request.csr, request.evidence, request.device, request.profile, (), request.issuer)


def _for_devices(policy: Policy, device: DeviceId, profile_name: ProfileName) -> None:
    """Devices and services only: neither what belongs to ourselves, nor authority over others. Of the profiles that the device's tenant has."""
    profile = policy.of(device).profile(profile_name)
    if device.startswith(OWN_SERVICES):
        raise Denied("device-reserved", f"Ids that begin with {OWN_SERVICES!r} are our own services.")
    if profile.is_ca or profile.status is StatusKind.nocheck or "OCSPSigning" in profile.extended_key_usage or profile.name == OPERATOR:
        raise Denied("profile-reserved", f"Profile {profile_name!r} is not for devices.")


def _owns(operator: Operator | None, policy: Policy, device: DeviceId) -> None:
    """An operator acts on devices of their own tenant. What is another's is told by its id alone, whether it is there or not.

    Raises:
        Denied: `device-not-yours`.
    """
    if operator is not None and operator.tenant != policy.owner(device):
        raise _not_yours()


def _not_yours() -> Denied:
    return Denied(
        "device-not-yours", "Device ids of that kind are not this operator's.", why="They begin with nothing that is its tenant's."
    )


def operator_of(device: DeviceId) -> OperatorName | None:
    """The operator whose certificates stand under this id; None for devices."""
    return OperatorName(device.removeprefix(OPERATOR_DEVICE)) if device.startswith(OPERATOR_DEVICE) else None


def _shown(found: Claim, record: Certificate | None, *, now: UnixTime, late: int = 0) -> Certificate:
    if found.certificate is None:
        raise Unauthenticated("certificate-unknown", "There is no certificate to judge.")
    own = renewal.known(record, found.certificate.der)
    renewal.speaks(own, now=now, late=late)
    return own


def _operator(own: Certificate, operator: Operator | None, *, power: Power | None = None) -> OperatorName:
    name = operator_of(own.device)
    if name is None or own.profile != OPERATOR:
        raise Denied("not-an-operator", "Only an operator may ask for this.", why="The key that signed is not an operator's.")
    if operator is None or operator.name != name or operator.disabled_at is not None:
        raise Denied("operator-unknown", "There is no such operator, or it is disabled.")
    clash = conflict(operator.roles)
    if clash is not None:
        raise Denied(
            "exclusive-roles", f"The operator {name} holds roles that exclude each other.", why=f"They are {clash[0]} and {clash[1]}."
        )
    if power is not None and power not in powers_of(operator):
        raise Denied("operator-role", "The operator's roles do not allow this.", why=f"None of its roles gives the power to {power.value}.")
    return name


def _actor(own: Certificate) -> str:
    name = operator_of(own.device)
    return f"device:{own.device}" if name is None else f"operator:{name}"


def _role_actor(found: Claim) -> str:
    return f"role:{found.peer.role.value}@{found.peer.uid}"


def grant(found: Claim, asked: Asked, policy: Policy, *, device: Device | None, now: UnixTime) -> Grant:
    """The grant, once the device's row is read and locked.

    Args:
        device: None for a device that is not on record yet.

    Raises:
        Denied: `device-retired`, `device-quarantined`, `device-not-active`, `device-of-another-tenant`, `issuer-not-yours`.
        NotFound: `profile-unknown`.
    """
    profile = policy.profile(asked.profile)
    if profile.is_ca:
        raise Denied("profile-reserved", "CA certificates come from a ceremony (P4).")
    if device is not None or asked.parent is not None:
        known = renewal.active(device) if device is None or asked.parent is not None else renewal.enrolling(device)
        if known.tenant != policy.tenant:
            raise Denied("device-of-another-tenant", "There is no such device.")
    issuer = asked.issuer or policy.default_issuer
    if not asked.device.startswith(OWN_SERVICES) and policy.owners.get(issuer, DEFAULT_TENANT) != policy.tenant:
        raise Denied("issuer-not-yours", "The issuer is not that of the device's tenant.", why=f"{issuer!r} signs for another one.")
    return Grant(
        tenant=policy.tenant,
        device=asked.device,
        profile=asked.profile,
        profile_digest=profile.digest,
        issuer=issuer,
        names=asked.names,
        actor=asked.actor,
        role=found.peer.role,
        evidence=found.kind,
        evidence_digest=found.digest,
        parent=asked.parent,
        token=asked.token,
        granted_at=now,
    )


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


# ---- Revoking -------------------------------------------------------------------------------------------------------


def revocation(
    found: Claim,
    request: RevokeRequest,
    policy: Policy,
    *,
    record: Certificate | None,
    operator: Operator | None,
    target: Certificate | None,
    token: Token | None = None,
    now: UnixTime,
) -> RevocationGrant:
    """May this evidence revoke that?

    Args:
        record: the row of the claim's certificate.
        target: the row of `request.target`, where one is given.
        token: the row of the claim's token.
    """
    if request.target is not None and request.device is not None:
        raise Malformed("bad-request", "Either a certificate is revoked or a device, not both at once.")
    match found.kind:
        case EvidenceKind.local:
            if found.peer.role is not Role.operator:
                raise Denied("not-allowed", "This role revokes nothing by itself.")
            actor, ref = _role_actor(found), request.target
        case EvidenceKind.presented:
            own = _shown(found, record, now=now)
            if request.device is not None or request.target not in {None, own.ref}:
                raise Denied("not-your-certificate", "A presented certificate revokes itself only.")
            _by_presenting(found, own, policy)
            _for_oneself(request)
            actor, ref = _actor(own), own.ref
        case EvidenceKind.message:
            actor = _by_signed_revocation(found, request, record, operator=operator, target=target, now=now)
            ref = request.target
        case EvidenceKind.validated:
            actor, ref = _by_validated_revocation(found, request, policy, target=target, token=token), request.target
        case _:
            raise Denied("evidence-unknown", "This kind of evidence revokes nothing.")
    if ref is None and request.device is None:
        raise Malformed("bad-request", "It must be said which certificate or device to revoke.")
    targets = () if ref is None else (ref, *request.others)
    if request.others and (ref is None or found.kind is not EvidenceKind.local):
        raise Denied("not-allowed", "Only an operator on this host revokes several certificates by one request.")
    if len(targets) > MOST_AT_ONCE or len(set(targets)) != len(targets):
        raise Malformed("bad-request", f"One request revokes at most {MOST_AT_ONCE} certificates, and none of them twice.")
    if request.invalid_from is not None and not 0 <= request.invalid_from <= now:
        raise Unacceptable("invalid-from-ahead", "A key that was lost was lost before now.", why="The date of the loss lies in the future.")
    if found.kind is EvidenceKind.local:
        tenant = policy.owner(request.device) if request.device is not None else policy.tenant if target is None else target.tenant
    else:
        # Who speaks for what is another's is told what they would be told if it were not there.
        tenant = policy.tenant if record is None else record.tenant
    return RevocationGrant(
        tenant=tenant,
        actor=actor,
        role=found.peer.role,
        evidence=found.kind,
        evidence_digest=found.digest,
        targets=targets,
        device=request.device,
        reason=request.reason,
        granted_at=now,
        invalid_from=request.invalid_from,
    )


def _by_signed_revocation(
    found: Claim,
    request: RevokeRequest,
    record: Certificate | None,
    *,
    operator: Operator | None,
    target: Certificate | None,
    now: UnixTime,
) -> str:
    own = _shown(found, record, now=now)
    message = found.message
    if message is None or message.reason is not request.reason or (message.target, message.device) != (request.target, request.device):
        raise Unauthenticated("message-for-another-act", "The signed message asks for another revocation.")
    if operator_of(own.device) is not None:
        renewal.newest(own, now=now)
        return f"operator:{_operator(own, operator, power=Power.revoke)}"
    if target is None or target.device != own.device:
        raise Denied("not-your-certificate", "A device revokes its own certificates only.")
    _for_oneself(request)
    return _actor(own)


def _by_validated_revocation(
    found: Claim, request: RevokeRequest, policy: Policy, *, target: Certificate | None, token: Token | None
) -> str:
    """An account revokes what it was issued, and what carries none but names that it was found to hold (RFC 8555 7.6)."""
    said, caps = found.validated, policy.caps_of(found.peer.role)
    assert said is not None, "a claim of this kind holds what was validated"
    reach = _reach(said, caps)
    if request.device is not None or target is None or target.profile != said.profile:
        raise Denied("not-your-certificate", "An account revokes certificates of its own profile only, one at a time.")
    within(caps, device=target.device, profile=target.profile)
    asked_for = tuple(name for name in target.names if name.kind in policy.profile(target.profile).allowed_names)
    device = account_device(said.account) if said.token is None else token_rule.bound(token, said.account).device
    own = target.device == device
    holds = bool(asked_for) and set(asked_for) <= set(said.names) and all(reach.covers(name) for name in asked_for)
    if not own and not holds:
        raise Denied("not-your-certificate", "The certificate is not this account's, and carries names that it does not hold.")
    _for_oneself(request)
    return f"account:{said.account}"


def _for_oneself(request: RevokeRequest) -> None:
    if request.reason not in FOR_ONESELF:
        words = ", ".join(sorted(reason.name for reason in FOR_ONESELF))
        raise Denied("reason-not-yours", f"A device may not revoke for {request.reason.name}.", why=f"It may say {words}.")


# ---- Tokens, first use and delivery ---------------------------------------------------------------------------------


def token(
    found: Claim, request: TokenRequest, policy: Policy, *, record: Certificate | None, operator: Operator | None, now: UnixTime
) -> str:
    """May this evidence make a token for that device? Returns the actor for the record."""
    match found.kind:
        case EvidenceKind.local if found.peer.role is Role.operator:
            actor = _role_actor(found)
        case EvidenceKind.message:
            own = _shown(found, record, now=now)
            renewal.newest(own, now=now)
            actor = f"operator:{_operator(own, operator, power=Power.create_token)}"
            message = found.message
            said = None if message is None else (message.device, message.profile, message.names, message.lifetime)
            if said != (request.device, request.profile, request.names, request.lifetime):
                raise Unauthenticated("message-for-another-act", "The signed message asks for another token.")
            _owns(operator, policy, request.device)
        case _:
            raise Denied("evidence-unknown", "This kind of evidence makes no tokens.")
    _for_devices(policy, request.device, request.profile)
    return actor


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
    own = _shown(found, record, now=now)
    renewal.newest(own, now=now)
    _operator(own, operator, power=power)
    assert operator is not None, "_operator sees to it"
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
            return _role_actor(found)
        case EvidenceKind.message:
            own = _shown(found, record, now=now)
            renewal.newest(own, now=now)
            held = frozenset() if operator is None else powers_of(operator)
            actor = f"operator:{_operator(own, operator, power=next(iter(powers & held), Power.approve))}"
            if found.message is None or found.message.decision != (request.request, request.approve, request.reason):
                raise Unauthenticated("message-for-another-act", "The signed message decides something else.")
            return actor
        case _:
            raise Denied("evidence-unknown", "This kind of evidence decides nothing.")


def local_actor(found: Claim) -> str:
    """Who withdraws a token: `ca.rules.evidence` lets nobody but an operator of this machine get so far."""
    return _role_actor(found)


def confirmation(
    found: Claim, request: ConfirmRequest, policy: Policy, *, record: Certificate | None, successor: Certificate | None, now: UnixTime
) -> Certificate:
    """The certificate whose key authenticated to us, and may say what the request says.

    Args:
        successor: the row of `request.successor`, where one is named.
    """
    if found.kind not in {EvidenceKind.presented, EvidenceKind.message}:
        raise Denied("evidence-unknown", "This kind of evidence confirms nothing.")
    own = _shown(found, record, now=now)
    if found.message is not None and found.message.target != request.successor:
        raise Unauthenticated("message-for-another-act", "The signed message confirms something else.")
    if found.kind is EvidenceKind.presented:
        _by_presenting(found, own, policy)
    if request.successor is None:
        renewal.newest(own, now=now)
    else:
        renewal.delivery(own, successor, now=now)
    return own
