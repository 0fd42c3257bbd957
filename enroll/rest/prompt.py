"""The lane without a thread: enrolments and renewals, which a fleet sends by the thousand. Edge; no rule of its own, knows no Flask.

It takes what it can read at once and is spelled as our clients spell it: a JSON body, no coding, a JSON answer. Everything else, all that is wrong
included, it leaves to the application (`routes`) untouched. What it takes goes to the signer as evidence, like there, and is answered with
the same octets (`answers`). It runs in an event loop and never waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from ca.errors import Busy, FleetcaError
from ca.model import IssueRequest
from ca.ports import Chance
from enroll.model import Granted
from enroll.ports import PromptSigner
from enroll.rest import answers, messages, openapi
from enroll.rest.flow import Enrolment

ENROLL: Final = f"{openapi.PREFIX}/enroll".encode()
RENEW: Final = f"{openapi.PREFIX}/renew".encode()

Headers = Sequence[tuple[bytes, bytes]]
Tell = Callable[[int, Headers, bytes], None]

_JSON: Final = openapi.JSON.encode()
_AS_EXPECTED: Final = {
    b"content-type": frozenset({_JSON}),
    b"accept": frozenset({_JSON, b"*/*"}),
    b"content-encoding": frozenset({b"identity"}),
}


class Prompt:
    """Args:
    signer: as in `enrolment`, for those who do not wait.
    """

    targets: Final = frozenset({ENROLL, RENEW})

    def __init__(self, enrolment: Enrolment, *, signer: PromptSigner, chance: Chance) -> None:
        self._enrolment, self._signer, self._chance = enrolment, signer, chance

    def take(self, target: bytes, headers: Headers, body: bytes, peer: bytes | None, tell: Tell) -> bool:
        """True: `tell` will get the answer. False: somebody else must answer, and nothing has happened."""
        if not _expected(headers):
            return False
        try:
            request = self._request(target, body, peer)
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

    def _request(self, target: bytes, body: bytes, peer: bytes | None) -> IssueRequest:
        if target == ENROLL:
            return self._enrolment.enrolling(messages.read_body(body, messages.ENROLL))
        return self._enrolment.renewing(certificate=peer, members=messages.read_body(body, messages.RENEW))

    def _reply(self, target: bytes, tell: Tell, outcome: Granted | Exception) -> None:
        request_id = self._chance.octets(9).hex()
        try:
            if isinstance(outcome, FleetcaError):
                reply = answers.refusal(outcome, request_id, by_token=target == ENROLL)
            elif isinstance(outcome, Exception):
                raise outcome
            else:
                reply = answers.issuance(self._enrolment.issuance(outcome), openapi.JSON)
        except Exception as error:  # noqa: BLE001 - as above
            reply = answers.crashed(error, request_id)
        answers.send(reply, request_id, target, tell)


def _expected(headers: Headers) -> bool:
    """Whether the headers that change the meaning of body and answer say what most clients say, and each once."""
    seen = set()
    for name, value in headers:
        wanted = _AS_EXPECTED.get(name)
        if wanted is not None:
            if value not in wanted or name in seen:
                return False
            seen.add(name)
    return b"content-type" in seen
