-- +goose Up
-- From here on the tables are in the schema of Options.Schema; see schemaVersion. The
-- sequence belongs to its table, and moves with it.
ALTER SEQUENCE tidings_history_id OWNED BY tidings_history.id;
