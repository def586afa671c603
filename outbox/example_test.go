package outbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/uptrace/bun"
	_ "modernc.org/sqlite" // registers the driver "sqlite"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/outbox"
	"github.com/tidings-dev/tidings/receive"
)

const secret = "whsec_ZXhhbXBsZS1zZWNyZXQtb2YtMzItYnl0ZXMtbG9uZyE="

// A program with its tables in SQLite, and a receiver that verifies the webhook.
func Example() {
	arrived := make(chan tidings.Event)
	verifier, err := receive.NewVerifier(secret)
	if err != nil {
		log.Fatal(err)
	}
	warehouse := httptest.NewServer(receive.NewHandler(verifier, func(_ context.Context, e tidings.Event) error {
		arrived <- e
		return nil
	}))
	defer warehouse.Close()
	folder, err := os.MkdirTemp("", "shop")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)

	ctx := context.Background()
	hooks, err := outbox.Open(ctx, outbox.SQLiteFile(filepath.Join(folder, "shop.db")), outbox.Options{
		Types:     outbox.Types{"order": nil},
		Endpoints: []tidings.Endpoint{{URL: warehouse.URL, Secrets: []string{secret}}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer hooks.Close()
	go hooks.Run(ctx)

	tx, err := hooks.DB().BeginTx(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, "CREATE TABLE orders (id TEXT PRIMARY KEY)"); err != nil {
		log.Fatal(err)
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO orders VALUES ('7')"); err != nil {
		log.Fatal(err)
	}
	if err := hooks.Tell(ctx, tx,
		outbox.Event{Type: "order", Action: "created", ID: "7", URL: "/orders/7"}); err != nil {
		log.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		log.Fatal(err)
	}
	e := <-arrived
	fmt.Println(e.Name(), e.ResourceID, e.ResourceURL)
	// Output: order.created 7 /orders/7
}

// With pgx, the event is written in a pgx.Tx.
func ExampleOutbox_Tell_pgx() {
	var pool *pgxpool.Pool   // the program's
	var hooks *outbox.Outbox // opened with outbox.Postgres(pool)

	order := func(ctx context.Context, id string) error {
		tx, err := pool.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(ctx)
		if _, err := tx.Exec(ctx, "INSERT INTO orders (id) VALUES ($1)", id); err != nil {
			return err
		}
		if err := hooks.Tell(ctx, tx,
			outbox.Event{Type: "order", Action: "created", ID: id, URL: "/orders/" + id}); err != nil {
			return err
		}
		return tx.Commit(ctx)
	}
	_ = order
}

// With bun, the event is written in a bun.Tx.
func ExampleOutbox_Tell_bun() {
	var db *bun.DB           // on a *sql.DB
	var hooks *outbox.Outbox // opened with outbox.PostgresDB or outbox.SQLite on the same one

	order := func(ctx context.Context, order any, id string) error {
		return db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
			if _, err := tx.NewInsert().Model(order).Exec(ctx); err != nil {
				return err
			}
			return hooks.Tell(ctx, tx, outbox.Event{Type: "order", Action: "created", ID: id, URL: "/orders/" + id})
		})
	}
	_ = order
}

// With sqlx, the event is written in a *sqlx.Tx, which sqlxTx stands for here.
func ExampleOutbox_Tell_sqlx() {
	var begin func(ctx context.Context) (*sqlxTx, error) // db.BeginTxx
	var hooks *outbox.Outbox

	order := func(ctx context.Context, id string) error {
		tx, err := begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(ctx, "INSERT INTO orders (id) VALUES ($1)", id); err != nil {
			return err
		}
		if err := hooks.Tell(ctx, tx,
			outbox.Event{Type: "order", Action: "created", ID: id, URL: "/orders/" + id}); err != nil {
			return err
		}
		return tx.Commit()
	}
	_ = order
}

// With gorm, the event is written in the transaction's ConnPool. gormDB stands for
// *gorm.DB here.
func ExampleOutbox_Tell_gorm() {
	var transaction func(do func(tx gormDB) error) error // db.Transaction
	var hooks *outbox.Outbox

	order := func(ctx context.Context, id string) error {
		return transaction(func(tx gormDB) error {
			// … tx.Create(&order) …
			return hooks.Tell(ctx, tx.Statement.ConnPool,
				outbox.Event{Type: "order", Action: "created", ID: id, URL: "/orders/" + id})
		})
	}
	_ = order
}

// With ent and its feature sql/execquery, the event is written in an *ent.Tx, for
// which entTx stands in here.
func ExampleOutbox_Tell_ent() {
	var begin func(ctx context.Context) (*entTx, error) // client.Tx
	var hooks *outbox.Outbox

	order := func(ctx context.Context, id string) error {
		tx, err := begin(ctx)
		if err != nil {
			return err
		}
		// … tx.Order.Create()… .Save(ctx) …
		if err := hooks.Tell(ctx, tx,
			outbox.Event{Type: "order", Action: "created", ID: id, URL: "/orders/" + id}); err != nil {
			_ = tx.Rollback()
			return err
		}
		return tx.Commit()
	}
	_ = order
}

// An endpoint for each tenant, as a program keeps them in a table of its own.
func ExampleOutbox_SetEndpoints() {
	var hooks *outbox.Outbox
	var db *sql.DB

	load := func(ctx context.Context) error {
		rows, err := db.QueryContext(ctx, "SELECT tenant, url, secret FROM webhooks")
		if err != nil {
			return err
		}
		defer rows.Close()
		var endpoints []tidings.Endpoint
		for rows.Next() {
			var tenant, url, secret string
			if err := rows.Scan(&tenant, &url, &secret); err != nil {
				return err
			}
			endpoints = append(endpoints, tidings.Endpoint{
				Name: tenant, URL: url, Secrets: []string{secret},
				Filter: func(e tidings.Event) bool { return e.OwnerID == tenant },
			})
		}
		if err := rows.Err(); err != nil {
			return err
		}
		return hooks.SetEndpoints(ctx, endpoints...)
	}
	_ = load
}
