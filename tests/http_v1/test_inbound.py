"""The doors for providers: documented paths serve the default account, everything has a limit."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

from support.serving import client, hub, new_merchant, rows
from tillgate.client import Tillgate

PAYME = {"merchant_id": "587f72c72cac0d162c722ae2", "key": "a-key-as-payme-gives-them-to-a-desk"}
CLICK = {"service_id": 12345, "merchant_id": 678, "secret_key": "a-secret-as-click-gives-them"}
CALL = {"id": 7, "method": "CheckTransaction", "params": {"id": "5305e3bab097f420a62ced0b"}}


def login(key: str = PAYME["key"]) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"Paycom:{key}".encode()).decode()}


async def test_documented_paths_serve_the_default_account(database_url: str, tmp_path: Path) -> None:
    with hub(tmp_path, database_url) as process:
        known = new_merchant(database_url)
        async with (
            client(process.url, known) as shop,
            Tillgate(process.url, known.api_key, known.api_secret) as till,
        ):
            path = "/payments/payme/webhook"
            assert (await shop.ask("POST", path, CALL, headers=login())).status == 404  # nobody's yet
            account = await till.create_account("payme", "main", PAYME)
            assert (await shop.ask("POST", path, CALL, headers=login())).status == 404  # not a default yet
            await rows(database_url, f"UPDATE accounts SET is_default = true WHERE id = '{account.id}'")
            for spelling in (path, f"{path}/"):
                for _ in range(30):
                    answer = await shop.ask("POST", spelling, CALL, headers=login())
                    if answer.status == 200:
                        break
                assert answer.json["error"]["code"] == -31003, answer
            assert (await shop.ask("POST", path, CALL, headers=login("x"))).json["error"]["code"] == -32504
            found = [one async for one in till.inbound()]
            assert {one.path for one in found} == {path, f"{path}/"}

            # Two defaults: nobody can say whose a message is.
            other = await till.create_account("payme", "second", PAYME)
            await rows(database_url, f"UPDATE accounts SET is_default = true WHERE id = '{other.id}'")
            assert (await shop.ask("POST", path, CALL, headers=login())).status == 404


async def test_what_nobody_would_send(database_url: str, tmp_path: Path) -> None:
    with hub(tmp_path, database_url) as process:
        known = new_merchant(database_url)
        async with (
            client(process.url, known) as shop,
            Tillgate(process.url, known.api_key, known.api_secret) as till,
        ):
            account = await till.create_account("payme", "main", PAYME)
            door = f"/in/{account.id}"
            second = f"/in/{(await till.create_account('payme', 'second', PAYME)).id}"
            for size in (1024 * 1024 + 1, 10_000_000):
                large = await shop.ask("POST", second, raw=io.BytesIO(b"x" * size), headers=login())
                assert (large.status, large.json["error"]["code"]) == (200, -32700)
            other = await till.create_account("click", "other", CLICK)
            large = await shop.ask("POST", f"/in/{other.id}", raw=io.BytesIO(b"x" * (1024 * 1024 + 1)))
            assert large.status == 413  # its dialect has no word for it
            for verb in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS"):
                answer = await shop.ask(verb, second, CALL, headers=login())
                assert (answer.status, answer.json["error"]["code"]) == (200, -32300), verb
            for raw in (b"", b"{", b"\xff", b"[" * 5000, json.dumps({"id": "x" * 60_000}).encode()):
                answer = await shop.ask("POST", door, raw=raw, headers=login())
                assert answer.status == 200
                assert answer.json["error"]["code"] in (-32700, -32600, -32601)
            for unknown in ("acc_" + "0" * 32, "x" * 300, "%00", "..%2f"):
                assert (await shop.ask("POST", f"/in/{unknown}", CALL)).status == 404
            answers: list[Any] = [
                await shop.ask("POST", door, raw=b"x" * 5000, headers=login("wrong")) for _ in range(70)
            ]
            assert {one.json["error"]["code"] for one in answers} == {-32504}
            kept = [one async for one in till.inbound(verdict="unauthenticated")]
            assert 50 <= len(kept) < 70  # a flood is answered, but not all of it kept
            assert len((await till.get_inbound(kept[0].id)).body) <= 4096
        assert process.stop() == 0
        assert "Traceback" not in process.log
