package capture_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/outbox/capture"
)

// Attach and Detach report which table they wait for, and whose transaction locks it.
func TestWhoLocks(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.exec(makeOrders, "CREATE TABLE public.other (id int PRIMARY KEY)", "CREATE TABLE public.parts (id int PRIMARY KEY, "+
		"v int) PARTITION BY RANGE (id)", "CREATE TABLE public.leaf PARTITION OF public.parts FOR VALUES FROM (0) TO (9)")
	// Tables that are attached later do not depend on the one that is locked.
	tables := []capture.Table{
		orders, {Name: "missing", Type: "thing"}, {Name: "other", Type: "thing"}, {Name: "parts", Type: "part"},
	}
	shop := openDB(t, a.url+"&application_name=shop")
	locked := func(lock, table string, try func(context.Context, capture.Options) error) {
		t.Helper()
		tx, err := shop.Begin()
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		var pid int
		if err := tx.QueryRow("SELECT pg_backend_pid()").Scan(&pid); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(lock); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var said string
		o := a.o
		o.Waiting = func(message string) {
			said = message
			cancel()
		}
		err = try(ctx, o)
		want := fmt.Sprintf("table %s is locked by pid %d (role \"tidings\", application \"shop\", idle in transaction",
			table, pid)
		if !strings.HasPrefix(said, want) || !strings.Contains(said, "trying again for up to ") {
			t.Errorf("said %q, want %q", said, want)
		}
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	attach := func(ctx context.Context, o capture.Options) error { return capture.Attach(ctx, a.db, tables, o) }
	locked("INSERT INTO public.orders (id) VALUES (1)", "public.orders", attach)
	if err := capture.Attach(t.Context(), a.db, tables, a.o); err == nil || !strings.Contains(err.Error(),
		`"public"."missing": there is no such table`) {
		t.Errorf("Attach: %v", err)
	}
	found := a.findings(tables...)
	if !strings.Contains(found, "public.missing: not_attached") || strings.Contains(found, "other") {
		t.Errorf("Check: %s", found)
	}
	for table, name := range map[string]string{"public.orders": "^_tidings_[0-9]+$", "public.leaf": "_truncate$"} {
		a.exec("DROP TRIGGER " + a.query("SELECT tgname FROM pg_trigger WHERE tgrelid = $1::regclass AND tgname ~ $2",
			table, name) + " ON " + table)
	}
	locked("INSERT INTO public.orders (id) VALUES (2)", "public.orders", attach)
	locked("INSERT INTO public.orders (id) VALUES (3)", "public.orders",
		func(ctx context.Context, o capture.Options) error {
			_, err := capture.Detach(ctx, a.db, o)
			return err
		})
	locked("INSERT INTO public.parts VALUES (1, 1)", "parts", func(ctx context.Context, o capture.Options) error {
		return capture.Attach(ctx, a.db, tables[3:], o)
	})
}
