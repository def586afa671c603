-- +goose Up
-- Fields that the SDKs of the Agent Stack expect.
UPDATE providers SET last_active_at = created_at WHERE last_active_at IS NULL;
ALTER TABLE model_providers ADD COLUMN state TEXT NOT NULL DEFAULT 'online';
ALTER TABLE provider_builds ADD COLUMN destination TEXT NOT NULL DEFAULT '';
UPDATE provider_builds SET source = json_set(source,
	'$.version', coalesce(json_extract(source, '$.version'), 'HEAD'), '$.version_type', 'head', '$.commit_hash', '');
