"""An issuing CA, and then a root, is replaced while devices go on: prepared, certified in a ceremony, imported, at work, retired."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from flask import Flask

from ca.errors import Conflict, Denied, FleetcaError, Malformed, Misconfigured
from ca.issue import Issuing
from ca.key_life import find_record
from ca.model import (
    DeviceId,
    Issued,
    Issuer,
    IssueRequest,
    IssuerId,
    KeyChange,
    KeyRecord,
    KeyState,
    LocalEvidence,
    Name,
    NameKind,
    Peer,
    ProfileName,
    Role,
)
from ca.outlets.directory import DirectoryOutlet
from ca.rules import forms as wire
from ca.rules import key_life
from ca.rules.chains import Chains
from ca.rules.issuers import Ability, abilities
from ca.store.engine import open_store
from ca.system import SystemChance, SystemClock
from config.settings import Settings
from crl.adopt import take_over
from crl.model import Scope
from crl.rules import gate
from crl.rules.anatomy import InMemory
from crl.shelf import Shelf
from crl.web import blueprint
from enroll.rest.flow import Enrolment
from fleetca import ceremonies, deployment, doctor, forms, importing, protocol_wiring, signing, successor
from fleetca.agent.renewing import _path
from fleetca.key_reality import compare
from tests.fakes.ceremony import apart
from tests.fakes.signer_world import Keypair

PASSPHRASE = b"correct horse battery staple"
OPERATOR = Peer(Role.operator, 0)
OWN = ((Role.status, ()), (Role.enroll, (Name(NameKind.dns, "pki.example"),)))
DAY = 86400


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment with its first ceremony imported; the root's key lies in `ceremony/root-and-issuing`."""
    folder = tmp_path_factory.mktemp("rollover") / "fleet"
    made = deployment.create(folder, deployment.Wanted(host="pki.example"), chance=SystemChance())
    hold(made.sheet, made.outputs)
    bring(folder, made.outputs)
    return folder


@pytest.fixture
def fleet(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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


@pytest.mark.req("REQ-KEY-008")
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


def test_the_next_ceremony_comes_while_crls_of_the_last_one_still_wait(fleet: Path) -> None:
    for number in (2, 3):
        made = prepare(fleet)
        assert made.id == f"issuing-{number}"
        bring(fleet, certify(fleet, made))
    settings = settings_of(fleet)
    root = forms.issuers(settings)[0]
    outlet = DirectoryOutlet(settings.crl.directory)
    # The first made number 1, then fourteen each: those of the last one count, on their day and now.
    published = outlet.current("root.crl")
    assert published is not None
    assert gate.believe(InMemory(published.octets), Scope(root)).head.number == 16
    taken = take_over(root, outlet=outlet, clock=Later(50))
    assert taken is not None
    assert taken.number == 17


def test_a_successor_may_wait_for_its_day(fleet: Path) -> None:
    bring(fleet, certify(fleet, prepare(fleet)))
    file = fleet / "fleetca.toml"
    file.write_text(file.read_text().replace('succeeds = "issuing"', 'succeeds = "issuing"\nissues_from = 2999-01-01T00:00:00Z'))
    with signing.signer_parts(settings_of(fleet)) as parts:
        usual, canary = issue(parts.verbs.issuing, "device-1"), issue(parts.verbs.issuing, "device-2", issuer="issuing-2")
    assert isinstance(usual, Issued)
    assert isinstance(canary, Issued)
    assert (usual.certificate.ref.issuer, canary.certificate.ref.issuer) == ("issuing", "issuing-2")


@pytest.mark.req("REQ-KEY-097", "REQ-KEY-002")
def test_every_key_is_in_the_inventory_and_one_to_come_waits_for_its_certificate(fleet: Path) -> None:
    made = prepare(fleet)

    def inventory() -> dict[str, tuple[str, str, str]]:
        with signing.signer_parts(settings_of(fleet)) as parts:
            parts.life.enter(parts.records, actor="signer")
            requests = [(IssueRequest(Keypair().csr(), LocalEvidence(role, 0), names=names), Peer(role, 0)) for role, names in OWN]
            assert all(isinstance(each, Issued) for each in parts.verbs.issuing.issue(requests))
            questions = parts.verbs.questions
            found: dict[str, tuple[str, str, str]] = {}
            for each in wire.read(tuple[KeyRecord, ...], questions.ask("keys", {})):
                found[each.name] = each.purpose.value, each.store, each.state.value
                told = wire.read(tuple[KeyChange, ...], questions.ask("key", {"spki_sha256": wire.write(each.spki_sha256)}))
                assert told[-1].after is each.state
                assert bool(told[0].evidence) is (each.store in {"memory", "holder"})
            records = wire.read(tuple[KeyRecord, ...], questions.ask("keys", {}))
            assert not compare(records, questions.ask("keys-held", {}), now=SystemClock().now())
            return found

    usual = {
        "root": ("root-ca", "offline", "active"),
        "issuing": ("issuing-ca", "sealed", "active"),
        "log": ("log", "sealed", "active"),
        "serial-check": ("serial-check", "secret", "active"),
        "fleetca:operator:admin": ("operator", "holder", "active"),
        "fleetca:enroll": ("service", "memory", "active"),
        "fleetca:ocsp": ("responder", "memory", "active"),
    }
    assert inventory() == {**usual, "issuing-2": ("issuing-ca", "sealed", "pre-activation")}
    bring(fleet, certify(fleet, made))
    assert inventory() == {**usual, "issuing-2": ("issuing-ca", "sealed", "active")}
    # When the old one's key is gone and taken out of the settings, the record of it keeps nobody from working.
    file = fleet / "fleetca.toml"
    lines = ['key = "sealed:keys/issuing.key"\n', 'passphrase = "file:secrets/issuing.passphrase"\n']
    for line in lines:
        file.write_text(file.read_text().replace(line, ""))
    with signing.signer_parts(settings_of(fleet)) as parts, parts.life._ledger.writing() as tx:
        record = find_record(tx.key_records(), "issuing")
        moved, change = key_life.move(record, KeyState.destroyed, reason="its time is over", actor="test", at=SystemClock().now())
        tx.change_key(moved, change)
    (fleet / "keys/issuing.key").unlink()
    assert inventory() == {**usual, "issuing": ("issuing-ca", "sealed", "destroyed"), "issuing-2": ("issuing-ca", "sealed", "active")}


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


def test_after_a_retirement_and_only_then_the_signer_asks_for_the_others_to_be_started_anew(
    fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Rounds:
        """A process that is told to stop after one look."""

        def __init__(self) -> None:
            self.stopping = self
            self.looks = self.asked = 0

        def wait(self, _seconds: float) -> bool:
            self.looks += 1
            return self.looks > 1

        def ask_for_others_anew(self) -> None:
            self.asked += 1

    desk = SimpleNamespace(do=lambda work: work())
    admin = x509.load_pem_x509_certificate((fleet / "operators/admin.pem").read_bytes())
    lifetime = (admin.not_valid_after_utc.timestamp() - SystemClock().now()) / DAY
    bring(fleet, certify(fleet, prepare(fleet)))
    for days, asked in ((0, 0), (lifetime + 1.5, 1), (lifetime + 1.6, 0)):
        monkeypatch.setattr(signing, "SystemClock", lambda days=days: Later(days))
        process = Rounds()
        with signing.signer_parts(settings_of(fleet)) as parts:
            parts.retiring.enter()
            signing._keep_retiring(cast("Any", SimpleNamespace(desk=desk, retiring=parts.retiring)), cast("Any", process))
        assert process.asked == asked, days


def test_P7_where_the_record_cannot_be_read_nobody_counts_as_retired(fleet: Path) -> None:
    from ca.errors import StoreUnavailable

    def gone() -> tuple[Issuer, ...]:
        raise StoreUnavailable("store-gone", "It is gone.")

    assert forms.at_work(settings_of(fleet), gone) == forms.issuers(settings_of(fleet))


def said(fleet: Path, check: str, *, years: float) -> dict[str, list[tuple[str, str]]]:
    """What the doctor says, by level: what and what mends it."""

    class Clock:
        def now(self) -> int:
            return SystemClock().now() + int(years * 365.25 * DAY)

    found: dict[str, list[tuple[str, str]]] = {}
    for finding in doctor.examine(settings_of(fleet), clock=Clock()):
        if finding.check == check:
            found.setdefault(finding.verdict.level.value, []).append((finding.verdict.what, finding.verdict.fix))
    return found


def test_the_doctor_counts_back_from_the_day_on_which_an_issuing_ca_is_too_short(fleet: Path) -> None:
    assert set(said(fleet, "chain", years=4)) == {"ok"}
    # The longest profile has 90 days, and a tenth of five years is half a year.
    ((what, fix),) = said(fleet, "chain", years=4.35)["finding"]
    assert (what[:31], fix) == ("The certificate of issuing ends", "Prepare its successor: fleetca issuers prepare")
    made = prepare(fleet)
    assert not any("issuing-2" in what for what, _ in said(fleet, "keys", years=0).get("finding", []))
    ((_, fix),) = said(fleet, "chain", years=4.35)["finding"]
    assert fix == "issuing-2 is awaited in its place: hold its ceremony and import it."
    bring(fleet, certify(fleet, made))
    assert any("issuing-2 has taken its place" in what for what, _ in said(fleet, "chain", years=4)["ok"])
    # A twin of the same age does not help: it ends with it.
    assert [what[:33] for what, _ in said(fleet, "chain", years=4.35)["finding"]] == ["The certificate of issuing-2 ends"]
    assert any("those that wait go to 15" in what for what, _ in said(fleet, "crl", years=0)["ok"])
    root = forms.issuers(settings_of(fleet))[0]
    taken = take_over(root, outlet=DirectoryOutlet(settings_of(fleet).crl.directory), clock=Later(1.16 * 365.25))
    assert taken is not None
    assert taken.number == 15
    assert any("CRL of root ends" in what for what, _ in said(fleet, "crl", years=1.17)["finding"])


def test_the_doctor_asks_for_the_end_of_a_key_whose_issuer_is_retired(fleet: Path) -> None:
    bring(fleet, certify(fleet, prepare(fleet)))
    store = open_store(forms.store_url(settings_of(fleet)))
    with store.ledger.writing() as tx:
        tx.age_issuer(IssuerId("issuing"), last_ends=SystemClock().now(), retired_at=SystemClock().now())
    store.close()
    ((what, fix),) = said(fleet, "chain", years=0)["note"]
    assert what.startswith("issuing is retired since")
    assert fix.startswith("Destroy it")
    assert not any(
        "CRL of issuing" in what for found in said(fleet, "crl", years=0).values() for what, _ in found if "issuing-2" not in what
    )


LINKED = """
[ceremony]
name = "change"

[[issuers]]
id = "root"
certificate = "../root-and-issuing/root.pem"

[[acts]]
act = "root"
id = "root-2"
algorithm = "p256"
subject = { common_name = "fleet Root CA 2" }
not_after = "20y"

[[acts]]
act = "link"
id = "new-with-old"
signer = "root"
subject = "root-2"
crl_url = "http://pki.example:8080/crl/root.crl"
issuer_url = "http://pki.example:8080/ca/root.p7c"

[[acts]]
act = "link"
id = "old-with-new"
signer = "root-2"
subject = "root"
crl_url = "http://pki.example:8080/crl/root-2.crl"
issuer_url = "http://pki.example:8080/ca/root-2.p7c"

[[acts]]
act = "intermediate"
id = "issuing-2"
issuer = "root-2"
csr = "issuing-2.csr"
subject = { common_name = "fleet Issuing CA 2" }
not_after = "5y"
crl_url = "http://pki.example:8080/crl/root-2.crl"
issuer_url = "http://pki.example:8080/ca/root-2.p7c"

[[acts]]
act = "root-crl"
id = "root-2-crl"
issuer = "root-2"
next_update = "1y"
"""


@pytest.mark.req("REQ-KEY-008")
def test_after_a_change_of_roots_links_are_served_to_everybody(fleet: Path, tmp_path: Path) -> None:
    made = prepare(fleet)
    file = fleet / "fleetca.toml"
    entry = '[[issuers]]\nid = "root-2"\nsucceeds = "root"\ncertificate = "ca/root-2.pem"\n\n[[issuers]]\nid = "issuing-2"'
    file.write_text(file.read_text().replace('[[issuers]]\nid = "issuing-2"', entry))
    made.sheet.unlink()
    made.sheet.write_text(LINKED)
    bring(fleet, certify(fleet, made))
    settings = settings_of(fleet)
    issuers = {issuer.id: issuer for issuer in forms.issuers(settings)}
    links = forms.links(settings)
    assert sorted(links) == ["new-with-old", "old-with-new"]
    now = SystemClock().now()
    chains = Chains(tuple(issuers.values()), links.values())
    der: dict[str, bytes] = {**{id_: issuer.certificate for id_, issuer in issuers.items()}, **links}
    assert chains.above(IssuerId("issuing-2"), now=now) == tuple(der[name] for name in ("issuing-2", "new-with-old", "root"))
    assert chains.above(IssuerId("issuing"), now=now) == tuple(der[name] for name in ("issuing", "old-with-new", "root-2"))
    # When the links have ended, or an entry was taken out, everyone is back at their own root.
    assert chains.above(IssuerId("issuing-2"), now=now + 30 * 366 * DAY) == (der["issuing-2"], der["root-2"])
    assert Chains((issuers[IssuerId("root-2")], issuers[IssuerId("issuing-2")]), links.values()).links == ()

    # The agent looks for its root wherever it stands in the chain, and keeps what others may need.
    served = [der["issuing-2"], der["new-with-old"], der["root"]]
    assert _path(served, [der["root"]], now=now) == [der["new-with-old"]]
    assert _path(served, [der["root-2"]], now=now) == [der["new-with-old"]]
    assert _path([der["issuing"], der["root"]], [der["root"]], now=now) == []
    for chain, roots, at in (
        (served, [der["issuing"]], now),
        (served[::2], [der["root"]], now),
        (served, [der["root"]], now + 30 * 366 * DAY),
    ):
        with pytest.raises(Malformed):
            _path(chain, roots, now=at)

    # Who asks for them gets them: over REST, and over EST with the CA certificates (RFC 7030 4.1.3).
    nobody = cast("Any", None)
    enrolment = Enrolment(
        signer=nobody, reader=nobody, receipts=nobody, clock=SystemClock(), deployment="fleet", issuers=tuple(issuers.values()), profiles={},
        default_issuer=IssuerId("issuing"), links=links.values(),
    )  # fmt: skip
    assert enrolment.chain() == tuple(der[name] for name in ("issuing-2", "new-with-old", "root"))
    assert (enrolment.bundle(), set(enrolment.links())) == ((der["root"], der["root-2"]), set(links.values()))
    est = protocol_wiring.est(settings, signer=nobody, issuers=tuple(issuers.values()), clock=SystemClock(), gate=None)
    assert {one.public_bytes(Encoding.DER) for one in pkcs7.load_der_pkcs7_certificates(est.cacerts(None))} == set(der.values())

    application = Flask("status")
    shelf = Shelf(DirectoryOutlet(settings.crl.directory))
    application.register_blueprint(blueprint(shelf=shelf, issuers=issuers.values(), clock=SystemClock(), others=links.values()))
    client = application.test_client()
    for name, wanted in (("root-2", {"new-with-old"}), ("root", {"old-with-new"}), ("issuing-2", {"issuing-2"})):
        answer = client.get(f"/ca/{name}.p7c")
        assert answer.content_type == "application/pkcs7-mime"
        bundle = pkcs7.load_der_pkcs7_certificates(answer.data)
        assert {one.public_bytes(Encoding.DER) for one in bundle} == {der[each] for each in wanted}
        # Who trusts either root alone is led to it, by the certificate of the issuing CA and what caIssuers gives.
        (tmp_path / "more.pem").write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in bundle))
        for trusted in ("root", "root-2") if name in {"root", "root-2"} else ():
            below = {"root": "issuing", "root-2": "issuing-2"}[name]
            anchor, subject = (settings.issuer(each).certificate for each in (trusted, below))
            said = subprocess.run(
                ["openssl", "verify", "-x509_strict", "-CAfile", anchor, "-untrusted", tmp_path / "more.pem", subject],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert said.returncode == 0, (name, trusted, said.stderr)
    assert client.get("/ca/nobody.p7c").status_code == 404


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
