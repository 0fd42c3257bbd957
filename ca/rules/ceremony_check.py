"""Whether the outputs of a ceremony are what its transcript says: checked anywhere, offline, with files only. Ring 1: pure.

Shares nothing with the run but the transcript's form: TBS octets are taken from the transcript and compared with what was signed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography import x509

from ca.der import pem
from ca.der.algorithms import load_public_key, verify
from ca.der.certificate import read_certificate
from ca.errors import FleetcaError, Unacceptable
from ca.model import Digest, UnixTime
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


@dataclass(frozen=True, slots=True)
class Verified:
    """A finished ceremony whose every line and output holds. The root is believed by whoever compares its fingerprint, not by this."""

    name: str
    about: str
    began: UnixTime
    finished: UnixTime
    software: str
    sheet_sha256: Digest
    transcript_sha256: Digest
    root: str
    root_certificate: bytes
    outputs: tuple[Output, ...]


def check(octets: bytes, files: Mapping[str, bytes], *, roots: Mapping[str, bytes] | None = None) -> Verified:
    """Check a transcript and the files beside it.

    Args:
        octets: the transcript.
        files: output files by name, and `sheet.toml`.
        roots: DER certificates of roots made by earlier ceremonies, by id, where this one only uses them.

    Raises:
        Unacceptable: the first thing that does not hold: `transcript-broken`, `transcript-incomplete`, `transcript-seal`,
            `output-missing`, `output-changed`, `sheet-changed`.
    """
    said = transcript.read(octets)
    if not said.records or said.records[0].kind != "begin":
        raise _wrong("transcript-broken", "The transcript does not begin with a beginning.")
    try:
        return _checked(said, files, roots or {})
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        # The chain holds, so its writer made it so: it is no transcript of ours.
        raise _wrong("transcript-broken", "The transcript lacks what a transcript says.", why=f"{type(error).__name__}: {error}") from None


def _wrong(code: str, what: str, *, why: str = "") -> Unacceptable:
    return Unacceptable(code, what, why=why, fix="Take transcript and outputs from another copy; if no copy holds, they must not be used.")


def _checked(said: Transcript, files: Mapping[str, bytes], roots: Mapping[str, bytes]) -> Verified:
    begin = said.records[0].fields
    if hashlib.sha256(_file(files, "sheet.toml")).hexdigest() != begin["sheet_sha256"]:
        raise _wrong("sheet-changed", "sheet.toml is not the sheet that was run.")
    certificates = {id_: der for id_, der in roots.items() if hashlib.sha256(der).hexdigest() == begin["issuers"].get(id_)}
    if not said.sealed:
        transcript.verify_seal(said, b"")
    outputs: list[Output] = []
    for act in begin["acts"]:
        output = _output(said, act, files)
        outputs.append(output)
        if not output.is_crl:
            certificates.setdefault(act, output.der)
    seal = said.records[-1]
    root = seal.fields["signer"]
    if root not in certificates:
        raise _wrong("transcript-seal", f"The certificate of {root}, which sealed the transcript, is not here.")
    transcript.verify_seal(said, read_certificate(certificates[root]).spki)
    for output in outputs:
        _signed_by_root(output, certificates)
    return Verified(
        name=str(begin["ceremony"]),
        about=str(begin["about"]),
        began=said.records[0].at,
        finished=seal.at,
        software=str(begin["software"]),
        sheet_sha256=Digest(bytes.fromhex(begin["sheet_sha256"])),
        transcript_sha256=said.digest,
        root=root,
        root_certificate=certificates[root],
        outputs=tuple(outputs),
    )


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
    drafted, confirmed, written = (_one(said, kind, act) for kind in ("drafted", "confirmed", "output"))
    signings = said.of("signing", act)
    if not drafted.seq < confirmed.seq < written.seq or any(not confirmed.seq < each.seq < written.seq for each in signings):
        raise _wrong("transcript-broken", f"Act {act} was signed before it was shown and confirmed.")
    digests = {str(each.fields["tbs_sha256"]) for each in (drafted, confirmed, *signings)}
    tbs = transcript.octets_of(drafted.fields["tbs"])
    if digests != {hashlib.sha256(tbs).hexdigest()}:
        raise _wrong("transcript-broken", f"Act {act} was signed over other octets than those that were shown.")
    name = str(written.fields["file"])
    octets = _file(files, name)
    if hashlib.sha256(octets).hexdigest() != written.fields["sha256"]:
        raise _wrong("output-changed", f"{name} is not the file that the ceremony wrote.")
    is_crl = name.endswith(".crl")
    der = octets if is_crl else pem.der_of(octets, pem.CERTIFICATE)
    if _tbs(_load(der, is_crl=is_crl)) != tbs:
        raise _wrong("output-changed", f"{name} does not hold the octets that were shown.")
    key = said.of("key", act)
    if key and not is_crl and key[0].fields["spki_sha256"] != hashlib.sha256(read_certificate(der).spki).hexdigest():
        raise _wrong("output-changed", f"{name} is not the certificate of the key that the ceremony made.")
    return Output(act, name, der, Digest(hashlib.sha256(octets).digest()), is_crl)


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
