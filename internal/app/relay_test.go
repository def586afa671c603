package app_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/auth"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
	"github.com/tidings-dev/tidings/outbox/outboxtest"
)

// newRelay starts a relay with a receiver and, for each role, a token named after it.
func newRelay(
	t *testing.T, settings map[string]any, options ...option,
) (*world, *outboxtest.Receiver) {
	t.Helper()
	receiver := outboxtest.NewReceiver(t)
	w := &world{T: t, client: http.DefaultClient, log: new(syncBuffer), relay: true}
	tokens := []any{}
	for _, role := range []string{"publisher", "reader", "operator", "admin"} {
		tokens = append(tokens, map[string]any{"sha256": auth.Hash(role), "user": role, "role": role})
	}
	w.settings = map[string]any{
		"listen": "127.0.0.1:0", "data_dir": t.TempDir(), "auth": map[string]any{"tokens": tokens},
		"types": map[string]any{"invoice": []any{"paid", "voided"}, "order": nil}, "shutdown_timeout": "5s",
		"webhook": map[string]any{"endpoints": []any{map[string]any{
			"name": "receiver", "url": receiver.URL, "secret": receiver.Secret,
		}}},
	}
	maps.Copy(w.settings, settings)
	w.start(options...)
	return w, receiver
}

// names waits for n events, and returns each with its resource and user.
func names(receiver *outboxtest.Receiver, n int) (all []string) {
	for _, e := range receiver.Wait(n) {
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s %s", e.Name(), e.ResourceID, e.UserID)))
	}
	return all
}

// Tables of an application whose role has no privileges on Tidings' schema.
func TestRelayTables(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	owner := openDB(t, url)
	role := "shop_" + strings.ToLower(url[strings.LastIndex(url, "/")+1:strings.LastIndex(url, "?")])
	for _, statement := range []string{
		"CREATE ROLE " + role + " LOGIN",
		"CREATE TABLE public.orders (id int PRIMARY KEY, status text, seen_at timestamptz)",
		"GRANT ALL ON public.orders TO " + role,
	} {
		if _, err := owner.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { owner.Exec("DROP OWNED BY " + role + "; DROP ROLE " + role) })
	w, receiver := newRelay(t, map[string]any{
		"database_url": url, "sources": map[string]any{"tables": map[string]any{"public.orders": map[string]any{
			"type": "order", "url": "https://shop.example/orders/{id}", "ignore": []any{"seen_at"},
		}}},
	})
	shop := openDB(t, strings.Replace(url, "tidings@", role+"@", 1))
	transact := func(commit bool, statements ...string) {
		t.Helper()
		tx, err := shop.Begin()
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		for _, s := range statements {
			if _, err := tx.Exec(s); err != nil {
				t.Fatalf("%s: %v", s, err)
			}
		}
		if commit {
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
		}
	}
	transact(true, "INSERT INTO public.orders VALUES (1, 'new'), (2, 'new')")
	transact(false, "INSERT INTO public.orders VALUES (3, 'new')")
	transact(true, "SET LOCAL tidings.user_id = 'ann'", "UPDATE public.orders SET status = 'paid' WHERE id = 1")
	transact(true, "UPDATE public.orders SET seen_at = now()")
	transact(true, "DELETE FROM public.orders WHERE id = 2")
	got := names(receiver, 4)
	slices.Sort(got) // different resources have no order
	want := []string{"order.created 1", "order.created 2", "order.deleted 2", "order.updated 1 ann"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, e := range receiver.Received() {
		if e.ResourceURL != "https://shop.example/orders/"+e.ResourceID {
			t.Errorf("URL = %s", e.ResourceURL)
		}
	}
	if a := w.call("reader", "GET", "/webhooks/tables", nil); !strings.Contains(a.text,
		`"table":"public.orders","type":"order","state":"attached"`) {
		t.Errorf("tables: %s", a.text)
	}
	if a := w.call("reader", "GET", "/webhooks/status", nil); !strings.Contains(a.text,
		`"state":"attached","ignore":["seen_at"],"per_hour":4,"per_hour_exact":true,"last_at":"2`) {
		t.Errorf("status: %s", a.text)
	}
	if a := w.request("", "GET", "/readyz?verbose", nil, nil); !strings.Contains(a.text, `"state":"attached"`) {
		t.Errorf("readyz: %d %s", a.status, a.text)
	}
	if a := w.request("", "GET", "/metrics", nil, nil); !strings.Contains(a.text,
		`tidings_table_attached{table="public.orders"} 1`) {
		t.Error("the metrics lack the table")
	}
	if _, err := shop.Exec("SELECT tidings.emit('invoice', 'paid', '7')"); err == nil {
		t.Error("a role without grants may call emit")
	}
	if _, err := owner.Exec("SELECT tidings.emit('invoice', 'pay', '7')"); err == nil ||
		!strings.Contains(err.Error(), "22023") {
		t.Errorf("unknown action: %v, want SQLSTATE 22023", err)
	}
	if _, err := owner.Exec("SELECT tidings.emit('invoice', 'paid', '7', user_id => 'bob')"); err != nil {
		t.Fatal(err)
	}
	if got := names(receiver, 5)[4]; got != "invoice.paid 7 bob" {
		t.Errorf("emit: got %s", got)
	}
}

func TestPublishOverHTTP(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		w, receiver := newRelay(t, settings)
		paid := map[string]any{"event": "invoice.paid", "resource_id": "1", "user_id": "ann"}
		a := w.try("publisher", "POST", "/events", paid, "Idempotency-Key", "k")
		w.wants(a, 202, `{"ids":["`)
		w.wants(w.try("publisher", "POST", "/events", paid, "Idempotency-Key", "k"), 202, a.text)
		if b := w.try("admin", "POST", "/events", paid, "Idempotency-Key", "k"); b.status != 202 || b.text == a.text {
			t.Errorf("another publisher's key: %d %s", b.status, b.text)
		}
		paid["resource_id"] = "2"
		w.wants(w.try("publisher", "POST", "/events", paid, "Idempotency-Key", "k"), 409,
			"the idempotency key was used for another event")

		w.wants(w.try("publisher", "POST", "/events", []any{paid, paid}, "Idempotency-Key", "k"), 409,
			"in a list of a different length")
		two := w.try("publisher", "POST", "/events", []any{paid, paid}, "Idempotency-Key", "two")
		w.wants(two, 202)
		w.wants(w.try("publisher", "POST", "/events", []any{paid, paid}, "Idempotency-Key", "two"), 202, two.text)
		for _, body := range []any{paid, []any{paid}, []any{paid, paid, paid}} {
			w.wants(w.try("publisher", "POST", "/events", body, "Idempotency-Key", "two"), 409,
				"in a list of a different length")
		}

		// A list is published as a whole or not at all.
		w.wants(w.try("publisher", "POST", "/events",
			[]any{paid, map[string]any{"event": "invoice.pay", "resource_id": "3"}}),
			422, `"location":"body[1].event"`, `did you mean \"invoice.paid\"?`)
		w.wants(w.request("publisher", "POST", "/api/v1/events", strings.NewReader("event"),
			map[string]string{"Content-Type": "text/plain"}),
			415)

		// Concurrent requests with the same event publish it once.
		var all sync.WaitGroup
		ids := make([]string, 8)
		for i := range ids {
			all.Go(func() {
				ids[i] = w.request("publisher", "POST", "/api/v1/events", strings.NewReader(
					`[{"specversion":"1.0","id":"7","source":"/shop","type":"com.example.order.created","subject":"order/7"}]`),
					map[string]string{"Content-Type": "application/cloudevents-batch+json"}).text
			})
		}
		all.Wait()
		if slices.Sort(ids); ids[0] != ids[len(ids)-1] || !strings.HasPrefix(ids[0], `{"ids":["`) {
			t.Errorf("concurrent requests returned the ids %s", ids)
		}
		got := names(receiver, 5)
		slices.Sort(got)
		if want := []string{
			"invoice.paid 1 ann", "invoice.paid 1 ann", "invoice.paid 2 ann", "invoice.paid 2 ann", "order.created 7",
		}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

// New types take effect after a restart. Until then, a reload that adds endpoints for
// them is refused as a whole.
func TestReloadOfTypes(t *testing.T) {
	t.Parallel()
	w, receiver := newRelay(t, nil, reloads)
	refund := map[string]any{"event": "refund.made", "resource_id": "1"}
	w.settings["types"] = object{"invoice": []any{"paid"}, "refund": []any{"made"}}
	endpoint := w.settings["webhook"].(map[string]any)["endpoints"].([]any)[0].(map[string]any)
	endpoint["events"] = []any{"invoice.paid", "refund.*"}
	w.configure()
	w.wants(w.try("admin", "POST", "/webhooks/reload", nil), 422,
		`webhook.endpoints[0].events[1]: \"refund.*\" selects events newly added by types`, "restart to apply them")
	endpoint["events"] = []any{"*"}
	w.configure()
	w.wants(w.try("admin", "POST", "/webhooks/reload", nil), 200)
	w.logged("take effect only after a restart", "types")
	w.wants(w.try("publisher", "POST", "/events", refund), 422, `there is no event \"refund.made\"`)
	for _, action := range []string{"paid", "voided"} {
		w.wants(w.try("publisher", "POST", "/events", object{"event": "invoice." + action, "resource_id": "1"}), 202)
	}
	receiver.Wait(2)
}

func TestRolesOfARelay(t *testing.T) {
	t.Parallel()
	w, _ := newRelay(t, nil)
	event := map[string]any{"event": "invoice.paid", "resource_id": "1"}
	for _, test := range []struct {
		method, path string
		body         any
		allowed      string
	}{
		{"POST", "/events", event, "publisher admin"},
		{"GET", "/events", nil, "reader operator admin"},
		{"GET", "/webhooks/endpoints", nil, "reader operator admin"},
		{"GET", "/webhooks/attempts", nil, "reader operator admin"},
		{"POST", "/webhooks/endpoints/receiver/pause", nil, "operator admin"},
		{"POST", "/webhooks/endpoints/receiver/resume", nil, "operator admin"},
	} {
		for _, role := range []string{"publisher", "reader", "operator", "admin"} {
			a := w.try(role, test.method, test.path, test.body)
			if allowed := slices.Contains(strings.Fields(test.allowed), role); allowed != (a.status < 300) ||
				!allowed && a.status != 403 {
				t.Errorf("%s %s as %s: %d %s", test.method, test.path, role, a.status, a.text)
			}
		}
	}
	w.wants(w.try("operator", "POST", "/webhooks/reload", nil), 403, "requires the role admin; yours is operator")
	w.wants(w.try("reader", "POST", "/events", event), 403, "requires the role publisher or admin; yours is reader")
	w.wants(w.try("stranger", "GET", "/events", nil), 401)
	w.wants(w.try("admin", "GET", "/providers", nil), 404)
}

func TestRelayHasNoResourceTables(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		w, _ := newRelay(t, settings)
		cfg, err := config.Load(config.Input{Files: []string{w.file}, Relay: true})
		if err != nil {
			t.Fatal(err)
		}
		if !cfg.DatabaseURL.Set() {
			return
		}
		db := openDB(t, settings["database_url"].(string))
		var tables int
		err = db.QueryRow("SELECT count(*) FROM pg_tables WHERE schemaname = 'tidings' AND tablename NOT LIKE " +
			"'tidings%'").Scan(&tables)
		if err != nil || tables > 0 {
			t.Errorf("%d tables besides those of the log, %v", tables, err)
		}
	})
}

// A table that the role may not attach does not prevent other events from being
// delivered.
func TestRelayWithoutPrivileges(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	owner := openDB(t, url)
	role := "relay_" + strings.ToLower(url[strings.LastIndex(url, "/")+1:strings.LastIndex(url, "?")])
	for _, statement := range []string{
		"CREATE ROLE " + role + " LOGIN", "CREATE TABLE public.orders (id int PRIMARY KEY)",
		"DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO " + role + "', current_database()); END $$",
	} {
		if _, err := owner.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { owner.Exec("DROP OWNED BY " + role + " CASCADE; DROP ROLE " + role) })
	w, receiver := newRelay(t, map[string]any{
		"database_url": strings.Replace(url, "tidings@", role+"@", 1),
		"sources":      map[string]any{"tables": map[string]any{"public.orders": map[string]any{"type": "order"}}},
	})
	w.logged("not all tables could be attached", "GRANT SELECT ON public.orders", "GRANT TRIGGER")
	a := w.call("reader", "GET", "/webhooks/tables", nil)
	if !strings.Contains(a.text, `"state":"broken"`) || !strings.Contains(a.text, "could not be attached: ERROR: "+
		"table public.orders: role "+role+" must be able to read it") {
		t.Errorf("tables: %s", a.text)
	}
	w.call("publisher", "POST", "/events", map[string]any{"event": "invoice.paid", "resource_id": "1"})
	receiver.Wait(1)
}

// What a migration broke is repaired as far as possible. Remaining differences and gaps
// are listed and logged.
func TestRelayRepairsTables(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	db := openDB(t, url)
	exec := func(statements ...string) {
		t.Helper()
		for _, s := range statements {
			if _, err := db.Exec(s); err != nil {
				t.Fatalf("%s: %v", s, err)
			}
		}
	}
	exec("CREATE TABLE public.orders (id int PRIMARY KEY, slug text)",
		"CREATE TABLE public.lines (id int PRIMARY KEY, order_id int)")
	w, receiver := newRelay(t, map[string]any{
		"database_url": url, "sources": object{"tables": object{"public.orders": object{
			"type": "order", "url": "https://shop.example/{slug}/{id}",
			"parts": object{"public.lines": object{"key": []any{"order_id"}}},
		}}},
	})
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	exec("DROP TABLE public.orders", "CREATE TABLE public.orders (id int PRIMARY KEY)",
		"INSERT INTO public.orders VALUES (1)",
		`DO $$ DECLARE name text; BEGIN
			SELECT tgname INTO name FROM pg_trigger WHERE tgrelid = 'public.lines'::regclass AND tgtype = 29;
			EXECUTE format('DROP TRIGGER %I ON public.lines', name); END $$`,
		"CREATE TABLE public.urgent (PRIMARY KEY (id)) INHERITS (public.orders)")
	w.start()
	for _, path := range []string{"/api/v1/webhooks/tables", "/readyz?verbose"} {
		w.wants(w.request("reader", "GET", path, nil, nil), 200, `"state":"broken"`,
			"the column slug is gone; change url (URLs lack it until then) in the configuration, and run attach",
			"the table public.urgent inherits from it",
			`"table":"public.orders","since":`, `"reason":"replaced, trigger","recovered":1`,
			`"table":"public.lines","since":`)
	}
	w.logged("changes of a table may have created no events", "rows deleted meanwhile are unknown")
	exec("DROP TABLE public.urgent", "INSERT INTO public.orders VALUES (2)")
	receiver.Wait(2) // the first one was recovered
}

// Events acknowledged with 202 are in the log exactly once, however often the process is
// killed and the client retries.
func TestPublishedEventsSurviveKills(t *testing.T) {
	testtool.InAll(t)
	databases(t, func(t *testing.T, settings map[string]any) {
		const batches, kills, size, publishers = 200, 20, 50, 4
		got := &record{bodies: make(map[string][]byte), versions: make(map[string][]int64)}
		receiver := httptest.NewServer(got)
		t.Cleanup(receiver.Close)
		settings["webhook"] = object{"endpoints": []any{object{"name": "receiver", "url": receiver.URL}}}
		settings["types"] = object{"order": nil}
		p := newProcess(t, settings)
		p.relay = true
		p.start()
		work, results := make(chan int, batches), make(chan []string, batches)
		for batch := range batches {
			work <- batch
		}
		close(work)
		var all sync.WaitGroup
		for range publishers {
			all.Go(func() {
				for batch := range work {
					results <- p.publish(batch, size)
				}
			})
		}
		for range kills {
			<-time.After(time.Duration(20+rand.IntN(200)) * time.Millisecond)
			p.end(syscall.SIGKILL)
			p.start()
		}
		all.Wait()
		close(results)
		answered := make(map[string]bool)
		for ids := range results {
			for _, id := range ids {
				answered[id] = true
			}
		}
		if len(answered) != batches*size {
			t.Fatalf("%d events were acknowledged, want %d", len(answered), batches*size)
		}
		count := func() int {
			got.mu.Lock()
			defer got.mu.Unlock()
			return len(got.bodies)
		}
		for deadline := time.Now().Add(3 * testTimeout); count() < len(answered) && time.Now().Before(deadline); {
			<-time.After(10 * time.Millisecond)
		}
		got.mu.Lock()
		defer got.mu.Unlock()
		for id := range got.bodies {
			if !answered[id] {
				t.Errorf("event %s arrived but was never acknowledged", id)
			}
		}
		if len(got.bodies) != len(answered) {
			t.Errorf("%d events arrived, %d were acknowledged", len(got.bodies), len(answered))
		}
	})
}

// publish publishes a batch, and retries until it is acknowledged.
func (p *process) publish(batch, size int) []string {
	var events []any
	for i := range size {
		events = append(events, object{"event": "order.created", "resource_id": fmt.Sprintf("%d-%d", batch, i)})
	}
	text, err := json.Marshal(events)
	if err != nil {
		p.Error(err)
		return nil
	}
	for deadline := time.Now().Add(3 * testTimeout); time.Now().Before(deadline); <-time.After(5 * time.Millisecond) {
		r, err := http.NewRequest("POST", "http://"+p.address+"/api/v1/events", bytes.NewReader(text))
		if err != nil {
			p.Error(err)
			return nil
		}
		r.Header = http.Header{
			"Authorization": {"Bearer token"}, "Content-Type": {"application/json"},
			"Idempotency-Key": {strconv.Itoa(batch)},
		}
		response, err := client.Do(r)
		if err != nil {
			continue // the process was killed and will restart
		}
		var answer struct{ IDs []string }
		err = json.NewDecoder(response.Body).Decode(&answer)
		response.Body.Close()
		if response.StatusCode == http.StatusAccepted && err == nil {
			return answer.IDs
		}
		if response.StatusCode < 500 && err == nil {
			p.Errorf("publish: %d", response.StatusCode)
			return nil
		}
	}
	p.Error("a batch was never acknowledged")
	return nil
}

// An operator is answered while a huge transaction is numbered.
func TestOperatorDuringAHugeTransaction(t *testing.T) {
	testtool.InAll(t)
	t.Parallel()
	url := testdb.Postgres(t)
	receiver := outboxtest.NewReceiver(t)
	w, _ := newRelay(t, map[string]any{"database_url": url, "webhook": map[string]any{"endpoints": []any{map[string]any{
		"name": "receiver", "url": receiver.URL, "secret": receiver.Secret, "events": []any{"invoice.voided"},
	}}}})
	w.until("admin", "GET", "/webhooks/endpoints/receiver", nil, has(`"state":"healthy"`))
	db := openDB(t, url)
	events, most := 200_000, testtool.Allow(3*time.Second)
	if _, err := db.Exec(`INSERT INTO tidings.tidings_outbox (source, id, resource_type, action, resource_id,
			resource_url, user_id, at, resource_version)
		SELECT 0, '', 'invoice', 'paid', n, '', '', 1767225600000000 + n, 0 FROM generate_series(1, $1::bigint) n`,
		events); err != nil {
		t.Fatal(err)
	}
	head := func() (n int) {
		if err := db.QueryRow("SELECT seq FROM tidings.tidings_head").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	const endpoint = "/webhooks/endpoints/receiver"
	begun, rounds, longest := time.Now(), 0, make(map[string]time.Duration)
	for head() < events {
		for _, call := range []string{
			"GET /webhooks/endpoints", "GET " + endpoint, "POST " + endpoint + "/pause", "GET /webhooks/status",
			"GET /webhooks/events", "POST " + endpoint + "/resume", "GET /webhooks/problems",
		} {
			method, path, _ := strings.Cut(call, " ")
			at := time.Now()
			w.wants(w.call("admin", method, path, nil), 200)
			if took := time.Since(at); took > time.Second {
				t.Logf("round %d, %d numbered: %s took %v", rounds, head(), call, took)
			}
			longest[call] = max(longest[call], time.Since(at))
		}
		rounds++
	}
	t.Logf("%d rounds in %v, the longest: %v", rounds, time.Since(begun), longest)
	if rounds < 2 {
		t.Error("the transaction was numbered before an operator called")
	}
	for call, took := range longest {
		if took > most {
			t.Errorf("%s took %v", call, took)
		}
	}
}
