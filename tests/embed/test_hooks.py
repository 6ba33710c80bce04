"""Hooks, sessions and models as hosts have them."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import Integer, String, Uuid, create_engine, event, select
from sqlalchemy.orm import Mapped, Session, mapped_column, scoped_session, sessionmaker
from sqlalchemy.pool import StaticPool

from tillgate.domain.errors import AlreadyClosed, UnknownReference
from tillgate.embed import BadSettings, PaymentTransaction
from tillgate.providers.payme.tests.payme_kit import (
    HOMES,
    KEY,
    PRICE_TIYIN,
    AsyncHandler,
    Base,
    Host,
    Order,
    SyncHandler,
    calling,
    code,
    creation,
    host_on,
)


class Account(Base):
    """An account with a text key."""

    __tablename__ = "accounts"

    login: Mapped[str] = mapped_column(String(50), primary_key=True)
    amount: Mapped[int] = mapped_column(Integer, default=0)


class Ticket(Base):
    __tablename__ = "tickets"

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    amount: Mapped[int] = mapped_column(Integer, default=500)


@pytest.fixture
async def host(request: pytest.FixtureRequest) -> AsyncIterator[Host]:
    async with host_on("sqlite-sync", request) as made:
        yield made


def check(order: Any = 1) -> dict[str, Any]:
    return {"amount": PRICE_TIYIN, "account": {"order_id": str(order)}}


class Logged(SyncHandler):
    """Writes down every call of every hook."""

    log: list[tuple[str, Any]] = []  # noqa: RUF012

    def before_check_perform_transaction(self, params: Any, account: Any) -> None:
        self.log.append(("before_check", account.id))

    def transaction_already_exists(self, params: Any, transaction: Any) -> None:
        self.log.append(("exists", transaction.state))

    def transaction_created(self, params: Any, transaction: Any, account: Any) -> None:
        self.log.append(("created", (params["id"], transaction.account_id, account.id, transaction.state)))

    def successfully_payment(self, params: Any, transaction: Any) -> None:
        self.log.append(("paid", (params["id"], transaction.transaction_id, transaction.state)))

    def check_transaction(self, params: Any, transaction: Any) -> None:
        self.log.append(("looked", transaction.state))

    def cancelled_payment(self, params: Any, transaction: Any) -> None:
        self.log.append(("cancelled", (params["reason"], transaction.state, transaction.reason)))

    def get_statement(self, params: Any, transactions: list[dict[str, Any]]) -> None:
        self.log.append(("statement", [row["state"] for row in transactions]))
        transactions[0]["note"] = "mine"

    def fiscal_data_received(self, params: Any, transaction: Any) -> None:
        self.log.append(("fiscal", transaction.extra_data["fiscal.perform"]))

    def get_check_data(self, params: Any, account: Any) -> Any:
        return {"additional": {"balance": 5}, "allow": "never"}


async def test_each_hook_is_called_when_its_name_says(request: pytest.FixtureRequest) -> None:
    Logged.log = []
    async with host_on("sqlite-sync", request, handler=Logged) as host, calling(host) as payme:
        allowed = await payme("CheckPerformTransaction", check())
        assert allowed["result"] == {"allow": True, "additional": {"balance": 5}}
        params = creation()
        await payme("CreateTransaction", params)
        await payme("CreateTransaction", params)
        await payme("CheckTransaction", {"id": params["id"]})
        await payme("PerformTransaction", {"id": params["id"]})
        await payme("PerformTransaction", {"id": params["id"]})
        fiscal = {"id": params["id"], "type": "PERFORM", "fiscal_data": {"receipt_id": 7}}
        assert (await payme("SetFiscalData", fiscal))["result"] == {"success": True}
        await payme("CancelTransaction", {"id": params["id"], "reason": 5})
        await payme("CancelTransaction", {"id": params["id"], "reason": 3})
        rows = (await payme("GetStatement", {"from": 0, "to": 10**13}))["result"]["transactions"]
        assert rows[0]["note"] == "mine"
    assert Logged.log == [
        ("before_check", 1),
        ("created", (params["id"], "1", 1, 1)),
        ("exists", 1),
        ("looked", 1),
        ("paid", (params["id"], params["id"], 2)),
        ("fiscal", {"receipt_id": 7}),
        ("cancelled", (5, -2, 5)),
        ("statement", [-2]),
    ]


async def test_a_hook_may_refuse_in_our_words(request: pytest.FixtureRequest) -> None:
    class Refusing(SyncHandler):
        def before_check_perform_transaction(self, params: Any, account: Any) -> None:
            raise UnknownReference

        def transaction_created(self, params: Any, transaction: Any, account: Any) -> None:
            account.status = "changed"
            raise AlreadyClosed

    async with host_on("sqlite-sync", request, handler=Refusing) as host, calling(host) as payme:
        assert code(await payme("CheckPerformTransaction", check())) == -31050
        assert code(await payme("CreateTransaction", creation())) == -31008
        assert await host.transactions() == []
        assert (await host.order(1)).status == "new"


@pytest.mark.parametrize("way", ["rollback", "rollback_then_commit", "raise", "async"])
async def test_a_hook_that_fails_undoes_everything(
    request: pytest.FixtureRequest, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(SyncHandler):
        def successfully_payment(self, params: Any, transaction: Any) -> Any:
            order = self.db.get(Order, int(transaction.account_id))
            order.status = "half"
            self.db.commit()
            if way == "raise":
                raise RuntimeError("no")
            if way == "async":
                return asyncio_sleep()
            self.db.rollback()
            if way == "rollback_then_commit":
                self.db.get(Order, 2).status = "half"
                self.db.commit()
            return None

    async def asyncio_sleep() -> None:
        raise AssertionError("never awaited")

    async with host_on("sqlite-sync", request, handler=Failing) as host, calling(host) as payme:
        transaction = await payme.created()
        assert code(await payme("PerformTransaction", {"id": transaction})) == -32400
        (row,) = await host.transactions()
        assert row.state == 1
        assert [(await host.order(number)).status for number in (1, 2)] == ["new", "new"]
    assert "payme: PerformTransaction failed" in caplog.text


async def test_commit_and_close_in_a_hook_leave_the_commit_to_the_handler(
    request: pytest.FixtureRequest,
) -> None:
    """Two commits in one hook, a failure between them: neither is kept."""
    commits: list[str] = []

    class Closing(SyncHandler):
        def successfully_payment(self, params: Any, transaction: Any) -> None:
            order = self.db.get(Order, int(transaction.account_id))
            order.status = "paid"
            self.db.commit()
            assert commits == []
            order.phone = "told"
            self.db.commit()
            self.db.close()
            assert transaction.state == 2

    async with host_on("sqlite-sync", request, handler=Closing) as host, calling(host) as payme:
        transaction = await payme.created()
        event.listen(host.sessions, "after_commit", lambda _: commits.append("commit"))
        assert (await payme("PerformTransaction", {"id": transaction}))["result"]["state"] == 2
        assert commits == ["commit"]
        order = await host.order(1)
        assert (order.status, order.phone) == ("paid", "told")


@pytest.mark.parametrize("home", [home for home in HOMES if home.endswith("async")])
async def test_an_async_session_takes_plain_hooks_too(home: str, request: pytest.FixtureRequest) -> None:
    class Plain(AsyncHandler):
        def successfully_payment(self, params: Any, transaction: Any) -> None:  # type: ignore[override]
            self.db.sync_session.get(Order, int(transaction.account_id)).status = "plain"

    async with host_on(home, request, handler=Plain) as host, calling(host) as payme:
        await payme.performed()
        assert (await host.order(1)).status == "plain"


@pytest.mark.parametrize("home", [home for home in HOMES if home.endswith("async")])
async def test_an_async_hook_that_fails_undoes_everything(home: str, request: pytest.FixtureRequest) -> None:
    class Failing(AsyncHandler):
        async def successfully_payment(self, params: Any, transaction: Any) -> None:
            await super().successfully_payment(params, transaction)
            raise RuntimeError("no")

    async with host_on(home, request, handler=Failing) as host, calling(host) as payme:
        transaction = await payme.created()
        assert code(await payme("PerformTransaction", {"id": transaction})) == -32400
        assert ((await host.transactions())[0].state, (await host.order(1)).status) == (1, "new")


async def test_what_the_host_wrote_before_is_committed_with_the_row(host: Host) -> None:
    with host.sessions() as db:
        db.add(Order(id=100, amount=1))
        reply = await host.made(db).answer(await inbound(host, "CreateTransaction", creation()))
        assert b"result" in reply.body
    assert (await host.order(100)).id == 100
    with host.sessions() as db:
        db.add(Order(id=101, amount=1))
        db.flush()
        unknown = await inbound(host, "PerformTransaction", {"id": "a" * 24})
        assert b"-31003" in (await host.made(db).answer(unknown)).body
    assert (await host.order(101)).id == 101


async def inbound(host: Host, method: str, params: Any) -> Any:
    """A request as the framework would hand it over."""
    import base64
    import json

    from tillgate.spi import Inbound

    basic = base64.b64encode(f"Paycom:{KEY}".encode()).decode()
    body = json.dumps({"method": method, "params": params, "id": 1}).encode()
    return Inbound("POST", "/", "", {"authorization": f"Basic {basic}"}, body, "127.0.0.1", 0)


async def test_a_scoped_session_is_used_on_any_thread(host: Host) -> None:
    scoped = scoped_session(host.sessions)
    handler = SyncHandler(scoped, "id", KEY, Order, account_field="order_id")
    params = creation()
    assert b'"state":1' in (await handler.answer(await inbound(host, "CreateTransaction", params))).body
    assert (
        b'"state":2'
        in (await handler.answer(await inbound(host, "PerformTransaction", {"id": params["id"]}))).body
    )
    scoped.remove()
    assert (await host.order(1)).paid == 1


async def test_an_in_memory_database_with_one_connection_works() -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    sessions = sessionmaker(engine)
    with sessions() as db:
        db.add(Order(id=1, amount=15000.5))
        db.commit()
        handler = SyncHandler(db, "id", KEY, Order, account_field="order_id")
        host = Host("sqlite-sync", "")
        reply = await handler.answer(await inbound(host, "CreateTransaction", creation()))
        assert b'"state":1' in reply.body
        assert db.scalar(select(PaymentTransaction.state)) == 1
    engine.dispose()


async def test_accounts_are_found_by_text_uuid_and_several_fields(request: pytest.FixtureRequest) -> None:
    from tillgate.providers.payme.handler import PaymeWebhookHandler

    name = uuid.uuid4()
    async with host_on("sqlite-sync", request) as host:
        with host.sessions() as db:
            db.add_all([Account(login="anna"), Ticket(id=name)])
            db.commit()

        async def ask(model: Any, account: Any, field: Any, **more: Any) -> bytes:
            with host.sessions() as db:
                handler = PaymeWebhookHandler(db, "id", KEY, model, account_field=field, **more)
                params = creation(amount=50_000, account=account)
                return (await handler.answer(await inbound(host, "CreateTransaction", params))).body

        assert b'"state":1' in await ask(Account, {"login": "anna"}, "login", one_time_payment=False)
        assert b"-31050" in await ask(Account, {"login": "bob"}, "login", one_time_payment=False)
        assert b'"state":1' in await ask(Ticket, {"order_id": str(name)}, "order_id")
        assert b"-31050" in await ask(Ticket, {"order_id": "5"}, "order_id")
        both = ("order_id", "phone")
        wrong = await ask(Order, {"order_id": "1", "phone": "998900000002"}, both, one_time_payment=False)
        assert b"-31050" in wrong
        right = {"order_id": "1", "phone": "998900000001"}
        assert b'"state":1' in await ask(Order, right, both, one_time_payment=False)
        assert [row.account_id for row in await host.transactions()] == ["anna", str(name), "1"]


@pytest.mark.parametrize("order", ["99999999999999999999", "2147483648", "-1", "1.0", "0x1", "１"])
async def test_a_number_that_no_order_can_have_is_nobodys(host: Host, order: str) -> None:
    async with calling(host) as payme:
        assert code(await payme("CheckPerformTransaction", check(order))) == -31050


async def test_two_kinds_of_account_do_not_disturb_each_other(request: pytest.FixtureRequest) -> None:
    """Order 1 and account 1 are two things, although both are called 1 in `account_id`."""
    from tillgate.providers.payme.handler import PaymeWebhookHandler

    async with host_on("sqlite-sync", request) as host, calling(host) as orders:
        await orders.performed(1)
        with host.sessions() as db:
            db.add(Account(login="1"))
            db.commit()
            handler = PaymeWebhookHandler(db, "id", KEY, Account, "login", one_time_payment=False)
            params = creation(account={"login": "1"})
            assert (
                b'"state":1' in (await handler.answer(await inbound(host, "CreateTransaction", params))).body
            )
            mine = await handler.answer(await inbound(host, "GetStatement", {"from": 0, "to": 10**13}))
            assert mine.body.count(b'"id":"') == 1
        assert code(await orders("CheckTransaction", {"id": params["id"]})) == -31003
        theirs = await orders("GetStatement", {"from": 0, "to": 10**13})
        assert len(theirs["result"]["transactions"]) == 1


async def test_an_order_without_a_price_cannot_be_paid(request: pytest.FixtureRequest) -> None:
    async with host_on("sqlite-sync", request) as host, calling(host) as payme:
        with host.sessions() as db:
            db.add_all([Order(id=200, amount=0), Order(id=201, amount=-5)])
            db.commit()
        for number in (200, 201):
            assert code(await payme("CreateTransaction", creation(number))) == -31001


async def test_change_password_is_for_those_who_store_it(request: pytest.FixtureRequest) -> None:
    stored: list[str] = []

    class Storing(SyncHandler):
        async def password_changed(self, password: str) -> None:
            stored.append(password)

    async with host_on("sqlite-sync", request, handler=Storing) as host, calling(host) as payme:
        assert (await payme("ChangePassword", {"password": "new"}))["result"] == {"success": True}
        assert code(await payme("ChangePassword", {"password": KEY})) == -32504
    assert stored == ["new"]
    async with host_on("sqlite-sync", request) as host, calling(host) as payme:
        assert code(await payme("ChangePassword", {"password": "new"})) == -32504


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"db": "no session"}, "db must be"),
        ({"db": None}, "db must be"),
        ({"account_model": None}, "account_model is missing"),
        ({"account_field": ()}, "account_fields"),
        ({"account_field": "a;b"}, "account field"),
        ({"login": "a:b"}, "login"),
        ({"source_ips": ("nowhere",)}, "source_ips"),
    ],
)
def test_settings_that_cannot_work_are_told_at_once(settings: dict[str, Any], words: str) -> None:
    with Session() as db, pytest.raises(BadSettings, match=words):
        SyncHandler(**({"db": db, "payme_id": "i", "payme_key": KEY, "account_model": Order} | settings))


def test_the_attributes_are_those_that_code_reads() -> None:
    with Session() as db:
        handler = SyncHandler(db, "i", KEY, Order, "order_id", "amount", False)
        assert (handler.db, handler.account_model, handler.payme_id, handler.payme_key) == (
            db,
            Order,
            "i",
            KEY,
        )
        assert (handler.account_field, handler.amount_field, handler.one_time_payment) == (
            "order_id",
            "amount",
            False,
        )
        assert KEY not in repr(handler)


def test_importing_the_drop_in_loads_nothing_of_the_hub() -> None:
    program = """
import sys
import tillgate.integrations.fastapi
loaded = {name.partition(".")[0] for name in sys.modules}
print(sorted(loaded & {"aiohttp", "alembic", "asyncpg", "typer", "rich", "prompt_toolkit", "structlog",
    "jinja2", "jwt", "cryptography", "prometheus_client", "segno", "pydantic_settings", "uvicorn"}))
hub = ("tillgate.store", "tillgate.http", "tillgate.hub", "tillgate.worker")
print(sorted(name for name in sys.modules if name.startswith(hub)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]
