package operator_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite" // registers the driver "sqlite"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
	"github.com/tidings-dev/tidings/operator"
	"github.com/tidings-dev/tidings/outbox"
	"github.com/tidings-dev/tidings/relay"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

const path = "/ops"

// world is a program with an outbox and its operator API. The header "Who"
// authorizes a request: a name and a role.
type world struct {
	*testing.T
	hooks   *outbox.Outbox
	db      *sql.DB
	handler http.Handler
	service *operator.Service
}

var roles = map[string]operator.Role{
	"nobody": operator.Nobody, "reader": operator.Reader, "viewer": operator.Viewer, "manager": operator.Manager,
}

func authorize(r *http.Request) (operator.Caller, error) {
	name, role, _ := strings.Cut(r.Header.Get("Who"), " ")
	if name == "" {
		return operator.Caller{}, errors.New("secret reason")
	}
	who := operator.Caller{ID: name, Role: roles[role]}
	if role == "reader" {
		who.MayRead = func(e tidings.Event) bool { return e.OwnerID == name }
	}
	return who, nil
}

// both runs a test on both databases.
func both(t *testing.T, do func(w *world)) {
	t.Helper()
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		pool, err := pgxpool.New(t.Context(), testdb.Postgres(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		do(newWorld(t, outbox.Postgres(pool), stdlib.OpenDBFromPool(pool)))
	})
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		do(newWorld(t, outbox.SQLiteFile(filepath.Join(t.TempDir(), "shop.db")), nil))
	})
}

// newWorld opens an outbox with four endpoints: one is healthy, one refuses
// invoices, one has a filter, and one matches invoices and is down.
func newWorld(t *testing.T, database outbox.Database, db *sql.DB) *world {
	t.Helper()
	receiver := func(refused string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if body, err := io.ReadAll(r.Body); err != nil || refused != "" && strings.Contains(string(body), refused) {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			w.WriteHeader(http.StatusNoContent)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	invoices, err := tidings.ParsePattern("invoice.*")
	if err != nil {
		t.Fatal(err)
	}
	hooks, err := outbox.Open(t.Context(), database, outbox.Options{
		Types: outbox.Types{"order": nil, "invoice": {"paid"}},
		Endpoints: []tidings.Endpoint{
			{Name: "warehouse", URL: receiver("") + "/hook?key=hidden"},
			{Name: "books", URL: receiver("invoice.paid")},
			{
				Name: "tenant", URL: receiver(""),
				Filter: func(e tidings.Event) bool { return e.OwnerID == "bob" },
			},
			{Name: "down", URL: "http://127.0.0.1:1", Patterns: []tidings.Pattern{invoices}},
		},
		Configure: func(e *relay.Endpoint) error {
			e.Retry.MaxAttempts = 1
			return nil
		},
		Relay: relay.Options{Logger: slog.New(slog.DiscardHandler)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hooks.Close() })
	if db == nil {
		db = hooks.DB()
	}
	options := operator.Options{Path: path, Logger: slog.New(slog.DiscardHandler)}
	return &world{t, hooks, db, operator.Handler(hooks, authorize, options), operator.New(hooks, options)}
}

// run delivers until the test ends.
func (w *world) run() {
	ctx, stop := context.WithCancel(w.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := w.hooks.Run(ctx); err != nil {
			w.Error(err)
		}
	}()
	w.Cleanup(func() {
		stop()
		<-ended
	})
}

// tell writes events in one transaction.
func (w *world) tell(events ...outbox.Event) {
	w.Helper()
	tx, err := w.db.BeginTx(w.Context(), nil)
	if err == nil {
		err = w.hooks.Tell(w.Context(), tx, events...)
	}
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		w.Fatal(err)
	}
}

func order(id, owner string) outbox.Event {
	return outbox.Event{
		Type: "order", Action: "created", ID: id, URL: "/orders/" + id, OwnerID: owner, EventID: "order-" + id,
	}
}

func invoice(id string) outbox.Event {
	return outbox.Event{Type: "invoice", Action: "paid", ID: id, URL: "/invoices/" + id, EventID: "invoice-" + id}
}

// answer is a response.
type answer struct {
	status int
	header http.Header
	text   string
}

func (w *world) request(ctx context.Context, who, method, target, body string, header ...string) answer {
	w.Helper()
	r := httptest.NewRequestWithContext(ctx, method, path+target, strings.NewReader(body))
	if body == "" {
		r = httptest.NewRequestWithContext(ctx, method, path+target, nil)
	}
	r.Header.Set("Who", who)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	got := httptest.NewRecorder()
	w.handler.ServeHTTP(got, r)
	return answer{got.Code, got.Header(), got.Body.String()}
}

func (w *world) get(target string) answer {
	w.Helper()
	return w.request(w.Context(), "op manager", "GET", target, "")
}

func decode[T any](w *world, a answer) (value T) {
	w.Helper()
	if err := json.Unmarshal([]byte(a.text), &value); err != nil || a.status >= 300 {
		w.Fatalf("%d %s: %v", a.status, a.text, err)
	}
	return value
}

func (w *world) waitFor(what string, done func() bool) {
	w.Helper()
	for deadline := time.Now().Add(testtool.Allow(30 * time.Second)); !done(); {
		if time.Now().After(deadline) {
			w.Fatalf("%s did not happen", what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// settled waits until endpoints have received or given up everything that was told.
func (w *world) settled(head int64, names ...string) {
	w.Helper()
	for _, name := range names {
		w.waitFor(fmt.Sprintf("%s at %d", name, head), func() bool {
			e, err := w.service.Endpoint(w.Context(), name)
			return err == nil && e.Cursor >= head && e.Parked == 0
		})
	}
}
