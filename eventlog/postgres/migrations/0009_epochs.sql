-- +goose Up
-- See eventlog.Epoch. start identifies the server start that began the epoch.
CREATE TABLE tidings_epochs (
	number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	id text NOT NULL,
	base bigint NOT NULL,
	began_at bigint NOT NULL,
	beyond bigint NOT NULL,
	start text NOT NULL
);
ALTER TABLE tidings_cursors ADD COLUMN epoch text NOT NULL DEFAULT '';

-- Why the events of a gap are missing: they expired, or the database lost them.
ALTER TABLE tidings_gaps ADD COLUMN reason text NOT NULL DEFAULT 'expired';
ALTER TABLE tidings_gaps DROP CONSTRAINT tidings_gaps_pkey, ADD PRIMARY KEY (endpoint, part, from_seq, reason);
