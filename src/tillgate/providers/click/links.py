"""Click's pay link: an unsigned address that opens the pay page. The amount is checked again at Prepare."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from tillgate.domain.money import Money
from tillgate.providers.click.config import Config

MAX_REFERENCE_CHARS = 255


def pay_link(
    config: Config,
    reference: str,
    amount: Money,
    *,
    return_url: str | None = None,
    card_type: str | None = None,
) -> str:
    """`https://my.click.uz/services/pay?…` for one order (Click's documentation, the pay button).

    `amount` is written in som with two decimals; `reference` comes back as `merchant_trans_id`.
    Raises `ValueError` for what the link cannot carry exactly.
    """
    if amount.currency != "UZS" or amount.minor <= 0:
        raise ValueError("Click takes UZS only, and more than nothing")
    if not 0 < len(reference) <= MAX_REFERENCE_CHARS or not reference.isprintable():
        raise ValueError("the order id cannot be carried by a Click link")
    fields = {
        "service_id": config.service,
        "merchant_id": config.merchant,
        "amount": amount.decimal(),
        "transaction_param": reference,
        "merchant_user_id": config.user,
        "return_url": return_url,
        "card_type": card_type or config.card_type,
    }
    # quote, not quote_plus: a space written as "+" would reach the order id of a strict reader as a plus
    query = urlencode({k: v for k, v in fields.items() if v is not None}, quote_via=quote, safe="")
    return f"{config.pay_url}?{query}"
