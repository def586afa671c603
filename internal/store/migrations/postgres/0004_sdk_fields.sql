-- +goose Up
-- Fields that the SDKs of the Agent Stack expect.
UPDATE providers SET last_active_at = created_at WHERE last_active_at IS NULL;
ALTER TABLE providers ALTER COLUMN last_active_at SET NOT NULL;
ALTER TABLE model_providers ADD COLUMN state text NOT NULL DEFAULT 'online';
ALTER TABLE provider_builds ADD COLUMN destination text NOT NULL DEFAULT '';
UPDATE provider_builds SET source = (source::jsonb || jsonb_build_object(
	'version', coalesce(source->>'version', 'HEAD'), 'version_type', 'head', 'commit_hash', ''))::json;
