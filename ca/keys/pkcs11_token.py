"""One PKCS#11 token: found by what its address says, logged in to with a PIN that is tried once, found again after it was away. Ring 3.

The library of a token is one per process and knows no fork: it is loaded by the process that signs, and a child that inherits it is
refused. Sessions end when a token is pulled out, restarted or loses its network; whoever uses the token next opens it again, with the
library started afresh if that is what it takes. Until then it is `KeyUnavailable`, which callers repeat.

A wrong PIN locks tokens after a few tries, and a process that dies of one is started again: so the same PIN is never tried twice by a
process, and not at all where the token says that the last try before us was wrong, until somebody has logged in by hand.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import pkcs11
from pkcs11 import exceptions

from ca.errors import KeyUnavailable

T = TypeVar("T")

_COUNT_LOW: Final = 0x00010000
_FINAL_TRY: Final = 0x00020000
_LOCKED: Final = 0x00040000
"""CKF_USER_PIN_COUNT_LOW, _FINAL_TRY and _LOCKED of CK_TOKEN_INFO (PKCS#11 2.40, 3.2)."""
_HARDWARE: Final = 0x00000004
"""CKF_HW_SLOT of CK_SLOT_INFO."""
_WRONG_PIN: Final = (exceptions.PinIncorrect, exceptions.PinInvalid, exceptions.PinLenRange)


@dataclass(frozen=True, slots=True)
class TokenAddress:
    """What has to hold of a token so that it is the one that is meant; None where it does not matter."""

    module: Path
    label: str | None = None
    serial: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    slot: int | None = None

    def __str__(self) -> str:
        said = (("token", self.label), ("serial", self.serial), ("slot", self.slot))
        return " ".join(f"{name} {value}" for name, value in said if value is not None)


class _Module:
    """A token's library in this process. Everything that touches it holds `lock`: libraries differ in what they bear from threads."""

    def __init__(self, path: str) -> None:
        self.lock = threading.RLock()
        self.process = os.getpid()
        self.starts = 1
        """Counts starts of the library: a session of an earlier one is void, and its number may be another session's by now."""
        try:
            self._library = pkcs11.lib(path)
        except (exceptions.PKCS11Error, RuntimeError, OSError) as error:
            raise KeyUnavailable(
                "module-unusable",
                f"The PKCS#11 library {path} cannot be used.",
                why=_said(error),
                fix="Check module-path in the key's setting, and the library's own configuration.",
            ) from None

    def restart(self) -> None:
        """C_Finalize and C_Initialize: some libraries see a token that came back only so. All sessions of this process end."""
        self.starts += 1
        self._library.reinitialize()

    def tokens(self) -> Iterator[Any]:
        for slot in self._library.get_slots(token_present=True):
            # An empty or broken slot is no reason to miss the token in another one.
            with suppress(exceptions.PKCS11Error):
                yield slot.get_token()


@cache
def _module(path: str) -> _Module:
    return _Module(path)


def _said(error: BaseException) -> str:
    name = type(error).__name__
    return f"The library says {name}{f': {error}' if str(error) else ''}."


class _Over(Exception):
    """A session, or the token, is not what it was; `error` is what to say if looking again does not help."""

    def __init__(self, error: KeyUnavailable) -> None:
        super().__init__(error.code)
        self.error = error


class Token:
    """A token with a logged-in session while there is one.

    Args:
        address: which token it is.
        pin: asked once; the PIN is kept in this process, because the token may ask for it again.
    """

    def __init__(self, address: TokenAddress, pin: Callable[[], bytes]) -> None:
        self._address = address
        self._ask_pin = pin
        self._pin: str | None = None
        self._proved = False
        self._refused = False
        self._session: Any = None
        self._start = 0
        self._process = os.getpid()

    def __repr__(self) -> str:
        return f"Token({str(self._address)!r})"

    def about(self) -> tuple[str, bool, Any]:
        """Maker, model and serial number for people; whether its slot says that it is hardware; the slot with its mechanisms.

        Raises:
            KeyUnavailable: `token-absent`.
        """

        def look(session: Any) -> tuple[str, bool, Any]:
            token = session.token
            serial = token.serial.decode("utf-8", "replace").strip()
            words = f"{token.manufacturer_id.strip()} {token.model.strip()}, token {token.label.strip()}, serial {serial}"
            return words, bool(int(token.slot.flags) & _HARDWARE), token.slot

        return self.use(look)

    def use(self, action: Callable[[Any], T]) -> T:
        """Do something with a logged-in session; again with a fresh one where the session turns out to be over or the key not to be there.

        So `action` may run three times: what it does must bear that.

        Raises:
            KeyUnavailable: the token is not there (`token-absent`), went away meanwhile (`token-lost`), or refuses the PIN.
        """
        if os.getpid() != self._process:
            raise KeyUnavailable(
                "key-after-fork",
                f"The {self._address} was opened by another process than this one.",
                why="A PKCS#11 library does not survive a fork.",
                fix="Open the key in the process that signs.",
            )
        module = _module(str(self._address.module))
        with module.lock:
            if module.process != os.getpid():
                raise KeyUnavailable(
                    "key-after-fork",
                    f"The library of {self._address} was loaded before this process was forked.",
                    why="A PKCS#11 library does not survive a fork.",
                    fix="Open the key in the process that signs.",
                )
            if self._start != module.starts:
                self._session = None  # not closed: that would end a session of somebody else
            if self._session is not None:
                with suppress(_Over):
                    return self._try(action)
            # A library may go on showing a token that it lost, empty; only started afresh does it look again.
            with suppress(_Over):
                self._open(module)
                return self._try(action)
            try:
                module.restart()
                self._open(module)
                return self._try(action)
            except exceptions.PKCS11Error as error:
                raise self._absent(_said(error)) from None
            except _Over as over:
                raise over.error from None

    def pin(self) -> str:
        """The PIN that logged in, for a key that asks for it again at each signature. Only inside `use`."""
        assert self._pin is not None, "there is a session, so there was a PIN"
        return self._pin

    def _try(self, action: Callable[[Any], T]) -> T:
        try:
            return action(self._session)
        except _WRONG_PIN as error:  # of a key that asks for it at each signature: somebody changed it meanwhile
            self._refused = True
            self._drop()
            raise self._wrong_pin(_said(error)) from None
        except exceptions.PKCS11Error as error:  # of a session that is over, libraries say very different things
            self._drop()
            raise _Over(KeyUnavailable("token-lost", f"The {self._address} does not work.", why=_said(error))) from None
        except KeyUnavailable as error:
            if error.code != "no-such-key":
                raise
            self._drop()
            raise _Over(error) from None

    def close(self) -> None:
        """Log out."""
        if os.getpid() == self._process and self._session is not None:
            module = _module(str(self._address.module))
            with module.lock:
                if self._start == module.starts:
                    self._drop()

    def _drop(self) -> None:
        session, self._session = self._session, None
        with suppress(exceptions.PKCS11Error):
            session.close()

    def _open(self, module: _Module) -> None:
        try:
            found = self._find(module)
            if found is None:
                raise _Over(self._absent("No slot holds it."))
            self._session, self._start = self._logged_in(found), module.starts
        except exceptions.PKCS11Error as error:
            raise _Over(self._absent(_said(error))) from None

    def _absent(self, why: str) -> KeyUnavailable:
        return KeyUnavailable(
            "token-absent",
            f"The {self._address} is not there.",
            why=why,
            fix=f"Put it in, or list what is there: pkcs11-tool --module {self._address.module} --list-token-slots",
        )

    def _find(self, module: _Module) -> Any:
        fitting = [token for token in module.tokens() if self._fits(token)]
        if len(fitting) > 1:
            raise KeyUnavailable(
                "token-ambiguous",
                f"{len(fitting)} tokens are {self._address}.",
                why="The PIN of one is not given to another.",
                fix="Say serial= in the key's setting.",
            )
        return fitting[0] if fitting else None

    def _fits(self, token: Any) -> bool:
        wanted = self._address
        said = (
            (wanted.label, token.label.strip()),
            (wanted.serial, token.serial.decode("utf-8", "replace").strip()),
            (wanted.manufacturer, token.manufacturer_id.strip()),
            (wanted.model, token.model.strip()),
            (wanted.slot, token.slot.slot_id),
        )
        return all(want is None or want == has for want, has in said)

    def _logged_in(self, token: Any) -> Any:
        # Read anew: the flags of before are of before.
        flags = int(token.flags)
        if flags & _LOCKED:
            raise KeyUnavailable("pin-locked", f"The PIN of {self._address} is locked.", fix="Unlock it with the SO PIN.")
        if self._refused:
            raise self._wrong_pin("It was refused before, and is not tried again.")
        if flags & (_COUNT_LOW | _FINAL_TRY) and not self._proved:
            raise KeyUnavailable(
                "pin-not-tried",
                f"The PIN of {self._address} was not tried.",
                why="The token says that the last PIN it got was wrong; a few more and it locks.",
                fix=f"Log in once by hand with the right one: pkcs11-tool --module {self._address.module} --token-label "
                f"{self._address.label or 'LABEL'} --login --list-objects",
            )
        if self._pin is None:
            self._pin = self._ask_pin().decode("utf-8", "strict")
        try:
            # Read-write always: a login belongs to all sessions of the process, and a read-only one would keep others from making keys.
            session = token.open(rw=True, user_pin=self._pin)
        except exceptions.UserAlreadyLoggedIn:
            session = token.open(rw=True)  # another key of ours on the same token
        except _WRONG_PIN as error:
            self._refused = True
            raise self._wrong_pin(_said(error)) from None
        except exceptions.PinLocked:
            self._refused = True
            raise KeyUnavailable("pin-locked", f"The PIN of {self._address} is locked.", fix="Unlock it with the SO PIN.") from None
        self._proved = True
        return session

    def _wrong_pin(self, why: str) -> KeyUnavailable:
        return KeyUnavailable(
            "wrong-pin",
            f"The PIN for {self._address} is wrong.",
            why=why,
            fix="Correct the secret that the setting passphrase names, log in once by hand, then start again.",
        )
