"""SNAP BI signatures: the published samples byte for byte, the rules of minifying, all ways to be wrong."""

from __future__ import annotations

import base64
import doctest
import hashlib
import hmac
import json
from functools import partial

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from tillgate import snap
from tillgate.domain.errors import Misconfigured
from tillgate.snap import (
    DANA,
    DOKU,
    FASPAY,
    STANDARD,
    BadKey,
    NotAuthentic,
    Request,
    load_private_key,
    load_public_key,
    minify,
    request_headers,
    sign_symmetric,
    signed_text,
    timestamp,
    token_headers,
    token_text,
    verify_asymmetric,
    verify_notice,
    verify_symmetric,
)

# Midtrans, "Signature Generation", the two samples of that page.
SECRET = "fdppqbF5wq7vVegyvsV1CROMv646nJ7A"
TOKEN = "gp9HjjEj813Y9JGoqwOeOPWbnt4CupvIJbU1Mmu4a11MNDZ7Sg5u9a"
DIGEST = "56fa5f4999ad8014de49d7898c1d1d53472569db8999de3c1b752a0dd181e98c"
SYMMETRIC_TEXT = f"POST:/v1.0/debit/payment-host-to-host:{TOKEN}:{DIGEST}:2020-01-01T00:00:00+07:00"
SYMMETRIC = "FSlidRHe4ow9qppNifGVQNcdv67lBjgCiP0BHylh+IKXo4fs2rHaGsFNUY0N8t0rPlZs4iAHAOCDklnCccwuJw=="
PUBLIC_KEY = """-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAlWbtlh3eM+bW3n5AFj42
wddC4L7tQqbLiCFbTv8K67yng9iwK5mEn+UMXiRhvB2JVWFafCPPxFamsiVG3Mjn
eGjC0BYgmpmw4qXnAnyO3nCdCuPtmZ3ljhKvSTPdWZxrcLi1Xa9V/+Pzb8hrjb5i
wMn6SZFNeMmZYgFKiSeueo6TPln2PoTqXCzs1HtsM8eUVe8GAsjJe/3dYl992nyX
OpG21GgNu8o5T3WOptPg6GdDTWkTWUu483yRbVVy04Pz4L8DDZTDv+WcsAViDn1r
A/jB1Auj/UGKx2ovGcBH/a/hor5TbABbODU6cPTHT54K3sSZtvZNV4eFDB1f/4wd
fwIDAQAB
-----END PUBLIC KEY-----
"""
ASYMMETRIC_TEXT = "G1234325-SNAP|2023-07-31T07:10:00+07:00"
ASYMMETRIC = (
    "iv5YorKVVFOFS59l0HChDvPe+HeoE/jY5CfVgCg5i16nj5/DVnKg49ilkv8PyeU7y38apHhgO+cUrvkfUs5BhDD69yLn7xp8"
    "hzN9RcR0UDy5+nCrQ3GGCVSzZJvlEXN+TB0j4Q6pMsjrq4+YRoyDa4mTlsjJTU9aGjLRFBYgY4MyMQ5x11JyLnoFwbS8TJ5e"
    "/q4mUozrp49VyHe7OQSFnJNwvMSFrDyAIxoOK0IZQIlY29PaDIFcWoR+RJAY42H2FryjJcPpNfeercbkj9jsBLV3wmEKiNoN"
    "6lgFFLk5QicDnAAQzL45s92EYeCqDNuTTJOydaJbUqEo1d/ZPVNBtQ=="
)

_PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PRIVATE_PEM = _PRIVATE.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
OUR_PUBLIC = _PRIVATE.public_key()
NOTICE_AT = 1_700_000_000
NOTICE = Request("POST", "/in/acc_1/v1.0/qr/qr-mpm-notify", b'{ "amount": {"value": "20000.00"} }')


def notice_headers(
    request: Request = NOTICE, at: str | None = None, key: rsa.RSAPrivateKey = _PRIVATE
) -> dict[str, str]:
    """Signed here by hand, with the library alone."""
    at = at or timestamp(NOTICE_AT)
    body = json.dumps(json.loads(request.body), separators=(",", ":")).encode()
    text = f"{request.method}:{request.target}:{hashlib.sha256(body).hexdigest()}:{at}"
    signature = key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    return {"X-TIMESTAMP": at, "X-SIGNATURE": base64.b64encode(signature).decode()}


# --- the published samples ----------------------------------------------------------------------------------


def test_signs_the_published_symmetric_sample() -> None:
    assert sign_symmetric(SECRET, SYMMETRIC_TEXT) == SYMMETRIC
    assert verify_symmetric(SECRET, SYMMETRIC_TEXT, SYMMETRIC)
    assert not verify_symmetric(SECRET, SYMMETRIC_TEXT, "A" + SYMMETRIC[1:])
    assert not verify_symmetric(SECRET, SYMMETRIC_TEXT, "ü")


def test_lays_out_the_published_symmetric_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    # The page prints the digest of a body and not the body: the rest of the text is ours to lay out.
    monkeypatch.setattr(snap, "digest", lambda _body: DIGEST)

    text = signed_text(
        Request("post", "/v1.0/debit/payment-host-to-host"), "2020-01-01T00:00:00+07:00", TOKEN
    )

    assert text == SYMMETRIC_TEXT


def test_verifies_the_published_asymmetric_sample() -> None:
    assert token_text("G1234325-SNAP", "2023-07-31T07:10:00+07:00") == ASYMMETRIC_TEXT
    assert timestamp(1_690_762_200) == "2023-07-31T07:10:00+07:00"
    key = load_public_key(PUBLIC_KEY)
    assert verify_asymmetric(key, ASYMMETRIC_TEXT, ASYMMETRIC)
    assert not verify_asymmetric(key, ASYMMETRIC_TEXT + " ", ASYMMETRIC)
    for signature in ("", "no base64!", "QUJD", ASYMMETRIC[:-4], SYMMETRIC):
        assert not verify_asymmetric(key, ASYMMETRIC_TEXT, signature)


# --- minify -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b"", b""),
        (b" \r\n\t", b""),
        (b'{ "a" : 1 }', b'{"a":1}'),
        (b'{\r\n\t"a" :\t[ 1 , 2 ]\n}', b'{"a":[1,2]}'),
        (b'{"a": "two  blanks \\t kept"}', b'{"a":"two  blanks \\t kept"}'),
        (b'{"a\\"  b": "c \\\\"  , "d":  1}', b'{"a\\"  b":"c \\\\","d":1}'),
        (b'{"url": "https:\\/\\/x"}', b'{"url":"https:\\/\\/x"}'),
        (b'{"v": 1.00, "w": 1e2}', b'{"v":1.00,"w":1e2}'),
        (b'{"v": "\\u00e9"}', b'{"v":"\\u00e9"}'),
        ('{"v": "é  ñ"}'.encode(), '{"v":"é  ñ"}'.encode()),
        (b'{"b": 1, "a": 2, "b": 3}', b'{"b":1,"a":2,"b":3}'),
        (b'{"v": "raw\nline"}', b'{"v":"raw\nline"}'),
        (b'{"unfinished": "a  b', b'{"unfinished":"a  b'),
        (b'{"ends": "\\', b'{"ends":"\\'),
    ],
)  # fmt: skip
def test_minify_takes_only_the_blanks_between_tokens(body: bytes, wanted: bytes) -> None:
    assert minify(body) == wanted
    assert minify(wanted) == wanted


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    ),
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
)
def test_minified_is_what_a_printer_without_blanks_prints(
    value: object, indent: int | str | None, ascii_only: bool
) -> None:
    wide = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    narrow = json.dumps(value, separators=(",", ":"), ensure_ascii=ascii_only)
    assert minify(wide.encode("utf-8", "surrogatepass")) == narrow.encode("utf-8", "surrogatepass")


def test_a_large_body_is_minified_in_one_pass() -> None:
    body = b'{"a": "' + b"\\\\" * 500_000 + b'"}'
    assert minify(body) == body.replace(b": ", b":")
    assert minify(b'"' * 1_000_001)[:3] == b'"""'


# --- the three switches -------------------------------------------------------------------------------------


def test_the_standard_sends_a_token_and_signs_with_the_secret() -> None:
    request, at = Request("POST", "/v1.0/qr/qr-mpm-generate?x=1", b'{ "a": 1 }'), "2026-11-21T10:00:00+07:00"

    headers = request_headers(
        request, at, STANDARD, partner_id="P", external_id="1", channel_id="95221", secret=SECRET, token="T"
    )

    body = hashlib.sha256(b'{"a":1}').hexdigest()
    text = f"POST:/v1.0/qr/qr-mpm-generate?x=1:T:{body}:{at}"
    signature = base64.b64encode(hmac.new(SECRET.encode(), text.encode(), hashlib.sha512).digest()).decode()
    assert headers == {
        "Authorization": "Bearer T", "Content-Type": "application/json", "X-TIMESTAMP": at,
        "X-SIGNATURE": signature, "X-PARTNER-ID": "P", "X-EXTERNAL-ID": "1", "CHANNEL-ID": "95221",
    }  # fmt: skip


@pytest.mark.parametrize(("dialect", "token"), [(DANA, None), (FASPAY, "T")], ids=["dana", "faspay"])
def test_an_asymmetric_dialect_leaves_the_token_out_of_what_is_signed(
    dialect: snap.Dialect, token: str | None
) -> None:
    request = Request("POST", "/payment-gateway/v1.0/debit/status.htm", b'{"a": 1}')
    at = timestamp(1_700_000_000, dialect)

    headers = request_headers(
        request, at, dialect, partner_id="P", external_id="1", channel_id="95221",
        key=load_private_key(PRIVATE_PEM), token=token,
    )  # fmt: skip

    body = hashlib.sha256(b'{"a":1}').hexdigest()
    text = f"POST:/payment-gateway/v1.0/debit/status.htm:{body}:2023-11-15T05:13:20+07:00"
    raw = base64.b64decode(headers["X-SIGNATURE"])
    OUR_PUBLIC.verify(raw, text.encode(), padding.PKCS1v15(), hashes.SHA256())
    assert headers.get("Authorization") == (f"Bearer {token}" if token else None)


def test_times_have_the_offset_of_their_dialect() -> None:
    assert timestamp(1_700_000_000.9, DOKU) == "2023-11-14T22:13:20Z"
    assert timestamp(1_700_000_000.9) == "2023-11-15T05:13:20+07:00"


def test_the_token_request_is_signed_over_client_and_time() -> None:
    headers = token_headers("G1", "2026-11-21T10:00:00+07:00", load_private_key(PRIVATE_PEM))

    raw = base64.b64decode(headers["X-SIGNATURE"])
    OUR_PUBLIC.verify(raw, b"G1|2026-11-21T10:00:00+07:00", padding.PKCS1v15(), hashes.SHA256())
    assert headers["X-CLIENT-KEY"] == "G1"


def test_what_a_dialect_needs_must_be_there() -> None:
    named = partial(request_headers, NOTICE, timestamp(NOTICE_AT), partner_id="P", external_id="1")
    with pytest.raises(ValueError, match="B2B token"):
        named(STANDARD, channel_id="1", secret=SECRET)
    with pytest.raises(ValueError, match="private key"):
        named(DANA, channel_id="1", secret=SECRET)
    with pytest.raises(Misconfigured):
        named(STANDARD, channel_id="1", token="T")


@pytest.mark.parametrize("target", ["", "/a b", "/a\nPOST:/b", "/é"])
def test_a_target_that_could_shift_the_signed_parts_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        signed_text(Request("POST", target), timestamp(NOTICE_AT), "T")


# --- notices to us ------------------------------------------------------------------------------------------


def test_a_genuine_notice_is_taken_whatever_the_case_of_its_headers() -> None:
    headers = notice_headers()
    verify_notice(OUR_PUBLIC, NOTICE, headers, now_s=NOTICE_AT + 299)
    verify_notice(OUR_PUBLIC, NOTICE, {k.lower(): v for k, v in headers.items()}, now_s=NOTICE_AT - 299)
    utc = notice_headers(at="2023-11-14T22:13:20.123Z")
    verify_notice(OUR_PUBLIC, NOTICE, utc, now_s=NOTICE_AT)


@pytest.mark.parametrize(
    ("request_", "headers", "now_s"),
    [
        (Request("POST", NOTICE.target, b'{"amount":{"value":"20001.00"}}'), notice_headers(), NOTICE_AT),
        (Request("PUT", NOTICE.target, NOTICE.body), notice_headers(), NOTICE_AT),
        (Request("POST", NOTICE.target + "?x", NOTICE.body), notice_headers(), NOTICE_AT),
        (Request("POST", NOTICE.target, b""), notice_headers(), NOTICE_AT),
        (Request("POST", "/a b", NOTICE.body), notice_headers(), NOTICE_AT),
        (NOTICE, notice_headers() | {"X-TIMESTAMP": timestamp(NOTICE_AT + 1)}, NOTICE_AT),
        (NOTICE, notice_headers(), NOTICE_AT + 301),
        (NOTICE, notice_headers(), NOTICE_AT - 301),
        (NOTICE, notice_headers(at="2023-11-15T05:13:20"), NOTICE_AT),
        (NOTICE, notice_headers(at="2023-99-15T05:13:20Z"), NOTICE_AT),
        (NOTICE, notice_headers(at="1700000000"), NOTICE_AT),
        (NOTICE, {"X-TIMESTAMP": timestamp(NOTICE_AT)}, NOTICE_AT),
        (NOTICE, {"X-SIGNATURE": notice_headers()["X-SIGNATURE"]}, NOTICE_AT),
        (NOTICE, notice_headers() | {"X-SIGNATURE": "A" * 5000}, NOTICE_AT),
        (NOTICE, notice_headers(key=rsa.generate_private_key(65537, 2048)), NOTICE_AT),
    ],
    ids=["amount", "method", "query", "no body", "path", "time moved", "old", "early", "no offset", "no day",
         "epoch", "unsigned", "no time", "long", "another key"],
)  # fmt: skip
def test_anything_else_is_refused(request_: Request, headers: dict[str, str], now_s: int) -> None:
    with pytest.raises(NotAuthentic):
        verify_notice(OUR_PUBLIC, request_, headers, now_s=now_s)


# --- keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pem", ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", PUBLIC_KEY]
)
def test_what_is_no_private_key_is_refused_without_being_shown(pem: str) -> None:
    with pytest.raises(BadKey) as refused:
        load_private_key(pem)
    assert "AAAA" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_short_keys_are_refused() -> None:
    short = rsa.generate_private_key(65537, 1024)
    pem = short.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = short.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with pytest.raises(BadKey):
        load_private_key(pem.decode())
    with pytest.raises(BadKey):
        load_public_key(public.decode())
    with pytest.raises(BadKey):
        load_public_key(PRIVATE_PEM)


def test_the_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(snap).failed == 0
