"""AtomPay's rules as checks against any merchant's response endpoint, ours or yours.

Written from NDPS's documents and the AtomPay facts; it shares no code with the connector.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlsplit

from tillgate.conform import Option, Orders, Payable, Suite, Target, listed
from tillgate.providers.atompay_in.conformance.client import Settings
from tillgate.providers.atompay_in.conformance.rules import CHECKS
from tillgate.providers.atompay_in.simulator_menu import UAT

ORDERS_NEEDED = 40
"""So many unpaid orders are enough for all checks."""


def target(url: str, options: Mapping[str, Any], orders: Orders | None = None) -> Target:
    """Describe an endpoint: the URL of its callback or return. Raises `ValueError`."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError("url: the http address of the response endpoint")
    if orders is None:
        named = [parsed(text) for text in options.get("order") or ()]
        if not named:
            raise ValueError(f"order: name {ORDERS_NEEDED} unpaid orders as MERCHTXNID:RUPEES[:REFERENCE]")
        orders = listed(named)
    header: tuple[str, str] | None = None
    if text := options.get("state-header"):
        name, found, value = str(text).partition(":")
        if not found or not name.strip():
            raise ValueError("state-header: NAME: VALUE")
        header = (name.strip(), value.strip())
    state_url = options.get("state-url") or ""
    if state_url and "{reference}" not in state_url:
        raise ValueError("state-url: has {reference} where the order's reference goes")
    settings = Settings(
        orders=orders,
        merch_id=options.get("merch-id") or "317157",
        res_key=options.get("res-dec-key") or UAT["res_key"],
        res_hash=options.get("resp-hash-key") or UAT["res_hash"],
        state_url=state_url,
        state_header=header,
        paid=options.get("paid") or r'"status"\s*:\s*"paid"',
    )
    secrets = {settings.res_key, settings.res_hash, header[1] if header else ""}
    return Target(url, settings, frozenset(secrets - {""}))


def parsed(text: str) -> Payable:
    """`0198a1…:319.00` or `0198a1…:319.00:ORD-1`. Raises `ValueError`."""
    merch_txn_id, _, rest = text.partition(":")
    rupees, _, reference = rest.partition(":")
    try:
        paise = Decimal(rupees) * 100
    except InvalidOperation:
        paise = Decimal(0)
    if not merch_txn_id or not paise.is_finite() or not 0 < paise < 10**12 or paise != int(paise):
        raise ValueError(f"order: {text[:60]!r} is not MERCHTXNID:RUPEES[:REFERENCE]")
    return Payable(reference or merch_txn_id, int(paise), {"merchTxnId": merch_txn_id})


CONFORMANCE = Suite(
    name="atompay",
    title="AtomPay response endpoint",
    options=(
        Option(
            "order",
            "an unpaid order: merchTxnId, its amount, and how --state-url calls it (default: the same), as"
            f" MERCHTXNID:RUPEES[:REFERENCE]; {ORDERS_NEEDED} are enough",
            required=True,
            many=True,
        ),
        Option("merch-id", "the merchant id", default="317157"),
        Option("res-dec-key", "the response encryption key (the public test key by default)", secret=True),
        Option("resp-hash-key", "the response hash key (the public test key by default)", secret=True),
        Option("state-url", "where an order's state can be read, with {reference} in it"),
        Option("state-header", "a header for it, NAME: VALUE", secret=True),
        Option("paid", "a regular expression that is found there when the order is paid"),
    ),
    checks=CHECKS,
    target=target,
)
