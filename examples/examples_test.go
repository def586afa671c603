// Package examples_test runs the examples for events from tables, SQL and HTTP, each with
// a relay and a receiver.
package examples_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/cli"
	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
	"github.com/tidings-dev/tidings/receive"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

var receiverURL = regexp.MustCompile(`http://(127\.0\.0\.1|receiver):8080/webhook`)

// relay runs a relay with an example's configuration until the test ends. It returns the
// URL of its API and the webhooks that arrive.
func relay(t *testing.T, example string) (url string, webhooks <-chan tidings.Event) {
	t.Helper()
	t.Setenv("WEBHOOK_SECRET", secret)
	verifier, err := receive.NewVerifier(secret)
	if err != nil {
		t.Fatal(err)
	}
	arrived := make(chan tidings.Event, 10)
	receiver := httptest.NewServer(receive.NewHandler(verifier, func(_ context.Context, e tidings.Event) error {
		arrived <- e
		return nil
	}))
	t.Cleanup(receiver.Close)
	text, err := os.ReadFile(filepath.Join(example, "tidings.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "tidings.yaml")
	text = receiverURL.ReplaceAll(text, []byte(receiver.URL))
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	address := testtool.FreeAddress(t)

	ctx, stop := context.WithCancel(t.Context())
	cmd := cli.Command()
	cmd.SetArgs([]string{"relay", "--config", file, "--listen", address, "--data-dir", t.TempDir()})
	cmd.SetErr(t.Output())
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	url = "http://" + address
	for deadline := time.Now().Add(testtool.Allow(30 * time.Second)); ; <-time.After(20 * time.Millisecond) {
		response, err := http.Get(url + "/readyz")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return url, arrived
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the relay is not ready: %v", err)
		}
	}
}

// run runs a program in the folder of an example.
func run(t *testing.T, example, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), testtool.Path(t, program), args...)
	cmd.Dir = example
	cmd.Env = append(os.Environ(), "PGOPTIONS=-c search_path=public") // PostgreSQL's default
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

func psql(t *testing.T, example, file string) {
	t.Helper()
	run(t, example, "psql", os.Getenv("DATABASE_URL"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", file)
}

// next returns the name, URL and user of the next webhook.
func next(t *testing.T, webhooks <-chan tidings.Event) string {
	t.Helper()
	select {
	case e := <-webhooks:
		return strings.TrimSpace(e.Name() + " " + e.ResourceURL + " " + e.UserID)
	case <-time.After(testtool.Allow(30 * time.Second)):
		t.Fatal("no webhook")
		return ""
	}
}

// expect waits for webhooks, in this order.
func expect(t *testing.T, webhooks <-chan tidings.Event, want ...string) {
	t.Helper()
	for _, w := range want {
		if got := next(t, webhooks); got != w {
			t.Errorf("webhook %q, want %q", got, w)
		}
	}
}

func TestTables(t *testing.T) {
	t.Setenv("DATABASE_URL", testdb.Postgres(t))
	psql(t, "tables", "schema.sql")
	_, webhooks := relay(t, "tables")
	psql(t, "tables", "changes.sql")
	const url = "https://shop.example.com/orders/1"
	expect(t, webhooks, "order.created "+url+" ann", "order.updated "+url+" ann", "order.updated "+url+" bob",
		"order.deleted "+url+" ann")
}

func TestEmit(t *testing.T) {
	t.Setenv("DATABASE_URL", testdb.Postgres(t))
	_, webhooks := relay(t, "emit")
	psql(t, "emit", "pay.sql")
	// Events of one invoice arrive in order: if the rolled back change had one, it would
	// arrive before this one.
	run(t, "emit", "psql", os.Getenv("DATABASE_URL"), "-X", "-c", "SELECT tidings.emit('invoice', 'voided', '8')")
	got := []string{next(t, webhooks), next(t, webhooks)}
	slices.Sort(got)
	if want := []string{"invoice.paid /invoices/7 ann", "invoice.voided /invoice/8"}; !slices.Equal(got, want) {
		t.Errorf("webhooks %q, want %q", got, want)
	}
}

func TestPublish(t *testing.T) {
	t.Setenv("SHOP_TOKEN", "tdg_0123456789abcdef0123456789abcdef")
	url, webhooks := relay(t, "publish")
	t.Setenv("TIDINGS_URL", url)
	printed := strings.Fields(run(t, "publish", "python3", "publish.py"))
	if len(printed) != 2 {
		t.Errorf("printed %q", printed)
	}
	expect(t, webhooks, "order.created /order/4711 ann", "order.paid /orders/4711")
}
