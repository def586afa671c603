package store

import (
	"slices"
	"strings"
)

// tables lists what requests and deliveries use; tidings_history_id is a
// sequence.
var tables = []string{
	"configurations", "connectors", "context_history", "contexts", "encryption_keys", "files", "model_providers",
	"provider_builds", "providers", "tidings_actions", "tidings_capture_gaps", "tidings_controls", "tidings_cursors",
	"tidings_drift", "tidings_epochs", "tidings_events", "tidings_expiry", "tidings_gaps", "tidings_head",
	"tidings_history", "tidings_history_id", "tidings_outbox", "tidings_parked", "tidings_parked_changes",
	"tidings_publications", "tidings_replays", "tidings_replicas", "tidings_retries", "tidings_series",
	"tidings_sessions", "tidings_sources", "tidings_states", "tidings_types", "user_feedback", "users", "variables",
	"vector_store_items", "vector_stores",
}

// usable checks that the database is writable and that this role can use all
// tables in the schema, because a request may need any of them. It reads no
// tables.
func usable(schema string) readyQuery {
	return readyQuery{`
		SELECT CASE
			WHEN current_setting('transaction_read_only') = 'on' THEN '25006'
			WHEN count(c.oid) < array_length($2::text[], 1) THEN '42P01'
			WHEN NOT bool_and(has_schema_privilege(c.relnamespace, 'USAGE') AND CASE
				WHEN relkind = 'S' THEN has_sequence_privilege(c.oid, 'USAGE')
				ELSE has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
					AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')
			END) THEN '42501'
			ELSE ''
		END
		FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid
		WHERE n.nspname = $1 AND c.relname = ANY($2::text[])`, []any{schema, tables}}
}

// logTables are those of the event log.
func logTables() []string {
	return slices.DeleteFunc(slices.Clone(tables), func(name string) bool { return !strings.HasPrefix(name, "tidings_") })
}
