-- +goose Up
-- What replicas say of themselves.
ALTER TABLE tidings_replicas ADD COLUMN version TEXT NOT NULL DEFAULT '';
ALTER TABLE tidings_replicas ADD COLUMN started_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tidings_replicas ADD COLUMN memory INTEGER NOT NULL DEFAULT 0;
