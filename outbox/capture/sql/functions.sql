-- What triggers are made of. {schema} is the quoted name of the log's schema, {name} is
-- that name as a literal. Whoever runs this owns the functions; the log's tables must
-- exist.
DO $tidings$ BEGIN
	IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
		JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = {name} AND c.relname = 'tidings_sources' AND a.attname = 'triggers' AND NOT a.attisdropped) THEN
		RAISE EXCEPTION 'the tables of Tidings are missing in schema % or of an earlier version: let the role of the relay make them first (outbox.Migrate)', {name};
	END IF;
END $tidings$;

-- The version of these functions; a higher one replaces a lower one.
CREATE OR REPLACE FUNCTION {schema}.capture_version() RETURNS integer
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $tidings$ SELECT {version} $tidings$;

-- The database that this is: the numbers of columns and tables mean nothing in another.
CREATE OR REPLACE FUNCTION {schema}.capture_origin() RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $tidings$
DECLARE system text := '';
BEGIN
	BEGIN
		SELECT system_identifier::text INTO system FROM pg_control_system();
	EXCEPTION WHEN insufficient_privilege THEN NULL;
	END;
	RETURN system || '/' || (SELECT oid FROM pg_database WHERE datname = current_database());
END $tidings$;

-- json is never cast to jsonb where that may raise an error: \u0000, huge numbers.
CREATE OR REPLACE FUNCTION {schema}.capture_same_json(a text, b text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $tidings$
BEGIN
	RETURN a = b OR a IS NOT NULL AND b IS NOT NULL AND a::jsonb = b::jsonb;
EXCEPTION WHEN OTHERS THEN
	RETURN false;
END $tidings$;

-- An expression: a column of a row as text, by nothing but PostgreSQL's own functions.
-- Casts of types that others made would run code of theirs with our rights. NULL if
-- there is no such column.
CREATE OR REPLACE FUNCTION {schema}.capture_text(rel oid, col text, of_row text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $tidings$
	SELECT CASE WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN format('%s%I::text', of_row, a.attname)
		ELSE format('(CASE num_nulls(%1$s%2$I) WHEN 0 THEN concat(%1$s%2$I) END)', of_row, a.attname) END
	FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
	WHERE a.attrelid = rel AND a.attname = col AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'
$tidings$;

-- The present names of columns: that in the specification, or that of its number if it
-- was renamed since. NULL stands for a column that is gone.
CREATE OR REPLACE FUNCTION {schema}.capture_names(rel oid, numbers jsonb, names text[]) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $tidings$
	SELECT coalesce(array_agg(coalesce(
			(SELECT attname::text FROM pg_attribute WHERE attrelid = rel AND attnum > 0 AND attname = name AND NOT attisdropped),
			(SELECT attname::text FROM pg_attribute WHERE attrelid = rel AND attnum = (numbers->>name)::int2 AND NOT attisdropped)
		) ORDER BY nth), '{}')
	FROM unnest(names) WITH ORDINALITY u (name, nth)
$tidings$;

CREATE OR REPLACE FUNCTION {schema}.capture_list(list jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $tidings$
	SELECT array_agg(v ORDER BY nth) FROM jsonb_array_elements_text(CASE jsonb_typeof(list) WHEN 'array' THEN list END) WITH ORDINALITY u (v, nth)
$tidings$;

CREATE OR REPLACE FUNCTION {schema}.capture_primary_key(rel oid) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $tidings$
	SELECT array_agg(a.attname::text ORDER BY k.nth) FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY k (attnum, nth)
		JOIN pg_attribute a ON a.attnum = k.attnum WHERE i.indrelid = rel AND i.indisprimary AND a.attrelid = rel
$tidings$;

-- An expression: the id of a row.
CREATE OR REPLACE FUNCTION {schema}.capture_key(rel oid, key text[], of_row text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = {schema}, pg_temp AS $tidings$
DECLARE parts text[];
BEGIN
	SELECT array_agg(format(CASE WHEN cardinality(key) = 1 THEN 'coalesce(%s, '''')'
		ELSE 'replace(replace(coalesce(%s, ''''), ''%%'', ''%%25''), '':'', ''%%3A'')' END,
		coalesce(capture_text(rel, col, of_row), '''?''')) ORDER BY nth) INTO parts
	FROM unnest(key) WITH ORDINALITY u (col, nth);
	RETURN coalesce(array_to_string(parts, ' || '':'' || '), '''?''');
END $tidings$;

-- The same for the resource that a row is a part of; NULL if it is of none.
CREATE OR REPLACE FUNCTION {schema}.capture_part_key(rel oid, key text[], of_row text) RETURNS text
LANGUAGE sql STABLE SET search_path = {schema}, pg_temp AS $tidings$
	SELECT format('(CASE num_nulls(%s) WHEN 0 THEN %s END)', coalesce(string_agg(format('%s%I', of_row, col), ', '), '1'), capture_key(rel, key, of_row))
	FROM unnest(array_remove(key, NULL)) u (col)
$tidings$;

-- An expression: whether a row is a resource.
CREATE OR REPLACE FUNCTION {schema}.capture_where(rel oid, numbers jsonb, spec jsonb, of_row text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = {schema}, pg_temp AS $tidings$
DECLARE c jsonb; col text; found text[] := '{}';
BEGIN
	FOR c IN SELECT * FROM jsonb_array_elements(CASE jsonb_typeof(spec->'where') WHEN 'array' THEN spec->'where' END) LOOP
		col := capture_text(rel, (capture_names(rel, numbers, ARRAY[c->>'column']))[1], of_row);
		IF col IS NOT NULL THEN
			found := found || format('(%s) IS %sDISTINCT FROM %L', col, CASE WHEN (c->>'not')::boolean THEN '' ELSE 'NOT ' END, c->>'value');
		END IF;
	END LOOP;
	RETURN coalesce(nullif(array_to_string(found, ' AND '), ''), 'true');
END $tidings$;

-- An expression: the URL of a row, or '' if it is put together when events are numbered.
CREATE OR REPLACE FUNCTION {schema}.capture_url(rel oid, numbers jsonb, spec jsonb, of_row text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = {schema}, pg_temp AS $tidings$
DECLARE rest text := coalesce(spec->>'url', ''); col text; parts text[] := '{}';
BEGIN
	IF rest = '' OR spec->>'template' <> '' THEN
		RETURN '''''';
	END IF;
	WHILE rest LIKE '%{%}%' LOOP
		parts := parts || quote_literal(split_part(rest, '{', 1));
		rest := substr(rest, strpos(rest, '{') + 1);
		col := capture_text(rel, (capture_names(rel, numbers, ARRAY[split_part(rest, '}', 1)]))[1], of_row);
		-- One that is longer makes no valid URL, and is not worth the time.
		parts := parts || format('{inschema}.tidings_escape(left(coalesce(%s, ''''), 2049))', coalesce(col, ''''''));
		rest := substr(rest, strpos(rest, '}') + 1);
	END LOOP;
	RETURN array_to_string(parts || quote_literal(rest), ' || ');
END $tidings$;

-- An expression: whose row it is.
CREATE OR REPLACE FUNCTION {schema}.capture_owner(rel oid, numbers jsonb, spec jsonb, of_row text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = {schema}, pg_temp AS $tidings$
BEGIN
	RETURN coalesce(capture_text(rel, (capture_names(rel, numbers, ARRAY[spec->>'user']))[1], of_row), 'NULL');
END $tidings$;

-- Statements that make the old row like the new one in what is no news, for a fast
-- comparison of whole rows; and an expression that is true if nothing else changed.
CREATE OR REPLACE FUNCTION {schema}.capture_same(rel oid, numbers jsonb, spec jsonb, a text, b text, whole boolean, OUT prepare text, OUT same text)
LANGUAGE plpgsql STABLE SET search_path = {schema}, pg_temp AS $tidings$
DECLARE watched text[]; ignored text[]; compared text[]; col record; rows_a text[] := '{}'; rows_b text[] := '{}'; json text := '';
BEGIN
	prepare := '';
	watched := array_remove(capture_names(rel, numbers, capture_list(spec->'watch')), NULL);
	ignored := array_remove(capture_names(rel, numbers, capture_list(spec->'ignore')), NULL);
	FOR col IN SELECT attname::text AS name, atttypid = 'json'::regtype AS is_json FROM pg_attribute
		WHERE attrelid = rel AND attnum > 0 AND NOT attisdropped AND attgenerated <> 'v' ORDER BY attnum LOOP
		IF cardinality(watched) > 0 AND NOT col.name = ANY (watched) THEN
			CONTINUE;
		ELSIF col.name = ANY (ignored) THEN
			prepare := prepare || format(E'\t\t\t\told.%1$I := new.%1$I;\n', col.name);
		ELSIF col.is_json AND (NOT whole OR cardinality(watched) > 0) THEN
			json := json || format(' AND ((%1$s%3$I::text IS NOT DISTINCT FROM %2$s%3$I::text) OR coalesce({inschema}.capture_same_json(%1$s%3$I::text, %2$s%3$I::text), false))', a, b, col.name);
		ELSIF col.is_json THEN
			prepare := prepare || format(E'\t\t\t\tIF old.%1$I::text <> new.%1$I::text AND {inschema}.capture_same_json(old.%1$I::text, new.%1$I::text) THEN old.%1$I := new.%1$I; END IF;\n', col.name);
		ELSE
			rows_a := rows_a || format('%s%I', a, col.name);
			rows_b := rows_b || format('%s%I', b, col.name);
		END IF;
	END LOOP;
	IF whole AND cardinality(watched) = 0 THEN
		same := 'old *= new';
	ELSE
		same := format('record_image_eq(ROW(%s), ROW(%s))%s', array_to_string(rows_a, ', '), array_to_string(rows_b, ', '), json);
	END IF;
END $tidings$;

-- The statement that writes an event. id, url and owner are expressions.
CREATE OR REPLACE FUNCTION {schema}.capture_insert(source integer, spec jsonb, action text, id text, url text, owner text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $tidings$
	SELECT format('INSERT INTO {inschema}.tidings_outbox (source, id, resource_type, action, resource_id, resource_url, user_id,
				owner_id, at, resource_version)
			SELECT %s, '''', %L, %s, %s, %s, coalesce(nullif(current_setting(%L, true), ''''), %s, ''''), coalesce(%7$s, ''''),
				(date_part(''epoch'', clock_timestamp()) * 1000000)::bigint, 0',
		source, spec->>'type', action, id, url, coalesce(nullif(spec->>'setting', ''), 'tidings.user_id'), owner)
$tidings$;

-- The same for the body of a trigger function, with variables for url and owner. Its
-- expressions come before the statement, which would prepare them anew for each row: that
-- took a sixth of the time.
CREATE OR REPLACE FUNCTION {schema}.capture_event(source integer, spec jsonb, action text, id text, url text, owner text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $tidings$
	SELECT format('at := date_part(''epoch'', clock_timestamp()) * 1000000;
		act := %3$s;
		who := coalesce(nullif(current_setting(%7$L, true), ''''), %6$s, '''');
		%6$s := coalesce(%6$s, '''');
		INSERT INTO {inschema}.tidings_outbox (source, id, resource_type, action, resource_id, resource_url, user_id, owner_id, at, resource_version)
			VALUES (%1$s, '''', %2$L, act, %4$s, %5$s, who, %6$s, at, 0)',
		source, spec->>'type', action, id, url, owner, coalesce(nullif(spec->>'setting', ''), 'tidings.user_id'))
$tidings$;
