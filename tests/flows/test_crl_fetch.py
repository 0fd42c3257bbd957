"""`fleetca crl fetch`: the file of a service is always the best CRL that could be had, and somebody hears when that is not good enough."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from ca.der import pem
from ca.errors import Broken, FleetcaError, StoreUnavailable
from ca.model import CrlPlan, Reason, RevokeRequest, Role
from crl.publish import scopes
from fleetca.relying_party import crls, reading
from tests.fakes.certificates import DAY
from tests.fakes.crl_world import authority
from tests.flows.test_crl_kinds import Scene
from tests.parts import need

URL = "http://status.example/crl/issuing.crl"
SHARD = "http://status.example/crl/issuing.1.crl"
OTHER = "http://status.example/crl/issuing.2.crl"


class Place:
    """A service's folder, the addresses that it fetches from, and how it runs."""

    def __init__(self, folder: Path) -> None:
        self.scene = Scene(folder, CrlPlan(shards=2, deltas=True))
        self.scene.publish()
        self.folder = folder / "service"
        self.folder.mkdir()
        self.out = self.folder / "crls.pem"
        self.gives: dict[str, bytes | FleetcaError] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.wanted = crls.Wanted(
            urls=(URL,), out=self.out, state=self.folder / "state", issuers=(self.scene.issuer,), hook=f"echo x >> {self.folder}/hooks"
        )

    def get(self, url: str, *, tag: str | None = None) -> reading.Fetched | None:
        self.asked.append((url, tag))
        given: Any = self.gives.get(url) or self.published(url)
        if isinstance(given, FleetcaError):
            raise given
        mark = sha256(given).hexdigest()
        return None if tag == mark else reading.Fetched(given, mark)

    def published(self, url: str) -> bytes:
        copy = self.scene.outlet.current(url.rpartition("/")[2])
        assert copy is not None
        return copy.octets

    def run(self, *, after: int = 0, **changes: Any) -> crls.Report:
        return crls.run(replace(self.wanted, **changes), now=self.scene.world.clock.at + after, get=self.get)

    def revoke(self, name: str) -> int:
        pair = self.scene.world.enrol(name)
        self.scene.world.revoke_certificate(pair)
        self.scene.publish(after=10)
        return self.scene.world.row(pair).ref.serial

    def listed(self) -> set[int]:
        ders = pem.ders_of(self.out.read_bytes(), pem.CRL)
        return {one.serial_number for der in ders for one in x509.load_der_x509_crl(der)}

    def hooks(self) -> int:
        return len((self.folder / "hooks").read_text().split()) if (self.folder / "hooks").exists() else 0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.scene.world.close()


def test_it_writes_what_is_new_runs_the_hook_and_has_nothing_to_do_the_next_time(place: Place) -> None:
    first = place.run()
    assert (first.changed, first.findings, place.hooks()) == (True, [], 1)
    assert stat.S_IMODE(place.out.stat().st_mode) == 0o644
    again = place.run()
    assert (again.changed, again.kept, place.hooks()) == (False, [], 1)
    assert place.asked[-1][1], "it asks whether there is something else than it has"
    gone = place.revoke("pump")
    assert place.run().changed
    assert place.listed() == {gone}
    assert place.hooks() == 2


def other_issuer(place: Place) -> bytes:
    now = place.scene.world.clock.at
    return authority(not_before=now - DAY, not_after=now + 9 * DAY).crl(number=99, this_update=now, next_update=now + DAY)


def damaged(place: Place) -> bytes:
    octets = bytearray(place.published(URL))
    octets[-4] ^= 1
    return bytes(octets)


@pytest.mark.parametrize(
    ("gives", "code"),
    [
        pytest.param(lambda _: StoreUnavailable("fetch-failed", "It does not answer."), "fetch-failed", id="no answer"),
        pytest.param(lambda place: place.published(URL)[:-9], "crl-form", id="a part of it"),
        pytest.param(damaged, "crl-signature", id="a wrong signature"),
        pytest.param(other_issuer, "crl-issuer", id="another issuer's"),
        pytest.param(lambda place: place.published(SHARD), "crl-scope", id="a shard's, which speaks of others"),
        pytest.param(lambda place: place.published("http://status.example/crl/issuing.delta.crl"), "crl-kind", id="a delta"),
        pytest.param(lambda _: b"<html>Sign in to the hotel's network</html>", "", id="a page"),
    ],
)
def test_R08_R09_what_is_not_the_crl_leaves_the_last_good_one_and_is_told(place: Place, gives: Any, code: str) -> None:
    gone = place.revoke("pump")
    place.run()
    before = place.out.read_bytes()
    place.gives[URL] = gives(place)
    told = place.run()
    assert not told.changed
    assert place.out.read_bytes() == before
    assert place.listed() == {gone}
    assert place.hooks() == 1
    assert len(told.findings) == 1
    assert code in told.findings[0]
    del place.gives[URL]
    more = place.revoke("valve")
    assert place.run().findings == []
    assert place.listed() == {gone, more}


def test_R11_an_older_one_again_is_refused_however_well_it_is_signed(place: Place) -> None:
    old = place.published(URL)
    gone = place.revoke("pump")
    place.run()
    place.gives[URL] = old
    assert "crl-number" in place.run().findings[0]
    assert place.listed() == {gone}


def test_a_first_fetch_that_fails_writes_nothing_and_says_so(place: Place) -> None:
    place.gives[URL] = StoreUnavailable("fetch-failed", "It does not answer.")
    told = place.run()
    assert not place.out.exists()
    assert any("no CRL" in finding for finding in told.findings)


def test_R06_it_says_so_before_a_crl_ends_and_when_it_has(place: Place) -> None:
    place.run()
    place.gives[URL] = StoreUnavailable("fetch-failed", "It does not answer.")
    assert [("ends in" in one, "has ended" in one) for one in place.run(after=DAY // 2).findings] == [(False, False)]
    assert any("ends in" in one for one in place.run(after=DAY - DAY // 8).findings)
    told = place.run(after=DAY + 60)
    assert any("has ended" in one for one in told.findings)
    assert place.out.exists(), "a service with an ended CRL refuses everybody; one without a file does not start"


def test_a_shard_is_fetched_for_the_certificates_that_point_to_it_and_all_are_in_one_file(place: Place) -> None:
    assert place.run(urls=(SHARD, OTHER)).findings == []
    assert len(pem.ders_of(place.out.read_bytes(), pem.CRL)) == 2
    place.gives[SHARD] = place.published(OTHER)
    place.scene.publish(after=3 * 3600)
    assert any("crl-scope" in finding for finding in place.run(urls=(SHARD, OTHER)).findings)


def test_deltas_follow_their_base_until_the_next_one_is_there(place: Place) -> None:
    assert place.run(deltas=True).findings == []
    assert place.listed() == set()
    pair = place.scene.world.enrol("pump")
    place.scene.world.revoke(
        RevokeRequest(place.scene.world.local(Role.operator), Reason.superseded, target=place.scene.world.row(pair).ref)
    )
    place.scene.world.clock.at += 10
    place.scene.publisher.publish(scopes(place.scene.issuer)[-1])
    assert place.run(deltas=True).changed
    gone = place.scene.world.row(pair).ref.serial

    def in_file() -> tuple[int, list[tuple[int | None, int]]]:
        """The number of the complete CRL; base and number of each delta behind it."""
        first, *others = (reading.read(der) for der in pem.ders_of(place.out.read_bytes(), pem.CRL))
        assert first.base() is None
        return first.number(), [(one.base(), one.number()) for one in others]

    base, ((to, number),) = in_file()
    assert to == base < number
    assert place.listed() == {gone}
    place.scene.publish(after=10)
    assert place.run(deltas=True).findings == []
    whole, deltas = in_file()
    assert whole > number
    assert all(one > whole for _, one in deltas), "an older delta says nothing that the complete one does not"
    assert place.listed() == {gone}


def test_a_hook_that_failed_is_told_and_tried_again(place: Place) -> None:
    hook = f"test -e {place.folder}/mended && echo x >> {place.folder}/hooks"
    assert any("hook ended" in finding for finding in place.run(hook=hook).findings)
    assert any("hook ended" in finding for finding in place.run(hook=hook).findings), "the service still has the old one"
    (place.folder / "mended").touch()
    assert place.run(hook=hook).findings == []
    assert place.run(hook=hook).changed is False
    assert place.hooks() == 1


def test_what_it_keeps_may_be_damaged_or_deleted(place: Place) -> None:
    gone = place.revoke("pump")
    place.run()
    for path in (place.folder / "state").iterdir():
        path.write_bytes(b"\0 not what was written")
    place.out.unlink()
    assert place.run().findings == []
    assert place.listed() == {gone}


def test_der_is_one_crl_and_a_hashed_folder_is_what_openssl_reads(place: Place) -> None:
    need("openssl")
    assert place.run(form="der").findings == []
    assert place.out.read_bytes() == place.published(URL)
    with pytest.raises(Broken, match="one CRL"):
        place.run(form="der", urls=(URL, SHARD))
    folder = place.folder / "hashed"
    assert place.run(form="hashed", out=folder, urls=(URL, SHARD), state=place.folder / "other").findings == []
    names = sorted(path.name for path in folder.iterdir())
    assert [name[8:] for name in names] == [".r0", ".r1"]


def test_a_folder_that_cannot_be_written_leaves_no_rest(place: Place) -> None:
    (place.folder / "in-the-way").write_bytes(b"")
    with pytest.raises(StoreUnavailable):
        place.run(out=place.folder / "in-the-way" / "crls.pem")
    assert not [path for path in place.folder.iterdir() if path.name.endswith(".new")]
