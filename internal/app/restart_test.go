package app_test

import (
	"database/sql"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/eventlog/postgres"
	"github.com/tidings-dev/tidings/internal/testdb"
)

// A server that did not run while its database was restarted delivers what was committed
// meanwhile once, and reports no loss.
func TestRestartOfTheDatabaseWhileAServerIsStopped(t *testing.T) {
	t.Parallel()
	server := testdb.OwnServer(t)
	url, err := server.Create("restarted")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	requests := make(map[string]int)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		requests[r.Header.Get("webhook-id")]++
	}))
	defer receiver.Close()
	arrived := func(n int) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(requests) == n
		}
	}
	p := newProcess(t, object{
		"database_url": url,
		"webhook": object{"endpoints": []any{object{
			"name": "a", "url": receiver.URL, "events": []string{"context.*", "provider.*"},
		}}},
	})
	p.awayAllowed = true
	p.start()
	p.wait("a write", func() bool {
		status, _, err := p.call("POST", "/contexts", object{})
		return err == nil && status == http.StatusCreated
	})
	p.wait("the first webhook", arrived(1))
	if err := errors.Join(p.cmd.Process.Signal(syscall.SIGSTOP), server.Stop(), server.Start()); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	log := postgres.New(db, postgres.Options{})
	commit := func(resource, version int) {
		tx, err := db.BeginTx(t.Context(), nil)
		if err == nil {
			err = errors.Join(log.Append(t.Context(), tx, eventlogtest.Sample(resource, version)), tx.Commit())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		commit(i, 1)
	}
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	p.wait("the other webhooks", arrived(4))
	commit(2, 2) // comes after all of its resource, twice or not
	p.wait("the last webhook", arrived(5))
	mu.Lock()
	for id, n := range requests {
		if n != 1 {
			t.Errorf("%d requests for %s", n, id)
		}
	}
	mu.Unlock()
	if text := p.log.String(); strings.Contains(text, "lost") {
		t.Errorf("log:\n%s", text)
	}
}
