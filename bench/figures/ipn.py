"""ATOM POS IPNs acknowledged, durable, against a C loop committing their rows; and with a slow `process_ipn`.
AtomPay callbacks verified, with a warm key."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from bench.contestant import Contestant, request
from bench.figure import Figure, Outcome, Setup
from bench.floors import SqliteFloor, Template
from bench.hub import Hub, create
from bench.load import ID, Step, json_post
from bench.process import BenchError
from bench.rounds import interleave
from bench.shape import learn

TITLE = "IPNs acknowledged; callbacks verified"
IPNS, SLOW, IPN_FLOOR = "hub, IPNs", "hub, IPNs and a slow hook", "C sqlite, IPN rows"
CREATES, CREATE_FLOOR = "hub, creates", "C sqlite, create rows"
CALLBACKS = 300


def _ipn(request_id: str) -> dict[str, object]:
    texts = {"amount": "10000", "tip": "0", "paymentType": "QR", "narrative": "Thanh toan", "fromAccNo": "1"}
    return {"requestId": request_id, "orderId": f"1234:{request_id}", "extraData": {}, **texts}


@dataclass
class IpnHub(Hub):
    """Its account takes IPNs at an address of its own; each is of a sale that the terminal began."""

    path: str = field(default="", init=False)

    def flow(self) -> list[Step]:
        return [json_post(self.account(), _ipn(f"R-{ID}"), {}, marker='"code":"00"')]

    def account(self) -> str:
        if not self.path:
            body = {"provider": "atompos_vn", "name": "till", "config": {"auth": "path"}}
            bearer = {"Authorization": f"Bearer {self.bearer()}"}
            status, made = request(self.port, "POST", "/v1/accounts", body, bearer)
            if status != 201:
                raise BenchError(f"{self.name} refuses an account: {status} {made}")
            self.path = f"/in/{made['id']}"
        return self.path

    def stored(self) -> int:
        with closing(sqlite3.connect(self.file)) as db:
            count: int = db.execute("SELECT count(*) FROM inbound").fetchone()[0]
            return count


def _learnt(setup: Setup) -> Template:
    hub = IpnHub("learned ipn", extra={"TILLGATE_WORKER": "0"})
    hub.start(setup.memory(100))
    path, sent = hub.account(), iter(range(10**6))

    def once() -> None:
        status, answer = request(hub.port, "POST", path, _ipn(f"L-{next(sent):012}"))
        if status != 200:
            raise BenchError(f"an IPN is refused: {status} {answer}")

    create(hub.port, hub.bearer())
    shape = learn(hub.file, once)
    hub.server.stop()
    return Template(hub.file, shape)


def run(setup: Setup) -> Outcome:
    outcome = Outcome([_callback_cpu()])
    if setup.standin:
        return outcome
    slow = {
        "TILLGATE_PROCESS_IPN": "bench.hooks_of_a_shop:process_ipn",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }
    contestants: list[Contestant] = [
        IpnHub(IPNS),
        IpnHub(SLOW, extra=slow),
        SqliteFloor(IPN_FLOOR, _learnt(setup)),
        Hub(CREATES),
        SqliteFloor(CREATE_FLOOR, setup.template),
    ]
    done = interleave(contestants, setup.memory(), rounds=setup.rounds, seconds=setup.seconds)
    ipns, creates = done.ratios(IPNS, IPN_FLOOR), done.ratios(CREATES, CREATE_FLOOR)
    relative = [ipn / made for ipn, made in zip(ipns, creates, strict=True)]
    outcome.rounds.append(done)
    outcome.figures += [
        Figure("IPNs acknowledged and durable", done.storage, done.values(IPNS, "rate"), "/s"),
        Figure("IPNs / C loop committing their rows", done.storage, ipns, "x"),
        Figure("that ratio / the ratio of creates", done.storage, relative, "x", 0.5),
        Figure(
            "IPN p99 with a hook of 5 s / without",
            done.storage,
            [a / b for a, b in zip(done.values(SLOW, "p99_ms"), done.values(IPNS, "p99_ms"), strict=True)],
            "x",
            1.2,
            at_most=True,
        ),
    ]
    return outcome


def _callback_cpu() -> Figure:
    """CPU of one verified callback: opened, its signature compared, read."""
    import msgspec

    from tillgate.providers.atompay_in import PROVIDER, AtomPay
    from tillgate.providers.atompay_in.config import Config
    from tillgate.providers.atompay_in.simulator import Simulator
    from tillgate.spi import Inbound

    gateway = Simulator().gateway
    gateway.state["tokens"]["1"] = {
        "merchId": PROVIDER.example["merch_id"],
        "merchTxnId": "att_1",
        "amount": "319.00",
        "currency": "INR",
        "products": [{"prodName": "NSE", "prodAmount": "319.00"}],
        "customer": {"custEmail": "payer@example.com", "custMobile": "8888888800"},
        "extras": {},
        "mode": None,
    }
    connector = AtomPay(msgspec.convert(PROVIDER.example, Config))
    body = urlencode(gateway.notice(gateway.pay("1", "UP", "success"))).encode()
    call = Inbound("POST", "/response", "", {}, body, "127.0.0.1", time.time_ns() // 10**6)
    connector.hear(call)  # the key is derived once
    begun = time.process_time()
    for _ in range(CALLBACKS):
        connector.hear(call)
    spent_ms = (time.process_time() - begun) * 1000 / CALLBACKS
    return Figure("AtomPay callback verified, CPU", "in process", [spent_ms], "ms", 1.0, at_most=True)
