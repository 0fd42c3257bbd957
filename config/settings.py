"""The settings of a deployment, as a person writes them: `fleetca.toml`, strictly typed.

Owns names, types, defaults and one sentence about each setting (docs/reference/settings.md is made from it). Knows no PKI: whether the
issuers, profiles and lifetimes make sense together is for `ca.rules`, asked by `fleetca.forms`. Relative paths start at the settings file.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from config.errors import ConfigurationError
from config.key_uris import KeyUri, check_secret
from config.strict import Address, Duration, Form, Listen, Location, SecretReference, Several, base_of, parse, read_octets

RoleName = Literal["enroll", "status", "publisher", "operator"]
Unissued = Literal["unknown", "unauthorized", "revoked"]
ResponderAlgorithm = Literal["p256", "p384", "ed25519", "rsa-3072", "rsa-4096", "ml-dsa-44", "ml-dsa-65", "ml-dsa-87"]
SCOPE = r"[a-z0-9][a-z0-9-]{0,62}"


def _named(value: str) -> str:
    if not re.fullmatch(SCOPE, value):
        raise ValueError("is not a name; use lower-case letters, digits and hyphens, at most 63, starting with a letter or digit")
    return value


ShortName = Annotated[str, Field(strict=True), BeforeValidator(lambda value: _named(value) if isinstance(value, str) else value)]


def _url(value: str, *schemes: str) -> str:
    if not re.fullmatch(rf"({'|'.join(schemes)})://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._~/-]*[A-Za-z0-9_~])?", value):
        raise ValueError(f"is not an address; write {schemes[0]}://HOST[:PORT][/PATH] without a slash at the end")
    return value


class Deployment(Form):
    """Who this deployment is."""

    name: ShortName = Field(description="Its name: the audience of signed messages and the origin of the log. Never change it later.")


def _store_url(value: object, info: ValidationInfo) -> str:
    if isinstance(value, str) and value.startswith("sqlite:///") and len(value) > len("sqlite:///"):
        return f"sqlite:///{base_of(info) / value.removeprefix('sqlite:///')}"
    if not isinstance(value, str) or not value.startswith("postgresql+psycopg://"):
        raise ValueError("is not a database; write sqlite:///PATH or postgresql+psycopg://USER@HOST/NAME")
    if re.match(r"postgresql\+psycopg://[^/@]*:[^/]*@", value) or re.search(r"[?&]password=", value):
        raise ValueError("holds a password; take it out and say with store.password where it is")
    return value


class Store(Form):
    """The database."""

    url: Annotated[str, BeforeValidator(_store_url)] = Field(
        description="`sqlite:///PATH` (one user, one host) or `postgresql+psycopg://USER@HOST/NAME`, without a password. Without a user, each "
        "process comes as the database role that `PGUSER` or its own user names.",
    )
    password: SecretReference | None = Field(None, description="The database password, where it wants one.")

    @model_validator(mode="after")
    def _no_password_for_a_file(self) -> Store:
        if self.password is not None and self.url.startswith("sqlite:"):
            raise ValueError("has a password, and SQLite knows none")
        return self


class Caps(Form):
    """What a role may get at most by evidence that only a web process saw. Absent: no limit beyond the rules."""

    profiles: Several[ShortName] | None = Field(None, description="Only certificates of these profiles.")
    devices: Several[str] | None = Field(None, description="Only these devices: ids, or beginnings of ids that end in `*`.")
    per_minute: int | None = Field(
        None,
        ge=1,
        description="At most this many certificates a minute, as many revocations, and as many tokens: each is counted for itself.",
    )
    renew_from: float | None = Field(
        None, ge=0, le=1, description="Presented certificates only: the share of the lifetime that must have passed before a renewal."
    )


def _uid(value: object) -> object:
    if not re.fullmatch(r"\d{1,10}", str(value)):
        raise ValueError('is not a user id; write the number, like "1001" = ["enroll"]')
    return value


Uid = Annotated[str, BeforeValidator(_uid)]


class Signer(Form):
    """The process that holds the issuing keys."""

    socket: Location = Field(Path("run/signer.sock"), validate_default=True, description="The Unix socket it listens on.")
    socket_mode: Literal["0600", "0660"] = Field("0600", description="Access to the socket: its own user, or its group too.")
    journal: Location = Field(
        Path("journal/issuance.journal"),
        validate_default=True,
        description="Its own record of what it signs: the second witness after a lost database. Best on another disk.",
    )
    batch: int = Field(64, ge=1, le=1024, description="How many requests may share a commit.")
    serial_check: SecretReference = Field(description="The key of the check value in serial numbers: 32 octets in hexadecimal.")
    users: dict[Uid, Several[RoleName]] | None = Field(
        None, description="User id to roles. Absent: our own user has every role, nobody else has any."
    )
    caps: dict[RoleName, Caps] = Field(default_factory=dict, description="What a role may get at most, by role.")
    working_hours: str | None = Field(
        None,
        pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$",
        description="When people are at work, in UTC, like `07:00-19:00`: what is asked of issuing keys at other times, signatures aside, is told as a warning.",
    )
    known_keys: Several[Location] = Field(
        (),
        description="Files of keys that everybody has, beside those that are built in: no certificate is made for one. SHA-256 digests of their "
        "SubjectPublicKeyInfo, one a line, with a name; or PEM. Read when the signer starts; `fleetca scan --settings` looks for them too.",
    )

    def roles_by_uid(self) -> Mapping[int, tuple[RoleName, ...]] | None:
        """`users` with numbers for keys."""
        return None if self.users is None else {int(uid): roles for uid, roles in self.users.items()}


class IssuerSetting(Form):
    """A CA certificate this deployment knows, with its key if it is an online one."""

    id: ShortName = Field(description="Its short name; stands in addresses.")
    certificate: Location = Field(description="Its certificate (PEM).")
    key: KeyUri | None = Field(None, description="Where its key rests. Absent for an offline root: it has none here.")
    passphrase: SecretReference | None = Field(
        None, description="What unlocks the key: a passphrase, or the PIN of its token. AWS KMS has none; a TPM's key may have one."
    )
    profile: ShortName = Field("issuing-ca", description="The CA profile whose `minimum_protection` the store of its key must reach.")
    succeeds: ShortName | None = Field(
        None,
        description="The issuer whose place it takes. It is at work from the import of its certificate on, and no file need be there before; the "
        "other one then issues no more and signs status until all that it issued has ended. See `fleetca issuers prepare`.",
    )
    issues_from: datetime | None = Field(
        None, description="When it takes that place, like `2027-01-31T09:00:00Z`. Absent: as soon as it is imported."
    )
    unknown: Unissued | None = Field(None, description="Its own `ocsp.unknown`, where it differs.")
    compromised: datetime | None = Field(
        None,
        description="Since when its key may be in other hands, like `2027-01-31T09:00:00Z`: OCSP then answers `revoked` for all that it signed and for "
        "all that it never signed (RFC 6960 2.7).",
    )
    crl_shards: int = Field(
        0,
        ge=0,
        le=4096,
        description="Over how many CRLs the certificates it signs from now on are spread, beside the complete one. It may grow, never shrink.",
    )
    crl_contents: Literal["everything", "end-entities", "authorities"] = Field(
        "everything", description="What its CRLs say they speak of, where it signs no certificates of the other kind."
    )
    crl_deltas: bool = Field(False, description="Whether its complete CRL has deltas.")

    @field_validator("issues_from", "compromised")
    @classmethod
    def _with_zone(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("has no time zone; end it with Z")
        return value

    @model_validator(mode="after")
    def _both_or_none(self) -> IssuerSetting:
        check_secret(self.key, given=self.passphrase is not None)
        if self.issues_from is not None and self.succeeds is None:
            raise ValueError("issues_from is for an issuer that succeeds another one")
        return self

    @property
    def to_come(self) -> bool:
        """Whether it is still to come: a ceremony makes its certificate."""
        return self.succeeds is not None and not self.certificate.exists()


class Profiles(Form):
    """Where certificate profiles come from, beside the shipped ones."""

    directories: Several[Location] = Field((), description="Folders with more profiles (*.toml).")
    default_issuer: ShortName = Field(
        "issuing", description="The issuer that signs when nothing else is said; where it has a successor, that one."
    )


def _host_address(value: object) -> str:
    try:
        return str(ipaddress.ip_address(value if isinstance(value, str) else ""))
    except ValueError:
        raise ValueError('is not an address; write it like "10.0.0.7"') from None


HostAddress = Annotated[str, BeforeValidator(_host_address)]
_CONNECTIONS: Final = "Connections at once, for each process; beyond it those that have waited longest for their client are closed."


class Enroll(Form):
    """The web service where devices enrol and renew (TLS)."""

    listen: Listen = Field(Address("127.0.0.1", 8443), description="Where it listens.")
    url: str = Field("https://localhost:8443", description="How devices reach it.")
    names: Several[str] = Field(("localhost", "127.0.0.1"), min_length=1, description="Names and addresses in its own TLS certificate.")
    workers: int = Field(1, ge=1, le=64, description="How many processes answer.")
    connections: int = Field(1000, ge=8, le=100_000, description=_CONNECTIONS)
    proxy_socket: Location | None = Field(
        None,
        description="A Unix socket for a proxy that ends TLS before us. Whoever may connect to it is believed about whose certificate its client "
        "has shown (`Client-Cert`, RFC 9440), so only the proxy may.",
    )
    proxy_socket_mode: Literal["0600", "0660"] = Field("0600", description="Access to that socket: our own user, or its group too.")
    trusted_proxies: Several[HostAddress] = Field(
        (),
        description="Addresses of proxies on other hosts that are believed in the same way; they connect to `listen`, over TLS. From anybody else "
        "the header counts for nothing.",
    )
    renewals: Location = Field(
        Path("renewals.toml"),
        validate_default=True,
        description="When the service will not be there (`[[maintenance]]`), for the windows of renewal. Read again when it changes.",
    )
    pins: Location = Field(
        Path("public/pins.json"),
        validate_default=True,
        description="The signed sets of trust anchors that devices are told of, where there are any.",
    )
    renewals_per_second: float | None = Field(
        None,
        gt=0,
        description="More certificates than this are not given in a second, by any protocol; who has the most time left is sent away first, with"
        " Retry-After, and before them who has no certificate yet. Absent: no limit.",
    )

    @field_validator("url")
    @classmethod
    def _https(cls, value: str) -> str:
        return _url(value, "https")


def _network(value: object) -> str:
    try:
        return str(ipaddress.ip_network(value if isinstance(value, str) else "", strict=True))
    except ValueError:
        raise ValueError('is not a network; write it like "10.0.0.0/8" or "fd00::/8"') from None


def _pattern(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"\*|(\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)*", value):
        raise ValueError('is not a name; write it like "gateway.example" or, for all names below one, "*.example"')
    return value


def _server(value: object) -> str:
    if isinstance(value, str):
        bare = re.fullmatch(r"\[([0-9a-fA-F:]+)\]:\d{1,5}|([0-9.]+):\d{1,5}|([0-9a-fA-F:.]+)", value)
        if bare is not None:
            _host_address(bare[1] or bare[2] or bare[3])
            return value
    raise ValueError('is not a DNS server; write its address, like "10.0.0.53" or "10.0.0.53:5353"')


Network = Annotated[str, BeforeValidator(_network)]
NamePattern = Annotated[str, BeforeValidator(_pattern)]
DnsServer = Annotated[str, BeforeValidator(_server)]
Port = Annotated[int, Field(ge=1, le=65535)]


class AcmeDirectory(Form):
    """A directory that ACME clients are pointed at, `https://.../acme/NAME/directory`: one profile, and who may ask for it."""

    name: ShortName = Field(description="Stands in its address.")
    profile: ShortName = Field(description="The profile of the certificates it gives.")
    accounts: Literal["bound", "open"] = Field(
        "bound",
        description="`bound`: an account needs an external account binding, made from a one-time token, and stands for the device that the token "
        "names. `open`: whoever shows that they hold the names gets an account, which is then the identity.",
    )
    names: Several[NamePattern] = Field((), description="Names that may be validated: whole, `*.` and an end, or `*` for every name.")
    challenges: Several[Literal["http-01", "tls-alpn-01", "dns-01"]] = Field(
        ("http-01", "tls-alpn-01"), min_length=1, description="How holders of names may show it. `dns-01` needs `acme.resolver`."
    )


class Acme(Form):
    """ACME (RFC 8555). Without a directory there is none."""

    directories: Several[AcmeDirectory] = Field((), description="The directories.")
    networks: Several[Network] = Field(
        (),
        description="The only networks that validation connects to, and whose addresses may be identifiers. What is not named is refused.",
    )
    hosts: dict[NamePattern, HostAddress] = Field(
        default_factory=dict, description="Names, or `*.` and an end, with the address that validation uses for them instead of a look-up."
    )
    resolver: Several[DnsServer] = Field(
        (), description="DNS servers for validation; absent: as the host resolves names. Needs the extra `acme`."
    )
    http_port: Port = Field(80, description="The port of http-01.")
    tls_port: Port = Field(443, description="The port of tls-alpn-01.")
    accounts_per_hour: int = Field(1000, ge=1, description="New accounts from one network address within an hour.")
    orders_per_hour: int = Field(300, ge=1, description="New orders of one account within an hour.")
    failures_per_hour: int = Field(60, ge=1, description="Failed validations of one account within an hour.")
    refuse_nonces: float = Field(0.0, ge=0, lt=1, description="For trying clients: the share of good nonces that are refused.")

    @model_validator(mode="after")
    def _consistent(self) -> Acme:
        names = [directory.name for directory in self.directories]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"directories has {twice[0]} twice")
        for directory in self.directories:
            if "dns-01" in directory.challenges and not self.resolver:
                raise ValueError(f"directory {directory.name} takes dns-01, and resolver names no DNS server")
        return self


_EST_OPERATIONS = frozenset({"cacerts", "simpleenroll", "simplereenroll", "fullcmc", "serverkeygen", "csrattrs"})


def _prefix(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}:", value) or value in {"fleetca:", "account:"}:
        raise ValueError('is not a beginning of device ids; write up to 31 letters, digits, dots or hyphens and a colon, like "acme:"')
    return value


class Manufacturer(Form):
    """A manufacturer whose factory certificates (IDevID, IEEE 802.1AR) enrol devices over EST."""

    name: ShortName = Field(description="Its short name, for the record.")
    certificate: Location = Field(description="The CA certificate that issues its devices' certificates directly (PEM).")
    prefix: Annotated[str, BeforeValidator(_prefix)] = Field(
        description="What the ids of its devices begin with, like `acme:`; the serialNumber of the certificate's subject follows. Its own."
    )
    profiles: Several[ShortName] = Field(("device",), min_length=1, description="What its devices may have; the first where no label says.")


class Est(Form):
    """EST (RFC 7030), at `https://.../.well-known/est`."""

    default: ShortName = Field("device", description="The profile of the address without a label.")
    labels: Several[ShortName] = Field(
        ("device", "device-short", "service"), description="Profiles that have an address of their own, `/.well-known/est/PROFILE/...`."
    )
    tls12: bool = Field(
        True,
        description="Whether the enrolment service takes TLS 1.2 beside 1.3, for EST, ACME and what devices ask over REST: many EST clients know no newer one."
        " What operators and stations ask is refused there (`tls13-required`).",
    )
    manufacturers: Several[Manufacturer] = Field((), description="Whose factory certificates enrol.")

    @model_validator(mode="after")
    def _consistent(self) -> Est:
        taken = sorted(_EST_OPERATIONS.intersection(self.labels))
        if taken:
            raise ValueError(f"labels has {taken[0]}, which is an operation (RFC 7030 3.2.2)")
        for what in ("name", "prefix"):
            values = [getattr(one, what) for one in self.manufacturers]
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"manufacturers has the {what} {twice[0]} twice")
        return self


class MakerOfTpms(Form):
    """A maker whose TPMs are believed."""

    name: ShortName = Field(description="Its short name, for the record.")
    roots: Location = Field(description="The CA certificates that its endorsement certificates lead to (PEM, one or more).")


class Attestation(Form):
    """Keys that hardware vouches for: which hardware is believed."""

    tpm_makers: Several[MakerOfTpms] = Field((), description="Whose TPMs are believed.")
    profiles: Several[ShortName] = Field(
        (),
        description="What a device gets that is known by a key of its hardware and brings no token: the first. Empty: each one needs a token.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Attestation:
        names = [one.name for one in self.tpm_makers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"tpm_makers has the name {twice[0]} twice")
        return self


class Status(Form):
    """The web service that tells who still holds: OCSP, CRLs and issuer certificates (plain HTTP)."""

    listen: Listen = Field(Address("127.0.0.1", 8080), description="Where it listens.")
    url: str = Field(
        "http://127.0.0.1:8080",
        description="How everybody reaches it; stands in every certificate, so choose a name that can stay for years.",
    )
    workers: int = Field(1, ge=1, le=64, description="How many processes answer.")
    connections: int = Field(4000, ge=8, le=100_000, description=_CONNECTIONS)

    @field_validator("url")
    @classmethod
    def _http(cls, value: str) -> str:
        # RFC 5280 8: https here would ask for a status check to do a status check.
        return _url(value, "http")


class Ocsp(Form):
    """OCSP answers."""

    lifetime: Duration = Field(3600, description="From thisUpdate to nextUpdate.")
    max_age: Duration = Field(300, description="How long caches may keep an answer.")
    unknown: Unissued = Field(
        "unknown",
        description="The answer for a certificate that was never issued: `unknown`, `unauthorized` (RFC 9919 3.2.3), or `revoked` (RFC 6960 2.2, "
        "on hold since 1970).",
    )
    archive: Duration | None = Field(
        None,
        description="How long back status is kept for certificates that have ended; said in answers as archive cutoff (RFC 6960 4.4.4). "
        "Absent: not said.",
    )
    key: ResponderAlgorithm = Field(
        "p256",
        description="The algorithm of responder keys: `p256`, `p384`, `ed25519`, `rsa-3072`, `rsa-4096`, `ml-dsa-44`, `ml-dsa-65` or `ml-dsa-87`.",
    )
    responder_key: KeyUri | None = Field(
        None,
        description="Where the only responder key rests, for example on a token; made there at the first start. A process of its own, the presigner, then "
        "opens it and signs ahead, and status processes hold no key: they answer what is signed ahead by SHA-1 and SHA-256, without a nonce (RFC 9654 2.1), "
        "and `unauthorized` for what was never issued. Absent: every process makes keys in memory, by `key`.",
    )
    responder_passphrase: SecretReference | None = Field(None, description="What unlocks that key: a passphrase, or the PIN of its token.")
    presign: bool = Field(
        True, description="The publisher signs an answer for every certificate ahead, so that status goes on when all else is gone."
    )
    spool: Location = Field(
        Path("public/ocsp"), validate_default=True, description="Where these answers lie for the status processes of this host."
    )
    files: Location | None = Field(
        None, description="A folder where they also lie as files under the paths of GET requests, for a web server or a CDN. Absent: none."
    )
    bucket: str | None = Field(
        None,
        description="`s3://BUCKET/PREFIX`: the same in place of a folder, as objects in S3-compatible storage; credentials come from `AWS_...`.",
    )
    bucket_endpoint: str | None = Field(None, description="Of such storage that is not AWS.")
    bucket_region: str | None = Field(None, description="Of the bucket.")

    @model_validator(mode="after")
    def _inside(self) -> Ocsp:
        if not 0 < self.max_age < self.lifetime:
            raise ValueError("max_age must be above zero and below lifetime")
        if self.bucket is not None and not re.fullmatch(r"s3://[a-z0-9.-]{3,63}(/[A-Za-z0-9._/-]*)?", self.bucket):
            raise ValueError("bucket is not s3://BUCKET/PREFIX")
        if self.bucket is not None and self.files is not None:
            raise ValueError("files and bucket are two places for the same; name one")
        check_secret(self.responder_key, given=self.responder_passphrase is not None)
        if self.responder_key is not None and not self.presign:
            raise ValueError("presign is false, and with a responder_key nothing else signs")
        return self


class CrlOutlet(Form):
    """Another place that gets every published CRL. Each follows by itself: one that is down holds up nothing."""

    name: ShortName = Field(description="What it is called in logs.")
    url: str = Field(description="`s3://BUCKET/PREFIX`, or the `http(s)://` address of a folder that takes PUT with If-Match.")
    endpoint: str | None = Field(None, description="Of S3-compatible storage that is not AWS.")
    region: str | None = Field(None, description="Of the bucket.")
    credentials: SecretReference | None = Field(
        None, description="For PUT: `user:password`, or a bearer token. S3 takes its own from the surroundings (`AWS_...`)."
    )

    @model_validator(mode="after")
    def _a_place(self) -> CrlOutlet:
        if not re.fullmatch(
            r"s3://[a-z0-9.-]{3,63}(/[A-Za-z0-9._/-]*)?|https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._~/-]*[A-Za-z0-9_~])?", self.url
        ):
            raise ValueError("url is neither s3://BUCKET/PREFIX nor http(s)://HOST/PATH without a slash at the end")
        if self.url.startswith("s3:") and self.credentials is not None:
            raise ValueError("credentials are for PUT; S3 takes its own from the surroundings")
        return self


class Webhook(Form):
    """Who is told of every revocation, hold and release as it happens, signed, in order, until it is taken."""

    name: ShortName = Field(description="What it is called in logs.")
    url: str = Field(description="Where a POST goes for each change.")
    secret: SecretReference = Field(description="Both sides know it: HMAC-SHA256 over id, time and body (`webhook-signature`).")

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        return _url(value, "https", "http")


class Crl(Form):
    """CRLs."""

    directory: Location = Field(Path("public/crl"), validate_default=True, description="Where published CRLs lie.")
    lifetime: Duration = Field(86400, description="From thisUpdate to nextUpdate.")
    interval: Duration = Field(3600, description="A new CRL at least this often.")
    nudge: Duration = Field(5, description="A revocation brings a CRL at once, but never two within this time.")
    outlets: Several[CrlOutlet] = Field((), description="Where published CRLs go besides.")
    webhooks: Several[Webhook] = Field((), description="Who is told of every change of a certificate's status.")
    delta_interval: Duration = Field(300, description="A new delta at least this often, for issuers that have deltas.")
    delta_lifetime: Duration = Field(3600, description="From thisUpdate to nextUpdate of a delta.")
    entries: Location = Field(
        Path("state/crl-entries"),
        validate_default=True,
        description="The signer's folder of encoded entries. What is in it may be deleted.",
    )
    tally: Location = Field(
        Path("state/crl-tally"),
        validate_default=True,
        description="The publisher's folder of what its gate knows each CRL to list. What is in it may be deleted.",
    )

    @model_validator(mode="after")
    def _inside(self) -> Crl:
        if not 0 < 3 * self.interval <= self.lifetime:
            raise ValueError(
                "interval must be above zero and at most a third of lifetime: three missed runs must not leave readers without a CRL"
            )
        if not 0 < 3 * self.delta_interval <= self.delta_lifetime:
            raise ValueError("delta_interval must be above zero and at most a third of delta_lifetime")
        if self.nudge > 25:
            # A minute, less what HTTP caches may keep (30 s) and what looking and signing take.
            raise ValueError("nudge must be at most 25s: a revocation has to show in a CRL within a minute, caches included")
        return self


class Log(Form):
    """The tamper-evident record."""

    directory: Location = Field(Path("public/log"), validate_default=True, description="Where checkpoint and tiles lie.")
    key: KeyUri = Field(description="Where the key that signs checkpoints rests (Ed25519).")
    passphrase: SecretReference | None = Field(None, description="What unlocks it, as for an issuer's key.")
    verifier: Location = Field(
        Path("public/log.verifier"),
        validate_default=True,
        description="The key's public half, one line: what auditors check checkpoints with.",
    )

    @model_validator(mode="after")
    def _unlocked(self) -> Log:
        check_secret(self.key, given=self.passphrase is not None)
        return self


class Approvals(Form):
    """What one person alone does not do."""

    two_persons: Several[Literal["ca-certificate", "profile", "mass-revocation", "restore", "operator", "waive-wipe"]] = Field(
        (),
        description="Acts that one operator asks for and another one approves: `ca-certificate` (a ceremony that brings a new CA), `profile` (a new or "
        "changed profile takes effect), `mass-revocation`, "
        "`waive-wipe` (a retired device's record is closed without its wipe receipt), `restore` (`fleetca recover`, once there is a second person who may approve), `operator` (another one who may approve, or another key of one, "
        "once there is one). "
        "Reviving the id of a retired device, and publishing a CRL that the gate refused, "
        "always need two persons. `fleetca init` names all of them. To demand less than before needs the approval of two persons too: "
        "`fleetca approvals request demand`; until then what was demanded before stays in force.",
    )
    approvers: int = Field(1, ge=1, le=5, description="How many others approve, beside who asks.")
    mass_revocation: int = Field(
        100, ge=1, description="More changes of status than this within an hour, by operators, are a mass revocation."
    )
    review_every: Duration = Field(
        92 * 86400,
        description="At most so long goes by without a review that two persons signed (`fleetca approvals request review`); `fleetca doctor` tells of more.",
    )


class Custody(Form):
    """What is known here of the custodians' work, which is done elsewhere."""

    drills: Location | None = Field(None, description="Folder with the records of restore drills: what `fleetca keys drill` wrote.")
    drill_every: Duration = Field(365 * 86400, description="How long after a drill the next one is due.")


class TenantSetting(Form):
    """A customer or a division whose devices, operators and issuer are its own. It may have less than the house, never more."""

    name: ShortName = Field(description="Its short name; stands in `{tenant}` of profiles.")
    prefix: Annotated[str, BeforeValidator(_prefix)] = Field(
        description="What the ids of its devices begin with, like `acme:`. Every id that begins so is its own, and no other."
    )
    issuer: ShortName = Field(description="The issuer that signs for it, and for nobody else; where it has a successor, that one.")
    profiles: Several[ShortName] = Field(min_length=1, description="The profiles it may have.")
    lifetime: Duration | None = Field(None, description="The lifetime of its certificates, where it is shorter than the profile's.")
    algorithms: Several[ResponderAlgorithm] = Field((), description="The kinds of keys it may have, of those that the profile allows.")
    approval_within: Duration | None = Field(
        None, description="Its first certificates wait so long for an operator's approval; where the profile has that too, no longer."
    )
    devices: int | None = Field(None, ge=1, description="At most so many devices on record. Absent: no limit.")
    per_minute: int | None = Field(None, ge=1, description="At most so many certificates in a minute. Absent: no limit.")


class Settings(Form):
    """A deployment."""

    deployment: Deployment
    store: Store
    signer: Signer
    issuers: Several[IssuerSetting] = Field(min_length=1)
    profiles: Profiles
    enroll: Enroll
    acme: Acme
    est: Est
    attestation: Attestation
    status: Status
    ocsp: Ocsp
    crl: Crl
    approvals: Approvals
    custody: Custody
    tenants: Several[TenantSetting] = Field(())
    log: Log

    _file: Path = PrivateAttr(default=Path())
    _octets: bytes = PrivateAttr(default=b"")

    @property
    def file(self) -> Path:
        """The settings file."""
        return self._file

    @property
    def octets(self) -> bytes:
        """The very octets that were read."""
        return self._octets

    @property
    def base(self) -> Path:
        """The folder of the settings file."""
        return self._file.parent

    def issuer(self, id: str) -> IssuerSetting:  # noqa: A002 - the setting's own name
        """The issuer of that id.

        Raises:
            ConfigurationError: there is none (`unknown-issuer`).
        """
        for issuer in self.issuers:
            if issuer.id == id:
                return issuer
        known = ", ".join(issuer.id for issuer in self.issuers)
        raise ConfigurationError("unknown-issuer", f"{self.file}: there is no issuer {id}.", fix=f"Known issuers: {known}.")

    @model_validator(mode="before")
    @classmethod
    def _sections_with_defaults(cls, document: object) -> object:
        # Not default_factory: defaults hold relative paths, which only validation resolves.
        if not isinstance(document, dict):
            return document
        return {
            section: {} for section in ("profiles", "enroll", "acme", "est", "attestation", "status", "ocsp", "crl", "approvals", "custody")
        } | document

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        ids = [issuer.id for issuer in self.issuers]
        twice = sorted({id_ for id_ in ids if ids.count(id_) > 1})
        if twice:
            raise ValueError(f"issuers has {twice[0]} twice")
        if self.profiles.default_issuer not in ids:
            raise ValueError(f"profiles.default_issuer is {self.profiles.default_issuer}, and issuers has no such id ({', '.join(ids)})")
        succeeded = [issuer.succeeds for issuer in self.issuers if issuer.succeeds is not None]
        for issuer in self.issuers:
            if issuer.succeeds is not None and (issuer.succeeds not in ids or issuer.succeeds == issuer.id):
                raise ValueError(f"issuers: {issuer.id} succeeds {issuer.succeeds}, and there is no such other issuer")
            if succeeded.count(issuer.id) > 1:
                raise ValueError(f"issuers: two succeed {issuer.id}; let one succeed the other")
        if self.issuer(self.profiles.default_issuer).key is None and self.profiles.default_issuer not in succeeded:
            raise ValueError(f"profiles.default_issuer is {self.profiles.default_issuer}, which has no key here")
        return self


def read_settings(file: Path, *, accepted: bytes | None = None) -> Settings:
    """Read a settings file.

    Args:
        file: where it is; relative paths in it start there.
        accepted: its octets, where another process has read and accepted them already.

    Raises:
        ConfigurationError: it is absent or wrong; names the file and the key.
    """
    octets = read_octets(file, kind="settings file") if accepted is None else accepted
    file = file.absolute()
    settings = parse(Settings, octets, file=file)
    # Private attributes of our own, set once before anyone sees the object.
    settings._file = file  # noqa: SLF001
    settings._octets = octets  # noqa: SLF001
    return settings
