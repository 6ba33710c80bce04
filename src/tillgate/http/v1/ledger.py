"""`/v1/ledger` and `/v1/exports`: the books, read and taken home."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final

from tillgate import schemas_v1
from tillgate.domain.money import Money
from tillgate.http.operation import Answer, Call, Operation
from tillgate.http.v1.pages import CREATED, PAGING, Asked, asked, whole
from tillgate.http.v1.payments import STATUSES, payments_page
from tillgate.http.v1.shared import LIST
from tillgate.schemas import rfc3339
from tillgate.schemas_v1 import bodies as models
from tillgate.store.reads_pages import Key, Page, Wanted

_PIECE: Final = 500
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


async def balances(call: Call) -> Answer:
    rows = [models.BalanceV1(*row) for row in await call.runtime.kit.reads.balances(call.merchant.id)]
    return whole(rows)


async def _postings_page(page: Asked, limit: int, after: Key | None = None) -> Page:
    pages, merchant_id = page.call.runtime.pages, page.call.merchant.id
    since, until = page.time("created_after"), page.time("created_before")
    wanted = Wanted(
        "postings",
        merchant_id,
        limit,
        after or page.after,
        low=None if since is None else await pages.seq_at(merchant_id, since),
        high=None if until is None else await pages.seq_at(merchant_id, until),
    )
    return await pages.page(wanted)


async def postings(call: Call) -> Answer:
    page = asked(call, "postings", "created_after", "created_before")
    return page.answer(await _postings_page(page, page.limit), _posting)


def _posting(row: Mapping[str, Any]) -> models.PostingV1:
    return models.PostingV1(
        event=row["event_id"],
        event_number=row["seq"],
        line=row["line"],
        subject=row["event_subject"],
        kind=row["kind"],
        source=row["source"],
        destination=row["destination"],
        amount_minor=row["amount_minor"],
        currency=row["currency"],
        at=schemas_v1.at(row["event_occurred_at"]),
    )


# --- exports ---

PAYMENT_COLUMNS: Final = (
    "id", "order_id", "status", "currency", "amount", "paid", "tip", "fee", "refunded", "reversed", "channel",
    "account", "paid_with", "created_at", "paid_at",
)  # fmt: skip
POSTING_COLUMNS: Final = (
    "at", "event", "line", "subject", "kind", "source", "destination", "currency", "amount",
)  # fmt: skip


def _payment_line(row: Mapping[str, Any]) -> Sequence[Any]:
    one = row["record"]

    def money(amount_minor: int) -> str:
        return Money(amount_minor, one.currency).decimal()

    return (
        one.id, one.order_id, one.status, one.currency, money(one.amount_minor), money(one.paid_minor),
        money(one.tip_minor), money(one.fee_minor), money(one.refunded_minor), money(one.reversed_minor),
        one.channel, one.account_id, one.paid_with, rfc3339(one.created_at), rfc3339(one.paid_at),
    )  # fmt: skip


def _posting_line(row: Mapping[str, Any]) -> Sequence[Any]:
    amount = Money(row["amount_minor"], row["currency"]).decimal()
    return (
        rfc3339(row["event_occurred_at"]), row["event_id"], row["line"], row["event_subject"], row["kind"],
        row["source"], row["destination"], row["currency"], amount,
    )  # fmt: skip


def csv_line(values: Sequence[Any]) -> str:
    """One line by RFC 4180. A text that a spreadsheet would take for a formula gets an apostrophe."""
    out = io.StringIO()
    shown = ("" if one is None else str(one) for one in values)
    csv.writer(out).writerow(f"'{one}" if one.startswith(_FORMULA) else one for one in shown)
    return out.getvalue()


async def _written(
    columns: Sequence[str],
    read: Callable[[Key | None], Any],
    line: Callable[[Mapping[str, Any]], Sequence[Any]],
) -> AsyncIterator[bytes]:
    """Read a piece, send a piece: an export of any size takes the memory of one."""
    yield csv_line(columns).encode()
    after: Key | None = None
    while True:
        page: Page = await read(after)
        if page.rows:
            yield "".join(csv_line(line(row)) for row in page.rows).encode()
        if page.next is None:
            return
        after = page.next


def _export(name: str, pieces: AsyncIterator[bytes]) -> Answer:
    disposition = f'attachment; filename="{name}.csv"'.encode()
    headers = ((b"content-disposition", disposition), (b"x-content-type-options", b"nosniff"))
    return Answer(
        b"", headers=headers, content_type=b"text/csv; charset=utf-8; header=present", pieces=pieces
    )


async def export_payments(call: Call) -> Answer:
    page = asked(call, "export_payments", "status", "created_after", "created_before")
    page.choice("status", STATUSES), page.time("created_after"), page.time("created_before")  # said at once

    async def read(after: Key | None) -> Page:
        return await payments_page(page, _PIECE, after)

    return _export("payments", _written(PAYMENT_COLUMNS, read, _payment_line))


async def export_postings(call: Call) -> Answer:
    page = asked(call, "export_postings", "created_after", "created_before")
    page.time("created_after"), page.time("created_before")

    async def read(after: Key | None) -> Page:
        return await _postings_page(page, _PIECE, after)

    return _export("postings", _written(POSTING_COLUMNS, read, _posting_line))


def operations(common: dict[str, Any]) -> list[Operation]:
    common = {**common, "tag": "Ledger"}
    status = {"description": "How they stand.", "type": "string", "enum": list(STATUSES)}
    exported: dict[str, Any] = {"replies": {200: str}, "media": "text/csv", "errors": LIST, **common}
    return [
        Operation(
            "GET", ("/v1/ledger/balances",), "v1_list_balances", "What every account of your books holds",
            handler=balances, replies={200: models.BalanceList}, errors=LIST, **common,
        ),
        Operation(
            "GET", ("/v1/ledger/postings",), "v1_list_postings", "Every posting, the newest first",
            handler=postings, replies={200: models.PostingList}, errors=LIST, query={**CREATED, **PAGING},
            **common,
        ),
        Operation(
            "GET", ("/v1/exports/payments.csv",), "v1_export_payments",
            "Payments as CSV, the newest first; amounts with their decimals", handler=export_payments,
            query={"status": status, **CREATED}, **exported,
        ),
        Operation(
            "GET", ("/v1/exports/postings.csv",), "v1_export_postings", "Postings as CSV, the newest first",
            handler=export_postings, query={**CREATED}, **exported,
        ),
    ]  # fmt: skip
