"""What a part of the show is made of: scenes, and how each of them must come out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tillgate.demo.shop import Shop
from tillgate.domain.money import Money


@dataclass(frozen=True, slots=True)
class Came:
    """How a scene ended, in the words of the merchant API; `payment` is the body a till was given."""

    status: str  # pending | success | failed
    detail: str
    callbacks: tuple[str, ...] = ()  # event types in the order in which the shop heard them
    payment: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Scene:
    """One payment of the show.

    `play(order_id)` opens a payment of `amount` under that order id, does what the payer does, and gives the
    payment's id: the shop then polls it until it says `due.detail`, and waits for `due.callbacks`. A scene
    whose payment is not the hub's (a kiosk of its own) gives what came of it instead.
    """

    title: str
    channel: str
    amount: Money
    play: Callable[[str], Awaitable[str | Came]]
    due: Came
    shop: Shop | None = None  # whose payment it is, where it is not the stage's own shop's
    came: Came | None = None

    @property
    def right(self) -> bool:
        due, came = self.due, self.came
        return came is not None and (came.status, came.detail, came.callbacks) == (
            due.status,
            due.detail,
            due.callbacks,
        )
