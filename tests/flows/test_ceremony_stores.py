"""Ceremonies whose keys are made in modules: a token, a TPM, a KMS. What a store lacks or is too weak for stops everything before a key exists,
a run that was killed makes no second key, and the tools of others say what is in there."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ca.der import pem
from ca.errors import FleetcaError
from ca.model import ProfileName, Protection
from ca.rules import transcript
from ca.system import SystemChance, SystemClock
from fleetca import ceremonies, forms
from tests import softhsm
from tests.fakes.ceremony import apart
from tests.fakes.kms import REGION, kms
from tests.parts import need
from tests.swtpm import swtpm

PASSPHRASE = b"correct horse battery staple"
PEOPLE = (("administrator", "Alex"), ("auditor", "Aron"), ("witness", "Wanda"))


class Stopped(BaseException):
    """A kill -9."""


@dataclass
class Module:
    """Where keys are made, and what somebody else's tool says of it."""

    kind: str
    places: Callable[[str], str]
    """Of an act: the `[made.ACT]` or `[issuers.ACT]` place of its key."""
    found: Callable[[], set[str]]
    """The SHA-256 of each signing key's public half, told by a tool that is not ours."""
    closed: Callable[[], None]
    """Asserts that a tool which is not ours says of every key that it never leaves."""
    lacks: tuple[str, ...]
    protection: Protection
    gone: str
    """What the account of a destroyed key says."""


def _digest(numbers: ec.EllipticCurvePublicNumbers) -> str:
    return sha256(numbers.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _token(folder: Path) -> Module:
    hsm = softhsm.softhsm()
    need("pkcs11-tool")
    label = hsm.add(f"modules {sha256(str(folder).encode()).hexdigest()[:8]}")
    (folder / "pin").write_text(softhsm.PIN)
    (folder / "pin").chmod(0o600)

    def places(act: str) -> str:
        return f'key = "pkcs11:token={label.replace(" ", "%20")};object={act}?module-path={hsm.module}"\npassphrase = "file:pin"\n'

    def labels() -> list[str]:
        said = hsm.inspect(label, "--list-objects", "--type", "privkey")
        return [line.split(":", 1)[1].strip() for line in said.splitlines() if line.strip().startswith("label:")]

    def keys() -> set[str]:
        found = set()
        for at, each in enumerate(labels()):
            file = folder / f"public-{at}.der"
            hsm.inspect(label, "--read-object", "--type", "pubkey", "--label", each, "--output-file", str(file))
            found.add(sha256(file.read_bytes()).hexdigest())
        assert len(found) == len(labels())
        return found

    def closed() -> None:
        said = hsm.inspect(label, "--list-objects", "--type", "privkey")
        assert said.count("Usage:      sign\n") == len(labels())
        assert said.count("sensitive, always sensitive, never extractable, local") == len(labels())

    return Module("pkcs11", places, keys, closed, ("ml-dsa-44", "ml-dsa-65", "ml-dsa-87"), Protection.module, "C_DestroyObject: CKR_OK")


def _tpm(folder: Path, stack: ExitStack) -> Module:
    chip = stack.enter_context(swtpm(folder / "chip"))
    need("tpm2_readpublic")
    handles: dict[str, str] = {}
    (folder / "tpm.password").write_text("password of the tests")
    (folder / "tpm.password").chmod(0o600)

    def places(act: str) -> str:
        handle = handles.setdefault(act, f"0x{0x81020001 + len(handles):08x}")
        return f'key = "tpm:{handle}?simulator={chip.device}"\npassphrase = "file:tpm.password"\n'

    def seen() -> list[str]:
        listed = chip.tool("tpm2_getcap", "handles-persistent").split()
        return [chip.tool("tpm2_readpublic", "-c", each) for each in listed if each.startswith("0x")]

    def keys() -> set[str]:
        points = [dict(line.strip().split(": ", 1) for line in each.splitlines() if line.startswith(("x: ", "y: "))) for each in seen()]
        return {_digest(ec.EllipticCurvePublicNumbers(int(each["x"], 16), int(each["y"], 16), ec.SECP256R1())) for each in points}

    def closed() -> None:
        assert all("fixedtpm|fixedparent|sensitivedataorigin" in each for each in seen())

    gone = "TPM2_EvictControl: TPM_RC_SUCCESS"
    return Module("tpm", places, keys, closed, ("ml-dsa-65", "ed25519", "rsa-4096"), Protection.module, gone)


def _cloud(stack: ExitStack) -> Module:
    stack.enter_context(kms())
    import boto3

    client = boto3.client("kms", region_name=REGION)

    def places(act: str) -> str:
        return f'key = "awskms:alias/{act}?region={REGION}"\n'

    def listed() -> list[dict[str, Any]]:
        found = [client.describe_key(KeyId=each["KeyId"])["KeyMetadata"] for each in client.list_keys()["Keys"]]
        return [each for each in found if each["KeyState"] == "Enabled"]

    def keys() -> set[str]:
        return {sha256(client.get_public_key(KeyId=each["KeyId"])["PublicKey"]).hexdigest() for each in listed()}

    def closed() -> None:
        assert all((each["Origin"], each["KeyUsage"]) == ("AWS_KMS", "SIGN_VERIFY") for each in listed())

    return Module("awskms", places, keys, closed, ("ml-dsa-65", "ed25519"), Protection.hardware, "ScheduleKeyDeletion, 7 days")


@pytest.fixture(params=["pkcs11", "tpm", "awskms"])
def module(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Module]:
    with ExitStack() as stack:
        match request.param:
            case "pkcs11":
                yield _token(tmp_path)
            case "tpm":
                yield _tpm(tmp_path, stack)
            case _:
                yield _cloud(stack)


ROOT = """
[[acts]]
act = "root"
id = "root"
algorithm = "{algorithm}"
subject = {{ common_name = "Root in a module" }}
not_after = "20y"
"""
REST = """
[[acts]]
act = "intermediate"
id = "issuing"
issuer = "root"
algorithm = "p256"
subject = { common_name = "Issuing in a module" }
not_after = "5y"
crl_url = "http://pki.example/crl/root.crl"
issuer_url = "http://pki.example/ca/root.cer"
[[acts]]
act = "root-crl"
id = "root-crl"
issuer = "root"
next_update = "90d"
"""
KNOWN = '[[issuers]]\nid = "root"\ncertificate = "first/root.pem"\n'


def write(folder: Path, name: str, acts: str, places: str) -> None:
    roles = ""
    for role, person in PEOPLE:
        file = folder / f"{person}.sha256"
        if not file.exists():
            file.write_text(ceremonies.make_role_key(person.lower(), folder, lambda: PASSPHRASE).hex())
        places += f'[people.{person}]\nkey = "sealed:{person.lower()}.key"\n'
        roles += f'[[roles]]\nrole = "{role}"\nperson = "{person}"\nkey_sha256 = "{file.read_text()}"\n'
    (folder / f"{name}.toml").write_text(f'[ceremony]\nname = "{name}"\nconfirm = ["administrator", "witness"]\n{roles}{acts}')
    (folder / f"{name}.credentials").write_text(places)


def both(module: Module) -> str:
    return f"[made.root]\n{module.places('root')}[made.issuing]\n{module.places('issuing')}"


def hold(folder: Path, name: str = "first", **changes: Any) -> None:
    ceremonies.run(
        folder / f"{name}.toml", out=folder / name, passphrase=lambda: PASSPHRASE, confirm=lambda step: True, clock=SystemClock(),
        chance=SystemChance(), credentials=folder / f"{name}.credentials", room=apart, **changes,
    )  # fmt: skip


def refused(folder: Path, name: str = "first") -> FleetcaError:
    with pytest.raises(FleetcaError) as caught:
        hold(folder, name)
    assert caught.value.what
    assert caught.value.fix
    return caught.value


def a_quorum() -> bytes:
    """The `quorum.json` of two custodians."""
    from ca.custody import Custody
    from ca.keys.shares import Slip39
    from ca.rules import quorum as rule

    seen: dict[str, str] = {}
    quorum, _ = Custody(sharing=Slip39(), clock=SystemClock()).make(
        "some", ["A", "B"], 2, show=lambda sheet: seen.update({sheet.custodian: sheet.words}), reenter=lambda custodian, _: seen[custodian]
    )
    return rule.write(quorum)


def certified(folder: Path) -> set[str]:
    found = set()
    for name in ("root", "issuing"):
        certificate = x509.load_pem_x509_certificate((folder / f"first/{name}.pem").read_bytes())
        found.add(sha256(certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest())
    return found


@pytest.mark.req("REQ-KEY-001", "REQ-KEY-004", "REQ-KEY-005", "REQ-KEY-067", "REQ-KEY-069")
def test_root_and_intermediate_keys_live_and_end_in_the_module(module: Module, tmp_path: Path) -> None:
    write(tmp_path, "first", ROOT.format(algorithm="p256") + REST, both(module))
    hold(tmp_path)
    assert not list((tmp_path / "first").glob("*.key"))
    assert module.found() == certified(tmp_path)
    module.closed()
    chain = ["openssl", "verify", "-x509_strict", "-crl_check", "-CRLfile", "crl.pem", "-CAfile", "root.pem", "issuing.pem"]
    (tmp_path / "first/crl.pem").write_text(pem.pem(pem.CRL, (tmp_path / "first/root-crl.crl").read_bytes()))
    need("openssl")
    said = subprocess.run(chain, cwd=tmp_path / "first", capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr

    # The next ceremony finds the root where it is, and the last one ends it there.
    opened = f"[issuers.root]\n{module.places('root')}"
    crl = f'{KNOWN}[[acts]]\nact = "root-crl"\nid = "next"\nissuer = "root"\nprevious = "first/root-crl.crl"\nnext_update = "90d"\n'
    write(tmp_path, "next", crl, opened)
    hold(tmp_path, "next")
    root = pem.der_of((tmp_path / "first/root.pem").read_bytes(), pem.CERTIFICATE)
    assert ceremonies.verify(tmp_path / "next", roots={"root": root}).name == "next"
    write(
        tmp_path,
        "end",
        f'{KNOWN}[[acts]]\nact = "destroy-key"\nid = "end"\nissuer = "root"\nreason = "Its time is over."\nconfirm = ["auditor", "witness"]\n',
        opened,
    )
    hold(tmp_path, "end")
    assert len(module.found()) == 1
    record = json.loads((tmp_path / "end/end.json").read_bytes())
    assert ["done", module.gone] in record["proof"]
    assert "asked again" in dict(record["proof"])
    write(tmp_path, "late", crl.replace('"next"', '"late"'), opened)
    assert refused(tmp_path, "late").code in {"no-such-key", "key-disabled"}


PLACES = ["ceremony.after-begin", "ceremony.after-key", "ceremony.after-drafted", "ceremony.after-confirmed", "ceremony.before-sign",
          "ceremony.after-sign", "ceremony.after-output"]  # fmt: skip


@pytest.mark.req("REQ-KEY-001")
@pytest.mark.parametrize(
    "module", ["pkcs11", pytest.param("tpm", marks=pytest.mark.full), pytest.param("awskms", marks=pytest.mark.full)], indirect=True
)
def test_R32_killed_at_each_step_in_turn_there_are_two_keys_and_one_octet_string_for_each_act(module: Module, tmp_path: Path) -> None:
    """One run that dies at every step of every act, again and again, until none is left."""
    write(tmp_path, "first", ROOT.format(algorithm="p256") + REST, both(module))
    struck: set[tuple[str, int]] = set()

    def run_until_struck() -> bool:
        def strike(name: str) -> None:
            # A step is what the transcript says besides stops and what was begun again.
            lines = [json.loads(line) for line in (tmp_path / "first" / transcript.FILE).read_bytes().splitlines()]
            told = {tuple(line.get(each) for each in ("kind", "stage", "act", "role")) for line in lines if line["kind"] != "resumed"}
            place = (name, len(told))
            if place not in struck:
                struck.add(place)
                raise Stopped

        try:
            hold(tmp_path, failpoint=strike)
        except Stopped:
            return True
        return False

    runs = 0
    while run_until_struck():
        runs += 1
        assert runs < 200
    assert {name for name, _ in struck} == set(PLACES)
    assert module.found() == certified(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "first" / transcript.FILE).read_bytes().splitlines()]
    asked = {(line["act"], line["tbs_sha256"]) for line in lines if line["kind"] in {"drafted", "signing"}}
    assert len(asked) == 3
    assert len([line for line in lines if line["kind"] == "key"]) == 2
    assert ceremonies.verify(tmp_path / "first").name == "first"


def test_what_the_module_lacks_is_refused_before_anything_is_made(module: Module, tmp_path: Path) -> None:
    for algorithm in module.lacks:
        write(tmp_path, "first", ROOT.format(algorithm=algorithm), f"[made.root]\n{module.places('root')}")
        error = refused(tmp_path)
        assert error.code == "store-lacks-algorithm"
        assert algorithm in error.what
        assert "p256" in error.why
    assert not (tmp_path / "first" / transcript.FILE).exists()
    assert module.found() == set()


@pytest.mark.req("REQ-KEY-004")
def test_a_profile_that_demands_hardware_gets_it_or_nothing_is_made(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = dict(forms.shipped_profiles())
    for name in ("root", "issuing-ca"):
        shipped[ProfileName(name)] = replace(shipped[ProfileName(name)], minimum_protection=Protection.hardware)
    monkeypatch.setattr(forms, "shipped_profiles", lambda: shipped)
    write(tmp_path, "first", ROOT.format(algorithm="p256") + REST, both(module))
    if module.protection is Protection.hardware:
        hold(tmp_path)
        assert len(module.found()) == 2
        return
    error = refused(tmp_path)
    assert error.code == "store-too-weak"
    assert "hardware" in error.why
    assert not (tmp_path / "first" / transcript.FILE).exists()
    assert module.found() == set()
    # The root where it may be, the intermediate in a file beside it: the weaker of the two stops both.
    monkeypatch.setattr(forms, "shipped_profiles", lambda: {**shipped, ProfileName("root"): replace(shipped[ProfileName("root")], minimum_protection=module.protection)})  # fmt: skip
    write(tmp_path, "first", ROOT.format(algorithm="p256") + REST, f"[made.root]\n{module.places('root')}")
    assert refused(tmp_path).code == "store-too-weak"
    assert module.found() == set()


@pytest.mark.req("REQ-KEY-004")
def test_the_key_of_an_earlier_ceremony_signs_only_where_it_is_kept_as_its_profile_demands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "first", ROOT.format(algorithm="p256") + REST, "")
    hold(tmp_path)
    shipped = dict(forms.shipped_profiles())
    weak = replace(shipped[ProfileName("root")], minimum_protection=Protection.module)
    monkeypatch.setattr(forms, "shipped_profiles", lambda: {**shipped, ProfileName("root"): weak})
    opened = '[issuers.root]\nkey = "sealed:first/root.key"\n'
    crl = f'{KNOWN}[[acts]]\nact = "root-crl"\nid = "next"\nissuer = "root"\nprevious = "first/root-crl.crl"\nnext_update = "90d"\n'
    end = f'{KNOWN}[[acts]]\nact = "destroy-key"\nid = "end"\nissuer = "root"\nreason = "Too weak."\nconfirm = ["auditor", "witness"]\n'
    (tmp_path / "quorum.json").write_bytes(a_quorum())
    backup = f'{KNOWN}[[acts]]\nact = "backup"\nid = "copy"\nissuer = "root"\nquorum_file = "quorum.json"\n'
    for name, acts in (("crl", crl), ("backup", backup)):
        write(tmp_path, name, acts, opened)
        error = refused(tmp_path, name)
        assert error.code == "store-too-weak"
        assert "module" in error.why
        assert not (tmp_path / name / transcript.FILE).exists()
    # It is the issuer's profile that counts, and a sheet may say which it is.
    write(tmp_path, "other", crl.replace("[[acts]]", 'profile = "no-such"\n[[acts]]'), opened)
    assert refused(tmp_path, "other").code == "unknown-profile"
    write(tmp_path, "other", crl.replace("[[acts]]", 'profile = "issuing-ca"\n[[acts]]'), opened)
    hold(tmp_path, "other")
    # What is kept too weakly may always be destroyed.
    write(tmp_path, "end", end, opened)
    hold(tmp_path, "end")
    assert not (tmp_path / "first/root.key").exists()


def test_R32_a_key_that_was_there_before_is_never_taken_for_one_of_the_ceremony(module: Module, tmp_path: Path) -> None:
    write(tmp_path, "first", ROOT.format(algorithm="p256") + REST, both(module))
    hold(tmp_path)
    before = module.found()
    (tmp_path / "first").rename(tmp_path / "kept")
    error = refused(tmp_path)
    assert error.code == "key-exists"
    assert not (tmp_path / "first" / transcript.FILE).exists()
    assert module.found() == before


@pytest.mark.parametrize("module", ["pkcs11"], indirect=True)  # told from the credentials alone
def test_two_names_for_one_place_are_refused(module: Module, tmp_path: Path) -> None:
    write(tmp_path, "first", ROOT.format(algorithm="p256") + REST, both(module).replace(module.places("issuing"), module.places("root")))
    assert refused(tmp_path).code == "two-places"
    assert module.found() == set()


def test_a_backup_is_refused_before_anything_is_made_because_the_module_gives_no_key_out(module: Module, tmp_path: Path) -> None:
    (tmp_path / "quorum.json").write_bytes(a_quorum())
    acts = ROOT.format(algorithm="p256") + '[[acts]]\nact = "backup"\nid = "copy"\nissuer = "root"\nquorum_file = "quorum.json"\n'
    write(tmp_path, "first", acts, f"[made.root]\n{module.places('root')}")
    assert refused(tmp_path).code == "key-not-extractable"
    assert not (tmp_path / "first" / transcript.FILE).exists()
    assert module.found() == set()


@pytest.mark.parametrize("module", ["pkcs11"], indirect=True)  # told from the credentials alone
def test_shares_in_the_sheet_are_not_overruled_by_the_credentials(module: Module, tmp_path: Path) -> None:
    roles = "".join(
        f'[[roles]]\nrole = "custodian"\nperson = "{each}"\nkey_sha256 = "{sha256(each.encode()).hexdigest()}"\n' for each in ("C", "D")
    )
    acts = '[[acts]]\nact = "shares"\nid = "quorum"\ncustodians = ["C", "D"]\nthreshold = 2\n'
    root = ROOT.format(algorithm="p256").rstrip() + '\nquorum = "quorum"\n'
    write(tmp_path, "first", roles + acts + root, f"[made.root]\n{module.places('root')}")
    assert refused(tmp_path).code == "two-places"
    assert module.found() == set()


def test_R32_a_key_that_kms_made_before_a_crash_is_taken_up_and_no_second_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ca.keys.kms import KmsKeyStore

    with ExitStack() as stack:
        module = _cloud(stack)
        write(tmp_path, "first", ROOT.format(algorithm="p256"), f"[made.root]\n{module.places('root')}")
        honest = KmsKeyStore.__dict__["_client"]

        class Dying:
            def __init__(self, client: Any) -> None:
                self._client = client

            def __getattr__(self, name: str) -> Any:
                if name == "create_alias":
                    raise Stopped
                return getattr(self._client, name)

        with monkeypatch.context() as patch:
            patch.setattr(KmsKeyStore, "_client", property(lambda store: Dying(honest.fget(store))))
            with pytest.raises(Stopped):
                hold(tmp_path)
        hold(tmp_path)
        certificate = x509.load_pem_x509_certificate((tmp_path / "first/root.pem").read_bytes())
        used = sha256(certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
        assert module.found() == {used}
        assert ceremonies.verify(tmp_path / "first").name == "first"
