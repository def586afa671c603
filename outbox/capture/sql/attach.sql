-- The table with a name, or NULL. to_regclass() would raise an error if its schema may not
-- be used.
CREATE OR REPLACE FUNCTION {schema}.capture_table(relation text) RETURNS regclass
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $tidings$
	SELECT c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE ARRAY[nspname, relname]::text[] = parse_ident(relation)
$tidings$;

-- The name of a table as tidings_sources has it; it may be gone.
CREATE OR REPLACE FUNCTION {schema}.capture_name(relation text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off AS $tidings$
	SELECT string_agg(quote_ident(p), '.' ORDER BY nth) FROM unnest(parse_ident(relation)) WITH ORDINALITY u (p, nth)
$tidings$;

-- What a role needs to read a table; empty if it may.
CREATE OR REPLACE FUNCTION {schema}.capture_grants(rel regclass, reader text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $tidings$
	SELECT concat_ws(' and ', CASE WHEN NOT has_schema_privilege(reader, n.oid, 'USAGE') THEN format('GRANT USAGE ON SCHEMA %I TO %I', nspname, reader) END,
		CASE WHEN NOT has_table_privilege(reader, rel, 'SELECT') THEN format('GRANT SELECT ON %I.%I TO %I', nspname, relname, reader) END)
	FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = rel
$tidings$;

-- Raises an error that says what is wrong with a specification.
CREATE OR REPLACE FUNCTION {schema}.capture_refuse(relation text, reason text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $tidings$
BEGIN
	RAISE EXCEPTION 'table %: %', relation, reason USING ERRCODE = '22023';
END $tidings$;

-- The columns that a specification names, besides those of its key.
CREATE OR REPLACE FUNCTION {schema}.capture_used(spec jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = {schema}, pg_temp AS $tidings$
	SELECT coalesce(array_agg(DISTINCT c), '{}') FROM (
		SELECT m[1] AS c FROM regexp_matches(spec->>'url', '[{]([^{}]*)[}]', 'g') m
		UNION ALL SELECT nullif(spec->>'user', '')
		UNION ALL SELECT w->>'column' FROM jsonb_array_elements(CASE jsonb_typeof(spec->'where') WHEN 'array' THEN spec->'where' END) w
	) u WHERE c IS NOT NULL
$tidings$;

-- All columns that a specification names.
CREATE OR REPLACE FUNCTION {schema}.capture_columns(spec jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = {schema}, pg_temp AS $tidings$
	SELECT coalesce(array_agg(DISTINCT c), '{}') FROM unnest(capture_list(spec->'key') || capture_used(spec) ||
		coalesce(capture_list(spec->'watch'), '{}') || coalesce(capture_list(spec->'ignore'), '{}')) u (c)
$tidings$;

-- A specification with what it left out, checked against its table. One that is lenient
-- may name columns that are gone.
CREATE OR REPLACE FUNCTION {schema}.capture_complete(rel regclass, spec jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = {schema}, pg_temp AS $tidings$
DECLARE
	name text := (SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = rel);
	key text[] := capture_list(spec->'key'); col text; lenient boolean := coalesce((spec->>'lenient')::boolean, false);
BEGIN
	IF NOT (SELECT relkind IN ('r', 'p') AND relpersistence <> 't' FROM pg_class WHERE oid = rel) THEN
		PERFORM capture_refuse(name, 'it is neither an ordinary nor a partitioned table');
	ELSIF (SELECT nspname = {name} FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = rel) THEN
		PERFORM capture_refuse(name, 'it is in the schema of Tidings itself');
	END IF;
	IF coalesce(cardinality(key), 0) = 0 OR (spec->>'implicit_key')::boolean THEN
		key := coalesce(capture_primary_key(rel), CASE WHEN lenient THEN key END);
		IF key IS NULL THEN
			PERFORM capture_refuse(name, 'it has no primary key; list the columns that identify a row in key');
		END IF;
		spec := spec || jsonb_build_object('key', key, 'implicit_key', true);
	END IF;
	FOREACH col IN ARRAY capture_columns(spec || jsonb_build_object('key', key)) LOOP
		IF NOT lenient AND capture_text(rel, col, '') IS NULL THEN
			PERFORM capture_refuse(name, format('there is no column %I whose value triggers see; it has %s', col,
				(SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
				WHERE attrelid = rel AND attnum > 0 AND NOT attisdropped AND attgenerated <> 'v')));
		END IF;
	END LOOP;
	-- A URL of nothing but the id is put together when the event is numbered.
	RETURN spec - 'lenient' || jsonb_build_object('template', CASE
		WHEN coalesce(spec->>'url', '') = '' THEN '/' || (spec->>'type') || '/{}'
		WHEN cardinality(key) = 1 AND array_remove((SELECT array_agg(m[1]) FROM regexp_matches(spec->>'url', '[{]([^{}]*)[}]', 'g') m), key[1]) = '{}'
			THEN replace(spec->>'url', '{' || key[1] || '}', '{}')
		WHEN spec->>'url' NOT LIKE '%{%' THEN spec->>'url'
		ELSE '' END);
END $tidings$;

-- Whether the values of columns look alike in all sessions, as numbers do.
DROP FUNCTION IF EXISTS {schema}.capture_settings(oid, jsonb);
CREATE OR REPLACE FUNCTION {schema}.capture_settings(rel oid, numbers jsonb, spec jsonb) RETURNS text
LANGUAGE sql STABLE SET search_path = {schema}, pg_temp AS $tidings$
	SELECT CASE WHEN EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
		WHERE attrelid = rel AND attnum > 0 AND attname = ANY (capture_names(rel, numbers, capture_list(spec->'key') || capture_used(spec)))
			AND NOT (typcategory IN ('B', 'S', 'E') OR atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype, 'uuid'::regtype)))
		THEN '{insettings}' ELSE '' END
$tidings$;

-- The triggers that a table must have, but for those that PostgreSQL keeps on partitions.
-- A partition that is newer than its trigger for TRUNCATE is covered by that of its parent.
-- PostgreSQL fires triggers in the order of their names: these come before those of the
-- application, whose names begin with small letters, so that what those do to a row is
-- told of later.
CREATE OR REPLACE FUNCTION {schema}.capture_triggers(s {schema}.tidings_sources) RETURNS TABLE (rel regclass, name text, events text, tgtype int2)
LANGUAGE sql STABLE SET search_path = {schema}, pg_temp AS $tidings$
	SELECT s.relid::regclass, '_tidings_' || s.id || coalesce(nullif('_' || {name}, '_tidings'), ''), 'AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW', 29::int2
	UNION ALL
	SELECT relid, '_tidings_' || s.id || '_truncate' || coalesce(nullif('_' || {name}, '_tidings'), ''), 'BEFORE TRUNCATE ON %s FOR EACH STATEMENT', 34::int2
	FROM (SELECT s.relid::regclass UNION SELECT t.relid FROM pg_partition_tree(s.relid) t JOIN pg_class c ON c.oid = t.relid
		WHERE relkind IN ('r', 'p')) tree (relid)
	WHERE s.part <> '' OR s.spec->>'truncate' = 'refuse' OR s.spec->'actions' ? 'deleted'
$tidings$;

-- The triggers of a source that exist, each with its place and its version. A row of
-- pg_trigger that is changed, as DISABLE and ENABLE do, gets another xmin, which VACUUM
-- keeps. Row triggers of partitions come and go with them.
CREATE OR REPLACE FUNCTION {schema}.capture_existing(s {schema}.tidings_sources) RETURNS TABLE (place text, version text, name text, rel regclass, enabled boolean)
LANGUAGE sql STABLE SET search_path = {schema}, pg_temp AS $tidings$
	SELECT tgrelid || '/' || tgtype || CASE tgparentid WHEN 0 THEN '' ELSE '/' || oid END, oid || '/' || xmin, tgname, tgrelid::regclass, tgenabled = 'O'
	FROM pg_trigger WHERE tgfoid = to_regprocedure(format('{inschema}.%I()', 'capture_' || s.id))
$tidings$;

-- What is wrong with the triggers of a source; no rows if all is well.
CREATE OR REPLACE FUNCTION {schema}.capture_faults(s {schema}.tidings_sources) RETURNS TABLE (kind text, what text)
LANGUAGE plpgsql STABLE SET search_path = {schema}, pg_temp AS $tidings$
DECLARE rel regclass := capture_table(s.relation); fn oid; body text; trigger record; numbers jsonb := s.columns;
BEGIN
	fn := (SELECT p.oid FROM pg_proc p WHERE pronamespace = pg_catalog.quote_ident({name})::regnamespace AND proname = 'capture_' || s.id AND pronargs = 0);
	IF rel IS NULL AND NOT EXISTS (SELECT FROM pg_class WHERE oid = s.relid) THEN
		RETURN QUERY SELECT 'missing', format('there is no such table; create it, or take it out of the configuration, restart the relay and run SELECT {inschema}.detach(%L)', s.relation);
		RETURN;
	ELSIF rel IS NULL THEN
		RETURN QUERY SELECT 'renamed', format('the table is now named %s; change sources.tables and restart the relay', s.relid::regclass);
		rel := s.relid;
	ELSIF rel <> s.relid OR s.origin <> capture_origin() THEN
		RETURN QUERY SELECT 'replaced', 'the table is not the one that triggers were installed on: it was dropped and created again, or restored';
		s.relid := rel;
		numbers := '{}'; -- those of another table
	END IF;
	IF fn IS NULL THEN
		RETURN QUERY SELECT 'trigger', 'the function of its triggers is missing';
		RETURN;
	END IF;
	FOR trigger IN SELECT * FROM capture_triggers(s) LOOP
		RETURN QUERY SELECT CASE WHEN trigger.tgtype = 34 AND trigger.rel <> s.relid THEN 'partition' ELSE 'trigger' END,
			format('the trigger %I on %s is missing', trigger.name, trigger.rel)
			WHERE NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = trigger.rel AND tgfoid = fn AND t.tgtype = trigger.tgtype);
	END LOOP;
	RETURN QUERY SELECT 'disabled', format('the trigger %I on %s is disabled, or enabled for replicas', tgname, tgrelid::regclass)
		FROM pg_trigger WHERE tgfoid = fn AND tgenabled <> 'O';
	RETURN QUERY SELECT 'altered', format('the trigger %I on %s was altered, as disabling and enabling it does', t.name, t.rel)
		FROM capture_existing(s) t WHERE enabled AND s.origin = capture_origin() AND s.triggers->>place <> version;
	BEGIN
		body := capture_compile(s.id);
		RETURN QUERY SELECT 'function', 'its trigger function is of another version, or the table was changed since'
			FROM pg_proc p WHERE p.oid = fn AND prosrc <> body;
	EXCEPTION WHEN OTHERS THEN
		RETURN QUERY SELECT 'columns', SQLERRM;
	END;
	RETURN QUERY SELECT 'inherited', format('the table %s inherits from it: changes of its rows make no events; list it in sources.tables, too', inhrelid::regclass)
		FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = s.relid AND NOT c.relispartition
			AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = inhrelid AND (t.tgfoid = fn
				OR t.tgfoid IN (SELECT to_regprocedure(format('{inschema}.%I()', 'capture_' || o.id)) FROM tidings_sources o)));
	RETURN QUERY SELECT 'columns', format(CASE WHEN now IS NULL THEN 'the column %I is gone' ELSE 'the column %I is now named %2$I' END
			|| '; change %3$s in the configuration, and run attach', c, now, concat_ws(', ',
				CASE WHEN c = ANY (capture_list(s.spec->'key')) THEN 'key' || CASE WHEN now IS NULL THEN ' (ids are ? until then)' ELSE '' END END,
				CASE WHEN s.spec->>'url' LIKE '%{' || c || '}%' THEN 'url' || CASE WHEN now IS NULL THEN ' (URLs lack it until then)' ELSE '' END END,
				CASE WHEN s.spec->>'user' = c THEN 'user' END,
				CASE WHEN EXISTS (SELECT FROM jsonb_array_elements(CASE jsonb_typeof(s.spec->'where') WHEN 'array' THEN s.spec->'where' END) w WHERE w->>'column' = c)
					THEN 'where' || CASE WHEN now IS NULL THEN ' (which is ignored until then)' ELSE '' END END,
				CASE WHEN c = ANY (capture_list(s.spec->'watch')) THEN 'watch' END, CASE WHEN c = ANY (capture_list(s.spec->'ignore')) THEN 'ignore' END))
		FROM (SELECT n AS c, (capture_names(rel, numbers, ARRAY[n]))[1] AS now FROM unnest(capture_columns(s.spec)) u (n)) cols
		WHERE now IS DISTINCT FROM c;
	RETURN QUERY SELECT 'drift', format('since %s a trigger works slowly: %s', to_char(d.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), d.what)
		FROM tidings_drift d WHERE source = s.id ORDER BY d.at LIMIT 1;
END $tidings$;

-- Tells again of what changed since the triggers were last seen in their place. Whoever
-- calls it holds a lock that keeps writers out.
CREATE OR REPLACE FUNCTION {schema}.capture_recover(s {schema}.tidings_sources, replaced boolean) RETURNS bigint
LANGUAGE plpgsql SET search_path = {schema}, pg_temp SET row_security = off {settings} AS $tidings$
DECLARE n bigint; key text[] := capture_list(s.spec->'key'); action text;
BEGIN
	action := CASE WHEN replaced AND s.spec->'actions' ? 'created' THEN 'created' WHEN s.spec->'actions' ? 'updated' THEN 'updated' END;
	IF action IS NULL OR s.part <> '' THEN
		RETURN 0;
	END IF;
	EXECUTE format('%s FROM %s t WHERE age(t.xmin) <= $1 AND %s',
		capture_insert(s.id, s.spec, quote_literal(action), capture_key(s.relid, key, 't.'),
			capture_url(s.relid, '{}', s.spec, 't.'), capture_owner(s.relid, '{}', s.spec, 't.')), s.relid::regclass,
		capture_where(s.relid, '{}', s.spec, 't.')) USING age((s.seen_xid % 4294967296)::text::xid);
	GET DIAGNOSTICS n = ROW_COUNT;
	RETURN n;
END $tidings$;

-- Installs the triggers of a table, or brings them up to date; it waits for nobody if
-- they are in their place. recover says whether what changed while they were away is told
-- of again. With "lenient" in the specification, columns that are gone are done without.
-- It returns the number of the source.
CREATE OR REPLACE FUNCTION {schema}.attach(relation text, spec jsonb, recover boolean DEFAULT true) RETURNS integer
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $tidings$
DECLARE
	rel regclass := capture_table(relation); full_name text; of_part text := ''; s {schema}.tidings_sources; known boolean; reason text; replaced boolean := false;
	fn text; body text; owner text; trigger record; parent regclass; config text; recovered bigint := 0; numbers jsonb; truncated text;
	-- What was written before is told, unless something is found to be wrong below.
	seen_xid bigint := pg_snapshot_xmin(pg_current_snapshot())::text::bigint; seen_at timestamptz := clock_timestamp(); again boolean := false;
BEGIN
	PERFORM pg_advisory_xact_lock(hashtextextended({name} || ' capture', 0));
	IF rel IS NULL THEN
		PERFORM capture_refuse(relation, 'there is no such table');
	END IF;
	full_name := capture_name(relation);
	IF spec->>'part_of' IS NOT NULL THEN
		parent := capture_table(spec->>'part_of');
		IF parent IS NULL THEN
			PERFORM capture_refuse(spec->>'part_of', 'there is no such table');
		END IF;
		spec := spec || capture_part(rel, parent, spec);
		of_part := (spec->>'part_of') || '(' || array_to_string(capture_list(spec->'key'), ',') || ')';
	END IF;
	spec := capture_complete(rel, spec);
	owner := (SELECT rolname FROM pg_class c JOIN pg_roles r ON r.oid = relowner WHERE c.oid = '{inliteral}.tidings_outbox'::regclass);
	IF (spec->>'truncate' = 'deleted' AND spec->'actions' ? 'deleted' OR of_part <> '') AND capture_grants(rel, owner) <> '' THEN
		PERFORM capture_refuse(full_name, format('role %I must be able to read it, to tell of each row when it is truncated: %s%s',
			owner, capture_grants(rel, owner), CASE of_part WHEN '' THEN ', or set truncate: refuse' ELSE '' END));
	END IF;
	SELECT * INTO s FROM tidings_sources t WHERE t.relation = full_name AND t.part = of_part FOR UPDATE;
	known := FOUND AND NOT s.detached;
	IF known THEN
		replaced := s.relid <> rel;
		reason := (SELECT string_agg(DISTINCT kind, ', ') FROM capture_faults(s) WHERE kind IN ('trigger', 'disabled', 'altered', 'replaced'));
		again := coalesce(reason ~ 'altered|replaced', false); -- for the lock
		-- TRUNCATE gives a table another file.
		truncated := (SELECT string_agg(t.rel::text, ', ') FROM capture_triggers(s) t WHERE NOT replaced AND t.tgtype = 34 AND t.rel <> s.relid
			AND pg_relation_filenode(t.rel) <> t.rel::oid AND NOT EXISTS (SELECT FROM pg_trigger p WHERE p.tgrelid = t.rel
				AND p.tgfoid = to_regprocedure(format('{inschema}.%I()', 'capture_' || s.id)) AND p.tgtype = 34));
	END IF;
	numbers := (SELECT coalesce(jsonb_object_agg(n, attnum), '{}') FROM unnest(capture_columns(spec)) u (n) JOIN pg_attribute
		ON attrelid = rel AND attnum > 0 AND attname = (capture_names(rel, CASE WHEN s.relid = rel AND s.origin = capture_origin() THEN s.columns END, ARRAY[n]))[1]);
	IF s.id IS NULL THEN
		INSERT INTO tidings_sources (relation, part, resource_type, url, spec, relid, origin, columns, seen_at, seen_xid)
			VALUES (full_name, of_part, spec->>'type', coalesce(spec#>>'{parent,template}', spec->>'template'), spec, rel, capture_origin(), numbers, clock_timestamp(), 3)
			RETURNING * INTO s;
	ELSE
		UPDATE tidings_sources t SET resource_type = attach.spec->>'type', url = coalesce(attach.spec#>>'{parent,template}', attach.spec->>'template'),
			spec = attach.spec, relid = rel, origin = capture_origin(), columns = numbers, detached = false
			WHERE t.id = s.id AND (t.spec, t.relid, t.origin, t.columns, t.detached) IS DISTINCT FROM (attach.spec, rel::oid, capture_origin(), numbers, false);
	END IF;
	SELECT * INTO s FROM tidings_sources t WHERE t.id = s.id;
	fn := format('{inschema}.%I()', 'capture_' || s.id);
	IF replaced THEN -- the former table may still be there, with another name, and is emptied some day
		BEGIN
			PERFORM set_config('client_min_messages', 'warning', true);
			EXECUTE format('DROP FUNCTION IF EXISTS %s CASCADE', fn);
		EXCEPTION WHEN lock_not_available OR insufficient_privilege THEN NULL; -- this one is more urgent
		END;
	END IF;
	config := capture_settings(rel, s.columns, s.spec) || CASE of_part WHEN '' THEN '' ELSE ' SET row_security = off' END;
	body := capture_compile(s.id);
	IF NOT EXISTS (SELECT FROM pg_proc WHERE oid = to_regprocedure(fn) AND prosrc = body AND prosecdef
		AND (array_to_string(proconfig, ' ') ~* 'datestyle') = (config LIKE '%datestyle%')
		AND (array_to_string(proconfig, ' ') ~* 'row_security') = (config LIKE '%row_security%')) THEN
		EXECUTE format('CREATE OR REPLACE FUNCTION %s RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp %s AS %L',
			fn, config, body);
		EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', fn);
		-- Its rights are those of the owner of the log, whoever runs this.
		FOR owner IN SELECT r.rolname FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
			WHERE c.oid = '{inliteral}.tidings_outbox'::regclass AND r.rolname <> current_user LOOP
			EXECUTE format('ALTER FUNCTION %s OWNER TO %I', fn, owner);
		END LOOP;
	END IF;
	FOR trigger IN SELECT * FROM capture_triggers(s) c WHERE again OR NOT EXISTS (SELECT FROM pg_trigger t
		WHERE t.tgrelid = c.rel AND tgfoid = to_regprocedure(fn) AND t.tgtype = c.tgtype AND tgenabled = 'O'
			AND NOT EXISTS (SELECT FROM pg_trigger clone WHERE clone.tgfoid = t.tgfoid AND clone.tgtype = t.tgtype AND clone.tgenabled <> 'O')) LOOP
		EXECUTE format('CREATE OR REPLACE TRIGGER %I ' || trigger.events || ' EXECUTE FUNCTION %s', trigger.name, trigger.rel, fn);
	END LOOP;
	IF NOT known OR reason IS NOT NULL THEN -- writers wait now
		UPDATE tidings_sources t SET triggers = '{}' WHERE t.id = s.id;
		seen_xid := pg_snapshot_xmin(pg_current_snapshot())::text::bigint;
		seen_at := clock_timestamp();
	END IF;
	IF reason IS NOT NULL THEN
		IF recover AND s.seen_xid > 3 THEN
			BEGIN
				recovered := capture_recover(s, replaced);
			EXCEPTION WHEN OTHERS THEN -- such as that it may not be read
				reason := left(reason || '; what was written meanwhile is not told of: ' || SQLERRM, 500);
			END;
		END IF;
	END IF;
	IF truncated IS NOT NULL THEN
		reason := left(concat_ws('; ', reason, 'TRUNCATE, or a rewrite, of a new partition: ' || truncated), 500);
	END IF;
	IF reason IS NOT NULL THEN
		DELETE FROM tidings_capture_gaps WHERE until < clock_timestamp() - interval '30 days';
		INSERT INTO tidings_capture_gaps (relation, since, until, reason, recovered) VALUES (full_name, s.seen_at, clock_timestamp(), reason, recovered);
	END IF;
	DELETE FROM tidings_drift WHERE source = s.id;
	PERFORM capture_seen(s.id, seen_xid, seen_at);
	RETURN s.id;
END $tidings$;

-- Notes that the triggers of a source were in their place when no transaction from xid on
-- had ended. Known triggers keep their version, so that no change of one is missed.
DROP FUNCTION IF EXISTS {schema}.capture_seen(integer);
CREATE OR REPLACE FUNCTION {schema}.capture_seen(of_source integer, xid bigint DEFAULT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text::bigint,
	at timestamptz DEFAULT pg_catalog.clock_timestamp()) RETURNS void
LANGUAGE sql VOLATILE SET search_path = {schema}, pg_temp AS $tidings$
	UPDATE tidings_sources s SET seen_at = at, seen_xid = xid, triggers =
		(SELECT coalesce(jsonb_object_agg(place, coalesce(s.triggers->>place, version)), '{}') FROM capture_existing(s))
	WHERE id = of_source
$tidings$;

-- The specification of a table of parts, with what it needs of the other one.
CREATE OR REPLACE FUNCTION {schema}.capture_part(rel regclass, parent regclass, spec jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = {schema}, pg_temp SET quote_all_identifiers = off AS $tidings$
DECLARE
	whole jsonb := capture_complete(parent, (spec->'parent') - 'watch' - 'ignore' || jsonb_build_object('lenient', spec->'lenient')); key text[] := capture_list(spec->'key'); owner text;
BEGIN
	IF coalesce(cardinality(key), 0) = 0 THEN
		SELECT array_agg(a.attname::text ORDER BY k.nth) INTO key FROM pg_constraint c, unnest(capture_list(whole->'key')) WITH ORDINALITY k (col, nth),
			unnest(c.conkey, c.confkey) f (own, others), pg_attribute a, pg_attribute b
			WHERE c.conrelid = rel AND c.confrelid = parent AND c.contype = 'f' AND a.attrelid = rel AND a.attnum = f.own
				AND b.attrelid = parent AND b.attnum = f.others AND b.attname = k.col
			GROUP BY c.oid HAVING count(*) = cardinality(capture_list(whole->'key'));
		IF key IS NULL THEN
			PERFORM capture_refuse(rel::text, format('no foreign key refers to the key of %s; list the columns that do in key', parent));
		END IF;
	END IF;
	IF cardinality(key) <> jsonb_array_length(whole->'key') THEN
		PERFORM capture_refuse(rel::text, format('the key of %s has %s columns: %s', parent, jsonb_array_length(whole->'key'), whole->>'key'));
	END IF;
	owner := (SELECT rolname FROM pg_class c JOIN pg_roles r ON r.oid = relowner WHERE c.oid = '{inliteral}.tidings_outbox'::regclass);
	IF capture_grants(parent, owner) <> '' THEN
		PERFORM capture_refuse(parent::text, format('role %I must be able to read it, for the events of its parts: %s', owner, capture_grants(parent, owner)));
	END IF;
	RETURN jsonb_build_object('key', key, 'parent', whole, 'type', whole->>'type', 'setting', whole->>'setting', 'actions', '["updated"]'::jsonb,
		'part_of', (SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = parent), 'url', '');
END $tidings$;

-- Removes the triggers of a table, those of its parts, or of all tables if none is named.
-- What they wrote is still delivered.
CREATE OR REPLACE FUNCTION {schema}.detach(relation text DEFAULT NULL) RETURNS SETOF text
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $tidings$
DECLARE full_name text; f record; s {schema}.tidings_sources;
BEGIN
	PERFORM pg_advisory_xact_lock(hashtextextended({name} || ' capture', 0));
	full_name := capture_name(relation);
	FOR f IN SELECT p.oid::regprocedure AS fn, substr(proname, 9)::integer AS id FROM pg_proc p
		WHERE pronamespace = pg_catalog.quote_ident({name})::regnamespace AND proname ~ '^capture_[0-9]{1,9}$' AND pronargs = 0 ORDER BY 2 LOOP
		SELECT * INTO s FROM tidings_sources WHERE id = f.id;
		IF detach.relation IS NULL OR s.relation = full_name OR split_part(s.part, '(', 1) = full_name THEN
			PERFORM set_config('client_min_messages', 'warning', true);
			EXECUTE format('DROP FUNCTION %s CASCADE', f.fn);
			DELETE FROM tidings_drift WHERE source = f.id;
			RETURN NEXT coalesce(s.relation, f.fn::text);
		END IF;
	END LOOP;
	UPDATE tidings_sources t SET detached = true WHERE to_regprocedure(format('{inschema}.%I()', 'capture_' || t.id)) IS NULL
		AND (detach.relation IS NULL OR t.relation = full_name OR split_part(t.part, '(', 1) = full_name);
	DELETE FROM tidings_sources t WHERE detached AND NOT EXISTS (SELECT FROM tidings_outbox WHERE source = t.id);
END $tidings$;

-- The source of a configured table, whether it is attached as configured, and why it
-- cannot be.
DROP FUNCTION IF EXISTS {schema}.capture_find(text, jsonb);
CREATE OR REPLACE FUNCTION {schema}.capture_find(relation text, spec jsonb, OUT id integer, OUT name text, OUT same boolean, OUT there boolean, OUT why text)
LANGUAGE plpgsql STABLE SET search_path = {schema}, pg_temp AS $tidings$
#variable_conflict use_variable
DECLARE rel regclass := capture_table(relation); of_part text := ''; s {schema}.tidings_sources; complete boolean := true;
BEGIN
	there := rel IS NOT NULL;
	name := capture_name(relation);
	IF spec->>'part_of' IS NOT NULL THEN
		of_part := capture_name(spec->>'part_of') || '(' || coalesce(array_to_string(capture_list(spec->'key'), ','), '');
	END IF;
	BEGIN
		IF of_part <> '' THEN
			spec := spec || capture_part(rel, capture_table(spec->>'part_of'), spec);
			of_part := (spec->>'part_of') || '(' || array_to_string(capture_list(spec->'key'), ',') || ')';
		END IF;
		spec := capture_complete(rel, spec);
	EXCEPTION WHEN OTHERS THEN -- columns that are gone, or the table; they are findings of their own
		complete := false;
		why := SQLERRM;
	END;
	SELECT * INTO s FROM tidings_sources t WHERE t.relation = name AND NOT t.detached
		AND (t.part = of_part OR NOT complete AND of_part <> '' AND starts_with(t.part, of_part)) ORDER BY t.id LIMIT 1;
	id := s.id;
	same := NOT complete OR s.spec = spec OR (spec->>'implicit_key')::boolean AND s.spec - 'key' - 'template' = spec - 'key' - 'template';
END $tidings$;
