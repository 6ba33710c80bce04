"""A payer at Click: from the pay link to paid, or to one of the faults that networks and people make."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from tillgate.providers.click.simulator import wire
from tillgate.providers.click.simulator.wire import Step, Wire

CARD_ERROR: Final = -5017
CONCURRENT: Final = 20

Status = Literal["paid", "cancelled", "refused", "hanging"]
"""hanging: the payer was debited and the merchant says no; Click's support would have to look."""


@dataclass(slots=True)
class Payment:
    """One payment document at Click."""

    paydoc_id: int
    trans_id: int
    order: str
    tiyin: int
    made_at: float
    prepare_id: int | str | None = None
    debited: bool = False
    status: int = 0  # Click's payment_status: below 0 failed, 0 created, 1 processing, 2 success
    mode: str = "shop"
    reversed: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """How it ended. `surprises` are answers that Click's manual does not allow."""

    status: Status
    payment: Payment
    steps: tuple[Step, ...]
    surprises: tuple[str, ...]
    fault: str = "none"

    @property
    def codes(self) -> list[int | None]:
        return [step.code for step in self.steps]


@dataclass(slots=True)
class Visit:
    """One payer paying one order."""

    payment: Payment
    fault: str
    steps: list[Step] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)

    def expect(self, step: Step, *codes: int) -> bool:
        if step.trouble and not step.trouble.startswith("the answer was lost"):
            self.surprises.append(f"{step.name}: {step.trouble}")
            return False
        if step.code not in codes:
            wanted = " or ".join(map(str, codes))
            self.surprises.append(f"{step.name} answered {step.code}, not {wanted}")
            return False
        return True


class ClickSimulator:
    """Plays one Click service against one merchant. Use as an async context manager.

    `pay` and `follow` play a payer; every fault of `FAULTS` is one way in which it goes wrong. The state
    (payments, debits) is kept, so that the Merchant API of `build_app` tells the same story.
    """

    def __init__(
        self,
        target: str,
        *,
        service_id: int | str,
        secret_key: str,
        merchant_user_id: int | str = 1,
        complete_url: str | None = None,
        late_s: float = 2.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.service_id = str(service_id)
        self.merchant_user_id = str(merchant_user_id)
        self.secret_key = secret_key
        self.late_s = late_s
        self.clock = clock
        self.payments: dict[int, Payment] = {}
        self.receipts: list[Receipt] = []
        self.wire = Wire(target, secret_key, complete_url)
        # far apart from run to run: a merchant's database outlives us, and Click never uses an id twice
        self._ids = itertools.count(secrets.randbelow(10**12) + 10**12)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.wire.close()

    async def follow(self, link: str, *, fault: str = "none") -> Receipt:
        """Open a pay link and pay what it says. Raises `ValueError` for a link that Click would not show."""
        order, amount = self.read_link(link)
        return await self.pay(order, amount, fault=fault)

    def read_link(self, link: str) -> tuple[str, str]:
        """The order and the amount of a pay link."""
        given = parse_qsl(urlsplit(link).query, keep_blank_values=True, strict_parsing=True)
        query = dict(given)
        if len(query) != len(given):
            raise ValueError("a parameter of the link stands twice")
        for name in ("service_id", "merchant_id", "amount", "transaction_param"):
            if not query.get(name):
                raise ValueError(f"the link lacks {name}")
        if query["service_id"] != self.service_id:
            raise ValueError("the link is for another service")
        wire.tiyin(query["amount"])
        return query["transaction_param"], query["amount"]

    async def pay(self, order: str, amount: str, *, fault: str = "none") -> Receipt:
        """Pay `amount` som for `order`. Raises `ValueError` for an unknown fault or amount."""
        if fault not in FAULTS:
            raise ValueError(f"unknown fault {fault!r}; there are {', '.join(FAULTS)}")
        visit = Visit(self.open(order, wire.tiyin(amount)), fault)
        status = await FAULTS[fault].play(self, visit)
        visit.payment.status = 2 if status == "paid" else visit.payment.status
        if status in ("cancelled", "refused"):
            visit.payment.status, visit.payment.debited = -1, False
        receipt = Receipt(status, visit.payment, tuple(visit.steps), tuple(visit.surprises), fault)
        self.receipts.append(receipt)
        del self.receipts[:-500]
        return receipt

    def open(self, order: str, amount: int, mode: str = "shop") -> Payment:
        number = next(self._ids)
        payment = Payment(number, number + 5 * 10**12, order, amount, self.clock(), mode=mode)
        self.payments[payment.paydoc_id] = payment
        return payment

    # --- the two requests -----------------------------------------------------------------------------------

    def fields(self, payment: Payment, action: int, **over: str) -> dict[str, str]:
        found = {
            "click_trans_id": str(payment.trans_id),
            "service_id": self.service_id,
            "click_paydoc_id": str(payment.paydoc_id),
            "merchant_trans_id": payment.order,
            "amount": wire.som(payment.tiyin),
            "action": str(action),
            "error": "0",
            "error_note": "Success",
            "sign_time": wire.sign_time(self.clock()),
        }
        if action == 1:
            found["merchant_prepare_id"] = "" if payment.prepare_id is None else str(payment.prepare_id)
        return found | over

    async def prepare(
        self, visit: Visit, *, sign: str | None = None, lose: bool = False, **over: str
    ) -> Step:
        step = await self.wire.shop(self.fields(visit.payment, 0, **over), sign=sign, lose=lose)
        visit.steps.append(step)
        if step.code == 0 and step.answer:
            given = step.answer.get("merchant_prepare_id")
            if type(given) is not int:
                visit.surprises.append("prepare answered no merchant_prepare_id of type int")
            visit.payment.prepare_id = given
        return step

    async def complete(
        self, visit: Visit, *, sign: str | None = None, lose: bool = False, **over: str
    ) -> Step:
        step = await self.wire.shop(self.fields(visit.payment, 1, **over), sign=sign, lose=lose)
        visit.steps.append(step)
        return step

    async def debit_and_complete(self, visit: Visit, *, may_be_refused: bool = False) -> Status:
        visit.payment.debited, visit.payment.status = True, 1
        step = await self.complete(visit)
        if may_be_refused and step.code == -9:
            return "cancelled"
        if visit.expect(step, 0, -4):
            return "paid"
        return "cancelled" if step.code == -9 else "hanging"

    async def cancel(self, visit: Visit) -> Status:
        """Click's duty after a refused Prepare or a failed debit."""
        note = "Insufficient funds"
        visit.expect(await self.complete(visit, error=str(CARD_ERROR), error_note=note), -9)
        return "cancelled"

    async def volley(self, visit: Visit, action: int) -> list[Step]:
        """The same request many times at once, as an impatient network sends it."""
        request = self.fields(visit.payment, action)
        steps = await asyncio.gather(*(self.wire.shop(request) for _ in range(CONCURRENT)))
        visit.steps += steps
        return steps


# --- the menu of faults -------------------------------------------------------------------------------------


async def _none(click: ClickSimulator, visit: Visit) -> Status:
    if not visit.expect(await click.prepare(visit), 0):
        return "refused"
    return await click.debit_and_complete(visit)


async def _cancel(click: ClickSimulator, visit: Visit) -> Status:
    if not visit.expect(await click.prepare(visit), 0):
        return "refused"
    return await click.cancel(visit)


async def _repeat(click: ClickSimulator, visit: Visit) -> Status:
    first, second = await click.prepare(visit), await click.prepare(visit)
    if not visit.expect(first, 0) or not visit.expect(second, 0):
        return "refused"
    if first.answer != second.answer:
        visit.surprises.append("a repeated prepare was answered differently")
    status = await click.debit_and_complete(visit)
    visit.expect(await click.complete(visit), -4)
    return status


async def _concurrent(click: ClickSimulator, visit: Visit) -> Status:
    prepared = await click.volley(visit, 0)
    if not all(visit.expect(step, 0) for step in prepared):
        return "refused"
    if len({str(step.answer) for step in prepared}) > 1:
        visit.surprises.append("concurrent prepares were answered differently")
    visit.payment.prepare_id = (prepared[0].answer or {}).get("merchant_prepare_id")
    visit.payment.debited, visit.payment.status = True, 1
    completed = await click.volley(visit, 1)
    if not all(visit.expect(step, 0, -4) for step in completed):
        return "hanging"
    if all(step.code == -4 for step in completed):
        visit.surprises.append("no complete was answered 0")
    return "paid"


async def _lost_prepare(click: ClickSimulator, visit: Visit) -> Status:
    await click.prepare(visit, lose=True)
    return await click.cancel(visit)


async def _lost_complete(click: ClickSimulator, visit: Visit) -> Status:
    if not visit.expect(await click.prepare(visit), 0):
        return "refused"
    visit.payment.debited, visit.payment.status = True, 1
    await click.complete(visit, lose=True)
    again = await click.prepare(visit)
    if again.code == -4:  # confirmed before: Click completes the payment and asks no more
        return "paid"
    visit.expect(again, 0, -4)
    return await click.debit_and_complete(visit)


async def _complete_not_sent(click: ClickSimulator, visit: Visit) -> Status:
    first = await click.prepare(visit)
    again = await click.prepare(visit)
    if not visit.expect(first, 0) or not visit.expect(again, 0):
        return "refused"
    return await click.debit_and_complete(visit)


async def _late(click: ClickSimulator, visit: Visit) -> Status:
    if not visit.expect(await click.prepare(visit), 0):
        return "refused"
    await asyncio.sleep(click.late_s)
    return await click.debit_and_complete(visit, may_be_refused=True)


async def _reorder(click: ClickSimulator, visit: Visit) -> Status:
    visit.payment.prepare_id = 1
    visit.expect(await click.complete(visit), -6, -5)
    visit.payment.prepare_id = None
    return await _none(click, visit)


async def _wrong_sign(click: ClickSimulator, visit: Visit) -> Status:
    visit.expect(await click.prepare(visit, sign="0" * 32), -1)
    if not visit.expect(await click.prepare(visit), 0):
        return "refused"
    visit.expect(await click.complete(visit, sign="f" * 32), -1)
    return await click.cancel(visit)


async def _wrong_amount(click: ClickSimulator, visit: Visit) -> Status:
    more = wire.som(visit.payment.tiyin + 1)
    visit.expect(await click.prepare(visit, amount=more), -2)
    if not visit.expect(await click.prepare(visit), 0):
        return "refused"
    visit.expect(await click.complete(visit, amount=more), -2)
    return await click.cancel(visit)


async def _unknown_order(click: ClickSimulator, visit: Visit) -> Status:
    visit.expect(await click.prepare(visit, merchant_trans_id=f"no-such-{secrets.token_hex(6)}"), -5)
    return "refused"


async def _foreign_prepare_id(click: ClickSimulator, visit: Visit) -> Status:
    if not visit.expect(await click.prepare(visit), 0):
        return "refused"
    visit.expect(await click.complete(visit, merchant_prepare_id="999999999"), -6)
    return await click.debit_and_complete(visit)


async def _cancel_after_paid(click: ClickSimulator, visit: Visit) -> Status:
    status = await _none(click, visit)
    if status == "paid":
        visit.expect(await click.complete(visit, error=str(CARD_ERROR), error_note="Cancelled"), -9)
    return status


async def _paid_after_cancel(click: ClickSimulator, visit: Visit) -> Status:
    if await _cancel(click, visit) != "cancelled":
        return "refused"
    visit.expect(await click.complete(visit), -9)
    return "cancelled"


async def _second_payer(click: ClickSimulator, visit: Visit) -> Status:
    if not visit.expect(await click.prepare(visit), 0):
        return "refused"
    other = replace(click.open(visit.payment.order, visit.payment.tiyin))
    step = await click.wire.shop(click.fields(other, 0))
    visit.steps.append(step)
    if step.code == 0:
        visit.surprises.append("the order was reserved twice")
    return await click.debit_and_complete(visit)


async def _garbage(click: ClickSimulator, visit: Visit) -> Status:
    for body in (
        b"",
        b"\x00\xff\xfe",
        b'{"action": 0}',
        b"click_trans_id=1&click_trans_id=2",
        b"amount=%zz&action=0",
        b"a=" + b"x" * 200_000,
    ):
        step = await click.wire.post("garbage", body)
        visit.steps.append(step)
        visit.expect(step, -8, -1)
    return await _none(click, visit)


@dataclass(frozen=True, slots=True)
class Fault:
    title: str
    play: Callable[[ClickSimulator, Visit], Awaitable[Status]]


FAULTS: Final[Mapping[str, Fault]] = {
    "none": Fault("Prepare, debit, Complete", _none),
    "cancel": Fault("the card has no money: Complete with a negative error", _cancel),
    "repeat": Fault("every request twice", _repeat),
    "concurrent": Fault(f"every request {CONCURRENT} times at once", _concurrent),
    "lost_prepare": Fault("the answer to Prepare is lost: Click gives up", _lost_prepare),
    "lost_complete": Fault("the answer to Complete is lost: Prepare again, then Complete", _lost_complete),
    "complete_not_sent": Fault("Complete never left Click: Prepare again, then Complete", _complete_not_sent),
    "late": Fault("Complete comes late", _late),
    "reorder": Fault("Complete comes before Prepare", _reorder),
    "wrong_sign": Fault("requests signed with a wrong key", _wrong_sign),
    "wrong_amount": Fault("one tiyin too much", _wrong_amount),
    "unknown_order": Fault("an order that does not exist", _unknown_order),
    "foreign_prepare_id": Fault("Complete names another merchant_prepare_id first", _foreign_prepare_id),
    "cancel_after_paid": Fault("a negative Complete after a good one", _cancel_after_paid),
    "paid_after_cancel": Fault("a good Complete after a cancelled one", _paid_after_cancel),
    "second_payer": Fault("another payer begins to pay the same order", _second_payer),
    "garbage": Fault("bytes that are no request, then a payment", _garbage),
}


def told(step: Step) -> dict[str, Any]:
    """A step as data, for a log or a page."""
    return {
        "request": step.name,
        "sent": dict(step.sent),
        "http": step.status,
        "answer": step.answer,
        "trouble": step.trouble,
        "elapsed_ms": round(step.elapsed_ms, 1),
    }
