-- +goose Up
-- Why the last attempt failed, and the receiver's response.
ALTER TABLE tidings_retries
	ADD COLUMN last_at bigint NOT NULL DEFAULT 0,
	ADD COLUMN detail text NOT NULL DEFAULT '',
	ADD COLUMN response text NOT NULL DEFAULT '';

-- The oldest parked event of an endpoint; and those discarded, until the owner of
-- their partition removes them (dead_at is -1).
CREATE INDEX tidings_retries_oldest ON tidings_retries (endpoint, seq) WHERE dead_at = 0;
CREATE INDEX tidings_retries_discarded ON tidings_retries (endpoint, seq) WHERE dead_at < 0;

ALTER TABLE tidings_replays
	ADD COLUMN missed bigint NOT NULL DEFAULT 0,
	ADD COLUMN total bigint NOT NULL DEFAULT 0,
	ADD COLUMN attempts bigint NOT NULL DEFAULT 0,
	ADD COLUMN skipped bigint NOT NULL DEFAULT 0;

-- When an operator last changed the endpoint's parked events.
ALTER TABLE tidings_controls ADD COLUMN parked_at bigint NOT NULL DEFAULT 0;
