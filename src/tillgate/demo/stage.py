"""The stage: a hub with its worker, a shop that is logged in, and room for providers' simulators."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeAlias

from tillgate.demo.scene import Scene
from tillgate.demo.shop import Shop, Sink
from tillgate.http.app import create_app
from tillgate.http.server import Server, listen
from tillgate.logs import configure
from tillgate.runtime import Runtime
from tillgate.settings import Settings, load


@dataclass(slots=True)
class Stage:
    """`async with Stage(host, port, folder) as stage`: the hub runs, and `stage.shop` is logged in.

    Raises `Misconfigured` where it cannot listen."""

    host: str
    port: int
    folder: Path
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    sink: Sink = field(default_factory=Sink)
    places: dict[str, str] = field(default_factory=dict)  # what else there is to look at: name → URL

    url: str = ""
    settings: Settings = field(init=False)
    runtime: Runtime = field(init=False)
    shop: Shop = field(init=False)

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self.stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stack.aclose()

    async def _open(self) -> None:
        listening = listen(self.host, self.port)
        await self.stack.enter_async_context(self.sink)
        self.settings = settings = load(
            {
                "host": self.host,
                "port": listening.getsockname()[1],
                "database_url": f"sqlite:///{self.folder}/demo.db",
                "public_url": "",
                "sandbox": True,
                "rate_limit": 0,
                "callback_allow": self.sink.url.removeprefix("http://"),
                "bootstrap_api_key": "demo",
                "bootstrap_api_secret": secrets.token_urlsafe(24),
            }
        )
        configure("error", "auto")
        app = create_app(settings)
        await self._serve(Server(app), listening)
        self.url = settings.url
        self.runtime = self.sink.runtime = app.state.runtime
        self.shop = await self._shop("demo", settings.bootstrap_api_secret.get_secret_value())

    async def merchant(self, name: str) -> Shop:
        """The till of another merchant, with accounts and books of its own."""
        made = await self.runtime.create_merchant(name)
        return await self._shop(made.api_key, made.api_secret)

    async def account(
        self, provider: str, config: Mapping[str, Any], *, shop: Shop | None = None, default: bool = False
    ) -> str:
        """Declare an account of the shop, named like its provider. Gives the URL that the provider calls.

        `default`: it serves the provider's documented paths, too."""
        owner = await self.runtime.directory.credential((shop or self.shop).key)
        assert owner is not None
        merchant = await self.runtime.directory.merchant(owner.merchant_id)
        made = await self.runtime.hub.accounts.create(
            merchant, provider, provider, config, is_default=default
        )
        return f"{self.url}/in/{made.account.id}"

    async def serve(self, app: Any) -> str:
        """Serve an ASGI application (a simulator's pages or API) on a free port until the show is over."""
        listening = listen("127.0.0.1", 0)
        await self._serve(Server(app), listening)
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    async def _shop(self, key: str, secret: str) -> Shop:
        shop = Shop(self.url, key, secret, self.sink)
        self.stack.push_async_callback(shop.close)
        await shop.login()
        return shop

    async def _serve(self, server: Server, listening: Any) -> None:
        serving = asyncio.create_task(server.serve([listening]))

        async def end() -> None:
            server.stop()
            with suppress(asyncio.CancelledError):
                await serving

        self.stack.push_async_callback(end)
        while not server.started:
            if serving.done():
                await serving  # raises why
            await asyncio.sleep(0.02)


Part: TypeAlias = Callable[[Stage], Awaitable[list[Scene]]]
"""A provider's part of the show: it declares its accounts and starts its simulator on the stage, and gives
its scenes, played all at once. What it opens it enters into `stage.stack`, which is closed after the show."""
