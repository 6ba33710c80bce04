"""`/v1/ledger`: the books, read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tillgate import schemas_v1
from tillgate.http.operation import Answer, Call, Operation
from tillgate.http.v1.pages import CREATED, PAGING, Asked, asked, whole
from tillgate.http.v1.shared import LIST
from tillgate.schemas_v1 import bodies as models
from tillgate.store.reads_pages import Page, Wanted


async def balances(call: Call) -> Answer:
    rows = [models.BalanceV1(*row) for row in await call.runtime.kit.reads.balances(call.merchant.id)]
    return whole(rows)


async def _postings_page(page: Asked) -> Page:
    pages, merchant_id = page.call.runtime.pages, page.call.merchant.id
    since, until = page.time("created_after"), page.time("created_before")
    wanted = Wanted(
        "postings",
        merchant_id,
        page.limit,
        page.after,
        low=None if since is None else await pages.seq_at(merchant_id, since),
        high=None if until is None else await pages.seq_at(merchant_id, until),
    )
    return await pages.page(wanted)


async def postings(call: Call) -> Answer:
    page = asked(call, "postings", "created_after", "created_before")
    return page.answer(await _postings_page(page), _posting)


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


def operations(common: dict[str, Any]) -> list[Operation]:
    common = {**common, "tag": "Ledger"}
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
    ]  # fmt: skip
