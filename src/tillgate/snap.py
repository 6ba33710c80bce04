"""SNAP BI, Indonesia's open API standard for payments: what is signed, and how it is signed and verified.

Pure: no socket, no clock, no chance. There is one signer and no client, because every provider bends the
standard in a way of its own; the known bends are three switches (`Dialect`). The standard: ASPI, "Standar
Teknis dan Keamanan SNAP"; the samples that the tests reproduce: Midtrans, "Signature Generation".

A request of ours::

    dialect = Dialect()
    key = load_private_key(PEM)
    at = timestamp(time.time(), dialect)
    headers = token_headers(client_key, at, key)            # POST /v1.0/access-token/b2b
    headers = request_headers(
        Request("POST", "/v1.0/qr/qr-mpm-generate", body), at, dialect,
        partner_id=…, external_id=…, channel_id=…, secret=CLIENT_SECRET, token=access_token,
    )

A notice to us: `verify_notice(public_key, Request("POST", path, raw_body), headers, now_s=…)`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import ClassVar, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from tillgate.domain.errors import Misconfigured, Unauthenticated

TOKEN_PATH: Final = "/v1.0/access-token/b2b"  # noqa: S105 - a path, as the standard names it
TOLERANCE_S: Final = 300.0
MIN_KEY_BITS: Final = 2048

_JAKARTA: Final = timezone(timedelta(hours=7))
_MAX_HEADER_CHARS: Final = 4096
# Strings as JSON writes them, or a run of JSON's four blanks. An unfinished string is taken to the end.
_STRING_OR_BLANKS: Final = re.compile(rb'"(?:[^"\\]|\\.)*(?:"|\Z)|[ \t\r\n]+', re.DOTALL)
_TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_SIGNED: Final = re.compile(
    r"[!-~]{1,4096}", re.ASCII
)  # what may stand between two colons: no blank, no line


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one provider bends the standard.

    `asymmetric`: requests are signed with RSA, and no token is in what is signed (DANA, Faspay).
    `bearer`: a B2B token is fetched first and sent as `Authorization` (not at DANA).
    `utc`: times end in `Z` (DOKU); else they are Jakarta's, `+07:00`.
    """

    asymmetric: bool = False
    bearer: bool = True
    utc: bool = False


STANDARD: Final = Dialect()
DANA: Final = Dialect(asymmetric=True, bearer=False)
FASPAY: Final = Dialect(asymmetric=True)
DOKU: Final = Dialect(utc=True)


@dataclass(frozen=True, slots=True)
class Request:
    """What is signed of a request. `target` is the path with its query, as it stands in the request line."""

    method: str
    target: str
    body: bytes = b""


class BadKey(Misconfigured):
    """An RSA key of at least 2048 bits in PEM form is needed."""


class NotAuthentic(Unauthenticated):
    """The signature, or the time that it covers, is missing or wrong."""

    code: ClassVar[str] = "snap_not_authentic"


# --- what is signed -----------------------------------------------------------------------------------------


def minify(body: bytes) -> bytes:
    r"""JSON without the blanks between its tokens; not one byte inside a string is touched.

    Parsing and printing again would be another text (`\/`, `1.00`, `\u00e9`, the order of keys), and the
    other side hashes what it received.

        >>> minify(b'{ "a" : "b  c", "d": 1.00 }')
        b'{"a":"b  c","d":1.00}'
    """
    return _STRING_OR_BLANKS.sub(lambda found: found[0] if found[0][:1] == b'"' else b"", body)


def digest(body: bytes) -> str:
    """Lower-case hex of SHA-256 over the minified body; of nothing, where there is no body."""
    return hashlib.sha256(minify(body)).hexdigest()


def signed_text(request: Request, at: str, token: str | None) -> str:
    """`METHOD:target:token:digest:time`; without a token (asymmetric) that part is not there.

    Raises `ValueError` for a part that could shift the others: a blank, a line end, nothing at all."""
    target, method = request.target, request.method.upper()
    parts = [method, target, *([] if token is None else [token]), digest(request.body), at]
    if not all(_SIGNED.fullmatch(one) for one in parts):
        raise ValueError("method, target, token and time are printable ASCII without blanks")
    return ":".join(parts)


def token_text(client_key: str, at: str) -> str:
    """What the request for a B2B token signs."""
    if not _SIGNED.fullmatch(client_key) or "|" in client_key:
        raise ValueError("a client key is printable ASCII without blanks and bars")
    return f"{client_key}|{at}"


def timestamp(now_s: float, dialect: Dialect = STANDARD) -> str:
    """`X-TIMESTAMP` for a moment (epoch seconds), in whole seconds.

    >>> timestamp(1_690_675_800), timestamp(1_690_675_800, DOKU)
    ('2023-07-30T07:10:00+07:00', '2023-07-30T00:10:00Z')
    """
    moment = datetime.fromtimestamp(int(now_s), UTC)
    if dialect.utc:
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    return moment.astimezone(_JAKARTA).isoformat(timespec="seconds")


# --- the two signatures -------------------------------------------------------------------------------------


def sign_symmetric(secret: str, text: str) -> str:
    """Base64 of HMAC-SHA512. Raises `Misconfigured` for an empty secret, which would sign for anybody."""
    if not secret:
        raise Misconfigured("the client secret is empty")
    return base64.b64encode(hmac.digest(secret.encode(), text.encode(), "sha512")).decode("ascii")


def sign_asymmetric(key: RSAPrivateKey, text: str) -> str:
    """Base64 of RSA PKCS#1 v1.5 with SHA-256."""
    return base64.b64encode(key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())).decode("ascii")


def verify_symmetric(secret: str, text: str, signature: str) -> bool:
    """In constant time."""
    expected = sign_symmetric(secret, text).encode("ascii")
    return hmac.compare_digest(expected, signature.encode("utf-8", "surrogatepass"))


def verify_asymmetric(key: RSAPublicKey, text: str, signature: str) -> bool:
    try:
        raw = base64.b64decode(signature, validate=True)
        key.verify(raw, text.encode("utf-8", "surrogatepass"), padding.PKCS1v15(), hashes.SHA256())
    except (ValueError, InvalidSignature):
        return False
    return True


def load_private_key(pem: str) -> RSAPrivateKey:
    """Raises `BadKey`, which never shows the key."""
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError):
        raise BadKey from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < MIN_KEY_BITS:
        raise BadKey
    return key


def load_public_key(pem: str) -> RSAPublicKey:
    """Raises `BadKey`."""
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, TypeError):
        raise BadKey from None
    if not isinstance(key, RSAPublicKey) or key.key_size < MIN_KEY_BITS:
        raise BadKey
    return key


# --- headers ------------------------------------------------------------------------------------------------


def token_headers(client_key: str, at: str, key: RSAPrivateKey) -> dict[str, str]:
    """Of `POST /v1.0/access-token/b2b`, whose body is `{"grantType":"client_credentials"}`."""
    return {
        "Content-Type": "application/json",
        "X-TIMESTAMP": at,
        "X-CLIENT-KEY": client_key,
        "X-SIGNATURE": sign_asymmetric(key, token_text(client_key, at)),
    }


def request_headers(
    request: Request,
    at: str,
    dialect: Dialect,
    *,
    partner_id: str,
    external_id: str,
    channel_id: str,
    secret: str = "",
    key: RSAPrivateKey | None = None,
    token: str | None = None,
) -> dict[str, str]:
    """Of a service request. `external_id` may not come again on the same day: it is ours to remember.

    Raises `ValueError` where the dialect needs a token or a key and none is given."""
    if dialect.bearer and not token:
        raise ValueError("this dialect sends a B2B token")
    if dialect.asymmetric:
        if key is None:
            raise ValueError("this dialect signs with a private key")
        signature = sign_asymmetric(key, signed_text(request, at, None))
    else:
        signature = sign_symmetric(secret, signed_text(request, at, token or ""))
    headers = {
        "Content-Type": "application/json",
        "X-TIMESTAMP": at,
        "X-SIGNATURE": signature,
        "X-PARTNER-ID": partner_id,
        "X-EXTERNAL-ID": external_id,
        "CHANNEL-ID": channel_id,
    }
    return ({"Authorization": f"Bearer {token}"} if dialect.bearer else {}) | headers


def verify_notice(
    key: RSAPublicKey,
    request: Request,
    headers: Mapping[str, str],
    *,
    now_s: float,
    tolerance_s: float = TOLERANCE_S,
) -> None:
    """Return if the provider signed exactly this notice, at most `tolerance_s` away from `now_s`.

    Notices are always asymmetric. `request.body` is the raw body and `request.target` the path that the
    provider was given; header names may be in any case. Raises `NotAuthentic`, whose text may be shown."""
    at, signature = _header(headers, "x-timestamp"), _header(headers, "x-signature")
    if not _TIMESTAMP.fullmatch(at):
        raise NotAuthentic("X-TIMESTAMP is not a time with its offset")
    try:
        signed_at = datetime.fromisoformat(at).timestamp()
    except (ValueError, OverflowError):
        raise NotAuthentic("X-TIMESTAMP is not a time with its offset") from None
    if abs(now_s - signed_at) > tolerance_s:
        raise NotAuthentic("X-TIMESTAMP is too old or in the future")
    try:
        text = signed_text(request, at, None)
    except ValueError:
        raise NotAuthentic("what was signed cannot be made of this request") from None
    if not verify_asymmetric(key, text, signature):
        raise NotAuthentic("X-SIGNATURE does not match")


def _header(headers: Mapping[str, str], name: str) -> str:
    value = next((value for key, value in headers.items() if key.lower() == name), "")
    if not value or len(value) > _MAX_HEADER_CHARS:
        raise NotAuthentic(f"{name.upper()} is missing or too long")
    return value
