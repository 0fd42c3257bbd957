"""docs/reference/log-lines.md: every event that a process may log, found by reading the sources (AST)."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from typing import Final

from documents import markdown

LEVELS: Final = ("info", "warning", "error", "exception")

MEANINGS: Final = {
    "listening": "The signer takes requests.",
    "key-called": "The signer asked a key or its store for something: operation, key and outcome (`ok`, or the error's code). Signatures only when they failed.",
    "key-calls": "How often the signer did so since the last such line, signatures too: each hour, and at its end.",
    "key-called-off-hours": "That happened outside `signer.working_hours`.",
    "key-calls-unusual": "A key signed over five times as often in the last hour as in any hour of the week before: a large replacement, or a thief.",
    "stopped": "The signer has drained and ended.",
    "refused": "The signer refused what one of our own processes or commands asked: code, what and why.",
    "internal": "Something failed inside the signer that should not; nothing was released. Report it.",
    "issued": "A certificate was issued.",
    "repeated": "An equal request was granted before; its certificate was given again.",
    "revoked": "Certificates were revoked.",
    "delivered": "The holder of a certificate said that its successor has arrived; the certificate's grace began.",
    "device-described": "Something was said of a device: its root of trust, safety class, batch, owner; or that its line is done with it.",
    "superseded": "A certificate's grace is over, and that stands on record now; it counted as superseded before.",
    "clone-suspected": "A key spoke for a certificate whose place another had taken by being used: the device's key may have been copied.",
    "housekeeping-waits": "What becomes due by itself could not be written down; the signer tries again in a minute.",
    "token-created": "A one-time token was made; only the beginning of its hash is shown.",
    "manifest-entries": "Entries of a maker's manifest of secure elements came; `taken` of them are on record.",
    "manifest-entries-refused": "Entries of such a manifest are not what their maker signed, or of devices that are others'; the command says why.",
    "approval-decided": "An operator decided on a request that waited; only the beginning of its hash is shown.",
    "proposed": "An operator asked for an act that needs a second person; only the beginning of its hash is shown.",
    "proposal-decided": "A second person approved or refused such an act.",
    "profile-waits": "A changed profile waits for its approval; the one before it stays in force.",
    "demand-waits": "The settings leave less to two persons than is on record; what is on record stays in force until two persons approved that.",
    "operator-refused": "An operator on record holds roles that exclude each other, and may do nothing until one is taken away.",
    "device-revived": "A retired device id is in use again, by the word of two people.",
    "account-bound": "An account of ACME has a device's one-time token from now on; only the beginning of its hash is shown.",
    "token-revoked": "Unused tokens of a device were withdrawn; the beginnings of their hashes.",
    "ceremony-recorded": "The signer verified a ceremony whose outputs were imported while it runs, and wrote its leaf.",
    "crl-signed": "The signer signed a CRL; it is not visible before the publisher's gate has read it.",
    "journal-waits": "Records wait for the journal's disk; nothing new is signed until they are written.",
    "recovered": "At its start the signer classified an intent that a crash had left.",
    "crl.look-failed": "The publisher failed in a way that should not be; it tries again. Report it.",
    "crl.not-published": "No new CRL could be published; the one in force stays, and the publisher tries again in `again_in` seconds.",
    "crl.published": "A new CRL is visible.",
    "crl.taken-over": "The time of a ceremony's next CRL has come; it took the place of the one before.",
    "crl.mirrored": "CRLs, or changes of status, were brought to another place.",
    "crl-shards": "New certificates are spread over so many CRLs from now on.",
    "crl-overridden": "Two persons answer for a CRL that the gate refused; it is put out by their word.",
    "crl.clock-went-back": "The publisher's clock is behind what it published before.",
    "request": "One request to the enrolment service: status, code, and what it was about. Never bodies, tokens or queries.",
    "failed": "A request failed for a reason of ours; the client learned the request id only.",
    "crashed": "A request met a mistake of ours. Report it.",
    "finalized": "An ACME order has its certificate.",
    "finalize-waits": "An ACME order waits for the signer; whoever looks at it next asks again.",
    "validated": "A challenge was decided: `outcome` is `valid`, or the kind of problem that the client reads.",
    "validation-crashed": "A challenge met a mistake of ours; the client learned that it failed. Report it.",
    "validation-lost": "What came of a challenge could not be written down; the client starts it again.",
    "tidying-waits": "Rows of ACME that are over could not be dropped; it is tried again.",
    "unavailable": "An ACME request met a signer or database that is down; the client was told when to come again.",
    "identity-obtained": "The enrolment service has a new TLS certificate.",
    "identity-refused": "The enrolment service got no new TLS certificate; it tries again in `retry_in` seconds.",
    "reports-not-written": "What devices said of their renewals could not be written; it waits for the next second. Said once.",
    "maintenance-planned": "`renewals.toml` was read: so many times of maintenance are laid down.",
    "renewals-ordered": "An operator has certificates replaced before their time.",
    "renewals-withdrawn": "An operator ended such an order.",
    "orders-heard": "So many such orders are in force; the windows of renewal follow them.",
    "orders-not-heard": "What operators ordered could not be read; what was known goes on. Said once.",
    "proxy-header-refused": "A proxy said whose certificate its client has shown in a way that RFC 9440 does not know; the request got 400.",
    "renewals-file-wrong": "`renewals.toml` cannot be read; what was laid down before goes on.",
    "crowd": "After an outage so many devices are overdue that their windows are spread; 0: that is over.",
    "fleet-not-counted": "How many devices are overdue could not be counted; windows are given as before.",
    "connections-short": "All of `connections` are taken; whoever has waited longest for its client gives way. Said once a minute.",
    "connections-capped": "The system allows fewer open files than `connections` needs; so many are had.",
    "handshake-refused": "A TLS client was turned away, and why: expired, foreign or look-alike certificate, old protocol.",
    "sequencer-failed": "The record is not published further; issuing goes on. Said once until it changes.",
    "escrow-refused": "Somebody wanted a backup of a signing key that nobody may have a copy of; also in the system's log (authpriv), with who.",
    "crew-lost": "Processes start more slowly: the one that others are copies of is gone. The next reload makes a new one.",
    "presigned": "The publisher went through all certificates; `signed` answers were due and lie in the spool.",
    "presign-failed": "Answers are not signed ahead; those that were hold until their nextUpdate. Said once until it changes.",
    "serial-check-unknown": "The presigner may not read the check key of serial numbers, so status processes look up every serial, also made-up ones.",
    "responder-key-made": "The presigner found no key where `ocsp.responder_key` points, and had one made there.",
    "presign-broken": "Signing ahead met a mistake of ours; it goes on. Report it.",
    "process-died": "A process ended by itself and is started again.",
    "process-failed": "A process did not start with the new settings.",
    "process-killed": "A process did not drain in time.",
    "settings-refused": "SIGHUP met settings that are wrong; the old ones stay.",
    "settings-reloaded": "New settings are in force.",
    "started-anew": "An awaited issuer's certificate is in place, or an issuer is retired: the processes were started anew with the settings they have.",
    "not-started-anew": "The same, and one of them would not have started: nothing was touched. Mend what it names, and send SIGHUP.",
    "station-added": "A station of a factory line is known by its key.",
    "shift-opened": "An operator logged in at a station; its quota was signed.",
    "units-taken": "A station's file, or a part of it, was judged to its end, and its units stand on record.",
    "units-issued": "Units of a line asked for certificates together: how many asked, how many got a new one, the codes of those that were refused.",
    "records-sealed": "Provisioning records of a station were countersigned.",
    "wipe-ordered": "A retired device may wipe its keys: the order was signed.",
    "wipe-waived": "A retired device's record was closed without its wipe receipt; the record says why.",
    "wiped": "A retired device's wipe receipt was put on record.",
    "issuer-at-work": "The signer found an issuer for the first time and put it on record.",
    "issuer-retired": "All that an issuer signed has ended: nothing is signed for it any more. Destroy its key.",
    "retiring-waits": "Whether issuers are to be retired could not be looked up; the signer tries again in an hour.",
    "settings-taken-back": "A process did not start with the new settings, so the old ones are in force again.",
}
"""What each event tells; a sentence that is logged as such needs none."""

_ABOUT = """
Every process writes one JSON object a line to stderr: `at` (UTC), `level`, `process`, `event`, and fields of its own. Secrets never reach a
line: fields that could hold one say `(not shown)`. `fleetca demo` keeps the lines in `logs/`; with `fleetca serve` they go where its stderr goes.
"""


def page() -> str:
    """The page."""
    rows = [(_shown(event), level, ", ".join(fields) or "-", MEANINGS.get(event, "as it says")) for event, level, fields in events()]
    return (
        markdown.head("Log lines", "the sources", _ABOUT)
        + "\n"
        + markdown.table(("event", "level", "fields", "what it tells"), rows)
        + "\n"
    )


def events() -> list[tuple[str, str, list[str]]]:
    """Every event with its levels and fields, by name; sentences (from modules that log those) have values as words in capitals."""
    levels: dict[str, set[str]] = defaultdict(set)
    fields: dict[str, dict[str, None]] = defaultdict(dict)
    for _, module in markdown.modules():
        for node in ast.walk(module):
            if not isinstance(node, ast.Call) or not _is_logging(node.func):
                continue
            for event in _names(node.args[0]):
                levels[event].add({"exception": "error"}.get(_method(node.func), _method(node.func)))
                fields[event] |= {f"`{each.arg}`": None for each in node.keywords if each.arg}
    return [(event, "/".join(sorted(levels[event])), list(fields[event])) for event in sorted(levels, key=lambda text: (" " in text, text))]


def _shown(event: str) -> str:
    return f"`{event}`" if event in MEANINGS else re.sub("%[sd]", "...", event)


def _is_logging(function: ast.expr) -> bool:
    if _method(function) not in LEVELS or not isinstance(function, ast.Attribute):
        return False
    owner = function.value
    name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
    return name in {"log", "_log"}


def _names(node: ast.expr) -> list[str]:
    if isinstance(node, ast.IfExp):
        return [*_names(node.body), *_names(node.orelse)]
    assert isinstance(node, ast.Constant) and isinstance(node.value, str), f"an event without a fixed name: {ast.unparse(node)}"
    return [node.value]


def _method(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else ""
