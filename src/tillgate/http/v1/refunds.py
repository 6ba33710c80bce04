"""`/v1/refunds` and the refunds of a payment."""

from __future__ import annotations

from typing import Any

from tillgate import schemas_v1
from tillgate.domain.errors import NotFound
from tillgate.domain.payment import Payment, Refund
from tillgate.http.operation import Answer, Call, Operation
from tillgate.http.v1.pages import CREATED, PAGING, asked, id_at, whole
from tillgate.http.v1.shared import LIST, READ, REPLAYED, WRITE, named, own_payment, printable
from tillgate.schemas_v1 import bodies as models
from tillgate.store.book import record_of
from tillgate.store.reads_pages import Wanted


async def create(call: Call) -> Answer:
    wanted: models.RefundCreate = call.body
    reason = printable(wanted.reason, "reason", 500)
    payment_id = named(call, "payment_id")
    opened = await call.runtime.hub.refund(
        call.merchant, payment_id, wanted.amount_minor, reason, call.key, _render
    )
    if opened.stored is not None:
        return Answer(opened.stored[1], opened.stored[0], REPLAYED)
    assert opened.refund is not None
    return Answer(_render(opened.payment, opened.refund), 201)


def _render(_payment: Payment, refund: Refund) -> bytes:
    return schemas_v1.encode(schemas_v1.refund(refund))


async def get(call: Call) -> Answer:
    refund = await call.runtime.kit.reads.refund(named(call, "refund_id"))
    if refund is None or refund.merchant_id != call.merchant.id:
        raise NotFound("There is no such refund")
    return Answer(schemas_v1.encode(schemas_v1.refund(refund)))


async def list_(call: Call) -> Answer:
    page = asked(call, "refunds", "created_after", "created_before")
    wanted = Wanted(
        "refunds",
        call.merchant.id,
        page.limit,
        page.after,
        low=id_at("refund_", page.time("created_after")),
        high=id_at("refund_", page.time("created_before")),
    )
    found = await call.runtime.pages.page(wanted)
    return page.answer(found, lambda row: schemas_v1.refund(record_of(Refund, list(row.values()))))


async def of_payment(call: Call) -> Answer:
    payment = await own_payment(call)
    rows = [schemas_v1.refund(one) for one in await call.runtime.kit.reads.refunds(payment.id)]
    return whole(rows)


def operations(common: dict[str, Any]) -> list[Operation]:
    common = {**common, "tag": "Refunds"}
    return [
        Operation(
            "POST", ("/v1/payments/{payment_id}/refunds",), "v1_create_refund",
            "Send money back: promised at once, sent next", handler=create, body=models.RefundCreate,
            replies={201: schemas_v1.RefundV1}, errors=WRITE, idempotent=True,
            example={"amount_minor": 5_000_000, "reason": "one item was returned"}, **common,
        ),
        Operation(
            "GET", ("/v1/payments/{payment_id}/refunds",), "v1_list_payment_refunds",
            "The refunds of a payment, oldest first", handler=of_payment,
            replies={200: models.RefundListV1}, errors=READ, **common,
        ),
        Operation(
            "GET", ("/v1/refunds",), "v1_list_refunds", "List refunds, the newest first", handler=list_,
            replies={200: models.RefundListV1}, errors=LIST, query={**CREATED, **PAGING}, **common,
        ),
        Operation(
            "GET", ("/v1/refunds/{refund_id}",), "v1_get_refund", "How a refund stands", handler=get,
            replies={200: schemas_v1.RefundV1}, errors=READ, **common,
        ),
    ]  # fmt: skip
