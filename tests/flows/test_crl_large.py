"""A CRL longer than anybody wants to hold: what brings it elsewhere and what serves it take it in pieces."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from ca.der import writer
from ca.der.algorithms import ALGORITHMS
from ca.der.crl import entry, frame
from ca.model import AlgorithmName, Reason, Serial
from ca.outlets.directory import DirectoryOutlet
from tests.fakes.crl_world import authority
from tests.fakes.places import web_folder

T = 1_800_000_000
NAME = "issuing.crl"
LARGE = 64 << 20
SPARE = 16 << 20
"""Octets of memory that any of them may take for it."""

_BEGIN = """
import json, pickle, sys
from pathlib import Path
from ca.outlets.directory import DirectoryOutlet
from ca.outlets.http_put import HttpPutOutlet
from ca.outlets.s3 import S3Outlet, make_client
from crl.mirror import Mirror
from crl.shelf import Shelf

class Clock:
    def now(self):
        return 1_800_000_010

def peak():
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024

folder, url = sys.argv[1:]
issuer = pickle.loads((Path(folder) / "issuer").read_bytes())
outlet = DirectoryOutlet(Path(folder) / "public")
"""
_MIRROR = """
place = HttpPutOutlet(url, now=Clock().now) if KIND == "http-put" else S3Outlet("crl", now=Clock().now, client=make_client(url[:-4], "eu-west-1"))
mirror = Mirror(outlet, place, issuers=(issuer,))
place.mark("issuing.crl")
before = peak()
assert mirror.follow() == 1
print(json.dumps({"grown": peak() - before}))
"""
_SERVE = """
import asyncio
from hashlib import sha256
from flask import Flask
from crl.web import blueprint
from fleetca.bridge import Bridge

app = Flask("status")
app.register_blueprint(blueprint(shelf=Shelf(outlet), issuers=(issuer,), clock=Clock()))
bridge = Bridge(app)

async def asked(range):
    digest, sent, came = sha256(), [], asyncio.Event()
    came.set()
    async def receive():
        await came.wait()
        came.clear()
        return {"type": "http.request", "body": b""}
    async def send(message):
        if message["type"] == "http.response.start":
            sent.append(message["status"])
        else:
            digest.update(message["body"])
            sent.append(len(message["body"]))
    headers = [(b"host", b"x")] + ([(b"range", range)] if range else [])
    scope = {"type": "http", "method": "GET", "scheme": "http", "path": "/crl/issuing.crl", "raw_path": b"/crl/issuing.crl",
             "query_string": b"", "http_version": "1.1", "headers": headers}
    await bridge(scope, receive, send)
    return sent[0], sum(sent[1:]), digest.hexdigest()

asyncio.run(asked(b"bytes=0-9"))
before = peak()
told = [asyncio.run(asked(None)), asyncio.run(asked(b"bytes=1000-"))]
print(json.dumps({"grown": peak() - before, "told": told}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the CRL of an issuer: signed, and as long as one of a million and a half."""
    place = tmp_path_factory.mktemp("large")
    ours = authority(not_before=T - 10**6, not_after=T + 10**8)
    one = entry(Serial((1 << 158) + 1), T - 9, Reason.superseded)
    body = one * (LARGE // len(one))
    made = frame(ours.issuer, number=1, this_update=T, next_update=T + 86399, size=len(body))
    tbs = made.head + body + made.tail
    signature = ours.key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    octets = writer.sequence(tbs + ALGORITHMS[AlgorithmName("p256")].identifier + writer.bit_string(signature))
    outlet = DirectoryOutlet(place / "public")
    with outlet.stage(NAME) as stage:
        with open(stage.fileno(), "wb", closefd=False) as file:
            file.write(octets)
        stage.sync()
        outlet.put_if_unchanged(NAME, stage, seen=None)
    (place / "issuer").write_bytes(pickle.dumps(ours.issuer))
    yield place
    (place / "public" / NAME).unlink()


def run(program: str, folder: Path, url: str = "") -> dict[str, object]:
    surroundings = {**os.environ, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "PYTHONPATH": str(Path(__file__).parents[2])}
    told = subprocess.run(
        [sys.executable, "-c", _BEGIN + program, str(folder), url],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=surroundings,
    )
    assert told.returncode == 0, told.stderr
    said: dict[str, object] = json.loads(told.stdout)
    return said


@pytest.mark.parametrize("kind", ["http-put", "s3"])
def test_a_mirror_takes_a_large_crl_in_pieces(folder: Path, kind: str) -> None:
    with web_folder() as (place, url):
        said = run(f"KIND = {kind!r}\n" + _MIRROR, folder, url)
        assert place.files[NAME] == (folder / "public" / NAME).read_bytes()
    assert isinstance(said["grown"], int)
    assert said["grown"] < SPARE


def test_the_status_service_sends_a_large_crl_in_pieces(folder: Path) -> None:
    octets = (folder / "public" / NAME).read_bytes()
    said = run(_SERVE, folder)
    assert said["told"] == [
        [200, len(octets), sha256(octets).hexdigest()],
        [206, len(octets) - 1000, sha256(memoryview(octets)[1000:]).hexdigest()],
    ]
    assert isinstance(said["grown"], int)
    assert said["grown"] < SPARE
