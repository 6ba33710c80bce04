"""The control API's OpenAPI document, made from the structs that the handlers use."""

from typing import Any, Final, NamedTuple

import msgspec

from tillgate.providers.mobypay import control_schemas as s
from tillgate.providers.mobypay.lifecycle import State


class Operation(NamedTuple):
    """One endpoint: what it takes, what it answers, and how it can refuse."""

    method: str
    path: str
    summary: str
    answer: type[Any] | None
    status: int = 200
    body: type[Any] | None = None
    parameters: tuple[str, ...] = ()
    refusals: tuple[int, ...] = ()


ANY: Final = (404, 409, 422, 503)

OPERATIONS: Final = (
    Operation(
        "post", "/payments", "Take a payment", s.PaymentOut, 201, s.PaymentIn, ("Idempotency-Key",), ANY
    ),
    Operation(
        "get",
        "/payments",
        "List payments, newest first",
        s.PaymentPage,
        parameters=("limit", "before", "state"),
        refusals=(422,),
    ),
    Operation(
        "get",
        "/payments/{txn_id}",
        "A payment; with wait, once it has changed",
        s.PaymentOut,
        parameters=("txn_id", "wait", "version"),
        refusals=(404, 422),
    ),
    Operation(
        "post",
        "/payments/{txn_id}/cancel",
        "Ask the terminal to stop",
        s.PaymentOut,
        parameters=("txn_id",),
        refusals=(404, 409, 503),
    ),
    Operation(
        "post",
        "/payments/{txn_id}/plan",
        "Choose an instalment plan",
        s.PaymentOut,
        body=s.PlanIn,
        parameters=("txn_id",),
        refusals=ANY,
    ),
    Operation(
        "post",
        "/payments/{txn_id}/settle",
        "Say what became of an unknown or disputed payment",
        s.PaymentOut,
        body=s.SettleIn,
        parameters=("txn_id",),
        refusals=ANY,
    ),
    Operation("get", "/terminals", "List terminals", s.TerminalList),
    Operation(
        "post", "/terminals", "Enrol a terminal", s.TerminalOut, 201, s.TerminalIn, refusals=(409, 422, 503)
    ),
    Operation("get", "/alerts", "What a person has to look at", s.AlertList),
    Operation(
        "post",
        "/alerts/{number}/close",
        "An alert has been dealt with",
        None,
        204,
        parameters=("number",),
        refusals=(422, 503),
    ),
    Operation(
        "get",
        "/events",
        "The feed of everything that happened to payments",
        s.EventPage,
        parameters=("after", "limit"),
        refusals=(422,),
    ),
    Operation("get", "/status", "The kiosk at a glance", s.StatusOut),
    Operation("get", "/healthz", "Alive", None, 204),
    Operation("get", "/openapi.json", "This document", None, 200),
)
OPEN_PATHS: Final = frozenset({"/healthz", "/openapi.json"})

_WORDS: Final = {
    401: "No or a wrong token",
    404: "Not found",
    409: "Refused",
    422: "Malformed",
    503: "Journal down",
}
_PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "txn_id": {"in": "path", "required": True, "schema": {"type": "string"}},
    "number": {"in": "path", "required": True, "schema": {"type": "integer", "minimum": 1}},
    "Idempotency-Key": {"in": "header", "schema": {"type": "string", "minLength": 1, "maxLength": 255}},
    "limit": {"in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}},
    "before": {"in": "query", "schema": {"type": "integer", "minimum": 1}},
    "after": {"in": "query", "schema": {"type": "integer", "minimum": 0, "default": 0}},
    "state": {"in": "query", "schema": {"type": "string", "enum": [state.value for state in State]}},
    "wait": {"in": "query", "schema": {"type": "number", "minimum": 0, "maximum": 60, "default": 0}},
    "version": {"in": "query", "schema": {"type": "integer", "minimum": 0}},
}


def openapi() -> dict[str, Any]:
    """OpenAPI 3.1."""
    shapes = {op.answer for op in OPERATIONS} | {op.body for op in OPERATIONS} | {s.Problem}
    structs = sorted((shape for shape in shapes if shape is not None), key=lambda shape: shape.__name__)
    _, components = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    components["PaymentIn"]["properties"]["amount"] = {
        "description": "Ringgit, at most two decimals.",
        "oneOf": [
            {"type": "string", "pattern": r"^[0-9]{1,12}(\.[0-9]{1,2})?$"},
            {"type": "number", "exclusiveMinimum": 0},
        ],
    }
    components["PaymentOut"]["properties"]["plans"] = {
        "description": "The plans as the terminal sent them.", "type": ["array", "null"],
    }  # fmt: skip
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tillgate kiosk control", "version": "1", "description": "Loopback only."},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _described(operation: Operation) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": operation.summary}
    if operation.answer is not None:
        answer["content"] = {"application/json": {"schema": _ref(operation.answer)}}
    described: dict[str, Any] = {"summary": operation.summary, "responses": {str(operation.status): answer}}
    if operation.body is not None:
        content = {"application/json": {"schema": _ref(operation.body)}}
        described["requestBody"] = {"required": True, "content": content}
    if operation.parameters:
        described["parameters"] = [{"name": name, **_PARAMETERS[name]} for name in operation.parameters]
    if operation.path in OPEN_PATHS:
        return {**described, "security": []}
    problem = {"application/problem+json": {"schema": _ref(s.Problem)}}
    for status in (401, *operation.refusals):
        described["responses"][str(status)] = {"description": _WORDS[status], "content": problem}
    return described


def _ref(shape: type[Any]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{shape.__name__}"}
