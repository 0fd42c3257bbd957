"""Lists of keys that everybody has, beside those that are built in: files of the settings and of `fleetca scan`. Edge: reads files, contains no rule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ca.errors import FleetcaError, Misconfigured
from ca.rules.known_keys import KNOWN, LARGEST_LIST, read_list


def listed(files: Sequence[Path]) -> dict[str, str]:
    """SHA-256 of the SubjectPublicKeyInfo (hex) to what the key is: those that are built in, and those of the files.

    Raises:
        Misconfigured: a file cannot be read, or is no list (`known-keys`); names the file.
    """
    found = dict(KNOWN)
    for file in files:
        try:
            octets = file.read_bytes() if file.stat().st_size <= LARGEST_LIST else None
            if octets is None:
                raise Misconfigured("known-keys", f"{file} is longer than {LARGEST_LIST} octets.", fix="Make several lists of it.")
            more = read_list(octets.decode(errors="replace"))
        except OSError as error:
            raise Misconfigured("known-keys", f"The list of known keys {file} cannot be read.", why=f"{error.strerror}.") from None
        except Misconfigured:
            raise
        except FleetcaError as error:
            raise Misconfigured("known-keys", f"{file} is no list of known keys.", why=error.what, fix=error.fix) from None
        found |= {digest: f"{name} ({file.name})" for digest, name in more.items()}
    return found
