"""The outlines: a CP/CPS as RFC 3647 has it, and a key management policy. Each clause that a setting decides is made from it.

What stands here besides is how fleetca works, whatever the settings: it changes with the software, and the freshness check then names it too.
"""

from __future__ import annotations

from collections.abc import Sequence

from fleetca.evidence.policy import Clause
from fleetca.evidence.policy_facts import Said

CPS_TITLE = "Certificate policy and certification practice statement"
KMP_TITLE = "Key management policy"


def cps(said: Said) -> Sequence[Clause]:
    """RFC 3647 6, to its second level; chapters 1 to 9."""
    settings = said.settings
    name, log = settings.deployment.name, settings.log.directory.name
    return (
        Clause("1", "Introduction", "The outline is that of RFC 3647."),
        Clause("1.1", "Overview", f"`{name}` is a private PKI for a fleet of devices. An offline root signs, in a ceremony, issuing CAs that are online.", ("deployment.name",)),
        Clause("1.2", "Document name and identification", f"Practice statement of `{name}`.", ("deployment.name",)),
        Clause("1.3", "PKI participants", f"{said.issuers()}\n\n{said.registration()}\n\n{said.tenants()}", ("issuers", "est.manufacturers", "acme.directories", "tenants")),
        Clause("1.4", "Certificate usage", said.usages(), ("profiles: key_usage, extended_key_usage",)),
        Clause("1.5", "Policy administration"),
        Clause("1.6", "Definitions and acronyms", "Those of RFC 3647, RFC 5280 and RFC 6960."),
        Clause("2", "Publication and repository responsibilities"),
        Clause("2.1", "Repositories", f"Status and CA certificates: `{settings.status.url}`, over plain HTTP; all of it is signed.", ("status.url",)),
        Clause("2.2", "Publication of certification information", f"CRLs, CA certificates, and the record (`{log}`) with its signed checkpoints.", ("log.directory",)),
        Clause("2.3", "Time or frequency of publication", said.crls(), ("crl", "issuers.crl_contents, crl_shards, crl_deltas")),
        Clause("2.4", "Access controls on repositories", "Anybody may read CRLs, OCSP answers and CA certificates. The record names devices and operators: it is given to those who may know them."),
        Clause("3", "Identification and authentication"),
        Clause("3.1", "Naming", said.names(), ("profiles: common_name, allowed_names, required_names",)),
        Clause("3.2", "Initial identity validation", f"{said.registration()}\n\nEvery request proves that its sender has the private key.\n\n{said.attestation()}", ("est.manufacturers", "acme.directories", "attestation.tpm_makers", "profiles: attestation")),
        Clause("3.3", "Identification and authentication for re-key requests", "By the current key: over TLS, or by a message that it signed."),
        Clause("3.4", "Identification and authentication for revocation request", "By an operator's signature, by the device's own key, or by a role that the signer knows by its user id."),
        Clause("4", "Certificate life-cycle operational requirements"),
        Clause("4.1", "Certificate application", said.registration(), ("est.manufacturers", "acme.directories")),
        Clause("4.2", "Certificate application processing", said.approvals(), ("profiles: approval_within",)),
        Clause("4.3", "Certificate issuance", "Serial number, to-be-signed octets, device and grant are recorded before a key signs. Every draft is linted before, and every certificate read again after."),
        Clause("4.4", "Certificate acceptance", "A device accepts by using the certificate, or by saying that it has it; both are recorded."),
        Clause("4.5", "Key pair and certificate usage", said.usages(), ("profiles: key_usage, extended_key_usage",)),
        Clause("4.6", "Certificate renewal", said.renewal(), ("profiles: renewable, key_reuse, renew_after_expiry",)),
        Clause("4.7", "Certificate re-key", said.lifetimes(), ("profiles: lifetime, max_lifetime, renew_from, grace",)),
        Clause("4.8", "Certificate modification", "None: a certificate with other contents is another certificate."),
        Clause("4.9", "Certificate revocation and suspension", f"{said.status()}\n\n{said.crls()}\n\n{said.ocsp()}", ("profiles: status", "crl", "ocsp")),
        Clause("4.10", "Certificate status services", f"OCSP at `{settings.status.url}/ocsp`, CRLs at `{settings.status.url}/crl/`.\n\n{said.ocsp()}", ("status.url", "ocsp")),
        Clause("4.11", "End of subscription", "A device is retired: all its certificates are revoked, its renewals end, and its id is not given again."),
        Clause("4.12", "Key escrow and recovery", "No key of a device, operator or responder is escrowed. A CA's key is kept for recovery under a quorum of custodians only."),
        Clause("5", "Facility, management, and operational controls"),
        Clause("5.1", "Physical controls"),
        Clause("5.2", "Procedural controls", f"{said.roles()}\n\n{said.exclusive()}\n\n{said.two_persons()}", ("approvals",)),
        Clause("5.3", "Personnel controls"),
        Clause("5.4", "Audit logging procedures", "Every use of a CA key, grant, issuance, revocation, key event and ceremony is a leaf of a Merkle log with signed checkpoints (RFC 9162 2.1)."),
        Clause("5.5", "Records archival", said.ocsp(), ("ocsp.archive",)),
        Clause("5.6", "Key changeover", said.issuers(), ("issuers.succeeds",)),
        Clause("5.7", "Compromise and disaster recovery", said.compromised(), ("issuers.compromised",)),
        Clause("5.8", "CA or RA termination"),
        Clause("6", "Technical security controls"),
        Clause("6.1", "Key pair generation and installation", said.algorithms(), ("profiles: key_algorithms",)),
        Clause("6.2", "Private key protection and cryptographic module engineering controls", f"{said.keys()}\n\n{said.protection()}", ("issuers.key", "log.key", "ocsp.responder_key", "profiles: minimum_protection")),
        Clause("6.3", "Other aspects of key pair management", said.lifetimes(), ("profiles: lifetime, max_lifetime",)),
        Clause("6.4", "Activation data", said.keys(), ("issuers.passphrase", "log.passphrase", "ocsp.responder_passphrase")),
        Clause("6.5", "Computer security controls", said.processes(), ("signer.users",)),
        Clause("6.6", "Life cycle technical controls"),
        Clause("6.7", "Network security controls", "Roots are used on a machine without a network. Only the signer opens issuing keys, behind a Unix socket."),
        Clause("6.8", "Time-stamping", "The record has the signer's time; no third party stamps it."),
        Clause("7", "Certificate, CRL, and OCSP profiles"),
        Clause("7.1", "Certificate profile", f"{said.usages()}\n\n{said.names()}\n\n{said.algorithms()}", ("profiles",)),
        Clause("7.2", "CRL profile", f"Version 2 (RFC 5280 5).\n\n{said.crls()}", ("crl", "issuers.crl_contents, crl_shards, crl_deltas")),
        Clause("7.3", "OCSP profile", f"Version 1 (RFC 6960, RFC 9919).\n\n{said.ocsp()}", ("ocsp",)),
        Clause("8", "Compliance audit and other assessments"),
        Clause("8.1", "Frequency or circumstances of assessment"),
        Clause("8.2", "Identity and qualifications of assessor"),
        Clause("8.3", "Assessor's relationship to assessed entity"),
        Clause("8.4", "Topics covered by assessment", "Those of an evidence pack: `fleetca evidence`; the boxes of `fleetca checklist`."),
        Clause("8.5", "Actions taken as a result of deficiency"),
        Clause("8.6", "Communication of results"),
        Clause("9", "Other business and legal matters"),
        *(Clause(f"9.{number}", title) for number, title in enumerate(_LEGAL, 1)),
    )  # fmt: skip


_LEGAL = (
    "Fees", "Financial responsibility", "Confidentiality of business information", "Privacy of personal information", "Intellectual property rights",
    "Representations and warranties", "Disclaimers of warranties", "Limitations of liability", "Indemnities", "Term and termination",
    "Individual notices and communications with participants", "Amendments", "Dispute resolution provisions", "Governing law",
    "Compliance with applicable law", "Miscellaneous provisions", "Other provisions",
)  # fmt: skip


def kmp(said: Said) -> Sequence[Clause]:
    """A key management policy: the life of every key, from how it is made to how it ends (SP 800-57 part 1, 8)."""
    ours = ("issuers.key", "log.key", "ocsp.responder_key")
    return (
        Clause("1", "Scope", f"All keys of `{said.settings.deployment.name}` and of the devices that it certifies.", ("deployment.name",)),
        Clause("2", "Responsibilities"),
        Clause("2.1", "Roles", said.roles()),
        Clause("2.2", "Separation of duties", f"{said.exclusive()}\n\n{said.two_persons()}", ("approvals",)),
        Clause("2.3", "Processes", said.processes(), ("signer.users",)),
        Clause("3", "Keys", said.keys(), ours),
        Clause("4", "Algorithms and sizes", f"{said.algorithms()}\n\n{said.dates()}", ("profiles: key_algorithms",)),
        Clause("5", "Generation", "By the system's generator or the token's own; the first is watched for being stuck. A device makes its own key, or a line makes it and hands it over wrapped."),
        Clause("6", "Protection", said.protection(), ("profiles: minimum_protection",)),
        Clause("7", "Distribution", "Public keys in certificates; roots in signed, numbered pin sets with a backup. Secret keys only wrapped: AES key wrap or CMS."),
        Clause("8", "Periods and rotation", f"{said.lifetimes()}\n\n{said.renewal()}", ("profiles: lifetime, max_lifetime, renew_from, grace, renewable",)),
        Clause("9", "Use", said.usages(), ("profiles: key_usage, extended_key_usage",)),
        Clause("10", "Revocation", f"{said.status()}\n\n{said.crls()}\n\n{said.ocsp()}", ("profiles: status", "crl", "ocsp")),
        Clause("11", "Compromise", said.compromised(), ("issuers.compromised",)),
        Clause("12", "Backup and recovery", f"CA keys only, under a quorum of custodians. {said.drills()} No other key has a copy.", ("custody.drill_every",)),
        Clause("13", "Destruction", "Before two witnesses, with a certificate of destruction in the record. Secret keys of devices and tenants by shredding what wraps them."),
        Clause("14", "End of a device", "Retired: certificates revoked, keys wiped on the device, id kept from others."),
        Clause("15", "Record", "Every event of a key is a leaf of the record."),
        Clause("16", "Review"),
    )  # fmt: skip
