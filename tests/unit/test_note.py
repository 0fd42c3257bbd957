"""Signed notes and checkpoints as C2SP writes them."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.errors import Malformed, Misconfigured, Unauthenticated
from ca.model import Digest
from ca.rules import note
from tests.fakes.record import LogKey

KEY = LogKey()
NOTE_KEY = note.note_key("demo", KEY.spki)
ROOT = Digest(bytes(range(32)))
TEXT = note.checkpoint_text("demo", 7, ROOT)
NOTE = note.signed_note(TEXT, NOTE_KEY, KEY.sign(TEXT.encode()))

# The key and the note that the package documentation of Go's sumdb/note uses; signed-note is that format.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
ADVICE = """If you think cryptography is the answer to your problem,
then you don't know what your problem is.

— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
"""


def test_a_note_of_another_implementation_opens() -> None:
    key = note.read_note_key(PETER)
    assert str(key) == PETER
    assert note.open_note(ADVICE.encode(), [key]).startswith("If you think")
    with pytest.raises(Unauthenticated):
        note.open_note(ADVICE.replace("problem is", "answer is").encode(), [key])


def test_a_checkpoint_reads_as_it_was_written() -> None:
    found = note.read_checkpoint(NOTE, [NOTE_KEY])
    assert (found.origin, found.size, found.root, found.note) == ("demo", 7, ROOT, NOTE)
    assert NOTE.decode().split("\n")[:4] == ["demo", "7", base64.b64encode(ROOT).decode(), ""]


@given(st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="+"), min_size=1), st.binary(min_size=32, max_size=32))
def test_a_key_reads_as_it_is_written(name: str, public: bytes) -> None:
    key = note.NoteKey(name, public)
    assert note.read_note_key(str(key)) == key


def with_signature(line: str) -> bytes:
    return NOTE + line.encode() + b"\n"


def test_signatures_of_strangers_are_ignored_and_one_that_is_known_and_wrong_is_not() -> None:
    stranger = note.note_key("witness", LogKey(b"w").spki)
    line = f"— witness {base64.b64encode(stranger.id + bytes(64)).decode()}"
    assert note.read_checkpoint(with_signature(line), [NOTE_KEY]).size == 7
    with pytest.raises(Unauthenticated):
        note.read_checkpoint(with_signature(line), [NOTE_KEY, stranger])


def resigned(text: str) -> bytes:
    return note.signed_note(text, NOTE_KEY, KEY.sign(text.encode()))


ENCODED = base64.b64encode(ROOT).decode()


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\xff", id="not UTF-8"),
        pytest.param(TEXT.encode(), id="no signature"),
        pytest.param(NOTE[:-1], id="no newline at the end"),
        pytest.param(NOTE.replace(b"\n", b"\r\n"), id="lines of another system"),
        pytest.param(NOTE.replace("— ".encode(), b"- "), id="a hyphen for the dash"),
        pytest.param(with_signature("— demo !!!!"), id="a signature that is not base64"),
        pytest.param(with_signature("— demo AAAA"), id="a signature too short for a key id"),
        pytest.param(NOTE + b"x" * (1 << 19), id="too long"),
        pytest.param(NOTE + NOTE.splitlines(keepends=True)[-1] * 100, id="too many signatures"),
        pytest.param(resigned("demo\n7\n"), id="no root"),
        pytest.param(resigned(f"demo\n07\n{ENCODED}\n"), id="a size with a leading zero"),
        pytest.param(resigned(f"demo\n-1\n{ENCODED}\n"), id="a size below zero"),
        pytest.param(resigned(f"demo\n٧\n{ENCODED}\n"), id="a size in other digits"),
        pytest.param(resigned("demo\n7\nAAAA\n"), id="a root that is too short"),
        pytest.param(resigned("demo\n7\n!!!!\n"), id="a root that is not base64"),
        pytest.param(resigned(f"\n7\n{ENCODED}\n"), id="no origin"),
        pytest.param(resigned(f"demo\n7\n{ENCODED}\n\nmore\n"), id="an empty line among the extensions"),
    ],
)
def test_no_checkpoint_is(octets: bytes) -> None:
    with pytest.raises(Malformed):
        note.read_checkpoint(octets, [NOTE_KEY])


def test_extension_lines_are_allowed() -> None:
    assert note.read_checkpoint(resigned(f"demo\n7\n{ENCODED}\nextension\n"), [NOTE_KEY]).size == 7


@pytest.mark.parametrize("name", ["", "two words", "a+b", "tab\tbed", "no\u00a0break"])
def test_a_log_cannot_be_named(name: str) -> None:
    with pytest.raises(Misconfigured):
        note.note_key(name, KEY.spki)


def test_a_key_of_another_kind_signs_no_log() -> None:
    with pytest.raises(Misconfigured) as refused:
        note.note_key("demo", KEY.spki[:-1])
    assert refused.value.code == "log-key-type"
