"""A kiosk and a hub, each on its own database, and between them a network with faults. The hub is a process
of its own; the kiosk's terminals are played byte by byte."""

import asyncio
import contextlib
import json
import random
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support.serving import Client, Process, client, hub, new_merchant, rows
from tillgate.providers.mobypay import uplink
from tillgate.providers.mobypay.errors import HubAway
from tillgate.providers.mobypay.tests import oracle
from tillgate.providers.mobypay.tests.fault_proxy import FaultProxy, fault_proxy
from tillgate.providers.mobypay.tests.kit import Bench, RawTerminal, open_bench, plans
from tillgate.providers.mobypay.uplink import Uplink, enrol

SECRETS = {f"POS00{n}": f"secret-of-terminal-{n}-" + "x0y1z2w3v4u5" * 2 for n in (1, 2, 3)}


@pytest.fixture(scope="module")
def hub_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    directory = tmp_path_factory.mktemp("hub")
    with hub(directory, f"sqlite:///{directory}/hub.db") as process:
        yield process
        assert process.stop() == 0
        assert "Traceback" not in process.log
        assert '"level": "error"' not in process.log


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kiosk tries its hub again soon."""
    monkeypatch.setattr(uplink, "RETRY_S", (0.05, 0.1, 0.2))


@dataclass
class Site:
    """A merchant with a kiosk behind a network with faults."""

    database_url: str
    shop: Client
    account: str
    bench: Bench
    proxy: FaultProxy
    journal: Path
    terminals: dict[str, RawTerminal] = field(default_factory=dict)
    link: asyncio.Task[None] | None = None

    async def join(self) -> None:
        entry = self.bench.journal.hub()
        assert entry is not None
        self.link = asyncio.create_task(Uplink(self.bench.server, entry).run())

    async def leave(self) -> None:
        if self.link is not None:
            self.link.cancel()
            await asyncio.gather(self.link, return_exceptions=True)

    async def open(self, channel: str = "card", minor: int = 5000, **more: Any) -> dict[str, Any]:
        body = {"order_id": f"ORD-{secrets.token_hex(5)}", "amount_minor": minor, "currency": "MYR"}
        answer = await self.shop.ask("POST", "/v1/payments", {**body, "channel": channel, **more})
        assert answer.status == 201, answer
        found: dict[str, Any] = answer.json
        return found

    async def payment(self, payment_id: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.shop.ask("GET", f"/v1/payments/{payment_id}")).json
        return found

    async def until(self, payment_id: str, status: str, within_s: float = 30) -> dict[str, Any]:
        deadline = time.monotonic() + within_s
        while (found := await self.payment(payment_id))["status"] != status:
            assert time.monotonic() < deadline, f"never {status}, but {found}"
            await asyncio.sleep(0.02)
        return found

    async def at_terminal(self, payment_id: str, state: str, within_s: float = 30) -> dict[str, Any]:
        deadline = time.monotonic() + within_s
        while True:
            found = await self.payment(payment_id)
            action = (found["next_action"] or {}).get("terminal") or {}
            if action.get("state") == state:
                return action
            assert time.monotonic() < deadline, f"never {state}, but {found}"
            await asyncio.sleep(0.02)

    async def events(self, payment_id: str) -> list[dict[str, Any]]:
        answer = await self.shop.ask("GET", f"/v1/events?payment={payment_id}&limit=100")
        return [one for one in answer.json["data"] if one["data"]["payment"]["id"] == payment_id]

    async def kiosk_books(self) -> dict[str, tuple[str, int]]:
        found: dict[str, tuple[str, int]] = {}
        for _, one in self.bench.journal.page(200):
            found[one.txn_id] = str(one.state), one.amount_sen
        return found

    async def hub_books(self) -> dict[str, tuple[str, int]]:
        """Txn id → how the hub's payment stands, in the kiosk's words, and its amount."""
        text = (
            "SELECT a.external_id, p.status, a.amount_minor FROM attempts a"
            " JOIN payments p ON p.id = a.payment_id"
            f" WHERE a.account_id = '{self.account}' AND a.external_id IS NOT NULL"
        )
        words = {"paid": "succeeded", "unsure": "unknown", "review": "requires_review"}
        found: dict[str, tuple[str, int]] = {}
        for txn_id, status, minor in await rows(self.database_url, text):
            assert txn_id not in found
            found[txn_id] = words.get(status, status), minor
        return found

    async def attempts(self) -> int:
        text = f"SELECT count(*) FROM attempts WHERE account_id = '{self.account}'"
        [(count,)] = await rows(self.database_url, text)
        return int(count)

    async def heals(self, within_s: float = 60) -> dict[str, tuple[str, int]]:
        """Both books are equal."""
        deadline = time.monotonic() + within_s
        while (ours := await self.kiosk_books()) != (theirs := await self.hub_books()):
            assert time.monotonic() < deadline, f"{ours} at the kiosk, {theirs} at the hub"
            await asyncio.sleep(0.05)
        return ours

    async def terminal(self, pos_id: str = "POS001") -> RawTerminal:
        """Connected, and known by a signed message; the connection before it is gone."""
        server = self.bench.server
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        terminal = RawTerminal(reader, writer, pos_id, SECRETS[pos_id])
        self.bench.terminals.append(terminal)
        await terminal.say(oracle.fresh(type="ping", pos_id=pos_id))
        here = writer.get_extra_info("sockname")

        def known() -> bool:
            found = server.terminals.get(pos_id)
            return bool(found and found.connected and found.connection.address == f"{here[0]}:{here[1]}")

        await self.bench.until(known, 10)
        self.terminals[pos_id] = terminal
        return terminal

    async def all_leave(self) -> None:
        """No terminal is connected any more."""
        for terminal in self.bench.terminals:
            terminal.pull_the_plug()
        self.terminals.clear()
        await self.bench.until(lambda: self.bench.server.connection_count() == 0)


@contextlib.asynccontextmanager
async def site_at(
    hub_process: Process, database_url: str, folder: Path, kiosks_hub: Process | None = None, **kiosk: Any
) -> AsyncIterator[Site]:
    """The shop talks to `hub_process`, the kiosk to the same or to another process of that hub."""
    credentials = await asyncio.to_thread(new_merchant, database_url)
    port = int((kiosks_hub or hub_process).url.rpartition(":")[2])
    settings: dict[str, Any] = {"terminals": (), "sandbox": True, **kiosk}
    async with (
        client(hub_process.url, credentials) as shop,
        fault_proxy(port) as proxy,
        open_bench(folder / "kiosk.db", **settings) as bench,
    ):
        body = {"provider": "mobypay", "name": "till-1", "config": {}}
        account = (await shop.ask("POST", "/v1/accounts", body)).json["id"]
        site = Site(database_url, shop, account, bench, proxy, folder / "kiosk.db")
        code = (await shop.ask("POST", f"/v1/accounts/{account}/enrolment")).json["code"]
        from tillgate.providers.mobypay.config import TerminalConfig

        for pos_id, secret in SECRETS.items():
            await bench.server.enrol(TerminalConfig(pos_id=pos_id, secret=secret))
        await enrol(bench.server, f"http://127.0.0.1:{proxy.port}", code)
        await site.join()
        try:
            yield site
        finally:
            await site.leave()


@pytest.fixture
async def site(hub_process: Process, tmp_path: Path) -> AsyncIterator[Site]:
    database_url = hub_process.settings["TILLGATE_DATABASE_URL"]
    async with site_at(hub_process, database_url, tmp_path) as opened:
        yield opened


async def charge(terminal: RawTerminal, **result: Any) -> dict[str, Any]:
    """Take one request, acknowledge it and approve it."""
    asked = await terminal.request(within_s=30)
    await terminal.ack(asked["txn_id"])
    more = {"amount": asked["amount"], "transaction_id": secrets.token_hex(3), **result}
    await terminal.result(asked["txn_id"], "success", **more)
    return asked


async def test_a_hubs_payment_is_taken_asked_once_and_followed(site: Site) -> None:
    one, two = await site.terminal("POS001"), await site.terminal("POS002")
    made = await site.open(terminal="POS002")
    assert made["status"] == "pending"
    assert made["next_action"]["terminal"] == {"state": "waiting", "name": None, "plans": None}

    asked = await two.request(within_s=30)
    assert (asked["amount"], asked["payment_mode"]) == (50.0, "card")
    await two.ack(asked["txn_id"])
    assert (await site.at_terminal(made["id"], "processing"))["name"] == "POS002"
    await two.result(asked["txn_id"], "success", amount=50.0, transaction_id="000410", card_last4="4242")
    paid = await site.until(made["id"], "paid")
    assert (paid["paid_minor"], paid["paid_with"]) == (5000, "card ···4242")
    [attempt] = (await site.shop.ask("GET", f"/v1/payments/{made['id']}/attempts")).json["data"]
    assert attempt["external_id"] == asked["txn_id"]
    assert attempt["terminal"]["transaction_id"] == "000410"
    assert await one.hears_nothing()
    assert await two.hears_nothing()
    assert await site.heals() == {asked["txn_id"]: ("succeeded", 5000)}


@pytest.mark.parametrize("told", ["50.00", True, [50]])
async def test_a_success_of_what_is_no_amount_is_reported_and_held(site: Site, told: object) -> None:
    terminal = await site.terminal()
    made = await site.open()
    asked = await charge(terminal, amount=told)
    await site.bench.reaches(asked["txn_id"], "requires_review")
    held = await site.until(made["id"], "review")
    assert held["paid_minor"] == 5000  # it says that it charged, and not what
    again = await site.open()  # and the kiosk still follows its hub
    await charge(terminal)
    await site.until(again["id"], "paid")


async def test_an_instalment_plan_is_chosen_at_the_hub(site: Site) -> None:
    terminal = await site.terminal()
    made = await site.open("ipp", 30_000)
    asked = await terminal.request(within_s=30)
    early = await site.shop.ask("POST", f"/v1/payments/{made['id']}/plan", {"plan_id": "IPP_3M"})
    assert early.status == 409
    await terminal.result(asked["txn_id"], "ipp_plans", plans=plans("IPP_3M", "pay-in-full"))
    offered = await site.at_terminal(made["id"], "awaiting_plan")
    assert [one["planId"] for one in offered["plans"]] == ["IPP_3M", "pay-in-full"]
    other = await site.shop.ask("POST", f"/v1/payments/{made['id']}/plan", {"plan_id": "IPP_99M"})
    assert other.status == 400
    key = {"Idempotency-Key": "chosen-once"}
    for replayed in (None, "true"):
        chosen = await site.shop.ask(
            "POST", f"/v1/payments/{made['id']}/plan", {"plan_id": "IPP_3M"}, headers=key
        )
        assert (chosen.status, chosen.headers.get("Idempotent-Replayed")) == (200, replayed)
    assert (await terminal.request("ipp_plan_selection", 12))["plan_id"] == "IPP_3M"
    await terminal.ack(asked["txn_id"], "plan_received")
    await terminal.result(asked["txn_id"], "success", amount=300.0, transaction_id="7")
    await site.until(made["id"], "paid")


async def test_cancels_failures_and_their_words_go_through(site: Site) -> None:
    # Nobody took it yet: it is closed at once, and no terminal is ever asked.
    waiting = await site.open(terminal="POS003")
    gone = await site.shop.ask("POST", f"/v1/payments/{waiting['id']}/cancel", {})
    assert gone.json["status"] == "cancelled"

    terminal = await site.terminal("POS001")
    made = await site.open()
    asked = await terminal.request(within_s=30)
    await terminal.ack(asked["txn_id"])
    await site.at_terminal(made["id"], "processing")
    held = await site.shop.ask("POST", f"/v1/payments/{made['id']}/cancel", {"reason": "changed his mind"})
    assert (held.status, held.json["status"]) == (200, "pending")  # asked, not known to be so
    await terminal.request("cancel_transaction", 12)
    await terminal.ack(asked["txn_id"])
    await terminal.result(asked["txn_id"], "failed", error_message="USER_ABORT")
    await site.until(made["id"], "cancelled")

    failing = await site.open()
    asked = await terminal.request(within_s=30)
    await terminal.result(asked["txn_id"], "failed", error_message="DECLINED_51")
    await site.until(failing["id"], "failed")
    [attempt] = (await site.shop.ask("GET", f"/v1/payments/{failing['id']}/attempts")).json["data"]
    assert attempt["reason"] == "DECLINED_51"

    other = await site.terminal("POS003")
    assert await other.hears_nothing()


async def test_what_is_unknown_is_settled_with_a_reason_at_either_end(site: Site, tmp_path: Path) -> None:
    terminal = await site.terminal()
    made, second = await site.open(), None
    asked = await terminal.request(within_s=30)
    terminal.pull_the_plug()
    await site.until(made["id"], "unsure")

    body = {"outcome": "paid", "reason": "the receipt is in the drawer", "by": "Aishah"}
    done = await site.shop.ask("POST", f"/v1/payments/{made['id']}/resolve", body)
    assert done.json["status"] == "paid"
    resolved = [one for one in await site.events(made["id"]) if one["type"] == "payment.resolved"]
    assert resolved[0]["data"]["note"] == {
        "resolved": "paid", "reason": "the receipt is in the drawer", "by": "Aishah"
    }  # fmt: skip
    settled = await site.bench.reaches(asked["txn_id"], "succeeded", 30)  # the kiosk is told, too
    assert settled.settled_because == "the receipt is in the drawer (Aishah)"

    terminal = await site.terminal()
    second = await site.open()
    asked = await terminal.request(within_s=30)
    terminal.pull_the_plug()
    await site.until(second["id"], "unsure")
    # Its kiosk may be asked for it back, as long as the kiosk has it.
    wished = await site.shop.ask("POST", f"/v1/payments/{second['id']}/cancel", {})
    assert (wished.status, wished.json["status"]) == (200, "unsure")
    await site.bench.kiosk.settle(asked["txn_id"], paid=False, because="the terminal shows nothing")
    await site.until(second["id"], "failed")
    notes = [one["data"].get("note") for one in await site.events(second["id"])]
    assert {"resolved": "failed", "reason": "the terminal shows nothing", "by": "kiosk till-1"} in notes

    # The terminal comes back and says that it did charge: nothing of that is lost.
    terminal = await site.terminal()
    await terminal.result(asked["txn_id"], "success", amount=50.0, transaction_id="late-1")
    review = await site.until(second["id"], "review")
    assert (review["paid_minor"], review["late"], review["hold"]) == (5000, True, "late_money")
    accepted = await site.shop.ask(
        "POST", f"/v1/payments/{second['id']}/resolve", {"outcome": "accept", "reason": "goods were given"}
    )
    assert accepted.json["status"] == "paid"
    await site.bench.reaches(asked["txn_id"], "succeeded", 30)

    # By an operator at the command line, beside the running hub; then there is nothing left to settle.
    third = await site.open()
    asked = await terminal.request()
    await terminal.result(asked["txn_id"], "declined")
    await site.until(third["id"], "unsure")
    word = ["resolve", third["order_id"], "failed", "--by", "Nurul", "--reason", "no sale in the list"]
    operator = Process(tmp_path, word, {"database_url": site.database_url, "sandbox": 1}).start()
    assert await asyncio.to_thread(operator.wait) == 0, operator.log
    assert f"{third['id']} ({third['order_id']}) is failed" in operator.log
    settled = await site.bench.reaches(asked["txn_id"], "failed")
    assert settled.settled_because == "no sale in the list (Nurul)"
    await site.heals()


async def test_other_amounts_and_second_charges_are_held(site: Site) -> None:
    terminal = await site.terminal()
    made = await site.open()
    asked = await terminal.request(within_s=30)
    await terminal.result(asked["txn_id"], "success", amount=40.0, transaction_id="1")
    held = await site.until(made["id"], "review")
    assert (held["paid_minor"], held["hold"]) == (4000, "amount_mismatch")

    again = await site.open()
    asked = await charge(terminal)
    await site.until(again["id"], "paid")
    await terminal.result(asked["txn_id"], "success", amount=50.0, transaction_id="another")
    held = await site.until(again["id"], "review")
    assert (held["paid_minor"], held["hold"]) == (5000, "operator")


async def test_a_kiosk_cut_off_goes_on_and_reports_afterwards_once(site: Site) -> None:
    """The books of both ends are equal once the network is whole, whatever was lost, repeated or delayed."""
    one, two = await site.terminal("POS001"), await site.terminal("POS002")
    before = await site.open(terminal="POS001")
    asked = await one.request(within_s=30)  # in flight when the network goes

    site.proxy.fault = "refuse"
    site.proxy.cut_all()
    meanwhile = await site.open(terminal="POS001")  # the hub keeps it for the kiosk
    await one.ack(asked["txn_id"])
    await one.result(asked["txn_id"], "success", amount=50.0, transaction_id="1")
    await site.bench.reaches(asked["txn_id"], "succeeded")
    own = []
    for sen in (1000, 2000, 3000):
        payment = await site.bench.pay(sen=sen, terminal="POS002", reference=f"counter-{sen}")
        own.append(payment.txn_id)
        await charge(two)
        await site.bench.reaches(payment.txn_id, "succeeded")
    assert (await site.payment(before["id"]))["status"] == "pending"  # nothing is guessed
    assert (await site.payment(meanwhile["id"]))["status"] == "pending"

    for fault in ("cut", "reset", "hold"):  # requests arrive, answers do not
        site.proxy.fault, broken = fault, site.proxy.broken
        async with asyncio.timeout(30):
            while site.proxy.broken < broken + 2:
                await asyncio.sleep(0.02)
    site.proxy.fault = "pass"
    await site.until(before["id"], "paid")
    asked = await one.request(within_s=30)  # once, and only now
    await one.result(asked["txn_id"], "success", amount=50.0, transaction_id="2")
    await site.until(meanwhile["id"], "paid")
    books = await site.heals()
    assert len(books) == 5
    assert await one.hears_nothing()
    assert await two.hears_nothing()

    listed = (await site.shop.ask("GET", "/v1/payments?limit=100")).json["data"]
    mine = {one["order_id"]: one for one in listed}
    assert {f"till-1-{txn_id}" for txn_id in own} <= set(mine)
    assert mine[f"till-1-{own[0]}"]["metadata"] == {
        "kiosk": "till-1", "terminal": "POS002", "reference": "counter-1000"
    }  # fmt: skip
    assert all(one["status"] == "paid" for one in listed)


async def test_any_mixture_of_faults_heals(site: Site) -> None:
    """Random faults on every request, payments from both ends, terminals that approve, decline and vanish."""
    rng = random.Random(20261121)
    counts: dict[str, int] = {}
    before = await site.attempts()
    stop = False

    async def play(pos_id: str) -> None:
        terminal = await site.terminal(pos_id)
        while not stop:
            try:
                asked = await terminal.request(within_s=0.2)
            except TimeoutError:
                continue
            counts[asked["txn_id"]] = counts.get(asked["txn_id"], 0) + 1
            how = rng.choice(("success", "success", "success", "failed", "vanish"))
            if how == "vanish":
                terminal.pull_the_plug()
                terminal = await site.terminal(pos_id)
                continue
            more = {"transaction_id": secrets.token_hex(3)} if how == "success" else {"error_message": "NO"}
            await terminal.ack(asked["txn_id"])
            await terminal.result(asked["txn_id"], how, amount=asked["amount"], **more)

    players = [asyncio.create_task(play(pos_id)) for pos_id in SECRETS]
    await site.bench.until(lambda: len(site.terminals) == 3)
    site.proxy.mix = rng
    opened = [await site.open(minor=1000 + n) for n in range(12)]
    for n in range(6):
        with contextlib.suppress(Exception):  # busy terminals refuse; that is not what is tested here
            await site.bench.pay(sen=50 + n, reference=f"own-{n}")
        await asyncio.sleep(0.05)
    await site.bench.until(lambda: site.proxy.broken > 10, 30)
    site.proxy.mix = None
    deadline = time.monotonic() + 30
    while True:
        statuses = [(await site.payment(one["id"]))["status"] for one in opened]
        if "pending" not in statuses:
            break
        assert time.monotonic() < deadline, statuses
        await asyncio.sleep(0.1)
    stop = True
    for player in players:
        await player
    await site.heals()
    assert max(counts.values()) == 1, "a terminal was asked twice"
    assert await site.attempts() == before + len(counts)


async def test_a_restarted_kiosk_asks_for_what_it_took_and_never_twice(
    hub_process: Process, tmp_path: Path
) -> None:
    """Stopped between taking an order and writing the payment down, and after writing it down."""
    database_url = hub_process.settings["TILLGATE_DATABASE_URL"]
    async with site_at(hub_process, database_url, tmp_path) as site:
        await site.leave()
        made = await site.open()
        entry = site.bench.journal.hub()
        assert entry is not None
        [attempt] = (await site.shop.ask("GET", f"/v1/payments/{made['id']}/attempts")).json["data"]
        link = Uplink(site.bench.server, entry)
        from tillgate.providers.mobypay import journal_rows

        await site.bench.journal.write([journal_rows.hub_order_row(attempt["id"], "TXN-TAKEN-1", 1)])
        await link._take(attempt["id"], "TXN-TAKEN-1")
        await link._hub.close()
        terminal = await site.terminal()
        assert await terminal.hears_nothing()
        await site.join()
        asked = await charge(terminal)
        assert asked["txn_id"] == "TXN-TAKEN-1"
        await site.until(made["id"], "paid")
        assert await terminal.hears_nothing()

        await site.leave()
        await site.join()
        assert await terminal.hears_nothing(0.5)

        # Taken with our key by a journal that we do not have: it is not asked for, and somebody is told.
        strange = await site.open()
        await site.leave()
        [attempt] = (await site.shop.ask("GET", f"/v1/payments/{strange['id']}/attempts")).json["data"]
        copied = Uplink(site.bench.server, entry)
        with contextlib.suppress(HubAway):
            await copied._take(attempt["id"], "TXN-COPY-1")
        await copied._hub.close()
        await site.join()
        await site.bench.until(lambda: "foreign_order" in site.bench.alerts(), 10)
        assert await terminal.hears_nothing()


async def test_shop_and_kiosk_at_different_processes_on_postgresql(pg_till_url: str, tmp_path: Path) -> None:
    """What one process of the hub writes, the other tells the kiosk; and the same where both tell at once."""
    with hub(tmp_path, pg_till_url) as one, hub(tmp_path, pg_till_url) as other:
        async with site_at(one, pg_till_url, tmp_path, kiosks_hub=other) as site:
            for story in (
                test_a_hubs_payment_is_taken_asked_once_and_followed,
                test_an_instalment_plan_is_chosen_at_the_hub,
                test_cancels_failures_and_their_words_go_through,
                test_any_mixture_of_faults_heals,
            ):
                await story(site)
                await site.all_leave()
        for process in (one, other):
            assert process.stop() == 0
            assert "Traceback" not in process.log


async def test_doors_are_shut_to_others(site: Site, hub_process: Process) -> None:
    ask = site.shop.ask
    none = {"Authorization": ""}
    assert (await ask("POST", "/kiosk/work", {}, headers=none)).status == 401
    assert (await ask("POST", "/kiosk/work", {})).status == 401  # a merchant's token is none of a kiosk's
    wrong = {"Authorization": f"Bearer {site.account}.{'x' * 43}"}
    for path, body in (
        ("/kiosk/work", {}),
        ("/kiosk/take", {"attempt": "a", "txn_id": "T"}),
        ("/kiosk/reports", {"reports": []}),
    ):
        assert (await ask("POST", path, body, headers=wrong)).status == 401
    code = (await ask("POST", f"/v1/accounts/{site.account}/enrolment")).json["code"]
    first = await ask("POST", "/kiosk/enrol", {"code": code, "key": "k" * 43}, headers=none)
    again = await ask("POST", "/kiosk/enrol", {"code": code, "key": "k" * 43}, headers=none)
    other = await ask("POST", "/kiosk/enrol", {"code": code, "key": "z" * 43}, headers=none)
    assert (first.status, again.status, other.status) == (200, 200, 401)
    shown = json.dumps((await ask("GET", f"/v1/accounts/{site.account}")).json)
    assert code not in shown
    assert "k" * 43 not in shown

    bearer = {"Authorization": f"Bearer {site.account}.{'k' * 43}"}
    report = {
        "txn_id": "TXNX", "version": 1, "mode": "card", "amount_minor": 100, "terminal": "POS001",
        "state": "succeeded", "at": 1, "created_at": 1,
    }  # fmt: skip
    foreign = new_merchant(site.database_url)
    async with client(hub_process.url, foreign) as rival:
        body = {"order_id": "R1", "amount_minor": 500, "currency": "MYR", "channel": "card"}
        await rival.ask("POST", "/v1/accounts", {"provider": "mobypay", "name": "till-1", "config": {}})
        theirs = (await rival.ask("POST", "/v1/payments", body)).json["id"]
        [attempt] = (await rival.ask("GET", f"/v1/payments/{theirs}/attempts")).json["data"]
        body = {"reports": [{**report, "attempt": attempt["id"]}]}
        answered = await ask("POST", "/kiosk/reports", body, headers=bearer)
        assert answered.json["results"][0]["verdict"] == "foreign"
        taken = await ask("POST", "/kiosk/take", {"attempt": attempt["id"], "txn_id": "T1"}, headers=bearer)
        assert taken.status == 404
        assert (await rival.ask("GET", f"/v1/payments/{theirs}")).json["status"] == "pending"
    for bad in ({"version": -1}, {"state": "fine"}, {"amount_minor": 0}, {"currency": "IDR"}, {"x": 1}):
        body = {"reports": [{**report, **bad}]}
        assert (await ask("POST", "/kiosk/reports", body, headers=bearer)).status == 400

    # Repeated, stale and out of order.
    verdicts = []
    for version, state in ((3, "succeeded"), (3, "succeeded"), (1, "pending"), (2, "unknown")):
        body = {"reports": [{**report, "version": version, "state": state}]}
        answered = await ask("POST", "/kiosk/reports", body, headers=bearer)
        verdicts.append(answered.json["results"][0]["verdict"])
        payment_id = answered.json["results"][0]["payment"]
    assert verdicts == ["applied", "repeated", "repeated", "repeated"]
    assert (await site.payment(payment_id))["status"] == "paid"


def test_secrets_of_the_tests_are_not_published() -> None:
    assert oracle.SECRET not in SECRETS.values()
