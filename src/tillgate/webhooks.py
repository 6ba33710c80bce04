"""Standard Webhooks 1.0: sign, verify, judge an endpoint's answer, and say when to try again.

Pure: no socket and no clock. A merchant written in Python verifies what we send with `verify`; in any other
language, with any Standard Webhooks library and the same `whsec_…` secret.

A receiver, here with Starlette or FastAPI::

    import time
    from tillgate.webhooks import WebhookVerificationError, verify

    async def callback(request):
        body = await request.body()  # the raw bytes: parsing and printing again breaks the signature
        try:
            verify([SECRET], request.headers, body, now_s=time.time())
        except WebhookVerificationError:
            return Response(status_code=401)
        if already_seen(request.headers["webhook-id"]):  # the id stays the same over all retries
            return Response(status_code=204)
        ...
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum
from secrets import token_bytes
from typing import ClassVar, Final

from tillgate.domain.errors import Misconfigured, TillgateError

ID_HEADER: Final = "webhook-id"
TIMESTAMP_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"

SCHEDULE_S: Final = (0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds to wait before each attempt, counted from the one before: 75 h 35 min in all."""

JITTER: Final = 0.1
"""Every wait is stretched or shortened by up to this share, so that failures do not come back as one wave."""

MAX_RETRY_AFTER_S: Final = 86_400
"""An endpoint may ask us to wait, but not for longer than our own longest wait."""

_PREFIX: Final = "whsec_"
_NEW_KEY_BYTES: Final = 32
_MIN_KEY_BYTES, _MAX_KEY_BYTES = 24, 64  # Standard Webhooks, "Signature scheme": 192 to 512 bits
_MAX_SIGNATURES: Final = 16
_MAX_HEADER_CHARS: Final = 4_096

# A full stop separates the signed parts, so an id must not contain one (same section).
_MESSAGE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}", re.ASCII)


class WebhookVerificationError(TillgateError):
    """The webhook is not authentic, or too old to be trusted."""

    code: ClassVar[str] = "webhook_not_verified"
    status: ClassVar[int] = 401


class BadSecret(Misconfigured):
    """A webhook secret is `whsec_` and the base64 of 24 to 64 random bytes."""


def new_secret() -> str:
    """A fresh signing secret of 256 random bits, as merchants see it: `"whsec_…"`."""
    return _PREFIX + base64.b64encode(token_bytes(_NEW_KEY_BYTES)).decode("ascii")


def sign(secrets: Sequence[str], message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The three headers that go with `body`; `timestamp_s` is the time of this attempt.

    With several secrets (a rotation: new and old) every one signs, and the signatures stand side by side:

        >>> sign(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], "msg_1", 1614265330, b"{}")["webhook-id"]
        'msg_1'

    Raises `BadSecret` for a secret that is no secret, and `ValueError` without a secret or for an id with
    anything but letters, digits, `_` and `-`.
    """
    if _MESSAGE_ID.fullmatch(message_id) is None:
        raise ValueError("a webhook id has 1 to 128 letters, digits, _ and -")
    keys = _keys(secrets)
    signed = b"%b.%d.%b" % (message_id.encode("ascii"), timestamp_s, body)
    return {
        ID_HEADER: message_id,
        TIMESTAMP_HEADER: str(timestamp_s),
        SIGNATURE_HEADER: " ".join([_signature(key, signed) for key in keys]),
    }


def verify(
    secrets: Sequence[str],
    headers: Mapping[str, str],
    body: bytes,
    *,
    now_s: float,
    tolerance_s: float = 300,
) -> None:
    """Return if one of `secrets` signed exactly this `body`, at most `tolerance_s` away from `now_s`.

    `body` is the raw request body; header names may be in any case; signatures of other schemes (`v1a`)
    are passed over. The comparison takes constant time. Remember `webhook-id` to process a message once.

        >>> secret = new_secret()
        >>> headers = sign([secret], "evt_1", 1_700_000_000, b'{"status":"paid"}')
        >>> verify([secret], headers, b'{"status":"paid"}', now_s=1_700_000_004)

    Raises `WebhookVerificationError`, whose text may be shown to anyone, and `BadSecret` for a secret that
    is no secret.
    """
    keys = _keys(secrets)
    message_id = _header(headers, ID_HEADER)
    timestamp = _header(headers, TIMESTAMP_HEADER)
    given = _header(headers, SIGNATURE_HEADER).split(" ")
    if _TIMESTAMP.fullmatch(timestamp) is None:
        raise WebhookVerificationError(f"{TIMESTAMP_HEADER} is not a number of seconds")
    age_s = now_s - int(timestamp)
    if age_s > tolerance_s:
        raise WebhookVerificationError(f"{TIMESTAMP_HEADER} is too old")
    if age_s < -tolerance_s:
        raise WebhookVerificationError(f"{TIMESTAMP_HEADER} is in the future")
    if len(given) > _MAX_SIGNATURES:
        raise WebhookVerificationError(f"{SIGNATURE_HEADER} holds too many signatures")
    # Signed are the bytes as they came: another spelling of the same number is another message.
    signed = b"%b.%b.%b" % (_wire(message_id), timestamp.encode("ascii"), body)
    for key in keys:
        expected = _signature(key, signed).encode("ascii")
        if any(hmac.compare_digest(expected, _wire(signature)) for signature in given):
            return
    raise WebhookVerificationError("no signature matches")


class Outcome(StrEnum):
    """What an endpoint's answer means for a delivery."""

    DONE = "done"
    RETRY = "retry"  # by `next_attempt_at`
    DISABLE = "disable"  # the endpoint wants no more: stop this delivery and switch the endpoint off


@dataclass(frozen=True, slots=True)
class Verdict:
    """`wait_s`: the endpoint asked not to be called again before, already bounded; 0 where it did not."""

    outcome: Outcome
    wait_s: int = 0


def judge(status: int, headers: Mapping[str, str] | None = None, *, now_s: float) -> Verdict:
    """Read an endpoint's answer (Standard Webhooks, "Delivery success and failure").

    2xx is done; 410 stops and disables; everything else is a failure to be retried, a redirect too: we never
    follow one. `Retry-After` (seconds or a date) is honoured up to a day; `headers` are in lower case.
    """
    if 200 <= status <= 299:
        return Verdict(Outcome.DONE)
    if status == 410:
        return Verdict(Outcome.DISABLE)
    return Verdict(Outcome.RETRY, _retry_after_s((headers or {}).get("retry-after", ""), now_s))


def next_attempt_at(attempt: int, now_ms: int, rand: Callable[[], float], *, wait_s: int = 0) -> int | None:
    """When to try again (epoch ms), after `attempt` attempts were made; None when that was the last.

    `next_attempt_at(0, …)` is the first attempt: now. `rand` gives numbers in [0, 1): `random.random`.
    `wait_s` is `Verdict.wait_s`: it may put an attempt off, never bring it forward or add one.
    """
    if attempt < 0:
        raise ValueError("attempts made are counted from 0")
    if attempt >= len(SCHEDULE_S):
        return None
    delay_ms = int(SCHEDULE_S[attempt] * 1_000 * (1 - JITTER + 2 * JITTER * rand()))
    return now_ms + max(delay_ms, min(wait_s, MAX_RETRY_AFTER_S) * 1_000)


def _keys(secrets: Sequence[str]) -> list[bytes]:
    # A lone secret is a sequence of characters to Python, and never what was meant.
    keys = [_key(secret) for secret in ((secrets,) if isinstance(secrets, str) else secrets)]
    if not keys:
        raise ValueError("no webhook secret given")
    return keys


def _key(secret: str) -> bytes:
    text = secret.removeprefix(_PREFIX)
    try:
        # Other Standard Webhooks libraries print and accept secrets without padding.
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise BadSecret from None
    if not _MIN_KEY_BYTES <= len(key) <= _MAX_KEY_BYTES:
        raise BadSecret
    return key


def _signature(key: bytes, signed: bytes) -> str:
    return "v1," + binascii.b2a_base64(hmac.digest(key, signed, "sha256"), newline=False).decode("ascii")


def _wire(text: str) -> bytes:
    """Header text to bytes; never fails, whatever a server decoded it with."""
    return text.encode("utf-8", "surrogatepass")


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if value is None:
        value = next((value for key, value in headers.items() if key.lower() == name), None)
    if not value:
        raise WebhookVerificationError(f"{name} is missing")
    if len(value) > _MAX_HEADER_CHARS:
        raise WebhookVerificationError(f"{name} is too long")
    return value


def _retry_after_s(value: str, now_s: float) -> int:
    value = value.strip()
    if len(value) > 64:
        return 0
    if value.isascii() and value.isdigit():
        return min(int(value), MAX_RETRY_AFTER_S)
    try:
        at = parsedate_to_datetime(value)
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return max(0, min(round(at.timestamp() - now_s), MAX_RETRY_AFTER_S))
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0  # an endpoint's nonsense is no reason to treat it otherwise
