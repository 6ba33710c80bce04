"""A payment as the kiosk reports it to its hub."""

from typing import Any, cast

from tillgate.providers.mobypay import messages, money
from tillgate.providers.mobypay.lifecycle import Payment, State
from tillgate.schemas_kiosk import Report

_LONGEST = 500


def report_of(payment: Payment) -> Report:
    """All that is known of it now; a later report replaces an earlier one."""
    state: Any = payment.state.value
    return Report(
        txn_id=payment.txn_id,
        version=payment.version,
        attempt=payment.hub_attempt,
        mode=payment.mode.value,
        amount_minor=payment.amount_sen,
        terminal=payment.terminal[:80],
        state=cast("Any", state),
        at=payment.updated_ms,
        created_at=payment.created_ms,
        reference=payment.reference,
        paid_minor=charged_sen(payment),
        transaction_id=_short(payment.transaction_id),
        authorization_code=_short(payment.authorization_code),
        card_last4=payment.card_last4[-4:] if payment.card_last4 else None,
        plans=payment.plans,
        plan_id=_short(payment.plan_id),
        reason=_short(payment.error_message or payment.reason),
        settled_because=_short(payment.settled_because),
    )


def charged_sen(payment: Payment) -> int:
    """What the terminal says it charged; 0 where it says nothing of a charge."""
    if payment.state not in (State.SUCCEEDED, State.REQUIRES_REVIEW):
        return 0
    if payment.told_status in messages.SUCCESS_STATUSES and payment.told_amount is not None:
        told = money.sen_of(payment.told_amount)
        if told is not None and told > 0:
            return told
    return payment.amount_sen


def _short(text: str | None) -> str | None:
    return None if text is None else text[:_LONGEST]
