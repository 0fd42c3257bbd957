"""The client side of contests, in a process of its own that imports little: asyncio, one request at a time on each connection."""

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


class Connection:
    """One HTTP/1.1 connection that stays open."""

    def __init__(self, url: str, context: ssl.SSLContext | None = None) -> None:
        self._parts, self._context = urlsplit(url), context

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(self._parts.hostname, self._parts.port, ssl=self._context)

    async def post(self, path: str, kind: str, body: bytes) -> tuple[int, bytes]:
        head = f"POST {path} HTTP/1.1\r\nHost: {self._parts.netloc}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        size = next(int(line.split(b":")[1]) for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length"))
        return int(answer[9:12]), await self._reader.readexactly(size)

    def close(self) -> None:
        self._writer.close()


async def _together(connections: int, url: str, context: ssl.SSLContext | None, work: Callable[[Connection], Any]) -> float:
    """Seconds that all connections took for `work`, each on its own; opening them does not count."""
    opened = [Connection(url, context) for _ in range(connections)]
    for one in opened:
        await one.open()
    began = time.perf_counter()
    await asyncio.gather(*(work(one) for one in opened))
    seconds = time.perf_counter() - began
    for one in opened:
        one.close()
    return seconds


def enrol(url: str, root: str, connections: int, work: list[dict[str, Any]]) -> dict[str, Any]:
    bodies = [json.dumps(item).encode() for item in work]
    answers: list[bytes] = []

    async def client(connection: Connection) -> None:
        while bodies:
            status, answer = await connection.post("/v1/enroll", "application/json", bodies.pop())
            assert status == 201, answer
            answers.append(answer)

    seconds = uvloop.run(_together(connections, url, ssl.create_default_context(cafile=root), client))
    return {"seconds": seconds, "certificates": [json.loads(answer)["certificate"] for answer in answers]}


def ask_status(url: str, question: str, seconds: float, connections: int) -> dict[str, Any]:
    body = base64.b64decode(question)
    bodies: set[bytes] = set()
    answers = 0

    async def client(connection: Connection) -> None:
        nonlocal answers
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            status, answer = await connection.post("/ocsp", "application/ocsp-request", body)
            assert status == 200, answer
            bodies.add(answer)
            answers += 1

    took = uvloop.run(_together(connections, url, None, client))
    return {"seconds": took, "answers": answers, "bodies": [base64.b64encode(answer).decode() for answer in bodies]}


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"enrol": enrol, "ask_status": ask_status}[sys.argv[1]](*json.load(sys.stdin))))
