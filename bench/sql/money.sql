-- The money transaction: a payment, two ledger entries and an outbox row; 4 rows, 9 b-trees.
CREATE TABLE payments (
    id bigserial PRIMARY KEY,
    merchant_id bigint NOT NULL,
    idem_key text NOT NULL,
    order_id text NOT NULL,
    amount bigint NOT NULL,
    currency text NOT NULL,
    status text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (merchant_id, idem_key)
);
CREATE TABLE ledger_entries (
    id bigserial PRIMARY KEY,
    payment_id bigint NOT NULL REFERENCES payments (id),
    account_id bigint NOT NULL,
    amount bigint NOT NULL,
    currency text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ledger_entries_payment ON ledger_entries (payment_id);
CREATE INDEX ledger_entries_account ON ledger_entries (account_id, id);
CREATE TABLE outbox (
    id bigserial PRIMARY KEY,
    payment_id bigint NOT NULL,
    event text NOT NULL,
    body text NOT NULL,
    sent_at timestamptz
);
CREATE INDEX outbox_waiting ON outbox (id) WHERE sent_at IS NULL;
