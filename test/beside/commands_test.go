package beside

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/testtool"
)

// A DBA runs what attach --print writes; the check and its exit status tell how things
// are, and detach leaves nothing.
func TestCommands(t *testing.T) {
	testtool.InAll(t)
	w := newWorld(t)
	w.exec(`CREATE TABLE app."Odd.Name" (id int PRIMARY KEY, "a b" text)`)
	w.write(map[string]any{"sources": map[string]any{"tables": map[string]any{
		`app."Odd.Name"`: map[string]any{"type": "odd", "url": "/{a b}/{id}"},
	}}})
	check := func(code int, want string) {
		t.Helper()
		out, err := output(w.tidings("attach", "--check"))
		exit := new(exec.ExitError)
		if code == 0 && err != nil || code != 0 && (!errors.As(err, &exit) || exit.ExitCode() != code) ||
			!strings.Contains(string(out), want) {
			t.Errorf("attach --check: %v, %s; want %d, %s", err, out, code, want)
		}
	}
	check(1, `not_attached: run attach`)
	for _, first := range []string{"-- These make the tables of the event log, once.", "-- A lock that is not free"} {
		out, err := w.tidings("attach", "--print").Output()
		if err != nil || !strings.HasPrefix(string(out), first) {
			t.Fatalf("attach --print: %v, %.100s; want %s", err, out, first)
		}
		w.exec(string(out))
	}
	check(0, "all triggers are in place")
	w.exec(`INSERT INTO app."Odd.Name" VALUES (1, 'x')`)
	var url string
	if err := w.db.QueryRowContext(t.Context(), "SELECT resource_url FROM tidings.tidings_outbox").Scan(&url); err != nil ||
		url != "/x/1" {
		t.Errorf("URL %s, %v", url, err)
	}
	if out := w.run(w.tidings("detach")); !strings.Contains(out, `detached: app."Odd.Name"`) {
		t.Errorf("detach: %s", out)
	}
	if out := w.run(w.tidings("detach")); !strings.Contains(out, "nothing to detach") {
		t.Errorf("detach: %s", out)
	}
	check(1, `not_attached: run attach`)
}
