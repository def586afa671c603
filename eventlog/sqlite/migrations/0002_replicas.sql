-- +goose Up
ALTER TABLE tidings_events ADD COLUMN owner_id TEXT NOT NULL DEFAULT '';
ALTER TABLE tidings_events ADD COLUMN trace TEXT NOT NULL DEFAULT '';

-- Many attempts share one row: an index, and a text with one line for each.
CREATE TABLE tidings_history (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	endpoint TEXT NOT NULL,
	first_at INTEGER NOT NULL,
	last_at INTEGER NOT NULL,
	lowest INTEGER NOT NULL,
	highest INTEGER NOT NULL,
	records INTEGER NOT NULL,
	failures INTEGER NOT NULL,
	records_text TEXT NOT NULL,
	written_at INTEGER NOT NULL
);
CREATE INDEX tidings_history_endpoint ON tidings_history (endpoint, id);
CREATE INDEX tidings_history_written ON tidings_history (written_at);

CREATE TABLE tidings_replicas (
	id TEXT PRIMARY KEY,
	fellows TEXT NOT NULL,
	expires_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE tidings_controls (
	endpoint TEXT PRIMARY KEY,
	disabled TEXT NOT NULL,
	fingerprint TEXT NOT NULL,
	since INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO tidings_controls SELECT endpoint, disabled, fingerprint, saved_at FROM tidings_cursors WHERE disabled <> '';

ALTER TABLE tidings_cursors RENAME TO tidings_cursors_first;
CREATE TABLE tidings_cursors (
	endpoint TEXT NOT NULL,
	part INTEGER NOT NULL,
	parts INTEGER NOT NULL,
	seq INTEGER NOT NULL,
	owner TEXT NOT NULL,
	generation INTEGER NOT NULL,
	status TEXT NOT NULL,
	saved_at INTEGER NOT NULL,
	PRIMARY KEY (endpoint, part)
) WITHOUT ROWID;
INSERT INTO tidings_cursors SELECT endpoint, 0, 1, seq, '', 0, '', saved_at FROM tidings_cursors_first;
DROP TABLE tidings_cursors_first;

CREATE TABLE tidings_gaps (
	endpoint TEXT NOT NULL,
	part INTEGER NOT NULL,
	from_seq INTEGER NOT NULL,
	to_seq INTEGER NOT NULL,
	at INTEGER NOT NULL,
	PRIMARY KEY (endpoint, part, from_seq)
) WITHOUT ROWID;

-- lane is a hash of the resource that determines its partition of an endpoint.
ALTER TABLE tidings_retries ADD COLUMN owner_id TEXT NOT NULL DEFAULT '';
ALTER TABLE tidings_retries ADD COLUMN trace TEXT NOT NULL DEFAULT '';
ALTER TABLE tidings_retries ADD COLUMN lane INTEGER NOT NULL DEFAULT 0;

CREATE TABLE tidings_replays (
	id TEXT PRIMARY KEY,
	endpoint TEXT NOT NULL,
	dead INTEGER NOT NULL,
	from_seq INTEGER NOT NULL,
	to_seq INTEGER NOT NULL,
	since INTEGER NOT NULL,
	until INTEGER NOT NULL,
	patterns TEXT NOT NULL,
	resource TEXT NOT NULL,
	position INTEGER NOT NULL,
	delivered INTEGER NOT NULL,
	failed INTEGER NOT NULL,
	reason TEXT NOT NULL,
	state TEXT NOT NULL,
	created_at INTEGER NOT NULL,
	updated_at INTEGER NOT NULL,
	created_by TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX tidings_replays_running ON tidings_replays (endpoint) WHERE state = 'running';
