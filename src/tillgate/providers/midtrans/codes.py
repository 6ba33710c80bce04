"""Midtrans' codes in our words. What is not listed is shown as it came."""

from __future__ import annotations

from typing import Final

CHARGE: Final = {
    400: "a value was not taken",
    401: "the server key is wrong",
    402: "this payment type is not switched on for the account",
    404: "the payer is not known there",
    406: "it is there already",
    410: "the payer's wallet is blocked",
    411: "the account is not switched on",
    412: "this cannot be done any more",
    413: "the request was not understood",
    429: "too many requests",
}
REFUND: Final = {
    **CHARGE,
    202: "the bank denied the refund",
    404: "the payment is not known there",
    412: "the payment cannot be refunded as it stands, or refunds by API are not allowed for the account",
    414: "the amount is more than is left, or than the balance",
}

WALLETS: Final = {
    "gopay": "GoPay",
    "ovo": "OVO",
    "dana": "DANA",
    "shopeepay": "ShopeePay",
    "airpayshopee": "ShopeePay",
}


def explain(code: int, message: str, words: dict[int, str]) -> str:
    """`the server key is wrong (Midtrans: 401: …)`, with the provider's own text for operators."""
    said = f"{code}: {message}" if message else str(code)
    return f"{words.get(code, 'Midtrans said no')} (Midtrans: {said[:200]})"


def payer(issuer: str) -> str | None:
    """Whose wallet paid, in the names that a cashier knows; what is not known as it came."""
    plain = "".join(char for char in issuer.casefold() if char.isalnum())
    return WALLETS.get(plain) or (issuer.strip()[:60] or None)
