"""Every table. Status, phase, provider and channel are text, never database enums.

Money rows are append-only (`events`, `postings`) or projections of them that `ledger verify` recomputes.
Columns marked `fixed` never change after the insert, so updates leave them (and their indexes) alone.
Times are epoch milliseconds. Ids start with the time, so that inserts go to the end of their b-tree.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def fixed(name: str, kind: Any, *args: Any, **kwargs: Any) -> Column[Any]:
    """A column that never changes after the insert."""
    return Column(name, kind, *args, info={"fixed": True}, nullable=kwargs.pop("nullable", False), **kwargs)


def varies(name: str, kind: Any, *args: Any, **kwargs: Any) -> Column[Any]:
    return Column(name, kind, *args, nullable=kwargs.pop("nullable", False), **kwargs)


def table(name: str, *parts: Any) -> Table:
    """Rows that are a page's fraction or more: SQLite keeps them out of the key's b-tree."""
    return Table(name, metadata, *parts)


def small(name: str, *parts: Any) -> Table:
    """Small rows: SQLite keeps them inside the b-tree of their primary key."""
    return Table(name, metadata, *parts, sqlite_with_rowid=False)


# --- who ----------------------------------------------------------------------------------------------------

merchants = table(
    "merchants",
    fixed("id", Text, primary_key=True),
    varies("name", Text, unique=True),
    varies("settings", Text),  # JSON
    varies("webhook_secrets", LargeBinary),  # sealed JSON list of [secret, end or null], the newest first
    fixed("created_at", BigInteger),
    varies("disabled_at", BigInteger, nullable=True),
)

credentials = table(
    "credentials",
    fixed("id", Text, primary_key=True),
    fixed("merchant_id", Text, ForeignKey("merchants.id"), index=True),
    fixed("api_key", Text, unique=True),
    varies("secret_hash", LargeBinary),  # keyed hash: the secret itself is never stored
    fixed("created_at", BigInteger),
    varies("expires_at", BigInteger, nullable=True),
)

accounts = table(
    "accounts",
    fixed("id", Text, primary_key=True),
    fixed("merchant_id", Text, ForeignKey("merchants.id"), index=True),
    fixed("provider", Text),
    varies("name", Text),
    varies("config", LargeBinary),  # sealed JSON
    varies("is_default", Boolean),
    varies("priority", Integer),
    fixed("created_at", BigInteger),
    varies("disabled_at", BigInteger, nullable=True),
    UniqueConstraint("merchant_id", "name"),
)

endpoints = table(
    "endpoints",
    fixed("id", Text, primary_key=True),
    fixed("merchant_id", Text, ForeignKey("merchants.id"), index=True),
    varies("url", Text),
    varies("types", Text),  # JSON list of event types or patterns; [] is all
    varies("secrets", LargeBinary),  # sealed JSON list of [secret, end or null], the newest first
    fixed("created_at", BigInteger),
    varies("disabled_at", BigInteger, nullable=True),
    varies("disabled_why", Text, nullable=True),
    varies("description", Text, nullable=True),
    varies("failing_since", BigInteger, nullable=True),  # the first failure since it last took something
)

# --- money --------------------------------------------------------------------------------------------------

heads = small(
    # One row per merchant: its lock, the number of its last event and the end of its chain.
    "heads",
    fixed("merchant_id", Text, primary_key=True),
    varies("seq", BigInteger),
    varies("chain", LargeBinary),
)

payments = table(
    "payments",
    fixed("id", Text, primary_key=True),
    fixed("merchant_id", Text),
    fixed("order_id", Text),
    fixed("order_key", LargeBinary, unique=True),
    fixed("standing_id", Text, nullable=True),
    varies("channel", Text),
    varies("account_id", Text),
    fixed("currency", Text),
    fixed("amount_minor", BigInteger),
    varies("status", Text),
    varies("closed", Text, nullable=True),
    varies("hold", Text, nullable=True),
    varies("late", Boolean),
    varies("paid_minor", BigInteger),
    varies("tip_minor", BigInteger),
    varies("fee_minor", BigInteger),
    varies("refunding_minor", BigInteger),
    varies("refunded_minor", BigInteger),
    varies("reversed_minor", BigInteger),
    varies("live_attempt_id", Text, nullable=True),
    varies("live_phase", Text, nullable=True),
    varies("paid_with", Text, nullable=True),
    varies("callback_url", Text, nullable=True),
    varies("metadata", Text, nullable=True),
    fixed("created_at", BigInteger),
    varies("expires_at", BigInteger),
    varies("paid_at", BigInteger, nullable=True),
    varies("version", BigInteger),
    Index(None, "merchant_id", "id"),
    Index("ix_payments_standing", "standing_id", "id", sqlite_where=text("standing_id IS NOT NULL"),
          postgresql_where=text("standing_id IS NOT NULL")),
    Index("ix_payments_stuck", "merchant_id", "status", "id",
          sqlite_where=text("status IN ('unsure', 'review')"),
          postgresql_where=text("status IN ('unsure', 'review')")),
)  # fmt: skip

FETCHED: Final = text("live_of IS NOT NULL AND provider = 'mobypay'")
"""Attempts that kiosks fetch; spelled once, because an index serves only a query that says the same."""

attempts = table(
    "attempts",
    fixed("id", Text, primary_key=True),
    fixed("payment_id", Text, ForeignKey("payments.id"), index=True),
    fixed("merchant_id", Text),
    fixed("account_id", Text),
    fixed("provider", Text),
    fixed("channel", Text),
    varies("external_id", Text, nullable=True),
    fixed("asked", Boolean),
    varies("phase", Text),
    varies("reason", Text, nullable=True),
    fixed("currency", Text),
    fixed("amount_minor", BigInteger),
    varies("paid_minor", BigInteger),
    varies("tip_minor", BigInteger),
    varies("fee_minor", BigInteger),
    varies("refunded_minor", BigInteger),
    varies("reversed_minor", BigInteger),
    varies("show", Text, nullable=True),
    varies("details", Text, nullable=True),
    fixed("created_at", BigInteger),
    fixed("provider_at", BigInteger, nullable=True),
    varies("expires_at", BigInteger, nullable=True),
    varies("paid_at", BigInteger, nullable=True),
    varies("closed_at", BigInteger, nullable=True),
    varies("live_of", Text, nullable=True, unique=True),
    varies("version", BigInteger),
    Index("uq_attempts_external", "account_id", "external_id", unique=True,
          sqlite_where=text("external_id IS NOT NULL"), postgresql_where=text("external_id IS NOT NULL")),
    Index("ix_attempts_fetched", "account_id", "id", sqlite_where=FETCHED, postgresql_where=FETCHED),
    Index("ix_attempts_statement", "account_id", "provider_at",
          sqlite_where=text("provider_at IS NOT NULL"), postgresql_where=text("provider_at IS NOT NULL")),
)  # fmt: skip

refunds = table(
    "refunds",
    fixed("id", Text, primary_key=True),
    fixed("payment_id", Text, ForeignKey("payments.id"), index=True),
    fixed("attempt_id", Text),
    fixed("merchant_id", Text),
    varies("external_id", Text, nullable=True),
    varies("phase", Text),
    fixed("reason", Text),
    varies("failure", Text, nullable=True),
    fixed("currency", Text),
    fixed("amount_minor", BigInteger),
    fixed("created_at", BigInteger),
    varies("done_at", BigInteger, nullable=True),
    varies("version", BigInteger),
    Index(None, "merchant_id", "id"),
)

standing_orders = table(
    "standing_orders",
    fixed("id", Text, primary_key=True),
    fixed("merchant_id", Text),
    fixed("order_id", Text),
    fixed("order_key", LargeBinary, unique=True),
    fixed("channel", Text),
    fixed("account_id", Text),
    fixed("currency", Text),
    fixed("min_minor", BigInteger),
    fixed("max_minor", BigInteger),
    varies("callback_url", Text, nullable=True),
    fixed("metadata", Text, nullable=True),
    fixed("created_at", BigInteger),
    varies("closed_at", BigInteger, nullable=True),
    varies("version", BigInteger),
    Index(None, "merchant_id", "id"),
)

payment_links = table(
    # An address at which payers open payments; each payment says in `standing_id` which link it is of.
    "payment_links",
    fixed("id", Text, primary_key=True),
    fixed("merchant_id", Text, ForeignKey("merchants.id")),
    fixed("code", Text, unique=True),  # of the short address
    fixed("reference", Text),  # what the order ids of its payments begin with
    fixed("title", Text),
    fixed("currency", Text),
    fixed("amount_minor", BigInteger, nullable=True),  # None: the payer says how much
    fixed("min_minor", BigInteger, nullable=True),
    fixed("max_minor", BigInteger, nullable=True),
    fixed("channels", Text),  # JSON list; [] is all
    fixed("once", Boolean),
    fixed("ttl_s", Integer, nullable=True),
    fixed("callback_url", Text, nullable=True),
    fixed("metadata", Text, nullable=True),
    fixed("created_at", BigInteger),
    fixed("expires_at", BigInteger, nullable=True),
    varies("disabled_at", BigInteger, nullable=True),
    UniqueConstraint("merchant_id", "reference"),
    Index(None, "merchant_id", "id"),
)

events = table(
    "events",
    fixed("merchant_id", Text, primary_key=True),
    fixed("seq", BigInteger, primary_key=True),
    fixed("id", Text),  # starts with its number, so that it is found without an index
    fixed("type", Text),
    fixed("subject", Text, index=True),  # the payment or standing order it is about
    fixed("occurred_at", BigInteger),
    fixed("body", LargeBinary),  # JSON: every row it changed, as it stood afterwards
    fixed("chain", LargeBinary),  # digest of the chain before, this event and its postings
)

postings = small(
    "postings",
    fixed("merchant_id", Text, primary_key=True),
    fixed("seq", BigInteger, primary_key=True),  # of the event it belongs to
    fixed("line", Integer, primary_key=True),
    fixed("kind", Text),
    fixed("source", Text),
    fixed("destination", Text),
    fixed("amount_minor", BigInteger),
    fixed("currency", Text),
)

balances = small(
    "balances",
    fixed("merchant_id", Text, primary_key=True),
    fixed("account", Text, primary_key=True),
    fixed("currency", Text, primary_key=True),
    varies("amount_minor", BigInteger),
)

# --- work ---------------------------------------------------------------------------------------------------

due = small(
    # Work to do at a time. Claiming moves `run_at` behind the lease, so a claim that dies comes up again.
    "due",
    fixed("id", Text, primary_key=True),  # kind:subject
    fixed("kind", Text),
    fixed("subject", Text),
    fixed("merchant_id", Text),
    varies("run_at", BigInteger, index=True),
    varies("tries", Integer),
)

deliveries = table(
    "deliveries",
    fixed("id", Text, primary_key=True),
    fixed("merchant_id", Text),
    fixed("seq", BigInteger),  # of the event
    fixed("stream", Text),  # what keeps its order: one payment to one target
    fixed("endpoint_id", Text, nullable=True),  # None: the payment's own callback_url
    fixed("url", Text),
    varies("state", Text),  # pending | delivered | failed
    varies("tries", Integer),
    varies("next_at", BigInteger),
    varies("done_at", BigInteger, nullable=True),
    varies("last_status", Integer, nullable=True),
    varies("last_error", Text, nullable=True),
    fixed("created_at", BigInteger),
    Index("ix_deliveries_next", "next_at", sqlite_where=text("state = 'pending'"),
          postgresql_where=text("state = 'pending'")),
    Index("ix_deliveries_stream", "stream", "seq", sqlite_where=text("state = 'pending'"),
          postgresql_where=text("state = 'pending'")),
    Index("ix_deliveries_event", "merchant_id", "seq", "id"),
)  # fmt: skip

delivery_tries = small(
    "delivery_tries",
    fixed("delivery_id", Text, primary_key=True),
    fixed("number", Integer, primary_key=True),
    fixed("at", BigInteger),
    fixed("took_ms", Integer),
    fixed("status", Integer, nullable=True),
    fixed("answer", Text, nullable=True),  # the first bytes of it
    fixed("error", Text, nullable=True),
)

idempotency = table(
    "idempotency",
    fixed("digest", LargeBinary, primary_key=True),  # of merchant, route and key
    fixed("fingerprint", LargeBinary),  # of the request
    varies("subject", Text, nullable=True),
    varies("status", Integer, nullable=True),  # None while the first request is in flight
    varies("body", LargeBinary, nullable=True),  # sealed where it shows a secret
    fixed("created_at", BigInteger, index=True),
)

inbound = table(
    "inbound",
    fixed("id", Text, primary_key=True),
    fixed("merchant_id", Text),
    fixed("account_id", Text),
    fixed("digest", LargeBinary, nullable=True, unique=True),  # of account and provider event id
    fixed("payment_id", Text, nullable=True, index=True),
    fixed("received_at", BigInteger),
    fixed("request", LargeBinary),  # JSON: method, path, headers without credentials; then the raw body
    fixed("body", LargeBinary),
    fixed("verdict", Text),
    fixed("reply_status", Integer, nullable=True),
    fixed("reply", LargeBinary, nullable=True),
    Index(None, "merchant_id", "id"),
)

reconciliations = table(
    # One comparison of an account's statement with our books.
    "reconciliations",
    fixed("id", Text, primary_key=True),
    fixed("merchant_id", Text, ForeignKey("merchants.id")),
    fixed("account_id", Text),
    fixed("source", Text),  # file | api
    fixed("from_ms", BigInteger),
    fixed("to_ms", BigInteger),
    fixed("summary", Text),  # JSON
    fixed("created_at", BigInteger),
    Index(None, "merchant_id", "id"),
)

statement_lines = table(
    # What a provider's statement says, as it was read; append-only.
    "statement_lines",
    fixed("reconciliation_id", Text, ForeignKey("reconciliations.id"), primary_key=True),
    fixed("line", Integer, primary_key=True),
    fixed("kind", Text),
    fixed("reference", Text, nullable=True),
    fixed("external_id", Text, nullable=True),
    fixed("amount_minor", BigInteger),
    fixed("currency", Text),
    fixed("fee_minor", BigInteger, nullable=True),
    fixed("at", BigInteger, nullable=True),
    fixed("settled_on", Text, nullable=True),  # ISO date
    fixed("subject", Text, nullable=True, index=True),  # the payment or refund that it is about
)

findings = table(
    # What a comparison found, for a person to look at. Money is never moved by one.
    "findings",
    fixed("id", Text, primary_key=True),
    fixed("merchant_id", Text, ForeignKey("merchants.id")),
    fixed("reconciliation_id", Text),
    fixed("account_id", Text),
    fixed("digest", LargeBinary, unique=True),  # of what it says, so that another run does not say it again
    fixed("kind", Text),
    fixed("subject", Text, nullable=True, index=True),
    fixed("reference", Text, nullable=True),
    fixed("external_id", Text, nullable=True),
    fixed("ours_minor", BigInteger, nullable=True),
    fixed("theirs_minor", BigInteger, nullable=True),
    fixed("currency", Text),
    fixed("at", BigInteger, nullable=True),
    fixed("created_at", BigInteger),
    varies("resolved_at", BigInteger, nullable=True),
    varies("reason", Text, nullable=True),
    Index(None, "merchant_id", "id"),
)

traces = small(
    # Written by processes that trace: what a delivery or due work goes on with. Nothing else reads it.
    "traces",
    fixed("subject", Text, primary_key=True),
    fixed("about", Text, primary_key=True),  # an event's type, or due: and a kind of work
    fixed("context", Text),  # a traceparent
    fixed("kept_at", BigInteger, index=True),
)

simulated = small(
    # What the simulators remember, so that several processes play with the same pretended bank.
    "simulated",
    fixed("key", Text, primary_key=True),
    varies("value", LargeBinary),
)

meta = small("meta", fixed("key", Text, primary_key=True), varies("value", Text))
