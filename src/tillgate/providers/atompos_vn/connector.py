"""ATOM POS (Vietnam): a payment is pushed to a terminal on the LAN, which later tells of it by an IPN.

An IPN has no status: it can only mean "paid". A failure or a time-out at the terminal is silence, so a push
whose answer is lost stays `unsure` until an IPN or a person says more; it is never pushed again blindly.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from tillgate.domain.dialogue import Hint, Noise, Record, Tell
from tillgate.domain.errors import Declined, Refusal, TillgateError, Unreachable, Unsure
from tillgate.domain.payment import Paid
from tillgate.domain.record import replace
from tillgate.providers.atompos_vn import cards, contract, requests, terminal
from tillgate.providers.atompos_vn.config import PRIVATE, Config, checked, networks, within
from tillgate.providers.atompos_vn.contract import (
    BadCredential,
    Ipn,
    MissingFields,
    NoCredential,
    Notification,
    NotPermitted,
    TooLarge,
    WrongMethod,
    WrongType,
)
from tillgate.providers.atompos_vn.logins import Logins
from tillgate.providers.atompos_vn.tokens import Tokens
from tillgate.spi import (
    Heard,
    HttpCall,
    Inbound,
    Once,
    Order,
    Reply,
    Send,
    Served,
    Show,
    Started,
    Wanted,
)

AUTHORIZE: Final = "/authorize"


@dataclass(frozen=True, slots=True)
class Granted:
    """A login at `/authorize` that succeeded."""

    token: str
    lifetime_s: int


class AtomPos:
    """One partner and its terminal."""

    max_body = contract.MAX_BODY

    def __init__(self, config: Config) -> None:
        self._config = checked(config)
        self._allowed = networks(config.allow_ips) or (PRIVATE if config.auth == "none" else ())
        self._logins = Logins()
        self._tokens: Tokens | None = None
        if config.auth == "jwt":
            self._tokens = Tokens(
                config.jwt_secret,
                config.jwt_algorithm,
                previous=config.previous_jwt_secret,
                audience=config.jwt_audience,
                issuer=config.jwt_issuer,
                lifetime_s=config.token_ttl_s,
            )

    # --- pushing --------------------------------------------------------------------------------------------

    async def start(self, order: Order, send: Send) -> Started:
        """Show the amount on the terminal. Raises `Declined` (safe to repeat) or `Unsure`.

        `metadata.requestId` and `orderId` are the merchant's own ids for it, `metadata.tip` a tip in dong,
        `metadata.extraData` texts for the terminal. No error carries the terminal's URL: it holds the code.
        """
        config = self._config
        if not config.pos_url:
            raise Declined("this account has no terminal: set pos_url and verify_code")
        if not order.notify_url:
            raise Declined("the terminal needs an address to report to: set the hub's public URL")
        if order.amount.currency != contract.CURRENCY:
            raise Declined("ATOM POS takes VND only")
        try:
            asked = requests.payment_request(
                {
                    "requestId": order.metadata.get("requestId") or order.operation_id,
                    "orderId": order.metadata.get("orderId") or order.order_id,
                    "amount": order.amount.minor,
                    "tip": order.metadata.get("tip", 0),
                    "extraData": order.metadata.get("extraData"),
                }
            )
        except (MissingFields, WrongType):
            raise Declined("metadata.requestId, tip or extraData is not what a terminal takes") from None
        message = {
            "direct": 1,
            "requestID": asked.request_id,
            "orderId": asked.order_id,
            "requestType": "SALE",
            "ipnUrl": order.notify_url,
            "amount": asked.amount_minor,
            "tip": asked.tip_minor,
        }
        if asked.extra:
            message["extraData"] = [{name: text} for name, text in asked.extra.items()]
        url = f"{config.pos_url.rstrip('/')}/?verify_code={config.verify_code}"
        headers = {"content-type": "application/json"}
        call = HttpCall("POST", url, headers, msgspec.json.encode(message), config.pos_timeout_s)
        try:
            reply = await send(call)
        except Unreachable:  # and no other terminal instead: the payer stands before this one
            raise Declined("the terminal cannot be reached: nothing was shown") from None
        except Unsure:
            raise Unsure("the terminal did not answer: the payer may have the amount before them") from None
        if reply.status >= 500:
            raise Unsure(f"the terminal answered {reply.status}: the payer may have the amount before them")
        if not 200 <= reply.status < 300:
            raise Declined(f"the terminal refused the request: HTTP {reply.status}")
        return Started(asked.request_id, Show("terminal"))

    def named(self, order: Order) -> str | None:
        """The merchant's own requestId: an IPN knows the sale by no other name."""
        name = order.metadata.get("requestId")
        return name if isinstance(name, str) and name else None

    # --- hearing --------------------------------------------------------------------------------------------

    def hear(self, call: Inbound) -> Heard:
        """An IPN, an older notification or a login, in the contract's order of checks. Raises a `Refusal`."""
        if call.path.startswith("/ipn/") and call.path.rstrip("/") != "/ipn":
            raise contract.UnknownPath
        if call.method != "POST":
            raise WrongMethod
        if call.path.rstrip("/").endswith(AUTHORIZE):
            return self._authorize(call)
        self._authenticate(call)
        if len(call.body) > contract.MAX_BODY:
            raise TooLarge
        message = contract.read_object(call.body)
        if contract.is_notification(message):
            return self._notified(contract.notification(message))
        ipn = contract.ipn(message)
        return Heard(self._paid(ipn), ipn, Once(ipn.requestId, ipn.digest, ipn.orderId))

    def _authenticate(self, call: Inbound, scope: str = "ipn") -> None:
        config = self._config
        if self._allowed and not within(call.peer, self._allowed):
            raise NotPermitted
        if self._tokens is not None:
            scheme, _, token = call.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer":
                raise NoCredential
            self._tokens.verify(token.strip(), call.received_at / 1000).allow(scope)
        elif config.auth == "header":
            name = config.header_name.lower() if config.header_value else "authorization"
            given = call.headers.get(name)
            if given is None:
                raise NoCredential
            if not _same(given, config.header_value or _basic_of(config.user, config.password)):
                raise BadCredential
        elif config.auth == "path" and not call.path.startswith("/in/"):
            raise NotPermitted  # the documented address is guessable; the account's own is not

    def _authorize(self, call: Inbound) -> Heard:
        """`/authorize`: user and password, in the body or as HTTP Basic, for a token."""
        if self._allowed and not within(call.peer, self._allowed):
            raise NotPermitted
        if self._tokens is None:
            raise contract.UnknownPath
        basic = call.headers.get("authorization", "")
        if basic[:6].lower() == "basic ":
            user, password = _basic(basic[6:])
        else:
            user, password = requests.login(contract.read_object(call.body))
        config = self._config
        self._logins.allow(call.peer, user, call.received_at)
        # Both compared, whichever is wrong: an unknown user takes as long as a wrong password.
        right = _same(user, config.user) & _same(password, config.password)
        if not right or not config.user:
            self._logins.failed(call.peer, user, call.received_at)
            raise BadCredential
        token = self._tokens.issue(user, call.received_at / 1000)
        return Heard(Noise("a token was issued"), Granted(token, self._tokens.lifetime_s))

    def _paid(self, ipn: Ipn) -> Tell:
        fact = Paid(
            ipn.amount_minor,
            contract.CURRENCY,
            tip_minor=ipn.tip_minor,
            paid_with=contract.kind_of_payment(ipn.paymentType),
            external_id=ipn.requestId,
        )
        return Tell(
            (fact,),
            operation_id=ipn.requestId,
            external_id=ipn.requestId,
            event_id=_event_id("ipn", ipn.requestId),
            details=msgspec.json.encode({"ipn": ipn.model_dump()}).decode(),
            references=(ipn.requestId,)
            if self._config.require_known_request
            else (ipn.requestId, ipn.orderId),
        )

    def _notified(self, old: Notification) -> Heard:
        """Paid only where the partner's mapping says so; the rest is for a person to find out."""
        if old.response_code not in self._config.paid_codes:
            return Heard(Hint(operation_id=old.request_id, external_id=old.request_id))
        if not old.amount_minor:
            raise WrongType
        paid = Paid(
            old.amount_minor, contract.CURRENCY, tip_minor=old.tip_minor, external_id=old.transaction_id
        )
        tell = Tell(
            (paid,),
            operation_id=old.request_id,
            external_id=old.request_id,
            event_id=_event_id("old", old.request_id, old.transaction_id),
        )
        return Heard(tell, old)

    def differences(self, order: Order, tell: Tell) -> Mapping[str, Any]:
        """What an IPN says otherwise than the request that it answers; a card number is in neither."""
        told = msgspec.json.decode(tell.details or "{}").get("ipn", {})
        meta = order.metadata
        asked = {
            "requestId": str(meta.get("requestId") or order.operation_id),
            "orderId": str(meta.get("orderId") or order.order_id),
            "amount": str(order.amount.minor),
            "tip": str(meta["tip"]) if "tip" in meta else None,
        }
        return {
            name: {"asked": wish, "told": told[name]}
            for name, wish in asked.items()
            if wish is not None and name in told and told[name].removesuffix(".00").removesuffix(".0") != wish
        }

    def scrubbed(self, call: Inbound) -> Inbound:
        """No password of a login, no whole card number."""
        login = call.path.rstrip("/").endswith(AUTHORIZE)
        return replace(call, body=b"" if login else cards.scrubbed(call.body))

    def handed(self, body: bytes) -> Ipn:
        """What `process_ipn` is given: the eight fields, their text as sent."""
        return contract.read_ipn(body)

    # --- serving --------------------------------------------------------------------------------------------

    def wanted(self, call: Inbound, trusted: bool) -> Wanted:
        """`POST /payment-terminal`, in the order of checks of an IPN. Raises a `Refusal`."""
        if call.method != "POST":
            raise WrongMethod
        if not trusted:
            if self._config.auth == "path":
                raise NoCredential  # that address is guessable; a merchant has tokens of its own
            self._authenticate(call, "payment")
        return terminal.wanted(contract.read_object(call.body))

    def served(self, call: Inbound, outcome: Served | TillgateError) -> Reply:
        """Two texts of JSON: 200 the terminal has it, 202 it is being told, 07 not so or not known."""
        code, status = terminal.code(outcome)
        return self._coded(code, status)

    # --- answering ------------------------------------------------------------------------------------------

    def answer(self, call: Inbound, heard: Heard | None, outcome: Record | Refusal | None) -> Reply:
        """Two texts of JSON always; a token's three more. 200 means: stored, do not repeat."""
        if isinstance(outcome, Refusal):
            return self._refused(outcome)
        if heard is not None and isinstance(heard.echo, Granted):
            body = {
                "code": contract.SUCCESS,
                "message": contract.MESSAGES[contract.SUCCESS],
                "access_token": heard.echo.token,
                "token_type": "Bearer",
                "expires_in": heard.echo.lifetime_s,
            }
            return Reply(200, msgspec.json.encode(body), headers={"cache-control": "no-store"})
        return Reply(200, contract.reply(contract.SUCCESS))

    def _refused(self, refusal: Refusal) -> Reply:
        code, status = contract.worded(refusal)
        if self._config.ack_permanent_errors and code in ("03", "04"):
            status = 200
        return self._coded(code, status)

    def _coded(self, code: str, status: int) -> Reply:
        headers = {}
        if status == 401:
            headers["www-authenticate"] = "Bearer"
        if status == 405:
            headers["allow"] = "POST"
        if status in (429, 500, 503):
            headers["retry-after"] = "60" if status == 429 else "5"
        return Reply(status, contract.reply(code), headers=headers)


def _event_id(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _same(given: str, kept: str) -> bool:
    return hmac.compare_digest(
        hashlib.sha256(given.encode("utf-8", "surrogatepass")).digest(),
        hashlib.sha256(kept.encode()).digest(),
    )


def _basic_of(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _basic(text: str) -> tuple[str, str]:
    try:
        user, found, password = base64.b64decode(text.strip(), validate=True).decode().partition(":")
    except ValueError:
        raise BadCredential from None
    if not found:
        raise BadCredential
    return user, password
