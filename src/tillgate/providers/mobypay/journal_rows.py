"""What can be written into the journal: each function gives the rows of one thing that is worth keeping."""

from collections.abc import Sequence
from typing import Any

import msgspec

from tillgate.providers.mobypay.lifecycle import UNSETTLED, Alert, Fact, Payment

Row = tuple[str, tuple[Any, ...]]
"""One statement and its values."""


class EnrolledTerminal(msgspec.Struct, frozen=True):
    """A terminal as it was enrolled; the secret is sealed. `configured` ones live and die with the
    configuration.
    """

    pos_id: str
    sealed_secret: bytes
    port: int | None
    amount_form: str
    forms: tuple[str, ...]
    configured: bool = False


class HubEntry(msgspec.Struct, frozen=True):
    """The hub that a kiosk is enrolled with; no `account` yet: the enrolment was not answered."""

    url: str
    account: str
    sealed_key: bytes
    cursor: int


def new_payment(payment: Payment, idempotency_key: str | None, request_digest: bytes | None) -> list[Row]:
    """The rows of a payment that begins."""
    record = msgspec.json.encode(payment)
    insert = (
        "INSERT INTO payments (txn_id, state, amount_sen, reference, created_ms, idempotency_key,"
        " request_digest, record) VALUES (?,?,?,?,?,?,?,?)"
    )
    values = (payment.txn_id, payment.state.value, payment.amount_sen, payment.reference, payment.created_ms)
    return [
        (insert, (*values, idempotency_key, request_digest, record)),
        _change(payment, "requested", record),
    ]


def changed_payment(payment: Payment, fact: Fact, alerts: Sequence[Alert] = ()) -> list[Row]:
    """The rows of a fact that happened to a payment."""
    record = msgspec.json.encode(payment)
    update = "UPDATE payments SET state = ?, record = ? WHERE txn_id = ?"
    rows: list[Row] = [
        (update, (payment.state.value, record, payment.txn_id)),
        _change(payment, fact.value, record),
    ]
    rows += [alert_row(item, payment.updated_ms, payment.txn_id, payment.terminal) for item in alerts]
    close = "UPDATE alerts SET closed_ms = ? WHERE txn_id = ? AND closed_ms IS NULL"
    if fact in (Fact.SETTLED_PAID, Fact.SETTLED_UNPAID):
        rows.append((close, (payment.updated_ms, payment.txn_id)))
    elif fact in (Fact.SUCCESS, Fact.FAILURE) and payment.state not in UNSETTLED:
        rows.append((f"{close} AND kind = 'outcome_unknown'", (payment.updated_ms, payment.txn_id)))
    return rows


def alert_row(alert: Alert, at_ms: int, txn_id: str | None, terminal: str | None) -> Row:
    """Something for a person."""
    sql = "INSERT INTO alerts (at_ms, kind, txn_id, terminal, text) VALUES (?,?,?,?,?)"
    return sql, (at_ms, alert.kind, txn_id, terminal, alert.text)


def closed_alert(number: int, now_ms: int) -> Row:
    """A person has dealt with it."""
    return "UPDATE alerts SET closed_ms = ? WHERE n = ? AND closed_ms IS NULL", (now_ms, number)


def frame_row(
    at_ms: int, direction: str, terminal: str, connection: int, txn_id: str | None, verdict: str, raw: bytes
) -> Row:
    """A frame as it was on the wire."""
    sql = (
        "INSERT INTO frames (at_ms, direction, terminal, connection, txn_id, verdict, raw)"
        " VALUES (?,?,?,?,?,?,?)"
    )
    return sql, (at_ms, direction, terminal, connection, txn_id, verdict, raw)


def nonce_row(scope: str, nonce: str, expires_ms: int) -> Row:
    """A nonce that was used."""
    return "INSERT OR REPLACE INTO nonces VALUES (?,?,?)", (scope, nonce, expires_ms)


def forget_nonces(now_ms: int) -> Row:
    """Drop nonces that no clock could bring back."""
    return "DELETE FROM nonces WHERE expires_ms < ?", (now_ms,)


def terminal_row(terminal: EnrolledTerminal, now_ms: int) -> Row:
    """A terminal, new or changed."""
    sql = (
        "INSERT INTO terminals VALUES (?,?,?,?,?,?,?) ON CONFLICT (pos_id) DO UPDATE SET sealed_secret ="
        " excluded.sealed_secret, port = excluded.port, amount_form = excluded.amount_form,"
        " forms = excluded.forms, configured = excluded.configured"
    )
    forms = " ".join(terminal.forms)
    values = (terminal.pos_id, terminal.sealed_secret, terminal.port, terminal.amount_form, forms)
    return sql, (*values, int(terminal.configured), now_ms)


def hub_row(hub: HubEntry) -> Row:
    """The hub that this kiosk reports to."""
    sql = (
        "INSERT INTO hub VALUES (1,?,?,?,?) ON CONFLICT (one) DO UPDATE SET url = excluded.url,"
        " account = excluded.account, sealed_key = excluded.sealed_key, cursor = excluded.cursor"
    )
    return sql, (hub.url, hub.account, hub.sealed_key, hub.cursor)


def cursor_row(cursor: int) -> Row:
    """The hub has everything up to this change."""
    return "UPDATE hub SET cursor = ? WHERE cursor < ?", (cursor, cursor)


def hub_order_row(attempt: str, txn_id: str, now_ms: int) -> Row:
    """Under which id an order of the hub's is taken; written before the hub is asked for it."""
    return "INSERT INTO hub_orders VALUES (?,?,?)", (attempt, txn_id, now_ms)


def _change(payment: Payment, fact: str, record: bytes) -> Row:
    sql = "INSERT INTO changes (txn_id, version, at_ms, fact, state, record) VALUES (?,?,?,?,?,?)"
    return sql, (payment.txn_id, payment.version, payment.updated_ms, fact, payment.state.value, record)
