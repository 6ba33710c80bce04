"""The kiosk's way to its hub: it enrols once, fetches orders and reports. Only the kiosk ever calls.

An order is written down under its txn_id before the hub is asked for it, taken before a terminal is asked,
and written down as a payment before the bytes leave: so an answer that is lost anywhere is asked for again,
and a terminal is asked once. Reports go by the journal's feed of changes and a cursor that moves when the hub
has answered: so they wait while it is away, and a repeat moves nothing there.
"""

import asyncio
import hashlib
import random
import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from tillgate import schemas_kiosk as shapes
from tillgate.providers.mobypay import journal_rows as rows
from tillgate.providers.mobypay.config import is_loopback
from tillgate.providers.mobypay.errors import (
    BadRequest,
    HubAway,
    JournalUnavailable,
    KioskRefusal,
    NotEnrolled,
    NoTerminal,
    OrderGone,
    OrderOver,
    TerminalBusy,
    UnknownPayment,
    UnknownTerminal,
)
from tillgate.providers.mobypay.journal import Change
from tillgate.providers.mobypay.journal_rows import HubEntry
from tillgate.providers.mobypay.kiosk import LONGEST_REFERENCE, HubOrder, Kiosk, new_txn_id
from tillgate.providers.mobypay.lifecycle import IN_FLIGHT, UNSETTLED, Alert, Payment, State
from tillgate.providers.mobypay.messages import PaymentMode
from tillgate.providers.mobypay.reports import report_of
from tillgate.providers.mobypay.server import KioskServer
from tillgate.providers.mobypay.steps import Notice
from tillgate.providers.mobypay.vault import Vault

CALL_S: Final = 10.0
"""An answer to `take` that is older than this is not acted on."""
WAIT_S: Final = 20
RETRY_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0)
REFUSED_S: Final = 30.0
TRY_TERMINALS_S: Final = 0.5
LARGEST_ANSWER: Final = 1024 * 1024
SEALED_AS: Final = ":hub"

T = TypeVar("T")


class _Rejected(Exception):
    """The hub will not take this request, however often it is sent."""


class Hub:
    """The hub's side of the conversation, over HTTP."""

    def __init__(self, url: str, bearer: str | None):
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        self._http: aiohttp.ClientSession | None = None

    async def call(self, path: str, body: object, answer: type[T], timeout_s: float = CALL_S) -> T:
        """Raises HubAway, NotEnrolled, or _Rejected for what it does not take."""
        if self._http is None:
            self._http = aiohttp.ClientSession(headers=self._headers)
        try:
            async with self._http.post(
                self._url + path,
                data=msgspec.json.encode(body),
                headers={"Content-Type": "application/json"},
                timeout=aiohttp.ClientTimeout(total=timeout_s),
                allow_redirects=False,
            ) as reply:
                raw = b""
                while piece := await reply.content.read(LARGEST_ANSWER - len(raw)):  # it may come in pieces
                    raw += piece
                status = reply.status
            if status == 200:
                return msgspec.json.decode(raw, type=answer)
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError) as error:
            raise HubAway(f"the hub cannot be reached ({type(error).__name__})") from error
        if status == 401:
            raise NotEnrolled(f"the hub refused this kiosk: {_detail(raw)}")
        if status in (400, 404, 409, 413, 422):
            raise _Rejected(_detail(raw))
        raise HubAway(f"the hub answered {status}")

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()


async def enrol(server: KioskServer, url: str, code: str) -> HubEntry:
    """Become the kiosk behind a code. The key is written down first: a lost answer is asked for again.

    Raises BadRequest, NotEnrolled, HubAway or JournalUnavailable."""
    check_url(url, sandbox=server.config.sandbox)
    known, journal = server.journal.hub(), server.journal
    pending = known is not None and not known.account
    key = _key(known, server.vault) if known and pending else secrets.token_urlsafe(32)
    sealed = server.vault.seal(SEALED_AS, key.encode())
    cursor = known.cursor if known else journal.last_change()
    await journal.write([rows.hub_row(HubEntry(url, "", sealed, cursor))])
    hub = Hub(url, None)
    try:
        enrolled = await hub.call("/kiosk/enrol", shapes.EnrolIn(code, key), shapes.EnrolOut)
    except _Rejected as error:
        raise BadRequest(f"the hub did not take this code: {error}") from error
    finally:
        await hub.close()
    if known is not None and known.account not in ("", enrolled.account):
        cursor = journal.last_change()  # what the kiosk did for another account is not this one's
    entry = HubEntry(url, enrolled.account, sealed, cursor)
    await journal.write([rows.hub_row(entry)])
    return entry


def check_url(url: str, *, sandbox: bool) -> None:
    """Raises BadRequest for what is no URL, or one on which the key could be read."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
        raise BadRequest("a hub is named by its URL, for example https://pay.example.com")
    if parts.scheme == "http" and not sandbox and not is_loopback(parts.hostname):
        raise BadRequest("a hub on another machine needs https, or anybody on the way could be this kiosk")


class Uplink:
    """Follows the hub for as long as `run` runs."""

    def __init__(self, server: KioskServer, entry: HubEntry):
        self._kiosk: Kiosk = server.kiosk
        self._journal = server.journal
        self._cursor = entry.cursor
        self._hub = Hub(entry.url, f"{entry.account}.{_key(entry, server.vault)}")
        self._news, self._stir = asyncio.Event(), asyncio.Event()
        self._orders: dict[str, shapes.KioskOrder] = {}
        self._wishes: list[shapes.Wish] = []
        self._collecting: set[str] = set()
        self._followed: set[tuple[str, str]] = set()
        self._strange: set[str] = set()
        self.here: bool | None = None
        """Whether the hub answered last time."""

    async def run(self) -> None:
        """Fetch and report until cancelled."""
        watchers = self._kiosk.steps.watchers
        watchers.add(self._on_notice)
        try:
            async with asyncio.TaskGroup() as group:
                for work in (self._fetch(), self._serve(), self._report()):
                    group.create_task(work)
        finally:
            watchers.discard(self._on_notice)
            await self._hub.close()

    def _on_notice(self, notice: Notice) -> None:
        self._news.set()
        if notice.kind in ("payment", "terminal"):
            self._stir.set()  # a terminal may be free now

    # --- what the hub wants

    async def _fetch(self) -> None:
        mark, tries = "", 0
        while True:
            unsettled = (one.txn_id for one in self._kiosk.steps.open.values() if one.state in UNSETTLED)
            doubts = [*unsettled][: shapes.MOST_ORDERS]
            asked = shapes.WorkIn(mark, WAIT_S if mark else 0, doubts)
            try:
                found = await self._hub.call("/kiosk/work", asked, shapes.WorkOut, CALL_S + asked.wait_s)
            except (KioskRefusal, _Rejected) as error:
                self._orders, self._wishes, mark = {}, [], ""
                await self._wait(tries, error)
                tries += 1
                continue
            tries, mark = 0, found.mark
            self._answered()
            self._orders = {order.attempt: order for order in found.orders}
            self._wishes = found.wishes
            self._stir.set()

    async def _serve(self) -> None:
        while True:
            wait_s = TRY_TERMINALS_S if self._orders else None
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stir.wait(), wait_s)
            self._stir.clear()
            for wish in self._wishes:
                if (wish.txn_id, wish.kind) not in self._followed:
                    await self._follow(wish)
            for order in list(self._orders.values()):
                if order.attempt not in self._collecting:
                    self._collecting.add(order.attempt)
                    self._kiosk.steps.spawn(self._collect(order))

    async def _collect(self, order: shapes.KioskOrder) -> None:
        try:
            if await self._collected(order):
                self._orders.pop(order.attempt, None)
        except (HubAway, NotEnrolled, JournalUnavailable):
            pass  # asked for again
        finally:
            self._collecting.discard(order.attempt)

    async def _collected(self, order: shapes.KioskOrder) -> bool:
        """Whether there is nothing more to do for it here."""
        txn_id = self._journal.hub_order(order.attempt)
        if order.txn_id is not None and order.txn_id != txn_id:
            await self._estranged(order.txn_id)
            return True
        if txn_id is None:
            txn_id = new_txn_id()
            await self._journal.write([rows.hub_order_row(order.attempt, txn_id, self._kiosk.clock())])
        if txn_id in self._kiosk.steps.open or self._journal.payment(txn_id) is not None:
            return True  # it was asked of a terminal: never again; its report is on the way

        async def take() -> None:
            await self._take(order.attempt, txn_id)

        ours = HubOrder(order.attempt, txn_id, take)
        reference = _reference(order.order_id)
        try:
            mode = PaymentMode(order.channel)
        except ValueError:
            return True  # a newer hub's channel: it stays where it is
        try:
            await self._kiosk.pay(
                mode, order.amount_minor, terminal=order.terminal, reference=reference, order=ours
            )
        except (NoTerminal, TerminalBusy, UnknownTerminal):
            if order.txn_id is None:
                return False
            return await self._given_up(mode, order, ours)
        except OrderGone:
            return True
        except (HubAway, NotEnrolled, JournalUnavailable):
            raise
        except KioskRefusal as refusal:
            try:
                await take()
            except OrderGone:
                return True
            except OrderOver:
                pass
            await self._kiosk.decline(mode, order.amount_minor, ours, reference, str(refusal))
        return True

    async def _given_up(self, mode: PaymentMode, order: shapes.KioskOrder, ours: HubOrder) -> bool:
        """It was taken before a restart, and no terminal is free: wait on, or say that it is over."""
        try:
            await ours.take()
        except OrderOver as over:
            reference = _reference(order.order_id)
            await self._kiosk.decline(mode, order.amount_minor, ours, reference, str(over))
            return True
        return False

    async def _take(self, attempt: str, txn_id: str) -> None:
        try:
            taken = await self._hub.call("/kiosk/take", shapes.TakeIn(attempt, txn_id), shapes.TakeOut)
        except _Rejected as error:
            raise OrderGone(str(error)) from error
        if not taken.yours:
            raise OrderGone(taken.why)
        if not taken.go:
            raise OrderOver(f"no terminal was asked: {taken.why}")

    async def _estranged(self, txn_id: str) -> None:
        """An order was taken with our key, and not by this journal: whether a terminal was asked, nobody here
        knows."""
        if txn_id in self._strange:
            return
        self._strange.add(txn_id)
        text = (
            f"The hub says that this kiosk took {txn_id}, of which its journal knows nothing: the journal was"
            " restored or copied. Look at the terminals and settle it at the hub."
        )
        await self._kiosk.steps.alarm(Alert("foreign_order", text), txn_id, None)

    async def _follow(self, wish: shapes.Wish) -> None:
        """Each is done once; whether it could be done is seen from the payment's next report."""
        with suppress(KioskRefusal):
            try:
                payment = self._kiosk.find(wish.txn_id)
            except UnknownPayment:
                await self._estranged(wish.txn_id)
                return
            if wish.kind == "cancel" and payment.state in IN_FLIGHT:
                if payment.state is not State.CANCELLING:
                    await self._kiosk.cancel(wish.txn_id)
            elif wish.kind == "cancel" and payment.state is State.UNKNOWN:
                self._followed.add((wish.txn_id, wish.kind))
                await self._kiosk.cancel(wish.txn_id)
            elif wish.kind == "plan" and payment.state is State.AWAITING_PLAN:
                await self._kiosk.choose_plan(wish.txn_id, wish.plan_id or "")
            elif wish.kind == "settle" and payment.state in UNSETTLED:
                because = wish.reason or "settled at the hub"
                await self._kiosk.settle(wish.txn_id, paid=wish.outcome == "paid", because=because)

    # --- what the hub is told

    async def _report(self) -> None:
        tries = 0
        while True:
            self._news.clear()
            changes = self._journal.changes(self._cursor, shapes.MOST_REPORTS)
            if not changes:
                await self._news.wait()
                continue
            try:
                await self._tell(changes)
                await self._journal.write([rows.cursor_row(changes[-1].number)])
            except (KioskRefusal, _Rejected) as error:
                await self._wait(tries, error)
                tries += 1
                continue
            tries, self._cursor = 0, changes[-1].number
            self._answered()

    async def _tell(self, changes: Sequence[Change]) -> None:
        """The newest of each payment says all that the others would."""
        newest: dict[str, Payment] = {}
        for change in changes:
            newest[change.txn_id] = change.payment
        reports = [report_of(payment) for payment in newest.values()]
        try:
            await self._send(reports)
        except _Rejected as error:
            if len(reports) > 1:
                for one in reports:  # one bad report must not keep the others back
                    await self._tell_alone(one)
            else:
                await self._unheard(reports[0], str(error))

    async def _tell_alone(self, report: shapes.Report) -> None:
        try:
            await self._send([report])
        except _Rejected as error:
            await self._unheard(report, str(error))

    async def _send(self, reports: list[shapes.Report]) -> None:
        answer = await self._hub.call("/kiosk/reports", shapes.ReportsIn(reports), shapes.ReportsOut)
        if [one.txn_id for one in answer.results] != [one.txn_id for one in reports]:
            raise HubAway("the hub answered something else")
        for report, result in zip(reports, answer.results, strict=True):
            if result.verdict == "foreign":
                await self._unheard(report, "it gave this payment to somebody else")

    async def _unheard(self, report: shapes.Report, why: str) -> None:
        text = f"The hub does not book {report.txn_id} ({report.state}): {why}."
        await self._kiosk.steps.alarm(Alert("not_booked", text[:400]), report.txn_id, report.terminal)

    # --- whether it is there

    async def _wait(self, tries: int, error: Exception) -> None:
        if self.here is not False:
            self.here = False
            self._kiosk.show("hub", f"{error}. Payments go on; what happens is reported later.")
        wait_s = REFUSED_S if isinstance(error, NotEnrolled) else RETRY_S[min(tries, len(RETRY_S) - 1)]
        await asyncio.sleep(wait_s * (0.75 + random.random() / 2))  # noqa: S311

    def _answered(self) -> None:
        if self.here is not True:
            self.here = True
            self._kiosk.show("hub", "The hub is there.")


def _key(entry: HubEntry, vault: Vault) -> str:
    return vault.open(SEALED_AS, entry.sealed_key).decode()


def _reference(order_id: str) -> str:
    if len(order_id) <= LONGEST_REFERENCE:
        return order_id
    return "sha256:" + hashlib.sha256(order_id.encode()).hexdigest()


def _detail(raw: bytes) -> str:
    try:
        said: Any = msgspec.json.decode(raw)
        return str(said.get("detail", ""))[:200]
    except (msgspec.MsgspecError, AttributeError):
        return "no reason given"
