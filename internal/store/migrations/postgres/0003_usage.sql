-- +goose Up
-- Indexes for the sums and counts that quotas limit.
ALTER TABLE context_history ADD COLUMN size_bytes bigint NOT NULL DEFAULT 0;
UPDATE context_history SET size_bytes = octet_length(data::text);
ALTER TABLE contexts ADD COLUMN history_bytes bigint NOT NULL DEFAULT 0;
UPDATE contexts SET history_bytes = h.size_bytes
FROM (SELECT context_id, sum(size_bytes) AS size_bytes FROM context_history GROUP BY context_id) h
WHERE h.context_id = contexts.id;
ALTER TABLE vector_stores ADD COLUMN num_items bigint NOT NULL DEFAULT 0;
UPDATE vector_stores SET num_items = i.num_items
FROM (SELECT vector_store_id, count(*) AS num_items FROM vector_store_items GROUP BY vector_store_id) i
WHERE i.vector_store_id = vector_stores.id;
