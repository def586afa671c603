-- +goose Up
ALTER TABLE tidings_outbox ADD COLUMN owner_id text NOT NULL DEFAULT '', ADD COLUMN trace text NOT NULL DEFAULT '';

-- The log becomes partitioned by time, so that expiry drops partitions; what is
-- in the log becomes the first of them.
ALTER TABLE tidings_events
	ADD COLUMN owner_id text NOT NULL DEFAULT '',
	ADD COLUMN trace text NOT NULL DEFAULT '',
	ADD COLUMN logged_at bigint NOT NULL DEFAULT 0;
UPDATE tidings_events SET logged_at = at;
ALTER TABLE tidings_events DROP CONSTRAINT tidings_events_pkey;
ALTER TABLE tidings_events ALTER COLUMN logged_at DROP DEFAULT;
ALTER TABLE tidings_events RENAME TO tidings_events_first;
CREATE TABLE tidings_events (
	seq bigint NOT NULL,
	id text NOT NULL,
	resource_type text NOT NULL,
	action text NOT NULL,
	resource_id text NOT NULL,
	resource_url text NOT NULL,
	user_id text NOT NULL,
	at bigint NOT NULL,
	resource_version bigint NOT NULL,
	owner_id text NOT NULL DEFAULT '',
	trace text NOT NULL DEFAULT '',
	logged_at bigint NOT NULL,
	PRIMARY KEY (seq, logged_at)
) PARTITION BY RANGE (logged_at);

-- Many attempts share one row: an index, and a text with one line for each.
CREATE SEQUENCE tidings_history_id;
CREATE TABLE tidings_history (
	id bigint NOT NULL DEFAULT nextval('tidings_history_id'),
	endpoint text NOT NULL,
	first_at bigint NOT NULL,
	last_at bigint NOT NULL,
	lowest bigint NOT NULL,
	highest bigint NOT NULL,
	records bigint NOT NULL,
	failures bigint NOT NULL,
	records_text text NOT NULL,
	written_at bigint NOT NULL,
	PRIMARY KEY (id, written_at)
) PARTITION BY RANGE (written_at);
ALTER TABLE tidings_history ALTER COLUMN records_text SET STORAGE EXTERNAL;
CREATE INDEX tidings_history_endpoint ON tidings_history (endpoint, id);

-- The names of partitions hold their bounds.
-- +goose StatementBegin
DO $$
DECLARE until bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + 1;
BEGIN
	EXECUTE format('ALTER TABLE tidings_events_first RENAME TO tidings_events_0_%s', until);
	EXECUTE format('ALTER TABLE tidings_events ATTACH PARTITION tidings_events_0_%s FOR VALUES FROM (MINVALUE) TO (%s)', until, until);
	EXECUTE format('CREATE TABLE tidings_history_0_%s PARTITION OF tidings_history FOR VALUES FROM (MINVALUE) TO (%s)', until, until);
END $$;
-- +goose StatementEnd

CREATE TABLE tidings_replicas (
	id text PRIMARY KEY,
	fellows text NOT NULL,
	expires_at bigint NOT NULL
);

CREATE TABLE tidings_controls (
	endpoint text PRIMARY KEY,
	disabled text NOT NULL,
	fingerprint text NOT NULL,
	since bigint NOT NULL
);
INSERT INTO tidings_controls SELECT endpoint, disabled, fingerprint, saved_at FROM tidings_cursors WHERE disabled <> '';

ALTER TABLE tidings_cursors
	DROP COLUMN disabled,
	DROP COLUMN fingerprint,
	ADD COLUMN part bigint NOT NULL DEFAULT 0,
	ADD COLUMN parts bigint NOT NULL DEFAULT 1,
	ADD COLUMN owner text NOT NULL DEFAULT '',
	ADD COLUMN generation bigint NOT NULL DEFAULT 0,
	ADD COLUMN status text NOT NULL DEFAULT '',
	DROP CONSTRAINT tidings_cursors_pkey,
	ADD PRIMARY KEY (endpoint, part);
ALTER TABLE tidings_cursors SET (fillfactor = 50);

CREATE TABLE tidings_gaps (
	endpoint text NOT NULL,
	part bigint NOT NULL,
	from_seq bigint NOT NULL,
	to_seq bigint NOT NULL,
	at bigint NOT NULL,
	PRIMARY KEY (endpoint, part, from_seq)
);

-- lane is a hash of the resource that determines its partition of an endpoint.
-- Versions without it parked only what one process parked for its
-- only partition.
ALTER TABLE tidings_retries
	ADD COLUMN owner_id text NOT NULL DEFAULT '',
	ADD COLUMN trace text NOT NULL DEFAULT '',
	ADD COLUMN lane bigint NOT NULL DEFAULT 0;

CREATE TABLE tidings_replays (
	id text PRIMARY KEY,
	endpoint text NOT NULL,
	dead bigint NOT NULL,
	from_seq bigint NOT NULL,
	to_seq bigint NOT NULL,
	since bigint NOT NULL,
	until bigint NOT NULL,
	patterns text NOT NULL,
	resource text NOT NULL,
	position bigint NOT NULL,
	delivered bigint NOT NULL,
	failed bigint NOT NULL,
	reason text NOT NULL,
	state text NOT NULL,
	created_at bigint NOT NULL,
	updated_at bigint NOT NULL,
	created_by text NOT NULL
);
CREATE INDEX tidings_replays_running ON tidings_replays (endpoint) WHERE state = 'running';
