"""What AtomPay tells us, and what it would take to fool us."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import pytest

from tillgate.domain import errors
from tillgate.domain.dialogue import Hint, Noise, Tell
from tillgate.domain.errors import Refusal, TryLater, Unauthenticated, UnknownMethod, Unreadable
from tillgate.domain.payment import Accepted, Closed, Paid, Reversed
from tillgate.providers.atompay_in import AtomPay
from tillgate.providers.atompay_in.simulator_crypto import encrypt, signature
from tillgate.spi import Inbound

from .conftest import config, post

RES_KEY, RES_HASH = "75AEF0FA1B94B3C10D4F5B268F757F11", "KEYRESP123657234"
OPERATION = "0198a1b2c3d4e5f60718293a4b5c6d7e"


def callback(**changes: Any) -> dict[str, Any]:
    """A payment of 319.00 with a surcharge, as the gateway reports it; `changes` are made after signing."""
    merch_id = changes.pop("merch_id", 317157)
    code, mode = changes.pop("code", "OTS0000"), changes.pop("mode", ["NB"])
    bank = changes.pop("bank", "B1234567")
    total = changes.pop("total", "336.67")
    first = mode[0] if isinstance(mode, list) and mode else mode or ""
    signed = signature(
        changes.pop("hash_key", RES_HASH),
        [str(merch_id), "11000000123456", OPERATION, total, code, first, bank or ""],
    )
    pay: dict[str, Any] = {
        "atomTxnId": 11000000123456,
        "prodDetails": [{"prodName": "NSE", "prodAmount": 319.0}],
        "amount": 319.0,
        "surchargeAmount": 17.67,
        "totalAmount": float(total),
        "txnCurrency": "INR",
        "signature": signed,
        "txnInitDate": "2026-11-20 23:59:58",
        "txnCompleteDate": "2026-11-21 00:00:31",
        **changes,
    }
    return {
        "payInstrument": {
            "merchDetails": {
                "merchId": merch_id,
                "merchTxnId": OPERATION,
                "merchTxnDate": "2026-11-20T23:59:58",
            },
            "payDetails": pay,
            "payModeSpecificData": {
                "subChannel": mode,
                "bankDetails": {"bankTxnId": bank, "otsBankId": 2001},
            },
            "extras": {"udf1": "OTS0000"},
            "responseDetails": {"statusCode": code, "message": "SUCCESS", "description": "SUCCESS"},
        }
    }


def form(message: Any, *, key: str = RES_KEY, merch_id: str | None = "317157") -> bytes:
    fields = {"encData": message if isinstance(message, str) else encrypt(message, key)}
    return urlencode(fields | ({"merchId": merch_id} if merch_id else {})).encode()


@pytest.fixture
def atompay() -> AtomPay:
    return AtomPay(config())


def test_a_genuine_success_is_evidence_of_the_amount_without_the_surcharge(atompay: AtomPay) -> None:
    heard = atompay.hear(post(form(callback())))
    assert isinstance(heard.message, Tell)
    assert heard.message.operation_id == OPERATION
    assert heard.message.facts == (
        Paid(31_900, "INR", paid_with="netbanking", external_id="11000000123456", at=1_795_199_431_000),
    )


@pytest.mark.parametrize(
    ("code", "fact"),
    [
        ("OTS0000", Paid),
        ("OTS0002", Paid),
        ("OTS0551", Accepted),
        ("OTS0201", Accepted),
        ("OTS0301", Accepted),
        ("OTS0351", Accepted),
        ("OTS0101", Closed),
        ("OTS0600", Closed),
        ("OTS0612", Closed),
        ("OTS0634", Closed),
    ],
)
def test_each_status_means_one_thing(atompay: AtomPay, code: str, fact: type) -> None:
    message = atompay.hear(post(form(callback(code=code)))).message
    assert isinstance(message, Tell)
    assert [type(said) for said in message.facts] == [fact]


def test_an_automatic_reversal_tells_of_money_that_came_and_went(atompay: AtomPay) -> None:
    message = atompay.hear(post(form(callback(code="OTS0001")))).message
    assert isinstance(message, Tell)
    assert [type(fact) for fact in message.facts] == [Paid, Reversed]
    assert message.facts[1] == Reversed(31_900)


@pytest.mark.parametrize("code", ["OTS0401", "OTS0951", "OTS0506", "OTS9999", "", "SUCCESS"])
def test_a_code_that_settles_nothing_sends_us_to_look(atompay: AtomPay, code: str) -> None:
    assert atompay.hear(post(form(callback(code=code)))).message == Hint(operation_id=OPERATION)


@pytest.mark.parametrize(
    "doubt",
    [
        {"signature": None},
        {"signature": ""},
        {"mode": [], "signature": "0" * 128},
        {"bank": None, "signature": "0" * 128},
        {"amount": 319.5},
        {"amount": None},
        {"surchargeAmount": 0},
        {"totalAmount": None},
        {"txnCurrency": None},
        {"mode": ["NR"]},
    ],
    ids=str,
)
def test_doubt_is_a_hint_and_never_money(atompay: AtomPay, doubt: dict[str, Any]) -> None:
    assert atompay.hear(post(form(callback(**doubt)))).message == Hint(operation_id=OPERATION)


def test_an_amount_or_a_currency_of_another_order_is_told_as_it_came(atompay: AtomPay) -> None:
    """So that the domain holds it: the connector does not know what was due."""
    cheap = callback(total="1.00", amount=1, surchargeAmount=0)
    dollars = callback(txnCurrency="USD")
    for message, paid in ((cheap, (100, "INR")), (dollars, (31_900, "USD"))):
        told = atompay.hear(post(form(message))).message
        assert isinstance(told, Tell)
        assert isinstance(told.facts[0], Paid)
        assert (told.facts[0].total_minor, told.facts[0].currency) == paid


@pytest.mark.parametrize(
    "body",
    [
        form(callback(signature="0" * 128)),
        form(callback(hash_key=RES_KEY)),
        form(callback(hash_key="KEY123657234")),
        form(callback(atomTxnId=11000000999999)),
        form(callback(totalAmount=1.0, amount=1.0, surchargeAmount=0.0)),
        form(callback(merch_id=446442)),
        form(callback(merch_id=446442), merch_id="446442"),
        form(callback(), merch_id="446442"),
        form(callback(), key="A4476C2062FFA58980DC8F79EB6A799E"),
        form(callback(amount=-5)),
        form(callback(amount="abc")),
        form(callback(amount=1.005)),
        form(callback(amount=True)),
        form(callback(txnCurrency="<script>")),
        form({"payInstrument": None}),
        form({"payInstrument": []}),
        form({"payInstrument": "text"}),
        form([1, 2]),
        form({}),
        form("A" * 200),
        form(""),
        b"merchId=317157",
        b"",
        b"encData=00&encData=00",
        b"\xff\xfe\x00",
        b"{",
        b'{"encData":5}',
        b'{"encData":1e9999999999999999999}',
        b'{"encData":"\\ud800"}',
        b"&".join(b"a%d=1" % n for n in range(60)),
        b"encData=" + b"AB" * 5_000_000,
    ],
)
def test_what_cannot_be_genuine_is_refused_with_one_answer(atompay: AtomPay, body: bytes) -> None:
    call = post(body)
    with pytest.raises((Unauthenticated, Unreadable)) as refused:
        atompay.hear(call)
    reply = atompay.answer(call, None, refused.value)
    assert (reply.status, reply.body) == (400, b"The message cannot be accepted.")
    assert str(refused.value) == "The message cannot be accepted."


def test_a_replay_with_other_unsigned_fields_does_not_hide_the_genuine_message(atompay: AtomPay) -> None:
    genuine, repeated = (atompay.hear(post(form(callback()))).message for _ in range(2))
    other = atompay.hear(post(form(callback(txnCurrency="USD")))).message
    assert isinstance(genuine, Tell)
    assert isinstance(repeated, Tell)
    assert isinstance(other, Tell)
    assert genuine.event_id == repeated.event_id != other.event_id
    assert len(genuine.event_id or "") == 32


def test_udfs_and_messages_never_decide(atompay: AtomPay) -> None:
    failed = callback(code="OTS0600")  # its message says SUCCESS and its udf1 OTS0000
    message = atompay.hear(post(form(failed))).message
    assert isinstance(message, Tell)
    assert message.facts == (Closed("failed", "OTS0600: failed or aborted"),)


def test_shapes_that_vary_are_read(atompay: AtomPay) -> None:
    text_ids = callback(mode="NB", atomTxnId="11000000123456", amount="319.00", surchargeAmount="17.670")
    array = {"payInstrument": [callback()["payInstrument"]]}
    as_json = json.dumps({"merchId": 317157, "encData": encrypt(callback(), RES_KEY)}).encode()
    for body in (form(text_ids), form(array), as_json, form(callback(), merch_id=None)):
        message = atompay.hear(post(body)).message
        assert isinstance(message, Tell)
        assert isinstance(message.facts[0], Paid)


def test_several_transactions_in_one_message_send_us_to_look(atompay: AtomPay) -> None:
    two = {"payInstrument": [callback()["payInstrument"]] * 2}
    assert atompay.hear(post(form(two))).message == Hint(operation_id=OPERATION)


@pytest.mark.parametrize("word", ["cancelTransaction", "sessionTimeout"])
def test_the_browsers_words_are_no_evidence(atompay: AtomPay, word: str) -> None:
    call = post(form(word))
    heard = atompay.hear(call)
    assert heard.message == Noise(word)
    assert atompay.answer(call, heard, None).status == 200


def test_keys_rotate(atompay: AtomPay) -> None:
    both = AtomPay(
        config(
            res_dec_key="11112222333344445555666677778888",
            resp_hash_key="NEWRESPHASHKEY",
            previous_res_dec_key=RES_KEY,
            previous_resp_hash_key=RES_HASH,
            previous_until_ms=2_000,
        )
    )
    heard = both.hear(post(form(callback()), at=1_999))
    assert isinstance(heard.message, Tell)
    assert heard.echo == {"key": "previous"}
    with pytest.raises(Unauthenticated):
        both.hear(post(form(callback()), at=2_000))
    new = callback(hash_key="NEWRESPHASHKEY")
    heard = both.hear(post(form(new, key="11112222333344445555666677778888"), at=2_000))
    assert isinstance(heard.message, Tell)
    assert heard.echo == {"key": "current"}


def test_a_query_of_too_many_fields_is_none_of_ours(atompay: AtomPay) -> None:
    query = "&".join(f"a{n}=1" for n in range(25))
    call = post(b"encData=00", query=query)
    with pytest.raises(Unauthenticated) as refused:
        atompay.hear(call)
    assert atompay.answer(call, None, refused.value).status == 400
    assert isinstance(atompay.hear(post(form(callback()), query=query)).message, Tell)
    with pytest.raises(UnknownMethod):
        atompay.hear(Inbound("GET", "/in/acc", query, {}, b"", "127.0.0.1", 1))


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
def test_other_methods_are_not_found(atompay: AtomPay, method: str) -> None:
    call = Inbound(method, "/in/acc", "", {}, form(callback()), "127.0.0.1", 1)
    with pytest.raises(UnknownMethod) as refused:
        atompay.hear(call)
    assert atompay.answer(call, None, refused.value).status == 404


def test_every_refusal_has_an_answer(atompay: AtomPay) -> None:
    refusals = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, Refusal)]
    assert len(refusals) > 8
    call = post(form(callback()))
    for kind in refusals:
        reply = atompay.answer(call, None, kind())
        assert reply.status in (200, 400, 404, 503), kind
    assert atompay.answer(call, None, TryLater()).headers["retry-after"]


def test_a_warm_callback_costs_less_than_a_millisecond(atompay: AtomPay) -> None:
    import time

    call = post(form(callback()))
    atompay.hear(call)
    best = 1.0
    for _ in range(5):
        begun = time.process_time()
        for _ in range(100):
            atompay.hear(call)
        best = min(best, (time.process_time() - begun) / 100)
    assert best < 0.001


def test_amounts_are_read_and_written_without_loss() -> None:
    from tillgate.providers.atompay_in import wire

    read = {"1": 100, "1.5": 150, "1.50": 150, "0.07": 7, "1234567890.12": 123456789012, "4.540": 454}
    for text, paise in read.items():
        assert wire.paise(text) == wire.paise(Decimal(text)) == paise
    assert wire.paise(Decimal("1E+2")) == 10_000
    assert [wire.rupees(n) for n in (0, 7, 100, 123405)] == ["0.00", "0.07", "1.00", "1234.05"]
    for bad in ("1.005", "-1", "+1", "1e2", " 1", "1,00", "٣", "", None, True, 1.5, [], Decimal("1E+400")):
        with pytest.raises(ValueError, match="amount"):
            wire.paise(bad)
