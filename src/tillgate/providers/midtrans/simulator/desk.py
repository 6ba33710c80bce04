"""What Midtrans keeps, and by which rules: transactions and their refunds. Its clock is given."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from tillgate.simulation import SimulatorError, qris

MERCHANT_ID = "G141532850"
WIB = timezone(timedelta(hours=7))
MOST = {"qris": 10_000_000, "gopay": 20_000_000, "shopeepay": 20_000_000, "ovo": 99_999_999}
UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
PHONES = {
    "+628249134000": "unregistered",
    "+628271939753": "cancel",
    "+628242014881": "push_failed",
    "+628237435829": "failed",
    "+628215023424": "pending",
    "+628242974268": "expire",
}
"""OVO numbers that do something else than pay."""

REPORT = (
    "Type", "Transaction ID", "Order ID", "Refund Key", "Payment Type", "Amount", "Fee", "Time",
    "Settlement Date",
)  # fmt: skip
"""The columns of the report, in their order."""


class MidtransError(SimulatorError):
    """`code` is the body's; HTTP says the same, or 200 where the manual shows it so."""

    def __init__(self, code: int, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.code, self.status = code, status or code


@dataclass
class Refund:
    key: str
    amount: int
    reason: str
    at: float
    number: int
    confirmed_at: float | None = None


@dataclass
class Transaction:
    id: str
    order_id: str
    amount: int
    type: str
    created: float
    expires: float
    status: str = "pending"
    fraud: str = "accept"
    gross: str = ""  # as it is printed: "150000.00"
    acquirer: str = ""
    issuer: str = ""
    phone: str = ""
    wallet: str = ""  # what the merchant says that the payer chose
    notify: list[str] = field(default_factory=list)
    settled: float | None = None
    refunds: list[Refund] = field(default_factory=list)
    qr: str = ""
    scanned: bool = False


class Desk:
    """One merchant at Midtrans, in its sandbox."""

    def __init__(self, clock: Callable[[], float], page_url: Callable[[str], str]) -> None:
        self._clock, self._page_url = clock, page_url
        self.transactions: dict[str, Transaction] = {}
        self._by_order: dict[str, Transaction] = {}
        self.altered: dict[
            str, dict[str, Any] | None
        ] = {}  # by transaction id or refund key; None: not listed
        self.unknown: list[dict[str, Any]] = []  # rows of the report that nobody here made
        self.refunds_allowed = True
        self.inactive: set[str] = set()  # payment types that are not switched on

    def charge(self, asked: dict[str, Any], notify: list[str]) -> Transaction:
        kind = asked.get("payment_type")
        details = asked.get("transaction_details")
        if kind not in MOST or not isinstance(details, dict):
            raise MidtransError(400, "One or more parameters in the payload is invalid.")
        if kind in self.inactive:
            raise MidtransError(402, "Merchant doesn't have access for this payment type")
        order_id, amount = details.get("order_id"), details.get("gross_amount")
        if not isinstance(order_id, str) or not re.fullmatch(r"[A-Za-z0-9_~.-]{1,50}", order_id):
            raise MidtransError(400, "transaction_details.order_id is not valid")
        if type(amount) is not int or not 1 <= amount <= MOST[kind]:
            raise MidtransError(400, "transaction_details.gross_amount is not between 1 and the limit")
        if order_id in self._by_order:
            raise MidtransError(406, "The request could not be completed due to a conflict: order_id is used")
        made = Transaction(str(uuid.uuid4()), order_id, amount, kind, self._clock(), 0, notify=notify)
        made.expires = made.created + self._seconds(asked, kind)
        made.gross, made.wallet = f"{amount}.00", str(asked.get("custom_field1", ""))
        if kind == "qris":
            made.acquirer = str((asked.get("qris") or {}).get("acquirer", "gopay"))
        if kind in ("qris", "gopay"):
            made.qr = qris("MIDTRANS", made.id, amount)
        if kind == "shopeepay" and not (asked.get("shopeepay") or {}).get("callback_url"):
            raise MidtransError(400, "shopeepay.callback_url is required")
        if kind == "ovo":
            made.phone = str((asked.get("ovo") or {}).get("payer_phone_number", ""))
            if not re.fullmatch(r"\+62\d{8,13}", made.phone):
                raise MidtransError(400, "ovo.payer_phone_number is not valid")
            if PHONES.get(made.phone) == "unregistered":
                raise MidtransError(404, "The phone number is not registered", 200)
        self.transactions[made.id] = self._by_order[order_id] = made
        return made

    def _seconds(self, asked: dict[str, Any], kind: str) -> float:
        expiry = asked.get("custom_expiry")
        if kind == "ovo":
            return 65
        if expiry is None:
            return 900
        try:
            begun = datetime.strptime(expiry["order_time"], "%Y-%m-%d %H:%M:%S %z").timestamp()
            seconds = int(expiry["expiry_duration"]) * UNITS[expiry["unit"]]
        except (KeyError, TypeError, ValueError):
            raise MidtransError(400, "custom_expiry is not valid") from None
        if not 20 <= seconds <= 7 * 86_400 or abs(begun - self._clock()) > 3600:
            raise MidtransError(400, "custom_expiry is not valid")
        return begun + seconds - self._clock()

    def find(self, name: str) -> Transaction:
        """By order id or transaction id."""
        one = self.transactions.get(name) or self._by_order.get(name)
        if one is not None:
            if one.status == "pending" and self._clock() >= one.expires:
                one.status = "expire"
            return one
        raise MidtransError(404, "Transaction doesn't exist.", 200)

    def by_qr(self, text: str) -> Transaction | None:
        return next((one for one in self.transactions.values() if one.qr and one.qr == text), None)

    def close(self, name: str, status: str) -> Transaction:
        found = self.find(name)
        if found.status != "pending":
            raise MidtransError(412, "Merchant cannot modify the status of the transaction", 200)
        found.status = status
        return found

    # --- the payer ---

    def pay(
        self, name: str, issuer: str = "", *, late: bool = False, amount: int | None = None
    ) -> Transaction:
        """`late`: the wallet was quicker than the closing that Midtrans has just noted."""
        found = self.find(name)
        if found.status != "pending" and not (late and found.status in ("expire", "cancel")):
            raise MidtransError(407, f"the transaction is {found.status}")
        found.status, found.settled = "settlement", self._clock()
        found.gross = f"{found.amount if amount is None else amount}.00"
        if found.type in ("qris", "gopay"):
            found.issuer = (issuer or found.wallet or "gopay").lower()
            found.scanned = found.type == "gopay" and bool(issuer)
        return found

    # --- refunds ---

    def refund(self, name: str, asked: dict[str, Any]) -> tuple[Transaction, Refund]:
        found = self.find(name)
        key, amount = asked.get("refund_key"), asked.get("amount")
        if (
            not isinstance(key, str)
            or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", key)
            or type(amount) is not int
        ):
            raise MidtransError(400, "refund_key or amount is not valid")
        known = next((one for one in found.refunds if one.key == key), None)
        if known is not None:
            if known.amount != amount:
                raise MidtransError(406, "Duplicate refund key", 200)
            return found, known
        if not self.refunds_allowed:
            raise MidtransError(412, "Refund by API is not allowed for this merchant", 200)
        if found.status not in ("settlement", "partial_refund") or found.settled is None:
            raise MidtransError(412, "Transaction status cannot be updated.", 200)
        days = {"qris": 45 if found.issuer == found.acquirer else 7, "gopay": 45, "ovo": 7, "shopeepay": 365}
        if self._clock() > found.settled + days[found.type] * 86_400:
            raise MidtransError(412, "The refund window is over", 200)
        left = found.amount - sum(one.amount for one in found.refunds)
        if found.type in ("ovo", "shopeepay") and amount != found.amount:
            raise MidtransError(412, "Partial refund is not supported", 200)
        if not 1 <= amount <= left:
            raise MidtransError(414, "Refund amount exceeds what is left", 200)
        made = Refund(key, amount, str(asked.get("reason", ""))[:255], self._clock(), len(found.refunds) + 1)
        found.refunds.append(made)
        found.status = "refund" if amount == left else "partial_refund"
        return found, made

    # --- the dashboard's report ---

    def report(self) -> list[dict[str, Any]]:
        """What moved, oldest first, in the columns that somebody ticked; `altered` changes or hides rows."""
        rows = []
        for one in self.transactions.values():
            if one.settled is None:
                continue
            paid = int(one.gross.partition(".")[0])
            rows.append(_row("Payment", one, "", paid, paid * 7 // 1000, one.settled))
            rows += [
                _row("Refund", one, back.key, -back.amount, 0, back.confirmed_at)
                for back in one.refunds
                if back.confirmed_at is not None
            ]
        rows += self.unknown
        changed = [
            (row, self.altered.get(str(row["Refund Key"] or row["Transaction ID"]), {})) for row in rows
        ]
        kept = [{**row, **change} for row, change in changed if change is not None]
        return sorted(kept, key=lambda row: str(row["Time"]))

    # --- as JSON ---

    def shown(self, one: Transaction) -> dict[str, Any]:
        """A status' and a notification's common part."""
        kind = "qris" if one.scanned else one.type
        found: dict[str, Any] = {
            "transaction_time": wib(one.created),
            "transaction_status": one.status,
            "transaction_id": one.id,
            "status_code": {"pending": "201", "expire": "407", "deny": "202", "failure": "202"}.get(
                one.status, "200"
            ),
            "payment_type": kind,
            "order_id": one.order_id,
            "merchant_id": MERCHANT_ID,
            "gross_amount": one.gross,
            "fraud_status": one.fraud,
            "currency": "IDR",
            "expiry_time": wib(one.expires),
            "custom_field1": one.wallet,
        }
        if one.settled is not None:
            found["settlement_time"] = wib(one.settled)
        if kind == "qris":
            found |= {"issuer": one.issuer, "acquirer": one.acquirer or "gopay"}
            found["transaction_type"] = "on-us" if one.issuer == found["acquirer"] else "off-us"
        if one.type == "ovo":
            found["payer_phone_number"] = one.phone
        if one.refunds:
            found["refund_amount"] = f"{sum(each.amount for each in one.refunds)}.00"
            found["refunds"] = [shown_refund(each) for each in one.refunds]
        return found

    def charged(self, one: Transaction) -> dict[str, Any]:
        """The answer to a charge."""
        found = self.shown(one)
        found |= {
            "status_code": "201",
            "status_message": "transaction is created",
            "transaction_status": "pending",
        }
        base = self._page_url(one.id)
        actions = []
        if one.qr:
            actions.append({"name": "generate-qr-code", "method": "GET", "url": f"{base}/qr-code"})
        if one.type == "qris":
            found["qr_string"] = one.qr
        if one.type in ("gopay", "shopeepay"):
            actions.append({"name": "deeplink-redirect", "method": "GET", "url": base})
        return {**found, "actions": actions}


def _row(kind: str, one: Transaction, key: str, amount: int, fee: int, at: float) -> dict[str, Any]:
    return {
        "Type": kind,
        "Transaction ID": one.id,
        "Order ID": one.order_id,
        "Refund Key": key,
        "Payment Type": one.type,
        "Amount": f"{amount}.00",
        "Fee": f"{fee}.00",
        "Time": wib(at),
        "Settlement Date": wib(at + 86_400)[:10],
    }


def shown_refund(one: Refund) -> dict[str, Any]:
    found: dict[str, Any] = {
        "refund_chargeback_id": one.number,
        "refund_amount": f"{one.amount}.00",
        "created_at": wib(one.at),
        "reason": one.reason,
        "refund_key": one.key,
        "refund_method": "online",
    }
    if one.confirmed_at is not None:
        found["bank_confirmed_at"] = wib(one.confirmed_at)
    return found


def wib(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).astimezone(WIB).strftime("%Y-%m-%d %H:%M:%S")
