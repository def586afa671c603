package outboxtest_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite" // registers the driver "sqlite"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/outbox"
	"github.com/tidings-dev/tidings/outbox/outboxtest"
)

// report is a test that records its failures.
type report struct {
	testing.TB
	errors []string
}

func (r *report) Helper() {}
func (r *report) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func TestTold(t *testing.T) {
	db := outbox.SQLiteFile(filepath.Join(t.TempDir(), "shop.db"))
	outboxtest.Told(t, db)
	hooks, err := outbox.Open(t.Context(), db, outbox.Options{Types: outbox.Types{"order": nil}})
	if err != nil {
		t.Fatal(err)
	}
	defer hooks.Close()
	told := []outbox.Event{
		{Type: "order", Action: "created", ID: "1", URL: "/orders/1", OwnerID: "a", EventID: "one", Version: 3},
		{Type: "order", Action: "deleted", ID: "2", URL: "/orders/2"},
	}
	for _, commit := range []bool{true, false} {
		tx, err := hooks.DB().BeginTx(t.Context(), nil)
		if err == nil {
			err = hooks.Tell(t.Context(), tx, told...)
		}
		if err != nil {
			t.Fatal(err)
		}
		if commit {
			err = tx.Commit()
		} else {
			err = tx.Rollback()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if all := outboxtest.Told(t, db, told...); all[0].ResourceID != "1" {
		t.Errorf("told %v", all)
	}
	outboxtest.Told(t, db, outbox.Event{ID: "1"}, outbox.Event{Action: "deleted"})
	for name, want := range map[string][]outbox.Event{
		"none": nil, "one more": append(told, told...), "order": {told[1], told[0]},
		"owner": {{OwnerID: "b"}, {}}, "version": {{Version: 4}, {}}, "id": {{EventID: "two"}, {}},
	} {
		r := &report{TB: t}
		outboxtest.Told(r, db, want...)
		if len(r.errors) != 1 || !strings.Contains(r.errors[0], "order.created 1 url=/orders/1 owner=a id=one") {
			t.Errorf("%s: %q", name, r.errors)
		}
	}
}

func TestReceiver(t *testing.T) {
	receiver := outboxtest.NewReceiver(t)
	hooks, err := outbox.Open(t.Context(), outbox.SQLiteFile(filepath.Join(t.TempDir(), "shop.db")), outbox.Options{
		Types: outbox.Types{"order": nil}, Endpoints: []tidings.Endpoint{receiver.Endpoint()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer hooks.Close()
	receiver.Answer(http.StatusServiceUnavailable)
	go hooks.Run(t.Context())
	tx, err := hooks.DB().BeginTx(t.Context(), nil)
	if err == nil {
		err = hooks.Tell(t.Context(), tx, outbox.Event{Type: "order", Action: "created", ID: "1", URL: "/orders/1"})
	}
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		t.Fatal(err)
	}
	receiver.Answer(0)
	if got := receiver.Wait(1); got[0].ResourceID != "1" || len(receiver.Received()) != 1 {
		t.Errorf("got %v", got)
	}
}

func TestReceiverNoticesWhatIsNotGenuine(t *testing.T) {
	r := &report{TB: t}
	receiver := outboxtest.NewReceiver(r)
	response, err := http.Post(receiver.URL, "application/json", strings.NewReader(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusUnauthorized || len(r.errors) != 1 {
		t.Errorf("%s, %q", response.Status, r.errors)
	}
}
