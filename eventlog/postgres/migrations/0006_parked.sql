-- +goose Up
-- Since when an endpoint is no longer configured; 0 if it is.
ALTER TABLE tidings_cursors ADD COLUMN removed_at bigint NOT NULL DEFAULT 0;

-- Dead letters expire.
CREATE INDEX tidings_retries_dead ON tidings_retries (dead_at) WHERE dead_at > 0;

-- How many rows of tidings_retries each endpoint has, kept in the transactions that
-- change them.
CREATE TABLE tidings_parked (
	endpoint text PRIMARY KEY,
	live bigint NOT NULL,
	dead bigint NOT NULL
) WITH (fillfactor = 50);
INSERT INTO tidings_parked
	SELECT endpoint, count(*) FILTER (WHERE dead_at = 0), count(*) FILTER (WHERE dead_at > 0) FROM tidings_retries GROUP BY endpoint;

-- Rows are locked in the order of their names.
-- +goose StatementBegin
CREATE FUNCTION tidings_count_parked() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
	IF TG_OP = 'INSERT' THEN
		INSERT INTO tidings_parked AS p
			SELECT endpoint, count(*) FILTER (WHERE dead_at = 0), count(*) FILTER (WHERE dead_at > 0)
			FROM after_rows GROUP BY endpoint ORDER BY endpoint
		ON CONFLICT (endpoint) DO UPDATE SET live = p.live + excluded.live, dead = p.dead + excluded.dead;
	ELSIF TG_OP = 'DELETE' THEN
		INSERT INTO tidings_parked AS p
			SELECT endpoint, -count(*) FILTER (WHERE dead_at = 0), -count(*) FILTER (WHERE dead_at > 0)
			FROM before_rows GROUP BY endpoint ORDER BY endpoint
		ON CONFLICT (endpoint) DO UPDATE SET live = p.live + excluded.live, dead = p.dead + excluded.dead;
	ELSE
		INSERT INTO tidings_parked AS p
			SELECT endpoint, coalesce(sum(n) FILTER (WHERE dead_at = 0), 0), coalesce(sum(n) FILTER (WHERE dead_at > 0), 0)
			FROM (SELECT endpoint, dead_at, 1 AS n FROM after_rows UNION ALL SELECT endpoint, dead_at, -1 FROM before_rows) r
			GROUP BY endpoint
			HAVING coalesce(sum(n) FILTER (WHERE dead_at = 0), 0) <> 0 OR coalesce(sum(n) FILTER (WHERE dead_at > 0), 0) <> 0
			ORDER BY endpoint
		ON CONFLICT (endpoint) DO UPDATE SET live = p.live + excluded.live, dead = p.dead + excluded.dead;
	END IF;
	RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER tidings_parked_insert AFTER INSERT ON tidings_retries
	REFERENCING NEW TABLE AS after_rows FOR EACH STATEMENT EXECUTE FUNCTION tidings_count_parked();
CREATE TRIGGER tidings_parked_update AFTER UPDATE ON tidings_retries
	REFERENCING OLD TABLE AS before_rows NEW TABLE AS after_rows FOR EACH STATEMENT EXECUTE FUNCTION tidings_count_parked();
CREATE TRIGGER tidings_parked_delete AFTER DELETE ON tidings_retries
	REFERENCING OLD TABLE AS before_rows FOR EACH STATEMENT EXECUTE FUNCTION tidings_count_parked();
