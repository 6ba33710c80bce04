"""`/v1/deliveries`: what was sent where, each try and its answer; send one again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tillgate import schemas_v1
from tillgate.domain.errors import NotFound
from tillgate.http.operation import Answer, Call, Operation
from tillgate.http.v1 import events
from tillgate.http.v1.pages import PAGING, asked
from tillgate.http.v1.shared import LIST, READ, WRITE, answer, named
from tillgate.schemas import rfc3339
from tillgate.schemas_v1 import bodies as models
from tillgate.store.ids import event_seq
from tillgate.store.reads_pages import Wanted

STATES: Final = ("pending", "delivered", "failed")


def show(row: Mapping[str, Any]) -> models.DeliveryV1:
    return models.DeliveryV1(**_fields(row))


def _fields(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "event_number": row["seq"],
        "endpoint": row["endpoint_id"],
        "url": row["url"],
        "status": row["state"],
        "tries": row["tries"],
        "next_at": rfc3339(row["next_at"]) if row["state"] == "pending" else None,
        "done_at": rfc3339(row["done_at"]),
        "last_status": row["last_status"],
        "last_error": row["last_error"],
        "created_at": schemas_v1.at(row["created_at"]),
    }


async def list_(call: Call) -> Answer:
    page = asked(call, "deliveries", "status", "endpoint", "event")
    state, endpoint = page.choice("status", STATES), page.text("endpoint", longest=80)
    event = page.text("event", longest=80)
    sifted: dict[str, Any] = {"state": state} if state else {}
    if endpoint:
        sifted["endpoint_id"] = endpoint
    seq = None if event is None else event_seq(event)
    if event is not None and await call.runtime.pages.event(call.merchant.id, event) is None:
        return page.shown([], None)
    found = {} if seq is None else {"seq": seq}
    wanted = Wanted("deliveries", call.merchant.id, page.limit, page.after, found, sifted)
    return page.answer(await call.runtime.pages.page(wanted), show)


async def _own(call: Call) -> Mapping[str, Any]:
    row = await call.runtime.pages.one("deliveries", call.merchant.id, named(call, "delivery_id"))
    if row is None:
        raise NotFound("There is no such delivery")
    return row


async def get(call: Call) -> Answer:
    row, pages = await _own(call), call.runtime.pages
    event = await pages.event_at(call.merchant.id, row["seq"])
    tries = [
        models.DeliveryTry(number, schemas_v1.at(at), took_ms, status, said, error)
        for _, number, at, took_ms, status, said, error in await pages.tries(row["id"])
    ]
    shown = models.DeliveryDetail(**_fields(row), event=events.show(event) if event else None, log=tries)
    return Answer(schemas_v1.encode(shown))


def _render(row: Mapping[str, Any]) -> bytes:
    return schemas_v1.encode(show(row))


async def resend(call: Call) -> Answer:
    row, stored = await call.runtime.hub.resending.one(call.merchant, await _own(call), call.key, _render)
    return answer(stored, _render(row), 202)


def operations(common: dict[str, Any]) -> list[Operation]:
    common = {**common, "tag": "Deliveries"}
    one = "/v1/deliveries/{delivery_id}"
    state = {"description": "How it stands.", "type": "string", "enum": list(STATES)}
    return [
        Operation(
            "GET", ("/v1/deliveries",), "v1_list_deliveries", "List deliveries, the newest events first",
            handler=list_, replies={200: models.DeliveryList}, errors=LIST,
            query={"status": state, "endpoint": "Id of a webhook endpoint.", "event": "Id of an event.",
                   **PAGING}, **common,
        ),
        Operation(
            "GET", (one,), "v1_get_delivery", "A delivery with its event and every try", handler=get,
            replies={200: models.DeliveryDetail}, errors=READ, **common,
        ),
        Operation(
            "POST", (f"{one}/resend",), "v1_resend_delivery",
            "Send it again as a new delivery; one that still waits is tried at once", handler=resend,
            replies={202: models.DeliveryV1}, errors=WRITE, idempotent=True, **common,
        ),
    ]  # fmt: skip
