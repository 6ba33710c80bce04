"""Double-entry books. A posting moves an amount from one account to another, so the books always balance.

Accounts of one merchant, all per currency; a balance is what came in less what went out:

- `provider:<account>` what this provider account still owes us, as a negative number
- `merchant` what is the merchant's · `held` the same, but not to be fulfilled before an operator looked
- `refunding` promised back to payers · `tips` · `fees:<account>` what providers kept
- `memo:open` → `memo:due` what open payments are expected to bring (a memorandum: no money moved)
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from tillgate.domain.payment import Paid, Payment
from tillgate.domain.record import record

Kind: TypeAlias = Literal["memo", "payment", "tip", "fee", "refund", "reversal", "hold"]


@record
class Posting:
    kind: Kind
    source: str
    destination: str
    amount_minor: int  # > 0: the direction is in the accounts
    currency: str

    def __post_init__(self) -> None:
        assert self.amount_minor > 0


def postings(before: Payment | None, after: Payment, account_id: str) -> tuple[Posting, ...]:
    """What moved between two states of a payment, through the provider account `account_id`."""
    moves: list[Posting] = []

    def move(kind: Kind, source: str, destination: str, amount_minor: int) -> None:
        if amount_minor < 0:  # a correction is a new posting the other way
            source, destination, amount_minor = destination, source, -amount_minor
        if amount_minor:
            moves.append(Posting(kind, source, destination, amount_minor, after.currency))

    move("memo", "memo:open", "memo:due", _expected(after) - (_expected(before) if before else 0))
    if before is None or (_money(before) == _money(after) and before.hold == after.hold):
        return tuple(moves)

    provider, home = f"provider:{account_id}", _home(after)
    if _home(before) != home:
        move("hold", _home(before), home, _kept(before))
    move("payment", provider, home, after.paid_minor - before.paid_minor)
    move("tip", provider, "tips", after.tip_minor - before.tip_minor)
    move("fee", home, f"fees:{account_id}", after.fee_minor - before.fee_minor)
    asked = after.refunding_minor - before.refunding_minor
    done = after.refunded_minor - before.refunded_minor
    ours = min(done, max(-asked, 0))  # of what went back, the part that we had asked for
    move("refund", home, "refunding", asked + ours)
    move("refund", "refunding", provider, ours)
    move("refund", home, provider, done - ours)
    move("reversal", home, provider, after.reversed_minor - before.reversed_minor)
    return tuple(moves)


def foreign(fact: Paid, account_id: str) -> tuple[Posting, ...]:
    """Money that came in another currency than the order's: held as it came."""
    amount_minor = fact.total_minor + fact.tip_minor
    if not amount_minor:
        return ()
    return (Posting("payment", f"provider:{account_id}", "held", amount_minor, fact.currency),)


def _expected(payment: Payment) -> int:
    return payment.amount_minor if payment.status in ("pending", "unsure") else 0


def _home(payment: Payment) -> str:
    return "merchant" if payment.hold is None else "held"


def _money(payment: Payment) -> tuple[int, ...]:
    return (
        payment.paid_minor,
        payment.tip_minor,
        payment.fee_minor,
        payment.refunding_minor,
        payment.refunded_minor,
        payment.reversed_minor,
    )


def _kept(payment: Payment) -> int:
    return payment.refundable_minor - payment.fee_minor
