"""The drop-in `PaymeWebhookHandler`: Payme's Merchant API on a host application's own tables.

Constructor, hooks and attributes are those of the PayTechUZ document; the rules are the hub's.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from tillgate.domain.dialogue import Record, Reserve
from tillgate.domain.errors import (
    Misconfigured,
    Refusal,
    TryLater,
    Unauthenticated,
    UnknownMethod,
    UnknownReference,
    UnknownTransaction,
    WrongAmount,
)
from tillgate.embed import UNHEARD, BadSettings, EmbeddedHandler, PaymentTransaction, empty
from tillgate.embed.web import BodyGone, described, inbound
from tillgate.providers.payme import accounts, rpc
from tillgate.providers.payme.config import Config
from tillgate.providers.payme.connector import Call, NewPassword, Payme, result
from tillgate.spi import Heard, Inbound, Reply

log = logging.getLogger("tillgate.payme")

# The exceptions that paytechuz's handler answers in words, and what they are here.
_THERE: Final[dict[str, type[Refusal]]] = {
    "AccountNotFound": UnknownReference,
    "InvalidAccount": UnknownReference,
    "InvalidAmount": WrongAmount,
    "TransactionNotFound": UnknownTransaction,
    "PermissionDenied": Unauthenticated,
    "MethodNotFound": UnknownMethod,
    "UnsupportedMethod": UnknownMethod,
}
_FIXED: Final = "what Payme asks is ruled on by Payme's own rules; use the hooks"


class PaymeWebhookHandler(EmbeddedHandler):
    """Make one for each request and return what `handle_webhook` gives.

    `account_field` names Payme's account field and the model's column; several fields are a tuple. `order_id`
    means the column `id`, also where the model has an `order_id` of its own. With `one_time_payment` an order
    is paid once and exactly its amount; without, an account takes any positive amount any number of times.
    """

    gateway = PaymentTransaction.PAYME
    unheard: ClassVar[Mapping[str, str]] = {
        **UNHEARD,
        "check_basic_auth": UNHEARD["_check_auth"],
        "_check_perform_transaction": _FIXED,
        "_create_transaction": _FIXED,
        "_perform_transaction": _FIXED,
        "_check_transaction": _FIXED,
        "_cancel_transaction": _FIXED,
        "_cancel_response": _FIXED,
        "_get_statement": _FIXED,
        "_error_response": _FIXED,
    }

    def __init__(
        self,
        db: Any,
        payme_id: str,
        payme_key: str,
        account_model: Any,
        account_field: str | tuple[str, ...] = "id",
        amount_field: str = "amount",
        one_time_payment: bool = True,
        *,
        previous_key: str = "",
        login: str = "Paycom",
        source_ips: tuple[str, ...] = (),
    ) -> None:
        """Raises `BadSettings` (a `ValueError`), above all for an empty or missing key."""
        super().__init__(db, account_model, account_field, amount_field, one_time_payment)
        self.payme_id = payme_id
        self.payme_key = payme_key
        if not isinstance(payme_key, str) or not payme_key.strip():
            raise BadSettings("payme_key is empty or missing: any caller could then say that orders are paid")
        if previous_key and not (isinstance(previous_key, str) and previous_key.strip()):
            raise BadSettings("previous_key is blank: any caller could then say that orders are paid")
        fields = (account_field,) if isinstance(account_field, str) else tuple(account_field)
        takes_passwords = type(self).password_changed is not PaymeWebhookHandler.password_changed
        self._payme = _connector(
            payme_key, previous_key or "", login, fields, tuple(source_ips), takes_passwords
        )
        self._fields = fields

    # --- hooks of Payme alone -------------------------------------------------------------------------------

    @empty
    def before_check_perform_transaction(self, params: dict[str, Any], account: Any) -> Any:
        """The order may be paid; raise a `Refusal` to say no."""

    @empty
    def get_check_data(self, params: dict[str, Any], account: Any) -> Any:
        """A dict with `additional` or fiscal `detail` for the answer, or None."""

    @empty
    def check_transaction(self, params: dict[str, Any], transaction: PaymentTransaction) -> Any:
        """Payme asked how a transaction stands."""

    @empty
    def get_statement(self, params: dict[str, Any], transactions: list[dict[str, Any]]) -> Any:
        """Payme asked for a statement; the rows may be added to."""

    def password_changed(self, password: str) -> Any:
        """Store a new key; override to allow ChangePassword, which is refused otherwise."""

    # --- the webhook ----------------------------------------------------------------------------------------

    async def handle_webhook(self, request: Request) -> Response:
        """Answer one request of Payme's: HTTP 200 whatever happens, as Payme wants."""
        try:
            reply = await self.answer(await inbound(request, rpc.MAX_BODY_BYTES))
        except ClientDisconnect:
            return Response(status_code=200)  # nobody is left to read an answer
        except BodyGone:
            log.exception("payme: the request cannot be read")
            reply = self._payme.answer(described(request, b""), None, TryLater())
        return Response(reply.body, reply.status, media_type=reply.content_type)

    async def answer(self, call: Inbound) -> Reply:
        """The same without a web framework."""
        heard: Heard | None = None
        try:
            heard = self._payme.hear(call)
            return await self._answer(call, heard)
        except Refusal as refusal:
            return self._payme.answer(call, heard, refusal)
        except Exception as error:  # a hook or the database failed: nothing was changed, Payme asks again
            said = _refused_as_there(error)
            if said is not None:
                return self._payme.answer(call, heard, said)
            log.exception("payme: %s failed", heard.echo.method if heard else "request")
            return self._payme.answer(call, heard, TryLater())

    async def _answer(self, call: Inbound, heard: Heard) -> Reply:
        echo: Call = heard.echo
        message = heard.message
        if isinstance(message, NewPassword):
            found = self.password_changed(message.password)
            if hasattr(found, "__await__"):
                await found
            return self._payme.answer(call, heard, None)
        ruling = await self.rule(message, dict(echo.params))  # type: ignore[arg-type]
        if isinstance(ruling.outcome, Record) and ruling.extra is not None:
            return rpc.result(echo.id, ruling.extra)
        return self._payme.answer(call, heard, ruling.outcome)

    # --- what the embedding asks of a gateway ---------------------------------------------------------------

    def lookup(self, reference: str) -> dict[str, str]:
        try:
            given = accounts.account(reference, self._fields)
        except accounts.BadAccount:
            raise UnknownReference() from None
        wanted: dict[str, str] = {}
        for field, value in given.items():
            if wanted.setdefault("id" if field == "order_id" else field, value) != value:
                raise UnknownReference()  # two names of one column, and two values
        return wanted

    def extra_data(self, ask: Reserve, params: dict[str, Any]) -> dict[str, Any]:
        field = self._fields[0]
        return {
            "account_field": field,
            "account_value": params["account"].get(field),
            "create_time": ask.provider_at,
            "raw_params": params,
        }

    @property
    def check_hooks(self) -> tuple[Any, ...]:
        return self.before_check_perform_transaction, self.get_check_data

    def allowed(self, params: dict[str, Any], account: Any, hook: Any) -> Any:
        hook(self.before_check_perform_transaction, params, account)
        data = hook(self.get_check_data, params, account)
        return {**data, "allow": True} if data else None

    @property
    def look_hook(self) -> Any:
        return self.check_transaction

    def stated(self, params: dict[str, Any], record: Record, hook: Any) -> Any:
        content = result("GetStatement", record)
        hook(self.get_statement, params, content["transactions"])
        return content


def _refused_as_there(error: Exception) -> Refusal | None:
    """What a hook says by an exception of paytechuz's own, where that library is still installed."""
    for kind in type(error).__mro__:
        if kind.__module__ == "paytechuz.core.exceptions" and kind.__name__ in _THERE:
            return _THERE[kind.__name__]()
    return None


@functools.lru_cache(maxsize=64)
def _connector(
    key: str,
    previous_key: str,
    login: str,
    fields: tuple[str, ...],
    source_ips: tuple[str, ...],
    takes_passwords: bool,
) -> Payme:
    config = Config(
        merchant_id="embedded",
        key=key,
        previous_key=previous_key,
        login=login,
        account_fields=fields,
        source_ips=source_ips,
    )
    try:
        return Payme(config, takes_passwords=takes_passwords)
    except Misconfigured as bad:
        raise BadSettings(str(bad)) from None
