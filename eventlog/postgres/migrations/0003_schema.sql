-- +goose Up
-- From here on the tables are where Options.Schema says; see schemaVersion. The
-- sequence belongs to its table, and goes wherever that goes.
ALTER SEQUENCE tidings_history_id OWNED BY tidings_history.id;
