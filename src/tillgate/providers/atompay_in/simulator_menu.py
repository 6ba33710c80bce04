"""What the simulated AtomPay can do: its outcomes, its payment modes, its faults, and its published keys."""

from __future__ import annotations

UAT = {
    "password": "Test@123",
    "req_key": "A4476C2062FFA58980DC8F79EB6A799E",
    "res_key": "75AEF0FA1B94B3C10D4F5B268F757F11",
    "req_hash": "KEY123657234",
    "res_hash": "KEYRESP123657234",
}
"""What NDPS prints for its test environment."""

OUTCOMES = {
    "success": ("OTS0000", "SUCCESS"),
    "forced": ("OTS0002", "FORCE SUCCESS"),
    "pending": ("OTS0551", "PENDING"),
    "timeout": ("OTS0201", "FAILED"),
    "failed": ("OTS0600", "FAILED"),
    "cancelled": ("OTS0101", "CANCELLED"),
    "reversed": ("OTS0001", "AUTO REVERSAL"),
}
MODES = {
    "NB": "Net banking",
    "CC": "Credit card",
    "DC": "Debit card",
    "UP": "UPI",
    "BQ": "Bharat QR",
    "MW": "Wallet",
    "EM": "EMI",
    "NR": "NEFT/RTGS challan",
}
FAULTS = {
    "auth_empty": "AUTH answers 200 with nothing",
    "auth_html": "AUTH answers an HTML page",
    "auth_error": "AUTH answers a plain JSON error",
    "auth_500": "AUTH answers 500 with an HTML page",
    "callback_lost": "no callback is sent",
    "callback_twice": "two callbacks at once",
    "callback_json": "the callback is JSON",
    "callback_array": "payInstrument is an array in callback and return",
    "callback_null_signature": "the signature is null",
    "callback_no_signature": "there is no signature",
    "callback_forged": "the signature is another one",
    "callback_amount": "the signature is right and the amount another",
    "callback_currency": "the signature is right and the currency another",
    "callback_merchant": "it names another merchant who has the same keys",
    "callback_tampered": "one bit of the ciphertext is flipped",
    "return_lost": "the payer's browser is closed before the return",
    "lower_hex": "encData in lower case",
    "requery_empty": "requery answers 200 with nothing",
    "requery_html": "requery answers an HTML page",
    "requery_500": "requery answers 500",
    "requery_object": "requery answers an object in the place of an array",
    "requery_no_data": "requery finds nothing",
    "refund_lost": "the refund is taken and its answer lost",
    "refund_refused": "the refund is refused",
    "refund_line": "the first product's refund fails under an overall success",
}
