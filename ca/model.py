"""The words of fleetca. Ring 0: standard library only, no behaviour beyond what a word needs to be itself.

Frozen slotted dataclasses for nouns, small types for ids, RFC terms in RFC spelling. Times are `UnixTime`: whole seconds
since 1970-01-01T00:00:00Z. Certificates, CRLs and names are DER octets. Digests are raw octets, not hex.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum
from typing import NamedTuple, NewType, TypeAlias

UnixTime: TypeAlias = int

Serial = NewType("Serial", int)
"""A certificate's serial number as a positive integer (RFC 5280 4.1.2.2)."""

IssuerId = NewType("IssuerId", str)
"""An issuer's short name, e.g. `issuing`; matches `[a-z0-9][a-z0-9-]{0,62}` and stands in URLs."""

DeviceId = NewType("DeviceId", str)
"""A device's identity; matches `[A-Za-z0-9][A-Za-z0-9._:-]{0,63}`. Ids that begin `fleetca:` are our own services."""

ProfileName = NewType("ProfileName", str)
TenantId = NewType("TenantId", str)
OperatorName = NewType("OperatorName", str)
KeyName = NewType("KeyName", str)
AlgorithmName = NewType("AlgorithmName", str)
"""`p256`, `p384`, `ed25519`, `rsa-3072`, `rsa-4096`, `ml-dsa-44`, `ml-dsa-65`, `ml-dsa-87`: the table in `ca.der.algorithms`."""

Digest = NewType("Digest", bytes)
"""A SHA-256 digest, 32 octets."""

ChangeNumber: TypeAlias = int
"""Counts revocation changes; number order is commit order (DESIGN 3)."""

CrlNumber: TypeAlias = int

DEFAULT_TENANT = TenantId("default")
OWN_SERVICES = "fleetca:"


class Reason(IntEnum):
    """CRLReason (RFC 5280 5.3.1); the member's name is the RFC's word. 7 is not used."""

    unspecified = 0
    keyCompromise = 1
    cACompromise = 2
    affiliationChanged = 3
    superseded = 4
    cessationOfOperation = 5
    certificateHold = 6
    removeFromCRL = 8
    privilegeWithdrawn = 9
    aACompromise = 10


class Role(Enum):
    """Who speaks on the signer's socket."""

    enroll = "enroll"
    status = "status"
    publisher = "publisher"
    operator = "operator"


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of the signer's socket, as the kernel and the settings say it: never as the peer says it."""

    role: Role
    uid: int


class NameKind(StrEnum):
    """The forms of SubjectAltName a profile may allow (RFC 5280 4.2.1.6)."""

    dns = "dns"
    ip = "ip"
    uri = "uri"
    email = "email"
    permanent_identifier = "permanent-identifier"
    """RFC 4043: what a profile itself says of the device; never asked for."""


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """One subject alternative name, in its text form: A-label DNS name, IP literal, URI, mailbox, or identifierValue."""

    kind: NameKind
    value: str


class Protection(IntEnum):
    """How well a private key is kept where it rests; a higher one holds whatever a lower one does."""

    memory = 0
    """In a process, gone with it."""
    file = 1
    """Sealed in a file under one passphrase: who has both has the key."""
    quorum = 2
    """Sealed in a file under a key that several custodians share: M of them have to come."""
    module = 3
    """Made inside a module that never gives it out. That the module is hardware, nobody says."""
    hardware = 4
    """As `module`, and the module, or who runs it, says that it is hardware."""


@dataclass(frozen=True, slots=True)
class StoreAbility:
    """What a key store can do. Asked before anything is made."""

    kind: str
    """`memory`, `sealed`, `quorum`, `pkcs11`, `tpm`, `awskms`."""
    algorithms: frozenset[AlgorithmName]
    """Kinds of keys that it can make and sign with."""
    protection: Protection
    about: str
    """Which one it is, for people: maker, model, serial, folder, region."""


@dataclass(frozen=True, slots=True)
class Quorum:
    """`threshold` of `custodians` together have the key; each of them has the share of its place."""

    name: str
    identifier: int
    """Of the set (SLIP-39: 15 random bits); stands in every share."""
    threshold: int
    custodians: tuple[str, ...]
    check: bytes
    """Tells the right key from any other and nothing else about it."""
    recipient: bytes
    """X25519 public key: who has it can encrypt backups to the quorum, and only the quorum opens them."""
    made_at: UnixTime

    @property
    def shape(self) -> str:
        """`3 of 5`."""
        return f"{self.threshold} of {len(self.custodians)}"


@dataclass(frozen=True, slots=True)
class Share:
    """What a share says of itself to everybody who sees it."""

    identifier: int
    index: int
    """From 0; the place of its custodian."""
    threshold: int


class KeyState(Enum):
    """SP 800-57 part 1, 7: where a private key is in its life."""

    pre_activation = "pre-activation"
    """Made, not in service; it may prove that it is possessed (sign its CSR), no more."""
    active = "active"
    suspended = "suspended"
    deactivated = "deactivated"
    """For keys that unwrap or decrypt. A private signature key is never deactivated: it is destroyed."""
    compromised = "compromised"
    destroyed = "destroyed"


class KeyPurpose(Enum):
    """What a key is for, and nothing else."""

    root_ca = "root-ca"
    issuing_ca = "issuing-ca"
    log = "log"
    operator = "operator"
    service = "service"
    responder = "responder"
    serial_check = "serial-check"
    """The symmetric key of the check values in serial numbers."""
    nonces = "nonces"
    """A symmetric key that the workers of the protocols share: it authenticates the nonces that they give."""
    key_wrapping = "key-wrapping"
    """The key that custodians share."""


class KeyOrigin(Enum):
    """Where a private key came into being."""

    store = "store"
    """Inside the store that holds it."""
    ceremony = "ceremony"
    process = "process"
    """In a process of ours that sealed it at once."""
    elsewhere = "elsewhere"


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One key as the inventory has it. Its public half names it."""

    spki_sha256: Digest
    tenant: TenantId
    name: KeyName
    purpose: KeyPurpose
    origin: KeyOrigin
    algorithm: AlgorithmName
    spki: bytes
    store: str
    """Kind of its store; `offline` where it is none of this machine's."""
    place: str
    """As the settings write it; of an offline key, what is known of its place."""
    protection: Protection | None
    owner: str
    state: KeyState
    created: UnixTime
    period_ends: UnixTime | None
    """The last second of its originator usage period: notAfter of its last certificate."""
    changed: UnixTime


@dataclass(frozen=True, slots=True)
class KeyChange:
    """One step in the life of a key. Append-only."""

    spki_sha256: Digest
    before: KeyState | None
    """None: it came into the inventory."""
    after: KeyState
    at: UnixTime
    reason: str
    actor: str
    evidence: str
    """SHA-256 (hex) of the document that shows it, or empty."""


@dataclass(frozen=True, slots=True)
class HeldKey:
    """A private key that a store says it holds."""

    name: KeyName
    algorithm: AlgorithmName | None
    """None where the store does not say without unlocking, or where it is no kind of ours."""
    spki: bytes | None
    facts: tuple[tuple[str, str], ...] = ()
    """What the store says of it, word by word: `sensitive`, `fixedTPM` ..."""


@dataclass(frozen=True, slots=True)
class StoreHeld:
    """A store that the settings name, and all that it says it holds."""

    store: StoreAbility
    places: tuple[str, ...]
    """Every key of the settings that led to it, as `KeyRecord.place` has it."""
    keys: tuple[HeldKey, ...] = ()
    trouble: str = ""
    """Why it could not be asked."""


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """Where the settings say that a key rests."""

    name: KeyName
    store: str
    place: str
    protection: Protection
    origin: KeyOrigin


@dataclass(frozen=True, slots=True)
class Destruction:
    """A store's own account of a key that is no more."""

    name: KeyName
    store: StoreAbility
    proof: tuple[tuple[str, str], ...]
    """What was done, and what the store answered when it was asked for the key again."""


@dataclass(frozen=True, slots=True, order=True)
class CertificateRef:
    """What names a certificate in the world: its issuer and serial number."""

    issuer: IssuerId
    serial: Serial

    def __str__(self) -> str:
        return f"{self.issuer}/{self.serial:040x}"


# ---- Profiles -------------------------------------------------------------------------------------------------------


class StatusKind(Enum):
    """How relying parties learn that a certificate of a profile no longer holds."""

    revocable = "revocable"
    """CRL distribution point, and OCSP where the profile says so."""
    no_rev_avail = "no-rev-avail"
    """RFC 9608: short-lived, carries noRevAvail, and neither CDP nor OCSP."""
    nocheck = "nocheck"
    """RFC 6960 4.2.2.2.1: a delegated responder; id-pkix-ocsp-nocheck, and neither CDP nor OCSP."""
    anchor = "anchor"
    """A self-signed root: nothing says its status but its removal."""


class RootOfTrust(Enum):
    """Where a device keeps its keys."""

    se = "se"
    """A secure element."""
    tpm = "tpm"
    tee = "tee"
    """A trusted execution environment."""
    puf = "puf"
    """Derived anew from the silicon each time; nothing is stored."""
    none = "none"
    """Only by a justified exception that expires."""


class AttestationKind(Enum):
    """Who vouches for a device's key."""

    tpm = "tpm"
    """A TPM 2.0, for a key that it made and that stays in it."""
    se = "se"
    """The maker of a secure element, whose signed manifest lists the key."""
    idevid = "idevid"
    """The device's manufacturer, by the certificate that it left the factory with (IEEE 802.1AR): for the device, not for the new key."""


class SafetyClass(Enum):
    """IEC 62304 4.3: what a failure may do to people."""

    A = "A"
    B = "B"
    C = "C"


class RenewedBy(Enum):
    """How the successor of a certificate comes about."""

    protocol = "protocol"
    """Its holder asks for it over the network (REST, EST, ACME)."""
    service = "service"
    """A process of ours does, for itself."""
    ceremony = "ceremony"


class AnchorsBy(Enum):
    """How a holder learns that trust anchors change, before they do."""

    pins = "pins"
    """By signed pin sets, which the agent fetches and judges."""
    est = "est"
    """By /cacerts (RFC 7030 4.1)."""
    update = "update"
    """By the update system of the device's maker."""
    ceremony = "ceremony"
    """It is itself made, and replaced, where the anchors are."""
    settings = "settings"
    """It is a process of ours, which reads them."""


class OnSuperseded(Enum):
    """What happens to an ancestor when it is superseded (P9)."""

    keep = "keep"
    revoke = "revoke"


@dataclass(frozen=True, slots=True)
class Profile:
    """What certificates of one kind look like and who may have them, as judged by `ca.rules.profile`.

    `lifetime`, `max_lifetime`, `backdate`, `renew_after_expiry` and `grace` are seconds. `common_name`, `permanent_identifier` and `uris` are
    templates whose only placeholders are `{device}` and `{tenant}`, for `common_name` also `{name}`, the first name. Key usages and extended key usages carry RFC names (`digitalSignature`, `clientAuth`).
    `renew_from` is the share of the lifetime (0..1) after which a renewal is accepted.
    """

    name: ProfileName
    is_ca: bool
    path_length: int | None
    lifetime: int
    max_lifetime: int
    backdate: int
    status: StatusKind
    crl_url: bool
    ocsp_url: bool
    key_algorithms: tuple[AlgorithmName, ...]
    key_usage: tuple[str, ...]
    extended_key_usage: tuple[str, ...]
    common_name: str
    organization: str | None
    permanent_identifier: str | None
    """RFC 4043, without assigner: unique among what the issuer certifies."""
    uris: tuple[str, ...]
    allowed_names: tuple[NameKind, ...]
    required_names: bool
    key_reuse: bool
    renewable: bool
    renew_from: float
    renew_after_expiry: int
    """How long after its end a certificate's key may still ask for a renewal, by a signed message only. A presented one never may."""
    grace: int
    """How long a certificate goes on after its holder said that its successor arrived, when that is not used before."""
    on_superseded: OnSuperseded
    plain_key_file: bool
    digest: Digest
    """SHA-256 of the file this profile was read from: part of every grant."""
    renewed_by: RenewedBy = RenewedBy.protocol
    anchors_by: tuple[AnchorsBy, ...] = ()
    """How devices with such certificates learn of a change of trust anchors."""
    roots_of_trust: tuple[RootOfTrust, ...] = ()
    """What a device must have to get such certificates; a device with none needs an exception that has not ended. Empty: not asked."""
    attestation: tuple[AttestationKind, ...] = ()
    """Who must vouch for a key for it to get such a certificate, at every issuance: one of these. Empty: not asked."""
    safety_class: SafetyClass | None = None
    """The gravest class of device that these certificates are good enough for; None: not asked."""
    minimum_protection: Protection = Protection.memory
    """Of the keys that we make or open ourselves for such certificates (a CA's above all): a weaker store is refused."""
    approval_within: int = 0
    """Seconds that a first certificate waits for an operator's approval at most; 0: it needs none."""
    offline: int = 0
    """Seconds for which its devices may be out of reach: renewal leaves them at least so long. 0: nothing is promised."""
    server_keygen: bool = False
    """Whether the enrolment service may make the device's key and hand it over (RFC 7030 4.4). It keeps none."""


# ---- CRLs: which of them an issuer has ------------------------------------------------------------------------------


class CrlContents(Enum):
    """Which certificates the CRLs of an issuer speak of (onlyContains... of RFC 5280 5.2.5)."""

    everything = "everything"
    end_entities = "end-entities"
    authorities = "authorities"


@dataclass(frozen=True, slots=True)
class CrlPlan:
    """Which CRLs an issuer has. There is always a complete one, shard 0; it lists what every shard lists."""

    shards: int = 0
    """New certificates are spread over shards 1 to this; 0: all stand in shard 0. It may grow; a certificate stays where it was put."""
    contents: CrlContents = CrlContents.everything
    deltas: bool = False
    """Whether the complete CRL has deltas (RFC 5280 5.2.4)."""


# ---- Issuers and keys -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Issuer:
    """A CA certificate, its key's name, and what it may still do."""

    id: IssuerId
    tenant: TenantId
    certificate: bytes
    subject: bytes
    """DER Name, the very octets of the certificate: copied into what it signs, never re-encoded."""
    spki: bytes
    key_identifier: bytes
    """The subjectKeyIdentifier of its certificate, copied into authorityKeyIdentifier."""
    algorithm: AlgorithmName
    not_before: UnixTime
    not_after: UnixTime
    key: KeyName | None
    """None where no key of this deployment belongs to it (the offline root, P4)."""
    may_issue: bool
    may_sign_crl: bool
    crl_url: str | None
    """What goes into cRLDistributionPoints of its leaves; http, identical on every certificate."""
    ocsp_url: str | None
    issuer_url: str | None
    """caIssuers: where this issuer's own DER certificate is served."""
    parent: IssuerId | None
    crls: CrlPlan = CrlPlan()
    successor: IssuerId | None = None
    """Who takes its place: the next generation, where there is one."""
    issues_until: UnixTime | None = None
    """The first second at which its successor issues in its place; from then on it only signs status."""
    last_ends: UnixTime | None = None
    """notAfter of the last revocable certificate that it signed; known once its successor issues."""
    retired_at: UnixTime | None = None
    """Since when it signs nothing: all that it signed had ended."""


# ---- Devices, tokens, operators -------------------------------------------------------------------------------------


class DeviceState(Enum):
    """Where a device is in its life; the moves are those of `ca.rules.device_life`."""

    blank = "blank"
    """Known by its id; nobody gave it anything yet."""
    provisioned = "provisioned"
    """Its line gave it what it needs to enrol; it has no certificate yet."""
    active = "active"
    quarantined = "quarantined"
    """Under suspicion: it neither renews nor enrols, until it is released or retired."""
    retired = "retired"
    """For good. The id stays as a tombstone."""


@dataclass(frozen=True, slots=True)
class Device:
    id: DeviceId
    tenant: TenantId
    state: DeviceState
    created: UnixTime


@dataclass(frozen=True, slots=True)
class Anchor:
    """A key in a device's hardware, by which it is known: no other device ever has it, and it stands for this device for ever."""

    kind: AttestationKind
    spki_sha256: Digest
    source: str
    """Who vouched for it: a maker's name, or the manifest that listed it."""
    at: UnixTime
    """When it came on record."""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What is known of a device beside its certificates: what people said, and the keys of its hardware."""

    root_of_trust: RootOfTrust | None = None
    justification: str = ""
    """Why it has no root of trust."""
    exception_ends: UnixTime | None = None
    """The first second at which that justification counts no more."""
    safety_class: SafetyClass | None = None
    batch: str = ""
    owner: str = ""
    anchors: tuple[Anchor, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """One step in the life of a device, or, where `before` is `after`, something else that was said of it. Append-only."""

    device: DeviceId
    before: DeviceState | None
    """None: it came onto the record."""
    after: DeviceState
    at: UnixTime
    reason: str
    actor: str
    channel: str
    """`role/evidence`: by which way it was asked for."""
    request: str
    """What names the request that did it: lower-case hex digest of its evidence."""


@dataclass(frozen=True, slots=True)
class DeviceDescription:
    """What is to be said of a device; what is None stays as it was. A device that is not on record comes onto it, blank."""

    device: DeviceId
    root_of_trust: RootOfTrust | None = None
    justification: str | None = None
    exception_ends: UnixTime | None = None
    safety_class: SafetyClass | None = None
    batch: str | None = None
    owner: str | None = None
    provisioned: bool = False
    """Its line is done with it."""


@dataclass(frozen=True, slots=True)
class DeviceEvent:
    """One line of a device's timeline."""

    at: UnixTime
    what: str
    about: str
    actor: str
    channel: str
    request: str


@dataclass(frozen=True, slots=True)
class Token:
    """A one-time enrolment token as we keep it: by the SHA-256 of its text only."""

    hash: Digest
    tenant: TenantId
    device: DeviceId
    profile: ProfileName
    names: tuple[Name, ...]
    created: UnixTime
    expires: UnixTime
    """The first second at which it no longer holds."""
    created_by: str
    used_at: UnixTime | None
    used_by: bytes | None
    """The request key (see `IssueRequest`) that used it."""
    revoked_at: UnixTime | None = None
    """When an operator withdrew it, unused."""


class RollEntry(NamedTuple):
    """One certificate as whoever goes through all of them needs it: what it is, and until when it matters. A tuple: millions are made."""

    row: int
    """Where to go on from; it only grows."""
    ref: CertificateRef
    state: CertificateState
    change: Revocation | None
    """The latest change of its status."""
    not_after: UnixTime


@dataclass(frozen=True, slots=True)
class Outline:
    """One certificate as whoever acts on many at once needs it."""

    ref: CertificateRef
    device: DeviceId
    profile: ProfileName
    not_after: UnixTime
    revocable: bool


@dataclass(frozen=True, slots=True)
class Operator:
    name: OperatorName
    tenant: TenantId
    roles: tuple[str, ...]
    created: UnixTime
    disabled_at: UnixTime | None
    person: str = ""
    """Who acts under this name; empty: whoever the name says. Two names of one person count as one."""

    @property
    def who(self) -> str:
        """The person."""
        return self.person or self.name


# ---- Evidence and grants --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TokenEvidence:
    """The preimage of a one-time token."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class MessageEvidence:
    r"""A message signed by the key of a current device or operator certificate (DESIGN 5).

    `signature` is over `b"fleetca message v1\0" + payload`; `payload` is a JSON object that says what is asked.
    """

    payload: bytes
    certificate: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class PresentedCertificate:
    """A client certificate that a web process says it saw in a TLS handshake. Weaker: only the web saw it."""

    certificate: bytes


@dataclass(frozen=True, slots=True)
class LocalEvidence:
    """The peer of the signer's socket itself: its user id was mapped to a role by the settings. Made by the signer only."""

    role: Role
    uid: int


@dataclass(frozen=True, slots=True)
class ValidatedNames:
    """What a web process says that an account of a protocol (ACME) may have: names whose holder it asked. Weaker: only the web saw the answers.

    The account is the identity, unless a one-time token names the device it stands for; the token then belongs to that account for good.
    """

    account: str
    purpose: str
    """What makes a repeated request the same one: the order's id."""
    profile: ProfileName
    names: tuple[Name, ...]
    token: Digest | None
    replaces: CertificateRef | None = None
    """Whose successor it shall be (RFC 9773 5)."""


@dataclass(frozen=True, slots=True)
class AccountBinding:
    """That who makes an account of a protocol (ACME) has a one-time token: what they authenticated with its binding key (RFC 8555 7.3.4)."""

    account: str
    profile: ProfileName
    key_id: str
    """The beginning of the token's hash."""
    octets: bytes
    mac: bytes
    digest: str
    """Of the HMAC: sha256, sha384 or sha512."""


@dataclass(frozen=True, slots=True)
class KnownHardware:
    """That the device is known by a key of its hardware. It holds nothing: what proves it is the CSR that this key signed, or the attestation that
    comes with the request."""


@dataclass(frozen=True, slots=True)
class TpmAttestation:
    """What a TPM says of the key in a CSR, with all that it takes to check it (docs/reference/rest.md). Structures are the TPM's octets."""

    endorsement: tuple[bytes, ...]
    """Certificates, DER: that of the endorsement key, then those between it and its maker's."""
    attestation_key: bytes
    """TPMT_PUBLIC of the key that signed."""
    ticket: bytes
    """The challenge, as we made it."""
    secret: bytes = field(repr=False)
    """What TPM2_ActivateCredential gave out."""
    key: bytes
    """TPMT_PUBLIC of the key in the CSR."""
    attest: bytes
    """TPMS_ATTEST of TPM2_Certify."""
    signature: bytes
    """TPMT_SIGNATURE over it."""


@dataclass(frozen=True, slots=True)
class ManufacturerCertificate:
    """The certificate that a device left its factory with (IDevID, IEEE 802.1AR), which a web process says it saw in a TLS handshake. Weaker."""

    certificate: bytes


@dataclass(frozen=True, slots=True)
class UnitEvidence:
    """A line of a station's file that the signer took onto its record before: the station's signature was judged then."""

    shift: int
    line: bytes


Evidence: TypeAlias = (
    TokenEvidence
    | MessageEvidence
    | PresentedCertificate
    | LocalEvidence
    | ValidatedNames
    | ManufacturerCertificate
    | AccountBinding
    | KnownHardware
    | UnitEvidence
)


class EvidenceKind(Enum):
    token = "token"
    message = "message"
    presented = "presented"
    local = "local"
    validated = "validated"
    manufacturer = "manufacturer"
    binding = "binding"
    hardware = "hardware"
    unit = "unit"
    approval = "approval"
    """Two persons approved it. Nobody brings it: the signer finds it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a key counts as attested, by the one policy over that (`ca.rules.attestation.policy`)."""

    kind: AttestationKind
    rule: str
    words: str
    """Which facts, for people."""
    anchor: Digest
    """The key of the device's hardware that it rests on."""


@dataclass(frozen=True, slots=True)
class ManifestImport:
    """Entries of a maker's manifest of secure elements, for the record."""

    manifest: Digest
    """SHA-256 of the whole file."""
    signer: bytes
    """The certificate of who signed it, DER: believed because an operator says so."""
    prefix: str
    """What the ids of its devices begin with; the element's serial number follows."""
    first: int
    """The place of the first of `entries` in the file, from 1 on."""
    entries: tuple[str, ...]
    """As they stand in the file."""


@dataclass(frozen=True, slots=True)
class ManifestOutcome:
    """What became of one entry."""

    number: int
    state: str
    """`recorded`, `known` (it was on record before) or `refused`."""
    unique_id: str
    """Of a refused one: what it says of itself, unverified."""
    code: str
    """Why it was refused."""
    words: str
    """Of a refused one: the same for people; else the device's id."""


@dataclass(frozen=True, slots=True)
class JudgedKey:
    """Why the key of one certificate counted as attested."""

    ref: CertificateRef
    profile: ProfileName
    at: UnixTime
    """When that was decided."""
    verdict: Verdict | None
    """None: nothing was asked or shown."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Who, by which evidence, may get what, until when. Made by `ca.rules.grant` alone; issuing and revoking take nothing else (P2)."""

    tenant: TenantId
    device: DeviceId
    profile: ProfileName
    profile_digest: Digest
    issuer: IssuerId
    names: tuple[Name, ...]
    actor: str
    """`device:ID`, `operator:NAME`, `role:enroll@uid` ... for the record."""
    role: Role
    evidence: EvidenceKind
    evidence_digest: Digest
    parent: CertificateRef | None
    """The certificate that is being renewed."""
    token: Digest | None
    granted_at: UnixTime
    verdict: Verdict | None = None
    """On what vouches for the key, where that was asked or shown."""


@dataclass(frozen=True, slots=True)
class StatusChange:
    """A row to append to a certificate's changes of status."""

    ref: CertificateRef
    reason: Reason
    revoked_at: UnixTime
    not_after: UnixTime
    listed: bool


@dataclass(frozen=True, slots=True)
class RevocationGrant:
    """Who, by which evidence, may revoke which certificates, why."""

    tenant: TenantId
    actor: str
    role: Role
    evidence: EvidenceKind
    evidence_digest: Digest
    targets: tuple[CertificateRef, ...]
    device: DeviceId | None
    """Set when a whole device is revoked: its state changes and its renewals stop."""
    reason: Reason
    granted_at: UnixTime
    invalid_from: UnixTime | None = None


# ---- Requests to the signer -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IssueRequest:
    """Evidence and a CSR. `device`, `profile` and `names` are wishes: they must equal what the evidence gives, or be absent;
    only local and operator evidence may choose them.

    The request key (what makes a repeat a repeat) is SHA-256 over kind and digest of the evidence, and the CSR.
    """

    csr: bytes
    """PKCS#10, DER."""
    evidence: Evidence
    device: DeviceId | None = None
    profile: ProfileName | None = None
    names: tuple[Name, ...] = ()
    issuer: IssuerId | None = None
    """Only local evidence of the status and operator roles may choose; all others get the deployment's default."""
    attestation: TpmAttestation | None = None
    """What the device's TPM says of the key. Says nothing of who may have a certificate: that is for the evidence."""


@dataclass(frozen=True, slots=True)
class ChallengeRequest:
    """A device wants to have a key attested: for which TPM and which attestation key the challenge is."""

    endorsement: tuple[bytes, ...]
    """As in `TpmAttestation`."""
    attestation_key: bytes
    """TPMT_PUBLIC."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a TPM must answer. Nobody keeps it."""

    ticket: bytes
    """Goes back with the answer."""
    nonce: Digest
    """qualifyingData of TPM2_Certify."""
    credential: bytes
    """Contents of the TPM2B_ID_OBJECT."""
    seed: bytes
    """Contents of the TPM2B_ENCRYPTED_SECRET."""
    expires: UnixTime


@dataclass(frozen=True, slots=True)
class MassPart:
    """One request of a mass revocation: which place its certificates have in the list that was approved (RFC 9162 2.1.3)."""

    root: Digest
    """Over the requests of the whole list."""
    requests: int
    certificates: int
    index: int
    proof: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class RevokeRequest:
    """Exactly one of `target` and `device`. Without either, presented evidence revokes itself."""

    evidence: Evidence
    reason: Reason
    target: CertificateRef | None = None
    device: DeviceId | None = None
    invalid_from: UnixTime | None = None
    """invalidityDate, where it is known."""
    others: tuple[CertificateRef, ...] = ()
    """Certificates beside `target`: all of them or none. Only local evidence of operators names any."""
    part: MassPart | None = None
    """Where two persons approved a list that these certificates are a part of."""


@dataclass(frozen=True, slots=True)
class TokenRequest:
    evidence: Evidence
    device: DeviceId
    profile: ProfileName
    names: tuple[Name, ...]
    lifetime: int
    """Seconds."""


@dataclass(frozen=True, slots=True)
class TokenWithdrawal:
    """The outstanding tokens of a device shall work no more: all, or those whose hash begins so (lower-case hex)."""

    evidence: Evidence
    device: DeviceId
    hash: str = ""


@dataclass(frozen=True, slots=True)
class RenewalOrder:
    """An operator has certificates replaced before their time; what is None does not choose. Withdrawn, it counts no more."""

    number: int
    """From 1 on, without gaps, in the order in which they were given."""
    tenant: TenantId
    since: UnixTime
    """When it was given. Certificates that were issued later are what replaces."""
    within: int
    """Seconds in which all of them shall have come; 0: now, all at once."""
    issuer: IssuerId | None
    profile: ProfileName | None
    reason: str
    """For people; agents show it."""
    actor: str
    withdrawn_at: UnixTime | None = None
    withdrawn_by: str = ""


@dataclass(frozen=True, slots=True)
class RenewalOrderRequest:
    """An operator wants certificates replaced."""

    evidence: Evidence
    within: int
    issuer: IssuerId | None = None
    profile: ProfileName | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RenewalOrderWithdrawal:
    """An operator ends an order."""

    evidence: Evidence
    number: int


@dataclass(frozen=True, slots=True)
class ConfirmRequest:
    """A key authenticates to us (P9): the ancestors of its certificate are superseded.

    With `successor`, its holder says that it has that renewal of its certificate: the grace of its profile begins.
    """

    evidence: Evidence
    successor: CertificateRef | None = None


# ---- Drafts, certificates, revocations ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Draft:
    """Octets that may be signed once, and the facts they state."""

    tbs: bytes
    issuer: IssuerId
    serial: Serial
    algorithm: AlgorithmName
    """The issuer's: what signs."""
    not_before: UnixTime
    not_after: UnixTime
    """Inclusive: the last second at which it holds (RFC 5280 4.1.2.5)."""
    subject: str
    """RFC 4514 text, for search."""
    names: tuple[Name, ...]
    spki_sha256: Digest
    shard: int = 0
    """Of the CRL whose URL it carries."""


class CertificateState(Enum):
    intended = "intended"
    """Its TBS is on record; whether a signature exists is not known."""
    issued = "issued"
    """Signed, re-read, recorded."""
    void = "void"
    """A crash left it without a recorded signature; it was given up, and revoked where it can be."""


class Standing(Enum):
    """What a search for certificates may ask about; exactly one holds for each certificate. Expiry is asked by date."""

    intended = "intended"
    issued = "issued"
    """Neither superseded nor revoked."""
    superseded = "superseded"
    """And not revoked."""
    revoked = "revoked"
    """Or on hold."""
    void = "void"
    """And not revoked."""


@dataclass(frozen=True, slots=True)
class CertificateQuery:
    """What a search for certificates asks; all that is given must hold. The web, the socket and the store have this one word for it."""

    device: DeviceId | None = None
    subject: str | None = None
    """RFC 4514 text as recorded, whole, or its beginning followed by `*`."""
    san: str | None = None
    """The text of a subject alternative name, whole."""
    serial: Serial | None = None
    spki_sha256: Digest | None = None
    """Of a key that was claimed for a device."""
    state: Standing | None = None
    expires_after: UnixTime | None = None
    """notAfter is at or after this."""
    expires_before: UnixTime | None = None
    after: str | None = None
    """The cursor of the page before, from a search for the same."""
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Intent:
    """What is committed before a CA key is asked to sign (P1)."""

    draft: Draft
    grant: Grant
    request_key: Digest
    intended_at: UnixTime


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate on record. `der` is None unless `state` is issued."""

    ref: CertificateRef
    state: CertificateState
    tenant: TenantId
    device: DeviceId
    profile: ProfileName
    subject: str
    names: tuple[Name, ...]
    spki_sha256: Digest
    not_before: UnixTime
    not_after: UnixTime
    tbs: bytes
    der: bytes | None
    parent: CertificateRef | None
    request_key: Digest
    intended_at: UnixTime
    issued_at: UnixTime | None
    superseded_at: UnixTime | None
    """Ask `ca.rules.renewal.superseded`: it is so from `grace_ends_at` on, and this field follows."""
    first_used_at: UnixTime | None
    delivered_at: UnixTime | None
    """When the holder of its parent's key said that it has it."""
    grace_ends_at: UnixTime | None
    """Set when the delivery of a successor was confirmed: the first second at which it is superseded, used or not."""
    revocable: bool
    revocation: Revocation | None
    leaf: Digest
    """Leaf hash of its `issuance` leaf: what a receipt proves to be in the log."""
    clone_seen_at: UnixTime | None = None
    """When its key spoke, for the first time, after another certificate had taken its place by being used: two may hold what is one device's."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """One change of a certificate's status. Append-only; the highest `change` of a certificate is its state.

    A release from hold is a row with reason `removeFromCRL`.
    """

    change: ChangeNumber
    ref: CertificateRef
    reason: Reason
    revoked_at: UnixTime
    not_after: UnixTime
    """Of the certificate: says how long the entry stays (RFC 5280 3.3)."""
    listed: bool
    """False for certificates that never stand in a CRL (noRevAvail)."""
    shard: int = 0
    """Of the CRL that the certificate points to."""
    invalid_from: UnixTime | None = None
    """When the key was lost or the certificate became wrong, where that is known (invalidityDate, RFC 5280 5.3.2)."""


@dataclass(frozen=True, slots=True)
class CrlIntent:
    """What is committed before a CRL is signed."""

    issuer: IssuerId
    shard: int
    number: CrlNumber
    as_of: ChangeNumber
    count: int
    this_update: UnixTime
    next_update: UnixTime
    tbs_sha256: Digest
    fence: int
    base: CrlNumber | None = None
    """Of a delta: the number of the complete CRL that it adds to."""


@dataclass(frozen=True, slots=True)
class CrlEntry:
    serial: Serial
    revoked_at: UnixTime
    reason: Reason
    invalid_from: UnixTime | None = None


ListedChange: TypeAlias = tuple[ChangeNumber, int, bytes, int, UnixTime, UnixTime, UnixTime | None, ChangeNumber | None]
"""One row of the revocations that CRLs are made of: change, shard, serial (20 octets), reason, revoked at, notAfter, invalid from, and the change
of the same certificate that it takes the place of. A bare tuple: there may be millions, and an object for each costs more than reading it.
"""


@dataclass(frozen=True, slots=True)
class OutletCopy:
    """What an outlet serves under a name at one moment: whole, never half of an old and half of a new file."""

    version: str
    """Names the octets: lower-case hex SHA-256 of them. Fit for a strong ETag."""
    octets: bytes = field(repr=False)
    modified: UnixTime
    """When the outlet took it, by the outlet's own clock."""


@dataclass(frozen=True, slots=True)
class Placed:
    """What readers get since a put: as `OutletCopy`, without the octets."""

    version: str
    modified: UnixTime
    mark: str | None = None
    """The outlet's mark of the very file that this speaks of."""


# ---- What the signer answers -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Issued:
    certificate: Certificate
    leaf: Digest
    """Leaf hash of its `issuance` leaf; the same as `certificate.leaf`."""
    repeated: bool
    """True when an earlier, equal request got this certificate."""


@dataclass(frozen=True, slots=True)
class CreatedToken:
    text: str = field(repr=False)
    """The only time that anyone sees it."""
    token: Token
    binding_key: bytes = field(default=b"", repr=False)
    """With it, its holder binds an account; it follows from the token's hash and a secret of the signer's."""


class ApprovalState(Enum):
    pending = "pending"
    approved = "approved"
    refused = "refused"


@dataclass(frozen=True, slots=True)
class Approval:
    """A request for a certificate that an operator must approve, and what was decided. It is of that request and of no other."""

    request: Digest
    """Evidence and CSR, by their hash; of an account, what it asks for."""
    tenant: TenantId
    device: DeviceId
    profile: ProfileName
    names: tuple[Name, ...]
    evidence: EvidenceKind
    actor: str
    """Who asked."""
    spki_sha256: Digest
    """Of the key in the CSR."""
    asked_at: UnixTime
    expires: UnixTime
    """Approved and fetched before this, or not at all."""
    state: ApprovalState = ApprovalState.pending
    decided_at: UnixTime | None = None
    decided_by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ApprovalDecision:
    """What an operator says to a request that waits."""

    evidence: Evidence
    request: str
    """Its hash in hex, or the beginning of it."""
    approve: bool
    reason: str = ""


class GraveAct(Enum):
    """What one person alone does not do."""

    ca_certificate = "ca-certificate"
    """A ceremony brings a new CA certificate."""
    profile = "profile"
    """A changed or new profile takes effect."""
    mass_revocation = "mass-revocation"
    """More certificates are revoked at once than one person may."""
    revive = "revive"
    """The id of a retired device may enrol again."""
    waive_wipe = "waive-wipe"
    """A retired device's record is closed without its wipe receipt."""
    operator = "operator"
    """Who may approve gets a key: the second and every further one, and another key of the same one."""
    crl_override = "crl-override"
    """A CRL that the gate refused becomes visible all the same."""
    restore = "restore"
    """A lost or restored database is brought back from the journal and the log."""
    demand = "demand"
    """Less is left to two persons than before."""
    review = "review"
    """A period counts as reviewed: one person says so of evidence, another one signs it off."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What the settings want.

    Args:
        acts: what needs two persons, beside what always does.
        approvers: how many others approve.
        mass_revocation: more changes of status by operators within an hour are a mass revocation.
    """

    acts: frozenset[GraveAct] = frozenset()
    approvers: int = 1
    mass_revocation: int = 100


class ProposalState(Enum):
    open = "open"
    approved = "approved"
    refused = "refused"
    withdrawn = "withdrawn"
    used = "used"


@dataclass(frozen=True, slots=True)
class Statement:
    """What one operator signed about a proposal, with what the signer found out when it came: all of it is found out again before it counts."""

    message: MessageEvidence
    operator: OperatorName
    person: str
    approve: bool
    at: UnixTime
    channel: str
    """The way it came: role/evidence."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A grave act that one operator asks for by a signed message, and what others signed about it. It is for that exact request and for no other."""

    request: Digest
    """SHA-256 of the message: what an approval names."""
    tenant: TenantId
    act: GraveAct
    subject: str
    """The exact request, as canonical JSON."""
    reason: str
    asked: Statement
    expires: UnixTime
    state: ProposalState = ProposalState.open
    answers: tuple[Statement, ...] = ()
    words: str = ""
    """Of who refused or withdrew it."""
    ended_at: UnixTime | None = None
    """When it was refused, withdrawn or used."""


@dataclass(frozen=True, slots=True)
class ProposalRequest:
    """An operator asks for a grave act."""

    evidence: Evidence


# ---- The factory line -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Station:
    """A place on a factory line that provisions units, known by its key."""

    name: str
    tenant: TenantId
    spki: bytes
    since: UnixTime
    sealed: int = 0
    """How many of its provisioning records the CA countersigned."""
    last: str = ""
    """`sha256:` of the last of these; empty before there is one."""


@dataclass(frozen=True, slots=True)
class ShiftRequest:
    """An operator logs in at a station: only a message signed with the operator's own key asks for it."""

    evidence: MessageEvidence
    station: str
    station_key: Digest
    """SHA-256 of the station's SubjectPublicKeyInfo."""
    profile: ProfileName
    count: int
    """Units at most."""
    lifetime: int
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Shift:
    """What one operator may do at one station: so many units of one profile, until then. Its quota travels signed."""

    number: int
    """From 1 on, in the order in which they were opened."""
    tenant: TenantId
    station: str
    station_key: Digest
    operator: OperatorName
    profile: ProfileName
    issuer: IssuerId
    """Who signed the quota."""
    count: int
    not_before: UnixTime
    not_after: UnixTime
    """The last second at which a unit may be made."""
    accept_until: UnixTime
    """The last second at which units are taken."""
    request: Digest
    """Of the message that asked for it."""
    taken: int = 0
    """Units on record."""
    head: Digest = Digest(bytes(32))
    """The running hash up to the last of these."""
    signature: bytes = b""
    """By the issuer, over the quota."""


@dataclass(frozen=True, slots=True)
class UnitPart:
    """Some units of a shift as its station has them on file, under a seal over all up to the last of them."""

    header: str
    """The first line of the file."""
    first: int
    """The number of the first unit."""
    lines: tuple[str, ...]
    seal: str


@dataclass(frozen=True, slots=True)
class ShiftCount:
    """A shift, and how many certificates its units have."""

    shift: Shift
    issued: int


@dataclass(frozen=True, slots=True)
class RecordSeal:
    """The CA's countersignature over the first `count` provisioning records of a station."""

    station: str
    count: int
    last: str
    issuer: IssuerId
    at: UnixTime
    signature: bytes = b""


@dataclass(frozen=True, slots=True)
class WipeReceipt:
    """The last word on a retired device's keys: its own, that it wiped them; or an operator's, why none will come."""

    device: DeviceId
    tenant: TenantId
    octets: bytes
    """The receipt as it came; empty where none will."""
    at: UnixTime
    """When it was taken onto the record."""
    actor: str
    justification: str = ""
    """Why no receipt will come."""
    retired_at: UnixTime = 0
    """When the device was retired that time: an id that came back has another last word."""


# ---- The record -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LogLeaf:
    """One entry of the Merkle log before it has an index: canonical JSON (sorted keys, no spaces, UTF-8)."""

    body: bytes


@dataclass(frozen=True, slots=True)
class QueuedLeaf:
    """A leaf as the store keeps it: `id` rises with insertion, `index` is None until the sequencer gave it its place in the log."""

    id: int
    body: bytes
    index: int | None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed statement of the log's size and root hash (C2SP tlog-checkpoint)."""

    origin: str
    size: int
    root: Digest
    note: bytes
    """The whole signed note as published."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to do one job until `expires`; `fence` rises with every new holder."""

    name: str
    holder: str
    expires: UnixTime
    fence: int
