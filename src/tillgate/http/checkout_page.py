"""The page itself: what the templates are given. All that is shown is escaped by them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tillgate.domain.payment import Payment
from tillgate.http.assets import Assets
from tillgate.http.checkout_view import View, clock
from tillgate.http.texts import LANGUAGES, Texts, amount_text, time_text

RELOAD_S: Final = 10  # where there are no scripts
SANDBOX_ACTIONS: Final = ("pay", "fail", "expire")
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
    ) -> str:
        """The page of a payment. `chosen`: the language came with the address and stays in it."""
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

    def failure(self, language: str, *, missing: bool) -> str:
        """Where there is no payment to show: an unknown address, or a store that is away."""
        t: Callable[..., str] = partial(self._texts.say, language)
        name = "missing" if missing else "unavailable"
        return self._failure.render(
            t=t,
            language=language,
            title=t(f"{name}_title"),
            text=t(f"{name}_text"),
            tone="bad" if missing else "wait",
            reload_s=None if missing else RELOAD_S,
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
