"""What policy documents say of a deployment, in sentences and tables made from its settings and profiles. Knows no outline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ca.model import Profile, StatusKind
from ca.rules import caps
from ca.rules.algorithm_dates import TABLE
from ca.rules.ceremony_roles import EXCLUSIVE as CEREMONY_EXCLUSIVE
from config.settings import IssuerSetting, Settings
from config.strict import duration_text
from fleetca.evidence.policy import table


@dataclass(frozen=True)
class Said:
    """One deployment."""

    settings: Settings
    profiles: Sequence[Profile]

    @cached_property
    def leaves(self) -> Sequence[Profile]:
        return [one for one in self.profiles if not one.is_ca]

    # ---- who -------------------------------------------------------------------------------------------------------

    def issuers(self) -> str:
        rows = [
            (one.id, "online" if one.key is not None else "offline: its key is not of this deployment", one.succeeds or "-")
            for one in self.settings.issuers
        ]
        return table(("issuer", "its key", "takes the place of"), rows)

    def registration(self) -> str:
        found = ["Devices enrol with a one-time token that an operator made, over REST or EST."]
        found += [
            f"Factory certificates of {one.name} enrol devices whose ids begin with `{one.prefix}`."
            for one in self.settings.est.manufacturers
        ]
        for one in self.settings.acme.directories:
            who = "an account that a one-time token binds to a device" if one.accounts == "bound" else "whoever shows to hold the names"
            names = f", within {', '.join(f'`{name}`' for name in one.names)}" if one.names else ""
            found.append(f"ACME directory {one.name}: {who}{names}, by {', '.join(one.challenges)}; profile {one.profile}.")
        return "\n".join(f"- {line}" for line in found)

    def roles(self) -> str:
        rows = [(role, ", ".join(sorted(power.value for power in powers))) for role, powers in caps.OPERATOR_POWERS.items()]
        return table(("role of an operator", "may"), rows)

    def exclusive(self) -> str:
        pairs = sorted(" and ".join(sorted(pair)) for pair in caps.EXCLUSIVE)
        more = sorted(" and ".join(sorted(pair)) for pair in CEREMONY_EXCLUSIVE)
        return "\n".join(
            ["No person is both", "", *(f"- {one}" for one in pairs), "", "and in a ceremony", "", *(f"- {one}" for one in more)]
        )

    def two_persons(self) -> str:
        asked = self.settings.approvals
        always = "Reviving the id of a retired device, asking for less than before, and publishing a CRL that the gate refused always need two persons."
        always += f" At least every {_time(asked.review_every)} two persons sign that what was done was reviewed."
        if not asked.two_persons:
            return f"{always} Nothing else needs them."
        others = "another person approves" if asked.approvers == 1 else f"{asked.approvers} others approve"
        mass = (
            f" More than {asked.mass_revocation} changes of status within an hour are a mass revocation."
            if "mass-revocation" in asked.two_persons
            else ""
        )
        return f"One person asks and {others}, each with a key of their own: {', '.join(asked.two_persons)}.{mass} {always}"

    def tenants(self) -> str:
        count = len(self.settings.tenants)
        return (
            f"{count} tenants, each with issuers, devices, operators and a policy of its own, which only tightens this one."
            if count
            else ""
        )

    def attestation(self) -> str:
        makers = [one.name for one in self.settings.attestation.tpm_makers]
        rows = [(one.name, " or ".join(kind.value for kind in one.attestation)) for one in self.leaves if one.attestation]
        found = [f"TPMs are believed that were made by {', '.join(makers)}."] if makers else []
        return "\n\n".join([*found, *([table(("profile", "its keys are vouched for by"), rows)] if rows else [])])

    def drills(self) -> str:
        return f"A drill, at least every {_time(self.settings.custody.drill_every)}, shows that the backup opens."

    def processes(self) -> str:
        users = self.settings.signer.users
        if users is None:
            return "All processes run as one user; the signer gives its roles to nobody else."
        return table(("user id", "roles at the signer"), [(uid, ", ".join(roles)) for uid, roles in sorted(users.items())])

    # ---- keys ------------------------------------------------------------------------------------------------------

    def keys(self) -> str:
        rows = [[f"issuer {one.id}", *_place(one)] for one in self.settings.issuers]
        log = self.settings.log
        rows.append(["record (checkpoints)", log.key.scheme, _secret(log.passphrase)])
        ocsp = self.settings.ocsp
        kept = (
            ("memory of each status process", "none: it is made anew at each start")
            if ocsp.responder_key is None
            else (ocsp.responder_key.scheme, _secret(ocsp.responder_passphrase))
        )
        rows.append([f"OCSP responder ({ocsp.key})", *kept])
        rows.append(["check value of serial numbers", "secret", self.settings.signer.serial_check.scheme])
        return table(("key", "kept in", "unlocked by"), rows)

    def algorithms(self) -> str:
        return table(("profile", "keys of subjects"), [(one.name, ", ".join(one.key_algorithms)) for one in self.profiles])

    def dates(self) -> str:
        used = sorted({name for one in self.profiles for name in one.key_algorithms})
        rows = [
            (name, f"{dates.strength} bits", "no end is known" if dates.ends is None else f"the end of {dates.ends}")
            for name in used
            if (dates := TABLE.get(name)) is not None
        ]
        return table(("algorithm", "strength", "counts until"), rows)

    def protection(self) -> str:
        return table(("profile", "key kept at least in"), [(one.name, one.minimum_protection.name) for one in self.profiles])

    # ---- certificates ------------------------------------------------------------------------------------------------

    def lifetimes(self) -> str:
        rows = [(one.name, _time(one.lifetime), _time(one.max_lifetime), _after(one), _time(one.grace)) for one in self.profiles]
        return table(("profile", "lifetime", "at most", "renewed from", "grace after delivery"), rows)

    def usages(self) -> str:
        rows = [
            (one.name, "CA" if one.is_ca else "end entity", ", ".join(one.key_usage), ", ".join(one.extended_key_usage) or "-")
            for one in self.profiles
        ]
        return table(("profile", "kind", "key usage", "extended key usage"), rows)

    def names(self) -> str:
        rows = [
            (one.name, one.common_name, ", ".join(one.allowed_names) or "none", "yes" if one.required_names else "no")
            for one in self.leaves
        ]
        return table(("profile", "common name", "other names", "required"), rows)

    def status(self) -> str:
        words = {
            StatusKind.revocable: "revocable: CRL and OCSP",
            StatusKind.no_rev_avail: "no status: it is short-lived and carries noRevAvail (RFC 9608)",
            StatusKind.nocheck: "no status: a responder's (RFC 6960 4.2.2.2.1)",
        }
        rows = [(one.name, words.get(one.status, "a trust anchor: replaced, not revoked")) for one in self.profiles]
        return table(("profile", "status"), rows)

    def renewal(self) -> str:
        yes = [one.name for one in self.leaves if one.renewable]
        away = [f"{one.name} {_time(one.offline)}" for one in self.leaves if one.offline]
        no = [one.name for one in self.leaves if not one.renewable]
        found = [f"Renewed with a new key, by whoever holds the current one: {', '.join(yes) or 'none'}."]
        found += [f"Not renewed: {', '.join(no)}."] if no else []
        found += (
            [f"With the same key: {', '.join(one.name for one in self.leaves if one.key_reuse)}."]
            if any(one.key_reuse for one in self.leaves)
            else []
        )
        found += [f"Devices may be out of reach for: {', '.join(away)}."] if away else []
        late = [f"{one.name} {_time(one.renew_after_expiry)}" for one in self.leaves if one.renew_after_expiry]
        found += [f"After their end, for: {', '.join(late)}."] if late else []
        return " ".join(found)

    def approvals(self) -> str:
        rows = [(one.name, f"within {_time(one.approval_within)}" if one.approval_within else "none") for one in self.leaves]
        return table(("profile", "an operator approves each first certificate"), rows)

    def crls(self) -> str:
        crl = self.settings.crl
        kinds = [
            f"{one.id}: {one.crl_contents}{f', {one.crl_shards} shards' if one.crl_shards else ''}{', deltas' if one.crl_deltas else ''}"
            for one in self.settings.issuers
            if one.key
        ]
        found = [
            f"A CRL at least every {_time(crl.interval)}, and within {_time(crl.nudge)} of a revocation; each holds for {_time(crl.lifetime)}."
        ]
        found += (
            [f"Deltas at least every {_time(crl.delta_interval)}, for {_time(crl.delta_lifetime)}."]
            if any(one.crl_deltas for one in self.settings.issuers)
            else []
        )
        return "\n\n".join([" ".join(found), "\n".join(f"- {one}" for one in kinds)])

    def ocsp(self) -> str:
        ocsp = self.settings.ocsp
        archive = f" Status is kept for {_time(ocsp.archive)} after a certificate's end." if ocsp.archive is not None else ""
        return f"OCSP answers hold for {_time(ocsp.lifetime)}; caches may keep them for {_time(ocsp.max_age)}. Of what was never issued it says `{ocsp.unknown}`.{archive}"

    def compromised(self) -> str:
        found = [
            f"The key of {one.id} counts as compromised since {one.compromised:%Y-%m-%dT%H:%M:%SZ}."
            for one in self.settings.issuers
            if one.compromised
        ]
        return " ".join(found) or "No issuer's key counts as compromised."


def _time(seconds: int) -> str:
    return duration_text(seconds) if seconds else "none"


def _place(issuer: IssuerSetting) -> tuple[str, str]:
    return ("offline, with its custodians", "-") if issuer.key is None else (issuer.key.scheme, _secret(issuer.passphrase))


def _secret(given: object) -> str:
    return "nothing" if given is None else str(getattr(given, "scheme", "secret"))


def _after(profile: Profile) -> str:
    return f"{profile.renew_from:.0%} of the lifetime" if profile.renewable and not profile.is_ca else "-"
