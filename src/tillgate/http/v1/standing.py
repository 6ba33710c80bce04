"""`/v1/standing-orders`: payables with no fixed amount; every success is a payment of its own."""

from __future__ import annotations

from typing import Any

from tillgate import schemas_v1
from tillgate.domain.errors import InvalidRequest, NotFound, TillgateError
from tillgate.domain.payment import StandingOrder
from tillgate.http.operation import Answer, Call, Operation
from tillgate.http.v1.pages import CREATED, PAGING, asked, id_at
from tillgate.http.v1.shared import (
    LIST,
    READ,
    REPLAYED,
    WRITE,
    callable_url,
    metadata,
    named,
    printable,
    standing_action,
)
from tillgate.hub.standing import StandingIntent
from tillgate.schemas_v1 import bodies as models
from tillgate.store.book import record_of
from tillgate.store.reads_pages import Wanted


async def create(call: Call) -> Answer:
    wanted: models.StandingOrderCreate = call.body
    kit, merchant = call.runtime.kit, call.merchant
    if wanted.account is not None and merchant.account(wanted.account) is None:
        raise InvalidRequest("There is no such account", param="account")
    intent = StandingIntent(
        order_id=printable(wanted.order_id, "order_id", 255),
        currency=wanted.currency,
        channel=wanted.channel,
        account=wanted.account,
        min_minor=wanted.min_minor,
        max_minor=wanted.max_minor,
        callback_url=callable_url(call, wanted.callback_url, "callback_url"),
        metadata=metadata(wanted.metadata),
    )

    def render(standing: StandingOrder) -> bytes:
        action = standing_action(kit, merchant, standing)
        return schemas_v1.encode(schemas_v1.standing_order(standing, action))

    try:
        opened = await call.runtime.hub.standing.open(merchant, intent, call.key, render)
    except InvalidRequest as error:
        if error.param == "wallet_id":
            raise InvalidRequest("Unknown channel", param="channel") from None
        raise
    if opened.stored is not None:
        return Answer(opened.stored[1], opened.stored[0], REPLAYED)
    return Answer(render(opened.standing), 200 if opened.replayed else 201)


async def get(call: Call) -> Answer:
    row = await call.runtime.pages.one("standing_orders", call.merchant.id, named(call, "standing_id"))
    if row is None:
        raise NotFound("There is no such standing order")
    standing = record_of(StandingOrder, list(row.values()))
    try:
        action = standing_action(call.runtime.kit, call.merchant, standing)
    except TillgateError:
        action = None
    return Answer(schemas_v1.encode(schemas_v1.standing_order(standing, action)))


async def list_(call: Call) -> Answer:
    page = asked(call, "standing_orders", "created_after", "created_before")
    wanted = Wanted(
        "standing_orders",
        call.merchant.id,
        page.limit,
        page.after,
        low=id_at("so_", page.time("created_after")),
        high=id_at("so_", page.time("created_before")),
    )
    found = await call.runtime.pages.page(wanted)
    return page.answer(
        found, lambda row: schemas_v1.standing_order(record_of(StandingOrder, list(row.values())))
    )


async def close(call: Call) -> Answer:
    def render(standing: StandingOrder) -> bytes:
        return schemas_v1.encode(schemas_v1.standing_order(standing))

    closed = await call.runtime.hub.standing.close(
        call.merchant, named(call, "standing_id"), call.key, render
    )
    if closed.stored is not None:
        return Answer(closed.stored[1], closed.stored[0], REPLAYED)
    return Answer(render(closed.standing))


def operations(common: dict[str, Any]) -> list[Operation]:
    common = {**common, "tag": "Standing orders"}
    made = schemas_v1.StandingOrderV1
    return [
        Operation(
            "POST", ("/v1/standing-orders",), "v1_create_standing_order",
            "Open a payable with no fixed amount that may be paid many times", handler=create,
            body=models.StandingOrderCreate, replies={201: made, 200: made},
            errors=(400, 401, 409, 413, 415, 422, 429, 503), idempotent=True,
            example={"order_id": "MEMBER-77", "currency": "UZS", "channel": "payme", "min_minor": 100_000},
            **common,
        ),
        Operation(
            "GET", ("/v1/standing-orders",), "v1_list_standing_orders",
            "List standing orders, the newest first", handler=list_,
            replies={200: models.StandingOrderList}, errors=LIST, query={**CREATED, **PAGING}, **common,
        ),
        Operation(
            "GET", ("/v1/standing-orders/{standing_id}",), "v1_get_standing_order",
            "How a standing order stands; its payments are listed by its order_id", handler=get,
            replies={200: made}, errors=READ, **common,
        ),
        Operation(
            "POST", ("/v1/standing-orders/{standing_id}/close",), "v1_close_standing_order",
            "Take no further payments for it", handler=close, replies={200: made}, errors=WRITE,
            idempotent=True, **common,
        ),
    ]  # fmt: skip
