"""What Xendit keeps, and by which rules: payment requests, payments, refunds. Its clock is given."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tillgate.simulation import SimulatorError, qris

# channel: least and most rupiah, seconds until it expires, days in which it can be refunded (0: never)
CHANNELS = {
    "QRIS": (1, 10_000_000, 48 * 3600, 7),
    "GOPAY": (1, 50_000_000, 1800, 45),
    "OVO": (100, 20_000_000, 54, 0),
    "DANA": (100, 20_000_000, 86_400, 30),
    "SHOPEEPAY": (1, 20_000_000, 1800, 365),
}
REFUNDING_ISSUERS = {"GOPAY", "OVO", "DANA", "SHOPEEPAY"}
"""Whose QRIS payments can be refunded; most banks are not on the list."""

REASONS = {"FRAUDULENT", "DUPLICATE", "REQUESTED_BY_CUSTOMER", "CANCELLATION", "OTHERS"}
MAGIC = {
    10100: (403, "INVALID_MERCHANT_SETTINGS"),
    10101: (503, "CHANNEL_UNAVAILABLE"),
    10102: (500, "SERVER_ERROR"),
}
"""Amounts that fail in test mode on the e-wallet rails."""


class XenditError(SimulatorError):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass
class Paid:
    id: str
    amount: int
    issuer: str
    at: float


@dataclass
class Refund:
    id: str
    request_id: str
    reference_id: str
    amount: int
    reason: str
    at: float
    status: str = "PENDING"
    failure_code: str | None = None


@dataclass
class Request:
    id: str
    reference_id: str
    amount: int
    channel: str
    properties: dict[str, Any]
    metadata: dict[str, Any]
    created: float
    expires: float
    status: str
    actions: list[dict[str, str]]
    payments: list[Paid] = field(default_factory=list)
    failure_code: str | None = None


class Desk:
    """One business at Xendit, in test mode."""

    def __init__(self, clock: Callable[[], float], page_url: Callable[[str], str]) -> None:
        self._clock, self._page_url = clock, page_url
        self.requests: dict[str, Request] = {}
        self._payments: dict[str, tuple[Request, Paid]] = {}
        self._by_reference: dict[str, list[Request]] = defaultdict(list)  # it need not be unique
        self.refunds: dict[str, Refund] = {}
        self.altered: dict[str, dict[str, Any] | None] = {}  # by payment or refund id; None: not listed
        self.unknown: list[dict[str, Any]] = []  # rows of the statement that nobody here made

    # --- payment requests ---

    def create(self, asked: dict[str, Any]) -> Request:
        reference, channel = asked.get("reference_id"), asked.get("channel_code")
        amount, properties = asked.get("request_amount"), asked.get("channel_properties") or {}
        if not isinstance(reference, str) or not 1 <= len(reference) <= 255:
            raise invalid("reference_id is required")
        fixed = (asked.get("type"), asked.get("country"), asked.get("currency"), asked.get("capture_method"))
        if fixed != ("PAY", "ID", "IDR", "AUTOMATIC"):
            raise invalid("type, country, currency or capture_method is not supported")
        if channel not in CHANNELS:
            raise XenditError(400, "INVALID_VALUE_ERROR", f"channel_code {channel} is not supported")
        least, most, seconds, _ = CHANNELS[channel]
        if type(amount) is not int or not least <= amount <= most:
            raise invalid(f"request_amount must be a number from {least} to {most}")
        metadata = asked.get("metadata") or {}
        if not isinstance(metadata, dict) or len(metadata) > 50 or not isinstance(properties, dict):
            raise invalid("metadata or channel_properties is not valid")
        if channel == "QRIS" and "expires_at" in properties:
            raise invalid("expires_at is not supported by channel 'QRIS'")
        if channel == "OVO" and not str(properties.get("mobile_number", "")).startswith("+62"):
            raise invalid("channel_properties.mobile_number is required")
        if channel in ("GOPAY", "DANA", "SHOPEEPAY") and not properties.get("success_return_url"):
            raise invalid("channel_properties.success_return_url is required")
        if channel != "QRIS" and amount in MAGIC:
            status, code = MAGIC[amount]
            raise XenditError(status, code, "as this amount asks for")
        name, now = f"pr-{uuid.uuid4()}", self._clock()
        made = Request(
            name, reference, amount, channel, properties, metadata, now, now + seconds, "REQUIRES_ACTION",
            self._actions(channel, name, amount),
        )  # fmt: skip
        self.requests[name] = made
        self._by_reference[reference].append(made)
        return made

    def _actions(self, channel: str, name: str, amount: int) -> list[dict[str, str]]:
        if channel == "QRIS":
            return [
                {
                    "type": "PRESENT_TO_CUSTOMER",
                    "descriptor": "QR_STRING",
                    "value": qris("XENDIT", name, amount),
                }
            ]
        if channel == "OVO":
            return []
        return [{"type": "REDIRECT_CUSTOMER", "descriptor": "WEB_URL", "value": self._page_url(name)}]

    def request(self, name: str) -> Request:
        found = self.requests.get(name)
        if found is None:
            raise XenditError(404, "DATA_NOT_FOUND", "payment request not found")
        if found.status == "REQUIRES_ACTION" and self._clock() >= found.expires:
            found.status = "EXPIRED"
        return found

    def by_qr(self, text: str) -> Request | None:
        return next(
            (one for one in self.requests.values() if one.actions and one.actions[0]["value"] == text), None
        )

    def cancel(self, name: str) -> Request:
        found = self.request(name)
        if found.status != "REQUIRES_ACTION":
            raise XenditError(400, "INVALID_VALUE_ERROR", f"a payment request that is {found.status}")
        found.status = "CANCELED"
        return found

    # --- the payer ---

    def pay(self, name: str, amount: int | None = None, issuer: str = "") -> Paid:
        """A payer's wallet pays. A QRIS code takes money for 48 hours, whatever was cancelled meanwhile."""
        found = self.request(name)
        late = found.status != "REQUIRES_ACTION"
        if found.channel != "QRIS" and late:
            raise XenditError(400, "INVALID_VALUE_ERROR", f"a payment request that is {found.status}")
        wallet = issuer or str(found.metadata.get("wallet_id", "gopay"))
        who = wallet.upper() if found.channel == "QRIS" else found.channel
        paid = Paid(f"py-{uuid.uuid4()}", found.amount if amount is None else amount, who, self._clock())
        found.payments.append(paid)
        self._payments[paid.id] = found, paid
        if not late:
            found.status = "SUCCEEDED"
        return paid

    def fail(self, name: str, code: str = "USER_DECLINED_PAYMENT") -> Request:
        found = self.request(name)
        if found.status != "REQUIRES_ACTION":
            raise XenditError(400, "INVALID_VALUE_ERROR", f"a payment request that is {found.status}")
        found.status, found.failure_code = "FAILED", code
        return found

    def expire(self, name: str) -> Request:
        found = self.request(name)
        if found.status == "REQUIRES_ACTION":
            found.status, found.expires = "EXPIRED", self._clock()
        return found

    def payment(self, name: str) -> tuple[Request, Paid]:
        found = self._payments.get(name)
        if found is None:
            raise XenditError(404, "DATA_NOT_FOUND", "payment not found")
        return found

    def referred(self, reference: str) -> list[Request]:
        return list(self._by_reference.get(reference, ()))

    # --- refunds ---

    def refund(self, asked: dict[str, Any]) -> Refund:
        request = self.request(str(asked.get("payment_request_id")))
        reference, reason = asked.get("reference_id"), asked.get("reason")
        taken = sum(one.amount for one in request.payments)
        amount = asked.get("amount", taken)
        if reason not in REASONS:
            raise invalid(f"reason must be one of {', '.join(sorted(REASONS))}")
        if type(amount) is not int or amount < 1 or not isinstance(reference, str) or not reference:
            raise invalid("amount or reference_id is not valid")
        if not request.payments:
            raise XenditError(400, "INELIGIBLE_TRANSACTION_STATUS", "the payment is not successful")
        days = CHANNELS[request.channel][3]
        if not days or (request.channel == "QRIS" and request.payments[0].issuer not in REFUNDING_ISSUERS):
            raise XenditError(403, "REFUND_NOT_SUPPORTED", "refunds are not supported for this payment")
        if self._clock() > request.payments[0].at + days * 86_400:
            raise XenditError(400, "INELIGIBLE_TRANSACTION_STATUS", "the refund period is over")
        mine = [one for one in self.refunds.values() if one.request_id == request.id]
        if any(one.status == "PENDING" for one in mine):
            raise XenditError(400, "REFUND_IN_PROGRESS", "another refund is in progress")
        if amount + sum(one.amount for one in mine if one.status == "SUCCEEDED") > taken:
            raise XenditError(400, "REFUND_AMOUNT_EXCEEDED", "the amount exceeds what is left")
        made = Refund(f"rfd-{uuid.uuid4()}", request.id, reference, amount, reason, self._clock())
        self.refunds[made.id] = made
        return made

    # --- the statement ---

    def transactions(self) -> list[dict[str, Any]]:
        """What moved, newest first, as the list of transactions has it; `altered` changes or hides rows."""
        rows = []
        for one in self.requests.values():
            for paid in one.payments:
                found = self._moved("PAYMENT", paid.id, one, paid.amount, paid.at)
                rows.append({**found, "reference_id": one.reference_id, "cashflow": "MONEY_IN"})
        for back in self.refunds.values():
            if back.status == "SUCCEEDED":
                found = self._moved("REFUND", back.id, self.requests[back.request_id], back.amount, back.at)
                rows.append({**found, "reference_id": back.reference_id, "cashflow": "MONEY_OUT"})
        rows += self.unknown
        changed = [(row, self.altered.get(str(row["product_id"]), {})) for row in rows]
        kept = [{**row, **change} for row, change in changed if change is not None]
        return sorted(kept, key=lambda row: (row["created"], row["id"]), reverse=True)

    def _moved(self, kind: str, name: str, one: Request, amount: int, at: float) -> dict[str, Any]:
        fee = amount * 7 // 1000 if kind == "PAYMENT" else 0
        return {
            "id": "txn_" + name.partition("-")[2],
            "product_id": name,
            "type": kind,
            "status": "SUCCESS",
            "channel_category": "QR_CODE" if one.channel == "QRIS" else "EWALLET",
            "channel_code": one.channel,
            "account_identifier": None,
            "currency": "IDR",
            "amount": amount,
            "net_amount": amount - fee,
            "settlement_status": "SETTLED",
            "estimated_settlement_time": stamp(at + 86_400),
            "created": stamp(at),
            "updated": stamp(at),
            "fee": {
                "xendit_fee": fee,
                "value_added_tax": 0,
                "xendit_withholding_tax": 0,
                "third_party_withholding_tax": 0,
                "status": "COMPLETED",
            },
        }

    # --- as JSON ---

    def shown(self, one: Request) -> dict[str, Any]:
        found: dict[str, Any] = {
            "business_id": "6094fa76c2fd53701b8e079c",
            "reference_id": one.reference_id,
            "payment_request_id": one.id,
            "type": "PAY",
            "country": "ID",
            "currency": "IDR",
            "request_amount": one.amount,
            "capture_method": "AUTOMATIC",
            "channel_code": one.channel,
            "channel_properties": one.properties,
            "actions": one.actions,
            "status": one.status,
            "metadata": one.metadata,
            "created": stamp(one.created),
            "updated": stamp(self._clock()),
        }
        if one.payments:
            found["latest_payment_id"] = one.payments[-1].id
        if one.failure_code:
            found["failure_code"] = one.failure_code
        return found

    def shown_payment(self, one: Request, paid: Paid) -> dict[str, Any]:
        return {
            "payment_id": paid.id,
            "business_id": "6094fa76c2fd53701b8e079c",
            "status": "SUCCEEDED",
            "payment_request_id": one.id,
            "request_amount": one.amount,
            "channel_code": one.channel,
            "country": "ID",
            "currency": "IDR",
            "reference_id": one.reference_id,
            "type": "PAY",
            "captures": [
                {
                    "capture_id": "cptr-" + paid.id[3:],
                    "capture_amount": paid.amount,
                    "capture_timestamp": stamp(paid.at),
                }
            ],
            "payment_details": {"issuer_name": paid.issuer, "receipt_id": paid.id[3:15]},
            "created": stamp(paid.at),
            "updated": stamp(paid.at),
        }


def shown_refund(one: Refund) -> dict[str, Any]:
    return {
        "id": one.id,
        "payment_request_id": one.request_id,
        "reference_id": one.reference_id,
        "currency": "IDR",
        "amount": one.amount,
        "status": one.status,
        "reason": one.reason,
        "failure_code": one.failure_code,
        "refund_fee_amount": 0,
        "created": stamp(one.at),
        "updated": stamp(one.at),
    }


def invalid(message: str) -> XenditError:
    return XenditError(400, "API_VALIDATION_ERROR", message)


def stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
