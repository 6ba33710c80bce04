"""`tillgate simulate atompay|atompos`: the Indian gateway with its checkout, the Vietnamese terminal."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

import typer

from tillgate.commands.output import Json, command, emit_json, fail

Host = Annotated[str, typer.Option("--host", help="Where it is served.")]


@command
async def atompay(
    callback_url: Annotated[
        str, typer.Option(help="Where the server callback goes, as /in/ACCOUNT; without one, none is sent.")
    ] = "",
    fault: Annotated[
        list[str] | None, typer.Option("--fault", help="What goes wrong; repeatable; `list` shows the menu.")
    ] = None,
    delay_s: Annotated[float, typer.Option(help="How late callbacks are.", min=0.0, max=86_400.0)] = 0.0,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0: any free one.", min=0, max=65_535)] = 8071,
    as_json: Json = False,
) -> None:
    """AtomPay: AUTH, the checkout with every mode and outcome, requery, refunds, callbacks.

    An account whose `base_url` is this address, with the published test keys, pays here."""
    from tillgate.providers.atompay_in.simulator import Simulator
    from tillgate.providers.atompay_in.simulator_menu import FAULTS

    _menu(fault, FAULTS, as_json)
    if callback_url and not callback_url.startswith(("http://", "https://")):
        fail("--callback-url is the URL of an endpoint", 2)
    simulator = Simulator(callback_url=callback_url, delay_s=delay_s)
    simulator.gateway.state["faults"] = list(fault or ())
    await _serve(simulator.app, host, port, {"base_url": "", "Faults": "/sim/faults", "State": "/sim/state"})


@command
async def atompos(
    ipn_url: Annotated[
        str, typer.Option(help="Where a sale begun here is told; a pushed one names its own.")
    ] = "",
    authorize_url: Annotated[str, typer.Option(help="Where a token is fetched, as …/authorize.")] = "",
    user: Annotated[str, typer.Option(help="For --authorize-url.")] = "atom",
    key: Annotated[
        str,
        typer.Option("--key", envvar="TILLGATE_SIMULATE_KEY", help="Its password; better by environment."),
    ] = "",
    verify_code: Annotated[str, typer.Option(help="The pairing code.")] = "123456",
    sale: Annotated[
        list[str] | None, typer.Option("--sale", help="Pay ORDER:DONG at --ipn-url and end; repeatable.")
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option("--fault", help="NAME=JSON for every sale, as copies=50; `list` shows the menu."),
    ] = None,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0: any free one.", min=0, max=65_535)] = 8072,
    as_json: Json = False,
) -> None:
    """ATOM POS: a terminal on the LAN. With --sale it pays and ends; else a person pays on its page."""
    from tillgate.providers.atompos_vn.simulator import FAULTS, Terminal

    _menu([one.partition("=")[0] for one in fault or ()], FAULTS, as_json)
    faults = dict(_fault(one) for one in fault or ())
    terminal = Terminal(
        verify_code, ipn_url=ipn_url, authorize_url=authorize_url, user=user, password=key, resends=2
    )
    if not sale:
        await _serve(terminal.app, host, port, {"pos_url": "", "State": "/sim/state"})
        return
    if not ipn_url.startswith(("http://", "https://")):
        fail("--ipn-url is the URL of an endpoint", 2)
    rows = await _sales(terminal, [_sale(one) for one in sale], faults)
    if as_json:
        emit_json(rows)
    else:
        for row in rows:
            typer.echo(f"{row['order']}  {row['status']}: {row['answer']}")
    if any(not 200 <= row["status"] < 300 for row in rows):
        raise typer.Exit(1)


async def _sales(terminal: Any, sales: list[tuple[str, int]], faults: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    async with terminal.app.router.lifespan_context(terminal.app):
        for order, dong in sales:
            begun = len(terminal.sent)
            await terminal.sell(dong, order, faults)
            await terminal.quiet()
            rows += [
                {"order": order, "status": one["status"], "answer": one["text"]}
                for one in terminal.sent[begun:]
            ]
    return rows


def _sale(text: str) -> tuple[str, int]:
    order, _, dong = text.rpartition(":")
    if not order or not re.fullmatch(r"[1-9]\d{0,14}", dong, re.ASCII):
        fail(f"--sale {text[:60]!r} is not ORDER:DONG", 2)
    return order, int(dong)


def _fault(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value or "true")
    except ValueError:
        return name, value


def _menu(fault: list[str] | None, menu: dict[str, str], as_json: bool) -> None:
    from tillgate.commands import simulate

    simulate.shown_menu(fault, menu, as_json)


async def _serve(application: Any, host: str, port: int, where: dict[str, str]) -> None:
    from tillgate.commands import simulate

    await simulate.served(application, host, port, where, lifespan="on")
