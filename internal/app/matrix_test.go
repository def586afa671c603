package app_test

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/internal/testtool"
)

var update = flag.Bool("update", false, "write the golden files")

// matrixFile lists the status of each operation for each kind of caller.
const matrixFile = "testdata/matrix.txt"

const matrixHead = `# The status of a valid request for each operation, by kind of caller.
# Private resources (contexts, files, vector stores, connectors, feedback) belong to
# the user "owner"; providers and builds belong to a developer.
#
# nobody     has no token             developer  owns all resources in the request
# badtoken   has an unknown token     otherdev   owns none of them
# owner      owns private resources   admin      owns none of them
# user       owns nothing             demoted    owns all; was a developer, is now a user
# promoted   a user whose account became admin; the token is still limited to user
# deleted    the account and everything in it was deleted; the token creates a new one
# reader     owns nothing; the token is for receivers, which read everything
#
# To add rows for new operations: go test ./internal/app -run TestMatrix -update
`

// column is a kind of caller.
type column struct {
	name, as string
	// private and developer own the resources in the requests.
	private, developer string
}

var columns = []column{
	{"nobody", "", "ann", "developer"},
	{"badtoken", "no-such-token", "ann", "developer"},
	{"owner", "ann", "ann", "developer"},
	{"user", "bob", "ann", "developer"},
	{"developer", "developer", "developer", "developer"},
	{"otherdev", "leaver", "ann", "developer"},
	{"admin", "admin", "ann", "developer"},
	{"demoted", "demoted", "demoted", "demoted"},
	{"promoted", "promoted", "ann", "developer"},
	{"deleted", "removed", "removed", "developer"},
	{"reader", "reader", "ann", "developer"},
}

// undocumented are paths that are missing from the OpenAPI document.
var undocumented = []string{
	"/healthz", "/healthcheck", "/readyz", "/metrics", "/api/v1/docs",
	"/api/v1/openapi.json", "/api/v1/nowhere",
}

// streamOfEvents is the operation readEvents for clients that accept a stream.
const streamOfEvents = "stream"

// matrix holds the rows of [matrixFile]: statuses by operation and column.
type matrix map[string]map[string]int

func readMatrix(t *testing.T) matrix {
	t.Helper()
	text, err := os.ReadFile(matrixFile)
	if err != nil {
		t.Fatal(err)
	}
	rows := make(matrix)
	var names []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || fields[0] == "#":
		case names == nil:
			names = fields[2:]
		default:
			cells := make(map[string]int)
			for i, name := range names {
				if cells[name], err = strconv.Atoi(fields[2+i]); err != nil {
					t.Fatalf("%s: %v", strings.TrimSpace(line), err)
				}
			}
			rows[fields[0]+" "+fields[1]] = cells
		}
	}
	return rows
}

func (m matrix) write(t *testing.T, order []string) {
	t.Helper()
	var b strings.Builder
	b.WriteString(matrixHead)
	fmt.Fprintf(&b, "\n%-7s%-46s", "", "operation")
	for _, c := range columns {
		fmt.Fprintf(&b, " %-9s", c.name)
	}
	for _, operation := range order {
		method, path, _ := strings.Cut(operation, " ")
		fmt.Fprintf(&b, "\n%-7s%-46s", method, path)
		for _, c := range columns {
			fmt.Fprintf(&b, " %-9d", m[operation][c.name])
		}
	}
	lines := strings.Split(b.String(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	text := strings.Replace(strings.Join(lines, "\n"), "       operation", "METHOD operation", 1)
	if err := os.WriteFile(matrixFile, []byte(text+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestMatrix makes a valid request for every operation as every kind of caller. Denied
// requests write nothing and create no events.
func TestMatrix(t *testing.T) {
	if *update {
		w := newMatrix(t, map[string]any{})
		got, order := make(matrix), []string{}
		for _, c := range w.operations() {
			name := c.method + " " + c.path
			order, got[name] = append(order, name), make(map[string]int)
		}
		for n, column := range columns {
			p := w.enter(column)
			w.client = clientFrom(t, fmt.Sprintf("127.0.1.%d", n))
			for _, c := range w.operations() {
				got[c.method+" "+c.path][column.name] = p.request(c).status
			}
		}
		got.write(t, order)
	}
	want := readMatrix(t)
	databases(t, func(t *testing.T, settings map[string]any) {
		if settings["database_url"] != nil {
			testtool.InAll(t)
		}
		w := newMatrix(t, settings)
		rows := make(map[string]bool)
		for _, c := range w.operations() {
			rows[c.method+" "+c.path] = true
			if want[c.method+" "+c.path] == nil {
				t.Errorf("%s has no row for %s %s: decide who may do it", matrixFile, c.method, c.path)
			}
		}
		for operation := range want {
			if !rows[operation] {
				t.Errorf("%s has a row for %s, which does not exist", matrixFile, operation)
			}
		}
		for n, column := range columns {
			t.Run(column.name, func(t *testing.T) {
				w.T, w.client = t, clientFrom(t, fmt.Sprintf("127.0.1.%d", n))
				w.column(column, want)
			})
			w.T = t
		}
	})
}

// clientFrom returns a client with its own address, since requests without valid
// credentials are limited by address.
func clientFrom(t *testing.T, address string) *http.Client {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	transport := &http.Transport{DialContext: dialer.DialContext}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// matrixWorld is a world with access to its database.
type matrixWorld struct {
	*world
	db *sql.DB
}

func newMatrix(t *testing.T, settings map[string]any) *matrixWorld {
	t.Helper()
	settings["data_dir"] = t.TempDir()
	w := &matrixWorld{world: newWorldWith(t, settings,
		object{"name": "silent", "url": silent(t), "timeout": "1h"}, option(reloads))}
	w.db, _ = database(t, settings)
	return w
}

// operations returns the operations of the OpenAPI document and undocumented ones.
func (w *matrixWorld) operations() []call {
	w.Helper()
	list := w.calls()
	list = append(list, call{method: "GET", path: "/events#" + streamOfEvents, id: streamOfEvents})
	for _, path := range undocumented {
		list = append(list, call{method: "GET", path: path, id: "undocumented"})
	}
	return list
}

// column compares the answers to one kind of caller with a column of the matrix. It
// makes the denied requests first, because allowed ones change the resources.
func (w *matrixWorld) column(column column, want matrix) {
	w.Helper()
	p := w.enter(column)
	var denied, allowed []call
	for _, c := range w.operations() {
		if want[c.method+" "+c.path][column.name] >= 400 {
			denied = append(denied, c)
		} else {
			allowed = append(allowed, c)
		}
		p.ids(c)
	}
	compare := func(c call) {
		if got, want := p.request(c), want[c.method+" "+c.path][column.name]; got.status != want {
			w.Errorf("%s %s: %d, want %d: %.300s", c.method, c.path, got.status, want, got.text)
		}
	}
	w.mark()
	before := w.rows()
	for _, c := range denied {
		compare(c)
	}
	if diff := cmp.Diff(before, w.rows()); diff != "" {
		w.Errorf("denied requests wrote something (-before +after):\n%s", diff)
	}
	w.expect()
	for _, c := range allowed {
		compare(c)
	}
}

// rows returns all rows of the tables of resources.
func (w *matrixWorld) rows() (lines []string) {
	w.Helper()
	ctx := w.Context()
	names, err := w.strings(ctx, "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
	if err != nil {
		names, err = w.strings(ctx, "SELECT table_schema || '.' || table_name FROM information_schema.tables "+
			"WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')")
	}
	if err != nil {
		w.Fatal(err)
	}
	for _, name := range names {
		if strings.Contains(name, "tidings_") { // the log's tables; webhooks show their changes
			continue
		}
		rows, err := w.db.QueryContext(ctx, "SELECT * FROM "+name)
		if err != nil {
			w.Fatal(err)
		}
		columns, err := rows.Columns()
		if err != nil {
			w.Fatal(err)
		}
		for rows.Next() {
			values := make([]any, len(columns))
			for i := range values {
				values[i] = new(any)
			}
			if err := rows.Scan(values...); err != nil {
				w.Fatal(err)
			}
			line := name
			for i, v := range values {
				line += fmt.Sprintf(" %s=%v", columns[i], *v.(*any))
			}
			lines = append(lines, line)
		}
		if err := rows.Err(); err != nil {
			w.Fatal(err)
		}
	}
	if len(lines) == 0 {
		w.Fatal("the database is empty")
	}
	slices.Sort(lines)
	return lines
}

func (w *matrixWorld) strings(ctx context.Context, query string) (texts []string, err error) {
	rows, err := w.db.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	return texts, rows.Err()
}

// player makes the requests of one kind of caller.
type player struct {
	*matrixWorld
	column
	victim, self *owned
}

// enter prepares a kind of caller.
func (w *matrixWorld) enter(column column) *player {
	w.Helper()
	p := &player{matrixWorld: w, column: column}
	p.victim = &owned{
		world: w.world, who: column.private, developer: column.developer,
		ids: map[string]string{}, silent: "silent",
	}
	p.self = p.victim
	if column.as != column.private && column.as != "" && column.name != "badtoken" {
		w.user(column.as)
		p.self = &owned{world: w.world, who: column.as, developer: "developer", ids: map[string]string{}}
	}
	switch column.name {
	case "promoted":
		w.call("admin", "PATCH", "/users/"+w.user("promoted"), object{"role": "admin"})
	case "demoted":
		w.role("demoted", "user")
	case "reader":
		p.self = p.victim // a reader can own nothing
	case "deleted":
		for _, kind := range []string{
			"connector", "context", "history", "file", "vector_store",
			"document", "user_feedback",
		} {
			p.victim.id(kind)
		}
		w.call("admin", "DELETE", "/users/"+w.user("removed"), nil)
		w.user("removed")
		p.self = &owned{world: w.world, who: "removed", developer: "developer", ids: map[string]string{}}
	}
	return p
}

func (w *matrixWorld) role(user, role string) {
	w.Helper()
	w.call("admin", "PATCH", "/users/"+w.user(user), object{"role": role})
}

// ids returns the ids for a request: the victim's in its path and query, the caller's
// own in its body.
func (p *player) ids(c call) map[slot]string {
	p.Helper()
	ids := make(map[slot]string)
	missing := slices.ContainsFunc(c.slots, func(s slot) bool { return s.in == "path" && p.victim.ids[s.kind] == "" })
	if p.name == "demoted" && missing { // only a developer can create these resources
		p.role("demoted", "developer")
		defer p.role("demoted", "user")
	}
	for _, s := range c.slots {
		switch {
		case s.in == "path" || s.name == "from_id":
			ids[s] = p.victim.id(s.kind)
		case s.in == "body" && slices.Contains(c.body.Required, s.name):
			ids[s] = p.self.id(s.kind)
		}
	}
	return ids
}

// request makes a request, a second time if there were too many: an address without
// credentials may make only 100 at once.
func (p *player) request(c call) answer {
	p.Helper()
	a := p.once(c)
	if a.status == http.StatusTooManyRequests {
		<-time.After(2 * time.Second)
		a = p.once(c)
	}
	return a
}

func (p *player) once(c call) answer {
	p.Helper()
	switch c.id {
	case "undocumented":
		return p.world.request(p.as, c.method, c.path, nil, nil)
	case streamOfEvents:
		return p.stream()
	}
	a := p.ask(p.as, c, p.ids(c))
	if c.method != http.MethodGet && a.status < 400 && p.name != "deleted" {
		clear(p.victim.ids)
		clear(p.self.ids)
	}
	return a
}

// stream opens a stream of events and closes it.
func (p *player) stream() answer {
	p.Helper()
	response := p.openStream(p.as, "")
	response.Body.Close()
	return answer{status: response.StatusCode}
}
