"""How commands reach a deployment, and how they show what they find: the signer's socket, files, tables.

The command line asks the signer in the role of an operator, known by its user id (P3): it opens neither database nor keys.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ca.errors import Conflict, Malformed, StoreUnavailable
from ca.model import Certificate, CertificateRef, Name, Role, Serial, UnixTime

if TYPE_CHECKING:  # these bring pydantic and cryptography with them; `--help` needs neither
    from ca.signer.client import SignerClient
    from config.settings import Settings

Row = TypeVar("Row")
PAGE = 50


@contextmanager
def signer(settings: str) -> Iterator[tuple[Settings, SignerClient]]:
    """The deployment's settings and its signer, as operator.

    Raises:
        Misconfigured: the settings cannot be read.
        Unavailable: (when it is used) the signer does not answer.
    """
    from ca.signer.client import SignerClient
    from fleetca.forms import read_settings

    read = read_settings(Path(settings))
    client = SignerClient(read.signer.socket, Role.operator, tenant=tenant())
    try:
        yield read, client
    finally:
        client.close()


def tenant() -> str | None:
    """The tenant that was named in front of the command: `fleetca --tenant NAME devices list`."""
    context = click.get_current_context(silent=True)
    found = None if context is None else context.find_root().params.get("tenant")
    return found if isinstance(found, str) else None


# ---- What people type -----------------------------------------------------------------------------------------------


def names(dns: Sequence[str], ip: Sequence[str]) -> tuple[Name, ...]:
    """Subject alternative names from `--dns` and `--ip`, in their one text form.

    Raises:
        Malformed: one is no such name.
    """
    from ipaddress import ip_address

    from ca.rules import ids

    found = [ids.name("dns", value.lower().rstrip(".")) for value in dns]
    for value in ip:
        try:
            text = str(ip_address(value))
        except ValueError:
            raise Malformed("bad-name", f"{value!r} is not an IP address.") from None
        found.append(ids.name("ip", text))
    return tuple(found)


def seconds(text: str) -> int:
    """A duration such as `90s`, `10m`, `1h`, `7d`.

    Raises:
        Malformed: anything else.
    """
    from config.strict import duration

    try:
        return duration(text)
    except ValueError:
        raise Malformed("bad-duration", f"{text!r} is not a duration.", fix="Write it as 90s, 10m, 1h or 7d.") from None


def moment(text: str, now: int) -> int:
    """A time: RFC 3339 (`2026-11-22T06:43:00Z`), or a duration from now (`7d`).

    Raises:
        Malformed: neither.
    """
    from datetime import UTC, datetime

    if re.fullmatch(r"\d+[a-z]+", text):
        return now + seconds(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Malformed(
            "bad-time", f"{text!r} is not a time.", fix="Write it as 2026-11-22T06:43:00Z, or as a duration from now: 7d."
        ) from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())


def reference(text: str, *, issuer: str) -> CertificateRef:
    """A certificate by SERIAL or ISSUER/SERIAL; the serial in hexadecimal, colons allowed.

    Raises:
        Malformed: it is neither.
    """
    from ca.rules import ids

    given, slash, serial = text.rpartition("/")
    return CertificateRef(ids.issuer_id(given if slash else issuer), ids.serial_from_hex(serial.replace(":", "")))


def found_reference(text: str, client: SignerClient, *, issuer: str | None, usual: str) -> CertificateRef:
    """As `reference`; where no issuer is named, the one that has a certificate of that serial number, of whatever generation.

    Args:
        usual: the issuer where none has.
    """
    from ca.errors import NotFound

    if issuer is not None or "/" in text:
        return reference(text, issuer=issuer or usual)
    for known in client.issuers():
        if known.id == usual or known.key is None:
            continue
        ref = reference(text, issuer=known.id)
        with suppress(NotFound):
            client.certificate(ref)
            return ref
    return reference(text, issuer=usual)


def reference_in(file: str, client: SignerClient) -> CertificateRef:
    """The certificate in a file, as this deployment names it: by the issuer on record whose key signed it.

    Raises:
        Malformed: the file holds no certificate.
        NotFound: no issuer of ours signed it.
    """
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    from ca.der import pem
    from ca.errors import NotFound

    try:
        # The first block of a chain file is the leaf (RFC 8446 4.4.2).
        octets = read(file)
        der = octets if octets.startswith(b"\x30") else pem.ders_of(octets, pem.CERTIFICATE)[0]
        certificate = x509.load_der_x509_certificate(der)
    except (ValueError, IndexError):
        raise Malformed("bad-certificate", f"{file} holds no certificate.", fix="Give a PEM or DER file.") from None
    for issuer in client.issuers():
        try:
            certificate.verify_directly_issued_by(x509.load_der_x509_certificate(issuer.certificate))
        except (ValueError, TypeError, InvalidSignature):
            continue
        return CertificateRef(issuer.id, Serial(certificate.serial_number))
    raise NotFound(
        "certificate-unknown", f"The certificate in {file} is not one that this deployment issued.", why="None of its issuers signed it."
    )


# ---- Files ----------------------------------------------------------------------------------------------------------


def read(file: str, *, most: int = 1 << 20) -> bytes:
    """The octets of a file; `-` is stdin.

    Raises:
        Malformed: it cannot be read.
    """
    if file == "-":
        return sys.stdin.buffer.read(most)
    try:
        with Path(file).open("rb") as stream:
            return stream.read(most)
    except OSError as error:
        raise Malformed("unreadable-file", f"{file} cannot be read.", why=f"{error.strerror}.") from None


def write_new(file: str, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file that must not exist, durably.

    Raises:
        Conflict: it exists.
        StoreUnavailable: it cannot be written.
    """
    from fleetca.folder import put_new

    path = Path(file)
    if path.exists():
        raise Conflict("file-exists", f"{file} exists already.", fix="Name another file, or move this one away.")
    try:
        put_new(path, content, mode=mode)
    except OSError as error:
        raise StoreUnavailable("unwritable-file", f"{file} cannot be written.", why=f"{error.strerror}.") from None


# ---- Tables ---------------------------------------------------------------------------------------------------------


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as text: in colour and as wide as the window on a terminal, plain and whole in a pipe."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    terminal = sys.stdout.isatty()
    made = Table(*columns, box=box.SIMPLE_HEAD if terminal else None, pad_edge=False, show_edge=False)
    for row in rows:
        made.add_row(*(_plain(cell) for cell in row))
    console = Console(width=None if terminal else 400, highlight=False, markup=False, emoji=False, no_color=None if terminal else True)
    with console.capture() as captured:
        console.print(made)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values in two columns."""
    shown = [(name, _plain(value)) for name, value in pairs]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in shown)


def _plain(text: str) -> str:
    # What stands in the database came from outside: it must not steer the terminal.
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def pages(
    ask: Callable[[str | None, int], tuple[Sequence[Row], str | None]], *, after: str | None, limit: int, everything: bool
) -> tuple[list[Row], str | None]:
    """One page, or all of them."""
    rows, cursor = ask(after, limit)
    found = list(rows)
    while everything and cursor is not None:
        rows, cursor = ask(cursor, limit)
        found += rows
    return found, cursor


def page_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--limit`, `--after`, `--all`."""
    for option in (
        click.option("--all", "everything", is_flag=True, help="All pages."),
        click.option("--after", metavar="CURSOR", help="Go on where the page before ended (its `next`)."),
        click.option("--limit", type=click.IntRange(1, 500), default=PAGE, show_default=True, help="Rows on a page."),
    ):
        command = option(command)
    return command


def name_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--dns` and `--ip`."""
    for option in (
        click.option("--ip", metavar="ADDR", multiple=True, help="An IP address in it; may be repeated."),
        click.option("--dns", metavar="NAME", multiple=True, help="A DNS name in it; may be repeated."),
    ):
        command = option(command)
    return command


def fingerprint(der: bytes) -> str:
    """SHA-256 as openssl prints it."""
    from hashlib import sha256

    return ":".join(f"{octet:02X}" for octet in sha256(der).digest())


def now() -> UnixTime:
    """The clock of this host: for words like `in 6 days`, never for a decision."""
    from ca.system import SystemClock

    return SystemClock().now()


def state_of(certificate: Certificate, at: UnixTime) -> str:
    """One word for people: `revoked`, `expired`, `superseded`, `issued` ..."""
    from enroll.rest.messages import standing

    word = standing(certificate, now=at).value
    return "expired" if word in {"issued", "superseded"} and at > certificate.not_after else word
