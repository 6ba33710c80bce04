"""`/metrics`: what this process counted, and how the whole hub is, in Prometheus' text format.

Counters and histograms are this process's own: add them up over processes. Gauges come from the database and
are the same in all: take the largest. No label holds a merchant's id, an order or a secret.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from tillgate.domain.errors import Unavailable
from tillgate.metrics import Histogram, RouteFigures
from tillgate.runtime import Runtime
from tillgate.store.condition import Condition, condition, drift, providers_of

if TYPE_CHECKING:
    from prometheus_client import Metric

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
FRESH_S: Final = 5.0
"""However many ask, the database is read once in so long."""
DRIFT_FRESH_S: Final = 60.0
"""The balances of all merchants are added up for this one."""

Routes = Callable[[], Iterable[RouteFigures]]


class Scrape:
    """What `/metrics` of one process shows; `text()` may be asked by any number at once."""

    def __init__(self, runtime: Runtime, routes: Routes = tuple) -> None:
        self._runtime, self._routes = runtime, routes
        self._lock = asyncio.Lock()
        self._condition: Condition | None = None
        self._drift: dict[str, int] = {}
        self._providers: dict[str, str] = {}
        self._read_at = self._drift_at = float("-inf")
        self._registry: Any = None

    async def text(self) -> bytes:
        # Loaded by the first who asks: a hub that nobody watches need not carry it.
        from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest

        await self._refresh()
        if self._registry is None:
            self._registry = CollectorRegistry()
            ProcessCollector(registry=self._registry)
            GCCollector(registry=self._registry)
            self._registry.register(self)
        return generate_latest(self._registry)

    async def _refresh(self) -> None:
        database, clock = self._runtime.database, self._runtime.kit.clock
        async with self._lock:
            now = monotonic()
            if now - self._read_at < FRESH_S:
                return
            try:
                self._condition = await condition(database, clock())
                if now - self._drift_at >= DRIFT_FRESH_S:
                    self._drift = await drift(database)
                    self._drift_at = now
                if any(
                    account not in self._providers for _, _, account in self._runtime.journal.figures.moves
                ):
                    self._providers = await providers_of(database)
            except Unavailable:
                self._condition = None  # an old figure would be taken for today's
            self._read_at = now

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        built = GaugeMetricFamily("tillgate_build_info", "What runs here.", labels=["version"])
        built.add_metric([version("tillgate")], 1)
        yield built
        yield from self._counted()
        yield from self._answered()
        up = self._condition is not None
        yield GaugeMetricFamily("tillgate_store_up", "Whether the database answers (1) or not (0).", int(up))
        if self._condition is not None:
            yield from _state(self._condition, self._drift)

    def _counted(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        journal, worker = self._runtime.journal, self._runtime.worker.figures
        moved = {
            "payment": CounterMetricFamily(
                "tillgate_payments",
                "Payments that came to an outcome; each may come to several (pending, then paid).",
                labels=["provider", "channel", "outcome"],
            ),
            "refund": CounterMetricFamily(
                "tillgate_refunds",
                "Refunds that came to an outcome.",
                labels=["provider", "channel", "outcome"],
            ),
        }
        counts: Counter[tuple[str, str, str, str]] = Counter()
        for (event, channel, account_id), count in journal.figures.moves.items():
            what, _, outcome = event.partition(".")
            counts[what, self._providers.get(account_id, ""), channel, outcome] += count
        for (what, *labels), count in sorted(counts.items()):
            if what in moved:
                moved[what].add_metric(labels, count)
        yield from moved.values()

        yield _histogram(
            "tillgate_journal_batch_commands",
            "Commands that shared one commit.",
            (((), journal.figures.batches),),
        )
        yield _histogram(
            "tillgate_journal_commit_seconds",
            "From the beginning of a batch's transaction until it was durable.",
            (((), journal.figures.seconds),),
        )
        yield GaugeMetricFamily(
            "tillgate_journal_waiting_commands", "Commands that wait for a batch.", journal.waiting
        )
        tries = CounterMetricFamily(
            "tillgate_deliveries",
            "Tries of deliveries: delivered, pending (to be tried again) or failed (given up).",
            labels=["target", "outcome"],
        )
        for ended, count in sorted(worker.deliveries.items()):
            tries.add_metric(ended, count)
        yield tries
        yield _histogram(
            "tillgate_delivery_age_seconds", "From an event until it was delivered.", (((), worker.ages),)
        )
        work = CounterMetricFamily("tillgate_due_work", "Due work that ended.", labels=["kind", "outcome"])
        for ended, count in sorted(worker.due.items()):
            work.add_metric(ended, count)
        yield work

    def _answered(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily

        requests = CounterMetricFamily(
            "tillgate_http_requests", "Requests that were answered.", labels=["method", "route", "status"]
        )
        routes = [one for one in self._routes() if one.statuses]
        for one in routes:
            for status, count in sorted(one.statuses.items()):
                requests.add_metric([one.method, one.route, str(status)], count)
        yield requests
        yield _histogram(
            "tillgate_http_request_seconds",
            "From a request's head until its answer.",
            (((one.method, one.route), one.seconds) for one in routes),
            ("method", "route"),
        )


def _state(now: Condition, drifted: dict[str, int]) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    for name, says, value in (
        ("payments_unsure", "Payments whose provider's answer was lost.", now.unsure),
        ("payments_held", "Payments that wait for an operator (review).", now.held),
        ("due_work_lag_seconds", "How long the oldest due work is overdue.", now.due_lag_ms / 1000),
        ("deliveries_pending", "Deliveries that are not delivered yet.", now.pending_deliveries),
        (
            "delivery_oldest_seconds",
            "Age of the oldest event that is not delivered yet.",
            now.oldest_delivery_ms / 1000,
        ),
        (
            "delivery_lag_seconds",
            "How long the next try of a delivery is overdue.",
            now.delivery_lag_ms / 1000,
        ),
    ):
        yield GaugeMetricFamily(f"tillgate_{name}", says, value)
    overdue = GaugeMetricFamily("tillgate_due_work_overdue", "Due work that is overdue.", labels=["kind"])
    for kind, count in sorted(now.overdue.items()):
        overdue.add_metric([kind], count)
    yield overdue
    books = GaugeMetricFamily(
        "tillgate_ledger_drift_minor",
        "Minor units by which balances do not add up to nothing; anything but 0 is damage.",
        labels=["currency"],
    )
    for currency, amount_minor in sorted(drifted.items()):
        books.add_metric([currency], amount_minor)
    yield books


def _histogram(
    name: str,
    says: str,
    found: Iterable[tuple[tuple[str, ...], Histogram]],
    labels: tuple[str, ...] = (),
) -> Metric:
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(name, says, labels=labels)
    for values, histogram in found:
        below, buckets = 0, []
        for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
            below += count
            buckets.append(("+Inf" if bound == float("inf") else str(bound), float(below)))
        family.add_metric(values, buckets, histogram.total)
    return family
