"""The modern API, `/v1`, on the same use cases as the document's."""

from __future__ import annotations

from typing import Any, Final

from tillgate.http.operation import Operation
from tillgate.http.v1 import (
    accounts,
    deliveries,
    endpoints,
    events,
    exports,
    inbound,
    ledger,
    links,
    payments,
    reconciliations,
    refunds,
    settings,
    standing,
    terminals,
)
from tillgate.http.v1.problem import ProblemDialect

DIALECT: Final = ProblemDialect()


def operations() -> list[Operation]:
    common: dict[str, Any] = {"dialect": DIALECT}
    resources = (
        settings, payments, refunds, standing, links, events, endpoints, deliveries, accounts, ledger,
        exports, inbound, terminals, reconciliations,
    )  # fmt: skip
    return [one for resource in resources for one in resource.operations(common)]
