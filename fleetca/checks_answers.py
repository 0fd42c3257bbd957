"""The doctor's questions to the status service itself: one to the OCSP responder for each issuer, and each CRL as it is served. Edge.

Asks as a stranger would, over HTTP, and believes nothing of ours: answers are read by cryptography, and judged by the issuer's certificate and the
database alone (RFC 6960 3.2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from ca.der import algorithms
from ca.errors import FleetcaError
from ca.model import CertificateQuery, CertificateRef, CertificateState, Issuer, OutletCopy, Serial, UnixTime
from ca.outlets.directory import DirectoryOutlet
from ca.rules.renewal import revoked
from ca.store.engine import Store, open_store
from crl.model import Scope, file_name
from crl.rules import gate
from crl.rules.anatomy import InMemory
from fleetca import forms
from fleetca.checks_outside import Reply, fetch
from fleetca.cli.output import iso
from fleetca.verdict import Patient, Verdict, bad, ok
from ocsp.rules.issuers import key_octets

SKEW: Final = 2
"""Seconds by which two clocks of one machine may differ."""
NOTICED: Final = 5
"""Seconds after which the status service must have noticed a new CRL."""
NEWEST: Final = 500
"""Certificates among which one to ask about is looked for."""
OCSP_ANSWER: Final = "application/ocsp-response"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an OCSP answer says, and what is wrong with it."""

    says: str
    """`good`, `revoked`, `unknown`, or the error's word (RFC 6960 4.2.1)."""
    ends: UnixTime | None = None
    wrong: tuple[str, ...] = ()


# ---- OCSP ---------------------------------------------------------------------------------------------------------------


def responder(patient: Patient) -> Iterator[Verdict]:
    """One question for each issuer that the status service says it answers for."""
    if patient.status is None:
        return
    answered = {one.get("issuer") for one in patient.status.get("responders") or [] if isinstance(one, dict)}
    store = open_store(forms.store_url(patient.settings), readonly=True)
    try:
        for issuer in patient.issuers:
            if issuer.id in answered:
                yield _ask(patient, store, issuer)
    finally:
        store.close()


def _ask(patient: Patient, store: Store, issuer: Issuer) -> Verdict:
    now = patient.clock.now()
    serial = _on_record(store, issuer, now=now)
    wanted = serial or _never_issued(issuer, now)
    before = _status(store, issuer, wanted)
    reply = fetch(patient.settings.status.listen, "/ocsp", body=question(issuer, wanted))
    about = f"issuer {issuer.id}, asked about {wanted:040x}"
    fix = "Look into the log of the status service, then restart it."
    if reply is None or reply.status != 200 or reply.kind != OCSP_ANSWER:
        said = "nothing" if reply is None else f"HTTP {reply.status}, {reply.kind}"
        return bad(f"The OCSP responder gives no OCSP answer for {about}.", f"It says {said}.", fix)
    answer = judge(reply.body, issuer, wanted, now=now)
    if answer.wrong:
        return bad(f"An OCSP answer does not hold: {about}.", " ".join(answer.wrong), fix)
    expected = {before, _status(store, issuer, wanted)}  # it may have been revoked meanwhile
    if answer.says not in expected:
        return bad(f"OCSP says {answer.says}, the database says {' or '.join(sorted(expected))}: {about}.", fix=fix)
    until = "" if answer.ends is None else f", signed by a responder of {issuer.id}, until {iso(answer.ends)}"
    return ok(f"OCSP says {answer.says} of {'a certificate' if serial else 'one never issued'} of {issuer.id}{until}.")


def question(issuer: Issuer, serial: int) -> bytes:
    """An OCSP request as a stranger sends it, with SHA-256."""
    name, key = (hashlib.sha256(octets).digest() for octets in (issuer.subject, key_octets(issuer.spki)))
    asked = ocsp.OCSPRequestBuilder().add_certificate_by_hash(name, key, serial, hashes.SHA256()).build()
    return asked.public_bytes(serialization.Encoding.DER)


def _on_record(store: Store, issuer: Issuer, *, now: UnixTime) -> Serial | None:
    """The newest certificate of an issuer that has not ended, revoked or not; None where there is none among the newest of all."""
    rows, _ = store.reading.search_certificates(CertificateQuery(limit=NEWEST))
    return next(
        (row.ref.serial for row in rows if row.ref.issuer == issuer.id and row.der is not None and row.not_after > now + SKEW), None
    )


def _never_issued(issuer: Issuer, now: UnixTime) -> Serial:
    return Serial(int.from_bytes(b"\x5f" + hashlib.sha256(f"doctor {issuer.id} {now}".encode()).digest()[:19], "big"))


def _status(store: Store, issuer: Issuer, serial: int) -> str:
    found = store.reading.find_certificate(CertificateRef(issuer.id, Serial(serial)))
    if found is None:
        return "unknown"
    return "revoked" if revoked(found) or found.state is CertificateState.void else "good"


def judge(body: bytes, issuer: Issuer, serial: int, *, now: UnixTime) -> Answer:
    """What an answer says, and everything for which a careful client would refuse it."""
    try:
        found = ocsp.load_der_ocsp_response(body)
        if found.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            word = found.response_status.name.lower()
            # For what we never issued this is one of the two answers that a deployment may choose.
            return Answer("unknown") if word == "unauthorized" else Answer(word, wrong=(f"It says {word}.",))
        wrong = [*_signed_wrongly(found, issuer, now=now)]
        name, key = hashlib.sha256(issuer.subject).digest(), hashlib.sha256(key_octets(issuer.spki)).digest()
        about = (one for one in found.responses if (one.serial_number, one.issuer_name_hash, one.issuer_key_hash) == (serial, name, key))
        single = next(about, None)
        if single is None:
            return Answer("nothing", wrong=(*wrong, "It speaks of another certificate."))
        ends = single.next_update_utc
        if single.this_update_utc.timestamp() > now + SKEW or found.produced_at_utc.timestamp() > now + SKEW:
            wrong.append("It is from the future.")
        if ends is None or ends.timestamp() < now:
            wrong.append(f"It ended {_when(ends)}." if ends else "It does not say until when it holds.")
        return Answer(single.certificate_status.name.lower(), None if ends is None else int(ends.timestamp()), tuple(wrong))
    except (ValueError, FleetcaError) as error:
        return Answer("nothing", wrong=(f"It cannot be read: {error}.",))


def _signed_wrongly(found: ocsp.OCSPResponse, issuer: Issuer, *, now: UnixTime) -> Iterator[str]:
    """By the issuer itself, or by a delegate that it certified for this and that holds (RFC 6960 4.2.2.2)."""
    delegates = [one for one in found.certificates if _verifies(issuer.spki, one.signature, one.tbs_certificate_bytes)]
    if found.certificates and not delegates:
        yield f"None of its certificates was signed by {issuer.id}."
        return
    signers: dict[bytes, x509.Certificate | None] = {_spki(one): one for one in delegates}
    signers = signers or {issuer.spki: None}
    by = [one for spki, one in signers.items() if _verifies(spki, found.signature, found.tbs_response_bytes)]
    if not by:
        yield "Its signature does not hold."
        return
    certificate = by[0]
    if certificate is None:
        return
    usages = [one.value for one in certificate.extensions if isinstance(one.value, x509.ExtendedKeyUsage)]
    if not usages or ExtendedKeyUsageOID.OCSP_SIGNING not in usages[0]:
        yield "The responder's certificate is not for OCSP."
    if not any(isinstance(one.value, x509.OCSPNoCheck) for one in certificate.extensions):
        yield "The responder's certificate lacks id-pkix-ocsp-nocheck, so clients would have to ask about it."
    if not certificate.not_valid_before_utc.timestamp() <= now + SKEW or certificate.not_valid_after_utc.timestamp() < now:
        yield f"The responder's certificate holds from {_when(certificate.not_valid_before_utc)} to {_when(certificate.not_valid_after_utc)}."


def _verifies(spki: bytes, signature: bytes, message: bytes) -> bool:
    try:
        algorithms.verify(algorithms.load_public_key(spki), signature, message)
    except FleetcaError:
        return False
    return True


def _spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _when(moment: datetime) -> str:
    return iso(int(moment.timestamp()))


# ---- CRLs ---------------------------------------------------------------------------------------------------------------


def served(patient: Patient) -> Iterator[Verdict]:
    """Each published CRL, as the status service gives it out."""
    if patient.status is None:
        return
    outlet, now, fine = DirectoryOutlet(patient.settings.crl.directory), patient.clock.now(), 0
    for issuer in patient.issuers:
        copy = outlet.current(file_name(issuer.id)) if issuer.may_sign_crl else None
        if copy is None:
            continue  # the check of what is published says so
        problem = _served(fetch(patient.settings.status.listen, f"/crl/{issuer.id}.crl"), copy, issuer, now=now)
        if problem is None:
            fine += 1
        else:
            yield problem
    if fine:
        yield ok(f"The status service serves {fine} published CRL{'s' if fine > 1 else ''}, none over its nextUpdate.")


def _served(reply: Reply | None, published: OutletCopy, issuer: Issuer, *, now: UnixTime) -> Verdict | None:
    if reply is None or reply.status != 200:
        said = "It gives nothing." if reply is None else f"It says HTTP {reply.status}."
        return bad(f"The status service does not serve the published CRL of {issuer.id}.", said, "Restart it.")
    try:
        head = gate.believe(InMemory(reply.body), Scope(issuer)).head
    except FleetcaError as error:
        return bad(f"What the status service serves as CRL of {issuer.id} is none.", str(error), "Restart it.")
    if head.next_update < now:
        return bad(
            f"The status service serves a CRL of {issuer.id} that ended at {iso(head.next_update)}.",
            "Nobody believes it any more.",
            "Look at what the publisher says.",
        )
    if reply.body != published.octets and now > published.modified + NOTICED:
        return bad(
            f"The status service does not serve the published CRL of {issuer.id}.", f"It serves number {head.number}.", "Restart it."
        )
    return None
