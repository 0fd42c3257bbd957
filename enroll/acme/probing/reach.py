"""Finds and reaches the holders of identifiers, and nobody else. Adapter: names, addresses and sockets; knows no ACME but its errors.

A validator that connects wherever a client says is a way into the network it stands in (R19). So: a name is resolved once, here, by the host map
or the resolver; the connection goes to one of those very addresses (no second look-up that could answer differently); and every address,
also of a redirect, must lie in the networks that the settings name.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from ca.errors import Misconfigured
from ca.rules.caps import below, inside
from enroll.acme.model import Problem

CONNECT_SECONDS: Final = 4.0
MOST_ADDRESSES: Final = 8


class Resolver(Protocol):
    """Looks names up."""

    def addresses(self, host: str) -> Sequence[str]:
        """IP literals; none where the name has none.

        Raises:
            Problem: `dns`.
        """
        ...

    def texts(self, host: str) -> Sequence[str]:
        """TXT records.

        Raises:
            Problem: `dns`.
        """
        ...


class SystemResolver:
    """What the host itself uses. It knows addresses only."""

    def addresses(self, host: str) -> Sequence[str]:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Problem("dns", f"{host} cannot be resolved: {error.strerror or 'no answer'}.") from None
        return list(dict.fromkeys(str(one[4][0]) for one in found))

    def texts(self, host: str) -> Sequence[str]:
        raise Problem("dns", "TXT records are not looked up here: the settings name no resolver ([acme] resolver).")


class DnsResolver:
    """DNS servers that the settings name.

    Args:
        servers: `ADDRESS` or `ADDRESS:PORT`, `[V6]:PORT`.
    """

    def __init__(self, servers: Sequence[str], *, seconds: float = 5.0) -> None:
        try:
            import dns.nameserver  # noqa: PLC0415 - of the extra `acme`
            import dns.resolver  # noqa: PLC0415
        except ImportError:
            raise Misconfigured(
                "extra-missing",
                "[acme] resolver needs a library that is not installed.",
                why="It is dnspython, of the extra acme.",
                fix="pip install 'fleetca[acme]'",
            ) from None
        self._resolver = dns.resolver.Resolver(configure=False)
        self._resolver.nameservers = [dns.nameserver.Do53Nameserver(*_server(one)) for one in servers]
        self._resolver.lifetime = seconds
        self._resolver.search = []

    def _ask(self, host: str, kind: str) -> Any:
        import dns.exception  # noqa: PLC0415
        import dns.resolver  # noqa: PLC0415

        try:
            return self._resolver.resolve(host + ".", kind, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return ()
        except dns.exception.DNSException as error:
            raise Problem("dns", f"{host} ({kind}) cannot be looked up: {type(error).__name__}.") from None

    def addresses(self, host: str) -> Sequence[str]:
        return [record.address for kind in ("A", "AAAA") for record in self._ask(host, kind)]

    def texts(self, host: str) -> Sequence[str]:
        return [b"".join(record.strings).decode("ascii", "replace") for record in self._ask(host, "TXT")]


def _server(text: str) -> tuple[str, int]:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        host, _, port = text.rpartition(":")
        return host.strip("[]"), int(port)
    return text, 53


@dataclass(frozen=True, slots=True)
class Reach:
    """Where validation may go.

    Args:
        hosts: names, or `*.` and an end, to the address that is used for them instead of a look-up.
    """

    resolver: Resolver
    monotonic: Callable[[], float]
    hosts: Mapping[str, str] = field(default_factory=dict)

    def addresses(self, host: str, networks: Sequence[str]) -> Sequence[str]:
        """The addresses of a host that may be connected to.

        Raises:
            Problem: `dns`: it has none; `connection`: none of them may be.
        """
        found = self._found(host)
        if not found:
            raise Problem("dns", f"{host} has no address.")
        allowed = [one for one in found if inside(tuple(networks), one)]
        if not allowed:
            raise Problem("connection", f"No address of {host} lies in a network that may be reached ([acme] networks).")
        return allowed[:MOST_ADDRESSES]

    def _found(self, host: str) -> Sequence[str]:
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            pass
        for pattern, address in self.hosts.items():
            if below(pattern, host):
                return [address]
        return [str(ipaddress.ip_address(one.partition("%")[0])) for one in self.resolver.addresses(host)]

    def connect(self, host: str, port: int, networks: Sequence[str]) -> socket.socket:
        """A connection to one of the host's allowed addresses.

        Raises:
            Problem: `dns`, `connection`.
        """
        last = ""
        for address in self.addresses(host, networks):
            try:
                return socket.create_connection((address, port), timeout=CONNECT_SECONDS)
            except OSError as error:
                last = f"{address}: {error.strerror or 'no answer in time'}"
        raise Problem("connection", f"{host}, port {port}, cannot be reached ({last}).")
