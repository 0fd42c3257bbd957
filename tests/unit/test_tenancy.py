"""Whose a device id is, and that a tenant only narrows what the house gives (REQ-KEY-106, REQ-KEY-107)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ca.errors import Busy, FleetcaError, Misconfigured
from ca.model import AlgorithmName, DeviceId, IssuerId, ProfileName, TenantId
from ca.rules import tenancy
from ca.rules.renewal_window import overlap
from ca.rules.tenancy import Tenant, checked, narrowed, prefix_of, view
from fleetca.forms import shipped_profiles

DAY = 86400
DEVICE = shipped_profiles()[ProfileName("device")]


def tenant(name: str = "acme", **more: Any) -> Tenant:
    given: dict[str, Any] = {"prefix": f"{name}:", "issuer": IssuerId(f"{name}-ca"), "profiles": {}, **more}
    return Tenant(TenantId(name), **given)


@pytest.mark.parametrize(
    ("device", "prefix"),
    [
        ("acme:pump-1", "acme:"),
        ("acme:a:b", "acme:"),
        ("pump-1", ""),
        ("fleetca:operator:ada", "fleetca:"),
        ("acme", ""),
        ("ACME:1", "ACME:"),
    ],
)
def test_whose_a_device_is_stands_in_its_id(device: str, prefix: str) -> None:
    assert prefix_of(DeviceId(device)) == prefix


@pytest.mark.req("REQ-KEY-107")
@pytest.mark.parametrize(
    "wider",
    [
        {"lifetime": DEVICE.lifetime + 1},
        {"lifetime": 0},
        {"algorithms": ["p256", "rsa-3072", "ml-dsa-87", "unheard-of"]},
        {"approval_within": 0},
    ],
    ids=["a longer life", "no life", "another kind of key", "no approval"],
)
def test_a_tenant_cannot_widen_a_profile_by(wider: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"lifetime": None, "algorithms": [], "approval_within": None, **wider}
    with pytest.raises(Misconfigured) as caught:
        narrowed(DEVICE, **asked)
    assert caught.value.code == "tenant-loosens"


@pytest.mark.req("REQ-KEY-107")
def test_a_tenant_cannot_make_an_approval_wait_longer_than_the_house() -> None:
    house = replace(DEVICE, approval_within=DAY)
    assert narrowed(house, lifetime=None, algorithms=[], approval_within=3600).approval_within == 3600
    with pytest.raises(Misconfigured):
        narrowed(house, lifetime=None, algorithms=[], approval_within=2 * DAY)


@pytest.mark.req("REQ-KEY-009", "REQ-KEY-107")
def test_a_tenants_shorter_life_still_leaves_its_devices_the_time_that_they_may_be_away() -> None:
    house = replace(DEVICE, lifetime=90 * DAY, max_lifetime=90 * DAY, renew_from=0.5, renew_after_expiry=0)
    house = replace(house, offline=overlap(replace(house, lifetime=60 * DAY)))
    assert narrowed(house, lifetime=60 * DAY, algorithms=[], approval_within=None).lifetime == 60 * DAY
    with pytest.raises(Misconfigured) as caught:
        narrowed(house, lifetime=59 * DAY, algorithms=[], approval_within=None)
    assert caught.value.code == "tenant-offline"


@pytest.mark.req("REQ-KEY-107")
def test_what_is_narrowed_is_another_profile_by_its_digest_and_what_is_not_is_the_same() -> None:
    less = narrowed(DEVICE, lifetime=DAY, algorithms=[AlgorithmName("p256")], approval_within=DAY)
    assert (less.lifetime, less.key_algorithms, less.approval_within) == (DAY, ("p256",), DAY)
    assert less.max_lifetime <= DAY
    assert less.digest != DEVICE.digest
    assert narrowed(DEVICE, lifetime=None, algorithms=[], approval_within=None) is DEVICE
    assert narrowed(DEVICE, lifetime=2 * DAY, algorithms=[], approval_within=None).digest != less.digest


@pytest.mark.parametrize(
    "others",
    [
        [tenant(), tenant()],
        [tenant(), tenant("zeta", prefix="acme:")],
        [tenant(), tenant("zeta", issuer=IssuerId("acme-ca"))],
        [tenant("default")],
        [tenant(prefix="fleetca:")],
        [tenant(prefix="account:")],
        [tenant(prefix="acme")],
        [tenant(prefix="acme:pumps:")],
    ],
    ids=["a name", "a prefix", "an issuer", "the house's name", "our own ids", "accounts' ids", "no colon", "two colons"],
)
def test_two_tenants_cannot_share_and_none_takes_what_is_the_houses(others: list[Tenant]) -> None:
    with pytest.raises(FleetcaError) as caught:
        checked(others)
    assert caught.value.code == "tenant-clash"


def test_a_quota_is_for_those_who_have_one() -> None:
    tenancy.within_quota(None, 10**9)
    tenancy.within_quota(tenant(), 10**9)
    tenancy.within_quota(tenant(most_devices=2), 1)
    with pytest.raises(Busy) as caught:
        tenancy.within_quota(tenant(most_devices=2), 2)
    assert caught.value.code == "over-quota"


@pytest.mark.req("REQ-KEY-106")
def test_a_tenant_sees_of_the_log_what_speaks_of_it_and_nothing_else() -> None:
    said: list[tuple[dict[str, Any] | bytes, bool]] = [
        ({"kind": "issuer", "id": "acme-ca", "tenant": "acme"}, True),
        ({"kind": "issuer", "id": "zeta-ca", "tenant": "zeta"}, False),
        ({"kind": "issuance", "issuer": "acme-ca", "serial": "01", "tenant": "acme", "device": "acme:1"}, True),
        ({"kind": "issuance", "issuer": "zeta-ca", "serial": "01", "tenant": "zeta", "device": "zeta:1"}, False),
        ({"kind": "revocation", "issuer": "acme-ca", "serial": "01"}, True),
        ({"kind": "revocation", "issuer": "zeta-ca", "serial": "01"}, False),
        ({"kind": "token", "hash": "aa", "tenant": "acme"}, True),
        ({"kind": "token-revoked", "hash": "aa", "device": "acme:1"}, True),
        ({"kind": "device-facts", "id": "acme:1"}, True),
        ({"kind": "device-facts", "id": "zeta:1"}, False),
        ({"kind": "crl", "issuer": "acme-ca", "number": 1}, True),
        ({"kind": "crl", "issuer": "zeta-ca", "number": 1}, False),
        ({"kind": "clock"}, False),
        (b"not json", False),
        (b"[]", False),
    ]
    leaves = [(at, one if isinstance(one, bytes) else json.dumps(one).encode()) for at, (one, _) in enumerate(said)]
    assert [at for at, _ in view(leaves, TenantId("acme"), "acme:", {"acme-ca"})] == [at for at, (_, own) in enumerate(said) if own]
