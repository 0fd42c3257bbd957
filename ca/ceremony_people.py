"""The people of a ceremony: each sees a step, says yes, and signs that with their own key. Ring 4: knows rules and ports; no terminal.

A yes counts once: what is signed names the ceremony's first line, the stage, the act, the person and the digest of what was shown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from ca.ceremony_lines import Lines
from ca.ceremony_steps import Step
from ca.errors import Denied, KeyUnavailable
from ca.ports import Failpoint, SigningKey
from ca.rules import ceremony_roles as roles
from ca.rules import transcript
from ca.rules.ceremony import Participant, Sheet
from ca.rules.ceremony_words import words


def no_role_key(who: Participant) -> SigningKey:
    """Where nobody's key can be had."""
    raise KeyUnavailable(
        "no-role-key", f"There is no key for {who.person} ({who.role}).", fix='Say in the credentials file where it rests: [people."NAME"].'
    )


def named(who: Participant | None) -> dict[str, Any]:
    """A person, as lines of the transcript have them."""
    return {} if who is None else {"role": who.role, "person": who.person}


class People:
    """Those of one run, and their keys.

    Args:
        confirm: shows a step, to one person where the sheet names people, and returns what was decided.
        role_key: opens the key of somebody whom the sheet names.
    """

    def __init__(
        self, lines: Lines, *, confirm: Callable[[Step], bool], role_key: Callable[[Participant], SigningKey], failpoint: Failpoint
    ) -> None:
        self._lines, self._confirm, self._role_key, self._failpoint = lines, confirm, role_key, failpoint
        self._keys: dict[Participant, SigningKey] = {}

    def open(self, sheet: Sheet) -> None:
        """Everybody confirms that this is the sheet that was reviewed, and this the software."""
        begin = self._lines.done[0].fields
        lines = (
            ("ceremony", sheet.name),
            ("sheet SHA-256", sheet.digest.hex()),
            ("sheet in words", words(sheet.digest)),
            ("software", f"{begin['software']}, SHA-256 {begin['software_sha256']}"),
            ("network", f"{', '.join(begin['interfaces'])} up: {begin['network']}" if begin["interfaces"] else "none is up"),
        )
        for at, each in enumerate(sheet.participants):
            self.ask(Step(None, "Opening: this is the reviewed sheet", lines, sheet.digest, roles.OPENING, each, at > 0))

    def close(self, sheet: Sheet) -> None:
        """Everybody signs the whole transcript so far."""
        for each in sheet.participants:
            if self._lines.signed_by(roles.CLOSING, None, each):
                continue
            last = self._lines.done[-1].digest
            lines = (("transcript so far", last.hex()), ("in words", words(last)))
            self.ask(Step(None, "Closing: this is what happened", lines, last, roles.CLOSING, each))

    def ask(self, step: Step) -> None:
        """One person's yes, signed by their key and written down; nothing where it was said before the run was stopped.

        Raises:
            Denied: they said no (`not-confirmed`).
            KeyUnavailable: their key cannot be had, or is another one (`wrong-role-key`).
        """
        who, digest = step.participant, step.tbs_sha256.hex()
        if self._lines.signed_by(step.stage, step.act, who):
            return
        if not self._confirm(step):
            self._lines.write("refused", stage=step.stage, act=step.act, tbs_sha256=digest, **named(who))
            raise Denied(
                "not-confirmed",
                f"{f'Act {step.act}' if step.act else step.title} was not confirmed; nothing was signed for it.",
                fix="Run the same command to go on from here, or begin again in an empty folder.",
            )
        fields: dict[str, Any] = {"stage": step.stage, "act": step.act, "tbs_sha256": digest, **named(who)}
        if who is not None:
            message = roles.statement(
                ceremony=self._lines.done[0].digest.hex(),
                stage=step.stage,
                act=step.act,
                role=who.role,
                person=who.person,
                tbs_sha256=digest,
            )
            fields["signature"] = transcript.text_of(self.key_of(who).sign(message))
        self._lines.write("confirmed", **fields)
        self._failpoint("ceremony.after-confirmed")

    def key_of(self, who: Participant) -> SigningKey:
        """Their key, which must be the one of the sheet.

        Raises:
            KeyUnavailable: it is not (`wrong-role-key`), or cannot be had.
        """
        key = self._keys.get(who)
        if key is None:
            key = self._role_key(who)
            if hashlib.sha256(key.spki).digest() != who.key_sha256:
                raise KeyUnavailable(
                    "wrong-role-key",
                    f"The key given for {who.person} ({who.role}) is not the one in the sheet.",
                    why="Its SHA-256 differs: it is another person's key or token.",
                    fix="Bring the key whose SHA-256 the sheet names.",
                )
            self._keys[who] = key
        return key
