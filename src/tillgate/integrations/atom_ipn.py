"""The IPN service of the IPN document, with nothing lost: `uvicorn main:app`, and `process_ipn` in main.py.

    from tillgate.integrations.atom_ipn import app


    def process_ipn(ipn_request):
        print(ipn_request.orderId, ipn_request.amount)

An IPN is on the disk before it is answered with 200; the hook runs after that, once for each request id in
normal life and at least once across a crash. `TILLGATE_PROCESS_IPN=module:function` names a hook elsewhere;
`create_ipn_app(process_ipn=…)` takes one, for an application of one's own. Settings: `Options`.

    python -m tillgate.integrations.atom_ipn dead | conflict | rejected | waiting | replay NUMBER
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hmac
import ipaddress
import json
import logging
import os
import re
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable
from functools import lru_cache
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tillgate import calling
from tillgate.calling import Hook
from tillgate.domain.errors import Misconfigured, Refusal, TryLater, Unavailable
from tillgate.domain.record import replace
from tillgate.providers.atompos_vn import contract
from tillgate.providers.atompos_vn.connector import AtomPos, Granted
from tillgate.providers.atompos_vn.contract import Ipn, MissingFields, NotPermitted, UnknownPath
from tillgate.providers.atompos_vn.hooks import Alert, Hooks
from tillgate.providers.atompos_vn.journal import Journal
from tillgate.providers.atompos_vn.options import Options
from tillgate.spi import Heard, Inbound, Reply

IPNRequest = Ipn
"""What `process_ipn` is given: the document's eight fields as attributes, their text as sent."""

__all__ = ["IPNRequest", "Options", "app", "create_ipn_app"]

log = logging.getLogger("tillgate.ipn")
BODY_TIMEOUT_S: Final = 30.0
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


class Service:
    """Journal, hooks and partner behind the application; `app.state.ipn`."""

    def __init__(self, options: Callable[[], Options], hook: Callable[[], Hook | None], alert: Alert) -> None:
        self._options, self._hook, self._alert = options, hook, alert
        self._starting = asyncio.Lock()
        self.started = False

    async def start(self) -> None:
        """Open the journal and run what is waiting; done by the server, or by the first request."""
        async with self._starting:
            if self.started:
                return
            options = self.options = self._options()
            self._path_token = options.path_token if options.mode == "path" else ""
            self.partner = AtomPos(options.account())
            self.journal = Journal(options.database)
            self.journal.open()
            self.hooks = Hooks(
                self.journal,
                self._hook(),
                alert=self.alert,
                concurrency=options.concurrency,
                tries=options.tries,
                pause_s=options.pause_s,
                timeout_s=options.timeout_s,
            )
            self.hooks.start()
            if options.mode == "none":
                whom = "at all" if "*" in options.allow else "on the allowed networks"
                log.warning("IPNs are not authenticated: anyone %s can mark a bill paid. Set `auth`.", whom)
            self.started = True

    async def stop(self) -> None:
        if self.started:
            self.started = False
            await self.hooks.stop()
            await self.journal.close()

    def alert(self, kind: str, about: dict[str, Any]) -> None:
        log.error("ipn alert %s: %s", kind, json.dumps(about, ensure_ascii=True))
        try:
            self._alert(kind, about)
        except Exception:
            log.exception("the alert function failed")

    # --- one message ----------------------------------------------------------------------------------------

    async def answer(self, call: Inbound) -> Reply:
        """The reply in the contract's words; a 200 only after the IPN is on the disk."""
        heard: Heard | None = None
        outcome: Refusal | None = None
        try:
            self._open(call)
            ours = call if call.path.startswith("/authorize") else replace(call, path="/ipn")
            heard = self.partner.hear(ours)  # which need not know the path token
            if isinstance(heard.echo, Ipn):
                await self._keep(heard.echo, call.body)
            elif not isinstance(heard.echo, Granted):
                raise MissingFields  # an older notification: this service has the document's IPN only
        except Refusal as refusal:
            outcome = refusal
        except Unavailable:
            outcome = TryLater()
        if outcome is not None:
            await self._refused(call, outcome)
        return self.partner.answer(call, heard, outcome)

    def _open(self, call: Inbound) -> None:
        """The path, before anything else. Raises `UnknownPath`, `NotPermitted`."""
        rest = call.path.rstrip("/").removeprefix("/ipn")
        if call.path.startswith("/authorize"):
            return
        if self._path_token and not rest:
            raise NotPermitted
        if not hmac.compare_digest(
            rest.encode("utf-8", "replace"), f"/{self._path_token}".encode().rstrip(b"/")
        ):
            raise UnknownPath

    async def _keep(self, ipn: Ipn, body: bytes) -> None:
        options = self.options
        kept = await self.journal.keep(options.partner, ipn, body, split_tender=options.split_tender)
        if kept == "new":
            self.hooks.wake()
        elif kept == "conflict":
            # Answered like a repeat: sending it again cannot heal it, and a person must see it.
            self.alert("conflict", {"requestId": ipn.requestId, "amount": ipn.amount})

    async def _refused(self, call: Inbound, refusal: Refusal) -> None:
        """Kept for a person to see, because it may be money; a full disk is no reason not to answer."""
        code, status = contract.worded(refusal)
        if not call.body or status in (404, 405, 503) or call.path.startswith("/authorize"):
            return
        with contextlib.suppress(Unavailable):
            await self.journal.reject(self.options.partner, code, call.peer, call.body)
        if code in ("03", "04"):
            self.alert("rejected", {"code": code, "peer": call.peer})


def create_ipn_app(
    process_ipn: Hook | None = None, *, on_alert: Alert | None = None, **options: Any
) -> Starlette:
    """An ASGI application with `/ipn` and `/authorize`; `options` are those of `Options`.

    It may be mounted in another; then its hooks begin with the first request, or by
    `await app.state.ipn.start()` and `.stop()` in the host's own lifespan.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    async def handle(request: Request) -> Response:
        if not service.started:
            await service.start()
        request_id = request.headers.get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = secrets.token_hex(8)
        try:
            reply = await service.answer(await _inbound(request))
        except ClientDisconnect:
            return Response(status_code=400)
        except TimeoutError:
            reply = Reply(408, contract.reply("04"), headers={"connection": "close"})
        headers = {**reply.headers, "x-request-id": request_id}
        return Response(reply.body, reply.status, headers, reply.content_type)

    async def hello(_: Request) -> Response:
        return Response(contract.reply(contract.SUCCESS), media_type="application/json")

    async def unknown(_: Request, __: Exception) -> Response:
        return Response(contract.reply("02"), 404, media_type="application/json")

    async def broken(_: Request, error: Exception) -> Response:
        log.error("an IPN could not be taken", exc_info=error)
        return Response(contract.reply("99"), 500, {"retry-after": "5"}, "application/json")

    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    paths = ("/ipn", "/ipn/", "/ipn/{token}", "/ipn/{token}/", "/authorize", "/authorize/")
    made = Starlette(
        routes=[
            *(Route(path, handle, methods=methods) for path in paths),
            Route("/", hello, methods=["GET"]),
        ],
        lifespan=lifespan,
        exception_handlers={404: unknown, 405: unknown, Exception: broken},
    )
    # Never a redirect: a sender takes 307 for "send again".
    made.router.redirect_slashes = False
    service = made.state.ipn = Service(
        lambda: Options.from_environment(**options),
        lambda: process_ipn or _found_hook(made),
        on_alert or (lambda kind, about: None),
    )
    return made


async def _inbound(request: Request) -> Inbound:
    """The message with at most one byte more than is allowed: authentication still comes before size."""
    body = bytearray()
    async with asyncio.timeout(BODY_TIMEOUT_S):
        async for piece in request.stream():
            body += piece
            if len(body) > contract.MAX_BODY:
                del body[contract.MAX_BODY + 1 :]
                break
    return Inbound(
        request.method,
        request.scope.get("path", "").removeprefix(request.scope.get("root_path", "")),
        request.url.query,
        {name.lower(): value for name, value in request.headers.items()},
        bytes(body),
        _peer(request.client.host if request.client else ""),
        time.time_ns() // 10**6,
    )


@lru_cache(maxsize=1024)
def _peer(host: str) -> str:
    """The sender's address; a socket file, or a test in the same process, is this machine."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return "127.0.0.1"


def _found_hook(made: Starlette) -> Hook | None:
    """`TILLGATE_PROCESS_IPN`, else `process_ipn` of the module that holds this application as `app`."""
    named = os.environ.get("TILLGATE_PROCESS_IPN", "")
    if named:
        return calling.named("TILLGATE_PROCESS_IPN", named)
    hooks = {
        name: vars(module)["process_ipn"]
        for name, module in list(sys.modules.items())
        if vars(module).get("app") is made and callable(vars(module).get("process_ipn"))
    }
    for name in ("__mp_main__", "__main__"):
        if len(hooks) > 1:
            hooks.pop(name, None)  # `python main.py`, whose server then imports main once more
    if len(hooks) > 1:
        raise Misconfigured(f"process_ipn is in {' and '.join(sorted(hooks))}: set TILLGATE_PROCESS_IPN")
    return next(iter(hooks.values()), None)


app = create_ipn_app()


def main(arguments: list[str] | None = None) -> int:
    """Look into the journal, and have dead letters tried again, also while the service runs."""
    parser = argparse.ArgumentParser(prog="python -m tillgate.integrations.atom_ipn")
    parser.add_argument("what", choices=["counts", "waiting", "dead", "conflict", "rejected", "replay"])
    parser.add_argument("numbers", nargs="*", type=int, help="dead letters to replay")
    parser.add_argument("--database", default=Options.from_environment().database)
    given = parser.parse_args(arguments)

    async def run() -> int:
        journal = Journal(given.database)
        journal.open()
        try:
            if given.what == "replay":
                return 0 if all([await journal.replay(number) for number in given.numbers]) else 1
            found = journal.counts() if given.what == "counts" else journal.listed(given.what)
            sys.stdout.write(json.dumps(found, ensure_ascii=False, indent=2) + "\n")
            return 0
        finally:
            await journal.close()

    try:
        return asyncio.run(run())
    except Unavailable as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
