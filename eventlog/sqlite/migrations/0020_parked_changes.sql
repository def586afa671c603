-- +goose Up
-- Retries and discards of many parked events, which go on in the background.
CREATE TABLE tidings_parked_changes (
	id TEXT PRIMARY KEY,
	action TEXT NOT NULL,
	endpoint TEXT NOT NULL,
	dead INTEGER NOT NULL,
	reason TEXT NOT NULL,
	patterns TEXT NOT NULL,
	resource TEXT NOT NULL,
	comment TEXT NOT NULL,
	position INTEGER NOT NULL,
	to_seq INTEGER NOT NULL,
	total INTEGER NOT NULL,
	done INTEGER NOT NULL,
	state TEXT NOT NULL,
	created_at INTEGER NOT NULL,
	updated_at INTEGER NOT NULL,
	created_by TEXT NOT NULL,
	owner TEXT NOT NULL DEFAULT '',
	held_until INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
