-- +goose Up
-- Since when an endpoint is no longer configured; 0 if it is.
ALTER TABLE tidings_cursors ADD COLUMN removed_at INTEGER NOT NULL DEFAULT 0;

-- Dead letters expire.
CREATE INDEX tidings_retries_dead ON tidings_retries (dead_at) WHERE dead_at > 0;

-- How many rows of tidings_retries each endpoint has, kept in the transactions that
-- change them.
CREATE TABLE tidings_parked (
	endpoint TEXT PRIMARY KEY,
	live INTEGER NOT NULL,
	dead INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO tidings_parked SELECT endpoint, sum(dead_at = 0), sum(dead_at > 0) FROM tidings_retries GROUP BY endpoint;

-- +goose StatementBegin
CREATE TRIGGER tidings_parked_insert AFTER INSERT ON tidings_retries BEGIN
	INSERT INTO tidings_parked VALUES (NEW.endpoint, NEW.dead_at = 0, NEW.dead_at > 0)
		ON CONFLICT (endpoint) DO UPDATE SET live = live + excluded.live, dead = dead + excluded.dead;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER tidings_parked_delete AFTER DELETE ON tidings_retries BEGIN
	UPDATE tidings_parked SET live = live - (OLD.dead_at = 0), dead = dead - (OLD.dead_at > 0) WHERE endpoint = OLD.endpoint;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER tidings_parked_update AFTER UPDATE OF endpoint, dead_at ON tidings_retries BEGIN
	UPDATE tidings_parked SET live = live - (OLD.dead_at = 0), dead = dead - (OLD.dead_at > 0) WHERE endpoint = OLD.endpoint;
	INSERT INTO tidings_parked VALUES (NEW.endpoint, NEW.dead_at = 0, NEW.dead_at > 0)
		ON CONFLICT (endpoint) DO UPDATE SET live = live + excluded.live, dead = dead + excluded.dead;
END;
-- +goose StatementEnd
