"""A CRL of many entries, from the revocation on record to what readers get, beside openssl, cfssl, cryptography and the limit of the machine.

Ours runs as it does in a publisher: the signer's verb, its record and journal, the stage, its fsync, the gate, the put and the record of it. The
others only write a file. The limit is SHA-256, write and fsync of the very octets that we published. Every output is read entry by entry by cryptography.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import measure
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from world_revoked import YEAR, serial
from world_revoked import rows as revoked_rows

from ca.keys.memory import make_private_key
from ca.model import AlgorithmName

HERE = Path(__file__).parent
HASHES: dict[str, Any] = {"p256": hashes.SHA256(), "rsa-3072": hashes.SHA256()}
ALGORITHMS = ("rsa-3072", "ed25519", "ml-dsa-65")
FLAGS = {1: "keyCompromise", 3: "affiliationChanged", 4: "superseded", 5: "cessationOfOperation", 6: "certificateHold"}


def authority(algorithm: str) -> Path:
    """A CA certificate and its key, in files that every rival reads."""
    place = measure.JUDGES / f"crl-{algorithm}"
    private = make_private_key(AlgorithmName(algorithm))
    public = private.public_key()
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "bench")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(7)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
                key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(private, HASHES.get(algorithm))
    )  # fmt: skip
    place.with_suffix(".pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8 if algorithm not in HASHES else serialization.PrivateFormat.TraditionalOpenSSL
    place.with_suffix(".key").write_bytes(private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return place


class Ours(measure.Worker):
    """A signer and a publisher over a database of their own, filled by another process so that the memory is theirs alone."""

    def __init__(self, folder: Path, count: int, now: int, *, algorithm: str = "p256", shards: int = 0) -> None:
        self.folder, self.count, self.now, self.shards = folder, count, now, shards
        self.place = measure.JUDGES / f"crl-{algorithm}"
        arguments = (HERE / "world_crl.py", folder, str(count), algorithm, str(shards), str(now))
        os.environ["PYTHONPATH"] = f"{measure.ROOT}"
        if count > 100_000 and not (folder / "crl.db").exists():
            measure.Worker(sys.executable, *arguments).close()
        super().__init__(sys.executable, *arguments)

    def publish(self, how: str, **more: Any) -> dict[str, Any]:
        return self.ask({"do": "publish", "how": how, **more})

    def seconds(self, how: str) -> float:
        return float(self.publish(how)["seconds"])

    def limit(self) -> float:
        """SHA-256, write and fsync of the very same octets."""
        octets, place = (self.folder / "public" / "issuing.crl").read_bytes(), self.folder / "limit"
        began = time.perf_counter()
        hashlib.sha256(octets).digest()
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        view = memoryview(octets)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
        os.close(descriptor)
        seconds = time.perf_counter() - began
        place.unlink()
        return seconds

    def rss(self) -> float:
        return float(self.ask({"do": "rss"})["rss"])

    def check(self, folder: str = "public") -> int:
        """Every entry of every CRL, read by another parser, beside what was put on record, in its order. How many there are."""
        public = x509.load_pem_x509_certificate(self.place.with_suffix(".pem").read_bytes()).public_key()
        by_shard: dict[int, list[Any]] = {number: [] for number in range(1, self.shards + 1)}
        for row in revoked_rows(self.count, self.now, shards=self.shards) if self.shards else ():
            by_shard[row[1]].append(row)
        found = 0
        for shard in range(self.shards + 1):
            octets = (self.folder / folder / (f"issuing.{shard}.crl" if shard else "issuing.crl")).read_bytes()
            read = x509.load_der_x509_crl(octets)
            assert read.is_signature_valid(public)  # type: ignore[arg-type]
            wanted = by_shard[shard] if shard else revoked_rows(self.count, self.now, shards=self.shards)
            for one, (_, _, number, reason, at) in zip(read, wanted, strict=True):
                assert one.serial_number == int.from_bytes(number, "big")
                assert int(one.revocation_date_utc.timestamp()) == at
                said = [extension.value.reason for extension in one.extensions]
                assert said == ([x509.ReasonFlags(FLAGS[reason])] if reason else [])
                found += 1
        return found

    def octets_of_entries(self) -> bytes:
        """SHA-256 from the first serial number of the complete CRL to its last."""
        octets = (self.folder / "public" / "issuing.crl").read_bytes()
        first, last = serial(1), serial(self.count)
        return hashlib.sha256(memoryview(octets)[octets.index(first) : octets.rindex(last) + len(last)]).digest()


class Rivals:
    """The same entries for programs that write CRLs."""

    def __init__(self, folder: Path, count: int, now: int, place: Path) -> None:
        self.folder, self.count, self.now, self.place = folder, count, now, place
        folder.mkdir(parents=True)
        later = time.strftime("%y%m%d%H%M%SZ", time.gmtime(now + YEAR))
        with (folder / "index.txt").open("w") as index, (folder / "serials").open("w") as serials:
            for _, _, octets, reason, at in revoked_rows(count, now):
                when = time.strftime("%y%m%d%H%M%SZ", time.gmtime(at))
                index.write(f"R\t{later}\t{when}{',' + FLAGS[reason] if reason else ''}\t{octets.hex().upper()}\tunknown\t/CN=x\n")
                serials.write(f"{int.from_bytes(octets, 'big')}\n")
        (folder / "index.txt.attr").write_text("unique_subject = no\n")
        (folder / "number").write_text("01\n")
        (folder / "ca.cnf").write_text(
            f"[ca]\ndefault_ca=c\n[c]\ndatabase={folder}/index.txt\ncrlnumber={folder}/number\ndefault_md=sha256\ndefault_crl_days=1\n"
            "crl_extensions=e\n[e]\nauthorityKeyIdentifier=keyid\n"
        )
        self.checked: set[str] = set()
        self.rss: dict[str, float] = {}

    def openssl(self) -> float:
        out = self.folder / "openssl.pem"
        config, certificate, key = self.folder / "ca.cnf", self.place.with_suffix(".pem"), self.place.with_suffix(".key")
        return self._run(
            "openssl", ["openssl", "ca", "-gencrl", "-config", config, "-cert", certificate, "-keyfile", key, "-out", out], out
        )

    def cfssl(self) -> float:
        out = self.folder / "cfssl.b64"
        command = ["cfssl", "gencrl", self.folder / "serials", self.place.with_suffix(".pem"), self.place.with_suffix(".key")]
        return self._run("cfssl", command, out, stdout=out)

    def cryptography(self) -> float:
        """The public builder; a list at once, for adding entries one by one is quadratic."""
        out = self.folder / "cryptography.der"
        program = (
            "import sys, time, datetime\nfrom cryptography import x509\nfrom cryptography.hazmat.primitives import hashes, serialization\n"
            "folder, place = sys.argv[1:]\ncert = x509.load_pem_x509_certificate(open(place + '.pem', 'rb').read())\n"
            "key = serialization.load_pem_private_key(open(place + '.key', 'rb').read(), None)\nnow = datetime.datetime.now(datetime.UTC)\n"
            "made = []\nfor line in open(folder + '/serials'):\n"
            "    made.append(x509.RevokedCertificateBuilder().serial_number(int(line)).revocation_date(now)"
            ".add_extension(x509.CRLReason(x509.ReasonFlags.superseded), False).build())\n"
            "b = x509.CertificateRevocationListBuilder(cert.subject, now, now + datetime.timedelta(1), [], made)\n"
            "b = b.add_extension(x509.CRLNumber(1), False)\n"
            "open(folder + '/cryptography.der', 'wb').write(b.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER))\n"
        )
        return self._run("cryptography", [sys.executable, "-c", program, self.folder, self.place], out)

    def _run(self, name: str, command: list[Any], out: Path, *, stdout: Path | None = None) -> float:
        ran = measure.alone(*command, stdout=stdout or Path(os.devnull))
        self.rss[name] = ran.memory
        if name not in self.checked:
            self.checked.add(name)
            octets = out.read_bytes()
            if name == "cfssl":
                octets = base64.b64decode(octets)
            read = x509.load_pem_x509_crl(octets) if name == "openssl" else x509.load_der_x509_crl(octets)
            wanted: Any = revoked_rows(self.count, self.now)
            # openssl sorts them.
            for entry, (_, _, number, _, at) in zip(
                read, sorted(wanted, key=lambda row: row[2]) if name == "openssl" else wanted, strict=True
            ):
                assert entry.serial_number == int.from_bytes(number, "big")
                assert name != "openssl" or int(entry.revocation_date_utc.timestamp()) == at
        return ran.seconds


def rows(*, quick: bool, missing: list[str]) -> Iterator[dict[str, Any]]:
    measure.JUDGES.mkdir(exist_ok=True)
    os.environ["BENCH_DIRECTORY"] = str(measure.JUDGES)
    many, most, rounds = (3_000, 9_000, 3) if quick else (1_000_000, 10_000_000, 3)
    now = int(time.time()) // 86400 * 86400
    place = authority("p256")
    with tempfile.TemporaryDirectory(prefix="fleetca-bench-", dir=measure.JUDGES) as name:
        folder = Path(name)
        yield from beside_rivals(folder, many, now, place=place, rounds=rounds, missing=missing)
        yield from of_algorithms(folder / "ours", many, now, rounds=rounds, algorithms=ALGORITHMS[-1:] if quick else ALGORITHMS)
        shutil.rmtree(folder / "ours")
        yield from of_shards(folder, now, count=1_000 if quick else 100_000)
        yield from of_sizes(folder, now, most, many, rounds=rounds, algorithms=("p256",) if quick else ("p256", "rsa-3072"))


def beside_rivals(folder: Path, many: int, now: int, *, place: Path, rounds: int, missing: list[str]) -> Iterator[dict[str, Any]]:
    rivals = Rivals(folder / "rivals", many, now, place)
    ours = Ours(folder / "ours", many, now)
    for how in ("record", "tally"):
        ours.seconds(how)  # what is kept between CRLs is made at the first one
    assert ours.check() == ours.check("record") == many
    names = [name for name in ("openssl", "cfssl") if shutil.which(name)]
    missing += [f"{name}: it is not installed" for name in ("openssl", "cfssl") if name not in names]
    runners: dict[str, Callable[[], float]] = {"record": lambda: ours.seconds("record"), "limit": ours.limit}
    gates: list[float] = []

    def by_tally() -> float:
        told = ours.publish("tally")
        gates.append(float(told["rest"]))
        return float(told["seconds"])

    runners |= {"tally": by_tally}
    runners |= {name: getattr(rivals, name) for name in names}
    figures = dict(zip(runners, measure.interleave(rounds, *runners.values()), strict=True))
    assert ours.check() == many
    label = f"{many} entries"

    def beside(contest: str, mine: list[float], rival: str, theirs: list[float], target: float, *, unit: str = "s") -> dict[str, Any]:
        return measure.row(contest=contest, rival=rival, ours=mine, theirs=theirs, target=target, better="lower", unit=unit)

    whole = f"{label}, encoded before, gate against the whole database"
    kept = f"{label}, encoded before, gate against its tally"
    for name, first, second in (("openssl", 1 / 5, 1 / 30), ("cfssl", 1 / 3, 1 / 15)):
        if name in names:
            command = "openssl ca -gencrl" if name == "openssl" else "cfssl gencrl"
            yield beside(whole, figures["record"], command, figures[name], first)
            yield beside(kept, figures["tally"], command, figures[name], second)
    yield beside(kept, figures["tally"], "limit: SHA-256, write, fsync", figures["limit"], 4)
    yield beside(f"{label}: the gate and the put alone", gates, "limit: SHA-256, write, fsync", figures["limit"], 3)
    yield beside(f"{label}, peak memory of signer and publisher in one process", [ours.rss()], "limit of 150 MiB", [150.0], 1, unit="MiB")
    if "openssl" in names:
        yield beside(f"{label}, peak memory", [ours.rss()], "openssl ca -gencrl", [rivals.rss["openssl"]], 1 / 3, unit="MiB")
    theirs = [rivals.cryptography()]
    yield beside(kept, [min(figures["tally"])], "cryptography's builder, one list at once", theirs, 1 / 15)
    again = []
    for _ in range(rounds):
        ours.ask({"do": "revoke", "count": 1})
        again.append(ours.seconds("tally"))
    yield beside(f"one more revocation and the {many} anew", again, "the same without it", figures["tally"], 1.5)
    ours.close()


def of_sizes(folder: Path, now: int, most: int, many: int, *, rounds: int, algorithms: Sequence[str]) -> Iterator[dict[str, Any]]:
    small, middle = Ours(folder / "small", min(10_000, many), now), Ours(folder / "middle", many // 10, now)
    for one in (small, middle):
        one.seconds("tally")
    ten = [small.seconds("tally") * 1000 for _ in range(rounds * 3)]
    yield measure.row(
        contest=f"{min(10_000, many)} entries in a running publisher", rival="limit of 30 ms", ours=ten, theirs=[30.0] * len(ten), target=1,
        better="lower", unit="ms",
    )  # fmt: skip
    large, read = folder / "large", b""
    for algorithm in algorithms:
        shutil.rmtree(large / "public", ignore_errors=True)
        ours = Ours(large, most, now, algorithm=algorithm)
        ours.seconds("tally")
        mine, theirs = measure.interleave(rounds, lambda ours=ours: ours.seconds("tally"), lambda: middle.seconds("tally"))  # type: ignore[misc]
        yield measure.row(
            contest=f"{algorithm}: time per entry at {most}", rival=f"time per entry at {many // 10}, p256", ours=[one / most * 1e9 for one in mine],
            theirs=[one / (many // 10) * 1e9 for one in theirs], target=1.2, better="lower", unit="ns",
        )  # fmt: skip
        yield measure.row(
            contest=f"{algorithm}: {most} entries, peak memory of signer and publisher in one process", rival="limit of 200 MiB", ours=[ours.rss()],
            theirs=[200.0], target=1, better="lower", unit="MiB",
        )  # fmt: skip
        if algorithm == algorithms[0]:
            assert ours.check() == most
            read = ours.octets_of_entries()
        assert ours.octets_of_entries() == read, "the very octets that were read entry by entry"
        ours.close()
    for one in (small, middle):
        assert one.check() == one.count
        one.close()
    shutil.rmtree(large)


def of_shards(folder: Path, now: int, *, count: int) -> Iterator[dict[str, Any]]:
    shards = Ours(folder / "shards", count, now, shards=128)
    first = float(shards.publish("tally", shard=None)["seconds"])
    again = float(shards.publish("tally", shard=None)["seconds"])
    sizes = [path.stat().st_size / 2**20 for path in (folder / "shards" / "public").glob("issuing.*.crl")]
    assert len(sizes) == 128
    assert shards.check() == 2 * count, "the complete one and all shards"
    about = f"{count * 100} certificates, 1 % revoked, 128 shards"
    yield measure.row(
        contest=f"{about}: the largest shard", rival="limit of 1 MiB", ours=[max(sizes)], theirs=[1.0], target=1, better="lower", unit="MiB"
    )
    yield measure.row(
        contest=f"{about}: one pass over all of them and the complete CRL", rival="limit of 60 s", ours=[first, again], theirs=[60.0, 60.0], target=1,
        better="lower", unit="s",
    )  # fmt: skip
    shards.close()


def of_algorithms(folder: Path, many: int, now: int, *, rounds: int, algorithms: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Over the same record; those that sign the message itself hold it in memory."""
    for algorithm in algorithms:
        authority(algorithm)
        shutil.rmtree(folder / "public")
        ours = Ours(folder, many + rounds, now, algorithm=algorithm)
        ours.seconds("tally")
        mine, limit = measure.interleave(rounds, lambda ours=ours: ours.seconds("tally"), ours.limit)  # type: ignore[misc]
        assert ours.check() == many + rounds
        yield measure.row(
            contest=f"{many} entries signed with {algorithm}, {ours.rss():.0f} MiB", rival="limit: SHA-256, write, fsync", ours=mine, theirs=limit,
            target=4 if algorithm == "rsa-3072" else 12, better="lower", unit="s",
        )  # fmt: skip
        ours.close()


if __name__ == "__main__":
    json.dump(list(rows(quick=True, missing=[])), sys.stdout, indent=1)
