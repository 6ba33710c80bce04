"""Standard Webhooks: what we sign, others verify; what others sign, we verify; and when we try again."""

from __future__ import annotations

import base64
import doctest
import json
import subprocess
import sys
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from tillgate import webhooks
from tillgate.domain.errors import TillgateError
from tillgate.webhooks import (
    BadSecret,
    Outcome,
    Verdict,
    WebhookVerificationError,
    judge,
    new_secret,
    next_attempt_at,
    sign,
    verify,
)

# The example of the Standard Webhooks reference libraries.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP = 1_614_265_330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

OTHER = "whsec_" + base64.b64encode(b"another secret of 32 random byte").decode()


def headers(signature: str = SIGNATURE, **changed: str) -> dict[str, str]:
    given = {"webhook-id": MESSAGE_ID, "webhook-timestamp": str(TIMESTAMP), "webhook-signature": signature}
    return given | {name.replace("_", "-"): value for name, value in changed.items()}


# --- sign ---------------------------------------------------------------------------------------------------


def test_signs_the_published_example() -> None:
    assert sign([SECRET], MESSAGE_ID, TIMESTAMP, BODY) == {
        "webhook-id": MESSAGE_ID,
        "webhook-timestamp": "1614265330",
        "webhook-signature": SIGNATURE,
    }


@given(
    key=st.binary(min_size=24, max_size=64),
    message_id=st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True),
    timestamp_s=st.integers(0, 4_000_000_000),
    body=st.text(),
)
def test_signs_byte_for_byte_as_the_reference_library(
    key: bytes, message_id: str, timestamp_s: int, body: str
) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    theirs = standardwebhooks.Webhook(secret).sign(
        msg_id=message_id, timestamp=datetime.fromtimestamp(timestamp_s, tz=UTC), data=body
    )

    assert sign([secret], message_id, timestamp_s, body.encode())["webhook-signature"] == theirs


def test_the_reference_library_verifies_what_we_sign() -> None:
    now = int(datetime.now(tz=UTC).timestamp())
    body = json.dumps({"status": "paid", "buyer": "Зарина"}, ensure_ascii=False).encode()
    sent = sign([OTHER, SECRET], "evt_1", now, body)

    assert standardwebhooks.Webhook(SECRET).verify(body, sent) == {"status": "paid", "buyer": "Зарина"}
    assert standardwebhooks.Webhook(OTHER).verify(body, sent) == {"status": "paid", "buyer": "Зарина"}


def test_a_rotation_signs_with_every_secret_in_order() -> None:
    both = sign([OTHER, SECRET], MESSAGE_ID, TIMESTAMP, BODY)["webhook-signature"]

    first, second = both.split(" ")
    assert first != second == SIGNATURE


@pytest.mark.parametrize("message_id", ["", "evt.1", "evt 1", "evt\n1", "évt", "x" * 129])
def test_an_id_that_could_shift_the_signed_parts_is_refused(message_id: str) -> None:
    with pytest.raises(ValueError, match="webhook id"):
        sign([SECRET], message_id, TIMESTAMP, BODY)


def test_signing_without_a_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="no webhook secret"):
        sign([], MESSAGE_ID, TIMESTAMP, BODY)
    with pytest.raises(ValueError, match="no webhook secret"):
        verify([], headers(), BODY, now_s=TIMESTAMP)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "whsec_" + "A" * 31,
        "whsec_c2hvcnQ=",
        "whsec_" + "A" * 92,
        "whsec_ümlaut",
        "whsec_ a b c d",
        "whsec_" + "AAAA AAAA" * 4,
        "whsec_" + "A" * 32 + "\n",
        "whsec_" + "_-" * 16,
    ],
    ids=[
        "empty", "prefix", "23 bytes", "short", "69 bytes", "not ascii", "spaces",
        "space inside", "line end", "base64url",
    ],
)  # fmt: skip
def test_a_weak_or_broken_secret_is_refused_and_not_repeated(secret: str) -> None:
    for call in (
        lambda: sign([secret], MESSAGE_ID, TIMESTAMP, BODY),
        lambda: verify([secret], headers(), BODY, now_s=TIMESTAMP),
    ):
        with pytest.raises(BadSecret) as refused:
            call()
        assert str(refused.value) == "A webhook secret is `whsec_` and the base64 of 24 to 64 random bytes."


def test_a_new_secret_is_long_fresh_and_taken_by_the_reference_library() -> None:
    one, two = new_secret(), new_secret()

    assert one != two
    assert one.startswith("whsec_")
    assert len(base64.b64decode(one.removeprefix("whsec_"), validate=True)) == 32
    now = int(datetime.now(tz=UTC).timestamp())
    standardwebhooks.Webhook(one).verify(b"{}", sign([one], "evt_1", now, b"{}"))


# --- verify -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        headers(),
        {name.title(): value for name, value in headers().items()},
        headers("v1a,c29tZXRoaW5n v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc= " + SIGNATURE),
        headers() | {"content-type": "application/json"},
    ],
    ids=["as sent", "other case", "among others", "among other headers"],
)
def test_verifies_the_published_example(given: dict[str, str]) -> None:
    verify([SECRET], given, BODY, now_s=TIMESTAMP + 3.5)
    verify(SECRET, given, BODY, now_s=TIMESTAMP)  # a lone secret is what a hurried merchant passes
    verify([SECRET.removeprefix("whsec_")], given, BODY, now_s=TIMESTAMP)
    verify([OTHER, SECRET], given, BODY, now_s=TIMESTAMP)


def test_a_secret_without_padding_verifies() -> None:
    padded = new_secret()
    assert padded.endswith("=")
    verify([padded.rstrip("=")], sign([padded], "evt_1", TIMESTAMP, BODY), BODY, now_s=TIMESTAMP)


@pytest.mark.parametrize(
    ("given", "body", "now_s", "says"),
    [
        (headers(), BODY + b" ", TIMESTAMP, "no signature matches"),
        (headers(), b"", TIMESTAMP, "no signature matches"),
        (headers(webhook_id="msg_other"), BODY, TIMESTAMP, "no signature matches"),
        (headers(webhook_id="msg_p5jXN8AQM9LWM0D4loKWxJek.1"), BODY, TIMESTAMP, "no signature matches"),
        (headers(webhook_timestamp="1614265331"), BODY, TIMESTAMP, "no signature matches"),
        (headers(webhook_timestamp="01614265330"), BODY, TIMESTAMP, "no signature matches"),
        (headers(SIGNATURE[:-2] + "A="), BODY, TIMESTAMP, "no signature matches"),
        (headers("v2," + SIGNATURE[3:]), BODY, TIMESTAMP, "no signature matches"),
        (headers("v1a," + SIGNATURE[3:]), BODY, TIMESTAMP, "no signature matches"),
        (headers(SIGNATURE[3:]), BODY, TIMESTAMP, "no signature matches"),
        (headers("v1,"), BODY, TIMESTAMP, "no signature matches"),
        (headers("v1,\udcff"), BODY, TIMESTAMP, "no signature matches"),
        (headers("é \ud800"), BODY, TIMESTAMP, "no signature matches"),
        (headers(webhook_id="\udcff"), BODY, TIMESTAMP, "no signature matches"),
        (headers(" ".join([SIGNATURE] * 17)), BODY, TIMESTAMP, "too many signatures"),
        (headers("v1," + "A" * 5000), BODY, TIMESTAMP, "too long"),
        (headers(""), BODY, TIMESTAMP, "webhook-signature is missing"),
        (headers(webhook_id=""), BODY, TIMESTAMP, "webhook-id is missing"),
        ({}, BODY, TIMESTAMP, "webhook-id is missing"),
        (headers(webhook_timestamp="soon"), BODY, TIMESTAMP, "not a number of seconds"),
        (headers(webhook_timestamp="1614265330.0"), BODY, TIMESTAMP, "not a number of seconds"),
        (headers(webhook_timestamp="-1614265330"), BODY, TIMESTAMP, "not a number of seconds"),
        (headers(webhook_timestamp="١٦١٤٢٦٥٣٣٠"), BODY, TIMESTAMP, "not a number of seconds"),
        (headers(webhook_timestamp="9" * 400), BODY, TIMESTAMP, "not a number of seconds"),
        (headers(), BODY, TIMESTAMP + 301, "too old"),
        (headers(), BODY, TIMESTAMP - 301, "in the future"),
    ],
)
def test_a_forged_or_stale_webhook_is_refused(
    given: dict[str, str], body: bytes, now_s: float, says: str
) -> None:
    with pytest.raises(WebhookVerificationError, match=says) as refused:
        verify([SECRET], given, body, now_s=now_s)
    assert SIGNATURE[3:] not in str(refused.value)
    assert isinstance(refused.value, TillgateError)
    assert refused.value.status == 401


def test_a_webhook_signed_with_another_secret_is_refused() -> None:
    with pytest.raises(WebhookVerificationError):
        verify([OTHER], headers(), BODY, now_s=TIMESTAMP)


def test_the_tolerance_is_inclusive_on_both_sides_and_adjustable() -> None:
    verify([SECRET], headers(), BODY, now_s=TIMESTAMP + 300)
    verify([SECRET], headers(), BODY, now_s=TIMESTAMP - 300)
    verify([SECRET], headers(), BODY, now_s=TIMESTAMP + 9_000, tolerance_s=9_000)
    with pytest.raises(WebhookVerificationError, match="too old"):
        verify([SECRET], headers(), BODY, now_s=TIMESTAMP + 2, tolerance_s=1)


@given(
    secret=st.text(max_size=80) | st.just(SECRET),
    given=st.dictionaries(
        st.sampled_from(["webhook-id", "Webhook-Timestamp", "webhook-signature", "x"]), st.text(max_size=60)
    ),
    body=st.binary(max_size=60),
)
def test_nothing_hostile_raises_anything_else(secret: str, given: dict[str, str], body: bytes) -> None:
    with pytest.raises((WebhookVerificationError, BadSecret)):
        verify([secret], given, body, now_s=TIMESTAMP)


def test_the_examples_in_the_docstrings_run() -> None:
    found = doctest.testmod(webhooks)
    assert (found.failed, found.attempted) == (0, 4)


# --- judge --------------------------------------------------------------------------------------------------

NOW_S = 1_700_000_000.0


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "done"), (201, "done"), (202, "done"), (204, "done"), (299, "done"),
        (410, "disable"),
        (301, "retry"), (302, "retry"), (304, "retry"), (307, "retry"), (308, "retry"),
        (400, "retry"), (401, "retry"), (403, "retry"), (404, "retry"), (409, "retry"), (429, "retry"),
        (500, "retry"), (502, "retry"), (503, "retry"), (504, "retry"),
        (101, "retry"), (199, "retry"), (600, "retry"), (999, "retry"), (0, "retry"),
    ],
)  # fmt: skip
def test_an_answer_means_what_the_specification_says(status: int, outcome: str) -> None:
    assert judge(status, now_s=NOW_S) == Verdict(Outcome(outcome), 0)


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("0", 0),
        ("86400", 86_400),
        ("999999999", 86_400),
        (format_datetime(datetime.fromtimestamp(NOW_S + 90, tz=UTC), usegmt=True), 90),
        ("Tue, 14 Nov 2023 22:13:50 -0000", 30),
        (format_datetime(datetime.fromtimestamp(NOW_S - 90, tz=UTC), usegmt=True), 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400),
        ("", 0),
        ("-5", 0),
        ("1.5", 0),
        ("soon", 0),
        ("٣", 0),
        ("Tue, 99 Nov 2023 22:13:50 GMT", 0),
        ("9" * 10_000, 0),
    ],
)
def test_retry_after_is_honoured_within_bounds(value: str, wait_s: int) -> None:
    assert judge(503, {"retry-after": value}, now_s=NOW_S) == Verdict(Outcome.RETRY, wait_s)


def test_retry_after_changes_neither_done_nor_disable() -> None:
    assert judge(200, {"retry-after": "60"}, now_s=NOW_S) == Verdict(Outcome.DONE)
    assert judge(410, {"retry-after": "60"}, now_s=NOW_S) == Verdict(Outcome.DISABLE)


@given(st.text(max_size=70))
def test_no_retry_after_can_break_us(value: str) -> None:
    assert 0 <= judge(429, {"retry-after": value}, now_s=NOW_S).wait_s <= 86_400


# --- when to try again --------------------------------------------------------------------------------------

MINUTE, HOUR = 60_000, 3_600_000
WAITS_MS = [
    0, 5_000, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR
]  # fmt: skip


@pytest.mark.parametrize(("attempt", "wait_ms"), list(enumerate(WAITS_MS)))
def test_the_schedule_with_its_jitter(attempt: int, wait_ms: int) -> None:
    now = 1_700_000_000_000

    assert next_attempt_at(attempt, now, lambda: 0.5) == now + wait_ms
    assert next_attempt_at(attempt, now, lambda: 0.0) == now + wait_ms * 9 // 10
    assert next_attempt_at(attempt, now, lambda: 0.999999) == pytest.approx(now + wait_ms * 1.1, abs=200)


def test_it_gives_up_after_ten_attempts_in_about_three_days() -> None:
    at, attempts = 0, 0
    while (then := next_attempt_at(attempts, at, lambda: 0.5)) is not None:
        at, attempts = then, attempts + 1

    assert attempts == 10
    assert at == 75 * HOUR + 35 * MINUTE + 5_000
    assert next_attempt_at(10, 0, lambda: 0.5) is None
    assert next_attempt_at(11, 0, lambda: 0.5, wait_s=60) is None


def test_an_endpoint_may_put_an_attempt_off_but_never_bring_it_forward() -> None:
    assert next_attempt_at(1, 0, lambda: 0.5, wait_s=60) == 60_000
    assert next_attempt_at(2, 0, lambda: 0.5, wait_s=60) == 5 * MINUTE
    assert next_attempt_at(1, 0, lambda: 0.5, wait_s=10**9) == 24 * HOUR


def test_attempts_are_counted_from_zero() -> None:
    with pytest.raises(ValueError, match="counted from 0"):
        next_attempt_at(-1, 0, lambda: 0.5)


def test_importing_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, tillgate.webhooks, tillgate.ssrf\n"
        "print({'aiohttp', 'sqlalchemy', 'fastapi', 'pydantic', 'asyncio'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
