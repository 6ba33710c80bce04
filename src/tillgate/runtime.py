"""Puts the parts together: one `Runtime` is one process's hub, opened and closed as a context manager."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, Self

import structlog

from tillgate import calling, declarations
from tillgate.domain.errors import Misconfigured, NotAllowed
from tillgate.hub import Hub, Kit
from tillgate.outgoing import Outgoing
from tillgate.registry import providers as registered
from tillgate.settings import Settings
from tillgate.spi import HttpCall, HttpReply, Inbound, Provider
from tillgate.ssrf import AllowList
from tillgate.store import schema
from tillgate.store.database import Database, open_database
from tillgate.store.directory import Directory, Merchant
from tillgate.store.ids import now_ms
from tillgate.store.journal import Journal
from tillgate.store.reads import Reads
from tillgate.store.reads_pages import Pages
from tillgate.store.sealing import Sealer, derive
from tillgate.store.vault import StoredVault
from tillgate.worker import Worker

if TYPE_CHECKING:
    from tillgate.tracing import Tracing

log = structlog.get_logger("tillgate.runtime")
DRAIN_S: Final = 20


class Runtime:
    """`async with Runtime(settings) as runtime`: the store is open, the journal runs.

    `worker=True` runs due work in this process, too; `declare=False` leaves the configuration file alone.
    Raises `Misconfigured` or `Unavailable` on entering."""

    def __init__(
        self,
        settings: Settings,
        *,
        providers: Mapping[str, Provider[Any]] | None = None,
        worker: bool = False,
        migrate: bool = True,
        declare: bool = True,
    ) -> None:
        self.settings = settings
        self._wants_declared = declare and bool(settings.config)
        found = dict(providers if providers is not None else registered())
        if not settings.sandbox:
            found = {name: one for name, one in found.items() if not one.sandbox_only}
        self.providers = found
        self.allow = AllowList.parse(settings.callback_allow)
        self.secret_keys = settings.secret_keys()
        self.token_keys = tuple(derive(key, "tokens") for key in self.secret_keys)
        self._wants_worker, self._wants_migration = worker, migrate
        self._stack = AsyncExitStack()
        self._worker_task: asyncio.Task[None] | None = None
        self.closing = False
        self.tracing: Tracing | None = None

    database: Database
    journal: Journal
    directory: Directory
    pages: Pages
    kit: Kit
    hub: Hub
    worker: Worker

    async def __aenter__(self) -> Self:
        try:
            return await self._open()
        except BaseException:
            await self._stack.aclose()
            raise

    async def _open(self) -> Self:
        settings, enter = self.settings, self._stack.enter_async_context
        if self._wants_migration:
            await asyncio.to_thread(schema.upgrade, settings.database_url)
        self.database = open_database(settings.database_url)
        await self.database.open()
        self._stack.push_async_callback(self.database.close)
        if settings.tracing:
            from tillgate import tracing  # it brings OpenTelemetry, which nobody else needs

            self.tracing = tracing.start()
            self._stack.push_async_callback(self.tracing.close)
        traced = self.tracing
        self.journal = traced.journal(self.database) if traced else Journal(self.database)
        await self.journal.start()
        self._stack.push_async_callback(self.journal.stop)
        self.pages = Pages(self.database)
        self.directory = Directory(self.database, self.journal, Sealer(self.secret_keys))
        to_providers = await enter(Outgoing(guard=False))
        to_merchants = await enter(Outgoing(guard=True, allow=self.allow))
        self.kit = Kit(
            Reads(self.database),
            self.journal,
            self.directory,
            self.providers,
            traced.sending(to_providers.send) if traced else to_providers.send,
            now_ms,
            settings.url,
        )
        if settings.process_ipn:
            hook = calling.named("TILLGATE_PROCESS_IPN", settings.process_ipn)
            self.kit.hooks = {**self.kit.hooks, "atompos_vn": hook}
        self.hub = Hub(self.kit)
        self._simulate()
        patience_s = settings.endpoint_disable_after_s
        if traced:
            self.worker = traced.worker(self.hub, self.database, to_merchants.send, patience_s)
        else:
            self.worker = Worker(self.hub, to_merchants.send, disable_after_s=patience_s)
        await self._bootstrap()
        if self._wants_worker:
            self.journal.kick = self.worker.kick
            self._worker_task = asyncio.create_task(self.worker.run(), name="worker")
            self._stack.push_async_callback(self._stop_worker)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closing = True
        await self._stack.aclose()

    async def _stop_worker(self) -> None:
        assert self._worker_task is not None
        self.worker.stop()
        await self.hub.handing.stop()
        done, _ = await asyncio.wait([self._worker_task], timeout=DRAIN_S)
        if not done:  # its claims come up again when their leases run out
            self._worker_task.cancel()
            await asyncio.wait([self._worker_task])

    def _simulate(self) -> None:
        if not self.settings.sandbox:
            return
        self.kit.simulate("hub", self._from_simulator)
        for name, provider in self.providers.items():
            if provider.simulator is not None:
                vault = StoredVault(self.database, self.journal, name)
                played = provider.simulator(vault, self.kit.out)
                self.kit.simulate(name, self.tracing.sending(played) if self.tracing else played)

    async def _from_simulator(self, call: HttpCall) -> HttpReply:
        """A simulator's notice comes in by the same door as a provider's."""
        account_id = call.url.rpartition("/in/")[2]
        merchant, account = await self.directory.account(account_id)
        headers = {name.lower(): value for name, value in call.headers.items()}
        inbound = Inbound(call.method, f"/in/{account_id}", "", headers, call.body, "simulator", now_ms())
        reply = await self.hub.receive(merchant, account, inbound)
        return HttpReply(reply.status, {"content-type": reply.content_type}, reply.body)

    async def _bootstrap(self) -> None:
        """Make the merchants that the environment names, and give everyone in a sandbox its accounts."""
        for number, (key, secret) in enumerate(self.settings.bootstrap(), 1):
            name = "default" if number == 1 else f"default-{number}"
            for free in (name, f"{name} {key}"):  # the name may be an earlier key's
                try:
                    await self.directory.create_merchant(free, now_ms(), api_key=key, api_secret=secret)
                except NotAllowed:
                    continue
                log.info("made a merchant", merchant=free)
                break
        if self._wants_declared:
            declared = declarations.read(self.settings.config)
            applying = self.hub.declaring.apply(declared, sandbox=self.settings.sandbox, allow=self.allow)
            for one in await applying:
                log.info("applied the configuration", what=one.what, did=one.did)
        if self.settings.sandbox:
            for merchant in await self.directory.merchants():
                await self.give_sandbox(merchant)

    async def give_sandbox(self, merchant: Merchant) -> None:
        """An account with every provider that exists only in the sandbox."""
        for name, provider in self.providers.items():
            if not provider.sandbox_only or any(one.provider == name for one in merchant.accounts):
                continue
            key = hashlib.sha256(f"{merchant.id}:{name}:{self.secret_keys[0]}".encode()).hexdigest()
            config = dict.fromkeys(provider.secrets, key)
            try:
                await self.directory.create_account(merchant.id, name, name, config, now_ms(), priority=1000)
            except NotAllowed:
                log.info("the sandbox account is there already", merchant=merchant.name)

    async def create_merchant(self, name: str) -> Any:
        """A merchant and its first credential; in a sandbox with the sandbox's account."""
        if not name.strip() or len(name) > 100 or not name.isprintable():
            raise Misconfigured("a merchant's name is 1 to 100 printable characters")
        made = await self.directory.create_merchant(name, now_ms())
        if self.settings.sandbox:
            await self.give_sandbox(await self.directory.merchant(made.merchant_id))
        return made
