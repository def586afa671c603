-- +goose Up
-- The transaction that wrote the row. A row that was loaded from a backup has another xmin.
ALTER TABLE tidings_epochs ADD COLUMN written xid;
ALTER TABLE tidings_epochs ALTER COLUMN written SET DEFAULT pg_current_xact_id()::xid;
UPDATE tidings_epochs SET written = pg_current_xact_id()::xid;
