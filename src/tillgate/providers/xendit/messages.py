"""What Xendit's objects say of ours: whom they are about, what to show, how a refund stands."""

from __future__ import annotations

import re
from typing import Any, Final

from tillgate.domain.errors import InvalidRequest, Unsure
from tillgate.domain.payment import RefundAccepted, RefundFact, RefundFailed, RefundSucceeded
from tillgate.providers.xendit import codes, wire
from tillgate.providers.xendit.config import Rail
from tillgate.spi import Order, Show

_PHONE: Final = re.compile(r"(?:\+62|62|0)(8\d{7,12})", re.ASCII)
_CLUE: Final = re.compile(r"[A-Za-z0-9-]{4,64}", re.ASCII)


def about(order: Order, found: dict[str, Any]) -> bool:
    named = wire.identifier(found, "payment_request_id")
    return wire.text(found, "reference_id") == order.operation_id and order.external_id in (None, named)


def clues(order: Order) -> list[str]:
    details = wire.json_object(order.details.encode()) if order.details else None
    found = (details or {}).get("clues", [])
    return [one for one in found if isinstance(one, str) and _CLUE.fullmatch(one)]


def show(found: dict[str, Any], one: Rail) -> Show | None:
    """What the payer is shown: Xendit's `actions`."""
    for action in wire.parts(found, "actions"):
        kind, value = wire.text(action, "descriptor"), wire.text(action, "value")
        if kind == "QR_STRING" and value and len(value) <= 1024:
            return Show("qr", qr_string=value)
        if kind in ("WEB_URL", "DEEPLINK_URL", "WEB_GENERIC_URL") and re.match(
            r"[a-z][a-z0-9+.-]*://", value
        ):
            app = not value.startswith(("https://", "http://")) or kind == "DEEPLINK_URL"
            return Show("app" if app else "redirect", url=value[:2048])
    return Show("wait") if one.kind == "push" else None


def phone(order: Order) -> str:
    """The payer's phone in +62 form. Raises `InvalidRequest`."""
    given = str(order.metadata.get("customer_phone") or "")
    found = _PHONE.fullmatch(re.sub(r"[ .-]", "", given))
    if found is None:
        raise InvalidRequest("this wallet needs metadata.customer_phone, as +628…", param="customer_phone")
    return f"+62{found[1]}"


def refund_fact(found: dict[str, Any]) -> RefundFact:
    name = wire.identifier(found, "id") or None
    match wire.text(found, "status"):
        case "SUCCEEDED":
            return RefundSucceeded(name)
        case "FAILED" | "CANCELLED" | "CANCELED":
            return RefundFailed(codes.explain(wire.text(found, "failure_code"), "", codes.ERRORS))
        case "PENDING":
            return RefundAccepted(name)
    raise Unsure("Xendit's refund has a status that is not known")
