"""Payme's words in ours and back: every expectation is written from the manual, not from the code."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from tillgate.domain import errors as e
from tillgate.domain.dialogue import Cancel, Check, Look, Note, Record, Reserve, Settle, Statement
from tillgate.domain.money import Money
from tillgate.domain.payment import Attempt
from tillgate.embed.facts import order_of
from tillgate.providers.payme import PROVIDER, accounts
from tillgate.providers.payme.config import Config
from tillgate.providers.payme.connector import Payme, reason, state
from tillgate.spi import Hears, Inbound, Invites, Reply

KEY = "the-key-of-this-cash-desk-36-letters"
ID = "5305e3bab097f420a62ced0b"
TIME = 1_399_114_284_039


def config(**changes: Any) -> Config:
    return Config(**({"merchant_id": "587f72c72cac0d162c722ae2", "key": KEY} | changes))


def call(
    body: bytes, *, login: str = "Paycom", password: str = KEY, method: str = "POST", **changes: Any
) -> Inbound:
    basic = base64.b64encode(f"{login}:{password}".encode()).decode()
    headers = {"authorization": f"Basic {basic}", "content-type": "text/json; charset=UTF-8"}
    made = Inbound(method, "/payments/payme/webhook", "", headers, body, "185.234.113.1", TIME)
    return replace(made, **changes)


def asked(method: str, params: Any, rpc_id: Any = 7, **changes: Any) -> Inbound:
    return call(json.dumps({"method": method, "params": params, "id": rpc_id}).encode(), **changes)


def answered(reply: Reply) -> dict[str, Any]:
    assert reply.status == 200
    found: dict[str, Any] = json.loads(reply.body)
    return found


def refused(payme: Payme, inbound: Inbound) -> dict[str, Any]:
    """What a refused request is answered."""
    with pytest.raises(e.Refusal) as caught:
        payme.hear(inbound)
    found: dict[str, Any] = answered(payme.answer(inbound, None, caught.value))
    return found


def attempt(**changes: Any) -> Attempt:
    made = Attempt(
        id="41",
        payment_id="p",
        merchant_id="m",
        account_id="a",
        provider="payme",
        channel="payme",
        external_id=ID,
        asked=True,
        phase="pending",
        reason=None,
        currency="UZS",
        amount_minor=500_000,
        paid_minor=0,
        tip_minor=0,
        fee_minor=0,
        refunded_minor=0,
        reversed_minor=0,
        show=None,
        details='{"account":{"order_id":"197"}}',
        created_at=TIME + 11,
        provider_at=TIME,
        expires_at=TIME + 43_200_000,
        paid_at=None,
        closed_at=None,
        live_of="p",
        version=1,
    )
    return replace(made, **changes)


def test_it_is_what_it_says() -> None:
    payme = PROVIDER.connect(msgspec.convert(PROVIDER.example, PROVIDER.config))
    assert isinstance(payme, Hears)
    assert isinstance(payme, Invites)


ACCOUNT = {"order_id": "197"}
PRICE = Money(500_000, "UZS")


@pytest.mark.parametrize(
    ("method", "params", "ask"),
    [
        (
            "CheckPerformTransaction",
            {"amount": 500_000, "account": ACCOUNT},
            Check("197", Money(500_000, "UZS")),
        ),
        (
            "CreateTransaction",
            {"id": ID, "time": TIME, "amount": 500_000, "account": ACCOUNT},
            Reserve(
                ID, "197", Money(500_000, "UZS"), TIME, 1_399_157_484_039, '{"account":{"order_id":"197"}}'
            ),
        ),
        ("PerformTransaction", {"id": ID}, Settle(ID)),
        ("CancelTransaction", {"id": ID, "reason": 3}, Cancel(ID, "3")),
        ("CheckTransaction", {"id": ID}, Look(ID)),
        ("GetStatement", {"from": TIME, "to": TIME + 1}, Statement(TIME, TIME + 1)),
        ("GetStatement", {"from": -5, "to": 10**30}, Statement(0, 9_223_372_036_854_775_807)),
        (
            "SetFiscalData",
            {"id": ID, "type": "CANCEL", "fiscal_data": {"receipt_id": 1}},
            Note(ID, "fiscal.cancel", '{"receipt_id":1}'),
        ),
    ],
)
def test_every_method_is_heard(method: str, params: Any, ask: Any) -> None:
    heard = Payme(config()).hear(asked(method, params))
    assert heard.message == ask


@pytest.mark.parametrize(
    "changes",
    [
        {"password": "wrong"},
        {"password": ""},
        {"login": "Somebody"},
        {"login": ""},
        {"password": KEY + " "},
        {"headers": {}},
        {"headers": {"authorization": ""}},
        {"headers": {"authorization": "Basic"}},
        {"headers": {"authorization": "Basic ???"}},
        {"headers": {"authorization": "Bearer " + base64.b64encode(f"Paycom:{KEY}".encode()).decode()}},
        {"headers": {"authorization": "Basic " + base64.b64encode(b"Paycom").decode()}},
        {"headers": {"authorization": "Basic " + "ÿ" * 50}},
    ],
)
def test_only_the_whole_credentials_open_the_door(changes: dict[str, Any]) -> None:
    inbound = asked("PerformTransaction", {"id": ID}, **changes)
    answer = refused(Payme(config()), inbound)
    assert (answer["error"]["code"], answer["id"]) == (-32504, 7)


def test_nothing_is_read_before_the_password() -> None:
    payme = Payme(config())
    assert refused(payme, call(b"{{{", password="wrong"))["error"]["code"] == -32504
    assert refused(payme, call(b"{{{"))["error"]["code"] == -32700


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
def test_the_scheme_is_read_in_any_case(scheme: str) -> None:
    basic = base64.b64encode(f"Paycom:{KEY}".encode()).decode()
    inbound = asked("CheckTransaction", {"id": ID}, headers={"authorization": f"{scheme} {basic}"})
    assert Payme(config()).hear(inbound).message == Look(ID)


def test_the_old_key_works_while_a_key_is_changed_and_the_test_key_only_in_the_sandbox() -> None:
    inbound = asked("CheckTransaction", {"id": ID}, password="o" * 36)
    assert Payme(config(previous_key="o" * 36)).hear(inbound).message == Look(ID)
    assert refused(Payme(config(test_key="o" * 36)), inbound)["error"]["code"] == -32504
    sandbox = Payme(config(test_key="o" * 36, sandbox=True))
    assert sandbox.hear(inbound).message == Look(ID)
    assert refused(sandbox, asked("CheckTransaction", {"id": ID}))["error"]["code"] == -32504


@pytest.mark.parametrize(
    ("peer", "welcome"),
    [
        ("185.234.113.1", True),
        ("185.234.113.15", True),
        ("185.234.113.16", False),
        ("::ffff:185.234.113.1", True),
        ("127.0.0.1", False),
        ("2001:db8::1", False),
        ("", False),
        ("unknown", False),
    ],
)
def test_where_addresses_are_listed_only_they_are_heard(peer: str, welcome: bool) -> None:
    payme = Payme(config(source_ips=("185.234.113.0/28",)))
    inbound = asked("CheckTransaction", {"id": ID}, peer=peer)
    if welcome:
        assert payme.hear(inbound).message == Look(ID)
    else:
        assert refused(payme, inbound)["error"]["code"] == -32504


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", -32700),
        (b"{", -32700),
        (b"\xff\xfe{}", -32700),
        (b'\xef\xbb\xbf{"id":1}', -32700),
        (b'{"method":"CheckTransaction","params":{"id":"a","id":"b"},"id":1}', -32700),
        (b'{"method":"CheckPerformTransaction","params":{"amount":NaN,"account":{}},"id":1}', -32700),
        (b'{"method":"CheckPerformTransaction","params":{"amount":Infinity,"account":{}},"id":1}', -32700),
        (b"[" * 30_000 + b"]" * 30_000, -32700),
        (b'{"id":' + b"9" * 5000 + b"}", -32700),
        (b" " * 70_000 + b"{}", -32700),
        (b'{"method":"CheckTransaction","params":{"id":"\\ud800"},"id":1}', -32700),
        (b'{"method":"CheckTransaction","params":{"id":"a","\\udfff":1},"id":1}', -32700),
        (b'{"method":"CheckTransaction","params":{"id":"a","x":[1e400]},"id":1}', -32700),
        (b'{"method":"CheckTransaction","params":{"id":"a","x":-1e999},"id":1}', -32700),
        (
            b'{"method":"CheckTransaction","params":{"id":"a","x":' + b"[" * 40 + b"]" * 40 + b'},"id":1}',
            -32700,
        ),
        (b"[]", -32600),
        (b"null", -32600),
        (b'"x"', -32600),
        (b"{}", -32600),
        (b'{"method":"CheckTransaction","params":{"id":"a"}}', -32600),
        (b'{"method":"CheckTransaction","params":{"id":"a"},"id":"1"}', -32600),
        (b'{"method":"CheckTransaction","params":{"id":"a"},"id":true}', -32600),
        (b'{"method":"CheckTransaction","params":{"id":"a"},"id":1.0}', -32600),
        (b'{"method":"CheckTransaction","params":{"id":"a"},"id":null}', -32600),
        (b'{"method":null,"params":{},"id":1}', -32600),
        (b'{"method":"CheckTransaction","params":null,"id":1}', -32600),
        (b'{"method":"CheckTransaction","params":[],"id":1}', -32600),
        (b'{"method":"CheckTransaction","params":{},"id":1}', -32600),
        (b'{"method":"CheckTransaction","params":{"id":5},"id":1}', -32600),
        (b'{"method":"CheckTransaction","params":{"id":""},"id":1}', -32600),
        (b'{"method":"CheckTransaction","params":{"id":"a b"},"id":1}', -32600),
        (b'{"method":"CheckTransaction","params":{"id":"a\\u0000"},"id":1}', -32600),
        (b'{"method":"CheckTransaction","params":{"id":"' + b"a" * 65 + b'"},"id":1}', -32600),
        (b'{"method":"CancelTransaction","params":{"id":"a"},"id":1}', -32600),
        (b'{"method":"CancelTransaction","params":{"id":"a","reason":"3"},"id":1}', -32600),
        (b'{"method":"CancelTransaction","params":{"id":"a","reason":true},"id":1}', -32600),
        (b'{"method":"CancelTransaction","params":{"id":"a","reason":-1},"id":1}', -32600),
        (b'{"method":"GetStatement","params":{"to":1},"id":1}', -31050),
        (b'{"method":"GetStatement","params":{"from":1},"id":1}', -31050),
        (b'{"method":"GetStatement","params":{"from":"1","to":2},"id":1}', -31050),
        (b'{"method":"Nope","params":{},"id":1}', -32601),
        (b'{"method":"SetFiscalData","params":{"id":"a"},"id":1}', -32602),
        (b'{"method":"SetFiscalData","params":{"id":"a","type":"X","fiscal_data":{"a":1}},"id":1}', -32602),
        (
            b'{"method":"SetFiscalData","params":{"id":5,"type":"PERFORM","fiscal_data":{"a":1}},"id":1}',
            -32602,
        ),
    ],
)
def test_what_cannot_be_understood_is_refused_with_the_code_for_it(body: bytes, code: int) -> None:
    assert refused(Payme(config()), call(body))["error"]["code"] == code


@pytest.mark.parametrize(
    "body",
    [
        b'{"method":"GetStatement","params":{"from":1,"to":2},"id":1}',
        b'{"id": 1, "method": "GetStatement",\n "params": {"to": 2, "from": 1}}',
        b'{"method":"GetStatement","params":{"from":1,"to":2,"x":[1.50,1e3,"\\u0430","a\\/b"]},"id":1}',
        b'{"method":"GetStatement","params":{"from":1,"to":2,"x":18446744073709551617},"id":1}',
        b'{"method":"GetStatement","params":{"from":1,"to":2,"x":["\\ud83c\\udf75",1e308,1e-400]},"id":1}',
        b'{"method":"GetStatement","params":{"from":1,"to":2,"x":"' + b"[" * 100 + b'"},"id":1}',
        '{"method":"GetStatement","params":{"from":1,"to":2,"x":"сум"},"id":1}'.encode(),
    ],
)
def test_however_a_message_is_written_it_says_the_same(body: bytes) -> None:
    assert Payme(config()).hear(call(body)).message == Statement(1, 2)
    twice = body.replace(b'"id"', b'"id":1,"id"', 1)
    assert refused(Payme(config()), call(twice))["error"]["code"] == -32700


@pytest.mark.parametrize(
    "amount", [None, True, "500000", "1e5", 1.5, 5e5, 0, -1, 10**16, 10**40, [1], {}, "²"]
)
def test_an_amount_is_a_positive_whole_number_of_tiyin(amount: Any) -> None:
    for method in ("CheckPerformTransaction", "CreateTransaction"):
        params = {"id": ID, "time": TIME, "amount": amount, "account": ACCOUNT}
        assert refused(Payme(config()), asked(method, params))["error"]["code"] == -31001


@pytest.mark.parametrize("time", [None, True, "1", 1.5, 0, -1, 999_999_999_999, 10**13, 10**40])
def test_a_time_has_thirteen_digits(time: Any) -> None:
    params = {"id": ID, "time": time, "amount": 1, "account": ACCOUNT}
    answer = refused(Payme(config()), asked("CreateTransaction", params))
    assert (answer["error"]["code"], answer["error"]["data"]) == (-32600, "time")


@pytest.mark.parametrize(
    ("came", "dies"),
    [
        (TIME, TIME + 43_200_000),
        (TIME + 3_600_000, TIME + 43_200_000),  # late: by Payme's clock
        (TIME - 2_000, TIME - 2_000 + 43_200_000),  # Payme's clock is ahead, or says next year: by ours
        (0, TIME + 43_200_000),  # a host of the drop-in that does not say
    ],
)
def test_nobody_can_say_that_a_transaction_lives_for_more_than_12_hours(came: int, dies: int) -> None:
    params = {"id": ID, "time": TIME, "amount": 500_000, "account": ACCOUNT}
    heard = Payme(config()).hear(asked("CreateTransaction", params, received_at=came))
    assert isinstance(heard.message, Reserve)
    assert (heard.message.provider_at, heard.message.expires_at) == (TIME, dies)


@pytest.mark.parametrize(
    "account",
    [None, 5, [], "197", {}, {"other": "197"}, {"order_id": None}, {"order_id": True}, {"order_id": ""}]
    + [{"order_id": value} for value in (" ", [1], {}, 1.5, "a\u0000", "x" * 256, 10**18)]
    + [dict.fromkeys("abcdefghijklmnopq", "1") | {"order_id": "197"}],
)
def test_an_account_that_cannot_be_read_names_its_field(account: Any) -> None:
    for method in ("CheckPerformTransaction", "CreateTransaction"):
        params = {"id": ID, "time": TIME, "amount": 1, "account": account}
        error = refused(Payme(config()), asked(method, params))["error"]
        assert (error["code"], error["data"]) == (-31050, "order_id")
        assert set(error["message"]) == {"ru", "uz", "en"}
        assert all(error["message"].values())


def test_several_account_fields_make_one_reference_that_cannot_be_forged() -> None:
    fields = ("phone", "contract")
    assert accounts.reference({"contract": "7;phone=1", "phone": 998901234567}, fields) == (
        "phone=998901234567;contract=7%3Bphone%3D1"
    )
    one = accounts.reference({"phone": "a;contract=b", "contract": "c"}, fields)
    two = accounts.reference({"phone": "a", "contract": "b;contract=c"}, fields)
    assert one != two
    for account in ({"phone": "a;contract=b", "contract": "c"}, {"phone": "%3B", "contract": "="}):
        assert accounts.account(accounts.reference(account, fields), fields) == account
    for broken in ("", "phone=1", "contract=1;phone=1", "phone=1;contract=2;x=3", "phone=;contract=2"):
        with pytest.raises(accounts.BadAccount):
            accounts.account(broken, fields)
    heard = Payme(config(account_fields=fields)).hear(
        asked("CheckPerformTransaction", {"amount": 1, "account": {"phone": "99890", "contract": 5}})
    )
    assert heard.message == Check("phone=99890;contract=5", Money(1, "UZS"))
    wrong = asked("CheckPerformTransaction", {"amount": 1, "account": {"phone": "99890"}})
    assert refused(Payme(config(account_fields=fields)), wrong)["error"]["data"] == "contract"


def test_other_verbs_than_post_are_answered_with_200() -> None:
    for verb in ("GET", "PUT", "HEAD", "DELETE"):
        answer = refused(Payme(config()), call(b"", method=verb))
        assert (answer["error"]["code"], answer["id"]) == (-32300, None)


def test_an_unknown_method_is_named() -> None:
    error = refused(Payme(config()), asked("DropTables", {}))["error"]
    assert (error["code"], error["data"]) == (-32601, "DropTables")
    assert "data" not in refused(Payme(config()), asked("Drop\nTables", {}))["error"]


# Payme's code for each of our refusals: (before money moves in a check, else)
CODES = {
    e.Unauthenticated: (-32504, -32504),
    e.Unreadable: (-32600, -32600),
    e.UnknownMethod: (-32601, -32601),
    e.UnknownReference: (-31050, -31050),
    e.UnknownTransaction: (-31003, -31003),
    e.WrongAmount: (-31001, -31001),
    e.AlreadyPaid: (-31051, -31008),
    e.AlreadyClosed: (-31052, -31008),
    e.Busy: (-31053, -31008),
    e.NotCancellable: (-31007, -31007),
    e.TryLater: (-32400, -32400),
}


def test_there_is_a_word_for_every_refusal() -> None:
    payme = Payme(config())
    check = asked("CheckPerformTransaction", {"amount": 1, "account": ACCOUNT})
    create = asked("CreateTransaction", {"id": ID, "time": TIME, "amount": 1, "account": ACCOUNT})
    own = {kind for kind in e.Refusal.__subclasses__() if kind.__module__ == e.__name__}
    assert own == set(CODES)
    for kind, codes in CODES.items():
        for inbound, code in zip((check, create), codes, strict=True):
            error = answered(payme.answer(inbound, payme.hear(inbound), kind()))["error"]
            assert error["code"] == code
            assert set(error["message"]) == {"ru", "uz", "en"}
            assert error.get("data") == ("order_id" if -31099 <= code <= -31050 else None)
    fiscal = asked("SetFiscalData", {"id": ID, "type": "PERFORM", "fiscal_data": {"a": 1}})
    answer = answered(payme.answer(fiscal, payme.hear(fiscal), e.UnknownTransaction()))
    assert answer["error"]["code"] == -32001


@pytest.mark.parametrize(
    ("changes", "number", "why"),
    [
        ({}, 1, None),
        ({"phase": "created"}, 1, None),
        ({"phase": "paid", "paid_minor": 500_000}, 2, None),
        ({"phase": "paid", "paid_minor": 500_000, "refunded_minor": 1}, 2, None),
        ({"phase": "paid", "paid_minor": 500_000, "refunded_minor": 500_000, "reason": "5"}, -2, 5),
        ({"phase": "paid", "paid_minor": 500_000, "refunded_minor": 500_000, "reason": "3"}, -2, 3),
        ({"phase": "paid", "paid_minor": 500_000, "refunded_minor": 500_000}, -2, 5),
        ({"phase": "closed", "reason": "3"}, -1, 3),
        ({"phase": "closed", "reason": "timeout"}, -1, 4),
        ({"phase": "closed", "reason": "expired"}, -1, 4),
        ({"phase": "closed", "reason": "merchant"}, -1, 10),
        ({"phase": "closed"}, -1, 10),
    ],
)
def test_states_and_reasons(changes: dict[str, Any], number: int, why: int | None) -> None:
    assert (state(attempt(**changes)), reason(attempt(**changes))) == (number, why)


def test_results_word_for_word() -> None:
    payme = Payme(config())
    done = attempt(phase="paid", paid_minor=500_000, paid_at=TIME + 22, live_of=None)
    back = replace(done, refunded_minor=500_000, reason="5", closed_at=TIME + 33)

    def result(method: str, params: Any, record: Record) -> Any:
        inbound = asked(method, params)
        return answered(payme.answer(inbound, payme.hear(inbound), record))["result"]

    create = {"id": ID, "time": TIME, "amount": 500_000, "account": ACCOUNT}
    assert result("CreateTransaction", create, Record(attempt())) == {
        "create_time": TIME + 11,
        "transaction": "41",
        "state": 1,
    }
    assert result("PerformTransaction", {"id": ID}, Record(done)) == {
        "transaction": "41",
        "perform_time": TIME + 22,
        "state": 2,
    }
    assert result("CancelTransaction", {"id": ID, "reason": 5}, Record(back)) == {
        "transaction": "41",
        "cancel_time": TIME + 33,
        "state": -2,
    }
    assert result("CheckTransaction", {"id": ID}, Record(attempt())) == {
        "create_time": TIME + 11,
        "perform_time": 0,
        "cancel_time": 0,
        "transaction": "41",
        "state": 1,
        "reason": None,
    }
    later = replace(attempt(), id="42", external_id="b" * 24, provider_at=TIME + 1)
    rows = result("GetStatement", {"from": 0, "to": 10**13}, Record(rows=(Record(later), Record(back))))
    assert [row["id"] for row in rows["transactions"]] == [ID, "b" * 24]
    assert rows["transactions"][0] == {
        "id": ID,
        "time": TIME,
        "amount": 500_000,
        "account": {"order_id": "197"},
        "create_time": TIME + 11,
        "perform_time": TIME + 22,
        "cancel_time": TIME + 33,
        "transaction": "41",
        "state": -2,
        "reason": 5,
        "receivers": None,
    }
    fiscal = {"id": ID, "type": "PERFORM", "fiscal_data": {"receipt_id": 1}}
    assert result("SetFiscalData", fiscal, Record(done)) == {"success": True}
    assert result("GetStatement", {"from": 0, "to": 1}, Record()) == {"transactions": []}


def test_the_fiscal_detail_and_more_come_from_the_orders_metadata() -> None:
    payme = Payme(config())
    detail = {"receipt_type": 0, "items": [{"title": "Чай", "price": 500_000, "count": 1}]}
    receivers = [{"id": "x", "amount": 500_000}]
    metadata = {"payme": {"detail": detail, "additional": {"name": "A"}, "receivers": receivers}}
    payment = replace(order_of("197", 500_000, "UZS", None, 0), metadata=json.dumps(metadata))

    check = asked("CheckPerformTransaction", {"amount": 500_000, "account": ACCOUNT})
    answer = answered(payme.answer(check, payme.hear(check), Record(None, payment)))
    assert answer["result"] == {"allow": True, "additional": {"name": "A"}, "detail": detail}

    create = asked("CreateTransaction", {"id": ID, "time": TIME, "amount": 500_000, "account": ACCOUNT})
    answer = answered(payme.answer(create, payme.hear(create), Record(attempt(), payment)))
    assert answer["result"]["receivers"] == receivers


def test_what_payme_could_not_read_of_an_orders_metadata_is_not_answered() -> None:
    payme = Payme(config())
    payment = order_of("197", 500_000, "UZS", None, 0)
    check = asked("CheckPerformTransaction", {"amount": 500_000, "account": ACCOUNT})
    create = asked("CreateTransaction", {"id": ID, "time": TIME, "amount": 500_000, "account": ACCOUNT})
    for wrong in (
        {"detail": None, "additional": 5, "receivers": "x"},
        [1],
        None,
        {"detail": [], "receivers": {}},
    ):
        odd = replace(payment, metadata=json.dumps({"payme": wrong}))
        assert answered(payme.answer(check, payme.hear(check), Record(None, odd)))["result"] == {
            "allow": True
        }
        made = answered(payme.answer(create, payme.hear(create), Record(attempt(), odd)))["result"]
        assert "receivers" not in made
