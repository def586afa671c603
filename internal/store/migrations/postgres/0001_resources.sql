-- +goose Up
CREATE TABLE users (
	id uuid PRIMARY KEY,
	version bigint NOT NULL,
	created_at timestamptz NOT NULL,
	updated_at timestamptz NOT NULL,
	created_by uuid,
	email text NOT NULL UNIQUE,
	role text NOT NULL
);

CREATE TABLE providers (
	id uuid PRIMARY KEY,
	version bigint NOT NULL,
	created_at timestamptz NOT NULL,
	updated_at timestamptz NOT NULL,
	created_by uuid NOT NULL REFERENCES users,
	type text NOT NULL,
	source text NOT NULL UNIQUE,
	origin text NOT NULL,
	version_info json NOT NULL,
	agent_card json NOT NULL,
	state text NOT NULL,
	auto_stop_timeout_sec bigint NOT NULL,
	last_active_at timestamptz
);
CREATE INDEX providers_created_by ON providers (created_by);

CREATE TABLE provider_builds (
	id uuid PRIMARY KEY,
	version bigint NOT NULL,
	created_at timestamptz NOT NULL,
	updated_at timestamptz NOT NULL,
	created_by uuid NOT NULL REFERENCES users,
	status text NOT NULL,
	source json NOT NULL,
	on_complete json NOT NULL,
	build_configuration json NOT NULL,
	provider_id uuid REFERENCES providers,
	error_message text
);
CREATE INDEX provider_builds_created_by ON provider_builds (created_by);
CREATE INDEX provider_builds_provider ON provider_builds (provider_id);

CREATE TABLE contexts (
	id uuid PRIMARY KEY,
	version bigint NOT NULL,
	created_at timestamptz NOT NULL,
	updated_at timestamptz NOT NULL,
	created_by uuid NOT NULL REFERENCES users,
	provider_id uuid REFERENCES providers,
	metadata json NOT NULL,
	last_active_at timestamptz NOT NULL,
	history_count bigint NOT NULL
);
CREATE INDEX contexts_created_by ON contexts (created_by);
CREATE INDEX contexts_provider ON contexts (provider_id);
CREATE INDEX contexts_last_active ON contexts (last_active_at);

CREATE TABLE context_history (
	id uuid PRIMARY KEY,
	context_id uuid NOT NULL REFERENCES contexts,
	position bigint NOT NULL,
	created_at timestamptz NOT NULL,
	kind text NOT NULL,
	data json NOT NULL,
	UNIQUE (context_id, position)
);

CREATE TABLE files (
	id uuid PRIMARY KEY,
	version bigint NOT NULL,
	created_at timestamptz NOT NULL,
	updated_at timestamptz NOT NULL,
	created_by uuid NOT NULL REFERENCES users,
	filename text NOT NULL,
	content_type text NOT NULL,
	file_size_bytes bigint NOT NULL,
	file_type text NOT NULL,
	parent_file_id uuid REFERENCES files,
	context_id uuid REFERENCES contexts,
	extraction json
);
CREATE INDEX files_created_by ON files (created_by);
CREATE INDEX files_context ON files (context_id);
CREATE INDEX files_parent ON files (parent_file_id);

CREATE TABLE vector_stores (
	id uuid PRIMARY KEY,
	version bigint NOT NULL,
	created_at timestamptz NOT NULL,
	updated_at timestamptz NOT NULL,
	created_by uuid NOT NULL REFERENCES users,
	name text NOT NULL,
	dimension bigint NOT NULL,
	model_id text NOT NULL,
	usage_bytes bigint NOT NULL,
	num_documents bigint NOT NULL,
	context_id uuid REFERENCES contexts,
	last_active_at timestamptz NOT NULL
);
CREATE INDEX vector_stores_created_by ON vector_stores (created_by);
CREATE INDEX vector_stores_context ON vector_stores (context_id);

CREATE TABLE vector_store_items (
	id uuid NOT NULL,
	vector_store_id uuid NOT NULL REFERENCES vector_stores,
	document_id text NOT NULL,
	document_type text NOT NULL,
	created_at timestamptz NOT NULL,
	text text NOT NULL,
	embedding bytea NOT NULL,
	usage_bytes bigint NOT NULL,
	metadata json,
	PRIMARY KEY (vector_store_id, id)
);
CREATE INDEX vector_store_items_document ON vector_store_items (vector_store_id, document_id);

CREATE TABLE model_providers (
	id uuid PRIMARY KEY,
	version bigint NOT NULL,
	created_at timestamptz NOT NULL,
	updated_at timestamptz NOT NULL,
	created_by uuid,
	type text NOT NULL,
	name text,
	description text,
	base_url text NOT NULL UNIQUE,
	api_key bytea NOT NULL,
	watsonx_project_id text,
	watsonx_space_id text
);

CREATE TABLE configurations (
	id uuid PRIMARY KEY,
	version bigint NOT NULL,
	created_at timestamptz NOT NULL,
	updated_at timestamptz NOT NULL,
	created_by uuid,
	kind text NOT NULL UNIQUE,
	default_llm_model text,
	default_embedding_model text
);

-- The system configuration always exists, with a fixed id.
INSERT INTO configurations (id, version, created_at, updated_at, kind)
VALUES (gen_random_uuid(), 1, now(), now(), 'system');

CREATE TABLE connectors (
	id uuid PRIMARY KEY,
	version bigint NOT NULL,
	created_at timestamptz NOT NULL,
	updated_at timestamptz NOT NULL,
	created_by uuid NOT NULL REFERENCES users,
	url text NOT NULL,
	client_id text,
	client_secret bytea,
	state text NOT NULL,
	disconnect_reason text,
	metadata json NOT NULL,
	UNIQUE (created_by, url)
);

CREATE TABLE user_feedback (
	id uuid PRIMARY KEY,
	version bigint NOT NULL,
	created_at timestamptz NOT NULL,
	updated_at timestamptz NOT NULL,
	created_by uuid NOT NULL REFERENCES users,
	provider_id uuid NOT NULL REFERENCES providers,
	task_id uuid NOT NULL,
	context_id uuid NOT NULL,
	rating bigint NOT NULL,
	message text NOT NULL,
	comment text,
	comment_tags json
);
CREATE INDEX user_feedback_created_by ON user_feedback (created_by);
CREATE INDEX user_feedback_provider ON user_feedback (provider_id);

CREATE TABLE variables (
	owner_id uuid NOT NULL,
	name text NOT NULL,
	value bytea NOT NULL,
	PRIMARY KEY (owner_id, name)
);
