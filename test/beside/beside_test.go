// Package beside runs applications that know nothing of Tidings, and common database
// drivers, next to a real "tidings relay".
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

// programs is the folder of the tested binary.
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

// build builds Tidings and returns the path of the binary.
var build = sync.OnceValues(func() (string, error) {
	program := filepath.Join(programs, "tidings")
	args := []string{"build", "-o", program}
	if testtool.Raced { // the packages are already compiled
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "../../cmd/tidings")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return program, nil
})

// world is a database that an application and a relay share, and a receiver of the
// relay's webhooks.
type world struct {
	*testing.T
	url      string // as the role that owns it
	app      string // as the application's role, which has no privileges on Tidings' schema
	db       *sql.DB
	settings string        // path of the relay's configuration
	process  *exec.Cmd     // the relay
	log      *bytes.Buffer // its output; read it only after it has ended
	err      error         // its result
	ended    chan struct{} // closed when it has ended
	marks    int           // sent by [world.all]

	mu      sync.Mutex
	arrived []tidings.Event // in order, with duplicates, without type [last]
	ids     map[string]bool // of arrived
	marked  string          // the resource of the latest event of type [last]
	more    chan struct{}   // closed and replaced at each arrival
}

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// role is the application's role.
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

// receiver starts a receiver that records what arrives, and returns its URL.
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
			w.Errorf("a webhook is not valid: %v", err)
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

// write writes the settings of a relay to its file.
func (w *world) write(settings map[string]any) {
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
}

// relay attaches the tables in the settings and starts a relay, which ends with the test.
func (w *world) relay(settings map[string]any) {
	w.Helper()
	w.write(settings)
	w.run(w.tidings("attach"))
	w.start()
	w.Cleanup(func() {
		_ = w.process.Process.Signal(syscall.SIGTERM)
		if <-w.ended; w.err != nil || w.Failed() {
			w.Errorf("the relay ended with %v; output:\n%.5000s", w.err, w.log)
		}
	})
	// An endpoint starts with the events written after the relay first saw it.
	w.wait(func() bool {
		w.mark("begin")
		return w.marked != ""
	})
}

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

// kill kills the relay and starts another one.
func (w *world) kill() {
	w.Helper()
	_ = w.process.Process.Kill()
	<-w.ended
	w.start()
}

// tidings returns a Tidings command with the relay's configuration.
func (w *world) tidings(command string, more ...string) *exec.Cmd {
	w.Helper()
	program, err := build()
	if err != nil {
		w.Fatal(err)
	}
	return exec.Command(program, append([]string{command, "--config", w.settings}, more...)...)
}

// run runs a program to its end and returns its output.
func (w *world) run(cmd *exec.Cmd) string {
	w.Helper()
	out, err := output(cmd)
	if err != nil {
		w.Fatalf("%v: %v\n%.5000s", cmd.Args, err, out)
	}
	return string(out)
}

// patience is the time limit for a program, or for the delivery of its changes.
const patience = time.Minute

// output runs a program, which ends at the latest with this one, and returns its output.
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

// last is the type of events that mark the end: they arrive after everything that was
// written before.
const last = "sentinel"

func (w *world) mark(id string) {
	w.Helper()
	w.exec("SELECT tidings.emit('" + last + "', 'created', '" + id + "')")
}

// all waits for n events and returns them in order of arrival, including duplicates.
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

// wait waits until a condition on what arrived is true. On a timeout the test fails but
// continues.
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
			w.Errorf("%d webhooks arrived within %v; %d events are numbered, %d are not (%v)", n, limit, numbered, waiting, err)
			return
		}
	}
}

// look reports whether the condition is true and how many events arrived. more is closed
// at the next arrival.
func (w *world) look(until func() bool) (done bool, n int, more <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return until(), len(w.arrived), w.more
}
