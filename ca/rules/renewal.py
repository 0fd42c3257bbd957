"""Whether a certificate still speaks for its device, and whether it may be renewed (P9). Ring 1: pure.

Judges a certificate that somebody shows by what is on record, never by what it says of itself: names, chains and key identifiers can be
copied (incident R34), the record's octets cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from ca.errors import Contested, Denied, FleetcaError, Unacceptable, Unauthenticated
from ca.model import Certificate, CertificateRef, CertificateState, Device, DeviceState, Name, Profile, Reason, RenewalOrder, UnixTime
from ca.rules.renewal_window import replacements
from ca.rules.window import date, lifetime_of


def revoked(record: Certificate) -> bool:
    """Revoked or on hold; a released hold is neither."""
    return record.revocation is not None and record.revocation.reason is not Reason.removeFromCRL


def live(record: Certificate, *, now: UnixTime) -> bool:
    """Issued, valid now, and not revoked. Superseded ones are live: relying parties still believe them."""
    return record.state is CertificateState.issued and record.not_before <= now <= record.not_after and not revoked(record)


def known(record: Certificate | None, shown: bytes) -> Certificate:
    """The record of the certificate that was shown, if it is that certificate to the last octet.

    Raises:
        Unauthenticated: `certificate-unknown`: none of ours, or a look-alike.
    """
    if record is None or record.state is not CertificateState.issued or record.der != shown:
        raise Unauthenticated(
            "certificate-unknown",
            "The certificate is not one that this deployment issued.",
            why="No issued certificate on record equals it to the last octet.",
            fix="Enrol with a token.",
        )
    return record


def speaks(record: Certificate, *, now: UnixTime, late: int = 0) -> None:
    """Does the certificate hold now?

    Args:
        late: how many seconds after its end it still counts.

    Raises:
        Denied: `certificate-revoked`, `certificate-expired`, `certificate-not-yet-valid`.
    """
    if revoked(record):
        raise Denied("certificate-revoked", "The certificate was revoked.", fix="Enrol again with a new token, if the device may.")
    if now > record.not_after + late:
        raise Denied(
            "certificate-expired",
            "The certificate has expired.",
            why=f"Its notAfter was {date(record.not_after)}, here it is {date(now)}.",
            fix="Enrol again with a new token.",
        )
    if now < record.not_before:
        raise Denied(
            "certificate-not-yet-valid",
            "The certificate is not valid yet.",
            why=f"Its notBefore is {date(record.not_before)}, here it is {date(now)}.",
        )


def superseded(record: Certificate, *, now: UnixTime) -> bool:
    """Has a newer certificate of its device taken over: was it used, or is the grace over that began when its delivery was confirmed?"""
    return record.superseded_at is not None or (record.grace_ends_at is not None and now >= record.grace_ends_at)


def newest(record: Certificate, *, now: UnixTime) -> None:
    """May it still act for its holder, as far as its successors go?

    Raises:
        Denied: `superseded`.
    """
    if superseded(record, now=now):
        raise Denied(
            "superseded",
            "The certificate was superseded: it neither renews nor asks for anything any more.",
            why="A newer certificate of this device was used, or the time is over since its delivery was confirmed.",
            fix="Use the newest certificate.",
        )


def delivery(record: Certificate, successor: Certificate | None, *, now: UnixTime) -> Certificate:
    """The successor whose delivery the holder of `record` may confirm. Said again, it is granted whatever became of either since.

    Raises:
        Denied: `not-your-successor`: also where there is no such certificate; `superseded`; `successor-ended`.
    """
    if successor is None or successor.state is not CertificateState.issued or successor.parent != record.ref:
        raise Denied(
            "not-your-successor",
            "The certificate is not the successor of the one that speaks.",
            why="Only the holder of the certificate that was renewed may say that its successor arrived.",
        )
    if successor.delivered_at is None:
        newest(record, now=now)
        if not live(successor, now=now):
            # It must not retire the one certificate that still holds.
            raise Denied("successor-ended", "The successor does not hold any more.", fix="Renew again.")
    return successor


def active(device: Device | None) -> Device:
    """The device, if it may act with what it has.

    Raises:
        Denied: `device-retired`, `device-quarantined`, `device-not-active`.
    """
    if device is None or device.state is not DeviceState.active:
        known = None if device is None else enrolling(device)
        raise Denied(
            "device-not-active",
            "The device has not enrolled yet.",
            why="It is not on record." if known is None else f"It is {known.state.value}.",
            fix="Enrol it with a token: fleetca token create",
        )
    return device


def enrolling(device: Device) -> Device:
    """The device, if it may get a certificate.

    Raises:
        Denied: `device-retired`, `device-quarantined`.
    """
    if device.state is DeviceState.retired:
        raise Denied(
            "device-retired",
            "The device is retired.",
            why="A retired device neither renews nor enrols.",
            fix="Enrol the hardware under a new device id, if it may come back.",
        )
    if device.state is DeviceState.quarantined:
        raise Denied(
            "device-quarantined",
            "The device is in quarantine.",
            why="Until it is released it neither renews nor enrols.",
            fix=f"Look at why: fleetca devices timeline {device.id}; release it: fleetca devices release {device.id}",
        )
    return device


def renewable(
    record: Certificate, profile: Profile, *, renew_from: float, now: UnixTime, orders: Callable[[], Sequence[RenewalOrder]] = tuple
) -> None:
    """May a live certificate be renewed now? Judged by today's profile, not by that of its issuance.

    Args:
        renew_from: the share of the lifetime that must have passed; the later of profile and cap counts.
        orders: an operator's order to replace it comes before that.

    Raises:
        Denied: `superseded`, `not-renewable`.
        Unacceptable: `too-early`.
    """
    newest(record, now=now)
    if not profile.renewable:
        raise Denied("not-renewable", "Certificates of this profile are not renewed.", why=f"Profile {profile.name!r} says so.")
    share = max(profile.renew_from, renew_from)
    first = record.not_before + int(lifetime_of(record.not_before, record.not_after) * share)
    if now < first and not any(one.concerns(record) for one in replacements(orders())):
        raise Unacceptable(
            "too-early",
            "It is too early to renew this certificate.",
            why=f"{share:.0%} of its lifetime must have passed: from {date(first)} on; here it is {date(now)}.",
            fix="Renew when renew_at has come.",
        )


def predecessor(latest: Iterable[Certificate], profile: Profile, names: Collection[Name], *, now: UnixTime) -> Certificate | None:
    """The newest certificate of the same identity, in whose place a new one comes that was not asked for with its key (ACME). None: it is the first.

    Args:
        latest: certificates of the device, newest first.
        names: that were asked for; what the profile writes by itself does not count.
    """
    wanted = set(names)
    for one in latest:
        asked = {name for name in one.names if name.kind in profile.allowed_names}
        usable = one.state is CertificateState.issued and not revoked(one) and not superseded(one, now=now)
        if usable and one.profile == profile.name and asked == wanted:
            return one
    return None


def ancestors(record: Certificate, find: Callable[[CertificateRef], Certificate | None]) -> tuple[Certificate, ...]:
    """Those a first use of `record` supersedes: up its lineage, until one that is superseded already (its own ancestors then are too)."""
    found = []
    at = record.parent
    while at is not None and (parent := find(at)) is not None and parent.superseded_at is None:
        found.append(parent)
        at = parent.parent
    return tuple(found)


# ---- Two in one place -----------------------------------------------------------------------------------------------

PLACE_TAKEN: Final = frozenset({"superseded", "certificate-revoked"})
"""The refusals behind which it may stand that another certificate took the place of the one that speaks."""


def displaced(record: Certificate, renewals: Sequence[Certificate]) -> tuple[Certificate, ...]:
    """Those in whose place the first use of `record` puts it, beside its ancestors: what else was made of the same parent and was not used.

    Whatever state they are in: one that is being signed, on hold or expired could speak for the device later.

    Args:
        renewals: of its parent.
    """
    return tuple(one for one in renewals if one.ref != record.ref and one.first_used_at is None and one.superseded_at is None)


def rival(record: Certificate, *, siblings: Sequence[Certificate], successors: Sequence[Certificate], now: UnixTime) -> Certificate | None:
    """Which certificate took the place of this superseded one by being used: of the same parent, or its own renewal. None: only time did.

    Args:
        siblings: the renewals of its parent, itself among them.
        successors: its own renewals.
    """
    if not superseded(record, now=now):
        return None
    others = (one for one in (*siblings, *successors) if one.ref != record.ref and one.first_used_at is not None)
    return next(others, None)


def contested(record: Certificate, rival: Certificate, error: FleetcaError) -> Contested:
    """What whoever comes second is told: another certificate has the place of theirs, and since when."""
    used_at = rival.first_used_at or 0
    why = f"Certificate {rival.ref} took the place of {record.ref} when it was used on {date(used_at)}."
    fix = f"If {record.device} itself did not use it, its key was copied: revoke the device, and enrol it with a new key under a new id."
    by_rule = not revoked(record) or (record.revocation is not None and record.revocation.reason is Reason.superseded)
    if rival.parent == record.parent and rival.parent is not None and by_rule:
        return Contested("sibling-used", "Another renewal of the same certificate was used before this one.", why=why, fix=fix)
    return Contested(error.code, error.what, why=why, fix=fix)
