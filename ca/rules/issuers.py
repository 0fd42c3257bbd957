"""How the issuers of a deployment belong together. Ring 1: pure.

Who signed whom is decided by keys, never by names alone (incident R34). A root is offline: no deployment has its key (P4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cryptography import x509

from ca.der.algorithms import load_public_key, verify
from ca.der.certificate import read_certificate
from ca.errors import Misconfigured, Refused
from ca.model import Issuer


def arranged(issuers: Sequence[Issuer]) -> tuple[Issuer, ...]:
    """The issuers with their parents, which stand before them.

    Raises:
        Misconfigured: one is signed by nobody before it (`unknown-parent`), or a root has a key here (`root-key-online`).
    """
    found: list[Issuer] = []
    for issuer in issuers:
        facts = read_certificate(issuer.certificate)
        if facts.issuer == facts.subject:
            if issuer.key is not None:
                raise Misconfigured(
                    "root-key-online",
                    f"The settings name a key for {issuer.id}, which is a root.",
                    why="A root is offline: no process of a deployment opens its key (P4).",
                    fix=f"Take key and passphrase out of the issuer {issuer.id}, and let an issuing CA sign.",
                )
            found.append(issuer)
            continue
        parent = next((each for each in found if each.subject == facts.issuer and signed_by(issuer.certificate, each)), None)
        if parent is None:
            raise Misconfigured(
                "unknown-parent",
                f"The certificate of {issuer.id} was signed by none of the issuers before it.",
                fix="List the root first, and check that the certificates belong together.",
            )
        found.append(replace(issuer, parent=parent.id))
    return tuple(found)


def signed_by(der: bytes, issuer: Issuer) -> bool:
    """Whether a certificate's signature is this issuer's."""
    loaded = x509.load_der_x509_certificate(der)
    try:
        verify(load_public_key(issuer.spki), loaded.signature, loaded.tbs_certificate_bytes)
    except Refused:
        return False
    return True
