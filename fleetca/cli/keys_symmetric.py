"""`fleetca keys derive`, `wrap`, `unwrap`, `group`, `hierarchy` and `pkcs12`: keys that are no certificate's. They need no deployment.

A symmetric key lies in a file of its own, as hexadecimal text that only its owner can read (0600); a file that others can read is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleetca.cli import output, reach

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ca.keys.cms import Shared
    from ca.rules.group_keys import Epoch

_KEY = click.Path(dir_okay=False, path_type=Path)


def _secret(path: Path) -> bytes:
    from config.secrets import Secret
    from fleetca.forms import our_errors

    with our_errors():
        return Secret.parse(f"file:{path.name}", base=path.parent).read()


def secret_key(path: Path) -> bytes:
    """The symmetric key in a file: hexadecimal text, 0600."""
    from ca.errors import Malformed

    try:
        return bytes.fromhex(_secret(path).decode())
    except ValueError:
        raise Malformed("bad-key-text", f"{path} holds no key.", why="A key is written in hexadecimal digits.") from None


def _write(path: Path, key: bytes) -> None:
    reach.write_new(str(path), key.hex().encode() + b"\n", mode=0o600)


@click.command(help="Derive a key from the one in SECRET by HKDF-SHA-256 (RFC 5869), for one purpose and no other, and write it to --out.")
@click.argument("secret", type=_KEY)
@click.option("--salt", required=True, metavar="HEX", help="16 octets at least; public.")
@click.option("--label", required=True, help="The protocol and the use.")
@click.option("--device", default="", help="The device that it is for.")
@click.option("--role", default="", help="Which side or direction.")
@click.option("--epoch", type=click.IntRange(0), default=0, show_default=True, help="Rises with each change of keys.")
@click.option("--length", type=click.IntRange(1), default=32, show_default=True, help="Octets.")
@click.option("--out", required=True, type=_KEY, help="Where it goes (0600); must not exist.")
@output.json_option
def derive(secret: Path, salt: str, label: str, device: str, role: str, epoch: int, length: int, out: Path, as_json: bool) -> None:
    from ca.errors import Malformed
    from ca.rules import derive as rule
    from ca.rules import wrap as wraps

    try:
        octets = bytes.fromhex(salt)
    except ValueError:
        raise Malformed("no-salt", "The salt is not written in hexadecimal digits.", fix="Draw one: openssl rand -hex 16") from None
    made = rule.derive(secret_key(secret), salt=octets, purpose=rule.Purpose(label, device, role, epoch), length=length)
    _write(out, made)
    check = wraps.check_value(made) if length in wraps.SIZES else None
    info = rule.info(rule.Purpose(label, device, role, epoch), length).hex()
    output.result(
        {"file": str(out), "octets": length, "check": check, "info": info},
        f"{out}: {length} octets, check value {check or '-'}",
        as_json=as_json,
    )


@click.command(
    help="Wrap the key in KEY under the one in --under: AES-KWP (RFC 5649), or AES-KW (RFC 3394) with --unpadded. Or in CMS: to certificates with --to, and"
    " with --cms under the one in --under, as openssl cms -decrypt reads it."
)
@click.argument("key", type=_KEY)
@click.option("--under", type=_KEY, help="The wrapping key.")
@click.option("--unpadded", is_flag=True, help="AES-KW.")
@click.option(
    "--to", "certificates", multiple=True, type=_KEY, help="CMS, for the holder of this certificate (RSA or EC). May be repeated."
)
@click.option("--cms", "in_cms", is_flag=True, help="CMS, under the key in --under.")
@click.option(
    "--cbc", is_flag=True, help="CMS EnvelopedData with AES-CBC, for what cannot read AES-GCM: nothing shows that it was changed."
)
@click.option("--out", required=True, type=_KEY, help="Where the wrapped key goes; must not exist.")
@output.json_option
def wrap(
    key: Path, under: Path | None, unpadded: bool, certificates: tuple[Path, ...], in_cms: bool, cbc: bool, out: Path, as_json: bool
) -> None:
    from ca.keys import cms
    from ca.rules import wrap as wraps

    octets = secret_key(key)
    parent = None if under is None else secret_key(under)
    if certificates or in_cms:
        if unpadded or (in_cms and parent is None) or (not in_cms and parent is not None):
            raise click.UsageError("In CMS, give --to, or --cms with --under; --unpadded is not for it.")
        to: list[cms.Certified | cms.Shared] = [cms.Certified(_one_certificate(path)) for path in certificates]
        to += [] if parent is None else [_shared(parent)]
        reach.write_new(str(out), cms.write(octets, to, authenticated=not cbc))
    elif parent is None or cbc:
        raise click.UsageError("Give --under or --to; --cbc is for CMS.")
    else:
        reach.write_new(str(out), wraps.wrap(octets, parent, padded=not unpadded))
    check = wraps.check_value(octets) if len(octets) in wraps.SIZES else None
    document = {"file": str(out), "check": check, "under": None if parent is None else wraps.check_value(parent)}
    output.result(document, f"{out}: check value {check or '-'}, under {document['under'] or 'certificates'}", as_json=as_json)


def _shared(key: bytes) -> Shared:
    """An AES key in CMS is called by its check value."""
    from ca.keys import cms
    from ca.rules import wrap as wraps

    return cms.Shared(key, bytes.fromhex(wraps.check_value(key)))


def _one_certificate(path: Path) -> bytes:
    from ca.errors import Malformed

    found = _certificates(reach.read(str(path)))
    if not found:
        raise Malformed("bad-certificate", f"{path} holds no certificate.", fix="Give a PEM or DER file.")
    return found[0]


@click.command(
    help="Unwrap the key in WRAPPED, and write it to --out. CMS is opened with --cms and --under, or with --key and --certificate."
)
@click.argument("wrapped", type=_KEY)
@click.option("--under", type=_KEY, help="The key that it was wrapped under.")
@click.option("--unpadded", is_flag=True, help="AES-KW.")
@click.option("--cms", "in_cms", is_flag=True, help="It is CMS, under the key in --under.")
@click.option("--key", type=_KEY, help="CMS: the private key, PKCS#8 under a passphrase (PEM).")
@click.option("--key-passphrase-file", type=_KEY, help="What unlocks it (mode 0600).")
@click.option("--certificate", type=_KEY, help="CMS: its certificate.")
@click.option("--check", metavar="HEX", help="The check value that it must have.")
@click.option("--out", required=True, type=_KEY, help="Where it goes (0600); must not exist.")
def unwrap(
    wrapped: Path,
    under: Path | None,
    unpadded: bool,
    in_cms: bool,
    key: Path | None,
    key_passphrase_file: Path | None,
    certificate: Path | None,
    check: str | None,
    out: Path,
) -> None:
    from ca.errors import Unauthenticated
    from ca.keys import cms
    from ca.keys.sealed_file import unseal
    from ca.rules import wrap as wraps

    octets = reach.read(str(wrapped))
    if key is not None and key_passphrase_file is not None and certificate is not None and under is None:
        private = unseal(reach.read(str(key)), _secret(key_passphrase_file), what=str(key))
        found = cms.read(octets, cms.Opener(private, _one_certificate(certificate)))
    elif under is None or key is not None or certificate is not None or (in_cms and unpadded):
        raise click.UsageError("Give --under, or --key with --key-passphrase-file and --certificate.")
    elif in_cms:
        found = cms.read(octets, _shared(secret_key(under)))
    else:
        found = wraps.unwrap(octets, secret_key(under), padded=not unpadded, check=check)
    if check is not None and wraps.check_value(found) != check.lower():
        raise Unauthenticated("wrong-key", "The unwrapped key is not the one that was meant.", why="Its check value is another.")
    _write(out, found)


@click.command(
    help="Judge the hierarchy of keys that FILE declares: circles, keys of several purposes, parents that are weaker or of another kind."
)
@click.argument("file", type=_KEY)
@click.option("--draw", type=click.Choice(["text", "dot", "svg"]), default="text", show_default=True, help="What to print of a lawful one.")
def hierarchy(file: Path, draw: str) -> None:
    import tomllib

    from ca.errors import Malformed
    from ca.rules import key_hierarchy as rule

    try:
        declared = tomllib.loads(reach.read(str(file)).decode())["keys"]
        keys = [
            rule.Key(str(name), _purposes(name, each["purposes"]), str(each["algorithm"]), each.get("parent"), str(each.get("note", "")))
            for name, each in declared.items()
            if each.keys() <= {"purposes", "algorithm", "parent", "note"} or _unknown(name, each)
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Malformed(
            "no-hierarchy",
            f"{file} declares no hierarchy of keys.",
            why=str(error),
            fix="Write [keys.NAME] with purposes, algorithm, parent.",
        ) from None
    rule.check(keys)
    click.echo({"text": rule.text, "dot": rule.dot, "svg": rule.svg}[draw](keys).rstrip("\n"))


def _purposes(name: str, given: object) -> tuple[str, ...]:
    if not isinstance(given, list):
        raise TypeError(f'{name}: purposes is a list, such as ["signature"]')
    return tuple(map(str, given))


def _unknown(name: str, each: dict[str, object]) -> bool:
    raise ValueError(f"{name} has a field that is none: {', '.join(sorted(each.keys() - {'purposes', 'algorithm', 'parent', 'note'}))}")


@click.group(help="A key that a group of devices shares, in epochs: who leaves cannot read the next one, who joins cannot read the last.")
def group() -> None:
    pass


@group.command(
    help="Begin the group NAME. The members' own keys follow from the one in --master; each epoch is written to a file that anybody may carry."
)
@click.argument("name")
@click.option("--master", required=True, type=_KEY, help="The key that members' keys are derived from.")
@click.option("--member", "members", multiple=True, required=True, help="A device; may be given several times.")
@click.option("--out", required=True, type=_KEY, help="Where the epoch goes; must not exist.")
def begin(name: str, master: Path, members: tuple[str, ...], out: Path) -> None:
    from ca.rules import group_keys as rule
    from ca.rules import ids
    from ca.system import SystemChance

    secret = secret_key(master)
    _epoch(
        rule.begin(
            name, map(ids.device_id, members), key=SystemChance().octets(rule.KEY), of=lambda one: rule.member_key(secret, name, one)
        ),
        out,
    )


@group.command(help="The next epoch after the one in EPOCH: with a new key, for those who stay and who join.")
@click.argument("epoch", type=_KEY)
@click.option("--master", required=True, type=_KEY, help="The key that members' keys are derived from.")
@click.option("--join", multiple=True, help="A device that comes.")
@click.option("--leave", multiple=True, help="A device that goes.")
@click.option("--out", required=True, type=_KEY, help="Where the next epoch goes; must not exist.")
def change(epoch: Path, master: Path, join: tuple[str, ...], leave: tuple[str, ...], out: Path) -> None:
    from ca.rules import group_keys as rule
    from ca.rules import ids
    from ca.system import SystemChance

    secret, before = secret_key(master), rule.parse(reach.read(str(epoch)))
    after = rule.change(
        before,
        join=map(ids.device_id, join),
        leave=map(ids.device_id, leave),
        key=SystemChance().octets(rule.KEY),
        of=lambda one: rule.member_key(secret, before.group, one),
    )
    _epoch(after, out)


def _epoch(made: Epoch, out: Path) -> None:
    from ca.rules import group_keys as rule

    reach.write_new(str(out), rule.write(made))
    output.note(f"Epoch {made.number} of {made.group}: {len(made.members)} members, check value {made.check}.")


@group.command("member-key", help="Write the key that MEMBER of the group NAME shares with us: it goes to the device, once.")
@click.argument("name")
@click.argument("member")
@click.option("--master", required=True, type=_KEY, help="The key that members' keys are derived from.")
@click.option("--out", required=True, type=_KEY, help="Where it goes (0600); must not exist.")
def member_key(name: str, member: str, master: Path, out: Path) -> None:
    from ca.rules import group_keys as rule
    from ca.rules import ids

    _write(out, rule.member_key(secret_key(master), str(ids.device_id(name)), ids.device_id(member)))


@group.command("read", help="Open EPOCH as MEMBER, with the key in --key, and write the group's key to --out.")
@click.argument("epoch", type=_KEY)
@click.argument("member")
@click.option("--key", required=True, type=_KEY, help="The key that the member shares with us.")
@click.option("--out", required=True, type=_KEY, help="Where it goes (0600); must not exist.")
def read(epoch: Path, member: str, key: Path, out: Path) -> None:
    from ca.rules import group_keys as rule
    from ca.rules import ids

    _write(out, rule.read(rule.parse(reach.read(str(epoch))), ids.device_id(member), secret_key(key)))


@click.group(help="PKCS#12: private keys with their certificates for other software's key stores.")
def pkcs12() -> None:
    pass


_PASSPHRASE = click.option("--passphrase-file", required=True, type=_KEY, help="The passphrase (mode 0600) of the PKCS#12 file.")


@pkcs12.command("export", help="Write a private key, its certificate and what is above it to a PKCS#12 file: AES-256 and SHA-256.")
@click.option("--key", required=True, type=_KEY, help="The private key, PKCS#8 under a passphrase (PEM).")
@click.option("--key-passphrase-file", required=True, type=_KEY, help="What unlocks it (mode 0600).")
@click.option("--certificate", required=True, type=_KEY, help="Its certificate, with the chain behind it (PEM), or alone (PEM or DER).")
@click.option("--name", default="fleetca", show_default=True, help="What key stores show it as.")
@_PASSPHRASE
@click.option("--legacy", is_flag=True, help="3DES and SHA-1, for old software. Whoever has such a file reads it soon.")
@click.option("--pbmac1", is_flag=True, help="A check value by PBMAC1 (RFC 9579), for software that knows it: openssl 3.4 and later.")
@click.option("--out", required=True, type=_KEY, help="Where it goes (0600); must not exist.")
def export(
    key: Path, key_passphrase_file: Path, certificate: Path, name: str, passphrase_file: Path, legacy: bool, pbmac1: bool, out: Path
) -> None:
    from ca.errors import Malformed
    from ca.keys import pkcs12 as files
    from ca.keys.sealed_file import unseal

    if legacy and pbmac1:
        raise click.UsageError("Give --legacy or --pbmac1.")
    unlocked = unseal(reach.read(str(key)), _secret(key_passphrase_file), what=str(key))
    certificates = _certificates(reach.read(str(certificate)))
    if not certificates:
        raise Malformed("bad-certificate", f"{certificate} holds no certificate.", fix="Give a PEM or DER file.")
    bundle = files.Bundle(unlocked, certificates[0], tuple(certificates[1:]))
    reach.write_new(str(out), files.write(bundle, _secret(passphrase_file), name=name, legacy=legacy, pbmac1=pbmac1), mode=0o600)


def _certificates(octets: bytes) -> Sequence[bytes]:
    from ca.der import pem

    return [octets] if octets.startswith(b"\x30") else pem.ders_of(octets, pem.CERTIFICATE)


@pkcs12.command(
    "import", help="Read a PKCS#12 FILE into the folder --out: the key under its passphrase (key.pem), and its certificates (chain.pem)."
)
@click.argument("file", type=_KEY)
@_PASSPHRASE
@click.option("--legacy", is_flag=True, help="Take it, too, where it is protected by RC2, 3DES or SHA-1, or not at all.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="A folder; made where it is missing.")
def import_(file: Path, passphrase_file: Path, legacy: bool, out: Path) -> None:
    from ca.der import pem
    from ca.errors import Conflict
    from ca.keys import pkcs12 as files
    from ca.keys.sealed_file import seal

    passphrase = _secret(passphrase_file)
    found = files.read(reach.read(str(file)), passphrase, legacy=legacy)
    for path in (out / "key.pem", out / "chain.pem"):
        # Before either is written: half an import would look like one.
        if path.exists():
            raise Conflict("file-exists", f"{path} exists already.", fix="Name another folder, or move this file away.")
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    reach.write_new(str(out / "key.pem"), seal(found.key, passphrase).encode(), mode=0o600)
    reach.write_new(str(out / "chain.pem"), "".join(pem.pem(pem.CERTIFICATE, der) for der in (found.certificate, *found.chain)).encode())
