"""The OpenAPI 3.1 document, made from what the operations declare."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from tillgate import schemas, schemas_v1
from tillgate.http.operation import Operation

_WORDS: Final = {
    400: "The request is malformed.",
    401: "The credentials or the token are missing, wrong or expired.",
    404: "There is no such thing here.",
    405: "This path does not take that method.",
    409: "The state of the object does not allow that; or the first request with this key still runs.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    422: "The Idempotency-Key was used with another request.",
    429: "Too many requests.",
    500: "An unexpected error.",
    502: "The provider's answer is lost, or it said no.",
    503: "Nothing was changed; try again later.",
}
_REF: Final = "#/components/schemas/{name}"


_DONE: Final = {201: "Created.", 202: "Taken; it is on its way.", 204: "Gone."}


class Nothing:
    """Stands for an answer without a body."""


def document(
    operations: Iterable[Operation],
    *,
    version: str,
    url: str,
    about: str = "",
    events: Sequence[str] = (),
    plain: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """`about`: what a reader has to know first, in Markdown; `events`: the types that webhook endpoints are
    sent; `plain`: path items of what is no operation."""
    listed = list(operations)
    models: set[Any] = {schemas.Callback, schemas_v1.EventV1}
    for one in listed:
        models |= {*one.replies.values(), *([one.body] if one.body else ()), one.dialect.model}
    models -= {Nothing, str}
    kinds = sorted(models, key=lambda one: str(one.__name__))
    _, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    _exact_numbers(components)
    paths: dict[str, Any] = {}
    for one in listed:
        for number, path in enumerate(one.paths):
            paths.setdefault(path, {})[one.method.lower()] = _operation(one, number)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tillgate",
            "version": version,
            "description": about,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": url}],
        "paths": {**paths, **(plain or {})},
        "webhooks": _webhooks(events),
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _operation(one: Operation, number: int) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": one.name if number == 0 else f"{one.name}_{number + 1}",
        "summary": one.summary,
        "tags": [one.tag],
        "responses": {
            str(status): _reply(_said(one, status), model, one.media) for status, model in one.replies.items()
        },
        "parameters": [*_path_parameters(one.paths[number]), *_query_parameters(one)],
    }
    if one.auth:
        made["security"] = [{"token": []}]
    if one.idempotent:
        made["parameters"].append(_IDEMPOTENCY)
    if one.body is not None:
        made["requestBody"] = {"required": not one.bare, "content": _json(one.body)}
        if one.example is not None:
            made["requestBody"]["content"]["application/json"]["example"] = one.example
    error = _json(one.dialect.model, one.dialect.content_type)
    for status in sorted({*one.errors, 500}):
        made["responses"][str(status)] = {"description": _WORDS[status], "content": error}
    for status, response in made["responses"].items():
        response["headers"] = _headers(one, status)
    return made


def _headers(one: Operation, status: str) -> dict[str, Any]:
    found = {"X-Request-ID": _header("The caller's own, if it is one; else a new one.", required=True)}
    if one.idempotent and status.startswith("2"):
        found["Idempotent-Replayed"] = _header("`true` where the answer was given before.")
    if "cursor" in one.query and status == "200":
        found["Link"] = _header('RFC 8288: `rel="next"` and `rel="first"`.')
    if status == "401":
        found["WWW-Authenticate"] = _header("RFC 6750.", required=True)
    if status in ("429", "503"):
        found["Retry-After"] = _header("Seconds.", required=True, kind="integer")
    if status == "409" and one.idempotent:
        found["Retry-After"] = _header("Seconds; where the code is `in_flight`.", kind="integer")
    return found


def _header(description: str, *, required: bool = False, kind: str = "string") -> dict[str, Any]:
    return {"description": description, "required": required, "schema": {"type": kind}}


_IDEMPOTENCY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key with the same body replays the first answer.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", path)
    ]


def _query_parameters(one: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "required": False, **_described(said)}
        for name, said in one.query.items()
    ]


def _described(said: str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(said, str):
        return {"description": said, "schema": {"type": "string"}}
    schema = dict(said)
    return {"description": schema.pop("description", ""), "schema": schema}


def _json(model: type[Any], media: str = "application/json") -> dict[str, Any]:
    return {media: {"schema": {"$ref": _REF.format(name=model.__name__)}}}


def _said(one: Operation, status: int) -> str:
    if status == 200 and 201 in one.replies:
        return "It was there already, and nothing was changed."
    return _DONE.get(status, "Done.")


def _reply(said: str, model: type[Any], media: str) -> dict[str, Any]:
    if model is Nothing:
        return {"description": said}
    if model is str:
        return {"description": said, "content": {media: {"schema": {"type": "string"}}}}
    return {"description": said, "content": _json(model, media)}


def _exact_numbers(components: dict[str, Any]) -> None:
    """Amounts are written as exact JSON text; to a reader they are numbers."""
    for schema in components.values():
        for name, field in schema.get("properties", {}).items():
            if name in ("amount", "refunded_amount") and field == {}:
                schema["properties"][name] = {"type": "number"}


def _webhooks(events: Sequence[str]) -> dict[str, Any]:
    headers = [
        {"name": name, "in": "header", "required": True, "schema": {"type": "string"}}
        for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
    ]
    responses = {
        "2XX": {"description": "Received."},
        "410": {"description": "Not wanted any more: a webhook endpoint is switched off."},
        "default": {"description": "Anything else is tried again for about three days."},
    }

    def sent(name: str, summary: str, tag: str, model: type[Any]) -> dict[str, Any]:
        told = {"parameters": headers, "requestBody": {"required": True, "content": _json(model)}}
        return {
            "post": {"summary": summary, "operationId": name, "tags": [tag], **told, "responses": responses}
        }

    made = {
        kind: sent(
            f"webhook_{kind.replace('.', '_')}",
            f"`{kind}`, as webhook endpoints are sent it, signed by Standard Webhooks",
            "Events",
            schemas_v1.EventV1,
        )
        for kind in events
    }
    said = "What a callback_url is sent, signed by Standard Webhooks"
    return {"callback": sent("callback", said, "Callbacks", schemas.Callback), **made}
