"""The gate that every CRL passes (P6): what is right goes through, and each planted fault is refused by name."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from ca.der import writer
from ca.der.algorithms import ALGORITHMS
from ca.errors import Broken
from ca.model import CertificateRef, CrlEntry, CrlIntent, Digest, IssuerId, Reason, Revocation, Serial
from crl.model import Scope
from crl.rules import anatomy, elements, gate
from crl.rules.anatomy import InMemory
from crl.rules.elements import Recorded
from crl.rules.gate import Before, Expected
from tests.fakes.crl_world import LIFETIME, MAKERS, Authority, authority

NOW = 1_800_000_000
WORLD = authority(not_before=NOW - 10**7, not_after=NOW + 10**8)
ISSUER = WORLD.issuer
OTHER = authority(called="other", not_before=NOW - 10**7, not_after=NOW + 10**8)
SAME_NAME = authority(not_before=NOW - 10**7, not_after=NOW + 10**8)


def serial(n: int) -> Serial:
    return Serial((0x41 << 152) + n)


ENTRIES = [
    CrlEntry(serial(1), NOW - 500, Reason.keyCompromise),
    CrlEntry(serial(2), NOW - 400, Reason.unspecified),
    CrlEntry(serial(3), NOW - 300, Reason.certificateHold),
    CrlEntry(serial(9), NOW - 200, Reason.cessationOfOperation),
]


# ---- a CRL assembled piece by piece, so that each piece can be wrong ------------------------------------------------

ECDSA_SHA256 = writer.sequence(writer.oid("1.2.840.10045.4.3.2"))
AKI = writer.extension("2.5.29.35", writer.sequence(writer.implicit(0, ISSUER.key_identifier)), critical=False)


def number_extension(number: int = 7, *, critical: bool = False) -> bytes:
    return writer.extension("2.5.29.20", writer.integer(number), critical=critical)


def reason_extension(value: bytes, *, critical: bool = False) -> bytes:
    return writer.sequence(writer.extension("2.5.29.21", value, critical=critical))


def entry(one: CrlEntry, *, extensions: bytes | None = None, when: bytes | None = None, number: bytes | None = None) -> bytes:
    if extensions is None:
        extensions = b"" if one.reason is Reason.unspecified else reason_extension(writer.enumerated(one.reason.value))
    return writer.sequence(number or writer.integer(one.serial), when or writer.time(one.revoked_at), extensions)


PLAIN = [entry(one) for one in ENTRIES]


def forge(
    *,
    version: bytes | None = None,
    inner: bytes = ECDSA_SHA256,
    outer: bytes = ECDSA_SHA256,
    issuer: bytes = ISSUER.subject,
    this_update: bytes | None = None,
    next_update: bytes | None = None,
    revoked: bytes | None = None,
    extensions: bytes | None = None,
    key: Any = WORLD.key,
    tail: bytes = b"",
    after: bytes = b"",
) -> bytes:
    tbs = writer.sequence(
        writer.integer(1) if version is None else version,
        inner,
        issuer,
        writer.time(NOW) if this_update is None else this_update,
        writer.time(NOW + LIFETIME - 1) if next_update is None else next_update,
        writer.sequence(*PLAIN) if revoked is None else revoked,
        writer.explicit(0, writer.sequence(AKI, number_extension())) if extensions is None else extensions,
        tail,
    )
    signature = key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    return writer.sequence(tbs, outer, writer.bit_string(signature), after)


def extended(extension: bytes) -> bytes:
    return forge(extensions=writer.explicit(0, writer.sequence(AKI, number_extension(), extension)))


def intent_of(octets: bytes, **changes: Any) -> CrlIntent:
    """The record that a signer would keep of these octets, as far as they can be read."""
    try:
        read = anatomy.read(InMemory(octets))
        digest = Digest(sha256(octets[read.tbs.start : read.tbs.end]).digest())
    except Exception:
        digest = Digest(bytes(32))
    made = CrlIntent(
        issuer=ISSUER.id,
        shard=0,
        number=7,
        as_of=40,
        count=len(ENTRIES),
        this_update=NOW,
        next_update=NOW + LIFETIME - 1,
        tbs_sha256=digest,
        fence=1,
    )
    return replace(made, **changes)


def judge(
    octets: bytes,
    *,
    entries: Sequence[CrlEntry] = ENTRIES,
    before: Before | None = None,
    above: int = 6,
    now: int = NOW + 1,
    lifetime: int = LIFETIME,
    issuer: Any = ISSUER,
    **intent: Any,
) -> Any:
    wanted = Recorded(lambda: entries, fits=lambda _: True)
    expected = Expected(intent=intent_of(octets, **intent), above=above, now=now, lifetime=lifetime, wanted=wanted)
    return gate.check(InMemory(octets), Scope(issuer), expected=expected, before=before).head


def test_a_right_crl_passes() -> None:
    head = judge(forge())
    assert (head.number, head.this_update, head.next_update) == (7, NOW, NOW + LIFETIME - 1)


def test_a_crl_by_another_builder_passes() -> None:
    octets = WORLD.crl(number=7, this_update=NOW, next_update=NOW + LIFETIME - 1, entries=ENTRIES)
    assert judge(octets).number == 7


@pytest.mark.parametrize("algorithm", MAKERS)
def test_crls_of_every_algorithm_pass(algorithm: str) -> None:
    world = authority(algorithm=algorithm, not_before=NOW - 10**7, not_after=NOW + 10**8)
    octets = world.crl(number=7, this_update=NOW, next_update=NOW + LIFETIME - 1, entries=ENTRIES)
    assert judge(octets, issuer=world.issuer).number == 7
    broken = bytearray(octets)
    broken[-3] ^= 1
    with pytest.raises(Broken) as refused:
        gate.believe(InMemory(bytes(broken)), Scope(world.issuer))
    assert refused.value.code == "crl-signature"


def test_its_own_signature_table_agrees_with_the_one_that_signs() -> None:
    assert {name: row.identifier for name, row in anatomy.SIGNATURES.items()} == {name: row.identifier for name, row in ALGORITHMS.items()}


def test_an_empty_crl_passes() -> None:
    octets = forge(revoked=b"")
    assert judge(octets, entries=[], count=0).number == 7


# ---- R09: each planted fault is refused -----------------------------------------------------------------------------

HEX = "{:040x}".format

FAULTS = [
    pytest.param(
        lambda: OTHER.crl(number=7, this_update=NOW, next_update=NOW + LIFETIME - 1), "crl-issuer", "issuing", id="another issuer's CRL"
    ),
    pytest.param(lambda: forge(key=SAME_NAME.key), "crl-signature", "issuing", id="a look-alike CA of the same name signed it"),
    pytest.param(lambda: forge(issuer=OTHER.issuer.subject), "crl-issuer", "another issuer", id="signed by us in another issuer's name"),
    pytest.param(
        lambda: forge(outer=writer.sequence(writer.oid("1.2.840.10045.4.3.3"))), "crl-algorithm", "p256", id="outer algorithm is another"
    ),
    pytest.param(
        lambda: forge(inner=writer.sequence(writer.oid("1.2.840.10045.4.3.3"))), "crl-algorithm", "differ", id="inner algorithm is another"
    ),
    pytest.param(
        lambda: forge(outer=writer.sequence(writer.oid("1.2.840.10045.4.3.2"), writer.NULL)),
        "crl-algorithm",
        "p256",
        id="ECDSA with parameters",
    ),
    pytest.param(lambda: forge(version=writer.integer(0)), "crl-form", "v2", id="version 1"),
    pytest.param(lambda: forge(version=b""), "crl-form", "DER", id="no version"),
    pytest.param(lambda: forge(next_update=b""), "crl-form", "nextUpdate", id="no nextUpdate"),
    pytest.param(lambda: forge(revoked=writer.sequence()), "crl-form", "empty", id="an empty list of revoked certificates"),
    pytest.param(lambda: forge(extensions=b""), "crl-form", "DER", id="no extensions"),
    pytest.param(lambda: forge(extensions=writer.explicit(0, writer.sequence())), "crl-form", "empty", id="empty extensions"),
    pytest.param(lambda: forge(tail=writer.NULL), "crl-form", "goes on", id="something after the extensions"),
    pytest.param(lambda: forge() + b"\0", "crl-form", "after the end", id="octets after the end"),
    pytest.param(lambda: forge()[:-1], "crl-form", "longer", id="cut by one octet"),
    pytest.param(lambda: forge()[:100], "crl-form", "longer", id="cut in the middle"),
    pytest.param(lambda: b"", "crl-form", "ends", id="an empty file"),
    pytest.param(lambda: b"<html>404</html>", "crl-form", "DER", id="a web page"),
    pytest.param(lambda: forge(this_update=writer.generalized_time(NOW)), "crl-form", "2050", id="GeneralizedTime before 2050"),
    pytest.param(lambda: forge(this_update=b"\x17\x0b2701150800Z"), "crl-form", "time", id="UTCTime without seconds"),
    pytest.param(lambda: forge(extensions=writer.explicit(0, writer.sequence(AKI))), "crl-form", "CRLNumber", id="no CRL number"),
    pytest.param(
        lambda: forge(extensions=writer.explicit(0, writer.sequence(number_extension()))),
        "crl-form",
        "authorityKeyIdentifier",
        id="no authority key identifier",
    ),
    pytest.param(
        lambda: forge(extensions=writer.explicit(0, writer.sequence(AKI, number_extension(), number_extension()))),
        "crl-form",
        "2.5.29.20 stands twice",
        id="two CRL numbers",
    ),
    pytest.param(
        lambda: forge(extensions=writer.explicit(0, writer.sequence(AKI, number_extension(critical=True)))),
        "crl-extension",
        "2.5.29.20",
        id="a critical CRL number",
    ),
    pytest.param(
        lambda: forge(extensions=writer.explicit(0, writer.sequence(AKI, number_extension(1 << 168)))),
        "crl-form",
        "20 octets",
        id="a CRL number of 22 octets",
    ),
    pytest.param(
        lambda: forge(extensions=writer.explicit(0, writer.sequence(AKI, number_extension(-1)))),
        "crl-form",
        "negative",
        id="a negative CRL number",
    ),
    pytest.param(
        lambda: forge(
            extensions=writer.explicit(
                0, writer.sequence(AKI, number_extension(), writer.extension("2.5.29.27", writer.integer(3), critical=True))
            )
        ),
        "crl-kind",
        "delta",
        id="a delta CRL",
    ),
    pytest.param(
        lambda: forge(
            extensions=writer.explicit(
                0,
                writer.sequence(
                    writer.extension("2.5.29.35", writer.sequence(writer.implicit(0, OTHER.issuer.key_identifier)), critical=False),
                    number_extension(),
                ),
            )
        ),
        "crl-key-identifier",
        "issuing",
        id="another key's identifier",
    ),
    pytest.param(
        lambda: forge(
            extensions=writer.explicit(
                0,
                writer.sequence(
                    writer.extension(
                        "2.5.29.35",
                        writer.sequence(writer.implicit(0, ISSUER.key_identifier), writer.implicit(2, b"\x07")),
                        critical=False,
                    ),
                    number_extension(),
                ),
            )
        ),
        "crl-form",
        "something else",
        id="an authority key identifier that also names a serial",
    ),
    pytest.param(
        lambda: forge(extensions=writer.explicit(0, writer.sequence(AKI, number_extension(8)))),
        "crl-not-intended",
        "number",
        id="another number than recorded",
    ),
    pytest.param(lambda: forge(this_update=writer.time(NOW + 1)), "crl-not-intended", "thisUpdate", id="another thisUpdate than recorded"),
    pytest.param(
        lambda: forge(next_update=writer.time(NOW + LIFETIME - 2)), "crl-not-intended", "nextUpdate", id="another nextUpdate than recorded"
    ),
    pytest.param(lambda: forge(next_update=writer.time(NOW + LIFETIME)), "crl-window", "86400", id="R04: one second too long"),
    pytest.param(lambda: forge(next_update=writer.time(NOW)), "crl-window", "not after", id="nextUpdate equals thisUpdate"),
    pytest.param(
        lambda: forge(this_update=writer.time(NOW + 302), next_update=writer.time(NOW + 400)), "crl-window", "future", id="from the future"
    ),
    pytest.param(lambda: forge(this_update=writer.time(NOW - 5000), next_update=writer.time(NOW)), "crl-window", "past", id="over already"),
    pytest.param(
        lambda: forge(this_update=writer.time(NOW - 5000), next_update=writer.time(NOW + 5000)),
        "crl-window",
        "long past",
        id="signed long ago",
    ),
    pytest.param(
        lambda: forge(next_update=writer.time(ISSUER.not_after + 1)),
        "crl-window",
        "after the end of issuing",
        id="R05: outlives the issuer",
    ),
    pytest.param(lambda: forge(revoked=writer.sequence(*PLAIN[:-1])), "crl-missing", HEX(serial(9)), id="R07: the last entry is missing"),
    pytest.param(lambda: forge(revoked=writer.sequence(*PLAIN[1:])), "crl-missing", HEX(serial(1)), id="R07: the first entry is missing"),
    pytest.param(
        lambda: forge(revoked=writer.sequence(PLAIN[0], *PLAIN[2:])), "crl-missing", HEX(serial(2)), id="R07: an entry is missing"
    ),
    pytest.param(lambda: forge(revoked=b""), "crl-missing", HEX(serial(1)), id="R07: all entries are missing"),
    pytest.param(
        lambda: forge(revoked=writer.sequence(*PLAIN[:3], entry(CrlEntry(serial(5), NOW, Reason.unspecified)), PLAIN[3])),
        "crl-unexpected",
        HEX(serial(5)),
        id="somebody stands there who is not revoked",
    ),
    pytest.param(
        lambda: forge(revoked=writer.sequence(*PLAIN, entry(CrlEntry(serial(99), NOW, Reason.unspecified)))),
        "crl-unexpected",
        HEX(serial(99)),
        id="somebody stands at the end who is not revoked",
    ),
    pytest.param(
        lambda: forge(revoked=writer.sequence(PLAIN[0], *PLAIN)), "crl-order", f"{HEX(serial(1))} stands twice", id="R08: a serial twice"
    ),
    pytest.param(
        lambda: forge(revoked=writer.sequence(PLAIN[0], PLAIN[1], PLAIN[3], PLAIN[2])),
        "crl-order",
        HEX(serial(9)),
        id="entries out of order",
    ),
    pytest.param(
        lambda: forge(revoked=writer.sequence(entry(replace(ENTRIES[0], revoked_at=NOW - 501)), *PLAIN[1:])),
        "crl-entry",
        HEX(serial(1)),
        id="another date than recorded",
    ),
    pytest.param(
        lambda: forge(revoked=writer.sequence(entry(replace(ENTRIES[0], reason=Reason.superseded)), *PLAIN[1:])),
        "crl-entry",
        "superseded",
        id="another reason than recorded",
    ),
    pytest.param(
        lambda: forge(revoked=writer.sequence(entry(replace(ENTRIES[0], revoked_at=NOW + 1000)), *PLAIN[1:])),
        "crl-entry",
        "after thisUpdate",
        id="revoked in the future",
    ),
    pytest.param(
        lambda: forge(revoked=writer.sequence(PLAIN[0], entry(ENTRIES[1], extensions=reason_extension(writer.enumerated(0))), *PLAIN[2:])),
        "crl-entry",
        "unspecified",
        id="reason unspecified spelled out",
    ),
    pytest.param(
        lambda: forge(revoked=writer.sequence(PLAIN[0], entry(ENTRIES[1], extensions=reason_extension(writer.enumerated(7))), *PLAIN[2:])),
        "crl-entry",
        "7",
        id="reason 7, which is not used",
    ),
    pytest.param(
        lambda: forge(revoked=writer.sequence(PLAIN[0], entry(ENTRIES[1], extensions=reason_extension(writer.enumerated(8))), *PLAIN[2:])),
        "crl-entry",
        "delta",
        id="removeFromCRL in a whole CRL",
    ),
    pytest.param(
        lambda: forge(revoked=writer.sequence(entry(ENTRIES[0], extensions=reason_extension(writer.integer(1))), *PLAIN[1:])),
        "crl-entry",
        HEX(serial(1)),
        id="a reason that is an INTEGER",
    ),
    pytest.param(
        lambda: forge(
            revoked=writer.sequence(entry(ENTRIES[0], extensions=reason_extension(writer.enumerated(1), critical=True)), *PLAIN[1:])
        ),
        "crl-entry",
        "critical",
        id="a critical reason",
    ),
    pytest.param(
        lambda: forge(
            revoked=writer.sequence(
                entry(ENTRIES[0], extensions=writer.sequence(writer.extension("2.5.29.29", writer.sequence(), critical=True))), *PLAIN[1:]
            )
        ),
        "crl-entry",
        "other extensions",
        id="an entry of an indirect CRL",
    ),
    pytest.param(
        lambda: forge(revoked=writer.sequence(entry(ENTRIES[0], number=writer.integer(-5)), *PLAIN[1:])),
        "crl-entry",
        "positive",
        id="a negative serial",
    ),
    pytest.param(
        lambda: forge(revoked=writer.sequence(entry(ENTRIES[0], number=writer.integer(0)), *PLAIN[1:])),
        "crl-entry",
        "positive",
        id="serial 0",
    ),
    pytest.param(
        lambda: forge(revoked=writer.sequence(entry(ENTRIES[0], number=writer.integer(1 << 164)), *PLAIN[1:])),
        "crl-entry",
        "20 octets",
        id="a serial of 21 octets",
    ),
    pytest.param(
        lambda: forge(revoked=writer.sequence(entry(ENTRIES[0], when=writer.generalized_time(NOW - 500)), *PLAIN[1:])),
        "crl-entry",
        "2050",
        id="an entry with GeneralizedTime before 2050",
    ),
    pytest.param(lambda: forge(after=writer.NULL), "crl-form", "after its signature", id="something after the signature"),
    pytest.param(
        lambda: forge(extensions=writer.explicit(0, writer.sequence(AKI, number_extension()) + writer.NULL)),
        "crl-form",
        "followed",
        id="something beside the extensions",
    ),
    pytest.param(
        lambda: extended(writer.extension("2.5.29.46", writer.sequence(), critical=False)),
        "crl-form",
        "empty",
        id="a freshest CRL that says nothing",
    ),
    pytest.param(lambda: extended(writer.octet_string(b"x")), "crl-form", "SEQUENCE", id="an extension that is an OCTET STRING"),
    pytest.param(
        lambda: extended(writer.sequence(writer.oid("2.5.29.46"), writer.octet_string(b"x"), writer.NULL)),
        "crl-form",
        "end with its value",
        id="an extension that goes on after its value",
    ),
    pytest.param(
        lambda: extended(writer.sequence(writer.oid("2.5.29.46"), b"\x01\x01\x00", writer.octet_string(b"x"))),
        "crl-form",
        "critical FALSE",
        id="an extension that spells out that it is not critical",
    ),
    pytest.param(
        lambda: forge(revoked=writer.sequence(writer.sequence(writer.octet_string(b"x"), writer.time(NOW)))),
        "crl-form",
        "without a serial",
        id="an entry without a serial",
    ),
    pytest.param(
        lambda: forge(revoked=writer.sequence(*PLAIN, writer.NULL)), "crl-form", "not an entry", id="something that is not an entry"
    ),
]


@pytest.mark.parametrize(("make", "code", "word"), FAULTS)
def test_R09_a_planted_fault_is_refused(make: Callable[[], bytes], code: str, word: str) -> None:
    with pytest.raises(Broken) as refused:
        judge(make())
    assert refused.value.code == code, refused.value
    assert word in f"{refused.value.what} {refused.value.why}"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"above": 7}, "crl-number", id="R11: its number was used before"),
        pytest.param({"above": 70}, "crl-number", id="R11: its number is far below the high-water mark"),
        pytest.param({"count": 3}, "crl-count", id="the record counts other entries"),
        pytest.param({"issuer": replace(ISSUER, may_sign_crl=False)}, "crl-issuer", id="the issuer lacks cRLSign"),
        pytest.param({"tbs_sha256": Digest(bytes(32))}, "crl-not-intended", id="other octets than recorded were signed"),
        pytest.param({"entries": []}, "crl-unexpected", id="the record lists nobody"),
        pytest.param({"now": NOW + LIFETIME}, "crl-window", id="it ended while it lay about"),
        pytest.param(
            {"issuer": replace(ISSUER, key_identifier=b"x" * 20)}, "crl-key-identifier", id="the issuer has another key identifier"
        ),
    ],
)
def test_P6_a_right_crl_at_the_wrong_place_is_refused(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(Broken) as refused:
        judge(forge(), **changes)
    assert refused.value.code == code


def test_R09_every_flipped_bit_is_refused() -> None:
    octets = forge()
    for position in range(0, len(octets) * 8, 5):
        broken = bytearray(octets)
        broken[position // 8] ^= 1 << position % 8
        with pytest.raises(Broken):
            judge(bytes(broken))


# ---- R07: nobody is forgotten ---------------------------------------------------------------------------------------


def old_crl(entries: Sequence[CrlEntry], *, number: int = 6, this_update: int = NOW - 3600, by: Authority = WORLD) -> bytes:
    return by.crl(number=number, this_update=this_update, next_update=this_update + LIFETIME - 1, entries=entries)


GONE = CrlEntry(serial(4), NOW - 9000, Reason.certificateHold)
OLD = old_crl(sorted([*ENTRIES[:2], GONE, CrlEntry(serial(200), NOW - 9000, Reason.superseded)], key=lambda one: one.serial))


def change(n: Serial, *, reason: Reason = Reason.keyCompromise, number: int = 30, not_after: int = NOW + 10**6) -> Revocation:
    return Revocation(number, CertificateRef(IssuerId("issuing"), n), reason, NOW - 9000, not_after, listed=True)


EXPIRED = change(serial(200), not_after=NOW - 3601)
"""Ended before the published CRL was made, so that one was its one CRL after expiry."""


@pytest.mark.parametrize(
    ("four", "two_hundred", "refused_for"),
    [
        pytest.param(change(serial(4), reason=Reason.removeFromCRL), EXPIRED, None, id="one was released and one was listed after expiry"),
        pytest.param(change(serial(4)), EXPIRED, serial(4), id="revoked and unexpired, and gone"),
        pytest.param(None, EXPIRED, serial(4), id="R12: the record knows nothing of it"),
        pytest.param(
            change(serial(4), reason=Reason.removeFromCRL, number=41),
            EXPIRED,
            serial(4),
            id="released, but only after this CRL's change number",
        ),
        pytest.param(
            change(serial(4), reason=Reason.removeFromCRL),
            change(serial(200), not_after=NOW - 3600),
            serial(200),
            id="ended in the very second of the published CRL, when it still held",
        ),
        pytest.param(
            change(serial(4), reason=Reason.removeFromCRL),
            change(serial(200), not_after=NOW - 10),
            serial(200),
            id="expired since, and never listed after that",
        ),
        pytest.param(change(serial(4), reason=Reason.removeFromCRL), None, serial(200), id="the last of the old list is forgotten"),
    ],
)
def test_P6_R07_who_left_the_list_must_have_been_allowed_to(
    four: Revocation | None, two_hundred: Revocation | None, refused_for: Serial | None
) -> None:
    record = {serial(4): four, serial(200): two_hundred}
    before = Before(InMemory(OLD), NOW - 3600, record.get)
    if refused_for is None:
        assert judge(forge(), before=before).number == 7
        return
    with pytest.raises(Broken) as refused:
        judge(forge(), before=before)
    assert refused.value.code == "crl-forgotten"
    assert HEX(refused_for) in refused.value.what


def test_R07_each_removed_row_blocks_publication_even_when_the_record_lost_it_too() -> None:
    """The mutant: a clean-up deleted the row, so signer and record agree on a list that forgets."""
    for lost in ENTRIES:
        left = [one for one in ENTRIES if one is not lost]
        octets = forge(revoked=writer.sequence(*(entry(one) for one in left)))
        with pytest.raises(Broken) as refused:
            judge(octets, entries=left, count=len(left), before=Before(InMemory(old_crl(ENTRIES)), NOW - 3600, {}.get))
        assert refused.value.code == "crl-forgotten"
        assert HEX(lost.serial) in refused.value.what


@pytest.mark.parametrize(
    ("old", "code"),
    [
        pytest.param(lambda: old_crl(ENTRIES, number=7), "crl-number", id="the published CRL has the same number"),
        pytest.param(lambda: old_crl(ENTRIES, this_update=NOW + 5), "crl-window", id="the published CRL is younger"),
        pytest.param(lambda: old_crl(ENTRIES, by=SAME_NAME), "crl-signature", id="the published CRL is not ours"),
    ],
)
def test_P6_it_must_follow_the_published_one(old: Callable[[], bytes], code: str) -> None:
    with pytest.raises(Broken) as refused:
        judge(forge(), before=Before(InMemory(old()), NOW - 3600, {}.get))
    assert refused.value.code == code


# ---- CRLs from a ceremony -------------------------------------------------------------------------------------------


def test_a_ceremony_crl_is_inspected_without_a_record() -> None:
    year = 365 * LIFETIME
    octets = WORLD.crl(number=1, this_update=NOW, next_update=NOW + year, entries=ENTRIES)
    assert gate.inspect(InMemory(octets), Scope(ISSUER), now=NOW + 10**6).head.number == 1


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        pytest.param(lambda: forge(next_update=writer.time(NOW + 9)), "crl-window", id="over already"),
        pytest.param(lambda: forge(revoked=writer.sequence(PLAIN[1], PLAIN[0], PLAIN[1])), "crl-order", id="a serial twice"),
        pytest.param(lambda: forge(revoked=writer.sequence(writer.NULL)), "crl-form", id="no entry where one should be"),
        pytest.param(lambda: OTHER.crl(number=7, this_update=NOW, next_update=NOW + 99), "crl-issuer", id="another issuer's"),
    ],
)
def test_a_wrong_ceremony_crl_is_refused(octets: Callable[[], bytes], code: str) -> None:
    with pytest.raises(Broken) as refused:
        gate.inspect(InMemory(octets()), Scope(ISSUER), now=NOW + 10)
    assert refused.value.code == code


# ---- memory ---------------------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anatomy, "CHUNK", 4096)
    monkeypatch.setattr(elements, "_PIECE", 64)

    def made(count: int) -> bytes:
        return forge(revoked=writer.sequence(*(entry(CrlEntry(serial(n), NOW - 5, Reason.keyCompromise)) for n in range(count))))

    def peak(count: int) -> int:
        octets = made(count)
        before = Before(InMemory(old_crl([])), NOW - 3600, {}.get)
        expected = Expected(
            intent=intent_of(octets, count=count),
            above=6,
            now=NOW + 1,
            lifetime=LIFETIME,
            wanted=Recorded(lambda: (CrlEntry(serial(n), NOW - 5, Reason.keyCompromise) for n in range(count)), fits=lambda _: True),
        )
        tracemalloc.start()
        try:
            gate.check(InMemory(octets), Scope(ISSUER), expected=expected, before=before)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    assert peak(8000) < peak(80) + 64 * 1024


def test_the_digest_is_that_of_the_signed_part() -> None:
    octets = forge()
    read = anatomy.read(InMemory(octets))
    assert anatomy.verify(read, ISSUER) == sha256(octets[read.tbs.start : read.tbs.end]).digest()


@pytest.mark.parametrize("day", [-1, 0, 58, 59, 60, 365, 366 * 3, 7670])
@pytest.mark.parametrize("second", [0, 1, 59, 3599, 3600, 86399])
def test_dates_of_entries_are_read_as_the_calendar_has_them(day: int, second: int) -> None:
    when = 946684800 + day * 86400 + second
    octets = forge(revoked=writer.sequence(entry(CrlEntry(serial(1), when, Reason.keyCompromise))))
    assert [one[1] for one in anatomy.entries(anatomy.read(InMemory(octets)))] == [when]


@pytest.mark.parametrize(
    "text", ["270115240000Z", "270115006000Z", "270115000060Z", "270230000000Z", "271301000000Z", "2701150000 0Z", "27011500000aZ"]
)
def test_dates_that_no_calendar_has_are_refused(text: str) -> None:
    octets = forge(revoked=writer.sequence(entry(ENTRIES[0], when=writer.tlv(0x17, text.encode()))))
    with pytest.raises(Broken) as refused:
        judge(octets)
    assert refused.value.code == "crl-entry"
