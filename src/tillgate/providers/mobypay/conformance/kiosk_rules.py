"""We play a terminal: does a kiosk speak the document, and does it believe only what it may?"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, TypeAlias

from tillgate.conform import Check, NoAnswer, Skipped, Wire, expect
from tillgate.providers.mobypay.conformance.person import Person
from tillgate.providers.mobypay.conformance.wire import LONGEST_LINE, Talk, frame, fresh, stamped

DOCUMENT: Final = "the kiosk document"
MODES: Final = ("card", "bnpl", "duitnow_qr", "ipp")
PAID: Final = ("paid", "succeeded", "success")


Command: TypeAlias = str | Callable[..., Awaitable[str]]
"""A command line with {placeholders}, or a function that takes them by name; what it prints, or gives."""


@dataclass
class KioskTarget:
    """How to reach a kiosk and make it take a payment. Commands are filled in and run without a shell.

    Without `pay` a person is at the kiosk, and does and says whatever no command is given for."""

    host: str
    port: int
    secret: str = field(repr=False)
    pos_id: str = "POS001"
    pay: Command = ""
    outcome: Command = ""
    cancel: Command = ""
    plan: Command = ""
    patience_s: float = 45.0
    settle_s: float = 2.0
    person: Person = field(default_factory=Person)
    sen: itertools.count[int] = field(default_factory=lambda: itertools.count(101))

    def need(self, *names: str) -> None:
        """Before a payment is begun in vain. Raises `Skipped`."""
        for name in names:
            if self.pay and not getattr(self, name):
                raise Skipped(f"it needs -o {name}=COMMAND")


@dataclass
class Asked:
    """A payment that the kiosk asked us for."""

    talk: Talk
    settings: KioskTarget
    payload: dict[str, Any]
    amount: str

    @property
    def txn_id(self) -> str:
        return str(self.payload["txn_id"])

    def answer(self, kind: str, status: str, **more: Any) -> dict[str, Any]:
        who: dict[str, Any] = {"txn_id": self.txn_id, "status": status, "pos_id": self.settings.pos_id}
        return stamped(type=kind, **who, **more)

    def success(self, **more: Any) -> dict[str, Any]:
        members = {"amount": self.payload["amount"], "transaction_id": self.txn_id[-6:], **more}
        return self.answer("transaction_result", "success", **members)

    async def end(self) -> None:
        """Leave nothing open at the kiosk, so that the next check begins afresh."""
        with contextlib.suppress(NoAnswer):
            await self.talk.say(self.answer("transaction_result", "failed", error_message="USER_ABORT"))


@contextlib.asynccontextmanager
async def connected(wire: Wire) -> AsyncIterator[Talk]:
    settings: KioskTarget = wire.target.settings
    try:
        reader, writer = await asyncio.open_connection(settings.host, settings.port, limit=LONGEST_LINE)
    except OSError as error:
        raise NoAnswer(f"no connection to {settings.host}:{settings.port} ({error.strerror})") from None
    talk = Talk(wire, reader, writer, settings.secret)
    try:
        yield talk
    finally:
        await talk.end()
        await asyncio.sleep(0.25)  # for the kiosk to see that this terminal is gone


@contextlib.asynccontextmanager
async def asked(wire: Wire, mode: str = "card", whole: bool = False) -> AsyncIterator[Asked]:
    """Have the kiosk ask us for a payment of an amount that no other check uses."""
    settings: KioskTarget = wire.target.settings
    sen = next(settings.sen) * (100 if whole else 1)
    amount = f"{sen // 100}.{sen % 100:02d}"
    async with connected(wire) as talk:
        await asyncio.sleep(0.05)
        running = asyncio.create_task(_begin(settings, mode, amount))
        try:
            payload = await talk.hear(settings.patience_s, "transaction_request")
            yield Asked(talk, settings, payload, amount)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def _begin(settings: KioskTarget, mode: str, amount: str) -> None:
    if settings.pay:
        await _run(settings.pay, mode=mode, amount=amount)
    else:
        settings.person.told(f"At the kiosk, start a {mode} payment of RM {amount}")


async def _run(command: Command, **values: str) -> str:
    if not isinstance(command, str):
        return await command(**values)
    words = [word.format(**values) for word in shlex.split(command)]
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    try:
        said, _ = await process.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    return said.decode("utf-8", "replace").strip()


async def believed(one: Asked, wanted: bool) -> None:
    """Ask the kiosk's own words what became of it, or whoever stands before it. Raises `Skipped`."""
    try:
        paid, said = await _believes(one, wanted)
    except Skipped:
        await one.end()
        raise
    if not wanted:
        await one.end()
    expect(paid == wanted, f"the kiosk says {said!r} where it must {'' if wanted else 'not '}be paid")


async def _believes(one: Asked, wanted: bool) -> tuple[bool, str]:
    settings = one.settings
    if not settings.outcome:
        await asyncio.sleep(settings.settle_s / 4)
        question = f"Does the kiosk call the payment of RM {one.amount} paid?"
        yes = await settings.person.says_yes(question, settings.patience_s)
        return yes, "paid" if yes else "not paid"
    said = ""
    for _ in range(int(settings.settle_s * 10)):  # it may need a moment to write it down
        said = await _run(settings.outcome, txn_id=one.txn_id)
        with contextlib.suppress(ValueError, AttributeError):
            said = str(json.loads(said).get("state", said))
        if (said in PAID) == wanted and (wanted or said != ""):
            break
        await asyncio.sleep(0.1)
    return said in PAID, said


# --- what a kiosk sends -------------------------------------------------------------------------------------


async def request(wire: Wire) -> None:
    async with asked(wire) as one:
        said = one.payload
        fresh(said)
        expect(isinstance(said.get("kiosk_id"), str) and said["kiosk_id"], "kiosk_id is a text")
        expect(isinstance(said.get("txn_id"), str) and said["txn_id"], "txn_id is a text")
        expect(said.get("payment_mode") == "card", "payment_mode is the mode that was asked for")
        amount = said.get("amount")
        expect(type(amount) in (int, float), "amount is a JSON number")
        expect(Decimal(str(amount)) == Decimal(one.amount), f"amount is {one.amount} ringgit, not {amount}")
        await one.end()


async def whole_amount(wire: Wire) -> None:
    async with asked(wire, whole=True) as one:
        amount = one.payload.get("amount")
        expect(Decimal(str(amount)) == Decimal(one.amount), f"amount is {one.amount} ringgit, not {amount}")
        await one.end()


async def modes(wire: Wire) -> None:
    for mode in MODES:
        async with asked(wire, mode) as one:
            expect(one.payload.get("payment_mode") == mode, f"payment_mode is {mode}")
            await one.end()


async def unique(wire: Wire) -> None:
    seen: list[tuple[str, str]] = []
    for _ in range(3):
        async with asked(wire) as one:
            seen.append((one.txn_id, str(one.payload.get("nonce"))))
            await one.end()
    expect(len({txn_id for txn_id, _ in seen}) == 3, "every payment has a txn_id of its own")
    expect(len({nonce for _, nonce in seen}) == 3, "every frame has a nonce of its own")
    expect(
        not all(re.fullmatch(r"TXN\d{13}", txn) for txn, _ in seen), "a txn_id cannot be guessed from a clock"
    )


async def cancel(wire: Wire) -> None:
    settings: KioskTarget = wire.target.settings
    settings.need("cancel")
    async with asked(wire) as one:
        await one.talk.say(one.answer("ack", "processing"))
        if settings.cancel:
            await _run(settings.cancel, txn_id=one.txn_id)
        else:
            settings.person.told(f"At the kiosk, cancel the payment of RM {one.amount}")
        said = await one.talk.hear(settings.patience_s, "cancel_transaction")
        expect(said.get("txn_id") == one.txn_id, "the cancel names the payment")
        await one.talk.say(one.answer("ack", "received"))
        await one.end()


async def plan(wire: Wire) -> None:
    settings: KioskTarget = wire.target.settings
    settings.need("plan")
    async with asked(wire, "ipp") as one:
        await one.talk.say(one.answer("ack", "processing"))
        offered = [
            {"planId": "pay-in-full", "frequency": "", "totalInstallments": 0, "installmentDetails": []},
            {"planId": "IPP_3M", "frequency": "Monthly", "totalInstallments": 3, "installmentDetails": []},
        ]
        await one.talk.say(one.answer("transaction_result", "ipp_plans", plans=offered))
        await asyncio.sleep(0.3)
        if settings.plan:
            await _run(settings.plan, txn_id=one.txn_id, plan_id="IPP_3M")
        else:
            settings.person.told("At the kiosk, choose the plan IPP_3M")
        said = await one.talk.hear(settings.patience_s, "ipp_plan_selection")
        expect(said.get("plan_id") == "IPP_3M", "the selection names the plan that was chosen")
        expect(said.get("txn_id") == one.txn_id, "the selection names the payment")
        await one.talk.say(one.answer("ack", "plan_received"))
        await one.talk.say(one.success())


# --- what a kiosk believes ----------------------------------------------------------------------------------


def after(says: Callable[[Asked], Awaitable[None]], *, paid: bool) -> Callable[[Wire], Awaitable[None]]:
    async def run(wire: Wire) -> None:
        settings: KioskTarget = wire.target.settings
        settings.need("outcome")
        async with asked(wire) as one:
            await one.talk.say(one.answer("ack", "processing"))
            await asyncio.sleep(0.05)  # apart from the ack, in a segment of its own
            await says(one)
            await asyncio.sleep(0.1)
            await believed(one, paid)

    return run


async def _plain(one: Asked) -> None:
    await one.talk.say(one.success())


async def _split(one: Asked) -> None:
    data = frame(one.success(), one.settings.secret)
    await one.talk.send(data, pieces=12)


async def _together(one: Asked) -> None:
    secret = one.settings.secret
    await one.talk.send(frame(one.answer("ack", "processing"), secret) + frame(one.success(), secret))


async def _crlf(one: Asked) -> None:
    await one.talk.send(b"\r\n" + frame(one.success(), one.settings.secret).rstrip(b"\n") + b"\r\n")


async def _unsuccessful(one: Asked) -> None:
    await one.talk.say(one.answer("transaction_result", "unsuccessful", amount=one.payload["amount"]))


async def _disapproved(one: Asked) -> None:
    await one.talk.say(one.answer("transaction_result", "disapproved", amount=one.payload["amount"]))


async def _other_amount(one: Asked) -> None:
    await one.talk.say(one.success(amount=0.01))


async def _forged(one: Asked) -> None:
    await one.talk.send(frame(one.success(), one.settings.secret + "!"))


async def _stale(one: Asked) -> None:
    members = {key: value for key, value in one.success().items() if key not in ("timestamp", "nonce")}
    await one.talk.say(stamped(age_ms=61_000, **members))


async def _other_payment(one: Asked) -> None:
    await one.talk.say({**one.success(), "txn_id": "TXN0000000000000"})


async def _twice_in_one(one: Asked) -> None:
    """The signature is of what one parser reads; another reads the other value."""
    said = one.answer("transaction_result", "failed", amount=one.payload["amount"])
    data = frame(said, one.settings.secret)
    await one.talk.send(data.replace(b'"status":"failed"', b'"status":"success","status":"failed"'))


async def _garbage(one: Asked) -> None:
    await one.talk.send(b"{not json}\n\xff\xfe\n[1]\n")
    await one.talk.say(one.success())


async def stranger(wire: Wire) -> None:
    """Another terminal, that was never asked, settles the payment."""
    settings: KioskTarget = wire.target.settings
    settings.need("outcome")
    async with asked(wire) as one:
        await one.talk.say(one.answer("ack", "processing"))
        async with connected(wire) as other:
            await other.say({**one.success(), "pos_id": "POS-OTHER"})
            await asyncio.sleep(0.3)
            await believed(one, False)


def _check(name: str, title: str, run: Callable[[Wire], Awaitable[None]], group: str, source: str) -> Check:
    return Check(name, title, f"{DOCUMENT}, {source}", run, group)


_SENDS, _BELIEVES = "what the kiosk sends", "what the kiosk believes"
CHECKS: Final = (
    _check("request.fields", "a request has its fields, a fresh time and a good signature", request, _SENDS,
           "transaction_request"),
    _check("request.whole", "a whole amount arrives to the sen", whole_amount, _SENDS, "transaction_request"),
    _check("request.modes", "all four modes can be asked for", modes, _SENDS, "payment modes"),
    _check("request.unique", "payments and frames have ids of their own", unique, _SENDS, "nonce, txn_id"),
    _check("cancel.frame", "a cancel names its payment", cancel, _SENDS, "cancel_transaction"),
    _check("plan.frame", "a plan's selection names payment and plan", plan, _SENDS, "ipp_plan_selection"),
    _check("result.success", "a success is a success", after(_plain, paid=True), _BELIEVES, "statuses"),
    _check("frame.split", "a frame in twelve segments", after(_split, paid=True), _BELIEVES, "framing"),
    _check("frame.together", "ack and result together", after(_together, paid=True), _BELIEVES, "framing"),
    _check("frame.crlf", "CRLF and blank lines", after(_crlf, paid=True), _BELIEVES, "framing"),
    _check("frame.garbage", "garbage before a good frame", after(_garbage, paid=True), _BELIEVES, "framing"),
    _check("status.unsuccessful", '"unsuccessful" is not paid', after(_unsuccessful, paid=False), _BELIEVES,
           "statuses"),
    _check("status.disapproved", '"disapproved" is not paid', after(_disapproved, paid=False), _BELIEVES,
           "statuses"),
    _check("result.amount", "a success of another amount is not paid", after(_other_amount, paid=False),
           _BELIEVES, "transaction_result"),
    _check("result.other", "another payment's success is not its", after(_other_payment, paid=False),
           _BELIEVES, "transaction_result"),
    _check("sign.forged", "a forged success is not paid", after(_forged, paid=False), _BELIEVES, "signature"),
    _check("time.stale", "a success of a minute ago is not paid", after(_stale, paid=False), _BELIEVES,
           "timestamp"),
    _check("json.duplicate", "a member given twice is not believed", after(_twice_in_one, paid=False),
           _BELIEVES, "signature"),
    _check("owner.stranger", "a terminal that was not asked settles nothing", stranger, _BELIEVES,
           "transaction_result"),
)  # fmt: skip
