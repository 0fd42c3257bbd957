"""Puts the protocols of enrolment together: ACME beside REST, on one application. Ordinary code, named arguments; holds no rule."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import structlog
from flask import Flask

from ca.errors import FleetcaError, Misconfigured
from ca.keys.memory import make_private_key
from ca.model import Issuer, IssuerId, ProfileName, Token
from ca.rules.chains import Chains
from ca.rules.renewal_window import Plan
from ca.store.engine import Store
from ca.system import SystemChance, SystemClock
from config.settings import Settings
from enroll.acme.accounts import Accounts
from enroll.acme.model import Account, ChallengeKind, Directory, Limits
from enroll.acme.nonces import Nonces
from enroll.acme.orders import Orders
from enroll.acme.ports import Prober
from enroll.acme.probing.probe import NetworkProber
from enroll.acme.probing.reach import DnsResolver, Reach, SystemResolver
from enroll.acme.requests import Requests
from enroll.acme.revoking import Revoking
from enroll.acme.routes import Service
from enroll.acme.routes import blueprint as acme_blueprint
from enroll.acme.validating import Validating
from enroll.est.flow import Est
from enroll.est.routes import blueprint as est_blueprint
from enroll.gate import Gate
from enroll.ports import Signer
from enroll.store.acme import AcmeStore
from enroll.store.transactions import Transactions
from fleetca import forms

log = structlog.get_logger()

TIDYING_SECONDS = 600.0
VALIDATING = 16
"""Validations at once: each waits for somebody else's server."""


@dataclass(slots=True)
class Protocols:
    """What the protocols hold open."""

    est: Est
    endings: list[Callable[[], None]] = field(default_factory=list)

    def close(self) -> None:
        for end in reversed(self.endings):
            end()


def attach(
    application: Flask,
    settings: Settings,
    *,
    store: Store,
    signer: Signer,
    clock: SystemClock,
    issuers: Sequence[Issuer],
    plan: Callable[[], Plan],
    gate: Gate | None,
) -> Protocols:
    """Add the protocols that the settings name to the application.

    Raises:
        Misconfigured: a directory's profile does not exist, or a library is missing.
    """
    opened = Protocols(est(settings, signer=signer, issuers=issuers, clock=clock, gate=gate))
    application.register_blueprint(est_blueprint(opened.est))
    if settings.acme.directories:
        transactions = Transactions(forms.store_url(settings))
        protocols = AcmeStore(transactions)
        pool = ThreadPoolExecutor(max_workers=VALIDATING, thread_name_prefix="validation")
        opened.endings += [transactions.close, lambda: pool.shutdown(wait=True, cancel_futures=True)]
        service = acme_service(
            settings,
            store=store,
            protocols=protocols,
            signer=signer,
            clock=clock,
            issuers=issuers,
            prober=prober(settings, clock=clock),
            later=lambda work: _ignored(pool.submit(work)),
            plan=plan,
            gate=gate,
        )
        application.register_blueprint(acme_blueprint(service))
        over = threading.Event()
        opened.endings.append(over.set)
        threading.Thread(target=_tidy, args=(protocols, clock, over), name="tidying", daemon=True).start()
    return opened


def _tidy(protocols: AcmeStore, clock: SystemClock, over: threading.Event) -> None:
    """Drop what has been over for long, now and then. Any number of workers may do it."""
    while not over.wait(TIDYING_SECONDS):
        try:
            protocols.forget(now=clock.now())
        except FleetcaError as error:
            log.warning("tidying-waits", code=error.code, reason=str(error))


def _ignored(_: object) -> None:
    """What runs in the pool writes down what came of it."""


def est(settings: Settings, *, signer: Signer, issuers: Sequence[Issuer], clock: SystemClock, gate: Gate | None) -> Est:
    """The operations of EST.

    Raises:
        Misconfigured: a label is a profile that there is not.
    """
    known = forms.profiles(settings)
    labels: dict[str | None, ProfileName] = {None: ProfileName(settings.est.default)}
    labels |= {label: ProfileName(label) for label in settings.est.labels}
    for name in labels.values():
        if name not in known:
            raise Misconfigured(
                "profile-unknown",
                f"{settings.file}: [est] names profile {name}, and there is none.",
                fix="List them: fleetca profiles list",
            )
    return Est(
        signer=signer,
        issuers=issuers,
        profiles=known,
        labels=labels,
        factories=bool(settings.est.manufacturers),
        make_key=make_private_key,
        clock=clock,
        gate=gate,
        links=forms.links(settings).values(),
    )


def directories(settings: Settings) -> Mapping[str, Directory]:
    """The ACME directories of the settings.

    Raises:
        Misconfigured: one gives a profile that there is not.
    """
    known = forms.profiles(settings)
    for one in settings.acme.directories:
        if ProfileName(one.profile) not in known:
            raise Misconfigured(
                "profile-unknown",
                f"{settings.file}: the ACME directory {one.name} gives profile {one.profile}, and there is none.",
                fix="List them: fleetca profiles list",
            )
    return {
        one.name: Directory(
            name=one.name,
            profile=ProfileName(one.profile),
            bound=one.accounts == "bound",
            dns=one.names,
            networks=settings.acme.networks,
            challenges=tuple(map(ChallengeKind, one.challenges)),
        )
        for one in settings.acme.directories
    }


def prober(settings: Settings, *, clock: SystemClock) -> Prober:
    """What asks the holders of names, inside the networks of the settings."""
    resolver = DnsResolver(settings.acme.resolver) if settings.acme.resolver else SystemResolver()
    reach = Reach(resolver=resolver, monotonic=clock.monotonic, hosts=settings.acme.hosts)
    return NetworkProber(reach=reach, http_port=settings.acme.http_port, tls_port=settings.acme.tls_port)


def acme_service(
    settings: Settings,
    *,
    store: Store,
    protocols: AcmeStore,
    signer: Signer,
    clock: SystemClock,
    issuers: Sequence[Issuer],
    prober: Prober,
    later: Callable[[Callable[[], None]], None],
    plan: Callable[[], Plan] = Plan,
    gate: Gate | None = None,
) -> Service:
    """The parts of ACME."""
    chance = SystemChance()
    limits = Limits(settings.acme.accounts_per_hour, settings.acme.orders_per_hour, settings.acme.failures_per_hour)
    nonces = Nonces(store=protocols, clock=clock, chance=chance, refuse=settings.acme.refuse_nonces)
    by_identifier: dict[bytes, IssuerId] = {issuer.key_identifier: issuer.id for issuer in issuers}
    chains = Chains(issuers, forms.links(settings).values())

    def token(account: Account) -> Token | None:
        return None if account.token is None else store.reading.find_token(account.token)

    orders = Orders(
        store=protocols,
        signer=signer,
        reader=store.reading,
        issuers=by_identifier,
        clock=clock,
        chance=chance,
        limits=limits,
        token=token,
        profiles=forms.profiles(settings),
        gate=gate,
    )
    return Service(
        base=settings.enroll.url,
        plan=plan,
        directories=directories(settings),
        requests=Requests(store=protocols, nonces=nonces),
        nonces=nonces,
        accounts=Accounts(store=protocols, signer=signer, clock=clock, chance=chance, limits=limits),
        orders=orders,
        validating=Validating(store=protocols, orders=orders, prober=prober, later=later, clock=clock, limits=limits),
        revoking=Revoking(signer=signer, reader=store.reading, orders=orders),
        reader=store.reading,
        clock=clock,
        profiles=forms.profiles(settings),
        issuers=by_identifier,
        chain=lambda issuer: chains.above(issuer, now=clock.now()),
        key_identifiers={issuer.id: issuer.key_identifier for issuer in issuers},
    )
