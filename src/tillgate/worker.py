"""Due work: deliver webhooks, look at what is unsure, expire, refund. Any number of workers may run.

Work is claimed in batches, by moving its time behind a lease; a worker that dies lets its claims come up
again. Every kind of work is safe to run twice.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import msgspec
import structlog

from tillgate import schemas, schemas_v1, webhooks
from tillgate.domain.errors import TillgateError, Unavailable
from tillgate.hub import Hub
from tillgate.hub.endpoints import Endpoints
from tillgate.metrics import WorkerFigures
from tillgate.spi import HttpCall, HttpReply, Send
from tillgate.store.directory import Endpoint, Merchant
from tillgate.store.work import LEASE_MS, ClaimDeliveries, ClaimDue, Delivery, Due, Finish, Result

T = TypeVar("T")
log = structlog.get_logger("tillgate.worker")

DUE_SLOTS: Final = 64
DELIVERY_SLOTS: Final = 64
IDLE_S: Final = 0.5
ANSWER_CHARS: Final = 300
DELIVERY_TIMEOUT_S: Final = 20.0
WORK_TIMEOUT_S: Final = LEASE_MS / 1000 - 10
"""A provider that never answers gives its slot back before another worker takes the work over."""
DISABLE_AFTER_S: Final = 5 * 86_400


class Worker:
    """`run()` until `stop()`; `kick()` when there may be work now.

    What is slow holds only its own slot: a provider that takes a minute, or an endpoint that hangs, does not
    keep the others waiting."""

    def __init__(
        self, hub: Hub, deliver: Send, *, idle_s: float = IDLE_S, disable_after_s: int = DISABLE_AFTER_S
    ) -> None:
        self._hub = hub
        self._endpoints = Endpoints(hub.kit)
        self._deliver = deliver
        self._idle_s = idle_s
        self._disable_after_ms = disable_after_s * 1000
        self._bells = (asyncio.Event(), asyncio.Event())
        self._stopping = False
        self._ended: list[tuple[Result, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None
        self.figures = WorkerFigures()

    def kick(self) -> None:
        for bell in self._bells:
            bell.set()

    def stop(self) -> None:
        """Take no more work; `run` ends when what it holds is done."""
        self._stopping = True
        self.kick()

    async def run(self) -> None:
        due, deliveries = self._bells
        await asyncio.gather(
            self._pump(self._claim_due, self._do, DUE_SLOTS, due),
            self._pump(self._claim_deliveries, self._carry, DELIVERY_SLOTS, deliveries),
        )

    async def drain(self) -> None:
        """Do what is due now and what follows from it; for tests and for one-off runs."""
        while True:
            due, deliveries = await self._claim_due(DUE_SLOTS), await self._claim_deliveries(DELIVERY_SLOTS)
            if not due and not deliveries:
                return
            await asyncio.gather(*map(self._do, due), *map(self._carry, deliveries))

    async def _pump(
        self,
        claim: Callable[[int], Awaitable[Sequence[T]]],
        work: Callable[[T], Coroutine[Any, Any, None]],
        slots: int,
        bell: asyncio.Event,
    ) -> None:
        """Keep up to `slots` pieces of work going; claim again when a quarter of them is free."""
        going: set[asyncio.Task[None]] = set()

        def ended(task: asyncio.Task[None]) -> None:
            going.discard(task)
            bell.set()

        while not self._stopping:
            bell.clear()
            free = slots - len(going)
            claimed = await self._claimed(claim, free) if free * 4 >= slots else ()
            for one in claimed:
                task = asyncio.create_task(work(one))
                going.add(task)
                task.add_done_callback(ended)
            if not claimed or len(claimed) == free:
                wait_s = self._idle_s * (0.75 + random.random() / 2)  # noqa: S311
                with suppress(TimeoutError):
                    await asyncio.wait_for(bell.wait(), wait_s)
        if going:
            await asyncio.wait(going)

    async def _claimed(self, claim: Callable[[int], Awaitable[Sequence[T]]], free: int) -> Sequence[T]:
        try:
            return await claim(free)
        except Unavailable:
            return ()
        except Exception:
            log.error("work could not be claimed", exc_info=True)
            return ()

    # --- due work ---

    async def _claim_due(self, free: int) -> Sequence[Due]:
        return await self._hub.kit.journal.run(ClaimDue(free))

    async def _do(self, due: Due) -> None:
        work = self._hub.due_work.get(due.kind)
        if work is None:
            log.error("nobody knows this kind of work", kind=due.kind, subject=due.subject)
            return
        try:
            async with asyncio.timeout(WORK_TIMEOUT_S):
                await work(due)
            self.figures.due[due.kind, "done"] += 1
        except TillgateError as error:
            # Its lease brings it up again.
            self.figures.due[due.kind, error.code] += 1
            log.warning("due work will be tried again", kind=due.kind, subject=due.subject, why=error.code)
        except Exception:
            self.figures.due[due.kind, "internal"] += 1
            log.error("due work failed", kind=due.kind, subject=due.subject, exc_info=True)

    # --- deliveries ---

    async def _claim_deliveries(self, free: int) -> Sequence[Delivery]:
        return await self._hub.kit.journal.run(ClaimDeliveries(free))

    async def _carry(self, delivery: Delivery) -> None:
        """One try; a failure to write how it ended leaves it to its lease."""
        try:
            result = await self._send(delivery)
            await self._write(result)
            target = "callback" if delivery.endpoint_id is None else "endpoint"
            self.figures.tried(
                target, result.state, (result.at + result.took_ms - delivery.occurred_at) / 1000
            )
            if result.tried and delivery.endpoint_id is not None:
                await self._mind(delivery, result)
        except TillgateError as error:
            log.warning("a delivery will be tried again", **_named(delivery), why=error.code)
        except Exception:
            log.error("a delivery failed", **_named(delivery), exc_info=True)

    async def _mind(self, delivery: Delivery, result: Result) -> None:
        """Keep since when an endpoint fails; switch off one that wants no more, or that failed for days."""
        merchant = await self._hub.kit.directory.merchant(delivery.merchant_id)
        endpoint = _endpoint(merchant, delivery.endpoint_id)
        if endpoint is None or endpoint.disabled:
            return
        why = None
        if result.disable:
            why = "it answered 410 Gone"
        elif result.state == "delivered":
            if endpoint.failing_since is not None:
                await self._endpoints.failing(merchant, endpoint, None)
        elif endpoint.failing_since is None:
            await self._endpoints.failing(merchant, endpoint, result.at)
        elif result.at - endpoint.failing_since >= self._disable_after_ms:
            why = f"nothing was delivered for {self._disable_after_ms // 3_600_000} hours"
        if why and await self._endpoints.give_up(merchant, endpoint, why):
            log.warning("switched an endpoint off", endpoint=endpoint.id, merchant=merchant.id, why=why)

    async def _write(self, result: Result) -> None:
        """Results that end while others are being written are written together."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended.append((result, future))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())
        await future

    async def _write_all(self) -> None:
        while self._ended:
            batch, self._ended = self._ended, []
            error: Exception | None = None
            try:
                await self._hub.kit.journal.run(Finish([result for result, _ in batch]))
            except Exception as failed:  # noqa: BLE001 - each delivery says it for itself
                error = failed
            for _, future in batch:
                if future.done():  # whoever carried it was stopped
                    continue
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(Unavailable(str(error)))

    async def _send(self, delivery: Delivery) -> Result:
        kit = self._hub.kit
        directory = kit.directory
        merchant = directory.known(delivery.merchant_id) or await directory.merchant(delivery.merchant_id)
        endpoint = _endpoint(merchant, delivery.endpoint_id)
        at = kit.clock()
        if delivery.endpoint_id is not None and (endpoint is None or endpoint.disabled):
            return _not_sent(delivery, "disabled" if endpoint else "deleted", at)
        reply: HttpReply | None = None
        error: str | None = None
        try:
            body = payload(delivery)
            signed = webhooks.sign(_secrets(merchant, endpoint), delivery.event_id, at // 1000, body)
            headers = {"content-type": "application/json", **signed}
            reply = await self._deliver(HttpCall("POST", delivery.url, headers, body, DELIVERY_TIMEOUT_S))
        except TillgateError as failed:
            error = f"{failed.code}: {failed}"[:ANSWER_CHARS]
        except Exception:
            # A try like any other, so that it ends: what cannot be sent must not block its stream for ever.
            log.error("a delivery could not be sent", **_named(delivery), exc_info=True)
            error = "internal: it could not be sent"
        return _judged(delivery, reply, error, at, kit.clock() - at)


def _named(delivery: Delivery) -> dict[str, str]:
    """What a line in the log says of a delivery."""
    try:
        told = msgspec.json.decode(delivery.body)
        about = {"payment": told["payment"]["id"]} if "payment" in told else {}
    except (msgspec.DecodeError, TypeError, KeyError):
        about = {}
    return {"delivery": delivery.id, **about}


def _endpoint(merchant: Merchant, endpoint_id: str | None) -> Endpoint | None:
    return next((one for one in merchant.endpoints if one.id == endpoint_id), None)


def _not_sent(delivery: Delivery, what: str, at: int) -> Result:
    """It waits no longer; once the endpoint is on again, a replay sends what failed."""
    why = f"not sent: the endpoint is {what}"
    return Result(delivery, "failed", at, at, 0, None, None, why, disable=False, tried=False)


def payload(delivery: Delivery) -> bytes:
    """The bytes that are sent: the same at every try. A `callback_url` gets the document's dialect, an
    endpoint what `/v1/events` shows."""
    if delivery.endpoint_id is None:
        return schemas.callback(delivery.kind, delivery.occurred_at, delivery.body)
    event = schemas_v1.event(
        delivery.event_id, delivery.event_seq, delivery.kind, delivery.occurred_at, delivery.body
    )
    return schemas_v1.encode(event)


def _secrets(merchant: Merchant, endpoint: Endpoint | None) -> Sequence[str]:
    return endpoint.secrets if endpoint is not None else merchant.webhook_secrets


def _judged(delivery: Delivery, reply: HttpReply | None, error: str | None, at: int, took_ms: int) -> Result:
    ended = at + took_ms
    verdict = webhooks.Verdict(webhooks.Outcome.RETRY)
    if reply is not None:
        verdict = webhooks.judge(reply.status, reply.headers, now_s=ended / 1000)
    state, again_at = "delivered", ended
    if verdict.outcome is not webhooks.Outcome.DONE:
        next_at = None
        if verdict.outcome is webhooks.Outcome.RETRY:
            next_at = webhooks.next_attempt_at(delivery.number, ended, random.random, wait_s=verdict.wait_s)
        state, again_at = ("failed", ended) if next_at is None else ("pending", next_at)
        error = error or f"answered {reply.status if reply else 'nothing'}"
    answer = reply.body[:ANSWER_CHARS].decode("utf-8", "replace").replace("\0", "�") if reply else None
    status = reply.status if reply else None
    disable = verdict.outcome is webhooks.Outcome.DISABLE
    return Result(delivery, state, again_at, at, took_ms, status, answer, error, disable)
