"""Payme's official scenarios and rules as checks against any Merchant API endpoint, ours or yours.

Written from the manual; it shares no code with the connector.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from tillgate.conform import Option, Orders, Payable, Suite, Target, listed
from tillgate.providers.payme.conformance import malformed, rules, sandbox
from tillgate.providers.payme.conformance.client import Settings

CHECKS = (*sandbox.CHECKS, *rules.CHECKS, *malformed.CHECKS)
ORDERS_NEEDED = 70
"""So many fresh one-time orders are enough for all checks; an accumulative account is one."""

ONE_TIME, ACCUMULATIVE = "one-time", "accumulative"


def target(url: str, options: Mapping[str, Any], orders: Orders | None = None) -> Target:
    """Describe an endpoint. `orders` is used in place of the option `order`. Raises `ValueError`."""
    key = options.get("key") or ""
    if not key:
        raise ValueError("key: the cash desk's key (or TEST_KEY) is needed")
    login = options.get("login") or "Paycom"
    field = options.get("account-field") or "order_id"
    kind = options.get("kind") or ONE_TIME
    if kind not in (ONE_TIME, ACCUMULATIVE):
        raise ValueError(f"kind: {ONE_TIME} or {ACCUMULATIVE}")
    named = [parsed(text, field) for text in options.get("order") or ()]
    if orders is None:
        if not named:
            raise ValueError(f"order: name {ORDERS_NEEDED} unpaid orders as REFERENCE:SOM, or one account")
        orders = _again(named) if kind == ACCUMULATIVE else listed(named)
    missing = options.get("missing") or "999999999"
    account = json.loads(missing) if missing.startswith("{") else {field: missing}
    credentials = base64.b64encode(f"{login}:{key}".encode()).decode()
    settings = Settings(key, orders, login, kind == ONE_TIME, account)
    return Target(url, settings, frozenset({key, credentials}))


def parsed(text: str, field: str) -> Payable:
    """`197:15000.00` (som), or `{"account": {...}, "amount": 1500000}` (tiyin). Raises `ValueError`."""
    if text.startswith("{"):
        given = json.loads(text)
        account = {str(name): str(value) for name, value in given["account"].items()}
        return Payable(";".join(account.values()), int(given["amount"]), account)
    reference, _, som = text.rpartition(":")
    try:
        tiyin = Decimal(som) * 100
    except InvalidOperation:
        tiyin = Decimal(0)
    if not reference or not tiyin.is_finite() or not 0 < tiyin < 10**15 or tiyin != int(tiyin):
        raise ValueError(f"order: {text[:60]!r} is not REFERENCE:SOM")
    return Payable(reference, int(tiyin), {field: reference})


def _again(named: list[Payable]) -> Orders:
    """Accumulative accounts are never used up."""
    turn = iter(range(10**9))

    async def fresh() -> Payable:
        return named[next(turn) % len(named)]

    return fresh


CONFORMANCE = Suite(
    name="payme",
    title="Payme Merchant API",
    options=(
        Option("key", "the cash desk's key, or TEST_KEY", required=True, secret=True),
        Option("login", "the login of Basic authorisation", default="Paycom"),
        Option("account-field", "the name of the account field", default="order_id"),
        Option("kind", f"{ONE_TIME} or {ACCUMULATIVE}", default=ONE_TIME),
        Option(
            "order",
            'an unpaid order, REFERENCE:SOM or {"account": …, "amount": tiyin}; '
            f"{ORDERS_NEEDED} one-time orders or two accumulative accounts are enough",
            required=True,
            many=True,
        ),
        Option("missing", "an account that nobody has", default="999999999"),
    ),
    checks=CHECKS,
    target=target,
)
