// Command embed embeds Tidings from another module, on pgx and on SQLite: its own
// types, two endpoints, rollback, restart, retention and metrics.
package main

import (
	"context"
	"database/sql"
	"errors"
	"log"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	_ "modernc.org/sqlite"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/operator"
	"github.com/tidings-dev/tidings/outbox"
)

var ctx = context.Background()

// main is called with DATABASE_URL, FILE, WAREHOUSE_URL, BOOKS_URL and secrets. It writes
// metrics to FILE.pgx and FILE.SQLite.
func main() {
	pool := must(pgxpool.New(ctx, os.Args[1]))
	db := must(sql.Open("sqlite",
		os.Args[2]+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_txlock=immediate"))
	var both sync.WaitGroup
	both.Go(func() {
		shop("pgx", outbox.Postgres(pool), func(do func(tx any) error) error {
			return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return do(tx) })
		})
	})
	both.Go(func() {
		shop("SQLite", outbox.SQLite(db), func(do func(tx any) error) error {
			tx := must(db.BeginTx(ctx, nil))
			defer tx.Rollback() // no-op after a commit
			if err := do(tx); err != nil {
				return err
			}
			return tx.Commit()
		})
	})
	both.Wait()
}

func shop(name string, database outbox.Database, transaction func(do func(tx any) error) error) {
	invoices := must(tidings.ParsePattern("invoice.*"))
	options := outbox.Options{
		Types: outbox.Types{"order": nil, "invoice": {"paid"}},
		Endpoints: []tidings.Endpoint{
			{Name: "warehouse", URL: os.Args[3], Secrets: os.Args[5:]},
			{Name: "books", URL: os.Args[4], Secrets: os.Args[5:], Patterns: []tidings.Pattern{invoices}},
		},
		Retention: 5 * time.Second,
	}
	order := outbox.Event{Type: "order", Action: "created", ID: name, URL: "/orders/" + name}
	paid := outbox.Event{Type: "invoice", Action: "paid", ID: name, URL: "/invoices/" + name}

	hooks := must(outbox.Open(ctx, database, options))
	must(0, transaction(func(tx any) error { return hooks.Tell(ctx, tx, order) }))
	must(0, hooks.Close()) // before anything is delivered

	hooks = must(outbox.Open(ctx, database, options))
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(operator.Collector(hooks))
	go hooks.Run(ctx)
	_ = transaction(func(tx any) error { return errors.Join(hooks.Tell(ctx, tx, order), errors.New("rolled back")) })
	must(0, transaction(func(tx any) error { return hooks.Tell(ctx, tx, paid) }))
	for must(hooks.Log().Oldest(ctx)) <= 2 { // until both events expire
		<-time.After(10 * time.Millisecond)
	}
	must(0, prometheus.WriteToTextfile(os.Args[2]+"."+name, metrics))
	must(0, hooks.Close())
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
