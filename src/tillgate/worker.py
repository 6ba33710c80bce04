"""Due work: deliver webhooks, look at what is unsure, expire, refund. Any number of workers may run.

Work is claimed in batches, by moving its time behind a lease; a worker that dies lets its claims come up
again. Every kind of work is safe to run twice.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any, Final

import structlog

from tillgate import schemas, webhooks
from tillgate.domain.errors import TillgateError, Unavailable
from tillgate.hub import Hub
from tillgate.spi import HttpCall, HttpReply, Send
from tillgate.store.directory import Endpoint, Merchant
from tillgate.store.work import ClaimDeliveries, ClaimDue, Delivery, Finish, Result

log = structlog.get_logger("tillgate.worker")

DUE_BATCH: Final = 50
DELIVERY_BATCH: Final = 100
IN_FLIGHT: Final = 32
IDLE_S: Final = 0.5
ANSWER_CHARS: Final = 300
DELIVERY_TIMEOUT_S: Final = 20.0


class Worker:
    """`run()` until `stop()`; `kick()` when there may be work now."""

    def __init__(self, hub: Hub, deliver: Send, *, idle_s: float = IDLE_S) -> None:
        self._hub = hub
        self._deliver = deliver
        self._idle_s = idle_s
        self._bell = asyncio.Event()
        self._stopping = False

    def kick(self) -> None:
        self._bell.set()

    def stop(self) -> None:
        """Take no more work; `run` ends when what it holds is done."""
        self._stopping = True
        self._bell.set()

    async def run(self) -> None:
        await asyncio.gather(self._loop(self._due_batch), self._loop(self._delivery_batch))

    async def _loop(self, batch: Any) -> None:
        while not self._stopping:
            try:
                done = await batch()
            except Unavailable:
                done = 0
            except Exception:
                log.error("a batch of work failed", exc_info=True)
                done = 0
            if not done and not self._stopping:
                self._bell.clear()
                wait_s = self._idle_s * (0.75 + random.random() / 2)  # noqa: S311
                try:
                    await asyncio.wait_for(self._bell.wait(), wait_s)
                except TimeoutError:
                    continue

    async def drain(self) -> None:
        """Do what is due now and what follows from it; for tests and for one-off runs."""
        while await self._due_batch() + await self._delivery_batch():
            pass

    # --- due work ---

    async def _due_batch(self) -> int:
        rows = await self._hub.kit.journal.run(ClaimDue(DUE_BATCH))
        if rows:
            await asyncio.gather(*(self._work(row[1], row[2], row[5]) for row in rows))
        return len(rows)

    async def _work(self, kind: str, subject: str, tries: int) -> None:
        work = self._hub.due_work.get(kind)
        if work is None:
            log.error("nobody knows this kind of work", kind=kind, subject=subject)
            return
        try:
            await work(subject, tries)
        except TillgateError as error:
            # Its lease brings it up again.
            log.warning("due work will be tried again", kind=kind, subject=subject, why=error.code)
        except Exception:
            log.error("due work failed", kind=kind, subject=subject, exc_info=True)

    # --- deliveries ---

    async def _delivery_batch(self) -> int:
        claimed = await self._hub.kit.journal.run(ClaimDeliveries(DELIVERY_BATCH))
        if not claimed:
            return 0
        gate = asyncio.Semaphore(IN_FLIGHT)
        results = await asyncio.gather(*(self._send(one, gate) for one in claimed))
        await self._hub.kit.journal.run(Finish(results))
        for one in results:
            if one.disable and one.delivery.endpoint_id:
                await self._hub.kit.directory.disable_endpoint(
                    one.delivery.endpoint_id, "it answered 410", one.at
                )
        return len(claimed)

    async def _send(self, delivery: Delivery, gate: asyncio.Semaphore) -> Result:
        kit = self._hub.kit
        merchant = await kit.directory.merchant(delivery.merchant_id)
        endpoint = next((one for one in merchant.endpoints if one.id == delivery.endpoint_id), None)
        body = payload(delivery)
        async with gate:
            at = kit.clock()
            signed = webhooks.sign(_secrets(merchant, endpoint), delivery.event_id, at // 1000, body)
            headers = {"content-type": "application/json", **signed}
            call = HttpCall("POST", delivery.url, headers, body, DELIVERY_TIMEOUT_S)
            reply: HttpReply | None = None
            error: str | None = None
            try:
                reply = await self._deliver(call)
            except TillgateError as failed:
                error = f"{failed.code}: {failed}"[:ANSWER_CHARS]
            took_ms = kit.clock() - at
        return _judged(delivery, reply, error, at, took_ms)


def payload(delivery: Delivery) -> bytes:
    """The bytes that are sent: the same at every try. A `callback_url` gets the document's dialect."""
    if delivery.endpoint_id is None:
        return schemas.callback(delivery.kind, delivery.occurred_at, delivery.body)
    return schemas.event_v1(delivery.kind, delivery.occurred_at, delivery.body)


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
