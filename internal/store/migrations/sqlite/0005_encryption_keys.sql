-- +goose Up
-- The keys that may have encrypted values in the database, by their public ids: a
-- server that lacks one of them does not start.
CREATE TABLE encryption_keys (
	id TEXT PRIMARY KEY,
	created_at TIMESTAMP NOT NULL
);
