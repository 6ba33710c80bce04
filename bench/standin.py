"""A database in the hub's shape, to try the floors without a hub: tables, and a create that fills them."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_DDL = """
CREATE TABLE payments (
    id TEXT PRIMARY KEY, merchant_id INTEGER NOT NULL, order_id TEXT NOT NULL, order_key BLOB NOT NULL UNIQUE,
    amount INTEGER NOT NULL, currency TEXT NOT NULL, channel TEXT NOT NULL, status TEXT NOT NULL,
    paid_total INTEGER NOT NULL, refunded_total INTEGER NOT NULL, version INTEGER NOT NULL,
    created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX payments_page ON payments (merchant_id, created_at, id);
CREATE TABLE attempts (
    id TEXT PRIMARY KEY, payment_id TEXT NOT NULL REFERENCES payments (id), account_id INTEGER NOT NULL,
    phase TEXT NOT NULL, shown TEXT NOT NULL, created_at INTEGER NOT NULL
);
CREATE UNIQUE INDEX attempts_live ON attempts (payment_id) WHERE phase IN ('created', 'pending', 'unsure');
CREATE TABLE postings (
    id INTEGER PRIMARY KEY, payment_id TEXT NOT NULL REFERENCES payments (id), debit TEXT NOT NULL,
    credit TEXT NOT NULL, amount INTEGER NOT NULL, currency TEXT NOT NULL, at INTEGER NOT NULL
);
CREATE INDEX postings_payment ON postings (payment_id);
CREATE TABLE events (
    merchant_id INTEGER NOT NULL, seq INTEGER NOT NULL, id TEXT NOT NULL UNIQUE, payment_id TEXT NOT NULL,
    type TEXT NOT NULL, body TEXT NOT NULL, hash BLOB NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (merchant_id, seq)
) WITHOUT ROWID;
CREATE TABLE due (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL, due_at INTEGER NOT NULL, lease TEXT
);
CREATE INDEX due_next ON due (due_at) WHERE lease IS NULL;
CREATE TABLE balances (
    account TEXT NOT NULL, currency TEXT NOT NULL, amount INTEGER NOT NULL, PRIMARY KEY (account, currency)
);
CREATE TABLE heads (merchant_id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, hash BLOB NOT NULL);
"""


def make(database: Path) -> None:
    with closing(sqlite3.connect(database)) as db:
        db.executescript("PRAGMA journal_mode = WAL;" + _DDL)
        db.execute("INSERT INTO heads VALUES (1, 0, x'00')")
        db.executemany("INSERT INTO balances VALUES (?, 'IDR', 0)", [("merchant:1",), ("provider:sandbox",)])
        db.commit()


def create(database: Path) -> None:
    """One payment, all rows of it, in one transaction."""
    now_ms = time.time_ns() // 1_000_000
    time.sleep(0.002)
    payment = f"pay_{now_ms:012x}{os.urandom(10).hex()}"
    order, digest, chain = f"order-{random.randrange(10**11, 10**12)}", os.urandom(16), os.urandom(32)
    with closing(sqlite3.connect(database)) as db, db:
        (seq,) = db.execute("SELECT seq + 1 FROM heads WHERE merchant_id = 1").fetchone()
        db.execute(
            "INSERT INTO payments VALUES (?, 1, ?, ?, 15000000, 'IDR', 'gopay', 'pending', 0, 0, 1, ?, ?)",
            (payment, order, digest, now_ms, now_ms + 900_000),
        )
        shown = f"00020101021226610014COM.GO-JEK.WWW{os.urandom(60).hex()}6304ABCD"
        db.execute(
            "INSERT INTO attempts VALUES (?, ?, 1, 'pending', ?, ?)",
            (f"att_{payment[4:]}", payment, shown, now_ms),
        )
        db.execute(
            "INSERT INTO postings (payment_id, debit, credit, amount, currency, at) "
            "VALUES (?, 'a', 'b', 15000000, 'IDR', ?)",
            (payment, now_ms),
        )
        body = f'{{"payment_id":"{payment}","order_id":"{order}","status":"pending","amount":150000}}'
        db.execute(
            "INSERT INTO events VALUES (1, ?, ?, ?, 'payment.pending', ?, ?, ?)",
            (seq, f"evt_{payment[4:]}", payment, body, chain, now_ms),
        )
        db.execute(
            "INSERT INTO due (kind, subject, due_at) VALUES ('expire', ?, ?)", (payment, now_ms + 900_000)
        )
        db.execute("UPDATE balances SET amount = amount + 15000000 WHERE account = 'merchant:1'")
        db.execute("UPDATE balances SET amount = amount - 15000000 WHERE account = 'provider:sandbox'")
        db.execute("UPDATE heads SET seq = ?, hash = ? WHERE merchant_id = 1", (seq, chain))
