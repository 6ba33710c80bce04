"""Click's official matrix and rules as checks against any SHOP API endpoint, ours or yours.

Written from the manual; it shares no code with the connector or the simulator.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tillgate.conform import Option, Orders, Payable, Suite, Target, listed
from tillgate.providers.click.conformance import malformed, matrix, rules
from tillgate.providers.click.conformance.client import Settings

CHECKS = (*matrix.CHECKS, *rules.CHECKS, *malformed.CHECKS)
ORDERS_NEEDED = 30
"""So many fresh one-time orders are enough for all checks; a standing account is one."""

ONE_TIME, STANDING = "one-time", "standing"


def target(url: str, options: Mapping[str, Any], orders: Orders | None = None) -> Target:
    """Describe an endpoint. `orders` is used in place of the option `order`. Raises `ValueError`."""
    key, service = options.get("key") or "", str(options.get("service-id") or "")
    if not key:
        raise ValueError("key: the service's SECRET_KEY is needed")
    if not re.fullmatch(r"[1-9]\d{0,17}", service, re.ASCII):
        raise ValueError("service-id: the service's number is needed")
    kind = options.get("kind") or ONE_TIME
    if kind not in (ONE_TIME, STANDING):
        raise ValueError(f"kind: {ONE_TIME} or {STANDING}")
    named = [parsed(text) for text in options.get("order") or ()]
    if orders is None:
        if not named:
            raise ValueError(f"order: name {ORDERS_NEEDED} unpaid orders as REFERENCE:SOM, or one account")
        orders = _again(named) if kind == STANDING else listed(named)
    settings = Settings(
        service_id=service,
        key=key,
        orders=orders,
        missing=options.get("missing") or "999999999",
        one_time=kind == ONE_TIME,
        complete_url=options.get("complete-url") or None,
    )
    return Target(url, settings, frozenset({key}))


def parsed(text: str) -> Payable:
    """`197:15000.00`, in som. Raises `ValueError`."""
    found = re.fullmatch(r"(.+):(\d{1,12})(?:\.(\d{1,2}))?", text, re.ASCII | re.DOTALL)
    tiyin = int(found[2]) * 100 + int((found[3] or "").ljust(2, "0")) if found else 0
    if not found or tiyin <= 1:
        raise ValueError(f"order: {text[:60]!r} is not REFERENCE:SOM")
    return Payable(found[1], tiyin)


def _again(named: list[Payable]) -> Orders:
    """Standing accounts are never used up."""
    turn = iter(range(10**9))

    async def fresh() -> Payable:
        return named[next(turn) % len(named)]

    return fresh


CONFORMANCE = Suite(
    name="click",
    title="Click SHOP API",
    options=(
        Option("service-id", "the number of the service", required=True),
        Option("key", "the service's SECRET_KEY", required=True, secret=True),
        Option("complete-url", "where Complete has an address of its own"),
        Option("kind", f"{ONE_TIME} or {STANDING}", default=ONE_TIME),
        Option(
            "order",
            f"an unpaid order as REFERENCE:SOM; {ORDERS_NEEDED} one-time orders or one account are enough",
            required=True,
            many=True,
        ),
        Option("missing", "an order that nobody has", default="999999999"),
    ),
    checks=CHECKS,
    target=target,
)
