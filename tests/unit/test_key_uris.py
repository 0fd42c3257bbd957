"""Where keys rest, as a person writes it: RFC 7512 by its letter, and no secret in it (REQ-KEY-086)."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.key_uris import KmsKey, SealedKey, TokenKey, TpmKey, check_secret, read_key_uri

BASE = Path("/base")
TOKEN = "pkcs11:token=hsm;object=issuing?module-path=/usr/lib/token.so"

GOOD = [
    pytest.param("sealed:keys/issuing.key", SealedKey, {"name": "issuing", "file": BASE / "keys/issuing.key"}, id="a sealed file"),
    pytest.param(TOKEN, TokenKey, {"name": "issuing", "token": "hsm", "module": Path("/usr/lib/token.so"), "id": None}, id="a token by its label"),
    pytest.param("pkcs11:serial=00;object=a;id=%01%ff;type=private?module-path=/x.so", TokenKey, {"serial": "00", "id": b"\x01\xff"}, id="a token by serial number, a key by id too"),
    pytest.param("pkcs11:token=The%20HSM%20%c3%a9;object=a%3bb?module-path=/x%20y.so", TokenKey, {"token": "The HSM é", "object": "a;b", "module": Path("/x y.so")}, id="what is percent-encoded is decoded"),
    pytest.param("pkcs11:slot-id=3;object=a:b,c?module-path=/x.so", TokenKey, {"slot": 3, "object": "a:b,c"}, id="a slot by number"),
    pytest.param("pkcs11:manufacturer=A;model=B;token=C;object=d?module-path=/x.so", TokenKey, {"manufacturer": "A", "model": "B"}, id="maker and model"),
    pytest.param("tpm:0x81020001", TpmKey, {"handle": 0x81020001, "name": "0x81020001", "device": "/dev/tpmrm0"}, id="a TPM of this machine"),
    pytest.param("tpm:0x81020001?device=/dev/tpm1", TpmKey, {"device": "/dev/tpm1"}, id="another TPM of this machine"),
    pytest.param("tpm:0x81020001?simulator=127.0.0.1:2321", TpmKey, {"device": "127.0.0.1:2321"}, id="a simulator"),
    pytest.param("awskms:alias/issuing?region=eu-central-1", KmsKey, {"key": "alias/issuing", "name": "issuing", "region": "eu-central-1", "endpoint": None}, id="a KMS key by alias"),
    pytest.param("awskms:arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab", KmsKey, {"region": "eu-west-1"}, id="a KMS key by ARN, which names the region"),
    pytest.param("awskms:1234abcd-12ab-34cd-56ef-1234567890ab?region=us-east-1&endpoint=http://127.0.0.1:5000", KmsKey, {"endpoint": "http://127.0.0.1:5000"}, id="a KMS key by id at another endpoint"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "facts"), GOOD)
def test_a_reference_is_read(text: str, kind: type, facts: dict[str, object]) -> None:
    found = read_key_uri(text, base=BASE)
    assert type(found) is kind
    assert found.text == text
    assert {name: getattr(found, name) for name in facts} == facts
    assert (found.path is not None) == (kind is SealedKey)


BAD = [
    pytest.param("", "is not a key", id="nothing"),
    pytest.param("keys/issuing.key", "is not a key", id="no scheme"),
    pytest.param("yubikey:1", "is not a key", id="an unknown scheme"),
    pytest.param("SEALED:a.key", "is not a key", id="a scheme in capitals"),
    pytest.param("sealed:a.pem", ".key", id="a file with another ending"),
    pytest.param("sealed:.key", ".key", id="a file without a name"),
    pytest.param(f"{TOKEN}&pin-value=1234", "passphrase", id="P10: a PIN in the settings"),
    pytest.param(f"{TOKEN}&pin-source=file:/pin", "passphrase", id="a second place for the PIN"),
    pytest.param("pkcs11:token=a;object=b", "module-path", id="no module"),
    pytest.param("pkcs11:token=a;object=b?module-path=x.so", "absolute path", id="a module that is searched for"),
    pytest.param("pkcs11:token=a;object=b?module-name=softhsm2", "module-path", id="a module by name"),
    pytest.param("pkcs11:token=a?module-path=/x.so", "object=", id="no object"),
    pytest.param("pkcs11:object=b?module-path=/x.so", "token= or serial=", id="no token: any would get the PIN"),
    pytest.param("pkcs11:?module-path=/x.so", "object=", id="an empty path"),
    pytest.param("pkcs11:token=a;token=b;object=c?module-path=/x.so", "token twice", id="an attribute twice"),
    pytest.param("pkcs11:token=a;object=c?module-path=/x.so&module-path=/y.so", "module-path twice", id="a query attribute twice"),
    pytest.param("pkcs11:token=a;object=?module-path=/x.so", "empty object", id="an empty value"),
    pytest.param("pkcs11:token=a;object?module-path=/x.so", "NAME=VALUE", id="an attribute without a value"),
    pytest.param("pkcs11:token=a;;object=b?module-path=/x.so", "NAME=VALUE", id="two separators"),
    pytest.param("pkcs11:token=a;object=b;?module-path=/x.so", "NAME=VALUE", id="a separator at the end"),
    pytest.param("pkcs11:token=a;Object=b?module-path=/x.so", "NAME=VALUE", id="an attribute in capitals"),
    pytest.param("pkcs11:token=my hsm;object=b?module-path=/x.so", "percent-encoded", id="a space that is not encoded"),
    pytest.param("pkcs11:token=a/b;object=b?module-path=/x.so", "percent-encoded", id="a slash in the path part"),
    pytest.param("pkcs11:token=a%2;object=b?module-path=/x.so", "percent-encoded", id="half an encoded octet"),
    pytest.param("pkcs11:token=%ff;object=b?module-path=/x.so", "UTF-8", id="a label that is no UTF-8"),
    pytest.param("pkcs11:token=a%00;object=b?module-path=/x.so", "zero octet", id="a zero octet"),
    pytest.param("pkcs11:token=a;object=b;colour=red?module-path=/x.so", "RFC 7512 does not know", id="an unknown attribute"),
    pytest.param("pkcs11:token=a;object=b;library-version=3?module-path=/x.so", "does not choose by", id="an attribute we do not choose by"),
    pytest.param("pkcs11:token=a;object=b;type=public?module-path=/x.so", "type=private", id="a public key"),
    pytest.param("pkcs11:slot-id=x;object=b?module-path=/x.so", "slot-id", id="a slot that is no number"),
    pytest.param("pkcs11:token=a;object=b?module-path=/x.so&x-vendor=1", "RFC 7512 does not know", id="an unknown query attribute"),
    pytest.param("tpm:0x80000001", "persistent handle", id="a transient handle"),
    pytest.param("tpm:0x81800001", "persistent handle", id="a handle of the platform"),
    pytest.param("tpm:0x8101000G", "persistent handle", id="a handle that is no number"),
    pytest.param("tpm:2164326401", "persistent handle", id="a handle in decimal"),
    pytest.param("tpm:0x81020001?device=tpmrm0", "/dev", id="a device elsewhere"),
    pytest.param("tpm:0x81020001?simulator=here", "HOST:PORT", id="a simulator without a port"),
    pytest.param("tpm:0x81020001?simulator=a:1&device=/dev/tpm0", "both", id="two TPMs"),
    pytest.param("tpm:0x81020001?password=x", "has password", id="an unknown option of a TPM"),
    pytest.param("awskms:alias/issuing", "region", id="no region"),
    pytest.param("awskms:issuing?region=eu-central-1", "key of AWS KMS", id="a bare name"),
    pytest.param("awskms:arn:aws:kms:eu-west-1:111122223333:key/a?region=us-east-1", "ARN says", id="two regions"),
    pytest.param("awskms:alias/a?region=x&region=y", "twice", id="an option twice"),
    pytest.param("awskms:alias/a?region=eu-west-1&secret=x", "has secret", id="credentials in the settings"),
    pytest.param("awskms:alias/a?region=eu-west-1&endpoint=ftp://x", "endpoint", id="an endpoint that is no address"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), BAD)
def test_a_bad_reference_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as refused:
        read_key_uri(text, base=BASE)
    assert "1234" not in str(refused.value)


def test_a_question_mark_may_stand_in_a_query_value() -> None:
    found = read_key_uri("pkcs11:token=a;object=b?module-path=/x.so?y", base=BASE)
    assert isinstance(found, TokenKey)
    assert found.module == Path("/x.so?y")


@given(label=st.text(min_size=1, max_size=40).filter(lambda text: "\0" not in text), id_=st.binary(min_size=1, max_size=20))
def test_every_label_and_id_can_be_written(label: str, id_: bytes) -> None:
    octets = "".join(f"%{octet:02x}" for octet in id_)
    found = read_key_uri(f"pkcs11:token={quote(label, safe='')};object={quote(label, safe='')};id={octets}?module-path=/x.so", base=BASE)
    assert isinstance(found, TokenKey)
    assert (found.token, found.object, found.id) == (label, label, id_)


@given(st.text(max_size=80))
def test_reading_ends_with_a_reference_or_words(text: str) -> None:
    for scheme in ("", "pkcs11:", "tpm:", "awskms:", "sealed:"):
        with suppress(ValueError):
            assert read_key_uri(scheme + text, base=BASE).text == scheme + text


SECRETS = [
    pytest.param("sealed:a.key", False, "together", id="a sealed key needs its passphrase"),
    pytest.param(TOKEN, False, "PIN", id="a token needs its PIN"),
    pytest.param("awskms:alias/a?region=eu-west-1", True, "knows none", id="KMS has no passphrase"),
]


@pytest.mark.parametrize(("text", "given_", "words"), SECRETS)
def test_a_passphrase_belongs_to_a_store_that_has_one(text: str, given_: bool, words: str) -> None:
    key = read_key_uri(text, base=BASE)
    with pytest.raises(ValueError, match=words):
        check_secret(key, given=given_)
    check_secret(key, given=not given_)


def test_a_key_of_a_tpm_may_have_a_passphrase_or_none() -> None:
    for passphrase in (True, False):
        check_secret(read_key_uri("tpm:0x81020001", base=BASE), given=passphrase)
