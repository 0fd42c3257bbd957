"""What of wiring is about CRLs: policies, where CRLs go, what may be swept. Holds no rule."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ca.errors import Broken
from ca.model import Issuer, UnixTime
from ca.outlets.directory import DirectoryOutlet
from ca.outlets.http_put import HttpPutOutlet
from ca.outlets.s3 import S3Outlet
from ca.ports import Clock, Outlet
from ca.store.engine import Store
from config.settings import CrlOutlet, Settings
from crl import model
from crl.mirror import Mirror
from crl.model import Scope
from crl.notices import Notices, Place, Post
from crl.publish import scopes
from crl.rules import gate
from crl.rules.anatomy import InMemory
from crl.shelf import Shelf
from fleetca import forms


def crl_policy(settings: Settings) -> model.Policy:
    """What the settings lay down for publishing CRLs."""
    asked = settings.crl
    return model.Policy(
        interval=asked.interval,
        nudge=asked.nudge,
        lifetime=asked.lifetime,
        delta_interval=asked.delta_interval,
        delta_lifetime=asked.delta_lifetime,
    )


def mirrors(settings: Settings, issuers: Sequence[Issuer], *, now: Callable[[], UnixTime]) -> Mapping[str, Callable[[], int]]:
    """What brings published CRLs to the other places of the settings, by name."""
    source = DirectoryOutlet(settings.crl.directory)
    return {one.name: Mirror(source, _place(one, now=now), issuers=issuers).follow for one in settings.crl.outlets}


def webhooks(settings: Settings, store: Store, *, clock: Clock, holder: str) -> Mapping[str, Callable[[], int]]:
    """What tells others of each change of status, by name."""
    return {
        f"webhook-{one.name}": Notices(
            one.name,
            reading=store.reading,
            leases=store.ledger,
            post=_poster(one.url),
            place=Place(settings.crl.tally / f"webhook-{one.name}.told"),
            secret=forms.secret(one.secret),
            clock=clock,
            deployment=settings.deployment.name,
            holder=holder,
            start=store.reading.change_number,
        ).follow
        for one in settings.crl.webhooks
    }


def _poster(url: str) -> Post:
    def post(body: bytes, headers: Mapping[str, str]) -> int:
        request = urllib.request.Request(url, data=body, headers=dict(headers), method="POST")  # noqa: S310 - http or https, by the settings
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except http.client.HTTPException as error:
            raise OSError(type(error).__name__) from None

    return post


def _place(setting: CrlOutlet, *, now: Callable[[], UnixTime]) -> Outlet:
    if setting.url.startswith("s3://"):
        bucket, _, prefix = setting.url.removeprefix("s3://").partition("/")
        return S3Outlet(
            bucket, now=now, prefix=f"{prefix.rstrip('/')}/" if prefix else "", endpoint=setting.endpoint, region=setting.region
        )
    return HttpPutOutlet(setting.url, now=now, credentials=None if setting.credentials is None else forms.secret(setting.credentials))


def prunable(folder: Path, issuers: Iterable[Issuer], *, now: UnixTime) -> list[tuple[Path, str]]:
    """Files of the folder that nobody needs, with why. Never what is published, a number, or what readers could still fall back to."""
    outlet = DirectoryOutlet(folder)
    shelf = Shelf(outlet)
    found: list[tuple[Path, str]] = []
    for issuer in issuers:
        for scope in scopes(issuer):
            head = shelf.look(scope).head
            if head is None or head.next_update <= now:
                continue  # what lies beside it may be all there is
            previous = folder / f"{scope.name}.previous"
            ends = _ends(previous, scope)
            if ends is not None and ends <= now:
                found.append((previous, "the one before it, and over"))
            for place in range(1, 17):
                waiting = folder / f"{issuer.id}.{place}.next.crl"
                ends = _ends(waiting, Scope(issuer)) if scope.shard == model.WHOLE and not scope.delta else None
                if ends is not None and ends <= now:
                    found.append((waiting, "it waited for its time, and that is over"))
                    beside = folder / f"{waiting.name}.previous"
                    if beside.exists():
                        found.append((beside, "beside the former"))
    return found


def _ends(path: Path, scope: Scope) -> UnixTime | None:
    try:
        return gate.believe(InMemory(path.read_bytes()), scope).head.next_update
    except (OSError, Broken):
        return None
