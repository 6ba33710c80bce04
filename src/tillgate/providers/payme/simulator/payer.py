"""Plays a payer, from a checkout link to a paid order, and the people behind Payme's cabinet and sandbox."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tillgate.providers.payme.simulator.desk import Desk, Inconsistent, Refused, Silent, new_id

FAULTS: Final[Mapping[str, str]] = {
    "none": "everything arrives once, in order",
    "repeat": "every Create and Perform is sent twice",
    "crowd": "every Create and Perform is sent twenty times at once",
    "lost_answer": "the line is cut before the answer to Create and to Perform; both are sent again",
    "late": "Perform comes a while after Create",
    "reorder": "Perform comes before its Create, and a second Create after Perform",
    "expired": "Payme made the transaction 12 hours ago: Perform must be refused",
    "wrong_key": "the first Create comes with a wrong key",
    "wrong_amount": "the first Create asks for one tiyin more",
    "garbage": "bytes that are no JSON come before each request",
    "cancel": "Payme gives up after Create",
    "perform_after_cancel": "Payme gives up after Create, then a late Perform comes",
}
CROWD: Final = 20
LIFETIME_MS: Final = 43_200_000
LATE_S: Final = 0.3


@dataclass(slots=True)
class Receipt:
    """What Payme knows of one payment. `state`: 1 created, 2 paid, -1 given up, -2 given back."""

    id: str
    account: Mapping[str, str]
    amount: int
    time: int
    state: int = 0
    transaction: str | None = None
    create_time: int = 0
    perform_time: int = 0
    cancel_time: int = 0
    reason: int | None = None

    @property
    def creation(self) -> dict[str, Any]:
        return {"id": self.id, "time": self.time, "amount": self.amount, "account": dict(self.account)}


@dataclass(slots=True)
class PaymeSimulator:
    """Payme, for one merchant. `async with` closes its connections."""

    desk: Desk
    merchant_id: str = ""
    receipts: dict[str, Receipt] = field(default_factory=dict)

    @classmethod
    def of(cls, url: str, key: str, *, login: str = "Paycom", merchant_id: str = "") -> PaymeSimulator:
        return cls(Desk(url, key, login), merchant_id)

    async def __aenter__(self) -> PaymeSimulator:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.desk.close()

    # --- a payer --------------------------------------------------------------------------------------------

    async def check(self, account: Mapping[str, str], amount: int) -> dict[str, Any]:
        """CheckPerformTransaction. Raises `Refused`."""
        found = await self.desk.insist(
            "CheckPerformTransaction", {"amount": amount, "account": dict(account)}
        )
        if found.get("allow") is not True:
            raise Inconsistent(f"CheckPerformTransaction: allow is {found.get('allow')!r}")
        return found

    async def pay(self, account: Mapping[str, str], amount: int, fault: str = "none") -> Receipt:
        """Check, create, perform, look. `amount` in tiyin. Raises `Refused` as the payer would see it."""
        if fault not in FAULTS:
            raise ValueError(f"no such fault: {fault}; there are {', '.join(FAULTS)}")
        await self.check(account, amount)
        receipt = Receipt(new_id(), dict(account), amount, self.desk.clock())
        self.receipts[receipt.id] = receipt
        await _WAYS.get(fault, _plainly)(self, receipt)
        await self.look(receipt)
        return receipt

    async def pay_link(self, link: str, fault: str = "none", amount: int | None = None) -> Receipt:
        """Open a checkout link and pay. Raises `ValueError` for a link that Payme could not read."""
        asked = read_link(link)
        if self.merchant_id and asked.merchant != self.merchant_id:
            raise ValueError(f"the link is for merchant {asked.merchant}, this is {self.merchant_id}")
        return await self.pay(asked.account, asked.amount or amount or 0, fault)

    async def create(self, receipt: Receipt, way: str = "once") -> None:
        made = await self._send("CreateTransaction", receipt.creation, way)
        _due(made, "CreateTransaction", state=1)
        receipt.state = 1
        receipt.transaction, receipt.create_time = str(made.get("transaction")), made.get("create_time", 0)

    async def perform(self, receipt: Receipt, way: str = "once") -> None:
        done = await self._send("PerformTransaction", {"id": receipt.id}, way)
        _due(done, "PerformTransaction", state=2)
        receipt.state, receipt.perform_time = 2, done.get("perform_time", 0)

    async def cancel(self, receipt: Receipt, reason: int, way: str = "once") -> None:
        """Give up (state 1) or give the money back (state 2), as the cabinet's refund does."""
        due = -2 if receipt.state == 2 else -1
        done = await self._send("CancelTransaction", {"id": receipt.id, "reason": reason}, way)
        _due(done, "CancelTransaction", state=due)
        receipt.state, receipt.cancel_time = due, done.get("cancel_time", 0)
        receipt.reason = receipt.reason or reason

    async def refund(self, receipt: Receipt) -> None:
        await self.cancel(receipt, 5)

    async def look(self, receipt: Receipt) -> dict[str, Any]:
        """CheckTransaction; what it tells must be what was told before. Raises `Inconsistent`."""
        found = await self.desk.insist("CheckTransaction", {"id": receipt.id})
        for name in ("state", "transaction", "create_time", "perform_time", "cancel_time", "reason"):
            if found.get(name) != getattr(receipt, name):
                raise Inconsistent(
                    f"CheckTransaction: {name} is {found.get(name)!r}, was {getattr(receipt, name)!r}"
                )
        return found

    async def statement(self, from_ms: int, to_ms: int) -> list[dict[str, Any]]:
        """GetStatement, compared with what this simulator knows. Raises `Inconsistent`."""
        rows = (await self.desk.insist("GetStatement", {"from": from_ms, "to": to_ms}))["transactions"]
        by_id = {row["id"]: row for row in rows}
        if len(by_id) != len(rows):
            raise Inconsistent("the statement names a transaction twice")
        for receipt in self.receipts.values():
            if receipt.state == 0 or not from_ms <= receipt.time <= to_ms:
                continue
            row = by_id.get(receipt.id)
            known = {name: getattr(receipt, name) for name in ("amount", "time", "state", "transaction")}
            if row is None or any(row.get(name) != value for name, value in known.items()):
                raise Inconsistent(f"the statement says {row}, Payme knows {known}")
        return list(rows)

    async def fiscal(self, receipt: Receipt, kind: str = "PERFORM") -> None:
        """SetFiscalData with a receipt of the tax office."""
        data = {
            "receipt_id": 121,
            "status_code": 0,
            "message": "accepted",
            "terminal_id": "EP000000000025",
            "fiscal_sign": "800031554082",
            "qr_code_url": "https://ofd.soliq.uz/epi?t=EP000000000025&r=121",
            "date": "20261121163110",
        }
        done = await self.desk.insist("SetFiscalData", {"id": receipt.id, "type": kind, "fiscal_data": data})
        if done.get("success") is not True:
            raise Inconsistent(f"SetFiscalData: success is {done.get('success')!r}")

    # --- the sandbox ----------------------------------------------------------------------------------------

    async def scenario_one(self, account: Mapping[str, str], amount: int, *, one_time: bool = True) -> None:
        """The sandbox's "unconfirmed transaction". Raises `Inconsistent` where a step goes wrong."""
        params = {"amount": amount, "account": dict(account)}
        receipt = Receipt(new_id(), dict(account), amount, self.desk.clock())
        wrong = [
            ("CheckPerformTransaction", params),
            ("CreateTransaction", receipt.creation),
            ("PerformTransaction", {"id": receipt.id}),
            ("CancelTransaction", {"id": receipt.id, "reason": 3}),
            ("CheckTransaction", {"id": receipt.id}),
            ("GetStatement", {"from": receipt.time, "to": receipt.time}),
        ]
        for method, content in wrong:
            await self.refused(method, content, {-32504}, key="wrong")
        over = {**params, "amount": amount + 1}
        if one_time:
            await self.refused("CheckPerformTransaction", over, {-31001})
            await self.refused("CreateTransaction", {**receipt.creation, "amount": amount + 1}, {-31001})
        nobody = dict.fromkeys(account, "999999999")
        accounts = set(range(-31099, -31049))
        await self.refused("CheckPerformTransaction", {**params, "account": nobody}, accounts)
        await self.refused("CreateTransaction", {**receipt.creation, "account": nobody}, accounts)
        await self.check(account, amount)
        await self._block(receipt, one_time)
        await self.cancel(receipt, 3)
        await self.look(receipt)

    async def scenario_two(self, account: Mapping[str, str], amount: int, *, one_time: bool = True) -> None:
        """The sandbox's "confirmed transaction". Raises `Inconsistent` where a step goes wrong."""
        await self.check(account, amount)
        receipt = Receipt(new_id(), dict(account), amount, self.desk.clock())
        await self._block(receipt, one_time)
        await self.perform(receipt, "twice")
        await self.look(receipt)
        await self.cancel(receipt, 5)
        await self.look(receipt)

    async def _block(self, receipt: Receipt, one_time: bool) -> None:
        self.receipts[receipt.id] = receipt
        await self.check(receipt.account, receipt.amount)
        await self.create(receipt, "twice")
        await self.look(receipt)
        if one_time:
            other = Receipt(new_id(), receipt.account, receipt.amount, self.desk.clock())
            await self.refused("CreateTransaction", other.creation, {-31008})

    async def refused(
        self, method: str, params: Mapping[str, Any], codes: set[int], key: str | None = None
    ) -> Refused:
        """The merchant must refuse this with one of these codes. Raises `Inconsistent`."""
        try:
            found = await self.desk.call(method, params, key=key)
        except Refused as refused:
            if refused.code in codes:
                return refused
            raise Inconsistent(f"{refused}; one of {sorted(codes)[-3:]} was due") from None
        raise Inconsistent(f"{method} should have been refused and was answered {found}")

    async def _send(self, method: str, params: Mapping[str, Any], way: str) -> dict[str, Any]:
        if way == "crowd":
            return await self.desk.at_once(method, params, CROWD)
        if way == "lost":
            await self.desk.lose(method, params)
        found = await self.desk.insist(method, params)
        if way == "twice":
            await self.desk.insist(method, params)
        return found


# --- the fault menu -----------------------------------------------------------------------------------------


async def _plainly(payme: PaymeSimulator, receipt: Receipt) -> None:
    await payme.create(receipt)
    await payme.perform(receipt)


def _each(way: str) -> Callable[[PaymeSimulator, Receipt], Awaitable[None]]:
    async def run(payme: PaymeSimulator, receipt: Receipt) -> None:
        await payme.create(receipt, way)
        await payme.perform(receipt, way)

    return run


async def _late(payme: PaymeSimulator, receipt: Receipt) -> None:
    await payme.create(receipt)
    await asyncio.sleep(LATE_S)
    await payme.perform(receipt)


async def _reordered(payme: PaymeSimulator, receipt: Receipt) -> None:
    await payme.refused("PerformTransaction", {"id": receipt.id}, {-31003})
    await payme.create(receipt)
    await payme.perform(receipt)
    await payme.refused("CreateTransaction", receipt.creation, {-31008})


async def _expired(payme: PaymeSimulator, receipt: Receipt) -> None:
    receipt.time -= LIFETIME_MS - 1500
    await payme.create(receipt)
    await asyncio.sleep(1.8)
    await payme.refused("PerformTransaction", {"id": receipt.id}, {-31008})
    found = await payme.desk.call("CheckTransaction", {"id": receipt.id})
    if found.get("state") != -1 or found.get("reason") != 4:
        raise Inconsistent(f"an expired transaction stands at {found}")
    receipt.state, receipt.reason, receipt.cancel_time = -1, 4, found.get("cancel_time", 0)


async def _wrong_key(payme: PaymeSimulator, receipt: Receipt) -> None:
    await payme.refused("CreateTransaction", receipt.creation, {-32504}, key="not the key")
    await _plainly(payme, receipt)


async def _wrong_amount(payme: PaymeSimulator, receipt: Receipt) -> None:
    await payme.refused("CreateTransaction", {**receipt.creation, "amount": receipt.amount + 1}, {-31001})
    await _plainly(payme, receipt)


async def _garbage(payme: PaymeSimulator, receipt: Receipt) -> None:
    for content in (
        b"\x00\xff{",
        b'{"method":',
        b"[]",
        b'{"method":"PerformTransaction","params":null,"id":1}',
    ):
        if "error" not in await payme.desk.garbage(content):
            raise Inconsistent(f"garbage was answered with a result: {content!r}")
    await _plainly(payme, receipt)


async def _given_up(payme: PaymeSimulator, receipt: Receipt) -> None:
    await payme.create(receipt)
    await payme.cancel(receipt, 3)


async def _late_perform(payme: PaymeSimulator, receipt: Receipt) -> None:
    await _given_up(payme, receipt)
    await payme.refused("PerformTransaction", {"id": receipt.id}, {-31008})


_WAYS: Final[Mapping[str, Callable[[PaymeSimulator, Receipt], Awaitable[None]]]] = {
    "repeat": _each("twice"),
    "crowd": _each("crowd"),
    "lost_answer": _each("lost"),
    "late": _late,
    "reorder": _reordered,
    "expired": _expired,
    "wrong_key": _wrong_key,
    "wrong_amount": _wrong_amount,
    "garbage": _garbage,
    "cancel": _given_up,
    "perform_after_cancel": _late_perform,
}


# --- links --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """What a checkout link says; `amount` (tiyin) is 0 where the payer chooses."""

    merchant: str
    account: Mapping[str, str]
    amount: int
    language: str = "ru"
    return_url: str | None = None


def read_link(link: str) -> Asked:
    """`<checkout>/<base64 of m=…;ac.x=…;a=…>` or that last part alone. Raises `ValueError`."""
    # Base64 may itself hold slashes, so the link is what follows the host.
    encoded = link.partition("://")[2].partition("/")[2] if "://" in link else link
    try:
        text = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise ValueError("the link is not Base64 of text") from None
    pairs = [pair.partition("=") for pair in text.split(";")]
    if any(not equals for _, equals, _ in pairs):
        raise ValueError(f"the link holds a part without '=': {text!r}")
    names = [name for name, _, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError(f"the link names something twice: {text!r}")
    found = {name: value for name, _, value in pairs}
    account = {name[3:]: value for name, value in found.items() if name.startswith("ac.")}
    amount = found.get("a", "0")
    if not found.get("m") or not account or not (amount.isascii() and amount.isdigit()):
        raise ValueError(f"the link lacks merchant, account or a whole amount: {text!r}")
    return Asked(found["m"], account, int(amount), found.get("l", "ru"), found.get("c"))


def _due(found: Mapping[str, Any], method: str, *, state: int) -> None:
    if found.get("state") != state:
        raise Inconsistent(f"{method}: state is {found.get('state')!r}, not {state}")


__all__ = ["FAULTS", "Asked", "Inconsistent", "PaymeSimulator", "Receipt", "Refused", "Silent", "read_link"]
