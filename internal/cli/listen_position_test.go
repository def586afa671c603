package cli_test

import (
	"encoding/json"
	"fmt"
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

	"github.com/tidings-dev/tidings/internal/child"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// killer receives webhooks, and kills listen before it answers some of them.
type killer struct {
	deadly map[int]bool // which of the webhooks

	mu     sync.Mutex
	got    []string // ids of resources
	listen *exec.Cmd
}

func (k *killer) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	var e struct {
		ID string `json:"resource_id"`
	}
	_ = json.NewDecoder(r.Body).Decode(&e) // the test sees the missing id
	k.mu.Lock()
	defer k.mu.Unlock()
	k.got = append(k.got, e.ID)
	if k.deadly[len(k.got)] {
		_ = k.listen.Process.Kill()
		<-r.Context().Done() // so that the answer cannot be faster
	}
}

func (k *killer) received() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.got)
}

// start starts listen, and returns what it prints.
func (k *killer) start(t *testing.T, cmd *exec.Cmd) (out *buffer, ended <-chan struct{}) {
	t.Helper()
	out = &buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	child.EndWithUs(cmd, syscall.SIGKILL)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.listen = cmd
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = cmd.Wait() }() // it is killed
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		if t.Failed() {
			t.Logf("%.2000s", out.String())
		}
	})
	return out, done
}

func isKilled(t *testing.T, ended <-chan struct{}) {
	t.Helper()
	select {
	case <-ended:
	case <-time.After(testtool.Allow(30 * time.Second)):
		t.Fatal("waited in vain for the webhook at which listen is killed")
	}
}

// After kill -9 listen continues where it ended: it misses no event, and repeats only
// the one that was under way.
func TestListenContinuesAfterItWasKilled(t *testing.T) {
	testtool.InAll(t)
	t.Parallel()
	folder, name := t.TempDir(), program(t)
	positions := filepath.Join(folder, "tidings", "listen-positions")
	oldPositions(t, positions, 150)
	p := &publisher{address: testtool.FreeAddress(t), folder: folder, program: name}
	p.start(t)
	k := &killer{deadly: map[int]bool{1: true, 300: true, 700: true}}
	receiver := httptest.NewServer(k)
	defer receiver.Close()
	listen := func(more ...string) (*buffer, <-chan struct{}) {
		return k.start(t, run(t.Context(), name, []string{"XDG_CONFIG_HOME=" + folder}, append([]string{
			"listen", "--forward-to", receiver.URL, "--url", p.address, "--data-dir", filepath.Join(folder, "data"),
		}, more...)...))
	}

	out, ended := listen("--types", "order.*")
	out.waitFor(t, "following the events after position")
	p.publish(t, 500)
	isKilled(t, ended) // at the first webhook
	_, ended = listen("--types", "order.*")
	isKilled(t, ended)
	p.publish(t, 500)
	_, ended = listen("--types", "order.*")
	isKilled(t, ended)
	out, ended = listen("--types", "order.*")
	out.waitFor(t, "continuing where it ended")
	waitUntil(t, "all events", func() bool { return k.received() >= p.last+len(k.deadly) })
	_ = k.listen.Process.Kill()
	<-ended
	at := 0
	for n, id := range k.got {
		if !k.deadly[n] { // else this one repeats it
			at++
		}
		if id != strconv.Itoa(at) {
			t.Fatalf("delivery %d is of resource %s, want %d", n+1, id, at)
		}
	}

	// The file is its owner's; there are not more and more of them.
	files, err := os.ReadDir(positions)
	if err != nil || len(files) > 101 {
		t.Errorf("%d positions are kept: %v", len(files), err)
	}
	for _, f := range files {
		if info, err := f.Info(); err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f.Name(), info.Mode())
		}
	}

	// Other options are another position, and --since replaces one.
	out, _ = listen("--types", "order.updated")
	out.waitFor(t, "following the events after position")
	out, _ = listen("--types", "order.*", "--since", "1h")
	out.waitFor(t, "--> order.updated /order/1\n")
	if strings.Contains(out.String(), "continuing") {
		t.Error("--since does not replace the position")
	}

	// A file continues where it ended, too.
	record := filepath.Join(folder, "events.jsonl")
	for _, since := range [][]string{{"--since", "1h"}, nil, nil} {
		runUntil(t, run(t.Context(), name, []string{"XDG_CONFIG_HOME=" + folder}, append([]string{
			"listen", "--record", record, "--url", p.address, "--data-dir", filepath.Join(folder, "data"), "--types", "order.*",
		}, since...)...), "/order/"+strconv.Itoa(p.last)+"\n")
		p.publish(t, 2)
	}
	text, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	lines := slices.Compact(strings.Split(string(text), "\n")) // the last one before the end may be there twice
	for i, line := range lines[:len(lines)-1] {
		if !strings.Contains(line, fmt.Sprintf(`"resource_id":"%d"`, i+1)) {
			t.Fatalf("line %d of the recorded file: %s", i+1, line)
		}
	}
	if n := len(lines) - 1; n != p.last-2 {
		t.Errorf("%d events were recorded of %d", n, p.last-2)
	}
}

// oldPositions makes positions of others.
func oldPositions(t *testing.T, folder string, n int) {
	t.Helper()
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		file := filepath.Join(folder, strconv.Itoa(i))
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, time.Time{}, time.Now().Add(-24*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
}
