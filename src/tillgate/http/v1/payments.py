"""`/v1/payments`: open, read, list, cancel, resolve; their attempts."""

from __future__ import annotations

from typing import Any, Final, get_args

from tillgate import schemas_v1
from tillgate.domain.errors import InvalidRequest
from tillgate.domain.payment import Attempt, Payment, Status
from tillgate.http.operation import Answer, Call, Operation
from tillgate.http.v1.pages import CREATED, PAGING, Asked, asked, id_at, whole
from tillgate.http.v1.shared import (
    LIST,
    READ,
    REPLAYED,
    WRITE,
    answer,
    callable_url,
    metadata,
    named,
    next_action,
    own_payment,
    payment_body,
    printable,
)
from tillgate.hub import Intent
from tillgate.hub.kit import order_key
from tillgate.schemas_v1 import bodies as models
from tillgate.store.book import record_of
from tillgate.store.reads_pages import Page, Wanted

STATUSES: Final[tuple[str, ...]] = get_args(Status)
FILTERS: Final = ("order_id", "status", "created_after", "created_before", "channel", "payment_link")
_STUCK: Final = ("unsure", "review")
_WORDS: Final = {"wallet_id": ("channel", "Unknown channel"), "amount": ("amount_minor", None)}


async def create(call: Call) -> Answer:
    wanted: models.PaymentCreate = call.body
    kit, merchant = call.runtime.kit, call.merchant
    if wanted.account is not None and merchant.account(wanted.account) is None:
        raise InvalidRequest("There is no such account", param="account")
    intent = Intent(
        order_id=printable(wanted.order_id, "order_id", 255),
        amount_minor=wanted.amount_minor,
        currency=wanted.currency,
        channel=wanted.channel,
        account=wanted.account,
        callback_url=callable_url(call, wanted.callback_url, "callback_url"),
        metadata=metadata(_with_terminal(wanted)),
        ttl_s=wanted.expires_in_s,
    )

    def render(payment: Payment, attempt: Attempt | None) -> bytes:
        action = next_action(kit, merchant, payment, attempt)
        return schemas_v1.encode(schemas_v1.payment(payment, action))

    try:
        opened = await call.runtime.hub.open(merchant, intent, call.key, render)
    except InvalidRequest as error:
        param, words = _WORDS.get(error.param or "", (error.param, None))
        raise InvalidRequest(words or str(error), param=param) from None
    if opened.stored is not None:
        return Answer(opened.stored[1], opened.stored[0], REPLAYED)
    return Answer(render(opened.payment, opened.attempt), 200 if opened.replayed else 201)


def _with_terminal(wanted: models.PaymentCreate) -> dict[str, Any] | None:
    """Which terminal shows it is for the connector to read, among what else the merchant said."""
    if wanted.terminal is None:
        return wanted.metadata
    given = wanted.metadata or {}
    if given.get("terminal", wanted.terminal) != wanted.terminal:
        raise InvalidRequest("terminal and metadata.terminal differ", param="terminal")
    return {**given, "terminal": wanted.terminal}


async def get(call: Call) -> Answer:
    payment = await own_payment(call)
    if payment.status == "pending":
        await call.runtime.hub.polled(call.merchant, payment)
    return Answer(await payment_body(call, payment))


async def list_(call: Call) -> Answer:
    page = asked(call, "payments", *FILTERS)
    return page.answer(await _payments_page(page), lambda row: schemas_v1.payment(row["record"]))


async def _payments_page(page: Asked) -> Page:
    """Rows as `{"record": Payment}`."""
    call = page.call
    found: dict[str, Any] = {}
    sifted: dict[str, Any] = {}
    status, channel = page.choice("status", STATUSES), page.text("channel")
    if (order_id := page.text("order_id")) is not None:
        key = order_key(call.merchant.id, order_id)
        standing = await call.runtime.pages.standing_by_order(call.merchant.id, key)
        found |= {"standing_id": standing} if standing else {"order_key": key}
    if (link := page.text("payment_link")) is not None:
        if "standing_id" in found and found["standing_id"] != link:
            return Page([], None)  # a standing order's payments are no link's
        (sifted if found else found)["standing_id"] = link
    if status is not None:
        (found if status in _STUCK and not found else sifted)["status"] = status
    if channel is not None:
        sifted["channel"] = channel
    wanted = Wanted(
        "payments",
        call.merchant.id,
        page.limit,
        page.after,
        found,
        sifted,
        id_at("pay_", page.time("created_after")),
        id_at("pay_", page.time("created_before")),
    )
    got = await call.runtime.pages.page(wanted)
    rows = [{"record": record_of(Payment, list(row.values())), "id": row["id"]} for row in got.rows]
    return Page(rows, got.next)


async def cancel(call: Call) -> Answer:
    wanted: models.CancelIn = call.body
    reason = printable(wanted.reason, "reason", 300)
    payment_id, hub = named(call, "payment_id"), call.runtime.hub
    if call.key is None:
        return Answer(_plain(await hub.cancel(call.merchant, payment_id, reason)))
    kept = await hub.cancel_once(call.merchant, payment_id, reason, call.key, _plain)
    return answer(kept.stored, b"" if kept.result is None else _plain(kept.result), 200)


async def resolve(call: Call) -> Answer:
    wanted: models.ResolveIn = call.body
    reason = printable(wanted.reason, "reason", 300)
    by = printable(wanted.by, "by", 100) if wanted.by else f"the merchant {call.merchant.name}"[:100]
    payment_id, hub = named(call, "payment_id"), call.runtime.hub
    if call.key is None:
        return Answer(_plain(await hub.resolve(call.merchant, payment_id, wanted.outcome, reason, by)))
    kept = await hub.resolve_once(call.merchant, payment_id, wanted.outcome, reason, call.key, _plain, by)
    return answer(kept.stored, b"" if kept.result is None else _plain(kept.result), 200)


def _plain(payment: Payment) -> bytes:
    return schemas_v1.encode(schemas_v1.payment(payment))


async def attempts(call: Call) -> Answer:
    payment = await own_payment(call)
    rows = [schemas_v1.attempt(one) for one in await call.runtime.kit.reads.attempts(payment.id)]
    return whole(rows)


def operations(common: dict[str, Any]) -> list[Operation]:
    common = {**common, "tag": "Payments"}
    one = "/v1/payments/{payment_id}"
    example = {
        "order_id": "ORDER-1001", "amount_minor": 15_000_000, "currency": "IDR", "channel": "gopay",
        "metadata": {"table": "7"},
    }  # fmt: skip
    status = {"description": "How it stands.", "type": "string", "enum": list(STATUSES)}
    return [
        Operation(
            "POST", ("/v1/payments",), "v1_create_payment",
            "Open a payment; the same order_id again gives the payment that it has", handler=create,
            body=models.PaymentCreate, replies={201: schemas_v1.PaymentV1, 200: schemas_v1.PaymentV1},
            errors=(400, 401, 409, 413, 415, 422, 429, 503), idempotent=True, example=example, **common,
        ),
        Operation(
            "GET", ("/v1/payments",), "v1_list_payments", "List payments, the newest first", handler=list_,
            replies={200: models.PaymentList}, errors=LIST,
            query={"order_id": "Yours.", "status": status, "channel": "What the payer chose.",
                   "payment_link": "Only payments of this link.",
                   **CREATED, **PAGING}, **common,
        ),
        Operation(
            "GET", (one,), "v1_get_payment", "How a payment stands", handler=get,
            replies={200: schemas_v1.PaymentV1}, errors=READ, **common,
        ),
        Operation(
            "POST", (f"{one}/cancel",), "v1_cancel_payment", "Take an unpaid payment back", handler=cancel,
            body=models.CancelIn, bare=True, replies={200: schemas_v1.PaymentV1}, errors=(*WRITE, 502),
            idempotent=True, **common,
        ),
        Operation(
            "POST", (f"{one}/resolve",), "v1_resolve_payment",
            "Decide what is held for review, or unsure: an operator's word, kept with its reason",
            handler=resolve, body=models.ResolveIn, replies={200: schemas_v1.PaymentV1}, errors=WRITE,
            idempotent=True, **common,
        ),
        Operation(
            "GET", (f"{one}/attempts",), "v1_list_attempts", "Every try to collect a payment, oldest first",
            handler=attempts, replies={200: models.AttemptList}, errors=READ, **common,
        ),
    ]  # fmt: skip
