"""The spool: finished answers of every certificate, packed into one file an issuer, for whoever restarts while database and signer are gone (P7).
Ring 3.

One process writes (a lock says which), any number read; nobody who only asks for status can write. A file is a hash table of records of one size;
slots are filled in place and found by probing. Readers map it and check each record's sum, so a record that is being written is a miss and
nothing worse. A table that becomes full is copied into a larger one beside it and renamed; readers notice the new file within a second.

    ISSUER.spool            the table
    responders/             the certificates of responder keys, by issuer and hash of the key
    walked                  when all certificates were last gone through
    serials                 the mark of the check key that all serial numbers were made with, once that was found
    change                  the last change number whose certificates were all signed anew
    lock

A crash leaves old or new records, each whole; after a power cut some may be older than `change` says, which their own change number tells.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from ca.errors import Conflict, StoreUnavailable
from ca.model import ChangeNumber, IssuerId, Serial, UnixTime
from ocsp.model import Packed
from ocsp.rules import packed

_MAGIC: Final = b"fleetca ocsp spool 1\n"
_HEAD: Final = struct.Struct(">21sIQ")
_COUNT: Final = slice(_HEAD.size, _HEAD.size + 8)
"""Where the head says how many records there are; a crash may leave it a little low."""
_START: Final = 4096
_FEWEST: Final = 65_536
"""Slots of a new table: 12 MB, and no copying before there are some ten thousand certificates."""
_FULL: Final = 0.7
_MOST_GROWTH: Final = 64.0
"""A guess is believed so far: room is taken on the disk at once."""
_VARIES: Final = 2
"""Octets by which other signatures of a key may be longer, as ECDSA's are; what is longer all the same gets a table of longer records."""
_COPIED: Final = 4096
"""Slots of a growing table that are put together before they are written. Old and new order are nearly the same, so most records find theirs there."""
_PAGE: Final = 4096
_COUNTED: Final = 256
"""After so many new records the head says how many there are; also when all is kept."""


class _Table:
    """One mapped file."""

    def __init__(self, file: Path) -> None:
        with file.open("rb") as opened:
            self.inode = os.fstat(opened.fileno()).st_ino
            self.octets = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        self.octets.madvise(mmap.MADV_RANDOM)
        magic, self.size, self.slots = _HEAD.unpack_from(self.octets)
        if magic != _MAGIC or len(self.octets) != _START + self.size * self.slots:
            raise ValueError("not a spool")
        self.room, self.most = packed.signature_octets(self.size), int(self.slots * _FULL)
        """The longest signature, and how many records before it is full."""
        self.find: Callable[[Serial, int], int] = partial(packed.find, self.octets, _START, self.size, self.slots)
        """Where the record of a certificate in a form stands, or belongs."""

    def whole(self) -> Iterator[bytes]:
        """Its records, as they lie there; none that is damaged."""
        size, mapped, is_whole = self.size, self.octets, packed.is_whole
        mapped.madvise(mmap.MADV_WILLNEED)
        for start in range(_START, len(mapped), size):
            octets = mapped[start : start + size]
            if octets[0] and is_whole(octets):
                yield octets

    def at(self, place: int) -> bytes:
        return self.octets[place : place + self.size]

    def filled(self) -> int:
        return int.from_bytes(self.octets[_COUNT], "big")

    def counted(self) -> int:
        """How many records there are, looked at one by one."""
        self.octets.madvise(mmap.MADV_WILLNEED)
        return int(self.slots - self.octets[_START :: self.size].count(0))

    def close(self) -> None:
        self.octets.close()


class SpoolReader:
    """The spool for those who answer. Safe for several threads; a spool that is absent or damaged is empty.

    Args:
        folder: where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tables: dict[IssuerId, _Table] = {}

    def look(self) -> None:
        """Take in files that were replaced; called every second."""
        for file in self._folder.glob("*.spool"):
            issuer = IssuerId(file.stem)
            known = self._tables.get(issuer)
            with suppress(OSError, ValueError, struct.error):
                if known is None or file.stat().st_ino != known.inode:
                    self._tables[issuer] = _Table(file)  # the old one goes when the last answer that is read from it is read

    def get(self, issuer: IssuerId, serial: Serial, form: int) -> Packed | None:
        """The record of a certificate in a form of CertID."""
        table = self._tables.get(issuer)
        if table is None:
            return None
        place = table.find(serial, form)
        return packed.unpack(table.at(place)) if table.octets[place] else None

    def certificate(self, issuer: IssuerId, key_hash: bytes) -> bytes | None:
        """DER certificate that the issuer gave the responder with that key."""
        try:
            return self._certificate(issuer, key_hash).read_bytes()
        except OSError:
            return None

    def _certificate(self, issuer: IssuerId, key_hash: bytes) -> Path:
        return self._folder / "responders" / f"{issuer}-{key_hash.hex()}.der"

    def filled(self) -> int:
        """How many records there are."""
        return sum(table.filled() for table in self._tables.values())

    def walked(self) -> UnixTime | None:
        """When all certificates were last gone through."""
        return _number(self._folder / "walked")

    def proven(self) -> str | None:
        """The mark of the check key that every serial number on record was made with."""
        try:
            return (self._folder / "serials").read_text().strip()
        except OSError:
            return None


class SpoolWriter(SpoolReader):
    """The spool for the one who signs. Not safe for several threads.

    Raises (when made):
        Conflict: another process writes it (`spool-in-use`).
        StoreUnavailable: the folder cannot be written (`spool-unwritable`).
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._files: dict[IssuerId, int] = {}
        self._filled: dict[IssuerId, int] = {}
        self._growth = 1.0
        with _writing(folder):
            (folder / "responders").mkdir(parents=True, exist_ok=True)
            # Nothing in it is secret, and status processes may be other users, whatever our umask is.
            for path in (folder, folder / "responders"):
                path.chmod(0o755)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._lock)
                raise Conflict(
                    "spool-in-use", f"Another process writes the spool {folder}.", fix="Stop it, or give this one a spool of its own."
                ) from None
            for file in folder.glob("*.new"):
                file.unlink()
        self.look()
        for issuer, table in self._tables.items():
            # What a crash left untold counts too: a table that were full without our knowing would be searched for ever.
            self._open(issuer, table.counted())

    def put(self, ones: Iterable[tuple[IssuerId, Packed]]) -> None:
        """Keep records in place of older ones.

        Raises:
            StoreUnavailable: the disk is full, or worse (`spool-unwritable`); what was there is still there, and some of these may be.
        """
        tables, filled, pack, pwrite = self._tables, self._filled, packed.pack, os.pwrite
        try:
            for issuer, one in ones:
                table = tables.get(issuer)
                if table is None or len(one.signature) > table.room or filled[issuer] >= table.most:
                    table = self._grow(issuer, table, packed.record_octets(len(one.signature) + _VARIES))
                place = table.find(one.serial, one.form)
                new = table.octets[place] == 0
                pwrite(self._files[issuer], pack(one, table.size), place)
                if new:
                    filled[issuer] += 1
                    if filled[issuer] % _COUNTED == 0:
                        self._tell_count(issuer, filled[issuer])
        except OSError as error:
            raise _unwritable(self._folder, error) from None

    def expect(self, growth: float) -> None:
        """How many times as many records as there are now will be there soon, so that a table that has to grow does it once."""
        self._growth = growth

    def _tell_count(self, issuer: IssuerId, filled: int) -> None:
        os.pwrite(self._files[issuer], filled.to_bytes(8, "big"), _COUNT.start)

    def tell_counts(self) -> None:
        """Let readers see how many answers there are."""
        with _writing(self._folder):
            for issuer, filled in self._filled.items():
                self._tell_count(issuer, filled)

    def add_certificate(self, issuer: IssuerId, key_hash: bytes, certificate: bytes) -> None:
        """Keep a responder certificate; before the first record that is signed by its key."""
        if self.certificate(issuer, key_hash) == certificate:
            return
        with _writing(self._folder):
            file = self._certificate(issuer, key_hash)
            new = file.with_suffix(".new")
            new.write_bytes(certificate)
            new.chmod(0o644)
            new.rename(file)

    def change(self) -> ChangeNumber | None:
        """The last change number that `set_change` kept."""
        return _number(self._folder / "change")

    def set_change(self, change: ChangeNumber) -> None:
        """Keep how far changes were followed; after the records that they ask for."""
        self._say("change", change)

    def keep(self, walked_at: UnixTime) -> None:
        """Bring what was written to the disk: all certificates were gone through at that time."""
        with _writing(self._folder):
            for issuer, file in self._files.items():
                self._tell_count(issuer, self._filled[issuer])
                os.fdatasync(file)
        self._say("walked", walked_at)

    def set_proven(self, mark: str | None) -> None:
        """Say it, or take it back."""
        if mark is not None:
            self._say("serials", mark)
            return
        with _writing(self._folder):
            (self._folder / "serials").unlink(missing_ok=True)

    def _say(self, name: str, what: int | str) -> None:
        with _writing(self._folder):
            new = self._folder / f"{name}.new"
            new.write_text(f"{what}\n")
            new.chmod(0o644)
            new.rename(self._folder / name)

    def close(self) -> None:
        for file in self._files.values():
            os.close(file)
        os.close(self._lock)

    def _open(self, issuer: IssuerId, filled: int) -> None:
        old = self._files.get(issuer)
        self._files[issuer] = os.open(self._folder / f"{issuer}.spool", os.O_RDWR | os.O_CLOEXEC)
        self._filled[issuer] = filled
        if old is not None:
            os.close(old)

    def _grow(self, issuer: IssuerId, old: _Table | None, size: int) -> _Table:
        """A larger table with what the old one holds; the old one stays until the new one is whole."""
        size = max(size, old.size if old else 0)
        slots = _FEWEST if old is None else old.slots
        if old is not None and self._filled[issuer] >= old.most:
            wanted = max(2.0, min(self._growth, _MOST_GROWTH))
            slots *= 1 << math.ceil(math.log2(wanted))
        new = self._folder / f"{issuer}.new"
        with _writing(self._folder):
            descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            try:
                os.fchmod(descriptor, 0o644)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
                # Space is taken now: a disk that is full later would end us by a signal.
                os.posix_fallocate(descriptor, 0, _START + size * slots)
                os.pwrite(descriptor, _HEAD.pack(_MAGIC, size, slots), 0)
                copied = 0 if old is None else _copy(old, descriptor, size, slots)
                os.pwrite(descriptor, copied.to_bytes(8, "big"), _COUNT.start)
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
            new.rename(self._folder / f"{issuer}.spool")
        table = self._tables[issuer] = _Table(self._folder / f"{issuer}.spool")
        self._open(issuer, copied)
        return table


def _copy(old: _Table, descriptor: int, size: int, slots: int) -> int:
    """Bring the whole records of a table into a new file; how many those were."""
    taken = bytearray(slots)
    first, part = 0, bytearray(os.pread(descriptor, _COPIED * size, _START))
    place_of = packed.place_of
    for octets in old.whole():
        at = place_of(octets, slots)
        while taken[at]:
            at = at + 1 if at + 1 < slots else 0
        taken[at] = 1
        if size != old.size:
            octets = _longer(octets, size)  # noqa: PLW2901  the same record
        ahead = at - first
        if _COPIED <= ahead < 2 * _COPIED:
            _write(descriptor, part, _START + first * size)
            first, ahead = at, 0
            part = bytearray(os.pread(descriptor, min(_COPIED, slots - first) * size, _START + first * size))
        if 0 <= ahead < _COPIED:
            part[ahead * size : ahead * size + size] = octets
        else:  # it went around the end, or lies before the part
            os.pwrite(descriptor, octets, _START + at * size)
    _write(descriptor, part, _START + first * size)
    return sum(taken)


def _write(descriptor: int, octets: bytearray, start: int) -> None:
    """Page by page: what is written at once the kernel may keep in one large page, and each record that is then written into that costs as much as
    the page is long."""
    with memoryview(octets) as view:
        at = 0
        while at < len(octets):
            end = at + _PAGE - (start + at) % _PAGE
            os.pwrite(descriptor, view[at:end], start + at)
            at = end


def _longer(octets: bytes, size: int) -> bytes:
    one = packed.unpack(octets)
    assert one is not None, "its sum was right"
    return packed.pack(one, size)


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(
        "spool-unwritable",
        f"The spool {folder} cannot be written.",
        why=f"{error.strerror or error}.",
        fix="Make room, or let the user of the publisher write there.",
    )
