"""What each part of an evidence pack holds, from a deployment's database, record and settings; and what it lacks, with the reason. Edge: reads only.

A part is a function that gives files in the order of their names, each as pieces of octets, and notes what is absent. It asks no clock: the same
database, record and settings give the same octets.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ca.der import pem
from ca.errors import Broken, Malformed, Unacceptable
from ca.model import Certificate, CertificateState, Draft, Revocation
from ca.rules import cbom, implements, key_life, transcript
from ca.rules.crl import shard_of
from ca.rules.leaf import canonical
from ca.rules.lint.certificate import lint
from config.mappings import read_mappings
from fleetca import forms
from fleetca.evidence import policy as rules
from fleetca.evidence import policy_outlines as outlines
from fleetca.evidence import redaction, sbom, segment, verify
from fleetca.evidence.parts_devices import devices, findings
from fleetca.evidence.parts_people import access
from fleetca.evidence.policy_facts import Said
from fleetca.evidence.source import File, Source, document, given, pieces

_LATE: Final = 3600
"""A leaf is placed in the log within seconds of its row. Rows this much older than the newest leaf are looked up no more."""


# ---- 01 to 04 -----------------------------------------------------------------------------------------------------------


def policy(source: Source) -> Iterator[File]:
    said = Said(source.settings, list(forms.profiles(source.settings).values()))
    for name, title, outline in (("cps", outlines.CPS_TITLE, outlines.cps), ("kmp", outlines.KMP_TITLE, outlines.kmp)):
        made = rules.write(title, f"Of `{source.settings.deployment.name}`, as its settings are.", outline(said))
        yield f"01-policy/{name}.md", [made.encode()]
    source.absent.append("clauses in words: those who run the deployment keep them (fleetca policy --words)")
    source.absent.append("risk analysis: it is kept by the maker, outside of fleetca")


def ceremonies(source: Source) -> Iterator[File]:
    if redaction.OPERATORS in source.redaction and source.ceremonies:
        source.absent.append("ceremonies: withheld, they name people; the record holds the hash of each")
        return
    told = {leaf["transcript_sha256"]: leaf["name"] for _, leaf in source.leaves() if leaf["kind"] == "ceremony"}
    for folder in sorted(source.ceremonies, key=lambda path: path.name):
        files = {path.name: path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")}
        if transcript.FILE not in files:
            raise Malformed("no-ceremony", f"{folder} holds no ceremony.", why=f"It has no {transcript.FILE}.")
        said = transcript.read(files[transcript.FILE].read_bytes())
        told.pop(said.digest.hex(), None)
        kept = {transcript.FILE, "sheet.toml", *(str(one.fields["file"]) for one in said.of("output"))}
        for name in sorted(kept):
            if name not in files:
                raise Malformed("no-ceremony", f"{folder} is not whole.", why=f"{name} is not there.")
            yield f"02-ceremonies/{folder.name}/{name}", [files[name].read_bytes()]
    source.absent += [f"the files of the ceremony {name} (transcript {digest}): give its folder" for digest, name in sorted(told.items())]


def authorities(source: Source) -> Iterator[File]:
    for path in sorted(source.settings.crl.directory.glob("*.crl")):
        yield f"03-authorities/crls/{path.name}", pieces(path)
    for issuer in sorted(source.issuers, key=lambda one: one.id):
        yield f"03-authorities/issuers/{issuer.id}.pem", [pem.pem(pem.CERTIFICATE, issuer.certificate).encode()]
    links = source.settings.issuers[0].certificate.parent / "links"
    for path in sorted(links.glob("*.pem")):
        yield f"03-authorities/links/{path.name}", pieces(path)
    pins = source.settings.enroll.pins
    if pins.is_file():
        yield "03-authorities/pins.json", pieces(pins)
    else:
        source.absent.append("pin sets: this deployment has published none")


def inventory(source: Source) -> Iterator[File]:
    records = sorted(source.reading.key_records(), key=lambda one: (one.name, one.spki_sha256))
    name, serial = source.settings.deployment.name, source.uuid("cbom")
    bill = cbom.document(records, source.issuers, deployment=name, version=source.version, serial=serial, now=source.as_of)
    yield "04-inventory/cbom.json", document(bill)
    yield source.events("04-inventory/events.jsonl")
    keys = [
        {
            "name": record.name,
            "purpose": record.purpose.value,
            "origin": record.origin.value,
            "algorithm": record.algorithm,
            "store": record.store,
            "protection": None if record.protection is None else record.protection.name,
            "state": record.state.value,
            "created": record.created,
            "period_ends": record.period_ends,
            "overdue": key_life.overdue(record, now=source.as_of),
            "spki_sha256": record.spki_sha256.hex(),
            "changes": [
                {
                    "at": change.at,
                    "before": None if change.before is None else change.before.value,
                    "after": change.after.value,
                    "reason": change.reason,
                    "actor": source.redaction.shown(change.actor, redaction.OPERATORS),
                    "evidence_sha256": change.evidence or None,
                }
                for change in source.reading.key_changes(record.spki_sha256)
            ],
        }
        for record in records
    ]
    yield "04-inventory/keys.json", document(keys)
    yield "04-inventory/sbom.json", document(sbom.document("fleetca", serial=source.uuid("sbom"), now=source.as_of))


# ---- 05 to 08 -----------------------------------------------------------------------------------------------------------


def issuance(source: Source) -> Iterator[File]:
    sample: list[tuple[int, str, Certificate]] = []
    yield "05-issuance/certificates.jsonl", _certificates(source, sample)
    if source.redaction.classes:
        source.absent.append("sampled certificates: withheld, they hold names")
    else:
        chosen = sorted(sample, key=lambda one: one[1])
        yield "05-issuance/lint.json", document({name: _linted(source, row) for _, name, row in chosen})
        for _, name, row in chosen:
            yield f"05-issuance/sample/{name}.pem", [pem.pem(pem.CERTIFICATE, row.der or b"").encode()]
    yield "05-issuance/statistics.json", document(source.tally.statistics())
    source.absent.append(
        "lint verdicts of certificates that are not of the sample: every draft is linted before it is signed, else it is not signed"
    )


def _linted(source: Source, row: Certificate) -> str:
    """What the rules say of a certificate now. A profile or an issuer that has changed since it was made judges it no more."""
    leaf = source.reading.find_leaf(row.leaf)
    profile = forms.profiles(source.settings).get(row.profile)
    issuer = {one.id: one for one in forms.at_work(source.settings, lambda: source.issuers)}[row.ref.issuer]
    if leaf is None or profile is None or json.loads(leaf.body)["profile_sha256"] != profile.digest.hex():
        return f"not judged: the profile {row.profile} has changed since"
    if len(source.reading.shard_counts(row.ref.issuer)) > 1:
        return "not judged: its issuer has other CRLs since"
    shard = shard_of(row.ref.serial, issuer.crls.shards) if profile.crl_url else 0
    facts = (row.not_before, row.not_after, row.subject, row.names, row.spki_sha256, shard)
    try:
        lint(Draft(row.tbs, row.ref.issuer, row.ref.serial, issuer.algorithm, *facts), profile, issuer)
    except Broken as error:
        return error.what
    return "holds"


def _certificates(source: Source, sample: list[tuple[int, str, Certificate]]) -> Iterator[bytes]:
    """A line for each that was intended in the period and is in the log; on the way those that the root of the record chooses."""
    for row in source.reading.every_certificate():
        if not source.tally.begin <= row.intended_at < source.tally.end or not _in_log(source, row):
            continue
        serial = f"{row.ref.serial:040x}"
        der = row.der if row.state is CertificateState.issued else None
        yield (
            canonical(
                {
                    "issuer": row.ref.issuer,
                    "serial": serial,
                    "tbs_sha256": hashlib.sha256(row.tbs).hexdigest(),
                    "der_sha256": None if der is None else hashlib.sha256(der).hexdigest(),
                    "device": source.redaction.device(row.device),
                    "spki_sha256": row.spki_sha256.hex(),
                    "state": row.state.value,
                    "profile": row.profile,
                    "not_before": row.not_before,
                    "not_after": row.not_after,
                    "revocable": row.revocable,
                    "revocation": _revocation(row.revocation),
                }
            )
            + b"\n"
        )
        if der is not None:
            # A heap of the lowest: its first is the one that goes when a lower one comes.
            rank = -int.from_bytes(verify.rank(source.checkpoint.root, row.ref.issuer, serial), "big")
            push = heapq.heappush if len(sample) < verify.SAMPLE else heapq.heappushpop
            push(sample, (rank, f"{row.ref.issuer}-{serial}", row))


def _in_log(source: Source, row: Certificate) -> bool:
    if row.intended_at < source.segment.last_at - _LATE:
        return True
    found = source.reading.find_leaf(row.leaf)
    return found is not None and found.index is not None and found.index < source.checkpoint.size


def _revocation(made: Revocation | None) -> Mapping[str, Any] | None:
    return None if made is None else {"change": made.change, "reason": made.reason.name, "revoked_at": made.revoked_at}


def status(source: Source) -> Iterator[File]:
    yield "06-status/status.json", document(source.tally.status())
    source.absent.append("results of conformance suites against the status service, and its availability seen from outside")


# ---- 09 to 13 -----------------------------------------------------------------------------------------------------------


def log(source: Source) -> Iterator[File]:
    yield "09-log/checkpoint", [source.checkpoint.note]
    yield "09-log/key", [source.settings.log.verifier.read_bytes()]
    yield (
        "09-log/leaves.jsonl",
        (source.redaction.line(body) + b"\n" for body in segment.bodies(source.files, source.segment, source.checkpoint)),
    )
    before, after = segment.proof(source.files, source.segment)
    kept = [
        {"size": one.size, "proof": [digest.hex() for digest in segment.consistency(source.files, one, source.segment)]}
        for one in sorted({one.size: one for one in (*source.since, *(one for one, _ in source.stamps))}.values(), key=lambda one: one.size)
        if one.size
    ]
    told = {
        "start": source.segment.start,
        "before": [[level, digest.hex()] for level, digest in before],
        "after": [[level, digest.hex()] for level, digest in after],
        "consistency": kept,
    }
    yield "09-log/proof.json", document(told)
    for one, reply in sorted(source.stamps, key=lambda stamp: str(stamp[0].size)):
        yield f"09-log/stamps/{one.size}", [one.note]
        yield f"09-log/stamps/{one.size}.tsr", [reply]
    if not source.stamps:
        source.absent.append("time stamps of a third party (RFC 3161) on checkpoints: have one stamped, and give it with --stamp")


def requirements(source: Source) -> Iterator[File]:
    yield "10-requirements/events.json", document({kind: list(implements.of(kind)) for kind in source.tally.kinds})
    if source.matrix is None:
        source.absent.append(
            "the matrix of requirements, tests and results: give the one of the release (scripts/trace --json) with --matrix"
        )
    else:
        yield "10-requirements/matrix.json", document(_matrix(source))


def _matrix(source: Source) -> list[Mapping[str, Any]]:
    if source.matrix is None:
        return []
    try:
        rows = json.loads(source.matrix.read_bytes())
        return [{key: row[key] for key in ("id", "says", "tests", "negative", "reason", "result", "links")} for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Malformed(
            "bad-matrix", f"{source.matrix} is no matrix of requirements.", why=str(error), fix="Make it: scripts/trace --json"
        ) from None


def drills(source: Source) -> Iterator[File]:
    yield source.events("11-drills/events.jsonl")
    folder = source.settings.custody.drills
    if folder is None:
        source.absent.append("records of restore drills: the settings do not say where they are ([custody] drills)")
    elif redaction.OPERATORS in source.redaction:
        source.absent.append("records of restore drills: withheld, they name custodians")
    else:
        read = [document(given(path, "record of a drill", "fleetca keys drill")) for path in sorted(folder.glob("*.json"))]
        for name, octets in sorted((hashlib.sha256(each[0]).hexdigest()[:16], each) for each in read):
            yield f"11-drills/records/{name}.json", octets
    source.absent.append("reports of incidents: they are kept by those who run the deployment")


def mappings(source: Source) -> Iterator[File]:
    """Each framework's clauses with our requirements and the parts of this pack; with the matrix also whether their tests passed."""
    results = {str(row["id"]): str(row["result"]) for row in _matrix(source)}
    with forms.our_errors():
        found = read_mappings()
    for mapping in found:
        rows = [
            {
                "id": row.id,
                "asks": row.asks,
                "requirements": {one: results.get(one, "not told") for one in row.requirements},
                "parts": list(row.parts),
                "note": row.note,
            }
            for row in mapping.rows
        ]
        yield f"12-mappings/{mapping.name}.json", document({"title": mapping.title, "edition": mapping.edition, "rows": rows})
    source.absent.append("mappings as OSCAL documents: each is a JSON document of our own")


PARTS: Final = (
    ("01-policy", "Policy", policy),
    ("02-ceremonies", "Ceremonies", ceremonies),
    ("03-authorities", "CA certificates, CRLs and pins", authorities),
    ("04-inventory", "Inventory of keys", inventory),
    ("05-issuance", "Issuance and revocation", issuance),
    ("06-status", "Status service", status),
    ("07-devices", "Devices", devices),
    ("08-access", "Access", access),
    ("09-log", "The record", log),
    ("10-requirements", "Requirements and tests", requirements),
    ("11-drills", "Drills and incidents", drills),
    ("12-mappings", "Mappings to frameworks", mappings),
    ("13-findings", "Findings and exceptions", findings),
)


def leaking(name: str, value: str) -> Unacceptable:
    return Unacceptable(
        "redaction-leak",
        f"{name} would hold {value!r}, which is to be withheld.",
        why="It stands there as text that is not taken apart.",
        fix="Withhold less, or leave out what names it: a ceremony's folder, a reason in words.",
    )
