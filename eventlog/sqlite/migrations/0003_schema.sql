-- +goose Up
-- SQLite has no schemas; the number is that of PostgreSQL's.
SELECT 1;
