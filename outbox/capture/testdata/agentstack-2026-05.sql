-- The tables of an Agent Stack server of 2026-05.
CREATE TYPE public.configurationtype AS ENUM ('system', 'user');
CREATE TYPE public.connectorstate AS ENUM ('created', 'auth_required', 'connected', 'disconnected');
CREATE TYPE public.envstoreentity AS ENUM ('provider', 'model_provider', 'user');
CREATE TYPE public.extraction_status AS ENUM ('pending', 'in_progress', 'completed', 'failed', 'cancelled');
CREATE TYPE public.file_type AS ENUM ('user_upload', 'extracted_text');
CREATE TYPE public.modelproviderstate AS ENUM ('online', 'offline');
CREATE TYPE public.providerstate AS ENUM ('online', 'offline');
CREATE TABLE public.a2a_request_contexts (
	context_id varchar NOT NULL,
	created_by uuid NOT NULL,
	provider_id uuid NOT NULL,
	created_at timestamptz NOT NULL,
	last_accessed_at timestamptz NOT NULL,
	PRIMARY KEY (context_id)
);
CREATE TABLE public.a2a_request_tasks (
	task_id varchar NOT NULL,
	created_by uuid NOT NULL,
	provider_id uuid NOT NULL,
	trace_id varchar,
	created_at timestamptz NOT NULL,
	last_accessed_at timestamptz NOT NULL,
	PRIMARY KEY (task_id)
);
CREATE TABLE public.alembic_version (
	version_num varchar NOT NULL,
	PRIMARY KEY (version_num)
);
CREATE TABLE public.configurations (
	id uuid NOT NULL,
	updated_at timestamptz NOT NULL,
	created_by uuid NOT NULL,
	configuration_type public.configurationtype NOT NULL,
	default_llm_model varchar,
	default_embedding_model varchar,
	PRIMARY KEY (id)
);
CREATE TABLE public.connectors (
	id uuid NOT NULL,
	url varchar NOT NULL,
	created_at timestamptz NOT NULL,
	updated_at timestamptz NOT NULL,
	created_by uuid NOT NULL,
	state public.connectorstate,
	auth json,
	metadata json,
	auth_state varchar,
	disconnect_reason varchar,
	disconnect_permanent boolean,
	PRIMARY KEY (id)
);
CREATE TABLE public.context_history (
	id uuid NOT NULL,
	context_id uuid NOT NULL,
	created_at timestamptz NOT NULL,
	data json NOT NULL,
	PRIMARY KEY (id)
);
CREATE TABLE public.contexts (
	id uuid NOT NULL,
	created_at timestamptz NOT NULL,
	updated_at timestamptz NOT NULL,
	last_active_at timestamptz,
	created_by uuid NOT NULL,
	provider_id uuid,
	metadata json,
	PRIMARY KEY (id)
);
CREATE TABLE public.extraction_files (
	extraction_id uuid NOT NULL,
	file_id uuid NOT NULL,
	format varchar,
	PRIMARY KEY (extraction_id, file_id)
);
CREATE TABLE public.files (
	id uuid NOT NULL,
	filename varchar NOT NULL,
	content_type varchar NOT NULL,
	file_size_bytes integer,
	created_at timestamptz NOT NULL,
	created_by uuid NOT NULL,
	file_type public.file_type NOT NULL,
	parent_file_id uuid,
	context_id uuid,
	PRIMARY KEY (id)
);
CREATE TABLE public.model_providers (
	id uuid NOT NULL,
	name varchar NOT NULL,
	type varchar NOT NULL,
	base_url varchar NOT NULL,
	created_at timestamptz NOT NULL,
	watsonx_project_id varchar,
	watsonx_space_id varchar,
	description text,
	registry varchar,
	state public.modelproviderstate NOT NULL,
	PRIMARY KEY (id)
);
CREATE TABLE public.providers (
	id uuid NOT NULL,
	source varchar NOT NULL,
	source_type varchar NOT NULL,
	origin varchar NOT NULL,
	created_at timestamptz NOT NULL,
	updated_at timestamptz NOT NULL,
	created_by uuid NOT NULL,
	last_active_at timestamptz NOT NULL,
	agent_card json NOT NULL,
	state public.providerstate NOT NULL,
	PRIMARY KEY (id)
);
CREATE TABLE public.text_extractions (
	id uuid NOT NULL,
	file_id uuid NOT NULL,
	status public.extraction_status NOT NULL,
	job_id varchar,
	error_message text,
	extraction_metadata json,
	started_at timestamptz,
	finished_at timestamptz,
	created_at timestamptz NOT NULL,
	PRIMARY KEY (id)
);
CREATE TABLE public.user_feedback (
	id uuid NOT NULL,
	provider_id uuid NOT NULL,
	task_id uuid NOT NULL,
	context_id uuid NOT NULL,
	trace_id varchar,
	rating integer NOT NULL,
	message text NOT NULL,
	comment text,
	comment_tags text[],
	created_at timestamptz NOT NULL,
	created_by uuid NOT NULL,
	PRIMARY KEY (id)
);
CREATE TABLE public.users (
	id uuid NOT NULL,
	email varchar NOT NULL,
	created_at timestamptz NOT NULL,
	PRIMARY KEY (id)
);
CREATE TABLE public.variables (
	id uuid NOT NULL,
	key varchar NOT NULL,
	value text NOT NULL,
	created_at timestamptz NOT NULL,
	parent_entity public.envstoreentity NOT NULL,
	provider_id uuid,
	user_id uuid,
	model_provider_id uuid,
	PRIMARY KEY (id)
);
CREATE TABLE public.vector_store_documents (
	id varchar NOT NULL,
	vector_store_id uuid NOT NULL,
	usage_bytes integer,
	file_id uuid,
	created_at timestamptz NOT NULL,
	PRIMARY KEY (id)
);
CREATE TABLE public.vector_stores (
	id uuid NOT NULL,
	name varchar,
	model_id varchar NOT NULL,
	dimension integer NOT NULL,
	created_at timestamptz NOT NULL,
	last_active_at timestamptz NOT NULL,
	created_by uuid NOT NULL,
	context_id uuid,
	PRIMARY KEY (id)
);
ALTER TABLE public.configurations ADD FOREIGN KEY (created_by) REFERENCES public.users ON DELETE CASCADE;
ALTER TABLE public.connectors ADD FOREIGN KEY (created_by) REFERENCES public.users ON DELETE CASCADE;
ALTER TABLE public.context_history ADD FOREIGN KEY (context_id) REFERENCES public.contexts ON DELETE CASCADE;
ALTER TABLE public.contexts ADD FOREIGN KEY (created_by) REFERENCES public.users ON DELETE CASCADE;
ALTER TABLE public.contexts ADD FOREIGN KEY (provider_id) REFERENCES public.providers ON DELETE CASCADE;
ALTER TABLE public.extraction_files ADD FOREIGN KEY (extraction_id) REFERENCES public.text_extractions ON DELETE CASCADE;
ALTER TABLE public.extraction_files ADD FOREIGN KEY (file_id) REFERENCES public.files ON DELETE CASCADE;
ALTER TABLE public.files ADD FOREIGN KEY (context_id) REFERENCES public.contexts ON DELETE CASCADE;
ALTER TABLE public.files ADD FOREIGN KEY (created_by) REFERENCES public.users ON DELETE CASCADE;
ALTER TABLE public.files ADD FOREIGN KEY (parent_file_id) REFERENCES public.files ON DELETE CASCADE;
ALTER TABLE public.providers ADD FOREIGN KEY (created_by) REFERENCES public.users ON DELETE CASCADE;
ALTER TABLE public.text_extractions ADD FOREIGN KEY (file_id) REFERENCES public.files ON DELETE CASCADE;
ALTER TABLE public.user_feedback ADD FOREIGN KEY (created_by) REFERENCES public.users ON DELETE CASCADE;
ALTER TABLE public.user_feedback ADD FOREIGN KEY (provider_id) REFERENCES public.providers ON DELETE CASCADE;
ALTER TABLE public.variables ADD FOREIGN KEY (model_provider_id) REFERENCES public.model_providers ON DELETE CASCADE;
ALTER TABLE public.variables ADD FOREIGN KEY (provider_id) REFERENCES public.providers ON DELETE CASCADE;
ALTER TABLE public.variables ADD FOREIGN KEY (user_id) REFERENCES public.users ON DELETE CASCADE;
ALTER TABLE public.vector_store_documents ADD FOREIGN KEY (file_id) REFERENCES public.files ON DELETE SET NULL;
ALTER TABLE public.vector_store_documents ADD FOREIGN KEY (vector_store_id) REFERENCES public.vector_stores ON DELETE CASCADE;
ALTER TABLE public.vector_stores ADD FOREIGN KEY (context_id) REFERENCES public.contexts ON DELETE CASCADE;
ALTER TABLE public.vector_stores ADD FOREIGN KEY (created_by) REFERENCES public.users ON DELETE CASCADE;
