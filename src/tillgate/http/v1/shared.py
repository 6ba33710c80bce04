"""What several resources need: a merchant's own payment, what its payer is shown, checks, kept answers."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tillgate import schemas_v1
from tillgate.domain.errors import InvalidRequest, NotFound, TillgateError
from tillgate.domain.payment import LIVE, Attempt, Payment, StandingOrder
from tillgate.http.operation import Answer, Call
from tillgate.hub.kit import Kit
from tillgate.schemas_v1 import NextAction
from tillgate.spi import Show
from tillgate.ssrf import ForbiddenUrl, check_url
from tillgate.store.directory import Merchant

REPLAYED: Final = ((b"idempotent-replayed", b"true"),)
READ: Final = (400, 401, 404, 413, 429, 503)
LIST: Final = (400, 401, 413, 429, 503)
WRITE: Final = (400, 401, 404, 409, 413, 415, 422, 429, 503)
ID_CHARS: Final = 80
MAX_METADATA_BYTES: Final = 8 * 1024
MAX_METADATA_KEYS: Final = 50

_show: Final = msgspec.json.Decoder(Show).decode


def answer(stored: tuple[int, bytes] | None, body: bytes, status: int) -> Answer:
    """The first answer, where the request was made before; else this one."""
    return Answer(body, status) if stored is None else Answer(stored[1], stored[0], REPLAYED)


def named(call: Call, name: str) -> str:
    """An id in the path. Raises `NotFound` for what cannot be one."""
    value = call.params[name]
    if len(value) > ID_CHARS or not value.isascii() or not value.isprintable():
        raise NotFound()
    return value


async def own_payment(call: Call) -> Payment:
    """The payment that the path names; another merchant's is not found either."""
    payment = await call.runtime.kit.reads.payment(named(call, "payment_id"))
    if payment is None or payment.merchant_id != call.merchant.id:
        raise NotFound("Payment not found")
    return payment


def next_action(kit: Kit, merchant: Merchant, payment: Payment, attempt: Attempt | None) -> NextAction | None:
    """What the payer is shown, while they can pay. Raises `InvalidRequest` where no link can be made."""
    if payment.closed or payment.paid_minor or payment.hold:
        return None
    if attempt is not None and not attempt.asked:
        if attempt.phase not in LIVE or attempt.show is None:
            return None
        action = shown(_show(attempt.show), kit, payment.id)
        if action.type == "terminal":
            action.terminal = schemas_v1.terminal_action(attempt.details)
        return action
    account = merchant.account(payment.account_id)
    show = kit.invitation(payment, account) if account and kit.asks(account) else None
    return shown(show, kit, payment.id) if show else None


def standing_action(kit: Kit, merchant: Merchant, standing: StandingOrder) -> NextAction | None:
    """Raises `InvalidRequest` where no link can be made."""
    account = merchant.account(standing.account_id)
    if standing.closed_at is not None or account is None:
        return None
    show = kit.standing_invitation(standing, account)
    return None if show is None else shown(show, kit, None)


def shown(show: Show, kit: Kit, payment_id: str | None) -> NextAction:
    """`url` is where a browser can go: the provider's page, or else our own."""
    page = f"{kit.public_url}/pay/{payment_id}" if payment_id else None
    return NextAction(
        type=show.type,
        qr_string=show.qr_string,
        qr_url=page if show.qr_string else None,
        url=show.url or page,
        account=dict(show.account) if show.account else None,
    )


async def payment_body(call: Call, payment: Payment) -> bytes:
    """A payment as it stands, with what its payer is shown."""
    kit = call.runtime.kit
    attempt = await kit.reads.live_attempt(payment.id) if payment.live_attempt_id else None
    try:
        action = next_action(kit, call.merchant, payment, attempt)
    except TillgateError:
        action = None  # no link can be made any more: the account was changed
    return schemas_v1.encode(schemas_v1.payment(payment, action))


def printable(text: str, name: str, longest: int, shortest: int = 1) -> str:
    if not shortest <= len(text) <= longest or not text.isprintable():
        raise InvalidRequest(f"{name} is {shortest} to {longest} printable characters", param=name)
    return text


def callable_url(call: Call, url: str | None, name: str) -> str | None:
    """A URL that the hub may call. Raises `InvalidRequest` that says what to change."""
    if url is not None:
        try:
            check_url(url, call.runtime.allow)
        except ForbiddenUrl as error:
            raise InvalidRequest(str(error), param=name) from None
    return url


def metadata(given: dict[str, Any] | None) -> str | None:
    """A JSON object as it is kept. Raises `InvalidRequest` where there is too much of it."""
    if not given:
        return None
    text = msgspec.json.encode(given).decode()
    if len(given) > MAX_METADATA_KEYS or len(text) > MAX_METADATA_BYTES:
        raise InvalidRequest(
            f"metadata has at most {MAX_METADATA_KEYS} keys and {MAX_METADATA_BYTES} bytes", param="metadata"
        )
    return text
