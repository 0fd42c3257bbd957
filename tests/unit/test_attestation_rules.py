"""What a TPM must show of a key, link by link: each link that is not there, or not what it should be, is refused by a name of its own."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ca.errors import FleetcaError, Malformed, Unacceptable
from ca.model import Challenge, Digest, TpmAttestation
from ca.rules.attestation import challenge as challenges
from ca.rules.attestation.credential import CHANCE, make_credential
from ca.rules.attestation.endorsement import read_endorsement
from ca.rules.attestation.structures import LARGEST, check_signature, read_certified, read_public
from ca.rules.attestation.tpm import Proof, prove, read_attestation_key
from ca.rules.caps import TpmMaker
from tests.fakes.certificates import NOW
from tests.fakes.tpm import ATTESTER, FREE, FakeTpm, Maker, attest_of, make, name_of, public_area, signature_of, sized

KEY = bytes(range(32))


@cache
def rsa_key(bits: int = 2048) -> Any:
    return rsa.generate_private_key(65537, bits)


MAKER = Maker()
TRUSTED = (TpmMaker("maker", (MAKER.certificate(of_root=True),)),)


def challenge_for(tpm: FakeTpm, *, now: int = NOW, chance: bytes = bytes(16), key: bytes = KEY) -> Challenge:
    """As `ca.hardware` makes it."""
    endorsement = read_endorsement(tpm.chain, TRUSTED, now=now)
    attester = read_attestation_key(tpm.ak_area)
    ticket = challenges.make_ticket(
        key,
        endorsement=endorsement.spki_sha256,
        attestation=challenges.name_digest(attester.name),
        expires=now + challenges.LIFETIME,
        chance=chance,
    )
    sealed = make_credential(endorsement.key, attester.name, challenges.secret_of(key, ticket), chance=bytes(range(CHANCE)))
    return Challenge(ticket, challenges.nonce_of(ticket), sealed.blob, sealed.seed, now + challenges.LIFETIME)


def proven(given: TpmAttestation, *, now: int = NOW) -> Proof:
    return prove(given, TRUSTED, key=KEY, now=now)


KINDS: dict[str, Callable[[], Any]] = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA-2048": rsa_key,
    "RSA-3072": lambda: rsa_key(3072),
}


@pytest.mark.parametrize("attester", ["P-256", "P-384", "RSA-2048"])
@pytest.mark.parametrize("endorsement", list(KINDS))
@pytest.mark.req("REQ-KEY-046")
def test_every_link_of_an_honest_TPM_holds(endorsement: str, attester: str) -> None:
    tpm = FakeTpm(MAKER, KINDS[endorsement](), KINDS[attester]())
    key = ec.generate_private_key(ec.SECP384R1())
    proof = proven(tpm.attestation(challenge_for(tpm), key))
    assert proof.key == read_public(public_area(key.public_key()), "key").spki_sha256
    assert (proof.endorsement.maker, proof.endorsement.manufacturer, proof.endorsement.model) == ("maker", "id:00001014", "fake")
    assert proof.ticket.expires == NOW + 600


# ---- One link after the other -------------------------------------------------------------------------------------------

TPM = FakeTpm(MAKER)
OTHER = FakeTpm(MAKER)
DEVICE_KEY = ec.generate_private_key(ec.SECP256R1())
ANOTHER_KEY = ec.generate_private_key(ec.SECP256R1())


def bare(attributes: int, **more: Any) -> bytes:
    return public_area(DEVICE_KEY.public_key(), attributes, **more)


def said(**changes: Any) -> Callable[[], TpmAttestation]:
    return lambda: TPM.attestation(challenge_for(TPM), DEVICE_KEY, **changes)


def of_another_deployment() -> TpmAttestation:
    return TPM.attestation(challenge_for(TPM, key=bytes(32)), DEVICE_KEY)


def changed(honest: TpmAttestation, part: str, octets: bytes) -> TpmAttestation:
    changes: dict[str, Any] = {part: octets}
    return replace(honest, **changes)


def flipped(part: str, at: int) -> Callable[[], TpmAttestation]:
    def made() -> TpmAttestation:
        honest = said()()
        octets = bytearray(getattr(honest, part))
        octets[at] ^= 1
        return changed(honest, part, bytes(octets))

    return made


def cut(part: str, by: int = 1) -> Callable[[], TpmAttestation]:
    def made() -> TpmAttestation:
        honest = said()()
        return changed(honest, part, getattr(honest, part)[:-by])

    return made


def longer(part: str, more: bytes = b"\0") -> Callable[[], TpmAttestation]:
    def made() -> TpmAttestation:
        honest = said()()
        return changed(honest, part, getattr(honest, part) + more)

    return made


NOT_HONEST: list[Any] = [
    pytest.param(of_another_deployment, "challenge-unknown", id="a challenge that we did not make"),
    pytest.param(flipped("ticket", 3), "challenge-unknown", id="a ticket whose end was moved"),
    pytest.param(cut("ticket"), "challenge-unknown", id="half a ticket"),
    pytest.param(said(endorsement=OTHER.chain), "challenge-for-another-tpm", id="the endorsement certificate of another TPM"),
    pytest.param(
        said(attestation_key=OTHER.ak_area, signer=OTHER.ak), "challenge-for-another-key", id="an attestation key that activated nothing"
    ),
    pytest.param(lambda: replace(said()(), secret=bytes(32)), "not-activated", id="a secret that is guessed"),
    pytest.param(lambda: replace(said()(), secret=b""), "not-activated", id="no secret"),
    pytest.param(said(signer=ANOTHER_KEY), "attest-signature", id="a signature of another key"),
    pytest.param(flipped("attest", 40), "attest-signature", id="an attestation that was changed after it was signed"),
    pytest.param(said(nonce=bytes(32)), "attest-nonce", id="an attestation for another nonce"),
    pytest.param(said(nonce=b""), "attest-nonce", id="an attestation without a nonce"),
    pytest.param(said(name=name_of(public_area(ANOTHER_KEY.public_key()))), "attest-name", id="an attestation of another key"),
    pytest.param(lambda: replace(said()(), key=public_area(ANOTHER_KEY.public_key())), "attest-name", id="the public area of another key"),
    pytest.param(
        said(attest=attest_of(challenge_for(TPM).nonce, name_of(bare(FREE)), magic=0xFF544348)),
        "attest-magic", id="what no TPM made",
    ),
    pytest.param(
        said(attest=attest_of(challenge_for(TPM).nonce, name_of(bare(FREE)), kind=0x8018)), "attest-type", id="a quote in place of it"
    ),
    pytest.param(said(area=bare(FREE & ~0x02)), "key-not-fixed", id="a key that is not fixedTPM"),
    pytest.param(said(area=bare(FREE & ~0x10)), "key-not-fixed", id="a key that is not fixedParent"),
    pytest.param(said(area=bare(FREE & ~0x20)), "key-not-made-inside", id="a key that was brought into the TPM"),
    pytest.param(said(area=bare(FREE | 0x10000)), "key-unfit", id="a restricted key"),
    pytest.param(said(area=bare(FREE | 0x20000)), "key-unfit", id="a key that decrypts too"),
    pytest.param(said(area=bare(FREE & ~0x40000)), "key-unfit", id="a key that does not sign"),
    pytest.param(said(area=bare(FREE | 0x80000000)), "tpm-structure", id="an attribute that there is not"),
    pytest.param(cut("attest"), "tpm-structure", id="an attestation that ends too early"),
    pytest.param(longer("attest"), "tpm-structure", id="octets after the attestation"),
    pytest.param(cut("key", 5), "tpm-structure", id="half a public area"),
    pytest.param(longer("key"), "tpm-structure", id="octets after the public area"),
    pytest.param(cut("signature"), "tpm-structure", id="half a signature"),
    pytest.param(longer("signature"), "tpm-structure", id="octets after the signature"),
    pytest.param(cut("attestation_key"), "tpm-structure", id="half an attestation key"),
    pytest.param(longer("attest", bytes(LARGEST)), "tpm-structure-too-large", id="an attestation without end"),
    pytest.param(longer("key", bytes(LARGEST)), "tpm-structure-too-large", id="a public area without end"),
    pytest.param(longer("signature", bytes(LARGEST)), "tpm-structure-too-large", id="a signature without end"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "code"), NOT_HONEST)
@pytest.mark.req("REQ-KEY-046", "REQ-KEY-056")
def test_a_link_that_does_not_hold_is_refused_by_its_name(given: Callable[[], TpmAttestation], code: str) -> None:
    with pytest.raises(FleetcaError) as caught:
        proven(given())
    assert caught.value.code == code


# ---- Attestation keys ---------------------------------------------------------------------------------------------------

UNFIT: list[Any] = [
    pytest.param(ATTESTER & ~0x10000, id="one that signs whatever it is given"),
    pytest.param(ATTESTER & ~0x02, id="one that leaves its TPM"),
    pytest.param(ATTESTER & ~0x10, id="one that moves to another parent"),
    pytest.param(ATTESTER & ~0x20, id="one that came from outside"),
    pytest.param(ATTESTER & ~0x40000, id="one that does not sign"),
    pytest.param(ATTESTER | 0x20000, id="one that decrypts"),
]


@pytest.mark.parametrize("attributes", UNFIT)
def test_a_key_that_could_say_anything_attests_nothing(attributes: int) -> None:
    with pytest.raises(FleetcaError) as caught:
        read_attestation_key(public_area(DEVICE_KEY.public_key(), attributes))
    assert caught.value.code == "attestation-key-unfit"


# ---- Endorsement certificates -------------------------------------------------------------------------------------------

EK = ec.generate_private_key(ec.SECP256R1()).public_key()
STRANGER = Maker()
"""Another one of the same name."""


def endorsed(**more: Any) -> Callable[[], tuple[bytes, ...]]:
    return lambda: (MAKER.endorse(EK, **more), MAKER.certificate())


def ca_without_right() -> tuple[bytes, ...]:
    plain = make("maker CA", MAKER.key.public_key(), "maker root", MAKER.root, [(x509.BasicConstraints(ca=False, path_length=None), True)])
    return MAKER.endorse(EK), plain


def too_deep() -> tuple[bytes, ...]:
    """The root lets no CA stand below the one that it signed."""
    below = ec.generate_private_key(ec.SECP256R1())
    ca = [(x509.BasicConstraints(ca=True, path_length=None), True)]
    above = make("maker CA", MAKER.key.public_key(), "maker root", MAKER.root, [(x509.BasicConstraints(ca=True, path_length=0), True)])
    middle = make("below", below.public_key(), "maker CA", MAKER.key, ca)
    maker = Maker("x", key=below)
    leaf = maker.endorse(EK)
    return _reissued(leaf, "below", below), middle, above


def _reissued(leaf: bytes, issuer: str, key: Any) -> bytes:
    old = x509.load_der_x509_certificate(leaf)
    return make("", old.public_key(), issuer, key, [(one.value, one.critical) for one in old.extensions])


SAYS = {"2.23.133.2.1": "id:00001014", "2.23.133.2.2": "fake", "2.23.133.2.3": "id:0001"}
WRONG_ENDORSEMENTS: list[Any] = [
    pytest.param(lambda: (), "endorsement-unreadable", id="no certificate"),
    pytest.param(lambda: (b"\x30\x03\x02\x01\x01",), "endorsement-unreadable", id="something else in DER"),
    pytest.param(lambda: (b"",), "endorsement-unreadable", id="nothing"),
    pytest.param(lambda: (MAKER.endorse(EK) + bytes(4096),), "endorsement-unreadable", id="a certificate without end"),
    pytest.param(lambda: (MAKER.endorse(EK),) * 6, "endorsement-unreadable", id="a chain without end"),
    pytest.param(lambda: (MAKER.endorse(EK),), "tpm-maker-unknown", id="the CA between is missing"),
    pytest.param(lambda: (MAKER.endorse(EK), STRANGER.certificate()), "tpm-maker-unknown", id="a CA of the same name with another key"),
    pytest.param(lambda: (STRANGER.endorse(EK), STRANGER.certificate()), "tpm-maker-unknown", id="another maker of the same name (R34)"),
    pytest.param(
        lambda: (STRANGER.endorse(EK), STRANGER.certificate(), STRANGER.certificate(of_root=True)),
        "tpm-maker-unknown", id="another maker who brings its own root",
    ),
    pytest.param(ca_without_right, "tpm-maker-unknown", id="a CA between that is none"),
    pytest.param(too_deep, "tpm-maker-unknown", id="a CA below one that may have none"),
    pytest.param(endorsed(last=NOW - 1), "endorsement-out-of-time", id="a certificate that has ended"),
    pytest.param(endorsed(first=NOW + 60), "endorsement-out-of-time", id="a certificate that has not begun"),
    pytest.param(lambda: (MAKER.endorse(EK), MAKER.certificate(last=NOW - 1)), "endorsement-out-of-time", id="a CA that has ended"),
    pytest.param(endorsed(purposes=()), "endorsement-profile", id="no purpose"),
    pytest.param(endorsed(purposes=("2.23.133.8.3",)), "endorsement-profile", id="the purpose of an attestation key"),
    pytest.param(endorsed(usage=()), "endorsement-profile", id="no key usage that fits"),
    pytest.param(endorsed(usage=("key_encipherment",)), "endorsement-profile", id="RSA's key usage on an elliptic curve"),
    pytest.param(endorsed(usage=("key_agreement", "digital_signature")), "endorsement-profile", id="a key that signs as well"),
    pytest.param(endorsed(authority=True), "endorsement-profile", id="a CA's certificate"),
    pytest.param(endorsed(says=()), "endorsement-profile", id="no word of the TPM"),
    pytest.param(endorsed(says=tuple(SAYS.items())[:2]), "endorsement-profile", id="no version"),
    pytest.param(endorsed(says=(("2.23.133.2.1", "IBM"), *tuple(SAYS.items())[1:])), "endorsement-profile", id="a manufacturer by name"),
    pytest.param(endorsed(says=(*SAYS.items(), ("2.23.133.2.2", "two"))), "endorsement-profile", id="two models"),
    pytest.param(
        endorsed(more=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)]),
        "endorsement-profile", id="a critical extension that nobody knows",
    ),
    pytest.param(
        lambda: (MAKER.endorse(ec.generate_private_key(ec.SECP521R1()).public_key()), MAKER.certificate()),
        "endorsement-profile", id="a curve that no template has",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("chain", "code"), WRONG_ENDORSEMENTS)
@pytest.mark.req("REQ-KEY-046")
def test_a_certificate_that_endorses_nothing_is_refused(chain: Callable[[], tuple[bytes, ...]], code: str) -> None:
    with pytest.raises(FleetcaError) as caught:
        read_endorsement(chain(), TRUSTED, now=NOW)
    assert caught.value.code == code


def test_an_NV_index_may_be_longer_than_the_certificate_in_it() -> None:
    for pad in (bytes(300), b"\xff" * 300):
        assert read_endorsement((MAKER.endorse(EK) + pad, MAKER.certificate()), TRUSTED, now=NOW).maker == "maker"
    with pytest.raises(Malformed):
        read_endorsement((MAKER.endorse(EK) + b"\0\1", MAKER.certificate()), TRUSTED, now=NOW)


# ---- Structures ---------------------------------------------------------------------------------------------------------


def _rsa_area(**changes: Any) -> bytes:
    head: bytes = struct.pack(">HHI", 0x0001, 0x000B, FREE) + sized(b"")
    parts: dict[str, Any] = {
        "symmetric": 0x0010,
        "scheme": struct.pack(">HH", 0x0014, 0x000B),
        "bits": 2048,
        "exponent": 0,
        "modulus": _modulus(),
    } | changes
    front: bytes = struct.pack(">H", parts["symmetric"]) + parts["scheme"] + struct.pack(">HI", parts["bits"], parts["exponent"])
    return head + front + sized(parts["modulus"])


def _modulus() -> bytes:
    octets: bytes = rsa_key().public_key().public_numbers().n.to_bytes(256, "big")
    return octets


ODD_AREAS: list[Any] = [
    pytest.param(lambda: _rsa_area(symmetric=0x0006), id="a storage key's cipher"),
    pytest.param(lambda: _rsa_area(scheme=struct.pack(">HH", 0x0017, 0x000B)), id="a scheme that encrypts"),
    pytest.param(lambda: _rsa_area(scheme=struct.pack(">HH", 0x0014, 0x0004)), id="a scheme with SHA-1"),
    pytest.param(lambda: _rsa_area(bits=1024, modulus=b"\x81" * 128), id="RSA-1024"),
    pytest.param(lambda: _rsa_area(bits=3072), id="fewer bits than it says"),
    pytest.param(lambda: _rsa_area(exponent=3), id="exponent 3"),
    pytest.param(lambda: public_area(DEVICE_KEY.public_key(), digest=0x0004), id="a name by SHA-1"),
    pytest.param(lambda: public_area(DEVICE_KEY.public_key(), scheme=struct.pack(">HH", 0x001A, 0x000B)), id="ECDAA"),
    pytest.param(lambda: public_area(DEVICE_KEY.public_key())[:-34] + sized(bytes(32)), id="a point that is on no curve"),
    pytest.param(lambda: public_area(DEVICE_KEY.public_key())[:-34] + sized(bytes(64)), id="a point that is too long"),
    pytest.param(lambda: struct.pack(">HHI", 0x0008, 0x000B, FREE) + bytes(40), id="a keyed hash"),
    pytest.param(lambda: b"", id="nothing"),
]


@pytest.mark.parametrize("area", ODD_AREAS)
def test_a_public_area_that_is_no_signing_key_of_ours_is_refused(area: Callable[[], bytes]) -> None:
    with pytest.raises(Malformed) as caught:
        read_public(area(), "key")
    assert caught.value.code == "tpm-structure"


def test_no_octets_make_a_reader_do_anything_but_refuse() -> None:
    """Every prefix, and every octet changed, of honest structures: refused with a code of ours, or read."""
    attest = attest_of(bytes(32), bytes(34))
    public = read_public(TPM.ak_area, "key")
    signature = signature_of(TPM.ak, attest)
    readers: tuple[tuple[bytes, Callable[[bytes], Any]], ...] = (
        (attest, read_certified),
        (TPM.ak_area, lambda octets: read_public(octets, "key")),
        (signature, lambda octets: check_signature(public, octets, attest)),
    )
    for honest, reader in readers:
        reader(honest)
        for at in range(len(honest)):
            with pytest.raises(FleetcaError):
                reader(honest[:at])
            for change in (honest[at] ^ 0xFF, honest[at] ^ 1):
                try:
                    reader(honest[:at] + bytes([change]) + honest[at + 1 :])
                except FleetcaError as error:
                    assert error.code  # noqa: PT017 - either is right, another exception is not


def test_PSS_and_plain_RSA_signatures_are_told_apart() -> None:
    from cryptography.hazmat.primitives.asymmetric import padding

    key, message = rsa_key(), b"what a TPM says"
    public = read_public(public_area(key.public_key(), ATTESTER), "key")
    pss = key.sign(message, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    check_signature(public, struct.pack(">HH", 0x0016, 0x000B) + sized(pss), message)
    with pytest.raises(FleetcaError):
        check_signature(public, struct.pack(">HH", 0x0014, 0x000B) + sized(pss), message)


# ---- Credentials --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*KINDS, "RSA-4096"])
@pytest.mark.req("REQ-KEY-046")
def test_a_credential_opens_for_its_TPM_beside_its_key_and_for_no_other(kind: str) -> None:
    tpm = FakeTpm(MAKER, rsa_key(4096) if kind == "RSA-4096" else KINDS[kind]())
    sealed = make_credential(tpm.ek.public_key(), name_of(tpm.ak_area), b"s" * 32, chance=bytes(range(CHANCE)))
    assert tpm.activate(sealed.blob, sealed.seed) == b"s" * 32
    assert tpm.activate(sealed.blob, sealed.seed, name=name_of(OTHER.ak_area)) is None
    again = make_credential(tpm.ek.public_key(), name_of(tpm.ak_area), b"s" * 32, chance=bytes(range(CHANCE)))
    assert again == sealed, "what is random comes in (P12)"
    other = make_credential(tpm.ek.public_key(), name_of(tpm.ak_area), b"s" * 32, chance=bytes(CHANCE))
    assert other.seed != sealed.seed
    damaged = bytes([sealed.blob[0], sealed.blob[1], sealed.blob[2] ^ 1]) + sealed.blob[3:]
    assert tpm.activate(damaged, sealed.seed) is None


def test_no_credential_is_made_for_a_key_that_endorses_nothing() -> None:
    for key in (ec.generate_private_key(ec.SECP521R1()).public_key(), rsa.generate_private_key(3, 2048).public_key()):
        with pytest.raises(Unacceptable) as caught:
            make_credential(key, bytes(34), bytes(32), chance=bytes(CHANCE))
        assert caught.value.code == "endorsement-kind"


def test_a_ticket_is_of_one_deployment_and_ends() -> None:
    endorsement, attester = Digest(bytes(32)), Digest(b"\1" * 32)
    ticket = challenges.make_ticket(KEY, endorsement=endorsement, attestation=attester, expires=NOW + 600, chance=bytes(16))
    read = challenges.read_ticket(KEY, ticket)
    assert (read.endorsement, read.attestation, read.expires) == (endorsement, attester, NOW + 600)
    challenges.in_time(read, now=NOW + 599)
    with pytest.raises(FleetcaError) as caught:
        challenges.in_time(read, now=NOW + 600)
    assert caught.value.code == "challenge-expired"
    for at in range(len(ticket)):
        with pytest.raises(FleetcaError) as caught:
            challenges.read_ticket(KEY, ticket[:at] + bytes([ticket[at] ^ 1]) + ticket[at + 1 :])
        assert caught.value.code == "challenge-unknown"
