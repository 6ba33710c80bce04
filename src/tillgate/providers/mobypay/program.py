"""The two programs: a kiosk with its menu and control API, and a virtual terminal with its keypad."""

import asyncio
import contextlib
import resource
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from tillgate.providers.mobypay.config import KioskConfig
from tillgate.providers.mobypay.errors import BadRequest
from tillgate.providers.mobypay.menu_text import JsonScreen, PlainScreen, Screen
from tillgate.providers.mobypay.server import KioskServer

OTHER_FILES: Final = 128
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


async def run_kiosk(
    config: KioskConfig,
    *,
    menu: bool,
    control: tuple[str, int, str] | None = None,
    hub: tuple[str, str] | None = None,
    as_json: bool = False,
) -> None:
    """Serve terminals until the menu is left or a signal comes. `control` is host, port and token, `hub` a
    URL and a code to enrol with; a kiosk that is enrolled needs none.

    Raises a KioskRefusal or OSError when the kiosk cannot start.
    """
    screen: Screen = JsonScreen() if as_json else PlainScreen()
    began = False
    server = KioskServer(_with_room(config))
    # From the first moment on: what a restart made unknown is said, and so are terminals that were waiting.
    server.kiosk.steps.watchers.add(screen.notice)
    try:
        await server.start()
    except OSError as error:
        await server.stop()
        raise BadRequest(f"port {config.port} cannot be used: {error.strerror}") from error
    try:
        async with (
            _control(server, control) as control_port,
            _window(menu and not as_json and sys.stdin.isatty()),
        ):
            began = True
            screen.line(f"Kiosk {config.kiosk_id} is listening on {config.host}:{server.port}")
            screen.event("listening", host=config.host, port=server.port, control_port=control_port)
            if control_port is not None:
                screen.line(f"Control API on http://{_host(control)}:{control_port}")
            if hub is not None:
                await _enrolled(server, screen, *hub)
            work = [_signalled()]
            entry = server.journal.hub()
            if entry is not None and entry.account:
                from tillgate.providers.mobypay.uplink import Uplink

                screen.line(f"Hub {entry.url}")
                work.append(Uplink(server, entry).run())
            if menu:
                work.append(_menu(server, screen))
            await _first_of(work)
    finally:
        await server.stop()
        if began:
            screen.line("Stopped.")
            screen.event("stopped")


def _with_room(config: KioskConfig) -> KioskConfig:
    """Every connection takes a file, and so do the journal and the control API, which must not be crowded out
    by strangers: ask the system for enough of them, or hold fewer connections."""
    wanted = config.limits.connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return config
    given = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (given, hard))
    connections = min(config.limits.connections, max(given - OTHER_FILES, 1))
    limits = msgspec.structs.replace(config.limits, connections=connections)
    return msgspec.structs.replace(config, limits=limits)


async def _enrolled(server: KioskServer, screen: Screen, url: str, code: str) -> None:
    from tillgate.providers.mobypay.uplink import enrol

    entry = await enrol(server, url, code)
    screen.line(f"Enrolled with {entry.url} as {entry.account}")
    screen.event("enrolled", url=entry.url, account=entry.account)


async def run_terminal(terminal: Any, *, web_port: int | None, shell: bool, as_json: bool = False) -> None:
    """Play a terminal until its shell is left or a signal comes; `web_port` serves the keypad page
    (0: any port).
    """
    from tillgate.providers.mobypay.simulator_shell import run_shell, show_entry

    screen: Screen = JsonScreen() if as_json else PlainScreen()
    terminal.watchers.add(lambda entry: show_entry(screen, entry))
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(_window(shell and not as_json and sys.stdin.isatty()))
        if web_port is not None:
            from tillgate.providers.mobypay.terminal_http import serve_page

            port = await stack.enter_async_context(serve_page(terminal, web_port))
            screen.line(f"Keypad on http://127.0.0.1:{port}/")
            screen.event("page", port=port)
        work = [_signalled(), terminal.run()]
        if shell:
            work.append(run_shell(terminal, screen))
        await _first_of(work)


@contextlib.asynccontextmanager
async def _control(server: KioskServer, control: tuple[str, int, str] | None) -> AsyncIterator[int | None]:
    if control is None:
        yield None
        return
    from tillgate.providers.mobypay.control import control_app
    from tillgate.providers.mobypay.loopback import LoopbackServer

    host, port, token = control
    http = LoopbackServer(control_app(server, token), host, port)
    serving = asyncio.create_task(http.serve())
    try:
        yield await http.bound_port(serving)
    finally:
        http.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def _window(interactive: bool) -> AsyncIterator[None]:
    """Lines printed meanwhile appear above the prompt."""
    if not interactive:
        yield
        return
    from prompt_toolkit.patch_stdout import patch_stdout

    with patch_stdout(raw=True):
        yield


async def _menu(server: KioskServer, screen: Screen) -> None:
    from tillgate.providers.mobypay.menu import KeyboardLines, Lines, Menu, PipedLines

    lines: Lines = (
        KeyboardLines() if sys.stdin.isatty() and not isinstance(screen, JsonScreen) else PipedLines()
    )
    await Menu(server, lines, screen).run()


async def _signalled() -> None:
    loop, came = asyncio.get_running_loop(), asyncio.Event()
    with contextlib.ExitStack() as stack:
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, came.set)
            stack.callback(loop.remove_signal_handler, number)
        await came.wait()


async def _first_of(work: list[Any]) -> None:
    """Run all until one ends; its error is ours."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _host(control: tuple[str, int, str] | None) -> str:
    host = control[0] if control else ""
    return f"[{host}]" if ":" in host else host
