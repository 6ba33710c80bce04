"""AtomPay status codes and what they mean for us. Decide by code alone, never by message or by substring."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Outcome(StrEnum):
    PAID = "paid"
    PENDING = "pending"
    FAILED = "failed"
    REVERSED = "reversed"
    NO_DATA = "no_data"  # not found: never a failure by itself
    OUR_REQUEST = "our_request"  # they refused what we sent; the payment is as it was
    UNKNOWN = "unknown"  # gateway trouble, or a code nobody published


_P, _F, _R = Outcome.PENDING, Outcome.FAILED, Outcome.OUR_REQUEST

CODES: Final[dict[str, tuple[Outcome, str]]] = {
    "OTS0000": (Outcome.PAID, "success"),
    "OTS0002": (Outcome.PAID, "success after reconciliation"),
    "OTS0551": (_P, "pending at the bank"),
    "OTS0201": (_P, "timed out at the gateway"),
    "OTS0301": (_P, "initialised"),
    "OTS0351": (_P, "initiated"),
    "OTS0001": (Outcome.REVERSED, "reversed by the gateway"),
    "OTS0101": (_F, "cancelled by the payer"),
    "OTS0600": (_F, "failed or aborted"),
    "OTS0401": (Outcome.NO_DATA, "no data for this transaction, date and amount"),
    "OTS0451": (_R, "invalid merchant information"),
    "OTS0501": (_R, "invalid data"),
    "OTS0503": (_R, "API name too long"),
    "OTS0504": (_R, "API name invalid"),
    "OTS0506": (_R, "our signature does not match: check the request hash key"),
    "OTS0507": (_R, "date format"),
    "OTS0508": (_R, "currency"),
    "OTS0509": (_R, "amount"),
    "OTS0510": (_R, "date"),
    "OTS0522": (_R, "invalid transaction password"),
    "OTS0637": (_R, "the gateway cannot decrypt our request: check the request encryption key"),
    "OTS0638": (_R, "a mandatory field is missing"),
    "OTS0639": (_R, "date in the future: check the clock"),
    "OTS0640": (_R, "date format"),
    "OTS0641": (_R, "merchId or encData is missing"),
    "OTS0951": (Outcome.UNKNOWN, "something went wrong at the gateway"),
    "OTS0602": (_F, "surcharge"),
    "OTS0612": (_F, "amount and surcharge do not make the total"),
    "OTS0613": (_F, "a response exists already"),
    "OTS0614": (_F, "the bank's amount does not match"),
    "OTS0618": (_F, "the amount is not that of the token"),
    "OTS0621": (_F, "amount out of range"),
    "OTS0624": (_F, "a response exists already"),
    "OTS0625": (_F, "the bank's amount does not match"),
    "OTS0626": (_F, "the products' amounts do not make the amount"),
}
"""Codes OTS0601 to OTS0636 that are not named are the checkout page's validation: failed."""

NOT_YET: Final = "OTS0639"
"""What a requery under a date in the future is told."""

CANCELLED: Final = "cancelTransaction"
TIMED_OUT: Final = "sessionTimeout"
WORDS: Final = frozenset({CANCELLED, TIMED_OUT})
"""Plain words in the place of `encData`: from the browser, so they prove nothing."""

MODES: Final[dict[str, str]] = {
    "NB": "netbanking",
    "CC": "credit_card",
    "DC": "debit_card",
    "MW": "wallet",
    "PP": "phonepe",
    "PW": "paytm",
    "EM": "emi",
    "NR": "challan",
    "BQ": "bharat_qr",
    "UP": "upi",
}
"""`subChannel` → our word for what was paid with."""

CHALLAN: Final = "NR"


def outcome(code: str) -> Outcome:
    known = CODES.get(code)
    if known is not None:
        return known[0]
    if code.isascii() and "OTS0601" <= code <= "OTS0636" and len(code) == 7 and code[3:].isdigit():
        return Outcome.FAILED
    return Outcome.UNKNOWN


def explain(code: str) -> str:
    """For a person: "OTS0551: pending at the bank". An unknown code is cut short: a stranger wrote it."""
    known = CODES.get(code)
    return f"{code}: {known[1]}" if known else f"{code[:16]!a}"
