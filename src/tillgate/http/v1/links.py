"""`/v1/payment-links`: addresses at which payers open payments, and choose the amount and the wallet."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from tillgate import schemas_v1
from tillgate.domain.errors import InvalidRequest
from tillgate.http.operation import Answer, Call, Operation
from tillgate.http.v1.pages import CREATED, PAGING, asked, id_at, parse_time
from tillgate.http.v1.shared import (
    LIST,
    READ,
    WRITE,
    answer,
    callable_url,
    metadata,
    named,
    printable,
)
from tillgate.hub.links import LinkIntent
from tillgate.schemas import rfc3339
from tillgate.schemas_v1 import links as models
from tillgate.store.links import PaymentLink, link_of
from tillgate.store.reads_pages import Wanted


def show(call: Call, link: PaymentLink, status: models.LinkStatus | None = None) -> models.PaymentLinkV1:
    url = f"{call.runtime.settings.url}/l/{link.code}"
    return models.PaymentLinkV1(
        id=link.id,
        reference=link.reference,
        status=status or call.runtime.hub.links.state(link, None),
        title=link.title,
        url=url,
        qr_url=f"{url}.png",
        currency=link.currency,
        amount_minor=link.amount_minor,
        min_minor=link.min_minor,
        max_minor=link.max_minor,
        channels=list(link.channels),
        once=link.once,
        payment_expires_in_s=link.ttl_s,
        callback_url=link.callback_url,
        metadata=msgspec.json.decode(link.metadata) if link.metadata else {},
        created_at=schemas_v1.at(link.created_at),
        expires_at=rfc3339(link.expires_at),
        disabled_at=rfc3339(link.disabled_at),
    )


async def _shown(call: Call, link: PaymentLink) -> models.PaymentLinkV1:
    links = call.runtime.hub.links
    return show(call, link, links.state(link, await links.latest(link)))


async def create(call: Call) -> Answer:
    wanted: models.PaymentLinkCreate = call.body
    intent = LinkIntent(
        title=printable(wanted.title, "title", 120),
        currency=wanted.currency,
        reference=None if wanted.reference is None else printable(wanted.reference, "reference", 100),
        amount_minor=wanted.amount_minor,
        min_minor=wanted.min_minor,
        max_minor=wanted.max_minor,
        channels=tuple(dict.fromkeys(wanted.channels)),
        once=wanted.once,
        ttl_s=wanted.payment_expires_in_s,
        expires_at=parse_time(wanted.expires_at, "expires_at"),
        callback_url=callable_url(call, wanted.callback_url, "callback_url"),
        metadata=metadata(wanted.metadata),
    )
    if not wanted.title.strip():
        raise InvalidRequest("title is what a payer reads", param="title")

    def render(link: PaymentLink) -> bytes:
        return schemas_v1.encode(show(call, link))

    made = await call.runtime.hub.links.create(call.merchant, intent, call.key, render)
    if made.stored is None and made.replayed:
        return Answer(schemas_v1.encode(await _shown(call, made.link)))
    return answer(made.stored, render(made.link), 201)


async def get(call: Call) -> Answer:
    link = await call.runtime.hub.links.one(call.merchant, named(call, "link_id"))
    return Answer(schemas_v1.encode(await _shown(call, link)))


async def list_(call: Call) -> Answer:
    page = asked(call, "payment_links", "created_after", "created_before")
    wanted = Wanted(
        "payment_links",
        call.merchant.id,
        page.limit,
        page.after,
        low=id_at("lnk_", page.time("created_after")),
        high=id_at("lnk_", page.time("created_before")),
    )
    found = await call.runtime.pages.page(wanted)
    rows = [await _shown(call, link_of(cast("dict[str, Any]", row))) for row in found.rows]
    return page.shown(rows, found.next)


async def disable(call: Call) -> Answer:
    def render(link: PaymentLink) -> bytes:
        return schemas_v1.encode(show(call, link))

    done = await call.runtime.hub.links.disable(call.merchant, named(call, "link_id"), call.key, render)
    return answer(done.stored, render(done.link), 200)


def operations(common: dict[str, Any]) -> list[Operation]:
    common = {**common, "tag": "Payment links"}
    base, one, made = "/v1/payment-links", "/v1/payment-links/{link_id}", models.PaymentLinkV1
    return [
        Operation(
            "POST", (base,), "v1_create_payment_link",
            "Make an address at which payers open payments; the same reference again gives the link it has",
            handler=create, body=models.PaymentLinkCreate, replies={201: made, 200: made},
            errors=(400, 401, 409, 413, 415, 422, 429, 503), idempotent=True,
            example={"title": "Donation", "currency": "IDR", "min_minor": 1_000_000}, **common,
        ),
        Operation(
            "GET", (base,), "v1_list_payment_links", "List payment links, the newest first", handler=list_,
            replies={200: models.PaymentLinkList}, errors=LIST, query={**CREATED, **PAGING}, **common,
        ),
        Operation(
            "GET", (one,), "v1_get_payment_link",
            "How a payment link stands; its payments are listed by payment_link", handler=get,
            replies={200: made}, errors=READ, **common,
        ),
        Operation(
            "POST", (f"{one}/disable",), "v1_disable_payment_link",
            "Take no further payments by it; what is open can still be paid", handler=disable,
            replies={200: made}, errors=WRITE, idempotent=True, **common,
        ),
    ]  # fmt: skip
