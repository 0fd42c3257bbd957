"""What ACME refuses, each with the section that says so (RFC 8555 unless another is named).

First the matrix: every way to spoil a signed request, on every address that takes one. A path that forgets one check is the incident R19. Then what
each resource refuses for its own reasons.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding
from werkzeug.test import TestResponse

from ca.keys.memory import make_private_key
from ca.model import AlgorithmName
from ca.rules import token as token_rule
from enroll.acme.renewal_info import write_id
from enroll.acme.routes import ROUTES
from tests.fakes.acme import BASE, AccountKey, AcmeWorld, Client, b64, csr_for, jws

Change = Callable[[Client, dict[str, Any]], dict[str, Any]]


@dataclass
class Shop:
    """One account with one of everything, another account, and a third in another directory."""

    acme: AcmeWorld
    client: Client
    other: Client
    elsewhere: Client
    urls: dict[str, str] = field(default_factory=dict)
    payloads: dict[str, Any] = field(default_factory=dict)
    certificate: bytes = b""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    acme = AcmeWorld(tmp_path_factory.mktemp("acme"))
    client, other, elsewhere = Client(acme), Client(acme), Client(acme, "gateway")
    client.register()
    other.register()
    elsewhere.register(token=acme.token("gw-8"))
    order = client.order("gw-1.device.test")
    client.prove(order)
    csr = csr_for("gw-1.device.test")
    done = client.finalize(order, csr)
    authorization = order.json["authorizations"][0]
    challenge = client.post(authorization).json["challenges"][0]["url"]
    made = Shop(acme, client, other, elsewhere)
    made.certificate = client.certificate(done).public_bytes(Encoding.DER)
    made.urls = {
        "new_account": client.url("new-account"),
        "new_order": client.url("new-order"),
        "revoke": client.url("revoke-cert"),
        "change_key": client.url("key-change"),
        "account": str(client.kid),
        "account_orders": f"{client.kid}/orders",
        "order": order.headers["Location"],
        "finalize": order.json["finalize"],
        "authorization": authorization,
        "challenge": challenge,
        "certificate": done.json["certificate"],
        "certificate_with_root": done.json["certificate"] + "/with-root",
    }
    made.payloads = {
        "new_account": {},
        "new_order": {"identifiers": [{"type": "dns", "value": "gw-1.device.test"}]},
        "revoke": {"certificate": b64(made.certificate)},
        "change_key": key_change(client, AccountKey()),
        "finalize": {"csr": b64(csr)},
        "challenge": {},
    }
    yield made
    acme.close()


def key_change(client: Client, new: AccountKey, **changes: Any) -> dict[str, Any]:
    """The payload of a key change (7.3.5): the inner JWS."""
    url = client.url("key-change")
    header = {"alg": new.kind, "jwk": new.jwk, "url": url, **changes.get("header", {})}
    payload = {"account": client.kid, "oldKey": client.key.jwk, **changes.get("payload", {})}
    payload = {name: value for name, value in payload.items() if value is not None}
    header = {name: value for name, value in header.items() if value is not None}
    return jws(changes.get("key", new), header, json.dumps(payload).encode())


# ---- The matrix -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spoiled:
    """One way to spoil a request, and what is said to it."""

    words: str
    kind: str
    status: int = 400
    header: Change | None = None
    body: Callable[[Client, dict[str, Any]], Any] | None = None
    raw: Callable[[bytes], bytes] | None = None
    content_type: str = "application/jose+json"
    key: Callable[[Shop], AccountKey] | None = None
    skip: frozenset[str] = frozenset()
    """Addresses for which this is no fault."""


def _with(**members: Any) -> Change:
    return lambda _, header: {**header, **members}


def _without(*names: str) -> Change:
    return lambda _, header: {name: value for name, value in header.items() if name not in names}


def _other_way(client: Client, header: dict[str, Any]) -> dict[str, Any]:
    """jwk where kid belongs, kid where jwk belongs."""
    if "jwk" in header:
        return {**_without("jwk")(client, header), "kid": client.kid}
    return {**_without("kid")(client, header), "jwk": client.key.jwk}


def _mac_with_public_key(client: Client, document: dict[str, Any]) -> dict[str, Any]:
    said = f"{document['protected']}.{document['payload']}".encode()
    secret = json.dumps(client.key.jwk, sort_keys=True, separators=(",", ":")).encode()
    return {**document, "signature": b64(hmac.new(secret, said, hashlib.sha256).digest())}


def _der_signature(client: Client, document: dict[str, Any]) -> dict[str, Any]:
    raw = base64.urlsafe_b64decode(document["signature"] + "==")
    return {**document, "signature": b64(utils.encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")))}


def _last_bit(text: str) -> str:
    octets = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return b64(octets[:-1] + bytes([octets[-1] ^ 1]))


def _loose_bits(text: str) -> str:
    """Another spelling of the same octets (RFC 4648 3.5): 64 octets leave four bits over."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1]


def _used(client: Client, header: dict[str, Any]) -> dict[str, Any]:
    client.acme.nonces.use(header["nonce"])
    return header


def _old(client: Client, header: dict[str, Any]) -> dict[str, Any]:
    clock = client.acme.world.clock
    clock.at -= 3700
    nonce = client.nonce()
    clock.at += 3700
    return {**header, "nonce": nonce}


def _forged(client: Client, header: dict[str, Any]) -> dict[str, Any]:
    return {**header, "nonce": _last_bit(header["nonce"])}


BY_KEY = frozenset({"new_account"})
EITHER = frozenset({"revoke"})

SPOILED = [
    Spoiled("6.2: no unprotected header", "malformed", body=lambda _, d: {**d, "header": {"kid": "x"}}),
    Spoiled("6.2: not several signatures", "malformed", body=lambda _, d: {**d, "signatures": [{"signature": d["signature"]}]}),
    Spoiled("6.2: the general serialization", "malformed", body=lambda _, d: {"payload": d["payload"], "signatures": [d]}),
    Spoiled("6.2: a member that no flattened JWS has", "malformed", body=lambda _, d: {**d, "more": 1}),
    Spoiled("6.2: no signature", "malformed", body=lambda _, d: {k: v for k, v in d.items() if k != "signature"}),
    Spoiled("6.2: no payload", "malformed", body=lambda _, d: {k: v for k, v in d.items() if k != "payload"}),
    Spoiled("6.2: no protected header", "malformed", body=lambda _, d: {k: v for k, v in d.items() if k != "protected"}),
    Spoiled("6.2: the compact serialization", "malformed", raw=lambda o: ".".join(json.loads(o).values()).encode()),
    Spoiled("6.2: alg none", "badSignatureAlgorithm", header=_with(alg="none")),
    Spoiled(
        "6.2: alg none and an empty signature", "badSignatureAlgorithm", header=_with(alg="none"), body=lambda _, d: {**d, "signature": ""}
    ),
    Spoiled("6.2: a MAC", "badSignatureAlgorithm", header=_with(alg="HS256"), body=_mac_with_public_key),
    Spoiled("6.2: alg is missing", "badSignatureAlgorithm", header=_without("alg")),
    Spoiled("6.2: alg is no text", "badSignatureAlgorithm", header=_with(alg=["ES256"])),
    Spoiled("6.2: alg in lower case (RFC 7515 4.1.1)", "badSignatureAlgorithm", header=_with(alg="es256")),
    Spoiled("6.2: RS256 by an EC key", "badSignatureAlgorithm", header=_with(alg="RS256")),
    Spoiled("6.2: ES384 by a key of P-256 (RFC 7518 3.4)", "badSignatureAlgorithm", header=_with(alg="ES384")),
    Spoiled("6.2: EdDSA by an EC key", "badSignatureAlgorithm", header=_with(alg="EdDSA")),
    Spoiled("6.2: an algorithm nobody knows", "badSignatureAlgorithm", header=_with(alg="ES256K")),
    Spoiled("6.2: crit (RFC 7515 4.1.11)", "malformed", header=_with(crit=["exp"], exp=1)),
    Spoiled("6.2: b64 false (RFC 7797)", "malformed", header=_with(b64=False)),
    Spoiled("6.2: jwk and kid", "malformed", header=lambda c, h: {**h, "jwk": c.key.jwk, "kid": c.kid}),
    Spoiled("6.2: neither jwk nor kid", "malformed", header=_without("jwk", "kid")),
    Spoiled("6.2: jwk where kid belongs, or the other way round", "malformed", header=_other_way, skip=EITHER),
    Spoiled("6.2: kid is no text", "malformed", header=lambda c, h: {**_without("jwk")(c, h), "kid": 7}),
    Spoiled("6.2: jwk is no object", "malformed", header=lambda c, h: {**_without("kid")(c, h), "jwk": "key"}),
    Spoiled(
        "6.2: kid of an account that is not",
        "accountDoesNotExist",
        header=lambda c, h: {**h, "kid": c.url("account", "0" * 32)},
        skip=BY_KEY,
    ),
    Spoiled(
        "6.2: kid is no address of ours", "accountDoesNotExist", header=lambda c, h: {**h, "kid": str(c.kid).rsplit("/", 1)[1]}, skip=BY_KEY
    ),
    Spoiled(
        "6.2: kid on another host",
        "accountDoesNotExist",
        header=lambda c, h: {**h, "kid": str(c.kid).replace("enroll.test", "evil.test")},
        skip=BY_KEY,
    ),
    Spoiled("6.2: kid with something behind it", "accountDoesNotExist", header=lambda c, h: {**h, "kid": f"{c.kid}/"}, skip=BY_KEY),
    Spoiled("6.2: another account's key behind this kid", "malformed", key=lambda s: s.other.key, skip=BY_KEY | EITHER),
    Spoiled("6.2: a key that is nobody's", "malformed", key=lambda _: AccountKey()),
    Spoiled("6.2: the last bit of the signature", "malformed", body=lambda _, d: {**d, "signature": _last_bit(d["signature"])}),
    Spoiled("6.2: no signature at all", "malformed", body=lambda _, d: {**d, "signature": ""}),
    Spoiled("6.2: a signature in DER (RFC 7518 3.4)", "malformed", body=_der_signature),
    Spoiled("6.2: a signature of zeros", "malformed", body=lambda _, d: {**d, "signature": b64(bytes(64))}),
    Spoiled("6.2: another payload than was signed", "malformed", body=lambda _, d: {**d, "payload": b64(b'{"x":1}')}),
    Spoiled(
        "6.2: another header than was signed",
        "malformed",
        body=lambda _, d: {**d, "protected": b64(base64.urlsafe_b64decode(d["protected"] + "==").replace(b"}", b" }", 1))},
    ),
    Spoiled("6.2: application/json", "malformed", 415, content_type="application/json"),
    Spoiled("6.2: no type", "malformed", 415, content_type=""),
    Spoiled("6.2: a type of another JOSE", "malformed", 415, content_type="application/jose"),
    Spoiled("6.2: no JSON", "malformed", raw=lambda _: b"hello"),
    Spoiled("6.2: nothing", "malformed", raw=lambda _: b""),
    Spoiled("6.2: a JSON array", "malformed", raw=lambda o: b"[" + o + b"]"),
    Spoiled("6.2: not UTF-8", "malformed", raw=lambda o: o[:-1] + b"\xff}"),
    Spoiled("6.2: deeply nested", "malformed", raw=lambda _: b'{"protected":' + b"[" * 20000 + b"]" * 20000 + b"}"),
    Spoiled("6.2: a member twice (RFC 7515 4)", "malformed", raw=lambda o: o[:-1] + b', "payload": ""}'),
    Spoiled(
        "6.2: a header parameter twice (RFC 7515 4)",
        "malformed",
        body=lambda c, d: {**d, "protected": b64(base64.urlsafe_b64decode(d["protected"] + "==")[:-1] + b', "alg": "ES256"}')},
    ),
    Spoiled("6.2: the header is no JSON", "malformed", body=lambda _, d: {**d, "protected": b64(b"hello")}),
    Spoiled("6.2: the header is no object", "malformed", body=lambda _, d: {**d, "protected": b64(b"[]")}),
    Spoiled("6.1: padding in the header", "malformed", body=lambda _, d: {**d, "protected": d["protected"] + "="}),
    Spoiled("6.1: padding in the signature", "malformed", body=lambda _, d: {**d, "signature": d["signature"] + "=="}),
    Spoiled("6.1: the other base64", "malformed", body=lambda _, d: {**d, "signature": "+/" + d["signature"][2:]}),
    Spoiled("6.1: loose bits (RFC 4648 3.5)", "malformed", body=lambda _, d: {**d, "signature": _loose_bits(d["signature"])}),
    Spoiled("6.1: white space", "malformed", body=lambda _, d: {**d, "signature": d["signature"] + "\n"}),
    Spoiled("6.1: the payload is no text", "malformed", body=lambda _, d: {**d, "payload": {}}),
    Spoiled("6.4: no url", "malformed", header=_without("url")),
    Spoiled("6.4: url is no text", "malformed", header=_with(url=7)),
    Spoiled("6.4: url of another resource", "unauthorized", 403, header=lambda c, h: {**h, "url": c.url("new-nonce")}),
    Spoiled("6.4: url with a slash behind it", "unauthorized", 403, header=lambda _, h: {**h, "url": h["url"] + "/"}),
    Spoiled("6.4: url with a query", "unauthorized", 403, header=lambda _, h: {**h, "url": h["url"] + "?x"}),
    Spoiled(
        "6.4: url of another host", "unauthorized", 403, header=lambda _, h: {**h, "url": h["url"].replace("enroll.test", "evil.test")}
    ),
    Spoiled("6.4: url without TLS", "unauthorized", 403, header=lambda _, h: {**h, "url": h["url"].replace("https", "http")}),
    Spoiled("6.4: url in capitals", "unauthorized", 403, header=lambda _, h: {**h, "url": h["url"].upper()}),
    Spoiled("6.5: no nonce", "badNonce", header=_without("nonce")),
    Spoiled("6.5: a nonce that was used", "badNonce", header=_used),
    Spoiled("6.5: a nonce of somebody else's making", "badNonce", header=_with(nonce=b64(bytes(39)))),
    Spoiled("6.5: a nonce with a bit changed", "badNonce", header=_forged),
    Spoiled("6.5: a nonce cut short", "badNonce", header=lambda _, h: {**h, "nonce": h["nonce"][:8]}),
    Spoiled("6.5: an empty nonce", "badNonce", header=_with(nonce="")),
    Spoiled("6.5: a nonce too old", "badNonce", header=_old),
    Spoiled("6.5.2: a nonce that is no base64url", "malformed", header=_with(nonce="a+b/c=")),
    Spoiled("6.5.2: a nonce that is no text", "malformed", header=_with(nonce=7)),
]

ADDRESSES = [route for route in ROUTES if route.method == "POST"]


def ask(shop: Shop, name: str, spoiled: Spoiled | None) -> TestResponse:
    client, url = shop.client, shop.urls[name]
    payload = shop.payloads.get(name)
    by_key = name in BY_KEY
    if spoiled is None:
        return client.post(url, payload, by_key=by_key)
    key = spoiled.key(shop) if spoiled.key else None
    header = None if spoiled.header is None else lambda h: spoiled.header(client, h)  # type: ignore[misc]
    body = None if spoiled.body is None else lambda d: spoiled.body(client, d)  # type: ignore[misc]
    raw = None
    if spoiled.raw is not None:
        document = jws(client.key, client.header(url, by_key=by_key), b"" if payload is None else json.dumps(payload).encode())
        raw = spoiled.raw(json.dumps(document).encode())
    return client.post(url, payload, by_key=by_key, key=key, header=header, body=body, raw=raw, content_type=spoiled.content_type)


MATRIX = [
    pytest.param(route.name, spoiled, id=f"{route.name}: {spoiled.words}")
    for route in ADDRESSES
    for spoiled in SPOILED
    if route.name not in spoiled.skip
]


@pytest.mark.parametrize(("name", "spoiled"), MATRIX)
def test_R19_every_address_refuses_a_spoiled_request(shop: Shop, name: str, spoiled: Spoiled) -> None:
    answer = ask(shop, name, spoiled)
    assert (answer.status_code, answer.json["type"].rsplit(":", 1)[1]) == (spoiled.status, spoiled.kind), answer.text
    assert answer.mimetype == "application/problem+json" and answer.json["status"] == answer.status_code
    assert answer.headers["Replay-Nonce"], "6.5: an error answer lets the client go on"
    if spoiled.kind == "badSignatureAlgorithm":
        assert "ES256" in answer.json["algorithms"], "6.2: the answer says what would be taken"


@pytest.mark.parametrize("name", [route.name for route in ADDRESSES if route.name not in {"revoke", "change_key"}])
def test_the_same_requests_unspoiled_are_taken(shop: Shop, name: str) -> None:
    answer = ask(shop, name, None)
    assert answer.status_code in {200, 201}, answer.text
    assert answer.headers["Replay-Nonce"] and 'rel="index"' in "".join(answer.headers.getlist("Link"))


@pytest.mark.parametrize("name", [route.name for route in ADDRESSES])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_6_3_resources_are_asked_by_POST_only(shop: Shop, name: str, method: str) -> None:
    answer = shop.acme.http.open(shop.urls[name].removeprefix(BASE), method=method, base_url=BASE)
    assert answer.status_code == 405 and "POST" in answer.headers["Allow"]


@pytest.mark.parametrize("name", [route.name for route in ADDRESSES])
def test_6_2_too_much_and_coded_bodies_are_refused(shop: Shop, name: str) -> None:
    url = shop.urls[name].removeprefix(BASE)
    much = shop.acme.http.post(url, data=b"{" + b" " * 65536, content_type="application/jose+json", base_url=BASE)
    assert much.status_code == 413
    coded = shop.acme.http.post(
        url, data=gzip.compress(b"{}"), content_type="application/jose+json", headers={"Content-Encoding": "gzip"}, base_url=BASE
    )
    assert coded.status_code == 415


@pytest.mark.parametrize("name", ["account_orders", "order", "certificate", "certificate_with_root"])
@pytest.mark.parametrize("payload", [{}, b"null", b'""', {"status": "deactivated"}, b"[]"], ids=str)
def test_6_3_reading_has_an_empty_payload(shop: Shop, name: str, payload: Any) -> None:
    answer = shop.client.post(shop.urls[name], payload)
    assert answer.status_code == 400 and answer.json["type"].endswith(":malformed")


# ---- One account and another (R19) ----------------------------------------------------------------------------------

OWNED = ["account", "account_orders", "order", "finalize", "authorization", "challenge", "certificate", "certificate_with_root"]


@pytest.mark.parametrize("name", OWNED)
def test_R19_what_is_anothers_is_not_there(shop: Shop, name: str) -> None:
    answer = shop.other.post(shop.urls[name], shop.payloads.get(name))
    assert answer.status_code in {403, 404}, answer.text


@pytest.mark.parametrize("name", [*OWNED, "new_order", "change_key", "revoke"])
def test_R19_an_account_of_another_directory_is_none_here(shop: Shop, name: str) -> None:
    answer = shop.elsewhere.post(shop.urls[name], shop.payloads.get(name))
    assert answer.json["type"].endswith(":accountDoesNotExist")


@pytest.mark.parametrize("name", [*OWNED, "new_order", "change_key", "revoke"])
def test_R19_an_account_of_another_directory_is_none_here_by_an_address_of_this_one_either(shop: Shop, name: str) -> None:
    client = Client(shop.acme, key=shop.elsewhere.key)
    client.kid = str(shop.elsewhere.kid).replace("/gateway/", "/service/")
    answer = client.post(shop.urls[name], shop.payloads.get(name))
    assert answer.json["type"].endswith(":accountDoesNotExist")


@pytest.mark.parametrize("name", OWNED)
def test_R19_the_same_resource_is_not_there_under_another_directory(shop: Shop, name: str) -> None:
    url = shop.urls[name].replace("/service/", "/gateway/")
    answer = shop.elsewhere.post(url, shop.payloads.get(name))
    assert answer.status_code in {403, 404}, answer.text


@pytest.mark.parametrize("name", OWNED)
@pytest.mark.parametrize("id_", ["0" * 32, "..", "%2e%2e", "x" * 64, "0", "%00"])
def test_unknown_ids_are_not_there(shop: Shop, name: str, id_: str) -> None:
    parts = shop.urls[name].split("/")
    parts[6] = id_
    answer = shop.client.post("/".join(parts), shop.payloads.get(name))
    assert answer.status_code in {403, 404}, answer.text


@pytest.mark.parametrize("directory", ["nonsense", "Service", "service ", "%73ervice2"])
def test_7_1_1_an_unknown_directory_is_not_there(shop: Shop, directory: str) -> None:
    for path in ("directory", "new-nonce", "renewal-info/a.b"):
        assert shop.acme.http.get(f"/acme/{directory}/{path}", base_url=BASE).status_code == 404


# ---- Each resource for its own reasons ------------------------------------------------------------------------------

Refusal = tuple[str, Callable[[Shop], TestResponse], int, str]


def _register(payload: Any, key: AccountKey | None = None) -> Callable[[Shop], TestResponse]:
    def act(shop: Shop) -> TestResponse:
        client = Client(shop.acme, key=key)
        return client.post(client.url("new-account"), payload, by_key=True)

    return act


def _jwk(**changes: Any) -> Callable[[Shop], TestResponse]:
    """A new account whose jwk is spoiled."""

    def act(shop: Shop) -> TestResponse:
        client = Client(shop.acme, key=changes.get("key"))
        wanted = {**client.key.jwk, **changes.get("members", {})}
        wanted = {name: value for name, value in wanted.items() if value is not None}
        return client.post(client.url("new-account"), {}, by_key=True, header=lambda h: {**h, "jwk": wanted})

    return act


def _from_the_record(client: Client, token: str) -> dict[str, Any]:
    kept = token_rule.token_hash(token)
    return {"externalAccountBinding": client.binding(token, mac_key=token_rule.binding_key(kept, b""))}


def _bound(
    payload: Callable[[Client, str], Any], *, profile: str = "service", key: AccountKey | None = None
) -> Callable[[Shop], TestResponse]:
    def act(shop: Shop) -> TestResponse:
        client = Client(shop.acme, "gateway", key=key)
        text = shop.acme.token(
            f"gw-{b64(hashlib.sha256(str(id(client)).encode()).digest())[:8].replace('_', 'a').replace('-', 'b').lower()}", profile
        )
        return client.post(client.url("new-account"), payload(client, text), by_key=True)

    return act


def _eab(**changes: Any) -> Callable[[Client, str], Any]:
    return lambda client, text: {"externalAccountBinding": client.binding(text, **changes)}


def _order(payload: Any) -> Callable[[Shop], TestResponse]:
    return lambda shop: shop.client.post(shop.urls["new_order"], payload)


def _dns(*values: str, **more: Any) -> Callable[[Shop], TestResponse]:
    return _order({"identifiers": [{"type": "dns", "value": value} for value in values], **more})


def _ip(value: str) -> Callable[[Shop], TestResponse]:
    return _order({"identifiers": [{"type": "ip", "value": value}]})


def _finalize(csr: Callable[[], Any], *names: str) -> Callable[[Shop], TestResponse]:
    def act(shop: Shop) -> TestResponse:
        order = shop.client.order(*(names or ("gw-1.device.test",)))
        shop.client.prove(order)
        made = csr()
        answer = shop.client.post(order.json["finalize"], {"csr": b64(made)} if isinstance(made, bytes) else made)
        assert shop.client.post(order.headers["Location"]).json["status"] == "ready", "7.4: another CSR may still finalize it"
        return answer

    return act


def _weak() -> bytes:
    from cryptography.hazmat.primitives.asymmetric import rsa

    return csr_for("gw-1.device.test", private=rsa.generate_private_key(65537, 2048))


def _odd_curve() -> bytes:
    return csr_for("gw-1.device.test", private=ec.generate_private_key(ec.SECP521R1()))


def _broken_proof() -> bytes:
    der = csr_for("gw-1.device.test")
    return der[:-1] + bytes([der[-1] ^ 1])


def _account_key(shop: Shop) -> TestResponse:
    order = shop.client.order("gw-1.device.test")
    shop.client.prove(order)
    return shop.client.finalize(order, csr_for("gw-1.device.test", private=shop.client.key.private))


def _key_of_another(shop: Shop) -> TestResponse:
    private, other = make_private_key(AlgorithmName("p256")), Client(shop.acme)
    other.register()
    other.obtain("gw-1.device.test", private=private)
    order = shop.client.order("gw-1.device.test")
    return shop.client.finalize(order, csr_for("gw-1.device.test", private=private))


def _not_ready(shop: Shop) -> TestResponse:
    client = Client(shop.acme)
    client.register()
    return client.finalize(client.order("gw-3.device.test"), csr_for("gw-3.device.test"))


def _finalized(shop: Shop) -> TestResponse:
    return shop.client.post(shop.urls["finalize"], {"csr": b64(csr_for("gw-1.device.test"))})


def _failed(shop: Shop) -> TestResponse:
    from enroll.acme.model import Problem

    client = Client(shop.acme)
    client.register()
    order = client.order("gw-4.device.test")
    shop.acme.prober.problem = Problem("connection", "Nobody is there.")
    try:
        client.prove(order)
    finally:
        shop.acme.prober.problem = None
    shown = client.post(order.headers["Location"]).json
    assert shown["status"] == "invalid" and shown["error"]["type"].endswith(":connection")
    return client.finalize(order, csr_for("gw-4.device.test"))


def _over(shop: Shop) -> TestResponse:
    client = Client(shop.acme)
    client.register()
    order = client.order("gw-4.device.test")
    shop.acme.world.clock.at += 86400
    assert client.post(order.headers["Location"]).json["status"] == "invalid"
    return client.finalize(order, csr_for("gw-4.device.test"))


def _deactivated(shop: Shop) -> TestResponse:
    client = Client(shop.acme)
    client.register()
    order = client.order("gw-4.device.test")
    client.prove(order)
    assert client.post(order.json["authorizations"][0], {"status": "deactivated"}).json["status"] == "deactivated"
    assert client.order("gw-4.device.test").json["status"] == "pending", "7.5.2: what was given up is shown anew"
    return client.finalize(order, csr_for("gw-4.device.test"))


def _change(**changes: Any) -> Callable[[Shop], TestResponse]:
    def act(shop: Shop) -> TestResponse:
        given = {name: value(shop) if callable(value) else value for name, value in changes.items()}
        new = given.pop("new", None) or AccountKey()
        return shop.client.post(shop.urls["change_key"], key_change(shop.client, new, **given))

    return act


def _revoke(payload: Callable[[Shop], Any], *, by: str = "client", by_key: bool = False) -> Callable[[Shop], TestResponse]:
    return lambda shop: getattr(shop, by).post(getattr(shop, by).url("revoke-cert"), payload(shop), by_key=by_key)


def _replaces(text: Callable[[Shop], Any], *names: str) -> Callable[[Shop], TestResponse]:
    return lambda shop: shop.client.order(*(names or ("gw-1.device.test",)), replaces=text(shop))


def _certificate_id(shop: Shop) -> str:
    found = x509.load_der_x509_certificate(shop.certificate)
    return write_id(shop.acme.world.issuer.key_identifier, found.serial_number)  # type: ignore[arg-type]


def _foreign(shop: Shop) -> str:
    found = shop.other.certificate(shop.other.obtain("gw-1.device.test"))
    return write_id(shop.acme.world.issuer.key_identifier, found.serial_number)  # type: ignore[arg-type]


def _info(text: Callable[[Shop], str]) -> Callable[[Shop], TestResponse]:
    return lambda shop: shop.acme.http.get(f"/acme/service/renewal-info/{text(shop)}", base_url=BASE)


def _named(
    token: bytes = b"", *, extra: Any = (), common: str | None = None, names: tuple[str, ...] = ("gw-1.device.test",)
) -> Callable[[], bytes]:
    return lambda: csr_for(*names, common_name=common, extra=extra) + token


PRIVATE = AccountKey()
REFUSED: list[Refusal] = [
    # 7.3 new accounts
    ("7.3: contact is no list", _register({"contact": "mailto:a@b.test"}), 400, "malformed"),
    ("7.3: contact holds no text", _register({"contact": [7]}), 400, "malformed"),
    ("7.3: nine contacts", _register({"contact": ["mailto:a@b.test"] * 9}), 400, "malformed"),
    ("7.3: a telephone", _register({"contact": ["tel:+123"]}), 400, "unsupportedContact"),
    ("7.3: no scheme", _register({"contact": ["a@b.test"]}), 400, "unsupportedContact"),
    ("7.3: mailto with header fields", _register({"contact": ["mailto:a@b.test?subject=x"]}), 400, "invalidContact"),
    ("7.3: mailto with two mailboxes", _register({"contact": ["mailto:a@b.test,c@d.test"]}), 400, "invalidContact"),
    ("7.3: mailto with none", _register({"contact": ["mailto:"]}), 400, "invalidContact"),
    ("7.3: mailto with a line break", _register({"contact": ["mailto:a@b.test\r\nBcc: x"]}), 400, "invalidContact"),
    ("7.3: termsOfServiceAgreed is no truth", _register({"termsOfServiceAgreed": "yes"}), 400, "malformed"),
    ("7.3: the payload is no object", _register(b"[]"), 400, "malformed"),
    ("7.3: the payload is empty", _register(None), 400, "malformed"),
    ("7.3: the payload holds a member twice", _register(b'{"contact":[],"contact":[]}'), 400, "malformed"),
    ("7.3: the payload holds no number of JSON", _register(b'{"contact":NaN}'), 400, "malformed"),
    ("7.3.1: onlyReturnExisting and no account", _register({"onlyReturnExisting": True}), 400, "accountDoesNotExist"),
    ("7.3.1: onlyReturnExisting is no truth", _register({"onlyReturnExisting": 1}), 400, "malformed"),
    # 6.2, RFC 7517, RFC 7518: keys
    ("RFC 7517 4.1: kty nobody knows", _jwk(members={"kty": "XX"}), 400, "badPublicKey"),
    ("RFC 7517 4.1: kty is missing", _jwk(members={"kty": None}), 400, "badPublicKey"),
    ("RFC 7518 6.4: a symmetric key", _jwk(members={"kty": "oct", "k": "AAAA"}), 400, "badPublicKey"),
    ("RFC 7517 9.2: a private member", _jwk(members={"d": "AAAA"}), 400, "badPublicKey"),
    ("RFC 7518 6.2.1: no y", _jwk(members={"y": None}), 400, "malformed"),
    ("RFC 7518 6.2.1: x is a number", _jwk(members={"x": 7}), 400, "malformed"),
    ("RFC 7518 6.2.1.2: x is short", _jwk(members={"x": "AAAA"}), 400, "badPublicKey"),
    ("RFC 7518 6.2.1.2: x is long", _jwk(members={"x": b64(bytes(33))}), 400, "badPublicKey"),
    ("RFC 7518 6.2.1: a point off its curve", _jwk(members={"x": b64(bytes(32))}), 400, "badPublicKey"),
    ("RFC 7518 6.2.1.1: a curve nobody takes", _jwk(members={"crv": "secp256k1"}), 400, "badPublicKey"),
    ("RFC 7518 6.2.1: x in the other base64", _jwk(members={"x": "+" * 43}), 400, "malformed"),
    ("RFC 8037 2: X25519", _jwk(key=AccountKey("EdDSA"), members={"crv": "X25519"}), 400, "badPublicKey"),
    ("RFC 8037 2: an Ed25519 point cut short", _jwk(key=AccountKey("EdDSA"), members={"x": b64(bytes(31))}), 400, "badPublicKey"),
    ("RFC 7518 6.3.1: an RSA exponent of 1", _jwk(key=AccountKey("RS256"), members={"e": "AQ"}), 400, "badPublicKey"),
    ("RFC 7518 6.3.1: an RSA exponent of 3", _jwk(key=AccountKey("RS256"), members={"e": "Aw"}), 400, "badPublicKey"),
    ("RFC 7518 6.3.1: an even RSA exponent", _jwk(key=AccountKey("RS256"), members={"e": "AQAA"}), 400, "badPublicKey"),
    ("RFC 7518 3.3: RSA of 1024 bits", _jwk(key=AccountKey("RS256"), members={"n": b64(b"\xff" * 128)}), 400, "badPublicKey"),
    ("RFC 7518 3.3: RSA of 16384 bits", _jwk(key=AccountKey("RS256"), members={"n": b64(b"\xff" * 2048)}), 400, "badPublicKey"),
    ("RFC 7518 6.3.1: an even modulus", _jwk(key=AccountKey("RS256"), members={"n": b64(b"\xff" * 255 + b"\xfe")}), 400, "badPublicKey"),
    ("RFC 7518 2: a modulus that begins with zero", _jwk(key=AccountKey("RS256"), members={"n": b64(b"\0" + b"\xff" * 256)}), 400, "badPublicKey"),
    # 7.3.4 external account binding
    ("7.3.4: none", _bound(lambda *_: {}), 403, "externalAccountRequired"),
    ("7.3.4: it is no object", _bound(lambda *_: {"externalAccountBinding": "x"}), 400, "malformed"),
    ("7.3.4: it is null", _bound(lambda *_: {"externalAccountBinding": None}), 400, "malformed"),
    ("7.3.4: signed and not MACed", _bound(_eab(alg="ES256")), 400, "badSignatureAlgorithm"),
    ("7.3.4: alg none", _bound(_eab(alg="none")), 400, "badSignatureAlgorithm"),
    ("7.3.4: it has a nonce", _bound(_eab(header={"nonce": "AAAA"})), 400, "malformed"),
    ("7.3.4: it has no kid", _bound(_eab(header={"kid": None})), 400, "malformed"),
    ("7.3.4: it has jwk beside kid", _bound(_eab(header={"jwk": PRIVATE.jwk})), 400, "malformed"),
    ("7.3.4: it has jwk in place of kid", _bound(_eab(header={"jwk": PRIVATE.jwk, "kid": None})), 400, "malformed"),
    ("7.3.4: it has another url", _bound(_eab(header={"url": f"{BASE}/acme/service/new-account"})), 400, "malformed"),
    ("7.3.4: it has no url", _bound(_eab(header={"url": None})), 400, "malformed"),
    ("7.3.4: it holds another key", _bound(_eab(payload=PRIVATE.jwk)), 400, "malformed"),
    ("7.3.4: it holds no key", _bound(_eab(payload={})), 400, "badPublicKey"),
    ("7.3.4: another MAC key", _bound(_eab(mac_key=bytes(32))), 403, "unauthorized"),
    ("7.3.4: a MAC key that follows from the record alone", _bound(_from_the_record), 403, "unauthorized"),
    ("7.3.4: an empty MAC key", _bound(_eab(mac_key=b"")), 403, "unauthorized"),
    ("7.3.4: a kid nobody knows", _bound(_eab(header={"kid": "00" * 8})), 403, "unauthorized"),
    ("7.3.4: a kid that is none", _bound(_eab(header={"kid": "../../x"})), 403, "unauthorized"),
    ("7.3.4: a kid in capitals", _bound(lambda c, t: {"externalAccountBinding": c.binding(t, header={"kid": c.binding(t)["protected"][:16].upper()})}), 403, "unauthorized"),
    ("7.3.4: a token for another profile", _bound(_eab(), profile="device"), 403, "unauthorized"),
    ("7.3.4: crit", _bound(_eab(header={"crit": ["x"]})), 400, "malformed"),
    # 7.3.2, 7.3.6 changes of accounts
    ("7.3.2: contact is no list", lambda s: s.client.post(str(s.client.kid), {"contact": "x"}), 400, "malformed"),
    ("7.3.2: a contact that is none", lambda s: s.client.post(str(s.client.kid), {"contact": ["mailto:x"]}), 400, "invalidContact"),
    ("7.3.2: the payload is no object", lambda s: s.client.post(str(s.client.kid), b"7"), 400, "malformed"),
    # 7.3.5 key change
    ("7.3.5: the inner JWS is signed by another key", _change(key=lambda _: AccountKey()), 400, "malformed"),
    ("7.3.5: the inner JWS names its key by kid", _change(header={"jwk": None, "kid": "x"}), 400, "malformed"),
    ("7.3.5: the inner JWS has a nonce", _change(header={"nonce": "AAAA"}), 400, "malformed"),
    ("7.3.5: inner and outer url differ", _change(header={"url": f"{BASE}/acme/service/new-order"}), 400, "malformed"),
    ("7.3.5: the inner JWS has no url", _change(header={"url": None}), 400, "malformed"),
    ("7.3.5: the inner alg is none", _change(header={"alg": "none"}), 400, "badSignatureAlgorithm"),
    ("7.3.5: the inner alg is a MAC", _change(header={"alg": "HS256"}), 400, "badSignatureAlgorithm"),
    ("7.3.5: another account", _change(payload=lambda s: {"account": s.other.kid}), 400, "malformed"),
    ("7.3.5: no account", _change(payload={"account": None}), 400, "malformed"),
    ("7.3.5: another old key", _change(payload=lambda _: {"oldKey": AccountKey().jwk}), 400, "malformed"),
    ("7.3.5: no old key", _change(payload={"oldKey": None}), 400, "malformed"),
    ("7.3.5: the old key is no key", _change(payload={"oldKey": {"kty": "oct"}}), 400, "badPublicKey"),
    ("7.3.5: the new key has an account", _change(new=lambda s: s.other.key), 409, "conflict"),
    ("7.3.5: the new key is the old one", _change(new=lambda s: s.client.key), 409, "conflict"),
    ("7.3.5: the payload is no JWS", lambda s: s.client.post(s.urls["change_key"], {}), 400, "malformed"),
    ("7.3.5: the inner header is unprotected", lambda s: s.client.post(s.urls["change_key"], {**key_change(s.client, AccountKey()), "header": {}}), 400, "malformed"),
    # 7.4 new orders
    ("7.4: no identifiers", _order({}), 400, "malformed"),
    ("7.4: identifiers are none", _order({"identifiers": []}), 400, "malformed"),
    ("7.4: identifiers are no list", _order({"identifiers": {"type": "dns"}}), 400, "malformed"),
    ("7.4: an identifier is no object", _order({"identifiers": ["gw-1.device.test"]}), 400, "malformed"),
    ("7.4: an identifier has no type", _order({"identifiers": [{"value": "gw-1.device.test"}]}), 400, "malformed"),
    ("7.4: an identifier has no value", _order({"identifiers": [{"type": "dns"}]}), 400, "malformed"),
    ("7.4: a value is a number", _order({"identifiers": [{"type": "dns", "value": 7}]}), 400, "malformed"),
    ("6.7: a type nobody knows", _order({"identifiers": [{"type": "email", "value": "a@b.test"}]}), 400, "unsupportedIdentifier"),
    ("7.4: one identifier twice", _dns("gw-1.device.test", "gw-1.device.test"), 400, "malformed"),
    ("7.4: one identifier twice in other letters", _dns("gw-1.device.test", "GW-1.device.test"), 400, "malformed"),
    ("7.4: 33 identifiers", _dns(*(f"gw-{n}.device.test" for n in range(33))), 400, "malformed"),
    ("7.4: notBefore", _dns("gw-1.device.test", notBefore="2030-01-01T00:00:00Z"), 400, "malformed"),
    ("7.4: notAfter", _dns("gw-1.device.test", notAfter="2030-01-01T00:00:00Z"), 400, "malformed"),
    ("profiles: another profile", _dns("gw-1.device.test", profile="device"), 400, "invalidProfile"),
    ("profiles: a profile nobody knows", _dns("gw-1.device.test", profile="x"), 400, "invalidProfile"),
    ("profiles: a profile that is no text", _dns("gw-1.device.test", profile=7), 400, "invalidProfile"),
    ("7.4: a name outside of the settings", _dns("www.example.org"), 400, "rejectedIdentifier"),
    ("7.4: the name above those of the settings", _dns("device.test"), 400, "rejectedIdentifier"),
    ("7.4: a name that only ends alike", _dns("evildevice.test"), 400, "rejectedIdentifier"),
    ("7.4: a name with the settings' in front", _dns("device.test.example.org"), 400, "rejectedIdentifier"),
    ("7.1.4: a U-label", _dns("gw-ü.device.test"), 400, "malformed"),
    ("7.1.4: a dot at the end", _dns("gw-1.device.test."), 400, "malformed"),
    ("7.1.4: an empty label", _dns("gw-1..device.test"), 400, "malformed"),
    ("7.1.4: an underscore", _dns("gw_1.device.test"), 400, "malformed"),
    ("7.1.4: a space", _dns("gw 1.device.test"), 400, "malformed"),
    ("7.1.4: a null octet", _dns("gw-1.device.test\x00.example"), 400, "malformed"),
    ("7.1.4: a path", _dns("gw-1.device.test/x"), 400, "malformed"),
    ("7.1.4: a port", _dns("gw-1.device.test:443"), 400, "malformed"),
    ("7.1.4: a label of 64", _dns("a" * 64 + ".device.test"), 400, "malformed"),
    ("7.1.4: a name of 300", _dns(("a" * 60 + ".") * 5 + "device.test"), 400, "malformed"),
    ("7.1.4: nothing", _dns(""), 400, "malformed"),
    ("7.1.4: a hyphen in front", _dns("-gw.device.test"), 400, "malformed"),
    ("7.1.3: a wildcard: certificates carry none", _dns("*.gw.device.test"), 400, "rejectedIdentifier"),
    ("7.1.3: two wildcards", _dns("*.*.device.test"), 400, "malformed"),
    ("7.1.3: a wildcard inside", _dns("gw.*.device.test"), 400, "malformed"),
    ("RFC 8738 3: an address as a name", _dns("127.0.0.1"), 400, "malformed"),
    ("RFC 8738 3: an IPv6 address as a name", _dns("::1"), 400, "malformed"),
    ("RFC 8738 3: a name as an address", _ip("gw-1.device.test"), 400, "malformed"),
    ("RFC 8738 3: an address outside of the settings", _ip("192.0.2.1"), 400, "rejectedIdentifier"),
    ("RFC 8738 3: another address outside of the settings", _ip("10.0.0.1"), 400, "rejectedIdentifier"),
    ("RFC 8738 3: an IPv4 address in an IPv6 coat", _ip("::ffff:192.0.2.1"), 400, "malformed"),
    ("RFC 8738 3: an address in octal", _ip("0177.0.0.1"), 400, "malformed"),
    ("RFC 8738 3: an address in one number", _ip("2130706433"), 400, "malformed"),
    ("RFC 8738 3: an address cut short", _ip("127.1"), 400, "malformed"),
    ("RFC 8738 3: an IPv6 address at length (RFC 5952)", _ip("0:0:0:0:0:0:0:1"), 400, "malformed"),
    ("RFC 8738 3: an IPv6 address with a zone", _ip("fe80::1%eth0"), 400, "malformed"),
    ("RFC 8738 3: a network", _ip("127.0.0.0/8"), 400, "malformed"),
    ("7.4: the identity of a device from an open account", _order({"identifiers": [{"type": "permanent-identifier", "value": "pump-1"}]}), 400, "rejectedIdentifier"),
    ("7.4: an identity that is none", _order({"identifiers": [{"type": "permanent-identifier", "value": "a/b"}]}), 400, "malformed"),
    # 7.4 finalizing
    ("7.4: the order is pending", _not_ready, 403, "orderNotReady"),
    ("7.4: the order is valid, another CSR", _finalized, 403, "orderNotReady"),
    ("7.4: the order is invalid", _failed, 403, "orderNotReady"),
    ("7.1.6: the order is over", _over, 403, "orderNotReady"),
    ("7.5.2: its authorization was given up", _deactivated, 403, "orderNotReady"),
    ("7.4: no csr", _finalize(dict), 400, "malformed"),
    ("7.4: csr is a number", _finalize(lambda: {"csr": 7}), 400, "malformed"),
    ("7.4: csr with padding", _finalize(lambda: {"csr": "AA=="}), 400, "malformed"),
    ("7.4: csr in PEM", _finalize(lambda: b"-----BEGIN CERTIFICATE REQUEST-----"), 400, "badCSR"),
    ("7.4: csr is nothing", _finalize(lambda: b""), 400, "badCSR"),
    ("7.4: octets behind the CSR", _finalize(_named(b"\0")), 400, "badCSR"),
    ("7.4: the CSR's signature fails", _finalize(_broken_proof), 400, "badCSR"),
    ("7.4: one name more", _finalize(_named(names=("gw-1.device.test", "gw-2.device.test"))), 400, "badCSR"),
    ("7.4: one name less", _finalize(_named(), "gw-1.device.test", "gw-2.device.test"), 400, "badCSR"),
    ("7.4: another name", _finalize(_named(names=("gw-2.device.test",))), 400, "badCSR"),
    ("7.4: no name", _finalize(_named(names=())), 400, "badCSR"),
    ("7.4: another common name", _finalize(_named(common="evil.example")), 400, "badCSR"),
    ("7.4: an address more", _finalize(_named(names=("gw-1.device.test", "127.0.0.1"))), 400, "badCSR"),
    ("7.4: an address that is a name's text", _finalize(lambda: csr_for(extra=[x509.UniformResourceIdentifier("https://gw-1.device.test")])), 400, "badCSR"),
    ("7.4: a mailbox more", _finalize(_named(extra=[x509.RFC822Name("a@gw-1.device.test")])), 400, "badCSR"),
    ("7.4: a wildcard for the name", _finalize(_named(names=("*.device.test",))), 400, "badCSR"),
    ("11.1: the account's key", _account_key, 400, "badCSR"),
    ("P9: the key of another account", _key_of_another, 400, "badCSR"),
    ("7.4: an RSA key of 2048 bits", _finalize(_weak), 400, "badCSR"),
    ("7.4: a key of P-521", _finalize(_odd_curve), 400, "badCSR"),
    # 7.5 authorizations and challenges
    ("7.5.2: a status but deactivated", lambda s: s.client.post(s.urls["authorization"], {"status": "valid"}), 400, "malformed"),
    ("7.5.2: no status", lambda s: s.client.post(s.urls["authorization"], {}), 400, "malformed"),
    ("7.5.1: the payload is no object", lambda s: s.client.post(s.urls["challenge"], b"[]"), 400, "malformed"),
    ("7.5.1: a challenge that is not offered", lambda s: s.client.post(s.urls["challenge"].replace("http-01", "dns-01"), {}), 404, "malformed"),
    ("7.5.1: a challenge nobody knows", lambda s: s.client.post(s.urls["challenge"].replace("http-01", "x"), {}), 404, "malformed"),
    # 7.6 revocation
    ("7.6: no certificate", _revoke(lambda _: {}), 400, "malformed"),
    ("7.6: a certificate that is no text", _revoke(lambda _: {"certificate": 7}), 400, "malformed"),
    ("7.6: a certificate in padded base64url", _revoke(lambda s: {"certificate": b64(s.certificate) + "="}), 400, "malformed"),
    ("7.6: a certificate of nobody", _revoke(lambda _: {"certificate": b64(b"0")}), 404, "malformed"),
    ("7.6: a certificate with a bit changed", _revoke(lambda s: {"certificate": b64(s.certificate[:-1] + bytes([s.certificate[-1] ^ 1]))}), 404, "malformed"),
    ("7.6: the CA's own", _revoke(lambda s: {"certificate": b64(s.acme.world.issuer.certificate)}), 404, "malformed"),
    ("7.6: an account that has no part in it", _revoke(lambda s: {"certificate": b64(Client.certificate(s.client, s.client.obtain("gw-99.device.test")).public_bytes(Encoding.DER))}, by="other"), 403, "unauthorized"),
    ("7.6: a key that is not the certificate's", _revoke(lambda s: {"certificate": b64(s.certificate)}, by_key=True), 403, "unauthorized"),
    ("7.6: reason is text", _revoke(lambda s: {"certificate": b64(s.certificate), "reason": "keyCompromise"}), 400, "malformed"),
    ("7.6: reason is a truth", _revoke(lambda s: {"certificate": b64(s.certificate), "reason": True}), 400, "malformed"),
    *[
        (f"7.6: reason {code}", _revoke(lambda s, code=code: {"certificate": b64(s.certificate), "reason": code}), 400, "badRevocationReason")  # type: ignore[misc]
        for code in (-1, 2, 6, 7, 8, 9, 10, 11, 1 << 40)
    ],
    # RFC 9773
    ("RFC 9773 5: replaces is no text", _replaces(lambda _: 7), 400, "malformed"),
    ("RFC 9773 5: replaces names nobody", _replaces(lambda s: _certificate_id(s).split(".")[0] + ".AQ"), 403, "malformed"),
    ("RFC 9773 5: replaces another account's", _replaces(_foreign), 403, "malformed"),
    ("RFC 9773 5: replaces without a name in common", _replaces(_certificate_id, "gw-9.device.test"), 400, "malformed"),
    ("RFC 9773 4.1: no dot", _info(lambda _: "AAAA"), 400, "malformed"),
    ("RFC 9773 4.1: two dots", _info(lambda s: _certificate_id(s) + ".AA"), 400, "malformed"),
    ("RFC 9773 4.1: padding", _info(lambda s: _certificate_id(s) + "="), 400, "malformed"),
    ("RFC 9773 4.1: an issuer nobody knows", _info(lambda _: f"{b64(bytes(20))}.AQ"), 404, "malformed"),
    ("RFC 9773 4.1: a certificate nobody knows", _info(lambda s: _certificate_id(s).split(".")[0] + ".AQ"), 404, "malformed"),
    ("RFC 9773 4.1: a serial number of zero", _info(lambda s: _certificate_id(s).split(".")[0] + ".AA"), 400, "malformed"),
    ("RFC 9773 4.1: a negative serial number", _info(lambda s: _certificate_id(s).split(".")[0] + ".gA"), 400, "malformed"),
    ("RFC 9773 4.1: a serial number with a zero too many", _info(lambda s: _certificate_id(s).split(".")[0] + ".AAE"), 400, "malformed"),
    ("RFC 9773 4.1: no serial number", _info(lambda s: _certificate_id(s).split(".")[0] + "."), 400, "malformed"),
    ("RFC 9773 4.1: hexadecimal", _info(lambda s: x509.load_der_x509_certificate(s.certificate).serial_number.to_bytes(20, "big").hex()), 400, "malformed"),
]  # fmt: skip


@pytest.mark.parametrize(("act", "status", "kind"), [pytest.param(act, status, kind, id=words) for words, act, status, kind in REFUSED])
def test_R19_refused(shop: Shop, act: Callable[[Shop], TestResponse], status: int, kind: str) -> None:
    before = shop.acme.signer.asked.count("revoke")
    answer = act(shop)
    assert (answer.status_code, answer.json["type"]) == (status, f"urn:ietf:params:acme:error:{kind}"), answer.text
    assert answer.mimetype == "application/problem+json" and answer.json["detail"]
    assert kind == "unauthorized" or shop.acme.signer.asked.count("revoke") == before


def test_6_7_1_several_names_are_refused_one_by_one(shop: Shop) -> None:
    answer = _dns("gw-1.device.test", "www.example.org", "www.example.net")(shop)
    faults = {one["identifier"]["value"] for one in answer.json["subproblems"]}
    assert answer.status_code == 400 and faults == {"www.example.org", "www.example.net"}


def test_there_are_enough_of_them() -> None:
    assert len(MATRIX) + len(REFUSED) >= 300


def test_7_5_1_a_challenge_is_asked_once(shop: Shop) -> None:
    client = Client(shop.acme)
    client.register()
    order = client.order("gw-5.device.test")
    challenges = client.post(order.json["authorizations"][0]).json["challenges"]
    shop.acme.waiting = []
    for challenge in (challenges[0], challenges[0], challenges[1]):
        client.post(challenge["url"], {})
    assert len(shop.acme.waiting) == 1, "another may begin when it is decided"
    assert client.post(challenges[0]["url"]).json["status"] == "processing"
    shop.acme.world.clock.at += 61
    client.post(challenges[0]["url"], {})
    assert len(shop.acme.waiting) == 2, "one that a crash left is asked again"
    for work in shop.acme.waiting:
        work()
    shop.acme.waiting = None
    shown = client.post(order.json["authorizations"][0]).json
    assert shown["status"] == "valid" and [one["type"] for one in shown["challenges"]] == ["http-01"]


def test_7_5_2_what_was_given_up_while_it_was_asked_stays_so(shop: Shop) -> None:
    client = Client(shop.acme)
    client.register()
    order = client.order("gw-6.device.test")
    authorization = order.json["authorizations"][0]
    shop.acme.waiting = []
    client.prove(order)
    client.post(authorization, {"status": "deactivated"})
    for work in shop.acme.waiting:
        work()
    shop.acme.waiting = None
    assert client.post(authorization).json["status"] == "deactivated"


def test_R20_a_prober_that_breaks_is_a_failed_challenge_and_no_traceback(shop: Shop) -> None:
    client = Client(shop.acme)
    client.register()
    order = client.order("gw-7.device.test")
    shop.acme.prober.crash = RuntimeError("boom")
    client.prove(order)
    shop.acme.prober.crash = None
    shown = client.post(order.json["authorizations"][0])
    assert shown.json["status"] == "invalid" and "boom" not in shown.text
