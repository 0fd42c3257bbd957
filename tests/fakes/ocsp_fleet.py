"""Issuers and certificates that tests of the OCSP service over the wire share, and requests about them, as a client sends them."""

from __future__ import annotations

import base64
from dataclasses import replace
from urllib.parse import quote

from ca.model import IssuerId, Reason, Serial
from ca.rules.serial import is_ours, make_serial
from ocsp.front import Front
from ocsp.model import Policy
from tests.fakes import ocsp as fakes
from tests.fakes.ocsp import NOW, World

CHECK_KEY = b"k" * 32
GOOD, REVOKED, HELD, UNISSUED = (make_serial(bytes([number]) * 17, CHECK_KEY) for number in (1, 2, 3, 9))
FOREIGN = fakes.authority("foreign")
ROOT = fakes.authority("root", key_here=False)
SECOND = fakes.authority("second")
ROLLED = fakes.authority("issuing", use="issuing, next key")
"""The issuing CA after a roll-over: the same name, another key."""
ROLLED.issuer = replace(ROLLED.issuer, id=IssuerId("issuing-2"))


def ours(serial: Serial) -> bool:
    return is_ours(serial, CHECK_KEY)


def new_world(policy: Policy | None = None, **fields: object) -> World:
    world = fakes.world(SECOND, ROLLED, ROOT, policy=policy, is_ours=ours, **fields)  # type: ignore[arg-type]
    for issuer in ("issuing", "second", "issuing-2"):
        world.record.issue(issuer, GOOD)
    world.record.change(world.record.issue("issuing", REVOKED), Reason.keyCompromise, NOW - 1000)
    world.record.issue("issuing", HELD)
    world.service.listen()
    return world


def warmed(policy: Policy | None = None) -> tuple[World, Front]:
    """A world whose front has all that is good, revoked or held in its working set."""
    world = new_world(policy)
    for ca, serials in ((world.ca, (GOOD, REVOKED, HELD)), (SECOND, (GOOD,))):
        for serial in serials:
            for name in ("sha1", "sha256"):
                for parameters in (b"", b"\x05\x00"):
                    world.service.reply(
                        fakes.post(fakes.request(fakes.certificate_id(ca.issuer, serial, hash_name=name, parameters=parameters)))
                    )
    return world, world.service.front


ONE = fakes.request(fakes.certificate_id(fakes.authority().issuer, GOOD))
TWO = fakes.request(fakes.certificate_id(fakes.authority().issuer, REVOKED, hash_name="sha1"))
COLD = fakes.request(fakes.certificate_id(fakes.authority().issuer, UNISSUED))
PATH = quote(base64.b64encode(ONE).decode(), safe="").encode()


def post(body: bytes, *headers: bytes, version: bytes = b"1.1", kind: bytes = b"application/ocsp-request") -> bytes:
    lines = [b"POST /ocsp HTTP/" + version, b"Host: a", b"Content-Type: " + kind, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def get(*headers: bytes, method: bytes = b"GET", version: bytes = b"1.1", path: bytes = b"/ocsp/" + PATH) -> bytes:
    return b"\r\n".join([method + b" " + path + b" HTTP/" + version, b"Host: a", *headers]) + b"\r\n\r\n"


LAST = b"Connection: close"
