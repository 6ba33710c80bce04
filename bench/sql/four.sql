\set key random(1, 9000000000000000000)
BEGIN;
INSERT INTO payments (merchant_id, idem_key, order_id, amount, currency, status) VALUES (1, 'key-' || :key, 'order-' || :key, 15000000, 'IDR', 'pending') ON CONFLICT (merchant_id, idem_key) DO NOTHING RETURNING id \gset
INSERT INTO ledger_entries (payment_id, account_id, amount, currency) VALUES (:id, 1, 15000000, 'IDR');
INSERT INTO ledger_entries (payment_id, account_id, amount, currency) VALUES (:id, 2, -15000000, 'IDR');
INSERT INTO outbox (payment_id, event, body) VALUES (:id, 'payment.pending', '{"payment_id":"pay_0123456789abcdef0123456789abcdef","order_id":"order-100000000000","status":"pending","amount":150000,"currency":"IDR"}');
COMMIT;
