"""`/v1/webhook-endpoints`: who is told what, with secrets that rotate, tests and replays."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from tillgate import schemas_v1
from tillgate.domain.errors import InvalidRequest
from tillgate.http.openapi import Nothing
from tillgate.http.operation import Answer, Call, Operation
from tillgate.http.v1.pages import parse_time, whole
from tillgate.http.v1.shared import LIST, READ, WRITE, answer, callable_url, named, printable
from tillgate.hub.endpoints import Wanted
from tillgate.hub.resending import Span
from tillgate.schemas import rfc3339
from tillgate.schemas_v1 import bodies as models
from tillgate.store.directory import Endpoint
from tillgate.store.resending import Replayed

_FOREVER = 2**62


def show(one: Endpoint) -> models.EndpointV1:
    return models.EndpointV1(**_fields(one))


def _fields(one: Endpoint) -> dict[str, Any]:
    return {
        "id": one.id,
        "url": one.url,
        "event_types": list(one.types),
        "description": one.description,
        "status": "disabled" if one.disabled else "enabled",
        "disabled_reason": one.disabled_why,
        "disabled_at": rfc3339(one.disabled_at),
        "failing_since": rfc3339(one.failing_since),
        "signing_secrets": len(one.secrets),
        "created_at": schemas_v1.at(one.created_at),
    }


def _render(one: Endpoint) -> bytes:
    return schemas_v1.encode(show(one))


def _with_secret(one: Endpoint) -> bytes:
    return schemas_v1.encode(models.EndpointSecret(**_fields(one), secret=one.secrets[0]))


async def create(call: Call) -> Answer:
    wanted: models.EndpointCreate = call.body
    said = Wanted(
        callable_url(call, wanted.url, "url"),
        tuple(wanted.event_types),
        _description(wanted.description),
    )
    made = await call.runtime.hub.endpoints.create(call.merchant, said, call.key, _with_secret)
    return answer(made.answer, _with_secret(made.endpoint), 201)


def _description(text: str | None) -> str | None:
    return text if text is None else printable(text, "description", 200, 0)


async def list_(call: Call) -> Answer:
    return whole([show(one) for one in call.merchant.endpoints])


async def get(call: Call) -> Answer:
    return Answer(_render(call.runtime.hub.endpoints.one(call.merchant, named(call, "endpoint_id"))))


async def update(call: Call) -> Answer:
    body: models.EndpointUpdate = call.body
    said = Wanted(
        url=None if body.url is UNSET else callable_url(call, body.url, "url"),
        types=None if body.event_types is UNSET else tuple(body.event_types),
        description=None if body.description is UNSET else _description(body.description),
    )
    after = await call.runtime.hub.endpoints.update(call.merchant, named(call, "endpoint_id"), said)
    return Answer(_render(after))


async def delete(call: Call) -> Answer:
    await call.runtime.hub.endpoints.remove(call.merchant, named(call, "endpoint_id"))
    return Answer(b"", 204)


async def enable(call: Call) -> Answer:
    return await _switch(call, on=True)


async def disable(call: Call) -> Answer:
    return await _switch(call, on=False)


async def _switch(call: Call, *, on: bool) -> Answer:
    hub = call.runtime.hub
    done = await hub.endpoints.switch(call.merchant, named(call, "endpoint_id"), on, call.key, _render)
    return answer(done.answer, _render(done.endpoint), 200)


async def rotate(call: Call) -> Answer:
    wanted: models.RotateIn = call.body
    done = await call.runtime.hub.endpoints.rotate(
        call.merchant, named(call, "endpoint_id"), wanted.overlap_s, call.key, _with_secret
    )
    return answer(done.answer, _with_secret(done.endpoint), 200)


async def test(call: Call) -> Answer:
    done = await call.runtime.hub.endpoints.test(call.merchant, named(call, "endpoint_id"), call.key, _render)
    return answer(done.answer, _render(done.endpoint), 202)


async def replay(call: Call) -> Answer:
    wanted: models.ReplayIn = call.body
    hub, merchant = call.runtime.hub, call.merchant
    endpoint = hub.endpoints.one(merchant, named(call, "endpoint_id"))
    since, until = parse_time(wanted.since, "since"), parse_time(wanted.until, "until")
    if since is not None and until is not None and until < since:
        raise InvalidRequest("until is before since", param="until")
    first = await call.runtime.pages.seq_at(merchant.id, since) if since else 1
    span = Span(
        after=max(wanted.after_number, first - 1),
        since=since or 0,
        until=_FOREVER if until is None else until,
        everything=wanted.what == "everything",
    )
    done, stored = await hub.resending.replay(merchant, endpoint, span, call.key, _replayed)
    return answer(stored, b"" if done is None else _replayed(done), 202)


def _replayed(done: Replayed) -> bytes:
    return schemas_v1.encode(models.ReplayOut(done.replayed, done.scanned, done.last))


def operations(common: dict[str, Any]) -> list[Operation]:
    common = {**common, "tag": "Webhook endpoints"}
    shown, secret = models.EndpointV1, models.EndpointSecret
    base, one = "/v1/webhook-endpoints", "/v1/webhook-endpoints/{endpoint_id}"
    written: dict[str, Any] = {"errors": WRITE, "idempotent": True, **common}
    return [
        Operation(
            "POST", (base,), "v1_create_endpoint", "Have events sent to a URL; its secret is shown once",
            handler=create, body=models.EndpointCreate, replies={201: secret}, shows_secret=True,
            example={"url": "https://shop.example/hook", "event_types": ["payment.*"]}, **written,
        ),
        Operation(
            "GET", (base,), "v1_list_endpoints", "List webhook endpoints", handler=list_,
            replies={200: models.EndpointList}, errors=LIST, **common,
        ),
        Operation(
            "GET", (one,), "v1_get_endpoint", "How a webhook endpoint stands", handler=get,
            replies={200: shown}, errors=READ, **common,
        ),
        Operation(
            "PATCH", (one,), "v1_update_endpoint", "Change its URL, events or description", handler=update,
            body=models.EndpointUpdate, replies={200: shown}, errors=WRITE, **common,
        ),
        Operation(
            "DELETE", (one,), "v1_delete_endpoint", "Send it nothing more", handler=delete,
            replies={204: Nothing}, errors=(*READ, 409), **common,
        ),
        Operation(
            "POST", (f"{one}/disable",), "v1_disable_endpoint", "Stop sending for a while", handler=disable,
            replies={200: shown}, **written,
        ),
        Operation(
            "POST", (f"{one}/enable",), "v1_enable_endpoint", "Send again from now on", handler=enable,
            replies={200: shown}, **written,
        ),
        Operation(
            "POST", (f"{one}/rotate",), "v1_rotate_endpoint",
            "A new secret, shown once; the one before goes on signing beside it", handler=rotate,
            body=models.RotateIn, bare=True, replies={200: secret}, shows_secret=True, **written,
        ),
        Operation(
            "POST", (f"{one}/test",), "v1_test_endpoint", "Send it an `endpoint.test` event", handler=test,
            replies={202: shown}, **written,
        ),
        Operation(
            "POST", (f"{one}/replay",), "v1_replay_endpoint",
            "Send it again what it missed, or everything, in order", handler=replay, body=models.ReplayIn,
            bare=True, replies={202: models.ReplayOut}, **written,
        ),
    ]  # fmt: skip
