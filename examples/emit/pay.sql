-- The application's statements and the event in one transaction. The SELECT is the same
-- with any driver.
CREATE TABLE invoices (id int PRIMARY KEY, paid_at timestamptz);
INSERT INTO invoices VALUES (7), (8);

BEGIN;
SET LOCAL tidings.user_id = 'ann';
UPDATE invoices SET paid_at = now() WHERE id = 7;
SELECT tidings.emit('invoice', 'paid', '7', url => '/invoices/7');
COMMIT; -- invoice.paid

BEGIN;
UPDATE invoices SET paid_at = now() WHERE id = 8;
SELECT tidings.emit('invoice', 'paid', '8', url => '/invoices/8');
ROLLBACK; -- nothing
