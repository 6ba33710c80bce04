"""We play a kiosk: does a terminal answer as the document and the captured frames have it?"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from tillgate.conform import Check, Failed, NoAnswer, Wire, expect
from tillgate.providers.mobypay.conformance.person import Person
from tillgate.providers.mobypay.conformance.wire import LONGEST_LINE, Talk, frame, fresh, stamped

DOCUMENT: Final = "the kiosk document"
ACKS: Final = ("processing", "received", "plan_received")
ENDS: Final = ("success", "approved", "failed")
ACK_S: Final = 10.0
SILENCE_S: Final = 1.0


@dataclass
class TerminalTarget:
    """Where we listen; the terminal connects to us and somebody (or nobody) presses its keys."""

    host: str
    port: int
    secret: str = field(repr=False)
    patience_s: float = 45.0
    person: Person | None = None
    silence_s: float = SILENCE_S
    sen: itertools.count[int] = field(default_factory=lambda: itertools.count(101))


@contextlib.asynccontextmanager
async def terminal(wire: Wire) -> AsyncIterator[Talk]:
    """Listen until the terminal connects. Raises `NoAnswer` where it does not."""
    settings: TerminalTarget = wire.target.settings
    came: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    writers: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await came.put((reader, writer))

    try:
        server = await asyncio.start_server(accept, settings.host, settings.port, limit=LONGEST_LINE)
    except OSError as error:
        raise NoAnswer(f"cannot listen on {settings.host}:{settings.port} ({error.strerror})") from None
    try:
        async with asyncio.timeout(settings.patience_s):
            reader, writer = await came.get()
        yield Talk(wire, reader, writer, settings.secret)
    except TimeoutError:
        raise NoAnswer(f"no terminal connected within {settings.patience_s:g} s") from None
    finally:
        server.close()
        for one in writers:
            one.transport.abort()


def order(wire: Wire, mode: str = "card", do: str = "approve") -> dict[str, Any]:
    """A request, and what whoever stands at the terminal is to do about it."""
    settings: TerminalTarget = wire.target.settings
    sen = next(settings.sen)
    amount = float(Decimal(sen) / 100)
    if settings.person is not None and do:
        settings.person.told(f"At the terminal, {do}: {mode}, RM {amount:.2f}")
    return stamped(
        type="transaction_request", kiosk_id="CONFORM", txn_id=f"TXN{secrets.token_hex(8).upper()}",
        amount=amount, payment_mode=mode,
    )  # fmt: skip


async def acked(talk: Talk, asked: dict[str, Any]) -> dict[str, Any]:
    said = await talk.hear(ACK_S)
    expect(said.get("type") == "ack", f"the first answer is an ack, not {said.get('type')!r}")
    fresh(said)
    expect(said.get("txn_id") == asked["txn_id"], "the ack names the payment")
    expect(said.get("status") in ACKS, f"its status is one of {', '.join(ACKS)}, not {said.get('status')!r}")
    return said


async def ended(talk: Talk, asked: dict[str, Any], patience_s: float) -> dict[str, Any]:
    said = await talk.hear(patience_s, "transaction_result")
    fresh(said)
    expect(said.get("txn_id") == asked["txn_id"], "the result names the payment")
    expect(said.get("status") in ENDS, f"its status is one of {', '.join(ENDS)}, not {said.get('status')!r}")
    if said["status"] == "failed":
        return said
    amount = said.get("amount")
    if amount is not None:
        expect(type(amount) in (int, float), "amount is a JSON number")
        expect(Decimal(str(amount)) == Decimal(str(asked["amount"])), "the amount is the one that was asked")
    return said


def whole(mode: str, pieces: int = 1) -> Callable[[Wire], Awaitable[None]]:
    async def run(wire: Wire) -> None:
        async with terminal(wire) as talk:
            asked = order(wire, mode)
            await talk.send(frame(asked, talk.secret), pieces)
            await acked(talk, asked)
            await ended(talk, asked, wire.target.settings.patience_s)

    return run


async def instalments(wire: Wire) -> None:
    async with terminal(wire) as talk:
        asked = order(wire, "ipp", "offer plans, and approve when one was chosen")
        await talk.say(asked)
        await acked(talk, asked)
        said = await talk.hear(wire.target.settings.patience_s, "transaction_result")
        expect(said.get("status") == "ipp_plans", f"it offers plans first, not {said.get('status')!r}")
        plans = said.get("plans")
        expect(isinstance(plans, list) and plans, "plans is a list that is not empty")
        assert isinstance(plans, list)
        for one in plans:
            expect(isinstance(one, dict) and isinstance(one.get("planId"), str), "a plan has a planId")
            expect(isinstance(one.get("installmentDetails", []), list), "installmentDetails is a list")
        chosen = stamped(
            type="ipp_plan_selection", kiosk_id="CONFORM", txn_id=asked["txn_id"], plan_id=plans[0]["planId"]
        )
        await talk.say(chosen)
        await acked(talk, asked)
        await ended(talk, asked, wire.target.settings.patience_s)


async def cancelled(wire: Wire) -> None:
    """What it says is the end of it, whichever came first; but it must say something."""
    async with terminal(wire) as talk:
        asked = order(wire, do="touch nothing, it will be cancelled")
        await talk.say(asked)
        await acked(talk, asked)
        await talk.say(stamped(type="cancel_transaction", kiosk_id="CONFORM", txn_id=asked["txn_id"]))
        said = await talk.hear(wire.target.settings.patience_s)
        while said.get("type") != "transaction_result":
            said = await talk.hear(wire.target.settings.patience_s)
        expect(said.get("status") in ENDS, f"a result ends it, not {said.get('status')!r}")


def unheard(change: Callable[[dict[str, Any], str], bytes], what: str) -> Callable[[Wire], Awaitable[None]]:
    """It must not ask the payer for this one; a good request afterwards is taken."""

    async def run(wire: Wire) -> None:
        async with terminal(wire) as talk:
            await talk.send(change(order(wire, do=""), talk.secret))
            if not await talk.silent(wire.target.settings.silence_s):
                raise Failed(f"it took {what}")
        async with terminal(wire) as talk:
            asked = order(wire)
            await talk.say(asked)
            await acked(talk, asked)
            await ended(talk, asked, wire.target.settings.patience_s)

    return run


async def replayed(wire: Wire) -> None:
    """A recorded request is the next charge of a terminal that keeps no nonces."""
    async with terminal(wire) as talk:
        asked = order(wire)
        data = frame(asked, talk.secret)
        await talk.send(data)
        await acked(talk, asked)
        await ended(talk, asked, wire.target.settings.patience_s)
        await talk.send(data)
        expect(await talk.silent(wire.target.settings.silence_s), "it took the same request twice")


async def reconnects(wire: Wire) -> None:
    for _ in range(2):
        async with terminal(wire):
            pass


def _stale(asked: dict[str, Any], secret: str) -> bytes:
    return frame({**asked, "timestamp": str(int(asked["timestamp"]) - 61_000)}, secret)


def _forged(asked: dict[str, Any], secret: str) -> bytes:
    return frame(asked, secret + "!")


def _altered(asked: dict[str, Any], secret: str) -> bytes:
    amount = f'"amount":{asked["amount"]}'.encode()
    return frame(asked, secret).replace(amount, b'"amount":9.99')


def _check(name: str, title: str, run: Callable[[Wire], Awaitable[None]], group: str, source: str) -> Check:
    return Check(name, title, f"{DOCUMENT}, {source}", run, group)


_FLOW, _SAFE = "payments", "what a terminal must not take"
CHECKS: Final = (
    _check("link.reconnect", "it connects, and connects again", reconnects, _FLOW, "transport"),
    _check("flow.card", "card: ack, then the result", whole("card"), _FLOW, "flows"),
    _check("flow.bnpl", "BNPL: ack, then the result", whole("bnpl"), _FLOW, "flows"),
    _check("flow.duitnow", "DuitNow QR: ack, then the result", whole("duitnow_qr"), _FLOW, "flows"),
    _check("flow.ipp", "IPP: plans, selection, ack, result", instalments, _FLOW, "flows"),
    _check("flow.cancel", "a cancel ends the payment", cancelled, _FLOW, "cancel_transaction"),
    _check("frame.split", "a request in nine segments", whole("card", 9), _FLOW, "framing"),
    _check("sign.forged", "a forged request", unheard(_forged, "a forged request"), _SAFE, "signature"),
    _check("sign.altered", "another amount than signed", unheard(_altered, "an altered amount"), _SAFE,
           "signature"),
    _check("time.stale", "a request of a minute ago", unheard(_stale, "a stale request"), _SAFE, "timestamp"),
    _check("nonce.replay", "a recorded request", replayed, _SAFE, "nonce"),
)  # fmt: skip
