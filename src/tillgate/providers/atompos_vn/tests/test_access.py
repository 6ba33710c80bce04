"""Who may tell us that something was paid: tokens, fixed headers, addresses; and everyone who may not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import warnings
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from tillgate.domain.errors import Misconfigured, Refusal
from tillgate.providers.atompos_vn import PROVIDER, AtomPos
from tillgate.providers.atompos_vn.tokens import Tokens
from tillgate.spi import Inbound

from .conftest import SECRET, config, ipn, post

NOW = 1_795_000_000


def claims(**changes: Any) -> dict[str, Any]:
    plain = {"sub": "atom", "iat": NOW, "exp": NOW + 300, "jti": "1", "scope": "ipn"}
    return {name: value for name, value in {**plain, **changes}.items() if value is not ...}


def token(key: str = SECRET, algorithm: str = "HS256", headers: Any = None, **changes: Any) -> str:
    with warnings.catch_warnings(action="ignore"):  # of keys too short for an algorithm we do not take
        return jwt.encode(claims(**changes), key, algorithm, headers=headers)


def raw(header: dict[str, Any], payload: dict[str, Any], signature: str = "") -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part(header)}.{part(payload)}.{signature}"


def code(pos: AtomPos, call: Inbound) -> tuple[str, int]:
    heard, refusal = None, None
    try:
        heard = pos.hear(call)
    except Refusal as error:
        refusal = error
    reply = pos.answer(call, heard, refusal)
    if reply.status == 401:
        assert reply.headers["www-authenticate"] == "Bearer"
    return json.loads(reply.body)["code"], reply.status


def told(bearer: str | None, pos: AtomPos | None = None, at: int = NOW) -> tuple[str, int]:
    return code(pos or AtomPos(config()), post(ipn(), token=bearer, at=at * 1000))


def test_a_good_token_opens() -> None:
    assert told(token()) == ("00", 200)
    assert told(token(scope="payment ipn")) == ("00", 200)
    assert told(token(scope=...)) == ("00", 200)  # who holds the key may leave it open
    assert told(token(exp=NOW - 29)) == ("00", 200)
    assert told(token(nbf=NOW + 29)) == ("00", 200)


@pytest.mark.parametrize(
    "forged",
    [
        "junk",
        "a.b.c",
        "",
        "." * 9_000,
        "é.é.é",
        token(key="another-secret-that-has-more-than-32-bytes"),
        token(algorithm="HS512"),
        token(exp=NOW - 30),
        token(exp=...),
        token(iat=...),
        token(sub=...),
        token(jti=...),
        token(exp="soon"),
        token(exp=1e300),
        token(exp=True),
        token(iat=NOW + 31),
        token(nbf=NOW + 31),
        token(jti=""),
        token(sub=""),
        token(scope=["ipn"]),
        token(headers={"kid": "unknown"}),
        raw({"alg": "none", "typ": "JWT"}, claims()),
        raw({"alg": "None"}, claims()),
        raw({"alg": "nOnE"}, claims(), "x"),
        raw({"alg": "HS256"}, claims()),
        raw({"typ": "JWT"}, claims()),
        token()[:-3],
        token()[:-3] + "AAA",
        token() + "." + "x",
    ],
)
def test_a_forged_or_expired_token_is_01(forged: str) -> None:
    expected = ("05", 401) if forged == "" else ("01", 401)
    assert told(forged or None) == expected


def test_a_token_that_was_good_once_is_still_checked_for_its_time() -> None:
    pos = AtomPos(config())
    bearer = token()
    assert told(bearer, pos) == told(bearer, pos, NOW + 329) == ("00", 200)
    assert told(bearer, pos, NOW + 330) == told(bearer, pos, NOW + 330) == ("01", 401)


@pytest.mark.parametrize("header", ["", "Bearer", "Basic YXRvbTphdG9t", "bearer ", "Token x"])
def test_no_bearer_is_05_and_an_empty_one_01(header: str) -> None:
    call = post(ipn(), headers={"authorization": header} if header else {}, at=NOW * 1000)
    expected = ("01", 401) if header.lower().startswith("bearer") else ("05", 401)
    assert code(AtomPos(config()), call) == expected


def test_another_scope_is_06() -> None:
    assert told(token(scope="payment")) == ("06", 403)
    assert told(token(scope="")) == ("06", 403)


def test_keys_rotate_and_are_told_apart_by_kid() -> None:
    new = "a-newer-secret-that-has-more-than-32-bytes"
    both = AtomPos(config(jwt_secret=new, previous_jwt_secret=SECRET))
    old_token, new_token = Tokens(SECRET).issue("atom", NOW), Tokens(new).issue("atom", NOW)
    assert told(old_token, both) == told(new_token, both) == told(token(), both) == ("00", 200)
    assert told(old_token, AtomPos(config(jwt_secret=new))) == ("01", 401)
    kids = [jwt.get_unverified_header(one)["kid"] for one in (old_token, new_token)]
    assert len(set(kids)) == 2
    mixed = jwt.encode(claims(), SECRET, "HS256", headers={"kid": kids[1]})
    assert told(mixed, both) == ("01", 401)


def test_audience_and_issuer_are_checked_where_configured() -> None:
    pos = AtomPos(config(jwt_audience="tillgate", jwt_issuer="atom"))
    assert told(token(aud="tillgate", iss="atom"), pos) == ("00", 200)
    for wrong in ({}, {"aud": "tillgate"}, {"iss": "atom"}, {"aud": "other", "iss": "atom"}):
        assert told(token(**wrong), pos) == ("01", 401)
    assert told(token(aud="someone else's")) == ("00", 200)  # not configured, not checked


def test_asymmetric_keys_and_the_classic_confusion() -> None:
    private = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    public = (
        private.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )
    pos = AtomPos(config(jwt_secret=public, jwt_algorithm="RS256"))
    assert told(token(key=pem, algorithm="RS256"), pos) == ("00", 200)
    header = {"alg": "HS256", "typ": "JWT"}
    unsigned = raw(header, claims()).rstrip(".")
    mac = hmac.new(public.encode(), unsigned.encode(), hashlib.sha256).digest()
    confused = f"{unsigned}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    assert told(confused, pos) == ("01", 401)
    edwards = ed25519.Ed25519PrivateKey.generate()
    pem = edwards.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    pos = AtomPos(config(jwt_secret=pem, jwt_algorithm="EdDSA"))
    assert told(Tokens(pem, "EdDSA").issue("atom", NOW), pos) == ("00", 200)


# --- other ways in ------------------------------------------------------------------------------------------


def test_a_fixed_header() -> None:
    pos = AtomPos(config(auth="header", header_name="X-Api-Key", header_value="sixteen characters"))
    assert code(pos, post(ipn(), headers={"x-api-key": "sixteen characters"})) == ("00", 200)
    assert code(pos, post(ipn(), headers={"x-api-key": "sixteen character"})) == ("01", 401)
    assert code(pos, post(ipn(), headers={"x-api-key": "\udcff"})) == ("01", 401)
    assert code(pos, post(ipn(), headers={})) == ("05", 401)
    basic = AtomPos(config(auth="header"))
    given = base64.b64encode(b"atom:an-example-password").decode()
    assert code(basic, post(ipn(), headers={"authorization": f"Basic {given}"})) == ("00", 200)
    assert code(basic, post(ipn(), headers={"authorization": "Basic x"})) == ("01", 401)


def test_an_unguessable_path() -> None:
    pos = AtomPos(config(auth="path"))
    assert code(pos, post(ipn(), path="/in/0198a1b2c3d4e5f6", headers={})) == ("00", 200)
    assert code(pos, post(ipn(), path="/ipn", headers={})) == ("06", 403)


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        ("127.0.0.1", True),
        ("192.168.1.20", True),
        ("10.1.2.3", True),
        ("172.31.255.255", True),
        ("::1", True),
        ("::ffff:192.168.1.20", True),
        ("fd00::1", True),
        ("172.32.0.1", False),
        ("8.8.8.8", False),
        ("::ffff:8.8.8.8", False),
        ("2001:db8::1", False),
        ("", False),
        ("unix:", False),
    ],
)
def test_without_authentication_only_the_shops_own_network_may_speak(peer: str, allowed: bool) -> None:
    expected = ("00", 200) if allowed else ("06", 403)
    assert code(AtomPos(config(auth="none")), post(ipn(), peer=peer)) == expected


def test_a_list_of_addresses_holds_in_every_mode() -> None:
    pos = AtomPos(config(allow_ips=["203.0.113.0/24"]))
    for peer, expected in (("203.0.113.9", ("00", 200)), ("192.168.1.20", ("06", 403))):
        call = post(ipn(), token=token(), at=NOW * 1000, peer=peer)
        assert code(pos, call) == expected


# --- /authorize ---------------------------------------------------------------------------------------------


def login(body: Any, headers: dict[str, str] | None = None, pos: AtomPos | None = None) -> tuple[int, Any]:
    pos = pos or AtomPos(config())
    call = post(body, path="/authorize", headers=headers or {}, at=NOW * 1000)
    heard, refusal = None, None
    try:
        heard = pos.hear(call)
    except Refusal as error:
        refusal = error
    reply = pos.answer(call, heard, refusal)
    if reply.status == 200:
        assert reply.headers["cache-control"] == "no-store"
    return reply.status, json.loads(reply.body)


@pytest.mark.parametrize(
    "names", [("username", "password"), ("api_key", "api_secret"), ("client_id", "client_secret")]
)
def test_a_login_gives_a_token_that_opens(names: tuple[str, str]) -> None:
    pos = AtomPos(config())
    status, body = login({names[0]: "atom", names[1]: "an-example-password"}, pos=pos)
    assert status == 200
    assert set(body) == {"code", "message", "access_token", "token_type", "expires_in"}
    assert (body["code"], body["message"], body["token_type"], body["expires_in"]) == (
        "00",
        "success",
        "Bearer",
        300,
    )
    assert told(body["access_token"], pos) == ("00", 200)
    read = jwt.decode(body["access_token"], options={"verify_signature": False})
    assert read["exp"] - read["iat"] == 300


def test_a_login_by_http_basic() -> None:
    good = base64.b64encode(b"atom:an-example-password").decode()
    assert login(b"", {"authorization": f"Basic {good}"})[0] == 200
    for bad in ("atom", "YXRvbQ==", "!!", base64.b64encode(b"atom:wrong").decode()):
        assert login(b"", {"authorization": f"Basic {bad}"})[1]["code"] == "01"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"username": "atom", "password": "wrong"}, "01"),
        ({"username": "nobody", "password": "an-example-password"}, "01"),
        ({"username": "", "password": ""}, "01"),
        ({"username": "atom"}, "03"),
        ({}, "03"),
        ({"username": 5, "password": "x"}, "04"),
        ({"username": "atom", "password": None}, "04"),
        (b"[", "04"),
    ],
)
def test_a_login_that_fails(body: Any, code: str) -> None:
    status, answer = login(body)
    assert answer["code"] == code
    assert status == {"01": 401, "03": 400, "04": 400}[code]
    assert set(answer) == {"code", "message"}


def test_a_password_that_is_guessed_is_not_even_compared() -> None:
    """Ten wrong ones in a minute, by address and user; a user that there is not is counted alike."""
    pos = AtomPos(config())

    def tried(password: str, user: str = "atom", peer: str = "192.168.1.20", after_s: int = 0) -> int:
        body = {"username": user, "password": password}
        call = post(body, path="/authorize", at=(NOW + after_s) * 1000, peer=peer)
        try:
            heard, refusal = pos.hear(call), None
        except Refusal as error:
            heard, refusal = None, error
        reply = pos.answer(call, heard, refusal)
        assert json.loads(reply.body)["code"] == ("00" if reply.status == 200 else "01")
        assert reply.headers.get("retry-after") == ("60" if reply.status == 429 else None)
        return reply.status

    right = "an-example-password"
    assert [tried(f"guess {n}") for n in range(9)] == [401] * 9
    assert tried(right) == 200
    assert tried("guess 10") == 401
    assert [tried("guess 11"), tried(right), tried(right, after_s=59)] == [429] * 3
    assert tried(right, peer="192.168.1.21") == 200
    assert [tried("x", user="nobody") for _ in range(11)] == [401] * 10 + [429]
    assert tried(right, after_s=60) == 200
    for n in range(20_000):
        tried("x", user=f"user {n}")
    assert len(pos._logins._wrong) == 10_000


def test_there_is_no_login_without_credentials_or_tokens() -> None:
    nobody = AtomPos(config(user="", password=""))
    assert login({"username": "", "password": ""}, pos=nobody)[1]["code"] == "01"
    none = AtomPos(config(auth="none"))
    assert login({"username": "atom", "password": "an-example-password"}, pos=none)[1]["code"] == "02"


# --- configurations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"jwt_secret": ""},
        {"jwt_secret": "short"},
        {"jwt_secret": "x" * 31},
        {"previous_jwt_secret": "short"},
        {"jwt_algorithm": "RS256"},
        {"jwt_algorithm": "HS512"},
        {"token_ttl_s": 29},
        {"token_ttl_s": 86_401},
        {"auth": "header", "password": "short", "header_value": ""},
        {"user": "atom", "password": ""},
        {"allow_ips": ["not an address"]},
        {"allow_ips": ["10.0.0.1/8"]},
        {"pos_timeout_s": 0},
        {"pos_url": "http://8.8.8.8:8080"},
        {"pos_url": "http://169.254.169.254/"},
        {"pos_url": "http://pos.example:8080"},
        {"pos_url": "http://192.168.1.20:8080/?a=b"},
        {"pos_url": "http://user@192.168.1.20:8080"},
        {"pos_url": "http://[::ffff:8.8.8.8]:8080"},
        {"pos_url": "http://2130706433:8080"},
        {"pos_url": "http://192.168.1.20:99999"},
        {"pos_url": "ftp://192.168.1.20"},
        {"verify_code": ""},
        {"verify_code": "123456&x=1"},
        {"verify_code": "12 456"},
    ],
    ids=str,
)
def test_an_account_that_cannot_work_or_is_unsafe_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured) as refused:
        AtomPos(config(**changes))
    for secret in ("123456", SECRET, "an-example-password"):
        assert secret not in str(refused.value)


def test_secrets_do_not_show_in_a_repr() -> None:
    shown = f"{config()!r} {config()!s} {AtomPos(config())!r} {Tokens(SECRET)!r}"
    for name in PROVIDER.secrets:
        value = PROVIDER.example.get(name)
        assert not value or value not in shown


def test_a_remembered_token_is_cheap() -> None:
    pos, call = AtomPos(config()), post(ipn(), token=token(), at=NOW * 1000)
    pos.hear(call)
    begun = time.process_time()
    for _ in range(200):
        pos.hear(call)
    assert (time.process_time() - begun) / 200 < 0.0005
