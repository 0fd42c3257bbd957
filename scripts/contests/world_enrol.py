"""Renewal over EST: a fleet's devices with their certificates, beside a rival and beside the least that a renewal can cost.

Everything is a whole deployment on loopback, TLS 1.3, durable; each renewal has a new key and its answer is verified. The load comes from one
process on the same machine, which takes its part of the cores. Processor time is that of all processes of ours together, as the kernel counts it.
"""

from __future__ import annotations

import base64
import os
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import measure
import world
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, pkcs7

from ca import issue
from ca.model import IssueRequest, Peer, PresentedCertificate, Role, TokenEvidence
from fleetca.server import tls_context

CONNECTIONS = 64
"""As many as the web process has to the signer."""
BATCH = 64
"""Renewals that share a commit under load: the signer's own batch."""
PEER = Peer(Role.enroll, 0)
_TICK = os.sysconf("SC_CLK_TCK")


# ---- A served deployment and its devices ----------------------------------------------------------------------------


class Fleet:
    """Devices of a served deployment: certificate and key of each as files."""

    def __init__(self, service: world.Service, folder: Path, count: int) -> None:
        self.service, self.pairs, self.spent = service, list[list[str]](), 0.0
        keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(count)]
        service.enroll([_csr(key) for key in keys], connections=8)
        issued = {_spki(one.public_key()): one for one in service.issued}
        for at, key in enumerate(keys):
            files = folder / f"{at}.pem", folder / f"{at}.key"
            files[0].write_bytes(issued[_spki(key.public_key())].public_bytes(Encoding.PEM))
            files[1].write_bytes(_pem(key))
            self.pairs.append([str(file) for file in files])

    def renew(self, csrs: Sequence[bytes], *, connections: int, stay: bool) -> float:
        """Renewals a second; who does not stay makes a connection for each, with a whole handshake. `spent`: what one cost, in microseconds."""
        settings = self.service.settings
        work = [base64.encodebytes(csr).decode() for csr in csrs]
        before = _processor_time()
        answer = world.elsewhere(
            "renew", settings.enroll.url, str(settings.issuer("root").certificate), self.pairs[:connections], work, stay
        )
        self.spent = (_processor_time() - before) / len(csrs) * 1e6
        serials = set()
        for text in answer["answers"]:
            (found,) = pkcs7.load_der_pkcs7_certificates(base64.b64decode(text))
            found.verify_directly_issued_by(self.service.issuer)
            serials.add(found.serial_number)
        assert len(serials) == len(csrs)
        return float(len(csrs) / answer["seconds"])

    def cost(self, csrs: Sequence[bytes]) -> float:
        """Microseconds of processor time for one renewal on a connection of its own."""
        self.renew(csrs, connections=CONNECTIONS, stay=False)
        return self.spent


def _processor_time() -> float:
    """Seconds that the processes below this one have had, those aside that have ended: the load's is one of these."""
    below: dict[int, list[int]] = {}
    used: dict[int, float] = {}
    for folder in Path("/proc").iterdir():
        try:
            fields = (folder / "stat").read_text().rpartition(") ")[2].split() if folder.name.isdigit() else []
        except OSError:
            continue
        if fields:
            below.setdefault(int(fields[1]), []).append(int(folder.name))
            used[int(folder.name)] = sum(map(int, fields[11:13])) / _TICK
    found, waiting = 0.0, [os.getpid()]
    while waiting:
        children = below.get(waiting.pop(), [])
        found += sum(used[child] for child in children)
        waiting += children
    return found


# ---- The parts of a renewal -----------------------------------------------------------------------------------------


class Parts:
    """The signer's own code on batches of renewals in this process: microseconds for one renewal."""

    def __init__(self, here: world.World, folder: Path) -> None:
        self._here = here
        tokens = here.tokens.make(BATCH)
        asked = [(IssueRequest(csr, TokenEvidence(token)), PEER) for csr, token in zip(world.csrs(BATCH), tokens, strict=True)]
        self._holders = here.check([_der(one) for one in here.issuing.issue(asked)], BATCH)
        self._server, self._client = _contexts(folder)
        self._key = ec.generate_private_key(ec.SECP256R1())

    def batch(self) -> dict[str, float]:
        """`handshake`; `der`: reading, drafting, linting and re-reading without signatures; `commit`, the wait for its fsync included; and `least`."""
        asked = [
            (IssueRequest(csr, PresentedCertificate(holder)), PEER) for csr, holder in zip(world.csrs(BATCH), self._holders, strict=True)
        ]
        spent: dict[str, float] = {}
        with ExitStack() as timing:
            for name in ("read_csr", "draft", "lint", "_reread"):
                timing.enter_context(patch.object(issue, name, _timed(getattr(issue, name), spent, name)))
            timing.enter_context(patch.object(self._here.issuing, "_ledger", _TimedLedger(self._here.issuing._ledger, spent)))  # noqa: SLF001
            done = self._here.issuing.issue(asked)
        self._here.check([_der(one) for one in done], BATCH)
        found = {name: seconds / BATCH * 1e6 for name, seconds in spent.items()}
        octets = bytes(600)
        signature = self._key.sign(octets, ec.ECDSA(hashes.SHA256()))
        public = self._key.public_key()
        sign = _usual(lambda: self._key.sign(octets, ec.ECDSA(hashes.SHA256())))
        verify = _usual(lambda: public.verify(signature, octets, ec.ECDSA(hashes.SHA256())))
        handshake = _usual(lambda: None, lambda: _handshake(self._server, self._client))
        der = found["read_csr"] + found["draft"] + found["lint"] + found["_reread"] - 2 * verify
        return {"handshake": handshake, "der": der, "commit": found["commit"], "least": handshake + verify + sign}


class _TimedLedger:
    """A ledger that tells how long its commits take, all that has been queued up to then included."""

    def __init__(self, ledger: Any, spent: dict[str, float]) -> None:
        self._ledger, self._spent = ledger, spent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    @contextmanager
    def writing(self) -> Iterator[Any]:
        began = None
        try:
            with self._ledger.writing() as tx:
                yield tx
                began = time.perf_counter()
        finally:
            if began is not None:
                self._spent["commit"] = self._spent.get("commit", 0.0) + time.perf_counter() - began


def _timed(work: Callable[..., Any], spent: dict[str, float], name: str) -> Callable[..., Any]:
    def timed(*given: Any, **named: Any) -> Any:
        began = time.thread_time()
        try:
            return work(*given, **named)
        finally:
            spent[name] = spent.get(name, 0.0) + time.thread_time() - began

    return timed


def _usual(work: Callable[[], object], told: Callable[[], float] | None = None) -> float:
    """Microseconds of processor time, the median of many: what it is set beside is a mean, of good moments and bad ones."""
    found = []
    for _ in range(80):
        began = time.thread_time()
        work()
        found.append(told() if told is not None else time.thread_time() - began)
    return median(found) * 1e6


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> float:
    """Seconds of processor time of the server's side of one handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server)
    seconds = 0.0
    open_ends = {ours, theirs}
    while open_ends:
        for end in (theirs, ours):
            began = time.thread_time()
            try:
                end.do_handshake()
                open_ends.discard(end)
            except ssl.SSLWantReadError:
                pass
            if end is ours:
                seconds += time.thread_time() - began
    assert ours.version() == "TLSv1.3"
    assert ours.getpeercert(binary_form=True)
    return seconds


def _contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Server and client as a deployment has them: the server shows its certificate and the issuing CA's, the client its own alone.

    Where OpenSSL has to build its chain itself, for want of one, a handshake costs a third more.
    """
    names = {word: x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, word)]) for word in ("root", "issuing", "end")}
    keys = {word: ec.generate_private_key(ec.SECP256R1()) for word in names}
    now = datetime.now(UTC)

    def made(subject: str, issuer: str) -> bytes:
        key, by, ca = keys[subject].public_key(), keys[issuer], subject != "end"
        builder = x509.CertificateBuilder().subject_name(names[subject]).issuer_name(names[issuer]).public_key(key)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(minutes=5))
        builder = builder.not_valid_after(now + timedelta(days=1)).add_extension(
            x509.BasicConstraints(ca=ca, path_length=None), critical=True
        )
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
        usage = x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)
        builder = builder.add_extension(usage, critical=True)
        return builder.sign(by, hashes.SHA256()).public_bytes(Encoding.PEM)

    root, issuing, end = made("root", "root"), made("issuing", "root"), made("end", "issuing")
    server, client = tls_context(trusted=[root, issuing]), ssl.create_default_context(cadata=root.decode())
    client.check_hostname = False
    for context, chain in ((server, end + issuing), (client, end)):
        pair = folder / "handshake.pem"
        pair.write_bytes(_pem(keys["end"]) + chain)
        context.load_cert_chain(pair)
    return server, client


def _csr(key: ec.EllipticCurvePrivateKey) -> bytes:
    return x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _spki(key: Any) -> bytes:
    octets: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return octets


def _der(outcome: Any) -> bytes:
    if isinstance(outcome, Exception):
        raise outcome
    octets: bytes = outcome.certificate.der
    return octets


# ---- Rows -----------------------------------------------------------------------------------------------------------


def rows(*, quick: bool, missing: list[str], scratch: Callable[[], Any]) -> Iterator[dict[str, Any]]:
    python = measure.rival_python("django-ca")
    rounds, count, alone = (3, 64, 32) if quick else (7, 1536, 1024)
    with scratch() as folder, world.served(folder) as service:
        fleet = Fleet(service, folder, CONNECTIONS)
        renewals = lambda: fleet.renew(list(world.csrs(count)), connections=CONNECTIONS, stay=True)  # noqa: E731
        renewals()
        if python is None:
            missing.append("django-ca: it cannot be installed here")
        else:
            rival = measure.Worker(python, Path(__file__).parent / "rival_django_ca.py")
            share = lambda: _django_ca(rival, count // 4)  # noqa: E731
            share()
            ours, theirs = measure.interleave(rounds, renewals, share)
            rival.close()
            yield measure.row(
                contest=f"EST renewal over TLS 1.3 with client certificates, keep-alive, {CONNECTIONS} connections",
                rival="django-ca create_cert, in process", ours=ours, theirs=theirs, target=5, better="higher", unit="certificates/s",
            )  # fmt: skip
        with scratch() as other, world.opened(other) as here:
            parts, batches = Parts(here, other), list[dict[str, float]]()

            def least() -> float:
                batches.append(parts.batch())
                return batches[-1]["least"]

            least()
            batches.clear()
            fleet.cost(list(world.csrs(alone)))
            whole, fewest = measure.interleave(rounds, lambda: fleet.cost(list(world.csrs(alone))), least)
    yield measure.row(
        contest=f"EST renewal on a connection of its own, {CONNECTIONS} at once: processor time of the service", rival="CSR verify + sign + handshake",
        ours=whole, theirs=fewest, target=3, better="lower", unit="us",
    )  # fmt: skip
    for part, words in (
        ("handshake", "TLS: the handshake's share"),
        ("der", "DER: the share of reading, drafting, linting, re-reading"),
        ("commit", f"commit: the share of what {BATCH} renewals share, fsync included"),
    ):
        yield measure.row(
            contest=words,
            rival="the whole renewal",
            ours=[batch[part] for batch in batches],
            theirs=whole,
            target=1,
            better="lower",
            unit="us",
        )


def _django_ca(rival: measure.Worker, count: int) -> float:
    answer = rival.ask({"csr": [world.pem_of(csr) for csr in world.csrs(count)]})
    assert answer["issued"] == count
    return float(answer["issued"] / answer["seconds"])
