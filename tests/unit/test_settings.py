"""Bad settings never start anything: each mistake names the file and the key, and says what mends it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ca.errors import KeyUnavailable, Misconfigured
from ca.model import NameKind, Role
from config.strict import Address, duration, duration_text
from fleetca import forms

GOOD = """
[deployment]
name = "demo"
[store]
url = "sqlite:///state/fleetca.db"
[signer]
serial_check = "file:secrets/serial-check.key"
[signer.users]
"1001" = ["enroll"]
[signer.caps.enroll]
profiles = ["device"]
renew_from = 0
[[issuers]]
id = "root"
certificate = "ca/root.pem"
[[issuers]]
id = "issuing"
certificate = "ca/issuing.pem"
key = "sealed:keys/issuing.key"
passphrase = "file:secrets/issuing.passphrase"
[enroll]
names = ["pki.example", "192.0.2.1", "2001:db8::1"]
[log]
key = "sealed:keys/log.key"
passphrase = "file:secrets/log.passphrase"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "fleetca.toml"
    path.write_text(GOOD)
    return path


def test_paths_start_at_the_file_and_absent_settings_have_their_defaults(file: Path) -> None:
    settings = forms.read_settings(file)
    base = file.parent
    assert settings.store.url == f"sqlite:///{base}/state/fleetca.db"
    assert settings.signer.socket == base / "run/signer.sock"
    assert settings.signer.journal == base / "journal/issuance.journal"
    assert settings.crl.directory == base / "public/crl"
    assert settings.issuer("issuing").key is not None
    assert settings.enroll.listen == Address("127.0.0.1", 8443)
    assert (settings.crl.lifetime, settings.crl.interval, settings.crl.nudge) == (86400, 3600, 5)
    assert settings.octets == GOOD.encode()


def test_accepted_octets_are_read_instead_of_the_file(file: Path) -> None:
    accepted = forms.read_settings(file).octets
    file.write_text("half edit")
    assert forms.read_settings(file, accepted=accepted).deployment.name == "demo"


def test_users_caps_and_names_become_words_of_the_model(file: Path) -> None:
    settings = forms.read_settings(file)
    assert forms.roles_by_uid(settings, own_uid=7) == {1001: (Role.enroll,)}
    caps = forms.caps(settings)
    assert caps[Role.enroll].profiles == frozenset({"device"})
    assert caps[Role.operator].profiles is None
    kinds = {name.value: name.kind for name in caps[Role.enroll].own_names}
    assert kinds == {"pki.example": NameKind.dns, "192.0.2.1": NameKind.ip, "2001:db8::1": NameKind.ip}
    assert caps[Role.operator].own_names == frozenset()


def test_without_users_our_own_user_has_every_role_and_nobody_else_any(file: Path) -> None:
    file.write_text(GOOD.replace('[signer.users]\n"1001" = ["enroll"]\n', ""))
    assert forms.roles_by_uid(forms.read_settings(file), own_uid=7) == {7: tuple(Role)}


BAD = [
    pytest.param("serial_check", "serial_chek", "unknown-setting", "signer.serial_chek", "signer.serial_check", id="a misspelt setting is named with its likely spelling"),
    pytest.param("[store]", "[strore]", "unknown-setting", "strore", "store", id="a misspelt section is named"),
    pytest.param('certificate = "ca/root.pem"', 'certficate = "ca/root.pem"', "unknown-setting", "issuers[1].certficate", "issuers[1].certificate", id="a misspelt setting in a list says which element"),
    pytest.param('name = "demo"', "", "missing-setting", "deployment.name", "Add deployment.name", id="a missing setting is named"),
    pytest.param('name = "demo"', "name = 3", "bad-setting", "deployment.name", "deployment.name", id="a number is no name"),
    pytest.param('name = "demo"', 'name = "Demo 1"', "bad-setting", "deployment.name", "deployment.name", id="a name with capitals and spaces is refused"),
    pytest.param("[store]", '[signer.caps.status]\nper_minute = "60"\n[store]', "bad-setting", "signer.caps.status.per_minute", "", id="a quoted number is no number"),
    pytest.param('["enroll"]', '["enrol"]', "bad-setting", "signer.users.1001[1]", "", id="an unknown role is refused"),
    pytest.param('["enroll"]', '"enroll"', "bad-setting", "signer.users.1001", "", id="a string is no array"),
    pytest.param('"1001"', '"www-data"', "bad-setting", "signer.users.www-data", "", id="a user is named by number"),
    pytest.param("[signer.caps.enroll]", "[signer.caps.web]", "bad-setting", "signer.caps.web", "", id="caps of an unknown role are refused"),
    pytest.param('"file:secrets/serial-check.key"', '"hunter2 hunter2"', "bad-setting", "signer.serial_check", "", id="a secret in the settings is refused and not repeated"),
    pytest.param('"file:secrets/serial-check.key"', '"fd:x"', "bad-setting", "signer.serial_check", "", id="a descriptor is a number"),
    pytest.param('"sealed:keys/issuing.key"', '"keys/issuing.key"', "bad-setting", "issuers[2].key", "", id="a key needs its scheme"),
    pytest.param('"sealed:keys/issuing.key"', '"pkcs11:token=a"', "bad-setting", "issuers[2].key", "", id="a token without its library is refused"),
    pytest.param('passphrase = "file:secrets/issuing.passphrase"\n', "", "bad-setting", "issuers[2]", "", id="a key without a passphrase is refused"),
    pytest.param('id = "issuing"', 'id = "root"', "bad-setting", "root twice", "", id="two issuers of one id are refused"),
    pytest.param("[log]", '[profiles]\ndefault_issuer = "root"\n[log]', "bad-setting", "default_issuer", "", id="an offline root cannot be the default issuer (P4)"),
    pytest.param("[log]", '[profiles]\ndefault_issuer = "other"\n[log]', "bad-setting", "default_issuer", "", id="the default issuer must exist"),
    pytest.param("[log]", "[crl]\nlifetime = 86400\n[log]", "bad-setting", "crl.lifetime", "", id="a duration has a unit"),
    pytest.param("[log]", '[crl]\nlifetime = "1 day"\n[log]', "bad-setting", "crl.lifetime", "", id="a duration in words is refused"),
    pytest.param("[log]", '[crl]\ninterval = "24h"\n[log]', "bad-setting", "interval must be", "", id="a CRL interval as long as its lifetime is refused"),
    pytest.param("[log]", '[crl]\nnudge = "2m"\n[log]', "bad-setting", "nudge must be", "", id="a nudge over a minute would break P5"),
    pytest.param("[log]", '[ocsp]\nmax_age = "2h"\n[log]', "bad-setting", "max_age must be", "", id="an answer must not be cached beyond its nextUpdate"),
    pytest.param("[log]", '[ocsp]\nunknown = "good"\n[log]', "bad-setting", "ocsp.unknown", "", id="never issued is never good (P5)"),
    pytest.param("[log]", '[status]\nurl = "https://pki.example"\n[log]', "bad-setting", "status.url", "", id="status over https is refused (RFC 5280 8)"),
    pytest.param("[log]", '[status]\nurl = "http://pki.example/"\n[log]', "bad-setting", "status.url", "", id="an address ending in a slash is refused"),
    pytest.param("[enroll]", '[enroll]\nurl = "http://pki.example"', "bad-setting", "enroll.url", "", id="enrolment without TLS is refused"),
    pytest.param("[enroll]", '[enroll]\nlisten = "8443"', "bad-setting", "enroll.listen", "", id="a listening address has host and port"),
    pytest.param("[enroll]", '[enroll]\nlisten = "127.0.0.1:99999"', "bad-setting", "enroll.listen", "", id="a port has an upper end"),
    pytest.param('"sqlite:///state/fleetca.db"', '"mysql://x/y"', "bad-setting", "store.url", "", id="a database we do not speak is refused"),
    pytest.param('"sqlite:///state/fleetca.db"', '"postgresql+psycopg://ca:hunter2@db/ca"', "bad-setting", "store.password", "", id="a password in the address is refused and not repeated"),
    pytest.param('url = "sqlite:///state/fleetca.db"', 'url = "sqlite:///a.db"\npassword = "env:X"', "bad-setting", "password", "", id="SQLite has no password"),
    pytest.param("[log]", '[acme]\nnetworks = ["10.0.0.1/8"]\n[log]', "bad-setting", "acme.networks[1]", "", id="a network with bits beside its mask is refused"),
    pytest.param("[log]", '[acme]\nnetworks = ["everything"]\n[log]', "bad-setting", "acme.networks[1]", "", id="a network is written as one"),
    pytest.param("[log]", '[acme]\nhosts = { "*.x.example" = "localhost" }\n[log]', "bad-setting", "acme.hosts", "", id="a host is mapped to an address"),
    pytest.param("[log]", '[acme]\nhosts = { "x/y" = "127.0.0.1" }\n[log]', "bad-setting", "acme.hosts", "", id="a host is a name"),
    pytest.param("[log]", '[acme]\nresolver = ["dns.example"]\n[log]', "bad-setting", "acme.resolver[1]", "", id="a DNS server is an address"),
    pytest.param("[log]", "[acme]\nhttp_port = 0\n[log]", "bad-setting", "acme.http_port", "", id="a port is above zero"),
    pytest.param("[log]", "[acme]\nrefuse_nonces = 1.0\n[log]", "bad-setting", "acme.refuse_nonces", "", id="not every nonce is refused"),
    pytest.param("[log]", '[[acme.directories]]\nname = "a"\n[log]', "missing-setting", "profile", "", id="a directory has a profile"),
    pytest.param("[log]", '[[acme.directories]]\nname = "a b"\nprofile = "service"\n[log]', "bad-setting", "acme.directories[1].name", "", id="a directory has a name for addresses"),
    pytest.param("[log]", '[[acme.directories]]\nname = "a"\nprofile = "service"\n[[acme.directories]]\nname = "a"\nprofile = "device"\n[log]', "bad-setting", "a twice", "", id="two directories of one name are refused"),
    pytest.param("[log]", '[[acme.directories]]\nname = "a"\nprofile = "service"\naccounts = "anybody"\n[log]', "bad-setting", "accounts", "", id="accounts are bound or open"),
    pytest.param("[log]", '[[acme.directories]]\nname = "a"\nprofile = "service"\nnames = ["*.*.example"]\n[log]', "bad-setting", "names[1]", "", id="a pattern has one star, in front"),
    pytest.param("[log]", '[[acme.directories]]\nname = "a"\nprofile = "service"\nchallenges = ["dns-01"]\n[log]', "bad-setting", "resolver names no DNS server", "", id="dns-01 needs a resolver"),
    pytest.param("[log]", '[[acme.directories]]\nname = "a"\nprofile = "service"\nchallenges = []\n[log]', "bad-setting", "challenges", "", id="a directory has a challenge"),
    pytest.param("[log]", '[est]\nlabels = ["cacerts"]\n[log]', "bad-setting", "is an operation", "", id="a label is no operation (RFC 7030 3.2.2)"),
    pytest.param("[log]", '[[est.manufacturers]]\nname = "w"\ncertificate = "w.pem"\nprefix = "fleetca:"\n[log]', "bad-setting", "est.manufacturers[1].prefix", "", id="a manufacturer has no ids of ours"),
    pytest.param("[log]", '[[est.manufacturers]]\nname = "w"\ncertificate = "w.pem"\nprefix = "account:"\n[log]', "bad-setting", "est.manufacturers[1].prefix", "", id="a manufacturer has no ids of accounts"),
    pytest.param("[log]", '[[est.manufacturers]]\nname = "w"\ncertificate = "w.pem"\nprefix = "w"\n[log]', "bad-setting", "est.manufacturers[1].prefix", "", id="a prefix ends in a colon"),
    pytest.param("[log]", '[[est.manufacturers]]\nname = "w"\ncertificate = "w.pem"\nprefix = "w:"\n[[est.manufacturers]]\nname = "v"\ncertificate = "v.pem"\nprefix = "w:"\n[log]', "bad-setting", "prefix w: twice", "", id="two manufacturers share no ids"),
    pytest.param("[deployment]", "deployment = 3\n[x]", "unknown-setting", "x", "", id="a number is no table"),
    pytest.param("[deployment]", "[[deployment]]", "bad-setting", "deployment", "", id="a list in place of a table is refused"),
    pytest.param("[deployment]", "[deployment", "not-toml", "line 2", "", id="broken TOML says its line"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "code", "names", "fix"), BAD)
def test_R36_a_bad_setting_is_refused(file: Path, old: str, new: str, code: str, names: str, fix: str) -> None:
    assert old in GOOD
    file.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(Misconfigured) as caught:
        forms.read_settings(file)
    error = caught.value
    assert error.code == code
    assert str(file) in error.what
    assert names in f"{error.what} {error.why}"
    assert fix in error.fix
    assert "hunter2" not in f"{error.what} {error.why} {error.fix}"
    assert "pydantic" not in str(error).lower()


def test_settings_that_are_not_there_say_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="There is no settings file") as caught:
        forms.read_settings(tmp_path / "fleetca.toml")
    assert "fleetca init" in caught.value.fix


def test_a_setting_that_is_no_text_is_refused(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(Misconfigured, match="not UTF-8"):
        forms.read_settings(file)


def test_the_database_password_is_read_when_it_is_needed_and_escaped(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = GOOD.replace('"sqlite:///state/fleetca.db"', '"postgresql+psycopg://ca@db.example/ca"\npassword = "env:DB_PASSWORD"')
    file.write_text(text)
    settings = forms.read_settings(file)
    monkeypatch.delenv("DB_PASSWORD", raising=False)
    with pytest.raises(KeyUnavailable, match="DB_PASSWORD"):
        forms.store_url(settings)
    monkeypatch.setenv("DB_PASSWORD", "a/b@c")
    assert forms.store_url(settings) == "postgresql+psycopg://ca:a%2Fb%40c@db.example/ca"
    assert "a/b@c" not in repr(settings)


@pytest.mark.parametrize(
    ("url", "full"),
    [
        pytest.param("///ca?host=/run/postgresql", ":a%2Fb@/ca?host=/run/postgresql", id="a socket"),
        pytest.param("//db.example:5433/ca", ":a%2Fb@db.example:5433/ca", id="a host"),
    ],
)
def test_an_address_without_a_user_keeps_none_so_that_each_process_comes_as_its_own(
    file: Path, monkeypatch: pytest.MonkeyPatch, url: str, full: str
) -> None:
    file.write_text(GOOD.replace('"sqlite:///state/fleetca.db"', f'"postgresql+psycopg:{url}"\npassword = "env:DB_PASSWORD"'))
    monkeypatch.setenv("DB_PASSWORD", "a/b")
    assert forms.store_url(forms.read_settings(file)) == f"postgresql+psycopg://{full}"


@pytest.mark.parametrize("text", ["30s", "5m", "24h", "7d", "1h30m", "10y", "2w"])
def test_durations_survive_writing_and_reading(text: str) -> None:
    assert duration(duration_text(duration(text))) == duration(text)


@pytest.mark.parametrize("text", ["", "5", "5 m", "-5m", "1.5h", "5M", "m5", "h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        duration(text)


PROFILE = """
name = "thing"
lifetime = "7d"
status = "revocable"
crl_url = true
key_usage = ["digitalSignature"]
common_name = "{device}"
"""


@pytest.mark.parametrize(
    ("change", "code", "names"),
    [
        pytest.param({"lifetime": "life"}, "unknown-setting", "life", id="a misspelt key of a profile is named"),
        pytest.param({'"7d"': "7"}, "bad-setting", "lifetime", id="a profile's lifetime has a unit"),
        pytest.param({'"thing"': '"other"'}, "profile-name", "other", id="a profile is called what its file is called"),
        pytest.param({'"revocable"': '"sometimes"'}, "bad-setting", "status", id="an unknown kind of status is refused"),
        pytest.param({"digitalSignature": "signing"}, "bad-profile", "signing", id="an unknown key usage names file and profile"),
        pytest.param({"crl_url = true": ""}, "bad-profile", "revocable", id="revocable certificates must say where"),
    ],
)
def test_a_bad_profile_names_its_file(file: Path, change: dict[str, str], code: str, names: str) -> None:
    text = PROFILE
    for old, new in change.items():
        text = re.sub(rf"\b{old}\b" if old.isidentifier() else re.escape(old), new, text, count=1)
    folder = file.parent / "profiles"
    folder.mkdir()
    (folder / "thing.toml").write_text(text)
    file.write_text(GOOD.replace("[log]", '[profiles]\ndirectories = ["profiles"]\n[log]'))
    with pytest.raises(Misconfigured) as caught:
        forms.profiles(forms.read_settings(file))
    assert caught.value.code == code
    assert "thing.toml" in caught.value.what
    assert names in f"{caught.value.what} {caught.value.why}"


def test_a_profile_cannot_take_the_name_of_a_shipped_one(file: Path) -> None:
    folder = file.parent / "profiles"
    folder.mkdir()
    (folder / "device.toml").write_text(PROFILE.replace("thing", "device"))
    file.write_text(GOOD.replace("[log]", '[profiles]\ndirectories = ["profiles"]\n[log]'))
    with pytest.raises(Misconfigured, match="a profile device already"):
        forms.profiles(forms.read_settings(file))


def test_a_folder_of_profiles_must_exist(file: Path) -> None:
    file.write_text(GOOD.replace("[log]", '[profiles]\ndirectories = ["nowhere"]\n[log]'))
    with pytest.raises(Misconfigured, match="nowhere") as caught:
        forms.profiles(forms.read_settings(file))
    assert caught.value.fix


def test_no_setting_is_without_a_description() -> None:
    from config.settings import Settings
    from config.strict import Form, forms_in

    def walk(form: type[Form], path: str) -> list[str]:
        silent: list[str] = []
        for name, field in form.model_fields.items():
            below: list[Any] = forms_in(field.annotation)
            if below:
                silent += [entry for each in below for entry in walk(each, f"{path}.{name}")]
            elif not field.description:
                silent.append(f"{path}.{name}")
        return silent

    assert walk(Settings, "") == []


def test_directories_and_manufacturers_become_caps_that_the_signer_holds_the_web_service_to(file: Path) -> None:
    from ca.model import Role
    from ca.rules.caps import Validated
    from tests.fakes.factory import factory

    _, certificate = factory("Pump Works IDevID CA")
    (file.parent / "works.der").write_bytes(certificate)
    file.write_text(
        GOOD
        + """
[acme]
networks = ["10.0.0.0/8"]
[[acme.directories]]
name = "a"
profile = "service"
accounts = "open"
names = ["*.one.example"]
[[acme.directories]]
name = "b"
profile = "service"
names = ["*.two.example"]
[[est.manufacturers]]
name = "works"
certificate = "works.der"
prefix = "works:"
"""
    )
    caps = forms.caps(forms.read_settings(file))
    reach = Validated(open=True, bound=True, dns=("*.one.example", "*.two.example"), networks=("10.0.0.0/8",))
    assert caps[Role.enroll].validated == {"service": reach}
    [maker] = caps[Role.enroll].manufacturers
    assert (maker.name, maker.certificate, maker.prefix, maker.profiles) == ("works", certificate, "works:", ("device",))
    assert all(not caps[role].validated and not caps[role].manufacturers for role in Role if role is not Role.enroll)


def test_a_manufacturer_is_a_ca(file: Path) -> None:
    from tests.fakes.factory import factory, factory_device

    maker, _ = factory("Pump Works IDevID CA")
    (file.parent / "works.der").write_bytes(factory_device(maker, "SN-1"))
    file.write_text(GOOD + '\n[[est.manufacturers]]\nname = "works"\ncertificate = "works.der"\nprefix = "works:"\n')
    with pytest.raises(Misconfigured, match="not the certificate of a CA"):
        forms.caps(forms.read_settings(file))
