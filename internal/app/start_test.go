package app_test

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/tidings-dev/tidings/internal/testdb"
)

// Without authentication everybody is an admin, but only if they use a local host name.
func TestAuthenticationDisabled(t *testing.T) {
	w := newWorld(t, map[string]any{"auth": object{"disabled": true}, "egress": object{}})
	w.wants(w.try("", "GET", "/users/me", nil), 200, "admin@localhost", `"role":"admin"`)
	w.call("", "POST", "/providers", object{"location": w.agent.url}) // loopback is allowed
	request, err := http.NewRequestWithContext(t.Context(), "GET", w.url+"/api/v1/users/me", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = "attacker.example"
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		t.Errorf("with another site's host name: %d, want 403", response.StatusCode)
	}
	if !strings.Contains(w.log.String(), "authentication is disabled") {
		t.Error("the log does not say that authentication is disabled")
	}
}

// Contents that a crash left without a file are removed, and no others.
func TestSweepContents(t *testing.T) {
	dataDir := t.TempDir()
	settings := map[string]any{"data_dir": dataDir}
	first := newWorld(t, settings)
	kept := first.upload("ann", "").id()
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	const orphan = "0rphan"
	old := time.Now().Add(-2 * time.Hour)
	for _, id := range []string{kept, orphan} {
		path := filepath.Join(dataDir, "files", id[:2], id)
		if id == orphan {
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte("left"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	second := newWorld(t, settings)
	second.logged("removed orphaned file contents")
	if left := contents(t, dataDir); len(left) != 1 || !strings.HasSuffix(left[0], kept) {
		t.Errorf("contents: %q, want only %s", left, kept)
	}
	second.wants(second.try("ann", "GET", "/files/"+kept+"/content", nil), 200, "# Notes")
}

// While the database restarts, the server is not ready and answers with problems.
// Afterwards it recovers by itself, and every committed change arrives.
func TestDatabaseRestarts(t *testing.T) {
	database := testdb.OwnServer(t)
	url, err := database.Create("restarts")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, map[string]any{"database_url": url})
	w.readAndWrite() // opens several connections
	w.mark()
	ready := func() int { return w.request("", "GET", "/readyz", nil, nil).status }
	if status := ready(); status != http.StatusOK {
		t.Errorf("ready: %d", status)
	}
	if err := database.Kill(); err != nil {
		t.Fatal(err)
	}
	if status := ready(); status != http.StatusServiceUnavailable {
		t.Errorf("without a database: %d, want 503", status)
	}
	failed := w.try("ann", "POST", "/contexts", object{})
	w.wants(failed, 503, "try again")
	if strings.Contains(failed.text, "127.0.0.1") {
		t.Errorf("the answer reveals the database's address: %s", failed.text)
	}
	if err := database.Start(); err != nil {
		t.Fatal(err)
	}
	w.untilReady()
	w.readAndWrite() // no request gets a stale connection
	w.mark()
	for range 3 { // no requests arrive while the database is down
		if err := database.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := database.Start(); err != nil {
			t.Fatal(err)
		}
		w.readAndWrite()
	}
	w.mark()
	if err := w.stop(); err != nil { // before the database stops
		t.Error(err)
	}
}

// untilReady waits until the server is ready.
func (w *world) untilReady() {
	w.Helper()
	for deadline := time.Now().Add(testTimeout); w.request("", "GET", "/readyz", nil, nil).status != http.StatusOK; {
		if time.Now().After(deadline) {
			w.Fatal("the server did not become ready again")
		}
		<-time.After(10 * time.Millisecond)
	}
}

// readAndWrite makes several concurrent reads and writes, all of which must succeed.
func (w *world) readAndWrite() {
	w.Helper()
	w.atOnce(16, func(n int) answer {
		if n%2 == 0 {
			return w.try("ann", "POST", "/contexts", object{})
		}
		return w.try("sentinel", "GET", "/users/me", nil)
	}, http.StatusOK, "")
}

// A token can be read from a file.
func TestTokenFromAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("a-token-of-some-length\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t,
		map[string]any{"auth": object{"tokens": []any{object{
			"token": object{"file": file},
			"user":  "ops@example.com", "role": "admin",
		}}}})
	w.wants(w.try("a-token-of-some-length", "GET", "/users/me", nil), 200, "ops@example.com", `"role":"admin"`)
	w.wants(w.try("another", "GET", "/users/me", nil), 401)
}

// During shutdown_delay, the server still answers requests.
func TestShutdownDelay(t *testing.T) {
	w := newWorld(t, map[string]any{"shutdown_delay": "5s"})
	stopped := make(chan error, 1)
	go func() { stopped <- w.stop() }()
	deadline := time.Now().Add(testTimeout)
	for w.request("", "GET", "/readyz", nil, nil).status != http.StatusServiceUnavailable {
		if time.Now().After(deadline) {
			t.Fatal("/readyz still succeeds")
		}
		<-time.After(10 * time.Millisecond)
	}
	if a := w.call("ann", "POST", "/contexts", object{}); !a.closes {
		t.Error("the response does not close the connection")
	}
	w.mark()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// Replicas share file contents in an S3 store. If the store is unreachable, only
// requests for file contents fail, and their errors say so.
func TestReplicasShareFileContents(t *testing.T) {
	s3 := testdb.S3(t)
	settings := map[string]any{
		"database_url": testdb.Postgres(t),
		"files": object{"s3": object{
			"endpoint": s3.Endpoint, "region": s3.Region, "bucket": s3.Name, "access_key": s3.AccessKey,
			"secret_key": s3.SecretKey,
		}},
	}
	one, two := newWorld(t, settings), newWorld(t, settings)
	id := one.upload("ann", "").id()
	path := "/files/" + id + "/content"
	two.wants(two.try("ann", "GET", path, nil), 200, "# Notes")
	two.wants(two.try("ann", "GET", path, nil, "Range", "bytes=2-4"), 206, "Not")
	two.wants(two.try("ann", "DELETE", "/files/"+id, nil), 204)
	for found := range s3.Client.ListObjects(t.Context(), s3.Name, minio.ListObjectsOptions{Recursive: true}) {
		t.Errorf("left in the store: %s %v", found.Key, found.Err)
	}

	id = one.upload("ann", "").id()
	s3.Stop()
	away := two.try("ann", "GET", "/files/"+id+"/content", nil)
	two.wants(away, 503, "try again")
	if strings.Contains(away.text, s3.Endpoint) || strings.Contains(two.log.String(), s3.SecretKey) {
		t.Error("the answer reveals the store's address, or the log its key")
	}
	two.call("ann", "POST", "/contexts", object{})
}

// Two installations share a database, each in its own schema, with endpoints of the
// same name. Each delivers its own events and has its own leases.
func TestInstallationsInOneDatabase(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	worlds := make(map[string]*world)
	for _, schema := range []string{"tidings", "Webhooks_2"} {
		worlds[schema] = newWorld(t, map[string]any{"database_url": url, "database_schema": schema})
	}
	ids := make(map[string]string)
	for schema, w := range worlds {
		w.mark()
		ids[schema] = w.call("ann", "POST", "/contexts", map[string]any{}).id()
	}
	for schema, w := range worlds {
		var created []string
		for _, a := range w.since() {
			if bytes.Contains(a.body, []byte("context.created")) {
				created = append(created, string(a.body))
			}
		}
		if len(created) != 1 || !strings.Contains(created[0], ids[schema]) {
			t.Errorf("schema %s delivered %q, want only the creation of %s", schema, created, ids[schema])
		}
		if total := w.call("ann", "GET", "/contexts", nil).body["total_count"]; total != 1.0 {
			t.Errorf("schema %s has %v contexts of ann's, want 1", schema, total)
		}
	}
}
