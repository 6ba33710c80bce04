"""The sandbox's bank: keeps charges and refunds, lets a payer act, notifies with signed bytes.

It knows nothing of the hub but its notify URL, and shares no code with the connector.
Faults of an action: `twice`, `late`, `lost`, `out_of_order`, `forged`, `wrong_amount`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

LATE_S = 2.0
REFUND_S = 0.3
ACTIONS = ("pay", "fail", "expire", "pay-late", "cancel")
ACTION_FAULTS = ("none", "twice", "late", "lost", "out_of_order", "forged", "wrong_amount")
WALLET_NAMES = {"gopay": "GoPay", "ovo": "OVO", "dana": "DANA", "shopeepay": "ShopeePay"}


class Bank:
    """`get` and `put` are its memory, `notify(url, headers, body)` its way to the hub."""

    def __init__(
        self,
        get: Callable[[str], Awaitable[bytes | None]],
        put: Callable[[str, bytes], Awaitable[None]],
        notify: Callable[[str, dict[str, str], bytes], Awaitable[int]],
    ) -> None:
        self._get, self._put, self._notify = get, put, notify
        self._later: set[asyncio.Task[None]] = set()

    async def answer(self, method: str, url: str, body: bytes) -> tuple[int, bytes]:
        """Status 0: the answer is lost on the way back."""
        path, _, query = url.split("://", 1)[1].partition("?")
        parts = path.split("/")[1:]
        try:
            asked = json.loads(body) if body else {}
        except ValueError:
            return _say(400, {"reason": "not JSON"})
        match method, parts:
            case "POST", ["charges"]:
                return await self._open(asked)
            case "GET", ["charges", operation]:
                return await self._stored(f"charge:{operation}")
            case "POST", ["charges", operation, action] if action in ACTIONS:
                fault = query.removeprefix("fault=") or "none"
                return await self._act(operation, action, fault, asked)
            case "POST", ["refunds"]:
                return await self._refund(asked)
            case "GET", ["refunds", refund]:
                return await self._stored_refund(refund)
        return _say(404, {"reason": "no such path"})

    # --- charges ---

    async def _open(self, asked: dict[str, Any]) -> tuple[int, bytes]:
        fault = asked["amount_minor"] // 100 % 1000
        if fault == 902:
            return _say(503, {"reason": "out of order"})
        if fault == 904:
            return _say(402, {"reason": "the wallet declined"})
        if fault == 905:
            return 0, b""
        if fault == 903:
            await asyncio.sleep(2)
        charge = await self._charge(asked["operation_id"], asked)
        await self._keep(asked["operation_id"], charge)
        return (0, b"") if fault == 901 else _say(201, charge)

    async def _charge(self, operation: str, asked: dict[str, Any]) -> dict[str, Any]:
        known = await self._get(f"charge:{operation}")
        if known is not None:
            return dict(json.loads(known))
        return {
            "state": "pending",
            "amount_minor": asked["amount_minor"],
            "currency": asked["currency"],
            "paid_minor": 0,
        }

    async def _keep(self, operation: str, charge: dict[str, Any]) -> None:
        await self._put(f"charge:{operation}", json.dumps(charge).encode())

    async def _act(self, operation: str, action: str, fault: str, asked: dict[str, Any]) -> tuple[int, bytes]:
        if fault not in ACTION_FAULTS:
            return _say(400, {"reason": f"fault is one of {', '.join(ACTION_FAULTS)}"})
        charge = await self._charge(operation, asked)
        if action == "cancel" and charge["state"] != "pending":
            return _say(200, charge)
        if action != "pay-late" and charge["state"] not in ("pending", _STATE[action]):
            return _say(409, {"reason": f"the charge is {charge['state']}"})
        if action == "pay-late" and charge["state"] == "pending":
            charge |= {"state": "expired", "reason": "expired"}
            await self._tell(asked, operation, charge, "none")
        charge |= {"state": _STATE[action], "reason": {"fail": "declined by the payer"}.get(action, action)}
        if charge["state"] == "paid" and not charge["paid_minor"]:
            short = fault == "wrong_amount"
            charge |= {
                "paid_minor": charge["amount_minor"] - (100 if short else 0),
                "paid_with": WALLET_NAMES.get(asked.get("channel", ""), "wallet"),
                "paid_at": int(time.time() * 1000),
            }
        await self._keep(operation, charge)
        if action != "cancel":
            await self._tell(asked, operation, charge, fault)
        return _say(200, charge)

    async def _tell(self, asked: dict[str, Any], operation: str, charge: dict[str, Any], fault: str) -> None:
        event = f"{operation}.{charge['state']}"
        notice = {"event_id": event, "operation_id": operation, "charge": charge}
        if fault == "lost":
            return
        if fault == "late":
            self._after(LATE_S, asked, notice)
            return
        if fault == "forged":
            await self._post({**asked, "webhook_key": "not the key"}, notice)
        await self._post(asked, notice)
        if fault == "twice":
            await self._post(asked, notice)
            await self._post(asked, {**notice, "event_id": f"{event}.again"})
        if fault == "out_of_order":
            stale = {**charge, "state": "pending", "paid_minor": 0}
            await self._post(
                asked, {"event_id": f"{event}.stale", "operation_id": operation, "charge": stale}
            )
            gone = {**stale, "state": "expired"}
            await self._post(asked, {"event_id": f"{event}.gone", "operation_id": operation, "charge": gone})

    # --- refunds ---

    async def _refund(self, asked: dict[str, Any]) -> tuple[int, bytes]:
        """Amounts in rupiah ending in 13 fail later, in 14 succeed without a notice, in 15 are declined."""
        name, ending = f"refund:{asked['refund_id']}", asked["amount_minor"] // 100 % 100
        if await self._get(name) is None:
            if ending == 15:
                return _say(402, {"reason": "this wallet is closed"})
            final = (
                {"state": "failed", "reason": "the wallet refused it"}
                if ending == 13
                else {"state": "succeeded"}
            )
            kept = {"final": final, "ready_at": time.time() + REFUND_S}
            await self._put(name, json.dumps(kept).encode())
            if ending != 14:
                notice = {
                    "event_id": f"{asked['refund_id']}.{final['state']}",
                    "operation_id": asked["refund_id"],
                    "refund": final,
                }
                self._after(REFUND_S, asked, notice)
        return await self._stored_refund(asked["refund_id"])

    async def _stored_refund(self, refund: str) -> tuple[int, bytes]:
        known = await self._get(f"refund:{refund}")
        if known is None:
            return _say(404, {"reason": "unknown"})
        kept = json.loads(known)
        return _say(200, kept["final"] if time.time() >= kept["ready_at"] else {"state": "pending"})

    async def _stored(self, name: str) -> tuple[int, bytes]:
        known = await self._get(name)
        return _say(404, {"reason": "unknown"}) if known is None else (200, known)

    # --- notices ---

    def _after(self, delay_s: float, asked: dict[str, Any], notice: dict[str, Any]) -> None:
        async def later() -> None:
            await asyncio.sleep(delay_s)
            await self._post(asked, notice)

        task = asyncio.create_task(later())
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _post(self, asked: dict[str, Any], notice: dict[str, Any]) -> None:
        body = json.dumps(notice).encode()
        signature = hmac.new(asked["webhook_key"].encode(), body, hashlib.sha256).hexdigest()
        headers = {"content-type": "application/json", "x-sandbox-signature": signature}
        for pause_s in (0, 0.2, 1):
            await asyncio.sleep(pause_s)
            if await self._notify(asked["notify_url"], headers, body) < 500:
                return


_STATE = {"pay": "paid", "pay-late": "paid", "fail": "failed", "expire": "expired", "cancel": "cancelled"}


def _say(status: int, body: dict[str, Any]) -> tuple[int, bytes]:
    return status, json.dumps(body).encode()
