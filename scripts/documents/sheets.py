"""docs/reference/ceremony-sheets.md: every key of a ceremony sheet and of the credentials beside it, from the forms that read them."""

from __future__ import annotations

from typing import Any, Final, get_args

from pydantic.fields import FieldInfo

from ca.rules.ceremony_roles import EXCLUSIVE, ROLES
from config import credentials, sheet
from config.strict import Form, forms_in
from documents import markdown

_HEAD = markdown.head(
    "Ceremony sheets",
    "`config/sheet.py` and `config/credentials.py`",
    """
A sheet is the TOML file that is reviewed, printed and run: all acts of one ceremony, in their order. It is read strictly: an unknown key, a wrong
type, a value that nothing uses is refused by name. `{name}` in any text is replaced by `name` of `[values]`. Relative paths start at the sheet.

A **moment** is `"now"`, a span after now such as `"90d"`, or a UTC date such as `2046-01-01T00:00:00Z`; an end written as a span counts from the
start. A **span** is a whole number and `s`, `m`, `h`, `d`, `w` or `y` (calendar years). What follows from something else is not written: CRL numbers and
entries, the dates of links, the start of each CRL of a chain, the length of a responder's life.
""",
)

_MEANINGS: Final = {
    "about": "One line for people.",
    "acts": "What is done, in this order. See below.",
    "act": "Which act it is.",
    "algorithm": "The kind of key to make; beside `csr`: the kind that the CSR's key must have.",
    "allow_network": "Why a network interface may be up. Absent: `run` refuses while one is. The reason lands in the transcript.",
    "backup": "The file that an act `backup` wrote.",
    "bag": "Number of its tamper-evident bag.",
    "certificate": "The certificate (PEM or DER).",
    "certificate_sha256": "SHA-256 of its DER, as compared over another channel; another one is refused.",
    "ceremony": "What this ceremony is. See below.",
    "confirm": "Roles of which every person must confirm, each with a signature by their own key. In an act: in place of `[ceremony]`'s.",
    "count": "How many, one after the other.",
    "crl_url": "Where the signer's CRL is published: goes into the certificate.",
    "csr": "The CSR (PEM or DER). Of it only the key is used.",
    "csr_sha256": "SHA-256 of the CSR's DER, as reviewed; another one is refused.",
    "custodians": "Who gets a share each: persons of `[[roles]]` with the role `custodian`.",
    "day": "The day on which it is held (a TOML date); with another date on the clock nothing is signed.",
    "each": "How long each CRL of the chain holds (span).",
    "equipment": "Machines, tokens and media, for the script. See below.",
    "first": "There never was a CRL of this root before.",
    "id": "Its name: of the files that it writes, and of the issuer in the settings.",
    "issuer": "The CA that signs, or whose key it is: an act before it, or one of `[[issuers]]`.",
    "issuer_url": "Where the signer's certificate is served: goes into the certificate.",
    "issuers": "CAs of earlier ceremonies whose keys this one uses. See below.",
    "key": "Where the key rests: `sealed:FILE.key`, `pkcs11:...`, `tpm:...`, `awskms:...`.",
    "key_sha256": "SHA-256 of the SubjectPublicKeyInfo of their key, as `fleetca ceremony role-key` prints it. All zeros: not yet; `run` refuses.",
    "keys": "Issuers whose sealed keys are sealed anew under the new shares.",
    "made": "Act -> where the key that it makes will rest. Absent: sealed, in the output folder.",
    "name": "The ceremony's name.",
    "next_update": "Until when the CRL holds (moment).",
    "not_after": "Until when it holds (moment), the last second included.",
    "not_before": "From when it holds (moment).",
    "overlap": "How long before the end of the one before it each one begins (span).",
    "passphrase": "The secret that unlocks it: `file:`, `env:`, `fd:`, `credential:`; absent or `ask`: a question at the terminal.",
    "people": "Person of the sheet -> where the key that signs for them rests.",
    "person": "Their name. One person has one key.",
    "place": "Where it is held.",
    "predecessor": "The certificate of the old key (PEM or DER); the subject is copied from it, octet by octet.",
    "previous": "The CRL before this one: its entries stay, its number rises.",
    "profile": "The certificate profile; it also says how well the store of the key must keep it (`minimum_protection`). One of `[[issuers]]` without "
    "it has `root`, or `issuing-ca` where another CA signed it.",
    "quorum": "The act `shares` under whose shares the key is sealed, or the backup is encrypted.",
    "quorum_file": "The `ID.quorum.json` that the shares' act wrote.",
    "reason": "Why; for the record.",
    "replaces": "The `ID.quorum.json` of the set whose place the new one takes: a quorum of it must come.",
    "replaces_pre_dated": "It takes the place of pre-dated CRLs that were not published: its number is above theirs, its date may be before, but not before "
    "the ceremony's. `previous` is the last of them; an import refuses a number that one of them has.",
    "revoked": "Certificates to add to the entries. See below.",
    "revoked_at": "When (a UTC date).",
    "role": "What they are here.",
    "roles": "The people in the room. See below.",
    "serial": "Serial number; of a certificate in hexadecimal.",
    "signer": "The root that signs.",
    "subject": "The name that is certified; in a link: the root whose name and key are certified.",
    "this_update": "From when the CRL holds (moment).",
    "threshold": "How many custodians have to come.",
    "values": "Texts for `{name}`.",
    "what": "What it is.",
}
_SUBJECT: Final = "`common_name`, and if wanted `organization`, `organizational_unit`, `country` (two letters)."


def page() -> str:
    """The page."""
    parts = [_HEAD, _section("The file", sheet.Sheet), _section("`[ceremony]`", sheet.About)]
    parts += [
        _section("`[[roles]]`", sheet.Person),
        _roles(),
        _section("`[[equipment]]`", sheet.Equipment),
        _section("`[[issuers]]`", sheet.KnownIssuer),
    ]
    parts.append("## `[[acts]]`\n")
    for form in forms_in(sheet.Sheet.model_fields["acts"].annotation):
        name = get_args(form.model_fields["act"].annotation)[0]
        parts.append(_section(f"`{name}`", form, level="###"))
    parts += [_section("`[[acts.revoked]]`", sheet.Revoked), f"## `subject`\n\n{_SUBJECT}\n"]
    parts.append(_section("The credentials file", credentials.Credentials, also="Each place is a table: ") + _keys(credentials.KeyPlace))
    return "\n".join(parts)


def _section(title: str, form: type[Form], *, level: str = "##", also: str = "") -> str:
    about = " ".join((form.__doc__ or "").split())
    return f"{level} {title}\n\n{about}\n\n{_keys(form)}{also}\n" if also else f"{level} {title}\n\n{about}\n\n{_keys(form)}"


def _keys(form: type[Form]) -> str:
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for name, field in form.model_fields.items():
        if name == "act":
            continue
        lines.append(f"| `{name}` | {_default(field)} | {_MEANINGS[name]} |")
    return "\n".join([*lines, ""])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value: Any = field.get_default(call_default_factory=True, validated_data={})
    if value in (None, (), {}, ""):
        return "none"
    return "`false`" if value is False else f'`"{value}"`'


def _roles() -> str:
    pairs = "; ".join(sorted(" and ".join(sorted(pair)) for pair in EXCLUSIVE))
    lines = ["| role | what they do |", "|---|---|", *(f"| `{role}` | {about} |" for role, about in ROLES.items())]
    return "\n".join([*lines, "", f"One person cannot be two of: {pairs}.", ""])
