"""What the contest of OCSP asks and checks: deployments with many certificates on record, requests, answers, strangers."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from ca.keys.memory import MemoryKey, make_private_key
from ca.model import AlgorithmName, CertificateState, IssuerId, KeyName, Revocation, Role, Serial
from ca.rules import serial
from ca.signer.client import SignerClient
from ca.store import tables
from ca.store.database import migrating_engine, parsed
from ca.store.engine import open_store
from ca.system import SystemClock
from fleetca import forms
from fleetca.presigning import Certifier, Presigner, key_maker, policy
from ocsp.front import Front
from ocsp.model import Policy, Question
from ocsp.serve import ResponderService
from ocsp.spool.packed import SpoolReader

KIND = "application/ocsp-request"
POLICY = Policy()
ASKED = 20_000
"""So many of the certificates on record have serials that can be worked out again."""
_PART = 2_000_000


def serial_of(number: int, check_key: bytes) -> int:
    return serial.make_serial(hashlib.sha256(number.to_bytes(4, "big")).digest()[:17], check_key)


def fill(settings_file: Path, count: int) -> None:
    """Put `count` good certificates on record, past every rule: their rows are real, their octets are not. Nothing may be running."""
    now = SystemClock().now()
    settings = forms.read_settings(settings_file)
    check_key = forms.serial_check_key(settings)

    def row(number: int) -> dict[str, Any]:
        digest = hashlib.sha256(b"row" + number.to_bytes(4, "big")).digest()
        return {
            "issuer": "issuing", "serial": serial_of(number, check_key).to_bytes(20, "big"), "shard": 0, "state": "issued", "tenant": "default",
            "device": f"d-{number}", "profile": "device", "actor": "bench", "subject": f"CN=d-{number}", "names": "[]", "spki_sha256": digest,
            "not_before": now, "not_after": now + 7 * 86400, "revocable": True, "request_key": digest, "leaf": digest, "intended_at": now,
            "issued_at": now, "revoked": False, "grant": "{}", "tbs": digest, "der": digest, "der_sha256": digest,
        }  # fmt: skip

    few = min(count, ASKED)
    engine = migrating_engine(parsed(forms.store_url(settings)))
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        # Whoever opens it later sets what the product sets. Ten millions take a minute so, and a quarter of an hour if each commit reached the disk.
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE", "cache_size=-1000000"):
            driver.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute(tables.certificates.insert(), [row(number) for number in range(few)])
        connection.commit()
        if count > few:
            # Nobody asks about the others, so SQLite may make up what distinguishes them, in order: its indexes then grow at one end.
            changing = dict.fromkeys(("spki_sha256", "request_key", "leaf", "tbs", "der", "der_sha256"), "CAST(printf('%032d', n) AS BLOB)")
            changing |= {
                "serial": "CAST(printf('%020d', n) AS BLOB)",
                "device": "printf('d-%09d', n)",
                "subject": "printf('CN=d-%09d', n)",
            }
            columns = list(row(0))
            connection.exec_driver_sql("CREATE TEMP TABLE one AS SELECT * FROM certificates LIMIT 1")
            for start in range(few, count, _PART):
                connection.exec_driver_sql(
                    f"INSERT INTO certificates ({', '.join(columns)}) WITH RECURSIVE numbers(n) AS (SELECT {start} UNION ALL SELECT n + 1"
                    f" FROM numbers WHERE n + 1 < {min(start + _PART, count)}) SELECT {', '.join(changing.get(name, name) for name in columns)}"
                    " FROM numbers, one"
                )
                connection.commit()
    engine.dispose()


class Deployment:
    """A deployment whose status process runs."""

    process: subprocess.Popen[Any]

    def __init__(self, settings_file: Path, known: int) -> None:
        self.file, self.known = settings_file, known
        fill(settings_file, known)
        settings = forms.read_settings(settings_file)
        self._check_key = forms.serial_check_key(settings)
        self.listen = settings.status.listen
        self.url = f"http://{self.listen}/ocsp"
        self.issuer = x509.load_pem_x509_certificate(settings.issuer("issuing").certificate.read_bytes())

    def wait(self) -> None:
        """Until it can sign."""
        for _ in range(2400):
            try:
                if not json.loads(get(f"http://{self.listen}/healthz"))["missing"]:
                    return
            except (OSError, http.client.HTTPException, ValueError):
                pass
            time.sleep(0.05)
        raise RuntimeError("the status process does not come up")

    def request(self, number: int, *, nonce: bool = False) -> bytes:
        builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
            hashlib.sha1(self.issuer.subject.public_bytes()).digest(),
            x509.SubjectKeyIdentifier.from_public_key(self.issuer.public_key()).digest,
            serial_of(number, self._check_key),
            hashes.SHA1(),
        )
        if nonce:
            builder = builder.add_extension(x509.OCSPNonce(bytes(range(32))), critical=False)
        return builder.build().public_bytes(Encoding.DER)

    def checker(self, number: int, *, nonce: bool = False) -> Callable[[bytes], None]:
        expected = serial_of(number, self._check_key)

        def check(octets: bytes) -> None:
            told = ocsp.load_der_ocsp_response(octets)
            assert told.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL, told.response_status
            assert (told.serial_number, told.certificate_status) == (expected, ocsp.OCSPCertStatus.GOOD)
            (delegate,) = told.certificates
            delegate.verify_directly_issued_by(self.issuer)
            delegate.public_key().verify(told.signature, told.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))  # type: ignore[union-attr,call-arg,arg-type]
            echoed = [one.value.nonce for one in told.extensions if isinstance(one.value, x509.OCSPNonce)]
            assert echoed == ([bytes(range(32))] if nonce else [])

        return check

    def script(self, numbers: Sequence[int]) -> str:
        """For wrk: these certificates in turn; each is asked about once before, so that its answer is finished."""
        line = http.client.HTTPConnection(self.listen.host, self.listen.port, timeout=20)
        bodies = [self.request(number) for number in numbers]
        for body in bodies:
            line.request("POST", "/ocsp", body, {"Content-Type": KIND})
            assert line.getresponse().read()
        line.close()
        listed = ",".join(f'wrk.format("POST", nil, nil, "{_escaped(body)}")' for body in bodies)
        return (
            f'wrk.headers["Content-Type"] = "{KIND}"\nlocal at = 0\nlocal all = {{}}\n'
            f"init = function() all = {{ {listed} }} end\nrequest = function() at = at % #all + 1 return all[at] end\n"
        )


def first_questions(here: Deployment, numbers: Sequence[int]) -> int:
    line = http.client.HTTPConnection(here.listen.host, here.listen.port, timeout=20)
    for number in numbers:
        # SHA-512 is asked by nobody else here, so no answer is finished.
        builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
            hashlib.sha512(here.issuer.subject.public_bytes()).digest(),
            hashlib.sha512(_key_octets(here.issuer)).digest(),
            serial_of(number, here._check_key),  # noqa: SLF001
            hashes.SHA512(),
        )
        line.request("POST", "/ocsp", builder.build().public_bytes(Encoding.DER), {"Content-Type": KIND})
        here.checker(number)(line.getresponse().read())
    line.close()
    return len(numbers)


def _key_octets(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import PublicFormat

    return certificate.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _escaped(octets: bytes) -> str:
    return "".join(f"\\{octet:03d}" for octet in octets)


def lua(body: bytes) -> str:
    """A script that makes wrk POST a body."""
    return f'wrk.method = "POST"\nwrk.body = "{_escaped(body)}"\nwrk.headers["Content-Type"] = "{KIND}"\n'


def get(url: str) -> bytes:
    return ask(url, None)


def ask(url: str, body: bytes | None) -> bytes:
    """One request, one answer."""
    parts = urlsplit(url)
    line = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    line.request("GET" if body is None else "POST", parts.path, body, {} if body is None else {"Content-Type": KIND})
    answer = line.getresponse()
    octets = answer.read()
    line.close()
    assert answer.status == 200, (url, answer.status)
    return octets


def one_by_one(url: str, body: bytes, seconds: float) -> tuple[int, bytes]:
    """A new connection for each request, one after the other: how many answers, and the last one."""
    parts = urlsplit(url)
    head = f"POST {parts.path} HTTP/1.0\r\nHost: {parts.netloc}\r\nContent-Type: {KIND}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    whole, answers, answer, end = head + body, 0, b"", time.perf_counter() + seconds
    address = (parts.hostname, parts.port)
    while time.perf_counter() < end:
        with socket.socket() as line:
            line.connect(address)
            line.sendall(whole)
            answer = b""
            while part := line.recv(65536):
                answer += part
        assert answer[9:12] == b"200", answer[:200]
        answers += 1
    return answers, answer.partition(b"\r\n\r\n")[2]


@contextmanager
def strangers(url: str, count: int) -> Iterator[None]:
    """So many connections that say nothing, and so many that say half of it."""
    parts = urlsplit(url)
    lines = [socket.create_connection((parts.hostname or "", parts.port or 0)) for _ in range(2 * count)]
    for line in lines[count:]:
        line.sendall(b"POST /ocsp HTTP/1.1\r\nHost: a\r\nContent-Type: application/ocsp-request\r\nContent-Length: 80\r\n\r\n\x30")
    try:
        yield
    finally:
        for line in lines:
            line.close()


class OpensslCa:
    """What `openssl ocsp` needs: a CA, a delegate, an index with one certificate in it."""

    def __init__(self, folder: Path) -> None:
        def run(*command: str | Path) -> None:
            subprocess.run([str(part) for part in ("openssl", *command)], check=True, capture_output=True, cwd=folder)

        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        run("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=bench", "-days", "30")
        (folder / "ocsp.ext").write_text("extendedKeyUsage=OCSPSigning\nkeyUsage=digitalSignature\n")
        for name, extra in (("ocsp", ("-extfile", "ocsp.ext")), ("leaf", ())):
            run("req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
            run(
                "x509",
                "-req",
                "-in",
                f"{name}.csr",
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-days",
                "7",
                "-out",
                f"{name}.pem",
                *extra,
            )
        self.leaf, self.issuer = (x509.load_pem_x509_certificate((folder / name).read_bytes()) for name in ("leaf.pem", "ca.pem"))
        ends = self.leaf.not_valid_after_utc.strftime("%y%m%d%H%M%SZ")
        (folder / "index.txt").write_text(f"V\t{ends}\t\t{self.leaf.serial_number:X}\tunknown\t/CN=leaf\n")
        self.request = ocsp.OCSPRequestBuilder().add_certificate(self.leaf, self.issuer, hashes.SHA1()).build().public_bytes(Encoding.DER)

    def check(self, octets: bytes) -> None:
        told = ocsp.load_der_ocsp_response(octets)
        assert (told.serial_number, told.certificate_status) == (self.leaf.serial_number, ocsp.OCSPCertStatus.GOOD)


class _Record:
    """One certificate, good; nothing ever changes."""

    def status_of(self, issuer: IssuerId, number: Serial) -> tuple[CertificateState, Revocation | None] | None:
        del issuer, number
        return CertificateState.issued, None

    def change_number(self) -> int:
        return 0

    def changes_since(self, change: int, limit: int) -> Sequence[Revocation]:
        del change, limit
        return ()


def fresh_front(count: int) -> tuple[Front, list[bytes], bytes, Any]:
    """A front with one finished answer, `count` requests with different nonces, and what one signature is measured with: octets and key."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from tests.fakes import ocsp as fakes

    private = make_private_key(AlgorithmName("p256"))
    key = MemoryKey(KeyName("bench"), private)
    now = SystemClock().now()
    ca = fakes.authority("bench", not_after=now + 365 * 86400)

    class Certifier:
        def certify(self, issuer: IssuerId, csr: bytes) -> bytes:
            del issuer
            return fakes.delegate(ca, x509.load_der_x509_csr(csr).public_key(), now=now)

    service = ResponderService(
        reading=_Record(), certifier=Certifier(), make_key=lambda: key, issuers=[ca.issuer], policy=POLICY, clock=_Still(now),
    )  # fmt: skip
    service.listen()
    service.renew()
    asked = fakes.certificate_id(ca.issuer, 5 << 150, hash_name="sha1")
    service.reply(Question(method="POST", raw_path="/ocsp", body=fakes.request(asked), content_type=KIND))
    requests = [
        fakes.request(asked, extensions=[fakes.nonce_extension(hashlib.sha256(b"%d" % number).digest())]) for number in range(count)
    ]
    ready = service.front.post(requests[0])
    assert ready is not None
    return service.front, requests, ocsp.load_der_ocsp_response(ready[1]).tbs_response_bytes, private


NOISE = """
import json, socket, sys, time
address, count, seconds = tuple(sys.argv[1:3]), int(sys.argv[3]), float(sys.argv[4])
parts = [
    b"POST /ocsp HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: 40\\r\\n\\r\\n" + b"\\xff" * 40,
    b"GET /ocsp/%%%%%% HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n",
    b"GET /ocsp/" + b"A" * 300 + b" HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n",
    b"POST /ocsp HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: 90\\r\\n\\r\\n" + b"0" * 90,
]
line = socket.create_connection(address)
wrong = sent = 0
end = time.perf_counter() + seconds
while sent < count and time.perf_counter() < end + 60:
    line.sendall(parts[sent % 4])
    answer = line.recv(4096)
    wrong += not answer.startswith(b"HTTP/1.1 200 ") or not answer.endswith(b"0\\x03\\n\\x01\\x01")
    sent += 1
    # Spread over the round, as far as the other side keeps up.
    early = end - seconds + sent * seconds / count - time.perf_counter()
    if early > 0.002:
        time.sleep(early)
print(json.dumps([sent, wrong]))
"""


@contextmanager
def noise(url: str, count: int, seconds: float) -> Iterator[None]:
    """So many malformed requests within so many seconds, from another process; each must get its malformedRequest."""
    parts = urlsplit(url)
    command = [sys.executable, "-c", NOISE, parts.hostname or "", str(parts.port), str(count), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield
    finally:
        told, _ = process.communicate(timeout=120)
    sent, wrong = json.loads(told)
    assert (sent, wrong) == (count, 0), (sent, wrong)


def presigned(here: Deployment, folder: Path, algorithm: str, *, files: Path | None) -> tuple[float, float]:
    """Answers a second of processor time that a presigner makes for all certificates of a deployment, and the octets of one."""
    settings = forms.read_settings(here.file)
    settings = settings.model_copy(update={"ocsp": settings.ocsp.model_copy(update={"key": algorithm})})
    store = open_store(forms.store_url(settings), readonly=True)
    signer = SignerClient(settings.signer.socket, Role.publisher)
    presigner = Presigner(settings, store, signer, spool=folder / "spool", files=files)
    presigner.seats.renew()
    began = time.process_time()
    done = presigner.once(lambda _: None)
    seconds = time.process_time() - began
    assert done.signed >= 2 * here.known and not done.failed, done  # operators have certificates too
    reader = SpoolReader(folder / "spool")
    reader.look()
    service = ResponderService(
        reading=store.reading, certifier=Certifier(signer), make_key=key_maker(settings), issuers=forms.issuers(settings), policy=policy(settings),
        clock=SystemClock(), spool=reader,
    )  # fmt: skip
    service.listen()
    body = b""
    for number in range(5):
        body = service.reply(Question(method="POST", raw_path="/ocsp", body=here.request(number), content_type=KIND)).body
        told = ocsp.load_der_ocsp_response(body)
        assert told.certificate_status is ocsp.OCSPCertStatus.GOOD
        told.certificates[0].verify_directly_issued_by(here.issuer)
    store.close()
    return done.signed / seconds, float(len(body))


def signatures(algorithm: str, count: int) -> float:
    """Signatures a second of processor time."""
    key = MemoryKey(KeyName("bench"), make_private_key(AlgorithmName(algorithm)))
    message = bytes(300)
    began = time.process_time()
    for _ in range(count):
        key.sign(message)
    return count / (time.process_time() - began)


class _Still:
    """A clock that stands: the contest measures no clock."""

    def __init__(self, now: int) -> None:
        self._now = now

    def now(self) -> int:
        return self._now
