"""What commands must see before they decide, loaded for all of them in one statement per table."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Any, Final

from tillgate.domain.payment import Attempt, Payment, Refund, StandingOrder
from tillgate.store import tables
from tillgate.store.book import TABLE_OF, Book, Command, Needs, Remembered, record_of, together
from tillgate.store.database import Tx, Wanted
from tillgate.store.statements import Row, columns

_INBOUND_DIGEST: Final = columns(tables.inbound).index("digest")


async def load(tx: Tx, book: Book, commands: Sequence[Command[Any]]) -> None:
    """What the commands of a batch need, under the locks of their merchants."""
    if not commands:
        return
    merchants = sorted({command.merchant_id for command in commands})
    for merchant_id, seq, chain in await tx.select(
        tables.heads, ("merchant_id",), _keys(merchants), lock=True
    ):
        book.heads[merchant_id] = seq, bytes(chain)
    await load_facts(tx, book, commands)


async def load_facts(tx: Tx, book: Book, commands: Sequence[Command[Any]]) -> None:
    """What they need of everything but their merchants' heads."""
    needs = together(command.needs() for command in commands)
    keys = (*needs.idempotency, *needs.named)
    # Most orders and keys are new: one look says whether any of them is known.
    wanted: list[Wanted] = [
        (tables.payments, "order_key", needs.orders),
        (tables.standing_orders, "order_key", needs.orders),
        (tables.idempotency, "digest", keys),
    ]
    wanted = [one for one in wanted if one[2]]
    there = await tx.known(wanted)
    known = {table.name for (table, _, _), some in zip(wanted, there, strict=True) if some}
    if "idempotency" in known:
        for row in await tx.select(tables.idempotency, ("digest",), _keys(keys)):
            book.remembered[row[0]] = Remembered(*row)
            book.known_answers.add(row[0])
    answers = (book.remembered.get(one) for one in needs.named)
    subjects = {one.subject for one in answers if one is not None and one.subject is not None}
    await _load_records(tx, book, needs, known, subjects)
    if needs.seen:
        for row in await tx.select(tables.inbound, ("digest",), _keys(needs.seen)):
            book.seen.add(row[_INBOUND_DIGEST])


async def _load_records(
    tx: Tx, book: Book, needs: Needs, known: Container[str], subjects: Iterable[str]
) -> None:
    """`known` names the tables that have some of the orders, `subjects` more attempts."""

    async def load(kind: type[Any], by: tuple[str, ...], keys: Sequence[Row]) -> list[Any]:
        if not keys:
            return []
        found = [record_of(kind, row) for row in await tx.select(TABLE_OF[kind], by, keys)]
        for record in found:
            book.load(record)
        return found

    payments = await load(Payment, ("order_key",), _keys(needs.orders if "payments" in known else ()))
    await load(StandingOrder, ("order_key",), _keys(needs.orders if "standing_orders" in known else ()))
    await load(StandingOrder, ("id",), _keys(needs.standing))
    attempts = await load(Attempt, ("id",), _keys({*needs.attempts, *subjects}))
    attempts += await load(Attempt, ("account_id", "external_id"), needs.externals)
    refunds = await load(Refund, ("id",), _keys(needs.refunds))
    named = {*needs.payments, *(record.payment_id for record in (*attempts, *refunds))}
    payments += await load(Payment, ("id",), _keys(named - {payment.id for payment in payments}))
    await load(Attempt, ("payment_id",), _keys({payment.id for payment in payments}))
    parents = {payment.standing_id for payment in payments if payment.standing_id}
    await load(StandingOrder, ("id",), _keys(parents - book.records.keys()))


def _keys(values: Iterable[Any]) -> list[Row]:
    return [(value,) for value in values]
