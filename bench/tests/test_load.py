"""The loader against a real server that can be told to misbehave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from bench.load import CAPTURED, ID, PICK, Step, json_post, play
from bench.process import BenchError, free_port


class Endpoint:
    """An HTTP server in a thread: `answer` gives (status, body), or None to say nothing."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []

    def answer(self, method: str, path: str, body: str) -> tuple[int, str] | None:
        return 200, '{"payment_id":"pay_' + body[-14:-2] + '","ok":true}'

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0] or 0)
                body = (await reader.readexactly(length)).decode()
                method, path, _ = head.split(" ", 2)
                self.seen.append((method, path, body))
                if (said := self.answer(method, path, body)) is None:
                    continue
                text = said[1].encode()
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (said[0], len(text), text))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@contextmanager
def running(endpoint: Endpoint) -> Iterator[int]:
    loop, port, up = asyncio.new_event_loop(), free_port(), threading.Event()

    async def main() -> None:
        server = await asyncio.start_server(endpoint.serve, "127.0.0.1", port)
        up.set()
        async with server:
            await stop.wait()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    assert up.wait(5)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(5)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


CREATE = json_post("/payments", {"order_id": ID}, marker='"payment_id":"pay_', capture='"payment_id":"')


def test_every_flow_has_its_own_number_and_all_that_was_answered_is_counted() -> None:
    endpoint = Endpoint()
    with running(endpoint) as port:
        load = play(port, [CREATE], seconds=0.4, warm=0.1, connections=7)
    bodies = [body for _, _, body in endpoint.seen]
    assert load.errors == 0
    assert not load.stalled
    assert load.all_flows == len(bodies) == len(set(bodies)) > 0
    assert 0 < load.rate * 0.4 < load.all_flows
    assert all(len(body) == len('{"order_id":"123456789012"}') for body in bodies)


def test_a_later_step_uses_what_an_earlier_one_was_told_and_picks_go_round() -> None:
    endpoint = Endpoint()
    pay = Step("POST", f"/pay/{CAPTURED}?by={PICK}", {}, status=0)
    with running(endpoint) as port:
        load = play(port, [CREATE, pay], seconds=5, flows=6, connections=1, picks=["ann", "bob"])
    assert load.all_flows == 6
    for (_, _, created), (_, path, _), name in zip(
        endpoint.seen[::2], endpoint.seen[1::2], ["ann", "bob"] * 3, strict=True
    ):
        assert path == f"/pay/pay_{created[-14:-2]}?by={name}"


@pytest.mark.parametrize(
    ("answer", "why"),
    [((500, '{"payment_id":"pay_1"}'), "wrong status"), ((200, '{"error":1}'), "marker missing")],
)
def test_a_wrong_answer_spoils_the_run(answer: tuple[int, str], why: str) -> None:
    class Wrong(Endpoint):
        def answer(self, method: str, path: str, body: str) -> tuple[int, str]:
            return answer

    with running(Wrong()) as port:
        load = play(port, [CREATE], seconds=2, connections=2)
    assert load.errors >= 100
    assert load.elapsed < 2, "a hundred errors are enough"
    with pytest.raises(BenchError, match=why):
        load.right("it")


def test_a_server_that_stops_answering_is_reported_not_waited_for() -> None:
    class Frozen(Endpoint):
        def answer(self, method: str, path: str, body: str) -> tuple[int, str] | None:
            return super().answer(method, path, body) if len(self.seen) < 50 else None

    with running(Frozen()) as port:
        load = play(port, [CREATE], seconds=0.2, warm=0, connections=5, stall_s=0.5)
    assert load.stalled
    assert load.waiting == 5
    assert load.all_flows == 49
    with pytest.raises(BenchError, match="stalled"):
        load.right("it")
