-- +goose Up
CREATE TABLE users (
	id TEXT PRIMARY KEY,
	version INTEGER NOT NULL,
	created_at TIMESTAMP NOT NULL,
	updated_at TIMESTAMP NOT NULL,
	created_by TEXT,
	email TEXT NOT NULL UNIQUE,
	role TEXT NOT NULL
);

CREATE TABLE providers (
	id TEXT PRIMARY KEY,
	version INTEGER NOT NULL,
	created_at TIMESTAMP NOT NULL,
	updated_at TIMESTAMP NOT NULL,
	created_by TEXT NOT NULL REFERENCES users,
	type TEXT NOT NULL,
	source TEXT NOT NULL UNIQUE,
	origin TEXT NOT NULL,
	version_info TEXT NOT NULL,
	agent_card TEXT NOT NULL,
	state TEXT NOT NULL,
	auto_stop_timeout_sec INTEGER NOT NULL,
	last_active_at TIMESTAMP
);
CREATE INDEX providers_created_by ON providers (created_by);

CREATE TABLE provider_builds (
	id TEXT PRIMARY KEY,
	version INTEGER NOT NULL,
	created_at TIMESTAMP NOT NULL,
	updated_at TIMESTAMP NOT NULL,
	created_by TEXT NOT NULL REFERENCES users,
	status TEXT NOT NULL,
	source TEXT NOT NULL,
	on_complete TEXT NOT NULL,
	build_configuration TEXT NOT NULL,
	provider_id TEXT REFERENCES providers,
	error_message TEXT
);
CREATE INDEX provider_builds_created_by ON provider_builds (created_by);
CREATE INDEX provider_builds_provider ON provider_builds (provider_id);

CREATE TABLE contexts (
	id TEXT PRIMARY KEY,
	version INTEGER NOT NULL,
	created_at TIMESTAMP NOT NULL,
	updated_at TIMESTAMP NOT NULL,
	created_by TEXT NOT NULL REFERENCES users,
	provider_id TEXT REFERENCES providers,
	metadata TEXT NOT NULL,
	last_active_at TIMESTAMP NOT NULL,
	history_count INTEGER NOT NULL
);
CREATE INDEX contexts_created_by ON contexts (created_by);
CREATE INDEX contexts_provider ON contexts (provider_id);
CREATE INDEX contexts_last_active ON contexts (last_active_at);

CREATE TABLE context_history (
	id TEXT PRIMARY KEY,
	context_id TEXT NOT NULL REFERENCES contexts,
	position INTEGER NOT NULL,
	created_at TIMESTAMP NOT NULL,
	kind TEXT NOT NULL,
	data TEXT NOT NULL,
	UNIQUE (context_id, position)
);

CREATE TABLE files (
	id TEXT PRIMARY KEY,
	version INTEGER NOT NULL,
	created_at TIMESTAMP NOT NULL,
	updated_at TIMESTAMP NOT NULL,
	created_by TEXT NOT NULL REFERENCES users,
	filename TEXT NOT NULL,
	content_type TEXT NOT NULL,
	file_size_bytes INTEGER NOT NULL,
	file_type TEXT NOT NULL,
	parent_file_id TEXT REFERENCES files,
	context_id TEXT REFERENCES contexts,
	extraction TEXT
);
CREATE INDEX files_created_by ON files (created_by);
CREATE INDEX files_context ON files (context_id);
CREATE INDEX files_parent ON files (parent_file_id);

CREATE TABLE vector_stores (
	id TEXT PRIMARY KEY,
	version INTEGER NOT NULL,
	created_at TIMESTAMP NOT NULL,
	updated_at TIMESTAMP NOT NULL,
	created_by TEXT NOT NULL REFERENCES users,
	name TEXT NOT NULL,
	dimension INTEGER NOT NULL,
	model_id TEXT NOT NULL,
	usage_bytes INTEGER NOT NULL,
	num_documents INTEGER NOT NULL,
	context_id TEXT REFERENCES contexts,
	last_active_at TIMESTAMP NOT NULL
);
CREATE INDEX vector_stores_created_by ON vector_stores (created_by);
CREATE INDEX vector_stores_context ON vector_stores (context_id);

CREATE TABLE vector_store_items (
	id TEXT NOT NULL,
	vector_store_id TEXT NOT NULL REFERENCES vector_stores,
	document_id TEXT NOT NULL,
	document_type TEXT NOT NULL,
	created_at TIMESTAMP NOT NULL,
	text TEXT NOT NULL,
	embedding BLOB NOT NULL,
	usage_bytes INTEGER NOT NULL,
	metadata TEXT,
	PRIMARY KEY (vector_store_id, id)
);
CREATE INDEX vector_store_items_document ON vector_store_items (vector_store_id, document_id);

CREATE TABLE model_providers (
	id TEXT PRIMARY KEY,
	version INTEGER NOT NULL,
	created_at TIMESTAMP NOT NULL,
	updated_at TIMESTAMP NOT NULL,
	created_by TEXT,
	type TEXT NOT NULL,
	name TEXT,
	description TEXT,
	base_url TEXT NOT NULL UNIQUE,
	api_key BLOB NOT NULL,
	watsonx_project_id TEXT,
	watsonx_space_id TEXT
);

CREATE TABLE configurations (
	id TEXT PRIMARY KEY,
	version INTEGER NOT NULL,
	created_at TIMESTAMP NOT NULL,
	updated_at TIMESTAMP NOT NULL,
	created_by TEXT,
	kind TEXT NOT NULL UNIQUE,
	default_llm_model TEXT,
	default_embedding_model TEXT
);

-- The system configuration always exists, with a fixed id.
INSERT INTO configurations (id, version, created_at, updated_at, kind)
SELECT lower(substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-4' || substr(h, 14, 3) || '-a' || substr(h, 18, 3) || '-' || substr(h, 21, 12)),
	1, now, now, 'system'
FROM (SELECT hex(randomblob(16)) AS h, strftime('%Y-%m-%d %H:%M:%f+00:00', 'now') AS now);

CREATE TABLE connectors (
	id TEXT PRIMARY KEY,
	version INTEGER NOT NULL,
	created_at TIMESTAMP NOT NULL,
	updated_at TIMESTAMP NOT NULL,
	created_by TEXT NOT NULL REFERENCES users,
	url TEXT NOT NULL,
	client_id TEXT,
	client_secret BLOB,
	state TEXT NOT NULL,
	disconnect_reason TEXT,
	metadata TEXT NOT NULL,
	UNIQUE (created_by, url)
);

CREATE TABLE user_feedback (
	id TEXT PRIMARY KEY,
	version INTEGER NOT NULL,
	created_at TIMESTAMP NOT NULL,
	updated_at TIMESTAMP NOT NULL,
	created_by TEXT NOT NULL REFERENCES users,
	provider_id TEXT NOT NULL REFERENCES providers,
	task_id TEXT NOT NULL,
	context_id TEXT NOT NULL,
	rating INTEGER NOT NULL,
	message TEXT NOT NULL,
	comment TEXT,
	comment_tags TEXT
);
CREATE INDEX user_feedback_created_by ON user_feedback (created_by);
CREATE INDEX user_feedback_provider ON user_feedback (provider_id);

CREATE TABLE variables (
	owner_id TEXT NOT NULL,
	name TEXT NOT NULL,
	value BLOB NOT NULL,
	PRIMARY KEY (owner_id, name)
);
