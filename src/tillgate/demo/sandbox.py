"""The pretended wallets: every way in which a payment can end, played through `/sandbox`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from tillgate.demo.scene import Came, Scene
from tillgate.demo.shop import Shop
from tillgate.demo.stage import Stage
from tillgate.domain.money import Money

Play: TypeAlias = Callable[[Shop, str], Awaitable[None]]


async def _pay(shop: Shop, payment_id: str) -> None:
    await _payer(shop, payment_id, "pay")


async def _pay_told_twice(shop: Shop, payment_id: str) -> None:
    await _payer(shop, payment_id, "pay?fault=twice")


async def _decline(shop: Shop, payment_id: str) -> None:
    await _payer(shop, payment_id, "fail")


async def _expire(shop: Shop, payment_id: str) -> None:
    await _payer(shop, payment_id, "expire")


async def _pay_late(shop: Shop, payment_id: str) -> None:
    await _payer(shop, payment_id, "pay-late")


async def _pay_and_refund(shop: Shop, payment_id: str) -> None:
    await _pay(shop, payment_id)
    await shop.call("POST", f"/payments/{payment_id}/refund", {"amount": 20_000, "reason": "one coffee less"})


async def _short(shop: Shop, payment_id: str) -> None:
    await _payer(shop, payment_id, "pay?fault=wrong_amount")


async def _pay_when_found(shop: Shop, payment_id: str) -> None:
    await shop.until(payment_id, "pending")  # it was unsure: the worker looked, and the bank has it
    await _pay(shop, payment_id)


async def _payer(shop: Shop, payment_id: str, action: str) -> None:
    await shop.call("POST", f"/sandbox/payments/{payment_id}/{action}")


_PAID, _FAILED, _EXPIRED = "payment.success", "payment.failed", "payment.expired"
_ROWS: tuple[tuple[str, str, int, Play, Came], ...] = (
    ("paid", "gopay", 150_000, _pay, Came("success", "paid", (_PAID,))),
    ("paid; the bank tells it twice", "ovo", 48_000, _pay_told_twice, Came("success", "paid", (_PAID,))),
    ("the payer declines", "dana", 75_500, _decline, Came("failed", "failed", (_FAILED,))),
    ("nobody pays", "shopeepay", 32_000, _expire, Came("failed", "expired", (_EXPIRED,))),
    ("paid after it expired", "gopay", 99_000, _pay_late, Came("success", "paid_late", (_EXPIRED, _PAID))),
    (
        "paid, then partly refunded",
        "dana",
        120_000,
        _pay_and_refund,
        Came("success", "partially_refunded", (_PAID, "refund.success")),
    ),
    ("the bank's answer is lost", "ovo", 20_901, _pay_when_found, Came("success", "paid", (_PAID,))),
    ("paid one rupiah short: held", "shopeepay", 64_000, _short, Came("pending", "review")),
)


async def scenes(stage: Stage) -> list[Scene]:
    def scene(title: str, wallet: str, whole: int, play: Play, due: Came) -> Scene:
        amount = Money.of_major(whole, "IDR")

        async def played(order_id: str) -> str:
            payment_id = await stage.shop.open(order_id, wallet, amount)
            await play(stage.shop, payment_id)
            return payment_id

        return Scene(title, wallet, amount, played, due)

    return [scene(*row) for row in _ROWS]
