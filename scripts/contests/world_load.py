"""The client side of contests, in a process of its own that imports little: asyncio, one request at a time on each connection.

No streams and no tasks: a connection sends its next request from the callback that brought the last answer, so that what is measured is mostly
the other side.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import uvloop

_LENGTH = b"\r\ncontent-length: "
Next = Callable[[int, bytes], "bytes | None"]
"""Gets status and body of an answer (0 and nothing before the first), and returns the body of the next request, or None for no more."""


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection that stays open."""

    def __init__(self, head: bytes, following: Next) -> None:
        self._head, self._following = head, following
        self._transport: Any = None
        self._come = b""
        self._wanted = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def begin(self) -> None:
        self._go_on(0, b"")

    def _go_on(self, status: int, answer: bytes) -> None:
        body = self._following(status, answer)
        if body is None:
            self.done.set_result(None)
        else:
            self._transport.write(b"%s%d\r\n\r\n%s" % (self._head, len(body), body))

    def data_received(self, data: bytes) -> None:
        self._come = self._come + data if self._come else data
        if len(self._come) < self._wanted:
            return
        ends = self._come.find(b"\r\n\r\n")
        if ends < 0:
            return
        at = self._come.lower().index(_LENGTH, 0, ends + 2) + len(_LENGTH)
        self._wanted = ends + 4 + int(self._come[at : self._come.index(b"\r", at)])
        if len(self._come) < self._wanted:
            return
        status, body = int(self._come[9:12]), self._come[ends + 4 : self._wanted]
        self._come, self._wanted = b"", 0
        try:
            self._go_on(status, body)
        except Exception as error:  # noqa: BLE001 - whoever waits for the end hears of it
            self.done.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server hung up"))

    def close(self) -> None:
        self._transport.close()


async def _together(
    connections: int, url: str, path: str, *, kind: str, context: ssl.SSLContext | None, following: Next
) -> tuple[float, float]:
    """Seconds that all connections took until there was nothing more to send, and processor time of ours; opening them does not count."""
    parts = urlsplit(url)
    head = f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: {kind}\r\nContent-Length: ".encode()
    loop = asyncio.get_running_loop()
    opened = [
        (await loop.create_connection(lambda: Connection(head, following), parts.hostname, parts.port, ssl=context))[1]
        for _ in range(connections)
    ]
    began, spent = time.perf_counter(), time.process_time()
    for one in opened:
        one.begin()
    await asyncio.gather(*(one.done for one in opened))
    seconds, spent = time.perf_counter() - began, time.process_time() - spent
    for one in opened:
        one.close()
    return seconds, spent


def enrol(url: str, root: str, connections: int, work: list[dict[str, Any]]) -> dict[str, Any]:
    bodies = [json.dumps(item).encode() for item in work]
    answers: list[bytes] = []

    def following(status: int, answer: bytes) -> bytes | None:
        if status:
            assert status == 201, answer
            answers.append(answer)
        return bodies.pop() if bodies else None

    context = ssl.create_default_context(cafile=root)
    seconds, spent = uvloop.run(_together(connections, url, "/v1/enroll", kind="application/json", context=context, following=following))
    return {"seconds": seconds, "processor": spent, "certificates": [json.loads(answer)["certificate"] for answer in answers]}


async def _renewals(url: str, contexts: list[ssl.SSLContext], bodies: list[bytes], *, stay: bool) -> tuple[float, list[bytes]]:
    """Each device renews, one after the other, until there is nothing more to ask; those who stay keep their connection."""
    parts = urlsplit(url)
    head = f"POST /.well-known/est/simplereenroll HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/pkcs10\r\nContent-Length: ".encode()
    loop = asyncio.get_running_loop()
    answers: list[bytes] = []

    async def opened(context: ssl.SSLContext, most: int) -> Connection:
        left = most

        def following(status: int, answer: bytes) -> bytes | None:
            nonlocal left
            if status:
                assert status == 200, answer
                answers.append(answer)
            left -= 1
            return bodies.pop() if bodies and left >= 0 else None

        return (await loop.create_connection(lambda: Connection(head, following), parts.hostname, parts.port, ssl=context))[1]

    async def device(context: ssl.SSLContext) -> None:
        while bodies:
            one = await opened(context, 1)
            one.begin()
            await one.done
            one.close()

    lines = [await opened(context, len(bodies)) for context in contexts] if stay else []
    began = time.perf_counter()
    for line in lines:
        line.begin()
    await asyncio.gather(*((line.done for line in lines) if stay else (device(context) for context in contexts)))
    seconds = time.perf_counter() - began
    for line in lines:
        line.close()
    return seconds, answers


def renew(url: str, root: str, pairs: list[list[str]], work: list[str], stay: bool) -> dict[str, Any]:  # noqa: FBT001 - it comes from JSON
    contexts = []
    for certificate, key in pairs:
        context = ssl.create_default_context(cafile=root)
        context.load_cert_chain(certificate, key)
        contexts.append(context)
    seconds, answers = uvloop.run(_renewals(url, contexts, [item.encode() for item in work], stay=stay))
    return {"seconds": seconds, "answers": [answer.decode() for answer in answers]}


def ask_status(url: str, question: str, seconds: float, connections: int) -> dict[str, Any]:
    body = base64.b64decode(question)
    bodies: set[bytes] = set()
    answers = 0
    end = time.perf_counter() + seconds + 1.0

    def following(status: int, answer: bytes) -> bytes | None:
        nonlocal answers, end
        if status:
            assert status == 200, answer
            bodies.add(answer)
            answers += 1
        elif not answers:
            end = time.perf_counter() + seconds
        return body if time.perf_counter() < end else None

    took, spent = uvloop.run(_together(connections, url, "/ocsp", kind="application/ocsp-request", context=None, following=following))
    told = [base64.b64encode(answer).decode() for answer in bodies]
    return {"seconds": took, "processor": spent, "answers": answers, "bodies": told}


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"enrol": enrol, "renew": renew, "ask_status": ask_status}[sys.argv[1]](*json.load(sys.stdin))))
