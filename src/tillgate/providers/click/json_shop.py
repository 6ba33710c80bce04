"""Click's JSON callbacks: Advanced Shop and Split Shop, as far as Click describes them.

Prepare, Complete and (Advanced only) Check are signed and served. Getinfo and Compare are answered -3: Click
documents neither a signature nor any other proof of who asks, and they would hand out orders to anybody.
Neither protocol describes how Click says that a debit failed, so a Prepare that nothing follows ends by its
reservation's time.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from tillgate.domain.dialogue import Hint, Look, Noise, Record, Reserve, Settle, Tell
from tillgate.domain.errors import Refusal, Unauthenticated, UnknownMethod, Unreadable
from tillgate.domain.money import Money
from tillgate.domain.payment import Attempt
from tillgate.providers.click import request as shop
from tillgate.providers.click.codes import (
    ALREADY_PAID,
    NOT_UPDATED,
    NOTES,
    SUCCESS,
    UNKNOWN_ORDER,
    code_of,
)
from tillgate.providers.click.config import Config
from tillgate.spi import Heard, Inbound, Reply

GETINFO, PREPARE, COMPLETE, CHECK, COMPARE = range(5)
MAX_BODY_BYTES: Final = 16 * 1024
MAX_PARAMS: Final = 40
MAX_VALUE_CHARS: Final = 255
NOT_DONE, FAILED, DONE = range(3)
"""`status` of a Check."""

_DIGITS: Final = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)


class Number(str):
    """A JSON number as it was written: the signature covers its characters."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Call:
    """A verified request."""

    action: int
    paydoc_id: int
    attempt_id: int
    reference: str
    amount: Money
    prepare_id: int | None
    signed_at: int

    @property
    def our_prepare_id(self) -> int:
        return shop.prepare_id(self.paydoc_id, self.reference)


def hear(config: Config, call: Inbound) -> Heard:
    """Raises a `Refusal`."""
    if call.method != "POST":
        raise Unreadable("Click sends POST only")
    request = read(config, call.body)
    # Click's payment number, not its attempt's: a repeated attempt has a new one and is the same payment.
    external_id = str(request.paydoc_id)
    if request.action == PREPARE:
        kept = {"click_paydoc_id": request.paydoc_id, "split": parts(config, request.amount.minor)}
        return Heard(
            Reserve(
                external_id,
                request.reference,
                request.amount,
                provider_at=request.signed_at,
                expires_at=call.received_at + config.reserve_minutes * 60_000,
                details=msgspec.json.encode(kept).decode(),
            ),
            request,
        )
    if request.action == CHECK:
        return Heard(Look(external_id), request)
    settle = Settle(
        external_id,
        request.amount,
        reference=request.reference,
        debited=True,
        linked=request.prepare_id in (None, request.our_prepare_id),
    )
    return Heard(settle, request)


def answer(
    config: Config, call: Inbound, heard: Heard | None, outcome: Record | Refusal | None, again: bool
) -> Reply:
    """`again`: the transaction had been paid before this request came."""
    if heard is None:
        code = code_of(outcome) if isinstance(outcome, Refusal) else NOT_UPDATED
        return _json({"error": code, "error_note": NOTES[code]})
    request: Call = heard.echo
    code = _code(request, heard.message, outcome, again)
    body: dict[str, Any] = {"click_paydoc_id": request.paydoc_id, "attempt_trans_id": request.attempt_id}
    if isinstance(outcome, Record) and request.action == CHECK and code == SUCCESS:
        body |= {"status": _status(outcome.attempt), "params": {}}
    elif request.action == PREPARE and code == SUCCESS:
        body |= {"merchant_prepare_id": request.our_prepare_id, "params": dict(config.answer_params)}
        if config.protocol == "split":
            body["split"] = _split(config, request, outcome)
    elif request.action == COMPLETE and code in (SUCCESS, ALREADY_PAID):
        body |= {"merchant_confirm_id": request.our_prepare_id, "params": {}}
    return _json(body | {"error": code, "error_note": NOTES[code]})


def _code(
    request: Call,
    message: object,
    outcome: Record | Refusal | None,
    again: bool,
) -> int:
    assert not isinstance(message, Tell | Hint | Noise)
    if isinstance(outcome, Refusal):
        return code_of(outcome)
    record = outcome or Record()
    if isinstance(message, Settle):
        return ALREADY_PAID if again else SUCCESS
    if record.payment is not None and record.payment.order_id != request.reference:
        return UNKNOWN_ORDER
    return SUCCESS


def _status(attempt: Attempt | None) -> int:
    if attempt is None or attempt.phase not in ("paid", "closed"):
        return NOT_DONE
    whole = attempt.phase == "paid" and not attempt.refunded_minor
    return DONE if whole else FAILED


# --- the split ----------------------------------------------------------------------------------------------


def parts(config: Config, tiyin: int) -> list[tuple[int, int]]:
    """`(cntrg_id, tiyin)` for every share; what does not divide goes to the first, so the sum is exact."""
    found = [(share.cntrg_id, tiyin * share.basis_points // 10_000) for share in config.shares]
    if found:
        first, amount = found[0]
        found[0] = first, amount + tiyin - sum(amount for _, amount in found)
    return [(cntrg_id, amount) for cntrg_id, amount in found if amount]


class _Kept(msgspec.Struct, frozen=True):
    split: list[tuple[int, int]] = []


def _split(config: Config, request: Call, outcome: Record | Refusal | None) -> list[dict[str, Any]]:
    """As it was first told, also when the shares were configured anew since."""
    attempt = outcome.attempt if isinstance(outcome, Record) else None
    kept = msgspec.json.decode(attempt.details, type=_Kept).split if attempt and attempt.details else []
    return [
        {"cntrg_id": cntrg_id, "amount": msgspec.Raw(_som(amount).encode())}
        for cntrg_id, amount in kept or parts(config, request.amount.minor)
    ]


def _som(tiyin: int) -> str:
    return Money(tiyin, "UZS").decimal().removesuffix(".00")


# --- reading ------------------------------------------------------------------------------------------------


def read(config: Config, body: bytes) -> Call:
    """One signed request: -8, -3, -1, then -5 and -2 for its `params`. Raises a `Refusal`."""
    fields = _object(body)
    action = _int(fields, "action")
    served = (PREPARE, COMPLETE) if config.protocol == "split" else (PREPARE, COMPLETE, CHECK)
    if action not in served:
        raise UnknownMethod("Action not found")
    paydoc_id, attempt_id = _int(fields, "click_paydoc_id"), _int(fields, "attempt_trans_id")
    service, params = _int(fields, "service_id"), _params(fields)
    signed_at, sign = shop.sign_moment(_text(fields, "sign_time")), _text(fields, "sign_string")
    before = f"{paydoc_id}{attempt_id}{service}"
    after = "".join(params.values()) + f"{action}{fields['sign_time']}"
    if not shop.same(sign, shop.signatures(config.keys, before, after)):
        raise Unauthenticated("SIGN CHECK FAILED!")
    if str(service) != config.service:
        raise Unreadable("service_id is not the one of this account")
    reference = params.get(config.account_param, "")
    if not reference or "amount" not in params:
        raise Unreadable(f"params lack {config.account_param} or amount")
    return Call(
        action=action,
        paydoc_id=paydoc_id,
        attempt_id=attempt_id,
        reference=str(reference),
        amount=shop.amount(str(params["amount"])),
        prepare_id=_prepare_id(fields.get("merchant_prepare_id")),
        signed_at=signed_at,
    )


def _object(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_BODY_BYTES:
        raise Unreadable("the request is too large")
    try:
        found = json.loads(
            body.decode("utf-8"),
            parse_int=Number,
            parse_float=Number,
            parse_constant=_refuse,
            object_pairs_hook=_once,
        )
    except (ValueError, RecursionError):
        raise Unreadable("the request is not JSON as Click sends it") from None
    if not isinstance(found, dict):
        raise Unreadable("the request is not an object")
    return found


def _refuse(text: str) -> None:
    raise ValueError(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member stands twice")
    return found


def _int(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    if not isinstance(value, Number) or not (_DIGITS.fullmatch(value) or (name == "action" and value == "0")):
        raise Unreadable(f"{name} is missing or malformed")
    if int(value) > shop.MAX_BIGINT:
        raise Unreadable(f"{name} is malformed")
    return int(value)


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or isinstance(value, Number) or not 0 < len(value) <= 64:
        raise Unreadable(f"{name} is missing or malformed")
    return value


def _params(fields: dict[str, Any]) -> dict[str, str]:
    """Texts and numbers only: how Click would sign anything else is not described."""
    params = fields.get("params")
    if not isinstance(params, dict) or not 0 < len(params) <= MAX_PARAMS:
        raise Unreadable("params is missing or malformed")
    for value in params.values():
        if not isinstance(value, str) or len(value) > MAX_VALUE_CHARS or not value.isprintable():
            raise Unreadable("a value of params is no text and no number")
    return params


def _prepare_id(value: Any) -> int | None:
    """A number or its digits: Click's table says varchar, its examples show numbers."""
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not _DIGITS.fullmatch(value):
        raise Unreadable("merchant_prepare_id is malformed")
    return int(value)


def _json(body: dict[str, Any]) -> Reply:
    return Reply(200, msgspec.json.encode(body), "application/json; charset=utf-8")
