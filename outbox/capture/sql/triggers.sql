-- An expression: the id of a row if it is a resource, or NULL.
CREATE OR REPLACE FUNCTION {schema}.capture_id(s {schema}.tidings_sources, key text[], of_row text) RETURNS text
LANGUAGE sql STABLE SET search_path = {schema}, pg_temp AS $tidings$
	SELECT CASE w WHEN 'true' THEN k ELSE format('CASE WHEN %s THEN %s END', w, k) END
	FROM (SELECT capture_where(s.relid, s.columns, s.spec, of_row) AS w, capture_key(s.relid, key, of_row) AS k) e
$tidings$;

-- The body of the function of a table's triggers. It depends on no column, so that no
-- migration is blocked. All that reads columns by name stands in a block whose errors
-- lead to the slow path; nothing is written in that block, so it costs no transaction id.
CREATE OR REPLACE FUNCTION {schema}.capture_compile(of_source integer) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = {schema}, pg_temp SET quote_all_identifiers = off AS $tidings$
DECLARE
	s {schema}.tidings_sources; body text; partitioned boolean; created text; key text[]; same record; marker text;
	is_old text; is_new text; url_new text; owner_new text; set_new text; set_old text;
BEGIN
	SELECT * INTO STRICT s FROM tidings_sources WHERE id = of_source;
	IF s.part <> '' THEN
		RETURN capture_compile_part(s);
	END IF;
	partitioned := (SELECT relkind = 'p' FROM pg_class WHERE oid = s.relid);
	key := capture_names(s.relid, s.columns, capture_list(s.spec->'key'));
	same := capture_same(s.relid, s.columns, s.spec, 'old.', 'new.', true);
	created := CASE WHEN s.spec->'actions' ? 'created' THEN 'created' WHEN s.spec->'actions' ? 'updated' THEN 'updated' END;
	marker := quote_literal('tidings.moved_' || s.id || '_' || substr(md5({name}), 1, 8));
	url_new := capture_url(s.relid, s.columns, s.spec, 'new.');
	owner_new := capture_owner(s.relid, s.columns, s.spec, 'new.');
	is_old := capture_id(s, key, 'old.');
	is_new := capture_id(s, key, 'new.');
	set_new := CASE WHEN url_new <> '''''' THEN format(E'\t\t\turl := %s;\n', url_new) ELSE '' END ||
		CASE WHEN owner_new <> 'NULL' THEN format(E'\t\t\towner := %s;\n', owner_new) ELSE '' END;
	set_old := replace(CASE WHEN url_new <> '''''' THEN format(E'\t\t\tgone_url := %s;\n', capture_url(s.relid, s.columns, s.spec, 'old.')) ELSE '' END ||
		CASE WHEN owner_new <> 'NULL' THEN format(E'\t\t\tgone_owner := %s;\n', capture_owner(s.relid, s.columns, s.spec, 'old.')) ELSE '' END, E'\t\t\t', E'\t\t\t\t');
	body := format('
DECLARE
	before text; after text; url text := ''''; owner text; gone_url text := ''''; gone_owner text; place bigint;
	at bigint; act text; who text;
BEGIN
	BEGIN
		IF TG_OP = ''UPDATE'' THEN
			before := %s;
			after := %s;
			IF before = after THEN
%s				IF %s THEN
					RETURN NULL;
				END IF;
			ELSE
%s				NULL;
			END IF;
%s		ELSIF TG_OP = ''INSERT'' THEN
			after := %s;
%s		ELSIF TG_OP = ''DELETE'' THEN
			before := %s;
%s		ELSE
			PERFORM {inschema}.capture_truncate(%s, TG_RELID);
			RETURN NULL;
		END IF;
	EXCEPTION WHEN OTHERS THEN
		IF TG_OP = ''TRUNCATE'' THEN
			RAISE;
		END IF;
		PERFORM {inschema}.capture_slowly(%s, TG_OP, old, new, SQLERRM);
		RETURN NULL;
	END;
', is_old, is_new, same.prepare, same.same, set_old, set_new, is_new, set_new, is_old, set_old, s.id, s.id);
	IF s.spec->'actions' ? 'deleted' THEN
		body := body || format('	IF before IS NOT NULL AND before IS DISTINCT FROM after THEN
		%s%s;
	END IF;
', capture_event(s.id, s.spec, '''deleted''', 'before', 'gone_url', 'gone_owner'),
			CASE WHEN partitioned THEN format(E' RETURNING position INTO place;\n\t\tPERFORM set_config(%s, TG_OP || place || '' '' || before, true)', marker) ELSE '' END);
	END IF;
	IF created IS NOT NULL THEN
		-- A row that moves to another partition is deleted there and inserted here.
		IF partitioned AND s.spec->'actions' ?& ARRAY['created', 'updated', 'deleted'] THEN
			body := body || format('	IF TG_OP = ''INSERT'' AND after IS NOT NULL THEN
		place := substring(current_setting(%1$s, true) FROM ''^DELETE([0-9]{1,18}) '')::bigint;
		IF place IS NOT NULL AND current_setting(%1$s, true) = ''DELETE'' || place || '' '' || after THEN
			DELETE FROM {inschema}.tidings_outbox WHERE position = place AND source = %2$s AND action = ''deleted''
				AND resource_id = after AND xid = pg_current_xact_id()::text::bigint;
			IF FOUND THEN
				before := after;
			END IF;
		END IF;
		PERFORM set_config(%1$s, '''', true);
	END IF;
', marker, s.id);
		END IF;
		body := body || format('	IF after IS NOT NULL THEN
		%s;
	END IF;
', capture_event(s.id, s.spec, CASE WHEN created = 'updated' THEN '''updated''' WHEN s.spec->'actions' ? 'updated'
			THEN 'CASE WHEN before = after THEN ''updated'' ELSE ''created'' END' ELSE '''created''' END, 'after', 'url', 'owner'));
		IF NOT s.spec->'actions' ? 'updated' THEN
			body := replace(body, '	IF after IS NOT NULL THEN', '	IF after IS NOT NULL AND before IS DISTINCT FROM after THEN');
		END IF;
	END IF;
	RETURN body || E'\tRETURN NULL;\nEND ';
END $tidings$;

-- The same for a table whose rows are parts of another table's resources.
CREATE OR REPLACE FUNCTION {schema}.capture_compile_part(s {schema}.tidings_sources) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = {schema}, pg_temp AS $tidings$
DECLARE
	parent jsonb := s.spec->'parent'; rel oid := to_regclass(s.spec->>'part_of'); key text[]; same record; joins text; joins_old text;
	ids text; rest text;
BEGIN
	key := capture_names(s.relid, s.columns, capture_list(s.spec->'key'));
	same := capture_same(s.relid, s.columns, s.spec, 'old.', 'new.', true);
	SELECT string_agg(format('p.%I = new.%I', k, c), ' AND ' ORDER BY nth), string_agg(format('p.%I = old.%I', k, c), ' AND ' ORDER BY nth)
		INTO joins, joins_old FROM unnest(capture_list(parent->'key'), key) WITH ORDINALITY u (k, c, nth);
	ids := format('SELECT %s, %s, %s INTO ', capture_key(rel, capture_list(parent->'key'), 'p.'),
		capture_url(rel, '{}', parent, 'p.'), capture_owner(rel, '{}', parent, 'p.'));
	rest := format(' AND %s', capture_where(rel, '{}', parent, 'p.'));
	RETURN format('
DECLARE
	before text; after text; url text; owner text; gone_url text := ''''; gone_owner text; at bigint; act text; who text;
BEGIN
	IF TG_OP = ''TRUNCATE'' THEN
		PERFORM {inschema}.capture_truncate(%s, TG_RELID);
		RETURN NULL;
	END IF;
	BEGIN
		IF TG_OP = ''UPDATE'' THEN
%s			IF %s THEN
				RETURN NULL;
			END IF;
		END IF;
		IF %s(to_regclass(%L)) IS NULL THEN -- a view would run code of others with our rights
			RAISE EXCEPTION ''%% is no longer a table'', %L;
		END IF;
		IF TG_OP <> ''DELETE'' THEN
			%s;
		END IF;
		IF TG_OP = ''DELETE'' OR TG_OP = ''UPDATE'' AND %s THEN
			%s;
		END IF;
	EXCEPTION WHEN OTHERS THEN
		PERFORM {inschema}.capture_slowly(%s, TG_OP, old, new, SQLERRM);
		RETURN NULL;
	END;
	IF before IS NOT NULL THEN
		%s;
	END IF;
	IF after IS NOT NULL THEN
		%s;
	END IF;
	RETURN NULL;
END ', s.id, same.prepare, same.same, CASE (SELECT relkind FROM pg_class WHERE oid = rel) WHEN 'p' THEN 'pg_get_partkeydef' ELSE 'pg_relation_filenode' END,
		s.spec->>'part_of', s.spec->>'part_of', ids || 'after, url, owner FROM ' || (s.spec->>'part_of') || ' p WHERE ' || joins || rest,
		format('%s IS DISTINCT FROM %s', capture_part_key(s.relid, key, 'old.'), capture_part_key(s.relid, key, 'new.')),
		ids || 'before, gone_url, gone_owner FROM ' || (s.spec->>'part_of') || ' p WHERE ' || joins_old || rest, s.id,
		capture_event(s.id, s.spec, '''updated''', 'before', 'gone_url', 'gone_owner'),
		capture_event(s.id, s.spec, '''updated''', 'after', 'url', 'owner'));
END $tidings$;

CREATE OR REPLACE FUNCTION {schema}.capture_drifted(of_source integer, reason text) RETURNS void
LANGUAGE sql VOLATILE SET search_path = {schema}, pg_temp AS $tidings$
	INSERT INTO tidings_drift SELECT of_source, left(reason, 500), clock_timestamp()
	WHERE NOT EXISTS (SELECT FROM tidings_drift WHERE source = of_source)
$tidings$;

-- What a trigger does after its table was changed: by the present names of columns, in
-- statements that are made anew each time.
CREATE OR REPLACE FUNCTION {schema}.capture_slowly(of_source integer, op text, old record, new record, reason text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = {schema}, pg_temp {settings} AS $tidings$
DECLARE
	s {schema}.tidings_sources; key text[]; numbers jsonb := '{}'; rel oid; before text; after text; unchanged boolean := false;
	url text; gone_url text; owner text; gone_owner text; actions jsonb; act text; created text;
BEGIN
	PERFORM capture_drifted(of_source, reason);
	SELECT * INTO s FROM tidings_sources WHERE id = of_source;
	IF NOT FOUND OR s.detached THEN
		RETURN;
	END IF;
	actions := s.spec->'actions';
	BEGIN
		rel := s.relid;
		IF s.origin = capture_origin() AND EXISTS (SELECT FROM pg_class WHERE oid = rel) THEN
			numbers := s.columns;
		ELSE
			rel := coalesce(to_regclass(s.relation), 0);
		END IF;
		key := capture_names(rel, numbers, capture_list(s.spec->'key'));
		IF array_position(key, NULL) IS NOT NULL THEN
			key := coalesce(CASE WHEN s.part = '' THEN capture_primary_key(rel) END, key);
		END IF;
		EXECUTE format('SELECT CASE WHEN $3 <> ''INSERT'' AND %s THEN %s END, CASE WHEN $3 <> ''DELETE'' AND %s THEN %s END, %s, %s, %s, %s, $3 = ''UPDATE'' AND %s',
			capture_where(rel, numbers, s.spec, '($1).'), CASE s.part WHEN '' THEN capture_key(rel, key, '($1).') ELSE capture_part_key(rel, key, '($1).') END,
			capture_where(rel, numbers, s.spec, '($2).'), CASE s.part WHEN '' THEN capture_key(rel, key, '($2).') ELSE capture_part_key(rel, key, '($2).') END,
			capture_url(rel, numbers, s.spec, '($1).'), capture_url(rel, numbers, s.spec, '($2).'),
			capture_owner(rel, numbers, s.spec, '($1).'), capture_owner(rel, numbers, s.spec, '($2).'),
			(capture_same(rel, numbers, s.spec, '($1).', '($2).', false)).same)
			INTO before, after, gone_url, url, gone_owner, owner, unchanged USING old, new, op;
	EXCEPTION WHEN OTHERS THEN -- told of all the same
		before := CASE WHEN op <> 'INSERT' THEN '?' END;
		after := CASE WHEN op <> 'DELETE' THEN '?' END;
	END;
	IF s.part <> '' THEN
		IF NOT unchanged THEN
			FOR after IN SELECT DISTINCT k FROM unnest(ARRAY[before, after]) u (k) WHERE k <> '' LOOP
				EXECUTE capture_insert(s.id, s.spec, '''updated''', '$1', '''''', 'NULL') USING after;
			END LOOP;
		END IF;
		RETURN;
	END IF;
	IF before IS NOT NULL AND before IS DISTINCT FROM after AND actions ? 'deleted' THEN
		EXECUTE capture_insert(s.id, s.spec, '''deleted''', '$1', '$2', '$3') USING before, coalesce(gone_url, ''), gone_owner;
	END IF;
	act := CASE WHEN before = after OR NOT actions ? 'created' THEN 'updated' ELSE 'created' END;
	IF after IS NOT NULL AND actions ? act AND NOT (before IS NOT DISTINCT FROM after AND unchanged) THEN
		EXECUTE capture_insert(s.id, s.spec, '$4', '$1', '$2', '$3') USING after, coalesce(url, ''), owner, act;
	END IF;
END $tidings$;

-- TRUNCATE of a table, or of one partition.
CREATE OR REPLACE FUNCTION {schema}.capture_truncate(of_source integer, rel oid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = {schema}, pg_temp SET row_security = off {settings} AS $tidings$
DECLARE s {schema}.tidings_sources; key text[]; numbers jsonb := '{}'; leaf oid;
BEGIN
	SELECT * INTO s FROM tidings_sources WHERE id = of_source;
	IF NOT FOUND OR s.detached THEN
		RETURN;
	END IF;
	IF s.origin = capture_origin() AND rel <> s.relid AND NOT EXISTS (SELECT FROM pg_partition_ancestors(rel) WHERE relid = s.relid) THEN
		RETURN; -- it was a partition
	END IF;
	IF (SELECT relkind = 'p' FROM pg_class WHERE oid = rel) THEN -- of new partitions; others have triggers of their own
		FOR leaf IN SELECT inhrelid FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = rel AND relkind = 'r'
			AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = inhrelid AND t.tgtype = 34
				AND t.tgfoid = to_regprocedure(format('{inschema}.%I()', 'capture_' || of_source))) LOOP
			PERFORM capture_truncate(of_source, leaf);
		END LOOP;
		RETURN;
	END IF;
	IF s.spec->>'truncate' = 'refuse' THEN
		RAISE EXCEPTION 'tidings: TRUNCATE of % is refused, because webhooks tell of each row that is deleted', rel::regclass
			USING ERRCODE = '0A000', HINT = 'Use DELETE, or set truncate: deleted for this table.';
	END IF;
	BEGIN
		IF s.origin = capture_origin() AND EXISTS (SELECT FROM pg_class WHERE oid = s.relid) THEN -- partitions have numbers of their own
			numbers := (SELECT coalesce(jsonb_object_agg(c, (SELECT attnum FROM pg_attribute WHERE attrelid = rel AND attnum > 0
				AND attname = (capture_names(s.relid, s.columns, ARRAY[c]))[1])), '{}') FROM jsonb_object_keys(s.columns) u (c));
		END IF;
		key := capture_names(rel, numbers, capture_list(s.spec->'key'));
		IF s.part <> '' THEN
			EXECUTE format('%s FROM (SELECT DISTINCT %s AS k FROM ONLY %s t) u WHERE k <> ''''',
				capture_insert(s.id, s.spec, '''updated''', 'k', '''''', 'NULL'), capture_part_key(rel, key, 't.'), rel::regclass);
		ELSIF s.spec->'actions' ? 'deleted' THEN
			EXECUTE format('%s FROM ONLY %s t WHERE %s', capture_insert(s.id, s.spec, '''deleted''', capture_key(rel, key, 't.'),
				capture_url(rel, numbers, s.spec, 't.'), capture_owner(rel, numbers, s.spec, 't.')), rel::regclass,
				capture_where(rel, numbers, s.spec, 't.'));
		END IF;
	EXCEPTION WHEN OTHERS THEN
		PERFORM capture_drifted(of_source, 'TRUNCATE: ' || SQLERRM);
		INSERT INTO tidings_capture_gaps (relation, since, until, reason, recovered)
			VALUES (s.relation, clock_timestamp(), clock_timestamp(), left('TRUNCATE made no events: ' || SQLERRM, 500), 0);
	END;
END $tidings$;
