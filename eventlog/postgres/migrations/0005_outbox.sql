-- +goose Up
-- The transaction that wrote an event shows which events are already numbered: those
-- of transactions that ended before the last move began. Events are looked up by it, so that
-- numbered events that a long snapshot keeps alive are never read again.
ALTER TABLE tidings_outbox ADD COLUMN xid bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint;
CREATE INDEX tidings_outbox_xid ON tidings_outbox (xid);
-- Truncating the empty end of the table would block writers.
ALTER TABLE tidings_outbox SET (vacuum_truncate = false);

-- seen is the snapshot of a move that left nothing behind: 3 is the first transaction
-- of a database system. system identifies the database system of these transactions.
ALTER TABLE tidings_head
	ADD COLUMN seen text NOT NULL DEFAULT '3:3:',
	ADD COLUMN system text NOT NULL DEFAULT '';
-- A reader that knows an earlier position skips the versions of the row before it.
CREATE INDEX tidings_head_seq ON tidings_head (seq);
