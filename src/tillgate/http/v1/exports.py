"""`/v1/exports`: payments and postings of a period as CSV, sent as they are read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from tillgate.http.operation import Answer, Call, Operation
from tillgate.http.v1.pages import Asked, asked
from tillgate.http.v1.payments import STATUSES
from tillgate.http.v1.shared import LIST
from tillgate.hub.exporting import Exporting, Period, moment, zone

_FILTERS: Final = ("tz", "created_after", "created_before")


def _at(what: str) -> dict[str, Any]:
    return {
        "description": what,
        "anyOf": [{"type": "string", "format": one} for one in ("date-time", "date")],
    }


QUERY: Final[dict[str, Any]] = {
    "created_after": _at("From this time on; a date begins at its midnight in `tz`."),
    "created_before": _at("Up to, and without, this time or date."),
    "tz": {
        "description": "The time zone of dates in the query and of times in the file, such as Asia/Jakarta "
        "or +07:00; UTC if not said.",
        "type": "string",
        "maxLength": 64,
    },
}


async def payments(call: Call) -> Answer:
    page = asked(call, "export_payments", "status", *_FILTERS)
    status = page.choice("status", STATUSES)
    return await _sent("payments", _exporting(call).payments(_period(page), status))


async def postings(call: Call) -> Answer:
    page = asked(call, "export_postings", *_FILTERS)
    return await _sent("postings", await _exporting(call).postings(_period(page)))


def _exporting(call: Call) -> Exporting:
    return Exporting(
        call.runtime.pages, call.merchant.id, {one.id: one.name for one in call.merchant.accounts}
    )


def _period(page: Asked) -> Period:
    where = zone(page.filters.get("tz"))
    since, until = (moment(page.filters.get(name), where, name) for name in _FILTERS[1:])
    return Period(since, until, where)


async def _sent(name: str, pieces: AsyncIterator[bytes]) -> Answer:
    """The first rows are read before anything is said, so that a store that is away is a 503 and no file."""
    begun = [piece async for piece in _first(pieces, 2)]

    async def all_of_it() -> AsyncIterator[bytes]:
        for piece in begun:
            yield piece
        async for piece in pieces:
            yield piece

    disposition = f'attachment; filename="{name}.csv"'.encode()
    headers = ((b"content-disposition", disposition), (b"x-content-type-options", b"nosniff"))
    kind = b"text/csv; charset=utf-8; header=present"
    return Answer(b"", headers=headers, content_type=kind, pieces=all_of_it())


async def _first(pieces: AsyncIterator[bytes], count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        try:
            yield await anext(pieces)
        except StopAsyncIteration:
            return


def operations(common: dict[str, Any]) -> list[Operation]:
    common = {**common, "tag": "Exports", "replies": {200: str}, "media": "text/csv", "errors": LIST}
    status = {"description": "How they stand now.", "type": "string", "enum": list(STATUSES)}
    return [
        Operation(
            "GET", ("/v1/exports/payments.csv",), "v1_export_payments",
            "Payments that were created in a period, as CSV, the oldest first", handler=payments,
            query={"status": status, **QUERY}, **common,
        ),
        Operation(
            "GET", ("/v1/exports/postings.csv",), "v1_export_postings",
            "What was booked in a period, as CSV, the oldest first", handler=postings, query=QUERY, **common,
        ),
    ]  # fmt: skip
