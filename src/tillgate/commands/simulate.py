"""`tillgate simulate PROVIDER`: play it, with real bytes, for our code or yours.

Payme and Click call: with `--link` or `--order` they pay and end; without, they serve the pages on which a
person plays the payer (and the provider's own API) until they are stopped. Xendit and Midtrans are called:
they serve their API and such pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from tillgate.commands import simulate_atom
from tillgate.commands.output import Json, command, emit_json, fail

if TYPE_CHECKING:
    from tillgate.providers.click.simulator import Receipt as ClickReceipt
    from tillgate.providers.payme.simulator import PaymeSimulator

app = typer.Typer(help="Play a provider against an endpoint, faults included.", no_args_is_help=True)

Target = Annotated[str, typer.Option("--target", help="URL of the endpoint that is called.")]
Key = Annotated[
    str,
    typer.Option(
        "--key",
        envvar="TILLGATE_SIMULATE_KEY",
        help="The secret that the endpoint knows; better given by the environment.",
    ),
]
Link = Annotated[str | None, typer.Option("--link", help="Open this pay link and pay it.")]
Orders = Annotated[
    list[str] | None, typer.Option("--order", help="Pay REFERENCE:SOM, as 197:15000.00; repeatable.")
]
Faults = Annotated[
    list[str] | None,
    typer.Option("--fault", help="What goes wrong, one for each order; `list` shows the menu."),
]
Host = Annotated[str, typer.Option("--host", help="Where the pages are served.")]
Port = Annotated[int, typer.Option("--port", help="0: any free one.", min=0, max=65_535)]


@app.command()
@command
async def click(
    target: Target = "",
    service_id: Annotated[str, typer.Option("--service-id", help="The number of the service.")] = "",
    key: Key = "",
    merchant_user_id: Annotated[str, typer.Option(help="Who may use the Merchant API.")] = "1",
    complete_url: Annotated[str | None, typer.Option(help="Where Complete has its own URL.")] = None,
    link: Link = None,
    order: Orders = None,
    fault: Faults = None,
    late_s: Annotated[float, typer.Option(help="How late the fault `late` is.", min=0.0, max=86_400.0)] = 2.0,
    host: Host = "127.0.0.1",
    port: Port = 8091,
    as_json: Json = False,
) -> None:
    """Click: Prepare and Complete, a payer, the Merchant API (`/v2/merchant`)."""
    from tillgate.providers.click.simulator import FAULTS, ClickSimulator, build_app

    menu = {name: one.title for name, one in FAULTS.items()}
    shown_menu(fault, menu, as_json)
    _needed(target, key)
    if not re.fullmatch(r"[1-9]\d{0,17}", service_id, re.ASCII):
        _wrong("--service-id is a number")
    async with ClickSimulator(
        target,
        service_id=service_id,
        secret_key=key,
        merchant_user_id=merchant_user_id,
        complete_url=complete_url,
        late_s=late_s,
    ) as simulator:
        if link is None and not order:
            where = {"Pay page": "/services/pay", "Merchant API": "/v2/merchant", "Overview": "/"}
            await served(build_app(simulator), host, port, where)
            return
        receipts = []
        try:
            if link is not None:
                receipts.append(await simulator.follow(link, fault=_first(fault)))
            for (reference, som), name in _paired(order, fault):
                receipts.append(await simulator.pay(reference, som, fault=name))
        except ValueError as error:
            _wrong(str(error))
    _report([_click_receipt(receipt) for receipt in receipts], as_json)


@app.command()
@command
async def payme(
    target: Target = "",
    key: Key = "",
    login: Annotated[str, typer.Option(help="The login of Basic authorisation.")] = "Paycom",
    merchant_id: Annotated[str, typer.Option(help="The cash desk; a link for another is refused.")] = "",
    account_field: Annotated[str, typer.Option(help="The account field that --order fills.")] = "order_id",
    link: Link = None,
    order: Orders = None,
    fault: Faults = None,
    refund: Annotated[bool, typer.Option("--refund", help="Give what was paid back.")] = False,
    statement: Annotated[bool, typer.Option("--statement", help="Compare a statement at the end.")] = False,
    host: Host = "127.0.0.1",
    port: Port = 8092,
    as_json: Json = False,
) -> None:
    """Payme: the Merchant API, a payer, the checkout page and the Subscribe API (`/api`)."""
    from tillgate.providers.payme.simulator import FAULTS, Cards, Desk, PaymeSimulator, create_app

    shown_menu(fault, FAULTS, as_json)
    _needed(target, key)
    async with PaymeSimulator(Desk(target, key, login), merchant_id) as simulator:
        if link is None and not order:
            cards = Cards(merchant_id, key) if merchant_id else None
            where = {"Checkout": "/<link>", "Subscribe API": "/api", "Overview": "/"}
            await served(create_app(simulator, cards), host, port, where)
            return
        rows = []
        if link is not None:
            rows.append(await _payme_row(simulator, link, None, _first(fault), refund))
        for (reference, som), name in _paired(order, fault):
            paid = ({account_field: reference}, _tiyin(som))
            rows.append(await _payme_row(simulator, None, paid, name, refund))
        if statement:
            rows.append(await _payme_statement(simulator))
    _report(rows, as_json)


Armed = Annotated[
    list[str] | None,
    typer.Option(
        "--fault", help="CALL=FAULT plays at the next such call; repeatable; `list` shows the menu."
    ),
]
Webhook = Annotated[
    str, typer.Option("--webhook-url", help="Where it reports: a hub's /in/{account}, or your own endpoint.")
]


@app.command()
@command
async def xendit(
    webhook_url: Webhook = "",
    key: Key = "",
    token: Annotated[
        str,
        typer.Option(
            "--token",
            envvar="TILLGATE_SIMULATE_TOKEN",
            help="The webhook verification token (x-callback-token).",
        ),
    ] = "",
    fault: Armed = None,
    refund_s: Annotated[float, typer.Option(help="How long a refund takes.", min=0.0, max=86_400.0)] = 1.0,
    host: Host = "127.0.0.1",
    port: Port = 8093,
    as_json: Json = False,
) -> None:
    """Xendit: Payments API v3, refunds, webhooks, and a wallet to scan and pay with."""
    from tillgate.providers.xendit.simulator import API_FAULTS, XenditSimulator, create_app

    shown_menu(["list"] if fault and "list" in fault else None, API_FAULTS, as_json)
    if not key or not token:
        _wrong("--key and --token (or TILLGATE_SIMULATE_KEY and _TOKEN) are needed")
    async with XenditSimulator(
        secret_key=key, callback_token=token, webhook_url=_webhook(webhook_url), refund_s=refund_s
    ) as simulator:
        for call, name in _armed(fault, API_FAULTS):
            simulator.fail(call, name)
        where = {"API": "/v3/payment_requests", "Wallet": "/"}
        await _serve_called(create_app(simulator), simulator, host, port, where)


@app.command()
@command
async def midtrans(
    webhook_url: Webhook = "",
    key: Key = "",
    fault: Armed = None,
    refund_s: Annotated[float, typer.Option(help="How long a refund takes.", min=0.0, max=86_400.0)] = 1.0,
    host: Host = "127.0.0.1",
    port: Port = 8094,
    as_json: Json = False,
) -> None:
    """Midtrans: the Core API, notifications, and a wallet to scan and pay with."""
    from tillgate.providers.midtrans.simulator import API_FAULTS, MidtransSimulator, create_app

    shown_menu(["list"] if fault and "list" in fault else None, API_FAULTS, as_json)
    if not key:
        _wrong("--key (or TILLGATE_SIMULATE_KEY) is needed")
    async with MidtransSimulator(
        server_key=key, webhook_url=_webhook(webhook_url), refund_s=refund_s
    ) as simulator:
        for call, name in _armed(fault, API_FAULTS):
            simulator.fail(call, name)
        where = {"API": "/v2/charge", "Wallet": "/"}
        await _serve_called(create_app(simulator), simulator, host, port, where)


app.command()(simulate_atom.atompay)
app.command()(simulate_atom.atompos)


def _webhook(url: str) -> str:
    if url and not url.startswith(("http://", "https://")):
        _wrong("--webhook-url is the URL of an endpoint")
    return url


def _armed(fault: list[str] | None, menu: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    for text in fault or ():
        call, _, name = text.partition("=")
        if not call or name not in menu:
            _wrong(f"--fault {text[:60]!r} is not CALL=FAULT; faults are {', '.join(menu)}")
        yield call, name


async def _serve_called(
    application: Any, simulator: Any, host: str, port: int, where: Mapping[str, str]
) -> None:
    """Serve a provider that is called, until interrupted; says where once the port is bound."""
    import asyncio
    import signal

    from aiohttp import web

    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    ended = asyncio.Event()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            fail(f"cannot listen on {host}:{port}: {error.strerror}")
        simulator.base_url = f"http://{host}:{runner.addresses[0][1]}"
        for title, path in where.items():
            typer.echo(f"{title:14}{simulator.base_url}{path}")
        for one in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(one, ended.set)
        await ended.wait()
    finally:
        await runner.cleanup()


# --- one payment as a row -----------------------------------------------------------------------------------


def _click_receipt(receipt: ClickReceipt) -> dict[str, Any]:
    from tillgate.providers.click.simulator.payer import told

    return {
        "order": receipt.payment.order,
        "fault": receipt.fault,
        "ended": receipt.status,
        "surprises": list(receipt.surprises),
        "steps": [told(step) for step in receipt.steps],
    }


async def _payme_row(
    simulator: PaymeSimulator,
    link: str | None,
    paid: tuple[Mapping[str, str], int] | None,
    fault: str,
    refund: bool,
) -> dict[str, Any]:
    from tillgate.providers.payme.simulator import Inconsistent, Refused, Silent, read_link

    begun = len(simulator.desk.steps)
    row: dict[str, Any] = {"order": "", "fault": fault, "ended": "refused", "surprises": []}
    try:
        if link is not None:
            asked = read_link(link)
            row["order"] = ", ".join(asked.account.values())
            receipt = await simulator.pay_link(link, fault)
        else:
            assert paid is not None
            row["order"] = ", ".join(paid[0].values())
            receipt = await simulator.pay(*paid, fault)
        if refund and receipt.state == 2:
            await simulator.refund(receipt)
        ends = {2: "paid", -1: "cancelled", -2: "refunded", 1: "waiting"}
        row["ended"] = ends.get(receipt.state, str(receipt.state))
    except ValueError as error:
        _wrong(str(error))
    except (Refused, Inconsistent, Silent) as trouble:
        row["surprises"] = [str(trouble)]
    row["steps"] = [asdict(step) for step in simulator.desk.steps[begun:]]
    return row


async def _payme_statement(simulator: PaymeSimulator) -> dict[str, Any]:
    from tillgate.providers.payme.simulator import Inconsistent, Refused, Silent

    row: dict[str, Any] = {"order": "", "fault": "statement", "ended": "equal", "surprises": []}
    times = [receipt.time for receipt in simulator.receipts.values()]
    try:
        found = await simulator.statement(min(times, default=0), max(times, default=0))
        row["ended"] = f"equal, {len(found)} rows"
    except (Refused, Inconsistent, Silent) as trouble:
        row |= {"ended": "different", "surprises": [str(trouble)]}
    row["steps"] = [asdict(step) for step in simulator.desk.steps[-1:]]
    return row


# --- what the commands share --------------------------------------------------------------------------------


def shown_menu(fault: list[str] | None, menu: Mapping[str, str], as_json: bool) -> None:
    """Show the menu where it was asked for, refuse what is not on it."""
    if fault and "list" in fault:
        if as_json:
            emit_json(dict(menu))
        else:
            for name, title in menu.items():
                typer.echo(f"{name:22}{title}")
        raise typer.Exit
    for name in fault or ():
        if name not in menu:
            _wrong(f"there is no fault {name!r}; there are {', '.join(menu)}")


def _needed(target: str, key: str) -> None:
    if not target.startswith(("http://", "https://")):
        _wrong("--target is the URL of an endpoint")
    if not key:
        _wrong("--key (or TILLGATE_SIMULATE_KEY) is needed")


def _wrong(message: str) -> NoReturn:
    """A mistake on the command line: exit code 2."""
    fail(message, 2)
    raise AssertionError  # fail does not return


def _first(fault: list[str] | None) -> str:
    return fault[0] if fault else "none"


def _paired(order: list[str] | None, fault: list[str] | None) -> Iterable[tuple[tuple[str, str], str]]:
    """Each order with its fault; the last fault serves the orders that are left."""
    faults = fault or ["none"]
    for number, text in enumerate(order or ()):
        reference, _, som = text.rpartition(":")
        if not reference or not re.fullmatch(r"\d{1,12}(\.\d{1,2})?", som, re.ASCII):
            _wrong(f"--order {text[:60]!r} is not REFERENCE:SOM")
        yield (reference, som), faults[min(number, len(faults) - 1)]


def _tiyin(som: str) -> int:
    whole, _, rest = som.partition(".")
    return int(whole) * 100 + int(rest.ljust(2, "0"))


def _report(rows: list[dict[str, Any]], as_json: bool) -> None:
    """What was played; exit code 1 where an answer was not what the provider's manual allows."""
    if as_json:
        emit_json(rows)
    else:
        for row in rows:
            typer.echo(f"{row['order']}  {row['fault']}: {row['ended']}")
            for surprise in row["surprises"]:
                typer.echo(f"  ! {surprise}")
    if any(row["surprises"] for row in rows):
        raise typer.Exit(1)


async def served(
    application: Any,
    host: str,
    port: int,
    where: Mapping[str, str],
    *,
    lifespan: Literal["on", "off"] = "off",
) -> None:
    """Serve until interrupted; says where once the port is bound."""
    import asyncio
    import socket

    import uvicorn

    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        fail(f"cannot listen on {host}:{port}: {error.strerror}")
    base = f"http://{host}:{listener.getsockname()[1]}"
    for title, path in where.items():
        typer.echo(f"{title:14}{base}{path}")
    config = uvicorn.Config(application, log_level="warning", access_log=False, lifespan=lifespan)
    try:
        await uvicorn.Server(config).serve(sockets=[listener])
    except asyncio.CancelledError:
        pass
    finally:
        listener.close()
