"""Acts that sign nothing with a CA key: a key is destroyed, custodians share one, back it up or show that a backup opens. Ring 4: knows rules and ports.

What people confirmed is a statement; what came of it is a file: the statement, their signatures, and word by word what the store or the
custodians answered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from ca.ceremony_lines import Lines
from ca.ceremony_steps import Performed, Proof
from ca.errors import Conflict
from ca.model import KeyName
from ca.ports import Archive, Clock, Failpoint
from ca.rules import transcript
from ca.rules.ceremony import CustodyAct, DestroyAct
from ca.rules.ceremony_drafts import Drafted
from ca.rules.leaf import canonical


class Statements:
    """Does them, and writes down that they were done.

    Args:
        destroy: destroys a key of an earlier ceremony and returns the store's word that it is gone; when it is gone already, too.
        custody: makes shares, backups and drills; called again after a crash, it goes on.
    """

    def __init__(
        self,
        lines: Lines,
        *,
        archive: Archive,
        clock: Clock,
        destroy: Callable[[KeyName], Proof],
        custody: Callable[[CustodyAct], Performed],
        failpoint: Failpoint,
    ) -> None:
        self._lines, self._archive, self._clock = lines, archive, clock
        self._destroy, self._custody, self._failpoint = destroy, custody, failpoint

    def destroyed(self, act: DestroyAct, key: KeyName, drafted: Drafted, found: bytes | None, *, belongs: Callable[[], object]) -> bytes:
        """The certificate of destruction: what was confirmed, by whom, and the store's word.

        Args:
            found: the certificate that a run left which ended before it could say so.
            belongs: opens the key once more, so that what is destroyed is the key of this certificate and no other.

        Raises:
            Conflict: a certificate is there, and nothing was begun (`output-changed`).
        """
        begun = self._lines.find("destroying", act.id) is not None
        if found is not None and not begun:
            raise _slipped_in(drafted)
        if not begun:
            belongs()
            self._lines.write("destroying", act=act.id, tbs_sha256=hashlib.sha256(drafted.tbs).hexdigest())
            self._failpoint("ceremony.before-destroy")
        # Also where a certificate says so already: a file that came from somebody else must not keep the key alive.
        proof = self._destroy(key)
        self._failpoint("ceremony.after-destroy")
        return self._written(drafted, found, proof, word="certificate_of_destruction", files={})

    def performed(self, act: CustodyAct, drafted: Drafted, found: bytes | None) -> bytes:
        """The record of what custodians did: what was confirmed, by whom, and what came of it.

        Raises:
            Conflict: a record is there, and nothing was begun (`output-changed`).
        """
        begun = self._lines.find("performing", act.id) is not None
        if found is not None:
            if not begun:
                raise _slipped_in(drafted)
            return found
        self._lines.write("performing", act=act.id, tbs_sha256=hashlib.sha256(drafted.tbs).hexdigest(), again=begun)
        self._failpoint("ceremony.before-custody")
        done = self._custody(act)
        self._failpoint("ceremony.after-custody")
        return self._written(drafted, None, done.proof, word="statement", files=done.files)

    def _written(self, drafted: Drafted, found: bytes | None, proof: Proof, *, word: str, files: Mapping[str, str]) -> bytes:
        if found is not None:
            return found
        confirmed = [
            dict(record.fields) for record in self._lines.done if record.kind == "confirmed" and record.fields["act"] == drafted.act
        ]
        document = {
            word: transcript.text_of(drafted.tbs),
            "ceremony": self._lines.done[0].digest.hex(),
            "confirmed": confirmed,
            "proof": [list(each) for each in proof],
            "files": dict(files),
            "done_at": self._clock.now(),
        }
        octets = canonical(document) + b"\n"
        self._archive.put_new(drafted.file, octets)
        return octets


def _slipped_in(drafted: Drafted) -> Conflict:
    return Conflict(
        "output-changed",
        f"{drafted.file} is there, and this ceremony has not begun to make it.",
        why="Somebody put it into the folder.",
        fix="Take it away and keep it as evidence, then run the same command again.",
    )
