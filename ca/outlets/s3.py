"""Published files in S3-compatible object storage, by conditional writes (If-Match, If-None-Match). Ring 3. Needs the extra `aws`."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from ca.errors import Misconfigured
from ca.model import UnixTime
from ca.outlets.handle import Handle
from ca.outlets.remote import PIECE, Refused, RemoteOutlet
from ca.ports import Readable

_ABSENT = frozenset({"404", "NoSuchKey", "NotFound"})
_REFUSED = frozenset({"412", "409", "PreconditionFailed", "ConditionalRequestConflict"})


class S3Outlet(RemoteOutlet):
    """Args:
    prefix: before every name, with its slash.
    client: of boto3; made from the surroundings (`AWS_...`) when absent.
    """

    def __init__(
        self,
        bucket: str,
        *,
        now: Callable[[], UnixTime],
        prefix: str = "",
        endpoint: str | None = None,
        region: str | None = None,
        client: Any = None,
    ) -> None:
        super().__init__(now)
        self._bucket, self._prefix = bucket, prefix
        self._client = client or make_client(endpoint, region)

    def get(self, key: str, take: Callable[[bytes], object]) -> str | None:
        found = self._ask("get_object", Key=self._prefix + key)
        if found is None:
            return None
        with _told("get_object", key), closing(found["Body"]) as body:
            for piece in body.iter_chunks(PIECE):
                take(piece)
        return str(found["ETag"])

    def head(self, key: str) -> str | None:
        found = self._ask("head_object", Key=self._prefix + key)
        return None if found is None else str(found["ETag"])

    def put(self, key: str, source: Readable, *, tag: str | None, kind: str) -> None:
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        # The library goes through it for its checksum, and once more for each try.
        with io.BufferedReader(Handle(source), PIECE) as body:
            self._ask("put_object", Key=self._prefix + key, Body=body, ContentType=kind, CacheControl="max-age=30", **condition)

    def _ask(self, verb: str, **asked: Any) -> Any:
        from botocore.exceptions import ClientError  # noqa: PLC0415 - an extra

        try:
            with _told(verb, str(asked["Key"])):
                return getattr(self._client, verb)(Bucket=self._bucket, **asked)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _ABSENT:
                if verb == "put_object":
                    raise Refused(str(asked["Key"])) from None
                return None
            if code in _REFUSED:
                raise Refused(str(asked["Key"])) from None
            raise OSError(f"{verb} {asked['Key']}: {code}") from None


@contextmanager
def _told(verb: str, key: str) -> Iterator[None]:
    """The library's failures as the system's."""
    from botocore.exceptions import BotoCoreError, HTTPClientError  # noqa: PLC0415 - an extra

    try:
        yield
    except (BotoCoreError, HTTPClientError) as error:
        raise OSError(f"{verb} {key}: {error}") from None


def make_client(endpoint: str | None, region: str | None) -> Any:
    """A client of boto3 for S3, made from the surroundings (`AWS_...`).

    Raises:
        Misconfigured: the extra `aws` is not installed (`extra-missing`).
    """
    try:
        import boto3  # noqa: PLC0415 - an extra
        from botocore.config import Config  # noqa: PLC0415
    except ImportError as error:
        raise Misconfigured(
            "extra-missing", "Object storage needs the extra `aws`.", why=str(error), fix="pip install 'fleetca[aws]'"
        ) from None
    return boto3.client(
        "s3", endpoint_url=endpoint, region_name=region, config=Config(retries={"max_attempts": 2}, connect_timeout=5, read_timeout=30)
    )
