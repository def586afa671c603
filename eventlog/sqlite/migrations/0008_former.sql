-- +goose Up
-- The name that an endpoint had, while its parked events still have it.
ALTER TABLE tidings_cursors ADD COLUMN former TEXT NOT NULL DEFAULT '';
