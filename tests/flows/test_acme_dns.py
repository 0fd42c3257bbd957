"""dns-01 and resolvers of one's own, against a DNS server that speaks on a socket (RFC 8555 8.4)."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.rrset
import pytest

from ca.model import ProfileName
from enroll.acme import jws
from enroll.acme.model import Challenge, ChallengeKind, Directory, Identifier, IdentifierKind, Problem
from enroll.acme.probing import probe as probing
from enroll.acme.probing.probe import NetworkProber
from enroll.acme.probing.reach import DnsResolver, Reach
from tests.fakes.acme import NAMES, NETWORKS, AcmeWorld, Client, csr_for

NAME = Identifier(IdentifierKind.dns, "gw.device.test")
DNS = Challenge(ChallengeKind.dns_01, "token")
EXPECTED = "token.thumbprint"
DIGEST = jws.encode(hashlib.sha256(EXPECTED.encode()).digest())


@contextlib.contextmanager
def server(records: dict[tuple[str, str], list[str]], *, silent: bool = False) -> Iterator[tuple[str, list[str]]]:
    """A DNS server; its address, and the names that it was asked for."""
    asked: list[str] = []
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.settimeout(0.1)
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                octets, peer = sock.recvfrom(4096)
                query = dns.message.from_wire(octets)
                question = query.question[0]
                name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
                asked.append(f"{name} {kind}")
                answer = dns.message.make_response(query)
                answer.flags |= dns.flags.AA
                found = records.get((name, kind))
                if found:
                    answer.answer.append(dns.rrset.from_text(question.name, 1, "IN", kind, *found))
                elif not any(known == name for known, _ in records):
                    answer.set_rcode(3)
                if not silent:
                    sock.sendto(answer.to_wire(), peer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"127.0.0.1:{sock.getsockname()[1]}", asked
    over.set()
    thread.join()
    sock.close()


def prober(address: str, *, seconds: float = 30.0) -> NetworkProber:
    return NetworkProber(reach=Reach(resolver=DnsResolver([address], seconds=seconds), monotonic=time.monotonic))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "PAUSE", 0.01)


def test_the_digest_is_found_where_it_belongs() -> None:
    with server({("_acme-challenge.gw.device.test", "TXT"): ['"other"', f'"{DIGEST[:20]}" "{DIGEST[20:]}"']}) as (address, asked):
        prober(address).probe(DNS, NAME, networks=(), expected=EXPECTED)
    assert asked == ["_acme-challenge.gw.device.test TXT"], "the name itself, and no search list"


@pytest.mark.parametrize(
    ("records", "kind"),
    [
        pytest.param({}, "dns", id="no such name"),
        pytest.param({("_acme-challenge.gw.device.test", "A"): ["127.0.0.1"]}, "dns", id="no TXT record"),
        pytest.param({("_acme-challenge.gw.device.test", "TXT"): ['"x"']}, "incorrectResponse", id="another digest"),
        pytest.param(
            {("_acme-challenge.gw.device.test", "TXT"): [f'"{EXPECTED}"']}, "incorrectResponse", id="the key authorization itself"
        ),
        pytest.param({("gw.device.test", "TXT"): [f'"{DIGEST}"']}, "dns", id="the digest beside its place"),
        pytest.param({("_acme-challenge.gw.device.test", "TXT"): [r'"\255\254"']}, "incorrectResponse", id="octets that are no text"),
    ],
)
def test_other_records_prove_nothing(records: dict[tuple[str, str], list[str]], kind: str) -> None:
    with server(records) as (address, _), pytest.raises(Problem) as caught:
        prober(address).probe(DNS, NAME, networks=(), expected=EXPECTED)
    assert caught.value.kind == kind


def test_a_server_that_is_silent_is_not_waited_for_long() -> None:
    with server({}, silent=True) as (address, _), pytest.raises(Problem) as caught:
        prober(address, seconds=0.3).probe(DNS, NAME, networks=(), expected=EXPECTED)
    assert caught.value.kind == "dns"


def test_addresses_come_from_the_resolver_of_the_settings_and_are_judged() -> None:
    with server({("gw.device.test", "A"): ["127.0.0.1", "10.0.0.1"], ("gw.device.test", "AAAA"): ["fd00::1"]}) as (address, _):
        reach = Reach(resolver=DnsResolver([address], seconds=30.0), monotonic=time.monotonic)
        assert reach.addresses("gw.device.test", ("127.0.0.0/8",)) == ["127.0.0.1"]
        with pytest.raises(Problem, match="network"):
            reach.addresses("gw.device.test", ("192.0.2.0/24",))
        with pytest.raises(Problem, match="no address"):
            reach.addresses("nobody.device.test", ("127.0.0.0/8",))


def test_a_name_is_shown_by_dns_where_the_directory_takes_it_and_an_address_never_RFC_8738_7(tmp_path: Path) -> None:
    acme = AcmeWorld(tmp_path)
    every = Directory("service", ProfileName("service"), bound=False, dns=NAMES, networks=NETWORKS, challenges=tuple(ChallengeKind))
    acme.service.directories["service"] = every  # type: ignore[index]  # a dict of this test's own making
    client = Client(acme)
    client.register()
    order = client.order("gw.device.test", "127.0.0.1")
    shown = [client.post(url).json for url in order.json["authorizations"]]
    kinds = [{challenge["type"] for challenge in one["challenges"]} for one in shown]
    assert kinds == [{"http-01", "tls-alpn-01", "dns-01"}, {"http-01", "tls-alpn-01"}]
    [by_dns] = [one for one in shown[0]["challenges"] if one["type"] == "dns-01"]
    client.post(by_dns["url"], {})
    assert acme.prober.asked == [("dns-01", "gw.device.test")]
    client.prove(order)
    done = client.finalize(order, csr_for("gw.device.test", "127.0.0.1"))
    assert done.json["status"] == "valid"
    refused = client.order("*.gw.device.test")
    assert refused.status_code == 400 and refused.json["type"].endswith(":rejectedIdentifier")
    acme.close()
