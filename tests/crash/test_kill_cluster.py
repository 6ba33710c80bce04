"""Two API processes and two workers on one PostgreSQL, any of them killed at any moment, under load.

The tills do what tills do: they repeat what was not answered, at whichever API answers, with the same
order_id or `Idempotency-Key`; half of them in the document's dialect, half with the client for `/v1`. All
that was asked for is done exactly once in the end, and told exactly once: to the callback of a payment with
one, and to the merchant's webhook endpoint. `TILLGATE_CRASH_ROUNDS` is twice the number of kills.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.postgres import free_port
from support.serving import Client, Credentials, Process, new_merchant, rows
from support.sink import Sink, sink
from tillgate.client import Conflict, HubUnavailable, NoAnswer, ProviderFailed, Tillgate

KILLS = max(4, int(os.environ.get("TILLGATE_CRASH_ROUNDS", "20")) // 2)
TILLS = 8
PATIENCE_S = 60

pytestmark = pytest.mark.timeout(240 + KILLS * 10)


@dataclass
class Done:
    """What the tills were answered, in the end."""

    payments: dict[str, str] = field(default_factory=dict)  # order → payment
    paid: set[str] = field(default_factory=set)
    refunds: dict[str, str] = field(default_factory=dict)  # key → refund
    called_back: set[str] = field(default_factory=set)  # payments with a callback_url


class Cluster:
    def __init__(self, directory: Path, url: str, *sink_ports: int) -> None:
        self.settings = settings = {
            "database_url": url,
            "sandbox": 1,
            "rate_limit": 0,
            "callback_allow": ",".join(f"127.0.0.1:{port}" for port in sink_ports),
        }
        ports = [free_port() for _ in range(2)]
        self.apis = [
            Process(directory, ["up", "--port", str(port), "--no-worker"], settings) for port in ports
        ]
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        self.workers = [Process(directory, ["worker"], settings) for _ in range(2)]

    @property
    def all(self) -> list[Process]:
        return [*self.apis, *self.workers]

    async def run(self, kills: int, done: Done) -> None:
        """Kill one at a time, at any moment, and start it again. Every second kill finds a cluster that
        trades, however slow the machine is; the others may find one that is still coming up."""
        for number in range(kills):
            await asyncio.sleep(random.uniform(0.05, 1.0))
            one = random.choice(self.all)
            await asyncio.to_thread(one.kill)
            one.start()
            if number % 2 == 0:
                await traded(done, len(done.payments) + 3)

    def stop(self) -> None:
        for one in self.all:
            one.kill()


class Till:
    """Repeats until it is answered, wherever."""

    def __init__(self, clients: list[Client], done: Done, callback_url: str, name: str) -> None:
        self._clients, self._done, self._url, self._name = clients, done, callback_url, name

    async def _ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            assert time.monotonic() < deadline, f"{method} {path}: nobody answers"
            try:
                answer = await random.choice(self._clients).ask(method, path, body, headers=headers)
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                await asyncio.sleep(0.05)
                continue
            if answer.status == 200:
                return answer.json
            # In flight: another process may still be at it.
            assert answer.status in (503, 502) or answer.json["errorType"] == "in_flight", answer
            await asyncio.sleep(0.05)

    async def work(self, stop: asyncio.Event) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            order = f"{self._name}-{number}"
            body = {
                "wallet_id": random.choice(["gopay", "ovo"]),
                "amount": 10_000,
                "currency": "IDR",
                "order_id": order,
                "callback_url": self._url,
            }
            made = await self._ask("POST", "/payments", body)
            payment = made["payment_id"]
            self._done.payments[order] = payment
            self._done.called_back.add(payment)
            await self._ask("POST", f"/sandbox/payments/{payment}/pay")
            self._done.paid.add(payment)
            for part in range(random.choice([0, 1, 3])):
                key = f"{order}-{part}"
                wanted = {"amount": 2_500, "reason": "crash test"}
                headers = {"Idempotency-Key": key}
                refund = await self._ask("POST", f"/payments/{payment}/refund", wanted, **headers)
                self._done.refunds[key] = refund["refund_id"]


class ModernTill:
    """The same with `tillgate.client`, one for each API."""

    def __init__(self, clients: list[Tillgate], done: Done, name: str) -> None:
        self._clients, self._done, self._name = clients, done, name

    async def _ask(self, method: str, *given: Any, **named: Any) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            assert time.monotonic() < deadline, f"{method}: nobody answers"
            try:
                return await getattr(random.choice(self._clients), method)(*given, **named)
            except (NoAnswer, HubUnavailable, ProviderFailed):
                pass
            except Conflict as error:
                if error.error_code != "in_flight":
                    raise
            await asyncio.sleep(0.05)

    async def work(self, stop: asyncio.Event) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            order = f"{self._name}-{number}"
            wanted = {
                "amount_minor": 1_000_000,
                "currency": "IDR",
                "channel": random.choice(["gopay", "ovo"]),
            }
            made = await self._ask("create_payment", order_id=order, **wanted, idempotency_key=order)
            self._done.payments[order] = made.id
            await self._ask("play", made.id, "pay")
            self._done.paid.add(made.id)
            for part in range(random.choice([0, 1, 3])):
                key = f"{order}-{part}"
                refund = await self._ask("create_refund", made.id, 250_000, "crash test", idempotency_key=key)
                self._done.refunds[key] = refund.id


async def test_a_cluster_whose_processes_are_killed(durable_pg_url: str, tmp_path: Path) -> None:
    done, stop = Done(), asyncio.Event()
    ports = free_port(), free_port()
    async with sink(ports[0]) as shop, sink(ports[1]) as hook:
        cluster = Cluster(tmp_path, durable_pg_url, *ports)
        try:
            for one in cluster.apis:  # the first makes the tables, and the second finds them
                await asyncio.to_thread(lambda one=one: one.start().listening())
            merchant = await asyncio.to_thread(new_merchant, durable_pg_url)
            for one in cluster.workers:
                one.start()
            async with Tillgate(cluster.urls[0], merchant.api_key, merchant.api_secret) as till:
                await till.create_endpoint(hook.url, ["payment.paid", "refund.succeeded"])
            await trade(cluster, merchant, done, shop, stop)
            await everything_told(durable_pg_url, done, shop, hook)
            await all_there(cluster, merchant, done)
        finally:
            cluster.stop()
    verify = Process(tmp_path, ["ledger", "verify"], cluster.settings).start()
    assert await asyncio.to_thread(verify.wait) == 0, verify.log
    told = f"{len(shop.got)} callbacks, {len(hook.got)} events"
    print(f"{len(done.payments)} payments, {len(done.refunds)} refunds, {told}: {verify.log}")


async def traded(done: Done, payments: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while len(done.payments) < payments:
        assert time.monotonic() < deadline, f"{len(done.payments)} payments, and nothing moves"
        await asyncio.sleep(0.05)


async def trade(cluster: Cluster, merchant: Credentials, done: Done, shop: Sink, stop: asyncio.Event) -> None:
    async with Client(cluster.urls[0], merchant) as one, Client(cluster.urls[1], merchant) as two:
        clients = [await one.login(), await two.login()]  # both are up
        async with AsyncExitStack() as stack:
            modern = [
                await stack.enter_async_context(
                    Tillgate(url, merchant.api_key, merchant.api_secret, patience_s=0.5)
                )
                for url in cluster.urls
            ]
            tills: list[Till | ModernTill] = [
                *(Till(clients, done, shop.url, f"T{number}") for number in range(TILLS // 2)),
                *(ModernTill(modern, done, f"V{number}") for number in range(TILLS // 2)),
            ]
            working = [asyncio.create_task(one.work(stop)) for one in tills]
            await cluster.run(KILLS, done)
            await traded(done, KILLS + 1)
            stop.set()
            await asyncio.gather(*working)
    assert len(done.payments) > KILLS


News = dict[tuple[str, str, str | None], set[str]]


def called(shop: Sink) -> News:
    """What callbacks told: payment, type, refund → ids of messages."""
    heard: News = defaultdict(set)
    for one in shop.got:
        said = json.loads(one.body)
        refund = said["refund"]["refund_id"] if said["refund"] else None
        heard[said["payment_id"], said["type"], refund].add(one.id)
    return heard


def hooked(hook: Sink) -> News:
    """The same from the webhook endpoint, in the words of callbacks."""
    heard: News = defaultdict(set)
    words = {"payment.paid": "payment.success", "refund.succeeded": "refund.success"}
    for one in hook.got:
        said = json.loads(one.body)
        refund = said["data"]["refund"]["id"] if "refund" in said["data"] else None
        heard[said["data"]["payment"]["id"], words[said["type"]], refund].add(one.id)
    return heard


async def everything_told(url: str, done: Done, shop: Sink, hook: Sink) -> None:
    of = {done.refunds[key]: done.payments[key.rpartition("-")[0]] for key in done.refunds}
    wanted: set[tuple[str, str, str | None]] = {(one, "payment.success", None) for one in done.paid}
    wanted |= {(payment, "refund.success", refund) for refund, payment in of.items()}
    callbacks = {one for one in wanted if one[0] in done.called_back}
    deadline = time.monotonic() + PATIENCE_S
    while missing := (callbacks - called(shop).keys()) | (wanted - hooked(hook).keys()):
        assert time.monotonic() < deadline, f"{len(missing)} of {len(wanted)} were never told"
        # As if the minute had passed in which a killed worker's claims are its own.
        await rows(url, "UPDATE deliveries SET next_at = 0 WHERE state = 'pending'")
        await rows(url, "UPDATE due SET run_at = 0 WHERE kind IN ('refund', 'look_refund')")
        await asyncio.sleep(1)
    for heard, all_of_it in ((called(shop), callbacks), (hooked(hook), wanted)):
        assert heard.keys() == all_of_it
        assert all(len(ids) == 1 for ids in heard.values())


async def answers(client: Client) -> None:
    """Wait until its API, which may have been killed last, is there again."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            await client.login()
            return
        except aiohttp.ClientError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)


async def all_there(cluster: Cluster, merchant: Credentials, done: Done) -> None:
    assert len(set(done.payments.values())) == len(done.payments)
    assert len(set(done.refunds.values())) == len(done.refunds)
    refunded: dict[str, int] = defaultdict(int)
    for key in done.refunds:
        refunded[done.payments[key.rpartition("-")[0]]] += 2_500
    async with Client(cluster.urls[0], merchant) as client:
        await answers(client)
        for order, payment in done.payments.items():
            found = await client.status(payment)
            assert found["order_id"] == order
            assert found["status"] == ("success" if payment in done.paid else "pending")
            assert found["refunded_amount"] == refunded[payment]
