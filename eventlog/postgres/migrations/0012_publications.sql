-- +goose Up
-- The idempotency keys of published events, hashed, and what they were used for.
CREATE TABLE tidings_publications (
	key text PRIMARY KEY,
	fingerprint text NOT NULL,
	event_id text NOT NULL,
	at bigint NOT NULL
);
CREATE INDEX tidings_publications_at ON tidings_publications (at);
