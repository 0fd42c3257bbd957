"""Tenants in the settings: what one could take from the house or from another is refused before anything starts, by name (REQ-KEY-106)."""

from __future__ import annotations

from pathlib import Path

import pytest

from ca.errors import Misconfigured
from ca.rules.tenancy import unknown
from fleetca import forms

GOOD = """
[deployment]
name = "demo"
[store]
url = "sqlite:///state/fleetca.db"
[signer]
serial_check = "file:secrets/serial-check.key"
[enroll]
names = ["pki.example"]
[log]
key = "sealed:keys/log.key"
passphrase = "file:secrets/log.passphrase"
[[issuers]]
id = "root"
certificate = "ca/root.pem"
"""


def issuer(name: str, *, succeeds: str = "") -> str:
    return f"""
[[issuers]]
id = "{name}"
certificate = "ca/{name}.pem"
key = "sealed:keys/{name}.key"
passphrase = "file:secrets/{name}.passphrase"
""" + (f'succeeds = "{succeeds}"\n' if succeeds else "")


def tenant(name: str = "acme", *, prefix: str = "acme:", issuer: str = "acme-ca", profiles: str = '["device"]', more: str = "") -> str:
    return f'\n[[tenants]]\nname = "{name}"\nprefix = "{prefix}"\nissuer = "{issuer}"\nprofiles = {profiles}\n{more}\n'


ISSUERS = issuer("issuing") + issuer("acme-ca") + issuer("zeta-ca")
ZETA = tenant("zeta", prefix="zeta:", issuer="zeta-ca")


def read(folder: Path, text: str) -> None:
    file = folder / "fleetca.toml"
    file.write_text(GOOD + text)
    settings = forms.read_settings(file)
    forms.tenants(settings)
    forms.issuer_owners(settings)


REFUSED = [
    pytest.param(ISSUERS + tenant(issuer="nobody"), "tenant-unknown", "nobody", id="an issuer that there is not"),
    pytest.param(ISSUERS + tenant(issuer="issuing"), "tenant-unknown", "issuing", id="the issuer of the house"),
    pytest.param(ISSUERS + tenant(issuer="root"), "tenant-unknown", "root", id="a root"),
    pytest.param(
        ISSUERS + issuer("issuing-2", succeeds="issuing") + tenant(issuer="issuing-2"), "tenant-clash", "issuing-2", id="the house's next one"
    ),
    pytest.param(
        ISSUERS + issuer("acme-2", succeeds="acme-ca") + tenant() + tenant("zeta", prefix="zeta:", issuer="acme-2"),
        "tenant-clash",
        "acme-2",
        id="another tenant's next one",
    ),
    pytest.param(ISSUERS + tenant() + ZETA.replace("zeta-ca", "acme-ca"), "tenant-clash", "acme-ca", id="another tenant's issuer"),
    pytest.param(ISSUERS + tenant() + ZETA.replace('"zeta"', '"acme"'), "tenant-clash", "acme", id="two of one name"),
    pytest.param(ISSUERS + tenant() + ZETA.replace("zeta:", "acme:"), "tenant-clash", "acme:", id="two of one prefix"),
    pytest.param(ISSUERS + tenant("default"), "tenant-clash", "default", id="the name of the house"),
    pytest.param(ISSUERS + tenant(prefix="fleetca:"), "bad-setting", "prefix", id="our own services' prefix"),
    pytest.param(ISSUERS + tenant(prefix="account:"), "bad-setting", "prefix", id="the accounts' prefix"),
    pytest.param(ISSUERS + tenant(prefix="acme"), "bad-setting", "prefix", id="a prefix without its end"),
    pytest.param(ISSUERS + tenant(prefix="a:b:"), "bad-setting", "prefix", id="a prefix in a prefix"),
    pytest.param(ISSUERS + tenant(prefix=""), "bad-setting", "prefix", id="all there is"),
    pytest.param(ISSUERS + tenant(profiles='["nothing"]'), "tenant-unknown", "nothing", id="a profile that there is not"),
    pytest.param(ISSUERS + tenant(profiles="[]"), "bad-setting", "profiles", id="no profile"),
    pytest.param(ISSUERS + tenant(profiles='["issuing-ca"]'), "tenant-unknown", "issuing-ca", id="the profile of a CA"),
    pytest.param(ISSUERS + tenant(profiles='["operator"]'), "tenant-unknown", "operator", id="the profile of operators"),
    pytest.param(ISSUERS + tenant(more='lifetime = "10y"'), "tenant-loosens", "lifetime", id="a longer life than the profile's"),
    pytest.param(ISSUERS + tenant(more='lifetime = "0s"'), "", "lifetime", id="no life at all"),
    pytest.param(ISSUERS + tenant(more='algorithms = ["rsa2048"]'), "", "algorithms", id="a weaker kind of key"),
    pytest.param(ISSUERS + tenant(more="devices = 0"), "bad-setting", "devices", id="a quota of nothing"),
    pytest.param(ISSUERS + tenant(more="devices = -1"), "bad-setting", "devices", id="a quota below nothing"),
    pytest.param(ISSUERS + tenant(more="per_minute = 0"), "bad-setting", "per_minute", id="a rate of nothing"),
    pytest.param(ISSUERS + tenant(more="two_persons = []"), "unknown-setting", "two_persons", id="what is the house's to say"),
    pytest.param(ISSUERS + tenant(more='extended_key_usage = ["serverAuth"]'), "unknown-setting", "extended_key_usage", id="another use of keys"),
]  # fmt: skip


@pytest.mark.req("REQ-KEY-106")
@pytest.mark.parametrize(("text", "code", "named"), REFUSED)
def test_a_tenant_takes_nothing_that_is_not_its_own(tmp_path: Path, text: str, code: str, named: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        read(tmp_path, text)
    assert not code or caught.value.code == code, caught.value
    assert named in f"{caught.value.what} {caught.value.why}", caught.value


def test_two_tenants_with_what_is_their_own_are_fine(tmp_path: Path) -> None:
    read(tmp_path, ISSUERS + issuer("acme-2", succeeds="acme-ca") + tenant(more='lifetime = "2h"\ndevices = 1\nper_minute = 1') + ZETA)


def test_who_asks_for_a_tenant_that_there_is_not_is_told_so() -> None:
    assert unknown("nobody").code == "no-such-tenant"
