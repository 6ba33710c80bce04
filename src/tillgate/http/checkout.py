"""The payer's side: `/pay/{payment_id}` and `/l/{code}` are a picture to `<img>` and a page to a browser.

The page works without scripts (it reloads itself) and without any other host, and shows one truth: what the
server renders. A script only asks whether the state moved, then fetches the page anew and swaps its middle.
Whoever holds a payment's id may see its page; the id's 80 random bits are the key.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tillgate import schemas
from tillgate.domain.errors import InvalidRequest, NotFound, TillgateError, Unavailable
from tillgate.domain.payment import Payment
from tillgate.http import checkout_view as views
from tillgate.http.assets import Assets
from tillgate.http.checkout_links import Form, LinkPages
from tillgate.http.checkout_live import Streams
from tillgate.http.checkout_page import Failure, Page
from tillgate.http.limits import Limited, RateLimit
from tillgate.http.operation import peer
from tillgate.http.pictures import Kind, Pictures
from tillgate.http.texts import choose_language
from tillgate.hub.links import LinkClosed
from tillgate.qr import QrError
from tillgate.runtime import Runtime
from tillgate.spi import Show
from tillgate.store.directory import Merchant

Wanted = Literal["page", "picture", "json"]
Handler = Callable[[Request], Awaitable[Response]]

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ACCEPT_CHARS: Final = 1000
_ACCEPTED: Final = re.compile(r"\s*([\w.+*/-]+)\s*(?:;\s*q\s*=\s*([01](?:\.\d{0,3})?|\.\d{1,3})\s*)?(?:;.*)?")

_CONTENT_SECURITY: Final = (
    "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_COMMON: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff", "x-robots-tag": "noindex"}
_PAGE: Final = {
    **_COMMON,
    "content-security-policy": _CONTENT_SECURITY,
    # The address is the key to the page: nobody whom it links to needs it.
    "referrer-policy": "same-origin",
    "vary": "accept, accept-language, sec-fetch-dest",
}
_PICTURE: Final = {
    **_COMMON,
    "content-security-policy": "default-src 'none'; sandbox",
    "cross-origin-resource-policy": "cross-origin",
    "access-control-allow-origin": "*",
    "vary": "accept, accept-language, sec-fetch-dest",
}
_FAILURES: Final[dict[int, Failure]] = {410: "link_closed", 429: "busy", 503: "unavailable"}
_TYPES: Final[dict[Kind, str]] = {"png": "image/png", "svg": "image/svg+xml"}


def routes(runtime: Runtime) -> list[BaseRoute]:
    """`/pay/{payment_id}` with `.png`, `.svg`, `/state`, `/events`; `/l/{code}`; and `/static/{name}`."""
    checkout = Checkout(runtime)
    paths: dict[str, Handler] = {
        "/pay/{payment_id}.png": checkout.png,
        "/pay/{payment_id}.svg": checkout.svg,
        "/pay/{payment_id}/state": checkout.state,
        "/pay/{payment_id}/events": checkout.events,
        "/pay/{payment_id}": checkout.page_or_picture,
    }
    found: list[BaseRoute] = [
        Route(path, checkout.guarded(handler), methods=["GET"]) for path, handler in paths.items()
    ]
    link_paths: dict[str, Handler] = {
        "/l/{code}.png": checkout.link_png,
        "/l/{code}.svg": checkout.link_svg,
        "/l/{code}": checkout.link,
    }
    found += [Route(path, checkout.guarded(one), methods=["GET"]) for path, one in link_paths.items()]
    found.append(Route("/l/{code}", checkout.guarded(checkout.use_link, opens=True), methods=["POST"]))
    return [*found, checkout.assets.route()]


@dataclass(frozen=True, slots=True)
class Seen:
    """One payment as it stood when it was read."""

    payment: Payment
    merchant: Merchant
    view: views.View
    now: int


class Checkout:
    def __init__(self, runtime: Runtime) -> None:
        self._kit = runtime.kit
        self._sandbox = runtime.settings.sandbox
        self._url = runtime.settings.url
        self._prefix = urlsplit(self._url).path.rstrip("/")
        self.assets = Assets(Path(__file__).parent / "static", self._prefix)
        self._page = Page(self.assets, self._prefix, sandbox=self._sandbox)
        self._pictures = Pictures()
        self._streams = Streams(lambda: runtime.closing)
        self._links = LinkPages(runtime, self._prefix, self._url)
        per_minute = runtime.settings.page_rate_limit
        self._limit = RateLimit(per_minute)
        self._opens = RateLimit(-(-per_minute // 10))

    def guarded(self, handler: Handler, *, opens: bool = False) -> Handler:
        """Says in the asker's form what cannot be shown. `opens`: it may open a payment."""

        async def handle(request: Request) -> Response:
            try:
                self._limit.take(peer(request.scope))
                if opens:
                    self._opens.take(peer(request.scope))
                return await handler(request)
            except (NotFound, Unavailable, Limited, LinkClosed, InvalidRequest) as error:
                return await self._failed(request, error)

        return handle

    # --- what is asked for ---

    async def page_or_picture(self, request: Request) -> Response:
        match wanted(request):
            case "picture":
                return await self.png(request)
            case "json":
                return await self.state(request)
        seen = await self._seen(request)
        picture = await self._code(seen.view, "png")
        language = _language(request)
        chosen = request.query_params.get("lang") == language
        body = self._page.render(
            language=language, chosen=chosen, payment=seen.payment, view=seen.view, now=seen.now,
            merchant=seen.merchant.name, channel=self._channel(seen), picture=picture,
            back=await self._links.way_back(seen.payment),
        )  # fmt: skip
        return Response(body, headers=_PAGE, media_type="text/html")

    async def link(self, request: Request) -> Response:
        if wanted(request) == "picture":
            return await self.link_png(request)
        return self._asked(request, await self._links.open_form(request), 200)

    async def use_link(self, request: Request) -> Response:
        return self._asked(request, await self._links.used(request), 422)

    def _asked(self, request: Request, form: Form | Response, status: int) -> Response:
        if isinstance(form, Response):
            return form
        language = _language(request)
        chosen = request.query_params.get("lang") == language
        body = self._page.link(language=language, chosen=chosen, form=form)
        return Response(body, status, _PAGE, "text/html")

    async def link_png(self, request: Request) -> Response:
        return await self._link_picture(request, "png")

    async def link_svg(self, request: Request) -> Response:
        return await self._link_picture(request, "svg")

    async def _link_picture(self, request: Request, kind: Kind) -> Response:
        link, _ = await self._links.found(request)
        if await self._links.state_open(link):
            body = await self._pictures.draw(self._links.address(link), kind)
        else:
            body = self.assets.body(f"closed.{kind}")
        name = f'inline; filename="{link.code}.{kind}"'
        return Response(body, headers={**_PICTURE, "content-disposition": name}, media_type=_TYPES[kind])

    async def png(self, request: Request) -> Response:
        return await self._picture(request, "png")

    async def svg(self, request: Request) -> Response:
        return await self._picture(request, "svg")

    async def state(self, request: Request) -> Response:
        """What the page's script polls; `ETag` is the payment's version."""
        payment = await self._payment(request)
        tag = f'"{payment.version}"'
        headers = {**_COMMON, "etag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(_state(payment), headers=headers, media_type="application/json")

    async def events(self, request: Request) -> Response:
        """The same as a stream. 204 tells a browser not to come again, 503 to poll instead."""
        payment = await self._payment(request)
        if _is_last(payment) and request.headers.get("last-event-id") == str(payment.version):
            return Response(status_code=204, headers=_COMMON)
        if not self._streams.has_room(payment.id):
            return Response(status_code=503, headers={**_COMMON, "retry-after": "30"})

        async def read() -> tuple[int, bytes, bool]:
            latest = await self._kit.reads.payment(payment.id) or payment
            return latest.version, _state(latest), _is_last(latest)

        return self._streams.stream(payment.id, read, dict(_COMMON))

    # --- what there is ---

    async def _payment(self, request: Request) -> Payment:
        payment_id = request.path_params["payment_id"]
        payment = await self._kit.reads.payment(payment_id) if _ID.fullmatch(payment_id) else None
        if payment is None:
            raise NotFound("Payment not found")
        return payment

    async def _seen(self, request: Request) -> Seen:
        payment = await self._payment(request)
        merchant = await self._kit.directory.merchant(payment.merchant_id)
        show = await self._show(payment, merchant) if payment.status == "pending" else None
        now = self._kit.clock()
        view = views.view(payment, show, now, f"{self._url}/pay/{payment.id}")
        return Seen(payment, merchant, view, now)

    async def _show(self, payment: Payment, merchant: Merchant) -> Show | None:
        """The live attempt's; where the provider opens attempts itself, the invitation to it."""
        account = merchant.account(payment.account_id)
        if account is not None and self._kit.asks(account):
            try:
                return self._kit.invitation(payment, account)
            except TillgateError:  # the account was changed since: the rest of the page still holds
                return None
        attempt = await self._kit.reads.live_attempt(payment.id)
        return views.shown(attempt.show) if attempt else None

    def _channel(self, seen: Seen) -> str:
        """The name that payers know: of what they paid with, else of what they chose."""
        payment = seen.payment
        account = seen.merchant.account(payment.account_id)
        provider = self._kit.providers.get(account.provider) if account else None
        channels = provider.channels if provider else ()
        return next((one.name for one in channels if one.id == payment.channel), payment.channel)

    async def _code(self, view: views.View, kind: Kind) -> bytes | None:
        if view.qr_text is None:
            return None
        try:
            return await self._pictures.draw(view.qr_text, kind)
        except QrError:
            return None

    async def _picture(self, request: Request, kind: Kind) -> Response:
        seen = await self._seen(request)
        body = await self._code(seen.view, kind)
        if body is None:
            body = self.assets.body(f"{_sign(seen.view)}.{kind}")
        name = f'inline; filename="{seen.payment.id}.{kind}"'
        return Response(body, headers={**_PICTURE, "content-disposition": name}, media_type=_TYPES[kind])

    async def _failed(self, request: Request, error: TillgateError) -> Response:
        headers: dict[str, str] = {}
        if isinstance(error, Limited):
            headers["retry-after"] = str(error.wait_s)
        elif error.status == 503:
            headers["retry-after"] = "5"
        status = 410 if isinstance(error, LinkClosed) else error.status
        if wanted(request) == "page" or request.method == "POST":
            said: Failure = _FAILURES.get(status, "missing")
            merchant = "" if said != "link_closed" else (await self._links.found(request))[1].name
            body = self._page.failure(_language(request), said, merchant=merchant)
            return Response(body, status, {**_PAGE, **headers}, "text/html")
        out = schemas.ErrorOut(
            errorCode=str(status), errorType=error.code, errorMessage=error.message, status="failed"
        )
        content: Any = msgspec.to_builtins(out)
        return JSONResponse(content, status, {**_COMMON, "vary": _PAGE["vary"], **headers})


def wanted(request: Request) -> Wanted:
    """What `Accept` asks for; who names nothing is taken for a program that loads a picture.

    A browser that opens a page names `text/html` and `application/xhtml+xml`; one that loads an `<img>` names
    `image/*`, and says `Sec-Fetch-Dest: image`. Java's plain client names `text/html, image/gif, image/jpeg`
    whatever it loads, and cannot show a page: a picture.
    """
    match request.headers.get("sec-fetch-dest"):
        case "image":
            return "picture"
        case "document":
            return "page"
    accepted = _accepted(request.headers.get("accept", ""))
    html = accepted.get("text/html", 0)
    image = max((weight for media, weight in accepted.items() if media.startswith("image/")), default=0)
    if html and ("application/xhtml+xml" in accepted or html > image):
        return "page"
    if accepted.get("application/json") and not image and not accepted.get("*/*"):
        return "json"
    return "picture"


def _accepted(header: str) -> dict[str, float]:
    """Media types and their weights (RFC 9110 §12.5.1); what cannot be read is left out."""
    found = (_ACCEPTED.fullmatch(part) for part in header[:_ACCEPT_CHARS].split(","))
    return {one[1].lower(): float(one[2] or 1) for one in found if one}


def _language(request: Request) -> str:
    return choose_language(request.query_params.get("lang"), request.headers.get("accept-language"))


def _sign(view: views.View) -> str:
    """The picture that says how a payment stands where there is no code to scan.

    A tick only where the merchant has the money: a cashier may hand out goods by it."""
    if view.state in ("paid", "partially_refunded"):
        return "paid"
    return "waiting" if view.live else "closed"


def _is_last(payment: Payment) -> bool:
    return payment.status == "paid" or payment.status in views.CLOSED


def _state(payment: Payment) -> bytes:
    fields = schemas.status_fields(payment)
    names = ("payment_id", "status", "status_detail", "amount", "currency", "expires_at", "paid_at")
    body = {name: fields[name] for name in names}
    return msgspec.json.encode({**body, "version": payment.version, "final": _is_last(payment)})
