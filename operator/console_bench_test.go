package operator_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/operator"
	"github.com/tidings-dev/tidings/outbox"
	"github.com/tidings-dev/tidings/relay"
)

// BenchmarkConsole reports how long each page takes with 1,000,000 events in the log and
// 20 endpoints, of which one got the first events and is far behind with the others.
func BenchmarkConsole(b *testing.B) {
	const events, delivered = 1_000_000, 20_000
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	b.Cleanup(receiver.Close)
	endpoints := []tidings.Endpoint{{Name: "warehouse", URL: receiver.URL}}
	for i := range 19 {
		endpoints = append(endpoints, tidings.Endpoint{Name: fmt.Sprintf("customer-%02d", i), URL: "http://127.0.0.1:1"})
	}
	hooks, err := outbox.Open(b.Context(), outbox.SQLiteFile(filepath.Join(b.TempDir(), "shop.db")), outbox.Options{
		Types: outbox.Types{"order": nil, "invoice": {"paid"}}, Endpoints: endpoints,
		Relay: relay.Options{Logger: slog.New(slog.DiscardHandler)},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { hooks.Close() })
	options := operator.Options{Path: path, Logger: slog.New(slog.DiscardHandler)}
	service, handler := operator.New(hooks, options), operator.Handler(hooks, authorize, options)
	fill(b, hooks, 0, delivered)
	deliver(b, hooks, service, delivered)
	fill(b, hooks, delivered, events)
	// Another one has 10,000 parked events, half of them dead letters.
	_, err = hooks.DB().ExecContext(b.Context(), `INSERT INTO tidings_retries (endpoint, seq, id, resource_type, action,
		resource_id, resource_url, user_id, at, resource_version, attempts, first_at, next_at, dead_at, reason)
		SELECT 'customer-01', seq, id, resource_type, action, resource_id, resource_url, user_id, at, resource_version,
		3, at, at + 86400000000 * (seq % 2), at * (1 - seq % 2), 'http_42' || seq % 10
		FROM tidings_events WHERE seq > ? AND seq <= ?`, delivered, delivered+10_000)
	if err != nil {
		b.Fatal(err)
	}
	for _, page := range []string{
		"", "endpoints/warehouse", "events", "events?resource=order/17&since=1h", "events?types=invoice.*",
		"events/order-500001",
		"events/999999", "events?resource=order/none", "attempts", "attempts?endpoint=warehouse&outcome=failures", "parked",
		"parked?endpoint=customer-01&all=1", "parked?endpoint=customer-01&reason=http_421&types=order.*",
		"parked/retry?endpoint=customer-01", "parked/discard?endpoint=customer-01&dead=true", "replays",
		"replays?endpoint=warehouse&what=missed&plan=1", "replays?endpoint=customer-00&what=missed&plan=1",
		"replays?endpoint=warehouse&what=all&types=invoice.*&plan=1", "replays?endpoint=warehouse&what=all&since=1h&plan=1",
		"replays?endpoint=warehouse&what=all&resource=order/17&plan=1", "replays?endpoint=customer-01&what=dead&plan=1",
		"status",
	} {
		b.Run("/"+page, func(b *testing.B) {
			var took []time.Duration
			size := 0
			for b.Loop() {
				r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, path+"/console/"+page, nil)
				r.Header.Set("Who", "op manager")
				got := httptest.NewRecorder()
				begun := time.Now()
				handler.ServeHTTP(got, r)
				took = append(took, time.Since(begun))
				if size = got.Body.Len(); got.Code != http.StatusOK {
					b.Fatalf("%d %s", got.Code, got.Body)
				}
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[0].Microseconds())/1e3, "min-ms") // hardly disturbed by other programs
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1e3, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1e3, "p99-ms")
			b.ReportMetric(float64(size)/1e3, "kB")
		})
	}
}

// fill logs the events from one number to another.
func fill(b *testing.B, hooks *outbox.Outbox, from, to int) {
	b.Helper()
	for from < to {
		n := min(to-from, 5000)
		batch := make([]outbox.Event, n)
		for i := range batch {
			if batch[i] = order(fmt.Sprint(from+i), "bob"); i%100 == 0 {
				batch[i] = invoice(fmt.Sprint(from + i))
			}
		}
		from += n
		tx, err := hooks.DB().BeginTx(b.Context(), nil)
		if err == nil {
			err = hooks.Tell(b.Context(), tx, batch...)
		}
		if err == nil {
			err = tx.Commit()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// deliver runs until an endpoint has received a number of events.
func deliver(b *testing.B, hooks *outbox.Outbox, service *operator.Service, events int64) {
	b.Helper()
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- hooks.Run(ctx) }()
	for deadline := time.Now().Add(10 * time.Minute); ; <-time.After(100 * time.Millisecond) {
		e, err := service.Endpoint(ctx, "warehouse")
		if err != nil {
			b.Fatal(err)
		}
		if e.Cursor >= events {
			break
		}
		if time.Now().After(deadline) {
			b.Fatalf("delivered only %d events", e.Cursor)
		}
	}
	stop()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
}
