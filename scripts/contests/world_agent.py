"""The agent's wake-up beside certbot's, when nothing is due: what a timer costs a device, ten times an hour."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import measure


def _identity(folder: Path) -> None:
    """An identity whose certificate is fresh."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    from ca.system import SystemChance, SystemClock
    from fleetca.agent.identity import Identity, Memory, Setup

    identity = Identity(folder, SystemChance())
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
        .not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + timedelta(days=7)).sign(key, hashes.SHA256())
    )  # fmt: skip
    text = made.public_bytes(serialization.Encoding.PEM)
    identity.set_up(Setup("https://127.0.0.1:1", plain=True), trust=text)
    slots = identity.slots
    slots.next_slot.mkdir(parents=True)
    slots.next_key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    slots.put_certificate(text.decode())
    slots.install()
    slots.mark_reloaded()
    later = SystemClock().now() + 86400
    identity.remember(
        Memory(
            start=later,
            end=later + 60,
            serial=f"{7:040x}",
            ask_at=later,
            outcome="enrolled",
            slot="1",
            saved_at=later - 86400,
            next_at=later,
        )
    )


def _wake(command: Sequence[str | Path]) -> tuple[float, float]:
    """Milliseconds of processor time, and MiB of memory at most, of one run that ends well."""
    ran = measure.alone(*command)
    return ran.processor * 1000, ran.memory


def rows(*, quick: bool, missing: list[str]) -> Iterator[dict[str, Any]]:
    """Two rows: processor time and memory of a wake-up."""
    beside = Path(sys.executable).parent
    certbot = beside / "certbot"
    if not certbot.exists():
        missing.append("certbot")
        return
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        _identity(folder / "identity")
        ours = [beside / "fleetca", "agent", "run", "--once", "--dir", folder / "identity"]
        theirs = [certbot, "renew", "-q", *(part for kind in ("config", "work", "logs") for part in (f"--{kind}-dir", folder / kind))]
        for command in (ours, theirs):
            _wake(command)  # byte-compiled, and in the disk's cache
        figures: list[list[tuple[float, float]]] = measure.interleave(3 if quick else 15, lambda: _wake(ours), lambda: _wake(theirs))  # type: ignore[arg-type,return-value]
    for at, contest, unit in ((0, "agent: processor time of a wake-up with nothing due", "ms"), (1, "agent: memory of a wake-up", "MiB")):
        mine, their = ([one[at] for one in figure] for figure in figures)
        yield measure.row(
            contest=contest, rival="certbot renew, no certificate", ours=mine, theirs=their, target=1.0, better="lower", unit=unit
        )
