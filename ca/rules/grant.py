"""Who, by which evidence, may get what: the second half of the one door (P2), and the only maker of grants. Ring 1: pure.

Everything that is issued, revoked, handed out as a token or confirmed passes here, whatever protocol or command it came by. `ca.rules.evidence`
says what the evidence proves by itself. One function for each verb judges that claim by what is on record, in the same transaction that acts on
it: `ca.rules.asking` who would get which certificate, `grant` and `revocation` here what comes of it, `ca.rules.permission` what issues and revokes
nothing. Each decides by the kind of the evidence, and a kind without a branch is denied.

Weaker evidence (a presented certificate that only a web process saw; a role speaking for itself) is bound by the role's caps, never acts for
another device, makes no tokens and revokes nobody else. A signed message is bound by the role's rate only: its key was asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from ca.errors import Denied, Malformed, NotFound, Unacceptable, Unauthenticated
from ca.model import (
    DEFAULT_TENANT,
    OWN_SERVICES,
    Certificate,
    CertificateRef,
    Device,
    DeviceId,
    Digest,
    EvidenceKind,
    Grant,
    IssuerId,
    Name,
    Operator,
    OperatorName,
    Profile,
    ProfileName,
    RevocationGrant,
    RevokeRequest,
    Role,
    StatusKind,
    TenantId,
    Token,
    UnixTime,
    ValidatedNames,
)
from ca.rules import renewal
from ca.rules import token as token_rule
from ca.rules.caps import NO_CAPS, NO_HARDWARE, Attesting, Caps, Power, Validated, conflict, powers_of, within
from ca.rules.evidence import Claim
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


# ---- Who speaks -----------------------------------------------------------------------------------------------------


def by_presenting(found: Claim, own: Certificate, policy: Policy) -> None:
    """May this role speak for that certificate, whose key it only says it saw at work?"""
    if own.device.startswith(OWN_SERVICES):
        raise Denied("not-by-presenting", "Our own services and operators sign what they ask for; presenting a certificate is not enough.")
    within(policy.caps_of(found.peer.role), device=own.device, profile=own.profile)


def reach_of(said: ValidatedNames, caps: Caps) -> Validated:
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


def for_devices(policy: Policy, device: DeviceId, profile_name: ProfileName) -> None:
    """Devices and services only: neither what belongs to ourselves, nor authority over others. Of the profiles that the device's tenant has."""
    profile = policy.of(device).profile(profile_name)
    if device.startswith(OWN_SERVICES):
        raise Denied("device-reserved", f"Ids that begin with {OWN_SERVICES!r} are our own services.")
    if reserved(profile):
        raise Denied("profile-reserved", f"Profile {profile_name!r} is not for devices.")


def reserved(profile: Profile) -> bool:
    """Is it a profile that no device has: of a CA, of those who sign status, of operators?"""
    return profile.is_ca or profile.status is StatusKind.nocheck or "OCSPSigning" in profile.extended_key_usage or profile.name == OPERATOR


def check_owner(operator: Operator | None, policy: Policy, device: DeviceId) -> None:
    """An operator acts on devices of their own tenant. What is another's is told by its id alone, whether it is there or not.

    Raises:
        Denied: `device-not-yours`.
    """
    if operator is not None and operator.tenant != policy.owner(device):
        raise not_yours()


def not_yours() -> Denied:
    return Denied(
        "device-not-yours", "Device ids of that kind are not this operator's.", why="They begin with nothing that is its tenant's."
    )


def operator_of(device: DeviceId) -> OperatorName | None:
    """The operator whose certificates stand under this id; None for devices."""
    return OperatorName(device.removeprefix(OPERATOR_DEVICE)) if device.startswith(OPERATOR_DEVICE) else None


def shown(found: Claim, record: Certificate | None, *, now: UnixTime, late: int = 0) -> Certificate:
    if found.certificate is None:
        raise Unauthenticated("certificate-unknown", "There is no certificate to judge.")
    own = renewal.known(record, found.certificate.der)
    renewal.speaks(own, now=now, late=late)
    return own


def speaking_operator(own: Certificate, operator: Operator | None, *, power: Power | None = None) -> OperatorName:
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


def actor_of(own: Certificate) -> str:
    name = operator_of(own.device)
    return f"device:{own.device}" if name is None else f"operator:{name}"


def role_actor(found: Claim) -> str:
    return f"role:{found.peer.role.value}@{found.peer.uid}"


# ---- Grants ---------------------------------------------------------------------------------------------------------


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
            actor, ref = role_actor(found), request.target
        case EvidenceKind.presented:
            own = shown(found, record, now=now)
            if request.device is not None or request.target not in {None, own.ref}:
                raise Denied("not-your-certificate", "A presented certificate revokes itself only.")
            by_presenting(found, own, policy)
            _for_oneself(request)
            actor, ref = actor_of(own), own.ref
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
    own = shown(found, record, now=now)
    message = found.message
    if message is None or message.reason is not request.reason or (message.target, message.device) != (request.target, request.device):
        raise Unauthenticated("message-for-another-act", "The signed message asks for another revocation.")
    if operator_of(own.device) is not None:
        renewal.newest(own, now=now)
        return f"operator:{speaking_operator(own, operator, power=Power.revoke)}"
    if target is None or target.device != own.device:
        raise Denied("not-your-certificate", "A device revokes its own certificates only.")
    _for_oneself(request)
    return actor_of(own)


def _by_validated_revocation(
    found: Claim, request: RevokeRequest, policy: Policy, *, target: Certificate | None, token: Token | None
) -> str:
    """An account revokes what it was issued, and what carries none but names that it was found to hold (RFC 8555 7.6)."""
    said, caps = found.validated, policy.caps_of(found.peer.role)
    assert said is not None, "a claim of this kind holds what was validated"
    reach = reach_of(said, caps)
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
