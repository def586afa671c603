-- +goose Up
-- The triggers of a source, by their place: the oid and the xmin of each row of
-- pg_trigger. One that was disabled and enabled again has another xmin.
ALTER TABLE tidings_sources ADD COLUMN triggers jsonb NOT NULL DEFAULT '{}';
