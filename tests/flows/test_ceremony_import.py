"""What later ceremonies bring into a deployment: chains of CRLs that wait, links and cross-certificates, responders, the account of a destroyed key."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from ca.der import pem
from ca.errors import Conflict, FleetcaError, Misconfigured
from ca.model import IssuerId
from ca.outlets.directory import DirectoryOutlet
from ca.system import SystemChance, SystemClock
from crl.adopt import take_over, waiting
from fleetca import ceremonies, deployment, forms, importing
from tests.fakes.ceremony import apart, csr

PASSPHRASE = b"correct horse battery staple"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment with its first ceremony imported; the root's key lies in `ceremony/root-and-issuing`."""
    folder = tmp_path_factory.mktemp("later") / "fleet"
    made = deployment.create(folder, deployment.Wanted(host="pki.example"), chance=SystemChance())
    hold(made.sheet, made.outputs)
    importing.import_ceremony(forms.read_settings(made.settings), made.outputs, clock=SystemClock(), chance=SystemChance())
    return folder


@pytest.fixture
def fleet(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "fleet")
    return tmp_path / "fleet"


def hold(sheet: Path, out: Path, **changes: Any) -> None:
    ceremonies.run(
        sheet, out=out, passphrase=lambda: PASSPHRASE, confirm=lambda step: True, clock=SystemClock(), chance=SystemChance(), room=apart,
        **changes,
    )  # fmt: skip


def later(fleet: Path, name: str, acts: str, *, head: str = "") -> Path:
    """Hold a later ceremony of the deployment's root; its outputs."""
    first = fleet / "ceremony/root-and-issuing"
    sheet = fleet / f"ceremony/{name}.toml"
    sheet.write_text(f'[ceremony]\nname = "{name}"\n{head}\n[[issuers]]\nid = "root"\ncertificate = "root-and-issuing/root.pem"\n{acts}')
    (fleet / f"ceremony/{name}.credentials").write_text(f'[issuers.root]\nkey = "sealed:{first}/root.key"\n')
    (fleet / "ceremony/responder.csr").write_text(pem.pem(pem.REQUEST, csr(name="responder")))
    hold(sheet, fleet / f"ceremony/{name}", credentials=fleet / f"ceremony/{name}.credentials")
    return fleet / f"ceremony/{name}"


def bring(fleet: Path, outputs: Path) -> importing.Imported:
    return importing.import_ceremony(forms.read_settings(fleet / "fleetca.toml"), outputs, clock=SystemClock(), chance=SystemChance())


class At:
    def __init__(self, when: int) -> None:
        self._when = when

    def now(self) -> int:
        return self._when


CHAIN = """
[[acts]]
act = "root-crls"
id = "root-crl"
issuer = "root"
previous = "root-and-issuing/root-crl.crl"
count = 4
each = "45d"
overlap = "15d"
"""


def test_P6_a_chain_of_pre_dated_crls_is_imported_once_and_each_waits_for_its_time(fleet: Path) -> None:
    outputs = later(fleet, "year", CHAIN)
    imported = bring(fleet, outputs)
    assert [each.what.endswith("for later") for each in imported.placed if each.what.startswith("CRL")] == [False, True, True, True]
    settings = forms.read_settings(fleet / "fleetca.toml")
    outlet = DirectoryOutlet(settings.crl.directory)
    root = next(issuer for issuer in imported.issuers if issuer.id == IssuerId("root"))
    assert [one.head.number for one in waiting(root, outlet=outlet)] == [3, 4, 5]

    class Later:
        def now(self) -> int:
            return SystemClock().now() + 70 * 86400

    taken = take_over(root, outlet=outlet, clock=Later())
    assert taken is not None
    assert taken.number == 4  # the second of the chain was never needed: nobody looked before
    with pytest.raises(Conflict) as caught:
        bring(fleet, outputs)
    assert caught.value.code == "crl-number-back"


def test_a_chain_that_was_imported_is_refused_as_a_repetition(fleet: Path) -> None:
    outputs = later(fleet, "year", CHAIN)
    bring(fleet, outputs)
    with pytest.raises(Conflict) as caught:
        bring(fleet, outputs)
    assert caught.value.code == "ceremony-imported"


def test_a_crl_of_an_emergency_takes_the_place_of_those_that_wait(fleet: Path) -> None:
    year = later(fleet, "year", CHAIN)
    bring(fleet, year)
    acts = """
    [[acts]]
    act = "root-crl"
    id = "root-crl"
    issuer = "root"
    previous = "year/root-crl-04.crl"
    replaces_pre_dated = true
    next_update = "90d"
    [[acts.revoked]]
    serial = "4d"
    revoked_at = 2026-01-01T00:00:00Z
    reason = "cACompromise"
    """
    bring(fleet, later(fleet, "emergency", acts))
    settings = forms.read_settings(fleet / "fleetca.toml")
    published = x509.load_der_x509_crl((settings.crl.directory / "root.crl").read_bytes())
    assert published.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 6
    assert len(published) == 1
    root = next(issuer for issuer in forms.issuers(settings) if issuer.id == IssuerId("root"))

    class Later:
        def now(self) -> int:
            return SystemClock().now() + 60 * 86400

    # Those that wait have lower numbers, and know nothing of the revocation.
    assert take_over(root, outlet=DirectoryOutlet(settings.crl.directory), clock=Later()) is None


REPLACING = """
[[acts]]
act = "root-crls"
id = "root-crl"
issuer = "root"
previous = "{previous}"
replaces_pre_dated = true
count = 6
each = "45d"
overlap = "15d"
[[acts.revoked]]
serial = "4d"
revoked_at = 2026-01-01T00:00:00Z
reason = "cACompromise"
"""


def test_P6_a_chain_that_is_replaced_early_never_comes_back_and_nothing_revoked_is_forgotten(fleet: Path) -> None:
    bring(fleet, later(fleet, "year", CHAIN))
    bring(fleet, later(fleet, "early", REPLACING.format(previous="year/root-crl-04.crl")))
    settings = forms.read_settings(fleet / "fleetca.toml")
    root = next(issuer for issuer in forms.issuers(settings) if issuer.id == IssuerId("root"))
    outlet, seen = DirectoryOutlet(settings.crl.directory), []
    for day in range(0, 190, 5):
        take_over(root, outlet=outlet, clock=At(SystemClock().now() + day * 86400 + 60))
        published = x509.load_der_x509_crl((settings.crl.directory / "root.crl").read_bytes())
        assert [each.serial_number for each in published] == [0x4D]
        seen.append(published.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number)
    assert list(dict.fromkeys(seen)) == [6, 7, 8, 9, 10, 11]
    assert seen == sorted(seen)


@pytest.mark.parametrize("previous", ["year/root-crl-01.crl", "year/root-crl-03.crl"])
def test_P6_a_chain_that_follows_another_than_the_last_one_that_waits_is_refused(fleet: Path, previous: str) -> None:
    bring(fleet, later(fleet, "year", CHAIN))
    folder = forms.read_settings(fleet / "fleetca.toml").crl.directory
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(Conflict) as caught:
        bring(fleet, later(fleet, "early", REPLACING.format(previous=previous)))
    assert caught.value.code == "crl-number-waits"
    assert "root.3.next.crl" in caught.value.fix
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_takes_the_place_of_waiting_crls_does_not_begin_before_the_ceremony(fleet: Path) -> None:
    acts = REPLACING.format(previous="root-and-issuing/root-crl.crl").replace("count", "this_update = 2026-02-01T00:00:00Z\ncount")
    with pytest.raises(Misconfigured) as caught:
        later(fleet, "early", acts)
    assert caught.value.code == "bad-date"
    assert not (fleet / "ceremony/early/transcript.jsonl").exists()


BESIDE = """
[[acts]]
act = "responder"
id = "responder"
issuer = "root"
csr = "responder.csr"
subject = { common_name = "Root responder" }
[[acts]]
act = "root"
id = "root-2"
algorithm = "p256"
subject = { common_name = "Root 2" }
not_after = "20y"
[[acts]]
act = "link"
id = "old-with-new"
signer = "root-2"
subject = "root"
crl_url = "http://pki.example/crl/root-2.crl"
issuer_url = "http://pki.example/ca/root-2.cer"
[[acts]]
act = "root-crl"
id = "root-2-crl"
issuer = "root-2"
next_update = "1y"
"""


def test_a_root_change_brings_the_new_root_its_crl_and_the_link(fleet: Path) -> None:
    outputs = later(fleet, "change", BESIDE)
    with pytest.raises(Misconfigured) as caught:
        bring(fleet, outputs)
    assert caught.value.code == "unknown-issuer"
    settings = fleet / "fleetca.toml"
    settings.write_text(settings.read_text() + '\n[[issuers]]\nid = "root-2"\ncertificate = "ca/root-2.pem"\n')
    imported = bring(fleet, outputs)
    assert {"root", "issuing", "root-2"} == {issuer.id for issuer in imported.issuers}
    linked = x509.load_pem_x509_certificate((fleet / "ca/links/old-with-new.pem").read_bytes())
    linked.verify_directly_issued_by(x509.load_pem_x509_certificate((fleet / "ca/root-2.pem").read_bytes()))
    assert (fleet / "ca/responders/responder.pem").is_file()
    assert (fleet / "public/crl/root-2.crl").is_file()


def test_what_stands_there_already_is_not_replaced(fleet: Path) -> None:
    outputs = later(fleet, "change", BESIDE)
    settings = fleet / "fleetca.toml"
    settings.write_text(settings.read_text() + '\n[[issuers]]\nid = "root-2"\ncertificate = "ca/root-2.pem"\n')
    (fleet / "ca/links").mkdir()
    (fleet / "ca/links/old-with-new.pem").write_text("something else")
    with pytest.raises(Conflict) as caught:
        bring(fleet, outputs)
    assert caught.value.code == "output-differs"


def test_the_account_of_a_destroyed_key_is_imported_and_the_root_is_the_one_in_place(fleet: Path) -> None:
    people, places = "", ""
    for role, person in (("administrator", "Alex"), ("auditor", "Aron"), ("witness", "Wanda")):
        digest = ceremonies.make_role_key(person.lower(), fleet / "ceremony", lambda: PASSPHRASE)
        people += f'[[roles]]\nrole = "{role}"\nperson = "{person}"\nkey_sha256 = "{digest.hex()}"\n'
        places += f'[people.{person}]\nkey = "sealed:{person.lower()}.key"\n'
    first = fleet / "ceremony/root-and-issuing"
    sheet = fleet / "ceremony/end.toml"
    sheet.write_text(
        f'[ceremony]\nname = "end"\nconfirm = ["administrator", "auditor", "witness"]\n{people}'
        '[[issuers]]\nid = "root"\ncertificate = "root-and-issuing/root.pem"\n'
        '[[acts]]\nact = "root-crl"\nid = "last-crl"\nissuer = "root"\nprevious = "root-and-issuing/root-crl.crl"\nnext_update = "10y"\n'
        '[[acts]]\nact = "destroy-key"\nid = "root-key"\nissuer = "root"\nreason = "Its time is over."\n'
    )
    (fleet / "ceremony/end.credentials").write_text(f'[issuers.root]\nkey = "sealed:{first}/root.key"\n{places}')
    hold(sheet, fleet / "ceremony/end", credentials=fleet / "ceremony/end.credentials")
    assert not (first / "root.key").exists()
    imported = bring(fleet, fleet / "ceremony/end")
    root = x509.load_pem_x509_certificate((fleet / "ca/root.pem").read_bytes())
    from cryptography.hazmat.primitives import hashes

    assert imported.root_sha256 == root.fingerprint(hashes.SHA256())
    account = json.loads((fleet / "ca/destroyed/root-key.json").read_bytes())
    assert ["asked again", "there is no such file"] in account["proof"]


BROKEN: list[object] = [
    pytest.param(lambda out: (out / "root-crl-02.crl").unlink(), "output-missing", id="an output is missing"),
    pytest.param(lambda out: (out / "root-crl-02.crl").write_bytes((out / "root-crl-03.crl").read_bytes()), "output-changed", id="an output was exchanged"),
    pytest.param(lambda out: (out / "input-root.pem").write_text("another"), "output-changed", id="an input was exchanged"),
    pytest.param(lambda out: (out / "transcript.jsonl").write_bytes(b"".join((out / "transcript.jsonl").read_bytes().splitlines(keepends=True)[:-1])), "transcript-incomplete", id="the seal was cut off"),
]  # fmt: skip


@pytest.mark.parametrize(("harm", "code"), BROKEN)
def test_what_was_touched_on_the_way_is_not_imported(fleet: Path, harm: Callable[[Path], object], code: str) -> None:
    outputs = later(fleet, "year", CHAIN)
    before = sorted(path.name for path in (fleet / "public/crl").iterdir())
    harm(outputs)
    with pytest.raises(FleetcaError) as caught:
        bring(fleet, outputs)
    assert caught.value.code == code
    assert sorted(path.name for path in (fleet / "public/crl").iterdir()) == before
