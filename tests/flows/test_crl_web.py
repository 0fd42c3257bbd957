"""CRLs and CA certificates over HTTP, as caches and relying parties meet them."""

from __future__ import annotations

from dataclasses import replace
from email.utils import parsedate_to_datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from ca.outlets.directory import DirectoryOutlet
from crl.adopt import adopt
from crl.shelf import Shelf
from crl.web import blueprint
from tests.fakes.crl_world import LIFETIME, Clock, authority

T = 1_800_000_000
YEAR = 365 * 86400
ISSUING = authority(not_before=T - 10**6, not_after=T + 10**8)
ROOT = authority(called="root", not_before=T - 10**6, not_after=T + 20 * YEAR, ours=False)
BARE = replace(authority(called="bare", not_before=T - 10**6, not_after=T + 10**8).issuer, may_sign_crl=False)


class Site:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock(T + 10)
        self.outlet = DirectoryOutlet(folder)
        self.put(1)
        app = Flask("status")
        app.register_blueprint(blueprint(shelf=Shelf(self.outlet), issuers=(ISSUING.issuer, ROOT.issuer, BARE), clock=self.clock))
        self.client: FlaskClient = app.test_client()

    def put(self, number: int, *, this_update: int = T) -> bytes:
        octets = ISSUING.crl(number=number, this_update=this_update, next_update=this_update + LIFETIME - 1)
        adopt(octets, ISSUING.issuer, outlet=self.outlet, clock=self.clock)
        return octets

    def get(self, path: str = "/crl/issuing.crl", **headers: str) -> Any:
        return self.client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "crl")


def test_a_crl_comes_whole_with_what_caches_need(site: Site) -> None:
    answer = site.get()
    octets = (site.folder / "issuing.crl").read_bytes()
    assert (answer.status_code, answer.data) == (200, octets)
    assert answer.headers["Content-Type"] == "application/pkix-crl"
    assert answer.headers["ETag"] == f'"{sha256(octets).hexdigest()}"'
    assert answer.headers["Cache-Control"] == "public, max-age=30, must-revalidate, no-transform"
    assert parsedate_to_datetime(answer.headers["Last-Modified"]).timestamp() == T
    assert parsedate_to_datetime(answer.headers["Expires"]).timestamp() == T + 40
    assert "Date" not in answer.headers
    assert int(answer.headers["Content-Length"]) == len(octets)


def test_head_tells_the_same_without_the_body(site: Site) -> None:
    got, told = site.get(), site.client.head("/crl/issuing.crl")
    assert dict(told.headers) == dict(got.headers)
    assert told.data == b""


@pytest.mark.parametrize("asked", ["etag", "weak", "several", "star", "date"])
def test_who_has_it_gets_304(site: Site, asked: str) -> None:
    first = site.get()
    tag = first.headers["ETag"]
    headers = {
        "etag": {"If_None_Match": tag},
        "weak": {"If_None_Match": f"W/{tag}"},
        "several": {"If_None_Match": f'"x", {tag}'},
        "star": {"If_None_Match": "*"},
        "date": {"If_Modified_Since": first.headers["Last-Modified"]},
    }[asked]
    answer = site.get(**headers)
    assert (answer.status_code, answer.data) == (304, b"")
    assert answer.headers["ETag"] == tag
    assert "max-age" in answer.headers["Cache-Control"]


def test_a_new_crl_is_served_at_once(site: Site) -> None:
    tag = site.get().headers["ETag"]
    octets = site.put(2, this_update=T + 5)
    answer = site.get(If_None_Match=tag)
    assert (answer.status_code, answer.data) == (200, octets)


def test_a_large_crl_can_be_taken_up_again(site: Site) -> None:
    whole = site.get()
    rest = site.get(Range="bytes=100-", If_Range=whole.headers["ETag"])
    assert (rest.status_code, rest.data) == (206, whole.data[100:])
    assert site.get(Range="bytes=100-", If_Range='"older"').data == whole.data


def test_P5_max_age_ends_with_next_update_and_nothing_leaves_after_it(site: Site) -> None:
    site.clock.time = T + LIFETIME - 1 - 7
    assert "max-age=7," in site.get().headers["Cache-Control"]
    site.clock.time = T + LIFETIME - 1
    answer = site.get()
    assert answer.status_code == 503
    assert answer.json["code"] == "crl-expired"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Retry-After"]


@pytest.mark.parametrize(
    "wrong", [b"", b"half", ROOT.crl(number=9, this_update=T, next_update=T + YEAR)], ids=["empty", "half", "the root's"]
)
def test_R09_a_file_that_is_not_the_issuer_s_crl_is_never_served(site: Site, wrong: bytes) -> None:
    second = site.put(2, this_update=T + 5)
    (site.folder / "issuing.crl").write_bytes(wrong)
    first = (site.folder / "issuing.crl.previous").read_bytes()
    assert site.get().data == first
    (site.folder / "issuing.crl.previous").write_bytes(wrong)
    answer = site.get()
    assert (answer.status_code, answer.json["code"]) == (503, "crl-missing")
    (site.folder / "issuing.crl").write_bytes(second)
    assert site.get().data == second


@pytest.mark.parametrize(
    "path",
    [
        "/crl/nobody.crl",
        "/crl/bare.crl",
        "/crl/.crl",
        "/crl/..%2F..%2Fetc%2Fpasswd.crl",
        "/crl/../issuing.crl.number",
        "/crl/issuing.crl.previous",
        "/crl/issuing.crl.number",
        "/crl/%00.crl",
        "/crl/ISSUING.crl",
        "/ca/nobody.cer",
        "/ca/..%2Fissuing.cer",
    ],
)
def test_R30_other_names_are_404(site: Site, path: str) -> None:
    assert site.get(path).status_code == 404


def test_what_was_not_published_yet_is_503_and_says_so(site: Site) -> None:
    answer = site.get("/crl/root.crl")
    assert answer.status_code == 503
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["code"] == "crl-missing"


def test_the_root_s_crl_is_served_the_same_way(site: Site) -> None:
    octets = ROOT.crl(number=1, this_update=T, next_update=T + YEAR)
    adopt(octets, ROOT.issuer, outlet=site.outlet, clock=site.clock)
    answer = site.get("/crl/root.crl")
    assert (answer.status_code, answer.data, answer.headers["Content-Type"]) == (200, octets, "application/pkix-crl")


@pytest.mark.parametrize("issuer", [ISSUING.issuer, ROOT.issuer, BARE], ids=lambda issuer: str(issuer.id))
def test_ca_certificates_come_as_der(site: Site, issuer: Any) -> None:
    answer = site.get(f"/ca/{issuer.id}.cer")
    assert (answer.status_code, answer.data) == (200, issuer.certificate)
    assert answer.headers["Content-Type"] == "application/pkix-cert"
    assert "max-age=3600" in answer.headers["Cache-Control"]
    assert site.get(f"/ca/{issuer.id}.cer", If_None_Match=answer.headers["ETag"]).status_code == 304


def test_P7_a_folder_that_cannot_be_read_is_503_and_no_traceback(site: Site) -> None:
    (site.folder / "issuing.crl").unlink()
    (site.folder / "issuing.crl").symlink_to("issuing.crl")
    for path in ("/crl/issuing.crl", "/crl/health"):
        answer = site.get(path)
        assert (answer.status_code, answer.json["code"]) == (503, "outlet-unavailable")


def test_health_tells_each_crl_and_warns_of_the_root_s(site: Site) -> None:
    answer = site.get("/crl/health")
    assert answer.status_code == 503
    assert answer.json["status"] == "failing"
    adopt(ROOT.crl(number=1, this_update=T, next_update=T + YEAR), ROOT.issuer, outlet=site.outlet, clock=site.clock)
    answer = site.get("/crl/health")
    assert (answer.status_code, answer.json["status"]) == (200, "serving")
    assert [(one["issuer"], one["state"], one["number"]) for one in answer.json["crls"]] == [("issuing", "fresh", 1), ("root", "fresh", 1)]
    site.clock.time = T + 250 * 86400
    site.put(2, this_update=site.clock.time)
    answer = site.get("/crl/health")
    assert answer.status_code == 200
    assert [one["state"] for one in answer.json["crls"]] == ["fresh", "late"]
    assert "ceremony" in answer.json["crls"][1]["advice"]


def test_nothing_else_than_reading_is_allowed(site: Site) -> None:
    for path in ("/crl/issuing.crl", "/ca/issuing.cer", "/crl/health"):
        assert site.client.post(path, data=b"x").status_code == 405
        assert site.client.delete(path).status_code == 405
