-- +goose Up
-- Lists of files may be sorted by name or size; ties are broken by id.
CREATE INDEX files_filename ON files (created_by, filename, id);
CREATE INDEX files_size ON files (created_by, file_size_bytes, id);
