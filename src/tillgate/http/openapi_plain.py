"""What is served beside the JSON operations: pages, pictures, providers' messages, health."""

from __future__ import annotations

from typing import Any, Final

_TEXT: Final = {"type": "string"}
_PAYMENT: Final = {"name": "payment_id", "in": "path", "required": True, "schema": _TEXT}
_ACCOUNT: Final = {"name": "account_id", "in": "path", "required": True, "schema": _TEXT}
_HEALTH: Final = {
    "type": "object",
    "properties": {"status": _TEXT, "reason": _TEXT},
    "required": ["status"],
}

_REFUSED: Final = {"type": "object", "properties": {"error": _TEXT}, "required": ["error"]}


def _get(name: str, summary: str, tag: str, responses: dict[str, Any], *parameters: Any) -> dict[str, Any]:
    made = {"operationId": name, "summary": summary, "tags": [tag], "responses": responses}
    return {"get": {**made, "parameters": list(parameters)} if parameters else made}


def _is(description: str, *media: str, schema: Any = None) -> dict[str, Any]:
    body = {"schema": _TEXT if schema is None else schema}
    return {"description": description, "content": dict.fromkeys(media, body)}


_FAILED: Final = {
    # A page to a browser, JSON to a program, words to whoever wanted a picture.
    status: _is(said, "text/html", "application/json", "text/plain", schema={})
    for status, said in (
        ("404", "There is no such payment."),
        ("429", "Too many requests."),
        ("503", "Try again later."),
    )
}
_ANY_BODY: Final[dict[str, Any]] = {"requestBody": {"content": {"*/*": {}}}}


def _inbound(name: str) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": "A provider's message, in the provider's dialect; verified on its raw bytes",
        "tags": ["Providers"],
        "parameters": [_ACCOUNT],
        "responses": {"default": {"description": "The provider's dialect."}},
    }


_CODE: Final = {"name": "code", "in": "path", "required": True, "schema": _TEXT}
_HEALTHY: Final = _is("Yes.", "application/json", schema=_HEALTH)


def paths(*, sandbox: bool, metrics: bool) -> dict[str, Any]:
    """Path items. Pages and pictures are public: whoever holds a payment's id may see its page."""
    found: dict[str, Any] = {
        "/pay/{payment_id}": _get(
            "checkout",
            "A page to a browser, a PNG to `<img>`, the state to a program (by Accept)",
            "Checkout",
            {
                "200": _is("The code to scan.", "text/html", "image/png", "application/json", schema={}),
                "304": {"description": "The state did not move."},
                **_FAILED,
            },
            _PAYMENT,
        ),
        "/pay/{payment_id}.png": _get(
            "checkout_png",
            "The QR code as PNG",
            "Checkout",
            {"200": _is("The picture.", "image/png", schema={}), **_FAILED},
            _PAYMENT,
        ),
        "/pay/{payment_id}.svg": _get(
            "checkout_svg",
            "The QR code as SVG",
            "Checkout",
            {"200": _is("The picture.", "image/svg+xml"), **_FAILED},
            _PAYMENT,
        ),
        "/pay/{payment_id}/state": _get(
            "checkout_state",
            "What the page's script polls",
            "Checkout",
            {
                "200": _is("The state.", "application/json", schema={"type": "object"}),
                "304": {"description": "The state did not move."},
                **_FAILED,
            },
            _PAYMENT,
        ),
        "/pay/{payment_id}/events": _get(
            "checkout_events",
            "The same as server-sent events",
            "Checkout",
            {"200": _is("Events until the payment ends.", "text/event-stream"), **_FAILED},
            _PAYMENT,
        ),
        "/l/{code}": {
            **_get(
                "link",
                "A payment link: a page to a browser, a PNG to `<img>`",
                "Checkout",
                {
                    "200": _is("The page.", "text/html", "image/png", schema={}),
                    "303": {"description": "To the payment that it is about."},
                    "410": _is("It takes no more payments.", "text/html", "application/json", schema={}),
                    **_FAILED,
                },
                _CODE,
            ),
            "post": {
                "operationId": "use_link",
                "summary": "What the payer chose: opens a payment and leads to its page",
                "tags": ["Checkout"],
                "parameters": [_CODE],
                "requestBody": {
                    "content": {
                        "application/x-www-form-urlencoded": {
                            "schema": {
                                "type": "object",
                                "properties": {"amount": _TEXT, "channel": _TEXT, "use": _TEXT},
                            }
                        }
                    }
                },
                "responses": {
                    "303": {"description": "To the payment's page."},
                    "400": _is("That is no such form.", "text/html", schema={}),
                    "410": _is("It takes no more payments.", "text/html", schema={}),
                    "422": _is("The page again, with what is wrong.", "text/html", schema={}),
                    **_FAILED,
                },
            },
        },
        "/l/{code}.png": _get(
            "link_png",
            "The QR code of a payment link as PNG",
            "Checkout",
            {"200": _is("The picture.", "image/png", schema={}), **_FAILED},
            _CODE,
        ),
        "/l/{code}.svg": _get(
            "link_svg",
            "The QR code of a payment link as SVG",
            "Checkout",
            {"200": _is("The picture.", "image/svg+xml"), **_FAILED},
            _CODE,
        ),
        "/in/{account_id}": {
            "get": _inbound("inbound_get"),
            "post": _inbound("inbound") | _ANY_BODY,
            "put": _inbound("inbound_put") | _ANY_BODY,
        },
        "/healthz": _get("healthz", "Whether the process lives", "Operations", {"200": _HEALTHY}),
        "/readyz": _get(
            "readyz",
            "Whether it can take money: the store answers and has this version's tables",
            "Operations",
            {"200": _HEALTHY, "503": _is("Not now.", "application/json", schema=_HEALTH)},
        ),
        "/openapi.json": _get(
            "openapi",
            "This document",
            "Operations",
            {"200": _is("OpenAPI 3.1.", "application/json", schema={"type": "object"})},
        ),
    }
    if metrics:
        found["/metrics"] = _get(
            "metrics",
            "Figures of this process and of the whole hub, for Prometheus",
            "Operations",
            {
                "200": _is("Prometheus' text format.", "text/plain"),
                "401": _is("Not without `TILLGATE_METRICS_TOKEN`.", "application/json", schema=_REFUSED),
            },
        )
    if sandbox:
        found["/sandbox/pay/{payment_id}/{action}"] = {
            "post": {
                "operationId": "sandbox_button",
                "summary": "The buttons on the checkout page: whoever holds the page may play its payer",
                "tags": ["Sandbox"],
                "parameters": [
                    _PAYMENT,
                    {
                        "name": "action",
                        "in": "path",
                        "required": True,
                        "schema": {"enum": ["pay", "fail", "expire", "pay-late"]},
                    },
                ],
                "responses": {
                    "303": {"description": "Back to the page."},
                    "404": _is("There is no such payment.", "text/plain"),
                    "503": _is("Try again later.", "text/plain"),
                },
            }
        }
    return found
