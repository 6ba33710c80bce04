"""The page itself: what the templates are given. All that is shown is escaped by them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tillgate.domain.money import EXPONENTS
from tillgate.domain.payment import Payment
from tillgate.http.assets import Assets
from tillgate.http.checkout_view import View, clock
from tillgate.http.texts import LANGUAGES, WHOLE, Texts, amount_text, time_text

if TYPE_CHECKING:
    from tillgate.http.checkout_links import Form

RELOAD_S: Final = 10  # where there are no scripts
SANDBOX_ACTIONS: Final = ("pay", "fail", "expire")
Failure: TypeAlias = Literal["missing", "unavailable", "busy", "link_closed"]
RECEIPT: Final = frozenset({"paid", "partially_refunded", "refunded", "reversed", "review"})


class Page:
    def __init__(self, assets: Assets, prefix: str, *, sandbox: bool) -> None:
        self._texts = Texts()
        self._sandbox = sandbox
        self._prefix = prefix
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        environment.globals |= {"asset": assets.url, "languages": LANGUAGES, "sandbox": sandbox}
        self._payment = environment.get_template("payment.html")
        self._failure = environment.get_template("failure.html")
        self._link = environment.get_template("link.html")

    def render(
        self,
        *,
        language: str,
        chosen: bool,
        payment: Payment,
        view: View,
        now: int,
        merchant: str,
        channel: str,
        picture: bytes | None,
        back: str | None = None,
    ) -> str:
        """The page of a payment. `chosen`: the language came with the address and stays in it. `back`: where
        its payer may try another way."""
        amount = partial(amount_text, currency=payment.currency, language=language)
        time = partial(time_text, currency=payment.currency, language=language, now=now)
        values = {
            "merchant": merchant,
            "channel": channel,
            "amount": amount(payment.amount_minor),
            "refunded": amount(payment.refunded_minor),
        }
        t: Callable[..., str] = partial(self._texts.say, language, **values)
        way = "preparing" if view.way == "scan" and picture is None else view.way
        word = way if view.state == "pending" else view.state
        left_ms = max(0, payment.expires_at - now)
        return self._payment.render(
            t=t,
            language=language,
            view=view,
            way=way,
            title=t(f"{word}_title"),
            text=t(f"{word}_text"),
            payment=payment,
            address=f"{self._prefix}/pay/{payment.id}",
            query=f"?lang={language}" if chosen else "",
            back=back and f"{back}?again=1{f'&lang={language}' if chosen else ''}",
            actions=[f"{self._prefix}/sandbox/pay/{payment.id}/{one}" for one in SANDBOX_ACTIONS],
            reload_s=RELOAD_S if view.live else None,
            picture_version=_version(picture) if picture else None,
            picture_size=_width(picture) if picture else None,
            now=now,
            left=clock(left_ms),
            lasts_ms=max(1, payment.expires_at - payment.created_at),
            left_ms=left_ms,
            pay_before=t("pay_before", time=time(payment.expires_at)),
            facts=self._facts(t, payment, view, time, values),
            **values,
        )

    def link(self, *, language: str, chosen: bool, form: Form) -> str:
        """The page of a payment link."""
        currency = form.link.currency
        amount = partial(amount_text, currency=currency, language=language)
        t: Callable[..., str] = partial(
            self._texts.say, language, currency=currency, low=amount(form.low), high=amount(form.high),
            merchant=form.merchant.name, **form.more,
        )  # fmt: skip
        fixed = form.link.amount_minor
        return self._link.render(
            t=t,
            language=language,
            title=form.link.title,
            merchant=form.merchant.name,
            amount=None if fixed is None else amount(fixed),
            decimals=EXPONENTS[currency] > 0 and currency not in WHOLE,
            channels=form.channels,
            chosen=form.chosen,
            entered=form.entered,
            use=form.use,
            wrong=form.wrong,
            wrong_field=form.wrong_field,
            address=f"{self._prefix}/l/{form.link.code}",
            query=f"?lang={language}" if chosen else "",
        )

    def failure(self, language: str, name: Failure, *, merchant: str = "") -> str:
        """Where there is nothing to show: an unknown address, a store that is away, a closed link."""
        t: Callable[..., str] = partial(self._texts.say, language, merchant=merchant)
        return self._failure.render(
            t=t,
            language=language,
            title=t(f"{name}_title"),
            text=t(f"{name}_text"),
            tone="wait" if name in ("unavailable", "busy") else "bad",
            reload_s=RELOAD_S if name == "unavailable" else None,
            address="",
        )

    def _facts(
        self,
        t: Callable[..., str],
        payment: Payment,
        view: View,
        time: Callable[[int], str],
        values: dict[str, str],
    ) -> list[tuple[str, str]]:
        """The rows of the receipt, label and value."""
        rows = [(t("order"), payment.order_id)]
        if view.state in RECEIPT:
            rows.append((t("paid_with"), payment.paid_with or values["channel"]))
            if payment.paid_at is not None:
                rows.append((t("paid_at"), time(payment.paid_at)))
        if payment.refunded_minor:
            rows.append((t("refunded_amount"), values["refunded"]))
        rows.append((t("reference"), payment.id))
        return rows


def _version(picture: bytes) -> str:
    """So that a page never shows a browser's copy of an earlier code."""
    return hashlib.sha256(picture).hexdigest()[:10]


def _width(png: bytes) -> int:
    """In pixels; from the header."""
    return int.from_bytes(png[16:20], "big")
