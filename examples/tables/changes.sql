-- What the application does, unchanged.
INSERT INTO orders (customer) VALUES ('ann');                    -- order.created
INSERT INTO order_items (order_id, item) VALUES (1, 'lamp');     -- order.updated
UPDATE orders SET updated_at = now();                            -- nothing: the column is ignored

BEGIN;                                                           -- nothing
UPDATE orders SET status = 'paid';
ROLLBACK;

BEGIN;                                                           -- order.updated, by bob
SET LOCAL tidings.user_id = 'bob';
UPDATE orders SET status = 'paid';
COMMIT;

DELETE FROM orders;                                              -- order.deleted
