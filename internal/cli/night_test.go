package cli_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tidings-dev/tidings/internal/testtool"
)

// An operator's night: three endpoints are sick, each in its way. They are found,
// explained, paused, mended, retried and replayed, by commands as typed.
func TestNight(t *testing.T) {
	testtool.InAll(t) // probes of endpoints that are down take seconds
	testscript.Run(t, testscript.Params{
		Dir: "testdata/night",
		Setup: func(e *testscript.Env) error {
			w := &ward{patients: make(map[string]answer)}
			server := httptest.NewServer(w)
			e.Defer(func() { w.recover(); server.Close() })
			e.Values["ward"] = w
			e.Setenv("WARD", server.URL)
			return freeAddress(e)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"waitready": waitReady, "request": request, "requests": requests, "terminal": onTerminal,
			"sicken": sicken, "mend": mend, "until": until, "fill": fill, "keep": keep,
		},
		UpdateScripts: os.Getenv("TESTSCRIPT_UPDATE") != "",
	})
}

// ward has receivers, one for each path, which answer with 200 unless they are sick.
type ward struct {
	mu       sync.Mutex
	patients map[string]answer // by path, or by path and event: "crm context.updated"
	hung     []chan struct{}
}

type answer struct {
	status int // 0: hangs up; -1: does not answer
	body   string
}

func (w *ward) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	var event struct{ Event string }
	_ = json.NewDecoder(r.Body).Decode(&event) // the sender may hang up
	w.mu.Lock()
	path := strings.Trim(r.URL.Path, "/")
	a, sick := w.patients[path+" "+event.Event]
	if !sick {
		a, sick = w.patients[path]
	}
	mended := make(chan struct{})
	if sick && a.status < 0 {
		w.hung = append(w.hung, mended)
	}
	w.mu.Unlock()
	switch {
	case !sick:
	case a.status == 0:
		panic(http.ErrAbortHandler)
	case a.status < 0:
		select {
		case <-mended:
		case <-r.Context().Done():
		}
	default:
		http.Error(out, a.body, a.status)
	}
}

// recover mends all.
func (w *ward) recover() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.patients)
	for _, mended := range w.hung {
		close(mended)
	}
	w.hung = nil
}

// sicken makes a receiver answer with a status and a body, hang up, or not answer.
func sicken(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: sicken NAME STATUS|hangup|silent [BODY]")
	}
	var a answer
	switch args[1] {
	case "hangup":
	case "silent":
		a.status = -1
	default:
		var err error
		a.status, err = strconv.Atoi(args[1])
		ts.Check(err)
	}
	a.body = strings.Join(args[2:], " ")
	w := ts.Value("ward").(*ward)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.patients[args[0]] = a
}

// mend makes receivers answer with 200 again.
func mend(ts *testscript.TestScript, _ bool, args []string) {
	w := ts.Value("ward").(*ward)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range args {
		delete(w.patients, name)
	}
}

// until runs a command until it prints what matches; "ok" is for one that succeeds.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until PATTERN COMMAND...")
	}
	want := regexp.MustCompile("(?m)" + args[0])
	for deadline := time.Now().Add(testtool.Allow(30 * time.Second)); ; {
		err := ts.Exec(args[1], args[2:]...)
		out := ts.ReadFile("stdout") + ts.ReadFile("stderr")
		if args[0] == "ok" && err == nil || args[0] != "ok" && want.MatchString(out) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("no %s in\n%s", args[0], out)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// keep sets an environment variable to a member of the JSON object that was printed.
func keep(ts *testscript.TestScript, _ bool, args []string) {
	var object map[string]any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &object))
	ts.Setenv(args[0], fmt.Sprint(object[args[1]]))
}

// fill replaces the address of the receivers in a file.
func fill(ts *testscript.TestScript, _ bool, args []string) {
	text := strings.ReplaceAll(ts.ReadFile(args[0]), "WARD", ts.Getenv("WARD"))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}
