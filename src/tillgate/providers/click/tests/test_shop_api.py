"""Click's callbacks against the rules: every fault that the published handler is known for, and the edges."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tillgate.domain.errors import Misconfigured, Refusal, TryLater, UnknownReference
from tillgate.domain.money import Money
from tillgate.providers.click import PROVIDER
from tillgate.providers.click.codes import NOTES, REFUSALS
from tillgate.providers.click.request import prepare_id
from tillgate.spi import Hears, Inbound, Invites, Order

Form = Callable[..., bytes]
PREPARE, COMPLETE = 0, 1


def ask(till: Any, body: bytes) -> dict[str, Any]:
    till.now += 10
    reply = till.receive(body)
    assert reply.status == 200
    answer: dict[str, Any] = json.loads(reply.body)
    return answer


def prepare(till: Any, form: Form, order: str = "A", trans: int = 1, amount: str = "5000.00") -> int:
    answer = ask(till, form(PREPARE, order, amount, trans))
    assert answer["error"] == 0
    prepared: int = answer["merchant_prepare_id"]
    return prepared


@pytest.fixture
def open_till(till: Any) -> Any:
    till.order("A", 500_000)
    till.order("B", 700_000)
    return till


# --- defect 13 of the published handler, one test each ------------------------------------------------------


def test_defect_13_complete_without_prepare_pays_nothing(open_till: Any, form: Form) -> None:
    forged = prepare_id(1, "A")  # even with the id that a Prepare would have had
    assert ask(open_till, form(COMPLETE, "A", "5000.00", 1, prepared=forged))["error"] == -6
    assert open_till.paid == []


def test_defect_13_merchant_prepare_id_is_checked(open_till: Any, form: Form) -> None:
    prepared = prepare(open_till, form)
    for wrong in (prepared + 1, 0, 1, prepare_id(2, "A"), prepare_id(1, "B")):
        assert ask(open_till, form(COMPLETE, "A", "5000.00", 1, prepared=wrong))["error"] == -6
    assert open_till.paid == []


def test_defect_13_a_cancelled_transaction_is_not_paid_by_a_later_complete(
    open_till: Any, form: Form
) -> None:
    prepared = prepare(open_till, form)
    assert ask(open_till, form(COMPLETE, "A", "5000.00", 1, prepared=prepared, error="-1"))["error"] == -9
    assert ask(open_till, form(COMPLETE, "A", "5000.00", 1, prepared=prepared))["error"] == -9
    assert open_till.paid == []


def test_defect_13_a_repeated_prepare_makes_one_transaction_and_one_answer(
    open_till: Any, form: Form
) -> None:
    body = form(PREPARE, "A", "5000.00", 1)
    answers = {open_till.receive(body).body for _ in range(20)}
    assert len(answers) == 1
    assert len(open_till.attempts) == 1


def test_defect_13_a_paid_order_is_not_paid_again_by_a_new_transaction(open_till: Any, form: Form) -> None:
    prepared = prepare(open_till, form)
    assert ask(open_till, form(COMPLETE, "A", "5000.00", 1, prepared=prepared))["error"] == 0
    assert ask(open_till, form(PREPARE, "A", "5000.00", 2))["error"] == -4
    assert open_till.paid == ["A"]


@pytest.mark.parametrize(
    "amount",
    ["nan", "NaN", "inf", "-5000.00", "+5000.00", "5e3", "5000.0001", "4999.99", "5000.01", "05000.00",
     "5000.", ".5", "5 000", "5000,00", "0", "0.00", "٥٠٠٠", "1" + "0" * 40, "5000.000000"],
)  # fmt: skip
def test_defect_13_an_amount_is_exact_to_the_tiyin(open_till: Any, form: Form, amount: str) -> None:
    assert ask(open_till, form(PREPARE, "A", amount, 1))["error"] == -2
    prepared = prepare(open_till, form, trans=2)
    assert ask(open_till, form(COMPLETE, "A", amount, 2, prepared=prepared))["error"] == -2
    assert open_till.paid == []


@pytest.mark.parametrize("amount", ["5000", "5000.0", "5000.00", "5000.0000"])
def test_one_amount_may_be_written_with_any_number_of_zeros(open_till: Any, form: Form, amount: str) -> None:
    prepared = prepare(open_till, form, amount=amount)
    assert ask(open_till, form(COMPLETE, "A", "5000.00", 1, prepared=prepared))["error"] == 0


def test_defect_13_complete_with_a_negative_error_is_answered_minus_9(open_till: Any, form: Form) -> None:
    prepared = prepare(open_till, form)
    answer = ask(open_till, form(COMPLETE, "A", "5000.00", 1, prepared=prepared, error="-5017"))
    assert answer["error"] == -9
    assert open_till.live() == []


def test_defect_13_the_reason_of_a_cancellation_is_kept_as_text(open_till: Any, form: Form) -> None:
    prepared = prepare(open_till, form)
    ask(
        open_till,
        form(
            COMPLETE, "A", "5000.00", 1, prepared=prepared, error="-5017", error_note="Недостаточно\nсредств"
        ),
    )
    assert open_till.attempts["1"].reason == "click -5017 Недостаточно средств"


# --- defect 19 ----------------------------------------------------------------------------------------------


def test_defect_19_a_bad_signature_is_minus_1(open_till: Any, form: Form) -> None:
    assert ask(open_till, form(PREPARE, "A", "5000.00", 1, secret="another-secret"))["error"] == -1
    assert ask(open_till, form(PREPARE, "A", "5000.00", 1, sign_string="x"))["error"] == -1
    assert ask(open_till, form(PREPARE, "A", "5000.00", 1, sign_string="é" * 32))["error"] == -1


@pytest.mark.parametrize(
    "field",
    ["click_trans_id", "service_id", "click_paydoc_id", "merchant_trans_id", "amount", "action", "error",
     "sign_time", "sign_string"],
)  # fmt: skip
def test_defect_19_a_missing_field_is_minus_8(open_till: Any, form: Form, field: str) -> None:
    assert ask(open_till, form(PREPARE, "A", "5000.00", 1, drop=field))["error"] == -8


def test_defect_19_complete_without_a_prepare_id_is_minus_8(open_till: Any, form: Form) -> None:
    prepared = prepare(open_till, form)
    body = form(COMPLETE, "A", "5000.00", 1, prepared=prepared, drop="merchant_prepare_id")
    assert ask(open_till, body)["error"] == -8


def test_defect_19_complete_answers_a_merchant_confirm_id(open_till: Any, form: Form) -> None:
    prepared = prepare(open_till, form)
    answer = ask(open_till, form(COMPLETE, "A", "5000.00", 1, prepared=prepared))
    assert type(answer["merchant_confirm_id"]) is int


@pytest.mark.parametrize("service_id", [12345, "12345", " 012345 "])
def test_defect_19_the_service_id_may_be_configured_as_a_number_or_as_text(
    make_till: Callable[..., Any], form: Form, service_id: Any
) -> None:
    till = make_till(service_id=service_id)
    till.order("A", 500_000)
    assert prepare(till, form)


def test_defect_19_click_trans_id_is_answered_as_a_number(open_till: Any, form: Form) -> None:
    answer = ask(open_till, form(PREPARE, "A", "5000.00", 2**63 - 1, click_paydoc_id="9"))
    assert answer["click_trans_id"] == 9_223_372_036_854_775_807


def test_another_service_is_refused_even_when_signed_with_our_key(open_till: Any, form: Form) -> None:
    assert ask(open_till, form(PREPARE, "A", "5000.00", 1, service_id="12346"))["error"] == -8


# --- defects 8 and 10: keys and configuration ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("over", "named"),
    [
        ({"secret_key": ""}, "secret_key"),
        ({"secret_key": "short"}, "secret_key"),
        ({"secret_key": "  padded-secret "}, "secret_key"),
        ({"service_id": ""}, "service_id"),
        ({"service_id": "abc"}, "service_id"),
        ({"service_id": 0}, "service_id"),
        ({"merchant_id": ""}, "merchant_id"),
        ({"previous_secret_key": ""}, "previous_secret_key"),
        ({"merchant_user_id": "x"}, "merchant_user_id"),
        ({"reserve_minutes": 0}, "reserve_minutes"),
        ({"protocol": "split"}, "shares"),
    ],
)
def test_defect_8_an_unusable_configuration_does_not_start(
    config: dict[str, Any], over: dict[str, Any], named: str
) -> None:
    with pytest.raises(Misconfigured, match=named) as refused:
        PROVIDER.connect(PROVIDER.config(**(config | over)))
    assert "padded" not in str(refused.value)


def test_all_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(Misconfigured, match="service_id, merchant_id, secret_key"):
        PROVIDER.connect(PROVIDER.config())


def test_the_previous_key_is_accepted_while_keys_are_changed(
    make_till: Callable[..., Any], form: Form
) -> None:
    till = make_till(secret_key="NEW-click-secret", previous_secret_key="OLD-click-secret")
    till.order("A", 500_000)
    prepared = ask(till, form(PREPARE, "A", "5000.00", 1, secret="OLD-click-secret"))["merchant_prepare_id"]
    body = form(COMPLETE, "A", "5000.00", 1, prepared=prepared, secret="NEW-click-secret")
    assert ask(till, body)["error"] == 0


def test_no_secret_shows_in_a_repr(config: dict[str, Any]) -> None:
    made = PROVIDER.config(**(config | {"previous_secret_key": "OLD-click-secret"}))
    assert "secret" not in repr(made).replace("secret_key=***", "")


# --- repeats, lost answers, contradictions ------------------------------------------------------------------


def test_after_a_lost_complete_click_prepares_again_and_learns_that_it_was_paid(
    open_till: Any, form: Form
) -> None:
    prepared = prepare(open_till, form)
    ask(open_till, form(COMPLETE, "A", "5000.00", 1, prepared=prepared))  # its answer is lost
    assert ask(open_till, form(PREPARE, "A", "5000.00", 1))["error"] == -4
    assert ask(open_till, form(COMPLETE, "A", "5000.00", 1, prepared=prepared))["error"] == -4
    assert open_till.paid == ["A"]


def test_after_a_lost_complete_request_prepare_and_complete_go_through(open_till: Any, form: Form) -> None:
    prepared = prepare(open_till, form)  # Complete never reached us
    assert prepare(open_till, form) == prepared
    assert ask(open_till, form(COMPLETE, "A", "5000.00", 1, prepared=prepared))["error"] == 0


def test_where_our_answer_to_prepare_was_lost_click_can_still_cancel(open_till: Any, form: Form) -> None:
    prepare(open_till, form)
    body = form(COMPLETE, "A", "5000.00", 1, prepared="", error="-5")
    assert ask(open_till, body)["error"] == -9
    assert open_till.live() == []


def test_a_cancellation_of_what_we_never_had_is_acknowledged_and_kept(open_till: Any, form: Form) -> None:
    assert ask(open_till, form(COMPLETE, "A", "5000.00", 7, prepared="0", error="-5"))["error"] == -9
    assert [stray.external_id for stray in open_till.strays] == ["7"]


def test_a_cancellation_of_what_we_never_had_is_minus_9_whatever_it_names(open_till: Any, form: Form) -> None:
    assert ask(open_till, form(COMPLETE, "A", "5000.00", 7, prepared=5, error="-5"))["error"] == -9


def test_the_signature_of_prepare_leaves_a_prepare_id_out(open_till: Any, form: Form) -> None:
    assert ask(open_till, form(PREPARE, "A", "5000.00", 1, prepared=7))["error"] == 0


def test_a_cancellation_with_a_foreign_prepare_id_cancels_nothing(open_till: Any, form: Form) -> None:
    prepare(open_till, form)
    body = form(COMPLETE, "A", "5000.00", 1, prepared=999999999, error="-5")
    assert ask(open_till, body)["error"] == -6
    assert len(open_till.live()) == 1


def test_a_negative_complete_after_success_gives_no_money_back(open_till: Any, form: Form) -> None:
    prepared = prepare(open_till, form)
    ask(open_till, form(COMPLETE, "A", "5000.00", 1, prepared=prepared))
    assert ask(open_till, form(COMPLETE, "A", "5000.00", 1, prepared=prepared, error="-5017"))["error"] == -9
    assert open_till.payments["A"].paid_minor == 500_000
    assert open_till.payments["A"].refunded_minor == 0


def test_after_a_cancellation_the_order_can_be_paid_by_a_new_transaction(open_till: Any, form: Form) -> None:
    prepared = prepare(open_till, form)
    ask(open_till, form(COMPLETE, "A", "5000.00", 1, prepared=prepared, error="-1"))
    prepared = prepare(open_till, form, trans=2)
    assert ask(open_till, form(COMPLETE, "A", "5000.00", 2, prepared=prepared))["error"] == 0
    assert open_till.paid == ["A"]


def test_a_cancelled_transaction_cannot_be_prepared_again(open_till: Any, form: Form) -> None:
    prepared = prepare(open_till, form)
    ask(open_till, form(COMPLETE, "A", "5000.00", 1, prepared=prepared, error="-1"))
    assert ask(open_till, form(PREPARE, "A", "5000.00", 1))["error"] == -9


def test_a_second_payer_waits_until_the_first_is_done(open_till: Any, form: Form) -> None:
    prepare(open_till, form)
    assert ask(open_till, form(PREPARE, "A", "5000.00", 2))["error"] == -9
    assert [attempt.external_id for attempt in open_till.live()] == ["1"]


def test_an_abandoned_prepare_does_not_block_the_order_for_ever(open_till: Any, form: Form) -> None:
    prepared = prepare(open_till, form)
    open_till.now += 31 * 60_000
    assert prepare(open_till, form, trans=2)
    assert ask(open_till, form(COMPLETE, "A", "5000.00", 1, prepared=prepared))["error"] == -9
    assert open_till.paid == []


def test_one_transaction_cannot_wander_to_another_order(open_till: Any, form: Form) -> None:
    open_till.order("A2", 500_000)
    prepared = prepare(open_till, form)
    assert ask(open_till, form(PREPARE, "A2", "5000.00", 1))["error"] == -5
    assert ask(open_till, form(COMPLETE, "A2", "5000.00", 1, prepared=prepared))["error"] == -5
    assert open_till.paid == []


def test_a_closed_payment_is_refused(open_till: Any, form: Form) -> None:
    open_till.order("old", 500_000, lives_ms=-1)
    assert ask(open_till, form(PREPARE, "old", "5000.00", 9))["error"] == -9


def test_a_standing_order_is_paid_many_times(till: Any, form: Form) -> None:
    till.standing_order("phone-1", low=100_000, high=900_000)
    for trans, amount in ((1, "1000.00"), (2, "2000.50")):
        prepared = prepare(till, form, "phone-1", trans, amount)
        assert ask(till, form(COMPLETE, "phone-1", amount, trans, prepared=prepared))["error"] == 0
    assert ask(till, form(PREPARE, "phone-1", "999.99", 3))["error"] == -2
    assert till.paid == ["phone-1", "phone-1"]


# --- the order of checks: -8, -1, -3, -2 before the books; then -5, -2, -4, -6, -9 -------------------------


@pytest.mark.parametrize(
    ("over", "code"),
    [
        ({"drop": "error", "sign_string": "0" * 32}, -8),
        ({"action": "7", "sign_string": "0" * 32}, -1),
        ({"action": "7"}, -3),
        ({"action": "-1"}, -8),
        ({"action": "one"}, -8),
        ({"action": "00"}, -8),
        ({"error": "1"}, -8),
        ({"error": "-1"}, -9),
        ({"error": "--1"}, -8),
        ({"sign_time": "2026-11-21T15:04:05"}, -8),
        ({"sign_time": "2026-13-41 25:61:61"}, -8),
        ({"sign_time": "0001-01-01 00:00:00"}, 0),
        ({"click_trans_id": "0"}, -8),
        ({"click_trans_id": "007"}, -8),
        ({"click_trans_id": str(2**63)}, -8),
        ({"merchant_trans_id": "A\x00"}, -8),
        ({"merchant_trans_id": "A" * 256}, -8),
    ],
)
def test_the_first_fault_in_clicks_order_is_named(
    open_till: Any, form: Form, over: dict[str, str], code: int
) -> None:
    assert ask(open_till, form(PREPARE, "A", "5000.00", 1, **over))["error"] == code


def test_a_wrong_amount_is_named_before_a_wrong_prepare_id(open_till: Any, form: Form) -> None:
    prepare(open_till, form)
    assert ask(open_till, form(COMPLETE, "A", "300", 1, prepared=999999999))["error"] == -2


def test_already_paid_is_named_before_a_wrong_prepare_id(open_till: Any, form: Form) -> None:
    prepared = prepare(open_till, form)
    ask(open_till, form(COMPLETE, "A", "5000.00", 1, prepared=prepared))
    assert ask(open_till, form(COMPLETE, "A", "5000.00", 1, prepared=999999999))["error"] == -4


# --- the rest of the contract -------------------------------------------------------------------------------


def leaves(kind: type[Refusal]) -> set[type[Refusal]]:
    below = [sub for sub in kind.__subclasses__() if sub.__module__ == "tillgate.domain.errors"]
    return {leaf for sub in below for leaf in leaves(sub)} if below else {kind}


def test_click_has_a_word_for_every_refusal() -> None:
    assert set(REFUSALS) == leaves(Refusal)
    assert set(REFUSALS.values()) == {-1, -2, -3, -4, -5, -6, -7, -8, -9}


def test_a_refusal_of_a_hosts_own_is_answered_by_its_nearest_kind(open_till: Any, form: Form) -> None:
    class SoldOut(UnknownReference):
        """There is none left."""

    call = Inbound("POST", "/", "", {}, form(PREPARE, "A", "5000.00", 1), "127.0.0.1", open_till.now)
    heard = open_till.connector.hear(call)
    for refusal, code in ((SoldOut(), -5), (Refusal("no"), -9)):
        assert json.loads(open_till.connector.answer(call, heard, refusal).body)["error"] == code


def test_the_words_are_those_of_the_documentation() -> None:
    assert NOTES == {
        0: "Success",
        -1: "SIGN CHECK FAILED!",
        -2: "Incorrect parameter amount",
        -3: "Action not found",
        -4: "Already paid",
        -5: "User does not exist",
        -6: "Transaction does not exist",
        -7: "Failed to update user",
        -8: "Error in request from click",
        -9: "Transaction cancelled",
    }


def test_a_fault_of_ours_is_answered_in_clicks_words(open_till: Any, form: Form) -> None:
    call = Inbound("POST", "/", "", {}, form(PREPARE, "A", "5000.00", 1), "127.0.0.1", open_till.now)
    connector = open_till.connector
    assert isinstance(connector, Hears)
    assert json.loads(connector.answer(call, connector.hear(call), TryLater()).body)["error"] == -7
    assert json.loads(connector.answer(call, None, TryLater()).body)["error"] == -7


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_only_post_is_heard(open_till: Any, form: Form, method: str) -> None:
    reply = open_till.receive(form(PREPARE, "A", "5000.00", 1), method)
    assert (reply.status, json.loads(reply.body)["error"]) == (200, -8)


def test_the_paydoc_is_kept_for_reversal_and_fiscal_calls(open_till: Any, form: Form) -> None:
    prepare(open_till, form)
    assert json.loads(open_till.attempts["1"].details) == {"click_paydoc_id": 1001}


def test_clicks_time_is_tashkent_time(open_till: Any, form: Form) -> None:
    prepare(open_till, form)
    assert open_till.attempts["1"].provider_at == 1_795_255_445_000  # 2026-11-21 10:04:05 UTC


def test_the_example_configuration_loads() -> None:
    connector = PROVIDER.connect(PROVIDER.config(**PROVIDER.example))
    assert isinstance(connector, Invites)
    assert PROVIDER.name == "click"
    assert set(PROVIDER.secrets) == {"secret_key", "previous_secret_key"}


def test_the_invitation_is_a_link_that_cannot_be_injected_into(config: dict[str, Any]) -> None:
    connector = PROVIDER.connect(PROVIDER.config(**config))
    order = Order(
        "op-1", "pay-1", "a b&amount=1#?", "click", Money(115, "UZS"), 0, 0, return_url="https://s.uz/?o=1&b"
    )
    show = connector.invite(order)
    assert show.type == "redirect"
    assert show.url == show.qr_string
    assert show.url == (
        "https://my.click.uz/services/pay?service_id=12345&merchant_id=54321&amount=1.15"
        "&transaction_param=a%20b%26amount%3D1%23%3F&merchant_user_id=777"
        "&return_url=https%3A%2F%2Fs.uz%2F%3Fo%3D1%26b"
    )
