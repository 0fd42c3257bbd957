"""Where the signer's socket is, for the kernel: a path of at most 107 octets, however deep a deployment lies. Ring 3."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

LONGEST: Final = 107
"""Octets of a path in `sockaddr_un`, its closing zero aside (unix(7))."""


@contextmanager
def address(path: Path) -> Iterator[str]:
    """The path itself, or, where it is too long, the same place by way of its opened folder; good inside the `with` block.

    Raises:
        OSError: the folder cannot be opened.
    """
    if len(os.fsencode(path)) <= LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
