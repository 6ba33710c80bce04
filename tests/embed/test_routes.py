"""Routes as hosts write them: some read the request before the handler does."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from fastapi import FastAPI, Form, Request
from sqlalchemy import String
from sqlalchemy.orm import Mapped, Session, mapped_column

from tillgate.integrations.fastapi import ClickWebhookHandler
from tillgate.providers.click.tests.conftest import SECRET, SERVICE, click_form
from tillgate.providers.payme.tests.payme_kit import (
    PRICE_TIYIN,
    Base,
    Caller,
    Host,
    SyncHandler,
    code,
    host_on,
    serve,
)
from tillgate.providers.payme.tests.payme_kit import Order as PaymeOrder


class Numbered(Base):
    """A model that has an `order_id` of its own, beside its key."""

    __tablename__ = "numbered"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[str] = mapped_column(String(20), unique=True)
    amount: Mapped[int]


@pytest.fixture
async def host(request: pytest.FixtureRequest) -> AsyncIterator[Host]:
    async with host_on("sqlite-sync", request) as made:
        yield made


def click_on(db: Session, model: Any = PaymeOrder, **settings: Any) -> ClickWebhookHandler:
    return ClickWebhookHandler(db, SERVICE, SECRET, model, **settings)


# --- the body was read before the handler -------------------------------------------------------------------


async def by_form(request: Request) -> None:
    assert (await request.form())["action"] in ("0", "1")


async def by_body(request: Request) -> None:
    await request.body()


@pytest.mark.parametrize("read", [by_form, by_body])
async def test_a_route_may_read_clicks_form_first(host: Host, read: Any) -> None:
    """To choose a service by the form, or to log it."""
    app = FastAPI()

    @app.post("/click")
    async def webhook(request: Request) -> Any:
        await read(request)
        with host.sessions() as db:
            return await click_on(db).handle_webhook(request)

    assert [answer["error"] for answer in await paid_by_click(app, "3", "15000.50")] == [0, 0]
    assert [(row.account_id, row.state) for row in await host.transactions()] == [("3", 2)]


async def test_a_route_may_take_fields_of_clicks_form_as_parameters(host: Host) -> None:
    app = FastAPI()

    @app.post("/click")
    async def webhook(request: Request, action: int = Form(), merchant_trans_id: str = Form()) -> Any:
        assert (action in (0, 1), merchant_trans_id) == (True, "3")
        with host.sessions() as db:
            return await click_on(db).handle_webhook(request)

    assert [answer["error"] for answer in await paid_by_click(app, "3", "15000.50")] == [0, 0]


async def test_a_form_that_was_read_first_is_verified_all_the_same(host: Host) -> None:
    app = FastAPI()

    @app.post("/click")
    async def webhook(request: Request) -> Any:
        await request.form()
        with host.sessions() as db:
            return await click_on(db).handle_webhook(request)

    async with serve(app) as base, aiohttp.ClientSession() as session:
        forged = click_form(0, "3", "15000.50", 7, secret="another-key")
        assert (await posted(session, base, forged))["error"] == -1
        foreign = click_form(0, "заказ+3 &=%", "15000.50", 8)  # as percent escapes, and back
        assert (await posted(session, base, foreign))["error"] == -5


async def test_a_route_may_read_paymes_json_first(host: Host) -> None:
    app = FastAPI()

    @app.post("/payme")
    async def webhook(request: Request) -> Any:
        assert (await request.json())["method"]
        await request.form()  # not a form: Starlette leaves the body alone
        with host.sessions() as db:
            return await host.made(db).handle_webhook(request)

    async with serve(app) as base, aiohttp.ClientSession() as session:
        await Caller(f"{base}/payme", session).performed()


async def test_a_body_that_is_gone_is_a_system_error_in_the_gateways_words(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()

    @app.post("/{gateway}")
    async def webhook(request: Request, gateway: str) -> Any:
        async for _ in request.stream():
            pass
        with host.sessions() as db:
            return await (click_on(db) if gateway == "click" else host.made(db)).handle_webhook(request)

    with caplog.at_level(logging.ERROR, "tillgate"):
        async with serve(app) as base, aiohttp.ClientSession() as session:
            assert (await posted(session, base, click_form(0, "3", "15000.50", 7)))["error"] == -7
            payme = Caller(f"{base}/payme", session)
            assert code(await payme("CheckPerformTransaction", {"amount": PRICE_TIYIN})) == -32400
    assert caplog.text.count("the body was read before the handler") == 2


# --- which column names the order ---------------------------------------------------------------------------


@pytest.mark.parametrize("hooked", [False, True])
async def test_click_finds_the_order_by_its_own_order_id(host: Host, hooked: bool) -> None:
    """Its numbers may be another order's key: the wrong one must never be paid."""
    told: list[str] = []

    class Hooked(ClickWebhookHandler):
        def transaction_created(self, params: Any, transaction: Any, account: Any) -> None:
            assert account.order_id == params["merchant_trans_id"]

        def successfully_payment(self, params: Any, transaction: Any) -> None:
            told.append(transaction.extra_data["merchant_trans_id"])

    kind = Hooked if hooked else ClickWebhookHandler
    with host.sessions() as db:
        db.add_all(
            Numbered(id=number, order_id=name, amount=1000)
            for number, name in ((1, "2"), (2, "1"), (3, "A-77"))
        )
        db.commit()
    app = FastAPI()

    @app.post("/click")
    async def webhook(request: Request) -> Any:
        with host.sessions() as db:
            made = kind(db, SERVICE, SECRET, Numbered, account_field="order_id")
            return await made.handle_webhook(request)

    for name, trans in (("1", 1), ("A-77", 2), ("2", 3)):
        answers = await paid_by_click(app, name, "1000", trans)
        assert [answer["error"] for answer in answers] == [0, 0]
    assert [row["error"] for row in await paid_by_click(app, "3", "1000", 4)] == [-5]
    rows = await host.transactions()
    assert [(row.account_id, row.state) for row in rows] == [("2", 2), ("3", 2), ("1", 2)]
    assert [row.extra_data["merchant_trans_id"] for row in rows] == ["1", "A-77", "2"]
    assert told == (["1", "A-77", "2"] if hooked else [])


async def test_order_id_is_the_key_where_the_model_has_no_other(host: Host) -> None:
    app = FastAPI()

    @app.post("/click")
    async def webhook(request: Request) -> Any:
        with host.sessions() as db:
            return await click_on(db, account_field="order_id").handle_webhook(request)

    assert [answer["error"] for answer in await paid_by_click(app, "3", "15000.50")] == [0, 0]
    assert [row.account_id for row in await host.transactions()] == ["3"]


async def test_for_payme_order_id_is_always_the_key(request: pytest.FixtureRequest) -> None:
    """As it was in paytechuz, whatever the model has beside it."""
    async with host_on("sqlite-sync", request, handler=Plain, model=Numbered) as host:
        with host.sessions() as db:
            db.add_all([Numbered(id=1, order_id="2", amount=1000), Numbered(id=2, order_id="1", amount=1000)])
            db.commit()
        async with serve(host.app()) as base, aiohttp.ClientSession() as session:
            await Caller(f"{base}/payme", session).performed("1", 100_000)
        assert [row.account_id for row in await host.transactions()] == ["1"]


class Plain(SyncHandler):
    """Without hooks that know a model."""

    transaction_created = successfully_payment = cancelled_payment = lambda *_: None


async def paid_by_click(app: FastAPI, order: str, amount: str, trans: int = 7) -> list[dict[str, Any]]:
    """What Click hears to Prepare, and then to Complete."""
    async with serve(app) as base, aiohttp.ClientSession() as session:
        first = await posted(session, base, click_form(0, order, amount, trans))
        if first["error"]:
            return [first]
        prepared = first["merchant_prepare_id"]
        return [first, await posted(session, base, click_form(1, order, amount, trans, prepared=prepared))]


async def posted(session: aiohttp.ClientSession, base: str, body: bytes) -> dict[str, Any]:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    async with session.post(f"{base}/click", data=body, headers=headers) as reply:
        assert reply.status == 200, await reply.text()
        found: dict[str, Any] = json.loads(await reply.read())
        return found
