"""AtomPay's side of the wire, without a web server: AUTH, transactions, requery, refunds.

Written from the AtomPay facts and sharing no code with the connector, so that one misreading cannot agree
with itself. All it remembers is `state`, a JSON object, so that any process can carry on from it.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, urlencode

from tillgate.providers.atompay_in.simulator_crypto import decrypt, encrypt, same, signature
from tillgate.providers.atompay_in.simulator_menu import MODES, OUTCOMES, UAT

Reply = tuple[int, str, bytes]


def new_state() -> dict[str, Any]:
    return {"serial": 0, "tokens": {}, "transactions": [], "refunds": [], "faults": []}


class Gateway:
    """One gateway for any number of merchants that share the test keys."""

    def __init__(
        self,
        state: dict[str, Any] | None = None,
        *,
        keys: Mapping[str, str] | None = None,
        surcharge: str = "0.00",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.state = new_state() if state is None else state
        self.keys = {**UAT, **(keys or {})}
        self.surcharge = surcharge
        self._now = now

    def fault(self, name: str) -> bool:
        return name in self.state["faults"]

    # --- what merchants call --------------------------------------------------------------------------------

    def call(self, path: str, query: str, body: bytes) -> Reply:
        """One request to the gateway: status, content type, body."""
        fields = dict(parse_qsl(body.decode("ascii", "replace") or query, keep_blank_values=True))
        try:
            message = decrypt(fields["encData"], self.keys["req_key"])["payInstrument"]
        except (KeyError, ValueError, TypeError):
            return 200, "text/html", b""  # this is how the real one says that it could not read
        kind = message.get("headDetails", {}).get("api", "TXNVERIFICATION")
        if path.endswith("/aipay/auth"):
            return self._auth(message)
        if path.endswith("/payment/refund"):
            return self._refund(message)
        if kind == "REFUNDSTATUS":
            return self._refund_status(message)
        return self._requery(message, path)

    def _auth(self, message: Mapping[str, Any]) -> Reply:
        if self.fault("auth_empty"):
            return 200, "text/html", b""
        if self.fault("auth_html"):
            return 200, "text/html", b"<html><body>Service unavailable</body></html>"
        if self.fault("auth_500"):
            return 500, "text/html", b"<html><body>Internal Server Error</body></html>"
        merchant, pay = message["merchDetails"], message["payDetails"]
        lines = pay.get("prodDetails")
        if self.fault("auth_error") or merchant["password"] != self.keys["password"]:
            return self._plain_error("OTS0600", "AUTH SERVICE FAILED")
        if lines and sum(Decimal(line["prodAmount"]) for line in lines) != Decimal(pay["amount"]):
            return self._plain_error("OTS0626", "PRODUCT AMOUNTS")
        if not lines and not pay.get("product"):
            return self._plain_error("OTS0600", "VALIDATION")
        try:
            sent = datetime.strptime(merchant["merchTxnDate"] + "+0530", "%Y-%m-%d %H:%M:%S%z")
        except ValueError:
            return self._plain_error("OTS0640", "DATE FORMAT")
        if sent > self._now() + timedelta(minutes=5):
            return self._plain_error("OTS0639", "FUTURE DATE")
        token = str(15_000_000_000_000 + self._serial())
        self.state["tokens"][token] = {
            "merchId": str(merchant["merchId"]),
            "merchTxnId": merchant["merchTxnId"],
            "amount": f"{Decimal(pay['amount']):.2f}",
            "currency": pay["txnCurrency"],
            "products": lines or [{"prodName": pay["product"], "prodAmount": pay["amount"]}],
            "mode": message.get("payModeSpecificData", {}).get("subChannel"),
            "customer": message["custDetails"],
            "extras": message.get("extras", {}),
        }
        status = {
            "txnStatusCode": "OTS0000",
            "txnMessage": "SUCCESS",
            "txnDescription": "ATOM TOKEN ID HAS BEEN GENERATED SUCCESSFULLY",
        }
        reply = {"atomTokenId": int(token), "responseDetails": status}
        return self._sealed(reply, str(merchant["merchId"]), merchant_first=True)

    def _requery(self, message: Mapping[str, Any], path: str) -> Reply:
        if self.fault("requery_empty"):
            return 200, "text/html", b""
        if self.fault("requery_html"):
            return 200, "text/html", "<html>मेंटेनेंस</html>".encode()
        if self.fault("requery_500"):
            return 500, "application/json", b'{"error":"internal"}'
        merchant, pay = message["merchDetails"], message["payDetails"]
        merch_id, txn, amount = str(merchant["merchId"]), merchant["merchTxnId"], str(pay["amount"])
        secret = [] if path.endswith("/ots/v2/payment/status") else [self.keys["password"]]
        tail = ["TXNVERIFICATION"] if secret else []
        parts = [merch_id, *secret, txn, amount, pay["txnCurrency"], *tail]
        if not same(pay.get("signature"), signature(self.keys["req_hash"], parts)):
            return self._sealed(error("OTS0506"), merch_id)
        if merchant["merchTxnDate"] > self._stamp()[:10]:
            return self._sealed(error("OTS0639"), merch_id)
        found = [
            transaction
            for transaction in self.state["transactions"]
            if transaction["merchTxnId"] == txn
            and transaction["merchId"] == merch_id
            and transaction["at"][:10] == merchant["merchTxnDate"]
            and Decimal(transaction["amount"]) == Decimal(amount)
        ]
        if not found or self.fault("requery_no_data"):
            return self._sealed(error("OTS0401"), merch_id)
        items = [self._requeried(transaction) for transaction in found]
        return self._sealed({"payInstrument": items[0] if self.fault("requery_object") else items}, merch_id)

    def _requeried(self, transaction: Mapping[str, Any]) -> dict[str, Any]:
        code, text = OUTCOMES[transaction["outcome"]]
        return {
            "settlementDetails": {"reconStatus": "NRNS"},
            "merchDetails": {
                "merchId": int(transaction["merchId"]),
                "merchTxnId": transaction["merchTxnId"],
                "merchTxnDate": transaction["at"],
            },
            "payDetails": {
                "atomTxnId": int(transaction["atomTxnId"]),
                "product": transaction["products"][0]["prodName"],
                **self._amounts(transaction),
            },
            "payModeSpecificData": {
                "subChannel": transaction["mode"],
                "bankDetails": {"bankTxnId": transaction["bankTxnId"], "otsBankName": "Atom Bank"},
            },
            "responseDetails": {"statusCode": code, "message": text, "description": text},
        }

    def _refund(self, message: Mapping[str, Any]) -> Reply:
        merchant, pay = message["merchDetails"], message["payDetails"]
        merch_id, amount = str(merchant["merchId"]), str(pay["totalRefundAmount"])
        parts = [
            merch_id,
            self.keys["password"],
            merchant["merchTxnId"],
            amount,
            pay["txnCurrency"],
            "REFUNDINIT",
        ]
        if not same(pay.get("signature"), signature(self.keys["req_hash"], parts)):
            return self._sealed(error("OTS0506", array=False), merch_id)
        paid = self._transaction(str(pay["atomTxnId"]))
        if paid is None or paid["outcome"] not in ("success", "forced"):
            return self._sealed(error("OTS0401", array=False), merch_id)
        if self.fault("refund_refused"):
            return self._sealed(error("OTS0600", array=False), merch_id)
        total, lines = Decimal(0), []
        for n, line in enumerate(pay["prodDetails"]):
            known = next(
                (r for r in self.state["refunds"] if r["prodRefundId"] == line["prodRefundId"]), None
            )
            share, before = Decimal(str(line["prodRefundAmount"])), self._refunded(paid, line["prodName"])
            limit = next(
                (Decimal(p["prodAmount"]) for p in paid["products"] if p["prodName"] == line["prodName"]),
                Decimal(0),
            )
            total += share
            taken = known is None and share + before <= limit and not (n == 0 and self.fault("refund_line"))
            if taken:
                self.state["refunds"].append(
                    {
                        "atomTxnId": paid["atomTxnId"],
                        "prodName": line["prodName"],
                        "prodRefundId": line["prodRefundId"],
                        "refundTxnId": str(self._serial()),
                        "refundAmt": f"{share:.2f}",
                        "refundInitiatedDate": self._stamp()[:10],
                        "remarks": "REFUND INITIATED",
                    }
                )
            lines.append(
                {
                    "prodName": line["prodName"],
                    "prodRefundId": line["prodRefundId"],
                    "refundTxnId": self.state["refunds"][-1]["refundTxnId"] if taken else None,
                    "prodStatusCode": "OTS0000" if taken else "OTS0600",
                    "prodDescription": "Refund initiated" if taken else "Refund failed",
                    "prodRefundAmount": float(share),
                }
            )
        if total != Decimal(amount):
            return self._sealed(error("OTS0501", array=False), merch_id)
        if self.fault("refund_lost"):
            return 504, "text/html", b"<html>Gateway Time-out</html>"
        body = {
            "payDetails": {
                "atomTxnId": int(paid["atomTxnId"]),
                "prodDetails": lines,
                "totalRefundAmount": float(total),
            },
            "responseDetails": {"statusCode": "OTS0000", "message": "SUCCESS"},
        }
        return self._sealed({"payInstrument": body}, merch_id)

    def _refund_status(self, message: Mapping[str, Any]) -> Reply:
        merchant, pay = message["merchDetails"], message["payDetails"]
        merch_id = str(merchant["merchId"])
        if base64.b64decode(merchant["password"]).decode() != self.keys["password"]:
            return self._sealed(error("OTS0522", array=False), merch_id)
        asked = {line["prodName"] for line in pay["prodDetails"]}
        details = [
            {
                "prodName": name,
                "refundStatus": [
                    {k: v for k, v in refund.items() if k not in ("atomTxnId", "prodName")}
                    for refund in self.state["refunds"]
                    if refund["atomTxnId"] == str(pay["atomTxnId"]) and refund["prodName"] == name
                ],
            }
            for name in sorted(asked)
        ]
        body = {
            "refundStatusDetails": details,
            "responseDetails": {"statusCode": "OTS0000", "message": "SUCCESS"},
        }
        return self._sealed({"payInstrument": body}, merch_id)

    # --- what payers do -------------------------------------------------------------------------------------

    def pay(self, token: str, mode: str, outcome: str) -> dict[str, Any]:
        """A payer's try on the checkout page: the new transaction. Raises `KeyError` for an unknown name."""
        order = self.state["tokens"][token]
        OUTCOMES[outcome], MODES[mode]  # raises for a name that is none
        transaction = {
            **{
                k: order[k]
                for k in ("merchId", "merchTxnId", "amount", "currency", "products", "customer", "extras")
            },
            "atomTxnId": str(11_000_000_000_000 + self._serial()),
            "bankTxnId": None if outcome == "cancelled" else str(random.randint(10**11, 10**12 - 1)),  # noqa: S311
            "mode": mode,
            "outcome": outcome,
            "at": self._stamp(),
        }
        self.state["transactions"].append(transaction)
        return transaction

    def settle(self, merch_txn_id: str, outcome: str) -> dict[str, Any]:
        """A later turn of an order's newest transaction. Raises `KeyError` or `IndexError`."""
        OUTCOMES[outcome]
        mine = [t for t in self.state["transactions"] if t["merchTxnId"] == merch_txn_id]
        transaction: dict[str, Any] = mine[-1]
        transaction["outcome"] = outcome
        transaction["bankTxnId"] = transaction["bankTxnId"] or str(random.randint(10**11, 10**12 - 1))  # noqa: S311
        return transaction

    def notice(self, transaction: Mapping[str, Any]) -> dict[str, str]:
        """`encData` and `merchId` of the callback and of the return, with this gateway's faults in it."""
        merch_id = "999999" if self.fault("callback_merchant") else transaction["merchId"]
        amounts = self._amounts(transaction)
        code, text = OUTCOMES[transaction["outcome"]]
        signed = signature(
            self.keys["res_hash"],
            [
                merch_id,
                transaction["atomTxnId"],
                transaction["merchTxnId"],
                f"{amounts['totalAmount']:.2f}",
                code,
                transaction["mode"],
                transaction["bankTxnId"] or "",
            ],
        )
        currency = "USD" if self.fault("callback_currency") else transaction["currency"]
        if self.fault("callback_amount"):
            amounts |= {"amount": amounts["totalAmount"] - 0.5, "surchargeAmount": 0.5}
        pay = {
            "atomTxnId": int(transaction["atomTxnId"]),
            "prodDetails": [
                {"prodName": line["prodName"], "prodAmount": float(line["prodAmount"])}
                for line in transaction["products"]
            ],
            **amounts,
            "txnCurrency": currency,
            "signature": signed,
            "txnInitDate": transaction["at"],
            "txnCompleteDate": transaction["at"],
        }
        if self.fault("callback_forged"):
            pay["signature"] = signed[::-1]
        if self.fault("callback_null_signature"):
            pay["signature"] = None
        if self.fault("callback_no_signature"):
            del pay["signature"]
        body: Any = {
            "merchDetails": {
                "merchId": int(merch_id),
                "merchTxnId": transaction["merchTxnId"],
                "merchTxnDate": transaction["at"].replace(" ", "T"),
            },
            "payDetails": pay,
            "payModeSpecificData": {
                "subChannel": [transaction["mode"]],
                "bankDetails": {
                    "otsBankId": 2001,
                    "bankTxnId": transaction["bankTxnId"],
                    "otsBankName": "Atom Bank",
                },
            },
            "extras": transaction["extras"],
            "custDetails": {**transaction["customer"], "billingInfo": {}},
            "responseDetails": {"statusCode": code, "message": text, "description": text},
        }
        if self.fault("callback_array"):
            body = [body]
        sealed = encrypt({"payInstrument": body}, self.keys["res_key"])
        if self.fault("callback_tampered"):
            sealed = sealed[:70] + ("0" if sealed[70] != "0" else "1") + sealed[71:]
        if self.fault("lower_hex"):
            sealed = sealed.lower()
        return {"encData": sealed, "merchId": merch_id}

    # --- small parts ----------------------------------------------------------------------------------------

    def _amounts(self, transaction: Mapping[str, Any]) -> dict[str, float]:
        # The real one answers JSON numbers; two decimals of this size survive a double.
        amount, more = Decimal(transaction["amount"]), Decimal(self.surcharge)
        return {"amount": float(amount), "surchargeAmount": float(more), "totalAmount": float(amount + more)}

    def _transaction(self, atom_txn_id: str) -> dict[str, Any] | None:
        return next((t for t in self.state["transactions"] if t["atomTxnId"] == atom_txn_id), None)

    def _refunded(self, paid: Mapping[str, Any], product: str) -> Decimal:
        mine = [
            r
            for r in self.state["refunds"]
            if (r["atomTxnId"], r["prodName"]) == (paid["atomTxnId"], product)
        ]
        return sum((Decimal(refund["refundAmt"]) for refund in mine), Decimal(0))

    def _serial(self) -> int:
        self.state["serial"] += 1
        return int(self.state["serial"])

    def _stamp(self) -> str:
        return (self._now().astimezone(UTC) + timedelta(hours=5, minutes=30)).strftime("%Y-%m-%d %H:%M:%S")

    def _sealed(self, message: Any, merch_id: str, *, merchant_first: bool = False) -> Reply:
        fields = {"encData": encrypt(message, self.keys["res_key"]), "merchId": merch_id}
        if merchant_first:
            fields = {"merchId": merch_id, "encData": fields["encData"]}
        return 200, "application/json", urlencode(fields).encode()  # the header lies, as the real one's does

    @staticmethod
    def _plain_error(code: str, text: str) -> Reply:
        body = {"encData": None, "txnMessage": "FAILED", "txnStatusCode": code, "txnDescription": text}
        return 200, "application/json", json.dumps(body).encode()


def error(code: str, *, array: bool = True) -> dict[str, Any]:
    item = {"responseDetails": {"statusCode": code, "message": "FAILED", "description": code}}
    return {"payInstrument": [item] if array else item}
