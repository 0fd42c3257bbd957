"""A relying party: what it makes of good, bad and missing answers (REQ-KEY-024). The authority here is cryptography's builders and our responder."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as library
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from ca.errors import Broken, Denied, Unavailable
from ca.model import CertificateRef, IssuerId, KeyName, Reason, Serial
from ca.rules.certificate import issuer_from_certificate
from fleetca.relying_party import answers
from fleetca.relying_party.memory import Memory, Remembered
from fleetca.relying_party.status import StatusClient
from fleetca.relying_party.transport import Asked, fetch
from fleetca.relying_party.words import Fail, Policy, Source, Verdict
from ocsp.model import Question
from tests.fakes import ocsp as fakes
from tests.fakes.ocsp import DAY, HOUR, NOW, World, moment

CA_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Root")])
OCSP_URL, CRL_URL = "http://status.example/ocsp", "http://status.example/crl/issuing.crl"
SERIAL = Serial(0x41 << 144)


def usage(**on: bool) -> x509.KeyUsage:
    names = "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign encipher_only decipher_only"
    return x509.KeyUsage(**{name: on.get(name, False) for name in names.split()})


def certify(
    subject: x509.Name,
    public: Any,
    *extensions: tuple[Any, bool],
    by: fakes.Key,
    issuer: x509.Name,
    serial: int = 7,
    life: int = 30 * DAY,
    start: int = NOW - DAY,
) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(moment(start))
        .not_valid_after(moment(start + life - 1))
    )
    for value, critical in extensions:
        builder = builder.add_extension(value, critical=critical)
    return builder.sign(by.private, by.builder_hash).public_bytes(Encoding.DER)


def ca_certificate(name: x509.Name, key: fakes.Key) -> bytes:
    return certify(
        name, key.private.public_key(), (x509.BasicConstraints(ca=True, path_length=0), True), (usage(key_cert_sign=True, crl_sign=True, digital_signature=True), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.private.public_key()), False), by=key, issuer=name, life=3650 * DAY,
    )  # fmt: skip


class Place:
    """An authority with OCSP and CRLs, reachable or not, and a relying party's way to it."""

    def __init__(self) -> None:
        self.key = fakes.one_key("p256", "relying root")
        self.root = ca_certificate(CA_NAME, self.key)
        issuer = replace(issuer_from_certificate(self.root, id="issuing", key=KeyName("k")), id=IssuerId("issuing"))
        authority = fakes.Authority(issuer, self.key, x509.load_der_x509_certificate(self.root))
        self.world: World = fakes.world(ca=authority)
        self.ref = self.world.record.issue("issuing", SERIAL)
        self.ocsp_up = self.crl_up = True
        self.asked: list[str] = []
        self.number = 1
        self.leaf = self.issue()
        self.swap: Callable[[bytes], bytes] = lambda body: body

    def issue(
        self,
        *,
        serial: int = SERIAL,
        life: int = 30 * DAY,
        start: int = NOW - DAY,
        ocsp: bool = True,
        crl: bool = True,
        extra: tuple[tuple[Any, bool], ...] = (),
    ) -> bytes:
        points: list[tuple[Any, bool]] = []
        if ocsp:
            access = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(OCSP_URL))
            points.append((x509.AuthorityInformationAccess([access]), False))
        if crl:
            points.append(
                (x509.CRLDistributionPoints([x509.DistributionPoint([x509.UniformResourceIdentifier(CRL_URL)], None, None, None)]), False)
            )
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device")])
        return certify(
            name,
            fakes.one_key("p256", "device").private.public_key(),
            *points,
            *extra,
            by=self.key,
            issuer=CA_NAME,
            serial=serial,
            life=life,
            start=start,
        )

    def revoke(self, reason: Reason = Reason.keyCompromise) -> None:
        self.world.record.change(self.ref, reason, self.world.clock.time)
        self.world.service.listen()
        self.number += 1

    def crl(
        self, *, by: fakes.Key | None = None, next_update: int | None = None, number: int | None = None, name: x509.Name = CA_NAME
    ) -> bytes:
        now = self.world.clock.time
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(name)
            .last_update(moment(now - 60))
            .next_update(moment(now + DAY if next_update is None else next_update))
            .add_extension(x509.CRLNumber(self.number if number is None else number), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.private.public_key()), critical=False)
        )
        latest = {one.ref: one for one in self.world.record.changes}
        for ref, change in latest.items():
            if change.reason is not Reason.removeFromCRL:
                listed = x509.RevokedCertificateBuilder().serial_number(ref.serial).revocation_date(moment(change.revoked_at))
                builder = builder.add_revoked_certificate(
                    listed.add_extension(x509.CRLReason(x509.ReasonFlags.key_compromise), critical=False).build()
                )
        return builder.sign((by or self.key).private, self.key.builder_hash).public_bytes(Encoding.DER)

    def get(self, asked: Asked, *, timeout: float, longest: int) -> bytes:
        self.asked.append(asked.url)
        if asked.url == CRL_URL:
            if not self.crl_up:
                raise Unavailable("no-answer", "status.example does not answer.")
            return self.crl()
        if not self.ocsp_up:
            raise Unavailable("no-answer", "status.example does not answer.")
        assert asked.url.startswith(OCSP_URL)
        path = urlsplit(asked.url).path
        question = Question("GET" if asked.body is None else "POST", path, asked.body or b"", asked.kind or None)
        return self.swap(self.world.service.reply(question).body)

    def client(self, memory: Memory | None = None, **policy: Any) -> StatusClient:
        return StatusClient(
            roots=[self.root], clock=self.world.clock, chance=_Chance(), policy=Policy(**policy), memory=memory, get=self.get
        )

    def forward(self, seconds: int) -> None:
        self.world.clock.time += seconds
        self.world.service.listen()
        self.world.service.renew()


class _Chance:
    def __init__(self) -> None:
        self._count = 0

    def octets(self, count: int) -> bytes:
        self._count += 1
        return self._count.to_bytes(count, "big")


@pytest.fixture
def place() -> Place:
    return Place()


# ---- The truth table ----------------------------------------------------------------------------------------------------

G, R, U, E, S = Verdict.good, Verdict.revoked, Verdict.unknown, Verdict.expired, Verdict.stale
# What OCSP says, what the CRL says, what is remembered and how long it has ended, and then: the verdict, hard, soft.
TRUTH = [
    pytest.param("good", "good", None, G, True, True, id="OCSP says good"),
    pytest.param("good", "down", None, G, True, True, id="OCSP says good, and there is no CRL"),
    pytest.param("revoked", "down", None, R, False, False, id="OCSP says revoked"),
    pytest.param("revoked", "good", "good", R, False, False, id="OCSP says revoked, the CRL does not know it yet"),
    pytest.param("down", "good", None, G, True, True, id="OCSP is down, the CRL says good"),
    pytest.param("down", "revoked", None, R, False, False, id="OCSP is down, the CRL says revoked"),
    pytest.param("unknown", "good", None, U, False, False, id="OCSP does not know it: a CRL that does not list it proves nothing"),
    pytest.param("unknown", "down", "good", U, False, False, id="OCSP does not know it any more"),
    pytest.param("unknown", "revoked", None, R, False, False, id="OCSP does not know it, the CRL says revoked"),
    pytest.param("down", "down", None, U, False, True, id="nobody answers, nothing is remembered"),
    pytest.param("down", "down", "good", G, True, True, id="nobody answers, good is remembered and holds"),
    pytest.param("down", "down", "good, ended an hour ago", S, True, True, id="stale within the budget"),
    pytest.param("down", "down", "good, ended two days ago", S, False, True, id="stale beyond the budget"),
    pytest.param("down", "down", "revoked", R, False, False, id="nobody answers, revoked is remembered"),
    pytest.param("down", "down", "revoked, ended two days ago", R, False, False, id="revoked is remembered for good"),
    pytest.param("expired", "good", None, E, False, False, id="it has expired"),
    pytest.param("not yet", "good", None, E, False, False, id="it is not valid yet"),
]  # fmt: skip


@pytest.mark.req("REQ-KEY-024")
@pytest.mark.parametrize(("ocsp", "crl", "remembered", "verdict", "hard", "soft"), TRUTH)
def test_truth_table(
    place: Place, ocsp: str, crl: str, remembered: str | None, verdict: Verdict, hard: bool, soft: bool, caplog: pytest.LogCaptureFixture
) -> None:
    memory = Memory(None)
    if remembered is not None:
        before = place.ref
        if remembered.startswith("revoked"):
            place.revoke()
        place.crl_up = False
        assert place.client(memory).check(place.leaf).verdict.value == remembered.split(",")[0]
        place.forward({"an hour ago": 2 * HOUR, "two days ago": 2 * DAY + HOUR}.get(remembered.partition("ended ")[2], 400))
        assert before == place.ref
    elif crl == "revoked" or ocsp == "revoked":
        place.revoke()
    if remembered == "good" and ocsp == "revoked":
        place.revoke()
    place.ocsp_up, place.crl_up = ocsp != "down", crl != "down"
    if ocsp == "unknown":
        del place.world.record.states[place.ref]
        place.world.service.snapshot()
        place.world.service = fakes.world(ca=place.world.ca).service
    if crl == "good" and ocsp == "revoked":
        place.crl = lambda **_: Place().crl()  # type: ignore[method-assign]
    leaf = place.leaf
    if ocsp == "expired":
        leaf = place.issue(life=DAY, start=NOW - 2 * DAY)
    if ocsp == "not yet":
        leaf = place.issue(start=NOW + HOUR)
    for fail, accepted in ((Fail.hard, hard), (Fail.soft, soft)):
        caplog.clear()
        standing = place.client(memory, fail=fail, offline_budget=DAY).check(leaf)
        assert (standing.verdict, standing.accepted) == (verdict, accepted), standing
        if accepted and verdict is not G:
            assert "accepted though its status is" in caplog.text


def test_an_answer_is_used_again_while_it_is_fresh_and_asked_for_again_after(place: Place) -> None:
    client = place.client()
    assert client.check(place.leaf).source is Source.ocsp
    assert client.check(place.leaf).remembered
    assert len(place.asked) == 1
    place.forward(301)
    place.revoke()
    assert client.check(place.leaf).verdict is R
    assert len(place.asked) == 2


def test_RFC9919_5_short_requests_are_GETs_and_a_nonce_is_always_a_POST(place: Place) -> None:
    assert place.client().check(place.leaf).accepted
    assert unquote(place.asked[-1]).startswith(OCSP_URL + "/M")
    standing = place.client(nonce=True).check(place.leaf)
    assert standing.source is Source.ocsp
    assert place.asked[-1] == OCSP_URL


def test_RFC9608_noRevAvail_needs_nobody(place: Place) -> None:
    leaf = place.issue(ocsp=False, crl=False, extra=((x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.56"), b"\x05\x00"), False),))
    standing = place.client().check(leaf)
    assert (standing.verdict, standing.source, place.asked) == (G, Source.short_lived, [])
    nobody = place.client().check(place.issue(ocsp=False, crl=False))
    assert (nobody.verdict, nobody.accepted) == (U, False)


def test_R34_a_look_alike_chain_is_denied_whatever_the_policy(place: Place) -> None:
    other = fakes.one_key("p256", "look-alike root")
    for foreign in (ca_certificate(CA_NAME, other), ca_certificate(x509.Name([]), other)):
        client = StatusClient(roots=[foreign], clock=place.world.clock, chance=_Chance(), policy=Policy(fail=Fail.soft), get=place.get)
        with pytest.raises(Denied, match="does not lead to a trusted root"):
            client.check(place.leaf)


def test_what_is_remembered_in_a_folder_is_believed_only_as_it_was_signed(place: Place, tmp_path: Path) -> None:
    assert place.client(Memory(tmp_path)).check(place.leaf).accepted
    place.ocsp_up = place.crl_up = False
    place.forward(400)
    assert place.client(Memory(tmp_path)).check(place.leaf).remembered
    (file,) = tmp_path.iterdir()
    kept = json.loads(file.read_text())
    body = bytearray(__import__("base64").b64decode(kept["octets"]))
    body[-1000 if len(body) > 1000 else 200] ^= 1
    for change in (
        {"octets": __import__("base64").b64encode(bytes(body)).decode()},
        {"at": NOW + 40 * DAY},
        {"octets": "x"},
        {"kind": "crl"},
    ):
        file.write_text(json.dumps(kept | change))
        assert place.client(Memory(tmp_path)).check(place.leaf).verdict is U
    file.write_text("nothing")
    assert place.client(Memory(tmp_path)).check(place.leaf).verdict is U


# ---- Bad responders -----------------------------------------------------------------------------------------------------


def answer(
    place: Place,
    *,
    key: fakes.Key | None = None,
    delegate: bytes | None = None,
    serial: int = SERIAL,
    issuer: bytes | None = None,
    this_update: int = NOW - 60,
    next_update: int | None = NOW + HOUR,
    nonce: bytes = b"",
    by_issuer: bool = False,
) -> bytes:
    """An answer of cryptography's builder, wrong in one thing."""
    key = key or fakes.one_key("p256", "responder")
    leaf = x509.load_der_x509_certificate(place.issue(serial=serial))
    ca = x509.load_der_x509_certificate(issuer or place.root)
    builder = library.OCSPResponseBuilder().add_response(
        leaf,
        ca,
        fakes.hashes.SHA256(),
        library.OCSPCertStatus.GOOD,
        moment(this_update),
        None if next_update is None else moment(next_update),
        None,
        None,
    )
    if by_issuer:
        return (
            builder.responder_id(library.OCSPResponderEncoding.HASH, ca)
            .sign(place.key.private, fakes.hashes.SHA256())
            .public_bytes(Encoding.DER)
        )
    signer = x509.load_der_x509_certificate(delegate or delegate_of(place, key))
    builder = builder.responder_id(library.OCSPResponderEncoding.HASH, signer).certificates([signer])
    if nonce:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.sign(key.private, fakes.hashes.SHA256()).public_bytes(Encoding.DER)


def delegate_of(place: Place, key: fakes.Key, **wrong: Any) -> bytes:
    return fakes.delegate(place.world.ca, key.private.public_key(), **wrong)


def believed(place: Place, body: bytes, *, nonce: bytes | None = None, now: int = NOW) -> Any:
    return answers.judge(body, certificate=place.leaf, issuer=place.root, nonce=nonce, now=now, policy=Policy())


KEY = fakes.one_key("p256", "responder")
OTHER = fakes.one_key("p256", "another responder")
BAD: list[Any] = [
    pytest.param(lambda p: answer(p, delegate=delegate_of(p, KEY, signer=OTHER)), "not signed by the issuer", id="a delegate that another CA signed"),
    pytest.param(lambda p: answer(p, delegate=delegate_of(p, KEY, issuer_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Other")]))), "another CA", id="a delegate of another name"),
    pytest.param(lambda p: answer(p, delegate=delegate_of(p, KEY, usages=(ExtendedKeyUsageOID.CLIENT_AUTH,))), "may not sign", id="a device's certificate as delegate"),
    pytest.param(lambda p: answer(p, delegate=delegate_of(p, KEY, usages=())), "is none", id="a delegate without usage"),
    pytest.param(lambda p: answer(p, delegate=delegate_of(p, KEY, nocheck=False)), "is none", id="a delegate whose own status nobody says"),
    pytest.param(lambda p: answer(p, delegate=delegate_of(p, KEY, digital_signature=False)), "may not sign", id="a delegate that may not sign"),
    pytest.param(lambda p: answer(p, delegate=delegate_of(p, KEY, now=NOW - 3 * DAY)), "not valid now", id="a delegate that has ended"),
    pytest.param(lambda p: answer(p, serial=SERIAL + 1), "another certificate", id="another serial"),
    pytest.param(lambda p: answer(p, issuer=ca_certificate(CA_NAME, OTHER)), "another certificate", id="another issuer of the same name"),
    pytest.param(lambda p: answer(p, this_update=NOW - 2 * HOUR, next_update=NOW), "nextUpdate is past", id="stale"),
    pytest.param(lambda p: answer(p, next_update=None), "no nextUpdate", id="without an end"),
    pytest.param(lambda p: answer(p, this_update=NOW + 600), "from the future", id="from the future"),
    pytest.param(lambda p: answer(p)[:-30], "cannot be read", id="truncated"),
    pytest.param(lambda p: answer(p)[:300], "cannot be read", id="half of it"),
    pytest.param(lambda p: b"", "cannot be read", id="empty"),
    pytest.param(lambda p: b"<html>", "cannot be read", id="a web page"),
    pytest.param(lambda p: bytes(10 << 20), "longer than", id="10 MiB"),
    pytest.param(lambda p: spoiled(answer(p)), "does not verify", id="one bit of it"),
]  # fmt: skip


def spoiled(body: bytes) -> bytes:
    at = body.index(b"\x80\x00\x18\x0f") + 10  # inside thisUpdate
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


@pytest.mark.req("REQ-KEY-024")
@pytest.mark.parametrize(("make", "why"), BAD)
def test_bad_responders_are_refused(place: Place, make: Callable[[Place], bytes], why: str) -> None:
    body = make(place)
    with pytest.raises(Broken, match=why):
        believed(place, body)
    # And the next source is asked.
    place.swap = lambda _: body
    standing = place.client().check(place.leaf)
    assert standing.source is Source.crl
    assert any(why in one for one in standing.tried)
    place.crl_up = False
    assert not place.client().check(place.leaf).accepted


def test_the_issuer_itself_and_a_right_delegate_are_believed(place: Place) -> None:
    assert believed(place, answer(place)).verdict is G
    assert believed(place, answer(place, by_issuer=True)).verdict is G


def test_R21_a_replay_is_noticed_by_its_nonce_and_by_what_was_seen_before(place: Place) -> None:
    assert believed(place, answer(place, nonce=b"n" * 32), nonce=b"n" * 32).verdict is G
    for body in (answer(place, nonce=b"m" * 32), answer(place)):
        with pytest.raises(Broken, match="nonce"):
            believed(place, body, nonce=b"n" * 32)
    # Without a nonce: once a later word was heard, an earlier one counts no more.
    early: list[bytes] = []
    place.swap = lambda body: early.append(body) or body  # type: ignore[func-returns-value]
    client = place.client(max_age=1)
    assert client.check(place.leaf).accepted
    place.forward(120)
    place.revoke()
    assert client.check(place.leaf).verdict is R
    place.forward(60)
    place.swap = lambda _: early[0]
    place.crl_up = False
    assert client.check(place.leaf).verdict is R


@pytest.mark.parametrize("word", ["TRY_LATER", "UNAUTHORIZED", "MALFORMED_REQUEST", "INTERNAL_ERROR", "SIG_REQUIRED"])
def test_an_error_is_no_word(place: Place, word: str) -> None:
    body = library.OCSPResponseBuilder.build_unsuccessful(library.OCSPResponseStatus[word]).public_bytes(Encoding.DER)
    place.swap = lambda _: body
    standing = place.client().check(place.leaf)
    assert standing.source is Source.crl
    assert word.lower() in standing.tried[0]


CRLS: list[Any] = [
    pytest.param(lambda p: Place.crl(p, by=fakes.one_key("p256", "x")), id="signed by another key"),
    pytest.param(lambda p: Place.crl(p, name=x509.Name([])), id="another issuer's"),
    pytest.param(lambda p: Place.crl(p, next_update=NOW - 1), id="ended"),
    pytest.param(lambda p: Place.crl(p)[:-9], id="truncated"),
    pytest.param(lambda p: b"nothing", id="none"),
]


@pytest.mark.parametrize("make", CRLS)
def test_bad_crls_are_refused(place: Place, make: Callable[[Place], bytes]) -> None:
    place.ocsp_up = False
    body = make(place)
    place.crl = lambda **_: body  # type: ignore[method-assign]
    standing = place.client().check(place.leaf)
    assert (standing.verdict, standing.accepted) == (U, False)
    assert len(standing.tried) == 2


def test_an_older_crl_than_was_seen_before_is_refused(place: Place) -> None:
    place.ocsp_up = False
    client = place.client(max_age=1)
    place.number = 5
    place.revoke()
    assert client.check(place.leaf).verdict is R
    place.forward(60)
    old = Place().crl(number=3)
    place.crl = lambda **_: old  # type: ignore[method-assign]
    standing = client.check(place.leaf)
    assert standing.verdict is R
    assert any("older" in one for one in standing.tried)


# ---- On the wire --------------------------------------------------------------------------------------------------------


@pytest.fixture
def nasty() -> Iterator[Callable[[Callable[[socket.socket], object]], str]]:
    listeners: list[socket.socket] = []

    def serve(behave: Callable[[socket.socket], object]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def accept() -> None:
            try:
                while True:
                    line, _ = listener.accept()
                    with line:
                        try:
                            asked = b""
                            while not asked.endswith(b"\r\n\r\nx"):  # head and body come one after the other
                                part = line.recv(65536)
                                if not part:
                                    raise ConnectionResetError
                                asked += part
                            behave(line)
                        except OSError:
                            pass
            except OSError:
                pass

        threading.Thread(target=accept, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/ocsp"

    yield serve
    for listener in listeners:
        listener.close()


def drip(line: socket.socket) -> None:
    line.sendall(b"HTTP/1.1 200 OK\r\n")
    for _ in range(200):
        line.sendall(b"x")
        threading.Event().wait(0.05)


NASTY = [
    pytest.param(lambda line: line.recv(1), "longer than", id="says nothing"),
    pytest.param(drip, "longer than", id="an octet now and then"),
    pytest.param(
        lambda line: line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n" + bytes(1 << 20)), "too much", id="10 MiB and more"
    ),
    pytest.param(lambda line: line.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(200_000)), "too much", id="without a length"),
    pytest.param(
        lambda line: line.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n"), "302", id="a redirect"
    ),
    pytest.param(lambda line: line.sendall(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"), "500", id="an error"),
    pytest.param(lambda line: line.sendall(b"SSH-2.0-x\r\n"), "does not answer", id="no HTTP"),
    pytest.param(lambda line: line.close(), "does not answer", id="hangs up"),
]


@pytest.mark.parametrize(("behave", "why"), NASTY)
def test_whatever_the_other_side_does_it_ends_in_time(
    nasty: Callable[[Any], str], behave: Callable[[socket.socket], object], why: str
) -> None:
    with pytest.raises(Unavailable) as caught:
        # Only those who never end are waited for; the others have their time, on a busy machine too.
        fetch(Asked(nasty(behave), b"x", "a/b"), timeout=0.6 if why == "longer than" else 60, longest=answers.LONGEST)
    assert why in f"{caught.value.what} {caught.value.why}"


def test_only_http_is_spoken() -> None:
    for url in ("file:///etc/passwd", "https://a/", "ldap://a/", "http:///x", "gopher://a"):
        with pytest.raises(Unavailable, match="not an http address"):
            fetch(Asked(url), timeout=1, longest=10)


def test_the_command_refuses_what_it_cannot_check(tmp_path: Path, place: Place) -> None:
    (tmp_path / "root.der").write_bytes(place.root)
    (tmp_path / "leaf.der").write_bytes(place.leaf)
    command = [sys.executable, "-m", "fleetca.cli.main", "status", "--root", str(tmp_path / "root.der"), "--json"]
    none = subprocess.run([*command], capture_output=True, text=True, check=False)
    assert (none.returncode, "give a certificate file" in none.stderr) == (2, True)
    nobody = subprocess.run([*command, "--peer", "127.0.0.1:1"], capture_output=True, text=True, check=False)
    assert nobody.returncode == 1
    assert json.loads(nobody.stdout)["error"]["code"] == "no-peer"


def test_only_what_it_may_use_is_imported() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, fleetca.relying_party.status; print(*sys.modules)"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"flask", "sqlalchemy", "apscheduler", "numpy", "uvicorn", "ca.store", "ca.signer", "ocsp.serve"} & set(loaded)
    assert CertificateRef and Remembered
