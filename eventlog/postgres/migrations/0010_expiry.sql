-- +goose Up
-- When events last expired, and when the clock had advanced too far since then.
CREATE TABLE tidings_expiry (
	singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
	run_at bigint NOT NULL,
	jumped_at bigint NOT NULL,
	jump bigint NOT NULL
);
INSERT INTO tidings_expiry (run_at, jumped_at, jump) VALUES (0, 0, 0);

ALTER TABLE tidings_replays ADD COLUMN expired bigint NOT NULL DEFAULT 0;
