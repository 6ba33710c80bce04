"""The control API over real HTTP: what a till program sees, what it may do, and what keeps others out."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace

import aiohttp
import pytest

from tillgate.providers.mobypay.control import control_app
from tillgate.providers.mobypay.errors import BadRequest, WeakSecret
from tillgate.providers.mobypay.loopback import LoopbackServer
from tillgate.providers.mobypay.tests import oracle
from tillgate.providers.mobypay.tests.kit import Bench, OpenBench, plans

TOKEN = "control-token-of-at-least-thirty-two-characters"


class Client:
    def __init__(self, http: aiohttp.ClientSession, bench: Bench):
        self.http, self.bench = http, bench

    async def __call__(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        status: int = 200,
        raw: bytes | None = None,
        **headers: str,
    ) -> dict:
        sent = {"data": raw} if raw is not None else {"json": body} if body is not None else {}
        async with self.http.request(method, path, headers=headers, **sent) as reply:
            text = await reply.text()
            assert reply.status == status, text
            if status >= 400 and "host" not in {name.lower() for name in headers}:
                problem = await reply.json(content_type="application/problem+json")
                assert problem["status"] == status
                return problem
            return await reply.json() if text and reply.content_type == "application/json" else {}


@pytest.fixture
async def api(bench_at: OpenBench) -> AsyncIterator[Client]:
    async with bench_at() as bench, serving(bench) as client:
        yield client


class serving:  # noqa: N801
    def __init__(self, bench: Bench):
        self.bench = bench

    async def __aenter__(self) -> Client:
        self.server = LoopbackServer(control_app(self.bench.server, TOKEN), "127.0.0.1", 0)
        self.task = asyncio.create_task(self.server.serve())
        port = await self.server.bound_port(self.task)
        self.http = aiohttp.ClientSession(
            f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        return Client(self.http, self.bench)

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()
        self.server.should_exit = True
        await self.task


async def test_a_payment_from_request_to_result(api: Client) -> None:
    terminal = await api.bench.terminal()
    payment = await api(
        "POST", "/payments", {"mode": "card", "amount": "25.50", "reference": "A-1"}, status=201
    )
    assert payment | {
        "state": "pending", "mode": "card", "amount": "25.50", "amount_sen": 2550, "currency": "MYR",
        "terminal": "POS001", "reference": "A-1",
    } == payment  # fmt: skip
    txn_id = payment["txn_id"]
    waiting = asyncio.create_task(api("GET", f"/payments/{txn_id}?wait=5&version=1"))
    assert (await terminal.request())["txn_id"] == txn_id
    await terminal.ack(txn_id)
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await terminal.result(txn_id, "success", amount=25.5, transaction_id="000410", card_last4="1234")
    shown = await waiting
    assert shown["state"] == "succeeded"
    assert shown["result"] == {
        "status": "success", "amount": "25.5", "transaction_id": "000410", "authorization_code": None,
        "card_last4": "1234",
    }  # fmt: skip
    assert [(step["fact"], step["state"]) for step in shown["history"]] == [
        ("requested", "pending"), ("ack", "processing"), ("success", "succeeded"),
    ]  # fmt: skip
    listed = await api("GET", "/payments")
    assert [item["txn_id"] for item in listed["payments"]] == [txn_id]
    events = (await api("GET", "/events?after=0"))["events"]
    assert [(event["fact"], event["payment"]["state"]) for event in events] == [
        ("requested", "pending"), ("ack", "processing"), ("success", "succeeded"),
    ]  # fmt: skip
    assert (await api("GET", f"/events?after={events[-1]['number']}"))["events"] == []


async def test_plans_and_their_choice(api: Client) -> None:
    terminal = await api.bench.terminal()
    payment = await api("POST", "/payments", {"mode": "ipp", "amount": 100}, status=201)
    path = f"/payments/{payment['txn_id']}"
    assert (await api("POST", f"{path}/plan", {"plan_id": "IPP_3M"}, status=409))["code"] == "not_allowed"
    await terminal.result(payment["txn_id"], "ipp_plans", amount=100.0, plans=plans("IPP_3M"))
    await api.bench.reaches(payment["txn_id"], "awaiting_plan")
    assert (await api("GET", path))["plans"] == plans("IPP_3M")
    assert (await api("POST", f"{path}/plan", {"plan_id": "X"}, status=422))["code"] == "bad_request"
    chosen = await api("POST", f"{path}/plan", {"plan_id": "IPP_3M"})
    assert (chosen["state"], chosen["plan_id"], chosen["reason"]) == (
        "processing", "IPP_3M", "A plan was chosen."
    )  # fmt: skip


async def test_cancel_and_settle(api: Client) -> None:
    terminal = await api.bench.terminal()
    payment = await api("POST", "/payments", {"mode": "bnpl", "amount": 10.5}, status=201)
    path = f"/payments/{payment['txn_id']}"
    assert (await api("POST", f"{path}/cancel"))["state"] == "cancelling"
    terminal.pull_the_plug()
    await api.bench.reaches(payment["txn_id"], "unknown")
    assert (await api("GET", "/status"))["unsettled"] == [payment["txn_id"]]
    (alert,) = (await api("GET", "/alerts"))["alerts"]
    assert (alert["kind"], alert["txn_id"]) == ("outcome_unknown", payment["txn_id"])
    assert (await api("POST", f"{path}/settle", {"outcome": "maybe", "reason": "x"}, status=422))[
        "code"
    ] == "bad_request"
    settled = await api(
        "POST", f"{path}/settle", {"outcome": "unpaid", "reason": "the terminal shows no sale"}
    )
    assert (settled["state"], settled["settled_because"]) == ("failed", "the terminal shows no sale")
    assert (await api("GET", "/alerts"))["alerts"] == []
    assert (await api("POST", f"{path}/cancel", status=409))["code"] == "not_allowed"


async def test_terminals_are_listed_and_enrolled(bench_at: OpenBench, tmp_path) -> None:
    secret = "a-second-secret-of-thirty-two-characters"
    async with bench_at() as bench, serving(bench) as api:
        body = {"pos_id": "POS002", "secret": secret, "port": 0}
        enrolled = await api("POST", "/terminals", body, status=201)
        assert enrolled["pos_id"] == "POS002"
        assert secret not in str(enrolled)
        assert (await api("POST", "/terminals", body, status=201))["port"] == enrolled["port"]
        other = {**body, "secret": secret + "2"}
        assert (await api("POST", "/terminals", other, status=409))["code"] == "terminal_exists"
        weak = {**body, "pos_id": "POS003", "secret": "POS-KIOSK-SECRET-KEY-2024"}
        assert (await api("POST", "/terminals", weak, status=422))["code"] == "weak_secret"
        same = {**body, "pos_id": "POS003"}
        assert (await api("POST", "/terminals", same, status=422))["code"] == "weak_secret"
        terminal = await bench.terminal("POS002", secret, port=enrolled["port"])
        listed = {item["pos_id"]: item for item in (await api("GET", "/terminals"))["terminals"]}
        assert (listed["POS001"]["connected"], listed["POS002"]["connected"]) == (False, True)
        assert listed["POS002"]["identified"] is False
        payment = await api(
            "POST", "/payments", {"mode": "card", "amount": "1", "terminal": "POS002"}, status=201
        )
        assert (await terminal.request())["txn_id"] == payment["txn_id"]
        busy = await api(
            "POST", "/payments", {"mode": "card", "amount": "2", "terminal": "POS002"}, status=409
        )
        assert busy["code"] == "terminal_busy"
    assert secret.encode() not in b"".join(file.read_bytes() for file in tmp_path.iterdir())
    async with bench_at() as bench:  # enrolled is enrolled, also after a restart
        port = bench.server.terminals.get("POS002").port
        terminal = await bench.terminal("POS002", secret, port=port)
        payment = await bench.pay(terminal="POS002")
        await terminal.result(payment.txn_id, "success")
        await bench.reaches(payment.txn_id, "succeeded")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "bad_request"),
        ([], "bad_request"),
        ({"mode": "card"}, "bad_request"),
        ({"mode": "cash", "amount": "1"}, "bad_request"),
        ({"mode": "card", "amount": "1", "amonut": "2"}, "bad_request"),
        ({"mode": "card", "amount": "1", "reference": 7}, "bad_request"),
        ({"mode": "card", "amount": "1", "reference": ""}, "bad_request"),
        ({"mode": "card", "amount": None}, "bad_amount"),
        ({"mode": "card", "amount": True}, "bad_amount"),
        ({"mode": "card", "amount": [1]}, "bad_amount"),
        ({"mode": "card", "amount": "1.005"}, "bad_amount"),
        ({"mode": "card", "amount": 1.005}, "bad_amount"),
        ({"mode": "card", "amount": 0}, "bad_amount"),
        ({"mode": "card", "amount": -5}, "bad_amount"),
        ({"mode": "card", "amount": 1e30}, "bad_amount"),
        ({"mode": "card", "amount": "5000.01"}, "bad_amount"),
    ],
)
async def test_bad_requests_get_a_clear_answer(api: Client, body: object, code: str) -> None:
    terminal = await api.bench.terminal()
    assert (await api("POST", "/payments", body, status=422))["code"] == code
    assert await terminal.hears_nothing(0.05)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff",
        b'{"mode":"card","amount":1,"amount":2}',
        b'{"mode":"card","amount":NaN}',
        b"[" * 5000,
    ],
)
async def test_malformed_bodies_get_a_clear_answer(api: Client, raw: bytes) -> None:
    assert (await api("POST", "/payments", raw=raw, status=422))["code"] == "bad_request"


async def test_a_body_has_a_limit(api: Client) -> None:
    assert (await api("POST", "/payments", raw=b" " * 70_000, status=422))["code"] == "bad_request"


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xe9"]
)
async def test_without_the_token_nothing_is_told(api: Client, header: str) -> None:
    for method, path in (
        ("GET", "/payments"),
        ("POST", "/payments"),
        ("GET", "/terminals"),
        ("GET", "/status"),
    ):
        problem = await api(method, path, status=401, Authorization=header)
        assert problem["code"] == "unauthorized"


async def test_a_page_elsewhere_cannot_point_its_name_at_us(api: Client) -> None:
    await api("GET", "/payments", status=400, Host="evil.example")


async def test_nothing_is_found_where_nothing_is(api: Client) -> None:
    assert (await api("GET", "/payments/TXN1", status=404))["code"] == "unknown_payment"
    assert (await api("GET", "/nowhere", status=404))["code"] == "not_found"
    assert (await api("DELETE", "/payments", status=405))["code"] == "method_not_allowed"
    for query in ("limit=0", "limit=x", "limit=201", "before=-1", "state=paid"):
        assert (await api("GET", f"/payments?{query}", status=422))["code"] == "bad_request"
    await api("POST", "/alerts/x/close", status=422)
    await api("POST", "/alerts/7/close", status=204)


async def test_a_retried_request_charges_once(api: Client) -> None:
    terminal = await api.bench.terminal()
    key = {"Idempotency-Key": "till-7-0001"}
    first = await api("POST", "/payments", {"mode": "card", "amount": "5"}, status=201, **key)
    again = await api("POST", "/payments", raw=b'{"amount": "5",  "mode": "card"}', status=201, **key)
    assert again["txn_id"] == first["txn_id"]
    assert (await api("POST", "/payments", {"mode": "card", "amount": "6"}, status=422, **key))["code"] == (
        "idempotency_key_reused"
    )
    await terminal.request()
    assert await terminal.hears_nothing()


async def test_pages_of_payments(api: Client) -> None:
    terminal = await api.bench.terminal()
    for sen in range(1, 6):
        payment = await api.bench.pay(sen=sen)
        await terminal.result(payment.txn_id, "failed")
        await api.bench.reaches(payment.txn_id, "failed")
    seen, before = [], ""
    while True:
        page = await api("GET", f"/payments?limit=2{before}")
        seen += [item["amount_sen"] for item in page["payments"]]
        if page["next"] is None:
            break
        before = f"&before={page['next']}"
    assert seen == [5, 4, 3, 2, 1]
    assert (await api("GET", "/payments?state=succeeded"))["payments"] == []


async def test_the_document_describes_every_endpoint_and_every_answer_fits_it(api: Client) -> None:
    document = await api("GET", "/openapi.json", Authorization="")
    assert document["openapi"].startswith("3.1")
    routes = {
        (method, route.path)
        for route in control_app(api.bench.server, TOKEN).routes
        for method in (route.methods or set()) - {"HEAD"}
    }
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert routes == described
    assert set(document["components"]["schemas"]["PaymentIn"]["properties"]) == {
        "mode",
        "amount",
        "terminal",
        "reference",
    }
    assert document["components"]["schemas"]["PaymentIn"]["additionalProperties"] is False


def test_it_listens_on_loopback_only_and_behind_a_real_token() -> None:
    with pytest.raises(BadRequest):
        LoopbackServer(None, "0.0.0.0", 0)
    with pytest.raises(WeakSecret):
        control_app(SimpleNamespace(kiosk=None, journal=None), "short")
    assert len(oracle.SECRET) >= 32
