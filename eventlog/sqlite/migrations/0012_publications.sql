-- +goose Up
-- The idempotency keys of published events, hashed, and what they were used for.
CREATE TABLE tidings_publications (
	key TEXT PRIMARY KEY,
	fingerprint TEXT NOT NULL,
	event_id TEXT NOT NULL,
	at INTEGER NOT NULL
);
CREATE INDEX tidings_publications_at ON tidings_publications (at);
