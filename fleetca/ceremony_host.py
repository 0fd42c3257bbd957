"""What a ceremony asks of the machine it runs on: its network, its name, and which program this is. Edge: effects only, no rule."""

from __future__ import annotations

import fcntl
import hashlib
import socket
import struct
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Final

from ca.ceremony_steps import Room
from ca.errors import StoreUnavailable

PACKAGES: Final = ("ca", "config", "crl", "enroll", "fleetca", "ocsp")

_UP: Final = 0x1
_LOOPBACK: Final = 0x8
_SIOCGIFFLAGS: Final = 0x8913
_MACHINE: Final = Path("/etc/machine-id")


def interfaces() -> tuple[str, ...]:
    """The network interfaces that are up, loopback left out (IFF_UP, IFF_LOOPBACK: netdevice(7)).

    Asked of this process's own network namespace: /sys shows that of whoever mounted it.

    Raises:
        StoreUnavailable: the kernel does not say (`no-interfaces`): then nobody knows that there is no network.
    """
    found: list[str] = []
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
            for _, name in socket.if_nameindex():
                request = struct.pack("16sH14x", name.encode(), 0)
                flags = struct.unpack("16sH14x", fcntl.ioctl(asking, _SIOCGIFFLAGS, request))[1]
                if flags & _UP and not flags & _LOOPBACK:
                    found.append(name)
    except OSError as error:
        raise StoreUnavailable(
            "no-interfaces",
            "The kernel does not say which network interfaces there are.",
            why=str(error),
            fix="Use a machine whose kernel tells them; without that nobody knows that there is no network.",
        ) from None
    return tuple(sorted(found))


def machine(file: Path = _MACHINE) -> str:
    """A digest that names this machine; empty where it has no name."""
    try:
        name = file.read_bytes().strip()
    except OSError:
        return ""
    # machine-id(5): it should be hashed with something of the application's own before it leaves the machine.
    return hashlib.sha256(b"fleetca ceremony machine\0" + name).hexdigest() if name else ""


def software_files() -> Iterator[tuple[str, bytes]]:
    """Every file of the program, by its path in the package, in order."""
    for package in PACKAGES:
        folder = Path(str(files(package)))
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix not in {".pyc", ".pyo"}:
                yield f"{package}/{path.relative_to(folder).as_posix()}", path.read_bytes()


def software_sha256(carried: Iterable[tuple[str, bytes]] | None = None) -> str:
    """A digest of the program that runs, or of one that is carried: of the name and SHA-256 of every file of it, package by package."""
    total = hashlib.sha256()
    found = software_files() if carried is None else carried
    for name, octets in sorted(found, key=lambda file: (PACKAGES.index(file[0].split("/")[0]), file[0].split("/"))):
        total.update(f"{hashlib.sha256(octets).hexdigest()}  {name}\n".encode())
    return total.hexdigest()


def room() -> Room:
    """This machine, now."""
    return Room(machine(), interfaces(), f"fleetca {version('fleetca')}", software_sha256())
