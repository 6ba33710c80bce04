"""AtomPay (NTT DATA Payment Services India): token and checkout, callback and return, requery, refunds.

A message is believed when its signature, its merchant and its arithmetic hold; when one of them is missing it
is a hint to requery; when one is wrong it is refused. Amount and currency are told as they came, so that
money that does not match its order is held and never fulfilled.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

from tillgate.domain.dialogue import Hint, Noise, Record, Tell
from tillgate.domain.errors import (
    Declined,
    Refusal,
    TillgateError,
    Unauthenticated,
    UnknownMethod,
    Unreadable,
    Unsure,
)
from tillgate.domain.money import Money
from tillgate.domain.payment import (
    Accepted,
    Attempt,
    Closed,
    Fact,
    Paid,
    RefundAccepted,
    RefundAnswerLost,
    RefundFact,
    RefundFailed,
    RefundSucceeded,
    Reversed,
)
from tillgate.providers.atompay_in import (
    checkout,
    codes,
    envelope,
    front,
    messages,
    schedule,
    settlement,
    signing,
    wire,
)
from tillgate.providers.atompay_in.codes import Outcome, explain, outcome
from tillgate.providers.atompay_in.config import (
    Config,
    checked,
    request_key,
    response_hash_keys,
    response_keys,
    urls,
)
from tillgate.providers.atompay_in.messages import Report
from tillgate.spi import (
    Heard,
    HttpCall,
    HttpReply,
    Inbound,
    Order,
    RefundOrder,
    RefundRules,
    Reply,
    Send,
    Served,
    Show,
    Started,
    StatementLine,
    Wanted,
)

MAX_BODY: Final = envelope.MAX_HEX + 4_096
_UNIFORM: Final = "The message cannot be accepted."
_LATE_MS: Final = 3_600_000
_DONE: Final = frozenset({"PROCESSED", "SUCCESS", "SUCCESSFUL", "COMPLETED", "REFUNDED"})
_REFUSED: Final = frozenset({"FAILED", "REJECTED"})


class AtomPay:
    """One merchant account at AtomPay."""

    def __init__(self, config: Config) -> None:
        self._config = checked(config)
        self._urls = urls(config)
        self._request_key = request_key(config)

    def statement_file(self, data: bytes) -> list[StatementLine]:
        """The legacy settlement report. Raises `InvalidRequest`."""
        return settlement.statement(data, self._config.merch_id)

    # --- starting -------------------------------------------------------------------------------------------

    async def start(self, order: Order, send: Send) -> Started:
        """AUTH, then a page that opens the checkout. Raises `Declined`, `Unreachable` or `Unsure`.

        `Show.account` carries what the AtomPay document's `/atompay` answers, for pages and apps of the
        merchant's own.
        """
        if not (base := order.notify_url or self._config.return_url):
            raise Declined("AtomPay needs an address to return to: set the hub's public URL")
        email, mobile, _ = messages.customer(order, self._config)
        reply = await self._call(self._urls.auth, messages.auth(order, self._config), send)
        code, token = messages.status_code(reply), wire.text(wire.part(reply, "atomTokenId"))
        if code != "OTS0000":
            raise Declined(f"AtomPay gave no token: {explain(code)}")
        if not token:
            raise Unsure("AtomPay said success and gave no token")
        back = {"op": order.operation_id, "to": order.return_url or ""}
        options = {
            "atomTokenId": token,
            "merchId": self._config.merch_id,
            "custEmail": email,
            "custMobile": mobile,
            "returnUrl": checkout.link(
                self._config.return_url or base, checkout.BACK, back, self._config.resp_hash_key
            ),
        }
        amount = wire.rupees(order.amount.minor)
        data = {"options": options, "amount": amount, "until": order.expires_at}
        url = checkout.link(base, checkout.PAY, data, self._config.resp_hash_key)
        account = {**options, "amount": amount, "merchTxnId": order.operation_id}
        # No external id yet: refunds need the transaction's (11000…), and this is the token's (15000…).
        return Started(None, Show("redirect", url=url, account=account))

    # --- hearing --------------------------------------------------------------------------------------------

    def hear(self, call: Inbound) -> Heard:
        """A callback, a return, or a payer's GET of the checkout page. Raises a `Refusal`."""
        keys = response_hash_keys(self._config, call.received_at)
        if call.method == "GET":
            data = checkout.contents(call.query, checkout.PAY, keys)
            if data is None:
                raise UnknownMethod()
            return Heard(Noise("the checkout page was opened"), data)
        if call.method != "POST":
            raise UnknownMethod()
        back = checkout.contents(call.query, checkout.BACK, keys)
        operation_id = str(back["op"]) if back else None
        form = _form(call.body)
        sealed = form.get("encData", "")
        if sealed in codes.WORDS:  # the payer left or was too slow: nobody signed that
            if operation_id is None:
                return Heard(Noise(sealed))
            return Heard(Hint(operation_id=operation_id))
        if form.get("merchId", self._config.merch_id) != self._config.merch_id:
            raise Unauthenticated(_UNIFORM)
        try:
            message, key = envelope.unseal(sealed, response_keys(self._config, call.received_at))
            found = messages.reports(message)
            return Heard(self._judge(found, keys), {"key": key.label})
        except ValueError:  # one answer for every cause, so that nobody can feel their way in
            raise Unauthenticated(_UNIFORM) from None

    def _judge(self, found: Sequence[Report], keys: Sequence[str]) -> Tell | Hint:
        """Raises `ValueError` for what cannot be genuine."""
        report = found[0]
        if report.merch_id != self._config.merch_id or not report.merch_txn_id:
            raise ValueError("another merchant's")
        hint = Hint(operation_id=report.merch_txn_id)
        parts = messages.signed_parts(report)
        if report.signature in (None, "") or parts is None or len(found) > 1:
            return hint
        if not signing.genuine(report.signature, keys, *parts):
            if report.sub_channel and report.bank_txn_id:
                raise ValueError("forged")
            return hint  # nobody published what is signed in their absence
        meaning = outcome(report.status)
        if meaning in (Outcome.NO_DATA, Outcome.OUR_REQUEST, Outcome.UNKNOWN):
            return hint
        if not report.adds_up or not report.currency or not report.atom_txn_id:
            return hint
        if meaning is Outcome.PAID and report.sub_channel == codes.CHALLAN:
            return hint  # a challan is "successful" when it is printed, long before it is paid
        facts = _facts([report])
        return Tell(
            facts,
            operation_id=report.merch_txn_id,
            event_id=_event_id(report),
            details=messages.details([report]),
        )

    def answer(self, call: Inbound, heard: Heard | None, outcome: Record | Refusal | None) -> Reply:
        """303 to the merchant's page for a browser, 200 "OK" for the gateway, else a line of text."""
        keys = response_hash_keys(self._config, call.received_at)
        if heard is not None and call.method == "GET":
            return self._page(heard.echo, call.received_at)
        if call.method == "GET" or isinstance(outcome, UnknownMethod):
            return Reply(404, b"Not found", "text/plain")
        if isinstance(outcome, Refusal) and outcome.status >= 500:
            return Reply(503, b"Try again later", "text/plain", {"retry-after": "30"})
        back = checkout.contents(call.query, checkout.BACK, keys)
        if back is not None:
            if back["to"]:
                return checkout.back(str(back["to"]))  # that page shows the state; it is not told one
            return checkout.notice(200, "Thank you. The shop is checking your payment.")
        if isinstance(outcome, (Unauthenticated, Unreadable)):
            return Reply(400, _UNIFORM.encode(), "text/plain")
        return Reply(200, b"OK", "text/plain")

    def _page(self, data: Mapping[str, Any], now_ms: int) -> Reply:
        if now_ms >= int(data["until"]):
            return checkout.notice(
                410, "The time to pay is over. Please go back to the shop and order again."
            )
        return checkout.page(
            data["options"],
            amount=str(data["amount"]),
            script_url=self._urls.script,
            production=self._config.env == "production",
        )

    # --- serving --------------------------------------------------------------------------------------------

    def wanted(self, call: Inbound, trusted: bool) -> Wanted:
        """`POST /atompay`. Raises a `Refusal`."""
        return front.wanted(call, trusted, self._config)

    def served(self, call: Inbound, outcome: Served | TillgateError) -> Reply:
        return front.served(outcome)

    def kept(self, order: Order, said: Mapping[str, Any]) -> Mapping[str, Any]:
        """The Payment record of the AtomPay document: who and what from the stored order, which is signed by
        its own merchant; the two ids and the state from the gateway."""
        return {**messages.ordered(order, self._config), **said}

    # --- looking --------------------------------------------------------------------------------------------

    def next_look(self, attempt: Attempt, now: int) -> int | None:
        """3, 10, 30 min, 2 h, 12 h, T+1, T+2 while it is not paid; T+1 and T+2 once it is."""
        if attempt.paid_minor:
            gone = attempt.reversed_minor >= attempt.paid_minor
            since = attempt.paid_at or attempt.created_at
            return None if gone else schedule.next_look(since, now, paid=True)
        return schedule.next_look(attempt.created_at, now)

    async def look(self, order: Order, send: Send) -> Tell | None:
        """Requery by transaction, amount and Indian date.

        None: there is no such transaction, and no payer was ever shown its token.
        Raises `Declined` where the gateway refuses the question, `Unsure` where its reply cannot be read.
        """
        found: list[Report] = []
        for day in wire.days(order.created_at, order.expires_at + _LATE_MS):
            found += await self._requery(order, day, send)
            if _successes(found):
                break  # else a try before midnight must not hide the success behind it
        if found:
            facts = _facts(found, order.amount)
            return Tell(facts, operation_id=order.operation_id, details=messages.details(found))
        # No data is no failure: the payer may hold the token and not have begun.
        return Tell((), operation_id=order.operation_id) if order.show else None

    async def _requery(self, order: Order, day: str, send: Send) -> list[Report]:
        reply = await self._call(self._urls.status, messages.requery(order, day, self._config), send)
        try:
            found = messages.reports(reply) if wire.part(reply, "payInstrument") is not None else ()
        except ValueError:
            raise Unsure("AtomPay's requery reply cannot be read") from None
        ours = [
            report
            for report in found
            if report.merch_txn_id == order.operation_id and report.merch_id in ("", self._config.merch_id)
        ]
        known = [report for report in ours if outcome(report.status) not in _NO_ANSWER]
        if known:
            return known
        code = ours[0].status if ours else messages.status_code(reply)
        if outcome(code) is Outcome.NO_DATA:
            return []
        if code == codes.NOT_YET and day > wire.day(order.created_at).isoformat():
            return []
        if outcome(code) is Outcome.OUR_REQUEST:
            raise Declined(f"AtomPay refused the requery: {explain(code)}")
        raise Unsure(f"AtomPay's requery gave no state: {explain(code)}")

    # --- refunding ------------------------------------------------------------------------------------------

    def refund_rules(self, channel: str) -> RefundRules:
        return RefundRules(partial=True, parallel=True)

    async def refund(self, refund: RefundOrder, send: Send) -> Tell:
        """REFUNDINIT: accepted is not yet given back. Raises `Declined`, `Unreachable` or `Unsure`."""
        if not refund.payment.external_id:
            raise Declined("AtomPay's transaction id is not known: look at the payment first")
        lines = messages.refund_lines(refund, self._config)
        reply = await self._call(self._urls.refund, messages.refund(refund, lines, self._config), send)
        code = messages.status_code(reply)
        if outcome(code) is not Outcome.PAID:
            if outcome(code) in (Outcome.UNKNOWN, Outcome.PENDING):
                raise Unsure(f"AtomPay's refund reply: {explain(code)}")
            raise Declined(f"AtomPay refused the refund: {explain(code)}")
        listed = wire.part(reply, "payInstrument", "payDetails", "prodDetails")
        stated = {
            wire.text(wire.part(item, "prodRefundId")): item
            for item in listed or ()
            if isinstance(item, dict)
        }
        taken = [
            line
            for line in lines
            if outcome(wire.text(wire.part(stated.get(line.id), "prodStatusCode"))) is Outcome.PAID
        ]
        if not taken and all(line.id in stated for line in lines):
            first = wire.text(wire.part(stated[lines[0].id], "prodStatusCode"))
            raise Declined(f"AtomPay refused the refund: {explain(first)}")
        if len(taken) < len(lines):  # an overall success may hide a failed line
            raise Unsure("AtomPay took a part of the refund's products")
        refund_id = wire.text(wire.part(stated[lines[0].id], "refundTxnId"))
        return Tell((RefundAccepted(refund_id or None),), operation_id=refund.operation_id)

    async def look_refund(self, refund: RefundOrder, send: Send) -> Tell | None:
        """REFUNDSTATUS; there is no refund callback. None: the gateway lists no such refund."""
        lines = messages.refund_lines(refund, self._config)
        message = messages.refund_status(refund, lines, self._config)
        reply = await self._call(self._urls.refund_status, message, send)
        items = {wire.text(wire.part(item, "prodRefundId")): item for item in messages.refund_items(reply)}
        found = [items[line.id] for line in lines if line.id in items]
        if not found:
            code = messages.status_code(reply)
            if outcome(code) in (Outcome.PAID, Outcome.NO_DATA):
                return None
            if outcome(code) is Outcome.OUR_REQUEST:
                raise Declined(f"AtomPay refused the refund status: {explain(code)}")
            raise Unsure(f"AtomPay's refund status gave no state: {explain(code)}")
        return Tell((_refund_fact(found, len(lines)),), operation_id=refund.operation_id)

    # --- calling --------------------------------------------------------------------------------------------

    async def _call(self, url: str, message: Mapping[str, Any], send: Send) -> Any:
        """One sealed call; its opened reply, or the plain JSON of an error. Raises `Declined`, `Unsure`."""
        config = self._config
        body = {"encData": envelope.seal(wire.dumps(message), self._request_key), "merchId": config.merch_id}
        headers = {"content-type": "application/x-www-form-urlencoded"}
        if "/otsv2/" in url:
            token = base64.b64encode(f"{config.merch_id}:{config.api_secret}".encode()).decode()
            headers["authorization"] = f"Bearer {token}"
        call = HttpCall("POST", url, headers, urlencode(body).encode(), config.timeout_s)
        return self._opened(await send(call))

    def _opened(self, reply: HttpReply) -> Any:
        """Whatever the Content-Type says: form or JSON, sealed or plain."""
        if reply.status == 200 and not reply.body.strip():
            raise Declined(
                "AtomPay could not read our request (empty reply): check the request key and product"
            )
        try:
            form = _form(reply.body)
        except Unreadable:
            form = {}
        if sealed := form.get("encData"):
            try:
                return envelope.unseal(sealed, response_keys(self._config))[0]
            except envelope.Sealed:
                raise Unsure("AtomPay's reply cannot be decrypted: check the response key") from None
        if code := form.get("txnStatusCode"):
            return {"txnStatusCode": code}
        if 400 <= reply.status < 500:
            raise Declined(f"AtomPay refused the call: HTTP {reply.status}")
        raise Unsure(f"AtomPay's reply cannot be read: HTTP {reply.status}")


_NO_ANSWER: Final = (Outcome.NO_DATA, Outcome.OUR_REQUEST, Outcome.UNKNOWN)


def _facts(found: Sequence[Report], due: Money | None = None) -> tuple[Fact, ...]:
    """What the transactions of one attempt say together, the money first.

    Several successes of one attempt are a double payment: their sum is told, and the domain holds it.
    """

    def of(meaning: Outcome) -> list[Report]:
        return [report for report in found if outcome(report.status) is meaning]

    if paid := _successes(found):
        return (_paid(paid, due),)
    if gone := of(Outcome.REVERSED):
        money = _paid(gone, due)
        return (money, Reversed(money.total_minor))
    if of(Outcome.PENDING) or of(Outcome.PAID):
        return (Accepted(),)
    return (Closed("failed", explain(of(Outcome.FAILED)[0].status)),)


def _successes(found: Sequence[Report]) -> list[Report]:
    """A challan is a success once a bank's reference says that it was paid, too."""
    paid = [report for report in found if outcome(report.status) is Outcome.PAID]
    return [report for report in paid if report.sub_channel != codes.CHALLAN or report.bank_txn_id]


def _paid(found: Sequence[Report], due: Money | None) -> Paid:
    """`amount`, never `totalAmount`: the surcharge on top is between payer and gateway."""
    each = {report.atom_txn_id: report for report in found}
    first = found[0]
    return Paid(
        sum(report.amount_minor or 0 for report in each.values()),
        first.currency or (due.currency if due else messages.CURRENCY),
        paid_with=codes.MODES.get(first.sub_channel) or first.sub_channel[:20] or None,
        external_id=first.atom_txn_id or None,
        at=first.at,
    )


def _event_id(report: Report) -> str:
    """Over all that is told: a replay with other unsigned fields must not hide the genuine message."""
    told = (report.atom_txn_id, report.merch_txn_id, report.status, report.amount_minor, report.currency)
    return hashlib.sha256(repr(told).encode()).hexdigest()[:32]


def _refund_fact(items: Sequence[Mapping[str, Any]], expected: int) -> RefundFact:
    """By the gateway's free-text remark, of which only REFUND INITIATED is documented. By the whole of it:
    "not processed" holds the word as well. What we do not know is pending."""
    remarks = [" ".join(wire.text(item.get("remarks")).upper().split()) for item in items]
    done = [remark.removeprefix("REFUND ") in _DONE for remark in remarks]
    refused = [remark.removeprefix("REFUND ") in _REFUSED for remark in remarks]
    if len(items) < expected or (any(refused) and not all(refused)):
        return RefundAnswerLost()  # a part of it stands otherwise than the rest: for an operator
    if all(refused):
        return RefundFailed(remarks[0][:100])
    refund_id = wire.text(items[0].get("refundTxnId")) or None
    return RefundSucceeded(refund_id) if all(done) else RefundAccepted(refund_id)


def _form(body: bytes) -> dict[str, str]:
    """`encData` and `merchId` out of a form or a JSON object, in any order. Raises `Unreadable`."""
    if len(body) > MAX_BODY:
        raise Unreadable(_UNIFORM)
    try:
        if body.lstrip()[:1] == b"{":
            message = wire.loads(body)
            return {name: wire.text(value) for name, value in message.items()}
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=50)
    except ValueError:
        raise Unreadable(_UNIFORM) from None
    if any(len(values) > 1 for values in fields.values()):
        raise Unreadable(_UNIFORM)
    return {name: values[0].strip() for name, values in fields.items()}
