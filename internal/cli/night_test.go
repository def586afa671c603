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

// An operator's night: three endpoints fail in different ways. The operator finds and
// explains the failures, then pauses, repairs, retries and replays, by commands as typed.
func TestNight(t *testing.T) {
	testtool.InAll(t) // probes of endpoints that are down take seconds
	testscript.Run(t, testscript.Params{
		Dir: "testdata/night",
		Setup: func(e *testscript.Env) error {
			r := &receivers{failures: make(map[string]answer)}
			server := httptest.NewServer(r)
			e.Defer(func() { r.repairAll(); server.Close() })
			e.Values["receivers"] = r
			e.Setenv("RECEIVERS", server.URL)
			return freeAddress(e)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"waitready": waitReady, "request": request, "requests": requests, "terminal": onTerminal,
			"fail": fail, "repair": repair, "until": until, "fill": fill, "keep": keep,
		},
		UpdateScripts: os.Getenv("TESTSCRIPT_UPDATE") != "",
	})
}

// receivers is a receiver at each path; they respond with 200 unless told to fail.
type receivers struct {
	mu       sync.Mutex
	failures map[string]answer // by path, or by path and event: "crm context.updated"
	hung     []chan struct{}
}

type answer struct {
	status int // 0: hang up; -1: do not respond
	body   string
}

func (r *receivers) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	var event struct{ Event string }
	_ = json.NewDecoder(request.Body).Decode(&event) // the sender may hang up
	r.mu.Lock()
	path := strings.Trim(request.URL.Path, "/")
	a, fails := r.failures[path+" "+event.Event]
	if !fails {
		a, fails = r.failures[path]
	}
	repaired := make(chan struct{})
	if fails && a.status < 0 {
		r.hung = append(r.hung, repaired)
	}
	r.mu.Unlock()
	switch {
	case !fails:
	case a.status == 0:
		panic(http.ErrAbortHandler)
	case a.status < 0:
		select {
		case <-repaired:
		case <-request.Context().Done():
		}
	default:
		http.Error(w, a.body, a.status)
	}
}

func (r *receivers) repairAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.failures)
	for _, repaired := range r.hung {
		close(repaired)
	}
	r.hung = nil
}

// fail makes a receiver respond with a status and a body, hang up, or not respond.
func fail(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: fail NAME STATUS|hangup|silent [BODY]")
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
	r := ts.Value("receivers").(*receivers)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures[args[0]] = a
}

// repair makes receivers respond with 200 again.
func repair(ts *testscript.TestScript, _ bool, args []string) {
	r := ts.Value("receivers").(*receivers)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range args {
		delete(r.failures, name)
	}
}

// until runs a command until its output matches the pattern, or for "ok", until it succeeds.
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

// keep sets an environment variable to a member of the last printed JSON object.
func keep(ts *testscript.TestScript, _ bool, args []string) {
	var object map[string]any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &object))
	ts.Setenv(args[0], fmt.Sprint(object[args[1]]))
}

// fill writes the address of the receivers into a file.
func fill(ts *testscript.TestScript, _ bool, args []string) {
	text := strings.ReplaceAll(ts.ReadFile(args[0]), "RECEIVERS", ts.Getenv("RECEIVERS"))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}
