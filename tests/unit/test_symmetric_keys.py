"""Keys that are no certificate's: derived (RFC 5869), wrapped (RFC 3394, RFC 5649), shared by groups in epochs, and their declared hierarchy."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ca.errors import FleetcaError
from ca.model import DeviceId
from ca.rules import derive, group_keys, key_hierarchy, wrap
from ca.rules.key_hierarchy import Key
from tests.refusals import code_of

SALT = bytes(range(16))
SECRET = bytes(range(1, 33))
PURPOSE = derive.Purpose("telemetry", "pump-1", "client-to-server", 1)


# ---- HKDF -----------------------------------------------------------------------------------------------------------


def span(first: int, last: int) -> bytes:
    return bytes(range(first, last + 1))


@pytest.mark.req("REQ-KEY-022")
@pytest.mark.parametrize(
    ("secret", "salt", "info", "length", "prk", "okm"),
    [
        pytest.param(
            b"\x0b" * 22, span(0, 0x0C), span(0xF0, 0xF9), 42,
            "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
            id="RFC 5869 A.1",
        ),
        pytest.param(
            span(0, 0x4F), span(0x60, 0xAF), span(0xB0, 0xFF), 82,
            "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
            "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
            id="RFC 5869 A.2",
        ),
        pytest.param(
            b"\x0b" * 22, b"", b"", 42,
            "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
            id="RFC 5869 A.3",
        ),
    ],
)  # fmt: skip
def test_hkdf_is_that_of_the_rfc(secret: bytes, salt: bytes, info: bytes, length: int, prk: str, okm: str) -> None:
    assert derive.extract(salt, secret).hex() == prk
    assert derive.expand(bytes.fromhex(prk), info, length).hex() == okm


@pytest.mark.req("REQ-KEY-022")
@pytest.mark.parametrize(
    ("sentence", "change", "code"),
    [
        ("no salt", {"salt": b""}, "no-salt"),
        ("a short salt", {"salt": SALT[:15]}, "no-salt"),
        ("a salt of zeros", {"salt": bytes(32)}, "no-salt"),
        ("a short secret", {"secret": SECRET[:15]}, "weak-secret"),
        ("a secret of one octet, many times", {"secret": b"\7" * 32}, "weak-secret"),
        ("an empty label", {"purpose": replace(PURPOSE, label=" ")}, "no-purpose"),
        ("a label of two lines", {"purpose": replace(PURPOSE, label="a\nb")}, "no-purpose"),
        ("a long device", {"purpose": replace(PURPOSE, device="x" * 65)}, "no-purpose"),
        ("an epoch before the first", {"purpose": replace(PURPOSE, epoch=-1)}, "no-purpose"),
        ("a key of 15 octets", {"length": 15}, "derived-length"),
        ("more than 255 blocks", {"length": 255 * 32 + 1}, "derived-length"),
        ("255 blocks", {"length": 255 * 32}, ""),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_a_derivation_without_salt_purpose_or_measure_is_refused(sentence: str, change: dict[str, Any], code: str) -> None:
    asked: dict[str, Any] = {"secret": SECRET, "salt": SALT, "purpose": PURPOSE, "length": 32} | change
    assert code_of(lambda: derive.derive(asked.pop("secret"), **asked)) == code, sentence


WORD = st.text("ab", max_size=3)
PURPOSES = st.builds(derive.Purpose, st.text("ab", min_size=1, max_size=3), WORD, WORD, st.integers(0, 3))


@settings(max_examples=80, deadline=None)
@given(PURPOSES, PURPOSES, st.integers(16, 20), st.integers(16, 20))
def test_different_purposes_never_have_the_same_info(one: derive.Purpose, other: derive.Purpose, first: int, second: int) -> None:
    assert (derive.info(one, first) == derive.info(other, second)) == ((one, first) == (other, second))


# ---- Wraps ----------------------------------------------------------------------------------------------------------

KEK = bytes.fromhex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")


@pytest.mark.req("REQ-KEY-061")
@pytest.mark.parametrize(
    ("key", "under", "padded", "wrapped"),
    [
        pytest.param(
            "00112233445566778899aabbccddeeff", KEK[:16].hex(), False, "1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5", id="RFC 3394 4.1"
        ),
        pytest.param(
            "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f", KEK.hex(), False,
            "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21", id="RFC 3394 4.6",
        ),
        pytest.param(
            "c37b7e6492584340bed12207808941155068f738", "5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8", True,
            "138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a", id="RFC 5649 6, 20 octets",
        ),
        pytest.param(
            "466f7250617369", "5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8", True, "afbeb0f07dfbf5419200f2ccb50bb24f",
            id="RFC 5649 6, 7 octets",
        ),
    ],
)  # fmt: skip
def test_wraps_are_those_of_the_rfcs(key: str, under: str, padded: bool, wrapped: str) -> None:
    assert wrap.wrap(bytes.fromhex(key), bytes.fromhex(under), padded=padded).hex() == wrapped
    assert wrap.unwrap(bytes.fromhex(wrapped), bytes.fromhex(under), padded=padded).hex() == key


@pytest.mark.req("REQ-KEY-061")
def test_another_wrapping_key_and_every_changed_octet_are_noticed() -> None:
    wrapped = wrap.wrap(SECRET, KEK)
    assert code_of(lambda: wrap.unwrap(wrapped, SECRET)) == "unwrap-failed"
    for place in range(len(wrapped)):
        changed = bytearray(wrapped)
        changed[place] ^= 1
        assert code_of(lambda octets=bytes(changed): wrap.unwrap(octets, KEK)) == "unwrap-failed"  # type: ignore[misc]
    for cut in (b"", wrapped[:8], wrapped[:-1], wrapped + b"\0"):
        assert code_of(lambda octets=cut: wrap.unwrap(octets, KEK)) == "unwrap-failed"  # type: ignore[misc]
    assert wrap.unwrap(wrapped, KEK, check=wrap.check_value(SECRET).upper()) == SECRET
    assert code_of(lambda: wrap.unwrap(wrapped, KEK, check="0000000000")) == "wrong-key"


@pytest.mark.parametrize(
    ("key", "under", "padded", "code"),
    [
        (SECRET, KEK[:16], True, "weaker-parent"),
        (SECRET, KEK[:15], True, "no-aes-key"),
        (b"", KEK, True, "wrap-length"),
        (SECRET[:20], KEK, False, "wrap-length"),
        (SECRET[:8], KEK, False, "wrap-length"),
        (bytes(65 * 1024), KEK, True, "wrap-length"),
    ],
)
def test_what_is_not_wrapped(key: bytes, under: bytes, padded: bool, code: str) -> None:
    assert code_of(lambda: wrap.wrap(key, under, padded=padded)) == code


# ---- Groups ---------------------------------------------------------------------------------------------------------

ANN, BEN, EVE = DeviceId("ann"), DeviceId("ben"), DeviceId("eve")
KEYS = [bytes([number, *range(31)]) for number in range(1, 9)]


def own(name: str) -> bytes:
    return group_keys.member_key(SECRET, "pumps", DeviceId(name))


@pytest.mark.req("REQ-KEY-105")
def test_a_leaver_cannot_read_the_next_epoch_nor_a_joiner_the_last() -> None:
    first = group_keys.begin("pumps", [ANN, BEN], key=KEYS[0], of=own)
    second = group_keys.change(first, leave=[BEN], key=KEYS[1], of=own)
    third = group_keys.change(second, join=[EVE], key=KEYS[2], of=own)
    assert [group_keys.read(epoch, ANN, own(ANN)) for epoch in (first, second, third)] == KEYS[:3]
    assert group_keys.read(first, BEN, own(BEN)) == KEYS[0]
    assert group_keys.read(third, EVE, own(EVE)) == KEYS[2]
    assert code_of(lambda: group_keys.read(second, BEN, own(BEN))) == "not-in-group"
    assert code_of(lambda: group_keys.read(second, EVE, own(EVE))) == "not-in-group"
    # Nor under another name, nor with an entry of another epoch put in for it, nor with the group's old key.
    for epoch, member in itertools.product((second, third), (ANN, EVE)):
        if member in epoch.members:
            assert code_of(lambda e=epoch, m=member: group_keys.read(e, m, own(BEN))) == "unwrap-failed"  # type: ignore[misc]
            assert code_of(lambda e=epoch, m=member: group_keys.read(e, m, KEYS[0])) == "unwrap-failed"  # type: ignore[misc]
    forged = replace(second, members={BEN: first.members[BEN]})
    assert code_of(lambda: group_keys.read(forged, BEN, own(BEN))) == "unwrap-failed"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sets(st.sampled_from("abcde")), st.sets(st.sampled_from("abcde"))), max_size=6))
def test_whoever_comes_and_goes_reads_exactly_the_epochs_of_its_time(moves: list[tuple[set[str], set[str]]]) -> None:
    epochs = [group_keys.begin("pumps", [DeviceId("a")], key=bytes([0, *range(31)]), of=own)]
    inside = [{"a"}]
    for number, (join, leave) in enumerate(moves, 1):
        comes, goes = join - inside[-1], (leave & inside[-1]) - join
        after = (inside[-1] | comes) - goes
        if not after:
            continue
        key = bytes([number, *range(31)])
        epochs.append(group_keys.change(epochs[-1], join=map(DeviceId, comes), leave=map(DeviceId, goes), key=key, of=own))
        inside.append(after)
    for (epoch, members), name in itertools.product(zip(epochs, inside, strict=True), "abcde"):
        assert (code_of(lambda e=epoch, n=name: group_keys.read(e, DeviceId(n), own(n))) == "") == (name in members)  # type: ignore[misc]
        assert group_keys.parse(group_keys.write(epoch)) == epoch


@pytest.mark.parametrize(
    ("sentence", "change", "code"),
    [
        ("who is in it joins", {"join": [ANN]}, "group-member"),
        ("who is not in it leaves", {"leave": [EVE]}, "group-member"),
        ("one joins and leaves", {"join": [EVE], "leave": [EVE]}, "group-member"),
        ("all leave", {"leave": [ANN, BEN]}, "group-size"),
        ("the old key again", {"key": KEYS[0]}, "group-key-again"),
        ("half a key", {"key": KEYS[0][:16]}, "no-aes-key"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_no_epoch_comes_of(sentence: str, change: dict[str, Any], code: str) -> None:
    first = group_keys.begin("pumps", [ANN, BEN], key=KEYS[0], of=own)
    assert code_of(lambda: group_keys.change(first, **({"key": KEYS[1], "of": own} | change))) == code, sentence


@pytest.mark.parametrize(
    "octets",
    [
        b"", b"[]", b"{}", b"[" * 100_000, b'{"group":"g","epoch":0,"check":"00","members":{"a":"00"}}',
        b'{"group":"g","epoch":true,"check":"00","members":{"a":"00"}}', b'{"group":"g","epoch":1,"check":"00","members":{}}',
        b'{"group":"../g","epoch":1,"check":"00","members":{"a":"00"}}', b'{"group":"g","epoch":1,"check":"00","members":{"a":"xx"}}',
        b'{"group":"g","epoch":1,"check":"00","members":{"a":"00"},"more":1}', b'{"group":"g","epoch":1,"check":0,"members":{"a":"00"}}',
    ],
)  # fmt: skip
def test_what_is_no_epoch_is_refused(octets: bytes) -> None:
    assert code_of(lambda: group_keys.parse(octets)) in {"group-document", "bad-device-id"}


# ---- The hierarchy --------------------------------------------------------------------------------------------------

LAWFUL = [
    Key("root", ("root",), "p384"),
    Key("issuing", ("certificate-signing",), "p256", "root"),
    Key("device", ("authentication",), "p256", "issuing"),
    Key("vault", ("root",), "aes-256"),
    Key("fleet", ("key-wrapping",), "aes-256", "vault"),
    Key("tenant <a>", ("derivation",), "hkdf-sha256", "fleet"),
    Key("telemetry", ("session",), "aes-128", "tenant <a>"),
]


def changed(name: str, **change: Any) -> list[Key]:
    return [replace(key, **change) if key.name == name else key for key in LAWFUL]


def test_a_lawful_hierarchy_is_drawn() -> None:
    key_hierarchy.check(LAWFUL)
    assert key_hierarchy.text(LAWFUL).splitlines()[:3] == [
        "root (root, p384)",
        "  issuing (certificate-signing, p256)",
        "    device (authentication, p256)",
    ]
    assert '"issuing" -> "device";' in key_hierarchy.dot(LAWFUL)
    drawn = ET.fromstring(key_hierarchy.svg(LAWFUL))
    words = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {key.name for key in LAWFUL} <= set(words)
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}path"))) == 5


@pytest.mark.req("REQ-KEY-052")
@pytest.mark.parametrize(
    ("keys", "words"),
    [
        pytest.param(
            changed("vault", purposes=("key-wrapping",), parent="fleet"), "it stands below itself: vault < fleet < vault", id="a circle"
        ),
        pytest.param(changed("fleet", parent="fleet"), "it stands below itself: fleet < fleet", id="its own parent"),
        pytest.param(changed("issuing", purposes=("certificate-signing", "encryption")), "it has 2 purposes", id="two purposes"),
        pytest.param(changed("device", purposes=()), "it has 0 purposes", id="no purpose"),
        pytest.param(changed("fleet", algorithm="aes-128"), "its parent 'fleet' is weaker (128 bits)", id="a weaker parent"),
        pytest.param(
            changed("telemetry", parent="device"), "a key for session stands below authentication key", id="a session under a certificate"
        ),
        pytest.param(changed("device", parent="nobody"), "its parent 'nobody' is not declared", id="an unknown parent"),
        pytest.param(changed("device", parent=None), "only a root has none", id="an orphan"),
        pytest.param(changed("root", parent="vault"), "lawful is nothing", id="a root below a root"),
        pytest.param(changed("device", algorithm="rot13"), "the algorithm 'rot13' is unknown", id="an unknown algorithm"),
        pytest.param(changed("device", purposes=("fun",)), "the purpose 'fun' is unknown", id="an unknown purpose"),
        pytest.param([*LAWFUL, LAWFUL[0]], "root stands in it twice", id="a name twice"),
        pytest.param(
            [*LAWFUL, *(Key(f"k{n}", ("key-wrapping",), "aes-256", f"k{n - 1}" if n else "vault") for n in range(8))],
            "it lies 7 steps deep",
            id="deep",
        ),
    ],
)
def test_a_hierarchy_is_refused_with_the_key_and_the_reason(keys: list[Key], words: str) -> None:
    with pytest.raises(FleetcaError) as refused:
        key_hierarchy.check(keys)
    assert refused.value.code == "key-hierarchy"
    assert words in refused.value.why
