-- +goose Up
-- See eventlog.Epoch. start identifies the process start that began the epoch.
CREATE TABLE tidings_epochs (
	number INTEGER PRIMARY KEY AUTOINCREMENT,
	id TEXT NOT NULL,
	base INTEGER NOT NULL,
	began_at INTEGER NOT NULL,
	beyond INTEGER NOT NULL,
	start TEXT NOT NULL
);
ALTER TABLE tidings_cursors ADD COLUMN epoch TEXT NOT NULL DEFAULT '';

-- Why the events of a gap are missing: they expired, or the database lost them.
ALTER TABLE tidings_gaps RENAME TO tidings_gaps_first;
CREATE TABLE tidings_gaps (
	endpoint TEXT NOT NULL,
	part INTEGER NOT NULL,
	from_seq INTEGER NOT NULL,
	to_seq INTEGER NOT NULL,
	at INTEGER NOT NULL,
	reason TEXT NOT NULL,
	PRIMARY KEY (endpoint, part, from_seq, reason)
) WITHOUT ROWID;
INSERT INTO tidings_gaps SELECT endpoint, part, from_seq, to_seq, at, 'expired' FROM tidings_gaps_first;
DROP TABLE tidings_gaps_first;
