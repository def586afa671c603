package operator_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/operator"
	"github.com/tidings-dev/tidings/outbox"
	"github.com/tidings-dev/tidings/relay"
)

// pageLimit is how large a page may be, in bytes.
const pageLimit = 100_000

// worldOf opens an outbox with the given endpoints.
func worldOf(t *testing.T, database outbox.Database, db *sql.DB, endpoints []tidings.Endpoint) *world {
	t.Helper()
	hooks, err := outbox.Open(t.Context(), database, outbox.Options{
		Types: outbox.Types{"order": nil, "invoice": {"paid"}}, Endpoints: endpoints,
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
	options := operator.Options{Path: path, Logger: slog.New(slog.DiscardHandler)}
	if db == nil {
		db = hooks.DB()
	}
	return &world{t, hooks, db, operator.Handler(hooks, authorize, options), operator.New(hooks, options)}
}

// Text from others is shown as text: markup, marks that reverse the writing direction,
// and 64 KiB of it.
func TestConsoleHostilePages(t *testing.T) {
	hostile := "\u202e\"><script>alert(1)</script><img src=x onerror=alert(2)>'`{{.}}\u200f"
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil && strings.Contains(string(body), "order.created") {
			return
		}
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = io.WriteString(w, strings.Repeat(hostile, 64<<10/len(hostile)))
	}))
	t.Cleanup(receiver.Close)
	name := "shop<script>alert(0)</script>"
	w := worldOf(t, outbox.SQLiteFile(filepath.Join(t.TempDir(), "shop.db")), nil, []tidings.Endpoint{
		{Name: name, URL: receiver.URL}, {Name: "other", URL: "http://127.0.0.1:1"},
	})
	w.run()
	id := hostile + strings.Repeat("x", 200)
	w.tell(order("1", "bob"), order("2", "bob"), outbox.Event{
		Type: "invoice", Action: "paid", ID: id, URL: "/orders/<script>", UserID: hostile, EventID: "event-1",
	})
	w.waitFor("a dead letter", func() bool {
		e, err := w.service.Endpoint(w.Context(), name)
		return err == nil && e.Dead == 1
	})
	ctx := operator.WithActor(w.Context(), hostile)
	if _, err := w.service.Pause(ctx, "other", operator.NewPause{Comment: hostile}); err != nil {
		t.Fatal(err)
	}
	w.waitFor("history", func() bool {
		page, err := w.service.Attempts(w.Context(), operator.Filter{Endpoint: name, Limit: 10})
		return err == nil && len(page.Items) > 0
	})
	at := url.PathEscape(name)
	for page, shows := range map[string]string{
		"": "&lt;script&gt;", "?sort=name": "&lt;script&gt;",
		"endpoints/" + at: "&lt;script&gt;", "endpoints/other": "&lt;img",
		"events": "&lt;img", "events/event-1": "&lt;img", "events?resource=" + url.QueryEscape(id): "&lt;script&gt;",
		"events?types=" + url.QueryEscape(hostile) + "&since=" + url.QueryEscape(hostile): "&lt;script&gt;",
		"attempts": "&lt;img", "attempts?endpoint=" + url.QueryEscape(hostile): "&lt;img", "parked": "&lt;img",
		"parked?endpoint=" + at + "&reason=" + url.QueryEscape(hostile):     "&lt;img",
		"parked/retry?endpoint=" + at:                                       "&lt;script&gt;",
		"parked/discard?endpoint=" + at:                                     "&lt;script&gt;",
		"replays?endpoint=" + at + "&what=dead&plan=1":                      "&lt;script&gt;",
		"replays?endpoint=" + url.QueryEscape(hostile) + "&what=all&plan=1": "&lt;script&gt;", "status": "&lt;img",
		"events/" + url.PathEscape(hostile): "&lt;img", "endpoints/" + url.PathEscape(hostile): "&lt;img",
		"endpoints/" + at + "/pause": "&lt;script&gt;",
	} {
		got := w.see("op manager", page).text
		if found := inline.FindString(quotedText.ReplaceAllString(got, `""`)); found != "" || strings.Contains(got, "<img") {
			t.Errorf("%s contains injected markup: %q", page, found)
		}
		if !strings.Contains(got, shows) {
			t.Errorf("%s lacks %s:\n%.3000s", page, shows, got)
		}
		if len(got) > pageLimit {
			t.Errorf("%s is %d bytes", page, len(got))
		}
	}
}

// quotedText is the value of an attribute.
var quotedText = regexp.MustCompile(`"[^"]*"`)

// manyEndpoints returns endpoints with long names.
func manyEndpoints(n int) (all []tidings.Endpoint) {
	for i := range n {
		all = append(all, tidings.Endpoint{
			Name: fmt.Sprintf("endpoint-of-a-customer-with-a-long-name-%03d", i), URL: "http://127.0.0.1:1/hook",
		})
	}
	return all
}

// With 500 endpoints, pages stay small.
func TestConsoleManyEndpoints(t *testing.T) {
	w := worldOf(t, outbox.SQLiteFile(filepath.Join(t.TempDir(), "shop.db")), nil, manyEndpoints(500))
	for n := range 100 {
		w.tell(order(fmt.Sprint(n), "bob"))
	}
	name := manyEndpoints(1)[0].Name
	for _, page := range []string{
		"", "?sort=name&page=5", "endpoints/" + name, "events", "events/order-7", "attempts", "parked",
		"parked?endpoint=" + name, "replays", "replays?endpoint=" + name + "&what=missed&plan=1", "status",
	} {
		got := w.see("op manager", page)
		if got.status != http.StatusOK || len(got.text) > pageLimit {
			t.Errorf("%s: %d, %d bytes", page, got.status, len(got.text))
		}
	}
}

// tracer counts queries.
type tracer struct{ n atomic.Int64 }

func (c *tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.n.Add(1)
	return ctx
}

func (*tracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// A page costs a number of queries that does not grow with endpoints, and hardly with events.
func TestConsoleQueries(t *testing.T) {
	const most = 40
	counts := make(map[string][]int64)
	for _, size := range []int{3, 200} {
		config, err := pgx.ParseConfig(testdb.Postgres(t))
		if err != nil {
			t.Fatal(err)
		}
		queries := new(tracer)
		config.Tracer = queries
		db := stdlib.OpenDB(*config)
		t.Cleanup(func() { db.Close() })
		w := worldOf(t, outbox.PostgresDB(db), db, manyEndpoints(size))
		var events []outbox.Event
		for n := range size {
			events = append(events, order(fmt.Sprint(n), "bob"))
		}
		w.tell(events...)
		if _, err := w.service.Endpoints(t.Context()); err != nil { // numbers the events
			t.Fatal(err)
		}
		// Each cursor is at another position.
		_, err = db.ExecContext(t.Context(), "UPDATE tidings.tidings_cursors SET seq = right(endpoint, 3)::bigint")
		if err != nil {
			t.Fatal(err)
		}
		name := manyEndpoints(1)[0].Name
		for _, page := range []string{
			"", "?range=7d", "endpoints/" + name, "endpoints/" + name + "/pause", "events", "events?types=order.*&since=1h",
			"events?resource=order/1", "events/order-1", "attempts", "attempts?outcome=failures&endpoint=" + name, "parked",
			"parked?endpoint=" + name, "parked?all=1&endpoint=" + name, "replays",
			"replays?what=missed&plan=1&endpoint=" + name,
			"replays?what=all&since=1h&plan=1&endpoint=" + name, "replays?what=dead&plan=1&endpoint=" + name, "status",
		} {
			w.see("op manager", page) // caches
			before := queries.n.Load()
			if got := w.see("op manager", page); got.status != http.StatusOK {
				t.Errorf("%s: %d", page, got.status)
			}
			counts[page] = append(counts[page], queries.n.Load()-before)
		}
	}
	for page, n := range counts {
		t.Logf("%q: %d queries", page, n[1])
		grown := int64(2)
		if strings.Contains(page, "since=") { // a time is looked up by halving the log
			grown = 7
		}
		if n[1] > n[0]+grown || n[1] > most || n[0] == 0 {
			t.Errorf("%q: %d queries with 3 endpoints, %d with 200", page, n[0], n[1])
		}
	}
}
