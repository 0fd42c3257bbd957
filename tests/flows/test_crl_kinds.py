"""Shards, deltas, scopes and invalidity dates: through the real store, the real signer and the gate, read again by cryptography and openssl."""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ca.errors import Broken, Denied, Misconfigured
from ca.issue import no_failpoint
from ca.model import (
    ApprovalDecision,
    CrlContents,
    CrlPlan,
    Digest,
    GraveAct,
    Peer,
    ProposalRequest,
    ProposalState,
    Reason,
    RevokeRequest,
    Role,
)
from ca.outlets.directory import DirectoryOutlet
from ca.rules import override
from ca.rules.message import Act
from ca.store.database import SQLITE
from crl.model import Cause, Outcome, Policy, Result
from crl.publish import Publisher, scopes
from crl.refusals import RefusedFolder
from crl.tally import TallyFolder
from fleetca.wiring_crl import prunable
from tests.databases import sqlite_url
from tests.fakes.certificates import DAY, root
from tests.fakes.signer_world import ISSUING, UID, Keypair, World
from tests.parts import need

PUBLISHER = Peer(Role.publisher, UID)


class LocalSigner:
    """The signer's verb without its socket."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.afresh: list[bool] = []

    def sign_crl(self, issuer: Any, *, sink_fd: int, **asked: Any) -> Any:
        self.afresh.append(asked["afresh"])
        with open(sink_fd, "wb", buffering=0, closefd=False) as sink:
            return self.world.crls.sign(issuer, sink=sink, peer=PUBLISHER, **asked)

    def crl_overridden(self, issuer: Any, shard: int, number: int, fence: int) -> None:
        self.world.crls.overridden(issuer, shard=shard, number=number, fence=fence, peer=PUBLISHER)

    def crl_published(self, issuer: Any, shard: int, number: int, fence: int) -> None:
        self.world.crls.published(issuer, shard=shard, number=number, fence=fence, peer=PUBLISHER)


class Scene:
    def __init__(self, folder: Path, plan: CrlPlan, *, tallies: bool = True) -> None:
        self.world = World(folder, sqlite_url(folder))
        self.folder = folder
        self.outlet = DirectoryOutlet(folder / "public")
        self.signer = LocalSigner(self.world)
        self.refusals = RefusedFolder(folder / "refused")
        self.tallies = TallyFolder(folder / "tally", self.world.store.reading) if tallies else None
        self.plan(plan)

    def plan(self, plan: CrlPlan) -> None:
        """As after a restart with other settings."""
        self.world.plan = plan
        self.world.restart()
        self.signer.world = self.world
        if self.tallies is not None:
            self.tallies = TallyFolder(self.folder / "tally", self.world.store.reading)
        self.issuer = self.world.issuer
        self.world.crls.settle_shards()
        self.publisher = Publisher(
            reading=self.world.store.reading,
            leases=self.world.store.ledger,
            signer=self.signer,
            outlet=self.outlet,
            clock=self.world.clock,
            failpoint=no_failpoint,
            policy=Policy(interval=3600, nudge=5, lifetime=DAY, delta_interval=300, delta_lifetime=DAY),
            holder="one",
            tallies=self.tallies,
            refusals=self.refusals,
        )

    def publish(self, after: int = 0) -> dict[str, Outcome]:
        self.world.clock.at += after
        return {scope.name: self.publisher.publish(scope) for scope in scopes(self.issuer)}

    def crl(self, name: str) -> x509.CertificateRevocationList:
        copy = self.outlet.current(name)
        assert copy is not None, name
        return x509.load_der_x509_crl(copy.octets)

    def serials(self, name: str) -> set[int]:
        return {one.serial_number for one in self.crl(name)}


def shard_by_hand(serial: int, count: int) -> int:
    return int.from_bytes(sha256(serial.to_bytes(20, "big")).digest()[:8], "big") % count + 1


def point_of(certificate: x509.Certificate) -> str:
    points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    (name,) = points[0].full_name or []
    return str(name.value)


def idp_of(crl: x509.CertificateRevocationList) -> x509.IssuingDistributionPoint:
    extension = crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint)
    assert extension.critical
    return extension.value


@pytest.mark.req("REQ-KEY-010")
def test_R08_a_certificate_s_shard_is_a_function_of_its_serial_and_its_crl_names_the_same_point(tmp_path: Path) -> None:
    scene = Scene(tmp_path, CrlPlan(shards=3))
    pairs = [scene.world.enrol(f"pump-{n}") for n in range(12)]
    for pair in pairs[:9]:
        scene.world.revoke_certificate(pair)
    outcomes = scene.publish()
    assert set(outcomes) == {"issuing.crl", "issuing.1.crl", "issuing.2.crl", "issuing.3.crl"}
    assert {one.result for one in outcomes.values()} == {Result.published}
    listed: set[int] = set()
    for pair in pairs:
        certificate = x509.load_der_x509_certificate(pair.certificate)
        shard = shard_by_hand(certificate.serial_number, 3)
        name = f"issuing.{shard}.crl"
        assert point_of(certificate).endswith(f"/{name}")
        (named,) = idp_of(scene.crl(name)).full_name or []
        assert named.value == point_of(certificate)
        assert (certificate.serial_number in scene.serials(name)) is (pair in pairs[:9])
        listed |= scene.serials(name)
    assert listed == scene.serials("issuing.crl"), "the complete CRL has everybody"
    with pytest.raises(x509.ExtensionNotFound):
        scene.crl("issuing.crl").extensions.get_extension_for_class(x509.IssuingDistributionPoint)


def test_R08_more_shards_move_no_certificate_and_fewer_are_refused(tmp_path: Path) -> None:
    scene = Scene(tmp_path, CrlPlan())
    before = [scene.world.enrol(f"old-{n}") for n in range(3)]
    scene.plan(CrlPlan(shards=2))
    middle = [scene.world.enrol(f"middle-{n}") for n in range(6)]
    scene.plan(CrlPlan(shards=5))
    after = [scene.world.enrol(f"new-{n}") for n in range(8)]
    for pair in (*before, *middle, *after):
        scene.world.revoke_certificate(pair)
    scene.publish()
    for pairs, count in ((before, 0), (middle, 2), (after, 5)):
        for pair in pairs:
            certificate = x509.load_der_x509_certificate(pair.certificate)
            shard = shard_by_hand(certificate.serial_number, count) if count else 0
            name = f"issuing.{shard}.crl" if shard else "issuing.crl"
            assert point_of(certificate).endswith(f"/{name}")
            assert certificate.serial_number in scene.serials(name)
            elsewhere = [f"issuing.{other}.crl" for other in range(1, 6) if other != shard]
            assert not any(certificate.serial_number in scene.serials(other) for other in elsewhere)
    assert list(scene.world.store.reading.shard_counts(ISSUING)) == [2, 5]
    assert [leaf["count"] for leaf in scene.world.leaves("crl-shards")] == [2, 5]
    with pytest.raises(Misconfigured) as refused:
        scene.plan(CrlPlan(shards=4))
    assert refused.value.code == "crl-shards-fewer"


@pytest.mark.parametrize("recent", [1000, 0], ids=["a shard at work", "a quiet shard"])
def test_R08_a_shard_s_crl_that_its_certificates_do_not_point_to_is_never_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recent: int
) -> None:
    monkeypatch.setattr("crl.publish._RECENT", recent)
    scene = Scene(tmp_path, CrlPlan(shards=2))
    pair = scene.world.enrol("pump")
    scene.world.revoke_certificate(pair)
    scene.publish()
    shard = shard_by_hand(x509.load_der_x509_certificate(pair.certificate).serial_number, 2)
    name, other = f"issuing.{shard}.crl", f"issuing.{3 - shard}.crl"
    before = scene.outlet.current(name)
    scene.world.crl_url = "http://elsewhere.example/crl/issuing.crl"
    scene.plan(CrlPlan(shards=2))
    scene.world.clock.at += DAY // 2
    by_name = {scope.name: scope for scope in scopes(scene.issuer)}
    with pytest.raises(Broken, match=r"points to http://status.example/\S+, and not to http://elsewhere.example/"):
        scene.publisher.publish(by_name[name])
    assert scene.outlet.current(name) == before
    assert scene.publisher.publish(by_name[other]).result is Result.published, "it lists nobody"


def test_a_revocation_brings_the_crls_that_it_concerns_and_no_other(tmp_path: Path) -> None:
    scene = Scene(tmp_path, CrlPlan(shards=4))
    pair = scene.world.enrol("pump")
    scene.publish()
    scene.world.revoke_certificate(pair)
    outcomes = scene.publish(after=5)
    shard = shard_by_hand(x509.load_der_x509_certificate(pair.certificate).serial_number, 4)
    assert {name for name, one in outcomes.items() if one.result is Result.published} == {"issuing.crl", f"issuing.{shard}.crl"}


@pytest.mark.req("REQ-KEY-010")
def test_a_delta_tells_what_changed_since_its_base_with_releases_as_removals(tmp_path: Path) -> None:
    scene = Scene(tmp_path, CrlPlan(deltas=True))
    pairs = {name: scene.world.enrol(name) for name in ("held", "gone", "late", "brief")}
    ref = {name: scene.world.row(pair).ref for name, pair in pairs.items()}

    def say(name: str, reason: Reason) -> None:
        scene.world.revoke(RevokeRequest(scene.world.local(Role.operator), reason, target=ref[name]))

    say("held", Reason.certificateHold)
    say("gone", Reason.keyCompromise)
    scene.publish()
    whole = scene.crl("issuing.crl")
    base = whole.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    freshest = whole.extensions.get_extension_for_class(x509.FreshestCRL).value
    (name,) = freshest[0].full_name or []
    assert str(name.value).endswith("/issuing.delta.crl")

    say("held", Reason.removeFromCRL)
    say("late", Reason.superseded)
    say("brief", Reason.certificateHold)
    say("brief", Reason.removeFromCRL)
    # The complete CRL is nudged too; this one looks at the delta alone.
    delta_scope = scopes(scene.issuer)[-1]
    scene.world.clock.at += 5
    assert scene.publisher.publish(delta_scope).cause is Cause.nudged
    delta = scene.crl("issuing.delta.crl")
    indicator = delta.extensions.get_extension_for_oid(x509.oid.ExtensionOID.DELTA_CRL_INDICATOR)
    assert indicator.critical
    assert indicator.value.crl_number == base  # type: ignore[attr-defined]
    assert delta.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number > base
    with pytest.raises(x509.ExtensionNotFound):
        delta.extensions.get_extension_for_class(x509.FreshestCRL)
    told = {one.serial_number: one.extensions.get_extension_for_class(x509.CRLReason).value.reason for one in delta}
    flags = x509.ReasonFlags
    assert told == {
        ref["held"].serial: flags.remove_from_crl,
        ref["brief"].serial: flags.remove_from_crl,
        ref["late"].serial: flags.superseded,
    }

    numbers = [leaf["number"] for leaf in scene.world.leaves("crl")]
    scene.publish(after=5)
    numbers = [leaf["number"] for leaf in scene.world.leaves("crl")]
    assert numbers == sorted(set(numbers)), "complete CRLs and deltas count together"
    assert scene.serials("issuing.crl") == {ref["gone"].serial, ref["late"].serial}


def test_openssl_follows_the_delta(tmp_path: Path) -> None:
    need("openssl")
    scene = Scene(tmp_path, CrlPlan(deltas=True))
    good, late = scene.world.enrol("good"), scene.world.enrol("late")
    scene.publish()
    scene.world.revoke_certificate(late)
    scene.world.clock.at += 5
    scene.publisher.publish(scopes(scene.issuer)[-1])
    for name, octets in (
        ("root", root().certificate),
        ("issuing", scene.issuer.certificate),
        ("good", good.certificate),
        ("late", late.certificate),
    ):
        (tmp_path / f"{name}.pem").write_bytes(x509.load_der_x509_certificate(octets).public_bytes(Encoding.PEM))
    crls = b"".join(scene.crl(name).public_bytes(Encoding.PEM) for name in ("issuing.crl", "issuing.delta.crl"))
    (tmp_path / "crls.pem").write_bytes(crls)

    def said(name: str, *more: str) -> str:
        command = ["openssl", "verify", "-attime", str(scene.world.clock.at), "-CAfile", "root.pem", "-untrusted", "issuing.pem"]
        command += ["-CRLfile", "crls.pem", "-crl_check", *more, f"{name}.pem"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    assert "OK" in said("good", "-use_deltas", "-extended_crl")
    assert "certificate revoked" in said("late", "-use_deltas", "-extended_crl")
    (tmp_path / "crls.pem").write_bytes(scene.crl("issuing.crl").public_bytes(Encoding.PEM))
    assert "OK" in said("late"), "who does not know deltas waits for the next complete CRL"


def test_openssl_takes_the_right_shard_and_no_other(tmp_path: Path) -> None:
    need("openssl")
    scene = Scene(tmp_path, CrlPlan(shards=2))
    pairs = [scene.world.enrol(f"pump-{n}") for n in range(6)]
    shards = [shard_by_hand(x509.load_der_x509_certificate(pair.certificate).serial_number, 2) for pair in pairs]
    one = pairs[shards.index(1)]
    scene.world.revoke_certificate(one)
    scene.publish()
    for name, octets in (("root", root().certificate), ("issuing", scene.issuer.certificate), ("one", one.certificate)):
        (tmp_path / f"{name}.pem").write_bytes(x509.load_der_x509_certificate(octets).public_bytes(Encoding.PEM))

    def said(name: str) -> str:
        (tmp_path / "crl.pem").write_bytes(scene.crl(name).public_bytes(Encoding.PEM))
        command = ["openssl", "verify", "-attime", str(scene.world.clock.at), "-CAfile", "root.pem", "-untrusted", "issuing.pem"]
        command += ["-CRLfile", "crl.pem", "-crl_check", "one.pem"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    assert "certificate revoked" in said("issuing.1.crl")
    assert "OK" not in said("issuing.2.crl").splitlines(), "another shard is not taken for this one's"
    assert "different CRL scope" in said("issuing.2.crl") or "unable to get certificate CRL" in said("issuing.2.crl")


def test_crls_say_that_they_speak_of_end_entities_where_the_settings_say_so(tmp_path: Path) -> None:
    scene = Scene(tmp_path, CrlPlan(shards=1, contents=CrlContents.end_entities))
    scene.publish()
    for name in ("issuing.crl", "issuing.1.crl"):
        point = idp_of(scene.crl(name))
        assert point.only_contains_user_certs
        assert not point.only_contains_ca_certs
    pump = scene.world.enrol("pump")
    scene.world.revoke_certificate(pump)
    scene.publish(after=5)
    scene.plan(CrlPlan(shards=1))
    assert scene.publish(after=1)["issuing.crl"].cause is Cause.missing, "what does not fit to the settings any more is made anew"
    assert scene.serials("issuing.crl") == {scene.world.row(pump).ref.serial}


def test_an_entry_says_since_when_the_key_was_lost(tmp_path: Path) -> None:
    scene = Scene(tmp_path, CrlPlan())
    pump, valve = scene.world.enrol("pump"), scene.world.enrol("valve")
    lost = scene.world.clock.at - 5000
    for pair, since in ((pump, lost), (valve, None)):
        request = RevokeRequest(scene.world.local(Role.operator), Reason.unspecified, target=scene.world.row(pair).ref, invalid_from=since)
        scene.world.revoke(request)
    scene.publish()
    told = {one.serial_number: [extension.value for extension in one.extensions] for one in scene.crl("issuing.crl")}
    assert told[scene.world.row(valve).ref.serial] == [], "and no reason where none is given"
    (date,) = told[scene.world.row(pump).ref.serial]
    assert date.invalidity_date_utc.timestamp() == lost  # type: ignore[attr-defined]


def test_a_certificate_without_revocation_never_stands_in_a_crl(tmp_path: Path) -> None:
    scene = Scene(tmp_path, CrlPlan(shards=1))
    brief = scene.world.enrol("brief", profile="device-short")
    scene.world.revoke_certificate(brief)
    scene.publish()
    assert scene.serials("issuing.crl") == scene.serials("issuing.1.crl") == set()


def test_what_is_swept_is_over_and_never_what_somebody_could_still_need(tmp_path: Path) -> None:
    scene = Scene(tmp_path, CrlPlan(shards=2))
    folder = tmp_path / "public"

    def swept() -> set[str]:
        return {path.name for path, _ in prunable(folder, [scene.issuer], now=scene.world.clock.at)}

    scene.publish()
    scene.publish(after=3600)
    assert swept() == set(), "the one before still holds"
    scene.world.clock.at += DAY - 3600 + 60
    assert swept() == {"issuing.crl.previous", "issuing.1.crl.previous", "issuing.2.crl.previous"}
    (folder / "issuing.1.crl").unlink()
    assert "issuing.1.crl.previous" not in swept(), "it may be all that is left"
    scene.world.clock.at += DAY
    assert swept() == set(), "where what is published is over too, nothing goes"


def serials_of_every_legal_length(chance: random.Random) -> Iterator[int]:
    """1 to 20 octets as DER has them (RFC 5280 4.1.2.2): with the highest bit set, where a zero octet comes before it, and without."""
    for octets in range(1, 21):
        yield chance.randrange(1 << (8 * octets - 9) if octets > 1 else 1, 1 << (8 * octets - 8) if octets > 1 else 0x80)
        yield chance.randrange(1 << (8 * octets - 8) if octets > 1 else 1, 1 << (8 * octets - 1))
    yield from (1, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 1 << 151, (1 << 152) - 1, 1 << 152, (1 << 158) - 1, (1 << 159) - 1)


@pytest.mark.parametrize("tallies", [True, False], ids=["against the tally", "against the record"])
def test_serial_numbers_of_every_legal_length_are_listed_as_they_are(tmp_path: Path, *, tallies: bool) -> None:
    """Imported certificates have others than ours of 20 octets."""
    scene, chance = Scene(tmp_path, CrlPlan(), tallies=tallies), random.Random(20)
    wanted: dict[int, tuple[int, Reason, int | None]] = {}
    reasons = [Reason.unspecified, Reason.keyCompromise, Reason.superseded, Reason.certificateHold]
    for turn in range(3):
        # What was listed before stays encoded; each turn finds short and long ones beside each other.
        drawn = {number for _ in range(3 * turn + 1) for number in serials_of_every_legal_length(chance)} - wanted.keys()
        scene.world.clock.at += 3600
        now = scene.world.clock.at
        fresh = {
            number: (now - chance.randrange(10**8), chance.choice(reasons), chance.choice([None, now - 10**9])) for number in sorted(drawn)
        }
        chance.shuffle(order := list(fresh))
        on_record(scene, [(number, *fresh[number]) for number in order], first=len(wanted) + 1)
        wanted |= fresh
        assert scene.publish()["issuing.crl"].result is Result.published
        read = scene.crl("issuing.crl")
        listed = {one.serial_number: one for one in read}
        assert listed.keys() == wanted.keys()
        assert len(read) == len(wanted)
        for number, (at, reason, since) in wanted.items():
            one = listed[number]
            assert int(one.revocation_date_utc.timestamp()) == at
            said = {type(extension.value): extension.value for extension in one.extensions}
            flag = said.get(x509.CRLReason)
            assert (flag.reason.value if isinstance(flag, x509.CRLReason) else "unspecified") == reason.name
            date = said.get(x509.InvalidityDate)
            assert (int(date.invalidity_date_utc.timestamp()) if isinstance(date, x509.InvalidityDate) else None) == since
    need("openssl")
    command = ["openssl", "crl", "-inform", "DER", "-in", str(tmp_path / "public" / "issuing.crl"), "-noout", "-text"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert {int(found, 16) for found in re.findall(r"Serial Number: ([0-9A-F]+)", text)} == wanted.keys()


def test_P5_ten_thousand_revocations_in_a_minute_bring_few_crls_and_each_shows_within_the_minute(tmp_path: Path) -> None:
    scene = Scene(tmp_path, CrlPlan())
    scene.publish()
    (scope,) = scopes(scene.issuer)
    came: dict[int, int] = {}
    made, waiting, longest = 0, set[int](), 0
    for second in range(90):
        scene.world.clock.at += 1
        now = scene.world.clock.at
        if second < 60:
            fresh = [(1 << 152) + len(came) + number for number in range(167)]
            on_record(scene, [(number, now, Reason.superseded, None) for number in fresh], first=len(came) + 1)
            came |= dict.fromkeys(fresh, now)
            waiting |= set(fresh)
        if scene.publisher.publish(scope).result is Result.published:
            made += 1
            listed = scene.serials("issuing.crl")
            longest = max([longest, *(now - came[number] for number in waiting & listed)])
            waiting -= listed
    assert len(came) > 10_000
    assert not waiting
    assert made <= 60 // 5 + 2, "no two within the five seconds of the policy"
    assert longest <= 10


def on_record(scene: Scene, rows: list[tuple[int, int, Reason, int | None]], *, first: int) -> None:
    """Revocations of certificates that came from elsewhere: by number, date, reason and date of loss."""
    database = SQLITE.connect(scene.folder / "fleetca.db")
    with database:
        for change, (number, at, reason, since) in enumerate(rows, first):
            database.execute(
                "INSERT INTO revocations (change, issuer, shard, serial, reason, revoked_at, not_after, listed, tenant, actor, invalid_from)"
                " VALUES (?, 'issuing', 0, ?, ?, ?, ?, 1, 'default', 'import', ?)",
                (change, number.to_bytes(20, "big"), int(reason), at, scene.world.clock.at + DAY, since),
            )
        database.execute("UPDATE counters SET value = ? WHERE name = 'change'", (first + len(rows) - 1,))
    database.close()


@pytest.mark.parametrize("tallies", [True, False], ids=["with the gate's tally", "with the whole record each time"])
def test_P6_what_the_signer_kept_encoded_wrongly_is_refused_and_made_anew(tmp_path: Path, *, tallies: bool) -> None:
    """The cache of encoded entries is believed by nobody but the signer."""
    scene = Scene(tmp_path, CrlPlan(), tallies=tallies)
    pairs = [scene.world.enrol(f"pump-{n}") for n in range(4)]
    for pair in pairs[:2]:
        scene.world.revoke_certificate(pair)
    scene.publish()
    kept = tmp_path / "crl-entries" / "issuing.0.der"
    octets = bytearray(kept.read_bytes())
    octets[10] ^= 1
    kept.write_bytes(bytes(octets))
    scene.world.revoke_certificate(pairs[2])
    with pytest.raises(Broken) as refused:
        scene.publish(after=5)
    assert refused.value.code in {"crl-missing", "crl-unexpected"}
    assert len(scene.serials("issuing.crl")) == 2, "readers keep what they have"
    assert scene.publish(after=5)["issuing.crl"].result is Result.published
    assert scene.signer.afresh[-1]
    assert len(scene.serials("issuing.crl")) == 3


def test_P6_a_tally_that_lost_an_entry_is_found_out_at_the_next_start(tmp_path: Path) -> None:
    scene = Scene(tmp_path, CrlPlan())
    for n in range(3):
        scene.world.revoke_certificate(scene.world.enrol(f"pump-{n}"))
    scene.publish()
    (part,) = (tmp_path / "tally" / "issuing.0").glob("*.part")
    octets = part.read_bytes()
    part.write_bytes(octets[:-1] + b"\x05")
    scene.plan(CrlPlan())
    with pytest.raises(Broken) as refused:
        scene.publish(after=3600)
    assert refused.value.code == "crl-tally"
    assert scene.publish(after=1)["issuing.crl"].result is Result.published


@pytest.fixture
def busy(tmp_path: Path) -> Scene:
    return Scene(tmp_path, CrlPlan(shards=2, deltas=True))


def test_P6_R07_thirty_days_of_holds_releases_and_expiries(busy: Scene) -> None:
    """At every step each CRL is what a reader of the whole record would make, through restarts, with the gate looking on."""
    world = busy.world
    model: dict[int, tuple[int, int]] = {}
    pairs: list[Any] = []
    for day in range(30):
        for n in range(2):
            pairs.append(world.enrol(f"device-{day}-{n}"))  # noqa: PERF401
        held = world.row(pairs[-1])
        world.revoke(RevokeRequest(world.local(Role.operator), Reason.certificateHold, target=held.ref))
        if day % 3 == 0:
            world.revoke(RevokeRequest(world.local(Role.operator), Reason.removeFromCRL, target=held.ref))
        if day % 3 == 1:
            world.revoke(RevokeRequest(world.local(Role.operator), Reason.keyCompromise, target=held.ref))
        if day % 3 != 0:
            model[held.ref.serial] = (held.not_after, day)
        if day % 7 == 6:
            busy.plan(CrlPlan(shards=2, deltas=True))
            world = busy.world
        before = {name: busy.outlet.current(name) for name in ("issuing.crl", "issuing.1.crl", "issuing.2.crl")}
        busy.publish(after=DAY // 2)
        now = world.clock.at
        assert busy.serials("issuing.1.crl") | busy.serials("issuing.2.crl") == busy.serials("issuing.crl")
        must = {serial for serial, (not_after, _) in model.items() if not_after >= now}
        assert must <= busy.serials("issuing.crl") <= set(model)
        for name, copy in before.items():
            if copy is not None:
                old = {one.serial_number for one in x509.load_der_x509_crl(copy.octets)}
                last = int(x509.load_der_x509_crl(copy.octets).last_update_utc.timestamp())
                left = old - busy.serials(name)
                assert all(model.get(serial, (0, 0))[0] < last for serial in left)


def forgetful(scene: Scene) -> str:
    """A record that lost a revocation: the gate refuses what the signer makes of it."""
    pairs = [scene.world.enrol(f"pump-{n}") for n in range(3)]
    for pair in pairs:
        scene.world.revoke_certificate(pair)
    scene.publish()
    connection = sqlite3.connect(scene.folder / "fleetca.db")
    connection.execute("DELETE FROM revocations WHERE change = 2")
    connection.execute("UPDATE certificates SET revocation = NULL, revoked = 0 WHERE revocation = 2")
    connection.commit()
    connection.close()
    shutil.rmtree(scene.folder / "crl-entries")
    shutil.rmtree(scene.folder / "tally")
    scene.plan(CrlPlan())
    with pytest.raises(Broken) as refused:
        scene.publish(after=3600)
    assert refused.value.code == "crl-forgotten"
    held = scene.refusals.held("issuing.crl")
    assert held is not None
    assert held.code == "crl-forgotten"
    return held.tbs_sha256.hex()


def asked(scene: Scene, who: Keypair, **changes: Any) -> str:
    """Ask that the refused CRL goes out; the beginning of the request's hash."""
    held = scene.refusals.held("issuing.crl")
    assert held is not None
    said = (GraveAct.crl_override.value, override.subject_of(replace(held.intent, **changes)), DAY, "Both of us looked at it.")
    message = scene.world.message(who, Act.propose, proposal=said)
    return scene.world.two_persons.propose(ProposalRequest(message), scene.world.peer(Role.operator)).request.hex()


def approved(scene: Scene, who: Keypair, request: str) -> None:
    given = scene.world.message(who, Act.approve, decision=(request, True, ""))
    scene.world.approving.decide(ApprovalDecision(given, request, True), scene.world.peer(Role.enroll))


def test_P6_only_two_persons_by_their_signatures_over_its_digest_put_out_what_the_gate_refused(tmp_path: Path) -> None:
    scene = Scene(tmp_path, CrlPlan())
    ada, bob, eve = (
        scene.world.operator(name, *roles) for name, roles in (("ada", ("admin",)), ("bob", ("security-officer",)), ("eve", ("auditor",)))
    )
    forgetful(scene)

    def still_refused() -> None:
        with pytest.raises(Broken):
            scene.publish(after=31)
        assert len(scene.serials("issuing.crl")) == 3

    for who in (eve, bob):
        with pytest.raises(Denied):
            asked(scene, who)
    request = asked(scene, ada)
    still_refused()
    for who in (ada, eve):
        with pytest.raises(Denied):
            approved(scene, who, request)
    for changes in ({"number": 99}, {"tbs_sha256": bytes(32)}, {"shard": 1}):
        approved(scene, bob, asked(scene, ada, **changes))
    still_refused()
    approved(scene, bob, request)
    outcome = scene.publish(after=31)["issuing.crl"]
    assert outcome.result is Result.published
    assert len(scene.serials("issuing.crl")) == 2
    (leaf,) = scene.world.leaves("crl-override")
    assert leaf["operators"] == ["ada", "bob"]
    assert [one["state"] for one in scene.world.leaves("proposal") if one["request"] == request] == ["open", "approved", "used"]
    assert scene.refusals.held("issuing.crl") is None


def test_P6_an_approval_that_is_only_a_row_puts_out_nothing(tmp_path: Path) -> None:
    scene = Scene(tmp_path, CrlPlan())
    ada = scene.world.operator("ada")
    scene.world.operator("bob", "security-officer")
    forgetful(scene)
    request = Digest(bytes.fromhex(asked(scene, ada)))
    with scene.world.store.ledger.writing() as tx:
        found = tx.find_proposal(request)
        assert found is not None
        tx.put_proposal(replace(found, state=ProposalState.approved))
    with pytest.raises(Broken):
        scene.publish(after=31)
    assert scene.world.leaves("crl-override") == []
    assert len(scene.serials("issuing.crl")) == 3
