package app_test

import (
	"database/sql"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// openDB opens a database for inspection.
func openDB(t *testing.T, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// asOthers is a condition on pg_stat_activity that selects the database's sessions,
// except those of [openDB].
const asOthers = "datname = current_database() AND backend_type = 'client backend' AND application_name = 'pooled'"

// pids returns the process ids of the server's sessions.
func pids(t *testing.T, db *sql.DB, condition string) (all []int64) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SELECT pid FROM pg_stat_activity WHERE "+asOthers+condition)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var pid int64
		if err := rows.Scan(&pid); err != nil {
			t.Fatal(err)
		}
		all = append(all, pid)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// The server never exceeds the configured number of connections, and uses all of them
// under load: a third for deliveries, one to listen, the rest for requests. Requests wait
// for a free connection.
func TestPoolSize(t *testing.T) {
	t.Parallel()
	const waiting = " AND pid IN (SELECT pid FROM pg_locks WHERE NOT granted AND relation = " +
		"'tidings.contexts'::regclass)"
	for _, test := range []struct {
		name, parameters string
		settings         map[string]any
		size, requests   int
	}{
		{"database.max_connections", "", map[string]any{"database": object{"max_connections": 8}}, 8, 4},
		{"pool_max_conns", "&pool_max_conns=14", map[string]any{}, 14, 9},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			url := testdb.Postgres(t)
			db := openDB(t, url)
			test.settings["database_url"] = url + "&application_name=pooled" + test.parameters
			w := newWorld(t, test.settings)
			w.call("ann", "POST", "/contexts", object{})
			tx, err := db.BeginTx(t.Context(), nil)
			if err == nil {
				_, err = tx.Exec("LOCK TABLE tidings.contexts IN EXCLUSIVE MODE")
			}
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback() //nolint:errcheck // fails after a commit or rollback
			const load = 40
			answers := make(chan answer, load)
			for range load {
				go func() { answers <- w.try("ann", "POST", "/contexts", object{}) }()
			}
			deadline := time.Now().Add(testTimeout)
			for len(pids(t, db, waiting)) < test.requests {
				if time.Now().After(deadline) {
					t.Fatalf("%d requests have a connection, want %d", len(pids(t, db, waiting)), test.requests)
				}
				<-time.After(5 * time.Millisecond)
			}
			if status := w.request("", "GET", "/readyz", nil, nil).status; status != http.StatusOK {
				t.Errorf("ready: %d", status)
			}
			for range 20 { // no other request gets a connection
				if n := len(pids(t, db, waiting)); n != test.requests {
					t.Errorf("%d requests have a connection, want %d", n, test.requests)
				}
				if n := len(pids(t, db, "")); n > test.size {
					t.Errorf("%d connections, want at most %d", n, test.size)
				}
			}
			if err := tx.Rollback(); err != nil {
				t.Fatal(err)
			}
			for range load {
				if a := <-answers; a.status != http.StatusCreated {
					t.Errorf("request that had to wait: %d %s", a.status, a.text)
				}
			}
			w.mark()
		})
	}
}

// While other clients use all of PostgreSQL's connections, requests wait for one, and get
// 503 if none becomes free.
func TestNoConnectionLeft(t *testing.T) {
	testtool.InAll(t)
	t.Parallel()
	owner := testdb.Postgres(t)
	u, err := url.Parse(owner)
	if err != nil {
		t.Fatal(err)
	}
	role := "few_" + strings.TrimPrefix(u.Path, "/")
	const limit = 12
	_, err = openDB(t, owner).ExecContext(t.Context(), "CREATE ROLE "+role+" LOGIN CONNECTION LIMIT "+
		strconv.Itoa(limit)+"; ALTER DATABASE "+
		strings.TrimPrefix(u.Path, "/")+" OWNER TO "+role)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(role)
	w := newWorld(t, map[string]any{
		"database_url": u.String() + "&pool_max_conn_lifetime=500ms&pool_health_check_period=100ms&pool_max_conns=8",
	})
	w.call("ann", "POST", "/contexts", object{})

	others := openDB(t, u.String())
	others.SetMaxIdleConns(limit)
	var taken []*sql.Conn
	for n := 0; n < limit; { // as the server's connections expire
		c, err := others.Conn(t.Context())
		if err != nil {
			if !strings.Contains(err.Error(), "53300") {
				t.Fatal(err)
			}
			<-time.After(time.Millisecond)
			continue
		}
		taken = append(taken, c)
		n++
	}
	began := time.Now()
	a := w.try("ann", "POST", "/contexts", object{})
	w.wants(a, http.StatusServiceUnavailable, "try again")
	if a.header.Get("Retry-After") == "" {
		t.Error("503 has no Retry-After")
	}
	if took := time.Since(began); took < time.Second || took > testtool.Allow(15*time.Second) {
		t.Errorf("the request waited %v", took)
	}
	w.waitFor("the reason", func() bool { // unless it waited for others that were about to learn it
		ready := w.request("", "GET", "/readyz", nil, nil)
		w.wants(ready, http.StatusServiceUnavailable)
		return has("the role has no free connection", "CONNECTION LIMIT")(ready)
	})

	waiting := make(chan answer, 1)
	go func() { waiting <- w.try("ann", "POST", "/contexts", object{}) }()
	select {
	case a := <-waiting:
		t.Errorf("a request did not wait: %d %s", a.status, a.text)
	case <-time.After(500 * time.Millisecond):
		for _, c := range taken {
			c.Close()
		}
		others.SetMaxIdleConns(-1)
		w.wants(<-waiting, http.StatusCreated)
	}
	w.untilReady()
	w.mark()
}

// Every connection, including the one that listens, is renewed at its maximum age,
// without affecting requests.
func TestConnectionsAreRenewed(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	db := openDB(t, url)
	w := newWorld(t,
		map[string]any{"database_url": url +
			"&application_name=pooled&pool_max_conn_lifetime=1s&pool_health_check_period=100ms"})
	w.readAndWrite()
	old := pids(t, db, "")
	if len(old) < 3 {
		t.Fatalf("the server has %d connections", len(old))
	}
	deadline := time.Now().Add(testTimeout)
	for {
		left := slices.DeleteFunc(pids(t, db, ""), func(pid int64) bool { return !slices.Contains(old, pid) })
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("connections are as old as the server: %v", left)
		}
		w.readAndWrite()
	}
	w.mark()
}
