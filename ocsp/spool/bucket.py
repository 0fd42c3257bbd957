"""Finished answers as objects under the exact paths of GET requests, in S3-compatible storage behind a CDN. Ring 3.

Each object carries the headers that it is served with; `Expires` is its nextUpdate, so whoever sweeps needs nothing but the bucket. Many are put at the
same time, and `flush` says when they are all there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import Any, Final

from ca.errors import StoreUnavailable
from ca.model import UnixTime
from ocsp.model import Window
from ocsp.rules.http import RESPONSE_TYPE, file_path, http_date

AT_ONCE: Final = 32
"""Requests to the storage under way."""
_WAITING: Final = 2000
"""Answers handed over and not yet there; with more, `put` waits."""


class AnswerBucket:
    """A bucket of answers; one writes, anybody reads.

    Args:
        client: of boto3, for S3. Safe for several threads.
        prefix: before every path, with its slash.
        max_age: seconds that caches may keep an answer.
        clock: caches are never told to keep one past its nextUpdate.
    """

    def __init__(self, client: Any, bucket: str, *, prefix: str = "", max_age: int, now: Callable[[], UnixTime]) -> None:
        self._client, self._bucket, self._prefix = client, bucket, prefix
        self._max_age, self._now = max_age, now
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="ocsp-bucket")
        self._under_way: list[Future[Any]] = []

    def put(self, certificate_id: bytes, body: bytes, window: Window) -> bool:
        """Have an answer kept in place of an older one. False where its path cannot be that of a file.

        Raises:
            StoreUnavailable: as `flush`; of one that was handed over before.
        """
        path = file_path(certificate_id)
        if path is None:
            return False
        if len(self._under_way) >= _WAITING:
            self.flush()
        age = max(0, min(self._max_age, window.next_update - self._now() - 1))
        self._under_way.append(
            self._pool.submit(
                self._client.put_object,
                Bucket=self._bucket,
                Key=self._prefix + path,
                Body=body,
                ContentType=RESPONSE_TYPE,
                CacheControl=f"max-age={age}, public, no-transform, must-revalidate",
                Expires=http_date(window.next_update),
            )
        )
        return True

    def flush(self) -> None:
        """Return when all that was handed over is there.

        Raises:
            StoreUnavailable: some of it is not (`answers-unwritable`); which, is not said.
        """
        under_way, self._under_way = self._under_way, []
        failed = [error for error in (one.exception() for one in under_way) if error is not None]
        if failed:
            raise _unwritable(self._bucket, failed[0])


def sweep(client: Any, bucket: str, *, prefix: str = "", now: UnixTime, ahead: int = 0, young: int = 0) -> int:
    """Remove every answer whose nextUpdate has come; how many those were. One small request for each object that is not young.

    Args:
        ahead: seconds before nextUpdate at which an answer goes: as long as caches are told to keep it.
        young: an object that was put less than so many seconds ago is not asked when it ends: the listing says when that was. Where answers hold longer,
            and are made anew before, nearly none are asked. One that its issuer's or responder's end cut short goes that much later at most.

    Raises:
        StoreUnavailable: the bucket cannot be read or written.
    """

    def gone(key: str) -> bool:
        ends = client.head_object(Bucket=bucket, Key=key).get("ExpiresString")
        if ends is None or now < parsedate_to_datetime(ends).timestamp() - ahead:
            return False
        client.delete_object(Bucket=bucket, Key=key)
        return True

    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            return sum(pool.map(gone, _keys(client, bucket, prefix, now=now, young=young)))
        except Exception as error:  # noqa: BLE001  boto's errors share no base that is known without it
            raise _unwritable(bucket, error) from None


def _keys(client: Any, bucket: str, prefix: str, *, now: UnixTime, young: int) -> Iterator[str]:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for one in page.get("Contents", ()):
            # One from the future of a clock that was set back is no younger than others.
            if not 0 <= now - one["LastModified"].timestamp() < young:
                yield str(one["Key"])


def _unwritable(bucket: str, error: BaseException) -> StoreUnavailable:
    return StoreUnavailable(
        "answers-unwritable", f"The bucket of answers {bucket} cannot be written.", why=f"{error}.", fix="Check the bucket and the way there.",
        retry_after=5,
    )  # fmt: skip
