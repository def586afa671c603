// Command embed is a program that embeds Tidings: an order in SQLite and the event
// that tells of it in one transaction, and a receiver that verifies the webhook.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/outbox"
	"github.com/tidings-dev/tidings/receive"
)

const secret = "whsec_ZXhhbXBsZS1zZWNyZXQtb2YtMzItYnl0ZXMtbG9uZyE="

func main() {
	ctx, arrived := context.Background(), make(chan tidings.Event)
	verifier := must(receive.NewVerifier(secret))
	receiver := httptest.NewServer(receive.NewHandler(verifier, func(_ context.Context, e tidings.Event) error {
		arrived <- e
		return nil
	}))
	file := filepath.Join(must(os.MkdirTemp("", "shop")), "shop.db")
	hooks := must(outbox.Open(ctx, outbox.SQLiteFile(file), outbox.Options{
		Types:     outbox.Types{"order": nil},
		Endpoints: []tidings.Endpoint{{URL: receiver.URL, Secrets: []string{secret}}},
	}))
	go hooks.Run(ctx) //nolint:errcheck // it says itself what is wrong

	tx := must(hooks.DB().BeginTx(ctx, nil))
	must(tx.ExecContext(ctx, "CREATE TABLE orders (id TEXT, item TEXT); INSERT INTO orders VALUES ('1', 'lamp')"))
	must(0, hooks.Tell(ctx, tx, outbox.Event{Type: "order", Action: "created", ID: "1", URL: "/orders/1"}))
	must(0, tx.Commit())

	fmt.Printf("webhook arrived, signature verified: %s\n", (<-arrived).AppendJSON(nil))
	must(0, hooks.Close())
	must(0, os.RemoveAll(filepath.Dir(file)))
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
