"""Listening sockets, by the addresses of the settings. It imports little: who binds for others need not load what they serve with."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

from ca.errors import Misconfigured


def listening_socket(address: str, *, setting: str) -> socket.socket:
    """A socket that listens on `host:port` (or `[v6]:port`).

    Raises:
        Misconfigured: the address cannot be read, or something else listens there (`port-taken`).
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit():
        raise Misconfigured("bad-address", f"{setting} = {address!r} is not an address.", fix=f'Write it as {setting} = "127.0.0.1:8443".')
    try:
        family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, int(port)))
        listener.listen(2048)
    except OSError as error:
        raise Misconfigured(
            "port-taken",
            f"Nothing can listen on {address}.",
            why=f"{setting}: {error.strerror or error}.",
            fix=f"Stop what listens there (ss -ltnp), or set another address in {setting}.",
        ) from None
    listener.setblocking(False)
    return listener


def local_socket(path: Path, *, setting: str) -> socket.socket:
    """A Unix socket that listens at `path`, for our own user only; one that lies there already is replaced in one step.

    Raises:
        Misconfigured: it cannot be made (`socket-path`).
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if path.exists() and not path.is_socket():
            raise OSError(0, "something else lies there")
        fresh.unlink(missing_ok=True)
        listener.bind(str(fresh))
        fresh.chmod(0o600)
        listener.listen(2048)
        fresh.replace(path)
    except OSError as error:
        listener.close()
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise Misconfigured(
            "socket-path",
            f"Nothing can listen at {path}.",
            why=f"{setting}: {error.strerror or error}.",
            fix=f"Name a short path in a folder that this process may write, in {setting}.",
        ) from None
    listener.setblocking(False)
    return listener
