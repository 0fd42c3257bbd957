"""Ten years of a deployment: a root change, an issuing CA every two years, and nobody who cannot verify what is shown to them; openssl judges each month."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509 import ocsp

from ca.model import IssuerId
from ca.store.engine import migrate
from tests.databases import sqlite_url
from tests.fakes.ceremony import NOW
from tests.fakes.decade import DAY, YEAR, Decade, Leaf, pems
from tests.parts import need

MONTH = YEAR // 12
CHANGE = 5
"""The year in which the root is made anew."""


@pytest.mark.req("REQ-KEY-008")
def test_ten_years_month_by_month(tmp_path: Path) -> None:
    walk(tmp_path, step=MONTH)


@pytest.mark.req("REQ-KEY-008")
@pytest.mark.full
@pytest.mark.timeout(3600)
def test_ten_years_day_by_day(tmp_path: Path) -> None:
    walk(tmp_path, step=DAY)


def walk(folder: Path, *, step: int) -> None:
    """Ten years in steps; each time what holds is verified by everybody."""
    judge = Judge(folder)
    url = sqlite_url(folder)
    migrate(url)
    decade = Decade(folder, url, at=NOW, crl_lifetime=DAY)
    try:
        year, month, generation = -1, -1, 0
        for at in range(NOW, NOW + 10 * YEAR + 1, step):
            decade.clock.at = at
            if (at - NOW) // YEAR > year:
                year += 1
                generation = hold_ceremony(decade, year, generation)
            decade.issue("pump", "device")
            month_begins = (at - NOW) // MONTH > month
            if month_begins:
                month += 1
                # Its certificate outlives a roll-over, in the old generation. One of them each year is revoked before.
                held = decade.issue(f"operator-{month}", "operator")
                if month % 12 == 11:
                    decade.revoke(held)
                    judge.revoked.add(held.record.ref)
            decade.publish()
            judge.everybody(decade, ask=month_begins and month % 6 in {0, 1})
    finally:
        decade.close()
    assert judge.views == {"bundle", "old root", "new root"}
    assert judge.generations >= {("old root", IssuerId("issuing-6")), ("new root", IssuerId("issuing-3"))}
    assert decade.retired == {IssuerId(f"issuing-{number}") for number in range(1, generation)}
    assert judge.seen_revoked == {"crl", "ocsp"}


def hold_ceremony(decade: Decade, year: int, generation: int) -> int:
    """Once a year: CRLs of every root, and what else is due."""
    if year == 0:
        decade.hold(
            decade.new_root("root-1", name="Root CA", years=20),
            decade.new_issuing("issuing-1", below="root-1", years=3),
            *decade.crls("root-1"),
        )
        return 1
    if year == CHANGE:
        number = generation + 1
        decade.hold(
            decade.new_root("root-2", name="Root CA 2", years=20),
            decade.linked("root-1", "root-2"),
            decade.linked("root-2", "root-1"),
            decade.new_issuing(f"issuing-{number}", below="root-2", years=3, succeeds=f"issuing-{generation}"),
            *decade.crls("root-1"),
            *decade.crls("root-2"),
        )
        return number
    acts = [act for root in decade.roots() for act in decade.crls(root.id)]
    due = year % 2 == 0 if year < CHANGE else (year - CHANGE) % 2 == 0
    if due and year < 10:
        number = generation + 1
        below = decade.roots()[-1].id
        acts.insert(0, decade.new_issuing(f"issuing-{number}", below=below, years=3, succeeds=f"issuing-{generation}"))
        generation = number
    decade.hold(*acts)
    return generation


class Judge:
    """openssl, from where different people stand."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.openssl = folder, need("openssl")
        self.revoked: set[object] = set()
        self.views: set[str] = set()
        self.generations: set[tuple[str, IssuerId]] = set()
        self.seen_revoked: set[str] = set()

    def everybody(self, decade: Decade, *, ask: bool) -> None:
        now, live, roots = decade.clock.at, decade.live(), decade.roots()
        good = [leaf for leaf in live if leaf.record.ref not in self.revoked]
        # As the agent keeps it and TLS peers send it: without the root. One that is not trusted would lead openssl astray.
        with_them = [der for leaf in live for der in leaf.chain[:-1]]
        (self.folder / "crls.pem").write_text(pems("X509 CRL", *decade.published().values()))
        for leaf in live:
            path = self._file(leaf)
            if not path.exists():
                path.write_text(pems("CERTIFICATE", leaf.der))
        self._verify("bundle", [root.certificate for root in roots], with_them, good, at=now)
        if len(roots) > 1:
            # Whoever heard nothing of the new root, and has what peers send along; and whoever knows the new one only, and fetched the links.
            self._verify("old root", [roots[0].certificate], with_them, good, at=now)
            self._verify("new root", [roots[-1].certificate], [*with_them, *decade.served_links()], good, at=now)
        for leaf in live:
            if leaf.record.ref in self.revoked:
                listed = x509.load_der_x509_crl(decade.published()[leaf.record.ref.issuer])
                assert listed.get_revoked_certificate_by_serial_number(leaf.record.ref.serial) is not None
                self.seen_revoked.add("crl")
        if ask:
            for leaf in {leaf.record.ref.issuer: leaf for leaf in live}.values():
                self._ask(decade, leaf, roots[0].certificate if leaf.chain[-1] == roots[0].certificate else roots[-1].certificate)
            for leaf in live:
                if leaf.record.ref in self.revoked:
                    self._ask(decade, leaf, roots[0].certificate)
                    self.seen_revoked.add("ocsp")

    def _file(self, leaf: Leaf) -> Path:
        return self.folder / f"{leaf.record.ref.serial:x}.pem"

    def _verify(self, view: str, trusted: Sequence[bytes], untrusted: Sequence[bytes], leaves: Sequence[Leaf], *, at: int) -> None:
        (self.folder / "trusted.pem").write_text(pems("CERTIFICATE", *trusted))
        (self.folder / "untrusted.pem").write_text(pems("CERTIFICATE", *untrusted))
        done = subprocess.run(
            [self.openssl, "verify", "-x509_strict", "-crl_check_all", "-attime", str(at), "-no-CApath", "-no-CAstore",
             "-CAfile", "trusted.pem", "-untrusted", "untrusted.pem", "-CRLfile", "crls.pem", *(self._file(leaf).name for leaf in leaves)],
            cwd=self.folder, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        said = f"{view}, day {(at - NOW) // DAY}: {done.stdout}{done.stderr}"
        assert done.returncode == 0, said
        assert done.stdout.count(": OK") == len(leaves), said
        self.views.add(view)
        self.generations |= {(view, leaf.record.ref.issuer) for leaf in leaves}

    def _ask(self, decade: Decade, leaf: Leaf, root: bytes) -> None:
        (self.folder / "answer.der").write_bytes(decade.answer(leaf.record.ref))
        (self.folder / "issuer.pem").write_text(pems("CERTIFICATE", leaf.chain[0]))
        (self.folder / "trusted.pem").write_text(pems("CERTIFICATE", root))
        (self.folder / "above.pem").write_text(pems("CERTIFICATE", *leaf.chain))
        done = subprocess.run(
            [self.openssl, "ocsp", "-respin", "answer.der", "-issuer", "issuer.pem", "-cert", self._file(leaf).name, "-CAfile", "trusted.pem",
             "-verify_other", "above.pem", "-attime", str(decade.clock.at), "-no_nonce"],
            cwd=self.folder, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert "Response verify OK" in done.stderr, done.stderr
        wanted = "revoked" if leaf.record.ref in self.revoked else "good"
        # What openssl says of its times it says of today's clock.
        assert re.search(rf"^(.*: )?{wanted}$", done.stdout, re.MULTILINE), done.stdout
        said = next(ocsp.load_der_ocsp_response((self.folder / "answer.der").read_bytes()).responses)
        assert said.next_update_utc is not None
        assert said.this_update_utc.timestamp() <= decade.clock.at <= said.next_update_utc.timestamp()
