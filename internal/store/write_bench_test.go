package store_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/auth"
	"github.com/tidings-dev/tidings/internal/httpapi"
	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/internal/testdb"
)

const (
	benchClients = 16
	benchRounds  = 9
	benchRound   = time.Second
)

// BenchmarkAPIWrites measures writes over HTTP with and without events,
// alternating. The relay does not run.
func BenchmarkAPIWrites(b *testing.B) {
	open := map[string]func() (*store.Store, error){
		"SQLite": func() (*store.Store, error) { return store.OpenSQLite(b.TempDir()) },
		"PostgreSQL": func() (*store.Store,
			error,
		) {
			return store.OpenPostgres(testdb.Postgres(b), store.PostgresOptions{})
		},
	}
	for _, name := range []string{"SQLite", "PostgreSQL"} {
		b.Run(name, func(b *testing.B) {
			s, err := open[name]()
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			if err := s.Migrate(b.Context()); err != nil {
				b.Fatal(err)
			}
			with, without := benchServer(b, s), benchServer(b, s.WithoutEvents())
			var ratios, rates []float64
			for range benchRounds {
				base := benchWrites(b, without)
				ratios = append(ratios, benchWrites(b, with)/base)
				rates = append(rates, base)
			}
			slices.Sort(ratios)
			slices.Sort(rates)
			b.ReportMetric(rates[len(rates)/2], "writes/s-without")
			b.ReportMetric(ratios[len(ratios)/2], "ratio-with-events")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// fixed authenticates everyone with constant credentials.
type fixed struct{ *auth.Authenticator }

func (fixed) Changed() <-chan struct{} { return nil }

func benchServer(b *testing.B, s *store.Store) string {
	b.Helper()
	resources := resource.New(s, resource.Outside{}, resource.Options{Logger: slog.Default()})
	authenticator, err := auth.New(resources.Users,
		auth.Options{Tokens: []auth.Token{{
			SHA256: auth.Hash("bench"), User: "bench@example.com",
			Role: resource.RoleUser,
		}}})
	if err != nil {
		b.Fatal(err)
	}
	server := httptest.NewServer(httpapi.New(httpapi.Options{
		Resources: resources, Authenticator: fixed{authenticator}, Logger: slog.Default(), Version: "bench",
		Metrics: http.NotFoundHandler(),
	}))
	b.Cleanup(server.Close)
	return server.URL
}

// benchWrites creates contexts for a while and returns the rate per second.
func benchWrites(b *testing.B, url string) float64 {
	b.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: benchClients}}
	defer client.CloseIdleConnections()
	var done atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, benchClients)
	begun := time.Now()
	for range benchClients {
		wg.Go(func() {
			for time.Since(begun) < benchRound {
				if err := benchWrite(client, url); err != nil {
					errs <- err
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	close(errs)
	if err := <-errs; err != nil {
		b.Fatal(err)
	}
	return float64(done.Load()) / time.Since(begun).Seconds()
}

func benchWrite(client *http.Client, url string) error {
	request, err := http.NewRequest(http.MethodPost, url+"/api/v1/contexts",
		strings.NewReader(`{"metadata":{"title":"A trip to Delft"}}`))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer bench")
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusCreated {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	_, err = io.Copy(io.Discard, response.Body) // otherwise, the connection can't be reused
	return err
}
