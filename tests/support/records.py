"""Payments, attempts and refunds as they may stand, for tests of the pure rules."""

from __future__ import annotations

from typing import Any

from tillgate.domain.payment import Attempt, Payment, Refund, StandingOrder

NOW = 1_790_000_000_000


def payment(**changes: Any) -> Payment:
    """100.00 IDR for ORD-1, open, nothing tried yet."""
    given: dict[str, Any] = {
        "id": "pay_1",
        "merchant_id": "mer_1",
        "order_id": "ORD-1",
        "order_key": b"k" * 16,
        "standing_id": None,
        "channel": "qris",
        "account_id": "acc_1",
        "currency": "IDR",
        "amount_minor": 10_000,
        "status": "pending",
        "closed": None,
        "hold": None,
        "late": False,
        "paid_minor": 0,
        "tip_minor": 0,
        "fee_minor": 0,
        "refunding_minor": 0,
        "refunded_minor": 0,
        "reversed_minor": 0,
        "live_attempt_id": None,
        "live_phase": None,
        "paid_with": None,
        "callback_url": None,
        "metadata": None,
        "created_at": NOW,
        "expires_at": NOW + 900_000,
        "paid_at": None,
        "version": 1,
    }
    return Payment(**(given | changes))


def attempt(phase: str = "pending", **changes: Any) -> Attempt:
    """An attempt at it."""
    live = phase in ("created", "pending", "unsure")
    given: dict[str, Any] = {
        "id": "att_1",
        "payment_id": "pay_1",
        "merchant_id": "mer_1",
        "account_id": "acc_1",
        "provider": "bank",
        "channel": "qris",
        "external_id": None,
        "asked": False,
        "phase": phase,
        "reason": None,
        "currency": "IDR",
        "amount_minor": 10_000,
        "paid_minor": 10_000 if phase == "paid" else 0,
        "tip_minor": 0,
        "fee_minor": 0,
        "refunded_minor": 0,
        "reversed_minor": 0,
        "show": None,
        "details": None,
        "created_at": NOW,
        "provider_at": None,
        "expires_at": None,
        "paid_at": NOW if phase == "paid" else None,
        "closed_at": NOW if phase == "closed" else None,
        "live_of": "pay_1" if live else None,
        "version": 1,
    }
    return Attempt(**(given | changes))


def refund(phase: str = "created", **changes: Any) -> Refund:
    """40.00 IDR of it on their way back."""
    given: dict[str, Any] = {
        "id": "refund_1",
        "payment_id": "pay_1",
        "attempt_id": "att_1",
        "merchant_id": "mer_1",
        "external_id": None,
        "phase": phase,
        "reason": "wrong size",
        "failure": None,
        "currency": "IDR",
        "amount_minor": 4_000,
        "created_at": NOW,
        "done_at": None,
        "version": 1,
    }
    return Refund(**(given | changes))


def standing(**changes: Any) -> StandingOrder:
    """A till that takes 10.00 to 5000.00 UZS at a time."""
    given: dict[str, Any] = {
        "id": "ord_1",
        "merchant_id": "mer_1",
        "order_id": "TILL-1",
        "order_key": b"s" * 16,
        "channel": "payme",
        "account_id": "acc_1",
        "currency": "UZS",
        "min_minor": 1_000,
        "max_minor": 500_000,
        "callback_url": None,
        "metadata": None,
        "created_at": NOW,
        "closed_at": None,
        "version": 1,
    }
    return StandingOrder(**(given | changes))
