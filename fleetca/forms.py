"""From what a person wrote to the words of the model: settings, secrets, profiles, issuers. The edge's only reader of `config`.

Turns `config`'s errors into ours. Contains no rule: `ca.rules` judges profiles and issuers.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import quote

from ca.der import pem
from ca.errors import FleetcaError, KeyUnavailable, Malformed, Misconfigured
from ca.model import (
    DEFAULT_TENANT,
    AlgorithmName,
    CrlContents,
    CrlPlan,
    Demand,
    GraveAct,
    Issuer,
    IssuerId,
    KeyName,
    Name,
    NameKind,
    Profile,
    ProfileName,
    Role,
    TenantId,
    UnixTime,
)
from ca.ports import KeyStore
from ca.rules.caps import Attesting, Caps, Manufacturer, TpmMaker, Validated
from ca.rules.certificate import issuer_from_certificate
from ca.rules.grant import reserved
from ca.rules.issuers import arranged, with_successors
from ca.rules.manufacturer import may_sign
from ca.rules.profile import accept
from ca.rules.tenancy import Tenant, checked, narrowed
from config.errors import ConfigurationError, SecretUnavailable
from config.key_uris import KeyReference, KmsKey, SealedKey, TokenKey, TpmKey
from config.profiles import ProfileForm, read_profiles
from config.secrets import Secret
from config.settings import Caps as CapsForm
from config.settings import Settings
from config.settings import read_settings as _read_settings
from config.strict import read_octets

LINKS: Final = "links"
"""The folder of link and cross-certificates, beside the first issuer's certificate."""


@contextmanager
def our_errors() -> Iterator[None]:
    """`config`'s errors leave as `Misconfigured`, secrets that cannot be had as `KeyUnavailable`."""
    try:
        yield
    except SecretUnavailable as error:
        raise KeyUnavailable(error.code, error.what, why=error.why, fix=error.fix) from None
    except ConfigurationError as error:
        raise Misconfigured(error.code, error.what, why=error.why, fix=error.fix) from None


def read_settings(file: str | Path, *, accepted: bytes | None = None) -> Settings:
    """Read and check a settings file.

    Args:
        file: where it is.
        accepted: its octets, where another process has read and accepted them already.

    Raises:
        Misconfigured: it is absent or wrong; the text names the file and the key.
    """
    with our_errors():
        return _read_settings(Path(file), accepted=accepted)


def log_origin(settings: Settings) -> str:
    """The origin line of the log's checkpoints, and the name of its key."""
    return settings.deployment.name


def pem_of(certificate: bytes) -> str:
    """One certificate as PEM."""
    return pem.pem(pem.CERTIFICATE, certificate)


def secret(reference: Secret) -> Callable[[], bytes]:
    """A function that reads a secret each time it is called, for adapters that want a passphrase.

    Raises (when called):
        KeyUnavailable: it is missing, empty, or others can read it.
    """

    def read() -> bytes:
        with our_errors():
            return reference.read()

    return read


def store_url(settings: Settings) -> str:
    """The database's address for SQLAlchemy, with its password if it has one: never print it.

    An address without a user stays without one: the driver then comes as PGUSER, or as our own user's name. So one settings file serves
    processes of several users.

    Raises:
        KeyUnavailable: the password cannot be had.
    """
    if settings.store.password is None:
        return settings.store.url
    password = quote(secret(settings.store.password)().decode(), safe="")
    return re.sub(r"^(postgresql\+psycopg://)(?:([^/@]*)@)?", lambda found: f"{found[1]}{found[2] or ''}:{password}@", settings.store.url)


def serial_check_key(settings: Settings) -> bytes:
    """The 32 octets that check values in serial numbers are made with.

    Raises:
        KeyUnavailable: it is missing, or not 64 hexadecimal digits.
    """
    reference = settings.signer.serial_check
    text = secret(reference)()
    if not re.fullmatch(rb"[0-9a-fA-F]{64}", text):
        raise KeyUnavailable(
            "secret-malformed",
            f"The secret {reference.reference} is not a serial check key.",
            why="It must be 64 hexadecimal digits.",
            fix="Restore it from the backup: serial numbers already issued depend on it.",
        )
    return bytes.fromhex(text.decode())


def roles_by_uid(settings: Settings, own_uid: int) -> Mapping[int, tuple[Role, ...]]:
    """Which user may speak to the signer in which roles: the settings', or all of them to our own user."""
    users = settings.signer.roles_by_uid()
    if users is None:
        return {own_uid: tuple(Role)}
    return {uid: tuple(Role(role) for role in roles) for uid, roles in users.items()}


def caps(settings: Settings) -> Mapping[Role, Caps]:
    """What each role may get at most. The web service may carry the names that its settings give it, and no others."""
    own = frozenset(names(settings.enroll.names))
    found = {role: _caps(settings.signer.caps.get(role.value), own if role is Role.enroll else frozenset()) for role in Role}
    return {**found, Role.enroll: replace(found[Role.enroll], validated=validated(settings), manufacturers=manufacturers(settings))}


def manufacturers(settings: Settings) -> tuple[Manufacturer, ...]:
    """The manufacturers whose factory certificates enrol.

    Raises:
        Misconfigured: a certificate is absent, or not that of a CA.
    """
    found = []
    for number, one in enumerate(settings.est.manufacturers, start=1):
        key = f"est.manufacturers[{number}].certificate"
        der = certificate_file(one.certificate, key=key)
        if not may_sign(der):
            raise Misconfigured("not-a-ca", f"{one.certificate} (setting {key}) is not the certificate of a CA.")
        found.append(Manufacturer(one.name, der, one.prefix, tuple(map(ProfileName, one.profiles))))
    return tuple(found)


def attesting(settings: Settings) -> Attesting:
    """What the settings say of keys that are attested.

    Raises:
        Misconfigured: a file of CA certificates is absent, or one in it is not a CA's.
    """
    makers = []
    for number, one in enumerate(settings.attestation.tpm_makers, start=1):
        key = f"attestation.tpm_makers[{number}].roots"
        ders = tuple(certificates_file(one.roots, key=key))
        if not all(map(may_sign, ders)):
            raise Misconfigured("not-a-ca", f"{one.roots} (setting {key}) holds a certificate that is not a CA's.")
        makers.append(TpmMaker(one.name, ders))
    return Attesting(tuple(makers), tuple(map(ProfileName, settings.attestation.profiles)))


def validated(settings: Settings) -> Mapping[ProfileName, Validated]:
    """What ACME accounts may have, by profile: the directories of each together. The signer holds the web service to it."""
    reach: dict[ProfileName, Validated] = {}
    for directory in settings.acme.directories:
        name = ProfileName(directory.profile)
        before = reach.get(name, Validated(networks=settings.acme.networks))
        reach[name] = replace(
            before,
            open=before.open or directory.accounts == "open",
            bound=before.bound or directory.accounts == "bound",
            dns=tuple(dict.fromkeys((*before.dns, *directory.names))),
        )
    return reach


def _caps(setting: CapsForm | None, own_names: frozenset[Name]) -> Caps:
    if setting is None:
        return Caps(own_names=own_names)
    return Caps(
        profiles=None if setting.profiles is None else frozenset(map(ProfileName, setting.profiles)),
        devices=setting.devices,
        per_minute=setting.per_minute,
        renew_from=setting.renew_from or 0.0,
        own_names=own_names,
    )


def demand(settings: Settings) -> Demand:
    """Which acts need two persons."""
    said = settings.approvals
    return Demand(frozenset(map(GraveAct, said.two_persons)), said.approvers, said.mass_revocation)


def tenants(settings: Settings, house: Mapping[ProfileName, Profile] | None = None) -> Mapping[str, Tenant]:
    """The tenants by prefix, with the profiles they have.

    Args:
        house: the profiles in force; None: those of the settings. What a tenant names and is not in force, it does not have.

    Raises:
        Misconfigured: two clash (`tenant-clash`), one names what there is not (`tenant-unknown`), or would widen a profile (`tenant-loosens`).
    """
    if not settings.tenants:
        return {}
    known = profiles(settings)
    house = known if house is None else house
    succeeding = {one.succeeds for one in settings.issuers if one.succeeds is not None}
    lines = {_line_of(settings, settings.profiles.default_issuer): "the house"}
    found = []
    for one in settings.tenants:
        with _naming(settings.file, f"tenants {one.name}"):
            if one.issuer not in {issuer.id for issuer in settings.issuers} or one.issuer == settings.profiles.default_issuer:
                raise Misconfigured("tenant-unknown", f"{one.issuer} is no issuer that could be this tenant's own.")
            if settings.issuer(one.issuer).key is None and one.issuer not in succeeding:
                raise Misconfigured("tenant-unknown", f"The issuer {one.issuer} has no key here.")
            other = lines.setdefault(_line_of(settings, one.issuer), f"the tenant {one.name}")
            if other != f"the tenant {one.name}":
                raise Misconfigured(
                    "tenant-clash", f"The issuer {one.issuer}, or one that it succeeds, is that of {other}.", fix="Give each its own."
                )
            unknown = sorted(set(one.profiles) - {name for name, profile in known.items() if not reserved(profile)})
            if unknown:
                raise Misconfigured("tenant-unknown", f"There is no profile {unknown[0]} that devices could have.")
            own = {
                name: narrowed(
                    house[name],
                    lifetime=one.lifetime,
                    algorithms=[AlgorithmName(each) for each in one.algorithms],
                    approval_within=one.approval_within,
                )
                for name in map(ProfileName, one.profiles)
                if name in house
            }
            found.append(Tenant(TenantId(one.name), one.prefix, IssuerId(one.issuer), own, one.devices, one.per_minute))
    with _naming(settings.file, "tenants"):
        return checked(found)


def _line_of(settings: Settings, name: str) -> str:
    """The first of the issuers of which this one is a later generation."""
    before = {one.id: one.succeeds for one in settings.issuers if one.succeeds is not None}
    for _ in settings.issuers:
        name = before.get(name, name)
    return name


def issuer_owners(settings: Settings) -> Mapping[IssuerId, TenantId]:
    """Whose issuers are that are not the house's: those that tenants name, and what takes their place."""
    found = {IssuerId(one.issuer): TenantId(one.name) for one in settings.tenants}
    for _ in settings.issuers if found else ():
        found |= {
            IssuerId(one.id): found[IssuerId(one.succeeds)]
            for one in settings.issuers
            if one.succeeds is not None and IssuerId(one.succeeds) in found
        }
    return found


def names(texts: Sequence[str]) -> tuple[Name, ...]:
    """Names of a service: IP literals are addresses, everything else is DNS."""
    return tuple(Name(NameKind.ip if _is_ip(text) else NameKind.dns, text) for text in texts)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def key_store(reference: KeyReference, passphrase: Secret | None) -> tuple[KeyStore, KeyName]:
    """The store a key reference names, and the key's name in it. Called by the signer, the sequencer, init and the ceremony only (P3).

    Raises:
        Misconfigured: the store's library is not installed (`extra-missing`).
    """
    # What faces a network imports this module and must not get key code.
    unlock = None if passphrase is None else secret(passphrase)
    match reference:
        case SealedKey():
            from ca.keys.sealed_file import SealedFileKeyStore  # noqa: PLC0415

            assert unlock is not None, "the settings see to it"
            store: KeyStore = SealedFileKeyStore(reference.file.parent, unlock)
        case TokenKey():
            with _extra("hsm", "python-pkcs11"):
                from ca.keys.pkcs11 import Pkcs11KeyStore  # noqa: PLC0415
                from ca.keys.pkcs11_token import TokenAddress  # noqa: PLC0415

            assert unlock is not None, "the settings see to it"
            address = TokenAddress(
                module=reference.module,
                label=reference.token,
                serial=reference.serial,
                manufacturer=reference.manufacturer,
                model=reference.model,
                slot=reference.slot,
            )
            store = Pkcs11KeyStore(address, unlock, id=reference.id)
        case TpmKey():
            from ca.keys.tpm import TpmKeyStore  # noqa: PLC0415

            store = TpmKeyStore(reference.device, unlock)
        case KmsKey():
            with _extra("aws", "boto3"):
                from ca.keys.kms import KmsKeyStore  # noqa: PLC0415

            store = KmsKeyStore(reference.region, endpoint=reference.endpoint, by_id=not reference.key.startswith("alias/"))
        case _:
            raise Misconfigured("no-such-store", f"There is no key store for {reference.text}.")
    return store, KeyName(reference.name)


@contextmanager
def _extra(name: str, library: str) -> Iterator[None]:
    """A store whose library comes with an extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(("ca.", "fleetca.")):
            raise
        raise Misconfigured(
            "extra-missing",
            f"A key of the settings needs the library {library}.",
            why=f"It comes with the extra {name}, which is not installed.",
            fix=f'pip install "fleetca[{name}]"',
        ) from None


def profiles(settings: Settings) -> Mapping[ProfileName, Profile]:
    """The shipped profiles and the deployment's own, by name.

    Raises:
        Misconfigured: one cannot be read, or is not lawful.
    """
    with our_errors():
        return {profile.name: profile for profile in map(_profile, read_profiles(settings.profiles.directories))}


def shipped_profiles() -> Mapping[ProfileName, Profile]:
    """The profiles that come with fleetca: what a ceremony uses, which has no settings."""
    with our_errors():
        return {profile.name: profile for profile in map(_profile, read_profiles(()))}


def _profile(form: ProfileForm) -> Profile:
    try:
        # Not model_dump, which writes durations as text again.
        return accept(**{name: getattr(form, name) for name in form.model_fields_set}, digest=form.digest)
    except Misconfigured as error:
        raise Misconfigured(error.code, f"{form.file}: {error.what}", why=error.why, fix=error.fix) from None


def certificate_file(path: Path, *, key: str) -> bytes:
    """The DER of a certificate file.

    Args:
        path: PEM or DER.
        key: the setting that names it, for errors.

    Raises:
        Misconfigured: it is absent or not one certificate.
    """
    with our_errors():
        octets = read_octets(path, kind=f"certificate (setting {key})")
    try:
        return pem.der_of(octets, pem.CERTIFICATE)
    except Malformed as error:
        raise Misconfigured("bad-certificate", f"{path} (setting {key}) is not a certificate.", why=error.what) from None


def certificates_file(path: Path, *, key: str) -> list[bytes]:
    """As `certificate_file`, for a PEM file with one or more."""
    with our_errors():
        octets = read_octets(path, kind=f"certificates (setting {key})")
    try:
        found = pem.ders_of(octets, pem.CERTIFICATE)
    except Malformed as error:
        raise Misconfigured("bad-certificate", f"{path} (setting {key}) holds no certificates.", why=error.what) from None
    if not found:
        raise Misconfigured("bad-certificate", f"{path} (setting {key}) holds no certificate.", fix="Give it as PEM.")
    return found


def issuers(settings: Settings, certificates: Mapping[str, bytes] | None = None) -> tuple[Issuer, ...]:
    """The issuers of a deployment, in the settings' order, each with what stands in the certificates it signs.

    Args:
        settings: the deployment's.
        certificates: DER by issuer id, where they are not in place yet.

    Raises:
        Misconfigured: a certificate is absent or wrong, or a root has a key here (P4).
    """
    found: list[Issuer] = []
    owners = issuer_owners(settings)
    successors: dict[IssuerId, tuple[IssuerId, UnixTime]] = {}
    for number, setting in enumerate(settings.issuers, start=1):
        if setting.to_come if certificates is None else setting.id not in certificates:
            continue
        if setting.succeeds is not None:
            begins = 0 if setting.issues_from is None else int(setting.issues_from.timestamp())
            successors[IssuerId(setting.succeeds)] = IssuerId(setting.id), begins
        key = f"issuers[{number}].certificate"
        with _naming(settings.file, key):
            found.append(
                issuer_from_certificate(
                    certificate_file(setting.certificate, key=key) if certificates is None else certificates[setting.id],
                    id=setting.id,
                    tenant=owners.get(IssuerId(setting.id), DEFAULT_TENANT),
                    key=KeyName(setting.key.name) if setting.key else None,
                    crl_url=f"{settings.status.url}/crl/{setting.id}.crl",
                    ocsp_url=f"{settings.status.url}/ocsp",
                    issuer_url=f"{settings.status.url}/ca/{setting.id}.cer",
                    crls=CrlPlan(setting.crl_shards, CrlContents(setting.crl_contents), setting.crl_deltas),
                )
            )
    with _naming(settings.file, "issuers"):
        return with_successors(arranged(found), successors)


def at_work(settings: Settings, recorded: Callable[[], Sequence[Issuer]]) -> tuple[Issuer, ...]:
    """As `issuers`, with those that are retired as if their keys were offline: nothing is signed for them. For processes that sign status.

    Args:
        recorded: the issuers on record. Where they cannot be had, nobody counts as retired: status goes on (P7).
    """
    try:
        retired = {issuer.id: issuer.retired_at for issuer in recorded() if issuer.retired_at is not None}
    except FleetcaError:
        retired = {}
    return tuple(
        replace(issuer, key=None, may_sign_crl=False, retired_at=retired[issuer.id]) if issuer.id in retired else issuer
        for issuer in issuers(settings)
    )


def links(settings: Settings) -> Mapping[str, bytes]:
    """Link and cross-certificates that imports brought (DER), by the id of the act that made them.

    Raises:
        Misconfigured: a file among them is no certificate.
    """
    folder = settings.issuers[0].certificate.parent / LINKS
    return {path.stem: certificate_file(path, key="issuers[1].certificate") for path in sorted(folder.glob("*.pem"))}


@contextmanager
def _naming(file: Path, key: str) -> Iterator[None]:
    """What a rule says about something that stands in a file, with that file and key."""
    try:
        yield
    except (Misconfigured, Malformed) as error:
        what = error.what if str(file) in error.what or key in error.what else f"{file}: {key}: {error.what}"
        raise Misconfigured(error.code, what, why=error.why, fix=error.fix) from None
