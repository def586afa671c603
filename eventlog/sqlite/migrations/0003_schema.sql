-- +goose Up
-- SQLite has no schemas; the number matches PostgreSQL's.
SELECT 1;
