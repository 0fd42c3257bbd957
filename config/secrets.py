"""References to secrets, and reading them: the settings say where a secret is, never what it is.

`file:PATH` (0600 or stricter, ours or root's), `env:NAME`, `credential:NAME` (a systemd credential), `fd:N` (an inherited descriptor, read
once). A value is never kept, printed or part of an error.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from config.errors import SecretUnavailable

MAX_SECRET = 64 * 1024

_FORMS = {
    "file": re.compile(r"[^\0]+"),
    "env": re.compile(r"[A-Za-z_][A-Za-z0-9_]*"),
    "credential": re.compile(r"[A-Za-z0-9_.-]+"),
    "fd": re.compile(r"\d{1,4}"),
}
_EXAMPLE = "write file:PATH, env:NAME, credential:NAME or fd:N"


@dataclass(frozen=True, slots=True)
class Secret:
    """Where a secret is. Its repr shows the reference; the value is only ever what `read` returns."""

    scheme: str
    rest: str
    base: Path
    """Where a relative `file:` starts."""

    @classmethod
    def parse(cls, reference: str, *, base: Path) -> Secret:
        """Read a reference.

        Raises:
            ValueError: it is none. The text is not repeated: it may be a secret that was written in the wrong place.
        """
        scheme, colon, rest = reference.partition(":")
        if not colon or scheme not in _FORMS:
            raise ValueError(f"is not a reference to a secret (and a secret itself must not stand here); {_EXAMPLE}")
        if not _FORMS[scheme].fullmatch(rest):
            raise ValueError(f"is not a usable {scheme}: reference; {_EXAMPLE}")
        return cls(scheme, rest, base)

    @property
    def reference(self) -> str:
        """As it was written."""
        return f"{self.scheme}:{self.rest}"

    @property
    def path(self) -> Path | None:
        """The file it lies in, if it lies in one."""
        if self.scheme == "file":
            return self.base / self.rest
        if self.scheme == "credential":
            folder = os.environ.get("CREDENTIALS_DIRECTORY")
            return Path(folder) / self.rest if folder else None
        return None

    def read(self) -> bytes:
        """The secret, without the line end that editors add.

        Raises:
            SecretUnavailable: it is absent (`secret-missing`), empty (`secret-empty`), or others can read it (`secret-exposed`).
        """
        value = self._raw()
        value = value.removesuffix(b"\n").removesuffix(b"\r")
        if not value:
            raise SecretUnavailable("secret-empty", f"The secret {self.reference} is empty.", fix=self._fix())
        if len(value) > MAX_SECRET:
            raise SecretUnavailable("secret-too-long", f"The secret {self.reference} is longer than {MAX_SECRET} octets.")
        return value

    def _raw(self) -> bytes:
        match self.scheme:
            case "env":
                value = os.environb.get(self.rest.encode())
                if value is None:
                    raise SecretUnavailable(
                        "secret-missing",
                        f"The secret {self.reference} is missing.",
                        why=f"The environment has no {self.rest}.",
                        fix=self._fix(),
                    )
                return value
            case "fd":
                return self._from_descriptor(int(self.rest))
            case _:
                path = self.path
                if path is None:
                    raise SecretUnavailable(
                        "secret-missing",
                        f"The secret {self.reference} is missing.",
                        why="CREDENTIALS_DIRECTORY is not set: systemd gave this process no credentials.",
                        fix=self._fix(),
                    )
                return self._from_file(path)

    def _from_descriptor(self, descriptor: int) -> bytes:
        try:
            # A duplicate, so that closing ours leaves the number free for nobody else. What can be read again is read from its beginning, for
            # processes that share it; a pipe is empty afterwards.
            with os.fdopen(os.dup(descriptor), "rb") as stream:
                if stream.seekable():
                    return os.pread(stream.fileno(), MAX_SECRET + 3, 0)
                return stream.read(MAX_SECRET + 3)
        except OSError as error:
            raise SecretUnavailable(
                "secret-missing", f"The secret {self.reference} cannot be read.", why=f"{error.strerror}.", fix=self._fix()
            ) from None

    def _from_file(self, path: Path) -> bytes:
        try:
            with path.open("rb") as stream:
                # Checked on the open file, so that what is checked is what is read.
                about = os.fstat(stream.fileno())
                self._check(path, about)
                return stream.read(MAX_SECRET + 3)
        except FileNotFoundError:
            raise SecretUnavailable(
                "secret-missing", f"The secret {self.reference} is missing.", why=f"There is no file {path}.", fix=self._fix()
            ) from None
        except OSError as error:
            raise SecretUnavailable(
                "secret-missing", f"The secret {self.reference} cannot be read.", why=f"{path}: {error.strerror}.", fix=self._fix()
            ) from None

    def _check(self, path: Path, about: os.stat_result) -> None:
        if not stat.S_ISREG(about.st_mode):
            raise SecretUnavailable("secret-missing", f"The secret {self.reference} cannot be read.", why=f"{path} is not a file.")
        # systemd lets the service in by an ACL, whose mask shows as group access.
        if stat.S_IMODE(about.st_mode) & (0o037 if self.scheme == "credential" else 0o077):
            raise SecretUnavailable(
                "secret-exposed",
                f"The secret {self.reference} can be read by others.",
                why=f"{path} has mode {stat.S_IMODE(about.st_mode):04o}; only its owner may have access.",
                fix=f"chmod 600 {path}",
            )
        if about.st_uid not in {os.geteuid(), 0}:
            raise SecretUnavailable(
                "secret-exposed",
                f"The secret {self.reference} belongs to somebody else.",
                why=f"{path} is owned by user id {about.st_uid}, this process is {os.geteuid()}.",
                fix=f"chown {os.geteuid()} {path}",
            )

    def _fix(self) -> str:
        match self.scheme:
            case "file":
                return f"Write the secret into {self.path} with mode 0600."
            case "env":
                return f"Set {self.rest} in the environment of this process."
            case "credential":
                return f"Add LoadCredentialEncrypted={self.rest} to the systemd unit."
            case _:
                return f"Start the process with the secret on file descriptor {self.rest}."
