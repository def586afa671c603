// Command embed shows the delivery packages inside a program of one's own: a
// table in SQLite, an event in the same transaction as each change, and a
// receiver that verifies the webhooks. It ends by itself.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog/sqlite"
	"github.com/tidings-dev/tidings/receive"
	"github.com/tidings-dev/tidings/relay"
	"github.com/tidings-dev/tidings/sender"
)

const secret = "whsec_ZXhhbXBsZS1zZWNyZXQtb2YtMzItYnl0ZXMtbG9uZyE="

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	folder, err := os.MkdirTemp("", "tidings-embed-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(folder, "shop.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	events := sqlite.New(db, db)
	if err := events.Migrate(ctx); err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, "CREATE TABLE orders (id TEXT PRIMARY KEY, item TEXT)"); err != nil {
		return err
	}

	arrived := make(chan tidings.Event)
	receiver, err := newReceiver(arrived)
	if err != nil {
		return err
	}
	defer receiver.Close()

	endpoint := tidings.Endpoint{Name: "warehouse", URL: receiver.URL, Secrets: []string{secret}}
	to, err := sender.New(endpoint, &http.Client{}, sender.Options{})
	if err != nil {
		return err
	}
	deliveries, err := relay.New(ctx, events, []relay.Endpoint{{Endpoint: endpoint, Sender: to}}, relay.Options{})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- deliveries.Run(ctx) }()

	if err := order(ctx, db, events, "1", "lamp"); err != nil {
		stop()
		return err
	}
	e := <-arrived
	fmt.Printf("webhook arrived, signature verified: %s\n", e.AppendJSON(nil))
	stop()
	return <-done
}

// order changes a row and tells of it, in one transaction.
func order(ctx context.Context, db *sql.DB, events *sqlite.Log, id, item string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing
	if _, err := tx.ExecContext(ctx, "INSERT INTO orders (id, item) VALUES ($1, $2)", id, item); err != nil {
		return err
	}
	err = events.Append(ctx, tx, tidings.Event{
		Type: "order", Action: tidings.Created, ResourceID: id, ResourceURL: "/orders/" + id,
		Time: time.Now(), ResourceVersion: 1,
	})
	if err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	events.Wake()
	return nil
}

func newReceiver(arrived chan<- tidings.Event) (*httptest.Server, error) {
	verifier, err := receive.NewVerifier(secret)
	if err != nil {
		return nil, err
	}
	return httptest.NewServer(receive.NewHandler(verifier, func(_ context.Context, e tidings.Event) error {
		arrived <- e
		return nil
	})), nil
}
