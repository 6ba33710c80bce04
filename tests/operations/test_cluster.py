"""Two hubs and a worker on one PostgreSQL: what they count together, traces across them, draining."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.collector import Collector, collecting
from support.postgres import free_port
from support.serving import Answer, Client, Credentials, Process, client, new_merchant, rows
from support.sink import sink

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"  # the example of the W3C recommendation
PARENT = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@dataclass
class Cluster:
    database_url: str
    hubs: list[Process]
    worker: Process
    traces: Collector
    callback_port: int
    ops: list[str]
    shop: Credentials

    async def figures(self) -> list[dict[str, dict[tuple[str, ...], float]]]:
        """Of each process: name → values of the labels, in the order of their names → value."""
        found = []
        async with aiohttp.ClientSession() as http:
            for url in self.ops:
                async with http.get(f"{url}/metrics") as reply:
                    assert reply.status == 200
                    assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
                    text = await reply.text()
                for secret in (self.shop.merchant_id, self.shop.api_key, self.shop.webhook_secret, "ORD-"):
                    assert secret not in text
                samples: dict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
                for family in text_string_to_metric_families(text):
                    for one in family.samples:
                        samples[one.name][tuple(one.labels[name] for name in sorted(one.labels))] = one.value
                found.append(samples)
        return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, module_pg_url: str) -> Iterator[Cluster]:
    directory: Path = tmp_path_factory.mktemp("cluster")
    port = free_port()
    given = {
        "database_url": module_pg_url,
        "sandbox": 1,
        "rate_limit": 0,
        "callback_allow": f"127.0.0.1:{port}",
        "ops_listen": "127.0.0.1:0",
        "tracing": 1,
        "log_format": "json",
    }
    with ExitStack() as stack:
        traces = stack.enter_context(collecting())
        exported = {"OTEL_EXPORTER_OTLP_ENDPOINT": traces.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}

        def started(*arguments: str) -> Process:
            process = stack.enter_context(Process(directory, arguments, given))
            process.settings |= exported
            return process.start()

        first = started("up", "--port", "0", "--no-worker").listening()
        second, worker = started("up", "--port", "0", "--no-worker"), started("worker")
        second.listening()
        worker.says("worker runs")
        everyone = [first, second, worker]
        ops = [one.says(r'"url": "(http://[^"]+)", "event": "operations are served"')[1] for one in everyone]
        shop = new_merchant(module_pg_url)
        yield Cluster(module_pg_url, [first, second], worker, traces, port, ops, shop)
        for one in everyone:
            assert one.stop() == 0, one.log
            assert "Traceback" not in one.log
            for line in one.log.splitlines():
                assert shop.api_secret not in line
                assert shop.webhook_secret not in line


@pytest.fixture
async def shops(cluster: Cluster) -> AsyncIterator[list[Client]]:
    """The same merchant's till at each hub."""
    async with (
        client(cluster.hubs[0].url, cluster.shop) as one,
        client(cluster.hubs[1].url, cluster.shop) as two,
    ):
        yield [one, two]


async def test_a_trace_crosses_request_journal_provider_and_delivery(
    cluster: Cluster, shops: list[Client]
) -> None:
    async with sink(cluster.callback_port) as ear:
        body = {"wallet_id": "gopay", "amount": 30_907, "currency": "IDR", "order_id": "ORD-traced"}
        headers = {"traceparent": TRACEPARENT, "X-Request-Id": "till-7"}
        made = await shops[0].ask("POST", "/payments", body | {"callback_url": ear.url}, headers=headers)
        assert made.status == 200
        paid = made.json["payment_id"]
        assert (await shops[1].act(paid, "pay")).status == 200
        await ear.until(1)
        told = next(value for name, value in ear.got[0].headers.items() if name.lower() == "traceparent")

    seen, of = cluster.traces, cluster.traces.children
    opened = seen.until(lambda one: one.name == "POST /payments")
    assert (opened.trace, opened.parent, opened.service) == (TRACE, PARENT, "tillgate")
    assert opened.attributes["http.response.status_code"] == 200
    assert opened.attributes["tillgate.request_id"] == "till-7"
    journal = seen.until(lambda one: one.name == "journal Open" and one.parent == opened.id)
    assert journal.attributes["tillgate.payment_id"] == paid

    # The one who pays asks at another hub; a worker delivers what that request caused.
    route = "POST /sandbox/payments/{payment_id}/pay"
    pressed = seen.until(lambda one: one.name == route)
    assert pressed.trace != TRACE
    called = seen.until(lambda one: one.name.startswith("call ") and one.trace == pressed.trace)
    delivered = seen.until(lambda one: one.name == "deliver payment.paid")
    assert delivered.trace == pressed.trace
    assert delivered.attributes["tillgate.outcome"] == "delivered"
    sent = seen.until(lambda one: one.parent == delivered.id)
    assert sent.attributes["server.address"] == "127.0.0.1"
    assert sent.attributes["http.response.status_code"] == 200
    assert told.startswith(f"00-{sent.trace}-{sent.id}-")
    assert called.trace == told.split("-")[1]
    assert of(pressed)

    # A refund is sent by a worker, under the trace of who asked for it.
    asked = {"traceparent": f"00-{TRACE[::-1]}-{PARENT}-01"}
    assert (await shops[0].refund(paid, 1000, **asked)).status == 200
    refunding = seen.until(lambda one: one.name == "work refund")
    assert refunding.trace == TRACE[::-1]
    seen.until(lambda one: one.name == "call sandbox" and one.trace == TRACE[::-1])

    for span in seen.spans:
        said = json.dumps(span.attributes)
        for secret in (cluster.shop.api_key, cluster.shop.api_secret, shops[0].token, ear.url, "ORD-"):
            assert secret not in said, span


async def test_figures_add_up_over_processes(cluster: Cluster, shops: list[Client]) -> None:
    def total(found: list[Any], name: str, *labels: str) -> float:
        return sum(one[name].get(labels, 0.0) for one in found)

    def everywhere(found: list[Any], name: str, *labels: str) -> float:
        values = {one[name][labels] for one in found}
        assert len(values) == 1, (name, values)
        return float(values.pop())

    before = await cluster.figures()
    async with sink(cluster.callback_port) as ear:
        for number in range(6):
            paid = await shops[number % 2].open(callback_url=ear.url)
            assert (await shops[1 - number % 2].act(paid, "pay")).status == 200
        await shops[0].act(await shops[0].open(wallet_id="ovo"), "fail")
        lost = await shops[1].open(amount=20_901)  # the bank's answer is lost
        await ear.until(6)
    answers: list[Answer] = [
        await shops[0].ask("GET", "/payments/pay_unknown"),
        await shops[0].ask("GET", "/nothing/at/all"),
        await shops[0].ask("DELETE", "/payments"),
        await shops[0].ask("GET", "/pay/pay_unknown"),
    ]
    assert [one.status for one in answers] == [404, 404, 405, 404]
    await shops[1].until(lost, status_detail="pending")  # a worker has looked
    await rows(cluster.database_url, f"UPDATE payments SET status = 'review' WHERE id = '{lost}'")
    for _ in range(80):  # what is read from the database is kept for five seconds
        after = await cluster.figures()
        if all(one["tillgate_payments_held"][()] for one in after):
            break
        await asyncio.sleep(0.1)
    grown = {
        ("tillgate_payments_total", "gopay", "paid", "sandbox"): 6,
        ("tillgate_payments_total", "gopay", "unsure", "sandbox"): 1,
        ("tillgate_payments_total", "ovo", "pending", "sandbox"): 1,
        ("tillgate_payments_total", "ovo", "failed", "sandbox"): 1,
        ("tillgate_deliveries_total", "delivered", "callback"): 6,
        ("tillgate_delivery_age_seconds_count",): 6,
        ("tillgate_http_requests_total", "POST", "/payments", "200"): 8,
        ("tillgate_http_requests_total", "GET", "/payments/{payment_id}", "404"): 1,
        ("tillgate_http_requests_total", "", "", "404"): 1,
        ("tillgate_http_requests_total", "", "/payments", "405"): 1,
        ("tillgate_http_requests_total", "GET", "/pay/{payment_id}", "404"): 1,
    }
    for (name, *labels), count in grown.items():
        assert total(after, name, *labels) - total(before, name, *labels) == count, (name, labels)
    assert after[2]["tillgate_deliveries_total"]  # by the worker, which also says so
    assert not after[0]["tillgate_deliveries_total"]
    assert not after[2]["tillgate_http_requests_total"]
    for one in after:
        commits = one["tillgate_journal_commit_seconds_count"][()]
        assert commits == one["tillgate_journal_batch_commands_bucket"]["+Inf",] > 0
        assert one["tillgate_journal_batch_commands_sum"][()] >= commits
        assert 0 < one["tillgate_journal_commit_seconds_sum"][()] < 60
        buckets = [value for _, value in one["tillgate_journal_commit_seconds_bucket"].items()]
        assert buckets == sorted(buckets)
        assert one["process_cpu_seconds_total"][()] > 0

    assert everywhere(after, "tillgate_payments_unsure") == 0
    assert everywhere(after, "tillgate_payments_held") == 1
    # Of the refund in the test before, whose shop has closed.
    assert everywhere(after, "tillgate_deliveries_pending") <= 1
    assert everywhere(after, "tillgate_store_up") == 1
    assert everywhere(after, "tillgate_ledger_drift_minor", "IDR") == 0


async def test_who_may_see_figures(cluster: Cluster, shops: list[Client]) -> None:
    """In the sandbox everybody; the token is tried in `test_metrics_access`."""
    answer = await shops[0].ask("GET", "/metrics", token="")
    assert (answer.status, b"tillgate_build_info" in answer.body) == (200, True)
    async with aiohttp.ClientSession() as http:
        for path, status in (("/healthz", 200), ("/readyz", 200), ("/payments", 404), ("/openapi.json", 404)):
            for url in cluster.ops:
                async with http.get(url + path) as reply:
                    assert reply.status == status


async def test_one_is_drained_under_load_and_nobody_notices(cluster: Cluster, shops: list[Client]) -> None:
    """A hub that is told to end answers all that it has read, then ends with 0; what it took is there."""
    leaving, staying = shops[1], shops[0]
    taken: list[str] = []
    refused = 0
    ending = asyncio.Event()

    async def till(number: int) -> None:
        nonlocal refused
        for turn in range(2000):
            body = {
                "wallet_id": "gopay",
                "amount": 9000,
                "currency": "IDR",
                "order_id": f"drain-{number}-{turn}",
            }
            try:
                answer = await leaving.ask("POST", "/payments", body)
            except aiohttp.ClientConnectorError:  # nothing was sent: the next hub takes it
                refused += 1
                answer = await staying.ask("POST", "/payments", body)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # An idle connection was closed under the request, as any server may: repeat it.
                answer = await staying.ask("POST", "/payments", body)
            assert answer.status == 200, answer
            taken.append(answer.json["payment_id"])
            if ending.is_set() and refused:
                return

    tills = [asyncio.create_task(till(number)) for number in range(16)]
    await asyncio.sleep(0.7)
    cluster.hubs[1].send(signal.SIGTERM)
    ending.set()
    code = await asyncio.to_thread(cluster.hubs[1].wait, 25)
    await asyncio.gather(*tills)
    assert code == 0
    assert refused > 0
    assert len(taken) == len(set(taken))
    found = await rows(cluster.database_url, "SELECT id FROM payments WHERE order_id LIKE 'drain-%'")
    assert {one for (one,) in found} == set(taken)


def test_logs_name_the_request_and_the_payment(cluster: Cluster) -> None:
    lines = [json.loads(line) for line in cluster.hubs[0].log.splitlines() if line.startswith("{")]
    assert lines
    assert all({"event", "level", "timestamp"} <= line.keys() for line in lines)
    assert not re.search(r"[Bb]earer|whsec_", cluster.hubs[0].log)
