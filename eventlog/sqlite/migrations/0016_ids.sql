-- +goose Up
-- Events are looked up by id. Ids begin with a time, so that rows are added at the
-- end of the index.
CREATE INDEX tidings_events_id ON tidings_events (id);
CREATE INDEX tidings_retries_id ON tidings_retries (id);
