-- +goose Up
-- The former name of an endpoint, while its parked events still have it.
ALTER TABLE tidings_cursors ADD COLUMN former TEXT NOT NULL DEFAULT '';
