"""Wiping an identity on the CA's order, and the receipt for it. Edge: files and the device's keys; the forms are `ca.rules.wipe`.

    the order is judged, the receipt is signed and kept in the folder as a draft     -- a crash before: nothing happened --
    keys go, then everything else in the folder                                     -- a crash: the next run goes on, with the draft --
    the receipt gets its name, and the draft goes                                   -- a crash: the same --

A file is overwritten before it is removed. What a file system or a flash controller keeps elsewhere is beyond us, which is why the receipt says no more.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from ca.der import pem
from ca.der.certificate import CertificateFacts, read_certificate
from ca.errors import Conflict, Malformed, NotFound, Unauthenticated
from ca.model import UnixTime
from ca.rules import wipe
from fleetca.agent.identity import LOCK, Identity
from fleetca.agent.pairs import first_certificate, read_octets, read_pair
from fleetca.agent.stores import KeyThere
from fleetca.folder import put_new, sync_folder

DRAFT: Final = "wipe.receipt"


def run(identity: Identity, order: bytes, out: Path, *, now: UnixTime, agent: str) -> wipe.Receipt:
    """Wipe the identity; its receipt, which stands in `out` when this returns. To be called by whoever holds the identity's lock.

    Raises:
        Malformed, Unauthenticated: the order is none, or not of a CA that this device trusts (`wipe-signature`), or for another device (`wipe-other-device`).
        Conflict: there is another file of that name (`output-exists`), or `out` lies in the folder that goes (`wipe-place`).
        KeyUnavailable: the store of its keys is away, or keeps one (`key-not-destroyed`); what was not removed is there still.
    """
    if identity.folder.resolve() in out.absolute().resolve().parents:
        raise Conflict("wipe-place", "The receipt would be wiped too.", fix="Name a file outside of the identity's folder.")
    draft = identity.folder / DRAFT
    if draft.exists():
        octets = read_octets(draft)
    else:
        if out.exists():
            raise Conflict("output-exists", f"{out} exists already; it is not replaced.", fix="Name another file, or move this one away.")
        octets = _receipt(identity, wipe.read_order(order), now=now, agent=agent)
        put_new(draft, octets, mode=0o600)
    _erase(identity)
    if not out.exists():
        put_new(out, octets)
    draft.unlink()
    sync_folder(identity.folder)
    return wipe.read_receipt(octets)


def _receipt(identity: Identity, found: wipe.SignedOrder, *, now: UnixTime, agent: str) -> bytes:
    slots = identity.slots
    if not slots.number:
        raise NotFound("no-identity", f"{identity.folder} has no certificate.", why="There is nothing to be wiped.")
    facts, key = read_pair(slots)
    device = identity.recall().device
    if device and device != found.order.device:
        raise Unauthenticated(
            "wipe-other-device", "The order is for another device.", why=f"It is for {found.order.device}; this is {device}."
        )
    wipe.check_order(found, _trusted(identity, found.issuer, facts))
    spkis = {facts.spki}
    for slot in slots.pairs.iterdir():
        with suppress(Conflict, Malformed):
            spkis.add(read_certificate(first_certificate(slot / "certificate.pem")).spki)
    digests = tuple(sorted(hashlib.sha256(one).hexdigest() for one in spkis))
    return wipe.sign_receipt(wipe.Receipt(found.order.device, found.order.digest, now, digests, agent, facts.der), key.sign)


def _trusted(identity: Identity, issuer: bytes, own: CertificateFacts) -> bytes:
    """The key of the certificate in an order: it signed this device's own certificate, or an anchor of this device signed it as a CA."""
    try:
        shown = x509.load_der_x509_certificate(issuer)
        with suppress(ValueError, TypeError, InvalidSignature):
            x509.load_der_x509_certificate(own.der).verify_directly_issued_by(shown)
            return read_certificate(issuer).spki
        if shown.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            for anchor in pem.ders_of(read_octets(identity.trust), pem.CERTIFICATE):
                with suppress(ValueError, TypeError, InvalidSignature):
                    shown.verify_directly_issued_by(x509.load_der_x509_certificate(anchor))
                    return read_certificate(issuer).spki
    except (ValueError, x509.ExtensionNotFound):
        pass
    raise Unauthenticated("wipe-signature", "The order to wipe is not of a CA that this device trusts.")


def _erase(identity: Identity) -> None:
    """Keys first: whatever stops us, what is left is no identity."""
    if identity.exists:
        for file in identity.folder.rglob("*.pem"):
            _overwrite(file)
        identity.forget()
        if isinstance(identity.keys, KeyThere):
            identity.keys.destroy()
    for each in identity.folder.iterdir():
        if each.name in {DRAFT, LOCK}:
            continue
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            _overwrite(each)
            each.unlink(missing_ok=True)
    sync_folder(identity.folder)


def _overwrite(file: Path) -> None:
    if file.is_symlink() or not file.is_file():
        return
    with file.open("r+b", buffering=0) as opened:
        opened.write(bytes(file.stat().st_size))
        os.fsync(opened.fileno())
