"""What a payer is shown of a payment: which state, which way to pay, which facts. No I/O, no clock.

A payer must never be invited to pay twice: a way to pay is shown only while the payment is open and in time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import msgspec

from tillgate import schemas
from tillgate.domain.payment import Payment
from tillgate.spi import Show

State: TypeAlias = Literal[
    "pending", "closing", "unsure", "review", "paid", "partially_refunded", "refunded", "reversed",
    "failed", "expired", "cancelled",
]  # fmt: skip
"""closing: the time to pay has passed and the hub has not closed the payment yet."""

Way: TypeAlias = Literal["scan", "continue", "account", "terminal", "wait", "preparing"]
Tone: TypeAlias = Literal["open", "good", "back", "wait", "bad"]

TONES: Final[dict[State, Tone]] = {
    "pending": "open", "closing": "wait", "unsure": "wait", "review": "wait",
    "paid": "good", "partially_refunded": "back", "refunded": "back",
    "reversed": "bad", "failed": "bad", "expired": "bad", "cancelled": "bad",
}  # fmt: skip

SETTLED: Final = frozenset({"paid", "partially_refunded", "refunded", "reversed"})
CLOSED: Final = frozenset({"failed", "expired", "cancelled"})
"""Nothing to wait for, though the merchant may try again and late money may still come."""

MAX_ACCOUNT_ROWS: Final = 12
COUNTDOWN_MS: Final = 100 * 3_600_000  # beyond this a date says more than a clock

_LINK: Final = re.compile(r"([a-z][a-z0-9+.-]{1,40}):\S{1,4000}", re.IGNORECASE)
# A wallet's link may have any scheme of its own; these run code or read files in the page's name.
_UNSAFE: Final = frozenset({"javascript", "data", "vbscript", "blob", "file", "filesystem", "about"})

_show: Final = msgspec.json.Decoder(Show).decode


@dataclass(frozen=True, slots=True)
class View:
    """One payment at one moment, for one page."""

    state: State
    tone: Tone
    way: Way | None  # how to pay; None when there is nothing to pay
    qr_text: str | None  # what the code says
    link: str | None  # where a button leads
    account: tuple[tuple[str, str], ...]  # label and value, as the provider named them
    counts_down: bool

    @property
    def live(self) -> bool:
        """Something may change in the next seconds."""
        return self.state not in SETTLED and self.state not in CLOSED


def view(payment: Payment, show: Show | None, now: int, page_url: str) -> View:
    """`show` is the live attempt's or the invitation; `page_url` is what a code of our own says."""
    state = _state(payment, now)
    if state != "pending":
        return View(state, TONES[state], None, None, None, (), False)
    counts_down = payment.expires_at - now < COUNTDOWN_MS
    if show is None:
        return View(state, "open", "preparing", None, None, (), counts_down)
    link = safe_link(show.url)
    # Without a code of the provider's, ours leads a phone to this page and its button.
    qr_text = show.qr_string or (page_url if link else None)
    account = _rows(show) if show.type == "account" else ()
    way: Way
    match show.type:
        case "terminal" | "wait":
            way, link, qr_text = ("terminal" if show.type == "terminal" else "wait"), None, None
        case "account" if account:
            way, qr_text = "account", show.qr_string
        case "redirect" | "app" if link:
            way = "continue"
        case _:
            way = "scan" if show.qr_string else "continue" if link else "preparing"
    return View(state, "open", way, qr_text, link, account, counts_down)


def shown(stored: str | None) -> Show | None:
    """An attempt's `show`; None for one that cannot be read, which must not take the page down."""
    try:
        return _show(stored) if stored else None
    except msgspec.DecodeError:
        return None


def safe_link(url: str | None) -> str | None:
    """A link that a page may offer."""
    found = _LINK.fullmatch(url or "")
    return url if found and found[1].lower() not in _UNSAFE else None


def clock(ms: int) -> str:
    """A countdown: `14:32`, `1:05:09`. Whole seconds, rounded up, so that 0:00 means over."""
    seconds = max(0, -(-ms // 1000))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _state(payment: Payment, now: int) -> State:
    if payment.status == "pending":
        return "pending" if now < payment.expires_at else "closing"
    detail = schemas.status_detail(payment)
    return "paid" if detail == "paid_late" else detail  # type: ignore[return-value]


def _rows(show: Show) -> tuple[tuple[str, str], ...]:
    rows = (show.account or {}).items()
    return tuple((_label(name), str(value)[:200]) for name, value in list(rows)[:MAX_ACCOUNT_ROWS])


def _label(name: str) -> str:
    text = name.replace("_", " ").strip()[:60]
    return text[:1].upper() + text[1:]
