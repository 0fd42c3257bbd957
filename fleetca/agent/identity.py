"""One identity of a device: a folder with its settings, its pairs, what it trusts, and what the agent remembers. Edge: files only.

agent.toml      how it was set up
trust.pem       the root certificates that the service is believed by
pins.json       the last signed set of trust anchors; absent until one came
current, pairs/ see `pairs`
state.json      what the agent remembers: losing it costs a question, never a certificate
passphrase      0600, where the key is sealed under one that the agent made
lock            held by the one process that works here; the system lets go of it, however that process ends
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from ca.der.algorithms import ALGORITHMS
from ca.errors import Conflict, FleetcaError, KeyUnavailable, Malformed, Misconfigured, NotFound, StoreUnavailable
from ca.model import UnixTime
from ca.ports import Chance, SigningKey
from fleetca.agent.pairs import Slots
from fleetca.agent.stores import REHEARSAL, KeyFiles, Keys, inside
from fleetca.client import Client
from fleetca.folder import make_folder, put_new, replace_file, sync_folder

SETTINGS: Final = "agent.toml"
TRUST: Final = "trust.pem"
PINS: Final = "pins.json"
STATE: Final = "state.json"
PASSPHRASE: Final = "passphrase"
LOCK: Final = "lock"
LONGEST_PASSPHRASE: Final = 1024


@dataclass(frozen=True, slots=True)
class Setup:
    """What was said when the identity was made."""

    url: str
    """The enrolment service."""
    algorithm: str = "p256"
    plain: bool = False
    """The key lies in a plain 0600 file; its profile must allow it (P10)."""
    passphrase_file: str = ""
    """What the key is sealed under; empty: `passphrase` in the folder, made by the agent. Of a store that holds keys inside: its PIN or password."""
    key_store: str = ""
    """`pkcs11` or `tpm`: where keys are made and stay. Empty: in files."""
    key_name: str = ""
    """What they are called there: the beginning of their labels, or the first of five handles."""
    key_there: bool = False
    """That is the name of one key that is there already, as in a secure element: it is used at every renewal, and goes by an order to wipe alone."""
    module: str = ""
    """The library of a token."""
    token: str = ""
    """Its label."""
    device: str = ""
    """Of a TPM; empty: /dev/tpmrm0."""
    attest: bool = False
    """The TPM vouches for every key that a certificate is asked for."""
    endorsement: str = ""
    """PEM file with the TPM's endorsement certificate and those above it, where the TPM has none itself."""
    proxy: str = ""
    """Empty: HTTPS_PROXY and NO_PROXY decide; `none`: none."""
    owner: str = ""
    """The user whom key and certificate belong to; empty: ours."""
    by: str = "auto"
    reload: tuple[str, ...] = ()
    """Whom to tell of a new pair; see `fleetca.agent.hooks`."""

    def written(self) -> str:
        lines = [f"{name} = {json.dumps(value)}" for name, value in asdict(self).items()]
        return "# Made by fleetca agent enrol.\n" + "\n".join(lines) + "\n"


@dataclass(slots=True)
class Memory:
    """What the agent remembers from one time to the next."""

    start: UnixTime | None = None
    end: UnixTime | None = None
    reason: str = ""
    serial: str = ""
    """Of the certificate that the window is for."""
    ask_at: UnixTime = 0
    try_at: UnixTime = 0
    failures: int = 0
    outcome: str = ""
    """Of the last time that something was done: `enrolled`, `renewed`, `failed`."""
    code: str = ""
    why: str = ""
    at: UnixTime = 0
    told: bool = True
    """Whether the service heard of that outcome."""
    device: str = ""
    profile: str = ""
    slot: str = ""
    """Of the pair in use; this and the next two are for `glance`."""
    saved_at: UnixTime = 0
    next_at: UnixTime = 0


@dataclass(frozen=True)
class Identity:
    """The folder. Changes are made by whoever holds its lock."""

    folder: Path
    chance: Chance = field(repr=False)

    # ---- Setting up -------------------------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        return (self.folder / SETTINGS).exists()

    def set_up(self, setup: Setup, *, trust: bytes) -> None:
        """Make the folder. Safe to repeat with the same words; until the identity has enrolled, others take their place.

        Raises:
            Conflict: it was set up with others, and has enrolled (`identity-differs`).
            Misconfigured: they name no place for keys (`bad-key-store`, `extra-missing`), or no kind of key (`unknown-algorithm`); nothing was made.
        """
        self._keys(setup)
        if setup.algorithm not in ALGORITHMS:
            known = ", ".join(ALGORITHMS)
            raise Misconfigured("unknown-algorithm", f"There is no kind of key {setup.algorithm}.", fix=f"Known are {known}.")
        make_folder(self.folder, mode=0o700 if not setup.owner else 0o711)
        if self.exists:
            if self.enrolled and self.setup != setup:
                raise Conflict(
                    "identity-differs",
                    f"{self.folder} was set up in another way.",
                    why=f"{SETTINGS} says otherwise.",
                    fix=f"Edit {self.folder / SETTINGS}, or wipe it: fleetca agent wipe",
                )
            if not self.enrolled:
                self._set_up_anew(setup, trust)
            return
        if not (self.folder / TRUST).exists():
            put_new(self.folder / TRUST, trust)
        self._make_passphrase(setup)
        put_new(self.folder / SETTINGS, setup.written().encode(), mode=0o600)  # a proxy may want a password

    @property
    def enrolled(self) -> bool:
        """Whether it has a pair."""
        return (self.folder / "current").is_symlink()

    def _set_up_anew(self, setup: Setup, trust: bytes) -> None:
        """The first words were wrong, most often. What is under way goes on where the key of it fits the new ones."""
        if replace(self.setup, url=setup.url, proxy=setup.proxy, owner=setup.owner, by=setup.by, reload=setup.reload) != setup:
            self.slots.forget()
        if (self.folder / TRUST).read_bytes() != trust:
            replace_file(self.folder / TRUST, trust)
        self._make_passphrase(setup)
        replace_file(self.folder / SETTINGS, setup.written().encode())
        for known in ("setup", "keys"):
            self.__dict__.pop(known, None)

    def _make_passphrase(self, setup: Setup) -> None:
        if not setup.plain and not setup.key_store and not setup.passphrase_file and not (self.folder / PASSPHRASE).exists():
            put_new(self.folder / PASSPHRASE, self.chance.octets(32).hex().encode(), mode=0o600)

    @cached_property
    def setup(self) -> Setup:
        """Raises:
        NotFound: there is no identity here (`no-identity`).
        Misconfigured: its settings cannot be read.
        """
        file = self.folder / SETTINGS
        try:
            given = tomllib.loads(file.read_text())
        except FileNotFoundError:
            raise NotFound("no-identity", f"{self.folder} holds no identity.", fix="Make one: fleetca agent enrol") from None
        except (OSError, ValueError) as error:
            raise Misconfigured("bad-agent-settings", f"{file} cannot be read.", why=f"{error}.") from None
        kinds = {one.name: (list if one.name == "reload" else type(one.default) if one.name != "url" else str) for one in fields(Setup)}
        for name, value in given.items():
            if not isinstance(value, kinds.get(name, type(None))):
                why = "There is no such setting." if name not in kinds else f"It must be a {kinds[name].__name__}."
                raise Misconfigured("bad-agent-settings", f"{file}: {name} is wrong.", why=why, fix="docs/how-to/agent.md lists them.")
        if "url" not in given:
            raise Misconfigured("bad-agent-settings", f"{file}: url is missing.")
        return Setup(**{**given, "reload": tuple(given.get("reload", ()))})

    @property
    def slots(self) -> Slots:
        return Slots(self.folder, self.keys, _ids(self.setup.owner) if self.setup.owner else None)

    @cached_property
    def keys(self) -> Keys:
        """Where this identity's keys rest. A token is logged in to once.

        Raises:
            Misconfigured: the settings name no such place.
        """
        return self._keys(self.setup)

    def _keys(self, setup: Setup) -> Keys:
        file = Path(setup.passphrase_file) if setup.passphrase_file else self.folder / PASSPHRASE
        if not setup.key_store and not setup.attest and not setup.key_there:
            return KeyFiles(None if setup.plain else self._passphrase(file))
        if setup.key_store not in {"pkcs11", "tpm"} or setup.plain or setup.by == "tls":
            why = "A key that stays in a pkcs11 or tpm store is no plain file, and signs messages: TLS takes files only."
            raise Misconfigured("bad-key-store", "These settings name no place for keys.", why=why, fix="docs/how-to/agent.md shows each.")
        if setup.attest and setup.key_store != "tpm":
            raise Misconfigured(
                "bad-key-store",
                "These settings name no place for keys.",
                why="Only a TPM attests the keys in it.",
                fix="Give --key tpm with --attest. A secure element's keys are known by its maker's manifest: --known.",
            )
        said = {name: getattr(setup, name) for name in ("key_name", "module", "token", "device")}
        return inside(setup.key_store, said, self._passphrase(file) if setup.passphrase_file else None, there=setup.key_there)

    def attest(self) -> Callable[[Client, SigningKey], Mapping[str, Any]] | None:
        """Who vouches for new keys; None: nobody does.

        Raises:
            Malformed: the file with the endorsement certificate cannot be read.
        """
        if not self.setup.attest:
            return None
        from fleetca.agent.attesting import Attesting  # noqa: PLC0415 - most devices have no TPM

        return Attesting.of(self.setup.device, self.setup.endorsement)

    def forget(self) -> None:
        """Remove every key of this identity, and all pairs.

        Raises:
            KeyUnavailable: the store of its keys is away; what was not removed is there still.
        """
        Slots(self.folder / REHEARSAL, self.keys).destroy()
        self.slots.destroy()

    @staticmethod
    def _passphrase(file: Path) -> Callable[[], bytes]:
        def read() -> bytes:
            try:
                with file.open("rb") as opened:
                    if os.fstat(opened.fileno()).st_mode & 0o077:
                        raise KeyUnavailable("open-secret", f"{file} can be read by others.", fix=f"chmod 600 {file}")
                    return opened.read(LONGEST_PASSPHRASE).removesuffix(b"\n")
            except OSError as error:
                raise KeyUnavailable("no-passphrase", f"{file} cannot be read.", why=f"{error.strerror}.") from None

        return read

    @property
    def trust(self) -> Path:
        return self.folder / TRUST

    # ---- One at a time ----------------------------------------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Work here, alone.

        Raises:
            Conflict: another process does (`identity-busy`).
        """
        if not self.folder.is_dir():
            raise NotFound("no-identity", f"{self.folder} holds no identity.", fix="Make one: fleetca agent enrol")
        try:
            descriptor = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailable("disk", f"{self.folder / LOCK} cannot be opened.", why=f"{error.strerror}.") from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise Conflict(
                    "identity-busy", f"Another process works on {self.folder}.", why="It holds the lock.", fix="Wait until it is done."
                ) from None
            yield
        finally:
            os.close(descriptor)

    # ---- Remembering ------------------------------------------------------------------------------------------------

    def recall(self) -> Memory:
        """What was remembered; nothing where it cannot be read."""
        try:
            given: Mapping[str, Any] = json.loads((self.folder / STATE).read_bytes())
            blank = asdict(Memory())
            fits = {name: value for name, value in given.items() if name in blank and _like(value, blank[name])}
            return Memory(**fits)
        except (OSError, ValueError, AttributeError, TypeError):
            return Memory()

    def remember(self, memory: Memory) -> bool:
        """Keep it; False where the disk does not take it, which harms nothing."""
        file = self.folder / STATE
        fresh = file.with_name(f".{STATE}.new")
        try:
            with fresh.open("w") as opened:
                json.dump(asdict(memory), opened)
                opened.flush()
                os.fsync(opened.fileno())
            fresh.replace(file)
            sync_folder(self.folder)
        except OSError:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
            return False
        return True


def _like(value: object, blank: object) -> bool:
    if blank is None:
        return value is None or type(value) is int
    return type(value) is type(blank)


def _ids(owner: str) -> tuple[int, int]:
    try:
        found = pwd.getpwnam(owner)
    except KeyError:
        raise Misconfigured("no-such-user", f"There is no user {owner} here.", fix="Make the user, or name another with --owner.") from None
    return found.pw_uid, found.pw_gid


def read_trust(file: Path) -> bytes:
    """The octets of a PEM file with certificates.

    Raises:
        Malformed: it holds none (`bad-certificate`).
    """
    from ca.der import pem  # noqa: PLC0415 - only when an identity is made

    try:
        octets = file.read_bytes()
        if pem.ders_of(octets, pem.CERTIFICATE):
            return octets
    except (OSError, FleetcaError) as error:
        raise Malformed("bad-certificate", f"{file} cannot be read.", why=f"{error}.") from None
    raise Malformed("bad-certificate", f"{file} holds no certificate.", fix="Give the root certificate as PEM.")
