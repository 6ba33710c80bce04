"""What simulators of gateways for wallets share: the way to the merchant, answers that go wrong on theirs, a
code that every scanner reads, and the pages of a pretended wallet.

What a gateway says and when is its own simulator's; nothing here knows a dialect.
"""

from __future__ import annotations

import asyncio
import binascii
import html
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import aiohttp
from aiohttp import web

T = TypeVar("T")

ACTIONS: Final = ("pay", "fail", "expire", "pay-late")
"""What a payer can do."""

_HUGE_BYTES: Final = 5 * 1024 * 1024
_LOOKS: Final = 60
_LOOK_S: Final = 0.05


class SimulatorError(Exception):
    """The gateway refuses; `message` is for a person."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Dropped(Exception):
    """No answer leaves."""


class Gateway:
    """An async context manager: faults to be played, calls and answers counted, webhooks on their way."""

    def __init__(self, webhook_url: str, late_s: float) -> None:
        self.webhook_url, self.late_s = webhook_url, late_s
        self.base_url = ""
        self.down = False  # nothing answers
        self.faults: dict[str, deque[str]] = defaultdict(deque)
        self.calls: dict[str, int] = defaultdict(int)
        self.answers: list[int] = []  # what the merchant answered to webhooks
        self._later: set[asyncio.Task[None]] = set()
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._later:
            task.cancel()
        await asyncio.gather(*self._later, return_exceptions=True)
        if self._http is not None:
            await self._http.close()

    def fail(self, call: str, *faults: str) -> None:
        """Play these at the next calls of this kind."""
        self.faults[call].extend(faults)

    async def told(self, say: Callable[[], Awaitable[Any]], fault: str) -> None:
        """Say something to the merchant, or not, or twice, or later."""

        async def later() -> None:
            await asyncio.sleep(self.late_s)
            await say()

        if fault == "late":
            self.after(later())
        elif fault != "lost":
            for _ in range(2 if fault == "twice" else 1):
                await say()

    async def looked(self, call: str, before: int) -> None:
        """Late means that the merchant has seen the end: wait a while for its look."""
        for _ in range(_LOOKS):
            if self.calls[call] > before:
                return
            await asyncio.sleep(_LOOK_S)

    async def post(self, url: str, body: Any, headers: Mapping[str, str] | None = None) -> int:
        """The merchant's status; 0: nobody answered."""
        assert self._http is not None
        try:
            async with self._http.post(url, json=body, headers=headers, allow_redirects=False) as reply:
                status = reply.status
        except (aiohttp.ClientError, TimeoutError):
            status = 0
        self.answers.append(status)
        return status

    def after(self, work: Coroutine[Any, Any, None]) -> None:
        """Go on with it beside everything else."""
        task = asyncio.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)


def dropped(request: web.Request) -> web.StreamResponse:
    """The connection breaks without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def spoilt(found: dict[str, Any], fault: str) -> web.Response | dict[str, Any]:
    """What becomes of an answer on its way: something else, or the same. Raises `Dropped`."""
    match fault:
        case "lost":
            raise Dropped
        case "html":
            return web.Response(body=b"<!doctype html><h1>Bad gateway</h1>", content_type="text/html")
        case "empty":
            return web.Response(body=b"")
        case "huge":
            padding = b'{"padding":"' + b"x" * _HUGE_BYTES + b'"}'
            return web.Response(body=padding, content_type="application/json")
        case "types":
            return {name: [value] for name, value in found.items()}
    return found


def qris(gateway: str, name: str, rupiah: int) -> str:
    """A code in the shape of QRIS that every scanner reads and nothing can pay: `.invalid` is nobody's."""

    def field(tag: str, value: str) -> str:
        return f"{tag}{len(value):02d}{value}"

    owner = field("00", f"INVALID.{gateway}.SIMULATOR")
    text = "000201" + "010212" + field("26", owner + field("01", "0" * 18) + field("03", "UMI"))
    text += "52040000" + "5303360" + field("54", str(rupiah)) + "5802ID"
    text += field("59", f"TEST {gateway}") + field("60", "JAKARTA") + field("61", "10000")
    text += field("80", owner + field("01", name)) + "6304"
    return f"{text}{binascii.crc_hqx(text.encode(), 0xFFFF):04X}"


# --- pages --------------------------------------------------------------------------------------------------

_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; form-action 'self'"
    ),
    "Cache-Control": "no-store",
}
_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:26rem;margin:2rem auto;padding:0 1rem;color:#1b2340}
h1{font-size:1.2rem} .sum{font-size:2rem;font-weight:600;margin:.2rem 0} img{width:100%;max-width:16rem}
button{font:inherit;padding:.6rem 1rem;border:0;border-radius:.5rem;background:ACCENT;color:#fff}
button{margin:.2rem 0;width:100%} button.no{background:#5b667f} .bad{color:#a3262a}
select{font:inherit;width:100%;padding:.4rem;margin:.3rem 0 .8rem}
"""
_BUTTONS: Final = (
    ("pay", "Pay", ""),
    ("fail", "Decline", ' class="no"'),
    ("expire", "Let it expire", ' class="no"'),
)


@dataclass(frozen=True)
class View:
    """What a page shows of one thing to pay; `about` and `picture` are HTML."""

    name: str
    order: str
    rupiah: int
    status: str
    about: str
    picture: str = ""


@dataclass(frozen=True)
class WalletPages(Generic[T]):
    """`/` to scan a code, `/pay/{name}` to pay what it names. What is not found raises `SimulatorError`."""

    title: str
    accent: str  # a colour
    wallets: tuple[str, ...]
    faults: Mapping[str, str]
    all: Callable[[], Iterable[T]]
    find: Callable[[str], T]
    by_qr: Callable[[str], T | None]
    view: Callable[[T], View]
    act: Callable[[str, str, str, str], Awaitable[Any]]  # name, action, fault, wallet
    more: str = ""

    def mount(self, app: web.Application) -> None:
        app.router.add_get("/", self._index)
        app.router.add_post("/scan", self._scan)
        app.router.add_get("/pay/{name}", self._pay)
        app.router.add_post("/pay/{name}", self._pressed)

    async def _index(self, _: web.Request) -> web.Response:
        rows = "".join(
            f'<li><a href="/pay/{one.name}">{html.escape(one.order)}</a> Rp{one.rupiah:,} {one.status}'
            for one in map(self.view, list(self.all())[-50:])
        )
        scan = (
            '<form method="post" action="/scan"><label>Scan a code <input name="qr_string" required></label>'
            "<button>Open</button></form>"
        )
        return self._page(self.title, f"{scan}<ul>{rows or '<li>Nothing yet</li>'}</ul>{self.more}")

    async def _scan(self, request: web.Request) -> web.StreamResponse:
        found = self.by_qr(str((await request.post()).get("qr_string", "")).strip())
        if found is None:
            return self._bad("Not one of mine", "Nothing to pay has this code.", 404)
        raise web.HTTPSeeOther(f"/pay/{self.view(found).name}")

    async def _pay(self, request: web.Request) -> web.Response:
        try:
            one = self.view(self.find(request.match_info["name"]))
        except SimulatorError as error:
            return self._bad("Not found", error.message, 404)
        wallets = "".join(f"<option>{name}</option>" for name in self.wallets)
        faults = "".join(
            f'<option value="{name}">{name}: {text}</option>' for name, text in self.faults.items()
        )
        buttons = "".join(
            f'<button name="action" value="{action}"{no}>{text}</button>' for action, text, no in _BUTTONS
        )
        return self._page(
            "Your wallet",
            f'<p class="sum">Rp{one.rupiah:,}</p><p>{one.about}</p>{one.picture}'
            f'<form method="post"><label>Pay with <select name="issuer">{wallets}</select></label>'
            f'<label>How it goes <select name="fault">{faults}</select></label>{buttons}</form>'
            "<p>A simulation: no money moves.</p>",
        )

    async def _pressed(self, request: web.Request) -> web.StreamResponse:
        name, form = request.match_info["name"], await request.post()
        action, fault = str(form.get("action")), str(form.get("fault", "none"))
        if action not in ACTIONS or fault not in self.faults:
            return self._bad("That cannot be", "No such action.", 400)
        try:
            await self.act(name, action, fault, str(form.get("issuer", ""))[:40])
        except SimulatorError as error:
            return self._bad("That cannot be", error.message, 409)
        raise web.HTTPSeeOther(f"/pay/{name}")

    def _bad(self, title: str, text: str, status: int) -> web.Response:
        return self._page(title, f'<p class="bad">{html.escape(text)}</p>', status)

    def _page(self, title: str, content: str, status: int = 200) -> web.Response:
        style = _STYLE.replace("ACCENT", self.accent)
        head = (
            f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
        )
        text = f"<!doctype html><html lang=en>{head}<style>{style}</style><h1>{title}</h1>{content}</html>"
        return web.Response(text=text, content_type="text/html", status=status, headers=_HEADERS)
