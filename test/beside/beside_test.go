// Package beside runs applications that know nothing of Tidings, and the database
// drivers that applications use, beside a real "tidings relay".
package beside

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/child"
	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
	"github.com/tidings-dev/tidings/receive"
)

// programs is the folder of the program that is tested.
var programs string

func TestMain(m *testing.M) {
	var err error
	if programs, err = os.MkdirTemp("", "tidings-beside-"); err != nil {
		panic(err)
	}
	code := testdb.Main(m)
	os.RemoveAll(programs)
	os.Exit(code)
}

// build builds Tidings, and returns the path of the program.
var build = sync.OnceValues(func() (string, error) {
	program := filepath.Join(programs, "tidings")
	args := []string{"build", "-o", program}
	if testtool.Raced { // what the tests were built of is at hand
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "../../cmd/tidings")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return program, nil
})

// world is a database that an application and a relay share, and a receiver of what
// the relay sends.
type world struct {
	*testing.T
	url      string // as the role that owns it
	app      string // as the application's role, which has no right on the schema of Tidings
	db       *sql.DB
	settings string        // the file of the relay
	process  *exec.Cmd     // the relay
	log      *bytes.Buffer // what it says; to be read when it has ended
	err      error         // how it ended
	ended    chan struct{} // closed when it has ended
	marks    int           // made by [world.all]

	mu      sync.Mutex
	arrived []tidings.Event // in order, with duplicates, without those of [last]
	ids     map[string]bool // of those
	marked  string          // the resource of the latest of those
	more    chan struct{}   // closed, and replaced, with each
}

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// role is the application's.
const role = "beside_application"

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, url: testdb.Postgres(t), more: make(chan struct{}), ids: make(map[string]bool)}
	w.app = strings.Replace(w.url, "tidings@", role+"@", 1)
	var err error
	if w.db, err = sql.Open("pgx", w.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.db.Close() })
	w.exec("DO $$ BEGIN CREATE ROLE " + role + " LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
	w.exec("GRANT USAGE, CREATE ON SCHEMA app TO " + role)
	return w
}

func (w *world) exec(statements string) {
	w.Helper()
	if _, err := w.db.ExecContext(w.Context(), statements); err != nil {
		w.Fatalf("%v: %s", err, statements)
	}
}

// receiver starts a receiver that keeps what arrives, and returns its URL.
func (w *world) receiver() string {
	w.Helper()
	verifier, err := receive.NewVerifier(secret)
	if err != nil {
		w.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = verifier.Verify(r.Header, body)
		}
		var e tidings.Event
		if err == nil {
			e, err = receive.Decode(r.Header, body)
		}
		if err != nil {
			w.Errorf("a webhook is not genuine: %v", err)
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if e.Type == last {
			w.marked = e.ResourceID
		} else {
			w.arrived = append(w.arrived, e)
			w.ids[e.ID] = true
		}
		close(w.more)
		w.more = make(chan struct{})
	}))
	w.Cleanup(server.Close)
	return server.URL
}

// relay attaches what the settings say, and starts a relay. It ends with the test.
func (w *world) relay(settings map[string]any) {
	w.Helper()
	folder := w.TempDir()
	all := map[string]any{
		"database_url": w.url, "data_dir": folder, "listen": "127.0.0.1:0",
		"webhook": map[string]any{"endpoints": []any{map[string]any{"url": w.receiver(), "secret": secret}}},
	}
	maps.Copy(all, settings)
	text, err := json.Marshal(all) // JSON is YAML
	if err != nil {
		w.Fatal(err)
	}
	w.settings = filepath.Join(folder, "tidings.yaml")
	if err := os.WriteFile(w.settings, text, 0o600); err != nil {
		w.Fatal(err)
	}
	w.run(w.tidings("attach"))
	w.start()
	w.Cleanup(func() {
		_ = w.process.Process.Signal(syscall.SIGTERM)
		if <-w.ended; w.err != nil || w.Failed() {
			w.Errorf("the relay ended with %v; it said:\n%.5000s", w.err, w.log)
		}
	})
	// An endpoint gets what is written after its relay saw it first.
	w.wait(func() bool {
		w.mark("begin")
		return w.marked != ""
	})
}

// start starts the relay.
func (w *world) start() {
	w.Helper()
	process, log, ended := w.tidings("relay"), new(bytes.Buffer), make(chan struct{})
	process.Stdout, process.Stderr = log, log
	child.EndWithUs(process, syscall.SIGKILL)
	if err := process.Start(); err != nil {
		w.Fatal(err)
	}
	w.process, w.log, w.ended = process, log, ended
	go func() {
		w.err = process.Wait()
		close(ended)
	}()
}

// kill ends the relay at once, and starts another one.
func (w *world) kill() {
	w.Helper()
	_ = w.process.Process.Kill()
	<-w.ended
	w.start()
}

// tidings is a command of Tidings, with the settings of the relay.
func (w *world) tidings(command string, more ...string) *exec.Cmd {
	w.Helper()
	program, err := build()
	if err != nil {
		w.Fatal(err)
	}
	return exec.Command(program, append([]string{command, "--config", w.settings}, more...)...)
}

// run runs a program to its end, and returns what it said.
func (w *world) run(cmd *exec.Cmd) string {
	w.Helper()
	out, err := output(cmd)
	if err != nil {
		w.Fatalf("%v: %v\n%.5000s", cmd.Args, err, out)
	}
	return string(out)
}

// patience is how long a program, or the delivery of what it did, may take.
const patience = time.Minute

// output runs a program, which ends with this one, and returns what it said.
func output(cmd *exec.Cmd) ([]byte, error) {
	child.EndWithUs(cmd, syscall.SIGKILL)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	limit := time.AfterFunc(testtool.Allow(3*patience), func() { _ = cmd.Process.Kill() })
	defer limit.Stop()
	err := cmd.Wait()
	return out.Bytes(), err
}

// last is the type of an event that stands for no change: it arrives after what was
// written before it.
const last = "sentinel"

func (w *world) mark(id string) {
	w.Helper()
	w.exec("SELECT tidings.emit('" + last + "', 'created', '" + id + "')")
}

// all returns the n events that have been written, in the order in which they arrived,
// with whatever arrived too often.
func (w *world) all(n int) []tidings.Event {
	w.Helper()
	w.wait(func() bool { return len(w.arrived) >= n })
	w.marks++
	mark := strconv.Itoa(w.marks)
	w.mark(mark)
	w.wait(func() bool { return w.marked == mark })
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.arrived)
}

// wait waits until something is true of what arrived. The test fails, and goes on, if it
// does not become true.
func (w *world) wait(until func() bool) {
	w.Helper()
	limit := testtool.Allow(patience)
	for deadline := time.After(limit); ; {
		done, n, more := w.look(until)
		if done {
			return
		}
		select {
		case <-more:
		case <-time.After(100 * time.Millisecond):
		case <-w.ended:
			w.Fatal("the relay has ended")
		case <-deadline:
			var waiting, numbered int
			err := w.db.QueryRowContext(w.Context(), "SELECT (SELECT count(*) FROM tidings.tidings_outbox), "+
				"(SELECT count(*) FROM tidings.tidings_events)").Scan(&waiting, &numbered)
			w.Errorf("%d webhooks came within %v; %d events are numbered, %d are not (%v)", n, limit, numbered, waiting, err)
			return
		}
	}
}

// look returns whether it is true now, how much arrived, and what tells of more.
func (w *world) look(until func() bool) (done bool, n int, more <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return until(), len(w.arrived), w.more
}
