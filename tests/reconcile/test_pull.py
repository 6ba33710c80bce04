"""A statement that the provider is asked for: whole, or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web

from support.serving import rows
from tillgate.domain.errors import NotAllowed, Unsure
from tillgate.hub import Intent
from tillgate.hub.matching import Booked, match
from tillgate.runtime import Runtime
from tillgate.settings import Settings
from tillgate.spi import Channel, HttpCall, Order, Provider, Send, Show, StatementLine

PAGES = 3


class Config(msgspec.Struct, frozen=True):
    url: str


class Bank:
    """Gives its statement page by page, over real HTTP."""

    def __init__(self, config: Config) -> None:
        self._url = config.url

    def invite(self, order: Order) -> Show | None:
        return Show("qr", qr_string="00020101")

    async def statement(self, from_ms: int, to_ms: int, send: Send) -> AsyncIterator[StatementLine]:
        for page in range(PAGES):
            reply = await send(
                HttpCall("GET", f"{self._url}/statement?from={from_ms}&to={to_ms}&page={page}")
            )
            if reply.status != 200:
                raise Unsure(f"the statement ended at page {page}")
            for line in msgspec.json.decode(reply.body, type=list[dict[str, Any]]):
                yield StatementLine(kind="payment", currency="IDR", **line)


def provider(name: str, connect: Any) -> Provider[Any]:
    return Provider(name, name.title(), Config, (Channel(name, name.title(), "IDR"),), connect)


async def test_a_statement_is_asked_for_whole_or_not_at_all(database_url: str) -> None:
    asked: list[str] = []
    broken: set[int] = set()

    async def answer(request: web.Request) -> web.Response:
        page = int(request.query["page"])
        asked.append(f"{request.query['from']}-{request.query['to']}")
        if page in broken:
            return web.Response(status=500)
        return web.json_response([{"amount_minor": 7_000_000 + page, "external_id": f"T-{page}"}])

    app = web.Application()
    app.router.add_get("/statement", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    known = {"bank": provider("bank", Bank), "mute": provider("mute", lambda _config: object())}
    try:
        settings = Settings(database_url=database_url, sandbox=True)
        async with Runtime(settings, providers=known) as runtime:
            made = await runtime.create_merchant("shop")
            for name in known:
                await runtime.directory.create_account(made.merchant_id, name, name, {"url": url}, 1)
            merchant = await runtime.directory.merchant(made.merchant_id)
            bank, mute = (next(one for one in merchant.accounts if one.name == name) for name in known)
            reconciling = runtime.hub.reconciling
            lines = await reconciling.pull(merchant, bank, 1_000, 2_000)
            assert [(one.external_id, one.amount_minor) for one in lines] == [
                ("T-0", 7_000_000), ("T-1", 7_000_001), ("T-2", 7_000_002),
            ]  # fmt: skip
            assert asked == ["1000-2000"] * PAGES
            done = await reconciling.compare(merchant, bank, lines, source="api", from_ms=1_000, to_ms=2_000)
            assert done.summary["findings"] == {"missing_here": 3}

            broken.add(2)
            with pytest.raises(Unsure):
                await reconciling.pull(merchant, bank, 1_000, 2_000)
            with pytest.raises(NotAllowed, match="file"):
                await reconciling.pull(merchant, mute, 1_000, 2_000)
            assert await rows(database_url, "SELECT COUNT(*) FROM reconciliations") == [(1,)]

            # An order that nobody paid, named by its order id: they have money, we have none.
            opened = await runtime.hub.open(merchant, Intent("ORD-1", 5_000_000, "IDR", "bank"))
            line = StatementLine(kind="payment", amount_minor=5_000_000, currency="IDR", reference="ORD-1")
            done = await reconciling.compare(merchant, bank, [line], source="api", from_ms=1_000, to_ms=2_000)
            assert done.summary["findings"] == {"unpaid_here": 1}
            payment = await runtime.kit.reads.payment(opened.payment.id)
            assert payment is not None
            assert (payment.status, payment.paid_minor, payment.version) == ("pending", 0, 1)
    finally:
        await runner.cleanup()


def booked(key: str, amount: int, *names: str, **changed: Any) -> Booked:
    given: dict[str, Any] = {"kind": "payment", "subject": f"pay_{key}", "key": key, "names": names,
                             "amounts": (amount,), "currency": "IDR", "at": 500}  # fmt: skip
    return Booked(**(given | changed))


def line(amount: int, name: str | None = None, **changed: Any) -> StatementLine:
    given: dict[str, Any] = {"kind": "payment", "amount_minor": amount, "currency": "IDR", "at": 500}
    return StatementLine(**(given | {"external_id": name} | changed))


@pytest.mark.parametrize(
    ("lines", "ours", "found"),
    [
        ([], [], []),
        ([line(5, "a")], [booked("1", 5, "a")], []),
        ([line(5, "a")], [], [("missing_here", None)]),
        ([], [booked("1", 5, "a")], [("missing_there", "pay_1")]),
        ([], [booked("1", 5, "a", expected=False)], []),
        ([line(5, "a")], [booked("1", 6, "a")], [("amount_differs", "pay_1")]),
        # Two attempts of one order: each line finds its own, whatever the order of the lines.
        ([line(6, "o"), line(5, "o")], [booked("1", 5, "o"), booked("2", 6, "o")], []),
        ([line(5, "o"), line(5, "o")], [booked("1", 5, "o")], [("repeated_there", "pay_1")]),
        # Nothing to go by but amount and day; one too many stays.
        ([line(5), line(5)], [booked("1", 5, "a"), booked("2", 5, "b")], []),
        ([line(5), line(5)], [booked("1", 5, "a")], [("missing_here", None)]),
        ([line(5, at=None)], [booked("1", 5, "a")], [("missing_here", None), ("missing_there", "pay_1")]),
        ([line(5, at=86_400_001)], [booked("1", 5)], [("missing_here", None), ("missing_there", "pay_1")]),
        # A name of their own is never paired by its amount.
        ([line(5, "x")], [booked("1", 5, "a")], [("missing_here", None), ("missing_there", "pay_1")]),
        ([line(5, "a", currency="MYR")], [booked("1", 5, "a")], [("currency_differs", "pay_1")]),
        ([line(5, "a")], [booked("1", 5, "a", done=False)], [("unpaid_here", "pay_1")]),
        ([line(5, "a", kind="refund")], [booked("1", 5, "a", expected=False)], [("missing_here", None)]),
        ([line(5, "a", fee_minor=2)], [booked("1", 5, "a", fee_minor=1)], [("fee_differs", "pay_1")]),
        ([line(5, "a", fee_minor=2)], [booked("1", 5, "a")], []),
        ([line(7, "a")], [booked("1", 5, "a", amounts=(5, 7))], []),
        # A code that was paid twice: one sum in our books, two lines in theirs.
        ([line(5, "a"), line(5, "a")], [booked("1", 10, "a")], []),
        ([line(5, "a"), line(4, "a")], [booked("1", 10, "a")],
         [("amount_differs", "pay_1"), ("repeated_there", "pay_1")]),
        ([line(5, "a"), line(5, "a"), line(5, "a")], [booked("1", 10, "a")],
         [("amount_differs", "pay_1"), ("repeated_there", "pay_1"), ("repeated_there", "pay_1")]),
    ],
)  # fmt: skip
def test_lines_and_books_meet(
    lines: list[StatementLine], ours: list[Booked], found: list[tuple[str, str | None]]
) -> None:
    assert [(one.kind, one.subject) for one in match(lines, ours).findings] == found
