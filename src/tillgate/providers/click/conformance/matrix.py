"""The official 15-scenario matrix (docs.click.uz, testing/postman), played in order on three orders."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tillgate.conform import Check, Failed, NoAnswer, Wire, expect
from tillgate.providers.click.conformance.client import (
    COMPLETE,
    DEBIT_FAILED,
    PREPARE,
    Client,
    must,
)

SOURCE: Final = "Click, testing: the Postman matrix, scenario {}"
OTHER_AMOUNT: Final = "400"
"""What is sent in place of the matrix's wrong amount, where an order has just that price."""


@dataclass(frozen=True, slots=True)
class Row:
    number: int
    title: str
    order: str  # one of three
    action: str
    code: int
    over: dict[str, str] = field(default_factory=dict)
    bad_sign: bool = False


MATRIX: Final = (
    Row(1, "Prepare with a bad signature is answered -1", "A", PREPARE, -1, bad_sign=True),
    Row(2, "Prepare of an unknown order is answered -5", "?", PREPARE, -5),
    Row(3, "Prepare of an unpaid order is answered 0", "A", PREPARE, 0),
    Row(4, "Complete with a bad signature is answered -1", "A", COMPLETE, -1, bad_sign=True),
    Row(5, "Complete of another amount is answered -2", "A", COMPLETE, -2, {"amount": "300"}),
    Row(6, "Complete is answered 0", "A", COMPLETE, 0),
    Row(7, "Complete again is answered -4", "A", COMPLETE, -4),
    Row(
        8, "Complete with a negative error is answered -9, paid or not", "A", COMPLETE, -9,
        {"error": DEBIT_FAILED},
    ),
    Row(9, "Prepare of a second order is answered 0", "B", PREPARE, 0),
    Row(
        10, "Complete with an unknown merchant_prepare_id is answered -6", "B", COMPLETE, -6,
        {"merchant_prepare_id": "999999999"},
    ),
    Row(11, "Complete with the right one is answered 0", "B", COMPLETE, 0),
    Row(12, "Prepare of a third order is answered 0", "C", PREPARE, 0),
    Row(
        13, "Complete with a negative error cancels and is answered -9", "C", COMPLETE, -9,
        {"error": DEBIT_FAILED},
    ),
    Row(14, "The cancellation again is answered -9", "C", COMPLETE, -9, {"error": DEBIT_FAILED}),
    Row(15, "A good Complete after the cancellation is answered -9", "C", COMPLETE, -9),
)  # fmt: skip


def scenario(number: int) -> Callable[[Wire], Awaitable[None]]:
    async def run(wire: Wire) -> None:
        client = Client(wire)
        walk = client.settings.walk
        while walk.setdefault("next", 1) < number:  # where it is run alone, what leads there is played first
            try:
                await _play(client, walk, MATRIX[walk["next"] - 1])
            except Failed:
                continue  # that row has a check of its own
        if walk["next"] > number:
            walk.clear()
            return await run(wire)
        row = MATRIX[number - 1]
        answer = await _play(client, walk, row)
        unprepared = row.action == COMPLETE and walk[row.order].prepare_id is None
        must(answer, (row.code,), "its Prepare gave no merchant_prepare_id" if unprepared else "")
        if row.code == 0:
            given = answer.get("merchant_prepare_id" if row.action == PREPARE else "merchant_confirm_id")
            expect(given is None or type(given) is int, f"the billing id is {given!r}, not an int")
            if row.action == PREPARE:
                expect(given is not None, "merchant_prepare_id is missing")
        return None

    return run


async def _play(client: Client, walk: dict[str, Any], row: Row) -> dict[str, Any]:
    walk["next"] = row.number + 1
    if row.order == "?":
        transaction = await client.idle()
        transaction.order = client.settings.missing
    else:
        if row.order not in walk:
            try:
                walk[row.order] = await client.begin()
            except NoAnswer:
                walk["next"] = row.number
                raise
        transaction = walk[row.order]
    over = dict(row.over)
    if over.get("amount") == transaction.amount.removesuffix(".00"):
        over["amount"] = OTHER_AMOUNT
    fields = client.signed(client.fields(transaction, row.action, **over))
    if row.bad_sign:
        fields["sign_string"] = "0" * 32
    answer = await client.ask(fields)
    if row.action == PREPARE and answer["error"] == 0:
        transaction.prepare_id = answer.get("merchant_prepare_id")
    return answer


CHECKS: Final = tuple(
    Check(
        f"matrix.{row.number:02}",
        row.title,
        SOURCE.format(row.number),
        scenario(row.number),
        "the official matrix",
    )
    for row in MATRIX
)
