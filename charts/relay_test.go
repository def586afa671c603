package charts_test

import (
	"context"
	"database/sql"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/tidings-dev/tidings/internal/cli"
	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// Beside an Agent Stack server, the job logs the SQL and the tables, and the pod delivers
// the server's changes.
func TestRelayBesideAgentStack(t *testing.T) {
	testtool.InAll(t)
	url, err := testdb.OwnServer(t).Create("agentstack")
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	exec := func(text string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	tables, err := os.ReadFile("../outbox/capture/testdata/agentstack-2026-05.sql")
	if err != nil {
		t.Fatal(err)
	}
	exec(string(tables))
	webhooks := make(chan string, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		webhooks <- r.Header.Get("Authorization") + " " + string(body)
	}))
	defer receiver.Close()
	address := testtool.FreeAddress(t)

	objects := render(t, "helm", "--values", valuesFiles(t)["agent-stack"], "--set-string", strings.Join([]string{
		"database.existingSecret=", "database.url=" + strings.Replace(url, "://", "+asyncpg://", 1),
		"webhook.endpoints[0].url=" + receiver.URL, "config.listen=" + address,
		"config.data_dir=" + t.TempDir(),
	}, ","))
	job := podOf(find(t, objects, "Job", "-attach"))
	printed := container(t, objects, job, "initContainers")
	out, err := tidings(t.Context(), printed)
	if err != nil || !strings.Contains(out, `CREATE OR REPLACE FUNCTION "tidings".emit`) ||
		!strings.Contains(out, `"tidings".attach('"public"."contexts"'`) {
		t.Fatalf("%q: %v\n%s", printed, err, out)
	}
	if out, err = tidings(t.Context(), container(t, objects, job, "containers")); err != nil ||
		!strings.Contains(out, "attached: public.configurations, public.connectors, ") {
		t.Fatalf("attach: %v\n%s", err, out)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	pod := container(t, objects, podOf(find(t, objects, "Deployment", "")), "containers")
	go func() {
		_, err := tidings(ctx, pod)
		ended <- err
	}()
	deadline := time.Now().Add(testtool.Allow(patience))
	for status := 0; status != http.StatusOK; <-time.After(50 * time.Millisecond) {
		if response, err := http.Get("http://" + address + "/readyz"); err == nil {
			response.Body.Close()
			status = response.StatusCode
		}
		if time.Now().After(deadline) {
			t.Fatal("the relay is not ready")
		}
	}
	exec("INSERT INTO users (id, email, created_at) VALUES ('00000000-0000-4000-8000-000000000001', 'a@x', now())")
	select {
	case got := <-webhooks:
		if !strings.HasPrefix(got, `Bearer my-secret-token {"event":"user.created","resource_type":"user",`) {
			t.Error(got)
		}
	case err := <-ended:
		t.Fatalf("the relay ended: %v", err)
	case <-time.After(testtool.Allow(patience)):
		t.Fatal("no webhook arrived")
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func podOf(o object) object { return o["spec"].(object)["template"].(object)["spec"].(object) }

// container returns the arguments of a pod's first container of a kind, with the
// configuration files in a temporary folder.
func container(t *testing.T, objects []object, pod object, kind string) []string {
	t.Helper()
	var args []string
	given := pod[kind].([]any)[0].(object)["args"].([]any)
	for _, a := range given {
		if path := strings.TrimPrefix(a.(string), "--config="); !strings.HasPrefix(path, "/") {
			args = append(args, a.(string))
		}
	}
	for _, file := range readable(t, volumeFiles(t, objects, pod), pod, given) {
		args = append(args, "--config="+file)
	}
	return args
}

// tidings runs a command and returns its output.
func tidings(ctx context.Context, args []string) (string, error) {
	var out strings.Builder
	cmd := cli.Command()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	err := cmd.ExecuteContext(ctx)
	return out.String(), err
}

// The values in the documentation are valid and render a valid configuration.
func TestDocumentedRelayValues(t *testing.T) {
	for page, heading := range map[string]string{
		"agent-stack": "## With Helm", "kubernetes": "## Beside an application",
	} {
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile("../docs/" + page + ".md")
			if err != nil {
				t.Fatal(err)
			}
			_, section, _ := strings.Cut(string(text), "\n"+heading+"\n")
			_, block, _ := strings.Cut(section, "```yaml\n")
			block, _, _ = strings.Cut(block, "```")
			values := filepath.Join(t.TempDir(), "values.yaml")
			if err := os.WriteFile(values, []byte(block), 0o600); err != nil {
				t.Fatal(err)
			}
			objects := render(t, "helm", "--values", values)
			check := container(t, objects, podOf(find(t, objects, "Job", "-check")), "containers")
			for i, arg := range check {
				check[i] = strings.TrimPrefix(arg, "--config=")
			}
			if out, err := tidings(t.Context(), check); err != nil || !strings.Contains(out, "valid, 1 webhook endpoint\n") {
				t.Errorf("%q: %v\n%s", check, err, out)
			}
		})
	}
}
