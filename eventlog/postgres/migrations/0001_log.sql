-- +goose Up
CREATE TABLE tidings_outbox (
	position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	id text NOT NULL,
	resource_type text NOT NULL,
	action text NOT NULL,
	resource_id text NOT NULL,
	resource_url text NOT NULL,
	user_id text NOT NULL,
	at bigint NOT NULL,
	resource_version bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE TABLE tidings_events (
	seq bigint PRIMARY KEY,
	id text NOT NULL,
	resource_type text NOT NULL,
	action text NOT NULL,
	resource_id text NOT NULL,
	resource_url text NOT NULL,
	user_id text NOT NULL,
	at bigint NOT NULL,
	resource_version bigint NOT NULL
);

-- One row: the position of the last numbered event. The holder of its lock moves
-- events from the outbox into the log.
CREATE TABLE tidings_head (
	singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
	seq bigint NOT NULL
);
INSERT INTO tidings_head (seq) VALUES (0);

CREATE TABLE tidings_cursors (
	endpoint text PRIMARY KEY,
	seq bigint NOT NULL,
	disabled text NOT NULL,
	fingerprint text NOT NULL,
	saved_at bigint NOT NULL
);

CREATE TABLE tidings_retries (
	endpoint text NOT NULL,
	seq bigint NOT NULL,
	id text NOT NULL,
	resource_type text NOT NULL,
	action text NOT NULL,
	resource_id text NOT NULL,
	resource_url text NOT NULL,
	user_id text NOT NULL,
	at bigint NOT NULL,
	resource_version bigint NOT NULL,
	attempts bigint NOT NULL,
	first_at bigint NOT NULL,
	next_at bigint NOT NULL,
	dead_at bigint NOT NULL,
	reason text NOT NULL,
	PRIMARY KEY (endpoint, seq)
);
CREATE INDEX tidings_retries_resource ON tidings_retries (endpoint, resource_type, resource_id, seq) WHERE dead_at = 0;
