-- +goose Up
-- Sums over the items of a vector store, and its documents, are in the index: the
-- rows are large.
DROP INDEX vector_store_items_document;
CREATE INDEX vector_store_items_document
	ON vector_store_items (vector_store_id, document_id, document_type, usage_bytes, created_at);
