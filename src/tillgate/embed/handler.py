"""The drop-in handlers' common half: the attributes and hooks that users know, and `rule()`.

A gateway's handler turns its bytes into an ask and our ruling into bytes.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from tillgate.domain.dialogue import Ask, Check, Look, Record, Reserve, Statement
from tillgate.domain.errors import Misconfigured, Refusal, WrongAmount
from tillgate.embed.accounts import Glance
from tillgate.embed.afterwards import Afterwards
from tillgate.embed.models import PaymentTransaction, to_tiyin
from tillgate.embed.ruling import Desk, Ruling
from tillgate.embed.session import empty, in_session, unwrapped

log = logging.getLogger("tillgate.embed")

T = TypeVar("T")

EXPIRED_AT_ONCE: Final = 100


class BadSettings(Misconfigured, ValueError):
    """The handler's settings are incomplete or unsafe."""


UNHEARD: Final[Mapping[str, str]] = {
    "_check_auth": "keys, login and addresses are settings of the constructor",
    "_find_account": "set account_field, or override lookup(reference)",
    "_validate_amount": "set amount_field, or override expected_minor(account)",
}
"""Methods of paytechuz's handlers that it calls and we do not, and what does their work here."""


class EmbeddedHandler:
    """Attributes and hooks as users of PaymentTransaction handlers know them. One object per request.

    A hook runs inside the transaction that moves the row: what it changes through `self.db` is committed
    with the row or not at all, and it runs once for each thing that happens. Its `self.db.commit()` is
    harmless. It may raise a `Refusal` to refuse; anything else it raises undoes everything and is a system
    error.
    """

    gateway: ClassVar[str] = ""
    currency: ClassVar[str] = "UZS"
    unheard: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **settings: Any) -> None:
        """Raises `TypeError` where a host's own rule would be passed over in silence."""
        super().__init_subclass__(**settings)
        for name, instead in cls.unheard.items():
            if hasattr(cls, name):
                raise TypeError(f"{cls.__name__}.{name} would never be called: {instead}")

    def __init__(
        self,
        db: Any,
        account_model: Any,
        account_field: str | tuple[str, ...] = "id",
        amount_field: str = "amount",
        one_time_payment: bool = True,
    ) -> None:
        """Raises `BadSettings`."""
        self.db: Any = unwrapped(db)
        self.account_model = account_model
        self.account_field = account_field
        self.amount_field = amount_field
        self.one_time_payment = one_time_payment
        self._afterwards = Afterwards()
        if not isinstance(self.db, Session | AsyncSession):
            raise BadSettings(f"db must be an SQLAlchemy Session or AsyncSession, not {type(db).__name__}")
        if account_model is None:
            raise BadSettings("account_model is missing")

    def after_commit(self, function: Callable[..., Any], *arguments: Any) -> None:
        """In a hook: call this once, when what the hook did is committed, and never if it is not.

        It is called on the event loop, also where the hook runs in a thread; what it awaits does not keep the
        gateway waiting, and its failure is logged. Give it values: a row may have left its session.
        """
        self._afterwards.add(function, arguments)

    # --- hooks ----------------------------------------------------------------------------------------------

    @empty
    def transaction_already_exists(self, params: dict[str, Any], transaction: PaymentTransaction) -> Any:
        """A reservation was repeated."""

    @empty
    def transaction_created(
        self, params: dict[str, Any], transaction: PaymentTransaction, account: Any
    ) -> Any:
        """The order is reserved: nothing is paid yet."""

    @empty
    def successfully_payment(self, params: dict[str, Any], transaction: PaymentTransaction) -> Any:
        """Money was taken: once per transaction."""

    @empty
    def cancelled_payment(self, params: dict[str, Any], transaction: PaymentTransaction) -> Any:
        """Given up (state -1), by the gateway or by time, or given back (state -2): once per transaction."""

    @empty
    def fiscal_data_received(self, params: dict[str, Any], transaction: PaymentTransaction) -> Any:
        """A fiscal receipt was registered; it is in `transaction.extra_data`."""

    # --- for a gateway's handler to override ----------------------------------------------------------------

    def expected_minor(self, account: Any) -> int:
        """What a one-time order costs, in tiyin. Raises `WrongAmount` where the host's order has no price."""
        price = account.price if isinstance(account, Glance) else getattr(account, self.amount_field)
        try:
            expected = to_tiyin(price)
        except ValueError:
            raise WrongAmount() from None
        if expected <= 0:
            raise WrongAmount()
        return expected

    def lookup(self, reference: str) -> Mapping[str, str]:
        """Column → value for a reference. Raises `UnknownReference`."""
        assert isinstance(self.account_field, str)
        return {self.account_field: reference}

    def extra_data(self, ask: Reserve, params: dict[str, Any]) -> dict[str, Any]:
        """What a new row keeps beside its columns."""
        return {"raw_params": params}

    def payment_number(self, extra_data: Mapping[str, Any]) -> str | None:
        """The gateway's number of the payer's payment, where a repeat of it may be another transaction."""
        return None

    @property
    def check_hooks(self) -> tuple[Any, ...]:
        """The hooks that `allowed` calls."""
        return ()

    def allowed(self, params: dict[str, Any], account: Any, hook: Any) -> Any:
        """A check found nothing against it; what is returned becomes `Ruling.extra`."""

    @property
    def look_hook(self) -> Any:
        """The hook for a transaction that was asked about."""
        return _nothing

    def stated(self, params: dict[str, Any], record: Record, hook: Any) -> Any:
        """A statement was made; what is returned becomes `Ruling.extra`."""

    # --- ruling ---------------------------------------------------------------------------------------------

    async def rule(self, ask: Ask, params: dict[str, Any]) -> Ruling:
        """Rule on one ask in one transaction. A refusal is returned; a fault is raised and undoes all."""
        stuck: set[int] = set()

        def work(session: Session) -> Ruling:
            desk = self.desk(session, params)
            desk.stuck = stuck  # what one attempt learnt is for the next
            return desk.rule(ask)

        try:
            return await self._in_session(work, reads=isinstance(ask, Check | Look | Statement))
        except Refusal as refused_by_hook:
            return Ruling(refused_by_hook)

    async def expire(self) -> int:
        """Close what outlived its time, each with its hook in a transaction of its own; for a timer of the
        host's. One whose hook fails is logged and gone past. Returns how many were
        closed, a few hundred at most.
        """
        closed = after = 0
        while closed < EXPIRED_AT_ONCE:
            rows = await self._in_session(functools.partial(self._overdue, after), reads=True)
            if not rows:
                break
            for row in rows:
                try:
                    closed += await self._in_session(functools.partial(self._lapse, row))
                except Exception:
                    log.exception("payments: %d outlived its time and cannot be closed", row.id)
            after = rows[-1].id
        return closed

    def _overdue(self, after: int, session: Session) -> list[Any]:
        return self.desk(session, {}).overdue(after)

    def _lapse(self, overdue: Any, session: Session) -> bool:
        return self.desk(session, {}).lapse(overdue)

    def desk(self, session: Session, params: dict[str, Any]) -> Desk:
        """Where this handler's asks are ruled on."""
        return Desk(self, session, params)

    async def _in_session(self, work: Callable[[Session], T], *, reads: bool = False) -> T:
        return await in_session(self.db, work, reads=reads, afterwards=self._afterwards)


@empty
def _nothing(*_: Any) -> None:
    """No hook."""
