"""Pretended Indonesian wallets: the merchant API works end to end with no network and no money.

A bank that exists only here (`simulator`) keeps charges and refunds and notifies the hub with signed bytes.
The last digits of an amount choose a fault; see `connector.FAULTS` and `docs/sandbox.md`.
"""

from __future__ import annotations

from tillgate.domain.errors import Unsure
from tillgate.providers.sandbox.connector import CHANNELS, Config, Sandbox
from tillgate.providers.sandbox.simulator import Bank
from tillgate.spi import HttpCall, HttpReply, Provider, Send, Vault


def bank(vault: Vault, send: Send) -> Send:
    """The bank behind the hub's `send`: an answer that it loses is `Unsure`, as on a real wire."""

    async def notify(url: str, headers: dict[str, str], body: bytes) -> int:
        return (await send(HttpCall("POST", url, headers, body))).status

    simulator = Bank(vault.get, vault.put, notify)

    async def answer(call: HttpCall) -> HttpReply:
        status, body = await simulator.answer(call.method, call.url, call.body)
        if status == 0:
            raise Unsure("the answer was lost")
        return HttpReply(status, {"content-type": "application/json"}, body)

    return answer


PROVIDER = Provider(
    name="sandbox",
    title="Sandbox",
    config=Config,
    channels=CHANNELS,
    connect=Sandbox,
    example={"webhook_key": "an-example-key-for-signing-notices"},
    secrets=frozenset({"webhook_key"}),
    sandbox_only=True,
    simulator=bank,
)
