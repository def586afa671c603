-- Writes an event in the transaction of the caller, and returns its id, which receivers
-- see as webhook-id. GRANT EXECUTE on it is all that a role needs.
CREATE OR REPLACE FUNCTION {schema}.emit(type text, action text, id text, url text DEFAULT NULL, user_id text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $tidings$
#variable_conflict use_column
DECLARE
	at bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
	ms text := lpad(to_hex(at / 1000), 12, '0');
	event_id text := overlay(substr(ms, 1, 8) || '-' || substr(ms, 9) || gen_random_uuid()::text PLACING '-7' FROM 14 FOR 15);
	who text := coalesce(nullif(emit.user_id, ''), nullif(current_setting('tidings.user_id', true), ''), '');
	allowed text[];
BEGIN
	IF coalesce(emit.type, '') !~ '^[a-z][a-z0-9_]{0,62}$' THEN
		PERFORM capture_argument('type', emit.type, 'at most 63 of a-z, 0-9 and _, a letter first');
	ELSIF coalesce(emit.action, '') !~ '^[a-z][a-z0-9_]{0,62}$' THEN
		PERFORM capture_argument('action', emit.action, 'at most 63 of a-z, 0-9 and _, a letter first');
	ELSIF emit.type = 'webhook' AND emit.action = 'ping' THEN
		PERFORM capture_argument('action', emit.action, 'any action but ping, which tests an endpoint');
	END IF;
	IF EXISTS (SELECT FROM tidings_types) THEN
		SELECT actions INTO allowed FROM tidings_types WHERE resource_type = emit.type;
		IF allowed IS NULL THEN
			PERFORM capture_argument('type', emit.type, (SELECT 'one of ' || string_agg(resource_type, ', ' ORDER BY resource_type) FROM tidings_types));
		ELSIF NOT emit.action = ANY (allowed) THEN
			PERFORM capture_argument('action', emit.action, format('one of %s for %s', array_to_string(allowed, ', '), emit.type));
		END IF;
	END IF;
	IF coalesce(emit.id, '') = '' OR octet_length(emit.id) > 512 OR emit.id ~ E'[\\x01-\\x1f\\x7f-\\u009f]' THEN
		PERFORM capture_argument('id', emit.id, '1 to 512 bytes without control characters');
	ELSIF octet_length(emit.url) > 2048 OR emit.url ~ E'[\\x01-\\x20\\x7f-\\u009f]' OR emit.url ~ '%(?![0-9A-Fa-f]{2})' OR emit.url !~* '^(https?://[^/?#]|/)' THEN
		PERFORM capture_argument('url', emit.url, 'an http or https URL, or a path that begins with /, of at most 2048 bytes');
	ELSIF octet_length(who) > 512 OR who ~ E'[\\x01-\\x1f\\x7f-\\u009f]' THEN
		PERFORM capture_argument('user_id', who, 'at most 512 bytes without control characters');
	END IF;
	INSERT INTO tidings_outbox (source, id, resource_type, action, resource_id, resource_url, user_id, at, resource_version)
		VALUES (0, event_id, emit.type, emit.action, emit.id, coalesce(emit.url, ''), who, at, 0);
	RETURN event_id;
END $tidings$;

CREATE OR REPLACE FUNCTION {schema}.capture_argument(name text, value text, expected text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $tidings$
BEGIN
	RAISE EXCEPTION 'tidings.emit: % %: expected %', name, coalesce(quote_literal(left(value, 64)), 'NULL'), expected USING ERRCODE = '22023';
END $tidings$;

-- Nobody else may run them; a role that calls emit needs to find it. They belong to the
-- owner of the log, whoever runs this.
DO $tidings$
DECLARE f regprocedure; owner name := (SELECT rolname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_roles r ON r.oid = relowner
	WHERE c.oid = '{inliteral}.tidings_outbox'::pg_catalog.regclass);
BEGIN
	FOR f IN SELECT p.oid FROM pg_catalog.pg_proc p WHERE pronamespace = pg_catalog.quote_ident({name})::regnamespace AND proowner = current_user::regrole
		AND (proname ~ '^capture_' OR proname IN ('attach', 'detach', 'emit')) LOOP
		EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
		IF owner <> current_user THEN
			EXECUTE pg_catalog.format('ALTER FUNCTION %s OWNER TO %I', f, owner);
		END IF;
	END LOOP;
	IF (SELECT nspowner = current_user::regrole FROM pg_catalog.pg_namespace WHERE nspname = {name}) THEN
		GRANT USAGE ON SCHEMA {schema} TO PUBLIC;
	END IF;
END $tidings$;
