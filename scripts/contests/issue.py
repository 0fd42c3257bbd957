"""Durable issuance, beside django-ca's create_cert with its row.

Ours: evidence, CSR check, rule, lint, commit, sign, re-read, commit, leaf; on SQLite with synchronous=FULL. Every certificate is verified here
with cryptography before it counts. Then one revocation where many are revoked already, and what it does to OCSP.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import measure
import world

from ca.model import IssueRequest, Peer, Role, TokenEvidence

PEER = Peer(Role.enroll, 0)
CALLERS = 256
"""Four full batches: one of which the CSRs are read, one that is decided, one that is signed, one that is re-read. With fewer, somebody waits."""
CONNECTIONS = 64
"""As many as the web process has to the signer, and as share one of its commits."""


def inside(here: world.World, csrs: Sequence[bytes], *, callers: int) -> float:
    """Certificates a second inside the signer, with `callers` requests under way at once: who gets an answer asks again."""
    waiting = list(zip(csrs, here.tokens.make(len(csrs)), strict=True))
    outcomes: list[Any] = []
    done = threading.Event()

    def ask() -> None:
        csr, token = waiting.pop()
        here.desk.submit(here.issuing.prepare(IssueRequest(csr, TokenEvidence(token)), PEER), answered)

    def answered(outcome: Any) -> None:
        outcomes.append(outcome)
        if waiting:
            ask()
        elif len(outcomes) == len(csrs):
            done.set()

    began = time.perf_counter()
    for _ in range(min(callers, len(csrs))):
        ask()
    done.wait()
    seconds = time.perf_counter() - began
    here.check([outcome.certificate.der for outcome in outcomes], len(csrs))
    return len(csrs) / seconds


def django_ca(worker: measure.Worker, csrs: Sequence[bytes]) -> float:
    answer = worker.ask({"csr": [world.pem_of(csr) for csr in csrs]})
    assert answer["issued"] == len(csrs)
    return float(answer["issued"] / answer["seconds"])


def revoke_one(here: world.World) -> float:
    """Milliseconds of processor time that one revocation takes in the signer, all its threads counted."""
    ref = here.issue()
    threading.Event().wait(0.2)  # what issuing left to be done later is not part of it
    began = time.process_time()
    here.revoke(ref)
    return (time.process_time() - began) * 1000


def rows(*, quick: bool, missing: list[str]) -> Iterator[dict[str, Any]]:
    python = measure.rival_python("django-ca")
    if python is None:
        missing.append("django-ca: it cannot be installed here")
    else:
        worker = measure.Worker(python, Path(__file__).parent / "rival_django_ca.py")
        yield from beside_django_ca(worker, quick=quick)
        worker.close()
    yield from beside_many_revoked(quick=quick)


def beside_django_ca(worker: measure.Worker, *, quick: bool) -> Iterator[dict[str, Any]]:
    count, rounds = (48, 3) if quick else (1536, 7)
    pool = world.csrs(count * 4 * (rounds + 2))

    def take(number: int) -> list[bytes]:
        return [next(pool) for _ in range(number)]

    with scratch() as folder, world.opened(folder) as here:
        inside(here, take(count // 4), callers=CALLERS)  # both warm up
        django_ca(worker, take(count // 8))
        ours, theirs = measure.interleave(
            rounds, lambda: inside(here, take(count), callers=CALLERS), lambda: django_ca(worker, take(count // 4))
        )
        yield measure.row(
            contest=f"durable issuance inside the signer, {CALLERS} callers", rival="django-ca create_cert", ours=ours, theirs=theirs, target=8,
            better="higher", unit="certificates/s",
        )  # fmt: skip
    with scratch() as folder, world.served(folder) as service:

        def through() -> float:
            return service.enroll(take(count // 2), connections=CONNECTIONS)

        through()
        ours, theirs = measure.interleave(rounds, through, lambda: django_ca(worker, take(count // 4)))
        yield measure.row(
            contest=f"enrolment over HTTPS, keep-alive, {CONNECTIONS} connections", rival="django-ca create_cert, in process", ours=ours,
            theirs=theirs, target=3, better="higher", unit="certificates/s",
        )  # fmt: skip


def beside_many_revoked(*, quick: bool) -> Iterator[dict[str, Any]]:
    revoked, rounds, seconds = (2_000, 3, 0.4) if quick else (100_000, 5, 9.0)
    with scratch() as folder, world.opened(folder, revoked=revoked) as here:
        revoke_one(here)
        ours = [revoke_one(here) for _ in range(rounds)]
        yield measure.row(
            contest=f"one revocation beside {revoked} revoked, processor time", rival="limit of 50 ms", ours=ours, theirs=[50.0] * rounds, target=1,
            better="lower", unit="ms",
        )  # fmt: skip
    with scratch() as folder, world.served(folder, revoked=revoked) as service:
        service.enroll(list(world.csrs(rounds + 2)), connections=2)
        asked, *others = service.issued

        def answers() -> float:
            return service.ask_status(asked, seconds=seconds, connections=CONNECTIONS)

        def beside() -> float:
            # Early, so that the CRL which it nudges (5 s later) is paid for here and not by the next round without.
            revoking = threading.Timer(seconds / 10, service.revoke, (others.pop(),))
            revoking.start()
            found = answers()
            revoking.join()
            return found

        answers()  # by now the first CRL, with all of them, is published
        ours, theirs = measure.interleave(rounds, beside, answers)
        yield measure.row(
            contest=f"OCSP beside a revocation with {revoked} revoked", rival="the same without a revocation", ours=ours, theirs=theirs, target=0.9,
            better="higher", unit="answers/s",
        )  # fmt: skip


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder on the disk of the repository, where the rival's database is too."""
    with tempfile.TemporaryDirectory(prefix="fleetca-bench-", dir=measure.JUDGES) as name:
        yield Path(name)
