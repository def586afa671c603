package capture_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidings-dev/tidings/internal/testtool"
	"github.com/tidings-dev/tidings/outbox/capture"
	"github.com/tidings-dev/tidings/vocabulary"
)

func TestEmit(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.o.Types = vocabulary.Types{"invoice": {"paid", "voided"}, "order": nil}
	a.attach()
	a.role("emitter")
	emitter := a.as("emitter")
	emit := func(arguments string) error {
		_, err := emitter.Exec("SELECT tidings.emit(" + arguments + ")")
		return err
	}
	if err := emit("'order', 'created', '1'"); err == nil || !strings.Contains(err.Error(),
		"permission denied for function emit") {
		t.Errorf("without a grant: %v", err)
	}
	a.exec("GRANT EXECUTE ON FUNCTION tidings.emit TO emitter")
	id := a.query("SELECT tidings.emit('invoice', 'paid', '2026/1', url => 'https://x.example/i/1', user_id => 'ann')")
	if err := emit("'order', 'created', 'a b'"); err != nil {
		t.Fatal(err)
	}
	a.inTx("SET LOCAL tidings.user_id = 'bob'", "SELECT tidings.emit('order', 'updated', 'a b'), "+
		"tidings.emit('order', 'updated', 'a b')")
	a.inTx("SELECT tidings.emit('order', 'deleted', 'a b')", "ROLLBACK", "BEGIN")
	events := a.events()
	if len(events) != 4 || events[0].ID != id || events[0].Name() != "invoice.paid" ||
		events[0].ResourceURL != "https://x.example/i/1" ||
		events[0].UserID != "ann" || events[1].ResourceURL != "/order/a%20b" || events[1].UserID != "" ||
		events[3].UserID != "bob" {
		t.Errorf("events %+v", events)
	}
	for i := 1; i < len(events); i++ {
		if events[i].ResourceVersion <= events[i-1].ResourceVersion {
			t.Errorf("version %d after %d", events[i].ResourceVersion, events[i-1].ResourceVersion)
		}
	}
	for arguments, want := range map[string]string{
		"'invoices', 'paid', '1'": "type 'invoices': expected one of invoice, order",
		"'Invoice', 'paid', '1'": "type 'Invoice': expected at most 63 of a-z, 0-9 and _, a " +
			"letter first",
		"NULL, 'paid', '1'":                           "type NULL: expected",
		"'invoice', 'created', '1'":                   "action 'created': expected one of paid, voided for invoice",
		"'invoice', '', '1'":                          "action '': expected",
		"'invoice', 'paid', ''":                       "id '': expected 1 to 512 bytes",
		"'invoice', 'paid', NULL":                     "id NULL: expected",
		"'invoice', 'paid', E'a\\nb'":                 "id ",
		"'invoice', 'paid', repeat('x', 513)":         "id 'xxx",
		"'invoice', 'paid', '1', url => ''":           "url '': expected",
		"'invoice', 'paid', '1', url => 'ftp://x/1'":  "url 'ftp://x/1': expected an http or https URL",
		"'invoice', 'paid', '1', url => 'i/1'":        "url 'i/1': expected",
		"'invoice', 'paid', '1', url => 'https:x'":    "url 'https:x': expected",
		"'invoice', 'paid', '1', url => '/a b'":       "url '/a b': expected",
		"'invoice', 'paid', '1', url => '/%zz'":       "url '/%zz': expected",
		"'invoice', 'paid', '1', user_id => E'a\\tb'": "user_id ",
	} {
		err := emit(arguments)
		refused, ok := errors.AsType[*pgconn.PgError](err)
		if !ok || refused.Code != "22023" || !strings.HasPrefix(refused.Message, "tidings.emit: "+want) {
			t.Errorf("emit(%s): %v; want %s", arguments, err, want)
		}
	}
	if _, err := emitter.Exec("SELECT * FROM tidings.tidings_outbox"); err == nil {
		t.Error("the role may read the outbox")
	}
	a.o.Types = nil // any type
	a.attach()
	if err := emit("'anything', 'happened', '1'"); err != nil {
		t.Error(err)
	}
}

func TestNotify(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	conn, err := pgx.Connect(t.Context(), a.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "LISTEN tidings"); err != nil {
		t.Fatal(err)
	}
	notified := func(within time.Duration) bool {
		t.Helper()
		a.exec("SELECT tidings.emit('invoice', 'paid', '7')")
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		n, err := conn.WaitForNotification(ctx)
		return err == nil && n.Payload == "events"
	}
	for range 2 { // the second time it is there
		if err := capture.Attach(t.Context(), a.db, nil, capture.Options{Notify: true}); err != nil {
			t.Fatal(err)
		}
	}
	if !notified(testtool.Allow(10 * time.Second)) {
		t.Error("a transaction that writes an event does not notify")
	}
	if err := capture.Attach(t.Context(), a.db, nil, capture.Options{}); err != nil {
		t.Fatal(err)
	}
	if conn, err = pgx.Connect(t.Context(), a.url); err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if notified(100 * time.Millisecond) {
		t.Error("it still notifies")
	}
	if err := capture.Attach(t.Context(), a.db, nil, capture.Options{Notify: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := capture.Detach(t.Context(), a.db, capture.Options{}); err != nil {
		t.Error(err)
	}
}
