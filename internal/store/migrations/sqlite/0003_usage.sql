-- +goose Up
-- Indexes for the sums and counts that quotas limit.
ALTER TABLE context_history ADD COLUMN size_bytes INTEGER NOT NULL DEFAULT 0;
UPDATE context_history SET size_bytes = length(CAST(data AS BLOB));
ALTER TABLE contexts ADD COLUMN history_bytes INTEGER NOT NULL DEFAULT 0;
UPDATE contexts SET history_bytes = (
	SELECT coalesce(sum(size_bytes), 0) FROM context_history WHERE context_id = contexts.id
);
ALTER TABLE vector_stores ADD COLUMN num_items INTEGER NOT NULL DEFAULT 0;
UPDATE vector_stores SET num_items = (
	SELECT count(*) FROM vector_store_items WHERE vector_store_id = vector_stores.id
);
