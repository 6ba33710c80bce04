"""OpenTelemetry traces: request → journal → provider's call → delivery, across processes.

Nothing of this is loaded, and nothing is done per request, unless `TILLGATE_TRACING` is on: then the runtime
takes the classes and wrappers here instead of the plain ones. The exporter is set up by the standard `OTEL_*`
variables. Spans hold ids, statuses and codes; never a body, a URL's path to outside, a header or a message.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from time import monotonic
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tillgate.domain.errors import Misconfigured, TillgateError, Unavailable
from tillgate.domain.record import replace
from tillgate.hub import Hub
from tillgate.spi import HttpCall, HttpReply, Send
from tillgate.store import traces
from tillgate.store.book import Command, Plan
from tillgate.store.database import Database
from tillgate.store.journal import Journal
from tillgate.store.work import Delivery, Due, Result
from tillgate.worker import Worker

T = TypeVar("T")
Asgi = Callable[[Any, Any, Any], Awaitable[None]]

_SWEEP_EVERY_S: Final = 3600.0
_CLOSE_S: Final = 2.0
_QUIET: Final = frozenset({"expire"})
"""Due work that every payment has and that is seldom worth a look; it starts a trace of its own."""

log = structlog.get_logger("tillgate.tracing")

_propagator: Final = TraceContextTextMapPropagator()


class Tracing:
    """The spans of one process. `provider` is the SDK's, or a test's."""

    def __init__(self, provider: TracerProvider, give_up: Callable[[], None] = lambda: None) -> None:
        """`give_up` ends the exporter's waiting for a collector."""
        self._provider, self._give_up = provider, give_up
        self._tracer = provider.get_tracer("tillgate", version("tillgate"))

    async def close(self) -> None:
        """Export what is left, to a collector that takes it within `_CLOSE_S`."""
        shutdown: Callable[[], None] | None = getattr(self._provider, "shutdown", None)
        if shutdown is None:
            return
        ending = asyncio.ensure_future(asyncio.to_thread(shutdown))
        done, _ = await asyncio.wait([ending], timeout=_CLOSE_S)
        if not done:
            self._give_up()
        await ending

    @contextmanager
    def span(
        self, name: str, kind: SpanKind, about: Mapping[str, str], parent: Context | None = None
    ) -> Iterator[Span]:
        """The current span while the block lasts. An error is told by its code: its words stay in the log."""
        attributes = {key: value for key, value in about.items() if value}
        with self._tracer.start_as_current_span(
            name, parent, kind, attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except BaseException as error:
                _failed(span, error)
                raise

    def begun(self, name: str, about: Mapping[str, str]) -> Span:
        """A span that somebody else ends; a child of the current one."""
        return self._tracer.start_span(name, kind=SpanKind.INTERNAL, attributes=dict(about))

    def served(self, app: Asgi, route: str) -> Asgi:
        """An ASGI application under a server span; goes on with the caller's trace."""

        async def traced(scope: Any, receive: Any, send: Any) -> None:
            carrier = {
                name: value.decode("latin-1")
                for raw, value in scope["headers"]
                if (name := raw.decode("latin-1")) in ("traceparent", "tracestate")
            }
            parent = _propagator.extract(carrier, Context())
            about = {"http.request.method": scope["method"], "http.route": route}
            with self.span(f"{scope['method']} {route}", SpanKind.SERVER, about, parent) as span:

                async def noted(message: Any) -> None:
                    if message["type"] == "http.response.start":
                        _answered(span, message)
                    await send(message)

                await app(scope, receive, noted)

        return traced

    def sending(self, send: Send) -> Send:
        """A `Send` under a client span, which it tells to whoever it calls (`traceparent`)."""

        async def traced(call: HttpCall) -> HttpReply:
            to = urlsplit(call.url)
            about = {
                "http.request.method": call.method,
                "server.address": to.hostname or "",
                "url.scheme": to.scheme,
            }
            with self.span(f"call {to.hostname}", SpanKind.CLIENT, about) as span:
                carried = dict(call.headers)
                _propagator.inject(carried)
                reply = await send(replace(call, headers=carried))
                span.set_attribute("http.response.status_code", reply.status)
                if reply.status >= 400:
                    span.set_status(Status(StatusCode.ERROR))
                return reply

        return traced

    def journal(self, database: Database) -> Journal:
        return TracedJournal(self, database)

    def worker(self, hub: Hub, database: Database, deliver: Send, disable_after_s: int) -> Worker:
        return TracedWorker(self, database, hub, self.sending(deliver), disable_after_s=disable_after_s)


def start() -> Tracing:
    """Spans that go out over OTLP. Raises `Misconfigured` where the SDK is not installed."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider as Provider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise Misconfigured(
            "TILLGATE_TRACING needs the OpenTelemetry SDK: pip install 'tillgate[otel]'"
        ) from None
    says = logging.getLogger("opentelemetry")
    if not says.handlers:
        says.addHandler(_Told())
        says.propagate = False
    own = {"service.version": version("tillgate")}
    if "OTEL_SERVICE_NAME" not in os.environ:
        own["service.name"] = "tillgate"
    provider = Provider(resource=Resource.create(own), shutdown_on_exit=False)
    exporter = OTLPSpanExporter()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider, exporter.shutdown)


class _Told(logging.Handler):
    """What the SDK has to say (a collector that is away, most often), as a line of our log."""

    def emit(self, record: logging.LogRecord) -> None:
        log.warning("traces are not exported", why=record.getMessage()[:200])


class _Kept:
    """A command that also keeps which trace its events and its due work came from."""

    __slots__ = ("_command", "_context")

    def __init__(self, command: Any, context: str) -> None:
        self._command, self._context = command, context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._command, name)

    def decide(self, plan: Plan) -> Any:
        result = self._command.decide(plan)
        for draft in plan.drafts:
            if draft.targets:
                plan.changes += traces.kept(draft.subject, draft.type, self._context, plan.now)
        for row in plan.due.values():
            if row is not None and row[1] not in _QUIET:
                plan.changes += traces.kept(row[2], f"due:{row[1]}", self._context, plan.now)
        return result


class TracedJournal(Journal):
    """Each command of a traced request is a span: from asking until it is on disk, or refused."""

    def __init__(self, tracing: Tracing, database: Database) -> None:
        super().__init__(database)
        self._tracing = tracing

    def submit(self, command: Command[T]) -> asyncio.Future[T]:
        return self._traced(super().submit, command)

    def ask(self, question: Command[T]) -> asyncio.Future[T]:
        return self._traced(super().ask, question)

    def _traced(
        self, hand_in: Callable[[Command[T]], asyncio.Future[T]], command: Command[T]
    ) -> asyncio.Future[T]:
        if not trace.get_current_span().get_span_context().is_valid:
            return hand_in(command)
        carrier: dict[str, str] = {}
        _propagator.inject(carrier)
        about = {"tillgate.merchant_id": command.merchant_id}
        span = self._tracing.begun(f"journal {type(command).__name__}", about)
        told: Any = _Kept(command, carrier["traceparent"])
        future: asyncio.Future[T] = hand_in(told)

        def ended(done: asyncio.Future[T]) -> None:
            if done.cancelled():
                span.set_attribute("error.type", "cancelled")
            elif (error := done.exception()) is not None:
                _failed(span, error)
            else:
                _about(span, done.result())
            span.end()

        future.add_done_callback(ended)
        return future


class TracedWorker(Worker):
    """Goes on with the trace that an event or a piece of due work came from."""

    def __init__(self, tracing: Tracing, database: Database, hub: Hub, deliver: Send, **more: Any) -> None:
        super().__init__(hub, deliver, **more)
        self._tracing, self._database = tracing, database
        self._swept_at = float("-inf")

    async def _send(self, delivery: Delivery) -> Result:
        parent = await self._parent(traces.of_event(self._database, delivery.merchant_id, delivery.event_seq))
        about = {
            "tillgate.merchant_id": delivery.merchant_id,
            "tillgate.delivery_id": delivery.id,
            "tillgate.event_id": delivery.event_id,
        }
        with self._tracing.span(f"deliver {delivery.kind}", SpanKind.CONSUMER, about, parent) as span:
            result = await super()._send(delivery)
            span.set_attribute("tillgate.outcome", result.state)
            span.set_attribute("tillgate.try", delivery.number)
            return result

    async def _do(self, due: Due) -> None:
        parent = await self._parent(traces.of_due(self._database, due.kind, due.subject))
        about = {"tillgate.subject": due.subject}
        with self._tracing.span(f"work {due.kind}", SpanKind.CONSUMER, about, parent):
            await super()._do(due)

    async def _parent(self, looked: Awaitable[str | None]) -> Context:
        """An empty context where nobody knows: a trace of its own, whatever the worker is doing."""
        try:
            context = await looked
            if monotonic() - self._swept_at > _SWEEP_EVERY_S:
                self._swept_at = monotonic()
                await self._hub.kit.journal.run(traces.Sweep())
        except Unavailable:
            context = None
        return _propagator.extract({"traceparent": context} if context else {}, Context())


def _answered(span: Span, start: Mapping[str, Any]) -> None:
    span.set_attribute("http.response.status_code", start["status"])
    if start["status"] >= 500:
        span.set_status(Status(StatusCode.ERROR))
    for name, value in start["headers"]:
        if name == b"x-request-id":
            span.set_attribute("tillgate.request_id", value.decode("latin-1"))


def _about(span: Span, result: Any) -> None:
    """The ids that a command's result names."""
    for name in ("payment", "attempt", "refund"):
        found = getattr(getattr(result, name, None), "id", None)
        if isinstance(found, str):
            span.set_attribute(f"tillgate.{name}_id", found)


def _failed(span: Span, error: BaseException) -> None:
    span.set_attribute("error.type", error.code if isinstance(error, TillgateError) else type(error).__name__)
    span.set_status(Status(StatusCode.ERROR))
