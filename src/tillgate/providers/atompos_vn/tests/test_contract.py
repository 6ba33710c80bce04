"""The IPN contract: every wrong type, every missing field, every code, in the documented order of checks."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from tillgate.domain import errors
from tillgate.domain.dialogue import Hint, Tell
from tillgate.domain.errors import Refusal, TryLater
from tillgate.domain.payment import Paid
from tillgate.providers.atompos_vn import AtomPos, contract
from tillgate.providers.atompos_vn.cards import scrubbed
from tillgate.providers.atompos_vn.requests import payment_request
from tillgate.spi import Inbound

from .conftest import config, ipn, post

OPEN = {"auth": "none", "allow_ips": []}


@pytest.fixture
def pos() -> AtomPos:
    return AtomPos(config(**OPEN))


def answered(pos: AtomPos, call: Inbound) -> tuple[int, dict[str, str], dict[str, str]]:
    """HTTP status, the two texts, headers."""
    heard, refusal = None, None
    try:
        heard = pos.hear(call)
    except Refusal as error:
        refusal = error
    reply = pos.answer(call, heard, refusal)
    assert reply.content_type == "application/json"
    return reply.status, json.loads(reply.body), dict(reply.headers)


def test_success_is_answered_with_exactly_these_bytes(pos: AtomPos) -> None:
    call = post(ipn())
    reply = pos.answer(call, pos.hear(call), None)
    assert (reply.status, reply.body) == (200, b'{"code":"00","message":"success"}')


MESSAGES = {
    "01": "Authenticate error",
    "02": "The requested URL was not found on the server.",
    "03": "Missing one or more required fields.",
    "04": "Invalid Field Type",
    "05": "Unauthorized Access",
    "06": "Permission Denied",
    "07": "POS Connect failed",
}


def test_the_messages_are_those_of_the_document() -> None:
    assert {code: contract.MESSAGES[code] for code in MESSAGES} == MESSAGES
    assert json.loads(contract.reply("07")) == {"code": "07", "message": "POS Connect failed"}


@pytest.mark.parametrize("name", list(ipn()))
def test_a_missing_field_is_03(pos: AtomPos, name: str) -> None:
    message = ipn()
    del message[name]
    assert answered(pos, post(message))[:2] == (400, {"code": "03", "message": MESSAGES["03"]})


WRONG = [0, 1, -1, 1.5, True, False, None, [], {}, ["x"], {"a": "b"}, 10**400]


@pytest.mark.parametrize("value", WRONG, ids=str)
@pytest.mark.parametrize("name", [name for name in ipn() if name != "extraData"])
def test_a_text_field_of_another_type_is_04(pos: AtomPos, name: str, value: Any) -> None:
    assert answered(pos, post(ipn(**{name: value})))[:2] == (400, {"code": "04", "message": MESSAGES["04"]})


@pytest.mark.parametrize(
    "value",
    ["text", 1, True, None, [], [{"a": "b"}], {"a": 1}, {"a": None}, {"a": ["b"]}, {"a": {"b": "c"}}],
    ids=str,
)
def test_extra_data_is_an_object_of_texts(pos: AtomPos, value: Any) -> None:
    assert answered(pos, post(ipn(extraData=value)))[1]["code"] == "04"


@pytest.mark.parametrize(
    "amount",
    [
        "", "abc", "-5", "+5", "1e5", "NaN", "Infinity", " 10000", "10000 ", "10,000", "10.5", "10000.01",
        "0x10", "10000.000", "1" * 16, "١٠٠٠٠", "10_000", ".00", "10000.", "\u00b2", "10000\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["amount", "tip"])
def test_text_that_is_no_amount_in_dong_is_04(pos: AtomPos, name: str, amount: str) -> None:
    assert answered(pos, post(ipn(**{name: amount})))[1]["code"] == "04"


@pytest.mark.parametrize(
    ("amount", "dong"),
    [
        ("10000", 10_000),
        ("10000.0", 10_000),
        ("10000.00", 10_000),
        ("007", 7),
        ("9" * 15, 10**15 - 1),
    ],
)
def test_amounts_in_dong_are_read(pos: AtomPos, amount: str, dong: int) -> None:
    message = pos.hear(post(ipn(amount=amount))).message
    assert isinstance(message, Tell)
    assert isinstance(message.facts[0], Paid)
    assert message.facts[0].total_minor == dong


@pytest.mark.parametrize("amount", ["0", "000", "0.0", "0.00"])
def test_nothing_cannot_have_been_paid(pos: AtomPos, amount: str) -> None:
    assert answered(pos, post(ipn(amount=amount)))[:2] == (400, {"code": "04", "message": MESSAGES["04"]})
    assert answered(pos, post({**OLD, "amount": amount}))[1]["code"] == "04"
    refused = {**OLD, "amount": amount, "resultResponseCode": "05"}  # not paid, and not said to be
    assert isinstance(pos.hear(post(refused)).message, Hint)
    assert answered(pos, post(ipn(tip=amount)))[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"5",
        b"{",
        b"{}}",
        b"\xff{}",
        b"\xef\xbb\xbf{}",
        json.dumps(ipn()).encode("utf-16"),
        json.dumps(ipn())[:-1].encode() + b',"amount":"1"}',
        json.dumps(ipn())[:-1].encode() + b',"x":NaN}',
        json.dumps(ipn(x=[[[[[[[[["deep"]]]]]]]]])).encode(),
        b"[" * 500_000,
        b'{"a":' * 200_000,
        json.dumps(ipn(requestId="")).encode(),
        json.dumps(ipn(requestId="a\0b")).encode(),
        json.dumps(ipn(requestId="x" * 129)).encode(),
        json.dumps(ipn(narrative="x" * 4097)).encode(),
        json.dumps(ipn(narrative="\ud800")).encode(),
        json.dumps(ipn(extraData={str(n): "x" for n in range(65)})).encode(),
    ],
)
def test_what_is_no_ipn_is_04(pos: AtomPos, body: bytes) -> None:
    assert answered(pos, post(body))[:2] == (400, {"code": "04", "message": MESSAGES["04"]})


def test_an_empty_object_is_03_and_a_large_body_413(pos: AtomPos) -> None:
    assert answered(pos, post({}))[:2] == (400, {"code": "03", "message": MESSAGES["03"]})
    assert answered(pos, post(b" " * ((1 << 20) + 1)))[:2] == (413, {"code": "04", "message": MESSAGES["04"]})


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_another_method_is_02_with_405(pos: AtomPos, method: str) -> None:
    status, body, headers = answered(pos, post(ipn(), method=method))
    assert (status, body["code"], headers["allow"]) == (405, "02", "POST")


def test_missing_comes_before_type_and_everything_before_it() -> None:
    """Order of checks: method, authentication, size, JSON, missing (all of them), types."""
    strict = AtomPos(config())
    broken = ipn(amount=5)
    del broken["tip"]
    steps = [
        ({"method": "GET", "body": b" " * 2_000_000}, "02"),
        ({"body": b" " * 2_000_000}, "05"),
        ({"body": b" " * 2_000_000, "token": "junk"}, "01"),
    ]
    for step, code in steps:
        body = step.pop("body")
        assert answered(strict, post(body, **step))[1]["code"] == code  # type: ignore[arg-type]
    pos = AtomPos(config(**OPEN))
    assert answered(pos, post(b" " * 2_000_000))[0] == 413
    assert answered(pos, post(broken))[1]["code"] == "03"


def test_fields_are_kept_as_sent() -> None:
    message = ipn(
        paymentType="ví điện tử mới", orderId="", unknown={"a": [1]}, amount="10000.00", narrative=""
    )
    kept = contract.read_ipn(json.dumps(message).encode())
    for name in ipn():
        assert getattr(kept, name) == message[name]
    assert kept.model_dump() == {name: message[name] for name in ipn()}
    assert kept.dict() == kept.model_dump()


def test_the_digest_ignores_the_order_of_keys_and_space_and_nothing_else() -> None:
    message = ipn()
    one = contract.read_ipn(json.dumps(message).encode())
    shuffled = contract.read_ipn(json.dumps(dict(reversed(message.items())), indent=3).encode())
    assert one.digest == shuffled.digest
    for name in ipn():
        other = {"other": "1"} if name == "extraData" else "1"
        assert contract.read_ipn(json.dumps(ipn(**{name: other})).encode()).digest != one.digest


def test_an_ipn_is_paid_with_its_tip_apart(pos: AtomPos) -> None:
    heard = pos.hear(post(ipn()))
    assert isinstance(heard.message, Tell)
    assert heard.message.facts == (
        Paid(10_000, "VND", tip_minor=500, paid_with="qr", external_id="00017-058-0001"),
    )
    assert heard.message.operation_id == heard.message.external_id == "00017-058-0001"
    assert heard.message.references == ("00017-058-0001", "1234:5263763487")
    again = pos.hear(post(ipn())).message
    other = pos.hear(post(ipn(requestId="2"))).message
    assert again == heard.message
    assert isinstance(other, Tell)
    assert other.event_id != heard.message.event_id


def test_only_a_known_request_counts_where_that_is_asked_for() -> None:
    message = AtomPos(config(**OPEN, require_known_request=True)).hear(post(ipn())).message
    assert isinstance(message, Tell)
    assert message.references == ("00017-058-0001",)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("QR", "qr"),
        ("VietQR", "qr"),
        ("CreditCard", "card"),
        ("CARD", "card"),
        ("E-Wallet", "wallet"),
        ("???", "other"),
        ("", "other"),
    ],
)
def test_payment_types_are_sorted_and_never_refused(text: str, kind: str) -> None:
    assert contract.kind_of_payment(text) == kind


def test_permanent_errors_can_be_acknowledged() -> None:
    pos = AtomPos(config(**OPEN, ack_permanent_errors=True))
    assert answered(pos, post({}))[:2] == (200, {"code": "03", "message": MESSAGES["03"]})
    assert answered(pos, post(b"{"))[:2] == (200, {"code": "04", "message": MESSAGES["04"]})
    assert answered(pos, post(ipn(), method="GET"))[0] == 405


def test_every_refusal_has_a_word(pos: AtomPos) -> None:
    known = [*vars(errors).values(), *vars(contract).values()]
    refusals = [one for one in known if isinstance(one, type) and issubclass(one, Refusal)]
    assert len(refusals) > 15
    for kind in refusals:
        if kind is contract.Worded:
            continue
        reply = pos.answer(post(ipn()), None, kind())
        body = json.loads(reply.body)
        assert set(body) == {"code", "message"}
        assert body["code"] in {"01", "02", "03", "04", "05", "06", "07", "99"}
        assert reply.status >= 300
    reply = pos.answer(post(ipn()), None, TryLater())
    assert (reply.status, json.loads(reply.body)["code"], reply.headers["retry-after"]) == (503, "99", "5")


# --- card numbers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("4111111111111111", "************1111"),
        ("5555555555554444", "************4444"),
        ("4111111111111112", "4111111111111112"),
        ("0011004123456", "0011004123456"),
        ("411111******1111", "411111******1111"),
        ("970436123456", "970436123456"),
    ],
)
def test_a_whole_card_number_is_never_kept(sent: str, kept: str) -> None:
    body = json.dumps(ipn(fromAccNo=sent)).encode()
    assert contract.read_ipn(body).fromAccNo == kept
    assert json.loads(scrubbed(body))["fromAccNo"] == kept


CARD = "4539148803436467"
SPELT = {
    "plain": CARD,
    "spaces": "4539 1488 0343 6467",
    "dashes": "4539-1488-0343-6467",
    "dots": "4539.1488.0343.6467",
    "in words": "Visa 4539 - 1488 - 0343 - 6467, thanks",
    "before other digits": "4539148803436467 12 28 123",
    "after other digits": "970 4539148803436467",
    "15 digits": "3782 822463 10005",
    "a NAPAS card of 19": "9704 3600 1234 5678 907",
}


def digits(text: str) -> str:
    return "".join(one for one in text if one in "0123456789")


@pytest.mark.parametrize("escaped", [False, True], ids=["as it is", "escaped"])
@pytest.mark.parametrize(
    "name", ["fromAccNo", "narrative", "paymentType", "extraData", "a name in extraData"]
)
@pytest.mark.parametrize("sent", SPELT.values(), ids=SPELT)
def test_a_whole_card_number_is_kept_in_no_field_and_no_spelling(sent: str, name: str, escaped: bool) -> None:
    """And what the host's function is given is what was booked, told and compared."""
    named = {"extraData": {"extraData": {"card": sent}}, "a name in extraData": {"extraData": {sent: "x"}}}
    body = json.dumps(ipn(**named.get(name, {name: sent})), ensure_ascii=False)
    if escaped:
        body = body.replace(sent, "".join(f"\\u{ord(one):04x}" for one in sent))
    kept, read = scrubbed(body.encode()), contract.read_ipn(body.encode())
    assert contract.read_ipn(kept) == read
    assert contract.read_ipn(kept).digest == read.digest
    assert scrubbed(kept) == kept
    whole = next(one for one in (CARD, "378282246310005", "9704360012345678907") if one in digits(sent))
    for text in (kept.decode(), json.dumps(read.dict())):
        assert whole not in digits(text)
        assert whole[:-4] not in digits(text)
        assert re.search(rf"\*[*. -]*{'[. -]*'.join(whole[-4:])}", text)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(ipn(fromAccNo=int(CARD))).encode(),
        json.dumps(ipn(fromAccNo=float(CARD))).encode(),
        json.dumps(ipn()).encode().replace(b'"0011004123456"', b"4.539148803436467E15"),
        json.dumps(ipn(fromAccNo=[CARD])).encode(),
        json.dumps(ipn(unknown=[{"pan": int(CARD)}], amount=7)).encode(),
        json.dumps(ipn())[:-1].encode() + b',"fromAccNo":"%b","fromAccNo":"x"}' % CARD.encode(),
        json.dumps(ipn(fromAccNo="4539 1488 0343 6467"))[:-1].encode(),
        json.dumps(ipn(fromAccNo=CARD)).replace(CARD, "\\u0034" + CARD[1:])[:-1].encode(),
        json.dumps(ipn(fromAccNo=CARD)).encode("utf-16"),
        b"fromAccNo=4539+4539148803436467&x=\xff",
        b"4539 1488 0343 6467",
    ],
)
def test_nor_in_a_body_that_is_refused(pos: AtomPos, body: bytes) -> None:
    assert answered(pos, post(body))[1]["code"] == "04"
    kept = scrubbed(body)
    assert CARD not in digits(kept.replace(b"\\u0034", b"4").decode("latin-1"))
    assert b"6467" in kept.replace(b"\0", b"")
    assert scrubbed(kept) == kept


def test_numbers_that_are_no_cards_stay_as_they_came() -> None:
    """Of some of them the check digit is right by chance."""
    message = ipn(
        requestId=CARD,
        orderId="4539-1488-0343-6467",
        amount="411111111111111",
        narrative="20261122093017 1795000000008 0000000000000000 12345678901234567890123 4111111111111112",
        extraData={"orderId": CARD, "rrn": "411111111111", "at": "1795000000008"},
        unknown={"requestID": CARD, "resultTxnID": CARD, "n": 17950000000000},
    )
    for body in (json.dumps(message), json.dumps(message, ensure_ascii=False, indent=1)):
        assert scrubbed(body.encode()) == body.encode()
    assert contract.read_ipn(body.encode()).model_dump() == {name: message[name] for name in ipn()}


def test_what_is_cut_out_leaves_every_other_byte() -> None:
    body = b' {"n" : 1.50, "t\\u00e1":"\\u00e1", "pan":4111111111111111,"n":1e400 }\n'
    assert scrubbed(body) == body.replace(b"4111111111111111", b'"************1111"')


def test_a_body_of_nothing_but_numbers_takes_no_time() -> None:
    """A stranger's, too, is scrubbed before it is kept."""
    for text in ("1234 " * 200_000, "1 " * 500_000, "4111 1111 1111 1111 " * 50_000, "4" * 1_000_000):
        for body in (text.encode(), json.dumps(ipn(narrative=text)).encode()):
            begun = time.process_time()
            kept = scrubbed(body)
            assert time.process_time() - begun < 2
            assert b"4111 1111" not in kept


def test_an_account_is_not_in_what_is_logged() -> None:
    assert "0011004123456" not in repr(contract.read_ipn(json.dumps(ipn()).encode()))


# --- the older notification, and what merchants send --------------------------------------------------------

OLD = {
    "resultTxnID": "TXN-9",
    "Status": "SUCCESS",
    "requestID": "00017-058-0001",
    "requestType": "SALE",
    "ipnUrl": "http://192.168.1.5/ipn",
    "amount": "10000",
    "tip": "0",
    "resultResponseCode": "00",
}


def test_the_older_notification_is_money_only_where_the_mapping_says_so(pos: AtomPos) -> None:
    message = pos.hear(post(OLD)).message
    assert isinstance(message, Tell)
    assert message.operation_id == "00017-058-0001"
    assert message.facts == (Paid(10_000, "VND", external_id="TXN-9"),)
    for code in ("05", "", "0", "SUCCESS"):
        doubt = pos.hear(post({**OLD, "resultResponseCode": code})).message
        assert doubt == Hint(operation_id="00017-058-0001", external_id="00017-058-0001")
    for wrong in ({"amount": 10_000}, {"amount": "-1"}, {"Status": None}, {"requestID": ""}):
        assert answered(pos, post({**OLD, **wrong}))[1]["code"] == "04"
    for name in ("Status", "resultResponseCode", "amount"):
        assert answered(pos, post({k: v for k, v in OLD.items() if k != name}))[1]["code"] == "03"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"amount": "0"}, contract.WrongType),
        ({"amount": 0}, contract.WrongType),
        ({"amount": -1}, contract.WrongType),
        ({"amount": 1.0}, contract.WrongType),
        ({"amount": True}, contract.WrongType),
        ({"amount": None}, contract.WrongType),
        ({"requestType": "VOID"}, contract.WrongType),
        ({"requestId": ""}, contract.WrongType),
        ({"requestId": 5}, contract.WrongType),
        ({"extraData": "x"}, contract.WrongType),
        ({"extraData": [{"a": 1}]}, contract.WrongType),
        ({"terminalId": 5}, contract.WrongType),
        ({"requestId": None}, contract.MissingFields),
    ],
    ids=str,
)
def test_a_payment_request_that_is_none(changes: dict[str, Any], error: type[Exception]) -> None:
    message = {"requestId": "r-1", "orderId": "o-1", "amount": "10000", **changes}
    with pytest.raises(error):
        payment_request(message)


def test_a_payment_request_in_both_spellings() -> None:
    one = payment_request({"requestId": "r-1", "orderId": "o-1", "amount": "10000", "tip": "5"})
    two = payment_request({"requestID": "r-1", "orderId": "o-1", "amount": 10000, "tip": 5, "extraData": []})
    assert one == two
    assert (one.amount_minor, one.tip_minor) == (10_000, 5)
    listed = payment_request(
        {"requestId": "r", "orderId": "o", "amount": 1, "extraData": [{"a": "b"}, {"c": "d"}]}
    )
    assert listed.extra == {"a": "b", "c": "d"}
