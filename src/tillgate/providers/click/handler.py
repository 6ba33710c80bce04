"""The drop-in `ClickWebhookHandler`: Click's SHOP API on a host application's own tables.

Constructor, hooks and attributes are those of the PayTechUZ document; the rules are the hub's.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from tillgate.domain.dialogue import Look, Record, Reserve, Settle, Tell, Verdict
from tillgate.domain.errors import AlreadyClosed, AlreadyPaid, Misconfigured, Refusal, TryLater
from tillgate.domain.payment import Closed, advance
from tillgate.domain.record import replace
from tillgate.embed import UNHEARD, BadSettings, EmbeddedHandler, PaymentTransaction
from tillgate.embed import accounts as host
from tillgate.embed.facts import attempt_of, payment_of
from tillgate.embed.ruling import Desk
from tillgate.embed.session import take_turns
from tillgate.embed.web import BodyGone, described, inbound
from tillgate.providers.click import form
from tillgate.providers.click.config import Config
from tillgate.providers.click.connector import Click
from tillgate.providers.click.request import Request as ShopRequest
from tillgate.spi import Heard, Inbound, Reply

log = logging.getLogger("tillgate.click")

T = TypeVar("T")


class ClickWebhookHandler(EmbeddedHandler):
    """Make one for each request and return what `handle_webhook` gives; it serves both of Click's addresses.

    `account_field` is the model's column that `merchant_trans_id` names (`order_id` means `id` where the
    model has no `order_id`). With `one_time_payment` an order is paid once, exactly its amount and
    `commission_percent` on top; without, an account takes any positive amount any number of times.
    """

    gateway = PaymentTransaction.CLICK
    unheard = UNHEARD

    def __init__(
        self,
        db: Any,
        service_id: str | int,
        secret_key: str,
        account_model: Any,
        commission_percent: float = 0.0,
        account_field: str = "id",
        amount_field: str = "amount",
        one_time_payment: bool = True,
        *,
        previous_key: str = "",
        reserve_minutes: int = 30,
    ) -> None:
        """Raises `BadSettings` (a `ValueError`), above all for an empty or missing key."""
        super().__init__(db, account_model, account_field, amount_field, one_time_payment)
        self.service_id = service_id
        self.secret_key = secret_key
        self.commission_percent = commission_percent
        if not isinstance(secret_key, str) or not secret_key.strip():
            raise BadSettings("secret_key is empty or missing: anyone could then say that orders are paid")
        own = account_field != "order_id" or host.has(account_model, account_field)
        self._column = account_field if own else "id"
        self._factor = _factor(commission_percent)
        self._click = _connector(str(service_id), secret_key, previous_key or None, reserve_minutes)

    # --- a hook of Click alone ------------------------------------------------------------------------------

    def needs_review(self, params: dict[str, Any], transaction: PaymentTransaction, why: str) -> Any:
        """Click contradicts what is settled; somebody must look. Once for each contradiction, which is also
        kept in `transaction.extra_data["needs_review"]`."""

    # --- the webhook ----------------------------------------------------------------------------------------

    async def handle_webhook(self, request: Request) -> dict[str, Any]:
        """Answer one request of Click's: the object that Click reads, whatever happens."""
        try:
            reply = await self.answer(await inbound(request, form.MAX_BODY_BYTES))
        except ClientDisconnect:
            return {}  # nobody is left to read an answer
        except BodyGone:
            log.exception("click: the request cannot be read")
            reply = self._click.answer(described(request, b""), None, TryLater())
        found: dict[str, Any] = json.loads(reply.body)
        return found

    async def answer(self, call: Inbound) -> Reply:
        """The same without a web framework."""
        heard: Heard | None = None
        try:
            heard = self._click.hear(call)
            return await self._answer(call, heard)
        except Refusal as refusal:
            return self._click.answer(call, heard, refusal)
        except Exception:  # a hook or the database failed: nothing was changed, Click asks again
            log.exception("click: %s failed", "request" if heard is None else type(heard.message).__name__)
            return self._click.answer(call, heard, TryLater())

    async def _answer(self, call: Inbound, heard: Heard) -> Reply:
        request: ShopRequest = heard.echo
        params = {k: v.decode("utf-8", "replace") for k, v in form.parse(call.body).items()}
        message = heard.message
        others = isinstance(message, Look) or (isinstance(message, Settle) and not message.linked)
        if others and await self._desk(params, lambda d: d.prepared_by_others(request)):
            external_id = str(request.click_trans_id)
            message = Settle(external_id, request.amount) if request.error == 0 else Tell(())
        if isinstance(message, Tell):
            closed = Closed("cancelled", str(request.error))
            await self._desk(params, lambda desk: desk.give_up(str(request.click_trans_id), closed))
            return self._click.answer(call, replace(heard, message=message), None)
        assert isinstance(message, Reserve | Settle | Look)
        ruling = await self.rule(message, params)
        outcome = ruling.outcome
        if ruling.moved:  # nothing was settled before this call, also by a clock of whole seconds
            call = replace(call, received_at=0)
        if (
            isinstance(message, Settle)
            and isinstance(outcome, AlreadyClosed | AlreadyPaid)
            and message.linked
        ):
            late = isinstance(outcome, AlreadyClosed)
            why = f"Click says that this {'cancelled' if late else 'second'} transaction was paid"
            await self._desk(params, lambda desk: desk.contradicted(message.external_id, why))
        if isinstance(outcome, Record) and isinstance(message, Look):
            outcome = Record(outcome.attempt)  # the host names its accounts otherwise than Click does
        return self._click.answer(call, replace(heard, message=message), outcome)

    async def _desk(self, params: dict[str, Any], work: Callable[[ClickDesk], T]) -> T:
        return await self._in_session(lambda session: work(self.desk(session, params)))

    def desk(self, session: Any, params: dict[str, Any]) -> ClickDesk:
        return ClickDesk(self, session, params)

    # --- what the embedding asks of a gateway ---------------------------------------------------------------

    def expected_minor(self, account: Any) -> int:
        price = super().expected_minor(account)
        return int((price * self._factor).quantize(Decimal(1), ROUND_HALF_UP))

    def lookup(self, reference: str) -> dict[str, str]:
        return {self._column: reference}

    def extra_data(self, ask: Reserve, params: dict[str, Any]) -> dict[str, Any]:
        # less the signature: it is a hash over the key, and the key is short
        raw = {name: value for name, value in params.items() if name != "sign_string"}
        return {"raw_params": raw, "merchant_trans_id": ask.reference}

    def payment_number(self, extra_data: Mapping[str, Any]) -> str | None:
        raw = extra_data.get("raw_params")
        kept = extra_data.get("click_paydoc_id") or (
            raw.get("click_paydoc_id") if isinstance(raw, dict) else None
        )
        return None if kept is None else str(kept)


class ClickDesk(Desk):
    """What Click tells rather than asks, on the host's session."""

    handler: ClickWebhookHandler

    def give_up(self, external_id: str, closed: Closed) -> None:
        """Close what is not paid. What is paid stays paid, and somebody must look (scenario 8)."""
        row = self._locked(external_id)
        if row is None:
            return
        attempt = attempt_of(row)
        if attempt.phase == "paid":
            self._contradicts(row, f"Click cancels what it had confirmed ({closed.reason})")
        elif attempt.phase != "closed":
            moved = advance(attempt, closed, self.now)
            verdict = Verdict(Record(moved, payment_of(moved)), (attempt, moved, closed))
            self._write(row, verdict)
            self._claim(row, verdict)

    def contradicted(self, external_id: str, why: str) -> None:
        row = self._locked(external_id)
        if row is not None:
            self._contradicts(row, why)

    def prepared_by_others(self, request: ShopRequest) -> bool:
        """Whether a row that another library prepared is meant: its merchant_prepare_id was the row's id."""
        row = self._row(str(request.click_trans_id))
        if row is None or row.amount_tiyin is not None or row.id != request.merchant_prepare_id:
            return False
        account = self._account(request.merchant_trans_id, ())
        return account is not None and host.key_of(account) == row.account_id

    def _locked(self, external_id: str) -> PaymentTransaction | None:
        row = self._row(external_id)
        if row is None:
            return None
        take_turns(self.session, self._key(row.account_id or ""))
        return self._row(external_id)  # again: it may have moved while we waited for our turn

    def _contradicts(self, row: PaymentTransaction, why: str) -> None:
        known = (row.extra_data or {}).get("needs_review", [])
        if why in known:
            return
        log.warning("click: transaction %s needs review: %s", row.transaction_id, why)
        row.extra_data = {**(row.extra_data or {}), "needs_review": [*known, why][-10:]}
        self.session.flush()
        self.hook(self.handler.needs_review, self.params, row, why)

    def _said_of(self, row: PaymentTransaction) -> dict[str, Any]:
        """A transaction that died of age while another was heard has no request of its own."""
        if self.params.get("click_trans_id") == row.transaction_id:
            return self.params
        return {"click_trans_id": row.transaction_id, "error": row.reason}


def _factor(percent: Any) -> Decimal:
    try:
        exact = Decimal(str(percent))
    except InvalidOperation:
        exact = Decimal(-1)
    if not exact.is_finite() or not 0 <= exact <= 100 or isinstance(percent, bool):
        raise BadSettings("commission_percent is a number from 0 to 100")
    return 1 + exact / 100


@functools.lru_cache(maxsize=64)
def _connector(service_id: str, key: str, previous_key: str | None, reserve_minutes: int) -> Click:
    config = Config(
        service_id=service_id,
        merchant_id=1,  # only links need it
        secret_key=key,
        previous_secret_key=previous_key,
        reserve_minutes=reserve_minutes,
    )
    try:
        return Click(config)
    except Misconfigured as bad:
        raise BadSettings(str(bad)) from None
