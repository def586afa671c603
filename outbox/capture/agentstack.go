package capture

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/tidings-dev/tidings"
)

// agentStack lists the tables of all versions of the Agent Stack server. Tables and
// columns that a database does not have are left out.
var agentStack = []Table{
	{
		Name: "public.configurations", Type: "configuration", URL: "/api/v1/configurations/system", User: "created_by",
		Ignore: []string{"updated_at", "created_by"}, Actions: []tidings.Action{tidings.Updated},
	},
	// Tokens are rotated every 30 seconds.
	{
		Name: "public.connectors", Type: "connector", URL: "/api/v1/connectors/{id}", User: "created_by",
		Ignore: []string{"updated_at", "auth", "auth_state"},
	},
	{
		Name: "public.contexts", Type: "context", URL: "/api/v1/contexts/{id}", User: "created_by",
		Ignore: []string{"updated_at", "last_active_at"},
		Parts:  []Part{{Name: "public.context_history", Key: []string{"context_id"}}},
	},
	// The row is written before the content: the file exists once its size is set.
	{
		Name: "public.files", Type: "file", URL: "/api/v1/files/{id}", User: "created_by",
		Where: []string{"file_size_bytes is not null", "file_size_bytes != 0"},
		Parts: []Part{{
			Name: "public.text_extractions", Key: []string{"file_id"},
			Ignore: []string{"job_id", "started_at", "finished_at", "extraction_metadata"},
		}},
	},
	{
		Name: "public.model_providers", Type: "model_provider", URL: "/api/v1/model_providers/{id}",
		Parts: []Part{{Name: "public.variables", Key: []string{"model_provider_id"}}},
	},
	{
		Name: "public.providers", Type: "provider", URL: "/api/v1/providers/{id}", User: "created_by",
		Ignore: []string{"updated_at", "last_active_at"},
		Parts:  []Part{{Name: "public.variables", Key: []string{"provider_id"}}},
	},
	{
		Name: "public.provider_builds", Type: "provider_build", URL: "/api/v1/provider_builds/{id}", User: "created_by",
	},
	{
		Name: "public.users", Type: "user", URL: "/api/v1/users/{id}", User: "id",
		Ignore: []string{"role_version", "role_updated_at"},
		Parts:  []Part{{Name: "public.variables", Key: []string{"user_id"}}},
	},
	{
		Name: "public.user_feedback", Type: "user_feedback", URL: "/api/v1/user_feedback/{id}", User: "created_by",
		Ignore: []string{"trace_id"},
	},
	{
		Name: "public.vector_stores", Type: "vector_store", URL: "/api/v1/vector_stores/{id}", User: "created_by",
		Ignore: []string{"last_active_at"},
		Parts: []Part{{
			Name: "public.vector_store_documents", Key: []string{"vector_store_id"},
			Ignore: []string{"file_id"},
		}},
	},
}

// AgentStack returns the tables of an Agent Stack server, with the resource types
// of Tidings' own server. It detects the server's version from the database: up to
// March 2026 with provider builds, later without. It returns an error if the
// database is not an Agent Stack server's.
func AgentStack(ctx context.Context, db *sql.DB) ([]Table, error) {
	columns := make(map[string][]string)
	rows, err := db.QueryContext(ctx, `SELECT c.relname::text, a.attname::text FROM pg_attribute a
		JOIN pg_class c ON c.oid = a.attrelid
		JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND a.attnum > 0
			AND NOT a.attisdropped`)
	if err != nil {
		return nil, fmt.Errorf("read the tables of the Agent Stack server: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var table, column string
		if err := rows.Scan(&table, &column); err != nil {
			return nil, fmt.Errorf("read the tables of the Agent Stack server: %w", err)
		}
		columns["public."+table] = append(columns["public."+table], column)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the tables of the Agent Stack server: %w", err)
	}
	var tables []Table
	for _, t := range agentStack {
		if columns[t.Name] == nil {
			if t.Type == "provider_build" { // removed in May 2026
				continue
			}
			return nil, fmt.Errorf("this is no database of an Agent Stack server: it has no table %s", t.Name)
		}
		t.Ignore = among(t.Ignore, columns[t.Name])
		parts := t.Parts
		t.Parts = nil
		for _, p := range parts {
			if columns[p.Name] == nil {
				return nil, fmt.Errorf("this is no database of an Agent Stack server: it has no table %s", p.Name)
			}
			p.Ignore = among(p.Ignore, columns[p.Name])
			t.Parts = append(t.Parts, p)
		}
		tables = append(tables, t)
	}
	return tables, nil
}

// among returns the names that are in columns.
func among(names, columns []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !slices.Contains(columns, name) })
}
