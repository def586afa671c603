-- +goose Up
-- When events expired last, and when the clock had gone on by too much since then.
CREATE TABLE tidings_expiry (
	singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
	run_at bigint NOT NULL,
	jumped_at bigint NOT NULL,
	jump bigint NOT NULL
);
INSERT INTO tidings_expiry (run_at, jumped_at, jump) VALUES (0, 0, 0);

ALTER TABLE tidings_replays ADD COLUMN expired bigint NOT NULL DEFAULT 0;
