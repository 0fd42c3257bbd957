"""Answers signed ahead, put together: what the publisher runs beside its CRLs, and `fleetca ocsp presign` by itself. Holds no rule."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from ca.errors import FleetcaError, KeyUnavailable
from ca.keys.memory import MemoryKey
from ca.model import AlgorithmName, DeviceId, IssueRequest, IssuerId, KeyName, ProfileName
from ca.outlets.s3 import make_client
from ca.rules import serial
from ca.signer.client import SignerClient
from ca.store.engine import Store
from ca.system import SystemClock
from config.settings import Settings
from fleetca import forms
from fleetca.process import settle
from ocsp import model
from ocsp.ports import Answers, ResponderKey
from ocsp.presign import Presigning, Progress
from ocsp.rules.issuers import ALL_FORMS, FORMS
from ocsp.seats import Seats
from ocsp.spool.bucket import AnswerBucket
from ocsp.spool.bucket import sweep as sweep_bucket
from ocsp.spool.folder import AnswerFolder, sweep
from ocsp.spool.packed import SpoolWriter

log = structlog.get_logger()

RESPONDER = ProfileName("ocsp-responder")
DEVICE = DeviceId("fleetca:ocsp")
WALKS = 16
"""Walks over all certificates in the lifetime of an answer: what is due is signed within a sixteenth of it."""
SHORTEST_WALK = 10
"""Seconds."""
STORAGE_SKEW = 900
"""Seconds by which the clock of object storage may differ from ours: beyond that S3 refuses requests."""


class Certifier:
    """Gets a process its responder certificates from the signer, which knows it by its socket."""

    def __init__(self, signer: SignerClient) -> None:
        self._signer = signer

    def certify(self, issuer: IssuerId, csr: bytes) -> bytes:
        issued = self._signer.issue(IssueRequest(csr=csr, evidence=self._signer.local, device=DEVICE, profile=RESPONDER, issuer=issuer))
        assert issued.certificate.der is not None, "an issued certificate has its octets"
        return issued.certificate.der


def key_maker(settings: Settings) -> Callable[[], ResponderKey]:
    """Makes responder keys, in memory only."""
    algorithm = AlgorithmName(settings.ocsp.key)
    return lambda: MemoryKey.generate(KeyName("responder"), algorithm)


def responder_keys(settings: Settings) -> Callable[[], ResponderKey]:
    """What a presigner signs with: the one key where the settings name one, made in its store when it is not there yet; otherwise keys in memory.

    Raises:
        KeyUnavailable: it cannot be opened.
    """
    reference = settings.ocsp.responder_key
    if reference is None:
        return key_maker(settings)
    keys, name = forms.key_store(reference, settings.ocsp.responder_passphrase)
    try:
        key = keys.open(name)
    except KeyUnavailable as error:
        if error.code != "no-such-key":
            raise
        key = keys.generate(name, AlgorithmName(settings.ocsp.key))
        log.info("responder-key-made", key=reference.text.partition("?")[0])
    return lambda: key


def policy(settings: Settings) -> model.Policy:
    """What the settings lay down for OCSP answers."""
    keyless = settings.ocsp.responder_key is not None  # nobody could sign `unknown` (RFC 9919 3.2.3)
    return model.Policy(
        lifetime=settings.ocsp.lifetime,
        max_age=settings.ocsp.max_age,
        unissued=model.Unissued.unauthorized if keyless else model.Unissued(settings.ocsp.unknown),
        unissued_of={}
        if keyless
        else {IssuerId(one.id): model.Unissued(one.unknown) for one in settings.issuers if one.unknown is not None},
        archive=settings.ocsp.archive,
        compromised={IssuerId(one.id): int(one.compromised.timestamp()) for one in settings.issuers if one.compromised is not None},
    )


def serial_check(settings: Settings) -> model.SerialCheck:
    """What tells serial numbers of this deployment from others.

    Raises:
        KeyUnavailable: its key is missing or malformed.
    """
    key = forms.serial_check_key(settings)
    return model.SerialCheck(lambda number: serial.is_ours(number, key), serial.mark(key))


def _serial_check(settings: Settings) -> model.SerialCheck | None:
    """Signing ahead goes on without it."""
    try:
        return serial_check(settings)
    except KeyUnavailable as error:
        log.warning("serial-check-unknown", reason=str(error), fix=error.fix)
        return None


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where answers lie as objects."""

    client: Any
    name: str
    prefix: str


def bucket_of(url: str, *, endpoint: str | None, region: str | None) -> Bucket:
    """The bucket of `s3://BUCKET/PREFIX`.

    Raises:
        Misconfigured: the extra `aws` is not installed (`extra-missing`).
    """
    name, _, prefix = url.removeprefix("s3://").partition("/")
    return Bucket(make_client(endpoint, region), name, f"{prefix.rstrip('/')}/" if prefix else "")


class Presigner:
    """The presigner of one process.

    Args:
        spool, files: instead of those that the settings name.

    Raises (when made):
        Conflict: another process writes the spool.
        StoreUnavailable: the spool cannot be written.
    """

    def __init__(
        self, settings: Settings, store: Store, signer: SignerClient, *, spool: Path | None = None, files: Path | None = None
    ) -> None:
        clock = SystemClock()
        alone = settings.ocsp.responder_key is not None
        answered = [issuer for issuer in forms.at_work(settings, store.reading.issuers) if issuer.key is not None]
        self._spool = SpoolWriter(spool or settings.ocsp.spool)
        self._files = files or settings.ocsp.files
        self._bucket: Bucket | None = None
        self._sweep_at = 0.0
        self._clock, self._policy = clock, policy(settings)
        self.seats = Seats(issuers=answered, certifier=Certifier(signer), make_key=responder_keys(settings), clock=clock, one_key=alone)
        self.presigning = Presigning(
            roll=store.reading,
            spool=self._spool,
            files=self._answers(settings),
            seats=self.seats,
            issuers=answered,
            policy=self._policy,
            clock=clock,
            check=_serial_check(settings),
            forms=ALL_FORMS if alone else FORMS,
        )

    def _answers(self, settings: Settings) -> Answers | None:
        if self._files is not None:
            return AnswerFolder(self._files)
        if settings.ocsp.bucket is None:
            return None
        self._bucket = bucket_of(settings.ocsp.bucket, endpoint=settings.ocsp.bucket_endpoint, region=settings.ocsp.bucket_region)
        return AnswerBucket(
            self._bucket.client, self._bucket.name, prefix=self._bucket.prefix, max_age=settings.ocsp.max_age, now=self._clock.now
        )

    def once(self, also: Callable[[Progress], object]) -> Progress:
        """Sign what is due now, and end.

        Raises:
            Unavailable: database, signer or disk.
        """
        settle()
        self.seats.renew()
        self.presigning.follow()
        return self.presigning.walk(also=also)

    def run(self, stopping: threading.Event) -> None:
        """Follow changes every second, go through all certificates again and again, and sweep files; until told to stop. Never raises."""
        settle()
        progress = Progress(done=True)
        next_walk = self._clock.monotonic()
        trouble = ""
        while True:
            try:
                self.seats.renew()
                self.presigning.follow()
                if progress.done and self._clock.monotonic() >= next_walk:
                    progress = Progress()
                    next_walk = self._clock.monotonic() + max(SHORTEST_WALK, self._policy.lifetime // WALKS)
                # Follow between pages too, so that a revocation never waits for a walk.
                while not progress.done and not stopping.is_set():
                    progress = self.presigning.page(progress)
                    self.presigning.follow()
                    if progress.done:
                        self._walked(progress)
                self.presigning.welcome()
                self._spool.tell_counts()
                trouble = ""
            except FleetcaError as error:
                if error.code != trouble:  # said once, not every second
                    log.error("presign-failed", code=error.code, reason=str(error), fix=error.fix)
                trouble = error.code
            except Exception:  # a thread that ends unnoticed would leave answers to end one by one
                log.exception("presign-broken")
            if stopping.wait(1.0):
                self._spool.close()
                return

    def _walked(self, progress: Progress) -> None:
        self._spool.keep(self._clock.now())
        if self._files is not None and self._files.exists():
            sweep(self._files, now=self._clock.now(), ahead=self._policy.max_age)
        if self._bucket is not None and self._clock.monotonic() >= self._sweep_at:
            self._sweep_at = self._clock.monotonic() + self._policy.lifetime // 2
            self._sweep_bucket(self._bucket)
        if progress.signed or progress.failed:
            log.info("presigned", certificates=progress.seen, signed=progress.signed, failed=progress.failed)

    def _sweep_bucket(self, bucket: Bucket) -> None:
        """Answers are made anew at half of their lifetime, so all that hold are young."""
        young = max(0, self._policy.lifetime - self._policy.backdate - self._policy.max_age - STORAGE_SKEW)
        sweep_bucket(bucket.client, bucket.name, prefix=bucket.prefix, now=self._clock.now(), ahead=self._policy.max_age, young=young)
