-- +goose Up
CREATE TABLE tidings_events (
	-- AUTOINCREMENT: a position is never given out twice, even after the newest
	-- rows were deleted; it rolls back with its transaction, so there are no gaps.
	seq INTEGER PRIMARY KEY AUTOINCREMENT,
	id TEXT NOT NULL,
	resource_type TEXT NOT NULL,
	action TEXT NOT NULL,
	resource_id TEXT NOT NULL,
	resource_url TEXT NOT NULL,
	user_id TEXT NOT NULL,
	at INTEGER NOT NULL,
	resource_version INTEGER NOT NULL
);

CREATE TABLE tidings_cursors (
	endpoint TEXT PRIMARY KEY,
	seq INTEGER NOT NULL,
	disabled TEXT NOT NULL,
	fingerprint TEXT NOT NULL,
	saved_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE tidings_retries (
	endpoint TEXT NOT NULL,
	seq INTEGER NOT NULL,
	id TEXT NOT NULL,
	resource_type TEXT NOT NULL,
	action TEXT NOT NULL,
	resource_id TEXT NOT NULL,
	resource_url TEXT NOT NULL,
	user_id TEXT NOT NULL,
	at INTEGER NOT NULL,
	resource_version INTEGER NOT NULL,
	attempts INTEGER NOT NULL,
	first_at INTEGER NOT NULL,
	next_at INTEGER NOT NULL,
	dead_at INTEGER NOT NULL,
	reason TEXT NOT NULL,
	PRIMARY KEY (endpoint, seq)
) WITHOUT ROWID;
CREATE INDEX tidings_retries_resource ON tidings_retries (endpoint, resource_type, resource_id, seq) WHERE dead_at = 0;
