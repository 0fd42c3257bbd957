"""How long algorithms count, and what the doctor says of CAs that are believed longer (REQ-KEY-060)."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from ca.der.algorithms import ALGORITHMS, kind_of, load_public_key
from ca.errors import FleetcaError
from ca.rules.algorithm_dates import TABLE, Outlook, outlook
from ca.rules.caps import Manufacturer
from ca.rules.certificate import issuer_from_certificate
from ca.system import SystemClock
from fleetca import checks_algorithms, forms
from fleetca.verdict import Level, Patient
from tests.fakes.certificates import root, spki_of

pytestmark = pytest.mark.req("REQ-KEY-060")


def end_of(year: int) -> int:
    return int(dt.datetime(year, 12, 31, 23, 59, 59, tzinfo=dt.UTC).timestamp())


@pytest.mark.parametrize(
    ("algorithm", "year", "seen"),
    [
        ("rsa-2048", 2030, Outlook.holds),
        ("rsa-2048", 2031, Outlook.deprecated),
        ("rsa-2048", 2035, Outlook.deprecated),
        ("rsa-2048", 2036, Outlook.over),
        ("rsa-1024", 2026, Outlook.unknown),
        ("p256", 2035, Outlook.holds),
        ("p256", 2036, Outlook.quantum),
        ("rsa-4096", 9999, Outlook.quantum),
        ("ml-dsa-65", 9999, Outlook.holds),
    ],
)
def test_an_algorithm_counts_until_its_year_is_over(algorithm: str, year: int, seen: Outlook) -> None:
    assert outlook(algorithm, end_of(year)) is seen


def test_every_algorithm_of_ours_is_in_the_table() -> None:
    assert ALGORITHMS.keys() <= TABLE.keys()


def _maker(bits: int, year: int) -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Maker")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(year, 6, 1, tzinfo=dt.UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True)
        .sign(key, hashes.SHA256())
    )
    assert kind_of(load_public_key(spki_of(key))) == f"rsa-{bits}"
    return made.public_bytes(Encoding.DER)


def test_RSA_of_2048_bits_is_warned_of_past_2030_a_finding_past_2035_and_never_a_CA_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[int, Any] = {}
    for year in (2030, 2032, 2036):
        maker = Manufacturer("acme", _maker(2048, year), "acme:", ())
        monkeypatch.setattr(forms, "manufacturers", lambda _, maker=maker: (maker,))
        issuer = replace(root(), not_after=end_of(2034))
        (*late, last) = checks_algorithms.algorithms(Patient(None, SystemClock(), [issuer], None, None))  # type: ignore[arg-type]
        assert last.level is Level.ok
        told[year] = [one.level for one in late]
    assert told == {2030: [], 2032: [Level.note], 2036: [Level.finding]}
    with pytest.raises(FleetcaError) as refused:
        issuer_from_certificate(_maker(2048, 2029), id="old", key=None)
    assert refused.value.code == "key-type"


def test_a_root_on_a_curve_that_outlives_2035_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "manufacturers", lambda _: ())
    issuer = replace(root(), not_after=end_of(2046))
    (seen,) = checks_algorithms.algorithms(Patient(None, SystemClock(), [issuer], None, None))  # type: ignore[arg-type]
    assert seen.level is Level.note and issuer.id in seen.what
