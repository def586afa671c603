-- +goose Up
-- What replicas say of themselves.
ALTER TABLE tidings_replicas
	ADD COLUMN version text NOT NULL DEFAULT '',
	ADD COLUMN started_at bigint NOT NULL DEFAULT 0,
	ADD COLUMN memory bigint NOT NULL DEFAULT 0;
