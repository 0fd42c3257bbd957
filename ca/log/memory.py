"""The published log in memory: for tests, and to build a log that is compared with another. Ring 3, `ca.ports.RecordFiles`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence


class MemoryFiles:
    """A log's files in a dictionary. Nothing here survives the process."""

    def __init__(self, files: Mapping[str, bytes] | None = None) -> None:
        self.files = dict(files or {})

    def read(self, path: str) -> bytes | None:
        return self.files.get(path)

    def write(self, files: Sequence[tuple[str, bytes]]) -> None:
        self.files.update(files)

    def remove_partials(self, path: str) -> None:
        for name in [name for name in self.files if name.startswith(f"{path}.p/")]:
            del self.files[name]

    def names(self) -> Iterator[str]:
        yield from sorted(self.files)
