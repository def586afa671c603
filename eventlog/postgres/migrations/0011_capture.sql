-- +goose Up
-- Rows of triggers and of emit() have a source, and are completed when they are
-- numbered: id, URL, version. 0 is emit(); others are rows of tidings_sources. The
-- source of events that the log's own Append wrote is null: they are complete.
ALTER TABLE tidings_outbox ADD COLUMN source integer;

-- The last resource_version given to such a row, in microseconds: versions grow with
-- each event, whatever the clock does.
ALTER TABLE tidings_head ADD COLUMN version bigint NOT NULL DEFAULT 0;

-- What triggers report; package outbox/capture writes it. relation is quoted, with its
-- schema. part is empty, or the table whose resources these rows are parts of, with the
-- columns that name one. {} in url is the id; an empty url was composed by the
-- trigger. columns has the number of each column that the specification names.
CREATE TABLE tidings_sources (
	id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	relation text NOT NULL,
	part text NOT NULL,
	resource_type text NOT NULL,
	url text NOT NULL,
	spec jsonb NOT NULL,
	relid oid NOT NULL,
	origin text NOT NULL,
	columns jsonb NOT NULL,
	seen_at timestamptz NOT NULL,
	seen_xid bigint NOT NULL,
	detached boolean NOT NULL DEFAULT false,
	UNIQUE (relation, part)
);

-- What triggers noticed: columns that were renamed, dropped or changed. Nothing is
-- unique here, so that no transaction of the application waits for another one.
CREATE TABLE tidings_drift (
	source integer NOT NULL,
	what text NOT NULL,
	at timestamptz NOT NULL
);

-- When changes were not reported.
CREATE TABLE tidings_capture_gaps (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	relation text NOT NULL,
	since timestamptz NOT NULL,
	until timestamptz NOT NULL,
	reason text NOT NULL,
	recovered bigint NOT NULL
);

-- The vocabulary of emit(); without a row, any type is allowed.
CREATE TABLE tidings_types (
	resource_type text PRIMARY KEY,
	actions text[] NOT NULL
);

-- A string with %XX for each byte of the characters that a URL path can't contain, or
-- for control characters only.
-- +goose StatementBegin
CREATE FUNCTION tidings_escape(value text, control_only boolean DEFAULT false) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
	SELECT coalesce(string_agg(CASE
			WHEN c ~ CASE WHEN control_only THEN E'[^\\x01-\\x1f\\x7f-\\u009f]' ELSE '[A-Za-z0-9._~:@!$&()*+,;=-]' END THEN c
			ELSE upper(regexp_replace(encode(convert_to(c, 'UTF8'), 'hex'), '(..)', E'%\\1', 'g'))
		END, '' ORDER BY n), '')
	FROM regexp_split_to_table(value, '') WITH ORDINALITY chars (c, n)
$$;
-- +goose StatementEnd
-- An id that is valid in an event: without control characters, of at most 512 bytes.
-- +goose StatementBegin
CREATE FUNCTION tidings_clean(value text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT AS $$
DECLARE escaped text := tidings_escape(value, true);
BEGIN
	RETURN CASE WHEN octet_length(escaped) <= 512 THEN escaped ELSE left(escaped, 100) || '~' || md5(value) END;
END $$;
-- +goose StatementEnd
