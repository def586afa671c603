-- +goose Up
-- When events last expired, and when the clock had advanced too far since then.
CREATE TABLE tidings_expiry (
	singleton INTEGER PRIMARY KEY DEFAULT 1 CHECK (singleton = 1),
	run_at INTEGER NOT NULL,
	jumped_at INTEGER NOT NULL,
	jump INTEGER NOT NULL
);
INSERT INTO tidings_expiry (run_at, jumped_at, jump) VALUES (0, 0, 0);

ALTER TABLE tidings_replays ADD COLUMN expired INTEGER NOT NULL DEFAULT 0;

-- When it was logged, by the clock of this machine; at is the event's own time.
ALTER TABLE tidings_events ADD COLUMN logged_at INTEGER NOT NULL DEFAULT 0;
UPDATE tidings_events SET logged_at = at;
