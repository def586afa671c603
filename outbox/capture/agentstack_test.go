package capture_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/outbox/capture"
)

// stack is the database of an Agent Stack server. Ids are UUIDs that end in a letter and
// a number, such as u1; texts have them in braces.
type stack struct {
	*app
	builds bool
}

// openStack makes a database with the tables of a version, and attaches the preset.
func openStack(t *testing.T, version string) stack {
	t.Helper()
	a := newApp(t)
	tables, err := os.ReadFile("testdata/agentstack-" + version + ".sql")
	if err != nil {
		t.Fatal(err)
	}
	a.exec(string(tables))
	preset, err := capture.AgentStack(t.Context(), a.db)
	if err != nil {
		t.Fatal(err)
	}
	a.attach(preset...)
	if found := a.findings(preset...); found != "" {
		t.Errorf("Check: %s", found)
	}
	return stack{a, version == "2026-03"}
}

// uuid returns an id, such as that of "u1".
func uuid(name string) string { return fmt.Sprintf("00000000-0000-4000-8000-%012x", name) }

var idPattern = regexp.MustCompile(`\{[a-z]+[0-9]?\}`)

// ids replaces {u1} by the id.
func ids(text string) string {
	return idPattern.ReplaceAllStringFunc(text, func(name string) string { return uuid(name[1 : len(name)-1]) })
}

// insert returns a statement; values are as in SQL, and created_at is added.
func insert(table, columns, values string) string {
	return ids(fmt.Sprintf("INSERT INTO public.%s (%s, created_at) VALUES (%s, now())", table, columns, values))
}

// step is what the server writes in one transaction, and the events that it must create.
type step struct {
	what, want string // events: "TYPE.ACTION ID USER", separated by commas
	statements []string
}

func (s stack) run(steps []step) {
	s.t.Helper()
	for _, step := range steps {
		s.inTx(step.statements...)
		var got []string
		for _, e := range s.events() {
			got = append(got, strings.TrimSpace(e.Name()+" "+name(e.ResourceID)+" "+name(e.UserID)))
			if url := wantURL(string(e.Type), e.ResourceID); e.ResourceURL != url {
				s.t.Errorf("%s: URL %s, want %s", step.what, e.ResourceURL, url)
			}
		}
		if diff := gocmp.Diff(step.want, strings.Join(got, ", ")); diff != "" {
			s.t.Errorf("%s (-want +got):\n%s", step.what, diff)
		}
	}
}

func wantURL(typ, id string) string {
	switch typ {
	case "configuration":
		return "/api/v1/configurations/system"
	case "user_feedback":
		return "/api/v1/user_feedback/" + id
	}
	return "/api/v1/" + typ + "s/" + id
}

// name is the reverse of uuid.
func name(id string) string {
	var text []byte
	if len(id) != 36 {
		return id
	}
	for i := 24; i < 36; i += 2 {
		var c byte
		fmt.Sscanf(id[i:i+2], "%02x", &c)
		if c != 0 {
			text = append(text, c)
		}
	}
	return string(text)
}

func TestAgentStack(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"2026-03", "2026-05"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := openStack(t, version)
			s.run(s.people())
			s.run(s.models())
			s.run(s.providers())
			s.run(s.contexts())
			s.run(s.files())
			s.run(s.stores())
			s.run(s.connectors())
			if s.builds {
				s.run(s.providerBuilds())
			}
			s.run(s.deletions())
		})
	}
}

func (s stack) people() (steps []step) {
	for _, u := range []string{"u1", "u2", "adm"} {
		steps = append(steps, step{
			"first sign-in of " + u, "user.created " + u + " " + u,
			[]string{insert("users", "id, email", "'{"+u+"}', '"+u+"@x'")},
		})
	}
	return append(steps, step{"user variables", "user.updated u1 u1", []string{
		insert("variables", "id, key, value, parent_entity, user_id", "'{va1}', 'A', 'e', 'user', '{u1}'"),
	}})
}

func (s stack) models() []step {
	return []step{
		{"model provider and its key", "model_provider.created mp", []string{
			insert("model_providers", "id, name, type, base_url, state", "'{mp}', 'm', 'openai', 'http://x', 'online'"),
			insert("variables", "id, key, value, parent_entity, model_provider_id",
				"'{va2}', 'KEY', 'e', 'model_provider', '{mp}'"),
		}},
		{"the hourly check finds the same", "", []string{ids("UPDATE public.model_providers SET state = 'online' " +
			"WHERE id = '{mp}'")}},
		{"state flips", "model_provider.updated mp", []string{ids("UPDATE public.model_providers SET state = " +
			"'offline' WHERE id = '{mp}'")}},
		{"system configuration", "configuration.updated cf adm", []string{
			ids("INSERT INTO public.configurations (id, updated_at, created_by, configuration_type, " +
				"default_llm_model) VALUES ('{cf}', now(), '{adm}', 'system', 'a')"),
		}},
		{"configuration by another admin", "configuration.updated cf u2", []string{
			ids("UPDATE public.configurations SET default_llm_model = 'b', updated_at = now(), created_by = '{u2}'"),
		}},
		{"configuration with the same values", "", []string{
			ids("UPDATE public.configurations SET default_llm_model = 'b', updated_at = now(), created_by = '{u2}'"),
		}},
	}
}

func (s stack) providers() []step {
	columns, values, state := "source_type, state", "'api', 'online'", "state"
	if s.builds {
		columns, values, state = "type, version_info, auto_stop_timeout_sec", "'unmanaged', '{}', 1200",
			"unmanaged_state"
	}
	update := func(set string) string { return ids("UPDATE public.providers SET " + set + " WHERE id = '{p1}'") }
	return []step{
		{"provider with variables", "provider.created p1 u2", []string{
			insert("providers", "id, source, origin, updated_at, created_by, last_active_at, agent_card, "+columns,
				"'{p1}', 'http://a', 'http://a', now(), '{u2}', now(), '{\"name\": \"n\"}', "+values),
			insert("variables", "id, key, value, parent_entity, provider_id", "'{va3}', 'K', 'v', 'provider', '{p1}'"),
		}},
		{"a call touches last_active_at", "", []string{update("last_active_at = now()")}},
		{"health check: goes offline", "provider.updated p1 u2", []string{
			update(state + " = 'offline', agent_card = '{\"name\": \"n\"}'"),
		}},
		{"health check finds the same", "", []string{
			update(state + " = 'offline', agent_card = '{\"name\":\"n\"}'"),
		}},
		{"variables are replaced", "provider.updated p1 u2", []string{
			ids("DELETE FROM public.variables WHERE provider_id = '{p1}'"),
			insert("variables", "id, key, value, parent_entity, provider_id", "'{va3}', 'K', 'w', 'provider', '{p1}'"),
		}},
		{"an admin edits it, and the server says who", "provider.updated p1 adm", []string{
			ids("SELECT set_config('tidings.user_id', '{adm}', true)"), update("origin = 'o2'"),
		}},
	}
}

func (s stack) contexts() []step {
	history := func(id, data string) string {
		return insert("context_history", "id, context_id, data", "'{"+id+"}', '{cx1}', '"+data+"'")
	}
	return []step{
		{"context", "context.created cx1 u1", []string{
			insert("contexts", "id, updated_at, last_active_at, created_by, provider_id, metadata",
				"'{cx1}', now(), now(), '{u1}', '{p1}', '{}'"),
		}},
		{"context of another", "context.created cx2 u2", []string{
			insert("contexts", "id, updated_at, last_active_at, created_by, metadata",
				"'{cx2}', now(), now(), '{u2}', '{}'"),
		}},
		{"the first message sets the title", "context.updated cx1 u1", []string{
			history("h1", `{"role":"user"}`), ids(`UPDATE public.contexts SET metadata = '{"title":"x"}' WHERE ` +
				`id = '{cx1}'`),
		}},
		{"second message", "context.updated cx1 u1", []string{history("h2", `{"role":"agent"}`)}},
		{"metadata", "context.updated cx1 u1", []string{
			ids(`UPDATE public.contexts SET metadata = '{"title":"y"}', updated_at = now() WHERE id = '{cx1}'`),
		}},
		{"touched", "", []string{ids("UPDATE public.contexts SET last_active_at = now(), updated_at = now() " +
			"WHERE id = '{cx1}'")}},
		{"rolled back", "", []string{
			insert("contexts", "id, updated_at, created_by", "'{cx3}', now(), '{u1}'"), "ROLLBACK", "BEGIN",
		}},
		{"feedback", "user_feedback.created fb u1", []string{
			insert("user_feedback", "id, provider_id, task_id, context_id, rating, message, created_by",
				"'{fb}', '{p1}', '{t1}', '{cx1}', 1, 'm', '{u1}'"),
		}},
	}
}

func (s stack) files() []step {
	file := func(id, more, values string) string {
		return insert("files", "id, filename, content_type, file_size_bytes, created_by, file_type, context_id"+more,
			"'{"+id+"}', 'a', 'text/plain', 0, '{u1}', "+values)
	}
	return []step{
		{"an upload begins", "", []string{file("f1", "", "'user_upload', '{cx1}'")}},
		{"an upload is done", "file.created f1 u1", []string{ids("UPDATE public.files SET file_size_bytes = 10 " +
			"WHERE id = '{f1}'")}},
		{"an upload that fails", "", []string{file("f0", "", "'user_upload', NULL")}},
		{"what is left of it is removed", "", []string{ids("DELETE FROM public.files WHERE id = '{f0}'")}},
		{"extraction begins", "file.updated f1 u1", []string{insert("text_extractions", "id, file_id, status",
			"'{x1}', '{f1}', 'pending'")}},
		{"extraction has a job", "", []string{ids("UPDATE public.text_extractions SET job_id = '1' WHERE file_id " +
			"= '{f1}'")}},
		{"extraction is under way", "file.updated f1 u1", []string{
			ids("UPDATE public.text_extractions SET status = 'in_progress', started_at = now() WHERE file_id = '{f1}'"),
		}},
		{"the row of the extracted file", "", []string{file("f2", ", parent_file_id",
			"'extracted_text', '{cx1}', '{f1}'")}},
		{
			"the extracted file is stored", "file.created f2 u1",
			[]string{ids("UPDATE public.files SET file_size_bytes = 9 WHERE id = '{f2}'")},
		},
		{"extraction is completed", "file.updated f1 u1", []string{
			ids("UPDATE public.text_extractions SET status = 'completed', finished_at = now() WHERE file_id = '{f1}'"),
		}},
		{
			"a file goes with its extracted text", "file.deleted f1 u1, file.deleted f2 u1",
			[]string{ids("DELETE FROM public.files WHERE id = '{f1}'")},
		},
	}
}

func (s stack) stores() []step {
	document := func(id string) string {
		return insert("vector_store_documents", "id, vector_store_id, usage_bytes", "'"+id+"', '{v1}', 5")
	}
	return []step{
		{"vector store", "vector_store.created v1 u1", []string{
			insert("vector_stores", "id, name, model_id, dimension, last_active_at, created_by, context_id",
				"'{v1}', 'v', 'm', 128, now(), '{u1}', '{cx1}'"),
		}},
		{"it is read", "", []string{"UPDATE public.vector_stores SET last_active_at = now()"}},
		{"three documents", "vector_store.updated v1 u1", []string{
			document("d0"), document("d1"), document("d2"), "UPDATE public.vector_stores SET last_active_at = now()",
		}},
		{
			"a document is removed", "vector_store.updated v1 u1",
			[]string{"DELETE FROM public.vector_store_documents WHERE id = 'd1'"},
		},
	}
}

func (s stack) connectors() []step {
	return []step{
		{"connector", "connector.created k1 u1", []string{
			insert("connectors", "id, url, updated_at, created_by, state",
				"'{k1}', 'http://m', now(), '{u1}', 'created'"),
		}},
		{"connected", "connector.updated k1 u1", []string{`UPDATE public.connectors SET state = 'connected', ` +
			`auth = '{"t":1}'`}},
		{"a token is rotated", "", []string{`UPDATE public.connectors SET state = 'connected', auth = '{"t":2}', ` +
			`updated_at = now()`}},
		{"removed", "connector.deleted k1 u1", []string{"DELETE FROM public.connectors"}},
	}
}

func (s stack) providerBuilds() []step {
	return []step{
		{"build", "provider_build.created b1 u2", []string{
			insert("provider_builds", "id, source, created_by, status, destination, on_complete",
				"'{b1}', '{}', '{u2}', 'missing', 'd', '{}'"),
		}},
		{"build in progress", "provider_build.updated b1 u2", []string{"UPDATE public.provider_builds SET status " +
			"= 'in_progress'"}},
		{"build saved again", "", []string{"UPDATE public.provider_builds SET status = 'in_progress'"}},
	}
}

func (s stack) deletions() []step {
	build := ""
	if s.builds {
		build = ", provider_build.deleted b1 u2"
	}
	return []step{
		{"an admin deletes a provider", "provider.deleted p1 adm, context.deleted cx1 adm, user_feedback.deleted " +
			"fb adm, vector_store.deleted v1 adm", []string{
			ids("SELECT set_config('tidings.user_id', '{adm}', true)"),
			ids("DELETE FROM public.providers WHERE id = '{p1}'"),
		}},
		{
			"a user is deleted", "user.deleted u2 u2, context.deleted cx2 u2" + build,
			[]string{ids("DELETE FROM public.users WHERE id = '{u2}'")},
		},
	}
}

func TestNoAgentStack(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	_, err := capture.AgentStack(t.Context(), a.db)
	if err == nil || !strings.Contains(err.Error(), "it has no table public.configurations") {
		t.Error(err)
	}
}
