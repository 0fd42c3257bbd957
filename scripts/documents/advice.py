"""Words about error codes where those in the code are not enough: for the class, and for single codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

BY_CLASS: Final[Mapping[str, str]] = {
    "Malformed": "Send it in the form that [rest.md](rest.md) or `--help` states.",
    "Unauthenticated": "Ask with evidence that holds.",
    "Contested": "If the device itself did not use the other certificate, its key was copied: revoke the device, and enrol it anew.",
    "Denied": "Ask with evidence that allows it, or ask an operator.",
    "NotFound": "Check the name; list what there is with the matching `fleetca` command.",
    "Conflict": "Look at what is on record; ask for something else.",
    "Unacceptable": "Change what is asked for; the rule stays.",
    "Unavailable": "Repeat it later, as it is.",
    "Busy": "Repeat it later, as it is.",
    "KeyUnavailable": "Make the key or its passphrase available, then start the process again.",
    "StoreUnavailable": "Mend the database or disk; then repeat it as it is.",
    "ClockUntrusted": "Set the clock right.",
    "Misconfigured": "Correct what it names; check with `fleetca doctor`.",
    "Broken": "Nothing was released. Keep the log lines and report it.",
    "HTTP": "Correct the request.",
}

_AGAIN = "Repeat the same request: it finds what came of it."
_ASK_ANEW = "Make the evidence for what is asked: a new token or message."
_GATE = (
    "The published CRL stays, and the publisher tries again by itself. If it lasts: `fleetca recover`, then report it with the log lines."
)
_HTTP = "Send a plain HTTP/1.1 request as [rest.md](rest.md) states."
_NAME = "Ids have 1 to 64 characters: letters, digits, `.`, `_`, `:`, `-`; names of profiles, issuers and operators are lower-case."

_ADVICE: Final[Mapping[str, str]] = {
    "already-finished": _AGAIN,
    "already-revoked": "Nothing: it is revoked. A reason is not changed afterwards.",
    "bad-csr": "Make it anew: `openssl req -new -key device.key -subj / -out device.csr`.",
    "bad-device-id": _NAME,
    "bad-issuer-id": _NAME,
    "bad-profile-id": _NAME,
    "bad-responder-certificate": "The responder goes on with the one it has. Look at the profile `ocsp-responder` and at the issuer's certificate.",
    "bad-serial": "Write 1 to 40 hexadecimal digits.",
    "body-too-large": "Send at most 64 KiB.",
    "certificate-not-yet-valid": "Set the device's clock right, or wait.",
    "checkpoint-fork": "Run `fleetca audit verify`: two histories were signed. See [the record](../explanation/record.md).",
    "commit-unknown": _AGAIN,
    "crl-expired": "Start the publisher; the root's CRL comes from a ceremony: import a new one.",
    "crl-missing": "Start the publisher; the root's CRL comes from a ceremony: import a new one.",
    "csr-algorithm": "Sign the CSR with the algorithm of its key, SHA-256 or better.",
    "csr-too-large": "Send a CSR that holds the key and little else.",
    "demo-check-failed": "Read what the check said, and the files in the demo's `logs/`.",
    "device-exists": _AGAIN,
    "device-not-quarantined": "Look at its state: `fleetca devices show`.",
    "device-words": "Say it in fewer words, on one line.",
    "device-of-another-tenant": "Use another device id.",
    "device-reserved": "Use another device id.",
    "evidence-for-another-device": _ASK_ANEW,
    "evidence-for-another-profile": _ASK_ANEW,
    "evidence-for-other-names": _ASK_ANEW,
    "evidence-unknown": "Use the evidence that the request takes: see [rest.md](rest.md).",
    "frame-too-long": "Run client and signer of the same release.",
    "headers-too-large": _HTTP,
    "issuer-expired": "Hold a ceremony for a new issuing CA and import it.",
    "issuer-may-not-issue": "Name another issuer in `[profiles] default_issuer` or the request.",
    "issuer-not-yours": "Leave the issuer out.",
    "internal": "Nothing was released. Look in the log under the request id; on the command line, set `FLEETCA_DEBUG=1`. Then report it.",
    "journal-damaged": "Keep the journal as it is and restore a copy; `fleetca recover` names each record it cannot use.",
    "key-not-written": "Mend the folder's owner, mode or free space; then run the same command again.",
    "leaf-pending": "Ask again after some seconds.",
    "leaf-sequenced": "Nothing: another sequencer was quicker.",
    "lease-lost": "Nothing: another publisher goes on.",
    "length-required": _HTTP,
    "log-name": "Choose a `[deployment] name` of lower-case letters, digits and hyphens.",
    "message-for-another-act": "Sign a message whose fields say what the request asks.",
    "message-for-another-csr": "Put the CSR that is sent into the signed message.",
    "method-not-allowed": "Use a method that the header `Allow` names.",
    "no-crl-sign": "Name an issuer whose certificate has the key usage cRLSign.",
    "no-leaf": "Ask for a certificate that was issued here.",
    "no-such-resource": "Look at [rest.md](rest.md) for the routes.",
    "not-a-ca": "Put a CA certificate there.",
    "not-allowed": "Act in the role that may: see [trust.md](../explanation/trust.md).",
    "not-an-operator": "Sign with an operator's key: see [operators.md](../how-to/operators.md).",
    "not-by-presenting": "Send a message signed with the certificate's key instead; for a renewal: `fleetca renew --by message`.",
    "not-on-hold": "Nothing: the certificate is not on hold.",
    "not-renewable": "Enrol with a new token.",
    "not-toml": "Correct the file at the line that it names.",
    "not-your-certificate": "Present the certificate itself, or let an operator revoke it.",
    "note-signature": "Give the log's key as it was kept when the deployment was set up. If that was right: the log is not ours.",
    "ocsp-reread": "The answer was not sent. Keep the log lines and report it.",
    "operator-role": "Ask an operator whose role may: see [operators.md](../how-to/operators.md).",
    "operators-only": "Connect with an operator's certificate.",
    "outlet-changed": "Nothing: another publisher goes on.",
    "profile-reserved": "Use a profile for devices or services.",
    "reason-not-for-leaves": "Give a reason for end entities: keyCompromise, superseded, cessationOfOperation ...",
    "reason-not-yours": "Give keyCompromise, superseded, cessationOfOperation or unspecified, or let an operator revoke it.",
    "receipt-other-certificate": "Fetch the receipt of this certificate.",
    "receipt-proof": "Fetch the receipt again. If it still fails: the record was changed; see [auditor.md](../how-to/auditor.md).",
    "request-timeout": "Send the whole request within 20 seconds.",
    "search-unreadable": "Correct what is searched for.",
    "secret-empty": "Write the secret into the file or variable that it names.",
    "secret-missing": "Make the file, variable, credential or descriptor that it names.",
    "secret-too-long": "Name another file: this one is no passphrase.",
    "serial-taken": _AGAIN,
    "sink-failed": "Free space where CRLs are published; the publisher tries again by itself.",
    "store-failed": "Read the database's own log; then repeat it as it is.",
    "store-schema": "`fleetca migrate`",
    "token-exists": _AGAIN,
    "token-lifetime": "Choose between one second and 90 days.",
    "unknown-reason": "Use a reason of RFC 5280, section 5.3.1, such as keyCompromise or superseded.",
    "unknown-root": "Give the deployment's root with `--root`.",
    "unknown-setting": "Correct the key, or take it out: [settings.md](settings.md).",
    "unreadable-file": "Check the path, and who may read it.",
    "unwritable-file": "Check the folder, who may write there, and its free space.",
    "uri-too-long": _HTTP,
    "weak-key": "Make a new key: P-256, P-384, Ed25519, RSA with 3072 bits or more, or ML-DSA.",
    "wrong-answer": "Check `--url` and `--root`: this is not the service of your deployment, or it is broken.",
}

_GATE_CODES: Final = (
    "algorithm count entry extension forgotten form issuer key-identifier not-intended not-put number order signature unexpected window"
)

BY_CODE: Final[Mapping[str, str]] = {**_ADVICE, **{f"crl-{name}": _GATE for name in _GATE_CODES.split()}}
