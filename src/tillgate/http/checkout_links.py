"""The payer's side of a payment link: `/l/{code}` asks how much and by which wallet, where that is open.

What is sent opens a payment, or finds the one that there is, and leads to its page.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

import structlog
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from tillgate.domain.errors import InvalidRequest, NoProvider, NotFound, TillgateError
from tillgate.domain.money import EXPONENTS, UNITS
from tillgate.domain.payment import Payment
from tillgate.hub.links import ENDED, LinkClosed, PaymentLinks
from tillgate.runtime import Runtime
from tillgate.spi import Channel
from tillgate.store.directory import Merchant
from tillgate.store.links import PaymentLink

log = structlog.get_logger("tillgate.http")

FORM_BYTES: Final = 4096
MANY_CHANNELS: Final = 40
_CODE: Final = re.compile(r"[a-z0-9]{1,32}", re.ASCII)
_USE: Final = re.compile(r"[A-Za-z0-9_-]{8,64}", re.ASCII)
_DECIMALS: Final = re.compile(r"(.*\d)[.,](\d{1,2})", re.ASCII)
_GROUPS: Final = re.compile(r"\d{1,3}(?:([., '])\d{2,3}(?:\1\d{2,3})*)?|\d+", re.ASCII)
_BLANKS: Final = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2019": "'"})


@dataclass(frozen=True, slots=True)
class Form:
    """A link's page as it is drawn."""

    link: PaymentLink
    merchant: Merchant
    channels: list[Channel]
    low: int
    high: int
    use: str
    entered: str = ""
    chosen: str = ""
    wrong: str | None = None  # the key of a text
    wrong_field: str | None = None
    more: dict[str, str] = field(default_factory=dict)


class LinkPages:
    """`draw` makes a form's page, `leave` an address with the chosen language."""

    def __init__(self, runtime: Runtime, prefix: str, url: str) -> None:
        self._runtime, self._prefix, self._url = runtime, prefix, url

    @property
    def _links(self) -> PaymentLinks:
        return self._runtime.hub.links

    async def found(self, request: Request) -> tuple[PaymentLink, Merchant]:
        """Raises `NotFound`."""
        code = request.path_params["code"]
        link = await self._links.rows.by_code(code) if _CODE.fullmatch(code) else None
        if link is None:
            raise NotFound("There is no such payment link")
        merchant = await self._runtime.directory.merchant(link.merchant_id)
        if merchant.disabled:
            raise NotFound("There is no such payment link")
        return link, merchant

    def address(self, link: PaymentLink) -> str:
        """What the code on a poster says."""
        return f"{self._url}/l/{link.code}"

    async def state_open(self, link: PaymentLink) -> bool:
        return self._links.state(link, await self._links.latest(link)) == "open"

    async def open_form(self, request: Request) -> Form | Response:
        """The form, or the way to the payment that a `once` link is about. Raises `LinkClosed`."""
        link, merchant = await self.found(request)
        latest = await self._links.latest(link)
        state = self._links.state(link, latest)
        again = request.query_params.get("again") == "1"
        if latest is not None and (
            state == "paid" or (latest.status == "pending" and not (again and state == "open"))
        ):
            return self._to(request, latest)
        if state != "open":
            raise LinkClosed
        return self._form(link, merchant, chosen=latest.channel if latest else "")

    async def used(self, request: Request) -> Form | Response:
        """What a payer sent. Raises `LinkClosed`, `NotFound`, `Unavailable`."""
        link, merchant = await self.found(request)
        fields = await _fields(request)
        entered, chosen, use = fields.get("amount", "")[:30], fields.get("channel", ""), fields.get("use", "")
        amount = None if link.amount_minor is not None else amount_minor(entered, link.currency)
        try:
            payment = await self._links.use(
                merchant, link, chosen, amount, use if _USE.fullmatch(use) else secrets.token_urlsafe(16)
            )
        except InvalidRequest as error:
            wrong = "amount" if error.param == "amount" else "channel"
            said = "amount_wrong" if wrong == "amount" else "choose_wrong"
            return self._form(link, merchant, entered, chosen, said, wrong)
        except LinkClosed:
            raise
        except TillgateError as error:
            if error.status >= 500 and not isinstance(error, NoProvider):
                raise
            log.info("a payment link's payment was refused", link=link.id, why=error.code)
            return self._form(link, merchant, entered, chosen, "start_failed")
        if payment.status == "failed" and not payment.paid_minor:
            return self._form(link, merchant, entered, chosen, "start_failed")
        return self._to(request, payment)

    def _form(
        self,
        link: PaymentLink,
        merchant: Merchant,
        entered: str = "",
        chosen: str = "",
        wrong: str | None = None,
        wrong_field: str | None = None,
    ) -> Form:
        channels = self._links.channels(merchant, link)[:MANY_CHANNELS]
        if link.amount_minor is not None:
            amount = link.amount_minor
            channels = [one for one in channels if one.min_minor <= amount <= one.max_minor]
        low, high = self._links.bounds(merchant, link)
        name = next((one.name for one in channels if one.id == chosen), "")
        if wrong == "start_failed" and not name:
            wrong, wrong_field = "choose_wrong", "channel"
        return Form(
            link, merchant, channels, low, high, secrets.token_urlsafe(16), entered, chosen, wrong,
            wrong_field, {"channel": name},
        )  # fmt: skip

    def _to(self, request: Request, payment: Payment) -> Response:
        return RedirectResponse(
            f"{self._prefix}/pay/{payment.id}{language_query(request)}",
            303,
            {"cache-control": "no-store", "referrer-policy": "no-referrer"},
        )

    async def way_back(self, payment: Payment) -> str | None:
        """From a payment's page to another try by its link; None where there is none."""
        if payment.standing_id is None or not payment.of_link:
            return None
        if payment.status not in ENDED and payment.status != "pending":
            return None
        link = await self._links.rows.by_id(payment.standing_id)
        if link is None or self._links.state(link, None) != "open":
            return None
        merchant = await self._runtime.directory.merchant(link.merchant_id)
        if payment.status == "pending" and len(self._links.channels(merchant, link)) < 2:
            return None
        return f"{self._prefix}/l/{link.code}"


def language_query(request: Request) -> str:
    """`?lang=…` where the address asked for a language; to go on in it."""
    wanted = request.query_params.get("lang", "")
    return f"?lang={wanted}" if re.fullmatch(r"[a-z]{2}", wanted, re.ASCII) else ""


async def _fields(request: Request) -> dict[str, str]:
    """A small form. Raises `InvalidRequest` for more than it can have."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > FORM_BYTES:
            raise InvalidRequest("the form is too large")
    try:
        pairs: list[tuple[Any, Any]] = parse_qsl(body.decode("utf-8", "replace"), max_num_fields=20)
    except ValueError:
        raise InvalidRequest("the form has too many fields") from None
    return {str(name): str(value) for name, value in pairs}


def amount_minor(text: str, currency: str) -> int | None:
    """What a person typed as minor units; None for what is no amount of this currency.

    The last comma or point with one or two digits behind it begins the decimals; every other one must stand
    between groups, as people write thousands (and lakhs): `50000`, `50.000`, `50,000.00`, `1,00,000`.
    """
    text = text.translate(_BLANKS).strip()
    exponent = EXPONENTS[currency]
    fraction = ""
    decimals = _DECIMALS.fullmatch(text) if exponent else None
    if decimals is not None:
        text, fraction = decimals[1], decimals[2]
    groups = _GROUPS.fullmatch(text)
    if groups is None or len(text) > 20:
        return None
    parts = re.split(r"[., ']", text)
    if len(parts) > 1 and len(parts[-1]) != 3:
        return None
    whole = int("".join(parts))
    return whole * UNITS[currency] + (int(fraction.ljust(exponent, "0")) if fraction else 0)
