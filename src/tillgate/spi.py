"""What a provider is. A provider is one folder: it translates its bytes into our words and back.

A connector never opens a socket, a file or a database: it *describes* calls (`HttpCall`) and is given `send`.
To implement one of the small protocols below is to opt in to what it names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

from tillgate.domain.dialogue import Ask, Hint, Noise, Record, Tell
from tillgate.domain.errors import Refusal, TillgateError
from tillgate.domain.money import Money
from tillgate.domain.payment import Attempt, Phase
from tillgate.domain.record import record

# --- the wire -----------------------------------------------------------------------------------------------


@record
class Inbound:
    """A provider's HTTP request, untouched. Header names are lower case. What may be secret is in no repr."""

    method: str
    path: str
    query: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    peer: str  # address it came from
    received_at: int  # epoch ms


@record
class Reply:
    """Our answer in the provider's dialect."""

    status: int
    body: bytes = field(repr=False)  # may grant a token
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@record
class HttpCall:
    """A request to a provider or a merchant, described but not sent."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    timeout_s: float = 15.0


@record
class HttpReply:
    status: int
    headers: Mapping[str, str] = field(repr=False)  # names in lower case
    body: bytes = field(repr=False)


Send: TypeAlias = Callable[[HttpCall], Awaitable[HttpReply]]
"""Raises `Unreachable` if nothing left us and `Unsure` for every failure after bytes did."""

# --- what a connector is given and gives --------------------------------------------------------------------


@record
class Order:
    """One attempt, as a connector sees it. `operation_id` is ours, stored before the call, never reused."""

    operation_id: str
    payment_id: str
    order_id: str
    channel: str
    amount: Money
    created_at: int
    expires_at: int
    external_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    show: Mapping[str, Any] = field(default_factory=dict)
    details: str | None = None  # JSON that the connector kept with the attempt
    notify_url: str | None = None  # `/in/{account}` as the provider can reach it
    return_url: str | None = None


@record
class RefundOrder:
    """One refund, as a connector sees it."""

    operation_id: str
    payment: Order
    amount: Money
    reason: str
    external_id: str | None = None
    before_minor: int = 0  # what was asked back through the same attempt before it, and had not failed


@record
class Started:
    """The provider has the attempt; `show` is what the payer needs."""

    external_id: str | None
    show: Show
    expires_at: int | None = None


@record
class Show:
    """What the payer is shown: any of a QR text, a page, an app link, an account to pay."""

    type: str  # qr | redirect | app | account | terminal | wait
    qr_string: str | None = None
    url: str | None = None
    account: Mapping[str, str] | None = None


@record
class Heard:
    """A verified message: what it says in our words, and what its answer must echo."""

    message: Ask | Tell | Hint | Noise
    echo: Any = None
    once: Once | None = None  # it is for the host's own function too


@record
class Once:
    """Names a message, so that it is handed on once: in order within `stream`, beside others."""

    key: str
    content: bytes  # a digest: the same key with other content is a conflict
    stream: str


@record
class Wanted:
    """What somebody asks for at a documented path: that a payer be let pay."""

    order_id: str
    channel: str
    amount: Money | None = None  # None: of an order that is stored, with the amount that is stored
    payer: str | None = None  # who may pay it: the stored order must name the same `metadata.user`
    metadata: str | None = None  # JSON object, for a new order
    account: str | None = None  # another account of the merchant's
    ttl_s: int | None = None
    again: bool = True  # an order that failed may be begun anew


@record
class Served:
    """How the payment stands that was asked for."""

    order: Order
    phase: Phase
    reason: str | None


@record
class Channel:
    """What the payer chooses: data, not code."""

    id: str
    name: str
    currency: str
    min_minor: int = 1
    max_minor: int = 10**13


@record
class RefundRules:
    """What this provider can give back through a channel."""

    partial: bool = True
    parallel: bool = True  # several refunds of one payment may run at once
    window_s: int | None = None  # after `paid_at`; None: no limit
    step_minor: int = 1  # an amount is a multiple of it: 100 where the wire knows no hundredths


# --- what a connector can do --------------------------------------------------------------------------------


_CAN: Final[dict[tuple[type, type], bool]] = {}


def can(connector: Connector, what: type) -> bool:
    """`isinstance` for the protocols below, remembered by the connector's class: to look up each method costs
    more than to verify a message. Not for those with data members, which an object may lack."""
    asked = type(connector), what
    known = _CAN.get(asked)
    if known is None:
        known = _CAN[asked] = isinstance(connector, what)
    return known


@runtime_checkable
class Invites(Protocol):
    """The payer can be invited without asking the provider: a link, an account, a QR of our own."""

    def invite(self, order: Order) -> Show | None:
        """Pure and quick: it runs inside the commit. None: this order must be started by a call."""


@runtime_checkable
class Starts(Protocol):
    """The provider must be told first, and answers what the payer is shown."""

    async def start(self, order: Order, send: Send) -> Started:
        """Raises `Declined`, `Unreachable` or `Unsure`."""


@runtime_checkable
class Names(Protocol):
    """The provider is told a merchant's own name for an attempt, and speaks of it by that."""

    def named(self, order: Order) -> str | None:
        """Pure. What `Tell.external_id` will say; None: the operation id or the order's own."""


@runtime_checkable
class Looks(Protocol):
    """The provider can be asked how an attempt or a refund stands."""

    async def look(self, order: Order, send: Send) -> Tell | None:
        """None: the provider does not know this operation, so it never arrived."""

    async def look_refund(self, refund: RefundOrder, send: Send) -> Tell | None: ...


@runtime_checkable
class Fetched(Protocol):
    """Nothing is called: a kiosk of ours fetches its orders and reports what became of them. Invites, too."""

    def terminal(self, order: Order) -> str | None:
        """The one that the merchant named, if any."""


@runtime_checkable
class Cancels(Protocol):
    """An unpaid attempt can be withdrawn at the provider."""

    async def cancel(self, order: Order, send: Send) -> Tell:
        """How it stands after the try: `Closed`, or `Paid` where the payer was quicker."""


@runtime_checkable
class Refunds(Protocol):
    """Money can be sent back by a call."""

    def refund_rules(self, channel: str) -> RefundRules | None:
        """None: what came through this channel cannot be sent back by a call."""

    async def refund(self, refund: RefundOrder, send: Send) -> Tell:
        """Raises `Declined`, `Unreachable` or `Unsure`."""


@runtime_checkable
class Hears(Protocol):
    """The provider calls us. With a `max_body` it is given longer bodies, too, cut off, and refuses them."""

    def hear(self, call: Inbound) -> Heard:
        """Verify first, then translate. Raises a `Refusal`."""

    def answer(self, call: Inbound, heard: Heard | None, outcome: Record | Refusal | None) -> Reply:
        """Our answer in its dialect; `heard` is None where `hear` refused, `outcome` None after a tell."""


@runtime_checkable
class Hinting(Protocol):
    """What it hears proves nothing and may be lost: accepted attempts are looked at now and then, too."""

    poll_after_ms: int


@runtime_checkable
class Plays(Protocol):
    """In test mode, the provider's payer can be played by a call."""

    def play(self, order: Order, action: str, fault: str) -> HttpCall | None:
        """`action` is pay, fail, expire or pay-late. None: that cannot be played here."""


@runtime_checkable
class Serves(Protocol):
    """On its documented paths (`Provider.serves`) somebody asks us for a payment."""

    def wanted(self, call: Inbound, trusted: bool) -> Wanted:
        """`trusted`: the call bears an access token of the merchant's own. Raises a `TillgateError`."""

    def served(self, call: Inbound, outcome: Served | TillgateError) -> Reply: ...


@runtime_checkable
class Schedules(Protocol):
    """It is worth while to look at this provider's attempts at certain times only."""

    def next_look(self, attempt: Attempt, now: int) -> int | None:
        """Pure. The next time (epoch ms, after `now`), also for what is paid or closed; None: no more."""


@runtime_checkable
class Compares(Protocol):
    """A message may repeat more of an order than its amount."""

    def differences(self, order: Order, tell: Tell) -> Mapping[str, Any]:
        """Pure. What is said otherwise than it was ordered, by name: told to the merchant and kept."""


@runtime_checkable
class Keeps(Protocol):
    """What is kept with an attempt is more than one message says."""

    def kept(self, order: Order, said: Mapping[str, Any]) -> Mapping[str, Any]:
        """Pure. `said`: the object in `Tell.details`."""


@runtime_checkable
class Scrubs(Protocol):
    """Messages hold what must not be kept."""

    def scrubbed(self, call: Inbound) -> Inbound:
        """The message as it may be written down: no whole card number, no password."""


@runtime_checkable
class HandsOn(Protocol):
    """Messages can be handed to the host's own function (`TILLGATE_PROCESS_…`)."""

    def handed(self, body: bytes) -> Any:
        """What the function is given, from a body that `Scrubs` let be kept. Raises a `Refusal`."""


@record
class StatementLine:
    """One movement on a provider's statement, in its own words about our operation."""

    kind: str  # payment | refund: which way the money went; the amount is above zero
    amount_minor: int
    currency: str
    reference: str | None = None  # as it was told: an operation's, payment's or refund's id, an order_id
    external_id: str | None = None
    at: int | None = None  # epoch ms of the movement
    fee_minor: int | None = None
    settled_on: str | None = None  # ISO date


@runtime_checkable
class Statements(Protocol):
    """The provider can be asked what it booked."""

    def statement(self, from_ms: int, to_ms: int, send: Send) -> AsyncIterator[StatementLine]:
        """What was booked from a moment up to, not including, another one, in any order.

        The iterator raises `Declined`, `Unreachable` or `Unsure`: half a statement is none."""


@runtime_checkable
class StatementFiles(Protocol):
    """The provider's own file of settlements can be read without a map of its columns."""

    def statement_file(self, data: bytes) -> list[StatementLine]:
        """Pure. Raises `InvalidRequest` that names the rows which do not read: half a statement is none."""


class Vault(Protocol):
    """What a simulator remembers, shared by all processes of a hub."""

    async def get(self, key: str) -> bytes | None: ...
    async def put(self, key: str, value: bytes) -> None: ...


Connector: TypeAlias = Any
"""An object with some of the protocols above; which ones is asked with `isinstance`, often with `can`."""

ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True, slots=True)
class Provider(Generic[ConfigT]):
    """A provider's folder says `PROVIDER = Provider(…)`; that is its whole registration."""

    name: str
    title: str
    config: type[ConfigT]  # a msgspec struct: one account's settings; fields named in `secrets` are sealed
    channels: tuple[Channel, ...]
    connect: Callable[[ConfigT], Connector]  # raises `Misconfigured`
    example: Mapping[str, Any] = field(
        default_factory=dict
    )  # a config that loads, for docs and contract tests
    secrets: frozenset[str] = frozenset()
    addresses: frozenset[str] = (
        frozenset()
    )  # settings that say whom the hub calls, or whose script its page runs
    required: frozenset[str] = frozenset()  # settings that `connect` asks for although their struct does not
    paths: Mapping[str, str] = field(default_factory=dict)  # documented path → what it serves
    serves: Mapping[str, str] = field(default_factory=dict)  # documented path → for what payment it is asked
    owns: frozenset[str] = frozenset()  # documented paths below which nothing is anybody else's
    asks: bool = False  # the provider opens attempts by asking us; we only invite the payer
    sandbox_only: bool = False
    simulator: Callable[[Vault, Send], Send] | None = None  # answers calls to `sandbox://<name>/…` in process

    api_version: ClassVar[int] = 1
