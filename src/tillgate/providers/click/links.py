"""Click's pay link: an unsigned address that opens the pay page. The amount is checked again at Prepare."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from tillgate.domain.money import Money
from tillgate.providers.click.config import Config

MAX_REFERENCE_CHARS = 255


class BadLink(ValueError):
    """What a Click link cannot carry exactly."""


def pay_link(
    config: Config,
    reference: str,
    amount: Money | None,
    *,
    return_url: str | None = None,
    card_type: str | None = None,
) -> str:
    """`https://my.click.uz/services/pay?…` for one order (Click's documentation, the pay button).

    `amount` is written in som with two decimals (None: the payer names it; Click documents no such link);
    `reference` comes back as `merchant_trans_id`. Raises `BadLink`.
    """
    if amount is not None and (amount.currency != "UZS" or amount.minor <= 0):
        raise BadLink("Click takes UZS only, and more than nothing")
    if not 0 < len(reference) <= MAX_REFERENCE_CHARS or not reference.isprintable():
        raise BadLink("it must be 1 to 255 printable characters")
    fields = {
        "service_id": config.service,
        "merchant_id": config.merchant,
        "amount": None if amount is None else amount.decimal(),
        "transaction_param": reference,
        "merchant_user_id": config.user,
        "return_url": return_url,
        "card_type": card_type or config.card_type,
    }
    # quote, not quote_plus: a space written as "+" would reach the order id of a strict reader as a plus
    query = urlencode({k: v for k, v in fields.items() if v is not None}, quote_via=quote, safe="")
    return f"{config.pay_url}?{query}"
