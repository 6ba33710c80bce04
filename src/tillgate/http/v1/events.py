"""`/v1/events`: everything that happened to a merchant, numbered without a gap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tillgate import schemas_v1
from tillgate.domain.errors import NotFound
from tillgate.http.operation import Answer, Call, Operation
from tillgate.http.v1.pages import CREATED, PAGING, asked
from tillgate.http.v1.shared import LIST, READ, named
from tillgate.hub.endpoints import EVENT_KINDS
from tillgate.schemas_v1 import bodies as models
from tillgate.store.reads_pages import Wanted


def show(row: Mapping[str, Any]) -> schemas_v1.EventV1:
    return schemas_v1.event(row["id"], row["seq"], row["type"], row["occurred_at"], bytes(row["body"]))


async def list_(call: Call) -> Answer:
    page = asked(call, "events", "type", "subject", "created_after", "created_before")
    kind, subject = page.choice("type", EVENT_KINDS), page.text("subject", longest=80)
    pages, merchant_id = call.runtime.pages, call.merchant.id
    since, until = page.time("created_after"), page.time("created_before")
    wanted = Wanted(
        "events",
        merchant_id,
        page.limit,
        page.after,
        {"subject": subject} if subject else {},
        {"type": kind} if kind else {},
        low=None if since is None else await pages.seq_at(merchant_id, since),
        high=None if until is None else await pages.seq_at(merchant_id, until),
    )
    return page.answer(await pages.page(wanted), show)


async def get(call: Call) -> Answer:
    row = await call.runtime.pages.event(call.merchant.id, named(call, "event_id"))
    if row is None:
        raise NotFound("There is no such event")
    return Answer(schemas_v1.encode(show(row)))


def operations(common: dict[str, Any]) -> list[Operation]:
    common = {**common, "tag": "Events"}
    kind = {"description": "What happened.", "type": "string", "enum": list(EVENT_KINDS)}
    return [
        Operation(
            "GET", ("/v1/events",), "v1_list_events", "What happened, the newest first", handler=list_,
            replies={200: models.EventList}, errors=LIST,
            query={"type": kind, "subject": "Id of a payment, standing order or webhook endpoint.",
                   **CREATED, **PAGING}, **common,
        ),
        Operation(
            "GET", ("/v1/events/{event_id}",), "v1_get_event",
            "One event, as webhook endpoints are sent it", handler=get, replies={200: schemas_v1.EventV1},
            errors=READ, **common,
        ),
    ]  # fmt: skip
