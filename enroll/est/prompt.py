"""EST's lane without a thread: simpleenroll and simplereenroll, which a fleet sends by the thousand. Edge; no rule of its own, knows no Flask.

It takes what it can read at once and is spelled as clients spell it. Everything else, all that is wrong or bound to its connection (RFC 7030 3.5)
included, it leaves to the application (`routes`) untouched. What it takes goes to the signer as evidence, like there, and is answered with the
same octets (`answers`). It runs in an event loop and never waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from ca.errors import Busy, FleetcaError
from ca.ports import Chance
from enroll.est import answers, messages
from enroll.est.flow import PREFIX, Connection, Est, read_basic
from enroll.model import Granted
from enroll.ports import PromptSigner
from enroll.rest.answers import crashed, send
from enroll.rest.prompt import Headers, Tell

_PKCS10: Final = messages.PKCS10.encode()


class Prompt:
    """Args:
    signer: as in `est`, for those who do not wait.
    """

    def __init__(self, est: Est, *, signer: PromptSigner, chance: Chance) -> None:
        self._est, self._signer, self._chance = est, signer, chance
        self._asked: Mapping[bytes, tuple[str | None, bool]] = {
            f"{PREFIX}{'' if label is None else f'/{label}'}/{name}".encode(): (label, name == "simplereenroll")
            for label in est.labels
            for name in ("simpleenroll", "simplereenroll")
        }
        self.targets: Final = frozenset(self._asked)

    def take(self, target: bytes, headers: Headers, body: bytes, peer: bytes | None, tell: Tell) -> bool:
        """True: `tell` will get the answer. False: somebody else must answer, and nothing has happened."""
        authorization = _expected(headers)
        if authorization is None:
            return False
        label, renews = self._asked[target]
        ask = self._est.renewing if renews else self._est.enrolling
        try:
            request = ask(label, body, Connection(peer, basic=read_basic(authorization)))
        except Busy as error:
            self._reply(target, tell, error)  # when there is much to do, this is what must cost little
            return True
        except FleetcaError:
            return False
        try:
            self._signer.issue_soon(request, partial(self._reply, target, tell))
        except Exception as error:  # noqa: BLE001 - whoever asks gets an answer, like in the application
            self._reply(target, tell, error)
        return True

    def _reply(self, target: bytes, tell: Tell, outcome: Granted | Exception) -> None:
        request_id = self._chance.octets(9).hex()
        try:
            if isinstance(outcome, FleetcaError):
                reply = answers.refusal(outcome, request_id)
            elif isinstance(outcome, Exception):
                raise outcome
            else:
                reply = answers.certificate(outcome.certificate)
        except Exception as error:  # noqa: BLE001 - as above
            reply = crashed(error, request_id)
        send(reply, request_id, target, tell)


def _expected(headers: Headers) -> str | None:
    """The Authorization header, empty where there is none; None where a header that changes the meaning of the body says what few clients say."""
    kind, authorization = b"", b""
    for name, value in headers:
        if name == b"content-type":
            if kind or value != _PKCS10:
                return None
            kind = value
        elif name == b"authorization":
            if authorization:
                return None
            authorization = value
        elif name == b"content-encoding" and value != b"identity":
            return None
    return authorization.decode("latin-1") if kind else None
