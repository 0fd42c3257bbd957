"""Rules about what a key may do: basicConstraints, keyUsage, extKeyUsage, and the set of extensions as a whole (RFC 5280 4.2)."""

from __future__ import annotations

from typing import Final

from ca.der import reader
from ca.rules.lint.facts import Shape

BASIC_CONSTRAINTS: Final = "2.5.29.19"
KEY_USAGE: Final = "2.5.29.15"
EXTENDED_KEY_USAGE: Final = "2.5.29.37"
_KNOWN: Final = frozenset(
    (
        BASIC_CONSTRAINTS,
        KEY_USAGE,
        EXTENDED_KEY_USAGE,
        "2.5.29.35",
        "2.5.29.31",
        "2.5.29.56",
        "1.3.6.1.5.5.7.1.1",
        "1.3.6.1.5.5.7.48.1.5",
    )
)
_BITS: Final = (
    "digitalSignature",
    "nonRepudiation",
    "keyEncipherment",
    "dataEncipherment",
    "keyAgreement",
    "keyCertSign",
    "cRLSign",
    "encipherOnly",
    "decipherOnly",
)
_PURPOSES: Final = {
    "1.3.6.1.5.5.7.3.1": "serverAuth",
    "1.3.6.1.5.5.7.3.2": "clientAuth",
    "1.3.6.1.5.5.7.3.3": "codeSigning",
    "1.3.6.1.5.5.7.3.4": "emailProtection",
    "1.3.6.1.5.5.7.3.8": "timeStamping",
    "1.3.6.1.5.5.7.3.9": "OCSPSigning",
}
_ENCRYPTING: Final = frozenset(("keyEncipherment", "dataEncipherment"))
_AGREEING: Final = frozenset(("keyAgreement", "encipherOnly", "decipherOnly"))
# RFC 5280 4.2.1.12: what a purpose needs at least one of.
_NEEDS: Final = {
    "serverAuth": ("digitalSignature", "keyEncipherment", "keyAgreement"),
    "clientAuth": ("digitalSignature", "keyAgreement"),
    "codeSigning": ("digitalSignature",),
    "emailProtection": ("digitalSignature", "nonRepudiation", "keyEncipherment", "keyAgreement"),
    "timeStamping": ("digitalSignature", "nonRepudiation"),
    "OCSPSigning": ("digitalSignature", "nonRepudiation"),
}


def known_and_once(shape: Shape) -> str | None:
    """RFC 5280 4.2: no extension twice; none that no profile gives (what nobody asked for is nobody's decision)."""
    oids = [extension.oid for extension in shape.extensions]
    if len(set(oids)) != len(oids):
        return "an extension stands in it twice"
    strange = set(oids) - _KNOWN
    return f"nobody asked for the extension {min(strange)}" if strange else None


def basic_constraints(shape: Shape) -> str | None:
    """RFC 5280 4.2.1.9: critical; cA left out when FALSE; pathLenConstraint in CA certificates only; as the profile says."""
    found = shape.find(BASIC_CONSTRAINTS)
    if found is None or not found.critical:
        return "basicConstraints is missing or not critical"
    octets = found.value
    fields = list(reader.children(octets, reader.only(octets, 0x30)))
    is_ca = bool(fields) and fields[0].tag == 0x01 and reader.boolean(octets, fields[0])
    if is_ca is not shape.profile.is_ca or (fields and not is_ca):
        return "basicConstraints does not say what the profile says about cA"
    lengths = [reader.integer(octets, field) for field in fields[1:] if field.tag == 0x02]
    if len(lengths) != max(len(fields) - 1, 0):
        return "basicConstraints holds something else"
    if (lengths[0] if lengths else None) != shape.profile.path_length:
        return "the path length is not the profile's"
    return None


def key_usages_in(octets: bytes) -> frozenset[str] | None:
    """The words of a KeyUsage BIT STRING; None where it is not in DER's shortest form (X.690 11.2.2) or empty."""
    whole = reader.only(octets, 0x03)
    unused, bits = octets[whole.content : whole.content + 1], octets[whole.content + 1 : whole.end]
    if not bits or not 1 <= len(bits) <= 2 or unused[0] > 7:
        return None
    # The last bit that counts must be one, and those after it zero.
    if not bits[-1] >> unused[0] & 1 or bits[-1] & (1 << unused[0]) - 1:
        return None
    return frozenset(word for at, word in enumerate(_BITS) if at // 8 < len(bits) and bits[at // 8] & 0x80 >> at % 8)


def key_usage(shape: Shape) -> str | None:
    """RFC 5280 4.2.1.3, RFC 5480 3, RFC 8410 5, RFC 9881 3: critical, not empty, the profile's, and possible for every key it accepts."""
    found = shape.find(KEY_USAGE)
    if found is None or not found.critical:
        return "keyUsage is missing or not critical"
    usages = key_usages_in(found.value)
    if usages is None:
        return "keyUsage is empty or not in its shortest form"
    if usages != frozenset(shape.profile.key_usage):
        return "keyUsage is not the profile's"
    kinds = shape.profile.key_algorithms
    if usages & _ENCRYPTING and not all(kind.startswith("rsa-") for kind in kinds):
        return "only RSA keys encrypt"
    if usages & _AGREEING and not all(kind in ("p256", "p384") for kind in kinds):
        return "only EC keys agree on keys"
    if ("keyCertSign" in usages) is not shape.profile.is_ca:
        return "keyCertSign stands in exactly the CA certificates"
    return None


def extended_key_usage(shape: Shape) -> str | None:
    """RFC 5280 4.2.1.12, RFC 6960 4.2.2.2, RFC 3161 2.3: the profile's; consistent with keyUsage; OCSPSigning alone and never on a CA (R16)."""
    found = shape.find(EXTENDED_KEY_USAGE)
    if found is None:
        return "extKeyUsage is missing" if shape.profile.extended_key_usage else None
    octets = found.value
    listed = list(reader.children(octets, reader.only(octets, 0x30)))
    purposes = [_PURPOSES.get(reader.oid(octets, one), "?") if one.tag == 0x06 else "?" for one in listed]
    if tuple(purposes) != shape.profile.extended_key_usage or not purposes:
        return "extKeyUsage is not the profile's"
    if found.critical is not (purposes == ["timeStamping"]):
        return "extKeyUsage is critical exactly where it is timeStamping"
    if shape.profile.is_ca:
        return "a CA certificate carries extKeyUsage"
    if "OCSPSigning" in purposes and (len(purposes) > 1 or shape.profile.status.value != "nocheck"):
        return "OCSPSigning stands outside a responder's certificate"
    for purpose in purposes:
        if not set(_NEEDS[purpose]) & set(shape.profile.key_usage):
            return f"{purpose} does not agree with keyUsage"
    return None


RULES: Final = (
    ("extensions", "RFC 5280 4.2", known_and_once),
    ("basic-constraints", "RFC 5280 4.2.1.9", basic_constraints),
    ("key-usage", "RFC 5280 4.2.1.3", key_usage),
    ("extended-key-usage", "RFC 5280 4.2.1.12", extended_key_usage),
)
