package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
	"github.com/tidings-dev/tidings/outbox"
	"github.com/tidings-dev/tidings/outbox/outboxtest"
	"github.com/tidings-dev/tidings/relay"
	"github.com/tidings-dev/tidings/sender"
)

// Events that receivers could not read are refused before anything is written.
func TestTellRefusesWhatReceiversCannotRead(t *testing.T) {
	hooks := open(t, outbox.SQLiteFile(newFile(t)),
		outbox.Options{Types: outbox.Types{"order": nil, "invoice": {"created"}}})
	good := outbox.Event{Type: "order", Action: "created", ID: "1", URL: "/orders/1"}
	for name, c := range map[string]struct {
		spoil func(*outbox.Event)
		field string
	}{
		"malformed action":     {func(e *outbox.Event) { e.Action = "Paid!" }, "action"},
		"action not listed":    {func(e *outbox.Event) { e.Type, e.Action = "invoice", "updated" }, "action"},
		"no action":            {func(e *outbox.Event) { e.Action = "" }, "action"},
		"type not listed":      {func(e *outbox.Event) { e.Type = "parcel" }, "type"},
		"malformed type":       {func(e *outbox.Event) { e.Type = "Order 1" }, "type"},
		"no id":                {func(e *outbox.Event) { e.ID = "" }, "resource id"},
		"long id":              {func(e *outbox.Event) { e.ID = strings.Repeat("x", 513) }, "resource id"},
		"zero byte":            {func(e *outbox.Event) { e.ID = "a\x00b" }, "resource id"},
		"no UTF-8":             {func(e *outbox.Event) { e.ID = "a\xff" }, "resource id"},
		"no URL":               {func(e *outbox.Event) { e.URL = "" }, "resource url"},
		"no URL at all":        {func(e *outbox.Event) { e.URL = "http://[" }, "resource url"},
		"line break":           {func(e *outbox.Event) { e.URL = "/orders/1\n" }, "resource url"},
		"long user":            {func(e *outbox.Event) { e.UserID = strings.Repeat("x", 513) }, "user id"},
		"control in the owner": {func(e *outbox.Event) { e.OwnerID = "a\tb" }, "owner id"},
		"year 10000": {
			func(e *outbox.Event) { e.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
			"time",
		},
		"year 0":           {func(e *outbox.Event) { e.Time = time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC) }, "time"},
		"negative version": {func(e *outbox.Event) { e.Version = -1 }, "version"},
		"dot in the id":    {func(e *outbox.Event) { e.EventID = "a.b" }, "id"},
		"trace":            {func(e *outbox.Event) { e.Trace = "a\r\nb" }, "trace"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := good
			c.spoil(&bad)
			tx, err := hooks.DB().BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback()
			if err := hooks.Tell(t.Context(), tx, good, bad); err == nil || !strings.Contains(err.Error(), c.field) {
				t.Errorf("error = %v, want one about %s", err, c.field)
			}
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
		})
	}
	if events, err := hooks.Log().Read(t.Context(), 0, 10); err != nil || len(events) > 0 {
		t.Errorf("written: %v, %v", events, err)
	}
}

func TestTellRefusesWhatIsNoTransaction(t *testing.T) {
	pool := newPool(t, testdb.Postgres(t))
	db := openDB(t, "pgx", pool.Config().ConnString())
	hooks := open(t, outbox.Postgres(pool), outbox.Options{})
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var none *pgxpool.Tx
	for _, tx := range []any{nil, none, pool, db, conn, "tx", struct{ Tx int }{}} {
		if err := hooks.Tell(t.Context(), tx, ordered("1")); err == nil ||
			!strings.Contains(err.Error(), "transaction") {
			t.Errorf("%T: error = %v", tx, err)
		}
	}
	outboxtest.Told(t, outbox.Postgres(pool))
}

func TestEventWithoutATimeIsOfNow(t *testing.T) {
	s := pgxShop(t)
	receiver := outboxtest.NewReceiver(t)
	hooks := open(t, s.database, outbox.Options{Endpoints: []tidings.Endpoint{receiver.Endpoint()}})
	run(t, hooks)
	if err := s.order(t.Context(), hooks, "1", true); err != nil {
		t.Fatal(err)
	}
	if e := receiver.Wait(1)[0]; time.Since(e.Time) > testtool.Allow(time.Minute) {
		t.Errorf("time = %v", e.Time)
	}
}

// counter counts connections.
func countConnections(server *httptest.Server) *atomic.Int64 {
	var n atomic.Int64
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			n.Add(1)
		}
	}
	return &n
}

// Deliveries share a few connections, by default and with the program's own
// transport.
func TestDeliveriesShareConnections(t *testing.T) {
	for name, transport := range map[string]func(tidings.Endpoint) *http.Transport{
		"default":       nil,
		"the program's": func(tidings.Endpoint) *http.Transport { return new(http.Transport) },
	} {
		t.Run(name, func(t *testing.T) {
			const events = 3000
			var got atomic.Int64
			done := make(chan struct{})
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				if got.Add(1) == events {
					close(done)
				}
			}))
			connections := countConnections(server)
			server.Start()
			defer server.Close()
			hooks := open(t, outbox.SQLiteFile(newFile(t)), outbox.Options{
				Endpoints: []tidings.Endpoint{{URL: server.URL}}, Transport: transport,
			})
			tellMany(t, hooks, events)
			run(t, hooks)
			wait(t, done, "3,000 deliveries")
			if n := connections.Load(); n > 32 {
				t.Errorf("%d connections for %d deliveries", n, events)
			}
		})
	}
}

// Many endpoints keep no more connections open than the relay may have attempts in flight,
// whichever transport they use.
func TestConnectionsOfAllEndpointsAreBounded(t *testing.T) {
	for name, transport := range map[string]func(tidings.Endpoint) *http.Transport{
		"default":       nil,
		"the program's": func(tidings.Endpoint) *http.Transport { return new(http.Transport) },
	} {
		t.Run(name, func(t *testing.T) {
			const endpoints, events, limit = 20, 10, 3
			var got, connected atomic.Int64
			changed := make(chan struct{}, 1)
			note := func() {
				select {
				case changed <- struct{}{}:
				default:
				}
			}
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				got.Add(1)
				note()
			}))
			server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				switch state {
				case http.StateNew:
					connected.Add(1)
				case http.StateClosed:
					connected.Add(-1)
					note()
				}
			}
			server.Start()
			defer server.Close()
			options := outbox.Options{Transport: transport, Relay: relay.Options{MaxInFlight: limit}}
			for i := range endpoints {
				options.Endpoints = append(options.Endpoints, tidings.Endpoint{URL: fmt.Sprint(server.URL, "/", i)})
			}
			hooks := open(t, outbox.SQLiteFile(newFile(t)), options)
			tellMany(t, hooks, events)
			run(t, hooks)
			deadline := time.After(testtool.Allow(30 * time.Second))
			for got.Load() < endpoints*events || connected.Load() > limit {
				select {
				case <-changed:
				case <-deadline:
					t.Fatalf("%d of %d delivered, %d connections are open, at most %d may be", got.Load(),
						endpoints*events, connected.Load(), limit)
				}
			}
		})
	}
}

func tellMany(t *testing.T, hooks *outbox.Outbox, n int) {
	t.Helper()
	tx, err := hooks.DB().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	events := make([]outbox.Event, n)
	for i := range events {
		events[i] = ordered(fmt.Sprint(i))
	}
	if err := hooks.Tell(t.Context(), tx, events...); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

func wait(t *testing.T, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(testtool.Allow(30 * time.Second)):
		t.Fatalf("no %s in time", what)
	}
}

// observer reports attempts.
type observer struct {
	relay.Observer
	attempts chan tidings.Outcome
}

func (o observer) Attempted(_ string, _ tidings.Attempt, outcome tidings.Outcome) {
	select {
	case o.attempts <- outcome:
	default:
	}
}

// Cloud metadata services are out of reach, by default and with the program's own transport
// that has its own dial function.
func TestEgressRuleHolds(t *testing.T) {
	private := sender.Egress{PublicOnly: true}
	for name, c := range map[string]struct {
		url       string
		egress    sender.Egress
		transport func(tidings.Endpoint) *http.Transport
	}{
		"metadata": {url: "http://169.254.169.254/latest"},
		"loopback": {url: "http://127.0.0.1:9/", egress: private},
		"transport": {
			url:       "http://169.254.169.254/",
			transport: func(tidings.Endpoint) *http.Transport { return http.DefaultTransport.(*http.Transport) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			seen := observer{attempts: make(chan tidings.Outcome, 1)}
			hooks := open(t, outbox.SQLiteFile(newFile(t)), outbox.Options{
				Endpoints: []tidings.Endpoint{{URL: c.url}}, Egress: c.egress, Transport: c.transport,
				Relay: relay.Options{Observer: seen},
			})
			tellMany(t, hooks, 1)
			run(t, hooks)
			select {
			case o := <-seen.attempts:
				if o.Verdict != tidings.Blocked || o.Reason != tidings.ReasonBlockedAddress {
					t.Errorf("outcome = %+v", o)
				}
			case <-time.After(testtool.Allow(10 * time.Second)):
				t.Fatal("no attempt")
			}
		})
	}
}

// An event of another process, which delivers nothing, arrives long before the relay's own
// poll a second later.
func TestEventOfAnotherProcessArrivesSoon(t *testing.T) {
	for name, tellerRuns := range map[string]bool{"that only tells": false, "that runs": true} {
		t.Run(name, func(t *testing.T) {
			url := testdb.Postgres(t)
			receiver := outboxtest.NewReceiver(t)
			endpoints := []tidings.Endpoint{receiver.Endpoint()}
			run(t, open(t, outbox.Postgres(newPool(t, url)), outbox.Options{Endpoints: endpoints}))

			pool := newPool(t, url)
			o := outbox.Options{}
			if tellerRuns {
				o.Endpoints = endpoints
			}
			teller := open(t, outbox.Postgres(pool), o)
			if tellerRuns {
				run(t, teller)
			}
			var took []time.Duration
			for i := range 11 {
				begun := time.Now()
				tellPgx(t, pool, teller, ordered(fmt.Sprint(i)))
				receiver.Wait(i + 1)
				took = append(took, time.Since(begun))
			}
			slices.Sort(took)
			t.Log("from begin to received:", took)
			limit := 300 * time.Millisecond // it looks every 100 ms
			if tellerRuns {
				limit = 80 * time.Millisecond
			}
			if quick := took[len(took)/4]; quick > testtool.Allow(limit) { // a busy machine delays some
				t.Errorf("three in four took more than %v", quick)
			}
		})
	}
}

func tellPgx(t *testing.T, pool *pgxpool.Pool, hooks *outbox.Outbox, e outbox.Event) {
	t.Helper()
	ctx := t.Context()
	tx, err := pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(ctx)
	if err := hooks.Tell(ctx, tx, e); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
}

// Without any call after the commit, an event is sent a few milliseconds later.
func TestEventLeavesAtOnce(t *testing.T) {
	both(t, func(t *testing.T, s shop) {
		receiver := outboxtest.NewReceiver(t)
		hooks := open(t, s.database, outbox.Options{Endpoints: []tidings.Endpoint{receiver.Endpoint()}})
		run(t, hooks)
		var took []time.Duration
		for i := range 21 {
			begun := time.Now()
			if err := s.order(t.Context(), hooks, fmt.Sprint(i), true); err != nil {
				t.Fatal(err)
			}
			receiver.Wait(i + 1)
			took = append(took, time.Since(begun))
		}
		slices.Sort(took)
		t.Log("from begin to received:", took)
		// Without the polls after Tell each takes 100 ms; a busy machine delays some.
		if quick := took[len(took)/4]; quick > testtool.Allow(80*time.Millisecond) {
			t.Errorf("three in four took more than %v", quick)
		}
	})
}

// The program runs 400 concurrent transactions while deliveries write, too.
func TestSQLiteTransactionsWaitForEachOther(t *testing.T) {
	for name, open400 := range map[string]func(t *testing.T) shop{
		"SQLiteFile": nil,
		"with a busy timeout": func(t *testing.T) shop {
			testtool.InAll(t)
			db := openDB(t, "sqlite", newFile(t)+waiting)
			return sqlShop(t, outbox.SQLite(db), db)
		},
		"an ordinary DSN with one connection": func(t *testing.T) shop {
			db := openDB(t, "sqlite", newFile(t))
			db.SetMaxOpenConns(1)
			return sqlShop(t, outbox.SQLite(db), db)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			transactions := 400
			if name == "with a busy timeout" && testtool.Raced { // all ask again and again, and some wait too long
				transactions = 100
			}
			receiver := outboxtest.NewReceiver(t)
			o := outbox.Options{Endpoints: []tidings.Endpoint{receiver.Endpoint()}}
			var s shop
			if open400 != nil {
				s = open400(t)
			} else {
				s.database = outbox.SQLiteFile(newFile(t))
			}
			hooks := open(t, s.database, o)
			if open400 == nil {
				s = sqlShop(t, s.database, hooks.DB())
			}
			run(t, hooks)
			var failed atomic.Int64
			var group sync.WaitGroup
			for i := range transactions {
				group.Go(func() {
					if err := s.order(t.Context(), hooks, fmt.Sprint(i), true); err != nil {
						failed.Add(1)
						t.Log(err)
					}
				})
			}
			group.Wait()
			if n := failed.Load(); n > 0 {
				t.Errorf("%d of %d transactions failed", n, transactions)
			}
			receiver.Wait(transactions)
		})
	}
}

// Deliveries go on while the program holds all connections of its pool.
func TestSQLiteProgramUsesItsWholePool(t *testing.T) {
	receiver := outboxtest.NewReceiver(t)
	hooks := open(t, outbox.SQLiteFile(newFile(t)), outbox.Options{Endpoints: []tidings.Endpoint{receiver.Endpoint()}})
	run(t, hooks)
	for range hooks.DB().Stats().MaxOpenConnections {
		conn, err := hooks.DB().Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if stats := hooks.DB().Stats(); stats.InUse == 0 {
		t.Fatal("the pool has no limit")
	}
	if _, err := hooks.Publish(t.Context(), outbox.Publication{Event: ordered("1")}); err != nil {
		t.Fatal(err)
	}
	receiver.Wait(1)
}

// A pool whose connections would fail is refused with advice.
func TestSQLiteWithAnOrdinaryDSN(t *testing.T) {
	_, err := outbox.Open(t.Context(), outbox.SQLite(openDB(t, "sqlite", newFile(t))), outbox.Options{Types: orders})
	for _, want := range []string{"SQLITE_BUSY", "busy_timeout", "SQLiteFile", "SetMaxOpenConns(1)"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error = %v, want one that names %s", err, want)
		}
	}
}

// The log does not grow forever.
func TestExpiry(t *testing.T) {
	both(t, func(t *testing.T, s shop) {
		receiver := outboxtest.NewReceiver(t)
		hooks := open(t, s.database, outbox.Options{
			Endpoints: []tidings.Endpoint{receiver.Endpoint()},
			Retention: time.Second,
		})
		run(t, hooks)
		if err := s.order(t.Context(), hooks, "1", true); err != nil {
			t.Fatal(err)
		}
		receiver.Wait(1)
		deadline := time.Now().Add(testtool.Allow(20 * time.Second))
		for {
			oldest, err := hooks.Log().Oldest(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if oldest == 2 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("the oldest event is %d", oldest)
			}
			<-time.After(20 * time.Millisecond)
		}
	})
}

func TestLifeCycle(t *testing.T) {
	receiver := outboxtest.NewReceiver(t)
	hooks := open(t, outbox.SQLiteFile(newFile(t)), outbox.Options{Endpoints: []tidings.Endpoint{receiver.Endpoint()}})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- hooks.Run(ctx) }()
	tellMany(t, hooks, 1)
	receiver.Wait(1)
	if err := hooks.Run(ctx); !errors.Is(err, outbox.ErrRan) {
		t.Errorf("a second Run: %v", err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := hooks.Run(ctx); !errors.Is(err, outbox.ErrRan) {
		t.Errorf("Run after Run: %v", err)
	}
	tx, err := hooks.DB().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	for range 2 {
		if err := hooks.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	for name, err := range map[string]error{
		"Tell": hooks.Tell(t.Context(), tx, ordered("2")), "Run": hooks.Run(t.Context()),
		"SetEndpoints": hooks.SetEndpoints(t.Context()),
	} {
		if !errors.Is(err, outbox.ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	file := outbox.SQLiteFile(newFile(t))
	parcels, err := tidings.ParsePattern("parcel.*")
	if err != nil {
		t.Fatal(err)
	}
	small := openDB(t, "pgx", "postgres://nobody@127.0.0.1:1/none")
	small.SetMaxOpenConns(3)
	endpoint := func(es ...tidings.Endpoint) outbox.Options { return outbox.Options{Types: orders, Endpoints: es} }
	for name, c := range map[string]struct {
		database outbox.Database
		options  outbox.Options
		want     string
	}{
		"no types":         {file, outbox.Options{}, "Options.Types"},
		"no database":      {outbox.Database{}, outbox.Options{Types: orders}, "database"},
		"no pool":          {outbox.Postgres(nil), outbox.Options{Types: orders}, "nil"},
		"small pool":       {outbox.PostgresDB(small), outbox.Options{Types: orders}, "at least 5"},
		"no file":          {outbox.SQLiteFile(""), outbox.Options{Types: orders}, "path"},
		"schema on SQLite": {file.Schema("x"), outbox.Options{Types: orders}, "Schema"},
		"no URL":           {file, endpoint(tidings.Endpoint{Name: "crm"}), "crm"},
		"no name either":   {file, endpoint(tidings.Endpoint{}), "URL"},
		"name with spaces": {file, endpoint(tidings.Endpoint{Name: "my crm", URL: "http://a/b"}), "without spaces"},
		"same URL twice": {
			file, endpoint(tidings.Endpoint{URL: "http://a/b"}, tidings.Endpoint{URL: "http://a/b"}),
			`"a/b"`,
		},
		"pattern": {
			file, endpoint(tidings.Endpoint{URL: "http://a/b", Patterns: []tidings.Pattern{parcels}}),
			"parcel.*",
		},
		"secret": {
			file, endpoint(tidings.Endpoint{URL: "http://a/b", Secrets: []string{"hunter2"}}),
			"secret",
		},
		"retention": {file, outbox.Options{Types: orders, Retention: -1}, "Retention"},
		"no migration": {
			outbox.SQLiteFile(newFile(t)),
			outbox.Options{Types: orders, NoMigrate: true},
			"outbox.Migrate",
		},
	} {
		hooks, err := outbox.Open(t.Context(), c.database, c.options)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: error = %v, want one that names %s", name, err, c.want)
		}
		if err == nil {
			hooks.Close()
		}
	}
}
