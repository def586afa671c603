-- +goose Up
-- What is settled above a cursor; see eventlog.Marks.
ALTER TABLE tidings_cursors ADD COLUMN marks text NOT NULL DEFAULT '';

-- Parked events are looked up by when they are due.
CREATE INDEX tidings_retries_due ON tidings_retries (endpoint, next_at) WHERE dead_at = 0 AND next_at > 0;
