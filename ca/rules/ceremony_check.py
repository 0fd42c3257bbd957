"""Whether the outputs of a ceremony are what its transcript says: checked anywhere, offline, with files only. Ring 1: pure.

Shares nothing with the run but the transcript's form: TBS octets are taken from the transcript and compared with what was signed, every
confirmation is verified with the key whose digest stands in the sheet, and acts, order and people must be the sheet's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from cryptography import x509

from ca.der import pem
from ca.der.algorithms import load_public_key, verify
from ca.der.certificate import read_certificate
from ca.errors import FleetcaError, Unacceptable
from ca.model import Digest, UnixTime
from ca.rules import ceremony_roles as roles
from ca.rules import transcript
from ca.rules.transcript import Record, Transcript


@dataclass(frozen=True, slots=True)
class Output:
    """One file of a ceremony."""

    act: str
    file: str
    der: bytes
    sha256: Digest
    is_crl: bool
    is_statement: bool = False
    """A certificate of destruction."""
    kind: str = ""
    """What made it, in the words of the sheet: `root`, `intermediate`, `link` ..."""


@dataclass(frozen=True, slots=True)
class SheetFacts:
    """What a sheet says that a transcript must follow."""

    name: str
    acts: tuple[str, ...]
    kinds: Mapping[str, str]
    """Act -> what it makes."""
    people: tuple[tuple[str, str, str], ...]
    """Role, person, SHA-256 of the key (hex)."""
    confirm: Mapping[str, tuple[tuple[str, str], ...]]
    """Act -> who must confirm it: role, person."""
    network: str = ""


@dataclass(frozen=True, slots=True)
class Verified:
    """A finished ceremony whose every line and output holds. The root is believed by whoever compares its fingerprint, not by this."""

    name: str
    about: str
    place: str
    began: UnixTime
    finished: UnixTime
    software: str
    software_sha256: tuple[str, ...]
    """Of the run, and of each resumption."""
    sheet_sha256: Digest
    transcript_sha256: Digest
    root: str
    """The CA whose key sealed the transcript; empty where a person did."""
    root_certificate: bytes
    issuers: Mapping[str, Digest]
    """The CAs of earlier ceremonies whose keys were used: id -> SHA-256 of the certificate."""
    outputs: tuple[Output, ...]
    people: tuple[tuple[str, str], ...]
    rehearsal: bool
    remarks: tuple[str, ...]
    """What an auditor will ask about: a network that was up, resumptions, refusals, a move to another machine, repeated signatures."""


def check(
    octets: bytes, files: Mapping[str, bytes], *, roots: Mapping[str, bytes] | None = None, sheet: SheetFacts | None = None
) -> Verified:
    """Check a transcript and the files beside it.

    Args:
        octets: the transcript.
        files: output files by name, and `sheet.toml`.
        roots: DER certificates of CAs made by earlier ceremonies, by id, where this one only uses them.
        sheet: what the sheet beside it says.

    Raises:
        Unacceptable: the first thing that does not hold: `transcript-broken`, `transcript-incomplete`, `transcript-seal`,
            `output-missing`, `output-changed`, `sheet-changed`, `confirmation-missing`, `confirmation-forged`, `another-order`.
    """
    said = transcript.read(octets)
    if not said.records or said.records[0].kind != "begin":
        raise _wrong("transcript-broken", "The transcript does not begin with a beginning.")
    try:
        return _checked(said, files, roots or {}, sheet)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        # The chain holds, so its writer made it so: it is no transcript of ours.
        raise _wrong("transcript-broken", "The transcript lacks what a transcript says.", why=f"{type(error).__name__}: {error}") from None


def _wrong(code: str, what: str, *, why: str = "") -> Unacceptable:
    return Unacceptable(code, what, why=why, fix="Take transcript and outputs from another copy; if no copy holds, they must not be used.")


def _checked(said: Transcript, files: Mapping[str, bytes], roots: Mapping[str, bytes], sheet: SheetFacts | None) -> Verified:
    begin = said.records[0].fields
    if hashlib.sha256(_file(files, "sheet.toml")).hexdigest() != begin["sheet_sha256"]:
        raise _wrong("sheet-changed", "sheet.toml is not the sheet that was run.")
    for name, digest in begin["inputs"].items():
        octets = files.get(f"input-{name}")
        if octets is not None and hashlib.sha256(octets).hexdigest() != digest:
            raise _wrong("output-changed", f"input-{name} is not what the ceremony was given.")
    if sheet is not None:
        _check_sheet(begin, sheet)
        if not sheet.network and any(record.fields["interfaces"] for record in said.of("resumed")):
            raise _wrong("sheet-changed", "A network was up after a stop, which the sheet does not allow.")
    certificates = {id_: der for id_, der in roots.items() if hashlib.sha256(der).hexdigest() == begin["issuers"].get(id_)}
    if not said.sealed:
        transcript.verify_seal(said, b"")
    keys = {(each["role"], each["person"]): transcript.octets_of(each["spki"]) for each in begin["people"]}
    _check_confirmations(said, keys)
    outputs: list[Output] = []
    for act in begin["acts"]:
        output = replace(_output(said, act, files), kind=str(begin["kinds"][act]))
        outputs.append(output)
        if not output.is_crl and not output.is_statement:
            certificates.setdefault(act, output.der)
    _check_order(said, begin["acts"])
    seal = said.records[-1]
    root = seal.fields["signer"]
    if root is None:
        transcript.verify_seal(said, keys[seal.fields["role"], seal.fields["person"]])
    elif root not in certificates:
        raise _wrong("transcript-seal", f"The certificate of {root}, which sealed the transcript, is not here.")
    else:
        transcript.verify_seal(said, read_certificate(certificates[root]).spki)
    for output in outputs:
        if not output.is_statement:
            _signed_by_root(output, certificates)
    return Verified(
        name=str(begin["ceremony"]),
        about=str(begin["about"]),
        place=str(begin["place"]),
        began=said.records[0].at,
        finished=seal.at,
        software=str(begin["software"]),
        software_sha256=tuple(str(record.fields["software_sha256"]) for record in said.records if record.kind in {"begin", "resumed"}),
        sheet_sha256=Digest(bytes.fromhex(begin["sheet_sha256"])),
        transcript_sha256=said.digest,
        root=root or "",
        root_certificate=certificates[root] if root is not None else b"",
        issuers={str(id_): Digest(bytes.fromhex(digest)) for id_, digest in begin["issuers"].items()},
        outputs=tuple(outputs),
        people=tuple(keys),
        rehearsal=begin["rehearsal"] is not False,
        remarks=tuple(_remarks(said)),
    )


def _remarks(said: Transcript) -> Sequence[str]:
    found: list[str] = []
    for record in said.records:
        fields = record.fields
        if record.kind in {"begin", "resumed"} and fields["interfaces"]:
            reason = f": {fields['network']}" if record.kind == "begin" else ""
            found.append(f"a network was up ({', '.join(fields['interfaces'])}){reason}")
        if record.kind == "resumed":
            found.append(f"it was stopped and went on (line {record.seq + 1})")
            if fields["moved"]:
                found.append(f"it went on on another machine: {fields['moved']}")
        if record.kind == "note":
            found.append(f"noted: {fields['text']}")
        if record.kind == "refused":
            found.append(f"somebody said no (line {record.seq + 1})")
        if record.kind == "signing" and fields["again"]:
            found.append(f"act {fields['act']}: the same octets were signed again after a stop")
    return found


def _check_sheet(begin: Mapping[str, Any], sheet: SheetFacts) -> None:
    if begin["ceremony"] != sheet.name or tuple(begin["acts"]) != sheet.acts or begin["kinds"] != dict(sheet.kinds):
        raise _wrong("another-order", "The transcript's acts are not those of the sheet, in its order.")
    if begin["interfaces"] and not sheet.network:
        raise _wrong("sheet-changed", "A network was up, which the sheet does not allow.")
    wanted = {act: tuple((role, person) for role, person in who) for act, who in begin["confirm"].items()}
    if wanted != dict(sheet.confirm):
        raise _wrong("confirmation-missing", "The transcript asked other people to confirm than the sheet does.")
    present = tuple(
        (each["role"], each["person"], hashlib.sha256(transcript.octets_of(each["spki"])).hexdigest()) for each in begin["people"]
    )
    if begin["rehearsal"]:  # their keys are thrown away, too
        present, people = tuple((*each[:2], "") for each in present), tuple((*each[:2], "") for each in sheet.people)
    else:
        people = sheet.people
    if present != people:
        raise _wrong("confirmation-missing", "The people of the transcript, or their keys, are not those of the sheet.")


# ---- People -------------------------------------------------------------------------------------------------------------


def _check_confirmations(said: Transcript, keys: Mapping[tuple[str, str], bytes]) -> None:
    """Every person's signature where the sheet wants one: the opening first, each act before it is signed, the closing last."""
    begin = said.records[0]
    found: dict[tuple[str, str | None, tuple[str, str] | None], Record] = {}
    for record in said.records:
        if record.kind != "confirmed":
            continue
        fields = record.fields
        who = (fields["role"], fields["person"]) if "role" in fields else None
        if who is not None:
            message = roles.statement(
                ceremony=begin.digest.hex(),
                stage=fields["stage"],
                act=fields["act"],
                role=who[0],
                person=who[1],
                tbs_sha256=fields["tbs_sha256"],
            )
            roles.check_signature(message, transcript.octets_of(fields["signature"]), keys[who], who=f"{who[1]} ({who[0]})")
        found.setdefault((fields["stage"], fields["act"], who), record)
    first = min((record.seq for record in said.records if record.kind in {"key", "drafted", "signing"}), default=0)
    last = max((record.seq for record in said.records if record.kind == "output"), default=0)
    for who in keys:
        opening, closing = found.get((roles.OPENING, None, who)), found.get((roles.CLOSING, None, who))
        if opening is None or opening.seq > first or opening.fields["tbs_sha256"] != begin.fields["sheet_sha256"]:
            raise _missing(who, "the sheet before the first act")
        if closing is None or closing.seq < last or closing.fields["tbs_sha256"] != said.records[closing.seq - 1].digest.hex():
            raise _missing(who, "the whole at the end")
    for act, wanted in begin.fields["confirm"].items():
        (drafted,) = said.of("drafted", act)
        (written,) = said.of("output", act)
        before = min((each.seq for kind in ("signing", "destroying", "performing") for each in said.of(kind, act)), default=written.seq)
        asked: list[tuple[str, str] | None] = [(role, person) for role, person in wanted]
        for who in asked or [None]:
            one = found.get((roles.ACT, act, who))
            if one is None or not drafted.seq < one.seq < before or one.fields["tbs_sha256"] != drafted.fields["tbs_sha256"]:
                raise _missing(who, f"act {act} before it was signed")


def _missing(who: tuple[str, str] | None, what: str) -> Unacceptable:
    name = "Nobody" if who is None else f"{who[1]} ({who[0]}) has not"
    return _wrong("confirmation-missing", f"{name} confirmed {what}.")


def _check_order(said: Transcript, acts: Sequence[str]) -> None:
    """Each act is finished before the next one is drafted, in the sheet's order."""
    for one, other in pairwise(acts):
        if _one(said, "output", one).seq > _one(said, "drafted", other).seq:
            raise _wrong("another-order", f"Act {other} began before act {one} was finished.")


# ---- Outputs ------------------------------------------------------------------------------------------------------------


def _file(files: Mapping[str, bytes], name: str) -> bytes:
    if name not in files:
        raise _wrong("output-missing", f"{name} is not here.")
    return files[name]


def _one(said: Transcript, kind: str, act: str) -> Record:
    found = said.of(kind, act)
    if len(found) != 1:
        raise _wrong("transcript-broken", f"Act {act} has {len(found)} lines of kind {kind} where one belongs.")
    return found[0]


def _output(said: Transcript, act: str, files: Mapping[str, bytes]) -> Output:
    drafted, written = (_one(said, kind, act) for kind in ("drafted", "output"))
    signings = [each for kind in ("signing", "destroying", "performing") for each in said.of(kind, act)]
    if not drafted.seq < written.seq or any(not drafted.seq < each.seq < written.seq for each in signings):
        raise _wrong("transcript-broken", f"Act {act} was signed before it was shown.")
    digests = {str(each.fields["tbs_sha256"]) for each in (drafted, *signings)}
    tbs = transcript.octets_of(drafted.fields["tbs"])
    if digests != {hashlib.sha256(tbs).hexdigest()}:
        raise _wrong("transcript-broken", f"Act {act} was signed over other octets than those that were shown.")
    name = str(written.fields["file"])
    octets = _file(files, name)
    if hashlib.sha256(octets).hexdigest() != written.fields["sha256"]:
        raise _wrong("output-changed", f"{name} is not the file that the ceremony wrote.")
    digest = Digest(hashlib.sha256(octets).digest())
    if name.endswith(".json"):
        _check_record(name, json.loads(octets), tbs, files)
        return Output(act, name, octets, digest, is_crl=False, is_statement=True)
    is_crl = name.endswith(".crl")
    der = octets if is_crl else pem.der_of(octets, pem.CERTIFICATE)
    if _tbs(_load(der, is_crl=is_crl)) != tbs:
        raise _wrong("output-changed", f"{name} does not hold the octets that were shown.")
    key = said.of("key", act)
    if key and not is_crl and key[0].fields["spki_sha256"] != hashlib.sha256(read_certificate(der).spki).hexdigest():
        raise _wrong("output-changed", f"{name} is not the certificate of the key that the ceremony made.")
    return Output(act, name, der, digest, is_crl)


def _check_record(name: str, record: Mapping[str, Any], tbs: bytes, files: Mapping[str, bytes]) -> None:
    """The account of a destruction, of shares, a backup or a drill, and what it wrote beside itself."""
    said = record.get("certificate_of_destruction") or record["statement"]
    if transcript.octets_of(said) != tbs:
        raise _wrong("output-changed", f"{name} does not say what was confirmed.")
    for beside, digest in record["files"].items():
        if hashlib.sha256(_file(files, beside)).hexdigest() != digest:
            raise _wrong("output-changed", f"{beside} is not the file that the ceremony wrote.")


def _load(der: bytes, *, is_crl: bool) -> Any:
    return x509.load_der_x509_crl(der) if is_crl else x509.load_der_x509_certificate(der)


def _tbs(loaded: Any) -> bytes:
    return bytes(loaded.tbs_certlist_bytes if isinstance(loaded, x509.CertificateRevocationList) else loaded.tbs_certificate_bytes)


def _signed_by_root(output: Output, certificates: Mapping[str, bytes]) -> None:
    loaded = _load(output.der, is_crl=output.is_crl)
    issuer = loaded.issuer.public_bytes()
    for der in certificates.values():
        facts = read_certificate(der)
        if facts.subject == issuer:
            try:
                verify(load_public_key(facts.spki), loaded.signature, _tbs(loaded))
            except FleetcaError:
                continue
            return
    raise _wrong("output-changed", f"{output.file} is not signed by any root of this ceremony.")


def compare(
    verified: Verified, *, root_sha256: str | None = None, sheet_sha256: str | None = None, software_sha256: str | None = None
) -> None:
    """Hold a ceremony that holds in itself against what was noted on paper (hex, colons allowed).

    Raises:
        Unacceptable: it is another one: `another-root`, `another-sheet`, `another-software`.
    """
    found = {hashlib.sha256(verified.root_certificate).hexdigest()}
    if _differs(root_sha256, found):
        raise _another("another-root", "The root of this ceremony is not the one whose SHA-256 was given.", found)
    if _differs(sheet_sha256, found := {verified.sheet_sha256.hex()}):
        raise _another("another-sheet", "The sheet of this ceremony is not the one whose SHA-256 was given.", found)
    if _differs(software_sha256, found := set(verified.software_sha256)):
        raise _another("another-software", "The program that held this ceremony is not the one whose SHA-256 was given.", found)


def _differs(noted: str | None, found: set[str]) -> bool:
    return noted is not None and {noted.replace(":", "").lower()} != found


def _another(code: str, what: str, found: set[str]) -> Unacceptable:
    why = f"Its SHA-256 is {', '.join(sorted(found))}."
    return Unacceptable(code, what, why=why, fix="Compare with the paper from the ceremony; use its outputs only.")
