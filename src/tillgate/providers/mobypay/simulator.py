"""A virtual POS terminal: connects to a kiosk, takes requests, and does what its user says, faults included.

Written from the kiosk document and the captured frames, sharing no code with the kiosk, so that one
misreading cannot agree with itself. It checks what it is sent the way a careful terminal would.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import random
import ssl
import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any, Final

DIALECTS: Final = ("captured", "documented")
"""As real hardware was captured speaking, or as the written document describes it."""

ACTIONS: Final = {
    "approve": "Approve the payment",
    "decline": "Decline it",
    "user_abort": "The payer presses the red key",
    "offer_plans": "Offer instalment plans",
    "time_out": "Never answer",
    "no_ack": "Do not even acknowledge",
    "pull_plug": "Lose the connection, come back, say nothing",
    "pull_plug_error": "Lose the connection, come back with an error",
    "pull_plug_paid": "Charge, lose the connection, come back with the result",
    "answer_late": "Approve after some seconds",
    "answer_twice": "Approve twice",
    "wrong_amount": "Approve another amount",
    "unlisted": "Answer with a status nobody defined",
    "conflict": "Approve, then decline",
    "forged": "Approve with a bad signature",
}
ON_CANCEL: Final = {
    "fail": "acknowledge, then report a failure",
    "ack": "acknowledge only",
    "result_first": "approve first, acknowledge then",
    "ignore": "say nothing",
}
BACK_OFF_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
MAX_LINE: Final = 64 * 1024
WINDOW_MS: Final = 60_000

_PLANS: Final = (("pay-in-full", "", 0), ("IPP_3M", "Monthly", 3), ("IPP_6M", "Monthly", 6))


class VirtualTerminal:
    """One terminal. `act` is its keypad, `snapshot` its screen."""

    def __init__(
        self,
        host: str,
        port: int,
        secret: str,
        *,
        pos_id: str = "POS001",
        dialect: str = "captured",
        auto: str | None = None,
        on_cancel: str = "fail",
        ping: bool = False,
        tls: ssl.SSLContext | None = None,
        back_off_s: tuple[float, ...] = BACK_OFF_S,
    ):
        """`auto` is the action taken on every request, None leaves it to the keypad. Raises ValueError."""
        if (
            dialect not in DIALECTS
            or on_cancel not in ON_CANCEL
            or (auto is not None and auto not in ACTIONS)
        ):
            raise ValueError("no such dialect, action or way to take a cancel")
        self.host, self.port, self.pos_id, self.dialect = host, port, pos_id, dialect
        self.auto, self.on_cancel, self.ping = auto, on_cancel, ping
        self.connected = False
        self.transactions: dict[str, dict[str, Any]] = {}
        self.script: deque[dict[str, Any]] = deque(maxlen=100)
        self.log: deque[dict[str, Any]] = deque(maxlen=200)
        self.watchers: set[Callable[[dict[str, Any]], None]] = set()
        self._secret = secret.encode()
        self._tls = tls
        self._back_off_s = back_off_s
        self._nonces: dict[str, float] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._after_reconnect: list[dict[str, Any]] = []
        self._away_s = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._reference = random.SystemRandom().randrange(100, 999_000)

    # --- the connection

    async def run(self) -> None:
        """Stay connected until cancelled, backing off 1-2-4-8..30 s between attempts."""
        attempt = 0
        while True:
            try:
                reader, writer = await asyncio.open_connection(
                    self.host, self.port, limit=MAX_LINE, ssl=self._tls
                )
            except OSError as error:
                self._note("link", f"no connection ({error.strerror or type(error).__name__})")
            else:
                attempt = 0
                await self._talk(reader, writer)
            pause = self._away_s or self._back_off_s[min(attempt, len(self._back_off_s) - 1)]
            self._away_s, attempt = 0.0, attempt + 1
            await asyncio.sleep(pause)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer, self.connected = writer, True
        self._note("link", f"connected to {self.host}:{self.port}")
        pinging = self._later(0.0, self._ping) if self.ping else None
        try:
            waiting, self._after_reconnect = self._after_reconnect, []
            for payload in waiting:
                self._say(payload)
            while line := await reader.readline():
                self._hear(line)
        except (OSError, ValueError) as error:
            self._note("link", f"connection lost ({type(error).__name__})")
        finally:
            self._writer, self.connected = None, False
            if pinging is not None:
                pinging.cancel()
            writer.transport.abort()
            self._note("link", "disconnected")

    async def _ping(self) -> None:
        while True:
            self._say({"type": "ping"})
            await asyncio.sleep(30)

    # --- what the kiosk says

    def _hear(self, line: bytes) -> None:
        try:
            envelope = json.loads(line.decode("utf-8"))
            payload = envelope["payload"]
            problem = self._problem(payload, envelope["signature"])
        except (ValueError, KeyError, TypeError):
            problem, payload = "not a message", {}
        if problem is not None:
            self._note("refused", problem)
            return
        self._note("heard", payload["type"], payload)
        match payload["type"]:
            case "transaction_request":
                self._requested(payload)
            case "ipp_plan_selection":
                self._plan_chosen(payload)
            case "cancel_transaction":
                self._cancelled(payload)

    def _problem(self, payload: dict[str, Any], signature: str) -> str | None:
        if not hmac.compare_digest(self._sign(payload).encode(), signature.encode()):
            return "bad signature"
        now = time.time() * 1000
        self._nonces = {nonce: at for nonce, at in self._nonces.items() if now - at < 3 * WINDOW_MS}
        if payload["nonce"] in self._nonces:
            return "replayed"
        self._nonces[payload["nonce"]] = now
        if abs(now - int(payload["timestamp"])) >= WINDOW_MS:
            return "outside the window"
        return None

    def _requested(self, payload: dict[str, Any]) -> None:
        txn_id = payload["txn_id"]
        if txn_id in self.transactions:
            self._note("refused", f"{txn_id} was requested before")
            return
        self.transactions[txn_id] = {
            "txn_id": txn_id, "amount": payload["amount"], "payment_mode": payload["payment_mode"],
            "status": "waiting", "charged": False, "plan_id": None,
        }  # fmt: skip
        step = self.script.popleft() if self.script else {"action": self.auto} if self.auto else None
        if step is None or step["action"] != "no_ack":
            self._answer(txn_id, {"type": "ack", "status": "processing"})
        if step is not None:
            self._later(float(step.get("after_s", 0.0)), self._act_soon, txn_id, step)

    async def _act_soon(self, txn_id: str, step: dict[str, Any]) -> None:
        options = {name: value for name, value in step.items() if name not in ("action", "after_s")}
        self.transactions[txn_id]["approve_after_plan"] = step["action"] in ("approve", "offer_plans")
        if step["action"] == "approve" and self._is_ipp(txn_id):
            self.act("offer_plans", txn_id)
        else:
            self.act(step["action"], txn_id, **options)

    def _plan_chosen(self, payload: dict[str, Any]) -> None:
        transaction = self.transactions.get(payload["txn_id"])
        if transaction is None:
            return
        transaction["plan_id"], transaction["status"] = payload["plan_id"], "waiting"
        word = "plan_received" if self.dialect == "captured" else "processing"
        self._answer(payload["txn_id"], {"type": "ack", "status": word})
        if transaction.get("approve_after_plan"):
            self._later(0.0, self._approve_soon, payload["txn_id"])

    async def _approve_soon(self, txn_id: str) -> None:
        self.act("approve", txn_id)

    def _cancelled(self, payload: dict[str, Any]) -> None:
        txn_id = payload["txn_id"]
        transaction = self.transactions.get(txn_id)
        if transaction is None or self.on_cancel == "ignore":
            return
        running = transaction["status"] in ("waiting", "choosing")
        if self.on_cancel == "result_first" and running:
            self._success(txn_id)
        self._answer(
            txn_id, {"type": "ack", "status": "received" if self.dialect == "documented" else "processing"}
        )
        if self.on_cancel == "fail" and running:
            self._failure(txn_id, "CANCELLED")
        elif self.on_cancel == "ack" and running:
            transaction["status"] = "cancelled"

    # --- the keypad

    def act(self, action: str, txn_id: str | None = None, **options: Any) -> None:
        """Press a key. `after_s`, `amount`, `message` and `status` refine some. Raises ValueError.

        Without `txn_id` it is about the payment on the screen.
        """
        if action not in ACTIONS:
            raise ValueError(f"no such action: {action}")
        txn_id = txn_id or self.current()
        if txn_id is None or txn_id not in self.transactions:
            raise ValueError("there is no payment on the screen")
        transaction = self.transactions[txn_id]
        self._note("key", ACTIONS[action])
        after_s = float(options.get("after_s", 3.0))
        match action:
            case "approve":
                self._success(txn_id)
            case "answer_late":
                self._later(after_s, self._approve_soon, txn_id)
            case "answer_twice":
                first = self._success(txn_id)
                self._say({name: first[name] for name in first if name not in ("timestamp", "nonce")})
            case "wrong_amount":
                self._success(txn_id, amount=float(options.get("amount") or transaction["amount"] + 1))
            case "forged":
                self._success(txn_id, forge=True)
            case "conflict":
                self._success(txn_id)
                self._failure(txn_id, "HOST_DECLINED")
            case "decline":
                self._failure(txn_id, str(options.get("message") or "HOST_DECLINED"))
            case "user_abort":
                self._failure(txn_id, "USER_ABORT")
            case "unlisted":
                self._finish(txn_id, {"status": str(options.get("status") or "declined")}, "unlisted")
            case "offer_plans":
                self._offer(txn_id, options.get("plans"))
            case "time_out" | "no_ack":
                transaction["status"] = "silent"
            case "pull_plug" | "pull_plug_error" | "pull_plug_paid":
                self._pull_plug(txn_id, action, after_s)

    def current(self) -> str | None:
        """The payment on the screen: the newest that waits for somebody."""
        waiting = [
            key
            for key, item in self.transactions.items()
            if item["status"] in ("waiting", "choosing", "silent")
        ]
        return waiting[-1] if waiting else None

    def snapshot(self) -> dict[str, Any]:
        """Everything a screen or a test wants to see."""
        return {
            "pos_id": self.pos_id, "dialect": self.dialect, "connected": self.connected,
            "kiosk": f"{self.host}:{self.port}", "auto": self.auto, "on_cancel": self.on_cancel,
            "current": self.current(), "transactions": list(self.transactions.values())[-50:],
            "log": list(self.log)[-50:], "script": list(self.script), "actions": ACTIONS,
        }  # fmt: skip

    # --- what we say

    def _success(self, txn_id: str, *, amount: float | None = None, forge: bool = False) -> dict[str, Any]:
        transaction = self.transactions[txn_id]
        transaction["charged"] = True
        members: dict[str, Any] = {"status": "success"}
        if self.dialect == "captured":
            self._reference += 1
            members["transaction_id"] = f"{self._reference:06d}"
            members["amount"] = amount if amount is not None else transaction["amount"]
        else:
            if transaction["payment_mode"] in ("card", "bnpl"):
                members |= {"authorization_code": "ABC123", "card_last4": "1234"}
            if amount is not None:
                members["amount"] = amount
        return self._finish(txn_id, members, "charged", forge=forge)

    def _failure(self, txn_id: str, message: str) -> None:
        members: dict[str, Any] = {"status": "failed", "error_message": message}
        if self.dialect == "captured":
            members["amount"] = self.transactions[txn_id]["amount"]
        self._finish(txn_id, members, "failed")

    def _offer(self, txn_id: str, plans: Any) -> None:
        transaction = self.transactions[txn_id]
        transaction["status"] = "choosing"
        offered = plans if isinstance(plans, list) else default_plans(transaction["amount"])
        members = {"status": "ipp_plans", "plans": offered, "amount": transaction["amount"]}
        self._answer(txn_id, {"type": "transaction_result", **members})

    def _finish(
        self, txn_id: str, members: dict[str, Any], status: str, *, forge: bool = False
    ) -> dict[str, Any]:
        self.transactions[txn_id]["status"] = status
        return self._answer(txn_id, {"type": "transaction_result", **members}, forge=forge)

    def _answer(self, txn_id: str, members: dict[str, Any], *, forge: bool = False) -> dict[str, Any]:
        return self._say({**members, "txn_id": txn_id}, forge=forge)

    def _say(self, members: dict[str, Any], *, forge: bool = False) -> dict[str, Any]:
        payload = dict(members)
        if self.dialect == "captured" or members["type"] == "ping":
            payload["pos_id"] = self.pos_id
        payload["timestamp"] = str(int(time.time() * 1000))
        captured = base64.b64encode(random.SystemRandom().randbytes(16)).decode()
        payload["nonce"] = captured if self.dialect == "captured" else str(uuid.uuid4())
        signature = self._sign({**payload, "forged": True} if forge else payload)
        self._note("said", f"{payload['type']} {payload.get('status', '')}".strip(), payload)
        if self._writer is None:
            self._after_reconnect.append(members)  # said when the link is back
        else:
            frame = {"payload": payload, "signature": signature}
            self._writer.write(json.dumps(frame, separators=(",", ":"), ensure_ascii=False).encode() + b"\n")
        return payload

    def _sign(self, payload: dict[str, Any]) -> str:
        text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
        return binascii.hexlify(hmac.new(self._secret, text.encode(), hashlib.sha256).digest()).decode()

    def _pull_plug(self, txn_id: str, action: str, away_s: float) -> None:
        self._away_s = max(away_s, 0.01)
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer, self.connected = None, False
        if action == "pull_plug_paid":
            self._success(txn_id)
        elif action == "pull_plug_error":
            self.transactions[txn_id]["status"] = "error"
            self._answer(txn_id, {"type": "error", "message": "Connection lost"})
        else:
            self.transactions[txn_id]["status"] = "silent"

    def _later(self, seconds: float, work: Callable[..., Any], *arguments: Any) -> asyncio.Task[None]:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            await work(*arguments)

        task = asyncio.create_task(wait())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _is_ipp(self, txn_id: str) -> bool:
        return bool(
            self.transactions[txn_id]["payment_mode"] == "ipp" and not self.transactions[txn_id]["plan_id"]
        )

    def _note(self, kind: str, text: str, payload: dict[str, Any] | None = None) -> None:
        entry = {"at": time.time(), "kind": kind, "text": text, "payload": payload}
        self.log.append(entry)
        for watcher in list(self.watchers):
            watcher(entry)


def default_plans(amount: float) -> list[dict[str, Any]]:
    """Plans as real terminals and the document show them: camel case, dates, fees, and parts that
    need not add up.
    """
    plans = []
    for plan_id, frequency, count in _PLANS:
        part = round(amount / count, 2) if count else 0.0
        details = [
            {
                "installmentNumber": number, "date": f"2026-{number:02d}-15", "amount": part,
                "installmentFee": 1.5, "installmentFeePercentage": 1.5,
            }
            for number in range(1, count + 1)
        ]  # fmt: skip
        plans.append(
            {
                "planId": plan_id,
                "frequency": frequency,
                "totalInstallments": count,
                "installmentDetails": details,
            }
        )
    return plans
