"""The most that one process can deliver with aiohttp: signed POSTs to a local sink and nothing else.

`python -m bench.peers.bare_aiohttp URL COUNT CONCURRENCY` prints {"rate", "cpu_s"} as JSON.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import sys
import time
from collections.abc import Iterator

import aiohttp

_BODY = json.dumps(
    {
        "type": "payment.paid", "timestamp": "2026-11-21T10:00:00Z",
        "payment_id": "pay_019ab3c5d6e77a8b9c0d1e2f3a4b5c6d", "order_id": "order-100000000000",
        "status": "success", "amount": 150000, "currency": "IDR",
        "wallet_id": "gopay", "paid_at": "2026-11-21T10:00:00Z",
    }
).encode()  # fmt: skip
_KEY = b"k" * 32


async def deliver(url: str, count: int, concurrency: int) -> dict[str, float]:
    """Deliveries per second and the CPU they took; connections and caches are warm before the clock runs."""
    session = aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=15),
        trust_env=False,
        connector=aiohttp.TCPConnector(limit=concurrency),
    )

    async def one_after_another(numbers: Iterator[int]) -> None:
        for number in numbers:
            message, stamp = f"msg_{number:032x}", str(int(time.time()))
            mac = hmac.digest(_KEY, f"{message}.{stamp}.".encode() + _BODY, "sha256")
            headers = {
                "content-type": "application/json", "webhook-id": message, "webhook-timestamp": stamp,
                "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
            }  # fmt: skip
            async with session.post(url, data=_BODY, headers=headers, allow_redirects=False) as answer:
                await answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"the sink answered {answer.status}")

    async with session:
        for numbers in (iter(range(count, count + 10 * concurrency)), iter(range(count))):
            start, cpu = time.perf_counter(), time.process_time()
            await asyncio.gather(*(one_after_another(numbers) for _ in range(concurrency)))
        return {"rate": count / (time.perf_counter() - start), "cpu_s": time.process_time() - cpu}


if __name__ == "__main__":
    import uvloop

    print(json.dumps(uvloop.run(deliver(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))))
