"""The IPN service over real sockets: what is answered, what is kept, what the hook sees."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from tillgate.domain.errors import Misconfigured
from tillgate.integrations.atom_ipn import IPNRequest, create_ipn_app
from tillgate.providers.atompos_vn import AtomPos
from tillgate.providers.atompos_vn.options import Options

from .conftest import Running, ipn, running

SECRET = "a-secret-of-more-than-thirty-two-bytes"
OK = (200, {"code": "00", "message": "success"})


async def test_an_ipn_is_answered_and_the_hook_sees_its_fields_as_sent(database: Path) -> None:
    seen: list[IPNRequest] = []
    async with running(seen.append, database) as service:
        sent = ipn(amount="10000.00", narrative=" Thanh toán 🧾 ")
        async with service.http.post(service.url + "/ipn", json=sent) as reply:
            assert (reply.status, await reply.read()) == (200, b'{"code":"00","message":"success"}')
            assert reply.headers["content-type"] == "application/json"
        await service.until(lambda: seen)
    assert {name: getattr(seen[0], name) for name in sent} == sent


async def test_fifty_copies_at_once_and_later_ones_run_the_hook_once(database: Path) -> None:
    seen: list[str] = []
    async with running(lambda one: seen.append(one.requestId), database) as service:
        assert set(map(str, await asyncio.gather(*(service.post(ipn()) for _ in range(50))))) == {str(OK)}
        await service.until(lambda: service.journal.counts()["done"] == 1)
        assert await service.post(ipn()) == OK
        await asyncio.sleep(0.1)
    async with running(lambda one: seen.append(one.requestId), database) as service:
        assert await service.post(ipn()) == OK
        await asyncio.sleep(0.2)
    assert seen == ["00017-058-0001"]


async def test_a_conflicting_repeat_is_kept_and_alerted_and_not_processed(database: Path) -> None:
    seen: list[str] = []
    async with running(lambda one: seen.append(one.amount), database) as service:
        await service.post(ipn())
        await service.until(lambda: seen)
        for _ in range(3):
            assert await service.post(ipn(amount="90000")) == OK
        await asyncio.sleep(0.1)
        assert service.journal.counts()["conflict"] == 1
        [kept] = service.journal.listed("conflict")
        assert json.loads(kept["body"])["amount"] == "90000"
        assert kept["times"] == 3
        assert service.alerts[0] == ("conflict", {"requestId": "00017-058-0001", "amount": "90000"})
    assert seen == ["10000"]


async def test_a_rejected_ipn_is_kept_and_does_not_use_up_its_id(database: Path) -> None:
    seen: list[str] = []
    async with running(lambda one: seen.append(one.amount), database) as service:
        status, body = await service.post(ipn(amount="-5"))
        assert (status, body["code"]) == (400, "04")
        status, body = await service.post({"requestId": "00017-058-0001"})
        assert (status, body["code"]) == (400, "03")
        assert await service.post(ipn()) == OK
        await service.until(lambda: seen)
        assert [row["code"] for row in service.journal.listed("rejected")] == ["03", "04"]
        assert [kind for kind, _ in service.alerts] == ["rejected", "rejected"]


async def test_parts_of_one_request_are_taken_where_that_is_configured(database: Path) -> None:
    seen: list[str] = []
    async with running(lambda one: seen.append(one.amount), database, split_tender=True) as service:
        for amount in ("6000", "4000", "6000"):
            assert await service.post(ipn(amount=amount)) == OK
        await service.until(lambda: len(seen) == 2)
    assert sorted(seen) == ["4000", "6000"]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/ipn/", (200, "00")),
        ("GET", "/ipn", (405, "02")),
        ("GET", "/ipn/", (405, "02")),
        ("PUT", "/ipn", (405, "02")),
        ("DELETE", "/ipn", (405, "02")),
        ("POST", "/", (404, "02")),
        ("POST", "/ipnn", (404, "02")),
        ("POST", "/ipn/x", (404, "02")),
        ("POST", "/ipn/x/y", (404, "02")),
        ("POST", "/IPN", (404, "02")),
        ("POST", "//ipn", (404, "02")),
        ("POST", "/payment-terminal", (404, "02")),
        ("GET", "/docs", (404, "02")),
        ("POST", "/%00", (404, "02")),
        ("GET", "/", (200, "00")),
    ],
)
async def test_paths_and_methods(database: Path, method: str, path: str, expected: tuple[int, str]) -> None:
    async with (
        running(lambda _: None, database) as service,
        service.http.request(method, service.url + path, json=ipn(), allow_redirects=False) as reply,
    ):
        assert (reply.status, (await reply.json())["code"]) == expected
        assert "detail" not in await reply.text()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (400, "04")),
        (b"not json", (400, "04")),
        (b"[]", (400, "04")),
        (b"{}", (400, "03")),
        (b"\xff", (400, "04")),
        (b"[" * 100_000, (400, "04")),
        (b" " * (1 << 20) + b"x", (413, "04")),
        (b"x" * 10_000_000, (413, "04")),
        (json.dumps(ipn(amount=10000)).encode(), (400, "04")),
        (json.dumps(ipn(extraData=[])).encode(), (400, "04")),
        (json.dumps(ipn(extraData=None)).encode(), (400, "04")),
        (json.dumps(ipn()).encode()[:-1] + b',"amount":"1"}', (400, "04")),
    ],
    ids=lambda value: str(value[:20] if isinstance(value, bytes) else value),
)
async def test_bodies_that_are_no_ipn(database: Path, body: bytes, expected: tuple[int, str]) -> None:
    async with running(lambda _: None, database) as service:
        status, answer = await service.post(body)
        assert (status, answer["code"]) == expected
        assert set(answer) == {"code", "message"}
        assert await service.post(ipn()) == OK


async def test_any_content_type_is_read_and_the_request_id_is_echoed(database: Path) -> None:
    async with running(lambda _: None, database) as service:
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            headers = {"content-type": kind, "x-request-id": "abc-1"}
            data = json.dumps(ipn()).encode()
            async with service.http.post(service.url + "/ipn", data=data, headers=headers) as reply:
                assert reply.status == 200
                assert reply.headers["x-request-id"] == "abc-1"
        headers = {"x-request-id": "<script>"}
        async with service.http.post(service.url + "/ipn", json=ipn(), headers=headers) as reply:
            assert reply.headers["x-request-id"] != "<script>"


# --- who may send -------------------------------------------------------------------------------------------


async def test_jwt(database: Path) -> None:
    login = {"username": "atom", "password": "a password"}
    async with running(
        lambda _: None, database, jwt_secret=SECRET, user="atom", password="a password"
    ) as service:
        status, body = await service.post(ipn())
        assert (status, body["code"]) == (401, "05")
        status, granted = await service.post(login, "/authorize")
        assert (status, granted["token_type"]) == (200, "Bearer")
        assert await service.post(ipn(), authorization=f"Bearer {granted['access_token']}") == OK
        now = int(time.time())
        expired = jwt.encode({"sub": "a", "jti": "1", "iat": now - 99, "exp": now - 40}, SECRET, "HS256")
        for bad in ("junk", expired, "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."):
            status, body = await service.post(ipn(), authorization=f"Bearer {bad}")
            assert (status, body["code"]) == (401, "01")
        status, body = await service.post(b"x" * 2_000_000)
        assert (status, body["code"]) == (401, "05")  # a stranger learns nothing about size or schema
        status, body = await service.post(ipn(), "/authorize/")
        assert (status, body["code"]) == (400, "03")
        assert len(service.journal.listed("rejected")) == 5  # kept: they may be money


async def test_guessing_passwords_is_slowed_down(database: Path) -> None:
    async with running(
        lambda _: None, database, jwt_secret=SECRET, user="atom", password="a password"
    ) as service:
        statuses = Counter()
        for password in ["guess"] * 15 + ["a password"]:
            status, body = await service.post({"username": "atom", "password": password}, "/authorize")
            assert body["code"] == "01"
            statuses[status] += 1
    assert statuses == {401: 10, 429: 6}


async def test_header_path_and_addresses(database: Path, tmp_path: Path) -> None:
    async with running(lambda _: None, database, auth="header", header_value="sixteen letters!") as service:
        assert (await service.post(ipn()))[1]["code"] == "05"
        assert (await service.post(ipn(), x_callback_token="wrong"))[1]["code"] == "01"
        assert await service.post(ipn(), x_callback_token="sixteen letters!") == OK
    token = "Y2hvb3NlIHlvdXIgb3duIHBhdGggdG9rZW4_-abcdef"
    async with running(lambda _: None, tmp_path / "2.db", auth="path", path_token=token) as service:
        assert (await service.post(ipn()))[0] == 403
        assert (await service.post(ipn(), "/ipn/" + token[:-1]))[0] == 404
        assert await service.post(ipn(), "/ipn/" + token) == OK
        assert await service.post(ipn(), f"/ipn/{token}/") == OK
    async with running(lambda _: None, tmp_path / "3.db", allow=("203.0.113.7",)) as service:
        assert (await service.post(ipn()))[1]["code"] == "06"
        assert service.journal.counts() == {
            "waiting": 0,
            "done": 0,
            "dead": 0,
            "conflict": 0,
            "rejected": 1,
        }


# --- hooks --------------------------------------------------------------------------------------------------


RELEASE = threading.Event()


def blocking(_: Any) -> None:
    RELEASE.wait(5)


async def sleeping(_: Any) -> None:
    await asyncio.sleep(5)


async def blocking_its_loop(_: Any) -> None:
    RELEASE.wait(5)


@pytest.mark.parametrize("hook", [blocking, sleeping, blocking_its_loop])
async def test_sixty_slow_hooks_do_not_delay_answers(database: Path, hook: Any) -> None:
    """Each takes five seconds, unless the test is over before."""
    RELEASE.clear()
    async with running(hook, database, concurrency=60) as service:
        slowest = 0.0
        for n in range(60):
            begun = time.perf_counter()
            assert await service.post(ipn(requestId=f"r-{n}", orderId=f"o-{n}")) == OK
            slowest = max(slowest, time.perf_counter() - begun)
        assert slowest < 4
        assert service.journal.counts()["waiting"] == 60
        RELEASE.set()
        await service.app.state.ipn.hooks.stop(grace_s=0)


async def test_different_orders_run_beside_each_other_and_one_order_in_line(database: Path) -> None:
    now, most, order = 0, 0, []
    lock = threading.Lock()

    def hook(one: IPNRequest) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            order.append((one.orderId, one.requestId))
        time.sleep(0.02)
        with lock:
            now -= 1

    async with running(hook, database) as service:
        sent = [(f"o-{n % 4}", f"r-{n:02}") for n in range(40)]
        for order_id, request_id in sent:
            await service.post(ipn(orderId=order_id, requestId=request_id))
        await service.until(lambda: service.journal.counts()["done"] == 40)
    assert 2 <= most <= 4
    for wanted in {order_id for order_id, _ in sent}:
        assert [r for o, r in order if o == wanted] == [r for o, r in sent if o == wanted]


async def test_a_failing_hook_is_tried_again_in_order_then_buried_then_replayed(database: Path) -> None:
    seen: list[str] = []
    heal = threading.Event()

    def hook(one: IPNRequest) -> None:
        seen.append(one.requestId)
        if one.requestId == "r-1" and not heal.is_set():
            raise SystemExit("a hook may raise anything")

    async with running(hook, database, tries=3) as service:
        for request_id in ("r-1", "r-2"):
            await service.post(ipn(requestId=request_id))
        await service.until(lambda: service.journal.counts()["done"] == 1)
        assert seen == ["r-1", "r-1", "r-1", "r-2"]  # the second waited for its order's first
        [dead] = service.journal.listed("dead")
        assert (dead["request_id"], dead["tries"]) == ("r-1", 3)
        assert "a hook may raise anything" in dead["error"]
        assert [kind for kind, _ in service.alerts] == ["hook_failed", "hook_failed", "dead_letter"]
        heal.set()
        assert await service.journal.replay(dead["id"])
        await service.until(lambda: service.journal.counts()["done"] == 2)
        assert not await service.journal.replay(dead["id"])


async def test_coroutines_and_odd_hooks(database: Path) -> None:
    seen: list[str] = []

    class Odd:
        async def __call__(self, one: IPNRequest) -> None:
            await asyncio.sleep(0)
            if len(seen) == 0:
                seen.append("failed")
                raise StopIteration
            seen.append(one.requestId)

    async with running(Odd(), database) as service:
        await service.post(ipn(requestId="a"))
        await service.until(lambda: seen == ["failed", "a"])

    async def later(one: IPNRequest) -> None:
        seen.append(one.requestId)

    async with running(lambda one: later(one), database) as service:
        await service.post(ipn(requestId="b"))
        await service.until(lambda: seen[-1] == "b")


async def test_a_coroutine_that_was_cancelled_or_leaves_has_failed(database: Path) -> None:
    """It is neither run for ever nor holds up its order, nor the coroutines beside it."""
    seen: list[str] = []

    async def hook(one: IPNRequest) -> None:
        seen.append(one.requestId)
        if one.requestId == "a":
            helper = asyncio.create_task(asyncio.sleep(10))
            helper.cancel()
            await helper
        if one.requestId == "b":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(10)
        if one.requestId == "c":
            raise SystemExit

    async with running(hook, database, tries=2) as service:
        for request_id in "abcd":
            await service.post(ipn(requestId=request_id))
        await service.until(lambda: "d" in seen)
        dead = {row["request_id"]: row["error"] for row in service.journal.listed("dead")}
    assert "".join(seen) == "aabbccd"
    assert dead == {
        "a": "RuntimeError: the function was cancelled",
        "b": "RuntimeError: the function was cancelled",
        "c": "RuntimeError: SystemExit()",
    }


async def test_a_coroutine_that_hangs_is_ended(database: Path) -> None:
    began: list[str] = []

    async def hook(one: IPNRequest) -> None:
        began.append(one.requestId)
        if len(began) == 1:
            await asyncio.sleep(60)

    async with running(hook, database, timeout_s=0.1) as service:
        await service.post(ipn())
        await service.until(lambda: service.journal.counts()["done"] == 1)
    assert len(began) == 2


async def test_without_a_hook_ipns_wait_for_one(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(None, database) as service:
        assert await service.post(ipn()) == OK
        assert service.journal.counts()["waiting"] == 1
    assert "no process_ipn" in caplog.text
    seen: list[str] = []
    async with running(lambda one: seen.append(one.requestId), database) as service:
        await service.until(lambda: seen)


# --- disk ---------------------------------------------------------------------------------------------------


async def test_a_locked_file_is_99_until_it_is_free_again(database: Path) -> None:
    seen: list[str] = []
    async with running(lambda one: seen.append(one.requestId), database) as service:
        other = sqlite3.connect(database, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        answers = await asyncio.gather(*(service.post(ipn(requestId=f"r-{n}")) for n in range(5)))
        assert 1.5 < time.monotonic() - begun < 5
        assert {(status, body["code"]) for status, body in answers} == {(503, "99")}
        late = asyncio.create_task(service.post(ipn(requestId="late")))
        await asyncio.sleep(0.3)
        other.execute("ROLLBACK")
        other.close()
        assert await late == OK
        await service.until(lambda: seen == ["late"])
        assert await service.post(ipn(requestId="r-0")) == OK
        await service.until(lambda: seen == ["late", "r-0"])


async def test_a_hook_that_ran_while_the_disk_was_full_is_not_run_again(database: Path) -> None:
    seen: list[str] = []
    go = threading.Event()

    def hook(one: IPNRequest) -> None:
        seen.append(one.requestId)
        go.wait(5)

    async with running(hook, database) as service:
        await service.post(ipn())
        await service.until(lambda: seen)
        other = sqlite3.connect(database, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        go.set()
        await asyncio.sleep(3)
        other.execute("ROLLBACK")
        other.close()
        await service.until(lambda: service.journal.counts()["done"] == 1)
        await asyncio.sleep(0.1)
    assert seen == ["00017-058-0001"]


async def test_a_full_disk_loses_a_whole_batch_and_answers_none_of_it(database: Path) -> None:
    """SQLite may end the transaction by itself: what the batch had written before is then gone too."""
    async with running(lambda _: None, database) as service:
        db = service.journal._write
        await service.post(ipn(requestId="first"))
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages + 3}")
        big = ipn(narrative="x" * 4000)
        answers = await asyncio.gather(*(service.post({**big, "requestId": f"r-{n}"}) for n in range(40)))
        kept = {row["request_id"] for row in service.journal.listed("waiting", 1000)}
        done = sqlite3.connect(database)
        kept |= {row[0] for row in done.execute("SELECT request_id FROM ipn")}
        done.close()
        acknowledged = {f"r-{n}" for n, (status, _) in enumerate(answers) if status == 200}
        assert {(status, body["code"]) for status, body in answers} <= {(200, "00"), (503, "99")}
        assert len(acknowledged) < 40
        assert acknowledged <= kept
        db.execute("PRAGMA max_page_count = 1000000")
        for n in range(40):
            assert await service.post({**big, "requestId": f"r-{n}"}) == OK


async def test_a_card_number_is_not_on_the_disk(database: Path) -> None:
    seen: list[str] = []
    async with running(lambda one: seen.append(one.fromAccNo), database) as service:
        for number, sent in enumerate(("4111111111111111", "4111 1111 1111 1111", 4111111111111111)):
            await service.post(ipn(requestId=f"a{number}", fromAccNo=sent))
            await service.post(ipn(requestId=f"b{number}", fromAccNo=sent, amount="x"))
        await service.post(ipn(requestId="c", narrative="4111-1111-1111-1111"))
        await service.post(b"[" * 70_000 + b"4111111111111111")  # more than is kept of what is refused
        await service.post(b"[" * (64 * 1024 - 15) + b"4111111111111111")
        await service.until(lambda: len(seen) == 3)
        assert [one["request_id"] for one in service.journal.listed("conflict")] == []
    assert seen[:2] == ["************1111", "**** **** **** 1111"]
    for path in database.parent.iterdir():
        kept = path.read_bytes()
        for spelt in (b"4111111111", b"4111 1111", b"4111-1111"):
            assert spelt not in kept


# --- settings -----------------------------------------------------------------------------------------------


def test_settings_come_from_the_environment_and_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    environ = {
        "TILLGATE_IPN_JWT_SECRET_FILE": str(tmp_path / "secret"),
        "TILLGATE_IPN_ALLOW": "10.0.0.0/8, 192.168.0.0/16",
        "TILLGATE_IPN_TRIES": "3",
        "TILLGATE_IPN_PAUSE_S": "0.5",
        "TILLGATE_IPN_SPLIT_TENDER": "true",
        "TILLGATE_IPN_PARTNER": "from the environment",
    }
    options = Options.from_environment(environ, partner="given")
    assert options.mode == "jwt"
    assert options.jwt_secret == SECRET
    assert options.allow == ("10.0.0.0/8", "192.168.0.0/16")
    assert (options.tries, options.pause_s, options.split_tender) == (3, 0.5, True)
    assert options.partner == "given"
    assert SECRET not in repr(options)


@pytest.mark.parametrize(
    "environ",
    [
        {"TILLGATE_IPN_TRIES": "many"},
        {"TILLGATE_IPN_SPLIT_TENDER": "maybe"},
        {"TILLGATE_IPN_JWT_SECRET_FILE": "/nowhere/at/all"},
        {"TILLGATE_IPN_JWT_SECRET": "short"},
        {"TILLGATE_IPN_AUTH": "jwt"},
        {"TILLGATE_IPN_AUTH": "path", "TILLGATE_IPN_PATH_TOKEN": "short"},
        {"TILLGATE_IPN_AUTH": "header", "TILLGATE_IPN_HEADER_VALUE": "short"},
        {"TILLGATE_IPN_AUTH": "magic"},
        {"TILLGATE_IPN_ALLOW": "everyone"},
    ],
    ids=str,
)
def test_settings_that_are_wrong_or_unsafe_are_named(environ: dict[str, str]) -> None:
    with pytest.raises(Misconfigured):
        AtomPos(Options.from_environment(environ).account())


async def test_it_can_be_mounted_in_an_application(database: Path) -> None:
    seen: list[str] = []
    mounted = create_ipn_app(lambda one: seen.append(one.requestId), database=str(database))
    host = Starlette(routes=[Mount("/shop", mounted)])
    server = uvicorn.Server(uvicorn.Config(host, host="127.0.0.1", port=0, log_level="critical"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/shop"
    async with aiohttp.ClientSession() as http:
        service = Running(url, mounted, http)
        assert await service.post(ipn()) == OK
        assert (await service.post(ipn(), "/ipn/x"))[0] == 404
        await service.until(lambda: seen)
    await mounted.state.ipn.stop()
    server.should_exit = True
    await task
