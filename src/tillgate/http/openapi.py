"""The OpenAPI 3.1 document, made from what the operations declare."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from tillgate import schemas
from tillgate.http.operation import Operation

_WORDS: Final = {
    400: "The request is malformed.",
    401: "The credentials or the token are missing, wrong or expired.",
    404: "There is no such thing here.",
    405: "This path does not take that method.",
    409: "The state of the object does not allow that.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    422: "The Idempotency-Key was used with another request.",
    429: "Too many requests.",
    500: "An unexpected error.",
    503: "Nothing was changed; try again later.",
}
_REF: Final = "#/components/schemas/{name}"


def document(operations: Iterable[Operation], *, version: str, url: str) -> dict[str, Any]:
    listed = list(operations)
    models: set[Any] = {schemas.ErrorOut, schemas.Callback}
    for one in listed:
        models |= {*one.replies.values(), *([one.body] if one.body else ())}
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
            "description": "One till for every way to pay.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": url}],
        "paths": paths,
        "webhooks": _webhooks(),
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
        "responses": {str(status): _reply(model) for status, model in one.replies.items()},
        "parameters": [*_path_parameters(one.paths[number]), *_query_parameters(one)],
    }
    if one.auth:
        made["security"] = [{"token": []}]
    if one.idempotent:
        made["parameters"].append(_IDEMPOTENCY)
    if one.body is not None:
        made["requestBody"] = {"required": True, "content": _json(one.body)}
    for status in sorted({*one.errors, 500}):
        made["responses"][str(status)] = {"description": _WORDS[status], "content": _json(schemas.ErrorOut)}
    return made


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
        {"name": name, "in": "query", "required": False, "description": text, "schema": {"type": "string"}}
        for name, text in one.query.items()
    ]


def _json(model: type[Any]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(name=model.__name__)}}}


def _reply(model: type[Any]) -> dict[str, Any]:
    return {"description": "Done.", "content": _json(model)}


def _exact_numbers(components: dict[str, Any]) -> None:
    """Amounts are written as exact JSON text; to a reader they are numbers."""
    for schema in components.values():
        for name, field in schema.get("properties", {}).items():
            if name in ("amount", "refunded_amount") and field == {}:
                schema["properties"][name] = {"type": "number"}


def _webhooks() -> dict[str, Any]:
    headers = [
        {"name": name, "in": "header", "required": True, "schema": {"type": "string"}}
        for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
    ]
    return {
        "callback": {
            "post": {
                "summary": "What a callback_url is sent, signed by Standard Webhooks",
                "operationId": "callback",
                "tags": ["Callbacks"],
                "parameters": headers,
                "requestBody": {"required": True, "content": _json(schemas.Callback)},
                "responses": {
                    "2XX": {"description": "Received. Anything else is tried again for about three days."}
                },
            }
        }
    }
