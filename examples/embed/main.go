// Command embed writes an order and its event to SQLite, and verifies the webhook.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"

	_ "modernc.org/sqlite"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/outbox"
	"github.com/tidings-dev/tidings/receive"
)

const secret = "whsec_ZXhhbXBsZS1zZWNyZXQtb2YtMzItYnl0ZXMtbG9uZyE="

func main() {
	ctx, arrived := context.Background(), make(chan tidings.Event)
	handle := func(_ context.Context, e tidings.Event) error { arrived <- e; return nil }
	receiver := httptest.NewServer(receive.NewHandler(must(receive.NewVerifier(secret)), handle))
	endpoint := tidings.Endpoint{URL: receiver.URL, Secrets: []string{secret}}
	hooks := must(outbox.Open(ctx, outbox.SQLiteFile("shop.db"), outbox.Options{
		Types: outbox.Types{"order": nil}, Endpoints: []tidings.Endpoint{endpoint},
	}))
	go hooks.Run(ctx) //nolint:errcheck // it logs what fails

	tx := must(hooks.DB().BeginTx(ctx, nil))
	must(tx.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS orders (item TEXT); INSERT INTO orders VALUES ('lamp')"))
	must(0, hooks.Tell(ctx, tx, outbox.Event{Type: "order", Action: "created", ID: "1", URL: "/orders/1"}))
	must(0, tx.Commit())
	fmt.Printf("webhook arrived, signature verified: %s\n", (<-arrived).AppendJSON(nil))
	must(0, hooks.Close())
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
