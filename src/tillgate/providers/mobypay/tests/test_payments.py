"""Payments on the real server over real sockets: the four modes, plans, cancelling, and what goes
wrong in between.
"""

import asyncio

import pytest

from tillgate.providers.mobypay.errors import (
    AlreadyPaid,
    BadAmount,
    BadRequest,
    InProgress,
    KeyReused,
    NotAllowed,
    NoTerminal,
    TerminalBusy,
    UnknownPayment,
    UnknownTerminal,
    Unsettled,
)
from tillgate.providers.mobypay.kiosk import new_txn_id
from tillgate.providers.mobypay.tests import oracle
from tillgate.providers.mobypay.tests.kit import Bench, plans


@pytest.mark.parametrize("mode", ["card", "bnpl", "duitnow_qr"])
@pytest.mark.parametrize("dialect", ["captured", "documented"])
async def test_a_payment_succeeds(bench: Bench, mode: str, dialect: str) -> None:
    terminal = await bench.terminal("POS001" if dialect == "captured" else None)
    payment = await bench.pay(mode, 2550)
    request = await terminal.request()
    assert {name: request[name] for name in ("txn_id", "amount", "payment_mode", "kiosk_id")} == {
        "txn_id": payment.txn_id, "amount": 25.5, "payment_mode": mode, "kiosk_id": "KIOSK001",
    }  # fmt: skip
    if dialect == "captured":
        await terminal.ack(payment.txn_id)
        await bench.reaches(payment.txn_id, "processing")
        await terminal.result(payment.txn_id, "success", amount=25.5, transaction_id="000410")
    else:
        await terminal.ack(payment.txn_id, "received")
        await terminal.result(payment.txn_id, "approved", authorization_code="ABC123", card_last4="1234")
    done = await bench.reaches(payment.txn_id, "succeeded")
    if dialect == "captured":
        assert (done.transaction_id, done.told_amount) == ("000410", "25.5")
    else:
        assert (done.authorization_code, done.card_last4) == ("ABC123", "1234")
    assert bench.stored(payment.txn_id) == done
    assert bench.verdicts(payment.txn_id) == [("out", "sent"), ("in", "accepted"), ("in", "accepted")]
    assert bench.alerts() == []


async def test_a_failure_keeps_its_words(bench: Bench) -> None:
    terminal = await bench.terminal()
    payment = await bench.pay()
    await terminal.ack(payment.txn_id)
    await terminal.result(payment.txn_id, "failed", amount=50.0, error_message="USER_ABORT")
    done = await bench.reaches(payment.txn_id, "failed")
    assert done.error_message == "USER_ABORT"


async def test_ack_and_result_in_one_segment(bench: Bench) -> None:
    terminal = await bench.terminal()
    payment = await bench.pay()
    await terminal.say(
        oracle.ack(payment.txn_id), oracle.result(payment.txn_id, "success", amount=50.0, transaction_id="1")
    )
    await bench.reaches(payment.txn_id, "succeeded")


@pytest.mark.parametrize("plan_ack", ["plan_received", "processing"])
async def test_an_instalment_payment(bench: Bench, plan_ack: str) -> None:
    terminal = await bench.terminal()
    payment = await bench.pay("ipp", 10_000)
    await terminal.ack(payment.txn_id)
    await terminal.result(payment.txn_id, "ipp_plans", amount=100.0, plans=plans("pay-in-full", "IPP_3M"))
    offered = await bench.reaches(payment.txn_id, "awaiting_plan")
    assert '"planId":"IPP_3M"' in (offered.plans or "")
    assert '"amount":35.0' in (offered.plans or "")
    with pytest.raises(BadRequest):
        await bench.kiosk.choose_plan(payment.txn_id, "IPP_99M")
    chosen = await bench.kiosk.choose_plan(payment.txn_id, "IPP_3M")
    assert (chosen.state, chosen.plan_id) == ("processing", "IPP_3M")
    selection = await _next(terminal, "ipp_plan_selection")
    assert (selection["txn_id"], selection["plan_id"]) == (payment.txn_id, "IPP_3M")
    await terminal.ack(payment.txn_id, plan_ack)
    await terminal.result(payment.txn_id, "success", amount=100.0, transaction_id="000411", plan_id="IPP_3M")
    done = await bench.reaches(payment.txn_id, "succeeded")
    assert (done.plan_id, done.transaction_id) == ("IPP_3M", "000411")
    with pytest.raises(NotAllowed):
        await bench.kiosk.choose_plan(payment.txn_id, "IPP_3M")


async def _next(terminal, kind: str) -> dict:
    await terminal.request()  # the request for the payment itself comes first
    return await terminal.request(kind)


async def test_an_offer_with_nulls_in_it_breaks_nothing(bench: Bench) -> None:
    terminal = await bench.terminal()
    payment = await bench.pay("ipp", 10_000)
    await terminal.result(
        payment.txn_id,
        "ipp_plans",
        amount=None,
        plans=[{"planId": None, "installmentDetails": None}, None, 7],
    )
    await bench.reaches(payment.txn_id, "awaiting_plan")
    with pytest.raises(BadRequest):
        await bench.kiosk.choose_plan(payment.txn_id, "")


async def test_a_cancel_that_the_terminal_confirms_with_a_failure(bench: Bench) -> None:
    terminal = await bench.terminal()
    payment = await bench.pay()
    await terminal.ack(payment.txn_id)
    await bench.reaches(payment.txn_id, "processing")
    cancelling = await bench.kiosk.cancel(payment.txn_id)
    assert cancelling.state == "cancelling"
    assert (await _next(terminal, "cancel_transaction"))["txn_id"] == payment.txn_id
    await terminal.result(payment.txn_id, "failed", error_message="CANCELLED")
    assert (await bench.reaches(payment.txn_id, "cancelled")).error_message == "CANCELLED"


async def test_a_cancel_that_is_only_acknowledged(bench: Bench) -> None:
    terminal = await bench.terminal()
    payment = await bench.pay()
    await terminal.ack(payment.txn_id)
    await bench.reaches(payment.txn_id, "processing")
    bench.waits(grace_s=0.1)
    await bench.kiosk.cancel(payment.txn_id)
    await terminal.ack(payment.txn_id, "received")
    await bench.reaches(payment.txn_id, "cancelled")


async def test_a_cancel_nobody_answers_leaves_the_outcome_unknown(bench: Bench) -> None:
    terminal = await bench.terminal()
    payment = await bench.pay()
    await terminal.ack(payment.txn_id)
    await bench.reaches(payment.txn_id, "processing")
    bench.waits(cancel_s=0.1)
    await bench.kiosk.cancel(payment.txn_id)
    await bench.reaches(payment.txn_id, "unknown")
    assert bench.alerts() == ["outcome_unknown"]


@pytest.mark.parametrize("plan_ack", ["plan_received", "processing"])
async def test_the_ack_of_a_plan_does_not_confirm_the_cancel_behind_it(bench: Bench, plan_ack: str) -> None:
    terminal = await bench.terminal()
    payment = await bench.pay("ipp", 10_000, reference="ORDER-1")
    await terminal.ack(payment.txn_id)
    await terminal.result(payment.txn_id, "ipp_plans", plans=plans("IPP_3M"))
    await bench.reaches(payment.txn_id, "awaiting_plan")
    bench.waits(cancel_s=0.3, grace_s=0.1)
    await bench.kiosk.choose_plan(payment.txn_id, "IPP_3M")
    await bench.kiosk.cancel(payment.txn_id)
    await terminal.ack(payment.txn_id, plan_ack)  # it took the plan, and knows of no cancel
    await bench.reaches(payment.txn_id, "unknown")
    with pytest.raises(Unsettled):  # or the payer would be charged twice
        await bench.pay(reference="ORDER-1")
    await terminal.result(payment.txn_id, "success", amount=100.0, transaction_id="000410")
    await bench.reaches(payment.txn_id, "succeeded")


async def test_a_cancel_behind_a_plan_is_confirmed_by_the_ack_after_the_plans(bench: Bench) -> None:
    terminal = await bench.terminal()
    payment = await bench.pay("ipp", 10_000)
    await terminal.ack(payment.txn_id)
    await terminal.result(payment.txn_id, "ipp_plans", plans=plans("IPP_3M"))
    await bench.reaches(payment.txn_id, "awaiting_plan")
    bench.waits(grace_s=0.1)
    await bench.kiosk.choose_plan(payment.txn_id, "IPP_3M")
    await bench.kiosk.cancel(payment.txn_id)
    await terminal.ack(payment.txn_id, "plan_received")
    await terminal.ack(payment.txn_id, "received")
    await bench.reaches(payment.txn_id, "cancelled")


async def test_a_success_while_cancelling_is_a_success_and_somebody_is_told(bench: Bench) -> None:
    terminal = await bench.terminal()
    payment = await bench.pay()
    await terminal.ack(payment.txn_id)
    await bench.reaches(payment.txn_id, "processing")
    await bench.kiosk.cancel(payment.txn_id)
    await terminal.result(payment.txn_id, "success", amount=50.0, transaction_id="1")
    await terminal.ack(payment.txn_id)  # some terminals read the cancel only after sending the result
    await bench.reaches(payment.txn_id, "succeeded")
    assert bench.alerts() == ["charged_despite_cancel"]


async def test_a_success_after_the_cancel_is_reviewed_and_settled_by_a_person(bench: Bench) -> None:
    terminal = await bench.terminal()
    payment = await bench.pay(reference="ORDER-1")
    await terminal.ack(payment.txn_id)
    await bench.reaches(payment.txn_id, "processing")
    bench.waits(grace_s=0.1)
    await bench.kiosk.cancel(payment.txn_id)
    await terminal.ack(payment.txn_id, "received")
    await bench.reaches(payment.txn_id, "cancelled")
    await terminal.result(payment.txn_id, "success", amount=50.0, transaction_id="000412")
    review = await bench.reaches(payment.txn_id, "requires_review")
    assert (review.transaction_id, bench.alerts()) == ("000412", ["late_success"])
    with pytest.raises(Unsettled):
        await bench.pay(reference="ORDER-1")
    with pytest.raises(BadRequest):
        await bench.kiosk.settle(payment.txn_id, paid=False, because="  ")
    settled = await bench.kiosk.settle(payment.txn_id, paid=False, because="refunded at the counter")
    assert (settled.state, settled.settled_because) == ("failed", "refunded at the counter")
    assert bench.alerts() == []
    assert (await bench.pay(reference="ORDER-1")).state == "pending"


@pytest.mark.parametrize("silence", ["no ack", "no result", "no plan"])
async def test_silence_is_unknown_and_stays_open_to_a_late_result(bench: Bench, silence: str) -> None:
    bench.waits(**{f"{silence.partition(' ')[2]}_s": 0.1})
    terminal = await bench.terminal()
    payment = await bench.pay("ipp" if silence == "no plan" else "card")
    if silence != "no ack":
        await terminal.ack(payment.txn_id)
    if silence == "no plan":
        await terminal.result(payment.txn_id, "ipp_plans", plans=plans("A"))
    await bench.reaches(payment.txn_id, "unknown")
    assert bench.alerts() == ["outcome_unknown"]
    if silence == "no plan":
        await _next(terminal, "cancel_transaction")  # so that the terminal leaves the choice
    with pytest.raises(Unsettled):
        await bench.pay()
    await terminal.result(payment.txn_id, "success", amount=50.0, transaction_id="1")
    await bench.reaches(payment.txn_id, "succeeded")
    assert bench.alerts() == []


async def test_an_unknown_payment_blocks_its_order_and_amount_but_not_the_kiosk(bench: Bench) -> None:
    bench.waits(ack_s=0.1)
    await bench.terminal()
    first = await bench.pay(sen=5000, reference="A")
    await bench.reaches(first.txn_id, "unknown")
    second = await bench.pay(sen=5000)  # another order of the same amount, which has no name
    await bench.reaches(second.txn_id, "unknown")
    with pytest.raises(Unsettled, match=first.txn_id):
        await bench.pay(sen=700, reference="A")
    with pytest.raises(Unsettled, match=second.txn_id):
        await bench.pay(sen=5000)
    assert (await bench.pay(sen=5001)).state == "pending"
    settled = await bench.kiosk.settle(first.txn_id, paid=True, because="receipt shown")
    assert settled.state == "succeeded"
    with pytest.raises(AlreadyPaid):
        await bench.pay(reference="A")
    with pytest.raises(NotAllowed):
        await bench.kiosk.settle(first.txn_id, paid=False, because="changed my mind")


async def test_an_error_message_ends_only_its_own_payment_and_only_on_an_unbroken_link(bench: Bench) -> None:
    terminal = await bench.terminal()
    payment = await bench.pay()
    await terminal.say(
        oracle.fresh(type="error", txn_id="TXN0000000000000", message="reset", pos_id="POS001")
    )
    await bench.until(lambda: "unknown_payment" in bench.alerts())
    assert bench.kiosk.find(payment.txn_id).state == "pending"
    await terminal.say(oracle.fresh(type="error", txn_id=payment.txn_id, message="no paper", pos_id="POS001"))
    done = await bench.reaches(payment.txn_id, "failed")
    assert done.error_message == "no paper"


async def test_an_error_after_a_lost_link_proves_nothing(bench: Bench) -> None:
    terminal = await bench.terminal()
    payment = await bench.pay()
    await terminal.ack(payment.txn_id)
    terminal.pull_the_plug()
    await bench.reaches(payment.txn_id, "unknown")
    again = await bench.terminal()
    await again.say(oracle.fresh(type="error", txn_id=payment.txn_id, message="link lost", pos_id="POS001"))
    await bench.until(lambda: bench.kiosk.find(payment.txn_id).error_message == "link lost")
    assert bench.kiosk.find(payment.txn_id).state == "unknown"
    await again.result(payment.txn_id, "success", amount=50.0, transaction_id="1")
    await bench.reaches(payment.txn_id, "succeeded")


# --- what is refused before anything is sent -------------------------------------------------------------


async def test_nothing_is_sent_for_a_refused_request(bench: Bench) -> None:
    with pytest.raises(NoTerminal):
        await bench.pay()
    with pytest.raises(UnknownTerminal):
        await bench.pay(terminal="POS099")
    with pytest.raises(NoTerminal):
        await bench.pay(terminal="POS001")
    terminal = await bench.terminal()
    for sen in (0, -1, 500_001, 10**9):
        with pytest.raises(BadAmount):
            await bench.pay(sen=sen)
    with pytest.raises(BadRequest):
        await bench.pay(reference="x" * 129)
    with pytest.raises(UnknownPayment):
        await bench.kiosk.cancel("TXN1")
    assert await terminal.hears_nothing()
    assert bench.journal.page(10) == []


async def test_one_payment_at_a_time_and_no_queue(bench: Bench) -> None:
    terminal = await bench.terminal()
    outcomes = await asyncio.gather(*(bench.pay(sen=100 + i) for i in range(20)), return_exceptions=True)
    assert sum(isinstance(outcome, TerminalBusy) for outcome in outcomes) == 19
    await terminal.request()
    assert await terminal.hears_nothing()


async def test_an_order_is_charged_once(bench: Bench) -> None:
    terminal = await bench.terminal()
    outcomes = await asyncio.gather(*(bench.pay(reference="A") for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(outcome, InProgress) for outcome in outcomes) == 4
    request = await terminal.request()
    await terminal.result(request["txn_id"], "success", amount=50.0)
    await bench.reaches(request["txn_id"], "succeeded")
    with pytest.raises(AlreadyPaid):
        await bench.pay(reference="A")
    assert await terminal.hears_nothing()


async def test_an_idempotency_key_answers_again_and_charges_once(bench: Bench) -> None:
    terminal = await bench.terminal()
    first = await bench.pay(idempotency_key="k1", request_digest=b"a")
    assert (await bench.pay(idempotency_key="k1", request_digest=b"a")).txn_id == first.txn_id
    with pytest.raises(KeyReused):
        await bench.pay(idempotency_key="k1", request_digest=b"b")
    await terminal.request()
    assert await terminal.hears_nothing()


async def test_ids_are_unique_and_unpredictable(bench: Bench) -> None:
    ids = {new_txn_id() for _ in range(2000)}
    assert len(ids) == 2000
    assert all(txn_id.startswith("TXN") and len(txn_id) == 20 for txn_id in ids)
    assert len({txn_id[3:8] for txn_id in ids}) > 1900
