"""Playing the payer: present only with the sandbox on."""

from __future__ import annotations

import asyncio
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from tillgate import schemas
from tillgate.domain.errors import InvalidRequest, NotAllowed, NotFound, TillgateError, Unreachable, Unsure
from tillgate.domain.payment import Attempt, Payment
from tillgate.http.checkout_links import language_query
from tillgate.http.merchant import owned
from tillgate.http.operation import Answer, Call, Dialect, Operation
from tillgate.runtime import Runtime
from tillgate.spi import HttpCall, Order, Plays

ACTIONS: Final = ("pay", "fail", "expire", "pay-late")
NEWS_TRIES: Final = 40
NEWS_PAUSE_S: Final = 0.05
"""How often, and with which pauses, we see whether the provider's notice has come."""


async def act(runtime: Runtime, payment: Payment, action: str, fault: str) -> Payment:
    """Let the pretended payer act; the payment as it stands after the bank's notice.

    Raises `NotFound` where its provider cannot be played, `NotAllowed` where the bank refuses."""
    attempt = await _attempt(runtime, payment)
    _, account = await runtime.directory.account(attempt.account_id)
    provider = runtime.providers.get(account.provider)
    order = runtime.kit.order(payment, attempt, account)
    connector = runtime.kit.connector(account) if provider else None
    if isinstance(connector, Plays):
        return await _play(runtime, connector, payment, order, action, fault)
    if provider is None or not provider.sandbox_only:
        raise NotFound("This payment is not in the sandbox")
    body = {
        "operation_id": order.operation_id,
        "amount_minor": order.amount.minor,
        "currency": order.amount.currency,
        "channel": order.channel,
        "notify_url": order.notify_url,
        "webhook_key": account.config["webhook_key"],
    }
    url = f"sandbox://{account.provider}/charges/{order.operation_id}/{action}?fault={fault}"
    reply = await runtime.kit.out(HttpCall("POST", url, {}, msgspec.json.encode(body)))
    if reply.status >= 400:
        reason = str(msgspec.json.decode(reply.body).get("reason"))
        raise InvalidRequest(reason, param="fault") if reply.status == 400 else NotAllowed(reason)
    return await runtime.kit.reads.payment(payment.id) or payment


async def _play(
    runtime: Runtime, connector: Plays, payment: Payment, order: Order, action: str, fault: str
) -> Payment:
    """Play the payer at a provider in its test mode, and wait a while for what its notice brings.

    Raises `NotFound` where this cannot be played, `NotAllowed` where the provider refuses."""
    if not fault.replace("_", "").isalnum() or len(fault) > 40:
        raise InvalidRequest("fault is a word", param="fault")
    call = connector.play(order, action, fault)
    if call is None:
        raise NotFound("This payment cannot be played here")
    try:
        reply = await runtime.kit.out(call)
    except (Unreachable, Unsure) as error:
        raise NotAllowed(str(error)) from None
    if reply.status >= 400:
        raise NotAllowed(
            f"The provider answered {reply.status}: {reply.body[:200].decode('utf-8', 'replace')}"
        )
    after = payment
    for _ in range(NEWS_TRIES):
        after = await runtime.kit.reads.payment(payment.id) or payment
        paid = after.paid_minor != payment.paid_minor
        if paid or (not action.startswith("pay") and after.status != payment.status):
            break
        await asyncio.sleep(NEWS_PAUSE_S)
    return after


async def _attempt(runtime: Runtime, payment: Payment) -> Attempt:
    attempts = await runtime.kit.reads.attempts(payment.id)
    if not attempts:
        raise NotFound("This payment is not in the sandbox")
    live = next((one for one in attempts if one.id == payment.live_attempt_id), None)
    return live or attempts[-1]


def _handler(action: str) -> Any:
    async def handle(call: Call) -> Answer:
        payment = await owned(call)
        after = await act(call.runtime, payment, action, call.query.get("fault", "none"))
        return Answer(schemas.status(after))

    return handle


def operations(dialect: Dialect) -> list[Operation]:
    said = {
        "pay": "The payer pays",
        "fail": "The payer's wallet declines",
        "expire": "The payer lets it expire",
        "pay-late": "The payer pays after it expired",
    }
    query = {
        "fault": "How the bank misbehaves: none, twice, late, lost, out_of_order, forged or wrong_amount."
    }
    return [
        Operation(
            "POST", (f"/sandbox/payments/{{payment_id}}/{action}",), f"sandbox_{action.replace('-', '_')}",
            said[action], dialect, _handler(action), {200: schemas.PaymentStatus},
            (400, 401, 404, 409, 413, 429, 503), query=query, tag="Sandbox",
        )
        for action in ACTIONS
    ]  # fmt: skip


def routes(runtime: Runtime) -> list[BaseRoute]:
    """The buttons on the checkout page: whoever holds the page may play its payer."""
    prefix = urlsplit(runtime.settings.url).path.rstrip("/")

    async def pressed(request: Request) -> Response:
        payment_id, action = request.path_params["payment_id"], request.path_params["action"]
        payment = await runtime.kit.reads.payment(payment_id)
        if payment is None or action not in ACTIONS:
            return PlainTextResponse("Not found", 404)
        try:
            await act(runtime, payment, action, "none")
        except TillgateError as error:
            if error.status >= 500:
                return PlainTextResponse(str(error), error.status)
        return RedirectResponse(f"{prefix}/pay/{payment_id}{language_query(request)}", 303)

    return [Route("/sandbox/pay/{payment_id}/{action}", pressed, methods=["POST"])]
