"""Durable issuance, beside django-ca's create_cert with its row.

Ours: evidence, CSR check, rule, lint, commit, sign, re-read, commit, leaf; on SQLite with synchronous=FULL. Every certificate is verified here
with cryptography before it counts, and counted in the database.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import measure
import world

from ca.model import IssueRequest, Peer, Role, TokenEvidence

PEER = Peer(Role.enroll, 0)


def inside(here: world.World, csrs: Sequence[bytes], *, callers: int) -> float:
    """Certificates a second inside the signer, asked for by `callers` connections at once."""
    tokens = here.tokens(len(csrs))
    waiting = list(zip(csrs, tokens, strict=True))
    issued: list[bytes] = []

    def caller() -> None:
        while True:
            try:
                csr, token = waiting.pop()
            except IndexError:
                return
            outcome = here.desk.do(here.issuing.prepare(IssueRequest(csr, TokenEvidence(token)), PEER))
            issued.append(outcome.certificate.der)

    threads = [threading.Thread(target=caller) for _ in range(callers)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    here.check(issued, len(csrs))
    return len(csrs) / seconds


def django_ca(worker: measure.Worker, csrs: Sequence[bytes]) -> float:
    answer = worker.ask({"csr": [world.pem_of(csr) for csr in csrs]})
    assert answer["issued"] == len(csrs)
    return float(answer["issued"] / answer["seconds"])


def rows(*, quick: bool, missing: list[str]) -> Iterator[dict[str, Any]]:
    python = measure.rival_python("django-ca")
    if python is None:
        missing.append("django-ca: it cannot be installed here")
        return
    count, rounds = (60, 3) if quick else (1500, 5)
    worker = measure.Worker(python, Path(__file__).parent / "rival_django_ca.py")
    with tempfile.TemporaryDirectory(prefix="fleetca-bench-", dir=measure.JUDGES) as folder, world.opened(Path(folder)) as here:
        pool = iter(world.csrs((count + count // 4) * 2 * (rounds + 1)))

        def take(number: int) -> list[bytes]:
            return [next(pool) for _ in range(number)]

        inside(here, take(count // 4), callers=32)  # both warm up
        django_ca(worker, take(count // 8))
        ours, theirs = measure.interleave(
            rounds, lambda: inside(here, take(count), callers=32), lambda: django_ca(worker, take(count // 4))
        )
        yield measure.row(
            contest="durable issuance inside the signer", rival="django-ca create_cert", ours=ours, theirs=theirs, target=8, better="higher",
            unit="certificates/s",
        )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="fleetca-bench-", dir=measure.JUDGES) as folder, world.served(Path(folder)) as service:
        pool = iter(world.csrs(count * (rounds + 1) * 2))
        over_https = count // 2

        def through() -> float:
            return service.enroll([next(pool) for _ in range(over_https)], connections=8)

        through()
        ours, theirs = measure.interleave(rounds, through, lambda: django_ca(worker, [next(pool) for _ in range(count // 4)]))
        yield measure.row(
            contest="enrolment over HTTPS, keep-alive", rival="django-ca create_cert, in process", ours=ours, theirs=theirs, target=3,
            better="higher", unit="certificates/s",
        )  # fmt: skip
    worker.close()
