"""Xendit's error and failure codes in our words. What is not listed is shown as it came."""

from __future__ import annotations

from typing import Final

ERRORS: Final = {
    "ACCOUNT_ACCESS_BLOCKED": "the account is blocked",
    "API_VALIDATION_ERROR": "the request was not understood",
    "CHANNEL_NOT_ACTIVATED": "this channel is not switched on for the account",
    "CHANNEL_UNAVAILABLE": "the wallet cannot be reached now",
    "DATA_NOT_FOUND": "it is not known",
    "DUPLICATE_ERROR": "it is there already",
    "INELIGIBLE_TRANSACTION_STATUS": "the payment cannot be refunded as it stands",
    "INSUFFICIENT_BALANCE": "the balance does not suffice",
    "INVALID_API_KEY": "the secret key is wrong",
    "INVALID_MERCHANT_SETTINGS": "the account is not set up for this",
    "INVALID_VALUE_ERROR": "a value was not taken",
    "ISSUER_UNAVAILABLE": "the payer's wallet cannot be reached now",
    "PARTIAL_REFUND_COUNTS_EXCEEDED": "there were too many partial refunds",
    "PARTIAL_REFUND_NOT_SUPPORTED": "only the whole payment can be refunded",
    "RATE_LIMIT_EXCEEDED": "too many requests",
    "REFUND_AMOUNT_EXCEEDED": "that is more than is left",
    "REFUND_IN_PROGRESS": "another refund is still running",
    "REFUND_NOT_SUPPORTED": "this payment cannot be refunded",
    "REQUEST_FORBIDDEN_ERROR": "the secret key may not do this",
    "TEMPORARILY_UNAVAILABLE": "refunds are away for now",
}

FAILURES: Final = {
    "INSUFFICIENT_BALANCE": "the payer's balance does not suffice",
    "INVALID_ACCOUNT_DETAILS": "the payer's account is not valid",
    "MAXIMUM_LIMIT_REACHED": "the payer's limit is reached",
    "PAYMENT_REQUEST_EXPIRED": "the time to pay was over",
    "USER_DECLINED_PAYMENT": "the payer declined",
    "USER_DEVICE_UNREACHABLE": "the payer's phone could not be reached",
    "USER_UNREACHABLE": "the payer could not be reached",
}

REFUSED: Final = frozenset({"CHANNEL_UNAVAILABLE", "ISSUER_UNAVAILABLE"})
"""A 503 that says that nothing was made."""

LATER: Final = frozenset({"REFUND_IN_PROGRESS", "TEMPORARILY_UNAVAILABLE", "RATE_LIMIT_EXCEEDED"})
"""A refund that was not taken and may be asked for again."""

REASONS: Final = frozenset({"FRAUDULENT", "DUPLICATE", "REQUESTED_BY_CUSTOMER", "CANCELLATION", "OTHERS"})

WALLETS: Final = {
    "gopay": "GoPay",
    "ovo": "OVO",
    "dana": "DANA",
    "shopeepay": "ShopeePay",
    "spay": "ShopeePay",
}


def explain(code: str, message: str, words: dict[str, str]) -> str:
    """`the payer declined (Xendit: USER_DECLINED_PAYMENT)`, with the provider's own text for operators."""
    said = ": ".join(part for part in (code, message) if part)[:160]
    ours = words.get(code, "Xendit said no")
    return f"{ours} (Xendit: {said})" if said else ours


def reason(text: str) -> str:
    """A merchant's free text as one of the five reasons that are taken."""
    word = text.strip().upper().replace(" ", "_")
    return word if word in REASONS else "REQUESTED_BY_CUSTOMER"


def payer(issuer: str) -> str | None:
    """Whose wallet paid, in the names that a cashier knows; what is not known as it came."""
    plain = "".join(char for char in issuer.casefold() if char.isalnum())
    return WALLETS.get(plain) or (issuer.strip()[:60] or None)
