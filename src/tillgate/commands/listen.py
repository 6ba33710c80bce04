"""`tillgate listen`: a hub's events on a developer's own machine, without a public address."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from tillgate.commands.output import Json, command
from tillgate.domain.errors import InvalidRequest, TillgateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tillgate.client import Tillgate
    from tillgate.outgoing import Outgoing
    from tillgate.schemas_v1 import EventV1

INTERVAL_S = 1.0
TIMEOUT_S = 20.0
PATIENCE_S = 3.0
MOST = 10_000


@command
async def listen(
    forward_to: Annotated[
        str, typer.Option(help="Where to post events, such as http://localhost:3000/hook.")
    ],
    url: Annotated[str, typer.Option(envvar="TILLGATE_URL", help="The hub.")] = "http://127.0.0.1:8080",
    api_key: Annotated[str, typer.Option(envvar="TILLGATE_API_KEY", help="The merchant's API key.")] = "",
    api_secret: Annotated[
        str, typer.Option(envvar="TILLGATE_API_SECRET", help="Its secret; better in the environment.")
    ] = "",
    types: Annotated[
        list[str] | None, typer.Option("--type", help="Event type or pattern (payment.*); may be repeated.")
    ] = None,
    secret: Annotated[
        str, typer.Option(envvar="TILLGATE_WEBHOOK_SECRET", help="Sign with this whsec_…; default a new one.")
    ] = "",
    since: Annotated[
        int | None, typer.Option(help="Begin behind this event number; default now.", min=0)
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End after what is there now.")] = False,
    as_json: Json = False,
) -> None:
    """Forward events to your machine as they happen, signed like any delivery, and show each answer."""
    from tillgate import webhooks
    from tillgate.client import Tillgate
    from tillgate.hub.endpoints import checked_types
    from tillgate.outgoing import Outgoing

    if urlsplit(forward_to).scheme not in ("http", "https"):
        raise InvalidRequest("--forward-to is an http(s) URL")
    if not urlsplit(url).hostname or urlsplit(url).scheme not in ("http", "https"):
        raise InvalidRequest("--url is the hub's address, such as https://till.example")
    if not api_key or not api_secret:
        raise InvalidRequest("give --api-key and --api-secret, or TILLGATE_API_KEY and TILLGATE_API_SECRET")
    wanted = checked_types(types or ())
    signing = secret or webhooks.new_secret()
    webhooks.sign([signing], "check", 0, b"")  # a secret that is none is said at once
    ended = asyncio.Event()
    for one in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(one, ended.set)
    async with (
        Tillgate(url, api_key, api_secret, patience_s=PATIENCE_S) as till,
        Outgoing(guard=False) as out,
    ):
        number = await _last(till) if since is None else since
        typer.echo(f"Forwarding events behind number {number} to {forward_to}; Ctrl-C ends it.", err=True)
        if not secret:
            typer.echo(f"Your endpoint verifies them with {signing}", err=True)
        while not ended.is_set():
            for event in await _news(till, number, patient=not once):
                number = event.number
                if _matches(event.type, wanted):
                    _show(await _forward(out, event, forward_to, signing), as_json)
                if ended.is_set():
                    return
            if once:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), INTERVAL_S)


async def _news(till: Tillgate, number: int, *, patient: bool) -> list[EventV1]:
    """A hub that restarts is waited for."""
    from tillgate.client import HubUnavailable, NoAnswer, RateLimited

    try:
        return await _behind(till, number)
    except (NoAnswer, HubUnavailable, RateLimited) as error:
        if not patient:
            raise
        typer.echo(f"{error}; trying again", err=True)
        return []


def _matches(kind: str, types: Sequence[str]) -> bool:
    from fnmatch import fnmatchcase

    return not types or any(fnmatchcase(kind, one) for one in types)


async def _last(till: Tillgate) -> int:
    async for event in till.events(limit=1):
        return event.number
    return 0


async def _behind(till: Tillgate, number: int) -> list[EventV1]:
    """Events with greater numbers, oldest first."""
    found = []
    async for event in till.events(limit=100):
        if event.number <= number:
            break
        found.append(event)
        if len(found) > MOST:
            raise InvalidRequest(
                f"more than {MOST} events are behind number {number}: begin later, or replay them to an"
                " endpoint"
            )
    return found[::-1]


async def _forward(out: Outgoing, event: EventV1, to: str, secret: str) -> dict[str, Any]:
    from tillgate import schemas_v1, webhooks
    from tillgate.spi import HttpCall

    body = schemas_v1.encode(event)
    signed = webhooks.sign([secret], event.id, int(time.time()), body)
    headers = {"content-type": "application/json", **signed}
    begun = time.monotonic()
    status: int | None = None
    said = ""
    try:
        reply = await out.send(HttpCall("POST", to, headers, body, TIMEOUT_S))
        status, said = reply.status, reply.body[:200].decode("utf-8", "replace")
    except TillgateError as error:
        said = str(error)
    took_ms = int((time.monotonic() - begun) * 1000)
    return {
        "number": event.number,
        "id": event.id,
        "type": event.type,
        "status": status,
        "took_ms": took_ms,
        "answer": said,
    }


def _show(row: dict[str, Any], as_json: bool) -> None:
    import json

    if as_json:
        typer.echo(json.dumps(row, ensure_ascii=False))
        return
    said = "".join(c if c.isprintable() else " " for c in row["answer"]).strip()
    typer.echo(
        f"{row['number']:>6}  {row['type']:<22} → {row['status'] or 'no answer'}  {row['took_ms']} ms  {said}"
    )
