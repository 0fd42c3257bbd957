"""An issuing CA, and then a root, is replaced while devices go on: prepared, certified in a ceremony, imported, at work, retired."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from ca.errors import Conflict, Denied, FleetcaError, Misconfigured
from ca.issue import Issuing
from ca.model import DeviceId, Issued, Issuer, IssueRequest, IssuerId, LocalEvidence, Peer, ProfileName, Role
from ca.rules.issuers import Ability, abilities
from ca.system import SystemChance, SystemClock
from config.settings import Settings
from fleetca import ceremonies, deployment, forms, importing, signing, successor
from tests.fakes.ceremony import apart
from tests.fakes.signer_world import Keypair

PASSPHRASE = b"correct horse battery staple"
OPERATOR = Peer(Role.operator, 0)
DAY = 86400


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A deployment with its first ceremony imported; the root's key lies in `ceremony/root-and-issuing`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ca.keys.sealed_file._N", 1 << 8)
        folder = tmp_path_factory.mktemp("rollover") / "fleet"
        made = deployment.create(folder, deployment.Wanted(host="pki.example"), chance=SystemChance())
        hold(made.sheet, made.outputs)
        bring(folder, made.outputs)
        yield folder


@pytest.fixture
def fleet(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("ca.keys.sealed_file._N", 1 << 8)
    shutil.copytree(template, tmp_path / "fleet")
    return tmp_path / "fleet"


def hold(sheet: Path, out: Path, credentials: Path | None = None) -> None:
    ceremonies.run(
        sheet, out=out, passphrase=lambda: PASSPHRASE, confirm=lambda step: True, clock=SystemClock(), chance=SystemChance(), room=apart,
        credentials=credentials,
    )  # fmt: skip


def settings_of(fleet: Path) -> Settings:
    return forms.read_settings(fleet / "fleetca.toml")


def bring(fleet: Path, outputs: Path) -> importing.Imported:
    return importing.import_ceremony(settings_of(fleet), outputs, clock=SystemClock(), chance=SystemChance())


def prepare(fleet: Path, **wanted: str) -> successor.Prepared:
    return successor.prepare(settings_of(fleet), successor.Wanted(**wanted), chance=SystemChance())


def certify(fleet: Path, made: successor.Prepared, root: str = "root") -> Path:
    credentials = made.folder / "credentials.toml"
    credentials.write_text(f'[issuers.{root}]\nkey = "sealed:{fleet / "ceremony/root-and-issuing/root.key"}"\n')
    hold(made.sheet, made.outputs, credentials)
    return made.outputs


def issue(issuing: Issuing, device: str, issuer: str | None = None) -> Issued | FleetcaError:
    request = IssueRequest(
        csr=Keypair().csr(),
        evidence=LocalEvidence(Role.operator, OPERATOR.uid),
        device=DeviceId(device),
        profile=ProfileName("device"),
        issuer=None if issuer is None else IssuerId(issuer),
    )
    return issuing.issue([(request, OPERATOR)])[0]


def test_a_prepared_issuer_changes_nothing_until_it_is_imported(fleet: Path) -> None:
    before = settings_of(fleet)
    made = prepare(fleet)
    assert (made.id, made.succeeds) == ("issuing-2", "issuing")
    settings = settings_of(fleet)
    assert settings.issuer("issuing-2").to_come
    assert forms.issuers(settings) == forms.issuers(before)
    assert sorted(path.name for path in made.folder.iterdir()) == ["issuing-2.csr", "issuing-2.toml", "root.crl", "root.pem"]
    with signing.signer_parts(settings) as parts:
        assert not parts.retiring.enter()
        issued = issue(parts.verbs.issuing, "device-1")
    assert isinstance(issued, Issued)
    assert issued.certificate.ref.issuer == "issuing"
    with pytest.raises(Conflict) as caught:
        prepare(fleet, id="issuing-3", succeeds="issuing")
    assert caught.value.code == "successor-exists"
    with pytest.raises(Conflict) as caught:
        prepare(fleet, id="issuing-2", succeeds="issuing")
    assert caught.value.code in {"successor-exists", "issuer-exists"}
    with pytest.raises(Misconfigured) as refused:
        prepare(fleet, id="root-2", succeeds="root")
    assert refused.value.code == "root-in-ceremony"


def test_P2_after_the_import_the_new_issuer_issues_and_the_old_one_signs_status_only(fleet: Path) -> None:
    with signing.signer_parts(settings_of(fleet)) as parts:
        first = issue(parts.verbs.issuing, "device-1")
    bring(fleet, certify(fleet, prepare(fleet)))
    settings = settings_of(fleet)
    issuers = {issuer.id: issuer for issuer in forms.issuers(settings)}
    now = SystemClock().now()
    assert issuers[IssuerId("issuing")].successor == "issuing-2"
    assert abilities(issuers[IssuerId("issuing")], now=now) == {Ability.sign_crl, Ability.sign_status}
    assert abilities(issuers[IssuerId("issuing-2")], now=now) == set(Ability)
    assert [x509.load_der_x509_certificate(one.certificate).subject.rfc4514_string() for one in issuers.values()] == [
        "CN=fleet Root CA,O=fleet", "CN=fleet Issuing CA,O=fleet", "CN=fleet Issuing CA 2,O=fleet",
    ]  # fmt: skip
    with signing.signer_parts(settings) as parts:
        second = issue(parts.verbs.issuing, "device-2")
        old = issue(parts.verbs.issuing, "device-3", issuer="issuing")
        responder = parts.verbs.issuing.issue(
            [
                (IssueRequest(Keypair().csr(), LocalEvidence(Role.status, 0), issuer=IssuerId(name)), Peer(Role.status, 0))
                for name in issuers
            ][1:]
        )
        assert not parts.retiring.retire()
        assert [one.last_ends is not None for one in parts.verbs.questions._reading.issuers()] == [True, False, False]
    assert isinstance(first, Issued)
    assert isinstance(second, Issued)
    assert (first.certificate.ref.issuer, second.certificate.ref.issuer) == ("issuing", "issuing-2")
    assert isinstance(old, Denied)
    assert old.code == "issuer-succeeded"
    assert [type(one) for one in responder] == [Issued, Issued]


def test_a_successor_may_wait_for_its_day(fleet: Path) -> None:
    bring(fleet, certify(fleet, prepare(fleet)))
    file = fleet / "fleetca.toml"
    file.write_text(file.read_text().replace('succeeds = "issuing"', 'succeeds = "issuing"\nissues_from = 2999-01-01T00:00:00Z'))
    with signing.signer_parts(settings_of(fleet)) as parts:
        usual, canary = issue(parts.verbs.issuing, "device-1"), issue(parts.verbs.issuing, "device-2", issuer="issuing-2")
    assert isinstance(usual, Issued)
    assert isinstance(canary, Issued)
    assert (usual.certificate.ref.issuer, canary.certificate.ref.issuer) == ("issuing", "issuing-2")


class Later:
    """Some days from now."""

    def __init__(self, days: float) -> None:
        self.days = days

    def now(self) -> int:
        return SystemClock().now() + int(self.days * DAY)

    def monotonic(self) -> float:
        return SystemClock().monotonic()


def test_an_issuer_retires_by_itself_when_its_last_certificate_and_one_crl_after_it_have_ended(
    fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What ends last is the certificate of the first operator, which came with the import.
    admin = x509.load_pem_x509_certificate((fleet / "operators/admin.pem").read_bytes())
    lifetime = (admin.not_valid_after_utc.timestamp() - SystemClock().now()) / DAY
    bring(fleet, certify(fleet, prepare(fleet)))
    for days, retired in ((0, []), (lifetime + 0.5, []), (lifetime + 1.5, ["issuing"]), (lifetime + 1.6, [])):
        monkeypatch.setattr(signing, "SystemClock", lambda days=days: Later(days))
        with signing.signer_parts(settings_of(fleet)) as parts:
            parts.retiring.enter()
            assert list(parts.retiring.retire()) == retired, days
            recorded = {one.id: one for one in parts.verbs.questions._reading.issuers()}
    old = next(one for one in forms.at_work(settings_of(fleet), lambda: tuple(recorded.values())) if one.id == "issuing")
    assert (old.key, old.may_sign_crl, abilities(old, now=SystemClock().now())) == (None, False, frozenset())


def test_P7_where_the_record_cannot_be_read_nobody_counts_as_retired(fleet: Path) -> None:
    from ca.errors import StoreUnavailable

    def gone() -> tuple[Issuer, ...]:
        raise StoreUnavailable("store-gone", "It is gone.")

    assert forms.at_work(settings_of(fleet), gone) == forms.issuers(settings_of(fleet))


WRONG = [
    pytest.param('succeeds = "issuing"', 'succeeds = "nobody"', "no such other issuer", id="a successor of nobody"),
    pytest.param('succeeds = "issuing"', 'succeeds = "issuing-2"', "no such other issuer", id="a successor of itself"),
    pytest.param('succeeds = "issuing"', "issues_from = 2027-01-01T00:00:00Z", "succeeds another", id="a day without a place to take"),
    pytest.param('succeeds = "issuing"', 'succeeds = "issuing"\nissues_from = 2027-01-01T00:00:00', "time zone", id="a day in no time zone"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "says"), WRONG)
def test_settings_of_successors_that_make_no_sense_are_refused(fleet: Path, before: str, after: str, says: str) -> None:
    prepare(fleet)
    file = fleet / "fleetca.toml"
    file.write_text(file.read_text().replace(before, after))
    with pytest.raises(Misconfigured, match=says):
        settings_of(fleet)


def test_two_issuers_may_not_succeed_each_other(fleet: Path) -> None:
    from ca.rules.issuers import with_successors

    one, two = IssuerId("issuing"), IssuerId("root")
    with pytest.raises(Misconfigured) as caught:
        with_successors(forms.issuers(settings_of(fleet)), {one: (two, 0), two: (one, 0)})
    assert caught.value.code == "successors-in-a-circle"
    assert replace(forms.issuers(settings_of(fleet))[1]).successor is None
