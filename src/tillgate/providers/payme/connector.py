"""Payme Merchant API: Payme asks in JSON-RPC and waits for our answer. Pure: no socket, no clock, no store.

Sources: Payme Merchant API, "methods", "data types", "errors"; the official sandbox scenarios.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Final

import msgspec

from tillgate.domain import errors as e
from tillgate.domain.dialogue import (
    Ask,
    Cancel,
    Check,
    Look,
    Noise,
    Note,
    Record,
    Reserve,
    Settle,
    Statement,
)
from tillgate.domain.money import Money
from tillgate.domain.payment import Attempt, Payment, StandingOrder
from tillgate.domain.record import record, replace
from tillgate.providers.payme import accounts, links, rpc
from tillgate.providers.payme.config import Config, checked, networks
from tillgate.spi import Heard, Inbound, Order, Reply, Show

LIFETIME_MS: Final = 43_200_000
"""A transaction dies 12 hours after Payme made it, by Payme's own clock (CreateTransaction); where that clock
is ahead of ours, after it came: no date that somebody gives holds an order for longer."""

TIMEOUT_REASON, REFUND_REASON, UNKNOWN_REASON = 4, 5, 10
MAX_AMOUNT_TIYIN: Final = 10**15
MAX_ID_CHARS: Final = 64  # Payme's have 24

_METADATA: Final = {"additional": dict, "detail": dict, "receivers": list}
_shortest: Final = json.JSONEncoder(separators=(",", ":")).encode


@record
class Call:
    """What an answer must know of its request."""

    id: int
    method: str
    params: Mapping[str, Any] = field(repr=False)  # ChangePassword's hold a password


class Payme:
    """One cash desk. `Hears`, `Invites` and `Scrubs` of the provider interface."""

    max_body = rpc.MAX_BODY_BYTES  # more is refused in Payme's words: a status but 200 is our fault to it

    def __init__(self, config: Config, *, takes_passwords: bool = False) -> None:
        """`takes_passwords`: the caller stores what ChangePassword brings. Raises `Misconfigured`."""
        self._config = checked(config)
        self._doors = tuple(f"{config.login}:{key}".encode() for key in config.passwords)
        self._networks = networks(config.source_ips)
        self._takes_passwords = takes_passwords

    # --- hearing --------------------------------------------------------------------------------------------

    def hear(self, call: Inbound) -> Heard:
        """Address, verb and password first, then the message. Raises a `Refusal`."""
        if self._networks and not self._from_payme(call.peer):
            raise e.Unauthenticated("the address is not Payme's")
        if call.method != "POST":
            raise rpc.RpcError(rpc.NOT_POST)
        self._authenticate(call.headers.get("authorization", ""))
        message = rpc.read(call.body)
        rpc_id, method, params = rpc.request_id(message), message.get("method"), message.get("params")
        if not isinstance(method, str) or not isinstance(params, dict):
            raise rpc.RpcError(rpc.BAD_REQUEST)
        if method == "ChangePassword":
            return Heard(self._new_password(params), Call(rpc_id, method, params))
        ask = self._ask(method, params, call.received_at)
        return Heard(ask, Call(rpc_id, method, params))

    def _from_payme(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)

    def _authenticate(self, header: str) -> None:
        scheme, _, encoded = header.partition(" ")
        try:
            given = base64.b64decode(encoded.strip(), validate=True)
        except (binascii.Error, ValueError):
            given = b""
        # Every door is tried, so that the time taken tells nothing of which one it was.
        opened = [hmac.compare_digest(given, door) for door in self._doors]
        if scheme.lower() != "basic" or not any(opened):
            raise e.Unauthenticated()

    def _ask(self, method: str, params: dict[str, Any], now: int) -> Ask:
        match method:
            case "CheckPerformTransaction":
                return Check(self._reference(params), _amount(params))
            case "CreateTransaction":
                return self._reserve(params, now)
            case "PerformTransaction":
                return Settle(_id(params))
            case "CancelTransaction":
                return Cancel(_id(params), str(_reason(params)))
            case "CheckTransaction":
                return Look(_id(params))
            case "GetStatement":
                return Statement(_moment(params, "from"), _moment(params, "to"))
            case "SetFiscalData":
                return _fiscal(params)
        raise rpc.RpcError(rpc.NO_METHOD, method if method.isprintable() and len(method) <= 64 else None)

    def _reserve(self, params: dict[str, Any], now: int) -> Reserve:
        external_id, made_at = _id(params), params.get("time")
        if type(made_at) is not int or not 10**12 <= made_at < 10**13:
            raise rpc.RpcError(rpc.BAD_REQUEST, "time")
        reference = self._reference(params)
        details = _shortest({"account": accounts.kept(params["account"])})
        dies_at = min(made_at, now or made_at) + LIFETIME_MS  # a host's own code may not say when it came
        return Reserve(external_id, reference, _amount(params), made_at, dies_at, details)

    def _reference(self, params: dict[str, Any]) -> str:
        try:
            return accounts.reference(params.get("account"), self._config.account_fields)
        except accounts.BadAccount as bad:
            raise rpc.RpcError(rpc.NO_ACCOUNT, bad.field) from None

    def _new_password(self, params: dict[str, Any]) -> Noise:
        """Of Payme's older templates: refuse what is empty or no change (-32504)."""
        password = params.get("password")
        if not isinstance(password, str) or not password.strip():
            raise rpc.RpcError(rpc.NO_ACCOUNT, "password")
        current = self._config.passwords[0]
        if hmac.compare_digest(password.encode("utf-8", "replace"), current.encode()):
            raise e.Unauthenticated("the password is the one in use")
        if not self._takes_passwords:
            raise e.Unauthenticated("the key is changed in the settings, not by this call")
        return NewPassword("ChangePassword", password)

    def scrubbed(self, call: Inbound) -> Inbound:
        """Without the password of a ChangePassword, which is refused, yet may soon be the key."""
        return replace(call, body=rpc.scrubbed(call.body))

    # --- answering ------------------------------------------------------------------------------------------

    def answer(self, call: Inbound, heard: Heard | None, outcome: Record | e.Refusal | None) -> Reply:
        """Always HTTP 200; the same question in the same state is answered with the same bytes."""
        if heard is None:
            refusal = outcome if isinstance(outcome, e.Refusal) else e.TryLater()
            return self._refuse(rpc.id_of(call.body), "", refusal)
        echo: Call = heard.echo
        if isinstance(outcome, e.Refusal):
            return self._refuse(echo.id, echo.method, outcome)
        if outcome is None:
            return rpc.result(echo.id, {"success": True})
        return rpc.result(echo.id, result(echo.method, outcome))

    def _refuse(self, rpc_id: int | None, method: str, refusal: e.Refusal) -> Reply:
        codes = rpc.CHECK_REFUSALS if method == "CheckPerformTransaction" else rpc.REFUSALS
        code = rpc.code_for(refusal, codes)
        if method == "SetFiscalData" and code == rpc.NO_TRANSACTION:
            code = rpc.NO_RECEIPT
        data = refusal.data if isinstance(refusal, rpc.RpcError) else None
        if data is None and -31099 <= code <= -31050:
            data = self._config.account_fields[0]  # Payme shows the text beside this field
        return rpc.error(rpc_id, code, data)

    # --- inviting -------------------------------------------------------------------------------------------

    def invite(self, order: Order) -> Show | None:
        """A checkout link, the same as a QR, and the account that Payme will name. None for foreign money.

        Raises `InvalidRequest` for an order id or a return address that a link cannot carry.
        """
        if order.amount.currency != "UZS":
            return None
        try:
            account = accounts.account(order.order_id, self._config.account_fields)
            url = links.checkout_link(
                self._config.merchant_id,
                account,
                order.amount.minor,
                checkout_url=self._config.checkout,
                language=self._config.language,
                return_url=order.return_url.replace(";", "%3B") if order.return_url else None,
            )
        except (accounts.BadAccount, links.BadLink) as bad:
            raise e.InvalidRequest(f"Payme cannot be given this order: {bad}", param="order_id") from None
        return Show("redirect", qr_string=url, url=url, account=account)


class NewPassword(Noise):
    """ChangePassword with a password to store; its text is in no repr."""

    __slots__ = ("password",)

    def __init__(self, why: str, password: str) -> None:
        super().__init__(why)
        self.password = password


# --- what a record says in Payme's words --------------------------------------------------------------------


def result(method: str, record: Record) -> dict[str, Any]:
    """The `result` object of a method."""
    if method == "CheckPerformTransaction":
        extra = _payme_metadata(record.payment or record.standing)
        return {"allow": True} | {key: extra[key] for key in ("additional", "detail") if key in extra}
    if method == "GetStatement":
        rows = sorted(record.rows, key=lambda row: _attempt(row).provider_at or 0)
        return {"transactions": [_row(row) for row in rows]}
    if method == "SetFiscalData":
        return {"success": True}
    attempt = _attempt(record)
    match method:
        case "CreateTransaction":
            made = {"create_time": attempt.created_at, "transaction": attempt.id, "state": state(attempt)}
            receivers = _payme_metadata(record.payment).get("receivers")
            return made if receivers is None else {**made, "receivers": receivers}
        case "PerformTransaction":
            return {"transaction": attempt.id, "perform_time": attempt.paid_at or 0, "state": state(attempt)}
        case "CancelTransaction":
            return {"transaction": attempt.id, "cancel_time": attempt.closed_at or 0, "state": state(attempt)}
    return {
        "create_time": attempt.created_at,
        "perform_time": attempt.paid_at or 0,
        "cancel_time": attempt.closed_at or 0,
        "transaction": attempt.id,
        "state": state(attempt),
        "reason": reason(attempt),
    }


def state(attempt: Attempt) -> int:
    """1 created · 2 performed · -1 cancelled before · -2 given back after."""
    if attempt.phase == "closed":
        return -1
    if attempt.phase != "paid":
        return 1
    return -2 if attempt.refunded_minor >= attempt.paid_minor > 0 else 2


def reason(attempt: Attempt) -> int | None:
    """Payme's own number where Payme cancelled; 4 for our time-out, 5 for a refund, 10 for anything else."""
    if state(attempt) > 0:
        return None
    if attempt.reason is not None and attempt.reason.isascii() and attempt.reason.isdigit():
        return int(attempt.reason)
    if state(attempt) == -2:
        return REFUND_REASON
    return TIMEOUT_REASON if attempt.reason in ("timeout", "expired") else UNKNOWN_REASON


def _row(record: Record) -> dict[str, Any]:
    attempt = _attempt(record)
    return {
        "id": attempt.external_id,
        "time": attempt.provider_at,
        "amount": attempt.amount_minor,
        "account": _account(attempt),
        "create_time": attempt.created_at,
        "perform_time": attempt.paid_at or 0,
        "cancel_time": attempt.closed_at or 0,
        "transaction": attempt.id,
        "state": state(attempt),
        "reason": reason(attempt),
        "receivers": _payme_metadata(record.payment).get("receivers"),
    }


def _attempt(record: Record) -> Attempt:
    assert record.attempt is not None, "only a Check is answered without a transaction"
    return record.attempt


def _account(attempt: Attempt) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(attempt.details or "{}").get("account", {})
    return found


def _payme_metadata(order: Payment | StandingOrder | None) -> dict[str, Any]:
    """`metadata.payme` of the order: `detail`, `additional`, `receivers`, as far as Payme can read them."""
    if order is None or not order.metadata:
        return {}
    found = json.loads(order.metadata).get("payme")
    if not isinstance(found, dict):
        return {}
    return {name: found[name] for name, kind in _METADATA.items() if isinstance(found.get(name), kind)}


# --- parameters ---------------------------------------------------------------------------------------------


def _id(params: dict[str, Any]) -> str:
    found = params.get("id")
    if not isinstance(found, str) or not 0 < len(found) <= MAX_ID_CHARS or not _visible(found):
        raise rpc.RpcError(rpc.BAD_REQUEST, "id")
    return found


def _visible(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _amount(params: dict[str, Any]) -> Money:
    """A positive whole number of tiyin; true, "100", 1.5 and 1e5 are none."""
    found = params.get("amount")
    if type(found) is not int or not 0 < found <= MAX_AMOUNT_TIYIN:
        raise e.WrongAmount()
    return Money(found, "UZS")


def _reason(params: dict[str, Any]) -> int:
    found = params.get("reason")
    if type(found) is not int or not 0 <= found < 1000:
        raise rpc.RpcError(rpc.BAD_REQUEST, "reason")
    return found


def _moment(params: dict[str, Any], name: str) -> int:
    """Payme's own template answers -31050 with the name for a missing bound; a far one is the end of time."""
    found = params.get(name)
    if type(found) is not int:
        raise rpc.RpcError(rpc.NO_ACCOUNT, name)
    return min(max(found, 0), rpc.MAX_INT)


def _fiscal(params: dict[str, Any]) -> Note:
    kind, data = params.get("type"), params.get("fiscal_data")
    if kind not in ("PERFORM", "CANCEL") or not isinstance(data, dict) or not data:
        raise rpc.RpcError(rpc.BAD_PARAMS)
    try:
        external_id = _id(params)
    except rpc.RpcError:
        raise rpc.RpcError(rpc.BAD_PARAMS) from None
    value = _shortest(data)
    try:
        msgspec.json.decode(value)  # it is stored word for word, and read from then on by whoever reads that
    except msgspec.DecodeError:
        raise rpc.RpcError(rpc.BAD_PARAMS) from None
    return Note(external_id, f"fiscal.{kind.lower()}", value)
