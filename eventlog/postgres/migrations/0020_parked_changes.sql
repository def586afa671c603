-- +goose Up
-- Retries and discards of many parked events, which go on in the background.
CREATE TABLE tidings_parked_changes (
	id text PRIMARY KEY,
	action text NOT NULL,
	endpoint text NOT NULL,
	dead bigint NOT NULL,
	reason text NOT NULL,
	patterns text NOT NULL,
	resource text NOT NULL,
	comment text NOT NULL,
	position bigint NOT NULL,
	to_seq bigint NOT NULL,
	total bigint NOT NULL,
	done bigint NOT NULL,
	state text NOT NULL,
	created_at bigint NOT NULL,
	updated_at bigint NOT NULL,
	created_by text NOT NULL,
	owner text NOT NULL DEFAULT '',
	held_until bigint NOT NULL DEFAULT 0
);
